//! The one public fact type. Whatever happens in a run is one [`Event`]; the screen, the record and every report
//! are folds over them and see nothing else.
//!
//! Events carry ids and plain data, never handles. A drv is introduced once by [`Fact::DrvNeeded`], an attr by
//! [`Fact::AttrListed`], a builder and a cache by their `Ready` facts; later facts name them by id. Store paths are
//! absolute texts, so that a record can be read without a store. Only the driver makes events: it numbers and
//! stamps them (`driver::clock`). Log lines of builds are no events: they go to one file a drv (`record::logs`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod attr;
mod drv;
mod fact;
mod failure;
mod path;

pub use attr::{CauseKind, Difference, Evaluated, STOPPED, Status};
pub use drv::{AttemptEnd, DrvOutcome};
pub use fact::Fact;
pub use failure::{Class, Failure};
pub use path::{FetchedPath, LockedInput, OutputPath, Pushed, SkippedPath};

/// Version of the event lines in a record. Fields may be added within one version, never renamed or removed.
pub const FORMAT: u32 = 1;

/// A text shared by many holders; store paths and messages.
pub type Text = Arc<str>;

/// Time since the start of the run, in whole microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Seconds since the start of the run.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// From seconds since the start of the run.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Self {
        Self((seconds * 1e6) as u64)
    }

    /// The seconds between an earlier moment and this one; 0 if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> f64 {
        Self(self.0.saturating_sub(earlier.0)).seconds()
    }
}

/// One fact with its place in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// 0, 1, 2, … without gaps.
    pub seq: u64,
    /// When drover learned of it, in µs since the start of the run; never decreases.
    pub at: Moment,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// The five stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Flake → attrs with their drvs.
    Eval,
    /// drvs → what has to be built.
    Diff,
    /// Building and fetching.
    Build,
    /// Outputs → caches.
    Push,
    /// Closing the record.
    Record,
}
