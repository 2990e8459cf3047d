//! The screens of runs on builders over ssh, from made-up runs: at 100 and 60 columns, and as lines of a CI log.

use drover::event::{DrvOutcome, Event, Fact};
use drover::id::DrvId;
use drover::report::json;
use drover::report::summary::Summary;
use drover::report::{plan, schedule, time};

use super::screens::{both, ci, live_at, show, snap, verdict};
use crate::support::story_farm::{self as farm, BIG1, BIG2, LOCAL, ready, suspended};

#[test]
fn builders_at_work() {
    let story = farm::at_work().story;
    let text = both(|width| live_at(&story.until(189.5), 189.5, width));
    snap("farm_live", &format!("{text}\n== CI\n{}", ci(&story.until(189.5))));
}

#[test]
fn builders_that_are_away_say_for_how_long() {
    let mut farm = farm::at_work();
    let story = &mut farm.story;
    story.at(187.0, suspended(BIG2, "big2", "no bytes for 30s", 10, Some(20.0)));
    story.at(188.0, Fact::BuilderPaused { builder: BIG1, reason: Some("2.1 GiB free in /nix/store".into()) });
    let arm = drover::id::BuilderId(3);
    story.at(5.4, suspended(arm, "arm1", "ssh: connect to arm1.acme.net port 22: timed out (5s)", 0, Some(1.0)));
    story.at(21.0, suspended(arm, "arm1", "ssh: connect to arm1.acme.net port 22: timed out (5s)", 0, None));
    let mut text = String::new();
    for at in [199.0, 210.0] {
        text += &format!("==== at {at}\n{}\n", both(|width| live_at(&story.until(at), at, width)));
    }
    snap("farm_live_away", &text);
}

/// More builders than lines: those in trouble and at work have one.
#[test]
fn many_builders_are_folded() {
    let mut farm = farm::at_work();
    for id in 3..12 {
        let name = format!("small{id}");
        farm.story.at(0.5, ready(drover::id::BuilderId(id), &name, 4, &["x86_64-linux"], None));
    }
    let builder = drover::id::BuilderId(4);
    farm.story.at(188.0, Fact::BuilderLoad { builder, cpu: None, memory: Some(31.4), disk_free: None });
    farm.story.at(188.0, suspended(drover::id::BuilderId(9), "small9", "no bytes for 30s", 0, Some(20.0)));
    farm.story.at(188.0, suspended(drover::id::BuilderId(10), "small10", "no bytes for 30s", 0, None));
    snap("farm_live_many", &both(|width| live_at(&farm.story.until(189.5), 189.5, width)));
}

#[test]
fn builders_in_trouble() {
    let events = farm::in_trouble().story.events();
    let live = both(|width| live_at(&events, 321.0, width));
    snap(
        "farm_trouble",
        &format!("== CI\n{}\n== live\n{live}\n== the end\n{}", ci(&events), both(|w| verdict(&events, w))),
    );
}

#[test]
fn hosts_that_no_builder_takes_are_one_failure() {
    let events = farm::without_builder().story.events();
    snap("farm_no_builder", &format!("{}\n== CI\n{}", both(|width| verdict(&events, width)), ci(&events)));
}

#[test]
fn a_drv_that_passes_when_tried_again_is_flaky() {
    let events = farm::tried_again(false).story.events();
    let document = serde_json::to_string_pretty(&json::document(&Summary::of(&events)).flaky).unwrap();
    let text = both(|width| format!("{}{}", live_at(&events, 126.5, width), verdict(&events, width)));
    snap("farm_flaky", &format!("{text}\n== CI\n{}\n== JSON\n{document}", ci(&events)));
}

#[test]
fn a_failure_names_the_builders_of_all_its_attempts() {
    let events = farm::tried_again(true).story.events();
    snap("farm_failure", &format!("{}\n== CI\n{}", both(|width| verdict(&events, width)), ci(&events)));
}

