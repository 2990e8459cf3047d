//! Where a push goes: how its NARs are compressed, who signs, and how the files get into the cache.
//!
//! A cache in a directory and one on a server are two [`Target`]s with the same calls. Where a server makes the record
//! itself (Cachix, Attic), it will be one that does both in one call.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::answer::narinfo_name;
use super::file::FileCache;
use super::http::HttpCache;
use super::keys::SecretKey;
use super::put::Content;
use crate::event::{Class, Failure};
use crate::id::StoreDir;
use crate::nix_compat::narinfo::{Compression, NarInfo};

/// MIME types as Nix sends them.
const NAR: &str = "application/x-nix-nar";
const NARINFO: &str = "text/x-nix-narinfo";

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

    /// What file names end in, with the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Zstd { .. } => ".zst",
        }
    }
}

/// Where the pushes to one cache go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sink {
    target: Target,
    keys: Arc<[SecretKey]>,
    store_dir: StoreDir,
    codec: Codec,
}

#[derive(Debug, Clone)]
enum Target {
    File(Arc<FileCache>),
    Http(Arc<HttpCache>),
}

/// A temporary file for a compressed NAR, gone when dropped. Written by blocking.
#[derive(Debug)]
pub enum Spool {
    /// Beside the files of a cache in a directory.
    Named(NamedTempFile),
    /// In the directory for temporary files. It has no name, so that nothing is left behind whatever happens.
    Nameless(File),
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Named(file) => file.write(bytes),
            Self::Nameless(file) => file.write(bytes).map_err(no_room),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Named(file) => file.flush(),
            Self::Nameless(file) => file.flush(),
        }
    }
}

/// A full disk here is not a full cache.
fn no_room(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the directory for temporary files (TMPDIR): {error}"))
}

/// Why a file could not be put into a cache.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server says so, or says nothing.
    #[error("{}", .0.message)]
    Server(Failure),
}

impl PutError {
    /// What sort of trouble it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Io(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Class::DiskFull
            }
            Self::Io(_) => Class::Cache,
            Self::Server(failure) => failure.class,
        }
    }
}

impl Sink {
    pub(super) fn file(file: Arc<FileCache>, keys: Vec<SecretKey>, store_dir: StoreDir, codec: Codec) -> Self {
        Self { target: Target::File(file), keys: keys.into(), store_dir, codec }
    }

    pub(super) fn http(http: Arc<HttpCache>, keys: Vec<SecretKey>, store_dir: StoreDir, codec: Codec) -> Self {
        Self { target: Target::Http(http), keys: keys.into(), store_dir, codec }
    }

    /// How its NARs are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The keys that sign what is pushed; empty: only the store's own signatures go along.
    #[must_use]
    pub fn keys(&self) -> &[SecretKey] {
        &self.keys
    }

    /// The directory of the stores that the cache is for.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// Whether files go over the network, where several at once are faster than one after the other.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.target, Target::Http(_))
    }

    /// A temporary file for a compressed NAR. Blocks.
    pub fn spool(&self) -> io::Result<Spool> {
        match &self.target {
            Target::File(file) => file.spool().map(Spool::Named),
            Target::Http(_) => tempfile::tempfile().map(Spool::Nameless).map_err(no_room),
        }
    }

    /// Puts a spooled NAR of this size into the cache under this name, relative to the cache. `false` if it was there
    /// already.
    pub async fn place(&self, spooled: Spool, name: &str, size: u64) -> Result<bool, PutError> {
        match (&self.target, spooled) {
            (Target::File(file), Spool::Named(spooled)) => {
                let (file, name) = (Arc::clone(file), name.to_owned());
                Ok(blocking(move || file.place(spooled, &name)).await?)
            }
            (Target::Http(http), Spool::Nameless(spooled)) => {
                // Named by its content, so whatever has that name and is whole will do.
                if http.has(name, size).await {
                    return Ok(false);
                }
                let content = Content::File(Arc::new(spooled), size);
                let put = http.put(name, NAR, &content, http.patience).await;
                put.map(|()| true).map_err(|failed| PutError::Server(failed.failure))
            }
            (Target::File(_), Spool::Nameless(_)) | (Target::Http(_), Spool::Named(_)) => {
                Err(io::Error::other("this file was spooled for another cache").into())
            }
        }
    }

    /// Writes a record, whole or not at all; a record of the same path is replaced.
    pub async fn put_narinfo(&self, info: &NarInfo) -> Result<(), PutError> {
        match &self.target {
            Target::File(file) => {
                let (file, info) = (Arc::clone(file), info.clone());
                Ok(blocking(move || file.put_narinfo(&info)).await?)
            }
            Target::Http(http) => {
                let (name, content) = (narinfo_name(info.store_path()), Content::Bytes(info.to_canonical_bytes()));
                let put = http.put(&name, NARINFO, &content, http.patience).await;
                put.map_err(|failed| PutError::Server(failed.failure))
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
