//! The screen of `drover plan`: what would be built, fetched and pushed, and for how long.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Evaluated, Failure, Stage, Status};
use crate::id::{AttrId, BuilderId, Kind};

use super::affected;
use super::builders;
use super::estimate::{self, Estimate};
use super::failure::{self, kinds};
use super::imports::imports;
use super::left_out;
use super::number::{about, count, duration, plural, size};
use super::summary::{Cause, Outage, Summary};
use super::text::{Line, Paint, listed, wrapped};

/// Columns of the words in front of a list.
const LABEL: usize = 9;

/// Drvs from this many seconds on are named as the biggest.
const BIG: f64 = 5.0;

/// The screen of a plan. `pushes`: it says what would be pushed, too.
#[must_use]
pub fn screen(summary: &Summary, width: usize, pushes: bool) -> Vec<Line> {
    let mut lines = vec![eval(summary, width)];
    lines.extend(imports(summary, width.saturating_sub(9)).map(|text| Line::new().pad(9).text(text)));
    let counted = affected::counted(summary).unwrap_or_default();
    lines.extend(affected::base_line(summary).map(|text| {
        let line = Line::new().paint(Paint::Bold, "base").text(format!("     {text}"));
        parts(line, vec![counted.clone()], "    ", width).fit(width)
    }));
    lines.extend(affected::skipped(summary, width));
    lines.push(diff(summary, width));
    if !summary.left_out.is_empty() {
        let texts = left_out::lines(&summary.left_out, width.saturating_sub(9)).into_iter().enumerate();
        lines.extend(texts.map(|(i, text)| Line::from(if i == 0 { "left out" } else { "" }).pad(9).text(text)));
    }
    for warning in &summary.warnings {
        lines.push(Line::new().paint(Paint::Warn, "warning").text(format!("  {}", warning.message)).fit(width));
        lines.extend(warning.hint.iter().map(|hint| Line::from(format!("         hint: {hint}"))));
    }
    for (id, outage) in outages(summary) {
        let texts = builders::away(summary, id, outage);
        // What is to be typed stays whole.
        let parts = texts.iter().flat_map(|text| match text.starts_with("hint: ") {
            true => vec![text.clone()],
            false => wrapped(text, width.saturating_sub(9), 6),
        });
        let head = |i| if i == 0 { Line::new().paint(Paint::Warn, "warning") } else { Line::new() };
        lines.extend(parts.enumerate().map(|(i, text)| head(i).pad(9).text(text)));
    }
    lines.push(Line::new());
    let estimate = estimate::remaining(summary, summary.end);
    lines.push(to_build(summary, estimate.as_ref(), width));
    lines.extend(attrs(summary, width));
    lines.extend(biggest(summary, width));
    lines.extend(fetch_and_push(summary, width, pushes));
    lines.extend(written(summary));
    lines.extend(not_evaluated(summary, width));
    lines.extend(not_buildable(summary, width));
    lines
}

/// Builders that cannot be used, each with its outage.
fn outages(s: &Summary) -> impl Iterator<Item = (BuilderId, &Outage)> {
    s.builders.iter().filter_map(|(id, builder)| Some((*id, builder.outage()?)))
}

/// A line of optional parts; those that do not fit are left out, the earlier ones stay.
fn parts(line: Line, parts: Vec<String>, gap: &str, width: usize) -> Line {
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .fold(line, |line, part| line.then_if_fits(Line::from(format!("{gap}{part}")), width))
}

