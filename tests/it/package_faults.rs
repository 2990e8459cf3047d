//! A cache that promises what it cannot keep: a record refers to what is not there, another has lost its signature.
//! What cannot be had is built, and the run ends well.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::nix::{Lab, each_nix};
use crate::support::site::{Key, Site, base, narinfos, strings};

/// `library` refers to `data`, which nothing else refers to; `program` uses both `library` and `tool`.
const FLAKE: &str = r#"{ outputs = { self }: { packages.x86_64-linux = let
  make = name: uses: script: derivation (uses // {
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ];
  });
in rec {
  data = make "data" { } "echo data > $out";
  library = make "library" { inherit data; } "echo $data > $out";
  tool = make "tool" { } "echo tool > $out";
  settled = make "settled" { } "echo settled > $out";
  program = make "program" { inherit library tool settled; salt = builtins.readFile ./salt; }
    "echo $library $tool $settled > $out";
}; }; }"#;

fn record_of(cache: &Path, name: &str) -> std::path::PathBuf {
    let path = narinfos(cache).into_keys().find(|path| path[33..] == *name).unwrap();
    cache.join(format!("{}.narinfo", &path[..32]))
}

/// A site whose cache has all but the last version of `program`, with both faults; and the key of the cache.
fn site_with_faults(lab: Lab) -> (Site, Key) {
    lab.write("flake/salt", "1\n");
    let site = Site::of(lab, FLAKE);
    let key = site.key("faults-1");
    site.exits(0, &["run", "--push-to", &site.cache_url(&key)]);
    std::fs::remove_file(record_of(&site.cache(), "data")).unwrap();
    let tool = record_of(&site.cache(), "tool");
    let text = std::fs::read_to_string(&tool).unwrap();
    let unsigned: Vec<&str> = text.lines().filter(|line| !line.starts_with("Sig: ")).collect();
    std::fs::write(&tool, unsigned.join("\n") + "\n").unwrap();
    (site, key)
}

/// An empty store that reads from that cache.
fn another(site: &Site, key: &Key) -> Site {
    let lab = Lab::chroot(&site.lab.nix);
    lab.configure(&format!("substituters = file://{}\ntrusted-public-keys = {}", site.cache().display(), key.public));
    Site { flake: site.flake.clone(), lab }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A run with faults in the cache.
struct Case {
    salt: &'static str,
    words: &'static [&'static str],
    /// How many attrs these words name.
    asked: usize,
    /// Drvs that have to be built for them.
    needed: &'static [&'static str],
}

#[test]
fn a_run_builds_what_a_cache_only_promises() {
    // Once `data` is built, `library` can be fetched.
    let cases = [
        Case { salt: "1\n", words: &["--download"], asked: 5, needed: &["data", "tool"] },
        Case { salt: "1\n", words: &["--out-link", "result"], asked: 5, needed: &["data", "tool"] },
        Case { salt: "1\n", words: &["library", "--download"], asked: 1, needed: &["data"] },
        Case { salt: "1\n", words: &["tool", "--out-link", "result"], asked: 1, needed: &["tool"] },
        Case { salt: "1\n", words: &["program", "--download"], asked: 1, needed: &["data", "tool"] },
        Case { salt: "2\n", words: &["program"], asked: 1, needed: &["data", "program", "tool"] },
    ];
    each_nix(|nix| {
        let (site, key) = site_with_faults(Lab::chroot(nix));
        for Case { salt, words, asked, needed } in &cases {
            site.edit("salt", salt);
            let other = another(&site, &key);
            let document = other.exits(0, &[&["run", "--json"][..], words].concat()).json();
            let built: BTreeSet<String> = other.events().built().into_iter().collect();
            assert!(built.is_superset(&names(needed)), "{words:?}: only {built:?} were built");
            assert!(!built.contains("settled"), "{words:?}: built for nothing");
            let attrs = document["attrs"].as_array().unwrap();
            assert_eq!(attrs.len(), *asked);
            let outputs = attrs.iter().map(|attr| attr["outputs"]["out"].as_str().unwrap());
            let check: Vec<&str> = ["--check-validity"].into_iter().chain(outputs).collect();
            other.lab.run("nix-store", &check);
            std::fs::remove_file(site.flake.join("result")).ok();
        }
    });
}

#[test]
fn a_plan_builds_what_a_cache_only_promises() {
    each_nix(|nix| {
        let (site, key) = site_with_faults(Lab::chroot(nix));
        site.edit("salt", "2\n");
        let plan = another(&site, &key).exits(0, &["plan", "program", "--json"]).json();
        let planned = |key: &str| -> BTreeSet<String> {
            strings(&plan["drvs"][key]).iter().map(|path| base(path)[33..].to_owned()).collect()
        };
        assert_eq!(planned("build"), names(&["data.drv", "program.drv", "tool.drv"]));
        // `library` is fetched once `data` is there.
        assert_eq!(planned("fetch"), names(&["library", "settled"]));
    });
}
