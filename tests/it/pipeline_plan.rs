//! What `drover plan` and `drover run` find to do, against what Nix itself says, and where paths come from.

use std::collections::{BTreeMap, BTreeSet};

use crate::eval::block_on;
use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, each_nix};
use crate::support::site::{Key, Site, base, finish, narinfos, statuses, strings};

/// Every host and every package of the fleet, as `nix build` wants them.
fn installables(site: &Site) -> Vec<String> {
    let flake = site.flake.display();
    let hosts = (0..12).map(|n| format!("{flake}#nixosConfigurations.host{n:02}.config.system.build.toplevel"));
    let names = ["library", "uses-headers", "source", "settings", "own-build", "structured", "chain", "diamond"];
    let packages = names.iter().chain(&["default", "\"tool-1.2\""]);
    hosts.chain(packages.map(|name| format!("{flake}#packages.x86_64-linux.{name}"))).collect()
}

/// What `nix build --dry-run` would build and fetch.
fn dry_run(site: &Site, installables: &[String]) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut command = site.lab.command("nix");
    command.args(["build", "--dry-run", "--no-link"]).args(installables);
    let ran = finish(command, &["nix build --dry-run"]);
    ran.expect(0);
    let (mut build, mut fetch) = (BTreeSet::new(), BTreeSet::new());
    let mut fetching = false;
    for line in ran.stderr.lines() {
        if line.ends_with("will be built:") || line.contains("will be fetched") {
            fetching = line.contains("fetched");
        } else if let Some(path) = line.trim().strip_prefix(&format!("{}/", site.lab.store_dir())) {
            if fetching { &mut fetch } else { &mut build }.insert(path.to_owned());
        }
    }
    (build, fetch)
}

/// Compares a plan with Nix. Nix always fetches results and names what paths refer to; a plan leaves results in their
/// cache and names what is asked for. So what the plan fetches, and the results, with all that they refer to, has to be
/// what Nix fetches.
#[track_caller]
fn plan_is_that_of_nix(site: &Site, case: &str) -> (usize, usize) {
    let (build, fetch) = dry_run(site, &installables(site));
    let args = ["plan", "--kind", "nixosConfigurations,packages", "--json"];
    let document = site.exits(0, &args).json();
    let ours: BTreeSet<String> = strings(&document["drvs"]["build"]).iter().map(|drv| base(drv)).collect();
    assert_eq!(ours, build, "to build: {case}");

    let fetched: BTreeSet<String> = strings(&document["drvs"]["fetch"]).iter().map(|path| base(path)).collect();
    assert!(fetched.is_subset(&fetch), "fetched for nothing: {case}: {:?}", fetched.difference(&fetch));
    let mut all = fetched;
    for attr in document["attrs"].as_array().unwrap().iter().filter(|attr| attr["status"] == "to_fetch") {
        let outputs = attr["outputs"].as_object().unwrap();
        // What Nix would install: `out` of those with several.
        all.insert(base(outputs.get("out").and_then(|out| out.as_str()).unwrap()));
    }
    let records = if site.cache().exists() { narinfos(&site.cache()) } else { BTreeMap::new() };
    let mut closure = BTreeSet::new();
    while let Some(path) = all.pop_first() {
        let references = records[&path].lines().find_map(|line| line.strip_prefix("References: ")).unwrap_or("");
        all.extend(references.split_whitespace().map(str::to_owned).filter(|other| !closure.contains(other)));
        closure.insert(path);
    }
    closure.retain(|path| !site.lab.physical().join(path).exists());
    assert_eq!(closure, fetch, "to fetch: {case}");
    (build.len(), fetch.len())
}

/// Has the site read from its cache directory.
fn read_from(site: &Site, url: &str, key: &Key) {
    site.lab.configure(&format!("substituters = {url}\ntrusted-public-keys = {}", key.public));
}

#[test]
fn a_plan_is_what_nix_would_do() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        assert_eq!(plan_is_that_of_nix(&site, "nothing is built"), (147, 0));

        let key = site.key("fleet-1");
        let url = site.cache_url(&key);
        let part =
            ["run", ".#pkg79", "pkg104", "pkg68", "chain", "structured", "own-build", "source", "--push-to", &url];
        site.exits(0, &part);
        let (build, fetch) = plan_is_that_of_nix(&site, "a part is built");
        assert!((20..140).contains(&build) && fetch == 0, "{build} {fetch}");

        // Another store, and a cache that holds the part.
        let lab = Lab::chroot(nix);
        let other = Site { flake: site.flake.clone(), lab };
        std::os::unix::fs::symlink(site.cache(), other.cache()).unwrap();
        read_from(&other, &format!("file://{}", site.cache().display()), &key);
        assert_eq!(plan_is_that_of_nix(&other, "a cache holds a part").0, build + 1, "and own-build, never fetched");

        // Signed by a key that this store does not trust: as good as absent. Nix's dry run does not look at keys.
        other.lab.configure(&format!("substituters = file://{}", site.cache().display()));
        let document = other.exits(0, &["plan", "--kind", "nixosConfigurations,packages", "--json"]).json();
        assert_eq!(document["counts"]["drvs_to_build"], 147 - 1, "content tells for itself: no key is needed");
        assert!(document["caches"][0]["untrusted"].as_u64() > Some(10), "{}", document["caches"]);
    });
}

