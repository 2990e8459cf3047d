//! What runs leave: a line for lists, their numbers in history, and these as a file for other machines. At its end each
//! run takes in what others left that could not, because they were killed, or are of another machine.

mod exchange;

use std::path::Path;

use crate::config::Settings;
use crate::error::{self, Error, Result};
use crate::id::RunId;
use crate::record::history::{Entry, Folder, History, HistoryError};
use crate::record::{self, RunDir};
use crate::report::entry;
use crate::report::list::{self, Digest};
use crate::report::summary::Summary;

use super::context::Context;
use exchange::Exchange;

/// How many records of others the end of a run reads, at most; they may be large.
const MOST_RECORDS: usize = 3;

/// History, and what a person should know of it.
pub struct Opened {
    /// All that is known of runs.
    pub history: History,
    /// A line each, with something to do about it.
    pub warnings: Vec<(String, String)>,
}

/// Opens the history of a state directory, and takes in what lies there and is not in it yet: records of runs that were
/// killed, and entries that came from other machines.
///
/// # Errors
/// If the file of history cannot be used.
pub fn open(state_dir: &Path) -> std::result::Result<Opened, HistoryError> {
    open_besides(state_dir, None, usize::MAX)
}

/// The same, but for a run that goes on and with at most so many records.
fn open_besides(state_dir: &Path, run: Option<RunId>, most: usize) -> std::result::Result<Opened, HistoryError> {
    let mut history = History::open(state_dir)?;
    let from_records = take_records(&mut history, state_dir, run, most)?;
    let from_files = take_entries(&mut history, &Folder::of(state_dir))?;
    let warnings = history.aside().map(|aside| damaged(aside, from_records + from_files)).into_iter().collect();
    Ok(Opened { history, warnings })
}

fn damaged(aside: &Path, found: usize) -> (String, String) {
    let runs = crate::report::number::plural(found, "run", "runs");
    let message = format!(
        "the history of runs was damaged and is begun anew with {runs} that were found elsewhere; the old file is {}",
        aside.display()
    );
    (message, "drover report import DIR|FILE    brings back what another machine or a backup knows".to_owned())
}

/// Takes in what records say of runs that are over and were not taken in; gives how many.
fn take_records(
    history: &mut History,
    state_dir: &Path,
    besides: Option<RunId>,
    most: usize,
) -> std::result::Result<usize, HistoryError> {
    // Where there are no records to be read there is nothing to take in.
    let runs = record::list(state_dir).unwrap_or_default();
    let unknown = history.unknown(runs.iter().map(|run| run.id).filter(|run| Some(*run) != besides))?;
    let dirs = unknown.into_iter().map(|run| RunDir::new(state_dir, run)).filter(|dir| !dir.is_live());
    let entries: Vec<Entry> = dirs.take(most).filter_map(|dir| of_record(&dir)).collect();
    history.add_all(&entries)
}

/// The entry of a run by its record; `None` if that cannot be read.
fn of_record(dir: &RunDir) -> Option<Entry> {
    entry::of(&Summary::of(&record::read(&dir.events()).ok()?.events))
}

/// Takes in what files of a folder say of runs that are not known; gives how many.
fn take_entries(history: &mut History, folder: &Folder) -> std::result::Result<usize, HistoryError> {
    let entries: Vec<Entry> = history.unknown(folder.runs())?.into_iter().filter_map(|run| folder.get(run)).collect();
    history.add_all(&entries)
}

/// What an import found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Runs.
    pub found: usize,
    /// Those of them that were not known.
    pub new: usize,
}

