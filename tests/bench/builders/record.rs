//! What a recorded run says of its attempts.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// One attempt; times are seconds since the run began.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) drv: u64,
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
    /// The name of each drv.
    names: BTreeMap<u64, String>,
    /// Seconds between what the daemon says when a builder runs and when it has ended, by the drv's name.
    activities: BTreeMap<String, f64>,
}

impl Record {
    /// Of the events, and of what drover traced.
    pub(crate) fn read(file: &Path, traced: &str) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let (attempts, names) = (BTreeMap::new(), BTreeMap::new());
        let mut record = Self { attempts, first: f64::MAX, last: 0.0, names, activities: activities(traced) };
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
        if name == "drv_needed" {
            self.names.insert(number("drv"), event["name"].as_str().unwrap().to_owned());
        }
        if let Some(step) = name.strip_prefix("attempt_") {
            let attempt = self.attempts.entry(number("attempt")).or_default();
            match step {
                "started" => {
                    attempt.drv = event["drv"].as_u64().unwrap();
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

    /// Seconds that the daemon says it spent on an attempt's build.
    pub(crate) fn activity(&self, attempt: &Attempt) -> f64 {
        self.activities[&self.names[&attempt.drv]]
    }

    /// Seconds that builders ran.
    pub(crate) fn work(&self) -> f64 {
        self.attempts.values().map(|attempt| attempt.ended - attempt.building).sum()
    }
}

/// From lines like `2026-01-31T12:00:00.000000Z TRACE drover::build::attempt: the builder runs drv="name.drv"`.
fn activities(traced: &str) -> BTreeMap<String, f64> {
    let mut since = BTreeMap::new();
    let mut found = BTreeMap::new();
    for line in traced.lines() {
        let Some((_, name)) = line.split_once("drv=\"") else { continue };
        let name = name.trim_end_matches('"').trim_end_matches(".drv");
        if line.contains("the builder runs") {
            since.insert(name, seconds_of_day(line));
        } else if line.contains("the builder has ended") {
            found.insert(name.to_owned(), seconds_of_day(line) - since[name]);
        }
    }
    found
}

/// Of a line that begins with a date and a time.
fn seconds_of_day(line: &str) -> f64 {
    let time = line.split_once('T').unwrap().1.split_once('Z').unwrap().0;
    time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}
