//! A private sshd: its own port, host key, user key and home directory; nothing of the machine's ssh is used.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![expect(clippy::disallowed_methods, reason = "test code has to spawn sshd")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
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
        let port = free_port();
        let set: Vec<String> = env.iter().map(|(name, value)| format!("\"{name}={value}\"")).collect();
        let conf = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nPidFile none\nAuthorizedKeysFile {0}/authorized\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nUseDNS no\n\
             PermitRootLogin yes\nPermitUserEnvironment no\nPrintMotd no\nPrintLastLog no\nMaxStartups 200\n\
             LogLevel INFO\n{1}{2}\n{more}\n",
            dir.display(),
            if set.is_empty() { "" } else { "SetEnv " },
            set.join(" "),
        );
        fs::write(dir.join("sshd_config"), conf).unwrap();
        let child = spawn(&way_in, dir);
        let sshd = Self { child, dir: dir.to_owned(), way_in, port };
        sshd.wait();
        sshd
    }

    fn wait(&self) {
        for _ in 0..2000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return;
            }
            // There is no event to wait for: sshd says nothing when it listens.
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("sshd does not listen: {}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
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
        self.child = spawn(&self.way_in, &self.dir);
        self.wait();
    }

    /// Everything that its sessions run at this moment, and the sessions themselves.
    pub fn processes(&self) -> Vec<u32> {
        descendants(self.child.id())
    }
}

fn spawn(way_in: &[String], dir: &Path) -> Child {
    let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd", "/run/current-system/sw/bin/sshd"];
    let sshd = sshd.iter().find(|path| Path::new(path).exists()).expect("no sshd: run ./nix/setup --test");
    let mut command = command_behind(way_in, Path::new(sshd));
    command.arg("-D").arg("-f").arg(dir.join("sshd_config")).arg("-E").arg(dir.join("log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().unwrap()
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
