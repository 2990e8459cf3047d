//! One path on its way into a cache: its NAR in one pass, then, when all that it refers to is there, its record.
//!
//! The NAR is written on the async side and hashed, compressed, hashed again and written on a blocking thread; between
//! the two are a few chunks, so memory stays at a few MiB whatever the size of the NAR.

use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::PollSender;

use super::narinfo::{RecordError, record};
use crate::event::{Class, Failure};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{Compression, NarInfo, NixHash};
use crate::store::cache::{Codec, Sink};

/// Bytes of one chunk between the two sides.
const CHUNK: usize = 256 * 1024;

/// Chunks that wait between the two sides at most.
const CHUNKS: usize = 4;

/// Bytes that one compressing thread gets at a time, if there are several.
const JOB: u32 = 2 * 1024 * 1024;

/// A NAR as a cache holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nar {
    /// Where, relative to the cache: `nar/HASH.nar.zst`.
    pub url: String,
    /// How it is compressed.
    pub compression: Compression,
    /// SHA-256 of the compressed file.
    pub file_hash: NixHash,
    /// Bytes of the compressed file.
    pub file_size: u64,
    /// False if the cache had this very file already.
    pub new: bool,
}

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
        source: io::Error,
    },
    /// There is no record for what the store said.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The blocking thread died.
    #[error("pushing {path} ended without a result")]
    Lost {
        /// Which path.
        path: String,
    },
}

impl UploadError {
    /// The same for the event.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let class = match self {
            Self::Write { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Class::DiskFull
            }
            Self::Write { .. } | Self::Differs { .. } | Self::Record(_) => Class::Cache,
            Self::Read { .. } | Self::Short { .. } => Class::Network,
            Self::Lost { .. } => Class::Internal,
        };
        Failure { class, message: crate::error::chain(self).into(), position: None }
    }

    /// Whether the stream that the NAR came from is at an unknown place: its connection must be closed, not reused.
    #[must_use]
    pub fn stream_is_lost(&self) -> bool {
        !matches!(self, Self::Differs { .. } | Self::Record(_))
    }
}

/// A NAR on its way into the cache: write its bytes, in order, then ask for the [`end`](Upload::end).
///
/// Writes wait while the blocking side is busy. Dropping it stops the upload and leaves nothing behind but, for a
/// moment, a temporary file.
#[derive(Debug)]
pub struct Upload {
    path: String,
    chunk: Vec<u8>,
    chunks: PollSender<Vec<u8>>,
    packing: JoinHandle<Result<Nar, UploadError>>,
}

impl Upload {
    /// Starts the blocking side for the NAR of this path. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(sink: &Sink, info: &PathInfo) -> Self {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let path = info.path.to_basename();
        let (to, name, expected, size) = (sink.clone(), path.clone(), NixHash::Sha256(info.nar_hash), info.nar_size);
        let packing = spawn_blocking(move || pack(&to, name, &expected, size, receiver));
        Self { path, chunk: Vec::new(), chunks: PollSender::new(sender), packing }
    }

    /// All bytes are written: the NAR as the cache now holds it, if they were the right ones.
    pub async fn end(mut self) -> Result<Nar, UploadError> {
        // If nobody takes the chunk any more, the blocking side says why.
        let _ = poll_fn(|cx| self.poll_send(cx)).await;
        self.chunks.close();
        self.packing.await.unwrap_or(Err(UploadError::Lost { path: self.path }))
    }

    /// The writing failed: says whose fault it was, the cache's if it took no more, else the one of the `source`.
    pub async fn failed(self, source: io::Error) -> UploadError {
        let path = self.path.clone();
        match self.end().await {
            Ok(_) | Err(UploadError::Short { .. }) => UploadError::Read { path, source },
            Err(error) => error,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.chunks.poll_reserve(cx)).map_err(gone)?;
        Poll::Ready(self.chunks.send_item(std::mem::take(&mut self.chunk)).map_err(gone))
    }
}

impl AsyncWrite for Upload {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.chunk.len() >= CHUNK {
            ready!(self.poll_send(cx))?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Brings the NAR of a path into the cache; reads exactly `info.nar_size` bytes of `nar`. The record is not written
/// yet: that is [`finish`].
pub async fn upload(sink: &Sink, info: &PathInfo, nar: impl AsyncRead + Unpin) -> Result<Nar, UploadError> {
    let mut upload = Upload::start(sink, info);
    match tokio::io::copy(&mut nar.take(info.nar_size), &mut upload).await {
        Ok(_) => upload.end().await,
        Err(error) => Err(upload.failed(error).await),
    }
}

/// Writes the record of a path whose NAR and whose references are there, signed by the cache's keys.
pub async fn finish(sink: &Sink, info: &PathInfo, nar: &Nar) -> Result<NarInfo, UploadError> {
    let record = record(info, nar, sink)?;
    let path = || info.path.to_basename();
    let (to, written) = (sink.clone(), record.clone());
    spawn_blocking(move || to.put_narinfo(&written))
        .await
        .map_err(|_| UploadError::Lost { path: path() })?
        .map_err(|source| UploadError::Write { path: path(), source })?;
    Ok(record)
}

/// The blocking half: hash, compress, hash, write; then compare, then give the file its name.
fn pack(
    sink: &Sink,
    path: String,
    expected: &NixHash,
    size: u64,
    mut chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<Nar, UploadError> {
    let write = |source| UploadError::Write { path: path.clone(), source };
    let mut packer = Packer::new(sink.spool().map_err(write)?, sink.codec(), size).map_err(write)?;
    let (mut hash, mut got) = (Sha256::new(), 0);
    while let Some(chunk) = chunks.blocking_recv() {
        hash.update(&chunk);
        got += chunk.len() as u64;
        packer.write_all(&chunk).map_err(write)?;
    }
    if got != size {
        return Err(UploadError::Short { path, got, expected: size });
    }
    let hash = NixHash::Sha256(hash.finalize().into());
    if hash != *expected {
        let (expected, got) = (expected.to_nix_nixbase32_string(), hash.to_nix_nixbase32_string());
        return Err(UploadError::Differs { path, expected, got });
    }
    let file = packer.finish().map_err(write)?;
    let file_hash = NixHash::Sha256(file.hash.finalize().into());
    let digest = crate::nix_compat::narinfo::nixbase32::encode(file_hash.digest_as_bytes());
    let url = format!("nar/{digest}.nar{}", sink.codec().extension());
    let new = sink.place(file.inner, &url).map_err(write)?;
    Ok(Nar { url, compression: sink.codec().compression(), file_hash, file_size: file.size, new })
}

/// Compresses into a file.
enum Packer {
    None(Hashed<NamedTempFile>),
    Zstd(zstd::Encoder<'static, Hashed<NamedTempFile>>),
}

impl Packer {
    fn new(file: NamedTempFile, codec: Codec, size: u64) -> io::Result<Self> {
        let file = Hashed { inner: file, hash: Sha256::new(), size: 0 };
        match codec {
            Codec::None => Ok(Self::None(file)),
            Codec::Zstd { level, threads } => {
                let mut encoder = zstd::Encoder::new(file, level)?;
                encoder.set_pledged_src_size(Some(size))?;
                if size >= Codec::BIG && threads > 1 {
                    encoder.multithread(threads)?;
                    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB))?;
                }
                Ok(Self::Zstd(encoder))
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(file) => file.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Hashed<NamedTempFile>> {
        match self {
            Self::None(file) => Ok(file),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// A writer that knows the hash and the size of what went through it.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
