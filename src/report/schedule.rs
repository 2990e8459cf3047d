//! The schedule of `drover plan -v`: which drv would be built where and when, and the chain that takes longest.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{BuilderId, DrvId};

use super::estimate::{self, Estimate, Turn};
use super::number::{about, clock, count, duration, plural};
use super::summary::{LOCAL, Summary};
use super::text::{Line, Paint};

/// Drvs that are shown; of more, the shortest are counted.
const SHOWN: usize = 200;

/// The schedule and the longest chain; nothing where no duration is known.
#[must_use]
pub fn screen(s: &Summary, width: usize) -> Vec<Line> {
    let Some(estimate) = estimate::remaining(s, s.end) else { return Vec::new() };
    let mut lines = head(s, &estimate, width);
    lines.extend(by_builder(s, &estimate, width));
    lines.push(Line::new());
    lines.extend(chain(s, &estimate, width));
    lines
}

/// `Schedule: about 5m on 40 slots, as history says; * is in the longest chain`.
fn head(s: &Summary, estimate: &Estimate, width: usize) -> Vec<Line> {
    let line = Line::new().paint(Paint::Bold, "Schedule: ");
    let least = if estimate.unknown > 0 { "at least" } else { "about" };
    let slots = plural(s.slots() as usize, "slot", "slots");
    let line = line.text(format!("{least} {} on {slots}", about(estimate.seconds)));
    vec![
        line.then_if_fits(Line::from(", played with the durations of earlier runs"), width)
            .then_if_fits(Line::from("; * longest chain"), width),
    ]
}

/// What each builder does, in order; the local store comes last.
fn by_builder(s: &Summary, estimate: &Estimate, width: usize) -> Vec<Line> {
    let chain: BTreeSet<DrvId> = estimate.chain.iter().copied().collect();
    let least = least(estimate, &chain);
    let mut by_builder: BTreeMap<(bool, BuilderId), Vec<&Turn>> = BTreeMap::new();
    for turn in &estimate.schedule {
        by_builder.entry((turn.builder == LOCAL, turn.builder)).or_default().push(turn);
    }
    let mut lines = Vec::new();
    for ((_, id), turns) in by_builder {
        let name = s.builder_name(id);
        let indent = Line::from(name.as_str()).width().clamp(5, 16) + 4;
        let mut first = Some(Line::from("  ").paint(Paint::Bold, name).fit(indent - 2).pad(indent));
        let (shown, rest): (Vec<&Turn>, Vec<&Turn>) =
            turns.into_iter().partition(|turn| chain.contains(&turn.drv) || turn.to - turn.from >= least);
        for turn in shown {
            let line = first.take().unwrap_or_else(|| Line::new().pad(indent));
            lines.push(one(s, turn, chain.contains(&turn.drv), line).fit(width));
        }
        if !rest.is_empty() {
            let line = first.take().unwrap_or_else(|| Line::new().pad(indent));
            lines.push(line.paint(Paint::Dim, short(&rest, least)).fit(width));
        }
    }
    lines
}

/// `0m00s  4m20s  linux-6.12.58 *`.
fn one(s: &Summary, turn: &Turn, in_chain: bool, line: Line) -> Line {
    let known = s.drvs.get(&turn.drv).is_some_and(|drv| drv.expected.is_some() || drv.fetch);
    let to = if known { clock(turn.to) } else { "?".to_owned() };
    let mark = if in_chain { " *" } else { "" };
    line.text(format!("{:>6} {to:>6}  {}{mark}", clock(turn.from), s.drv_name(turn.drv)))
}

/// What is too short to be shown.
fn short(turns: &[&Turn], least: f64) -> String {
    let first = turns.iter().map(|turn| turn.from).fold(f64::INFINITY, f64::min);
    let last = turns.iter().map(|turn| turn.to).fold(0.0, f64::max);
    let drvs = plural(turns.len(), "other drv", "other drvs");
    format!("{:>6} {:>6}  {drvs}, each under {}", clock(first), clock(last), duration(least))
}

/// Seconds from which a drv is shown.
fn least(estimate: &Estimate, chain: &BTreeSet<DrvId>) -> f64 {
    let others = estimate.schedule.iter().filter(|turn| !chain.contains(&turn.drv));
    let mut lengths: Vec<f64> = others.map(|turn| turn.to - turn.from).collect();
    lengths.sort_by(|a, b| b.total_cmp(a));
    lengths.get(SHOWN).map_or(0.0, |next| next + 0.001)
}

/// The longest chain, each drv with what it takes.
fn chain(s: &Summary, estimate: &Estimate, width: usize) -> Vec<Line> {
    let seconds = duration(estimate.chain_seconds);
    let drvs = plural(estimate.chain.len(), "drv", "drvs");
    let head = Line::new().paint(Paint::Bold, "Longest chain: ").text(format!("{seconds}, {drvs}"));
    let limit = "; more builders would not make it shorter";
    let head = if estimate.chain_seconds >= estimate.seconds * 0.95 {
        head.then_if_fits(Line::from(limit), width)
    } else {
        head
    };
    let mut lines = vec![head];
    let more = estimate.chain.len().saturating_sub(SHOWN);
    for id in estimate.chain.iter().skip(more) {
        let turn = estimate.schedule.iter().find(|turn| turn.drv == *id);
        let known = s.drvs.get(id).and_then(|drv| drv.expected).is_some();
        let took = turn.filter(|_| known).map_or_else(|| "?".to_owned(), |turn| duration(turn.to - turn.from));
        let place = turn.map_or_else(String::new, |turn| format!("  {}", s.builder_name(turn.builder)));
        let name = estimate::chain_names(s, &[*id]).concat();
        lines.push(
            Line::from(format!("  {took:>6}  {name}"))
                .then_if_fits(Line::new().paint(Paint::Dim, place), width)
                .fit(width),
        );
    }
    if more > 0 {
        lines.insert(1, Line::from(format!("  {} before these", count(more))));
    }
    lines
}
