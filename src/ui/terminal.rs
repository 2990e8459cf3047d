//! The live part of a terminal, drawn by indicatif: one bar whose message is the whole part. Owns that the terminal
//! is left as it was found, also by a panic.

use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::report::text::{Line, Style};

/// Drawings a second that indicatif allows; more than [`super::Ui`] asks for, so that none is lost.
const HZ: u8 = 30;

/// Lines of the live part that are on the terminal now. There is one terminal.
static SHOWN: AtomicUsize = AtomicUsize::new(0);

/// The hook is set once a process, on top of the one that was there.
static HOOK: Once = Once::new();

pub(super) struct Terminal {
    bars: MultiProgress,
    bar: ProgressBar,
    /// What the terminal did with keys before.
    before: Option<Termios>,
}

impl Terminal {
    /// Takes the bottom of the terminal on stderr; nothing is drawn yet.
    pub(super) fn new() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(HZ));
        let bar = bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                wipe();
                before(panic);
            }));
        });
        Self { bars, bar, before: silence() }
    }

    /// Draws the live part anew.
    pub(super) fn draw(&mut self, lines: &[Line], style: Style) {
        let lines: Vec<String> = lines.iter().map(|line| line.render(style)).collect();
        self.bar.set_message(lines.join("\n"));
        if !self.bars.is_hidden() {
            SHOWN.store(lines.len(), Ordering::Relaxed);
        }
    }

    /// Prints lines above it.
    pub(super) fn print(&mut self, text: &str) {
        // A closed stderr must not end the run.
        let _ = self.bars.println(text.trim_end_matches('\n'));
    }

    /// Removes the live part.
    pub(super) fn clear(&mut self) {
        self.bar.finish_and_clear();
        let _ = self.bars.clear();
        if let Some(before) = self.before.take().filter(|_| is_ours()) {
            let _ = tcsetattr(rustix::stdio::stderr(), OptionalActions::Now, &before);
        }
        SHOWN.store(0, Ordering::Relaxed);
    }
}

/// Keeps the terminal from showing `^C` where the cursor is: in the last column of the live part, which would become
/// a line longer than drawn and leave its first line behind. Gives what was in force.
fn silence() -> Option<Termios> {
    let before = tcgetattr(rustix::stdio::stderr()).ok().filter(|_| is_ours())?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHOCTL);
    tcsetattr(rustix::stdio::stderr(), OptionalActions::Now, &quiet).ok()?;
    Some(before)
}

/// Whether this process is in the foreground: in the background the system stops whoever changes the terminal.
fn is_ours() -> bool {
    rustix::termios::tcgetpgrp(rustix::stdio::stderr()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Removes the live part when the thread panics: indicatif draws nothing any more then. The cursor is at the end of
/// the last line, and no line is as wide as the terminal.
fn wipe() {
    let lines = SHOWN.swap(0, Ordering::Relaxed);
    if lines > 0 {
        let up = if lines > 1 { format!("\u{1b}[{}A", lines - 1) } else { String::new() };
        let _ = write!(std::io::stderr(), "\r{up}\u{1b}[J");
    }
}

/// Columns of the terminal on stderr.
pub fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
