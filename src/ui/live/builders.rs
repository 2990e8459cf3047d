//! The lines about builders: what each does, or why it does nothing.

use std::collections::BTreeSet;

use crate::event::Moment;
use crate::id::{AttemptId, BuilderId, DrvId};
use crate::report::builders::waits;
use crate::report::number::{duration, plural, size};
use crate::report::summary::{Attempt, Builder, LOCAL, State};
use crate::report::text::{Line, Paint, listed};
use crate::ui::model::Model;

use super::{first_fit, short};

/// Builders with a line of their own; the rest is folded into one.
const BUILDERS: usize = 6;

/// Percent of the time that all wait for memory from which it is worth a word.
const STALLED: f64 = 10.0;

/// A line a builder, the local one last; where there are many, those that do least are folded into one line.
pub(super) fn lines(model: &Model, now: Moment, width: usize) -> Vec<Line> {
    let s = &model.summary;
    // Trouble is worth a line more than work is.
    let weight = |id: &BuilderId| {
        let away = s.builders.get(id).is_some_and(|builder| builder.state() != State::Ready);
        (away, model.running.get(id).map_or(0, BTreeSet::len))
    };
    let mut ids: Vec<BuilderId> = s.builders.keys().copied().collect();
    ids.sort_by_key(|id| (*id == LOCAL, *id));
    let mut folded = Vec::new();
    while ids.len() > BUILDERS {
        let least = (0..ids.len()).rev().min_by_key(|i| weight(&ids[*i]));
        folded.extend(least.map(|i| ids.remove(i)));
    }
    let names = ids.iter().map(|id| Line::from(s.builder_name(*id)).width()).max().unwrap_or(0).clamp(5, 16);
    let mut lines: Vec<Line> = Vec::new();
    for id in ids {
        let Some(builder) = s.builders.get(&id) else { continue };
        lines.push(line(model, id, builder, names, now, width));
    }
    if !folded.is_empty() {
        lines.push(others(model, &folded).fit(width));
    }
    lines
}

/// `4 more builders  12/64 · 1 away`.
fn others(model: &Model, folded: &[BuilderId]) -> Line {
    let builders = || folded.iter().filter_map(|id| model.summary.builders.get(id));
    let used: usize = folded.iter().map(|id| attempts(model, *id).filter(|a| a.holds_slot()).count()).sum();
    let slots = builders().fold(0_u32, |sum, builder| sum.saturating_add(builder.slots));
    let away = builders().filter(|builder| matches!(builder.state(), State::Suspended | State::Gone)).count();
    let away = if away > 0 { format!(" · {away} away") } else { String::new() };
    Line::from(format!("{}  {used}/{slots}{away}", plural(folded.len(), "more builder", "more builders")))
}

fn attempts(model: &Model, id: BuilderId) -> impl Iterator<Item = &Attempt> {
    let running = model.running.get(&id).into_iter().flatten();
    running.filter_map(|attempt: &AttemptId| model.summary.attempts.get(attempt))
}

/// `big1   12/16  ↓ 214 MiB inputs 4s · linux-6.12.58 3m01s of ~4m20s · nginx-1.29.4 48s · 10 more`.
fn line(model: &Model, id: BuilderId, builder: &Builder, names: usize, now: Moment, width: usize) -> Line {
    let line = Line::new().paint(Paint::Bold, &*builder.name).fit(names).pad(names);
    let waits = waits(builder, now);
    if let (State::Suspended | State::Gone, Some(ways)) = (builder.state(), &waits) {
        let line = line.paint(Paint::Warn, format!(" {:>6}  ", "away"));
        return first_fit(ways.iter().map(|way| line.clone().text(way)).collect(), width);
    }
    let used = attempts(model, id).filter(|attempt| attempt.holds_slot()).count();
    let line = line.text(format!(" {:>6}  ", format!("{used}/{}", builder.slots)));
    let mut items: Vec<String> = waits.into_iter().flatten().take(1).collect();
    items.extend(strained(builder));
    items.extend(bringing(model, id, now));
    let mut running: Vec<(Moment, String)> =
        attempts(model, id).filter(|a| !a.is_preparing()).map(|a| (a.started, text(model, a, now))).collect();
    if id == LOCAL {
        running.extend(model.fetching.iter().filter_map(|drv| fetch_text(model, *drv, now)));
        running.extend(model.returning.iter().filter_map(|drv| return_text(model, *drv, now)));
    }
    running.sort();
    items.extend(running.into_iter().map(|(_, text)| text));
    items.extend(for_a_slot(model, id, now));
    if items.is_empty() {
        return line.paint(Paint::Dim, "idle").fit(width);
    }
    let left = width.saturating_sub(line.width());
    line.text(listed(&items, " · ", left)).fit(width)
}

