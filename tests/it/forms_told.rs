//! Formats from the command line: printed, written, put together in an archive, sent to a collector.
#![expect(clippy::disallowed_methods, reason = "starts drover, and readers of what it wrote")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, Uri};
use drover::record::{LogWriter, RunDir, Writer};
use serde_json::Value;

use crate::support::nix::{Lab, newest, tool};
use crate::support::service::{Answers, Asked, Control, Seat, Service, Trouble};
use crate::support::site::{Site, finish};
use crate::support::story::{RUN, store_path};
use crate::support::story_known::known;

/// What must be nowhere.
const SECRET: &str = "Ohbr6eex1aif";

/// A state directory with the known run, and a log of it.
fn recorded() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let dir = RunDir::new(state.path(), RUN.parse().unwrap());
    let mut writer = Writer::create(&dir, None).unwrap();
    for event in known() {
        writer.write(&event).unwrap();
    }
    writer.flush().unwrap();
    let mut log = LogWriter::new(&dir, &format!("{}.drv", store_path("nginx-1.29.4")), 1 << 20);
    log.line(b"checking for OpenSSL").unwrap();
    log.finish().unwrap();
    state
}

/// `drover report` of that.
fn report(state: &Path, args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.env_clear().env("HOME", state).envs(vars.iter().copied()).current_dir(state);
    command.arg("report").args(args).arg("--state-dir").arg(state).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_is_printed_is_what_is_written() {
    let state = recorded();
    for format in ["summary", "json", "html", "markdown", "junit", "trace", "prometheus", "otlp", "badge", "zip"] {
        let file = state.path().join(format);
        let printed = report(state.path(), &["--format", format], &[]);
        assert!(printed.status.success() && !printed.stdout.is_empty(), "{format}: {}", text(&printed.stderr));
        let written = report(state.path(), &["--format", format, "--output", file.to_str().unwrap()], &[]);
        assert!(written.status.success() && written.stdout.is_empty(), "{format}: {}", text(&written.stderr));
        let bytes = std::fs::read(&file).unwrap();
        assert!(bytes == printed.stdout, "{format}: {} and {}", text(&bytes), text(&printed.stdout));
    }
    let nowhere = report(state.path(), &["--format", "html", "--output", "no/such/dir/x.html"], &[]);
    assert!(!nowhere.status.success() && text(&nowhere.stderr).contains("hint:"), "{}", text(&nowhere.stderr));
}

/// Read by Python's zipfile.
#[test]
fn an_archive_holds_all_of_a_run_and_no_secret() {
    const SCRIPT: &str = "
import json, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
data = {name: archive.read(name) for name in archive.namelist()}
json.dump({'bad': archive.testzip(), 'names': sorted(data), 'secret': [n for n, d in data.items() if sys.argv[2].encode() in d],
           'events': next(d for n, d in data.items() if n.endswith('/events.jsonl')).decode(),
           'log': next(d for n, d in data.items() if n.endswith('.log')).decode()}, sys.stdout)
";
    let state = recorded();
    let secrets = ["CACHIX_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS"];
    let secrets = secrets.map(|name| (name, if name.starts_with("OTEL") { "a=Ohbr6eex1aif" } else { SECRET }));
    let made = report(state.path(), &["--format", "zip", "-o", "run.zip"], &secrets);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let mut python = Command::new(tool("otlp/bin/python"));
    let output = python.args(["-c", SCRIPT]).arg(state.path().join("run.zip")).arg(SECRET).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&read["bad"], &read["secret"]), (&Value::Null, &serde_json::json!([])));
    let names: BTreeSet<&str> = read["names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().split_once('/').unwrap().1)
        .collect();
    let log = format!("logs/{}.log", store_path("nginx-1.29.4").rsplit('/').next().unwrap());
    let wanted = [
        "badge.svg",
        "events.jsonl",
        "junit.xml",
        &log,
        "metrics.prom",
        "otlp.json",
        "report.html",
        "report.md",
        "run.json",
        "summary.txt",
        "trace.json",
    ];
    assert_eq!(names, BTreeSet::from(wanted));
    let record = RunDir::new(state.path(), RUN.parse().unwrap()).events();
    assert_eq!(read["events"], std::fs::read_to_string(record).unwrap());
    assert_eq!(read["log"], "checking for OpenSSL\n");
}

/// A collector of spans: it keeps what it is sent.
#[derive(Default)]
struct Collector {
    control: Control,
    sent: Mutex<Vec<(Option<String>, Value)>>,
}