/// Takes in what is known elsewhere: a state directory, a place that is shared, the folder of a run, one with entries; or
/// the file of a history, of events, or of an entry.
///
/// # Errors
/// If nothing of this kind is there, or it cannot be read; nothing of it is changed.
pub fn import(history: &mut History, path: &Path) -> Result<Imported> {
    let mut all = Imported::default();
    let mut add = |Imported { found, new }: Imported| {
        all.found += found;
        all.new += new;
    };
    if path.is_dir() {
        if History::path_in(path).exists() {
            add(merge(history, &History::path_in(path))?);
        }
        for run in record::list(path)? {
            add(import_record(history, &run.dir.events())?);
        }
        if path.join(EVENTS).exists() {
            add(import_record(history, &path.join(EVENTS))?);
        }
        for folder in [Folder::of(path), Folder::at(&path.join("drover/history")), Folder::at(path)] {
            let new = take_entries(history, &folder)?;
            add(Imported { found: folder.runs().len(), new });
        }
    } else if path.extension().is_some_and(|extension| extension == "jsonl") {
        add(import_record(history, path)?);
    } else if let Some(run) = Folder::run_of(path) {
        let entry = path.parent().and_then(|folder| Folder::at(folder).get(run));
        let entry = entry.ok_or_else(|| nothing(path))?;
        add(Imported { found: 1, new: history.add(&entry)?.into() });
    } else {
        add(merge(history, path)?);
    }
    if all.found == 0 { Err(nothing(path)) } else { Ok(all) }
}

/// The events of a run, in its folder.
const EVENTS: &str = "events.jsonl";

fn merge(history: &mut History, file: &Path) -> Result<Imported> {
    let (new, found) = history.merge(file)?;
    Ok(Imported { found, new })
}

fn import_record(history: &mut History, events: &Path) -> Result<Imported> {
    // One that a run has only just begun says nothing yet.
    let Some(entry) = entry::of(&Summary::of(&record::read(events)?.events)) else { return Ok(Imported::default()) };
    Ok(Imported { found: 1, new: history.add(&entry)?.into() })
}

fn nothing(path: &Path) -> Error {
    Error::usage(format!("{} holds no runs", path.display()))
        .hint("drover report import DIR    with a state directory, or FILE: history.sqlite, events.jsonl, RUN.json.zst")
}

/// For the last words of a run: history, with the warnings that are to be said; `None` if it is of no use.
pub(super) fn open_for(dir: &RunDir, state_dir: &Path) -> (Option<History>, Vec<(String, String)>) {
    match open_besides(state_dir, Some(dir.run()), MOST_RECORDS) {
        Ok(Opened { history, warnings }) => (Some(history), warnings),
        Err(failure) => {
            let message = format!("this run is not added to history: {}", error::chain(&failure));
            (None, vec![(message, Error::from(failure).hint.unwrap_or_default())])
        }
    }
}

/// Takes in what other machines share, which a warning tells if it cannot be had.
pub(super) async fn take(ctx: &mut Context, history: &mut Option<History>) -> Option<Exchange> {
    let (history, settings) = (history.as_mut()?, ctx.settings.clone());
    match exchange::take(&settings, &ctx.caches, ctx.bus.events(), history).await {
        Ok(exchange) => exchange,
        Err(message) => {
            ctx.bus.warn(message, Some("the run is not worse for it; drover doctor    says what is shared"));
            None
        }
    }
}

/// Shares what is known here.
pub(super) async fn put(exchange: Option<Exchange>, settings: &Settings) {
    let Some(exchange) = exchange else { return };
    if let Err(why) = exchange.put(&Folder::of(&settings.output.state_dir)).await {
        tracing::warn!("{why}");
    }
}

/// Leaves what a run leaves. That it cannot is no reason to fail: the record is there, and the next run tries again.
pub(super) fn keep(history: Option<History>, dir: &RunDir, state_dir: &Path, summary: &Summary) {
    if let Some(digest) = Digest::of(summary)
        && let Err(failure) = dir.save(list::FILE, &digest)
    {
        tracing::warn!(error = %error::chain(&failure), "cannot store the digest of the run");
    }
    let Some(entry) = entry::of(summary) else { return };
    if let Some(mut history) = history
        && let Err(failure) = history.add(&entry)
    {
        tracing::warn!(error = %error::chain(&failure), "cannot add the run to history");
    }
    if entry.did_something()
        && let Err(failure) = Folder::of(state_dir).put(&entry)
    {
        tracing::warn!(error = %failure, "cannot leave the numbers of the run for other machines");
    }
}