pub(super) fn eval(s: &Summary, width: usize) -> Line {
    let all = s.taken();
    let took = match (s.flake.as_ref().is_some_and(|flake| flake.recorded), s.stages.get(&Stage::Eval)) {
        (true, _) => " from the record".to_owned(),
        (false, Some(span)) => format!(" in {}", duration(span.end.unwrap_or(s.end).since(span.start))),
        (false, None) => String::new(),
    };
    let line =
        Line::new().paint(Paint::Bold, "eval").text(format!("     {}{took}", plural(all.len(), "attr", "attrs")));
    let failed =
        if s.counts.eval_failed > 0 { format!("{} failed", count(s.counts.eval_failed)) } else { String::new() };
    let kinds = kinds(s, &all).replace(", ", " · ");
    // The failed ones have to be seen; the kinds only help where there is room.
    let room = width.saturating_sub(if failed.is_empty() { 0 } else { failed.len() + 4 });
    let line = parts(line, vec![kinds], "    ", room);
    parts(line, vec![failed], "    ", width)
}

fn diff(s: &Summary, width: usize) -> Line {
    let line = Line::new().paint(Paint::Bold, "diff").text("     ");
    let Some(diff) = s.diff else { return line.text("nothing to compare") };
    let line = line.text(plural(diff.paths as usize, "path", "paths"));
    let caches = s.caches.values().filter(|cache| cache.pull).count();
    let builders = s.builders.values().filter(|builder| builder.answered.is_some()).count();
    let asked = match (caches, builders) {
        (0, 0) => "no cache is asked".to_owned(),
        (0, n) => format!("{} asked", plural(n, "builder", "builders")),
        (n, 0) => format!("{} asked", plural(n, "cache", "caches")),
        (n, m) => format!("{} and {} asked", plural(n, "cache", "caches"), plural(m, "builder", "builders")),
    };
    let line = parts(line, vec![asked], ", ", width);
    let found = [
        (diff.valid, "in this store"),
        (diff.present, "present"),
        (diff.absent, "absent"),
        (diff.untrusted, "untrusted"),
        (diff.no_answer, "no answer"),
    ];
    let found: Vec<String> =
        found.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{} {word}", count(*n as usize))).collect();
    let line = parts(line, vec![found.join(" · ")], "    ", width);
    // It goes on while attrs are evaluated: only what comes after that is its own time.
    let eval = s.stages.get(&Stage::Eval).and_then(|span| span.end);
    let after = s.stages.get(&Stage::Diff).and_then(|span| Some(span.end?.since(eval?.max(span.start))));
    let after = after.filter(|after| *after >= 0.05).map(|after| format!("{} after eval", duration(after)));
    parts(line, after.into_iter().collect(), "    ", width)
}

/// `To build: 212 drvs, about 7m on 40 slots (longest chain 4m51s: linux-6.12.58 → system-path → web1)`.
fn to_build(s: &Summary, estimate: Option<&Estimate>, width: usize) -> Line {
    let line = Line::new().paint(Paint::Bold, "To build: ");
    let builds = s.to_build();
    if builds == 0 {
        return line.text("nothing");
    }
    let line = line.text(plural(builds, "drv", "drvs"));
    let slots = plural(s.slots() as usize, "slot", "slots");
    let Some(estimate) = estimate else {
        let unknown = format!(" on {slots}, duration unknown (no history yet)");
        let short = ", duration unknown (no history yet)";
        let long = line.clone().text(&unknown);
        return if long.width() <= width { long } else { line.text(short) };
    };
    let line = match estimate.unknown {
        0 => line.text(format!(", about {} on {slots}", estimate.about())),
        n => line.text(format!(", at least {} on {slots}, {} without history", about(estimate.seconds), count(n))),
    };
    let names = estimate::chain_names(s, &estimate.chain);
    let seconds = duration(estimate.chain_seconds);
    let chain = Line::from(format!(" (longest chain {seconds}: {})", names.join(" → ")));
    if line.width() + chain.width() <= width {
        return line.then(chain);
    }
    line.then_if_fits(Line::from(format!(" (longest chain {seconds})")), width)
}

