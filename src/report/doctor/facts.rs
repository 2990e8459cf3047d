//! What is known of an environment, in plain words: no store, no cache, no clock is asked from here on.

use std::path::PathBuf;

use super::Severity;

/// What became of one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Checked<T> {
    /// Nobody looked: something else was in the way, or there is nothing to look at.
    #[default]
    Skipped,
    /// No answer within so many seconds.
    Silent(u64),
    /// It failed.
    Failed(Trouble),
    /// It is known.
    Found(T),
}

impl<T> Checked<T> {
    /// What is known.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Skipped | Self::Silent(_) | Self::Failed(_) => None,
        }
    }
}

/// An error that somebody else has put into words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trouble {
    /// What is wrong.
    pub message: String,
    /// What to type; may be empty.
    pub fix: String,
}

/// All that the rules look at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The nix commands and their settings.
    pub nix: Checked<Nix>,
    /// The store in force.
    pub store: Checked<Store>,
    /// The user on whom the store's daemon hung up before it said anything.
    pub hung_up_on: Option<String>,
    /// Nix's own configuration file: `/etc/nix/nix.conf`.
    pub nix_conf: String,
    /// This is NixOS, which writes that file itself.
    pub nixos: bool,
    /// This is Linux.
    pub linux: bool,
    /// drover's configuration.
    pub config: Config,
    /// The flake here; `None` if there is none and nobody asked for one.
    pub flake: Option<Flake>,
    /// What git says of its directory.
    pub git: Checked<Git>,
    /// Builders besides the local store.
    pub builders: Vec<Builder>,
    /// What is wrong with lists of builders.
    pub builders_wrong: Vec<(Severity, Trouble)>,
    /// Tables of builders that are not used, since this runs for a fork's pull request.
    pub passed_over: Vec<String>,
    /// Words of `NIX_SSHOPTS` that turn off the check of host keys.
    pub unchecked_hosts: Vec<String>,
    /// Caches that are read from or pushed to, in order.
    pub caches: Vec<Cache>,
    /// No cache was asked.
    pub offline: bool,
    /// The file with logins.
    pub netrc: Netrc,
    /// Keys that signatures are held against.
    pub keys: Vec<PublicKey>,
    /// Places that have to have room.
    pub disks: Vec<Disk>,
    /// Where records are kept.
    pub state: StateDir,
    /// `TMPDIR`, if it is no directory that can be written: why.
    pub tmp: Option<(PathBuf, String)>,
}

/// The nix commands and their settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nix {
    /// `2.34.8`.
    pub version: String,
    /// A sentence, if drover was never tested with it.
    pub untested: Option<String>,
    /// Experimental features that are on.
    pub features: Vec<String>,
    /// Builds run in a sandbox.
    pub sandbox: bool,
    /// Caches are used at all.
    pub substitute: bool,
    /// Signatures are wanted.
    pub require_sigs: bool,
    /// Builds at once on this machine, drover's own settings counted in; `None`: as many as there are processors.
    pub max_jobs: Option<u64>,
    /// What says so: Nix's `max-jobs`, or `DROVER_MAX_JOBS`.
    pub max_jobs_by: String,
    /// What this machine builds for, its own system first.
    pub systems: Vec<String>,
}

/// A builder besides the local store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Builder {
    /// What people call it.
    pub name: String,
    /// Where it is said: `drover.toml:7`.
    pub named_in: String,
    /// It is reached over ssh.
    pub ssh: bool,
    /// Who logs in there, if that is said.
    pub user: Option<String>,
    /// Builds at once, if that is said.
    pub slots: Option<u64>,
    /// Systems that are said; empty: it is asked.
    pub systems: Vec<String>,
    /// Features that are said, mandatory ones too.
    pub features: Vec<String>,
    /// The file of the key that is to log in, and what is wrong with it.
    pub key_file: Option<(PathBuf, KeyTrouble)>,
    /// A variable that was named to hold that key, and is not set.
    pub key_env_unset: Option<String>,
    /// What became of asking it.
    pub answer: Answer,
}

/// What is wrong with the file of a key for ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyTrouble {
    /// There is no such file.
    Missing,
    /// This user may not read it, or cannot: why.
    Unreadable(String),
    /// Others may read it.
    Open,
}

