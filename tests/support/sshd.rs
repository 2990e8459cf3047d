//! A private sshd: its own port, host key, user key and home directory; nothing of the machine's ssh is used.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![expect(clippy::disallowed_methods, reason = "test code has to spawn sshd")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::deadline::wait_until;
use super::nix::command_behind;

/// A running sshd; ends when dropped, with all its sessions and what they run.
pub struct Sshd {
    child: Child,
    dir: PathBuf,
    /// Words before its command.
    way_in: Vec<String>,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

/// The key of all users of a lab, and where they are kept.
pub struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// New ones, in this directory.
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
        let keys = Self { dir: dir.to_owned() };
        keygen(&keys.user());
        keys
    }

    /// The private key that logs in everywhere.
    pub fn user(&self) -> PathBuf {
        self.dir.join("user")
    }

    /// Another private key, which nobody lets in.
    pub fn stranger(&self) -> PathBuf {
        let file = self.dir.join("stranger");
        if !file.exists() {
            keygen(&file);
        }
        file
    }
}

/// Makes a key pair without a passphrase.
pub fn keygen(file: &Path) {
    let mut command = Command::new("ssh-keygen");
    let output = command.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(file).output().unwrap();
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}

/// A port that was free a moment ago, and that nobody gets who does not ask for this very number: it is none of those
/// that Linux gives to connections and to whoever listens anywhere.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    const FIRST: u16 = 10_000;
    // Other processes' tests begin elsewhere.
    let begin = u16::try_from(std::process::id() % u32::from(u16::MAX)).unwrap();
    let nth = || begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % end.saturating_sub(FIRST).max(1);
    let mut ports = std::iter::repeat_with(|| FIRST + nth()).take(usize::from(u16::MAX));
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("no port is free")
}

impl Sshd {
    /// Starts one in this directory and waits until it answers. `more` is further lines of sshd_config, `env` what its
    /// sessions find in their environment.
    pub fn start(dir: &Path, keys: &Keys, more: &str, env: &[(String, String)]) -> Self {
        Self::start_behind(Vec::new(), dir, keys, more, env)
    }

    /// The same with words before its command, which have to become it.
    pub fn start_behind(way_in: Vec<String>, dir: &Path, keys: &Keys, more: &str, env: &[(String, String)]) -> Self {
        fs::create_dir_all(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
        if !dir.join("host").exists() {
            keygen(&dir.join("host"));
        }
        fs::copy(keys.user().with_extension("pub"), dir.join("authorized")).unwrap();
        let set: Vec<String> = env.iter().map(|(name, value)| format!("\"{name}={value}\"")).collect();
        let conf = format!(
            "ListenAddress 127.0.0.1\nHostKey {0}/host\nPidFile none\nAuthorizedKeysFile {0}/authorized\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nUseDNS no\n\
             PermitRootLogin yes\nPermitUserEnvironment no\nPrintMotd no\nPrintLastLog no\nMaxStartups 200\n\
             LogLevel INFO\n{1}{2}\n{more}\n",
            dir.display(),
            if set.is_empty() { "" } else { "SetEnv " },
            set.join(" "),
        );
        loop {
            let port = free_port();
            fs::write(dir.join("sshd_config"), format!("Port {port}\n{conf}")).unwrap();
            if let Some(child) = spawn(&way_in, dir) {
                return Self { child, dir: dir.to_owned(), way_in, port };
            }
        }
    }

    /// Its public host key, `ssh-ed25519 AAAA…`.
    pub fn host_key(&self) -> String {
        let line = fs::read_to_string(self.dir.join("host.pub")).unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Kills it with all its sessions and what they run, as a machine does that loses power (but for the open files).
    pub fn kill(&mut self) {
        let all = descendants(self.child.id());
        for pid in std::iter::once(self.child.id()).chain(all) {
            signal(pid, "KILL");
        }
        let _ = self.child.wait();
    }

    /// Kills every session, but goes on listening.
    pub fn kill_sessions(&self) {
        for pid in self.processes() {
            signal(pid, "KILL");
        }
    }

    /// Listens again after [`Sshd::kill`], on the same port.
    pub fn restart(&mut self) {
        self.child = spawn(&self.way_in, &self.dir).expect("its port is taken");
    }

    /// Everything that its sessions run at this moment, and the sessions themselves.
    pub fn processes(&self) -> Vec<u32> {
        descendants(self.child.id())
    }
}

/// Starts sshd and waits until it listens; `None` if somebody else has its port.
fn spawn(way_in: &[String], dir: &Path) -> Option<Child> {
    let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd", "/run/current-system/sw/bin/sshd"];
    let sshd = sshd.iter().find(|path| Path::new(path).exists()).expect("no sshd: run ./nix/setup --test");
    let log = dir.join("log");
    let _ = fs::remove_file(&log);
    let mut command = command_behind(way_in, Path::new(sshd));
    command.arg("-D").arg("-f").arg(dir.join("sshd_config")).arg("-E").arg(&log);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().unwrap();
    wait_until("sshd", || {
        let ended = child.try_wait().unwrap().is_some();
        let said = fs::read_to_string(&log).unwrap_or_default();
        // Who connects to the port may find somebody else there.
        let listens = said.contains("Server listening");
        assert!(!ended || said.contains("Address already in use"), "sshd has ended: {said}");
        (ended || listens).then_some(!ended)
    })
    .then_some(child)
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), "--", &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Whether a process that is there has this name.
pub fn is_named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

/// All processes below this one.
pub fn descendants(root: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    found
}

/// All processes of this machine that are no zombies, with their parents.
fn parents() -> Vec<(u32, u32)> {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let stat = stat(pid)?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        Some((pid, fields.next()?.parse().ok()?)).filter(|_| state != "Z")
    })
    .collect()
}

/// The command lines of all processes that have this text in them.
pub fn processes_with(text: &str) -> Vec<String> {
    let line = |pid: u32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(format!("{pid}: {}", String::from_utf8_lossy(&bytes).replace('\0', " ")))
    };
    let me = std::process::id();
    parents()
        .into_iter()
        .filter(|(pid, _)| *pid != me)
        .filter_map(|(pid, _)| line(pid))
        .filter(|l| l.contains(text))
        .collect()
}
