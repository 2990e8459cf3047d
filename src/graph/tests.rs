//! Tests of the graph: stories by hand, and random graphs against naive recursion.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::testing::{cases, drv, drv_path, graph};
use super::{DrvInfo, Graph, OutputInfo};
use crate::id::DrvId;

fn ids(numbers: &[u32]) -> Vec<DrvId> {
    numbers.iter().copied().map(DrvId).collect()
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

#[test]
fn a_drv_is_known_by_path_before_it_is_loaded() {
    let mut graph = Graph::new();
    let app = graph.load(drv(7, &["out"], &[(3, &["dev", "out"])]));
    let lib = graph.get(&drv_path(3)).unwrap();
    assert_eq!(graph.len(), 2);
    assert_eq!(graph.path(lib), &drv_path(3));
    assert!(graph.info(lib).is_none() && graph.inputs(lib).next().is_none());
    assert_eq!(graph.users(lib).collect::<Vec<_>>(), [app]);
    assert_eq!(graph.inputs(app).collect::<Vec<_>>(), [(lib, &names(&["dev", "out"])[..])]);
    assert_eq!(graph.load(drv(3, &["out", "dev"], &[])), lib);
    assert_eq!(graph.info(lib).unwrap().name, "d3");
    assert_eq!(graph.output_path(lib, "dev"), Some(&super::testing::output_path(3, "dev")));
    assert_eq!(graph.output_path(lib, "doc"), None);
}

#[test]
fn loading_twice_changes_nothing() {
    let mut graph = Graph::new();
    let app = graph.load(drv(0, &["out"], &[(1, &["out"])]));
    graph.load(drv(0, &["out"], &[(1, &["out"]), (2, &["out"])]));
    assert_eq!(graph.inputs(app).count(), 1);
    assert_eq!(graph.len(), 2);
}

#[test]
fn inputs_keep_their_order_and_doubles_are_joined() {
    let mut graph = Graph::new();
    let app = graph.load(drv(0, &["out"], &[(5, &["out"]), (2, &["out"]), (5, &["dev", "out"]), (9, &["out"])]));
    let inputs: Vec<_> = graph.inputs(app).map(|(input, names)| (graph.path(input).clone(), names.to_vec())).collect();
    let expected = [(5, &["dev", "out"][..]), (2, &["out"]), (9, &["out"])];
    assert_eq!(inputs, expected.map(|(number, wanted)| (drv_path(number), names(wanted))));
}

#[test]
fn names_and_sets_of_names_are_shared() {
    let mut graph = Graph::new();
    let a = graph.load(drv(0, &["out"], &[(2, &["out"])]));
    let b = graph.load(drv(1, &["out"], &[(3, &["out"])]));
    let (_, of_a) = graph.inputs(a).next().unwrap();
    let (_, of_b) = graph.inputs(b).next().unwrap();
    assert!(std::ptr::eq(of_a, of_b));
    assert!(Arc::ptr_eq(&of_a[0], &graph.info(b).unwrap().outputs[0].name));
}

#[test]
fn a_ring_is_reported_and_nothing_hangs() {
    let ring = graph(&[vec![], vec![0, 3], vec![1], vec![2], vec![3]]);
    let found = ring.cycle().unwrap();
    assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from_iter(ids(&[1, 2, 3])));
    for (at, id) in found.iter().enumerate() {
        let next = found[(at + 1) % found.len()];
        assert!(ring.inputs(*id).any(|(input, _)| input == next), "{found:?}");
    }
    assert_eq!(ring.closure(&ids(&[4])).len(), 5);
    assert!(ring.critical_path(|_| Some(1.0)).is_some());
    assert_eq!(graph(&[vec![0]]).cycle(), Some(ids(&[0])));
    assert_eq!(graph(&[vec![], vec![0], vec![0, 1]]).cycle(), None);
}

#[test]
fn a_deep_chain_needs_no_deep_stack() {
    let chain = graph(&(0..100_000_u32).map(|at| at.checked_sub(1).into_iter().collect()).collect::<Vec<_>>());
    assert_eq!(chain.closure(&ids(&[99_999])).len(), 100_000);
    assert_eq!(chain.critical_path(|_| Some(1.0)).unwrap().seconds, 100_000.0);
    assert_eq!(chain.cycle(), None);
}

#[test]
fn a_path_ends_at_what_nobody_waits_for() {
    // 3 needs 2 needs 1 needs 0; 2 is there already, so 3 does not wait for 1 and 0.
    let chain = graph(&[vec![], vec![0], vec![1], vec![2]]);
    let cost = |id: DrvId| (id != DrvId(2)).then_some(1.0 + f64::from(id.0));
    assert_eq!(chain.longest_below(cost), [1.0, 3.0, 0.0, 4.0]);
    let path = chain.critical_path(cost).unwrap();
    assert_eq!((path.seconds, path.drvs), (4.0, ids(&[3])));
    assert_eq!(chain.critical_path(|_| None), None);
}

