//! What git says about a work tree, in one call. Does not know about flakes.

use std::path::{Path, PathBuf};

use super::nix::Nix;

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
    let cmd = nix.git().env("GIT_OPTIONAL_LOCKS", "0").dir(dir).args([
        "status",
        "--porcelain=v2",
        "--branch",
        "--ignore-submodules=none",
        untracked,
    ]);
    let output = match cmd.output().await {
        Ok(output) => output,
        Err(error) => {
            tracing::debug!(error = %crate::error::chain(&error), "git does not answer");
            return None;
        }
    };
    Some(parse(&String::from_utf8_lossy(&output)))
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
