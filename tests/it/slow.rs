//! Why a run was slower: ten series of runs in virtual time, each with a last run that one thing made slower.
#![expect(clippy::disallowed_methods, reason = "the program is asked as people ask it")]

use std::path::Path;
use std::process::{Command, Output};

use drover::event::{Class, Event};
use drover::record::history::Entry;
use drover::report::slow::{self, Kind, Slow};
use drover::report::summary::Summary;
use drover::report::text::{Style, render};
use drover::report::{chain, compare, entry};

use crate::support::virtual_run::{Host, Machine, Package, Repeats, World, play, run_id};

/// Drvs of the layer that caches have, and of what changes with each run.
const BASE: usize = 100;
const APPS: usize = 40;

/// Forty hosts with what they have in common and two machines that build it.
pub(crate) fn world(run: u64) -> World {
    let machine = |name, slots, system| Machine { name, slots, system };
    let mut world = World {
        hosts: Vec::new(),
        packages: Vec::new(),
        machines: vec![
            machine("local", 2, "x86_64-linux"),
            machine("big1", 4, "x86_64-linux"),
            machine("big2", 4, "x86_64-linux"),
            machine("arm1", 2, "aarch64-linux"),
        ],
        inputs: vec![("nixpkgs", "5f2a1c0000aa")],
        workers: 4,
        comparing: 0.5,
        link: 200e6,
        push: 100e6,
        repeats: None,
        sigma: 0.05,
    };
    for at in 0..BASE {
        let before: Vec<usize> = at.checked_sub(10).into_iter().collect();
        world.packages.push(Package { cached: true, ..Package::new(&format!("base{at}-1.0"), 8.0, &before) });
    }
    let salt = format!("#{run}");
    let mut apps = Vec::new();
    for at in 0..APPS {
        let mut inputs = vec![BASE - 1 - at];
        inputs.extend(at.checked_sub(8).map(|before| BASE + before));
        let seconds = if at == APPS - 1 { 30.0 } else { 10.0 + (at % 5) as f64 };
        apps.push(world.packages.len());
        world
            .packages
            .push(Package { salt: salt.clone(), ..Package::new(&format!("app{at}-2.{at}"), seconds, &inputs) });
    }
    let path = world.packages.len();
    world.packages.push(Package { salt: salt.clone(), ..Package::new("system-path", 5.0, &apps) });
    for number in 1..=40 {
        host(&mut world, &format!("web{number}"), &salt, &[path]);
    }
    world
}

fn host(world: &mut World, name: &str, salt: &str, inputs: &[usize]) {
    let small = |name: &str, seconds, inputs: &[usize]| Package {
        salt: salt.to_owned(),
        bytes: 1 << 20,
        ..Package::new(name, seconds, inputs)
    };
    let etc = world.packages.len();
    world.packages.push(small(&format!("etc-{name}"), 1.0, &[]));
    world.packages.push(small(&format!("nixos-system-{name}-25.11"), 2.0, &[&[etc], inputs].concat()));
    world.hosts.push(Host { name: name.to_owned(), eval: 3.0, top: etc + 1 });
}

fn with_base(world: &mut World, salt: &str) {
    for package in &mut world.packages[..BASE] {
        package.cached = false;
        package.salt = salt.to_owned();
    }
}

fn entry_of(world: &World, run: u64, seed: u64) -> (Summary, Entry) {
    let summary = Summary::of(&play(world, run, 1000 * seed + run));
    let entry = entry::of(&summary).unwrap();
    (summary, entry)
}

/// Twenty usual runs, the first of which built all that caches have since.
fn usual(seed: u64) -> Vec<Entry> {
    let runs = (0..20).map(|run| {
        let mut world = world(run);
        if run == 0 {
            with_base(&mut world, "");
        }
        entry_of(&world, run, seed).1
    });
    runs.collect()
}

type Change = fn(&mut World);

/// What makes the last run slower, and what that is called.
const SCENARIOS: [(&str, Kind, Change); 10] = [
    ("more drvs", Kind::Drvs, |world| {
        with_base(world, "new");
        world.inputs = vec![("nixpkgs", "9c1d0700bb")];
    }),
    ("builder absent", Kind::Builder, |world| world.machines.retain(|machine| machine.name != "big2")),
    ("cache slow", Kind::Cache, |world| {
        world.repeats = Some(Repeats { from: 2.0, to: 70.0, requests: 412, waited: 1900.0 });
    }),
    ("evaluation slow", Kind::Evaluation, |world| world.hosts.iter_mut().for_each(|host| host.eval *= 6.0)),
    ("one drv slower", Kind::Drv, |world| world.packages[BASE + 20].seconds = 150.0),
    ("queue", Kind::Queue, |world| {
        world.packages[BASE + 16..BASE + 32].iter_mut().for_each(|package| package.system = "aarch64-linux");
    }),
    ("push tail", Kind::Push, |world| world.push = 4e6),
    ("retry", Kind::Retry, |world| world.packages[BASE + APPS - 1].fails = (2, Class::Network)),
    ("colder cache", Kind::ColderCache, |world| with_base(world, "")),
    ("more hosts", Kind::Attrs, |world| {
        for number in 1..=60 {
            let name = format!("db{number}");
            let own: Vec<usize> = (0..3).map(|at| world.packages.len() + at).collect();
            for at in 0..3 {
                world.packages.push(Package::new(&format!("{name}-part{at}-1"), 6.0, &[]));
            }
            host(world, &name, "db", &own);
        }
    }),
];

