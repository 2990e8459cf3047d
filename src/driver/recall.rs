//! Finding what earlier evaluations of the same source said: the source itself by what git says, its record on this
//! machine or where records are shared; and storing there what was learned.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::eval::flake::{self, FlakeOptions, Locked};
use crate::eval::record::{self, Context as RecordContext, Keyring, Record, Shelf, Source, seal};
use crate::eval::{EvalOptions, Selection};
use crate::id::StorePath;
use crate::nix_compat::narinfo::TrustedPublicKey;
use crate::store::cache::SecretKey;
use crate::store::cache::share::Share;
use crate::store::local::LocalStore;

use super::caches::CacheList;
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
        arguments: format!("accept-flake-config {}, no-ifd {}", eval.accept_flake_config, eval.no_ifd),
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

/// Where earlier runs, here and elsewhere, have stored what Nix said.
pub(super) struct Recall {
    shelf: Shelf,
    context: RecordContext,
    /// Where records are shared, if anywhere.
    share: Option<Share>,
    /// It has not answered, which was said, and is left alone from now on.
    down: AtomicBool,
    /// Warnings, and whether they were said.
    notes: Mutex<Vec<(String, bool)>>,
    /// What is learned here is not for others.
    read_only: bool,
    /// Nothing is taken from it (`--refresh`).
    closed: bool,
    /// Only answers are wanted; whether their derivations still exist does not matter.
    answers_only: bool,
}

/// What is known of an evaluation.
#[derive(Default)]
pub(super) struct Known {
    pub(super) record: Option<Record>,
    /// It is worth storing again, and sharing.
    incomplete: bool,
}

impl Recall {
    /// Gathers the keys: what signs the paths of a cache that is pushed to signs records.
    ///
    /// # Errors
    /// If a key or a file that `[share]` names is of no use.
    pub(super) fn new(store: &LocalStore, settings: &Settings, caches: &CacheList) -> Result<Self> {
        let config = &settings.share;
        let url = config.url.as_deref().filter(|_| !settings.offline);
        let share = url.map(|url| Share::open(url, config.token_file.as_deref(), caches.context())).transpose()?;
        let shelf = Shelf::new(&settings.output.state_dir, keyring(store, settings, caches)?);
        Ok(Self {
            shelf,
            context: record_context(store, settings),
            share,
            down: AtomicBool::new(false),
            notes: Mutex::default(),
            read_only: config.read_only,
            closed: settings.refresh,
            answers_only: false,
        })
    }

    /// For comparisons: a record that answers all is taken without asking the store.
    pub(super) fn for_answers(self, answers_only: bool) -> Self {
        Self { answers_only, ..self }
    }

    /// What an evaluation depends on besides its source.
    pub(super) fn context(&self) -> &RecordContext {
        &self.context
    }

    /// The fingerprint of an evaluation that may be remembered.
    pub(super) fn fingerprint(&self, locked: &Locked, options: &FlakeOptions) -> Option<String> {
        let source = Source::of(locked).filter(|_| Record::may_hold(locked, options))?;
        Some(record::fingerprint(&source, &self.context))
    }

    /// What is remembered under a fingerprint, whether the derivations still exist or not: here, and where records are
    /// shared if what is here does not answer the selection.
    pub(super) async fn find(&self, fingerprint: &str, selection: &Selection, warnings: &mut Vec<String>) -> Known {
        if self.closed {
            return Known { record: None, incomplete: true };
        }
        let (record, corrupt) = self.shelf.load(fingerprint);
        warnings.extend(corrupt.iter().map(ToString::to_string));
        if record.as_ref().is_some_and(|record| record.is_complete(selection)) {
            let incomplete = !self.read_only && self.shelf.lacks_signature(fingerprint);
            return Known { record, incomplete };
        }
        let Some((sealed, theirs)) = self.fetch(fingerprint, warnings).await else {
            return Known { record, incomplete: true };
        };
        let record = match record {
            None => {
                if let Err(error) = self.shelf.keep(fingerprint, &sealed) {
                    tracing::warn!(%error, "cannot keep a shared evaluation");
                }
                theirs
            }
            Some(mut record) => {
                record.add(theirs);
                record
            }
        };
        let incomplete = !record.is_complete(selection);
        Known { record: Some(record), incomplete }
    }

    /// The shared record of an evaluation. That there is none, or none that can be believed, costs time and no more.
    async fn fetch(&self, fingerprint: &str, warnings: &mut Vec<String>) -> Option<(Vec<u8>, Record)> {
        let share = self.share.as_ref().filter(|_| !self.down.load(Ordering::Relaxed))?;
        let name = Shelf::name(fingerprint);
        match share.get(&name, seal::MAX_SEALED).await {
            Ok(sealed) => {
                let sealed = sealed?;
                match self.shelf.open(&sealed, fingerprint, &share.url_of(&name)) {
                    Ok(record) => Some((sealed, record)),
                    Err(corrupt) => {
                        warnings.push(corrupt.to_string());
                        None
                    }
                }
            }
            Err(failure) => {
                self.down.store(true, Ordering::Relaxed);
                warnings.push(format!("no evaluation is taken from {}: {}", share.url(), failure.message));
                None
            }
        }
    }

    /// The key of what a reference that names a commit is locked to, on this machine.
    pub(super) fn pinned(&self, options: &FlakeOptions, rev: &str) -> Option<String> {
        record::pinned(options, rev).map(|commit| commit.key(&self.context))
    }

    /// What was locked under such a key before.
    pub(super) fn locked(&self, key: &str) -> Option<Locked> {
        // One that cannot be read is locked again.
        record::load_quick(self.shelf.state_dir(), key).ok().flatten()
    }

