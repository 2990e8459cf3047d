//! What Nix says where a flake cannot be locked, and what to do about it.

use std::path::PathBuf;

use super::local_path;
use super::lock::reference;
use crate::error::{Error, Fault};
use crate::eval::FlakeOptions;
use crate::eval::git::{self, Look};
use crate::eval::message;
use crate::eval::nix::{Nix, Ran};
use crate::nix_compat::error_class;
use crate::process::ProcessError;

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
    if error_class::is_store_gone(first) {
        return Error::new(Fault::Unreachable, whole).hint("nix store info    shows whether the daemon answers");
    }
    if has(&["is not owned by current user", "dubious ownership", "safe.directory"]) {
        // Nix names the directory; what was typed may be relative.
        let named = all.split_once("repository path '").and_then(|(_, rest)| rest.split('\'').next());
        let tree = named.map_or_else(|| reference.to_owned(), str::to_owned);
        return Error::new(Fault::Usage, whole).hint(format!("git config --global --add safe.directory {tree}"));
    }
    let not_a_flake = [
        "could not find a flake.nix",
        "does not contain a 'flake.nix'",
        "does not contain a '/flake.nix'",
        // It looks no further up than to where something is mounted.
        "unable to find a flake before encountering filesystem boundary",
    ];
    if has(&not_a_flake) {
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

/// The error of a refused call, with a look at what git does not track.
pub(super) async fn refused(nix: &Nix, options: &FlakeOptions, ran: &Ran) -> LockError {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_end_in_something_to_type() {
        for (all, hint) in [
            ("error: could not find a flake.nix file", "nix flake init"),
            ("error: unable to find a flake before encountering filesystem boundary at '/'", "nix flake init"),
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
