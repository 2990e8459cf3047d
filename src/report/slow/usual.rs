//! What is usual: medians over the runs before.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::System;
use crate::record::history::{Build, BuilderUse, Entry, Outcome};
use crate::report::number::pname;
use crate::report::stats;

/// The modified z from which a number does not belong to others (Iglewicz and Hoaglin).
pub(super) const ODD: f64 = 3.5;

/// Runs, and what builds of packages took in them.
pub(super) struct Usual<'a> {
    runs: Vec<&'a Entry>,
    /// Seconds of building, by package and system.
    builds: BTreeMap<(&'a str, &'a System), Vec<f64>>,
}

impl<'a> Usual<'a> {
    /// The newest last.
    pub(super) fn of(runs: Vec<&'a Entry>) -> Self {
        let mut builds: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for build in runs.iter().flat_map(|run| built(run)) {
            builds.entry((pname(&build.name), &build.system)).or_default().push(build.seconds());
        }
        Self { runs, builds }
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The run before.
    pub(super) fn last(&self) -> Option<&'a Entry> {
        self.runs.last().copied()
    }

    pub(super) fn median(&self, of: impl Fn(&Entry) -> f64) -> Option<f64> {
        stats::median(&self.numbers(of))
    }

    pub(super) fn numbers(&self, of: impl Fn(&Entry) -> f64) -> Vec<f64> {
        self.runs.iter().map(|run| of(run)).collect()
    }

    /// What a drv of this package usually takes to build; `None` if none was built.
    pub(super) fn build(&self, build: &Build) -> Option<f64> {
        stats::median(self.builds.get(&(pname(&build.name), &build.system))?)
    }

    /// Whether builds of this package are spread so far that this one is one of them. Of few builds the spread is not
    /// known; then one that takes half as long again, or half as long, is not.
    pub(super) fn is_within_spread(&self, build: &Build) -> bool {
        const FEW: usize = 5;
        let Some(builds) = self.builds.get(&(pname(&build.name), &build.system)) else { return false };
        if builds.len() < FEW {
            let usual = stats::median(builds).unwrap_or_default();
            return (build.seconds() - usual).abs() < usual / 2.0;
        }
        stats::modified_z(build.seconds(), builds).is_some_and(|z| z.abs() < ODD)
    }

    /// Builders that were up in at least half of the runs, with the slots that they had, and the first of the runs at the
    /// end that had to do without.
    pub(super) fn builders(&self) -> Vec<UsualBuilder> {
        let names: BTreeSet<&str> = self.runs.iter().flat_map(|run| up(run)).map(|used| used.name.as_str()).collect();
        let usual = |name: &&str| {
            let seen: Vec<Option<&BuilderUse>> =
                self.runs.iter().map(|run| up(run).find(|b| b.name == *name)).collect();
            let slots: Vec<f64> = seen.iter().flatten().map(|used| f64::from(used.slots)).collect();
            let since = seen.iter().rposition(Option::is_some).and_then(|last| self.runs.get(last + 1));
            (2 * slots.len() >= self.runs.len()).then(|| UsualBuilder {
                name: (*name).to_owned(),
                slots: stats::median(&slots).unwrap_or_default(),
                absent_since: since.map(|run| run.started),
            })
        };
        names.iter().filter_map(usual).collect()
    }

    /// How many more drvs of a run than usual were built, the same, in another run.
    pub(super) fn built_again(&self, now: &Entry) -> f64 {
        let mut runs: BTreeMap<&str, u32> = BTreeMap::new();
        for build in self.runs.iter().flat_map(|run| built(run)) {
            *runs.entry(build.drv.as_str()).or_default() += 1;
        }
        let again = |run: &Entry, least: u32| {
            let known = |drv: &str| runs.get(drv).is_some_and(|runs| *runs >= least);
            built(run).filter(|build| known(&build.drv)).count() as f64
        };
        again(now, 1) - self.median(|run| again(run, 2)).unwrap_or_default()
    }

    /// Whether an attr of that path was in one of the runs.
    pub(super) fn has_attr(&self, attr: &crate::id::AttrPath) -> bool {
        self.runs.iter().any(|run| run.attrs.iter().any(|known| known.attr == *attr))
    }
}

/// A builder that runs usually have.
pub(super) struct UsualBuilder {
    pub(super) name: String,
    pub(super) slots: f64,
    /// When the first of the runs before this one began that had to do without; `None` if it was there until now.
    pub(super) absent_since: Option<jiff::Timestamp>,
}

/// The builders that could be used at all.
pub(super) fn up(run: &Entry) -> impl Iterator<Item = &BuilderUse> {
    run.builders.iter().filter(|used| used.slots > 0 && used.up > 0.0)
}

/// What was built in a run.
pub(super) fn built(run: &Entry) -> impl Iterator<Item = &Build> {
    run.builds.iter().filter(|build| build.outcome == Outcome::Built)
}

/// Slots that there were on average, while the run went on.
pub(super) fn slots(run: &Entry) -> f64 {
    let share = |used: &BuilderUse| (used.up / run.seconds.max(1e-6)).clamp(0.0, 1.0);
    up(run).map(|used| f64::from(used.slots) * share(used)).sum()
}
