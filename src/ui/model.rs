//! What is going on right now, and what has just happened: a fold over events on top of the summary of `report`.
//! Pure; rendered by [`super::live`] and [`super::plain`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::event::{DrvOutcome, Evaluated, Event, Fact, Moment, Pushed, Stage, Status, Text};
use crate::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId};
use crate::report::builders;
use crate::report::check;
use crate::report::estimate::{self, Estimate};
use crate::report::number::duration;
use crate::report::summary::Summary;

/// µs over which the speed of pushing is measured.
const SPEED: u64 = 10_000_000;

/// µs between two estimates of the time left; each goes through all drvs that are left.
const ESTIMATE: u64 = 2_000_000;

/// µs after which it is known what had finished on a builder that is back.
const SETTLED: u64 = 2_000_000;

/// Different evaluation warnings that are shown; the rest is counted at the end.
const EVAL_WARNINGS: usize = 10;

/// The state of a run that goes on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    /// All that is known of it.
    pub summary: Summary,
    /// The latest moment seen, by an event or a tick.
    pub now: Moment,
    /// Attempts that go on, by builder.
    pub running: BTreeMap<BuilderId, BTreeSet<AttemptId>>,
    /// Fetches that go on.
    pub fetching: BTreeSet<DrvId>,
    /// Drvs whose results are on their way into the local store.
    pub returning: BTreeSet<DrvId>,
    /// Evaluations that go on.
    pub evaluating: BTreeSet<AttrId>,
    /// How long is left, as far as that is known.
    pub left: Option<Estimate>,
    estimated: Option<Moment>,
    uploads: VecDeque<(Moment, u64)>,
    notices: Vec<(Moment, Notice)>,
    /// Builders that are back: how much had finished there is known a little later.
    held: Vec<(Moment, Notice)>,
}

/// Something that has happened and gets a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The run began.
    Started,
    /// The flake is locked.
    Locked,
    /// There is a base, or none where there should be one.
    Base,
    /// Nothing is evaluated, since `[skip]` names all that has changed.
    Skipped,
    /// So many attrs are evaluated again, with the revision masked.
    Masked(u32),
    /// Caches answered.
    Caches(Vec<CacheId>),
    /// Builders can be used.
    Builders(Vec<BuilderId>),
    /// A builder was lost or cannot be reached: which of its outages.
    Away(BuilderId, usize),
    /// It is there again.
    Back(BuilderId, usize),
    /// It is not tried any more.
    GivenUp(BuilderId, usize),
    /// It takes nothing new, or takes something again: which of its pauses.
    Paused(BuilderId, usize),
    /// A drv failed by itself and was built by a later attempt.
    Flaky(DrvId),
    /// Attrs were left out; the indexes in the summary.
    LeftOut(Vec<usize>),
    /// Everything is evaluated.
    Evaluated,
    /// Everything is compared.
    Compared,
    /// An attr was built.
    Built(AttrId),
    /// A check has its verdict on an attr.
    Checked(AttrId),
    /// Attrs failed for one reason.
    Failed(Reason, Vec<AttrId>),
    /// A drv ended (`-v`).
    Drv(DrvId),
    /// What was pushed to a cache was read back.
    Pushed(CacheId),
    /// A warning; the index in the summary.
    Warning(usize),
    /// A new warning of Nix; the index in the summary.
    EvalWarning(usize),
    /// The flake said something while it was evaluated.
    Trace(AttrId, Text),
    /// Ctrl-C: its level, with what was going on at that moment.
    Stopping {
        /// 1: clean stop, 2: now.
        level: u8,
        /// Attempts that were running.
        running: usize,
        /// Drvs that were there.
        built: usize,
        /// Paths still to be pushed.
        to_push: usize,
    },
}

/// Why attrs failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A drv's own attempt failed.
    Drv(DrvId),
    /// They do not evaluate: the message.
    Eval(Text),
    /// Anything else.
    Other(Text),
}

impl Notice {
    /// What a notice about a builder says, and whether it is bad news.
    #[must_use]
    pub fn builder_texts(&self, s: &Summary) -> (bool, Vec<String>) {
        let outage = |id: &BuilderId, index: &usize| Some((*id, s.builders.get(id)?.outages.get(*index)?));
        let texts = match self {
            Self::Away(id, index) => outage(id, index).map(|(id, outage)| builders::away(s, id, outage)),
            Self::Back(id, index) => outage(id, index).map(|(id, outage)| vec![builders::back(s, id, outage)]),
            Self::GivenUp(id, index) => outage(id, index).map(|(id, outage)| vec![builders::given_up(s, id, outage)]),
            Self::Paused(id, index) => s.builders.get(id).and_then(|builder| builder.pauses.get(*index)).map(|pause| {
                let name = s.builder_name(*id);
                vec![match pause.0.end {
                    None => format!("builder {name} takes nothing new: {}", pause.1),
                    Some(end) => {
                        format!("builder {name} takes drvs again after {}", duration(end.since(pause.0.start)))
                    }
                }]
            }),
            _ => None,
        };
        let over = match self {
            Self::Paused(id, index) => {
                s.builders.get(id).and_then(|b| b.pauses.get(*index)).is_some_and(|(span, _)| span.end.is_some())
            }
            other => matches!(other, Self::Back(..)),
        };
        (!over, texts.unwrap_or_default())
    }
}

