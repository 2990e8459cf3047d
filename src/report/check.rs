//! What a check says of each attr: its verdict, a pure fold over the summary. The screens of a check and the reports
//! for forges are made of these.

pub mod screen;

use std::collections::BTreeSet;

use crate::event::{Class, Difference, Evaluated, Failure, Status, Text};
use crate::id::{AttrId, AttrPath, DrvId, Kind};

use super::summary::{Attr, Cause, Quarantined, Summary};

/// How a check of an attr ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It is as it should be, and nothing was to be built.
    Ok,
    /// It was built.
    Built,
    /// It was to be built, and is in the store or in a cache.
    Cached,
    /// Something is wrong with it that Nix does not refuse: a warning.
    Finding,
    /// It does not evaluate, or Nix refuses what it evaluates to.
    Refused,
    /// Its build failed, or could not be tried.
    Failed,
    /// It is as on the base, and nothing was to be done for it.
    Unaffected,
    /// The run ended before its turn, or no builder is for its system.
    Skipped,
}

/// What a check says of an attr.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Which attr.
    pub attr: AttrId,
    /// Its full path.
    pub path: AttrPath,
    /// Its kind.
    pub kind: Kind,
    /// What people call it.
    pub name: Text,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds that it was evaluated, and from when it was known what had to be built for it until that was there.
    pub seconds: f64,
    /// What is wrong with it: of a finding, of what is refused, and of what failed.
    pub failure: Option<Failure>,
    /// The drv whose own failure it is.
    pub root: Option<DrvId>,
    /// What Nix remarks on it.
    pub warnings: Vec<Text>,
    /// It may fail.
    pub quarantined: Option<Quarantined>,
    /// How it compares with the base, if there is one.
    pub difference: Option<Difference>,
}

impl Outcome {
    /// Whether something is wrong that makes a check fail, where nothing excuses it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Refused | Self::Failed)
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Ok | Self::Built | Self::Cached | Self::Unaffected)
    }
}

/// The verdicts so far, in the order of the attrs; attrs that are left out have none.
#[must_use]
pub fn verdicts(s: &Summary) -> Vec<Verdict> {
    s.attrs.iter().filter_map(|(id, attr)| of(s, *id, attr)).collect()
}

/// The verdict on one attr; `None` before it is known, and where the attr is left out.
#[must_use]
pub fn verdict(s: &Summary, id: AttrId) -> Option<Verdict> {
    of(s, id, s.attrs.get(&id)?)
}

fn of(s: &Summary, id: AttrId, attr: &Attr) -> Option<Verdict> {
    if s.is_left_out(attr) {
        return None;
    }
    let outcome = outcome(attr, s.status(attr)?);
    let root = outcome.is_bad().then(|| s.root_of_attr(attr)).flatten();
    let failure = match &attr.evaluated {
        Some((_, Evaluated::Failed(failure) | Evaluated::Finding(failure))) => Some(failure.clone()),
        _ if outcome == Outcome::Failed => {
            let failure = root.and_then(|root| s.failure_of(root)).cloned().or_else(|| unsaid(attr));
            failure
                .map(|failure| Failure { position: failure.position.or_else(|| attr.position().cloned()), ..failure })
        }
        _ => None,
    };
    Some(Verdict {
        attr: id,
        path: attr.path.clone(),
        kind: attr.kind,
        name: attr.name.clone(),
        outcome,
        seconds: seconds(attr, outcome),
        failure,
        root,
        warnings: attr.warnings.clone(),
        quarantined: attr.quarantined.clone(),
        difference: attr.compared.as_ref().map(|compared| compared.difference),
    })
}

fn outcome(attr: &Attr, status: Status) -> Outcome {
    match status {
        Status::EvalFailed => Outcome::Refused,
        Status::Failed => Outcome::Failed,
        Status::Unaffected => Outcome::Unaffected,
        Status::Skipped => Outcome::Skipped,
        Status::Built => Outcome::Built,
        Status::Cached => Outcome::Cached,
        Status::Checked if attr.finding().is_some() => Outcome::Finding,
        Status::Valid if matches!(attr.evaluated, Some((_, Evaluated::Drv { .. }))) => Outcome::Cached,
        Status::Checked | Status::Valid | Status::ToBuild | Status::ToFetch => Outcome::Ok,
    }
}

/// What failed by no drv's fault: its .drv could not be read, or results did not come.
fn unsaid(attr: &Attr) -> Option<Failure> {
    let reason = attr.ended.as_ref()?.reason.clone()?;
    Some(Failure::new(Class::Network, reason))
}

fn seconds(attr: &Attr, outcome: Outcome) -> f64 {
    let built = match (&attr.planned, &attr.ended) {
        (Some(planned), Some(end)) if matches!(outcome, Outcome::Built | Outcome::Failed) => end.at.since(planned.at),
        _ => 0.0,
    };
    attr.eval_seconds().unwrap_or(0.0) + built
}

/// Whether this is a `drover check`.
#[must_use]
pub fn is_check(s: &Summary) -> bool {
    s.header.as_ref().is_some_and(|header| &*header.command == "check")
}

/// What does not fail a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Excused {
    /// Attrs in quarantine and, where that is asked for, those that were no better on the base.
    pub attrs: BTreeSet<AttrId>,
    /// Drvs whose failure no other attrs died of.
    pub drvs: BTreeSet<DrvId>,
}

/// What does not fail a check; with `broken_base`, what was broken on the base does not.
#[must_use]
pub fn excused(s: &Summary, broken_base: bool) -> Excused {
    let spared = |attr: &Attr| attr.quarantined.is_some() || (broken_base && attr.was_broken() == Some(true));
    let attrs = s.attrs.iter().filter(|(_, attr)| spared(attr));
    let attrs: BTreeSet<AttrId> = attrs.map(|(id, _)| *id).collect();
    let groups = s.failures().into_iter();
    let groups = groups.filter(|group| !group.attrs.is_empty() && group.attrs.iter().all(|attr| attrs.contains(attr)));
    let drvs = groups.flat_map(|group| match group.cause {
        Cause::Drv(drv) => vec![drv],
        Cause::NoBuilder(drvs) => drvs,
        Cause::Eval(_) | Cause::Other(_) => Vec::new(),
    });
    Excused { drvs: drvs.collect(), attrs }
}

/// Seconds until the first verdict that something is wrong that makes a check fail; `None` if there is none.
#[must_use]
pub fn first_failure(s: &Summary) -> Option<f64> {
    let moments = s.attrs.values().filter(|attr| attr.quarantined.is_none()).filter_map(|attr| match &attr.evaluated {
        Some((at, Evaluated::Failed(_))) => Some(*at),
        _ => attr.ended.as_ref().filter(|end| end.status == Status::Failed).map(|end| end.at),
    });
    moments.min().map(|at| at.seconds())
}
