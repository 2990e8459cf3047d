//! What was done where and when: one fold from which charts and traces are drawn.
//!
//! A track is a place where things are done beside each other: the evaluators, the slots of a builder, what is brought
//! to it and from it, the fetches, the pushes to a cache. Its lanes hold bars, one after the other; the lanes of a
//! builder's slots are its slots. The path is the account, each step with the bar in which it passed.

mod lanes;
mod path;
mod stages;

use crate::event::{Moment, Text};
use crate::id::{AttrId, BuilderId, CacheId, DrvId};

use super::number::name_version;
use super::summary::{Drv, Summary};

pub use path::{Spot, Step};
pub use stages::{Overlap, StageSpan, overlaps, stages, word};

/// See the module's page.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// In the order in which work passes through them.
    pub tracks: Vec<Track>,
    /// What the run was waiting for at each moment; the steps touch each other and add up to the wall time.
    pub path: Vec<Step>,
    /// The end of the run.
    pub end: Moment,
}

/// A place where things are done beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Which.
    pub site: Site,
    /// Bars that do not overlap, in order.
    pub lanes: Vec<Vec<Bar>>,
}

/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// Evaluators.
    Evaluators,
    /// Fetches from caches into the local store.
    Fetches,
    /// What drvs need, on its way to a builder.
    Inputs(BuilderId),
    /// The slots of a builder.
    Slots(BuilderId),
    /// Outputs on their way from a builder into the local store.
    Results(BuilderId),
    /// Uploads to a cache.
    Pushes(CacheId),
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// For whom.
    pub subject: Subject,
    /// When it began.
    pub from: Moment,
    /// When it ended; the end of the run where that came before.
    pub to: Moment,
    /// How.
    pub end: End,
    /// Phases of a build and when they began; each lasts until the next or the end.
    pub phases: Vec<(Moment, Text)>,
    /// Bytes that were moved, of what is moved.
    pub bytes: Option<u64>,
}

/// Whom a bar is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An attr that is evaluated.
    Attr(AttrId),
    /// A drv.
    Drv(DrvId),
    /// A path that is pushed.
    Path(Text),
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// As it should.
    Done,
    /// It failed.
    Failed,
    /// The run ended before.
    Open,
}

impl Bar {
    /// How long it took.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.to.since(self.from)
    }
}

impl Subject {
    /// What people call it.
    #[must_use]
    pub fn name(&self, s: &Summary) -> String {
        match self {
            Self::Attr(attr) => s.attr_name(*attr),
            Self::Drv(drv) => s.drv_name(*drv),
            Self::Path(path) => name_version(path).to_owned(),
        }
    }
}

impl Site {
    /// What people call it.
    #[must_use]
    pub fn name(self, s: &Summary) -> String {
        match self {
            Self::Evaluators => "evaluators".to_owned(),
            Self::Fetches => "fetches".to_owned(),
            Self::Inputs(builder) => format!("inputs to {}", s.builder_name(builder)),
            Self::Slots(builder) => s.builder_name(builder),
            Self::Results(builder) => format!("results from {}", s.builder_name(builder)),
            Self::Pushes(cache) => format!("pushes to {}", s.cache_name(cache)),
        }
    }
}

impl Timeline {
    /// Of a run.
    #[must_use]
    pub fn of(s: &Summary) -> Self {
        let tracks = lanes::tracks(s);
        let path = path::of(s, &tracks);
        Self { tracks, path, end: s.end }
    }
}

/// When a drv had all its inputs: from then on it waits for a builder.
#[must_use]
pub fn ready(s: &Summary, drv: &Drv) -> Moment {
    let inputs = drv.inputs.iter().filter_map(|input| s.drvs.get(input)?.ended.as_ref());
    inputs.fold(drv.needed, |latest, (at, _)| latest.max(*at))
}
