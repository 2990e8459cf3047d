//! Pushing to caches on servers, with `drover run` and with `drover push`: real Nix at both ends, and servers that
//! refuse, stumble and lie.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::fake_cache::{FakeCache, Fault, Request};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Key, Ran, Site, base, finish, narinfos, statuses, wait_until};

/// Two attrs: `app` refers to `lib`, which refers to `base`; `big` does not compress and refers to nothing.
pub(crate) const FLAKE: &str = r#"{
  outputs = _:
    let
      build = name: more: script: derivation ({
        inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ];
      } // more);
      base = build "base-1.0" { } "echo base > $out";
      lib = build "lib-1.0" { inherit base; } "echo $base lib > $out";
    in {
      packages.x86_64-linux.app = build "app-1.0" { inherit lib; } "echo $lib app > $out";
      packages.x86_64-linux.big = build "big-1.0" { } "/usr/bin/head -c 3000000 /dev/urandom > $out";
    };
}
"#;

/// The flake, a key, and a cache on a server that takes everything.
struct Place {
    site: Site,
    key: Key,
    server: FakeCache,
}

impl Place {
    fn new(nix: &Nix) -> Self {
        let site = Site::of(Lab::plain(nix), FLAKE);
        let dir = site.lab.path("served");
        fs::create_dir(&dir).unwrap();
        Self { key: site.key("served-1"), server: FakeCache::start(&dir).writable(), site }
    }

    /// Its URL with the key, and no patience.
    fn url(&self) -> String {
        format!("{}?{}", self.server.url, self.params())
    }

    fn params(&self) -> String {
        let quick = "retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5";
        format!("secret-key={}&retry-attempts=10&{quick}", self.key.secret.display())
    }

    /// `[cache.acme]` with this URL.
    fn config(&self, url: &str, more: &str) {
        self.site.edit("drover.toml", &format!("[cache.acme]\nurl = \"{url}\"\n{more}\n"));
    }

    /// `run --push-to` this server.
    fn run(&self, code: i32, more: &[&str]) -> Ran {
        let url = self.url();
        self.site.exits(code, &[&["run", "--push-to", &url][..], more].concat())
    }

    /// What the server is called.
    fn name(&self) -> &str {
        self.server.url.trim_start_matches("http://")
    }

    /// Uploads beyond the first look.
    fn uploads(&self) -> Vec<String> {
        self.server.uploads().into_iter().filter(|name| name != "nix-cache-info").collect()
    }

    /// Absolute output path of a package.
    fn output(&self, name: &str) -> String {
        let installable = format!("{}#{name}", self.site.flake.display());
        self.site.lab.run("nix", &["eval", "--raw", &format!("{installable}.outPath")])
    }

    /// Names of what the server has records of.
    fn names(&self) -> BTreeSet<String> {
        narinfos(self.server.root()).into_keys().map(|name| name[33..].to_owned()).collect()
    }
}

pub(crate) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Cache → how much of an attr it has.
pub(crate) fn pushed(document: &Value) -> BTreeMap<String, String> {
    let attrs = document["attrs"].as_array().unwrap().iter();
    let of = |attr: &Value| attr["pushed"].as_object().unwrap().values().map(|v| v.as_str().unwrap().to_owned()).next();
    attrs.filter_map(|attr| Some((attr["name"].as_str().unwrap().to_owned(), of(attr)?))).collect()
}

/// A new store that trusts only this key takes the path from the server.
pub(crate) fn nix_takes(nix: &Nix, like: &Site, url: &str, key: &str, path: &str) {
    // The store directory is part of every path, so the paths have to leave the old store.
    let dir = like.lab.physical();
    let aside = like.lab.path("aside");
    fs::create_dir(&aside).unwrap();
    for (from, to) in [(dir.clone(), "store"), (like.lab.path("var"), "var")] {
        fs::rename(from, aside.join(to)).unwrap();
    }
    like.lab.configure(&format!("require-sigs = true\ntrusted-public-keys = {key}"));
    like.lab.run("nix", &["copy", "--from", url, path]);
    let said = like.lab.run("nix", &["store", "verify", "--recursive", path]);
    assert_eq!(said, "", "nix store verify with Nix {}", nix.version);
    assert!(dir.join(base(path)).exists());
}

