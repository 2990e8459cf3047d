//! `drover doctor` finds faults of builders: real sshds and daemons, each with something wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::doctor::Examined;
use crate::support::farm_lab::{BuilderSpec, FarmLab, Kind};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::Site;
use crate::support::sshd::free_port;

const FLAKE: &str = "{ outputs = _: { packages = { }; }; }\n";

/// Someone with a flake, whose ssh knows the builders of the lab.
fn site(nix: &Nix) -> Site {
    let site = Site::of(Lab::chroot(nix), FLAKE);
    site.lab.configure("sandbox = true\n");
    site
}

/// What doctor says there, with these words for ssh and these builders.
fn examine(site: &Site, ssh: &str, builders: &str) -> Examined {
    let mut command = site.command(&["doctor", "--builders", builders]);
    command.env("NIX_SSHOPTS", ssh);
    Examined::of(command)
}

fn ssh(lab: &FarmLab) -> String {
    lab.ssh_opts().join(" ")
}

/// The notes about builders, in a line.
fn notes(examined: &Examined) -> String {
    let notes = examined.document["notes"].as_array().unwrap().iter();
    let notes = notes.filter(|note| note["area"] == "builders").map(|note| note["message"].as_str().unwrap());
    notes.collect::<Vec<_>>().join("; ")
}

fn summary(examined: &Examined) -> &str {
    let areas = examined.document["areas"].as_array().unwrap();
    areas.iter().find(|area| area["area"] == "builders").and_then(|area| area["summary"].as_str()).unwrap()
}

#[test]
fn builders_that_answer_are_held_against_what_is_said_of_them() {
    each_nix(|nix| {
        let narrow = BuilderSpec { conf: "max-jobs = 1".to_owned(), ..BuilderSpec::new(Kind::Narrow, nix) };
        let dumb = BuilderSpec {
            sshd: "ForceCommand nix-daemon --stdio".to_owned(),
            ..BuilderSpec::new(Kind::Forwarded, nix)
        };
        let plain = BuilderSpec::new(Kind::Forwarded, nix);
        let lab = FarmLab::new(nix, vec![plain, BuilderSpec::new(Kind::Untrusted, nix), narrow, dumb]);
        let site = site(nix);
        let uri = |number| lab.builder_uri(number);

        let fine = examine(&site, &ssh(&lab), &lab.builders_line(0));
        fine.is_fine("builders");
        assert_eq!((summary(&fine), notes(&fine).as_str()), ("local 4 slots, sandbox on; b0 4 slots", ""));

        let said =
            format!("{} m68k-linux - 4 1 kvm9 magic - ; {} ; {} ; {} m68k-linux - 2", uri(0), uri(1), uri(2), uri(3));
        let examined = examine(&site, &ssh(&lab), &said);
        examined.mends(
            "builders",
            "warning",
            "b0 does not say that it builds m68k-linux",
            "extra-platforms = m68k-linux",
        );
        examined.mends("builders", "warning", "of it: kvm9, magic", "extra-system-features = kvm9 magic");
        examined.mends("builders", "warning", "b1 does not trust its user", "extra-trusted-users = ");
        let notes = notes(&examined);
        assert!(notes.contains("the daemon's socket of b2 cannot be forwarded"), "{notes}");
        assert!(notes.contains("the login on b3 has no shell"), "{notes}");
        // All that the machine has, which may be more than this process may use.
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let is_one = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
        let cores = stat.lines().filter(is_one).count();
        assert_eq!(notes.contains(&format!("max-jobs of b2 is 1, it has {cores} cores")), cores > 1, "{notes}");
        assert!(summary(&examined).ends_with("b3 2 slots"), "{}", summary(&examined));
    });
}

