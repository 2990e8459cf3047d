//! Who fetches what, for everybody: the daemon where it knows the cache, drover where it does not, and nobody where the
//! store would not take it. What a cache has lost costs what was lost and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, Nix, Who, each_nix, everybody};
use crate::support::site::{Key, Ran, Site, base, narinfos};

/// top → c → b → a, each output naming the one below it; only `top` is never in the cache.
const TOWER: &str = r#"{ outputs = _: let
  mk = name: deps: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh";
    args = [ "-c" "set -e; echo ${name} ${toString deps} > $out" ]; };
  a = mk "a" [ ]; b = mk "b" [ a ]; c = mk "c" [ b ]; top = mk "top" [ c ];
  in { packages.x86_64-linux = { inherit a b c top; }; }; }"#;

/// Somebody's site, and a cache signed with the key that holds a, b and c, which somebody else has built.
fn tower(nix: &Nix, who: Who) -> (Site, Key) {
    let site = Site::of(Lab::of(nix, who), TOWER);
    let maker = Site::of(Lab::chroot(nix), TOWER);
    let key = maker.key("tower-1");
    let url = format!("file://{}?secret-key={}", site.cache().display(), key.secret.display());
    maker.exits(0, &["run", "c", "--push-to", &url]);
    site.lab.give(&site.cache());
    let key = Key { secret: site.lab.write("tower.key", &std::fs::read_to_string(&key.secret).unwrap()), ..key };
    (site, key)
}

fn cache_url(site: &Site) -> String {
    format!("file://{}", site.cache().display())
}

/// `[cache.tower]` of drover.toml.
fn configured(site: &Site, key: &Key) {
    let keys = format!("url = \"{}\"\npublic-keys = [\"{}\"]\n", cache_url(site), key.public);
    site.edit("drover.toml", &format!("[cache.tower]\n{keys}"));
}

