//! Plays a world in virtual time: the real graph, planner, scheduler, queues of pushes, words on attrs and faults, wired
//! as the driver wires them; builders, caches and the clock are made up. Says each fact once to the model.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Model;
use super::pushes::{Answer, Target};
use super::stores::Stores;
use super::world::{Fate, Trouble, World};
use crate::diff::plan::{Decision, Found, PlanPolicy, Planner, Presence, Question};
use crate::driver::attempts::{inputs_of, stopped};
use crate::driver::attrs::Attrs;
use crate::driver::building::there;
use crate::driver::context::LOCAL;
use crate::driver::endings::{Word, is_there, word};
use crate::driver::exit::{Lenience, faults};
use crate::driver::homecoming::{Next, Returns};
use crate::driver::pushing::Why;
use crate::error::exit_code;
use crate::eval::Listed;
use crate::event::{AttemptEnd, Class, DrvOutcome, Event, FORMAT, Fact, Failure, Moment, STOPPED, Stage, Status};
use crate::graph::{Graph, Work, testing};
use crate::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind, RunId, StorePath};
use crate::report::summary::Summary;
use crate::sched::{Action, Input, Item, Scheduler};

/// Seconds for which finished drvs are still pushed after the first Ctrl-C.
const PUSH_AFTER_STOP: f64 = 4.0;

/// Bytes a second to anywhere.
const LINK: f64 = 20e6;

/// What happens later.
#[derive(Debug, Clone)]
enum Coming {
    Dialled(BuilderId),
    Evaluated(AttrId),
    Loaded(Vec<DrvId>),
    Answered(Vec<Question>),
    Arrived(AttemptId),
    Locked(AttemptId, bool),
    Ended(AttemptId),
    Stopped(AttemptId),
    Sized(DrvId),
    Fetched(DrvId),
    FetchStopped(DrvId),
    Returned(DrvId, Vec<StorePath>),
    Push(usize, u32, Answer),
    Trouble(Trouble),
    Dies(BuilderId, Option<f64>, bool),
    Back(BuilderId),
    Emptied(BuilderId),
    GivenUp(BuilderId),
    Answers(BuilderId),
    Mended(usize),
}

/// An attempt.
struct Live {
    drv: DrvId,
    builder: BuilderId,
    /// Something is being done for it.
    busy: bool,
    stopped: bool,
    lost: bool,
}

/// What the driver believes of a builder.
#[derive(Default)]
struct Post {
    up: bool,
    heard: bool,
    suspect: bool,
    full: bool,
    /// It is dialled again.
    again: bool,
    told: bool,
    /// Counts how often it was lost.
    losses: u32,
}

/// How a play came out.
pub(super) struct Played {
    pub(super) events: Vec<Event>,
    pub(super) exit: u8,
    pub(super) stores: Stores,
    pub(super) wrong: Vec<String>,
}

pub(super) struct Player<'w> {
    pub(super) world: &'w World,
    pub(super) stores: Stores,
    pub(super) model: Model<'w>,
    now: Moment,
    agenda: BTreeMap<(Moment, u64), Coming>,
    seq: u64,
    graph: Graph,
    planner: Planner,
    asked: usize,
    sched: Scheduler,
    actions: Vec<Action>,
    live: BTreeMap<AttemptId, Live>,
    tries: BTreeMap<DrvId, u32>,
    fetching: BTreeSet<DrvId>,
    blamed: BTreeMap<DrvId, Vec<StorePath>>,
    attrs: Attrs,
    words: BTreeMap<AttrId, Status>,
    outcomes: BTreeMap<DrvId, DrvOutcome>,
    returns: Returns,
    posts: BTreeMap<BuilderId, Post>,
    targets: Vec<Target>,
    pub(super) down: BTreeSet<usize>,
    evaluated: usize,
    complete: bool,
    closed: bool,
    level: u8,
    push_until: Option<Moment>,
    events: Vec<Event>,
    summary: Summary,
}

/// Plays a world to its end, from what is where.
pub(super) fn play(world: &World, mut stores: Stores) -> Played {
    stores.wake(world);
    let mut player = Player::new(world, stores);
    player.begin();
    player.turn();
    while !player.is_over() && player.model.wrong.is_empty() {
        player.step();
    }
    player.finish()
}

