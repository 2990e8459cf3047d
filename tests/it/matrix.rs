//! `drover matrix`: the documents for each forge, and rows that together build what one run does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::nix::{Lab, Nix, each_nix};
use crate::support::site::{Site, base, finish, strings};

/// Without the hashes of store paths and the directories of this test.
fn shown(site: &Site, text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/nix/store/") {
        out.push_str(&rest[..at]);
        out.push_str("/nix/store/HASH");
        rest = &rest[at + "/nix/store/".len() + 32..];
    }
    (out + rest).replace(&site.lab.work().display().to_string(), "WORK")
}

/// A flake whose attrs are of two systems, ask for features, share drvs, and have names that need care.
const MIXED: &str = r#"{ outputs = { self }: let
    drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh";
      args = [ "-c" "echo $deps > $out" ]; } // more);
    shared = drv "shared-1.0" { };
  in {
    packages.x86_64-linux = {
      one = drv "one-1.0" { deps = [ shared ]; };
      two = drv "two-1.0" { deps = [ shared ]; };
      alone = drv "alone-1.0" { };
      "it's 1.2" = drv "careful-1.2" { };
      vm = drv "vm-1.0" { requiredSystemFeatures = [ "kvm" ]; };
    };
    packages.aarch64-linux.pi = drv "pi-1.0" { system = "aarch64-linux"; deps = [ shared ]; };
  }; }"#;

const ROWS: [&str; 5] = ["--all-systems", "--min-seconds", "0", "--max-rows", "4"];

#[test]
fn each_forge_gets_its_document() {
    each_nix(|nix| {
        let site = Site::of(Lab::chroot(nix), MIXED);
        let plan = site.lab.work().join("plan.drover").display().to_string();
        let labels = ["--runs-on", "x86_64-linux=small", "--runs-on", "x86_64-linux+kvm=big"];
        let matrix = |format: &str, more: &[&str]| {
            let args = [&["matrix", "--format", format, "-o", &plan][..], &ROWS, &labels, more].concat();
            let mut command = site.command(&args);
            command.env("CI_PIPELINE_ID", "812").env("CI_JOB_NAME", "plan").env("COLUMNS", "100");
            let ran = finish(command, &args);
            ran.expect(0);
            // All four are JSON, and what is JSON is YAML.
            let document: Value = ran.json();
            (document, shown(&site, &ran.out()), shown(&site, &ran.stderr))
        };
        let (json, text, said) = matrix("json", &[]);
        insta::assert_snapshot!("json", text);
        assert!(said.contains("1 drv is built in more than one row: shared-1.0 ("), "{said}");
        assert!(said.contains("7 drvs have no history and count as 10s each"), "{said}");
        let (github, text, _) = matrix("github", &[]);
        insta::assert_snapshot!("github", text);
        assert_eq!((&github["include"], text.lines().count()), (&json["include"], 1));
        let (forgejo, _, _) = matrix("forgejo", &[]);
        assert_eq!(forgejo, github);
        let (_, text, _) = matrix("gitlab", &[]);
        insta::assert_snapshot!("gitlab", text);

        let rows = json["include"].as_array().unwrap();
        assert!(rows.len() <= 4 && json["has_work"] == true);
        let of = |attr: &str| rows.iter().find(|row| strings(&row["attrs"]).contains(attr)).unwrap();
        assert_eq!(of("packages.x86_64-linux.one")["name"], of("packages.x86_64-linux.two")["name"]);
        assert_eq!(strings(&of("packages.x86_64-linux.vm")["features"]), BTreeSet::from(["kvm".to_owned()]));
        assert_eq!(
            (&of("packages.x86_64-linux.vm")["runs-on"], &of("packages.x86_64-linux.one")["runs-on"]),
            (&"big".into(), &"small".into())
        );
        assert_eq!(of("packages.aarch64-linux.pi")["system"], "aarch64-linux");

        let too_few = site.exits(2, &["matrix", "--all-systems", "--max-rows", "1"]);
        assert!(too_few.stderr.contains("there is work for 2 systems"), "{}", too_few.stderr);
        let too_many = site.exits(2, &["matrix", "--format", "github", "--max-rows", "257"]);
        assert!(too_many.stderr.contains("GitHub takes at most 256"), "{}", too_many.stderr);
        let small = site.exits(0, &["matrix", "--all-systems"]).json();
        assert_eq!(small["include"].as_array().unwrap().len(), 2, "one row a system: the work is small");
    });
}

