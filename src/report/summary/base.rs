//! What attrs are compared with, and how one differs.

use crate::event::{Difference, Moment, Text};

/// What attrs are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::BaseKnown")]
pub struct Base {
    pub at: Moment,
    pub label: Text,
    pub rev: Option<Text>,
    pub locked: Text,
    pub recorded: bool,
    pub attrs: u32,
    pub failed: u32,
}

/// How far the evaluation of a base is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::BaseProgress")]
pub struct BaseProgress {
    pub since: Moment,
    pub label: Text,
    pub done: u32,
    pub total: u32,
}

/// How an attr compares with the base.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::AttrCompared")]
pub struct Compared {
    pub difference: Difference,
    pub revision_only: bool,
    pub same_outputs: bool,
    pub base_drv: Option<Text>,
    /// Of [`Fact::ChangeExplained`](crate::event::Fact::ChangeExplained).
    pub why: Option<Text>,
}
