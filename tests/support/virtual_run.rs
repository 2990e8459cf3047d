//! A run in virtual time: evaluators, a comparison, the real scheduler on made-up builders, and pushes, told as the
//! events that a real run tells. What takes how long is drawn around what it usually takes, the same for the same seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use drover::event::{
    AttemptEnd, Class, DrvOutcome, Evaluated, Event, FORMAT, Fact, Failure, LockedInput, Moment, OutputPath, Pushed,
    Stage, Status,
};
use drover::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind, RunId};
use drover::sched::{Action, Builder, Input, Item, Policy, Scheduler, Work};

use super::story::store_path;

/// Numbers that look drawn by lot, the same for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Around 1, log-normally.
    pub fn noise(&mut self, sigma: f64) -> f64 {
        let (a, b) = (self.share().max(1e-12), self.share());
        (sigma * (-2.0 * a.ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()).exp()
    }
}

/// A drv of a world.
#[derive(Debug, Clone)]
pub struct Package {
    pub name: String,
    pub system: &'static str,
    /// What it takes, and what history says that it takes.
    pub seconds: f64,
    pub expected: Option<f64>,
    /// Others, by number.
    pub inputs: Vec<usize>,
    pub bytes: u64,
    /// A cache has it: it is not built.
    pub cached: bool,
    /// What its path depends on besides its name.
    pub salt: String,
    /// It fails so often before it is built.
    pub fails: (u32, Class),
}

impl Package {
    pub fn new(name: &str, seconds: f64, inputs: &[usize]) -> Self {
        Self {
            name: name.to_owned(),
            system: "x86_64-linux",
            seconds,
            expected: Some(seconds),
            inputs: inputs.to_vec(),
            bytes: 20 << 20,
            cached: false,
            salt: String::new(),
            fails: (0, Class::Network),
        }
    }
}

/// A host.
#[derive(Debug, Clone)]
pub struct Host {
    pub name: String,
    /// Seconds of evaluation.
    pub eval: f64,
    /// Its drv, by number.
    pub top: usize,
}

/// A machine that builds; the first is the local store.
#[derive(Debug, Clone)]
pub struct Machine {
    pub name: &'static str,
    pub slots: u32,
    pub system: &'static str,
}

/// Requests to the cache that are made again: from when to when, how many, and how long all is held up.
#[derive(Debug, Clone, Copy)]
pub struct Repeats {
    pub from: f64,
    pub to: f64,
    pub requests: u32,
    pub waited: f64,
}

/// All that a run depends on.
#[derive(Debug, Clone)]
pub struct World {
    pub hosts: Vec<Host>,
    pub packages: Vec<Package>,
    pub machines: Vec<Machine>,
    pub inputs: Vec<(&'static str, &'static str)>,
    pub workers: u32,
    /// Seconds of comparing an attr.
    pub comparing: f64,
    /// Bytes a second to a builder, and to the cache.
    pub link: f64,
    pub push: f64,
    pub repeats: Option<Repeats>,
    /// How far what happens is from what is usual.
    pub sigma: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    Evaluated(usize, u32),
    Compared(usize),
    Arrived(AttemptId),
    Ended(AttemptId),
    Pushed,
    Wake,
}

struct Play<'a> {
    world: &'a World,
    random: Random,
    scheduler: Scheduler,
    now: Moment,
    coming: BinaryHeap<Reverse<(Moment, u64, Coming)>>,
    seq: u64,
    facts: Vec<(Moment, Fact)>,
    waiting_hosts: Vec<usize>,
    to_compare: usize,
    needed: BTreeSet<usize>,
    tops: BTreeMap<usize, Vec<usize>>,
    live: BTreeMap<AttemptId, (usize, BuilderId)>,
    there: BTreeSet<(BuilderId, usize)>,
    tries: BTreeMap<usize, u32>,
    to_push: Vec<usize>,
    pushing: Option<usize>,
}

const CACHE: CacheId = CacheId(0);

/// Seconds until the flake is locked.
const LOCKED: f64 = 1.0;

/// Plays a world to its end: run `number` of a series, an hour after the one before.
pub fn play(world: &World, number: u64, seed: u64) -> Vec<Event> {
    let mut play = Play {
        world,
        random: Random::new(seed),
        scheduler: Scheduler::new(Policy::default()),
        now: Moment(0),
        coming: BinaryHeap::new(),
        seq: 0,
        facts: Vec::new(),
        waiting_hosts: (0..world.hosts.len()).rev().collect(),
        to_compare: world.hosts.len(),
        needed: BTreeSet::new(),
        tops: BTreeMap::new(),
        live: BTreeMap::new(),
        there: BTreeSet::new(),
        tries: BTreeMap::new(),
        to_push: Vec::new(),
        pushing: None,
    };
    play.start(number);
    play.run();
    play.close();
    let mut facts = play.facts;
    facts.sort_by_key(|(at, _)| *at);
    (0..).zip(facts).map(|(seq, (at, fact))| Event { seq, at, fact }).collect()
}