#[test]
fn nix_reads_what_was_pushed_to_a_server() {
    each_nix(|nix| {
        let place = Place::new(nix);
        let document = place.run(0, &["--json"]).json();
        assert_eq!(
            pushed(&document),
            [("app", "complete"), ("big", "complete")].map(|(a, b)| (a.into(), b.into())).into()
        );
        assert_eq!(place.names(), set(&["app-1.0", "lib-1.0", "base-1.0", "big-1.0"]));

        let log = place.server.log();
        let puts: Vec<&Request> = log.iter().filter(|request| request.method == "PUT").collect();
        assert_eq!(puts[0].name, "nix-cache-info", "the first look");
        for put in &puts {
            let mime = match put.name.as_str() {
                "nix-cache-info" => "text/x-nix-cache-info",
                name if name.ends_with(".narinfo") => "text/x-nix-narinfo",
                _ => "application/x-nix-nar",
            };
            assert_eq!(put.content_type.as_deref(), Some(mime), "{put:?}");
            assert!(put.content_length.is_some(), "{put:?}");
        }
        // A record comes after its NAR and after the records of what it refers to.
        let at = |name: &str| puts.iter().position(|put| put.name == name).unwrap_or_else(|| panic!("no {name}"));
        let records = narinfos(place.server.root());
        let field = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_start_matches(": ").to_owned()
        };
        for (name, text) in &records {
            let record = at(&format!("{}.narinfo", &name[..32]));
            assert!(at(&field(text, "URL")) < record, "{text}");
            for reference in field(text, "References").split_whitespace().filter(|reference| reference != name) {
                assert!(at(&format!("{}.narinfo", &reference[..32])) < record, "{text}");
            }
        }

        // No request too many: a record is asked for by the plan and by the push, written, and read back; a small NAR
        // is written and looked at, and only of a large one it is asked first whether it is there.
        let methods = |name: &str| -> Vec<&str> {
            log.iter().filter(|request| request.name == name).map(|request| &*request.method).collect()
        };
        for (name, text) in &records {
            let record = methods(&format!("{}.narinfo", &name[..32]));
            let written = record.iter().position(|method| *method == "PUT").unwrap();
            assert_eq!(record[written..], ["PUT", "GET"], "{name}: {record:?}");
            let expected: &[&str] = if name.ends_with("big-1.0") { &["HEAD", "PUT", "HEAD"] } else { &["PUT", "HEAD"] };
            assert_eq!(methods(&field(text, "URL")), expected, "{name}");
        }

        // Again: nothing to do, and nothing is sent.
        let before = place.uploads().len();
        place.run(0, &[]);
        let quiet = place.site.exits(0, &["push", "--push-to", &place.url()]);
        assert!(quiet.last_line().contains("nothing to push"), "{}", quiet.stderr);
        assert_eq!(place.uploads().len(), before);
        assert!(place.site.lab.path("tmp").read_dir().unwrap().next().is_none(), "a spool is left behind");

        let app = place.output("app");
        nix_takes(nix, &place.site, &place.server.url, &place.key.public, &app);
    });
}

