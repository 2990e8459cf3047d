//! Builders that go away: what was there is built elsewhere, or there again, and a run ends all the same.

use std::process::Command;

use crate::support::farm_lab::{BuilderSpec, FarmLab, Kind};
use crate::support::farm_site::{FarmSite, spec};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Site, classes, finish, start, statuses, wait_until};

struct Farm {
    site: Site,
    lab: FarmLab,
}

impl Farm {
    /// A fleet that takes its time.
    fn slow(nix: &Nix, kinds: &[Kind]) -> Self {
        let system = Some("x86_64-linux".to_owned());
        let spec = |kind: &Kind| BuilderSpec { system: system.clone(), ..BuilderSpec::new(*kind, nix).behind_proxy() };
        let specs = kinds.iter().map(spec).collect();
        Self { site: Site::fleet_at(Lab::chroot(nix), 30), lab: FarmLab::new(nix, specs) }
    }

    /// Waits until so many builds have begun.
    fn wait_for_builds(&self, count: usize) {
        let runs = self.site.state().join("runs");
        wait_until("some builds", || {
            let run = std::fs::read_dir(&runs).ok()?.next()?.ok()?.path();
            let text = std::fs::read_to_string(run.join("events.jsonl")).ok()?;
            (text.matches("attempt_building").count() >= count).then_some(())
        });
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.site.command(args);
        command.args(["--builders", &self.lab.builders_lines()]);
        command.env("NIX_SSHOPTS", self.lab.ssh_opts().join(" "));
        command
    }
}

fn is_whole(document: &serde_json::Value) {
    let statuses = statuses(document);
    assert_eq!(statuses.values().filter(|status| *status == "built").count(), 25, "{statuses:?}");
}

#[test]
fn a_builder_whose_connections_are_cut_comes_back() {
    each_nix(|nix| {
        let farm = Farm::slow(nix, &[Kind::Forwarded, Kind::Stdio]);
        let args = ["run", "--json", "-j", "0"];
        let running = start(farm.command(&args), &args);
        farm.wait_for_builds(12);
        farm.lab.builders[0].proxy().cut();
        farm.lab.builders[0].proxy().heal();
        let ran = running.wait();
        ran.expect(0);
        is_whole(&ran.json());
        let events = farm.site.events();
        assert!(!events.of("builder_suspended").is_empty(), "nobody noticed");
        let ready = events.of("builder_ready").iter().filter(|event| event["builder"] == 1).count();
        assert!(ready > 1, "it was not dialled again");
    });
}

#[test]
fn the_work_of_a_builder_that_stays_away_is_done_by_others() {
    let nix = newest();
    let farm = Farm::slow(&nix, &[Kind::Forwarded, Kind::Forwarded]);
    let args = ["run", "--json", "-j", "0"];
    let running = start(farm.command(&args), &args);
    farm.wait_for_builds(20);
    farm.lab.builders[1].proxy().cut();
    let ran = running.wait();
    ran.expect(0);
    is_whole(&ran.json());
}

#[test]
fn without_a_builder_a_run_ends_after_its_wait() {
    let nix = newest();
    let farm = Farm::slow(&nix, &[Kind::Forwarded]);
    farm.lab.builders[0].proxy().cut();
    let args = ["run", "--json", "-j", "0", "--builder-wait", "2"];
    let ran = finish(farm.command(&args), &args);
    ran.expect(4);
    assert!(classes(&ran.json()).values().any(|class| class == "no_builder"), "{:?}", ran.stderr);
}

/// `below` can be built by the first builder alone at first, and `first` and `top`, which needs both, by the second.
const FOUND: &str = r#"{
  outputs = { self }:
    let
      build = name: more: derivation ({
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [ "-c" "/bin/sleep 1; echo $name > $out" ];
      } // more);
      below = build "below" { };
      first = build "first" { requiredSystemFeatures = [ "second" ]; };
    in
    {
      packages.x86_64-linux = {
        inherit below;
        top = build "top" { requiredSystemFeatures = [ "second" ]; inherit below first; };
      };
    };
}
"#;

#[test]
fn what_was_found_on_a_builder_that_goes_away_is_built_after_all() {
    let nix = newest();
    let with = |features: &[&str]| BuilderSpec {
        features: Some(features.iter().map(|feature| (*feature).to_owned()).collect()),
        ..spec(Kind::Forwarded, &nix)
    };
    let site = Site::of(Lab::chroot(&nix), FOUND);
    let mut farm = FarmSite::new(site, &nix, vec![with(&["first"]), with(&["second"])]);
    // Another coordinator has it built on the first builder, where it stays.
    let other = Site { lab: Lab::chroot(&nix), flake: farm.site.flake.clone() };
    let first = farm.farm.builders_line(0);
    let args = ["run", "below", "-j", "0", "--no-download", "--builders", &first];
    let mut command = other.command(&args);
    command.env("NIX_SSHOPTS", farm.farm.ssh_opts().join(" "));
    finish(command, &args).expect(0);

    let running = farm.start(&["top", "--builder-wait", "1"]);
    farm.wait_for("attempt_building", 1);
    let planned = farm.events_so_far();
    let needed: Vec<&str> = planned.of("drv_needed").iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert!(!needed.contains(&"below"), "it was found: {needed:?}");
    farm.farm.builders[0].kill();
    let ran = running.wait();
    ran.expect(0);
    assert_eq!(statuses(&ran.json())["packages.x86_64-linux.top"], "built");
    let events = farm.site.events();
    events.expect_each_once();
    let built = events.of("drv_ended").into_iter().filter(|event| event["outcome"] == "built");
    let mut built: Vec<String> = built.map(|event| events.drv_name(event)).collect();
    built.sort();
    assert_eq!(built, ["below", "first", "top"]);
}