#[test]
fn what_is_downstream_of_a_floating_output_is_opaque_but_a_fixed_output_shields() {
    let mut floating = drv(0, &["out"], &[]);
    floating.outputs[0].path = None;
    let mut source = drv(1, &["out"], &[(0, &["out"])]);
    source.fixed_output = true;
    let mut graph = Graph::new();
    let app = graph.load(drv(3, &["out"], &[(1, &["out"])]));
    let tool = graph.load(drv(2, &["out"], &[(0, &["out"])]));
    let source = graph.load(source);
    assert!(!graph.is_opaque(tool));
    let floating = graph.load(floating);
    assert!(graph.is_opaque(floating) && graph.is_opaque(tool) && graph.is_opaque(source));
    assert!(!graph.is_opaque(app));
}

/// Inputs of each drv, all of smaller number.
fn dag() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let node = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    prop::collection::vec(node, 1..25).prop_map(|nodes| {
        let one = |(at, inputs): (usize, &Vec<prop::sample::Index>)| {
            let inputs: BTreeSet<u32> =
                inputs.iter().filter(|_| at > 0).map(|input| u32::try_from(input.index(at)).unwrap()).collect();
            inputs.into_iter().collect()
        };
        nodes.iter().enumerate().map(one).collect()
    })
}

fn naive_longest(inputs: &[Vec<u32>], costs: &[Option<u8>], at: usize) -> f64 {
    let Some(cost) = costs[at] else { return 0.0 };
    f64::from(cost) + inputs[at].iter().map(|input| naive_longest(inputs, costs, *input as usize)).fold(0.0, f64::max)
}

fn naive_closure(inputs: &[Vec<u32>], at: u32, into: &mut BTreeSet<u32>) {
    into.insert(at);
    for input in &inputs[at as usize] {
        naive_closure(inputs, *input, into);
    }
}

/// The same graph, loaded in another order. Kinds: 0 floating, 1 dynamic, 2 fixed, else plain.
fn loaded_as(inputs: &[Vec<u32>], kinds: &[u8], order: &[usize]) -> Graph {
    let mut graph = Graph::new();
    for number in 0..inputs.len() {
        graph.intern(&drv_path(u32::try_from(number).unwrap()));
    }
    for at in order {
        let wanted: Vec<(u32, &[&str])> = inputs[*at].iter().map(|input| (*input, &["out"][..])).collect();
        let mut info: DrvInfo = drv(u32::try_from(*at).unwrap(), &["out"], &wanted);
        if kinds[*at] == 0 {
            info.outputs = vec![OutputInfo { name: Arc::from("out"), path: None }];
        }
        info.dynamic = kinds[*at] == 1;
        info.fixed_output = kinds[*at] == 2;
        graph.load(info);
    }
    graph
}

fn naive_opaque(inputs: &[Vec<u32>], kinds: &[u8], at: usize) -> bool {
    let taints = |input: &u32| kinds[*input as usize] != 2 && naive_opaque(inputs, kinds, *input as usize);
    kinds[at] < 2 || inputs[at].iter().any(taints)
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn longest_paths_are_those_of_naive_recursion(
        inputs in dag(),
        costs in prop::collection::vec(prop::option::weighted(0.8, 0_u8..50), 25),
    ) {
        let graph = graph(&inputs);
        let cost = |id: DrvId| costs[id.index()].map(f64::from);
        let expected: Vec<f64> = (0..inputs.len()).map(|at| naive_longest(&inputs, &costs, at)).collect();
        prop_assert_eq!(&graph.longest_below(cost), &expected);
        let longest = expected.iter().copied().fold(0.0, f64::max);
        if let Some(path) = graph.critical_path(cost) {
            prop_assert_eq!(path.seconds, longest);
            prop_assert_eq!(path.drvs.iter().map(|id| cost(*id).unwrap()).sum::<f64>(), longest);
            for pair in path.drvs.windows(2) {
                prop_assert!(graph.inputs(pair[1]).any(|(input, _)| input == pair[0]));
            }
        }
    }

    #[test]
    fn a_closure_is_complete_and_has_inputs_first(inputs in dag(), root in any::<prop::sample::Index>()) {
        let graph = graph(&inputs);
        let root = u32::try_from(root.index(inputs.len())).unwrap();
        let closure = graph.closure(&[DrvId(root), DrvId(0)]);
        let mut expected = BTreeSet::from([0]);
        naive_closure(&inputs, root, &mut expected);
        prop_assert_eq!(closure.len(), expected.len());
        let mut seen = BTreeSet::new();
        for id in closure {
            prop_assert!(expected.contains(&id.0));
            for input in &inputs[id.index()] {
                prop_assert!(seen.contains(input));
            }
            seen.insert(id.0);
        }
    }

    #[test]
    fn opaqueness_does_not_depend_on_the_order_of_loading(
        inputs in dag(),
        kinds in prop::collection::vec(0_u8..12, 25),
        order in Just((0..25_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let order: Vec<usize> = order.into_iter().filter(|at| *at < inputs.len()).collect();
        let graph = loaded_as(&inputs, &kinds, &order);
        for at in 0..inputs.len() {
            let opaque = graph.is_opaque(DrvId(u32::try_from(at).unwrap()));
            prop_assert_eq!(opaque, naive_opaque(&inputs, &kinds, at), "drv {}", at);
        }
    }
}
