//! What will probably happen: the same decisions as in a run, in virtual time, if all takes as long as expected and
//! nothing goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::event::{Class, Failure, Moment};
use crate::id::{AttemptId, BuilderId, DrvId};

use super::builders::Builder;
use super::item::{Action, Input, Item, Policy};
use super::state::Scheduler;

/// One drv in a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Which.
    pub drv: DrvId,
    /// Where it is built.
    pub builder: BuilderId,
    /// Seconds after the start of all at which it begins to build.
    pub start: f64,
    /// Seconds at which it is built.
    pub end: f64,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forecast {
    /// What is built, by the time at which it begins. What no builder takes is missing, and so is what needs it.
    pub planned: Vec<Planned>,
    /// Seconds until the last of them is built.
    pub seconds: f64,
    /// The critical path: what is built last, before it that of its inputs that is built last, and so on; in the order in
    /// which they are built.
    pub chain: Vec<DrvId>,
}

/// What is played: who is there and what is needed, each from when on.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// What is needed, in the order of time.
    pub items: Vec<(Moment, Item)>,
    /// Bytes of the outputs of drvs, as far as known.
    pub sizes: Vec<(DrvId, u64)>,
    /// Who builds.
    pub builders: Vec<(Moment, Builder)>,
    /// Transfers that were measured: to which builder, bytes, seconds.
    pub links: Vec<(BuilderId, u64, f64)>,
    /// What is wanted of the scheduler.
    pub policy: Policy,
}

