//! Caches of a niks3 server: pushed to by drover, read by real Nix, with a server and a bucket that refuse what the
//! real ones do.

use std::fs;

use crate::attic::{MANY, PATHS, QUICK};
use crate::push_http::{FLAKE, nix_takes, pushed};
use crate::support::niks3_server::Niks3Server;
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::service::Trouble;
use crate::support::site::{Key, Ran, Site, base, statuses, wait_until};

/// A flake, a key, and a server, of whose token niks3's own client knows.
struct Place {
    site: Site,
    key: Key,
    server: Niks3Server,
}

impl Place {
    fn new(nix: &Nix, flake: &str) -> Self {
        let site = Site::of(Lab::plain(nix), flake);
        let key = site.key("niks-1");
        let server = Niks3Server::start(&site.lab.store_dir(), Some(&key.secret), "t0ken");
        let place = Self { site, key, server };
        place.token("t0ken\n");
        place
    }

    /// What niks3's own client has written down.
    fn token(&self, text: &str) {
        let file = self.site.lab.path("config/niks3/auth-token");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn url(&self) -> String {
        format!("niks3:{}?{QUICK}", self.server.url)
    }

    fn push(&self, code: i32, more: &[&str]) -> Ran {
        let url = self.url();
        self.site.exits(code, &[&["run", "--push-to", &url][..], more].concat())
    }

    /// All that is there can be fetched and stays, and was sent as it should be.
    fn is_whole(&self) {
        assert_eq!(self.server.bucket.odd(), [""; 0]);
        assert_eq!(self.server.bucket.dangling(), [""; 0]);
        assert_eq!(self.server.state.lost(), [""; 0]);
    }

    fn output(&self, name: &str) -> String {
        let installable = format!("{}#{name}.outPath", self.site.flake.display());
        self.site.lab.run("nix", &["eval", "--raw", &installable])
    }

    /// The record of an output.
    fn record(&self, name: &str) -> String {
        let key = format!("{}.narinfo", &base(&self.output(name))[..32]);
        self.server.bucket.records()[&key].clone()
    }
}

/// What follows `NAME: ` in a record.
fn field<'a>(record: &'a str, name: &str) -> &'a str {
    record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

#[test]
fn nix_reads_what_was_pushed_to_niks3() {
    each_nix(|nix| {
        let place = Place::new(nix, MANY);
        let document = place.push(0, &["--json"]).json();
        assert!(pushed(&document).values().all(|complete| complete == "complete"), "{document}");
        place.is_whole();
        let control = &place.server.state.control;
        assert_eq!((place.server.bucket.names().len(), place.server.state.closures().len()), (PATHS, PATHS));
        let calls =
            ["config", "begin", "sign", "complete", "more parts", "complete parts"].map(|name| control.count(name));
        assert_eq!(calls, [1, PATHS, PATHS, PATHS, 1, 1]);
        assert_eq!((place.server.state.pending(), place.server.bucket.open_uploads()), (0, 0));
        // A file that others may write in another way is not described.
        let record = place.record("huge");
        assert!(!record.contains("FileHash") && !record.contains("FileSize"), "{record}");
        let huge = place.output("huge");
        nix_takes(nix, &place.site, &place.server.substituter, &place.key.public, &huge);
    });
}

#[test]
fn only_what_niks3_lacks_is_sent() {
    let place = Place::new(&newest(), FLAKE);
    place.push(0, &[]);
    let written = place.server.bucket.written().len();
    assert_eq!(written, 8);
    place.push(0, &[]);
    assert_eq!(place.server.bucket.written().len(), written);
    // The first time each path is begun, then all that come together are asked for at once.
    let begun = place.server.state.control.count("begin");
    assert!((5..=6).contains(&begun) && place.server.state.pending() == 0, "{:?}", place.server.state.control.log());
    // What went from the bucket is missed, though the books say that it is there.
    let url = field(&place.record("big"), "URL").to_owned();
    place.server.bucket.remove(&url);
    place.site.exits(0, &["push", "--push-to", &place.url()]);
    place.is_whole();
    assert!(place.server.bucket.written()[written..].contains(&url));
}