    /// Stores what was locked under such a key.
    pub(super) fn keep_locked(&self, key: &str, locked: &Locked) {
        if let Err(error) = record::save_quick(self.shelf.state_dir(), key, locked) {
            tracing::warn!(%error, "cannot remember the source");
        }
    }

    /// Finds the source and what is remembered of it. To lock it may have begun.
    pub(super) async fn locate(
        &self,
        asked: &EvalOptions,
        quick: Option<String>,
        begun: Option<flake::Begun>,
        roots: &SharedRoots,
    ) -> Result<Located> {
        let (options, selection) = (&asked.flake, &asked.selection);
        let mut warnings = self.share.as_ref().map_or_else(Vec::new, |share| share.warnings().to_vec());
        let known = match quick.as_deref().filter(|_| !self.closed) {
            Some(key) => record::load_quick(self.shelf.state_dir(), key).unwrap_or_else(|corrupt| {
                warnings.push(corrupt.to_string());
                None
            }),
            None => None,
        };
        let save_quick = known.is_none();
        let locked = match known {
            Some(locked) => locked,
            None => flake::lock_begun(&asked.nix, options, begun).await.map_err(flake::LockError::into_error)?,
        };
        let full = self.fingerprint(&locked, options);
        let Known { mut record, incomplete } = match &full {
            Some(fingerprint) => self.find(fingerprint, selection, &mut warnings).await,
            None => Known::default(),
        };
        if let Some(record) = &mut record
            && !(self.answers_only && record.is_complete(selection))
        {
            keep_what_exists(record, roots).await?;
        }
        let recorded = record.is_some();
        let complete = !incomplete && record.as_ref().is_some_and(|record| record.is_complete(selection));
        Ok(Located { locked, record, recorded, keys: Keys { full, quick, save_quick, complete }, warnings })
    }

    /// Keeps a warning, once, until somebody can say it.
    pub(super) fn note(&self, warning: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.iter().any(|(known, _)| *known == warning) {
            notes.push((warning, false));
        }
    }

    /// The warnings that nobody has said yet.
    pub(super) fn take_notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = notes.iter_mut().filter(|(_, said)| !*said);
        new.map(|(warning, said)| {
            *said = true;
            warning.clone()
        })
        .collect()
    }

    /// Stores what was learned. Gives what is to be shared, if that may be shared from here.
    pub(super) fn store(&self, fingerprint: &str, record: &Record) -> Option<Vec<u8>> {
        let there = self.share.is_some() && !self.down.load(Ordering::Relaxed);
        let shares = there && !self.read_only && self.shelf.keyring().can_share();
        match self.shelf.save(fingerprint, record) {
            Ok(sealed) => Some(sealed).filter(|_| shares),
            Err(error) => {
                tracing::warn!(error = %crate::error::chain(&error), "cannot remember the evaluation");
                None
            }
        }
    }

    /// Stores the source itself, so that it need not be locked again.
    pub(super) fn store_quick(&self, keys: &Keys, locked: &Locked) {
        if let Some(quick) = keys.quick.as_deref().filter(|_| keys.save_quick && keys.full.is_some())
            && let Err(error) = record::save_quick(self.shelf.state_dir(), quick, locked)
        {
            tracing::warn!(%error, "cannot remember the source");
        }
    }

    /// Writes a record to where records are shared. The error is for a warning.
    pub(super) async fn share(&self, fingerprint: &str, sealed: Vec<u8>) -> std::result::Result<(), String> {
        let Some(share) = &self.share else { return Ok(()) };
        let put = share.put(&Shelf::name(fingerprint), sealed).await;
        put.map_err(|failure| format!("this evaluation is not shared at {}: {}", share.url(), failure.message))
    }
}

/// The keys that sign and that are believed: those of the caches that are pushed to, of `[share]`, and of the store.
fn keyring(store: &LocalStore, settings: &Settings, caches: &CacheList) -> Result<Keyring> {
    let config = &settings.share;
    let mut secret: Vec<SecretKey> = Vec::new();
    if let Some(file) = &config.secret_key {
        let key = SecretKey::read(file).map_err(|error| {
            Error::usage(format!("cannot use the secret key of [share]: {}", crate::error::chain(&error)))
                .hint("nix key generate-secret --key-name NAME-1 > FILE    makes one")
        })?;
        secret.push(key);
    }
    secret.extend(caches.secret_keys());
    let mut trusted: Vec<TrustedPublicKey> = secret.iter().map(SecretKey::public_key).collect();
    for text in &config.public_keys {
        let key = TrustedPublicKey::parse(text).map_err(|error| {
            Error::usage(format!("cannot use the public key '{text}' of [share]: {error}"))
                .hint("public-keys = [\"NAME:BASE64\"]")
        })?;
        trusted.push(key);
    }
    let of_caches = settings.caches.iter().flat_map(|cache| &cache.public_keys);
    let of_store = &store.receiver().trusted_public_keys;
    // One that cannot be read is told by whoever uses it for paths.
    trusted.extend(of_caches.chain(of_store).filter_map(|text| TrustedPublicKey::parse(text).ok()));
    // What strangers have written is not signed with our name.
    if config.read_only {
        secret.clear();
    }
    Ok(Keyring::new(secret, trusted))
}

/// Forgets answers whose derivations were collected, or never were in this store. Those that exist are held from now on.
async fn keep_what_exists(record: &mut Record, roots: &SharedRoots) -> Result<()> {
    let drvs: Vec<StorePath> = record.drvs().cloned().collect();
    let valid = roots.lock().await.valid(&drvs).await.map_err(Error::from)?;
    let exists: HashSet<&StorePath> = drvs.iter().zip(valid).filter(|(_, valid)| *valid).map(|(drv, _)| drv).collect();
    record.keep(|drv| exists.contains(drv));
    Ok(())
}
