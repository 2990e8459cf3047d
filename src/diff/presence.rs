//! Facts about paths: asks the caches and says, for each path, which one has it.
//!
//! Owns the order of asking and how the answers of several caches become one fact. Does not own what a fact means for
//! the plan (`diff::plan`), nor how a cache is asked (`store::cache`).

use std::sync::Arc;

use futures_util::future::join_all;

use crate::event::Failure;
use crate::id::{CacheId, StorePath};
use crate::nix_compat::narinfo::NarInfo;
use crate::store::cache::{Answer, Cache};

/// What the caches together say about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// This cache has it, and the receiving store may take it. Of several, the one with the best priority.
    Present {
        /// Which cache.
        cache: CacheId,
        /// Its record: references, sizes, signatures.
        info: Box<NarInfo>,
    },
    /// Only there where the receiving store does not take it: signed by no key that it trusts.
    Untrusted {
        /// Which cache.
        cache: CacheId,
        /// The names of the keys that signed it.
        keys: Vec<String>,
    },
    /// No cache has it.
    Absent,
    /// No cache that answered has it, and this one gave no answer.
    NoAnswer {
        /// Which cache.
        cache: CacheId,
        /// Why.
        failure: Failure,
    },
}

/// When the next cache is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Only for what the caches before it do not have: the fewest requests.
    Cascade,
    /// At once: the fewest round trips.
    Race,
}

/// The caches that are read from, best priority first; of equals the one named first.
#[must_use]
pub fn readable(caches: &[Arc<Cache>]) -> Vec<Arc<Cache>> {
    let mut caches: Vec<_> = caches.iter().filter(|cache| cache.pull()).cloned().collect();
    caches.sort_by_key(|cache| (cache.priority(), cache.id()));
    caches
}

/// Asks the caches, which are in order of priority, for all paths; the facts come in the order of the paths.
pub async fn ask(caches: &[Arc<Cache>], paths: &[StorePath], order: Order) -> Vec<(StorePath, Fact)> {
    let mut facts = vec![Fact::Absent; paths.len()];
    match order {
        Order::Race => {
            let answers = join_all(caches.iter().map(|cache| cache.ask(paths))).await;
            for (cache, answers) in caches.iter().zip(answers) {
                for (fact, answer) in facts.iter_mut().zip(answers) {
                    merge(fact, cache.id(), answer);
                }
            }
        }
        Order::Cascade => {
            for cache in caches {
                let open = open(&facts);
                let asked: Vec<_> = open.iter().filter_map(|&at| paths.get(at).cloned()).collect();
                if asked.is_empty() {
                    break;
                }
                let answers = cache.ask(&asked).await;
                for (at, answer) in open.into_iter().zip(answers) {
                    if let Some(fact) = facts.get_mut(at) {
                        merge(fact, cache.id(), answer);
                    }
                }
            }
        }
    }
    paths.iter().cloned().zip(facts).collect()
}

/// Which paths another cache may still have.
fn open(facts: &[Fact]) -> Vec<usize> {
    let open = facts.iter().enumerate().filter(|(_, fact)| !matches!(fact, Fact::Present { .. }));
    open.map(|(at, _)| at).collect()
}

/// What is known after one more cache, of a lower priority, answered. Present beats no answer, which beats untrusted
/// (it might have been present there), which beats absent.
fn merge(fact: &mut Fact, cache: CacheId, answer: Answer) {
    let next = match answer {
        Answer::Present(info) => Fact::Present { cache, info },
        Answer::NoAnswer(failure) => Fact::NoAnswer { cache, failure },
        Answer::Untrusted(info) => {
            let keys = info.signatures().iter().map(|signature| signature.key_name.clone()).collect();
            Fact::Untrusted { cache, keys }
        }
        Answer::Absent => Fact::Absent,
    };
    if rank(&next) > rank(fact) {
        *fact = next;
    }
}

fn rank(fact: &Fact) -> u8 {
    match fact {
        Fact::Absent => 0,
        Fact::Untrusted { .. } => 1,
        Fact::NoAnswer { .. } => 2,
        Fact::Present { .. } => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;
    use crate::nix_compat::narinfo::NixHash;

    fn record() -> Box<NarInfo> {
        let path = StorePath::from_parts([1; 20], "x").unwrap();
        Box::new(NarInfo::builder(path, "nar/x.nar", NixHash::Sha256([0; 32]), 1).build().unwrap())
    }

    fn after(answers: &[Answer]) -> Fact {
        let mut fact = Fact::Absent;
        for (at, answer) in answers.iter().enumerate() {
            merge(&mut fact, CacheId(at as u32), answer.clone());
        }
        fact
    }

    #[test]
    fn the_first_cache_that_has_it_wins() {
        let failure = Failure::new(Class::Network, "down");
        let silent = Answer::NoAnswer(failure.clone());
        let present = Answer::Present(record());
        let untrusted = Answer::Untrusted(record());
        assert_eq!(
            after(&[silent.clone(), present.clone(), present.clone()]),
            Fact::Present { cache: CacheId(1), info: record() }
        );
        assert_eq!(after(&[present, silent.clone()]), Fact::Present { cache: CacheId(0), info: record() });
        assert_eq!(
            after(&[Answer::Absent, silent.clone()]),
            Fact::NoAnswer { cache: CacheId(1), failure: failure.clone() }
        );
        assert_eq!(after(&[untrusted.clone(), silent]), Fact::NoAnswer { cache: CacheId(1), failure });
        assert_eq!(
            after(&[Answer::Absent, untrusted.clone(), untrusted]),
            Fact::Untrusted { cache: CacheId(1), keys: vec![] }
        );
        assert_eq!(after(&[Answer::Absent, Answer::Absent]), Fact::Absent);
    }
}
