//! Real Nixes for tests: finds them, and gives each test a throw-away store with a home and a nix.conf of its own.
//!
//! `DROVER_TEST_NIX` names directories of nix commands, newest first, joined by `:`; without it, what `nix/setup --test`
//! put under `target/nix` is taken. Nothing here reads or changes the machine's own Nix.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![allow(clippy::print_stderr, reason = "cargo shows it for failing tests only")]
#![expect(clippy::disallowed_methods, reason = "test code has to spawn Nix and to read where it is")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use super::deadline::wait_until;

/// One installed Nix.
#[derive(Debug, Clone)]
pub struct Nix {
    /// Directory of `nix`, `nix-daemon`, …
    pub bin: PathBuf,
    /// `2.34.8`.
    pub version: String,
}

/// Runs a test once with every Nix there is, newest first, and says which one is at work.
pub fn each_nix(mut test: impl FnMut(&Nix)) {
    for nix in all() {
        eprintln!("-- with Nix {}", nix.version);
        test(&nix);
    }
}

/// Everybody for whom this machine can be set up: root, an owner of a store, trusted and untrusted clients of a daemon.
/// Users other than root need to get at the programs; if they cannot, this says so.
pub fn everybody() -> Vec<Who> {
    let programs = all().into_iter().map(|nix| nix.bin).chain([PathBuf::from(env!("CARGO_BIN_EXE_drover"))]);
    let closed = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o001 == 0;
    let programs: Vec<PathBuf> = programs.map(|program| fs::canonicalize(program).unwrap()).collect();
    let dirs = programs.iter().flat_map(|program| program.ancestors());
    match dirs.into_iter().find(|dir| closed(dir)) {
        Some(dir) => {
            eprintln!("-- NOT RUN as another user than root: {} is closed to others", dir.display());
            vec![Who::Root]
        }
        None => vec![Who::Root, Who::Owner, Who::Client { trusted: true }, Who::Client { trusted: false }],
    }
}

/// The newest Nix there is.
pub fn newest() -> Nix {
    all().remove(0)
}

/// Every Nix there is, newest first; never empty.
pub fn all() -> Vec<Nix> {
    let bins = match std::env::var("DROVER_TEST_NIX") {
        Ok(list) => list.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect(),
        Err(_) => installed_by_setup(),
    };
    let found: Vec<Nix> = bins.into_iter().filter_map(Nix::at).collect();
    assert!(!found.is_empty(), "no Nix to test with: run ./nix/setup --test");
    found
}

/// `target/nix/*/bin` of this checkout, or of the checkout whose linked worktree this is; newest first.
fn installed_by_setup() -> Vec<PathBuf> {
    for root in checkouts() {
        let mut bins: Vec<PathBuf> = fs::read_dir(root.join("target/nix"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .filter(|bin| bin.join("nix").exists())
            .collect();
        if !bins.is_empty() {
            bins.sort_by_key(|bin| std::cmp::Reverse(numbers(&bin.to_string_lossy())));
            return bins;
        }
    }
    Vec::new()
}

/// This checkout and, if it is a linked worktree, the one that it belongs to.
fn checkouts() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = vec![here.to_owned()];
    // In a linked worktree `.git` is a file: `gitdir: MAIN/.git/worktrees/NAME`.
    if let Ok(text) = fs::read_to_string(here.join(".git"))
        && let Some(git_dir) = text.strip_prefix("gitdir: ")
    {
        roots.extend(Path::new(git_dir.trim()).ancestors().nth(3).map(Path::to_owned));
    }
    roots
}

/// A program that `nix/setup --test` installed below `target/nix`.
pub fn tool(name: &str) -> PathBuf {
    let mut all = checkouts().into_iter().map(|root| root.join("target/nix").join(name));
    all.find(|path| path.exists()).unwrap_or_else(|| panic!("no {name} below target/nix: run ./nix/setup --test"))
}

/// All numbers in a text, for comparing versions.
fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

impl Nix {
    fn at(bin: PathBuf) -> Option<Self> {
        let output = Command::new(bin.join("nix")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(Self { bin, version: text.split_whitespace().last()?.to_owned() })
    }

    /// Major and minor, `(2, 34)`.
    pub fn release(&self) -> (u32, u32) {
        let numbers = numbers(&self.version);
        (numbers[0], numbers[1])
    }

    /// A static shell and a static busybox that builders can be given.
    fn static_tool(&self, name: &str) -> PathBuf {
        [self.bin.join(name), Path::new("/usr/bin").join(name), Path::new("/bin").join(name)]
            .into_iter()
            .find_map(|path| fs::canonicalize(path).ok())
            .unwrap_or_else(|| panic!("no {name} on this machine: run ./nix/setup --test"))
    }
}

/// How a throw-away store is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `--store DIR`: paths read /nix/store/…, files are in DIR/nix/store, every build runs in a chroot in which
    /// /bin/sh is bash and /bin/sleep is busybox's (there is nothing else: no cat, no mkdir).
    Chroot,
    /// `NIX_STORE_DIR` and friends: paths read TMP/store/…, builds run unsandboxed and see the machine's tools. The
    /// fastest, and proof that nothing assumes /nix/store.
    Plain,
    /// As on a machine of its own: paths read /nix/store, files are in TMP/nix, which the lab's processes see as /nix in
    /// a mount namespace of theirs. Builds run unsandboxed. Takes root, and a directory /nix to mount on.
    Mounted,
}

/// Who works in a lab. Users have a number and no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Root, without a daemon.
    Root,
    /// A user, in a chroot store of their own.
    Owner,
    /// A user of a root daemon with a chroot store and `sandbox = true`, who is one of its `trusted-users` or not.
    Client { trusted: bool },
}

