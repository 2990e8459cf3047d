//! What goes on, for a log that would be silent otherwise: every wait has a name and a time.

use std::collections::BTreeSet;

use crate::event::{Moment, Stage};
use crate::id::{AttemptId, AttrId, BuilderId};
use crate::report::affected;
use crate::report::builders::{left_without, waits};
use crate::report::number::{count, duration, plural, size};
use crate::report::summary::{Attempt, State};
use crate::report::text::{Line, Paint, listed};
use crate::ui::live::is_push;
use crate::ui::model::Model;

use super::{INDENT, head};

/// Builds that a "running" line names.
const NAMED: usize = 4;

/// What goes on, after some seconds without a line.
#[must_use]
pub fn going_on(model: &Model, now: Moment, width: usize) -> Vec<Line> {
    let s = &model.summary;
    let mut lines = Vec::new();
    let room = width.saturating_sub(INDENT);
    let running = running(model, now);
    if !running.is_empty() {
        lines.push(head(now, Paint::Plain, "running").text(named(&running, room)));
    }
    let bringing = bringing(model, now);
    if !bringing.is_empty() {
        lines.push(head(now, Paint::Plain, "bringing").text(listed(&bringing, " · ", room)));
    }
    let away = away(model, now);
    if !away.is_empty() {
        // While something goes on, nobody waits for it.
        let word = if lines.is_empty() { "waiting" } else { "away" };
        lines.push(head(now, Paint::Plain, word).text(listed(&away, " · ", room)));
        let away = s.builders.iter().filter(|(_, builder)| builder.outage().is_some());
        let left: BTreeSet<String> = away.filter_map(|(id, _)| left_without(s, *id)).collect();
        lines.extend(left.into_iter().map(|text| Line::new().pad(INDENT).text(text)));
    }
    if running.is_empty() {
        let ready = for_a_slot(model, now);
        lines.extend(ready.into_iter().map(|text| head(now, Paint::Plain, "waiting").text(text)));
    }
    if !model.is_evaluated() && !is_push(model) && s.cancelled.is_none() {
        lines.push(evaluating(model, now, room));
    }
    if model.to_push() > 0 {
        let counts = s.counts;
        let text =
            format!("{} of {} paths, {}", count(counts.pushed), count(counts.push_queued), size(counts.pushed_bytes));
        lines.push(head(now, Paint::Plain, "pushing").text(text));
    }
    if lines.is_empty() {
        // Nothing goes on that has a name of its own.
        let stage = s.stages.iter().filter(|(_, span)| span.end.is_none()).max_by_key(|(_, span)| span.start);
        let text = match stage {
            _ if s.builders.is_empty() && s.to_build() > 0 => {
                format!("for a builder to answer, {} now", duration(now.seconds()))
            }
            Some((Stage::Diff, span)) => format!("comparing with caches {}", duration(now.since(span.start))),
            Some((Stage::Push, span)) => format!("reading back what was pushed {}", duration(now.since(span.start))),
            Some((Stage::Record, span)) => format!("closing the record {}", duration(now.since(span.start))),
            _ => format!("for {} now", duration(now.seconds())),
        };
        lines.push(head(now, Paint::Plain, "waiting").text(text));
    }
    lines
}

/// What is being built and fetched, since when.
fn running(model: &Model, now: Moment) -> Vec<(Moment, String)> {
    let s = &model.summary;
    let mut running: Vec<(Moment, String)> = Vec::new();
    let attempts = model.running.values().flatten().filter_map(|id| s.attempts.get(id));
    for attempt in attempts.filter(|attempt| !attempt.is_preparing()) {
        let since = attempt.building.unwrap_or(attempt.started);
        let what = match (&attempt.waiting, attempt.building) {
            (Some(_), None) => " (built by somebody else)",
            (None, None) => " (bringing its inputs)",
            _ => "",
        };
        let (name, builder) = (s.drv_name(attempt.drv), s.builder_name(attempt.builder));
        running.push((since, format!("{name} {} {builder}{what}", duration(now.since(since)))));
    }
    for drv in model.fetching.iter().filter_map(|id| s.drvs.get(id)) {
        let since = drv.fetches.last().map_or(now, |fetch| fetch.span.start);
        running.push((since, format!("fetching {} {}", drv.name, duration(now.since(since)))));
    }
    for drv in model.returning.iter().filter_map(|id| s.drvs.get(id)) {
        let Some(back) = drv.returns.last() else { continue };
        let (since, from) = (back.span.start, s.builder_name(back.builder));
        running.push((since, format!("bringing home {} from {from} {}", drv.name, duration(now.since(since)))));
    }
    running.sort();
    running
}

