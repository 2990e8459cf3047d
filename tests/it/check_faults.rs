//! Checks where something is away or somebody wants to stop: a real cache's place without a cache, a real builder that
//! is killed, a signal.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;

use crate::support::farm_lab::Kind;
use crate::support::farm_site::{FarmSite, spec};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Site, classes, finish, statuses, wait_until};

/// A flake of checks, each with its script, and an overlay.
fn flake(checks: &[(&str, &str)]) -> String {
    let check = |(name, script): &(&str, &str)| {
        format!(
            "{name} = derivation {{ name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
             args = [ \"-ec\" \"{script}\" ]; }};\n"
        )
    };
    let checks: String = checks.iter().map(check).collect();
    format!(
        "{{ outputs = {{ self }}: {{ checks.x86_64-linux = {{ {checks} }}; overlays.default = final: prev: {{ }}; }}; }}"
    )
}

fn status(document: &Value, check: &str) -> String {
    statuses(document)[&format!("checks.x86_64-linux.{check}")].clone()
}

#[test]
fn a_cache_that_is_away_fails_no_check() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), &flake(&[("good", "echo > $out"), ("bad", "exit 3")]));
        // Nobody listens there any more.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        site.edit("drover.toml", &format!("[cache.gone]\nurl = \"{url}\"\n"));
        let ran = site.exits(0, &["check", "--json", "--only", "good"]);
        assert_eq!(status(&ran.json(), "good"), "built");
        let warned = ran.stderr.matches(&format!("cache '{url}' gave no answer")).count();
        assert_eq!(warned, 1, "{}", ran.stderr);

        // What is wrong is said all the same.
        let ran = site.exits(1, &["check", "--json"]);
        assert_eq!((status(&ran.json(), "good"), status(&ran.json(), "bad")), ("valid".into(), "failed".into()));
        let ran = site.exits(4, &["check", "--strict-caches"]);
        assert!(ran.stderr.contains(&url), "{}", ran.stderr);
    });
}

#[test]
fn a_builder_that_is_away_fails_no_check_that_another_can_build() {
    let nix = newest();
    let site = Site::of(Lab::chroot(&nix), &flake(&[("one", "echo > $out"), ("two", "echo > $out")]));
    let mut farm = FarmSite::new(site, &nix, vec![spec(Kind::Forwarded, &nix)]);
    farm.farm.builders[0].kill();
    let ran = farm.exits(0, &["check", "--json"]);
    assert_eq!((status(&ran.json(), "one"), status(&ran.json(), "two")), ("built".into(), "built".into()));
    assert!(!farm.site.events().of("builder_suspended").is_empty(), "nobody noticed");

    farm.site.edit("flake.nix", &flake(&[("three", "echo > $out")]));
    let args = ["check", "--json", "--builder-wait", "1"];
    let ran = finish(farm.command(&args), &args);
    ran.expect(4);
    let document = ran.json();
    assert_eq!(classes(&document)["checks.x86_64-linux.three"], "no_builder");
    // It could not be tried; nothing is wrong with the flake as far as anybody knows.
    assert_eq!(statuses(&document)["overlays.default"], "checked");
}

#[test]
fn a_check_that_is_stopped_says_what_it_knows() {
    each_nix(|nix| {
        let checks = [("bad", "exit 3"), ("good", "echo > $out"), ("slow", "/bin/sleep 600")];
        let site = Site::of(Lab::plain(nix), &flake(&checks));
        let running = site.start(&["check", "--json", "-j", "3"]);
        wait_until("only the slow one is left", || {
            let run = site.state().join("runs").read_dir().ok()?.next()?.ok()?.path();
            let text = std::fs::read_to_string(run.join("events.jsonl")).ok()?;
            let building = text.matches("\"event\":\"attempt_building\"").count() == 3;
            (building && text.matches("\"event\":\"drv_ended\"").count() == 2).then_some(())
        });
        running.signal("INT");
        let ran = running.wait();
        ran.expect(130);
        site.expect_no_process(Duration::from_secs(1));
        let document = ran.json();
        for (check, expected) in [("bad", "failed"), ("good", "built"), ("slow", "skipped")] {
            assert_eq!(status(&document, check), expected, "{check}");
        }
        assert!(ran.stderr.contains("FAILED  1 check: bad"), "{}", ran.stderr);
        // The next one goes on where this one was stopped.
        let ran = site.exits(0, &["check", "--json", "--only", "good"]);
        assert_eq!(status(&ran.json(), "good"), "valid");
    });
}
