//! The live part of a terminal, drawn by indicatif: one bar whose message is the whole part. Owns that the terminal
//! is left as it was found, also by a panic.

use std::sync::Once;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::text::{Line, Style};

/// Drawings a second that indicatif allows; more than [`super::Ui`] asks for, so that none is lost.
const HZ: u8 = 30;

/// What a panic must clear before its message is printed. There is one terminal.
static SHOWN: Mutex<Option<MultiProgress>> = Mutex::new(None);

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
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bars.clone());
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // A panic while drawing holds the lock; then the message matters more than the lines around it.
                if let Ok(shown) = SHOWN.try_lock()
                    && let Some(bars) = &*shown
                {
                    let _ = bars.clear();
                }
                before(panic);
            }));
        });
        Self { bars, bar }
    }

    /// Draws the live part anew.
    pub(super) fn draw(&mut self, lines: &[Line], style: Style) {
        let lines: Vec<String> = lines.iter().map(|line| line.render(style)).collect();
        self.bar.set_message(lines.join("\n"));
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
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Columns of the terminal on stderr.
pub fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}
