//! Evaluation on real Nixes: the drvs that Nix itself would name, every failure its own, deaths and replacements.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover::error::Error;
use drover::eval::what::Name;
use drover::eval::{
    Answer, Budget, EvalMsg, EvalOptions, Evaluator, FlakeOptions, Import, Imported, Imports, LockError, Locked, Nix,
    Record, Selection, flake, list,
};
use drover::event::{Class, Failure};
use drover::id::{Kind, StorePath, System};

use crate::support::nix::{Lab, each_nix, newest};

/// A current-thread runtime, as drover has.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// How drover runs the Nix of a lab.
pub(crate) fn nix(lab: &Lab) -> Nix {
    Nix {
        program: lab.nix.bin.join("nix").into(),
        env: lab.env().into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        args: lab.store_arg().into_iter().flat_map(|store| ["--store".to_owned(), store]).collect(),
        dir: Some(lab.work()),
    }
}

pub(crate) fn git(lab: &Lab, dir: &Path, args: &[&str]) -> String {
    let output = lab
        .program("git")
        .current_dir(dir)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"])
        .args(["-c", "init.defaultBranch=main"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A committed copy of a fixture below the lab's work directory.
pub(crate) fn fixture(lab: &Lab, name: &str) -> PathBuf {
    let dir = lab.work().join(name);
    copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name), &dir);
    commit(lab, &dir);
    dir
}

/// A repository of what is in a directory, or one more commit.
pub(crate) fn commit(lab: &Lab, dir: &Path) {
    lab.give(dir);
    if !dir.join(".git").exists() {
        git(lab, dir, &["init", "-q"]);
    }
    git(lab, dir, &["add", "-A"]);
    git(lab, dir, &["commit", "-qm", "x"]);
}

pub(crate) fn options(lab: &Lab, reference: &str) -> EvalOptions {
    EvalOptions {
        nix: nix(lab),
        flake: FlakeOptions { reference: reference.to_owned(), ..FlakeOptions::default() },
        selection: Selection::default(),
        workers: None,
        cores: 2,
        memory_mib: 0,
        budget: Budget::set(512 << 20),
        expected: Arc::default(),
        imports: Imports::Built,
    }
}

pub(crate) fn lock(options: &EvalOptions) -> Result<Locked, LockError> {
    block_on(flake::lock(&options.nix, &options.flake))
}

/// All that an evaluation said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) names: BTreeMap<String, String>,
    pub(crate) answers: BTreeMap<String, Answer>,
    pub(crate) started: Vec<String>,
    pub(crate) left_out: Vec<list::LeftOut>,
    pub(crate) imports: Vec<String>,
    pub(crate) warnings: Vec<(Option<String>, String)>,
    pub(crate) traces: Vec<(String, String)>,
    pub(crate) replaced: Vec<String>,
    pub(crate) ready: u32,
    pub(crate) record: Option<Record>,
}

impl Said {
    /// Attr → base name of its drv, or what else came out; without what was held by then, which is never the same twice.
    pub(crate) fn drvs(&self) -> BTreeMap<String, String> {
        let drv = |answer: &Answer| match answer {
            Answer::Drv(drv) => drv.drv.to_basename(),
            other => {
                let text = format!("{other:?}");
                match text.split_once(", when it held ") {
                    Some((before, _)) => before.to_owned(),
                    None => text,
                }
            }
        };
        self.answers.iter().map(|(attr, answer)| (attr.clone(), drv(answer))).collect()
    }
}

pub(crate) fn evaluate(options: &EvalOptions, locked: Locked, record: Option<Record>) -> Result<Said, Error> {
    evaluate_with(options, locked, record, |_| {})
}

