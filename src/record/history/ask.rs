//! Questions to history.

use rusqlite::{OptionalExtension as _, Row, ToSql, params};

use super::{Build, Entry, History, HistoryError, rows};
use crate::id::{RunId, System};

/// Which runs are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those that can be compared ([`Entry::series`]).
    pub series: Option<String>,
    /// Those of a command.
    pub command: Option<String>,
    /// Those of a branch.
    pub branch: Option<String>,
    /// Those that began before this one.
    pub before: Option<RunId>,
    /// Those that came to their own end ([`Entry::is_whole`]).
    pub whole: bool,
}

/// How much of an entry is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// All but its attrs and builds, which are left empty.
    #[default]
    Numbers,
    /// All but its builds.
    Attrs,
    /// All. Builds that are too old to be kept one by one are left out.
    Builds,
}

/// How long a drv of a package took.
#[derive(Debug, Clone, PartialEq)]
pub struct Took {
    /// In which run.
    pub run: RunId,
    /// Its name with its version.
    pub name: String,
    /// The name of the builder.
    pub builder: String,
    /// Seconds of building.
    pub seconds: f64,
}

impl History {
    /// The last runs, at most `limit`, newest first. What another drover wrote and this one cannot read is left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn entries(&self, filter: &Filter, depth: Depth, limit: usize) -> Result<Vec<Entry>, HistoryError> {
        let named = |name: &Option<String>| -> rusqlite::Result<Option<i64>> {
            // A name that nothing has is that of no run.
            name.as_deref().map_or(Ok(None), |name| Ok(Some(self.number(name)?.unwrap_or(-1))))
        };
        let find = || {
            let (series, command) = (named(&filter.series)?, named(&filter.command)?);
            let (branch, before) = (named(&filter.branch)?, filter.before.map(|run| run.to_string()));
            let sql = format!(
                "SELECT {} FROM runs WHERE (?1 IS NULL OR series = ?1) AND (?2 IS NULL OR command = ?2)
                     AND (?3 IS NULL OR branch = ?3) AND (?4 IS NULL OR run < ?4)
                     AND (NOT ?5 OR exit IS NOT NULL AND exit <> 130)
                 ORDER BY run DESC LIMIT ?6",
                columns(depth)
            );
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            self.read(&sql, params![series, command, branch, before, filter.whole, limit], depth)
        };
        find().map_err(|error| self.failed(error))
    }

    /// A run, if it is known.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn entry(&self, run: RunId, depth: Depth) -> Result<Option<Entry>, HistoryError> {
        let sql = format!("SELECT {} FROM runs WHERE run = ?1", columns(depth));
        let found = self.read(&sql, params![run.to_string()], depth);
        found.map(|mut found| found.pop()).map_err(|error| self.failed(error))
    }

    /// All runs that are known, newest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn runs(&self) -> Result<Vec<RunId>, HistoryError> {
        let runs = || {
            let mut query = self.connection.prepare_cached("SELECT run FROM runs ORDER BY run DESC")?;
            let runs: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(runs.iter().filter_map(|run| run.parse().ok()).collect())
        };
        runs().map_err(|error| self.failed(error))
    }

    /// The attempts of a run that came to their end, in that order; none if the run is not known, or too old.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn builds(&self, run: RunId) -> Result<Vec<Build>, HistoryError> {
        let id = self
            .connection
            .prepare_cached("SELECT id FROM runs WHERE run = ?")
            .and_then(|mut query| query.query_row([run.to_string()], |row| row.get(0)).optional());
        let builds = id.and_then(|id| id.map_or(Ok(Vec::new()), |id| self.builds_of(id)));
        builds.map_err(|error| self.failed(error))
    }

    /// What builds of a package took that succeeded, whatever its version: at most `limit`, of the newest runs first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn durations(&self, pname: &str, system: &System, limit: usize) -> Result<Vec<Took>, HistoryError> {
        let took = || {
            // Numbers of runs are in the order in which they came, which need not be that in which they began.
            let mut query = self.connection.prepare_cached(
                "SELECT runs.run, drvs.name, builders.name, ended - coalesce(building, builds.started)
                 FROM builds JOIN packages ON packages.id = package JOIN names AS systems ON systems.id = system
                     JOIN names AS drvs ON drvs.id = builds.name JOIN names AS builders ON builders.id = builder
                     JOIN runs ON runs.id = builds.run
                 WHERE pname = ? AND systems.name = ? AND outcome = 'built'
                 ORDER BY runs.run DESC, number DESC LIMIT ?",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, rows::seconds(row.get(3)?)));
            let rows = query.query_map(params![pname, system.0, limit], row)?;
            let mut all = Vec::new();
            for row in rows {
                let (run, name, builder, seconds): (String, _, _, _) = row?;
                all.extend(run.parse().ok().map(|run| Took { run, name, builder, seconds }));
            }
            Ok(all)
        };
        took().map_err(|error| self.failed(error))
    }

    fn number(&self, name: &str) -> rusqlite::Result<Option<i64>> {
        let mut query = self.connection.prepare_cached("SELECT id FROM names WHERE name = ?")?;
        query.query_row([name], |row| row.get(0)).optional()
    }

    fn read(&self, sql: &str, values: &[&dyn ToSql], depth: Depth) -> rusqlite::Result<Vec<Entry>> {
        let mut query = self.connection.prepare_cached(sql)?;
        let mut found = query.query(values)?;
        let mut entries = Vec::new();
        while let Some(row) = found.next()? {
            entries.extend(self.entry_of(row, depth)?);
        }
        Ok(entries)
    }

    fn entry_of(&self, row: &Row<'_>, depth: Depth) -> rusqlite::Result<Option<Entry>> {
        let numbers = row.get_ref(1)?.as_str()?;
        let Ok(mut entry) = serde_json::from_str::<Entry>(numbers) else {
            tracing::debug!("a run of another drover is left out");
            return Ok(None);
        };
        if depth >= Depth::Attrs {
            entry.attrs = rows::attrs(row.get_ref(2)?.as_blob()?).unwrap_or_default();
        }
        if depth == Depth::Builds {
            entry.builds = self.builds_of(row.get(0)?)?;
        }
        Ok(Some(entry))
    }

    fn builds_of(&self, id: i64) -> rusqlite::Result<Vec<Build>> {
        let sql = format!("{} WHERE run = ? ORDER BY number", rows::BUILD);
        let mut query = self.connection.prepare_cached(&sql)?;
        let builds: Vec<Option<Build>> = query.query_map([id], rows::build)?.collect::<Result<_, _>>()?;
        Ok(builds.into_iter().flatten().collect())
    }
}

