//! `drover report --slow`, `--compare` and `--what-if`: one run against those before it, against another one, and against
//! what it might have been.

use crate::driver::replay::{Change, Replay};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::record::history::{Depth, Entry};
use crate::record::{self, Run};
use crate::report::slow::{self, RUNS, Slow};
use crate::report::summary::Summary;
use crate::report::text::Line;
use crate::report::what_if::{self, Played, Told};
use crate::report::{chain, compare, estimate};

use super::runs::{Runs, View};

/// How far a replay may be off for more to be told by itself.
const NEAR: f64 = 0.2;

/// Builders that are added to see what that would do.
const MORE: u32 = 2;

/// Prints why a run took as long as it did.
pub(super) fn report(view: &View<'_>, runs: &Runs, run: &Run) -> Result<u8> {
    let entry = runs.entry(run.id, Depth::Builds)?;
    // Not all of them ended well.
    let before = runs.like(&entry, None, Depth::Builds, 2 * RUNS)?;
    let slow = slow::slow(&entry, &before);
    // The record itself may be gone by now.
    let events = record::read(&run.dir.events()).map(|record| record.events).unwrap_or_default();
    let summary = Summary::of(&events);
    let chain = chain::longest(&summary);
    let told = usually_told(&summary, &slow, &before);
    let checked = estimate::checked(&events, &summary);
    let mut document = slow::document(&slow);
    document["chain"] = chain::document(&summary, &chain);
    document["what_if"] = told.iter().map(|told| what_if::one(&summary, told)).collect();
    document["estimate"] = serde_json::json!(checked);
    view.show(&document, |width| {
        let mut lines = slow::screen(&slow, &run.short, width);
        lines.extend(chain::line(&summary, &chain, width));
        lines.extend(told.iter().flat_map(|told| what_if::line(told, width)));
        lines.extend(checked.map(|checked| estimate::line(&checked, width)));
        lines
    })?;
    Ok(0)
}

/// What the run would have taken with the builders that it lacked, and with more; nothing where its replay is too far
/// from it to tell, or only the local store built.
fn usually_told(summary: &Summary, slow: &Slow, before: &[Entry]) -> Vec<Told> {
    let Some(replay) = Replay::of(summary).filter(|_| summary.builders.len() > 1) else { return Vec::new() };
    let played = Played { summary, replayed: replay.as_it_was(), estimate: None };
    if played.off().abs() > NEAR {
        return Vec::new();
    }
    let absent = slow.absent.iter().filter_map(|name| {
        let used = before.iter().rev().flat_map(|run| &run.builders).find(|used| used.name == *name)?;
        let (slots, systems, speed) = (used.slots, used.systems.clone(), used.speed);
        Some(Change::With { name: name.clone(), slots, systems, speed })
    });
    let changes = absent.chain([Change::Builders(MORE)]);
    changes.filter_map(|change| replay.with(&[change]).ok()).collect()
}

/// Prints what differs between two runs, the other one and the one that is looked at.
pub(super) fn compare(view: &View<'_>, runs: &Runs, (other, run): (&Run, &Run)) -> Result<u8> {
    let [before, now] = [runs.entry(other.id, Depth::Builds)?, runs.entry(run.id, Depth::Builds)?];
    let compared = compare::compare(&now, &before);
    let mut document = compare::document(&compared);
    document["runs"] = serde_json::json!({ "before": other.id, "now": run.id });
    view.show(&document, |width| compare::screen(&compared, (&other.short, &run.short), width))?;
    Ok(0)
}

/// Prints what a run would have taken.
pub(super) fn what_if(view: &View<'_>, run: &Run, changes: &[Change]) -> Result<u8> {
    let events: Vec<Event> = record::read(&run.dir.events())?.events;
    let summary = Summary::of(&events);
    let replay = Replay::of(&summary).ok_or_else(|| {
        Error::usage(format!("run {} built nothing that could be played again", run.short)).hint("drover report list")
    })?;
    let told = replay.with(changes).map_err(|name| no_builder(&summary, &run.short, &name))?;
    let played =
        Played { summary: &summary, replayed: replay.as_it_was(), estimate: estimate::checked(&events, &summary) };
    view.show(&what_if::document(&played, &told), |width| -> Vec<Line> {
        what_if::screen(&played, &told, &run.short, width)
    })?;
    Ok(0)
}

fn no_builder(summary: &Summary, run: &str, name: &str) -> Error {
    let names: Vec<&str> = summary.builders.values().map(|builder| &*builder.name).collect();
    Error::usage(format!("run {run} had no builder '{name}'")).hint(format!("it had {}", names.join(", ")))
}