#[test]
fn outputs_of_a_step_are_written_where_the_forge_reads_them() {
    each_nix(|nix| {
        let site = Site::of(Lab::chroot(nix), MIXED);
        let file = site.lab.write("output", "before=1\n");
        let args = ["matrix", "--format", "github", "--github-output"];
        let mut command = site.command(&args);
        command.env("GITHUB_OUTPUT", &file);
        let ran = finish(command, &args);
        let printed = ran.expect(0).out();
        let written = std::fs::read_to_string(&file).unwrap();
        assert_eq!(written, format!("before=1\nhas_work=true\nmatrix={printed}"));
        let ran = site.exits(2, &args);
        assert!(ran.stderr.contains("GITHUB_OUTPUT is not set"), "{}", ran.stderr);

        // Nothing to build: every forge takes what comes, and GitHub is told not to look at it.
        site.exits(0, &["run", "alone"]);
        let empty = |format: &str| site.exits(0, &["matrix", "alone", "--format", format]).json();
        let document = empty("json");
        assert_eq!((&document["has_work"], &document["include"]), (&false.into(), &Value::Array(vec![])));
        assert_eq!(empty("github"), serde_json::json!({ "include": [] }));
        assert_eq!(empty("gitlab")["nothing to build"]["stage"], "build");
        let args = ["matrix", "alone", "--github-output"];
        let mut command = site.command(&args);
        command.env("GITHUB_OUTPUT", &file);
        finish(command, &args).expect(0);
        assert!(std::fs::read_to_string(&file).unwrap().ends_with("has_work=false\nmatrix={\"include\":[]}\n"));
    });
}

#[test]
fn attrs_that_do_not_evaluate_are_exit_3_after_the_whole_document() {
    each_nix(|nix| {
        let site = Site::new(Lab::chroot(nix), "broken");
        let ran = site.exits(3, &["matrix", "throws", "nixosConfigurations.good"]);
        let document = ran.json();
        assert_eq!(strings(&document["include"][0]["attrs"]), BTreeSet::from(["nixosConfigurations.good".to_owned()]));
        assert!(ran.stderr.contains("Cannot be evaluated: 1"), "{}", ran.stderr);
    });
}

