//! Rules about where drover works: its configuration, the flake, git, disks, directories.

use super::Sheet;
use super::facts::{Checked, Disk, Facts, Flake};
use crate::process::quote;
use crate::report::number::{count, plural, size};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Less than this and builds fail.
const FULL: u64 = 500 * MIB;

/// Less than this and a large build may fail.
const TIGHT: u64 = 5 * GIB;

/// So much is enough, however small a part of the disk it is.
const PLENTY: u64 = 50 * GIB;

/// Less than so many files, and the next closure may not fit.
const FEW_INODES: u64 = 100_000;

/// drover's configuration.
pub(super) fn config(facts: &Facts, sheet: &mut Sheet) {
    let file = facts.config.file.as_ref().map(|file| file.display().to_string());
    sheet.area("config", file.unwrap_or_else(|| "no drover.toml; Nix's settings and defaults".to_owned()));
    for trouble in &facts.config.troubles {
        sheet.error("config", &trouble.message, "drover starts nothing with it", &trouble.fix);
    }
}

/// The flake.
pub(super) fn flake(facts: &Facts, sheet: &mut Sheet) {
    let Some(flake) = &facts.flake else {
        let why = "nothing of a flake was looked at";
        return sheet.note("flake", "there is no flake here", why, "drover doctor FLAKE");
    };
    let dir = quote(&flake.dir.to_string_lossy());
    if !flake.exists {
        sheet.area("flake", "none");
        let message = format!("there is no flake.nix in {}", flake.dir.display());
        return sheet.error("flake", message, "there is nothing to evaluate", format!("ls {dir}"));
    }
    let locked = if flake.locked { "locked" } else { "without a lock file" };
    sheet.area("flake", format!("{}, {locked}", flake.dir.display()));
    inputs(facts, flake, &dir, sheet);
}

fn inputs(facts: &Facts, flake: &Flake, dir: &str, sheet: &mut Sheet) {
    match &flake.inputs {
        Checked::Skipped => {}
        Checked::Silent(seconds) => {
            let message = format!("nix did not read flake.nix within {seconds} s");
            sheet.warning("flake", message, "its inputs were not looked at", format!("nix flake metadata {dir}"));
        }
        Checked::Failed(trouble) => {
            sheet.error("flake", &trouble.message, "nothing of it can be evaluated", &trouble.fix);
        }
        Checked::Found(inputs) if !inputs.is_empty() && !flake.locked => {
            let message = format!("there is no flake.lock for {}", plural(inputs.len(), "input", "inputs"));
            let why =
                "each run looks its inputs up anew and may build something else; drover never writes the lock file";
            let add =
                if facts.git.found().is_some() { format!(" && git -C {dir} add flake.lock") } else { String::new() };
            sheet.warning("flake", message, why, format!("nix flake lock {dir}{add}"));
        }
        Checked::Found(_) => {}
    }
}

/// The repository of the flake.
pub(super) fn git(facts: &Facts, sheet: &mut Sheet) {
    let Some(flake) = facts.flake.as_ref().filter(|flake| flake.exists) else { return };
    let dir = quote(&flake.dir.to_string_lossy());
    let git = match &facts.git {
        Checked::Skipped => {
            sheet.area("git", "no repository");
            let why =
                "Nix copies the whole directory into the store each time, and nothing can be compared with a base";
            let fix = format!("git -C {dir} init && git -C {dir} add .");
            return sheet.warning("git", "the flake is in no git repository", why, fix);
        }
        Checked::Silent(seconds) => {
            sheet.area("git", "no answer");
            let message = format!("git gave no answer within {seconds} s");
            return sheet.warning("git", message, "Nix asks git too", format!("git -C {dir} status"));
        }
        Checked::Failed(trouble) => {
            sheet.area("git", "not usable");
            return sheet.error("git", &trouble.message, "Nix cannot read the flake either", &trouble.fix);
        }
        Checked::Found(git) => git,
    };
    let history = if git.shallow { "shallow" } else { "whole history" };
    let tree = if git.changed == 0 { "clean" } else { "dirty" };
    sheet.area("git", format!("{tree}, {history}"));
    if !git.flake_tracked {
        let why = "Nix sees only files that git knows, so there is no flake for it";
        sheet.error("git", "git does not know flake.nix", why, format!("git -C {dir} add flake.nix"));
    }
    if flake.locked && !git.lock_tracked {
        let why = "Nix sees only files that git knows, so it looks all inputs up anew";
        sheet.warning("git", "git does not know flake.lock", why, format!("git -C {dir} add flake.lock"));
    }
    if git.shallow {
        let why = "there is no base to compare with, and the flake has no revCount";
        sheet.warning("git", "the clone is shallow", why, format!("git -C {dir} fetch --unshallow"));
    }
    if git.changed > 0 && git.has_commit {
        let message = format!("the tree is dirty: {}", plural(git.changed as usize, "file differs", "files differ"));
        let why = "it is evaluated as it is, and no recorded evaluation of the commit is used";
        sheet.note("git", message, why, format!("git -C {dir} status"));
    }
}

