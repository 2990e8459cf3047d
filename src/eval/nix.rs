//! How this stage runs `nix`: which program, with which settings, and what it says on stderr. Does not know what is
//! evaluated.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;
use tokio::process::Child;

use super::message::{self, Said};
use crate::process::{Cmd, ProcessError};

/// Most bytes of output that are read from one short `nix` command.
const OUTPUT_LIMIT: u64 = 64 << 20;

/// The `nix` program with the settings that every call gets.
#[derive(Debug, Clone, Default)]
pub struct Nix {
    /// The program; found on `PATH` if it has no slash. Empty means `nix`.
    pub program: OsString,
    /// Variables on top of drover's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// Settings for every call, in Nix's own syntax: `--option K V`, `--store URL`, `--eval-store URL`, `--offline`,
    /// `--accept-flake-config`.
    pub args: Vec<String>,
    /// Where relative references start; drover's own directory if `None`.
    pub dir: Option<PathBuf>,
}

/// A `nix` command that ended: its status, its output, and what it said.
#[derive(Debug)]
pub(super) struct Ran {
    /// It ended with status 0.
    pub(super) ok: bool,
    /// Standard output.
    pub(super) stdout: Vec<u8>,
    /// Error and warning texts without colour, in order.
    pub(super) said: Vec<Said>,
}

impl Ran {
    /// The last error that it printed.
    pub(super) fn error(&self) -> Option<&str> {
        self.errors().last()
    }

    /// All errors that it printed.
    pub(super) fn errors(&self) -> impl Iterator<Item = &str> {
        self.said.iter().filter_map(|said| match said {
            Said::Error(text) => Some(text.as_str()),
            Said::Warning(_) | Said::Trace(_) | Said::Other(_) => None,
        })
    }

    /// The warnings that it printed.
    pub(super) fn warnings(&self) -> impl Iterator<Item = &str> {
        self.said.iter().filter_map(|said| match said {
            Said::Warning(text) => Some(text.as_str()),
            Said::Error(_) | Said::Trace(_) | Said::Other(_) => None,
        })
    }

    /// All that it said, for errors that nobody has a better word for.
    pub(super) fn all(&self) -> String {
        let texts = self.said.iter().map(|said| match said {
            Said::Error(text) | Said::Warning(text) | Said::Trace(text) | Said::Other(text) => text.as_str(),
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

impl Nix {
    /// The program's name.
    #[must_use]
    pub fn program(&self) -> &OsStr {
        if self.program.is_empty() { OsStr::new("nix") } else { &self.program }
    }

    /// `nix SUBCOMMAND` with the settings of every call; messages come as one JSON object a line on stderr.
    pub(super) fn cmd(&self, subcommand: &[&str]) -> Cmd {
        let mut cmd = Cmd::new(self.program()).args(subcommand);
        for (name, value) in &self.env {
            cmd = cmd.env(name, value);
        }
        if let Some(dir) = &self.dir {
            cmd = cmd.dir(dir);
        }
        cmd.args(["--extra-experimental-features", "nix-command flakes", "--log-format", "internal-json"])
            .args(&self.args)
    }

    /// The same for what needs little memory: with one thread that collects garbage, Nix starts 3 ms earlier.
    pub(super) fn small_cmd(&self, subcommand: &[&str]) -> Cmd {
        self.cmd(subcommand).env("GC_MARKERS", "1")
    }

    /// `git` in the environment of every call.
    pub(super) fn git(&self) -> Cmd {
        self.env.iter().fold(Cmd::new("git"), |cmd, (name, value)| cmd.env(name, value))
    }
}

/// Runs a short command to its end, without input.
pub(super) async fn run(cmd: &Cmd) -> Result<Ran, ProcessError> {
    end(start(cmd)?, cmd).await
}

/// Starts a short command without input, for [`end`].
pub(super) fn start(cmd: &Cmd) -> Result<Child, ProcessError> {
    let mut child = cmd.spawn()?;
    drop(child.stdin.take());
    Ok(child)
}

/// Waits for the end of a command that was started.
pub(super) async fn end(mut child: Child, cmd: &Cmd) -> Result<Ran, ProcessError> {
    let read = |source| ProcessError::Read { command: cmd.to_string(), source };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let read_out = async {
        match out {
            Some(pipe) => pipe.take(OUTPUT_LIMIT).read_to_end(&mut stdout).await,
            None => Ok(0),
        }
    };
    let read_err = async {
        match err {
            Some(pipe) => pipe.take(OUTPUT_LIMIT).read_to_end(&mut stderr).await,
            None => Ok(0),
        }
    };
    let (out, err) = tokio::join!(read_out, read_err);
    out.and(err).map_err(read)?;
    let status = child.wait().await.map_err(read)?;
    let said = String::from_utf8_lossy(&stderr).lines().filter_map(message::line).collect();
    Ok(Ran { ok: status.success(), stdout, said })
}