/// What lies in the store of a site, but for derivations.
fn paths(site: &Site) -> BTreeSet<String> {
    let entries = std::fs::read_dir(site.lab.physical()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    names.filter(|name| !name.starts_with('.') && !name.ends_with(".drv") && !name.ends_with(".lock")).collect()
}

/// The hashes of the NARs of these paths.
fn hashes<'a>(site: &Site, names: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, String> {
    let names: Vec<&String> = names.into_iter().collect();
    let paths: Vec<String> = names.iter().map(|name| format!("{}/{name}", site.lab.store_dir())).collect();
    let args: Vec<&str> = ["--query", "--hash"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    let said = site.lab.run("nix-store", &args);
    assert_eq!(said.lines().count(), names.len());
    names.into_iter().cloned().zip(said.lines().map(str::to_owned)).collect()
}

/// Builds each row in an empty store of its own; gives each output and the hash of its NAR.
fn built_by_rows(nix: &Nix, plan: &str, rows: &[Value], outputs: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for row in rows {
        let lab = Lab::chroot(nix);
        let flake = lab.work();
        let site = Site { lab, flake };
        // As a forge would type it: the words are quoted for a shell.
        let script = format!(
            "exec {} run --store \"$1\" --plan {plan} {} --json",
            env!("CARGO_BIN_EXE_drover"),
            row["args"].as_str().unwrap()
        );
        let mut command = site.lab.program("/bin/sh");
        command.env_remove("CI").args(["-c", &script, "row", &site.lab.store_arg().unwrap()]);
        let ran = finish(command, &[&script]);
        let document = ran.expect(0).json();
        let built = strings(&document["drvs"]["build"]);
        assert_eq!(built.len() as u64, row["drvs"].as_u64().unwrap(), "{row}");
        let there = paths(&site);
        for (name, hash) in hashes(&site, there.intersection(outputs)) {
            assert_eq!(*found.entry(name).or_insert_with(|| hash.clone()), hash);
        }
    }
    found
}

#[test]
fn rows_together_build_what_one_run_does() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let plan = site.lab.work().join("plan.drover").display().to_string();
        let matrix = |more: &[&str]| {
            let args =
                [&["matrix", "--min-seconds", "0", "-o", &plan, "--kind", "nixosConfigurations,packages"][..], more];
            site.exits(0, &args.concat()).json()
        };
        let together = matrix(&["--max-rows", "5"]);
        let split = matrix(&["--max-rows", "3", "--split"]);
        let whole = site.exits(0, &["run", "--kind", "nixosConfigurations,packages", "--json"]).json();
        let built = strings(&whole["drvs"]["build"]);
        let outputs: BTreeSet<String> = site.outputs(&built).iter().map(|path| base(path)).collect();
        let wanted = hashes(&site, &outputs);
        std::fs::remove_dir_all(&site.flake).unwrap();

        let rows = together["include"].as_array().unwrap();
        assert!(rows.len() > 1 && rows.len() <= 5, "{}", rows.len());
        assert_eq!(together["shared"], Value::Array(vec![]));
        let drvs: u64 = rows.iter().map(|row| row["drvs"].as_u64().unwrap()).sum();
        assert_eq!(drvs, built.len() as u64, "each drv is built once");
        assert_eq!(built_by_rows(nix, &plan, rows, &outputs), wanted);

        let rows = split["include"].as_array().unwrap();
        assert!(rows.len() > 1 && rows.len() <= 3, "{}", rows.len());
        let drvs: u64 = rows.iter().map(|row| row["drvs"].as_u64().unwrap()).sum();
        let twice: usize =
            split["shared"].as_array().unwrap().iter().map(|s| s["rows"].as_array().unwrap().len() - 1).sum();
        assert!(twice > 0, "hosts share packages");
        assert_eq!(drvs, (built.len() + twice) as u64, "what is built more than once is stated");
        assert_eq!(built_by_rows(nix, &plan, rows, &outputs), wanted);
    });
}

#[test]
fn times_that_were_measured_balance_the_rows() {
    each_nix(|nix| {
        let script = |name: &str, wait: &str| {
            format!(
                "{name} = derivation {{ name = \"{name}-1.0\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
                args = [ \"-c\" \"set -e; {wait} echo ${{salt}} > $out\" ]; }};"
            )
        };
        let drvs: String =
            ["a", "b", "c", "d"].map(|name| script(name, if name == "c" { "/bin/sleep 2;" } else { "" })).concat();
        let flake = |salt: &str| {
            format!(
                "{{ outputs = {{ self }}: let salt = \"{salt}\"; in {{ packages.x86_64-linux = {{ {drvs} }}; }}; }}"
            )
        };
        let site = Site::of(Lab::chroot(nix), &flake("1"));
        site.exits(0, &["run"]);
        site.edit("flake.nix", &flake("2"));
        let document = site.exits(0, &["matrix", "--max-rows", "2", "--min-seconds", "0"]).json();
        let rows: Vec<BTreeSet<String>> =
            document["include"].as_array().unwrap().iter().map(|row| strings(&row["attrs"])).collect();
        assert_eq!(document["without_history"], 0);
        assert_eq!(rows[0], BTreeSet::from(["packages.x86_64-linux.c".to_owned()]), "{document}");
        assert_eq!(rows[1].len(), 3);
        let one = site.exits(0, &["matrix"]).json();
        assert_eq!(one["include"].as_array().unwrap().len(), 1, "some seconds are not worth a second machine");
    });
}