impl<'w> Player<'w> {
    fn new(world: &'w World, stores: Stores) -> Self {
        let pushed = (0..world.caches.len()).filter(|at| world.caches[*at].push);
        Self {
            world,
            model: Model::new(world),
            stores,
            now: Moment(0),
            agenda: BTreeMap::new(),
            seq: 0,
            graph: Graph::new(),
            planner: Planner::new(PlanPolicy { fetch_roots: world.download }),
            asked: 0,
            sched: Scheduler::new(world.policy),
            actions: Vec::new(),
            live: BTreeMap::new(),
            tries: BTreeMap::new(),
            fetching: BTreeSet::new(),
            blamed: BTreeMap::new(),
            attrs: Attrs::default(),
            words: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            returns: Returns::default(),
            posts: world.builders.iter().map(|builder| (builder.id, Post::default())).collect(),
            targets: pushed.map(|at| Target::new(at, &world.caches[at])).collect(),
            down: BTreeSet::new(),
            evaluated: 0,
            complete: false,
            closed: false,
            level: 0,
            push_until: None,
            events: Vec::new(),
            summary: Summary::default(),
        }
    }

    pub(super) fn emit(&mut self, fact: Fact) {
        self.model.told(self.now, &fact, &self.stores);
        let event = Event { seq: self.events.len() as u64, at: self.now, fact };
        self.summary.add(&event);
        self.events.push(event);
    }

    fn later(&mut self, seconds: f64, coming: Coming) {
        self.seq += 1;
        self.agenda.insert((Moment(self.now.0 + Moment::from_seconds(seconds).0), self.seq), coming);
    }

    /// An answer to a push, later; `number` is that of the effects of the target.
    pub(super) fn push_later_as(&mut self, target: usize, number: u32, seconds: f64, answer: Answer) {
        self.later(seconds, Coming::Push(target, number, answer));
    }

    /// Seconds around a usual time, the same whatever else is drawn.
    fn around(&self, seconds: f64, what: u64, which: u64) -> f64 {
        seconds * (0.8 + 0.4 * f64::from(self.world.lot(what, which)) / 100.0)
    }

    fn begin(&mut self) {
        let run = RunId(ulid::Ulid::from_parts(1_795_000_000_000, u128::from(self.world.seed)));
        let started = jiff::Timestamp::from_second(1_795_000_000).unwrap();
        let (drover, nix, command) = ("0.1.0".into(), "2.34.8".into(), "run".into());
        self.emit(Fact::RunStarted { format: FORMAT, run, drover, command, what: Vec::new(), started, nix });
        for (at, cache) in self.world.caches.iter().enumerate() {
            let name = format!("cache{at}").into();
            let url = format!("https://cache{at}.example").into();
            let (cache, pull, push, optional) = (cache_id(at), cache.pull, cache.push, cache.optional);
            self.emit(Fact::CacheReady { cache, name, url, pull, push, optional, asked: false, sick: false });
        }
        for stage in [Stage::Eval, Stage::Diff, Stage::Build] {
            self.emit(Fact::StageStarted { stage });
        }
        for number in 0..self.world.made.len() {
            self.graph.intern(&testing::drv_path(u32::try_from(number).unwrap()));
        }
        for builder in self.world.builders.iter().skip(1) {
            self.tell(Input::BuilderKnown(builder.clone()));
            self.later(self.around(1.0, 2, u64::from(builder.id.0)), Coming::Dialled(builder.id));
        }
        self.dialled(LOCAL);
        for at in 0..self.world.attrs.len() {
            let attr = AttrId(u32::try_from(at).unwrap());
            let (path, kind) = (format!("packages.x86_64-linux.a{at}").parse().unwrap(), Kind::Packages);
            let name: crate::event::Text = format!("a{at}").into();
            let path: crate::id::AttrPath = path;
            self.attrs.add(&Listed { attr, path: path.clone(), kind, name: name.clone() });
            self.emit(Fact::AttrListed { attr, path, kind, name });
            self.later(f64::from(self.world.lot(3, at as u64)) / 20.0, Coming::Evaluated(attr));
        }
        for (at, trouble) in self.world.troubles.clone() {
            self.later(at, Coming::Trouble(trouble));
        }
    }

