//! A small run of which everything was worked out by hand. Seconds; two evaluators, one slot here and two on big1:
//!
//! ```text
//!  0   1   3   4   5     10    18  20    25    30 31  34 35 36
//!      |web1-|db1--|                                             evaluator 0      eval   1-5
//!      |web2---|t|                                               evaluator 1      diff   3-6
//!              .|linux------------------------|.|web1--|>        big1 slot 1      build  4-31
//!               .|nginx ✗|.|db1 ✗|                               big1 slot 2      push  18-35
//!                         |nginx----|web2|                       local
//!                                   |nginx|web2| |linux| |web1----| |   pushes, read back at 35
//! ```
//!
//! `.` inputs on their way, `>` results on their way home. The path: starting 1, evaluating web1 2, comparing 1, inputs of
//! linux 1, linux 20, inputs of web1 0.5, web1 4.5, its way home 1, pushing 4, closing 1: 36.

use drover::event::{
    AttemptEnd, Class, DrvOutcome, Evaluated, Event, Fact, Failure, Moment, OutputPath, Pushed, Stage, Status,
};
use drover::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind};

use super::story::{Story, store_path};

const LOCAL: BuilderId = BuilderId(0);
const BIG1: BuilderId = BuilderId(1);
const ACME: CacheId = CacheId(0);
const UP: CacheId = CacheId(1);

/// The attrs, in their order.
const WEB1: AttrId = AttrId(0);
const WEB2: AttrId = AttrId(1);
const DB1: AttrId = AttrId(2);
const TOOL: AttrId = AttrId(3);

/// The drvs.
const LINUX: DrvId = DrvId(0);
const NGINX: DrvId = DrvId(1);
const WEB1_TOP: DrvId = DrvId(2);
const WEB2_TOP: DrvId = DrvId(3);
const SOURCE: DrvId = DrvId(4);
const DB1_TOP: DrvId = DrvId(5);

fn out(name: &str) -> OutputPath {
    OutputPath { name: "out".into(), path: Some(store_path(name).into()) }
}

fn exit_code(code: u8) -> Failure {
    Failure::new(Class::Build, format!("builder failed with exit code {code}"))
}

/// What is told of a drv that is needed.
fn need(story: &mut Story, at: f64, drv: DrvId, name: &str, (inputs, attr, expected): (&[DrvId], AttrId, Option<f64>)) {
    story.at(
        at,
        Fact::DrvNeeded {
            drv,
            path: format!("{}.drv", store_path(name)).into(),
            name: name.into(),
            system: "x86_64-linux".into(),
            inputs: inputs.to_vec(),
            fetch: drv == SOURCE,
            opaque: false,
            features: vec![],
            attr: Some(attr),
            expected,
            outputs: vec![out(name)],
        },
    );
}

/// An attempt: asked, building, ended; on big1 its inputs come in between.
fn attempt(story: &mut Story, number: u32, drv: DrvId, builder: BuilderId, times: [f64; 3], failed: Option<Failure>) {
    let attempt = AttemptId(number);
    let [started, building, ended] = times;
    story.at(started, Fact::AttemptStarted { attempt, drv, builder });
    if builder == BIG1 {
        story.at(started, Fact::AttemptBringing { attempt, paths: 3, nar_size: 3 << 20 });
        story.at(building, Fact::AttemptPrepared { attempt, copied: 3, copied_size: 3 << 20, fetched: 0 });
    }
    story.at(building, Fact::AttemptBuilding { attempt });
    let tail: Vec<drover::event::Text> = match failed {
        Some(_) => vec!["checking for OpenSSL".into(), "error: <ssl.h> & more are not there".into()],
        None => vec![],
    };
    let end = failed.map_or(AttemptEnd::Built { outputs: vec![] }, AttemptEnd::Failed);
    if number == 0 {
        for (at, phase) in [(5.0, "unpackPhase"), (8.0, "buildPhase"), (24.0, "installPhase")] {
            story.at(at, Fact::AttemptPhase { attempt, phase: phase.into() });
        }
        story.at(ended, Fact::AttemptMeasured { attempt, cpu: 38.0 });
    }
    story.at(ended, Fact::AttemptEnded { attempt, end, log_lines: 40, log_tail: tail });
}

fn evaluated(story: &mut Story, attr: AttrId, worker: u32, from: f64, to: f64) {
    story.at(from, Fact::EvalStarted { attr, worker });
    let name =
        ["nixos-system-web1-25.11", "nixos-system-web2-25.11", "nixos-system-db1-25.11", "tool-1.0"][attr.index()];
    let evaluated = Evaluated::Drv {
        drv: format!("{}.drv", store_path(name)).into(),
        name: name.into(),
        system: "x86_64-linux".into(),
        outputs: vec![out(name)],
        position: None,
    };
    story.at(to, Fact::EvalEnded { attr, evaluated, peak: None, grown: None });
}

