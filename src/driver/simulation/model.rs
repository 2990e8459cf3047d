//! What must be true, held against each fact as it is told and against all of them in the end. It knows the world and
//! what is really where, and shares no code with what it checks: it counts, and looks things up one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::stores::Stores;
use super::world::{Fate, Made, Trouble, World};
use crate::event::{AttemptEnd, Class, DrvOutcome, Event, Fact, Moment, Pushed, Stage, Status, Text};
use crate::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId};
use crate::record::Reader;
use crate::report::account::account;
use crate::report::summary::Summary;

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Begun,
    Building,
    Waiting,
}

/// What a drv was told of.
#[derive(Debug, Default)]
struct Told {
    fetch: bool,
    outcome: Option<DrvOutcome>,
    /// It may be made once more.
    lost: bool,
    /// How its attempts ended.
    ends: Vec<Option<Class>>,
    /// How many of these were lost with their builder before they built; such do not count.
    not_begun: u32,
}

/// See the module's page.
pub(super) struct Model<'w> {
    world: &'w World,
    pub(super) wrong: Vec<String>,
    now: Moment,
    up: BTreeSet<BuilderId>,
    all_known: bool,
    begun: BTreeSet<AttemptId>,
    live: BTreeMap<AttemptId, (DrvId, BuilderId, Phase)>,
    drvs: BTreeMap<DrvId, Told>,
    planned: BTreeSet<AttrId>,
    attrs: BTreeMap<AttrId, (Status, Option<DrvId>)>,
    fetching: BTreeSet<DrvId>,
    returning: BTreeSet<DrvId>,
    pushing: BTreeSet<(CacheId, Text)>,
    pushed: BTreeMap<(CacheId, Text), Pushed>,
    stages: BTreeMap<Stage, u32>,
    failures: u32,
    stopped: bool,
    interrupted: bool,
    over: bool,
    /// What was in the local store when all began.
    had: Option<BTreeSet<DrvId>>,
}

fn made(world: &World, drv: DrvId) -> &Made {
    &world.made[drv.index()]
}

/// How many of its kind build on a builder at once.
fn places(world: &World, drv: DrvId, builder: BuilderId) -> (u8, usize) {
    let made = made(world, drv);
    if made.fixed {
        (1, 8)
    } else if made.prefer_local && made.expected <= 5.0 {
        (2, 4)
    } else {
        (0, world.builders[builder.index()].slots as usize)
    }
}

fn takes(world: &World, drv: DrvId, builder: BuilderId) -> bool {
    let (made, builder) = (made(world, drv), &world.builders[builder.index()]);
    builder.slots > 0
        && builder.systems.iter().any(|system| system.0 == made.system)
        && made.feature.is_none_or(|feature| builder.features.contains(feature) || builder.mandatory.contains(feature))
        && builder.mandatory.iter().all(|feature| made.feature == Some(feature))
}

/// The contract's table, by class.
fn code(class: Class) -> u8 {
    match class {
        Class::Eval | Class::Oom => 3,
        Class::DiskFull | Class::NoBuilder | Class::BuilderLost | Class::Network | Class::Cache | Class::Signature => 4,
        Class::Internal => 70,
        Class::Cancelled => 130,
        _ => 1,
    }
}

