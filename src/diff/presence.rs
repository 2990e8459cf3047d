//! Facts about paths: asks the caches and says, for each path, which one has it.
//!
//! Owns the order of asking and how the answers of several caches become one fact. Does not own what a fact means for
//! the plan (`diff::plan`), nor how a cache is asked (`store::cache`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};

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

/// The caches that are read from, best priority first; of equals the one named first.
#[must_use]
pub fn readable(caches: &[Arc<Cache>]) -> Vec<Arc<Cache>> {
    let mut caches: Vec<_> = caches.iter().filter(|cache| cache.pull()).cloned().collect();
    caches.sort_by_key(|cache| (cache.priority(), cache.id()));
    caches
}

/// Asks the caches, which are in order of priority, one after the other, each for what those before it do not have: the
/// fewest requests. The facts come in the order of the paths.
pub async fn cascade(caches: &[Arc<Cache>], paths: &[StorePath]) -> Vec<(StorePath, Fact)> {
    let mut facts = vec![Fact::Absent; paths.len()];
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
    paths.iter().cloned().zip(facts).collect()
}

/// What one of several caches is remembered to have, and the paths for which all of them have to be asked.
pub async fn recall(caches: &[Arc<Cache>], paths: Vec<StorePath>) -> (Vec<(StorePath, Fact)>, Vec<StorePath>) {
    let (mut known, mut rest) = (Vec::new(), paths);
    // A single one is asked, and remembers by itself.
    for cache in caches.iter().filter(|_| caches.len() > 1) {
        let infos = cache.recall(&rest).await;
        let (here, open): (Vec<_>, Vec<_>) = rest.into_iter().zip(infos).partition(|(_, info)| info.is_some());
        let present =
            |(path, info): (StorePath, Option<_>)| Some((path, Fact::Present { cache: cache.id(), info: info? }));
        known.extend(here.into_iter().filter_map(present));
        rest = open.into_iter().map(|(path, _)| path).collect();
    }
    (known, rest)
}

/// Begins to ask the caches, which are in order of priority, all at once: the fewest round trips. One that takes much
/// longer to answer than those before it waits for them, and is asked for what they do not have. What one has is
/// believed when a better one is silent for too long; with `strict`, all that are better have to answer.
#[must_use]
pub fn race(caches: &[Arc<Cache>], paths: Vec<StorePath>, strict: bool) -> Facts {
    let paces: Vec<Duration> = caches.iter().map(|cache| cache.pace()).collect();
    let limits = caches.iter().map(|cache| patience(cache.pace(), cache.is_late(), strict)).collect();
    let ids = caches.iter().map(|cache| cache.id()).collect();
    let mut facts = Facts {
        caches: caches.to_vec(),
        left: paths.len(),
        race: Race::new(ids, limits, paths),
        answers: SelectAll::new(),
        later: FuturesUnordered::new(),
        limits: FuturesUnordered::new(),
    };
    for (rank, wait) in head_starts(&paces).into_iter().enumerate() {
        if wait.is_zero() {
            facts.ask(rank);
        } else {
            facts.later.push(tokio::time::sleep(wait).map(move |()| rank).boxed());
        }
    }
    facts
}

/// How long each of several caches waits for those before it, from how long they take to answer (pure): a third of its
/// own time where one of them has long answered by then, else not at all.
fn head_starts(paces: &[Duration]) -> Vec<Duration> {
    let wait = |(rank, pace): (usize, &Duration)| {
        let third = *pace / 3;
        let waits = paces[..rank].iter().any(|before| before.saturating_mul(2) < third);
        if waits { third } else { Duration::ZERO }
    };
    paces.iter().enumerate().map(wait).collect()
}