/// Which attrs are to be built, and how many need nothing.
fn attrs(s: &Summary, width: usize) -> Vec<Line> {
    let with = |wanted: &[Status]| -> Vec<AttrId> {
        let of = s.attrs.iter().filter(|(_, attr)| s.status(attr).is_some_and(|status| wanted.contains(&status)));
        of.map(|(id, _)| *id).collect()
    };
    let build = with(&[Status::ToBuild]);
    let (cached, valid) = (with(&[Status::ToFetch, Status::Cached]), with(&[Status::Valid]));
    let unaffected = with(&[Status::Unaffected]);
    let is_idle = |id: &AttrId| [&cached, &valid, &unaffected].into_iter().any(|ids| ids.contains(id));
    let idle: Vec<AttrId> = s.attrs.keys().copied().filter(is_idle).collect();
    let building: BTreeSet<AttrId> = build.iter().copied().collect();
    let labels = s.kinds(|attr| building.contains(&attr)).into_iter();
    let labels: Vec<(Kind, String)> =
        labels.map(|(kind, n)| (kind, format!("{} {}", count(n), kind.noun(n)))).collect();
    let idle_label = kinds(s, &idle);
    let idle_label = match (idle_label.contains(','), labels.is_empty()) {
        (true, true) => plural(idle.len(), "attr", "attrs"),
        (true, false) => plural(idle.len(), "other", "others"),
        (false, _) => idle_label,
    };
    let widest = labels.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
    let column = widest.max(idle_label.len()).max(LABEL).min(width / 2) + 2;
    let mut lines = Vec::new();
    for (kind, label) in labels {
        let of: Vec<AttrId> =
            build.iter().copied().filter(|id| s.attrs.get(id).is_some_and(|attr| attr.kind == kind)).collect();
        let line = Line::from(format!("  {label}")).pad(column).text("  ");
        let left = width.saturating_sub(line.width());
        lines.push(line.text(listed(&s.names(&of), " ", left)).fit(width));
    }
    if !idle.is_empty() {
        let parts = [(cached.len(), "cached"), (valid.len(), "in this store"), (unaffected.len(), "unaffected")];
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{word} {}", count(*n))).collect();
        let line = Line::from(format!("  {idle_label}")).pad(column).text("  ");
        lines.push(line.paint(Paint::Dim, format!("nothing to do ({})", parts.join(", "))).fit(width));
    }
    lines
}

/// The drvs that take longest, where that is known.
fn biggest(s: &Summary, width: usize) -> Option<Line> {
    let mut by_name: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    let (mut small, mut unknown) = (0, 0);
    for drv in s.drvs.values().filter(|drv| !drv.fetch) {
        match drv.expected {
            Some(seconds) if seconds >= BIG => {
                let entry = by_name.entry(&drv.name).or_default();
                *entry = (entry.0.max(seconds), entry.1 + 1);
            }
            Some(_) => small += 1,
            None => unknown += 1,
        }
    }
    if by_name.is_empty() && small == 0 {
        return None;
    }
    let mut big: Vec<(&str, (f64, usize))> = by_name.into_iter().collect();
    big.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let mut items: Vec<String> = Vec::new();
    for (name, (seconds, times)) in big {
        let times = if times > 1 { format!(" ×{times} systems") } else { String::new() };
        items.push(format!("{name} {}{times}", duration(seconds)));
    }
    let rest = match (small, unknown) {
        (0, 0) => String::new(),
        (n, 0) => format!("{} under {BIG:.0}s", count(n)),
        (0, n) => format!("{} without history", count(n)),
        (n, m) => format!("{} under {BIG:.0}s · {} without history", count(n), count(m)),
    };
    let line = Line::from("  biggest").pad(LABEL + 2).text("  ");
    let tail = if rest.is_empty() || items.is_empty() { rest } else { format!(" · {rest}") };
    let left = width.saturating_sub(line.width() + tail.chars().count());
    let line = line.text(listed(&items, " · ", left));
    Some(line.text(tail).fit(width))
}

