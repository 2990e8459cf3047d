//! Where records lie: `share/eval/FINGERPRINT.record` in the state directory. That folder may be carried from machine
//! to machine; it holds nothing secret, and stays small by itself. The key that signs for this machine lies outside of it.
//!
//! A machine that has no other key than its own must not spoil what others have signed for all: what it adds to such a
//! record goes to `FINGERPRINT.own.record` beside it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::seal::{self, Keyring, MAX_SEALED, SealError, Signer};
use super::{Corrupt, FORMAT, Record};
use crate::store::cache::SecretKey;

/// Bytes that all records together may take. The whole folder holds at most 25 MB; the rest is for the history of runs.
const ROOM: u64 = 15_000_000;
/// A record that nobody used for so long is dropped.
const AGE: Duration = Duration::from_secs(45 * 24 * 60 * 60);
/// A record that is used is marked as such once in so long.
const MARK: Duration = Duration::from_secs(24 * 60 * 60);
/// How many quick files are kept.
const QUICK: usize = 64;
/// What a killed process left behind is removed after so long.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);
/// How often, and after which pause, a process tries to write a folder that another one is writing: for two seconds.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// The records of a state directory.
#[derive(Debug, Clone)]
pub struct Shelf {
    state_dir: PathBuf,
    keyring: Keyring,
}

/// A record could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It could not be signed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It could not be written.
    #[error("cannot write it")]
    Io(#[from] std::io::Error),
}

