//! Attempts whose daemon stops in the middle: each ends with one error, and its connection is not used again.

#![expect(clippy::disallowed_methods, reason = "a fake daemon serves beside the test and ends with it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover::build::{Attempt, Caches, Limits, News, Origin, Pool};
use drover::event::{AttemptEnd, Class};
use drover::nix_compat::daemon::Tag;
use drover::nix_compat::wire::Encoder;
use drover::store::any::Store;
use drover::store::local::{LocalStore, StoreOptions, Wishes};
use futures_util::future::join_all;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::support::exchanges::chatter;
use crate::support::fake_daemon::{Server, build_result, last, path, run};
use crate::support::nix::{Lab, newest};

/// Where the sockets are, and a Nix.
struct Place {
    lab: Lab,
    store: LocalStore,
}

impl Place {
    async fn new() -> Self {
        let lab = Lab::chroot(&newest());
        let options = StoreOptions {
            nix_bin: Some(lab.nix.bin.clone()),
            store: lab.store_arg(),
            env: lab.env(),
            ..StoreOptions::default()
        };
        let store = LocalStore::open(options).await.unwrap();
        Self { lab, store }
    }
}

/// A daemon whose connections answer a build with so many bytes of the reply.
struct Fake {
    store: LocalStore,
    /// How many connections there have been.
    connections: Arc<AtomicUsize>,
}

/// What it answers to a build: all kinds of messages, then a success.
fn reply() -> Vec<u8> {
    let mut reply = chatter();
    reply.u64(Tag::Last as u64).u64(1).bytes(format!("/nix/store/{}!*", path("x.drv").to_basename()));
    build_result(&mut reply, 38, 0, "", &[("out", &path("x"))]);
    reply.finish()
}

/// The bytes of it that say that the builder runs.
fn until_building() -> usize {
    let mut said = Encoder::new();
    said.u64(Tag::Next as u64).bytes("a log line\n");
    said.u64(Tag::StartActivity as u64).u64(9).u64(3).u64(105).bytes("building").u64(1).u64(1).bytes("x").u64(0);
    let said = said.finish();
    assert!(reply().starts_with(&said));
    said.len()
}

impl Fake {
    /// After so many bytes it is gone, or (else) silent; after all of them it waits for the next request.
    async fn new(at: &Place, said: usize, closes: bool) -> Self {
        let socket = at.lab.path(format!("{said}.sock"));
        let listener = UnixListener::bind(&socket).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(Server { stream }, said, closes));
            }
        });
        let store = at.store.other(&format!("unix://{}", socket.display())).await.unwrap();
        Self { store, connections }
    }

    fn pool(&self) -> Pool {
        Pool::new(Store::Local(self.store.clone()), Wishes::default())
    }

    fn attempt(&self, limits: Limits) -> Attempt {
        Attempt {
            path: path("x.drv"),
            outputs: vec![("out".into(), Some(path("x")))],
            inputs: Vec::new(),
            origin: Origin::Store(self.store.clone()),
            opaque: true,
            limits,
        }
    }

    async fn run(&self, pool: &Pool, limits: Limits, stop: &CancellationToken) -> (AttemptEnd, Vec<News>) {
        let mut heard = Vec::new();
        let ended = drover::build::run(pool, &self.attempt(limits), stop, |news| heard.push(news)).await;
        (ended, heard)
    }
}

async fn serve(mut server: Server<UnixStream>, said: usize, closes: bool) {
    server.handshake(38, 1).await;
    // The options, unless the client is gone.
    if server.try_any_request().await {
        server.drain().await;
        server.send(&last()).await;
    }
    while server.try_any_request().await {
        server.drain().await;
        server.send_bytes(&reply()[..said]).await;
        if said < reply().len() {
            if !closes {
                server.until_closed().await;
            }
            return;
        }
    }
}

fn class(ended: &AttemptEnd) -> Option<Class> {
    match ended {
        AttemptEnd::Failed(failure) => Some(failure.class),
        _ => None,
    }
}

#[test]
fn an_attempt_whose_daemon_dies_at_any_byte_has_lost_its_builder() {
    run(async {
        let at = Place::new().await;
        let cuts: Vec<usize> = (0..=reply().len()).collect();
        for some in cuts.chunks(16) {
            join_all(some.iter().map(|&cut| dies(&at, cut))).await;
        }
    });
}

async fn dies(at: &Place, cut: usize) {
    let fake = Fake::new(at, cut, true).await;
    let pool = fake.pool();
    let stop = CancellationToken::new();
    for round in 1..=2 {
        let (ended, heard) = fake.run(&pool, Limits::default(), &stop).await;
        assert_eq!(heard.contains(&News::Building), cut >= until_building(), "cut at {cut}: {heard:?}");
        let connections = fake.connections.load(Ordering::Relaxed);
        if cut < reply().len() {
            assert_eq!(class(&ended), Some(Class::BuilderLost), "cut at {cut}: {ended:?}");
            assert_eq!(connections, round, "cut at {cut}: a broken connection was used again");
        } else {
            assert!(matches!(ended, AttemptEnd::Built { .. }), "{ended:?}");
            assert_eq!(connections, 1, "a good connection was not used again");
        }
    }
}

#[test]
fn an_attempt_whose_daemon_stalls_at_any_byte_ends_at_its_limit_or_when_it_is_stopped() {
    run(async {
        let at = Place::new().await;
        let cuts: Vec<usize> = (0..reply().len()).collect();
        for some in cuts.chunks(64) {
            join_all(some.iter().map(|&cut| stalls(&at, cut))).await;
        }
    });
}

async fn stalls(at: &Place, cut: usize) {
    let fake = Fake::new(at, cut, false).await;
    let pool = fake.pool();
    let limits = Limits { total: Some(Duration::from_millis(10)), ..Limits::default() };
    let stop = CancellationToken::new();
    // Before the builder runs no limit counts; whoever finds the builder hung stops its attempts.
    let before = cut < until_building();
    if before {
        stop.cancel();
    }
    let (ended, _) = fake.run(&pool, limits, &stop).await;
    assert_eq!(class(&ended), Some(if before { Class::Cancelled } else { Class::Timeout }), "stalled at {cut}");
    drop(pool.take(Caches::On).await.unwrap());
    assert_eq!(fake.connections.load(Ordering::Relaxed), 2, "stalled at {cut}: the connection was used again");
}