fn fetch_and_push(s: &Summary, width: usize, pushes: bool) -> Vec<Line> {
    let sizes = s.fetches.iter().map(|path| if path.file_size > 0 { path.file_size } else { path.nar_size });
    let bytes = sizes.fold(0_u64, u64::saturating_add);
    let fetch = if s.fetches.is_empty() {
        "nothing".to_owned()
    } else {
        // What is only needed to build goes where it is needed.
        let to = if s.has_farm() { " → builders" } else { "" };
        format!("{}, {}{to}", plural(s.fetches.len(), "path", "paths"), size(bytes))
    };
    let caches: Vec<&str> = s.caches.values().filter(|cache| cache.push).map(|cache| &*cache.name).collect();
    let push = match (caches.as_slice(), s.to_build()) {
        ([], _) => "nothing (no push cache; --push-to NAME)".to_owned(),
        (_, 0) => "nothing that this run would build".to_owned(),
        (caches, n) => format!("what the {} give, to {}", plural(n, "drv", "drvs"), caches.join(", ")),
    };
    let fetch = Line::new().paint(Paint::Bold, "To fetch: ").text(fetch);
    if !pushes {
        return vec![fetch.fit(width)];
    }
    let push = Line::new().paint(Paint::Bold, "To push: ").text(push);
    if fetch.width() + 5 + push.width() <= width {
        return vec![fetch.text("     ").then(push)];
    }
    vec![fetch.fit(width), push.fit(width)]
}

/// `Plan file: plan.drover 1.2 MiB: 212 drvs, 34 sources`.
fn written(s: &Summary) -> Option<Line> {
    let written = s.written.as_ref()?;
    let drvs = plural(written.drvs as usize, "drv", "drvs");
    let sources = plural(written.sources as usize, "source", "sources");
    let text = format!("{} {}: {drvs}, {sources}", written.file, size(written.bytes));
    Some(Line::new().paint(Paint::Bold, "Plan file: ").text(text))
}

pub(super) fn not_evaluated(s: &Summary, width: usize) -> Vec<Line> {
    let mut failed: Vec<(String, &Failure)> = Vec::new();
    for attr in s.attrs.values() {
        if let Some((_, Evaluated::Failed(failure))) = &attr.evaluated {
            failed.push((attr.name.to_string(), failure));
        }
    }
    if failed.is_empty() {
        return Vec::new();
    }
    let head = Line::new().paint(Paint::Bad, format!("Cannot be evaluated: {}", count(failed.len())));
    let repeat = s.failures().into_iter().find(|group| matches!(group.cause, Cause::Eval(_)));
    let repeat = repeat.and_then(|group| failure::repeat_eval(s, *group.attrs.first()?));
    let column = failed.iter().map(|(name, _)| Line::from(name.as_str()).width()).max().unwrap_or(0);
    let mut lines = vec![head];
    for (name, failure) in failed {
        let first = failure::headline(&failure.message);
        let position = Line::from(format!("   {}", failure.position.as_deref().unwrap_or_default()));
        let line = Line::from(format!("  {name}")).pad(column + 5);
        let room = width.saturating_sub(position.width());
        let message = Line::from(first);
        if line.width() + message.width() <= room {
            lines.push(line.then(message).then(position).fit(width));
        } else {
            let indent = Line::new().pad(column + 5);
            lines.push(line.then(message).fit(width));
            lines.extend(failure.position.iter().map(|at| indent.clone().text(at).fit(width)));
        }
    }
    lines.extend(repeat.map(|command| Line::from(format!("  repeat  {command}"))));
    lines
}

/// Attrs that fail before anything is built: no builder can take their drvs.
fn not_buildable(s: &Summary, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for group in s.failures() {
        let reason = match &group.cause {
            Cause::Other(reason) => reason,
            Cause::NoBuilder(drvs) => {
                lines.extend(failure::no_builder::block(s, drvs, &group.attrs, width));
                continue;
            }
            Cause::Drv(_) | Cause::Eval(_) => continue,
        };
        let names = listed(&s.names(&group.attrs), " ", width.saturating_sub(24));
        lines.push(Line::new().paint(Paint::Bad, "Cannot be built: ").text(names).fit(width));
        lines.push(Line::from(format!("  {reason}")).fit(width));
    }
    lines
}
