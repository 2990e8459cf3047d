//! Settings as people look at them: each with its value and where it was said. Shows no secret: of URLs neither login
//! nor token, of key files only the path.

use super::builders::BuilderSettings;
use super::env::{
    DROVER_BUILDER_WAIT, DROVER_BUILDERS, DROVER_EVAL_WORKERS, DROVER_MAX_JOBS, DROVER_PUSH_TO, DROVER_SSH_KEY,
    DROVER_SSH_KNOWN_HOSTS, DROVER_STATE_DIR, NIX_SSHOPTS,
};
use super::settings::{
    CacheSettings, GoalSettings, Origin, PushWhen, Quarantine, Settings, ShareSettings, Words, is_for_nix,
};
use super::{Env, File};
use crate::id::Kind;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name: the key of `drover.toml` where there is one, else the flag.
    pub name: String,
    /// Its values; most settings have one. Empty: none.
    pub values: Vec<String>,
    /// Where it was said: `--store`, `DROVER_MAX_JOBS`, `drover.toml:7`, `default`.
    pub origin: String,
    /// Nobody said, so this setting of Nix decides.
    pub nix: Option<&'static str>,
}

/// Looks up who said what.
struct Book<'a> {
    env: &'a Env,
    file: &'a File,
    rows: Vec<Shown>,
}

/// Who may have said a setting, the weightiest first.
#[derive(Default)]
struct Sayers {
    /// The flag, if it was given.
    flag: Option<&'static str>,
    /// A variable that may say it.
    var: Option<&'static str>,
    /// The setting of Nix that decides where nobody says it.
    nix: Option<&'static str>,
}

