//! Small SQLite files in which something is remembered between runs, and which a run can do without.
//!
//! One way of opening them, for all: several processes may use a file at once (write-ahead log), its layout has a
//! number (`user_version`). Of what can be asked again ([`open`]) a file that is damaged or of another layout is taken
//! away, so that the next run begins it anew. What cannot ([`open_kept`]) is brought to the layout of today, and put aside
//! if it is damaged. Whoever opens one goes on without it when that fails. Owns no tables.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

/// How long a file is waited for that another process writes to.
const PATIENCE: Duration = Duration::from_millis(500);

/// The same for what is worth keeping: a change of another process is never long.
const PATIENCE_KEPT: Duration = Duration::from_secs(5);

/// What a file is to hold.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Above 0; to be raised whenever `tables` changes.
    pub version: i32,
    /// The statements that make the tables of an empty file.
    pub tables: &'static str,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// Its directory cannot be made.
    #[error("cannot create {}", path.display())]
    Create {
        /// Which directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no such file, or is broken. It has been taken away: the next run begins a new one.
    #[error("{} is damaged and is begun anew", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// A newer drover wrote it. It stays as it is.
    #[error("{} is of layout {found}, this drover knows {known}", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its layout.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// It cannot be opened, read or written, for now.
    #[error("cannot use {}", path.display())]
    Use {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

/// A file whose content is worth keeping.
#[derive(Debug)]
pub struct Kept {
    /// It, open.
    pub connection: Connection,
    /// Where the one before was put, if that was damaged and this one is new.
    pub aside: Option<PathBuf>,
}

/// Opens a file, and makes it with its tables where there is none. One of an older layout is emptied. May wait half a
/// second for other processes; not for threads that must not wait.
pub fn open(path: &Path, layout: Layout) -> Result<Connection, SqliteError> {
    make_dir(path)?;
    let failed = |source: rusqlite::Error| {
        let path = path.to_owned();
        if is_damage(&source) {
            take_away(&path);
            SqliteError::Damaged { path, source }
        } else {
            SqliteError::Use { path, source }
        }
    };
    let mut connection = connect(path, PATIENCE).map_err(failed)?;
    match version(&connection).map_err(failed)? {
        found if found > layout.version => {
            return Err(SqliteError::Newer { path: path.to_owned(), found, known: layout.version });
        }
        found if found == layout.version => {}
        _ => lay_out(&mut connection, layout).map_err(failed)?,
    }
    Ok(connection)
}

/// Opens a file whose content is worth keeping, and makes it where there is none.
///
/// `steps` lead from each layout to the next: a file of layout n has seen the first n of them and gets the others, all
/// or none. A damaged file is put aside and a new one begun. May wait some seconds for other processes.
pub fn open_kept(path: &Path, steps: &[&str]) -> Result<Kept, SqliteError> {
    make_dir(path)?;
    let (connection, is_new) = match open_stepped(path, steps) {
        Err(SqliteError::Use { source, .. }) if is_damage(&source) => {
            put_aside(path)?;
            open_stepped(path, steps)?
        }
        opened => opened?,
    };
    // It may have been put aside by whoever came before.
    Ok(Kept { connection, aside: if is_new { last_aside(path) } else { None } })
}

/// The file, and whether it was made now.
fn open_stepped(path: &Path, steps: &[&str]) -> Result<(Connection, bool), SqliteError> {
    let failed = |source| SqliteError::Use { path: path.to_owned(), source };
    let known = i32::try_from(steps.len()).unwrap_or(i32::MAX);
    let mut connection = connect(path, PATIENCE_KEPT).map_err(failed)?;
    // To bring all into the file itself would make the end of a run wait for the disk. The next writer does it in time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    let found = version(&connection).map_err(failed)?;
    match found {
        found if found > known => return Err(SqliteError::Newer { path: path.to_owned(), found, known }),
        found if found == known => {}
        _ => climb(&mut connection, steps, known).map_err(failed)?,
    }
    Ok((connection, found == 0))
}

/// Does the steps that a file has not seen yet; another process may just have done so.
fn climb(connection: &mut Connection, steps: &[&str], known: i32) -> rusqlite::Result<()> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let seen = usize::try_from(version(&change)?).unwrap_or(0);
    for step in steps.iter().skip(seen) {
        change.execute_batch(step)?;
    }
    if seen < steps.len() {
        change.pragma_update(None, "user_version", known)?;
    }
    change.commit()
}

/// What the names of damaged files have after that of the file: when they were last written follows.
const DAMAGED: &str = ".damaged-";

/// Gives a damaged file, and what SQLite keeps beside it, a name of its own; gives the name.
pub fn put_aside(path: &Path) -> Result<PathBuf, SqliteError> {
    let written = fs::metadata(path).and_then(|file| file.modified()).ok();
    let written = written.and_then(|time| jiff::Timestamp::try_from(time).ok()).unwrap_or_default();
    let aside = followed(path, &format!("{DAMAGED}{}", written.strftime("%Y%m%dT%H%M%S%.6fZ")));
    for beside in ["", "-wal", "-shm"] {
        let from = followed(path, beside);
        match fs::rename(&from, followed(&aside, beside)) {
            // Another process has just done it, or there is no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|source| SqliteError::Create { path: from, source })?,
        }
    }
    Ok(aside)
}

/// Where the file was put that was last found to be damaged.
fn last_aside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let beside = fs::read_dir(path.parent()?).ok()?.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let aside = beside.filter(|file| {
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix(DAMAGED));
        rest.is_some_and(|rest| rest.ends_with('Z'))
    });
    Some(path.with_file_name(aside.max()?))
}

