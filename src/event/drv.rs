//! How attempts end, and what becomes of a drv.

use serde::{Deserialize, Serialize};

use super::{Failure, OutputPath};
use crate::id::DrvId;

/// How one attempt ended. The retry table in `sched` has one row for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum AttemptEnd {
    /// The builder ran and all outputs are valid there.
    Built {
        /// The outputs as they are now known (an opaque drv's are only known here).
        outputs: Vec<OutputPath>,
    },
    /// Somebody else had built it, or the store fetched it.
    AlreadyValid {
        /// As in `Built`.
        outputs: Vec<OutputPath>,
    },
    /// It failed.
    Failed(Failure),
}

/// The one final word on a drv that had to be built or fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum DrvOutcome {
    /// Built in this run.
    Built,
    /// Fetched from a cache for those that need it.
    Fetched,
    /// Turned out to be there already.
    Valid,
    /// Its own attempts failed.
    Failed(Failure),
    /// Something that it needs failed; `root` is the drv that did.
    DependencyFailed {
        /// The drv whose own attempt failed.
        root: DrvId,
    },
    /// Not tried, or stopped, because the run was stopped or `--fail-fast` said so.
    Cancelled,
}
