//! Store objects in one file, with something said before them: what a plan file is made of.
//!
//! The file begins with the line `drover plan 1`; the rest is one zstd stream, in Nix's wire encoding (`nix_compat::wire`):
//! the store directory, the head (a text that only its writer and reader understand), the number of objects, and each
//! object as `AddToStoreNar` wants it: its path info, then its NAR. Objects come after all that they refer to.
//!
//! Nothing in a file is believed: sizes are bounded, each NAR has to have its hash, and each derivation has to be the
//! one that its path names, with the outputs that follow from it and from the derivations that it needs. That other
//! content-addressed objects are what their paths name is verified by the daemon that they are added to.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

use crate::error::{Error, Fault};
use crate::id::{StoreDir, StorePath};

pub use read::{Bundle, Nar};
pub use write::{NarSink, Writer};

/// What the first line begins with; the version of the format follows.
const MAGIC: &str = "drover plan ";

/// The version that is written and read.
const VERSION: &str = "1";

/// A file of store objects cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The system says no.
    #[error("cannot {act} {}", .file.display())]
    Io {
        /// `read`, `write`.
        act: &'static str,
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is no plan file of drover", .file.display())]
    NotOne {
        /// Which file.
        file: PathBuf,
    },
    /// Another drover wrote it.
    #[error("{} has format {version}, and this drover reads format {VERSION}", .file.display())]
    Version {
        /// Which file.
        file: PathBuf,
        /// Its format.
        version: String,
    },
    /// Its paths are none of this store.
    #[error("{} is for the store directory {theirs}, and this store has {ours}", .file.display())]
    StoreDir {
        /// Which file.
        file: PathBuf,
        /// The directory of its paths.
        theirs: String,
        /// The directory of the store.
        ours: StoreDir,
    },
    /// It is cut off, or damaged, or forged.
    #[error("{} cannot be used: {why}", .file.display())]
    Broken {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What is to be written is not what the store said it is.
    #[error("the store gives other bytes for {0} than it has registered")]
    Changed(StorePath),
}

impl From<BundleError> for Error {
    fn from(error: BundleError) -> Self {
        let hint = match &error {
            BundleError::Io { act: "read", .. } => "drover plan -o FILE    writes one",
            BundleError::Io { .. } => "drover plan -o FILE    in a directory that can be written",
            BundleError::NotOne { .. } | BundleError::Broken { .. } => "drover plan -o FILE    writes a new one",
            BundleError::Version { .. } => "use the same drover for plan and run",
            BundleError::StoreDir { .. } => "drover plan -o FILE --store URL    with a store in the same directory",
            BundleError::Changed(_) => "nix store verify --all    looks for damage",
        };
        let fault = match &error {
            BundleError::Changed(_) => Fault::Unreachable,
            _ => Fault::Usage,
        };
        Self::from_chain(fault, &error).hint(hint)
    }
}
