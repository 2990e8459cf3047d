//! Builders in virtual time: what the scheduler says is done, takes as long as it takes, and may go wrong. Holds what it
//! says against what is really where.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::super::{Action, Builder, Input, Item, Policy, Scheduler, Work};
use super::failure;
use crate::event::{AttemptEnd, Class, DrvOutcome, Moment};
use crate::id::{AttemptId, BuilderId, DrvId};

/// Numbers that look drawn by lot, the same for the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 33) % u64::from(bound)).unwrap()
    }

    /// From 0 to 1.
    pub(super) fn share(&mut self) -> f64 {
        f64::from(self.below(1_000_000)) / 1e6
    }
}

/// What is built, by whom, and what may happen.
pub(super) struct World {
    /// By number.
    pub(super) items: Vec<Item>,
    /// Bytes of the outputs of each.
    pub(super) sizes: Vec<u64>,
    pub(super) builders: Vec<Builder>,
    pub(super) policy: Policy,
    /// Bytes a second to each builder, and seconds for each transfer.
    pub(super) link: (f64, f64),
    /// How far real durations are from expected ones: 0.3 for up to 30 % more or less.
    pub(super) error: f64,
    pub(super) faults: Option<Faults>,
    pub(super) seed: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    /// How many times a builder goes away in the first so many seconds.
    pub(super) losses: u32,
    pub(super) within: u32,
    /// Of a hundred attempts, so many end by something that is not the drv's fault.
    pub(super) bad_ends: u32,
    /// Of a hundred drvs, so many fail whenever they are tried.
    pub(super) broken: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrived(AttemptId),
    Ended(AttemptId),
    Fetched(DrvId),
    Lost { builder: BuilderId, back: Option<u32>, wiped: bool },
    Back(BuilderId),
    Wake,
}

#[derive(Debug, Clone, Copy)]
struct Live {
    drv: DrvId,
    builder: BuilderId,
    building: bool,
}

pub(super) struct Simulation<'a> {
    world: &'a World,
    random: Random,
    pub(super) scheduler: Scheduler,
    now: Moment,
    events: BinaryHeap<Reverse<(Moment, u64, Event)>>,
    seq: u64,
    live: BTreeMap<AttemptId, Live>,
    up: BTreeSet<BuilderId>,
    /// What is really where.
    there: BTreeSet<(BuilderId, DrvId)>,
    broken: BTreeSet<DrvId>,
    /// When the last was built.
    last: Moment,
    /// Final words.
    pub(super) outcomes: BTreeMap<DrvId, Vec<DrvOutcome>>,
    pub(super) replanned: u32,
}

/// How long something takes, in µs.
fn micros(seconds: f64) -> u64 {
    Moment::from_seconds(seconds).0
}

