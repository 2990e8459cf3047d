//! A slow scheduler's bookkeeping: told the inputs and actions, it says whether the actions were right. Everything is
//! recomputed from scratch from a few facts for each item, so that it shares no trick with the real one.
//!
//! The numbers P1 … P12 are those of the properties in the list that the scheduler was designed by: 1 inputs first,
//! 2 one live attempt, 3 limits, 4 work-conserving, 5 ends, 6 one outcome, 7 nothing starts after a stop, 8 failures
//! reach the dependents and nobody else, 9 order does not matter, 10 attempts, 11 ranks, 12 determinism.

use std::collections::{BTreeMap, BTreeSet};

use super::super::builders::Kind;
use super::super::{Action, Again, Builder, Counts, Input, Item, Limit, Policy, Scheduler, Work, retry_of};
use crate::event::{AttemptEnd, Class, DrvOutcome, Failure, Moment};
use crate::id::{AttemptId, BuilderId, DrvId};

/// What is known of one item.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) item: Item,
    /// Tries that count.
    pub(super) attempts: u32,
    avoid: BTreeSet<BuilderId>,
    retried: Vec<Class>,
    calm: bool,
    remade: u32,
    /// It is made again because its outputs are nowhere.
    lost: bool,
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
            calm: false,
            remade: 0,
            lost: false,
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

impl Stage {
    pub(super) fn builds(self) -> bool {
        matches!(self, Self::Building | Self::Waiting)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) drv: DrvId,
    pub(super) builder: BuilderId,
    pub(super) stage: Stage,
    pub(super) stopped: bool,
    /// It only prepared when its builder went down.
    pub(super) recalled: bool,
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
    /// What is on which builder, or on its way there.
    holdings: BTreeSet<(BuilderId, DrvId)>,
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
        there: Vec::new(),
        system: "none".into(),
        features: Vec::new(),
        local_only: false,
        here: true,
        fixed_output: false,
        prefer_local: false,
        cost: 0.0,
        ahead: 0.0,
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
            holdings: BTreeSet::new(),
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

    fn kind(&self, drv: DrvId) -> Kind {
        let item = &self.items[&drv].item;
        match (item.fixed_output, item.prefer_local && item.cost <= 5.0) {
            (true, _) => Kind::Fixed,
            (false, true) => Kind::Small,
            (false, false) => Kind::Slot,
        }
    }

    /// How many build at once, and how many may be prepared besides.
    fn places(&self, builder: BuilderId, kind: Kind) -> (u32, u32) {
        let slots = self.hosts[&builder].builder.slots;
        match kind {
            Kind::Slot => (slots, slots.max(2)),
            Kind::Fixed => (8, 0),
            Kind::Small => (4, 0),
        }
    }

    fn count_on(&self, builder: BuilderId, kind: Kind, stages: &[Stage]) -> u32 {
        let there = self.live.values().filter(|made| made.builder == builder && stages.contains(&made.stage));
        u32::try_from(there.filter(|made| self.kind(made.drv) == kind).count()).unwrap()
    }

    /// Attempts that have a place, or will take one as soon as they are prepared.
    fn busy(&self, builder: BuilderId, kind: Kind) -> u32 {
        self.count_on(builder, kind, &[Stage::Preparing, Stage::Prepared, Stage::Building])
    }

    /// There is a place for one more.
    fn has_place(&self, builder: BuilderId, kind: Kind) -> bool {
        let (busy, waiting) = (self.busy(builder, kind), self.count_on(builder, kind, &[Stage::Waiting]));
        let (places, _) = self.places(builder, kind);
        self.hosts[&builder].up && busy < places && busy + waiting < 4 * places
    }

    /// Attempts that are prepared and whose builder has a place.
    fn going(&self) -> Vec<AttemptId> {
        let place = |id, kind| self.count_on(id, kind, &[Stage::Building]) < self.places(id, kind).0;
        let goes = |made: &Attempt| {
            let waits = made.stage == Stage::Prepared && !made.stopped;
            waits && self.hosts[&made.builder].up && place(made.builder, self.kind(made.drv))
        };
        self.live.iter().filter(|(_, made)| goes(made)).map(|(id, _)| *id).collect()
    }

