//! What is to be done for all roots of the package set, against servers on this machine that answer at once or 30 ms
//! later, by HTTP/1.1 in the clear or by HTTP/2 over TLS, with all of it in one cache or a third in each of three:
//! `drover plan` beside `nix build --dry-run`, both with nothing remembered; then
//! once more, with what the caches said the first time.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fake_cache::FakeCache;
use super::front::Front;
use super::nix::{self, Lab};
use super::package_set::PackageSet;
use super::package_set::cache::{self, Cache};
use super::package_set::oracle::{self, Todo};
use super::rows::Part;

/// Where it is measured.
struct Place {
    set: PackageSet,
    lab: Lab,
    fleets: Vec<Fleet>,
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
    connections: u32,
}

/// Servers that together have what the cache has.
struct Fleet {
    name: String,
    servers: Vec<FakeCache>,
    /// A line of nix.conf for the certificates to trust, if any.
    trust: String,
}

/// Measures all variants, or those whose names have this word in them.
pub(crate) fn measure(rounds: usize, only: &str) {
    let place = Place::new();
    println!(
        "{} roots, {} drvs to build, {} one after the other; {} requests would do",
        place.set.shape.roots.len(),
        place.expected.0,
        place.depth,
        place.expected.1
    );
    for (millis, bar) in [(0, 0.6), (30, 1.5)] {
        for fleet in &place.fleets {
            let name = format!("{}, {millis:2} ms later", fleet.name);
            if !name.contains(only) {
                continue;
            }
            place.choose(fleet, Duration::from_millis(millis));
            for round in 1..=rounds {
                let nix = place.nix(fleet);
                place.forget();
                let cold = place.drover(fleet);
                let warm = place.drover(fleet);
                println!(
                    "round {round}: nix {:.2} s, {} requests; drover {:.2} s (diff {:.2} s), {} requests on {} \
                     connections; once more {:.2} s (diff {:.2} s), {} requests",
                    nix.wall,
                    nix.requests,
                    cold.wall,
                    cold.diff,
                    cold.requests,
                    cold.connections,
                    warm.wall,
                    warm.diff,
                    warm.requests
                );
                let part = |what: &str, unit: &'static str, say: &dyn Fn(Part<'_>)| {
                    say(Part { bench: "diff", part: &format!("{name}{what}"), unit });
                };
                part("", "s", &|part| {
                    part.drover_beside(cold.wall, 1.0, "nix build --dry-run");
                    part.tool("nix build --dry-run", nix.wall);
                });
                part(", diff alone", "s", &|part| part.drover(cold.diff, bar));
                part(", once more, diff alone", "s", &|part| part.drover(warm.diff, 0.3));
                let needed = (place.expected.1 * fleet.servers.len()) as f64;
                part(", requests", "requests", &|part| {
                    part.drover_beside(f64::from(cold.requests), 1.3, "what would do");
                    part.tool("what would do", needed);
                });
            }
        }
    }
}

