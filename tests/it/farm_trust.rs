//! Stores that do not take what nobody has signed: a builder that does not trust its login, and a local daemon that does
//! not trust its user.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::farm_lab::{BuilderSpec, Kind};
use crate::support::farm_site::{FarmSite, spec, valid};
use crate::support::nix::{Daemon, Lab, Nix, each_nix, newest};
use crate::support::site::{Events, Key, Ran, Site, base, classes, finish, statuses};

/// `first` can be built by the second builder alone, and `top`, which needs it, by the first alone.
const ACROSS: &str = r#"{
  outputs = { self }:
    let
      build = name: feature: more: derivation ({
        inherit name;
        system = "x86_64-linux";
        builder = "/bin/sh";
        requiredSystemFeatures = [ feature ];
        args = [ "-c" "echo ${name} > $out" ];
      } // more);
    in
    { packages.x86_64-linux.top = build "top" "one" { first = build "first" "two" { }; }; };
}
"#;

fn with(features: &[&str], spec: BuilderSpec) -> BuilderSpec {
    BuilderSpec { features: Some(features.iter().map(|feature| (*feature).to_owned()).collect()), ..spec }
}

/// A builder that signs what it builds.
fn signing(key: &Key, spec: BuilderSpec) -> BuilderSpec {
    BuilderSpec { conf: format!("secret-key-files = {}\n{}", key.secret.display(), spec.conf), ..spec }
}

/// A store that trusts a key.
fn believing(key: &Key) -> String {
    format!("trusted-public-keys = {}", key.public)
}

/// Attempts that began on a builder.
fn begun_on(events: &Events, builder: u64) -> usize {
    events.of("attempt_started").into_iter().filter(|event| event["builder"] == builder).count()
}

/// What no trusted builder has signed is no attempt's waste: the other builds what stands by itself.
#[test]
fn nothing_is_tried_in_vain_on_a_builder_that_does_not_trust_its_login() {
    each_nix(|nix| {
        let farm = FarmSite::of_kinds(nix, &[Kind::Untrusted, Kind::Forwarded]);
        let document = farm.exits(0, &["run", "--json", "-j", "0"]).json();
        let statuses = statuses(&document);
        assert_eq!(statuses.values().filter(|status| *status == "built").count(), 25, "{statuses:?}");
        let events = farm.site.events();
        events.expect_each_once();
        assert_eq!(events.failures(), Vec::<String>::new());
        let (untrusting, trusting) = (begun_on(&events, 1), begun_on(&events, 2));
        assert!(untrusting > 0 && trusting > 0, "{untrusting} on the one, {trusting} on the other");
    });
}

#[test]
fn a_builder_that_does_not_trust_its_login_takes_what_is_signed() {
    each_nix(|nix| {
        for known in [true, false] {
            let site = Site::of(Lab::chroot(nix), ACROSS);
            let key = site.key("builder-2");
            let conf = if known { believing(&key) } else { String::new() };
            let one = with(&["one"], BuilderSpec { conf, ..spec(Kind::Untrusted, nix) });
            let two = with(&["two"], signing(&key, spec(Kind::Forwarded, nix)));
            let farm = FarmSite::new(site, nix, vec![one, two]);
            let ran = farm.start(&[]).wait();
            let document = ran.json();
            if known {
                ran.expect(0);
                assert_eq!(farm.site.events().failures(), Vec::<String>::new());
                assert_eq!(statuses(&document)["packages.x86_64-linux.top"], "built");
            } else {
                // There is no other that could build it, so that is why it failed.
                let classes: Vec<String> = classes(&document).into_values().collect();
                assert_eq!(classes, ["signature"], "{document}");
            }
        }
    });
}

