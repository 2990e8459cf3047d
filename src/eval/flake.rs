//! From a flake reference to one locked source: which tree, which inputs, and what every evaluator is to be given.
//!
//! Locking is one step. The repository's flake.lock is never written: a lock that is not in step with flake.nix goes to
//! a temporary file, which evaluators get as `--reference-lock-file`. A source that names its content (a commit, a NAR
//! hash) is evaluated by its locked reference, so that it cannot change; a dirty tree by its original reference, and
//! each evaluator has to have loaded the same tree (see `worker`).

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::git::{self, Look};
use super::message;
use super::nix::{self, Nix, Ran};
use crate::error::{Error, Fault};
use crate::id::StorePath;
use crate::process::ProcessError;

/// What is asked for, as flags say it.
#[derive(Debug, Clone, Default)]
pub struct FlakeOptions {
    /// The flake reference without fragment, as typed; empty means `.`.
    pub reference: String,
    /// `--override-input INPUT REFERENCE`.
    pub overrides: Vec<(String, String)>,
    /// `--reference-lock-file FILE`.
    pub reference_lock_file: Option<PathBuf>,
    /// `--no-update-lock-file`: a lock that is not in step is an error.
    pub no_update_lock_file: bool,
    /// `--impure`.
    pub impure: bool,
    /// What the flake says about its commit and time is the same for all sources. Not for anybody to build, and never
    /// remembered. See [`Locked::is_maskable`].
    pub masked: bool,
}

impl FlakeOptions {
    /// Whether flags change what is evaluated, so that the commit does not say it all.
    #[must_use]
    pub fn changes_lock(&self) -> bool {
        self.impure || !self.overrides.is_empty() || self.reference_lock_file.is_some()
    }
}

/// A flake's source, fixed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Locked {
    /// The reference with its scheme, as Nix resolved it: `git+file:///home/me/infra`.
    pub original: String,
    /// The locked reference; for a dirty tree, the original.
    pub locked_ref: String,
    /// The commit; for a dirty tree `None`.
    pub rev: Option<String>,
    /// How many files differ from the commit: `Some(0)` is clean, `None` has no revision control.
    pub dirty: Option<u32>,
    /// Hash of the source tree, as SRI.
    pub nar_hash: String,
    /// Where the source tree is in the store.
    #[serde(deserialize_with = "super::base::path")]
    pub store_path: StorePath,
    /// The store directory that Nix uses.
    pub store_dir: String,
    /// Directory of flake.nix below the source tree; empty at its root.
    pub dir: String,
    /// The sort of reference: `git`, `github`, `path`, ….
    #[serde(default)]
    pub kind: String,
    /// How many ancestors the commit has; unknown in a shallow clone.
    #[serde(default)]
    pub rev_count: Option<u64>,
    /// What of the reference's parameters changes the tree: `submodules`, `lfs`, ….
    #[serde(default)]
    pub parameters: Vec<String>,
    /// The flake's description.
    pub description: Option<String>,
    /// Seconds since 1970 of the last change, as Nix says.
    pub last_modified: Option<u64>,
    /// flake.lock covers all inputs; nothing had to be locked now.
    pub in_step: bool,
    /// The lock, as JSON: all inputs with their hashes.
    pub locks: Value,
    /// Warnings of Nix while locking.
    pub warnings: Vec<String>,
    /// What evaluators get besides the reference.
    #[serde(skip)]
    args: Vec<String>,
    /// Keeps the temporary lock file.
    #[serde(skip)]
    lock_file: Option<Arc<tempfile::TempPath>>,
}

impl Locked {
    /// The temporary lock file, where the lock is not in step with flake.nix.
    #[must_use]
    pub fn lock_file(&self) -> Option<&std::path::Path> {
        self.lock_file.as_deref().map(AsRef::as_ref)
    }

