//! Locking: `nix flake metadata`, without ever writing the repository's flake.lock.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::refusal::refused;
use super::{FlakeOptions, LockError, Locked, local_path, overrides};
use crate::eval::git::{self, Look};
use crate::eval::nix::{self, Nix, Ran};
use crate::id::StorePath;
use crate::process::{Cmd, ProcessError};

/// The fields of `nix flake metadata --json` that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    description: Option<String>,
    last_modified: Option<u64>,
    locked: Attrs,
    locks: Value,
    resolved: Attrs,
    resolved_url: String,
    path: String,
    url: String,
}

impl Metadata {
    /// Reads what Nix prints.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    fn is_clean(&self) -> bool {
        self.locked.dirty_rev.is_none()
    }

    fn rev(&self) -> Option<&String> {
        self.locked.rev.as_ref().filter(|_| self.is_clean())
    }

    /// What it says of the source; `dirty` is how many files differ from the commit, as in [`Locked::dirty`]. The error
    /// is what it lacks.
    pub fn locked(self, dirty: Option<u32>) -> Result<Locked, String> {
        let (store_dir, base) = self.path.rsplit_once('/').ok_or("'path' is no path")?;
        let store_path = StorePath::from_basename(base.as_bytes()).map_err(|error| error.to_string())?;
        let store_dir = store_dir.to_owned();
        let (clean, rev) = (self.is_clean(), self.rev().cloned());
        // Without a commit or a NAR hash, the "locked" reference fixes nothing.
        let fixed = clean && (rev.is_some() || self.resolved.kind != "git");
        Ok(Locked {
            locked_ref: if fixed { self.url } else { self.resolved_url.clone() },
            original: self.resolved_url,
            rev,
            dirty,
            parameters: self.locked.parameters(),
            nar_hash: self.locked.nar_hash.ok_or("it has no narHash")?,
            store_path,
            store_dir,
            dir: self.resolved.dir.unwrap_or_default(),
            kind: self.locked.kind,
            rev_count: self.locked.rev_count,
            description: self.description,
            last_modified: self.last_modified,
            in_step: true,
            locks: self.locks,
            warnings: Vec::new(),
            args: Vec::new(),
            lock_file: None,
        })
    }
}

/// A flake reference taken apart.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attrs {
    #[serde(rename = "type")]
    kind: String,
    nar_hash: Option<String>,
    rev: Option<String>,
    dirty_rev: Option<String>,
    dir: Option<String>,
    rev_count: Option<u64>,
    #[serde(default)]
    submodules: bool,
    #[serde(default)]
    lfs: bool,
    #[serde(default)]
    export_ignore: bool,
}

impl Attrs {
    /// The parameters that change the tree.
    fn parameters(&self) -> Vec<String> {
        let all = [("submodules", self.submodules), ("lfs", self.lfs), ("exportIgnore", self.export_ignore)];
        all.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()).collect()
    }
}

/// The first question of [`lock`], which is being asked. Dropping it ends that.
#[derive(Debug)]
pub struct Begun(JoinSet<Result<Ran, ProcessError>>);

/// Asks the first question of [`lock`], which needs nothing but the reference. `None` where flags change the lock.
#[must_use]
pub fn begin(nix: &Nix, options: &FlakeOptions) -> Option<Begun> {
    if options.changes_lock() {
        return None;
    }
    let cmd = metadata_cmd(nix, options, &[], KEEP);
    // At once, not when the task has its first turn.
    let child = nix::start(&cmd);
    let mut task = JoinSet::new();
    task.spawn(async move { nix::end(child?, &cmd).await });
    Some(Begun(task))
}

/// Locks a flake.
pub async fn lock(nix: &Nix, options: &FlakeOptions) -> Result<Locked, LockError> {
    lock_begun(nix, options, None).await
}

/// Locks a flake, whose first question may have been asked of the same Nix with the same options.
pub async fn lock_begun(nix: &Nix, options: &FlakeOptions, begun: Option<Begun>) -> Result<Locked, LockError> {
    let mut args = reference_lock(options)?;
    let mut in_step = true;
    let mut temporary = None;

    // Without updates first: success means that the lock is in step. It fails before anything is written.
    let begun = match begun {
        Some(Begun(mut task)) => task.join_next().await.and_then(Result::ok),
        None => None,
    };
    // One that was begun early and failed says nothing yet: processes that open a store for the first time, at once, get
    // in each other's way ("creating symlink: File exists"). By now the store is open.
    let ran = match begun {
        Some(Ok(ran)) if ran.ok => ran,
        _ => metadata(nix, options, &args.flags(), KEEP).await?,
    };
    let base = if ran.ok {
        Some((parse(options, &ran)?, ran))
    } else if options.no_update_lock_file {
        return Err(refused(nix, options, &ran).await);
    } else {
        let ran = metadata(nix, options, &args.flags(), NO_WRITE).await?;
        match ran.ok {
            true => {
                let metadata = parse(options, &ran)?;
                let file = write_lock(&metadata.locks)?;
                args = ReferenceLock { path: Some(file.to_string_lossy().into_owned()) };
                temporary = Some(Arc::new(file));
                in_step = false;
                Some((metadata, ran))
            }
            // An override may be there just because the input itself cannot be had.
            false if !options.overrides.is_empty() => None,
            false => return Err(refused(nix, options, &ran).await),
        }
    };
    let mut args = args.flags();
    let (metadata, ran) = if options.overrides.is_empty() {
        match base {
            Some(base) => base,
            None => {
                return Err(LockError::Answer { reference: reference(options).to_owned(), cause: "no answer".into() });
            }
        }
    } else {
        in_step = false;
        let flags: Vec<String> = args.iter().cloned().chain(overrides::flags(&options.overrides)).collect();
        let ran = self::metadata(nix, options, &flags, NO_WRITE).await?;
        if !ran.ok {
            return Err(refused(nix, options, &ran).await);
        }
        let metadata = parse(options, &ran)?;
        args.extend(overrides::flags(&overrides::lock(nix, &options.overrides, &metadata.locks).await?));
        (metadata, ran)
    };
    let mut locked = finish(nix, options, metadata).await?;
    locked.in_step = in_step;
    locked.args = args;
    locked.lock_file = temporary;
    locked.warnings = ran.warnings().filter(|text| !is_said_otherwise(text)).map(str::to_owned).collect();
    Ok(locked)
}

