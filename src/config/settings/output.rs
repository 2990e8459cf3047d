//! What is shown and written.

use std::path::PathBuf;

use super::Words;
use crate::error::{Error, Result};

/// What is shown and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSettings {
    /// One JSON document on stdout.
    pub json: bool,
    /// Output paths on stdout.
    pub print_out_paths: bool,
    /// Log lines of builds on the screen.
    pub logs: bool,
    /// How much more is said.
    pub verbose: u8,
    /// Where the document of `--json` is written as well.
    pub result_file: Option<PathBuf>,
    /// A second place for the events.
    pub events: Option<PathBuf>,
    /// Where records are kept.
    pub state_dir: PathBuf,
    /// Where that is kept which can be had again; `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
}

impl OutputSettings {
    /// What flags say; records are kept in this directory.
    pub(super) fn of(words: &Words, state_dir: PathBuf, cache_dir: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            json: words.json,
            print_out_paths: words.print_out_paths,
            logs: words.print_build_logs,
            verbose: words.verbose,
            result_file: result_file(words.result_file.clone(), words.result_format.as_deref())?,
            events: words.events.clone(),
            state_dir,
            cache_dir,
        })
    }
}

/// `--result-file` holds what `--result-format` says; there is one format so far.
fn result_file(file: Option<PathBuf>, format: Option<&str>) -> Result<Option<PathBuf>> {
    match (&file, format) {
        (Some(_), None | Some("json")) | (None, _) => Ok(file),
        (Some(_), Some(other)) => Err(Error::usage(format!("there is no --result-format '{other}' yet, only 'json'"))
            .hint("drover run --result-file FILE --result-format json")),
    }
}
