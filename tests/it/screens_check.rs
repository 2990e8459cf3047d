//! The screens of `drover check`, from made-up checks: at 100 and 60 columns, and as lines of a CI log.

use drover::event::{Class, Difference, Evaluated, Event, Fact, Failure, Stage, Status};
use drover::id::{AttrId, Kind};
use drover::report::check::{self, Outcome};
use drover::report::summary::Summary;

use super::screens::{both, ci, live_at, snap, verdict};
use crate::support::story::{Story, failure};

/// What differs between the checks of one flake.
#[derive(Default, Clone, Copy)]
struct Twist {
    /// A host and a package do not evaluate.
    refused: bool,
    /// The check `vm` fails.
    failed: bool,
    /// `vm` is in quarantine, and so is `lint`, which passes.
    quarantine: bool,
    /// All is compared with a base, on which the host was broken too.
    base: bool,
    /// There is something wrong with the flake that Nix does not refuse.
    findings: bool,
}

impl Twist {
    fn exit(self) -> u8 {
        match (self.refused, self.failed && !self.quarantine) {
            (true, _) => 3,
            (false, true) => 1,
            (false, false) => 0,
        }
    }
}

/// An attr of which nothing is built is fine, at this time.
fn checked(story: &mut Story, attr: AttrId, end: f64) {
    story.evaluated(attr, 0, end - 0.3, end);
    story.at(end, Fact::AttrEnded { attr, status: Status::Checked, reason: None, root: None });
}

fn finding(story: &mut Story, attr: AttrId, end: f64, message: &str) {
    let position = Some("flake.nix:31:7".into());
    let evaluated = Evaluated::Finding(Failure { class: Class::Eval, message: message.into(), position });
    story.at(end - 0.2, Fact::EvalStarted { attr, worker: 0 });
    story.at(end, Fact::EvalEnded { attr, evaluated, peak: None, grown: None });
    story.at(end, Fact::AttrEnded { attr, status: Status::Checked, reason: None, root: None });
}

fn quarantined(story: &mut Story, attr: AttrId, name: &str) {
    let (name, reason) = (name.into(), "needs nested kvm".into());
    let (ticket, expires) = (Some("https://git.acme.net/infra/17".into()), "2026-12-24".into());
    story.at(0.7, Fact::AttrQuarantined { attr, name, reason, ticket, expires });
}

fn story(twist: Twist) -> Vec<Event> {
    let mut story = Story::new("check", &[]);
    story.builder(0.05, 0, "local", 4, &["x86_64-linux"]);
    story.flake(0.3, 0, false);
    let hosts = ["web1", "db1"].map(|name| story.attr(0.6, Kind::NixosConfigurations, name));
    let packages = ["tool", "site"].map(|name| story.attr(0.6, Kind::Packages, name));
    let checks = ["lint", "format", "vm"].map(|name| story.attr(0.6, Kind::Checks, name));
    let app = story.attr(0.6, Kind::Apps, "serve");
    let overlay = story.attr(0.6, Kind::Other, "default");
    if twist.quarantine {
        quarantined(&mut story, checks[2], "vm");
        quarantined(&mut story, checks[0], "lint");
    }
    checked(&mut story, hosts[0], 2.1);
    match twist.refused {
        true => {
            let missing = ("error: attribute 'hostKey' missing", Some("hosts/db1.nix:12:9"));
            story.eval_failed(hosts[1], 1, 0.8, 3.1, missing);
            story.eval_failed(packages[1], 1, 3.1, 3.3, ("error: assertion failed", Some("flake.nix:20:5")));
        }
        false => {
            checked(&mut story, hosts[1], 3.1);
            checked(&mut story, packages[1], 3.3);
        }
    }
    checked(&mut story, packages[0], 2.4);
    let remark = Fact::EvalWarning { attr: Some(app), message: "app 'apps.x86_64-linux.serve' lacks 'meta'".into() };
    story.at(2.5, remark);
    checked(&mut story, app, 2.6);
    match twist.findings {
        true => finding(&mut story, overlay, 2.8, "error: overlay is no function of two arguments"),
        false => checked(&mut story, overlay, 2.8),
    }
    let mut drvs = Vec::new();
    for (attr, (name, seconds)) in checks.into_iter().zip([("lint", 4.0), ("format", 1.2), ("vm", 8.0)]) {
        story.evaluated(attr, 0, 2.8, 3.0);
        let drv = story.need(3.2, &format!("{name}-1.0"), seconds, &[], attr, false);
        story.planned(3.4, attr, Status::ToBuild, Some(drv), 1);
        drvs.push(drv);
    }
    if twist.failed {
        let words = "builder for '/nix/store/x-vm-1.0.drv' failed with exit code 1";
        let tail = ["machine: waiting for unit nginx.service", "error: unit nginx.service is inactive"];
        story.fails(drvs[2], failure(Class::Build, words), "buildPhase", &tail);
    }
    if twist.base {
        story.base(0.5, true, 8);
        story.compared(3.0, checks[1], Difference::Changed);
        story.compared(2.4, packages[0], Difference::Fixed);
        if twist.refused {
            story.compared(3.1, hosts[1], Difference::StillBroken);
            story.compared(3.3, packages[1], Difference::NewlyBroken);
        }
    }
    if twist.findings {
        let message = "nixpkgs is locked twice: inputs.home-manager.inputs.nixpkgs.follows = \"nixpkgs\"".into();
        let (about, hint) = ("flake.lock".into(), Some("nix flake lock".into()));
        story.at(3.4, Fact::FlakeFinding { about, message, position: None, hint, fails: false });
    }
    story.stage(Stage::Eval, 0.3, 3.4);
    let end = story.play();
    story.end_attrs();
    if twist.base && twist.failed {
        story.at(end + 0.05, Fact::FailureCompared { attr: checks[2], ok: true });
    }
    story.at(end + 0.1, Fact::RunEnded { exit: twist.exit() });
    story.events()
}

