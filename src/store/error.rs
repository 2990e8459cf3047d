//! What goes wrong with stores, and what a person can do about it.

use std::path::PathBuf;

use crate::error::{Error, Fault};
use crate::event::Class;
use crate::id::StorePath;
use crate::nix_compat::daemon::DaemonError;
use crate::nix_compat::drv::DrvError;
use crate::nix_compat::error_class;
use crate::process::ProcessError;

/// A store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no Nix.
    #[error("cannot find Nix: there is no '{program}'")]
    NoNix {
        /// What was looked for.
        program: String,
    },
    /// Nix is older than drover can work with.
    #[error("cannot work with Nix {version}: the oldest supported version is {}.{}", super::settings::OLDEST.0, super::settings::OLDEST.1)]
    TooOld {
        /// As Nix says it.
        version: String,
    },
    /// A nix command failed.
    #[error("cannot ask Nix for its settings")]
    Command(#[source] ProcessError),
    /// A nix command printed something else than expected.
    #[error("cannot understand what '{command}' prints: {what}")]
    Output {
        /// The command.
        command: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The daemon could not be started.
    #[error("cannot start nix-daemon")]
    Start(#[source] ProcessError),
    /// Nobody listens on the daemon's socket.
    #[error("cannot connect to the Nix daemon at {}", .socket.display())]
    Socket {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An operation failed.
    #[error("cannot use {}: {}", store_name(.uri), why(.error, .said))]
    Daemon {
        /// Which store.
        uri: String,
        /// What went wrong.
        error: Box<DaemonError>,
        /// The last that the daemon's process said on stderr.
        said: String,
    },
    /// A .drv could not be read from disk.
    #[error("cannot read {}", .file.display())]
    ReadDrv {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A .drv is not in the store.
    #[error("cannot read {0}: it is not in the store")]
    NoDrv(StorePath),
    /// A .drv is broken.
    #[error(transparent)]
    Drv(#[from] DrvError),
}

/// What people call a store: Nix's own has a URI that says nothing.
fn store_name(uri: &str) -> String {
    if matches!(uri, "" | "auto" | "daemon" | "local") { "Nix's store".to_owned() } else { format!("the store {uri}") }
}

/// Of a daemon that only hung up, what its process said last says more.
fn why(error: &DaemonError, said: &str) -> String {
    let last = said.lines().rev().find_map(|line| line.trim().strip_prefix("error:")).map(str::trim);
    match (error, last.filter(|last| !last.is_empty())) {
        (DaemonError::Closed { .. }, Some(last)) => last.to_owned(),
        _ if said.is_empty() => error.to_string(),
        _ => format!("{error}\n{said}"),
    }
}

impl StoreError {
    /// Something to type, or to look at.
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoNix { .. } => "install Nix (https://nixos.org/download), or put it on PATH: export PATH=DIR:$PATH",
            Self::TooOld { .. } => "upgrade Nix, or put a newer one first on PATH",
            Self::Socket { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "your user may not use the daemon: see allowed-users in nix.conf"
                }
                _ => {
                    "start it: systemctl start nix-daemon.socket (macOS: launchctl kickstart system/org.nixos.nix-daemon)"
                }
            },
            Self::Daemon { error, said, uri } => {
                let told = error.remote().map(|error| error.text()).unwrap_or_default() + said;
                let forbidden =
                    ["Permission denied", "Read-only file system", "Operation not permitted", "creating directory"];
                let own = matches!(uri.as_str(), "" | "auto" | "daemon" | "local");
                if forbidden.iter().any(|words| told.contains(words)) {
                    match own {
                        true => {
                            "this user cannot write there: systemctl start nix-daemon.socket, or drover run --store DIR"
                        }
                        false => "drover run --store DIR    with a directory that this user can write",
                    }
                } else if told.contains("you are not privileged") {
                    "add your user to trusted-users in the nix.conf of the daemon"
                } else if matches!(**error, DaemonError::Protocol { .. }) {
                    "is that a Nix daemon? A login shell that prints something also spoils the protocol"
                } else if own {
                    "drover doctor    looks for what is wrong"
                } else {
                    return Some(format!("drover doctor --store {uri}    looks for what is wrong"));
                }
            }
            Self::NoDrv(_) => "evaluate again: it was collected as garbage, or evaluated into another store",
            Self::Output { command, .. } => return Some(format!("{command}    (Nix 2.26 and 2.34 are tested)")),
            Self::Command(_) => "nix config show    shows whether Nix itself works",
            Self::Start(_) => "nix-daemon --version    shows whether it is there; it comes with Nix",
            Self::ReadDrv { .. } | Self::Drv(_) => "nix store verify --all    looks for damage",
        };
        Some(text.to_owned())
    }

    /// Whether somebody else is making the same store at this moment.
    pub(super) fn is_being_made(&self) -> bool {
        let Self::Daemon { error, said, .. } = self else { return false };
        let told = error.remote().map(|error| error.text()).unwrap_or_default() + said;
        // What Nix 2.26 and 2.34 die of when several of them open a store that does not exist yet.
        let busy = told.contains("SQLite database") && told.contains("is busy");
        let half = told.contains("db/schema") && told.contains("is corrupt");
        let late = told.contains("gcroots/profiles") && told.contains("File exists");
        busy || half || late
    }

    /// Whether the connection it came from has to be dropped.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Daemon { error, .. } => error.is_fatal(),
            _ => true,
        }
    }

    /// What it is to a run that goes on without what was asked for. A store that is away, or has lost something, is no
    /// fault of drover's and none of what is built.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Daemon { error, .. } => match error_class::of_error(error) {
                Class::Build => Class::BuilderLost,
                class => class,
            },
            Self::Start(_) | Self::Socket { .. } | Self::ReadDrv { .. } => Class::BuilderLost,
            // As what is in no store and no cache.
            Self::NoDrv(_) => Class::Cache,
            _ => Class::Internal,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let fault = match &error {
            StoreError::NoNix { .. } | StoreError::TooOld { .. } | StoreError::Output { .. } => Fault::Usage,
            _ => Fault::Unreachable,
        };
        let hint = error.hint();
        let edge = Self::from_chain(fault, &error);
        match hint {
            Some(hint) => edge.hint(hint),
            None => edge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drv_that_was_collected_meanwhile_is_no_bug_in_drover() {
        let path = StorePath::from_parts([0; 20], "x.drv").unwrap();
        assert_eq!(StoreError::NoDrv(path).class(), Class::Cache);
    }
}