    fn step(&mut self) {
        let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let wake = self.sched.next_deadline().into_iter().chain(self.push_until).min();
        match (next, wake) {
            (next, Some(wake)) if next.is_none_or(|next| wake < next) => {
                self.now = self.now.max(wake);
                self.tell(Input::Tick);
            }
            (Some(_), _) => {
                let Some(((at, _), coming)) = self.agenda.pop_first() else { return };
                self.now = self.now.max(at);
                self.happen(coming);
            }
            (None, _) => self.model.wrong("nothing happens any more, and the run is not over"),
        }
        if self.now.seconds() > self.model.patience() {
            self.model.wrong("the run takes for ever");
        }
        self.turn();
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Dialled(builder) => self.dialled(builder),
            Coming::Evaluated(attr) => self.evaluated(attr),
            Coming::Loaded(drvs) => {
                let loaded: Vec<DrvId> = drvs.iter().map(|drv| self.graph.load(self.world.info(drv.index()))).collect();
                self.planner.loaded(&self.graph, &loaded);
            }
            Coming::Answered(questions) => self.answered(questions),
            Coming::Arrived(attempt) => self.arrived(attempt),
            Coming::Locked(attempt, locked) => self.locked(attempt, locked),
            Coming::Ended(attempt) => self.ended(attempt),
            Coming::Stopped(attempt) => self.attempt_ended(attempt, failed(stopped()), Vec::new()),
            Coming::Sized(drv) => {
                let bytes = self.world.made[drv.index()].bytes;
                self.emit(Fact::DrvSized { drv, nar_size: bytes });
                self.tell(Input::Sized { drv, bytes, signed: false });
            }
            Coming::Fetched(drv) => self.fetched(drv),
            Coming::FetchStopped(drv) => self.fetch_ended(drv, Some((stopped(), Vec::new()))),
            Coming::Returned(drv, paths) => self.returned(drv, &paths),
            Coming::Push(target, number, answer) => {
                let Some(mut one) = self.targets.get_mut(target).map(std::mem::take) else { return };
                if one.number == number {
                    one.answered(self, target, answer);
                }
                self.targets[target] = one;
            }
            Coming::Trouble(trouble) => self.trouble(trouble),
            Coming::Dies(builder, back, wiped) => self.dies(builder, back, wiped),
            Coming::Back(builder) => self.back(builder),
            Coming::Emptied(builder) => {
                self.post(builder).full = false;
                self.tell_of(builder);
            }
            Coming::GivenUp(builder) => {
                if !self.post(builder).up {
                    self.post(builder).again = false;
                    self.tell_of(builder);
                }
            }
            Coming::Answers(builder) => {
                if !self.stores.alive.contains(&builder) {
                    self.lose(builder);
                } else if std::mem::take(&mut self.post(builder).suspect) {
                    self.tell_of(builder);
                }
            }
            Coming::Mended(cache) => {
                self.down.remove(&cache);
            }
        }
    }

    // Builders.

    fn post(&mut self, builder: BuilderId) -> &mut Post {
        self.posts.entry(builder).or_default()
    }

    fn dialled(&mut self, id: BuilderId) {
        let alive = self.stores.alive.contains(&id);
        let post = self.post(id);
        (post.up, post.heard) = (alive, true);
        post.again |= !alive;
        if alive {
            self.ready(id);
        } else {
            self.suspended(id);
        }
        self.tell_of(id);
        if self.posts.values().all(|post| post.heard) && !std::mem::replace(&mut self.complete, true) {
            self.model.all_builders_known();
            self.tell(Input::NoMoreBuilders);
        }
    }

    fn ready(&mut self, id: BuilderId) {
        let builder = &self.world.builders[id.index()];
        let fact = Fact::BuilderReady {
            builder: id,
            name: builder.name.as_str().into(),
            slots: builder.slots,
            systems: builder.systems.iter().cloned().collect(),
            features: Vec::new(),
            speed: None,
            named_in: None,
        };
        self.emit(fact);
    }

    fn suspended(&mut self, id: BuilderId) {
        let running = u32::try_from(self.live.values().filter(|live| live.builder == id).count()).unwrap();
        let name = self.world.builders[id.index()].name.as_str().into();
        let failure = Failure::new(Class::BuilderLost, "connection reset");
        self.emit(Fact::BuilderSuspended { builder: id, name, failure, running, again: None, hint: None });
    }

    /// As the farm of the driver tells the scheduler.
    fn tell_of(&mut self, id: BuilderId) {
        let post = self.posts.entry(id).or_default();
        let usable = post.up && !post.suspect && !post.full;
        if usable && !std::mem::replace(&mut post.told, true) {
            self.tell(Input::BuilderUp(self.world.builders[id.index()].clone()));
        } else if !usable {
            post.told = false;
            let back = post.up || post.again;
            self.tell(Input::BuilderDown { builder: id, back, why: Some("connection reset".into()) });
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Lost { builder, silent, back, wiped } => {
                // What it does from now on nobody hears of.
                if self.stores.alive.remove(&builder) {
                    self.later(silent, Coming::Dies(builder, back, wiped));
                }
            }
            Trouble::Full { builder, seconds } => {
                // Only who answers says so.
                if self.post(builder).up {
                    self.post(builder).full = true;
                    self.tell_of(builder);
                    self.later(seconds, Coming::Emptied(builder));
                }
            }
            Trouble::Down { cache, seconds } => {
                self.down.insert(cache);
                self.later(seconds, Coming::Mended(cache));
            }
            Trouble::Stop(level) => {
                self.emit(Fact::Cancelled { level });
                self.level = self.level.max(level);
                self.push_until = Some(Moment(self.now.0 + Moment::from_seconds(PUSH_AFTER_STOP).0));
                self.tell(Input::Cancel(self.level));
                if self.level == 2 {
                    self.stop_pushing();
                }
            }
        }
    }

    fn dies(&mut self, builder: BuilderId, back: Option<f64>, wiped: bool) {
        if wiped {
            self.stores.wipe(builder);
        }
        let wait = self.world.wait;
        if let Some(back) = back.filter(|back| *back <= wait) {
            self.later(back, Coming::Back(builder));
        } else {
            self.later(wait, Coming::GivenUp(builder));
        }
        self.lose(builder);
    }

    fn lose(&mut self, builder: BuilderId) {
        let wait = self.world.wait;
        let post = self.post(builder);
        if !std::mem::take(&mut post.up) {
            return;
        }
        (post.suspect, post.again) = (false, wait > 0.0);
        post.losses += 1;
        self.suspended(builder);
        self.tell_of(builder);
        let there = self.live.iter_mut().filter(|(_, live)| live.builder == builder);
        let mut idle = Vec::new();
        let mut busy = Vec::new();
        for (attempt, live) in there {
            live.lost = true;
            if live.busy { &mut busy } else { &mut idle }.push(*attempt);
        }
        for attempt in idle {
            self.attempt_ended(attempt, failed(stopped()), Vec::new());
        }
        for attempt in busy {
            self.later(0.05, Coming::Stopped(attempt));
        }
    }

    fn back(&mut self, builder: BuilderId) {
        self.stores.alive.insert(builder);
        let post = self.post(builder);
        (post.up, post.heard, post.suspect, post.full) = (true, true, false, false);
        self.ready(builder);
        self.tell_of(builder);
    }

    /// Something went wrong there: nothing starts there before it has answered.
    fn suspect(&mut self, builder: BuilderId) {
        let post = self.post(builder);
        if !post.up {
            return;
        }
        if !std::mem::replace(&mut post.suspect, true) {
            self.later(0.3, Coming::Answers(builder));
        }
        self.tell_of(builder);
    }

    // Planning.

    fn evaluated(&mut self, attr: AttrId) {
        if self.level > 0 {
            return;
        }
        self.evaluated += 1;
        let made = self.world.attrs[attr.index()];
        let drv = DrvId(u32::try_from(made).unwrap());
        let names = self.world.info(made).outputs.into_iter().map(|output| output.name).collect();
        self.planner.want(&self.graph, attr, drv, names);
    }

    fn ask(&mut self) {
        let questions = self.planner.questions(&self.graph);
        if !questions.load.is_empty() {
            self.later(0.005, Coming::Loaded(questions.load));
        }
        if !questions.ask.is_empty() {
            self.asked += 1;
            let cached = questions.ask.iter().filter(|question| question.caches).map(|question| question.path.clone());
            self.planner.waits_for_caches(&cached.collect::<Vec<_>>());
            let slowest = self.world.caches.iter().filter(|cache| cache.pull).map(|cache| cache.latency);
            self.later(0.001 + slowest.fold(0.0, f64::max), Coming::Answered(questions.ask));
        }
    }

    fn answered(&mut self, questions: Vec<Question>) {
        if !self.complete {
            self.later(0.1, Coming::Answered(questions));
            return;
        }
        self.asked -= 1;
        let mute = self.world.caches.iter().any(|cache| cache.pull && cache.mute);
        let found = questions.into_iter().map(|Question { path, caches }| {
            let farm = |id: BuilderId| self.posts.get(&id).is_some_and(|post| post.up);
            let there = self.stores.holders(&path).any(farm);
            let promised = self.stores.promised(self.world, &path).filter(|_| caches);
            match promised {
                _ if there => Found::new(path, Presence::Valid),
                Some(cache) => {
                    let made = self.stores.maker[&path];
                    let references = self.world.references(made).into_iter().collect();
                    let (nar_size, presence) = (self.world.made[made].bytes, Presence::Present(cache_id(cache)));
                    Found { path, presence, references, nar_size, file_size: nar_size }
                }
                None if mute && caches => Found::new(path, Presence::NoAnswer),
                None => Found::new(path, Presence::Absent),
            }
        });
        let found: Vec<Found> = found.collect();
        self.planner.answered(&self.graph, &found);
    }

    fn decided(&mut self, decision: Decision) {
        match decision {
            Decision::Item { drv, work, inputs, attr } => {
                let before = self.outcomes.remove(&drv);
                self.need(drv, work, inputs, attr);
                if before.is_some() && self.sched.is_stopping() {
                    self.outcomes.insert(drv, DrvOutcome::Cancelled);
                }
            }
            Decision::Unreadable { drv, .. } => self.model.wrong(&format!("{drv:?} is unreadable")),
            Decision::Attr { attr, status, drv, builds } => {
                self.emit(Fact::AttrPlanned { attr, status, drv, builds });
                self.planned(attr, status, drv);
            }
        }
    }

    fn need(&mut self, drv: DrvId, work: Work, inputs: Vec<DrvId>, attr: Option<AttrId>) {
        let made = &self.world.made[drv.index()];
        let info = self.world.info(drv.index());
        self.emit(Fact::DrvNeeded {
            drv,
            path: absolute(&info.path),
            name: info.name.as_str().into(),
            system: info.system.clone(),
            inputs: inputs.clone(),
            fetch: work == Work::Fetch,
            opaque: false,
            features: info.features.iter().map(|feature| feature.as_str().into()).collect(),
            attr,
            expected: Some(made.expected),
            outputs: Vec::new(),
        });
        let item = Item {
            drv,
            work,
            there: if self.world.is_farm() { there(&self.graph, drv, work, &inputs) } else { Vec::new() },
            inputs,
            system: info.system,
            features: info.features,
            local_only: false,
            here: self.planner.is_wanted_here(drv),
            fixed_output: made.fixed,
            prefer_local: made.prefer_local,
            cost: made.expected,
            ahead: 0.0,
        };
        self.tell(Input::Add(vec![item]));
    }

    // Attrs.

    fn wanted(&self, attr: AttrId) -> Vec<StorePath> {
        self.world.paths(self.world.attrs[attr.index()])
    }

    fn planned(&mut self, attr: AttrId, status: Status, drv: Option<DrvId>) {
        match (status, drv) {
            (Status::Valid, _) => {
                self.push(self.wanted(attr), Why::Found);
                let made = DrvId(u32::try_from(self.world.attrs[attr.index()]).unwrap());
                if !self.comes_home(attr, made, Status::Valid) {
                    self.end_attr(attr, Status::Valid, None, None);
                }
            }
            (Status::ToFetch, _) if !self.world.download => self.end_attr(attr, Status::Cached, None, None),
            (_, Some(drv)) => match self.outcomes.get(&drv).cloned() {
                Some(outcome) => self.end_with(attr, drv, &outcome),
                None => self.attrs.wait_for(attr, drv),
            },
            (status, None) => self.end_attr(attr, status, None, None),
        }
    }

    fn drv_ended(&mut self, drv: DrvId, outcome: DrvOutcome) {
        if matches!(outcome, DrvOutcome::Built | DrvOutcome::Valid) {
            let why = if outcome == DrvOutcome::Built { Why::Built } else { Why::Found };
            self.push(self.world.paths(drv.index()), why);
        }
        for attr in self.attrs.ended_with(drv) {
            self.end_with(attr, drv, &outcome);
        }
        self.outcomes.insert(drv, outcome);
    }

    fn end_with(&mut self, attr: AttrId, drv: DrvId, outcome: &DrvOutcome) {
        let Word { status, reason, root } = word(drv, outcome);
        if !(is_there(status) && self.comes_home(attr, drv, status)) {
            self.end_attr(attr, status, reason, root);
        }
    }

    fn end_attr(&mut self, attr: AttrId, status: Status, reason: Option<&str>, root: Option<DrvId>) {
        if self.words.insert(attr, status).is_none() {
            self.emit(Fact::AttrEnded { attr, status, reason: reason.map(Into::into), root });
        }
    }

    fn comes_home(&mut self, attr: AttrId, drv: DrvId, status: Status) -> bool {
        let outputs = self.wanted(attr);
        let here = outputs.iter().all(|path| self.stores.has(LOCAL, path));
        if !self.world.is_farm() || !self.world.home || here {
            return false;
        }
        if self.returns.expect(drv, outputs, (attr, status)) {
            self.bring_home(drv);
        }
        true
    }

    fn bring_home(&mut self, drv: DrvId) {
        let paths = self.returns.paths(drv);
        let builder = paths.iter().find_map(|path| self.stores.holders(path).next());
        self.emit(Fact::ResultsReturning { drv, builder: builder.unwrap_or(LOCAL) });
        let seconds = 0.02 + self.world.made[drv.index()].bytes as f64 / LINK;
        self.later(seconds, Coming::Returned(drv, paths));
    }

    fn returned(&mut self, drv: DrvId, paths: &[StorePath]) {
        let lost = self.bring(LOCAL, paths).1;
        let suspects: Vec<BuilderId> = self.silent_holders(paths);
        let others = !lost.is_empty()
            && !suspects.is_empty()
            && paths.iter().all(|path| self.stores.holders(path).next().is_some());
        let failure = (!lost.is_empty()).then(|| Failure::new(Class::BuilderLost, "nobody has it"));
        let next = self.returns.ended(drv, paths.len(), others);
        if next == Next::Wait {
            return;
        }
        self.emit(Fact::ResultsReturned { drv, paths: 1, nar_size: 1, failure: failure.clone() });
        if failure.is_some() {
            suspects.into_iter().for_each(|builder| self.suspect(builder));
        }
        let Next::Attrs(attrs) = next else { return self.bring_home(drv) };
        let again = failure.is_some() && self.make_again(drv);
        if again {
            self.outcomes.remove(&drv);
        }
        for (attr, status) in attrs {
            match &failure {
                _ if again => self.attrs.wait_for(attr, drv),
                None => self.end_attr(attr, status, None, None),
                Some(failure) => self.end_attr(attr, Status::Failed, Some(&failure.message), None),
            }
        }
    }

    fn make_again(&mut self, drv: DrvId) -> bool {
        if self.sched.is_on_its_way(drv) {
            return true;
        }
        let can = self.sched.can_make_again(drv);
        if can {
            self.model.lost(drv);
            self.tell(Input::Lost { drv });
        }
        can
    }

    /// Builders that are thought to be up, should have some of these, and do not answer.
    fn silent_holders(&self, paths: &[StorePath]) -> Vec<BuilderId> {
        let should = |id: &BuilderId| paths.iter().any(|path| self.stores.valid.contains(&(*id, path.clone())));
        let silent = self.posts.iter().filter(|(id, post)| post.up && !self.stores.alive.contains(id));
        silent.map(|(id, _)| *id).filter(should).collect()
    }

    /// Brings paths to a builder with all that they refer to. Gives how many came, and what is nowhere of which path.
    fn bring(&mut self, builder: BuilderId, paths: &[StorePath]) -> (u32, Vec<(StorePath, Vec<StorePath>)>) {
        let mut came = 0;
        let mut nowhere = Vec::new();
        for wanted in paths {
            let closure = self.stores.closure(self.world, vec![wanted.clone()]);
            let missing = closure.into_iter().filter(|path| !self.stores.valid.contains(&(builder, path.clone())));
            let missing: Vec<StorePath> = missing.collect();
            let found =
                |path: &StorePath| self.stores.holders(path).next().is_some() || self.stores.brings(self.world, path);
            let gone: Vec<StorePath> = missing.iter().filter(|path| !found(path)).cloned().collect();
            if gone.is_empty() {
                came += u32::try_from(missing.len()).unwrap();
                self.stores.valid.extend(missing.into_iter().map(|path| (builder, path)));
            } else {
                nowhere.push((wanted.clone(), gone));
            }
        }
        (came, nowhere)
    }

    // The scheduler.

    fn tell(&mut self, input: Input) {
        self.sched.handle(self.now, input, &mut self.actions);
    }

    fn turn(&mut self) {
        loop {
            self.ask();
            let decisions = self.planner.decisions(&self.graph);
            let actions = std::mem::take(&mut self.actions);
            if decisions.is_empty() && actions.is_empty() {
                break;
            }
            decisions.into_iter().for_each(|decision| self.decided(decision));
            actions.into_iter().for_each(|action| self.act(action));
        }
        self.close();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { attempt, drv, builder } => self.start(attempt, drv, builder),
            Action::Go { attempt } => self.go(attempt),
            Action::Stop { attempt } => {
                let Some(live) = self.live.get_mut(&attempt) else { return };
                live.stopped = true;
                if live.busy {
                    self.later(0.1, Coming::Stopped(attempt));
                } else {
                    self.attempt_ended(attempt, failed(stopped()), Vec::new());
                }
            }
            Action::Fetch { drv } => {
                self.emit(Fact::FetchStarted { drv });
                self.fetching.insert(drv);
                let bytes = self.world.made[drv.index()].bytes as f64;
                self.later(0.05 + bytes / LINK, Coming::Fetched(drv));
            }
            Action::StopFetch { drv } => self.later(0.01, Coming::FetchStopped(drv)),
            Action::Replan { drv } => {
                let culprits = self.blamed.remove(&drv).unwrap_or_default();
                self.planner.fetch_failed(&self.graph, drv, &culprits);
            }
            Action::Ended { drv, outcome } => {
                self.emit(Fact::DrvEnded { drv, outcome: outcome.clone() });
                self.drv_ended(drv, outcome);
            }
        }
    }

    /// The outputs of others that a drv uses.
    fn needs(&self, drv: DrvId) -> Vec<StorePath> {
        self.world.made[drv.index()].inputs.iter().map(|(made, output)| self.world.path(*made, *output)).collect()
    }

    fn start(&mut self, attempt: AttemptId, drv: DrvId, builder: BuilderId) {
        self.emit(Fact::AttemptStarted { attempt, drv, builder });
        self.live.insert(attempt, Live { drv, builder, busy: true, stopped: false, lost: false });
        let missing = self.needs(drv).into_iter().filter(|path| !self.stores.has(builder, path));
        let bytes: u64 = missing.map(|path| self.world.made[self.stores.maker[&path]].bytes).sum();
        let seconds = if bytes == 0 { 0.0 } else { self.around(0.02 + bytes as f64 / LINK, 4, u64::from(attempt.0)) };
        if self.world.is_farm() && bytes > 0 {
            self.emit(Fact::AttemptBringing { attempt, paths: 1, nar_size: bytes });
        }
        self.later(seconds, Coming::Arrived(attempt));
    }

    fn arrived(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get_mut(&attempt).filter(|live| !live.stopped && !live.lost) else { return };
        let (drv, builder) = (live.drv, live.builder);
        if !self.stores.alive.contains(&builder) {
            return;
        }
        live.busy = false;
        let needs = self.needs(drv);
        let silent = self.silent_holders(&needs);
        let (copied, gone) = self.bring(builder, &needs);
        if gone.is_empty() {
            if self.world.is_farm() {
                self.emit(Fact::AttemptPrepared { attempt, copied, copied_size: 0, fetched: 0 });
                self.tell(Input::Transferred { builder, bytes: 1 << 20, seconds: 0.05 });
            }
            self.tell(Input::Prepared { attempt });
            return;
        }
        let mut inputs = Vec::new();
        for (input, culprits) in inputs_of(&self.graph, drv, &gone) {
            self.blamed.entry(input).or_default().extend(culprits);
            self.model.lost(input);
            inputs.push(input);
        }
        self.attempt_ended(attempt, failed(Failure::new(Class::Dependency, "an input is nowhere")), inputs);
        silent.into_iter().for_each(|builder| self.suspect(builder));
    }

    fn go(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get_mut(&attempt) else { return };
        live.busy = true;
        let (drv, builder) = (live.drv, live.builder);
        self.emit(Fact::AttemptBuilding { attempt });
        *self.tries.entry(drv).or_default() += 1;
        if self.world.lot(5, u64::from(attempt.0)) < 5 {
            self.later(0.01, Coming::Locked(attempt, true));
            return;
        }
        let speed = self.world.builders[builder.index()].speed;
        let seconds = self.around(self.world.made[drv.index()].seconds / speed, 6, u64::from(attempt.0));
        self.later(seconds, Coming::Ended(attempt));
    }

    /// Somebody else builds the same for a while.
    fn locked(&mut self, attempt: AttemptId, locked: bool) {
        if self.live.get(&attempt).is_none_or(|live| !self.stores.alive.contains(&live.builder)) {
            return;
        }
        if locked {
            self.emit(Fact::AttemptWaiting { attempt, reason: "somebody else builds it".into() });
            self.later(3.0, Coming::Locked(attempt, false));
        } else {
            self.emit(Fact::AttemptBuilding { attempt });
            self.later(0.5, Coming::Ended(attempt));
        }
        self.tell(Input::Waiting { attempt, waiting: locked });
    }

    fn ended(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get(&attempt).filter(|live| !live.stopped && !live.lost) else { return };
        let (drv, builder) = (live.drv, live.builder);
        if !self.stores.alive.contains(&builder) {
            return;
        }
        let tries = self.tries[&drv];
        let class = match self.world.made[drv.index()].fate {
            Fate::Broken(class) => Some(class),
            Fate::Shaky(class, times) if tries <= times => Some(class),
            _ if self.posts[&builder].full => Some(Class::DiskFull),
            Fate::Fine | Fate::Shaky(..) => None,
        };
        let end = match class {
            Some(class) => failed(Failure::new(class, "so it goes")),
            None => {
                for path in self.world.paths(drv.index()) {
                    if let Some(lacks) = self.stores.put(self.world, builder, &path) {
                        self.model.wrong(&format!("{path} is built on {builder:?} without {lacks}"));
                    }
                }
                AttemptEnd::Built { outputs: Vec::new() }
            }
        };
        self.attempt_ended(attempt, end, Vec::new());
    }

    fn attempt_ended(&mut self, attempt: AttemptId, end: AttemptEnd, gone: Vec<DrvId>) {
        let Some(Live { drv, builder, lost, .. }) = self.live.remove(&attempt) else { return };
        let end = match end {
            AttemptEnd::Failed(Failure { class: Class::Cancelled | Class::BuilderLost, .. }) if lost => {
                failed(Failure::new(Class::BuilderLost, "connection reset"))
            }
            end => end,
        };
        self.emit(Fact::AttemptEnded { attempt, end: end.clone(), log_lines: 0, log_tail: Vec::new() });
        let lost = matches!(&end, AttemptEnd::Failed(failure) if failure.class == Class::BuilderLost);
        if lost && builder != LOCAL {
            self.tell(Input::BuilderDown { builder, back: true, why: None });
        }
        if matches!(end, AttemptEnd::Built { .. }) {
            self.later(0.01, Coming::Sized(drv));
        }
        self.tell(Input::AttemptEnded { attempt, end, gone });
        if lost && builder != LOCAL {
            self.suspect(builder);
        }
    }

    fn fetched(&mut self, drv: DrvId) {
        if self.planner.is_stale(drv) {
            let failure = Failure::new(Class::Cache, "something that it needs turned out to be gone");
            return self.fetch_ended(drv, Some((failure, Vec::new())));
        }
        let closure = self.planner.fetch_closure(drv);
        // What it refers to may have been there, on a builder that has gone.
        let missing = closure.iter().flat_map(|(path, ..)| self.world.references(self.stores.maker[path]));
        let promised: BTreeSet<&StorePath> = closure.iter().map(|(path, ..)| path).collect();
        let nowhere = missing.filter(|path| !promised.contains(path) && self.stores.holders(path).next().is_none());
        let broken = promised.iter().filter(|path| !self.stores.brings(self.world, path));
        let culprits: Vec<StorePath> = broken.map(|path| (*path).clone()).chain(nowhere).collect();
        if culprits.is_empty() {
            self.stores.valid.extend(closure.iter().map(|(path, ..)| (LOCAL, path.clone())));
        }
        let failure = (!culprits.is_empty()).then(|| (Failure::new(Class::Cache, "it is not there"), culprits));
        self.fetch_ended(drv, failure);
    }

    fn fetch_ended(&mut self, drv: DrvId, failure: Option<(Failure, Vec<StorePath>)>) {
        if !self.fetching.remove(&drv) {
            return;
        }
        let failure = failure.map(|(failure, culprits)| {
            self.blamed.insert(drv, culprits);
            failure
        });
        self.emit(Fact::FetchEnded { drv, failure: failure.clone() });
        self.tell(Input::FetchEnded { drv, failure });
    }

    // Pushes and the end.

    fn push(&mut self, outputs: Vec<StorePath>, why: Why) {
        if self.level == 2 {
            return;
        }
        for at in 0..self.targets.len() {
            let mut target = std::mem::take(&mut self.targets[at]);
            target.add(self, at, &outputs, why);
            self.targets[at] = target;
        }
    }

    fn stop_pushing(&mut self) {
        for at in 0..self.targets.len() {
            let mut target = std::mem::take(&mut self.targets[at]);
            target.stop(self, at);
            self.targets[at] = target;
        }
    }

    fn is_built(&self) -> bool {
        self.sched.is_done() && self.actions.is_empty()
    }

    fn close(&mut self) {
        let asked = self.level > 0;
        if (!asked || self.is_built()) && self.push_until.is_some_and(|until| until <= self.now) {
            self.push_until = None;
            if self.targets.iter().any(|target| !target.done) {
                self.stop_pushing();
            }
        }
        let compared = self.evaluated == self.world.attrs.len() && self.planner.is_idle() && self.asked == 0;
        if (compared || asked) && !std::mem::replace(&mut self.closed, true) {
            self.tell(Input::NoMore);
            self.turn();
        }
        if self.closed && self.is_built() && (self.returns.is_done() || asked) {
            for at in 0..self.targets.len() {
                let mut target = std::mem::take(&mut self.targets[at]);
                target.close(self, at);
                self.targets[at] = target;
            }
        }
    }

    fn is_over(&self) -> bool {
        let home = self.returns.is_done() || self.level > 0;
        self.level == 2 || self.closed && self.is_built() && home && self.targets.iter().all(|target| target.done)
    }

    fn finish(mut self) -> Played {
        for attr in self.attrs.open() {
            if self.words.contains_key(&attr) {
                continue;
            }
            if self.level == 0 && self.model.wrong.is_empty() {
                self.model.wrong(&format!("{attr:?} has no word"));
            }
            self.end_attr(attr, Status::Skipped, Some(STOPPED), None);
        }
        for stage in [Stage::Eval, Stage::Diff, Stage::Build] {
            self.emit(Fact::StageEnded { stage });
        }
        let optional = (0..self.world.caches.len()).filter(|at| self.world.caches[*at].optional).map(cache_id);
        let exit = exit_code(&faults(&self.events, &Lenience::for_caches(optional.collect())));
        self.emit(Fact::RunEnded { exit });
        self.model.ended(self.now, exit, &self.stores, (&self.events, &self.summary), self.level);
        Played { events: self.events, exit, stores: self.stores, wrong: self.model.wrong }
    }
}

fn failed(failure: Failure) -> AttemptEnd {
    AttemptEnd::Failed(failure)
}

/// The number of a cache.
pub(super) fn cache_id(at: usize) -> CacheId {
    CacheId(u32::try_from(at).unwrap())
}

/// As records name paths.
pub(super) fn absolute(path: &StorePath) -> crate::event::Text {
    path.to_string().into()
}
