//! What takes the place of a flake: plain Nix files, and the lines of another evaluator.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::eval_jobs::{JOBS, write_eval_jobs};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Site, classes, statuses, wait_until};

/// A package set as people write them: a function, sets that are entered and sets that are not.
const FILE: &str = r#"{ system ? "x86_64-linux", suffix ? "", needed }: let
  make = name: derivation { inherit name system; builder = "/bin/sh"; args = [ "-c" "echo ${toString needed} > $out" ]; };
in {
  hello = make "hello${suffix}";
  set = { recurseForDerivations = true; inner = make "inner"; };
  closed = { hidden = make "hidden"; };
  text = "no derivation";
  broken = throw "not today";
}"#;

fn attr<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["attrs"].as_array().unwrap().iter().find(|attr| attr["attr"] == name).unwrap()
}

#[test]
fn a_plain_file_is_evaluated_as_nix_does() {
    each_nix(|nix| {
        for lab in [Lab::chroot(nix), Lab::plain(nix)] {
            let site = Site::of(lab, "{ outputs = { self }: { }; }");
            let file = site.lab.write("plain/default.nix", FILE).display().to_string();
            let given = ["--arg", "needed", "1 + 1", "--argstr", "suffix", "-\"$x\\"];
            let run = |words: &[&str], more: &[&str]| {
                site.drover(&[words, &["--json", "--file", &file], &given[..3], more].concat())
            };

            let document = run(&["run"], &[]).expect(3).to_owned().json();
            let wanted = [("hello", "built"), ("set.inner", "built"), ("broken", "eval_failed")];
            let wanted: BTreeMap<String, String> = wanted.map(|(name, status)| (name.into(), status.into())).into();
            assert_eq!(statuses(&document), wanted);
            assert_eq!(classes(&document), [("broken".to_owned(), "eval".to_owned())].into());
            assert_eq!(document["flake"]["ref"], file.as_str());
            for name in ["hello", "set.inner"] {
                let says = site.lab.run(
                    "nix",
                    &["eval", "--raw", "--file", &file, "--arg", "needed", "1 + 1", &format!("{name}.drvPath")],
                );
                assert_eq!(attr(&document, name)["drv"], says.as_str());
            }
            // Nothing is remembered: what the file reads is nobody's business.
            let again = run(&["plan"], &[]);
            again.expect(3);
            assert!(!site.events().of("eval_started").is_empty());

            // By name also what is not entered.
            let document = run(&["plan", "closed.hidden", "hello"], &[]).expect(0).to_owned().json();
            assert_eq!(statuses(&document).keys().collect::<Vec<_>>(), ["closed.hidden", "hello"]);
            let error = run(&["plan", "helo"], &[]);
            error.expect(2);
            assert!(error.stderr.contains(&format!("{file} has no attr 'helo'")), "{}", error.stderr);
            assert!(error.stderr.contains("did you mean hello?"), "{}", error.stderr);
            let missing = site.drover(&["plan", "--file", &file, "hello"]);
            missing.expect(3);
            assert!(missing.stderr.contains("required argument 'needed'"), "{}", missing.stderr);
            assert!(!missing.stderr.contains("drover-file-"), "{}", missing.stderr);
        }
    });
}