impl Model {
    /// Takes in a fact; `verbose` asks for a line a drv.
    pub fn on_event(&mut self, event: &Event, verbose: bool) {
        self.now = self.now.max(event.at);
        let new_warning = self.is_new_warning(&event.fact);
        self.track(event);
        self.summary.add(event);
        if let Some(notice) = self.notice_of(&event.fact, verbose, new_warning) {
            self.push_notice(event.at, notice);
        }
    }

    /// What has happened since the last time, in order.
    pub fn take_notices(&mut self) -> Vec<(Moment, Notice)> {
        let held = std::mem::take(&mut self.held);
        for (at, notice) in held {
            if self.now.0.saturating_sub(at.0) >= SETTLED || self.summary.exit.is_some() {
                self.notices.push((self.now, notice));
            } else {
                self.held.push((at, notice));
            }
        }
        std::mem::take(&mut self.notices)
    }

    /// Works out anew how long is left, if the last time is long enough ago.
    pub fn estimate(&mut self, now: Moment) {
        if self.estimated.is_none_or(|last| now.0.saturating_sub(last.0) >= ESTIMATE) {
            self.left = estimate::remaining(&self.summary, now);
            self.estimated = Some(now);
        }
    }

    /// Bytes a second that go to caches, over the last seconds; `None` if nothing went.
    #[must_use]
    pub fn push_speed(&self, now: Moment) -> Option<f64> {
        let since = Moment(now.0.saturating_sub(SPEED));
        let recent = self.uploads.iter().filter(|(at, _)| *at >= since);
        let bytes = recent.fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let span = now.since(since).min(now.seconds()).max(1.0);
        (bytes > 0).then(|| bytes as f64 / span)
    }

    /// Paths still to be pushed.
    #[must_use]
    pub fn to_push(&self) -> usize {
        let counts = self.summary.counts;
        counts.push_queued.saturating_sub(counts.pushed + counts.push_failed)
    }

    /// Whether evaluation is over.
    #[must_use]
    pub fn is_evaluated(&self) -> bool {
        self.summary.stages.get(&Stage::Eval).is_some_and(|span| span.end.is_some())
    }

    /// Keeps what is going on, before the summary knows.
    fn track(&mut self, event: &Event) {
        match &event.fact {
            Fact::AttemptStarted { attempt, builder, drv }
                if self.summary.drvs.contains_key(drv) && !self.summary.attempts.contains_key(attempt) =>
            {
                self.running.entry(*builder).or_default().insert(*attempt);
            }
            Fact::AttemptEnded { attempt, .. } => {
                if let Some(known) = self.summary.attempts.get(attempt)
                    && let Some(running) = self.running.get_mut(&known.builder)
                {
                    running.remove(attempt);
                }
            }
            Fact::FetchStarted { drv } => drop(self.fetching.insert(*drv)),
            Fact::FetchEnded { drv, .. } => drop(self.fetching.remove(drv)),
            Fact::ResultsReturning { drv, .. } if self.summary.drvs.contains_key(drv) => {
                self.returning.insert(*drv);
            }
            Fact::ResultsReturned { drv, .. } => drop(self.returning.remove(drv)),
            Fact::EvalStarted { attr, .. } => drop(self.evaluating.insert(*attr)),
            Fact::EvalEnded { attr, .. } => drop(self.evaluating.remove(attr)),
            Fact::PushEnded { pushed: Pushed::Uploaded { file_size }, .. } => {
                self.uploads.push_back((event.at, *file_size));
                let oldest = event.at.0.saturating_sub(SPEED);
                while self.uploads.front().is_some_and(|(at, _)| at.0 < oldest) {
                    self.uploads.pop_front();
                }
            }
            _ => {}
        }
    }

    fn is_new_warning(&self, fact: &Fact) -> bool {
        let known = &self.summary.eval_warnings;
        matches!(fact, Fact::EvalWarning { message, .. } if !known.iter().any(|(text, _)| text == message))
    }

