//! What a recorded run says of its attempts.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// One attempt; times are seconds since the run began.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) builder: u64,
    pub(crate) started: f64,
    /// All inputs were there.
    pub(crate) prepared: f64,
    /// The builder ran.
    pub(crate) building: f64,
    pub(crate) ended: f64,
}

/// See the module's page.
pub(crate) struct Record {
    pub(crate) attempts: BTreeMap<u64, Attempt>,
    /// When the first attempt began and the last ended.
    pub(crate) first: f64,
    pub(crate) last: f64,
}

impl Record {
    pub(crate) fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let mut record = Self { attempts: BTreeMap::new(), first: f64::MAX, last: 0.0 };
        for line in text.lines() {
            record.add(&serde_json::from_str(line).unwrap());
        }
        record
    }

    fn add(&mut self, event: &Value) {
        // Recorded in microseconds.
        let at = event["at"].as_f64().unwrap() / 1e6;
        let number = |key: &str| event[key].as_u64().unwrap_or_default();
        let name = event["event"].as_str().unwrap();
        if let Some(step) = name.strip_prefix("attempt_") {
            let attempt = self.attempts.entry(number("attempt")).or_default();
            match step {
                "started" => {
                    attempt.builder = number("builder");
                    attempt.started = at;
                    self.first = self.first.min(at);
                }
                "prepared" => attempt.prepared = at,
                "building" => attempt.building = at,
                "ended" => {
                    attempt.ended = at;
                    self.last = self.last.max(at);
                }
                _ => {}
            }
        }
    }

    /// Seconds that builders ran.
    pub(crate) fn work(&self) -> f64 {
        self.attempts.values().map(|attempt| attempt.ended - attempt.building).sum()
    }
}
