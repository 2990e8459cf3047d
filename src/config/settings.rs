//! [`Words`] (what was typed) + environment + file → [`Settings`] (what it means).

mod attrs;
mod base;
mod build;
mod caches;
mod check;
mod eval;
mod goals;
mod notify;
mod output;
mod push;
mod share;
mod words;

pub use attrs::AttrSettings;
pub use base::BaseSettings;
pub use build::BuildSettings;
pub use caches::{CacheSettings, LeaveOut, PushWhen, is_for_nix};
pub use check::{CheckBuild, CheckSettings, Quarantine};
pub use eval::EvalSettings;
pub use goals::GoalSettings;
pub use notify::{NotifySettings, NotifyTo};
pub use output::{OutputSettings, ResultFile, ResultFormat};
pub use push::{PushSettings, ReadBack};
pub use share::ShareSettings;
pub use words::Words;

use std::fmt;
use std::path::PathBuf;

use super::builders::{self, BuilderSettings, FarmSettings};
use super::{Env, File, LoginVars, Stranger};
use crate::error::{Error, Result};

/// Where a setting was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A variable `DROVER_*`.
    Env,
    /// `drover.toml`.
    File,
    /// Nobody said; drover's default, or what Nix says.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "command line",
            Self::Env => "environment",
            Self::File => "drover.toml",
            Self::Default => "default",
        })
    }
}

/// Plans in files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanSettings {
    /// Read instead of a flake.
    pub read: Option<PathBuf>,
    /// Where the plan is written.
    pub write: Option<PathBuf>,
}

/// All that a run is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Which attrs.
    pub attrs: AttrSettings,
    /// Evaluation.
    pub eval: EvalSettings,
    /// What attrs are compared with.
    pub base: BaseSettings,
    /// Building.
    pub build: BuildSettings,
    /// Checking.
    pub check: CheckSettings,
    /// The tables `[builder.NAME]`; all builders of a run are those of [`builders::all`].
    pub builders: Vec<BuilderSettings>,
    /// What else is said of builders.
    pub farm: FarmSettings,
    /// Plans in files.
    pub plan: PlanSettings,
    /// Caches beyond Nix's own.
    pub caches: Vec<CacheSettings>,
    /// Logins to caches that the environment has.
    pub logins: LoginVars,
    /// Pushing to them.
    pub push: PushSettings,
    /// Sharing evaluations.
    pub share: ShareSettings,
    /// What is asked of runs.
    pub goals: GoalSettings,
    /// Who is told of failures and recoveries.
    pub notify: Vec<NotifySettings>,
    /// No network: no cache is asked.
    pub offline: bool,
    /// A cache that gives no answer is an error, and not a warning.
    pub strict_caches: bool,
    /// Nothing is taken from memory: neither a recorded evaluation nor what caches said earlier.
    pub refresh: bool,
    /// `--store`.
    pub store: Option<String>,
    /// `--eval-store`.
    pub eval_store: Option<String>,
    /// `NIX_STATE_DIR`.
    pub nix_state_dir: Option<PathBuf>,
    /// A stranger wrote drover.toml, and this is what counts of it.
    pub stranger: Option<Stranger>,
    /// Screen and files.
    pub output: OutputSettings,
}

/// The first that was said, of flag, environment and file.
fn first<T>(flag: Option<T>, env: Option<T>, file: Option<T>) -> Option<T> {
    flag.or(env).or(file)
}

/// A number from the environment.
pub(super) fn number<T: std::str::FromStr>(env: &Env, name: &str) -> Result<Option<T>> {
    let Some(text) = env.get(name) else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|_| Error::usage(format!("{name}='{text}' is no number")).hint(format!("unset {name}")))
}

impl Settings {
    /// Puts the words, the environment and the file together.
    pub fn resolve(words: Words, env: &Env, file: File) -> Result<Self> {
        let Some(state_dir) = words.state_dir.clone().or_else(|| env.state_dir()) else {
            return Err(Error::usage("no place for records: neither HOME nor DROVER_STATE_DIR is set")
                .hint("drover run --state-dir DIR"));
        };
        let (farm, builders) = builders::resolve(&words, env, &file)?;
        let attrs = AttrSettings::of(&words, &file)?;
        Ok(Self {
            check: CheckSettings::of(&words, attrs.kinds.as_deref(), &file)?,
            attrs,
            eval: EvalSettings::of(&words, env, &file)?,
            base: BaseSettings::of(&words, env, &file)?,
            build: BuildSettings::of(&words, env, &file)?,
            builders,
            farm,
            caches: caches::caches(&words, env, &file)?,
            logins: env.logins(),
            push: PushSettings::of(&words)?,
            goals: GoalSettings::of(&file)?,
            notify: notify::all(&file, env)?,
            share: share::share(file.share, env)?,
            offline: words.offline,
            strict_caches: words.strict_caches,
            refresh: words.refresh,
            output: OutputSettings::of(&words, env, file.dir.as_deref(), state_dir)?,
            plan: PlanSettings { read: words.plan, write: words.plan_output },
            store: words.store,
            eval_store: words.eval_store,
            stranger: file.stranger.clone(),
            nix_state_dir: env.get("NIX_STATE_DIR").map(PathBuf::from),
        })
    }
}

/// The flag's list, or the file's where the flag said nothing.
fn or_else_list(flag: &[String], file: &[String]) -> Vec<String> {
    if flag.is_empty() { file.to_vec() } else { flag.to_vec() }
}

#[cfg(test)]
mod testing {
    use super::*;
    use std::path::Path;

    pub(super) fn resolve(words: Words, env: &[(&str, &str)], file: &str) -> Result<Settings> {
        let mut vars = vec![("HOME", "/home/me")];
        vars.extend_from_slice(env);
        Settings::resolve(words, &Env::of(vars), File::parse(file, Path::new("drover.toml")).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::resolve;
    use super::*;

    #[test]
    fn flags_win_over_environment_and_file() {
        let file = "[eval]\nworkers = 3\n[build]\nretries = 7\n";
        let words = Words { eval_workers: Some(1), ..Words::default() };
        let settings = resolve(words, &[("DROVER_EVAL_WORKERS", "2")], file).unwrap();
        assert_eq!((settings.eval.workers, settings.build.retries), (Some(1), 7));
        let settings = resolve(Words::default(), &[("DROVER_EVAL_WORKERS", "2")], file).unwrap();
        assert_eq!(settings.eval.workers, Some(2));
    }
}
