//! Bringing paths into a store, with all that they refer to: what an attempt needs to its builder, and results home.
//!
//! What is not there is looked for from the wanted paths downward. What a cache has, the store's own daemon fetches; the
//! rest is streamed from whoever has it, references first, several at once. Each path comes into a store at most once
//! in a run: what is on its way for somebody else is waited for ([`Holdings`](super::Holdings)).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::event::{Class, Failure};
use crate::id::{BuilderId, StorePath};
use crate::nix_compat::daemon::PathInfo;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::copying::{Stopped, copy_one, lost};
use super::holdings::Claim;
use super::site::LANES;
use super::sources::{Found, Search, Source};
use super::{Caches, Site, Sources};

/// How often what others gave up is seen to here.
const ROUNDS: usize = 3;

/// Other sources that are tried for a path when one fails.
const TRIES: usize = 3;

/// Bytes of a path of which the way takes longer than the path itself.
const SMALL: u64 = 64 << 10;

/// What was brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brought {
    /// Paths that were copied from another store.
    pub copied: u32,
    /// Bytes of their NARs.
    pub copied_size: u64,
    /// Paths that the store's daemon fetched from caches, as far as they were asked for by name.
    pub fetched: u32,
}

impl Brought {
    /// Bytes and seconds that say how fast the way is, from how long all of it took: of all together, or of one path
    /// where they are small.
    #[must_use]
    pub fn speed(&self, seconds: f64) -> Option<(u64, f64)> {
        let paths = u64::from(self.copied);
        let each = self.copied_size.checked_div(paths)?;
        let at_once = paths.min(LANES as u64) as f64;
        Some(if each < SMALL { (each, seconds * at_once / paths as f64) } else { (self.copied_size, seconds) })
    }
}

/// What is to be brought, once it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToBring {
    /// Paths that are not there.
    pub paths: u32,
    /// Bytes of their NARs, as far as they are known.
    pub nar_size: u64,
}

/// Something cannot be brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBrought {
    /// For people.
    pub failure: Failure,
    /// The wanted paths that are nowhere, or refer to something that is, and what that is.
    pub gone: Vec<(StorePath, Vec<StorePath>)>,
    /// The wanted paths that the store does not take for want of a signature by a key that it trusts, or that refer to
    /// such a one, and which that is.
    pub refused: Vec<(StorePath, Vec<StorePath>)>,
    /// Builders that have some of it and do not answer.
    pub suspects: Vec<BuilderId>,
}

impl From<Failure> for NotBrought {
    fn from(failure: Failure) -> Self {
        Self { failure, gone: Vec::new(), refused: Vec::new(), suspects: Vec::new() }
    }
}

/// Makes these paths valid in a store, with all that they refer to, and keeps them so. `tell` hears what there is to
/// be brought, if anything. Dropping the future gives up what is under way.
pub async fn bring(
    to: &Site,
    paths: &[StorePath],
    from: &Sources,
    tell: &(dyn Fn(ToBring) + Send + Sync),
) -> Result<Brought, NotBrought> {
    let mut brought = Brought::default();
    for _ in 0..ROUNDS {
        let mut work = Work { to, from, pieces: BTreeMap::new(), brought: Brought::default() };
        work.discover(paths).await?;
        let found = work.to_bring();
        if found.paths > 0 {
            tell(found);
        }
        let done = work.copy(paths).await?;
        brought.copied += done.copied;
        brought.copied_size += done.copied_size;
        brought.fetched += done.fetched;
        let mut all = true;
        for path in paths {
            all &= to.holdings.settled(path).await;
        }
        if all {
            return Ok(brought);
        }
    }
    let lost = paths.iter().find(|path| !to.holdings.holds(path));
    let name = lost.map_or("a path", StorePath::name);
    Err(Failure::new(Class::Internal, format!("{name} could not be brought, and nobody says why")).into())
}

/// A path that is to be copied.
struct Piece {
    claim: Claim,
    source: Source,
    info: PathInfo,
}

/// What one call of [`bring`] has found to do.
struct Work<'a> {
    to: &'a Site,
    from: &'a Sources,
    pieces: BTreeMap<StorePath, Piece>,
    brought: Brought,
}