    /// Whoever builds with it fetches it.
    fn passes(&self, drv: DrvId) -> bool {
        let item = &self.items[&drv].item;
        item.work == Work::Fetch && !item.here && self.policy.fetch_where_needed
    }

    /// Builders that could take it now.
    fn candidates(&self, drv: DrvId) -> BTreeSet<BuilderId> {
        let known = &self.items[&drv];
        let takers = self.hosts.iter().filter(|(_, host)| host.up && takes(&host.builder, &known.item));
        let mut takers: BTreeSet<BuilderId> = takers.map(|(id, _)| *id).collect();
        if takers.iter().any(|id| !known.avoid.contains(id)) {
            takers.retain(|id| !known.avoid.contains(id));
        }
        takers
    }

    /// Something is waiting for builders to become calmer.
    fn any_calm(&self) -> bool {
        self.items.values().any(|known| known.calm && known.outcome.is_none())
    }

    /// P3: bounds, and late binding.
    fn check_start(&self, drv: DrvId, builder: BuilderId) {
        let kind = self.kind(drv);
        assert!(self.candidates(drv).contains(&builder), "P3: {builder:?} for {:?}", self.items[&drv]);
        let (places, ahead) = self.places(builder, kind);
        let (busy, waiting) = (self.busy(builder, kind), self.count_on(builder, kind, &[Stage::Waiting]));
        assert!(busy < places + ahead && busy + waiting < 4 * places, "P3: too many begin");
        let there = self.items[&drv].item.inputs.iter().all(|input| self.holdings.contains(&(builder, *input)));
        let free = self.count_on(builder, kind, &[Stage::Building]) < places;
        assert!(free || !there, "P3: {drv:?} begins with nothing to bring and no place");
        if self.hosts.values().filter(|host| host.up).count() == 1 && busy < places && !self.any_calm() {
            let same = |other: &DrvId| self.kind(*other) == kind && self.candidates(*other).contains(&builder);
            let first = self.urgent(Work::Build).into_iter().find(same);
            assert_eq!(first, Some(drv), "the most urgent goes first");
        }
    }

