//! How long it will take: the drvs that are left, played on the builders there are, the longest chain first. Only
//! from measured durations; what has none is counted, never guessed.

mod checked;
mod left;

use std::collections::BTreeMap;

use crate::event::Moment;
use crate::id::{BuilderId, DrvId};

use super::number::about;
use super::summary::Summary;
use left::Left;

pub use checked::{Checked, checked, line};

/// What is left to build.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Estimate {
    /// Seconds until all is built. A lower bound while `unknown` is not 0.
    pub seconds: f64,
    /// Seconds by which that may be wrong, either way, in nine of ten runs; `None` where history cannot say.
    pub error: Option<f64>,
    /// Drvs to build without a measured duration; they count as 0 s.
    pub unknown: usize,
    /// Drvs to build with one.
    pub known: usize,
    /// The chain of drvs that takes longest, the first to be built first.
    pub chain: Vec<DrvId>,
    /// Seconds of that chain on the fastest builders that can take it.
    pub chain_seconds: f64,
    /// Which drv would be built where and when, in the order in which they begin. Not what the run will do: builders are
    /// chosen by it as it goes.
    pub schedule: Vec<Turn>,
}

/// A drv in the schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Which.
    pub drv: DrvId,
    /// Where.
    pub builder: BuilderId,
    /// From when, in seconds from now.
    pub from: f64,
    /// Until when.
    pub to: f64,
}

/// The estimate for all drvs that have not ended; `None` if nothing is known of any of them, or nothing is left.
#[must_use]
pub fn remaining(summary: &Summary, now: Moment) -> Option<Estimate> {
    let left = Left::new(summary, now);
    if left.known() == 0 {
        return None;
    }
    let (chain, chain_seconds) = left.chain();
    let (unknown, known) = (left.unknown(), left.known());
    let (seconds, schedule) = left.play();
    let seconds = seconds.max(chain_seconds);
    let error = summary.estimates_off.filter(|_| unknown == 0).map(|off| off * seconds);
    Some(Estimate { seconds, error, unknown, known, chain, chain_seconds, schedule })
}

impl Estimate {
    /// The seconds, no more exact than they deserve: `7m`, and with an error that is worth a word `7m ±1m`.
    #[must_use]
    pub fn about(&self) -> String {
        const LEAST: f64 = 1.0;
        const LEAST_SHARE: f64 = 0.05;
        let error = self.error.filter(|error| *error >= LEAST.max(self.seconds * LEAST_SHARE));
        let error = error.map(|error| format!(" ±{}", about(error)));
        about(self.seconds) + &error.unwrap_or_default()
    }
}

/// Bytes a second that reach builders, by what has been copied to them so far; nothing where too little was.
pub(super) fn speeds(s: &Summary) -> BTreeMap<BuilderId, f64> {
    const ENOUGH: u64 = 1 << 20;
    let mut sums: BTreeMap<BuilderId, (u64, f64)> = BTreeMap::new();
    for attempt in s.attempts.values() {
        let (Some(bringing), Some(prepared)) = (attempt.bringing, attempt.prepared) else { continue };
        let sum = sums.entry(attempt.builder).or_default();
        sum.0 = sum.0.saturating_add(prepared.copied_size);
        sum.1 += prepared.at.since(bringing.since);
    }
    sums.retain(|_, (bytes, seconds)| *bytes >= ENOUGH && *seconds > 0.0);
    sums.into_iter().map(|(id, (bytes, seconds))| (id, bytes as f64 / seconds)).collect()
}

/// Names of a chain: its most expensive drvs and the last, which goes by the attr's name where it is one's result.
#[must_use]
pub fn chain_names(summary: &Summary, chain: &[DrvId]) -> Vec<String> {
    const SHOWN: usize = 4;
    let Some((last, rest)) = chain.split_last() else { return Vec::new() };
    let cost = |drv: &DrvId| summary.drvs.get(drv).and_then(|drv| drv.expected).unwrap_or(0.0);
    let mut long: Vec<usize> = (0..rest.len()).collect();
    long.sort_by(|a, b| cost(&rest[*b]).total_cmp(&cost(&rest[*a])));
    long.truncate(SHOWN - 1);
    long.sort_unstable();
    let mut names: Vec<String> = long.into_iter().map(|i| summary.drv_name(rest[i])).collect();
    let attr = summary.attrs.values().find(|attr| attr.planned.as_ref().is_some_and(|p| p.drv == Some(*last)));
    names.push(attr.map_or_else(|| summary.drv_name(*last), |attr| attr.name.to_string()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_where_it_is_worth_a_word() {
        let said = |seconds, error| Estimate { seconds, error, ..Estimate::default() }.about();
        assert_eq!(said(430.0, None), "7m");
        assert_eq!(said(430.0, Some(61.0)), "7m ±1m");
        assert_eq!(said(430.0, Some(34.0)), "7m ±35s");
        assert_eq!(said(430.0, Some(20.0)), "7m");
        assert_eq!(said(8.0, Some(0.9)), "8s");
    }
}
