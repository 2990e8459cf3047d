//! The history of runs, as the real drover writes it: what a run leaves, what survives a kill, a damaged file and the
//! loss of records, and what several machines make of it together.
#![expect(clippy::disallowed_methods, reason = "a process that needs no Nix is killed in the middle of a write")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use drover::id::RunId;
use drover::record::history::{Build, Depth, Entry, Filter, Folder, History, Outcome};
use serde_json::{Value, json};

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, newest};
use crate::support::site::{Events, Site, commit_as_origin, finish, wait_until};

const FLAKE: &str = r#"{ outputs = { self }: let
    build = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ]; };
  in { packages.x86_64-linux = rec {
    a = build "a-1.0" "echo a > $out";
    b = build "b-1.0" "echo ${a} > $out";
    broken = build "broken-1.0" "exit 3";
  }; }; }"#;

fn run(number: u64) -> RunId {
    RunId(ulid::Ulid::from_parts(1_700_000_000_000 + 1000 * number, 7))
}

/// A run of no flake that built so many drvs.
fn entry(number: u64, builds: usize) -> Entry {
    let started = jiff::Timestamp::from_second(1_700_000_000 + number as i64).unwrap();
    let mut entry: Entry = serde_json::from_value(json!({
        "run": run(number), "started": started, "seconds": 10.0, "exit": 0, "command": "run", "drover": "0.1.0",
        "nix": "2.34.8", "verdict": "all ok", "counters": {"built": builds}, "stages": {}, "account": [],
    }))
    .unwrap();
    entry.builds = (0..builds)
        .map(|n| Build {
            drv: format!("p{n}-{number}.drv"),
            name: format!("p{n}-{number}"),
            system: "x86_64-linux".into(),
            builder: "local".to_owned(),
            ready: 0.0,
            started: 1.0,
            building: Some(1.0),
            ended: 2.0,
            outcome: Outcome::Built,
            cpu: None,
            brought: 0,
            bytes: None,
        })
        .collect();
    entry
}

/// A folder with the entries of these runs.
fn folder(dir: &Path, runs: impl Iterator<Item = u64>, builds: usize) -> PathBuf {
    for number in runs {
        Folder::at(dir).put(&entry(number, builds)).unwrap();
    }
    dir.to_owned()
}

fn import(state: &Path, from: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(["report", "import", "--json"]).arg(from).arg("--state-dir").arg(state);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs that were found, and those that were new.
fn imported(child: Child) -> (u64, u64) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    (told["found"].as_u64().unwrap(), told["new"].as_u64().unwrap())
}

/// The runs that are known, each with as many builds as it had.
fn known(state: &Path, builds: usize) -> BTreeSet<RunId> {
    let history = History::open(state).unwrap();
    assert_eq!(history.aside(), None);
    let entries = history.entries(&Filter::default(), Depth::Builds, usize::MAX).unwrap();
    for entry in &entries {
        assert_eq!(entry.builds.len(), builds, "{}", entry.run);
    }
    entries.into_iter().map(|entry| entry.run).collect()
}

fn log_size(state: &Path) -> u64 {
    fs::metadata(state.join("history.sqlite-wal")).map_or(0, |file| file.len())
}

#[test]
fn a_kill_in_the_middle_of_a_write_loses_nothing_that_was_written() {
    const BUILDS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let first = folder(&dir.path().join("first"), 0..5, BUILDS);
    let second = folder(&dir.path().join("second"), 5..105, BUILDS);
    assert_eq!(imported(import(&state, &first)), (5, 5));
    let before = known(&state, BUILDS);
    for _ in 0..3 {
        let was = log_size(&state);
        let mut child = import(&state, &second);
        // It has begun to write what is too much to be written at once.
        wait_until("it writes", || (log_size(&state) > was || child.try_wait().unwrap().is_some()).then_some(()));
        assert!(child.try_wait().unwrap().is_none(), "it was done too soon to be killed");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(known(&state, BUILDS), before);
    }
    assert_eq!(imported(import(&state, &second)), (100, 100));
    assert_eq!(known(&state, BUILDS), (0..105).map(run).collect());
}

