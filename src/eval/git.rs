//! What git says about a work tree and its history. Does not know about flakes, and changes nothing.

use std::path::{Path, PathBuf};

use super::nix::Nix;
use crate::process::ProcessError;

/// A work tree as `git status` sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The commit that is checked out; `None` before the first commit.
    pub head: Option<String>,
    /// The branch, or `(detached)`.
    pub branch: String,
    /// How many tracked files differ from it.
    pub changed: u32,
    /// Files and directories that git does not track, if they were looked for; relative to where git was asked.
    pub untracked: Vec<String>,
}

/// Which files `git status` is to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Tracked files only: what decides whether Nix calls the tree dirty.
    Tracked,
    /// Also files that git does not track, for hints.
    Untracked,
}

/// Asks git about the tree that holds `dir`; `None` if there is none or git does not answer.
pub async fn status(nix: &Nix, dir: &Path, look: Look) -> Option<Tree> {
    let untracked = match look {
        Look::Tracked => "--untracked-files=no",
        Look::Untracked => "--untracked-files=normal",
    };
    let args = ["status", "--porcelain=v2", "--branch", "--ignore-submodules=none", untracked];
    Some(parse(&answer(nix, dir, &args).await?))
}

/// What git prints; `None` if it refuses, which most often is the answer.
async fn answer(nix: &Nix, dir: &Path, args: &[&str]) -> Option<String> {
    match ask(nix, dir, args).await {
        Ok(output) => Some(output),
        Err(error) => {
            tracing::debug!(error = %crate::error::chain(&error), "git does not answer");
            None
        }
    }
}

/// What git prints.
async fn ask(nix: &Nix, dir: &Path, args: &[&str]) -> Result<String, ProcessError> {
    let output = nix.git().env("GIT_OPTIONAL_LOCKS", "0").dir(dir).args(args).output().await?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// The commit that is checked out at the root of a work tree, as far as git's own small files say it at a glance; `None`
/// also where they say it elsewhere (packed branches, second work trees).
#[must_use]
pub fn head(root: &Path) -> Option<String> {
    let read = |file: &str| std::fs::read_to_string(root.join(".git").join(file)).ok();
    let head = read("HEAD")?;
    let hash = match head.strip_prefix("ref: ") {
        Some(branch) => read(branch.trim_end())?,
        None => head,
    };
    let hash = hash.trim_end();
    let is_hash = hash.len() >= 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| hash.to_owned())
}

/// The commit that a revision means here (a branch, a tag, a hash, `HEAD~1`), in full.
pub async fn commit_of(nix: &Nix, dir: &Path, revision: &str) -> Option<String> {
    let commit = format!("{revision}^{{commit}}");
    let hash = answer(nix, dir, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await?;
    Some(hash.trim().to_owned()).filter(|hash| !hash.is_empty())
}

/// A file beside this directory's own as it is in another revision; `None` if it is not in that.
pub async fn file_at(nix: &Nix, dir: &Path, commit: &str, name: &str) -> Option<String> {
    answer(nix, dir, &["show", "--end-of-options", &format!("{commit}:./{name}")]).await
}

/// Names of branches, also of remotes, and tags, as people type them.
pub async fn names(nix: &Nix, dir: &Path) -> Vec<String> {
    let args = ["for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes", "refs/tags"];
    answer(nix, dir, &args).await.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The best common ancestor of two commits; `None` also where the history is not deep enough to hold it.
pub async fn merge_base(nix: &Nix, dir: &Path, one: &str, other: &str) -> Option<String> {
    let base = answer(nix, dir, &["merge-base", one, other]).await?;
    base.lines().next().map(str::to_owned)
}

/// The parents that a commit names, also those that a shallow clone does not hold.
pub async fn parents(nix: &Nix, dir: &Path, commit: &str) -> Vec<String> {
    let text = answer(nix, dir, &["cat-file", "commit", commit]).await.unwrap_or_default();
    let header = text.lines().take_while(|line| !line.is_empty());
    header.filter_map(|line| line.strip_prefix("parent ")).map(str::to_owned).collect()
}

/// Whether the clone holds only a part of the history.
pub async fn is_shallow(nix: &Nix, dir: &Path) -> bool {
    answer(nix, dir, &["rev-parse", "--is-shallow-repository"]).await.is_some_and(|text| text.trim() == "true")
}

/// The last commits up to `head`, newest first, each with its first parent; fewer where the history is not that long.
pub async fn last_commits(nix: &Nix, dir: &Path, head: &str, count: u32) -> Result<Vec<LogEntry>, ProcessError> {
    let (count, format) = (format!("--max-count={count}"), "--format=%H %P%x00%s");
    let text = ask(nix, dir, &["log", "--first-parent", &count, format, "--end-of-options", head, "--"]).await?;
    let entry = |line: &str| {
        let (hashes, subject) = line.split_once('\0')?;
        let mut hashes = hashes.split(' ').filter(|hash| !hash.is_empty()).map(str::to_owned);
        Some(LogEntry { commit: hashes.next()?, parent: hashes.next(), subject: subject.to_owned() })
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// One commit of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its hash.
    pub commit: String,
    /// That of its first parent, if it has one here.
    pub parent: Option<String>,
    /// The first line of its message.
    pub subject: String,
}

/// The paths that differ between two commits, or between a commit and the work tree's tracked files, relative to the
/// root of the repository; a renamed file is two of them.
pub async fn changed_paths(nix: &Nix, dir: &Path, base: &str, head: Option<&str>) -> Result<Vec<String>, ProcessError> {
    let args: Vec<&str> =
        ["diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", "--ignore-submodules=none", base]
            .into_iter()
            .chain(head)
            .chain(["--"])
            .collect();
    let text = ask(nix, dir, &args).await?;
    Ok(text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

/// Reads `git status --porcelain=v2 --branch`.
fn parse(text: &str) -> Tree {
    let mut tree = Tree { head: None, branch: String::new(), changed: 0, untracked: Vec::new() };
    for line in text.lines() {
        if let Some(header) = line.strip_prefix("# ") {
            match header.split_once(' ') {
                Some(("branch.oid", oid)) if oid != "(initial)" => tree.head = Some(oid.to_owned()),
                Some(("branch.head", branch)) => branch.clone_into(&mut tree.branch),
                _ => {}
            }
        } else if let Some(path) = line.strip_prefix("? ") {
            tree.untracked.push(path.to_owned());
        } else if !line.is_empty() {
            tree.changed += 1;
        }
    }
    tree
}

/// The nearest directory, `dir` or above it, that holds `name`.
#[must_use]
pub fn find_up(dir: &Path, name: &str) -> Option<PathBuf> {
    dir.ancestors().find(|dir| dir.join(name).exists()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read() {
        let tree = parse(
            "# branch.oid 996defb2\n# branch.head master\n# branch.ab +0 -0\n1 .M N... 100644 100644 100644 a b salt\n? new file\n",
        );
        assert_eq!(
            tree,
            Tree {
                head: Some("996defb2".into()),
                branch: "master".into(),
                changed: 1,
                untracked: vec!["new file".into()]
            }
        );
        assert_eq!(parse("# branch.oid (initial)\n# branch.head main\n").head, None);
    }
}
