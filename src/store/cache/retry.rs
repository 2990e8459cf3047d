//! When a request to a cache is tried again, and when it is not even sent.
//!
//! The numbers are Nix's own (`retry-attempts` and so on): 5 attempts, delays of 100 ms doubling, 5 s after "too many
//! requests", full jitter, a `Retry-After` as the floor; besides, an end to patience for one path.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::stopwatch::Stopwatch;

/// How patient drover is with a cache on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often one request is sent at most.
    pub attempts: u32,
    /// First delay after a failure; doubles.
    pub delay: Duration,
    /// First delay after 429 or 503; doubles.
    pub delay_rate_limited: Duration,
    /// Longest delay.
    pub max_delay: Duration,
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest wait for one whole answer.
    pub answer: Duration,
    /// Longest time for one path, all attempts and delays included.
    pub path: Duration,
    /// An upload of which no byte moves for so long is broken off.
    pub stall: Duration,
    /// All delays between the attempts to write one file together.
    pub push: Duration,
    /// How long a cache that is down is left alone before it is asked for one path again; doubles.
    pub rest: Duration,
    /// How often one file is sent at most where the cache says "too many requests"; other failures are held to
    /// `attempts`.
    pub rate_limited_attempts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            delay: Duration::from_millis(100),
            delay_rate_limited: Duration::from_secs(5),
            max_delay: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            path: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            push: Duration::from_secs(300),
            rest: Duration::from_secs(10),
            rate_limited_attempts: 1000,
        }
    }
}

impl Patience {
    /// For what is done before a run begins: a write is given up when a question would be.
    pub(super) fn brief(self) -> Self {
        Self {
            push: self.path,
            stall: self.answer,
            rate_limited_attempts: self.attempts.min(self.rate_limited_attempts),
            ..self
        }
    }

    /// How long to wait after attempt number `attempt` (from 1) failed.
    pub(super) fn wait(&self, attempt: u32, throttled: bool, floor: Option<Duration>) -> Duration {
        let base = if throttled { self.delay_rate_limited } else { self.delay };
        let cap = base.saturating_mul(1u32 << attempt.saturating_sub(1).min(16)).min(self.max_delay);
        let wait = cap.mul_f64(jitter());
        floor.map_or(wait, |floor| wait.max(floor))
    }
}

/// A number in 0‥1, from the randomness that the standard library keeps for its hash maps.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(0u8);
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// No cache that is down is left alone for longer, unless that is what was asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Whether a cache seems to be down. It is after several paths in a row got no answer; then no other path waits for
/// it in vain: all are without answer at once, and now and then one is asked, until it answers again.
#[derive(Debug)]
pub(super) struct Health {
    given_up: AtomicU32,
    timed_out: AtomicU32,
    down: AtomicBool,
    /// Answers so far.
    answers: AtomicU64,
    /// Somebody finds out whether it answers at all.
    tested: AtomicBool,
    rest: Mutex<Rest>,
    watch: Stopwatch,
}

/// When a cache that is down may be asked again.
#[derive(Debug, Default)]
struct Rest {
    until: Duration,
    /// The last pause; none before the first.
    pause: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            given_up: AtomicU32::new(0),
            timed_out: AtomicU32::new(0),
            down: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            tested: AtomicBool::new(false),
            rest: Mutex::default(),
            watch: Stopwatch::start(),
        }
    }
}

impl Health {
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Whether one path may be asked of a cache that is down. Once somebody may, the next may not before a pause.
    pub(super) fn may_probe(&self, patience: &Patience) -> bool {
        self.may_probe_at(self.watch.elapsed(), patience.rest)
    }

    fn may_probe_at(&self, now: Duration, first: Duration) -> bool {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if now < rest.until {
            return false;
        }
        rest.pause = rest.pause.saturating_mul(2).min(LONGEST_PAUSE).max(first);
        rest.until = now.saturating_add(rest.pause);
        true
    }