#[test]
fn two_processes_that_write_at_once_lose_nothing() {
    const BUILDS: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    // Some runs are told by both.
    let first = folder(&dir.path().join("first"), 0..40, BUILDS);
    let second = folder(&dir.path().join("second"), 30..70, BUILDS);
    let children = [import(&state, &first), import(&state, &second)];
    let [first, second] = children.map(imported);
    assert_eq!((first.0, second.0, first.1 + second.1), (40, 40, 70));
    assert_eq!(known(&state, BUILDS), (0..70).map(run).collect());
}

fn listed(site: &Site) -> Vec<Value> {
    let document = site.exits(0, &["report", "list", "--format", "json"]).json();
    document["runs"].as_array().unwrap().clone()
}

#[test]
fn a_run_is_known_without_its_record_its_file_and_its_machine() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    site.exits(1, &["run"]);
    site.exits(0, &["run", ".#b"]);
    let state = site.state();
    let before = listed(&site);
    assert_eq!(before.len(), 2);
    assert_eq!(before[0]["verdict"], "1 package ok", "{before:#?}");
    assert_eq!(before[1]["verdict"], "2 of 3 packages ok, broken failed");

    let history = History::open(&state).unwrap();
    let [_, first]: [Entry; 2] = history.entries(&Filter::default(), Depth::Builds, 9).unwrap().try_into().unwrap();
    drop(history);
    assert_eq!((first.exit, first.counters.built, first.counters.failed, first.attrs.len()), (Some(1), 2, 1, 3));
    let mut names: Vec<&str> = first.builds.iter().map(|build| build.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a-1.0", "b-1.0", "broken-1.0"]);
    // The account is of the whole run, to its last word.
    let told: f64 = first.account.iter().map(|part| part.seconds).sum();
    assert!((told - first.seconds).abs() < 1e-3, "{told} of {}", first.seconds);

    // Records are removed in time; history stays.
    fs::rename(state.join("runs"), site.lab.path("runs-elsewhere")).unwrap();
    assert_eq!(listed(&site), before);
    let gone = site.exits(2, &["report", &first.run.to_string()]);
    assert!(gone.stderr.contains("known in numbers only"), "{}", gone.stderr);

    // The file is lost: what was left for other machines brings back what was done; the other run did nothing.
    let file = state.join("history.sqlite");
    for lost in [&file, &state.join("history.sqlite-wal"), &state.join("history.sqlite-shm")] {
        let _ = fs::remove_file(lost);
    }
    assert_eq!(listed(&site).len(), 1);
    let history = History::open(&state).unwrap();
    assert_eq!(history.entry(first.run, Depth::Builds).unwrap(), Some(first.clone()));
    drop(history);

    // Records bring back the other; once.
    let elsewhere = site.lab.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(site.lab.path("runs-elsewhere"), elsewhere.join("runs")).unwrap();
    let elsewhere = elsewhere.display().to_string();
    for new in ["1 run imported, 1 known before\n", "0 runs imported, 2 known before\n"] {
        assert_eq!(site.exits(0, &["report", "import", &elsewhere]).out(), new);
    }
    assert_eq!(listed(&site), before);

    // Another machine learns all of it from the file alone.
    let other = site.lab.path("other-state").display().to_string();
    let args = ["report", "import", &file.display().to_string(), "--state-dir", &other];
    assert_eq!(site.exits(0, &args).out(), "2 runs imported, 0 known before\n");
    let nothing = site.exits(2, &["report", "import", &site.flake.display().to_string()]);
    assert!(nothing.stderr.contains("holds no runs"), "{}", nothing.stderr);
}

#[test]
fn a_damaged_history_is_put_aside_loudly_and_begun_anew() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    site.exits(0, &["run", ".#b"]);
    let state = site.state();
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(state.join(format!("history.sqlite{beside}")));
    }
    fs::write(state.join("history.sqlite"), "no database, and long enough to be taken for one ".repeat(100)).unwrap();
    site.exits(0, &["run", ".#a"]);
    let events = site.events();
    let warnings = events.of("warning");
    let said = warnings[0]["message"].as_str().unwrap();
    assert!(said.contains("begun anew with 1 run ") && said.contains("history.sqlite.damaged-2"), "{said}");
    assert!(warnings[0]["hint"].as_str().unwrap().contains("drover report import"), "{warnings:?}");
    assert_eq!(warnings.len(), 1);
    assert_eq!(listed(&site).len(), 2);
    assert_eq!(
        fs::read_dir(&state)
            .unwrap()
            .filter(|file| { file.as_ref().unwrap().file_name().to_string_lossy().contains("damaged") })
            .count(),
        1
    );
}

