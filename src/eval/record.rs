//! What is remembered of an evaluation, so that the same source is not evaluated twice. Does not know whether the
//! derivations still exist: the caller asks the store and drops what is gone ([`Record::keep`]).
//!
//! A record belongs to one pure, locked source under one Nix with one set of settings. Two files: `eval/KEY.json` holds
//! the answers, found by the locked source; `eval/quick-KEY.json` holds the [`Locked`] itself, found by what git says
//! about a clean work tree, so that not even Nix has to be started.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::expr;
use super::flake::{FlakeOptions, Locked};
use super::git::{self, Look};
use super::list::{Entry, LeftOut};
use super::nix::Nix;
use super::pool::{Answer, DrvAnswer};
use super::what::Selection;
use crate::id::StorePath;

/// Format of both files; part of every key.
const FORMAT: u32 = 1;
/// Largest file that is read.
const SIZE_LIMIT: u64 = 64 << 20;
/// How many files are kept.
const KEPT: usize = 64;

/// What, besides the source, an answer depends on. The caller gathers it: this module reads no environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Context {
    /// Which Nix: its version, or the real path, size and time of its program.
    pub nix: String,
    /// All settings that may change an evaluation: the text of the nix.conf files in force and of NIX_CONFIG, flags
    /// passed on to Nix, `NIX_STORE_DIR`, the eval store.
    pub settings: String,
}

/// One remembered answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The derivation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drv: Option<DrvAnswer>,
    /// Why there is nothing to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
    /// What Nix warned of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Recorded {
    /// As it was answered.
    #[must_use]
    pub fn answer(&self) -> Answer {
        match &self.drv {
            Some(drv) => Answer::Drv(drv.clone()),
            None => Answer::Nothing(self.nothing.as_deref().unwrap_or("it has nothing to build").into()),
        }
    }
}

/// The attrs of one selection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedList {
    entries: Vec<Entry>,
    left_out: Vec<LeftOut>,
}

/// What is remembered of one source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    lists: BTreeMap<String, RecordedList>,
    answers: BTreeMap<String, Recorded>,
}

/// A stored record could not be read; it is as good as none.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the recorded evaluation '{}', it is ignored: {cause}", path.display())]
pub struct Corrupt {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub cause: String,
}

impl Record {
    /// Whether an evaluation may be remembered: only of a pure, clean source whose own lock file covers all inputs.
    #[must_use]
    pub fn may_hold(locked: &Locked, options: &FlakeOptions) -> bool {
        !options.impure
            && options.overrides.is_empty()
            && options.reference_lock_file.is_none()
            && locked.in_step
            && locked.dirty == Some(0)
            && locked.rev.is_some()
            && locked.warnings.iter().all(|warning| !warning.contains("unlocked"))
    }

    /// The attrs of this selection and what it left out, if it has been listed before.
    #[must_use]
    pub fn list(&self, selection: &Selection) -> Option<(Vec<Entry>, Vec<LeftOut>)> {
        let list = self.lists.get(&selection_key(selection))?;
        Some((list.entries.clone(), list.left_out.clone()))
    }

    /// Remembers the attrs of a selection, unless a part of the flake did not evaluate.
    pub fn remember_list(&mut self, selection: &Selection, entries: &[Entry], left_out: &[LeftOut]) {
        if entries.iter().all(|entry| entry.failure.is_none()) {
            let list = RecordedList { entries: entries.to_vec(), left_out: left_out.to_vec() };
            self.lists.insert(selection_key(selection), list);
        }
    }

    /// Whether it answers all attrs of this selection.
    #[must_use]
    pub fn covers(&self, selection: &Selection) -> bool {
        let list = self.lists.get(&selection_key(selection));
        list.is_some_and(|list| {
            list.entries.iter().all(|entry| entry.failure.is_some() || self.answer(entry).is_some())
        })
    }

    /// The answer to an attr.
    #[must_use]
    pub fn answer(&self, entry: &Entry) -> Option<&Recorded> {
        self.answers.get(&answer_key(entry))
    }

    /// Remembers an answer; a failure is asked again next time, since not every failure is the source's.
    pub fn remember(&mut self, entry: &Entry, answer: &Answer, warnings: Vec<String>) {
        let recorded = match answer {
            Answer::Drv(drv) => Recorded { drv: Some(drv.clone()), nothing: None, warnings },
            Answer::Nothing(reason) => Recorded { drv: None, nothing: Some(reason.to_string()), warnings },
            Answer::Failed(_) => return,
        };
        self.answers.insert(answer_key(entry), recorded);
    }

    /// All derivations that it names.
    pub fn drvs(&self) -> impl Iterator<Item = &StorePath> {
        self.answers.values().filter_map(|recorded| Some(&recorded.drv.as_ref()?.drv))
    }

    /// Forgets the answers whose derivation is not to be kept: those that are no longer in the store.
    pub fn keep(&mut self, keep: impl Fn(&StorePath) -> bool) {
        self.answers.retain(|_, recorded| recorded.drv.as_ref().is_none_or(|drv| keep(&drv.drv)));
    }

    /// Reads the record of a source; `Ok(None)` if there is none.
    pub fn load(state_dir: &Path, key: &str) -> Result<Option<Self>, Corrupt> {
        let path = record_path(state_dir, key);
        let record: Option<Self> = read(&path)?;
        match record {
            Some(record) if record.format != FORMAT => {
                Err(Corrupt { path, cause: format!("it has format {}", record.format) })
            }
            record => Ok(record),
        }
    }

