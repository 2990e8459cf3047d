//! The work of drover's pure parts at any size, one part at a time: `growing PART SIZE` does it once, `growing PART SIZE
//! prepare` makes only what it needs. The difference of both is what the part itself takes, in instructions as
//! `valgrind --tool=callgrind` counts them; how many seconds the part took, the program prints itself.
//!
//! Uses nothing but the library and tokio, so that the script `counted` beside this folder compiles it in seconds
//! against a library that is there already.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops at the first fault")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes times")]
#![allow(clippy::print_stdout, missing_docs, reason = "what it measures is what it prints")]

mod hosts;
mod packing;
mod planning;
mod recording;
mod scheduling;
mod set;
mod wire;

/// The work that is measured, with all that it needs made before.
type Work = Box<dyn FnOnce()>;

/// One part: prepares the work of this size.
type Part = fn(usize) -> Work;

/// All parts; what a size counts is said beside each.
const PARTS: [(&str, Part); 12] = [
    // .drv texts that are parsed and taken into the graph.
    ("graph", planning::graph),
    // Drvs in a graph of which closure, cycles and the critical path are asked.
    ("walk", planning::walk),
    // Drvs in a graph of which one of eight has to be built and a cache has the rest.
    ("presence", planning::presence),
    // Drvs in two graphs that differ in one that most others need.
    ("lockstep", planning::lockstep),
    // Drvs that are built on 8 builders of 8 slots, in virtual time.
    ("sched", scheduling::drvs),
    // Builders of 8 slots that build 2,000 drvs.
    ("builders", scheduling::builders),
    // Drvs whose run is put together for reports.
    ("fold", recording::fold),
    // Drvs whose run is written as a record and read.
    ("record", recording::record),
    // Hosts of two recorded evaluations.
    ("affected", hosts::affected),
    // Hosts that are packed into rows.
    ("matrix", hosts::matrix),
    // Path infos that are written and read.
    ("wire", wire::path_infos),
    // KiB of NAR that are compressed and hashed.
    ("pack", packing::pack),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [part, size, rest @ ..] = &words[..] else {
        let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        return println!("growing {} SIZE [prepare]", names.join("|"));
    };
    let (_, prepare) = PARTS.iter().find(|(name, _)| name == part).unwrap_or_else(|| panic!("there is no part {part}"));
    let work = prepare(size.parse().unwrap());
    let begun = std::time::Instant::now();
    if rest.is_empty() {
        work();
    } else {
        // Its memory is not given back either.
        std::mem::forget(work);
    }
    println!("{:.9}", begun.elapsed().as_secs_f64());
}
