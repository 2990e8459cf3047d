//! `drover doctor --show-config`: every setting in force, its value, and where it was said.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::{File, Settings, Shown, Words, builders, public_url, shown};
use crate::error::{Error, Result};
use crate::report::settings::{Row, Section, screen};
use crate::report::text;
use crate::store::local::StoreOptions;
use crate::store::settings::NixSettings;

use super::super::run::config_dir;
use super::super::{Session, print, print_json, say};
use super::scene::store_options;

/// Settings of Nix that make a difference to a run.
const OF_NIX: [&str; 26] = [
    "allowed-users",
    "builders",
    "builders-use-substitutes",
    "cores",
    "experimental-features",
    "extra-platforms",
    "fallback",
    "keep-failed",
    "max-jobs",
    "max-silent-time",
    "max-substitution-jobs",
    "min-free",
    "netrc-file",
    "require-sigs",
    "sandbox",
    "secret-key-files",
    "ssl-cert-file",
    "store",
    "substitute",
    "substituters",
    "system",
    "system-features",
    "timeout",
    "trusted-public-keys",
    "trusted-substituters",
    "trusted-users",
];

/// Nix's settings as they are, and as they would be if fewer had a say.
struct Layers {
    all: NixSettings,
    /// Without the user's files and `NIX_CONFIG`.
    machine: Option<NixSettings>,
    /// Without any file.
    none: Option<NixSettings>,
}

/// Prints them.
pub(super) async fn show(session: &Session, words: Words, json: bool) -> Result<u8> {
    let file = File::in_dir(&config_dir(&words.what))?;
    let settings = Settings::resolve(words.clone(), &session.env, file.clone())?;
    let options = store_options(&session.env, &words);
    let layers = match Layers::ask(&options).await {
        Ok(layers) => Some(layers),
        Err(error) => {
            say(&crate::report::failure::fatal(&error.message, error.hint.as_deref(), usize::MAX), session.style());
            None
        }
    };
    let conf_dir = Path::new(session.env.get("NIX_CONF_DIR").unwrap_or("/etc/nix"));
    let nix = layers.as_ref().map_or("", |layers| &layers.all.builders);
    let (builders, wrong) = builders::find(&settings, nix, &builders::read)?;
    for error in wrong {
        let error = Error::from(error);
        say(&crate::report::failure::fatal(&error.message, error.hint.as_deref(), usize::MAX), session.style());
    }
    let ours = shown(&words, &session.env, &file, &settings, &builders);
    let ours = ours.into_iter().map(|setting| row(setting, layers.as_ref(), &options, conf_dir)).collect();
    let mut sections = vec![Section { title: "drover".to_owned(), rows: ours }];
    if let Some(layers) = &layers {
        let names = OF_NIX.into_iter().filter(|name| layers.all.all.contains_key(*name));
        let rows = names.map(|name| layers.row(name, &options, conf_dir)).collect();
        sections.push(Section { title: "Nix".to_owned(), rows });
    }
    if json {
        let of = |title: &str| sections.iter().find(|section| section.title == title).map(|section| &section.rows);
        print_json(&json!({ "version": 1, "drover": of("drover"), "nix": of("Nix") }))?;
    } else {
        print(text::render(&screen(&sections), session.stdout_style()).as_bytes())?;
    }
    // Without Nix it is only half of what was asked for.
    Ok(if layers.is_some() { 0 } else { 2 })
}

/// A setting of drover; where nobody has said it, what Nix says.
fn row(setting: Shown, layers: Option<&Layers>, options: &StoreOptions, conf_dir: &Path) -> Row {
    let Shown { name, values, origin, nix } = setting;
    match (nix, layers) {
        (Some(nix), Some(layers)) => {
            let of_nix = layers.row(nix, options, conf_dir);
            Row { name, origin: format!("Nix: {}", of_nix.origin), values: of_nix.values }
        }
        (Some(_), None) => Row { name, values, origin: "Nix".to_owned() },
        (None, _) => Row { name, values, origin },
    }
}

impl Layers {
    async fn ask(options: &StoreOptions) -> Result<Self> {
        let bare = StoreOptions { options: Vec::new(), ..options.clone() };
        let machine = || bare.cmd("nix").env("NIX_USER_CONF_FILES", "/dev/null").env("NIX_CONFIG", "");
        let (all, only_machine, none) = tokio::join!(
            NixSettings::ask(options.cmd("nix")),
            NixSettings::ask(machine()),
            NixSettings::ask(machine().env("NIX_CONF_DIR", "/dev/null").env("NIX_REMOTE", "")),
        );
        Ok(Self { all: all.map_err(Error::from)?, machine: only_machine.ok(), none: none.ok() })
    }

    /// Whether a setting names the file that it names by default.
    fn is_beside(&self, name: &str, conf_dir: &Path) -> bool {
        let file = if name == "builders" { "machines" } else { "netrc" };
        let beside = conf_dir.join(file).display().to_string();
        let value = self.all.all.get(name).and_then(Value::as_str).unwrap_or_default();
        value.trim_start_matches('@') == beside
    }

    fn row(&self, name: &str, options: &StoreOptions, conf_dir: &Path) -> Row {
        let value = self.all.all.get(name);
        let same = |layer: &Option<NixSettings>| layer.as_ref().is_some_and(|layer| layer.all.get(name) == value);
        let flag = options.options.iter().any(|(option, _)| option.trim_start_matches("extra-") == name);
        let origin = match name {
            _ if flag => "--option",
            // Their defaults are beside nix.conf, wherever that is.
            "netrc-file" | "builders" if self.is_beside(name, conf_dir) => "default",
            "store" if !same(&self.none) && same(&self.machine) => "NIX_REMOTE or nix.conf",
            _ if same(&self.none) => "default",
            _ if same(&self.machine) => "nix.conf",
            _ => "user's nix.conf or NIX_CONFIG",
        };
        Row { name: name.to_owned(), values: values(value), origin: origin.to_owned() }
    }
}

/// A value as text; lists as several.
fn values(value: Option<&Value>) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => public_url(text),
        other => other.to_string(),
    };
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(text).collect(),
        Some(Value::String(empty)) if empty.is_empty() => Vec::new(),
        Some(other) => vec![text(other)],
    }
}
