//! Pushes that are cut, refused, killed and doubled. Whatever happens: what a cache shows is whole, and the next push
//! brings the rest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::push_http::{nix_takes, set};
use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, newest};
use crate::support::site::{Key, Site, base, finish, narinfos, wait_until};

/// `app` refers to `lib`, which refers to `base`; `big` is too large to go in one piece, and does not compress.
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
      packages.x86_64-linux.big = build "big-1.0" { } "/usr/bin/head -c 12000000 /dev/urandom > $out";
    };
}
"#;

const ALL: [&str; 4] = ["app-1.0", "lib-1.0", "base-1.0", "big-1.0"];

/// The flake, built, and a server that takes everything.
struct Place {
    site: Site,
    key: Key,
    server: FakeCache,
}

impl Place {
    fn new() -> Self {
        let site = Site::of(Lab::plain(&newest()), FLAKE);
        let dir = site.lab.path("served");
        fs::create_dir(&dir).unwrap();
        let place = Self { key: site.key("served-1"), server: FakeCache::start(&dir).writable(), site };
        place.site.exits(0, &["run"]);
        place
    }

    fn params(&self) -> String {
        let quick = "retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5";
        format!("secret-key={}&retry-attempts=5&{quick}", self.key.secret.display())
    }

    fn url(&self) -> String {
        format!("{}?{}", self.server.url, self.params())
    }

    /// Pushes both packages.
    fn push(&self, code: i32) -> String {
        self.push_paths(code, &["app", "big"])
    }

    fn push_paths(&self, code: i32, names: &[&str]) -> String {
        let (url, paths): (_, Vec<String>) = (self.url(), names.iter().map(|name| self.output(name)).collect());
        let args = [vec!["push", "--push-to", &url], paths.iter().map(String::as_str).collect()].concat();
        self.site.exits(code, &args).stderr
    }

    /// Absolute output path of a package.
    fn output(&self, name: &str) -> String {
        let installable = format!("{}#{name}.outPath", self.site.flake.display());
        self.site.lab.run("nix", &["eval", "--raw", &installable])
    }

    /// Uploads of large files, in their order.
    fn large(&self) -> Vec<(String, Option<u64>)> {
        let large = self.server.log().into_iter().filter(|request| request.method == "PUT" && is_large(&request.name));
        large.map(|request| (request.name, request.content_length)).collect()
    }
}

/// Whether a file is named by its NAR and not by itself.
fn is_large(name: &str) -> bool {
    name.contains("-zstd")
}

/// The names of what a cache shows, each with all that it refers to and a NAR of the right size.
fn whole(cache: &Path) -> BTreeSet<String> {
    let records = narinfos(cache);
    for (name, text) in &records {
        let field = |field: &str| text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        for reference in field("References: ").split_whitespace() {
            assert!(records.contains_key(reference), "{name} is shown without {reference}");
        }
        let size = fs::metadata(cache.join(field("URL: "))).unwrap_or_else(|error| panic!("{name}: {error}")).len();
        assert_eq!(field("FileSize: "), size.to_string(), "{name}");
    }
    records.into_keys().map(|name| name[33..].to_owned()).collect()
}

#[test]
fn a_large_path_is_sent_while_it_is_packed() {
    let place = Place::new();
    let busy = || Fault::With(429, "retry-after", "0".into());
    place.push_paths(0, &["app"]);
    place.server.next("PUT nar", [Fault::Cut, busy(), Fault::Status(500), Fault::Half]);
    let said = place.push(5);
    assert!(said.contains("not there when read back") || said.contains("not whole"), "{said}");
    assert_eq!(place.large().iter().map(|(_, length)| *length).collect::<Vec<_>>(), [None; 4], "sent as it is made");
    // Half a file has the name: it is written anew.
    place.push(0);
    assert_eq!((place.large().len(), whole(place.server.root())), (5, set(&ALL)));
    // Its record was lost, the file was not: nothing is sent.
    let big = place.output("big");
    fs::remove_file(place.server.root().join(format!("{}.narinfo", &base(&big)[..32]))).unwrap();
    place.push(0);
    assert_eq!((place.large().len(), whole(place.server.root())), (5, set(&ALL)));
    nix_takes(&place.site.lab.nix.clone(), &place.site, &place.server.url, &place.key.public, &big);
}

#[test]
fn a_server_that_must_know_sizes_gets_them() {
    let place = Place::new();
    place.push_paths(0, &["app"]);
    place.server.next("PUT nar", [Fault::Status(411)]);
    place.push(0);
    assert_eq!(place.large().len(), 1);
    assert_eq!(whole(place.server.root()), set(&ALL));
    let log = place.server.log();
    let largest =
        log.iter().filter(|request| request.method == "PUT").filter_map(|request| request.content_length).max();
    assert!(largest.unwrap() > 11_000_000, "the whole file went in one piece of a known size");
}

#[test]
fn a_token_that_expires_leaves_what_is_shown_whole() {
    let place = Place::new();
    let lib = base(&place.output("app.lib"));
    // From `lib` on, nothing is taken any more.
    place.server.always(&format!("PUT {}.narinfo", &lib[..32]), Fault::Status(401));
    let said = place.push(5);
    assert!(said.contains("refused the login"), "{said}");
    assert_eq!(whole(place.server.root()), set(&["base-1.0", "big-1.0"]));
    place.server.heal(&format!("PUT {}.narinfo", &lib[..32]));
    place.push(0);
    assert_eq!(whole(place.server.root()), set(&ALL));
}

