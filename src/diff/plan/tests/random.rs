//! Random worlds: whatever the order of wants, loads, answers and decisions, the planner must give what a naive
//! recursion over the whole world gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Decision, Found, PlanPolicy, Planner, Presence, Question, Questions};
use crate::event::{Class, Failure, Status};
use crate::graph::testing::{cases, drv_path, output_path};
use crate::graph::{DrvInfo, Graph, OutputInfo, Work};
use crate::id::{AttrId, CacheId, DrvId, StorePath, System};

const OUTPUTS: [&str; 3] = ["dev", "lib", "out"];

/// A set of outputs, as bits.
type Outputs = u8;

#[derive(Debug, Clone)]
struct Spec {
    inputs: BTreeMap<usize, Outputs>,
    outputs: Outputs,
    /// Its one output has the path of that drv's `out`, as with two recipes of one fixed output.
    twin: Option<usize>,
    floating: bool,
    substitutes: bool,
    unreadable: bool,
    presence: [Presence; 3],
    /// What each output refers to, where a cache has it: outputs of drvs below, of its own, or of none.
    references: [BTreeSet<StorePath>; 3],
    fetch_fails: bool,
}

#[derive(Debug, Clone)]
struct World {
    drvs: Vec<Spec>,
    attrs: Vec<(usize, Outputs)>,
    fetch_roots: bool,
}

fn each(outputs: Outputs) -> impl Iterator<Item = usize> {
    (0..3).filter(move |at| outputs & 1 << at != 0)
}

fn names(outputs: Outputs) -> Vec<Arc<str>> {
    each(outputs).map(|at| Arc::from(OUTPUTS[at])).collect()
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap()
}

impl World {
    fn path(&self, drv: usize, output: usize) -> Option<StorePath> {
        let spec = &self.drvs[drv];
        (!spec.floating).then(|| output_path(number(spec.twin.unwrap_or(drv)), OUTPUTS[output]))
    }

    /// What store and caches say about an output.
    fn presence(&self, drv: usize, output: usize) -> Presence {
        self.drvs[self.drvs[drv].twin.unwrap_or(drv)].presence[output]
    }

    /// The drv whose output a path is, and which; the first of twins.
    fn owner(&self, path: &StorePath) -> Option<(usize, usize)> {
        let all = (0..self.drvs.len()).flat_map(|drv| (0..3).map(move |output| (drv, output)));
        all.into_iter().find(|(drv, output)| self.path(*drv, *output).as_ref() == Some(path))
    }

    /// What is answered about a path, and what it refers to.
    fn answer(&self, path: &StorePath) -> (Presence, BTreeSet<StorePath>) {
        let Some((drv, output)) = self.owner(path) else { return (Presence::Absent, BTreeSet::new()) };
        let references = self.drvs[self.drvs[drv].twin.unwrap_or(drv)].references[output].clone();
        match self.presence(drv, output) {
            presence @ Presence::Present(_) => (presence, references),
            presence => (presence, BTreeSet::new()),
        }
    }

    fn info(&self, at: usize) -> DrvInfo {
        let spec = &self.drvs[at];
        let output = |output: usize| OutputInfo { name: Arc::from(OUTPUTS[output]), path: self.path(at, output) };
        DrvInfo {
            path: drv_path(number(at)),
            name: format!("d{at}"),
            system: System::from("x86_64-linux"),
            outputs: each(spec.outputs).map(output).collect(),
            inputs: spec.inputs.iter().map(|(input, wanted)| (drv_path(number(*input)), names(*wanted))).collect(),
            sources: Vec::new(),
            features: Vec::new(),
            prefer_local: false,
            substitutes: spec.substitutes,
            fixed_output: spec.twin.is_some(),
            dynamic: false,
        }
    }
}

fn presence() -> impl Strategy<Value = Presence> {
    prop_oneof![
        2 => Just(Presence::Valid),
        3 => (0_u32..2).prop_map(|cache| Presence::Present(CacheId(cache))),
        1 => Just(Presence::Untrusted),
        5 => Just(Presence::Absent),
        1 => Just(Presence::NoAnswer),
    ]
}

