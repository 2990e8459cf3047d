//! The one fold over events: all that a record says, by attr, drv, attempt and push, with running counts. Owns the
//! data; `fold` owns how an event changes it. Does not own any wording.
//!
//! It takes every stream, also a cut or a nonsensical one: facts about things that were never introduced are left out.

mod attempts;
mod attrs;
mod base;
mod builders;
mod caches;
mod check;
mod counts;
mod drvs;
mod fold;
mod groups;
mod header;

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{
    Class, DrvOutcome, Evaluated, Event, Failure, FetchedPath, LockedInput, Moment, STOPPED, SkippedPath, Stage,
    Status, Text,
};
use crate::id::{AttemptId, AttrId, AttrPath, BuilderId, CacheId, DrvId};

pub use attempts::{Attempt, Bringing, Prepared, Return};
pub use attrs::{Attr, AttrEnd, Import, Memory, Planned};
pub use base::{Base, BaseProgress, Compared};
pub use builders::{Answered, Builder, Kept, LOCAL, Load, Outage, State};
pub use caches::{Asked, Cache, Push, Repeated, Spared, Verified};
pub use check::{Finding, OfNix, Quarantined};
pub use counts::Counts;
pub use drvs::{Drv, Fetch};
pub use groups::{Cause, FailureGroup};
pub use header::{Flake, Header, Placed};

/// All that is known of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// How it began; `None` only if the stream does not begin with `run_started`.
    pub header: Option<Header>,
    /// Where it is, if the forge or git says.
    pub placed: Option<Placed>,
    /// The flake, once locked.
    pub flake: Option<Flake>,
    /// What its own inputs are locked to, in the order of their names.
    pub inputs: Vec<LockedInput>,
    /// Builders that answered, or should have.
    pub builders: BTreeMap<BuilderId, Builder>,
    /// Caches that answered.
    pub caches: BTreeMap<CacheId, Cache>,
    /// When each stage began and ended.
    pub stages: BTreeMap<Stage, Span>,
    /// What attrs are compared with, if it is known.
    pub base: Option<Base>,
    /// How far its evaluation is, or was.
    pub base_progress: Option<BaseProgress>,
    /// Why there is no base where there should be one.
    pub base_missing: Option<Warning>,
    /// Attrs that only the base has, with their drvs there.
    pub removed: Vec<(AttrPath, Option<Text>)>,
    /// Changed paths for which nothing was evaluated.
    pub skipped: Vec<SkippedPath>,
    /// Attrs left out by default.
    pub left_out: Vec<LeftOut>,
    /// What had to be imported from derivations before attrs could be listed.
    pub listing_imports: Vec<Import>,
    /// The attrs.
    pub attrs: BTreeMap<AttrId, Attr>,
    /// The drvs that had to be built or fetched.
    pub drvs: BTreeMap<DrvId, Drv>,
    /// What fetches bring, each path once; known when the comparison is over.
    pub fetches: Vec<FetchedPath>,
    /// The attempts.
    pub attempts: BTreeMap<AttemptId, Attempt>,
    /// Paths that were asked for by `drover push`.
    pub asked: Vec<Text>,
    /// Pushes by cache and absolute store path.
    pub pushes: BTreeMap<(CacheId, Text), Push>,
    /// What builders keep of that which could not be pushed.
    pub kept: Vec<Kept>,
    /// What was read back from each push cache.
    pub verified: BTreeMap<CacheId, Verified>,
    /// What is not whole in each push cache because the configuration leaves out it, or something that it refers to.
    pub not_whole: BTreeMap<CacheId, BTreeSet<Text>>,
    /// Totals of the comparison.
    pub diff: Option<Diff>,
    /// What caches spare the run; known when the comparison is over.
    pub spared: Option<Spared>,
    /// The share by which nine of ten estimates of earlier runs were wrong at most.
    pub estimates_off: Option<f64>,
    /// Bytes of the outputs of drvs that were built, where they are known.
    pub sizes: BTreeMap<DrvId, u64>,
    /// Evaluator processes seen.
    pub workers: u32,
    /// Warnings of the run.
    pub warnings: Vec<Warning>,
    /// The plan that was written to a file.
    pub written: Option<Written>,
    /// Different warnings of Nix while evaluating, in order, with how often each came.
    pub eval_warnings: Vec<(Text, u32)>,
    /// What a check found that is about no attr.
    pub findings: Vec<Finding>,
    /// What `nix flake check` said of the same flake, where it was asked.
    pub of_nix: Option<OfNix>,
    /// What ended the run early.
    pub error: Option<Warning>,
    /// The highest level of Ctrl-C, and when the first came.
    pub cancelled: Option<(u8, Moment)>,
    /// The exit code; `None` while it runs, or if it was killed.
    pub exit: Option<u8>,
    /// The latest moment seen.
    pub end: Moment,
    /// Running counts.
    pub counts: Counts,
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first start.
    pub start: Moment,
    /// The last end; `None` while it goes on.
    pub end: Option<Moment>,
}

/// Attrs that are left out by default.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::AttrsLeftOut")]
pub struct LeftOut {
    pub count: u32,
    pub what: Text,
    pub flag: Text,
}

