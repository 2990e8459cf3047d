//! The live part of a terminal, drawn by indicatif: one bar whose message is the whole part. Owns that the terminal
//! is left as it was found, also by a panic.

use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

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
        Self { bars, bar }
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
        SHOWN.store(0, Ordering::Relaxed);
    }
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