    /// What evaluators get besides the reference: lock files and overrides.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// The absolute path of the source tree in the store.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}/{}", self.store_dir, self.store_path.to_basename())
    }

    /// Whether the reference alone says which content it is, wherever and whenever it is read.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.rev.is_some() || (self.dirty.is_none() && !self.original.starts_with("path:"))
    }

    /// Whether it can be evaluated with its commit and time masked: evaluators then load it by its reference alone, which
    /// has to say all.
    #[must_use]
    pub fn is_maskable(&self, options: &FlakeOptions) -> bool {
        self.is_fixed() && self.in_step && !options.changes_lock()
    }

    /// The local work tree, if the source is one.
    #[must_use]
    pub fn work_tree(&self) -> Option<PathBuf> {
        local_path(&self.original)
    }

    /// Where the flake's files may lie, in the words of error positions.
    pub(super) fn roots(&self) -> Vec<String> {
        let tree = self.work_tree().map(|path| path.to_string_lossy().into_owned());
        [Some(self.source()), tree].into_iter().flatten().collect()
    }
}

/// The directory that a reference with a scheme names on this machine.
fn local_path(reference: &str) -> Option<PathBuf> {
    let rest = ["git+file://", "path:", "file://"].into_iter().find_map(|scheme| reference.strip_prefix(scheme))?;
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    Some(PathBuf::from(percent_decode(path)))
}

/// `%20` → space. What is no escape stays.
pub(super) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Why a flake cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// `nix` could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Nix refused.
    #[error("cannot lock flake '{reference}': {message}")]
    Nix {
        /// As typed.
        reference: String,
        /// Nix's message, without its trace.
        message: String,
        /// `file:line:column`, for a flake.nix that does not parse.
        position: Option<String>,
        /// All that Nix said.
        all: String,
        /// Files that git does not track, where the message names one of them.
        untracked: Option<String>,
    },
    /// Nix's answer has not the shape that it should have.
    #[error("cannot read what 'nix flake metadata' says about '{reference}': {cause}")]
    Answer {
        /// As typed.
        reference: String,
        /// What is wrong.
        cause: String,
    },
    /// The temporary lock file could not be written.
    #[error("cannot write a temporary lock file")]
    LockFile(#[source] std::io::Error),
    /// The tree is not the one that was locked.
    #[error("the source of '{reference}' changed while it was being evaluated")]
    Changed {
        /// As typed.
        reference: String,
    },
}

impl LockError {
    /// For people, with a way out.
    #[must_use]
    pub fn into_error(self) -> Error {
        match &self {
            Self::Process(error) if error.is_not_found() => Error::new(Fault::Unreachable, crate::error::chain(&self))
                .hint("install Nix, or add its bin directory to PATH"),
            Self::Process(_) | Self::LockFile(_) => Error::from_chain(Fault::Unreachable, &self),
            Self::Answer { .. } => {
                Error::from_chain(Fault::Bug, &self).hint("nix --version    (2.26 and 2.34 are tested)")
            }
            Self::Changed { .. } => Error::from_chain(Fault::Eval, &self)
                .hint("run again when no file changes; a committed tree is evaluated by its commit and cannot change"),
            Self::Nix { reference, message, position, all, untracked } => {
                explain_lock(reference, message, position.as_deref(), all, untracked.as_deref())
            }
        }
    }
}

