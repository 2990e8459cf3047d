//! Random runs: any graph, any builders, any order of completions, faults and stops; every step is held against the
//! [`Model`]. A failing case prints its inputs as a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{Action, Builder, Input, Item, Policy, Scheduler, Work};
use super::model::{Attempt, Model, Stage};
use crate::event::{AttemptEnd, Class, DrvOutcome, Failure, Moment};
use crate::graph::testing::cases;
use crate::id::{BuilderId, DrvId, System};

const CLASSES: [Class; 14] = [
    Class::Build,
    Class::Signal,
    Class::NoOutput,
    Class::Timeout,
    Class::DiskFull,
    Class::NoBuilder,
    Class::BuilderLost,
    Class::Dependency,
    Class::Network,
    Class::Cache,
    Class::Signature,
    Class::Internal,
    Class::Cancelled,
    Class::HashMismatch,
];

/// How tries of one drv end, one after the other; the last repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Built,
    Valid,
    Fails(Class),
}

#[derive(Debug, Clone)]
struct Spec {
    item: Item,
    fates: Vec<Fate>,
    fetch_fails: bool,
    /// What a fetch becomes when it failed.
    replanned: Replanned,
}

#[derive(Debug, Clone, PartialEq)]
enum Replanned {
    Build(Vec<DrvId>),
    Fetch,
    Unreadable,
}

#[derive(Clone)]
struct Setup {
    specs: Vec<Spec>,
    builders: Vec<Builder>,
    policy: Policy,
    /// In which order items are added.
    order: Vec<usize>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, order {:?}", self.policy, self.order)?;
        for spec in &self.specs {
            writeln!(f, "{spec:?}")?;
        }
        for builder in &self.builders {
            writeln!(f, "{builder:?}")?;
        }
        Ok(())
    }
}

/// A spec that does not know its place yet, its inputs, what it becomes as a failed fetch, and a die.
type RawSpec = (Spec, Vec<Index>, Option<Vec<Index>>, u8);

/// What happens next, and to which of the candidates.
type Choice = (u8, usize);

fn failure(class: Class) -> Failure {
    Failure::new(class, Arc::from("so it goes"))
}

fn features() -> impl Strategy<Value = BTreeSet<String>> {
    let sets = [&[][..], &["kvm"], &["big"], &["big", "kvm"]];
    prop_oneof![5 => Just(0_usize), 2 => Just(1), 1 => Just(2), 1 => Just(3)]
        .prop_map(move |at| sets[at].iter().map(|feature| (*feature).to_owned()).collect())
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Built),
        1 => Just(Fate::Valid),
        5 => prop::sample::select(&CLASSES[..]).prop_map(Fate::Fails),
    ];
    prop::collection::vec(fate, 1..4)
}

prop_compose! {
    fn raw_spec()(
        inputs in prop::collection::vec(any::<Index>(), 0..4),
        fetch in prop::bool::weighted(0.25),
        system in prop_oneof![6 => Just("a"), 2 => Just("b"), 1 => Just("builtin")],
        features in features(),
        flags in (prop::bool::weighted(0.1), prop::bool::weighted(0.15), prop::bool::weighted(0.4)),
        more in (any::<bool>(), prop::bool::weighted(0.15)),
        (cost, ahead) in (0_u8..6, prop_oneof![3 => Just(0_u8), 1 => 0_u8..9]),
        fates in fates(),
        replanned in prop_oneof![
            6 => prop::collection::vec(any::<Index>(), 0..3).prop_map(Some),
            1 => Just(None),
        ],
        odd in 0_u8..20,
    ) -> RawSpec {
        let (local_only, prefer_local, fetch_fails) = flags;
        let item = Item {
            drv: DrvId(0),
            work: if fetch { Work::Fetch } else { Work::Build },
            inputs: Vec::new(),
            there: Vec::new(),
            system: System::from(system),
            features: features.into_iter().collect(),
            local_only,
            prefer_local,
            here: more.0,
            fixed_output: more.1,
            cost: f64::from(cost),
            ahead: f64::from(ahead),
        };
        (Spec { item, fates, fetch_fails, replanned: Replanned::Fetch }, inputs, replanned, odd)
    }
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    prop::collection::vec(raw_spec(), 1..12).prop_map(|raw| {
        let many = raw.len();
        let below = |at: usize, inputs: &[Index]| -> Vec<DrvId> {
            let inputs = inputs.iter().filter(|_| at > 0).map(|input| input.index(at));
            inputs.map(|input| DrvId(u32::try_from(input).unwrap())).collect()
        };
        let one = |(at, raw): (usize, RawSpec)| {
            let (mut spec, inputs, replanned, odd) = raw;
            spec.item.drv = DrvId(u32::try_from(at).unwrap());
            if spec.item.work == Work::Build {
                spec.item.inputs = below(at, &inputs);
            }
            if odd == 0 {
                // An input that nobody will ever add.
                spec.item.inputs.push(DrvId(u32::try_from(many).unwrap()));
            }
            spec.replanned = match replanned {
                Some(inputs) => Replanned::Build(below(at, &inputs)),
                None if odd.is_multiple_of(2) => Replanned::Unreadable,
                None => Replanned::Fetch,
            };
            spec
        };
        raw.into_iter().enumerate().map(one).collect()
    })
}

