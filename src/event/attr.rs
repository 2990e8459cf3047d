//! What is said of an attr: what its evaluation gave, how it compares with the base, and what became of it.

use serde::{Deserialize, Serialize};

use super::{Failure, OutputPath, Text};
use crate::id::System;

/// The reason of an attr that is skipped because the run was stopped. Any other reason of a skipped attr says why it
/// was left out.
pub const STOPPED: &str = "the run was stopped";

/// How an attr's evaluation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Evaluated {
    /// It has a derivation.
    Drv {
        /// Absolute path of the .drv.
        drv: Text,
        /// The derivation's `name`.
        name: Text,
        /// Its `system`.
        system: System,
        /// The outputs that the attr asks for.
        outputs: Vec<OutputPath>,
        /// Where it is defined, `file:line` and maybe a column; relative to the flake, if it lies there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<Text>,
    },
    /// It does not evaluate.
    Failed(Failure),
    /// It is fine and has nothing to build (an app whose program is a plain source file).
    Nothing {
        /// Why, for people.
        reason: Text,
    },
    /// `nix flake check` does not refuse it, but something is wrong with it.
    Finding(Failure),
}

/// What is known of an attr in the end (design §2, `--json`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub enum Status {
    Built,
    Cached,
    Valid,
    Failed,
    EvalFailed,
    Skipped,
    Unaffected,
    ToBuild,
    ToFetch,
    /// Nothing was to be built for it: it is as it should be, or what is wrong with it does not count.
    Checked,
}

/// How an attr compares with the base: by its drv.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The base has no such attr.
    Added,
    /// Only the base has it.
    Removed,
    /// Another drv.
    Changed,
    /// The same drv.
    Unchanged,
    /// It does not evaluate, and did on the base or was not there.
    NewlyBroken,
    /// It does not evaluate, and did not on the base.
    StillBroken,
    /// It evaluates, and did not on the base.
    Fixed,
}

/// What sort of thing makes two derivations differ. A closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// Another version of a package, or another package in its place.
    Dependency,
    /// A patch: what is named in `patches`.
    Patch,
    /// A source file or directory.
    Source,
    /// The program that builds it.
    Builder,
    /// A variable of its environment, or a key of its structured attrs.
    Variable,
    /// The arguments of the builder.
    Args,
    /// Its outputs: their names, or the hash of a fixed output.
    Output,
    /// The platform.
    System,
    /// It needs something that it did not need before.
    AddedInput,
    /// It does not need something any more.
    RemovedInput,
    /// Nothing but the revision or the source tree that is written into it.
    Revision,
    /// A .drv of either side cannot be read.
    Unreadable,
}
