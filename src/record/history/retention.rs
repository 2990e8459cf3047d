//! How long builds are kept one by one: those of the last [`KEPT_RUNS`] runs that built anything and of [`KEPT_DAYS`]
//! days. Of older ones a row a package and day is left. Runs stay.

use rusqlite::{Connection, Row, params};

use super::{History, HistoryError, rows};
use crate::id::System;

/// Days for which builds are kept one by one, counted back from the newest run.
pub const KEPT_DAYS: i64 = 90;

/// Runs whose builds are kept one by one.
pub const KEPT_RUNS: i64 = 1000;

/// Milliseconds of a day.
const DAY: i64 = 24 * 3600 * 1000;

/// What is left of the builds of a package on a day.
#[derive(Debug, Clone, PartialEq)]
pub struct Day {
    /// The day, in UTC.
    pub day: jiff::civil::Date,
    /// Builds that succeeded.
    pub built: u64,
    /// Those that did not.
    pub failed: u64,
    /// Seconds that those took that succeeded: all together, the shortest and the longest of them.
    pub seconds: f64,
    /// See there.
    pub shortest: Option<f64>,
    /// See there.
    pub longest: Option<f64>,
}

/// Runs whose builds are put together each time, at most: after a long pause all of them may be too old, and the end of
/// the first run is not to wait for that.
const AT_ONCE: i64 = 2;

/// Puts what is too old together, the oldest first.
pub(super) fn retire(change: &Connection) -> rusqlite::Result<()> {
    let mut query = change.prepare_cached(
        "SELECT id FROM runs WHERE builds > 0 AND started < max(
             (SELECT max(started) FROM runs WHERE builds > 0) - ?1,
             coalesce((SELECT started FROM runs WHERE builds > 0 ORDER BY started DESC LIMIT 1 OFFSET ?2), 0))
         ORDER BY started LIMIT ?3",
    )?;
    let old: Vec<i64> = query
        .query_map(params![KEPT_DAYS * DAY, KEPT_RUNS - 1, AT_ONCE], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for run in old {
        change
            .prepare_cached(
                "INSERT INTO days (package, day, built, failed, total, shortest, longest)
                 SELECT package, date(runs.started / 1000, 'unixepoch'),
                     count(*) FILTER (WHERE outcome = 'built'),
                     count(*) FILTER (WHERE outcome NOT IN ('built', 'valid')),
                     coalesce(sum(took) FILTER (WHERE outcome = 'built'), 0),
                     min(took) FILTER (WHERE outcome = 'built'), max(took) FILTER (WHERE outcome = 'built')
                 FROM (SELECT *, ended - coalesce(building, started) AS took FROM builds WHERE run = ?1)
                     JOIN runs ON runs.id = ?1
                 GROUP BY package
                 ON CONFLICT DO UPDATE SET built = built + excluded.built, failed = failed + excluded.failed,
                     total = total + excluded.total,
                     shortest = coalesce(min(shortest, excluded.shortest), shortest, excluded.shortest),
                     longest = coalesce(max(longest, excluded.longest), longest, excluded.longest)",
            )?
            .execute([run])?;
        change.prepare_cached("DELETE FROM builds WHERE run = ?")?.execute([run])?;
        change.prepare_cached("UPDATE runs SET builds = 0 WHERE id = ?")?.execute([run])?;
    }
    Ok(())
}

impl History {
    /// What is left of old builds of a package, newest day first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn days(&self, pname: &str, system: &System) -> Result<Vec<Day>, HistoryError> {
        let days = || {
            let mut query = self.connection.prepare_cached(
                "SELECT day, built, failed, total, shortest, longest
                 FROM days JOIN packages ON packages.id = package JOIN names ON names.id = system
                 WHERE pname = ? AND name = ? ORDER BY day DESC",
            )?;
            let rows = query.query_map(params![pname, system.0], day)?;
            let days: Vec<Option<Day>> = rows.collect::<Result<_, _>>()?;
            Ok(days.into_iter().flatten().collect())
        };
        days().map_err(|error| self.failed(error))
    }
}

