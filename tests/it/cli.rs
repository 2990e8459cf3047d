//! The command line as people meet it: help, and every error with its hint and its exit code. `tests/cli/*.trycmd` are
//! the text; `TRYCMD=overwrite cargo test --test it cli` writes them anew. What needs a server is here.
#![expect(clippy::disallowed_methods, reason = "trycmd is told by a variable to overwrite")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, newest};
use crate::support::program::write_program;
use crate::support::site::{Ran, Site, finish};

/// Two hosts, a package, and something of each sort that is left out by default.
const FLAKE: &str = r#"{
  outputs = _:
    let
      build = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out" ]; };
      host = name: { config.system.build.toplevel = build "nixos-system-${name}"; };
    in {
      nixosConfigurations = { web1 = host "web1"; web2 = host "web2"; };
      packages.x86_64-linux.tool = build "tool-1.0";
      devShells.x86_64-linux.default = build "shell-1.0";
    };
}
"#;

/// Files of `drover.toml` with something wrong, each beside a flake of its own.
const CONFIGS: [(&str, &str); 13] = [
    ("unknown-key", "[attrs]\nexclud = [\"*.installer\"]\n"),
    ("unknown-table", "[atrs]\n"),
    ("wrong-type", "[build]\ntimeout = \"long\"\n"),
    ("wrong-word", "[cache.acme]\nurl = \"file:///c\"\npush = \"maybe\"\n"),
    ("no-url", "[cache.acme]\npush = true\n"),
    ("no-toml", "[attrs\n"),
    ("wrong-kind", "[attrs]\nkinds = [\"nixosConfiguration\"]\n"),
    ("no-host", "[builder.big1]\nmax-jobs = 16\n"),
    ("near-builder-key", "[builder.big1]\nurl = \"ssh-ng://big1\"\nhostkey = \"ssh-ed25519 AAAA\"\n"),
    ("bad-host-key", "[builder.big1]\nurl = \"ssh-ng://big1\"\nhost-key = \"AAAA\"\n"),
    ("bad-builder-url", "[builder.big1]\nurl = \"https://cache.example\"\n"),
    ("builder-called-local", "[builder.local]\nurl = \"ssh-ng://big1\"\n"),
    ("near-cache", "[cache.acme]\nurl = \"file:///c\"\n"),
];

/// Secret keys with something wrong. What is in them may never be shown.
const KEYS: [(&str, &str); 2] = [("words.key", "this is private"), ("short.key", "cache-1:cHJpdmF0ZQ==")];

/// The directory in which the commands of one file run.
fn furnish(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("flake.nix", FLAKE);
    for (name, toml) in CONFIGS {
        write(&format!("{name}/flake.nix"), FLAKE);
        write(&format!("{name}/drover.toml"), toml);
    }
    for (name, text) in KEYS {
        write(name, text);
    }
    for run in ["01KAJX3M00000000000000AAAA", "01KAJX3M00000000000000BBBB"] {
        let events = format!(
            "{{\"seq\":0,\"at\":0,\"event\":\"run_started\",\"format\":1,\"run\":\"{run}\",\"drover\":\"0.1.0\",\
             \"command\":\"run\",\"what\":[],\"started\":\"2026-01-01T00:00:00Z\",\"nix\":\"2.34.8\"}}\n"
        );
        write(&format!("state/runs/{run}/events.jsonl"), &events);
    }
    let log = "state/runs/01KAJX3M00000000000000BBBB/logs/7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-flaky-1.0.log";
    write(&format!("{log}.1"), "no connection\n");
    write(log, "done\n");
    // `env NAME=VALUE drover …`, as people type it; trycmd's own variables cannot be overridden.
    write_program(
        &dir.join("env"),
        &format!(
            "#!/bin/sh\nfor word; do shift; [ \"$word\" = drover ] && word={}; set -- \"$@\" \"$word\"; done\nexec /usr/bin/env \"$@\"\n",
            env!("CARGO_BIN_EXE_drover")
        ),
    );
    write_program(&dir.join("old-nix/nix"), "#!/bin/sh\necho 'nix (Nix) 2.3'\n");
    write_program(&dir.join("no-nix/nix"), "#!/bin/sh\necho hello\n");
}