#[test]
fn logins_to_niks3_are_found_in_this_order() {
    let place = Place::new(&newest(), FLAKE);
    let lab = &place.site.lab;
    let url = place.url();
    let ends = |ran: &Ran, code: i32, said: &str| {
        ran.expect(code);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert!(!ran.stderr.contains("t0ken") && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
    };
    let run = |url: &str| place.site.drover(&["run", "--push-to", url]);
    ends(&run(&url), 0, "");
    place.token("hunter2\n");
    ends(&run(&url), 2, "auth-token");
    // A variable names another file.
    let file = lab.write("token", "t0ken\n");
    let mut command = place.site.command(&["run", "--push-to", &url]);
    command.env("NIKS3_AUTH_TOKEN_FILE", &file);
    assert!(command.output().unwrap().status.success());
    place.site.edit("drover.toml", &format!("[cache.acme]\nurl = \"{url}\"\ntoken-file = \"{}\"\n", file.display()));
    ends(&run("acme"), 0, "");
    fs::remove_file(lab.path("config/niks3/auth-token")).unwrap();
    ends(&run(&url), 2, "no login found");
}

#[test]
fn a_bucket_of_niks3_is_read_by_drover() {
    let place = Place::new(&newest(), FLAKE);
    place.push(0, &[]);
    for dir in [place.site.lab.physical(), place.site.lab.path("var")] {
        fs::rename(&dir, dir.with_extension("before")).unwrap();
    }
    let config =
        format!("[cache.acme]\nurl = \"niks3:{}\"\npublic-keys = [\"{}\"]\n", place.server.url, place.key.public);
    place.site.edit("drover.toml", &config);
    let document = place.site.exits(0, &["plan", "--json"]).json();
    assert!(statuses(&document).values().all(|status| status == "to_fetch"), "{document}");
}

#[test]
fn a_niks3_that_stumbles_gets_all_in_the_end() {
    let place = Place::new(&newest(), MANY);
    let early = || Trouble::Early(429, "retry-after", "0");
    for call in ["begin", "sign", "complete", "more parts", "complete parts"] {
        let troubles = [early(), Trouble::Status(503), Trouble::Cut, Trouble::Lost];
        place.server.state.control.next(call, troubles);
    }
    let slow = "<Error><Code>SlowDown</Code></Error>".to_owned();
    for call in ["PUT nar", "PUT narinfo"] {
        let troubles = [early(), Trouble::Says(503, slow.clone()), Trouble::Cut, Trouble::Lost, Trouble::Status(500)];
        place.server.bucket.control.next(call, troubles);
    }
    let document = place.push(0, &["--json"]).json();
    assert!(pushed(&document).values().all(|complete| complete == "complete"), "{document}");
    place.is_whole();
    assert_eq!(place.server.bucket.names().len(), PATHS);
}

#[test]
fn a_token_that_ends_in_the_middle_leaves_niks3_whole() {
    for call in ["begin", "sign", "complete"] {
        let place = Place::new(&newest(), MANY);
        let troubles = (0..40).map(|_| Trouble::None).chain((40..PATHS).map(|_| Trouble::Status(401)));
        place.server.state.control.next(call, troubles);
        let ran = place.push(5, &["--json"]);
        assert!(ran.stderr.contains("it refused the login (HTTP status 401)"), "{}", ran.stderr);
        assert_ne!(pushed(&ran.json())["huge"], "complete");
        place.is_whole();
        place.server.state.control.heal();
        place.push(0, &[]);
        place.is_whole();
        assert_eq!(place.server.state.closures().len(), PATHS, "{call}");
    }
}

#[test]
fn what_the_bucket_of_niks3_refuses_is_said() {
    let place = Place::new(&newest(), FLAKE);
    place
        .server
        .bucket
        .control
        .always("PUT nar", Trouble::Says(403, "<Error><Code>AccessDenied</Code></Error>".into()));
    let ran = place.push(5, &[]);
    assert!(ran.stderr.contains("HTTP status 403, AccessDenied"), "{}", ran.stderr);
    // The place is as good as a login.
    assert!(!ran.stderr.contains("X-Amz"), "{}", ran.stderr);
    place.is_whole();
    assert!(place.server.bucket.names().is_empty());
}

#[test]
fn two_runs_push_one_closure_to_niks3() {
    let place = Place::new(&newest(), MANY);
    place.site.exits(0, &["run"]);
    let url = place.url();
    let both = [0, 1].map(|_| place.site.start(&["push", "--push-to", &url]));
    for running in both {
        running.wait().expect(0);
    }
    place.is_whole();
    assert_eq!((place.server.bucket.names().len(), place.server.bucket.open_uploads()), (PATHS, 0));
}

#[test]
fn a_push_to_niks3_that_is_killed_is_taken_up_again() {
    let place = Place::new(&newest(), MANY);
    place.site.exits(0, &["run"]);
    let url = place.url();
    let troubles = (0..40).map(|_| Trouble::None).chain((40..PATHS).map(|_| Trouble::Hang));
    place.server.bucket.control.next("PUT narinfo", troubles);
    let running = place.site.start(&["push", "--push-to", &url]);
    wait_until("half of it", || (place.server.bucket.names().len() == 40).then_some(()));
    running.signal("KILL");
    let _ = running.wait();
    place.server.bucket.control.heal();
    assert_eq!(place.server.bucket.dangling(), [""; 0]);
    place.site.exits(0, &["push", "--push-to", &url]);
    place.is_whole();
    assert_eq!(place.server.bucket.names().len(), PATHS);
}