    fn notice_of(&self, fact: &Fact, verbose: bool, new_warning: bool) -> Option<Notice> {
        let s = &self.summary;
        if check::is_check(s) && check_says(fact) {
            return self.verdict_notice(fact);
        }
        Some(match fact {
            Fact::RunStarted { .. } => Notice::Started,
            Fact::FlakeLocked { .. } => Notice::Locked,
            Fact::ChangesSkipped { .. } => Notice::Skipped,
            Fact::BaseKnown { .. } | Fact::BaseMissing { .. } => Notice::Base,
            Fact::RevisionMasked { attrs } => Notice::Masked(*attrs),
            Fact::CacheReady { cache, .. } => Notice::Caches(vec![*cache]),
            Fact::BuilderReady { .. } | Fact::BuilderSuspended { .. } | Fact::BuilderPaused { .. } => {
                return self.builder_notice(fact);
            }
            Fact::AttrsLeftOut { .. } => Notice::LeftOut(vec![s.left_out.len() - 1]),
            Fact::StageEnded { stage: Stage::Eval } => Notice::Evaluated,
            Fact::StageEnded { stage: Stage::Diff } => Notice::Compared,
            Fact::EvalEnded { attr, evaluated: Evaluated::Failed(failure), .. } => {
                Notice::Failed(Reason::Eval(failure.message.clone()), vec![*attr])
            }
            Fact::AttrEnded { attr, status: Status::Built, .. } => Notice::Built(*attr),
            Fact::AttrEnded { attr, status: Status::Failed, reason, root } => match (root, reason) {
                // What no builder takes is one failure, whichever drv it is.
                (Some(root), _) => match s.no_builder_for(*root) {
                    Some(what) => Notice::Failed(Reason::Other(what.into()), vec![*attr]),
                    None => Notice::Failed(Reason::Drv(*root), vec![*attr]),
                },
                // What was stopped is told by the line about stopping.
                (None, _) if s.cancelled.is_some() => return None,
                (None, reason) => Notice::Failed(Reason::Other(reason.clone().unwrap_or_default()), vec![*attr]),
            },
            Fact::DrvEnded { drv, .. } if s.is_flaky(*drv) => Notice::Flaky(*drv),
            Fact::DrvEnded { drv, outcome: DrvOutcome::Built | DrvOutcome::Valid } if verbose => Notice::Drv(*drv),
            Fact::PushVerified { cache, .. } => Notice::Pushed(*cache),
            Fact::Warning { .. } => Notice::Warning(s.warnings.len() - 1),
            Fact::EvalWarning { .. } if new_warning && s.eval_warnings.len() <= EVAL_WARNINGS => {
                Notice::EvalWarning(s.eval_warnings.len() - 1)
            }
            Fact::EvalTrace { attr, message } if verbose => Notice::Trace(*attr, message.clone()),
            Fact::Cancelled { level } => Notice::Stopping {
                level: *level,
                running: s.counts.running,
                built: s.counts.built,
                to_push: self.to_push(),
            },
            _ => return None,
        })
    }

    /// The verdict on an attr, which says all that there is to say about it. What is as on the base is only counted.
    fn verdict_notice(&self, fact: &Fact) -> Option<Notice> {
        match fact {
            Fact::AttrEnded { status: Status::Skipped | Status::Unaffected, .. } => None,
            Fact::AttrEnded { attr, .. } => Some(Notice::Checked(*attr)),
            _ => None,
        }
    }

    /// What is new about a builder: the first failure of an outage, its end, and that it is given up.
    fn builder_notice(&self, fact: &Fact) -> Option<Notice> {
        let builder = |id: &BuilderId| self.summary.builders.get(id);
        match fact {
            Fact::BuilderReady { builder: id, .. } => {
                let known = builder(id)?;
                match (known.outages.len().checked_sub(1), known.up.len()) {
                    (None, _) => (known.up.len() == 1).then(|| Notice::Builders(vec![*id])),
                    (Some(_), 0) => None,
                    // Told again, and nothing has happened in between.
                    (Some(last), _) => {
                        let over = known.outages.get(last)?.span.end;
                        (over == Some(known.up.last()?.start)).then_some(Notice::Back(*id, last))
                    }
                }
            }
            Fact::BuilderSuspended { builder: id, .. } => {
                let last = builder(id)?.outages.len().checked_sub(1)?;
                let outage = builder(id)?.outages.get(last)?;
                match outage.tries.saturating_sub(u32::from(!outage.lost)) {
                    0 => Some(Notice::Away(*id, last)),
                    _ if outage.again.is_none() => Some(Notice::GivenUp(*id, last)),
                    _ => None,
                }
            }
            Fact::BuilderPaused { builder: id, .. } => {
                let last = builder(id)?.pauses.len().checked_sub(1)?;
                Some(Notice::Paused(*id, last))
            }
            _ => None,
        }
    }

    /// Puts what belongs together into one line: caches, builders, what was left out, attrs that die of the same.
    fn push_notice(&mut self, at: Moment, notice: Notice) {
        if let Notice::Back(id, index) = &notice
            && self
                .summary
                .builders
                .get(id)
                .and_then(|b| b.outages.get(*index))
                .is_some_and(|outage| outage.running > 0)
        {
            self.held.push((at, notice));
            return;
        }
        for (_, known) in &mut self.notices {
            match (known, &notice) {
                (Notice::Caches(known), Notice::Caches(new)) => return known.extend(new),
                (Notice::Builders(known), Notice::Builders(new)) => return known.extend(new),
                (Notice::LeftOut(known), Notice::LeftOut(new)) => return known.extend(new),
                (Notice::Failed(reason, known), Notice::Failed(other, new)) if reason == other => {
                    return known.extend(new);
                }
                _ => {}
            }
        }
        self.notices.push((at, notice));
    }
}

/// Whether the verdict on an attr tells this fact, in a check.
fn check_says(fact: &Fact) -> bool {
    matches!(fact, Fact::AttrEnded { .. } | Fact::EvalEnded { .. } | Fact::EvalWarning { attr: Some(_), .. })
}
