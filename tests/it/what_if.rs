//! What a run would have taken, and what was expected of it, against what then happens: fifty runs in virtual time
//! whose durations are drawn anew.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the program is asked as people ask it; errors are told"
)]

use std::path::Path;
use std::process::{Command, Output};

use drover::driver::replay::{Change, Replay};
use drover::event::{Event, Fact};
use drover::report::estimate;
use drover::report::history::History;
use drover::report::stats::{median, quantile};
use drover::report::summary::Summary;

use crate::slow::{world, write};
use crate::support::virtual_run::{Machine, Random, World, play};

const RUNS: u64 = 50;

/// A world of its own for each number: other durations, other sizes.
fn drawn(number: u64) -> World {
    let mut world = World { sigma: 0.1, ..world(number) };
    let mut random = Random::new(90 + number);
    few_slots(&mut world);
    for package in &mut world.packages {
        package.seconds *= 0.5 + 2.0 * random.share();
        package.expected = Some(package.seconds);
        package.bytes = (package.bytes as f64 * (0.2 + 2.0 * random.share())) as u64;
    }
    world
}

/// So few that drvs wait for them.
fn few_slots(world: &mut World) {
    for machine in world.machines.iter_mut().filter(|machine| machine.name.starts_with("big")) {
        machine.slots = 2;
    }
}

fn with_two_more(world: &World) -> World {
    let mut more = world.clone();
    more.machines.extend(["big3", "big4"].map(|name| Machine { name, slots: 2, system: "x86_64-linux" }));
    more
}

fn without_big2(world: &World) -> World {
    let mut fewer = world.clone();
    fewer.machines.retain(|machine| machine.name != "big2");
    fewer
}

fn holds(what: &str, errors: &[f64]) {
    let (middle, ninth) = (median(errors).unwrap(), quantile(errors, 0.9).unwrap());
    println!("{what}: median {:.1}%, 9th decile {:.1}%", 100.0 * middle, 100.0 * ninth);
    assert_eq!(errors.len(), RUNS as usize, "{what}");
    assert!(middle <= 0.10 && ninth <= 0.20, "{what}: {errors:.3?}");
}

#[test]
fn what_is_told_comes_near_what_then_happens() {
    let (mut as_it_was, mut more, mut fewer) = (Vec::new(), Vec::new(), Vec::new());
    let mut gains = Vec::new();
    for number in 1..=RUNS {
        let world = drawn(number);
        let summary = Summary::of(&play(&world, 1, number));
        let replay = Replay::of(&summary).unwrap();
        let happens = |world: &World| Summary::of(&play(world, 2, 1000 + number)).seconds();
        let off = |told: f64, happened: f64| ((told - happened) / happened).abs();
        as_it_was.push(off(replay.as_it_was(), summary.seconds()));
        let two = happens(&with_two_more(&world));
        more.push(off(replay.with(&[Change::Builders(2)]).unwrap().seconds, two));
        gains.push(1.0 - two / summary.seconds());
        let told = replay.with(&[Change::Without("big2".into())]).unwrap();
        fewer.push(off(told.seconds, happens(&without_big2(&world))));
    }
    holds("the run as it was", &as_it_was);
    holds("two more builders", &more);
    holds("one builder less", &fewer);
    println!("two more builders spare {:.1}%", 100.0 * median(&gains).unwrap());
}

/// The estimate of a run, held against it; `off` is what the runs before it say.
fn estimated(number: u64, off: Option<f64>) -> estimate::Checked {
    let mut events = play(&drawn(number), 1, number);
    if let Some(off) = off {
        events.insert(1, Event { seq: 0, at: events[0].at, fact: Fact::EstimatesKnown { off } });
    }
    estimate::checked(&events, &Summary::of(&events)).unwrap()
}

#[test]
fn what_is_expected_comes_near_what_then_happens() {
    let errors = (1..=RUNS).map(|number| estimated(number, None).off().abs());
    holds("the estimate", &errors.collect::<Vec<f64>>());
}

/// What an estimate says of its own error, by what became of the twenty before it, holds in most of the runs.
#[test]
fn an_estimate_knows_how_far_it_may_be_off() {
    let mut history = History::default();
    let (mut within, mut told) = (0, 0);
    for number in 1..=RUNS {
        let checked = estimated(number, history.estimates_off());
        history.fold_estimate(&checked);
        let Some(error) = checked.error else { continue };
        told += 1;
        within += u32::from((checked.expected - checked.took).abs() <= error);
        assert!(error < 0.4 * checked.expected, "{number}: {checked:?}");
    }
    println!("{within} of {told} runs ended within what their estimate said");
    assert!(told == 45 && (36..=44).contains(&within), "{within} of {told}");
}

#[test]
fn changes_do_what_they_say() {
    let mut world = World { sigma: 0.0, ..world(1) };
    few_slots(&mut world);
    let summary = Summary::of(&play(&world, 1, 1));
    let replay = Replay::of(&summary).unwrap();
    let told = |changes: &[Change]| replay.with(changes).unwrap();
    let before = told(&[]).seconds;
    assert!((before - summary.seconds()).abs() < 0.01 * before, "{before} of {}", summary.seconds());
    let [two, one] = [2, 1].map(|more| told(&[Change::Builders(more)]));
    assert_eq!(
        (two.what.as_str(), one.what.as_str()),
        ("with 2 more builders like big1", "with 1 more builder like big1")
    );
    assert!(two.seconds < one.seconds && one.seconds < before && !one.is_chain, "{two:?} {one:?}");
    let many = told(&[Change::Builders(50)]);
    assert!(many.is_chain && many.seconds < two.seconds, "{many:?}");
    let without = told(&[Change::Without("big2".into())]);
    assert!(without.seconds > before && !without.is_chain && without.left_out == 0, "{without:?}");
    let fast = told(&[Change::Speed("big1".into(), 4.0), Change::Speed("big2".into(), 4.0)]);
    assert_eq!(fast.what, "with big1 4 times as fast, with big2 4 times as fast");
    assert!(fast.seconds < before / 1.5, "{fast:?}");
    let few = told(&[Change::Slots("big1".into(), 1), Change::Slots("big2".into(), 1)]);
    assert_eq!(few.what, "with 1 slot on big1, with 1 slot on big2");
    assert!(few.seconds > 1.2 * before, "{few:?}");
    let warm = told(&[Change::WarmCache]);
    assert!(warm.seconds < before / 2.0 && warm.left_out == 0, "{warm:?}");
    let nobody = ["local", "big1", "big2"].map(|name| Change::Without(name.into()));
    assert_eq!(told(&nobody).left_out, 121);
    assert_eq!(replay.with(&[Change::Without("big9".into())]), Err("big9".to_owned()));
    assert!(Replay::of(&Summary::default()).is_none());
}

#[test]
fn it_is_told_of_a_recorded_run() {
    let state = tempfile::tempdir().unwrap();
    let events: Vec<Event> = play(&World { sigma: 0.0, ..world(1) }, 1, 1);
    write(state.path(), 1, &events);
    let told = report(state.path(), &["--what-if", "builders=+2"]);
    insta::assert_snapshot!(String::from_utf8(told.stdout).unwrap());
    let told = report(state.path(), &["--what-if", "without=big2,cache=warm", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["what_if"]["what"], "without big2, with all of it in a cache");
    let wrong = report(state.path(), &["--what-if", "without=big9"]);
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said.ends_with("had no builder 'big9'\n  hint: it had local, big1, big2, arm1\n"), "{said}");
}

fn report(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.env_clear().env("DROVER_STATE_DIR", state).current_dir(state).arg("report").args(args);
    command.output().unwrap()
}
