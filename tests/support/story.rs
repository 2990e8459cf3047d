//! Made-up runs as event streams: deterministic, and consistent in themselves (builds are played on builders with
//! slots, so no drv starts before its inputs). For screens, accounts and records; owns no expectations.

use std::collections::BTreeMap;

use drover::event::{
    AttemptEnd, Class, Difference, DrvOutcome, Evaluated, Event, FORMAT, Fact, Failure, FetchedPath, LockedInput,
    Moment, OutputPath, Pushed, SkippedPath, Stage, Status,
};
use drover::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind};

/// The run that all stories tell of.
pub const RUN: &str = "01KAJX3M000000000000000000";

/// A stream in the making: facts with their times, in any order.
#[derive(Default)]
pub struct Story {
    facts: Vec<(Moment, Fact)>,
    attrs: Vec<String>,
    drvs: Vec<Drv>,
    builders: Vec<(BuilderId, u32, f64)>,
    push_to: Option<CacheId>,
    attempts: u32,
}

/// A drv of a story.
#[derive(Clone)]
pub struct Drv {
    pub name: String,
    pub seconds: f64,
    pub inputs: Vec<DrvId>,
    pub fails: Option<(Failure, &'static str, Vec<&'static str>)>,
    pub needed: f64,
    pub fetch: bool,
    outcome: Option<(f64, DrvOutcome)>,
}

/// A failure with this class and message.
pub fn failure(class: Class, message: &str) -> Failure {
    Failure::new(class, message)
}

/// A store path with a hash made of the name, so that it is the same every time.
pub fn store_path(name: &str) -> String {
    const DIGITS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut state =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let hash: String = (0..32)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            DIGITS[(state >> 59) as usize] as char
        })
        .collect();
    format!("/nix/store/{hash}-{name}")
}

fn drv_path(name: &str) -> String {
    format!("{}.drv", store_path(name))
}

impl Story {
    /// Begins with `run_started`.
    pub fn new(command: &str, what: &[&str]) -> Self {
        let mut story = Self::default();
        story.at(
            0.0,
            Fact::RunStarted {
                format: FORMAT,
                run: RUN.parse().unwrap(),
                drover: "0.1.0".into(),
                command: command.into(),
                what: what.iter().map(|what| (*what).into()).collect(),
                started: "2026-11-21T08:14:00Z".parse().unwrap(),
                nix: "2.34.8".into(),
            },
        );
        story
    }

    /// Adds a fact.
    pub fn at(&mut self, seconds: f64, fact: Fact) {
        self.facts.push((Moment((seconds * 1e6).round() as u64), fact));
    }

    pub fn flake(&mut self, at: f64, dirty: u32, recorded: bool) {
        let original = "git+file:///home/me/infra".into();
        let locked = "git+file:///home/me/infra?rev=4f2c1d9a0b3e5d7c8f1a2b3c4d5e6f7081920a1b".into();
        let rev = Some("4f2c1d9a0b3e5d7c8f1a2b3c4d5e6f7081920a1b".into());
        self.at(at, Fact::FlakeLocked { original, locked, rev, dirty_files: Some(dirty), recorded });
    }

    /// A base of so many attrs.
    pub fn base(&mut self, at: f64, recorded: bool, attrs: u32) {
        let rev = "a01b77e3c5f0d2b4968717a6b5c4d3e2f1a0b9c8";
        let locked = format!("git+file:///home/me/infra?rev={rev}").into();
        let label = "main@a01b77e".into();
        self.at(at, Fact::BaseKnown { label, rev: Some(rev.into()), locked, recorded, attrs, failed: 0 });
    }

    /// How an attr differs from the base, which has no drv of it that anybody could look at.
    pub fn compared(&mut self, at: f64, attr: AttrId, difference: Difference) {
        let base_drv = None;
        self.at(at, Fact::AttrCompared { attr, difference, revision_only: false, same_outputs: false, base_drv });
    }

    /// A builder that runs at a speed of 1.
    pub fn builder(&mut self, at: f64, id: u32, name: &str, slots: u32, systems: &[&str]) {
        self.builders.push((BuilderId(id), slots, at));
        let systems = systems.iter().map(|system| (*system).into()).collect();
        let (builder, name) = (BuilderId(id), name.into());
        let (features, speed, named_in) = (Vec::new(), None, None);
        self.at(at, Fact::BuilderReady { builder, name, slots, systems, features, speed, named_in });
    }