/// What to say, and what to type, for what Nix refused.
fn explain_lock(reference: &str, message: &str, position: Option<&str>, all: &str, untracked: Option<&str>) -> Error {
    let has = |words: &[&str]| words.iter().any(|word| all.contains(word));
    let first = message.lines().next().unwrap_or(message);
    let whole = match position {
        Some(position) => format!("cannot lock flake '{reference}': {message}\nat {position}"),
        None => format!("cannot lock flake '{reference}': {message}"),
    };
    if let Some(file) = untracked {
        return Error::new(Fault::Eval, whole).hint(format!("git add {file}    (Nix sees only files that git tracks)"));
    }
    if has(&["is not owned by current user", "dubious ownership", "safe.directory"]) {
        // Nix names the directory; what was typed may be relative.
        let named = all.split_once("repository path '").and_then(|(_, rest)| rest.split('\'').next());
        let tree = named.map_or_else(|| reference.to_owned(), str::to_owned);
        return Error::new(Fault::Usage, whole).hint(format!("git config --global --add safe.directory {tree}"));
    }
    if has(&["could not find a flake.nix", "does not contain a 'flake.nix'", "does not contain a '/flake.nix'"]) {
        return Error::usage(format!(
            "'{reference}' is not a flake: there is no flake.nix in it, nor above it in its repository"
        ))
        .hint("nix flake init    or name a flake: drover plan PATH");
    }
    if has(&["shallow repositories are only allowed"]) {
        return Error::usage(whole).hint(format!("drover plan '{}'", with_parameter(reference, "shallow=1")));
    }
    if has(&["requires lock file changes"]) {
        return Error::new(
            Fault::Eval,
            format!("cannot lock flake '{reference}': flake.lock does not cover all inputs of flake.nix"),
        )
        .hint("nix flake lock    or leave out --no-update-lock-file");
    }
    if has(&[
        "unable to download",
        "Could not resolve host",
        "Failed to fetch git repository",
        "unable to access",
        "Connection",
        "timed out",
        "Could not read from remote",
    ]) {
        return Error::new(Fault::Unreachable, whole)
            .hint(format!("nix flake metadata '{reference}'    (may need the network or credentials)"));
    }
    if has(&["cannot find flake 'flake:"]) {
        return Error::usage(whole)
            .hint(format!("a directory is written ./{reference}, an attr of this flake .#{reference}"));
    }
    if has(&["No such file or directory", "does not exist"]) && position.is_none() {
        let why = if first.starts_with("getting status of") { "there is no such directory" } else { first };
        return Error::usage(format!("cannot find flake '{reference}': {why}"))
            .hint("drover plan PATH    where PATH holds a flake.nix");
    }
    Error::new(Fault::Eval, whole).hint(format!("nix flake metadata '{reference}' --show-trace"))
}

/// The reference with one more parameter.
fn with_parameter(reference: &str, parameter: &str) -> String {
    let sign = if reference.contains('?') { '&' } else { '?' };
    format!("{reference}{sign}{parameter}")
}

/// The fields of `nix flake metadata --json` that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    description: Option<String>,
    last_modified: Option<u64>,
    locked: Attrs,
    locks: Value,
    resolved: Attrs,
    resolved_url: String,
    path: String,
    url: String,
}

/// A flake reference taken apart.
#[derive(Deserialize)]
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

