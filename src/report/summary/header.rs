//! How a run began, where, and with which flake.

use crate::event::{Moment, Text};
use crate::id::RunId;

/// How a run began.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::RunStarted")]
pub struct Header {
    pub run: RunId,
    pub drover: Text,
    pub command: Text,
    pub what: Vec<Text>,
    pub started: jiff::Timestamp,
    pub nix: Text,
}

/// The locked flake.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::FlakeLocked")]
pub struct Flake {
    pub at: Moment,
    pub original: Text,
    pub locked: Text,
    pub rev: Option<Text>,
    pub dirty_files: Option<u32>,
    pub recorded: bool,
}

/// Where the run is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of Fact::RunPlaced")]
pub struct Placed {
    pub forge: Option<Text>,
    pub repository: Option<Text>,
    pub branch: Option<Text>,
    pub change: Option<Text>,
    pub url: Option<Text>,
}

impl Header {
    /// Whether nothing is built: the run ends with what would be done.
    #[must_use]
    pub fn is_plan(&self) -> bool {
        matches!(&*self.command, "plan" | "matrix" | "affected")
    }
}
