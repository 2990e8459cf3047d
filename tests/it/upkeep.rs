//! `drover cache`: caches that were filled by real pushes, broken by hand and looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::fake_cache::FakeCache;
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Key, Site, base, narinfos, wait_until};

/// `app` refers to `lib`, which refers to `base`; `p1` … `p7` refer to nothing.
pub(crate) const FLAKE: &str = r#"{
  outputs = _:
    let
      build = name: more: script: derivation ({
        inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ];
      } // more);
      base = build "base-1.0" { } "echo base > $out";
      lib = build "lib-1.0" { inherit base; } "echo $base lib > $out";
      plain = n: {
        name = "p${toString n}";
        value = build "p${toString n}-1.0" { } "/usr/bin/head -c 20000 /dev/urandom > $out";
      };
    in {
      packages.x86_64-linux = builtins.listToAttrs (builtins.map plain [ 1 2 3 4 5 6 7 ]) // {
        app = build "app-1.0" { inherit lib; } "echo $lib app > $out";
      };
    };
}
"#;

/// A flake whose packages are in a directory that is `[cache.acme]`.
pub(crate) struct Place {
    pub(crate) site: Site,
    pub(crate) key: Key,
}

impl Place {
    /// Nothing is built yet.
    pub(crate) fn empty(nix: &Nix) -> Self {
        Self::at(Lab::plain(nix))
    }

    /// The same in this lab.
    pub(crate) fn at(lab: Lab) -> Self {
        let site = Site::of(lab, FLAKE);
        let key = site.key("acme-1");
        let keys = format!("public-keys = [\"{}\"]\n", key.public);
        site.edit("drover.toml", &format!("[cache.acme]\nurl = \"{}\"\n{keys}", site.cache_url(&key)));
        Self { site, key }
    }

    fn filled(nix: &Nix) -> Self {
        let place = Self::empty(nix);
        place.site.exits(0, &["run", "--push-to", "acme"]);
        assert_eq!(narinfos(&place.cache()).len(), 10);
        place
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.site.cache()
    }

    pub(crate) fn record(&self, name: &str) -> PathBuf {
        record_of(&self.cache(), name)
    }

    pub(crate) fn nar(&self, name: &str) -> PathBuf {
        nar_of(&self.cache(), name)
    }

    /// Changes a line of a record.
    fn change(&self, name: &str, key: &str, change: impl Fn(&str) -> String) {
        let at = self.record(name);
        let text = fs::read_to_string(&at).unwrap();
        let line = |line: &str| match line.split_once(": ") {
            Some((this, value)) if this == key => format!("{key}: {}\n", change(value)),
            _ => format!("{line}\n"),
        };
        let changed: String = text.lines().map(line).collect();
        assert_ne!(changed, text, "{key} of {name}");
        fs::write(at, changed).unwrap();
    }

    /// Removes what was built from the store, so that only caches have it.
    pub(crate) fn forget(&self) {
        self.site.lab.run("nix-store", &["--gc"]);
    }
}

fn record_of(cache: &Path, name: &str) -> PathBuf {
    let full = narinfos(cache).into_keys().find(|full| full[33..] == *name).unwrap();
    cache.join(format!("{}.narinfo", &full[..32]))
}

fn nar_of(cache: &Path, name: &str) -> PathBuf {
    let text = fs::read_to_string(record_of(cache, name)).unwrap();
    cache.join(text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap())
}