/// What a cache directory holds of one name: its record's file and its NAR's.
fn files_of(cache: &std::path::Path, name: &str) -> (String, String) {
    let records = narinfos(cache);
    let (path, text) = records.iter().find(|(path, _)| &path[33..] == name).unwrap();
    let nar = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
    (format!("{}.narinfo", &path[..32]), nar.to_owned())
}

#[test]
fn inputs_come_from_a_cache_and_what_it_has_lost_is_built() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let key = site.key("fleet-1");
        let chain = "packages.x86_64-linux.chain";
        // The greeting needs the chain's last link and nothing else.
        site.exits(0, &["run", chain, "uses-headers", "--push-to", &site.cache_url(&key)]);
        let trusting = |url: &str| {
            let other = Site { flake: site.flake.clone(), lab: Lab::chroot(nix) };
            read_from(&other, url, &key);
            other
        };
        let file = format!("file://{}", site.cache().display());

        // Only what is needed is fetched, only what is missing is built.
        let other = trusting(&file);
        let document = other.exits(0, &["run", "greeting", "--json"]).json();
        let events = other.events();
        assert_eq!((events.fetched(), events.built()), (vec!["chain-d".to_owned()], vec!["check-greeting".to_owned()]));
        assert_eq!((&document["counts"]["drvs_built"], &document["counts"]["fetched"]), (&1.into(), &1.into()));

        // A result that the cache has stays there, unless it is asked for.
        let other = trusting(&file);
        let document = other.exits(0, &["run", chain, "--json"]).json();
        assert_eq!(statuses(&document)[chain], "cached");
        let out = other.lab.physical().join(base(document["attrs"][0]["outputs"]["out"].as_str().unwrap()));
        assert!(!out.exists());
        let document = other.exits(0, &["run", chain, "--json", "--download"]).json();
        assert_eq!(statuses(&document)[chain], "cached");
        assert!(out.exists());

        // Its record is there and its file is not, or is not what it should be: what a fetch cannot bring is built.
        let (_, nar) = files_of(&site.cache(), "chain-d");
        for fault in [Fault::Status(404), Fault::Body(b"nothing that could be unpacked".to_vec())] {
            block_on(async {
                let cache = FakeCache::serve(&site.cache()).await;
                cache.always(&nar, fault.clone());
                let other = trusting(&cache.url);
                let ran = on_a_thread(&other, &["run", "greeting", "--json"]).await;
                ran.expect(0);
                let events = other.events();
                // What it refers to came before its own file, and is not built.
                assert_eq!(events.built(), ["chain-d", "check-greeting"], "{fault:?} {}", ran.stderr);
                assert_eq!(statuses(&ran.json())["checks.x86_64-linux.greeting"], "built");
                assert!(cache.requests(&nar) > 0);
            });
        }
    });
}

/// Runs drover while a fake cache is served by this thread.
async fn on_a_thread(site: &Site, args: &[&str]) -> crate::support::site::Ran {
    let (command, args): (_, Vec<String>) = (site.command(args), args.iter().map(|arg| (*arg).to_owned()).collect());
    let run = move || finish(command, &args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[test]
fn what_must_not_be_substituted_is_never_asked_of_a_cache() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let key = site.key("fleet-1");
        let all = ["settings", "own-build", "source", "structured", "uses-headers", "tool-1.2"];
        let url = site.cache_url(&key);
        site.exits(0, &[&["run", "--push-to", &url][..], &all[..]].concat());
        block_on(async {
            let cache = FakeCache::serve(&site.cache()).await;
            let other = Site { flake: site.flake.clone(), lab: Lab::chroot(nix) };
            // A new salt: all paths are new, but for the one whose content is known.
            read_from(&other, &cache.url, &key);
            let ran = on_a_thread(&other, &[&["run", "--json"][..], &all[..]].concat()).await;
            ran.expect(0);
            let found = statuses(&ran.json());
            let short: Vec<String> =
                found.iter().map(|(k, v)| format!("{} {v}", k.split('.').nth(2).unwrap())).collect();
            assert_eq!(
                short,
                [
                    "\"tool-1 cached",
                    "own-build built",
                    "settings built",
                    "source cached",
                    "structured cached",
                    "uses-headers cached"
                ],
            );
            for name in ["settings", "own-build-3"] {
                let (record, nar) = files_of(&site.cache(), name);
                assert_eq!((cache.requests(&record), cache.requests(&nar)), (0, 0), "{name} is asked for");
            }
            assert_eq!(other.events().built().len(), 2);

            site.edit("salt", "another\n");
            let ran = on_a_thread(&other, &[&["run", "--json"][..], &all[..]].concat()).await;
            ran.expect(0);
            let found = statuses(&ran.json());
            assert_eq!(found["packages.x86_64-linux.source"], "cached", "its path does not depend on how it is made");
            assert_eq!(found["packages.x86_64-linux.structured"], "built");
            let mut built = other.events().built();
            built.sort();
            assert_eq!(
                built,
                ["library-2.1", "own-build-3", "settings", "structured-1.0", "tool-1.2", "uses-headers-1.0"]
            );
        });
    });
}

