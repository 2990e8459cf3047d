//! Builders as a run saw them: what they offer, when they could be used, and how they were lost.

use std::collections::BTreeSet;

use crate::event::{Fact, Failure, Moment, Text};
use crate::id::{BuilderId, DrvId, System};

use super::{Attempt, Drv, Span, Summary};

/// The local store, where it builds.
pub const LOCAL: BuilderId = BuilderId(0);

/// A builder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Builder {
    /// `local`, `big1`.
    pub name: Text,
    /// How many drvs it builds at once; 0 while it has never been ready.
    pub slots: u32,
    /// What it can build for; nothing while it has never been ready.
    pub systems: Vec<System>,
    /// What it can do besides.
    pub features: Vec<Text>,
    /// How fast it is, where that is not 1.
    pub speed: Option<f64>,
    /// Where it is named; `None` for the local store.
    pub named_in: Option<Text>,
    /// When it could be used; the last is open while it can.
    pub up: Vec<Span>,
    /// When it could not, though it was asked to.
    pub outages: Vec<Outage>,
    /// When it took nothing new, and why.
    pub pauses: Vec<(Span, Text)>,
    /// How it is doing.
    pub load: Option<Load>,
    /// What it was asked for and holds.
    pub answered: Option<Answered>,
}

/// A time in which a builder could not be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage {
    /// From the first failure until it was ready again.
    pub span: Span,
    /// It had been ready before: it was lost. Else it was never reached.
    pub lost: bool,
    /// How often it was tried in vain, as far as the outage has come.
    pub tries: u32,
    /// The latest failure.
    pub failure: Failure,
    /// Attempts that ended with it.
    pub running: u32,
    /// When it is tried again; `None`: not in this run.
    pub again: Option<Moment>,
    /// What to type.
    pub hint: Option<Text>,
}

/// How a builder is doing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(missing_docs, reason = "the fields of Fact::BuilderLoad")]
pub struct Load {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub disk_free: Option<u64>,
}

/// What a builder was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of Fact::BuilderAsked")]
pub struct Answered {
    pub asked: u32,
    pub valid: u32,
}

/// Whether a builder can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It takes drvs.
    Ready,
    /// It takes nothing new for a while.
    Paused,
    /// It cannot be used and is tried again.
    Suspended,
    /// It cannot be used any more in this run.
    Gone,
}

/// Outputs that are kept on a builder, or cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::OutputsKept")]
pub struct Kept {
    pub builder: BuilderId,
    pub paths: Vec<Text>,
    pub until: Option<Text>,
    pub reason: Option<Text>,
}

impl Builder {
    /// Whether it can be used now.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.outage(), self.pause()) {
            (Some(outage), _) if outage.again.is_none() => State::Gone,
            (Some(_), _) => State::Suspended,
            (None, Some(_)) => State::Paused,
            (None, None) => State::Ready,
        }
    }

    /// The outage that goes on.
    #[must_use]
    pub fn outage(&self) -> Option<&Outage> {
        self.outages.last().filter(|outage| outage.span.end.is_none())
    }

    /// The pause that goes on: since when, and why.
    #[must_use]
    pub fn pause(&self) -> Option<(Moment, &Text)> {
        self.pauses.last().filter(|(span, _)| span.end.is_none()).map(|(span, why)| (span.start, why))
    }

    /// How fast it is in relation to others.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.speed.filter(|speed| speed.is_finite() && *speed > 0.0).unwrap_or(1.0)
    }

    /// Whether it can build a drv, by what it has said of itself. Of the local store older records know no features.
    #[must_use]
    pub fn takes(&self, drv: &Drv) -> bool {
        let system = drv.system.0 == "builtin" || self.systems.is_empty() || self.systems.contains(&drv.system);
        let silent = self.features.is_empty() && self.named_in.is_none();
        self.slots > 0 && system && (silent || drv.features.iter().all(|feature| self.features.contains(feature)))
    }
}

impl Outage {
    /// Seconds that it has lasted so far.
    #[must_use]
    pub fn seconds(&self, now: Moment) -> f64 {
        self.span.end.unwrap_or(now).since(self.span.start)
    }
}

impl Summary {
    /// Whether something is built elsewhere than in the local store.
    #[must_use]
    pub fn has_farm(&self) -> bool {
        self.builders.keys().any(|id| *id != LOCAL)
    }

    /// Drvs that were being built on a builder when it was lost, and that were found there after it was back.
    #[must_use]
    pub fn taken_over(&self, builder: BuilderId, outage: &Outage) -> usize {
        let Some(back) = outage.span.end else { return 0 };
        let attempts = || self.attempts.values().filter(|attempt| attempt.builder == builder);
        let found: BTreeSet<DrvId> = attempts().filter(|a| a.started >= back && a.was_valid()).map(|a| a.drv).collect();
        // Those that ended with it may have ended a moment before it was said to be lost.
        let up = self.builders.get(&builder).into_iter().flat_map(|builder| &builder.up);
        let from = up.map(|span| span.start).filter(|start| *start <= outage.span.start).max().unwrap_or_default();
        let lost = |a: &&Attempt| a.was_lost() && a.ended.as_ref().is_some_and(|(at, _)| from <= *at && *at <= back);
        let lost: BTreeSet<DrvId> = attempts().filter(lost).map(|a| a.drv).collect();
        lost.intersection(&found).count().min(outage.running as usize)
    }

