//! How long something may take on a machine that has time for it.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![expect(clippy::disallowed_methods, reason = "how long something takes is what is tested")]

use std::fmt::Debug;
use std::fs;
use std::time::{Duration, Instant};

/// What has to come, and what nobody says a time for, comes within this, or not at all.
const EVER: Duration = Duration::from_secs(300);

/// However busy the machine is.
const AT_MOST: Duration = Duration::from_secs(30);

/// A moment after which something is too late. Time in which anybody on this machine waits for a processor or a disk
/// does not count: whoever ought to act may be the one who waits. Where nobody knows that time, all have all of it.
pub struct Deadline {
    begun: Instant,
    limit: Duration,
    /// See [`waited`].
    waited: Option<Duration>,
}

impl Deadline {
    /// So long from now.
    pub fn after(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit, waited: waited() }
    }

    /// Nobody may be waited for any more.
    pub fn is_over(&self) -> bool {
        let taken = self.begun.elapsed();
        let hurried = self.waited.and_then(|before| Some(waited()?.saturating_sub(before))).unwrap_or(taken);
        taken > AT_MOST.max(self.limit) || taken.saturating_sub(hurried) > self.limit
    }
}

/// For how long somebody has waited for a processor or a disk since the machine was started, by Linux's account of
/// pressure; `None` where it keeps none.
fn waited() -> Option<Duration> {
    let of = |what: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/pressure/{what}")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("some ")?.rsplit_once("total=")?.1.parse().ok())
    };
    Some(Duration::from_micros(of("cpu")? + of("io")?))
}

/// Waits for something that tells nobody when it happens.
#[track_caller]
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < EVER, "waited {} s for {what}", EVER.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
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
