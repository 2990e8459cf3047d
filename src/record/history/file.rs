//! The file: opening it, and taking entries in.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::tables::STEPS;
use super::{Entry, retention, rows};
use crate::error::{self, Fault};
use crate::id::RunId;
use crate::sqlite::{self, Kept, SqliteError};

/// The history of a state directory, `history.sqlite`. Several processes may have it open, and write to it, at once: a
/// run is in it whole or not at all, and stays whatever becomes of the process that added it.
#[derive(Debug)]
pub struct History {
    pub(super) connection: Connection,
    path: PathBuf,
    aside: Option<PathBuf>,
}

/// Why history is of no use now.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Its file cannot be used. It stays as it is.
    #[error(transparent)]
    File(#[from] SqliteError),
    /// Its file is damaged. It was put aside: whoever opens history next begins it anew.
    #[error("the history of runs is damaged; it was put aside as {}", aside.display())]
    Damaged {
        /// Under which name.
        aside: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Another file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another file is no history, or is damaged.
    #[error("{} is no history of runs, or is damaged", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A run cannot be put into words.
    #[error("cannot write the history of run {run}")]
    Write {
        /// Which.
        run: RunId,
        /// Why not.
        source: std::io::Error,
    },
}

impl From<HistoryError> for error::Error {
    fn from(error: HistoryError) -> Self {
        let hint = match &error {
            HistoryError::File(_) => "drover --state-dir DIR    with a directory that can be used",
            HistoryError::Damaged { .. } => "drover report list    begins it anew from the records",
            HistoryError::Write { .. } => "drover report --format json",
            HistoryError::Read { .. } | HistoryError::Foreign { .. } => {
                "drover report import DIR    with a state directory, or FILE: history.sqlite, events.jsonl, RUN.json.zst"
            }
        };
        let fault = match &error {
            HistoryError::Read { .. } | HistoryError::Foreign { .. } => Fault::Usage,
            _ => Fault::Unreachable,
        };
        Self::from_chain(fault, &error).hint(hint)
    }
}

impl History {
    /// Opens the history of a state directory, and begins it where there is none. One that an earlier drover wrote is
    /// brought to today's form. May wait some seconds for another process that writes to it.
    ///
    /// # Errors
    /// If the file cannot be used, or a newer drover wrote it.
    pub fn open(state_dir: &Path) -> Result<Self, HistoryError> {
        Self::at(&Self::path_in(state_dir))
    }

    /// The same, of this file.
    pub(super) fn at(path: &Path) -> Result<Self, HistoryError> {
        let Kept { connection, aside } = sqlite::open_kept(path, &STEPS)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(Self { connection, path: path.to_owned(), aside })
    }

    /// Where the history of a state directory is.
    #[must_use]
    pub fn path_in(state_dir: &Path) -> PathBuf {
        state_dir.join("history.sqlite")
    }

    /// Where a damaged file was put, if this one was begun just now in its place.
    #[must_use]
    pub fn aside(&self) -> Option<&Path> {
        self.aside.as_deref()
    }

    /// Takes a run in; gives whether it was not known. One that was known stays, unless that one was cut off and this one
    /// came to its end.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing of the run is in it.
    pub fn add(&mut self, entry: &Entry) -> Result<bool, HistoryError> {
        Ok(self.add_all(std::slice::from_ref(entry))? == 1)
    }

    /// Takes several in, all or none; gives how many were not known.
    ///
    /// # Errors
    /// As [`History::add`].
    pub fn add_all(&mut self, entries: &[Entry]) -> Result<usize, HistoryError> {
        let words =
            |entry: &Entry| rows::Words::of(entry).map_err(|source| HistoryError::Write { run: entry.run, source });
        let words: Vec<rows::Words> = entries.iter().map(words).collect::<Result<_, _>>()?;
        let added = write(&mut self.connection, entries.iter().zip(&words));
        added.map_err(|error| self.failed(error))
    }

    /// Which of these runs are not in it, in the order given.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn unknown(&self, runs: impl IntoIterator<Item = RunId>) -> Result<Vec<RunId>, HistoryError> {
        let unknown = || {
            let mut query = self.connection.prepare_cached("SELECT 1 FROM runs WHERE run = ?")?;
            let mut unknown = Vec::new();
            for run in runs {
                if !query.exists([run.to_string()])? {
                    unknown.push(run);
                }
            }
            Ok(unknown)
        };
        unknown().map_err(|error| self.failed(error))
    }

    /// What SQLite's error means; a damaged file is put aside.
    pub(super) fn failed(&self, source: rusqlite::Error) -> HistoryError {
        if !sqlite::is_damage(&source) {
            return HistoryError::File(SqliteError::Use { path: self.path.clone(), source });
        }
        match sqlite::put_aside(&self.path) {
            Ok(aside) => HistoryError::Damaged { aside, source },
            Err(error) => HistoryError::File(error),
        }
    }
}

