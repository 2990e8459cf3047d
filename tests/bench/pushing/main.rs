//! Measures `drover push`: `ask`, 20,000 paths asked of Cachix and of Attic 30 ms away; `far`, 300 paths of 200 KB by HTTP
//! PUT to a server 30 ms away, beside `nix copy`; `small`, 2,000 paths of 4 to 400 KB to each kind of cache; `big`, one
//! path of 1 GB to each, beside a bare pipe of the same stages.
//!
//! Run by the script `push` beside this folder.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops at the first fault")]
#![allow(clippy::expect_used, reason = "a benchmark stops at the first fault")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes times and starts processes")]
#![allow(clippy::print_stdout, missing_docs, reason = "what it measures is what it prints")]

mod ask;
#[path = "../../support/attic_server.rs"]
mod attic_server;
#[path = "../../support/bucket.rs"]
mod bucket;
#[path = "../../support/cachix/mod.rs"]
mod cachix;
#[path = "../../support/deadline.rs"]
mod deadline;
#[path = "../../support/niks3_server.rs"]
mod niks3_server;
#[path = "../../support/nix.rs"]
mod nix;
mod pipe;
#[path = "../rows.rs"]
mod rows;
mod server;
#[path = "../../support/service.rs"]
mod service;
mod target;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::Lab;
use rows::Part;
use server::Server;
use target::{KINDS, Target};

/// How far away the server of `far` is.
const AWAY: Duration = Duration::from_millis(30);

/// Bytes of the big path.
const BIG: usize = 1 << 30;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let part = words.first().map_or("all", String::as_str);
    let rounds = words.get(1).map_or(3, |rounds| rounds.parse().unwrap());
    let usage = "cargo bench --bench push -- all|ask|far|small|big [ROUNDS] [KIND…]";
    assert!(["all", "ask", "far", "small", "big"].contains(&part), "{usage}");
    let only = words.get(2..).unwrap_or_default().to_vec();
    assert!(only.iter().all(|kind| KINDS.contains(&kind.as_str())), "{usage}: {}", KINDS.join("|"));
    let bench = Bench::new(only);
    if matches!(part, "all" | "ask") {
        bench.ask(rounds);
    }
    if matches!(part, "all" | "far") {
        bench.far(rounds);
    }
    if matches!(part, "all" | "small") {
        bench.small(rounds);
    }
    if matches!(part, "all" | "big") {
        bench.big(rounds);
    }
}

struct Bench {
    lab: Lab,
    /// Peak memory of a push of next to nothing, in bytes.
    baseline: u64,
    /// Kinds of caches to push to; none: all.
    only: Vec<String>,
}

/// What one push took.
struct Took {
    seconds: f64,
    /// Bytes of memory at its peak.
    peak: u64,
}

impl Bench {
    fn new(only: Vec<String>) -> Self {
        let mut bench = Self { lab: Lab::plain(&nix::newest()), baseline: 0, only };
        let tiny = bench.add("tiny", &[100]);
        let cache = format!("file://{}", bench.lab.path("tiny-cache").display());
        bench.baseline = bench.push(&cache, &tiny).peak;
        println!("baseline: {} MB", bench.baseline >> 20);
        bench
    }

    /// Store paths of these sizes; half of their bytes compress.
    fn add(&self, name: &str, sizes: &[usize]) -> Vec<String> {
        let dir = self.lab.path(name);
        fs::create_dir_all(&dir).unwrap();
        let mut random = 0x9e37_79b9_7f4a_7c15u64 ^ name.len() as u64;
        let files: Vec<PathBuf> = (0..sizes.len()).map(|at| dir.join(format!("{name}-{at}"))).collect();
        for (file, size) in files.iter().zip(sizes) {
            let mut bytes = vec![0u8; *size];
            for block in bytes.chunks_mut(8) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let word = random.to_le_bytes().map(|byte| if random & 1 == 0 { byte & 3 } else { byte });
                block.copy_from_slice(&word[..block.len()]);
            }
            fs::write(file, bytes).unwrap();
        }
        let mut command = self.lab.command("nix-store");
        let out = command.arg("--add").args(&files).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        fs::remove_dir_all(dir).unwrap();
        String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn push(&self, url: &str, paths: &[String]) -> Took {
        let mut command = self.lab.program(env!("CARGO_BIN_EXE_drover"));
        command.args(["push", "--push-to", url]).args(paths).envs(Target::env(&self.lab));
        if let Some(store) = self.lab.store_arg() {
            command.args(["--store", &store]);
        }
        watch(&mut command)
    }

