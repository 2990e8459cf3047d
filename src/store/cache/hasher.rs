//! SHA-256 of what passes by, on a thread of its own where there is much of it.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};
use tokio_util::bytes::Bytes;

/// Chunks that wait for the thread at most.
const CHUNKS: usize = 4;

/// See the module's page.
pub(super) enum Hasher {
    /// On the thread that feeds it.
    Here(Box<Sha256>),
    /// Beside it.
    Beside(SyncSender<Bytes>, JoinHandle<Sha256>),
}

impl Hasher {
    /// `beside`: with a thread of its own, if there can be one.
    pub(super) fn new(beside: bool) -> Self {
        let here = || Self::Here(Box::new(Sha256::new()));
        if !beside {
            return here();
        }
        let (to, chunks) = sync_channel::<Bytes>(CHUNKS);
        let work = move || {
            let mut hash = Sha256::new();
            chunks.iter().for_each(|chunk| hash.update(&chunk));
            hash
        };
        let thread = thread::Builder::new().name("hash".to_owned()).spawn(work);
        thread.map_or_else(|_| here(), |thread| Self::Beside(to, thread))
    }

    pub(super) fn add(&mut self, chunk: &Bytes) {
        match self {
            Self::Here(hash) => hash.update(chunk),
            // If the thread has died, the end says so.
            Self::Beside(to, _) => drop(to.send(chunk.clone())),
        }
    }

    /// The hash of all of it; `None` if the thread died.
    pub(super) fn end(self) -> Option<[u8; 32]> {
        match self {
            Self::Here(hash) => Some(hash.finalize().into()),
            Self::Beside(to, thread) => {
                drop(to);
                thread.join().ok().map(|hash| hash.finalize().into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same() {
        let chunks: Vec<Bytes> = (0..40u8).map(|at| Bytes::from(vec![at; 1000])).collect();
        let hash = |beside| {
            let mut hasher = Hasher::new(beside);
            chunks.iter().for_each(|chunk| hasher.add(chunk));
            hasher.end().unwrap()
        };
        assert_eq!(hash(false), <[u8; 32]>::from(Sha256::digest(chunks.concat())));
        assert_eq!(hash(true), hash(false));
    }
}
