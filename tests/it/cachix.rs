//! Pushing to Cachix and reading from it, with real Nix and a server that holds what it is told against what it gets.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

use crate::push_faults::FLAKE;
use crate::support::cachix::{Cachix, Fault, NAME};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Ran, Site, base, finish};

const TOKEN: &str = "eyJ0.cachix-token";

/// The flake, and a Cachix.
struct Place {
    site: Site,
    cachix: Cachix,
    config: PathBuf,
}

impl Place {
    fn new(nix: &Nix) -> Self {
        let site = Site::of(Lab::plain(nix), FLAKE);
        let cachix = Cachix::start(&site.lab.store_dir(), TOKEN);
        let config = site.lab.path("config");
        fs::create_dir_all(config.join("cachix")).unwrap();
        let place = Self { site, cachix, config };
        place.configure("");
        place
    }

    /// Writes `cachix.dhall` with this token; an empty one is none.
    fn configure(&self, token: &str) {
        self.write(&format!(
            "{{ authToken = \"{token}\"\n, hostname = \"{}\"\n, binaryCaches = [] }}\n",
            self.cachix.host
        ));
    }

    fn write(&self, text: &str) {
        fs::write(self.config.join("cachix/cachix.dhall"), text).unwrap();
    }

    /// Drover with no token but that of `cachix.dhall`.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.site.command(args);
        command.env("XDG_CONFIG_HOME", &self.config);
        command.env_remove("CACHIX_AUTH_TOKEN").env_remove("CACHIX_SIGNING_KEY");
        command
    }

    /// Drover with a token in the environment.
    fn exits(&self, code: i32, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        command.env("CACHIX_AUTH_TOKEN", TOKEN);
        let ran = finish(command, args);
        ran.expect(code);
        ran
    }

    fn push(&self, code: i32, more: &[&str]) -> Ran {
        self.exits(
            code,
            &[
                &["run", "--push-to", "cachix:acme?retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5"][..],
                more,
            ]
            .concat(),
        )
    }

    fn output(&self, name: &str) -> String {
        let installable = format!("{}#{name}", self.site.flake.display());
        self.site.lab.run("nix", &["eval", "--raw", &format!("{installable}.outPath")])
    }

    /// A new store that trusts only the cache's key takes these paths from it.
    fn nix_takes(&self, names: &[&str]) {
        let paths: Vec<String> = names.iter().map(|name| self.output(name)).collect();
        let lab = &self.site.lab;
        // The store directory is part of every path, so the paths have to leave the old store.
        let (dir, aside) = (lab.physical(), lab.path("aside"));
        fs::create_dir(&aside).unwrap();
        for (from, to) in [(dir.clone(), "store"), (lab.path("var"), "var")] {
            fs::rename(from, aside.join(to)).unwrap();
        }
        lab.configure(&format!("require-sigs = true\ntrusted-public-keys = {}", self.cachix.public_key()));
        for path in &paths {
            lab.run("nix", &["copy", "--from", &self.cachix.uri, path]);
            assert_eq!(lab.run("nix", &["store", "verify", "--recursive", path]), "");
            assert!(dir.join(base(path)).exists());
        }
    }
}

const ALL: [&str; 4] = ["app-1.0", "base-1.0", "big-1.0", "lib-1.0"];

#[test]
fn nix_reads_what_was_pushed_and_the_service_signed() {
    each_nix(|nix| {
        let place = Place::new(nix);
        place.push(0, &[]);
        place.cachix.expect_sound();
        assert_eq!(place.cachix.names(), ALL.map(str::to_owned).into());
        assert_eq!(place.cachix.calls("abort"), 0);
        {
            let state = place.cachix.state();
            let parts: Vec<usize> = state.uploads.values().map(|upload| upload.parts.len()).collect();
            assert_eq!(parts.iter().sum::<usize>(), 5, "big has two: {parts:?}");
        }
        // Again: one question, and nothing is sent.
        let (questions, puts) = (place.cachix.calls("bulk"), place.cachix.calls("put"));
        let quiet = place.exits(0, &["push", "--push-to", "cachix:acme"]);
        assert!(quiet.last_line().contains("nothing to push"), "{}", quiet.stderr);
        assert_eq!(place.cachix.calls("put"), puts);
        assert!(place.cachix.calls("bulk") > questions);
        place.nix_takes(&["app", "big"]);
    });
}

