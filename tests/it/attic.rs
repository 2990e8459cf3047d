//! Caches of an Attic server: pushed to by drover, read by real Nix, with a server that refuses what the real one does.

use std::collections::BTreeSet;
use std::fs;

use drover::id::{CacheId, StoreDir, StorePath};
use drover::store::cache::{Cache, CacheConfig, OpenContext, Patience};

use crate::push_http::{FLAKE, nix_takes, pushed, set};
use crate::support::attic_server::AtticServer;
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::service::Trouble;
use crate::support::site::{Key, Ran, Site, statuses};

/// Tries again at once.
pub(crate) const QUICK: &str = "retry-attempts=10&retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5";

/// What can be known of `hub` does not fit into a header; `big` is sent while it is made.
pub(crate) const MANY: &str = r#"{
  outputs = _:
    let
      build = name: more: script: derivation ({
        inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ];
      } // more);
      part = n: build "part-${toString n}" { } "echo ${toString n} > $out";
      hub = build "hub-1.0" { parts = builtins.genList part 80; } "echo $parts > $out";
    in {
      packages.x86_64-linux = {
        inherit hub;
        huge = build "huge-1.0" { inherit hub; } "echo $hub > $out; /usr/bin/head -c 26000000 /dev/urandom >> $out";
      };
    };
}
"#;

/// A flake, a key, and a server with the cache `acme`, of which Attic's own configuration knows.
struct Place {
    site: Site,
    key: Key,
    server: AtticServer,
}

impl Place {
    fn new(nix: &Nix, flake: &str) -> Self {
        Self::of(Site::of(Lab::plain(nix), flake), AtticServer::start)
    }

    fn of(site: Site, start: impl Fn(&str, &str, &std::path::Path, &str) -> AtticServer) -> Self {
        let key = site.key("acme-1");
        let server = start("acme", &site.lab.store_dir(), &key.secret, "t0ken");
        site.lab.write("config/attic/config.toml", &server.config("t0ken"));
        Self { site, key, server }
    }

    fn push(&self, code: i32, more: &[&str]) -> Ran {
        let url = format!("attic:acme?{QUICK}");
        self.site.exits(code, &[&["run", "--push-to", &url][..], more].concat())
    }

    fn uploads(&self) -> Vec<String> {
        self.server.state.uploads().into_iter().map(|upload| upload.name).collect()
    }

    /// All that is there can be fetched, and was sent as it should be.
    fn is_whole(&self) {
        assert_eq!(self.server.state.odd(), [""; 0]);
        assert_eq!(self.server.state.dangling(), [""; 0]);
    }

    fn output(&self, name: &str) -> String {
        let installable = format!("{}#{name}.outPath", self.site.flake.display());
        self.site.lab.run("nix", &["eval", "--raw", &installable])
    }
}

#[test]
fn nix_reads_what_was_pushed_to_attic() {
    each_nix(|nix| {
        let place = Place::new(nix, MANY);
        let document = place.push(0, &["--json"]).json();
        assert!(pushed(&document).values().all(|complete| complete == "complete"), "{document}");
        place.is_whole();
        assert_eq!(place.uploads().len(), 82);
        let uploads = place.server.state.uploads();
        let preambles: Vec<_> = uploads.iter().filter(|upload| upload.preamble).map(|upload| &*upload.name).collect();
        assert_eq!(preambles, ["hub-1.0"]);
        // One look at each cache before the run, then one question for all paths.
        assert_eq!(place.server.state.control.count("config"), 1);
        assert!(place.server.state.control.count("missing") <= 4, "{:?}", place.server.state.control.log());
        let huge = place.output("huge");
        nix_takes(nix, &place.site, &place.server.substituter(), &place.key.public, &huge);
    });
}

#[test]
fn only_what_attic_lacks_is_sent() {
    let place = Place::new(&newest(), FLAKE);
    place.push(0, &[]);
    assert_eq!(place.uploads().len(), 4);
    place.push(0, &[]);
    assert_eq!(place.uploads().len(), 4);
    place.server.state.forget("lib-1.0");
    let ran = place.site.exits(0, &["push", "--push-to", "attic:ci:acme"]);
    assert!(ran.stderr.contains("1 path pushed to"), "{}", ran.stderr);
    let uploads = place.server.state.uploads();
    assert_eq!((uploads.len(), uploads[4].name.as_str(), uploads[4].deduplicated), (5, "lib-1.0", true));
    place.is_whole();
}