prop_compose! {
    fn raw_spec()(
        inputs in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..8), 0..4),
        outputs in prop_oneof![Just(4_u8), 1_u8..8],
        twin in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        odd in (prop::bool::weighted(0.1), prop::bool::weighted(0.9), prop::bool::weighted(0.05)),
        presence in [presence(), presence(), presence()],
        fetch_fails in prop::bool::weighted(0.4),
    ) -> (Spec, Vec<(prop::sample::Index, Outputs)>, Option<prop::sample::Index>) {
        let (floating, substitutes, unreadable) = odd;
        let spec = Spec {
            inputs: BTreeMap::new(), outputs, twin: None, floating, substitutes, unreadable, presence, fetch_fails,
            references: Default::default(),
        };
        (spec, inputs, twin)
    }
}

/// At least one of the outputs that there are.
fn some_of(wanted: Outputs, outputs: Outputs) -> Outputs {
    if wanted & outputs == 0 { outputs } else { wanted & outputs }
}

prop_compose! {
    fn world()(
        raw in prop::collection::vec(raw_spec(), 1..14),
        attrs in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..8), 1..5),
        fetch_roots in any::<bool>(),
        references in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..3, 0_usize..40, 0_usize..3), 0..25),
    ) -> World {
        let mut drvs: Vec<Spec> = Vec::new();
        for (at, (mut spec, inputs, twin)) in raw.into_iter().enumerate() {
            for (input, wanted) in inputs.into_iter().filter(|_| at > 0) {
                let input = input.index(at);
                let wanted = some_of(wanted, drvs[input].outputs);
                *spec.inputs.entry(input).or_default() |= wanted;
            }
            if let Some(twin) = twin.filter(|_| at > 0).map(|twin| twin.index(at)) {
                let of = &mut drvs[twin];
                if of.twin.is_none() && of.outputs & 4 != 0 && !of.floating && of.substitutes {
                    spec.fetch_fails = of.fetch_fails;
                    (spec.outputs, spec.floating, spec.substitutes, spec.twin) = (4, false, true, Some(twin));
                }
            }
            drvs.push(spec);
        }
        // Roots near the top, so that there is something below them.
        let attr = |(at, wanted): (prop::sample::Index, Outputs)| {
            let drv = drvs.len() - 1 - at.index(drvs.len().div_ceil(2));
            (drv, some_of(wanted, drvs[drv].outputs))
        };
        let attrs = attrs.into_iter().map(attr).collect();
        let mut world = World { drvs, attrs, fetch_roots };
        for (from, output, to, of) in references {
            let from = from.index(world.drvs.len());
            // Of a drv before it, which need not be below it; of its own; or of none at all.
            let path = match to {
                38.. => Some(output_path(1000, "out")),
                36.. => world.path(from, of),
                _ if from > 0 => world.path(to % from, of),
                _ => None,
            };
            world.drvs[from].references[output].extend(path);
        }
        world
    }
}

/// Whether a present path refers to itself by way of others.
fn is_in_a_ring(world: &World, path: &StorePath) -> bool {
    let mut seen = BTreeSet::new();
    let mut work: Vec<StorePath> = world.answer(path).1.into_iter().filter(|to| to != path).collect();
    while let Some(at) = work.pop() {
        if at == *path {
            return true;
        }
        if seen.insert(at.clone()) {
            work.extend(world.answer(&at).1);
        }
    }
    false
}

/// What a path and all that it refers to lack, if a cache has it; `None` if it does not.
fn lacks(world: &World, failed: &BTreeSet<StorePath>, path: &StorePath) -> Option<BTreeSet<StorePath>> {
    let mut lacks = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut work = vec![path.clone()];
    while let Some(at) = work.pop().filter(|_| true) {
        if !seen.insert(at.clone()) {
            continue;
        }
        match world.answer(&at) {
            (Presence::Valid, _) => {}
            (Presence::Present(_), references) if !failed.contains(&at) && !is_in_a_ring(world, &at) => {
                work.extend(references);
            }
            _ if at == *path => return None,
            _ => {
                lacks.insert(at);
            }
        }
    }
    Some(lacks)
}

