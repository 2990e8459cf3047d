//! The ledger: which uploads were begun and not ended, part by part, and what was pushed where. In a file of the state
//! directory, so that a run that was killed is taken up by the next one.
//!
//! Nothing depends on it: one that cannot be read or written is none, and what it knew is sent again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

/// Name of the file in the state directory.
pub const NAME: &str = "pushes.sqlite";

/// Version of the tables. A file of another version is left alone.
const VERSION: i64 = 1;

/// Servers do not keep unfinished uploads for longer.
const UPLOAD_LIFE: i64 = 7 * 24 * 60 * 60;

/// What was pushed is forgotten after so long.
const PUSHED_LIFE: i64 = 90 * 24 * 60 * 60;

/// Another run may be writing.
const BUSY: Duration = Duration::from_millis(200);

const TABLES: &str = "
    create table if not exists uploads (cache text, name text, id text not null, begun integer not null,
        primary key (cache, name)) without rowid;
    create table if not exists parts (cache text, name text, number integer, size integer not null,
        digest text not null, tag text not null, primary key (cache, name, number)) without rowid;
    create table if not exists pushed (cache text, path text, at integer not null, bytes integer,
        primary key (cache, path)) without rowid;";

/// See the module's page. Cheap to clone; the default one keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Option<Arc<Mutex<Connection>>>);

/// What the ledger says of one upload in parts.
#[derive(Debug, Clone)]
pub struct Entry {
    ledger: Ledger,
    cache: Arc<str>,
    name: String,
}

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// What the server calls it.
    pub id: String,
    /// The parts that the server has, by number from 1.
    pub parts: BTreeMap<u32, Part>,
}

/// A part that the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Bytes.
    pub size: u64,
    /// A digest of its bytes, in whatever form its kind of cache uses: the same digest is the same part.
    pub digest: String,
    /// What the server called it (`ETag`).
    pub tag: String,
}

/// What was pushed to a cache, as far as this machine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushedBefore {
    /// Paths.
    pub paths: u64,
    /// When the last of them was, in seconds since 1970.
    pub last: i64,
}

impl Ledger {
    /// Opens the file, or makes it. The error is for a warning.
    pub fn open(file: &Path) -> Result<Self, rusqlite::Error> {
        let db = Connection::open(file)?;
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "normal")?;
        let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != 0 && version != VERSION {
            return Ok(Self::default());
        }
        db.execute_batch(TABLES)?;
        db.pragma_update(None, "user_version", VERSION)?;
        // The file stamps its rows itself; no other part of a run looks at these times.
        db.execute("delete from uploads where begun < unixepoch() - ?1", [UPLOAD_LIFE])?;
        db.execute(
            "delete from parts where not exists
                (select 1 from uploads u where u.cache = parts.cache and u.name = parts.name)",
            [],
        )?;
        db.execute("delete from pushed where at < unixepoch() - ?1", [PUSHED_LIFE])?;
        Ok(Self(Some(Arc::new(Mutex::new(db)))))
    }

    /// The entry for an upload to a cache; `None` where nothing is kept. The name says which path it is, how it is packed
    /// ([`Codec::tag`](super::Codec::tag)) and cut, so that the parts are the same when they are made again.
    #[must_use]
    pub fn entry(&self, cache: &Arc<str>, name: String) -> Option<Entry> {
        self.0.as_ref()?;
        Some(Entry { ledger: self.clone(), cache: Arc::clone(cache), name })
    }

    /// A path is in a cache, pushed by us.
    pub fn pushed(&self, cache: &str, path: &str, bytes: Option<u64>) {
        let bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
        self.ask(|db| {
            let sql = "insert or replace into pushed values (?1, ?2, unixepoch(), ?3)";
            db.execute(sql, params![cache, path, bytes])
        });
    }

    /// What was pushed to a cache from this machine.
    #[must_use]
    pub fn pushed_before(&self, cache: &str) -> Option<PushedBefore> {
        self.ask(|db| {
            db.query_row("select count(*), max(at) from pushed where cache = ?1 having count(*) > 0", [cache], |row| {
                let paths: i64 = row.get(0)?;
                Ok(PushedBefore { paths: u64::try_from(paths).unwrap_or_default(), last: row.get(1)? })
            })
            .optional()
        })?
    }

    /// What the file says; nothing if it says nothing.
    fn ask<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let db = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        match ask(&db) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%error, "the ledger of pushes");
                None
            }
        }
    }
}