#[test]
fn arguments_are_texts_or_expressions() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), "{ outputs = { self }: { }; }");
        let file = site.lab.write("plain/default.nix", FILE).display().to_string();
        let text = "-a.${b}'c";
        let args = [
            "plan",
            "--json",
            "--file",
            &file,
            "--argstr",
            "needed",
            text,
            "--arg",
            "suffix",
            "\"-\" + \"1\"",
            "hello",
        ];
        let document = site.exits(0, &args).json();
        let drv = attr(&document, "hello")["drv"].as_str().unwrap();
        assert!(drv.ends_with("-hello-1.drv"), "{drv}");
        let shown = site.lab.run("nix", &["derivation", "show", drv]);
        assert!(shown.contains(text), "{shown}");

        let set = site
            .lab
            .write("plain/one.nix", "derivation { name = \"one\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; }");
        let document = site.exits(0, &["plan", "--json", "--file", &set.display().to_string()]).json();
        assert_eq!(statuses(&document).into_keys().collect::<Vec<_>>(), ["\"one.nix\""]);
        for (args, why) in [
            (vec!["plan", "--file", "/nowhere.nix"], "--file /nowhere.nix"),
            (vec!["plan", "--file", "-"], "cannot read standard input"),
            (vec!["plan", "--file", &file, "--base", "HEAD"], "--base needs a flake"),
            (vec!["plan", "--file", &file, "--arg", "a", "1", "--argstr", "a", "1"], "is given twice"),
            (vec!["affected", "--file", &file], "has no flag '--file'"),
        ] {
            let ran = site.drover(&args);
            ran.expect(2);
            assert!(ran.stderr.contains(why), "{args:?}: {}", ran.stderr);
        }
    });
}

/// A flake whose checks another evaluator is said to have evaluated.
const FLAKE: &str = r#"{ outputs = { self }: let
  make = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out; [ -z \"$dev\" ] || echo > $dev" ]; } // more);
in { checks.x86_64-linux = { a = make "a" { }; "b.c" = make "b" { outputs = [ "out" "dev" ]; }; arm = make "arm" { system = "aarch64-linux"; }; bad = throw "bad"; }; }; }"#;

/// Lines as nix-eval-jobs prints them, with all that it may say, made by Nix itself.
fn lines(site: &Site) -> Vec<Value> {
    let names = [r#"x86_64-linux.a"#, r#"x86_64-linux."b.c""#, "x86_64-linux.arm"];
    let mut lines: Vec<Value> = names
        .iter()
        .map(|name| {
            let apply = "d: { inherit (d) name system drvPath; outputs = builtins.listToAttrs (map (o: { name = o; value = d.${o}.outPath; }) (d.outputs or [ \"out\" ])); }";
            let what = format!("{}#checks.{name}", site.flake.display());
            let said = site.lab.run("nix", &["eval", "--json", "--apply", apply, &what]);
            let mut line: Value = serde_json::from_str(&said).unwrap();
            let path: Vec<String> = name.splitn(2, '.').map(|part| part.trim_matches('"').to_owned()).collect();
            line["attr"] = json!(name);
            line["attrPath"] = json!(path);
            line["inputDrvs"] = json!({});
            line["meta"] = json!({ "broken": false, "position": "flake.nix:1" });
            line["cacheStatus"] = json!("notBuilt");
            line["neededBuilds"] = json!([]);
            line["neededSubstitutes"] = json!([]);
            line["extraValue"] = json!({ "any": 1 });
            line["constituents"] = json!([]);
            line["requiredSystemFeatures"] = json!([]);
            line
        })
        .collect();
    lines.push(json!({
        "attr": "x86_64-linux.bad", "attrPath": ["x86_64-linux", "bad"], "fatal": false,
        "error": "\u{1b}[31;1merror:\u{1b}[0m\n       … while calling the 'throw' builtin\n         at /x/flake.nix:3:9:\n\n       \u{1b}[31;1merror:\u{1b}[0m bad",
    }));
    lines
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>() + "\n"
}

#[test]
fn lines_of_another_evaluator_are_built_without_evaluating() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        lab.configure("extra-platforms =");
        let site = Site::of(lab, FLAKE);
        let file = site.lab.write("lines.json", &text(&lines(&site))).display().to_string();
        let (path, notes) = site.spy("nix");
        let mut command = site.command(&["run", ".#checks", "--attrs-from", &file, "--json"]);
        command.env("PATH", path);
        let ran = crate::support::site::finish(command, &["run", "--attrs-from"]);
        let document = ran.expect(3).json();
        let wanted = [
            ("checks.x86_64-linux.a", "built"),
            ("checks.x86_64-linux.\"b.c\"", "built"),
            ("checks.x86_64-linux.arm", "skipped"),
            ("checks.x86_64-linux.bad", "eval_failed"),
        ];
        assert_eq!(statuses(&document), wanted.map(|(name, status)| (name.to_owned(), status.to_owned())).into());
        let error = &attr(&document, "checks.x86_64-linux.bad")["error"];
        assert_eq!((&error["message"], &error["position"]), (&json!("bad"), &json!("/x/flake.nix:3:9")));
        let started = std::fs::read_to_string(notes).unwrap();
        assert!(
            started.contains("config show") && !started.contains("repl") && !started.contains("metadata"),
            "{started}"
        );

        // From a pipe, only some, without the name that they were evaluated under.
        let mut command = site.command(&["plan", "--attrs-from", "-", "--only", "a", "--json"]);
        command.stdin(std::fs::File::open(&file).unwrap());
        let document = crate::support::site::finish(command, &["plan", "--attrs-from", "-"]).expect(0).json();
        assert_eq!(statuses(&document), [("x86_64-linux.a".to_owned(), "valid".to_owned())].into());
    });
}

