//! The tables of the page.

use crate::event::{Evaluated, Status};
use crate::record::history::{CacheUse, Entry};
use crate::report::failure;
use crate::report::number::{clock, count, duration, size};
use crate::report::summary::{Attempt, Attr, LOCAL, Summary};
use crate::report::timeline;

/// Rows of drvs, of evaluations and of attrs; those that took longest, and the failed before all others.
const DRVS: usize = 20;
const EVALS: usize = 12;
const ATTRS: usize = 400;

/// A builder.
pub(super) struct BuilderRow {
    pub(super) name: String,
    pub(super) slots: String,
    pub(super) attempts: String,
    /// Percents of the time that its slots were there.
    pub(super) busy: String,
    pub(super) busy_time: String,
    pub(super) brought: String,
    pub(super) note: String,
}

/// A cache.
pub(super) struct CacheRow {
    pub(super) name: String,
    pub(super) present: String,
    pub(super) absent: String,
    pub(super) other: String,
    pub(super) pushed: String,
    pub(super) bytes: String,
    pub(super) note: String,
}

/// An attempt at a drv.
pub(super) struct DrvRow {
    pub(super) name: String,
    pub(super) builder: String,
    pub(super) failed: bool,
    pub(super) at: String,
    pub(super) waited: String,
    pub(super) inputs: String,
    pub(super) time: String,
    /// Percents of the longest.
    pub(super) percent: String,
    pub(super) usual: String,
    pub(super) cpu: String,
    pub(super) output: String,
}

/// An evaluation.
pub(super) struct EvalRow {
    pub(super) name: String,
    pub(super) time: String,
    pub(super) percent: String,
    pub(super) memory: String,
}

/// Columns in which something is known.
pub(super) struct Columns {
    pub(super) usual: bool,
    pub(super) cpu: bool,
    pub(super) inputs: bool,
    pub(super) output: bool,
    pub(super) memory: bool,
}

impl Columns {
    pub(super) fn of(drvs: &[DrvRow], evals: &[EvalRow]) -> Self {
        let some = |of: fn(&DrvRow) -> &str| drvs.iter().any(|drv| !of(drv).is_empty());
        Self {
            usual: some(|drv| &drv.usual),
            cpu: some(|drv| &drv.cpu),
            inputs: some(|drv| &drv.inputs),
            output: some(|drv| &drv.output),
            memory: evals.iter().any(|eval| !eval.memory.is_empty()),
        }
    }
}

/// An attr.
pub(super) struct AttrRow {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) mood: &'static str,
    pub(super) status: String,
    pub(super) eval: String,
    pub(super) builds: String,
    pub(super) ended: String,
    pub(super) closure: String,
}

pub(super) fn builders(s: &Summary, this: &Entry) -> Vec<BuilderRow> {
    if s.attempts.is_empty() && this.builders.iter().all(|used| used.lost == 0) {
        return Vec::new();
    }
    let rows = s.builders.values().zip(&this.builders).filter(|(_, used)| used.slots > 0 || used.lost > 0);
    rows.map(|(builder, used)| {
        let there = used.up * f64::from(used.slots);
        let outage = builder.outages.last().map(|outage| failure::headline(&outage.failure.message));
        let systems: Vec<String> = used.systems.iter().map(ToString::to_string).collect();
        BuilderRow {
            name: used.name.clone(),
            slots: count(used.slots as usize),
            attempts: count(used.attempts as usize),
            busy: super::chart::percent(if there > 0.0 { used.busy / there } else { 0.0 }),
            busy_time: duration(used.busy),
            brought: some(used.brought),
            note: outage.map_or_else(|| systems.join(" "), |why| format!("lost: {why}")),
        }
    })
    .collect()
}

pub(super) fn caches(this: &Entry) -> Vec<CacheRow> {
    let row = |cache: &CacheUse| {
        let asked = cache.present + cache.absent + cache.untrusted + cache.no_answer > 0;
        let other = [(cache.untrusted, "untrusted"), (cache.no_answer, "unanswered")];
        let other = other.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", super::number(*n)));
        let trouble = cache.trouble.as_ref().map(|trouble| {
            let (from, to) = (clock(trouble.spell.start), clock(trouble.spell.end));
            format!("{}: {} requests repeated, {from} to {to}", trouble.reason, count(trouble.requests as usize))
        });
        let failed = (cache.push_failed > 0).then(|| format!("{} not pushed", super::number(cache.push_failed)));
        CacheRow {
            name: cache.name.clone(),
            present: if asked { super::number(cache.present) } else { String::new() },
            absent: if asked { super::number(cache.absent) } else { String::new() },
            other: other.collect::<Vec<_>>().join(", "),
            pushed: if cache.pushed > 0 { super::number(cache.pushed) } else { String::new() },
            bytes: some(cache.pushed_bytes),
            note: failed.into_iter().chain(trouble).collect::<Vec<_>>().join(" · "),
        }
    };
    let known = |used: &&CacheUse| {
        let asked = used.present + used.absent + used.untrusted + used.no_answer;
        asked + used.pushed + used.push_failed > 0 || used.trouble.is_some()
    };
    this.caches.iter().filter(known).map(row).collect()
}

