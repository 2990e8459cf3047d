//! Builders that go away: what was there is built elsewhere, or there again, and a run ends all the same.

use std::process::Command;

use crate::support::farm_lab::{BuilderSpec, FarmLab, Kind};
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
