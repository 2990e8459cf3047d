//! Plays a world in virtual time: the real graph, planner, scheduler, queues of pushes, words on attrs and faults, wired
//! as the driver wires them; builders, caches and the clock are made up. Says each fact once to the model.

mod attempts;
mod attrs;
mod builders;
mod planning;

use std::collections::{BTreeMap, BTreeSet};

use super::model::Model;
use super::pushes::{Answer, Target};
use super::stores::Stores;
use super::world::{Trouble, World};
use crate::diff::plan::{PlanPolicy, Planner, Question};
use crate::driver::attempts::stopped;
use crate::driver::attrs::Attrs;
use crate::driver::context::LOCAL;
use crate::driver::exit::{Lenience, faults};
use crate::driver::homecoming::Returns;
use crate::driver::pushing::Why;
use crate::error::exit_code;
use crate::eval::Listed;
use crate::event::{AttemptEnd, DrvOutcome, Event, FORMAT, Fact, Failure, Moment, STOPPED, Stage, Status};
use crate::graph::{Graph, testing};
use crate::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind, RunId, StorePath};
use crate::report::summary::Summary;
use crate::sched::{Action, Input, Scheduler};

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