/// The shortest time that what a worse cache has waits for a better one.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long what a worse cache has waits for one that has not answered, from how long that one takes to answer (pure):
/// ten times as long. One that was waited for in vain before (`late`) is not waited for again before it says something.
/// `None`: for as long as it takes.
fn patience(pace: Duration, late: bool, strict: bool) -> Option<Duration> {
    match (strict, late) {
        (true, _) => None,
        (false, true) => Some(Duration::ZERO),
        (false, false) => Some(pace.saturating_mul(10).max(LEAST_PATIENCE)),
    }
}

/// Pieces of the answers of the cache with this rank.
type Ranked = BoxStream<'static, (usize, Vec<(usize, Answer)>)>;

/// What the caches together say, as they say it: each path comes once, in any order.
pub struct Facts {
    caches: Vec<Arc<Cache>>,
    answers: SelectAll<Ranked>,
    race: Race,
    left: usize,
    /// The ranks of caches that are not asked yet.
    later: FuturesUnordered<BoxFuture<'static, usize>>,
    /// Paths that a cache has, at the end of the time for better ones.
    limits: FuturesUnordered<BoxFuture<'static, Vec<usize>>>,
}

impl Facts {
    /// Asks one of the caches for all that is not known yet.
    fn ask(&mut self, rank: usize) {
        let (places, paths) = self.race.open();
        let answers = self.caches[rank].answers(&paths);
        self.answers.push(Box::pin(stream::unfold((answers, places), move |(mut answers, places)| async move {
            let mut piece = answers.next().await?;
            piece.iter_mut().for_each(|(at, _)| *at = places.get(*at).copied().unwrap_or(usize::MAX));
            Some(((rank, piece), (answers, places)))
        })));
    }

    /// What has become known since the last time; waits for it. `None` once all is known.
    pub async fn next(&mut self) -> Option<Vec<(StorePath, Fact)>> {
        while self.left > 0 {
            let known = tokio::select! {
                biased;
                Some((rank, piece)) = self.answers.next() => self.hear(rank, piece),
                Some(rank) = self.later.next() => {
                    self.ask(rank);
                    continue;
                }
                Some(places) = self.limits.next() => self.wait_no_more(&places),
                else => self.race.end(),
            };
            self.left = self.left.saturating_sub(known.len());
            if !known.is_empty() {
                return Some(known);
            }
        }
        None
    }

    /// A cache said something.
    fn hear(&mut self, rank: usize, piece: Vec<(usize, Answer)>) -> Vec<(StorePath, Fact)> {
        self.caches[rank].set_late(false);
        let Heard { known, waiting } = self.race.hear(rank, piece);
        for (limit, places) in waiting {
            self.limits.push(tokio::time::sleep(limit).map(move |()| places).boxed());
        }
        known
    }

    /// The time for better caches is over for what worse ones have.
    fn wait_no_more(&mut self, places: &[usize]) -> Vec<(StorePath, Fact)> {
        for rank in self.race.silent(places) {
            self.caches[rank].set_late(true);
        }
        places.iter().filter_map(|at| self.race.give(*at)).collect()
    }

    /// Whether all is known.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// All of it.
    pub async fn all(mut self) -> Vec<(StorePath, Fact)> {
        let mut all = Vec::with_capacity(self.left);
        while let Some(known) = self.next().await {
            all.extend(known);
        }
        all
    }
}

/// What caches have said so far about paths that they are asked for at the same time (pure). A path is known once a
/// cache has it and all better ones have answered or taken too long, or all have answered.
struct Race {
    caches: Vec<CacheId>,
    /// How long each of them may leave those after it waiting; `None`: for ever.
    limits: Vec<Option<Duration>>,
    /// `None`: known.
    paths: Vec<Option<StorePath>>,
    /// The answers for each path, by rank, as many as there are caches.
    said: Vec<Option<Answer>>,
}

/// What comes of a piece of answers.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    known: Vec<(StorePath, Fact)>,
    /// Places of paths that the cache has, by how long better ones may still take to answer.
    waiting: BTreeMap<Duration, Vec<usize>>,
}

