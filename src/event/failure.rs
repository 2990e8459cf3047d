//! What went wrong, and of which class.

use serde::{Deserialize, Serialize};

use super::Text;

/// The closed list of error classes (design §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub enum Class {
    Eval,
    Oom,
    Build,
    Signal,
    NoOutput,
    HashMismatch,
    DisallowedReference,
    Timeout,
    Silent,
    LogLimit,
    DiskFull,
    NoBuilder,
    BuilderLost,
    Dependency,
    Network,
    Cache,
    Signature,
    Cancelled,
    Policy,
    Internal,
}

/// Why something did not work, as far as a person can act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its class.
    pub class: Class,
    /// One or more lines, without colour; no trailing newline.
    pub message: Text,
    /// `file:line:column` relative to the flake, where Nix says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Text>,
}

impl Failure {
    /// A failure that has no position.
    #[must_use]
    pub fn new(class: Class, message: impl Into<Text>) -> Self {
        Self { class, message: message.into(), position: None }
    }
}