    pub fn cache(&mut self, at: f64, id: u32, name: &str, push: bool) {
        if push {
            self.push_to = Some(CacheId(id));
        }
        let url = format!("https://{name}").into();
        self.at(
            at,
            Fact::CacheReady {
                cache: CacheId(id),
                name: name.into(),
                url,
                pull: true,
                push,
                optional: false,
                asked: false,
                sick: false,
            },
        );
    }

    pub fn stage(&mut self, stage: Stage, start: f64, end: f64) {
        self.at(start, Fact::StageStarted { stage });
        self.at(end, Fact::StageEnded { stage });
    }

    pub fn attr(&mut self, at: f64, kind: Kind, name: &str) -> AttrId {
        let id = AttrId(self.attrs.len() as u32);
        self.attrs.push(name.to_owned());
        let path = match kind {
            Kind::NixosConfigurations => format!("nixosConfigurations.{name}"),
            Kind::Other => format!("overlays.{name}"),
            kind => format!("{}.x86_64-linux.{name}", kind.output()),
        };
        self.at(at, Fact::AttrListed { attr: id, path: path.parse().unwrap(), kind, name: name.into() });
        id
    }

    /// The name of an attr's derivation.
    pub fn top(&self, attr: AttrId) -> String {
        format!("nixos-system-{}-25.11", self.attrs[attr.index()])
    }

    pub fn evaluated(&mut self, attr: AttrId, worker: u32, start: f64, end: f64) {
        self.at(start, Fact::EvalStarted { attr, worker });
        let name = self.top(attr);
        let evaluated = Evaluated::Drv {
            drv: drv_path(&name).into(),
            outputs: vec![out(&name)],
            name: name.into(),
            system: "x86_64-linux".into(),
            position: None,
        };
        self.at(end, Fact::EvalEnded { attr, evaluated, peak: None, grown: None });
    }

    pub fn eval_failed(&mut self, attr: AttrId, worker: u32, start: f64, end: f64, error: (&str, Option<&str>)) {
        self.at(start, Fact::EvalStarted { attr, worker });
        let position = error.1.map(Into::into);
        let failure = Failure { class: Class::Eval, message: error.0.into(), position };
        let evaluated = Evaluated::Failed(failure);
        self.at(end, Fact::EvalEnded { attr, evaluated, peak: None, grown: None });
        self.at(end, Fact::AttrEnded { attr, status: Status::EvalFailed, reason: None, root: None });
    }

    pub fn planned(&mut self, at: f64, attr: AttrId, status: Status, drv: Option<DrvId>, builds: u32) {
        self.at(at, Fact::AttrPlanned { attr, status, drv, builds });
    }

    /// A drv that is to be built; `expected` says whether history knows its duration.
    #[expect(clippy::too_many_arguments, reason = "a story reads as one line a drv")]
    pub fn need(&mut self, at: f64, name: &str, seconds: f64, inputs: &[DrvId], attr: AttrId, expected: bool) -> DrvId {
        self.need_as(at, name, inputs, attr, expected.then_some(seconds), false);
        let id = DrvId(self.drvs.len() as u32 - 1);
        self.drvs[id.index()].seconds = seconds;
        id
    }

    /// A drv whose outputs are to be fetched.
    pub fn fetch(&mut self, at: f64, name: &str, seconds: f64, attr: AttrId) -> DrvId {
        self.need_as(at, name, &[], attr, None, true);
        let id = DrvId(self.drvs.len() as u32 - 1);
        self.drvs[id.index()].seconds = seconds;
        id
    }

    /// Nothing more is planned: what fetches bring.
    pub fn fetches(&mut self, at: f64, names: &[&str]) {
        self.at(at, Fact::FetchesPlanned { paths: names.iter().map(|name| fetched(name)).collect() });
    }

    #[expect(clippy::too_many_arguments, reason = "see need")]
    fn need_as(&mut self, at: f64, name: &str, inputs: &[DrvId], attr: AttrId, expected: Option<f64>, fetch: bool) {
        let drv = DrvId(self.drvs.len() as u32);
        self.at(
            at,
            Fact::DrvNeeded {
                drv,
                path: drv_path(name).into(),
                name: name.into(),
                system: "x86_64-linux".into(),
                inputs: inputs.to_vec(),
                fetch,
                opaque: false,
                features: Vec::new(),
                attr: Some(attr),
                expected,
                outputs: vec![out(name)],
            },
        );
        self.drvs.push(Drv {
            name: name.to_owned(),
            seconds: 0.0,
            inputs: inputs.to_vec(),
            fails: None,
            needed: at,
            fetch,
            outcome: None,
        });
    }