/// What became of asking a builder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// Nobody asked.
    #[default]
    NotAsked,
    /// It cannot be used.
    Down {
        /// In which way.
        how: NoWay,
        /// The cause, in a line.
        what: String,
        /// What to type.
        fix: String,
    },
    /// It answers.
    Up(Talk),
}

/// Why a builder cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWay {
    /// There is no way to it, nobody listens, or no answer came in time.
    Unreachable,
    /// Nothing is known of its host key.
    HostKeyUnknown,
    /// It shows another host key.
    HostKeyChanged,
    /// It does not let us log in.
    NotLetIn,
    /// There is no Nix.
    NoNix,
    /// Something else speaks before the daemon.
    Garbage,
    /// Its store paths are elsewhere.
    StoreDir,
    /// Its Nix is too old.
    TooOld,
    /// Its daemon refuses the user.
    Forbidden,
    /// What is said of it makes no sense.
    Usage,
    /// Something else.
    Other,
}

/// What a builder says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Talk {
    /// Its daemon does not trust its user.
    pub untrusted: bool,
    /// Its daemon's socket cannot be forwarded.
    pub unforwarded: bool,
    /// Its login has a shell with Nix in it; without one nothing below is known.
    pub shell: bool,
    /// What it builds for, its own system first.
    pub systems: Vec<String>,
    /// Its features.
    pub features: Vec<String>,
    /// Its own `max-jobs`.
    pub max_jobs: Option<u64>,
    /// How many processors it has.
    pub processors: Option<u64>,
}

/// The store in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Store {
    /// Its URI.
    pub uri: String,
    /// `/nix/store`.
    pub dir: String,
    /// It belongs to a daemon, which has settings of its own.
    pub daemon: bool,
    /// The daemon does not trust this user, who is called so.
    pub untrusted: Option<Untrusted>,
}

/// What a daemon does not take from its user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Untrusted {
    /// The user.
    pub user: String,
    /// Caches that the user's settings name and the daemon's do not.
    pub caches: Vec<String>,
    /// Public keys that the user's settings name and the daemon's do not.
    pub keys: Vec<String>,
}

/// drover's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `drover.toml`, if there is one.
    pub file: Option<PathBuf>,
    /// What is wrong with it, with the environment, or with the command line.
    pub troubles: Vec<Trouble>,
}

/// The flake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flake {
    /// Its directory.
    pub dir: PathBuf,
    /// There is a `flake.nix`.
    pub exists: bool,
    /// There is a `flake.lock`.
    pub locked: bool,
    /// The names of its inputs.
    pub inputs: Checked<Vec<String>>,
}

/// What git says of the flake's directory. `Checked::Failed` is git's own refusal, `Skipped` no git repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Git {
    /// git knows `flake.nix`.
    pub flake_tracked: bool,
    /// git knows `flake.lock`.
    pub lock_tracked: bool,
    /// The history is cut off.
    pub shallow: bool,
    /// Tracked files that differ from the commit.
    pub changed: u32,
    /// There is a commit.
    pub has_commit: bool,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cache {
    /// What people call it.
    pub name: String,
    /// Its URL without login and parameters.
    pub url: String,
    /// Its name in `drover.toml`; `None` if it is said elsewhere.
    pub table: Option<String>,
    /// Its host; `None` for a directory.
    pub host: Option<String>,
    /// It is read from.
    pub pull: bool,
    /// It is pushed to.
    pub push: bool,
    /// A failed push is only a warning.
    pub optional: bool,
    /// Its paths need no signature.
    pub trusted: bool,
    /// Whether it answers.
    pub reach: Reach,
    /// Milliseconds that the answer took.
    pub millis: u64,
    /// Which login was sent.
    pub login: Login,
    /// Seconds by which its clock is ahead of ours.
    pub skew: Option<i64>,
    /// Whether what it holds can be taken.
    pub signed: Signed,
    /// `public-keys` of `drover.toml`.
    pub public_keys: Vec<String>,
    /// Files with keys that sign what is pushed.
    pub key_files: Vec<KeyFile>,
    /// Whether it can be written to.
    pub write: Write,
}

