//! What builders over ssh have built is pushed from there; and what cannot be pushed stays there until it can.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::farm_lab::{BuilderSpec, FarmLab, Kind};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Key, Ran, Site, base, finish};

/// A flake, builders, and a cache on a server.
struct Place {
    site: Site,
    lab: FarmLab,
    key: Key,
    server: FakeCache,
}

impl Place {
    fn new(nix: &Nix, kinds: &[Kind]) -> Self {
        let specs = kinds.iter().map(|kind| BuilderSpec::new(*kind, nix)).collect();
        let site = Site::fleet(Lab::chroot(nix));
        let lab = FarmLab::new(nix, specs);
        let served = lab.path("served");
        fs::create_dir(&served).unwrap();
        Self { key: site.key("served-1"), server: FakeCache::start(&served).writable(), site, lab }
    }

    fn command(&self, site: &Site, args: &[&str]) -> Command {
        let quick = "retry-attempts=2&retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5";
        let url = format!("{}?secret-key={}&{quick}", self.server.url, self.key.secret.display());
        let mut command = site.command(args);
        command.args(["--push-to", &url]);
        command.env("DROVER_BUILDERS", self.lab.builders_lines());
        command.env("NIX_SSHOPTS", self.lab.ssh_opts().join(" "));
        command
    }

    fn exits(&self, site: &Site, code: i32, args: &[&str]) -> Ran {
        let ran = finish(self.command(site, args), args);
        ran.expect(code);
        ran
    }

    /// The names of the records in the cache.
    fn records(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.server.root()).unwrap().map(|file| file.unwrap().file_name());
        files.filter_map(|name| name.into_string().ok().filter(|name| name.ends_with(".narinfo"))).collect()
    }

    /// The folders of roots on a builder.
    fn kept(&self, builder: usize) -> Vec<String> {
        let folders = fs::read_dir(self.lab.builders[builder].lab.path("state/drover/kept"));
        folders.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Both keep their store from one run to the next.
const BOTH: [Kind; 2] = [Kind::Forwarded, Kind::Stdio];

#[test]
fn what_cannot_be_pushed_is_built_once_all_the_same() {
    each_nix(|nix| {
        let place = Place::new(nix, &BOTH);
        place.server.always("PUT *", Fault::Status(500));
        let ran = place.exits(&place.site, 5, &["run", "--json", "-j", "0"]);
        let document = ran.json();
        let built = document["counts"]["drvs_built"].as_u64().unwrap();
        assert!(built > 100, "{built} drvs were built");
        assert_eq!(place.records(), BTreeSet::new());
        assert!(ran.stderr.contains("kept on b"), "{}", ran.stderr);

        // On the builders nothing but the roots that drover made keeps any of it.
        for (number, builder) in place.lab.builders.iter().enumerate() {
            assert_eq!(place.kept(number).len(), 1, "one day of roots on builder {number}");
            builder.lab.run("nix-store", &["--gc"]);
        }

        // Another coordinator, which knows nothing of that run.
        let again = Site { lab: Lab::chroot(nix), flake: place.site.flake.clone() };
        place.server.heal("PUT *");
        let document = place.exits(&again, 0, &["run", "--json", "-j", "0"]).json();
        assert_eq!(document["counts"]["drvs_built"].as_u64(), Some(0), "{}", document["counts"]);
        let skipped = |attr: &&Value| attr["status"] == "skipped";
        let attrs: Vec<&Value> = document["attrs"].as_array().unwrap().iter().filter(|a| !skipped(a)).collect();
        assert_eq!(attrs.len(), 25);
        for attr in &attrs {
            assert_eq!(attr["status"], "valid", "{attr}");
            let caches = attr["pushed"].as_object().unwrap();
            assert!(!caches.is_empty() && caches.values().all(|word| word == "complete"), "{attr}");
        }

        // The cache has all that Nix says the results refer to: they came home in the first run.
        let outputs: Vec<String> = attrs.iter().map(|attr| attr["outputs"]["out"].as_str().unwrap().into()).collect();
        let query: Vec<&str> = ["-qR"].into_iter().chain(outputs.iter().map(String::as_str)).collect();
        let closure = place.site.lab.run("nix-store", &query);
        let record = |path: &str| format!("{}.narinfo", base(path).split('-').next().unwrap());
        assert_eq!(place.records(), closure.lines().map(record).collect());
    });
}

#[test]
fn a_push_of_an_earlier_run_finds_its_paths_on_builders() {
    each_nix(|nix| {
        let place = Place::new(nix, &[Kind::Forwarded]);
        place.server.always("PUT *", Fault::Status(500));
        place.exits(&place.site, 5, &["run", "-j", "0", "--no-download"]);
        place.server.heal("PUT *");
        place.exits(&place.site, 0, &["push", "--run", "last"]);
        let alone = Place::new(nix, &[]);
        alone.exits(&alone.site, 0, &["run"]);
        assert_eq!(place.records(), alone.records());
    });
}

#[test]
fn roots_go_on_the_first_run_after_their_day() {
    let nix = newest();
    let place = Place::new(&nix, &[Kind::Forwarded]);
    let kept = place.lab.builders[0].lab.path("state/drover/kept");
    for day in ["2020-02-29", "2999-01-01", "notes"] {
        fs::create_dir_all(kept.join(day)).unwrap();
    }
    place.exits(&place.site, 0, &["run", "-j", "0"]);
    let mut left = place.kept(0);
    left.sort();
    assert_eq!(left, ["2999-01-01", "notes"]);
}

#[test]
fn where_nothing_can_be_kept_it_is_said_why() {
    let nix = newest();
    let place = Place::new(&nix, &[Kind::Untrusted]);
    place.server.always("PUT *", Fault::Status(500));
    let ran = place.exits(&place.site, 5, &["run", "-j", "0", "--no-download"]);
    assert!(ran.stderr.contains("its daemon does not trust this login"), "{}", ran.stderr);
    assert_eq!(place.kept(0), [""; 0]);
}
