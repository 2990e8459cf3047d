//! A run as a trace that Perfetto and `chrome://tracing` open: the JSON of Chrome's trace events.
//!
//! A process is a place and a thread one of its lanes: the slots of a builder are its first threads, then what is
//! brought to it and from it. Above all stands what the run was waiting for, whose slices add up to the wall time.
//! Arrows go from the input that a drv waited for last. Times are microseconds.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::event::{AttemptEnd, Moment};
use crate::id::{BuilderId, CacheId, DrvId};

use super::summary::{Attempt, Summary};
use super::time;
use super::timeline::{self, Bar, End, Site, Subject, Timeline, Track};

/// Numbers of processes.
const RUN: u64 = 1;
const EVALUATORS: u64 = 2;
const FETCHES: u64 = 3;
const BUILDERS: u64 = 10;
const CACHES: u64 = 1_000_000;

/// Numbers of threads of a builder that are none of its slots.
const INPUTS: u64 = 10_000;
const RESULTS: u64 = 20_000;

/// One event of the trace.
#[derive(Debug, Serialize)]
struct TraceEvent {
    name: String,
    /// `X` a slice, `M` a name, `C` a counter, `i` an instant, `s` and `f` the ends of an arrow.
    ph: char,
    pid: u64,
    tid: u64,
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// Of the end of an arrow: it ends at the slice around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<char>,
    /// Of an instant: how high its line is.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<char>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    args: Map<String, Value>,
}

/// Where a slice is drawn.
type Thread = (u64, u64);

/// The document.
#[must_use]
pub fn document(s: &Summary) -> Value {
    let timeline = Timeline::of(s);
    let mut events = names(s, &timeline);
    events.extend(stages(s));
    events.extend(path(s, &timeline));
    for track in &timeline.tracks {
        for (lane, bars) in track.lanes.iter().enumerate() {
            for bar in bars {
                events.extend(slices(s, track.site, thread(track.site, lane), bar));
            }
        }
        if let Site::Slots(builder) = track.site {
            events.extend(running(track, builder));
        }
    }
    events.extend(arrows(s, &timeline));
    events.extend(instants(s));
    events.sort_by_key(|event| (event.ph != 'M', event.ts));
    let header = s.header.as_ref();
    json!({
        "displayTimeUnit": "ms",
        "otherData": {
            "run": header.map(|header| header.run.to_string()),
            "command": header.map(|header| header.command.to_string()),
            "drover": header.map(|header| header.drover.to_string()),
            "nix": header.map(|header| header.nix.to_string()),
            "began": header.map(|header| header.started.to_string()),
            "exit": s.exit,
        },
        "traceEvents": events,
    })
}

fn event(ph: char, name: impl Into<String>, (pid, tid): Thread, at: Moment) -> TraceEvent {
    let name = name.into();
    TraceEvent { name, ph, pid, tid, ts: at.0, dur: None, cat: None, id: None, bp: None, s: None, args: Map::new() }
}

fn slice(cat: &'static str, name: impl Into<String>, thread: Thread, (from, to): (Moment, Moment)) -> TraceEvent {
    let dur = Some(to.0.saturating_sub(from.0));
    TraceEvent { dur, cat: Some(cat), ..event('X', name, thread, from) }
}

fn with(mut event: TraceEvent, args: Value) -> TraceEvent {
    if let Value::Object(args) = args {
        event.args.extend(args.into_iter().filter(|(_, value)| !value.is_null()));
    }
    event
}

fn thread(site: Site, lane: usize) -> Thread {
    let lane = lane as u64 + 1;
    match site {
        Site::Evaluators => (EVALUATORS, lane),
        Site::Fetches => (FETCHES, lane),
        Site::Slots(builder) => (process_of(builder), lane),
        Site::Inputs(builder) => (process_of(builder), INPUTS + lane),
        Site::Results(builder) => (process_of(builder), RESULTS + lane),
        Site::Pushes(CacheId(cache)) => (CACHES + u64::from(cache), lane),
    }
}