/// When run `number` began, and its id.
pub fn run_id(number: u64) -> (RunId, jiff::Timestamp) {
    let started = jiff::Timestamp::from_second(1_795_000_000 + 3600 * number as i64).unwrap();
    (RunId(ulid::Ulid::from_parts(started.as_millisecond() as u64, 7)), started)
}

impl Play<'_> {
    fn tell_all(&mut self, fact: Fact) {
        self.facts.push((self.now, fact));
    }

    fn later(&mut self, seconds: f64, coming: Coming) {
        self.seq += 1;
        let at = Moment(self.now.0 + Moment::from_seconds(seconds).0);
        self.coming.push(Reverse((at, self.seq, coming)));
    }

    fn start(&mut self, number: u64) {
        let (run, started) = run_id(number);
        let (drover, nix, command) = ("0.1.0".into(), "2.34.8".into(), "run".into());
        self.tell_all(Fact::RunStarted { format: FORMAT, run, drover, command, what: Vec::new(), started, nix });
        let branch = Some("main".into());
        self.tell_all(Fact::RunPlaced { forge: None, repository: None, branch, change: None, url: None });
        self.now = Moment::from_seconds(LOCKED);
        let (original, rev) = ("git+file:///infra".into(), Some(format!("{number:040x}").as_str().into()));
        let locked = "git+file:///infra".into();
        self.tell_all(Fact::FlakeLocked { original, locked, rev, dirty_files: None, recorded: false });
        let inputs = self.world.inputs.iter();
        let inputs = inputs.map(|(name, rev)| LockedInput { name: (*name).into(), rev: (*rev).into() }).collect();
        self.tell_all(Fact::InputsLocked { inputs });
        self.tell_all(Fact::CacheReady {
            cache: CACHE,
            name: "acme.cachix.org".into(),
            url: "https://acme.cachix.org".into(),
            pull: true,
            push: true,
            optional: false,
            asked: false,
            sick: false,
        });
        for (at, machine) in (0..).zip(&self.world.machines) {
            let builder = BuilderId(at);
            self.facts.push((
                self.now,
                Fact::BuilderReady {
                    builder,
                    name: machine.name.into(),
                    slots: machine.slots,
                    systems: vec![machine.system.into()],
                    features: Vec::new(),
                    speed: None,
                    named_in: None,
                },
            ));
            self.tell(Input::BuilderUp(builder_of(builder, machine)));
        }
        self.tell(Input::NoMoreBuilders);
        self.tell_all(Fact::StageStarted { stage: Stage::Eval });
        self.tell_all(Fact::StageStarted { stage: Stage::Diff });
        for (at, host) in (0..).zip(&self.world.hosts) {
            let path = format!("nixosConfigurations.{}", host.name).parse().unwrap();
            let (attr, kind) = (AttrId(at), Kind::NixosConfigurations);
            self.facts.push((self.now, Fact::AttrListed { attr, path, kind, name: host.name.as_str().into() }));
        }
        for worker in 0..self.world.workers {
            self.evaluate(worker);
        }
    }

    fn evaluate(&mut self, worker: u32) {
        let Some(host) = self.waiting_hosts.pop() else { return };
        self.tell_all(Fact::EvalStarted { attr: AttrId(host as u32), worker });
        let seconds = self.world.hosts[host].eval * self.random.noise(self.world.sigma);
        self.later(seconds, Coming::Evaluated(host, worker));
    }

    fn run(&mut self) {
        while !(self.scheduler.is_done() && self.coming.is_empty()) {
            let next = self.coming.peek().map(|Reverse((at, ..))| *at);
            let wake = self.scheduler.next_deadline().filter(|at| next.is_none_or(|next| *at < next));
            let (at, coming) = match wake {
                Some(at) => (at, Coming::Wake),
                None => {
                    let Reverse((at, _, coming)) = self.coming.pop().expect("something happens");
                    (at, coming)
                }
            };
            self.now = self.now.max(at);
            self.happen(coming);
        }
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Evaluated(host, worker) => self.evaluated(host, worker),
            Coming::Compared(host) => self.compared(host),
            Coming::Arrived(attempt) => self.arrived(attempt),
            Coming::Ended(attempt) => self.ended(attempt),
            Coming::Pushed => self.pushed(),
            Coming::Wake => self.tell(Input::Tick),
        }
    }

    fn evaluated(&mut self, host: usize, worker: u32) {
        let top = &self.world.packages[self.world.hosts[host].top];
        let evaluated = Evaluated::Drv {
            drv: drv_path(top).into(),
            outputs: Vec::new(),
            name: top.name.as_str().into(),
            system: top.system.into(),
            position: None,
        };
        self.tell_all(Fact::EvalEnded { attr: AttrId(host as u32), evaluated, peak: None, grown: None });
        self.evaluate(worker);
        // The last one counts.
        self.tell_all(Fact::StageEnded { stage: Stage::Eval });
        let seconds = self.world.comparing * self.random.noise(self.world.sigma) + self.held_up();
        self.later(seconds, Coming::Compared(host));
    }

    /// Seconds for which the cache says nothing of use.
    fn held_up(&self) -> f64 {
        let repeats = self.world.repeats.filter(|repeats| (repeats.from..repeats.to).contains(&self.now.seconds()));
        repeats.map_or(0.0, |repeats| repeats.to - self.now.seconds())
    }

    /// All that an attr needs and no cache has is added.
    fn compared(&mut self, host: usize) {
        let attr = AttrId(host as u32);
        let top = self.world.hosts[host].top;
        let mut order = Vec::new();
        self.collect(top, &mut order);
        let mut items = Vec::new();
        let builds = order.len() as u32;
        for at in order {
            let package = &self.world.packages[at];
            let inputs = package.inputs.iter().filter(|input| !self.world.packages[**input].cached);
            let inputs: Vec<DrvId> = inputs.map(|input| DrvId(*input as u32)).collect();
            self.facts.push((
                self.now,
                Fact::DrvNeeded {
                    drv: DrvId(at as u32),
                    path: drv_path(package).into(),
                    name: package.name.as_str().into(),
                    system: package.system.into(),
                    inputs: inputs.clone(),
                    fetch: false,
                    opaque: false,
                    features: Vec::new(),
                    attr: Some(attr),
                    expected: package.expected,
                    outputs: Vec::new(),
                },
            ));
            items.push(item(at, package, inputs));
        }
        self.tops.entry(top).or_default().push(host);
        self.tell_all(Fact::AttrPlanned { attr, status: Status::ToBuild, drv: Some(DrvId(top as u32)), builds });
        self.tell(Input::Add(items));
        self.to_compare -= 1;
        if self.to_compare == 0 {
            self.compared_all();
            self.tell(Input::NoMore);
        }
    }

    fn compared_all(&mut self) {
        let (present, absent) =
            (self.world.packages.iter().filter(|package| package.cached).count(), self.needed.len());
        let (present, absent) = (present as u32, absent as u32);
        let paths = present + absent;
        if let Some(Repeats { requests, waited, from, to }) = self.world.repeats {
            for (at, requests, waited) in [(from, 1, 0.0), (to, requests, waited)] {
                let said = Fact::CacheRepeated { cache: CACHE, reason: "HTTP 429".into(), requests, waited };
                self.facts.push((Moment::from_seconds(at), said));
            }
        }
        self.tell_all(Fact::CacheAsked { cache: CACHE, present, absent, untrusted: 0, no_answer: 0 });
        self.tell_all(Fact::DiffProgress { paths, valid: 0, present, absent, untrusted: 0, no_answer: 0 });
        self.tell_all(Fact::StageEnded { stage: Stage::Diff });
        self.tell_all(Fact::StageStarted { stage: Stage::Build });
        self.tell_all(Fact::StageStarted { stage: Stage::Push });
    }

    /// Inputs before what needs them.
    fn collect(&mut self, at: usize, order: &mut Vec<usize>) {
        if self.world.packages[at].cached || !self.needed.insert(at) {
            return;
        }
        for input in self.world.packages[at].inputs.clone() {
            self.collect(input, order);
        }
        order.push(at);
    }

    fn tell(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.scheduler.handle(self.now, input, &mut actions);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { attempt, drv, builder } => {
                self.tell_all(Fact::AttemptStarted { attempt, drv, builder });
                let package = &self.world.packages[drv.index()];
                let missing = package.inputs.iter().filter(|input| !self.there.contains(&(builder, **input)));
                let missing: Vec<usize> = missing.copied().collect();
                let nar_size: u64 = missing.iter().map(|input| self.world.packages[*input].bytes).sum();
                let (paths, fetched) = (missing.len() as u32, 0);
                self.tell_all(Fact::AttemptBringing { attempt, paths, nar_size });
                let seconds = if paths == 0 { 0.0 } else { 0.05 + nar_size as f64 / self.world.link };
                self.there.extend(missing.into_iter().map(|input| (builder, input)));
                self.live.insert(attempt, (drv.index(), builder));
                let prepared = Fact::AttemptPrepared { attempt, copied: paths, copied_size: nar_size, fetched };
                self.facts.push((Moment(self.now.0 + Moment::from_seconds(seconds).0), prepared));
                self.later(seconds, Coming::Arrived(attempt));
            }
            Action::Go { attempt } => {
                self.tell_all(Fact::AttemptBuilding { attempt });
                let (at, _) = self.live[&attempt];
                let seconds = self.world.packages[at].seconds * self.random.noise(self.world.sigma);
                self.later(seconds, Coming::Ended(attempt));
            }
            Action::Ended { drv, outcome } => {
                assert_eq!(outcome, DrvOutcome::Built);
                self.tell_all(Fact::DrvEnded { drv, outcome });
                for host in self.tops.get(&drv.index()).cloned().unwrap_or_default() {
                    let (attr, status) = (AttrId(host as u32), Status::Built);
                    self.tell_all(Fact::AttrEnded { attr, status, reason: None, root: None });
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn arrived(&mut self, attempt: AttemptId) {
        self.tell(Input::Prepared { attempt });
    }

    fn ended(&mut self, attempt: AttemptId) {
        let (at, builder) = self.live.remove(&attempt).unwrap();
        let package = &self.world.packages[at];
        let tries = self.tries.entry(at).or_default();
        *tries += 1;
        let end = if *tries <= package.fails.0 {
            AttemptEnd::Failed(Failure::new(package.fails.1, "it did not work this time"))
        } else {
            AttemptEnd::Built { outputs: vec![out(package)] }
        };
        let built = matches!(end, AttemptEnd::Built { .. });
        self.tell_all(Fact::AttemptEnded { attempt, end: end.clone(), log_lines: 9, log_tail: Vec::new() });
        if built {
            let drv = DrvId(at as u32);
            self.there.insert((builder, at));
            self.tell_all(Fact::DrvSized { drv, nar_size: package.bytes });
            self.tell(Input::Sized { drv, bytes: package.bytes, signed: true });
            let path = store_path(&package.name).as_str().into();
            self.tell_all(Fact::PushQueued { cache: CACHE, path, nar_size: package.bytes });
            self.to_push.push(at);
        }
        self.tell(Input::AttemptEnded { attempt, end, gone: Vec::new() });
        self.push_next();
    }

    /// One path after the other.
    fn push_next(&mut self) {
        if self.pushing.is_some() || self.to_push.is_empty() {
            return;
        }
        let at = self.to_push.remove(0);
        self.pushing = Some(at);
        let package = &self.world.packages[at];
        self.tell_all(Fact::PushStarted { cache: CACHE, path: store_path(&package.name).as_str().into() });
        let held_up = self.held_up();
        self.later(0.05 + package.bytes as f64 / self.world.push + held_up, Coming::Pushed);
    }

    fn pushed(&mut self) {
        let Some(at) = self.pushing.take() else { return };
        let package = &self.world.packages[at];
        let (path, pushed) = (store_path(&package.name).as_str().into(), Pushed::Uploaded { file_size: package.bytes });
        self.tell_all(Fact::PushEnded { cache: CACHE, path, pushed });
        self.push_next();
    }

    fn close(&mut self) {
        self.tell_all(Fact::StageEnded { stage: Stage::Build });
        self.tell_all(Fact::StageEnded { stage: Stage::Push });
        self.tell_all(Fact::RunEnded { exit: 0 });
    }
}

fn builder_of(id: BuilderId, machine: &Machine) -> Builder {
    Builder {
        id,
        name: machine.name.to_owned(),
        slots: machine.slots,
        systems: BTreeSet::from([machine.system.into()]),
        features: BTreeSet::new(),
        mandatory: BTreeSet::new(),
        speed: 1.0,
        local: id == BuilderId(0),
        trusting: true,
    }
}

fn item(at: usize, package: &Package, inputs: Vec<DrvId>) -> Item {
    Item {
        drv: DrvId(at as u32),
        work: Work::Build,
        inputs,
        there: Vec::new(),
        system: package.system.into(),
        features: Vec::new(),
        local_only: false,
        here: false,
        fixed_output: false,
        prefer_local: false,
        cost: package.expected.unwrap_or(1.0),
        ahead: 0.0,
    }
}

fn drv_path(package: &Package) -> String {
    let salted = store_path(&format!("{}{}", package.name, package.salt));
    let hash = &salted["/nix/store/".len()..][..32];
    format!("/nix/store/{hash}-{}.drv", package.name)
}

fn out(package: &Package) -> OutputPath {
    OutputPath { name: "out".into(), path: Some(store_path(&package.name).as_str().into()) }
}
