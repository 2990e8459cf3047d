//! A farm on one machine: builders, each with its own Nix, store and sshd, and a coordinator that may use them.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::fault_proxy::FaultProxy;
use super::nix::{Daemon, Lab, Nix};
use super::sshd::{Keys, Sshd, descendants, is_named, signal};

/// How a builder lets itself be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A daemon on a socket that ssh may forward; its client is trusted.
    Forwarded,
    /// No daemon: each session is a `nix-daemon --stdio` with a store of its own.
    Stdio,
    /// As `Forwarded`, but the login is none of the daemon's trusted-users.
    Untrusted,
    /// A daemon whose socket ssh may not forward, and two sessions for each login at most.
    Narrow,
}

/// All kinds of builders.
pub const KINDS: [Kind; 4] = [Kind::Forwarded, Kind::Stdio, Kind::Untrusted, Kind::Narrow];

/// What a builder is to be like.
#[derive(Debug, Clone)]
pub struct BuilderSpec {
    /// How it lets itself be used.
    pub kind: Kind,
    /// Its Nix.
    pub nix: Nix,
    /// Whether its store is at /nix, in a mount namespace of its own, and its builds are unsandboxed.
    pub mounted: bool,
    /// What it builds for; `None`: as this machine.
    pub system: Option<String>,
    /// Its features; `None`: as its Nix finds.
    pub features: Option<Vec<String>>,
    /// Builds at once, for the machines file.
    pub slots: u32,
    /// Speed, for the machines file.
    pub speed: f64,
    /// Whether a fault proxy stands before it.
    pub proxy: bool,
    /// Further lines of its nix.conf.
    pub conf: String,
    /// Further lines of its sshd_config.
    pub sshd: String,
}

impl BuilderSpec {
    /// With four slots and nothing special.
    pub fn new(kind: Kind, nix: &Nix) -> Self {
        Self {
            kind,
            nix: nix.clone(),
            mounted: false,
            system: None,
            features: None,
            slots: 4,
            speed: 1.0,
            proxy: false,
            conf: String::new(),
            sshd: String::new(),
        }
    }

    /// With a store at /nix.
    pub fn mounted(mut self) -> Self {
        self.mounted = true;
        self
    }

    /// Behind a fault proxy.
    pub fn behind_proxy(mut self) -> Self {
        self.proxy = true;
        self
    }
}

/// A builder of a farm.
pub struct LabBuilder {
    /// What it is like.
    pub spec: BuilderSpec,
    // Everything that runs ends before the directory of the lab goes.
    /// In front of it, if it was asked for.
    pub proxy: Option<FaultProxy>,
    /// Its sshd.
    pub sshd: Sshd,
    /// Its daemon, if it has one.
    pub daemon: Option<Daemon>,
    /// Its Nix, store and home.
    pub lab: Lab,
}

/// The farm.
pub struct FarmLab {
    /// The builders, by number.
    pub builders: Vec<LabBuilder>,
    /// Who uses them: a Nix, a store and a home of its own.
    pub coordinator: Lab,
    /// The keys of all logins.
    pub keys: Keys,
    dir: TempDir,
}

impl FarmLab {
    /// A coordinator with this Nix, and these builders.
    pub fn new(nix: &Nix, specs: Vec<BuilderSpec>) -> Self {
        Self::with(Lab::chroot(nix), specs)
    }

    /// `count` builders of the fastest kind, with the coordinator's Nix.
    pub fn of(nix: &Nix, kind: Kind, count: usize) -> Self {
        Self::new(nix, vec![BuilderSpec::new(kind, nix); count])
    }

    /// The same with a coordinator that is there already.
    pub fn with(coordinator: Lab, specs: Vec<BuilderSpec>) -> Self {
        let dir = tempfile::Builder::new().prefix("drover-farm-").tempdir().unwrap();
        let keys = Keys::new(&dir.path().join("keys"));
        let start = |(number, spec)| LabBuilder::start(spec, &dir.path().join(format!("b{number}")), &keys);
        let builders: Vec<LabBuilder> = specs.into_iter().enumerate().map(start).collect();
        let lab = Self { builders, coordinator, keys, dir };
        lab.write_ssh_config();
        lab
    }

    /// What ssh has to know of the builders, which are called b0, b1, …
    fn write_ssh_config(&self) {
        let host = |(number, builder): (usize, &LabBuilder)| {
            format!(
                "Host b{number}\n  HostName 127.0.0.1\n  Port {}\n  User root\n  HostKeyAlias b{number}\n",
                builder.port()
            )
        };
        let hosts: String = self.builders.iter().enumerate().map(host).collect();
        let known = |(number, builder): (usize, &LabBuilder)| format!("b{number} {}\n", builder.sshd.host_key());
        let known: String = self.builders.iter().enumerate().map(known).collect();
        fs::write(self.known_hosts(), known).unwrap();
        let config = format!(
            "{hosts}Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile \
             /dev/null\n  StrictHostKeyChecking yes\n",
            self.keys.user().display(),
            self.known_hosts().display(),
        );
        fs::write(self.ssh_config(), config).unwrap();
    }

