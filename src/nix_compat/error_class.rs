//! What a failed build means: Nix's status and text → drover's class, and the one line that says why.
//!
//! The texts differ between versions (Nix 2.29 reworded most); those in the tests are real ones of 2.26.3 and 2.34.8.
//! Only what Nix itself says is looked at, never the builder's log lines that it quotes, but for one case (downloads).

use super::daemon::{BuildResult, BuildStatus, DaemonError};
use crate::event::Class;

/// The limits of a build in seconds; 0 or `None` is none. Nix 2.34 says the same for both, so the number decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole build.
    pub timeout: Option<u64>,
    /// Without output.
    pub max_silent_time: Option<u64>,
}

/// The class of a failed build; `None` if it did not fail.
#[must_use]
pub fn of_result(result: &BuildResult, limits: Limits) -> Option<Class> {
    if result.status.is_success() { None } else { Some(of_status(result.status, &result.error_text(), limits)) }
}

/// The class of a status that is no success, with its text (without colours).
#[must_use]
pub fn of_status(status: BuildStatus, text: &str, limits: Limits) -> Class {
    let said = without_log(text);
    if notes_full_disk(text) {
        return Class::DiskFull;
    }
    match status {
        BuildStatus::InputRejected => Class::NoBuilder,
        BuildStatus::LogLimitExceeded => Class::LogLimit,
        BuildStatus::DependencyFailed | BuildStatus::NoSubstituters => Class::Dependency,
        BuildStatus::TimedOut => of_timeout(said, limits),
        BuildStatus::OutputRejected => of_rejected(said),
        BuildStatus::PermanentFailure if said.contains("due to signal ") => Class::Signal,
        BuildStatus::PermanentFailure | BuildStatus::CachedFailure | BuildStatus::NotDeterministic => Class::Build,
        BuildStatus::TransientFailure if said.contains("due to signal ") => Class::Signal,
        // A derivation that may use the network. Why it failed is only in its log.
        BuildStatus::TransientFailure if is_network(text) => Class::Network,
        BuildStatus::TransientFailure | BuildStatus::MiscFailure => of_text(said),
        BuildStatus::Built
        | BuildStatus::Substituted
        | BuildStatus::AlreadyValid
        | BuildStatus::ResolvesToAlreadyValid => Class::Internal,
    }
}

/// The class of an operation that did not happen.
#[must_use]
pub fn of_error(error: &DaemonError) -> Class {
    match error {
        DaemonError::Refused { error, .. } => of_text(&error.text()),
        _ => Class::BuilderLost,
    }
}

/// What the text alone tells.
fn of_text(text: &str) -> Class {
    let has = |part: &str| text.contains(part);
    if is_store_gone(text) {
        Class::BuilderLost
    } else if has("No space left on device") || has("Disk quota exceeded") || has("database or disk is full") {
        Class::DiskFull
    } else if has("is required to build") || has("missing system features") || has("platform mismatch") {
        Class::NoBuilder
    } else if has("lacks a signature by a trusted key") || has("lacks a valid signature") {
        Class::Signature
    } else if has("you are not privileged") || has("requires trusted") {
        Class::Policy
    } else if has("is not valid")
        || has("there is no substituter")
        || has("cannot be created")
        || has("some dependencies of")
        || has("Dependency failed")
    {
        Class::Dependency
    } else if has("interrupted by the user") {
        Class::Cancelled
    } else if is_network(text) {
        Class::Network
    } else {
        Class::Build
    }
}

/// Whether a Nix says that the daemon behind it has gone, which is nobody's fault who asked it for anything. Only what
/// Nix itself says may be asked about, no log of a builder.
#[must_use]
pub fn is_store_gone(said: &str) -> bool {
    let said = said.trim();
    let said = said.strip_prefix("error:").unwrap_or(said).trim();
    let last = said.lines().last().unwrap_or_default();
    let ends = |line: &str, why: &str| line.ends_with(why) && !line.contains('\n');
    let broken = |line: &str| {
        (line.starts_with("write of ") || line.starts_with("read of "))
            && (ends(line, " bytes: Broken pipe") || ends(line, " bytes: Connection reset by peer"))
    };
    said.contains("Nix daemon disconnected unexpectedly")
        || said.contains("cannot connect to socket at '")
        || said.contains("cannot connect to daemon at '")
        || said.contains("opening a connection to remote store '") && ends(last, "' previously failed")
        || broken(said)
}

