//! `drover run` from the flake to the cache: everything is built, everything is pushed, a real client takes it, and a
//! second run has nothing to do.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Key, Site, base, finish, narinfos, statuses, strings};

/// `nix copy` and `nix store verify` as somebody who trusts this key and no other.
fn client(site: &Site, key: &Key, args: &[&str]) {
    let mut command: Command = site.lab.bare_command("nix");
    command.args(args).args(["--option", "trusted-public-keys", &key.public, "--option", "require-sigs", "true"]);
    let ran = finish(command, args);
    ran.expect(0);
}

/// Copies hosts into a store of its own each, and has Nix look at every path that arrived.
fn hosts_arrive(site: &Site, key: &Key, document: &serde_json::Value, round: &str, wanted: u32) {
    let url = format!("file://{}", site.cache().display());
    let mut hosts = 0;
    for attr in document["attrs"].as_array().unwrap() {
        if attr["kind"] != "nixosConfigurations" || hosts == wanted {
            continue;
        }
        let out = attr["outputs"]["out"].as_str().unwrap();
        // A store for each host takes its time; a few are enough to show that each copy is whole.
        let number = if site.lab.nix.version == newest().version { hosts.min(3) } else { 0 };
        let store = site.lab.path(format!("client-{round}-{number}")).display().to_string();
        client(site, key, &["copy", "--from", &url, "--to", &store, out]);
        client(site, key, &["store", "verify", "--store", &store, "--recursive", out]);
        assert!(std::path::Path::new(&format!("{store}{out}")).exists());
        hosts += 1;
    }
    assert_eq!(hosts, wanted);
}

#[test]
fn a_pushed_fleet_serves_a_client_that_trusts_only_its_key() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::chroot(nix));
        let key = site.key("fleet-1");
        let url = site.cache_url(&key);
        let args = ["run", "--push-to", &url, "--json"];

        let document = site.exits(0, &args).json();
        let mut statuses = statuses(&document);
        // Nobody here can build it, and nobody asked for it by name.
        assert_eq!(statuses.remove("darwinConfigurations.mac1").as_deref(), Some("skipped"));
        assert_eq!(statuses.len(), 12 + 1 + 10 + 2);
        assert!(statuses.values().all(|status| status == "built"), "{statuses:?}");
        let cache = base(&site.cache().display().to_string());
        for attr in document["attrs"].as_array().unwrap().iter().filter(|attr| attr["status"] == "built") {
            assert_eq!(attr["pushed"][&cache], "complete", "{attr}");
        }
        let built = strings(&document["drvs"]["build"]);
        assert_eq!(built.len(), 150);
        let records = narinfos(&site.cache());
        assert_eq!(site.outputs(&built), records.keys().cloned().collect::<BTreeSet<_>>());
        for (name, text) in &records {
            assert!(text.contains("\nSig: fleet-1:"), "{name} is not signed");
        }
        hosts_arrive(&site, &key, &document, "clean", 12);

        // The same again. The wrapper notes every nix that is started.
        let (path, notes) = site.spy("nix");
        let mut command = site.command(&args);
        command.env("PATH", path);
        let again = finish(command, &args);
        let document = again.expect(0).json();
        assert_eq!(document["counts"]["drvs_to_build"], 0);
        assert_eq!(document["counts"]["pushed"], 0);
        let started = std::fs::read_to_string(notes).unwrap();
        assert!(started.contains("config show"), "the wrapper is not in use: {started}");
        assert!(!started.contains("repl") && !started.contains("flake metadata"), "evaluated again: {started}");
        assert!(site.events().of("eval_started").is_empty());

        // A tree with changes that nobody has committed.
        std::fs::write(site.flake.join("salt"), "of today\n").unwrap();
        let document = site.exits(0, &args).json();
        assert_eq!(strings(&document["drvs"]["build"]).len(), 150 - 1, "all but the fixed-output one");
        assert_eq!(document["flake"]["rev"], serde_json::Value::Null);
        hosts_arrive(&site, &key, &document, "dirty", 2);
        let document = site.exits(0, &args).json();
        assert_eq!((&document["counts"]["drvs_to_build"], &document["counts"]["pushed"]), (&0.into(), &0.into()));
    });
}
