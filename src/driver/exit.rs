//! Which exit code a run ends with: its faults, folded from what the driver knows at the end.

use std::collections::BTreeMap;

use crate::error::{Fault, fault_of};
use crate::event::{DrvOutcome, Evaluated, Event, Fact, Pushed, Status, Text};
use crate::id::CacheId;
use crate::report::check::Excused;

/// What may go wrong without a fault.
pub(super) struct Lenience {
    /// Caches that may fail to be pushed to.
    pub(super) optional: Vec<CacheId>,
    /// Attrs and drvs that may fail in a check.
    pub(super) excused: Excused,
}

impl Lenience {
    /// Only these caches may fail.
    pub(super) fn for_caches(optional: Vec<CacheId>) -> Self {
        Self { optional, excused: Excused::default() }
    }
}

/// The faults of a run, from its events.
pub(super) fn faults(events: &[Event], lenience: &Lenience) -> Vec<Fault> {
    let last = last_words(events);
    let counts = |event: &&Event| match &event.fact {
        Fact::PushEnded { cache, path, .. } => last.get(&(*cache, path)) == Some(&event.seq),
        _ => true,
    };
    let mut faults: Vec<Fault> =
        events.iter().filter(counts).filter_map(|event| fault(&event.fact, lenience)).collect();
    faults.dedup();
    faults
}

/// Of each path on its way to a cache, the number of the event that says last how that ended: what was lost with its
/// builder before it was pushed is made again, and pushed then.
fn last_words(events: &[Event]) -> BTreeMap<(CacheId, &Text), u64> {
    let ended = events.iter().filter_map(|event| match &event.fact {
        Fact::PushEnded { cache, path, .. } => Some(((*cache, path), event.seq)),
        _ => None,
    });
    ended.collect()
}

fn fault(fact: &Fact, Lenience { optional, excused }: &Lenience) -> Option<Fault> {
    match fact {
        Fact::EvalEnded { attr, .. } | Fact::AttrEnded { attr, .. } if excused.attrs.contains(attr) => None,
        Fact::DrvEnded { drv, .. } if excused.drvs.contains(drv) => None,
        Fact::EvalEnded { evaluated: Evaluated::Failed(failure), .. } => Some(fault_of(failure.class)),
        Fact::DrvEnded { outcome: DrvOutcome::Failed(failure), .. } => Some(fault_of(failure.class)),
        // An attr that failed by no drv's fault: its .drv could not be read, say.
        Fact::AttrEnded { status: Status::Failed, root: None, .. } => Some(Fault::Unreachable),
        Fact::PushEnded { cache, pushed: Pushed::Failed(_), .. } if !optional.contains(cache) => Some(Fault::Push),
        Fact::PushVerified { cache, missing, .. } if !missing.is_empty() && !optional.contains(cache) => {
            Some(Fault::Push)
        }
        // Nothing of the flake fails to evaluate, and yet it is not as it has to be.
        Fact::FlakeFinding { fails: true, .. } => Some(Fault::Build),
        Fact::Cancelled { .. } => Some(Fault::Interrupted),
        _ => None,
    }
}