/// The nearest drvs below one that make these paths; `None` unless each is made.
fn makers(world: &World, drv: usize, mut paths: BTreeSet<StorePath>) -> Option<BTreeMap<usize, Outputs>> {
    let mut makers: BTreeMap<usize, Outputs> = BTreeMap::new();
    let mut seen = BTreeSet::from([drv]);
    let mut work = std::collections::VecDeque::from([drv]);
    while let Some(at) = work.pop_front().filter(|_| !paths.is_empty()) {
        let below =
            if world.drvs[at].unreadable { Vec::new() } else { world.drvs[at].inputs.keys().copied().collect() };
        for input in below {
            if seen.insert(input) {
                work.push_back(input);
                let readable = !world.drvs[input].unreadable;
                for output in each(world.drvs[input].outputs).filter(|_| readable) {
                    if world.path(input, output).is_some_and(|path| paths.remove(&path)) {
                        *makers.entry(input).or_default() |= 1 << output;
                    }
                }
            }
        }
    }
    paths.is_empty().then_some(makers)
}

/// How outputs stand: 0 all valid, 1 also present ones, 2 some lack what others make, 3 some missing.
fn standing(world: &World, failed: &BTreeSet<StorePath>, drv: usize, wanted: Outputs) -> u8 {
    if world.drvs[drv].unreadable {
        return 3;
    }
    each(wanted).map(|output| standing_of_one(world, failed, drv, output).0).max().unwrap_or(0)
}

/// The same for one output, and what has to be built before it can be fetched.
fn standing_of_one(
    world: &World,
    failed: &BTreeSet<StorePath>,
    drv: usize,
    output: usize,
) -> (u8, BTreeMap<usize, Outputs>) {
    let nothing = BTreeMap::new;
    let Some(path) = world.path(drv, output) else { return (3, nothing()) };
    if world.answer(&path).0 == Presence::Valid {
        return (0, nothing());
    }
    match lacks(world, failed, &path).filter(|_| world.drvs[drv].substitutes) {
        None => (3, nothing()),
        Some(lacks) if lacks.is_empty() => (1, nothing()),
        Some(lacks) => match makers(world, drv, lacks) {
            Some(makers) => (2, makers),
            None => (3, nothing()),
        },
    }
}

/// What a drv is needed for in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Needed {
    Build(BTreeSet<usize>),
    /// These paths, after these drvs.
    Fetch(BTreeSet<StorePath>, BTreeSet<usize>),
    Unreadable,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    items: BTreeMap<usize, Needed>,
    attrs: BTreeMap<u32, (Status, u32)>,
    asked: BTreeSet<StorePath>,
}

/// The plan by definition, over the whole world at once.
struct Naive<'a> {
    world: &'a World,
    /// Paths whose fetch failed.
    failed: &'a BTreeSet<StorePath>,
    wanted: BTreeMap<usize, Outputs>,
    must_build: BTreeSet<usize>,
    /// Drvs that are known to be built, so that nobody makes what their present outputs lack.
    built: &'a BTreeSet<usize>,
    items: BTreeMap<usize, Needed>,
}