/// All settings in force. `words` are those that the settings were made of, `builders` all that a run would have.
#[must_use]
pub fn shown(words: &Words, env: &Env, file: &File, settings: &Settings, builders: &[BuilderSettings]) -> Vec<Shown> {
    let mut book = Book { env, file, rows: Vec::new() };
    let flag = |given: bool, name: &'static str| given.then_some(name);
    let plain = Sayers::default;
    book.row(
        "store",
        settings.store.as_deref().map(public_url),
        Sayers { flag: flag(words.store.is_some(), "--store"), nix: Some("store"), ..plain() },
    );
    let state = Sayers { flag: flag(words.state_dir.is_some(), "--state-dir"), var: Some(DROVER_STATE_DIR), nix: None };
    book.row("state-dir", [settings.output.state_dir.display().to_string()], state);
    book.row(
        "offline",
        [settings.offline.to_string()],
        Sayers { flag: flag(settings.offline, "--offline"), ..plain() },
    );
    let strict = Sayers { flag: flag(settings.strict_caches, "--strict-caches"), ..plain() };
    book.row("strict-caches", [settings.strict_caches.to_string()], strict);
    let whole = Sayers { flag: flag(settings.push.require_complete, "--require-complete"), ..plain() };
    book.row("require-complete", [settings.push.require_complete.to_string()], whole);
    let attrs = &settings.attrs;
    let kinds = attrs.kinds.clone().unwrap_or_else(|| Kind::DEFAULT.to_vec());
    book.row("attrs.kinds", kinds.iter().map(|kind| kind.output().to_owned()), plain());
    book.row("attrs.only", attrs.only.clone(), plain());
    book.row("attrs.exclude", attrs.exclude.clone(), plain());
    let systems = attrs.systems.clone().map(|list| list.into_iter().map(|system| system.0).collect::<Vec<_>>());
    book.row("attrs.systems", systems.unwrap_or_else(|| vec!["what some builder can build".to_owned()]), plain());
    let workers = settings.eval.workers.map_or_else(|| "by the size of the flake".to_owned(), |n| n.to_string());
    book.row("eval.workers", [workers], Sayers { var: Some(DROVER_EVAL_WORKERS), ..plain() });
    let memory = settings.eval.memory.map(|bytes| format!("{} MiB", bytes >> 20));
    let memory = memory.unwrap_or_else(|| "3/4 of what is free".to_owned());
    let sayers = Sayers { flag: flag(words.eval_memory.is_some(), "--eval-memory"), ..plain() };
    book.row("eval.max-memory", [memory], sayers);
    let ifd = Sayers { flag: flag(words.no_ifd, "--no-ifd"), nix: None, ..plain() };
    let from = Sayers { flag: Some("--attrs-from"), ..plain() };
    if settings.eval.jobs {
        book.row("eval", ["nix-eval-jobs".to_owned()], Sayers { flag: Some("--eval"), ..plain() });
    }
    if let Some(file) = &settings.eval.attrs_from {
        book.row("attrs-from", [file.clone()], from);
    }
    if let Some(file) = &settings.eval.file {
        book.row("file", [file.display().to_string()], Sayers { flag: Some("--file"), ..plain() });
    }
    book.row("eval.no-ifd", [settings.eval.no_ifd.to_string()], ifd);
    for (name, value) in &settings.eval.options {
        let value = if secret(name) { "(not shown)".to_owned() } else { public_url(value) };
        book.row(&format!("option {name}"), [value], Sayers { flag: Some("--option"), ..plain() });
    }
    book.row("skip.paths", settings.base.skip.clone(), plain());
    let build = &settings.build;
    let jobs = Sayers {
        flag: flag(words.max_jobs.is_some(), "--max-jobs"),
        var: Some(DROVER_MAX_JOBS),
        nix: Some("max-jobs"),
    };
    book.row("build.max-jobs", build.max_jobs.map(|n| n.to_string()), jobs);
    book.row("build.retries", [build.retries.to_string()], plain());
    let seconds = |time: Option<std::time::Duration>| time.map(|time| format!("{} s", time.as_secs()));
    book.row("build.timeout", seconds(build.timeout), Sayers { nix: Some("timeout"), ..plain() });
    let silent = Sayers { nix: Some("max-silent-time"), ..plain() };
    book.row("build.max-silent-time", seconds(build.max_silent_time), silent);
    let log = Sayers { nix: Some("max-build-log-size"), ..plain() };
    book.row("build.max-log-size", build.max_log_size.map(|bytes| format!("{bytes} bytes")), log);
    book.farm(words, settings);
    for builder in builders {
        book.builder(builder);
    }
    for cache in &settings.caches {
        book.cache(cache);
    }
    book.share(&settings.share);
    book.goals(&settings.goals);
    book.notify(file);
    book.quarantine(&settings.check.quarantine);
    book.rows
}