/// What a run of `top` built and fetched.
fn done(site: &Site) -> (BTreeSet<String>, BTreeSet<String>) {
    let events = site.events();
    (events.built().into_iter().collect(), events.fetched().into_iter().collect())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The output of `top` is in the store, with all below it.
fn stands(site: &Site, ran: &Ran) {
    let out = ran.json()["attrs"][0]["outputs"]["out"].as_str().unwrap().to_owned();
    let closure = site.lab.run("nix-store", &["--query", "--requisites", &out]);
    let names: BTreeSet<String> = closure.lines().map(|path| base(path)[33..].to_owned()).collect();
    assert_eq!(names, set(&["a", "b", "c", "top"]));
}

/// The record of a path, and its NAR.
fn files(cache: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let records = narinfos(cache);
    let (path, text) = records.iter().find(|(path, _)| &path[33..] == name).unwrap();
    let url = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
    (cache.join(format!("{}.narinfo", &path[..32])), cache.join(url))
}

/// A record loses a line.
fn lose_line(record: &Path, start: &str) {
    let text = std::fs::read_to_string(record).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with(start));
    std::fs::write(record, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

#[test]
fn a_cache_of_nix_conf_is_fetched_from_by_everybody() {
    each_nix(|nix| {
        for who in everybody() {
            eprintln!("-- as {who:?}");
            let (site, key) = tower(nix, who);
            let conf = format!("substituters = {}\ntrusted-public-keys = {}", cache_url(&site), key.public);
            site.lab.configure(&conf);
            let ran = site.exits(0, &["run", "top", "--json"]);
            assert_eq!(done(&site), (set(&["top"]), set(&["c"])), "{}", ran.stderr);
            stands(&site, &ran);
        }
    });
}

#[test]
fn a_cache_of_drover_toml_is_fetched_from_as_far_as_the_store_takes_its_paths() {
    each_nix(|nix| {
        for who in everybody() {
            eprintln!("-- as {who:?}");
            let (site, key) = tower(nix, who);
            configured(&site, &key);
            let ran = site.exits(0, &["run", "top", "--json"]);
            let expected = match who {
                // The daemon knows neither the cache nor the key, and would take nothing of it.
                Who::Client { trusted: false } => (set(&["a", "b", "c", "top"]), set(&[])),
                Who::Root | Who::Owner | Who::Client { trusted: true } => (set(&["top"]), set(&["c"])),
            };
            assert_eq!(done(&site), expected, "{}", ran.stderr);
            stands(&site, &ran);
        }
    });
}

#[test]
fn drover_downloads_what_a_daemon_takes_and_does_not_fetch() {
    each_nix(|nix| {
        for who in everybody().into_iter().filter(|who| matches!(who, Who::Client { trusted: false })) {
            for compression in ["zstd", "xz", "bzip2", "none"] {
                let (site, key) = tower(nix, who);
                // The same cache as another Nix would write it.
                let repacked = format!("file://{}?compression={compression}", site.lab.path("packed").display());
                let out = site.exits(0, &["plan", "c", "--json"]).json()["attrs"][0]["outputs"]["out"].clone();
                let copy = ["copy", "--no-check-sigs", "--from", &cache_url(&site), "--to", &repacked];
                site.lab.run_bare("nix", &[&copy[..], &[out.as_str().unwrap()]].concat());
                site.edit(
                    "drover.toml",
                    &format!("[cache.tower]\nurl = \"file://{}\"\n", site.lab.path("packed").display()),
                );
                site.lab.configure(&format!("trusted-public-keys = {}", key.public));
                let ran = site.exits(0, &["run", "top", "--json"]);
                assert_eq!(done(&site), (set(&["top"]), set(&["c"])), "{compression}: {}", ran.stderr);
                stands(&site, &ran);
            }
        }
    });
}

#[test]
fn drover_downloads_from_a_server_whose_token_no_daemon_sends() {
    each_nix(|nix| {
        let (site, key) = tower(nix, Who::Root);
        let server = FakeCache::start(&site.cache());
        server.token("t0ken");
        let token = site.lab.write("token", "t0ken\n");
        let table = format!(
            "[cache.tower]\nurl = \"{}\"\npublic-keys = [\"{}\"]\ntoken-file = \"{}\"\n",
            server.url,
            key.public,
            token.display()
        );
        site.edit("drover.toml", &table);
        let ran = site.exits(0, &["run", "top", "--json"]);
        assert_eq!(done(&site), (set(&["top"]), set(&["c"])), "{}", ran.stderr);
        stands(&site, &ran);
        // A NAR that does not arrive whole is not believed.
        server.always("nar/*", Fault::Flipped);
        let other = Site { lab: Lab::chroot(nix), ..site };
        let ran = other.exits(0, &["run", "top", "--json"]);
        assert_eq!(done(&other).0, set(&["a", "b", "c", "top"]), "{}", ran.stderr);
        stands(&other, &ran);
    });
}

#[test]
fn a_user_s_own_nix_conf_moves_no_daemon() {
    each_nix(|nix| {
        for who in everybody().into_iter().filter(|who| matches!(who, Who::Client { .. })) {
            let (site, key) = tower(nix, who);
            let conf = format!("substituters = {}\ntrusted-public-keys = {}\n", cache_url(&site), key.public);
            std::fs::create_dir_all(site.lab.path("config/nix")).unwrap();
            std::fs::write(site.lab.path("config/nix/nix.conf"), conf).unwrap();
            let ran = site.exits(0, &["run", "top", "--json"]);
            let expected = match who {
                Who::Client { trusted: false } => (set(&["a", "b", "c", "top"]), set(&[])),
                _ => (set(&["top"]), set(&["c"])),
            };
            assert_eq!(done(&site), expected, "{who:?}: {}", ran.stderr);
        }
    });
}

#[test]
fn what_a_cache_has_lost_is_built_and_nothing_else() {
    each_nix(|nix| {
        // One client of a daemon is like the other here, and each takes its seconds.
        for who in everybody().into_iter().filter(|who| !matches!(who, Who::Owner | Who::Client { trusted: true })) {
            for fault in ["record", "reference", "signature", "nar gone", "nar cut", "nar corrupt"] {
                eprintln!("-- as {who:?}: {fault} of b");
                let (site, key) = tower(nix, who);
                let conf = format!("substituters = {}\ntrusted-public-keys = {}", cache_url(&site), key.public);
                site.lab.configure(&conf);
                let (record, nar) = files(&site.cache(), "b");
                match fault {
                    "record" => std::fs::remove_file(record).unwrap(),
                    "signature" => lose_line(&record, "Sig: "),
                    // The signature is over the references.
                    "reference" => lose_line(&record, "References: "),
                    "nar gone" => std::fs::remove_file(nar).unwrap(),
                    "nar cut" => {
                        let bytes = std::fs::read(&nar).unwrap();
                        std::fs::write(nar, &bytes[..bytes.len() / 2]).unwrap();
                    }
                    _ => {
                        let mut bytes = std::fs::read(&nar).unwrap();
                        let at = bytes.len() / 2;
                        bytes[at] ^= 0x55;
                        std::fs::write(nar, bytes).unwrap();
                    }
                }
                let ran = site.exits(0, &["run", "top", "--json"]);
                let (built, fetched) = done(&site);
                assert_eq!(built, set(&["b", "top"]), "{}", ran.stderr);
                assert!(fetched.contains("c"), "{fetched:?}");
                stands(&site, &ran);
            }
        }
    });
}
