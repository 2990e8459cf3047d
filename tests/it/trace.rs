//! A trace, read by the importer of Perfetto: it holds what the folds say, and the importer had nothing to drop.

use std::collections::BTreeMap;

use drover::event::Event;
use drover::report::summary::Summary;
use drover::report::timeline::{self, Site, Timeline};
use drover::report::trace;
use serde_json::{Value, json};

use crate::support::nix::{Lab, newest};
use crate::support::perfetto::ask;
use crate::support::site::Site as Place;
use crate::support::story::{Twist, every_fact, fleet};
use crate::support::story_known::known;

/// What each thread did, in order: depth, name, from and for how long in microseconds.
type Threads = BTreeMap<(String, String), Vec<(i64, String, u64, u64)>>;

const SLICES: &str = "select p.name as process, t.name as thread, s.depth, s.name, s.ts, s.dur \
    from slice s join thread_track k on s.track_id = k.id join thread t using (utid) join process p using (upid) \
    where s.dur > 0 or s.category not null order by s.ts, s.depth, s.id";
const FLOWS: &str = "select a.name as from_, b.name as to_, a.ts + a.dur as end, b.ts as start \
    from flow f join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id order by b.ts, b.name";
const COUNTS: &str = "select p.name as process, c.ts, c.value from counter c \
    join process_counter_track k on c.track_id = k.id join process p using (upid) order by c.id";
const COMPLAINTS: &str = "select name, value from stats where value > 0 and severity in ('error', 'data_loss')";

/// A trace as the importer understood it.
struct Read {
    threads: Threads,
    flows: Vec<Value>,
    counts: Vec<Value>,
}

/// Has the importer read the trace of a run; it has to take all of it.
fn read(s: &Summary) -> Option<Read> {
    let document = trace::document(s).to_string();
    let [slices, flows, counts, complaints] = ask(&document, [SLICES, FLOWS, COUNTS, COMPLAINTS])?;
    assert_eq!(complaints, [] as [Value; 0]);
    let mut threads = Threads::new();
    for row in slices {
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("no {name}: {row}")).to_owned();
        let micros = |name: &str| row[name].as_u64().unwrap() / 1000;
        let slice = (row["depth"].as_i64().unwrap(), text("name"), micros("ts"), micros("dur"));
        threads.entry((text("process"), text("thread"))).or_default().push(slice);
    }
    Some(Read { threads, flows, counts })
}

/// What the folds say that each thread did.
fn folded(s: &Summary) -> Threads {
    let timeline = Timeline::of(s);
    let mut threads = Threads::new();
    let mut put = |process: &str, thread: String, depth, name: String, from: u64, to: u64| {
        threads.entry((process.to_owned(), thread)).or_default().push((depth, name, from, to - from));
    };
    for step in &timeline.path {
        let name = drover::report::time::said(s, &step.interval);
        put("drover", "waiting for".into(), 0, name, step.interval.from.0, step.interval.to.0);
    }
    for span in timeline::stages(s) {
        let word = timeline::word(span.stage);
        put("drover", format!("stage {word}"), 0, word.into(), span.from.0, span.to.0);
    }
    for track in &timeline.tracks {
        let (process, lane) = match track.site {
            Site::Evaluators => (track.site.name(s), "evaluator"),
            Site::Fetches => (track.site.name(s), "fetch"),
            Site::Slots(builder) => (s.builder_name(builder), "slot"),
            Site::Inputs(builder) => (s.builder_name(builder), "inputs"),
            Site::Results(builder) => (s.builder_name(builder), "results"),
            Site::Pushes(_) => (track.site.name(s), "push"),
        };
        for (number, bars) in track.lanes.iter().enumerate() {
            let thread = format!("{lane} {}", number + 1);
            for bar in bars {
                put(&process, thread.clone(), 0, bar.subject.name(s), bar.from.0, bar.to.0);
                for (n, (at, phase)) in bar.phases.iter().enumerate() {
                    let to = bar.phases.get(n + 1).map_or(bar.to, |(next, _)| *next);
                    put(&process, thread.clone(), 1, phase.to_string(), at.0, to.0);
                }
            }
        }
    }
    threads
}

