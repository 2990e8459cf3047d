//! `drover cache status`: what each cache holds, how often it had what was asked for, what was last pushed to it.

use jiff::Timestamp;
use serde::Serialize;

use super::super::number::{ago, count, duration, plural, size};
use super::super::text::Line;
use super::head;
use crate::event::Status;
use crate::report::pushed::totals;
use crate::report::summary::Summary;

/// All caches; the document of `--json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct CacheStatus {
    /// The format of this document.
    pub version: u32,
    /// Each of them, in the order in which they are asked.
    pub caches: Vec<One>,
}

/// One cache.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct One {
    /// What people call it.
    pub name: String,
    /// Where it is, without login.
    pub url: String,
    /// It is read from.
    pub pull: bool,
    /// It is pushed to.
    pub push: bool,
    /// The names of the keys that sign what is pushed.
    pub signed_by: Vec<String>,
    /// What it holds; `None` where it does not say.
    pub holds: Option<Holds>,
    /// Seconds that listing it took.
    pub seconds: f64,
    /// Why nothing is known of it.
    pub error: Option<String>,
    /// What recorded runs asked it.
    #[serde(rename = "use")]
    pub used: Use,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Holds {
    /// Paths.
    pub paths: usize,
    /// NARs.
    pub nars: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// What runs had of a cache.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Use {
    /// Recorded runs that asked it or pushed to it.
    pub runs: usize,
    /// Paths that it was asked for and gave an answer.
    pub paths_asked: u64,
    /// Of these: it had them.
    pub paths_hit: u64,
    /// Attrs of these runs that evaluate.
    pub attrs: usize,
    /// Of these: nothing had to be built for them.
    pub attrs_hit: usize,
    /// Bytes of NARs that were fetched from it.
    pub bytes_fetched: u64,
    /// The last push.
    pub last_push: Option<LastPush>,
}

/// A push on record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastPush {
    /// The run, as it is shown.
    pub run: String,
    /// When it began.
    pub started: Timestamp,
    /// Paths that were uploaded or found.
    pub paths: usize,
    /// Paths that did not get there.
    pub missing: usize,
    /// Bytes uploaded.
    pub bytes: u64,
}

/// What one cache is used for, of all runs, the newest first.
#[must_use]
pub fn used<'a>(runs: impl IntoIterator<Item = (&'a str, &'a Summary)>, url: &str) -> Use {
    let mut sum = Use::default();
    for (run, summary) in runs {
        let Some((id, cache)) = summary.caches.iter().find(|(_, cache)| &*cache.url == url) else { continue };
        let totals = totals(summary, *id);
        let asked = cache.asked.unwrap_or_default();
        let answered = u64::from(asked.present) + u64::from(asked.absent) + u64::from(asked.untrusted);
        if answered == 0 && totals.queued == 0 {
            continue;
        }
        sum.runs += 1;
        sum.paths_asked += answered;
        sum.paths_hit += u64::from(asked.present);
        let fetched = summary.fetches.iter().filter(|fetched| fetched.cache == *id);
        sum.bytes_fetched = fetched.fold(sum.bytes_fetched, |sum, fetched| sum.saturating_add(fetched.nar_size));
        let statuses = summary.taken().into_iter().filter_map(|attr| summary.status(summary.attrs.get(&attr)?));
        for status in statuses.filter(|status| !matches!(status, Status::EvalFailed | Status::Skipped)) {
            sum.attrs += 1;
            let hit = matches!(status, Status::Cached | Status::Valid | Status::ToFetch | Status::Unaffected);
            sum.attrs_hit += usize::from(hit);
        }
        if sum.last_push.is_none()
            && totals.queued > 0
            && let Some(header) = &summary.header
        {
            sum.last_push = Some(LastPush {
                run: run.to_owned(),
                started: header.started,
                paths: totals.there,
                missing: totals.missing.len(),
                bytes: totals.bytes,
            });
        }
    }
    sum
}

/// The screen.
#[must_use]
pub fn screen(status: &CacheStatus, now: Timestamp, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for cache in &status.caches {
        lines.extend(one(cache, now).into_iter().map(|line| line.fit(width)));
    }
    if lines.is_empty() {
        lines.push(Line::from("there is no cache: neither Nix nor drover.toml names one"));
    }
    lines
}

fn one(cache: &One, now: Timestamp) -> Vec<Line> {
    let role = match (cache.pull, cache.push) {
        (true, true) => "pull+push",
        (false, true) => "push",
        _ => "pull",
    };
    let signed = match (cache.push, cache.signed_by.as_slice()) {
        (false, _) => String::new(),
        (true, []) => ", not signed".to_owned(),
        (true, keys) => format!(", signed by {}", keys.join(" and ")),
    };
    let mut lines = vec![head(&cache.name, &cache.url, &format!("{role}{signed}"))];
    lines.push(Line::from(match (&cache.error, &cache.holds) {
        (Some(error), _) => format!("  error      {error}"),
        (None, Some(holds)) => {
            let (paths, nars) = (plural(holds.paths, "path", "paths"), plural(holds.nars, "NAR", "NARs"));
            format!("  holds      {paths}, {} in {nars}   listed in {}", size(holds.bytes), duration(cache.seconds))
        }
        (None, None) => "  holds      unknown (a server does not say)".to_owned(),
    }));
    let used = &cache.used;
    if used.runs > 0 {
        let runs = plural(used.runs, "recorded run", "recorded runs");
        let paths = rate(used.paths_hit, used.paths_asked, "paths");
        let attrs = rate(used.attrs_hit as u64, used.attrs as u64, "attrs without a build");
        let fetched = (used.bytes_fetched > 0).then(|| format!("{} of NARs fetched", size(used.bytes_fetched)));
        let parts: Vec<String> = [paths, attrs, fetched].into_iter().flatten().collect();
        if !parts.is_empty() {
            lines.push(Line::from(format!("  hit rate   {}   in {runs}", parts.join(" · "))));
        }
    }
    if let Some(push) = &used.last_push {
        let when = ago(now.as_second().saturating_sub(push.started.as_second()));
        let missing = if push.missing > 0 { format!(", {} not pushed", count(push.missing)) } else { String::new() };
        let paths = plural(push.paths, "path", "paths");
        lines.push(Line::from(format!("  last push  {when}  {}  {paths}, {}{missing}", push.run, size(push.bytes))));
    } else if cache.push {
        lines.push(Line::from("  last push  none on record"));
    }
    lines
}

/// `98% (29,480 of 30,112 paths)`; nothing of nothing.
fn rate(hit: u64, of: u64, what: &str) -> Option<String> {
    let percent = hit.saturating_mul(100).checked_div(of)?;
    let number = |n: u64| count(usize::try_from(n).unwrap_or(usize::MAX));
    Some(format!("{percent}% ({} of {} {what})", number(hit), number(of)))
}
