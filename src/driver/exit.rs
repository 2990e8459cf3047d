//! Which exit code a run ends with: its faults, folded from what the driver knows at the end.

use crate::error::{Fault, fault_of};
use crate::event::{DrvOutcome, Evaluated, Event, Fact, Pushed, Status};
use crate::id::CacheId;

/// The faults of a run, from its events. `optional` caches may fail to be pushed to.
pub(super) fn faults(events: &[Event], optional: &[CacheId]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = events.iter().filter_map(|event| fault(&event.fact, optional)).collect();
    faults.dedup();
    faults
}

fn fault(fact: &Fact, optional: &[CacheId]) -> Option<Fault> {
    match fact {
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
