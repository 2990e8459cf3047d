//! Ctrl-C and SIGTERM as levels: 1 stops cleanly, 2 stops now.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Fault};

/// Counts the requests to stop.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    level: u8,
}

impl Signals {
    /// From now on neither signal ends the process by itself.
    pub(super) fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(|e| Error::new(Fault::Bug, format!("cannot listen for signals: {e}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, level: 0 })
    }

    /// Waits for the next request; gives its level.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        self.level = self.level.saturating_add(1).min(2);
        self.level
    }
}
