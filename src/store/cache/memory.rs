//! What caches said in earlier runs: the answers are kept in a file (SQLite), so that a cache is asked for a path once.
//!
//! That a cache has a path is believed for 30 days, that it does not for an hour; a minute where the run pushes to it,
//! since others do so too. Only caches behind a network are remembered. A run can do without the file: one that is
//! damaged, locked or from another time remembers nothing, and there is one line about it.
//!
//! One thread owns the file. It keeps what is new in memory and writes many answers as one change, when nobody has
//! asked it anything for a while or there are enough of them: reading seldom waits for writing. Does not own what an
//! answer means, nor who is asked when.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use super::answer::{Answer, Trust};
use super::answers::{Paths, Piece, Pieces};
use crate::error;
use crate::id::StorePath;
use crate::sqlite::{self, Layout, SqliteError};

/// How long it is believed that a cache has a path.
const PRESENT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long it is believed that a cache does not have a path, or that it is signed by nobody who is trusted.
const ABSENT: Duration = Duration::from_secs(3600);

/// The same for a cache that is pushed to.
const ABSENT_IF_PUSHED: Duration = Duration::from_secs(60);

/// Answers that are kept at most; 400 to 1,000 bytes each.
const MOST: i64 = 200_000;

/// How often the file is looked through for what is no longer believed.
const PURGE_EVERY: Duration = Duration::from_secs(24 * 3600);

const LAYOUT: Layout = Layout {
    version: 1,
    tables: "
        -- Answers from before 'since' do not count.
        CREATE TABLE caches (id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE, since INTEGER NOT NULL);
        -- One for each path that a cache was asked for: 'hash' is the digest of the path, 'told' when it was
        -- answered, 'kind' a number of Kind, 'trust' what the judgement rests on, 'record' the text of the narinfo.
        CREATE TABLE answers (
            cache INTEGER NOT NULL, hash BLOB NOT NULL, told INTEGER NOT NULL, kind INTEGER NOT NULL,
            trust INTEGER NOT NULL, record BLOB, PRIMARY KEY (cache, hash)
        );
        CREATE TABLE purges (told INTEGER NOT NULL);
    ",
};

/// What kind of answer a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absent = 0,
    Present = 1,
    Untrusted = 2,
}

/// The memory of a run. Cheap to clone; nothing is opened before it is used.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Nothing from before this run counts.
    refresh: bool,
    /// Nothing is recalled.
    doubted: AtomicBool,
    desk: Mutex<Desk>,
    /// Why it remembers nothing, until somebody has told that.
    trouble: Arc<Mutex<Option<String>>>,
}

/// The way to the thread.
#[derive(Debug)]
enum Desk {
    Closed,
    Open(Sender<Order>),
}

/// What the thread is asked for.
enum Order {
    /// What is remembered of these paths, in their order.
    Recall { url: Arc<str>, hashes: Vec<[u8; 20]>, rows: oneshot::Sender<Vec<Option<Row>>> },
    /// To be remembered.
    Note { url: Arc<str>, rows: Vec<([u8; 20], Row)> },
    /// No longer to be remembered.
    Forget { url: Arc<str>, hashes: Vec<[u8; 20]> },
    /// All before this is done.
    Settle { done: oneshot::Sender<()> },
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// Milliseconds since 1970.
    told: i64,
    kind: Kind,
    trust: i64,
    record: Option<Vec<u8>>,
}

impl Memory {
    /// What is kept in this file, which need not be there. `refresh`: nothing from before counts, in this run and later.
    #[must_use]
    pub fn new(path: PathBuf, refresh: bool) -> Self {
        let trouble = Arc::default();
        Self(Arc::new(Shared {
            path,
            refresh,
            doubted: AtomicBool::new(false),
            desk: Mutex::new(Desk::Closed),
            trouble,
        }))
    }