impl Place {
    fn new() -> Self {
        let set = super::the_set();
        let lab = Lab::chroot(&nix::newest());
        set.install(&lab.physical(), lab.command("nix-store"));
        let (had, key) = (Cache::lacking(&set, super::MISSING, 7), cache::key("set-1"));
        had.write(&set, &lab.path("cache.d"), &key);
        share(&lab);
        let todo = oracle::of_drover(&set, &had, set.shape.roots.values().copied());
        let expected = (todo.build.len(), todo.asked.len());
        let depth = depth(&set, &todo);
        let fleets = fleets(&lab, &key.public_text());
        lab.write("flake/flake.nix", &set.flake());
        for args in [
            &["init", "--quiet"][..],
            &["add", "--all"],
            &["-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "--quiet", "--message", "set"],
        ] {
            let mut git = lab.program("git");
            assert!(git.args(args).current_dir(lab.work().join("flake")).status().unwrap().success());
        }
        Self { set, lab, fleets, expected, depth }
    }

    /// From now on caches are these servers, so far away.
    fn choose(&self, fleet: &Fleet, delay: Duration) {
        let urls: Vec<&str> = fleet.servers.iter().map(|server| server.url.as_str()).collect();
        fleet.servers.iter().for_each(|server| server.delay(delay));
        self.lab.configure(&format!("substituters = {}\n{}", urls.join(" "), fleet.trust));
    }

    /// Forgets what caches said and how the flake was evaluated.
    fn forget(&self) {
        for dir in ["cache", "state"] {
            fs::remove_dir_all(self.lab.path(dir)).unwrap();
            fs::create_dir(self.lab.path(dir)).unwrap();
        }
    }

    fn nix(&self, fleet: &Fleet) -> Time {
        self.forget();
        let mut command = self.lab.command("nix");
        command
            .args(["build", "--dry-run", "--no-link"])
            .args(self.set.shape.roots.keys().map(|name| format!(".#{name}")));
        let (wall, [requests, connections], _, said) = fleet.time(command, &self.lab);
        let built = said.lines().filter(|line| line.starts_with("  ") && line.ends_with(".drv")).count();
        assert_eq!(built, self.expected.0, "nix build --dry-run\n{}", said.lines().next().unwrap_or_default());
        Time { wall, diff: wall, requests, connections }
    }

    fn drover(&self, fleet: &Fleet) -> Time {
        let mut command = self.lab.program(env!("CARGO_BIN_EXE_drover"));
        for name in ["CI", "DROVER_STATE_DIR", "DROVER_PUSH_TO", "DROVER_LOG"] {
            command.env_remove(name);
        }
        command.args(["plan", "--json", "--store", &self.lab.store_arg().unwrap()]);
        let (wall, [requests, connections], document, said) = fleet.time(command, &self.lab);
        let document: Value = serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(document["drvs"]["build"].as_array().unwrap().len(), self.expected.0, "drover plan\n{said}");
        let stage = &document["stages"]["diff"];
        let diff = stage["end"].as_f64().unwrap() - stage["start"].as_f64().unwrap();
        Time { wall, diff, requests, connections }
    }
}

impl Fleet {
    /// Requests and connections so far.
    fn traffic(&self) -> [u32; 2] {
        let sum = |of: fn(&FakeCache) -> u32| self.servers.iter().map(of).sum();
        [sum(FakeCache::all_requests), sum(|server| server.traffic.connections())]
    }

    /// Runs a command; gives its seconds, the requests and connections that it made, its stdout and its stderr.
    fn time(&self, mut command: Command, lab: &Lab) -> (f64, [u32; 2], String, String) {
        command.current_dir(lab.work().join("flake")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let before = self.traffic();
        let start = Instant::now();
        let output = command.output().unwrap();
        let wall = start.elapsed().as_secs_f64();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let after = self.traffic();
        (wall, [after[0] - before[0], after[1] - before[1]], text(&output.stdout), text(&output.stderr))
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

/// Puts each record of the cache into one of three others, too.
fn share(lab: &Lab) {
    let dirs: Vec<_> = (0..3).map(|at| lab.path(format!("third-{at}.d"))).collect();
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    for (at, file) in fs::read_dir(lab.path("cache.d")).unwrap().map(Result::unwrap).enumerate() {
        if file.file_name() == "nix-cache-info" {
            for dir in &dirs {
                fs::copy(file.path(), dir.join(file.file_name())).unwrap();
            }
        } else if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), dirs[at % 3].join(file.file_name())).unwrap();
        }
    }
}

/// Serves all variants from threads of their own.
fn fleets(lab: &Lab, key: &str) -> Vec<Fleet> {
    let mut fleets = Vec::new();
    for (protocol, front) in [("HTTP/1.1", Front::plain()), ("HTTP/2", Front::tls())] {
        let ca = format!("{}.pem", protocol.replace('/', "-"));
        lab.write(&ca, &front.ca());
        let trust = format!("trusted-public-keys = {key}\n");
        let trust = match front.ca().is_empty() {
            true => trust,
            false => format!("{trust}ssl-cert-file = {}\n", lab.work().join(&ca).display()),
        };
        for dirs in [vec!["cache.d".to_owned()], (0..3).map(|at| format!("third-{at}.d")).collect()] {
            let servers: Vec<_> = dirs.iter().map(|dir| FakeCache::start_by(&lab.path(dir), front.clone())).collect();
            let name = format!("{protocol}, {} cache{}", servers.len(), if servers.len() == 1 { "" } else { "s" });
            fleets.push(Fleet { name, servers, trust: trust.clone() });
        }
    }
    fleets
}
