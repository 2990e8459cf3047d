//! Attempts: one try of one drv on one builder, and what becomes of its results. Owns what an attempt is doing at a
//! moment.

use crate::event::{AttemptEnd, Class, DrvOutcome, Fact, Failure, Moment, Text};
use crate::id::{AttemptId, BuilderId, DrvId};

use super::builders::LOCAL;
use super::{Span, Summary};

/// One try of one drv on one builder.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Of which drv.
    pub drv: DrvId,
    /// Where.
    pub builder: BuilderId,
    /// When the builder was asked.
    pub started: Moment,
    /// What is brought to the builder for it.
    pub bringing: Option<Bringing>,
    /// When all that it needs was there, and how it came.
    pub prepared: Option<Prepared>,
    /// Since when it waits for somebody else's build, and what for.
    pub waiting: Option<(Moment, Text)>,
    /// When the builder's process began.
    pub building: Option<Moment>,
    /// The phases that it went through, with the moments at which they began.
    pub phases: Vec<(Moment, Text)>,
    /// When and how it ended.
    pub ended: Option<(Moment, AttemptEnd)>,
    /// Lines of log.
    pub log_lines: u64,
    /// The last lines of a failed one.
    pub log_tail: Vec<Text>,
    /// Seconds of processors that it took, where its builder tells.
    pub cpu: Option<f64>,
}

/// What is brought to a builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::AttemptBringing")]
pub struct Bringing {
    pub since: Moment,
    pub paths: u32,
    pub nar_size: u64,
}

/// What was brought to a builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::AttemptPrepared")]
pub struct Prepared {
    pub at: Moment,
    pub copied: u32,
    pub copied_size: u64,
    pub fetched: u32,
}

/// How the outputs of a drv came into the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::ResultsReturned")]
pub struct Return {
    pub span: Span,
    pub builder: BuilderId,
    pub paths: u32,
    pub nar_size: u64,
    pub failure: Option<Failure>,
}

impl Attempt {
    /// Seconds of building, or of the whole attempt where the builder's process never began; up to `now` while it
    /// goes on.
    #[must_use]
    pub fn seconds(&self, now: Moment) -> f64 {
        let end = self.ended.as_ref().map_or(now, |(at, _)| *at);
        end.since(self.building.unwrap_or(self.started))
    }

    /// Since when it holds a slot of its builder. One that is being prepared holds none; records of attempts in the local
    /// store alone say nothing of preparing, and there a slot was held from the start.
    #[must_use]
    pub fn slot_since(&self) -> Option<Moment> {
        match self.building {
            Some(building) if self.is_brought() => Some(building),
            None if self.is_brought() => None,
            _ => Some(self.started),
        }
    }

    /// Whether it holds a slot: one that waits for somebody else's build does not.
    #[must_use]
    pub fn holds_slot(&self) -> bool {
        let waits = self.waiting.is_some() && self.building.is_none();
        self.ended.is_none() && !waits && self.slot_since().is_some()
    }

    /// Whether its inputs are being brought, or it waits for a slot of the builder that has them.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        self.ended.is_none() && self.slot_since().is_none() && self.waiting.is_none()
    }

    /// Whether its inputs are brought to it.
    fn is_brought(&self) -> bool {
        self.builder != LOCAL || self.bringing.is_some() || self.prepared.is_some()
    }

    /// Why it failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.ended {
            Some((_, AttemptEnd::Failed(failure))) => Some(failure),
            _ => None,
        }
    }

    /// Whether it ended with its builder.
    #[must_use]
    pub fn was_lost(&self) -> bool {
        self.failure().is_some_and(|failure| failure.class == Class::BuilderLost)
    }

    /// Whether its outputs turned out to be there.
    #[must_use]
    pub fn was_valid(&self) -> bool {
        matches!(self.ended, Some((_, AttemptEnd::AlreadyValid { .. })))
    }

    /// Whether its outputs are there.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.ended, Some((_, AttemptEnd::Built { .. } | AttemptEnd::AlreadyValid { .. })))
    }

    /// Whether its builder came to run something, so that there is a log of it.
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.building.is_some() || self.log_lines > 0
    }

    /// Whether what the drv's own program did made it fail, and not the builder or the way there.
    #[must_use]
    pub fn failed_by_itself(&self) -> bool {
        let class = self.failure().map(|failure| failure.class);
        matches!(
            class,
            Some(
                Class::Build | Class::NoOutput | Class::HashMismatch | Class::Timeout | Class::Silent | Class::LogLimit
            )
        )
    }
}

impl Summary {
    /// The attempts of a drv, in order.
    pub fn attempts_of(&self, drv: DrvId) -> impl Iterator<Item = &Attempt> {
        let ids = self.drvs.get(&drv).map(|drv| drv.attempts.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.attempts.get(id))
    }

    /// The last attempt of a drv.
    #[must_use]
    pub fn last_attempt(&self, drv: DrvId) -> Option<&Attempt> {
        self.attempts.get(self.drvs.get(&drv)?.attempts.last()?)
    }

    /// Drvs that failed by themselves and were built by a later attempt.
    #[must_use]
    pub fn flaky(&self) -> Vec<DrvId> {
        self.drvs.keys().copied().filter(|drv| self.is_flaky(*drv)).collect()
    }