#[test]
fn only_outputs_that_are_wanted_count() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        // The headers alone are valid: from a cache, since a build makes all three.
        let key = site.key("fleet-1");
        site.exits(0, &["run", "library", "--push-to", &site.cache_url(&key)]);
        let (out, _) = files_of(&site.cache(), "library-2.1");
        let (doc, _) = files_of(&site.cache(), "library-2.1-doc");
        for lost in [out, doc] {
            std::fs::remove_file(site.cache().join(lost)).unwrap();
        }
        let other = Site { flake: site.flake.clone(), lab: Lab::chroot(nix) };
        read_from(&other, &format!("file://{}", site.cache().display()), &key);
        // The cache has `dev`, but that refers to `out`, so no store would take it.
        let plan = other.exits(0, &["plan", "uses-headers", "--json"]).json();
        assert_eq!(plan["counts"]["drvs_to_build"], 2);
        assert!(strings(&plan["drvs"]["fetch"]).is_empty());
        let plan = other.exits(0, &["plan", "library", "--json"]).json();
        assert_eq!(plan["counts"]["drvs_to_build"], 1);
        assert!(strings(&plan["drvs"]["fetch"]).is_empty());
        other.exits(0, &["run", "uses-headers"]);
        assert_eq!(other.events().built(), ["library-2.1", "uses-headers-1.0"]);

        // `dev` wanted and valid: nothing to build, whatever became of the others.
        let site = Site::of(
            Lab::plain(nix),
            r#"{ outputs = { self }: { packages.x86_64-linux = rec {
              both = derivation { name = "both"; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "out" "dev" ];
                args = [ "-c" "set -e; echo 1 > $out; echo 2 > $dev" ]; };
              dev = both.dev // { outputSpecified = true; };
            }; }; }"#,
        );
        let document = site.exits(0, &["run", "both", "--json"]).json();
        let outputs = &document["attrs"][0]["outputs"];
        site.lab.run("nix-store", &["--delete", outputs["out"].as_str().unwrap()]);
        let document = site.exits(0, &["run", "packages.x86_64-linux.dev", "--json"]).json();
        assert_eq!(statuses(&document)["packages.x86_64-linux.dev"], "valid", "{document}");
        assert_eq!(document["counts"]["drvs_to_build"], 0);
        let document = site.exits(0, &["run", "packages.x86_64-linux.both", "--json"]).json();
        assert_eq!(statuses(&document)["packages.x86_64-linux.both"], "built");
    });
}

#[test]
fn what_is_only_known_after_building_goes_whole_to_the_daemon() {
    each_nix(|nix| {
        let site = Site::new(Lab::chroot(nix), "broken");
        site.lab.configure("extra-experimental-features = ca-derivations");
        let key = site.key("ca-1");
        let url = site.cache_url(&key);
        let attrs = ["content-addressed", "uses-content-addressed"];
        let args = [&["run", "--push-to", &url, "--json"][..], &attrs].concat();
        let document = site.exits(0, &args).json();
        assert_eq!(strings(&document["drvs"]["opaque"]).len(), 2);
        assert_eq!(document["counts"]["drvs_built"], 2);
        for attr in document["attrs"].as_array().unwrap() {
            assert_eq!((&attr["status"], &attr["pushed"]["cache.d"]), (&"built".into(), &"complete".into()));
            let installable = format!("{}#{}", site.flake.display(), attr["attr"].as_str().unwrap());
            let nix = site.lab.run("nix", &["build", "--no-link", "--print-out-paths", &installable]);
            assert_eq!(attr["outputs"]["out"].as_str(), Some(nix.as_str()));
            assert!(narinfos(&site.cache()).contains_key(&base(&nix)));
        }
        // Nothing tells beforehand that they are there, but nothing is built for it.
        let document = site.exits(0, &args).json();
        assert!(document["attrs"].as_array().unwrap().iter().all(|attr| attr["status"] == "valid"), "{document}");
        assert_eq!((&document["counts"]["drvs_built"], &document["counts"]["pushed"]), (&0.into(), &0.into()));
        assert!(site.events().built().is_empty());
    });
}