#[test]
fn lines_that_are_wrong_are_refused_and_what_is_gone_is_told() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let good = lines(&site);
    let refused = |lines: &str, why: &str| {
        let file = site.lab.write("lines.json", lines);
        let ran = site.drover(&["plan", "--attrs-from", &file.display().to_string()]);
        ran.expect(2);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    };
    refused(&format!("{}nonsense\n", text(&good[..2])), "lines.json, line 4: it is no JSON object");
    refused(&text(&[good[0].clone(), good[0].clone()]), "line 2: 'x86_64-linux.a' is in line 1 already");
    refused("{\"attr\":\"a\"}", "line 1: it has neither 'drvPath' nor 'error'");
    let ran = site.drover(&["plan", "--attrs-from", "/nowhere"]);
    assert!(ran.expect(2).stderr.contains("--attrs-from /nowhere"));

    let mut gone = good[0].clone();
    let drv = gone["drvPath"].as_str().unwrap().replace("-a.drv", "-gone.drv");
    gone["drvPath"] = json!(drv);
    let file = site.lab.write("lines.json", &text(&[gone, good[1].clone()])).display().to_string();
    let document = site.exits(3, &["plan", "--attrs-from", &file, "--json"]).json();
    let error = attr(&document, "x86_64-linux.a")["error"]["message"].as_str().unwrap();
    assert!(error.starts_with(&format!("its derivation {drv} is not in this store")), "{error}");
    assert_eq!(attr(&document, "x86_64-linux.\"b.c\"")["status"], "to_build");
}

/// drover with a nix-eval-jobs that is this script on its `PATH`; gives its notes too.
fn with_jobs(site: &Site, script: &str, version: &str, args: &[&str]) -> (std::process::Command, std::path::PathBuf) {
    let (path, notes) = site.spy("nix");
    write_eval_jobs(&site.lab, &site.lab.path("spy/nix-eval-jobs"), script, version, &notes);
    let mut command = site.command(args);
    command.env("PATH", path);
    (command, notes)
}

fn version(site: &Site) -> String {
    let (major, minor) = site.lab.nix.release();
    format!("{major}.{minor}.99")
}

