//! Where a push goes: how its NARs are compressed, who signs, and how the files get into the cache.
//!
//! Today that is a directory. Another kind of cache is another [`Target`] with the same three calls, or, where a server
//! makes the record (Cachix, Attic), one that does both in one call.

use std::io;
use std::sync::Arc;

use tempfile::NamedTempFile;

use super::file::FileCache;
use super::keys::SecretKey;
use crate::id::StoreDir;
use crate::nix_compat::narinfo::{Compression, NarInfo};

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
}

impl Sink {
    pub(super) fn file(file: Arc<FileCache>, keys: Vec<SecretKey>, store_dir: StoreDir, codec: Codec) -> Self {
        Self { target: Target::File(file), keys: keys.into(), store_dir, codec }
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

    /// A temporary file for a compressed NAR, removed when dropped. Blocks.
    pub fn spool(&self) -> io::Result<NamedTempFile> {
        match &self.target {
            Target::File(file) => file.spool(),
        }
    }

    /// Puts a spooled NAR into the cache under this name, relative to the cache. `false` if it was there already.
    /// Blocks.
    pub fn place(&self, spooled: NamedTempFile, name: &str) -> io::Result<bool> {
        match &self.target {
            Target::File(file) => file.place(spooled, name),
        }
    }

    /// Writes a record, atomically; a record of the same path is replaced. Blocks.
    pub fn put_narinfo(&self, info: &NarInfo) -> io::Result<()> {
        match &self.target {
            Target::File(file) => file.put_narinfo(info),
        }
    }
}