fn pushed(story: &mut Story, name: &str, from: f64, to: f64, file_size: u64) {
    let path: drover::event::Text = store_path(name).into();
    story.at(from, Fact::PushQueued { cache: ACME, path: path.clone(), nar_size: file_size * 3 });
    story.at(from, Fact::PushStarted { cache: ACME, path: path.clone() });
    story.at(to, Fact::PushEnded { cache: ACME, path, pushed: Pushed::Uploaded { file_size } });
}

/// The whole run; see the module's page.
pub fn known() -> Vec<Event> {
    let mut story = Story::new("run", &[".#web1"]);
    story.builder(0.0, 0, "local", 1, &["x86_64-linux"]);
    story.builder(0.5, 1, "big1", 2, &["x86_64-linux"]);
    story.cache(0.5, 0, "acme.cachix.org", true);
    story.cache(0.5, 1, "cache.nixos.org", false);
    story.flake(1.0, 0, false);
    for name in ["web1", "web2", "db1"] {
        story.attr(1.0, Kind::NixosConfigurations, name);
    }
    story.attr(1.0, Kind::Packages, "tool");
    evaluated(&mut story, WEB1, 0, 1.0, 3.0);
    evaluated(&mut story, DB1, 0, 3.0, 5.0);
    evaluated(&mut story, WEB2, 1, 1.0, 4.0);
    evaluated(&mut story, TOOL, 1, 4.0, 4.5);
    planned(&mut story);
    built(&mut story);
    for (stage, from, to) in
        [(Stage::Eval, 1.0, 5.0), (Stage::Diff, 3.0, 6.0), (Stage::Build, 4.0, 31.0), (Stage::Push, 18.0, 35.0)]
    {
        story.stage(stage, from, to);
    }
    story.at(36.0, Fact::RunEnded { exit: 1 });
    story.events()
}

fn planned(story: &mut Story) {
    story.at(6.0, Fact::DiffProgress { paths: 120, valid: 20, present: 90, absent: 8, untrusted: 1, no_answer: 1 });
    story.at(6.0, Fact::CacheAsked { cache: ACME, present: 30, absent: 70, untrusted: 0, no_answer: 0 });
    story.at(6.0, Fact::CacheAsked { cache: UP, present: 60, absent: 8, untrusted: 1, no_answer: 1 });
    story.at(6.0, Fact::CachesSpared { drvs: 5, known: 4, seconds: 240.0, paths: 90, nar_size: 900_000_000 });
    story.at(6.0, Fact::CacheRepeated { cache: UP, reason: "HTTP 429".into(), requests: 12, waited: 3.5 });
    need(story, 4.0, LINUX, "linux-6.12.58", (&[], WEB1, Some(20.0)));
    need(story, 4.0, WEB1_TOP, "nixos-system-web1-25.11", (&[LINUX], WEB1, None));
    need(story, 4.5, NGINX, "nginx-1.29.4", (&[], WEB2, Some(8.0)));
    need(story, 4.5, WEB2_TOP, "nixos-system-web2-25.11", (&[NGINX], WEB2, None));
    need(story, 6.0, SOURCE, "source", (&[], DB1, None));
    need(story, 6.0, DB1_TOP, "nixos-system-db1-25.11", (&[SOURCE], DB1, None));
    story.planned(4.0, WEB1, Status::ToBuild, Some(WEB1_TOP), 2);
    story.planned(4.5, WEB2, Status::ToBuild, Some(WEB2_TOP), 2);
    story.planned(6.0, DB1, Status::ToBuild, Some(DB1_TOP), 1);
    story.planned(6.0, TOOL, Status::ToFetch, None, 0);
}

