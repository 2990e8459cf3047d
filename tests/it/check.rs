//! `drover check` as a whole, with a real Nix: what may fail, and what is compared with a base.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::eval::git;
use crate::support::nix::{Lab, newest};
use crate::support::site::{Ran, Site, finish};

/// A flake with these outputs; `drv NAME SCRIPT` makes a derivation.
fn flake(outputs: &str) -> String {
    format!(
        "{{ outputs = {{ self }}: let
             drv = name: script: derivation {{
               inherit name; system = \"x86_64-linux\"; builder = \"/bin/sh\"; args = [ \"-ec\" script ];
             }};
           in {{ {outputs} }};
         }}"
    )
}

fn site(outputs: &str) -> Site {
    Site::of(Lab::plain(&newest()), &flake(outputs))
}

/// The attrs of the document, by their path.
fn attrs(ran: &Ran) -> BTreeMap<String, Value> {
    let document: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let attrs = document["attrs"].as_array().unwrap().iter();
    attrs.map(|attr| (attr["attr"].as_str().unwrap().to_owned(), attr.clone())).collect()
}

fn status<'a>(attrs: &'a BTreeMap<String, Value>, attr: &str) -> &'a str {
    attrs.get(attr).unwrap_or_else(|| panic!("{attr} is not among {:?}", attrs.keys()))["status"].as_str().unwrap()
}

fn says(ran: &Ran, text: &str) {
    assert!(ran.stderr.contains(text), "it does not say {text:?}:\n{}", ran.stderr);
}