#[test]
fn what_was_not_pushed_is_kept_on_builders() {
    let events = farm::kept().story.events();
    snap("farm_kept", &both(|width| verdict(&events, width)));
}

#[test]
fn a_plan_shows_its_schedule() {
    let summary = Summary::of(&farm::planned().story.events());
    let screen = |width| {
        let lines = schedule::screen(&summary, width).into_iter().chain(plan::screen(&summary, width, true));
        show(&lines.collect::<Vec<_>>(), width)
    };
    snap("farm_plan", &both(screen));
}

#[test]
fn the_document_says_what_each_builder_did() {
    let document = |events: &[Event]| {
        let document = json::document(&Summary::of(events));
        serde_json::to_string_pretty(&(document.builders, document.kept)).unwrap()
    };
    let text = format!("{}\n{}", document(&farm::in_trouble().story.events()), document(&farm::kept().story.events()));
    snap("farm_document", &text);
}

#[test]
fn the_time_that_inputs_and_results_took_is_told() {
    let summary = Summary::of(&farm::in_trouble().story.events());
    snap("farm_time", &both(|width| show(&time::screen(&summary, width), width)));
}

/// The local store alone is told as it was before there were builders.
#[test]
fn a_run_in_the_local_store_speaks_of_no_builders() {
    let mut farm = farm::Farm::new("run", &["web1"]);
    let top = farm.host(0, &[], None);
    let attempt = farm.build(2.0, top, LOCAL);
    farm.built(4.0, attempt, top, "nixos-system-web1-25.11");
    farm.host_built(4.0, 0, top, LOCAL);
    farm.end(5.0, 0);
    let events = farm.story.events();
    let text = format!("{}{}", ci(&events), both(|width| verdict(&events, width)));
    for word in ["big", "copied", "kept on", "away", "coming home"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

/// What was to be fetched and is nowhere any more is built; what was built on a builder that went away is built again.
/// Neither is counted twice.
#[test]
fn a_drv_that_comes_again_is_counted_once() {
    let mut farm = farm::Farm::with_two("run", &["web1"]);
    let source = farm.story.fetch(1.4, "source", 0.0, farm.attrs[0]);
    let lib = farm.need("lib", &[source], 0, None);
    let top = farm.host(0, &[lib], None);
    farm.story.at(1.5, Fact::DrvEnded { drv: source, outcome: DrvOutcome::Fetched });
    let first = farm.build(2.0, lib, BIG1);
    farm.built(3.0, first, lib, "lib");
    farm.story.at(4.0, suspended(BIG1, "big1", "no bytes for 30s", 0, None));
    assert_eq!(Summary::of(&farm.story.events()).only_on(BIG1), 1);
    farm.need_on("ignored", "x86_64-linux", &[], &[], 0);
    let again = |farm: &mut farm::Farm, drv: DrvId, at: f64| {
        let known = Summary::of(&farm.story.events()).drvs[&drv].clone();
        let (path, name, system, inputs, outputs) = (known.path, known.name, known.system, known.inputs, known.outputs);
        let (fetch, opaque, features, attr, expected) = (false, false, Vec::new(), known.attr, None);
        let fact =
            Fact::DrvNeeded { drv, path, name, system, inputs, fetch, opaque, features, attr, expected, outputs };
        farm.story.at(at, fact);
    };
    again(&mut farm, source, 5.0);
    let counts = Summary::of(&farm.story.events()).counts;
    assert_eq!((counts.fetches, counts.fetched, counts.builds, counts.built), (0, 0, 4, 1));
    for (at, drv, name) in [(6.0, source, "source"), (7.0, lib, "lib"), (8.0, top, "nixos-system-web1-25.11")] {
        let attempt = farm.build(at, drv, BIG2);
        farm.built(at + 0.5, attempt, drv, name);
    }
    let summary = Summary::of(&farm.story.events());
    assert_eq!((summary.counts.builds, summary.counts.built, summary.counts.running), (4, 3, 0));
    assert_eq!(summary.only_on(BIG2), 0);
    assert!(summary.flaky().is_empty());
}
