//! A run that was worked out by hand, in every format: the numbers are the same everywhere, and readers that know nothing
//! of drover read each of them: PyPI's junitparser, opentelemetry-proto and jsonschema, and Prometheus' promtool.
#![allow(clippy::print_stderr, clippy::disallowed_methods, reason = "says what is not tested, and starts readers")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use drover::event::{AttemptEnd, Class, Difference, DrvOutcome, Event, Fact, Failure, Moment, Status};
use drover::id::{AttemptId, AttrId, DrvId};
use drover::record::history::Entry;
use drover::report::account::Owner;
use drover::report::otlp::Parent;
use drover::report::step_summary::Before;
use drover::report::summary::Summary;
use drover::report::timeline::{End, Timeline, overlaps};
use drover::report::{account, badge, entry, html, json, junit, otlp, prometheus, step_summary, time, trace};
use serde_json::{Value, json};

use crate::support::nix::tool;
use crate::support::story::{Twist, every_fact, fleet};
use crate::support::story_known::{BARS, OVERLAPS, PATH, at, known};

fn summary() -> Summary {
    Summary::of(&known())
}

/// One run after the other that differ in their duration and nothing else.
fn runs(seconds: &[f64]) -> Vec<Entry> {
    let run = |seconds: &f64| Entry { seconds: *seconds, ..entry::of(&summary()).unwrap() };
    seconds.iter().map(run).collect()
}

/// What a script of Python prints about a text, as JSON.
fn python(environment: &str, script: &str, text: &str) -> Value {
    let mut command = Command::new(tool(&format!("{environment}/bin/python")));
    let mut child = command
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn owner(s: &Summary, owner: Owner) -> String {
    match owner {
        Owner::Run => String::new(),
        Owner::Attr(attr) => s.attr_name(attr),
        Owner::Drv(drv) => s.drv_name(drv),
        Owner::Cache(cache) => s.cache_name(cache),
    }
}

#[test]
fn the_path_and_the_bars_are_those_of_the_drawing() {
    let s = summary();
    let path: Vec<_> = account::of(&s).iter().map(|i| (i.what.word(), owner(&s, i.owner), i.from, i.to)).collect();
    let wanted: Vec<_> =
        PATH.iter().map(|(what, owner, _, from, to)| (*what, (*owner).to_owned(), at(*from), at(*to))).collect();
    assert_eq!(path, wanted);

    let timeline = Timeline::of(&s);
    let mut bars = Vec::new();
    for track in &timeline.tracks {
        for (lane, line) in track.lanes.iter().enumerate() {
            for bar in line {
                assert!(bar.end != End::Open);
                let failed = bar.end == End::Failed;
                bars.push((track.site.name(&s), lane, bar.subject.name(&s), bar.from, bar.to, failed));
            }
        }
    }
    let wanted = BARS.iter().map(|(site, lane, name, from, to, failed)| {
        ((*site).to_owned(), *lane, (*name).to_owned(), at(*from), at(*to), *failed)
    });
    assert_eq!(bars, wanted.collect::<Vec<_>>());

    // Each step that is somebody's stands in the bar of that name at that time.
    for step in &timeline.path {
        let spot = step.spot.map(|spot| &timeline.tracks[spot.track].lanes[spot.lane][spot.bar]);
        let named = !matches!(step.interval.owner, Owner::Run);
        assert_eq!(spot.is_some(), named, "{step:?}");
        if let (Some(bar), Owner::Drv(_) | Owner::Attr(_)) = (spot, step.interval.owner) {
            assert_eq!(bar.subject.name(&s), owner(&s, step.interval.owner));
            assert!(bar.from <= step.interval.from && step.interval.to <= bar.to, "{step:?} {bar:?}");
        }
    }
    let pairs: Vec<_> = overlaps(&s).into_iter().map(|o| (o.first, o.second, o.seconds)).collect();
    assert_eq!(pairs, OVERLAPS);
}

#[test]
fn the_account_is_told_in_whole_seconds_that_add_up() {
    let (total, rows) = time::told(&summary());
    let rows: Vec<(&str, &str)> = rows.iter().map(|(time, row)| (time.as_str(), row.owner.as_str())).collect();
    assert_eq!(total, "36s");
    assert_eq!(
        rows,
        [
            ("0m01s", "starting"),
            ("0m02s", "evaluating"),
            ("0m01s", "comparing"),
            ("0m02s", "bringing inputs"),
            ("0m20s", "linux-6.12.58"),
            ("0m04s", "nixos-system-web1-25.11"),
            ("0m01s", "bringing results home"),
            ("0m04s", "pushing"),
            ("0m01s", "closing"),
        ]
    );
}

#[test]
fn the_json_document_has_the_same_numbers() {
    let document = serde_json::to_value(json::document(&summary())).unwrap();
    let account = document["account"].as_array().unwrap().iter();
    let account: Vec<_> =
        account.map(|part| (part["what"].as_str().unwrap(), part["seconds"].as_f64().unwrap())).collect();
    assert_eq!(account, PATH.map(|(what, _, _, from, to)| (what, to - from)));
    let hits = &document["hits"];
    assert_eq!(hits["attrs"], json!({ "hit": 1, "of": 4 }));
    assert_eq!(hits["paths"], json!({ "hit": 90, "of": 100 }));
    assert_eq!(hits["bytes"], json!({ "hit": 900_000_000, "of": 959_000_000 }));
    assert_eq!(hits["saved"], json!({ "seconds": 240.0, "known": 4, "drvs": 5 }));
    let counts = &document["counts"];
    let wanted = json!({ "drvs_to_build": 5, "drvs_built": 4, "drvs_failed": 1, "attempts": 6, "build_seconds": 40.5, "fetched": 1,
        "pushed": 4, "push_failed": 0, "pushed_bytes": 23_700_000 });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&counts[name], value, "{name}");
    }
    let busy: Vec<_> = document["builders"].as_array().unwrap().iter().map(|b| b["busy_seconds"].as_f64()).collect();
    assert_eq!(busy, [Some(10.0), Some(30.5)]);
    assert_eq!(document["flaky"][0]["name"], "nginx-1.29.4");
}

