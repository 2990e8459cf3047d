//! Where a push goes: how its NARs are compressed, who signs, and how the files get into the cache.
//!
//! A path goes in two steps: [`send`](Sink::send) brings its NAR, which nobody sees yet; [`register`](Sink::register)
//! makes it visible, once all that it refers to is. Each kind of cache does both in its own module.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::OpenContext;
use super::backend::{Backend, Reader};
use super::budget::{Budget, Room, STREAM};
use super::cachix;
use super::keys::SecretKey;
use super::ledger::{Entry, Ledger};
use super::niks3;
use super::record::{RecordError, record};
use super::stream::{NarStream, Packed, StreamError};
use crate::event::{Class, Failure};
use crate::id::StoreDir;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{Compression, NarInfo, NixHash, nixbase32};

/// Bytes of the largest NAR that a server gets in one piece, which can be sent again.
pub(super) const WHOLE: u64 = 8 * 1024 * 1024;

/// Bytes of a NAR from which on the next run goes on with an upload in parts that was broken off.
pub(super) const WORTH_KEEPING: u64 = 64 * 1024 * 1024;

/// Bytes of a file from which on it is worth a question whether it is there already: to send fewer takes no longer.
pub(super) const WORTH_ASKING: u64 = 256 * 1024;

/// What several compressing threads take besides.
const THREADS: u64 = 48 * 1024 * 1024;

/// What a NAR of no size takes.
const SMALLEST: u64 = 256 * 1024;

/// How NARs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// Zstandard.
    Zstd {
        /// 1 (fast) to 22 (small).
        level: i32,
        /// Threads for NARs of [`Codec::BIG`] bytes and more; 0 or 1: the thread that feeds it.
        threads: u32,
    },
}

impl Codec {
    /// Zstandard's own default. Of 71 MB of programs and libraries, level 1 makes 14 % more bytes in 0.55 of the time,
    /// level 6 makes 6 % fewer in 2.5 times the time.
    pub const DEFAULT_LEVEL: i32 = 3;

    /// From this size on (bytes of NAR) more than one thread compresses.
    pub const BIG: u64 = 64 * 1024 * 1024;

    /// What the record says.
    #[must_use]
    pub fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Zstd { .. } => Compression::Zstd,
        }
    }

    /// Whether more than one thread compresses a NAR of this size.
    pub(super) fn is_threaded(self, size: u64) -> bool {
        matches!(self, Self::Zstd { threads: 2.., .. }) && size >= Self::BIG
    }

    /// How a NAR of this size is packed, to the byte: what is packed again under the same tag is the same file.
    #[must_use]
    pub fn tag(self, size: u64) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Zstd { level, .. } => {
                let threaded = if self.is_threaded(size) { "-mt" } else { "" };
                format!("zstd{level}{threaded}-{}", zstd::zstd_safe::version_number())
            }
        }
    }

    /// What file names end in, with the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd { .. } => ".zst",
        }
    }
}

/// What a user says about compression, or does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    pub(super) codec: Codec,
    /// No level was named, so that it may follow the speed of the link.
    pub(super) by_link: bool,
}

/// A NAR as a cache holds it.
#[derive(Debug, Clone)]
pub struct Nar {
    /// Where, relative to the cache: `nar/HASH.nar.zst`. Empty where the server chooses.
    pub url: String,
    /// How it is compressed.
    pub compression: Compression,
    /// SHA-256 of the compressed file, where it is known.
    pub file_hash: Option<NixHash>,
    /// Bytes of the compressed file, where they are known.
    pub file_size: Option<u64>,
    /// False if the cache had this very file already.
    pub new: bool,
    /// What the second step needs besides, where a cache has something to finish.
    pub ticket: Option<Ticket>,
}

/// An upload that the second step finishes.
#[derive(Debug, Clone)]
pub enum Ticket {
    /// With Cachix.
    Cachix(Arc<cachix::Ticket>),
    /// With niks3.
    Niks3(Arc<niks3::Ticket>),
}

impl Nar {
    /// A file of a plain cache; `new` is false if it was there already.
    pub(super) fn file(url: String, codec: Codec, packed: Packed, new: bool) -> Self {
        let Packed { file_hash, file_size } = packed;
        let (file_hash, file_size) = (Some(file_hash), Some(file_size));
        Self { url, compression: codec.compression(), file_hash, file_size, new, ticket: None }
    }