fn process_of(BuilderId(builder): BuilderId) -> u64 {
    BUILDERS + u64::from(builder)
}

/// What processes and threads are called, in the order in which they are to be shown.
fn names(s: &Summary, timeline: &Timeline) -> Vec<TraceEvent> {
    let mut processes = BTreeMap::from([(RUN, "drover".to_owned())]);
    let mut threads = BTreeMap::from([((RUN, 1), "waiting for".to_owned())]);
    for span in timeline::stages(s) {
        threads.insert((RUN, 2 + span.stage as u64), format!("stage {}", timeline::word(span.stage)));
    }
    for track in &timeline.tracks {
        for lane in 0..track.lanes.len() {
            let thread = thread(track.site, lane);
            let (process, name) = match track.site {
                Site::Evaluators => (track.site.name(s), "evaluator"),
                Site::Fetches => (track.site.name(s), "fetch"),
                Site::Slots(builder) => (s.builder_name(builder), "slot"),
                Site::Inputs(builder) => (s.builder_name(builder), "inputs"),
                Site::Results(builder) => (s.builder_name(builder), "results"),
                Site::Pushes(_) => (track.site.name(s), "push"),
            };
            processes.insert(thread.0, process);
            threads.insert(thread, format!("{name} {}", lane + 1));
        }
    }
    let start = Moment(0);
    let meta = |what: &str, thread, args| with(event('M', what, thread, start), args);
    let processes = processes.into_iter().flat_map(|(pid, name)| {
        let order = meta("process_sort_index", (pid, 0), json!({ "sort_index": pid }));
        [meta("process_name", (pid, 0), json!({ "name": name })), order]
    });
    let threads = threads.into_iter().flat_map(|(thread, name)| {
        let order = meta("thread_sort_index", thread, json!({ "sort_index": thread.1 }));
        [meta("thread_name", thread, json!({ "name": name })), order]
    });
    processes.chain(threads).collect()
}

fn stages(s: &Summary) -> Vec<TraceEvent> {
    let of = |span: timeline::StageSpan| {
        slice("stage", timeline::word(span.stage), (RUN, 2 + span.stage as u64), (span.from, span.to))
    };
    timeline::stages(s).into_iter().map(of).collect()
}

/// What the run was waiting for.
fn path(s: &Summary, timeline: &Timeline) -> Vec<TraceEvent> {
    let step = |step: &timeline::Step| {
        let interval = &step.interval;
        let slice = slice("path", time::said(s, interval), (RUN, 1), (interval.from, interval.to));
        with(slice, json!({ "what": interval.what.word() }))
    };
    timeline.path.iter().map(step).collect()
}

/// A bar and, within it, its phases.
fn slices(s: &Summary, site: Site, thread: Thread, bar: &Bar) -> Vec<TraceEvent> {
    let category = match site {
        Site::Evaluators => "eval",
        Site::Fetches => "fetch",
        Site::Inputs(_) => "inputs",
        Site::Slots(_) => "build",
        Site::Results(_) => "results",
        Site::Pushes(_) => "push",
    };
    let end = match bar.end {
        End::Done => None,
        End::Failed => Some("failed"),
        End::Open => Some("not over"),
    };
    let whole = slice(category, bar.subject.name(s), thread, (bar.from, bar.to));
    let whole = with(whole, json!({ "end": end, "bytes": bar.bytes }));
    let whole = match (&bar.subject, site) {
        (Subject::Drv(drv), Site::Slots(builder)) => with(whole, attempt_args(s, *drv, builder, bar)),
        (Subject::Path(path), _) => with(whole, json!({ "path": path })),
        _ => whole,
    };
    let phases = bar.phases.iter().enumerate().map(|(n, (at, name))| {
        let to = bar.phases.get(n + 1).map_or(bar.to, |(next, _)| *next);
        slice("phase", name.to_string(), thread, (*at, to))
    });
    std::iter::once(whole).chain(phases).collect()
}

