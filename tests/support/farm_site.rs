//! A flake whose coordinator has builders: what the stories of faults share.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests say what went wrong by panicking")]
#![expect(clippy::disallowed_methods, reason = "a run that does not end has to be noticed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::farm_lab::{BuilderSpec, FarmLab, Kind};
use super::nix::{Lab, Nix};
use super::site::{Events, Ran, Running, Site, finish, start, wait_until};

/// See the module's page.
pub struct FarmSite {
    pub site: Site,
    pub farm: FarmLab,
}

/// A builder for this machine's system, so that nobody has to ask it.
pub fn spec(kind: Kind, nix: &Nix) -> BuilderSpec {
    BuilderSpec { system: Some("x86_64-linux".to_owned()), ..BuilderSpec::new(kind, nix) }
}

impl FarmSite {
    pub fn new(site: Site, nix: &Nix, specs: Vec<BuilderSpec>) -> Self {
        Self { site, farm: FarmLab::new(nix, specs) }
    }

    /// The sample fleet with its durations at so many per cent.
    pub fn fleet(nix: &Nix, scale: u32, specs: Vec<BuilderSpec>) -> Self {
        Self::new(Site::fleet_at(Lab::chroot(nix), scale), nix, specs)
    }

    /// The sample fleet as it is, with builders of these kinds.
    pub fn of_kinds(nix: &Nix, kinds: &[Kind]) -> Self {
        let specs = kinds.iter().map(|kind| spec(*kind, nix)).collect();
        Self::new(Site::fleet(Lab::chroot(nix)), nix, specs)
    }

    /// drover on this machine and the builders, started from any site.
    pub fn command_at(&self, site: &Site, args: &[&str]) -> Command {
        let mut command = site.command(args);
        command.args(["--builders", &self.farm.builders_lines()]);
        command.env("NIX_SSHOPTS", self.farm.ssh_opts().join(" "));
        command
    }

    /// drover on the builders alone.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.command_at(&self.site, args);
        command.args(["-j", "0"]);
        command
    }

    /// Runs drover on this machine and the builders.
    #[track_caller]
    pub fn exits(&self, code: i32, args: &[&str]) -> Ran {
        self.exits_at(&self.site, code, args)
    }

    /// The same, started from any site.
    #[track_caller]
    pub fn exits_at(&self, site: &Site, code: i32, args: &[&str]) -> Ran {
        let ran = finish(self.command_at(site, args), args);
        ran.expect(code);
        ran
    }

    /// All that is valid on a builder.
    pub fn valid_on(&self, number: usize) -> BTreeSet<String> {
        valid(&self.farm.builders[number].lab)
    }

    /// Starts `drover run` with these further words.
    pub fn start(&self, more: &[&str]) -> Running {
        let args: Vec<&str> = ["run", "--json"].iter().chain(more).copied().collect();
        start(self.command(&args), &args)
    }

    /// The events of the run under way; none before it has any.
    pub fn events_so_far(&self) -> Events {
        let text = fs::read_dir(self.site.state().join("runs"))
            .ok()
            .and_then(|runs| runs.map(|run| run.unwrap().path()).max())
            .and_then(|run| fs::read_to_string(run.join("events.jsonl")).ok())
            .unwrap_or_default();
        // The last line may be half written.
        Events(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Waits until the run has said so many of these.
    pub fn wait_for(&self, event: &str, count: usize) {
        wait_until(&format!("{count} {event}"), || (self.events_so_far().of(event).len() >= count).then_some(()));
    }

    /// The hash of the NAR of the result of each attr that has one here.
    pub fn results(&self, document: &Value) -> BTreeMap<String, String> {
        results(&self.site.lab, document)
    }
}

/// A small file system in memory; unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and a word about it, where this user or machine cannot mount.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        let output = command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output().unwrap();
        if output.status.success() {
            return Some(Self(at.to_owned()));
        }
        eprintln!("-- NOT RUN with a small disk: {}", String::from_utf8_lossy(&output.stderr).trim());
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// All that is valid in a lab's store.
pub fn valid(lab: &Lab) -> BTreeSet<String> {
    lab.run("nix", &["path-info", "--all"]).lines().map(str::to_owned).collect()
}

/// The path of the result of each attr that there is now, and the hash of its NAR.
pub fn results(lab: &Lab, document: &Value) -> BTreeMap<String, String> {
    // What was found valid after a connection was lost is valid, not built.
    let done = |attr: &&Value| ["built", "valid", "cached"].iter().any(|status| attr["status"] == *status);
    let attrs = document["attrs"].as_array().unwrap().iter().filter(done);
    let paths: Vec<&str> = attrs.map(|attr| attr["outputs"]["out"].as_str().unwrap()).collect();
    let mut args = vec!["--query", "--hash"];
    args.extend(&paths);
    let hashes = lab.run("nix-store", &args);
    paths.iter().map(|path| (*path).to_owned()).zip(hashes.lines().map(str::to_owned)).collect()
}

impl Events {
    /// Every drv that is needed has its final word, and none was tried twice at the same time.
    #[track_caller]
    pub fn expect_each_once(&self) {
        let drv = |event: &&Value| event["drv"].as_u64().unwrap();
        let ended: Vec<u64> = self.of("drv_ended").iter().map(drv).collect();
        for needed in self.of("drv_needed") {
            assert!(ended.contains(&drv(&needed)), "{} has no final word", self.drv_name(needed));
        }
        let mut tries: BTreeMap<u64, u64> = BTreeMap::new();
        let mut at_work: BTreeMap<u64, u64> = BTreeMap::new();
        for event in &self.0 {
            match event["event"].as_str().unwrap() {
                "attempt_started" => {
                    let attempt = event["attempt"].as_u64().unwrap();
                    tries.insert(attempt, drv(&event));
                    let other = at_work.insert(drv(&event), attempt);
                    assert_eq!(other, None, "{} is tried twice at the same time", self.drv_name(event));
                }
                "attempt_ended" => {
                    at_work.remove(&tries[&event["attempt"].as_u64().unwrap()]);
                }
                _ => {}
            }
        }
        assert!(at_work.is_empty(), "attempts without end: {at_work:?}");
    }

    /// The classes with which attempts ended that failed.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.of("attempt_ended").into_iter().filter(|event| event["end"] == "failed");
        failed.map(|event| event["class"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// The words of one failure in a document: the first that there is.
pub fn causes(document: &Value) -> Vec<String> {
    let attrs = document["attrs"].as_array().unwrap().iter();
    attrs.filter_map(|attr| Some(attr["error"]["message"].as_str()?.to_owned())).collect()
}

/// Waits until a run has ended, which it has to within this time; however long that is, it is no measurement.
#[track_caller]
pub fn wait_at_most(running: Running, limit: Duration) -> Ran {
    let pid = running.pid();
    let until = Instant::now() + limit;
    let (tell, told) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let ran = running.wait();
        let _ = tell.send(());
        ran
    });
    let late = told.recv_timeout(until - Instant::now()).is_err();
    if late {
        super::site::signal(pid, "KILL");
    }
    let ran = waiting.join().unwrap();
    assert!(!late, "it had not ended after {limit:?}\n{}", ran.stderr);
    ran
}
