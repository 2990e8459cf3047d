//! Builds in virtual time.

use drover::graph::Work as Kind;
use drover::id::{BuilderId, DrvId, System};
use drover::sched::{Builder, Course, Item, Policy, forecast};

use super::Work;
use super::set::{inputs, mixed};

/// Slots of each builder.
const SLOTS: u32 = 8;

/// Drvs that are built where builders are counted.
const FEW: usize = 2000;

pub(crate) fn drvs(size: usize) -> Work {
    play(size, 8)
}

pub(crate) fn builders(size: usize) -> Work {
    play(FEW, size)
}

fn play(drvs: usize, builders: usize) -> Work {
    let items: Vec<Item> = (0..drvs).map(item).collect();
    let sizes: Vec<(DrvId, u64)> = items.iter().map(|item| (item.drv, mixed(item.drv.0.into()) % (8 << 20))).collect();
    let builders: Vec<Builder> = (0..u32::try_from(builders).unwrap()).map(builder).collect();
    let policy = Policy { fetch_where_needed: true, ..Policy::default() };
    let course = Course { sizes, ..Course::at_once(items, builders, policy) };
    Box::new(move || assert_eq!(forecast(course).planned.len(), drvs, "every drv is built"))
}

fn item(number: usize) -> Item {
    let id = |drv: usize| DrvId(u32::try_from(drv).unwrap());
    Item {
        drv: id(number),
        work: Kind::Build,
        inputs: inputs(number).into_iter().map(id).collect(),
        there: Vec::new(),
        system: System("x86_64-linux".to_owned()),
        features: if number % 140 == 139 { vec!["big-parallel".to_owned()] } else { Vec::new() },
        local_only: false,
        here: false,
        fixed_output: number % 3 == 2,
        prefer_local: number % 10 == 9,
        cost: 1.0 + (mixed(number as u64) % 600) as f64 / 10.0,
        ahead: 0.0,
    }
}

fn builder(id: u32) -> Builder {
    Builder {
        id: BuilderId(id),
        name: format!("big{id}"),
        slots: SLOTS,
        systems: [System("x86_64-linux".to_owned())].into(),
        features: ["big-parallel".to_owned()].into(),
        mandatory: [].into(),
        speed: 1.0 + f64::from(id % 3) / 2.0,
        local: id == 0,
        trusting: true,
    }
}