    /// Lets a drv fail in a phase, with the last lines of its log.
    pub fn fails(&mut self, drv: DrvId, failure: Failure, phase: &'static str, tail: &[&'static str]) {
        self.drvs[drv.index()].fails = Some((failure, phase, tail.to_vec()));
    }

    /// Plays all needed drvs on the builders, in the order in which they were needed; gives the time of the last end.
    pub fn play(&mut self) -> f64 {
        // When each slot is free again.
        let mut slots: Vec<(f64, BuilderId)> = Vec::new();
        for (id, count, from) in &self.builders {
            slots.extend((0..*count).map(|_| (*from, *id)));
        }
        let mut left: Vec<usize> = (0..self.drvs.len()).collect();
        while !left.is_empty() {
            let ready = |i: usize| -> Option<f64> {
                let drv = &self.drvs[i];
                // A failure reaches all that need it at once.
                let outcomes = || drv.inputs.iter().filter_map(|input| self.drvs[input.index()].outcome.as_ref());
                let broken = |o: &DrvOutcome| matches!(o, DrvOutcome::Failed(_) | DrvOutcome::DependencyFailed { .. });
                if let Some(at) = outcomes().filter(|(_, o)| broken(o)).map(|(at, _)| *at).min_by(f64::total_cmp) {
                    return Some(at.max(drv.needed));
                }
                let inputs = drv.inputs.iter();
                inputs
                    .map(|input| Some(self.drvs[input.index()].outcome.as_ref()?.0))
                    .try_fold(drv.needed, |at, end| Some(at.max(end?)))
            };
            let ready: Vec<(f64, usize)> = left.iter().filter_map(|i| Some((ready(*i)?, *i))).collect();
            let (at, i) = ready.into_iter().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).unwrap();
            left.retain(|other| *other != i);
            self.play_one(i, at, &mut slots);
        }
        self.drvs.iter().filter_map(|drv| drv.outcome.as_ref()).map(|(at, _)| *at).fold(0.0, f64::max)
    }

    fn play_one(&mut self, i: usize, ready: f64, slots: &mut [(f64, BuilderId)]) {
        let drv = self.drvs[i].clone();
        let id = DrvId(i as u32);
        let root = drv.inputs.iter().find_map(|input| match self.drvs[input.index()].outcome.as_ref()?.1 {
            DrvOutcome::Failed(_) => Some(*input),
            DrvOutcome::DependencyFailed { root } => Some(root),
            _ => None,
        });
        let (end, outcome) = if let Some(root) = root {
            (ready, DrvOutcome::DependencyFailed { root })
        } else if drv.fetch {
            self.at(ready, Fact::FetchStarted { drv: id });
            let end = ready + drv.seconds;
            self.at(end, Fact::FetchEnded { drv: id, failure: None });
            (end, DrvOutcome::Fetched)
        } else {
            self.attempt(id, &drv, ready, slots)
        };
        self.at(end, Fact::DrvEnded { drv: id, outcome: outcome.clone() });
        if let (DrvOutcome::Built, Some(cache)) = (&outcome, self.push_to) {
            self.push(end, cache, &drv.name, 3_000_000 + 1_000_000 * drv.seconds as u64, 0.4 + drv.seconds / 50.0);
        }
        self.drvs[i].outcome = Some((end, outcome));
    }

    fn attempt(&mut self, id: DrvId, drv: &Drv, ready: f64, slots: &mut [(f64, BuilderId)]) -> (f64, DrvOutcome) {
        let attempt = AttemptId(self.attempts);
        self.attempts += 1;
        // The first slot that is free by then: remote builders before the local one, the emptier first.
        let busy = |id: BuilderId| slots.iter().filter(|slot| slot.1 == id && slot.0 > ready).count();
        let order: Vec<(f64, bool, usize)> =
            slots.iter().map(|slot| (slot.0.max(ready), slot.1 == BuilderId(0), busy(slot.1))).collect();
        let best = (0..slots.len()).min_by(|a, b| order[*a].partial_cmp(&order[*b]).unwrap()).unwrap();
        let slot = &mut slots[best];
        let start = ready.max(slot.0);
        let copied = if slot.1 == BuilderId(0) { 0.0 } else { 0.2 };
        let (building, end) = (start + copied, start + copied + drv.seconds);
        slot.0 = end;
        let builder = slot.1;
        self.at(start, Fact::AttemptStarted { attempt, drv: id, builder });
        if builder != BuilderId(0) {
            self.at(start, Fact::AttemptBringing { attempt, paths: 3, nar_size: 3 << 20 });
            self.at(building, Fact::AttemptPrepared { attempt, copied: 3, copied_size: 3 << 20, fetched: 0 });
        }
        self.at(building, Fact::AttemptBuilding { attempt });
        let (ended, lines, tail, outcome) = match &drv.fails {
            None => {
                let outputs = vec![out(&drv.name)];
                (AttemptEnd::Built { outputs }, 20, Vec::new(), DrvOutcome::Built)
            }
            Some((failure, phase, tail)) => {
                self.at(building, Fact::AttemptPhase { attempt, phase: (*phase).into() });
                let tail = tail.iter().map(|line| (*line).into()).collect();
                (AttemptEnd::Failed(failure.clone()), 214, tail, DrvOutcome::Failed(failure.clone()))
            }
        };
        self.at(end, Fact::AttemptEnded { attempt, end: ended, log_lines: lines, log_tail: tail });
        (end, outcome)
    }

    /// A path that is pushed.
    pub fn push(&mut self, at: f64, cache: CacheId, name: &str, size: u64, seconds: f64) {
        let path: drover::event::Text = store_path(name).into();
        self.at(at, Fact::PushQueued { cache, path: path.clone(), nar_size: size * 3 });
        self.at(at, Fact::PushStarted { cache, path: path.clone() });
        self.at(at + seconds, Fact::PushEnded { cache, path, pushed: Pushed::Uploaded { file_size: size } });
    }

    /// The final word on the attrs whose drv was played.
    pub fn end_attrs(&mut self) {
        let planned: Vec<(AttrId, Option<DrvId>, Status, Moment)> = self
            .facts
            .iter()
            .filter_map(|(at, fact)| match fact {
                Fact::AttrPlanned { attr, status, drv, .. } => Some((*attr, *drv, *status, *at)),
                _ => None,
            })
            .collect();
        for (attr, drv, status, at) in planned {
            let outcome = drv.and_then(|drv| self.drvs[drv.index()].outcome.clone().map(|(at, o)| (drv, at, o)));
            let (at, status, root) = match (outcome, status) {
                (Some((drv, at, DrvOutcome::Failed(_))), _) => (at, Status::Failed, Some(drv)),
                (Some((_, at, DrvOutcome::DependencyFailed { root })), _) => (at, Status::Failed, Some(root)),
                (Some((_, at, _)), _) => (at, Status::Built, None),
                (None, Status::ToFetch) => (at.seconds(), Status::Cached, None),
                (None, status) => (at.seconds(), status, None),
            };
            self.at(at, Fact::AttrEnded { attr, status, reason: None, root });
        }
    }

    /// The events up to a time, numbered.
    pub fn until(&self, seconds: f64) -> Vec<Event> {
        let mut facts = self.facts.clone();
        facts.sort_by_key(|(at, _)| *at);
        let upto = Moment((seconds * 1e6).round() as u64);
        let facts = facts.into_iter().take_while(|(at, _)| *at <= upto);
        facts.enumerate().map(|(seq, (at, fact))| Event { seq: seq as u64, at, fact }).collect()
    }

    /// All events.
    pub fn events(&self) -> Vec<Event> {
        self.until(1e9)
    }
}

