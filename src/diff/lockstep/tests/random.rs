//! Random graphs with planted changes: exactly those are found, each by a way that exists.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::world::{Spec, World, answer};
use crate::diff::lockstep::{CauseKind, Lockstep, Masks};
use crate::graph::testing::cases;

/// For each drv what it needs of those before it, whether it shares its name with others, and what is changed in it.
#[derive(Debug, Clone)]
struct Plant {
    drvs: Vec<(BTreeSet<usize>, bool, Option<u8>)>,
    masked: bool,
}

fn plants() -> impl Strategy<Value = Plant> {
    let change = prop_oneof![6 => Just(None), 1 => (0_u8..6).prop_map(Some)];
    let drvs = prop::collection::vec(
        (prop::collection::vec(any::<prop::sample::Index>(), 0..4), prop::bool::weighted(0.2), change),
        1..40,
    );
    (drvs, any::<bool>()).prop_map(|(drvs, masked)| {
        let resolved = drvs.into_iter().enumerate().map(|(at, (inputs, shared, change))| {
            let inputs = if at == 0 { BTreeSet::new() } else { inputs.iter().map(|input| input.index(at)).collect() };
            (inputs, shared, change)
        });
        Plant { drvs: resolved.collect(), masked }
    })
}

const REVS: (&str, &str) = ("0a1b2c3d4e5f60718293a4b5c6d7e8f901234567", "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432");

fn spec(at: usize, plant: &(BTreeSet<usize>, bool, Option<u8>), head: bool) -> Spec {
    let (inputs, shared, change) = plant;
    // `id` tells those apart that share a name.
    let name = if *shared { "source".to_owned() } else { format!("d{at}-1.0") };
    let inputs: Vec<usize> = inputs.iter().copied().collect();
    let mut spec = Spec::new(&name, &inputs).var("id", &format!("number {at}"));
    spec.sources = vec![("src", format!("s{at}"), "old".into())];
    if !head {
        return spec.var("rev", REVS.0);
    }
    match change {
        Some(0) => spec.args = vec!["new".into()],
        Some(1) => spec.builder = Some("/bin/other".into()),
        Some(2) => spec.sources[0].2 = "new".into(),
        Some(3) => spec = spec.var("more", "text"),
        Some(4) => spec.sources.push(("patches", "new.patch".into(), "new".into())),
        Some(5) => return spec.var("rev", REVS.1),
        _ => {}
    }
    spec.var("rev", REVS.0)
}

/// What a drv needs, by any way, itself included.
fn below(plant: &Plant, root: usize) -> BTreeSet<usize> {
    let (mut seen, mut stack) = (BTreeSet::new(), vec![root]);
    while let Some(at) = stack.pop() {
        if seen.insert(at) {
            stack.extend(&plant.drvs[at].0);
        }
    }
    seen
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn the_causes_are_the_planted_changes_below(plant in plants()) {
        let base = World::of(&plant.drvs.iter().enumerate().map(|(at, it)| spec(at, it, false)).collect::<Vec<_>>());
        let head = World::of(&plant.drvs.iter().enumerate().map(|(at, it)| spec(at, it, true)).collect::<Vec<_>>());
        let numbers: BTreeMap<_, _> = head.drvs.iter().enumerate().map(|(at, (path, _))| (path, at)).collect();
        let masks = if plant.masked {
            Masks { texts: vec![(REVS.0.into(), REVS.1.into())], sources: vec![] }
        } else {
            Masks::default()
        };
        let mut lockstep = Lockstep::new(masks);
        for at in 0..plant.drvs.len() {
            lockstep.compare(base.path(at), head.path(at));
        }
        answer(&mut lockstep, &[&base, &head]);
        for at in 0..plant.drvs.len() {
            let why = lockstep.why(base.path(at), head.path(at)).unwrap();
            let planted: BTreeSet<usize> =
                below(&plant, at).into_iter().filter(|at| plant.drvs[*at].2.is_some()).collect();
            let found: BTreeSet<usize> = why.causes.iter().flat_map(|reached| &reached.drvs).map(|(_, head)| numbers[head]).collect();
            prop_assert_eq!(&found, &planted, "of {}", at);
            prop_assert_eq!(why.causes.iter().map(|reached| reached.count).sum::<usize>(), planted.len());
            let only_rev = plant.masked && !planted.is_empty() && planted.iter().all(|at| plant.drvs[*at].2 == Some(5));
            prop_assert_eq!(why.revision_only, only_rev);
            for reached in &why.causes {
                prop_assert_eq!(&reached.drvs[0].1, &reached.cause.head);
                let kinds: BTreeSet<Option<u8>> =
                    reached.drvs.iter().map(|(_, head)| plant.drvs[numbers[head]].2).collect();
                prop_assert_eq!(kinds.len(), 1, "only what says the same is one cause");
                let is_rev = plant.masked && plant.drvs[numbers[&reached.cause.head]].2 == Some(5);
                prop_assert_eq!(reached.cause.kind == CauseKind::Revision, is_rev);
                let chain: Vec<usize> = reached.chain.iter().map(|(_, head)| numbers[head]).collect();
                prop_assert_eq!((chain[0], chain[chain.len() - 1]), (at, numbers[&reached.cause.head]));
                for step in chain.windows(2) {
                    prop_assert!(plant.drvs[step[0]].0.contains(&step[1]), "{:?} is no way", chain);
                }
            }
        }
    }
}
