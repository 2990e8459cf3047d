//! What can be begun before anything is known of a flake: an evaluator, and the question that locks it. Whoever finds
//! that neither is needed drops it, which ends its processes. Does not change what comes out: the question is the one
//! that locking asks first, and an evaluator that was begun for another reference than the locked one is not used.

use super::flake::{self, FlakeOptions};
use super::imports::Mode;
use super::nix::Nix;
use super::worker::{Collector, Worker};

/// What was begun.
#[derive(Debug)]
pub struct Ahead {
    /// The first question of locking.
    pub locking: flake::Begun,
    /// An evaluator, where one can be of use.
    pub evaluator: Option<Early>,
}

/// An evaluator that was started before its flake was locked.
pub struct Early(pub(super) Worker);

impl std::fmt::Debug for Early {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Early")
    }
}

/// Begins, with an evaluator if it is said what its garbage collector may take. `None` where flags change the lock.
#[must_use]
pub fn begin(nix: &Nix, options: &FlakeOptions, collector: Option<Collector>) -> Option<Ahead> {
    if options.changes_lock() {
        return None;
    }
    // That it cannot be started is found out again, and said, by whoever needs one. It takes longest, so it comes first.
    let evaluator = collector.and_then(|collector| Worker::spawn_bare(nix, collector, Mode::default()).ok());
    Some(Ahead { locking: flake::begin(nix, options)?, evaluator: evaluator.map(Early) })
}

impl Ahead {
    /// Gives the evaluator what the flake will most likely be locked to; without that it is of no use.
    pub async fn expect(self, guess: Option<String>) -> Self {
        let evaluator = match (self.evaluator, guess) {
            (Some(Early(mut worker)), Some(guess)) => {
                worker.give(guess).await;
                Some(Early(worker))
            }
            _ => None,
        };
        Self { evaluator, ..self }
    }
}
