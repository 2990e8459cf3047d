//! The account in a few groups.

use crate::record::history::Entry;

/// Parts of the account that have the same causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Evaluating,
    Comparing,
    Copying,
    Building,
    Waiting,
    Away,
    Again,
    Pushing,
    Start,
}

impl Group {
    pub(super) const ALL: [Self; 9] = [
        Self::Evaluating,
        Self::Comparing,
        Self::Copying,
        Self::Building,
        Self::Waiting,
        Self::Away,
        Self::Again,
        Self::Pushing,
        Self::Start,
    ];

    /// Of a word of the account.
    pub(super) fn of(what: &str) -> Self {
        match what {
            "evaluating" => Self::Evaluating,
            "comparing" => Self::Comparing,
            "preparing" | "fetching" | "collecting" | "returning" => Self::Copying,
            "building" | "built_elsewhere" => Self::Building,
            "waiting_for_slot" | "handing_out" => Self::Waiting,
            "waiting_for_builder" => Self::Away,
            "waiting_to_try_again" => Self::Again,
            "pushing" => Self::Pushing,
            _ => Self::Start,
        }
    }

    /// Seconds of a run.
    pub(super) fn seconds(self, run: &Entry) -> f64 {
        run.account.iter().filter(|part| Self::of(&part.what) == self).fold(0.0, |sum, part| sum + part.seconds)
    }
}