#[test]
fn nix_reads_what_was_pushed_and_drover_signed() {
    each_nix(|nix| {
        let place = Place::new(nix);
        let key = SigningKey::from_bytes(&[99; 32]);
        let public = STANDARD.encode(key.verifying_key().as_bytes());
        place.cachix.state().keys = vec![format!("{NAME}.cachix.org-1:{public}")];
        // As the client writes it; of one name the last counts.
        let secret = STANDARD.encode(key.to_keypair_bytes());
        place.write(&format!(
            "{{ authToken =\n    \"{TOKEN}\"\n, hostname = \"{}\"\n, binaryCaches =\n  [ {{ name = \"acme\", secretKey = \"old\" }}\n  \
             , {{ name = \"acme\", secretKey = \"{secret}\" }}\n  ]\n}}\n",
            place.cachix.host
        ));
        let asked = ["run", "--push-to", "cachix:acme"];
        let mut ran = finish(place.command(&asked), &asked);
        ran.expect(0);
        place.cachix.expect_sound();
        place.nix_takes(&["app"]);
        // One that readers would not trust is found out before anything is built.
        let other = STANDARD.encode(SigningKey::from_bytes(&[98; 32]).to_keypair_bytes());
        let mut command = place.command(&asked);
        command.env("CACHIX_SIGNING_KEY", &other);
        ran = finish(command, &asked);
        ran.expect(2);
        assert!(ran.stderr.contains("the signing key from CACHIX_SIGNING_KEY is none of those"), "{}", ran.stderr);
        assert!(!ran.stderr.contains(&other[..20]), "{}", ran.stderr);
    });
}