    /// The configuration for ssh in which the builders are hosts.
    pub fn ssh_config(&self) -> PathBuf {
        self.dir.path().join("ssh_config")
    }

    /// The host keys of all builders.
    pub fn known_hosts(&self) -> PathBuf {
        self.dir.path().join("known_hosts")
    }

    /// A file in the lab's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Words for ssh that lead to the builders.
    pub fn ssh_opts(&self) -> Vec<String> {
        vec!["-F".to_owned(), self.ssh_config().display().to_string()]
    }

    /// The environment of whoever uses the farm: the coordinator's, and `NIX_SSHOPTS`.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = self.coordinator.env();
        env.push(("NIX_SSHOPTS".to_owned(), self.ssh_opts().join(" ")));
        env
    }

    /// Any program in this environment, in the coordinator's work directory.
    pub fn program(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.coordinator.program(program);
        command.envs(self.env());
        command
    }

    /// The store URI of a builder, for drover as well as for Nix.
    pub fn builder_uri(&self, number: usize) -> String {
        match self.builders[number].remote_store() {
            None => format!("ssh-ng://b{number}"),
            Some(store) => {
                format!("ssh-ng://b{number}?remote-store={}", store.replace('?', "%3F").replace('=', "%3D"))
            }
        }
    }

    /// A builder's line in Nix's syntax of machines.
    pub fn builders_line(&self, number: usize) -> String {
        let spec = &self.builders[number].spec;
        let features = spec.features.as_ref().filter(|features| !features.is_empty());
        format!(
            "{} {} - {} {} {} - -",
            self.builder_uri(number),
            spec.system.as_deref().unwrap_or("-"),
            spec.slots,
            spec.speed,
            features.map_or("-".to_owned(), |features| features.join(",")),
        )
    }

    /// All builders' lines, for `--builders`.
    pub fn builders_lines(&self) -> String {
        (0..self.builders.len()).map(|number| self.builders_line(number)).collect::<Vec<_>>().join(" ; ")
    }
}

/// Kills a daemon with all that it has started.
pub fn end_daemon(daemon: Daemon) {
    let below = descendants(daemon.pid());
    drop(daemon);
    below.into_iter().for_each(|pid| signal(pid, "KILL"));
}

impl LabBuilder {
    fn start(spec: BuilderSpec, dir: &Path, keys: &Keys) -> Self {
        let lab = if spec.mounted { Lab::mounted(&spec.nix) } else { Lab::chroot(&spec.nix) };
        let mut conf = spec.conf.clone();
        if let Some(system) = &spec.system {
            conf += &format!("\nsystem = {system}");
        }
        if let Some(features) = &spec.features {
            conf += &format!("\nsystem-features = {}", features.join(" "));
        }
        if spec.kind == Kind::Untrusted {
            conf += "\ntrusted-users =";
        }
        lab.configure(&conf);
        let daemon = (spec.kind != Kind::Stdio).then(|| lab.daemon());
        let narrow = if spec.kind == Kind::Narrow { "AllowStreamLocalForwarding no\nMaxSessions 2\n" } else { "" };
        let sshd = Sshd::start_behind(lab.way_in(), dir, keys, &format!("{narrow}{}", spec.sshd), &lab.env());
        let proxy = spec.proxy.then(|| FaultProxy::start(sshd.port));
        Self { spec, proxy, sshd, daemon, lab }
    }

    /// Where it is to be reached.
    pub fn port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.sshd.port, |proxy| proxy.port)
    }

    /// Its proxy.
    pub fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("a builder behind a proxy")
    }

    /// What a store URI says as `remote-store`, as it is before it is encoded; `None` where it is what every login finds.
    pub fn remote_store(&self) -> Option<String> {
        let root = self.lab.path("root").display().to_string();
        match &self.daemon {
            _ if self.spec.mounted => None,
            None => Some(root),
            // Nothing but the URI says where the files are, and Nix reads them itself.
            Some(daemon) => Some(format!("unix://{}?root={root}", daemon.socket.display())),
        }
    }

    /// Kills all that runs on it, as a machine does that loses power (but for the open files).
    pub fn kill(&mut self) {
        self.kill_daemon();
        self.sshd.kill();
    }

    /// Kills its daemon with all that it has started, if it has one.
    pub fn kill_daemon(&mut self) {
        self.daemon.take().into_iter().for_each(end_daemon);
    }

    /// The processes of its connections and of their builds, at this moment.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = self.sshd.processes();
        all.extend(self.daemon.iter().flat_map(|daemon| descendants(daemon.pid())));
        all
    }

    /// Those of them that have this name.
    pub fn running(&self, name: &str) -> Vec<u32> {
        self.processes().into_iter().filter(|pid| is_named(*pid, name)).collect()
    }

    /// Starts its daemon anew.
    pub fn restart_daemon(&mut self) {
        self.kill_daemon();
        self.daemon = Some(self.lab.daemon());
    }
}
