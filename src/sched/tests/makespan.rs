//! How long simulated runs take, against what no schedule could do better.

use super::super::{Builder, Item, Policy};
use super::simulate::{Faults, Random, Simulation, World};
use super::{build, builder};
use crate::event::DrvOutcome;
use crate::id::DrvId;

const SHAPES: [&str; 5] = ["chains", "wide", "fork-join", "layered", "fleet"];

/// Seconds: most take little, a few take long.
fn cost(random: &mut Random) -> f64 {
    match random.below(10) {
        0 => 20.0 + 40.0 * random.share(),
        1..4 => 5.0 + 15.0 * random.share(),
        _ => 0.5 + 5.0 * random.share(),
    }
}

/// A graph of this shape, wide enough for so many slots to be worth it.
fn graph(shape: &str, slots: u32, random: &mut Random) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let add = |items: &mut Vec<Item>, inputs: &[u32], random: &mut Random| -> u32 {
        let drv = u32::try_from(items.len()).unwrap();
        items.push(Item { cost: cost(random), ..build(drv, inputs) });
        drv
    };
    match shape {
        "chains" => {
            for _ in 0..slots * (1 + random.below(4)) {
                let mut last: Option<u32> = None;
                for _ in 0..1 + random.below(20) {
                    let inputs: Vec<u32> = last.into_iter().collect();
                    last = Some(add(&mut items, &inputs, random));
                }
            }
        }
        "wide" => {
            for _ in 0..slots * (6 + random.below(12)) {
                add(&mut items, &[], random);
            }
        }
        "fork-join" => {
            let mut join = add(&mut items, &[], random);
            for _ in 0..2 + random.below(4) {
                let wide = slots * (6 + random.below(6));
                let fork: Vec<u32> = (0..wide).map(|_| add(&mut items, &[join], random)).collect();
                join = add(&mut items, &fork, random);
            }
        }
        "layered" => {
            let mut below: Vec<u32> = Vec::new();
            for _ in 0..3 + random.below(8) {
                let wide = slots * (2 + random.below(6));
                let one = |items: &mut Vec<Item>, random: &mut Random| {
                    let many = random.below(4) as usize;
                    let mut pick = || below.get(random.below(1000) as usize % below.len().max(1)).copied();
                    let inputs: Vec<u32> = (0..many).filter_map(|_| pick()).collect();
                    add(items, &inputs, random)
                };
                let layer: Vec<u32> = (0..wide).map(|_| one(&mut items, random)).collect();
                below = layer;
            }
        }
        _ => {
            // A base that all need, packages that some need, and hosts that need many of them.
            let mut base = add(&mut items, &[], random);
            for _ in 0..random.below(4) {
                base = add(&mut items, &[base], random);
            }
            let packages: Vec<u32> =
                (0..slots * (6 + random.below(10))).map(|_| add(&mut items, &[base], random)).collect();
            for _ in 0..slots * (2 + random.below(3)) {
                let inputs: Vec<u32> = (0..5).map(|_| packages[random.below(1000) as usize % packages.len()]).collect();
                let etc = add(&mut items, &inputs, random);
                add(&mut items, &[etc], random);
            }
        }
    }
    items
}

/// 1 to 6 builders of 1 to 4 slots, up to four times as fast as each other.
fn builders(random: &mut Random) -> Vec<Builder> {
    let speeds = [0.5, 1.0, 1.0, 1.0, 1.5, 2.0];
    let one = |id: u32, random: &mut Random| Builder {
        speed: speeds[random.below(6) as usize],
        ..builder(id, 1 + random.below(4))
    };
    (0..1 + random.below(6)).map(|id| one(id, random)).collect()
}

/// No schedule takes less: the longest chain on the fastest builder, and all work shared by all slots as if it could
/// be cut at will.
fn bound(world: &World) -> f64 {
    let fastest = world.builders.iter().map(|builder| builder.speed).fold(0.0, f64::max);
    let speed: f64 = world.builders.iter().map(|builder| f64::from(builder.slots) * builder.speed).sum();
    let work: f64 = world.items.iter().map(|item| item.cost).sum();
    let mut ends: Vec<f64> = Vec::new();
    for item in &world.items {
        let begin = item.inputs.iter().map(|input| ends[input.index()]).fold(0.0, f64::max);
        ends.push(begin + item.cost);
    }
    let chain = ends.iter().copied().fold(0.0, f64::max);
    (chain / fastest).max(work / speed)
}

/// Bytes a second, and seconds for each transfer.
const MODERATE: (f64, f64) = (100e6, 0.01);

