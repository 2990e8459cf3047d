//! What is shown and written.

use std::path::{Path, PathBuf};

use super::{Env, Words};
use crate::config::{Collector, Forge, Whereabouts};
use crate::error::{Error, Result};

/// The page about a run, in the directory that is named for it.
const REPORT: &str = "report.html";

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
    /// A file that the run leaves.
    pub result_file: Option<ResultFile>,
    /// Where a page about the run is written, for a browser.
    pub report: Option<PathBuf>,
    /// Where spans of the run are sent to.
    pub collector: Option<Collector>,
    /// The trace that the run is a part of, as whoever started it says (`TRACEPARENT`).
    pub trace_parent: Option<String>,
    /// The CI system that reads what is shown.
    pub forge: Option<Forge>,
    /// Of what the run is.
    pub whereabouts: Whereabouts,
    /// Where a page about the run is added, in Markdown.
    pub step_summary: Option<PathBuf>,
    /// Where what later steps may ask for is added, as `NAME=VALUE`.
    pub step_output: Option<PathBuf>,
    /// A second place for the events.
    pub events: Option<PathBuf>,
    /// Where records are kept.
    pub state_dir: PathBuf,
    /// Where that is kept which can be had again; `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
}

/// A file about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultFile {
    /// Where.
    pub path: PathBuf,
    /// What it holds.
    pub format: ResultFormat,
}

/// What a file about a run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultFormat {
    /// The document of `--json`.
    Json,
    /// JUnit's XML.
    Junit,
}

impl OutputSettings {
    /// What flags and the CI system say of a flake in this directory; records are kept in that one.
    pub(super) fn of(words: &Words, env: &Env, flake: Option<&Path>, state_dir: PathBuf) -> Result<Self> {
        Ok(Self {
            json: words.json,
            print_out_paths: words.print_out_paths,
            logs: words.print_build_logs,
            verbose: words.verbose,
            result_file: result_file(words.result_file.clone(), words.result_format.as_deref())?,
            report: words.report_dir.as_ref().map(|dir| dir.join(REPORT)),
            collector: Collector::of(env),
            trace_parent: env.trace_parent().map(str::to_owned),
            forge: env.forge(),
            whereabouts: env.whereabouts(flake),
            step_summary: env.step_summary(),
            step_output: env.step_output(),
            events: words.events.clone(),
            state_dir,
            cache_dir: env.cache_dir(),
        })
    }
}

/// `--result-file` holds what `--result-format` says, and else the document of `--json`.
fn result_file(path: Option<PathBuf>, format: Option<&str>) -> Result<Option<ResultFile>> {
    let format = match format {
        None | Some("json") => ResultFormat::Json,
        Some("junit") => ResultFormat::Junit,
        Some(other) => {
            return Err(Error::usage(format!("there is no --result-format '{other}', only 'json' and 'junit'"))
                .hint("drover run --result-file FILE --result-format junit"));
        }
    };
    Ok(path.map(|path| ResultFile { path, format }))
}
