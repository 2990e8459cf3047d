//! All runs: `drover report list` and `import`, and the history that other reports ask.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::driver::history::{self, Imported, Opened};
use crate::error::{Error, Fault, Result};
use crate::id::RunId;
use crate::record::history::{Depth, Entry, Filter, History};
use crate::record::{self, RecordError, RunDir};
use crate::report::failure;
use crate::report::history::History as Times;
use crate::report::list::{self, Digest, Row};
use crate::report::number::{count, plural};
use crate::report::summary::Summary;
use crate::report::text::{Style, render};

use super::super::{Session, print, print_json, say};

/// Runs that a list has, at most.
const MOST: usize = 1000;

/// Opens the history of a state directory; what a person should know of it is said on stderr.
pub(super) fn open(session: &Session, state_dir: &Path) -> Result<History> {
    let Opened { history, warnings } = history::open(state_dir)?;
    for (message, hint) in warnings {
        warn(session, &message, &hint);
    }
    Ok(history)
}

fn warn(session: &Session, message: &str, hint: &str) {
    say(&failure::warning(message, Some(hint), session.width()), session.style());
}

/// Prints the list of runs: those that history knows, and those that go on or cannot be read.
pub(super) fn list(session: &Session, state_dir: &Path, json: bool) -> Result<u8> {
    let known =
        open(session, state_dir).and_then(|history| Ok(history.entries(&Filter::default(), Depth::Numbers, MOST)?));
    let known = known.unwrap_or_else(|error| {
        // The records are there nevertheless.
        warn(session, &error.message, error.hint.as_deref().unwrap_or_default());
        Vec::new()
    });
    let rows = rows(state_dir, known)?;
    if json {
        print_json(&list::document(&rows))?;
    } else {
        let screen = list::screen(&rows, session.clock.started, session.width());
        print(render(&screen, Style { colour: false, ascii: false, ..session.stdout_style() }).as_bytes())?;
    }
    Ok(0)
}

fn rows(state_dir: &Path, known: Vec<Entry>) -> Result<Vec<Row>> {
    let mut found: BTreeMap<RunId, (Option<Digest>, bool)> =
        known.into_iter().map(|entry| (entry.run, (Some(entry.into()), false))).collect();
    for run in record::list(state_dir)? {
        found.entry(run.id).or_insert_with(|| of_record(&run.dir));
    }
    let (ids, rows): (Vec<RunId>, Vec<_>) = found.into_iter().rev().take(MOST).unzip();
    let rows = record::short_ids(&ids).into_iter().zip(rows);
    Ok(rows.map(|(run, (digest, live))| Row { run, digest, live }).collect())
}

/// The digest that a run left, or, for one that goes on or was killed, a fold of its record; and whether it goes on.
fn of_record(dir: &RunDir) -> (Option<Digest>, bool) {
    let folded = || Digest::of(&Summary::of(&record::read(&dir.events()).ok()?.events));
    (dir.load(list::FILE).or_else(folded), dir.is_live())
}

/// Takes in what is known elsewhere.
pub(super) fn import(session: &Session, state_dir: &Path, paths: &[PathBuf], json: bool) -> Result<u8> {
    if paths.is_empty() {
        return Err(Error::usage("import what?").hint("drover report import DIR|FILE…"));
    }
    let mut history = open(session, state_dir)?;
    let mut times = Times::load(state_dir);
    let mut all = Imported::default();
    for path in paths {
        times.absorb(&Times::load(path));
        let Imported { found, new } = history::import(&mut history, path)?;
        all = Imported { found: all.found + found, new: all.new + new };
    }
    times.save(state_dir).map_err(|error| {
        Error::new(Fault::Unreachable, format!("cannot write to {}: {error}", state_dir.display()))
            .hint("drover report import --state-dir DIR PATH…")
    })?;
    if json {
        print_json(&serde_json::json!({ "version": 1, "found": all.found, "new": all.new }))?;
    } else {
        let known = all.found.saturating_sub(all.new);
        print(format!("{} imported, {} known before\n", plural(all.new, "run", "runs"), count(known)).as_bytes())?;
    }
    Ok(0)
}

/// The run that a person means: one that has a record here, else one that is known in numbers.
pub(super) fn lookup(history: &History, state_dir: &Path, asked: &str) -> Result<RunId> {
    match record::lookup(state_dir, asked) {
        Ok(run) => Ok(run.id),
        Err(RecordError::NoRun { .. }) => {
            let mut runs = history.runs()?;
            let place = record::named(&runs, asked)?;
            Ok(runs.swap_remove(place))
        }
        Err(error) => Err(error.into()),
    }
}

/// The error for a run that has no record: it may be known in numbers.
pub(super) fn no_record(state_dir: &Path, asked: &str, error: RecordError) -> Error {
    let known = || -> Option<RunId> {
        let runs = History::open(state_dir).ok()?.runs().ok()?;
        record::named(&runs, asked).ok().and_then(|place| runs.get(place).copied())
    };
    match error {
        RecordError::NoRun { .. } if asked != "last" && known().is_some() => Error::usage(format!(
            "run {asked} is known in numbers only: its record is no longer kept, or is on another machine"
        ))
        .hint("drover report list"),
        error => error.into(),
    }
}
