//! What can be begun before anything is known of a flake: the question that locks it, and an evaluator. Whoever finds
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

/// Begins. `guess` is what the flake will most likely be locked to; without one there is no evaluator. `None` where flags
/// change the lock.
pub async fn begin(nix: &Nix, options: &FlakeOptions, guess: Option<String>, collector: Collector) -> Option<Ahead> {
    let locking = flake::begin(nix, options)?;
    let evaluator = match guess {
        Some(guess) => begin_evaluator(nix, guess, collector).await,
        None => None,
    };
    Some(Ahead { locking, evaluator })
}

/// That it cannot be started is found out again, and said, by whoever needs one.
async fn begin_evaluator(nix: &Nix, guess: String, collector: Collector) -> Option<Early> {
    let mut worker = Worker::spawn_bare(nix, collector, Mode::default()).ok()?;
    worker.give(guess).await;
    Some(Early(worker))
}