#[test]
fn logins_to_attic_are_found_in_this_order() {
    let place = Place::new(&newest(), FLAKE);
    let lab = &place.site.lab;
    let quiet = |ran: &Ran| assert!(!ran.stderr.contains("t0ken") && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
    let runs = |code: i32, url: &str, said: &str| {
        let ran = place.site.exits(code, &["run", "--push-to", url]);
        assert!(ran.stderr.contains(said), "{url}: {}", ran.stderr);
        quiet(&ran);
    };
    let at = format!("attic:{}acme", place.server.endpoint);
    let config = |text: &str| lab.write("config/attic/config.toml", text);
    let file = lab.write("token", "t0ken\n");
    // Its own configuration, by name and by place.
    runs(0, "attic:acme", "complete");
    runs(0, &at, "nothing");
    config(&place.server.config("hunter2"));
    runs(2, "attic:acme", "token from: Attic's configuration");
    runs(2, &at, "HTTP 401");
    let endpoint = &place.server.endpoint;
    config(&format!("[servers.x]\nendpoint = \"{}\"\ntoken-file = \"{}\"\n", endpoint, file.display()));
    runs(0, "attic:acme", "nothing");
    // What is nearer wins.
    config(&place.server.config("hunter2"));
    place.site.edit("drover.toml", &format!("[cache.acme]\nurl = \"{at}\"\ntoken-file = \"{}\"\n", file.display()));
    runs(0, "acme", "nothing");
    runs(0, &at.replace("http://", "http://me:t0ken@"), "nothing");
    // What is wrong is said with its place.
    config("[servers.ci]\nendpoint = \"http://127.0.0.1:1\"\ntoken = hunter2\n");
    runs(2, "attic:acme", "is not what Attic writes (line 3)");
    config(&place.server.config("t0ken"));
    runs(2, "attic:other:acme", "has no server 'other'");
    runs(2, "attic:nix", "the server has no cache 'nix'");
    fs::remove_file(lab.path("config/attic/config.toml")).unwrap();
    runs(2, "attic:acme", "names no server");
    runs(2, &at, "no login found");
}

#[test]
fn a_private_cache_of_attic_is_read_with_its_login() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let place = Place::of(site, AtticServer::private);
    place.push(0, &[]);
    let (store, var) = (place.site.lab.physical(), place.site.lab.path("var"));
    fs::rename(&store, place.site.lab.path("store-before")).unwrap();
    fs::rename(&var, place.site.lab.path("var-before")).unwrap();
    place.site.edit(
        "drover.toml",
        &format!("[cache.acme]\nurl = \"attic:acme\"\npublic-keys = [\"{}\"]\n", place.key.public),
    );
    let document = place.site.exits(0, &["plan", "--json"]).json();
    assert!(statuses(&document).values().all(|status| status == "cached"), "{document}");
    place.site.exits(0, &["run", "--download"]);
}

#[test]
fn an_attic_that_stumbles_gets_all_in_the_end() {
    let place = Place::new(&newest(), MANY);
    let early = || Trouble::Early(429, "retry-after", "0");
    place.server.state.control.next(
        "upload",
        [early(), Trouble::Status(503), Trouble::Cut, Trouble::Lost, Trouble::Says(500, "no chunks".to_owned())],
    );
    place.server.state.control.next("missing", [Trouble::Status(503), early()]);
    place.push(0, &["hub"]);
    place.is_whole();
    // Each of them in the middle of what is sent while it is made.
    for trouble in [early(), Trouble::Status(503), Trouble::Cut, Trouble::Lost] {
        place.server.state.control.next("upload", [trouble.clone(), trouble]);
        place.push(0, &["huge"]);
        place.is_whole();
        assert!(place.server.state.names().contains("huge-1.0"));
        place.server.state.forget("huge-1.0");
    }
}

#[test]
fn what_attic_refuses_is_said_and_what_it_has_is_whole() {
    let place = Place::new(&newest(), MANY);
    let limit = "The path is too large. t0ken".to_owned();
    place.server.state.control.next("upload", (0..30).map(|_| Trouble::Says(400, limit.clone())));
    let ran = place.push(5, &["--json"]);
    assert!(!ran.stderr.contains("t0ken"), "{}", ran.stderr);
    place.is_whole();
    let names = place.server.state.names();
    assert!(names.len() == 50 && !names.contains("hub-1.0") && !names.contains("huge-1.0"), "{names:?}");
    place.server.state.control.heal();
    place.push(0, &[]);
    place.is_whole();
}