impl Shelf {
    /// The shelf of a state directory. Its key is made if there is none; without one, nothing of this machine is
    /// believed or stored.
    #[must_use]
    pub fn new(state_dir: &Path, keyring: Keyring) -> Self {
        let own = own_key(state_dir).inspect_err(|error| tracing::warn!(%error, "no key for eval records"));
        Self { state_dir: state_dir.to_owned(), keyring: keyring.with_own(own.ok()) }
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The keys.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    fn dir(&self) -> PathBuf {
        self.state_dir.join("share").join("eval")
    }

    /// The name of a record's file, below `share/` as in other places where it is shared.
    #[must_use]
    pub fn name(fingerprint: &str) -> String {
        format!("eval/{fingerprint}.record")
    }

    /// The file of a record.
    #[must_use]
    pub fn path(&self, fingerprint: &str) -> PathBuf {
        self.dir().join(format!("{fingerprint}.record"))
    }

    /// The file of what only this machine has signed.
    fn own_path(&self, fingerprint: &str) -> PathBuf {
        self.dir().join(format!("{fingerprint}.own.record"))
    }

    /// Reads a sealed record that came from elsewhere.
    pub fn open(&self, sealed: &[u8], fingerprint: &str, place: &str) -> Result<Record, Corrupt> {
        seal::open(sealed, fingerprint, &self.keyring, place)
    }

    /// One file, whole, and what is in it.
    fn read(&self, path: &Path, fingerprint: &str) -> Result<Option<(Vec<u8>, Record)>, Corrupt> {
        let place = path.display().to_string();
        let sealed = read(path, MAX_SEALED).map_err(|cause| Corrupt { place: place.clone(), cause })?;
        let Some(sealed) = sealed else { return Ok(None) };
        let record = self.open(&sealed, fingerprint, &place)?;
        mark(path);
        Ok(Some((sealed, record)))
    }

    /// Reads the record of an evaluation; none if there is none. What cannot be believed is told and left out.
    #[must_use]
    pub fn load(&self, fingerprint: &str) -> (Option<Record>, Vec<Corrupt>) {
        let (mut found, mut corrupt) = (None::<Record>, Vec::new());
        for path in [self.path(fingerprint), self.own_path(fingerprint)] {
            match (self.read(&path, fingerprint), &mut found) {
                (Ok(Some((_, record))), Some(found)) => found.add(record),
                (Ok(Some((_, record))), None) => found = Some(record),
                (Ok(None), _) => {}
                (Err(error), _) => corrupt.push(error),
            }
        }
        (found, corrupt)
    }

    /// Whether a record that is believed here could be believed elsewhere if it were stored anew: it lacks a signature
    /// for which there is a key.
    #[must_use]
    pub fn lacks_signature(&self, fingerprint: &str) -> bool {
        let stored = || self.read(&self.path(fingerprint), fingerprint).ok().flatten();
        let signed = |(bytes, _): &(Vec<u8>, Record)| {
            seal::signer(bytes, fingerprint, &self.keyring) != Signer::State && !self.own_path(fingerprint).exists()
        };
        self.keyring.can_share() && !stored().as_ref().is_some_and(signed)
    }

    /// Signs and stores a record, together with what another process has stored meanwhile, and drops what is old.
    /// Gives the bytes that hold all of it.
    pub fn save(&self, fingerprint: &str, record: &Record) -> Result<Vec<u8>, SaveError> {
        let dir = self.dir();
        std::fs::create_dir_all(&dir)?;
        let _lock = lock(&self.state_dir.join("eval.lock"));
        let (path, own_path) = (self.path(fingerprint), self.own_path(fingerprint));
        let mut record = Record { format: FORMAT, ..record.clone() };
        let stored = self.read(&path, fingerprint).ok().flatten();
        let own = self.read(&own_path, fingerprint).ok().flatten();
        for (_, other) in stored.iter().chain(&own) {
            record.add(other.clone());
        }
        let signer = stored.as_ref().map(|(bytes, _)| seal::signer(bytes, fingerprint, &self.keyring));
        let by_others = signer == Some(Signer::Other) && !self.keyring.can_share();
        if by_others && let Some((bytes, _)) = stored.filter(|(_, stored)| *stored == record) {
            return Ok(bytes);
        }
        let sealed = seal::seal(&record, fingerprint, &self.keyring)?;
        write(if by_others { &own_path } else { &path }, &sealed)?;
        if !by_others && own.is_some() {
            // Another drover may have been quicker.
            let _ = std::fs::remove_file(&own_path);
        }
        self.prune();
        Ok(sealed)
    }

    /// Keeps a record as somebody else has signed it, which is believed here, unless there is another one.
    pub fn keep(&self, fingerprint: &str, sealed: &[u8]) -> std::io::Result<()> {
        let path = self.path(fingerprint);
        if !path.exists() {
            write(&path, sealed)?;
            self.prune();
        }
        Ok(())
    }

    fn prune(&self) {
        prune(&self.dir());
        prune_quick(&self.state_dir.join("eval"));
    }
}

/// Keeps other processes from writing until it is dropped. One that waits too long goes on without: it may undo what
/// another one has added, and nothing worse.
fn lock(path: &Path) -> Option<File> {
    let file = File::options().create(true).append(true).open(path).ok()?;
    for _ in 0..TRIES {
        if file.try_lock().is_ok() {
            return Some(file);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// The key that signs for this machine, made at first use: `NAME:BASE64` like Nix's own, for the owner's eyes only.
fn own_key(state_dir: &Path) -> Result<SecretKey, String> {
    let path = state_dir.join("eval.key");
    for _ in 0..2 {
        match std::fs::symlink_metadata(&path) {
            Ok(_) => return SecretKey::read(&path).map_err(|error| crate::error::chain(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.to_string()),
        }
        let key = SecretKey::generate("drover-state").map_err(|error| error.to_string())?;
        let made = || -> std::io::Result<()> {
            std::fs::create_dir_all(state_dir)?;
            // A temporary file is readable by its owner alone.
            let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
            file.write_all(format!("{}\n", key.secret_text()).as_bytes())?;
            // Another process may have been quicker: then its key is the one.
            match file.persist_noclobber(&path) {
                Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.error),
                _ => Ok(()),
            }
        };
        made().map_err(|error| format!("cannot write '{}': {error}", path.display()))?;
    }
    SecretKey::read(&path).map_err(|error| crate::error::chain(&error))
}

/// A whole file of at most `limit` bytes; `Ok(None)` if it is not there. Errors are for people.
pub(super) fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(crate::error::without_numbers(&error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| crate::error::without_numbers(&error.to_string()))?;
    if bytes.len() > limit {
        return Err(format!("it is larger than {} MiB", limit >> 20));
    }
    Ok(Some(bytes))
}

/// Writes a file so that a reader sees the old or the new one. Everybody who may see the folder may read it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mode = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).permissions(mode).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// How names of temporary files begin.
const TEMPORARY: &str = ".drover-";

/// Notes that a record is in use.
fn mark(path: &Path) {
    let old = std::fs::metadata(path).and_then(|metadata| metadata.modified()).is_ok_and(|time| age(time) > MARK);
    if !old {
        return;
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    // One that cannot be marked is dropped earlier.
    let _ = utimensat(CWD, path, &times, AtFlags::empty());
}

fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

/// Drops records that are too old, too large, or too many: the newest stay, as far as there is room.
fn prune(dir: &Path) {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let Ok(modified) = metadata.modified() else { continue };
        let age = age(modified);
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let temporary = name.starts_with(TEMPORARY);
        if (temporary && age < LEFT_BEHIND) || metadata.is_dir() {
            continue;
        }
        if temporary || !name.ends_with(".record") || age > AGE || metadata.len() > MAX_SEALED as u64 {
            let _ = std::fs::remove_file(entry.path());
        } else {
            files.push((modified, metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut room = ROOM;
    for (_, size, path) in files.iter().rev() {
        match room.checked_sub(*size) {
            Some(rest) => room = rest,
            // Another drover may have been quicker.
            None => drop(std::fs::remove_file(path)),
        }
    }
}

/// Keeps the newest quick files, and drops the records of an earlier drover.
fn prune_quick(dir: &Path) {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata().and_then(|metadata| metadata.modified()) {
            Ok(modified) if entry.file_name().to_string_lossy().starts_with("quick-") => {
                files.push((modified, entry.path()));
            }
            Ok(modified) if age(modified) < LEFT_BEHIND && entry.file_name().to_string_lossy().starts_with('.') => {}
            _ => drop(std::fs::remove_file(entry.path())),
        }
    }
    files.sort();
    for (_, path) in files.iter().rev().skip(QUICK) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn shelf(dir: &Path) -> Shelf {
        Shelf::new(dir, Keyring::default())
    }

    fn grow_old(path: &Path, by: Duration) {
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() - by).unwrap();
    }

    #[test]
    fn the_key_of_the_state_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let names: Vec<String> = std::thread::scope(|scope| {
            let make = || own_key(&state).unwrap().public_text();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        let mode = std::fs::metadata(state.join("eval.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1, "nothing is left behind");
        let other = tempfile::tempdir().unwrap();
        assert_ne!(own_key(other.path()).unwrap().public_text(), names[0]);
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("eval.key"), "nonsense").unwrap();
        let shelf = shelf(dir.path());
        assert!(matches!(shelf.save("a", &Record::default()), Err(SaveError::Seal(SealError::NoKey))));
        assert_eq!(std::fs::read_to_string(dir.path().join("eval.key")).unwrap(), "nonsense");
    }

    #[test]
    fn what_two_processes_learn_is_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |name: &str| -> crate::eval::list::Entry {
            serde_json::from_value(serde_json::json!({ "path": name })).unwrap()
        };
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (dir, entry) = (dir.path(), &entry);
                scope.spawn(move || {
                    let mut record = Record::default();
                    let nothing = crate::eval::Answer::Nothing("x".into());
                    record.remember(&entry(&format!("a{number}")), &nothing, Vec::new());
                    shelf(dir).save("f", &record).unwrap();
                });
            }
        });
        assert_eq!(shelf(dir.path()).load("f").0.unwrap().len(), 8);
    }

    #[test]
    fn the_folder_stays_small_and_young() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, size: usize, days: u64| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![0; size]).unwrap();
            grow_old(&path, Duration::from_secs(days * 24 * 60 * 60));
        };
        put("a.record", 6_000_000, 1);
        put("b.record", 6_000_000, 2);
        put("c.record", 6_000_000, 3);
        put("small.record", 10, 4);
        put("old.record", 10, 46);
        put("huge.record", MAX_SEALED + 1, 0);
        put("strange", 10, 0);
        put(".drover-old", 10, 1);
        put(".drover-new", 10, 0);
        prune(dir.path());
        let mut left: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [".drover-new", "a.record", "b.record", "small.record"]);
    }

    #[test]
    fn records_of_an_earlier_drover_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("eval")).unwrap();
        std::fs::write(dir.path().join("eval/0123.json"), "{}").unwrap();
        std::fs::write(dir.path().join("eval/quick-0123.json"), "{}").unwrap();
        shelf(dir.path()).save("f", &Record::default()).unwrap();
        assert!(!dir.path().join("eval/0123.json").exists());
        assert!(dir.path().join("eval/quick-0123.json").exists());
        let record = dir.path().join("share/eval/f.record");
        assert!(record.exists());
    }

    #[test]
    fn a_record_in_use_does_not_grow_old() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path());
        shelf.save("f", &Record::default()).unwrap();
        grow_old(&shelf.path("f"), 3 * MARK);
        shelf.load("f").0.unwrap();
        assert!(age(std::fs::metadata(shelf.path("f")).unwrap().modified().unwrap()) < MARK);
    }
}
