//! Builders besides the local store: all are asked at once, as a run would do it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::builders::{self, BuilderSettings};
use crate::config::machines::{MachineError, Place};
use crate::config::{Address, Settings, Way};
use crate::driver::farm::remote_options;
use crate::error::without_numbers;
use crate::nix_compat::daemon::Trust;
use crate::process::quote;
use crate::report::doctor::{Answer, Builder, KeyTrouble, NoWay, Severity, Talk, Trouble};
use crate::store::remote::{DialError, DialKind, RemoteOptions, RemoteStore};

use super::nix::{Asked, Open};
use super::progress::Progress;
use super::scene::Scene;
use super::{caches, trouble};

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) builders: Vec<Builder>,
    pub(super) wrong: Vec<(Severity, Trouble)>,
    pub(super) unchecked_hosts: Vec<String>,
}

/// Looks at all builders at once.
pub(super) async fn look(scene: &Scene<'_>, asked: &Asked, open: &Open, progress: &Progress) -> Found {
    let Some(settings) = &scene.settings else { return Found::default() };
    let nix = asked.settings.found().map_or("", |nix| nix.builders.as_str());
    let (found, errors) = match builders::find(settings, nix, &builders::read) {
        Ok(found) => found,
        Err(error) => return Found { wrong: vec![(Severity::Error, said(trouble(error)))], ..Found::default() },
    };
    let ssh = &settings.farm.ssh;
    let dir = caches::store_dir(asked, open);
    let looks = found.into_iter().filter(|builder| !builder.is_local()).map(|builder| {
        let dir = dir.clone();
        async move {
            let asking = ask(remote_options(ssh, &builder, dir));
            let answer = progress.wait("builders", asking).await.unwrap_or_else(|| Answer::Down {
                how: NoWay::Unreachable,
                what: format!("no answer within {} s", super::PATIENCE),
                fix: "drover doctor    asks again".to_owned(),
            });
            facts(builder, answer)
        }
    });
    Found {
        builders: futures_util::future::join_all(looks).await,
        wrong: errors.iter().map(|error| wrong(error, settings)).collect(),
        unchecked_hosts: unchecked(&ssh.options),
    }
}

async fn ask(options: RemoteOptions) -> Answer {
    let store = match RemoteStore::dial(options).await {
        Ok(store) => store,
        Err(error) => return down(&error),
    };
    let about = store.about().await.clone();
    let talk = Talk {
        untrusted: store.trust() == Trust::Untrusted,
        unforwarded: store.refuses_forwarding(),
        shell: about.shell,
        systems: about.systems.into_iter().map(|system| system.0).collect(),
        features: about.features,
        max_jobs: about.max_jobs,
        processors: about.processors,
    };
    store.settle(Duration::from_secs(1)).await;
    Answer::Up(talk)
}

fn down(error: &DialError) -> Answer {
    let how = match error.kind {
        DialKind::Unreachable | DialKind::Refused | DialKind::TimedOut(_) => NoWay::Unreachable,
        DialKind::HostKeyUnknown => NoWay::HostKeyUnknown,
        DialKind::HostKeyChanged => NoWay::HostKeyChanged,
        DialKind::NotLetIn => NoWay::NotLetIn,
        DialKind::NoNix => NoWay::NoNix,
        DialKind::Garbage { .. } => NoWay::Garbage,
        DialKind::StoreDir => NoWay::StoreDir,
        DialKind::TooOld => NoWay::TooOld,
        DialKind::Forbidden => NoWay::Forbidden,
        DialKind::Usage => NoWay::Usage,
        DialKind::Other => NoWay::Other,
    };
    // What a login prints of itself comes before what went wrong.
    let what = error.what.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    Answer::Down { how, what: without_numbers(what.trim_end_matches('.')), fix: error.hint.clone() }
}

