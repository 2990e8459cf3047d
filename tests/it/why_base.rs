//! `drover why` against a base: for each commit of a repository with a past the true cause, by both Nixes alike.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::history::{Commit, History, git};
use crate::support::nix::{Lab, Nix, each_nix};
use crate::support::site::{Ran, Site};

fn snap(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

/// What is read, without what differs from place to place.
fn read(history: &History, ran: &Ran) -> String {
    let mut text = ran.out();
    for (at, commit) in history.commits.iter().enumerate() {
        text = text.replace(&commit.rev, &format!("COMMIT{at}")).replace(&commit.rev[..7], &format!("commit{at}"));
    }
    let is_hash = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    let store = format!("{}/", history.site.lab.store_dir());
    let mut parts = text.split(&store);
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let hash = part.get(..32).filter(|hash| is_hash(hash));
        out.push_str(&format!(
            "STORE/{}",
            if hash.is_some() { format!("HASH{}", &part[32..]) } else { part.to_owned() }
        ));
    }
    out
}

fn exit(commit: &Commit) -> i32 {
    if commit.changes.values().any(|change| change.status.ends_with("_broken")) { 3 } else { 0 }
}

#[test]
fn each_commit_has_its_true_cause() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let mut all = String::new();
        for pair in history.commits.windows(2) {
            let (base, commit) = (&pair[0], &pair[1]);
            history.checkout(commit);
            let ran = history.site.exits(exit(commit), &["why", "--base", &base.rev]);
            all.push_str(&format!("## {}\n{}\n", commit.subject, read(&history, &ran)));
        }
        snap("why_history", &all);
    });
}

/// The document about one attr.
fn why(history: &History, subject: &str, attr: &str) -> Value {
    let base = history.checkout_at(subject);
    history.site.exits(0, &["why", attr, "--base", &base, "--json"]).json()
}

fn names(document: &Value) -> Vec<String> {
    let chain = document["chain"].as_array().unwrap();
    chain.iter().map(|step| step["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_attr_shows_the_way_to_its_cause() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let mut all = String::new();
        for (subject, attr) in [
            ("a package of three hosts", "web1"),
            ("one host", "db1"),
            ("a patch", "packages.x86_64-linux.nginx"),
            ("url of a fixed output", "lb1"),
            ("a file that one host takes as source", "mon1"),
            ("two causes at once", "web2"),
            ("docs only", "rev1"),
            ("docs only", "self1"),
            ("docs only", "web1"),
            ("host added", "web4"),
        ] {
            let base = history.checkout_at(subject);
            let ran = history.site.exits(0, &["why", attr, "--base", &base]);
            all.push_str(&format!("## {subject}: {attr}\n{}\n", read(&history, &ran)));
        }
        snap("why_attr", &all);
        let document = why(&history, "a package of three hosts", "web1");
        assert_eq!(document["version"], 1);
        assert_eq!(document["attr"], "nixosConfigurations.web1");
        let cause = &document["cause"];
        let of = |key: &str| cause[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(["kind", "name", "base", "head"].map(of), ["dependency", "nginx", "1.29.3", "1.29.4"]);
        assert_eq!(names(&document).last().unwrap(), "nginx-1.29.4", "{document}");
        assert_eq!(names(&document)[0], "nixos-system-web1-26.05");
    });
}

#[test]
fn attrs_with_one_cause_are_one_group() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let base = history.checkout_at("two causes at once");
        let document = history.site.exits(0, &["why", "--base", &base, "--json"]).json();
        let groups: BTreeMap<String, Vec<String>> = document["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| {
                let attrs = group["attrs"].as_array().unwrap().iter();
                let attrs =
                    attrs.map(|attr| attr.as_str().unwrap().trim_start_matches("nixosConfigurations.").to_owned());
                (group["cause"]["kind"].as_str().unwrap().to_owned(), attrs.collect())
            })
            .collect();
        assert_eq!(groups["dependency"], ["web1", "web2", "web3", "packages.x86_64-linux.nginx"]);
        assert_eq!(groups["variable"], ["web2"]);
        assert_eq!(groups.len(), 2, "{document}");
    });
}

