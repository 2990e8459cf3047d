//! How much of what a run needs caches had, by attr, path and byte, each with what it is a part of, and the building
//! that this spared.

use crate::event::Status;

use super::number::{about, count, plural, size};
use super::summary::Summary;
use super::text::{Line, Paint};

/// A part of a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// What caches had.
    pub hit: u64,
    /// All of it.
    pub of: u64,
}

/// Building that was not done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Saved {
    /// What it took in earlier runs, one after the other.
    pub seconds: f64,
    /// Of how many drvs that is known.
    pub known: u32,
    /// How many drvs were not built because a cache has what is wanted of them.
    pub drvs: u32,
}

/// See the module's page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hits {
    /// Attrs that are not valid in this store: those that a cache has, of those that were decided.
    pub attrs: Share,
    /// The same of store paths.
    pub paths: Share,
    /// Bytes of NARs: what caches have, of that and what was built.
    pub bytes: Share,
    /// Drvs to build of which no size is known, and which `bytes` is therefore without.
    pub unsized_drvs: u64,
    /// What that spared; `None` if it was not said.
    pub saved: Option<Saved>,
}

/// Of a run; `None` if no cache was asked for anything.
#[must_use]
pub fn of(s: &Summary) -> Option<Hits> {
    let diff = s.diff?;
    let misses = [diff.absent, diff.untrusted, diff.no_answer].map(u64::from).iter().sum::<u64>();
    let paths = Share { hit: diff.present.into(), of: u64::from(diff.present) + misses };
    if paths.of == 0 || !s.caches.values().any(|cache| cache.asked.is_some()) {
        return None;
    }
    let mut attrs = Share::default();
    for status in s.attrs.values().filter_map(|attr| s.status(attr)) {
        let cached = matches!(status, Status::Cached | Status::ToFetch);
        let decided = cached || matches!(status, Status::Built | Status::ToBuild | Status::Failed);
        attrs = Share { hit: attrs.hit + u64::from(cached), of: attrs.of + u64::from(decided) };
    }
    let had = s.spared.map(|spared| spared.nar_size).unwrap_or_default();
    let built = s.sizes.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let unsized_drvs = s.counts.builds.saturating_sub(s.sizes.len());
    Some(Hits {
        attrs,
        paths,
        bytes: Share { hit: had, of: had.saturating_add(built) },
        unsized_drvs: unsized_drvs as u64,
        saved: s.spared.map(|spared| Saved { seconds: spared.seconds, known: spared.known, drvs: spared.drvs }),
    })
}

/// `-v`: all of it in one line, or none if no cache was asked.
#[must_use]
pub fn screen(s: &Summary, width: usize) -> Vec<Line> {
    let Some(hits) = of(s) else { return Vec::new() };
    let share = |share: Share, what: &str| format!("{} of {} {what}", count_of(share.hit), count_of(share.of));
    let mut parts = vec![share(hits.attrs, "attrs"), share(hits.paths, "paths")];
    if hits.bytes.hit > 0 {
        parts.push(match hits.unsized_drvs {
            0 => format!("{} of {}", size(hits.bytes.hit), size(hits.bytes.of)),
            _ => size(hits.bytes.hit),
        });
    }
    if let Some(saved) = hits.saved.filter(|saved| saved.drvs > 0) {
        let drvs = plural(saved.drvs as usize, "drv", "drvs");
        parts.push(match saved.known {
            0 => format!("spared {drvs}, durations unknown"),
            known if known == saved.drvs => format!("spared {} ({drvs})", about(saved.seconds)),
            known => {
                let known = count(known as usize);
                format!("spared {} ({known} of {} known)", about(saved.seconds), count(saved.drvs as usize))
            }
        });
    }
    let line = Line::new().paint(Paint::Bold, "caches had ").text(parts.remove(0));
    vec![parts.into_iter().fold(line, |line, part| line.then_if_fits(Line::from(format!(" · {part}")), width))]
}

/// For the closing line: how much building was spared, where that is much and mostly known.
#[must_use]
pub fn in_short(s: &Summary) -> Option<String> {
    let saved = of(s)?.saved?;
    let told = saved.seconds >= 60.0 && saved.known.saturating_mul(2) >= saved.drvs;
    told.then(|| format!("caches spared {}", about(saved.seconds)))
}

fn count_of(n: u64) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX))
}
