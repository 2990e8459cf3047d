//! The daemon of this machine loses its connections, or dies, while a run needs it, and is there again a moment later.

use drover::build::{Caches, Pool, Site as Stores, Sites, Sources, bring};
use drover::id::StorePath;
use drover::store::any::Store;
use drover::store::local::{LocalStore, StoreOptions, Wishes};
use drover::store::roots::Roots;

use std::sync::Arc;

use crate::support::nix::{Daemon, Lab, each_nix, newest};
use crate::support::program::write_program;
use crate::support::site::{Site, start, wait_until};
use crate::support::sshd::{descendants, signal};

/// Kills all that a daemon does, and lets it listen on.
fn hang_up(daemon: &Daemon) {
    let connections = descendants(daemon.pid());
    assert!(!connections.is_empty());
    connections.into_iter().for_each(|pid| signal(pid, "KILL"));
}

/// A store with a pool of connections, reached in this way.
async fn stores(lab: &Lab, store: String) -> Arc<Stores> {
    let options = StoreOptions {
        nix_bin: Some(lab.nix.bin.clone()),
        store: Some(store),
        env: lab.env(),
        ..StoreOptions::default()
    };
    let store = Store::Local(LocalStore::open(options).await.unwrap());
    let pool = Arc::new(Pool::new(store.clone(), Wishes::default()));
    Arc::new(Stores::new(pool, Arc::new(tokio::sync::Mutex::new(Roots::new(store))), false))
}

#[tokio::test]
async fn a_store_that_takes_no_more_is_not_fed_and_its_other_connections_are_not_tried() {
    let (from, to) = (Lab::chroot(&newest()), Lab::chroot(&newest()));
    // More than what is on its way at any moment.
    let script = "s=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do s=$s$s; done; echo $s > $out";
    let drv = from.drv("large", script, "");
    let large = from.run("nix-store", &["--realise", &drv]);
    let daemon = to.daemon();
    let uri = format!("unix://{}?root={}", daemon.socket.display(), to.path("root").display());
    let (source, target) = (stores(&from, from.store_arg().unwrap()).await, stores(&to, uri).await);
    let mut lent = Vec::new();
    for _ in 0..4 {
        lent.push(target.pool.take(Caches::Off).await.unwrap());
    }
    lent.into_iter().for_each(|lent| target.pool.give_back(lent));
    hang_up(&daemon);

    let path = StorePath::from_absolute_path(large.as_bytes()).unwrap();
    let sources = Sources { stores: vec![source.pool.clone()], sites: Sites::default(), ..Sources::default() };
    let mut failures = Vec::new();
    while let Err(error) = bring(&target, std::slice::from_ref(&path), &sources, &|_| {}).await {
        failures.push(error.failure.message.to_string());
        assert!(failures.len() < 3, "each connection is tried: {failures:?}");
    }
    assert!(failures.iter().all(|text| !text.contains("no byte")), "it was waited for: {failures:?}");
    assert_eq!(
        to.run("nix-store", &["--query", "--hash", &large]),
        from.run("nix-store", &["--query", "--hash", &large])
    );
}

/// `slow` takes seconds to evaluate.
const SLOW: &str = r#"{ outputs = { self }: let
  build = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
  count = n: if n < 2 then n else count (n - 1) + count (n - 2);
in { packages.x86_64-linux.slow = builtins.seq (count 29) (build "slow"); }; }"#;

#[test]
fn an_evaluator_that_loses_the_daemon_is_replaced_and_the_flake_is_not_blamed() {
    let site = Site::of(Lab::plain(&newest()), SLOW);
    let daemon = site.lab.daemon();
    let mut command = site.command(&["run"]);
    command.env("NIX_REMOTE", format!("unix://{}", daemon.socket.display()));
    let running = start(command, &["run"]);
    wait_until("the evaluation", || {
        let run = std::fs::read_dir(site.state().join("runs")).ok()?.next()?.unwrap().path();
        std::fs::read_to_string(run.join("events.jsonl")).ok()?.contains("\"eval_started\"").then_some(())
    });
    hang_up(&daemon);
    running.wait().expect(0);
    let events = site.events();
    let warned = events.of("warning").iter().any(|event| event["message"].to_string().contains("lost the Nix daemon"));
    assert!(warned, "{:?}", events.of("warning"));
    assert_eq!(events.built(), ["slow"]);
}

/// An evaluator whose store was away once tries it no more: not even what is asked first can be answered.
#[test]
fn an_evaluator_that_cannot_reach_the_store_is_not_waited_for() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), SLOW);
        let (path, notes) = site.spy("nix");
        let script = "#!/bin/sh\ncase \" $* \" in *' repl '*) exec NIX \"$@\" --store unix:///nowhere/socket ;; esac\nexec \
                      NIX \"$@\"\n";
        let real = nix.bin.join("nix").display().to_string();
        write_program(&notes.with_file_name("nix"), &script.replace("NIX", &real));
        let mut command = site.command(&["plan"]);
        command.env("PATH", path);
        let ran = start(command, &["plan"]).wait();
        ran.expect(4);
        assert!(ran.stderr.contains("/nowhere/socket") && ran.stderr.contains("nix store info"), "{}", ran.stderr);
    });
}
