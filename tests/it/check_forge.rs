//! What CI systems are told of a check or a run: annotations, JUnit, pages, sections; and that what others said reaches
//! none of them as a command.
#![allow(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "says what is not tested, and starts a reader of XML"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::eval::commit;
use crate::support::nix::{Lab, each_nix, newest, tool};
use crate::support::runner::{self, commands, sections};
use crate::support::site::{Ran, Site, commit_as_origin, finish, narinfos};

/// What a log may hold that runners take for commands, as `printf` of a shell has it.
const EVIL: [&str; 16] = [
    r"::error file=evil::pwned",
    r"   ::warning file=evil::pwned",
    r"::set-output name=evil::pwned",
    r"::add-mask::pwned",
    r"::stop-commands::pwned",
    r"::group::pwned",
    r"\302\240\342\200\203::error file=evil::pwned",
    r"\342\200\213:\302\255:error file=evil::pwned",
    r"##[error]pwned",
    r"gcc ##[set-env name=evil]pwned",
    r"#\342\200\215#[command]pwned",
    r"x ##vso[task.setvariable variable=evil]pwned",
    r"10%%\r::error file=evil::pwned\r20%%",
    r"\033[31m::error file=evil::pwned\033[0m",
    r"\033[0Ksection_start:1:evil\r\033[0Kpwned",
    r"\033]0;pwned\007\033[2J##[group]pwned",
];

/// A flake whose builds, errors, warnings, traces and names are full of them.
fn evil() -> String {
    let prints: String = EVIL.iter().map(|line| format!("printf '{line}\\n'\nprintf '{line}\\n' >&2\n")).collect();
    let drv = |name: &str, end: &str| {
        format!(
            "derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
             args = [ \"-c\" ''\n{prints}{end}\n'' ]; }}"
        )
    };
    let said = r"::error file=evil::pwned\n##[error]pwned\n  ::set-output name=evil::pwned\r::add-mask::pwned";
    format!(
        "{{ outputs = {{ self }}: {{
          checks.x86_64-linux = {{
            loud = {loud};
            failing = {failing};
            \"##[error]pwned\" = {named};
            \"::error file=evil::pwned\" = {named};
            throws = throw \"{said}\";
            \"::warning::pwned\" = throw \"{said}\";
            traces = builtins.trace \"{said}\" ({loud});
            warns = (builtins.warn or (_: drv: drv)) \"{said}\" ({loud});
          }};
          nixosConfigurations.\"::error::pwned\" = throw \"##[error]pwned\";
        }}; }}",
        loud = drv("loud", "echo > $out"),
        failing = drv("failing", "exit 7"),
        named = drv("named", "exit 1"),
    )
}

/// Runs drover as a step of a CI system does.
fn step(site: &Site, vars: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = site.command(args);
    command.env("CI", "true").envs(vars.iter().copied());
    finish(command, args)
}

/// All that a runner reads: both streams.
fn log(ran: &Ran) -> String {
    format!("{}\n{}", ran.out(), ran.stderr)
}

const GITHUB: [(&str, &str); 1] = [("GITHUB_ACTIONS", "true")];