impl Answers for Collector {
    fn name(&self, method: &Method, uri: &Uri, _: &HeaderMap) -> &'static str {
        if *method == Method::POST && uri.path() == "/v1/traces" { "spans" } else { "other" }
    }

    fn answer(&self, asked: Asked) -> Response<Body> {
        assert_eq!(asked.header("content-type"), Some("application/json"));
        let body = serde_json::from_slice(&asked.body).unwrap();
        self.sent.lock().unwrap().push((asked.header("authorization").map(str::to_owned), body));
        Response::new(Body::from("{}"))
    }

    fn control(&self) -> &Control {
        &self.control
    }
}

fn collector() -> (Arc<Collector>, Service) {
    let collector = Arc::new(Collector::default());
    let service = Seat::new().serve(Arc::clone(&collector) as Arc<dyn Answers>);
    (collector, service)
}

#[test]
fn spans_are_sent_to_a_collector_with_its_login_and_again_where_it_says_so() {
    let state = recorded();
    let (collector, service) = collector();
    let login = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20Ohbr6eex1aif");
    let trace = ("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    collector.control.next("spans", [Trouble::Status(503)]);
    let sent = report(state.path(), &["--otlp-endpoint", &service.url], &[login, trace]);
    assert!(sent.status.success() && sent.stdout.is_empty(), "{}", text(&sent.stderr));
    assert_eq!(collector.control.count("spans"), 2);
    let (authorization, body) = collector.sent.lock().unwrap().last().cloned().unwrap();
    assert_eq!(authorization.as_deref(), Some("Bearer Ohbr6eex1aif"));
    let spans = crate::forms::spans(&body);
    assert_eq!((spans.len(), &spans[0]["parent"]), (15, &"00f067aa0ba902b7".into()));

    collector.control.always("spans", Trouble::Status(401));
    let refused = report(state.path(), &["--otlp-endpoint", &service.url], &[login]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("HTTP 401") && said.contains("hint:") && !said.contains(SECRET), "{said}");
}

const FLAKE: &str = r#"{
  outputs = _: {
    packages.x86_64-linux.app = derivation {
      name = "app-1.0"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo app > $out" ];
    };
  };
}
"#;

/// A real run leaves a page where it is told to, and tells the collector that the environment names; one that is dead
/// harms nothing.
#[test]
fn a_run_leaves_a_page_and_tells_a_collector() {
    let (collector, service) = collector();
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let page = site.lab.work().join("out/report.html");
    let run = |endpoint: &str, args: &[&str]| {
        let mut command = site.command(args);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("CI", "true");
        let ran = finish(command, args);
        ran.expect(0);
        ran
    };
    let ran = run(&service.url, &["run", "--report-dir", page.parent().unwrap().to_str().unwrap()]);
    assert!(ran.stderr.trim_end().ends_with(&format!("report: {}", page.display())), "{}", ran.stderr);
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("app-1.0") && text.contains("<title>✓ 1 package: built · "), "{text}");
    let sent = collector.sent.lock().unwrap();
    assert_eq!(sent.len(), 1);
    let spans = crate::forms::spans(&sent[0].1);
    assert!(spans.iter().any(|span| span["name"] == "app-1.0"), "{spans:?}");
    run("http://127.0.0.1:1", &["run"]);
}

/// A package with a library of this version, which is 200 KiB larger from 1.1 on.
fn versioned(version: &str) -> String {
    let width = if version == "1.0" { 1000 } else { 205_800 };
    format!(
        r#"{{
  outputs = _:
    let
      build = name: script: derivation {{
        inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ];
      }};
      lib = build "lib-{version}" "printf %{width}s x > $out";
    in {{
      packages.x86_64-linux = {{ app = build "app-1" "echo ${{lib}} > $out"; other = build "other-1" "echo > $out"; }};
    }};
}}
"#
    )
}

/// What differs from the base, why, and by how much that makes it larger.
#[test]
fn the_page_of_a_step_says_why_attrs_differ() {
    let site = Site::of(Lab::plain(&newest()), &versioned("1.0"));
    site.exits(0, &["run"]);
    site.edit("flake.nix", &versioned("1.1"));
    let page = site.lab.work().join("page.md");
    let args = ["run", "--base", "HEAD~1"];
    let mut command = site.command(&args);
    command.env("GITHUB_STEP_SUMMARY", &page);
    finish(command, &args).expect(0);
    let text = std::fs::read_to_string(&page).unwrap();
    let wanted = "1 of 2 packages changes, all built ✓";
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("\n| 1 package | app | lib 1.0 → 1.1 | +0.2 MiB |\n"), "{text}");
}
