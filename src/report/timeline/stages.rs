//! The stages of a run, and how long they went on beside each other.

use crate::event::{Moment, Stage};
use crate::report::summary::Summary;

/// A stage from its first start to its last end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageSpan {
    /// Which.
    pub stage: Stage,
    /// When it began.
    pub from: Moment,
    /// When it ended; the end of the run where that came before.
    pub to: Moment,
}

/// How long two stages went on at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// The stage that comes first.
    pub first: Stage,
    /// The other one.
    pub second: Stage,
    /// Seconds.
    pub seconds: f64,
}

/// What a stage is called.
#[must_use]
pub fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Eval => "eval",
        Stage::Diff => "diff",
        Stage::Build => "build",
        Stage::Push => "push",
        Stage::Record => "record",
    }
}

/// The stages that there were, in order.
#[must_use]
pub fn stages(s: &Summary) -> Vec<StageSpan> {
    let span = |span: &super::super::summary::Span| (span.start, span.end.unwrap_or(s.end).max(span.start));
    s.stages.iter().map(|(stage, known)| (*stage, span(known))).map(of).collect()
}

fn of((stage, (from, to)): (Stage, (Moment, Moment))) -> StageSpan {
    StageSpan { stage, from, to }
}

/// The pairs of stages that overlap.
#[must_use]
pub fn overlaps(s: &Summary) -> Vec<Overlap> {
    let stages = stages(s);
    let pairs =
        stages.iter().enumerate().flat_map(|(i, first)| stages[i + 1..].iter().map(move |second| (first, second)));
    let overlap = |(first, second): (&StageSpan, &StageSpan)| {
        let seconds = first.to.min(second.to).since(first.from.max(second.from));
        (seconds > 0.0).then_some(Overlap { first: first.stage, second: second.stage, seconds })
    };
    pairs.filter_map(overlap).collect()
}

impl StageSpan {
    /// How long it took.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.to.since(self.from)
    }
}