#[test]
fn what_others_say_is_no_command() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), &evil());
        let ours = |log: &str| {
            let mut counts = BTreeMap::new();
            let folds = |command: &runner::Command| ["group", "endgroup"].contains(&&*command.name);
            let (folded, told): (Vec<runner::Command>, Vec<runner::Command>) =
                commands(log).into_iter().partition(folds);
            assert!(!folded.is_empty() && folded.len() % 2 == 0, "{folded:?}\n{log}");
            for pair in folded.chunks(2) {
                let ends = pair[1].name == "endgroup" && pair[1].data.is_empty();
                assert!(
                    pair[0].name == "group" && pair[0].data.starts_with("the end of its log, ") && ends,
                    "{pair:?}"
                );
            }
            for command in told {
                assert!(["error", "warning", "notice"].contains(&&*command.name), "{command:?}\n{log}");
                assert_eq!(command.property("file").filter(|file| *file != "flake.nix"), None, "{command:?}");
                assert!(command.property("title").is_some(), "{command:?}");
                assert_eq!(commands(&command.data), [], "some runners read a message again: {command:?}");
                *counts.entry(command.name).or_insert(0) += 1;
            }
            assert!(counts.values().all(|count| *count <= 10), "{counts:?}");
            counts
        };
        for args in [&["check", "-L", "-v"][..], &["check", "--json", "-L"], &["run", "-L"]] {
            let ran = step(&site, &GITHUB, args);
            ran.expect(3);
            let log = log(&ran);
            // It was said, and it is said.
            assert!(log.matches("pwned").count() > 20, "{log}");
            assert!(!log.contains(['\u{1b}', '\r']), "{log:?}");
            assert!(ours(&log).get("error").is_some_and(|errors| *errors >= 3), "{log}");
        }
        let coloured = step(&site, &[GITHUB[0], ("CLICOLOR_FORCE", "1")], &["check", "-L"]);
        ours(&log(coloured.expect(3)));
        // What was asked for is on stdout, and a step shows that, too.
        for args in [
            &["log", "failing"][..],
            &["report"],
            &["report", "--json"],
            &["plan"],
            &["plan", "--json"],
            &["affected", "--base", "HEAD", "--json"],
        ] {
            let ran = step(&site, &GITHUB, args);
            let log = log(&ran);
            assert!(commands(&log).is_empty(), "{args:?}: {:?}\n{log}", commands(&log));
            assert!(!log.contains(['\u{1b}', '\r']) || args[0] == "report", "{args:?}: {log:?}");
        }
        // Elsewhere the log is as the builder wrote it.
        let whole = site.exits(0, &["log", "failing"]);
        assert!(whole.out().contains("\n##[error]pwned\n") && whole.out().contains("\u{1b}[31m::error"));
        // GitLab folds what drover says, and nothing else.
        let ran = step(&site, &[("GITLAB_CI", "true")], &["check", "-L"]);
        ran.expect(3);
        let log = log(&ran);
        assert!(commands(&log).is_empty(), "{log}");
        let found = sections(&log);
        let (first, rest) = found.split_first_chunk::<2>().unwrap();
        assert_eq!(first, &[("drover_run".to_owned(), true), ("drover_run".to_owned(), false)], "{log}");
        assert!(!rest.is_empty(), "{log}");
        for (n, pair) in rest.chunks(2).enumerate() {
            let name = format!("drover_{}", n + 1);
            assert_eq!(pair, [(name.clone(), true), (name, false)], "{log}");
        }
    });
}

/// What is wrong in the flake below: the attr, and the text at which its position is.
const WRONG: [(&str, &str); 10] = [
    ("packages.x86_64-linux.throws", "throw \"p1\""),
    ("packages.x86_64-linux.asserts", "assert 1 == 2;"),
    ("packages.x86_64-linux.misses", "missing.attribute"),
    ("devShells.x86_64-linux.throws", "throw \"d1\""),
    ("nixosConfigurations.broken", "throw \"n1\""),
    ("overlays.broken", "throw \"o1\""),
    ("apps.x86_64-linux.broken", "throw \"a1\""),
    ("checks.x86_64-linux.exits", "exits = drv"),
    ("checks.x86_64-linux.no-output", "no-output = drv"),
    ("checks.x86_64-linux.throws", "throw \"c1\""),
];

/// 200 attrs, ten of them wrong.
fn two_hundred() -> String {
    let text = r#"{ outputs = { self }: let
  drv = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ]; };
  good = name: drv name "echo > $out";
  many = prefix: n: builtins.listToAttrs (builtins.genList (i: { name = "${prefix}${toString i}"; value = good "${prefix}${toString i}"; }) n);
  missing = { };
in {
  packages.x86_64-linux = many "p" 120 // {
    throws = throw "p1";
    asserts = assert 1 == 2; good "x";
    misses = missing.attribute;
  };
  devShells.x86_64-linux = many "d" 40 // {
    throws = throw "d1";
  };
  nixosConfigurations.broken = { config.system.build.toplevel = throw "n1"; };
  overlays.broken = throw "o1";
  apps.x86_64-linux.broken = throw "a1";
  checks.x86_64-linux = many "c" 30 // {
    exits = drv "exits" "echo the log says why; exit 2";
    no-output = drv "no-output" "exit 0";
    throws = throw "c1";
  };
}; }
"#;
    text.to_owned()
}

