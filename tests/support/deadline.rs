//! How long something may take on a machine that has time for it.
#![expect(clippy::disallowed_methods, reason = "how long something takes is what is tested")]

use std::fmt::Debug;
use std::fs;
use std::time::{Duration, Instant};

/// However busy the machine is.
const AT_MOST: Duration = Duration::from_secs(30);

/// A moment after which something is too late. Time in which anybody on this machine waits for a processor does not
/// count: whoever ought to act may be the one who waits.
pub struct Deadline {
    begun: Instant,
    limit: Duration,
    /// See [`waited`].
    waited: Duration,
}

impl Deadline {
    /// So long from now.
    pub fn after(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit, waited: waited() }
    }

    /// Nobody may be waited for any more.
    pub fn is_over(&self) -> bool {
        let taken = self.begun.elapsed();
        let hurried = waited().saturating_sub(self.waited);
        taken > AT_MOST.max(self.limit) || taken.saturating_sub(hurried) > self.limit
    }
}

/// For how long somebody has waited for a processor since the machine was started, by Linux's account of pressure; zero
/// where it keeps none.
fn waited() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("some ")?.rsplit_once("total=")?.1.parse().ok());
    Duration::from_micros(total.unwrap_or(0))
}

/// Fails if anything is left after the limit.
pub fn expect_nothing_left<T: Debug>(limit: Duration, what: &str, left: impl Fn() -> Vec<T>) {
    let deadline = Deadline::after(limit);
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(!deadline.is_over(), "{what} is left: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
