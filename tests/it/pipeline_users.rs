//! The same fleet for everybody: as root, in a store of one's own, and as a client of a root daemon, trusted or not.

use std::collections::BTreeSet;

use crate::support::nix::{Lab, Who, each_nix, everybody};
use crate::support::site::{Site, finish, narinfos, statuses, strings};

#[test]
fn everybody_gets_the_fleet() {
    each_nix(|nix| {
        for who in everybody() {
            eprintln!("-- as {who:?}");
            let site = Site::fleet(Lab::of(nix, who));
            let key = site.key("fleet-1");
            let url = site.cache_url(&key);

            let plan = site.exits(0, &["plan", "--json"]).json();
            let document = site.exits(0, &["run", "--push-to", &url, "--json"]).json();
            let built = strings(&document["drvs"]["build"]);
            assert_eq!(strings(&plan["drvs"]["build"]), built);
            assert_eq!(built.len(), 150);
            let mut statuses = statuses(&document);
            statuses.remove("darwinConfigurations.mac1");
            assert!(statuses.values().all(|status| status == "built"), "{statuses:?}");
            assert_eq!(site.outputs(&built), narinfos(&site.cache()).keys().cloned().collect::<BTreeSet<_>>());

            let again = site.exits(0, &["run", "--push-to", &url, "--json"]).json();
            assert_eq!((&again["counts"]["drvs_to_build"], &again["counts"]["pushed"]), (&0.into(), &0.into()));
        }
    });
}

#[test]
fn derivations_may_be_in_another_store() {
    each_nix(|nix| {
        // The store that builds takes .drv files from those that it does not trust, and only what they say from others.
        for who in everybody().into_iter().filter(|who| !matches!(who, Who::Owner | Who::Client { trusted: true })) {
            eprintln!("-- as {who:?}");
            let site = Site::fleet(Lab::of(nix, who));
            let drvs = site.lab.path("drvs").display().to_string();
            let args = ["run", "chain", "structured", "host00", "--eval-store", &drvs, "--json"];
            let document = site.exits(0, &args).json();
            let statuses = statuses(&document);
            assert!(statuses.len() >= 3 && statuses.values().all(|status| status == "built"), "{statuses:?}");
            for attr in document["attrs"].as_array().unwrap() {
                let out = attr["outputs"]["out"].as_str().unwrap();
                site.lab.run("nix-store", &["--check-validity", out]);
                assert!(std::path::Path::new(&format!("{drvs}{}", attr["drv"].as_str().unwrap())).exists());
            }
            let again = site.exits(0, &args).json();
            assert_eq!(again["counts"]["drvs_to_build"], 0);
        }
    });
}

#[test]
fn the_variables_of_nix_are_honoured() {
    each_nix(|nix| {
        // NIX_STORE_DIR, NIX_STATE_DIR and NIX_LOG_DIR say where the store is.
        let site = Site::fleet(Lab::plain(nix));
        let daemon = site.lab.daemon();
        let mut command = site.command(&["run", "chain", "--json"]);
        command.env("NIX_REMOTE", "daemon").env("NIX_DAEMON_SOCKET_PATH", &daemon.socket);
        let ran = finish(command, &["run", "chain"]);
        let document = ran.expect(0).json();
        let out = document["attrs"][0]["outputs"]["out"].as_str().unwrap();
        assert!(out.starts_with(&site.lab.store_dir()) && std::path::Path::new(out).exists(), "{out}");
        let log = std::fs::read_to_string(site.lab.path("daemon.log")).unwrap();
        assert!(log.contains("accepted connection"), "the daemon was not asked: {log}");
    });
}
