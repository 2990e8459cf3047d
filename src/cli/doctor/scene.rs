//! What was asked for and where: words, drover.toml, the flake. Goes on with defaults where one of them is wrong.

use std::path::{Path, PathBuf};

use crate::config::{Env, File, FileError, Settings, Words};
use crate::driver::clock::Clock;
use crate::error::{Error, without_numbers};
use crate::eval::git;
use crate::process::quote;
use crate::report::doctor::{Config, Trouble};
use crate::store::local::StoreOptions;

use super::super::Session;
use super::trouble;

/// See the module's page.
pub(super) struct Scene<'a> {
    pub(super) env: &'a Env,
    pub(super) clock: Clock,
    /// `None` if not even the defaults can be used.
    pub(super) settings: Option<Settings>,
    pub(super) config: Config,
    /// The flake's directory, whether or not there is a flake in it; `None` if nobody named one and there is none.
    pub(super) flake: Option<PathBuf>,
    pub(super) options: StoreOptions,
    /// Where Nix's own configuration is.
    pub(super) nix_conf: PathBuf,
    pub(super) nixos: bool,
}

impl<'a> Scene<'a> {
    pub(super) fn new(session: &'a Session, words: Words) -> Self {
        let env = &session.env;
        let flake = flake(words.what.first().map(String::as_str));
        let dir = flake.clone().unwrap_or_else(|| PathBuf::from("."));
        let mut config = Config::default();
        let file = File::in_dir(&dir).unwrap_or_else(|error| {
            config.troubles.push(of_file(error));
            File::default()
        });
        config.file = Some(dir.join("drover.toml")).filter(|file| file.exists());
        let settings = settings(&words, env, file, &mut config.troubles);
        let conf_dir = env.get("NIX_CONF_DIR");
        Self {
            clock: session.clock,
            config,
            flake,
            options: store_options(env, &words),
            nix_conf: Path::new(conf_dir.unwrap_or("/etc/nix")).join("nix.conf"),
            nixos: conf_dir.is_none() && Path::new("/etc/NIXOS").exists(),
            settings,
            env,
        }
    }
}

/// How nix commands are started.
pub(super) fn store_options(env: &Env, words: &Words) -> StoreOptions {
    StoreOptions {
        store: words.store.clone(),
        options: words.option.clone(),
        daemon_socket: env.get("NIX_DAEMON_SOCKET_PATH").map(PathBuf::from),
        ..StoreOptions::default()
    }
}

/// The directory of the flake that is named, or that Nix would take from here.
fn flake(named: Option<&str>) -> Option<PathBuf> {
    let Some(named) = named else {
        return git::find_up(&std::path::absolute(".").ok()?, "flake.nix");
    };
    let dir = super::super::run::named_dir(named);
    // A flake elsewhere has no directory here.
    let elsewhere = named.split('#').next().is_some_and(|reference| {
        reference.contains(':') && !reference.starts_with("path:") && !reference.starts_with("git+file:")
    });
    (!elsewhere).then(|| std::path::absolute(&dir).unwrap_or(dir))
}

/// The settings, or the defaults where something that was said is wrong.
fn settings(words: &Words, env: &Env, file: File, troubles: &mut Vec<Trouble>) -> Option<Settings> {
    let error = match Settings::resolve(words.clone(), env, file) {
        Ok(settings) => return Some(settings),
        Err(error) => error,
    };
    troubles.push(trouble(error));
    let home =
        ["HOME", "XDG_STATE_HOME", "DROVER_STATE_DIR"].into_iter().filter_map(|name| Some((name, env.get(name)?)));
    let less = Words {
        store: words.store.clone(),
        state_dir: words.state_dir.clone(),
        offline: words.offline,
        ..Words::default()
    };
    Settings::resolve(less, &Env::of(home), File::default()).ok()
}

/// What is wrong with drover.toml, and where to mend it.
fn of_file(error: FileError) -> Trouble {
    let line = match &error {
        FileError::Parse { path, line, .. } => Some(format!("+{line} {}", quote(&path.to_string_lossy()))),
        FileError::Read { .. } | FileError::Size { .. } => None,
    };
    let error = Error::from(error);
    let hint = error.hint.unwrap_or_default();
    let fix = line.map_or_else(|| hint.clone(), |line| format!("${{EDITOR:-vi}} {line}    {hint}"));
    Trouble { message: without_numbers(&error.message), fix }
}
