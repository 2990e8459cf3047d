//! Builders that die, hang, fill up or are not what they seem: every run ends by itself, with every drv built or one
//! precise error, and what is built is what a run without faults builds.
//!
//! `DROVER_TEST_ROUNDS` says how often a builder is killed at a random moment, with each Nix; `DROVER_TEST_SEED` at
//! which.
#![allow(clippy::print_stderr, reason = "cargo shows it for failing tests only")]
#![expect(clippy::disallowed_methods, reason = "a run that is disturbed may take as long as one that is not, twice")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::farm_lab::{BuilderSpec, FarmLab, Kind};
use crate::support::farm_site::{FarmSite, SmallDisk, causes, results, spec, wait_at_most};
use crate::support::fault_proxy::{Fault, Towards};
use crate::support::nix::{Lab, Nix, all, newest};
use crate::support::package_set::random::Random;
use crate::support::site::{Events, Ran, Site, classes, statuses, wait_until};
use crate::support::sshd::keygen;

/// Per cent of the fleet's durations: 1.2 s on its critical path.
const SCALE: u32 = 10;

/// For a machine that does other things besides.
const SLACK: Duration = Duration::from_secs(90);

/// A run of the fleet on two builders to which nothing happens.
struct Undisturbed {
    took: Duration,
    events: usize,
    /// Path and hash of each result.
    results: BTreeMap<String, String>,
}

/// It takes place once for each Nix, however many stories need it.
fn undisturbed(nix: &Nix) -> Arc<Undisturbed> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Undisturbed>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap();
    let run = || {
        let farm = FarmSite::fleet(nix, SCALE, vec![spec(Kind::Forwarded, nix), spec(Kind::Forwarded, nix)]);
        let start = Instant::now();
        let ran = farm.start(&[]).wait();
        ran.expect(0);
        let events = farm.site.events();
        events.expect_each_once();
        assert_eq!(events.failures(), Vec::<String>::new());
        Arc::new(Undisturbed { took: start.elapsed(), events: events.0.len(), results: farm.results(&ran.json()) })
    };
    known.entry(nix.version.clone()).or_insert_with(run).clone()
}

/// Two builders, the first of which something will happen to, and a fleet.
fn fleet(nix: &Nix, victim: BuilderSpec) -> FarmSite {
    FarmSite::fleet(nix, SCALE, vec![victim, spec(Kind::Forwarded, nix)])
}

/// Runs it while something happens; it has to end by itself, `timeouts` (seconds that drover waits before it gives
/// something up) included.
fn disturbed(farm: &mut FarmSite, more: &[&str], timeouts: u64, happens: impl FnOnce(&mut FarmSite)) -> Ran {
    let took = undisturbed(&farm.site.lab.nix).took;
    let running = farm.start(more);
    happens(farm);
    let ran = wait_at_most(running, 2 * took + Duration::from_secs(timeouts) + SLACK);
    farm.site.events().expect_each_once();
    ran
}

/// [`disturbed`], and everything is built nevertheless, as if nothing had happened.
fn survives(farm: &mut FarmSite, timeouts: u64, happens: impl FnOnce(&mut FarmSite)) -> Events {
    let ran = disturbed(farm, &[], timeouts, happens);
    ran.expect(0);
    let (got, wanted) = (farm.results(&ran.json()), undisturbed(&farm.site.lab.nix).results.clone());
    let lacks: Vec<&String> = wanted.keys().filter(|path| !got.contains_key(*path)).collect();
    let statuses: BTreeMap<String, String> = statuses(&ran.json());
    assert!(got == wanted, "lacks {lacks:?}: {statuses:#?}\n{}", ran.stderr);
    farm.site.events()
}