fn write<'a>(
    connection: &mut Connection,
    entries: impl Iterator<Item = (&'a Entry, &'a rows::Words)>,
) -> rusqlite::Result<usize> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut added = 0;
    for (entry, words) in entries {
        added += usize::from(add(&change, entry, words)?);
    }
    if added > 0 {
        retention::retire(&change)?;
    }
    change.commit()?;
    Ok(added)
}

fn add(change: &Connection, entry: &Entry, words: &rows::Words) -> rusqlite::Result<bool> {
    let run = entry.run.to_string();
    let known: Option<(i64, Option<u8>)> = change
        .prepare_cached("SELECT id, exit FROM runs WHERE run = ?")?
        .query_row([&run], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match known {
        Some((id, None)) if entry.exit.is_some() => {
            change.execute("DELETE FROM builds WHERE run = ?", [id])?;
            change.execute("DELETE FROM runs WHERE id = ?", [id])?;
        }
        Some(_) => return Ok(false),
        None => {}
    }
    let branch = entry.branch.as_ref().map(|branch| rows::name(change, branch)).transpose()?;
    change
        .prepare_cached(
            "INSERT INTO runs (run, started, exit, command, series, branch, builds, numbers, attrs)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            run,
            entry.started.as_millisecond(),
            entry.exit,
            rows::name(change, &entry.command)?,
            rows::name(change, &entry.series())?,
            branch,
            i64::try_from(entry.builds.len()).unwrap_or(i64::MAX),
            words.numbers,
            words.attrs,
        ])?;
    rows::add_builds(change, change.last_insert_rowid(), &entry.builds)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{build, entry, run};
    use super::super::{Build, Depth, Filter, Outcome};
    use super::*;
    use crate::event::Class;

    fn all(history: &History) -> Vec<Entry> {
        history.entries(&Filter::default(), Depth::Builds, usize::MAX).unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let mut first = entry(1);
        first.builds.push(build("nginx-1.29.4", 1.5));
        first.builds.push(Build {
            drv: "x.drv".to_owned(),
            outcome: Outcome::Failed(Class::Timeout),
            ..build("x", 2.0)
        });
        assert_eq!((history.add(&first).unwrap(), history.add(&first).unwrap()), (true, false));
        let second = entry(2);
        assert_eq!(history.add_all(&[first.clone(), second.clone()]).unwrap(), 1);
        assert_eq!(all(&History::open(state.path()).unwrap()), [second, first.clone()]);
        assert_eq!(history.builds(run(1)).unwrap(), first.builds);
        assert_eq!(history.unknown([run(1), run(3), run(2)]).unwrap(), [run(3)]);
        assert_eq!(history.runs().unwrap(), [run(2), run(1)]);
    }

    #[test]
    fn a_run_that_was_thought_to_be_cut_off_gets_its_end() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let whole = Entry { builds: vec![build("a-1", 1.0), build("b-1", 1.0)], ..entry(1) };
        let cut = Entry { exit: None, builds: vec![build("a-1", 1.0)], ..entry(1) };
        assert!(history.add(&cut).unwrap());
        assert!(history.add(&whole).unwrap());
        assert!(!history.add(&cut).unwrap());
        assert_eq!(all(&history), [whole]);
    }

    #[test]
    fn a_file_of_the_first_layout_keeps_what_is_in_it() {
        let state = tempfile::tempdir().unwrap();
        let path = History::path_in(state.path());
        let Kept { connection, .. } = sqlite::open_kept(&path, &STEPS[..1]).unwrap();
        let old = Entry { builds: vec![build("a-1", 1.0)], ..entry(1) };
        let words = rows::Words::of(&old).unwrap();
        assert!(add(&connection, &old, &words).unwrap());
        drop(connection);
        let mut history = History::open(state.path()).unwrap();
        assert_eq!((all(&history), history.aside()), (vec![old], None));
        assert!(history.add(&entry(2)).unwrap());
        assert_eq!(history.days("a", &"x86_64-linux".into()).unwrap(), []);
        drop(history);
        let newer = sqlite::open_kept(&path, &[STEPS[0], STEPS[1], "CREATE TABLE more (x);"]).unwrap();
        drop(newer);
        let error = History::open(state.path()).unwrap_err();
        assert!(matches!(error, HistoryError::File(SqliteError::Newer { found: 3, known: 2, .. })), "{error:?}");
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_another_begun() {
        let state = tempfile::tempdir().unwrap();
        let path = History::path_in(state.path());
        let garbage = "no database, and long enough to be taken for one ".repeat(100);
        std::fs::write(&path, &garbage).unwrap();
        let mut history = History::open(state.path()).unwrap();
        let aside = history.aside().unwrap().to_owned();
        assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("history.sqlite.damaged-2"), "{aside:?}");
        assert_eq!(std::fs::read_to_string(aside).unwrap(), garbage);
        assert!(history.add(&entry(1)).unwrap());
        assert_eq!(History::open(state.path()).unwrap().aside(), None);
    }

    #[test]
    fn a_file_that_is_damaged_further_in_is_put_aside_when_that_shows() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let builds: Vec<Build> = (0..500).map(|n| build(&format!("p{n}-1"), 1.0)).collect();
        history.add(&Entry { builds, ..entry(1) }).unwrap();
        // Brings all into the file itself.
        history.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(history);
        let path = History::path_in(state.path());
        let mut bytes = std::fs::read(&path).unwrap();
        // All but the first page, which says what tables there are.
        bytes[4096..].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let damaged = History::open(state.path()).unwrap();
        let error = damaged.entries(&Filter::default(), Depth::Builds, 10).unwrap_err();
        let HistoryError::Damaged { aside, .. } = error else { panic!("{error:?}") };
        assert!(aside.exists() && !path.exists());
        drop(damaged);
        let mut anew = History::open(state.path()).unwrap();
        assert!(anew.aside().is_some_and(Path::exists), "whoever begins it anew says where the other is");
        assert!(anew.add(&entry(2)).unwrap());
        assert_eq!(all(&anew), [entry(2)]);
    }

    #[test]
    fn two_that_write_at_once_lose_nothing() {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path();
        std::thread::scope(|scope| {
            for half in 0..2_u64 {
                scope.spawn(move || {
                    let mut history = History::open(dir).unwrap();
                    for number in 0..40 {
                        // Each also tells of a run of which the other tells.
                        let builds = vec![build("a-1", 1.0), build(&format!("b-{number}"), 2.0)];
                        history.add(&Entry { builds, ..entry(number * 2 + half) }).unwrap();
                        history.add(&entry(1000 + number)).unwrap();
                    }
                });
            }
        });
        let all = all(&History::open(dir).unwrap());
        assert_eq!(all.len(), 120);
        assert_eq!(all.iter().map(|entry| entry.builds.len()).sum::<usize>(), 160);
    }
}