    /// What a server keeps in its own way.
    pub(super) fn kept(codec: Codec, packed: Option<Packed>, ticket: Option<Ticket>) -> Self {
        let (file_hash, file_size) = packed.map(|packed| (packed.file_hash, packed.file_size)).unzip();
        let compression = codec.compression();
        Self { url: String::new(), compression, file_hash, file_size, new: true, ticket }
    }

    /// Where a file of this hash goes, relative to the cache.
    pub(super) fn file_name(hash: &NixHash, codec: Codec) -> String {
        format!("nar/{}.nar{}", nixbase32::encode(hash.digest_as_bytes()), codec.extension())
    }

    /// Where a file goes whose hash is known only once it is there: named by the NAR and how it is packed, which
    /// together say what is in it.
    pub(super) fn stream_name(info: &PathInfo, codec: Codec) -> String {
        let (hash, tag) = (nixbase32::encode(&info.nar_hash), codec.tag(info.nar_size));
        format!("nar/{hash}-{tag}.nar{}", codec.extension())
    }
}

/// Where the pushes to one cache go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sink {
    backend: Backend,
    /// Of the cache, as people see it.
    url: Arc<str>,
    keys: Arc<[SecretKey]>,
    store_dir: StoreDir,
    packing: Packing,
    budget: Budget,
    ledger: Ledger,
}

/// Why a path could not be put into a cache.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server says so, or says nothing.
    #[error("{}", .0.message)]
    Server(Failure),
    /// It has to be sent again from its first byte, and may be taken then.
    #[error("{}", .0.failure.message)]
    Again(Again),
    /// The NAR was not what it was to be: no fault of the cache.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// There is no record for what the store said.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A failure that may pass, of something that cannot be sent again without being made again.
#[derive(Debug, Clone)]
pub struct Again {
    /// What it was.
    pub failure: Failure,
    /// The server said "too many".
    pub throttled: bool,
    /// The shortest wait that the server asks for.
    pub floor: Option<Duration>,
}

impl PutError {
    /// What sort of trouble it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Io(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Class::DiskFull
            }
            Self::Io(_) | Self::Record(_) => Class::Cache,
            Self::Server(failure) => failure.class,
            Self::Stream(StreamError::Differs { .. }) => Class::Cache,
            Self::Again(again) => again.failure.class,
            Self::Stream(StreamError::Short { .. } | StreamError::Read(_)) => Class::Network,
            Self::Stream(StreamError::Pack(_) | StreamError::Lost) => Class::Internal,
        }
    }
}

impl Sink {
    pub(super) fn new(
        backend: Backend,
        url: &str,
        keys: Vec<SecretKey>,
        packing: Packing,
        context: &OpenContext,
    ) -> Self {
        let (store_dir, budget) = (context.store_dir.clone(), context.budget.clone());
        Self { backend, url: url.into(), keys: keys.into(), store_dir, packing, budget, ledger: context.ledger.clone() }
    }

    /// How the NAR of this path is compressed from now on. The kinds that go on with the parts of a killed run keep to one
    /// level, since the same NAR has to give the same bytes again.
    #[must_use]
    pub fn codec(&self, _info: &PathInfo) -> Codec {
        match (&self.backend, self.packing.codec) {
            // It compresses by itself, and wants to see the bytes as they are.
            (Backend::Attic(_), _) => Codec::None,
            (Backend::Http(http), Codec::Zstd { threads, .. }) if self.packing.by_link => {
                Codec::Zstd { level: http.link.level(), threads }
            }
            (_, codec) => codec,
        }
    }

    /// The keys that sign what is pushed; empty: only the store's own signatures go along, or the server signs.
    #[must_use]
    pub fn keys(&self) -> &[SecretKey] {
        &self.keys
    }