/// Evaluates to the end; `look` sees every message before it is folded.
pub(crate) fn evaluate_with(
    options: &EvalOptions,
    locked: Locked,
    record: Option<Record>,
    mut look: impl FnMut(&EvalMsg),
) -> Result<Said, Error> {
    let store_dir = locked.store_dir.clone();
    block_on(async {
        let mut evaluator = Evaluator::start(options.clone(), locked, record);
        let mut said = Said::default();
        let mut paths = Vec::new();
        while let Some(message) = evaluator.next().await {
            look(&message);
            match message {
                EvalMsg::Listed(listed) => {
                    for attr in listed {
                        assert_eq!(attr.attr.index(), paths.len());
                        said.names.insert(attr.path.to_string(), attr.name.to_string());
                        paths.push(attr.path.to_string());
                    }
                }
                EvalMsg::Own(_) => {}
                EvalMsg::LeftOut(left_out) => said.left_out.push(left_out),
                EvalMsg::WorkerReady { .. } => said.ready += 1,
                EvalMsg::WorkerReplaced { reason, .. } => said.replaced.push(reason.to_string()),
                EvalMsg::Started { attr, .. } => said.started.push(paths[attr.index()].clone()),
                EvalMsg::Import(import) => {
                    said.imports.push(import.drv.name().trim_end_matches(".drv").to_owned());
                    let imported = realise(&options.nix, &store_dir, &import);
                    import.reply.send(imported).unwrap();
                }
                EvalMsg::Ended { attr, answer, .. } => {
                    let earlier = said.answers.insert(paths[attr.index()].clone(), answer);
                    assert!(earlier.is_none(), "{} is answered twice", paths[attr.index()]);
                }
                EvalMsg::Warning { attr, message } => {
                    said.warnings.push((attr.map(|attr| paths[attr.index()].clone()), message.to_string()));
                }
                EvalMsg::Trace { attr, message } => {
                    said.traces.push((paths[attr.index()].clone(), message.to_string()));
                }
                EvalMsg::Finished { record } => said.record = record.map(|record| *record),
                EvalMsg::Fatal(error) => return Err(error),
            }
        }
        assert_eq!(said.answers.len(), paths.len(), "every attr is answered");
        Ok(said)
    })
}

/// Builds what an attr imports, as the driver would have it built.
#[expect(clippy::disallowed_methods, reason = "test code has to spawn nix")]
fn realise(nix: &Nix, store_dir: &str, import: &Import) -> Imported {
    let what = format!("{store_dir}/{}^*", import.drv.to_basename());
    let output = std::process::Command::new(&nix.program)
        .envs(nix.env.iter().map(|(name, value)| (name, value)))
        .arg("build")
        .args(&nix.args)
        .args(["--no-link", "--print-out-paths", &what])
        .output()
        .unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("failed with exit code"), "{said}");
        return Err(Failure { class: Class::Build, message: "it fails".into(), position: None });
    }
    let paths = String::from_utf8(output.stdout).unwrap();
    Ok(paths.lines().map(|path| StorePath::from_basename(base(path).as_bytes()).unwrap()).collect())
}

pub(crate) fn lock_and_evaluate(options: &EvalOptions) -> Said {
    let locked = lock(options).unwrap_or_else(|error| panic!("{:?}", error.into_error()));
    evaluate(options, locked, None).unwrap()
}

/// What Nix itself says: base name of the drv of `FLAKE#INSTALLABLE`.
pub(crate) fn nix_says(lab: &Lab, flake: &str, installable: &str, flags: &[&str]) -> String {
    let what = format!("{flake}#{installable}.drvPath");
    let mut args = vec!["eval", "--raw", "--no-write-lock-file"];
    args.extend(flags);
    args.push(&what);
    base(&lab.run("nix", &args))
}

fn base(path: &str) -> String {
    path.rsplit('/').next().unwrap().to_owned()
}

/// The place of the derivation below an attr.
fn installable(attr: &str) -> String {
    match attr.split('.').next().unwrap() {
        "nixosConfigurations" | "darwinConfigurations" if attr.matches('.').count() == 1 => {
            format!("{attr}.config.system.build.toplevel")
        }
        "homeConfigurations" => format!("{attr}.activationPackage"),
        _ => attr.to_owned(),
    }
}

/// Every attr of every kind that a flake lists.
fn everything(options: &mut EvalOptions) {
    options.selection.kinds = Kind::LISTED.to_vec();
}