    /// From now on nothing is recalled in this run; what caches say is still noted. For whoever wants to know how things
    /// stand this moment.
    pub fn doubt(&self) {
        self.0.doubted.store(true, Ordering::Relaxed);
    }

    /// Why nothing is remembered, told once.
    #[must_use]
    pub fn take_trouble(&self) -> Option<String> {
        lock(&self.0.trouble).take()
    }

    /// Waits until all that was noted is in the file. For the end of a run.
    pub async fn settle(&self) {
        let orders = match &*lock(&self.0.desk) {
            Desk::Closed => return,
            Desk::Open(orders) => orders.clone(),
        };
        let (done, is_done) = oneshot::channel();
        if orders.send(Order::Settle { done }).is_ok() {
            // The thread has gone if the file is no good.
            let _ = is_done.await;
        }
    }

    /// The part of it that is about one cache, by its URL without login and parameters.
    pub(super) fn of(&self, url: &str, trust: &Trust, pushed: bool) -> Remembered {
        let absent = if pushed { ABSENT_IF_PUSHED } else { ABSENT };
        Remembered { memory: self.clone(), url: url.into(), trust: trust.fingerprint(), absent }
    }

    /// Hands an order to the thread, which is started by the first.
    fn order(&self, order: Order) {
        let mut desk = lock(&self.0.desk);
        if let Desk::Closed = *desk {
            let (give, take) = mpsc::channel();
            let (path, refresh, trouble) = (self.0.path.clone(), self.0.refresh, Arc::clone(&self.0.trouble));
            let started = thread::Builder::new().name("memory".to_owned()).spawn(move || {
                if let Err(error) = keep(&path, refresh, &take) {
                    *lock(&trouble) = Some(error::chain(&error));
                }
            });
            if let Err(error) = started {
                *lock(&self.0.trouble) = Some(format!("cannot start a thread: {error}"));
            }
            *desk = Desk::Open(give);
        }
        if let Desk::Open(orders) = &*desk {
            // If the thread has gone, the one who waits for rows gets none.
            let _ = orders.send(order);
        }
    }
}

/// What is remembered of one cache.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    memory: Memory,
    url: Arc<str>,
    /// What judgements of this run rest on.
    trust: i64,
    /// How long absence is believed.
    absent: Duration,
}

impl Remembered {
    /// Gives the answers that are still believed, and those that `ask` gives to the rest of the paths, which are noted.
    pub(super) async fn ask<F>(
        self,
        trust: Arc<Trust>,
        paths: Paths,
        pieces: Pieces,
        ask: impl FnOnce(Arc<Trust>, Paths, Pieces) -> F,
    ) where
        F: Future<Output = ()>,
    {
        let (mut known, mut open) = (Vec::new(), Vec::new());
        for (at, answer) in self.recall(&trust, &paths).await.into_iter().enumerate() {
            match answer {
                Some(answer) => known.push((at, answer)),
                None => open.push(at),
            }
        }
        // Nobody may be listening any more, here and below.
        if !known.is_empty() {
            let _ = pieces.send(known);
        }
        if open.is_empty() {
            return;
        }
        let rest: Paths = open.iter().filter_map(|at| paths.get(*at)).cloned().collect();
        let (give, mut take) = tokio_mpsc::unbounded_channel::<Piece>();
        let pass_on = async {
            while let Some(piece) = take.recv().await {
                self.note(piece.iter().filter_map(|(at, answer)| Some((rest.get(*at)?, answer))));
                let piece = piece.into_iter().filter_map(|(at, answer)| Some((*open.get(at)?, answer)));
                let _ = pieces.send(piece.collect());
            }
        };
        tokio::join!(ask(trust, Arc::clone(&rest), give), pass_on);
    }

