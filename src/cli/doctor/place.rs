//! The flake, its repository, disks and directories.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use crate::eval::Nix as EvalNix;
use crate::eval::git::{self, Look};
use crate::process::{Cmd, ProcessError, quote};
use crate::record::history::History;
use crate::report::doctor::{Checked, Disk, Flake, Git, StateDir, Trouble};

use super::nix::{Asked, Open};
use super::progress::Progress;
use super::scene::Scene;
use super::{PATIENCE, checked};
use crate::error::without_numbers;

/// The names of a flake's inputs: what it says, and what its outputs want.
const INPUTS: &str = "let flake = import (builtins.getEnv \"DROVER_FLAKE\"); in builtins.attrNames \
    ((flake.inputs or { }) // removeAttrs (builtins.functionArgs flake.outputs) [ \"self\" ])";

/// The flake.
pub(super) async fn flake(scene: &Scene<'_>, progress: &Progress) -> Option<Flake> {
    let dir = scene.flake.clone()?;
    let file = dir.join("flake.nix");
    let exists = file.exists();
    let inputs = if exists { inputs(scene, &file, progress).await } else { Checked::Skipped };
    Some(Flake { locked: dir.join("flake.lock").exists(), exists, dir, inputs })
}

/// Reads flake.nix without fetching anything.
async fn inputs(scene: &Scene<'_>, file: &Path, progress: &Progress) -> Checked<Vec<String>> {
    let nix = scene.options.cmd("nix").env("DROVER_FLAKE", file).args(["--extra-experimental-features", "nix-command"]);
    let eval = nix.args(["eval", "--store", "dummy://", "--impure", "--json", "--expr", INPUTS]);
    match progress.wait("flake", eval.output()).await {
        None => Checked::Silent(PATIENCE),
        Some(Ok(json)) => serde_json::from_slice(&json).map_or(Checked::Skipped, Checked::Found),
        Some(Err(ProcessError::Status { stderr, .. })) => {
            let (message, line) = syntax(&stderr);
            let line = line.map_or_else(String::new, |line| format!("+{line} "));
            let fix = format!("${{EDITOR:-vi}} {line}{}", quote(&file.to_string_lossy()));
            Checked::Failed(Trouble { message: format!("cannot read flake.nix: {message}"), fix })
        }
        // That there is no Nix has been said.
        Some(Err(_)) => Checked::Skipped,
    }
}

/// The error in what Nix says, and its line.
fn syntax(stderr: &str) -> (String, Option<u32>) {
    let lines: Vec<&str> = stderr.lines().map(str::trim).collect();
    let message = lines.iter().rev().find_map(|line| line.strip_prefix("error: "));
    let at = lines.iter().rev().find_map(|line| line.strip_prefix("at "));
    let line = at.and_then(|at| at.trim_end_matches(':').rsplit(':').nth(1)?.parse().ok());
    (message.or(lines.last().copied()).unwrap_or_default().to_owned(), line)
}

/// The repository.
pub(super) async fn git(scene: &Scene<'_>, progress: &Progress) -> Checked<Git> {
    let Some(dir) = scene.flake.as_deref().filter(|dir| git::find_up(dir, ".git").is_some()) else {
        return Checked::Skipped;
    };
    let ask = |args: &[&str]| {
        let cmd = Cmd::new("git").env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C").dir(dir).args(args);
        async move { cmd.output().await }
    };
    let all = async {
        let nix = EvalNix::default();
        tokio::join!(
            ask(&["ls-files", "--", "flake.nix", "flake.lock"]),
            ask(&["rev-parse", "--is-shallow-repository"]),
            git::status(&nix, dir, Look::Tracked),
        )
    };
    let answer = progress.wait("git", all).await.map(|(files, shallow, tree)| {
        let files = files.map_err(|error| refused(&error, dir))?;
        let files = String::from_utf8_lossy(&files).into_owned();
        let tracked = |name: &str| files.lines().any(|file| file == name);
        Ok(Git {
            flake_tracked: tracked("flake.nix"),
            lock_tracked: tracked("flake.lock"),
            shallow: shallow.is_ok_and(|text| text.starts_with(b"true")),
            changed: tree.as_ref().map_or(0, |tree| tree.changed),
            has_commit: tree.is_some_and(|tree| tree.head.is_some()),
        })
    });
    checked(answer)
}