prop_compose! {
    fn builder()(
        slots in prop_oneof![1 => Just(0_u32), 5 => Just(1), 3 => Just(2), 1 => Just(3)],
        systems in prop_oneof![5 => Just(vec!["a"]), 1 => Just(vec!["b"]), 4 => Just(vec!["a", "b"])],
        supported in features(),
        mandatory in prop_oneof![5 => Just(BTreeSet::new()), 1 => features()],
        speed in prop_oneof![Just(0.5), Just(1.0), Just(2.0)],
    ) -> Builder {
        Builder {
            id: BuilderId(0),
            name: "builder".to_owned(),
            slots,
            systems: systems.into_iter().map(System::from).collect(),
            features: supported,
            mandatory,
            speed,
            local: false,
            trusting: true,
        }
    }
}

prop_compose! {
    fn setup()(
        specs in specs(),
        mut builders in prop::collection::vec(builder(), 1..4),
        fail_fast in prop::bool::weighted(0.15),
        max_failures in prop::option::weighted(0.2, 0_u32..3),
        retries in 0_u32..4,
        asked in any::<bool>(),
        fetch_where_needed in any::<bool>(),
        fetch_slots in 0_u32..3,
        shuffled in prop::bool::weighted(0.3),
        keys in prop::collection::vec(any::<u16>(), 12),
    ) -> Setup {
        for (at, builder) in builders.iter_mut().enumerate() {
            builder.id = BuilderId(u32::try_from(at).unwrap());
            builder.name = format!("builder{at}");
            builder.local = at == 0;
        }
        let retry_failures = if asked { retries } else { 0 };
        let policy = Policy { fail_fast, max_failures, retries, retry_failures, fetch_slots, fetch_where_needed };
        let mut order: Vec<usize> = (0..specs.len()).collect();
        if shuffled {
            order.sort_by_key(|at| keys[*at]);
        }
        Setup { specs, builders, policy, order }
    }
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let kind = prop_oneof![
        6 => Just(0_u8), // add
        2 => Just(1), // a builder comes
        8 => Just(2), // an attempt ends
        4 => Just(3), // a fetch ends
        3 => Just(4), // the planner answers
        2 => Just(5), // an attempt waits, or no longer
        1 => Just(6), // a builder goes
        2 => Just(7), // time passes
        1 => Just(8), // no more builders
        1 => Just(9), // more is wanted of something
        1 => Just(10), // stray messages
        8 => Just(11), // all that an attempt needs is there
        2 => Just(12), // something is measured
        1 => Just(13), // somebody wants to stop, if this run may be stopped
    ];
    prop::collection::vec((kind, 0_usize..1000), 0..70)
}

