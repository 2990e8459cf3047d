//! The builders of a run: tables `[builder.NAME]`, `--builders` and `DROVER_BUILDERS`, and what Nix's settings name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{Address, Way, host_key};
use super::env::{DROVER_BUILDERS, DROVER_SSH_KEY, DROVER_SSH_KNOWN_HOSTS, NIX_SSHOPTS};
use super::file::BuilderTable;
use super::machines::{self, Entry, MachineError, is_system, speed};
use super::settings::{Origin, Settings, Words};
use super::{Env, File, public_url};
use crate::error::{Error, Result};
use crate::id::System;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// One builder besides the local store, or the local store where `url` is `local`. Its URL may hold a login, which
/// `Debug` does not show.
#[derive(Clone, PartialEq)]
pub struct BuilderSettings {
    /// What people call it; no two have the same.
    pub name: String,
    /// `ssh-ng://ci@big1`, `unix:///path`, `local`, with Nix's parameters.
    pub url: String,
    /// What it builds; `None`: what it says itself.
    pub systems: Option<Vec<System>>,
    /// Builds at once, above 0; `None`: what its own `max-jobs` says.
    pub max_jobs: Option<u32>,
    /// How fast it is, beside others; above 0. `None` is 1.
    pub speed: Option<f64>,
    /// Features that drvs may require; `None`: what it says itself.
    pub features: Option<Vec<String>>,
    /// Features that every drv must require; it has them as well.
    pub mandatory: Vec<String>,
    /// File with the private key to log in with.
    pub ssh_key: Option<PathBuf>,
    /// The variable that its private key was looked for in; `None` if the key is in a file.
    pub ssh_key_env: Option<String>,
    /// The private key itself, from that variable.
    pub key: Option<Secret>,
    /// The host's public key, `ssh-ed25519 AAAA…`: no other is accepted.
    pub host_key: Option<String>,
    /// Where it was said: `drover.toml:7`, `/etc/nix/machines:2`, `--builders`.
    pub named_in: String,
}

impl fmt::Debug for BuilderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BuilderSettings");
        shown.field("name", &self.name).field("url", &public_url(&self.url)).field("max_jobs", &self.max_jobs);
        shown.field("named_in", &self.named_in).finish_non_exhaustive()
    }
}

impl BuilderSettings {
    /// Whether it is the store that drover works on.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.way() == Way::Local
    }

    /// How it is reached.
    #[must_use]
    pub fn way(&self) -> Way {
        Address::parse(&self.url).map_or(Way::Ssh, |address| address.way)
    }
}

/// A list of builders in Nix's syntax that takes the place of all others.
#[derive(Clone, PartialEq, Eq)]
pub struct Said {
    /// As typed. Its URLs may hold logins, which `Debug` does not show.
    pub text: String,
    /// A flag or a variable.
    pub origin: Origin,
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Said {
    /// What it is called in errors.
    pub(super) fn name(&self) -> &'static str {
        if self.origin == Origin::Env { DROVER_BUILDERS } else { "--builders" }
    }
}

/// How builders over ssh are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshSettings {
    /// The words of `NIX_SSHOPTS`.
    pub options: Vec<String>,
    /// The lines of `DROVER_SSH_KNOWN_HOSTS`: hosts and their keys, besides those of ssh's own files.
    pub known_hosts: Vec<String>,
    /// The private key of `DROVER_SSH_KEY`, for builders that name no other.
    pub key: Option<Secret>,
    /// Where sockets can be made: `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

/// What is said of builders, before Nix is asked for more.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FarmSettings {
    /// `--builders` or `DROVER_BUILDERS`.
    pub said: Option<Said>,
    /// How ssh is called.
    pub ssh: SshSettings,
    /// So long a drv waits for a builder that is away, before it fails.
    pub wait: Duration,
    /// So long a builder keeps what could not be pushed.
    pub keep: Duration,
    /// Tables `[builder.NAME]` that are not used, since the file is that of a fork's pull request.
    pub passed_over: Vec<String>,
}

/// What Nix's setting is called in errors.
const OF_NIX: &str = "builders of nix.conf";

/// Seconds that a drv waits for a builder that is away.
pub(super) const WAIT: u64 = 120;

/// Days that a builder keeps what could not be pushed.
pub(super) const KEEP_DAYS: u32 = 7;

