//! Builders that go away: what was there is built elsewhere, or there again, and a run ends all the same.

use crate::support::farm_lab::{BuilderSpec, Kind};
use crate::support::farm_site::{FarmSite, spec};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Site, classes, finish, statuses};

/// A fleet that takes its time.
fn slow(nix: &Nix, kinds: &[Kind]) -> FarmSite {
    FarmSite::fleet(nix, 30, kinds.iter().map(|kind| spec(*kind, nix).behind_proxy()).collect())
}

fn is_whole(document: &serde_json::Value) {
    let statuses = statuses(document);
    assert_eq!(statuses.values().filter(|status| *status == "built").count(), 25, "{statuses:?}");
}

#[test]
fn a_builder_whose_connections_are_cut_comes_back() {
    each_nix(|nix| {
        let farm = slow(nix, &[Kind::Forwarded, Kind::Stdio]);
        let running = farm.start(&[]);
        farm.wait_for("attempt_building", 12);
        farm.farm.builders[0].proxy().cut();
        farm.farm.builders[0].proxy().heal();
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
    let farm = slow(&nix, &[Kind::Forwarded, Kind::Forwarded]);
    let running = farm.start(&[]);
    farm.wait_for("attempt_building", 20);
    farm.farm.builders[1].proxy().cut();
    let ran = running.wait();
    ran.expect(0);
    is_whole(&ran.json());
}

#[test]
fn without_a_builder_a_run_ends_after_its_wait() {
    let nix = newest();
    let farm = slow(&nix, &[Kind::Forwarded]);
    farm.farm.builders[0].proxy().cut();
    let args = ["run", "--json", "--builder-wait", "2"];
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