/// One run. `stops` says whether it may be stopped and builders may be lost for good.
struct Run<'a> {
    setup: &'a Setup,
    stops: bool,
    /// Nothing more goes wrong that is not the fate of a drv.
    finishing: bool,
    scheduler: Scheduler,
    model: Model,
    now: Moment,
    added: usize,
    inputs: Vec<(Moment, Input)>,
    actions: Vec<Action>,
    /// How often each drv was fetched.
    fetched: BTreeMap<DrvId, u32>,
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup, stops: bool) -> Self {
        Self {
            setup,
            stops,
            finishing: false,
            scheduler: Scheduler::new(setup.policy),
            model: Model::new(setup.policy),
            now: Moment(0),
            added: 0,
            inputs: Vec::new(),
            actions: Vec::new(),
            fetched: BTreeMap::new(),
        }
    }

    fn tell(&mut self, input: Input) {
        self.inputs.push((self.now, input.clone()));
        self.model.told(self.now, &input);
        let mut actions = Vec::new();
        self.scheduler.handle(self.now, input, &mut actions);
        for action in &actions {
            self.model.acted(action);
        }
        self.model.check(&self.scheduler);
        self.actions.append(&mut actions);
    }

    fn step(&mut self, (kind, which): Choice) {
        match kind {
            0 => self.add(1 + which % 3),
            1 => self.builder_up(which),
            2 => self.end_attempt(which),
            3 => self.end_fetch(which),
            4 => self.answer_planner(which),
            5 => self.toggle_waiting(which),
            6 => self.builder_down(which),
            7 => self.pass_time(which),
            8 => self.no_more_builders(),
            9 => self.grow(which),
            10 => self.stray(which),
            11 => self.prepare(which),
            12 => self.measure(which),
            _ if self.stops && which.is_multiple_of(2) => {
                self.tell(Input::Cancel(if which.is_multiple_of(10) { 2 } else { 1 }));
            }
            _ => {}
        }
    }

    fn add(&mut self, many: usize) {
        let to = self.setup.order.len().min(self.added + many);
        let batch = &self.setup.order[self.added..to];
        self.added = to;
        if !batch.is_empty() {
            self.tell(Input::Add(batch.iter().map(|at| self.setup.specs[*at].item.clone()).collect()));
        }
    }

    fn builder_up(&mut self, which: usize) {
        // Known before the list is closed, or back.
        let builder = &self.setup.builders[which % self.setup.builders.len()];
        let known = self.model.hosts.get(&builder.id);
        if known.is_some_and(|host| !host.up) || known.is_none() && !self.model.no_more_builders {
            self.tell(Input::BuilderUp(builder.clone()));
        }
    }

    fn builder_down(&mut self, which: usize) {
        let up: Vec<BuilderId> = self.model.hosts.iter().filter(|(_, host)| host.up).map(|(id, _)| *id).collect();
        if let Some(builder) = up.get(which % up.len().max(1)).copied() {
            self.tell(Input::BuilderDown { builder, back: !self.stops || !which.is_multiple_of(3), why: None });
        }
    }

    fn no_more_builders(&mut self) {
        if self.stops || self.model.hosts.len() == self.setup.builders.len() {
            self.tell(Input::NoMoreBuilders);
        }
    }

    fn end_attempt(&mut self, which: usize) {
        // In any order, only what builds ends, and by itself.
        let ends = |made: &Attempt| self.stops || made.stopped || made.stage.builds();
        let live = self.model.live.iter().filter(|(_, made)| ends(made));
        let live: Vec<_> = live.map(|(id, made)| (*id, *made)).collect();
        let Some((attempt, made)) = live.get(which % live.len().max(1)).copied() else { return };
        let fates = &self.setup.specs[made.drv.index()].fates;
        let tries = self.model.items[&made.drv].attempts as usize;
        let fate = match made.stage {
            Stage::Building | Stage::Waiting => fates[(tries - 1).min(fates.len() - 1)],
            // It has not built: it was stopped, or its builder was lost, or it is built there already.
            Stage::Preparing | Stage::Prepared if made.stopped => Fate::Fails(Class::Cancelled),
            Stage::Preparing | Stage::Prepared => [Fate::Valid, Fate::Fails(Class::BuilderLost)][which % 2],
        };
        // With a builder, what only it had may be gone. What fails by itself does so in any order.
        let lost = self.stops && matches!(fate, Fate::Fails(Class::BuilderLost | Class::Dependency));
        let gone = if lost && !self.finishing && !which.is_multiple_of(3) { self.gone(which) } else { Vec::new() };
        let end = match fate {
            _ if made.stopped && which.is_multiple_of(2) => AttemptEnd::Failed(failure(Class::Cancelled)),
            Fate::Built => AttemptEnd::Built { outputs: Vec::new() },
            Fate::Valid => AttemptEnd::AlreadyValid { outputs: Vec::new() },
            Fate::Fails(class) => AttemptEnd::Failed(failure(class)),
        };
        self.tell(Input::AttemptEnded { attempt, end, gone });
    }

    /// Any drvs, also such as the attempt does not need.
    fn gone(&self, which: usize) -> Vec<DrvId> {
        let all = (0..self.setup.specs.len() + 1).filter(|at| (which >> (at % 8)) & 1 == 1);
        all.map(|at| DrvId(u32::try_from(at).unwrap())).collect()
    }

    /// Sizes and speeds; they change preferences only.
    fn measure(&mut self, which: usize) {
        let bytes = which as u64 * which as u64 * 1000;
        let drv = DrvId(u32::try_from(which % 12).unwrap());
        let builder = BuilderId(u32::try_from(which % 4).unwrap());
        self.tell(Input::Sized { drv, bytes, signed: which.is_multiple_of(3) });
        let seconds = [0.0, 0.01, 2.0, 100.0, f64::NAN, -1.0][which % 6];
        self.tell(Input::Transferred { builder, bytes, seconds });
    }

    fn end_fetch(&mut self, which: usize) {
        let fetches: Vec<DrvId> = self.model.in_flight.iter().copied().collect();
        let Some(drv) = fetches.get(which % fetches.len().max(1)).copied() else { return };
        let stopped = self.model.stopped_fetches.contains(&drv) && which.is_multiple_of(2);
        // As the planner promises: not for ever.
        let tries = self.fetched.entry(drv).or_insert(0);
        *tries += 1;
        let fails = self.setup.specs[drv.index()].fetch_fails && *tries < 4;
        let class = if stopped { Class::Cancelled } else { Class::Cache };
        self.tell(Input::FetchEnded { drv, failure: (stopped || fails).then(|| failure(class)) });
    }

    fn answer_planner(&mut self, which: usize) {
        let asked = self.model.items.iter().filter(|(_, known)| known.replanning).map(|(drv, _)| *drv);
        let asked: Vec<DrvId> = asked.collect();
        let Some(drv) = asked.get(which % asked.len().max(1)).copied() else { return };
        let spec = &self.setup.specs[drv.index()];
        let item = spec.item.clone();
        let input = match &spec.replanned {
            Replanned::Unreadable => Input::AddFailed(vec![(drv, failure(Class::Internal))]),
            Replanned::Build(inputs) => Input::Add(vec![Item { work: Work::Build, inputs: inputs.clone(), ..item }]),
            Replanned::Fetch => Input::Add(vec![item]),
        };
        self.tell(input);
    }

    fn toggle_waiting(&mut self, which: usize) {
        let live: Vec<_> = self.model.live.iter().map(|(id, attempt)| (*id, attempt.stage)).collect();
        if let Some((attempt, stage)) = live.get(which % live.len().max(1)).copied() {
            self.tell(Input::Waiting { attempt, waiting: stage != Stage::Waiting });
        }
    }

    fn prepare(&mut self, which: usize) {
        let preparing = self.model.live.iter().filter(|(_, made)| made.stage == Stage::Preparing);
        let preparing: Vec<_> = preparing.map(|(id, _)| *id).collect();
        if let Some(attempt) = preparing.get(which % preparing.len().max(1)).copied() {
            self.tell(Input::Prepared { attempt });
        }
    }

    fn pass_time(&mut self, which: usize) {
        self.now = match self.scheduler.next_deadline() {
            Some(deadline) if which.is_multiple_of(2) => deadline.max(self.now),
            _ => Moment(self.now.0 + which as u64 * 3_000),
        };
        self.tell(Input::Tick);
    }

    /// More is wanted of something that is known; only a fetch is replaced by that.
    fn grow(&mut self, which: usize) {
        if !self.stops {
            return;
        }
        let at = which % self.setup.specs.len();
        let spec = &self.setup.specs[at];
        if self.model.items.contains_key(&spec.item.drv) {
            let mut item = Item { cost: f64::from(u8::try_from(which % 7).unwrap()), ..spec.item.clone() };
            if let (Replanned::Build(inputs), true) = (&spec.replanned, !which.is_multiple_of(3)) {
                item.work = Work::Build;
                item.inputs.clone_from(inputs);
            }
            self.tell(Input::Add(vec![item]));
        }
    }

    /// Messages that came too late, or twice.
    fn stray(&mut self, which: usize) {
        let attempt = crate::id::AttemptId(u32::try_from(which % 20).unwrap());
        let drv = DrvId(u32::try_from(which % 12).unwrap());
        if !self.model.live.contains_key(&attempt) {
            self.tell(Input::AttemptEnded {
                attempt,
                end: AttemptEnd::Failed(failure(Class::Build)),
                gone: Vec::new(),
            });
            self.tell(Input::Waiting { attempt, waiting: which.is_multiple_of(2) });
            self.tell(Input::Prepared { attempt });
        }
        if !self.model.in_flight.contains(&drv) {
            self.tell(Input::FetchEnded { drv, failure: (which.is_multiple_of(2)).then(|| failure(Class::Cache)) });
        }
    }

    /// P5: if everything that was started ends, the run ends.
    fn finish(&mut self) {
        self.finishing = true;
        self.add(usize::MAX / 2);
        for at in 0..self.setup.builders.len() {
            self.builder_up(at);
        }
        self.tell(Input::NoMoreBuilders);
        self.tell(Input::NoMore);
        for _ in 0..300 {
            if self.scheduler.is_done() {
                break;
            }
            self.prepare(0);
            self.end_attempt(1);
            self.end_fetch(1);
            self.answer_planner(0);
            if let Some(deadline) = self.scheduler.next_deadline() {
                self.now = self.now.max(deadline);
                self.tell(Input::Tick);
            }
        }
        assert!(self.scheduler.is_done(), "P5: does not end");
    }

    /// Outcomes without what may depend on the order: which of several failed inputs was the first, and which builder
    /// was suspended just then.
    fn outcomes(&self) -> BTreeMap<DrvId, DrvOutcome> {
        let plain = |outcome: &DrvOutcome| match outcome {
            DrvOutcome::DependencyFailed { .. } => DrvOutcome::DependencyFailed { root: DrvId(0) },
            DrvOutcome::Failed(Failure { class, .. }) => DrvOutcome::Failed(failure(*class)),
            other => other.clone(),
        };
        let all = self.model.items.iter();
        all.map(|(drv, known)| (*drv, plain(known.outcome.as_ref().expect("P6: every item has an outcome")))).collect()
    }
}

