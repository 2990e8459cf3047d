//! `drover run` with builders over ssh: derivations are built on them one by one, what they need is brought to them,
//! and the results come home.

use std::process::Command;

use crate::support::farm_lab::{BuilderSpec, FarmLab, Kind};
use crate::support::nix::{Lab, Nix, each_nix};
use crate::support::site::{Ran, Site, finish, statuses};

/// A flake, its coordinator, and builders.
struct Farm {
    site: Site,
    lab: FarmLab,
}

impl Farm {
    fn fleet(nix: &Nix, kinds: &[Kind]) -> Self {
        let specs = kinds.iter().map(|kind| BuilderSpec::new(*kind, nix)).collect();
        Self { site: Site::fleet(Lab::chroot(nix)), lab: FarmLab::new(nix, specs) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.site.command(args);
        command.args(["--builders", &self.lab.builders_lines()]);
        command.env("NIX_SSHOPTS", self.lab.ssh_opts().join(" "));
        command
    }

    fn exits(&self, code: i32, args: &[&str]) -> Ran {
        let ran = finish(self.command(args), args);
        ran.expect(code);
        ran
    }
}

#[test]
fn a_fleet_is_built_on_two_builders_and_comes_home() {
    each_nix(|nix| {
        let farm = Farm::fleet(nix, &[Kind::Forwarded, Kind::Stdio]);
        let document = farm.exits(0, &["run", "--json", "-j", "0"]).json();
        let statuses = statuses(&document);
        assert!(statuses.values().filter(|status| *status == "built").count() == 25, "{statuses:?}");
    });
}
