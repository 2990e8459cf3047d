//! Stores that only Nix writes to: what is pushed there goes through `nix copy`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::push_http::{FLAKE, nix_takes, pushed, set};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::Site;

/// Names of what a cache in a directory has.
fn names(dir: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let records = files.filter(|path| path.is_file() && path.extension().is_some_and(|end| end == "narinfo"));
    let name = |text: String| text.lines().next().unwrap().rsplit('/').next().unwrap()[33..].to_owned();
    records.map(|path| name(fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn nix_copies_what_is_pushed() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), FLAKE);
        let (key, dir) = (site.key("copied-1"), site.lab.path("copied"));
        let plain = format!("file://{}", dir.display());
        let url = format!("nix:{plain}?secret-key={}", key.secret.display());
        let document = site.exits(0, &["run", "--json", "--push-to", &url]).json();
        assert!(pushed(&document).values().all(|complete| complete == "complete"), "{document}");
        assert_eq!(names(&dir), set(&["app-1.0", "lib-1.0", "base-1.0", "big-1.0"]));
        // Again: nothing is left to do. What got lost is all that is copied.
        let quiet = site.exits(0, &["push", "--push-to", &url]);
        assert!(quiet.last_line().contains("nothing to push"), "{}", quiet.stderr);
        let lost = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let lost = lost.filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("-big-1.0\n")));
        lost.for_each(|path| fs::remove_file(path).unwrap());
        let again = site.exits(0, &["push", "--push-to", &url]);
        assert!(again.stderr.contains("1 path pushed to"), "{}", again.stderr);
        let installable = format!("{}#app.outPath", site.flake.display());
        let app = site.lab.run("nix", &["eval", "--raw", &installable]);
        nix_takes(nix, &site, &plain, &key.public, &app);
    });
}

#[test]
fn what_nix_cannot_copy_to_is_found_out_first() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    for (url, code, expected) in [
        ("nix:foo://bar", 2, "don't know how to open Nix store"),
        ("nix:https://me:hunter2@cache.example", 2, "a password in its URL would be seen"),
        ("nix:file:///dev/null/x", 4, "gave no answer"),
    ] {
        let ran = site.exits(code, &["run", "--push-to", url]);
        assert!(ran.stderr.contains(expected) && !ran.stderr.contains("hunter2"), "{url}: {}", ran.stderr);
    }
    // What other tools call it.
    let ran = site.exits(2, &["run", "--copy-to", "foo://bar"]);
    assert!(ran.stderr.contains("'nix:foo://bar'"), "{}", ran.stderr);
}

#[test]
fn a_store_that_breaks_leaves_the_run_with_what_is_missing() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let dir = site.lab.path("copied");
    // A directory where the record of a path should be: Nix cannot write that, and what refers to it waits in vain.
    let installable = format!("{}#app.outPath", site.flake.display());
    let app = site.lab.run("nix", &["eval", "--raw", &installable]);
    let hash = &app.rsplit('/').next().unwrap()[..32];
    fs::create_dir_all(dir.join(format!("{hash}.narinfo/x"))).unwrap();
    let url = format!("nix:file://{}", dir.display());
    let ran = site.exits(5, &["run", "--push-to", &url]);
    assert!(ran.stderr.contains("nix copy: "), "{}", ran.stderr);
    assert_eq!(names(&dir), set(&["lib-1.0", "base-1.0", "big-1.0"]));
}
