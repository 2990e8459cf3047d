//! A place where people use drover: a flake, a throw-away store, a state directory, and the real binary.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by panicking")]
#![expect(clippy::disallowed_methods, reason = "test code has to spawn drover")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::deadline::expect_nothing_left;
pub use super::deadline::wait_until;
use super::nix::{Lab, Nix};
use super::program::write_program;
use crate::eval::{commit, fixture};

/// See the module's page.
pub struct Site {
    /// Store, home and nix.conf.
    pub lab: Lab,
    /// The flake.
    pub flake: PathBuf,
}

/// How a drover ended, and all that it said.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
    what: String,
}

/// A pair of keys.
pub struct Key {
    pub secret: PathBuf,
    pub public: String,
}

impl Site {
    /// A committed copy of a fixture.
    pub fn new(lab: Lab, name: &str) -> Self {
        let flake = fixture(&lab, name);
        Self { lab, flake }
    }

    /// The sample fleet, building without delay.
    pub fn fleet(lab: Lab) -> Self {
        Self::fleet_at(lab, 0)
    }

    /// The sample fleet with its durations at so many per cent.
    pub fn fleet_at(lab: Lab, scale: u32) -> Self {
        let site = Self::new(lab, "fleet");
        site.edit("scale", &format!("{scale}\n"));
        site
    }

    /// A flake of one file.
    pub fn of(lab: Lab, flake_nix: &str) -> Self {
        lab.write("flake/flake.nix", flake_nix);
        let flake = lab.work().join("flake");
        commit(&lab, &flake);
        Self { lab, flake }
    }

    /// Changes a file of the flake and commits it.
    pub fn edit(&self, file: &str, content: &str) {
        let path = self.flake.join(file);
        if fs::read_to_string(&path).is_ok_and(|old| old == content) {
            return;
        }
        fs::write(path, content).unwrap();
        commit(&self.lab, &self.flake);
    }

    /// drover with these arguments in the flake's directory. The first is the verb.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_on(self.lab.store_arg().as_deref(), args)
    }

    /// The same on this store; `None` for what Nix takes by itself.
    pub fn command_on(&self, store: Option<&str>, args: &[&str]) -> Command {
        let mut command = self.lab.program(env!("CARGO_BIN_EXE_drover"));
        for name in ["CI", "NO_COLOR", "CLICOLOR_FORCE", "TERM", "DROVER_STATE_DIR", "DROVER_PUSH_TO", "DROVER_LOG"] {
            command.env_remove(name);
        }
        for name in
            ["GITHUB_ACTIONS", "FORGEJO_ACTIONS", "GITEA_ACTIONS", "GITLAB_CI", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"]
        {
            command.env_remove(name);
        }
        command.current_dir(&self.flake).args(args);
        if let Some(store) = store {
            command.args(["--store", store]);
        }
        command
    }

    /// Runs drover to its end.
    pub fn drover(&self, args: &[&str]) -> Ran {
        finish(self.command(args), args)
    }

    /// Runs drover, which has to end with this code.
    pub fn exits(&self, code: i32, args: &[&str]) -> Ran {
        let ran = self.drover(args);
        ran.expect(code);
        ran
    }

    /// Starts drover in the background.
    pub fn start(&self, args: &[&str]) -> Running {
        start(self.command(args), args)
    }

    /// Where records are.
    pub fn state(&self) -> PathBuf {
        self.lab.path("state/drover")
    }

    /// Folders of recorded runs, oldest first.
    pub fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state().join("runs")).unwrap();
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        runs.sort();
        runs
    }

    /// The events of the last run.
    pub fn events(&self) -> Events {
        Events::read(&self.runs().pop().unwrap().join("events.jsonl"))
    }

    /// A new pair of keys.
    pub fn key(&self, name: &str) -> Key {
        let secret = self.lab.run("nix", &["key", "generate-secret", "--key-name", name]);
        let path = self.lab.write(&format!("{name}.key"), &secret);
        let mut command = self.lab.bare_command("nix");
        command.args(["key", "convert-secret-to-public"]).stdin(fs::File::open(&path).unwrap());
        let public = String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned();
        Key { secret: path, public }
    }

    /// A `file://` cache of this lab.
    pub fn cache(&self) -> PathBuf {
        self.lab.path("cache.d")
    }

    /// `file://…?secret-key=…`.
    pub fn cache_url(&self, key: &Key) -> String {
        format!("file://{}?secret-key={}", self.cache().display(), key.secret.display())
    }

    /// Names (without directory) of the outputs of some drvs.
    pub fn outputs(&self, drvs: &BTreeSet<String>) -> BTreeSet<String> {
        let mut args = vec!["--query", "--outputs"];
        args.extend(drvs.iter().map(String::as_str));
        self.lab.run("nix-store", &args).lines().map(base).collect()
    }

    /// From now on a wrapper that notes its arguments stands before this nix command; gives the `PATH` to use and the
    /// file of notes.
    pub fn spy(&self, program: &str) -> (String, PathBuf) {
        let dir = self.lab.path("spy");
        fs::create_dir_all(&dir).unwrap();
        let notes = dir.join("notes");
        fs::write(&notes, "").unwrap();
        let real = self.lab.nix.bin.join(program);
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", notes.display(), real.display());
        write_program(&dir.join(program), &script);
        let path = std::env::var("PATH").unwrap_or_default();
        (format!("{}:{}:{path}", dir.display(), self.lab.nix.bin.display()), notes)
    }

    /// Processes that have anything to do with this lab: its path is in their environment, their command line, or (a
    /// builder in a chroot) in what is mounted for them.
    pub fn processes(&self) -> Vec<Process> {
        // Its name alone: what is mounted is told by its path within its file system.
        let lab = self.lab.path("");
        let lab = lab.file_name().unwrap().to_str().unwrap();
        let about = |pid: u32| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            let file =
                |name: &str| String::from_utf8_lossy(&fs::read(proc.join(name)).unwrap_or_default()).into_owned();
            let cmdline = file("cmdline").replace('\0', " ");
            let all = [file("environ"), file("mountinfo"), cmdline.clone()];
            // `pid (name) state parent …`
            let stat = file("stat");
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            // What has ended and waits to be noticed has no command line any more.
            let alive = !cmdline.is_empty() && all.iter().any(|text| text.contains(lab));
            alive.then_some(Process { pid, parent, cmdline })
        };
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter_map(about).collect()
    }

    /// Fails if any process of this lab is alive after `patience`.
    pub fn expect_no_process(&self, patience: Duration) {
        expect_nothing_left(patience, "a process", || self.processes());
    }
}

