//! Whether this is the default branch of the repository: what CI says, else what git's own files say.

use std::path::{Path, PathBuf};

use super::Env;

/// Bytes of git's files that are read at most; real ones have fewer than 200, and its configuration a few more.
const MAX: u64 = 1 << 16;

/// What git calls a default branch where no remote says which one it is.
const USUAL: [&str; 2] = ["main", "master"];

/// Whether the commit at hand is on the default branch. In doubt it is not; a pull request never is.
pub(super) fn is_default(env: &Env, dir: Option<&Path>) -> bool {
    if env.pull_request().is_some() {
        return false;
    }
    if let Some(branch) = env.get("CI_COMMIT_BRANCH") {
        return env.get("CI_DEFAULT_BRANCH") == Some(branch);
    }
    if let Some(branch) = env.get("GITHUB_REF").and_then(|name| name.strip_prefix("refs/heads/")) {
        return env.default_branch().map_or(USUAL.contains(&branch), |default| default == branch);
    }
    // A CI system that says nothing has no branch checked out that could be believed.
    !env.is_ci() && dir.and_then(of_files).unwrap_or(false)
}

/// The branch that is checked out here, as git's own files say.
pub(super) fn checked_out(dir: &Path) -> Option<String> {
    head_of(&git_dir(dir)?)
}

/// The default branch: what git knows of the remote's, else what is checked out here.
#[must_use]
pub fn default_branch(dir: &Path) -> Option<String> {
    let git = git_dir(dir)?;
    remote_default(&git).or_else(|| head_of(&git))
}

/// Where the repository that this directory is in was cloned from, `git@github.com:acme/infra.git`.
#[must_use]
pub fn origin(dir: &Path) -> Option<String> {
    let config = read(&common_dir(&git_dir(dir)?).join("config"))?;
    let mut lines = config.lines().map(str::trim).skip_while(|line| *line != "[remote \"origin\"]").skip(1);
    let url = lines.by_ref().take_while(|line| !line.starts_with('[')).find_map(|line| line.strip_prefix("url"))?;
    Some(url.trim_start().strip_prefix('=')?.trim().to_owned())
}

/// What all work trees of a repository share.
fn common_dir(git: &Path) -> PathBuf {
    read(&git.join("commondir")).map_or_else(|| git.to_owned(), |common| git.join(common))
}

fn remote_default(git: &Path) -> Option<String> {
    let default = read(&common_dir(git).join("refs/remotes/origin/HEAD"))?;
    default.strip_prefix("ref: refs/remotes/origin/").map(str::to_owned)
}

fn head_of(git: &Path) -> Option<String> {
    Some(read(&git.join("HEAD"))?.strip_prefix("ref: refs/heads/")?.to_owned())
}

fn of_files(dir: &Path) -> Option<bool> {
    let git = git_dir(dir)?;
    let branch = head_of(&git)?;
    let branch = branch.as_str();
    Some(remote_default(&git).map_or(USUAL.contains(&branch), |default| default == branch))
}

/// The root of the git repository that this directory is in, without symlinks.
#[must_use]
pub fn work_tree(dir: &Path) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    dir.ancestors().find(|dir| dir.join(".git").exists()).map(Path::to_owned)
}

/// `.git` here or above; a second work tree has a file in its place.
fn git_dir(dir: &Path) -> Option<PathBuf> {
    let git = work_tree(dir)?.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let elsewhere = read(&git)?;
    Some(git.parent()?.join(elsewhere.strip_prefix("gitdir: ")?))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX), &mut text).ok()?;
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(vars: &[(&str, &str)], dir: Option<&Path>) -> bool {
        is_default(&Env::of(vars.iter().copied()), dir)
    }

    #[test]
    fn ci_says_which_branch_it_is() {
        assert!(is(&[("CI_COMMIT_BRANCH", "trunk"), ("CI_DEFAULT_BRANCH", "trunk")], None));
        assert!(!is(&[("CI_COMMIT_BRANCH", "topic"), ("CI_DEFAULT_BRANCH", "trunk")], None));
        assert!(is(&[("CI", "1"), ("GITHUB_REF", "refs/heads/main")], None));
        assert!(!is(&[("CI", "1"), ("GITHUB_REF", "refs/heads/topic")], None));
        assert!(!is(&[("CI", "1"), ("GITHUB_REF", "refs/tags/main")], None));
        assert!(!is(&[("GITHUB_BASE_REF", "main"), ("GITHUB_REF", "refs/heads/main")], None));
        let dir = tempfile::tempdir().unwrap();
        let event = dir.path().join("event.json");
        std::fs::write(&event, r#"{"repository": {"default_branch": "trunk"}}"#).unwrap();
        let on = |name: &str| is(&[("GITHUB_REF", name), ("GITHUB_EVENT_PATH", event.to_str().unwrap())], None);
        assert!(on("refs/heads/trunk") && !on("refs/heads/main"));
    }

    #[test]
    fn else_git_does() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert!(!is(&[], Some(dir.path())), "no repository");
        write("repo/.git/HEAD", "ref: refs/heads/main\n");
        let repo = dir.path().join("repo");
        assert!(is(&[], Some(&repo)));
        assert!(!is(&[("CI", "true")], Some(&repo)));
        write("repo/.git/refs/remotes/origin/HEAD", "ref: refs/remotes/origin/trunk\n");
        assert!(!is(&[], Some(&repo)));
        write("repo/.git/worktrees/w/HEAD", "ref: refs/heads/trunk\n");
        write("repo/.git/worktrees/w/commondir", "../..\n");
        write("w/.git", &format!("gitdir: {}/.git/worktrees/w\n", repo.display()));
        assert!(is(&[], Some(&dir.path().join("w"))));
        write("repo/.git/HEAD", "5b0a4d3c2e1f5b0a4d3c2e1f5b0a4d3c2e1f5b0a\n");
        assert!(!is(&[], Some(&repo)), "no branch at all");
        assert_eq!(checked_out(&repo), None);
        assert_eq!(default_branch(&dir.path().join("w")).as_deref(), Some("trunk"));
        let config = "[core]\n\tbare = false\n[remote \"up\"]\n\turl = x\n[remote \"origin\"]\n\tfetch = y\n\turl = git@github.com:a/b.git\n";
        write("repo/.git/config", config);
        assert_eq!(origin(&dir.path().join("w")).as_deref(), Some("git@github.com:a/b.git"));
        assert_eq!(origin(dir.path()), None);
        assert_eq!(checked_out(&dir.path().join("w")).as_deref(), Some("trunk"));
    }
}
