//! What will probably happen: the same decisions as in a run, in virtual time, if all takes as long as expected and
//! nothing goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Prepared(AttemptId),
    Ended(AttemptId),
    Fetched(DrvId),
}

/// Builds these items on these builders in virtual time. `sizes`: bytes of the outputs of drvs, as far as known.
#[must_use]
pub fn forecast(items: Vec<Item>, sizes: &[(DrvId, u64)], builders: &[Builder], policy: Policy) -> Forecast {
    let inputs: BTreeMap<DrvId, Vec<DrvId>> = items.iter().map(|item| (item.drv, item.inputs.clone())).collect();
    let mut play = Play { scheduler: Scheduler::new(policy), ..Play::default() };
    for builder in builders {
        play.tell(Input::BuilderUp(builder.clone()));
    }
    play.tell(Input::NoMoreBuilders);
    for (drv, bytes) in sizes {
        play.tell(Input::Sized { drv: *drv, bytes: *bytes, signed: true });
    }
    play.tell(Input::Add(items));
    play.tell(Input::NoMore);
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
    planned: BTreeMap<AttemptId, Planned>,
}

impl Default for Play {
    fn default() -> Self {
        let (now, events) = (Moment(0), BinaryHeap::new());
        Self { scheduler: Scheduler::new(Policy::default()), now, events, planned: BTreeMap::new() }
    }
}

impl Play {
    fn run(&mut self) {
        while !self.scheduler.is_done() {
            let next = self.events.peek().map(|Reverse((at, _))| *at);
            let input = match self.scheduler.next_deadline().filter(|at| next.is_none_or(|next| *at < next)) {
                Some(at) => {
                    self.now = self.now.max(at);
                    Input::Tick
                }
                None => {
                    // Without anything to come nothing would ever change.
                    let Some(Reverse((at, event))) = self.events.pop() else { return };
                    self.now = self.now.max(at);
                    self.happened(event)
                }
            };
            self.tell(input);
        }
    }

    fn happened(&mut self, event: Event) -> Input {
        match event {
            Event::Prepared(attempt) => Input::Prepared { attempt },
            Event::Ended(attempt) => {
                if let Some(planned) = self.planned.get_mut(&attempt) {
                    planned.end = self.now.seconds();
                }
                let end = crate::event::AttemptEnd::Built { outputs: Vec::new() };
                Input::AttemptEnded { attempt, end, gone: Vec::new() }
            }
            Event::Fetched(drv) => Input::FetchEnded { drv, failure: None },
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