#[test]
fn drvs_are_those_of_nix_in_a_clean_and_in_a_dirty_tree() {
    each_nix(|nix| {
        for lab in [Lab::chroot(nix), Lab::plain(nix)] {
            let dir = fixture(&lab, "fleet");
            let flake = dir.display().to_string();
            for dirty in [false, true] {
                if dirty {
                    std::fs::write(dir.join("salt"), "2\n").unwrap();
                }
                let mut options = options(&lab, &flake);
                everything(&mut options);
                let locked = lock(&options).unwrap();
                assert_eq!(locked.dirty, Some(u32::from(dirty)));
                assert_eq!(locked.rev.is_some(), !dirty);
                assert_eq!(locked.store_dir, lab.store_dir());
                let said = evaluate(&options, locked, None).unwrap();
                assert_eq!(said.answers.len(), 12 + 1 + 1 + 10 + 1 + 2 + 1 + 1 + 1 + 2, "{:?}", said.names);
                for (attr, drv) in said.drvs() {
                    let wanted = if attr.starts_with("apps.") {
                        let apply = "program: builtins.head (builtins.attrNames (builtins.getContext program))";
                        base(&lab.run("nix", &["eval", "--raw", "--apply", apply, &format!("{flake}#{attr}.program")]))
                    } else {
                        nix_says(&lab, &flake, &installable(&attr), &[])
                    };
                    assert_eq!(drv, wanted, "{attr} dirty: {dirty}");
                    assert!(lab.physical().join(&drv).exists(), "{attr} is not instantiated");
                }
                assert!(said.replaced.is_empty(), "{:?}", said.replaced);
            }
        }
    });
}

#[test]
fn wanted_outputs_are_those_that_nix_would_build() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = lab.work().join("outputs");
        lab.write(
            "outputs/flake.nix",
            r#"{ outputs = { self }: let
              drv = name: more: derivation ({ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "out" "dev" "man" ]; } // more);
            in { packages.x86_64-linux = rec {
              plain = drv "plain" {};
              raw-dev = plain.dev;
              meta = drv "meta" {} // { meta.outputsToInstall = [ "dev" "man" ]; };
              selected = meta // meta.dev // { outputSpecified = true; };
              unselected = meta // { outputSpecified = false; };
              binless = derivation { name = "binless"; system = "x86_64-linux"; builder = "/bin/sh"; outputs = [ "bin" ]; };
            }; }; }"#,
        );
        commit(&lab, &dir);
        let flake = dir.display().to_string();
        let said = lock_and_evaluate(&options(&lab, &flake));
        for (attr, answer) in &said.answers {
            let built = lab
                .command("nix")
                .args(["build", "--dry-run", "--json", "--no-link", &format!("{flake}#{attr}")])
                .output()
                .unwrap();
            match answer {
                Answer::Drv(drv) => {
                    assert!(built.status.success(), "{attr}: {}", String::from_utf8_lossy(&built.stderr));
                    let json: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
                    let outputs = json[0]["outputs"].as_object().unwrap();
                    let mut wanted = drv.wanted.clone();
                    wanted.sort();
                    assert_eq!(wanted, outputs.keys().cloned().collect::<Vec<_>>(), "{attr}");
                    for name in &wanted {
                        let path = drv.outputs[name].as_ref().unwrap().to_basename();
                        assert_eq!(path, base(outputs[name].as_str().unwrap()), "{attr}^{name}");
                    }
                }
                Answer::Failed(failure) => {
                    assert_eq!(attr, "packages.x86_64-linux.binless");
                    assert!(failure.message.contains("has no output 'out'"), "{}", failure.message);
                }
                Answer::Nothing(reason) => panic!("{attr}: {reason}"),
                Answer::Finding(failure) => panic!("{attr}: {failure:?}"),
            }
        }
        assert_eq!(said.answers.len(), 6);
        // By name, any outputs.
        let mut options = options(&lab, &flake);
        options.selection.names = vec![Name::parse("plain^dev,man").unwrap(), Name::parse("meta^*").unwrap()];
        let said = lock_and_evaluate(&options);
        let wanted = |attr: &str| match &said.answers[attr] {
            Answer::Drv(drv) => drv.wanted.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wanted("packages.x86_64-linux.plain"), ["dev", "man"]);
        assert_eq!(wanted("packages.x86_64-linux.meta"), ["dev", "man", "out"]);
    });
}