/// Whether a cache answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// It was not asked.
    #[default]
    NotAsked,
    /// It answered.
    Ok,
    /// It does not exist yet and will be made by the first push.
    New,
    /// It gave no answer.
    Down(Down),
    /// It answered with a status that helps nobody.
    Status(u16),
    /// It refused the login: 401, 403 or 407.
    Denied(u16),
    /// It is no cache.
    NotACache,
    /// It is for stores in another directory.
    OtherStore {
        /// Theirs.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// drover cannot use it.
    Unusable(Trouble),
}

/// Why a cache gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// Its host has no address.
    NoSuchHost,
    /// Nobody listens.
    Refused,
    /// Not in time; seconds.
    TimedOut(u64),
    /// No safe connection.
    Tls(String),
    /// Something else.
    Other(String),
}

/// Where the login came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Login {
    /// There is none.
    #[default]
    None,
    /// The URL.
    Url,
    /// The netrc file.
    Netrc,
    /// This file with a token.
    TokenFile(PathBuf),
    /// Where the tools for this kind of cache have theirs; in words.
    Tools(String),
}

/// Whether what a cache holds is signed by a trusted key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Signed {
    /// Nothing of it is known: it was not asked, or has none of the paths that it was asked for.
    #[default]
    Unknown,
    /// It is.
    Trusted,
    /// It is not.
    Untrusted {
        /// An example, `hello-2.12`.
        example: String,
        /// Names of the keys that did sign; empty: nobody signed.
        keys: Vec<String>,
    },
}

/// Whether a cache can be written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Write {
    /// Nobody looked.
    #[default]
    Unknown,
    /// It can.
    Ok,
    /// It cannot.
    No(Trouble),
}

/// A file with a secret key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Where.
    pub file: PathBuf,
    /// Everybody on the machine may read it.
    pub world_readable: bool,
    /// What is in it.
    pub state: KeyFileState,
}

/// What is in a key file. Never the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFileState {
    /// A key.
    Ok {
        /// The public half, `NAME:BASE64`.
        public: String,
    },
    /// There is no such file.
    Missing,
    /// This user may not read it, or cannot: why.
    Unreadable(String),
    /// No key: why.
    Bad(String),
}

/// A public key that signatures are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// `NAME:BASE64`.
    pub key: String,
    /// Its table in `drover.toml`; `None`: Nix's `trusted-public-keys`.
    pub table: Option<String>,
    /// Why it is none.
    pub bad: Option<String>,
}

/// The netrc file that Nix's settings name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Netrc {
    /// Where it is; empty if nobody says.
    pub file: PathBuf,
    /// Somebody said so; it is not Nix's default place.
    pub asked_for: bool,
    /// What is there.
    pub state: NetrcFile,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetrcFile {
    /// Nothing.
    #[default]
    Missing,
    /// A file that this user cannot read.
    Unreadable(String),
    /// A file.
    Found {
        /// Everybody on the machine may read it.
        world_readable: bool,
    },
}

/// A file system that has to have room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What is on it: `the store`, `TMPDIR`.
    pub uses: Vec<&'static str>,
    /// A directory on it.
    pub dir: PathBuf,
    /// Bytes that this user can still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Files that can still be made; `None` where the file system knows no bound.
    pub inodes_free: Option<u64>,
}

/// Where records are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateDir {
    /// Runs that history knows; `None` if there is no history yet.
    pub runs: Option<usize>,
    /// Where history is shared, and evaluations.
    pub shared: Option<String>,
    /// Where; `None` if nobody knows.
    pub dir: Option<PathBuf>,
    /// Why it cannot be written.
    pub problem: Option<String>,
}

impl Facts {
    /// A line for Nix's configuration, and where it belongs. On NixOS that file is made from another one.
    #[must_use]
    pub fn conf(&self, name: &str, value: &str) -> String {
        let restart = match self.store.found() {
            Some(store) if !store.daemon => "",
            None if self.hung_up_on.is_none() => "",
            _ => ", then: sudo systemctl restart nix-daemon",
        };
        if self.nixos {
            let plain = name.strip_prefix("extra-").unwrap_or(name);
            let value = match value {
                "true" | "false" => value.to_owned(),
                _ if plain != name => format!("[ \"{value}\" ]"),
                _ => format!("\"{value}\""),
            };
            return format!("nix.settings.{plain} = {value};    in the configuration of this NixOS");
        }
        format!("{name} = {value}    in {}{restart}", self.nix_conf)
    }
}
