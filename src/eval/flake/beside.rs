//! What `nix flake check` says of a flake, so that it can be held against what drover says.

use super::{FlakeOptions, Locked};
use crate::eval::message;
use crate::eval::nix::{self, Nix};
use crate::process::ProcessError;

/// How `nix flake check` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfNix {
    /// It found nothing wrong.
    pub ok: bool,
    /// The first thing that it found wrong.
    pub error: Option<String>,
}

/// Which of its flags `nix flake check` gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// `--all-systems`.
    pub all_systems: bool,
    /// `--no-build`.
    pub no_build: bool,
}

/// Runs `nix flake check` to its end, on what was locked.
///
/// # Errors
/// If it cannot be started or read.
pub async fn check(nix: &Nix, options: &FlakeOptions, locked: &Locked, flags: Flags) -> Result<OfNix, ProcessError> {
    let chosen = [
        (flags.all_systems, "--all-systems"),
        (flags.no_build, "--no-build"),
        (options.impure, "--impure"),
        // Whatever had to be locked is in the lock file that it gets.
        (true, "--no-write-lock-file"),
    ];
    let cmd = nix
        .cmd(&["flake", "check", "--keep-going"])
        .args(chosen.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag))
        .args(locked.args())
        .args(["--", &locked.locked_ref]);
    let ran = nix::run(&cmd).await?;
    let error = (!ran.ok).then(|| {
        let first = ran.errors().next().map(str::to_owned);
        message::explain(&first.unwrap_or_else(|| ran.all()), |_| false).message
    });
    Ok(OfNix { ok: ran.ok, error })
}