impl Work<'_> {
    fn to_bring(&self) -> ToBring {
        let paths = u32::try_from(self.pieces.len()).unwrap_or(u32::MAX);
        ToBring {
            paths: paths.saturating_add(self.brought.fetched),
            nar_size: self.pieces.values().map(|piece| piece.info.nar_size).sum(),
        }
    }

    /// Looks from the wanted paths downward for what is missing and nobody else sees to.
    async fn discover(&mut self, wanted: &[StorePath]) -> Result<(), NotBrought> {
        let mut level: Vec<StorePath> = wanted.to_vec();
        let mut search = Search::default();
        let mut nowhere = BTreeSet::new();
        while !level.is_empty() {
            let unique: BTreeSet<StorePath> = level.drain(..).collect();
            let mine = self.to.holdings.claim(&unique);
            let missing = self.missing(mine).await?;
            let missing = self.found(missing, &mut search, &mut nowhere).await?;
            level = missing.into_iter().filter(|path| !self.pieces.contains_key(path)).collect();
        }
        match nowhere.first() {
            None => Ok(()),
            Some(path) => {
                let gone = because_of(&self.edges(), wanted, &nowhere);
                Err(NotBrought { gone, ..self.from.nowhere(path).into() })
            }
        }
    }

    /// Those claimed paths that are not valid there.
    async fn missing(&self, claims: Vec<Claim>) -> Result<BTreeMap<StorePath, Claim>, NotBrought> {
        if claims.is_empty() {
            return Ok(BTreeMap::new());
        }
        let paths: Vec<StorePath> = claims.iter().map(|claim| claim.path().clone()).collect();
        let valid = self.to.valid(&paths).await.map_err(|error| lost(&error))?;
        let mut missing = BTreeMap::new();
        for (claim, valid) in claims.into_iter().zip(valid) {
            match valid {
                true => claim.fulfil(),
                false => drop(missing.insert(claim.path().clone(), claim)),
            }
        }
        Ok(missing)
    }

    /// Finds out who has these, and has the store's daemon fetch what it can. Gives what the rest refers to.
    async fn found(
        &mut self,
        mut missing: BTreeMap<StorePath, Claim>,
        search: &mut Search,
        nowhere: &mut BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, NotBrought> {
        if missing.is_empty() {
            return Ok(BTreeSet::new());
        }
        let paths: Vec<StorePath> = missing.keys().cloned().collect();
        let mut found = self.from.look(self.to, &paths, search).await;
        let fetchable: Vec<&StorePath> = paths.iter().filter(|path| self.is_fetchable(path, &found)).collect();
        for path in self.fetch(&fetchable).await? {
            if let Some(claim) = missing.remove(&path) {
                claim.fulfil();
                self.brought.fetched += 1;
            }
        }
        let unknown: Vec<StorePath> = missing.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        found.extend(self.from.look_in_caches(&unknown, search).await);
        let mut below = BTreeSet::new();
        for (path, claim) in missing {
            let Some((source, info)) = found.remove(&path) else {
                nowhere.insert(path);
                continue;
            };
            if let Source::Site(builder, _) = &source {
                search.near.insert(*builder);
            }
            below.extend(info.others().cloned());
            self.pieces.insert(path, Piece { claim, source, info });
        }
        Ok(below)
    }

    /// Whether it is worth the daemon's while to look in its caches: one is known to have it; or it has a signature and
    /// was not built where it is, so it came from one; or nobody else has it.
    fn is_fetchable(&self, path: &StorePath, found: &Found) -> bool {
        self.to.fetches
            && (self.from.cached.contains(path)
                || found.get(path).is_none_or(|(_, info)| !info.ultimate && !info.signatures.is_empty()))
    }

    /// Has the daemon fetch these from caches, as far as it can; gives those that are valid then.
    async fn fetch(&self, paths: &[&StorePath]) -> Result<Vec<StorePath>, NotBrought> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.to.pool.take(Caches::On).await.map_err(|error| lost(&error))?;
        let fetched = session.query_valid_paths(paths.iter().copied(), true, &mut |_| {}).await;
        let fetched = fetched.map_err(|error| (error.is_fatal(), session.explain(error)));
        self.to.pool.give_back(session);
        match fetched {
            Ok(valid) => Ok(valid.into_iter().collect()),
            Err((true, error)) => Err(lost(&error).into()),
            Err((false, error)) => {
                tracing::debug!(%error, "a store does not fetch from its caches");
                Ok(Vec::new())
            }
        }
    }

    /// What each piece refers to.
    fn edges(&self) -> Edges {
        let others = |piece: &Piece| piece.info.others().cloned().collect();
        self.pieces.iter().map(|(path, piece)| (path.clone(), others(piece))).collect()
    }

    /// Copies all pieces, each as soon as what it refers to is there.
    async fn copy(self, wanted: &[StorePath]) -> Result<Brought, NotBrought> {
        let (to, from, edges, mut brought) = (self.to, self.from, self.edges(), self.brought);
        let mut running: FuturesUnordered<_> =
            self.pieces.into_values().map(|piece| copy_when_ready(to, from, piece)).collect();
        let (mut nowhere, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let mut suspects = BTreeSet::new();
        let mut failed: Option<Failure> = None;
        while let Some(copied) = running.next().await {
            match copied {
                Ok(bytes) => {
                    brought.copied += 1;
                    brought.copied_size += bytes;
                }
                // Whoever gave it up says why, or it is brought in the next round.
                Err(NotCopied::Unready) => {}
                Err(NotCopied::There(path, failure)) => {
                    let end = failure.class == Class::BuilderLost;
                    if failure.class == Class::Signature {
                        refused.insert(path);
                    }
                    failed.get_or_insert(failure);
                    if end {
                        break;
                    }
                }
                Err(NotCopied::Nowhere(path, failure)) => {
                    nowhere.insert(path);
                    failed.get_or_insert(failure);
                }
                Err(NotCopied::Suspect(builder, failure)) => {
                    suspects.insert(builder);
                    failed.get_or_insert(failure);
                }
            }
        }
        match failed {
            None => Ok(brought),
            Some(failure) => {
                let suspects = suspects.into_iter().collect();
                let gone = because_of(&edges, wanted, &nowhere);
                Err(NotBrought { failure, gone, refused: because_of(&edges, wanted, &refused), suspects })
            }
        }
    }
}