fn out(name: &str) -> OutputPath {
    OutputPath { name: "out".into(), path: Some(store_path(name).into()) }
}

/// What differs between the stories of one fleet.
#[derive(Default, Clone, Copy)]
pub struct Twist {
    /// Nothing has to be built.
    pub idle: bool,
    /// nginx fails.
    pub nginx_fails: bool,
    /// Two hosts do not evaluate.
    pub eval_fails: bool,
    /// There is a cache to push to.
    pub push: bool,
    /// History knows nothing.
    pub no_history: bool,
    /// `drover plan`.
    pub plan: bool,
}

const TAIL: [&str; 4] = [
    "checking for PCRE2 library ... found",
    "checking for PCRE2 JIT support ... found",
    "checking for OpenSSL library ... not found",
    "./configure: error: SSL modules require the OpenSSL library.",
];

/// 40 hosts, 6 packages and 3 checks on two builders and the local store: nine hosts have to be built.
pub fn fleet(twist: Twist) -> Story {
    let mut story = Story::new(if twist.plan { "plan" } else { "run" }, &[]);
    story.cache(0.21, 0, "cache.nixos.org", false);
    story.cache(0.24, 1, "acme.cachix.org", twist.push);
    story.builder(0.05, 0, "local", 8, &["x86_64-linux"]);
    story.builder(0.4, 1, "big1", 16, &["x86_64-linux"]);
    story.builder(0.6, 2, "big2", 16, &["x86_64-linux", "aarch64-linux"]);
    story.flake(0.9, 0, twist.idle);
    let listed = if twist.idle { 0.95 } else { 1.6 };
    let affected = ["web1", "web2", "web3", "db1", "db2", "lb1", "mon1", "pi1", "pi2"];
    let mut attrs = Vec::new();
    for name in affected {
        attrs.push(story.attr(listed, Kind::NixosConfigurations, name));
    }
    for n in 1..=31 {
        attrs.push(story.attr(listed, Kind::NixosConfigurations, &format!("app{n:02}")));
    }
    for n in 1..=6 {
        attrs.push(story.attr(listed, Kind::Packages, &format!("tool{n}")));
    }
    for name in ["format", "lint", "vm"] {
        attrs.push(story.attr(listed, Kind::Checks, name));
    }
    let eval_end = evaluate(&mut story, &attrs, twist);
    story.stage(Stage::Eval, 0.9, eval_end);
    story.at(eval_end + 0.5, diff(twist));
    story.stage(Stage::Diff, 1.8, eval_end + 0.9);
    if twist.plan {
        story.at(eval_end + 0.95, Fact::RunEnded { exit: u8::from(twist.eval_fails) * 3 });
        return story;
    }
    let end = story.play().max(eval_end + 0.9);
    story.end_attrs();
    finish(&mut story, end, twist);
    story
}