impl<'a> Simulation<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let mut random = Random::new(world.seed);
        let broken = world.faults.map_or(0, |faults| faults.broken);
        let broken = world.items.iter().filter(|_| random.below(100) < broken).map(|item| item.drv).collect();
        Self {
            world,
            random,
            scheduler: Scheduler::new(world.policy),
            now: Moment(0),
            events: BinaryHeap::new(),
            seq: 0,
            live: BTreeMap::new(),
            up: world.builders.iter().map(|builder| builder.id).collect(),
            there: BTreeSet::new(),
            broken,
            last: Moment(0),
            outcomes: BTreeMap::new(),
            replanned: 0,
        }
    }

    /// Plays it to the end and gives the seconds that it took.
    pub(super) fn play(&mut self) -> f64 {
        for builder in &self.world.builders {
            self.tell(Input::BuilderUp(builder.clone()));
        }
        self.tell(Input::NoMoreBuilders);
        self.plan_losses();
        for (at, batch) in self.world.items.chunks(100).enumerate() {
            if at % 2 == 0 {
                self.sizes(batch);
            }
            self.tell(Input::Add(batch.to_vec()));
        }
        self.tell(Input::NoMore);
        while !self.scheduler.is_done() {
            let next = self.events.peek().map(|Reverse((at, ..))| *at);
            let wake = self.scheduler.next_deadline().filter(|at| next.is_none_or(|next| *at < next));
            let (at, event) = match (wake, wake.is_none().then(|| self.events.pop()).flatten()) {
                (Some(at), _) => (at, Event::Wake),
                (None, Some(Reverse((at, _, event)))) => (at, event),
                (None, None) => panic!("nothing happens any more"),
            };
            assert!(at.seconds() < 1e7, "it takes for ever");
            self.now = self.now.max(at);
            self.happen(event);
        }
        assert!(self.live.is_empty(), "something runs on");
        self.last.seconds()
    }

    fn sizes(&mut self, batch: &[Item]) {
        for item in batch {
            let bytes = self.world.sizes[item.drv.index()];
            self.tell(Input::Sized { drv: item.drv, bytes, signed: false });
        }
    }

    fn plan_losses(&mut self) {
        let Some(faults) = self.world.faults else { return };
        let away = self.world.builders.iter().filter(|builder| !builder.local).map(|builder| builder.id);
        let away: Vec<BuilderId> = away.collect();
        // The first is never lost for good.
        for _ in 0..faults.losses {
            let Some(builder) = away.get(self.random.below(99) as usize % away.len().max(1)).copied() else { return };
            let for_good = builder != away[0] && self.random.below(6) == 0;
            let back = (!for_good).then(|| 1 + self.random.below(30));
            let wiped = self.random.below(3) == 0;
            let at = u64::from(self.random.below(faults.within.max(1))) * 1_000_000;
            self.later(at, Event::Lost { builder, back, wiped });
        }
    }

    fn later(&mut self, micros: u64, event: Event) {
        self.seq += 1;
        self.events.push(Reverse((Moment(self.now.0 + micros), self.seq, event)));
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
                assert!(self.up.contains(&builder), "{drv:?} begins on {builder:?}, which is away");
                let twice = self.live.values().any(|live| live.drv == drv);
                assert!(!twice, "{drv:?} is tried twice at the same time");
                self.live.insert(attempt, Live { drv, builder, building: false });
                let (rate, latency) = self.world.link;
                let missing = self.missing(drv, builder);
                let bytes: u64 = missing.iter().map(|input| self.world.sizes[input.index()]).sum();
                let seconds = if missing.is_empty() { 0.0 } else { latency + bytes as f64 / rate };
                self.later(micros(seconds), Event::Arrived(attempt));
            }
            Action::Go { attempt } => self.go(attempt),
            Action::Stop { attempt } => {
                if self.live.contains_key(&attempt) {
                    self.end(attempt, AttemptEnd::Failed(failure(Class::Cancelled)), Vec::new());
                }
            }
            Action::Fetch { drv } => self.later(20_000, Event::Fetched(drv)),
            Action::StopFetch { .. } => panic!("nobody stops"),
            Action::Replan { drv } => {
                self.replanned += 1;
                let item = self.world.items[drv.index()].clone();
                self.tell(Input::Add(vec![Item { work: Work::Build, ..item }]));
            }
            Action::Ended { drv, outcome } => self.outcomes.entry(drv).or_default().push(outcome),
        }
    }

    fn missing(&self, drv: DrvId, builder: BuilderId) -> Vec<DrvId> {
        let inputs = self.world.items[drv.index()].inputs.iter().copied();
        inputs.filter(|input| !self.there.contains(&(builder, *input))).collect()
    }

    fn go(&mut self, attempt: AttemptId) {
        let live = self.live.get_mut(&attempt).unwrap();
        live.building = true;
        let (drv, id) = (live.drv, live.builder);
        assert!(self.missing(drv, id).is_empty(), "{drv:?} builds without its inputs");
        assert!(self.up.contains(&id), "{drv:?} builds on {id:?}, which is away");
        let builder = self.world.builders.iter().find(|builder| builder.id == id).unwrap();
        let building = self.live.values().filter(|live| live.builder == id && live.building).count();
        assert!(building <= builder.slots as usize + 12, "{id:?} is too full");
        let error = 1.0 + self.world.error * (2.0 * self.random.share() - 1.0);
        let seconds = self.world.items[drv.index()].cost / builder.speed * error;
        self.later(micros(seconds), Event::Ended(attempt));
    }

    fn end(&mut self, attempt: AttemptId, end: AttemptEnd, gone: Vec<DrvId>) {
        let live = self.live.remove(&attempt).unwrap();
        if let AttemptEnd::Built { .. } = end {
            self.there.insert((live.builder, live.drv));
            self.last = self.now;
        }
        self.tell(Input::AttemptEnded { attempt, end, gone });
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrived(attempt) => self.arrived(attempt),
            Event::Ended(attempt) => self.ended(attempt),
            Event::Fetched(drv) => {
                self.there.insert((BuilderId(0), drv));
                self.tell(Input::FetchEnded { drv, failure: None });
            }
            Event::Lost { builder, back, wiped } => self.lost(builder, back, wiped),
            Event::Back(builder) => {
                if self.up.insert(builder) {
                    let builder = self.world.builders.iter().find(|known| known.id == builder).unwrap();
                    self.tell(Input::BuilderUp(builder.clone()));
                }
            }
            Event::Wake => self.tell(Input::Tick),
        }
    }

    /// What is missing comes from any builder that is up; what a cache has, comes from there.
    fn arrived(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get(&attempt).copied() else { return };
        let missing = self.missing(live.drv, live.builder);
        let cached = |drv: &DrvId| self.world.items[drv.index()].work == Work::Fetch && self.replanned == 0;
        let found = |drv: &DrvId| cached(drv) || self.up.iter().any(|id| self.there.contains(&(*id, *drv)));
        let gone: Vec<DrvId> = missing.iter().copied().filter(|drv| !found(drv)).collect();
        if !gone.is_empty() {
            self.end(attempt, AttemptEnd::Failed(failure(Class::Dependency)), gone);
            return;
        }
        let bytes: u64 = missing.iter().map(|input| self.world.sizes[input.index()]).sum();
        self.there.extend(missing.iter().map(|input| (live.builder, *input)));
        if !missing.is_empty() {
            let (rate, latency) = self.world.link;
            let seconds = latency + bytes as f64 / rate;
            self.tell(Input::Transferred { builder: live.builder, bytes, seconds });
        }
        self.tell(Input::Prepared { attempt });
    }

    fn ended(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get(&attempt).copied() else { return };
        let bad = self.world.faults.is_some_and(|faults| self.random.below(100) < faults.bad_ends);
        let end = if self.broken.contains(&live.drv) {
            AttemptEnd::Failed(failure(Class::Build))
        } else if bad {
            let classes = [Class::Signal, Class::DiskFull, Class::Network, Class::Internal, Class::BuilderLost];
            AttemptEnd::Failed(failure(classes[self.random.below(5) as usize]))
        } else {
            AttemptEnd::Built { outputs: Vec::new() }
        };
        let bytes = self.world.sizes[live.drv.index()];
        self.tell(Input::Sized { drv: live.drv, bytes, signed: false });
        self.end(attempt, end, Vec::new());
    }

    fn lost(&mut self, builder: BuilderId, back: Option<u32>, wiped: bool) {
        if !self.up.remove(&builder) {
            return;
        }
        if wiped || back.is_none() {
            self.there.retain(|(id, _)| *id != builder);
        }
        let why = Some("connection reset".into());
        self.tell(Input::BuilderDown { builder, back: back.is_some(), why });
        let here = self.live.iter().filter(|(_, live)| live.builder == builder);
        for attempt in here.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.live.contains_key(&attempt) {
                self.end(attempt, AttemptEnd::Failed(failure(Class::BuilderLost)), Vec::new());
            }
        }
        if let Some(seconds) = back {
            self.later(u64::from(seconds) * 1_000_000, Event::Back(builder));
        }
    }
}