/// Why the first builder was suspended.
fn reasons(events: &Events) -> Vec<String> {
    let first = events.of("builder_suspended").into_iter().filter(|event| event["builder"] == 1);
    first.map(|event| event["failure"]["message"].as_str().unwrap().to_owned()).collect()
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn a_builder_that_dies_at_any_moment_is_done_without() {
    let rounds = number_of("DROVER_TEST_ROUNDS");
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number_of("DROVER_TEST_SEED").unwrap_or(clock.as_nanos() as u64);
    let mut random = Random::new(seed);
    let nixes = if rounds.is_some() { all() } else { vec![newest()] };
    for nix in &nixes {
        for round in 0..rounds.unwrap_or(2) {
            let kind = [Kind::Forwarded, Kind::Stdio][round as usize % 2];
            // No run tells just as much as another; the last moments may not come.
            let moment = 1 + random.below(undisturbed(nix).events * 4 / 5);
            eprintln!("DROVER_TEST_SEED={seed}, round {round}: {kind:?} of Nix {} dies at event {moment}", nix.version);
            let mut farm = fleet(nix, spec(kind, nix));
            survives(&mut farm, 0, |farm| {
                wait_until("the moment", || {
                    let so_far = farm.events_so_far();
                    (so_far.0.len() >= moment || !so_far.of("run_ended").is_empty()).then_some(())
                });
                farm.farm.builders[0].kill();
            });
        }
    }
}

#[test]
fn a_daemon_or_an_sshd_that_is_started_again_is_used_again() {
    let nix = newest();
    type Happens = fn(&mut FarmSite);
    let daemon: Happens = |farm| farm.farm.builders[0].restart_daemon();
    let sshd: Happens = |farm| {
        farm.farm.builders[0].sshd.kill();
        farm.farm.builders[0].sshd.restart();
    };
    for (what, happens) in [("daemon", daemon), ("sshd", sshd)] {
        // The only one, so that there is no way around it.
        let mut farm = FarmSite::fleet(&nix, SCALE, vec![spec(Kind::Forwarded, &nix)]);
        let events = survives(&mut farm, 20, |farm| {
            farm.wait_for("attempt_building", 10);
            happens(farm);
        });
        assert!(events.failures().iter().all(|class| class == "builder_lost"), "{what}: {:?}", events.failures());
    }
}

#[test]
fn a_connection_that_is_cut_while_it_builds_is_made_again() {
    let nix = newest();
    for kind in [Kind::Forwarded, Kind::Stdio] {
        let mut farm = FarmSite::fleet(&nix, SCALE, vec![spec(kind, &nix).behind_proxy()]);
        let events = survives(&mut farm, 20, |farm| {
            farm.wait_for("attempt_building", 10);
            farm.farm.builders[0].proxy().cut();
            farm.wait_for("builder_suspended", 1);
            farm.farm.builders[0].proxy().heal();
        });
        assert!(!reasons(&events).is_empty());
        assert!(events.of("builder_ready").len() >= 3, "it was ready again");
    }
}

/// A flake of two attrs: one has a large source, the other a large result.
fn large(nix: &Nix) -> Site {
    let site = Site::of(
        Lab::chroot(nix),
        r#"{
  outputs = { self }: {
    packages.x86_64-linux = {
      up = derivation {
        name = "up";
        system = "x86_64-linux";
        builder = "/bin/sh";
        source = ./source;
        args = [ "-c" "read -r line < $source; echo $line > $out" ];
      };
      down = derivation {
        name = "down";
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [ "-c" "s=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do s=$s$s; done; echo $s > $out" ];
      };
    };
  };
}
"#,
    );
    site.edit("source", &format!("{}\n", "0123456789abcdef".repeat(1 << 18)));
    site
}

#[test]
fn a_connection_that_is_cut_while_it_carries_paths_is_made_again() {
    let nix = newest();
    let alone = large(&nix);
    let expected = results(&alone.lab, &alone.exits(0, &["run", "--json"]).json());
    assert_eq!(expected.len(), 2);
    for towards in [Towards::Server, Towards::Client] {
        for kind in [Kind::Forwarded, Kind::Stdio] {
            let mut farm = FarmSite::new(large(&nix), &nix, vec![spec(kind, &nix).behind_proxy()]);
            // In the middle of the 4 MiB that go this way.
            farm.farm.builders[0].proxy().after(towards, 2 << 20, Fault::Cut);
            let ran = disturbed(&mut farm, &[], 20, |farm| {
                farm.wait_for("builder_suspended", 1);
                farm.farm.builders[0].proxy().heal();
            });
            ran.expect(0);
            assert_eq!(farm.results(&ran.json()), expected, "{kind:?} {towards:?}");
        }
    }
}

