//! One path: store → NAR → cache.
//!
//! Two sides run at once: the store writes the NAR, the cache takes what comes out of the compressor. Neither waits for
//! the other to end, and whichever fails says whose fault it was.

use std::io;

use crate::event::{Class, Failure};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::NarInfo;
use crate::store::cache::{Nar, NarStream, NarWriter, PutError, Sink, StreamError};

/// Why one path could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The store stopped sending.
    #[error("cannot read {path} from the store")]
    Read {
        /// Which path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The store sent less than it promised.
    #[error("cannot read {path} from the store: it sent {got} of {expected} bytes")]
    Short {
        /// Which path.
        path: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that should have come.
        expected: u64,
    },
    /// What the store sent is not what it says it has.
    #[error("{path} is damaged in the store: its NAR has the hash {got} instead of {expected}")]
    Differs {
        /// Which path.
        path: String,
        /// What the store says.
        expected: String,
        /// What came.
        got: String,
    },
    /// The cache could not be written.
    #[error("cannot write {path} to the cache")]
    Write {
        /// Which path.
        path: String,
        /// Why.
        source: PutError,
    },
}

impl UploadError {
    fn new(info: &PathInfo, source: PutError) -> Self {
        let path = info.path.to_basename();
        match source {
            PutError::Stream(StreamError::Short { got, expected }) => Self::Short { path, got, expected },
            PutError::Stream(StreamError::Differs { expected, got }) => Self::Differs { path, expected, got },
            source => Self::Write { path, source },
        }
    }

    /// Whether it is the store that failed, so that another one may do better.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }

    /// The same for the event.
    #[must_use]
    pub fn failure(&self) -> Failure {
        if let Self::Write { source: PutError::Server(failure), .. } = self {
            return failure.clone();
        }
        let class = match self {
            Self::Write { source, .. } => source.class(),
            Self::Differs { .. } => Class::Cache,
            Self::Read { .. } | Self::Short { .. } => Class::Network,
        };
        Failure::new(class, crate::error::chain(self))
    }
}

/// Brings the NAR of a path into a cache, where nobody sees it until it is [finished](finish). `read` writes the bytes
/// of the NAR and gives the writer back. Dropping the upload stops both sides.
pub async fn upload<R, F>(sink: &Sink, info: &PathInfo, read: R) -> Result<Nar, UploadError>
where
    R: FnOnce(NarWriter) -> F,
    F: Future<Output = io::Result<NarWriter>>,
{
    let (writer, stream) = NarStream::start(sink.codec(info), info);
    let reading = async { read(writer).await?.end().await };
    let sending = sink.send(info, stream);
    let (mut reading, mut sending) = (std::pin::pin!(reading), std::pin::pin!(sending));
    let mut read = None;
    let sent = loop {
        tokio::select! {
            biased;
            sent = &mut sending => break sent,
            ended = &mut reading, if read.is_none() => read = Some(ended),
        }
    };
    sent.map_err(|error| match (read, UploadError::new(info, error)) {
        (Some(Err(source)), UploadError::Short { path, .. }) => UploadError::Read { path, source },
        (_, error) => error,
    })
}

/// Makes a path visible whose NAR and whose references are there. Gives its record, unless the server writes it.
pub async fn finish(sink: &Sink, info: &PathInfo, nar: &Nar) -> Result<Option<NarInfo>, UploadError> {
    sink.register(info, nar).await.map_err(|error| UploadError::new(info, error))
}
