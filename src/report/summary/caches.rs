//! What is known of a cache, and of what is pushed to it.

use crate::event::{Moment, Pushed, Text};

/// A cache.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields of Fact::CacheReady")]
pub struct Cache {
    pub name: Text,
    pub url: Text,
    pub pull: bool,
    pub push: bool,
    pub optional: bool,
    /// `--push-to` named it.
    pub by_name: bool,
    pub sick: bool,
    /// What it answered, if that was said.
    pub asked: Option<Asked>,
    /// Requests that were made again, if any.
    pub repeated: Option<Repeated>,
}

/// Requests to a cache that were made again.
#[derive(Debug, Clone, PartialEq)]
pub struct Repeated {
    /// When that was first said, and when last.
    pub span: (Moment, Moment),
    /// Why most of them were: `HTTP 429`.
    pub reason: Text,
    /// How many.
    pub requests: u32,
    /// Seconds that were waited before, all of them together.
    pub waited: f64,
}

/// What a cache answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of Fact::CacheAsked")]
pub struct Asked {
    pub present: u32,
    pub absent: u32,
    pub untrusted: u32,
    pub no_answer: u32,
}

/// The push of one path to one cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Bytes as NAR.
    pub nar_size: u64,
    /// When it was queued.
    pub queued: Moment,
    /// When the upload began.
    pub started: Option<Moment>,
    /// When and how it ended.
    pub ended: Option<(Moment, Pushed)>,
}

/// What was read back from a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// When.
    pub at: Moment,
    /// Paths that are there.
    pub present: u32,
    /// Paths that are not.
    pub missing: Vec<Text>,
}

/// What caches spare a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(missing_docs, reason = "the fields of Fact::CachesSpared")]
pub struct Spared {
    pub drvs: u32,
    pub known: u32,
    pub seconds: f64,
    pub paths: u32,
    pub nar_size: u64,
}
