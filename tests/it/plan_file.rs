//! Plans in files: a run from one, in an empty store and without the flake, does what a run of the flake does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::nix::{Lab, Nix, Who, each_nix, everybody};
use crate::support::site::{Ran, Site, base, finish, statuses, strings};

/// A place with a store of its own, where the flake is not: drover is started in an empty directory.
fn elsewhere(nix: &Nix, who: Who) -> Site {
    let lab = Lab::of(nix, who);
    let empty = lab.work().join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    lab.give(&empty);
    Site { lab, flake: empty }
}

/// The plan, where everybody can read it.
fn carried(to: &Site, plan: &Path) -> String {
    let copy = to.lab.work().join("carried.drover");
    std::fs::copy(plan, &copy).unwrap();
    to.lab.give(&copy);
    copy.display().to_string()
}

/// Absolute path of each output of the attrs of a document → the hash of its NAR in that store.
fn results(site: &Site, document: &Value) -> BTreeMap<String, String> {
    let attrs = document["attrs"].as_array().unwrap().iter();
    let paths: BTreeSet<String> = attrs
        .flat_map(|attr| attr["outputs"].as_object().unwrap().values().filter_map(Value::as_str).map(str::to_owned))
        .collect();
    let there: Vec<String> = paths.into_iter().filter(|path| site.lab.physical().join(base(path)).exists()).collect();
    let args: Vec<&str> = ["--query", "--hash"].into_iter().chain(there.iter().map(String::as_str)).collect();
    let said = site.lab.run("nix-store", &args);
    assert_eq!(said.lines().count(), there.len());
    there.iter().cloned().zip(said.lines().map(str::to_owned)).collect()
}

/// Writes the plan of a site; gives what was said and the file.
fn plan(site: &Site, args: &[&str]) -> (Ran, PathBuf) {
    let file = site.lab.work().join("plan.drover");
    let file_arg = file.display().to_string();
    let ran = site.drover(&[&["plan", "-o", &file_arg][..], args].concat());
    (ran, file)
}

#[test]
fn everybody_builds_from_a_plan_without_the_flake() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let (planned, file) = plan(&site, &[]);
        planned.expect(0);
        let size = std::fs::metadata(&file).unwrap().len();
        let line = planned.stderr.lines().find(|line| line.starts_with("Plan file: ")).unwrap();
        assert!(line.contains("plan.drover ") && line.contains(" drvs, ") && line.contains(" sources"), "{line}");
        assert!(size > 1000, "{size}");
        let whole = site.exits(0, &["run", "--json"]).json();
        let wanted = results(&site, &whole);
        assert!(wanted.len() > 20, "{}", wanted.len());
        std::fs::remove_dir_all(&site.flake).unwrap();

        for who in everybody() {
            eprintln!("-- as {who:?}");
            let other = elsewhere(nix, who);
            let plan = carried(&other, &file);
            let document = other.exits(0, &["run", "--plan", &plan, "--json"]).json();
            assert_eq!(results(&other, &document), wanted);
            assert_eq!(
                statuses(&document),
                statuses(&whole).into_iter().filter(|(a, _)| !a.starts_with("darwin")).collect()
            );
            assert_eq!(strings(&document["drvs"]["build"]), strings(&whole["drvs"]["build"]));
            assert_eq!(document["flake"], whole["flake"]);
            let again = other.exits(0, &["run", "--plan", &plan, "--json"]).json();
            assert_eq!(again["counts"]["drvs_to_build"], 0);
        }
    });
}