/// Copies the files into the lab, each with a directory of its own, and gives where they are.
fn stage(lab: &Lab) -> PathBuf {
    let cases = lab.path("cli");
    fs::create_dir(&cases).unwrap();
    for file in sources() {
        let copy = cases.join(file.file_name().unwrap());
        fs::copy(&file, &copy).unwrap();
        furnish(&copy.with_extension("in"));
    }
    cases
}

fn sources() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// What the commands see of the environment, beyond that of the lab.
fn env(lab: &Lab) -> Vec<(String, String)> {
    let mut env = lab.env();
    // An empty variable is as good as none.
    let none = ["CI", "NO_COLOR", "CLICOLOR_FORCE", "TERM", "DROVER_PUSH_TO", "DROVER_MAX_JOBS", "DROVER_LOG"];
    env.extend(none.iter().chain(lab.unset()).map(|name| ((*name).to_owned(), String::new())));
    env.push(("COLUMNS".to_owned(), "100".to_owned()));
    env.push(("DROVER_STATE_DIR".to_owned(), lab.path("state/drover").display().to_string()));
    // The flake is a directory and nothing more, also where the lab is inside of a repository.
    env.push(("GIT_CEILING_DIRECTORIES".to_owned(), lab.path("").display().to_string()));
    env
}

#[test]
fn the_files_hold() {
    let lab = Lab::plain(&newest());
    let cases = stage(&lab);
    let tests = trycmd::TestCases::new();
    for (name, value) in env(&lab) {
        tests.env(name, value);
    }
    tests.insert_var("[LAB]", lab.path("").display().to_string().trim_end_matches('/').to_owned()).unwrap();
    tests.register_bin("env", cases.join("help.in/env"));
    tests.case(cases.join("*.trycmd"));
    tests.run();
    drop(tests);
    if std::env::var_os("TRYCMD").is_some_and(|mode| mode == "overwrite") {
        for file in sources() {
            fs::copy(cases.join(file.file_name().unwrap()), file).unwrap();
        }
    }
}

/// Every documented command that fails says so on stderr only, and ends in something to type.
#[test]
fn every_error_ends_in_a_hint_and_leaves_stdout_alone() {
    let lab = Lab::plain(&newest());
    let cases = stage(&lab);
    let mut seen = 0;
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(command) = line.strip_prefix("$ ") else { continue };
            let Some(code) = lines.peek().and_then(|next| next.strip_prefix("? ")) else { continue };
            let ran = run(&lab, &cases.join(file.file_name().unwrap()).with_extension("in"), command);
            assert_eq!(ran.code.map(|code| code.to_string()).as_deref(), Some(code), "{command}\n{}", ran.stderr);
            assert!(ran.stdout.is_empty(), "{command} prints on stdout");
            let last = ran.stderr.lines().last().unwrap_or_default().trim_start();
            assert!(last.starts_with("hint: "), "{command} ends in: {last}\n{}", ran.stderr);
            assert!(ran.stderr.lines().any(|line| line.starts_with("error: ")), "{command}: {}", ran.stderr);
            for (_, secret) in KEYS {
                assert!(!ran.stderr.contains(secret.rsplit(':').next().unwrap()), "{command} shows a key");
            }
            let ok = ran.stderr.lines().any(|line| line.starts_with("ok ") || line.contains("s ok "));
            assert!(!ok, "{command} says ok:\n{}", ran.stderr);
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} errors are documented");
}

/// A line of a trycmd file: variables, `drover`, words with single quotes.
fn run(lab: &Lab, dir: &Path, command: &str) -> Ran {
    let mut words = Vec::new();
    for (i, part) in command.split('\'').enumerate() {
        match i % 2 {
            0 => words.extend(part.split_whitespace()),
            _ => words.push(part),
        }
    }
    let verb = words.iter().position(|word| *word == "drover").unwrap();
    let mut child = lab.program(env!("CARGO_BIN_EXE_drover"));
    child.current_dir(dir).envs(env(lab)).args(&words[verb + 1..]);
    for variable in words[..verb].iter().filter(|word| **word != "env") {
        let (name, value) = variable.split_once('=').unwrap();
        child.env(name, value);
    }
    finish(child, &words)
}

/// What is said about a cache on a server, without its port.
async fn about(server: &FakeCache, site: &Site) -> String {
    let command = site.command(&["plan", "--push-to", &server.url]);
    // Here, so that the server can answer meanwhile.
    let ran = tokio::task::spawn_blocking(|| finish(command, &["plan", "--push-to"])).await.unwrap();
    ran.expect(2);
    assert!(ran.stdout.is_empty());
    let text = ran.stderr.replace(server.url.trim_start_matches("http://"), "SERVER");
    assert!(!text.contains("hunter2"), "{text}");
    text.replace(&site.lab.store_dir(), "/our/store").replace(&site.lab.path("").display().to_string(), "/lab/")
}

