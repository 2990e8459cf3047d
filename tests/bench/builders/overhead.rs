//! What an attempt costs besides the build itself: a chain of 200 drvs on one builder, so that none waits for a slot
//! and every connection is warm. No output refers to the one before: a daemon's preparations grow with the closure.
//!
//! The builder has no chroot store, in which every build runs in a sandbox: a daemon begins its build activity only when
//! that is set up. Its sshd, its daemon and their sessions are in a mount namespace in which the lab's directory is
//! /nix, so that the store is where logins expect it and builds run unsandboxed (`unshare --mount`; takes root). If this
//! machine has no /nix to mount on, an empty directory stands in for as long as this runs.
//!
//! Beside it the same requests alone, on one connection of the same kind to the same builder: what an attempt costs more
//! than that is drover's own.

use std::time::{Duration, Instant};

use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::{ActivityKind, BasicDerivation, BuildMode, BuildStatus, Message};
use drover::store::local::{LocalStore, StoreOptions, Wishes};
use drover::store::remote::{RemoteOptions, RemoteStore};

use super::Bench;
use super::farm_lab::Kind;
use super::nix::Nix;
use super::rows::Part;

const COUNT: usize = 200;

/// Prints the medians, in milliseconds.
pub(crate) fn measure(nix: &Nix, kind: Kind) {
    let _place = MountPoint::make();
    let bench = &mut Bench::mounted(nix, kind);
    let alone = alone(bench);
    let drvs = chain("link", "(builtins.readFile ./salt)");
    let packages = format!("packages.{}.chain", super::system());
    bench.write(
        "flake.nix",
        &format!("{{ outputs = {{ self }}: {{ {packages} = builtins.elemAt ({drvs}) {}; }}; }}", COUNT - 1),
    );
    bench.salt();
    let (_, record) = bench.with_drover(&[format!(".#{packages}")]);
    bench.assert_built_there(&record, COUNT);
    let of = |part: &dyn Fn(&super::record::Attempt) -> f64| {
        median(&record.attempts.values().map(|attempt| 1e3 * part(attempt)).collect::<Vec<_>>())
    };
    let overhead = of(&|attempt| attempt.ended - attempt.started - record.activity(attempt));
    let prepared = of(&|attempt| attempt.prepared - attempt.started);
    let before = of(&|attempt| attempt.building - attempt.started);
    let after = of(&|attempt| attempt.ended - attempt.building - record.activity(attempt));
    let builds = of(&|attempt| record.activity(attempt));
    println!(
        "overhead          {overhead:.2} ms (bar 3): {before:.2} before the builder runs ({prepared:.2} until prepared), \
         {after:.2} after it   the request alone {:.2} ms: {:.2} and {:.2}   drover's own {:.2} ms   ratio {:.3}   a \
         build {builds:.2} ms, alone {:.2}",
        alone.asked + alone.answered,
        alone.asked,
        alone.answered,
        overhead - alone.asked - alone.answered,
        overhead / (alone.asked + alone.answered),
        alone.builds,
    );
    let part = Part { bench: "farm", part: &bench.part("an attempt of a tiny drv"), unit: "ms" };
    part.tool("drover", overhead);
    part.tool("the request alone", alone.asked + alone.answered);
    let part = Part { part: &bench.part("drover's own part of it"), ..part };
    part.drover(overhead - alone.asked - alone.answered, 3.0);
}

/// /nix, which is removed again if it was not there.
struct MountPoint(bool);

impl MountPoint {
    fn make() -> Self {
        Self(std::fs::create_dir("/nix").is_ok())
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if self.0 {
            let _ = std::fs::remove_dir("/nix");
        }
    }
}

/// Milliseconds, medians.
struct Alone {
    /// From a request until the builder runs.
    asked: f64,
    /// From the builder's end until the result.
    answered: f64,
    /// In between.
    builds: f64,
}

/// The requests of such a chain by themselves, one after the other.
fn alone(bench: &Bench) -> Alone {
    let drvs = instantiate(bench);
    let lab = &bench.farm.coordinator;
    let options = StoreOptions {
        nix_bin: Some(lab.nix.bin.clone()),
        store: lab.store_arg(),
        env: lab.env(),
        ..StoreOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let local = LocalStore::open(options).await.unwrap();
        let dir = local.store_dir().clone();
        let mut to = RemoteOptions::new("b0", bench.farm.builder_uri(0), &lab.path("tmp"), dir.clone());
        to.ssh_opts = bench.farm.ssh_opts();
        let builder = RemoteStore::dial(to).await.unwrap();
        // As in a run. Before its first command sshd leaves Nagle's algorithm on, which costs 40 ms an answer.
        builder.about().await;
        let wishes = Wishes { substitute: Some(false), ..Wishes::default() };
        let mut session = builder.connect_with(&wishes).await.unwrap();
        let (mut asked, mut answered, mut builds) = (Vec::new(), Vec::new(), Vec::new());
        let mut before: Option<StorePath> = None;
        for (path, drv) in drvs.iter().zip(local.read_drvs(drvs.clone()).await) {
            let drv = drv.unwrap();
            let (mut started, mut stopped, mut id) = (None, None, None);
            let mut listen = |message: Message| match message {
                Message::Start(activity) if activity.kind == ActivityKind::Build => {
                    started = Some(Instant::now());
                    id = Some(activity.id);
                }
                Message::Stop { id: ended } if Some(ended) == id => stopped = Some(Instant::now()),
                _ => {}
            };
            let begin = Instant::now();
            let basic = BasicDerivation::new(&drv, before.take()).unwrap();
            let result = session.build_derivation(path, &basic, BuildMode::Normal, &mut listen).await.unwrap();
            let end = Instant::now();
            assert_eq!(result.status, BuildStatus::Built);
            before = result.outputs.get("out").cloned();
            asked.push((started.unwrap() - begin).as_secs_f64() * 1e3);
            answered.push((end - stopped.unwrap()).as_secs_f64() * 1e3);
            builds.push((stopped.unwrap() - started.unwrap()).as_secs_f64() * 1e3);
        }
        drop(session);
        builder.settle(Duration::from_secs(1)).await;
        local.settle(Duration::from_secs(1)).await;
        Alone { asked: median(&asked), answered: median(&answered), builds: median(&builds) }
    })
}

/// A Nix expression of a list of derivations that do nothing, each of which needs the one before.
fn chain(name: &str, salt: &str) -> String {
    let system = super::system();
    format!(
        r#"builtins.tail (builtins.foldl' (links: number: links ++ [
    (derivation {{
      before = builtins.elemAt links number;
      name = "{name}${{toString number}}";
      system = "{system}";
      builder = "/bin/sh";
      args = [ "-c" "echo > $out" ];
      salt = {salt};
    }})
  ]) [ "" ] (builtins.genList (number: number) {COUNT}))"#
    )
}

fn instantiate(bench: &Bench) -> Vec<StorePath> {
    let out = bench.farm.coordinator.run("nix-instantiate", &["--expr", &chain("alone", "0")]);
    let paths: Vec<StorePath> =
        out.lines().map(|line| StoreDir::default().parse_path(line.as_bytes()).unwrap()).collect();
    assert_eq!(paths.len(), COUNT);
    paths
}

/// The one in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2] + sorted[(sorted.len() - 1) / 2]) / 2.0
}