/// What was written to a file and is not in the file itself yet is in this one.
#[must_use]
pub fn log_of(path: &Path) -> PathBuf {
    followed(path, "-wal")
}

/// A name with something after it.
fn followed(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    PathBuf::from(name)
}

fn make_dir(path: &Path) -> Result<(), SqliteError> {
    let Some(dir) = path.parent() else { return Ok(()) };
    fs::create_dir_all(dir).map_err(|source| SqliteError::Create { path: dir.to_owned(), source })
}

/// Whether this error says that the file itself is no good.
#[must_use]
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn connect(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(patience)?;
    // Where the file system cannot do that, the answer names another mode, which serves as well.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // What the last seconds before a power cut brought may be lost; the file stays whole.
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes the tables, in the place of those of an older layout; unless another process has just done so.
fn lay_out(connection: &mut Connection, layout: Layout) -> rusqlite::Result<()> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&change)? != layout.version {
        for table in tables(&change)? {
            change.execute_batch(&format!("DROP TABLE \"{}\"", table.replace('"', "\"\"")))?;
        }
        change.execute_batch(layout.tables)?;
        change.pragma_update(None, "user_version", layout.version)?;
    }
    change.commit()
}

fn tables(change: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    let mut query =
        change.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    query.query_map([], |row| row.get(0))?.collect()
}

/// Removes a file and what SQLite keeps beside it. Nothing is lost that was not lost before.
fn take_away(path: &Path) {
    for beside in ["", "-wal", "-shm"] {
        let name = followed(path, beside);
        if let Err(error) = fs::remove_file(&name)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!("cannot remove {}: {error}", name.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { version: 2, tables: "CREATE TABLE words (word TEXT PRIMARY KEY) WITHOUT ROWID;" };

    fn words(connection: &Connection) -> Vec<String> {
        let mut query = connection.prepare("SELECT word FROM words").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn what_one_process_writes_the_next_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/words.sqlite");
        let first = open(&path, LAYOUT).unwrap();
        let second = open(&path, LAYOUT).unwrap();
        first.execute("INSERT INTO words VALUES ('here')", []).unwrap();
        assert_eq!(words(&second), ["here"]);
        drop((first, second));
        assert_eq!(words(&open(&path, LAYOUT).unwrap()), ["here"]);
    }

    #[test]
    fn an_older_layout_is_emptied_and_a_newer_one_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words.sqlite");
        let old = Layout { version: 1, tables: "CREATE TABLE words (other INTEGER); CREATE TABLE \"a \"\"b\" (x);" };
        open(&path, old).unwrap().execute("INSERT INTO words VALUES (1)", []).unwrap();
        let now = open(&path, LAYOUT).unwrap();
        assert_eq!(words(&now), Vec::<String>::new());
        assert!(now.execute("INSERT INTO \"a \"\"b\" VALUES (1)", []).is_err());
        now.execute("INSERT INTO words VALUES ('kept')", []).unwrap();
        assert!(matches!(open(&path, old), Err(SqliteError::Newer { found: 2, known: 1, .. })));
        assert_eq!(words(&open(&path, LAYOUT).unwrap()), ["kept"]);
    }

    #[test]
    fn a_damaged_file_is_begun_anew_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words.sqlite");
        fs::write(&path, "no database, and long enough to be taken for one ".repeat(100)).unwrap();
        let error = open(&path, LAYOUT).unwrap_err();
        assert!(matches!(error, SqliteError::Damaged { .. }), "{error:?}");
        assert_eq!(words(&open(&path, LAYOUT).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_somebody_holds_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words.sqlite");
        let holder = Connection::open(&path).unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let error = open(&path, LAYOUT).unwrap_err();
        assert!(matches!(error, SqliteError::Use { .. }), "{error:?}");
    }
}
