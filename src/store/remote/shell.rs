//! Commands that run in the login's shell.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::error::DialError;
use super::mux::Running;
use super::ssh::{Place, Ssh};
use crate::nix_compat::ansi;
use crate::process::quote;

/// The most that is kept of what a command prints, in bytes.
const MOST: u64 = 8 << 20;

/// The most that is kept of its stderr, in bytes.
const MOST_WORDS: u64 = 4 << 10;

/// A command over there could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// It is reached through a socket, or its login runs something else than what it is told.
    #[error("the builder has no shell")]
    NoShell,
    /// It could not be started.
    #[error(transparent)]
    Session(#[from] DialError),
    /// It failed.
    #[error("{what}{}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// How it ended.
        what: String,
        /// The last that it said on stderr.
        said: String,
    },
}

/// The script as a command for whatever shell the login has.
pub(super) fn command(script: &str) -> String {
    format!("sh -c {}", quote(script))
}

/// A script that runs over there, without input.
#[derive(Debug)]
pub(super) struct Started {
    running: Running,
    _place: Place,
}

/// Starts a script.
pub(super) async fn start(ssh: &Ssh, script: &str) -> Result<Started, ShellError> {
    let (running, place) = ssh.session(&command(script)).await?;
    Ok(Started { running, _place: place })
}

/// Runs a script without input and gives what it prints.
pub(super) async fn run(ssh: &Ssh, script: &str) -> Result<Vec<u8>, ShellError> {
    finish(start(ssh, script).await?).await
}

/// What a script prints until it ends.
pub(super) async fn finish(Started { running, _place }: Started) -> Result<Vec<u8>, ShellError> {
    let Running { stdin, stdout, stderr, mut control } = running;
    drop(stdin);
    let ((printed, whole), (said, _)) = tokio::join!(read(stdout, MOST), read(stderr, MOST_WORDS));
    let said = ansi::text(&said).trim().to_owned();
    let what = match control.exit_code().await {
        Some(0) if whole => return Ok(printed),
        Some(0) => "it prints too much".to_owned(),
        Some(code) => format!("a command over there exited with code {code}"),
        None => "the connection ended".to_owned(),
    };
    Err(ShellError::Failed { what, said })
}

/// Reads to the end, keeps the start; whether that is all.
async fn read(mut from: impl AsyncRead + Unpin, most: u64) -> (Vec<u8>, bool) {
    let mut kept = Vec::new();
    let _ = (&mut from).take(most).read_to_end(&mut kept).await;
    let more = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    (kept, matches!(more, Ok(0)))
}
