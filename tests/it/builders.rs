//! Which builders a run has: from flags, the environment, drover.toml and Nix, and what is wrong with how they are said.

use std::fs;
use std::process::Command;

use crate::support::nix::{Lab, newest};
use crate::support::site::{Ran, Site, finish};

/// Two drvs that nobody has built.
const FLAKE: &str = r#"{
  outputs = _:
    let build = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo 1 > $out" ]; };
    in { packages.x86_64-linux = { a = build "a-1"; b = build "b-1"; }; };
}
"#;

/// drover there, with these variables.
fn with(site: &Site, vars: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command: Command = site.command(args);
    command.envs(vars.iter().copied());
    finish(command, args)
}

#[test]
fn without_slots_and_builders_nothing_can_be_built_and_that_is_said() {
    let site = Site::of(Lab::chroot(&newest()), FLAKE);
    let ran = site.exits(4, &["run", "-j", "0"]);
    assert!(ran.stderr.contains("no slots (max-jobs is 0), and there is no other builder"), "{}", ran.stderr);
    assert!(ran.stderr.contains("drover run --builders ssh-ng://HOST"), "{}", ran.stderr);
    // Where there is nothing to build, nobody is needed.
    site.exits(0, &["run"]);
    site.exits(0, &["run", "-j", "0"]);
    site.edit("drover.toml", "[build]\nmax-jobs = 0\n");
    assert!(site.drover(&["plan"]).stderr.contains("there is no other builder"));
    assert!(!site.drover(&["plan", "-j", "1"]).stderr.contains("there is no other builder"));
}

#[test]
fn a_forks_pull_request_brings_no_builders() {
    let site = Site::of(Lab::chroot(&newest()), FLAKE);
    site.edit("drover.toml", "[builder.theirs]\nurl = 'ssh-ng://ci@evil.example'\n");
    let fork = [("CI", "true"), ("CI_MERGE_REQUEST_PROJECT_ID", "1"), ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "2")];
    let ran = with(&site, &fork, &["run"]);
    ran.expect(0);
    assert!(ran.stderr.contains("not used in the pull request of a fork: theirs"), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("theirs").count(), 1, "{}", ran.stderr);
    let notes = with(&site, &fork, &["doctor", "--json"]).json()["notes"].to_string();
    assert!(notes.contains("builders of drover.toml are not used: theirs"), "{notes}");
}

#[test]
fn an_entry_that_cannot_be_read_is_an_error_with_its_place() {
    let site = Site::of(Lab::chroot(&newest()), FLAKE);
    let machines = site.lab.path("conf/machines");
    fs::write(&machines, "# ours\nssh-ng://b0 x86_64-linux - many\n").unwrap();
    let place = format!("{}:2:28: 'many' is no whole number; column 4", machines.display());
    let ran = site.exits(2, &["run"]);
    assert!(ran.stderr.contains(&place) && ran.stderr.contains("--builders ''"), "{}", ran.stderr);
    site.exits(0, &["run", "--builders", ""]);
    let env = with(&site, &[("DROVER_BUILDERS", "b0 16")], &["run"]);
    env.expect(2);
    assert!(env.stderr.contains("DROVER_BUILDERS:1:4: '16' is no system"), "{}", env.stderr);
    let ran = site.exits(2, &["run", "--builders", "@/no/such/file"]);
    assert!(ran.stderr.contains("--builders: there is no file /no/such/file"), "{}", ran.stderr);
}

#[test]
fn keys_of_the_environment_are_never_shown() {
    let site = Site::of(Lab::chroot(&newest()), FLAKE);
    let port = crate::support::sshd::free_port();
    site.edit("drover.toml", &format!("[builder.big1]\nurl = 'ssh-ng://127.0.0.1:{port}'\nssh-key-env = 'CI_KEY'\n"));
    let secrets = [("CI_KEY", "hunter2"), ("DROVER_SSH_KEY", "hunter2"), ("DROVER_SSH_KNOWN_HOSTS", "x k hunter2")];
    let vars = [&secrets[..], &[("DROVER_LOG", "trace")]].concat();
    for args in [&["run", "-v", "--events", "events.jsonl"][..], &["doctor", "--json"], &["doctor", "--show-config"]] {
        let ran = with(&site, &vars, args);
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), ran.stderr);
        // It was dialled, or named.
        let met = said.contains(&format!("-p {port}")) || said.contains("big1");
        assert!(met && !said.contains("hunter2"), "{args:?}: {said}");
    }
    let events = fs::read_to_string(site.flake.join("events.jsonl")).unwrap();
    assert!(events.contains("attempt_started") && !events.contains("hunter2"), "{events}");
}