    /// A directory that nobody has used.
    fn fresh(&self, name: &str) -> PathBuf {
        let dir = self.lab.path(name);
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    fn ask(&self, rounds: usize) {
        println!("\n20,000 paths asked of a service 30 ms away");
        for (kind, _) in ["cachix", "attic"].iter().flat_map(|kind| (0..rounds).map(move |round| (kind, round))) {
            let target = Target::start(kind, &self.lab, &self.fresh("ask"));
            let seconds = ask::measure(&target, &self.lab, AWAY);
            println!("{kind:8} {seconds:6.3} s");
            Part { bench: "push", part: &format!("20,000 paths asked, {kind}"), unit: "s" }.drover(seconds, 0.5);
        }
    }

    fn far(&self, rounds: usize) {
        let paths = self.add("far", &[200_000; 300]);
        println!("\n300 paths of 200 KB by PUT, 30 ms away");
        for _ in 0..rounds {
            let dir = self.fresh("far-nix");
            write_info(&dir, &self.lab);
            let server = Server::start(&dir, AWAY);
            let mut copy = self.lab.command("nix");
            let nix = watch(copy.args(["copy", "--to", &format!("{}?compression=zstd", server.url)]).args(&paths));
            let dir = self.fresh("far-drover");
            let server = Server::start(&dir, AWAY);
            let ours = self.push(&server.url, &paths);
            server.assert_in_order(300);
            println!(
                "nix copy {:6.2} s   drover {:6.2} s   {:5.1} ×   {} MB over baseline   {}",
                nix.seconds,
                ours.seconds,
                nix.seconds / ours.seconds,
                self.over(&ours),
                server.requests().join(", "),
            );
            let part = Part { bench: "push", part: "300 paths of 200 KB, 30 ms away", unit: "s" };
            part.drover_beside(ours.seconds, 1.0 / 8.0, "nix copy");
            part.tool("nix copy", nix.seconds);
        }
    }

    fn small(&self, rounds: usize) {
        let sizes: Vec<usize> = (0..2000).map(|at| 4_000 + at * 198).collect();
        let paths = self.add("small", &sizes);
        println!("\n2,000 paths of 4 to 400 KB");
        self.each_kind(rounds, &paths, "2,000 paths of 4 to 400 KB", |_, _| {});
    }

    fn big(&self, rounds: usize) {
        let paths = self.add("big", &[BIG]);
        let files = self.lab.physical().join(Path::new(&paths[0]).file_name().unwrap());
        println!("\none path of 1 GB");
        self.each_kind(rounds, &paths, "one path of 1 GB", |kind, took| {
            let bare = pipe::run(kind, &files, &self.fresh("bare"));
            println!("         a bare pipe {bare:6.2} s   {:5.2} of its speed", bare / took.seconds);
            let part = Part { bench: "push", part: &format!("one path of 1 GB, {kind}"), unit: "s" };
            part.drover_beside(took.seconds, 1.0 / 0.9, "a bare pipe");
            part.tool("a bare pipe", bare);
        });
    }

    fn each_kind(&self, rounds: usize, paths: &[String], what: &str, beside: impl Fn(&str, &Took)) {
        let wanted = KINDS.iter().filter(|kind| self.only.is_empty() || self.only.iter().any(|only| only == *kind));
        for (kind, _) in wanted.flat_map(|kind| (0..rounds).map(move |round| (kind, round))) {
            let target = Target::start(kind, &self.lab, &self.fresh("each"));
            let took = self.push(&target.url(), paths);
            target.assert_sound(paths.len());
            // What it holds in memory and in files would be in the way.
            drop(target);
            self.fresh("each");
            println!("{kind:8} {:6.2} s   {} MB over baseline", took.seconds, self.over(&took));
            let part = Part { bench: "push, memory over baseline", part: &format!("{what}, {kind}"), unit: "MB" };
            part.drover(self.over(&took) as f64, 256.0);
            if paths.len() > 1 {
                Part { bench: "push", part: &format!("{what}, {kind}"), unit: "s" }.tool("drover", took.seconds);
            }
            beside(kind, &took);
        }
    }

    /// Megabytes over the baseline.
    fn over(&self, took: &Took) -> u64 {
        took.peak.saturating_sub(self.baseline) >> 20
    }
}

/// `nix copy` wants the file to be there.
fn write_info(dir: &Path, lab: &Lab) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("nix-cache-info"), format!("StoreDir: {}\n", lab.store_dir())).unwrap();
}

/// Runs a command, which has to succeed.
fn watch(command: &mut Command) -> Took {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut said = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut said, &mut text).unwrap();
        text
    });
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = kib.map_or(peak, |kib| kib << 10).max(peak);
        std::thread::sleep(Duration::from_millis(2));
    };
    let seconds = start.elapsed().as_secs_f64();
    let text = reader.join().unwrap();
    assert!(ended.success(), "{ended}: {text}");
    Took { seconds, peak }
}
