//! Who is told of failures and recoveries.

use std::path::Path;

use super::super::builders::Secret;
use super::super::file::NotifyTable;
use super::super::{Env, File};
use crate::error::{Error, Result};

/// Bytes of a file with a secret that are read at most.
const MAX_SECRET: u64 = 64 * 1024;

/// `[notify.NAME]`: somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySettings {
    /// Its name.
    pub name: String,
    /// How.
    pub to: NotifyTo,
    /// It is told when runs begin to fail.
    pub failure: bool,
    /// It is told when they no longer do.
    pub recovery: bool,
    /// Only of runs of these branches; of all, if there are none.
    pub branches: Vec<String>,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyTo {
    /// A webhook that takes what Slack's do (Mattermost, Discord with `/slack`, Rocket.Chat).
    Slack(Secret),
    /// A webhook that takes drover's own document.
    Webhook {
        /// Its URL.
        url: Secret,
        /// What is sent as `Authorization: Bearer`.
        token: Option<Secret>,
    },
    /// A program with its arguments; it reads the document on stdin, and has the text in `DROVER_TEXT`.
    Command(Vec<String>),
}

/// What the tables `[notify.NAME]` say. One whose variable is not set is left out: a fork has no secrets.
pub(super) fn all(file: &File, env: &Env) -> Result<Vec<NotifySettings>> {
    let mut all = Vec::new();
    for (name, table) in &file.notify {
        if let Some(settings) = one(name, table, env)? {
            all.push(settings);
        }
    }
    Ok(all)
}

fn one(name: &str, table: &NotifyTable, env: &Env) -> Result<Option<NotifySettings>> {
    let slack = Sources { key: "slack", text: &table.slack, env: &table.slack_env, file: table.slack_file.as_deref() };
    let hook =
        Sources { key: "webhook", text: &table.webhook, env: &table.webhook_env, file: table.webhook_file.as_deref() };
    let token = Sources { key: "token", text: &None, env: &table.token_env, file: table.token_file.as_deref() };
    let to = match (slack.is_said(), hook.is_said(), table.command.as_slice()) {
        (true, false, []) => slack.url(name, env)?.map(NotifyTo::Slack),
        (false, true, []) => {
            let token = token.secret(name, env)?;
            hook.url(name, env)?.map(|url| NotifyTo::Webhook { url, token })
        }
        (false, false, [_, ..]) => Some(NotifyTo::Command(table.command.clone())),
        _ => {
            let message = format!("drover.toml: [notify.{name}] takes one of slack, webhook and command");
            return Err(Error::usage(message).hint("slack-env = \"SLACK_WEBHOOK\""));
        }
    };
    let (failure, recovery) = on(name, table)?;
    let branches = table.branches.clone();
    Ok(to.map(|to| NotifySettings { name: name.to_owned(), to, failure, recovery, branches }))
}

fn on(name: &str, table: &NotifyTable) -> Result<(bool, bool)> {
    let Some(words) = &table.on else { return Ok((true, true)) };
    if let Some(word) = words.iter().find(|word| !matches!(word.as_str(), "failure" | "recovery")) {
        let message = format!("drover.toml: [notify.{name}] on: there is no '{word}'");
        return Err(Error::usage(message).hint("on = [\"failure\", \"recovery\"]"));
    }
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    Ok((has("failure"), has("recovery")))
}

/// Where a secret may come from.
struct Sources<'a> {
    key: &'static str,
    text: &'a Option<String>,
    env: &'a Option<String>,
    file: Option<&'a Path>,
}

impl Sources<'_> {
    fn is_said(&self) -> bool {
        self.text.is_some() || self.env.is_some() || self.file.is_some()
    }

    /// The secret; `None` if none is named, or the variable is not set: in a fork's pull request secrets are not there.
    fn secret(&self, name: &str, env: &Env) -> Result<Option<Secret>> {
        if let Some(file) = self.file {
            let text = read(file).map_err(|error| {
                let message =
                    format!("drover.toml: [notify.{name}] {}-file: cannot read {}: {error}", self.key, file.display());
                Error::usage(message).hint(format!("{}-env = \"VARIABLE\"", self.key))
            })?;
            return Ok(Some(Secret::new(text.trim())));
        }
        let of_env = self.env.as_deref().and_then(|variable| env.get(variable));
        Ok(of_env.or(self.text.as_deref()).map(str::trim).filter(|text| !text.is_empty()).map(Secret::new))
    }

    fn url(&self, name: &str, env: &Env) -> Result<Option<Secret>> {
        let url = self.secret(name, env)?;
        match url {
            Some(url) if !url.expose().starts_with("http://") && !url.expose().starts_with("https://") => {
                // The text is a secret, whatever it is.
                let message = format!("drover.toml: [notify.{name}] {} is no http:// or https:// URL", self.key);
                Err(Error::usage(message).hint(format!("{}-env = \"VARIABLE\" whose value is the URL", self.key)))
            }
            url => Ok(url),
        }
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_SECRET).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::Words;
    use super::super::testing::resolve;
    use super::*;

    fn notify(table: &str, vars: &[(&str, &str)]) -> Result<Vec<NotifySettings>> {
        resolve(Words::default(), vars, &format!("[notify.ops]\n{table}\n")).map(|settings| settings.notify)
    }

    #[test]
    fn secrets_come_from_where_they_are_and_are_not_shown() {
        let all = notify("slack-env = 'HOOK'", &[("HOOK", "https://h/secret-path")]).unwrap();
        assert_eq!(all[0].to, NotifyTo::Slack(Secret::new("https://h/secret-path")));
        assert!((all[0].failure, all[0].recovery) == (true, true) && !format!("{all:?}").contains("secret-path"));
        assert!(notify("slack-env = 'HOOK'", &[]).unwrap().is_empty(), "a fork has no secrets");
        let all = notify("command = ['mail', 'ops']\non = ['failure']", &[]).unwrap();
        assert_eq!((all[0].failure, all[0].recovery), (true, false));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "hunter2\n").unwrap();
        let table = format!("webhook = 'http://h'\ntoken-file = '{}'", file.display());
        let all = notify(&table, &[]).unwrap();
        let token = Some(Secret::new("hunter2"));
        assert_eq!(all[0].to, NotifyTo::Webhook { url: Secret::new("http://h"), token });
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        for (table, what) in [
            ("", "takes one of slack, webhook and command"),
            ("slack = 'https://h'\ncommand = ['x']", "takes one of slack"),
            ("slack = 'hunter2'", "slack is no http:// or https:// URL"),
            ("slack-file = '/nowhere/x'", "slack-file: cannot read /nowhere/x"),
            ("command = ['x']\non = ['always']", "there is no 'always'"),
        ] {
            let error = notify(table, &[]).unwrap_err();
            assert!(error.message.contains(what) && error.hint.is_some(), "{error:?}");
            assert!(!error.message.contains("hunter2"));
        }
    }
}
