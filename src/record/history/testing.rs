//! Runs for the tests of history.

use std::collections::BTreeMap;

use super::{Build, Counters, Entry, Outcome};
use crate::id::RunId;

/// The run of an hour, counted from midnight of some day.
pub(super) fn run(hour: u64) -> RunId {
    RunId(ulid::Ulid::from_parts(started(hour).as_millisecond() as u64, 7))
}

fn started(hour: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_699_920_000 + 3600 * hour as i64).unwrap()
}

/// A run that built nothing.
pub(crate) fn entry(hour: u64) -> Entry {
    Entry {
        run: run(hour),
        started: started(hour),
        seconds: 10.0,
        exit: Some(0),
        command: "run".to_owned(),
        what: Vec::new(),
        drover: "0.1.0".to_owned(),
        nix: "2.34.8".to_owned(),
        flake: Some("git+file:///infra".to_owned()),
        rev: None,
        branch: Some("main".to_owned()),
        change: None,
        inputs: BTreeMap::from([("nixpkgs".to_owned(), "5f2a1c".to_owned())]),
        verdict: "1 package ok".to_owned(),
        counters: Counters::default(),
        stages: BTreeMap::new(),
        account: Vec::new(),
        builders: Vec::new(),
        caches: Vec::new(),
        attrs: Vec::new(),
        builds: Vec::new(),
        origins: Vec::new(),
        chain_seconds: 0.0,
    }
}

/// A drv that was built in so many seconds.
pub(super) fn build(name: &str, seconds: f64) -> Build {
    Build {
        drv: format!("7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-{name}.drv"),
        name: name.to_owned(),
        system: "x86_64-linux".into(),
        builder: "big1".to_owned(),
        ready: 0.5,
        started: 1.0,
        building: Some(1.25),
        ended: 1.25 + seconds,
        outcome: Outcome::Built,
        cpu: None,
        brought: 0,
        bytes: Some(100),
    }
}