impl Naive<'_> {
    fn want(&mut self, drv: usize, outputs: Outputs) {
        *self.wanted.entry(drv).or_default() |= outputs;
        if standing(self.world, self.failed, drv, outputs) == 3 && self.must_build.insert(drv) {
            for (input, wanted) in self.inputs(drv) {
                self.want(input, wanted);
            }
        }
        let patched = !self.world.drvs[drv].unreadable && !self.built.contains(&drv);
        for output in each(outputs).filter(|_| patched) {
            for (maker, outputs) in standing_of_one(self.world, self.failed, drv, output).1 {
                self.want(maker, outputs);
            }
        }
    }

    fn inputs(&self, drv: usize) -> BTreeMap<usize, Outputs> {
        if self.world.drvs[drv].unreadable { BTreeMap::new() } else { self.world.drvs[drv].inputs.clone() }
    }

    fn need(&mut self, drv: usize, outputs: Outputs) {
        if self.world.drvs[drv].unreadable {
            self.items.insert(drv, Needed::Unreadable);
        } else if self.must_build.contains(&drv) {
            let mut inputs = self.inputs(drv);
            inputs.retain(|input, wanted| standing(self.world, self.failed, *input, *wanted) > 0);
            self.items.insert(drv, Needed::Build(inputs.keys().copied().collect()));
            for (input, wanted) in inputs {
                self.need(input, wanted);
            }
        } else {
            let of = |output: usize| standing_of_one(self.world, self.failed, drv, output);
            let present: Vec<usize> = each(outputs).filter(|output| matches!(of(*output).0, 1 | 2)).collect();
            let paths: BTreeSet<StorePath> =
                present.iter().filter_map(|output| self.world.path(drv, *output)).collect();
            let makers: BTreeMap<usize, Outputs> = present.iter().flat_map(|output| of(*output).1).collect();
            let after = makers.keys().copied().collect();
            match self.items.entry(drv).or_insert_with(|| Needed::Fetch(BTreeSet::new(), BTreeSet::new())) {
                Needed::Fetch(known, known_after) => {
                    known.extend(paths);
                    known_after.append(&mut { after });
                }
                Needed::Build(_) | Needed::Unreadable => {}
            }
            for (maker, outputs) in present.iter().flat_map(|output| of(*output).1).collect::<Vec<_>>() {
                self.need(maker, outputs);
            }
        }
    }

    fn builds(&self, drv: usize, outputs: Outputs, seen: &mut BTreeSet<usize>) {
        if self.world.drvs[drv].unreadable {
            return;
        }
        let standing = standing(self.world, self.failed, drv, outputs);
        if standing == 2 || standing == 3 && seen.insert(drv) {
            let below: Vec<(usize, Outputs)> = match standing {
                3 => self.inputs(drv).into_iter().collect(),
                _ => each(outputs).flat_map(|o| standing_of_one(self.world, self.failed, drv, o).1).collect(),
            };
            for (input, wanted) in below {
                self.builds(input, wanted, seen);
            }
        }
    }
}

fn reference(world: &World, failed: &BTreeSet<StorePath>) -> Outcome {
    reference_with(world, failed, &BTreeSet::new()).0
}

/// The same where these drvs are known to be built from the beginning; also all that must be built.
fn reference_with(world: &World, failed: &BTreeSet<StorePath>, built: &BTreeSet<usize>) -> (Outcome, BTreeSet<usize>) {
    let (wanted, must_build, items) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
    let mut naive = Naive { world, failed, wanted, must_build, built, items };
    for (drv, outputs) in &world.attrs {
        naive.want(*drv, *outputs);
    }
    let mut attrs = BTreeMap::new();
    for (attr, (drv, outputs)) in world.attrs.iter().enumerate() {
        let standing = standing(world, failed, *drv, *outputs);
        if standing >= 2 || standing == 1 && world.fetch_roots {
            naive.need(*drv, *outputs);
        }
        let mut builds = BTreeSet::new();
        naive.builds(*drv, *outputs, &mut builds);
        let status = match standing {
            0 => Status::Valid,
            1 => Status::ToFetch,
            _ if world.drvs[*drv].unreadable => Status::Failed,
            _ => Status::ToBuild,
        };
        attrs.insert(number(attr), (status, number(builds.len())));
    }
    let asked = naive.wanted.iter().filter(|(drv, _)| !world.drvs[**drv].unreadable);
    let asked = asked.flat_map(|(drv, outputs)| {
        let caches = world.drvs[*drv].substitutes;
        each(*outputs).filter_map(move |output| Some((world.path(*drv, output)?, caches)))
    });
    // With what present ones refer to; a path whose drvs let no cache answer is not looked below.
    let mut work: Vec<(StorePath, bool)> = asked.collect();
    let mut asked = BTreeMap::new();
    while let Some((path, caches)) = work.pop() {
        let known = asked.entry(path.clone()).or_insert(false);
        if caches && !std::mem::replace(known, true) {
            work.extend(world.answer(&path).1.into_iter().filter(|to| *to != path).map(|to| (to, true)));
        }
    }
    (Outcome { items: naive.items, attrs, asked: asked.into_keys().collect() }, naive.must_build)
}