    /// How many answers there were.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Whether somebody who was not answered, and cannot wait, should have it found out whether the cache answers at
    /// all. `answers`: how many there had been when it was asked.
    pub(super) fn is_in_doubt(&self, answers: u64) -> bool {
        !self.is_down() && self.answers() == answers && !self.tested.swap(true, Ordering::Relaxed)
    }

    /// That has been found out.
    pub(super) fn tested(&self) {
        self.tested.store(false, Ordering::Relaxed);
    }

    /// Any real answer, also "I do not have it".
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.given_up.store(0, Ordering::Relaxed);
        self.timed_out.store(0, Ordering::Relaxed);
        if self.down.swap(false, Ordering::Relaxed) {
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Rest::default();
        }
    }

    /// One attempt waited in vain.
    pub(super) fn timed_out(&self) {
        if self.timed_out.fetch_add(1, Ordering::Relaxed) + 1 >= 16 {
            self.down.store(true, Ordering::Relaxed);
        }
    }

    /// All attempts for one path failed.
    pub(super) fn gave_up(&self) {
        if self.given_up.fetch_add(1, Ordering::Relaxed) + 1 >= 3 {
            self.down.store(true, Ordering::Relaxed);
        }
    }
}

/// How long a server takes to answer, of late: each new time counts for an eighth. The first one, which made a
/// connection too, counts less and less.
#[derive(Debug, Default)]
pub(super) struct Pace(AtomicU64);

impl Pace {
    pub(super) fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mix = |old: u64| Some(if old == 0 { took } else { old - old / 8 + took / 8 });
        // It never gives up.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, mix);
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// How often one thing has been tried, and how long was waited between.
#[derive(Debug, Default)]
pub(super) struct Tries {
    tries: u32,
    /// Those that did not fail because the server had too much to do.
    failures: u32,
    waited: Duration,
}

impl Tries {
    /// One more try came to nothing: how long to wait before the next; `None` if patience is at its end, which it is
    /// at once where there is no hope.
    pub(super) fn again(
        &mut self,
        patience: Patience,
        throttled: bool,
        floor: Option<Duration>,
        hopeless: bool,
    ) -> Option<Duration> {
        self.tries += 1;
        self.failures += u32::from(!throttled);
        let wait = patience.wait(self.tries, throttled, floor);
        let late = self.waited + wait > patience.push;
        let often = self.failures >= patience.attempts || self.tries >= patience.rate_limited_attempts;
        if hopeless || late || often {
            return None;
        }
        self.waited += wait;
        Some(wait)
    }

    /// How many there were.
    pub(super) fn count(&self) -> u32 {
        self.tries
    }

    /// How long was waited between them.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_bounds() {
        let patience = Patience::default();
        for attempt in 1..40 {
            let wait = patience.wait(attempt, false, None);
            assert!(wait <= Duration::from_millis(100 * (1 << (attempt - 1).min(16))) && wait <= patience.max_delay);
        }
        assert!((0..64).any(|_| patience.wait(1, true, None) > patience.delay), "rate limits wait longer");
        assert_eq!(patience.wait(1, false, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&jitter())));
    }

    #[test]
    fn a_cache_is_down_until_it_answers() {
        let health = Health::default();
        health.gave_up();
        health.gave_up();
        health.answered();
        health.gave_up();
        health.gave_up();
        assert!(!health.is_down());
        health.gave_up();
        assert!(health.is_down());
        let second = Duration::from_secs(1);
        let may: Vec<bool> =
            [0, 9, 10, 29, 30, 50].iter().map(|at| health.may_probe_at(second * *at, second * 10)).collect();
        assert_eq!(may, [true, false, true, false, true, false], "pauses double");
        health.answered();
        assert_eq!(
            [1, 2, 2].map(|answers| health.is_in_doubt(answers)),
            [false, true, false],
            "once, and only if it has said nothing since"
        );
        assert!(!health.is_down() && health.may_probe_at(second * 51, second), "all is forgotten");
    }
}
