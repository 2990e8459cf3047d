//! Holds the code to the map in `src/lib.rs`: who may use whom, and no forgotten test file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const LEAVES: [&str; 5] = ["id", "event", "error", "process", "sqlite"];

/// The table of the map: module → what it may use.
fn map() -> BTreeMap<String, BTreeSet<String>> {
    let lib = std::fs::read_to_string(format!("{ROOT}/src/lib.rs")).unwrap();
    let rows: Vec<(String, String)> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            (name.to_owned(), rest.trim_end_matches('|').rsplit('|').next().unwrap().trim().to_owned())
        })
        .collect();
    let all: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    let expand = |text: &str| -> BTreeSet<String> {
        if let Some(left_out) = text.strip_prefix("all but ") {
            return all.iter().filter(|name| *name != left_out).cloned().collect();
        }
        let words = text.split(", ").filter(|word| !word.is_empty());
        words
            .flat_map(|word| match word {
                "all" => all.iter().cloned().collect::<Vec<_>>(),
                "leaves" => LEAVES.map(str::to_owned).to_vec(),
                name => vec![name.to_owned()],
            })
            .collect()
    };
    rows.iter().map(|(name, uses)| (name.clone(), expand(uses))).collect()
}

/// The modules that a file names as `crate::…`.
fn used(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| -> String { rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    text.split("crate::").skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

#[test]
fn modules_use_only_what_the_map_allows() {
    let map = map();
    assert!(map.len() > 10, "the map in src/lib.rs could not be read");
    let mut wrong = Vec::new();
    for entry in walkdir::WalkDir::new(format!("{ROOT}/src")) {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(format!("{ROOT}/src")).unwrap();
        let first = path.iter().next().map(Path::new).and_then(|p| p.file_stem()).map(|s| s.to_string_lossy());
        let Some(module) = first.filter(|name| entry.file_type().is_file() && name != "main" && name != "lib") else {
            continue;
        };
        let allowed = map.get(&*module).unwrap_or_else(|| panic!("src/{} is not on the map", path.display()));
        let text = std::fs::read_to_string(entry.path()).unwrap();
        for name in used(&text) {
            if name != *module && map.contains_key(&name) && !allowed.contains(&name) {
                wrong.push(format!("src/{} uses {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the map in src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn the_pure_modules_touch_nothing_outside() {
    for entry in walkdir::WalkDir::new(format!("{ROOT}/src")) {
        let entry = entry.unwrap();
        let path = entry.path().to_string_lossy().into_owned();
        if !(path.contains("/src/graph/")
            || path.contains("/src/sched/")
            || path.contains("/src/diff/plan/")
            || path.ends_with("/src/diff/plan.rs"))
        {
            continue;
        }
        if entry.file_type().is_file() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            for outside in ["tokio::", "std::fs", "std::net", "tracing::", "Instant", "SystemTime"] {
                assert!(!text.contains(outside), "{path} is pure and uses {outside}");
            }
        }
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let main = std::fs::read_to_string(format!("{ROOT}/tests/it/main.rs")).unwrap();
    for entry in std::fs::read_dir(format!("{ROOT}/tests/it")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(module) = name.strip_suffix(".rs").filter(|name| *name != "main") else { continue };
        assert!(main.contains(&format!("mod {module};")), "tests/it/{name} is not in tests/it/main.rs");
    }
}
