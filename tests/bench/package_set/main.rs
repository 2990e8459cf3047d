//! Measures drover on the real package set (a generated one where its shape is not at hand): `graph` reads its 12,902
//! .drv files into the graph, `diff` plans it against an HTTP cache, beside `nix build --dry-run`, `sched` builds it
//! on simulated builders in virtual time.
//!
//! Run by the scripts of these names beside this folder.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops at the first fault")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes times and starts processes")]
#![allow(clippy::print_stdout, missing_docs, reason = "what it measures is what it prints")]

#[path = "../../support/deadline.rs"]
mod deadline;
#[path = "../../support/fake_cache.rs"]
mod fake_cache;
#[path = "../../support/front.rs"]
mod front;
#[path = "../../support/nix.rs"]
mod nix;
#[path = "../../support/package_set/mod.rs"]
mod package_set;

mod diff;
mod graph;
#[path = "../rows.rs"]
mod rows;
mod sched;

use package_set::PackageSet;
use package_set::shape::Shape;

/// How many drvs the cache lacks.
const MISSING: usize = 1514;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let rounds = || words.get(1).map_or(5, |rounds| rounds.parse().unwrap());
    match words.first().map(String::as_str) {
        Some("graph") => graph::measure(rounds()),
        // In a process of its own, so that no memory was used before.
        Some("load") => graph::load(&words[1]),
        Some("diff") => diff::measure(rounds(), words.get(2).map_or("", String::as_str)),
        Some("sched") => sched::measure(rounds()),
        // As above.
        Some("schedule") => sched::schedule(),
        _ => println!("cargo bench --bench package_set -- graph|diff|sched [ROUNDS] [WORD]"),
    }
}

/// The package set that is measured.
fn the_set() -> PackageSet {
    PackageSet::new(the_shape(), "/nix/store")
}

fn the_shape() -> Shape {
    Shape::real().unwrap_or_else(|| {
        println!("package-set.json.zst is not at hand: a generated set stands in for the real one");
        Shape::generated(1)
    })
}
