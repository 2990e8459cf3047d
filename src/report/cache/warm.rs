//! `drover cache warm`: what was copied, and what no cache has.

use serde::Serialize;

use super::super::number::{count, duration, plural, size};
use super::super::text::{Line, Paint, listed};
use super::NAMED;

/// What came of it; the document of `--json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Warmed {
    /// The format of this document.
    pub version: u32,
    /// Each cache that was warmed.
    pub caches: Vec<WarmedCache>,
    /// Somebody stopped it.
    pub stopped: bool,
    /// Wall time.
    pub seconds: f64,
}

/// What one cache got.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct WarmedCache {
    /// What people call it.
    pub name: String,
    /// Where it is, without login.
    pub url: String,
    /// Paths that were copied.
    pub copied: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Paths that were there, as far as they were looked at.
    pub there: usize,
    /// Attrs that it has now, with all that they refer to.
    pub warm: Vec<String>,
    /// Attrs that no cache has.
    pub not_built: Vec<String>,
    /// Attrs of which it has not all.
    pub not_whole: Vec<String>,
    /// Paths that could not be copied, and why.
    pub failed: Vec<(String, String)>,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

impl Warmed {
    /// Whether some cache has not got all that another has.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.caches.iter().any(|cache| !cache.failed.is_empty() || !cache.not_whole.is_empty())
    }
}

/// The screen.
#[must_use]
pub fn screen(warmed: &Warmed, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for cache in &warmed.caches {
        lines.extend(one(cache, warmed.stopped, width));
    }
    let took = duration(warmed.seconds);
    match (warmed.stopped, lines.last_mut()) {
        (false, Some(last)) => *last = std::mem::take(last).text(format!(" · {took}")).fit(width),
        _ => lines.push(Line::new().paint(Paint::Warn, "stopped").text(format!("  what was copied stays · {took}"))),
    }
    lines
}

fn one(cache: &WarmedCache, stopped: bool, width: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = cache.notes.iter().map(|note| Line::from(note.as_str()).fit(width)).collect();
    if !cache.failed.is_empty() {
        let title = format!("  {} to {}", plural(cache.failed.len(), "path", "paths"), cache.name);
        lines.push(Line::new().paint(Paint::Bad, "NOT COPIED").text(title));
        let failed = cache.failed.iter().take(NAMED);
        lines.extend(failed.map(|(name, why)| Line::from(format!("  {name}  {why}")).fit(width)));
        if cache.failed.len() > NAMED {
            lines.push(Line::from(format!("  and {} more; all of them: --json", count(cache.failed.len() - NAMED))));
        }
    }
    if !cache.not_built.is_empty() {
        let start = Line::from(format!("in no cache: {}  ", count(cache.not_built.len())));
        let names = listed(&cache.not_built, " ", width.saturating_sub(start.width()));
        lines.push(start.text(names));
        lines.push(Line::from(format!("  to build them: drover run --push-to {}", cache.name)));
    }
    if !stopped {
        lines.push(last(cache));
    }
    lines
}

fn last(cache: &WarmedCache) -> Line {
    let (paint, word) = match (cache.failed.is_empty(), cache.not_built.is_empty()) {
        (false, _) => (Paint::Bad, "not all copied"),
        (true, false) => (Paint::Warn, "not all there"),
        (true, true) => (Paint::Good, "ok"),
    };
    let attrs = plural(cache.warm.len(), "attr", "attrs");
    let copied = plural(cache.copied, "path", "paths");
    let what = format!("  {}: {attrs} warm · {copied} copied, {}", cache.name, size(cache.bytes));
    Line::new().paint(paint, word).text(what).text(format!(", {} there", count(cache.there)))
}