#[test]
fn what_nix_copied_is_found() {
    each_nix(|nix| {
        let place = Place::new(nix);
        place.site.exits(0, &["run"]);
        let (app, big) = (place.output("app"), place.output("big"));
        let to = format!("{}?secret-key={}&compression=zstd", place.server.url, place.key.secret.display());
        fs::write(place.server.root().join("nix-cache-info"), format!("StoreDir: {}\n", place.site.lab.store_dir()))
            .unwrap();
        place.site.lab.run("nix", &["copy", "--to", &to, &app]);
        let before = place.uploads();
        let document = place.site.exits(0, &["push", &app, "--json", "--push-to", &place.url()]).json();
        assert_eq!(place.uploads(), before, "all of it was there");
        assert_eq!((document["version"].as_u64(), document["exit"].as_u64()), (Some(1), Some(0)));
        let paths = document["paths"].as_array().unwrap();
        assert_eq!(
            (paths.len(), &paths[0]["path"], &paths[0]["pushed"][place.name()]),
            (1, &app.clone().into(), &"complete".into())
        );
        // What it does not have is all that is sent.
        place.site.exits(0, &["push", &app, &big, "--push-to", &place.url()]);
        assert_eq!(place.uploads().len(), before.len() + 2);
    });
}

#[test]
fn a_server_that_stumbles_gets_everything() {
    let place = Place::new(&newest());
    let busy = || Fault::With(429, "retry-after", "0".into());
    place.server.next("PUT nix-cache-info", [busy()]);
    place
        .server
        .next("PUT nar", [busy(), Fault::Status(500), Fault::Cut, busy(), Fault::Status(503), Fault::Status(408)]);
    place.server.next("PUT narinfo", [Fault::Cut, busy(), Fault::Status(502)]);
    let ran = place.run(0, &["--json"]);
    assert_eq!(place.names(), set(&["app-1.0", "lib-1.0", "base-1.0", "big-1.0"]));
    assert_eq!(place.uploads().len(), 4 * 2 + 6 + 3, "each fault costs one more upload");
    assert!(pushed(&ran.json()).values().all(|complete| complete == "complete"));
    let big = place.output("big");
    nix_takes(&place.site.lab.nix.clone(), &place.site, &place.server.url, &place.key.public, &big);
}

#[test]
fn what_cannot_be_pushed_is_told_and_pushed_later() {
    for (rule, fault, class, why) in [
        ("PUT nar", Fault::With(429, "retry-after", "0".into()), "cache", "HTTP status 429, 10 tries"),
        ("PUT nar", Fault::Status(500), "cache", "HTTP status 500"),
        ("PUT nar", Fault::Cut, "network", "tries"),
        ("PUT narinfo", Fault::Status(507), "disk_full", "it is full (HTTP status 507)"),
        ("PUT nar", Fault::Status(403), "cache", "HTTP status 403"),
        ("PUT narinfo", Fault::With(302, "location", "/nix-cache-info".into()), "cache", "uploads elsewhere"),
        ("PUT nar", Fault::With(302, "location", "/nix-cache-info".into()), "cache", "uploads elsewhere"),
    ] {
        let place = Place::new(&newest());
        place.config(&place.url(), "push = true");
        place.server.always(rule, fault);
        let ran = place.site.exits(5, &["run", "--json"]);
        assert!(pushed(&ran.json()).values().all(|complete| complete == "no"), "{rule} {}", ran.out());
        let failed = place.site.events();
        let failed = failed.of("push_ended").into_iter().filter(|event| event["class"] == class);
        assert!(failed.count() > 0, "{class}: {}", ran.stderr);
        let run = ran.json()["run"].as_str().unwrap()[..8].to_owned();
        let text = &ran.stderr;
        assert!(text.contains("NOT PUSHED  4 of 4 paths (") && text.contains(why), "{text}");
        assert!(text.contains("to acme: ") && text.contains("not complete:  app big"), "{text}");
        assert!(text.contains(&format!("again   drover push --run {run}")), "{text}");
        let home = place.site.exits(0, &[]).out();
        assert!(home.contains(&format!("drover push --run {run}")), "{home}");

        // Not in the middle: what is pushed again goes on from there.
        place.server.heal(rule);
        place.site.exits(0, &["push", "--run", &run]);
        assert_eq!(place.names(), set(&["app-1.0", "lib-1.0", "base-1.0", "big-1.0"]), "{rule}");
        let quiet = place.site.exits(0, &["push"]);
        assert!(quiet.last_line().contains("nothing to push"), "{}", quiet.stderr);
    }
}