impl<'w> Model<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        Self {
            world,
            wrong: Vec::new(),
            now: Moment(0),
            up: BTreeSet::new(),
            all_known: false,
            begun: BTreeSet::new(),
            live: BTreeMap::new(),
            drvs: BTreeMap::new(),
            planned: BTreeSet::new(),
            attrs: BTreeMap::new(),
            fetching: BTreeSet::new(),
            returning: BTreeSet::new(),
            pushing: BTreeSet::new(),
            pushed: BTreeMap::new(),
            stages: BTreeMap::new(),
            failures: 0,
            stopped: false,
            interrupted: false,
            over: false,
            had: None,
        }
    }

    pub(super) fn wrong(&mut self, what: &str) {
        self.wrong.push(format!("{:.3} s: {what}", self.now.seconds()));
    }

    fn hold(&mut self, is: bool, what: impl FnOnce() -> String) {
        if !is {
            self.wrong(&what());
        }
    }

    /// What only a builder had that does not answer, or a cache that does not bring it, may be made once more.
    pub(super) fn lost(&mut self, drv: DrvId) {
        self.drvs.entry(drv).or_default().lost = true;
    }

    pub(super) fn all_builders_known(&mut self) {
        self.all_known = true;
    }

    /// Seconds that no run takes.
    pub(super) fn patience(&self) -> f64 {
        let work: f64 = self.world.made.iter().map(|made| made.seconds / 0.5 + 10.0 + made.bytes as f64 / 1e6).sum();
        let tries = f64::from(self.world.policy.retries + self.world.troubles.len() as u32 + 1);
        600.0 + 3.0 * work * tries
    }

    /// A fact was told.
    pub(super) fn told(&mut self, now: Moment, fact: &Fact, stores: &Stores) {
        let earlier = std::mem::replace(&mut self.now, now);
        self.hold(earlier <= now && !self.over, || format!("{fact:?} is out of order"));
        let had = self.had.take().unwrap_or_else(|| {
            let here = |at: &usize| {
                self.world.paths(*at).iter().all(|path| stores.valid.contains(&(BuilderId(0), path.clone())))
            };
            (0..self.world.made.len()).filter(here).map(|at| DrvId(u32::try_from(at).unwrap())).collect()
        });
        self.had = Some(had);
        match fact {
            Fact::BuilderReady { builder, .. } => {
                self.up.insert(*builder);
            }
            Fact::BuilderSuspended { builder, .. } => {
                self.up.remove(builder);
            }
            Fact::StageStarted { stage } => *self.stages.entry(*stage).or_default() += 1,
            Fact::StageEnded { stage } => *self.stages.entry(*stage).or_default() += 100,
            Fact::DrvNeeded { drv, fetch, .. } => self.needed(*drv, *fetch),
            Fact::AttemptStarted { attempt, drv, builder } => self.started(*attempt, *drv, *builder),
            Fact::AttemptBuilding { attempt } => self.builds(*attempt, stores),
            Fact::AttemptWaiting { attempt, .. } => match self.live.get_mut(attempt) {
                Some((.., phase)) if *phase == Phase::Building => *phase = Phase::Waiting,
                _ => self.wrong(&format!("{attempt:?} waits and does not build")),
            },
            Fact::AttemptEnded { attempt, end, .. } => self.attempt_ended(*attempt, end, stores),
            Fact::FetchStarted { drv } => {
                let fresh = self.fetching.insert(*drv) && !self.is_stopping();
                self.hold(fresh, || format!("{drv:?} is fetched twice, or after a stop"));
            }
            Fact::FetchEnded { drv, .. } => {
                let known = self.fetching.remove(drv);
                self.hold(known, || format!("a fetch of {drv:?} ends that never began"));
            }
            Fact::DrvEnded { drv, outcome } => self.drv_ended(*drv, outcome, stores),
            Fact::AttrPlanned { attr, .. } => {
                let fresh = self.planned.insert(*attr);
                self.hold(fresh, || format!("{attr:?} is planned twice"));
            }
            Fact::AttrEnded { attr, status, root, .. } => self.attr_ended(*attr, *status, *root, stores),
            Fact::ResultsReturning { drv, .. } => {
                self.returning.insert(*drv);
            }
            Fact::ResultsReturned { drv, .. } => {
                let known = self.returning.remove(drv);
                self.hold(known, || format!("{drv:?} has come home and was never on its way"));
            }
            Fact::PushStarted { cache, path } => {
                let fresh = self.pushing.insert((*cache, path.clone()));
                self.hold(fresh, || format!("{path} is pushed to {cache:?} twice"));
            }
            Fact::PushEnded { cache, path, pushed } => self.push_ended(*cache, path, pushed, stores),
            Fact::Cancelled { .. } => (self.stopped, self.interrupted) = (true, true),
            Fact::RunEnded { .. } => self.over = true,
            _ => {}
        }
    }

    /// Nothing new starts any more.
    fn is_stopping(&self) -> bool {
        let policy = &self.world.policy;
        let limit = if policy.fail_fast { Some(1) } else { policy.max_failures.map(|limit| limit.max(1)) };
        self.stopped || limit.is_some_and(|limit| self.failures >= limit)
    }

    fn needed(&mut self, drv: DrvId, fetch: bool) {
        // Once nothing starts any more, more is no longer wanted of anything.
        if self.is_stopping() && self.drvs.contains_key(&drv) {
            return;
        }
        let told = self.drvs.entry(drv).or_default();
        let was_build = told.outcome.is_some() && !told.fetch && !told.lost;
        (told.fetch, told.outcome) = (fetch, None);
        self.hold(!was_build, || format!("{drv:?} is needed again though it was built"));
    }

    fn started(&mut self, attempt: AttemptId, drv: DrvId, builder: BuilderId) {
        let fresh = self.begun.insert(attempt);
        self.hold(fresh, || format!("{attempt:?} begins twice"));
        let twice = self.live.values().any(|(other, ..)| *other == drv);
        self.hold(!twice, || format!("{drv:?} is tried twice at the same time"));
        let stopping = self.is_stopping();
        self.hold(!stopping, || format!("{drv:?} begins after a stop"));
        let fits = takes(self.world, drv, builder);
        self.hold(fits, || format!("{drv:?} begins on {builder:?}, which does not take it"));
        let up = self.up.contains(&builder);
        self.hold(up, || format!("{drv:?} begins on {builder:?}, which is away"));
        let told = self.drvs.entry(drv).or_default();
        let (known, done) = (!told.fetch, told.outcome.is_some() && !told.lost);
        self.hold(known && !done, || format!("{drv:?} begins and is not to be built"));
        let had = self.had.as_ref().is_some_and(|had| had.contains(&drv));
        self.hold(!had, || format!("{drv:?} is built though the local store has it"));
        self.live.insert(attempt, (drv, builder, Phase::Begun));
    }

    fn builds(&mut self, attempt: AttemptId, stores: &Stores) {
        let Some((drv, builder, phase)) = self.live.get(&attempt).copied() else {
            return self.wrong(&format!("{attempt:?} builds and never began"));
        };
        if phase == Phase::Begun {
            let stopping = self.is_stopping();
            self.hold(!stopping, || format!("{drv:?} builds after a stop"));
            let (kind, most) = places(self.world, drv, builder);
            let same = self.live.values().filter(|(other, at, phase)| {
                *at == builder && *phase == Phase::Building && places(self.world, *other, builder).0 == kind
            });
            let count = same.count();
            self.hold(count < most, || format!("{drv:?} is number {} on {most} places of {builder:?}", count + 1));
            for (input, output) in &made(self.world, drv).inputs {
                let path = self.world.path(*input, *output);
                let there = stores.valid.contains(&(builder, path.clone()));
                self.hold(there, || format!("{drv:?} builds on {builder:?} without {path}"));
            }
        } else {
            self.hold(phase == Phase::Waiting, || format!("{attempt:?} builds twice"));
        }
        self.live.insert(attempt, (drv, builder, Phase::Building));
    }

    fn attempt_ended(&mut self, attempt: AttemptId, end: &AttemptEnd, stores: &Stores) {
        let Some((drv, builder, phase)) = self.live.remove(&attempt) else {
            return self.wrong(&format!("{attempt:?} ends twice"));
        };
        let class = match end {
            AttemptEnd::Built { .. } | AttemptEnd::AlreadyValid { .. } => None,
            AttemptEnd::Failed(failure) => Some(failure.class),
        };
        if class.is_none() {
            let there = self.world.paths(drv.index()).iter().all(|path| stores.has(builder, path));
            self.hold(there && phase == Phase::Building, || format!("{drv:?} is said to be built and is not there"));
        }
        let told = self.drvs.entry(drv).or_default();
        told.ends.push(class);
        told.not_begun += u32::from(phase == Phase::Begun && class == Some(Class::BuilderLost));
    }

    fn drv_ended(&mut self, drv: DrvId, outcome: &DrvOutcome, stores: &Stores) {
        let running = self.live.values().any(|(other, ..)| *other == drv);
        self.hold(!running || self.interrupted, || format!("{drv:?} ends while it is tried"));
        let told = self.drvs.entry(drv).or_default();
        let again = told.outcome.is_some() && !std::mem::take(&mut told.lost);
        told.outcome = Some(outcome.clone());
        let (fetch, last) = (told.fetch, told.ends.last().copied());
        // What is fetched where it is needed may be asked for twice before it is said twice that it is.
        let fetched = fetch && *outcome == DrvOutcome::Fetched;
        self.hold(!again || fetched, || format!("{drv:?} ends twice"));
        match outcome {
            DrvOutcome::Built => self.hold(!fetch && last == Some(None), || format!("{drv:?} was not built")),
            DrvOutcome::Valid => self.wrong(&format!("nobody built {drv:?} before")),
            DrvOutcome::Fetched => {
                let passing = self.world.policy.fetch_where_needed;
                let wanted = self.world.paths(drv.index());
                let some = wanted.iter().any(|path| stores.valid.contains(&(BuilderId(0), path.clone())));
                self.hold(fetch && (some || passing), || format!("{drv:?} was not fetched"));
            }
            DrvOutcome::Failed(failure) => {
                self.failures += 1;
                self.failed(drv, failure.class, last);
            }
            DrvOutcome::DependencyFailed { root } => {
                let failed = self.drvs.get(root).and_then(|told| told.outcome.as_ref());
                let failed = matches!(failed, Some(DrvOutcome::Failed(_)));
                let below = self.below(drv).contains(root);
                self.hold(failed && below, || format!("{drv:?} does not fail because of {root:?}"));
            }
            DrvOutcome::Cancelled => {
                let stopping = self.is_stopping();
                self.hold(stopping, || format!("{drv:?} is cancelled and nobody stopped"));
            }
        }
    }

    /// Whether a failure has one true reason.
    fn failed(&mut self, drv: DrvId, class: Class, last: Option<Option<Class>>) {
        let fate = made(self.world, drv).fate;
        if class == Class::NoBuilder {
            let some = self.up.iter().find(|id| takes(self.world, drv, **id)).copied();
            self.hold(some.is_none() && self.all_known, || format!("{drv:?} has no builder, and there is {some:?}"));
            return;
        }
        self.hold(last == Some(Some(class)), || format!("{drv:?} fails as {class:?}, its last try ended {last:?}"));
        let lost = self.world.troubles.iter().any(|(_, trouble)| matches!(trouble, Trouble::Lost { .. }));
        let full = self.world.troubles.iter().any(|(_, trouble)| matches!(trouble, Trouble::Full { .. }));
        let own = matches!(fate, Fate::Broken(own) | Fate::Shaky(own, _) if own == class);
        let true_reason = match class {
            Class::BuilderLost => own || lost,
            Class::DiskFull => own || full,
            Class::Dependency => own || lost || self.world.made.iter().any(|made| made.lie),
            _ => own,
        };
        self.hold(true_reason, || format!("{drv:?} has no reason to fail as {class:?}"));
        let ends = self.drvs[&drv].ends.clone();
        let tries = ends.iter().filter(|end| **end == Some(class)).count() as u32;
        let policy = &self.world.policy;
        let others = self.up.iter().any(|id| takes(self.world, drv, *id));
        let least = match class {
            Class::HashMismatch => 1,
            Class::Build | Class::Timeout => 1 + policy.retry_failures,
            _ if !others || self.is_stopping() => 0,
            _ => ends.len().min(1 + policy.retries.min(1) as usize) as u32,
        };
        let most = match class {
            Class::HashMismatch => 1,
            Class::Build | Class::Timeout => 1 + policy.retry_failures,
            Class::BuilderLost => 1 + 4 * policy.retries + self.drvs[&drv].not_begun,
            _ => 1 + policy.retries,
        };
        let few = tries.max(ends.len() as u32) < least && !self.is_stopping();
        self.hold(!few && tries <= most.max(least), || {
            format!("{drv:?} was tried {tries} times with {class:?}, by the policy {least} to {most}")
        });
        if policy.retries > 0 && !matches!(class, Class::HashMismatch | Class::Build | Class::Timeout) && others {
            let total = ends.len();
            self.hold(total >= 2 || self.is_stopping(), || format!("{drv:?} was not tried again after {class:?}"));
        }
    }

    fn below(&self, drv: DrvId) -> BTreeSet<DrvId> {
        let mut open = vec![drv];
        let mut below = BTreeSet::new();
        while let Some(drv) = open.pop() {
            let inputs = made(self.world, drv).inputs.iter();
            let inputs = inputs.map(|(input, _)| DrvId(u32::try_from(*input).unwrap()));
            open.extend(inputs.filter(|input| below.insert(*input)));
        }
        below
    }

    fn attr_ended(&mut self, attr: AttrId, status: Status, root: Option<DrvId>, stores: &Stores) {
        let fresh = self.attrs.insert(attr, (status, root)).is_none();
        self.hold(fresh, || format!("{attr:?} ends twice"));
        let paths = self.world.paths(self.world.attrs[attr.index()]);
        let here = |path| stores.valid.contains(&(BuilderId(0), path));
        let elsewhere = self.world.is_farm() && !self.world.home;
        let anywhere = |path: &crate::id::StorePath| {
            stores.valid.iter().any(|(_, valid)| valid == path) || stores.promised(self.world, path).is_some()
        };
        match status {
            Status::Built | Status::Valid => {
                let lost = self.world.troubles.iter().any(|(_, trouble)| matches!(trouble, Trouble::Lost { .. }));
                for path in paths {
                    let there = here(path.clone()) || elsewhere && (anywhere(&path) || lost);
                    self.hold(there, || format!("{attr:?} is {status:?} and {path} is not there"));
                }
            }
            Status::Cached => {
                for path in paths {
                    let there = anywhere(&path);
                    self.hold(there, || format!("{attr:?} is cached and {path} is in no cache"));
                }
            }
            Status::Failed => match root {
                Some(root) => {
                    let outcome = self.drvs.get(&root).and_then(|told| told.outcome.as_ref());
                    let failed = matches!(outcome, Some(DrvOutcome::Failed(_)));
                    self.hold(failed, || format!("{attr:?} fails because of {root:?}, which did not"));
                }
                None => {
                    let away = self.world.troubles.iter().any(|(_, trouble)| matches!(trouble, Trouble::Lost { .. }));
                    self.hold(away, || format!("{attr:?} fails for no reason"));
                }
            },
            Status::Skipped => {
                let stopping = self.is_stopping();
                self.hold(stopping, || format!("{attr:?} is skipped and nobody stopped"));
            }
            other => self.wrong(&format!("{attr:?} ends as {other:?}")),
        }
    }

    fn push_ended(&mut self, cache: CacheId, path: &Text, pushed: &Pushed, stores: &Stores) {
        let was_on_its_way = self.pushing.remove(&(cache, path.clone()));
        let known = stores.maker.keys().find(|known| known.to_string() == **path);
        let there = known.is_some_and(|path| stores.caches[cache.index()].contains(path));
        let before = self.pushed.insert((cache, path.clone()), pushed.clone());
        let twice = before.is_some_and(|before| !matches!(before, Pushed::Failed(_)));
        self.hold(!twice, || format!("{path} ends twice in {cache:?}"));
        match pushed {
            Pushed::Uploaded { .. } => {
                self.hold(there && was_on_its_way, || format!("{path} is said to be pushed to {cache:?}"));
            }
            Pushed::Present => self.hold(there, || format!("{path} is said to be in {cache:?}")),
            Pushed::Failed(_) => {}
        }
    }

    /// The run is over.
    pub(super) fn ended(
        &mut self,
        now: Moment,
        exit: u8,
        stores: &Stores,
        (events, summary): (&[Event], &Summary),
        level: u8,
    ) {
        self.now = now;
        if !self.wrong.is_empty() {
            return;
        }
        if level < 2 {
            let open = format!("{:?} {:?} {:?} {:?}", self.live, self.fetching, self.pushing, self.returning);
            let done = self.live.is_empty() && self.fetching.is_empty() && self.pushing.is_empty();
            self.hold(done && (level > 0 || self.returning.is_empty()), || format!("something never ends: {open}"));
            let open: Vec<DrvId> = self
                .drvs
                .iter()
                .filter(|(_, told)| told.outcome.is_none() && !told.lost)
                .map(|(drv, _)| *drv)
                .collect();
            self.hold(open.is_empty(), || format!("{open:?} have no outcome"));
        }
        let all = self.attrs.len() == self.world.attrs.len();
        self.hold(all, || "not every attr has a word".to_owned());
        self.pushes_are_whole(stores, level);
        self.exit_is_right(exit);
        self.record_replays(events, summary);
    }

    /// Whatever was built is in each cache that is pushed to, or it was said why not.
    fn pushes_are_whole(&mut self, stores: &Stores, level: u8) {
        if level > 0 {
            return;
        }
        let built = self.drvs.iter().filter(|(_, told)| told.outcome == Some(DrvOutcome::Built));
        let built: Vec<DrvId> = built.map(|(drv, _)| *drv).collect();
        for at in (0..self.world.caches.len()).filter(|at| self.world.caches[*at].push) {
            let cache = CacheId(u32::try_from(at).unwrap());
            for path in built.iter().flat_map(|drv| self.world.paths(drv.index())) {
                let text: Text = path.to_string().into();
                let said = matches!(self.pushed.get(&(cache, text)), Some(Pushed::Failed(_)));
                let there = stores.caches[at].contains(&path);
                // What is seen at once may be there though the last word on it was never heard.
                let seen = there && said && self.world.caches[at].ordered;
                self.hold(there != said || seen, || {
                    format!("{path} in cache{at}: {there}, said to have failed: {said}")
                });
            }
        }
    }

    fn exit_is_right(&mut self, exit: u8) {
        let mut codes = BTreeSet::new();
        if self.interrupted {
            codes.insert(130);
        }
        for told in self.drvs.values() {
            if let Some(DrvOutcome::Failed(failure)) = &told.outcome {
                codes.insert(code(failure.class));
            }
        }
        if self.attrs.values().any(|word| *word == (Status::Failed, None)) {
            codes.insert(4);
        }
        let optional = |cache: &CacheId| self.world.caches[cache.index()].optional;
        if self.pushed.iter().any(|((cache, _), pushed)| matches!(pushed, Pushed::Failed(_)) && !optional(cache)) {
            codes.insert(5);
        }
        let right = [130, 70, 2, 3, 1, 4, 5].into_iter().find(|code| codes.contains(code)).unwrap_or(0);
        self.hold(exit == right, || format!("exit code {exit} in the place of {right}"));
        if self.world.calm {
            let there = |status: Status| matches!(status, Status::Built | Status::Valid | Status::Cached);
            let all = self.attrs.values().all(|(status, _)| there(*status));
            self.hold(all && matches!(exit, 0 | 5), || format!("exit code {exit} though all could be mended"));
        }
    }

    /// The record is read back as it was told, and comes to the same; each second has one owner.
    fn record_replays(&mut self, events: &[Event], summary: &Summary) {
        let mut lines = Vec::new();
        for event in events {
            lines.extend(serde_json::to_vec(event).unwrap());
            lines.push(b'\n');
        }
        let mut reader = Reader::new(std::path::Path::new("simulated"), &lines[..]);
        let mut read = Vec::new();
        while let Ok(Some(event)) = reader.next_event() {
            read.push(event);
        }
        self.hold(read == events, || "the record is not what was told".to_owned());
        let again = Summary::of(&read);
        self.hold(again == *summary, || "the record does not come to the same".to_owned());
        let built = self.drvs.values().filter(|told| told.outcome == Some(DrvOutcome::Built)).count();
        let failed =
            self.drvs.values().filter(|told| !told.fetch && matches!(told.outcome, Some(DrvOutcome::Failed(_))));
        let failed = failed.count();
        let counts = &summary.counts;
        self.hold((counts.built, counts.failed) == (built, failed), || {
            format!("the summary counts {} built and {} failed: {built} and {failed} are", counts.built, counts.failed)
        });
        self.hold(counts.running == 0 || self.interrupted, || format!("{} run in the end", counts.running));
        let owned: u64 = account(events).iter().map(|part| part.to.0.saturating_sub(part.from.0)).sum();
        self.hold(owned == summary.end.0, || format!("{owned} µs have an owner, of {}", summary.end.0));
    }
}
