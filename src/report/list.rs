//! `drover report list`: a line a run. Reads no events: history knows each run, or a small digest beside its record,
//! folded once when it ends.

use serde::{Deserialize, Serialize};

use crate::event::Status;
use crate::id::AttrId;
use crate::record::history::Entry;

use super::closing;
use super::failure;
use super::number::{ago, count, duration, plural};
use super::summary::Summary;
use super::text::{Line, Paint, listed};

/// The name of the digest in the folder of a run.
pub const FILE: &str = "digest.json";

/// What lists say about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// `run`, `plan`, …
    pub command: String,
    /// What was asked for.
    pub what: Vec<String>,
    /// The flake.
    pub flake: Option<String>,
    /// When it began.
    pub started: jiff::Timestamp,
    /// Wall time in seconds.
    pub seconds: f64,
    /// The exit code; `None` if it was killed.
    pub exit: Option<u8>,
    /// How many attrs it was about; 0 for one that a wrong word ended.
    #[serde(default)]
    pub attrs: usize,
    /// `39 of 40 hosts ok, web3 failed`.
    pub verdict: String,
}

impl Digest {
    /// Of a run; `None` if its record does not even say how it began.
    #[must_use]
    pub fn of(summary: &Summary) -> Option<Self> {
        let header = summary.header.as_ref()?;
        Some(Self {
            command: header.command.to_string(),
            what: header.what.iter().map(ToString::to_string).collect(),
            flake: summary.flake.as_ref().map(|flake| flake.original.to_string()),
            started: header.started,
            seconds: summary.seconds(),
            exit: summary.exit,
            attrs: summary.attrs.len(),
            verdict: verdict(summary),
        })
    }
}

impl From<Entry> for Digest {
    fn from(entry: Entry) -> Self {
        Self {
            command: entry.command,
            what: entry.what,
            flake: entry.flake,
            started: entry.started,
            seconds: entry.seconds,
            exit: entry.exit,
            attrs: usize::try_from(entry.counters.attrs).unwrap_or(usize::MAX),
            verdict: entry.verdict,
        }
    }
}

/// How a run went, in a few words.
#[must_use]
pub fn verdict(summary: &Summary) -> String {
    let all = summary.taken();
    let bad = |attr: &AttrId| {
        let status = summary.attrs.get(attr).and_then(|attr| summary.status(attr));
        matches!(status, Some(Status::Failed | Status::EvalFailed))
    };
    let failed: Vec<AttrId> = all.iter().copied().filter(bad).collect();
    let planned = summary.header.as_ref().is_some_and(|header| matches!(&*header.command, "plan" | "matrix"));
    let text = match (all.len(), failed.len()) {
        _ if closing::is_push(summary) => match summary.counts.push_failed {
            0 => closing::what_was_pushed(summary),
            n => format!("{} not pushed", plural(n, "path", "paths")),
        },
        (0, _) => "nothing to do".to_owned(),
        _ if planned => closing::what_was(summary, failure::kinds_short),
        (_, 0) => format!("{} ok", failure::kinds_brief(summary, &all)),
        (n, m) => {
            let names = listed(&summary.names(&failed), " ", 32);
            format!("{} of {} ok, {names} failed", count(n - m), failure::kinds_short(summary, &all))
        }
    };
    match (summary.cancelled, summary.exit) {
        (Some(_), _) => "stopped".to_owned(),
        _ if summary.error.is_some() => {
            let message = summary.error.as_ref().map(|error| failure::headline(&error.message));
            format!("error: {}", message.unwrap_or_default())
        }
        (None, None) => "cut off".to_owned(),
        _ => text,
    }
}

/// A run in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its id as shown.
    pub run: String,
    /// Its digest; `None` if nothing can be read of it.
    pub digest: Option<Digest>,
    /// It is going on right now.
    pub live: bool,
}

/// The list as a document: `{version, runs: [{run, live, …digest}]}`.
#[must_use]
pub fn document(rows: &[Row]) -> serde_json::Value {
    let run = |row: &Row| {
        let mut run = serde_json::json!({ "run": row.run, "live": row.live });
        if let (Some(run), Ok(serde_json::Value::Object(digest))) =
            (run.as_object_mut(), serde_json::to_value(&row.digest))
        {
            run.extend(digest);
        }
        run
    };
    serde_json::json!({ "version": super::json::VERSION, "runs": rows.iter().map(run).collect::<Vec<_>>() })
}

/// The list, in the order given.
#[must_use]
pub fn screen(rows: &[Row], now: jiff::Timestamp, width: usize) -> Vec<Line> {
    if rows.is_empty() {
        return vec![Line::from("no runs are recorded yet"), Line::from("  drover run")];
    }
    let column = rows.iter().map(|row| row.run.len()).max().unwrap_or(0);
    rows.iter().map(|row| line(row, now, column).fit(width)).collect()
}

fn line(row: &Row, now: jiff::Timestamp, column: usize) -> Line {
    let line = Line::new().paint(Paint::Bold, &row.run).pad(column).text("  ");
    let Some(digest) = &row.digest else { return line.text("cannot be read") };
    let when = ago(now.as_second().saturating_sub(digest.started.as_second()));
    let took = if row.live { "goes on".to_owned() } else { duration(digest.seconds) };
    let command =
        std::iter::once(&digest.command).chain(&digest.what).map(String::as_str).collect::<Vec<_>>().join(" ");
    let paint = match digest.exit {
        _ if row.live => Paint::Plain,
        Some(0) => Paint::Good,
        None => Paint::Warn,
        Some(_) => Paint::Bad,
    };
    let verdict = if row.live { "" } else { &digest.verdict };
    line.text(format!("{when:>11}  {took:>7}  ")).paint(paint, verdict).text("  ").paint(Paint::Dim, command)
}