#[test]
fn a_part_of_a_push_is_told_by_attr() {
    let place = Place::new(&newest());
    place.site.exits(0, &["run", "big"]);
    let lib = base(&place.output("app"));
    // Only the record of `app` itself is refused.
    place.server.always(&format!("PUT {}.narinfo", &lib[..32]), Fault::Status(400));
    let ran = place.run(5, &["--json"]);
    let expected = [("app", "partial"), ("big", "complete")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(pushed(&ran.json()), expected.into());
    assert_eq!(statuses(&ran.json())["packages.x86_64-linux.big"], "valid");
    let text = &ran.stderr;
    assert!(text.contains("complete in the cache:  big") && text.contains("not complete:  app"), "{text}");
    // The URL holds the way to a key: it is not repeated.
    assert!(text.contains("--push-to URL") && !text.contains("secret-key="), "{text}");
}

#[test]
fn a_server_that_lies_is_found_out() {
    let swallow = || Fault::Swallow;
    for (rule, fault) in
        [("PUT nar", swallow()), ("PUT narinfo", swallow()), ("PUT *", swallow()), ("PUT nar", Fault::Half)]
    {
        let place = Place::new(&newest());
        fs::write(place.server.root().join("nix-cache-info"), format!("StoreDir: {}\n", place.site.lab.store_dir()))
            .unwrap();
        place.server.always(rule, fault);
        let ran = place.run(5, &["--json"]);
        assert!(pushed(&ran.json()).values().all(|complete| complete == "no"), "{rule}: {}", ran.out());
        assert!(ran.stderr.contains("NOT PUSHED  4 of 4 paths"), "{}", ran.stderr);
        assert!(ran.stderr.contains("not there when read back"), "{}", ran.stderr);
        // What is half there is sent again.
        place.server.heal(rule);
        place.site.exits(0, &["push", "--push-to", &place.url()]);
        assert_eq!(place.names().len(), 4);
        let app = place.output("app");
        nix_takes(&place.site.lab.nix.clone(), &place.site, &place.server.url, &place.key.public, &app);
    }
}

/// Nothing was evaluated or built.
fn nothing_happened(site: &Site) {
    let runs = site.state().join("runs");
    assert!(!runs.exists() || fs::read_dir(runs).unwrap().next().is_none(), "a run has begun");
}

#[test]
fn logins_are_checked_before_anything_is_done() {
    let place = Place::new(&newest());
    let netrc = place.site.lab.write("netrc", "machine 127.0.0.1 login me password hunter2\n");
    let logged_in = |yes: bool| {
        place.site.lab.configure(&if yes { format!("netrc-file = {}", netrc.display()) } else { String::new() });
    };
    let refuses = |args: &[&str], login: &str| {
        let ran = place.site.exits(2, args);
        assert!(ran.stderr.contains("for pushing (HTTP 40") && ran.stderr.contains(login), "{}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2") && !ran.stderr.contains("t0ken"), "{}", ran.stderr);
        nothing_happened(&place.site);
        ran
    };
    let url = place.url();
    let with_login = url.replace("http://", "http://me:hunter2@");
    place.server.writable_by("Basic bWU6b3RoZXI="); // me:other
    let to = |url: &str| ["run", "--push-to", url].map(str::to_owned);
    let args = |words: &[String]| words.to_vec();
    let run = |words: Vec<String>, login: &str| refuses(&words.iter().map(String::as_str).collect::<Vec<_>>(), login);
    let ran = run(args(&to(&url)), "no login found: none in its URL, no token-file");
    assert!(ran.stderr.contains("nothing was built") && ran.stderr.contains("drover run --no-push"), "{}", ran.stderr);
    run(args(&to(&with_login)), "login from: the URL");
    logged_in(true);
    run(args(&to(&url)), &format!("login from: netrc file {}", netrc.display()));
    let file = place.site.lab.write("path", "");
    std::os::unix::fs::symlink(
        format!("{}/{}-x", place.site.lab.store_dir(), "a".repeat(32)),
        file.with_extension("link"),
    )
    .unwrap();
    let link = file.with_extension("link").display().to_string();
    let ran = run(["push", &link, "--push-to", &url].map(str::to_owned).to_vec(), "login from: netrc");
    assert!(ran.stderr.contains("nothing was pushed") && !ran.stderr.contains("--no-push"), "{}", ran.stderr);
}