#[test]
fn every_failure_is_its_own() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        let dir = fixture(&lab, "broken");
        let said = lock_and_evaluate(&options(&lab, &dir.display().to_string()));
        let failed: BTreeMap<&str, (&str, &str)> = said
            .answers
            .iter()
            .filter_map(|(attr, answer)| match answer {
                Answer::Failed(failure) => {
                    let class = match attr.as_str() {
                        "nixosConfigurations.out-of-memory" => Class::Oom,
                        // As of the drv.
                        "nixosConfigurations.import-from-failing-derivation" => Class::Build,
                        _ => Class::Eval,
                    };
                    assert_eq!(failure.class, class, "{attr}");
                    let position = failure.position.as_deref().unwrap_or("");
                    Some((attr.strip_prefix("nixosConfigurations.")?, (&*failure.message, position)))
                }
                _ => None,
            })
            .collect();
        let line = |text: &str| {
            let source = std::fs::read_to_string(dir.join("flake.nix")).unwrap();
            let at = source.lines().position(|line| line.contains(text)).unwrap() + 1;
            format!("flake.nix:{at}:")
        };
        for (attr, message, position) in [
            ("throws", "this host was retired in May", line("throws = ")),
            ("aborts", "this must never happen", line("aborts = ")),
            ("asserts", "assertion '((1 + 1) == 3)' failed", line("assert 1 + 1")),
            ("missing-attribute", "attribute 'opensll' missing\nDid you mean openssl?", line("pkgs.opensll")),
            ("type-error", "cannot coerce an integer to a string: 1", String::new()),
            ("infinite-recursion", "infinite recursion encountered", line("x = x;")),
            ("too-many-calls", "stack overflow; max-call-depth exceeded", line("1 + count n")),
            ("stack-overflow", "stack overflow (possible infinite recursion)", String::new()),
            ("out-of-memory", "the evaluator ran out of memory, which was 512 MiB (--eval-memory)", String::new()),
            ("syntax-error", "syntax error, unexpected '}', expecting ';'", "syntax-error.nix:4:".to_owned()),
            ("import-from-failing-derivation", "shared-library-1.0", String::new()),
        ] {
            let (said_message, said_position) = failed.get(attr).unwrap_or_else(|| panic!("{attr} did not fail"));
            assert!(said_message.contains(message), "{attr}: {said_message}");
            assert!(!said_message.contains("… while"), "{attr}: {said_message}");
            assert!(said_position.starts_with(&position), "{attr}: {said_position}");
            assert!(!said_position.contains("/store/"), "{attr}: {said_position}");
        }
        assert_eq!(failed.len(), 11, "{:?}", failed.keys());
        for attr in
            ["nixosConfigurations.good", "nixosConfigurations.shares-failure-2", "packages.x86_64-linux.exits-2"]
        {
            assert!(matches!(said.answers[attr], Answer::Drv(_)), "{attr}: {:?}", said.answers[attr]);
        }
        assert!(matches!(said.answers["nixosConfigurations.import-from-derivation"], Answer::Drv(_)));
        assert!((2..=3).contains(&said.replaced.len()), "{:?}", said.replaced);
    });
}

#[test]
fn outputs_unknown_before_building_have_no_path() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        lab.configure("extra-experimental-features = ca-derivations");
        let dir = fixture(&lab, "broken");
        let mut options = options(&lab, &dir.display().to_string());
        options.selection.names = vec![Name::parse("content-addressed").unwrap()];
        let said = lock_and_evaluate(&options);
        match &said.answers["legacyPackages.x86_64-linux.content-addressed"] {
            Answer::Drv(drv) => assert_eq!(drv.outputs["out"], None),
            other => panic!("{other:?}"),
        }
    });
}

/// What the server of [`dying`] has to give.
const SLOW: &str = "slow";

/// A flake whose attr `b` is fetched from a server while it is evaluated: whoever serves knows that it has come so far.
fn dying(lab: &Lab, port: u16) -> PathBuf {
    use sha2::Digest as _;
    let hash: String = sha2::Sha256::digest(SLOW).iter().map(|byte| format!("{byte:02x}")).collect();
    lab.write(
        "dying/flake.nix",
        &r#"{ outputs = { self }: let
          good = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; };
          slow = builtins.fetchurl { url = "http://127.0.0.1:PORT/slow"; sha256 = "HASH"; };
        in { packages.x86_64-linux = { a = good "a"; b = good (builtins.readFile slow); c = good "c"; d = good "d"; }; }; }"#
            .replace("PORT", &port.to_string())
            .replace("HASH", &hash),
    );
    let dir = lab.work().join("dying");
    commit(lab, &dir);
    dir
}

