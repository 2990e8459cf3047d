//! Connections that are used by one after the other, beside a real daemon: how many are opened, and who gets them.
#![expect(clippy::disallowed_methods, reason = "a server of a test ends with the test's runtime")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drover::build::{Caches, Pool};
use drover::store::any::Store;
use drover::store::local::Wishes;
use drover::store::remote::{RemoteOptions, RemoteStore};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::remote_dial::{dir, run};
use crate::support::nix::{Lab, newest};

/// The way to a daemon: how many connections came by, and whether the next ones are let through.
struct Gate {
    socket: PathBuf,
    came: Arc<AtomicUsize>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn before(socket: PathBuf, at: PathBuf) -> Self {
        let listener = UnixListener::bind(&at).unwrap();
        let (came, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let gate = Self { socket: at, came: came.clone(), open: open.clone() };
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::SeqCst);
                let (open, socket) = (open.clone(), socket.clone());
                tokio::spawn(async move {
                    open.acquire().await.unwrap().forget();
                    let mut server = UnixStream::connect(socket).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        gate
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// A pool with no connection, and what is between it and its daemon: one connection has come by.
async fn pool(lab: &Lab, daemon: PathBuf) -> (Pool, Gate) {
    let gate = Gate::before(daemon, lab.path("gate"));
    gate.open.add_permits(1);
    let uri = format!("unix://{}", gate.socket.display());
    let store = RemoteStore::dial(RemoteOptions::new("gate", uri, &lab.path("tmp"), dir())).await.unwrap();
    (Pool::new(Store::Remote(store), Wishes::default()), gate)
}

#[test]
fn what_is_given_back_soon_is_not_opened_anew() {
    let lab = Lab::chroot(&newest());
    let daemon = lab.daemon();
    run(async {
        let (pool, gate) = pool(&lab, daemon.socket.clone()).await;
        let first = pool.take(Caches::Off).await.unwrap();
        // The next one already waits when the first is done.
        let (second, ()) = tokio::join!(pool.take(Caches::Off), async { pool.give_back(first) });
        second.unwrap().valid_paths(&[]).await.unwrap();
        assert_eq!(gate.came(), 1);
    });
}

#[test]
fn whoever_waits_takes_what_is_there_first_and_the_next_one_has_the_other() {
    let lab = Lab::chroot(&newest());
    let daemon = lab.daemon();
    run(async {
        let (pool, gate) = pool(&lab, daemon.socket.clone()).await;
        let first = pool.take(Caches::Off).await.unwrap();
        let given_back = async {
            // A new connection is on its way by now, and does not come.
            while gate.came() < 2 {
                tokio::task::yield_now().await;
            }
            pool.give_back(first);
        };
        let (second, ()) = tokio::join!(pool.take(Caches::Off), given_back);
        let mut second = second.unwrap();
        second.valid_paths(&[]).await.unwrap();
        gate.open.add_permits(1);
        let mut third = pool.take(Caches::Off).await.unwrap();
        third.valid_paths(&[]).await.unwrap();
        assert_eq!(gate.came(), 2, "the third has what the second no longer waited for");
    });
}

#[test]
fn as_many_as_are_needed_at_once_are_opened() {
    let lab = Lab::chroot(&newest());
    let daemon = lab.daemon();
    run(async {
        let (pool, gate) = pool(&lab, daemon.socket.clone()).await;
        gate.open.add_permits(7);
        let mut taking: FuturesUnordered<_> = (0..8).map(|_| pool.take(Caches::Off)).collect();
        let mut lent = Vec::new();
        while let Some(taken) = taking.next().await {
            lent.push(taken.unwrap());
        }
        assert_eq!(gate.came(), 8);
        for mut each in lent {
            each.valid_paths(&[]).await.unwrap();
            pool.give_back(each);
        }
        pool.take(Caches::Off).await.unwrap();
        assert_eq!(gate.came(), 8);
    });
}

#[test]
fn whoever_cannot_have_one_hears_why() {
    let lab = Lab::chroot(&newest());
    let daemon = lab.daemon();
    run(async {
        let (pool, _gate) = pool(&lab, daemon.socket.clone()).await;
        let first = pool.take(Caches::Off).await.unwrap();
        std::fs::remove_file(lab.path("gate")).unwrap();
        let error = pool.take(Caches::Off).await.unwrap_err().to_string();
        assert!(error.contains("gate"), "{error}");
        drop(first);
    });
}