/// What flags, environment and file say, and the tables.
pub(super) fn resolve(words: &Words, env: &Env, file: &File) -> Result<(FarmSettings, Vec<BuilderSettings>)> {
    let said = match (&words.builders, env.get(DROVER_BUILDERS)) {
        (Some(text), _) => Some(Said { text: text.clone(), origin: Origin::Flag }),
        (None, Some(text)) => Some(Said { text: text.to_owned(), origin: Origin::Env }),
        (None, None) => None,
    };
    let wait = super::settings::number(env, super::env::DROVER_BUILDER_WAIT)?;
    let wait = words.builder_wait.or(wait).or(file.build.builder_wait).unwrap_or(WAIT);
    let keep = u64::from(file.build.keep_days.unwrap_or(KEEP_DAYS));
    let foreign = env.is_foreign_pull_request();
    let tables: Vec<_> =
        file.builder.iter().map(|(name, table)| of_table(name, table, file, env)).collect::<Result<_>>()?;
    let (tables, passed_over) = match foreign {
        true => (Vec::new(), tables.into_iter().map(|builder| builder.name).collect()),
        false => (tables, Vec::new()),
    };
    let farm = FarmSettings {
        said,
        ssh: ssh(env)?,
        wait: Duration::from_secs(wait),
        keep: Duration::from_secs(keep.saturating_mul(24 * 60 * 60)),
        passed_over,
    };
    Ok((farm, tables))
}

fn ssh(env: &Env) -> Result<SshSettings> {
    let options = env.get(NIX_SSHOPTS).map(|text| {
        shell_words(text).ok_or_else(|| {
            Error::usage("NIX_SSHOPTS: a quote is not closed").hint("export NIX_SSHOPTS='-p 2222 -i /path/of/key'")
        })
    });
    let lines = env.get(DROVER_SSH_KNOWN_HOSTS).unwrap_or_default().lines().map(str::trim);
    Ok(SshSettings {
        options: options.transpose()?.unwrap_or_default(),
        known_hosts: lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect(),
        key: env.get(DROVER_SSH_KEY).map(Secret::new),
        runtime_dir: env.get("XDG_RUNTIME_DIR").map(PathBuf::from),
    })
}

/// The words of a text, as a shell parts them; `None` if a quote is not closed.
fn shell_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let (mut word, mut quote) = (None::<String>, None::<char>);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

fn of_table(name: &str, table: &BuilderTable, file: &File, env: &Env) -> Result<BuilderSettings> {
    let wrong = |key: &str, message: String, hint: &str| {
        let line = file.lines.get(&format!("builder.{name}.{key}")).map_or_else(String::new, |line| format!(":{line}"));
        Err(Error::usage(format!("drover.toml{line}: {message}")).hint(hint))
    };
    let address = match Address::parse(&table.url) {
        Ok(address) => address,
        Err(what) => return wrong("url", what, "url = \"ssh-ng://ci@big1.acme.net\""),
    };
    if name == "local" && address.way != Way::Local {
        return wrong("url", "'local' is the name of the store here".to_owned(), "[builder.big1]");
    }
    if let Some(bad) = table.systems.iter().flatten().find(|system| !is_system(system)) {
        return wrong("systems", format!("'{bad}' is no system"), "systems = [\"x86_64-linux\"]");
    }
    let Some(speed) = table.speed.map_or(Some(None), |number| speed(number).map(Some)) else {
        return wrong("speed", "a speed is a number from 0 up".to_owned(), "speed = 2    twice as fast as one with 1");
    };
    let key = table.host_key.as_deref().map(|text| host_key(text).ok_or(text));
    if let Some(Err(_)) = key {
        let message = "this is no public key of a host".to_owned();
        return wrong(
            "host-key",
            message,
            "host-key = \"ssh-ed25519 AAAA…\"    as ssh-keyscan -t ed25519 HOST prints it",
        );
    }
    let line = file.lines.get(&format!("builder.{name}")).map_or_else(String::new, |line| format!(":{line}"));
    let ssh_key_env = match (&table.ssh_key, &table.ssh_key_env) {
        (Some(_), _) => None,
        (None, said) => Some(said.clone().unwrap_or_else(|| DROVER_SSH_KEY.to_owned())),
    };
    Ok(BuilderSettings {
        name: name.to_owned(),
        url: address.url,
        systems: table.systems.as_ref().map(|list| list.iter().cloned().map(System).collect()),
        max_jobs: table.max_jobs,
        speed,
        features: table.features.clone(),
        mandatory: table.mandatory_features.clone(),
        ssh_key: table.ssh_key.clone(),
        key: ssh_key_env.as_deref().and_then(|name| env.get(name)).map(Secret::new),
        ssh_key_env,
        host_key: key.and_then(std::result::Result::ok),
        named_in: format!("drover.toml{line}"),
    })
}

