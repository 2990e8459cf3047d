//! A cache of an Attic server (`attic:[SERVER:]CACHE`): it compresses and signs by itself, and shows a path as soon as its NAR
//! is there.

use std::sync::Arc;

use super::backend::Opening;
use super::error::CacheError;
use super::http::HttpCache;
use super::info::CacheInfo;
use super::location::AtticPlace;
use super::sink::{Nar, PutError, Sink};
use super::stream::NarStream;
use crate::event::Failure;
use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;

/// Parameters of its URL besides those of all caches.
pub(super) const PARAMS: &[&str] = &[];

/// See the module's page.
#[derive(Debug)]
pub(super) enum AtticCache {}

impl AtticCache {
    /// Opens it, for reading and, if it is pushed to, for writing.
    pub(super) async fn open(_place: &AtticPlace, opening: &Opening<'_>) -> Result<(Self, CacheInfo), CacheError> {
        Err(opening.unsupported("attic"))
    }

    /// Where it is read from.
    pub(super) fn http(&self) -> &Arc<HttpCache> {
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

    /// Paths that are best sent at once.
    pub(super) fn parallel(&self) -> usize {
        match *self {}
    }

    /// See [`Sink::send`].
    pub(super) async fn send(&self, _sink: &Sink, _info: &PathInfo, _nar: NarStream) -> Result<Nar, PutError> {
        match *self {}
    }
}
