//! Measures drover on builders behind a real sshd, beside Nix's own build hook: `tiny`, `fleet` and `overhead`.
//!
//! Run by the script `farm` beside this folder.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops at the first fault")]
#![allow(clippy::expect_used, reason = "a benchmark stops at the first fault")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes times and starts processes")]
#![allow(clippy::print_stdout, missing_docs, reason = "what it measures is what it prints")]

#[path = "../../support/deadline.rs"]
mod deadline;
#[path = "../../support/farm_lab.rs"]
mod farm_lab;
#[path = "../../support/fault_proxy.rs"]
mod fault_proxy;
#[path = "../../support/nix.rs"]
mod nix;
#[path = "../../support/sshd.rs"]
mod sshd;

mod fleet;
mod overhead;
mod record;
#[path = "../rows.rs"]
mod rows;
mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use farm_lab::{BuilderSpec, FarmLab, Kind};
use nix::Nix;
use record::Record;

/// How many builders there are, and how much each builds at once.
const BUILDERS: usize = 2;
const SLOTS: usize = 4;

/// The number of the coordinator's own store.
const LOCAL: u64 = 0;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let rounds = words.get(1).map_or(3, |rounds| rounds.parse().unwrap());
    let wanted = |name: &str| words.first().is_none_or(|word| word == name || word == "all");
    let parts = ["tiny", "fleet", "overhead"];
    assert!(parts.iter().any(|part| wanted(part)), "cargo bench --bench builders -- all|tiny|fleet|overhead [ROUNDS]");
    for nix in nix::all() {
        for kind in [Kind::Forwarded, Kind::Stdio] {
            println!("\nNix {}, builders of kind {kind:?}", nix.version);
            if wanted("tiny") {
                tiny::measure(&mut Bench::new(&nix, kind, BUILDERS), rounds);
            }
            if wanted("fleet") {
                fleet::measure(&mut Bench::new(&nix, kind, BUILDERS), rounds);
            }
            if wanted("overhead") {
                overhead::measure(&nix, kind);
            }
        }
    }
}

/// A farm, and a flake that is built on it again and again.
pub(crate) struct Bench {
    farm: FarmLab,
    rounds: u32,
}

impl Bench {
    fn new(nix: &Nix, kind: Kind, builders: usize) -> Self {
        Self { farm: FarmLab::of(nix, kind, builders), rounds: 0 }
    }

    /// One builder whose store is no chroot store: it is at /nix, in a mount namespace of its own.
    fn mounted(nix: &Nix, kind: Kind) -> Self {
        Self { farm: FarmLab::new(nix, vec![BuilderSpec::new(kind, nix).mounted()]), rounds: 0 }
    }

    fn flake(&self) -> PathBuf {
        self.farm.coordinator.work().join("flake")
    }

    /// Writes a file of the flake.
    fn write(&self, name: &str, content: &str) {
        self.farm.coordinator.write(&format!("flake/{name}"), content);
    }

    /// Makes everything unbuilt again, in a clean tree.
    fn salt(&mut self) {
        self.rounds += 1;
        self.write("salt", &format!("{}-{}", self.rounds, std::process::id()));
        if !self.flake().join(".git").exists() {
            self.git(&["init", "-q"]);
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-qm", "x"]);
    }

    fn git(&self, args: &[&str]) {
        let mut command = self.farm.program("git");
        command.args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"]);
        let status = command.args(args).current_dir(self.flake()).status().unwrap();
        assert!(status.success(), "git {args:?}");
    }

    /// Nix's own hook, which has to build these on the builders; the seconds it takes.
    fn with_nix(&self, installables: &[String]) -> f64 {
        let mut command = self.farm.program(self.farm.coordinator.nix.bin.join("nix"));
        command.args(["build", "--no-link", "--print-out-paths", "-j", "0", "--builders", &self.farm.builders_lines()]);
        command.arg("--store").arg(self.farm.coordinator.store_arg().unwrap()).args(installables);
        let Timed { seconds, out, .. } = timed(command.current_dir(self.flake()));
        self.assert_here(&out.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), installables.len());
        seconds
    }

    /// drover, which has to build these on the builders; the seconds it takes, and its record.
    fn with_drover(&self, what: &[String]) -> (f64, Record) {
        let events = self.farm.coordinator.path("events.jsonl");
        let _ = std::fs::remove_file(&events);
        let mut command = self.farm.program(env!("CARGO_BIN_EXE_drover"));
        command.args(["run", "-j", "0", "--json", "--builders", &self.farm.builders_lines()]);
        command.arg("--store").arg(self.farm.coordinator.store_arg().unwrap()).arg("--events").arg(&events).args(what);
        command.envs([("DROVER_LOG", "drover::build=trace"), ("NO_COLOR", "1")]);
        let Timed { seconds, out, said } = timed(command.current_dir(self.flake()));
        let record = Record::read(&events, &said);
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        let attrs = document["attrs"].as_array().unwrap();
        let outputs = attrs.iter().flat_map(|attr| attr["outputs"].as_object().unwrap().values());
        let outputs: Vec<String> = outputs.map(|path| path.as_str().unwrap().to_owned()).collect();
        self.assert_here(&outputs, what.len());
        (seconds, record)
    }

    /// So many results have to be in the coordinator's own store.
    fn assert_here(&self, paths: &[String], count: usize) {
        assert_eq!(paths.len(), count, "{paths:?}");
        let mut command = self.farm.coordinator.command("nix-store");
        let out = command.arg("--check-validity").args(paths).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Every drv was built once, and on a builder.
    fn assert_built_there(&self, record: &Record, count: usize) {
        assert_eq!(record.attempts.len(), count, "attempts");
        let used: std::collections::BTreeSet<u64> = record.attempts.values().map(|attempt| attempt.builder).collect();
        assert!(!used.contains(&LOCAL) && used.len() == self.farm.builders.len(), "{used:?}");
    }

    /// What rows of a part are called here.
    fn part(&self, part: &str) -> String {
        let builders =
            if self.farm.builders[0].spec.kind == Kind::Stdio { "nix-daemon --stdio" } else { "forwarded daemons" };
        format!("{part}, {builders}, Nix {}", self.farm.coordinator.nix.version)
    }

    /// How many outputs the builders have got in all since they were made.
    fn built_on_builders(&self) -> Vec<usize> {
        let of = |store: &Path| {
            let entries = std::fs::read_dir(store).into_iter().flatten().flatten();
            entries.filter(|entry| !entry.file_name().to_string_lossy().ends_with(".drv")).count()
        };
        self.farm.builders.iter().map(|builder| of(&builder.lab.physical())).collect()
    }
}

/// What this machine builds for.
fn system() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// A command that succeeded.
struct Timed {
    seconds: f64,
    out: String,
    /// On stderr.
    said: String,
}

/// Runs a command, which has to succeed.
fn timed(command: &mut Command) -> Timed {
    let start = Instant::now();
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}\n{}", String::from_utf8_lossy(&output.stdout));
    Timed { seconds, out: String::from_utf8(output.stdout).unwrap(), said }
}
