//! `drover run` with builders over ssh: derivations are built on them one by one, what they need is brought to them,
//! and the results come home.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::fake_cache::FakeCache;
use crate::support::farm_lab::{BuilderSpec, Kind};
use crate::support::farm_site::{FarmSite, spec, valid};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Site, base, statuses, strings};

/// The result of each attr that has one.
fn results(document: &Value) -> BTreeMap<String, String> {
    let attrs = document["attrs"].as_array().unwrap().iter();
    let result = |attr: &Value| {
        let out = attr["outputs"]["out"].as_str()?;
        Some((attr["attr"].as_str()?.to_owned(), out.to_owned()))
    };
    attrs.filter(|attr| attr["status"] != "skipped").filter_map(result).collect()
}

/// Hash of the NAR of each path.
fn hashes<'a>(lab: &Lab, paths: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut args = vec!["--query", "--hash"];
    args.extend(paths.map(String::as_str));
    lab.run("nix-store", &args).lines().map(str::to_owned).collect()
}

#[test]
fn a_fleet_is_built_on_two_builders_and_comes_home() {
    each_nix(|nix| {
        let alone = Site::fleet(Lab::chroot(nix));
        let expected = results(&alone.exits(0, &["run", "--json"]).json());

        let farm = FarmSite::of_kinds(nix, &[Kind::Forwarded, Kind::Stdio]);
        let document = farm.exits(0, &["run", "--json", "-j", "0"]).json();
        let statuses = statuses(&document);
        assert_eq!(statuses.values().filter(|status| *status == "built").count(), 25, "{statuses:?}");
        let found = results(&document);
        assert_eq!(found, expected);
        // All of them are here, and as if they had been built here.
        assert_eq!(hashes(&farm.site.lab, found.values()), hashes(&alone.lab, expected.values()));

        let events = farm.site.events();
        let started = events.of("attempt_started");
        assert!(started.iter().all(|event| event["builder"] != 0), "the local store takes nothing");
        for (number, builder) in [(0, 1), (1, 2)] {
            let attempts: BTreeSet<u64> = started
                .iter()
                .filter(|event| event["builder"] == builder)
                .map(|event| event["attempt"].as_u64().unwrap())
                .collect();
            assert!(!attempts.is_empty(), "builder {builder} had nothing to do");
            let of = |event: &&Value| attempts.contains(&event["attempt"].as_u64().unwrap());
            let prepared = events.of("attempt_prepared").into_iter().filter(|event| of(event));
            let copied: u64 = prepared.map(|event| event["copied"].as_u64().unwrap()).sum();
            let ended = events.of("attempt_ended").into_iter().filter(|event| of(event));
            let built: u64 = ended.map(|event| event["outputs"].as_array().unwrap().len() as u64).sum();
            // Each path has come once, by copying or by building.
            assert_eq!(copied + built, farm.valid_on(number).len() as u64);
        }

        // What the builders hold is not built again, for nobody.
        let other = Site::fleet(Lab::chroot(nix));
        let document = farm.exits_at(&other, 0, &["run", "--json", "-j", "0"]).json();
        assert_eq!(document["counts"]["drvs_to_build"], 0, "{document}");
        assert_eq!(hashes(&other.lab, found.values()), hashes(&alone.lab, expected.values()));
        // And nothing is asked of anybody when all is here.
        let again = farm.exits_at(&other, 0, &["run", "--json"]).json();
        assert_eq!(again["counts"]["drvs_to_build"], 0);
        assert!(other.events().of("builder_ready").len() == 1, "nobody was dialled");
    });
}

#[test]
fn results_may_stay_where_they_were_built() {
    let nix = newest();
    let farm = FarmSite::of_kinds(&nix, &[Kind::Forwarded, Kind::Narrow]);
    let document = farm.exits(0, &["run", "--json", "-j", "0", "--no-download"]).json();
    let found: BTreeSet<String> = results(&document).into_values().collect();
    assert!(!found.is_empty());
    assert!(found.is_disjoint(&valid(&farm.site.lab)));
    let there: BTreeSet<String> = farm.valid_on(0).union(&farm.valid_on(1)).cloned().collect();
    assert!(found.is_subset(&there));
}

#[test]
fn the_local_store_builds_too() {
    let nix = newest();
    let farm = FarmSite::of_kinds(&nix, &[Kind::Forwarded]);
    farm.exits(0, &["run", "--json", "-j", "2"]);
    let events = farm.site.events();
    let on = |builder: u64| events.of("attempt_started").iter().filter(|event| event["builder"] == builder).count();
    assert!(on(0) > 0 && on(1) > 0, "{} here, {} there", on(0), on(1));
}