impl Course {
    /// All of it from the start on.
    #[must_use]
    pub fn at_once(items: Vec<Item>, builders: Vec<Builder>, policy: Policy) -> Self {
        let items = items.into_iter().map(|item| (Moment(0), item)).collect();
        let builders = builders.into_iter().map(|builder| (Moment(0), builder)).collect();
        Self { items, builders, policy, ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next builder is up.
    Up,
    /// All items are needed that are by now.
    Needed,
    Prepared(AttemptId),
    Ended(AttemptId),
    Fetched(DrvId),
}

/// Plays a course in virtual time.
#[must_use]
pub fn forecast(course: Course) -> Forecast {
    let inputs: BTreeMap<DrvId, Vec<DrvId>> =
        course.items.iter().map(|(_, item)| (item.drv, item.inputs.clone())).collect();
    let mut play = Play::new(course);
    play.run();
    let mut planned: Vec<Planned> = play.planned.into_values().filter(|planned| planned.end.is_finite()).collect();
    planned.sort_by(|a, b| a.start.total_cmp(&b.start).then_with(|| a.drv.cmp(&b.drv)));
    let seconds = planned.iter().map(|planned| planned.end).fold(0.0, f64::max);
    let chain = chain(&planned, &inputs);
    Forecast { planned, seconds, chain }
}

/// A run in virtual time.
struct Play {
    scheduler: Scheduler,
    now: Moment,
    events: BinaryHeap<Reverse<(Moment, Event)>>,
    /// Those that are not up yet, the latest first.
    builders: Vec<(Moment, Builder)>,
    links: Vec<(BuilderId, u64, f64)>,
    /// What is not needed yet, the latest first.
    items: Vec<(Moment, Item)>,
    planned: BTreeMap<AttemptId, Planned>,
}

impl Play {
    fn new(course: Course) -> Self {
        let Course { mut items, sizes, mut builders, links, policy } = course;
        builders.sort_by_key(|(at, builder)| Reverse((*at, builder.id)));
        // Of one moment, in the order in which they came.
        items.reverse();
        items.sort_by_key(|(at, _)| Reverse(*at));
        let mut events = BinaryHeap::new();
        events.extend(builders.iter().map(|(at, _)| Reverse((*at, Event::Up))));
        let moments: BTreeSet<Moment> = items.iter().map(|(at, _)| *at).collect();
        events.extend(moments.into_iter().map(|at| Reverse((at, Event::Needed))));
        let (scheduler, planned) = (Scheduler::new(policy), BTreeMap::new());
        let mut play = Self { scheduler, now: Moment(0), events, builders, links, items, planned };
        for (drv, bytes) in sizes {
            play.tell(Input::Sized { drv, bytes, signed: true });
        }
        play.tell_ends();
        play
    }

    /// Whether anything more is to come.
    fn tell_ends(&mut self) {
        if self.builders.is_empty() {
            self.tell(Input::NoMoreBuilders);
        }
        if self.items.is_empty() {
            self.tell(Input::NoMore);
        }
    }

    fn up(&mut self) {
        let Some((_, builder)) = self.builders.pop() else { return };
        let id = builder.id;
        self.tell(Input::BuilderUp(builder));
        let (its, others) = std::mem::take(&mut self.links).into_iter().partition(|link| link.0 == id);
        self.links = others;
        for (builder, bytes, seconds) in its {
            self.tell(Input::Transferred { builder, bytes, seconds });
        }
        self.tell_ends();
    }

    fn needed(&mut self) {
        let mut items = Vec::new();
        while self.items.last().is_some_and(|(at, _)| *at <= self.now) {
            items.extend(self.items.pop().map(|(_, item)| item));
        }
        self.tell(Input::Add(items));
        self.tell_ends();
    }

    fn run(&mut self) {
        while !self.scheduler.is_done() {
            let next = self.events.peek().map(|Reverse((at, _))| *at);
            match self.scheduler.next_deadline().filter(|at| next.is_none_or(|next| *at < next)) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.tell(Input::Tick);
                }
                None => {
                    // Without anything to come nothing would ever change.
                    let Some(Reverse((at, event))) = self.events.pop() else { return };
                    self.now = self.now.max(at);
                    self.happened(event);
                }
            }
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Up => self.up(),
            Event::Needed => self.needed(),
            Event::Prepared(attempt) => self.tell(Input::Prepared { attempt }),
            Event::Ended(attempt) => {
                if let Some(planned) = self.planned.get_mut(&attempt) {
                    planned.end = self.now.seconds();
                }
                let end = crate::event::AttemptEnd::Built { outputs: Vec::new() };
                self.tell(Input::AttemptEnded { attempt, end, gone: Vec::new() });
            }
            Event::Fetched(drv) => self.tell(Input::FetchEnded { drv, failure: None }),
        }
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
                let at = self.after(self.scheduler.expected_bringing(attempt));
                self.events.push(Reverse((at, Event::Prepared(attempt))));
                self.planned.insert(attempt, Planned { drv, builder, start: 0.0, end: f64::NAN });
            }
            Action::Go { attempt } => {
                let at = self.after(self.scheduler.expected_building(attempt));
                self.events.push(Reverse((at, Event::Ended(attempt))));
                if let Some(planned) = self.planned.get_mut(&attempt) {
                    planned.start = self.now.seconds();
                }
            }
            Action::Fetch { drv } => {
                let at = self.after(self.scheduler.expected_fetching(drv));
                self.events.push(Reverse((at, Event::Fetched(drv))));
            }
            // Nothing fails and nobody stops.
            Action::Replan { drv } => {
                let message = "nothing is planned anew in a forecast";
                let failure = Failure::new(Class::Internal, message);
                self.tell(Input::AddFailed(vec![(drv, failure)]));
            }
            Action::Stop { .. } | Action::StopFetch { .. } | Action::Ended { .. } => {}
        }
    }

    fn after(&self, micros: u64) -> Moment {
        Moment(self.now.0.saturating_add(micros))
    }
}

fn chain(planned: &[Planned], inputs: &BTreeMap<DrvId, Vec<DrvId>>) -> Vec<DrvId> {
    let ends: BTreeMap<DrvId, f64> = planned.iter().map(|planned| (planned.drv, planned.end)).collect();
    let latest = |drvs: &mut dyn Iterator<Item = DrvId>| {
        let ends = drvs.filter_map(|drv| Some((*ends.get(&drv)?, drv)));
        ends.max_by(|(a, a_drv), (b, b_drv)| a.total_cmp(b).then_with(|| b_drv.cmp(a_drv))).map(|(_, drv)| drv)
    };
    let mut chain: Vec<DrvId> = latest(&mut planned.iter().map(|planned| planned.drv)).into_iter().collect();
    while let Some(last) = chain.last() {
        let before = inputs.get(last).and_then(|inputs| latest(&mut inputs.iter().copied()));
        match before {
            Some(before) if chain.len() < planned.len() => chain.push(before),
            _ => break,
        }
    }
    chain.reverse();
    chain
}