/// Locks a flake.
pub async fn lock(nix: &Nix, options: &FlakeOptions) -> Result<Locked, LockError> {
    let mut args = reference_lock(options)?;
    let mut in_step = true;
    let mut temporary = None;

    // Without updates first: success means that the lock is in step. It fails before anything is written.
    let ran = metadata(nix, options, &args.flags(), "--no-update-lock-file").await?;
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
        let flags: Vec<String> = args.iter().cloned().chain(override_flags(&options.overrides)).collect();
        let ran = self::metadata(nix, options, &flags, NO_WRITE).await?;
        if !ran.ok {
            return Err(refused(nix, options, &ran).await);
        }
        let metadata = parse(options, &ran)?;
        args.extend(override_flags(&lock_overrides(nix, &options.overrides, &metadata.locks).await?));
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
fn reference(options: &FlakeOptions) -> &str {
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

fn override_flags(overrides: &[(String, String)]) -> impl Iterator<Item = String> + '_ {
    overrides.iter().flat_map(|(input, to)| ["--override-input".to_owned(), input.clone(), to.clone()])
}

/// A lock that changes is told and not written.
const NO_WRITE: &str = "--no-write-lock-file";

/// `nix flake metadata --json`; `keep` is the flag that keeps flake.lock from being written. (With both of them, a lock
/// that is not in step is no error.)
async fn metadata(nix: &Nix, options: &FlakeOptions, flags: &[String], keep: &str) -> Result<Ran, ProcessError> {
    let mut cmd = nix.cmd(&["flake", "metadata", "--json", keep]).args(flags);
    if options.impure {
        cmd = cmd.arg("--impure");
    }
    nix::run(&cmd.arg("--").arg(reference(options))).await
}

fn parse(options: &FlakeOptions, ran: &Ran) -> Result<Metadata, LockError> {
    serde_json::from_slice(&ran.stdout)
        .map_err(|error| LockError::Answer { reference: reference(options).to_owned(), cause: error.to_string() })
}

/// The error of a refused call, with a look at what git does not track.
async fn refused(nix: &Nix, options: &FlakeOptions, ran: &Ran) -> LockError {
    let reference = reference(options).to_owned();
    let text = ran.error().unwrap_or_default();
    let explained = message::explain(text, |_| false);
    let place = place(nix, &reference);
    let roots = [place.canonicalize().unwrap_or_else(|_| place.clone()).to_string_lossy().into_owned()];
    let position = explained.position.map(|at| {
        let at = message::relative(&at, &roots);
        // 2.26 names the copy in the store, of which nothing is known yet but the name.
        let ours = |rest: &&str| rest.split(':').next().is_some_and(|file| place.join(file).exists());
        at.split_once("-source/").map(|(_, rest)| rest).filter(ours).map(str::to_owned).unwrap_or(at)
    });
    let all = ran.all();
    let untracked = untracked_in(nix, options, &explained.message).await;
    let message = if explained.message.is_empty() { all.clone() } else { explained.message };
    LockError::Nix { reference, message, position, all, untracked }
}

/// The directory that a reference as typed names, if it names one.
fn place(nix: &Nix, reference: &str) -> PathBuf {
    let path = local_path(reference).unwrap_or_else(|| PathBuf::from(reference.split('?').next().unwrap_or(reference)));
    nix.dir.as_ref().map_or(path.clone(), |dir| dir.join(&path))
}

/// The file that a message names, or flake.nix itself, if git does not track it.
async fn untracked_in(nix: &Nix, options: &FlakeOptions, message: &str) -> Option<String> {
    let tree = git::status(nix, &place(nix, reference(options)), Look::Untracked).await?;
    tree.untracked.into_iter().find(|file| message.contains(file.trim_end_matches('/')))
}

fn write_lock(locks: &Value) -> Result<tempfile::TempPath, LockError> {
    use std::io::Write as _;
    let mut file =
        tempfile::Builder::new().prefix("drover-").suffix(".lock").tempfile().map_err(LockError::LockFile)?;
    let text = serde_json::to_string_pretty(locks).map_err(|error| LockError::LockFile(error.into()))?;
    file.write_all(text.as_bytes()).map_err(LockError::LockFile)?;
    Ok(file.into_temp_path())
}

/// The overrides with what they were locked to, so that no evaluator locks them anew.
async fn lock_overrides(
    nix: &Nix,
    overrides: &[(String, String)],
    locks: &Value,
) -> Result<Vec<(String, String)>, LockError> {
    let mut out = Vec::new();
    for (input, to) in overrides {
        let url = match locked_input(locks, input) {
            Some(attrs) => flake_url(nix, attrs).await?,
            None => None,
        };
        out.push((input.clone(), url.unwrap_or_else(|| to.clone())));
    }
    Ok(out)
}

/// What the input at `path` (`a/b`) is locked to.
fn locked_input<'a>(locks: &'a Value, path: &str) -> Option<&'a Value> {
    let nodes = locks.get("nodes")?;
    let follow = |node: &'a str, part: &str| resolve_input(locks, node, part, 0);
    let root = locks.get("root")?.as_str()?;
    let node = path.split('/').try_fold(root, follow)?;
    nodes.get(node)?.get("locked")
}

/// The node that the input `name` of `node` is; `follows` paths start at the root.
fn resolve_input<'a>(locks: &'a Value, node: &str, name: &str, depth: u8) -> Option<&'a str> {
    match locks.get("nodes")?.get(node)?.get("inputs")?.get(name)? {
        Value::String(node) => Some(node),
        Value::Array(path) if depth < 32 => {
            let root = locks.get("root")?.as_str()?;
            path.iter().try_fold(root, |node, part| resolve_input(locks, node, part.as_str()?, depth + 1))
        }
        _ => None,
    }
}