fn day(row: &Row<'_>) -> rusqlite::Result<Option<Day>> {
    let day: String = row.get(0)?;
    let Ok(day) = day.parse() else { return Ok(None) };
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let seconds = |micros: Option<i64>| micros.map(rows::seconds);
    Ok(Some(Day {
        day,
        built: count(row.get(1)?),
        failed: count(row.get(2)?),
        seconds: rows::seconds(row.get(3)?),
        shortest: seconds(row.get(4)?),
        longest: seconds(row.get(5)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{build, entry, run};
    use super::super::{Build, Depth, Entry, Filter, Outcome};
    use super::*;
    use crate::event::Class;

    #[test]
    fn of_old_builds_a_row_a_package_and_day_stays() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let failed = Build { outcome: Outcome::Failed(Class::Build), ..build("a-1", 9.0) };
        let only_failed = Build { outcome: Outcome::Failed(Class::Build), ..build("b-1", 9.0) };
        history.add(&Entry { builds: vec![build("a-1", 2.0), failed, only_failed], ..entry(1) }).unwrap();
        history.add(&Entry { builds: vec![build("a-2", 4.0), build("b-2", 1.0)], ..entry(2) }).unwrap();
        history.add(&Entry { builds: vec![build("a-3", 3.0)], ..entry(30) }).unwrap();
        let system = "x86_64-linux".into();
        assert_eq!(history.days("a", &system).unwrap(), []);
        let seconds = |history: &History| -> Vec<f64> {
            history.durations("a", &system, 9).unwrap().into_iter().map(|took| took.seconds).collect()
        };
        assert_eq!(seconds(&history), [3.0, 4.0, 2.0]);

        let later = 2 + 24 * KEPT_DAYS as u64 + 1;
        history.add(&Entry { builds: vec![build("a-4", 5.0)], ..entry(later) }).unwrap();
        assert_eq!(seconds(&history), [5.0, 3.0]);
        let days = history.days("a", &system).unwrap();
        let [day] = days.as_slice() else { panic!("{days:?}") };
        assert_eq!((day.built, day.failed, day.seconds), (2, 1, 6.0));
        assert_eq!((day.shortest, day.longest), (Some(2.0), Some(4.0)));
        assert_eq!(day.day.to_string(), "2023-11-14");
        let days = history.days("b", &system).unwrap();
        assert_eq!((days[0].built, days[0].failed, days[0].shortest, days[0].longest), (1, 1, Some(1.0), Some(1.0)));
        // The run stays, and does not come back with its builds.
        assert_eq!(history.entries(&Filter::default(), Depth::Builds, 9).unwrap().len(), 4);
        assert!(!history.add(&Entry { builds: vec![build("a-1", 2.0)], ..entry(1) }).unwrap());
        assert_eq!(history.builds(run(1)).unwrap(), []);
    }

    #[test]
    fn runs_that_are_too_many_keep_their_days_only() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let runs = |from: u64, to: u64| -> Vec<Entry> {
            (from..to).map(|hour| Entry { builds: vec![build("a-1", 1.0)], ..entry(hour) }).collect()
        };
        let most = KEPT_RUNS as u64;
        history.add_all(&runs(0, most)).unwrap();
        assert_eq!(history.builds(run(0)).unwrap().len(), 1);
        history.add_all(&runs(most, most + 3)).unwrap();
        let left =
            |history: &History| -> Vec<usize> { (0..6).map(|hour| history.builds(run(hour)).unwrap().len()).collect() };
        assert_eq!(left(&history), [0, 0, 1, 1, 1, 1], "no more than a few at once");
        history.add_all(&runs(most + 3, most + 4)).unwrap();
        assert_eq!(left(&history), [0, 0, 0, 0, 1, 1]);
        assert_eq!(history.days("a", &"x86_64-linux".into()).unwrap()[0].built, 4);
    }
}
