//! What attrs import from derivations: drover builds it, and asks the attr again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Ran, Site, classes, statuses, strings, wait_until};

/// Attrs that import in every way. `chain N` reads N derivations, each of which is made from what the one before says.
const FLAKE: &str = r#"{ outputs = { self }: let
  make = name: script: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ]; } // more);
  says = name: text: make name "echo -n '${text}' > $out" { };
  chain = n: if n == 0 then "0" else builtins.readFile (says "link-${toString n}" (chain (n - 1)));
  all = import (make "all.nix" "echo '{ a = 1; }' > $dev; echo > $out" { outputs = [ "out" "dev" ]; }).dev;
  both = builtins.readFile (says "both" "x");
in {
  packages.x86_64-linux = {
    plain = says "plain" "x";
    once = says "once" (builtins.readFile (says "gen" "x"));
    output = says "output" (toString all.a);
    three = says "three" (chain 3);
    eight = says "eight" (chain 8);
    nine = says "nine" (chain 9);
    many = says "many" (builtins.concatStringsSep "" (builtins.genList (n: builtins.readFile (says "many-${toString n}" "x")) 12));
    shared-a = says "shared-a" both;
    shared-b = says "shared-b" both;
    fails = says "fails" (builtins.readFile (make "broken" "echo broken by design; exit 3" { }));
    below = says "below" (builtins.readFile (make "above" "echo > $out" { needs = make "broken" "echo broken by design; exit 3" { }; }));
    foreign = says "foreign" (builtins.readFile (make "arm" "echo > $out" { system = "aarch64-linux"; }));
    throws = says "throws" (throw "no");
  };
}; }"#;

/// Attrs that build.
const FINE: [&str; 8] = ["plain", "once", "output", "three", "eight", "many", "shared-a", "shared-b"];

/// Attrs that do not evaluate, with the class of the error.
const FAILING: [(&str, &str); 5] =
    [("nine", "eval"), ("fails", "build"), ("below", "build"), ("foreign", "no_builder"), ("throws", "eval")];

fn attr(name: &str) -> String {
    format!("packages.x86_64-linux.{name}")
}

fn found<'a>(document: &'a Value, name: &str) -> &'a Value {
    let attrs = document["attrs"].as_array().unwrap();
    attrs.iter().find(|found| found["attr"] == attr(name).as_str()).unwrap()
}

fn message<'a>(document: &'a Value, name: &str) -> &'a str {
    found(document, name)["error"]["message"].as_str().unwrap()
}

/// Name of the drv whose failure it is.
fn root(document: &Value, name: &str) -> String {
    let path = found(document, name)["error"]["root_drv"].as_str().unwrap_or_default();
    path.rsplit('/').next().unwrap().get(33..).unwrap_or_default().to_owned()
}

/// Nothing of the machine's Nix tells which builders there are.
const CONF: &str = "system-features = big-parallel\nextra-platforms =\n";

fn site(lab: Lab) -> Site {
    lab.configure(CONF);
    Site::of(lab, FLAKE)
}

/// Names of what was imported, in order, as often as attrs did.
fn imported(site: &Site) -> Vec<String> {
    site.events().of("import_started").into_iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect()
}

fn failures_are_told(document: &Value) {
    assert_eq!(classes(document), FAILING.map(|(name, class)| (attr(name), class.to_owned())).into());
    assert_eq!(
        message(document, "nine"),
        "its imports from derivations are nested more than 8 deep: \
         link-1 → link-2 → link-3 → link-4 → link-5 → link-6 → link-7 → link-8 → link-9"
    );
    let fails = message(document, "fails");
    assert!(fails.starts_with("it imports from derivation broken, which cannot be had: "), "{fails}");
    assert!(fails.contains("exit code 3"), "{fails}");
    let below = message(document, "below");
    assert!(below.starts_with("it imports from derivation above, which cannot be had: broken, "), "{below}");
    let foreign = message(document, "foreign");
    assert!(foreign.contains("no builder for aarch64-linux"), "{foreign}");
    let roots = ["nine", "fails", "below", "foreign", "throws"].map(|name| root(document, name));
    assert_eq!(roots, ["", "broken.drv", "broken.drv", "arm.drv", ""]);
}

#[test]
fn imports_are_built_by_drover_and_the_attr_is_asked_again() {
    each_nix(|nix| {
        for lab in [Lab::chroot(nix), Lab::plain(nix)] {
            let site = site(lab);
            let document = site.exits(3, &["run", "--json"]).json();
            failures_are_told(&document);
            let built = statuses(&document).into_iter().filter(|(_, status)| status == "built");
            assert_eq!(built.map(|(name, _)| name).collect::<BTreeSet<_>>(), FINE.map(attr).into());

            let events = site.events();
            let builds = events.built();
            let links: Vec<String> = (1..=8).map(|n| format!("link-{n}")).collect();
            for name in links.iter().map(String::as_str).chain(["gen", "both", "all.nix", "many-0", "many-11"]) {
                assert_eq!(builds.iter().filter(|built| *built == name).count(), 1, "{name}: {builds:?}");
            }
            let imports = imported(&site);
            assert_eq!(imports.iter().filter(|name| *name == "both").count(), 2, "{imports:?}");
            // Each is counted once, however many attrs import it.
            assert_eq!(document["counts"]["imports"], 8 + 12 + 3 + 3);
            // Nix itself has built nothing: all was built in one of drover's attempts.
            assert_eq!(events.of("attempt_started").len(), builds.len() + 1, "and one that fails");
            for name in FINE {
                let what = format!("{}#{}.drvPath", site.flake.display(), attr(name));
                let says = site.lab.run("nix", &["eval", "--raw", &what]);
                assert_eq!(found(&document, name)["drv"], says.as_str(), "{name}");
            }

            // Answers that needed an import are remembered; errors of imports are not.
            failures_are_told(&site.exits(3, &["run", "--json"]).json());
            let events = site.events();
            let asked: BTreeSet<String> =
                events.of("eval_started").into_iter().map(|event| event["attr"].to_string()).collect();
            assert_eq!(asked.len(), 4, "nine, fails, below and foreign");
        }
    });
}