/// The reference of locked attrs as one text; `None` for a dirty tree, which has no locked reference.
async fn flake_url(nix: &Nix, attrs: &Value) -> Result<Option<String>, LockError> {
    let mut attrs = attrs.as_object().cloned().unwrap_or_default();
    attrs.retain(|name, _| !name.starts_with("__"));
    if attrs.contains_key("dirtyRev") || !(attrs.contains_key("rev") || attrs.contains_key("narHash")) {
        return Ok(None);
    }
    let json = super::expr::string(&Value::Object(attrs).to_string());
    let expr = format!("builtins.flakeRefToString (builtins.fromJSON {json})");
    let ran = nix::run(&nix.cmd(&["eval", "--raw", "--expr", &expr])).await?;
    Ok(ran.ok.then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned()))
}

async fn finish(nix: &Nix, options: &FlakeOptions, metadata: Metadata) -> Result<Locked, LockError> {
    let wrong = |cause: &str| LockError::Answer { reference: reference(options).to_owned(), cause: cause.to_owned() };
    let (store_dir, base) = metadata.path.rsplit_once('/').ok_or_else(|| wrong("'path' is no path"))?;
    let store_path = StorePath::from_basename(base.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    let clean = metadata.locked.dirty_rev.is_none();
    let parameters = metadata.locked.parameters();
    let rev = metadata.locked.rev.filter(|_| clean);
    let dirty = match (clean, &rev) {
        (true, Some(_)) => Some(0),
        (true, None) if metadata.resolved.kind != "git" => None,
        // A git tree without a commit, or with changes.
        _ => Some(match local_path(&metadata.resolved_url) {
            Some(dir) => git::status(nix, &dir, Look::Tracked).await.map_or(1, |tree| tree.changed.max(1)),
            None => 1,
        }),
    };
    // Without a commit or a NAR hash, the "locked" reference fixes nothing.
    let fixed = clean && (rev.is_some() || metadata.resolved.kind != "git");
    Ok(Locked {
        locked_ref: if fixed { metadata.url } else { metadata.resolved_url.clone() },
        original: metadata.resolved_url,
        rev,
        dirty,
        nar_hash: metadata.locked.nar_hash.ok_or_else(|| wrong("it has no narHash"))?,
        store_path,
        store_dir: store_dir.to_owned(),
        dir: metadata.resolved.dir.unwrap_or_default(),
        kind: metadata.locked.kind,
        rev_count: metadata.locked.rev_count,
        parameters,
        description: metadata.description,
        last_modified: metadata.last_modified,
        in_step: true,
        locks: metadata.locks,
        warnings: Vec::new(),
        args: Vec::new(),
        lock_file: None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_found_through_follows() {
        let locks = serde_json::json!({
            "root": "root",
            "nodes": {
                "root": {"inputs": {"a": "a_1", "b": "b_1"}},
                "a_1": {"inputs": {"b": ["b"]}, "locked": {"type": "path"}},
                "b_1": {"locked": {"type": "github"}},
                "loop": {"inputs": {"x": ["x"]}}
            }
        });
        assert_eq!(locked_input(&locks, "a/b").unwrap()["type"], "github");
        assert_eq!(locked_input(&locks, "a").unwrap()["type"], "path");
        assert!(locked_input(&locks, "c").is_none());
    }

    #[test]
    fn local_paths_are_decoded() {
        assert_eq!(local_path("git+file:///a%20b?dir=x"), Some("/a b".into()));
        assert_eq!(local_path("path:/x?narHash=y"), Some("/x".into()));
        assert_eq!(local_path("github:a/b"), None);
        assert_eq!(percent_decode("100%"), "100%");
    }

    #[test]
    fn refusals_end_in_something_to_type() {
        for (all, hint) in [
            ("error: could not find a flake.nix file", "nix flake init"),
            ("error: repository path '/x' is not owned by current user", "git config --global --add safe.directory /x"),
            (
                "error: is a shallow Git repository, but shallow repositories are only allowed",
                "git+file:///x?shallow=1",
            ),
            ("error: unable to download 'https://x'", "nix flake metadata"),
        ] {
            let error = explain_lock("git+file:///x", all, None, all, None);
            assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
        }
    }
}
