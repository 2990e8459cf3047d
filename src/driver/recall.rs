//! Finding what earlier evaluations of the same source said: the source itself by what git says, the record on this
//! machine.

use std::collections::HashSet;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::eval::flake::{self, FlakeOptions, Locked};
use crate::eval::record::{self, Context as RecordContext, Corrupt, Record, Shelf, Source};
use crate::eval::{Nix, Selection};
use crate::id::StorePath;
use crate::store::local::LocalStore;

use super::context::SharedRoots;

/// A source that is ready to be evaluated.
pub(super) struct Located {
    pub(super) locked: Locked,
    pub(super) record: Option<Record>,
    /// The record answers what was asked before.
    pub(super) recorded: bool,
    pub(super) keys: Keys,
    pub(super) warnings: Vec<String>,
}

impl Located {
    /// What this commit evaluates to is known from an earlier run.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded
    }
}

/// Where the evaluation may be remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    /// The fingerprint of the evaluation.
    pub(super) full: Option<String>,
    /// Of the work tree, found before locking.
    pub(super) quick: Option<String>,
    /// The source is not stored under its quick key yet.
    pub(super) save_quick: bool,
    /// The record answers all that is asked now.
    pub(super) complete: bool,
}

/// All that an evaluation depends on besides its source.
pub(super) fn record_context(store: &LocalStore, settings: &Settings) -> RecordContext {
    let all = &store.settings().all;
    let eval = &settings.eval;
    RecordContext {
        nix: store.version().text.clone(),
        settings: RecordContext::settings(all),
        arguments: format!("accept-flake-config {}", eval.accept_flake_config),
        store_dir: store.store_dir().as_str().to_owned(),
        local: format!(
            "{all:?}\n{}\n{:?}\n{:?}\n{}",
            store.uri(),
            settings.eval_store,
            eval.options,
            eval.no_update_lock_file
        ),
    }
}

/// Where earlier runs have stored what Nix said.
pub(super) struct Memory {
    pub(super) shelf: Shelf,
    pub(super) context: RecordContext,
    /// Nothing is taken from it (`--refresh`).
    pub(super) closed: bool,
}

/// What is there, or nothing and a warning.
fn or_warn<T>(read: std::result::Result<Option<T>, Corrupt>, warnings: &mut Vec<String>) -> Option<T> {
    read.unwrap_or_else(|corrupt| {
        warnings.push(corrupt.to_string());
        None
    })
}

impl Memory {
    /// The fingerprint of an evaluation that may be remembered.
    pub(super) fn fingerprint(&self, locked: &Locked, options: &FlakeOptions) -> Option<String> {
        let source = Source::of(locked).filter(|_| Record::may_hold(locked, options))?;
        Some(record::fingerprint(&source, &self.context))
    }

    /// What is remembered under a fingerprint, whether the derivations still exist or not.
    pub(super) fn record(&self, fingerprint: &str, warnings: &mut Vec<String>) -> Option<Record> {
        if self.closed {
            return None;
        }
        or_warn(self.shelf.load(fingerprint), warnings)
    }

    /// Finds the source and what is remembered of it.
    pub(super) async fn locate(
        &self,
        nix: &Nix,
        options: &FlakeOptions,
        selection: &Selection,
        quick: Option<String>,
        roots: &SharedRoots,
    ) -> Result<Located> {
        let mut warnings = Vec::new();
        let key = quick.as_deref().filter(|_| !self.closed);
        let known = key.and_then(|key| or_warn(record::load_quick(self.shelf.state_dir(), key), &mut warnings));
        let save_quick = known.is_none();
        let locked = match known {
            Some(locked) => locked,
            None => flake::lock(nix, options).await.map_err(flake::LockError::into_error)?,
        };
        let full = self.fingerprint(&locked, options);
        let mut record = full.as_deref().and_then(|full| self.record(full, &mut warnings));
        if let Some(record) = &mut record {
            keep_what_exists(record, roots).await?;
        }
        let recorded = record.is_some();
        let complete = record.as_ref().is_some_and(|record| record.is_complete(selection));
        Ok(Located { locked, record, recorded, keys: Keys { full, quick, save_quick, complete }, warnings })
    }
}

/// Forgets answers whose derivations were collected, or never were in this store. Those that exist are held from now on.
async fn keep_what_exists(record: &mut Record, roots: &SharedRoots) -> Result<()> {
    let drvs: Vec<StorePath> = record.drvs().cloned().collect();
    let valid = roots.lock().await.valid(&drvs).await.map_err(Error::from)?;
    let exists: HashSet<&StorePath> = drvs.iter().zip(valid).filter(|(_, valid)| *valid).map(|(drv, _)| drv).collect();
    record.keep(|drv| exists.contains(drv));
    Ok(())
}
