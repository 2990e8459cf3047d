//! "Where the time went": the account of [`super::account`] put together for people. The lines add up to the wall
//! time, also as they are rounded.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{BuilderId, DrvId};

use super::account::{self, Interval, Owner, Place, What};
use super::failure::headline;
use super::number::{clock, count, duration, plural, size};
use super::summary::{LOCAL, Summary};
use super::text::{Line, Paint, listed};

/// How many drvs get a line of their own.
const OWN_LINES: usize = 6;

/// A drv gets a line of its own from this share of the wall time on.
const OWN_SHARE: f64 = 0.03;

/// Wall time, in µs, from which times are shown in whole seconds.
const COARSE: u64 = 10_000_000;

/// Seconds of evaluation and bytes of memory from which the attr that took most is named.
const SLOW: f64 = 1.0;
const LARGE: u64 = 256 << 20;

/// One line of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Microseconds.
    pub time: u64,
    /// What took them.
    pub owner: String,
    /// More about it.
    pub detail: String,
    /// What was being done most of that time.
    pub what: What,
}

/// The screen.
#[must_use]
pub fn screen(summary: &Summary, width: usize) -> Vec<Line> {
    let (total, shown) = told(summary);
    let mut lines = vec![Line::new().paint(Paint::Bold, format!("{total}, and where it went:"))];
    let column = 12 + shown.iter().map(|(_, row)| Line::from(row.owner.as_str()).width()).max().unwrap_or(0);
    for (part, row) in shown {
        let line = Line::from(format!("  {part:>6}  ")).text(row.owner).pad(column.min(width / 2));
        let line = line.text("  ");
        let detail = shortened(&row.detail, width.saturating_sub(line.width()));
        lines.push(line.paint(Paint::Dim, detail).fit(width));
    }
    lines
}

/// The wall time and its rows, with the times as they are shown: they add up to the whole as it is shown. Rows that
/// would be shown as nothing are left out.
#[must_use]
pub fn told(summary: &Summary) -> (String, Vec<(String, Row)>) {
    let rows = rows(summary, &account::of(summary));
    let times: Vec<u64> = rows.iter().map(|row| row.time).collect();
    let (total, parts) = rounded(&times);
    let shown = parts.into_iter().zip(rows).filter(|(part, _)| part.units > 0);
    (total.as_total(), shown.map(|(part, row)| (part.as_part(), row)).collect())
}

/// A detail without its last parts, as far as it takes to fit.
fn shortened(detail: &str, width: usize) -> &str {
    let mut detail = detail;
    while Line::from(detail).width() > width
        && let Some(at) = detail.rfind([',', ';'])
    {
        detail = &detail[..at];
    }
    detail
}

/// The lines in the order in which they first come up. The times add up to the wall time.
#[must_use]
pub fn rows(summary: &Summary, intervals: &[Interval]) -> Vec<Row> {
    let own = own_lines(summary, intervals);
    let mut groups: Vec<(Group, Vec<Interval>)> = Vec::new();
    for interval in intervals {
        let group = group_of(summary, &own, interval);
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, members)) => members.push(*interval),
            None => groups.push((group, vec![*interval])),
        }
    }
    groups.into_iter().map(|(group, members)| row(summary, group, &members)).collect()
}

