//! How long servers take.

use std::time::{Duration, Instant};

/// Measures servers: how fast they answer, and how long they have been silent. Says nothing about when things happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "it measures servers; what happens in a run is stamped elsewhere")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