#[test]
fn a_run_that_was_killed_is_taken_from_its_record() {
    let site =
        Site::of(Lab::plain(&newest()), &FLAKE.replace("exit 3", "echo begun; while :; do /bin/sleep 0.1; done"));
    let running = site.start(&["run"]);
    wait_until("it has built", || {
        let runs = fs::read_dir(site.state().join("runs")).ok()?;
        let run = runs.last()?.ok()?.path();
        let text = fs::read_to_string(run.join("events.jsonl")).ok()?;
        (text.matches("\"drv_ended\"").count() >= 2).then_some(())
    });
    running.signal("KILL");
    assert_eq!(running.wait().code, None);
    site.expect_no_process(std::time::Duration::from_secs(5));
    site.exits(0, &["run", ".#b"]);
    let history = History::open(&site.state()).unwrap();
    let entries = history.entries(&Filter::default(), Depth::Builds, 9).unwrap();
    let seen: Vec<_> = entries.iter().map(|entry| (entry.exit, entry.counters.built, entry.builds.len())).collect();
    assert_eq!(seen, [(Some(0), 0, 0), (None, 2, 2)]);
    assert_eq!(entries[1].verdict, "cut off");
}

#[test]
fn a_run_says_where_it_is_from_what_its_inputs_are_and_which_requests_were_repeated() {
    let lab = Lab::plain(&newest());
    lab.write("data/file", "some data\n");
    let input = format!(
        "inputs.data = {{ url = \"path:{}\"; flake = false; }}; outputs = {{ self, data }}:",
        lab.work().join("data").display()
    );
    let site = Site::of(lab, &FLAKE.replace("outputs = { self }:", &input));
    let dir = site.lab.path("served");
    fs::create_dir(&dir).unwrap();
    let server = FakeCache::start(&dir).writable();
    let key = site.key("served-1");
    let retry = "retry-attempts=5&retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5";
    let url = format!("{}?secret-key={}&{retry}", server.url, key.secret.display());
    server.next("PUT nar", [Fault::Status(429), Fault::Status(429), Fault::Status(503)]);
    let mut command = site.command(&["run", ".#b", "--push-to", &url]);
    command.envs([
        ("CI", "true"),
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "acme/infra"),
        ("GITHUB_REF", "refs/heads/topic"),
        ("GITHUB_SERVER_URL", "https://forge.example"),
        ("GITHUB_RUN_ID", "77"),
    ]);
    finish(command, &["run"]).expect(0);

    let events = site.events();
    let placed = events.of("run_placed");
    assert_eq!((&placed[0]["repository"], &placed[0]["branch"]), (&json!("acme/infra"), &json!("topic")));
    assert_eq!(placed[0]["url"], "https://forge.example/acme/infra/actions/runs/77");
    let inputs = &events.of("inputs_locked")[0]["inputs"];
    let hash = site.lab.run("nix", &["hash", "path", &site.lab.work().join("data").display().to_string()]);
    assert_eq!(inputs, &json!([{ "name": "data", "rev": &hash["sha256-".len()..][..12] }]));
    let repeated = events.of("cache_repeated");
    let last = repeated.last().unwrap();
    assert_eq!((&last["requests"], &last["reason"]), (&json!(3), &json!("HTTP 429")), "{repeated:?}");

    let history = History::open(&site.state()).unwrap();
    let [entry]: [Entry; 1] = history.entries(&Filter::default(), Depth::Builds, 9).unwrap().try_into().unwrap();
    assert_eq!(entry.branch.as_deref(), Some("topic"));
    assert!(entry.attrs.iter().any(|attr| attr.closure.is_some_and(|bytes| bytes > 0)), "{:?}", entry.attrs);
    assert_eq!(entry.inputs.get("data").map(String::len), Some(12));
    let trouble = entry.caches.iter().find_map(|cache| cache.trouble.as_ref()).unwrap();
    assert_eq!((trouble.requests, trouble.reason.as_str()), (3, "HTTP 429"));
}

