//! `modules/nixos.nix`: what becomes of its options, without a NixOS. Options of NixOS itself are those of
//! `tests/fixtures/nixpkgs/nixos.nix`.
#![expect(clippy::disallowed_methods, reason = "systemd-analyze and ssh-keygen are asked")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use drover::config::File;

use crate::support::nix::{Lab, each_nix, newest};
use crate::support::program::write_program;
use crate::support::site::finish;
use crate::support::stub::{expression, value};

/// A NixOS of the module and this one; of packages, what they are made of.
const SYSTEM: &str = r#"
  let
    config = import (stub + "/eval-config.nix") { inherit lib pkgs; } [ ROOT/modules/nixos.nix MODULE ];
    files = farm: lib.listToAttrs (map (entry: lib.nameValuePair entry.name entry.path.value) farm.entries);
  in
  {
    inherit (config) nix systemd users;
    services = { inherit (config.services) openssh; };
    settings = lib.mapAttrs (_name: unit: files unit.serviceConfig.WorkingDirectory) config.systemd.services;
  }
"#;

fn system(lab: &Lab, module: &str) -> Value {
    value(lab, &SYSTEM.replace("MODULE", module))
}

/// Why NixOS does not take a module.
fn refusal(lab: &Lab, module: &str) -> String {
    let expr = expression(&SYSTEM.replace("MODULE", module));
    let output = lab.command("nix").args(["eval", "--impure", "--json", "--expr", &expr]).output().unwrap();
    assert!(!output.status.success(), "taken: {module}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const RUNS: &str = r#"{
  services.drover.metricsDirectory = "/var/lib/node-exporter";
  services.drover.runs.nightly = {
    flake = "git+https://git.example.org/acme/infra?ref=a%20b";
    what = [ "web1" "db1" ];
    arguments = [ "--fail-fast" "--reason=$HOME" ];
    startAt = "Mon..Fri 04:00";
    timeout = "6h";
    environmentFile = "/run/secrets/drover.env";
    settings = {
      build.timeout = 7200;
      attrs.exclude = [ "*.installer" ];
      cache.acme = { url = "https://cache.example.org"; push = "main"; secret-key = "/run/secrets/acme.sec"; };
      builder.big1 = { url = "ssh-ng://ci@big1"; ssh-key = "/run/secrets/ssh"; };
      notify.chat.slack-file = "/run/secrets/chat";
    };
  };
  services.drover.runs.by-hand = { flake = "github:acme/infra"; command = "check"; startAt = [ ]; };
}"#;

/// A unit file as NixOS writes it: a list is its key several times.
fn unit_file(unit: &Value, sections: &[(&str, &str)]) -> String {
    let list = |key: &str| {
        let items = unit[key].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(" ")
    };
    let mut text = format!("[Unit]\nDescription={}\n", unit["description"].as_str().unwrap());
    for (key, name) in [("after", "After"), ("wants", "Wants")] {
        text += &format!("{name}={}\n", list(key));
    }
    for (key, section) in sections {
        text += &format!("[{section}]\n");
        for (name, value) in unit[*key].as_object().unwrap() {
            for value in value.as_array().unwrap_or(&vec![value.clone()]) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text += &format!("{name}={value}\n");
            }
        }
        for (name, value) in unit["environment"].as_object().unwrap_or(&Map::new()) {
            text += &format!("Environment=\"{name}={}\"\n", value.as_str().unwrap());
        }
    }
    text
}

/// The units of a system, in a directory; programs that would be in the store are there, but empty.
fn written(lab: &Lab, system: &Value) -> Vec<PathBuf> {
    let dir = lab.work().join("units");
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    let mut files = Vec::new();
    let mut write = |name: String, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, with_programs(&dir, &lab.store_dir(), &text)).unwrap();
        files.push(path);
    };
    for (name, unit) in system["systemd"]["services"].as_object().unwrap() {
        write(format!("{name}.service"), unit_file(unit, &[("serviceConfig", "Service")]));
    }
    for (name, unit) in system["systemd"]["timers"].as_object().unwrap() {
        write(format!("{name}.timer"), unit_file(unit, &[("timerConfig", "Timer")]));
    }
    files
}