/// Name → what is wrong with it, of those that are (not) mended.
pub(crate) fn findings(document: &Value, mended: bool) -> BTreeMap<String, String> {
    let caches = document["caches"].as_array().unwrap().iter();
    let all = caches.flat_map(|cache| cache["findings"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = all.filter(|finding| finding["mended"].is_null() != mended);
    of.map(|finding| (text(&finding["name"]), text(&finding["faults"][0]["fault"]))).collect()
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Breaks eight paths in eight ways.
fn break_all(place: &Place) -> BTreeMap<String, String> {
    let truncated = place.nar("p1-1.0");
    fs::File::options().write(true).open(&truncated).unwrap().set_len(100).unwrap();
    flip(&place.nar("p2-1.0"));
    place.change("p3-1.0", "NarHash", |hash| {
        hash.replace(&hash[10..14], if &hash[10..14] == "0000" { "1111" } else { "0000" })
    });
    place.change("p4-1.0", "NarSize", |size| (size.parse::<u64>().unwrap() + 8).to_string());
    place.change("p5-1.0", "Sig", |sig| {
        let (name, _) = sig.split_once(':').unwrap();
        format!("{name}:{}==", "A".repeat(86))
    });
    fs::remove_file(place.nar("p6-1.0")).unwrap();
    fs::remove_file(place.record("base-1.0")).unwrap();
    let garbage = place.record("p7-1.0");
    fs::write(&garbage, "<html>503</html>\n").unwrap();
    map(&[
        ("p1-1.0", "nar_size"),
        ("p2-1.0", "nar_damaged"),
        ("p3-1.0", "signature"),
        ("p4-1.0", "signature"),
        ("p5-1.0", "signature"),
        ("p6-1.0", "nar_missing"),
        (garbage.file_stem().unwrap().to_str().unwrap(), "record"),
        ("lib-1.0", "reference"),
    ])
}

#[test]
fn eight_corruptions_of_eight_are_found_and_mended() {
    let place = Place::filled(&newest());
    place.site.exits(0, &["cache", "verify", "acme", "--deep"]);
    let broken = break_all(&place);

    let deep = place.site.exits(1, &["cache", "verify", "acme", "--deep", "--json"]).json();
    assert_eq!(findings(&deep, false), broken);
    // What needs no reading of NARs is found without.
    let quick = place.site.exits(1, &["cache", "verify", "--json", "acme"]).json();
    let mut shallow = broken.clone();
    shallow.retain(|_, fault| fault != "nar_damaged");
    assert_eq!(findings(&quick, false), shallow);

    let mended = place.site.exits(0, &["cache", "verify", "acme", "--deep", "--repair", "--json"]).json();
    assert_eq!(findings(&mended, true), broken, "{mended:#}");
    assert_eq!(findings(&mended, false), map(&[]));
    place.site.exits(0, &["cache", "verify", "acme", "--deep"]);
    assert_eq!(narinfos(&place.cache()).len(), 10);
}

#[test]
fn nix_takes_all_from_a_mended_cache() {
    each_nix(|nix| {
        let place = Place::filled(nix);
        break_all(&place);
        place.site.exits(0, &["cache", "verify", "acme", "--deep", "--repair"]);
        place.forget();
        place.site.lab.configure(&format!("require-sigs = true\ntrusted-public-keys = {}", place.key.public));
        let url = format!("file://{}", place.cache().display());
        for name in narinfos(&place.cache()).keys() {
            let path = format!("{}/{name}", place.site.lab.store_dir());
            place.site.lab.run("nix", &["copy", "--from", &url, &path]);
            assert_eq!(place.site.lab.run("nix", &["store", "verify", "--recursive", &path]), "");
        }
    });
}

#[test]
fn what_nobody_has_is_not_mended_and_what_another_cache_has_is() {
    let place = Place::filled(&newest());
    // Another cache has all but p1.
    let other = place.site.lab.path("other");
    copy(&place.cache(), &other);
    fs::remove_file(record_of(&other, "p1-1.0")).unwrap();
    let config = format!(
        "[cache.acme]\nurl = \"{}\"\n[cache.other]\nurl = \"file://{}\"\npublic-keys = [\"{}\"]\n",
        place.site.cache_url(&place.key),
        other.display(),
        place.key.public
    );
    place.site.edit("drover.toml", &config);
    place.forget();
    for name in ["p1-1.0", "p2-1.0", "lib-1.0"] {
        fs::remove_file(place.nar(name)).unwrap();
    }
    let ran = place.site.exits(1, &["cache", "verify", "acme", "--repair", "--json"]).json();
    assert_eq!(findings(&ran, true), map(&[("p2-1.0", "nar_missing"), ("lib-1.0", "nar_missing")]));
    assert_eq!(findings(&ran, false), map(&[("p1-1.0", "nar_missing")]));
    let found = ran["caches"][0]["findings"].as_array().unwrap().iter();
    let of = |name: &'static str| found.clone().find(|finding| finding["name"] == name).unwrap().clone();
    assert_eq!(of("p2-1.0")["mended"], "other");
    assert_eq!(of("p1-1.0")["not_mended"], "no store and no other cache has it");

    let screen = place.site.exits(1, &["cache", "verify", "acme"]).out();
    assert!(screen.contains("BROKEN  1 of 10 paths\n  p1-1.0  its NAR is not there\n"), "{screen}");
    assert!(screen.contains("drover cache verify acme --repair"), "{screen}");
}

#[test]
fn of_a_server_what_runs_pushed_is_looked_at() {
    let place = Place::empty(&newest());
    fs::create_dir(place.cache()).unwrap();
    let info = format!("StoreDir: {}\n", place.site.lab.store_dir());
    fs::write(place.cache().join("nix-cache-info"), info).unwrap();
    let server = FakeCache::start(&place.cache()).writable();
    let url = format!("{}?secret-key={}&retry-attempts=1", server.url, place.key.secret.display());
    place.site.edit("drover.toml", &format!("[cache.acme]\nurl = \"{url}\"\npush = true\n"));
    let asked = place.site.exits(2, &["cache", "verify"]);
    assert!(asked.stderr.contains("a server does not say what it holds"), "{}", asked.stderr);
    place.site.exits(0, &["run"]);
    let fine = place.site.exits(0, &["cache", "verify", "--deep"]).out();
    assert!(fine.contains("10 paths, all whole · ") && fine.contains(" · 10 NARs read, "), "{fine}");
    fs::remove_file(place.record("base-1.0")).unwrap();
    fs::remove_file(place.nar("p1-1.0")).unwrap();
    flip(&place.nar("p2-1.0"));
    let ran = place.site.exits(1, &["cache", "verify", "--deep", "--json"]).json();
    let broken =
        [("base-1.0", "absent"), ("lib-1.0", "reference"), ("p1-1.0", "nar_missing"), ("p2-1.0", "nar_damaged")];
    assert_eq!(findings(&ran, false), map(&broken));
    // Only one path.
    let app = place.site.outputs(
        &[place.site.lab.run("nix", &["eval", "--raw", &format!("{}#app.drvPath", place.site.flake.display())])].into(),
    );
    let app = format!("{}/{}", place.site.lab.store_dir(), app.first().unwrap());
    let one = place.site.exits(1, &["cache", "verify", "--path", &app, "--json"]).json();
    assert_eq!(findings(&one, false), map(&[("lib-1.0", "reference")]));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("nar")).unwrap();
    for dir in ["", "nar"] {
        for entry in fs::read_dir(from.join(dir)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() {
                fs::copy(&entry, to.join(dir).join(entry.file_name().unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn a_prune_shows_first_and_leaves_what_is_kept_whole() {
    each_nix(|nix| {
        let place = Place::filled(nix);
        let old: BTreeSet<String> = narinfos(&place.cache()).into_keys().collect();
        // The next version of `app` refers to the same `base` by a new `lib`.
        place.site.edit("flake.nix", &FLAKE.replace("lib-1.0", "lib-2.0").replace("app-1.0", "app-2.0"));
        place.site.exits(0, &["run", "--push-to", "acme"]);
        age(&place.cache(), &old);
        let prune = ["cache", "prune", "acme", "--keep-last", "1", "--grace", "1"];

        let shown = place.site.exits(0, &prune).out();
        assert!(shown.contains("delete   2 paths"), "{shown}");
        assert!(shown.contains("app-1.0 · lib-1.0"), "{shown}");
        assert!(shown.ends_with("--keep-last 1 --grace 1 --delete\n"), "{shown}");
        assert_eq!(narinfos(&place.cache()).len(), 12, "nothing was deleted");

        let done = place.site.exits(0, &[&prune[..], &["--delete", "--json"]].concat()).json();
        // Both versions of `lib` are the same bytes.
        assert_eq!((&done["deleted"]["paths"], &done["deleted"]["nars"]), (&2.into(), &1.into()));
        let names: BTreeSet<String> = narinfos(&place.cache()).into_keys().map(|name| name[33..].to_owned()).collect();
        assert!(!names.contains("app-1.0") && !names.contains("lib-1.0"));
        assert!(["app-2.0", "lib-2.0", "base-1.0", "p1-1.0"].iter().all(|name| names.contains(*name)), "{names:?}");
        place.site.exits(0, &["cache", "verify", "acme", "--deep"]);
        let again = place.site.exits(0, &[&prune[..], &["--delete"]].concat()).out();
        assert!(again.contains("0 paths and 0 NARs deleted") || again.contains("nothing to delete"), "{again}");

        place.forget();
        place.site.lab.configure(&format!("require-sigs = true\ntrusted-public-keys = {}", place.key.public));
        let app = narinfos(&place.cache()).into_keys().find(|name| name.ends_with("app-2.0")).unwrap();
        let path = format!("{}/{app}", place.site.lab.store_dir());
        place.site.lab.run("nix", &["copy", "--from", &format!("file://{}", place.cache().display()), &path]);
    });
}

/// Makes the records of these paths, and their NARs, two days old.
pub(crate) fn age(cache: &Path, names: &BTreeSet<String>) {
    let age = std::time::Duration::from_secs(2 * 24 * 60 * 60);
    for name in names {
        let record = cache.join(format!("{}.narinfo", &name[..32]));
        let text = fs::read_to_string(&record).unwrap();
        let nar = cache.join(text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap());
        for file in [record, nar] {
            let file = fs::File::options().append(true).open(file).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - age).unwrap();
        }
    }
}

#[test]
fn roots_are_kept_and_so_is_what_recorded_runs_wanted() {
    let place = Place::filled(&newest());
    let names: BTreeSet<String> = narinfos(&place.cache()).into_keys().collect();
    age(&place.cache(), &names);
    let kept = |more: &[&str]| {
        let ran = place.site.exits(0, &[&["cache", "prune", "acme", "--json"], more].concat()).json();
        (ran["kept"]["roots"].as_u64().unwrap(), ran["kept"]["references"].as_u64().unwrap())
    };
    let app = names.iter().find(|name| name.ends_with("app-1.0")).unwrap();
    let app = format!("{}/{app}", place.site.lab.store_dir());
    assert_eq!(kept(&["--keep-roots", &app]), (1, 2));
    let list = place.site.lab.write("list", &format!("# hosts\n{app}\n"));
    assert_eq!(kept(&["--keep-roots", list.to_str().unwrap()]), (1, 2));
    // The run of just now wanted and built all of them.
    assert_eq!(kept(&["--keep-days", "1"]), (10, 0));
    place.site.exits(2, &["cache", "prune", "acme"]);
    // What a record needs that cannot be read is not known.
    let count = || fs::read_dir(place.cache()).unwrap().count();
    let before = count();
    fs::write(place.record("p1-1.0"), "").unwrap();
    let refused = place.site.exits(1, &["cache", "prune", "acme", "--keep-roots", &app, "--delete"]);
    assert!(refused.stderr.contains("1 record cannot be read"), "{}", refused.stderr);
    assert_eq!(count(), before);
}

/// A directory with so many made-up paths in chains of ten, none of which is kept by `--keep-last 0`.
fn made_up(place: &Place, paths: usize) -> PathBuf {
    let cache = place.site.lab.path("made-up");
    let dir = place.site.lab.store_dir();
    fs::create_dir_all(cache.join("nar")).unwrap();
    fs::write(cache.join("nix-cache-info"), format!("StoreDir: {dir}\n")).unwrap();
    let name = |n: usize| format!("{n:0>32}-p-{n}");
    for n in 0..paths {
        let below = if n % 10 == 0 { String::new() } else { name(n - 1) };
        let hash = "0".repeat(52);
        let record = format!(
            "StorePath: {dir}/{}\nURL: nar/{n}.nar\nCompression: none\nNarHash: sha256:{hash}\nNarSize: 4\nReferences: {below}\n",
            name(n)
        );
        fs::write(cache.join(format!("{n:0>32}.narinfo")), record).unwrap();
        fs::write(cache.join(format!("nar/{n}.nar")), "abcd").unwrap();
    }
    cache
}

/// Each record has its reference and its NAR.
fn is_whole(cache: &Path) -> usize {
    let records = narinfos(cache);
    for text in records.values() {
        let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        assert!(of("References:").trim().is_empty() || records.contains_key(of("References: ")), "{text}");
        assert!(cache.join(of("URL: ")).exists(), "{text}");
    }
    records.len()
}

#[test]
fn a_prune_that_is_killed_or_stopped_leaves_a_whole_cache() {
    let place = Place::empty(&newest());
    let cache = made_up(&place, 6000);
    let url = format!("file://{}", cache.display());
    let prune = ["cache", "prune", &url, "--keep-last", "0", "--grace", "0", "--delete"];
    // A second has to pass before they are older than now.
    let listed = || fs::read_dir(&cache).unwrap().count();
    for (name, left) in [("KILL", 6002), ("INT", 0)] {
        let before = if left > 0 { left } else { listed() };
        let running = place.site.start(&prune);
        wait_until("a record to go", || (listed() < before).then_some(()));
        running.signal(name);
        let ran = running.wait();
        let left = is_whole(&cache);
        if name == "INT" && left > 0 {
            ran.expect(130);
            assert!(ran.out().contains("stopped"), "{}", ran.out());
        }
    }
    place.site.exits(0, &prune);
    assert_eq!(is_whole(&cache), 0);
    assert_eq!(fs::read_dir(cache.join("nar")).unwrap().count(), 0);
}

#[test]
fn a_cache_is_warmed_from_another_without_building() {
    each_nix(|nix| {
        let place = Place::filled(nix);
        let warm = place.site.lab.path("warm");
        let key = place.site.key("warm-1");
        let config = format!(
            "[cache.acme]\nurl = \"file://{}\"\npublic-keys = [\"{}\"]\n[cache.warm]\nurl = \"file://{}?secret-key={}\"\n",
            place.cache().display(),
            place.key.public,
            warm.display(),
            key.secret.display()
        );
        place.site.edit("drover.toml", &config);
        place.forget();
        let ran = place.site.exits(0, &["cache", "warm", "app", "p1", "--push-to", "warm", "--json"]).json();
        let told = &ran["caches"][0];
        assert_eq!(told["copied"], 4, "{ran:#}");
        let names: BTreeSet<String> = narinfos(&warm).into_keys().map(|name| name[33..].to_owned()).collect();
        assert_eq!(names, ["app-1.0", "lib-1.0", "base-1.0", "p1-1.0"].map(str::to_owned).into());
        assert!(narinfos(&warm).values().all(|text| text.contains("Sig: warm-1:") && text.contains("Sig: acme-1:")));
        assert!(!place.site.lab.physical().join(base(narinfos(&warm).keys().next().unwrap())).exists());
        // Again there is nothing to do; what nobody has built is told.
        place.site.edit("flake.nix", &FLAKE.replace("toString n}-1.0", "toString n}-2.0"));
        let again = place.site.exits(0, &["cache", "warm", "app", "p1", "--push-to", "warm"]);
        assert!(again.stderr.contains("in no cache: 1  p1"), "{}", again.stderr);
        assert!(again.last_line().contains("1 attr warm · 0 paths copied"), "{}", again.stderr);
        assert!(again.stderr.contains("To fetch: ") && !again.stderr.contains("To push: "), "{}", again.stderr);
    });
}

#[test]
fn what_a_cache_lost_below_a_host_is_pushed_again_on_demand() {
    let place = Place::filled(&newest());
    let cache = place.cache();
    // `app` itself is only in the cache; what it refers to is in the store, too.
    let app = narinfos(&cache).into_keys().find(|name| name.ends_with("app-1.0")).unwrap();
    place.site.lab.run("nix-store", &["--delete", &format!("{}/{app}", place.site.lab.store_dir())]);
    fs::remove_file(place.record("base-1.0")).unwrap();
    let run = |code: i32, more: &[&str]| {
        let ran = place.site.exits(code, &[&["run", "app", "--push-to", "acme", "--json"], more].concat()).json();
        (ran["attrs"][0]["status"].clone(), ran["attrs"][0]["pushed"]["acme"].clone())
    };
    let has_base = || narinfos(&cache).keys().any(|name| name.ends_with("base-1.0"));
    // The store has `base`, so nothing has to be built; and what is in the cache is not looked at any further.
    assert_eq!(run(0, &[]), ("cached".into(), "complete".into()));
    assert!(!has_base());
    assert_eq!(run(0, &["--require-complete"]), ("cached".into(), "complete".into()));
    assert!(has_base());
    place.site.exits(0, &["cache", "verify", "acme", "--deep"]);
    // Nobody has it any more, and its record says otherwise.
    place.forget();
    fs::remove_file(place.nar("base-1.0")).unwrap();
    assert_eq!(run(5, &["--require-complete"]), ("cached".into(), "no".into()));
}

#[test]
fn the_status_of_a_cache_is_what_it_holds_and_what_runs_had_of_it() {
    let place = Place::filled(&newest());
    let ran = place.site.exits(0, &["cache", "status", "acme", "--json"]).json();
    let acme = &ran["caches"][0];
    assert_eq!(
        (&acme["name"], &acme["holds"]["paths"], &acme["holds"]["nars"]),
        (&"acme".into(), &10.into(), &10.into())
    );
    assert_eq!(acme["use"]["last_push"]["paths"], 10);
    let before = &acme["use"];
    assert_eq!((&before["attrs"], &before["attrs_hit"]), (&8.into(), &0.into()));
    place.forget();
    place.site.exits(0, &["run"]);
    let after = place.site.exits(0, &["cache", "status", "acme", "--json"]).json();
    let after = &after["caches"][0]["use"];
    assert_eq!((&after["runs"], &after["attrs"], &after["attrs_hit"]), (&2.into(), &16.into(), &8.into()));
    let screen = place.site.exits(0, &["cache", "status"]).out();
    assert!(screen.starts_with("acme  file://") && screen.contains("holds      10 paths, "), "{screen}");
    place.site.exits(2, &["cache", "status", "acne"]);
}
