//! What is said of one path or input.

use serde::{Deserialize, Serialize};

use super::{Failure, Text};
use crate::id::CacheId;

/// One output of a drv.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPath {
    /// `out`, `dev`, …
    pub name: Text,
    /// Its store path; `None` while it is not known (opaque drvs).
    pub path: Option<Text>,
}

/// A path that a fetch brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedPath {
    /// Absolute.
    pub path: Text,
    /// The cache that has it.
    pub cache: CacheId,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Bytes to download; 0 if the cache does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub file_size: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a push of one path to one cache ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "push", rename_all = "snake_case")]
pub enum Pushed {
    /// Uploaded now.
    Uploaded {
        /// Bytes that went to the cache.
        file_size: u64,
    },
    /// It was there already.
    Present,
    /// Given up.
    Failed(Failure),
}

/// A changed path that `[skip]` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedPath {
    /// Relative to the repository.
    pub path: Text,
    /// The glob.
    pub glob: Text,
}

/// What an input of a flake is locked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedInput {
    /// `nixpkgs`.
    pub name: Text,
    /// The revision; where it has none, the hash of its tree.
    pub rev: Text,
}
