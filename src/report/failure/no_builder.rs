//! Drvs that no builder takes: which builder they had counted on, who needs them, and how to go on without them.

use crate::event::{DrvOutcome, Moment};
use crate::id::{AttrId, DrvId};
use crate::report::builders::is_away;
use crate::report::check;
use crate::report::number::plural;
use crate::report::summary::{Outage, Summary};
use crate::report::text::{Line, Paint, listed, wrapped};

use super::{headline, kinds};

/// Lines of the sentence.
const SENTENCE: usize = 6;

/// The block of drvs that ask for the same. Lines to be typed are never cut.
pub(in crate::report) fn block(s: &Summary, drvs: &[DrvId], attrs: &[AttrId], width: usize) -> Vec<Line> {
    let mut texts = wrapped(&sentence(s, drvs), width.saturating_sub(7), SENTENCE).into_iter();
    let first = texts.next().unwrap_or_default();
    let mut lines = vec![Line::new().paint(Paint::Bad, "error:").text(format!(" {first}"))];
    lines.extend(texts.map(|more| Line::from(format!("  {more}"))));
    for (name, outage) in away(s, drvs) {
        let text = format!("{name}: {}", headline(&outage.failure.message));
        lines.extend(wrapped(&text, width.saturating_sub(2), 2).iter().map(|text| Line::from(format!("  {text}"))));
    }
    lines.push(needed_by(s, drvs, attrs, width));
    let mut hints: Vec<String> =
        away(s, drvs).into_iter().filter_map(|(_, outage)| outage.hint.clone()).map(|hint| hint.to_string()).collect();
    hints.dedup();
    let leave = without(s, attrs);
    let leave = if leave.contains("--exclude") { format!("leave them out: {leave}") } else { leave };
    let Some((last, rest)) = hints.split_last() else {
        lines.push(hint(&leave));
        return lines;
    };
    lines.extend(rest.iter().map(|text| hint(text)));
    let or = Line::from(format!("     or {leave}"));
    match (attrs.is_empty(), hint(last).width() + or.width() <= width) {
        (true, _) => lines.push(hint(last)),
        (false, true) => lines.push(hint(last).then(or)),
        (false, false) => lines.extend([hint(last), hint(&leave)]),
    }
    lines
}

fn hint(text: &str) -> Line {
    Line::from("  ").paint(Paint::Dim, "hint:").text(format!(" {text}"))
}

/// `no builder for aarch64-linux with kvm: arm1 is unreachable (3 tries, 2m00s)`; where no builder is away, what the
/// scheduler says.
fn sentence(s: &Summary, drvs: &[DrvId]) -> String {
    let first = drvs.first().and_then(|id| s.drvs.get(id));
    let Some(drv) = first else { return "no builder".to_owned() };
    let away = away(s, drvs);
    if away.is_empty() {
        return match &drv.ended {
            Some((_, DrvOutcome::Failed(failure))) => headline(&failure.message),
            _ => format!("no builder for {}", drv.system),
        };
    }
    let until = drv.ended.as_ref().map_or(s.end, |(at, _)| *at);
    let why: Vec<String> = away.iter().map(|(name, outage)| told(name, outage, until)).collect();
    let what = drvs.first().and_then(|id| s.no_builder_for(*id)).unwrap_or_default();
    format!("{what}: {}", why.join(", "))
}

fn told(name: &str, outage: &Outage, until: Moment) -> String {
    format!("{name} is {}", is_away(outage, until))
}

/// The builders that would have taken them, or that never said what they take, and are away.
fn away<'a>(s: &'a Summary, drvs: &[DrvId]) -> Vec<(&'a str, &'a Outage)> {
    let takes = |builder: &crate::report::summary::Builder| {
        builder.up.is_empty() || drvs.iter().filter_map(|id| s.drvs.get(id)).any(|drv| builder.takes(drv))
    };
    let builders = s.builders.values().filter(|builder| takes(builder));
    builders.filter_map(|builder| Some((&*builder.name, builder.outage()?))).collect()
}

/// `3 hosts need it: pi1 pi2 pi3 (41 drvs)`.
fn needed_by(s: &Summary, drvs: &[DrvId], attrs: &[AttrId], width: usize) -> Line {
    // What needs them is not built either.
    let all = s.drvs.keys().filter(|id| s.root_of(**id).is_some_and(|root| drvs.contains(&root))).count();
    let count = plural(all, "drv", "drvs");
    if attrs.is_empty() {
        return Line::from(format!("  {count}; no attr asked for them by name")).fit(width);
    }
    let verb = if attrs.len() == 1 { "needs" } else { "need" };
    let head = format!("  {} {verb} it: ", kinds(s, attrs));
    let tail = format!(" ({count})");
    let room = width.saturating_sub(head.len() + tail.len());
    Line::from(head).paint(Paint::Bold, listed(&s.names(attrs), " ", room)).text(tail).fit(width)
}

/// The run without what cannot be built here.
pub(super) fn without(s: &Summary, attrs: &[AttrId]) -> String {
    let command = if check::is_check(s) { "check" } else { "run" };
    if s.slots() == 0 && s.builders.len() < 2 {
        return format!("drover {command} --max-jobs auto");
    }
    if attrs.is_empty() || attrs.len() == s.taken().len() {
        return "nix config show    says what this machine can build: system, extra-platforms, system-features"
            .to_owned();
    }
    let names = globs(s, attrs).into_iter().map(|name| format!(" --exclude '{name}'"));
    format!("drover {command}{}", names.collect::<String>())
}

/// The names of attrs; `pi*` for several that only differ in a number, if no other attr is called so.
fn globs(s: &Summary, attrs: &[AttrId]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in s.names(attrs) {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let alike = s.attrs.iter().filter(|(_, attr)| !stem.is_empty() && attr.name.starts_with(stem));
        let (ours, others): (Vec<AttrId>, Vec<AttrId>) = alike.map(|(id, _)| *id).partition(|id| attrs.contains(id));
        let glob = if ours.len() > 1 && others.is_empty() { format!("{stem}*") } else { name };
        if !out.contains(&glob) {
            out.push(glob);
        }
    }
    out
}
