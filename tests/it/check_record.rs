//! Checks and the recorded evaluation on real Nixes: a second check of a commit asks no evaluator and says the same, and
//! checks and runs know from each other what they have evaluated.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Events, Ran, Site, finish};

/// A flake of all sorts: good, refused, with findings, and with what Nix only remarks on.
const SORTS: &str = r#"{ outputs = { self }: let
  build = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
in {
  checks.x86_64-linux.good = build "good";
  packages.x86_64-linux = {
    old = builtins.warn "old is no longer maintained" (build "old");
    retired = throw "retired since 25.05";
    odd = build "odd" // { outputs = throw "nobody knows its outputs"; };
  };
  packages.aarch64-linux.far = build "far";
  apps.x86_64-linux.silent = { type = "app"; program = "${build "silent"}/bin/silent"; };
  overlays = builtins.warn "overlays are going away" { default = final: prev: { }; reversed = prev: final: { }; };
  devShells.x86_64-linux = abort "no shells";
  nixosConfigurations.web1.config.system.build.toplevel = build "web1";
  homeConfigurations.alice = throw "alice has left";
  hydraJobs.release.x86_64-linux.job = build "job";
  legacyPackages.x86_64-linux = throw "nobody looks";
  templates.default = { path = ./.; description = "A start"; };
  defaultPackage.x86_64-linux = build "old";
  mine = 7;
}; }"#;

/// A flake without fault.
const SOUND: &str = r#"{ outputs = { self }: let
  build = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
in {
  checks.x86_64-linux.good = build "good";
  packages.x86_64-linux = { one = build "one"; two = build "two"; };
  nixosConfigurations.web1.config.system.build.toplevel = build "web1";
  apps.x86_64-linux.start = { type = "app"; program = "${build "start"}"; meta.description = "Starts"; };
  overlays.default = final: prev: { };
}; }"#;

/// Runs drover where every start of `nix` is noted; gives the notes.
fn noted(site: &Site, args: &[&str]) -> (Ran, String) {
    let (path, notes) = site.spy("nix");
    let mut command = site.command(args);
    command.env("PATH", path);
    let ran = finish(command, args);
    let started = std::fs::read_to_string(notes).unwrap();
    assert!(started.contains("config show"), "the wrapper is not in use: {started}");
    (ran, started)
}

/// No process was started that could evaluate anything.
#[track_caller]
fn expect_no_evaluator(site: &Site, started: &str) {
    let words = ["repl", "eval", "metadata", "check", "build"];
    let evaluators = started.lines().filter(|line| line.split(' ').any(|word| words.contains(&word)));
    assert_eq!(evaluators.collect::<Vec<_>>(), [""; 0]);
    assert!(site.events().of("eval_started").is_empty());
}

/// Paths of the attrs that an evaluator was asked for.
fn asked(events: &Events) -> BTreeSet<String> {
    events.of("eval_started").into_iter().map(|event| path(events, &event["attr"])).collect()
}

/// The full path of an attr.
fn path(events: &Events, attr: &Value) -> String {
    let listed = events.of("attr_listed").into_iter().find(|event| event["attr"] == *attr);
    listed.and_then(|event| event["path"].as_str()).unwrap_or_default().to_owned()
}

/// All that a run says of attrs and of the flake, without times and costs, in an order of its own.
fn said(events: &Events) -> BTreeSet<String> {
    let about = |event: &Value| -> Option<Value> {
        let attr = path(events, &event["attr"]);
        let what = event["event"].as_str()?;
        let field = match what {
            "attr_listed" => "name",
            "attr_ended" => "status",
            "eval_ended" => "evaluated",
            "eval_warning" | "flake_finding" => "message",
            "attr_quarantined" => "name",
            "attrs_left_out" => "what",
            _ => return None,
        };
        // What one has built is there for the next.
        let said = if event[field] == "built" { json!("valid") } else { event[field].clone() };
        Some(json!([what, attr, said]))
    };
    events.0.iter().filter_map(about).map(|said| said.to_string()).collect()
}

#[test]
fn a_second_check_evaluates_nothing_and_says_the_same() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), SORTS);
        let first = site.exits(3, &["check", "--json"]);
        let before = said(&site.events());
        let has = |text: &str| before.iter().any(|line| line.contains(text));
        for text in [
            "old is no longer maintained",
            "retired since 25.05",
            "overlays are going away",
            "no shells",
            "nobody knows its outputs",
            "alice has left",
            "unknown flake output 'mine'",
            "flake output 'defaultPackage' is deprecated",
            "apps.x86_64-linux.silent",
        ] {
            assert!(has(text), "{text}: {before:#?}");
        }

        let (second, started) = noted(&site, &["check", "--json"]);
        second.expect(3);
        expect_no_evaluator(&site, &started);
        assert_eq!(said(&site.events()), before);
        let verdicts = |ran: &Ran| {
            let attrs = ran.json()["attrs"].clone();
            let attrs = attrs.as_array().unwrap().iter().map(|attr| json!([attr["attr"], attr["error"], attr["drv"]]));
            attrs.collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&second), verdicts(&first));

        // What counts of it is no matter of evaluation.
        let (strict, started) = noted(&site, &["check", "--strict", "--no-build", "--json"]);
        strict.expect(3);
        expect_no_evaluator(&site, &started);
        // A part of it is another list of the same attrs.
        site.exits(0, &["check", "--only", "checks.**"]);
        assert!(asked(&site.events()).is_empty());
    });
}

#[test]
fn a_run_and_a_check_know_what_the_other_has_evaluated() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), SOUND);
        site.exits(0, &["check"]);
        assert_eq!(asked(&site.events()).len(), 6);
        site.exits(0, &["run"]);
        assert_eq!(asked(&site.events()), BTreeSet::new());

        site.edit("flake.nix", &format!("{SOUND}\n"));
        site.exits(0, &["run"]);
        assert_eq!(asked(&site.events()).len(), 4);
        site.exits(0, &["check"]);
        // The run has not looked at these.
        let others = ["apps.x86_64-linux.start", "overlays.default"].map(str::to_owned);
        assert_eq!(asked(&site.events()), BTreeSet::from(others));
    });
}

#[test]
fn what_may_pass_is_asked_again() {
    let site = Site::of(
        Lab::plain(&newest()),
        r#"{ outputs = { self }: {
          homeConfigurations.own = throw "never";
          homeConfigurations.passing = builtins.readFile (builtins.fetchurl {
            url = "http://127.0.0.1:1/x";
            sha256 = "0000000000000000000000000000000000000000000000000000";
          });
        }; }"#,
    );
    let args = ["check", "--option", "download-attempts", "1"];
    site.exits(0, &args);
    assert_eq!(asked(&site.events()).len(), 2);
    site.exits(0, &args);
    let again = asked(&site.events());
    assert_eq!(again, BTreeSet::from(["homeConfigurations.passing".to_owned()]));
}
