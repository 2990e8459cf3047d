//! What a store is known to hold, and what is on its way there: each path is looked at and brought at most once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::id::StorePath;

/// What is known of one path.
#[derive(Debug)]
enum Hold {
    /// It is valid, and held as a root of this run or below one.
    Held,
    /// Somebody sees to it; the token is cancelled when he has come to an end, good or bad.
    Coming(CancellationToken),
}

/// The holdings of one store. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Holdings(Arc<Mutex<HashMap<StorePath, Hold>>>);

/// The right and the duty to see to a path. Dropping it leaves the path to others.
#[derive(Debug)]
pub(super) struct Claim {
    path: StorePath,
    of: Holdings,
    done: CancellationToken,
}

impl Holdings {
    fn paths(&self) -> MutexGuard<'_, HashMap<StorePath, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a path is known to be valid there.
    #[must_use]
    pub fn holds(&self, path: &StorePath) -> bool {
        matches!(self.paths().get(path), Some(Hold::Held))
    }

    /// Whether all of these are known to be valid there.
    #[must_use]
    pub fn hold_all<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> bool {
        let known = self.paths();
        paths.into_iter().all(|path| matches!(known.get(path), Some(Hold::Held)))
    }

    /// These are valid there.
    pub fn note<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) {
        let mut known = self.paths();
        for path in paths {
            if let Some(Hold::Coming(done)) = known.insert(path.clone(), Hold::Held) {
                done.cancel();
            }
        }
    }

    /// Whether anything is known to be there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths().is_empty()
    }

    /// Claims those of these paths that are neither held nor on their way.
    pub(super) fn claim<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> Vec<Claim> {
        let mut known = self.paths();
        let mut claims = Vec::new();
        for path in paths {
            match known.get(path) {
                Some(Hold::Held | Hold::Coming(_)) => {}
                None => {
                    let done = CancellationToken::new();
                    known.insert(path.clone(), Hold::Coming(done.clone()));
                    claims.push(Claim { path: path.clone(), of: self.clone(), done });
                }
            }
        }
        claims
    }

    /// Waits until nobody sees to a path any more; then says whether it is held.
    pub(super) async fn settled(&self, path: &StorePath) -> bool {
        loop {
            let coming = match self.paths().get(path) {
                Some(Hold::Held) => return true,
                Some(Hold::Coming(done)) => done.clone(),
                None => return false,
            };
            coming.cancelled().await;
        }
    }
}

impl Claim {
    /// Whose it is.
    pub(super) fn path(&self) -> &StorePath {
        &self.path
    }

    /// It is valid there now.
    pub(super) fn fulfil(self) {
        self.of.note([&self.path]);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.done.is_cancelled() {
            return;
        }
        let mut known = self.of.paths();
        if matches!(known.get(&self.path), Some(Hold::Coming(_))) {
            known.remove(&self.path);
        }
        drop(known);
        self.done.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::from_parts([name.as_bytes()[0]; 20], name).unwrap()
    }

    #[tokio::test]
    async fn a_path_is_seen_to_by_one_at_a_time() {
        let holdings = Holdings::default();
        let (a, b) = (path("a"), path("b"));
        holdings.note([&b]);
        let first = holdings.claim([&a, &b]);
        assert_eq!(first.len(), 1);
        assert!(holdings.claim([&a]).is_empty());
        let waiting = holdings.settled(&a);
        let (held, ()) = tokio::join!(waiting, async { first.into_iter().for_each(Claim::fulfil) });
        assert!(held && holdings.hold_all([&a, &b]));
    }

    #[tokio::test]
    async fn what_one_gives_up_another_can_claim() {
        let holdings = Holdings::default();
        let a = path("a");
        let first = holdings.claim([&a]);
        let (held, ()) = tokio::join!(holdings.settled(&a), async { drop(first) });
        assert!(!held);
        assert_eq!(holdings.claim([&a]).len(), 1);
    }
}
