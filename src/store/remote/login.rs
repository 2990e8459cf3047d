//! How to log in: everything that all ssh commands for one builder have in common, and the files that they need.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use super::address::SshAddress;
use super::error::{DialError, DialKind, Whom};
use super::{Key, RemoteOptions};
use crate::process::Cmd;

/// The longest path of a socket that every system takes, less what ssh adds to it for a moment.
const LONGEST: usize = 80;

/// How to log in: everything that all ssh commands for one builder have in common.
#[derive(Debug)]
pub(super) struct Login {
    /// Sockets and secrets; private, and gone when this is dropped.
    dir: PrivateDir,
    words: Vec<String>,
    /// A private key, which is in a file only while a master logs in.
    key: Option<Key>,
    /// How many need it at this moment.
    lent: Mutex<usize>,
    destination: String,
}

impl Login {
    pub(super) fn new(options: &RemoteOptions, address: &SshAddress, whom: &Whom) -> Result<Self, DialError> {
        let dir = PrivateDir::new(&options.runtime).map_err(|error| {
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
        // drover's own questions notice sooner that nobody answers, and say so. These end an ssh that drover has given up
        // and that would wait for its builder for ever.
        set("ServerAliveInterval=10");
        set("ServerAliveCountMax=6");
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
        Ok(Self { dir, words, key: options.key.clone(), lent: Mutex::new(0), destination: address.host.clone() })
    }

    /// A file of this login.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An ssh that logs in, as far as it does not depend on what for.
    pub(super) fn cmd(&self, first: &[&OsStr]) -> Cmd {
        Cmd::new("ssh").args(first).args(&self.words).args(["--", &self.destination])
    }

    /// Writes the private key; it is gone when all that this gives are dropped.
    pub(super) fn lend_key(&self) -> std::io::Result<Option<LentKey<'_>>> {
        let Some(key) = &self.key else { return Ok(None) };
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        if *lent == 0 {
            write_private(&self.file(KEY), key.file_text().as_bytes())?;
        }
        *lent += 1;
        Ok(Some(LentKey(self)))
    }
}

/// The name of its file.
const KEY: &str = "key";

/// The file of a private key, which somebody needs.
pub(super) struct LentKey<'a>(&'a Login);

impl Drop for LentKey<'_> {
    fn drop(&mut self) {
        let mut lent = self.0.lent.lock().unwrap_or_else(PoisonError::into_inner);
        *lent -= 1;
        if *lent == 0 {
            let _ = std::fs::remove_file(self.0.file(KEY));
        }
    }
}

/// A directory that only its owner can look into, for as long as this lives.
#[derive(Debug)]
struct PrivateDir {
    dir: TempDir,
    /// Locked: whoever was killed has left its directory behind, and holds no lock.
    _lock: File,
}

/// How their names begin.
const DIRS: &str = "drover-ssh-";

/// The name of the file that is locked in each.
const LOCK: &str = "lock";

impl PrivateDir {
    /// For sockets, as near to where it was asked for as their names' length allows. Those that a drover has left
    /// behind who was killed go.
    fn new(wanted: &Path) -> std::io::Result<Self> {
        let short = Path::new("/tmp");
        let near = if wanted.as_os_str().len() + 24 > LONGEST { short } else { wanted };
        sweep(near);
        // Only its owner can look into it: that is what `tempdir` makes.
        let dir = tempfile::Builder::new().prefix(DIRS).tempdir_in(near)?;
        // It has its name once it is locked, so that nobody takes it for one that was left behind.
        let (unlocked, locked) = (dir.path().join("unlocked"), dir.path().join(LOCK));
        let lock = File::create_new(&unlocked)?;
        lock.lock()?;
        std::fs::rename(unlocked, locked)?;
        Ok(Self { dir, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes this user's directories of this kind that nobody holds. What cannot be removed stays.
fn sweep(near: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(near).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(DIRS) {
            continue;
        }
        let path = entry.path();
        let is_own = std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir() && about.uid() == own);
        let lock = if is_own { File::open(path.join(LOCK)).ok() } else { None };
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets go of the lock, and of nothing else.
    fn killed(left: PrivateDir) -> PathBuf {
        left.dir.keep()
    }

    #[test]
    fn what_a_killed_drover_left_behind_goes_and_what_is_in_use_stays() {
        let near = tempfile::tempdir_in("/tmp").unwrap();
        let (ours, left) = (PrivateDir::new(near.path()).unwrap(), PrivateDir::new(near.path()).unwrap());
        write_private(&left.path().join(KEY), b"secret").unwrap();
        let left = killed(left);
        let unlocked = near.path().join("drover-ssh-unlocked");
        std::fs::create_dir(&unlocked).unwrap();
        let link = near.path().join("drover-ssh-link");
        std::os::unix::fs::symlink(&unlocked, &link).unwrap();
        let next = PrivateDir::new(near.path()).unwrap();
        assert!(ours.path().exists() && next.path().exists());
        assert!(!left.exists(), "it holds a key");
        assert!(unlocked.exists() && link.exists(), "somebody is about to lock it");
    }
}
