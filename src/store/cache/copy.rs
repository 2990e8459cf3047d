//! A store that Nix itself copies to (`nix:STORE-URL`): handed to `nix copy`. It is pushed to and never read from.
//!
//! Nix copies a path with all that it refers to, in the right order, from the local store. Paths that become ready
//! while it runs wait for the next start of it and go together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tokio::sync::{Mutex as Turn, oneshot};

use super::Held;
use super::backend::Opening;
use super::error::CacheError;
use super::info::CacheInfo;
use super::location;
use super::sink::PutError;
use crate::event::{Class, Failure};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::ansi;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{NarInfo, NixHash};
use crate::process::{Cmd, ProcessError};

/// Paths that one command names: the system takes 128 KiB for them at least.
const PATHS: usize = 500;

/// Paths that fail one by one before the rest of those that failed together is given up.
const FAILURES: usize = 3;

/// A URL that holds this before its host is for the eyes of one person, and arguments of commands are not.
const PASSWORD: &str = "a password in its URL would be seen by everybody on this machine, as an argument of nix copy";

/// See the module's page.
pub(super) struct CopyStore {
    /// `nix` for the local store.
    nix: Cmd,
    url: String,
    store_dir: StoreDir,
    waiting: Mutex<Vec<Waiting>>,
    /// One command at a time.
    turn: Turn<()>,
}

impl fmt::Debug for CopyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyStore").field("url", &location::shown(&self.url)).finish_non_exhaustive()
    }
}

/// A path that is to be copied, and who wants to know.
struct Waiting {
    path: StorePath,
    copied: oneshot::Sender<Result<(), Failure>>,
}

/// What Nix knows of a path in the other store.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    nar_hash: String,
    nar_size: u64,
    #[serde(default)]
    references: Vec<String>,
}

impl CopyStore {
    /// Looks whether it can be reached.
    pub(super) async fn open(store: &str, opening: &Opening<'_>) -> Result<(Self, CacheInfo), CacheError> {
        let url = opening.shown.to_owned();
        if has_password(store) {
            let why = format!("{PASSWORD}; netrc has logins, ssh has keys");
            return Err(CacheError::Url { url, why });
        }
        let Some(nix) = &opening.context.nix else {
            return Err(CacheError::Url { url, why: "there is no Nix to copy with".to_owned() });
        };
        let copy = Self {
            nix: nix.clone().args(["--extra-experimental-features", "nix-command"]),
            url: store.to_owned(),
            store_dir: opening.context.store_dir.clone(),
            waiting: Mutex::default(),
            turn: Turn::new(()),
        };
        match copy.nix.clone().args(["store", "info", "--store", store]).output().await {
            Ok(_) => Ok((copy, CacheInfo::default())),
            Err(error) => {
                let why = reason(&error);
                let unknown = why.contains("don't know how to open") || why.contains("is not a valid");
                Err(if unknown { CacheError::Url { url, why } } else { CacheError::Unreachable { url, why } })
            }
        }
    }

    /// What it holds of these paths; see [`Cache::inspect`](super::Cache::inspect). Its NARs are Nix's concern.
    pub(super) async fn inspect(&self, paths: &[StorePath]) -> Vec<Result<Option<Held>, Failure>> {
        let infos = match self.infos(paths).await {
            Ok(infos) => infos,
            Err(failure) => return vec![Err(failure); paths.len()],
        };
        let held = |path: &StorePath| match infos.get(path) {
            Some(info) => self.record(path, info).map(|info| Some(Held { info: Box::new(info), nar: true })),
            None => Ok(None),
        };
        paths.iter().map(held).collect()
    }

    /// Whether one question tells of all paths what it lacks.
    pub(super) fn is_bulk(&self) -> bool {
        true
    }

    /// Which of these paths it lacks.
    pub(super) async fn missing(&self, paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        let infos = self.infos(paths).await?;
        Ok(paths.iter().map(|path| !infos.contains_key(path)).collect())
    }

    /// Paths that are best registered at once.
    pub(super) fn parallel(&self) -> usize {
        PATHS
    }

