//! What every packing keeps to, and how good it is against the best one, which is found by trying all.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{AttrWork, DrvWork, Limits, Packing, TooFewRows, Work, pack};
use crate::graph::testing::cases;
use crate::id::System;

const SYSTEMS: [&str; 2] = ["x86_64-linux", "aarch64-linux"];

fn attr(system: usize, drvs: &[usize]) -> AttrWork {
    AttrWork { system: System::from(SYSTEMS[system]), drvs: drvs.iter().copied().collect() }
}

fn drv(seconds: f64) -> DrvWork {
    DrvWork { seconds, features: Vec::new() }
}

fn limits(rows: usize) -> Limits {
    Limits { rows, least: 0.0, split: false }
}

/// Attrs over a graph: drvs need drvs of smaller numbers, and an attr is a drv with all below it.
fn work(most_attrs: usize, systems: usize, with_features: bool) -> impl Strategy<Value = Work> {
    let drvs = prop::collection::vec((0..60_u32, prop::collection::vec(any::<prop::sample::Index>(), 0..2)), 1..24);
    let attrs = prop::collection::vec((0..systems, any::<prop::sample::Index>()), 0..most_attrs);
    let features = prop::collection::vec(0..12_usize, 24);
    (drvs, attrs, features).prop_map(move |(shape, attrs, features)| {
        let mut below: Vec<BTreeSet<usize>> = Vec::new();
        for (at, (_, inputs)) in shape.iter().enumerate() {
            let mut all = BTreeSet::from([at]);
            if at > 0 {
                inputs.iter().for_each(|input| all.extend(below[input.index(at)].iter().copied()));
            }
            below.push(all);
        }
        let named = |at: usize| match features[at] {
            0 if with_features => vec!["kvm".to_owned()],
            1 if with_features => vec!["big-parallel".to_owned()],
            _ => Vec::new(),
        };
        let cost =
            |(at, (seconds, _)): (usize, &(u32, _))| DrvWork { seconds: f64::from(*seconds), features: named(at) };
        let attr = |(system, top): (usize, prop::sample::Index)| AttrWork {
            system: System::from(SYSTEMS[system]),
            drvs: below[top.index(below.len())].clone(),
        };
        Work { drvs: shape.iter().enumerate().map(cost).collect(), attrs: attrs.into_iter().map(attr).collect() }
    })
}

/// What holds for every packing, whatever its quality.
fn holds(work: &Work, limits: Limits, packing: &Packing) -> Result<(), TestCaseError> {
    prop_assert!(packing.rows.len() <= limits.rows);
    // All attrs with work, each once.
    let mut packed: Vec<usize> = packing.rows.iter().flat_map(|row| row.attrs.iter().copied()).collect();
    packed.sort_unstable();
    let wanted: Vec<usize> = (0..work.attrs.len()).filter(|at| !work.attrs[*at].drvs.is_empty()).collect();
    prop_assert_eq!(packed, wanted);
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, row) in packing.rows.iter().enumerate() {
        let drvs: BTreeSet<usize> = row.attrs.iter().flat_map(|attr| work.attrs[*attr].drvs.iter().copied()).collect();
        prop_assert!(row.attrs.iter().all(|attr| work.attrs[*attr].system == row.system));
        let features: BTreeSet<String> = drvs.iter().flat_map(|drv| work.drvs[*drv].features.clone()).collect();
        prop_assert_eq!(&features, &row.features);
        let seconds: f64 = drvs.iter().map(|drv| work.drvs[*drv].seconds).sum();
        prop_assert!((seconds - row.seconds).abs() < 1e-6);
        prop_assert_eq!(&drvs, &row.drvs);
        drvs.into_iter().for_each(|drv| places.entry(drv).or_default().push(at));
    }
    // Exactly the stated duplicates.
    places.retain(|_, rows| rows.len() > 1);
    prop_assert_eq!(&places, &packing.shared);
    if !limits.split {
        for rows in packing.shared.values() {
            let systems: BTreeSet<&System> = rows.iter().map(|row| &packing.rows[*row].system).collect();
            prop_assert_eq!(systems.len(), rows.len(), "a drv is twice in rows of one system");
        }
    }
    Ok(())
}

/// Sets of attrs of one system that hang together, found by looking at all pairs until nothing changes.
fn naive_clusters(work: &Work) -> Vec<(System, BTreeSet<usize>, BTreeSet<usize>)> {
    let mut clusters: Vec<(System, BTreeSet<usize>, BTreeSet<usize>)> = Vec::new();
    for (at, attr) in work.attrs.iter().enumerate().filter(|(_, attr)| !attr.drvs.is_empty()) {
        let mut new = (attr.system.clone(), BTreeSet::from([at]), attr.drvs.clone());
        let (touching, apart): (Vec<_>, Vec<_>) =
            clusters.into_iter().partition(|(system, _, drvs)| *system == new.0 && !drvs.is_disjoint(&new.2));
        for (_, attrs, drvs) in touching {
            new.1.extend(attrs);
            new.2.extend(drvs);
        }
        clusters = apart;
        clusters.push(new);
    }
    clusters
}

/// The shortest longest row of all ways to put whole clusters into at most so many rows, each of one system and of
/// clusters that need the same features; `None` if there are fewer rows than such classes.
fn optimum(work: &Work, rows: usize) -> Option<f64> {
    let clusters: Vec<((System, BTreeSet<String>), f64)> = naive_clusters(work)
        .into_iter()
        .map(|(system, _, drvs)| {
            let features = drvs.iter().flat_map(|drv| work.drvs[*drv].features.clone()).collect();
            ((system, features), drvs.iter().map(|drv| work.drvs[*drv].seconds).sum())
        })
        .collect();
    let classes: BTreeSet<_> = clusters.iter().map(|(class, _)| class).collect();
    if classes.len() > rows {
        return None;
    }
    let mut best = f64::INFINITY;
    try_all(&clusters, rows, &mut Vec::new(), &mut best);
    Some(best)
}