#[test]
fn a_builder_that_does_not_trust_us_builds_what_it_can() {
    each_nix(|nix| {
        let farm = FarmSite::of_kinds(nix, &[Kind::Untrusted]);
        let document = farm.exits(0, &["run", "--json", "-j", "0"]).json();
        let statuses = statuses(&document);
        assert_eq!(statuses.values().filter(|status| *status == "built").count(), 25, "{statuses:?}");
    });
}

#[test]
fn each_system_is_built_where_it_can_be() {
    let nix = newest();
    let of = |system: &str| BuilderSpec { system: Some(system.to_owned()), ..BuilderSpec::new(Kind::Forwarded, &nix) };
    let specs = vec![of("aarch64-linux"), of("aarch64-darwin")];
    let farm = FarmSite::new(Site::fleet(Lab::chroot(&nix)), &nix, specs);
    let document = farm.exits(0, &["run", "--json"]).json();
    let statuses = statuses(&document);
    for attr in ["darwinConfigurations.mac1", "packages.aarch64-linux.one"] {
        assert_eq!(statuses.get(attr).map(String::as_str), Some("built"), "{statuses:?}");
    }
}

#[test]
fn a_builder_fetches_itself_what_a_cache_has() {
    each_nix(|nix| {
        let farm = FarmSite::of_kinds(nix, &[Kind::Forwarded]);
        // Somebody else has filled a cache with everything but the hosts.
        let filler = Site::fleet(Lab::chroot(nix));
        let key = filler.key("farm-1");
        let url = filler.cache_url(&key);
        filler.exits(0, &["run", "packages", "--push-to", &url]);
        let cache = FakeCache::start(&filler.cache());
        farm.site.lab.configure(&format!("substituters = {}\ntrusted-public-keys = {}\n", cache.url, key.public));
        let document = farm.exits(0, &["run", "--json", "-j", "0", "--no-download"]).json();
        let built = strings(&document["drvs"]["build"]);
        let fetched = strings(&document["drvs"]["fetch"]);
        assert!(!built.is_empty() && !fetched.is_empty(), "{document}");
        let of_cache = farm.site.outputs(&fetched);
        let here: BTreeSet<String> = valid(&farm.site.lab).iter().map(|path| base(path)).collect();
        assert!(here.is_disjoint(&of_cache), "nothing is fetched only to be sent on");
        let prepared: u64 =
            farm.site.events().of("attempt_prepared").iter().map(|event| event["fetched"].as_u64().unwrap()).sum();
        assert!(prepared > 0);
    });
}

#[test]
fn what_a_cache_has_lost_is_built() {
    let nix = newest();
    let farm = FarmSite::of_kinds(&nix, &[Kind::Forwarded, Kind::Stdio]);
    let filler = Site::fleet(Lab::chroot(&nix));
    let key = filler.key("farm-1");
    filler.exits(0, &["run", "packages", "--push-to", &filler.cache_url(&key)]);
    // Its records are there, and nothing behind them.
    std::fs::remove_dir_all(filler.cache().join("nar")).unwrap();
    let cache = FakeCache::start(&filler.cache());
    farm.site.lab.configure(&format!("substituters = {}\ntrusted-public-keys = {}\n", cache.url, key.public));
    let document = farm.exits(0, &["run", "--json", "-j", "0"]).json();
    let statuses = statuses(&document);
    let done = statuses.values().filter(|status| ["built", "cached"].contains(&status.as_str()));
    assert_eq!(done.count(), 25, "{statuses:?}");
}

#[test]
fn what_is_imported_may_be_built_elsewhere() {
    let nix = newest();
    let flake = r#"{ outputs = { self }: let
      says = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo -n '${text}' > $out" ]; };
    in { packages.x86_64-linux.once = says "once" (builtins.readFile (says "gen" "x")); }; }"#;
    let farm = FarmSite::new(Site::of(Lab::chroot(&nix), flake), &nix, vec![spec(Kind::Forwarded, &nix)]);
    let document = farm.exits(0, &["run", "--json", "-j", "0"]).json();
    assert_eq!(statuses(&document).values().collect::<Vec<_>>(), ["built"]);
    let events = farm.site.events();
    assert_eq!(events.of("attempt_started").iter().filter(|event| event["builder"] == 1).count(), 2);
}