/// What paths refer to, as far as they are missing.
type Edges = BTreeMap<StorePath, Vec<StorePath>>;

/// Which of the wanted paths cannot be had because of these, which are nowhere or not taken.
fn because_of(edges: &Edges, wanted: &[StorePath], these: &BTreeSet<StorePath>) -> Vec<(StorePath, Vec<StorePath>)> {
    let below = |root: &StorePath| -> Vec<StorePath> {
        let mut open = vec![root];
        let mut seen: HashSet<&StorePath> = HashSet::from([root]);
        let mut culprits = Vec::new();
        while let Some(path) = open.pop() {
            if let Some(culprit) = these.get(path) {
                culprits.push(culprit.clone());
            }
            open.extend(edges.get(path).into_iter().flatten().filter(|other| seen.insert(other)));
        }
        culprits
    };
    let found = wanted.iter().map(|path| (path.clone(), below(path)));
    found.filter(|(_, culprits)| !culprits.is_empty()).collect()
}

/// Why a piece was not copied.
enum NotCopied {
    /// Something that it refers to has not come.
    Unready,
    /// The store that it was for does not take it.
    There(StorePath, Failure),
    /// Everybody who had it has failed.
    Nowhere(StorePath, Failure),
    /// The builder that has it does not answer.
    Suspect(BuilderId, Failure),
}

/// Copies one path once all that it refers to is valid. Gives its bytes.
async fn copy_when_ready(to: &Site, from: &Sources, piece: Piece) -> Result<u64, NotCopied> {
    for reference in piece.info.others() {
        if !to.holdings.settled(reference).await {
            return Err(NotCopied::Unready);
        }
    }
    let _lane = to.lanes.acquire().await.map_err(|_| NotCopied::Unready)?;
    let Piece { claim, mut source, mut info } = piece;
    let mut search = Search::default();
    for _ in 0..TRIES {
        match copy_one(to, &source, &info).await {
            Ok(()) => {
                claim.fulfil();
                return Ok(info.nar_size);
            }
            Err(Stopped::There(failure)) => return Err(NotCopied::There(info.path, failure)),
            Err(Stopped::Here(failure)) => {
                tracing::debug!(why = %failure.message, "looking for another source of {}", info.path);
                search.without.insert(source.id());
                let path = std::slice::from_ref(&info.path);
                let mut found = from.look(to, path, &search).await;
                if found.is_empty() {
                    found = from.look_in_caches(path, &search).await;
                }
                match found.pop_first() {
                    Some((_, other)) => (source, info) = other,
                    None => return Err(without(&source, info.path, failure)),
                }
            }
        }
    }
    let failure = from.nowhere(&info.path);
    Err(NotCopied::Nowhere(info.path, failure))
}

/// Nobody else has it than this source, which failed. A builder that does not answer may still have it when it does.
fn without(source: &Source, path: StorePath, failure: Failure) -> NotCopied {
    match source {
        Source::Site(builder, _) if failure.class == Class::BuilderLost => {
            NotCopied::Suspect(*builder, Failure { class: Class::Cache, ..failure })
        }
        _ => NotCopied::Nowhere(path, failure),
    }
}
