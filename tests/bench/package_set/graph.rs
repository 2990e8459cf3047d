//! 12,902 .drv files into the graph: seconds and memory.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use drover::diff::load;
use drover::graph::Graph;
use drover::id::StorePath;
use drover::store::local::{LocalStore, StoreOptions};

use super::nix::{self, Lab};
use super::rows::Part;

/// Each round is a process of its own.
pub(crate) fn measure(rounds: usize) {
    let set = super::the_set();
    let lab = Lab::chroot(&nix::newest());
    set.install(&lab.physical(), lab.command("nix-store"));
    let bytes: usize = set.drvs.iter().map(|drv| drv.content.len()).sum();
    println!("{} .drv files of {} bytes each", set.drvs.len(), bytes / set.drvs.len());
    for round in 1..=rounds {
        let this = std::env::current_exe().unwrap();
        let mut command: Command = lab.program(this);
        let output = command.arg("load").arg(lab.store_arg().unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [loaded, wall, read, cpu, kept, peak] = numbers[..] else { panic!("{text}") };
        assert_eq!(loaded as usize, set.drvs.len());
        println!(
            "round {round}: {wall:.3} s ({read:.3} s of it reading) and {cpu:.2} s of all processors, {kept:.0} MB kept, \
             {peak:.0} MB at most"
        );
        let part = |unit| Part { bench: "graph", part: "12,902 .drv files", unit };
        part("s").drover(wall, 0.25);
        part("MB").drover(peak, 120.0);
    }
}

/// Reads all .drv files of a store; prints how many, the seconds in all, for reading and of all processors, and by
/// how many MB the process has grown in the end and at most.
pub(crate) fn load(store: &str) {
    let mut paths: Vec<StorePath> = std::fs::read_dir(Path::new(store).join("nix/store"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".drv"))
        .map(|name| StorePath::from_basename(name.as_bytes()).unwrap())
        .collect();
    paths.sort();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = StoreOptions { store: Some(store.to_owned()), ..StoreOptions::default() };
        let store = LocalStore::open(options).await.unwrap();
        let (before, _) = memory();
        let (start, busy) = (Instant::now(), processor_seconds());
        let infos = load::load(&store, paths).await;
        let read = start.elapsed().as_secs_f64();
        let mut graph = Graph::new();
        let loaded = infos.into_iter().map(|info| graph.load(info.unwrap())).count();
        let wall = start.elapsed().as_secs_f64();
        let cpu = processor_seconds() - busy;
        let (kept, peak) = memory();
        assert_eq!(graph.len(), loaded, "each drv is known by its file alone");
        println!("{loaded} {wall} {read} {cpu} {} {}", kept - before, peak - before);
        store.settle(std::time::Duration::from_secs(1)).await;
    });
}

/// Resident memory now and at most, in MB.
pub(crate) fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |key: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// What this process has used of all processors so far: user and system time, in ticks of 10 ms.
pub(crate) fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // `pid (name) state …`; the two are the 14th and 15th words.
    let words = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    words.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}
