//! What goes wrong with a daemon, and whether the connection survives it.

use super::message::Level;
use crate::nix_compat::ansi;
use crate::nix_compat::wire::WireError;

/// An error that the daemon sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteError {
    /// How important; nearly always 0.
    pub level: Level,
    /// The text, with colours, not necessarily UTF-8.
    pub message: Vec<u8>,
    /// What was being done, innermost first.
    pub traces: Vec<Vec<u8>>,
}

impl RemoteError {
    /// The message without colours and without `error:`.
    #[must_use]
    pub fn text(&self) -> String {
        let text = ansi::text(&self.message);
        let text = text.trim();
        text.strip_prefix("error:").unwrap_or(text).trim_start().to_owned()
    }
}

impl std::fmt::Display for RemoteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::error::Error for RemoteError {}

/// Why an operation did not happen. Only after [`DaemonError::Refused`] and [`DaemonError::Source`] can the
/// connection be used on; see [`DaemonError::is_fatal`].
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The daemon did not, or could not, do this one thing.
    #[error("{act}: {error}")]
    Refused {
        /// What was to be done: `asking whether paths are valid`.
        act: &'static str,
        /// What it said.
        error: RemoteError,
    },
    /// What was to be sent could not be read.
    #[error("{act}: cannot read what is to be sent")]
    Source {
        /// What was to be done.
        act: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// What was received could not be written.
    #[error("{act}: cannot write what was received")]
    Sink {
        /// What was to be done.
        act: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The daemon ended the connection with this error.
    #[error("{act}: {error}")]
    Fatal {
        /// What was to be done.
        act: &'static str,
        /// What it said.
        error: RemoteError,
    },
    /// The connection broke.
    #[error("{act}: the connection to the Nix daemon ended")]
    Closed {
        /// What was to be done.
        act: &'static str,
    },
    /// The connection could not be read or written.
    #[error("{act}: the connection to the Nix daemon failed")]
    Io {
        /// What was to be done.
        act: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The peer does not speak the protocol, or not as it should.
    #[error("{act}: the Nix daemon does not speak its protocol: {what}")]
    Protocol {
        /// What was to be done.
        act: &'static str,
        /// What was wrong.
        what: String,
    },
    /// An operation on this connection was abandoned or failed half-way.
    #[error("{act}: the connection to the Nix daemon is out of step, because an earlier operation was cut off")]
    Poisoned {
        /// What was to be done.
        act: &'static str,
    },
}

impl DaemonError {
    /// Whether the connection has to be dropped.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Source { .. })
    }

    /// What the daemon said, if it said anything.
    #[must_use]
    pub fn remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Refused { error, .. } | Self::Fatal { error, .. } => Some(error),
            _ => None,
        }
    }

    pub(super) fn wire(act: &'static str, error: WireError) -> Self {
        match error {
            WireError::Ended => Self::Closed { act },
            WireError::Io(source) => Self::Io { act, source },
            other @ (WireError::TooBig { .. } | WireError::Malformed(_)) => {
                Self::Protocol { act, what: other.to_string() }
            }
        }
    }
}