    /// P4: what could begin and does not waits for something better, and not for ever.
    fn check_waits(&self, drv: DrvId, deadline: bool) {
        let kind = self.kind(drv);
        let candidates = self.candidates(drv);
        let busy = candidates.iter().any(|id| self.busy(*id, kind) > 0);
        for id in candidates.iter().filter(|id| self.has_place(**id, kind)) {
            let better = deadline && busy && candidates.len() > 1;
            assert!(better || self.any_calm() && self.busy(*id, kind) > 0, "P4: {drv:?} could begin on {id:?}");
        }
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
        let rank = longest + ((self.items[&drv].item.cost + self.items[&drv].item.ahead) * 1e6) as u64;
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
            if let Some(old) = self.items.remove(&item.drv) {
                (new.lost, new.remade) = (old.lost, old.remade);
                (new.attempts, new.avoid, new.retried) = (old.attempts, old.avoid, old.retried);
            }
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
                        let mut new = Known::new(item);
                        new.lost = self.items.get(drv).is_some_and(|known| known.lost);
                        self.items.insert(*drv, new);
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
                    (host.up, host.hope) = (false, host.hope && *back);
                }
                for made in self.live.values_mut().filter(|made| made.builder == *builder && !made.stopped) {
                    made.recalled |= matches!(made.stage, Stage::Preparing | Stage::Prepared);
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
            // Random runs do not lose results.
            Input::Lost { .. } | Input::Sized { .. } | Input::Refused { .. } | Input::Transferred { .. } => {}
            Input::AttemptEnded { attempt, end, gone } => {
                if let Some(attempt) = self.live.remove(attempt) {
                    self.attempt_ended(attempt, end, gone);
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

    /// Takes what can come again of what is gone out of the books, and says whether there is any.
    fn remake(&mut self, drv: DrvId, gone: &[DrvId]) -> bool {
        let again = |input: &DrvId| {
            let known = self.items.get(input);
            self.needs(drv, *input) && known.is_some_and(|known| !success(known.outcome.as_ref()) || known.remade < 8)
        };
        let gone: BTreeSet<DrvId> = gone.iter().copied().filter(again).collect();
        if gone.is_empty() {
            return false;
        }
        let lost = gone.iter().copied().filter(|input| success(self.items[input].outcome.as_ref()));
        let lost: BTreeSet<DrvId> = lost.collect();
        for input in &lost {
            let away = |id: &BuilderId| !self.hosts[id].up && self.holdings.contains(&(*id, *input));
            let away: Vec<BuilderId> = self.hosts.keys().copied().filter(away).collect();
            self.holdings.retain(|(_, held)| held != input);
            let known = self.items.get_mut(input).unwrap();
            known.outcome = None;
            known.lost = true;
            known.remade += 1;
            known.attempts = 0;
            known.retried.clear();
            known.calm = false;
            known.avoid.extend(away);
            known.replanning = known.item.work == Work::Fetch;
        }
        self.items.get_mut(&drv).unwrap().item.inputs.extend(&gone);
        let done: BTreeSet<DrvId> =
            self.items.iter().filter(|(_, known)| success(known.outcome.as_ref())).map(|(drv, _)| *drv).collect();
        let running: BTreeSet<DrvId> = self.live.values().map(|made| made.drv).chain(self.in_flight.clone()).collect();
        for (id, known) in &mut self.items {
            if lost.contains(id) || *id == drv {
                known.satisfied = known.item.inputs.iter().copied().filter(|input| done.contains(input)).collect();
            } else if known.outcome.is_none() && !running.contains(id) && !known.replanning {
                known.satisfied.retain(|input| !lost.contains(input));
            }
        }
        true
    }

    /// What it needs and what was lost since is waited for again.
    fn wait_for_lost(&mut self, drv: DrvId) {
        let lost: BTreeSet<DrvId> = self.items.iter().filter(|(_, known)| known.lost).map(|(drv, _)| *drv).collect();
        self.items.get_mut(&drv).unwrap().satisfied.retain(|input| !lost.contains(input));
    }

    fn attempt_ended(&mut self, attempt: Attempt, end: &AttemptEnd, gone: &[DrvId]) {
        let drv = attempt.drv;
        if matches!(end, AttemptEnd::Failed(_)) && !self.stopping() {
            if attempt.recalled || self.remake(drv, gone) {
                self.items.get_mut(&drv).unwrap().attempts -= 1;
                self.wait_for_lost(drv);
                return;
            }
        } else {
            self.holdings.insert((attempt.builder, drv));
        }
        let outcome = match end {
            AttemptEnd::Built { .. } => Some(DrvOutcome::Built),
            AttemptEnd::AlreadyValid { .. } => Some(DrvOutcome::Valid),
            AttemptEnd::Failed(failure) => {
                let row = retry_of(failure.class);
                let stopping = self.stopping();
                let impossible = self.impossible(drv);
                let policy = self.policy;
                let known = self.items.get_mut(&drv).unwrap();
                let before = &known.retried;
                let count = |is: &dyn Fn(Class) -> bool| {
                    u32::try_from(before.iter().filter(|class| is(**class)).count()).unwrap()
                };
                let of_drv = |class| retry_of(class).limit == Limit::Asked;
                let others = count(&|class| class != Class::BuilderLost) < policy.retries.max(policy.retry_failures);
                let allowed = match row.limit {
                    _ if row.again == Again::Never => false,
                    Limit::Lost => count(&|class| class == Class::BuilderLost) < 4 * policy.retries,
                    Limit::Asked => others && count(&of_drv) < policy.retry_failures,
                    Limit::Once => others && policy.retries > 0 && count(&|class| class == failure.class) == 0,
                    Limit::Policy => others && policy.retries > 0,
                };
                if failure.class == Class::Cancelled || stopping && row.again != Again::Never && !of_drv(failure.class)
                {
                    Some(DrvOutcome::Cancelled)
                } else if !allowed || impossible {
                    Some(DrvOutcome::Failed(failure.clone()))
                } else {
                    known.retried.push(failure.class);
                    match row.again {
                        Again::Elsewhere | Again::Calmer => {
                            known.avoid.insert(attempt.builder);
                            known.calm |= row.again == Again::Calmer;
                        }
                        Again::After(0) | Again::Never => {}
                        Again::After(seconds) => {
                            let same = known.retried.iter().filter(|class| **class == failure.class).count();
                            let delay = u64::from(seconds) * 3_u64.pow(u32::try_from(same).unwrap() - 1) * 1_000_000;
                            known.delayed = Some(Moment(self.now.0 + delay));
                        }
                    }
                    self.wait_for_lost(drv);
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
        if known.outcome.is_some() {
            return;
        }
        if std::mem::take(&mut known.superseded) {
            self.wait_for_lost(drv);
            return;
        }
        if failure.is_none() {
            let local = self.hosts.values().find(|host| host.builder.local).map(|host| host.builder.id);
            self.holdings.extend(local.map(|local| (local, drv)));
        }
        let known = self.items.get_mut(&drv).unwrap();
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
                self.check_start(*drv, *builder);
                let known = self.items.get_mut(drv).unwrap();
                known.attempts += 1;
                let most = 1 + self.policy.retries.max(self.policy.retry_failures) + 4 * self.policy.retries;
                assert!(known.attempts <= most, "P10: {action:?}");
                self.holdings.extend(known.item.inputs.iter().map(|input| (*builder, *input)));
                let (drv, builder, stage) = (*drv, *builder, Stage::Preparing);
                self.live.insert(*attempt, Attempt { drv, builder, stage, stopped: false, recalled: false });
            }
            Action::Go { attempt } => {
                assert!(!self.stopping(), "P7: {action:?} while stopping");
                assert!(self.going().contains(attempt), "P3: {action:?} without a slot");
                self.live.get_mut(attempt).unwrap().stage = Stage::Building;
            }
            Action::Stop { attempt } => {
                assert!(self.stopping() || self.live[attempt].recalled);
                if self.cancelled < 2 {
                    let live = self.live.get_mut(attempt).expect("only what lives can be stopped");
                    assert!(!std::mem::replace(&mut live.stopped, true), "stopped twice");
                }
            }
            Action::Fetch { drv } => {
                assert!(!self.stopping(), "P7: {action:?} while stopping");
                let first = self.urgent(Work::Fetch).into_iter().find(|drv| !self.passes(*drv));
                assert_eq!(first, Some(*drv), "P1, P2: the most urgent fetch goes first");
                assert!(self.in_flight.len() < self.policy.fetch_slots.max(1) as usize, "P3: fetch slots");
                self.in_flight.insert(*drv);
                self.stopped_fetches.remove(drv);
            }
            Action::StopFetch { drv } => {
                assert!(self.in_flight.contains(drv) || self.cancelled > 1);
                assert!(self.stopped_fetches.insert(*drv), "stopped twice");
            }
            Action::Replan { drv } => assert!(self.items[drv].replanning),
            Action::Ended { drv, outcome } => self.ended(*drv, outcome),
        }
    }

    fn ended(&mut self, drv: DrvId, outcome: &DrvOutcome) {
        let expected = self.expected.take_if(|(expected, _)| *expected == drv);
        if let Some((_, expected)) = &expected {
            assert_eq!(outcome, expected);
        } else {
            match outcome {
                DrvOutcome::Fetched if self.passes(drv) => assert_eq!(self.phase(drv), Phase::Ready, "P1"),
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
        known.lost &= !success(Some(outcome));
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
        assert!(self.live.values().all(|made| made.stopped == (stopping || made.recalled)), "stops what it should");
        if !stopping {
            assert_eq!(self.going(), Vec::new(), "P4: could build");
            for drv in self.urgent(Work::Build) {
                self.check_waits(drv, scheduler.next_deadline().is_some());
            }
            let fetches = self.in_flight.len() < self.policy.fetch_slots.max(1) as usize;
            let ready = self.urgent(Work::Fetch);
            assert!(!ready.iter().any(|drv| self.passes(*drv) || fetches), "P4: a fetch could start");
        }
        let deadline = self.items.values().filter_map(|known| known.delayed).min();
        assert!(scheduler.next_deadline() <= deadline || deadline.is_none(), "wakes up too late");
        assert!(deadline.is_none() || scheduler.next_deadline().is_some(), "never wakes up");
        let open = counts.waiting + counts.ready + counts.running + counts.fetching;
        let over = open == 0 && self.in_flight.is_empty() && (self.no_more || stopping);
        assert_eq!(scheduler.is_done(), over);
    }
}