/// Room.
pub(super) fn disk(facts: &Facts, sheet: &mut Sheet) {
    if let Some((dir, why)) = &facts.tmp {
        let message = format!("TMPDIR {}: {why}", dir.display());
        sheet.error("disk", message, "evaluators and builds put their files there", "export TMPDIR=/tmp");
    }
    if facts.disks.is_empty() {
        return;
    }
    let summary = facts.disks.iter().map(|disk| format!("{} free for {}", size(disk.free), disk.uses.join(", ")));
    sheet.area("disk", summary.collect::<Vec<_>>().join(" · "));
    for disk in &facts.disks {
        room(disk, sheet);
    }
}

fn room(disk: &Disk, sheet: &mut Sheet) {
    let (uses, fix) = (disk.uses.join(", "), more_room(disk));
    let message = format!("{} of {} left for {uses} ({})", size(disk.free), size(disk.total), disk.dir.display());
    if disk.free < FULL {
        sheet.error("disk", message, "builds and downloads fail when it is full", &fix);
    } else if disk.free < TIGHT || (disk.free < PLENTY && disk.free < disk.total / 20) {
        sheet.warning("disk", message, "a large build or closure may not fit", &fix);
    }
    if let Some(files) = disk.inodes_free.filter(|files| *files < FEW_INODES) {
        let message = format!("room for {} more files for {uses} ({})", count(files as usize), disk.dir.display());
        let why = "a closure has hundreds of thousands; without inodes there is \"no space left\"";
        sheet.warning("disk", message, why, fix);
    }
}

fn more_room(disk: &Disk) -> String {
    let dir = quote(&disk.dir.to_string_lossy());
    match disk.uses.first() {
        Some(&"the store") => "nix-collect-garbage".to_owned(),
        Some(&"TMPDIR") => "export TMPDIR=DIR    with a directory on a larger disk".to_owned(),
        Some(&"records") => "drover --state-dir DIR    with a directory on a larger disk".to_owned(),
        _ => format!("df -h {dir}"),
    }
}

/// What is known of runs, and who shares it.
fn history(facts: &Facts, sheet: &mut Sheet) {
    let Some(runs) = facts.state.runs else { return };
    let shared = match &facts.state.shared {
        Some(url) => format!("shared unsigned at {url}"),
        None => "shared with nobody ([share] url, or carry the folder share/)".to_owned(),
    };
    sheet.area("history", format!("{}, {shared}", plural(runs, "run", "runs")));
}

/// Where records are kept.
pub(super) fn state(facts: &Facts, sheet: &mut Sheet) {
    let why = "a run records what it does, and does not start where it cannot";
    match (&facts.state.dir, &facts.state.problem) {
        (None, _) => {}
        (Some(dir), None) => {
            sheet.area("state", dir.display().to_string());
            history(facts, sheet);
        }
        (Some(dir), Some(problem)) => {
            sheet.area("state", dir.display().to_string());
            let message = format!("cannot keep records in {}: {problem}", dir.display());
            sheet.error("state", message, why, "drover run --state-dir DIR    or export DROVER_STATE_DIR=DIR");
        }
    }
}