/// Kills the evaluator of attr `b` as often as told, each time once it is in the middle of it.
fn kill_in_mid_attr(lab: &Lab, times: u32) -> Said {
    use std::io::{BufRead as _, BufReader, Write as _};
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = dying(lab, server.local_addr().unwrap().port());
    let mut options = options(lab, &dir.display().to_string());
    options.workers = Some(1);
    let locked = lock(&options).unwrap();
    let store = lab.path("store").display().to_string();
    let killer = std::thread::spawn(move || {
        for _ in 0..times {
            let _asked = server.accept().unwrap();
            kill_repl(&store);
        }
        if times < 2 {
            let (mut stream, _) = server.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let length = SLOW.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{SLOW}").unwrap();
        }
    });
    let said = evaluate(&options, locked, None).unwrap();
    killer.join().unwrap();
    said
}

/// Kills the one `nix repl` that works on this store.
fn kill_repl(store: &str) {
    for pid in repls(store) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
    }
}

/// The living `nix repl` processes on this store, found by their environment.
pub(crate) fn repls(store: &str) -> Vec<i32> {
    let wanted = format!("NIX_STORE_DIR={store}");
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let is_repl = read("cmdline").split(|&b| b == 0).any(|arg| arg == b"repl");
        if is_repl && read("environ").split(|&b| b == 0).any(|variable| variable == wanted.as_bytes()) {
            pids.push(pid);
        }
    }
    pids
}

#[test]
fn an_evaluator_that_is_killed_once_costs_nothing() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let said = kill_in_mid_attr(&lab, 1);
        assert!(said.answers.values().all(|answer| matches!(answer, Answer::Drv(_))), "{:?}", said.answers);
        assert_eq!(said.replaced, ["an evaluator was killed by signal 9"]);
        assert_eq!(said.ready, 2);
    });
}

#[test]
fn an_attr_that_kills_twice_is_blamed_and_no_other() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let said = kill_in_mid_attr(&lab, 2);
        for (attr, answer) in &said.answers {
            match answer {
                Answer::Failed(failure) => {
                    assert_eq!(attr, "packages.x86_64-linux.b");
                    assert_eq!(failure.class, Class::Oom);
                    assert!(failure.message.contains("killed by signal 9"), "{}", failure.message);
                }
                Answer::Drv(_) => assert_ne!(attr, "packages.x86_64-linux.b"),
                Answer::Nothing(reason) => panic!("{reason}"),
                Answer::Finding(failure) => panic!("{failure:?}"),
            }
        }
        assert_eq!(said.replaced.len(), 2);
    });
}

#[test]
fn an_attr_that_fits_alone_does_not_fail_for_those_before_it() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        // Each keeps some 30 MB in the process that evaluates it.
        lab.write(
            "heavy/flake.nix",
            r#"{ outputs = { self }: let
              lists = builtins.mapAttrs (name: _: builtins.genList (n: n) 1000000) { a = 1; b = 1; c = 1; d = 1; e = 1; f = 1; };
              small = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; };
            in { packages.x86_64-linux = builtins.mapAttrs (name: list: builtins.seq (builtins.length list) (small name)) lists; }; }"#,
        );
        let dir = lab.work().join("heavy");
        commit(&lab, &dir);
        let mut options = options(&lab, &dir.display().to_string());
        options.workers = Some(1);
        options.budget = Budget::set(128 << 20);
        let replaced = |options: &EvalOptions| {
            let said = evaluate(options, lock(options).unwrap(), None).unwrap();
            assert!(said.answers.values().all(|answer| matches!(answer, Answer::Drv(_))), "{:?}", said.answers);
            assert_eq!(said.answers.len(), 6);
            said.replaced
        };
        // By its share it is replaced before it comes to that.
        let reasons = replaced(&options);
        assert!(!reasons.is_empty() && reasons.iter().all(|why| why.ends_with("and was replaced")), "{reasons:?}");
        options.memory_mib = 4096;
        let reasons = replaced(&options);
        assert!(!reasons.is_empty() && reasons.iter().all(|why| !why.ends_with("and was replaced")), "{reasons:?}");
    });
}

