//! Which errors are the source's own: those that come again wherever and whenever the same source is evaluated, and may
//! therefore be remembered. Decided by class and by the text of Nix's message; in doubt, an attr is asked again.

use crate::event::{Class, Failure};

/// What stands in messages that another time, another machine or another store may spare: in lower case.
const PASSING: [&str; 63] = [
    // Fetching.
    "unable to download",
    "failed to download",
    "download of",
    "could not resolve",
    "couldn't resolve",
    "couldn't connect",
    "could not connect",
    "cannot connect",
    "failed to connect",
    "name resolution",
    "network is unreachable",
    "no route to host",
    "connection ",
    "timed out",
    "timeout",
    "ssl ",
    "tls ",
    "certificate",
    "http error",
    "rate limit",
    "cannot fetch",
    "failed to fetch",
    "unable to fetch",
    "fetching ",
    "program 'git'",
    "git repository",
    "git revision",
    "libgit2",
    "nar hash mismatch",
    "hash mismatch",
    "mismatch in field",
    "attribute mismatch",
    "offline",
    "to create a lock",
    "failed to open archive",
    // A store that lacks something, and import from derivations.
    "imports from ",
    "cannot build",
    "builder for",
    "build of",
    "failed to build",
    "building '",
    "is required to build",
    "dependencies of derivation",
    "substitut",
    "is not valid",
    "lacks a signature",
    "lacks a valid signature",
    "nix daemon",
    "unexpected eof",
    "unexpected end-of-file",
    "broken pipe",
    "database",
    // The machine.
    "out of memory",
    "cannot allocate memory",
    "bad_alloc",
    "no space left",
    "disk quota",
    "too many open files",
    "resource temporarily unavailable",
    "input/output error",
    "permission denied",
    "operation not permitted",
    "read-only file system",
];

/// What stands in messages of drover and of Nix about a process that broke off, or about this work tree alone.
const OF_THE_PROCESS: [&str; 6] = [
    "the evaluator died",
    "the evaluator's answer",
    "gave neither an answer nor an error",
    "interrupted by the user",
    "killed",
    "git add ",
];

/// Whether an error follows from the source alone.
///
/// Not those of fetching, of building while evaluating, of memory and of signals. A stack overflow depends on the limit
/// of the stack; one that Nix counted (`max-call-depth`, which is a part of the fingerprint) does not.
#[must_use]
pub fn is_sources_own(failure: &Failure) -> bool {
    if failure.class != Class::Eval {
        return false;
    }
    let text = failure.message.to_lowercase();
    if text.contains("stack overflow") && !text.contains("max-call-depth exceeded") {
        return false;
    }
    !PASSING.iter().chain(&OF_THE_PROCESS).any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(class: Class, message: &str) -> bool {
        is_sources_own(&Failure::new(class, message))
    }

    /// As Nix 2.34.8 and 2.26.3 say them.
    #[test]
    fn errors_of_the_source() {
        for message in [
            "this host was retired in May",
            "evaluation aborted with the following error message: 'this must never happen'",
            "assertion '((1 + 1) == 3)' failed: an integer with value '2' is not equal to an integer with value '3'",
            "attribute 'opensll' missing\nDid you mean openssl?",
            "cannot coerce an integer to a string: 1",
            "infinite recursion encountered",
            "stack overflow; max-call-depth exceeded",
            "syntax error, unexpected '}', expecting ';'",
            "path '/nix/store/rgkcah4zbccwzp7zqgcsbpn1mk3fk35k-source/none.nix' does not exist",
            "access to absolute path '/etc' is forbidden in pure evaluation mode (use '--impure' to override)",
            "experimental Nix feature 'ca-derivations' is disabled; add '--extra-experimental-features ca-derivations' to enable it",
            "undefined variable 'lib'",
            "function 'anonymous lambda' called without required argument 'x'",
            "Package ‘openssl-1.1.1w’ in /nix/store/x-source/pkgs/openssl.nix:1 is marked as insecure, refusing to evaluate.",
        ] {
            assert!(own(Class::Eval, message), "{message}");
        }
    }

    #[test]
    fn errors_that_may_pass() {
        for message in [
            // Fetching.
            "unable to download 'http://127.0.0.1:1/x': Could not connect to server (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Could not connect to server",
            "unable to download 'http://nowhere.invalid/x': Couldn't resolve host name (6) Could not resolve host: nowhere.invalid",
            "unable to download 'https://api.github.com/x': HTTP error 403\n\nresponse body:\n\n{\"message\":\"API rate limit exceeded\"}",
            "program 'git' failed with exit code 128",
            "Cannot find Git revision '1' in ref 'x' of repository 'y'",
            "NAR hash mismatch in input 'path:/x', expected 'sha256-a', got 'sha256-b'",
            "hash mismatch in file downloaded from 'http://x':\n  specified: sha256:a\n  got:       sha256:b",
            // Import from derivations.
            "it imports from derivation name.nix, which --no-ifd forbids\n/nix/store/x-name.nix.drv",
            "its imports from derivations are nested more than 8 deep: a, b",
            "cannot build '/nix/store/x-name.nix.drv^out' during evaluation because the option 'allow-import-from-derivation' is disabled",
            "builder for '/nix/store/x-shared-library-1.0.drv' failed with exit code 1",
            "Cannot build '/nix/store/x-shared-library-1.0.drv'.\nReason: builder failed with exit code 1.",
            "a 'riscv64-linux' with features {} is required to build '/nix/store/x.drv', but I am a 'x86_64-linux' with features {}",
            "path '/nix/store/x-source' is not valid",
            // Memory, signals, the machine.
            "stack overflow (possible infinite recursion)",
            "out of memory",
            "the evaluator died over this attr, twice: it was killed by signal 9",
            "interrupted by the user",
            "Nix daemon disconnected unexpectedly (maybe it crashed?)",
            "writing to file: No space left on device",
            "opening file '/nix/store/x': Permission denied",
            // This work tree.
            "path '/nix/store/x-source/new.nix' does not exist\nit is there, but Nix sees only what git tracks: git add new.nix",
        ] {
            assert!(!own(Class::Eval, message), "{message}");
        }
        for class in [Class::Oom, Class::Internal, Class::Network, Class::Signal, Class::Build, Class::Cancelled] {
            assert!(!own(class, "attribute 'x' missing"), "{class:?}");
        }
    }
}
