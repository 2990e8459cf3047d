//! What is to be done for all roots of the package set, against an HTTP cache on this machine that answers at once or
//! 30 ms later: `drover plan` beside `nix build --dry-run`, both with nothing remembered; then once more, with what the
//! cache said the first time.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fake_cache::FakeCache;
use super::nix::{self, Lab};
use super::package_set::PackageSet;
use super::package_set::cache::{self, Cache};
use super::package_set::oracle::{self, Todo};

/// Where it is measured.
struct Place {
    set: PackageSet,
    lab: Lab,
    cache: FakeCache,
    /// How many drvs are to be built, and how many questions that takes.
    expected: (usize, usize),
    /// How many drvs to build need one another in a row: whoever asks level by level waits so often.
    depth: usize,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Time {
    wall: f64,
    /// Of it the stage that this is about; only drover says so.
    diff: f64,
    requests: u32,
}

pub(crate) fn measure(rounds: usize) {
    let place = Place::new();
    println!(
        "{} roots, {} drvs to build, {} one after the other; {} requests would do",
        place.set.shape.roots.len(),
        place.expected.0,
        place.depth,
        place.expected.1
    );
    for (millis, bar) in [(0, 0.6), (30, 1.5)] {
        place.cache.delay(Duration::from_millis(millis));
        let (mut theirs, mut ours, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            let nix = place.nix();
            place.forget();
            let cold = place.drover();
            let warm = place.drover();
            println!(
                "round {round}: nix {:.2} s, {} requests; drover {:.2} s (diff {:.2} s), {} requests; once more {:.2} s \
                 (diff {:.2} s), {} requests",
                nix.wall, nix.requests, cold.wall, cold.diff, cold.requests, warm.wall, warm.diff, warm.requests
            );
            theirs.push(nix);
            ours.push(cold);
            again.push(warm);
        }
        let of = |times: &[Time], what: fn(&Time) -> f64| super::median(&times.iter().map(what).collect::<Vec<_>>());
        let (nix, cold) = (of(&theirs, |time| time.wall), of(&ours, |time| time.wall));
        println!(
            "diff, {millis:2} ms later  nix build --dry-run {nix:.2} s   drover {cold:.2} s   ratio {:.3}   \
             diff alone {:.2} s (bar {bar})   once more {:.2} s, diff alone {:.2} s (bar 0.3)   \
             requests {:.2} x what would do (bar 1.3)\n",
            cold / nix,
            of(&ours, |time| time.diff),
            of(&again, |time| time.wall),
            of(&again, |time| time.diff),
            of(&ours, |time| f64::from(time.requests)) / place.expected.1 as f64,
        );
    }
}

impl Place {
    fn new() -> Self {
        let set = super::the_set();
        let lab = Lab::chroot(&nix::newest());
        set.install(&lab.physical(), lab.command("nix-store"));
        let (had, key) = (Cache::lacking(&set, super::MISSING, 7), cache::key("set-1"));
        had.write(&set, &lab.path("cache.d"), &key);
        let todo = oracle::of_drover(&set, &had, set.shape.roots.values().copied());
        let expected = (todo.build.len(), todo.asked.len());
        let depth = depth(&set, &todo);
        let cache = serve(&lab);
        lab.configure(&format!("substituters = {}\ntrusted-public-keys = {}", cache.url, key.public_text()));
        lab.write("flake/flake.nix", &set.flake());
        for args in [
            &["init", "--quiet"][..],
            &["add", "--all"],
            &["-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "--message", "set"],
        ] {
            let mut git = lab.program("git");
            assert!(git.args(args).current_dir(lab.work().join("flake")).status().unwrap().success());
        }
        Self { set, lab, cache, expected, depth }
    }

    /// Forgets what caches said and how the flake was evaluated.
    fn forget(&self) {
        for dir in ["cache", "state"] {
            fs::remove_dir_all(self.lab.path(dir)).unwrap();
            fs::create_dir(self.lab.path(dir)).unwrap();
        }
    }

    fn nix(&self) -> Time {
        self.forget();
        let mut command = self.lab.command("nix");
        command
            .args(["build", "--dry-run", "--no-link"])
            .args(self.set.shape.roots.keys().map(|name| format!(".#{name}")));
        let (wall, requests, _, said) = self.time(command);
        let built = said.lines().filter(|line| line.starts_with("  ") && line.ends_with(".drv")).count();
        assert_eq!(built, self.expected.0, "nix build --dry-run\n{}", said.lines().next().unwrap_or_default());
        Time { wall, diff: wall, requests }
    }

    fn drover(&self) -> Time {
        let mut command = self.lab.program(env!("CARGO_BIN_EXE_drover"));
        for name in ["CI", "DROVER_STATE_DIR", "DROVER_PUSH_TO", "DROVER_LOG"] {
            command.env_remove(name);
        }
        command.args(["plan", "--json", "--store", &self.lab.store_arg().unwrap()]);
        let (wall, requests, document, said) = self.time(command);
        let document: Value = serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(document["drvs"]["build"].as_array().unwrap().len(), self.expected.0, "drover plan\n{said}");
        let stage = &document["stages"]["diff"];
        let diff = stage["end"].as_f64().unwrap() - stage["start"].as_f64().unwrap();
        Time { wall, diff, requests }
    }

    /// Runs a command; gives its seconds, the requests that it made, its stdout and its stderr.
    fn time(&self, mut command: Command) -> (f64, u32, String, String) {
        command.current_dir(self.lab.work().join("flake")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before = self.cache.all_requests();
        let start = Instant::now();
        let output = command.output().unwrap();
        let wall = start.elapsed().as_secs_f64();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (wall, self.cache.all_requests() - before, text(&output.stdout), text(&output.stderr))
    }
}

fn depth(set: &PackageSet, todo: &Todo) -> usize {
    let mut depths = vec![0; set.drvs.len()];
    for &drv in &todo.build {
        let below = set.shape.nodes[drv].inputs.iter().map(|(input, _)| depths[*input]).max();
        depths[drv] = 1 + below.unwrap_or(0);
    }
    depths.into_iter().max().unwrap_or(0)
}

/// Serves the cache from a thread of its own for as long as this process lives.
fn serve(lab: &Lab) -> FakeCache {
    let dir = lab.path("cache.d");
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            give.send(FakeCache::serve(&dir).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    take.recv().unwrap()
}