/// What is read of a run; not the long column where it is not wanted.
fn columns(depth: Depth) -> &'static str {
    if depth == Depth::Numbers { "id, numbers" } else { "id, numbers, attrs" }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{build, entry, run};
    use super::super::{AttrTimes, Outcome};
    use super::*;
    use crate::event::{Class, Status};
    use crate::id::Kind;

    #[test]
    fn runs_are_found_by_what_they_are_of() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let side = Entry { branch: Some("side".to_owned()), exit: Some(130), ..entry(2) };
        let web1 = Entry { what: vec!["web1".to_owned()], branch: None, exit: None, ..entry(3) };
        history.add_all(&[entry(1), side, web1.clone(), Entry { command: "check".to_owned(), ..entry(4) }]).unwrap();
        let find = |filter: Filter| -> Vec<RunId> {
            let found = history.entries(&filter, Depth::Numbers, 10).unwrap();
            found.into_iter().map(|entry| entry.run).collect()
        };
        let runs = |hours: &[u64]| -> Vec<RunId> { hours.iter().map(|hour| run(*hour)).collect() };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(find(Filter::default()), runs(&[4, 3, 2, 1]));
        assert_eq!(find(Filter { branch: text("main"), ..Filter::default() }), runs(&[4, 1]));
        assert_eq!(find(Filter { branch: text("gone"), ..Filter::default() }), []);
        assert_eq!(find(Filter { series: Some(web1.series()), ..Filter::default() }), runs(&[3]));
        assert_eq!(find(Filter { command: text("run"), whole: true, ..Filter::default() }), runs(&[1]));
        assert_eq!(find(Filter { before: Some(run(3)), ..Filter::default() }), runs(&[2, 1]));
        assert_eq!(history.entries(&Filter::default(), Depth::Numbers, 1).unwrap().len(), 1);
        assert_eq!(history.entry(run(3), Depth::Builds).unwrap(), Some(web1));
        assert_eq!(history.entry(run(9), Depth::Builds).unwrap(), None);
    }

    #[test]
    fn only_as_much_is_read_as_is_asked_for() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let web1 = AttrTimes {
            attr: "nixosConfigurations.web1".parse().unwrap(),
            kind: Kind::NixosConfigurations,
            name: "web1".to_owned(),
            status: Some(Status::Built),
            drv: None,
            eval: Some(1.5),
            ended: None,
            closure: None,
            difference: None,
        };
        let whole = Entry { attrs: vec![web1], builds: vec![build("a-1", 1.0)], ..entry(1) };
        history.add(&whole).unwrap();
        let at = |depth| history.entries(&Filter::default(), depth, 1).unwrap().remove(0);
        assert_eq!(at(Depth::Numbers), entry(1));
        assert_eq!(at(Depth::Attrs), Entry { builds: Vec::new(), ..whole.clone() });
        assert_eq!(at(Depth::Builds), whole);
    }

    #[test]
    fn the_times_of_a_package_are_those_of_all_versions_on_its_system() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        let other = Build { system: "aarch64-linux".into(), ..build("a-1", 50.0) };
        let failed = Build { outcome: Outcome::Failed(Class::Build), ..build("a-1", 60.0) };
        history.add(&Entry { builds: vec![build("a-1", 1.0), other, failed], ..entry(5) }).unwrap();
        // What comes in later may be older.
        history.add(&Entry { builds: vec![build("a-0.9", 2.0), build("a-doc-1", 70.0)], ..entry(1) }).unwrap();
        let took = history.durations("a", &"x86_64-linux".into(), 9).unwrap();
        let shown: Vec<_> = took.iter().map(|took| (took.run, took.name.as_str(), took.seconds)).collect();
        assert_eq!(shown, [(run(5), "a-1", 1.0), (run(1), "a-0.9", 2.0)]);
        assert_eq!(history.durations("a", &"x86_64-linux".into(), 1).unwrap().len(), 1);
    }

    #[test]
    fn a_run_that_cannot_be_read_is_left_out() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::open(state.path()).unwrap();
        history.add_all(&[entry(1), entry(2)]).unwrap();
        let id = run(1).to_string();
        history.connection.execute("UPDATE runs SET numbers = '{}' WHERE run = ?", [id]).unwrap();
        assert_eq!(history.entries(&Filter::default(), Depth::Builds, 9).unwrap(), [entry(2)]);
    }
}