/// Puts programs of the directory in the place of those in the store.
fn with_programs(dir: &Path, store: &str, text: &str) -> String {
    let line = |line: &str| {
        let Some((before, rest)) = line.split_once(store).filter(|(before, _)| before.starts_with("Exec")) else {
            return line.to_owned();
        };
        let end = rest.find(['"', ' ']).unwrap_or(rest.len());
        let name = rest[..end].rsplit('/').next().unwrap();
        let program = dir.join("bin").join(name);
        write_program(&program, "#!/bin/sh\n");
        format!("{before}{}{}", program.display(), &rest[end..])
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("-- NOT RUN: no systemd-analyze on this machine: ./nix/setup --test");
        return;
    }
    let lab = Lab::plain(&newest());
    let files = written(&lab, &system(&lab, RUNS));
    let named = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "service");
    assert_eq!((files.len(), files.iter().filter(named).count()), (3, 2));
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("drover")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");

    for file in files.iter().filter(named) {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(file);
        let output = analyze.output().unwrap();
        assert!(output.status.success(), "too much is open to it:\n{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_run_becomes_a_service_with_a_timer() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let system = system(&lab, RUNS);
        let service = &system["systemd"]["services"]["drover-nightly"]["serviceConfig"];
        let start = service["ExecStart"].as_str().unwrap();
        let (_, words) = start.split_once("/bin/drover\" ").unwrap();
        // Neither a specifier of systemd nor a variable.
        let flake = "git+https://git.example.org/acme/infra?ref=a%%20b";
        let expected = format!("\"run\" \"--fail-fast\" \"--reason=$$HOME\" \"--\" \"{flake}#web1\" \"{flake}#db1\"");
        assert_eq!(words, expected);
        assert_eq!(service["EnvironmentFile"], "/run/secrets/drover.env");
        assert_eq!(service["TimeoutStartSec"], "6h");

        // Secrets are where systemd puts them, and that is where they are looked for.
        let expected = [
            "builder.big1.ssh-key:/run/secrets/ssh",
            "cache.acme.secret-key:/run/secrets/acme.sec",
            "notify.chat.slack-file:/run/secrets/chat",
        ];
        assert_eq!(service["LoadCredential"], json!(expected));
        let settings = &system["settings"]["drover-nightly"]["drover.toml"];
        let text = toml::to_string(settings).unwrap();
        let file = File::parse(&text, Path::new("drover.toml")).unwrap();
        let credential = |id: &str| Some(PathBuf::from(format!("/run/credentials/drover-nightly.service/{id}")));
        assert_eq!(file.cache["acme"].secret_key, credential("cache.acme.secret-key"));
        assert_eq!(file.builder["big1"].ssh_key, credential("builder.big1.ssh-key"));
        assert_eq!(file.notify["chat"].slack_file, credential("notify.chat.slack-file"));
        assert_eq!((file.build.timeout, file.attrs.exclude), (Some(7200), vec!["*.installer".to_owned()]));
        assert_eq!(settings["build"], json!({ "timeout": 7200 }), "what nobody says is not in the file");

        let timers = system["systemd"]["timers"].as_object().unwrap();
        assert_eq!(timers.keys().collect::<Vec<_>>(), ["drover-nightly"], "the other is started by hand");
        assert_eq!(timers["drover-nightly"]["timerConfig"]["OnCalendar"], "Mon..Fri 04:00");
        assert_eq!(system["settings"]["drover-by-hand"]["drover.toml"], json!({}));
    });
}

#[test]
fn nothing_is_there_that_nobody_asked_for() {
    let lab = Lab::plain(&newest());
    let system = system(&lab, "{ }");
    assert_eq!(system["systemd"], json!({ "services": {}, "timers": {}, "tmpfiles": { "settings": {} } }));
    assert_eq!(system["users"], json!({ "groups": {}, "users": {} }));
    assert_eq!(system["services"]["openssh"]["enable"], false);
}