#[test]
fn the_page_has_the_same_numbers() {
    let page = html::page(&summary(), &runs(&[40.0, 44.0, 42.0])).unwrap();
    let figures = [
        ("4 of 5", "drvs built", "longest chain 25s"),
        ("4.0s", "evaluation", "4 attrs, 2 workers"),
        ("90%", "of paths cached", "90 of 100"),
        ("4m00s", "spared by caches", "4 of 5 drvs known"),
        ("23 MiB", "pushed", "4 paths"),
        ("38%", "of slots busy", "41s of building"),
    ];
    for (value, name, detail) in figures {
        let figure = format!("<div><b>{value}</b><span>{name}</span><small>{detail}</small></div>");
        assert!(page.contains(&figure), "{figure} is not in the page");
    }
    for wanted in [
        "<b>36s</b> <span class=\"dim\">usually 42s</span>",
        "eval and diff for 2.0s · eval and build for 1.0s · diff and build for 2.0s · build and push for 13s",
        "<td class=\"n dim\">0m04s</td><td class=\"n\">1.0s</td><td><i class=\"dot k-in\"></i>linux-6.12.58: bringing its inputs to big1</td>",
        "<td class=\"n dim\">0m05s</td><td class=\"n\">20s</td><td><i class=\"dot k-build\"></i>linux-6.12.58: building on big1</td>",
        "error: &lt;ssl.h&gt; &amp; more are not there",
        "flaky: nginx-1.29.4: exit code 2 on big1, then built on local",
        // linux: took, usually, processors, builder, from when.
        "<td>linux-6.12.58</td><td class=\"n\">20s</td><td class=\"bar\"><i class=\"k-build\" style=\"width:100%\"></i></td>\
         <td class=\"n dim\">20s</td><td class=\"n dim\">38s</td><td>big1</td><td class=\"n dim\">0m05s</td>",
        "<td>big1</td><td class=\"n\">2</td><td class=\"n\">4</td><td class=\"n\">31s</td>",
        "<td>cache.nixos.org</td><td class=\"n\">60</td><td class=\"n\">8</td><td class=\"dim\">1 untrusted, 1 unanswered</td>",
        "HTTP 429: 12 requests repeated",
        "1.2 GiB",
    ] {
        assert!(page.contains(wanted), "{wanted} is not in the page");
    }
    // The data of the chart: each bar once, in milliseconds.
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    let bars = data["bars"].as_array().unwrap().iter().map(|bar| {
        let name = data["names"][bar[0].as_u64().unwrap() as usize].as_str().unwrap();
        (name.to_owned(), bar[1].as_u64().unwrap(), bar[2].as_u64().unwrap())
    });
    let wanted = BARS
        .iter()
        .map(|(_, _, name, from, to, _)| ((*name).to_owned(), (from * 1000.0) as u64, ((to - from) * 1000.0) as u64));
    assert_eq!(bars.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    assert_eq!(data["end"], 36_000);
}

#[test]
fn markdown_and_badge_have_the_same_numbers() {
    let page = step_summary::page(&summary(), None, &Before { usual: Some(42.0), base: None }, step_summary::COMMENT);
    assert!(
        page.starts_with("### drover run: 3 hosts, 1 package: 2 built, 1 cached, 1 failed ✗ 36s (usually 42s)\n"),
        "{page}"
    );
    assert!(page.contains("3 hosts · 4 drvs built · 90 paths cached"), "{page}");
    let badge = badge::svg(&summary());
    assert!(badge.contains("aria-label=\"drover: 3 of 4 attrs ok, db1 failed\""), "{badge}");
    assert!(badge.contains("#c1272d"), "{badge}");
}

/// In a comment on a change: how many of how many, those that differ in the same way in a row, and their closures.
#[test]
fn the_page_for_a_change_names_what_differs() {
    let mut events = fleet(Twist::default()).events();
    let mut put = |at: f64, fact| {
        let seq = events.len() as u64;
        events.push(Event { seq, at: Moment((at * 1e6) as u64), fact });
    };
    let (label, locked) = ("main@a01b77e".into(), "git+file:///home/me/infra?rev=a01b77e3".into());
    put(309.0, Fact::BaseKnown { label, rev: None, locked, recorded: true, attrs: 49, failed: 0 });
    for n in 0..49 {
        let difference = match n {
            0..8 => Difference::Changed,
            8 => Difference::Added,
            _ => Difference::Unchanged,
        };
        let (attr, base_drv) = (AttrId(n), None);
        put(309.0, Fact::AttrCompared { attr, difference, revision_only: n == 7, same_outputs: false, base_drv });
    }
    let mut sized = |attr, nar_size| put(309.0, Fact::ClosureSized { attr: AttrId(attr), paths: 412, nar_size });
    sized(0, 3 << 30);
    let plain = Summary::of(&events);
    let page = step_summary::page(&plain, None, &Before::default(), step_summary::COMMENT);
    let wanted = "### drover run: 9 of 49 attrs change, all built ✓ 5m09s\n\n\
        | | | why | closure |\n|---|---|---|---|\n\
        | 7 hosts | web1 web2 web3 db1 db2 lb1 mon1 | changed | 3.0 GiB |\n\
        | 1 host | pi1 | changed, by its revision only |  |\n\
        | 1 host | pi2 | new |  |\n";
    assert!(page.starts_with(wanted), "{page}");

    // Where more is known: why, and how big they were on the base.
    let mut put = |fact| {
        let seq = events.len() as u64;
        events.push(Event { seq, at: Moment(309_000_000), fact });
    };
    for attr in 1..5 {
        put(Fact::ClosureSized { attr: AttrId(attr), paths: 412, nar_size: 3 << 30 });
    }
    let whys = [("nginx 1.29.3 → 1.29.4", 0..3), ("backup.service: the variable text differs", 3..7)];
    for (why, attrs) in whys {
        put(Fact::ChangeExplained { attrs: attrs.map(AttrId).collect(), why: why.into() });
    }
    let mut base = entry::of(&plain).unwrap();
    for (attr, more) in base.attrs.iter_mut().zip([3 << 20, 3 << 20, 1 << 20, 0, -(1_i64 << 20)]) {
        attr.closure = (3_u64 << 30).checked_add_signed(-more);
    }
    let before = Before { usual: Some(300.0), base: Some(base) };
    let page = step_summary::page(&Summary::of(&events), None, &before, step_summary::COMMENT);
    let wanted = "### drover run: 9 of 49 attrs change, all built ✓ 5m09s (usually 5m00s)\n\n\
        | | | why | closure |\n|---|---|---|---|\n\
        | 4 hosts | db1 db2 lb1 mon1 | backup.service: the variable text differs | −1.0 MiB to +0 |\n\
        | 1 host | pi1 | changed, by its revision only |  |\n\
        | 1 host | pi2 | new |  |\n\
        | 3 hosts | web1 web2 web3 | nginx 1.29.3 → 1.29.4 | +1.0 MiB to +3.0 MiB |\n";
    assert!(page.starts_with(wanted), "{page}");
}

/// Slices by thread, from a trace.
type Slices = BTreeMap<(String, String), Vec<(String, u64, u64)>>;

fn slices(trace: &Value) -> Slices {
    let events = trace["traceEvents"].as_array().unwrap();
    let name = |what: &str, pid: &Value, tid: Option<&Value>| {
        let is = |event: &&Value| {
            event["name"] == what && event["pid"] == *pid && tid.is_none_or(|tid| event["tid"] == *tid)
        };
        events.iter().find(is).unwrap()["args"]["name"].as_str().unwrap().to_owned()
    };
    let mut slices = Slices::new();
    for event in events.iter().filter(|event| event["ph"] == "X" && event["cat"] != "phase") {
        let thread =
            (name("process_name", &event["pid"], None), name("thread_name", &event["pid"], Some(&event["tid"])));
        let time =
            (event["name"].as_str().unwrap().to_owned(), event["ts"].as_u64().unwrap(), event["dur"].as_u64().unwrap());
        slices.entry(thread).or_default().push(time);
    }
    slices
}

#[test]
fn a_trace_has_the_same_numbers_and_holds_to_its_schema() {
    let document = trace::document(&summary());
    let slices = slices(&document);
    let path = &slices[&("drover".to_owned(), "waiting for".to_owned())];
    let wanted: Vec<(u64, u64)> = PATH.iter().map(|(.., from, to)| (at(*from).0, at(*to).0 - at(*from).0)).collect();
    assert_eq!(path.iter().map(|(_, ts, dur)| (*ts, *dur)).collect::<Vec<_>>(), wanted);
    assert_eq!(path.iter().map(|(.., dur)| dur).sum::<u64>(), 36_000_000);
    let on = |process: &str, thread: &str| slices[&(process.to_owned(), thread.to_owned())].clone();
    let slice = |name: &str, from: f64, to: f64| (name.to_owned(), at(from).0, at(to).0 - at(from).0);
    assert_eq!(on("big1", "slot 1"), [slice("linux-6.12.58", 5.0, 25.0), slice("nixos-system-web1-25.11", 25.5, 30.0)]);
    assert_eq!(on("big1", "slot 2"), [slice("nginx-1.29.4", 5.5, 9.5), slice("nixos-system-db1-25.11", 10.0, 12.0)]);
    assert_eq!(
        on("local", "slot 1"),
        [slice("nginx-1.29.4", 10.0, 18.0), slice("nixos-system-web2-25.11", 18.0, 20.0)]
    );
    assert_eq!(on("big1", "results 1"), [slice("nixos-system-web1-25.11", 30.0, 31.0)]);
    assert_eq!(slices.values().map(Vec::len).sum::<usize>(), BARS.len() + PATH.len() + 4);

    let events = document["traceEvents"].as_array().unwrap();
    let phases = events.iter().filter(|event| event["cat"] == "phase");
    let phases: Vec<_> =
        phases.map(|event| (event["name"].as_str().unwrap(), event["dur"].as_u64().unwrap())).collect();
    assert_eq!(phases, [("unpackPhase", 3_000_000), ("buildPhase", 16_000_000), ("installPhase", 1_000_000)]);
    let linux = events.iter().find(|event| event["cat"] == "build" && event["name"] == "linux-6.12.58").unwrap();
    assert_eq!((&linux["args"]["cpu_s"], &linux["args"]["output_bytes"]), (&json!(38.0), &json!(50_000_000)));
    let arrows = |end: &str| {
        events.iter().filter(|e| e["ph"] == end).map(|e| (e["id"].clone(), e["ts"].clone())).collect::<Vec<_>>()
    };
    // web2's toplevel waited for nginx, web1's for linux.
    assert_eq!(arrows("f"), [(json!(4), json!(18_000_000)), (json!(3), json!(25_500_000))]);
    assert_eq!(arrows("s").len(), 2);
    let most = events
        .iter()
        .filter(|event| event["ph"] == "C" && event["pid"] == 11)
        .map(|e| e["args"]["attempts"].as_i64().unwrap());
    assert_eq!(most.collect::<Vec<_>>(), [1, 2, 1, 2, 1, 0, 1, 0]);
    hold_to_schema(&document);
}

/// By a validator of another hand; and slices of a thread lie in each other or apart.
fn hold_to_schema(document: &Value) {
    const SCRIPT: &str = "
import json, sys, jsonschema
given = json.load(sys.stdin)
validator = jsonschema.Draft202012Validator(given['schema'])
validator.check_schema(given['schema'])
json.dump([e.message[:300] for e in validator.iter_errors(given['trace'])][:5], sys.stdout)
";
    let schema: Value = serde_json::from_str(include_str!("../fixtures/trace.schema.json")).unwrap();
    let given = json!({ "schema": schema, "trace": document }).to_string();
    assert_eq!(python("otlp", SCRIPT, &given), json!([]));
    let mut threads: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for event in document["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X") {
        let [pid, tid, ts, dur] = ["pid", "tid", "ts", "dur"].map(|name| event[name].as_u64().unwrap());
        threads.entry((pid, tid)).or_default().push((ts, ts + dur));
    }
    for (thread, mut slices) in threads {
        slices.sort_by_key(|(from, to)| (*from, std::cmp::Reverse(*to)));
        let mut open: Vec<u64> = Vec::new();
        for (from, to) in slices {
            while open.last().is_some_and(|end| *end <= from) {
                open.pop();
            }
            assert!(open.last().is_none_or(|end| to <= *end), "{thread:?}: {from}..{to} crosses {open:?}");
            open.push(to);
        }
    }
}

#[test]
fn metrics_are_sums_over_runs_and_promtool_takes_them() {
    let text = prometheus::text(&runs(&[40.0, 36.0]));
    let value = |sample: &str| {
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == sample));
        line.unwrap_or_else(|| panic!("{sample} is not in\n{text}")).rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    for (sample, wanted) in [
        ("drover_runs_total{command=\"run\",result=\"failure\"}", 2.0),
        ("drover_run_duration_seconds_sum{command=\"run\",result=\"failure\"}", 76.0),
        ("drover_run_duration_seconds_bucket{command=\"run\",result=\"failure\",le=\"15\"}", 0.0),
        ("drover_run_duration_seconds_bucket{command=\"run\",result=\"failure\",le=\"60\"}", 2.0),
        ("drover_stage_duration_seconds_sum{stage=\"build\"}", 54.0),
        ("drover_build_duration_seconds_count{system=\"x86_64-linux\",result=\"built\"}", 8.0),
        ("drover_build_duration_seconds_sum{system=\"x86_64-linux\",result=\"built\"}", 69.0),
        ("drover_build_duration_seconds_sum{system=\"x86_64-linux\",result=\"failed\"}", 12.0),
        // nginx again after its first attempt 5.5, db1 1.5.
        ("drover_build_queue_duration_seconds_sum{system=\"x86_64-linux\"}", 14.0),
        ("drover_builder_busy_seconds_total{builder=\"big1\"}", 61.0),
        ("drover_builder_busy_seconds_total{builder=\"local\"}", 20.0),
        ("drover_cache_lookups_total{cache=\"cache.nixos.org\",outcome=\"hit\"}", 120.0),
        ("drover_cache_lookups_total{cache=\"acme.cachix.org\",outcome=\"miss\"}", 140.0),
        ("drover_cache_pushed_bytes_total{cache=\"acme.cachix.org\"}", 47_400_000.0),
        ("drover_cache_repeated_requests_total{cache=\"cache.nixos.org\"}", 24.0),
        ("drover_cache_spared_seconds_total", 480.0),
        ("drover_failures_total{class=\"build\"}", 4.0),
        ("drover_retries_total", 2.0),
        ("drover_flaky_drvs_total", 2.0),
        ("drover_drvs_built_total", 8.0),
        ("drover_last_run_duration_seconds", 36.0),
        ("drover_last_run_path_hit_ratio", 0.9),
        ("drover_last_run_closure_bytes", 1_288_490_188.0),
        ("drover_builder_slots{builder=\"big1\"}", 2.0),
        // 2026-11-21T08:14:00Z and 36 s.
        ("drover_last_run_timestamp_seconds", 1_795_248_876.0),
    ] {
        assert!((value(sample) - wanted).abs() < 1e-6, "{sample}: {} instead of {wanted}", value(sample));
    }
    assert!(!text.contains("drover_last_success"), "{text}");
    assert!(text.ends_with('\n'));
    for run in [known(), every_fact(), fleet(Twist { push: true, ..Twist::default() }).events()] {
        promtool(&prometheus::text(&entry::of(&Summary::of(&run)).into_iter().collect::<Vec<_>>()));
    }
    promtool(&text);
}

