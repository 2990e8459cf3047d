//! Why a builder could not be reached, and what a person can type about it.

use std::time::Duration;

use super::RemoteOptions;
use crate::error::{Error, Fault, chain, without_numbers};
use crate::nix_compat::daemon::DaemonError;
use crate::process::{ProcessError, quote};
use crate::store::error::StoreError;

/// What kind of trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialKind {
    /// The host is unknown, or there is no way to it.
    Unreachable,
    /// Nobody listens there.
    Refused,
    /// No answer for this long.
    TimedOut(Duration),
    /// Nothing is known of the host's key.
    HostKeyUnknown,
    /// The host shows another key than it should.
    HostKeyChanged,
    /// The host does not let this user in.
    NotLetIn,
    /// There is no Nix, or not where the login's PATH looks.
    NoNix,
    /// Something else spoke before the daemon did: these are the first bytes.
    Garbage {
        /// Readable.
        bytes: String,
    },
    /// Its store paths are elsewhere.
    StoreDir,
    /// Its Nix is too old.
    TooOld,
    /// The daemon refuses this user.
    Forbidden,
    /// What was asked for makes no sense: a bad URI, a key that cannot be read.
    Usage,
    /// Anything else.
    Other,
}

/// A builder could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the builder {name}: {what}")]
pub struct DialError {
    /// What kind of trouble.
    pub kind: DialKind,
    /// Which builder.
    pub name: String,
    /// The cause, for people; may have several lines.
    pub what: String,
    /// Something to type, or to look at.
    pub hint: String,
}

/// Who is dialled: what hints need.
#[derive(Debug, Clone)]
pub(super) struct Whom {
    pub(super) name: String,
    /// `user@host` with the port as ssh takes it: what follows `ssh ` on a command line.
    pub(super) login: String,
    /// What follows `ssh-keyscan `.
    pub(super) host: String,
    /// Its URI, if it is no host but a socket of this machine.
    pub(super) socket: Option<String>,
    /// How long it is waited for.
    pub(super) patience: Duration,
}

impl Whom {
    pub(super) fn new(options: &RemoteOptions, host: &str, user: Option<&str>, port: Option<u16>) -> Self {
        let port = port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let more = if options.ssh_opts.is_empty() { "" } else { "$NIX_SSHOPTS " };
        let key = options.ssh_key.as_ref().map(|key| format!("-i {} ", quote(&key.display().to_string())));
        let key = key.unwrap_or_default();
        Self {
            name: options.name.clone(),
            login: format!("{more}{key}{port}{}", quote(&format!("{user}{host}"))),
            host: format!("{port}{}", quote(host)),
            socket: None,
            patience: options.patience,
        }
    }

    /// Whoever listens on a socket of this machine.
    pub(super) fn socket(options: &RemoteOptions) -> Self {
        Self { socket: Some(options.uri.clone()), ..Self::new(options, "localhost", None, None) }
    }

    /// There is no answer in time.
    pub(super) fn late(&self) -> DialError {
        self.error(DialKind::TimedOut(self.patience), format!("no answer for {} s", self.patience.as_secs_f64()))
    }

    /// ssh cannot be started.
    pub(super) fn no_ssh(&self, error: &ProcessError) -> DialError {
        match error.is_not_found() {
            true => DialError {
                hint: "install OpenSSH's client, or put it on PATH".to_owned(),
                ..self.error(DialKind::Other, "there is no ssh on PATH")
            },
            false => self.error(DialKind::Other, chain(error)),
        }
    }