#[test]
fn a_plan_builds_what_is_imported_and_nothing_else() {
    each_nix(|nix| {
        let site = site(Lab::plain(nix));
        let document = site.exits(3, &["plan", "--json"]).json();
        failures_are_told(&document);
        let build = strings(&document["drvs"]["build"]);
        let build: BTreeSet<&str> = build.iter().map(|path| &path.rsplit('/').next().unwrap()[33..]).collect();
        assert_eq!(build, FINE.map(|name| format!("{name}.drv")).iter().map(String::as_str).collect());
        let built: BTreeSet<String> = site.events().built().into_iter().collect();
        assert!(built.contains("gen") && built.contains("link-8"), "{built:?}");
        assert!(FINE.iter().all(|name| !built.contains(*name)), "{built:?}");

        let site = self::site(Lab::plain(nix));
        let shown = site.exits(0, &["plan", "once", "three"]).stderr;
        assert!(shown.contains("To build: 2 drvs"), "{shown}");
        assert!(shown.contains("4 imports from derivations: gen, link-1, link-2, link-3"), "{shown}");
        // What is there by now is read at once, but for the first of each attr.
        let log = site.exits(0, &["run", "--refresh", "once", "three"]).stderr;
        let orders = ["gen, link-1", "link-1, gen"];
        let said = |names: &str| log.contains(&format!("2 attrs, 0 failed · 2 imports from derivations: {names}\n"));
        assert!(orders.into_iter().any(said), "{log}");
    });
}

#[test]
fn what_the_base_imports_is_built_too() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), &FLAKE.replace("exit 3", "exit 4"));
        let text = FLAKE.replace("exit 3", "exit 4").replace("(chain 3)", "(chain 3 + \"!\")");
        site.edit("flake.nix", &text);
        let ran = site.exits(3, &["affected", "--base", "HEAD^"]);
        assert_eq!(ran.out(), format!("{}\n", attr("three")));
        assert!(imported(&site).iter().filter(|name| *name == "link-1").count() > 2, "{:?}", imported(&site));
    });
}

fn refused(ran: &Ran, by: &str) {
    let document = ran.json();
    let classes = classes(&document);
    assert_eq!(classes.len(), 12, "{classes:?}");
    assert!(classes.values().all(|class| class == "eval"), "{classes:?}");
    let message = message(&document, "once");
    assert!(
        message.starts_with(&format!(
            "it imports from derivation gen, which {by} forbids; without that, drover builds it\n"
        )),
        "{message}"
    );
    assert!(message.ends_with("-gen.drv"), "{message}");
}

#[test]
fn imports_can_be_refused() {
    each_nix(|nix| {
        let site = site(Lab::plain(nix));
        refused(&site.exits(3, &["plan", "--json", "--no-ifd"]), "--no-ifd");
        let flag = ["plan", "--json", "--option", "allow-import-from-derivation", "false"];
        refused(&site.exits(3, &flag), "--option allow-import-from-derivation false");
        site.lab.configure(&format!("{CONF}allow-import-from-derivation = false"));
        refused(&site.exits(3, &["plan", "--json"]), "allow-import-from-derivation = false in nix.conf");
        assert!(site.events().built().is_empty());
        assert!(imported(&site).is_empty());
    });
}

#[test]
fn what_attrs_there_are_may_be_imported_too() {
    each_nix(|nix| {
        let site = Site::of(
            Lab::plain(nix),
            r#"{ outputs = { self }: let
              make = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ]; };
              names = import (make "names.nix" "echo '[ \"a\" \"b\" ]' > $out");
              outputs = import (make "outputs.nix" "echo '{ checks.x86_64-linux = { }; }' > $out");
            in outputs // { packages.x86_64-linux = builtins.listToAttrs (map (name: { inherit name; value = make name "echo > $out"; }) names); }; }"#,
        );
        let document = site.exits(0, &["run", "--json"]).json();
        let wanted = ["a", "b"].map(|name| (attr(name), "built".to_owned()));
        assert_eq!(statuses(&document), wanted.into());
        assert_eq!(imported(&site), ["outputs.nix", "names.nix"]);
        assert_eq!(document["counts"]["imports"], 2);
    });
}

#[test]
fn a_stop_while_an_import_is_built_ends_everything() {
    let site = Site::of(
        Lab::plain(&newest()),
        r#"{ outputs = { self }: let
          make = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ]; PATH = "/bin:/usr/bin"; };
        in { packages.x86_64-linux = { a = make (builtins.readFile (make "slow" "sleep 600; echo -n x > $out")) "echo > $out"; b = make "b" "echo > $out"; }; }; }"#,
    );
    for name in ["INT", "KILL"] {
        let running = site.start(&["run", "--json"]);
        wait_until("the import", || {
            let run = std::fs::read_dir(site.state().join("runs")).ok()?.flatten().map(|entry| entry.path()).max()?;
            let text = std::fs::read_to_string(run.join("events.jsonl")).ok()?;
            (text.contains("\"import_started\"") && text.contains("\"attempt_building\"")).then_some(())
        });
        running.signal(name);
        let code = running.wait().code;
        assert_eq!(code, if name == "INT" { Some(130) } else { None });
        site.expect_no_process(Duration::from_secs(10));
    }
}
