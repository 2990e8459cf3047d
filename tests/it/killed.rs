//! A drover that is killed with SIGKILL, whatever it is doing: nobody of its own is left, what it recorded can be read,
//! and the next run goes on from what there is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::deadline::expect_nothing_left;
use crate::support::nix::{Daemon, Lab, Nix, each_nix};
use crate::support::site::{Key, Ran, Running, Site, base, finish, narinfos, start, wait_until};

/// `slow` takes as long to evaluate as `depth` says; `held` and `also-held` are built once nobody holds them; `large` is
/// 20 MB that are slow to compress.
fn flake(hold: &str) -> String {
    r#"{ outputs = { self }: let
      build = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e\n${script}" ]; };
      count = n: if n < 2 then n else count (n - 1) + count (n - 2);
      depth = builtins.fromJSON (builtins.readFile ./depth);
      first = build "first" "echo first of all; echo 1 > $out";
      wait = "echo begun; while [ -e HOLD ]; do /bin/sleep 0.05; done; ";
      held = build "held" "${wait} echo ${first} > $out";
      also-held = build "also-held" "${wait} echo ${first} again > $out";
    in { packages.x86_64-linux = {
      inherit first held;
      last = build "last" "echo ${held} ${also-held} > $out";
      slow = builtins.seq (count depth) (build "slow" "echo slow > $out");
      large = build "large" "/usr/bin/seq 3000000 > $out";
    }; }; }"#
        .replace("HOLD", hold)
}

/// A site with or without a root daemon, and what an undisturbed run has made of its flake.
struct Scene {
    site: Site,
    daemon: Option<Daemon>,
    key: Key,
    hashes: BTreeMap<String, String>,
}

impl Scene {
    fn new(nix: &Nix, with_daemon: bool) -> Self {
        let lab = Lab::plain(nix);
        let hold = lab.path("hold").display().to_string();
        lab.write("flake/depth", "1");
        let daemon = with_daemon.then(|| lab.daemon());
        let site = Site::of(lab, &flake(&hold));
        let key = site.key("killed-1");
        let mut scene = Self { site, daemon, key, hashes: BTreeMap::new() };
        scene.runs(&["run"]);
        scene.hashes = scene.outputs();
        assert!(scene.hashes.len() >= 6, "{:?}", scene.hashes);
        scene.forget();
        scene
    }

    fn hold(&self) -> PathBuf {
        self.site.lab.path("hold")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.site.command(args);
        if let Some(daemon) = &self.daemon {
            command.env("NIX_REMOTE", format!("unix://{}", daemon.socket.display()));
        }
        command
    }

    fn runs(&self, args: &[&str]) -> Ran {
        let ran = finish(self.command(args), args);
        ran.expect(0);
        ran
    }

    fn start(&self, args: &[&str]) -> Running {
        start(self.command(args), args)
    }

    /// What was built so far: path → hash of its content.
    fn outputs(&self) -> BTreeMap<String, String> {
        let paths = fs::read_dir(self.site.lab.path("store")).unwrap().map(|entry| entry.unwrap().path());
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.get(33..).is_some_and(|name| ["first", "held", "also-held", "last", "slow", "large"].contains(&name))
        };
        let mut hashes = BTreeMap::new();
        for path in paths.filter(ours) {
            let path = path.display().to_string();
            // What was being built is there and is not valid.
            let known = self.site.lab.command("nix-store").args(["--query", "--hash", &path]).output().unwrap();
            if known.status.success() {
                hashes.insert(path, String::from_utf8(known.stdout).unwrap());
            }
        }
        hashes
    }

    fn forget(&self) {
        let mut args = vec!["--delete", "--ignore-liveness"];
        let outputs = self.outputs();
        args.extend(outputs.keys().map(String::as_str));
        self.site.lab.run("nix-store", &args);
    }

    /// Nobody is left but the daemon, nor anybody who works for it.
    fn expect_alone(&self) {
        let daemon = self.daemon.as_ref().map(Daemon::pid);
        expect_nothing_left(Duration::from_secs(2), "a process", || {
            let all = self.site.processes().into_iter();
            all.filter(|process| Some(process.pid) != daemon).collect()
        });
    }

    /// Kills the drover and looks at what it leaves; then another run has to do the rest.
    fn kill(&self, running: Running, again: &[&str]) {
        running.signal("KILL");
        assert_eq!(running.wait().code, None);
        self.expect_alone();
        let list = self.site.exits(0, &["report", "list"]).out();
        assert!(list.lines().next().unwrap().contains("cut off"), "{list}");
        self.site.exits(0, &["report"]);
        let document = self.site.exits(0, &["report", "--format", "json"]).json();
        assert_eq!(document["exit"], serde_json::Value::Null);

        let before = self.outputs();
        let _ = fs::remove_file(self.hold());
        self.runs(again);
        let events = self.site.events();
        let built = events.built();
        let twice: Vec<_> = before.keys().filter(|path| built.iter().any(|name| base(path)[33..] == **name)).collect();
        assert!(twice.is_empty(), "built again: {twice:?}");
        assert_eq!(self.outputs(), self.hashes);
    }
}