#[test]
fn a_builder_that_accepts_and_never_answers_is_not_waited_for() {
    let nix = newest();
    let mut farm = fleet(&nix, spec(Kind::Forwarded, &nix).behind_proxy());
    farm.farm.builders[0].proxy().stall();
    let events = survives(&mut farm, 5, |_| {});
    assert_eq!(events.failures(), Vec::<String>::new());

    // Alone it is nothing.
    let mut farm = FarmSite::fleet(&nix, SCALE, vec![spec(Kind::Forwarded, &nix).behind_proxy()]);
    farm.farm.builders[0].proxy().stall();
    let ran = disturbed(&mut farm, &["--builder-wait", "1"], 15, |_| {});
    expect_no_builder(&ran, &["b0"]);
    let reasons = reasons(&farm.site.events());
    assert!(reasons.iter().all(|reason| reason.contains("5 s")), "{reasons:?}");
}

/// Every attr that has anything to build failed for want of a builder, and says so in these words.
#[track_caller]
fn expect_no_builder(ran: &Ran, words: &[&str]) {
    assert!(ran.code.is_some_and(|code| code != 0 && code < 100), "{:?}\n{}", ran.code, ran.stderr);
    let document = ran.json();
    let classes: BTreeSet<String> = classes(&document).into_values().collect();
    assert_eq!(classes, ["no_builder".to_owned()].into(), "{document}");
    for cause in causes(&document) {
        assert!(words.iter().all(|word| cause.contains(word)), "{cause}");
    }
}

#[test]
fn a_builder_that_hangs_is_given_up() {
    let nix = newest();
    let mut farm = fleet(&nix, spec(Kind::Forwarded, &nix).behind_proxy());
    let events = survives(&mut farm, 60, |farm| {
        farm.wait_for("drv_ended", 10);
        farm.farm.builders[0].proxy().stall();
    });
    let reasons = reasons(&events);
    // Unless all that was left was the other's.
    if !events.failures().is_empty() {
        assert!(reasons.iter().any(|reason| reason.contains("no answer for")), "{reasons:?}");
    }
}

#[test]
fn a_builder_whose_disk_is_full_says_so_and_others_take_over() {
    let nix = newest();
    let alone = large(&nix);
    let expected = results(&alone.lab, &alone.exits(0, &["run", "--json"]).json());
    // Enough for the store itself.
    let tight = || BuilderSpec { conf: "gc-reserved-space = 0".to_owned(), ..spec(Kind::Stdio, &nix) };
    let small = |farm: &FarmSite| SmallDisk::mount(&farm.farm.builders[0].lab.path("root"), "3m");

    let mut farm = FarmSite::new(large(&nix), &nix, vec![tight()]);
    let Some(disk) = small(&farm) else { return };
    let ran = disturbed(&mut farm, &["--builder-wait", "2"], 30, |_| {});
    assert_ne!(ran.code, Some(0));
    let document = ran.json();
    let found: BTreeSet<String> = classes(&document).into_values().collect();
    assert_eq!(found, ["disk_full".to_owned()].into(), "{document}");
    let says =
        |cause: &String| ["No space left on device", "disk of the store is full"].iter().any(|it| cause.contains(it));
    assert!(causes(&document).iter().all(says), "{document}");
    drop((farm, disk));

    let mut farm = FarmSite::new(large(&nix), &nix, vec![tight(), spec(Kind::Forwarded, &nix)]);
    let Some(disk) = small(&farm) else { return };
    let ran = disturbed(&mut farm, &[], 30, |_| {});
    ran.expect(0);
    assert_eq!(farm.results(&ran.json()), expected);
    drop((farm, disk));
}

#[test]
fn a_builder_that_cannot_start_any_program_is_no_verdict() {
    let nix = newest();
    let mut victim = spec(Kind::Forwarded, &nix);
    victim.conf = "build-users-group = drover-test-nobody-has-this".to_owned();
    let mut farm = fleet(&nix, victim);
    let events = survives(&mut farm, 0, |_| {});
    let ends = events.of("attempt_ended").into_iter().filter(|event| event["end"] == "failed");
    let classes: Vec<String> = ends.map(|event| event["class"].to_string()).collect();
    assert!(!classes.is_empty() && classes.iter().all(|class| class == "\"no_builder\""), "{classes:?}");
}