    /// The answers that are still believed, in the order of the paths.
    pub(super) async fn recall(&self, trust: &Arc<Trust>, paths: &Paths) -> Vec<Option<Answer>> {
        if self.memory.0.doubted.load(Ordering::Relaxed) {
            return vec![None; paths.len()];
        }
        let (give, take) = oneshot::channel();
        let hashes = paths.iter().map(|path| *path.digest()).collect();
        self.memory.order(Order::Recall { url: Arc::clone(&self.url), hashes, rows: give });
        let Ok(rows) = take.await else { return vec![None; paths.len()] };
        if rows.iter().all(Option::is_none) {
            return vec![None; paths.len()];
        }
        let (this, trust, asked) = (self.clone(), Arc::clone(trust), Arc::clone(paths));
        let now = now();
        let read = move || {
            let pairs = asked.par_iter().zip(rows).with_min_len(64);
            pairs.map(|(path, row)| this.believe(&trust, path, row?, now)).collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| vec![None; paths.len()])
    }

    /// What a row says now, if it is still believed.
    fn believe(&self, trust: &Trust, path: &StorePath, row: Row, now: i64) -> Option<Answer> {
        let limit = if row.kind == Kind::Present { PRESENT } else { self.absent };
        // What is told from the future comes of a clock that was wrong.
        if !(0..=millis(limit)).contains(&now.saturating_sub(row.told)) {
            return None;
        }
        let Some(record) = row.record else { return (row.kind == Kind::Absent).then_some(Answer::Absent) };
        if row.trust != self.trust {
            let judged = trust.judge(path, &record);
            return judged.info().is_some().then_some(judged);
        }
        let info = Box::new(trust.read(path, &record).ok()?);
        Some(if row.kind == Kind::Present { Answer::Present(info) } else { Answer::Untrusted(info) })
    }

    /// Remembers answers; no answer is not remembered.
    pub(super) fn note<'a>(&self, answers: impl Iterator<Item = (&'a StorePath, &'a Answer)>) {
        let told = now();
        let row = |answer: &Answer| {
            let (kind, info) = match answer {
                Answer::Present(info) => (Kind::Present, Some(info)),
                Answer::Untrusted(info) => (Kind::Untrusted, Some(info)),
                Answer::Absent => (Kind::Absent, None),
                Answer::NoAnswer(_) => return None,
            };
            let record = info.map(|info| info.to_canonical_bytes());
            Some(Row { told, kind, trust: self.trust, record })
        };
        let rows: Vec<_> = answers.filter_map(|(path, answer)| Some((*path.digest(), row(answer)?))).collect();
        if !rows.is_empty() {
            self.memory.order(Order::Note { url: Arc::clone(&self.url), rows });
        }
    }

    /// Forgets what is known of these paths: it turned out to be wrong.
    pub(super) fn forget(&self, paths: &[StorePath]) {
        let hashes = paths.iter().map(|path| *path.digest()).collect();
        self.memory.order(Order::Forget { url: Arc::clone(&self.url), hashes });
    }
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "held against what other runs wrote, and told to nobody")]
fn now() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long nobody must have asked anything before what is new is written.
const QUIET: Duration = Duration::from_millis(200);

/// Answers that are kept in memory before they are written, at most.
const MOST_UNWRITTEN: usize = 4096;

/// The thread: serves orders until nobody can give any.
fn keep(path: &Path, refresh: bool, orders: &Receiver<Order>) -> Result<(), SqliteError> {
    let connection = sqlite::open(path, LAYOUT)?;
    let used = |source| SqliteError::Use { path: path.to_owned(), source };
    let mut book = Book { connection, ids: HashMap::new(), refresh, new: HashMap::new(), purged: false };
    loop {
        let wait = if book.new.is_empty() { FOREVER } else { QUIET };
        match orders.recv_timeout(wait) {
            Ok(order) => book.serve(order).map_err(used)?,
            Err(RecvTimeoutError::Timeout) => book.write().map_err(used)?,
            Err(RecvTimeoutError::Disconnected) => return book.write().map_err(used),
        }
    }
}

/// When nothing is to be done later.
const FOREVER: Duration = Duration::from_secs(3600);

