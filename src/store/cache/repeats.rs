//! Requests that are made again: how many for each cache, why, and how long was waited before. Whoever waits notes it
//! here; the driver asks now and then what is new.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::event::Failure;

/// Kinds of reasons that are told apart for a cache, and characters of each.
const REASONS: usize = 16;
const REASON: usize = 60;

/// The notes of all caches of a run.
#[derive(Debug, Clone, Default)]
pub struct Repeats(Arc<Mutex<BTreeMap<String, Tally>>>);

/// Totals of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// Why most of them were, `HTTP 429`.
    pub reason: String,
    /// Requests that were made again.
    pub requests: u32,
    /// What was waited before, all together.
    pub waited: Duration,
}

#[derive(Debug, Default)]
struct Tally {
    reasons: BTreeMap<String, u32>,
    requests: u32,
    waited: Duration,
    told: u32,
}

impl Repeats {
    /// A request to the cache with this URL, as people see it, has failed so and is made again after a wait.
    pub(super) fn note(&self, url: &str, failure: &Failure, wait: Duration) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = all.entry(url.to_owned()).or_default();
        tally.requests = tally.requests.saturating_add(1);
        tally.waited = tally.waited.saturating_add(wait);
        let reason = reason(&failure.message);
        if tally.reasons.len() < REASONS || tally.reasons.contains_key(&reason) {
            *tally.reasons.entry(reason).or_default() += 1;
        }
    }

    /// The totals of caches, by URL, that have grown since this was last asked.
    #[must_use]
    pub fn news(&self) -> Vec<(String, Repeated)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = all.iter_mut().filter(|(_, tally)| tally.requests > tally.told);
        grown
            .map(|(url, tally)| {
                tally.told = tally.requests;
                let most = tally.reasons.iter().max_by_key(|(_, count)| **count);
                let reason = most.map(|(reason, _)| reason.clone()).unwrap_or_default();
                (url.clone(), Repeated { reason, requests: tally.requests, waited: tally.waited })
            })
            .collect()
    }
}

/// The beginning of a message, which its kind has in common: up to the first mark.
fn reason(message: &str) -> String {
    let end = message.find([':', ',', '(', ';', '\n']).unwrap_or(message.len());
    message[..end].trim().replace("HTTP status ", "HTTP ").chars().take(REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    #[test]
    fn totals_are_told_when_they_have_grown() {
        let repeats = Repeats::default();
        assert_eq!(repeats.news(), []);
        let second = Duration::from_secs(1);
        for message in ["HTTP status 429: slow down", "timed out", "HTTP status 429 (again)"] {
            repeats.note("https://a", &Failure::new(Class::Network, message), second);
        }
        let told = |requests| Repeated { reason: "HTTP 429".to_owned(), requests, waited: second * requests };
        assert_eq!(repeats.news(), [("https://a".to_owned(), told(3))]);
        assert_eq!(repeats.news(), []);
        for n in 0..100 {
            repeats.note("https://a", &Failure::new(Class::Network, format!("cause {n}")), second);
        }
        assert_eq!(repeats.news(), [("https://a".to_owned(), told(103))]);
        assert!(repeats.0.lock().unwrap()["https://a"].reasons.len() <= REASONS);
    }
}