fn facts(builder: BuilderSettings, answer: Answer) -> Builder {
    let key_env_unset = builder.ssh_key_env.filter(|_| builder.key.is_none()).filter(|name| name != "DROVER_SSH_KEY");
    Builder {
        ssh: Address::parse(&builder.url).is_ok_and(|address| address.way == Way::Ssh),
        user: user(&builder.url),
        name: builder.name,
        named_in: builder.named_in,
        slots: builder.max_jobs.map(u64::from),
        systems: builder.systems.unwrap_or_default().into_iter().map(|system| system.0).collect(),
        features: builder.features.unwrap_or_default().into_iter().chain(builder.mandatory).collect(),
        key_file: builder.ssh_key.and_then(|file| Some((file.clone(), key_trouble(&file)?))),
        key_env_unset,
        answer,
    }
}

/// The user that a URL names.
fn user(url: &str) -> Option<String> {
    let place = url.split_once("://")?.1.split(['/', '?']).next()?;
    let user = place.rsplit_once('@')?.0.split(':').next()?;
    Some(user.to_owned()).filter(|user| !user.is_empty())
}

/// What is wrong with the file of a private key.
fn key_trouble(file: &Path) -> Option<KeyTrouble> {
    let opened = std::fs::File::open(file).and_then(|file| file.metadata());
    match opened {
        Ok(meta) => (meta.permissions().mode() & 0o077 != 0).then_some(KeyTrouble::Open),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(KeyTrouble::Missing),
        Err(error) => Some(KeyTrouble::Unreadable(without_numbers(&error.to_string()))),
    }
}

/// An entry that cannot be used, and where to mend it.
fn wrong(error: &MachineError, settings: &Settings) -> (Severity, Trouble) {
    let Place { name, line, .. } = &error.place;
    let fix = match &**name {
        _ if error.unreadable => error.hint.clone(),
        "--builders" | "DROVER_BUILDERS" => format!("drover run --builders …    {}", error.hint),
        name if PathBuf::from(name).is_absolute() => {
            format!("${{EDITOR:-vi}} +{line} {}    {}", quote(name), error.hint)
        }
        _ => format!("builders = …    in nix.conf: {}", error.hint),
    };
    let severity = match error.unreadable && settings.farm.said.is_none() {
        true => Severity::Warning,
        false => Severity::Error,
    };
    (severity, Trouble { message: without_numbers(&error.to_string()), fix })
}

/// A list of builders that cannot be read at all.
fn said(trouble: Trouble) -> Trouble {
    Trouble { message: without_numbers(&trouble.message), fix: trouble.fix }
}

/// Words for ssh that make it believe any host. ssh takes options in any case, with `=` or a blank.
fn unchecked(words: &[String]) -> Vec<String> {
    let mut options = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix("-o") {
            Some("") => options.extend(words.next().map(String::as_str)),
            Some(option) => options.push(option),
            None => {}
        }
    }
    let off = |option: &&str| {
        let option = option.to_ascii_lowercase();
        let (name, value) = option.split_once(['=', ' ']).unwrap_or_default();
        let value = value.trim_matches(['=', ' ', '"']);
        match name.trim() {
            "stricthostkeychecking" => ["no", "off", "accept-new"].contains(&value),
            "userknownhostsfile" => value == "/dev/null",
            _ => false,
        }
    };
    options.into_iter().filter(off).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_off_the_check_of_host_keys_is_seen() {
        let of = |text: &str| unchecked(&text.split('|').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(of("-o|StrictHostKeyChecking=no|-p|22"), ["StrictHostKeyChecking=no"]);
        assert_eq!(of("-ostricthostkeychecking accept-new"), ["stricthostkeychecking accept-new"]);
        assert_eq!(of("-o|UserKnownHostsFile = /dev/null"), ["UserKnownHostsFile = /dev/null"]);
        assert!(of("-o|StrictHostKeyChecking=yes|-o|UserKnownHostsFile=/k|-i|no|-o").is_empty());
    }

    #[test]
    fn users_are_what_stands_before_the_host() {
        assert_eq!(user("ssh-ng://ci@big1?x=a@b").as_deref(), Some("ci"));
        assert_eq!(user("ssh-ng://ci:pw@big1").as_deref(), Some("ci"));
        assert_eq!(user("ssh://big1"), None);
    }
}
