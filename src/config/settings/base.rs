//! What attrs are compared with.

use super::super::file::SkipTable;
use super::super::{Env, File, PullRequest};
use super::Words;
use crate::error::{Error, Result};

/// What attrs are compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseSettings {
    /// `--base REF`: it is evaluated if it has no record.
    pub asked: Option<String>,
    /// The pull request that this runs for: what it is compared with is used if there is a record of it.
    pub pull_request: Option<PullRequest>,
    /// `--ignore-revision`: both sides are evaluated with the same revision and time.
    pub ignore_revision: bool,
    /// `[skip]`: globs of paths whose changes affect nothing, as somebody declares.
    pub skip: Vec<String>,
}

impl BaseSettings {
    /// What flags, the environment and the file say.
    pub(super) fn of(words: &Words, env: &Env, file: &File) -> Result<Self> {
        Ok(Self {
            asked: words.base.clone(),
            // A plan has been compared when it was made.
            pull_request: env.pull_request().filter(|_| !words.no_base && words.plan.is_none()),
            ignore_revision: words.ignore_revision,
            skip: skip(&file.skip)?,
        })
    }
}

/// The globs of `[skip]`, which have to be globs.
fn skip(table: &SkipTable) -> Result<Vec<String>> {
    for glob in &table.paths {
        if let Err(error) = globset::Glob::new(glob) {
            let message = format!("drover.toml: cannot read the glob '{glob}' of [skip]: {}", error.kind());
            return Err(Error::usage(message).hint("paths = [\"docs/**\", \"*.md\"]"));
        }
    }
    Ok(table.paths.clone())
}
