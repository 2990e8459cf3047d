//! A connection together with what carries it: a socket, a child that speaks on its standard streams, or a channel of
//! an ssh.
//!
//! Owns the child's life: its stderr is read, its last words are kept, and it is given the time to clean up after
//! itself when the connection is closed. Does not start it (`local`, `remote`).

use std::any::Any;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::process::{Child, ChildStderr};

use super::error::StoreError;
use crate::id::StoreDir;
use crate::nix_compat::ansi;
use crate::nix_compat::daemon::{Connection, DaemonError, Reader, Writer};

/// Most bytes that are kept of a child's stderr.
const LAST_WORDS: usize = 4 << 10;

/// A daemon that said nothing for so long waits in `poll`.
const SILENCE: Duration = Duration::from_millis(20);

/// A daemon that always says something will soon notice by itself.
const MOST: Duration = Duration::from_millis(500);

/// A connection that can be used like the [`Connection`] that it holds. Dropping it closes it.
#[derive(Debug)]
pub struct Session {
    // Before the carrier: its streams have to be closed first.
    connection: Connection,
    carrier: Option<Carrier>,
    uri: Arc<str>,
}

/// What carries a connection, and has to live as long.
#[derive(Debug)]
struct Carrier {
    child: Option<(Child, Nursery)>,
    _held: Option<Held>,
    words: LastWords,
}

/// Something whose drop closes what carries a connection.
pub(super) type Held = Box<dyn Any + Send>;

/// The streams of somebody who may also have something to say on stderr.
pub(super) struct Streams {
    pub(super) stdin: Writer,
    pub(super) stdout: Reader,
    pub(super) stderr: Option<Reader>,
}

impl Session {
    /// Shakes hands over a pair of streams.
    pub async fn over_streams(
        reader: Reader,
        writer: Writer,
        dir: StoreDir,
        uri: Arc<str>,
    ) -> Result<Self, StoreError> {
        match Connection::open(reader, writer, dir).await {
            Ok(connection) => Ok(Self { connection, carrier: None, uri }),
            Err(error) => Err(StoreError::Daemon { uri: uri.to_string(), error: error.into(), said: String::new() }),
        }
    }

    /// Shakes hands with a child that was started with all its streams piped.
    pub async fn over_child(
        mut child: Child,
        dir: StoreDir,
        uri: Arc<str>,
        nursery: &Nursery,
    ) -> Result<Self, StoreError> {
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            let error = DaemonError::Closed { act: "connecting" };
            return Err(StoreError::Daemon { uri: uri.to_string(), error: error.into(), said: String::new() });
        };
        let stderr = child.stderr.take().map(|stderr| Box::new(stderr) as Reader);
        let streams = Streams { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr };
        let words = LastWords::default();
        Self::over(streams, Carrier { child: Some((child, nursery.clone())), _held: None, words }, dir, uri).await
    }

    /// Shakes hands over streams that are closed when something is dropped.
    pub(super) async fn over_held(
        streams: Streams,
        held: Held,
        dir: StoreDir,
        uri: Arc<str>,
    ) -> Result<Self, StoreError> {
        let carrier = Carrier { child: None, _held: Some(held), words: LastWords::default() };
        Self::over(streams, carrier, dir, uri).await
    }

    async fn over(streams: Streams, carrier: Carrier, dir: StoreDir, uri: Arc<str>) -> Result<Self, StoreError> {
        let Streams { stdin, stdout, stderr } = streams;
        let reader = TalkingReader { stdout, stderr, words: carrier.words.clone() };
        match Connection::open(Box::new(reader), stdin, dir).await {
            Ok(connection) => Ok(Self { connection, carrier: Some(carrier), uri }),
            Err(error) => {
                Err(StoreError::Daemon { uri: uri.to_string(), error: error.into(), said: carrier.words.text() })
            }
        }
    }

    /// Closes the connection in the middle of an operation, so that the daemon kills what it builds.
    ///
    /// Dropping closes it too, but a daemon that learns of it while it handles a line of the builder's output forgets
    /// it before it waits for the next one (seen with Nix 2.34.8), and a silent build then runs on to its end. So
    /// this waits until the daemon has said nothing for a moment, at most half a second, and then closes.
    pub async fn close(mut self) {
        self.connection.quiet(SILENCE, MOST).await;
    }

    /// An error of this connection with what the child had to say about it.
    #[must_use]
    pub fn explain(&self, error: DaemonError) -> StoreError {
        let said = match &self.carrier {
            Some(carrier) if error.is_fatal() => carrier.words.text(),
            _ => String::new(),
        };
        StoreError::Daemon { uri: self.uri.to_string(), error: error.into(), said }
    }
}

impl Deref for Session {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some((child, nursery)) = self.child.take() {
            nursery.adopt(child);
        }
    }
}

/// Children whose connection is closed. A daemon that sees its client go kills the build, removes its directory and
/// ends, within some 20 ms; killing it at once would leave that directory behind.
#[derive(Debug, Clone, Default)]
pub struct Nursery {
    children: Arc<Mutex<VecDeque<Child>>>,
}

impl Nursery {
    /// More than this many are not waited for; the oldest had its time.
    const MOST: usize = 64;

    fn adopt(&self, child: Child) {
        let mut children = lock(&self.children);
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        children.push_back(child);
        if children.len() > Self::MOST {
            children.pop_front();
        }
    }

    /// Waits until all have ended; those that have not after `patience` are killed.
    pub async fn settle(&self, patience: Duration) {
        let mut children = std::mem::take(&mut *lock(&self.children));
        let all = async {
            for child in &mut children {
                let _ = child.wait().await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::debug!("some nix-daemon did not end by itself");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last that a child said on stderr.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<VecDeque<u8>>>);

impl LastWords {
    fn add(&self, bytes: &[u8]) {
        let mut words = lock(&self.0);
        words.extend(bytes);
        let excess = words.len().saturating_sub(LAST_WORDS);
        words.drain(..excess);
    }

    /// Reads a child's stderr to its end; cut off, it can be taken up again.
    pub(super) async fn listen(&self, stderr: &mut Option<ChildStderr>) {
        let mut bytes = [0; 1024];
        while let Some(open) = stderr {
            match open.read(&mut bytes).await {
                Ok(len) if len > 0 => self.add(&bytes[..len]),
                _ => *stderr = None,
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = lock(&self.0).iter().copied().collect();
        ansi::text(&bytes).trim().to_owned()
    }
}

/// Somebody's stdout. Whoever waits for it also reads its stderr, so that nobody ever blocks on that.
struct TalkingReader {
    stdout: Reader,
    stderr: Option<Reader>,
    words: LastWords,
}

impl TalkingReader {
    fn drain_stderr(&mut self, cx: &mut Context<'_>) {
        while let Some(stderr) = &mut self.stderr {
            let mut bytes = [0; 1024];
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(stderr).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.words.add(buf.filled()),
                Poll::Ready(_) => self.stderr = None,
                Poll::Pending => return,
            }
        }
    }
}

impl AsyncRead for TalkingReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.drain_stderr(cx);
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stdout).poll_read(cx, buf);
        if matches!(polled, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            // The end: what it said just before belongs to it.
            self.drain_stderr(cx);
        }
        polled
    }
}