    /// Whether a drv failed by itself and was built by a later attempt.
    #[must_use]
    pub fn is_flaky(&self, id: DrvId) -> bool {
        let Some(drv) = self.drvs.get(&id).filter(|drv| drv.attempts.len() > 1) else { return false };
        let built = matches!(drv.ended, Some((_, DrvOutcome::Built | DrvOutcome::Valid)));
        built && self.attempts_of(id).any(Attempt::failed_by_itself)
    }

    /// The attempts of a drv that have a log, each with the number under which `drover log --attempt` knows it.
    pub fn logs_of(&self, drv: DrvId) -> impl Iterator<Item = (usize, &Attempt)> {
        self.attempts_of(drv).filter(|attempt| attempt.has_log()).enumerate().map(|(i, attempt)| (i + 1, attempt))
    }

    /// Bytes that were copied to a builder.
    #[must_use]
    pub fn copied_to(&self, builder: BuilderId) -> u64 {
        let attempts = self.attempts.values().filter(|attempt| attempt.builder == builder);
        attempts.filter_map(|a| a.prepared).fold(0, |sum, prepared| sum.saturating_add(prepared.copied_size))
    }
}

/// Takes in a fact about an attempt or its results.
pub(super) fn add(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::AttemptStarted { attempt, drv, builder } => started(s, at, (*attempt, *drv, *builder)),
        Fact::AttemptBringing { attempt, paths, nar_size } => change(s, *attempt, |attempt| {
            let since = attempt.bringing.map_or(at, |known| known.since);
            attempt.bringing = Some(Bringing { since, paths: *paths, nar_size: *nar_size });
        }),
        Fact::AttemptPrepared { attempt, copied, copied_size, fetched } => change(s, *attempt, |attempt| {
            let (copied, copied_size, fetched) = (*copied, *copied_size, *fetched);
            attempt.prepared.get_or_insert(Prepared { at, copied, copied_size, fetched });
        }),
        Fact::AttemptWaiting { attempt, reason } => change(s, *attempt, |attempt| {
            attempt.waiting.get_or_insert((at, reason.clone()));
        }),
        Fact::AttemptBuilding { attempt } => change(s, *attempt, |attempt| {
            attempt.building.get_or_insert(at);
        }),
        Fact::AttemptPhase { attempt, phase } => {
            change(s, *attempt, |attempt| attempt.phases.push((at, phase.clone())));
        }
        Fact::AttemptMeasured { attempt, cpu } => change(s, *attempt, |attempt| attempt.cpu = Some(*cpu)),
        Fact::AttemptEnded { attempt, end, log_lines, log_tail } => {
            ended(s, *attempt, end);
            change(s, *attempt, |attempt| {
                attempt.ended = Some((at, end.clone()));
                attempt.log_lines = *log_lines;
                attempt.log_tail.clone_from(log_tail);
            });
        }
        Fact::ResultsReturning { drv, builder } => {
            let Some(drv) = s.drvs.get_mut(drv) else { return };
            let span = Span { start: at, end: None };
            drv.returns.push(Return { span, builder: *builder, paths: 0, nar_size: 0, failure: None });
            s.counts.returning += 1;
        }
        Fact::ResultsReturned { drv, paths, nar_size, failure } => {
            let back = s.drvs.get_mut(drv).and_then(|drv| drv.returns.last_mut());
            let Some(back) = back.filter(|back| back.span.end.is_none()) else { return };
            back.span.end = Some(at);
            (back.paths, back.nar_size) = (*paths, *nar_size);
            back.failure.clone_from(failure);
            s.counts.returning = s.counts.returning.saturating_sub(1);
        }
        _ => {}
    }
}

fn started(s: &mut Summary, at: Moment, (id, drv_id, builder): (AttemptId, DrvId, BuilderId)) {
    let Some(drv) = s.drvs.get_mut(&drv_id) else { return };
    if s.attempts.contains_key(&id) {
        return;
    }
    drv.attempts.push(id);
    let attempt = Attempt {
        drv: drv_id,
        builder,
        started: at,
        bringing: None,
        prepared: None,
        waiting: None,
        building: None,
        phases: Vec::new(),
        ended: None,
        log_lines: 0,
        log_tail: Vec::new(),
        cpu: None,
    };
    s.counts.running += usize::from(!attempt.is_preparing());
    s.attempts.insert(id, attempt);
}

/// Changes an attempt that has not ended, and keeps the count of those that run.
fn change(s: &mut Summary, id: AttemptId, change: impl FnOnce(&mut Attempt)) {
    let Some(attempt) = s.attempts.get_mut(&id).filter(|attempt| attempt.ended.is_none()) else { return };
    let runs = |attempt: &Attempt| usize::from(attempt.ended.is_none() && !attempt.is_preparing());
    let before = runs(attempt);
    change(attempt);
    s.counts.running = (s.counts.running + runs(attempt)).saturating_sub(before);
}

/// A drv's outputs are those of the attempt that made them.
fn ended(s: &mut Summary, id: AttemptId, end: &AttemptEnd) {
    let Some(attempt) = s.attempts.get(&id).filter(|attempt| attempt.ended.is_none()) else { return };
    let (AttemptEnd::Built { outputs } | AttemptEnd::AlreadyValid { outputs }) = end else { return };
    if let Some(drv) = s.drvs.get_mut(&attempt.drv).filter(|_| !outputs.is_empty()) {
        drv.outputs.clone_from(outputs);
    }
}