/// One stretch of time in words: `linux-6.12.58: building on big1`.
#[must_use]
pub fn said(s: &Summary, interval: &Interval) -> String {
    let verb = match interval.what {
        What::Starting => "starting",
        What::Evaluating => "evaluating",
        What::Comparing => "comparing with stores and caches",
        What::Slot { .. } => "waiting for a slot",
        What::Handing => "being handed out",
        What::Again => "waiting to be tried again",
        What::Away => "waiting for a builder",
        What::Preparing => "bringing its inputs",
        What::Elsewhere => "somebody else builds it",
        What::Building => "building",
        What::Fetching => "fetching",
        What::Collecting => "taking over its results",
        What::Returning => "bringing its results home",
        What::Pushing => "pushing",
        What::Closing => "closing the record",
    };
    let place = match (interval.what, interval.place) {
        (_, None) | (_, Some(Place::Cache(_))) => String::new(),
        (What::Slot { .. }, Some(Place::Builder(builder))) => format!(" of {}", s.builder_name(builder)),
        (What::Away, Some(Place::Builder(builder))) => format!(", {}", s.builder_name(builder)),
        (What::Preparing, Some(Place::Builder(builder))) => format!(" to {}", s.builder_name(builder)),
        (What::Collecting | What::Returning, Some(Place::Builder(builder))) => {
            format!(" from {}", s.builder_name(builder))
        }
        (_, Some(Place::Builder(builder))) => format!(" on {}", s.builder_name(builder)),
    };
    match interval.owner {
        Owner::Run => verb.to_owned(),
        Owner::Attr(attr) => format!("{}: {verb}{place}", s.attr_name(attr)),
        Owner::Drv(drv) => format!("{}: {verb}{place}", s.drv_name(drv)),
        Owner::Cache(cache) => format!("{verb} to {}", s.cache_name(cache)),
    }
}

/// What is put together in one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Starting,
    Evaluating,
    Comparing,
    Slot,
    Handing,
    Again,
    Away(Option<Place>),
    Bringing,
    Returning,
    Drv(DrvId),
    Attrs,
    SmallDrvs,
    SmallFetches,
    Pushing,
    Closing,
}

fn group_of(s: &Summary, own: &BTreeSet<DrvId>, interval: &Interval) -> Group {
    match (interval.what, interval.owner) {
        (What::Starting, _) => Group::Starting,
        (What::Evaluating, _) => Group::Evaluating,
        (What::Comparing, _) => Group::Comparing,
        (What::Slot { .. }, _) => Group::Slot,
        (What::Handing, _) => Group::Handing,
        (What::Again, _) => Group::Again,
        (What::Away, _) => Group::Away(interval.place),
        (What::Preparing, _) if is_brought(interval) => Group::Bringing,
        (What::Returning, _) => Group::Returning,
        (What::Pushing, _) => Group::Pushing,
        (What::Closing, _) => Group::Closing,
        (_, Owner::Drv(drv)) if own.contains(&drv) => Group::Drv(drv),
        (What::Fetching, _) => Group::SmallFetches,
        (_, Owner::Drv(drv)) if is_attr(s, drv) => Group::Attrs,
        _ => Group::SmallDrvs,
    }
}

/// The drvs that took long by themselves.
fn own_lines(s: &Summary, intervals: &[Interval]) -> BTreeSet<DrvId> {
    let mut times: BTreeMap<DrvId, u64> = BTreeMap::new();
    for interval in intervals {
        let own = matches!(interval.what, What::Preparing if !is_brought(interval))
            || matches!(interval.what, What::Elsewhere | What::Building | What::Fetching | What::Collecting);
        if let (Owner::Drv(drv), true) = (interval.owner, own) {
            *times.entry(drv).or_default() += length(interval);
        }
    }
    let least = s.end.0 as f64 * OWN_SHARE;
    let mut long: Vec<(u64, DrvId)> = times
        .into_iter()
        .filter(|(_, time)| *time as f64 >= least && *time > 0)
        .map(|(drv, time)| (time, drv))
        .collect();
    long.sort_unstable_by(|a, b| b.cmp(a));
    long.into_iter().take(OWN_LINES).map(|(_, drv)| drv).collect()
}

/// Whether inputs were on their way to a builder other than the local store.
fn is_brought(interval: &Interval) -> bool {
    matches!(interval.place, Some(Place::Builder(builder)) if builder != LOCAL)
}

/// Whether a drv is the result of an attr.
fn is_attr(s: &Summary, drv: DrvId) -> bool {
    s.attrs.values().any(|attr| attr.planned.as_ref().is_some_and(|planned| planned.drv == Some(drv)))
}

