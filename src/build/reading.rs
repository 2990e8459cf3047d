//! Reading a NAR from a store that may fall silent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use super::site::{PATIENCE, silent};
use crate::nix_compat::daemon::PathInfo;
use crate::store::error::StoreError;
use crate::store::session::Session;

/// Reads a path's NAR from a store, unless it says nothing for 30 s. The time that `to` takes
/// for what it got does not count.
///
/// # Errors
/// What the store said, or that it said nothing: the connection is of no use then.
pub async fn read_nar<W>(session: &mut Session, info: &PathInfo, to: &mut W) -> Result<(), StoreError>
where
    W: AsyncWrite + Unpin + Send,
{
    let seen = Arc::new(Seen::default());
    let mut to = Watched { inner: to, seen: seen.clone() };
    let read = tokio::select! {
        biased;
        read = session.nar_from_path(&info.path, info.nar_size, &mut to) => read,
        () = seen.silence() => Err(silent(PATIENCE)),
    };
    read.map_err(|error| session.explain(error))
}

/// What is seen of a transfer from its end.
#[derive(Debug, Default)]
struct Seen {
    bytes: AtomicU64,
    /// It is the receiver that takes its time.
    waits: AtomicBool,
}

impl Seen {
    /// Resolves when nothing has come for too long.
    async fn silence(&self) {
        let mut before = None;
        loop {
            let now = (!self.waits.load(Ordering::Relaxed)).then(|| self.bytes.load(Ordering::Relaxed));
            if now.is_some() && now == before {
                return;
            }
            before = now;
            tokio::time::sleep(PATIENCE).await;
        }
    }
}

/// A receiver that is watched.
struct Watched<'a, W> {
    inner: &'a mut W,
    seen: Arc<Seen>,
}

impl<W> Watched<'_, W> {
    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.seen.waits.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Watched<'_, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut *self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = polled {
            self.seen.bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut *self.inner).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut *self.inner).poll_shutdown(cx);
        self.note(polled)
    }
}
