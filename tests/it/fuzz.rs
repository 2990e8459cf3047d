//! The corpora of the fuzzers, played again: what once broke something has a file there that is named after it.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "../fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub, reason = "the fuzzers use it, too")]
mod targets;

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz"))
}

/// The names of what lies in a directory, without what follows their first dot.
fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.map(|name| name.split('.').next().unwrap().to_owned()).collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), targets::TARGETS.len());
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let mut programs = names(&fuzz().join("fuzz_targets"));
    assert!(programs.remove("any"));
    assert_eq!(programs, targets);
    for name in &targets {
        let text = std::fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("fuzz!(\"{name}\")")), "{name}");
        assert!(targets::named(name).is_some());
    }
}

#[test]
fn what_broke_something_once_breaks_nothing_now() {
    let mut played = 0;
    for (name, run) in targets::TARGETS {
        for file in walkdir::WalkDir::new(fuzz().join("corpus").join(name)).sort_by_file_name() {
            let file = file.unwrap();
            if file.file_type().is_file() {
                let bytes = std::fs::read(file.path()).unwrap();
                let ran = std::panic::catch_unwind(|| run(&bytes));
                assert!(ran.is_ok(), "tests/fuzz/corpus/{name}/{}", file.file_name().display());
                played += 1;
            }
        }
    }
    assert!(played >= targets::TARGETS.len());
}
