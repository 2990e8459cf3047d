//! How much may be uploaded at once, and what is next.

use std::collections::BTreeSet;

use crate::id::StorePath;

/// What may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Uploads; each holds one connection to the store.
    pub uploads: usize,
    /// Bytes of NAR that are being uploaded. A larger path goes alone; paths of [`SMALL`] bytes count as nothing.
    pub bytes: u64,
    /// A path is uploaded only once all that it refers to is in the cache, because an upload is seen at once.
    pub ordered: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { uploads: 8, bytes: 512 * 1024 * 1024, ordered: false }
    }
}

/// Paths up to this size (bytes of NAR) do not wait for room.
pub const SMALL: u64 = 1024 * 1024;

/// Paths that wait for room, and how much of it is taken.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) limits: Limits,
    /// By size.
    waiting: BTreeSet<(u64, StorePath)>,
    uploading: usize,
    bytes: u64,
}

impl Room {
    pub(super) fn new(limits: Limits) -> Self {
        let limits = Limits { uploads: limits.uploads.max(1), ..limits };
        Self { limits, waiting: BTreeSet::new(), uploading: 0, bytes: 0 }
    }

    /// Nothing waits, and nothing is uploaded.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.uploading == 0
    }

    /// Whether nothing is uploaded.
    pub(super) fn is_quiet(&self) -> bool {
        self.uploading == 0
    }

    pub(super) fn add(&mut self, size: u64, path: StorePath) {
        self.waiting.insert((size, path));
    }

    pub(super) fn remove(&mut self, size: u64, path: &StorePath) {
        self.waiting.remove(&(size, path.clone()));
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &StorePath> {
        self.waiting.iter().map(|(_, path)| path)
    }

    /// What is uploaded next, if there is room for anything.
    pub(super) fn take(&mut self) -> Option<StorePath> {
        if self.uploading >= self.limits.uploads {
            return None;
        }
        let (size, path) = self.next()?;
        self.waiting.remove(&(size, path.clone()));
        self.uploading += 1;
        self.bytes += self.cost(size);
        Some(path)
    }

    /// The largest path if there is room for it, else a small one. What does not fit is not overtaken by others, or
    /// it would wait for ever.
    fn next(&self) -> Option<(u64, StorePath)> {
        let largest = self.waiting.last()?;
        if self.bytes == 0 || self.bytes + self.cost(largest.0) <= self.limits.bytes {
            return Some(largest.clone());
        }
        self.waiting.first().filter(|(size, _)| *size <= SMALL).cloned()
    }

    fn cost(&self, size: u64) -> u64 {
        if size <= SMALL { 0 } else { size.min(self.limits.bytes) }
    }

    /// An upload has ended.
    pub(super) fn release(&mut self, size: u64) {
        self.uploading -= 1;
        self.bytes -= self.cost(size);
    }
}
