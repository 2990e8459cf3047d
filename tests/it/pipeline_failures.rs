//! What goes wrong in a run: every failure is named once, by its class; the rest is built and pushed all the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Site, classes, finish, narinfos, statuses, strings};

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

#[test]
fn every_failure_is_named_once_and_the_rest_is_built_and_pushed() {
    each_nix(|nix| {
        let site = Site::new(Lab::plain(nix), "broken");
        let key = site.key("broken-1");
        let url = site.cache_url(&key);
        let ran = site.exits(3, &["run", "--push-to", &url]);
        let document = site.exits(0, &["report", "--format", "json"]).json();
        assert_eq!(document["exit"], 3);

        let eval = [
            "throws",
            "aborts",
            "asserts",
            "missing-attribute",
            "type-error",
            "infinite-recursion",
            "too-many-calls",
            "stack-overflow",
            "syntax-error",
            "import-from-failing-derivation",
        ];
        let mut wanted: BTreeMap<String, String> = eval
            .map(|name| (format!("nixosConfigurations.{name}"), "eval".to_owned()))
            .into_iter()
            .chain(
                ["shares-failure-1", "shares-failure-2"].map(|n| (format!("nixosConfigurations.{n}"), "build".into())),
            )
            .collect();
        for (name, class) in [
            ("exits-2", "build"),
            ("dies-of-signal", "signal"),
            ("makes-no-output", "no_output"),
            ("lacks-an-output", "no_output"),
            ("hash-mismatch", "hash_mismatch"),
            ("forbidden-reference", "disallowed_reference"),
            ("dependency-fails", "build"),
            ("needs-feature", "no_builder"),
        ] {
            wanted.insert(format!("packages.x86_64-linux.{name}"), class.to_owned());
        }
        assert_eq!(classes(&document), wanted);
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
        assert_eq!(pushed, ["good-1.0", "nixos-system-good", "nixos-system-imported"].into());

        // Who dies of the same drv is one group, and that drv is its name.
        let group =
            "FAILED  2 hosts, 1 package: shares-failure-1 shares-failure-2 dependency-fails\n  shared-library-1.0 ";
        assert_eq!(ran.stderr.matches(group).count(), 1, "{}", ran.stderr);
        for attr in wanted.keys().filter(|attr| !attr.contains("shares-failure") && !attr.ends_with("dependency-fails"))
        {
            let name = attr.rsplit('.').next().unwrap();
            let heads = [format!("FAILED  1 host: {name}\n"), format!("FAILED  1 package: {name}\n")];
            assert_eq!(heads.iter().map(|head| ran.stderr.matches(head).count()).sum::<usize>(), 1, "{name}");
        }

        // The log as it was written, byte by byte.
        let log = site.exits(0, &["log", "exits-2"]).stdout;
        let text = b"compiling part 27\ncaf\xe9.c: 3\xb5s\nerror: SSL modules require the OpenSSL library\nmake: *** [all] Error 2\n";
        assert!(log.ends_with(text), "{}", String::from_utf8_lossy(&log));
        assert_eq!(log.iter().filter(|byte| **byte == b'\n').count(), 30);
        assert_eq!(site.exits(0, &["log", "exits-2-1.0"]).stdout, log);

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
        let both = ["--timeout", "2", "--max-silent-time", "1", silent, talks];
        assert_eq!(run(&both), [format!("{silent} silent"), format!("{talks} timeout")]);
        site.expect_no_process(std::time::Duration::from_secs(1));
    });
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
