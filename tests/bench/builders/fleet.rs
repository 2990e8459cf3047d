//! The fleet on two builders of four slots, against its lower bound.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::rows::Part;
use super::{BUILDERS, Bench, SLOTS};

/// What `fleet.json` says of the time that it takes.
struct Bound {
    drvs: usize,
    work: f64,
    critical_path: f64,
}

/// Prints both times of each round.
pub(crate) fn measure(bench: &mut Bench, rounds: usize) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fleet");
    for file in ["build.nix", "flake.nix", "fleet.json", "hello", "hosts.nix", "packages.nix", "scale"] {
        bench.write(file, &std::fs::read_to_string(fixture.join(file)).unwrap());
    }
    bench.write("template/flake.nix", "{ outputs = _: { }; }");
    let (hosts, bound) = read(&fixture.join("fleet.json"));
    let lower = bound.critical_path.max(bound.work / (BUILDERS * SLOTS) as f64);
    let attrs: Vec<String> = hosts.iter().map(|host| format!(".#nixosConfigurations.{host}")).collect();
    let toplevels: Vec<String> = attrs.iter().map(|attr| format!("{attr}.config.system.build.toplevel")).collect();
    println!(
        "{} drvs, {:.2} s of work, critical path {:.2} s, lower bound {lower:.2} s",
        bound.drvs, bound.work, bound.critical_path
    );
    for round in 1..=rounds {
        bench.salt();
        let nix = bench.with_nix(&toplevels);
        assert!(nix >= lower, "nix build was faster than the lower bound: {nix}");
        bench.salt();
        let (seconds, record) = bench.with_drover(&attrs);
        bench.assert_built_there(&record, bound.drvs);
        assert!(record.work() >= 0.98 * bound.work, "only {:.2} s of work were done", record.work());
        println!(
            "round {round}: nix build {nix:.2} s, drover {seconds:.2} s ({:.2} s to the first attempt, {:.2} s of attempts, {:.2} s after the last; {:.2} s of work)",
            record.first,
            record.last - record.first,
            seconds - record.last,
            record.work(),
        );
        let part = Part { bench: "farm", part: &bench.part("fleet, 2 x 4"), unit: "s" };
        part.drover_beside(seconds, 1.10, "the lower bound");
        part.tool("the lower bound", lower);
        part.tool("nix build --builders", nix);
    }
}

/// The names of the hosts, and the time of what they need.
fn read(file: &Path) -> (Vec<String>, Bound) {
    let fleet: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let packages = fleet["pk"].as_array().unwrap();
    let seconds: Vec<f64> = packages.iter().map(|package| package["d"].as_f64().unwrap()).collect();
    let numbers = |list: &Value| -> Vec<usize> {
        list.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
    };
    let deps: Vec<Vec<usize>> = packages.iter().map(|package| numbers(&package["deps"])).collect();
    let hosts: BTreeMap<String, Vec<usize>> =
        fleet["hosts"].as_object().unwrap().iter().map(|(name, wanted)| (name.clone(), numbers(wanted))).collect();
    // A package needs earlier ones only.
    let mut until = vec![0.0_f64; packages.len()];
    for at in 0..packages.len() {
        assert!(deps[at].iter().all(|dep| *dep < at));
        until[at] = seconds[at] + deps[at].iter().map(|dep| until[*dep]).fold(0.0, f64::max);
    }
    let mut needed = vec![false; packages.len()];
    hosts.values().flatten().for_each(|at| needed[*at] = true);
    for at in (0..packages.len()).rev() {
        if needed[at] {
            deps[at].iter().for_each(|dep| needed[*dep] = true);
        }
    }
    let work = (0..packages.len()).filter(|at| needed[*at]).map(|at| seconds[at]).sum();
    let critical_path = hosts.values().flatten().map(|at| until[*at]).fold(0.0, f64::max);
    let drvs = needed.iter().filter(|needed| **needed).count() + hosts.len();
    (hosts.into_keys().collect(), Bound { drvs, work, critical_path })
}
