//! The only place that spawns children.
//!
//! Every child has its own process group, no standard input unless it asks for one, and dies with drover: the kernel
//! kills it when drover's main thread ends (`PR_SET_PDEATHSIG`; drover's runtime is single-threaded, so that thread
//! lives as long as the process). Every failure names the command, its status and its last words.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

/// A command to run: program, arguments, environment. Prints as something that can be pasted into a shell.
#[derive(Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<std::path::PathBuf>,
}

/// A child could not be started, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("cannot start '{command}'")]
    Start {
        /// The whole command line.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its output could not be read.
    #[error("cannot read the output of '{command}'")]
    Read {
        /// The whole command line.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// It ended with a bad status.
    #[error("'{command}' {}: {stderr}", describe(*status))]
    Status {
        /// The whole command line.
        command: String,
        /// Its status.
        status: ExitStatus,
        /// All that it said on stderr, trimmed.
        stderr: String,
    },
}

impl ProcessError {
    /// Whether the program does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// `exited with code 1`, `was killed by signal 9`.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

impl Cmd {
    /// This program, found on `PATH` if it has no slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { program: program.as_ref().to_owned(), args: Vec::new(), env: Vec::new(), dir: None }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// In this directory.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Starts it with pipes for stdin, stdout and stderr. Dropping the child kills it.
    pub fn spawn(&self) -> Result<tokio::process::Child, ProcessError> {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tracing::debug!(command = %self, "spawn");
        command.spawn().map_err(|source| ProcessError::Start { command: self.to_string(), source })
    }

    /// Runs it to its end without input and gives what it printed on stdout; a bad status is an error.
    pub async fn output(&self) -> Result<Vec<u8>, ProcessError> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tracing::debug!(command = %self, "run");
        let child = command.spawn().map_err(|source| ProcessError::Start { command: self.to_string(), source })?;
        let output = child
            .wait_with_output()
            .await
            .map_err(|source| ProcessError::Read { command: self.to_string(), source })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ProcessError::Status {
            command: self.to_string(),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v))).kill_on_drop(true).process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        die_with_parent(&mut command);
        command
    }
}

/// Asks the kernel to kill the child when drover's main thread ends.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let die =
        || rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(Into::into);
    #[expect(unsafe_code, reason = "prctl in the forked child is async-signal-safe and touches no memory of ours")]
    unsafe {
        command.pre_exec(die);
    }
}

/// Elsewhere `kill_on_drop` has to do.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

impl std::fmt::Debug for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cmd({self})")
    }
}

impl std::fmt::Display for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{}={} ", name.to_string_lossy(), quote(&value.to_string_lossy()))?;
        }
        f.write_str(&quote(&self.program.to_string_lossy()))?;
        for (at, arg) in self.args.iter().enumerate() {
            match at.checked_sub(2).is_some_and(|option| is_secret(&self.args[option..at])) {
                true => f.write_str(" …")?,
                false => write!(f, " {}", quote(&arg.to_string_lossy()))?,
            }
        }
        Ok(())
    }
}

/// Whether these are `--option NAME` of a setting whose value is nobody's business (`access-tokens`).
fn is_secret(words: &[OsString]) -> bool {
    let name = words.get(1).map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    words.first().is_some_and(|flag| flag == "--option") && ["token", "password"].iter().any(|word| name.contains(word))
}

/// The text as one word of a POSIX shell.
#[must_use]
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The process group of a child that has children of its own. Dropping it kills all of them.
#[derive(Debug)]
pub struct Group(Option<rustix::process::Pid>);

impl Group {
    /// Of a child that has not been waited for.
    #[must_use]
    pub fn of(child: &tokio::process::Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self(pid.and_then(rustix::process::Pid::from_raw))
    }

    /// Asks all of them to end.
    pub fn terminate(&self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
    }

    /// The child has ended and was waited for: its number may be somebody else's from now on.
    pub fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // If it is gone, so much the better.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let cmd = Cmd::new("nix").args(["--option", "access-tokens", "github.com=ghp_x", "--option", "cores", "2"]);
        assert_eq!(cmd.to_string(), "nix --option access-tokens … --option cores 2");
        assert!(!format!("{cmd:?}").contains("ghp_x"));
    }

    #[test]
    fn a_command_prints_as_it_would_be_typed() {
        let cmd = Cmd::new("nix").args(["build", "/nix/store/a.drv^*"]).env("A", "b c").arg("it's");
        assert_eq!(cmd.to_string(), r"A='b c' nix build '/nix/store/a.drv^*' 'it'\''s'");
    }
}
