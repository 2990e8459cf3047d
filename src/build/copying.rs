//! Copying one path into a store from whoever has it, without a file in between.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};

use crate::event::{Class, Failure};
use crate::nix_compat::daemon::{Connection, DaemonError, PathInfo};
use crate::nix_compat::error_class;
use crate::store::error::StoreError;

use super::sources::Source;
use super::{Caches, Pool, Site};

/// Bytes of a NAR on their way from store to store.
const IN_FLIGHT: usize = 256 << 10;

/// A transfer without a byte for so long is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that has got all of a path may take so long to make it valid.
const LAST_PATIENCE: Duration = Duration::from_secs(300);

/// Why a copy ended early.
pub(super) enum Stopped {
    /// The store that it came from, or what came.
    Here(Failure),
    /// The store that it was for.
    There(Failure),
}

/// Copies one path, whose references are valid there.
pub(super) async fn copy_one(to: &Site, source: &Source, info: &PathInfo) -> Result<(), Stopped> {
    // What was built there was not built here.
    let info = &PathInfo { ultimate: false, ..info.clone() };
    let mut session = to.pool.take(Caches::Off).await.map_err(|error| Stopped::There(lost(&error)))?;
    let copied = match source {
        Source::Store(_, pool) => stream(pool, &mut session, info).await,
        Source::Site(_, site) => stream(&site.pool, &mut session, info).await,
        Source::Bundle(bundle) => match bundle.nar(&info.path) {
            // A file says nothing about who made it.
            Some(mut nar) => add(&mut session, info, true, &mut nar).await,
            None => Err(Stopped::Here(Failure::new(Class::Cache, format!("{} is not in the file", info.path.name())))),
        },
        Source::Cache(cache, record) => match cache.nar(record).await {
            Ok(mut nar) => add(&mut session, info, false, &mut nar).await,
            Err(failure) => Err(Stopped::Here(failure)),
        },
    };
    to.pool.give_back(session);
    copied
}

/// Adds one path from a stream.
async fn add<S>(to: &mut Connection, info: &PathInfo, check: bool, nar: &mut S) -> Result<(), Stopped>
where
    S: AsyncRead + Unpin + Send + ?Sized,
{
    to.add_to_store_nar(info, check, nar, &mut |_| {}).await.map_err(|error| match &error {
        DaemonError::Source { .. } => Stopped::Here(Failure::new(Class::Cache, crate::error::chain(&error))),
        _ => refused(&error),
    })
}

/// Copies one path from store to store.
async fn stream(from: &Pool, to: &mut Connection, info: &PathInfo) -> Result<(), Stopped> {
    let mut source = from.take(Caches::Off).await.map_err(|error| Stopped::Here(lost(&error)))?;
    let moved = Arc::new(AtomicU64::new(0));
    let (sink, nar) = tokio::io::duplex(IN_FLIGHT);
    let nar = Counted { inner: nar, moved: moved.clone() };
    let copied = {
        let source = &mut source;
        let read = async move {
            let mut sink = sink;
            let read = source.nar_from_path(&info.path, info.nar_size, &mut sink).await;
            // Its end is the end of the stream.
            let _ = sink.shutdown().await;
            read
        };
        // Whoever writes on after a refusal has to hear that nobody reads: the stream ends with the one that took it.
        let added = async move {
            let mut nar = nar;
            to.add_to_store_nar(info, false, &mut nar, &mut |_| {}).await
        };
        let both = async { tokio::join!(read, added) };
        tokio::select! {
            biased;
            both = both => Some(both),
            () = stalled(&moved, info.nar_size) => None,
        }
    };
    let Some((read, added)) = copied else {
        let name = info.path.name();
        let seconds = PATIENCE.as_secs();
        // Both connections are in mid-message and closed; which end hangs is not known, so the receiving one is asked.
        return Err(Stopped::There(Failure::new(Class::BuilderLost, format!("no byte of {name} came for {seconds}s"))));
    };
    let read = read.map_err(|error| source.explain(error));
    from.give_back(source);
    match (read, added) {
        (Ok(()), Ok(())) => Ok(()),
        // The other end misses the rest then.
        (Err(error), Ok(()) | Err(_)) if !is_sink(&error) => Err(Stopped::Here(lost(&error))),
        (_, Err(error)) => Err(refused(&error)),
        (Err(error), Ok(())) => Err(Stopped::Here(lost(&error))),
    }
}

/// Whether a NAR could not be read on only because nobody took it any more.
fn is_sink(error: &StoreError) -> bool {
    matches!(error, StoreError::Daemon { error, .. } if matches!(**error, DaemonError::Sink { .. }))
}

/// Ends when nothing has moved for too long.
async fn stalled(moved: &AtomicU64, size: u64) {
    let mut before = 0;
    let mut patience = PATIENCE;
    loop {
        tokio::time::sleep(patience).await;
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
        patience = if now >= size { LAST_PATIENCE } else { PATIENCE };
    }
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    moved: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.moved.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

/// A store did not answer.
pub(super) fn lost(error: &StoreError) -> Failure {
    Failure::new(Class::BuilderLost, crate::error::chain(error))
}

/// A store did not take a path: for its own reasons, or because of what came.
fn refused(error: &DaemonError) -> Stopped {
    let text = crate::error::chain(error);
    if error.is_fatal() {
        return Stopped::There(Failure::new(Class::BuilderLost, text));
    }
    match error_class::of_error(error) {
        // Neither disk nor key nor reference: what came is no archive, or another one. Somebody else may have it whole.
        Class::Build => Stopped::Here(Failure::new(Class::Cache, text)),
        class => Stopped::There(Failure::new(class, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix_compat::daemon::{Level, RemoteError};

    fn said(text: &str) -> Stopped {
        let error = RemoteError { level: Level::ERROR, message: text.into(), traces: Vec::new() };
        refused(&DaemonError::Refused { act: "adding a path", error })
    }

    #[test]
    fn a_source_that_gives_something_else_is_to_blame_and_not_the_store_that_refuses_it() {
        for text in
            ["bad archive: expected tag 'contents', got 'clntents'", "hash mismatch importing path '/nix/store/x'"]
        {
            assert!(matches!(said(text), Stopped::Here(failure) if failure.class == Class::Cache), "{text}");
        }
        for (text, class) in [
            ("writing to file: No space left on device", Class::DiskFull),
            ("path 'x' lacks a signature by a trusted key", Class::Signature),
            ("path '/nix/store/x' is not valid", Class::Dependency),
        ] {
            assert!(matches!(said(text), Stopped::There(failure) if failure.class == class), "{text}");
        }
    }
}