    /// Trouble of this kind.
    pub(super) fn error(&self, kind: DialKind, what: impl Into<String>) -> DialError {
        let (login, host) = (&self.login, &self.host);
        let hint = match &kind {
            DialKind::Forbidden => "see allowed-users in the nix.conf of the builder".to_owned(),
            DialKind::Usage => "a builder's URL is like ssh-ng://user@host:22 or unix:///path/to/socket".to_owned(),
            _ if self.socket.is_some() => {
                let uri = quote(self.socket.as_deref().unwrap_or_default());
                format!("nix store info --store {uri}    shows it without drover")
            }
            DialKind::Unreachable => format!("ssh {login} true    shows it without drover; is the name right?"),
            DialKind::Refused => format!("ssh {login} true    shows it without drover; does sshd run there?"),
            DialKind::TimedOut(_) => format!("ssh {login} true    shows it without drover; a firewall, or it is off"),
            DialKind::HostKeyUnknown => format!(
                "ssh-keyscan -t ed25519 {host}    shows its key; compare it with the host's own, then set host-key in \
                 drover.toml or add it to ~/.ssh/known_hosts"
            ),
            DialKind::HostKeyChanged => format!(
                "ssh-keyscan -t ed25519 {host}    shows the key of whoever answers; only if the host was really set \
                 up anew, correct host-key in drover.toml or ~/.ssh/known_hosts"
            ),
            DialKind::NotLetIn => format!(
                "ssh -o BatchMode=yes {login} true    shows it without drover; name the key with ssh-key or \
                 ssh-key-env in drover.toml"
            ),
            DialKind::NoNix => format!(
                "ssh {login} command -v nix-daemon    looks for it; if it is not on PATH there, add \
                 ?remote-program=/nix/var/nix/profiles/default/bin/nix-daemon to the builder's URL"
            ),
            DialKind::Garbage { .. } => {
                format!("ssh {login} true    must print nothing; look at ~/.bashrc and the like over there")
            }
            DialKind::StoreDir => format!("ssh {login} nix -v --version    shows where its store is"),
            DialKind::TooOld => {
                format!("ssh {login} nix-daemon --version    shows its version; 2.19 or newer is needed")
            }
            DialKind::Other => format!("ssh {login} nix-daemon --version    shows whether it works without drover"),
        };
        DialError { kind, name: self.name.clone(), what: without_numbers(&what.into()), hint }
    }

    /// Trouble in the handshake.
    pub(super) fn of_store(&self, error: &StoreError) -> DialError {
        match error {
            StoreError::Daemon { error, said, .. } => match &**error {
                DaemonError::Fatal { error, .. } if error.text().contains("not allowed") => {
                    self.error(DialKind::Forbidden, error.text())
                }
                DaemonError::Closed { .. } if said.is_empty() => DialError {
                    hint: "see allowed-users in the nix.conf of the builder, and journalctl -u nix-daemon there"
                        .to_owned(),
                    ..self.error(DialKind::Other, "its daemon hangs up without a word")
                },
                DaemonError::Protocol { what, .. } if what.contains("drover needs") => {
                    self.error(DialKind::TooOld, what.clone())
                }
                DaemonError::Protocol { what, .. } => {
                    let bytes = what.strip_prefix("it begins with ").unwrap_or(what).to_owned();
                    self.error(DialKind::Garbage { bytes }, what.clone())
                }
                error => self.told(said, &error.to_string()),
            },
            StoreError::Socket { source, .. } => {
                let kind = match source.kind() {
                    std::io::ErrorKind::ConnectionRefused => DialKind::Refused,
                    std::io::ErrorKind::PermissionDenied => DialKind::Forbidden,
                    std::io::ErrorKind::NotFound => DialKind::Unreachable,
                    _ => DialKind::Other,
                };
                self.error(kind, chain(error))
            }
            other => self.error(DialKind::Other, chain(other)),
        }
    }

    /// Trouble that ssh, or a shell over there, spoke about.
    pub(super) fn told(&self, said: &str, ended: &str) -> DialError {
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let kind = if has(&["HOST IDENTIFICATION HAS CHANGED"]) {
            let shown = said.split_whitespace().find(|word| word.starts_with("SHA256:"));
            let shown = shown.map(|print| format!(", {}", print.trim_end_matches('.'))).unwrap_or_default();
            return self.error(DialKind::HostKeyChanged, format!("its host key is another than it should be{shown}"));
        } else if has(&["host key is known for", "Host key verification failed"]) {
            return self.error(DialKind::HostKeyUnknown, "nothing is known of its host key");
        } else if has(&["Permission denied (", "Too many authentication failures", "no mutual signature"]) {
            DialKind::NotLetIn
        } else if has(&["Connection refused"]) {
            DialKind::Refused
        } else if has(&["Could not resolve hostname", "Network is unreachable", "No route to host"]) {
            DialKind::Unreachable
        } else if has(&["timed out"]) {
            DialKind::TimedOut(self.patience)
        } else if has(&["nix-daemon: command not found", "nix-daemon: not found", "nix-daemon: No such file"]) {
            DialKind::NoNix
        } else {
            DialKind::Other
        };
        let what = match said.is_empty() {
            true => ended.to_owned(),
            false => said.to_owned(),
        };
        self.error(kind, what)
    }
}

impl From<DialError> for Error {
    fn from(error: DialError) -> Self {
        let fault = match error.kind {
            DialKind::Usage => Fault::Usage,
            _ => Fault::Unreachable,
        };
        let hint = error.hint.clone();
        Self::from_chain(fault, &error).hint(hint)
    }
}