#[test]
fn tokens_are_read_from_files_and_sent_with_every_request() {
    let place = Place::new(&newest());
    let token = place.site.lab.write("token", "t0ken\n");
    place.server.token("t0ken");
    let with_token = |more: &str| {
        place.config(&place.url(), &format!("token-file = \"{}\"\n{more}", token.display()));
    };
    for push in ["true", "\"optional\""] {
        with_token(&format!("push = {push}"));
        // Another token is refused, one that is none is not even tried.
        for (text, why) in
            [("other", "refuses this token for pushing (HTTP 401)"), ("", "is empty"), ("two words", "holds no token")]
        {
            fs::write(&token, text).unwrap();
            let code = if push == "true" || text != "other" { 2 } else { 0 };
            let ran = place.site.exits(code, &["plan"]);
            assert!(ran.stderr.contains(why), "{}", ran.stderr);
            assert!(code == 0 || ran.stderr.contains(&*token.to_string_lossy()), "{}", ran.stderr);
            assert!(text.is_empty() || !ran.stderr.contains(&format!("'{text}'")), "{}", ran.stderr);
        }
        fs::remove_file(&token).unwrap();
        let ran = place.site.exits(2, &["plan"]);
        assert!(ran.stderr.contains("cannot read") && ran.stderr.contains("hint: ls -l"), "{}", ran.stderr);
        fs::write(&token, "t0ken\n").unwrap();
    }
    with_token("push = true");
    place.site.exits(0, &["run"]);
    assert_eq!(place.names().len(), 4);
    // It is sent for reading, too.
    with_token("push = false");
    let ran = place.site.exits(0, &["run", "--json"]);
    assert!(!ran.stderr.contains("left out"), "{}", ran.stderr);
    let state = place.site.lab.path("state");
    for file in walkdir::WalkDir::new(state).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let text = fs::read(file.path()).unwrap();
        assert!(!text.windows(5).any(|window| window == b"t0ken"), "{} holds the token", file.path().display());
    }
}

#[test]
fn a_cache_that_may_be_left_is_read_only() {
    let place = Place::new(&newest());
    fs::write(place.server.root().join("nix-cache-info"), format!("StoreDir: {}\n", place.site.lab.store_dir()))
        .unwrap();
    place.server.writable_by("Bearer other");
    // Nobody gave it a login: one line.
    place.config(&place.url(), "push = true");
    let ran = place.site.exits(0, &["run", "big", "--json"]);
    assert!(ran.stderr.contains("nothing is pushed to acme"), "{}", ran.stderr);
    assert_eq!(ran.json()["counts"]["warnings"], 1);
    assert!(pushed(&ran.json()).is_empty(), "it is no push cache of this run");
    assert!(place.server.log().iter().any(|request| request.method == "GET"), "it is read from");
    // Asked for by name, that is an error; so it is for a command that does nothing but push.
    place.site.exits(2, &["run", "big", "--push-to", "acme"]);
    place.site.exits(2, &["push"]);
    // With a login that is refused, too, unless it is optional.
    let token = place.site.lab.write("token", "t0ken");
    for (push, code) in [("true", 2), ("\"optional\"", 0)] {
        place.config(&place.url(), &format!("push = {push}\ntoken-file = \"{}\"", token.display()));
        let ran = place.site.exits(code, &["run", "big"]);
        assert!(ran.stderr.contains("refuses this token for pushing (HTTP 403)"), "{}", ran.stderr);
    }
    // Optional also means that a push may fail on the way.
    place.server.writable_by("Bearer t0ken");
    place.server.always("PUT nar", Fault::Status(507));
    let ran = place.site.exits(0, &["run", "app", "--json"]);
    assert!(ran.stderr.contains("NOT PUSHED  3 of 3 paths") && ran.stderr.contains("(optional)"), "{}", ran.stderr);
    assert_eq!(pushed(&ran.json())["app"], "no");
    // No answer is no refusal: it may have one another time.
    drop(place.server);
    place.site.edit("drover.toml", "[cache.acme]\nurl = \"http://127.0.0.1:1\"\npush = true\n");
    let ran = place.site.exits(4, &["run", "app"]);
    assert!(ran.stderr.contains("gave no answer") && ran.stderr.contains("--no-push"), "{}", ran.stderr);
    place.site.edit("drover.toml", "[cache.acme]\nurl = \"http://127.0.0.1:1\"\n");
    let hint = place.site.exits(0, &["run", "app", "--refresh"]).stderr;
    assert!(!hint.contains("--no-push"), "{hint}");
}