#[test]
fn what_is_in_the_store_on_both_sides_is_measured() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let subject = "a package of three hosts";
        let (commit, base) = history.pair(subject);
        let closure = |history: &History| why(history, subject, "web1")["closure"].clone();
        assert_eq!(closure(&history), Value::Null, "nothing is built yet");
        let size = |commit: &Commit| {
            history.checkout(commit);
            let out = history.site.exits(0, &["run", "web1", "--print-out-paths"]).out();
            let told = history.site.lab.run("nix", &["path-info", "--closure-size", out.trim()]);
            told.split_whitespace().last().unwrap().parse::<u64>().unwrap()
        };
        let expected = serde_json::json!({ "base": size(base), "head": size(commit) });
        assert_eq!(closure(&history), expected);
    });
}

#[test]
fn derivations_that_were_collected_are_evaluated_again() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let first = why(&history, "a package of three hosts", "web1");
        history.site.lab.run("nix-store", &["--gc"]);
        let again = why(&history, "a package of three hosts", "web1");
        assert_eq!(first["cause"], again["cause"]);
        assert_eq!(first["chain"], again["chain"]);
    });
}

#[test]
fn what_the_base_imports_is_built_again_if_it_was_collected() {
    each_nix(|nix| {
        let flake = r#"{ outputs = { self }: let
          make = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ]; };
        in { packages.x86_64-linux.a = make "a" (builtins.readFile (make "gen" "echo -n 'echo old > $out' > $out")); }; }"#;
        let site = Site::of(Lab::plain(nix), flake);
        site.edit("flake.nix", &flake.replace("echo old", "echo new"));
        let args = ["why", "packages.x86_64-linux.a", "--base", "HEAD^", "--json"];
        let first = site.exits(0, &args).json();
        assert_eq!(first["chain"].as_array().map(Vec::len), Some(1), "{first}");
        let base = first["cause"]["base_drv"].as_str().unwrap().to_owned();
        site.lab.run("nix-store", &["--gc"]);
        assert!(!site.lab.physical().join(base.rsplit('/').next().unwrap()).exists());
        let again = site.exits(0, &args).json();
        assert_eq!((&first["cause"], &first["chain"]), (&again["cause"], &again["chain"]));
        let built = site.events().built();
        assert_eq!(built.iter().filter(|name| *name == "gen").count(), 2, "of both sides: {built:?}");
    });
}

#[test]
fn what_does_not_evaluate_is_told_with_its_error() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let base = history.checkout_at("host broken");
        let ran = history.site.exits(3, &["why", "db1", "--base", &base]);
        assert!(ran.out().contains("does not evaluate any more"), "{}", ran.out());
        assert!(ran.out().contains("db1 needs max_connections"), "{}", ran.out());
        let ran = history.site.exits(3, &["why", "db1"]);
        assert_eq!(ran.out(), "");
        assert!(ran.stderr.contains("db1 needs max_connections"), "{}", ran.stderr);
    });
}

#[test]
fn a_base_of_a_pull_request_without_record_is_not_evaluated() {
    each_nix(|nix| {
        let history = History::plain(nix);
        history.checkout_at("one host");
        let args = ["why", "db1", "--json"];
        let mut command = history.site.command(&args);
        command.envs([("CI", "true"), ("GITHUB_ACTIONS", "true"), ("GITHUB_EVENT_NAME", "pull_request")]);
        command.env("GITHUB_BASE_REF", "main");
        let ran = crate::support::site::finish(command, &args);
        ran.expect(0);
        assert_eq!(ran.json()["cause"]["kind"], "substitution_disabled", "why no cache has it: {}", ran.stderr);
    });
}

