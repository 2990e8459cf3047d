//! A slow scheduler's bookkeeping: told the inputs and actions, it says whether the actions were right. Everything is
//! recomputed from scratch from a few facts for each item, so that it shares no trick with the real one.
//!
//! The numbers P1 … P12 are those of the properties in the list that the scheduler was designed by: 1 inputs first,
//! 2 one live attempt, 3 limits, 4 work-conserving, 5 ends, 6 one outcome, 7 nothing starts after a stop, 8 failures
//! reach the dependents and nobody else, 9 order does not matter, 10 attempts, 11 ranks, 12 determinism.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Action, Again, Builder, Counts, Input, Item, Limit, Policy, Scheduler, Work, retry_of};
use crate::event::{AttemptEnd, Class, DrvOutcome, Failure, Moment};
use crate::id::{AttemptId, BuilderId, DrvId};

/// What is known of one item.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) item: Item,
    pub(super) attempts: u32,
    avoid: BTreeSet<BuilderId>,
    retried: Vec<Class>,
    delayed: Option<Moment>,
    pub(super) replanning: bool,
    superseded: bool,
    /// Inputs that were there at some time since it was added.
    satisfied: BTreeSet<DrvId>,
    pub(super) outcome: Option<DrvOutcome>,
}

impl Known {
    fn new(item: Item) -> Self {
        Self {
            item,
            attempts: 0,
            avoid: BTreeSet::new(),
            retried: Vec::new(),
            delayed: None,
            replanning: false,
            superseded: false,
            satisfied: BTreeSet::new(),
            outcome: None,
        }
    }
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Preparing,
    Prepared,
    Building,
    Waiting,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) drv: DrvId,
    pub(super) builder: BuilderId,
    pub(super) stage: Stage,
    pub(super) stopped: bool,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) builder: Builder,
    pub(super) up: bool,
    pub(super) hope: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Ready,
    Running,
    Fetching,
    Ended,
}

/// The facts.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) policy: Policy,
    pub(super) items: BTreeMap<DrvId, Known>,
    pub(super) hosts: BTreeMap<BuilderId, Host>,
    pub(super) live: BTreeMap<AttemptId, Attempt>,
    pub(super) in_flight: BTreeSet<DrvId>,
    pub(super) stopped_fetches: BTreeSet<DrvId>,
    pub(super) no_more: bool,
    pub(super) no_more_builders: bool,
    pub(super) cancelled: u8,
    attempts: BTreeSet<AttemptId>,
    /// The outcome that the last input calls for.
    expected: Option<(DrvId, DrvOutcome)>,
    now: Moment,
}

fn success(outcome: Option<&DrvOutcome>) -> bool {
    matches!(outcome, Some(DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid))
}

fn takes(builder: &Builder, item: &Item) -> bool {
    let supported = |feature: &String| builder.features.contains(feature) || builder.mandatory.contains(feature);
    builder.slots > 0
        && (!item.local_only || builder.local)
        && (item.system.0 == "builtin" || builder.systems.contains(&item.system))
        && item.features.iter().all(supported)
        && builder.mandatory.iter().all(|feature| item.features.contains(feature))
}

/// What is known of a drv of which nothing is.
fn nothing(drv: DrvId) -> Item {
    Item {
        drv,
        work: Work::Build,
        inputs: Vec::new(),
        system: "none".into(),
        features: Vec::new(),
        local_only: false,
        here: true,
        fixed_output: false,
        prefer_local: false,
        cost: 0.0,
    }
}