#[test]
fn a_host_with_another_key_is_not_spoken_to() {
    let nix = newest();
    let give_another_key = |farm: &FarmLab| {
        let other = farm.path("another-key");
        keygen(&other);
        let key = std::fs::read_to_string(other.with_extension("pub")).unwrap();
        let known = std::fs::read_to_string(farm.known_hosts()).unwrap();
        let lines = known.lines().filter(|line| !line.starts_with("b0 ")).map(|line| format!("{line}\n"));
        std::fs::write(farm.known_hosts(), lines.chain([format!("b0 {key}")]).collect::<String>()).unwrap();
    };
    let mut farm = fleet(&nix, spec(Kind::Forwarded, &nix));
    give_another_key(&farm.farm);
    let events = survives(&mut farm, 5, |_| {});
    let reasons = reasons(&events);
    assert_eq!(reasons.len(), 1, "waiting does not mend it: {reasons:?}");
    assert!(reasons[0].contains("its host key is another than it should be"), "{reasons:?}");

    let mut farm = FarmSite::fleet(&nix, SCALE, vec![spec(Kind::Forwarded, &nix)]);
    give_another_key(&farm.farm);
    let ran = disturbed(&mut farm, &[], 5, |_| {});
    expect_no_builder(&ran, &["b0"]);
}

#[test]
fn an_untrusted_login_builds_beside_a_trusted_one() {
    let nix = newest();
    let events = survives(&mut fleet(&nix, spec(Kind::Untrusted, &nix)), 5, |_| {});
    // What the other has built is signed by nobody, so it does not go there.
    assert_eq!(events.failures(), Vec::<String>::new());
}

#[test]
fn a_builder_for_another_system_gets_nothing_that_it_cannot_build() {
    let nix = newest();
    let other = || BuilderSpec { system: Some("riscv64-linux".to_owned()), ..spec(Kind::Forwarded, &nix) };
    let events = survives(&mut fleet(&nix, other()), 5, |_| {});
    assert!(events.of("attempt_started").iter().all(|event| event["builder"] == 2));

    let mut farm = FarmSite::fleet(&nix, SCALE, vec![other()]);
    let ran = disturbed(&mut farm, &["host01"], 5, |_| {});
    expect_no_builder(&ran, &["no builder for x86_64-linux"]);
}

#[test]
fn what_only_a_lost_builder_can_build_fails_and_the_rest_is_built() {
    let nix = newest();
    let site = Site::of(
        Lab::chroot(&nix),
        r#"{
  outputs = { self }:
    let
      build = name: more: derivation ({
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [ "-c" "/bin/sleep 0.5; echo $name > $out" ];
      } // more);
      chain = builtins.foldl' (before: number: build "plain${toString number}" { inherit before; }) "" [ 1 2 3 4 ];
    in
    {
      packages.x86_64-linux = {
        plain = chain;
        machine = build "machine" { requiredSystemFeatures = [ "kvm" ]; after = build "before" { }; };
      };
    };
}
"#,
    );
    let with = |features: &[&str]| BuilderSpec {
        features: Some(features.iter().map(|feature| (*feature).to_owned()).collect()),
        ..spec(Kind::Forwarded, &nix)
    };
    let mut farm = FarmSite::new(site, &nix, vec![with(&["kvm"]), with(&["nixos-test"])]);
    let ran = disturbed(&mut farm, &["--builder-wait", "2"], 20, |farm| {
        farm.wait_for("attempt_building", 1);
        farm.farm.builders[0].kill();
    });
    let document = ran.json();
    let classes = classes(&document);
    assert_eq!(classes, [("packages.x86_64-linux.machine".to_owned(), "no_builder".to_owned())].into(), "{document}");
    let causes = causes(&document);
    assert!(causes[0].contains("no builder for x86_64-linux with kvm"), "{causes:?}");
    let plain = |attr: &&Value| attr["attr"] == "packages.x86_64-linux.plain";
    let plain = document["attrs"].as_array().unwrap().iter().find(plain).unwrap();
    assert_eq!(plain["status"], "built");
}