#[test]
fn a_builder_lets_in_keys_that_open_only_its_daemon() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let key = lab.work().join("key");
        let output =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "ci", "-f"]).arg(&key).output();
        assert!(output.unwrap().status.success());
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let public = public.trim();
        let module = format!(
            "{{ services.drover.builder = {{ enable = true; authorizedKeys = [ \"{public}\" ]; maxJobs = 16; \
             features = [ \"kvm\" ]; }}; }}"
        );
        let system = system(&lab, &module);
        let user = &system["users"]["users"]["drover"];
        let line = user["openssh"]["authorizedKeys"]["keys"][0].as_str().unwrap();
        let (options, rest) = line.split_once(" ssh-ed25519").unwrap();
        assert!(options.starts_with("restrict,command=\"") && options.ends_with("/bin/nix-daemon --stdio\""), "{line}");
        assert_eq!(format!("ssh-ed25519{rest}"), public);
        assert_eq!((&user["isSystemUser"], &user["group"]), (&json!(true), &json!("drover")));
        assert_eq!(system["services"]["openssh"]["enable"], true);
        let settings = json!({ "max-jobs": 16, "system-features": ["kvm"], "trusted-users": ["drover"] });
        assert_eq!(system["nix"]["settings"], settings);
        // ssh itself can read the line.
        let lines = lab.write("authorized_keys", &format!("{line}\n"));
        let output = Command::new("ssh-keygen").args(["-l", "-f"]).arg(lines).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

#[test]
fn what_would_not_do_what_is_meant_is_refused_with_a_reason() {
    let lab = Lab::plain(&newest());
    let cases = [
        ("runs.a = { flake = \"path:/srv/infra\"; }", "its own drover.toml"),
        ("runs.a = { flake = \"/srv/infra\"; }", "is not of type"),
        ("runs.a = { }", "flake' was accessed but has no value"),
        ("runs.a = { flake = \"github:a/b\"; settings.notify.x.slack = \"https://h\"; }", "slack-file"),
        ("runs.a = { flake = \"github:a/b\"; settings.build.retrys = 1; }", "retrys' does not exist"),
        ("runs.a = { flake = \"github:a/b\"; settings.build.retries = -1; }", "unsigned integer"),
        ("runs.a = { flake = \"github:a/b\"; settings.cache.x.push = \"maybe\"; }", "\"optional\", \"main\""),
        ("builder.enable = true", "nobody can log in"),
        ("builder = { enable = true; authorizedKeys = [ \"command=x ssh-ed25519 AAAA\" ]; }", "is not of type"),
    ];
    for (module, reason) in cases {
        let said = refusal(&lab, &format!("{{ services.drover.{module}; }}"));
        assert!(said.contains(reason), "{module}:\n{said}");
    }
}

/// A service works in a directory that has a drover.toml and no flake: that is the one that is read.
#[test]
fn of_a_flake_that_is_elsewhere_the_settings_here_are_read() {
    let lab = Lab::plain(&newest());
    lab.write("drover.toml", "[build]\nretrys = 1\n");
    let words = ["run", "--", "git+https://git.example.org/acme/infra?ref=main#web1"];
    let mut drover = lab.program(env!("CARGO_BIN_EXE_drover"));
    drover.args(words);
    let ran = finish(drover, &words);
    ran.expect(2);
    assert!(ran.stderr.contains("drover.toml:2:1: unknown key 'retrys'"), "{}", ran.stderr);
}

/// A flake of flake-parts with the module; what it has for one system.
const PARTS: &str = r#"
  let
    free = lib.mkOption { type = lib.types.attrsOf lib.types.anything; };
    outer = lib.evalModules {
      modules = [
        { options.perSystem = lib.mkOption { type = lib.types.deferredModule; }; }
        ROOT/modules/flake-parts.nix
        { drover.settings = { build.retries = 3; cache.acme.url = "cachix:acme"; }; }
      ];
      specialArgs.self = "/flake";
    };
    system = lib.evalModules {
      modules = [ { options = { apps = free; checks = free; }; } outer.config.perSystem ];
      specialArgs = { inherit pkgs; };
    };
  in
  {
    inherit (system.config) apps;
    checks = lib.mapAttrs (_name: check: check.drvAttrs.buildCommand) system.config.checks;
    settings = (pkgs.callPackage ROOT/modules/toml.nix { } outer.config.drover.settings).value;
  }
"#;

#[test]
fn flake_parts_writes_the_file_and_checks_it() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let parts = value(&lab, PARTS);
        let program = |app: &str| parts["apps"][app]["program"].as_str().unwrap().to_owned();
        assert!(program("drover").ends_with("/bin/drover") && program("drover-toml").ends_with("/bin/drover-toml"));
        assert!(parts["checks"]["drover-toml"].as_str().unwrap().contains("diff /flake/drover.toml"), "{parts}");
        let file = File::parse(&toml::to_string(&parts["settings"]).unwrap(), Path::new("drover.toml")).unwrap();
        assert_eq!((file.build.retries, file.cache["acme"].url.as_str()), (Some(3), "cachix:acme"));
    });
}