/// How a path stands.
enum Standing {
    Known,
    /// A cache has it; what better ones say matters for so long at most.
    Until(Duration),
    Open,
}

impl Race {
    fn new(caches: Vec<CacheId>, limits: Vec<Option<Duration>>, paths: Vec<StorePath>) -> Self {
        let said = vec![None; caches.len() * paths.len()];
        Self { caches, limits, paths: paths.into_iter().map(Some).collect(), said }
    }

    /// The paths that are not known yet, and their places.
    fn open(&self) -> (Vec<usize>, Vec<StorePath>) {
        let open = self.paths.iter().enumerate().filter_map(|(at, path)| Some((at, path.clone()?)));
        open.unzip()
    }

    /// The cache with this rank answered.
    fn hear(&mut self, rank: usize, piece: Vec<(usize, Answer)>) -> Heard {
        let mut heard = Heard { known: Vec::with_capacity(piece.len()), ..Heard::default() };
        for (at, answer) in piece {
            if self.paths.get(at).is_none_or(Option::is_none) {
                continue;
            }
            // The time of one that another cache has runs already.
            let is_news = matches!(answer, Answer::Present(_));
            self.said[at * self.caches.len() + rank] = Some(answer);
            match self.standing(at) {
                Standing::Known => heard.known.extend(self.give(at)),
                Standing::Until(limit) if is_news => heard.waiting.entry(limit).or_default().push(at),
                Standing::Until(_) | Standing::Open => {}
            }
        }
        heard
    }

    /// What the caches have said of a path, best first.
    fn answers(&self, at: usize) -> &[Option<Answer>] {
        &self.said[at * self.caches.len()..][..self.caches.len()]
    }

    fn standing(&self, at: usize) -> Standing {
        // How long those that are better than the first one that has it may take.
        let (mut limit, mut silent) = (Some(Duration::ZERO), false);
        for (said, own) in self.answers(at).iter().zip(&self.limits) {
            match (said, limit) {
                (Some(Answer::Present(_)), Some(Duration::ZERO)) => return Standing::Known,
                (Some(Answer::Present(_)), Some(limit)) => return Standing::Until(limit),
                (Some(Answer::Present(_)), None) => return Standing::Open,
                (Some(_), _) => {}
                (None, _) => {
                    limit = limit.zip(*own).map(|(limit, own)| limit.max(own));
                    silent = true;
                }
            }
        }
        if silent { Standing::Open } else { Standing::Known }
    }

    /// The ranks of those that have not answered for one of these paths, which a worse one has.
    fn silent(&self, places: &[usize]) -> BTreeSet<usize> {
        let open = places.iter().filter(|at| self.paths[**at].is_some());
        let before = |answers: &[Option<Answer>]| {
            let first = answers.iter().position(|said| matches!(said, Some(Answer::Present(_)))).unwrap_or(0);
            (0..first).filter(|rank| answers[*rank].is_none()).collect::<Vec<_>>()
        };
        open.flat_map(|at| before(self.answers(*at))).collect()
    }

    /// No more answers come.
    fn end(&mut self) -> Vec<(StorePath, Fact)> {
        (0..self.paths.len()).filter_map(|at| self.give(at)).collect()
    }

    fn give(&mut self, at: usize) -> Option<(StorePath, Fact)> {
        let path = self.paths[at].take()?;
        let mut fact = Fact::Absent;
        let answers = self.said[at * self.caches.len()..].iter_mut();
        for (cache, said) in self.caches.iter().zip(answers) {
            if let Some(answer) = said.take() {
                merge(&mut fact, *cache, answer);
            }
        }
        Some((path, fact))
    }
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

