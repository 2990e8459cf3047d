//! A cache of Cachix (`cachix:NAME`): read at its own address, written through Cachix's API.

use std::sync::Arc;

use super::backend::Opening;
use super::error::CacheError;
use super::http::HttpCache;
use super::info::CacheInfo;
use super::sink::{Nar, PutError, Sink};
use super::stream::NarStream;
use crate::event::Failure;
use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::NarInfo;

/// Parameters of its URL besides those of all caches.
pub(super) const PARAMS: &[&str] = &[];

/// See the module's page.
#[derive(Debug)]
pub(super) enum CachixCache {}

/// An upload that is not registered yet.
#[derive(Debug)]
pub enum Ticket {}

impl CachixCache {
    /// Opens it, for reading and, if it is pushed to, for writing.
    pub(super) async fn open(_name: &str, opening: &Opening<'_>) -> Result<(Self, CacheInfo), CacheError> {
        Err(opening.unsupported("cachix"))
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

    /// See [`Sink::register`].
    pub(super) async fn register(
        &self,
        _sink: &Sink,
        _info: &PathInfo,
        _nar: &Nar,
    ) -> Result<Option<NarInfo>, PutError> {
        match *self {}
    }

    /// See [`Sink::close`].
    pub(super) async fn close(&self) {
        match *self {}
    }
}