/// The file and what is known of it.
struct Book {
    connection: Connection,
    /// Numbers of caches, by URL.
    ids: HashMap<Arc<str>, i64>,
    refresh: bool,
    /// What is not written yet, by cache and path; `None`: to be forgotten.
    new: HashMap<(i64, [u8; 20]), Option<Row>>,
    /// Nothing that is too old is left.
    purged: bool,
}

impl Book {
    fn serve(&mut self, order: Order) -> rusqlite::Result<()> {
        match order {
            Order::Recall { url, hashes, rows } => {
                let found = self.recall(&url, &hashes)?;
                // Nobody may be waiting any more, here and below.
                let _ = rows.send(found);
            }
            Order::Note { url, rows } => {
                let cache = self.id(&url)?;
                self.new.extend(rows.into_iter().map(|(hash, row)| ((cache, hash), Some(row))));
            }
            Order::Forget { url, hashes } => {
                let cache = self.id(&url)?;
                self.new.extend(hashes.into_iter().map(|hash| ((cache, hash), None)));
            }
            Order::Settle { done } => {
                self.write()?;
                let _ = done.send(());
            }
        }
        if self.new.len() >= MOST_UNWRITTEN { self.write() } else { Ok(()) }
    }

    fn id(&mut self, url: &Arc<str>) -> rusqlite::Result<i64> {
        id_of(&self.connection, &mut self.ids, self.refresh, url)
    }

    /// Writes what is new as one change.
    fn write(&mut self) -> rusqlite::Result<()> {
        if self.new.is_empty() {
            return Ok(());
        }
        let mut new: Vec<_> = std::mem::take(&mut self.new).into_iter().collect();
        // In the order of the file, which is the fastest.
        new.sort_unstable_by_key(|(key, _)| *key);
        let change = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = change.prepare_cached(
                "INSERT OR REPLACE INTO answers (cache, hash, told, kind, trust, record) VALUES (?, ?, ?, ?, ?, ?)",
            )?;
            let mut delete = change.prepare_cached("DELETE FROM answers WHERE cache = ? AND hash = ?")?;
            for ((cache, hash), row) in new {
                match row {
                    Some(Row { told, kind, trust, record }) => {
                        insert.execute(params![cache, hash, told, kind as i64, trust, record])?
                    }
                    None => delete.execute(params![cache, hash])?,
                };
            }
        }
        if !std::mem::replace(&mut self.purged, true) {
            purge(&change)?;
        }
        change.commit()
    }

    fn recall(&mut self, url: &Arc<str>, hashes: &[[u8; 20]]) -> rusqlite::Result<Vec<Option<Row>>> {
        let cache = self.id(url)?;
        let mut query = self.connection.prepare_cached(
            "SELECT told, kind, trust, record FROM answers JOIN caches ON caches.id = cache
             WHERE cache = ? AND hash = ? AND told >= since",
        )?;
        let row = |row: &rusqlite::Row<'_>| {
            let kind = match row.get(1)? {
                Value::Integer(0) => Kind::Absent,
                Value::Integer(1) => Kind::Present,
                _ => Kind::Untrusted,
            };
            Ok(Row { told: row.get(0)?, kind, trust: row.get(2)?, record: row.get(3)? })
        };
        let find = |hash: &[u8; 20]| match self.new.get(&(cache, *hash)) {
            Some(new) => Ok(new.clone()),
            None => query.query_row(params![cache, hash], row).optional(),
        };
        hashes.iter().map(find).collect()
    }
}

/// The number of a cache, which gets one if it has none. With `refresh`, what was said of it before does not count any
/// more, however much that is.
fn id_of(
    connection: &Connection,
    ids: &mut HashMap<Arc<str>, i64>,
    refresh: bool,
    url: &Arc<str>,
) -> rusqlite::Result<i64> {
    if let Some(id) = ids.get(url) {
        return Ok(*id);
    }
    connection.execute("INSERT OR IGNORE INTO caches (url, since) VALUES (?, 0)", [&**url])?;
    if refresh {
        connection.execute("UPDATE caches SET since = ? WHERE url = ?", params![now(), &**url])?;
    }
    let id = connection.query_row("SELECT id FROM caches WHERE url = ?", [&**url], |row| row.get(0))?;
    ids.insert(Arc::clone(url), id);
    Ok(id)
}