    #[test]
    fn only_a_cache_that_is_much_slower_waits() {
        let millis = |times: &[u64]| times.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        for (paces, waits) in [
            (&[30, 30, 30][..], &[0, 0, 0][..]),
            (&[0, 30], &[0, 10]),
            (&[1, 30, 300], &[0, 10, 100]),
            (&[30, 10, 45], &[0, 0, 0]),
            (&[1, 300, 300], &[0, 100, 100]),
            (&[300, 0], &[0, 0]),
        ] {
            assert_eq!(head_starts(&millis(paces)), millis(waits), "{paces:?}");
        }
    }

    fn path(byte: u8) -> StorePath {
        StorePath::from_parts([byte; 20], "x").unwrap()
    }

    /// Of as many caches as there are limits, numbered from the last.
    fn race_of(limits: &[Option<Duration>], paths: u8) -> Race {
        let ids = (0..limits.len()).rev().map(|id| CacheId(id as u32)).collect();
        Race::new(ids, limits.to_vec(), (0..paths).map(path).collect())
    }

    fn present(at: usize) -> (usize, Answer) {
        (at, Answer::Present(record()))
    }

    fn at(cache: u32, byte: u8) -> (StorePath, Fact) {
        (path(byte), Fact::Present { cache: CacheId(cache), info: record() })
    }

    #[test]
    fn a_path_is_known_as_soon_as_nothing_can_change_it() {
        let mut race = race_of(&[None, None], 4);
        assert_eq!(race.hear(1, vec![present(0), present(1), (2, Answer::Absent)]), Heard::default());
        assert_eq!(race.hear(0, vec![present(0), (1, Answer::Absent)]).known, [at(1, 0), at(0, 1)]);
        assert_eq!(race.hear(0, vec![present(3), (2, Answer::Absent)]).known, [at(1, 3), (path(2), Fact::Absent)]);
        assert_eq!(race.hear(1, vec![present(3)]), Heard::default(), "known already");
        assert_eq!(race.end(), []);
        let mut cut = race_of(&[None, None], 1);
        assert_eq!(cut.hear(1, vec![present(0)]), Heard::default());
        assert_eq!(cut.end(), [at(0, 0)]);
    }

    #[test]
    fn a_better_cache_is_waited_for_within_limits() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        assert_eq!(patience(Duration::from_millis(30), false, false), Some(second));
        assert_eq!(patience(second, false, false), Some(second * 10));
        assert_eq!(patience(second, true, false), Some(Duration::ZERO));
        assert_eq!(patience(second, true, true), None);
        let mut race = race_of(&[Some(hour), Some(second), Some(second)], 4);
        let heard = race.hear(2, vec![present(0), present(1), (2, Answer::Absent)]);
        assert_eq!(heard, Heard { known: vec![], waiting: BTreeMap::from([(hour, vec![0, 1])]) });
        assert_eq!(race.hear(0, vec![(1, Answer::Absent)]), Heard::default(), "its time runs already");
        let sooner = BTreeMap::from([(hour, vec![0]), (second, vec![3])]);
        assert_eq!(race.hear(0, vec![(3, Answer::Absent)]), Heard::default());
        assert_eq!(race.hear(1, vec![present(0)]).waiting, BTreeMap::from([(hour, vec![0])]));
        assert_eq!(race.hear(2, vec![present(3)]).waiting, BTreeMap::from([(second, vec![3])]));
        assert_eq!(race.silent(&sooner.into_values().flatten().collect::<Vec<_>>()), BTreeSet::from([0, 1]));
        assert_eq!(race.give(0), Some(at(1, 0)), "the best of those that answered");
        assert_eq!(race.silent(&[0]), BTreeSet::new(), "known");
    }

    #[test]
    fn one_that_was_waited_for_in_vain_holds_up_nothing_that_another_has() {
        let mut race = race_of(&[Some(Duration::ZERO), Some(Duration::from_secs(1))], 3);
        assert_eq!(race.hear(1, vec![present(0), (1, Answer::Absent)]).known, [at(0, 0)]);
        assert_eq!(race.hear(0, vec![present(1), present(2)]).known, [at(1, 1), at(1, 2)], "but it may have the rest");
    }
}