#[test]
fn some_attrs_of_a_plan_bring_only_what_they_need() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let (planned, file) = plan(&site, &["--kind", "nixosConfigurations,packages"]);
        planned.expect(0);
        for who in [Who::Root, Who::Client { trusted: false }].into_iter().filter(|who| everybody().contains(who)) {
            let other = elsewhere(nix, who);
            let plan = carried(&other, &file);
            // A full path, with quotes in it, and a short name.
            let names = ["packages.x86_64-linux.\"tool-1.2\"", "chain"];
            let document = other.exits(0, &[&["run", "--plan", &plan, "--json"][..], &names].concat()).json();
            let built: Vec<&str> =
                document["attrs"].as_array().unwrap().iter().map(|a| a["attr"].as_str().unwrap()).collect();
            assert_eq!(
                built,
                ["packages.x86_64-linux.chain", "packages.x86_64-linux.\"tool-1.2\""],
                "in the plan's order"
            );
            let drvs = std::fs::read_dir(other.lab.physical()).unwrap();
            let drvs = drvs.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".drv"));
            // chain: 4, tool: itself and its source.
            assert_eq!(drvs.count(), if who == Who::Root { 0 } else { 6 });

            let unknown = other.exits(2, &["run", "--plan", &plan, "chian"]);
            assert!(
                unknown.stderr.contains("has no attr 'chian'") && unknown.stderr.contains("chain"),
                "{}",
                unknown.stderr
            );
            let conflict = other.exits(2, &["run", "--plan", &plan, "--impure"]);
            assert!(conflict.stderr.contains("--impure"), "{}", conflict.stderr);
            let planned = other.exits(0, &["plan", "--plan", &plan, "--json", "--only", "host0*"]).json();
            assert_eq!(planned["attrs"].as_array().unwrap().len(), 10);
            assert!(planned["attrs"].as_array().unwrap().iter().all(|attr| attr["status"] == "to_build"));
        }
    });
}

#[test]
fn what_is_only_known_after_building_goes_in_a_plan_too() {
    each_nix(|nix| {
        let conf = "extra-experimental-features = ca-derivations";
        let site = Site::new(Lab::chroot(nix), "broken");
        site.lab.configure(conf);
        let attrs = ["content-addressed", "uses-content-addressed"];
        let (planned, file) = plan(&site, &attrs);
        planned.expect(0);
        let whole = site.exits(0, &[&["run", "--json"][..], &attrs].concat()).json();
        let wanted = results(&site, &whole);
        assert_eq!(wanted.len(), 2);
        std::fs::remove_dir_all(&site.flake).unwrap();
        for who in everybody() {
            eprintln!("-- as {who:?}");
            let other = elsewhere(nix, who);
            other.lab.configure(conf);
            let plan = carried(&other, &file);
            let document = other.exits(0, &["run", "--plan", &plan, "--json"]).json();
            assert_eq!(results(&other, &document), wanted);
            assert_eq!(strings(&document["drvs"]["opaque"]).len(), 2);
        }
    });
}

#[test]
fn errors_of_evaluation_travel_with_the_plan() {
    each_nix(|nix| {
        let site = Site::new(Lab::chroot(nix), "broken");
        let (planned, file) = plan(&site, &["throws", "nixosConfigurations.good"]);
        planned.expect(3);
        let other = elsewhere(nix, Who::Root);
        let plan = carried(&other, &file);
        let document = other.exits(3, &["run", "--plan", &plan, "--json"]).json();
        let found = statuses(&document);
        assert_eq!(found.values().filter(|status| *status == "eval_failed").count(), 1, "{found:?}");
        assert_eq!(found.values().filter(|status| *status == "built").count(), 1, "{found:?}");
        assert_eq!(
            document["attrs"].as_array().unwrap().iter().filter(|attr| attr["error"]["class"] == "eval").count(),
            1
        );
        other.exits(0, &["run", "--plan", &plan, "good"]);
    });
}