/// What to do next, to which of the candidates, and to how many.
type Choice = (u8, usize, usize);

/// One run of the planner, driven by arbitrary choices.
struct Run<'a> {
    world: &'a World,
    graph: Graph,
    planner: Planner,
    attrs: usize,
    load: Vec<DrvId>,
    ask: Vec<Question>,
    volunteered: BTreeSet<StorePath>,
    /// Of which only the store was asked.
    asked_stores: BTreeSet<StorePath>,
    /// Given fetches that are going to fail.
    failing: Vec<DrvId>,
    failed: BTreeSet<StorePath>,
    /// How often a path was said to wait for caches.
    waited: usize,
    /// What `failed` was before.
    before: Vec<BTreeSet<StorePath>>,
    /// Drvs with a fetch item in the decisions that are being taken.
    batch: BTreeSet<DrvId>,
    loads: BTreeSet<DrvId>,
    outcome: Outcome,
}

impl Run<'_> {
    fn new(world: &World) -> Run<'_> {
        let mut graph = Graph::new();
        for at in 0..world.drvs.len() {
            graph.intern(&drv_path(number(at)));
        }
        Run {
            world,
            graph,
            planner: Planner::new(PlanPolicy { fetch_roots: world.fetch_roots }),
            attrs: 0,
            load: Vec::new(),
            ask: Vec::new(),
            volunteered: BTreeSet::new(),
            asked_stores: BTreeSet::new(),
            failing: Vec::new(),
            failed: BTreeSet::new(),
            waited: 0,
            before: Vec::new(),
            batch: BTreeSet::new(),
            loads: BTreeSet::new(),
            outcome: Outcome::default(),
        }
    }

    fn step(&mut self, (kind, which, many): Choice) {
        match kind {
            0 if self.attrs < self.world.attrs.len() => {
                let (drv, outputs) = self.world.attrs[self.attrs];
                let (attr, drv) = (AttrId(number(self.attrs)), DrvId(number(drv)));
                self.planner.want(&self.graph, attr, drv, names(outputs));
                self.attrs += 1;
            }
            1 | 2 if !self.load.is_empty() => {
                let from = which % self.load.len();
                let batch: Vec<DrvId> = self.load.drain(from..self.load.len().min(from + many)).collect();
                self.load(&batch);
            }
            3 | 4 if !self.ask.is_empty() => {
                let from = which % self.ask.len();
                let batch: Vec<Question> = self.ask.drain(from..self.ask.len().min(from + many)).collect();
                let answers: Vec<Found> = batch.into_iter().map(|question| self.answer(question)).collect();
                self.planner.answered(&self.graph, &answers);
            }
            5 => self.decide(),
            6 if !self.failing.is_empty() => {
                let drv = self.failing.swap_remove(which % self.failing.len());
                self.fail_fetch(drv);
            }
            7 => self.volunteer(which),
            8 => {
                // The store has said no to all that is asked: caches are asked now.
                let paths = self.ask.iter().filter(|question| question.caches).map(|question| question.path.clone());
                let paths: Vec<StorePath> = paths.collect();
                self.waited += paths.len();
                self.planner.waits_for_caches(&paths);
            }
            _ => {}
        }
        let Questions { load, ask } = self.planner.questions(&self.graph);
        for drv in &load {
            assert!(self.loads.insert(*drv), "{drv:?} is loaded twice");
        }
        for question in &ask {
            assert!(!self.volunteered.contains(&question.path), "asked what was said");
            // Twice only if first the store alone was asked.
            let again = self.asked_stores.contains(&question.path) && question.caches;
            assert!(self.outcome.asked.insert(question.path.clone()) || again, "{question:?} is asked twice");
            if question.caches {
                self.asked_stores.remove(&question.path);
            } else {
                self.asked_stores.insert(question.path.clone());
            }
        }
        self.load.extend(load);
        self.ask.extend(ask);
    }

    fn load(&mut self, batch: &[DrvId]) {
        let (unreadable, readable): (Vec<DrvId>, Vec<DrvId>) =
            batch.iter().partition(|drv| self.world.drvs[drv.index()].unreadable);
        for drv in &readable {
            self.graph.load(self.world.info(drv.index()));
        }
        self.planner.loaded(&self.graph, &readable);
        for drv in unreadable {
            let failure = Failure::new(Class::Internal, Arc::from("unreadable"));
            self.planner.load_failed(&self.graph, drv, failure);
        }
    }

    fn answer(&self, Question { path, caches }: Question) -> Found {
        let (presence, references) = self.world.answer(&path);
        let presence = if caches || presence == Presence::Valid { presence } else { Presence::Absent };
        Found { references: references.into_iter().collect(), ..Found::new(path, presence) }
    }

    /// An answer that nobody asked for, as from a listing.
    fn volunteer(&mut self, which: usize) {
        let drv = which % self.world.drvs.len();
        let Some(path) = self.world.path(drv, 2) else { return };
        if !self.outcome.asked.contains(&path) {
            self.volunteered.insert(path.clone());
            let found = self.answer(Question { path, caches: true });
            self.planner.answered(&self.graph, &[found]);
        }
    }

    fn fail_fetch(&mut self, drv: DrvId) {
        if matches!(self.outcome.items.get(&drv.index()), Some(Needed::Fetch(..))) {
            // What lies in the closure and belongs to drvs whose fetches fail; nothing if that is known already.
            let closure = self.planner.fetch_closure(drv);
            let fails =
                |path: &StorePath| self.world.owner(path).is_some_and(|(drv, _)| self.world.drvs[drv].fetch_fails);
            let culprits: Vec<StorePath> = closure.into_iter().map(|(path, ..)| path).filter(fails).collect();
            if !culprits.is_empty() || self.planner.is_stale(drv) {
                self.before.push(self.failed.clone());
                self.failed.extend(culprits.iter().cloned());
                self.planner.fetch_failed(&self.graph, drv, &culprits);
            }
        }
    }

    fn decide(&mut self) {
        self.batch.clear();
        for decision in self.planner.decisions(&self.graph) {
            match decision {
                Decision::Item { drv, work, inputs, .. } => self.take_item(drv, work, &inputs),
                Decision::Unreadable { drv, .. } => {
                    assert_eq!(self.outcome.items.insert(drv.index(), Needed::Unreadable), None);
                }
                Decision::Attr { attr, status, drv, builds } => {
                    assert_eq!(drv.is_none(), status == Status::Valid);
                    assert_eq!(self.outcome.attrs.insert(attr.0, (status, builds)), None, "an attr is decided twice");
                    let top = self.world.attrs[attr.index()].0;
                    let given = self.outcome.items.get(&top);
                    match status {
                        Status::ToBuild => assert!(matches!(given, Some(Needed::Build(_) | Needed::Fetch(..)))),
                        Status::Failed => assert_eq!(given, Some(&Needed::Unreadable)),
                        _ => {}
                    }
                }
            }
        }
    }

    fn take_item(&mut self, drv: DrvId, work: Work, inputs: &[DrvId]) {
        for input in inputs {
            assert!(self.outcome.items.contains_key(&input.index()), "{input:?} comes after its user {drv:?}");
        }
        let needed = match work {
            Work::Build => Needed::Build(inputs.iter().map(|input| input.index()).collect()),
            Work::Fetch => Needed::Fetch(
                self.planner.fetches(drv).map(|(path, _)| path.clone()).collect(),
                inputs.iter().map(|input| input.index()).collect(),
            ),
        };
        let again = !self.batch.insert(drv);
        if work == Work::Fetch {
            self.failing.push(drv);
        }
        let before = self.outcome.items.insert(drv.index(), needed.clone());
        match (before, needed) {
            (None | Some(Needed::Fetch(..)), Needed::Build(_)) | (None, Needed::Fetch(..)) => {}
            (Some(Needed::Fetch(before, _)), Needed::Fetch(now, _)) => {
                // Within one batch, what has to be fetched is already known for all of it.
                assert!(before.is_subset(&now) && (before != now || again || !self.failed.is_empty()));
            }
            (before, now) => panic!("{drv:?} was {before:?} and becomes {now:?}"),
        }
    }

    /// Brings it to its end, whatever is still to do.
    fn finish(mut self) -> (Outcome, BTreeSet<StorePath>, Vec<BTreeSet<StorePath>>) {
        for _ in 0..200 {
            for kind in 0..7 {
                self.step((kind, 0, usize::MAX / 2));
            }
        }
        assert!(self.planner.is_idle());
        assert_eq!(self.planner.undecided().count(), 0);
        let totals = self.planner.totals();
        let sum = totals.valid + totals.present + totals.absent + totals.untrusted + totals.no_answer;
        assert_eq!(sum, totals.paths);
        (self.outcome, self.failed, self.before)
    }
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    prop::collection::vec((0_u8..9, 0_usize..1000, 1_usize..5), 0..60)
}