/// The first refusal says it for all that the other builds. What had begun by then may fail too.
#[test]
fn a_signature_that_is_not_believed_is_found_out_once() {
    let nix = newest();
    let site = Site::fleet(Lab::chroot(&nix));
    let key = site.key("builder-2");
    let farm = FarmSite::new(
        site,
        &nix,
        vec![spec(Kind::Untrusted, &nix), signing(&key, BuilderSpec { slots: 1, ..spec(Kind::Forwarded, &nix) })],
    );
    let document = farm.exits(0, &["run", "--json", "-j", "0"]).json();
    assert_eq!(statuses(&document).values().filter(|status| *status == "built").count(), 25, "{document}");
    let failures = farm.site.events().failures();
    assert!(failures.iter().all(|class| class == "signature"), "{failures:?}");
    assert!(failures.len() <= 8, "{failures:?}");
}

/// A farm whose coordinator's store is a daemon's who trusts nobody.
struct Distrusted {
    farm: FarmSite,
    daemon: Daemon,
}

impl Distrusted {
    fn new(site: Site, nix: &Nix, conf: &str, specs: Vec<BuilderSpec>) -> Self {
        site.lab.configure(&format!("trusted-users =\n{conf}"));
        let daemon = site.lab.daemon();
        Self { farm: FarmSite::new(site, nix, specs), daemon }
    }

    /// Runs drover on that store and the builders.
    fn run(&self, more: &[&str]) -> Ran {
        let (site, farm) = (&self.farm.site, &self.farm.farm);
        let store = format!("unix://{}?root={}", self.daemon.socket.display(), site.lab.path("root").display());
        let builders = farm.builders_lines();
        let args = [&["run", "--json", "--store", &store, "--builders", &builders][..], more].concat();
        let mut command: Command = site.lab.program(env!("CARGO_BIN_EXE_drover"));
        command.current_dir(&site.flake).args(&args).env("NIX_SSHOPTS", farm.ssh_opts().join(" "));
        for name in ["CI", "GITHUB_ACTIONS", "FORGEJO_ACTIONS", "GITEA_ACTIONS", "DROVER_STATE_DIR", "DROVER_PUSH_TO"] {
            command.env_remove(name);
        }
        finish(command, &args)
    }

    /// The names of what is valid in a store.
    fn names(lab: &Lab) -> BTreeSet<String> {
        valid(lab).iter().map(|path| base(path)[33..].to_owned()).collect()
    }
}

#[test]
fn what_builders_have_signed_comes_home_to_a_daemon_that_does_not_trust_us() {
    each_nix(|nix| {
        for signed in [true, false] {
            let site = Site::of(Lab::chroot(nix), ACROSS);
            let key = site.key("farm");
            let conf = if signed { believing(&key) } else { String::new() };
            let specs = ["one", "two"].map(|feature| signing(&key, with(&[feature], spec(Kind::Forwarded, nix))));
            let place = Distrusted::new(site, nix, &conf, specs.into());
            let ran = place.run(&["-j", "0"]);
            ran.expect(0);
            assert_eq!(statuses(&ran.json())["packages.x86_64-linux.top"], "built");
            assert!(ran.stderr.contains("the local daemon does not trust this user"), "{}", ran.stderr);
            let builder = Distrusted::names(&place.farm.farm.builders[0].lab);
            let here = Distrusted::names(&place.farm.site.lab);
            assert!(builder.contains("top"), "it is where it was built: {builder:?}");
            assert_eq!(here.contains("top"), signed, "{here:?}");
        }
    });
}

#[test]
fn a_daemon_that_does_not_trust_us_builds_beside_builders() {
    each_nix(|nix| {
        let place = Distrusted::new(Site::fleet(Lab::chroot(nix)), nix, "", vec![spec(Kind::Forwarded, nix)]);
        let ran = place.run(&["-j", "2"]);
        ran.expect(0);
        let statuses = statuses(&ran.json());
        // An attr that is evaluated late may find what another has had built.
        let done = statuses.values().filter(|status| ["built", "valid"].contains(&status.as_str()));
        assert_eq!(done.count(), 25, "{statuses:?}");
        let events = place.farm.site.events();
        events.expect_each_once();
        assert_eq!(events.failures(), Vec::<String>::new());
        let (here, there) = (begun_on(&events, 0), begun_on(&events, 1));
        assert!(here > 0 && there > 0, "{here} here, {there} there");
    });
}
