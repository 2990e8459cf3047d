//! Runs in numbers, for tests.

use crate::record::history::testing::entry;
use crate::record::history::{Counters, Entry};

/// A run that took so long and built 12 drvs.
pub(crate) fn run(seconds: f64) -> Entry {
    let counters = Counters { built: 12, to_build: 12, paths_hit: 90, paths_asked: 100, ..Counters::default() };
    Entry { seconds, counters, ..entry(0) }
}
