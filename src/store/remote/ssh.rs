//! The ssh processes that carry a builder's connections.
//!
//! A *master* is one ssh that logs in once and stays for the run, with a control socket for further sessions and,
//! where the daemon's socket over there may be forwarded, a local socket that leads to it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr};

use super::address::SshAddress;
use super::error::{DialError, DialKind, Whom};
use super::{Key, RemoteOptions};
use crate::process::{Cmd, Group, describe, quote};
use crate::store::session::LastWords;

/// The longest path of a socket that every system takes, less what ssh adds to it for a moment.
const LONGEST: usize = 80;

/// How to log in: everything that all ssh commands for one builder have in common.
#[derive(Debug)]
pub(super) struct Login {
    /// Sockets and secrets; private, and gone when this is dropped.
    dir: TempDir,
    words: Vec<String>,
    /// A private key, which is in a file only while a master logs in.
    key: Option<Key>,
    destination: String,
}

impl Login {
    pub(super) fn new(options: &RemoteOptions, address: &SshAddress, whom: &Whom) -> Result<Self, DialError> {
        let dir = private_dir(&options.runtime).map_err(|error| {
            whom.error(DialKind::Other, format!("cannot make a directory in {}: {error}", options.runtime.display()))
        })?;
        let mut words: Vec<String> = Vec::new();
        let mut set = |option: &str| words.extend(["-o".to_owned(), option.to_owned()]);
        // ssh takes the first value that it hears: what has to be so comes first.
        set("BatchMode=yes");
        set("StrictHostKeyChecking=yes");
        let known: Vec<&str> =
            options.host_keys.iter().map(String::as_str).chain(address.host_key.as_deref()).collect();
        if !known.is_empty() {
            let file = dir.path().join("known_hosts");
            write_private(&file, known_hosts(&known).as_bytes())
                .map_err(|error| whom.error(DialKind::Other, format!("cannot write {}: {error}", file.display())))?;
            set(&format!("UserKnownHostsFile={}", quoted(&file)));
            set("GlobalKnownHostsFile=/dev/null");
        }
        set("UpdateHostKeys=no");
        set("ControlPersist=no");
        set("RemoteCommand=none");
        set("ForwardAgent=no");
        set("LogLevel=ERROR");
        words.extend(options.ssh_opts.iter().cloned());
        let mut set = |option: &str| words.extend(["-o".to_owned(), option.to_owned()]);
        set("ServerAliveInterval=10");
        set("ServerAliveCountMax=3");
        set("ConnectionAttempts=1");
        set(&format!("ConnectTimeout={}", options.patience.as_secs().max(1)));
        words.extend(["-x", "-T"].map(str::to_owned));
        let file = match &options.key {
            Some(_) => Some(dir.path().join(KEY)),
            None => options.ssh_key.clone().or_else(|| address.key.clone()),
        };
        if let Some(file) = file {
            words.extend([
                "-i".to_owned(),
                file.display().to_string(),
                "-o".to_owned(),
                "IdentitiesOnly=yes".to_owned(),
            ]);
        }
        if address.compress {
            words.push("-C".to_owned());
        }
        if let Some(port) = address.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = &address.user {
            words.extend(["-l".to_owned(), user.clone()]);
        }
        Ok(Self { dir, words, key: options.key.clone(), destination: address.host.clone() })
    }

    /// A file of this login.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the private key; it is gone when what this gives is dropped.
    fn lend_key(&self) -> std::io::Result<Option<LentKey>> {
        let Some(key) = &self.key else { return Ok(None) };
        let lent = LentKey(self.file(KEY));
        write_private(&lent.0, key.file_text().as_bytes())?;
        Ok(Some(lent))
    }
}

/// The name of its file.
const KEY: &str = "key";

/// The file of a private key.
#[derive(Debug)]
struct LentKey(PathBuf);

impl Drop for LentKey {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A directory for sockets, as near to where it was asked for as their names' length allows.
fn private_dir(wanted: &Path) -> std::io::Result<TempDir> {
    let short = Path::new("/tmp");
    let near = if wanted.as_os_str().len() + 24 > LONGEST { short } else { wanted };
    // Only its owner can look into it: that is what `tempdir` makes.
    tempfile::Builder::new().prefix("drover-ssh-").tempdir_in(near)
}

fn write_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(content)
}

