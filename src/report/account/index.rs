//! What was going on at a moment, in logarithmic time.

use std::collections::BTreeMap;

use crate::event::Moment;
use crate::id::{AttrId, BuilderId};
use crate::report::summary::Summary;

use super::{Node, Step, available, ended};

/// Sorted moments, so that each step asks in logarithmic time.
pub(super) struct Index {
    /// By builder: starts and ends of attempts.
    busy: BTreeMap<BuilderId, (Vec<Moment>, Vec<Moment>)>,
    /// When drvs were ready, and when they were taken up.
    queue: (Vec<Moment>, Vec<Moment>),
    /// All evaluations by end.
    evals: Vec<(Moment, AttrId)>,
    /// By evaluator: evaluations by end.
    workers: BTreeMap<u32, Vec<(Moment, AttrId)>>,
}

impl Index {
    pub(super) fn new(s: &Summary) -> Self {
        let mut busy: BTreeMap<BuilderId, (Vec<Moment>, Vec<Moment>)> = BTreeMap::new();
        for attempt in s.attempts.values() {
            let Some(since) = attempt.slot_since() else { continue };
            let (starts, ends) = busy.entry(attempt.builder).or_default();
            starts.push(since);
            ends.extend(ended(attempt));
        }
        for (starts, ends) in busy.values_mut() {
            starts.sort_unstable();
            ends.sort_unstable();
        }
        let mut queue = (Vec::new(), Vec::new());
        for drv in s.drvs.values().filter(|drv| !drv.fetch) {
            let inputs = drv.inputs.iter().filter_map(|input| s.drvs.get(input)).map(available);
            let Some(inputs) = inputs.collect::<Option<Vec<_>>>() else { continue };
            queue.0.push(inputs.into_iter().fold(drv.needed, Moment::max));
            let first = drv.attempts.first().and_then(|id| s.attempts.get(id));
            queue.1.extend(first.and_then(|first| first.slot_since().or(ended(first))));
        }
        queue.0.sort_unstable();
        queue.1.sort_unstable();
        let mut evals = Vec::new();
        let mut workers: BTreeMap<u32, Vec<(Moment, AttrId)>> = BTreeMap::new();
        for (id, attr) in &s.attrs {
            let Some((at, _)) = &attr.evaluated else { continue };
            evals.push((*at, *id));
            if let Some((_, worker)) = attr.eval_started {
                workers.entry(worker).or_default().push((*at, *id));
            }
        }
        evals.sort_unstable();
        workers.values_mut().for_each(|evals| evals.sort_unstable());
        Self { busy, queue, evals, workers }
    }

    /// Attempts that a builder was at.
    pub(super) fn running(&self, builder: BuilderId, at: Moment) -> u32 {
        self.busy.get(&builder).map_or(0, |(starts, ends)| difference(starts, ends, at))
    }

    /// Drvs that were ready and not taken up.
    pub(super) fn queued(&self, at: Moment) -> u32 {
        difference(&self.queue.0, &self.queue.1, at)
    }

    /// The last evaluation that had ended by then.
    pub(super) fn eval_before(&self, at: Moment) -> Step {
        let upto = self.evals.partition_point(|(ended, _)| *ended <= at);
        self.evals[..upto].last().map(|(at, attr)| (*at, Node::Eval(*attr)))
    }

    /// What an evaluator did before this attr, whose evaluation ended at `at`.
    pub(super) fn eval_before_on(&self, worker: u32, at: Moment, attr: AttrId) -> Step {
        let evals = self.workers.get(&worker)?;
        let own = evals.partition_point(|other| *other < (at, attr));
        evals[..own].last().map(|(at, attr)| (*at, Node::Eval(*attr)))
    }
}

/// How many have begun and not ended.
fn difference(starts: &[Moment], ends: &[Moment], at: Moment) -> u32 {
    let upto = |moments: &[Moment]| moments.partition_point(|moment| *moment <= at);
    u32::try_from(upto(starts).saturating_sub(upto(ends))).unwrap_or(u32::MAX)
}