fn length(interval: &Interval) -> u64 {
    interval.to.0 - interval.from.0
}

fn row(s: &Summary, group: Group, members: &[Interval]) -> Row {
    let time = members.iter().map(length).sum();
    let drvs = drvs_of(members);
    let (owner, detail) = match group {
        Group::Starting => ("starting".to_owned(), "until the flake is locked".to_owned()),
        Group::Evaluating => ("evaluating".to_owned(), evaluating(s)),
        Group::Comparing => ("comparing".to_owned(), comparing(s)),
        Group::Slot => ("waiting for a slot".to_owned(), waiting(s, members)),
        Group::Handing => ("handing out".to_owned(), format!("{} to builders", plural(drvs.len(), "drv", "drvs"))),
        Group::Again => ("waiting".to_owned(), format!("to try {} again", plural(drvs.len(), "drv", "drvs"))),
        Group::Away(place) => ("waiting for ".to_owned() + &builder(s, place), away(s, place)),
        Group::Bringing => ("bringing inputs".to_owned(), bringing(s, members)),
        Group::Returning => ("bringing results home".to_owned(), returning(s, members)),
        Group::Drv(drv) => (s.drv_name(drv), one_drv(s, drv, members)),
        Group::Attrs => (attrs(s, &drvs), "one after the other".to_owned()),
        Group::SmallDrvs => (plural(drvs.len(), "small drv", "small drvs"), "one after the other".to_owned()),
        Group::SmallFetches => ("fetching".to_owned(), names(s, &drvs)),
        Group::Pushing => ("pushing".to_owned(), pushing(s, members)),
        Group::Closing => ("closing".to_owned(), "the record".to_owned()),
    };
    let detail =
        if drvs.len() == 1 && matches!(group, Group::Attrs | Group::SmallDrvs) { names(s, &drvs) } else { detail };
    let longest = members.iter().max_by_key(|m| length(m));
    Row { time, owner, detail, what: longest.map_or(What::Starting, |longest| longest.what) }
}

fn names(s: &Summary, drvs: &BTreeSet<DrvId>) -> String {
    let names: Vec<String> = drvs.iter().map(|drv| s.drv_name(*drv)).collect();
    listed(&names, ", ", 48)
}

fn evaluating(s: &Summary) -> String {
    let mut detail = plural(s.attrs.len(), "attr", "attrs");
    if s.workers > 0 {
        detail.push_str(&format!(", {}", plural(s.workers as usize, "worker", "workers")));
    }
    match s.imports().len() {
        0 => {}
        n => detail.push_str(&format!(", {}", plural(n, "import from a derivation", "imports from derivations"))),
    }
    if let Some(first) = s.attempts.values().map(|attempt| attempt.building.unwrap_or(attempt.started)).min() {
        detail.push_str(&format!("; first build at {}", clock(first.seconds())));
    }
    for heavy in heaviest(s) {
        detail.push_str(&format!("; {heavy}"));
    }
    detail
}

/// `slowest web1 4.2s`, `most memory db1 1.2 GiB`, where one attr among others stands out and it was measured.
fn heaviest(s: &Summary) -> impl Iterator<Item = String> {
    let measured = || s.attrs.values().filter(|attr| attr.memory.is_some());
    let several = measured().nth(1).is_some();
    let seconds = measured().filter_map(|attr| Some((attr, attr.eval_seconds()?)));
    let slowest = seconds.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, seconds)| *seconds >= SLOW);
    let grown = measured().filter_map(|attr| Some((attr, attr.memory?.grown)));
    let largest = grown.max_by_key(|(_, bytes)| *bytes).filter(|(_, bytes)| *bytes >= LARGE);
    let slowest = slowest.map(|(attr, seconds)| format!("slowest {} {}", attr.name, duration(seconds)));
    let largest = largest.map(|(attr, bytes)| format!("most memory {} {}", attr.name, size(bytes)));
    slowest.into_iter().chain(largest).filter(move |_| several)
}