#[tokio::test]
async fn a_server_that_is_no_cache_is_named() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let info = site.lab.work().join("nix-cache-info");
    let server = FakeCache::serve(&site.lab.work()).await;
    insta::assert_snapshot!(about(&server, &site).await, @r"
    error: 'http://SERVER' is no binary cache: it has no nix-cache-info
      nothing was built
      hint: check the URL: http://SERVER/nix-cache-info must exist
    ");
    fs::write(&info, format!("StoreDir: {}\n", site.lab.store_dir())).unwrap();
    insta::assert_snapshot!(about(&server, &site).await, @r"
    error: cannot push to cache 'http://SERVER': it takes no uploads (HTTP 405)
      no login found: none in its URL, no token-file, none for its host in /lab/conf/netrc
      nothing was built
      hint: curl -v -T FILE http://SERVER/nix-cache-info    may be another URL is for uploads; without pushing: drover plan --no-push
    ");
    fs::write(&info, "StoreDir: /other/store\n").unwrap();
    insta::assert_snapshot!(about(&server, &site).await, @r"
    error: cannot use cache 'http://SERVER': it is for the store /other/store, this store is /our/store
      nothing was built
      hint: leave this cache out: its paths cannot be used in this store (nix config show substituters)
    ");
    server.always("nix-cache-info", Fault::Status(401));
    insta::assert_snapshot!(about(&server, &site).await, @r"
    error: SERVER wants a login for pushing (HTTP 401)
      no login found: none in its URL, no token-file, none for its host in /lab/conf/netrc
      nothing was built
      hint: echo 'machine 127.0.0.1 login USER password SECRET' >> /lab/conf/netrc; without pushing: drover plan --no-push
    ");
    let netrc = site.lab.write("netrc", "machine 127.0.0.1 login me password hunter2\n");
    site.lab.configure(&format!("netrc-file = {}", netrc.display()));
    insta::assert_snapshot!(about(&server, &site).await, @r#"
    error: SERVER refuses this login for pushing (HTTP 401)
      login from: netrc file /lab/work/netrc
      nothing was built
      hint: the login needs "write" on SERVER; without pushing: drover plan --no-push
    "#);
}

/// A wrong word is not what "the last run" means.
#[test]
fn failed_means_the_last_run_that_came_to_something() {
    let broken = FLAKE.replace("echo ${name} > $out", "echo ${name}; test ${name} != tool-1.0 && echo > $out");
    let site = Site::of(Lab::plain(&newest()), &broken);
    site.exits(1, &["run"]);
    site.exits(2, &["run", "wbe1"]);
    site.exits(0, &["plan", "web1"]);
    let again = site.exits(1, &["run", "--failed", "--json"]).json();
    let names: Vec<&str> = again["attrs"].as_array().unwrap().iter().filter_map(|attr| attr["name"].as_str()).collect();
    assert_eq!(names, ["tool"]);
    let home = String::from_utf8(site.exits(0, &[]).stdout).unwrap();
    assert!(home.contains("drover run --failed") && home.contains("tool failed"), "{home}");
}

/// The document is whole and says why, however the run ended.
#[test]
fn the_document_says_why_a_run_failed() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    for verb in ["run", "plan"] {
        let document = site.exits(2, &[verb, "--json", "web3"]).json();
        assert_eq!((document["version"].as_u64(), document["exit"].as_u64()), (Some(1), Some(2)));
        assert_eq!(document["error"]["message"], "this flake has no attr 'web3'");
        assert!(document["error"]["hint"].as_str().unwrap().contains("web1"));
        let report = site.exits(0, &["report", "--json"]).json();
        assert_eq!(report, document);
    }
    let document = site.exits(0, &["run", "--json"]).json();
    assert!(document["counts"]["build_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{document}");
    let file = site.lab.work().join("result.json");
    site.exits(0, &["run", "--result-file", file.to_str().unwrap()]);
    let written: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(written["exit"], 0);
    let list = site.exits(0, &["report", "list", "--json"]).json();
    assert_eq!(list["runs"].as_array().map(Vec::len), Some(4));
}