/// Reads a list of builders, as [`all`] wants it; no more than such a list has.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(machines::MAX_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// All builders of a run besides the local store. `nix` is the setting `builders` of Nix; files that lists name are
/// read by `read`. `--builders` takes the place of all others.
pub fn all(settings: &Settings, nix: &str, read: impl Fn(&Path) -> io::Result<String>) -> Result<Vec<BuilderSettings>> {
    let (builders, errors) = find(settings, nix, &read)?;
    // The daemon may be let into a file of Nix that drover's user is not.
    match errors.into_iter().find(|error| !error.unreadable || settings.farm.said.is_some()) {
        None => Ok(builders),
        Some(error) => {
            let hint = format!("{}    or without any: --builders ''", error.hint);
            Err(Error::from(error).hint(hint))
        }
    }
}

/// The same, with all entries that cannot be used. A word alone in `--builders` may be the name of a table. A table
/// takes the place of an entry of Nix for the same login. Builders that build nothing at once are left out.
pub fn find(
    settings: &Settings,
    nix: &str,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<(Vec<BuilderSettings>, Vec<MachineError>)> {
    let said = settings.farm.said.as_ref();
    if let Some((said, path)) = said.and_then(|said| Some((said, missing_file(&said.text, read)?))) {
        return Err(Error::usage(format!("{}: there is no file {path}", said.name())).hint("ls -l /etc/nix/machines"));
    }
    let (name, text) = said.map_or((OF_NIX, nix), |said| (said.name(), &said.text));
    let mut builders = if said.is_some() { Vec::new() } else { settings.builders.clone() };
    let known: BTreeSet<String> = builders.iter().map(|builder| login(&builder.url)).collect();
    let (mut unnamed, mut errors) = (Vec::new(), Vec::new());
    for entry in machines::entries(name, text, read) {
        match entry {
            Err(error) => errors.push(error),
            Ok((_, machine)) if known.contains(&login(&machine.address.url)) => {}
            Ok((place, machine)) => match settings.builders.iter().find(|table| machine.is_word(&table.name)) {
                Some(table) => builders.push(table.clone()),
                None => unnamed.push((place, machine)),
            },
        }
    }
    let names = names(&unnamed, builders.iter().map(|builder| builder.name.clone()).collect());
    builders.extend(unnamed.into_iter().zip(names).map(|(entry, name)| of_entry(entry, name, settings)));
    builders.retain(|builder| builder.max_jobs != Some(0));
    Ok((builders, errors))
}

/// A file that was asked for by name and is not there. Nix would go on without it.
fn missing_file<'a>(said: &'a str, read: &dyn Fn(&Path) -> io::Result<String>) -> Option<&'a str> {
    let mut paths = said.split(['\n', ';']).filter_map(|part| part.trim().strip_prefix('@')).map(str::trim);
    let missing = |path: &&str| read(Path::new(path)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    paths.find(|path| !path.is_empty() && missing(path))
}

/// What two URLs of the same builder have in common: all but scheme and keys.
fn login(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let scheme = if scheme == "ssh" { "ssh-ng" } else { scheme };
    let store = parameters
        .split('&')
        .find(|parameter| ["remote-store=", "root="].iter().any(|name| parameter.starts_with(name)));
    format!("{scheme}://{place}?{}", store.unwrap_or_default())
}

/// What entries are called: the first part of the host's name where no other has it, else all of it; a number is put
/// behind names that are taken.
fn names(entries: &[Entry], mut taken: BTreeSet<String>) -> Vec<String> {
    let mut hosts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (_, machine) in entries {
        hosts.entry(machine.address.short()).or_default().insert(&machine.address.host);
    }
    taken.insert("local".to_owned());
    let name = |(_, machine): &Entry| {
        let (short, host) = (machine.address.short(), machine.address.host.as_str());
        let alone = hosts.get(short).is_some_and(|hosts| hosts.len() == 1) && !taken.contains(short);
        let name = if alone || machine.address.way == Way::Unix { short } else { host };
        let numbered = (2_usize..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name));
        let name = free.unwrap_or_else(|| name.to_owned());
        taken.insert(name.clone());
        name
    };
    entries.iter().map(name).collect()
}

