//! Runs in numbers, for tests.

use std::collections::BTreeMap;

use crate::id::RunId;
use crate::record::history::{Counters, Entry};

/// A run that took so long and built 12 drvs.
pub(crate) fn run(seconds: f64) -> Entry {
    Entry {
        run: RunId(ulid::Ulid::from_parts(0, 0)),
        started: jiff::Timestamp::UNIX_EPOCH,
        seconds,
        exit: Some(0),
        command: "run".into(),
        what: Vec::new(),
        drover: "0.1.0".into(),
        nix: "2.34.8".into(),
        flake: None,
        rev: None,
        branch: None,
        change: None,
        inputs: BTreeMap::new(),
        verdict: String::new(),
        counters: Counters { built: 12, to_build: 12, paths_hit: 90, paths_asked: 100, ..Counters::default() },
        stages: BTreeMap::new(),
        account: Vec::new(),
        builders: Vec::new(),
        caches: Vec::new(),
        attrs: Vec::new(),
        builds: Vec::new(),
        chain_seconds: 0.0,
    }
}