/// What is brought to builders: `214 MiB for 3 drvs to big1 12s`.
fn bringing(model: &Model, now: Moment) -> Vec<String> {
    let s = &model.summary;
    let mut texts = Vec::new();
    for (id, attempts) in &model.running {
        let attempts = attempts.iter().filter_map(|id| s.attempts.get(id));
        let under_way: Vec<&Attempt> = attempts.filter(|a| a.is_preparing() && a.prepared.is_none()).collect();
        let Some(since) = under_way.iter().map(|attempt| attempt.started).min() else { continue };
        let bytes = under_way.iter().filter_map(|a| a.bringing).fold(0_u64, |sum, b| sum.saturating_add(b.nar_size));
        let bytes = if bytes > 0 { size(bytes) } else { "inputs".to_owned() };
        let drvs = plural(under_way.len(), "drv", "drvs");
        texts.push(format!("{bytes} for {drvs} to {} {}", s.builder_name(*id), duration(now.since(since))));
    }
    texts
}

/// Builders that are away and tried again: `big2, unreachable for 52s, tried again in 21s`.
fn away(model: &Model, now: Moment) -> Vec<String> {
    let away = model.summary.builders.values().filter(|builder| builder.state() == State::Suspended);
    // Why was said when it happened.
    away.filter_map(|builder| Some(format!("{}, {}", builder.name, waits(builder, now)?.get(1)?))).collect()
}

/// Drvs whose inputs are there, and that wait for a slot.
fn for_a_slot(model: &Model, now: Moment) -> Vec<String> {
    let s = &model.summary;
    let waiting = |(id, attempts): (&BuilderId, &BTreeSet<AttemptId>)| {
        let prepared = attempts.iter().filter_map(|id| s.attempts.get(id)?.prepared);
        let since: Vec<Moment> = prepared.map(|prepared| prepared.at).collect();
        let (drvs, name) = (plural(since.len(), "drv", "drvs"), s.builder_name(*id));
        Some(format!("{drvs} for a slot of {name} {}", duration(now.since(*since.iter().min()?))))
    };
    model.running.iter().filter_map(waiting).collect()
}

/// The longest-running ones, and how many more.
fn named(running: &[(Moment, String)], room: usize) -> String {
    let texts: Vec<&str> = running.iter().map(|(_, text)| text.as_str()).collect();
    if texts.len() <= NAMED {
        return listed(&texts, " · ", room);
    }
    // Few names and a number say more than a full line.
    let shown = &texts[..NAMED - 1];
    let more = format!(" · {} more", texts.len() - shown.len());
    let text = shown.join(" · ");
    if Line::from(text.as_str()).width() + more.len() <= room {
        format!("{text}{more}")
    } else {
        listed(&texts, " · ", room)
    }
}

fn evaluating(model: &Model, now: Moment, room: usize) -> Line {
    let s = &model.summary;
    if let Some((text, since)) = affected::progress(s) {
        return head(now, Paint::Plain, "eval").text(format!("{text} for {}", duration(now.since(since))));
    }
    let Some(flake) = &s.flake else {
        return head(now, Paint::Plain, "flake").text(format!("locking for {}", duration(now.seconds())));
    };
    if s.counts.evaluated == 0 && model.evaluating.is_empty() {
        return head(now, Paint::Plain, "eval").text(format!("listing attrs for {}", duration(now.since(flake.at))));
    }
    let mut going_on: Vec<(Moment, AttrId)> =
        model.evaluating.iter().filter_map(|id| Some((s.attrs.get(id)?.eval_started?.0, *id))).collect();
    going_on.sort_unstable();
    let items: Vec<String> =
        going_on.iter().map(|(since, id)| format!("{} {}", s.attr_name(*id), duration(now.since(*since)))).collect();
    let done = format!("{}/{}", count(s.counts.evaluated), count(s.attrs.len()));
    let list = listed(&items, " · ", room.saturating_sub(done.len() + 3));
    let separator = if list.is_empty() { "" } else { " · " };
    head(now, Paint::Plain, "eval").text(format!("{done}{separator}{list}"))
}
