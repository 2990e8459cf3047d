//! `drover report --slow`: one run against those before it.

use crate::error::Result;
use crate::record::history::Depth;
use crate::record::{self, Run};
use crate::report::chain;
use crate::report::slow::{self, RUNS};
use crate::report::summary::Summary;

use super::runs::{Runs, View};

/// Prints why a run took as long as it did.
pub(super) fn report(view: &View<'_>, runs: &Runs, run: &Run) -> Result<u8> {
    let entry = runs.entry(run.id, Depth::Builds)?;
    // Not all of them ended well.
    let before = runs.like(&entry, None, Depth::Builds, 2 * RUNS)?;
    let slow = slow::slow(&entry, &before);
    // The record itself may be gone by now.
    let summary = record::read(&run.dir.events()).map(|record| Summary::of(&record.events)).unwrap_or_default();
    let chain = chain::longest(&summary);
    let mut document = slow::document(&slow);
    document["chain"] = chain::document(&summary, &chain);
    view.show(&document, |width| {
        let mut lines = slow::screen(&slow, &run.short, width);
        lines.extend(chain::line(&summary, &chain, width));
        lines
    })?;
    Ok(0)
}
