//! Hosts of two evaluations, and how they are shared out to machines.

use std::collections::BTreeMap;

use drover::diff::compare::{Known, Side, compare, removed};
use drover::diff::matrix::{AttrWork, DrvWork, Limits, Work as ToDo, pack};
use drover::event::Difference;
use drover::id::{AttrPath, System};

use super::Work;
use super::set::{Drv, mixed};

fn host(number: usize) -> AttrPath {
    format!("nixosConfigurations.host{number}").parse().unwrap()
}

/// Of these hosts, one of ten changes with the salt.
fn side(hosts: impl Iterator<Item = usize>, salt: u64) -> Side {
    let known = |number: usize| {
        let drv = Drv { number, salt: if number.is_multiple_of(10) { salt } else { 0 } };
        Known::Drv { drv: drv.path(), outputs: BTreeMap::from([("out".to_owned(), Some(drv.output("out")))]) }
    };
    hosts.map(|number| (host(number), known(number))).collect()
}

pub(crate) fn affected(size: usize) -> Work {
    let (base, head) = (side(0..size, 1), side(size / 20..size + size / 20, 2));
    Box::new(move || {
        let changed = |path, known| compare(&base, path, known).difference != Difference::Unchanged;
        let count = head.iter().filter(|(path, known)| changed(path, known)).count() + removed(&base, &head).count();
        assert!(count >= size / 10);
        std::mem::forget((base, head));
    })
}

/// Each host has 20 drvs of its own, and some that ten hosts have together.
pub(crate) fn matrix(size: usize) -> Work {
    const OWN: usize = 20;
    const TOGETHER: usize = 5;
    let group = |host: usize| size * OWN + host / 10 * TOGETHER;
    let attrs = (0..size).map(|host| AttrWork {
        system: System("x86_64-linux".to_owned()),
        drvs: (host * OWN..(host + 1) * OWN).chain(group(host)..group(host) + TOGETHER).collect(),
    });
    let seconds = |at: usize| (mixed(at as u64) % 600) as f64;
    let drvs = (0..group(size + 9)).map(|at| DrvWork { seconds: seconds(at), features: Vec::new() });
    let work = ToDo { drvs: drvs.collect(), attrs: attrs.collect() };
    Box::new(move || {
        for split in [false, true] {
            let packing = pack(&work, Limits { rows: 20, least: 300.0, split }).unwrap();
            assert_eq!(packing.rows.iter().map(|row| row.attrs.len()).sum::<usize>(), size);
        }
        std::mem::forget(work);
    })
}