/// What is known of the attempt of a bar.
fn attempt_args(s: &Summary, id: DrvId, builder: BuilderId, bar: &Bar) -> Value {
    let Some(drv) = s.drvs.get(&id) else { return Value::Null };
    let is = |attempt: &&Attempt| attempt.builder == builder && attempt.slot_since() == Some(bar.from);
    let attempt = s.attempts_of(id).find(is);
    let failure = attempt.and_then(Attempt::failure);
    json!({
        "drv": drv.path,
        "system": drv.system,
        "queued_us": attempt.map(|attempt| attempt.started.0.saturating_sub(timeline::ready(s, drv).0)),
        "usually_s": s.expected_on(drv, builder),
        "cpu_s": attempt.and_then(|attempt| attempt.cpu),
        "output_bytes": s.sizes.get(&id),
        "log_lines": attempt.map(|attempt| attempt.log_lines),
        "found": attempt.filter(|attempt| matches!(attempt.ended, Some((_, AttemptEnd::AlreadyValid { .. })))).map(|_| true),
        "class": failure.map(|failure| failure.class),
        "message": failure.map(super::failure::cause),
    })
}

/// How many attempts a builder was at.
fn running(track: &Track, builder: BuilderId) -> Vec<TraceEvent> {
    let mut changes: BTreeMap<Moment, i64> = BTreeMap::new();
    for bar in track.lanes.iter().flatten() {
        *changes.entry(bar.from).or_default() += 1;
        *changes.entry(bar.to).or_default() -= 1;
    }
    let mut now = 0;
    let counter = |(at, change): (Moment, i64)| {
        now += change;
        with(event('C', "running", (process_of(builder), 0), at), json!({ "attempts": now }))
    };
    changes.into_iter().map(counter).collect()
}

/// From the input that was there last to the drv that waited for it.
fn arrows(s: &Summary, timeline: &Timeline) -> Vec<TraceEvent> {
    let mut built: BTreeMap<DrvId, (Thread, Moment, Moment)> = BTreeMap::new();
    for track in timeline.tracks.iter().filter(|track| matches!(track.site, Site::Slots(_))) {
        for (lane, bars) in track.lanes.iter().enumerate() {
            for bar in bars {
                let Subject::Drv(drv) = &bar.subject else { continue };
                // Of several attempts the last.
                if built.get(drv).is_none_or(|(_, _, to)| *to <= bar.to) {
                    built.insert(*drv, (thread(track.site, lane), bar.from, bar.to));
                }
            }
        }
    }
    let arrow = |(drv, (thread, from, _)): (&DrvId, &(Thread, Moment, Moment))| {
        let inputs = s.drvs.get(drv)?.inputs.iter().filter_map(|input| built.get(input));
        let last = inputs.max_by_key(|(_, _, to)| *to).filter(|(_, _, to)| to <= from)?;
        let id = Some(u64::from(drv.0) + 1);
        let start =
            TraceEvent { id, cat: Some("input"), ..event('s', "input", last.0, Moment(last.2.0.saturating_sub(1))) };
        let end = TraceEvent { id, cat: Some("input"), bp: Some('e'), ..event('f', "input", *thread, *from) };
        Some([start, end])
    };
    built.iter().filter_map(arrow).flatten().collect()
}

/// Builders that were lost, warnings, Ctrl-C.
fn instants(s: &Summary) -> Vec<TraceEvent> {
    let instant = |name: String, at| TraceEvent { s: Some('g'), ..event('i', name, (RUN, 1), at) };
    let lost = s.builders.values().flat_map(|builder| {
        builder.outages.iter().map(move |outage| {
            let why = super::failure::headline(&outage.failure.message);
            instant(format!("builder {} away: {why}", builder.name), outage.span.start)
        })
    });
    let warnings = s.warnings.iter().map(|warning| instant(format!("warning: {}", warning.message), warning.at));
    let cancelled = s.cancelled.iter().map(|(_, at)| instant("stopped".to_owned(), *at));
    lost.chain(warnings).chain(cancelled).collect()
}
