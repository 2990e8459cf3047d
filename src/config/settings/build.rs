//! How drvs are built.

use std::path::PathBuf;
use std::time::Duration;

use super::super::env::DROVER_MAX_JOBS;
use super::super::{Env, File};
use super::Words;
use crate::error::{Error, Result};

/// How drvs are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSettings {
    /// Slots of the local store; `None` is Nix's `max-jobs`.
    pub max_jobs: Option<u32>,
    /// Tries after the first, where trying again may help.
    pub retries: u32,
    /// Tries after the first of what failed by itself: 0, unless `retries` is given.
    pub retry_failures: u32,
    /// Stop at the first failed build.
    pub fail_fast: bool,
    /// Stop after so many failed builds.
    pub max_failures: Option<u32>,
    /// A build may take so long.
    pub timeout: Option<Duration>,
    /// A build may be silent so long.
    pub max_silent_time: Option<Duration>,
    /// Bytes that a build may print; one that prints more is stopped.
    pub max_log_size: Option<u64>,
    /// Symlinks to the results, `PREFIX`, `PREFIX-2`, …
    pub out_link: Option<PathBuf>,
    /// Fetch results that caches hold.
    pub download: bool,
    /// What other builders build for an attr comes into the local store.
    pub results_home: bool,
}

impl BuildSettings {
    /// What flags, the environment and the file say.
    pub(super) fn of(words: &Words, env: &Env, file: &File) -> Result<Self> {
        let table = &file.build;
        Ok(Self {
            max_jobs: max_jobs(words.max_jobs.as_deref(), env)?.or(table.max_jobs),
            retries: words.retries.or(table.retries).unwrap_or(2),
            retry_failures: words.retries.or(table.retries).unwrap_or(0),
            fail_fast: words.fail_fast,
            max_failures: words.max_failures,
            timeout: seconds(words.timeout.or(table.timeout)),
            max_silent_time: seconds(words.max_silent_time.or(table.max_silent_time)),
            max_log_size: table.max_log_size.filter(|&bytes| bytes > 0),
            out_link: words.out_link.clone(),
            download: words.download,
            results_home: !words.no_download,
        })
    }
}

/// Seconds, where 0 means no limit, as in Nix.
fn seconds(value: Option<u64>) -> Option<Duration> {
    value.filter(|&s| s > 0).map(Duration::from_secs)
}

/// `-j auto` is what Nix means by it: the number of cores, found later.
fn max_jobs(flag: Option<&str>, env: &Env) -> Result<Option<u32>> {
    let name = if flag.is_some() { "--max-jobs " } else { "DROVER_MAX_JOBS=" };
    match flag.or_else(|| env.get(DROVER_MAX_JOBS)) {
        None => Ok(None),
        Some("auto") => Ok(std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok())),
        Some(text) => match text.parse() {
            Ok(jobs) => Ok(Some(jobs)),
            Err(_) => Err(Error::usage(format!("{name}'{text}' is neither a number nor 'auto'"))
                .hint("drover run --max-jobs auto    as many as there are cores")),
        },
    }
}