/// What Prometheus' own checker says of a text: nothing.
fn promtool(text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: there is no promtool on PATH (apt-get install prometheus)");
        return;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

/// The spans of a document as PyPI's opentelemetry-proto reads them. In OTLP's JSON ids are hexadecimal, where that of
/// Protocol Buffers has base64.
pub(crate) fn spans(document: &Value) -> Vec<Value> {
    const SCRIPT: &str = "
import base64, json, sys
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
def ids(node):
    if isinstance(node, list):
        return [ids(n) for n in node]
    if isinstance(node, dict):
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ('traceId', 'spanId', 'parentSpanId') else ids(v)
                for k, v in node.items()}
    return node
request = json_format.ParseDict(ids(json.load(sys.stdin)), ExportTraceServiceRequest())
def value(v):
    return getattr(v, v.WhichOneof('value'))
out = []
for resource in request.resource_spans:
    for scope in resource.scope_spans:
        for span in scope.spans:
            assert len(span.trace_id) == 16 and len(span.span_id) == 8 and len(span.parent_span_id) in (0, 8)
            assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
            names = [a.key for a in span.attributes]
            assert len(names) == len(set(names)), names
            out.append({'name': span.name, 'trace': span.trace_id.hex(), 'id': span.span_id.hex(), 'parent': span.parent_span_id.hex(),
                        'kind': span.kind, 'start': span.start_time_unix_nano, 'end': span.end_time_unix_nano,
                        'status': span.status.code, 'message': span.status.message,
                        'attributes': {a.key: value(a.value) for a in span.attributes}})
json.dump(out, sys.stdout)
";
    python("otlp", SCRIPT, &document.to_string()).as_array().unwrap().clone()
}