#[test]
fn what_other_caches_hold_is_not_pushed() {
    let place = Place::new(&newest());
    place.site.exits(0, &["run"]);
    let upstream = Site::cache(&place.site);
    let to = format!("file://{}?secret-key={}", upstream.display(), place.key.secret.display());
    let lib = place.output("app");
    let lib = place.site.lab.run("nix-store", &["-q", "--references", &lib]);
    place.site.lab.run("nix", &["copy", "--to", &to, &lib]);
    let other = FakeCache::start(&upstream);
    place.site.lab.configure(&format!("substituters = {}\ntrusted-public-keys = {}", other.url, place.key.public));
    place.run(0, &["app"]);
    assert_eq!(place.names(), set(&["app-1.0"]));
    assert_eq!(place.site.exits(0, &["push", &lib, "--push-to", &place.url()]).code, Some(0));
    assert_eq!(place.names(), set(&["app-1.0"]));
    // Once the other cache is gone, nobody else holds it.
    place.site.lab.configure("");
    place.site.exits(0, &["push", &lib, "--push-to", &place.url()]);
    assert_eq!(place.names(), set(&["app-1.0", "lib-1.0", "base-1.0"]));
}

/// `drover push` in this directory.
fn push_in(site: &Site, dir: &Path, args: &[&str]) -> Ran {
    let mut command: Command = site.command(&[&["push"], args].concat());
    command.current_dir(dir);
    finish(command, args)
}