#[test]
fn nix_eval_jobs_evaluates_where_somebody_asks_for_it() {
    each_nix(|nix| {
        for lab in [Lab::plain(nix), Lab::chroot(nix)] {
            lab.configure("extra-platforms =");
            let site = Site::of(lab, FLAKE);
            let run = |args: &[&str]| {
                let args = [args, &["--eval", "nix-eval-jobs", "--json"]].concat();
                let (command, notes) = with_jobs(&site, JOBS, &version(&site), &args);
                (crate::support::site::finish(command, &args), std::fs::read_to_string(notes).unwrap())
            };
            let (ran, notes) = run(&["run", ".#checks", "--eval-workers", "3", "--option", "cores", "1"]);
            let document = ran.expect(3).json();
            let wanted = [
                ("checks.x86_64-linux.a", "built"),
                ("checks.x86_64-linux.\"b.c\"", "built"),
                ("checks.x86_64-linux.arm", "skipped"),
                ("checks.x86_64-linux.bad", "eval_failed"),
            ];
            assert_eq!(statuses(&document), wanted.map(|(name, status)| (name.to_owned(), status.to_owned())).into());
            let what = format!("{}#checks.x86_64-linux.a.drvPath", site.flake.display());
            let says = site.lab.run("nix", &["eval", "--raw", &what]);
            assert_eq!(attr(&document, "checks.x86_64-linux.a")["drv"], says.as_str());
            assert!(notes.contains("--flake .#checks --meta --workers 3 --max-memory-size "), "{notes}");
            assert!(notes.contains("--option cores 1"), "{notes}");
            assert!(!notes.contains("repl") && !notes.contains("metadata"), "only one of them evaluates: {notes}");
            let events = site.events();
            assert_eq!(events.of("eval_warning")[0]["message"], "said by the other one");

            // A kind that the flake does not have is nothing; what is asked for twice is there once.
            let (ran, _) = run(&["plan", "--kind", "packages", "--kind", "checks", "--only", "a"]);
            assert_eq!(statuses(&ran.expect(0).json()), [("checks.x86_64-linux.a".into(), "valid".into())].into());
            let (ran, _) = run(&["plan", ".#checks.x86_64-linux.a", ".#checks.x86_64-linux.a"]);
            assert_eq!(statuses(&ran.expect(0).json()), [("checks.x86_64-linux.a".into(), "valid".into())].into());
        }
    });
}

#[test]
fn nix_eval_jobs_that_cannot_serve_is_told() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let told = |script: &str, version: &str, code: i32, args: &[&str], why: &str| {
        let args = [&["plan", "--eval", "nix-eval-jobs"], args].concat();
        let ran = crate::support::site::finish(with_jobs(&site, script, version, &args).0, &args);
        ran.expect(code);
        // Lines are as long as the path of the lab has them.
        let words: Vec<&str> = ran.stderr.split_whitespace().collect();
        assert!(words.join(" ").contains(why), "{args:?}: {}", ran.stderr);
    };
    let ran = site.exits(2, &["plan", ".#checks", "--eval", "nix-eval-jobs"]);
    assert!(ran.stderr.contains("there is none on PATH"), "{}", ran.stderr);
    let version = version(&site);
    told(JOBS, "2.3.4", 2, &[".#checks"], "is of another version than Nix");
    told(JOBS, &version, 2, &[], "nix-eval-jobs evaluates derivations only, no hosts");
    told(JOBS, &version, 3, &[".#nothing"], "exited with code 1: error: flags");
    told(JOBS, &version, 2, &[".#devShells"], "does not provide");
    told(JOBS, &version, 2, &[".#checks", "--base", "HEAD"], "--base needs drover's own evaluators");
    let dies =
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo VERSION; exit; }\necho 'error: boom' >&2\nkill -s SEGV $$\n";
    told(dies, &version, 3, &[".#checks"], "nix-eval-jobs was killed by signal 11: error: boom");
}

#[test]
fn a_stop_ends_nix_eval_jobs_and_all_that_it_started() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && { echo VERSION; exit; }\nsleep 600 &\nwait\n";
    let args = ["run", ".#checks", "--eval", "nix-eval-jobs"];
    let (command, _) = with_jobs(&site, script, &version(&site), &args);
    let running = crate::support::site::start(command, &args);
    wait_until("the evaluator", || site.processes().iter().any(|one| one.cmdline.contains("sleep 600")).then_some(()));
    running.signal("INT");
    assert_eq!(running.wait().code, Some(130));
    site.expect_no_process(std::time::Duration::from_secs(10));
}