fn scenario(before: &[Entry], change: Change, seed: u64) -> (Summary, Slow) {
    let mut world = world(20);
    change(&mut world);
    let (summary, now) = entry_of(&world, 20, seed);
    let slow = slow::slow(&now, before);
    (summary, slow)
}

#[test]
fn the_planted_cause_comes_first_in_ten_of_ten_scenarios() {
    let mut wrong = Vec::new();
    for seed in 1..=3 {
        let before = usual(seed);
        for (name, kind, change) in SCENARIOS {
            let (_, slow) = scenario(&before, change, seed);
            let sum: f64 = slow.causes.iter().map(|cause| cause.seconds).sum();
            assert!((sum - slow.difference()).abs() < 1e-6, "{name}: {sum} of {}", slow.difference());
            if kind == Kind::Drvs {
                let text = &slow.causes[0].text;
                assert!(text.contains("nixpkgs 5f2a1c → 9c1d07 (flake.lock) changed base"), "{text}");
                assert!(text.ends_with(" under 40 hosts"), "{text}");
            }
            if slow.causes[0].kind != kind {
                wrong.push((seed, name, slow.causes[0].clone()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn it_reads_at_two_widths() {
    let before = usual(1);
    let mut text = String::new();
    for (name, _, change) in SCENARIOS {
        let (summary, slow) = scenario(&before, change, 1);
        let chain = chain::longest(&summary);
        for width in [100, 60] {
            let mut lines = slow::screen(&slow, "01KAKQ7T", width);
            lines.extend(chain::line(&summary, &chain, width));
            assert!(lines.iter().all(|line| line.width() <= width), "{name}");
            text += &format!("== {name}, {width} columns\n{}\n", render(&lines, Style::default()));
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_run_without_others_says_so() {
    let (_, now) = entry_of(&world(0), 0, 1);
    let slow = slow::slow(&now, &[]);
    assert_eq!((slow.usual, slow.causes.len()), (None, 0));
    let failed = Entry { exit: Some(1), ..now.clone() };
    assert_eq!(slow::slow(&now, &[failed]).usual, None);
    // The same run again has no cause to tell.
    let again = slow::slow(&now, std::slice::from_ref(&now));
    assert_eq!((again.usual, again.causes), (Some(now.seconds), Vec::new()));
}

/// What `drover report` says of records that are on disk.
#[test]
fn it_is_told_of_recorded_runs() {
    let state = tempfile::tempdir().unwrap();
    for run in 0..6 {
        let world = World { sigma: 0.0, ..world(run) };
        write(state.path(), run, &play(&world, run, run));
    }
    let mut world = World { sigma: 0.0, ..world(6) };
    world.packages[BASE + 20].seconds = 150.0;
    write(state.path(), 6, &play(&world, 6, 6));
    let told = report(state.path(), &["--slow", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((told["runs"].as_u64(), told["causes"][0]["kind"].as_str()), (Some(6), Some("drv")), "{told}");
    assert!(told["chain"]["seconds"].as_f64().unwrap() > 150.0, "{told}");
    let other = run_id(0).0.to_string();
    let told_of_two = report(state.path(), &["--compare", &other, "--json"]);
    let told_of_two: serde_json::Value = serde_json::from_slice(&told_of_two.stdout).unwrap();
    assert_eq!(told_of_two["runs"]["before"], other.as_str());
    assert_eq!(told_of_two["packages"][0]["what"], "app20");
    let screen = String::from_utf8(report(state.path(), &["--slow"]).stdout).unwrap();
    assert!(screen.contains("app20-2.20 2m30s on "), "{screen}");
    assert!(screen.contains("Longest chain "), "{screen}");
}

#[test]
fn two_runs_are_compared() {
    let quiet = |run: u64| World { sigma: 0.0, ..world(run) };
    let (_, before) = entry_of(&quiet(1), 1, 1);
    let mut world = quiet(2);
    world.packages[BASE + 20].seconds = 150.0;
    world.machines.retain(|machine| machine.name != "big2");
    with_base(&mut world, "new");
    world.inputs = vec![("nixpkgs", "9c1d0700bb")];
    let (_, now) = entry_of(&world, 2, 2);
    let compared = compare::compare(&now, &before);
    let sum: f64 = compared.account.iter().map(|row| row.now - row.before).sum();
    assert!((sum - (now.seconds - before.seconds)).abs() < 1e-6, "{sum}");
    let text = |width| {
        let lines = compare::screen(&compared, ("01KAJX3M", "01KAKQ7T"), width);
        assert!(lines.iter().all(|line| line.width() <= width));
        render(&lines, Style::default())
    };
    insta::assert_snapshot!(format!("{}\n{}", text(100), text(60)));
    // A run differs from itself by nothing.
    let same = compare::compare(&now, &now);
    assert_eq!(compare::screen(&same, ("a", "b"), 100).len(), 1);
}

pub(crate) fn write(state: &Path, run: u64, events: &[Event]) {
    let dir = state.join("runs").join(run_id(run).0.to_string());
    std::fs::create_dir_all(&dir).unwrap();
    let lines: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
    std::fs::write(dir.join("events.jsonl"), lines).unwrap();
}

fn report(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.env_clear().env("DROVER_STATE_DIR", state).current_dir(state).arg("report").args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}