fn comparing(s: &Summary) -> String {
    let caches = s.caches.values().filter(|cache| cache.pull).count();
    let paths = s.diff.map(|diff| plural(diff.paths as usize, "path", "paths"));
    let caches = (caches > 0).then(|| plural(caches, "cache", "caches"));
    [paths, caches].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn waiting(s: &Summary, members: &[Interval]) -> String {
    let systems: BTreeSet<String> = members
        .iter()
        .filter_map(|m| if let Owner::Drv(drv) = m.owner { Some(s.drvs.get(&drv)?.system.to_string()) } else { None })
        .collect();
    let queued = members.iter().map(|m| if let What::Slot { queued } = m.what { queued } else { 0 }).max();
    let systems: Vec<String> = systems.into_iter().collect();
    format!("{}, {} queued", systems.join(", "), plural(queued.unwrap_or(0) as usize, "drv", "drvs"))
}

/// `builder big1`.
fn builder(s: &Summary, place: Option<Place>) -> String {
    match place {
        Some(Place::Builder(builder)) => format!("builder {}", s.builder_name(builder)),
        _ => "a builder".to_owned(),
    }
}

/// Why a builder that was waited for was away: what it last died of.
fn away(s: &Summary, place: Option<Place>) -> String {
    let Some(Place::Builder(id)) = place else { return String::new() };
    let Some(known) = s.builders.get(&id) else { return String::new() };
    let lost = known.outages.iter().filter(|outage| outage.lost).count();
    let times = match (known.outages.last(), known.pauses.last(), lost) {
        (None, None, _) => return "until it was there".to_owned(),
        (None, Some((_, why)), _) => return format!("paused: {why}"),
        (Some(_), _, 0) => "unreachable".to_owned(),
        (Some(_), _, 1) => "lost once".to_owned(),
        (Some(_), _, n) => format!("lost {n} times"),
    };
    let last = known.outages.last().map(|outage| headline(&outage.failure.message)).unwrap_or_default();
    format!("{times}: {last}")
}

/// `12 drvs to big1, big2`.
fn bringing(s: &Summary, members: &[Interval]) -> String {
    let (drvs, builders) = (drvs_of(members), builders_of(s, members));
    let attempts = s.attempts.values().filter(|attempt| drvs.contains(&attempt.drv));
    let bytes = attempts.filter_map(|a| a.prepared).fold(0_u64, |sum, p| sum.saturating_add(p.copied_size));
    let bytes = if bytes > 0 { format!(", {}", size(bytes)) } else { String::new() };
    format!("of {} to {builders}{bytes}", plural(drvs.len(), "drv", "drvs"))
}

/// `of 3 drvs from big1, 214 MiB`.
fn returning(s: &Summary, members: &[Interval]) -> String {
    let (drvs, builders) = (drvs_of(members), builders_of(s, members));
    let returns = drvs.iter().filter_map(|drv| s.drvs.get(drv)).flat_map(|drv| &drv.returns);
    let bytes = returns.fold(0_u64, |sum, back| sum.saturating_add(back.nar_size));
    let bytes = if bytes > 0 { format!(", {}", size(bytes)) } else { String::new() };
    format!("of {} from {builders}{bytes}", plural(drvs.len(), "drv", "drvs"))
}

fn drvs_of(members: &[Interval]) -> BTreeSet<DrvId> {
    members.iter().filter_map(|m| if let Owner::Drv(drv) = m.owner { Some(drv) } else { None }).collect()
}

fn builders_of(s: &Summary, members: &[Interval]) -> String {
    let builders: BTreeSet<BuilderId> =
        members.iter().filter_map(|m| if let Some(Place::Builder(id)) = m.place { Some(id) } else { None }).collect();
    builders.into_iter().map(|id| s.builder_name(id)).collect::<Vec<_>>().join(", ")
}

/// `building on big1, usually 4m20s`, after what took it longest.
fn one_drv(s: &Summary, drv: DrvId, members: &[Interval]) -> String {
    let Some(longest) = members.iter().max_by_key(|m| length(m)) else { return String::new() };
    let verb = match longest.what {
        What::Preparing => "bringing its inputs",
        What::Elsewhere => "somebody else builds it",
        What::Fetching => "fetching",
        What::Collecting => "taking over its results",
        _ => "building",
    };
    let mut detail = match (longest.place, longest.what) {
        (Some(Place::Builder(builder)), What::Preparing) => format!("{verb} to {}", s.builder_name(builder)),
        (Some(Place::Builder(builder)), What::Collecting) => format!("{verb} from {}", s.builder_name(builder)),
        (Some(Place::Builder(builder)), _) => format!("{verb} on {}", s.builder_name(builder)),
        _ => verb.to_owned(),
    };
    if let Some(known) = s.drvs.get(&drv) {
        let place = if let Some(Place::Builder(builder)) = longest.place { builder } else { LOCAL };
        if let Some(expected) = s.expected_on(known, place).filter(|_| longest.what == What::Building) {
            detail.push_str(&format!(", usually {}", duration(expected)));
        }
        if known.attempts.len() > 1 {
            detail.push_str(&format!(", {} attempts", count(known.attempts.len())));
        }
    }
    detail
}

/// `9 host toplevels`, `9 host toplevels, 2 packages`.
fn attrs(s: &Summary, drvs: &BTreeSet<DrvId>) -> String {
    // Several attrs may share a drv; it counts once, as the first of them.
    let mut left = drvs.clone();
    let kinds = s.kinds(|id| {
        let drv = s.attrs.get(&id).and_then(|attr| attr.planned.as_ref()?.drv);
        drv.is_some_and(|drv| left.remove(&drv))
    });
    let parts = kinds.into_iter().map(|(kind, n)| match kind {
        crate::id::Kind::NixosConfigurations => plural(n, "host toplevel", "host toplevels"),
        other => format!("{} {}", count(n), other.noun(n)),
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn pushing(s: &Summary, members: &[Interval]) -> String {
    let caches: BTreeSet<String> = members
        .iter()
        .filter_map(|m| if let Owner::Cache(cache) = m.owner { Some(s.cache_name(cache)) } else { None })
        .collect();
    let built = !s.attempts.is_empty();
    let names = caches.into_iter().collect::<Vec<_>>().join(", ");
    if built { format!("tail after the last build, {names}") } else { names }
}

/// A time in the unit in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    units: u64,
    /// The unit is a second, else a tenth of one.
    coarse: bool,
}

impl Shown {
    fn as_part(self) -> String {
        if self.coarse { clock(self.units as f64) } else { format!("{:.1}s", self.units as f64 / 10.0) }
    }

    fn as_total(self) -> String {
        if self.coarse { duration(self.units as f64) } else { self.as_part() }
    }
}

/// The wall time and its parts as they are shown. The parts add up to the whole as shown, too: those that lose most
/// by rounding down are rounded up.
fn rounded(parts: &[u64]) -> (Shown, Vec<Shown>) {
    let sum: u64 = parts.iter().sum();
    let coarse = sum >= COARSE;
    let unit = if coarse { 1_000_000 } else { 100_000 };
    let total = (sum + unit / 2) / unit;
    let mut units: Vec<u64> = parts.iter().map(|part| part / unit).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(parts[*i] % unit));
    // Less than one unit is missing for each part.
    let missing = total - units.iter().sum::<u64>();
    for i in order.into_iter().take(missing as usize) {
        units[i] += 1;
    }
    (Shown { units: total, coarse }, units.into_iter().map(|units| Shown { units, coarse }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_as_they_are_shown() {
        for parts in [vec![], vec![1], vec![33_333_333; 3], vec![490_000; 9], vec![52_400_000, 295_700_000, 83_900_001]]
        {
            let (total, shown) = rounded(&parts);
            assert_eq!(total.units, shown.iter().map(|part| part.units).sum::<u64>(), "{parts:?}");
        }
    }
}