/// Number of the user of a lab that is not root's.
pub const USER: u32 = 54_321;

/// A Nix with a store, home and configuration that vanish when this is dropped.
pub struct Lab {
    /// Which Nix.
    pub nix: Nix,
    /// How its store is laid out.
    pub layout: Layout,
    /// Who works in it.
    pub who: Who,
    /// Their daemon. Before the directory: it has to end first.
    root_daemon: Mutex<Option<Daemon>>,
    dir: TempDir,
}

impl Lab {
    /// A lab with a chroot store.
    pub fn chroot(nix: &Nix) -> Self {
        Self::new(nix, Layout::Chroot, Who::Root)
    }

    /// A lab with a chroot store in which these people work.
    pub fn of(nix: &Nix, who: Who) -> Self {
        Self::new(nix, Layout::Chroot, who)
    }

    /// A lab whose store directory is not /nix/store.
    pub fn plain(nix: &Nix) -> Self {
        Self::new(nix, Layout::Plain, Who::Root)
    }

    /// A lab whose processes see its files as /nix.
    pub fn mounted(nix: &Nix) -> Self {
        Self::new(nix, Layout::Mounted, Who::Root)
    }

    fn new(nix: &Nix, layout: Layout, who: Who) -> Self {
        let dir = tempfile::Builder::new().prefix("drover-lab-").tempdir().unwrap();
        let lab = Self { nix: nix.clone(), layout, who, root_daemon: Mutex::new(None), dir };
        for sub in ["home", "conf", "config", "cache", "state", "data", "work", "tmp"] {
            fs::create_dir(lab.path(sub)).unwrap();
        }
        if who != Who::Root {
            fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755)).unwrap();
            for sub in ["", "home", "config", "cache", "state", "data", "work", "tmp"] {
                std::os::unix::fs::chown(lab.path(sub), Some(USER), Some(USER)).unwrap();
            }
        }
        if who == Who::Owner {
            fs::create_dir(lab.path("root")).unwrap();
            lab.give(&lab.path("root"));
        }
        // Without a state directory a daemon whose store is `auto` connects to its own socket, for ever (2.26).
        match layout {
            Layout::Chroot => {}
            Layout::Plain => fs::create_dir_all(lab.path("var/nix")).unwrap(),
            Layout::Mounted => fs::create_dir_all(lab.path("nix/var/nix")).unwrap(),
        }
        lab.configure("");
        lab
    }

    /// A path in the lab's directory.
    pub fn path(&self, sub: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(sub)
    }

    /// An empty directory for the test's own files.
    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// Writes a file below [`Lab::work`] and gives its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.work().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.give(&self.work());
        path
    }

    /// Gives a file or a directory with all that is in it to the lab's user, if that is not root.
    pub fn give(&self, path: &Path) {
        if self.who != Who::Root {
            let status = Command::new("chown").args(["-hR", &format!("{USER}:{USER}")]).arg(path).status().unwrap();
            assert!(status.success(), "chown {}", path.display());
        }
    }

    /// Writes nix.conf anew: the lab's own lines, then these. A root daemon is started, or started again.
    pub fn configure(&self, more: &str) {
        let more = match self.who {
            Who::Root | Who::Owner => more.to_owned(),
            Who::Client { trusted: false } => format!("sandbox = true\ntrusted-users = root\n{more}"),
            Who::Client { trusted: true } => format!("sandbox = true\ntrusted-users = root {USER}\n{more}"),
        };
        let conf = format!(
            "experimental-features = nix-command flakes\nbuild-users-group =\nsandbox = false\nsubstituters =\n\
             max-jobs = 4\nflake-registry =\nsandbox-paths = /bin/sh={} /bin/sleep={}\n{more}\n",
            self.nix.static_tool("bash-static").display(),
            self.nix.static_tool("busybox").display(),
        );
        fs::write(self.path("conf/nix.conf"), conf).unwrap();
        if matches!(self.who, Who::Client { .. }) {
            let mut daemon = self.root_daemon.lock().unwrap();
            drop(daemon.take());
            *daemon = Some(self.daemon());
        }
    }

    /// What `--store` takes to reach the lab's store; `None` where [`Lab::env`] says it all.
    pub fn store_arg(&self) -> Option<String> {
        let root = self.path("root").display().to_string();
        match (self.layout, self.who) {
            (Layout::Chroot, Who::Root | Who::Owner) => Some(root),
            // Nothing but the URI says where the files of another root are.
            (Layout::Chroot, Who::Client { .. }) => Some(format!("unix://{}?root={root}", self.socket().display())),
            (Layout::Plain | Layout::Mounted, _) => None,
        }
    }

    /// The socket of its daemon, as this process sees it.
    fn socket(&self) -> PathBuf {
        match self.layout {
            Layout::Chroot | Layout::Plain => self.path("daemon.sock"),
            Layout::Mounted => self.path("nix/var/nix/daemon-socket/socket"),
        }
    }

    /// The store directory as it stands in store paths.
    pub fn store_dir(&self) -> String {
        match self.layout {
            Layout::Chroot | Layout::Mounted => "/nix/store".to_owned(),
            Layout::Plain => self.path("store").display().to_string(),
        }
    }

    /// Where the files of the store really are.
    pub fn physical(&self) -> PathBuf {
        match self.layout {
            Layout::Chroot => self.path("root/nix/store"),
            Layout::Plain => self.path("store"),
            Layout::Mounted => self.path("nix/store"),
        }
    }

    /// Everything that a child has to be told by its environment. Nothing else of the machine's Nix may leak in:
    /// see [`Lab::unset`].
    pub fn env(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut env = vec![
            ("PATH".to_owned(), format!("{}:{path}", self.nix.bin.display())),
            ("HOME".to_owned(), self.path("home").display().to_string()),
            ("NIX_CONF_DIR".to_owned(), self.path("conf").display().to_string()),
            ("XDG_CONFIG_HOME".to_owned(), self.path("config").display().to_string()),
            ("XDG_CACHE_HOME".to_owned(), self.path("cache").display().to_string()),
            ("XDG_STATE_HOME".to_owned(), self.path("state").display().to_string()),
            ("XDG_DATA_HOME".to_owned(), self.path("data").display().to_string()),
            ("TMPDIR".to_owned(), self.path("tmp").display().to_string()),
        ];
        if self.layout == Layout::Plain {
            for (name, sub) in [("NIX_STORE_DIR", "store"), ("NIX_STATE_DIR", "var/nix"), ("NIX_LOG_DIR", "var/log")] {
                env.push((name.to_owned(), self.path(sub).display().to_string()));
            }
        }
        env
    }

    /// Variables that a child must not inherit.
    pub fn unset(&self) -> &'static [&'static str] {
        &["NIX_REMOTE", "NIX_PATH", "NIX_CONFIG", "NIX_USER_CONF_FILES", "NIX_DAEMON_SOCKET_PATH", "NIX_SSHOPTS"]
    }

    /// A nix command of this lab, not yet told which store (`nix`, `nix-store`, …), in [`Lab::work`].
    pub fn bare_command(&self, program: &str) -> Command {
        self.prepare(self.enter(&self.nix.bin.join(program)))
    }

    /// Words before a command that let it see the lab's files where the lab's layout says; they become the command, so
    /// its process is the one that was started.
    pub fn way_in(&self) -> Vec<String> {
        match self.layout {
            Layout::Chroot | Layout::Plain => Vec::new(),
            Layout::Mounted => {
                let files = self.path("nix").display().to_string();
                let unshare = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c"].map(str::to_owned);
                unshare.into_iter().chain(["mount --bind \"$0\" /nix && exec \"$@\"".to_owned(), files]).collect()
            }
        }
    }

    fn enter(&self, program: &Path) -> Command {
        command_behind(&self.way_in(), program)
    }

    /// Any program (drover itself, say) in the environment of this lab.
    pub fn program(&self, program: impl AsRef<Path>) -> Command {
        self.prepare(self.enter(program.as_ref()))
    }

    fn prepare(&self, mut command: Command) -> Command {
        for name in self.unset() {
            command.env_remove(name);
        }
        command.envs(self.env()).current_dir(self.work()).stdin(Stdio::null());
        if self.who != Who::Root {
            command.uid(USER).gid(USER);
        }
        command
    }

    /// A nix command on the lab's store.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.bare_command(program);
        if let Some(store) = self.store_arg() {
            command.arg("--store").arg(store);
        }
        command
    }

    /// Runs a nix command on the lab's store; gives its stdout without the last newline, panics if it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {args:?} with Nix {} failed:\n{}",
            self.nix.version,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The same for a command that is not told which store.
    pub fn run_bare(&self, program: &str, args: &[&str]) -> String {
        let output = self.bare_command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}:\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Instantiates a Nix expression; gives the absolute path of its .drv.
    pub fn instantiate(&self, expr: &str) -> String {
        let out = self.run("nix-instantiate", &["--expr", expr]);
        // Without a root nix-instantiate may print `path!out` for other outputs than `out`.
        out.lines().next().unwrap().split('!').next().unwrap().to_owned()
    }

    /// Instantiates the derivation that [`derivation`] describes.
    pub fn drv(&self, name: &str, script: &str, more: &str) -> String {
        self.instantiate(&derivation(name, script, more))
    }

    /// Starts a daemon for the lab's store on a socket of its own and waits until it listens. What it says goes to
    /// `daemon.log` in the lab.
    pub fn daemon(&self) -> Daemon {
        let socket = self.socket();
        let mut command = self.bare_command("nix-daemon");
        if self.layout == Layout::Chroot {
            command.arg("--store").arg(self.path("root"));
        }
        if matches!(self.who, Who::Client { .. }) {
            // The daemon is root's, with a cache and a home of its own.
            let home = self.path("daemon");
            fs::create_dir_all(&home).unwrap();
            command.uid(0).gid(0).envs([("HOME", &home), ("XDG_CACHE_HOME", &home), ("XDG_CONFIG_HOME", &home)]);
            command.env("TMPDIR", &home);
        }
        if self.layout != Layout::Mounted {
            command.env("NIX_DAEMON_SOCKET_PATH", &socket);
        }
        command.stderr(fs::File::create(self.path("daemon.log")).unwrap());
        let child = command.spawn().unwrap();
        let daemon = Daemon { child, socket };
        // There is no event to wait for: the daemon says nothing when it listens.
        let listens = || std::os::unix::net::UnixStream::connect(&daemon.socket).ok();
        wait_until(&format!("the nix-daemon of Nix {}", self.nix.version), listens);
        daemon
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Store paths are read-only directories; root does not mind, others do.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.dir.path()).stderr(Stdio::null()).status();
    }
}

/// A command with these words before it.
pub fn command_behind(words: &[String], program: &Path) -> Command {
    match words.split_first() {
        None => Command::new(program),
        Some((first, more)) => {
            let mut command = Command::new(first);
            command.args(more).arg(program);
            command
        }
    }
}

/// A Nix expression of a derivation built by /bin/sh, for this machine's system. The script runs under `set -e`, so
/// that a missing tool is a failure and not an empty success. `more` is further attributes: `outputs = [ "a" ];`.
pub fn derivation(name: &str, script: &str, more: &str) -> String {
    let script = format!("set -e\n{script}").replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"{script}\" ]; {more} }}"
    )
}

/// A running nix-daemon; ends when dropped.
pub struct Daemon {
    child: Child,
    /// Its socket.
    pub socket: PathBuf,
}

impl Daemon {
    /// Its process; the connections are its children.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