impl Book<'_> {
    fn row(&mut self, name: &str, values: impl IntoIterator<Item = String>, sayers: Sayers) {
        let values: Vec<String> = values.into_iter().collect();
        let var = sayers.var.filter(|var| self.env.get(var).is_some());
        let line = self.file.lines.get(name).map(|line| format!("drover.toml:{line}"));
        let said = sayers.flag.or(var).map(str::to_owned).or(line);
        let nix = sayers.nix.filter(|_| values.is_empty());
        let origin = said.unwrap_or_else(|| "default".to_owned());
        self.rows.push(Shown { name: name.to_owned(), values, origin, nix });
    }

    /// What is said of all builders. Of keys only where they are from.
    fn farm(&mut self, words: &Words, settings: &Settings) {
        let flag = |given: bool, name: &'static str| given.then_some(name);
        let farm = &settings.farm;
        let said = Sayers { flag: flag(words.builders.is_some(), "--builders"), var: Some(DROVER_BUILDERS), nix: None };
        if let Some(list) = &farm.said {
            let list = list.text.split(['\n', ';']).map(|entry| public_url(entry.trim()));
            self.row("builders", list.filter(|entry| !entry.is_empty()), said);
        }
        let waits = flag(words.builder_wait.is_some(), "--builder-wait");
        let wait = Sayers { flag: waits, var: Some(DROVER_BUILDER_WAIT), nix: None };
        self.row("build.builder-wait", [format!("{} s", farm.wait.as_secs())], wait);
        let days = farm.keep.as_secs() / (24 * 60 * 60);
        self.row("build.keep-days", [days.to_string()], Sayers::default());
        let ssh = &farm.ssh;
        let from = |var: &'static str| Sayers { var: Some(var), ..Sayers::default() };
        if !ssh.options.is_empty() {
            self.row("ssh options", [ssh.options.join(" ")], from(NIX_SSHOPTS));
        }
        if ssh.key.is_some() {
            self.row("ssh key", ["(not shown)".to_owned()], from(DROVER_SSH_KEY));
        }
        if !ssh.known_hosts.is_empty() {
            let lines = ssh.known_hosts.len();
            let lines = format!("{lines} {}", if lines == 1 { "line" } else { "lines" });
            self.row("ssh known hosts", [lines], from(DROVER_SSH_KNOWN_HOSTS));
        }
    }

    /// A builder: its URL, and what somebody said of it.
    fn builder(&mut self, builder: &BuilderSettings) {
        let key_env =
            builder.ssh_key_env.as_ref().filter(|name| *name != DROVER_SSH_KEY).map(|name| match builder.key {
                Some(_) => name.clone(),
                None => format!("{name} (not set)"),
            });
        let list = |list: &[String]| Some(list.join(" ")).filter(|text| !text.is_empty());
        let rows = [
            ("url", Some(public_url(&builder.url))),
            ("max-jobs", builder.max_jobs.map(|n| n.to_string())),
            (
                "systems",
                builder.systems.as_ref().map(|all| all.iter().map(|s| s.0.as_str()).collect::<Vec<_>>().join(" ")),
            ),
            ("features", builder.features.as_deref().and_then(list)),
            ("mandatory-features", list(&builder.mandatory)),
            ("speed", builder.speed.map(|n| n.to_string())),
            ("host-key", builder.host_key.clone()),
            ("ssh-key", builder.ssh_key.as_ref().map(|file| file.display().to_string())),
            ("ssh-key-env", key_env),
        ];
        for (key, value) in rows {
            let Some(value) = value else { continue };
            self.row(&format!("builder.{}.{key}", builder.name), [value], Sayers::default());
            if let Some(row) = self.rows.last_mut().filter(|row| row.origin == "default") {
                row.origin.clone_from(&builder.named_in);
            }
        }
    }

    fn cache(&mut self, cache: &CacheSettings) {
        let push = match cache.push {
            PushWhen::No => "false",
            PushWhen::Yes => "true",
            PushWhen::Optional => "optional",
            PushWhen::Main => "main",
        };
        let over = || Sayers {
            flag: (cache.origin == Origin::Flag).then_some("--push-to"),
            var: (cache.origin == Origin::Env).then_some(DROVER_PUSH_TO),
            nix: None,
        };
        let Some(name) = &cache.name else {
            return self.row("push-to", [public_url(&cache.url)], over());
        };
        let key = |key: &str| format!("cache.{name}.{key}");
        self.row(&key("url"), [public_url(&cache.url)], Sayers::default());
        self.row(&key("push"), [push.to_owned()], over());
        let secret = cache.secret_key.as_ref().map(|file| file.display().to_string());
        self.row(&key("secret-key"), secret, Sayers::default());
        let token = cache.token_file.as_ref().map(|file| file.display().to_string());
        self.row(&key("token-file"), token, Sayers::default());
        self.row(&key("public-keys"), cache.public_keys.clone(), Sayers::default());
        self.row(&key("priority"), cache.priority.map(|n| n.to_string()), Sayers::default());
        let left_out = &cache.leave_out;
        let said = [
            ("compression", Vec::from_iter(cache.compression.clone())),
            (
                "skip-larger-than",
                left_out.larger_than.map(|bytes| format!("{} MiB", bytes >> 20)).into_iter().collect(),
            ),
            ("skip-names", left_out.names.clone()),
        ];
        for (name, values) in said.into_iter().filter(|(_, values)| !values.is_empty()) {
            self.row(&key(name), values, Sayers::default());
        }
    }

    fn goals(&mut self, goals: &GoalSettings) {
        let share = |share: Option<f64>| share.map(|share| share.to_string());
        let time = |seconds: Option<f64>| seconds.map(|seconds| format!("{seconds}s"));
        let all = [
            ("goals.hit-rate", share(goals.hit_rate)),
            ("goals.duration", time(goals.duration)),
            ("goals.success-rate", share(goals.success_rate)),
            ("goals.recovery", time(goals.recovery)),
            ("goals.first-failure", time(goals.first_failure)),
        ];
        for (key, goal) in all.into_iter().filter(|(_, goal)| goal.is_some()) {
            self.row(key, goal, Sayers::default());
        }
    }

    /// Where webhooks are is a secret; where that is written is none.
    fn notify(&mut self, file: &File) {
        for (name, table) in &file.notify {
            let hidden = |text: &Option<String>| text.iter().map(|_| "(not shown)".to_owned()).collect();
            let variable = |variable: &Option<String>| variable.iter().map(|name| self.variable(name)).collect();
            let path = |path: &Option<std::path::PathBuf>| path.iter().map(|path| path.display().to_string()).collect();
            let keys: [(&str, Vec<String>); 11] = [
                ("slack", hidden(&table.slack)),
                ("slack-env", variable(&table.slack_env)),
                ("slack-file", path(&table.slack_file)),
                ("webhook", hidden(&table.webhook)),
                ("webhook-env", variable(&table.webhook_env)),
                ("webhook-file", path(&table.webhook_file)),
                ("token-env", variable(&table.token_env)),
                ("token-file", path(&table.token_file)),
                ("command", table.command.clone()),
                ("on", table.on.clone().unwrap_or_default()),
                ("branches", table.branches.clone()),
            ];
            for (key, values) in keys.into_iter().filter(|(_, values)| !values.is_empty()) {
                self.row(&format!("notify.{name}.{key}"), values, Sayers::default());
            }
        }
    }

    /// A variable that holds a secret.
    fn variable(&self, name: &str) -> String {
        if self.env.get(name).is_some() { name.to_owned() } else { format!("{name} (not set)") }
    }

    fn quarantine(&mut self, all: &[Quarantine]) {
        for one in all {
            let keys = [
                ("attr", Some(one.attr.clone())),
                ("reason", Some(one.reason.clone())),
                ("ticket", one.ticket.as_deref().map(public_url)),
                ("expires", Some(one.expires.to_string())),
            ];
            for (key, value) in keys.into_iter().filter(|(_, value)| value.is_some()) {
                self.row(&format!("quarantine.{}.{key}", one.name), value, Sayers::default());
            }
        }
    }

    fn share(&mut self, share: &ShareSettings) {
        let file = |file: &Option<std::path::PathBuf>| file.as_ref().map(|file| file.display().to_string());
        self.row("share.url", share.url.as_deref().map(public_url), Sayers::default());
        if *share == ShareSettings::default() {
            return;
        }
        self.row("share.public-keys", share.public_keys.clone(), Sayers::default());
        self.row("share.secret-key", file(&share.secret_key), Sayers::default());
        self.row("share.token-file", file(&share.token_file), Sayers::default());
    }
}