type Class = (System, BTreeSet<String>);

fn try_all(left: &[(Class, f64)], rows: usize, open: &mut Vec<(Class, f64)>, best: &mut f64) {
    let Some(((class, seconds), rest)) = left.split_first() else {
        *best = best.min(open.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max));
        return;
    };
    for at in 0..open.len() {
        if open[at].0 == *class {
            open[at].1 += seconds;
            try_all(rest, rows, open, best);
            open[at].1 -= seconds;
        }
    }
    if open.len() < rows {
        open.push((class.clone(), *seconds));
        try_all(rest, rows, open, best);
        open.pop();
    }
}

fn longest(packing: &Packing) -> f64 {
    packing.rows.iter().map(|row| row.seconds).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn every_packing_covers_all_and_states_its_duplicates(
        work in work(40, 2, true), rows in 1..12_usize, least in 0..200_u32, split in any::<bool>(),
    ) {
        let limits = Limits { rows, least: f64::from(least), split };
        let systems: BTreeSet<&System> =
            work.attrs.iter().filter(|attr| !attr.drvs.is_empty()).map(|attr| &attr.system).collect();
        match pack(&work, limits) {
            Ok(packing) => holds(&work, limits, &packing)?,
            Err(TooFewRows { .. }) => prop_assert!(systems.len() > rows),
        }
    }

    #[test]
    fn the_longest_row_is_within_a_third_of_the_best(work in work(9, 2, true), rows in 1..5_usize) {
        if let Some(best) = optimum(&work, rows) {
            let packing = pack(&work, limits(rows)).unwrap();
            holds(&work, limits(rows), &packing)?;
            prop_assert!(longest(&packing) <= best * 4.0 / 3.0 + 1e-6, "{} > 4/3 × {best}", longest(&packing));
        }
    }

    #[test]
    fn giving_up_on_clusters_never_makes_the_longest_row_longer_than_all_in_one(
        work in work(20, 1, false), rows in 1..6_usize,
    ) {
        let split = pack(&work, Limits { split: true, ..limits(rows) }).unwrap();
        let one = pack(&work, limits(1)).unwrap();
        prop_assert!(longest(&split) <= longest(&one) + 1e-6);
    }
}

#[test]
fn attrs_that_share_a_drv_stay_together() {
    // 0 and 2 share drv 1; 1 is alone.
    let work = Work {
        drvs: vec![drv(100.0), drv(10.0), drv(90.0), drv(80.0)],
        attrs: vec![attr(0, &[0, 1]), attr(0, &[3]), attr(0, &[1, 2]), attr(0, &[])],
    };
    let packing = pack(&work, limits(8)).unwrap();
    let attrs: Vec<&[usize]> = packing.rows.iter().map(|row| &*row.attrs).collect();
    assert_eq!(attrs, [&[0, 2][..], &[1]]);
    assert!(packing.shared.is_empty());
    let split = pack(&work, Limits { split: true, ..limits(8) }).unwrap();
    assert_eq!(split.rows.len(), 3);
    assert_eq!(split.shared, BTreeMap::from([(1, vec![0, 1])]));
}

#[test]
fn two_systems_are_two_rows_and_what_both_need_is_stated() {
    let work = Work { drvs: vec![drv(1.0), drv(2.0)], attrs: vec![attr(0, &[0, 1]), attr(1, &[0])] };
    let packing = pack(&work, Limits { least: 600.0, ..limits(8) }).unwrap();
    assert_eq!(packing.rows.len(), 2);
    assert_eq!(packing.shared, BTreeMap::from([(0, vec![0, 1])]));
    let error = pack(&work, limits(1)).unwrap_err();
    assert_eq!(error.systems.len(), 2);
}

#[test]
fn little_work_is_one_row_and_no_more_rows_than_help() {
    let work =
        Work { drvs: vec![drv(50.0), drv(30.0), drv(30.0), drv(20.0)], attrs: (0..4).map(|n| attr(0, &[n])).collect() };
    let rows = |least: f64, rows: usize| pack(&work, Limits { least, ..limits(rows) }).unwrap().rows.len();
    assert_eq!(rows(100.0, 256), 1, "130s are not worth a second machine");
    assert_eq!(rows(60.0, 256), 2);
    assert_eq!(rows(0.0, 256), 3, "nothing is shorter than 50s, and 30s and 20s are not longer");
    assert!(pack(&Work::default(), limits(4)).unwrap().rows.is_empty());
}

#[test]
fn features_are_apart_unless_that_is_not_worth_it() {
    let kvm = DrvWork { seconds: 40.0, features: vec!["kvm".into()] };
    let work = Work { drvs: vec![kvm, drv(40.0)], attrs: vec![attr(0, &[0]), attr(0, &[1])] };
    let features = |limits: Limits| -> Vec<Vec<String>> {
        pack(&work, limits).unwrap().rows.into_iter().map(|row| row.features.into_iter().collect()).collect()
    };
    assert_eq!(features(limits(4)), [vec!["kvm".to_owned()], vec![]]);
    assert_eq!(features(limits(1)), [vec!["kvm".to_owned()]]);
    assert_eq!(features(Limits { least: 60.0, ..limits(4) }), [vec!["kvm".to_owned()]]);
}