#[test]
fn an_evaluator_over_its_memory_is_replaced_once_its_answers_are_acknowledged() {
    let nix = newest();
    let lab = Lab::plain(&nix);
    let dir = fixture(&lab, "fleet");
    let mut options = options(&lab, &dir.display().to_string());
    options.workers = Some(1);
    // Every evaluator holds more than that.
    options.memory_mib = 1;
    options.selection.only = vec!["host0[0-3]".to_owned()];
    let locked = lock(&options).unwrap();
    let mut held = None;
    block_on(async {
        let mut evaluator = Evaluator::start(options.clone(), locked.clone(), None);
        loop {
            match evaluator.next().await.unwrap() {
                EvalMsg::Ended { ack, .. } => {
                    held = ack;
                    break;
                }
                EvalMsg::Fatal(error) => panic!("{error}"),
                _ => {}
            }
        }
        // The evaluator waits: nothing comes while the answer is not acknowledged.
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(200), evaluator.next()).await;
        assert!(waiting.is_err(), "{waiting:?}");
        drop(held.take());
        assert!(matches!(evaluator.next().await, Some(EvalMsg::WorkerReplaced { .. })));
    });
    let said = evaluate(&options, locked, None).unwrap();
    assert_eq!(said.answers.len(), 4);
    assert_eq!(said.replaced.len(), 4, "{:?}", said.replaced);
}

#[test]
fn dropping_an_evaluation_ends_its_processes() {
    let nix = newest();
    let lab = Lab::plain(&nix);
    let dir = fixture(&lab, "fleet");
    let mut options = options(&lab, &dir.display().to_string());
    options.workers = Some(2);
    let locked = lock(&options).unwrap();
    let store = lab.path("store").display().to_string();
    block_on(async {
        let mut evaluator = Evaluator::start(options, locked, None);
        let mut held = Vec::new();
        while held.len() < 2 {
            match evaluator.next().await.unwrap() {
                EvalMsg::Ended { ack, .. } => held.push(ack),
                EvalMsg::Fatal(error) => panic!("{error}"),
                _ => {}
            }
        }
        let pids = repls(&store);
        assert!(!pids.is_empty());
        drop(evaluator);
        // The runtime ends the task, and with it the processes, at its next turn.
        while repls(&store).iter().any(|pid| pids.contains(pid)) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn listing_forces_no_value() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        lab.write(
            "lazy/flake.nix",
            r#"{ outputs = { self }: let bad = n: throw "forced ${n}"; in {
              nixosConfigurations = { a = bad "a"; "b.c" = bad "b"; };
              packages.x86_64-linux.p = bad "p";
              packages.aarch64-linux = bad "system";
              devShells.x86_64-linux.default = bad "shell";
              checks = bad "checks";
              hydraJobs = {
                job = derivation { name = "job"; system = "x86_64-linux"; builder = "/bin/sh"; };
                nested.deep.job = derivation { name = "deep"; system = "x86_64-linux"; builder = "/bin/sh"; };
                forbidden = { recurseForDerivations = false; x = bad "x"; };
                broken = bad "subtree";
                number = 1;
              };
            }; }"#,
        );
        let dir = lab.work().join("lazy");
        commit(&lab, &dir);
        let mut options = options(&lab, &dir.display().to_string());
        options.selection.systems = Some(vec![System::from("x86_64-linux")]);
        let said = lock_and_evaluate(&options);
        let message = |said: &Said, attr: &str| match &said.answers[attr] {
            Answer::Failed(failure) => failure.message.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(message(&said, "nixosConfigurations.a"), "forced a");
        assert_eq!(message(&said, "nixosConfigurations.\"b.c\""), "forced b");
        assert_eq!(message(&said, "packages.x86_64-linux.p"), "forced p");
        assert_eq!(message(&said, "checks"), "forced checks");
        assert_eq!(said.answers.len(), 4, "{:?}", said.names);
        assert_eq!(said.names["nixosConfigurations.\"b.c\""], "b.c");
        let other_kinds: Vec<_> = said.left_out.iter().map(|l| (l.count, l.what.as_str(), l.flag.as_str())).collect();
        assert_eq!(other_kinds, [(1, "1 dev shell, hydra jobs", "--kind devShells,hydraJobs")]);

        options.selection.kinds = vec![Kind::HydraJobs];
        let said = lock_and_evaluate(&options);
        assert!(matches!(said.answers["hydraJobs.job"], Answer::Drv(_)));
        assert!(matches!(said.answers["hydraJobs.nested.deep.job"], Answer::Drv(_)));
        assert_eq!(message(&said, "hydraJobs.broken"), "forced subtree");
        assert_eq!(said.answers.len(), 3, "{:?}", said.names);
    });
}

