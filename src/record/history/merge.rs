//! Taking in the history of another state directory.

use std::path::Path;

use rusqlite::{Row, TransactionBehavior, params};

use super::{Depth, History, HistoryError, rows};
use crate::sqlite;

/// Runs that are read before they are written.
const AT_ONCE: usize = 50;

impl History {
    /// Takes in what another file knows and this one does not; gives how many runs that were, and how many it has. Of
    /// builds that are put together there by days, the days are taken in of which nothing is known here.
    ///
    /// # Errors
    /// If the other file cannot be read, which is neither changed nor put aside, or this one cannot be written.
    pub fn merge(&mut self, file: &Path) -> Result<(usize, usize), HistoryError> {
        let (_dir, other) = copy(file)?;
        let runs = other.runs()?;
        let mut added = 0;
        // The oldest first, so that none is too old when it comes.
        let unknown = self.unknown(runs.iter().rev().copied())?;
        for some in unknown.chunks(AT_ONCE) {
            let mut entries = Vec::new();
            for run in some {
                entries.extend(other.entry(*run, Depth::Builds)?);
            }
            added += self.add_all(&entries)?;
        }
        self.add_days(&other.all_days()?)?;
        Ok((added, runs.len()))
    }

    fn all_days(&self) -> Result<Vec<DayOf>, HistoryError> {
        let days = || {
            let mut query = self.connection.prepare(
                "SELECT pname, name, day, built, failed, total, shortest, longest
                 FROM days JOIN packages ON packages.id = package JOIN names ON names.id = system",
            )?;
            let row = |row: &Row<'_>| {
                Ok(DayOf {
                    pname: row.get(0)?,
                    system: row.get(1)?,
                    day: row.get(2)?,
                    counts: [row.get(3)?, row.get(4)?, row.get(5)?],
                    spread: [row.get(6)?, row.get(7)?],
                })
            };
            query.query_map([], row)?.collect::<rusqlite::Result<_>>()
        };
        days().map_err(|error| self.failed(error))
    }

    fn add_days(&mut self, days: &[DayOf]) -> Result<(), HistoryError> {
        let mut add = || {
            let change = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for DayOf { pname, system, day, counts: [built, failed, total], spread: [shortest, longest] } in days {
                let package = rows::package(&change, pname, rows::name(&change, system)?)?;
                change
                    .prepare_cached("INSERT OR IGNORE INTO days VALUES (?, ?, ?, ?, ?, ?, ?)")?
                    .execute(params![package, day, built, failed, total, shortest, longest])?;
            }
            change.commit()
        };
        let added = add();
        added.map_err(|error| self.failed(error))
    }
}

/// A row of the days of a package.
struct DayOf {
    pname: String,
    system: String,
    day: String,
    counts: [i64; 3],
    spread: [Option<i64>; 2],
}

/// A copy of the file, open and in today's form. It goes with its directory.
fn copy(file: &Path) -> Result<(tempfile::TempDir, History), HistoryError> {
    let failed = |source| HistoryError::Read { path: file.to_owned(), source };
    let dir = tempfile::tempdir().map_err(failed)?;
    let here = History::path_in(dir.path());
    std::fs::copy(file, &here).map_err(failed)?;
    // What was not brought into the file itself yet, if anything.
    let _ = std::fs::copy(sqlite::log_of(file), sqlite::log_of(&here));
    let other = History::at(&here)?;
    match other.aside() {
        None => Ok((dir, other)),
        Some(_) => Err(HistoryError::Foreign { path: file.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{build, entry, run};
    use super::super::{Entry, Filter};
    use super::*;

    #[test]
    fn two_histories_become_one_and_nothing_counts_twice() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut there = History::open(theirs.path()).unwrap();
        let built = |hour| Entry { builds: vec![build("a-1", 2.0)], ..entry(hour) };
        // The first is a hundred days older, and a row of days.
        there.add_all(&[built(1), built(2400), built(2401)]).unwrap();
        let mut here = History::open(ours.path()).unwrap();
        here.add_all(&[built(2401), built(2402)]).unwrap();
        let file = History::path_in(theirs.path());
        assert_eq!(here.merge(&file).unwrap(), (2, 3));
        assert_eq!(here.merge(&file).unwrap(), (0, 3));
        assert_eq!(here.runs().unwrap(), [run(2402), run(2401), run(2400), run(1)]);
        assert_eq!(here.entries(&Filter::default(), Depth::Builds, 3).unwrap(), [2402, 2401, 2400].map(built));
        let system = "x86_64-linux".into();
        assert_eq!(here.days("a", &system).unwrap(), there.days("a", &system).unwrap());
        assert_eq!(here.days("a", &system).unwrap().len(), 1);
        // And back: both know the same.
        assert_eq!(there.merge(&History::path_in(ours.path())).unwrap(), (1, 4));
    }

    #[test]
    fn what_is_no_history_stays_as_it_is() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut here = History::open(ours.path()).unwrap();
        let file = theirs.path().join("photos.sqlite");
        let garbage = "no database, and long enough to be taken for one ".repeat(100);
        std::fs::write(&file, &garbage).unwrap();
        let error = here.merge(&file).unwrap_err();
        assert!(matches!(error, HistoryError::Foreign { .. }), "{error:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), garbage);
        assert!(matches!(here.merge(&theirs.path().join("none")), Err(HistoryError::Read { .. })));
    }
}
