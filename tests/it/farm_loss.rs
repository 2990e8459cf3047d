//! Builders that go away: what was there is built elsewhere, or there again, and a run ends all the same.

use crate::support::farm_lab::{BuilderSpec, Kind};
use crate::support::farm_site::{FarmSite, spec};
use crate::support::fault_proxy::{Fault, Towards};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Site, classes, finish, statuses};
use crate::support::sshd::{descendants, is_named, signal};

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

/// `large` can be built by both builders; `user`, which needs it, and `first` by the second alone.
const LARGE: &str = r#"{
  outputs = { self }:
    let
      build = name: script: more: derivation ({
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [ "-c" script ];
      } // more);
      doubled = "s=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do s=$s$s; done";
      large = build "large" "/bin/sleep 2; ${doubled}; echo $s > $out" { };
      first = build "first" "/bin/sleep 4; echo > $out" { requiredSystemFeatures = [ "second" ]; };
    in
    {
      packages.x86_64-linux = {
        inherit large;
        user = build "user" "read -n 16 word < $large; echo $word > $out" {
          inherit large first;
          requiredSystemFeatures = [ "second" ];
        };
      };
    };
}
"#;

#[test]
fn what_is_made_again_while_it_is_on_its_way_home_comes_home_from_there() {
    let nix = newest();
    let faster = BuilderSpec { speed: 4.0, ..spec(Kind::Forwarded, &nix).behind_proxy() };
    let second = BuilderSpec { features: Some(vec!["second".to_owned()]), ..spec(Kind::Forwarded, &nix) };
    let farm = FarmSite::new(Site::of(Lab::chroot(&nix), LARGE), &nix, vec![faster, second]);
    // In the middle of the 16 MiB that go home.
    farm.farm.builders[0].proxy().after(Towards::Client, 2 << 20, Fault::Stall);
    let running = farm.start(&["--builder-wait", "1"]);
    farm.wait_for("results_returning", 1);
    farm.wait_for("attempt_started", 3);
    // The local store hears nothing of it before the second builder makes it again.
    let below = descendants(running.pid()).into_iter();
    let local: Vec<u32> = below.filter(|pid| is_named(*pid, "nix-daemon")).collect();
    local.iter().for_each(|pid| signal(*pid, "STOP"));
    farm.farm.builders[0].proxy().cut();
    farm.wait_for("attempt_building", 3);
    local.iter().for_each(|pid| signal(*pid, "CONT"));
    let ran = running.wait();
    ran.expect(0);
    assert_eq!(statuses(&ran.json()).into_values().collect::<Vec<_>>(), ["built", "built"]);
    let events = farm.site.events();
    events.expect_each_once();
    assert!(!local.is_empty());
    assert_eq!(events.of("results_returned").iter().filter(|event| !event["failure"].is_null()).count(), 1);
    let made = events.of("attempt_ended").into_iter().filter(|event| event["end"] == "built").count();
    assert_eq!(made, 4, "first and user once, large twice");
}
