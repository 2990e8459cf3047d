//! Schedules the package set on simulated builders in virtual time: seconds and memory.

use std::time::Instant;

use drover::graph::Work;
use drover::id::{BuilderId, DrvId, System};
use drover::sched::{Builder, Course, Item, Policy, forecast};

use super::graph::{memory, processor_seconds};
use super::package_set::random::Random;
use super::package_set::shape::Shape;
use super::rows::Part;

/// Builders, and the slots of each.
const BUILDERS: u32 = 8;
const SLOTS: u32 = 8;

/// Each round is a process of its own.
pub(crate) fn measure(rounds: usize) {
    for round in 1..=rounds {
        let output = std::process::Command::new(std::env::current_exe().unwrap()).arg("schedule").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().last().unwrap();
        let numbers: Vec<f64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [drvs, wall, cpu, peak, simulated, least] = numbers[..] else { panic!("{text}") };
        println!(
            "round {round}: {drvs} drvs in {wall:.3} s, {cpu:.2} s of all processors, {peak:.0} MB at most; simulated \
             {simulated:.0} s, at least {least:.0} s"
        );
        let part = |unit| Part { bench: "sched", part: "12,902 drvs, 8 x 8", unit };
        part("s").drover(cpu, 1.5);
        part("MB").drover(peak, 200.0);
    }
}

/// Schedules all; prints how many drvs, seconds, seconds of all processors, by how many MB the process has grown at
/// most, and the seconds of the schedule and of what it has to take at least.
pub(crate) fn schedule() {
    let shape = super::the_shape();
    let mut random = Random::new(7);
    let items: Vec<Item> = (0..shape.nodes.len()).map(|at| item(&shape, at, &mut random)).collect();
    let sizes: Vec<(DrvId, u64)> = items.iter().map(|item| (item.drv, random.below(8 << 20) as u64)).collect();
    let builders: Vec<Builder> = (0..BUILDERS).map(|id| builder(&shape, id)).collect();
    let least = least(&items, &builders);
    let (before, _) = memory();
    let (start, busy) = (Instant::now(), processor_seconds());
    let course = Course::at_once(items, builders, Policy { fetch_where_needed: true, ..Policy::default() });
    let told = forecast(Course { sizes, ..course });
    let (wall, cpu) = (start.elapsed().as_secs_f64(), processor_seconds() - busy);
    let (_, peak) = memory();
    assert_eq!(told.planned.len(), shape.nodes.len(), "every drv is built");
    println!("{} {wall} {cpu} {} {} {least}", told.planned.len(), peak - before, told.seconds);
}

fn item(shape: &Shape, at: usize, random: &mut Random) -> Item {
    let node = &shape.nodes[at];
    let id = |drv: usize| DrvId(u32::try_from(drv).unwrap());
    let seconds = if node.fixed || node.prefer_local { random.between(1, 20) } else { random.between(10, 600) };
    Item {
        drv: id(at),
        work: Work::Build,
        inputs: node.inputs.iter().map(|(input, _)| id(*input)).collect(),
        there: Vec::new(),
        system: System(node.system.clone().unwrap_or_else(|| shape.system.clone())),
        features: node.features.clone(),
        local_only: false,
        here: false,
        fixed_output: node.fixed,
        prefer_local: node.prefer_local,
        cost: seconds as f64 / 10.0,
        ahead: 0.0,
    }
}

fn builder(shape: &Shape, id: u32) -> Builder {
    let systems = shape.nodes.iter().filter_map(|node| node.system.clone()).chain([shape.system.clone()]);
    let features = shape.nodes.iter().flat_map(|node| node.features.iter().cloned()).collect();
    Builder {
        id: BuilderId(id),
        name: format!("big{id}"),
        slots: SLOTS,
        systems: systems.map(System).collect(),
        features,
        mandatory: [].into(),
        speed: 1.0 + f64::from(id % 3) / 2.0,
        local: id == 0,
        trusting: true,
    }
}

/// Seconds that no schedule can do with less of: the longest chain on the fastest builder, and all that takes slots
/// shared by all slots.
fn least(items: &[Item], builders: &[Builder]) -> f64 {
    let fastest = builders.iter().map(|builder| builder.speed).fold(0.0, f64::max);
    let speed: f64 = builders.iter().map(|builder| f64::from(builder.slots) * builder.speed).sum();
    let work: f64 = items.iter().filter(|item| !item.fixed_output && !item.prefer_local).map(|item| item.cost).sum();
    let mut ends: Vec<f64> = Vec::new();
    for item in items {
        let begin = item.inputs.iter().map(|input| ends[input.index()]).fold(0.0, f64::max);
        ends.push(begin + item.cost);
    }
    (ends.iter().copied().fold(0.0, f64::max) / fastest).max(work / speed)
}