fn built(story: &mut Story) {
    story.at(6.0, Fact::FetchStarted { drv: SOURCE });
    story.at(8.0, Fact::FetchEnded { drv: SOURCE, failure: None });
    story.at(8.0, Fact::DrvEnded { drv: SOURCE, outcome: DrvOutcome::Fetched });
    attempt(story, 0, LINUX, BIG1, [4.0, 5.0, 25.0], None);
    attempt(story, 1, NGINX, BIG1, [4.5, 5.5, 9.5], Some(exit_code(2)));
    attempt(story, 2, NGINX, LOCAL, [10.0, 10.0, 18.0], None);
    attempt(story, 3, WEB1_TOP, BIG1, [25.0, 25.5, 30.0], None);
    attempt(story, 4, WEB2_TOP, LOCAL, [18.0, 18.0, 20.0], None);
    attempt(story, 5, DB1_TOP, BIG1, [9.5, 10.0, 12.0], Some(exit_code(1)));
    for (at, drv, nar_size) in
        [(25.0, LINUX, 50_000_000), (18.0, NGINX, 7_000_000), (30.0, WEB1_TOP, 1_000_000), (20.0, WEB2_TOP, 1_000_000)]
    {
        story.at(at, Fact::DrvSized { drv, nar_size });
        story.at(at, Fact::DrvEnded { drv, outcome: DrvOutcome::Built });
    }
    story.at(12.0, Fact::DrvEnded { drv: DB1_TOP, outcome: DrvOutcome::Failed(exit_code(1)) });
    story.at(30.0, Fact::ResultsReturning { drv: WEB1_TOP, builder: BIG1 });
    story.at(31.0, Fact::ResultsReturned { drv: WEB1_TOP, paths: 1, nar_size: 1_000_000, failure: None });
    let end = |attr, status, root| Fact::AttrEnded { attr, status, reason: None, root };
    story.at(30.0, end(WEB1, Status::Built, None));
    story.at(20.0, end(WEB2, Status::Built, None));
    story.at(12.0, end(DB1, Status::Failed, Some(DB1_TOP)));
    story.at(6.0, end(TOOL, Status::Cached, None));
    story.at(30.0, Fact::ClosureSized { attr: WEB1, paths: 412, nar_size: 1_288_490_188 });
    pushed(story, "nginx-1.29.4", 18.0, 19.0, 3_000_000);
    pushed(story, "nixos-system-web2-25.11", 20.0, 20.5, 400_000);
    pushed(story, "linux-6.12.58", 25.0, 28.0, 20_000_000);
    pushed(story, "nixos-system-web1-25.11", 30.0, 34.0, 300_000);
    story.at(35.0, Fact::PushVerified { cache: ACME, present: 4, missing: vec![] });
}

/// The path: what, of whom, where, from when to when.
pub const PATH: [(&str, &str, &str, f64, f64); 10] = [
    ("starting", "", "", 0.0, 1.0),
    ("evaluating", "web1", "", 1.0, 3.0),
    ("comparing", "", "", 3.0, 4.0),
    ("preparing", "linux-6.12.58", "big1", 4.0, 5.0),
    ("building", "linux-6.12.58", "big1", 5.0, 25.0),
    ("preparing", "nixos-system-web1-25.11", "big1", 25.0, 25.5),
    ("building", "nixos-system-web1-25.11", "big1", 25.5, 30.0),
    ("returning", "nixos-system-web1-25.11", "big1", 30.0, 31.0),
    ("pushing", "acme.cachix.org", "acme.cachix.org", 31.0, 35.0),
    ("closing", "", "", 35.0, 36.0),
];

/// All bars: the track, the lane from 0, whose, from when to when, and whether it failed.
pub const BARS: [(&str, usize, &str, f64, f64, bool); 20] = [
    ("evaluators", 0, "web1", 1.0, 3.0, false),
    ("evaluators", 0, "db1", 3.0, 5.0, false),
    ("evaluators", 1, "web2", 1.0, 4.0, false),
    ("evaluators", 1, "tool", 4.0, 4.5, false),
    ("fetches", 0, "source", 6.0, 8.0, false),
    ("local", 0, "nginx-1.29.4", 10.0, 18.0, false),
    ("local", 0, "nixos-system-web2-25.11", 18.0, 20.0, false),
    ("inputs to big1", 0, "linux-6.12.58", 4.0, 5.0, false),
    ("inputs to big1", 0, "nixos-system-db1-25.11", 9.5, 10.0, false),
    ("inputs to big1", 0, "nixos-system-web1-25.11", 25.0, 25.5, false),
    ("inputs to big1", 1, "nginx-1.29.4", 4.5, 5.5, false),
    ("big1", 0, "linux-6.12.58", 5.0, 25.0, false),
    ("big1", 0, "nixos-system-web1-25.11", 25.5, 30.0, false),
    ("big1", 1, "nginx-1.29.4", 5.5, 9.5, true),
    ("big1", 1, "nixos-system-db1-25.11", 10.0, 12.0, true),
    ("results from big1", 0, "nixos-system-web1-25.11", 30.0, 31.0, false),
    ("pushes to acme.cachix.org", 0, "nginx-1.29.4", 18.0, 19.0, false),
    ("pushes to acme.cachix.org", 0, "nixos-system-web2-25.11", 20.0, 20.5, false),
    ("pushes to acme.cachix.org", 0, "linux-6.12.58", 25.0, 28.0, false),
    ("pushes to acme.cachix.org", 0, "nixos-system-web1-25.11", 30.0, 34.0, false),
];

/// Pairs of stages and how long they went on at once.
pub const OVERLAPS: [(Stage, Stage, f64); 4] = [
    (Stage::Eval, Stage::Diff, 2.0),
    (Stage::Eval, Stage::Build, 1.0),
    (Stage::Diff, Stage::Build, 2.0),
    (Stage::Build, Stage::Push, 13.0),
];

/// Seconds as a moment.
pub fn at(seconds: f64) -> Moment {
    Moment((seconds * 1e6).round() as u64)
}
