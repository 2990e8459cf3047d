//! The quick way to a locked source: by what one call of git says about a clean work tree, without Nix. For this
//! machine alone: `eval/quick-KEY.json` in the state directory.

use std::path::{Path, PathBuf};

use super::super::flake::{FlakeOptions, Locked};
use super::super::git::{self, Look};
use super::super::nix::Nix;
use super::super::{expr, flake};
use super::{Context, Corrupt, FORMAT, digest, shelf};

/// Largest file that is read.
const SIZE_LIMIT: usize = 16 << 20;

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
        let Context { nix, settings, arguments, store_dir, local } = context;
        let fixed = [format.as_str(), expr::EVAL, nix, settings, arguments, store_dir, local, &self.head];
        let parts: Vec<&str> = fixed.into_iter().chain(self.parts.iter().map(String::as_str)).collect();
        format!("{}-{}", self.head, digest(&parts))
    }
}

impl Commit {
    /// Whether an earlier run has locked this commit, if perhaps with other settings. Only a hint: what is known is
    /// found by [`Commit::key`].
    #[must_use]
    pub fn is_familiar(&self, state_dir: &Path) -> bool {
        is_familiar(state_dir, &self.head)
    }

    /// What Nix will most likely lock it to. `None` where that takes more than a look.
    #[must_use]
    pub fn guess(&self) -> Option<String> {
        let [reference, _, root, flake, branch] = &self.parts;
        let dir = Path::new(flake).strip_prefix(root).ok()?.to_str()?;
        let branch = Some(branch.as_str()).filter(|branch| *branch != "(detached)");
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
        let parts = [reference, root.as_str(), dir, branch.unwrap_or_default()];
        if root.is_empty() || !parts.into_iter().all(plain) {
            return None;
        }
        let dir = if dir.is_empty() { String::new() } else { format!("dir={dir}&") };
        let branch = branch.map_or_else(String::new, |branch| format!("ref=refs/heads/{branch}&"));
        Some(format!("git+file://{root}?{dir}{branch}rev={}", self.head))
    }
}

/// The work tree of a reference that is evaluated purely and without changes to its lock, which git has not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkTree {
    reference: String,
    path: PathBuf,
    root: PathBuf,
    /// Where flake.nix is, if there is one.
    flake: Option<PathBuf>,
}

/// Finds the work tree of a reference; `None` wherever its commit would not say everything. `dir` is where relative
/// references start.
#[must_use]
pub fn work_tree(options: &FlakeOptions, dir: &Path) -> Option<WorkTree> {
    if options.changes_lock() {
        return None;
    }
    let reference = if options.reference.is_empty() { "." } else { &options.reference };
    let (path, parameters) = reference.split_once('?').unwrap_or((reference, ""));
    // Another commit, another branch, or a path that is looked at without git.
    if parameters.split('&').any(|parameter| ["rev=", "ref=", "shallow="].iter().any(|p| parameter.starts_with(p))) {
        return None;
    }
    let path = match path.strip_prefix("git+file://") {
        Some(path) => PathBuf::from(flake::percent_decode(path)),
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
    Some(WorkTree { reference: reference.to_owned(), path, root, flake })
}

impl WorkTree {
    /// The commit that it is, if it is clean.
    pub async fn commit(self, nix: &Nix) -> Option<Commit> {
        let tree = git::status(nix, &self.path, Look::Tracked).await?;
        if tree.changed > 0 {
            return None;
        }
        let head = tree.head?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let flake = self.flake.as_deref().map(text).unwrap_or_default();
        Some(Commit { head, parts: [self.reference, text(&self.path), text(&self.root), flake, tree.branch] })
    }

    /// Whether its commit is one that no earlier run has locked, as far as that is known without git. Only a hint.
    #[must_use]
    pub fn seems_new(&self, state_dir: &Path) -> bool {
        git::head(&self.root).is_some_and(|head| !is_familiar(state_dir, &head))
    }
}

/// Looks at the work tree of a reference; see [`work_tree`].
pub async fn commit(nix: &Nix, options: &FlakeOptions, dir: &Path) -> Option<Commit> {
    work_tree(options, dir)?.commit(nix).await
}

/// Whether an earlier run has locked this commit, if perhaps with other settings.
fn is_familiar(state_dir: &Path, head: &str) -> bool {
    let start = format!("quick-{head}-");
    let files = std::fs::read_dir(state_dir.join("eval")).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with(&start))
}

/// A commit that a reference to a repository of this machine names by its hash: whatever is in the work tree, Nix's
/// answer follows from the reference alone. `None` where flags change the lock.
#[must_use]
pub fn pinned(options: &FlakeOptions, rev: &str) -> Option<Commit> {
    let parts = [options.reference.clone(), String::new(), String::new(), String::new(), String::new()];
    (!options.changes_lock()).then(|| Commit { head: rev.to_owned(), parts })
}

/// What an earlier run locked under this key.
pub fn load_quick(state_dir: &Path, key: &str) -> Result<Option<Locked>, Corrupt> {
    let path = path(state_dir, key);
    let corrupt = |cause: String| Corrupt { place: path.display().to_string(), cause };
    let Some(text) = shelf::read(&path, SIZE_LIMIT).map_err(corrupt)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|error| corrupt(error.to_string()))
}

/// Stores a source under its quick key, which was taken before locking; unless the tree was at another commit by then.
/// The caller has made sure that the source may be remembered ([`super::Record::may_hold`]).
pub fn save_quick(state_dir: &Path, key: &str, locked: &Locked) -> std::io::Result<()> {
    // The key starts with the commit that git saw.
    if locked.rev.as_deref() != key.split('-').next() {
        return Ok(());
    }
    shelf::write(&path(state_dir, key), &serde_json::to_vec(locked)?)
}

fn path(state_dir: &Path, key: &str) -> PathBuf {
    state_dir.join("eval").join(format!("quick-{key}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_locked_as_nix_writes_it() {
        let guess = |reference: &str, root: &str, flake: &str, branch: &str| {
            let parts = [reference, "", root, flake, branch].map(str::to_owned);
            Commit { head: "d7252d65".to_owned(), parts }.guess()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(guess(".", "/a", "/a", "main"), some("git+file:///a?ref=refs/heads/main&rev=d7252d65"));
        assert_eq!(guess("./x", "/a", "/a/x", "f/g"), some("git+file:///a?dir=x&ref=refs/heads/f/g&rev=d7252d65"));
        assert_eq!(guess(".", "/a", "/a", "(detached)"), some("git+file:///a?rev=d7252d65"));
        for (reference, root, branch) in [(".", "/a b", "main"), (".", "/a", "ü"), (".?submodules=1", "/a", "main")] {
            assert_eq!(guess(reference, root, root, branch), None, "{reference} {root} {branch}");
        }
    }

    #[test]
    fn a_commit_that_was_locked_is_familiar() {
        let dir = tempfile::tempdir().unwrap();
        let commit = Commit { head: "d7252d65".to_owned(), parts: Default::default() };
        assert!(!commit.is_familiar(dir.path()));
        std::fs::create_dir(dir.path().join("eval")).unwrap();
        std::fs::write(dir.path().join("eval/quick-d7252d65-0.json"), "").unwrap();
        assert!(commit.is_familiar(dir.path()));
    }
}