/// Runs drover with this `drover.toml` in the state directory of a machine.
fn on_machine(site: &Site, name: &str, share: &str, vars: &[(&str, &str)], attr: &str) -> Vec<String> {
    let key = site.lab.work().join("share-1.key");
    if !key.exists() {
        site.key("share-1");
    }
    let config = format!("[share]\nurl = '{share}'\nsecret-key = '{}'\n", key.display());
    fs::write(site.flake.join("drover.toml"), config).unwrap();
    let state = site.lab.path(name);
    let mut command = site.command(&["run", attr, "--refresh", "--state-dir"]);
    command.arg(&state).envs(vars.iter().copied());
    finish(command, &["run"]).expect(0);
    let runs = fs::read_dir(state.join("runs")).unwrap().map(|run| run.unwrap().path());
    let events = Events::read(&runs.max().unwrap().join("events.jsonl"));
    let warned = events.of("warning").into_iter().map(|event| event["message"].as_str().unwrap().to_owned());
    warned.filter(|message| message.contains("history")).collect()
}

fn runs_of(site: &Site, machine: &str) -> Vec<Entry> {
    let history = History::open(&site.lab.path(machine)).unwrap();
    history.entries(&Filter::default(), Depth::Builds, 99).unwrap()
}

#[test]
fn machines_that_share_a_place_know_each_others_runs() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let place = site.lab.path("place");
    fs::create_dir(&place).unwrap();
    let server = FakeCache::start(&place).writable();
    let file = format!("file://{}", place.display());
    assert_eq!(on_machine(&site, "one", &server.url, &[], ".#a"), [""; 0]);
    assert_eq!(on_machine(&site, "two", &file, &[], ".#b"), [""; 0]);
    let two = runs_of(&site, "two");
    let [own, of_one] = two.as_slice() else { panic!("{two:#?}") };
    assert_eq!((own.counters.built, of_one.counters.built), (1, 1));
    assert_eq!(*of_one, runs_of(&site, "one")[0]);
    assert_eq!(of_one.builds[0].name, "a-1.0");

    // Whoever may not write reads; what is no entry is left out.
    let fork = [
        ("CI", "1"),
        ("GITHUB_EVENT_NAME", "pull_request"),
        ("GITHUB_REPOSITORY", "me/infra"),
        ("GITHUB_BASE_REF", "main"),
    ];
    commit_as_origin(&site.lab, &site.flake);
    fs::write(place.join(format!("drover/history/{}.json.zst", own.run)), "no entry").unwrap();
    assert_eq!(on_machine(&site, "fork", &server.url, &fork, ".#b"), [""; 0]);
    assert_eq!(runs_of(&site, "fork").len(), 2);
    let index: Value = serde_json::from_slice(&fs::read(place.join("drover/history/index.json")).unwrap()).unwrap();
    let runs: BTreeSet<&str> = index["runs"].as_array().unwrap().iter().map(|run| run.as_str().unwrap()).collect();
    assert_eq!(runs, [own.run.to_string(), of_one.run.to_string()].iter().map(String::as_str).collect());

    // An index that was lost comes back with what each knows of its own.
    fs::remove_file(place.join("drover/history/index.json")).unwrap();
    on_machine(&site, "one", &file, &[], ".#b");
    on_machine(&site, "two", &server.url, &[], ".#b");
    assert_eq!(runs_of(&site, "two").len(), 4);
}

#[test]
fn a_place_that_does_not_answer_is_one_warning() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let dir = site.lab.path("place");
    fs::create_dir(&dir).unwrap();
    let server = FakeCache::start(&dir).writable();
    server.always("drover/history/index.json", Fault::Status(500));
    let warned = on_machine(&site, "one", &server.url, &[], ".#a");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("no history is taken from http://"), "{warned:?}");
    assert_eq!(runs_of(&site, "one").len(), 1);
}