/// What was planned in the end, the paths that could not be fetched, and these as they grew.
fn run(world: &World, choices: &[Choice]) -> (Outcome, BTreeSet<StorePath>, Vec<BTreeSet<StorePath>>) {
    let mut run = Run::new(world);
    for choice in choices {
        run.step(*choice);
    }
    let said = run.volunteered.clone();
    let (mut outcome, failed, before) = run.finish();
    outcome.asked.extend(said);
    (outcome, failed, before)
}

type Items = BTreeMap<usize, Needed>;

/// What was given out before, as a patch of what has turned out to be built itself, is not taken back: adds that to
/// what is expected.
fn with_kept(mut expected: Items, given: &Items, before: impl Iterator<Item = Items>) -> Items {
    for (drv, needed) in before.flatten() {
        let Some(given) = given.get(&drv) else { continue };
        let kept = match (&needed, given, expected.get(&drv)) {
            (Needed::Build(_), Needed::Build(_), after) => !matches!(after, Some(Needed::Build(_))),
            (Needed::Unreadable, Needed::Unreadable, None) | (Needed::Fetch(..), Needed::Fetch(..), None) => true,
            (Needed::Fetch(before, _), Needed::Fetch(now, _), Some(Needed::Fetch(after, _))) => {
                after.is_subset(now) && now.iter().all(|path| after.contains(path) || before.contains(path))
            }
            _ => false,
        };
        if kept {
            expected.insert(drv, given.clone());
        }
    }
    expected
}