#[test]
fn many_paths_are_one_question_and_small_ones_go_at_once() {
    let place = Place::new(&newest());
    let make = "n: derivation { name = \"p-${toString n}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
                args = [ \"-c\" \"echo ${toString n} > $out\" ]; }";
    let all = format!(
        "{{ outputs = _: {{ packages.x86_64-linux = builtins.listToAttrs (builtins.genList (n: {{ name = \"p${{toString n}}\"; \
         value = ({make}) n; }}) 60); }}; }}"
    );
    place.site.edit("flake.nix", &all);
    place.push(0, &[]);
    place.cachix.expect_sound();
    assert_eq!(place.cachix.names().len(), 60);
    let [create, presign, put, complete] =
        ["create", "presign", "put", "complete"].map(|call| place.cachix.calls(call));
    assert_eq!([create, presign, put, complete], [60; 4], "four requests each");
    let asked: usize = {
        let state = place.cachix.state();
        let bulk = state.log.iter().filter_map(|line| line.strip_prefix("bulk ")).map(|n| n.parse::<usize>().unwrap());
        bulk.sum()
    };
    assert_eq!(asked, 60, "each path is asked for once");
    let before = place.cachix.calls("bulk");
    place.exits(0, &["push", "--push-to", "cachix:acme"]);
    assert_eq!(place.cachix.calls("bulk"), before + 1);
}

#[test]
fn a_service_that_stumbles_gets_everything() {
    let place = Place::new(&newest());
    place.cachix.next("cache", [Fault::Status(502)]);
    place.cachix.next("bulk", [Fault::Busy(0), Fault::Status(413)]);
    place.cachix.next("create", [Fault::Status(503), Fault::DoneAndGone]);
    place.cachix.next("presign", [Fault::Busy(0), Fault::DoneAndGone, Fault::Status(500)]);
    place.cachix.next("put", [Fault::Status(403), Fault::Cut, Fault::Status(503), Fault::DoneAndGone]);
    place.cachix.next("complete", [Fault::DoneAndGone, Fault::Busy(0), Fault::Status(504), Fault::DoneAndGone]);
    place.push(0, &[]);
    assert_eq!(place.cachix.names(), ALL.map(str::to_owned).into());
    let mut state = place.cachix.state();
    // What was done and not heard is asked again, and refused then: that is for the record to tell.
    state.wrong.retain(|why| why != "404: may be: there is no such upload");
    assert_eq!(state.wrong, Vec::<String>::new());
    assert!(state.log.iter().any(|line| line.starts_with("HEAD ")), "{:?}", state.log);
}

#[test]
fn a_service_without_bulk_questions_is_asked_for_each() {
    let place = Place::new(&newest());
    place.cachix.next("bulk", vec![Fault::Status(404); 100]);
    place.push(0, &[]);
    place.cachix.expect_sound();
    assert_eq!(place.cachix.names(), ALL.map(str::to_owned).into());
    assert!(place.cachix.calls("HEAD") >= 4);
}

#[test]
fn what_cannot_be_uploaded_is_given_up() {
    let place = Place::new(&newest());
    place.cachix.next("put", vec![Fault::Status(501); 100]);
    let ran = place.push(5, &["--json"]);
    let document = ran.json();
    assert_eq!(document["exit"], 5);
    assert_eq!(place.cachix.names().len(), 0, "nothing is visible");
    let state = place.cachix.state();
    assert!(!state.uploads.is_empty() && state.uploads.values().all(|upload| upload.aborted), "{:?}", state.log);
}

#[test]
fn a_path_whose_references_are_missing_is_not_made_visible() {
    let place = Place::new(&newest());
    // Of the closure of app the first one fails; big goes through.
    place.exits(0, &["run"]);
    let base = place.output("app");
    place.cachix.next("complete", vec![Fault::Status(422); 1]);
    place.exits(5, &["push", &base, "--push-to", "cachix:acme"]);
    place.cachix.expect_sound();
    assert_eq!(place.cachix.names().len(), 0);
    let state = place.cachix.state();
    assert!(state.uploads.values().all(|upload| upload.aborted), "{:?}", state.log);
}

#[test]
fn a_token_that_expires_leaves_what_is_there_whole() {
    let place = Place::new(&newest());
    place.cachix.state().expires_after = Some(2);
    let ran = place.push(5, &[]);
    assert!(ran.stderr.contains("refused the login"), "{}", ran.stderr);
    place.cachix.expect_sound();
    assert!(place.cachix.names().len() >= 2);
    assert!(!ran.stderr.contains(TOKEN));
}

#[test]
fn tokens_are_found_or_asked_for_before_anything_is_built() {
    let place = Place::new(&newest());
    let asked = ["run", "--push-to", "cachix:acme"];
    let none = finish(place.command(&asked), &asked);
    none.expect(2);
    let looked =
        format!("no token-file, no CACHIX_AUTH_TOKEN, none in {}", place.config.join("cachix/cachix.dhall").display());
    assert!(none.stderr.contains(&looked) && none.stderr.contains("wants a login"), "{}", none.stderr);
    assert_eq!(place.cachix.calls("cache"), 0, "nobody had to be asked");
    // From a table of drover.toml it is only read, with one line.
    place.site.edit("drover.toml", "[cache.acme]\nurl = \"cachix:acme\"\npush = true\n");
    let read = finish(place.command(&["run"]), &["run"]);
    read.expect(0);
    assert!(read.stderr.contains("nothing is pushed to acme"), "{}", read.stderr);
    assert_eq!(place.cachix.calls("create"), 0);
    // A wrong one is refused, whoever has it.
    place.configure("wrong-token");
    let wrong = finish(place.command(&asked), &asked);
    wrong.expect(2);
    assert!(
        wrong.stderr.contains("Cachix's configuration") && !wrong.stderr.contains("wrong-token"),
        "{}",
        wrong.stderr
    );
    // The variable goes before the file, and the token file of drover.toml before both.
    let file = place.site.lab.write("token", &format!("{TOKEN}\n"));
    place
        .site
        .edit("drover.toml", &format!("[cache.acme]\nurl = \"cachix:acme\"\ntoken-file = \"{}\"\n", file.display()));
    let named = ["run", "--push-to", "acme"];
    let mut command = place.command(&named);
    command.env("CACHIX_AUTH_TOKEN", "wrong-token");
    finish(command, &named).expect(0);
    place.cachix.expect_sound();
    // A token that may only read.
    place.cachix.state().permission = "Read";
    let ran = place.exits(2, &["run", "--push-to", "cachix:acme"]);
    assert!(ran.stderr.contains("for pushing"), "{}", ran.stderr);
    // A cache that is not there, and a configuration that cannot be read.
    let ran = place.exits(2, &["run", "--push-to", "cachix:other"]);
    assert!(ran.stderr.contains("has no cache 'other'"), "{}", ran.stderr);
    place.write("{ authToken = env:HUNTER2 }");
    let ran = place.exits(2, &["run", "--push-to", "cachix:acme"]);
    assert!(ran.stderr.contains("line 1") && !ran.stderr.contains("HUNTER2"), "{}", ran.stderr);
}

#[test]
fn a_private_cache_is_read_with_its_token() {
    let place = Place::new(&newest());
    place.cachix.state().public = false;
    place.push(0, &[]);
    let key = place.cachix.public_key();
    place.site.edit("drover.toml", &format!("[cache.acme]\nurl = \"cachix:acme\"\npublic-keys = [\"{key}\"]\n"));
    // Another store has nothing: all of it comes from the cache.
    let (dir, aside) = (place.site.lab.physical(), place.site.lab.path("aside"));
    fs::create_dir(&aside).unwrap();
    fs::rename(&dir, aside.join("store")).unwrap();
    fs::rename(place.site.lab.path("var"), aside.join("var")).unwrap();
    let ran = place.exits(0, &["run", "--json"]);
    let document = ran.json();
    let statuses: Vec<&str> =
        document["attrs"].as_array().unwrap().iter().map(|attr| attr["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["cached", "cached"], "{}", ran.stderr);
}