    /// Drvs whose results only a builder has, and that something still to be built needs.
    #[must_use]
    pub fn only_on(&self, builder: BuilderId) -> usize {
        let open = self.drvs.values().filter(|drv| drv.ended.is_none());
        let wanted: BTreeSet<_> = open.flat_map(|drv| drv.inputs.iter().copied()).collect();
        let there = |drv: &Drv| {
            let attempts = drv.attempts.iter().filter_map(|id| self.attempts.get(id));
            let mut made = attempts.filter(|attempt| attempt.succeeded()).peekable();
            made.peek().is_some()
                && made.all(|attempt| attempt.builder == builder)
                && !drv.returns.iter().any(|back| back.span.end.is_some() && back.failure.is_none())
        };
        wanted.iter().filter(|id| self.drvs.get(id).is_some_and(there)).count()
    }

    /// Seconds that a drv is expected to take on a builder; history knows them for a speed of 1.
    #[must_use]
    pub fn expected_on(&self, drv: &Drv, builder: BuilderId) -> Option<f64> {
        let speed = self.builders.get(&builder).map_or(1.0, Builder::speed);
        drv.expected.map(|seconds| seconds / speed)
    }
}

/// Takes in a fact about a builder.
pub(super) fn add(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::BuilderReady { builder, name, slots, systems, features, speed, named_in } => {
            let known = s.builders.entry(*builder).or_default();
            known.name = name.clone();
            known.slots = *slots;
            known.systems.clone_from(systems);
            known.features.clone_from(features);
            known.speed = *speed;
            known.named_in.clone_from(named_in);
            if let Some(outage) = known.outages.last_mut() {
                outage.span.end.get_or_insert(at);
            }
            if known.up.last().is_none_or(|span| span.end.is_some()) {
                known.up.push(Span { start: at, end: None });
            }
        }
        Fact::BuilderSuspended { builder, name, failure, running, again, hint } => {
            let known = s.builders.entry(*builder).or_default();
            known.name = name.clone();
            close(known.up.last_mut(), at);
            // When it comes back nothing of that is known any more.
            close(known.pauses.last_mut().map(|(span, _)| span), at);
            let again = again.filter(|seconds| seconds.is_finite()).map(|seconds| later(at, seconds));
            suspended(known, at, (failure, *running, again, hint.as_ref()));
        }
        Fact::BuilderPaused { builder, reason } => {
            let Some(known) = s.builders.get_mut(builder) else { return };
            match (known.pauses.last_mut().filter(|(span, _)| span.end.is_none()), reason) {
                (Some((_, why)), Some(reason)) => *why = reason.clone(),
                (Some((span, _)), None) => span.end = Some(at),
                (None, Some(reason)) => known.pauses.push((Span { start: at, end: None }, reason.clone())),
                (None, None) => {}
            }
        }
        Fact::BuilderLoad { builder, cpu, memory, disk_free } => {
            if let Some(known) = s.builders.get_mut(builder) {
                known.load = Some(Load { cpu: *cpu, memory: *memory, disk_free: *disk_free });
            }
        }
        Fact::BuilderAsked { builder, asked, valid } => {
            if let Some(known) = s.builders.get_mut(builder) {
                known.answered = Some(Answered { asked: *asked, valid: *valid });
            }
        }
        _ => {}
    }
}

/// One more failure: of the outage that goes on, or the first of one.
fn suspended(
    known: &mut Builder,
    at: Moment,
    (failure, running, again, hint): (&Failure, u32, Option<Moment>, Option<&Text>),
) {
    match known.outages.last_mut().filter(|outage| outage.span.end.is_none()) {
        Some(outage) => {
            outage.tries += 1;
            outage.failure = failure.clone();
            outage.running = outage.running.saturating_add(running);
            outage.again = again;
            outage.hint = hint.cloned().or(outage.hint.take());
        }
        None => {
            let lost = !known.up.is_empty();
            known.outages.push(Outage {
                span: Span { start: at, end: None },
                lost,
                tries: u32::from(!lost),
                failure: failure.clone(),
                running,
                again,
                hint: hint.cloned(),
            });
        }
    }
}

fn close(span: Option<&mut Span>, at: Moment) {
    if let Some(span) = span {
        span.end.get_or_insert(at);
    }
}

/// A moment some seconds later.
fn later(at: Moment, seconds: f64) -> Moment {
    Moment(at.0.saturating_add(Moment::from_seconds(seconds.max(0.0)).0))
}