#[test]
fn spans_have_the_same_numbers_and_opentelemetry_reads_them() {
    let parent = Parent::of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let spans = spans(&otlp::whole(&summary(), parent.as_ref()));
    // The run, four stages, four evaluations, six attempts.
    assert_eq!(spans.len(), 15);
    let began = 1_795_248_840_000_000_000_u64;
    let run = &spans[0];
    assert_eq!(
        (&run["trace"], &run["parent"]),
        (&json!("4bf92f3577b34da6a3ce929d0e0e4736"), &json!("00f067aa0ba902b7"))
    );
    assert_eq!((run["start"].as_u64(), run["end"].as_u64()), (Some(began), Some(began + 36_000_000_000)));
    assert_eq!((&run["kind"], &run["status"]), (&json!(2), &json!(2)));
    let wanted = json!({
        "cicd.pipeline.action.name": "RUN", "cicd.pipeline.result": "failure", "error.type": "failure",
        "cicd.pipeline.run.id": crate::support::story::RUN, "drover.drvs.built": 4, "drover.paths.pushed": 4,
        "vcs.ref.head.revision": "4f2c1d9a0b3e5d7c8f1a2b3c4d5e6f7081920a1b",
    });
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&run["attributes"][name], value, "{name}");
    }
    let ids: std::collections::BTreeSet<&str> = spans.iter().map(|span| span["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), spans.len());
    assert!(spans[1..].iter().all(|span| span["parent"] == run["id"] && span["trace"] == run["trace"]));
    let find = |name: &str, result: &str| {
        let is = |span: &&Value| span["name"] == name && span["attributes"]["cicd.pipeline.task.run.result"] == result;
        spans.iter().find(is).unwrap_or_else(|| panic!("no {result} {name}"))
    };
    let times = |span: &Value| (span["start"].as_u64().unwrap() - began, span["end"].as_u64().unwrap() - began);
    let linux = find("linux-6.12.58", "success");
    assert_eq!(times(linux), (4_000_000_000, 25_000_000_000));
    let attributes = &linux["attributes"];
    assert_eq!(
        (&attributes["drover.cpu.seconds"], &attributes["drover.output.bytes"]),
        (&json!(38.0), &json!(50_000_000))
    );
    assert_eq!((&attributes["cicd.worker.name"], &attributes["nix.system"]), (&json!("big1"), &json!("x86_64-linux")));
    let nginx = find("nginx-1.29.4", "failure");
    assert_eq!(times(nginx), (4_500_000_000, 9_500_000_000));
    assert_eq!(
        (&nginx["attributes"]["error.type"], &nginx["message"]),
        (&json!("build"), &json!("builder exited with code 2"))
    );
    assert_eq!(times(find("nginx-1.29.4", "success")), (10_000_000_000, 18_000_000_000));
    let stage = |name: &str| times(spans.iter().find(|span| span["name"] == format!("stage {name}")).unwrap());
    assert_eq!((stage("build"), stage("push")), ((4_000_000_000, 31_000_000_000), (18_000_000_000, 35_000_000_000)));
}

#[test]
fn every_record_can_be_told_in_every_format() {
    let fleets = [
        Twist::default(),
        Twist { idle: true, ..Twist::default() },
        Twist { nginx_fails: true, eval_fails: true, push: true, ..Twist::default() },
    ];
    let mut records: Vec<Vec<Event>> = fleets.iter().map(|twist| fleet(*twist).events()).collect();
    records.push(every_fact());
    // A run that was killed.
    records.push(fleet(Twist { push: true, ..Twist::default() }).until(60.0));
    records.push(Vec::new());
    for events in records {
        let s = Summary::of(&events);
        assert!(html::page(&s, &[]).unwrap().ends_with("</html>"));
        hold_to_schema(&trace::document(&s));
        spans(&otlp::whole(&s, None));
        let parts: usize = otlp::documents(&s, None).iter().map(|part| spans(part).len()).sum();
        assert_eq!(parts, spans(&otlp::whole(&s, None)).len());
        assert!(badge::svg(&s).ends_with("</svg>\n"));
        junit::document(&s, None).unwrap();
    }
}

#[test]
fn junit_has_the_same_numbers() {
    const SCRIPT: &str = "
import json, sys
from junitparser.xunit2 import JUnitXml
xml = JUnitXml.fromstring(sys.stdin.read())
def again(case):
    return [[type(r).__name__, r.message, r.type, float(r._elem.get('time')), r.system_out] for r in case.interim_result]
json.dump({'tests': xml.tests, 'failures': xml.failures, 'errors': xml.errors, 'time': xml.time,
  'cases': {c.name: [c.time, type(c.result[0]).__name__ if c.result else 'ok'] for s in xml for c in s},
  'again': {c.name: again(c) for s in xml for c in s if c.interim_result}}, sys.stdout)
";
    let read = python("junitparser", SCRIPT, &junit::document(&summary(), None).unwrap());
    const TAIL: &str = "checking for OpenSSL\nerror: <ssl.h> & more are not there";
    let in_vain = "nginx-1.29.4 on big1: builder exited with code 2";
    // Evaluating, and from when it was known what had to be built until it was there: 2 + 26, 3 + 15.5, 2 + 6, 0.5.
    let wanted = json!({
        "tests": 4, "failures": 1, "errors": 0, "time": 36.0,
        "cases": {
            "nixosConfigurations.web1": [28.0, "ok"],
            "nixosConfigurations.web2": [18.5, "ok"],
            "nixosConfigurations.db1": [8.0, "Failure"],
            "packages.x86_64-linux.tool": [0.5, "ok"],
        },
        "again": { "nixosConfigurations.web2": [["FlakyFailure", in_vain, "build", 4.0, TAIL]] },
    });
    assert_eq!(read, wanted);

    // The same, but nginx never comes about.
    let mut events = known();
    let failure = || Failure::new(Class::Build, "builder failed with exit code 2");
    for event in &mut events {
        match &mut event.fact {
            Fact::AttemptEnded { attempt: AttemptId(2), end, .. } => *end = AttemptEnd::Failed(failure()),
            Fact::DrvEnded { drv: DrvId(1), outcome } => *outcome = DrvOutcome::Failed(failure()),
            Fact::AttrEnded { attr: AttrId(1), status, root, .. } => {
                (*status, *root) = (Status::Failed, Some(DrvId(1)));
            }
            _ => {}
        }
    }
    let read = python("junitparser", SCRIPT, &junit::document(&Summary::of(&events), None).unwrap());
    assert_eq!(read["cases"]["nixosConfigurations.web2"][1], "Failure");
    assert_eq!(read["again"], json!({ "nixosConfigurations.web2": [["RerunFailure", in_vain, "build", 4.0, TAIL]] }));
}