    /// The directory of the stores that the cache is for.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// Whether a NAR becomes visible with its upload, record and all: then a path is sent only once all that it refers
    /// to is registered.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        matches!(self.backend, Backend::Attic(_))
    }

    /// What stands for the first step where a cache fetches NARs from the local store by itself, and is only told to
    /// [`register`](Self::register).
    #[must_use]
    pub fn without_nar(&self) -> Option<Nar> {
        matches!(self.backend, Backend::Copy(_)).then(|| Nar::kept(self.packing.codec, None, None))
    }

    /// Paths that are best sent at once.
    #[must_use]
    pub fn parallel(&self) -> usize {
        match &self.backend {
            Backend::File(_) => 8,
            Backend::Http(_) => 48,
            Backend::S3(s3) => s3.parallel(),
            Backend::Cachix(cachix) => cachix.parallel(),
            Backend::Attic(attic) => attic.parallel(),
            Backend::Niks3(niks3) => niks3.parallel(),
            Backend::Copy(copy) => copy.parallel(),
        }
    }

    /// Room in memory for sending this path; to be taken before its stream is started, and kept until it is sent.
    pub async fn room(&self, info: &PathInfo) -> Room {
        let threads = if self.codec(info).is_threaded(info.nar_size) { THREADS } else { 0 };
        let most = match &self.backend {
            Backend::File(_) | Backend::Attic(_) | Backend::Copy(_) => STREAM,
            Backend::Http(_) => WHOLE.saturating_mul(2),
            Backend::S3(s3) => s3.memory(info.nar_size),
            Backend::Cachix(cachix) => cachix.memory(info.nar_size),
            Backend::Niks3(niks3) => niks3.memory(info.nar_size),
        };
        // Not compressed and compressed.
        let bytes = info.nar_size.saturating_mul(2).saturating_add(SMALLEST).min(most);
        self.budget.take(bytes.saturating_add(threads)).await
    }

    /// What the ledger says of an upload of this path in parts of so many bytes; `None` if it is not worth an entry.
    pub(super) fn entry(&self, info: &PathInfo, part: u64) -> Option<Entry> {
        let (path, packed) = (info.path.to_basename(), Nar::stream_name(info, self.codec(info)));
        let name = (info.nar_size >= WORTH_KEEPING).then(|| format!("{path} {packed} {part}"))?;
        self.ledger.entry(&self.url, name)
    }

    /// After a failure that may pass: how long to wait before the path is sent again, from its first byte; after this
    /// many tries and this much waiting. An error is the end of patience.
    pub fn wait(&self, tries: u32, waited: Duration, again: &Again) -> Result<Duration, Failure> {
        match self.backend.reader() {
            Reader::Http(http) => http.wait(tries, waited, again),
            Reader::File(_) | Reader::Copy(_) => Err(again.failure.clone()),
        }
    }

    /// Remembers that a path was pushed.
    pub fn remember(&self, info: &PathInfo, nar: &Nar) {
        self.ledger.pushed(&self.url, &info.path.to_basename(), nar.file_size);
    }

    /// The first step: brings the NAR of a path into the cache, where nobody sees it yet. Makes nothing visible before
    /// the stream has [ended](NarStream::end) well.
    pub async fn send(&self, info: &PathInfo, nar: NarStream) -> Result<Nar, PutError> {
        let codec = nar.codec();
        match &self.backend {
            Backend::File(file) => file.send(codec, nar).await,
            Backend::Http(http) => http.send(codec, info, nar).await,
            Backend::S3(s3) => s3.send(self, info, nar).await,
            Backend::Cachix(cachix) => cachix.send(self, info, nar).await,
            Backend::Attic(attic) => attic.send(info, nar).await,
            Backend::Niks3(niks3) => niks3.send(self, info, nar).await,
            Backend::Copy(_) => Ok(Nar::kept(codec, None, None)),
        }
    }

    /// The second step: makes a path visible whose NAR was sent and whose references all are. Gives the record, unless
    /// the server writes it.
    pub async fn register(&self, info: &PathInfo, nar: &Nar) -> Result<Option<NarInfo>, PutError> {
        match &self.backend {
            Backend::File(file) => {
                let record = self.record(info, nar)?;
                file.register(record.clone()).await?;
                Ok(Some(record))
            }
            Backend::Http(http) => {
                let record = self.record(info, nar)?;
                http.register(&record).await?;
                Ok(Some(record))
            }
            Backend::S3(s3) => s3.register(self, info, nar).await.map(Some),
            Backend::Cachix(cachix) => cachix.register(self, info, nar).await,
            Backend::Attic(_) => Ok(None),
            Backend::Niks3(niks3) => niks3.register(self, info, nar).await,
            Backend::Copy(copy) => copy.register(info).await.map(|()| None),
        }
    }

    /// Nothing more comes: what was begun and never registered is given up.
    pub async fn close(&self) {
        match &self.backend {
            Backend::File(_) | Backend::Http(_) | Backend::Attic(_) | Backend::Niks3(_) => {}
            Backend::S3(s3) => s3.close().await,
            Backend::Cachix(cachix) => cachix.close().await,
            Backend::Copy(copy) => copy.close().await,
        }
    }

    /// The record for a path that the cache holds as `nar`, with the store's signatures and one of each of our keys.
    pub(super) fn record(&self, info: &PathInfo, nar: &Nar) -> Result<NarInfo, RecordError> {
        record(info, nar, &self.keys, &self.store_dir)
    }
}