#[test]
fn builders_that_cannot_be_used_say_why_and_what_mends_it() {
    let nix = newest();
    let lab = FarmLab::of(&nix, Kind::Forwarded, 2);
    let site = site(&nix);
    let (b0, ssh) = (lab.builder_uri(0), ssh(&lab));
    let table = |more: &str| site.edit("drover.toml", &format!("[builder.big1]\nurl = '{b0}'\n{more}\n"));
    let examine_table = |ssh: &str| {
        let mut command = site.command(&["doctor"]);
        command.env("NIX_SSHOPTS", ssh);
        Examined::of(command)
    };

    table(&format!("host-key = '{}'", lab.builders[1].sshd.host_key()));
    examine_table(&ssh).mends("builders", "warning", "big1 shows another host key", "ssh-keyscan");
    table(&format!("host-key = '{}'", lab.builders[0].sshd.host_key()));
    examine_table(&ssh).is_fine("builders");

    // What a configuration file says comes after the words of the command line.
    table("");
    let blind = examine_table(&format!("-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no {ssh}"));
    blind.mends("builders", "warning", "the host key of big1 is not known", "ssh-keyscan");
    blind.mends("builders", "warning", "NIX_SSHOPTS turns off the check of host keys", "unset NIX_SSHOPTS");

    // The lab's own key is in the configuration; without it only the stranger's is there.
    let config = fs::read_to_string(lab.ssh_config()).unwrap();
    let bare: String = config.lines().filter(|line| !line.contains("IdentityFile")).map(|l| format!("{l}\n")).collect();
    fs::write(lab.path("bare_config"), bare).unwrap();
    table(&format!("ssh-key = '{}'", lab.keys.stranger().display()));
    let stranger = examine_table(&format!("-F {}", lab.path("bare_config").display()));
    stranger.mends("builders", "warning", "big1 does not let this user in: ", "BatchMode=yes");

    let key = site.lab.path("key");
    table(&format!("ssh-key = '{}'", key.display()));
    examine_table(&ssh).mends("builders", "warning", "there is no ssh key", "ssh-key = ");
    fs::copy(lab.keys.user(), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    examine_table(&ssh).mends("builders", "warning", "others may read the ssh key", "chmod go-rwx");

    site.edit("drover.toml", "");
    let nowhere = format!("ssh-ng://root@127.0.0.1:{}", free_port());
    examine(&site, &ssh, &nowhere).mends("builders", "warning", "127.0.0.1 cannot be reached", "ssh $NIX_SSHOPTS -p");
    let no_nix = format!("ssh-ng://b0?remote-program={}", site.lab.path("nix-daemon").display());
    examine(&site, &ssh, &no_nix).mends("builders", "warning", "there is no Nix on b0", "command -v nix-daemon");
    let only = examine(&site, &ssh, &format!("{nowhere} m68k-linux"));
    only.has("builders", "error", "127.0.0.1 cannot be reached");
}

#[test]
fn a_builder_with_its_store_elsewhere_is_of_no_use() {
    each_nix(|nix| {
        let lab = FarmLab::of(nix, Kind::Forwarded, 1);
        let site = Site::of(Lab::plain(nix), FLAKE);
        let examined = examine(&site, &ssh(&lab), &lab.builder_uri(0));
        examined.mends("builders", "warning", "the store of b0 is in another directory", "ssh ");
    });
}

#[test]
fn lists_of_builders_that_cannot_be_read() {
    let site = site(&newest());
    let machines = site.lab.path("conf/machines");
    fs::write(&machines, "# ours\nssh-ng://b0 x86_64-linux - many\n").unwrap();
    let here = || Examined::of(site.command(&["doctor"]));
    let wrong = here();
    let place = format!("{}:2:28: 'many' is no whole number", machines.display());
    wrong.mends("builders", "error", &place, &format!("+2 {}", machines.display()));
    fs::write(&machines, "").unwrap();
    here().is_fine("builders");
    examine(&site, "", "b0 16").mends(
        "builders",
        "error",
        "--builders:1:4: '16' is no system",
        "drover run --builders",
    );
    examine(&site, "", "@/no/such/file").has("builders", "error", "there is no file /no/such/file");
    let quote = examine(&site, "-i '", "");
    quote.has("config", "error", "NIX_SSHOPTS: a quote is not closed");
}

#[test]
fn builders_are_named_without_asking_them() {
    let site = site(&newest());
    fs::write(site.lab.path("conf/machines"), "ssh-ng://ci@big2.example x86_64-linux,aarch64-linux - 16\n").unwrap();
    site.edit("drover.toml", "[builder.big1]\nurl = 'ssh-ng://ci@big1.example'\nssh-key-env = 'CI_KEY'\n");
    let mut command = site.command(&[]);
    command.env("CI_KEY", "hunter2");
    let home = crate::support::site::finish(command, &[]).out();
    let line = home.lines().find(|line| line.contains("builders")).unwrap().to_owned();
    assert!(line.contains("· big1 · big2 16 x86_64, aarch64"), "{line}");

    let mut command = site.command(&["doctor", "--show-config", "--json"]);
    command.env("CI_KEY", "hunter2").env("DROVER_SSH_KEY", "hunter2").env("DROVER_BUILDER_WAIT", "7");
    let shown = crate::support::site::finish(command, &["doctor"]);
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("hunter2"));
    let document = shown.json();
    let row = |name: &str| -> (Value, Value) {
        let rows = document["drover"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {document:#}"));
        (row["values"][0].clone(), row["origin"].clone())
    };
    assert_eq!(row("builder.big1.ssh-key-env"), ("CI_KEY".into(), "drover.toml:3".into()));
    assert_eq!(row("builder.big2.max-jobs").0, "16");
    assert!(row("builder.big2.url").1.as_str().unwrap().ends_with("conf/machines:1"));
    assert_eq!(row("build.builder-wait"), ("7 s".into(), "DROVER_BUILDER_WAIT".into()));
    assert_eq!(row("ssh key"), ("(not shown)".into(), "DROVER_SSH_KEY".into()));
}