    /// Has a path copied, whose references are all there. Whoever has the turn copies for all that wait.
    pub(super) async fn register(&self, info: &PathInfo) -> Result<(), PutError> {
        let (copied, mut outcome) = oneshot::channel();
        self.waiting().push(Waiting { path: info.path.clone(), copied });
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut outcome => break ended,
                _turn = self.turn.lock() => {
                    let batch = self.batch();
                    self.copy_all(batch).await;
                }
            }
        };
        // Somebody else had the turn and was stopped.
        let ended = ended.unwrap_or_else(|_| Err(Failure::new(Class::Cancelled, "nix copy was stopped")));
        ended.map_err(PutError::Server)
    }

    /// Those that go next.
    fn batch(&self) -> Vec<Waiting> {
        let mut waiting = self.waiting();
        let count = waiting.len().min(PATHS);
        waiting.drain(..count).collect()
    }

    /// Nothing more is copied.
    pub(super) async fn close(&self) {
        self.waiting().clear();
    }

    /// Copies these at once; where that fails, one by one, to see on which it fails.
    async fn copy_all(&self, batch: Vec<Waiting>) {
        let all: Vec<&StorePath> = batch.iter().map(|waiting| &waiting.path).collect();
        let together = self.copy(&all).await;
        let (alone, mut failures) = (batch.len() == 1, 0);
        for waiting in batch {
            let copied = match &together {
                Err(_) if !alone && failures < FAILURES => self.copy(&[&waiting.path]).await,
                same => same.clone(),
            };
            failures += usize::from(copied.is_err());
            // Whoever asked may be gone.
            let _ = waiting.copied.send(copied);
        }
    }

    async fn copy(&self, paths: &[&StorePath]) -> Result<(), Failure> {
        if paths.is_empty() {
            return Ok(());
        }
        let command = self.nix.clone().args(["copy", "--refresh", "--to", &self.url]);
        let copied = command.args(self.absolute(paths.iter().copied())).output().await;
        copied.map(drop).map_err(|error| Failure::new(Class::Cache, format!("nix copy: {}", reason(&error))))
    }

    /// What the other store has of these paths. Nix asks it anew, and fetches and builds nothing for that.
    async fn infos(&self, paths: &[StorePath]) -> Result<BTreeMap<StorePath, Info>, Failure> {
        let mut infos = BTreeMap::new();
        for paths in paths.chunks(PATHS) {
            let command =
                self.nix.clone().args(["path-info", "--json", "--refresh", "--option", "substitute", "false"]);
            let command = command.args(["--store", &self.url]).args(self.absolute(paths));
            let failed = |why: String| Failure::new(Class::Cache, format!("nix path-info: {why}"));
            let output = command.output().await.map_err(|error| failed(reason(&error)))?;
            let found: BTreeMap<String, Option<Info>> =
                serde_json::from_slice(&output).map_err(|error| failed(format!("its answer is not JSON: {error}")))?;
            let found = found.into_iter().filter_map(|(path, info)| Some((self.parsed(&path)?, info?)));
            infos.extend(found);
        }
        Ok(infos)
    }

    /// The record that a cache would have of it.
    fn record(&self, path: &StorePath, info: &Info) -> Result<NarInfo, Failure> {
        let failed = |why: String| Failure::new(Class::Cache, format!("nix path-info: {}: {why}", path.to_basename()));
        let hash = NixHash::parse(&info.nar_hash).map_err(|error| failed(error.to_string()))?;
        NarInfo::builder_in(self.store_dir.clone(), path.clone(), "nar".to_owned(), hash, info.nar_size)
            .references(info.references.iter().filter_map(|path| self.parsed(path)))
            .build()
            .map_err(|error| failed(error.to_string()))
    }

    fn parsed(&self, path: &str) -> Option<StorePath> {
        self.store_dir.parse_path(path.as_bytes()).ok()
    }

    fn absolute<'a>(&'a self, paths: impl IntoIterator<Item = &'a StorePath>) -> impl Iterator<Item = String> {
        paths.into_iter().map(|path| path.to_absolute_path_in(&self.store_dir))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a URL has a password, or a parameter that holds a token.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let login = place.split('/').next().unwrap_or_default().rsplit_once('@').map_or("", |(login, _)| login);
    let is_secret = |name: &str| ["token", "password", "secret-access-key"].iter().any(|word| name.contains(word));
    login.contains(':') || query.split('&').filter_map(|pair| pair.split('=').next()).any(is_secret)
}

/// What Nix says went wrong, on one line.
fn reason(error: &ProcessError) -> String {
    let text = match error {
        ProcessError::Status { stderr, .. } => ansi::text(stderr.as_bytes()),
        other => crate::error::chain(other),
    };
    let said = text.rfind("error: ").and_then(|at| text.get(at + "error: ".len()..)).unwrap_or(&text);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_no_arguments() {
        for url in ["https://me:hunter2@h/c", "s3://b?secret-access-key=x", "http://h?token=x"] {
            assert!(has_password(url), "{url}");
        }
        for url in
            ["ssh-ng://me@h", "ssh-ng://h:22/x", "file:///a@b:c/d", "s3://b?secret-key=/k&region=x", "/tmp/store"]
        {
            assert!(!has_password(url), "{url}");
        }
    }
}