/// Whether a setting of this name holds a secret itself, not only the path of one.
fn secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "password", "credential"].iter().any(|word| name.contains(word)) && !name.ends_with("-file")
}

/// A URL, or several, as they may be shown: without login, and without parameters that hold secrets. Other texts stay.
#[must_use]
pub fn public_url(text: &str) -> String {
    text.split(' ').map(one_url).collect::<Vec<_>>().join(" ")
}

fn one_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        let of_kind = (!is_for_nix(text)).then(|| text.split_once('?')).flatten();
        return of_kind.map_or_else(|| text.to_owned(), |(place, query)| with_query(place, query));
    };
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let end = place.find('/').unwrap_or(place.len());
    let place = match place[..end].rfind('@') {
        // Users of ssh are no secret.
        Some(at) if scheme.starts_with("ssh") && !place[..at].contains(':') => place,
        Some(at) => &place[at + 1..],
        None => place,
    };
    with_query(&format!("{scheme}://{place}"), query.unwrap_or_default())
}

/// With the parameters that hold no secrets.
fn with_query(place: &str, query: &str) -> String {
    let parameters = query.split('&').filter(|pair| !secret(pair.split('=').next().unwrap_or("")));
    let query = parameters.filter(|pair| !pair.is_empty()).collect::<Vec<_>>().join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{place}{mark}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn each_setting_says_where_it_comes_from() {
        let file = "[build]\nretries = 7\n\n[cache.acme]\nurl = 'https://me:hunter2@c.example?token=hunter2&priority=1'\n\
            [builder.big1]\nurl = 'ssh-ng://ci:hunter2@big1'\nssh-key-env = 'CI_KEY'\nmax-jobs = 4\n";
        let file = File::parse(file, Path::new("drover.toml")).unwrap();
        let ours = [("HOME", "/home/me"), ("DROVER_MAX_JOBS", "3"), ("DROVER_PUSH_TO", "acme")];
        let ssh = [("CI_KEY", "hunter2"), ("DROVER_SSH_KEY", "hunter2"), ("DROVER_SSH_KNOWN_HOSTS", "big1 k hunter2")];
        let env = Env::of(ours.into_iter().chain(ssh));
        let words = Words {
            store: Some("/tmp/s".into()),
            option: vec![("access-tokens".into(), "github.com=hunter2".into())],
            ..Words::default()
        };
        let settings = Settings::resolve(words.clone(), &env, file.clone()).unwrap();
        let builders = super::super::builders::all(&settings, "ssh://big2 - /k", super::super::builders::read).unwrap();
        let rows = shown(&words, &env, &file, &settings, &builders);
        let row = |name: &str| {
            let row = rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no {name}"));
            (row.values.join(" "), row.origin.as_str())
        };
        assert_eq!(row("store"), ("/tmp/s".into(), "--store"));
        assert_eq!(row("build.retries"), ("7".into(), "drover.toml:2"));
        assert_eq!(row("build.max-jobs"), ("3".into(), "DROVER_MAX_JOBS"));
        assert_eq!(row("cache.acme.url"), ("https://c.example?priority=1".into(), "drover.toml:5"));
        assert_eq!(row("cache.acme.push"), ("true".into(), "DROVER_PUSH_TO"));
        assert_eq!(row("build.timeout"), (String::new(), "default"));
        assert_eq!(row("builder.big1.url"), ("ssh-ng://big1".into(), "drover.toml:7"));
        assert_eq!(row("builder.big1.ssh-key-env"), ("CI_KEY".into(), "drover.toml:8"));
        assert_eq!(row("builder.big2.ssh-key"), ("/k".into(), "nix.conf"));
        assert_eq!(row("ssh key"), ("(not shown)".into(), "DROVER_SSH_KEY"));
        assert_eq!(row("ssh known hosts"), ("1 line".into(), "DROVER_SSH_KNOWN_HOSTS"));
        assert_eq!(row("build.builder-wait"), ("120 s".into(), "default"));
        assert!(!format!("{rows:?}").contains("hunter2"), "{rows:?}");
    }

    #[test]
    fn logins_and_tokens_leave_urls() {
        for (text, expected) in [
            ("https://u:p@h/a?x=1", "https://h/a?x=1"),
            ("ssh-ng://ci@big1", "ssh-ng://ci@big1"),
            ("cachix:acme?token=x&priority=1", "cachix:acme?priority=1"),
            ("attic:https://u:p@h/acme?token=x", "attic:https://h/acme"),
            ("ssh-ng://ci:pw@big1", "ssh-ng://big1"),
            ("https://a@b/p@q file:///c?secret-key=/k", "https://b/p@q file:///c?secret-key=/k"),
            ("https://h?auth-token=t&a=b", "https://h?a=b"),
            ("auto", "auto"),
        ] {
            assert_eq!(public_url(text), expected);
        }
    }
}