/// As many graphs of each shape, the same each time.
fn worlds(many: usize, link: (f64, f64), error: f64) -> Vec<(&'static str, World)> {
    let one = |at: usize| {
        let seed = at as u64 + 1;
        let mut random = Random::new(seed);
        let builders = builders(&mut random);
        let slots = builders.iter().map(|builder| builder.slots).sum();
        let shape = SHAPES[at % SHAPES.len()];
        let items = graph(shape, slots, &mut random);
        let sizes = items.iter().map(|_| u64::from(random.below(2000)) * u64::from(random.below(2000))).collect();
        let policy = Policy::default();
        (shape, World { items, sizes, builders, policy, link, error, faults: None, seed })
    };
    (0..many).map(one).collect()
}

/// Prints a table, and gives the mean and the largest ratio of what a run took to what it had to take at least.
fn measure(title: &str, worlds: &[(&'static str, World)]) -> (f64, f64) {
    let mut all: Vec<(&str, f64)> = Vec::new();
    for (shape, world) in worlds {
        let mut simulation = Simulation::new(world);
        let seconds = simulation.play();
        let built = simulation.outcomes.values().filter(|words| *words == &[DrvOutcome::Built]).count();
        assert_eq!(built, world.items.len());
        let ratio = seconds / bound(world);
        assert!(ratio > 0.999 || world.error > 0.0, "{shape} took less than is possible");
        all.push((shape, ratio));
    }
    println!("{title}");
    println!("  {:10} {:>6} {:>7} {:>7}", "shape", "graphs", "mean", "most");
    let row = |name: &str, ratios: &[f64]| {
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let most = ratios.iter().copied().fold(0.0, f64::max);
        println!("  {name:10} {:>6} {mean:>7.3} {most:>7.3}", ratios.len());
        (mean, most)
    };
    for shape in SHAPES {
        let ratios: Vec<f64> = all.iter().filter(|(name, _)| *name == shape).map(|(_, ratio)| *ratio).collect();
        row(shape, &ratios);
    }
    row("all", &all.iter().map(|(_, ratio)| *ratio).collect::<Vec<_>>())
}

#[test]
fn runs_take_little_more_than_they_must() {
    let (mean, most) = measure("durations as expected, nothing to bring", &worlds(200, (1e12, 0.0), 0.0));
    assert!(mean <= 1.15 && most <= 1.5, "{mean} {most}");
}

#[test]
fn transfers_are_hidden_behind_builds() {
    // 0 to 4 MB for each output, 100 MB/s and 10 ms.
    let (mean, most) = measure("durations as expected, moderate transfers", &worlds(200, MODERATE, 0.0));
    assert!(mean <= 1.15 && most <= 1.5, "{mean} {most}");
}

#[test]
fn wrong_expectations_cost_little() {
    let worlds = worlds(60, MODERATE, 0.5);
    let (mean, most) = measure("durations up to 50 % off, moderate transfers", &worlds);
    assert!(mean <= 1.2 && most <= 1.6, "{mean} {most}");
}

/// Whether what a drv needs is broken.
fn spoilt(world: &World, broken: &dyn Fn(DrvId) -> bool) -> Vec<bool> {
    let mut spoilt: Vec<bool> = Vec::new();
    for item in &world.items {
        let below = item.inputs.iter().any(|input| spoilt[input.index()]);
        spoilt.push(below || broken(item.drv));
    }
    spoilt
}

#[test]
fn whatever_happens_to_builders_each_drv_is_built_or_fails_for_a_reason() {
    let (mut remade, mut failed) = (0, 0);
    for (shape, mut world) in worlds(60, MODERATE, 0.3) {
        if world.builders.len() < 2 {
            continue;
        }
        world.faults = Some(Faults { losses: 8, within: 120, bad_ends: 3, broken: 1 });
        world.policy.retries = 20;
        let mut simulation = Simulation::new(&world);
        simulation.play();
        let last = |drv: DrvId| simulation.outcomes.get(&drv).and_then(|words| words.last());
        // Signals and the like only count once, so a few drvs may fail by bad luck.
        let broken = |drv: DrvId| matches!(last(drv), Some(DrvOutcome::Failed(_)));
        let spoilt = spoilt(&world, &broken);
        for item in &world.items {
            let built = last(item.drv) == Some(&DrvOutcome::Built);
            assert_eq!(built, !spoilt[item.drv.index()], "{shape} {:?} {:?}", item.drv, last(item.drv));
        }
        remade += simulation.outcomes.values().filter(|words| words.len() > 1).count();
        failed += world.items.iter().filter(|item| broken(item.drv)).count();
    }
    println!("{remade} drvs were made again, {failed} failed");
    assert!(remade > 10 && failed > 10, "nothing went wrong: {remade} {failed}");
}