#[test]
fn a_token_that_ends_in_the_middle_leaves_attic_whole() {
    let place = Place::new(&newest(), MANY);
    place.server.state.control.always("upload", Trouble::Status(401));
    let ran = place.push(5, &["--json"]);
    assert!(ran.stderr.contains("it refused the login (HTTP status 401)"), "{}", ran.stderr);
    assert_eq!(pushed(&ran.json())["huge"], "no");
    assert_eq!(place.server.state.names(), BTreeSet::new());
    // A file that somebody keeps fresh is read anew.
    place.server.state.control.heal();
    let file = place.site.lab.write("token", "t0ken\n");
    place.site.edit(
        "drover.toml",
        &format!("[cache.acme]\nurl = \"attic:acme?{QUICK}\"\npush = true\ntoken-file = \"{}\"\n", file.display()),
    );
    place.server.state.control.next("upload", [Trouble::Hang]);
    let running = place.site.start(&["push"]);
    crate::support::site::wait_until("an upload", || (place.server.state.control.count("upload") > 0).then_some(()));
    place.server.state.token(Some("another"));
    fs::write(&file, "another\n").unwrap();
    running.signal("INT");
    running.wait().expect(130);
    place.is_whole();
    place.site.exits(0, &["push"]);
    place.is_whole();
    assert_eq!(place.server.state.names().len(), 82);
}

#[test]
fn two_runs_push_one_closure_to_attic() {
    let place = Place::new(&newest(), MANY);
    place.site.exits(0, &["run"]);
    let url = format!("attic:acme?{QUICK}");
    let both = [0, 1].map(|_| place.site.start(&["push", "--push-to", &url]));
    for running in both {
        running.wait().expect(0);
    }
    place.is_whole();
    assert_eq!(place.server.state.names().len(), 82);
}

#[test]
fn a_push_to_attic_that_is_killed_is_taken_up_again() {
    let place = Place::new(&newest(), MANY);
    place.site.exits(0, &["run"]);
    let url = format!("attic:acme?{QUICK}");
    place.server.state.control.next("upload", (0..60).map(|_| Trouble::Status(200)).take(0).chain([Trouble::Hang]));
    let running = place.site.start(&["push", "--push-to", &url]);
    crate::support::site::wait_until("some uploads", || (place.uploads().len() > 20).then_some(()));
    running.signal("KILL");
    let _ = running.wait();
    place.is_whole();
    let before = place.uploads().len();
    place.site.exits(0, &["push", "--push-to", &url]);
    place.is_whole();
    assert_eq!(place.server.state.names().len(), 82);
    // What was there was not sent again.
    assert!(place.uploads().len() <= 82 + 16, "{before} and {}", place.uploads().len());
    assert_eq!(set(&["hub-1.0"]).intersection(&place.server.state.names()).count(), 1);
}

/// A cache of this server as the library opens it.
async fn open(server: &AtticServer, config: CacheConfig) -> Cache {
    let url = format!("attic:{}acme", server.endpoint.replace("http://", "http://me:t0ken@"));
    let patience = Patience { delay: std::time::Duration::ZERO, ..Patience::default() };
    let context = OpenContext { patience, ..OpenContext::new(StoreDir::default()) };
    Cache::open(CacheId(0), CacheConfig { url, pull: true, ..config }, &context).await.unwrap()
}

#[tokio::test]
async fn many_paths_are_few_questions() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, drover::store::cache::SecretKey::generate("acme-1").unwrap().secret_text()).unwrap();
    let server = AtticServer::start("acme", "/nix/store", &key, "t0ken");
    let cache = open(&server, CacheConfig::default()).await;
    assert!(cache.is_bulk());
    let paths: Vec<StorePath> = (0..40_000u32)
        .map(|at| {
            let mut digest = [7; 20];
            digest[..4].copy_from_slice(&at.to_le_bytes());
            StorePath::from_parts(digest, "x").unwrap()
        })
        .collect();
    let before = server.state.control.count("missing");
    assert_eq!(cache.missing(&paths).await.unwrap(), vec![true; 40_000]);
    assert_eq!(server.state.control.count("missing") - before, 3);
    // A server that takes less gets less.
    server.state.control.next("missing", [Trouble::Status(413)]);
    assert_eq!(cache.missing(&paths[..10]).await.unwrap(), vec![true; 10]);
    assert_eq!(server.state.control.count("missing") - before, 6);
    // Who may only read asks one by one.
    server.state.token(Some("other"));
    let cache = open(&server, CacheConfig::default()).await;
    assert!(!cache.is_bulk());
}