/// `short of memory (12% stalled)`, where that makes it slow.
fn strained(builder: &Builder) -> Option<String> {
    let stalled = builder.load?.memory.filter(|percent| *percent >= STALLED)?;
    Some(format!("short of memory ({stalled:.0}% stalled)"))
}

/// `↓ 214 MiB inputs 4s`: what is brought to a builder.
fn bringing(model: &Model, id: BuilderId, now: Moment) -> Option<String> {
    let under_way = || attempts(model, id).filter(|attempt| attempt.is_preparing() && attempt.prepared.is_none());
    let since = under_way().map(|attempt| attempt.bringing.map_or(attempt.started, |bringing| bringing.since)).min()?;
    let bytes = under_way().filter_map(|attempt| attempt.bringing).fold(0_u64, |sum, b| sum.saturating_add(b.nar_size));
    let bytes = if bytes > 0 { format!("{} ", size(bytes)) } else { String::new() };
    Some(format!("↓ {bytes}inputs {}", short(now.since(since))))
}

/// `3 wait for a slot 12s`: all that they need is there.
fn for_a_slot(model: &Model, id: BuilderId, now: Moment) -> Option<String> {
    let ready = attempts(model, id).filter(|attempt| attempt.is_preparing()).filter_map(|attempt| attempt.prepared);
    let since: Vec<Moment> = ready.map(|prepared| prepared.at).collect();
    let verb = if since.len() == 1 { "waits" } else { "wait" };
    Some(format!("{} {verb} for a slot {}", since.len(), short(now.since(*since.iter().min()?))))
}

/// One attempt in a few words, with its elapsed time.
fn text(model: &Model, attempt: &Attempt, now: Moment) -> String {
    let s = &model.summary;
    let name = s.drv_name(attempt.drv);
    match (&attempt.waiting, attempt.building) {
        (_, Some(since)) => {
            let expected = s.drvs.get(&attempt.drv).and_then(|drv| s.expected_on(drv, attempt.builder));
            let of = expected.map_or_else(String::new, |seconds| format!(" of ~{}", about_exactly(seconds)));
            format!("{name} {}{of}", short(now.since(since)))
        }
        (Some((since, _)), None) => format!("{name} {} (built by somebody else)", short(now.since(*since))),
        (None, None) => format!("↓ {name} {}", short(now.since(attempt.started))),
    }
}

/// A duration of history beside one that runs.
fn about_exactly(seconds: f64) -> String {
    if seconds < 9.95 { format!("{}s", seconds.round().max(1.0)) } else { duration(seconds) }
}

fn fetch_text(model: &Model, id: DrvId, now: Moment) -> Option<(Moment, String)> {
    let drv = model.summary.drvs.get(&id)?;
    let since = drv.fetches.last()?.span.start;
    Some((since, format!("↓ {} {}", drv.name, short(now.since(since)))))
}

/// `↓ nginx-1.29.4 from big2 3s`: results on their way into the local store.
fn return_text(model: &Model, id: DrvId, now: Moment) -> Option<(Moment, String)> {
    let drv = model.summary.drvs.get(&id)?;
    let back = drv.returns.last()?;
    let from = model.summary.builder_name(back.builder);
    Some((back.span.start, format!("↓ {} from {from} {}", drv.name, short(now.since(back.span.start)))))
}
