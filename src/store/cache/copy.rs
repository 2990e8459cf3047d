//! A store that Nix itself copies to (`nix:STORE-URL`): handed to `nix copy`. It is pushed to and never read from.

use super::Held;
use super::backend::Opening;
use super::error::CacheError;
use super::info::CacheInfo;
use super::sink::PutError;
use crate::event::Failure;
use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;

/// See the module's page.
#[derive(Debug)]
pub(super) enum CopyStore {}

impl CopyStore {
    /// Looks whether it can be copied to.
    pub(super) async fn open(_store: &str, opening: &Opening<'_>) -> Result<(Self, CacheInfo), CacheError> {
        Err(opening.unsupported("nix"))
    }

    /// What it holds of these paths; see [`Cache::inspect`](super::Cache::inspect).
    pub(super) async fn inspect(&self, _paths: &[StorePath]) -> Vec<Result<Option<Held>, Failure>> {
        match *self {}
    }

    /// Whether one question tells of all paths what it lacks.
    pub(super) fn is_bulk(&self) -> bool {
        match *self {}
    }

    /// Which of these paths it lacks.
    pub(super) async fn missing(&self, _paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        match *self {}
    }

    /// Paths that are best registered at once.
    pub(super) fn parallel(&self) -> usize {
        match *self {}
    }

    /// Has a path copied, whose references are all there.
    pub(super) async fn register(&self, _info: &PathInfo) -> Result<(), PutError> {
        match *self {}
    }

    /// Nothing more is copied.
    pub(super) async fn close(&self) {
        match *self {}
    }
}
