//! Builders that go away: what was there is built elsewhere, or there again, and a run ends all the same.

use crate::support::farm_lab::Kind;
use crate::support::farm_site::{FarmSite, spec};
use crate::support::nix::{Nix, each_nix, newest};
use crate::support::site::{classes, finish, statuses};

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
