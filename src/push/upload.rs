//! One path on its way into a cache: its NAR in one pass, then, when all that it refers to is there, its record.
//!
//! The NAR is written on the async side and hashed, compressed, hashed again and written on a blocking thread; between
//! the two are a few chunks, so memory stays at a few MiB whatever the size of the NAR.

use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::PollSender;

use super::narinfo::{RecordError, record};
use crate::event::{Class, Failure};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{Compression, NarInfo, NixHash, nixbase32};
use crate::store::cache::{Codec, PutError, Sink, Spool};

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
        source: PutError,
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
        if let Self::Write { source: PutError::Server(failure), .. } = self {
            return failure.clone();
        }
        let class = match self {
            Self::Write { source, .. } => source.class(),
            Self::Differs { .. } | Self::Record(_) => Class::Cache,
            Self::Read { .. } | Self::Short { .. } => Class::Network,
            Self::Lost { .. } => Class::Internal,
        };
        Failure::new(class, crate::error::chain(self))
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
    packing: JoinHandle<Result<Packed, UploadError>>,
    sink: Sink,
}

/// A NAR that is packed and not in the cache yet.
#[derive(Debug)]
struct Packed {
    spooled: Spool,
    file_hash: NixHash,
    file_size: u64,
}

impl Upload {
    /// Starts the blocking side for the NAR of this path. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(sink: &Sink, info: &PathInfo) -> Self {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let path = info.path.to_basename();
        let (to, name, expected, size) = (sink.clone(), path.clone(), NixHash::Sha256(info.nar_hash), info.nar_size);
        let packing = spawn_blocking(move || pack(&to, name, &expected, size, receiver));
        Self { path, chunk: Vec::new(), chunks: PollSender::new(sender), packing, sink: sink.clone() }
    }

    /// All bytes are written: brings them into the cache, if they were the right ones, and gives the NAR as it now
    /// holds it.
    pub async fn end(mut self) -> Result<Nar, UploadError> {
        let Packed { spooled, file_hash, file_size } = self.pack().await?;
        let codec = self.sink.codec();
        let digest = nixbase32::encode(file_hash.digest_as_bytes());
        let url = format!("nar/{digest}.nar{}", codec.extension());
        let new = self.sink.place(spooled, &url, file_size).await;
        let new = new.map_err(|source| UploadError::Write { path: self.path, source })?;
        Ok(Nar { url, compression: codec.compression(), file_hash, file_size, new })
    }

    async fn pack(&mut self) -> Result<Packed, UploadError> {
        // If nobody takes the chunk any more, the blocking side says why.
        let _ = poll_fn(|cx| self.poll_send(cx)).await;
        self.chunks.close();
        let lost = || UploadError::Lost { path: self.path.clone() };
        (&mut self.packing).await.unwrap_or_else(|_| Err(lost()))
    }

    /// The writing failed: says whose fault it was, the cache's if it took no more, else the one of the `source`.
    pub async fn failed(mut self, source: io::Error) -> UploadError {
        let path = self.path.clone();
        match self.pack().await {
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

/// Writes the record of a path whose NAR and whose references are there, signed by the cache's keys.
pub async fn finish(sink: &Sink, info: &PathInfo, nar: &Nar) -> Result<NarInfo, UploadError> {
    let record = record(info, nar, sink)?;
    let written = sink.put_narinfo(&record).await;
    written.map_err(|source| UploadError::Write { path: info.path.to_basename(), source })?;
    Ok(record)
}

/// The blocking half: hash, compress, hash, spool; then compare.
fn pack(
    sink: &Sink,
    path: String,
    expected: &NixHash,
    size: u64,
    mut chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<Packed, UploadError> {
    let write = |source: io::Error| UploadError::Write { path: path.clone(), source: source.into() };
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
    Ok(Packed { file_hash: NixHash::Sha256(file.hash.finalize().into()), file_size: file.size, spooled: file.inner })
}

/// Compresses into a file.
enum Packer {
    None(Hashed<Spool>),
    Zstd(zstd::Encoder<'static, Hashed<Spool>>),
}

impl Packer {
    fn new(file: Spool, codec: Codec, size: u64) -> io::Result<Self> {
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

    fn finish(self) -> io::Result<Hashed<Spool>> {
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