fn of_rejected(said: &str) -> Class {
    let has = |part: &str| said.contains(part);
    if has("failed to produce output") {
        Class::NoOutput
    } else if has("hash mismatch") {
        Class::HashMismatch
    } else if has("not allowed to refer to") || has("illegal reference") || has("disallowed") {
        Class::DisallowedReference
    } else {
        Class::Build
    }
}

fn of_timeout(said: &str, limits: Limits) -> Class {
    if said.contains("of silence") {
        return Class::Silent;
    }
    let seconds = said
        .rsplit_once("timed out after ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .and_then(|number| number.parse::<u64>().ok());
    match seconds {
        Some(_) if seconds == limits.timeout => Class::Timeout,
        Some(_) if seconds == limits.max_silent_time => Class::Silent,
        _ => Class::Timeout,
    }
}

/// Whether Nix found little room in the store after the build. It says so below the log lines that it quotes, which
/// start with `>`.
fn notes_full_disk(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("note: ") && line.contains("lack of free disk space"))
}

/// Whether this is how curl, git and Nix say that they could not reach something.
fn is_network(text: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "unable to download",
        "Could not resolve host",
        "Couldn't resolve host",
        "Temporary failure in name resolution",
        "Failed to connect to",
        "Connection refused",
        "Connection timed out",
        "Connection reset by peer",
        "Network is unreachable",
    ];
    SIGNS.iter().any(|sign| text.contains(sign))
}

/// The text up to the log lines that Nix quotes.
fn without_log(text: &str) -> &str {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let words = line.trim();
        let quotes = words.starts_with("last ") || words.starts_with("Last ");
        if quotes && words.ends_with("log lines:") {
            return &text[..at];
        }
        at += line.len();
    }
    text
}

/// Why a build failed, in one line where Nix has one, without the derivation's own path and without its log.
#[must_use]
pub fn reason(text: &str) -> String {
    let reason = reason_of(text);
    if notes_full_disk(text) { format!("{reason}; the disk of the store is full") } else { reason }
}