fn of_entry((place, machine): Entry, name: String, settings: &Settings) -> BuilderSettings {
    let named_in = match &settings.farm.said {
        Some(said) if *place.name == *said.name() => said.name().to_owned(),
        _ if &*place.name == OF_NIX => "nix.conf".to_owned(),
        _ => format!("{}:{}", place.name, place.line),
    };
    let in_file = machine.ssh_key.is_some();
    BuilderSettings {
        name: if machine.address.way == Way::Local { "local".to_owned() } else { name },
        url: machine.address.url,
        systems: machine.systems,
        max_jobs: machine.max_jobs,
        speed: machine.speed,
        features: machine.features,
        mandatory: machine.mandatory,
        ssh_key: machine.ssh_key,
        ssh_key_env: (!in_file).then(|| DROVER_SSH_KEY.to_owned()),
        key: settings.farm.ssh.key.clone().filter(|_| !in_file),
        host_key: machine.host_key,
        named_in,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBNmnKb5jRrWyI4j0PWZlPTPHoqs0cM2LT1r9Hh4Ydlv";

    fn settings(words: Words, env: &[(&str, &str)], file: &str) -> Result<Settings> {
        let env = Env::of([("HOME", "/home/me")].iter().chain(env).copied());
        Settings::resolve(words, &env, File::parse(file, Path::new("drover.toml")).map_err(Error::from)?)
    }

    fn read(path: &Path) -> io::Result<String> {
        match path.to_str() {
            Some("/etc/nix/machines") => Ok("ssh-ng://ci@big1 - /k 4\nssh-ng://big2.acme.net\n".to_owned()),
            Some("/root/machines") => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn names_of(settings: &Settings, nix: &str) -> Vec<String> {
        all(settings, nix, read).unwrap().into_iter().map(|builder| builder.name).collect()
    }

    fn said(text: &str) -> Words {
        Words { builders: Some(text.to_owned()), ..Words::default() }
    }

    const NIX: &str = "@/etc/nix/machines";

    #[test]
    fn a_table_says_all_there_is_to_say() {
        let file = format!(
            "[builder.big1]\nurl = 'ssh-ng://ci@big1'\nhost-key = '{KEY} comment'\nmax-jobs = 16\nspeed = 2\n\
             systems = ['x86_64-linux', 'i686-linux']\nfeatures = ['kvm']\nmandatory-features = ['gpu']\n\
             ssh-key-env = 'CI_KEY'\n[build]\nbuilder-wait = 5\nkeep-days = 2\n"
        );
        let settings =
            settings(Words::default(), &[("CI_KEY", "hunter2"), ("DROVER_SSH_KEY", "hunter3")], &file).unwrap();
        let big1 = &settings.builders[0];
        assert_eq!((big1.name.as_str(), big1.named_in.as_str()), ("big1", "drover.toml:1"));
        assert_eq!((big1.host_key.as_deref(), big1.max_jobs, big1.speed), (Some(KEY), Some(16), Some(2.0)));
        assert_eq!(big1.systems.as_ref().map(Vec::len), Some(2));
        assert_eq!(big1.key.as_ref().map(Secret::expose), Some("hunter2"));
        assert_eq!((settings.farm.wait.as_secs(), settings.farm.keep.as_secs()), (5, 2 * 86_400));
        assert!(!format!("{settings:?}").contains("hunter"), "{settings:?}");
    }

    #[test]
    fn wrong_tables_name_the_line() {
        for (key, message) in [
            ("url = 'https://x'", "drover.toml:2: a builder cannot be reached by 'https://'"),
            ("url = 'x'\nhost-key = 'AAAA'", "drover.toml:3: this is no public key of a host"),
            ("url = 'x'\nsystems = ['16']", "drover.toml:3: '16' is no system"),
            ("url = 'x'\nspeed = -1", "drover.toml:3: a speed is a number from 0 up"),
            ("url = 'x'\nmaxjobs = 1", "drover.toml:3:1: unknown key 'maxjobs'"),
            ("max-jobs = 1", "drover.toml:1:1: the key 'url' is missing"),
            ("url = 'x'\nmax-jobs = 'all'", "drover.toml:3:12: this is a string \"all\", not a whole number"),
        ] {
            let error = settings(Words::default(), &[], &format!("[builder.big1]\n{key}\n")).unwrap_err();
            assert!(error.message.starts_with(message) && error.hint.is_some(), "{key}: {error:?}");
        }
        let local = settings(Words::default(), &[], "[builder.local]\nurl = 'big1'\n").unwrap_err();
        assert!(local.message.contains("name of the store here"));
    }

    #[test]
    fn builders_come_from_the_file_and_from_nix() {
        let file = "[builder.fast]\nurl = 'ssh://ci@big1'\n[builder.off]\nurl = 'off'\nmax-jobs = 0\n";
        let settings = settings(Words::default(), &[("DROVER_SSH_KEY", "hunter2")], file).unwrap();
        let builders = all(&settings, NIX, read).unwrap();
        let names: Vec<_> = builders.iter().map(|builder| (builder.name.as_str(), builder.named_in.as_str())).collect();
        assert_eq!(names, [("fast", "drover.toml:1"), ("big2", "/etc/nix/machines:2")]);
        assert_eq!(builders[1].key.as_ref().map(Secret::expose), Some("hunter2"));
        assert_eq!(names_of(&settings, "@/missing"), ["fast"]);
        assert_eq!(names_of(&settings, "@/root/machines"), ["fast"]);
    }

    #[test]
    fn a_list_on_the_command_line_replaces_all_others() {
        let file = "[builder.big1]\nurl = 'ssh-ng://ci@big1'\nmax-jobs = 8\n";
        let of = |text: &str| settings(said(text), &[("DROVER_BUILDERS", "env1")], file).unwrap();
        assert_eq!(names_of(&of(""), NIX), Vec::<String>::new());
        assert_eq!(names_of(&of("x; y.acme.net"), NIX), ["x", "y"]);
        assert_eq!(names_of(&of("@/etc/nix/machines"), NIX), ["big1", "big2"]);
        let table = all(&of("big1; x"), NIX, read).unwrap();
        assert_eq!((table[0].max_jobs, table[0].named_in.as_str()), (Some(8), "drover.toml:1"));
        assert_eq!(table[1].named_in, "--builders");
        let env = settings(Words::default(), &[("DROVER_BUILDERS", "env1")], file).unwrap();
        assert_eq!(names_of(&env, NIX), ["env1"]);
        for (text, what) in [
            ("x y", "--builders:1:3: 'y' is no system"),
            ("@/missing", "--builders: there is no file /missing"),
            ("@/root/machines", "--builders:1:1: cannot read /root/machines"),
        ] {
            let error = all(&of(text), NIX, read).unwrap_err();
            assert!(error.message.starts_with(what) && error.hint.is_some(), "{error:?}");
        }
    }

    #[test]
    fn names_are_short_where_they_can_be_and_never_the_same() {
        let list = "a.x; b.x; b.y; 10.0.0.1; a.x - - 2; unix:///s; unix:///t; local";
        let settings = settings(said(list), &[], "").unwrap();
        assert_eq!(names_of(&settings, ""), ["a", "b.x", "b.y", "10.0.0.1", "a.x", "socket", "socket-2", "local"]);
    }

    #[test]
    fn a_forks_pull_request_brings_no_builders() {
        let file = "[builder.mine]\nurl = 'ssh-ng://ci@evil'\n";
        let fork = [("CI_MERGE_REQUEST_PROJECT_ID", "1"), ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "2")];
        let settings = settings(Words::default(), &fork, file).unwrap();
        assert_eq!(names_of(&settings, NIX), ["big1", "big2"]);
        assert_eq!(settings.farm.passed_over, ["mine"]);
    }

    #[test]
    fn options_of_ssh_are_words_of_a_shell() {
        let words = |text: &str| shell_words(text);
        assert_eq!(words(" -p 22  -i '/a b' -o\"x y\"\\ z '' ").unwrap(), ["-p", "22", "-i", "/a b", "-ox y z", ""]);
        assert!(words("-i '/a").is_none() && words("a \\").is_none());
        let error = settings(Words::default(), &[("NIX_SSHOPTS", "-i '")], "").unwrap_err();
        assert!(error.message.contains("a quote is not closed"));
    }

    #[test]
    fn known_hosts_of_the_environment_are_lines() {
        let settings =
            settings(Words::default(), &[("DROVER_SSH_KNOWN_HOSTS", "# c\nbig1 k 1\n\n big2 k 2 ")], "").unwrap();
        assert_eq!(settings.farm.ssh.known_hosts, ["big1 k 1", "big2 k 2"]);
    }
}
