//! Events → disk, and back: where a run is kept, how it is written while it happens, and how it is read later.
//!
//! Owns the state directory's `runs/`: one folder a run, named by its ULID, holding `events.jsonl` (one event a
//! line, the first is `run_started`), `logs/` (one log a drv) and small JSON documents that the caller derives from
//! the events. Does not own what the events mean: that is `report`. The state directory itself is given.
//!
//! ```text
//! STATE_DIR/runs/01KAJX3M…/events.jsonl
//!                          logs/7d4k…-nginx-1.29.4.log
//!                          digest.json
//! ```

mod clean;
mod find;
pub mod history;
mod list;
mod logs;
mod reader;
mod retention;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{self, Fault};
use crate::id::RunId;

pub use clean::clean;
pub use find::{Found, find_log};
pub use list::{Run, list, lookup, named, short_id, short_ids};
pub use logs::{Kept, LogWriter, TAIL_LINES, last_lines};
pub use reader::{Reader, Record, read};
pub use retention::{KEEP, prune};
pub use writer::Writer;

/// The largest JSON document of a run that is read back.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Why a record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// What was tried, `create`.
        act: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was written by a drover with another line format.
    #[error("{} is written in format {found}, this drover reads up to {known}", path.display())]
    Newer {
        /// Which record.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// [`crate::event::FORMAT`].
        known: u32,
    },
    /// It does not begin with `run_started`.
    #[error("{} is no record: its first line is no run_started event", path.display())]
    NoRecord {
        /// Which file.
        path: PathBuf,
    },
    /// A line in the middle is broken.
    #[error("{} is damaged at line {line}: {why}", path.display())]
    Damaged {
        /// Which record.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such run.
    #[error("{}", no_run(asked))]
    NoRun {
        /// What was asked for.
        asked: String,
    },
    /// Several runs begin like this.
    #[error("{asked} may be one of {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Their short ids, newest first.
        candidates: Vec<String>,
    },
    /// No run has such a log.
    #[error("no run has a log of {asked}: none has built it")]
    NoLog {
        /// What was asked for.
        asked: String,
        /// The nearest names that have one.
        near: Vec<String>,
    },
}

fn no_run(asked: &str) -> String {
    if asked == "last" { "no run is recorded yet".to_owned() } else { format!("no recorded run is called {asked}") }
}

impl RecordError {
    fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { act, path, source }
    }
}

impl From<RecordError> for error::Error {
    fn from(error: RecordError) -> Self {
        let (fault, hint) = match &error {
            RecordError::Io { .. } => {
                (Fault::Unreachable, "drover --state-dir DIR    with a directory that can be used".to_owned())
            }
            RecordError::Newer { .. } => {
                (Fault::Usage, "read it with the drover that wrote it, or a newer one".to_owned())
            }
            RecordError::NoRecord { .. } => (Fault::Usage, "drover report list".to_owned()),
            RecordError::Damaged { path, .. } => (Fault::Usage, format!("less {}", path.display())),
            RecordError::NoRun { asked } if asked == "last" => (Fault::Usage, "drover run".to_owned()),
            RecordError::NoRun { .. } => (Fault::Usage, "drover report list".to_owned()),
            RecordError::Ambiguous { candidates, .. } => {
                (Fault::Usage, format!("drover report {}", candidates.first().map_or("last", String::as_str)))
            }
            RecordError::NoLog { near, .. } => match near.as_slice() {
                [] => (Fault::Usage, "drover report list".to_owned()),
                near => (Fault::Usage, format!("there are logs of {}", near.join(", "))),
            },
        };
        Self::from_chain(fault, &error).hint(hint)
    }
}

/// The folder of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    run: RunId,
    path: PathBuf,
}

impl RunDir {
    /// Where this run is kept, or will be.
    #[must_use]
    pub fn new(state_dir: &Path, run: RunId) -> Self {
        Self { run, path: runs_dir(state_dir).join(run.to_string()) }
    }

    /// Which run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The events, one a line.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// The folder of the logs; it exists once the first line of a log has been written.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// All files of the run, in the order of their names: its events, its logs, its small documents.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let below = |dir: &Path| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect::<Vec<_>>()
        };
        let mut files = below(&self.path);
        files.extend(below(&self.logs()));
        files.sort();
        files
    }

    /// Keeps a small document derived from the events beside them, such as the digest that lists read. It replaces
    /// the previous one at once or not at all.
    ///
    /// # Errors
    /// If the folder is missing or cannot be written.
    pub fn save<T: Serialize>(&self, name: &str, document: &T) -> Result<(), RecordError> {
        write_json(&self.path.join(name), document)
    }

    /// Reads such a document; `None` if it is not there or is not what was expected (then the events say).
    #[must_use]
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.path.join(name);
        if std::fs::metadata(&path).ok()?.len() > MAX_DOCUMENT {
            return None;
        }
        serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
    }

    /// Whether a drover is writing this run right now.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let Ok(file) = std::fs::File::open(self.events()) else { return false };
        matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
    }
}

/// Where all runs are.
fn runs_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

/// Writes a JSON document so that a reader sees the old or the new one, never a part.
fn write_json<T: Serialize>(path: &Path, document: &T) -> Result<(), RecordError> {
    let failed = |source: io::Error| RecordError::Io { act: "write", path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    serde_json::to_writer(&mut file, document).map_err(|e| failed(e.into()))?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