/// The attempts that took longest, and of how many.
pub(super) fn drvs(s: &Summary) -> (Vec<DrvRow>, usize) {
    let mut all: Vec<&Attempt> = s.attempts.values().filter(|attempt| attempt.building.is_some()).collect();
    let of = all.len();
    all.sort_by(|a, b| b.seconds(s.end).total_cmp(&a.seconds(s.end)));
    all.truncate(DRVS);
    let longest = all.first().map_or(1.0, |first| first.seconds(s.end)).max(1e-6);
    (all.into_iter().filter_map(|attempt| drv(s, attempt, longest)).collect(), of)
}

fn drv(s: &Summary, attempt: &Attempt, longest: f64) -> Option<DrvRow> {
    let drv = s.drvs.get(&attempt.drv)?;
    let time = attempt.seconds(s.end);
    let ready = timeline::ready(s, drv);
    let prepared = attempt.prepared.map(|prepared| prepared.at);
    let inputs = prepared.filter(|_| attempt.builder != LOCAL).map(|at| at.since(attempt.started));
    Some(DrvRow {
        name: drv.name.to_string(),
        builder: s.builder_name(attempt.builder),
        failed: attempt.failure().is_some(),
        at: clock(attempt.building.unwrap_or(attempt.started).seconds()),
        waited: short(attempt.started.since(ready)),
        inputs: inputs.map(short).unwrap_or_default(),
        time: duration(time),
        percent: super::chart::percent(time / longest),
        usual: s.expected_on(drv, attempt.builder).map(duration).unwrap_or_default(),
        cpu: attempt.cpu.map(duration).unwrap_or_default(),
        output: s.sizes.get(&attempt.drv).map(|bytes| size(*bytes)).unwrap_or_default(),
    })
}

/// The evaluations that took longest.
pub(super) fn evals(s: &Summary) -> Vec<EvalRow> {
    let mut all: Vec<_> = s.attrs.values().filter_map(|attr| Some((attr, attr.eval_seconds()?))).collect();
    all.retain(|(_, seconds)| *seconds > 0.0);
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let longest = all.first().map_or(1.0, |(_, seconds)| *seconds);
    let row = |(attr, seconds): &(&Attr, f64)| EvalRow {
        name: attr.name.to_string(),
        time: duration(*seconds),
        percent: super::chart::percent(seconds / longest),
        memory: attr.memory.map(|memory| size(memory.peak)).unwrap_or_default(),
    };
    all.iter().take(EVALS).map(row).collect()
}

/// All attrs, those in trouble first, and how many are left out.
pub(super) fn attrs(s: &Summary) -> (Vec<AttrRow>, usize) {
    let mut all: Vec<_> = s.taken().into_iter().filter_map(|id| s.attrs.get(&id)).map(|a| (s.status(a), a)).collect();
    all.sort_by_key(|(status, _)| order(*status));
    let left = all.len().saturating_sub(ATTRS);
    let row = |(status, attr): &(Option<Status>, &Attr)| AttrRow {
        name: attr.name.to_string(),
        path: attr.path.to_string(),
        mood: mood(*status),
        status: said(*status),
        eval: attr.eval_seconds().filter(|seconds| *seconds > 0.0).map(duration).unwrap_or_default(),
        builds: attr.planned.as_ref().filter(|p| p.builds > 0).map(|p| count(p.builds as usize)).unwrap_or_default(),
        ended: ended(attr).unwrap_or_default(),
        closure: attr.closure.map(|(_, bytes)| size(bytes)).unwrap_or_default(),
    };
    (all.iter().take(ATTRS).map(row).collect(), left)
}

/// When it had its final word, of what took some doing.
fn ended(attr: &Attr) -> Option<String> {
    let end = attr.ended.as_ref()?;
    let done = matches!(end.status, Status::Built | Status::Failed | Status::EvalFailed);
    let nothing = matches!(attr.evaluated, Some((_, Evaluated::Nothing { .. })));
    (done && !nothing).then(|| clock(end.at.seconds()))
}

fn order(status: Option<Status>) -> u8 {
    match mood(status) {
        "bad" => 0,
        "warn" => 1,
        _ if status == Some(Status::Built) => 2,
        _ => 3,
    }
}

fn mood(status: Option<Status>) -> &'static str {
    match status {
        Some(Status::Failed | Status::EvalFailed) => "bad",
        None | Some(Status::Skipped) => "warn",
        Some(Status::Built) => "good",
        Some(_) => "",
    }
}

/// `eval failed`, `to build`.
fn said(status: Option<Status>) -> String {
    let word = status.and_then(|status| serde_json::to_value(status).ok());
    let word = word.and_then(|word| word.as_str().map(|word| word.replace('_', " ")));
    word.unwrap_or_else(|| "not decided".to_owned())
}

fn some(bytes: u64) -> String {
    if bytes > 0 { size(bytes) } else { String::new() }
}

/// A time that is worth a word.
fn short(seconds: f64) -> String {
    if seconds >= 0.05 { duration(seconds) } else { String::new() }
}
