//! What history costs: 1,000 runs of 2,000 builds each are written, then `drover report list` and `--trend` are timed as
//! whole processes, and so is what the end of a run adds to it. With `record DIR SECONDS`, the folder of a real run and
//! how long that took: what all of its recording costs, done again alone, with the same history.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a program that people run and read")]
#![expect(clippy::disallowed_methods, reason = "times are what is measured")]

#[path = "../rows.rs"]
mod rows;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use drover::id::RunId;
use drover::record::history::{Build, Entry, Folder, History, Outcome};
use drover::record::{self, RunDir, Writer};
use drover::report::entry;
use drover::report::list::Digest;
use drover::report::summary::Summary;
use rows::Part;
use serde_json::json;

const RUNS: u64 = 1000;
const BUILDS: usize = 2000;
const TRIES: usize = 7;

fn run(number: u64) -> RunId {
    // One every half hour.
    RunId(ulid::Ulid::from_parts(1_760_000_000_000 + 1_800_000 * number, u128::from(number)))
}

/// A run as a fleet of 40 hosts has them: other versions each time, so that hardly any derivation is the same.
fn past(number: u64) -> Entry {
    let run = run(number);
    let started = jiff::Timestamp::from_second(1_760_000_000 + 1800 * number as i64).unwrap();
    let attrs: Vec<_> = (0..40)
        .map(|n| {
            json!({"attr": format!("nixosConfigurations.host{n}"), "kind": "nixosConfigurations",
                "name": format!("host{n}"), "status": "built", "eval": 1.5, "ended": 400.0, "closure": 2_000_000_000_u64})
        })
        .collect();
    let mut entry: Entry = serde_json::from_value(json!({
        "run": run, "started": started, "seconds": 432.0 + number as f64 % 17.0, "exit": 0, "command": "run",
        "drover": "0.1.0", "nix": "2.34.8", "flake": "git+file:///infra", "branch": "main", "verdict": "40 hosts ok",
        "counters": {"attrs": 40, "hosts": 40, "built": BUILDS, "to_build": BUILDS},
        "stages": {"eval": {"start": 0.0, "end": 50.0}, "build": {"start": 20.0, "end": 420.0}},
        "account": (0..12).map(|n| json!({"what": "building", "owner": format!("p{n}"), "seconds": 36.0})).collect::<Vec<_>>(),
        "attrs": attrs,
    }))
    .unwrap();
    entry.builds = (0..BUILDS).map(|n| build(number, n)).collect();
    entry
}

fn build(run: u64, n: usize) -> Build {
    const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let name = format!("package{n}-1.{}", run % 50);
    // A number that is another for each, in the place of a hash.
    let mut state = (run << 16 | n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut hash = String::from("0");
    while hash.len() < 32 {
        state = state.rotate_left(5).wrapping_mul(0x2545_f491_4f6c_dd1d);
        hash.push(char::from(DIGITS[(state >> 59) as usize]));
    }
    let started = n as f64 / 5.0;
    Build {
        drv: format!("{hash}-{name}.drv"),
        name,
        system: "x86_64-linux".into(),
        builder: format!("big{}", n % 4),
        ready: started,
        started,
        building: Some(started + 0.1),
        ended: started + 1.0 + (n % 100) as f64 / 10.0,
        outcome: Outcome::Built,
        cpu: Some(1.0),
        brought: 10_000,
        bytes: Some(1_000_000),
    }
}

/// The median of some tries, and the longest.
fn timed(what: &str, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..TRIES)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{what:<40} {:>9.1} ms   longest {:>9.1} ms", ms(times[TRIES / 2]), ms(times[TRIES - 1]));
    times[TRIES / 2]
}

/// The same, with a bar in seconds.
fn barred(what: &str, bar: f64, work: impl FnMut()) {
    let median = timed(what, work).as_secs_f64();
    Part { bench: "history", part: &format!("{what}, 1,000 runs of 2,000 builds"), unit: "s" }.drover(median, bar);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn drover(state: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(args).arg("--state-dir").arg(state).current_dir(state).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().unwrap().success(), "{args:?}");
}

/// A history of 1,000 runs.
fn full(state: &Path) -> History {
    let mut history = History::open(state).unwrap();
    let begun = Instant::now();
    for number in 0..RUNS {
        history.add(&past(number)).unwrap();
    }
    println!("{RUNS} runs of {BUILDS} builds written in {:.1} s", begun.elapsed().as_secs_f64());
    history
}

/// Records a run once more, as its events came: each is written, and handed over where it would have been; then come its
/// numbers, their file and the line for lists. Nothing of that is done beside the run, so that all of it counts.
fn record_again(run: &Path, seconds: f64) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path();
    let mut history = full(state);
    let events = record::read(&run.join("events.jsonl")).unwrap().events;
    let mut number = RUNS;
    let mut all = Vec::new();
    timed(&format!("recording a run of {} events", events.len()), || {
        let begun = Instant::now();
        number += 1;
        let into = RunDir::new(state, self::run(number));
        let mut writer = Writer::create(&into, None).unwrap();
        for event in &events {
            writer.write(event).unwrap();
        }
        drop(writer);
        let summary = Summary::of(&events);
        let entry = Entry { run: into.run(), ..entry::of(&summary).unwrap() };
        assert!(entry.builds.len() >= BUILDS, "only {} builds", entry.builds.len());
        into.save("digest.json", &Digest::of(&summary)).unwrap();
        history.add(&entry).unwrap();
        Folder::of(state).put(&entry).unwrap();
        all.push(begun.elapsed());
    });
    all.sort_unstable();
    let median = all[all.len() / 2].as_secs_f64();
    println!("of a run of {seconds:.2} s: {:.2} % (bar 2 %)", 100.0 * median / seconds);
    let part = Part { bench: "record", part: "a run of 2,000 drvs", unit: "s" };
    part.drover_beside(median, 0.02, "the whole run");
    part.tool("the whole run", seconds);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "record") {
        return record_again(Path::new(&args[at + 1]), args[at + 2].parse().unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path();
    let mut history = full(state);
    let bytes: u64 = ["history.sqlite", "history.sqlite-wal"]
        .iter()
        .map(|file| std::fs::metadata(state.join(file)).map_or(0, |file| file.len()))
        .sum();
    println!("{:.0} MiB on disk", bytes as f64 / f64::from(1 << 20));
    let mut next = RUNS;
    let mut prepared = past(next);
    timed("adding a run of 2,000 builds", || {
        history.add(&prepared).unwrap();
        next += 1;
        prepared = past(next);
    });
    timed("its file for other machines", || Folder::of(state).put(&prepared).unwrap());
    drop(history);
    barred("report list", 0.2, || drover(state, &["report", "list"]));
    timed("report list --json", || drover(state, &["report", "list", "--json"]));
    let last = run(next - 1).to_string();
    barred("report --trend duration", 0.5, || drover(state, &["report", &last, "--trend", "duration"]));
    let history = History::open(state).unwrap();
    timed("durations of one package", || {
        assert_eq!(history.durations("package7", &"x86_64-linux".into(), 20).unwrap().len(), 20);
    });
}