fn diff(twist: Twist) -> Fact {
    let absent = if twist.idle { 0 } else { 632 };
    Fact::DiffProgress { paths: 30_112, valid: 2, present: 30_110 - absent, absent, untrusted: 0, no_answer: 0 }
}

/// Four evaluators; what an attr needs is known a little later. Gives the end of evaluation.
fn evaluate(story: &mut Story, attrs: &[AttrId], twist: Twist) -> f64 {
    if twist.idle {
        for (n, attr) in attrs.iter().enumerate() {
            story.evaluated(*attr, 0, 1.0, 1.0);
            let status = if n % 20 == 0 { Status::Valid } else { Status::ToFetch };
            story.planned(1.1, *attr, status, None, 0);
        }
        return 1.0;
    }
    let mut free = [1.8_f64; 4];
    let mut shared: BTreeMap<String, DrvId> = BTreeMap::new();
    for (n, attr) in attrs.iter().enumerate() {
        let worker = (0..4).min_by(|a, b| free[*a].total_cmp(&free[*b])).unwrap();
        let start = free[worker];
        let end = start + 3.6 + (n % 5) as f64 * 0.25;
        free[worker] = end;
        if twist.eval_fails && n == 12 {
            let error = ("error: attribute 'hostKey' missing", Some("hosts/app04.nix:12:9"));
            story.eval_failed(*attr, worker as u32, start, end, error);
            continue;
        }
        if twist.eval_fails && n == 20 {
            let message = "error:\nFailed assertions:\n- The option 'boot.loader' must be set for /nix/store/2jz5gcbh7z3vhd1d3zm9h2r2fkc4kq0f-source/hosts/app12.nix";
            story.eval_failed(*attr, worker as u32, start, end, (message, None));
            continue;
        }
        story.evaluated(*attr, worker as u32, start, end);
        if n < 9 {
            need_host(story, *attr, n, end + 0.3, &mut shared, twist);
        } else {
            let status = if n % 20 == 0 { Status::Valid } else { Status::ToFetch };
            story.planned(end + 0.2, *attr, status, None, 0);
        }
    }
    free.into_iter().fold(0.0, f64::max)
}

