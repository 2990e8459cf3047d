//! `drover cache verify`: which paths of a cache are broken, and what became of them.

use serde::Serialize;

use super::super::number::{count, duration, plural, size};
use super::super::text::{Line, Paint, wrapped};
use super::{NAMED, head};

/// What was found in some caches; the document of `--json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Verified {
    /// The format of this document.
    pub version: u32,
    /// Each of them.
    pub caches: Vec<Checked>,
    /// Somebody stopped it.
    pub stopped: bool,
    /// Wall time.
    pub seconds: f64,
    /// Broken paths were to be mended.
    pub repair: bool,
}

/// What was found in one cache.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Checked {
    /// What people call it.
    pub name: String,
    /// Where it is, without login.
    pub url: String,
    /// Paths that were looked at.
    pub paths: usize,
    /// NARs that were read to their ends.
    pub nars_read: usize,
    /// Bytes of these.
    pub bytes_read: u64,
    /// What is broken; one entry a path.
    pub findings: Vec<Finding>,
    /// Paths that refer to broken ones that are still broken.
    pub referrers: usize,
    /// What could not be found out: a name and why.
    pub no_answer: Vec<(String, String)>,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

/// A broken path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Finding {
    /// The absolute path; the name of its record if it is not known.
    pub path: String,
    /// What people call it.
    pub name: String,
    /// What is wrong, most important first: a word and a sentence.
    pub faults: Vec<Wrong>,
    /// Where what mended it came from.
    pub mended: Option<String>,
    /// Why it could not be mended.
    pub not_mended: Option<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Wrong {
    /// `record`, `nar_size`, …
    pub fault: String,
    /// In words.
    pub message: String,
}

impl Verified {
    /// Broken paths that are still broken.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.caches.iter().map(Checked::broken).sum()
    }

    /// Whether something could not be found out.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.caches.iter().any(|cache| !cache.no_answer.is_empty())
    }
}

impl Checked {
    fn broken(&self) -> usize {
        self.findings.iter().filter(|finding| finding.mended.is_none()).count()
    }
}

/// The screen.
#[must_use]
pub fn screen(verified: &Verified, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for cache in &verified.caches {
        lines.extend(one(cache, verified.repair, width));
        lines.push(Line::new());
    }
    lines.push(last(verified).fit(width));
    lines
}

fn one(cache: &Checked, repair: bool, width: usize) -> Vec<Line> {
    let mut lines = vec![head(&cache.name, &cache.url, &plural(cache.paths, "path", "paths")).fit(width)];
    lines.extend(cache.notes.iter().map(|note| Line::from(format!("  {note}")).fit(width)));
    let (mended, broken): (Vec<&Finding>, Vec<&Finding>) =
        cache.findings.iter().partition(|finding| finding.mended.is_some());
    if !mended.is_empty() {
        lines.push(title(Paint::Good, "mended", mended.len(), cache.paths));
        lines.extend(rows(&mended, width));
    }
    if !broken.is_empty() {
        lines.push(title(Paint::Bad, if repair { "NOT MENDED" } else { "BROKEN" }, broken.len(), cache.paths));
        lines.extend(rows(&broken, width));
        let refer = match cache.referrers {
            0 => String::new(),
            1 => "1 path refers to them; ".to_owned(),
            n => format!("{} paths refer to them; ", count(n)),
        };
        let way = match repair {
            false => format!("{refer}to mend them: drover cache verify {} --repair", cache.name),
            true => format!("{refer}to build them again: drover run --push-to {} --require-complete", cache.name),
        };
        lines.push(Line::from(format!("  {way}")));
    }
    if !cache.no_answer.is_empty() {
        lines.push(title(Paint::Warn, "no answer", cache.no_answer.len(), cache.paths));
        let shown = cache.no_answer.iter().take(NAMED);
        lines.extend(shown.map(|(name, why)| Line::from(format!("  {name}  {why}")).fit(width)));
        lines.extend(more(cache.no_answer.len()));
    }
    lines
}

fn title(paint: Paint, word: &str, n: usize, of: usize) -> Line {
    Line::new().paint(paint, word).text(format!("  {} of {}", count(n), plural(of, "path", "paths")))
}

/// Two lines a path at most: its name and what is wrong with it, then what became of it.
fn rows(findings: &[&Finding], width: usize) -> Vec<Line> {
    let shown = &findings[..findings.len().min(NAMED)];
    let widest = shown.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0).min(30);
    let mut lines = Vec::new();
    for finding in shown {
        let start = Line::from(format!("  {}", finding.name)).pad(widest + 2).text("  ");
        let wrong = finding.faults.first().map(|wrong| wrong.message.as_str()).unwrap_or_default();
        let indent = start.width();
        let mut first = Some(start);
        for text in wrapped(wrong, width.saturating_sub(indent), 3) {
            let line = first.take().unwrap_or_else(|| Line::new().pad(indent));
            lines.push(line.text(text));
        }
        lines.extend(first);
        let end = match (&finding.mended, &finding.not_mended) {
            (Some(from), _) => Some(format!("mended from {from}")),
            (None, Some(why)) => Some(why.clone()),
            (None, None) => None,
        };
        lines.extend(end.map(|end| Line::new().pad(indent).text(end).fit(width)));
    }
    lines.extend(more(findings.len()));
    lines
}

fn more(all: usize) -> Option<Line> {
    (all > NAMED).then(|| Line::from(format!("  and {} more; all of them: --json", count(all - NAMED))))
}

fn last(verified: &Verified) -> Line {
    let paths: usize = verified.caches.iter().map(|cache| cache.paths).sum();
    let nars: usize = verified.caches.iter().map(|cache| cache.nars_read).sum();
    let bytes = verified.caches.iter().fold(0u64, |sum, cache| sum.saturating_add(cache.bytes_read));
    let read = match nars {
        0 => "no NAR read (--deep reads them)".to_owned(),
        n => format!("{} read, {}", plural(n, "NAR", "NARs"), size(bytes)),
    };
    let all = plural(paths, "path", "paths");
    let (paint, word, what) = match (verified.stopped, verified.broken()) {
        (true, n) => (Paint::Warn, "stopped", format!("  {} broken among those that were looked at", count(n))),
        (false, 0) if verified.is_unsure() => {
            (Paint::Warn, "not all known", format!("  nothing broken was found of {all}"))
        }
        (false, 0) => (Paint::Good, "ok", format!("  {all}, all whole")),
        (false, n) => (Paint::Bad, "broken", format!("  {} of {all}", count(n))),
    };
    let mended: usize = verified.caches.iter().map(|cache| cache.findings.len() - cache.broken()).sum();
    let mended = if mended > 0 { format!(" · {} mended", count(mended)) } else { String::new() };
    Line::new().paint(paint, word).text(format!("{what}{mended} · {read} · {}", duration(verified.seconds)))
}