/// The document of a run as PyPI's junitparser reads it.
fn read_by_junitparser(file: &str) -> Value {
    const SCRIPT: &str = "
import json, sys
from junitparser import JUnitXml, Failure, Error, Skipped
xml = JUnitXml.fromfile(sys.argv[1])
def case(c):
    r = c.result[0] if c.result else None
    return {'name': c.name, 'classname': c.classname, 'time': c.time,
            'result': type(r).__name__ if r is not None else 'ok', 'message': r.message if r is not None else None,
            'type': r.type if r is not None else None, 'file': c._elem.get('file'), 'line': c._elem.get('line'), 'out': c.system_out}
json.dump({'tests': xml.tests, 'failures': xml.failures, 'errors': xml.errors,
  'suites': [{'name': s.name, 'tests': s.tests, 'failures': s.failures, 'errors': s.errors, 'skipped': s.skipped,
              'cases': [case(c) for c in s]} for s in xml]}, sys.stdout)
";
    let output = Command::new(tool("junitparser/bin/python")).args(["-c", SCRIPT, file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that is wrong among many, with its place, told once in every way.
#[test]
fn ten_of_two_hundred_are_told_with_their_places() {
    let text = two_hundred();
    let line = |at: &str| text.lines().position(|line| line.contains(at)).map(|n| (n + 1).to_string()).unwrap();
    let site = Site::of(Lab::plain(&newest()), &text);
    let junit = site.lab.work().join("junit.xml");
    let page = site.lab.write("page.md", "what others wrote\n");
    let junit = junit.to_str().unwrap();
    let vars = [GITHUB[0], ("GITHUB_STEP_SUMMARY", page.to_str().unwrap())];
    let ran = step(&site, &vars, &["check", "--json", "--result-file", junit, "--result-format", "junit"]);
    ran.expect(3);
    let document = ran.json();
    let attrs = document["attrs"].as_array().unwrap();
    assert_eq!(attrs.len(), 200);
    let wrong: BTreeSet<&str> = WRONG.iter().map(|(attr, ..)| *attr).collect();
    let failed = attrs.iter().filter(|attr| !attr["error"].is_null());
    assert_eq!(failed.map(|attr| attr["attr"].as_str().unwrap()).collect::<BTreeSet<_>>(), wrong);

    let parsed = read_by_junitparser(junit);
    assert_eq!((&parsed["tests"], &parsed["failures"], &parsed["errors"]), (&200.into(), &10.into(), &0.into()));
    let mut cases = BTreeMap::new();
    for suite in parsed["suites"].as_array().unwrap() {
        let all = suite["cases"].as_array().unwrap();
        assert_eq!(suite["tests"], all.len(), "{suite}");
        assert_eq!(suite["failures"], all.iter().filter(|case| case["result"] == "Failure").count(), "{suite}");
        cases.extend(all.iter().map(|case| (case["name"].as_str().unwrap(), case)));
    }
    let names: BTreeSet<&str> = attrs.iter().map(|attr| attr["attr"].as_str().unwrap()).collect();
    assert_eq!(cases.keys().copied().collect::<BTreeSet<_>>(), names);
    let told = commands(&log(&ran));
    for (attr, at) in WRONG {
        let case = cases[attr];
        assert_eq!(
            (&case["result"], case["classname"].as_str()),
            (&"Failure".into(), attr.split('.').next()),
            "{case}"
        );
        let (file, line) = ("flake.nix".to_owned(), line(at));
        let found = case["file"].as_str().zip(case["line"].as_str()).map(|(file, line)| (file.into(), line.into()));
        assert_eq!(found, Some((file.clone(), line.clone())), "{case}");
        let document = attrs.iter().find(|known| known["attr"] == attr).unwrap();
        assert_eq!(case["type"], document["error"]["class"]);
        let position = document["error"]["position"].as_str().unwrap();
        assert!(position == format!("{file}:{line}") || position.starts_with(&format!("{file}:{line}:")), "{document}");
        let here = |c: &&runner::Command| c.property("file") == Some(&file) && c.property("line") == Some(&line);
        assert_eq!(told.iter().filter(here).count(), 1, "{attr}: {told:#?}");
        assert!(fs::read_to_string(&page).unwrap().contains(&format!("| {file}:{line} |")), "{attr}");
    }
    assert_eq!(told.iter().filter(|command| command.name == "error").count(), 10, "{told:#?}");
    assert!(cases["checks.x86_64-linux.exits"]["out"].as_str().unwrap().contains("the log says why"));

    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("what others wrote\n### drover check: "), "{page}");
    assert_eq!(page.lines().filter(|line| line.starts_with("| ✗ |")).count(), 10, "{page}");
    assert!(
        page.contains(&format!("flake.nix:{}", line("throw \"p1\""))) && page.contains("the log says why"),
        "{page}"
    );

    // What only builds finds is another exit code.
    let ran = site.exits(1, &["check", "--only", "checks.*.exits", "--only", "checks.*.no-output"]);
    assert!(ran.stderr.contains("exits") && ran.stderr.contains("no-output"), "{}", ran.stderr);
}

/// A build that fails is to be looked for where its derivation is defined, or else where its attr is written.
#[test]
fn a_failed_build_has_a_place() {
    const FLAKE: &str = r#"{ outputs = { self }: let
  drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "exit 1" ]; } // more);
  base = drv "base" { };
in {
  packages.x86_64-linux = {
    own = drv "own" { };
    above = drv "above" { inherit base; };
    beside = drv "beside" { inherit base; };
    elsewhere = drv "elsewhere" { } // { meta.position = "${self}/pkgs/elsewhere.nix:7"; };
    foreign = drv "foreign" { } // { meta.position = "/far/away.nix:7"; };
  };
}; }
"#;
    let line = |at: &str| FLAKE.lines().position(|line| line.contains(at)).unwrap() + 1;
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), FLAKE);
        let ran = step(&site, &GITHUB, &["run", "--json"]);
        ran.expect(1);
        let document = ran.json();
        for attr in document["attrs"].as_array().unwrap() {
            let wanted = match attr["name"].as_str().unwrap() {
                "elsewhere" => "pkgs/elsewhere.nix:7".to_owned(),
                name => format!("flake.nix:{}:5", line(&format!("    {name} ="))),
            };
            assert_eq!(attr["error"]["position"], wanted, "{attr}");
        }
        let told = commands(&log(&ran));
        let place =
            |c: &runner::Command| (c.property("file").unwrap().to_owned(), c.property("line").unwrap().to_owned());
        let mut places: Vec<_> = told.iter().filter(|c| c.name == "error").map(place).collect();
        places.sort();
        let at = |name: &str| ("flake.nix".to_owned(), line(name).to_string());
        // What two attrs die of is told at the first of them.
        let mut wanted =
            [at("own ="), at("above ="), at("foreign ="), ("pkgs/elsewhere.nix".to_owned(), "7".to_owned())];
        wanted.sort();
        assert_eq!(places, wanted, "{told:#?}");
    });
}