    /// Stores it, atomically, and drops the oldest files.
    pub fn save(&mut self, state_dir: &Path, key: &str) -> std::io::Result<()> {
        self.format = FORMAT;
        write(&record_path(state_dir, key), self)?;
        prune(&state_dir.join("eval"))
    }
}

fn selection_key(selection: &Selection) -> String {
    digest(&[&format!("{selection:?}")])
}

fn answer_key(entry: &Entry) -> String {
    match &entry.outputs {
        None => entry.path.to_string(),
        Some(outputs) => format!("{}^{}", entry.path, outputs.join(",")),
    }
}

fn record_path(state_dir: &Path, key: &str) -> PathBuf {
    state_dir.join("eval").join(format!("{key}.json"))
}

fn quick_path(state_dir: &Path, key: &str) -> PathBuf {
    state_dir.join("eval").join(format!("quick-{key}.json"))
}

/// SHA-256 of the parts, each with its length, as hex.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key of a source's record.
#[must_use]
pub fn key(locked: &Locked, context: &Context) -> String {
    let locks = locked.locks.to_string();
    digest(&[
        &FORMAT.to_string(),
        expr::EVAL,
        &context.nix,
        &context.settings,
        &locked.store_dir,
        &locked.locked_ref,
        &locked.nar_hash,
        &locked.dir,
        &locks,
    ])
}

/// A clean work tree at one commit, as one call of git sees it: all that the lock depends on besides the [`Context`].
///
/// Nix's answer follows from the commit, from where the repository and the flake in it are found (by walking up), and
/// from the reference's own parameters; untracked files matter only where a new flake.nix or .git would be found first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    head: String,
    parts: [String; 5],
}

impl Commit {
    /// The key under which an earlier run stored what Nix said: where it did, neither `nix flake metadata` nor an
    /// evaluator is needed.
    #[must_use]
    pub fn key(&self, context: &Context) -> String {
        let format = FORMAT.to_string();
        let fixed = [format.as_str(), expr::EVAL, &context.nix, &context.settings, &self.head];
        let parts: Vec<&str> = fixed.into_iter().chain(self.parts.iter().map(String::as_str)).collect();
        format!("{}-{}", self.head, digest(&parts))
    }
}

/// Looks at the work tree of a reference that is evaluated purely and without changes to its lock. `None` wherever the
/// commit would not say everything. `dir` is where relative references start.
pub async fn commit(nix: &Nix, options: &FlakeOptions, dir: &Path) -> Option<Commit> {
    let changed = options.impure || !options.overrides.is_empty() || options.reference_lock_file.is_some();
    if changed {
        return None;
    }
    let reference = if options.reference.is_empty() { "." } else { &options.reference };
    let (path, parameters) = reference.split_once('?').unwrap_or((reference, ""));
    // Another commit, another branch, or a path that is looked at without git.
    if parameters.split('&').any(|parameter| ["rev=", "ref=", "shallow="].iter().any(|p| parameter.starts_with(p))) {
        return None;
    }
    let path = match path.strip_prefix("git+file://") {
        Some(path) => PathBuf::from(super::flake::percent_decode(path)),
        None if path.contains(':') || path.contains('%') => return None,
        None if path == "." || path.contains('/') => dir.join(path),
        None => return None,
    };
    let path = std::fs::canonicalize(path).ok()?;
    let root = git::find_up(&path, ".git")?;
    let flake = git::find_up(&path, "flake.nix").filter(|flake| flake.starts_with(&root));
    if root.join(".gitmodules").exists() {
        return None;
    }
    let tree = git::status(nix, &path, Look::Tracked).await?;
    if tree.changed > 0 {
        return None;
    }
    let head = tree.head?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let flake = flake.as_deref().map(text).unwrap_or_default();
    Some(Commit { head, parts: [reference.to_owned(), text(&path), text(&root), flake, tree.branch] })
}

/// A commit of a repository of this machine that a reference names by its hash: whatever is in the work tree, Nix's
/// answer follows from the reference alone. `None` where flags change the lock.
#[must_use]
pub fn pinned(options: &FlakeOptions, rev: &str) -> Option<Commit> {
    let changed = options.impure || !options.overrides.is_empty() || options.reference_lock_file.is_some();
    let parts = [options.reference.clone(), String::new(), String::new(), String::new(), String::new()];
    (!changed).then(|| Commit { head: rev.to_owned(), parts })
}

/// What an earlier run locked under this key.
pub fn load_quick(state_dir: &Path, key: &str) -> Result<Option<Locked>, Corrupt> {
    read(&quick_path(state_dir, key))
}

/// Stores a source under its quick key, which was taken before locking; unless the tree was at another commit by then.
/// The caller has made sure that the source may be remembered ([`Record::may_hold`]).
pub fn save_quick(state_dir: &Path, key: &str, locked: &Locked) -> std::io::Result<()> {
    // The key starts with the commit that git saw.
    if locked.rev.as_deref() != key.split('-').next() {
        return Ok(());
    }
    write(&quick_path(state_dir, key), locked)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Corrupt> {
    let corrupt = |cause: String| Corrupt { path: path.to_owned(), cause };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(corrupt(error.to_string())),
    };
    let mut text = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut text).map_err(|error| corrupt(error.to_string()))?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(corrupt(format!("it is larger than {} MiB", SIZE_LIMIT >> 20)));
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| corrupt(error.to_string()))
}

fn write<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(std::io::BufWriter::new(&mut file), value)?;
    file.flush()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Keeps the newest files.
fn prune(dir: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) {
            files.push((modified, entry.path()));
        }
    }
    files.sort();
    for (_, path) in files.iter().rev().skip(KEPT) {
        // Another drover may have been quicker.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}
