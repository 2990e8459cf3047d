//! One path on its way into a cache: its NAR in one pass, then, when all that it refers to is there, its record.
//!
//! The NAR is read on the async side and hashed, compressed, hashed again and written on a blocking thread; between
//! the two are a few chunks, so memory stays at a few MiB whatever the size of the NAR.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::info::{PathInfo, RecordError};
use crate::event::{Class, Failure};
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

/// Brings the NAR of a path into the cache; reads exactly `info.nar_size` bytes of `nar`. The record is not written
/// yet: that is [`finish`].
///
/// Dropping the future stops the upload and leaves nothing behind but, for a moment, a temporary file.
pub async fn upload(sink: &Sink, info: &PathInfo, mut nar: impl AsyncRead + Unpin) -> Result<Nar, UploadError> {
    let path = || info.path.to_basename();
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let (to, expected, size) = (sink.clone(), info.nar_hash.clone(), info.nar_size);
    let name = path();
    let packing = spawn_blocking(move || pack(&to, name, &expected, size, receiver));
    let read = feed(&mut nar, info.nar_size, sender).await;
    let packed = packing.await.map_err(|_| UploadError::Lost { path: path() })?;
    match (read, packed) {
        (Err(source), _) => Err(UploadError::Read { path: path(), source }),
        (Ok(()), packed) => packed,
    }
}

/// Writes the record of a path whose NAR and whose references are there, signed by the cache's keys.
pub async fn finish(sink: &Sink, info: &PathInfo, nar: &Nar) -> Result<NarInfo, UploadError> {
    let record = info.record(nar, sink)?;
    let path = || info.path.to_basename();
    let (to, written) = (sink.clone(), record.clone());
    spawn_blocking(move || to.put_narinfo(&written))
        .await
        .map_err(|_| UploadError::Lost { path: path() })?
        .map_err(|source| UploadError::Write { path: path(), source })?;
    Ok(record)
}

/// Reads `size` bytes into full chunks. Ends early, without an error, if the stream ends or nobody takes the chunks
/// any more: the other side knows why.
async fn feed(nar: &mut (impl AsyncRead + Unpin), size: u64, chunks: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut nar = nar.take(size);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK.min(usize::try_from(nar.limit()).unwrap_or(CHUNK)));
        while chunk.len() < chunk.capacity() {
            if nar.read_buf(&mut chunk).await? == 0 {
                break;
            }
        }
        if chunk.is_empty() || chunks.send(chunk).await.is_err() {
            return Ok(());
        }
    }
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