/// Why git says nothing.
fn refused(error: &ProcessError, dir: &Path) -> Trouble {
    let dir = quote(&dir.to_string_lossy());
    match error {
        error if error.is_not_found() => Trouble {
            message: "cannot find git".to_owned(),
            fix: "nix profile install nixpkgs#git    or export PATH=DIR:$PATH".to_owned(),
        },
        ProcessError::Status { stderr, .. } if stderr.contains("dubious ownership") => {
            // git names the directory that it means, and what to type.
            let fix = stderr.lines().map(str::trim).find(|line| line.starts_with("git config"));
            Trouble {
                message: "git refuses this repository: it belongs to another user".to_owned(),
                fix: fix.map_or_else(|| format!("git config --global --add safe.directory {dir}"), str::to_owned),
            }
        }
        ProcessError::Status { stderr, .. } => Trouble {
            message: format!("git: {}", stderr.lines().next().unwrap_or_default().trim_start_matches("fatal: ")),
            fix: format!("git -C {dir} status"),
        },
        other => Trouble { message: without_numbers(&crate::error::chain(other)), fix: format!("git -C {dir} status") },
    }
}

/// The file systems that have to have room.
pub(super) fn rooms(scene: &Scene<'_>, asked: &Asked, open: &Open) -> impl FnOnce() -> Vec<Disk> + Send + 'static {
    let store = match (&open.store, asked.installation.found()) {
        (Some(store), _) => store.physical_dir().map(Path::to_owned),
        (None, Some(nix)) if scene.options.store.is_none() => Some(PathBuf::from(&nix.store_dir)),
        _ => None,
    };
    let records = scene.settings.as_ref().map(|settings| settings.output.state_dir.clone());
    let tmp = Some(PathBuf::from(scene.env.get("TMPDIR").unwrap_or("/tmp")));
    let places = [("the store", store), ("records", records), ("TMPDIR", tmp)];
    move || {
        let mut disks: Vec<(u64, Disk)> = Vec::new();
        for (name, dir) in places.into_iter().filter_map(|(name, dir)| Some((name, nearest(&dir?)?))) {
            let (Ok(meta), Ok(room)) = (std::fs::metadata(&dir), statvfs(&dir)) else { continue };
            match disks.iter_mut().find(|(device, _)| *device == meta.dev()) {
                Some((_, disk)) => disk.uses.push(name),
                None => {
                    let disk = Disk {
                        uses: vec![name],
                        dir,
                        free: room.f_bavail.saturating_mul(room.f_frsize),
                        total: room.f_blocks.saturating_mul(room.f_frsize),
                        inodes_free: (room.f_files > 0).then_some(room.f_favail),
                    };
                    disks.push((meta.dev(), disk));
                }
            }
        }
        disks.into_iter().map(|(_, disk)| disk).collect()
    }
}

/// The directory, or the nearest one above it that exists.
fn nearest(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    dir.ancestors().find(|dir| dir.exists()).map(Path::to_owned)
}

/// Whether this user can make files in this directory, or could make the directory; else where and why not. Leaves
/// nothing behind.
pub(super) fn writable(dir: &Path) -> Result<(), (PathBuf, String)> {
    let Some(at) = nearest(dir) else { return Err((dir.to_owned(), "it does not exist".to_owned())) };
    let tried = match std::path::absolute(dir) {
        _ if !at.is_dir() => Err("it is no directory".to_owned()),
        Ok(dir) if dir == at => {
            let made = tempfile::Builder::new().prefix(".drover-").tempfile_in(&at);
            made.map(drop).map_err(|error| without_numbers(&error.to_string()))
        }
        _ => access(&at, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| without_numbers(&std::io::Error::from(error).to_string())),
    };
    tried.map_err(|why| {
        let why = why.split(" at path ").next().unwrap_or_default().to_owned();
        (at, why)
    })
}

/// Where records are kept.
pub(super) fn state(dir: Option<PathBuf>, shared: Option<String>) -> impl FnOnce() -> StateDir + Send + 'static {
    move || {
        let known = |dir: &Path| History::path_in(dir).exists().then(|| History::open(dir).ok()?.runs().ok()).flatten();
        let runs = dir.as_deref().and_then(known).map(|runs| runs.len());
        let problem =
            dir.as_deref().and_then(|dir| writable(dir).err()).map(|(at, why)| format!("{}: {why}", at.display()));
        StateDir { runs, shared, dir, problem }
    }
}

/// What is wrong with `TMPDIR`.
pub(super) fn tmp(scene: &Scene<'_>) -> Option<(PathBuf, String)> {
    let dir = PathBuf::from(scene.env.get("TMPDIR")?);
    let why = match dir.exists() {
        false => "it does not exist".to_owned(),
        true => writable(&dir).err()?.1,
    };
    Some((dir, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_flakes_are_found_with_their_line() {
        let said = "error:\n       … while evaluating a thing\n\n       error: syntax error, unexpected '}'\n       at \
                    /x/flake.nix:3:7:\n            2|\n";
        assert_eq!(syntax(said), ("syntax error, unexpected '}'".to_owned(), Some(3)));
    }

    #[test]
    fn writing_is_tried_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(writable(dir.path()), Ok(()));
        assert_eq!(writable(&dir.path().join("a/b")), Ok(()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(writable(&file.join("cache")), Err((file, "it is no directory".to_owned())));
    }
}
