//! How many questions the plan of a package set takes, and how many times it has to wait for caches; worked out by the
//! planner alone, without any Nix.
#![allow(clippy::print_stderr, reason = "says what was counted")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover::diff::plan::{Decision, Found, PlanPolicy, Planner, Presence, Questions};
use drover::graph::{DrvInfo, Graph, OutputInfo, Work};
use drover::id::{AttrId, CacheId, StorePath, System};

use crate::support::package_set::cache::Cache;
use crate::support::package_set::oracle;
use crate::support::package_set::shape::Shape;
use crate::support::package_set::{OutputId, PackageSet};

/// How many drvs no cache has.
const MISSING: usize = 1514;

fn names(names: &[String]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(name.as_str())).collect()
}

fn info(set: &PackageSet, drv: usize) -> DrvInfo {
    let node = &set.shape.nodes[drv];
    let output =
        |(name, path): (&String, &StorePath)| OutputInfo { name: name.as_str().into(), path: Some(path.clone()) };
    DrvInfo {
        path: set.drvs[drv].path.clone(),
        name: node.name.clone(),
        system: System::from(set.shape.system.as_str()),
        outputs: node.outputs.iter().zip(&set.drvs[drv].outputs).map(output).collect(),
        inputs: node.inputs.iter().map(|(input, of)| (set.drvs[*input].path.clone(), names(of))).collect(),
        sources: Vec::new(),
        features: Vec::new(),
        prefer_local: node.prefer_local,
        substitutes: node.substitutes(),
        fixed_output: node.fixed,
        dynamic: false,
    }
}

/// What a plan took and came to.
#[derive(Debug, Default)]
struct Plan {
    trips: usize,
    asked: usize,
    built: BTreeSet<StorePath>,
}

/// Plans these roots; nothing is in the store, whose answers and .drv files cost nothing. `ahead`: the planner hears
/// that caches are asked.
fn plan(set: &PackageSet, cache: &Cache, roots: &[usize], ahead: bool) -> Plan {
    let drvs: BTreeMap<&StorePath, usize> = set.drvs.iter().enumerate().map(|(at, drv)| (&drv.path, at)).collect();
    let outputs: BTreeMap<&StorePath, OutputId> = set.outputs().map(|id| (set.path(id), id)).collect();
    let answer = |path: StorePath| match outputs.get(&path).and_then(|id| cache.records.get(id)) {
        Some(record) if record.signed => {
            let references = record.references.iter().map(|id| set.path(*id).clone()).collect();
            Found { references, ..Found::new(path, Presence::Present(CacheId(0))) }
        }
        Some(_) => Found::new(path, Presence::Untrusted),
        None => Found::new(path, Presence::Absent),
    };
    let (mut graph, mut planner) = (Graph::new(), Planner::new(PlanPolicy::default()));
    for (attr, root) in (0_u32..).zip(roots) {
        let drv = graph.intern(&set.drvs[*root].path);
        let wanted: Vec<String> =
            set.installed(*root).iter().map(|id| set.shape.nodes[id.drv].outputs[id.output].clone()).collect();
        planner.want(&graph, AttrId(attr), drv, names(&wanted));
    }
    let mut plan = Plan::default();
    loop {
        let mut trip = Vec::new();
        loop {
            let questions = planner.questions(&graph);
            if questions == Questions::default() {
                break;
            }
            for drv in &questions.load {
                let at = drvs[graph.path(*drv)];
                graph.load(info(set, at));
            }
            planner.loaded(&graph, &questions.load);
            // Caches have no say in the others.
            let (by_caches, by_store): (Vec<_>, Vec<_>) =
                questions.ask.into_iter().partition(|question| question.caches);
            let absent = by_store.into_iter().map(|question| Found::new(question.path, Presence::Absent));
            planner.answered(&graph, &absent.collect::<Vec<_>>());
            let paths: Vec<StorePath> = by_caches.into_iter().map(|question| question.path).collect();
            if ahead {
                planner.waits_for_caches(&paths);
            }
            trip.extend(paths);
        }
        if trip.is_empty() {
            break;
        }
        plan.trips += 1;
        plan.asked += trip.len();
        planner.answered(&graph, &trip.into_iter().map(answer).collect::<Vec<_>>());
    }
    for decision in planner.decisions(&graph) {
        if let Decision::Item { drv, work: Work::Build, .. } = decision {
            plan.built.insert(graph.path(drv).clone());
        }
    }
    plan
}

fn asks_little_and_waits_seldom(shape: Shape) {
    let set = PackageSet::new(shape, "/nix/store");
    let cache = Cache::lacking(&set, MISSING, 7);
    let all: Vec<usize> = set.shape.roots.values().copied().collect();
    // All roots, and the one that needs the most.
    let most = |root: &usize| oracle::of_drover(&set, &cache, [*root]).build.len();
    let some: Vec<usize> = all.iter().copied().step_by(all.len().div_ceil(40)).collect();
    let one = some.iter().copied().max_by_key(most).unwrap();
    for roots in [&all[..], &[one]] {
        let todo = oracle::of_drover(&set, &cache, roots.iter().copied());
        let (exact, ahead) = (plan(&set, &cache, roots, false), plan(&set, &cache, roots, true));
        let built: BTreeSet<StorePath> = todo.build.iter().map(|drv| set.drvs[*drv].path.clone()).collect();
        assert!(exact.built == built && ahead.built == built);
        assert_eq!(exact.asked, todo.asked.len(), "exactly what has to be asked");
        eprintln!(
            "{} roots, {} drvs to build: {} questions in {} round trips; asked ahead {} in {}",
            roots.len(),
            built.len(),
            exact.asked,
            exact.trips,
            ahead.asked,
            ahead.trips
        );
        assert!(ahead.asked as f64 <= 1.15 * exact.asked as f64 + 48.0, "{} questions", ahead.asked);
        assert!(ahead.trips < exact.trips, "{} round trips", ahead.trips);
    }
}

#[test]
fn a_real_package_set_takes_few_round_trips() {
    match Shape::real() {
        Some(shape) => asks_little_and_waits_seldom(shape),
        None => eprintln!("left out: package-set.json.zst is neither in $DROVER_GRAPHS nor in shared/graphs"),
    }
}

#[test]
fn a_generated_package_set_takes_few_round_trips() {
    asks_little_and_waits_seldom(Shape::generated(1));
}
