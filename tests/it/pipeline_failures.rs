//! What goes wrong in a run: every failure is named once, by its class; the rest is built and pushed all the same.
#![allow(
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "says what is not tested, and asks whether it is to be kept"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Ran, Site, classes, finish, narinfos, statuses, strings};

/// A flake of packages that fail or work as their scripts say; `slow` waits for a moment first.
fn packages(scripts: &[(&str, &str)]) -> String {
    let package = |(name, script): &(&str, &str)| {
        format!(
            "{name} = derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
             args = [ \"-c\" ''\nset -e\n{script}\n'' ]; }};\n"
        )
    };
    let packages: String = scripts.iter().map(package).collect();
    format!("{{ outputs = {{ self }}: {{ packages.x86_64-linux = rec {{ {packages} }}; }}; }}")
}

/// What fails of the fixture `broken`: the attr, the class of its failure, and the drv that is to blame.
const BROKEN: [(&str, &str, &str); 21] = [
    ("nixosConfigurations.throws", "eval", ""),
    ("nixosConfigurations.aborts", "eval", ""),
    ("nixosConfigurations.asserts", "eval", ""),
    ("nixosConfigurations.missing-attribute", "eval", ""),
    ("nixosConfigurations.type-error", "eval", ""),
    ("nixosConfigurations.infinite-recursion", "eval", ""),
    ("nixosConfigurations.too-many-calls", "eval", ""),
    ("nixosConfigurations.stack-overflow", "eval", ""),
    ("nixosConfigurations.out-of-memory", "oom", ""),
    ("nixosConfigurations.syntax-error", "eval", ""),
    ("nixosConfigurations.import-from-failing-derivation", "build", "shared-library-1.0"),
    ("nixosConfigurations.shares-failure-1", "build", "shared-library-1.0"),
    ("nixosConfigurations.shares-failure-2", "build", "shared-library-1.0"),
    ("packages.x86_64-linux.exits-2", "build", "exits-2-1.0"),
    ("packages.x86_64-linux.dies-of-signal", "signal", "dies-of-signal-1.0"),
    ("packages.x86_64-linux.makes-no-output", "no_output", "makes-no-output-1.0"),
    ("packages.x86_64-linux.lacks-an-output", "no_output", "lacks-an-output-1.0"),
    ("packages.x86_64-linux.hash-mismatch", "hash_mismatch", "hash-mismatch.txt"),
    ("packages.x86_64-linux.forbidden-reference", "disallowed_reference", "forbidden-reference-1.0"),
    ("packages.x86_64-linux.dependency-fails", "build", "shared-library-1.0"),
    ("packages.x86_64-linux.needs-feature", "no_builder", "needs-feature-1.0"),
];

/// Attr, class and name of the root drv of what failed.
fn failures(document: &serde_json::Value) -> BTreeSet<(String, String, String)> {
    let failed = document["attrs"].as_array().unwrap().iter().filter(|attr| !attr["error"].is_null());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let root = |attr: &serde_json::Value| {
        let path = text(&attr["error"]["root_drv"]);
        path.rsplit('/').next().and_then(|base| base.get(33..)).unwrap_or("").trim_end_matches(".drv").to_owned()
    };
    failed.map(|attr| (text(&attr["attr"]), text(&attr["error"]["class"]), root(attr))).collect()
}

/// Attempts of the last run that failed.
fn failed_attempts(site: &Site) -> usize {
    site.events().of("attempt_ended").into_iter().filter(|event| event["end"] == "failed").count()
}

#[test]
fn every_failure_is_named_once_and_the_rest_is_built_and_pushed() {
    each_nix(|nix| {
        let site = Site::new(Lab::plain(nix), "broken");
        // The screen names them, and machines differ.
        site.lab.configure("system-features = big-parallel\nextra-platforms =");
        let key = site.key("broken-1");
        let url = site.cache_url(&key);
        let ran = site.exits(3, &["run", "--push-to", &url]);
        let document = site.exits(0, &["report", "--format", "json"]).json();
        assert_eq!(document["exit"], 3);

        let table = BROKEN.map(|(attr, class, root)| (attr.to_owned(), class.to_owned(), root.to_owned()));
        assert_eq!(failures(&document), table.clone().into());
        let wanted: BTreeMap<String, String> = table.into_iter().map(|(attr, class, _)| (attr, class)).collect();
        closing_screens(&site);
        let fine: BTreeSet<String> = statuses(&document)
            .into_iter()
            .filter(|(attr, status)| {
                let failed = wanted.contains_key(attr);
                assert_eq!(failed, status == "failed" || status == "eval_failed", "{attr} {status}");
                !failed
            })
            .map(|(attr, status)| format!("{attr} {status}"))
            .collect();
        assert_eq!(
            fine,
            ["nixosConfigurations.good", "nixosConfigurations.import-from-derivation", "packages.x86_64-linux.good"]
                .map(|attr| format!("{attr} built"))
                .into()
        );
        let pushed = narinfos(&site.cache());
        let pushed: BTreeSet<&str> = pushed.keys().map(|name| &name[33..]).collect();
        // Also what one of them imports: it was built in this run.
        assert_eq!(pushed, ["good-1.0", "name.nix", "nixos-system-good", "nixos-system-imported"].into());

        // Who dies of the same drv is one group, and that drv is its name.
        let group = "FAILED  3 hosts, 1 package: import-from-failing-derivation shares-failure-1 shares-failure-2 \
                     dependency-fails\n  shared-library-1.0 ";
        assert_eq!(ran.stderr.matches(group).count(), 1, "{}", ran.stderr);
        let shared = |attr: &String| {
            ["shares-failure", "dependency-fails", "import-from-failing"].iter().any(|name| attr.contains(name))
        };
        for attr in wanted.keys().filter(|attr| !shared(attr)) {
            let name = attr.rsplit('.').next().unwrap();
            let heads = [
                format!("FAILED  1 host: {name}\n"),
                format!("FAILED  1 package: {name}\n"),
                format!("\n  1 package needs it: {name} ("),
            ];
            assert_eq!(heads.iter().map(|head| ran.stderr.matches(head).count()).sum::<usize>(), 1, "{name}");
        }

        // The log as it was written, byte by byte.
        let log = site.exits(0, &["log", "exits-2"]).stdout;
        let text = b"compiling part 27\ncaf\xe9.c: 3\xb5s\nerror: SSL modules require the OpenSSL library\nmake: *** [all] Error 2\n";
        assert!(log.ends_with(text), "{}", String::from_utf8_lossy(&log));
        assert_eq!(log.iter().filter(|byte| **byte == b'\n').count(), 30);
        assert_eq!(site.exits(0, &["log", "exits-2-1.0"]).stdout, log);
        // A builder that printed nothing has a log too: an empty one.
        for what in ["good-1.0", "forbidden-reference"] {
            let nothing = site.exits(0, &["log", what]);
            assert!(
                nothing.stdout.is_empty() && nothing.stderr.contains("1.0 printed nothing in run "),
                "{}",
                nothing.stderr
            );
        }

        // No more than what failed, and nothing that did not.
        let again = site.exits(3, &["run", "--failed", "--json"]).json();
        assert_eq!(classes(&again), wanted);
        assert_eq!(statuses(&again).len(), wanted.len());

        // Without what cannot be evaluated it is 1, and without what fails 0.
        site.exits(1, &["run", "--kind", "packages"]);
        site.exits(0, &["run", "packages.x86_64-linux.good"]);
        let none = site.exits(2, &["run", "--failed"]);
        assert!(none.stderr.contains("nothing failed in the last run"), "{}", none.stderr);
    });
}

/// The last screen of the run, as `drover report` prints it, the same with every Nix but for the words of Nix itself.
fn closing_screens(site: &Site) {
    let screen = |columns: &str| {
        let args = ["report"];
        let mut command = site.command(&args);
        command.env("COLUMNS", columns);
        let text = finish(command, &args).expect(0).out();
        // Where the time went is not the same twice.
        format!("== {columns} columns\n{}", &text[text.find("FAILED").unwrap()..])
    };
    let text = format!("{}\n{}", screen("100"), screen("60")).replace(&site.lab.store_dir(), "/nix/store");
    let text = text.replace(&site.lab.work().display().to_string(), "/home/me");
    let (major, minor) = site.lab.nix.release();
    let name = format!("broken_{major}_{minor}");
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/snapshots/{name}.snap")).exists();
    if !known && std::env::var("INSTA_UPDATE").is_err() {
        eprintln!(
            "no screen of Nix {major}.{minor} is known: its words are not looked at; INSTA_UPDATE=always keeps them"
        );
        return;
    }
    insta::with_settings!({
        omit_expression => true,
        prepend_module_to_snapshot => false,
        filters => [
            (r"after [0-9.]+s", "after 0.1s"),
            (r"[0-9a-z]{32}-", "HASH-"),
            (r"(when it\s+held) [0-9]+ MiB", "$1 500 MiB"),
        ],
    }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn a_run_stops_at_the_failure_that_it_was_told_to_stop_at() {
    let site = Site::of(
        Lab::plain(&newest()),
        &packages(&[
            ("a-fails", "exit 1"),
            ("b-fails", "/bin/sleep 0.2; exit 1"),
            ("c-fails", "/bin/sleep 0.4; exit 1"),
            ("d-works", "/bin/sleep 0.5; echo > $out"),
            ("e-works", "/bin/sleep 0.6; echo > $out"),
        ]),
    );
    let run = |flags: &[&str]| {
        let args = [&["run", "--json", "-j", "1"], flags].concat();
        let document = site.exits(1, &args).json();
        let ended: Vec<String> = statuses(&document).into_values().collect();
        let count = |status: &str| ended.iter().filter(|ended| *ended == status).count();
        (count("failed"), count("skipped"))
    };
    // One after the other, in whatever order: of the three that fail, those after the last straw are not tried.
    let (failed, skipped) = run(&["--fail-fast"]);
    assert!(failed == 1 && skipped >= 2, "{failed} {skipped}");
    let (failed, skipped) = run(&["--max-failures", "1"]);
    assert!(failed == 1 && skipped >= 2, "{failed} {skipped}");
    let (failed, skipped) = run(&["--max-failures", "2"]);
    assert!(failed == 2 && skipped >= 1, "{failed} {skipped}");
    assert_eq!(run(&["--keep-going"]), (3, 0));
}

#[test]
fn builds_without_end_are_ended() {
    each_nix(|nix| {
        let site = Site::new(Lab::chroot(nix), "broken");
        let run = |flags: &[&str]| {
            // These builds never end by themselves, so that the run ends at all is the point.
            let ran = site.exits(1, &[&["run", "--json"], flags].concat());
            classes(&ran.json()).into_iter().map(|(attr, class)| format!("{attr} {class}")).collect::<Vec<_>>()
        };
        let (silent, talks) = ("legacyPackages.x86_64-linux.is-silent", "legacyPackages.x86_64-linux.talks-forever");
        assert_eq!(run(&["--timeout", "1", silent]), [format!("{silent} timeout")]);
        let both = ["--timeout", "5", "--max-silent-time", "2", silent, talks];
        assert_eq!(run(&both), [format!("{silent} silent"), format!("{talks} timeout")]);
        site.expect_no_process(std::time::Duration::from_secs(1));
    });
}

#[test]
fn a_build_that_says_too_much_is_stopped() {
    each_nix(|nix| {
        let site = Site::new(Lab::plain(nix), "broken");
        let attr = "legacyPackages.x86_64-linux.talks-forever";
        let stopped = || {
            let document = site.exits(1, &["run", "--json", attr, "good"]).json();
            assert_eq!(classes(&document), [(attr.to_owned(), "log_limit".to_owned())].into());
            // It is not tried again.
            assert_eq!(failed_attempts(&site), 1);
            site.expect_no_process(std::time::Duration::from_secs(1));
            assert!(site.exits(0, &["log", "talks-forever"]).out().starts_with("still compiling\n"));
        };
        // By drover's own limit, then by Nix's.
        site.edit("drover.toml", "[build]\nmax-log-size = 100000\n");
        stopped();
        site.edit("drover.toml", "");
        site.lab.configure("max-build-log-size = 100000");
        stopped();
    });
}

/// Runs drover where this directory is a disk of its own, of this size, that only drover and its children see. What it
/// holds is copied into `work/disk` at the end. `None`, with the reason printed, where this user cannot mount.
fn on_small_disk(site: &Site, dir: &Path, size: &str, args: &[&str]) -> Option<Ran> {
    let mut probe = site.lab.program("unshare");
    if !probe.args(["--mount", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("-- NOT RUN: this user can mount nothing");
        return None;
    }
    fs::create_dir_all(dir).unwrap();
    let drover = site.command(args);
    let mut command = site.lab.program("unshare");
    command.current_dir(&site.flake).args(["--mount", "--propagation", "private", "/bin/sh", "-c"]);
    let script = format!(
        "dir=$0 code=0; mount -t tmpfs -o size={size} tmpfs \"$dir\" && \"$@\" || code=$?; cp -r \"$dir\" {}; exit $code",
        site.lab.work().join("disk").display()
    );
    command.arg(script).arg(dir).arg(drover.get_program()).args(drover.get_args());
    for (name, value) in drover.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Some(finish(command, args))
}

#[test]
fn a_full_disk_is_nobodys_failure() {
    each_nix(|nix| {
        let site = Site::new(Lab::plain(nix), "broken");
        let attr = "legacyPackages.x86_64-linux.fills-the-disk";
        let args = ["run", "--json", "--retries", "1", attr];
        let Some(ran) = on_small_disk(&site, &site.lab.path("store"), "20m", &args) else { return };
        let document = ran.expect(4).json();
        assert_eq!(classes(&document), [(attr.to_owned(), "disk_full".to_owned())].into());
        // Somebody may have made room meanwhile.
        assert_eq!(failed_attempts(&site), 2);
    });
}

#[test]
fn a_cache_on_a_full_disk_gets_what_it_has_room_for() {
    let site = Site::of(
        Lab::plain(&newest()),
        &packages(&[("large", "/usr/bin/head -c 4000000 /dev/zero > $out"), ("small", "echo 1 > $out")]),
    );
    let cache = site.cache();
    let url = format!("{}&compression=none", site.cache_url(&site.key("full-1")));
    let Some(ran) = on_small_disk(&site, &cache, "1m", &["run", "--push-to", &url]) else { return };
    ran.expect(5);
    assert!(ran.stderr.contains("complete in the cache:  small"), "{}", ran.stderr);
    let pushed: Vec<String> = narinfos(&site.lab.work().join("disk")).into_keys().collect();
    assert!(pushed.len() == 1 && pushed[0].ends_with("-small"), "{pushed:?}");
}

#[test]
fn a_record_on_a_full_disk_costs_the_record() {
    let names: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
    let site = Site::of(
        Lab::plain(&newest()),
        &packages(&names.iter().map(|name| (name.as_str(), "echo a line; echo 1 > $out")).collect::<Vec<_>>()),
    );
    let state = site.lab.path("small");
    let args = ["run", "--json", "--state-dir", &state.display().to_string()];
    let Some(ran) = on_small_disk(&site, &state, "32k", &args) else { return };
    let document = ran.expect(0).json();
    assert!(statuses(&document).values().all(|status| status == "built"));
    // Neither its record nor its numbers in history.
    assert_eq!(document["counts"]["warnings"], 2, "{}", ran.stderr);
    // What there is of it can be read.
    let disk = site.lab.work().join("disk").display().to_string();
    let report = site.exits(0, &["report", "--state-dir", &disk]);
    assert!(report.out().contains("cut off"), "{}", report.out());
}

#[test]
fn what_nobody_can_build_fails_before_anything_is_built() {
    let site = Site::new(Lab::plain(&newest()), "broken");
    let document = site.exits(4, &["run", "--json", "needs-feature"]).json();
    assert_eq!(classes(&document)["packages.x86_64-linux.needs-feature"], "no_builder");
    assert!(site.events().of("attempt_started").is_empty());

    // Together with something that can be built: known before that has begun.
    site.exits(4, &["run", "needs-feature", "packages.x86_64-linux.good"]);
    let events = site.events();
    let place = |what: &str| events.0.iter().position(|event| event["event"] == what).unwrap();
    assert!(place("attempt_started") > 0 && events.built() == ["good-1.0"]);

    // The same for a system that nobody has. Where nobody asks for it by name, it is left out.
    let ran = site.exits(4, &["run", "--json", "needs-system", "packages.x86_64-linux.good"]);
    assert_eq!(
        failures(&ran.json()),
        [("packages.riscv64-linux.needs-system".into(), "no_builder".into(), "needs-system-1.0".into())].into()
    );
    assert!(site.events().of("attempt_started").is_empty(), "what is valid is not built again");

    // A system that is not left out, since it was asked for by name.
    let site = Site::fleet(Lab::plain(&newest()));
    let ran = site.exits(4, &["run", "--json", "mac1", "packages.aarch64-linux.one", "chain"]);
    let document = ran.json();
    assert_eq!(
        classes(&document),
        [("darwinConfigurations.mac1", "no_builder"), ("packages.aarch64-linux.one", "no_builder")]
            .map(|(attr, class)| (attr.to_owned(), class.to_owned()))
            .into()
    );
    assert_eq!(site.events().built().len(), 4, "the chain is built");
    assert_eq!(strings(&document["drvs"]["build"]).len(), 6);
}

#[test]
fn what_failed_is_tried_again_from_anywhere() {
    let site = Site::of(Lab::plain(&newest()), &packages(&[("works", "echo 1 > $out"), ("fails", "exit 1")]));
    // Beside the flake, so that it is read wherever drover is started.
    site.edit("drover.toml", "[attrs]\nexclude = [\"works\"]\n");
    let elsewhere = |args: &[&str]| {
        let mut command = site.command(args);
        command.current_dir(site.lab.work());
        finish(command, args)
    };
    let whole = format!("{}", site.flake.display());
    elsewhere(&["run", &whole]).expect(1);
    // A plan is no run.
    elsewhere(&["plan", &whole]).expect(0);
    let again = elsewhere(&["run", "--failed", "--json"]);
    let document = again.expect(1).json();
    assert_eq!(
        statuses(&document).into_iter().collect::<Vec<_>>(),
        [("packages.x86_64-linux.fails".to_owned(), "failed".to_owned())]
    );
    for reference in [format!("git+file://{whole}"), format!("path:{whole}")] {
        let document = elsewhere(&["plan", "--json", &reference]).expect(0).json();
        assert!(
            !statuses(&document).contains_key("packages.x86_64-linux.works"),
            "drover.toml is not read: {reference}"
        );
    }
}