fn reason_of(text: &str) -> String {
    let said = without_log(text).trim();
    let said = said.strip_prefix("error:").unwrap_or(said).trim_start();
    if let Some(rest) =
        said.split_once("\nReason: ").filter(|_| said.starts_with("Cannot build ")).map(|(_, rest)| rest)
    {
        let rest = rest.split("\nOutput paths:").next().unwrap_or(rest);
        return rest.trim_end().trim_end_matches('.').to_owned();
    }
    // `builder for '/nix/store/….drv' failed with exit code 3;`
    if let Some((_, rest)) = said.strip_prefix("builder for '").and_then(|rest| rest.split_once("' ")) {
        return format!("builder {}", rest.trim_end_matches([';', ' ', '\n']));
    }
    if let Some((_, rest)) = said.split_once(" from in-memory derivation ") {
        return rest.trim_end().to_owned();
    }
    said.trim_end_matches(';').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits = Limits { timeout: None, max_silent_time: None };

    /// Status, text as Nix sent it (colours taken out), class, reason.
    const REAL: [(BuildStatus, &str, Class, &str); 23] = [
        // Nix 2.34.8
        (
            BuildStatus::PermanentFailure,
            "Cannot build '/nix/store/451g0b5k9d22fw6m35ldg173jn990sic-fail.drv'.\nReason: builder failed with exit code 3.\nOutput paths:\n  /nix/store/x4bd0nq8xrh9rlrg92zwvxfriw1rxja3-fail\nLast 2 log lines:\n> one\n> No space left on device due to signal 9\nFor full logs, run:\n  nix log /nix/store/451g0b5k9d22fw6m35ldg173jn990sic-fail.drv",
            Class::Build,
            "builder failed with exit code 3",
        ),
        (
            BuildStatus::PermanentFailure,
            "Cannot build '/nix/store/8hm7whgr9jhby224gi2x8nw6dvfz1c96-signal.drv'.\nReason: builder failed due to signal 9 (Killed).\nOutput paths:\n  /nix/store/lbs33hgzapfaar4ra4w757fsxp581pha-signal",
            Class::Signal,
            "builder failed due to signal 9 (Killed)",
        ),
        (
            BuildStatus::OutputRejected,
            "builder for '/nix/store/rs6m6pqbb5vd96vsj4vqmmybcsg344kg-noout.drv' failed to produce output path for output 'out' at \"/nix/store/p33bgllxb12anj8xxhvf3hbq21hlvafh-noout\"",
            Class::NoOutput,
            "builder failed to produce output path for output 'out' at \"/nix/store/p33bgllxb12anj8xxhvf3hbq21hlvafh-noout\"",
        ),
        (
            BuildStatus::OutputRejected,
            "hash mismatch in fixed-output derivation '/nix/store/xz-fodbad.drv':\n  specified: sha256-j0=\n     got:    sha256-qC=",
            Class::HashMismatch,
            "hash mismatch in fixed-output derivation '/nix/store/xz-fodbad.drv':\n  specified: sha256-j0=\n     got:    sha256-qC=",
        ),
        (
            BuildStatus::TransientFailure,
            "Cannot build '/nix/store/kh-fodfail.drv'.\nReason: builder failed with exit code 22.\nOutput paths:\n  /nix/store/ha-fodfail",
            Class::Build,
            "builder failed with exit code 22",
        ),
        (
            BuildStatus::TransientFailure,
            "Cannot build '/nix/store/kh-src.drv'.\nReason: builder failed with exit code 1.\nOutput paths:\n  /nix/store/ha-src\nLast 1 log lines:\n> curl: (6) Could not resolve host: example.org",
            Class::Network,
            "builder failed with exit code 1",
        ),
        (
            BuildStatus::InputRejected,
            "Cannot build '/nix/store/sq26ahhc6v3b6yyn5b7xykj7gxn4gzdj-platform.drv'.\nReason: platform mismatch\nRequired system: 'mips-linux'\nCurrent system: 'x86_64-linux'",
            Class::NoBuilder,
            "platform mismatch\nRequired system: 'mips-linux'\nCurrent system: 'x86_64-linux'",
        ),
        (
            BuildStatus::InputRejected,
            "Cannot build '/nix/store/5p-features.drv'.\nReason: missing system features\nRequired features: {nope}\nAvailable features: {benchmark, big-parallel, kvm, nixos-test, uid-range}",
            Class::NoBuilder,
            "missing system features\nRequired features: {nope}\nAvailable features: {benchmark, big-parallel, kvm, nixos-test, uid-range}",
        ),
        (
            BuildStatus::OutputRejected,
            "output '/nix/store/5h-disallowed' is not allowed to refer to the following paths:\n  /nix/store/zz-dep",
            Class::DisallowedReference,
            "output '/nix/store/5h-disallowed' is not allowed to refer to the following paths:\n  /nix/store/zz-dep",
        ),
        (
            BuildStatus::MiscFailure,
            "error:\n       … while parsing derivation '/nix/store/xq-toobig.drv'\n\n       error: Expected JSON value to be of type 'object' but it is of type 'number': 1",
            Class::Build,
            "… while parsing derivation '/nix/store/xq-toobig.drv'\n\n       error: Expected JSON value to be of type 'object' but it is of type 'number': 1",
        ),
        (BuildStatus::TimedOut, "timed out after 1 seconds", Class::Timeout, "timed out after 1 seconds"),
        (
            BuildStatus::LogLimitExceeded,
            "building derivation '/nix/store/g8-log.drv' killed after writing more than 10 bytes of log output",
            Class::LogLimit,
            "building derivation '/nix/store/g8-log.drv' killed after writing more than 10 bytes of log output",
        ),
        // Nix 2.26.3
        (
            BuildStatus::PermanentFailure,
            "builder for '/nix/store/rb2pimx452bdv52qnn2wadabhr4nbwn7-fail.drv' failed with exit code 3;\nlast 2 log lines:\n> one\n> two\nFor full logs, run:\n  nix log /nix/store/rb2pimx452bdv52qnn2wadabhr4nbwn7-fail.drv",
            Class::Build,
            "builder failed with exit code 3",
        ),
        (
            BuildStatus::PermanentFailure,
            "builder for '/nix/store/855m4zmrxavb2xqs779j2i8l2mghmf7f-signal.drv' failed due to signal 9 (Killed)",
            Class::Signal,
            "builder failed due to signal 9 (Killed)",
        ),
        (
            BuildStatus::OutputRejected,
            "builder for '/nix/store/7g-noout.drv' failed to produce output path for output 'out' at '/nix/store/z4-noout'",
            Class::NoOutput,
            "builder failed to produce output path for output 'out' at '/nix/store/z4-noout'",
        ),
        (
            BuildStatus::MiscFailure,
            "error: a 'mips-linux' with features {} is required to build '/nix/store/m2-platform.drv', but I am a 'x86_64-linux' with features {benchmark, big-parallel, kvm, nixos-test, uid-range}",
            Class::NoBuilder,
            "a 'mips-linux' with features {} is required to build '/nix/store/m2-platform.drv', but I am a 'x86_64-linux' with features {benchmark, big-parallel, kvm, nixos-test, uid-range}",
        ),
        (
            BuildStatus::TimedOut,
            "building of '/nix/store/s5-timeout.drv^out' from in-memory derivation timed out after 1 seconds",
            Class::Timeout,
            "timed out after 1 seconds",
        ),
        (
            BuildStatus::TimedOut,
            "building of '/nix/store/62-silent.drv^out' from in-memory derivation timed out after 1 seconds of silence",
            Class::Silent,
            "timed out after 1 seconds of silence",
        ),
        (
            BuildStatus::LogLimitExceeded,
            "building of '/nix/store/7r-log.drv^out' from in-memory derivation killed after writing more than 10 bytes of log output",
            Class::LogLimit,
            "killed after writing more than 10 bytes of log output",
        ),
        // From Nix's sources, both lines.
        (
            BuildStatus::TransientFailure,
            "builder for '/nix/store/7r-x.drv' failed with exit code 1;\nlast 1 log lines:\n> sh: echo: I/O error\nFor full logs, run:\n  nix log /nix/store/7r-x.drv\nnote: build failure may have been caused by lack of free disk space",
            Class::DiskFull,
            "builder failed with exit code 1; the disk of the store is full",
        ),
        (
            BuildStatus::PermanentFailure,
            "builder for '/nix/store/7r-x.drv' failed with exit code 1;\nlast 1 log lines:\n> note: lack of free disk space",
            Class::Build,
            "builder failed with exit code 1",
        ),
        (
            BuildStatus::MiscFailure,
            "error: writing to file: No space left on device",
            Class::DiskFull,
            "writing to file: No space left on device",
        ),
        (
            BuildStatus::MiscFailure,
            "error: committing transaction: database or disk is full, database or disk is full (in '/nix/var/nix/db/db.sqlite')",
            Class::DiskFull,
            "committing transaction: database or disk is full, database or disk is full (in '/nix/var/nix/db/db.sqlite')",
        ),
    ];

    #[test]
    fn a_daemon_behind_a_nix_that_dies_is_no_verdict() {
        for text in [
            "Nix daemon disconnected unexpectedly (maybe it crashed?)",
            "cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Connection refused",
            "error: write of 72 bytes: Broken pipe",
            "read of 32768 bytes: Connection reset by peer",
            "write of 8192 bytes: Connection reset by peer",
            "opening a connection to remote store 'unix:///nix/var/nix/daemon-socket/socket' previously failed",
        ] {
            assert!(is_store_gone(text), "{text}");
            assert_eq!(of_status(BuildStatus::MiscFailure, text, NONE), Class::BuilderLost, "{text}");
        }
        let text = "builder for '/nix/store/7r-x.drv' failed with exit code 1;\nlast 1 log lines:\n> write of 72 bytes: Broken pipe";
        assert_eq!(of_status(BuildStatus::PermanentFailure, text, NONE), Class::Build);
        assert!(!is_store_gone("write of my heart: Broken pipe, said the smoker"));
    }

    #[test]
    fn real_messages_have_their_class_and_reason() {
        for (status, text, class, why) in REAL {
            assert_eq!(of_status(status, text, NONE), class, "{text}");
            assert_eq!(reason(text), why);
        }
    }

    #[test]
    fn where_nix_says_the_same_the_limit_tells_silence_from_timeout() {
        let text = "timed out after 60 seconds";
        for (timeout, max_silent_time, class) in [
            (Some(3600), Some(60), Class::Silent),
            (Some(60), Some(3600), Class::Timeout),
            (Some(60), Some(60), Class::Timeout),
            (None, None, Class::Timeout),
        ] {
            assert_eq!(of_status(BuildStatus::TimedOut, text, Limits { timeout, max_silent_time }), class);
        }
    }
}