#[test]
fn what_a_cache_had_is_looked_for_again_and_its_sources_may_come_from_there() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let key = site.key("fleet-1");
        site.exits(0, &["run", "chain", "diamond", "--push-to", &site.cache_url(&key)]);
        let conf = format!("substituters = file://{}\ntrusted-public-keys = {}", site.cache().display(), key.public);
        let planner = Site { flake: site.flake, lab: Lab::chroot(nix) };
        planner.lab.configure(&conf);
        let file = planner.lab.work().join("plan.drover");
        let file_arg = file.display().to_string();
        let planned = planner.exits(0, &["plan", "-o", &file_arg, "diamond", "greeting", "--json"]).json();
        let diamond = "packages.x86_64-linux.diamond";
        assert_eq!(statuses(&planned)[diamond], "to_fetch");

        let other = elsewhere(nix, Who::Root);
        other.lab.configure(&conf);
        let plan = carried(&other, &file);
        let document = other.exits(0, &["run", "--plan", &plan, "--json"]).json();
        assert_eq!(statuses(&document)[diamond], "cached");
        assert_eq!(other.events().fetched(), ["chain-d"]);
        assert_eq!(other.events().built(), ["check-greeting"]);

        // The cache is gone: what is to be built needs more than was planned, and is in the file; the other is not.
        let other = elsewhere(nix, Who::Root);
        let plan = carried(&other, &file);
        let document = other.exits(4, &["run", "--plan", &plan, "--retries", "0", "--json"]).json();
        let found = statuses(&document);
        assert_eq!((&*found[diamond], &*found["checks.x86_64-linux.greeting"]), ("failed", "built"));
        let attrs = document["attrs"].as_array().unwrap();
        let said = attrs.iter().find_map(|attr| attr["error"]["message"].as_str()).unwrap();
        assert!(said.contains("is not in the plan file") && said.contains("a cache had it"), "{said}");
    });
}

#[test]
fn sources_that_a_cache_of_nix_has_are_not_carried() {
    each_nix(|nix| {
        // The second source is also a result, so a push brings it to the cache.
        let site = Site::of(
            Lab::chroot(nix),
            r#"{ outputs = { self }: let
                drv = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh";
                  args = [ "-c" "set -e; ${script}" ]; };
                shared = builtins.toFile "shared" "text that a result refers to\n";
                own = builtins.toFile "own" "text that is only read\n";
              in { packages.x86_64-linux = {
                refers = drv "refers" "echo ${shared} > $out";
                reads = drv "reads" "read -r a < ${own}; read -r b < ${shared}; echo $a $b > $out";
              }; }; }"#,
        );
        let key = site.key("sources-1");
        site.exits(0, &["run", "refers", "--push-to", &site.cache_url(&key)]);
        let conf = format!("substituters = file://{}\ntrusted-public-keys = {}", site.cache().display(), key.public);
        let planner = Site { flake: site.flake, lab: Lab::chroot(nix) };
        planner.lab.configure(&conf);
        let file = planner.lab.work().join("plan.drover");
        let ran = planner.exits(0, &["plan", "-o", &file.display().to_string(), "reads"]);
        assert!(ran.stderr.contains("plan.drover ") && ran.stderr.contains(": 1 drv, 1 source\n"), "{}", ran.stderr);
        for who in everybody() {
            eprintln!("-- as {who:?}");
            let other = elsewhere(nix, who);
            other.lab.configure(&conf);
            let plan = carried(&other, &file);
            let document = other.exits(0, &["run", "--plan", &plan, "--json"]).json();
            assert_eq!(statuses(&document)["packages.x86_64-linux.reads"], "built");
        }
        // Where that cache is not read from, the error says what is missing and why.
        let other = elsewhere(nix, Who::Root);
        let plan = carried(&other, &file);
        let ran = other.exits(4, &["run", "--plan", &plan, "--retries", "0"]);
        assert!(ran.stderr.contains("shared is not in the plan file"), "{}", ran.stderr);
    });
}