/// With and without a root daemon.
fn each_scene(test: impl Fn(&Scene)) {
    each_nix(|nix| {
        for with_daemon in [false, true] {
            test(&Scene::new(nix, with_daemon));
        }
    });
}

/// Waits until the last of so many runs has recorded this.
fn wait_for(scene: &Scene, runs: usize, what: &str) {
    wait_until(what, || {
        let dirs = scene.site.runs();
        let last = dirs.get(runs - 1)?;
        let text = fs::read_to_string(last.join("events.jsonl")).ok()?;
        text.contains(what).then_some(())
    });
}

#[test]
fn in_the_middle_of_an_evaluation() {
    each_scene(|scene| {
        // Minutes of it.
        scene.site.edit("depth", "45");
        let running = scene.start(&["run", "slow", "first"]);
        wait_for(scene, 2, "\"event\":\"eval_started\"");
        wait_until("an evaluator", || {
            scene.site.processes().into_iter().find(|process| process.cmdline.contains("repl"))
        });
        // What it takes to evaluate changes nothing that is built.
        running.signal("STOP");
        scene.site.edit("depth", "1");
        running.signal("CONT");
        scene.kill(running, &["run"]);
    });
}

#[test]
fn in_the_middle_of_a_build() {
    each_scene(|scene| {
        fs::write(scene.hold(), "").unwrap();
        let running = scene.start(&["run", "-j", "3"]);
        wait_for(scene, 2, "\"event\":\"attempt_building\"");
        wait_until("two builders", || {
            (scene.site.processes().iter().filter(|process| process.cmdline.contains("while [ -e")).count() == 2)
                .then_some(())
        });
        scene.kill(running, &["run"]);
        // What was finished has its log.
        assert_eq!(scene.site.exits(0, &["log", "first"]).out(), "first of all\n");
    });
}

#[test]
fn in_the_middle_of_a_push() {
    each_scene(|scene| {
        let url = format!("{}&compression=zstd&compression-level=19", scene.site.cache_url(&scene.key));
        let args = ["run", "--push-to", &url];
        let running = scene.start(&args);
        // The largest takes seconds to compress, and all others have been pushed before.
        let large = scene.hashes.keys().find(|path| path.ends_with("-large")).unwrap();
        wait_until("a push of the largest", || {
            let text = fs::read_to_string(scene.site.runs().get(1)?.join("events.jsonl")).ok()?;
            text.lines().find(|line| line.contains("\"push_started\"") && line.contains(large.as_str())).map(drop)
        });
        let plain = scene.site.cache_url(&scene.key);
        scene.kill(running, &["run", "--push-to", &plain]);
        // A client that reads all of it.
        let records = narinfos(&scene.site.cache());
        assert_eq!(records.len(), scene.hashes.len());
        let store = format!("file://{}", scene.site.cache().display());
        let mut verify = scene.site.lab.bare_command("nix");
        verify.args(["store", "verify", "--store", &store, "--all", "--no-trust"]);
        let args = ["nix store verify"];
        finish(verify, &args).expect(0);
    });
}
