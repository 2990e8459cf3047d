//! From .drv texts to what must be built: the graph, walks over it, and the plan.

use drover::diff::load;
use drover::diff::lockstep::{Lockstep, Masks};
use drover::diff::plan::{Decision, Found, PlanPolicy, Planner, Presence, Questions};
use drover::graph::{DrvInfo, Graph};
use drover::id::{AttrId, CacheId, DrvId, StoreDir, StorePath};
use drover::nix_compat::drv::{self, Derivation};

use super::Work;
use super::set::{Drv, inputs};

/// Paths that are answered at a time.
const BATCH: usize = 256;

fn of(number: usize) -> Drv {
    Drv { number, salt: 0 }
}

fn parse(text: &str, path: &StorePath) -> Derivation {
    drv::parse(text.as_bytes(), path, &StoreDir::default()).unwrap()
}

fn read(text: &str, path: &StorePath) -> DrvInfo {
    load::info(path, &parse(text, path)).unwrap()
}

fn loaded(size: usize) -> Graph {
    let mut graph = Graph::new();
    for number in 0..size {
        graph.load(read(&of(number).text(), &of(number).path()));
    }
    assert_eq!(graph.len(), size, "what is needed comes before what needs it");
    graph
}

pub(crate) fn graph(size: usize) -> Work {
    let texts: Vec<(StorePath, String)> = (0..size).map(|number| (of(number).path(), of(number).text())).collect();
    Box::new(move || {
        let mut graph = Graph::new();
        for (path, text) in &texts {
            graph.load(read(text, path));
        }
        assert_eq!(graph.len(), texts.len());
        std::mem::forget(graph);
    })
}

pub(crate) fn walk(size: usize) -> Work {
    let graph = loaded(size);
    Box::new(move || {
        let roots: Vec<DrvId> = (0..size).step_by(3).map(id).collect();
        assert!(graph.closure(&roots).len() > size / 2);
        assert_eq!(graph.cycle(), None);
        assert!(graph.critical_path(|drv| Some(f64::from(drv.0 % 60))).unwrap().drvs.len() > 20);
        std::mem::forget(graph);
    })
}

fn id(number: usize) -> DrvId {
    DrvId(u32::try_from(number).unwrap())
}

fn must_be_built(number: usize) -> bool {
    number % 8 == 7
}

/// What a cache says of an output: a present one refers to outputs of present inputs.
fn found(number: usize, output: &str) -> Found {
    let presence = if must_be_built(number) { Presence::Absent } else { Presence::Present(CacheId(0)) };
    let mut found = Found::new(of(number).output(output), presence);
    if !must_be_built(number) {
        let referred = inputs(number).into_iter().filter(|input| !must_be_built(*input)).take(4);
        found.references = referred.map(|input| of(input).output("out")).collect();
        (found.nar_size, found.file_size) = (100_000, 30_000);
    }
    found
}

pub(crate) fn presence(size: usize) -> Work {
    let graph = loaded(size);
    let answers: std::collections::BTreeMap<StorePath, Found> = (0..size)
        .flat_map(|number| of(number).outputs().iter().map(move |output| found(number, output)))
        .map(|found| (found.path.clone(), found))
        .collect();
    Box::new(move || {
        let mut planner = Planner::new(PlanPolicy::default());
        let roots = (0..size).step_by(3);
        let wanted = roots.clone().count();
        for (attr, root) in (0..).zip(roots) {
            planner.want(&graph, AttrId(attr), id(root), vec!["out".into()]);
        }
        let mut decided = 0;
        loop {
            let Questions { load, ask } = planner.questions(&graph);
            if load.is_empty() && ask.is_empty() {
                break;
            }
            let paths: Vec<StorePath> = ask.into_iter().map(|question| question.path).collect();
            planner.waits_for_caches(&paths);
            planner.loaded(&graph, &load);
            for batch in paths.chunks(BATCH) {
                let batch: Vec<Found> = batch.iter().map(|path| answers[path].clone()).collect();
                planner.answered(&graph, &batch);
                decided += attrs(&planner.decisions(&graph));
            }
        }
        decided += attrs(&planner.decisions(&graph));
        assert_eq!(decided, wanted, "every attr is decided");
        std::mem::forget((graph, answers, planner));
    })
}

fn attrs(decisions: &[Decision]) -> usize {
    decisions.iter().filter(|decision| matches!(decision, Decision::Attr { .. })).count()
}

pub(crate) fn lockstep(size: usize) -> Work {
    let side = |salt| (0..size).map(move |number| Drv { number, salt });
    let known: std::collections::BTreeMap<StorePath, Derivation> =
        side(1).chain(side(2)).map(|drv| (drv.path(), parse(&drv.text(), &drv.path()))).collect();
    Box::new(move || {
        let mut lockstep = Lockstep::new(Masks::default());
        for number in (0..size).step_by(3) {
            lockstep.compare(&Drv { number, salt: 1 }.path(), &Drv { number, salt: 2 }.path());
        }
        let mut asked = 0;
        loop {
            let questions = lockstep.questions();
            if questions.is_empty() {
                break;
            }
            asked += questions.len();
            questions.iter().for_each(|path| lockstep.loaded(path, known[path].clone()));
        }
        assert!(asked > size, "both sides are read");
        let pairs: Vec<(StorePath, StorePath)> = (0..size)
            .step_by(3)
            .map(|number| (Drv { number, salt: 1 }.path(), Drv { number, salt: 2 }.path()))
            .collect();
        assert!(!lockstep.causes(pairs.iter().map(|(base, head)| (base, head))).is_empty());
        std::mem::forget((lockstep, known));
    })
}
