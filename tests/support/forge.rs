//! Forges, as far as a workflow can tell: each job is a fresh machine with a Nix and a clone of the repository; its
//! commands are executed as they stand, in order. What is passed on between jobs and between runs goes through folders.
//! Actions are not executed: what they do to files is done here.
#![allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
#![expect(clippy::disallowed_methods, reason = "test code has to spawn what reads YAML")]

pub mod actions;
pub mod gitlab;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::nix::{Lab, Nix, tool};

/// One forge with one repository.
pub struct Forge<'a> {
    pub nix: &'a Nix,
    /// The repository that jobs clone.
    pub repository: PathBuf,
    /// What is kept between jobs and runs.
    pub kept: PathBuf,
    /// Variables of a project, and secrets.
    pub vars: Vec<(String, String)>,
    /// All that jobs printed.
    pub log: String,
}

/// Where one job runs.
pub struct Machine {
    pub lab: Lab,
    pub workspace: PathBuf,
}

impl Machine {
    /// A machine with a clone of the repository.
    pub fn new(nix: &Nix, repository: &Path) -> Self {
        let lab = Lab::mounted(nix);
        let workspace = lab.work().join("infra");
        let status = lab.program("git").args(["clone", "-q"]).arg(repository).arg(&workspace).status().unwrap();
        assert!(status.success());
        Self { lab, workspace }
    }

    /// Runs a script as runners do: until the first command that fails. Gives what was printed and whether all went well.
    pub fn run(&self, script: &str, vars: &[(String, String)]) -> (bool, String) {
        let mut command = self.lab.program("bash");
        command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]).current_dir(&self.workspace);
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "TERM", "DROVER_STATE_DIR", "DROVER_PUSH_TO", "DROVER_LOG"] {
            command.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.lab.nix.bin.display());
        command.env("PATH", path).env("CI", "true").envs(vars.iter().map(|(name, value)| (name, value)));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }
}

/// Copies a file or a folder, into what is there.
pub fn copy(from: &Path, to: &Path) {
    if !from.exists() {
        return;
    }
    if from.is_file() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

/// A YAML file as ruamel.yaml reads it.
pub fn yaml(file: &Path) -> Value {
    const SCRIPT: &str = "import json, sys; from ruamel.yaml import YAML; \
        json.dump(YAML(typ='safe', pure=True).load(open(sys.argv[1])), sys.stdout)";
    let output = Command::new(tool("check-jsonschema/bin/python")).args(["-c", SCRIPT]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A string of a document.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The fields of an object, in the order of the file where the reader keeps it.
pub fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Serves one file to everybody who asks, as long as the test lives; gives its address.
pub fn serve(file: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/drover", listener.local_addr().unwrap());
    let file = file.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever hangs up has no file.
            let _ = answer(stream, &file);
        }
    });
    url
}

fn answer(mut stream: TcpStream, file: &Path) -> std::io::Result<()> {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        asked.extend(byte);
    }
    let mut file = fs::File::open(file)?;
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.metadata()?.len())?;
    std::io::copy(&mut file, &mut stream)?;
    stream.flush()
}