/// Totals of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of Fact::DiffProgress")]
pub struct Diff {
    pub at: Moment,
    pub paths: u32,
    pub valid: u32,
    pub present: u32,
    pub absent: u32,
    pub untrusted: u32,
    pub no_answer: u32,
}

/// A warning of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// When.
    pub at: Moment,
    /// One or two lines.
    pub message: Text,
    /// What to type.
    pub hint: Option<Text>,
}

/// A plan in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::PlanWritten")]
pub struct Written {
    pub file: Text,
    pub bytes: u64,
    pub drvs: u32,
    pub sources: u32,
}

impl Summary {
    /// The fold of a whole stream.
    #[must_use]
    pub fn of(events: &[Event]) -> Self {
        let mut summary = Self::default();
        for event in events {
            summary.add(event);
        }
        summary
    }

    /// Adds one event.
    pub fn add(&mut self, event: &Event) {
        fold::add(self, event);
    }

    /// What is known of an attr by now; `None` while nothing is.
    #[must_use]
    pub fn status(&self, attr: &Attr) -> Option<Status> {
        if let Some(end) = &attr.ended {
            return Some(end.status);
        }
        match &attr.evaluated {
            Some((_, Evaluated::Failed(_))) => return Some(Status::EvalFailed),
            Some((_, Evaluated::Nothing { .. })) => return Some(Status::Valid),
            Some((_, Evaluated::Finding(_))) => return Some(Status::Checked),
            _ => {}
        }
        let planned = attr.planned.as_ref()?;
        let failed = planned.drv.and_then(|drv| self.root_of(drv)).is_some();
        Some(if failed { Status::Failed } else { planned.status })
    }

    /// Whether an attr turned out, once it was evaluated, to be one of those that are left out by default.
    #[must_use]
    pub fn is_left_out(&self, attr: &Attr) -> bool {
        let end = attr.ended.as_ref().filter(|end| end.status == Status::Skipped);
        end.and_then(|end| end.reason.as_deref()).is_some_and(|reason| reason != STOPPED)
    }

    /// The attrs that count: all but those left out.
    #[must_use]
    pub fn taken(&self) -> Vec<AttrId> {
        self.attrs.iter().filter(|(_, attr)| !self.is_left_out(attr)).map(|(id, _)| *id).collect()
    }

    /// The drv whose own failure keeps this one from being built, if one does: possibly itself.
    #[must_use]
    pub fn root_of(&self, drv: DrvId) -> Option<DrvId> {
        match self.drvs.get(&drv)?.ended.as_ref()? {
            (_, DrvOutcome::Failed(_)) => Some(drv),
            (_, DrvOutcome::DependencyFailed { root }) => Some(*root),
            _ => None,
        }
    }

    /// What people call a builder; its number where it never said its name.
    #[must_use]
    pub fn builder_name(&self, builder: BuilderId) -> String {
        self.builders.get(&builder).map_or_else(|| format!("builder {}", builder.0), |b| b.name.to_string())
    }

    /// What people call a cache.
    #[must_use]
    pub fn cache_name(&self, cache: CacheId) -> String {
        self.caches.get(&cache).map_or_else(|| format!("cache {}", cache.0), |c| c.name.to_string())
    }

    /// What people call an attr.
    #[must_use]
    pub fn attr_name(&self, attr: AttrId) -> String {
        self.attrs.get(&attr).map_or_else(|| format!("attr {}", attr.0), |a| a.name.to_string())
    }

    /// What people call a drv.
    #[must_use]
    pub fn drv_name(&self, drv: DrvId) -> String {
        self.drvs.get(&drv).map_or_else(|| format!("drv {}", drv.0), |d| d.name.to_string())
    }

    /// Names of all that attrs imported from derivations, in the order in which they came up, each drv once.
    #[must_use]
    pub fn imports(&self) -> Vec<&Text> {
        let mut all: Vec<&Import> =
            self.attrs.values().flat_map(|attr| &attr.imports).chain(&self.listing_imports).collect();
        all.sort_by_key(|import| import.span.start);
        let mut seen = BTreeSet::new();
        all.retain(|import| seen.insert(&import.path));
        all.into_iter().map(|import| &import.name).collect()
    }

    /// Drvs that are still to be built: in a plan, all but those that attrs imported from.
    #[must_use]
    pub fn to_build(&self) -> usize {
        let counts = self.counts;
        counts.builds.saturating_sub(counts.built + counts.failed + counts.given_up)
    }

    /// All slots of all builders that can be used or may be later.
    #[must_use]
    pub fn slots(&self) -> u32 {
        let usable = self.builders.values().filter(|builder| builder.state() != State::Gone);
        usable.fold(0, |sum, builder| sum.saturating_add(builder.slots))
    }

    /// Whether something was (to be) pushed.
    #[must_use]
    pub fn has_push(&self) -> bool {
        !self.pushes.is_empty() || self.caches.values().any(|cache| cache.push)
    }

    /// Seconds from start to end.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.end.seconds()
    }
}

/// Whether a failure only says that somebody stopped the run.
pub(crate) fn is_cancel(failure: &Failure) -> bool {
    failure.class == Class::Cancelled
}
