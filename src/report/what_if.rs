//! What a run would have taken if something had been different: `drover report --what-if`, and the last lines of
//! `--slow`. How that is found out is the business of whoever plays it again (`driver`).

use serde_json::{Value, json};

use crate::id::DrvId;

use super::estimate::{self, Checked};
use super::number::{about, duration, plural};
use super::summary::Summary;
use super::text::{Line, Paint, wrapped};

/// What is said of a run that did not happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What is different in it: `with big2 back`.
    pub what: String,
    /// What it takes, all of it.
    pub seconds: f64,
    /// Its longest chain is the limit: more builders would not make it shorter.
    pub is_chain: bool,
    /// What is built last, before it what it waited for, and so on; the first to be built first.
    pub chain: Vec<DrvId>,
    /// Drvs that nobody could build.
    pub left_out: usize,
}

/// A run, and how near its replay comes to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Played<'a> {
    /// The run.
    pub summary: &'a Summary,
    /// What it takes in the replay, as it was.
    pub replayed: f64,
    /// How far its own estimate was off, if that is known.
    pub estimate: Option<Checked>,
}

impl Played<'_> {
    /// How far the replay is off, as a share of what the run took.
    #[must_use]
    pub fn off(&self) -> f64 {
        (self.replayed - self.summary.seconds()) / self.summary.seconds().max(1e-6)
    }
}

/// As a document: `{version, run, seconds, replayed, estimate, what_if: {what, seconds, chain_is_the_limit, chain,
/// left_out}}`.
#[must_use]
pub fn document(played: &Played<'_>, told: &Told) -> Value {
    json!({
        "version": super::json::VERSION,
        "run": played.summary.header.as_ref().map(|header| header.run),
        "seconds": played.summary.seconds(),
        "replayed": played.replayed,
        "estimate": played.estimate,
        "what_if": one(played.summary, told),
    })
}

/// What is told, for machines.
#[must_use]
pub fn one(s: &Summary, told: &Told) -> Value {
    json!({
        "what": told.what,
        "seconds": told.seconds,
        "chain_is_the_limit": told.is_chain,
        "chain": told.chain.iter().map(|drv| s.drv_name(*drv)).collect::<Vec<_>>(),
        "left_out": told.left_out,
    })
}

/// `short`: how the run's id is shown.
#[must_use]
pub fn screen(played: &Played<'_>, told: &Told, short: &str, width: usize) -> Vec<Line> {
    let s = played.summary;
    let head = Line::from("run ").paint(Paint::Bold, short).text("   ").paint(Paint::Bold, duration(s.seconds()));
    let off = 100.0 * played.off().abs();
    let again = format!("   played again as it was: {} ({off:.1}% off)", duration(played.replayed));
    let mut lines = vec![head.text(again).fit(width)];
    lines.extend(line(told, width));
    let names = estimate::chain_names(s, &told.chain);
    if !names.is_empty() {
        lines.push(Line::from(format!("  built last: {}", names.join(" → "))).fit(width));
    }
    lines.extend(played.estimate.map(|checked| estimate::line(&checked, width)));
    lines
}

/// `With 2 more builders like big1: about 17m (the chain is the limit)`.
#[must_use]
pub fn line(told: &Told, width: usize) -> Vec<Line> {
    let mut what = told.what.chars();
    let what: String = what.next().into_iter().flat_map(char::to_uppercase).chain(what).collect();
    let limit = if told.is_chain { " (the chain is the limit)" } else { "" };
    let mut text = format!("{what}: about {}{limit}", roughly(told.seconds));
    if told.left_out > 0 {
        text.push_str(&format!(", but nobody could build {}", plural(told.left_out, "drv", "drvs")));
    }
    wrapped(&text, width, 2).into_iter().map(Line::from).collect()
}

/// An estimate that is read beside the time of the run: under ten minutes to the nearest five seconds.
fn roughly(seconds: f64) -> String {
    if (60.0..600.0).contains(&seconds) { duration((seconds / 5.0).round() * 5.0) } else { about(seconds) }
}
