//! The vocabulary of the planner: what it asks, what it is answered, what it decides.

#[cfg(doc)]
use super::Planner;
use crate::event::{Failure, Status};
use crate::graph::Work;
use crate::id::{AttrId, CacheId, DrvId, StorePath};

/// What a store and the caches say about one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// In a store where it counts.
    Valid,
    /// In this cache, and the store may take it.
    Present(CacheId),
    /// In a cache, signed by no key that the store trusts: to be built.
    Untrusted,
    /// Nowhere.
    Absent,
    /// Not in the store, and a cache did not answer: to be built, with a warning by whoever asked.
    NoAnswer,
}

/// An answer about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which path.
    pub path: StorePath,
    /// What was said.
    pub presence: Presence,
    /// Of a present path: what it refers to.
    pub references: Vec<StorePath>,
    /// Of a present path: bytes of its NAR.
    pub nar_size: u64,
    /// Of a present path: bytes to download; 0 if the cache does not say.
    pub file_size: u64,
}

impl Found {
    /// Of something that refers to nothing.
    #[must_use]
    pub fn new(path: StorePath, presence: Presence) -> Self {
        Self { path, presence, references: Vec::new(), nar_size: 0, file_size: 0 }
    }
}

/// A path to ask about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// Which path.
    pub path: StorePath,
    /// Whether caches may answer; otherwise only the store (`allowSubstitutes = false`).
    pub caches: bool,
}

/// What the planner has to know next; each drv and each path is named once in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// Drvs whose .drv has to be read into the graph: answered by [`Planner::loaded`] or [`Planner::load_failed`].
    pub load: Vec<DrvId>,
    /// Paths: answered by [`Planner::answered`].
    pub ask: Vec<Question>,
}

/// What the planner has found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// A drv is needed. Comes after all items that it names. A drv comes twice only if more became wanted of it than
    /// a fetch was to bring, or its fetch failed: the later item replaces the earlier, and only a fetch is replaced.
    Item {
        /// Which drv.
        drv: DrvId,
        /// Build it, or fetch what [`Planner::fetches`] says.
        work: Work,
        /// The needed drvs of which it uses an output that is not valid yet; for a fetch, its patches.
        inputs: Vec<DrvId>,
        /// For which attr it was needed first; `None` for what a failed fetch brought up.
        attr: Option<AttrId>,
    },
    /// A needed drv whose .drv could not be read. Comes in the place of its item, once.
    Unreadable {
        /// Which drv.
        drv: DrvId,
        /// As given to [`Planner::load_failed`].
        failure: Failure,
        /// For which attr it was needed first.
        attr: Option<AttrId>,
    },
    /// All that this attr needs has been given out.
    Attr {
        /// Which attr.
        attr: AttrId,
        /// `Valid`: all its wanted outputs are; `ToFetch`: a cache has those that are not; `Failed`: its own .drv
        /// cannot be read; else `ToBuild`.
        status: Status,
        /// Its drv, unless it is `Valid`.
        drv: Option<DrvId>,
        /// How many drvs would have to be built if this attr alone were asked for, its own included.
        builds: u32,
    },
}

/// Counts of wanted paths by what is known of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "one count for each kind of answer")]
pub struct Totals {
    /// Wanted paths, answered or not.
    pub paths: u32,
    pub valid: u32,
    pub present: u32,
    pub absent: u32,
    pub untrusted: u32,
    pub no_answer: u32,
}

/// What the run wants of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanPolicy {
    /// Fetch outputs of attrs that are present (`--download`, `--out-link`); otherwise they stay in the cache.
    pub fetch_roots: bool,
}