/// Warnings whose content is in [`Locked`] anyway.
fn is_said_otherwise(warning: &str) -> bool {
    (warning.starts_with("Git tree '") && warning.ends_with("is dirty"))
        || warning.starts_with("not writing modified lock file")
}

/// The reference as typed.
pub(super) fn reference(options: &FlakeOptions) -> &str {
    if options.reference.is_empty() { "." } else { &options.reference }
}

/// The lock file that is read instead of the flake's own.
struct ReferenceLock {
    path: Option<String>,
}

impl ReferenceLock {
    fn flags(&self) -> Vec<String> {
        self.path.iter().flat_map(|path| ["--reference-lock-file".to_owned(), path.clone()]).collect()
    }
}

/// What the user gave, made absolute by Nix's own directory.
fn reference_lock(options: &FlakeOptions) -> Result<ReferenceLock, LockError> {
    let path =
        options.reference_lock_file.as_ref().map(std::path::absolute).transpose().map_err(LockError::LockFile)?;
    Ok(ReferenceLock { path: path.map(|path| path.to_string_lossy().into_owned()) })
}

/// A lock that would change is an error.
const KEEP: &str = "--no-update-lock-file";
/// A lock that changes is told and not written.
const NO_WRITE: &str = "--no-write-lock-file";

/// `nix flake metadata --json`; `keep` is the flag that keeps flake.lock from being written. (With both of them, a lock
/// that is not in step is no error.)
async fn metadata(nix: &Nix, options: &FlakeOptions, flags: &[String], keep: &str) -> Result<Ran, ProcessError> {
    nix::run(&metadata_cmd(nix, options, flags, keep)).await
}

fn metadata_cmd(nix: &Nix, options: &FlakeOptions, flags: &[String], keep: &str) -> Cmd {
    let cmd = nix.small_cmd(&["flake", "metadata", "--json", keep]).args(flags);
    let cmd = if options.impure { cmd.arg("--impure") } else { cmd };
    cmd.arg("--").arg(reference(options))
}

fn parse(options: &FlakeOptions, ran: &Ran) -> Result<Metadata, LockError> {
    Metadata::parse(&ran.stdout)
        .map_err(|error| LockError::Answer { reference: reference(options).to_owned(), cause: error.to_string() })
}

fn write_lock(locks: &Value) -> Result<tempfile::TempPath, LockError> {
    use std::io::Write as _;
    let mut file =
        tempfile::Builder::new().prefix("drover-").suffix(".lock").tempfile().map_err(LockError::LockFile)?;
    let text = serde_json::to_string_pretty(locks).map_err(|error| LockError::LockFile(error.into()))?;
    file.write_all(text.as_bytes()).map_err(LockError::LockFile)?;
    Ok(file.into_temp_path())
}

async fn finish(nix: &Nix, options: &FlakeOptions, metadata: Metadata) -> Result<Locked, LockError> {
    let dirty = match (metadata.is_clean(), metadata.rev()) {
        (true, Some(_)) => Some(0),
        (true, None) if metadata.resolved.kind != "git" => None,
        // A git tree without a commit, or with changes.
        _ => Some(match local_path(&metadata.resolved_url) {
            Some(dir) => git::status(nix, &dir, Look::Tracked).await.map_or(1, |tree| tree.changed.max(1)),
            None => 1,
        }),
    };
    metadata.locked(dirty).map_err(|cause| LockError::Answer { reference: reference(options).to_owned(), cause })
}

/// Whether the source is still what was locked. A commit always is; anything else is looked at again.
pub async fn unchanged(nix: &Nix, options: &FlakeOptions, locked: &Locked) -> Result<(), LockError> {
    if locked.is_fixed() {
        return Ok(());
    }
    let now = FlakeOptions { reference: locked.original.clone(), ..options.clone() };
    let ran = metadata(nix, &now, locked.args(), NO_WRITE).await?;
    let same = ran.ok && parse(options, &ran)?.locked.nar_hash.as_deref() == Some(&locked.nar_hash);
    if same { Ok(()) } else { Err(LockError::Changed { reference: reference(options).to_owned() }) }
}
