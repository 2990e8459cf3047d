//! `drover report` over many runs: records are written as runs would have, and the program is asked.

#![expect(clippy::disallowed_methods, reason = "the program is asked as people ask it")]

use std::path::Path;
use std::process::{Command, Output};

use drover::event::{Event, FORMAT, Fact, Moment};
use serde_json::Value;

/// Writes the record of a run.
fn record(state: &Path, number: usize, branch: &str, seconds: f64) {
    let run = format!("01KAJX3M{number:018}");
    let facts = [
        (
            0.0,
            Fact::RunStarted {
                format: FORMAT,
                run: run.parse().unwrap(),
                drover: "0.1.0".into(),
                command: "run".into(),
                what: Vec::new(),
                started: jiff::Timestamp::from_second(1_795_000_000 + number as i64 * 3600).unwrap(),
                nix: "2.34.8".into(),
            },
        ),
        (0.1, Fact::RunPlaced { forge: None, repository: None, branch: Some(branch.into()), change: None, url: None }),
        (seconds, Fact::RunEnded { exit: 0 }),
    ];
    let dir = state.join("runs").join(run);
    std::fs::create_dir_all(&dir).unwrap();
    let line =
        |(seq, (at, fact))| serde_json::to_string(&Event { seq, at: Moment::from_seconds(at), fact }).unwrap() + "\n";
    let lines: String = (0..).zip(facts).map(line).collect();
    std::fs::write(dir.join("events.jsonl"), lines).unwrap();
}

/// Eight runs of main, then eight of a branch that takes longer by so much.
fn history(slower: f64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..8 {
        record(dir.path(), number, "main", 400.0 + 3.0 * number as f64);
        record(dir.path(), 8 + number, "faster-nginx", (400.0 + 3.0 * number as f64) * slower);
    }
    dir
}

fn report(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.env_clear().env("DROVER_STATE_DIR", state).current_dir(state).arg("report").args(args);
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_gate_refuses_what_became_slower() {
    let slower = history(1.2);
    let refused = report(slower.path(), &["--gate", "--metric", "duration"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let text = String::from_utf8(refused.stdout).unwrap();
    assert!(text.starts_with("WORSE   duration  6m51s → 8m13s  +20%"), "{text}");
    assert!(text.ends_with("WORSE  1 number is worse than on main by more than 10%\n  why     drover report --slow\n"));
    let held = report(slower.path(), &["--gate", "--max-regression", "50%", "--json"]);
    assert_eq!((held.status.code(), json(&held)["holds"].as_bool()), (Some(0), Some(true)));
    let other = report(slower.path(), &["--gate", "--baseline", "release"]);
    assert_eq!(other.status.code(), Some(0));
    assert!(String::from_utf8(other.stdout).unwrap().contains("unsure  duration"));
    assert_eq!(report(history(1.0).path(), &["--gate"]).status.code(), Some(0));
}

#[test]
fn a_trend_is_told_of_all_runs_of_a_series() {
    let slower = history(1.5);
    let trend = json(&report(slower.path(), &["--trend", "duration", "--json"]));
    assert_eq!((trend["metric"].as_str(), trend["unit"].as_str()), (Some("duration"), Some("seconds")));
    assert_eq!(trend["points"].as_array().unwrap().len(), 16);
    assert_eq!(trend["jump"].as_str(), Some("01KAJX3M000000000000000008"));
    let screen = String::from_utf8(report(slower.path(), &["--trend", "duration"]).stdout).unwrap();
    assert!(screen.contains("jumped from 6m51s to 10m16s with run 01KAJX3M000000000000000008"), "{screen}");
    let wrong = report(slower.path(), &["--trend", "durations"]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(said, "error: no metric is called 'durations'\n  hint: did you mean duration?\n");
}

#[test]
fn goals_are_met_or_missed() {
    let runs = history(1.2);
    let unset = report(runs.path(), &["--goals"]);
    assert_eq!(unset.status.code(), Some(2));
    assert!(String::from_utf8(unset.stderr).unwrap().contains("hint: in drover.toml: [goals]"));
    let goals = |text: &str| {
        std::fs::write(runs.path().join("drover.toml"), format!("[goals]\n{text}\n")).unwrap();
        report(runs.path(), &["--goals"])
    };
    let met = goals("success-rate = 0.9\nduration = '10m'");
    assert_eq!(met.status.code(), Some(0), "{met:?}");
    let missed = goals("duration = '5m'");
    let text = String::from_utf8(missed.stdout).unwrap();
    assert_eq!(
        (missed.status.code(), text.as_str()),
        (Some(1), "MISSED   duration       at most 5m00s: 7m31s of 16 runs\n")
    );
    // A gate holds them against the runs, too.
    assert_eq!(report(runs.path(), &["--gate", "--max-regression", "50%"]).status.code(), Some(1));
}