/// The importer has to find what the folds say.
fn agree(events: &[Event]) -> Option<Read> {
    let s = Summary::of(events);
    let read = read(&s)?;
    let folded = folded(&s);
    assert_eq!(read.threads.keys().collect::<Vec<_>>(), folded.keys().collect::<Vec<_>>());
    for (thread, slices) in &folded {
        assert_eq!(&read.threads[thread], slices, "{thread:?}");
    }
    Some(read)
}

#[test]
fn perfetto_finds_the_run_that_was_worked_out_by_hand() {
    let Some(read) = agree(&known()) else { return };
    let slices: usize = read.threads.values().map(Vec::len).sum();
    // 10 steps of the path, 4 stages, 20 bars and the 3 phases of linux.
    assert_eq!((slices, read.threads.len()), (37, 15));
    let flow =
        |from: &str, to: &str, end: u64, start: u64| json!({ "from_": from, "to_": to, "end": end, "start": start });
    // web2's toplevel waited for nginx, web1's for linux, which was in its last phase.
    let wanted = [
        flow("nginx-1.29.4", "nixos-system-web2-25.11", 18_000_000_000, 18_000_000_000),
        flow("installPhase", "nixos-system-web1-25.11", 25_000_000_000, 25_500_000_000),
    ];
    assert_eq!(read.flows, wanted);
    let big1 = read.counts.iter().filter(|count| count["process"] == "big1");
    let big1: Vec<_> =
        big1.map(|count| (count["ts"].as_u64().unwrap() / 1_000_000, count["value"].as_f64().unwrap())).collect();
    let wanted = [
        (5000, 1.0),
        (5500, 2.0),
        (9500, 1.0),
        (10_000, 2.0),
        (12_000, 1.0),
        (25_000, 0.0),
        (25_500, 1.0),
        (30_000, 0.0),
    ];
    assert_eq!(big1, wanted);
}

/// Of every kind of fact, of runs with failures, of one that was killed and of one that never began.
#[test]
fn perfetto_takes_every_trace() {
    let troubled = Twist { nginx_fails: true, eval_fails: true, push: true, ..Twist::default() };
    let killed = fleet(Twist { push: true, ..Twist::default() }).until(60.0);
    for events in [every_fact(), fleet(Twist::default()).events(), fleet(troubled).events(), killed, Vec::new()] {
        if agree(&events).is_none() {
            return;
        }
    }
}

/// What crosses another slice of its thread is dropped by the importer, which says so: the tests here would see it.
#[test]
fn perfetto_complains_of_slices_that_cross() {
    let slice = |name, ts| json!({ "ph": "X", "name": name, "ts": ts, "dur": 10, "pid": 1, "tid": 1 });
    let document = json!({ "traceEvents": [slice("a", 0), slice("b", 5)] }).to_string();
    let Some([complaints]) = ask(&document, [COMPLAINTS]) else { return };
    assert_eq!(complaints, [json!({ "name": "slice_drop_overlapping_complete_event", "value": 1 })]);
}

/// A run of the real thing, as it happened.
#[test]
fn perfetto_finds_a_real_run() {
    let place = Place::fleet(Lab::plain(&newest()));
    place.exits(0, &["run"]);
    let record = place.runs().pop().unwrap().join("events.jsonl");
    let text = std::fs::read_to_string(record).unwrap();
    let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let Some(read) = agree(&events) else { return };
    let built = Summary::of(&events).attempts.len();
    let slots = read.threads.iter().filter(|((_, thread), _)| thread.starts_with("slot "));
    let slots: usize = slots.map(|(_, slices)| slices.iter().filter(|(depth, ..)| *depth == 0).count()).sum();
    assert!(built > 100 && slots == built, "{slots} of {built}");
    assert!(!read.flows.is_empty());
}