/// A host: some units of its own, a system path, a toplevel; web and lb hosts need nginx, all need linux or systemd.
fn need_host(story: &mut Story, attr: AttrId, n: usize, at: f64, shared: &mut BTreeMap<String, DrvId>, twist: Twist) {
    let history = !twist.no_history;
    let before = story.drvs.len();
    let mut once = |story: &mut Story, name: &str, seconds: f64| {
        *shared.entry(name.to_owned()).or_insert_with(|| story.need(at, name, seconds, &[], attr, history))
    };
    let mut inputs = Vec::new();
    // Of the hosts that need linux the last is the first to be evaluated: it has to queue.
    if n >= 4 && n != 5 {
        inputs.push(once(story, "linux-6.12.58", 260.0));
    }
    inputs.push(once(story, "systemd-258.2", 70.0));
    if n < 3 || n == 5 {
        inputs.push(once(story, "nginx-1.29.4", 91.0));
    }
    if twist.nginx_fails
        && let Some(nginx) = shared.get("nginx-1.29.4")
    {
        let message = format!("builder for '{}' failed with exit code 2", drv_path("nginx-1.29.4"));
        story.fails(*nginx, failure(Class::Build, &message), "configurePhase", &TAIL);
    }
    for unit in 0..20 {
        let seconds =
            if unit < 12 { 3.0 + ((n + unit) % 4) as f64 * 0.4 } else { 10.0 + ((n * 7 + unit * 3) % 9) as f64 };
        inputs.push(story.need(
            at,
            &format!("unit-{}-{unit}.service", story.attrs[attr.index()]),
            seconds,
            &[],
            attr,
            history,
        ));
    }
    let path = story.need(at, &format!("system-path-{n}"), 12.0, &inputs, attr, history);
    let top = story.top(attr);
    let top = story.need(at, &top, 4.0, &[path], attr, history);
    let builds = (story.drvs.len() - before) as u32;
    story.planned(at + 0.1, attr, Status::ToBuild, Some(top), builds);
}

fn finish(story: &mut Story, end: f64, twist: Twist) {
    let mut end = end;
    if !twist.idle {
        story.stage(Stage::Build, 5.5, end);
    }
    if twist.push {
        let last = story.facts.iter().filter(|(_, f)| matches!(f, Fact::PushEnded { .. })).map(|(at, _)| *at).max();
        let pushed = last.map_or(end, Moment::seconds) + 6.0;
        let present = story.facts.iter().filter(|(_, f)| matches!(f, Fact::PushEnded { .. })).count() as u32;
        story.stage(Stage::Push, 6.0, pushed);
        story.at(pushed, Fact::PushVerified { cache: CacheId(1), present, missing: vec![] });
        end = pushed;
    }
    let exit = match (twist.eval_fails, twist.nginx_fails) {
        (true, _) => 3,
        (_, true) => 1,
        _ => 0,
    };
    story.at(end + 0.1, Fact::RunEnded { exit });
}

/// A path of 2 MiB that the first cache has compressed to 1 MiB.
fn fetched(name: &str) -> FetchedPath {
    FetchedPath { path: store_path(name).into(), cache: CacheId(0), nar_size: 2 << 20, file_size: 1 << 20 }
}

/// What is told of builders that are reached over ssh.
fn farm_facts(story: &mut Story) {
    let (builder, attempt, drv) = (BuilderId(1), AttemptId(0), DrvId(0));
    let lost = || failure(Class::BuilderLost, "no bytes for 30s");
    story.at(
        7.0,
        Fact::BuilderReady {
            builder,
            name: "big1".into(),
            slots: 16,
            systems: vec!["x86_64-linux".into()],
            features: vec!["kvm".into()],
            speed: Some(2.0),
            named_in: Some("/etc/nix/machines".into()),
        },
    );
    let hint = Some("ssh ci@big1 nix-daemon --version".into());
    story.at(
        7.0,
        Fact::BuilderSuspended { builder, name: "big1".into(), failure: lost(), running: 7, again: Some(4.0), hint },
    );
    story.at(7.0, Fact::BuilderPaused { builder, reason: Some("2.1 GiB free in /nix/store".into()) });
    story.at(7.0, Fact::BuilderLoad { builder, cpu: Some(12.5), memory: Some(0.5), disk_free: Some(1 << 31) });
    story.at(7.0, Fact::BuilderAsked { builder, asked: 12, valid: 3 });
    story.at(7.0, Fact::AttemptBringing { attempt, paths: 4, nar_size: 4096 });
    story.at(7.0, Fact::AttemptPrepared { attempt, copied: 3, copied_size: 3072, fetched: 1 });
    story.at(7.0, Fact::ResultsReturning { drv, builder });
    story.at(7.0, Fact::ResultsReturned { drv, paths: 2, nar_size: 2048, failure: Some(lost()) });
    let paths = vec![store_path("leaf").into()];
    story.at(7.0, Fact::OutputsKept { builder, paths, until: Some("2026-11-28".into()), reason: None });
}