#[test]
fn systems_that_are_left_out_are_counted() {
    let nix = newest();
    let lab = Lab::plain(&nix);
    let dir = fixture(&lab, "fleet");
    let mut options = options(&lab, &dir.display().to_string());
    options.selection.systems = Some(vec![System::from("aarch64-linux")]);
    let said = lock_and_evaluate(&options);
    assert_eq!(said.answers.len(), 12 + 1 + 1 + 1, "{:?}", said.names);
    assert_eq!(said.left_out[0].count, 12);
    assert_eq!(said.left_out[0].what, "10 packages, 2 checks for x86_64-linux");
    assert_eq!(said.left_out[0].flag, "--all-systems");
}

#[test]
fn names_find_what_people_mean() {
    let nix = newest();
    let lab = Lab::plain(&nix);
    let dir = fixture(&lab, "fleet");
    let mut options = options(&lab, &dir.display().to_string());
    options.selection.systems = Some(vec![System::from("x86_64-linux")]);
    let locked = lock(&options).unwrap();
    let mut ask = |names: &[&str]| {
        options.selection.names = names.iter().map(|name| Name::parse(name).unwrap()).collect();
        evaluate(&options, locked.clone(), None).map(|said| said.drvs().into_keys().collect::<Vec<_>>())
    };
    for (name, attrs) in [
        ("host03", &["nixosConfigurations.host03"][..]),
        ("nixosConfigurations.host03", &["nixosConfigurations.host03"]),
        (
            "nixosConfigurations.host03.config.system.build.sdImage",
            &["nixosConfigurations.host03.config.system.build.sdImage"],
        ),
        ("packages.x86_64-linux.library.dev", &["packages.x86_64-linux.library.dev"]),
        ("tool-1.2", &["packages.x86_64-linux.\"tool-1.2\""]),
        ("packages.x86_64-linux.\"tool-1.2\"", &["packages.x86_64-linux.\"tool-1.2\""]),
        ("checks", &["checks.x86_64-linux.greeting", "checks.x86_64-linux.headers"]),
        ("packages.aarch64-linux", &["packages.aarch64-linux.one"]),
        // Only there, so it is meant although the system is not asked for.
        ("one", &["packages.aarch64-linux.one"]),
        ("default", &["packages.x86_64-linux.default"]),
        ("pkg42", &["legacyPackages.x86_64-linux.pkg42"]),
        ("library.dev", &["packages.x86_64-linux.library.dev"]),
        ("formatter", &["formatter.x86_64-linux"]),
        ("hydraJobs", &["hydraJobs.release.x86_64-linux.library", "hydraJobs.release.x86_64-linux.structured"]),
        ("hydraJobs.release.x86_64-linux.library", &["hydraJobs.release.x86_64-linux.library"]),
    ] {
        assert_eq!(ask(&[name]).unwrap(), attrs, "{name}");
    }
    // There, and nothing to build: said by evaluating it.
    assert_eq!(ask(&["overlays.default"]).unwrap(), ["overlays.default"]);
    let error = ask(&["hsot03"]).unwrap_err();
    assert_eq!(error.message, "this flake has no attr 'hsot03'");
    assert!(error.hint.as_deref().unwrap().starts_with("did you mean host03"), "{error:?}");
    let error = ask(&["packages.x86_64-linux.libary"]).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean packages.x86_64-linux.library?"));
}

#[test]
fn warnings_belong_to_their_attr() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        lab.write(
            "warns/flake.nix",
            r#"{ outputs = { self }: let good = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; }; in {
              packages.x86_64-linux = {
                a = builtins.warn "a is old" (good "a");
                b = builtins.trace "evaluation warning: b is older" (good "b");
                c = builtins.trace "@drover-end:4" (good "c");
              };
            }; }"#,
        );
        let dir = lab.work().join("warns");
        commit(&lab, &dir);
        let said = lock_and_evaluate(&options(&lab, &dir.display().to_string()));
        let attr = |name: &str| Some(format!("packages.x86_64-linux.{name}"));
        assert_eq!(said.warnings, [(attr("a"), "a is old".to_owned()), (attr("b"), "b is older".to_owned())]);
        assert_eq!(said.answers.len(), 3);
    });
}