#[test]
fn a_failure_beside_a_base_says_how_to_see_what_changed() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let base = history.checkout_at("another builder");
        history
            .site
            .edit("pkgs/exporter.nix", "{ build }:\nbuild {\n  name = \"exporter-0.9\";\n  script = \"exit 7\";\n}\n");
        let ran = history.site.exits(1, &["run", "mon1", "--base", &base]);
        let line =
            ran.stderr.lines().find(|line| line.contains("drover why")).unwrap_or_else(|| panic!("{}", ran.stderr));
        let words: Vec<&str> = line.split_whitespace().skip(2).collect();
        assert_eq!(words, ["why", "mon1", "--base", &base[..7]]);
        let told = history.site.exits(0, &words).out();
        assert!(told.contains("exporter-0.9: other arguments of its builder"), "{told}");
    });
}

#[test]
fn without_an_attr_or_a_base_there_is_nothing_to_say() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let ran = history.site.exits(2, &["why"]);
        assert!(ran.stderr.contains("drover why --base main"), "{}", ran.stderr);
        let base = history.checkout_at("one host");
        let ran = history.site.exits(2, &["why", "web11", "--base", &base]);
        assert!(ran.stderr.contains("web1"), "{}", ran.stderr);
    });
}

/// The fleet, all of which embeds the file `salt`, and that file changed; the commit before.
fn salted(nix: &Nix) -> (Site, String) {
    let site = Site::fleet(Lab::plain(nix));
    let base = git(&site.lab, &site.flake, &["rev-parse", "HEAD"]);
    site.edit("salt", "77\n");
    (site, base)
}

#[test]
fn one_change_that_everything_embeds_is_one_cause() {
    each_nix(|nix| {
        let (site, base) = salted(nix);
        let mut all = String::new();
        for (columns, what) in [("100", &["host00"][..]), ("60", &["host00"]), ("100", &[]), ("60", &[])] {
            let args = [&["why"], what, &["--base", &base]].concat();
            let mut command = site.command(&args);
            command.env("COLUMNS", columns);
            let ran = crate::support::site::finish(command, &args);
            let text = ran.expect(0).out().replace(&base[..7], "parent0");
            assert!(text.lines().all(|line| line.chars().count() <= columns.parse().unwrap()), "{text}");
            all.push_str(&format!("## {} at {columns} columns\n{text}\n", what.first().unwrap_or(&"all")));
        }
        snap("why_fold", &all);
        let document = site.exits(0, &["why", "host00", "--base", &base, "--json"]).json();
        let closure = needed(&site, "host00");
        assert_eq!(document["attrs"][0]["causes"].as_array().unwrap().len(), 1, "{document}");
        assert_eq!(document["cause"]["count"], closure.len());
        assert_eq!(document["cause"]["at_least"], false);
        let document = site.exits(0, &["why", "--base", &base, "--json"]).json();
        let salt = &document["groups"][0];
        assert_eq!(salt["attrs"].as_array().unwrap().len(), document["attrs"].as_array().unwrap().len());
        let drvs = salt["cause"]["drvs"].as_array().unwrap();
        let named: BTreeSet<&str> = drvs.iter().map(|drv| drv["drv"].as_str().unwrap()).collect();
        assert_eq!(salt["cause"]["count"], named.len(), "each is named once");
        let missing: Vec<&String> = closure.iter().filter(|drv| !named.contains(drv.as_str())).collect();
        assert!(missing.is_empty(), "{missing:?}");
    });
}

/// All .drvs below a host, by Nix itself.
fn needed(site: &Site, host: &str) -> BTreeSet<String> {
    let attr = format!("{}#nixosConfigurations.{host}.config.system.build.toplevel.drvPath", site.flake.display());
    let drv = site.lab.run("nix", &["eval", "--raw", &attr]);
    let all = site.lab.run("nix-store", &["-qR", drv.trim()]);
    all.lines().filter(|path| path.ends_with(".drv")).map(str::to_owned).collect()
}
