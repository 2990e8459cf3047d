//! When a request to a cache is tried again, and how many run at once.
//!
//! The numbers are Nix's own (`retry-attempts` and so on): 5 attempts, delays of 100 ms doubling, 5 s after "too many
//! requests", full jitter, a `Retry-After` as the floor; besides, an end to patience for one path.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

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

/// Bounds the number of requests in flight: fewer when the server says "too many", slowly more when it answers.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Semaphore,
    limit: AtomicUsize,
    most: usize,
    answers: AtomicUsize,
}

/// Requests in flight that no server can be too slow for.
const FEWEST: usize = 4;

impl Gate {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { permits: Semaphore::new(most), limit: AtomicUsize::new(most), most, answers: AtomicUsize::new(0) }
    }

    /// Waits for a place. `None` cannot happen: the gate is never closed.
    pub(super) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    /// The server answered.
    pub(super) fn answered(&self) {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit < self.most && self.answers.fetch_add(1, Ordering::Relaxed) % 16 == 15 {
            self.limit.store(limit + 1, Ordering::Relaxed);
            self.permits.add_permits(1);
        }
    }

    /// The server said "too many": the place is given up.
    pub(super) fn throttled(&self, place: Option<SemaphorePermit<'_>>) {
        let limit = self.limit.load(Ordering::Relaxed);
        if let Some(place) = place
            && limit > FEWEST.min(self.most)
        {
            self.limit.store(limit - 1, Ordering::Relaxed);
            place.forget();
        }
    }
}

/// Whether a cache seems to be down. It is after several paths in a row got no answer; then no other path waits for
/// it in vain, and the next batch asks for one path first.
#[derive(Debug, Default)]
pub(super) struct Health {
    given_up: AtomicU32,
    timed_out: AtomicU32,
    down: AtomicBool,
}

impl Health {
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Any real answer, also "I do not have it".
    pub(super) fn answered(&self) {
        self.given_up.store(0, Ordering::Relaxed);
        self.timed_out.store(0, Ordering::Relaxed);
        self.down.store(false, Ordering::Relaxed);
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

    #[tokio::test]
    async fn the_gate_narrows_and_widens() {
        let gate = Gate::new(8);
        for _ in 0..20 {
            let place = gate.enter().await;
            gate.throttled(place);
        }
        assert_eq!((gate.permits.available_permits(), gate.limit.load(Ordering::Relaxed)), (4, 4));
        for _ in 0..16 * 20 {
            gate.answered();
        }
        assert_eq!((gate.permits.available_permits(), gate.limit.load(Ordering::Relaxed)), (8, 8));
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
        health.answered();
        assert!(!health.is_down());
    }
}
