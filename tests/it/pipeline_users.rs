//! The same fleet for everybody: as root, in a store of one's own, and as a client of a root daemon, trusted or not.

use std::collections::BTreeSet;

use crate::support::nix::{Lab, each_nix, everybody};
use crate::support::site::{Site, narinfos, statuses, strings};

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