/// What may come of it: the plan by definition; or, where something was said before it was asked, the one that does not
/// patch what is built itself, since that was known early enough.
fn expected(world: &World, failed: &BTreeSet<StorePath>, before: &[Items], given: &Items, volunteers: bool) -> Items {
    let (whole, built) = reference_with(world, failed, &BTreeSet::new());
    let plan = with_kept(whole.items.clone(), given, before.iter().cloned());
    if !volunteers || plan == *given {
        return plan;
    }
    let (lean, _) = reference_with(world, failed, &built);
    with_kept(lean.items, given, before.iter().cloned().chain([whole.items]))
}

fn volunteers(choices: &[Choice]) -> bool {
    choices.iter().any(|(kind, ..)| *kind == 7)
}

fn asks_ahead(choices: &[Choice]) -> bool {
    choices.iter().any(|(kind, ..)| *kind == 8)
}

#[test]
fn what_is_said_early_may_save_a_patch() {
    let spec = |inputs: &[(usize, Outputs)], outputs, presence| Spec {
        inputs: inputs.iter().copied().collect(),
        outputs,
        twin: None,
        floating: false,
        substitutes: true,
        unreadable: false,
        presence,
        references: Default::default(),
        fetch_fails: false,
    };
    let (valid, cached) = (Presence::Valid, Presence::Present(CacheId(0)));
    let mut world = World {
        drvs: vec![
            spec(&[], 7, [cached, Presence::Untrusted, valid]),
            spec(&[], 4, [valid; 3]),
            spec(&[(0, 1)], 4, [valid; 3]),
            spec(&[(2, 4)], 3, [cached, cached, valid]),
            spec(&[(0, 1)], 4, [valid, valid, cached]),
            spec(&[(4, 4)], 4, [valid, valid, cached]),
        ],
        attrs: vec![(5, 4), (3, 3)],
        fetch_roots: true,
    };
    for at in [1, 4, 5] {
        world.drvs[at].substitutes = false;
    }
    let lacking = world.path(0, 1);
    world.drvs[3].references[0].extend(lacking);
    world.drvs[3].references[1].insert(output_path(1000, "out"));
    // Whatever is said first, both plans are right, and nothing else is.
    for which in 0..1000 {
        let choices = [(7, which, 1)];
        let (outcome, failed, _) = run(&world, &choices);
        assert_eq!(outcome.items, expected(&world, &failed, &[], &outcome.items, true));
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn in_any_order_the_plan_is_the_naive_one(mut world in world(), choices in choices()) {
        world.drvs.iter_mut().for_each(|spec| spec.fetch_fails = false);
        let (outcome, ..) = run(&world, &choices);
        let expected = reference(&world, &BTreeSet::new());
        let of_first = |count| reference(&World { attrs: world.attrs[..count].to_vec(), ..world.clone() }, &BTreeSet::new());
        let before: Vec<Items> = (1..world.attrs.len()).map(|count| of_first(count).items).collect();
        let volunteers = volunteers(&choices);
        let items = self::expected(&world, &BTreeSet::new(), &before, &outcome.items, volunteers);
        prop_assert_eq!(&outcome.items, &items);
        prop_assert_eq!(&outcome.attrs, &expected.attrs);
        prop_assert!(outcome.asked.is_superset(&expected.asked));
        let exact = !volunteers && !asks_ahead(&choices);
        prop_assert!(!exact || outcome.asked == expected.asked, "asked for more than is wanted");
    }

    #[test]
    fn what_is_asked_ahead_changes_no_decision(mut world in world(), choices in choices()) {
        world.drvs.iter_mut().for_each(|spec| spec.fetch_fails = false);
        let choices: Vec<Choice> = choices.into_iter().filter(|(kind, ..)| *kind != 7).collect();
        let never: Vec<Choice> = choices.iter().copied().filter(|(kind, ..)| *kind != 8).collect();
        // After each step, caches are asked for what waits.
        let always: Vec<Choice> = never.iter().flat_map(|choice| [*choice, (8, 0, 1)]).collect();
        let (exact, ..) = run(&world, &never);
        let (ahead, ..) = run(&world, &always);
        prop_assert_eq!(&ahead.attrs, &exact.attrs);
        let building = |outcome: &Outcome| {
            let built = outcome.items.iter().filter(|(_, needed)| !matches!(needed, Needed::Fetch(..)));
            built.map(|(drv, needed)| (*drv, needed.clone())).collect::<Items>()
        };
        prop_assert_eq!(building(&ahead), building(&exact));
        prop_assert!(ahead.asked.is_superset(&exact.asked));
    }

    #[test]
    fn a_failed_fetch_leads_to_the_plan_of_a_world_without_it(mut world in world(), choices in choices()) {
        // An attr whose output stays in its cache has been decided; if the same path cannot be fetched for another
        // recipe of it, that other is built, and nothing more is done for the attr.
        let twins: BTreeSet<usize> =
            world.drvs.iter().enumerate().filter_map(|(at, spec)| Some([at, spec.twin?])).flatten().collect();
        world.attrs.retain(|(drv, _)| !twins.contains(drv));
        // In the same way a result that stays in its cache is not looked at again when something below it is gone.
        world.fetch_roots = true;
        // Rings come from outputs of one drv; it matters when they are found out.
        for at in 0..world.drvs.len() {
            let own: Vec<StorePath> = (0..3).filter_map(|output| world.path(at, output)).collect();
            world.drvs[at].references.iter_mut().for_each(|references| references.retain(|to| !own.contains(to)));
        }
        let (outcome, failed, before) = run(&world, &choices);
        // Attrs come one after the other, before and between what fails.
        let first = |count| World { attrs: world.attrs[..count].to_vec(), ..world.clone() };
        let counts = 1..=world.attrs.len();
        let before: Vec<Items> = counts
            .flat_map(|count| before.iter().chain([&failed]).map(move |failed| (count, failed)))
            .map(|(count, failed)| reference(&first(count), failed).items)
            .collect();
        let items = expected(&world, &failed, &before, &outcome.items, volunteers(&choices));
        prop_assert_eq!(outcome.items, items);
    }
}