impl Model {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            items: BTreeMap::new(),
            hosts: BTreeMap::new(),
            live: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            stopped_fetches: BTreeSet::new(),
            no_more: false,
            no_more_builders: false,
            cancelled: 0,
            attempts: BTreeSet::new(),
            expected: None,
            now: Moment(0),
        }
    }

    fn failures(&self) -> u32 {
        let failed = self.items.values().filter(|known| matches!(known.outcome, Some(DrvOutcome::Failed(_))));
        u32::try_from(failed.count()).unwrap()
    }

    pub(super) fn stopping(&self) -> bool {
        let failures = self.failures();
        let limit = if self.policy.fail_fast { Some(1) } else { self.policy.max_failures.map(|limit| limit.max(1)) };
        self.cancelled > 0 || limit.is_some_and(|limit| failures >= limit)
    }

    fn phase(&self, drv: DrvId) -> Phase {
        let known = &self.items[&drv];
        if known.outcome.is_some() {
            Phase::Ended
        } else if self.live.values().any(|attempt| attempt.drv == drv) {
            Phase::Running
        } else if self.in_flight.contains(&drv) {
            Phase::Fetching
        } else if known.replanning
            || known.delayed.is_some()
            || known.item.inputs.iter().any(|input| !known.satisfied.contains(input))
        {
            Phase::Waiting
        } else {
            Phase::Ready
        }
    }

    fn count_on(&self, builder: BuilderId, stages: &[Stage]) -> u32 {
        let there = self.live.values().filter(|attempt| attempt.builder == builder && stages.contains(&attempt.stage));
        u32::try_from(there.count()).unwrap()
    }

    /// Attempts that have a slot, or will as soon as they are prepared.
    fn busy(&self, builder: BuilderId) -> u32 {
        self.count_on(builder, &[Stage::Preparing, Stage::Prepared, Stage::Building])
    }

    fn has_room(&self, builder: BuilderId) -> bool {
        let (busy, waiting) = (self.busy(builder), self.count_on(builder, &[Stage::Waiting]));
        let host = &self.hosts[&builder];
        host.up && busy < host.builder.slots && busy + waiting < 4 * host.builder.slots
    }

    /// Attempts that are prepared and whose builder has a slot.
    fn going(&self) -> Vec<AttemptId> {
        let slot = |id| self.count_on(id, &[Stage::Building]) < self.hosts[&id].builder.slots;
        let prepared = self.live.iter().filter(|(_, made)| made.stage == Stage::Prepared && slot(made.builder));
        prepared.map(|(id, _)| *id).collect()
    }

    /// Builders that could take it now.
    fn candidates(&self, drv: DrvId) -> BTreeSet<BuilderId> {
        let known = &self.items[&drv];
        let takers = self.hosts.iter().filter(|(_, host)| host.up && takes(&host.builder, &known.item));
        let mut takers: BTreeSet<BuilderId> = takers.map(|(id, _)| *id).collect();
        if takers.iter().any(|id| !known.avoid.contains(id)) {
            takers.retain(|id| !known.avoid.contains(id));
        }
        takers.retain(|id| self.has_room(*id));
        takers
    }

    fn impossible(&self, drv: DrvId) -> bool {
        let item = &self.items[&drv].item;
        let possible = self.hosts.values().any(|host| host.hope && takes(&host.builder, item));
        self.no_more_builders && item.work == Work::Build && !possible
    }

    /// P11: by recursion over the open users that wait for it.
    fn rank(&self, drv: DrvId, memo: &mut BTreeMap<DrvId, u64>) -> u64 {
        if let Some(rank) = memo.get(&drv) {
            return *rank;
        }
        let uses = |known: &&Known| {
            known.outcome.is_none() && known.item.inputs.contains(&drv) && !known.satisfied.contains(&drv)
        };
        let users: Vec<DrvId> = self.items.values().filter(uses).map(|known| known.item.drv).collect();
        let longest = users.into_iter().map(|user| self.rank(user, memo)).max().unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole seconds")]
        let rank = longest + (self.items[&drv].item.cost * 1e6) as u64;
        memo.insert(drv, rank);
        rank
    }

    /// The items in a phase, the most urgent first.
    fn urgent(&self, work: Work) -> Vec<DrvId> {
        let mut memo = BTreeMap::new();
        let ready = self.items.keys().copied();
        let mut ready: Vec<DrvId> =
            ready.filter(|drv| self.items[drv].item.work == work && self.phase(*drv) == Phase::Ready).collect();
        ready.sort_by_key(|drv| (std::cmp::Reverse(self.rank(*drv, &mut memo)), *drv));
        ready
    }

    pub(super) fn replaceable(&self, drv: DrvId) -> bool {
        self.items.get(&drv).is_none_or(|known| {
            let open = matches!(known.outcome, None | Some(DrvOutcome::Fetched));
            known.item.work == Work::Fetch && open && !self.stopping()
        })
    }

    fn add(&mut self, items: &[Item]) {
        let mut added = Vec::new();
        for item in items.iter().filter(|item| self.replaceable(item.drv)).collect::<Vec<_>>() {
            let mut new = Known::new(item.clone());
            self.items.remove(&item.drv);
            new.superseded = self.in_flight.contains(&item.drv);
            self.items.insert(item.drv, new);
            added.push(item.drv);
        }
        for drv in added {
            let done = |input: &DrvId| self.items.get(input).is_some_and(|known| success(known.outcome.as_ref()));
            let done = self.items[&drv].item.inputs.iter().copied().filter(done).collect();
            if let Some(known) = self.items.get_mut(&drv) {
                known.satisfied = done;
            }
        }
    }

    /// Takes note of an input before its actions.
    pub(super) fn told(&mut self, now: Moment, input: &Input) {
        self.now = now;
        self.expected = None;
        for known in self.items.values_mut() {
            known.delayed = known.delayed.filter(|until| *until > now);
        }
        match input {
            Input::Add(items) => self.add(items),
            Input::AddFailed(failed) => {
                for (drv, failure) in failed {
                    if self.replaceable(*drv) {
                        let cost = self.items.get(drv).map_or(0.0, |known| known.item.cost);
                        let inputs = self.items.get(drv).map_or_else(Vec::new, |known| known.item.inputs.clone());
                        let item = Item { drv: *drv, inputs, cost, ..nothing(*drv) };
                        self.items.insert(*drv, Known::new(item));
                        self.expected = Some((*drv, DrvOutcome::Failed(failure.clone())));
                    }
                }
            }
            Input::NoMore => self.no_more = true,
            Input::BuilderKnown(builder) => {
                let host = Host { builder: builder.clone(), up: false, hope: true };
                self.hosts.entry(builder.id).or_insert(host);
            }
            Input::BuilderUp(builder) => {
                self.hosts.insert(builder.id, Host { builder: builder.clone(), up: true, hope: true });
            }
            Input::BuilderDown { builder, back, why: _ } => {
                if let Some(host) = self.hosts.get_mut(builder) {
                    (host.up, host.hope) = (false, *back);
                }
            }
            Input::NoMoreBuilders => self.no_more_builders = true,
            Input::Prepared { attempt } => {
                if let Some(attempt) = self.live.get_mut(attempt).filter(|made| made.stage == Stage::Preparing) {
                    attempt.stage = Stage::Prepared;
                }
            }
            Input::Waiting { attempt, waiting } => {
                let (from, to) =
                    if *waiting { (Stage::Building, Stage::Waiting) } else { (Stage::Waiting, Stage::Building) };
                if let Some(attempt) = self.live.get_mut(attempt).filter(|made| made.stage == from) {
                    attempt.stage = to;
                }
            }
            Input::Sized { .. } | Input::Transferred { .. } => {}
            Input::AttemptEnded { attempt, end, gone: _ } => {
                if let Some(attempt) = self.live.remove(attempt) {
                    self.attempt_ended(attempt, end);
                }
            }
            Input::FetchEnded { drv, failure } => self.fetch_ended(*drv, failure.as_ref()),
            Input::Tick => {}
            Input::Cancel(level) => {
                self.cancelled = self.cancelled.max(*level);
                if self.cancelled > 1 {
                    self.live.clear();
                    self.in_flight.clear();
                }
            }
        }
    }

    fn attempt_ended(&mut self, attempt: Attempt, end: &AttemptEnd) {
        let drv = attempt.drv;
        let outcome = match end {
            AttemptEnd::Built { .. } => Some(DrvOutcome::Built),
            AttemptEnd::AlreadyValid { .. } => Some(DrvOutcome::Valid),
            AttemptEnd::Failed(failure) => {
                let row = retry_of(failure.class);
                let stopping = self.stopping();
                let impossible = self.impossible(drv);
                let known = self.items.get_mut(&drv).unwrap();
                let once = row.limit == Limit::Once && known.retried.contains(&failure.class);
                if failure.class == Class::Cancelled || stopping && row.again != Again::Never {
                    Some(DrvOutcome::Cancelled)
                } else if row.again == Again::Never || once || known.attempts > self.policy.retries || impossible {
                    Some(DrvOutcome::Failed(failure.clone()))
                } else {
                    known.retried.push(failure.class);
                    match row.again {
                        Again::Elsewhere => {
                            known.avoid.insert(attempt.builder);
                        }
                        Again::After(0) | Again::Never => {}
                        Again::After(seconds) => {
                            let delay = u64::from(seconds) * 3_u64.pow(known.attempts - 1) * 1_000_000;
                            known.delayed = Some(Moment(self.now.0 + delay));
                        }
                    }
                    None
                }
            }
        };
        self.expected = outcome.map(|outcome| (drv, outcome));
    }

    fn fetch_ended(&mut self, drv: DrvId, failure: Option<&Failure>) {
        if !self.in_flight.remove(&drv) {
            return;
        }
        let stopping = self.stopping();
        let known = self.items.get_mut(&drv).unwrap();
        if known.outcome.is_some() || std::mem::take(&mut known.superseded) {
            return;
        }
        let outcome = match failure {
            None => Some(DrvOutcome::Fetched),
            Some(failure) if failure.class == Class::Cancelled || stopping => Some(DrvOutcome::Cancelled),
            Some(_) => {
                known.replanning = true;
                None
            }
        };
        self.expected = outcome.map(|outcome| (drv, outcome));
    }

    /// Checks one action and takes note of it.
    pub(super) fn acted(&mut self, action: &Action) {
        match action {
            Action::Start { attempt, drv, builder } => {
                assert!(!self.stopping(), "P7: {action:?} while stopping");
                assert!(self.attempts.insert(*attempt), "an attempt number comes twice");
                assert_eq!(self.phase(*drv), Phase::Ready, "P1, P2: {action:?}");
                assert!(self.candidates(*drv).contains(builder), "P3: {action:?} of {:?}", self.items[drv]);
                let first = self.urgent(Work::Build).into_iter().find(|drv| !self.candidates(*drv).is_empty());
                assert_eq!(first, Some(*drv), "the most urgent goes first");
                self.check_choice(*drv, *builder);
                let known = self.items.get_mut(drv).unwrap();
                known.attempts += 1;
                assert!(known.attempts <= 1 + self.policy.retries, "P10: {action:?}");
                let attempt_made = Attempt { drv: *drv, builder: *builder, stage: Stage::Preparing, stopped: false };
                self.live.insert(*attempt, attempt_made);
            }
            Action::Go { attempt } => {
                assert!(!self.stopping(), "P7: {action:?} while stopping");
                assert!(self.going().contains(attempt), "P3: {action:?} without a slot");
                self.live.get_mut(attempt).unwrap().stage = Stage::Building;
            }
            Action::Stop { attempt } => {
                assert!(self.stopping());
                if self.cancelled < 2 {
                    let live = self.live.get_mut(attempt).expect("only what lives can be stopped");
                    assert!(!std::mem::replace(&mut live.stopped, true), "stopped twice");
                }
            }
            Action::Fetch { drv } => {
                assert!(!self.stopping(), "P7: {action:?} while stopping");
                assert_eq!(self.urgent(Work::Fetch).first(), Some(drv), "P1, P2: the most urgent fetch goes first");
                assert!(self.in_flight.len() < self.policy.fetch_slots.max(1) as usize, "P3: fetch slots");
                self.in_flight.insert(*drv);
                self.stopped_fetches.remove(drv);
            }
            Action::StopFetch { drv } => {
                assert!(self.in_flight.contains(drv) || self.cancelled > 1);
                assert!(self.stopped_fetches.insert(*drv), "stopped twice");
            }
            Action::Replan { drv } => assert!(self.items[drv].replanning && self.expected.is_none()),
            Action::Ended { drv, outcome } => self.ended(*drv, outcome),
        }
    }

    /// The builder that is best by the rule.
    fn check_choice(&self, drv: DrvId, builder: BuilderId) {
        let mut candidates = self.candidates(drv);
        let is_local = |id: &BuilderId| self.hosts[id].builder.local;
        if self.items[&drv].item.prefer_local && candidates.iter().any(is_local) {
            candidates.retain(is_local);
        }
        let load = |id: &BuilderId| {
            let builder = &self.hosts[id].builder;
            f64::from(self.busy(*id) + 1) / (f64::from(builder.slots) * builder.speed)
        };
        let least = candidates.iter().map(load).fold(f64::INFINITY, f64::min);
        assert!(candidates.contains(&builder) && load(&builder) <= least, "{builder:?} among {candidates:?}");
    }

    fn ended(&mut self, drv: DrvId, outcome: &DrvOutcome) {
        let expected = self.expected.take_if(|(expected, _)| *expected == drv);
        if let Some((_, expected)) = &expected {
            assert_eq!(outcome, expected);
        } else {
            match outcome {
                DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid => panic!("{drv:?} {outcome:?} by itself"),
                DrvOutcome::Failed(Failure { class: Class::NoBuilder, .. }) => {
                    assert!(self.impossible(drv), "{drv:?} could be built");
                }
                DrvOutcome::Failed(failure) => {
                    assert_eq!(failure.class, Class::Internal);
                    assert!(self.no_more && !self.items.contains_key(&drv), "{drv:?} {outcome:?}");
                    self.items.insert(drv, Known::new(nothing(drv)));
                }
                DrvOutcome::DependencyFailed { root } => {
                    let failed = matches!(self.items[root].outcome, Some(DrvOutcome::Failed(_)));
                    assert!(failed && self.needs(drv, *root), "P8: {drv:?} fails for {root:?}");
                }
                DrvOutcome::Cancelled => {
                    let cancelled = |input: &DrvId| {
                        self.items.get(input).is_some_and(|input| input.outcome == Some(DrvOutcome::Cancelled))
                    };
                    assert!(self.stopping() || self.items[&drv].item.inputs.iter().any(cancelled));
                }
            }
        }
        let known = self.items.get_mut(&drv).unwrap();
        assert_eq!(known.outcome, None, "P6: {drv:?} ends twice");
        known.outcome = Some(outcome.clone());
        known.replanning = false;
        known.delayed = None;
        if success(Some(outcome)) {
            for user in self.items.values_mut().filter(|known| known.item.inputs.contains(&drv)) {
                user.satisfied.insert(drv);
            }
        }
    }

    /// Whether `drv` needs `root`, over any number of edges.
    fn needs(&self, drv: DrvId, root: DrvId) -> bool {
        let inputs = &self.items[&drv].item.inputs;
        inputs.iter().any(|input| *input == root || self.items.contains_key(input) && self.needs(*input, root))
    }

    /// What must hold between two inputs.
    pub(super) fn check(&self, scheduler: &Scheduler) {
        assert_eq!(self.expected, None, "an outcome is missing");
        let stopping = self.stopping();
        let mut counts = Counts::default();
        let mut memo = BTreeMap::new();
        for (drv, known) in &self.items {
            let phase = self.phase(*drv);
            match (phase, &known.outcome) {
                (Phase::Waiting, _) => counts.waiting += 1,
                (Phase::Ready, _) => counts.ready += 1,
                (Phase::Running, _) => counts.running += 1,
                (Phase::Fetching, _) => counts.fetching += 1,
                (Phase::Ended, Some(DrvOutcome::Built)) => counts.built += 1,
                (Phase::Ended, Some(DrvOutcome::Fetched)) => counts.fetched += 1,
                (Phase::Ended, Some(DrvOutcome::Valid)) => counts.valid += 1,
                (Phase::Ended, Some(DrvOutcome::Failed(_))) => counts.failed += 1,
                (Phase::Ended, Some(DrvOutcome::DependencyFailed { .. })) => counts.dependency_failed += 1,
                (Phase::Ended, Some(DrvOutcome::Cancelled) | None) => counts.cancelled += 1,
            }
            if phase == Phase::Ended {
                continue;
            }
            let rank = Moment(self.rank(*drv, &mut memo)).seconds();
            assert_eq!(scheduler.remaining(*drv), Some(rank), "P11: rank of {drv:?}");
            let moving = matches!(phase, Phase::Running | Phase::Fetching);
            assert!(!stopping || moving, "P7: {drv:?} is {phase:?} while stopping");
            assert!(moving || !self.impossible(*drv), "{drv:?} waits for a builder that does not exist");
            let lost = |input: &DrvId| {
                let outcome = self.items.get(input).and_then(|input| input.outcome.as_ref());
                outcome.is_some_and(|outcome| !success(Some(outcome)))
            };
            let open = known.item.inputs.iter().filter(|input| !known.satisfied.contains(input));
            assert!(!{ open }.any(lost), "P8: {drv:?} was not reached by a failure");
        }
        assert_eq!(scheduler.counts(), counts, "P6: totals");
        assert!(stopping || !self.live.values().any(|attempt| attempt.stopped));
        assert!(!stopping || self.live.values().all(|attempt| attempt.stopped), "stops what runs");
        if !stopping {
            assert_eq!(self.going(), Vec::new(), "P4: could build");
            for drv in self.urgent(Work::Build) {
                assert_eq!(self.candidates(drv), BTreeSet::new(), "P4: {drv:?} could start");
            }
            let fetches = self.in_flight.len() < self.policy.fetch_slots.max(1) as usize;
            assert!(!fetches || self.urgent(Work::Fetch).is_empty(), "P4: a fetch could start");
        }
        let deadline = self.items.values().filter_map(|known| known.delayed).min();
        assert_eq!(scheduler.next_deadline(), deadline);
        let open = counts.waiting + counts.ready + counts.running + counts.fetching;
        let over = open == 0 && self.in_flight.is_empty() && (self.no_more || stopping);
        assert_eq!(scheduler.is_done(), over);
    }
}