#[test]
fn a_push_that_is_killed_is_taken_up() {
    let place = Place::new();
    // All NARs go, and no record but that of `base`: killed between the two.
    place.server.always("PUT narinfo", Fault::Hang);
    let url = place.url();
    let running = place.site.start(&["push", "--push-to", &url]);
    wait_until("records", || {
        let records = |request: &crate::support::fake_cache::Request| {
            request.method == "PUT" && request.name.ends_with(".narinfo")
        };
        (place.server.log().iter().filter(|request| records(request)).count() >= 2).then_some(())
    });
    running.signal("KILL");
    running.wait();
    assert_eq!(whole(place.server.root()), set(&[]));
    place.server.heal("PUT narinfo");
    let sent: Vec<String> = place.server.uploads().into_iter().filter(|name| name.starts_with("nar/")).collect();
    assert!(sent.iter().any(|name| is_large(name)));
    place.push(0);
    assert_eq!(whole(place.server.root()), set(&ALL));
    // A small one is sent in the time that it takes to ask for it, so that nobody asks.
    let large = |names: &[String]| names.iter().filter(|name| is_large(name)).count();
    assert_eq!(large(&place.server.uploads()), large(&sent), "no large NAR that was there is sent again");
}

#[test]
fn two_pushes_of_one_closure_do_no_harm() {
    let place = Place::new();
    let dir = place.site.lab.path("both");
    let file = format!("file://{}?{}", dir.display(), place.params());
    let url = place.url();
    let to = ["push", "--push-to", &url, "--push-to", &file];
    let (one, other) = (place.site.start(&to), place.site.start(&to));
    one.wait().expect(0);
    other.wait().expect(0);
    assert_eq!(whole(place.server.root()), set(&ALL));
    assert_eq!(whole(&dir), set(&ALL));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a process with a file system of its own")]
fn a_full_disk_is_told_and_nothing_is_shown_half() {
    let place = Place::new();
    let (dir, copy) = (place.site.lab.path("small"), place.site.lab.path("copy"));
    fs::create_dir(&dir).unwrap();
    let may_mount = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none"]).arg(&dir).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not mount a file system of its own");
        return;
    }
    let url = format!("file://{}?{}", dir.display(), place.params());
    let args = ["push", "--push-to", &url];
    let inner = place.site.command(&args);
    // The file system is gone with the process, so what it held is copied before.
    let script = format!(
        "mount -t tmpfs -o size=2m none '{0}'; \"$@\"; code=$?; cp -a '{0}' '{1}'; exit $code",
        dir.display(),
        copy.display()
    );
    let mut outer = Command::new("unshare");
    outer.args(["-m", "sh", "-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    outer.current_dir(inner.get_current_dir().unwrap());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    let ran = finish(outer, &args);
    ran.expect(5);
    assert!(ran.stderr.contains("os error 28"), "{}", ran.stderr);
    assert_eq!(whole(&copy), set(&["app-1.0", "lib-1.0", "base-1.0"]));
    let spool: Vec<PathBuf> =
        fs::read_dir(copy.join(".drover-spool")).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    assert!(spool.is_empty(), "{spool:?}");
}

#[test]
fn what_is_not_pushed_in_time_is_told() {
    let place = Place::new();
    place.server.always("PUT nar", Fault::Hang);
    let said = place.site.exits(5, &["push", "--push-to", &place.url(), "--push-deadline", "1s"]).stderr;
    assert!(said.contains("the time that --push-deadline gives was over"), "{said}");
    assert_eq!(whole(place.server.root()), set(&[]));
    let said = place.site.exits(5, &["run", "--push-to", &place.url(), "--push-deadline", "1s"]).stderr;
    assert!(said.contains("not complete:") && said.contains("--push-deadline"), "{said}");
}

#[test]
fn what_is_left_out_is_said() {
    let place = Place::new();
    let config = |more: &str| {
        let url = place.url();
        place.site.edit("drover.toml", &format!("[cache.acme]\nurl = \"{url}\"\npush = true\n{more}\n"));
    };
    config("skip-larger-than = \"1MiB\"");
    let said = place.site.exits(0, &["push", "--run", "last"]).stderr;
    assert!(said.contains("left out of acme, as drover.toml says: 1 path") && said.contains("big-1.0"), "{said}");
    assert_eq!(whole(place.server.root()), set(&["app-1.0", "lib-1.0", "base-1.0"]));
    config("skip-licenses = [\"unfree\"]");
    let said = place.site.exits(2, &["push", "--run", "last"]).stderr;
    assert!(said.contains("skip-licenses of [cache.acme] cannot be done"), "{said}");
}

#[test]
fn what_refers_to_what_is_left_out_is_there_and_not_whole() {
    let place = Place::new();
    let config = format!("[cache.acme]\nurl = \"{}\"\npush = true\nskip-names = [\"lib-*\"]\n", place.url());
    place.site.edit("drover.toml", &config);
    let pushed = |document: &serde_json::Value, attr: &str| {
        let mut attrs = document["attrs"].as_array().unwrap().iter();
        attrs.find(|found| found["attr"].as_str().unwrap().ends_with(attr)).unwrap()["pushed"]["acme"].clone()
    };
    // Also when all that is pushed is there already.
    for _ in 0..2 {
        let document = place.site.exits(0, &["run", "--json", "--require-complete"]).json();
        assert_eq!((pushed(&document, "app"), pushed(&document, "big")), ("partial".into(), "complete".into()));
        let document = place.site.exits(0, &["push", "--json", &place.output("app")]).json();
        assert_eq!(document["paths"][0]["pushed"]["acme"], "partial", "{document}");
    }
    let names: BTreeSet<String> = narinfos(place.server.root()).into_keys().map(|name| name[33..].to_owned()).collect();
    assert_eq!(names, set(&["app-1.0", "base-1.0", "big-1.0"]));
}