impl Entry {
    /// What was begun and not ended.
    #[must_use]
    pub fn begun(&self) -> Option<Begun> {
        self.ask(|db, cache, name| {
            let id = db.query_row("select id from uploads where cache = ?1 and name = ?2", [cache, name], |row| {
                row.get::<_, String>(0)
            });
            let Some(id) = id.optional()? else { return Ok(None) };
            let mut parts =
                db.prepare_cached("select number, size, digest, tag from parts where cache = ?1 and name = ?2")?;
            let parts = parts.query_map([cache, name], |row| {
                let size: i64 = row.get(1)?;
                let size = u64::try_from(size).unwrap_or_default();
                Ok((row.get(0)?, Part { size, digest: row.get(2)?, tag: row.get(3)? }))
            })?;
            Ok(Some(Begun { id, parts: parts.collect::<Result<_, _>>()? }))
        })?
    }

    /// An upload begins; what was known of an earlier one is forgotten.
    pub fn begin(&self, id: &str) {
        self.end();
        self.ask(|db, cache, name| {
            db.execute("insert or replace into uploads values (?1, ?2, ?3, unixepoch())", [cache, name, id])
        });
    }

    /// The server has a part of the upload that was begun.
    pub fn part(&self, number: u32, part: &Part) {
        let size = i64::try_from(part.size).unwrap_or(i64::MAX);
        self.ask(|db, cache, name| {
            let sql = "insert or replace into parts values (?1, ?2, ?3, ?4, ?5, ?6)";
            db.execute(sql, params![cache, name, number, size, part.digest, part.tag])
        });
    }

    /// The upload has ended, one way or another.
    pub fn end(&self) {
        self.ask(|db, cache, name| {
            db.execute("delete from parts where cache = ?1 and name = ?2", [cache, name])?;
            db.execute("delete from uploads where cache = ?1 and name = ?2", [cache, name])
        });
    }

    fn ask<T>(&self, ask: impl FnOnce(&Connection, &str, &str) -> rusqlite::Result<T>) -> Option<T> {
        self.ledger.ask(|db| ask(db, &self.cache, &self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32) -> Part {
        Part { size: 5 << 20, digest: format!("digest {number}"), tag: format!("\"{number}\"") }
    }

    fn entry(ledger: &Ledger, cache: &str) -> Entry {
        ledger.entry(&cache.into(), "one".to_owned()).unwrap()
    }

    #[test]
    fn an_upload_is_taken_up_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NAME);
        let ledger = Ledger::open(&file).unwrap();
        let one = entry(&ledger, "s3://b");
        one.begin("id 1");
        one.part(2, &part(2));
        one.part(1, &part(1));
        entry(&ledger, "s3://c").begin("id 2");
        drop((one, ledger));
        let ledger = Ledger::open(&file).unwrap();
        let one = entry(&ledger, "s3://b");
        assert_eq!(one.begun(), Some(Begun { id: "id 1".into(), parts: [(1, part(1)), (2, part(2))].into() }));
        one.begin("id 3");
        assert_eq!(one.begun(), Some(Begun { id: "id 3".into(), parts: BTreeMap::new() }));
        one.end();
        assert_eq!(one.begun(), None);
        assert!(entry(&ledger, "s3://c").begun().is_some());
    }

    #[test]
    fn what_was_pushed_is_counted_by_cache() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&dir.path().join(NAME)).unwrap();
        assert_eq!(ledger.pushed_before("file:///c"), None);
        for path in ["a", "b", "a"] {
            ledger.pushed("file:///c", path, Some(7));
        }
        let before = ledger.pushed_before("file:///c").unwrap();
        assert!(before.paths == 2 && before.last > 1_700_000_000, "{before:?}");
    }

    #[test]
    fn garbage_and_the_future_are_no_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(NAME);
        std::fs::write(&file, vec![7; 9000]).unwrap();
        assert!(Ledger::open(&file).is_err());
        let newer = dir.path().join("newer");
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", VERSION + 1).unwrap();
        assert!(Ledger::open(&newer).unwrap().entry(&"c".into(), "n".to_owned()).is_none());
    }
}