/// A path as ssh reads it in an option.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// Lines of a known_hosts file; a key without a host is that of this host, whatever it is called.
fn known_hosts(keys: &[&str]) -> String {
    let bare = |line: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| line.starts_with(kind));
    let lines = keys.iter().flat_map(|key| key.lines()).map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| if bare(line) { format!("* {line}\n") } else { format!("{line}\n") }).collect()
}

/// One ssh that is logged in. Dropping it ends it, and with it all its sessions.
#[derive(Debug)]
pub(super) struct Master {
    child: tokio::sync::Mutex<Child>,
    /// Kills what the child started (a ProxyCommand) with it.
    group: Mutex<Group>,
    stderr: Mutex<Option<ChildStderr>>,
    words: LastWords,
    control: PathBuf,
    /// Leads to the daemon's socket, if that may be forwarded.
    pub(super) forward: Option<PathBuf>,
}

impl Master {
    /// Logs in; ready for sessions when this returns. `socket` is the daemon's socket over there.
    pub(super) async fn open(
        login: &Login,
        number: usize,
        socket: Option<&str>,
        whom: &Whom,
    ) -> Result<Self, DialError> {
        let _key = login
            .lend_key()
            .map_err(|error| whom.error(DialKind::Other, format!("cannot write its key for ssh: {error}")))?;
        let control = login.file(&format!("c{number}"));
        let forward = socket.map(|_| login.file(&format!("d{number}")));
        let mut cmd = Cmd::new("ssh").args(["-M", "-N", "-S"]).arg(&control);
        cmd = cmd.args(["-o", "PermitLocalCommand=yes", "-o", "LocalCommand=echo in"]).args(&login.words);
        if let (Some(forward), Some(socket)) = (&forward, socket) {
            cmd = cmd.args(["-o", "ExitOnForwardFailure=no", "-L"]).arg(format!("{}:{socket}", forward.display()));
        }
        let mut child = cmd.args(["--", &login.destination]).spawn().map_err(|error| {
            let what = match error.is_not_found() {
                true => "there is no ssh on PATH".to_owned(),
                false => crate::error::chain(&error),
            };
            whom.error(DialKind::Other, what)
        })?;
        drop(child.stdin.take());
        let group = Mutex::new(Group::of(&child));
        let words = LastWords::default();
        let mut stdout = child.stdout.take();
        let mut stderr = child.stderr.take();
        let mut byte = [0; 16];
        let read = async {
            match &mut stdout {
                Some(stdout) => stdout.read(&mut byte).await.unwrap_or(0),
                None => 0,
            }
        };
        // What it says on stderr is read meanwhile, so that it can never block on that.
        let ready = tokio::select! {
            len = read => len > 0,
            () = words.listen(&mut stderr) => false,
        };
        if ready {
            let child = tokio::sync::Mutex::new(child);
            return Ok(Self { child, group, stderr: Mutex::new(stderr), words, control, forward });
        }
        words.listen(&mut stderr).await;
        let ended = child.wait().await.map(|status: ExitStatus| format!("ssh {}", describe(status)));
        if let Ok(group) = &mut group.lock() {
            group.is_over();
        }
        Err(whom.told(&words.text(), &ended.unwrap_or_else(|error| error.to_string())))
    }

    /// A command that runs on the other side, in a session of this master.
    pub(super) fn command(&self, login: &Login, words: &[String]) -> Cmd {
        // If the master refuses, ssh would log in anew by itself, unasked and unseen.
        let cmd = Cmd::new("ssh").args(["-F", "none", "-o", "ProxyCommand=false", "-o", "LogLevel=ERROR", "-x", "-T"]);
        let cmd = cmd.arg("-S").arg(&self.control);
        let line: Vec<String> = words.iter().map(|word| quote(word)).collect();
        cmd.args(["--", &login.destination]).arg(line.join(" "))
    }

    /// Resolves when this ssh has ended.
    pub(super) async fn ended(&self) {
        let mut stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut child = self.child.lock().await;
        let wait = child.wait();
        tokio::pin!(wait);
        tokio::select! {
            _ = &mut wait => {}
            () = self.words.listen(&mut stderr) => { let _ = wait.await; }
        }
        self.group.lock().unwrap_or_else(PoisonError::into_inner).is_over();
    }

    /// Asks it to end.
    pub(super) fn stop(&self) {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).terminate();
    }
}