/// One process.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub cmdline: String,
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("/bin/kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// Runs a command to its end.
pub fn finish(mut command: Command, args: &[&str]) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        what: format!("{args:?}"),
    }
}

/// Starts a command in the background.
pub fn start(mut command: Command, args: &[&str]) -> Running {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Running { child, what: format!("{args:?}") }
}

/// A drover at work; killed when dropped.
pub struct Running {
    child: Child,
    what: String,
}

impl Running {
    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> Ran {
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        let (mut out, mut err) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::Read::read_to_end(&mut out, &mut stdout).unwrap());
            std::io::Read::read_to_end(&mut err, &mut stderr).unwrap();
        });
        let status = self.child.wait().unwrap();
        Ran {
            code: status.code(),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            what: self.what.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// It has to have ended with this code.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "drover {}\n{}\n{}", self.what, self.out(), self.stderr);
        self
    }

    /// What it printed.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out(), self.stderr))
    }

    /// The last words on stderr.
    pub fn last_line(&self) -> &str {
        self.stderr.lines().next_back().unwrap_or_default()
    }
}

/// Commits all that is in a repository as what the default branch of its origin is.
pub fn commit_as_origin(lab: &Lab, dir: &Path) {
    commit(lab, dir);
    let refs = ["update-ref", "refs/remotes/origin/main", "HEAD"];
    assert!(lab.program("git").current_dir(dir).args(refs).status().unwrap().success());
}

/// Last part of a path.
pub fn base(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// The strings of a JSON array.
pub fn strings(value: &Value) -> BTreeSet<String> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// Attr → status of a `--json` document.
pub fn statuses(document: &Value) -> BTreeMap<String, String> {
    let text = |attr: &Value, key: &str| attr[key].as_str().unwrap_or("null").to_owned();
    document["attrs"].as_array().unwrap().iter().map(|attr| (text(attr, "attr"), text(attr, "status"))).collect()
}

/// Attr → class of its error.
pub fn classes(document: &Value) -> BTreeMap<String, String> {
    let attrs = document["attrs"].as_array().unwrap().iter().filter(|attr| !attr["error"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or("null").to_owned();
    attrs.map(|attr| (text(&attr["attr"]), text(&attr["error"]["class"]))).collect()
}

/// Names of what a cache directory has a record of.
pub fn narinfos(cache: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let records = entries.filter(|path| path.extension().is_some_and(|ext| ext == "narinfo"));
    records
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let name = text.lines().find_map(|line| line.strip_prefix("StorePath: ")).map(base).unwrap();
            (name, text)
        })
        .collect()
}

/// A recorded run.
pub struct Events(pub Vec<Value>);

impl Events {
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap();
        Self(text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect())
    }

    /// Those of one kind.
    pub fn of(&self, event: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["event"] == event).collect()
    }

    /// Names of the drvs that were built.
    pub fn built(&self) -> Vec<String> {
        let ended = self.of("drv_ended").into_iter().filter(|event| event["outcome"] == "built");
        ended.map(|event| self.drv_name(event)).collect()
    }

    /// Names of the drvs that were fetched.
    pub fn fetched(&self) -> Vec<String> {
        let ended = self.of("drv_ended").into_iter().filter(|event| event["outcome"] == "fetched");
        ended.map(|event| self.drv_name(event)).collect()
    }

    /// The name of the drv of an event.
    pub fn drv_name(&self, event: &Value) -> String {
        let needed = self.of("drv_needed").into_iter().find(|needed| needed["drv"] == event["drv"]).unwrap();
        needed["name"].as_str().unwrap().to_owned()
    }
}

/// Nothing but its type says that a Nix is at hand; this does what [`super::nix::each_nix`] does, with a site.
pub fn each_site(make: impl Fn(&Nix) -> Site, mut test: impl FnMut(&Site)) {
    super::nix::each_nix(|nix| test(&make(nix)));
}