/// Once a day, what is believed no more goes, and the oldest of what is too much.
fn purge(change: &Connection) -> rusqlite::Result<()> {
    let now = now();
    let last: Option<i64> = change.query_row("SELECT max(told) FROM purges", [], |row| row.get(0))?;
    let ago = |time: Duration| now.saturating_sub(millis(time));
    if last.is_some_and(|last| last > ago(PURGE_EVERY) && last <= now) {
        return Ok(());
    }
    change.execute(
        "DELETE FROM answers WHERE told < ? OR kind <> ? AND told < ?
            OR told < (SELECT since FROM caches WHERE id = cache)",
        params![ago(PRESENT), Kind::Present as i64, ago(ABSENT)],
    )?;
    change.execute(
        "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers ORDER BY told DESC LIMIT -1 OFFSET ?)",
        [MOST],
    )?;
    change.execute("DELETE FROM purges", [])?;
    change.execute("INSERT INTO purges VALUES (?)", [now])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;
    use crate::id::StoreDir;
    use crate::nix_compat::narinfo::{NarInfo, NixHash};
    use crate::store::cache::answer::no_answer;

    fn path(number: u8) -> StorePath {
        StorePath::from_parts([number; 20], "x").unwrap()
    }

    fn present(number: u8) -> Answer {
        let info = NarInfo::builder(path(number), "nar/x.nar", NixHash::Sha256([7; 32]), 100).build().unwrap();
        Answer::Present(Box::new(info))
    }

    fn trust(check: bool) -> Arc<Trust> {
        Arc::new(Trust { store_dir: StoreDir::new("/nix/store").unwrap(), keys: Vec::new(), check })
    }

    /// What four paths are remembered as.
    async fn all(memory: &Memory, url: &str, check: bool, pushed: bool) -> Vec<Option<Answer>> {
        let trust = trust(check);
        memory.of(url, &trust, pushed).recall(&trust, &[1, 2, 3, 4].map(path).into()).await
    }

    async fn noted(file: &Path) -> Memory {
        let memory = Memory::new(file.to_owned(), false);
        let remembered = memory.of("https://a", &trust(false), false);
        let answers = [present(1), Answer::Absent, Answer::NoAnswer(no_answer(Class::Network, "down"))];
        let paths = [1, 2, 3].map(path);
        remembered.note(paths.iter().zip(&answers));
        memory.settle().await;
        memory
    }

    /// Makes all that is in the file so much older.
    fn age(file: &Path, by: Duration) {
        let connection = Connection::open(file).unwrap();
        connection.execute("UPDATE answers SET told = told - ?", [millis(by)]).unwrap();
    }

    #[tokio::test]
    async fn what_a_cache_said_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/answers.sqlite");
        let first = noted(&file).await;
        let second = Memory::new(file, false);
        let known = vec![Some(present(1)), Some(Answer::Absent), None, None];
        assert_eq!(all(&first, "https://a", false, false).await, known);
        assert_eq!(all(&second, "https://a", false, false).await, known);
        assert_eq!(all(&second, "https://b", false, false).await, vec![None; 4], "another cache");
        // Where signatures are looked at, the record is judged anew.
        let Some(Answer::Present(info)) = known[0].clone() else { panic!("{known:?}") };
        let judged = vec![Some(Answer::Untrusted(info)), Some(Answer::Absent), None, None];
        assert_eq!(all(&second, "https://a", true, false).await, judged);
        assert_eq!(second.take_trouble(), None);
    }

    #[tokio::test]
    async fn nothing_is_believed_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answers.sqlite");
        let memory = noted(&file).await;
        age(&file, Duration::from_secs(120));
        let (here, gone) = (Some(present(1)), Some(Answer::Absent));
        assert_eq!(all(&memory, "https://a", false, true).await, [here.clone(), None, None, None], "others push, too");
        assert_eq!(all(&memory, "https://a", false, false).await, [here.clone(), gone, None, None]);
        age(&file, ABSENT);
        assert_eq!(all(&memory, "https://a", false, false).await, [here, None, None, None]);
        age(&file, PRESENT);
        assert_eq!(all(&memory, "https://a", false, false).await, vec![None; 4]);
        // Of a clock that was wrong.
        age(&file, Duration::ZERO);
        let connection = Connection::open(&file).unwrap();
        connection.execute("UPDATE answers SET told = told + ?", [millis(PRESENT * 3)]).unwrap();
        assert_eq!(all(&memory, "https://a", false, false).await, vec![None; 4]);
    }

    #[tokio::test]
    async fn a_path_that_is_not_there_after_all_is_forgotten_and_so_is_all_with_refresh() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answers.sqlite");
        let memory = noted(&file).await;
        memory.of("https://a", &trust(false), false).forget(&[path(1)]);
        assert_eq!(all(&memory, "https://a", false, false).await, [None, Some(Answer::Absent), None, None]);
        age(&file, Duration::from_millis(5));
        let fresh = Memory::new(file.clone(), true);
        assert_eq!(all(&fresh, "https://a", false, false).await, vec![None; 4]);
        // What it hears itself counts, and stays the only thing that does.
        fresh.of("https://a", &trust(false), false).note(std::iter::once((&path(3), &present(3))));
        let known = [None, None, Some(present(3)), None];
        assert_eq!(all(&fresh, "https://a", false, false).await, known);
        fresh.settle().await;
        assert_eq!(all(&Memory::new(file, false), "https://a", false, false).await, known);
    }

    #[tokio::test]
    async fn a_file_that_is_no_good_remembers_nothing_and_says_so_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answers.sqlite");
        std::fs::write(&file, "this is no database at all. ".repeat(200)).unwrap();
        let memory = Memory::new(file.clone(), false);
        assert_eq!(all(&memory, "https://a", false, false).await, vec![None; 4]);
        memory.of("https://a", &trust(false), false).note(std::iter::once((&path(1), &present(1))));
        memory.settle().await;
        assert!(memory.take_trouble().unwrap().contains("answers.sqlite is damaged"));
        assert_eq!(memory.take_trouble(), None);
        // The next run begins anew.
        let next = noted(&file).await;
        assert_eq!(all(&next, "https://a", false, false).await[0], Some(present(1)));
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_once_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = sqlite::open(&dir.path().join("answers.sqlite"), LAYOUT).unwrap();
        let change = connection.transaction().unwrap();
        change.execute("INSERT INTO caches VALUES (1, 'https://a', 0)", []).unwrap();
        let row = |number: i64, ago: Duration, kind: Kind| {
            let values = params![number.to_be_bytes(), now() - millis(ago), kind as i64];
            change.execute("INSERT INTO answers VALUES (1, ?, ?, ?, 0, NULL)", values).unwrap();
        };
        row(-1, PRESENT * 2, Kind::Present);
        row(-2, ABSENT * 2, Kind::Absent);
        row(-3, ABSENT * 2, Kind::Present);
        (0..MOST).for_each(|number| row(number, Duration::ZERO, Kind::Absent));
        let count = || change.query_row("SELECT count(*) FROM answers", [], |row| row.get::<_, i64>(0)).unwrap();
        purge(&change).unwrap();
        assert_eq!(count(), MOST);
        row(-1, PRESENT * 2, Kind::Present);
        purge(&change).unwrap();
        assert_eq!(count(), MOST + 1, "not again on the same day");
    }
}
