//! The tables of the file.

/// The steps from each layout to the next. What was once released is never changed; a new step is added at the end.
pub(super) const STEPS: [&str; 2] = [RUNS_AND_BUILDS, DAYS];

/// Runs are found by columns and read from `numbers`, which is the entry as JSON without its attrs and builds. Times are
/// integers: of runs in ms since 1970, of builds in µs since the start of their run.
const RUNS_AND_BUILDS: &str = "
    CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE packages (
        id INTEGER PRIMARY KEY,
        pname TEXT NOT NULL,
        system INTEGER NOT NULL REFERENCES names (id),
        UNIQUE (pname, system)
    );
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        run TEXT NOT NULL UNIQUE,
        started INTEGER NOT NULL,
        exit INTEGER,
        command INTEGER NOT NULL REFERENCES names (id),
        series INTEGER NOT NULL REFERENCES names (id),
        branch INTEGER REFERENCES names (id),
        builds INTEGER NOT NULL,
        numbers TEXT NOT NULL,
        attrs BLOB NOT NULL
    );
    CREATE INDEX runs_with_builds ON runs (started) WHERE builds > 0;
    CREATE TABLE builds (
        run INTEGER NOT NULL REFERENCES runs (id),
        number INTEGER NOT NULL,
        package INTEGER NOT NULL REFERENCES packages (id),
        name INTEGER NOT NULL REFERENCES names (id),
        drv BLOB NOT NULL,
        builder INTEGER NOT NULL REFERENCES names (id),
        ready INTEGER NOT NULL,
        started INTEGER NOT NULL,
        building INTEGER,
        ended INTEGER NOT NULL,
        outcome TEXT NOT NULL,
        cpu INTEGER,
        brought INTEGER NOT NULL,
        bytes INTEGER,
        PRIMARY KEY (run, number)
    ) WITHOUT ROWID;
    CREATE INDEX builds_of_a_package ON builds (package, run);
";

/// What is left of builds that are too old to be kept one by one: a row a package and day.
const DAYS: &str = "
    CREATE TABLE days (
        package INTEGER NOT NULL REFERENCES packages (id),
        day TEXT NOT NULL,
        built INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        total INTEGER NOT NULL,
        shortest INTEGER,
        longest INTEGER,
        PRIMARY KEY (package, day)
    ) WITHOUT ROWID;
";