#[test]
fn paths_and_links_are_pushed_and_others_are_named() {
    each_nix(|nix| {
        let place = Place::new(nix);
        let work: PathBuf = place.site.lab.work();
        let url = place.url();
        place.site.exits(0, &["run", "app", "-o", work.join("result").to_str().unwrap()]);
        let ran = push_in(&place.site, &work, &["./result", "--push-to", &url]);
        ran.expect(0);
        assert!(ran.last_line().contains(&format!("3 paths pushed to {}", place.name())), "{}", ran.stderr);
        assert_eq!(place.names(), set(&["app-1.0", "lib-1.0", "base-1.0"]));

        // One that is not in the store: named, and the rest is pushed.
        place.site.exits(0, &["run", "big"]);
        let (big, app) = (place.output("big"), place.output("app"));
        let gone = format!("{}/{}-gone-1.0", place.site.lab.store_dir(), "a".repeat(32));
        let ran = push_in(&place.site, &work, &[&gone, &big, &app, "--json", "--push-to", &url]);
        ran.expect(4);
        assert!(ran.stderr.contains(&format!("{gone} is not in this store")), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("hint: nix-store --realise {gone}")), "{}", ran.stderr);
        assert!(ran.stderr.contains("NOT PUSHED  1 of 3 paths"), "{}", ran.stderr);
        assert!(place.names().contains("big-1.0"));
        let document = ran.json();
        let by_path: BTreeMap<String, String> = document["paths"]
            .as_array()
            .unwrap()
            .iter()
            .map(|path| {
                (
                    base(path["path"].as_str().unwrap())[33..].to_owned(),
                    path["pushed"][place.name()].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        assert_eq!(
            (&*by_path["gone-1.0"], &*by_path["big-1.0"], &*by_path["app-1.0"]),
            ("partial", "complete", "complete")
        );
        let error = document["paths"].as_array().unwrap().iter().find(|path| path["path"] == gone.as_str()).unwrap();
        assert_eq!(error["errors"][place.name()]["message"], "it is not in this store");

        // Words that name nothing: nothing is started.
        for (word, why) in [("./nothing", "there is no such file"), (".", "no link into it")] {
            let ran = push_in(&place.site, &work, &[word, "--push-to", &url]);
            ran.expect(2);
            assert!(ran.stderr.contains(why) && ran.stderr.contains("hint:"), "{}", ran.stderr);
        }
        let ran = push_in(&place.site, &work, &["./result"]);
        ran.expect(2);
        assert!(ran.stderr.contains("no cache to push to") && ran.stderr.contains("--push-to"), "{}", ran.stderr);
        let listed = place.site.exits(0, &["report", "list"]).out();
        assert!(
            listed.contains(&format!("3 paths pushed to {}", place.name())) && listed.contains("push ./result"),
            "{listed}"
        );
        let report = place.site.exits(0, &["report"]).out();
        assert!(report.contains("NOT PUSHED"), "{report}");
    });
}

#[test]
fn a_run_that_pushed_nothing_is_pushed_to_all_caches_of_the_file() {
    let place = Place::new(&newest());
    place.site.exits(0, &["run"]);
    let two = place.site.cache();
    let secret = place.key.secret.display();
    let config = format!(
        "[cache.acme]\nurl = \"{}\"\npush = true\n[cache.two]\nurl = \"file://{}?secret-key={secret}\"\npush = true\n\
         [cache.three]\nurl = \"file://{}\"\n",
        place.url(),
        two.display(),
        place.site.lab.path("three").display(),
    );
    fs::write(place.site.flake.join("drover.toml"), config).unwrap();
    place.site.exits(0, &["plan"]);
    let all = set(&["app-1.0", "lib-1.0", "base-1.0", "big-1.0"]);
    // By name only there.
    place.site.exits(0, &["push", "--push-to", "two"]);
    assert_eq!(narinfos(&two).len(), 4);
    assert!(place.names().is_empty());
    // From anywhere: the file beside the flake of the run is meant.
    let ran = push_in(&place.site, &place.site.lab.work(), &["--run", "last"]);
    ran.expect(0);
    assert_eq!(place.names(), all);
    assert!(ran.last_line().contains("4 paths pushed to acme and two"), "{}", ran.stderr);
    assert_eq!(place.site.exits(2, &["push", "--run", "01ZZ"]).out(), "");
}

#[test]
fn ctrl_c_ends_a_push_cleanly() {
    let place = Place::new(&newest());
    place.site.exits(0, &["run"]);
    place.server.always("PUT nar", Fault::Hang);
    let url = place.url();
    let running = place.site.start(&["push", "--push-to", &url]);
    wait_until("an upload", || (!place.uploads().is_empty()).then_some(()));
    running.signal("INT");
    let ran = running.wait();
    ran.expect(130);
    assert!(ran.stderr.contains("stopped"), "{}", ran.stderr);
    let events = place.site.events();
    assert_eq!(events.0.last().unwrap()["exit"], 130);
    assert!(place.names().is_empty());
    place.server.heal("PUT nar");
    place.site.exits(0, &["push", "--push-to", &url]);
    assert_eq!(place.names().len(), 4);
}