/// Runs to the end; if something does not hold, says after which inputs.
fn run<'a>(setup: &'a Setup, choices: &[Choice], stops: bool) -> Run<'a> {
    let mut run = Run::new(setup, stops);
    let result = catch_unwind(AssertUnwindSafe(|| {
        if !stops {
            // What no builder takes fails for that, whatever becomes of its inputs; so builders are known first.
            (0..setup.builders.len()).for_each(|at| run.builder_up(at));
            run.no_more_builders();
        }
        for choice in choices {
            run.step(*choice);
        }
        run.finish();
    }));
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let inputs: Vec<String> = run.inputs.iter().map(|(at, input)| format!("  {} µs {input:?}", at.0)).collect();
        panic!("{text}\nafter\n{}", inputs.join("\n"));
    }
    run
}

proptest! {
    #![proptest_config(cases(1000))]

    /// P1 to P8, P10, P11 at every step, P12 at the end.
    #[test]
    fn every_step_is_right(setup in setup(), choices in choices()) {
        let first = run(&setup, &choices, true);
        let mut scheduler = Scheduler::new(setup.policy);
        let mut actions = Vec::new();
        for (at, input) in &first.inputs {
            scheduler.handle(*at, input.clone(), &mut actions);
        }
        prop_assert_eq!(actions, first.actions, "P12: the same inputs give the same actions");
    }

    /// P9: keep-going, and every try has its fixed end: outcomes do not depend on the order.
    #[test]
    fn outcomes_do_not_depend_on_the_order(setup in setup(), one in choices(), other in choices()) {
        let mut setup = setup;
        setup.policy.fail_fast = false;
        setup.policy.max_failures = None;
        // An attempt that ends as cancelled, though nobody stopped it, takes its users along: first come, first named.
        let endings = setup.specs.iter_mut().flat_map(|spec| &mut spec.fates);
        endings.filter(|fate| **fate == Fate::Fails(Class::Cancelled)).for_each(|fate| *fate = Fate::Built);
        let one = run(&setup, &one, false).outcomes();
        let other = run(&setup, &other, false).outcomes();
        prop_assert_eq!(one, other);
    }
}
