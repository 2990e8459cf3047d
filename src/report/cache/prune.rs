//! `drover cache prune`: what would be deleted, or was.

use serde::Serialize;

use super::super::number::{count, duration, plural, size};
use super::super::text::{Line, Paint, listed};
use super::head;

/// What was decided and done; the document of `--json`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Pruned {
    /// The format of this document.
    pub version: u32,
    /// What people call the cache.
    pub name: String,
    /// Where it is, without login.
    pub url: String,
    /// Paths that stay.
    pub kept: Kept,
    /// Paths that go, as they were found, in the order of deletion: names with versions.
    pub doomed: Vec<String>,
    /// Bytes that this frees, with those of `unused`.
    pub bytes: u64,
    /// Bytes that stay in NARs.
    pub bytes_left: u64,
    /// NARs of no path, which go too.
    pub unused: usize,
    /// Records that cannot be read; they stay.
    pub unreadable: usize,
    /// What was deleted; `None`: nothing, it was only looked.
    pub deleted: Option<Deleted>,
    /// Somebody stopped it.
    pub stopped: bool,
    /// Wall time.
    pub seconds: f64,
    /// What to type to do it.
    #[serde(skip)]
    pub again: String,
}

/// How many paths stay, by the first rule that keeps each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Kept {
    /// Named by `--keep-roots`, or wanted by a recorded run of the last days.
    pub roots: usize,
    /// Written in the last days.
    pub recent: usize,
    /// The newest of their names.
    pub last: usize,
    /// Written within the time of grace.
    pub young: usize,
    /// Those to which these refer.
    pub references: usize,
}

impl Kept {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> usize {
        self.roots + self.recent + self.last + self.young + self.references
    }
}

/// What was really deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Deleted {
    /// Records.
    pub paths: usize,
    /// NARs.
    pub nars: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Records that were put back, because a push came that needs them.
    pub put_back: usize,
}

/// The screen.
#[must_use]
pub fn screen(pruned: &Pruned, width: usize) -> Vec<Line> {
    let all = pruned.kept.all() + pruned.doomed.len();
    let whole = pruned.bytes.saturating_add(pruned.bytes_left);
    let holds = format!("{}, {}", plural(all, "path", "paths"), size(whole));
    let mut lines = vec![head(&pruned.name, &pruned.url, &holds).fit(width)];
    let row = |word: &str, paths: usize, bytes: u64| {
        let row = format!("  {word:<8} {}, {}", plural(paths, "path", "paths"), size(bytes));
        Line::from(row)
    };
    let kept = kept_why(&pruned.kept);
    let sep = if kept.is_empty() { "" } else { "   " };
    lines.push(row("keep", pruned.kept.all(), pruned.bytes_left).text(format!("{sep}{kept}")).fit(width));
    let doomed = row("delete", pruned.doomed.len(), pruned.bytes).text("   ");
    let room = width.saturating_sub(doomed.width());
    lines.push(doomed.text(listed(&pruned.doomed, " · ", room)).fit(width));
    if pruned.unused > 0 {
        let nars = plural(pruned.unused, "NAR", "NARs");
        lines.push(Line::from(format!("  unused   {nars} of no path: deleted too")).fit(width));
    }
    if pruned.unreadable > 0 {
        let records = plural(pruned.unreadable, "record", "records");
        let line = format!("  broken   {records} that cannot be read: drover cache verify {}", pruned.name);
        lines.push(Line::from(line).fit(width));
    }
    lines.push(Line::new());
    lines.extend(last(pruned));
    lines
}

fn kept_why(kept: &Kept) -> String {
    let parts = [
        (kept.roots, "roots"),
        (kept.recent, "of the last days"),
        (kept.last, "newest of their names"),
        (kept.young, "too young to go"),
        (kept.references, "to which these refer"),
    ];
    let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n)));
    parts.collect::<Vec<_>>().join(" · ")
}

/// What was done, or how to do it.
fn last(pruned: &Pruned) -> Vec<Line> {
    let took = duration(pruned.seconds);
    match (&pruned.deleted, pruned.stopped) {
        (Some(deleted), stopped) => {
            let (paint, word) = if stopped { (Paint::Warn, "stopped") } else { (Paint::Good, "ok") };
            let back = match deleted.put_back {
                0 => String::new(),
                n => format!(" · {} put back, a push needs them", count(n)),
            };
            let paths = plural(deleted.paths, "path", "paths");
            let nars = plural(deleted.nars, "NAR", "NARs");
            let what = format!("  {paths} and {nars} deleted, {} freed{back} · {took}", size(deleted.bytes));
            let mut lines = vec![Line::new().paint(paint, word).text(what)];
            if stopped {
                lines.push(Line::from(format!("  what is left is whole; to go on: {}", pruned.again)));
            }
            lines
        }
        (None, true) => vec![Line::new().paint(Paint::Warn, "stopped").text("  nothing was deleted")],
        (None, false) if pruned.doomed.is_empty() && pruned.unused == 0 => {
            vec![Line::new().paint(Paint::Good, "ok").text(format!("  there is nothing to delete · {took}"))]
        }
        (None, false) => vec![Line::from(format!("Nothing was deleted. To do it: {}", pruned.again))],
    }
}