fn snapped(name: &str, twist: Twist) {
    let events = story(twist);
    let log = ci(&events);
    snap(name, &format!("== CI\n{log}\n== the end\n{}", both(|width| verdict(&events, width))));
}

#[test]
fn all_is_well() {
    snapped("check_ok", Twist::default());
}

#[test]
fn some_do_not_evaluate() {
    snapped("check_refused", Twist { refused: true, ..Twist::default() });
}

#[test]
fn a_build_fails() {
    snapped("check_failed", Twist { failed: true, ..Twist::default() });
}

#[test]
fn both_at_once() {
    snapped("check_both", Twist { refused: true, failed: true, findings: true, ..Twist::default() });
}

#[test]
fn what_is_in_quarantine_may_fail() {
    snapped("check_quarantine", Twist { failed: true, quarantine: true, ..Twist::default() });
}

#[test]
fn against_a_base() {
    snapped("check_base", Twist { refused: true, base: true, ..Twist::default() });
    snapped("check_base_failed", Twist { failed: true, base: true, ..Twist::default() });
}

#[test]
fn lines_scroll_above_the_live_part() {
    let events = story(Twist { refused: true, findings: true, ..Twist::default() });
    let upto: Vec<Event> = events.into_iter().take_while(|event| event.at.seconds() < 5.5).collect();
    snap("check_live", &both(|width| live_at(&upto, 5.5, width)));
}

/// The flake needs inputs, and nothing answers.
#[test]
fn there_is_no_network() {
    let mut story = Story::new("check", &[]);
    let message = "cannot lock git+file:///home/me/infra: unable to download \
                   'https://api.github.com/repos/NixOS/nixpkgs/commits/HEAD': Could not resolve host: api.github.com";
    let hint = Some("nix flake metadata git+file:///home/me/infra".into());
    story.at(5.2, Fact::RunFailed { message: message.into(), hint });
    story.at(5.2, Fact::RunEnded { exit: 4 });
    let events = story.events();
    snap("check_no_network", &format!("== CI\n{}\n== the end\n{}", ci(&events), both(|width| verdict(&events, width))));
}

#[test]
fn both_verdicts_stand_side_by_side() {
    let mut texts = Vec::new();
    for ok in [true, false] {
        let mut events = story(Twist::default());
        let error = (!ok).then(|| "error: flake output 'x' is no set".into());
        let last = events.pop().unwrap();
        events.push(Event { seq: last.seq, at: last.at, fact: Fact::NixChecked { ok, error, seconds: 6.2 } });
        events.push(Event { seq: last.seq + 1, ..last });
        texts.push(both(|width| verdict(&events, width)));
    }
    snap("check_beside", &texts.join("\n"));
}

/// The fold itself, without a screen.
#[test]
fn every_attr_has_one_verdict() {
    let s = Summary::of(&story(Twist { refused: true, failed: true, quarantine: true, findings: true, base: true }));
    let verdicts = check::verdicts(&s);
    let outcome = |name: &str| verdicts.iter().find(|verdict| &*verdict.name == name).map(|verdict| verdict.outcome);
    assert_eq!(verdicts.len(), s.attrs.len());
    for (name, expected) in [
        ("web1", Outcome::Ok),
        ("db1", Outcome::Refused),
        ("site", Outcome::Refused),
        ("lint", Outcome::Built),
        ("vm", Outcome::Failed),
        ("default", Outcome::Finding),
    ] {
        assert_eq!(outcome(name), Some(expected), "{name}");
    }
    let vm = verdicts.iter().find(|verdict| &*verdict.name == "vm").unwrap();
    assert!(vm.quarantined.is_some() && vm.root.is_some() && vm.seconds > 7.5, "{vm:?}");
    let excused = check::excused(&s, false);
    assert!(excused.attrs.contains(&vm.attr) && excused.drvs.contains(&vm.root.unwrap()));
    assert_eq!(excused.attrs.len(), 2, "nothing but what is in quarantine");
    let db1 = verdicts.iter().find(|verdict| &*verdict.name == "db1").unwrap();
    assert!(check::excused(&s, true).attrs.contains(&db1.attr), "it was broken on the base");
    assert_eq!(check::first_failure(&s), Some(3.1));
}
