//! Everything that drover works with on one machine, and a hand that breaks it at random.

pub mod after;
pub mod hand;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::fake_cache::FakeCache;
use super::farm_lab::{BuilderSpec, FarmLab, Kind, end_daemon};
use super::farm_site::{SmallDisk, spec};
use super::nix::{Daemon, Lab, all};
use super::site::{Key, Site, narinfos};

/// What the small disk of a builder holds.
const DISK: &str = "200m";

/// A flake, a coordinator with a daemon, three builders behind bad lines, and a cache.
pub struct Place {
    // What runs ends before its files go.
    /// The coordinator's daemon, unless it is down.
    daemon: Option<Daemon>,
    /// What one builder's store is on; `None` where nobody may mount.
    disk: Option<SmallDisk>,
    /// Pushed to, and read from.
    pub cache: FakeCache,
    pub key: Key,
    pub farm: FarmLab,
    pub site: Site,
}

/// The builder with the small disk. Its store is opened by each session anew.
pub const SMALL: usize = 1;

impl Place {
    pub fn new() -> Self {
        let nixes = all();
        let (new, old) = (&nixes[0], &nixes[nixes.len() - 1]);
        let two_slots = |kind, nix| BuilderSpec { slots: 2, ..spec(kind, nix).behind_proxy() };
        let specs = vec![two_slots(Kind::Forwarded, new), two_slots(Kind::Stdio, old), two_slots(Kind::Narrow, new)];
        let farm = FarmLab::new(new, specs);
        let disk = SmallDisk::mount(&farm.builders[SMALL].lab.path("root"), DISK);
        let served = farm.path("served");
        fs::create_dir(&served).unwrap();
        let cache = FakeCache::start(&served).writable();
        let site = Site::new(Lab::chroot(new), "chaos");
        site.edit("source", &format!("{}\n", "one line that is long ".repeat(1 << 16)));
        let key = site.key("chaos-1");
        site.lab.configure(&format!(
            "substituters = {}\ntrusted-public-keys = {}\nconnect-timeout = 2\nstalled-download-timeout = 5\n\
             download-attempts = 2\n",
            cache.url, key.public,
        ));
        let mut place = Self { daemon: None, disk, cache, key, farm, site };
        place.start_daemon();
        place
    }

    /// drover on this machine, its daemon and the builders.
    pub fn command(&self, args: &[&str]) -> Command {
        let lab = &self.site.lab;
        let store = format!("unix://{}?root={}", lab.path("daemon.sock").display(), lab.path("root").display());
        let mut command = self.site.command_on(Some(&store), args);
        command.env("DROVER_BUILDERS", self.farm.builders_lines());
        command.env("NIX_SSHOPTS", self.farm.ssh_opts().join(" "));
        // What it says more is read where something is found.
        command.env("DROVER_LOG", "drover=debug");
        command
    }

    /// Where it pushes to. What does not answer is soon given up.
    pub fn push_url(&self) -> String {
        let quick = "retry-attempts=3&retry-delay=50&retry-delay-rate-limited=100&retry-max-delay=400";
        format!("{}?secret-key={}&{quick}", self.cache.url, self.key.secret.display())
    }

    /// Makes everything unbuilt again.
    pub fn salt(&self, salt: &str) {
        self.site.edit("salt", salt);
    }

    /// The process of the coordinator's daemon.
    pub fn daemon(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    pub fn end_daemon(&mut self) {
        self.daemon.take().into_iter().for_each(end_daemon);
    }

    pub fn start_daemon(&mut self) {
        self.end_daemon();
        self.daemon = Some(self.site.lab.daemon());
    }

    /// A file that can be made so large that the small disk is full; `None` where there is none.
    pub fn filler(&self) -> Option<PathBuf> {
        self.disk.is_some().then(|| self.farm.builders[SMALL].lab.path("root/filler"))
    }

    /// Names of the paths that the cache has, each with its record.
    pub fn records(&self) -> BTreeMap<String, String> {
        narinfos(self.cache.root())
    }
}
