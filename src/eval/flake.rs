//! From a flake reference to one locked source: which tree, which inputs, and what every evaluator is to be given.
//!
//! Locking is one step. The repository's flake.lock is never written: a lock that is not in step with flake.nix goes to
//! a temporary file, which evaluators get as `--reference-lock-file`. A source that names its content (a commit, a NAR
//! hash) is evaluated by its locked reference, so that it cannot change; a dirty tree by its original reference, and
//! each evaluator has to have loaded the same tree (see `worker`).

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::StorePath;

pub mod beside;
mod lock;
mod overrides;
mod refusal;

pub use lock::{Begun, Metadata, begin, lock, lock_begun, unchanged};
pub use refusal::LockError;

/// What is asked for, as flags say it.
#[derive(Debug, Clone, Default)]
pub struct FlakeOptions {
    /// The flake reference without fragment, as typed; empty means `.`.
    pub reference: String,
    /// `--override-input INPUT REFERENCE`.
    pub overrides: Vec<(String, String)>,
    /// `--reference-lock-file FILE`.
    pub reference_lock_file: Option<PathBuf>,
    /// `--no-update-lock-file`: a lock that is not in step is an error.
    pub no_update_lock_file: bool,
    /// `--impure`.
    pub impure: bool,
    /// What the flake says about its commit and time is the same for all sources. Not for anybody to build, and never
    /// remembered. See [`Locked::is_maskable`].
    pub masked: bool,
}

impl FlakeOptions {
    /// Whether flags change what is evaluated, so that the commit does not say it all.
    #[must_use]
    pub fn changes_lock(&self) -> bool {
        self.impure || !self.overrides.is_empty() || self.reference_lock_file.is_some()
    }
}

/// A flake's source, fixed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Locked {
    /// The reference with its scheme, as Nix resolved it: `git+file:///home/me/infra`.
    pub original: String,
    /// The locked reference; for a dirty tree, the original.
    pub locked_ref: String,
    /// The commit; for a dirty tree `None`.
    pub rev: Option<String>,
    /// How many files differ from the commit: `Some(0)` is clean, `None` has no revision control.
    pub dirty: Option<u32>,
    /// Hash of the source tree, as SRI.
    pub nar_hash: String,
    /// Where the source tree is in the store.
    #[serde(deserialize_with = "super::base::path")]
    pub store_path: StorePath,
    /// The store directory that Nix uses.
    pub store_dir: String,
    /// Directory of flake.nix below the source tree; empty at its root.
    pub dir: String,
    /// The sort of reference: `git`, `github`, `path`, ….
    #[serde(default)]
    pub kind: String,
    /// How many ancestors the commit has; unknown in a shallow clone.
    #[serde(default)]
    pub rev_count: Option<u64>,
    /// What of the reference's parameters changes the tree: `submodules`, `lfs`, ….
    #[serde(default)]
    pub parameters: Vec<String>,
    /// The flake's description.
    pub description: Option<String>,
    /// Seconds since 1970 of the last change, as Nix says.
    pub last_modified: Option<u64>,
    /// flake.lock covers all inputs; nothing had to be locked now.
    pub in_step: bool,
    /// The lock, as JSON: all inputs with their hashes.
    pub locks: Value,
    /// Warnings of Nix while locking.
    pub warnings: Vec<String>,
    /// What evaluators get besides the reference.
    #[serde(skip)]
    args: Vec<String>,
    /// Keeps the temporary lock file.
    #[serde(skip)]
    lock_file: Option<Arc<tempfile::TempPath>>,
}

impl Locked {
    /// The temporary lock file, where the lock is not in step with flake.nix.
    #[must_use]
    pub fn lock_file(&self) -> Option<&std::path::Path> {
        self.lock_file.as_deref().map(AsRef::as_ref)
    }

    /// What evaluators get besides the reference: lock files and overrides.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// The absolute path of the source tree in the store.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}/{}", self.store_dir, self.store_path.to_basename())
    }

    /// Whether the reference alone says which content it is, wherever and whenever it is read.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.rev.is_some() || (self.dirty.is_none() && !self.original.starts_with("path:"))
    }

    /// Whether it can be evaluated with its commit and time masked: evaluators then load it by its reference alone, which
    /// has to say all.
    #[must_use]
    pub fn is_maskable(&self, options: &FlakeOptions) -> bool {
        self.is_fixed() && self.in_step && !options.changes_lock()
    }

    /// Whether evaluators can load it as a value (`builtins.getFlake`): its reference alone says all, and there is
    /// nothing to lock.
    #[must_use]
    pub(super) fn is_value(&self) -> bool {
        self.is_fixed() && self.in_step && self.args.is_empty()
    }

    /// The local work tree, if the source is one.
    #[must_use]
    pub fn work_tree(&self) -> Option<PathBuf> {
        local_path(&self.original)
    }

    /// Where the flake's files may lie, in the words of error positions.
    pub(super) fn roots(&self) -> Vec<String> {
        let tree = self.work_tree().map(|path| path.to_string_lossy().into_owned());
        [Some(self.source()), tree].into_iter().flatten().collect()
    }
}

/// The directory that a reference with a scheme names on this machine.
fn local_path(reference: &str) -> Option<PathBuf> {
    let rest = ["git+file://", "path:", "file://"].into_iter().find_map(|scheme| reference.strip_prefix(scheme))?;
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    Some(PathBuf::from(percent_decode(path)))
}

/// `%20` → space. What is no escape stays.
pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_are_decoded() {
        assert_eq!(local_path("git+file:///a%20b?dir=x"), Some("/a b".into()));
        assert_eq!(local_path("path:/x?narHash=y"), Some("/x".into()));
        assert_eq!(local_path("github:a/b"), None);
        assert_eq!(percent_decode("100%"), "100%");
    }
}
