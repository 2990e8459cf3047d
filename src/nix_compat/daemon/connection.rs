//! A connection: sends requests, receives replies, and refuses use once it is out of step.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::answer::{Answer, Layout, Source};
use super::error::{DaemonError, RemoteError};
use super::handshake::{self, Peer, Trust};
use super::message::{Messages, read_messages};
use crate::id::StoreDir;
use crate::nix_compat::wire::WireError;

/// What a connection reads from.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// What it writes to.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Bytes of the read buffer.
const BUFFER: usize = 64 << 10;

/// How long a daemon that no longer reads may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A connection to a daemon. One operation at a time (hence `&mut`); dropping it closes it, and a build that runs on
/// it is killed by the daemon. Dropping the future of an operation leaves the streams out of step: the connection is
/// then *poisoned* and every further operation fails with [`DaemonError::Poisoned`].
pub struct Connection {
    pub(super) reader: Source,
    pub(super) writer: Writer,
    pub(super) layout: Layout,
    peer: Peer,
    poisoned: bool,
}

impl Connection {
    /// Shakes hands over these streams with a store whose paths are below this directory.
    pub async fn open(reader: Reader, mut writer: Writer, store_dir: StoreDir) -> Result<Self, DaemonError> {
        let mut reader = BufReader::with_capacity(BUFFER, reader);
        let mut log = |message| tracing::debug!(?message, "while connecting");
        let peer = handshake::shake(&mut reader, &mut writer, &mut log).await?;
        tracing::debug!(?peer, "connected");
        let layout = Layout { minor: peer.minor, dir: store_dir };
        Ok(Self { reader, writer, layout, peer, poisoned: false })
    }

    /// What is known of the daemon.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the daemon lets us do.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.peer.trust
    }

    /// The directory of the paths in its store.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.layout.dir
    }

    /// Whether a further operation makes sense.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.poisoned
    }

    /// Before an operation: refuses if the streams are out of step, and takes them out of step until
    /// [`Connection::settle`].
    pub(super) fn begin(&mut self, act: &'static str) -> Result<(), DaemonError> {
        if std::mem::replace(&mut self.poisoned, true) {
            return Err(DaemonError::Poisoned { act });
        }
        // Nothing may come unasked: it would be taken for the answer to what is asked now.
        match self.unasked() {
            None => Ok(()),
            Some(error) => Err(DaemonError::wire(act, error)),
        }
    }

    /// After an operation of which everything was read.
    pub(super) fn settle(&mut self) {
        self.poisoned = false;
    }

    /// What the peer did although it was not asked; `None` while it is silent, as it should be.
    pub(super) fn unasked(&mut self) -> Option<WireError> {
        match self.reader.fill_buf().now_or_never()? {
            Ok([]) => Some(WireError::Ended),
            Ok(_) => Some(WireError::malformed("it says something unasked")),
            Err(error) => Some(error.into()),
        }
    }

    /// The end of an operation that the daemon refused: it goes on, unless it closed or said more than one error,
    /// as it does when it could not even read the request.
    pub(super) fn refused(&mut self, act: &'static str, error: RemoteError) -> DaemonError {
        if self.unasked().is_some() {
            return DaemonError::Fatal { act, error };
        }
        self.settle();
        DaemonError::Refused { act, error }
    }

    /// Throws away what comes until the daemon is silent, or `most` has passed. See `store::session::Session::close`.
    pub(crate) async fn quiet(&mut self, silence: Duration, most: Duration) {
        self.poisoned = true;
        let listen = async {
            while let Ok(Ok(bytes)) = tokio::time::timeout(silence, self.reader.fill_buf()).await {
                let len = bytes.len();
                if len == 0 {
                    return;
                }
                self.reader.consume(len);
            }
        };
        let _ = tokio::time::timeout(most, listen).await;
    }

    /// One request, one reply.
    pub(super) async fn call<A: Answer>(
        &mut self,
        act: &'static str,
        request: &[u8],
        messages: Messages<'_>,
    ) -> Result<A, DaemonError> {
        let mut answers = self.burst(act, request, 1, messages).await?;
        answers.pop().ok_or(DaemonError::Closed { act })
    }

    /// Many requests in one stream, and their replies. Reads while it writes, so that no burst is too long. If the
    /// daemon refuses some, the first refusal is the error, after all replies were read.
    pub(super) async fn burst<A: Answer>(
        &mut self,
        act: &'static str,
        requests: &[u8],
        count: usize,
        messages: Messages<'_>,
    ) -> Result<Vec<A>, DaemonError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.begin(act)?;
        let Self { reader, writer, layout, .. } = self;
        let mut refusal: Option<RemoteError> = None;
        let write = async {
            writer.write_all(requests).await?;
            Ok(writer.flush().await?)
        };
        let read = async {
            let mut answers = Vec::with_capacity(count);
            for _ in 0..count {
                match read_messages(reader, messages).await? {
                    None => answers.push(A::read(reader, layout).await?),
                    Some(error) => {
                        refusal.get_or_insert(error);
                    }
                }
            }
            Ok(answers)
        };
        match (while_writing(write, read).await, refusal) {
            (Ok(answers), None) => {
                self.settle();
                Ok(answers)
            }
            (Ok(_), Some(error)) => Err(self.refused(act, error)),
            (Err(WireError::Ended), Some(error)) => Err(DaemonError::Fatal { act, error }),
            (Err(error), _) => Err(DaemonError::wire(act, error)),
        }
    }
}

/// Reads while writing. What the peer said before it stopped reading counts more than that it stopped.
pub(super) async fn while_writing<T>(
    write: impl Future<Output = Result<(), WireError>>,
    read: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    tokio::pin!(write, read);
    tokio::select! {
        biased;
        written = &mut write => match written {
            Ok(()) => read.await,
            Err(error) => match tokio::time::timeout(LAST_WORDS, read).await {
                Ok(answer) => answer,
                Err(_) => Err(error),
            },
        },
        answer = &mut read => {
            let answer = answer?;
            write.await?;
            Ok(answer)
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("store_dir", &self.layout.dir)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}