/// What drover's own rules find is said of the place where it is written.
#[test]
fn a_finding_has_a_place() {
    const FLAKE: &str = r#"{ outputs = { self }: {
  overlays.wrong = 7;
  apps.x86_64-linux.wrong = { type = "app"; program = "/bin/sh"; };
  homeConfigurations.wrong = { };
  templates.wrong = { path = ./.; };
}; }
"#;
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), FLAKE);
        let ran = step(&site, &GITHUB, &["check", "--json"]);
        ran.expect(3);
        let told = commands(&log(&ran));
        for at in ["overlays.wrong", "apps.x86_64-linux.wrong", "homeConfigurations.wrong", "templates.wrong"] {
            let line = FLAKE.lines().position(|line| line.contains(at)).unwrap() + 1;
            let document = ran.json();
            let attr = document["attrs"].as_array().unwrap().iter().find(|attr| attr["attr"] == at).unwrap();
            let said = if attr["error"].is_null() { &attr["finding"] } else { &attr["error"] };
            let position = said["position"].as_str().unwrap_or_else(|| panic!("{attr}"));
            assert!(position.starts_with(&format!("flake.nix:{line}:")), "{attr}");
            let line = line.to_string();
            assert!(told.iter().any(|c| c.property("line") == Some(&line)), "{at}: {told:#?}");
        }
        // What comes before there is a run is one remark.
        for args in [&["check", "--no-such-flag"][..], &["check", "--only", "["]] {
            let ran = step(&site, &GITHUB, args);
            ran.expect(2);
            let told = commands(&log(&ran));
            assert_eq!(told.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["error"], "{}", ran.stderr);
            let ran = step(&site, &[("GITLAB_CI", "true")], args);
            assert_eq!(commands(&log(ran.expect(2))), []);
        }
    });
}

