//! `drover cache` away from this machine: buckets that are pruned, and caches that builders mend.

use std::collections::BTreeSet;

use crate::support::bucket::{Bucket, KEY_ID, SECRET};
use crate::support::farm_lab::{FarmLab, Kind};
use crate::support::farm_site::spec;
use crate::support::nix::{Lab, newest};
use crate::support::site::{Ran, finish, narinfos};
use crate::upkeep::{FLAKE, Place, age, findings, map};

#[test]
fn a_bucket_is_pruned_and_what_is_kept_is_whole() {
    let place = Place::empty(&newest());
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(dir.path(), true);
    let url = bucket.url(&format!("secret-key={}", place.key.secret.display()));
    place.site.edit("drover.toml", &format!("[cache.acme]\nurl = \"{url}\"\npush = true\n"));
    let drover = |args: &[&str]| -> Ran {
        let mut command = place.site.command(args);
        for name in ["AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
            command.env_remove(name);
        }
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET);
        let ran = finish(command, args);
        ran.expect(0);
        ran
    };
    drover(&["run"]);
    let old: BTreeSet<String> = narinfos(&bucket.dir()).into_keys().collect();
    assert_eq!(old.len(), 10);
    place.site.edit("flake.nix", &FLAKE.replace("lib-1.0", "lib-2.0").replace("app-1.0", "app-2.0"));
    drover(&["run"]);
    age(&bucket.dir(), &old);
    let removed = || {
        let log = bucket.log();
        log.into_iter().filter(|asked| asked.method == "DELETE").map(|asked| asked.name).collect::<Vec<_>>()
    };

    let prune = ["cache", "prune", "acme", "--keep-last", "1", "--grace", "1"];
    let shown = drover(&prune).out();
    assert!(shown.contains("delete   2 paths") && shown.contains("app-1.0 · lib-1.0"), "{shown}");
    assert_eq!((narinfos(&bucket.dir()).len(), removed()), (12, Vec::new()), "nothing was deleted");

    let done = drover(&[&prune[..], &["--delete", "--json"]].concat()).json();
    // Both versions of `lib` are the same bytes.
    assert_eq!((&done["deleted"]["paths"], &done["deleted"]["nars"]), (&2.into(), &1.into()), "{done:#}");
    let kinds: Vec<String> =
        removed().iter().map(|name| name.split(['/', '.']).next_back().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["narinfo", "ls", "narinfo", "ls", "zst"], "records go before NARs");
    let left: BTreeSet<String> = narinfos(&bucket.dir()).into_keys().map(|name| name[33..].to_owned()).collect();
    let is_left = |name: &str| left.contains(name);
    assert!(!is_left("app-1.0") && !is_left("lib-1.0"), "{left:?}");
    assert!(["app-2.0", "lib-2.0", "base-1.0", "p1-1.0"].into_iter().all(is_left), "{left:?}");
    drover(&["cache", "verify", "acme", "--deep"]);
}

#[test]
fn a_cache_is_mended_from_a_builder() {
    let nix = newest();
    let place = Place::at(Lab::chroot(&nix));
    let farm = FarmLab::new(&nix, vec![spec(Kind::Forwarded, &nix)]);
    let ssh = farm.ssh_opts().join(" ");
    let drover = |code: i32, args: &[&str]| -> Ran {
        let mut command = place.site.command(args);
        command.env("NIX_SSHOPTS", &ssh);
        let ran = finish(command, args);
        ran.expect(code);
        ran
    };
    let builders = farm.builders_lines();
    drover(0, &["run", "-j", "0", "--builders", &builders, "--push-to", "acme", "app"]);
    assert_eq!(narinfos(&place.cache()).len(), 3);
    std::fs::remove_file(place.nar("app-1.0")).unwrap();
    std::fs::remove_file(place.record("base-1.0")).unwrap();
    place.forget();
    let broken = map(&[("app-1.0", "nar_missing"), ("lib-1.0", "reference")]);
    let verify = ["cache", "verify", "acme", "--repair", "--json"];
    let alone = drover(1, &verify).json();
    assert_eq!(findings(&alone, false), broken, "nobody on this machine has them");
    // From now on the machine knows of a builder.
    place.site.lab.configure(&format!("builders = {builders}"));
    let ran = drover(0, &verify).json();
    assert_eq!(findings(&ran, true), broken);
    let found = ran["caches"][0]["findings"].as_array().unwrap();
    let from: BTreeSet<&str> = found.iter().map(|finding| finding["mended"].as_str().unwrap()).collect();
    assert_eq!(from.len(), 1, "{found:?}");
    assert_ne!(from.first(), Some(&"this store"));
    drover(0, &["cache", "verify", "acme", "--deep"]);
}