/// A small run that holds every fact once, and every way in which an attr, an attempt and a push can end.
pub fn every_fact() -> Vec<Event> {
    let mut story = Story::new("run", &[".#web1"]);
    story.cache(0.1, 0, "acme.cachix.org", true);
    story.builder(0.1, 0, "local", 1, &["x86_64-linux"]);
    story.flake(0.2, 1, false);
    story.at(0.2, Fact::StageStarted { stage: Stage::Eval });
    let kind = Kind::NixosConfigurations;
    let attrs: Vec<AttrId> = ["web1", "web2", "web3", "old1", "app1"].map(|name| story.attr(0.25, kind, name)).into();
    let (what, flag) = ("1 package for aarch64-darwin".into(), "--all-systems".into());
    story.at(0.25, Fact::AttrsLeftOut { count: 1, what, flag });
    for attr in &attrs[..3] {
        story.evaluated(*attr, 0, 0.5, 1.0);
    }
    story.eval_failed(attrs[3], 1, 0.5, 1.0, ("error: attribute 'hostKey' missing", Some("hosts/old1.nix:12:9")));
    story.at(1.0, Fact::EvalStarted { attr: attrs[4], worker: 1 });
    let evaluated = Evaluated::Nothing { reason: "its program is a plain source file".into() };
    story.at(1.25, Fact::EvalEnded { attr: attrs[4], evaluated, peak: None, grown: None });
    story.at(1.25, Fact::EvalWarning { attr: Some(attrs[0]), message: "'system' has been renamed".into() });
    story.at(1.25, Fact::StageEnded { stage: Stage::Eval });
    story.at(1.25, Fact::DiffProgress { paths: 9, valid: 2, present: 3, absent: 2, untrusted: 1, no_answer: 1 });
    let cache = CacheId(0);
    story.at(1.25, Fact::CacheAsked { cache, present: 3, absent: 2, untrusted: 1, no_answer: 1 });
    let source = story.fetch(1.5, "source", 0.25, attrs[0]);
    let top1 = story.top(attrs[0]);
    let web1 = story.need(1.5, &top1, 2.0, &[source], attrs[0], true);
    let nginx = story.need(1.5, "nginx-1.29.4", 1.5, &[], attrs[1], false);
    let top2 = story.top(attrs[1]);
    let web2 = story.need(1.5, &top2, 1.0, &[nginx], attrs[1], false);
    let message = "builder for 'nginx-1.29.4.drv' failed with exit code 2";
    story.fails(nginx, failure(Class::Build, message), "configurePhase", &TAIL);
    story.planned(1.75, attrs[0], Status::ToBuild, Some(web1), 1);
    story.planned(1.75, attrs[1], Status::ToBuild, Some(web2), 2);
    story.planned(1.75, attrs[2], Status::ToFetch, None, 0);
    story.play();
    story.at(3.01, Fact::AttemptWaiting { attempt: AttemptId(1), reason: "waiting for lock".into() });
    story.end_attrs();
    story.at(
        6.0,
        Fact::AttrEnded { attr: attrs[4], status: Status::Skipped, reason: Some("--fail-fast".into()), root: None },
    );
    let path: drover::event::Text = store_path("leaf").into();
    story.at(6.0, Fact::PushQueued { cache, path: path.clone(), nar_size: 7 });
    story.at(
        6.25,
        Fact::PushEnded { cache, path: path.clone(), pushed: Pushed::Failed(failure(Class::Cache, "HTTP 429")) },
    );
    story.at(6.25, Fact::PushEnded { cache, path: store_path("root").into(), pushed: Pushed::Present });
    story.at(6.5, Fact::PushVerified { cache, present: 1, missing: vec![path] });
    story
        .at(6.5, Fact::Warning { message: "cache acme.cachix.org is slow".into(), hint: Some("drover doctor".into()) });
    story.at(6.75, Fact::Cancelled { level: 1 });
    story.at(
        7.0,
        Fact::RunFailed { message: "this flake has no attr 'wbe1'".into(), hint: Some("did you mean web1?".into()) },
    );
    story.at(7.0, Fact::RunEnded { exit: 130 });
    // Facts that came later stand after the end, so that the lines of the golden record stay as they are.
    story.at(
        7.0,
        Fact::FetchesPlanned { paths: vec![fetched("source"), FetchedPath { file_size: 0, ..fetched("leaf") }] },
    );
    story.at(7.0, Fact::PushAsked { paths: vec![store_path("leaf").into()] });
    story.at(7.0, Fact::EvalTrace { attr: attrs[0], message: "web1 has 3 disks".into() });
    story.at(7.0, Fact::BaseProgress { label: "main@a01b77e".into(), done: 3, total: 9 });
    story.base(7.0, true, 9);
    story.at(
        7.0,
        Fact::BaseMissing { message: "no record".into(), hint: Some("drover affected --base a01b77e".into()) },
    );
    story.compared(7.0, attrs[0], Difference::Changed);
    let (attr, base_drv) = (attrs[1], Some(store_path("leaf.drv").into()));
    let difference = Difference::Changed;
    story.at(7.0, Fact::AttrCompared { attr, difference, revision_only: true, same_outputs: true, base_drv });
    story.at(7.0, Fact::AttrRemoved { path: "nixosConfigurations.web9".parse().unwrap(), base_drv: None });
    let paths = vec![SkippedPath { path: "docs/a.md".into(), glob: "docs/**".into() }];
    story.at(7.0, Fact::ChangesSkipped { paths });
    let path: drover::event::Text = format!("{}.drv", store_path("gen-nix")).into();
    story.at(7.0, Fact::ImportStarted { attr: Some(attrs[0]), path: path.clone(), name: "gen-nix".into() });
    let why = Some(failure(Class::NoBuilder, "no builder for aarch64-linux"));
    story.at(7.0, Fact::ImportEnded { attr: None, path, failure: why });
    story.at(7.0, Fact::PlanWritten { file: "plan.drover".into(), bytes: 1_258_291, drvs: 212, sources: 34 });
    story.at(7.0, Fact::RevisionMasked { attrs: 3 });
    farm_facts(&mut story);
    story.at(7.0, Fact::CachesSpared { drvs: 3, known: 2, seconds: 91.5, paths: 4, nar_size: 3_145_728 });
    story.at(7.0, Fact::DrvSized { drv: web1, nar_size: 1_048_576 });
    story.at(
        7.0,
        Fact::FlakeFinding {
            about: "flake.lock".into(),
            message: "nixpkgs is there twice".into(),
            position: Some("flake.lock:12:3".into()),
            hint: Some("inputs.home-manager.inputs.nixpkgs.follows = \"nixpkgs\"".into()),
            fails: false,
        },
    );
    story.at(
        7.0,
        Fact::AttrQuarantined {
            attr: AttrId(0),
            name: "web1".into(),
            reason: "the test wants a network".into(),
            ticket: Some("https://forge.example/acme/infra/issues/12".into()),
            expires: "2026-12-24".into(),
        },
    );
    story.at(7.0, Fact::NixChecked { ok: false, error: Some("error: web1".into()), seconds: 41.5 });
    story.at(
        7.0,
        Fact::EvalEnded {
            attr: AttrId(99),
            evaluated: Evaluated::Finding(Failure::new(Class::Eval, "attribute 'x' missing")),
            peak: None,
            grown: None,
        },
    );
    story.at(
        7.0,
        Fact::RunPlaced {
            forge: Some("github".into()),
            repository: Some("acme/infra".into()),
            branch: Some("backup".into()),
            change: Some("812".into()),
            url: Some("https://forge.example/acme/infra/actions/runs/7".into()),
        },
    );
    story.at(7.0, Fact::InputsLocked { inputs: vec![LockedInput { name: "nixpkgs".into(), rev: "5f2a1c".into() }] });
    story.at(7.0, Fact::AttemptMeasured { attempt: AttemptId(0), cpu: 1.5 });
    story.at(7.0, Fact::ClosureSized { attr: AttrId(0), paths: 412, nar_size: 1_288_490_188 });
    story.at(7.0, Fact::CacheRepeated { cache: CacheId(0), reason: "HTTP 429".into(), requests: 412, waited: 55.25 });
    let evaluated = Evaluated::Drv {
        drv: drv_path("tool").into(),
        name: "tool".into(),
        system: "x86_64-linux".into(),
        outputs: vec![out("tool")],
        position: Some("flake.nix:12".into()),
    };
    story.at(7.0, Fact::EvalEnded { attr: AttrId(99), evaluated, peak: None, grown: None });
    story.at(7.0, Fact::FailureCompared { attr: attrs[1], ok: true });
    let (paths, without) = (vec![store_path("firmware").into()], vec![store_path("web1").into()]);
    story.at(7.0, Fact::PushLeftOut { cache: CacheId(0), paths, without });
    story.at(7.0, Fact::EstimatesKnown { off: 0.125 });
    story.at(7.0, Fact::ChangeExplained { attrs: vec![attrs[0], attrs[1]], why: "nginx 1.29.3 → 1.29.4".into() });
    story.events()
}