#[test]
fn what_is_in_quarantine_does_not_count_until_the_day() {
    let site = site(
        "overlays.default = final: prev: { };
         checks.x86_64-linux = { lint = drv \"lint\" \"echo > $out\"; a-vm = drv \"a-vm\" \"echo no kvm; exit 1\"; };",
    );
    says(&site.exits(1, &["check", "--only", "a-vm"]), "first failure after");

    let quarantine = |expires: &str| {
        format!(
            "[quarantine.vm]\nattr = \"checks.*.a-vm\"\nreason = \"needs kvm\"\nticket = \"#17\"\nexpires = \"{expires}\"\n"
        )
    };
    site.edit("drover.toml", &quarantine("9999-01-01"));
    // Nor does it keep anything else from being built.
    let ran = site.exits(0, &["check", "--json", "--fail-fast", "-j", "1"]);
    says(&ran, "in quarantine until 9999-01-01: a-vm (needs kvm, #17)");
    says(&ran, "1 failed in quarantine");
    let found = attrs(&ran);
    assert_eq!(status(&found, "checks.x86_64-linux.a-vm"), "failed");
    assert_eq!(found["checks.x86_64-linux.a-vm"]["quarantine"]["expires"], "9999-01-01");
    assert_eq!(status(&found, "checks.x86_64-linux.lint"), "built");
    assert_eq!(status(&found, "overlays.default"), "checked");

    site.edit("drover.toml", &quarantine("2020-01-01"));
    says(&site.exits(1, &["check"]), "[quarantine.vm] ended on 2020-01-01: a-vm counts again");

    let nothing = "[quarantine.gone]\nattr = \"checks.*.gone\"\nreason = \"flaky\"\nexpires = \"9999-01-01\"\n";
    site.edit("drover.toml", &format!("{}{nothing}", quarantine("9999-01-01")));
    says(&site.exits(0, &["check"]), "[quarantine.gone] is about nothing: no attr is called 'checks.*.gone'");
    let ran = site.exits(0, &["check", "--only", "checks.**"]);
    assert!(!ran.stderr.contains("is about nothing"), "{}", ran.stderr);

    site.edit("drover.toml", &quarantine("someday"));
    says(&site.exits(2, &["check"]), "'someday' of [quarantine.vm] is no day");
}

#[test]
fn only_what_is_newly_broken_counts_where_that_is_asked_for() {
    let same = "overlays.fine = final: prev: { }; overlays.old = 1; packages.x86_64-linux.tool = drv \"tool\" \"echo > $out\";";
    let with = |checks: &str| flake(&format!("{same} checks.x86_64-linux = {{ {checks} }};"));
    let lint = "lint = drv \"lint\" \"echo > $out\";";
    let site = Site::of(Lab::plain(&newest()), &with(lint));
    site.edit("flake.nix", &with(&format!("{lint} new = throw \"not yet\";")));

    let ran = site.exits(3, &["check", "--base", "HEAD~1", "--allow-broken-base", "--json"]);
    says(&ran, "still broken  1 other attr (on HEAD~1 too): overlays.old");
    says(&ran, "FAILED  1 check: new");
    let found = attrs(&ran);
    for (attr, expected) in [
        ("overlays.fine", "unaffected"),
        ("overlays.old", "eval_failed"),
        ("packages.x86_64-linux.tool", "unaffected"),
        ("checks.x86_64-linux.lint", "unaffected"),
        ("checks.x86_64-linux.new", "eval_failed"),
    ] {
        assert_eq!(status(&found, attr), expected, "{attr}");
    }

    site.edit("flake.nix", &with(&format!("{lint} new = drv \"new\" \"echo > $out\";")));
    let ran = site.exits(0, &["check", "--base", "HEAD~1", "--allow-broken-base"]);
    says(&ran, "fixed  1 check (broken on HEAD~1): new");
    site.exits(3, &["check", "--base", "HEAD~1"]);
}

/// What a recorded run of the base says of builds is held against those that fail now.
#[test]
fn builds_that_failed_on_the_base_are_still_broken() {
    let fails = |name: &str, more: &str| format!("{name} = drv \"{name}\" \"exit 1 {more}\";");
    let builds = |name: &str| format!("{name} = drv \"{name}\" \"echo > $out\";");
    let dep = "drv \"dep\" \"exit 1\"";
    let with = |checks: &[String]| flake(&format!("checks.x86_64-linux = {{ {} }};", checks.concat()));
    let used = format!("used = {dep};");
    let site = Site::of(Lab::plain(&newest()), &with(&[fails("old", ""), builds("vm"), used]));
    let above = format!("above = drv \"above\" \"echo ${{{dep}}} > $out\";");
    let broken = [fails("old", "# still"), above];
    let all = [broken.concat(), fails("vm", ""), fails("added", "")];
    site.edit("flake.nix", &with(&all));

    // Nobody has built the base yet.
    let ran = site.exits(1, &["check", "--base", "HEAD~1"]);
    assert!(!ran.stderr.contains("broken on HEAD~1") && !ran.stderr.contains("newly broken"), "{}", ran.stderr);

    let rev = git(&site.lab, &site.flake, &["rev-parse", "HEAD~1"]);
    let base = format!("git+file://{}?rev={}", site.flake.display(), rev.trim());
    site.exits(1, &["check", &base]);
    let ran = site.exits(1, &["check", "--base", "HEAD~1", "--json"]);
    says(&ran, "still broken  2 checks (on HEAD~1 too): above old");
    says(&ran, "newly broken (ok on HEAD~1)");
    let found = attrs(&ran);
    for (attr, broken) in [("old", json!(true)), ("above", json!(true)), ("vm", json!(false)), ("added", json!(null))] {
        let attr = &found[&format!("checks.x86_64-linux.{attr}")];
        assert_eq!((&attr["status"], &attr["broken_on_base"]), (&json!("failed"), &broken), "{attr}");
    }
    site.exits(1, &["check", "--base", "HEAD~1", "--allow-broken-base"]);
    let ran = site.exits(1, &["run", "--base", "HEAD~1", "vm"]);
    says(&ran, "newly broken (ok on HEAD~1)");

    site.edit("flake.nix", &with(&broken));
    site.exits(0, &["check", "--base", "HEAD~2", "--allow-broken-base"]);
    site.exits(1, &["check", "--base", "HEAD~2"]);
}

/// What failed the last time is built first, wherever it stands in the flake.
#[test]
fn what_failed_the_last_time_is_built_first() {
    // The first builds for as long as it takes to know the others, and the second is too long to be done while the first
    // is prepared: it would be put in between.
    let checks =
        r#"a = drv "a" "/bin/sleep 1; echo > $out"; b = drv "b" "/bin/sleep 1; echo > $out"; z = drv "z" "exit 1";"#;
    let site = site(&format!("checks.x86_64-linux = {{ {checks} }};"));
    let args = ["check", "-j", "1", "--json"];
    let found = attrs(&site.exits(1, &args));
    let begun = || {
        let events = site.events();
        let begun = events.of("attempt_started").into_iter().map(|event| events.drv_name(event));
        begun.collect::<Vec<String>>()
    };
    assert_eq!(begun(), ["a", "b", "z"]);

    // Nothing is evaluated, so that all three are known at once.
    let outputs = ["a", "b"].map(|name| found[&format!("checks.x86_64-linux.{name}")]["outputs"]["out"].clone());
    for output in outputs {
        let mut delete = site.lab.bare_command("nix");
        delete.args(["store", "delete", output.as_str().unwrap()]);
        finish(delete, &["nix store delete"]).expect(0);
    }
    site.exits(1, &args);
    assert!(site.events().of("eval_started").is_empty());
    // The slot went to what came up first, before anything else was known.
    assert_eq!(begun(), ["a", "z", "b"]);
}
