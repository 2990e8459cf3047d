//! How far it is: a line on a terminal, in a log a line every half minute.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::driver::upkeep::Progress;
use crate::report::number::{count, size};
use crate::report::text::Line;

use super::super::{Session, live, say};

/// Nothing is silent for longer.
const SILENCE: Duration = Duration::from_secs(30);

/// Waits for the work, and shows how far it is.
pub(super) async fn show<T>(
    session: &Session,
    progress: &watch::Receiver<Progress>,
    work: impl Future<Output = T>,
) -> T {
    let on_terminal = session.terminal.live;
    let mut work = std::pin::pin!(work);
    let mut frames = tokio::time::interval(if on_terminal { live::FRAME } else { SILENCE });
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first is at once.
    frames.tick().await;
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            _ = frames.tick() => {
                let Some(line) = line(&progress.borrow()) else { continue };
                if on_terminal { live::draw(session, line) } else { say(&[line], session.style()) }
            }
        }
    };
    if on_terminal {
        live::wipe();
    }
    done
}

fn line(progress: &Progress) -> Option<Line> {
    if progress.what.is_empty() {
        return None;
    }
    let number = match (progress.done, progress.of) {
        (0, 0) => String::new(),
        (done, 0) => format!("  {}", count(done)),
        (done, of) => format!("  {} of {}", count(done), count(of)),
    };
    let bytes = if progress.bytes > 0 { format!("  {}", size(progress.bytes)) } else { String::new() };
    Some(Line::from(format!("{}{number}{bytes}", progress.what)))
}