#[test]
fn a_plan_is_made_of_another_and_of_what_differs_from_a_base() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let (planned, file) = plan(&site, &["--kind", "packages"]);
        planned.expect(0);
        // A part of a plan, made where the derivations are not.
        let other = elsewhere(nix, Who::Root);
        let whole = carried(&other, &file);
        let part = other.lab.work().join("part.drover").display().to_string();
        other.exits(0, &["plan", "--plan", &whole, "-o", &part, "chain"]);
        let third = elsewhere(nix, Who::Root);
        let document = third.exits(0, &["run", "--plan", &part, "--json"]).json();
        assert_eq!(
            statuses(&document),
            BTreeMap::from([("packages.x86_64-linux.chain".to_owned(), "built".to_owned())])
        );

        // What does not differ from the base is no part of a plan, nor of a matrix.
        let packages = std::fs::read_to_string(site.flake.join("packages.nix")).unwrap();
        site.edit("packages.nix", &packages.replace("name = \"settings\";", "name = \"settings-2\";"));
        let args = ["matrix", "--kind", "packages", "--base", "HEAD^", "-o", &file.display().to_string()];
        let matrix = site.exits(0, &args).json();
        let rows = matrix["include"].as_array().unwrap();
        assert_eq!(
            (rows.len(), strings(&rows[0]["attrs"])),
            (1, BTreeSet::from(["packages.x86_64-linux.settings".to_owned()]))
        );
        let fourth = elsewhere(nix, Who::Root);
        let document = fourth.exits(0, &["run", "--plan", &file.display().to_string(), "--json"]).json();
        assert_eq!(statuses(&document).len(), 1, "{document}");
    });
}

#[test]
fn a_plan_of_another_kind_is_refused_before_anything_begins() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let (planned, file) = plan(&site, &["chain"]);
        planned.expect(0);
        let other = elsewhere(nix, Who::Root);
        let whole = std::fs::read(&file).unwrap();
        let refused = |bytes: &[u8], wanted: &str| {
            let path = other.lab.write("bad.drover", "");
            std::fs::write(&path, bytes).unwrap();
            let ran = other.exits(2, &["run", "--plan", &path.display().to_string()]);
            assert!(ran.stderr.contains(wanted) && ran.stderr.contains("hint:"), "{wanted}: {}", ran.stderr);
        };
        refused(b"{}", "is no plan file of drover");
        refused(b"drover plan 7\n", "has format 7, and this drover reads format 1");
        refused(&whole[..whole.len() / 2], "it is cut off");
        let plain = Site { lab: Lab::plain(nix), flake: other.flake.clone() };
        let ran = plain.exits(2, &["run", "--plan", &file.display().to_string()]);
        assert!(ran.stderr.contains("is for the store directory /nix/store"), "{}", ran.stderr);
        assert!(!other.state().join("runs").exists(), "nothing was recorded");
        let ran = other.exits(2, &["run", "--plan", "no-such-file"]);
        assert!(ran.stderr.contains("cannot read no-such-file"), "{}", ran.stderr);
    });
}

#[test]
fn evaluators_are_started_once_for_seven_processes() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let (path, notes) = site.spy("nix");
        let run = |args: &[&str]| {
            let mut command = site.command(args);
            command.env("PATH", &path);
            finish(command, args)
        };
        let evaluators = || {
            let notes = std::fs::read_to_string(&notes).unwrap();
            notes.lines().filter(|line| line.split(' ').any(|word| word == "repl")).count()
        };
        let plan = site.lab.work().join("plan.drover").display().to_string();
        let kind = ["--kind", "packages"];
        run(&[&["plan", "-o", &plan][..], &kind].concat()).expect(0);
        let first = evaluators();
        assert!(first > 0, "the first evaluates");
        // Four rows of a matrix, the whole run, and what a pull request asks.
        let matrix = run(&["matrix", "--plan", &plan, "--max-rows", "4", "--min-seconds", "0"]);
        let matrix = matrix.expect(0).json();
        let rows = matrix["include"].as_array().unwrap();
        assert_eq!(rows.len(), 4);
        for row in rows {
            let attrs: Vec<&str> = row["attrs"].as_array().unwrap().iter().map(|attr| attr.as_str().unwrap()).collect();
            run(&[&["run", "--plan", &plan][..], &attrs].concat()).expect(0);
        }
        run(&[&["run"][..], &kind].concat()).expect(0);
        run(&[&["affected", "--base", "HEAD"][..], &kind].concat()).expect(0);
        assert_eq!(evaluators(), first, "{}", std::fs::read_to_string(&notes).unwrap());
    });
}