/// GitHub shows nothing of a page over 1 MiB.
#[test]
fn a_page_keeps_to_its_room() {
    let site = Site::of(Lab::plain(&newest()), &two_hundred());
    let written = |before: usize| {
        let page = site.lab.write("page.md", &"x".repeat(before));
        let vars = [GITHUB[0], ("GITHUB_STEP_SUMMARY", page.to_str().unwrap())];
        step(&site, &vars, &["check", "--no-build"]).expect(3);
        let text = fs::read_to_string(page).unwrap();
        assert!(text.len() <= 1 << 20, "{}", text.len());
        text[before..].to_owned()
    };
    assert!(written(0).contains("| ✗ |"));
    let short = written((1 << 20) - 1000);
    assert!(short.contains("### drover check") && short.contains("left out"), "{short}");
    assert_eq!(written((1 << 20) - 10), "");
}

/// The author of a pull request from a fork may have written drover.toml.
#[test]
fn in_the_pull_request_of_a_fork_the_config_is_that_of_the_target() {
    const FLAKE: &str = r#"{ outputs = _: let
  drv = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out" ]; };
in { packages.x86_64-linux = { one = drv "one"; two = drv "two"; }; }; }
"#;
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let key = site.key("acme-1");
    let cache = |name: &str| {
        format!(
            "[cache.{name}]\nurl = \"file://{}?secret-key={}\"\npush = true\n",
            site.lab.path(name).display(),
            key.secret.display()
        )
    };
    fs::write(site.flake.join("drover.toml"), cache("ours")).unwrap();
    commit_as_origin(&site.lab, &site.flake);
    let pwned = site.lab.path("pwned");
    let theirs = format!(
        "[attrs]\nexclude = [\"two\"]\n{}[notify.x]\ncommand = [\"touch\", \"{}\"]\non = [\"failure\", \"recovery\", \"always\"]\n",
        cache("theirs"),
        pwned.display()
    );
    site.edit("drover.toml", &theirs.replace(", \"always\"", ""));
    let fork = [
        GITHUB[0],
        ("CI", "true"),
        ("GITHUB_EVENT_NAME", "pull_request"),
        ("GITHUB_REPOSITORY", "acme/infra"),
        ("GITHUB_BASE_REF", "main"),
        ("GITHUB_REF", "refs/pull/8/merge"),
    ];
    let output = site.lab.write("output", "");
    let vars = [&fork[..], &[("GITHUB_OUTPUT", output.to_str().unwrap())]].concat();
    let ran = step(&site, &vars, &["run", "--json", "--no-base"]);
    let document = ran.expect(0).json();
    assert_eq!(document["attrs"].as_array().unwrap().len(), 1, "{document:#}");
    assert_eq!(ran.stderr.matches("of a fork").count(), 1, "one line: {}", ran.stderr);
    assert!(ran.stderr.contains("only [attrs] counts, and else that of main"), "{}", ran.stderr);
    assert_eq!(narinfos(&site.lab.path("ours")).len(), 1);
    assert!(!site.lab.path("theirs").exists() && !pwned.exists());
    // Later steps learn how it went.
    let told = fs::read_to_string(&output).unwrap();
    let run = document["run"].as_str().unwrap();
    assert_eq!(told, format!("run={run}\nexit=0\nbuilt=1\nfailed=0\n"));

    // Where that file is not at hand, nothing takes its place.
    let refs = ["update-ref", "-d", "refs/remotes/origin/main"];
    assert!(site.lab.program("git").current_dir(&site.flake).args(refs).status().unwrap().success());
    let ran = step(&site, &fork, &["run", "--no-base"]);
    ran.expect(0);
    assert!(ran.stderr.contains("is not in this clone") && ran.stderr.contains("fetch-depth: 0"), "{}", ran.stderr);
    assert!(!site.lab.path("theirs").exists());

    // For those who may write to the repository it is theirs.
    let ran = step(&site, &GITHUB, &["run", "--no-base"]);
    assert!(!ran.expect(0).stderr.contains("of a fork"), "{}", ran.stderr);
    assert!(site.lab.path("theirs").exists());
}

/// A forge knows files by the root of the repository.
#[test]
fn places_are_those_of_the_repository() {
    let lab = Lab::plain(&newest());
    let text = "{ outputs = _: { packages.x86_64-linux.broken = throw \"no\"; }; }";
    lab.write("repo/sub/flake.nix", text);
    lab.write("repo/README", "");
    let repo = lab.work().join("repo");
    commit(&lab, &repo);
    let site = Site { lab, flake: repo.join("sub") };
    for reference in [".", "path:."] {
        let ran = step(&site, &GITHUB, &["check", reference]);
        let told = commands(&log(ran.expect(3)));
        assert_eq!(told.first().and_then(|command| command.property("file")), Some("sub/flake.nix"), "{told:?}");
    }
}
