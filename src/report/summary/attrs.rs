//! What is known of one attr.

use crate::event::{Difference, Evaluated, Failure, Moment, Status, Text};
use crate::id::{AttrPath, DrvId, Kind};

use super::{Compared, Quarantined, Span};

/// One thing asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Attr {
    /// Full path.
    pub path: AttrPath,
    /// Its kind.
    pub kind: Kind,
    /// What people call it.
    pub name: Text,
    /// When it became known.
    pub listed: Moment,
    /// What it imports from derivations, in order.
    pub imports: Vec<Import>,
    /// When an evaluator took it up, and which.
    pub eval_started: Option<(Moment, u32)>,
    /// What came out, and when.
    pub evaluated: Option<(Moment, Evaluated)>,
    /// Different warnings of Nix about it, in order.
    pub warnings: Vec<Text>,
    /// It may fail, in a check.
    pub quarantined: Option<Quarantined>,
    /// What its evaluation took, where that is known.
    pub memory: Option<Memory>,
    /// How it compares with the base, if there is one.
    pub compared: Option<Compared>,
    /// It fails to build; whether it was fine on the base, where a recorded run of that says so.
    pub was_fine: Option<bool>,
    /// What has to be done for it, and when that was known.
    pub planned: Option<Planned>,
    /// The final word.
    pub ended: Option<AttrEnd>,
    /// Store paths of its closure and bytes of their NARs, if they are known.
    pub closure: Option<(u32, u64)>,
}

/// What an attr imports from a derivation.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// Absolute path of the .drv.
    pub path: Text,
    /// The derivation's name.
    pub name: Text,
    /// From the moment when the evaluation came to it until it was there; `None` while it is waited for.
    pub span: Span,
    /// Why it could not be had.
    pub failure: Option<Failure>,
}

/// The memory that the evaluation of an attr took, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The most that its evaluator held meanwhile.
    pub peak: u64,
    /// How much of that came with it.
    pub grown: u64,
}

/// What has to be done for an attr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When that was known.
    pub at: Moment,
    /// `to_build`, `to_fetch`, `valid`.
    pub status: Status,
    /// Its drv, if that has to be built or fetched.
    pub drv: Option<DrvId>,
    /// How many drvs must be built for it.
    pub builds: u32,
}

/// The final word on an attr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttrEnd {
    /// When.
    pub at: Moment,
    /// How.
    pub status: Status,
    /// Why, where no drv says it.
    pub reason: Option<Text>,
    /// The drv whose failure it is.
    pub root: Option<DrvId>,
}

impl Attr {
    /// Of one that does not evaluate or fails to build: whether it was so on the base, where that is known.
    #[must_use]
    pub fn was_broken(&self) -> Option<bool> {
        match &self.compared {
            Some(compared) if compared.difference == Difference::StillBroken => Some(true),
            Some(compared) if compared.difference == Difference::NewlyBroken => Some(false),
            _ => self.was_fine.map(|fine| !fine),
        }
    }

    /// Where what is built for it is defined, as far as its evaluation said so.
    #[must_use]
    pub fn position(&self) -> Option<&Text> {
        match &self.evaluated {
            Some((_, Evaluated::Drv { position, .. })) => position.as_ref(),
            _ => None,
        }
    }

    /// Seconds that its evaluation took, without what it waited for imports; `None` if nothing was evaluated.
    #[must_use]
    pub fn eval_seconds(&self) -> Option<f64> {
        let waited: f64 =
            self.imports.iter().filter_map(|import| Some(import.span.end?.since(import.span.start))).sum();
        Some((self.evaluated.as_ref()?.0.since(self.eval_started?.0) - waited).max(0.0))
    }
}
