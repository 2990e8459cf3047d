//! The recorded evaluation on real Nixes: what is found again, and what must not be.

use drover::eval::record::{self, Context, Keyring, Shelf, Source};
use drover::eval::{Answer, Budget, EvalOptions, FlakeOptions, Locked, Meta};

use super::eval::{block_on, commit, evaluate, fixture, git, lock, options};
use crate::support::nix::{Lab, each_nix, newest};

fn context() -> Context {
    Context { nix: "a".to_owned(), ..Context::default() }
}

fn fingerprint(locked: &Locked) -> String {
    record::fingerprint(&Source::of(locked).unwrap(), &context())
}

fn shelf(state: &std::path::Path) -> Shelf {
    Shelf::new(state, Keyring::default())
}

fn quick(lab: &Lab, options: &EvalOptions) -> Option<String> {
    block_on(record::commit(&options.nix, &options.flake, &lab.work())).map(|commit| commit.key(&context()))
}

/// A program that is no Nix: whoever starts it fails.
fn without_nix(mut options: EvalOptions) -> EvalOptions {
    options.nix.program = "/nonexistent/nix".into();
    options
}

#[test]
fn the_same_commit_evaluates_nothing() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = fixture(&lab, "fleet");
        let state = lab.path("drover");
        let options = options(&lab, &dir.display().to_string());
        let quick_key = quick(&lab, &options).unwrap();
        let locked = lock(&options).unwrap();
        let key = fingerprint(&locked);
        assert!(shelf(&state).load(&key).0.is_none());
        let first = evaluate(&options, locked.clone(), None).unwrap();
        shelf(&state).save(&key, first.record.as_ref().unwrap()).unwrap();
        // A tree that has moved on since the key was taken is not stored under it.
        let moved = format!("0123{quick_key}");
        record::save_quick(&state, &moved, &locked).unwrap();
        assert!(record::load_quick(&state, &moved).unwrap().is_none());
        record::save_quick(&state, &quick_key, &locked).unwrap();

        let again = without_nix(options.clone());
        let locked: Locked = record::load_quick(&state, &quick(&lab, &again).unwrap()).unwrap().unwrap();
        assert_eq!(fingerprint(&locked), key);
        let record = shelf(&state).load(&key).0.unwrap();
        assert!(record.is_complete(&options.selection));
        assert_eq!(record.drvs().count(), 27);
        let second = evaluate(&again, locked.clone(), Some(record.clone())).unwrap();
        assert_eq!(second.answers, first.answers);
        assert_eq!(second.names, first.names);
        assert_eq!(second.left_out, first.left_out);
        assert!(second.started.is_empty());

        // A drv that is gone from the store is asked for again, and nothing else.
        let mut record = record;
        record.keep(|drv| !drv.name().contains("host03"));
        let third = evaluate(&options, locked, Some(record)).unwrap();
        assert_eq!(third.started, ["nixosConfigurations.host03"]);
        assert_eq!(third.answers, first.answers);
    });
}

#[test]
fn whatever_may_change_the_answer_changes_the_key_or_forbids_it() {
    let nix = newest();
    let lab = Lab::plain(&nix);
    let dir = fixture(&lab, "fleet");
    let reference = dir.display().to_string();
    let base = options(&lab, &reference);
    let key = quick(&lab, &base).unwrap();
    assert_eq!(quick(&lab, &base), Some(key.clone()), "the key is stable");

    let with = |change: &dyn Fn(&mut FlakeOptions)| {
        let mut options = base.clone();
        change(&mut options.flake);
        quick(&lab, &options)
    };
    assert_eq!(with(&|flake| flake.impure = true), None);
    assert_eq!(with(&|flake| flake.overrides = vec![("a".into(), "b".into())]), None);
    assert_eq!(with(&|flake| flake.reference_lock_file = Some("x".into())), None);
    assert_eq!(with(&|flake| flake.reference = "nixpkgs".into()), None);
    assert_eq!(with(&|flake| flake.reference = "github:a/b".into()), None);
    assert_eq!(with(&|flake| flake.reference = format!("path:{reference}")), None);
    assert_eq!(with(&|flake| flake.reference = format!("git+file://{reference}?rev=1")), None);
    let other = with(&|flake| flake.reference = format!("git+file://{reference}?dir=template"));
    assert!(other.is_some() && other.as_ref() != Some(&key));
    let sub = with(&|flake| flake.reference = format!("{reference}/template"));
    assert!(sub.is_some() && sub.as_ref() != Some(&key));
    for context in [
        Context { nix: "b".into(), ..Context::default() },
        Context { settings: "b".into(), ..context() },
        Context { arguments: "b".into(), ..context() },
        Context { local: "b".into(), ..context() },
    ] {
        let other = block_on(record::commit(&base.nix, &base.flake, &lab.work())).map(|commit| commit.key(&context));
        assert!(other.is_some() && other.as_ref() != Some(&key));
    }

    // The tree: untracked files do not matter to Nix, changed ones do.
    std::fs::write(dir.join("untracked"), "x").unwrap();
    assert_eq!(quick(&lab, &base), Some(key.clone()));
    std::fs::write(dir.join("salt"), "2\n").unwrap();
    assert_eq!(quick(&lab, &base), None, "dirty");
    commit(&lab, &dir);
    let committed = quick(&lab, &base);
    assert!(committed.is_some() && committed.as_ref() != Some(&key), "another commit");
    git(&lab, &dir, &["checkout", "-q", "-b", "side"]);
    assert_ne!(quick(&lab, &base), committed, "another branch is another locked reference");
    // An untracked flake.nix nearer to where one stands would be found first.
    let nearer = with(&|flake| flake.reference = format!("{reference}/deep"));
    assert_eq!(nearer, None, "no such directory");
    std::fs::create_dir(dir.join("deep")).unwrap();
    let before = with(&|flake| flake.reference = format!("{reference}/deep"));
    std::fs::write(dir.join("deep/flake.nix"), "{}").unwrap();
    let after = with(&|flake| flake.reference = format!("{reference}/deep"));
    assert!(before.is_some() && after.is_some() && before != after);
}

#[test]
fn a_corrupt_record_is_as_good_as_none() {
    let nix = newest();
    let lab = Lab::plain(&nix);
    let state = lab.path("drover");
    let shelf = shelf(&state);
    std::fs::create_dir_all(state.join("share/eval")).unwrap();
    for text in ["", "{", "[]", "{\"format\":0,\"lists\":{},\"answers\":{}}", "\u{0}", "drover-eval-record 2\n\n{}"] {
        std::fs::write(shelf.path("k"), text).unwrap();
        let (record, errors) = shelf.load("k");
        assert!(record.is_none());
        assert!(errors[0].to_string().contains("is ignored"), "{errors:?}");
    }
}

#[test]
fn only_errors_that_may_pass_are_asked_again() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        let dir = fixture(&lab, "broken");
        let options = options(&lab, &dir.display().to_string());
        let locked = lock(&options).unwrap();
        let first = evaluate(&options, locked.clone(), None).unwrap();
        let record = first.record.clone().unwrap();
        let second = evaluate(&options, locked, Some(record.clone())).unwrap();
        let mut started = second.started.clone();
        started.sort();
        let host = |name: &str| format!("nixosConfigurations.{name}");
        assert_eq!(started, ["import-from-failing-derivation", "out-of-memory", "stack-overflow"].map(host));
        assert_eq!(second.drvs(), first.drvs());
        let errors = record.answers().filter(|(_, _, recorded)| recorded.error.is_some()).count();
        assert_eq!(errors, 8);
    });
}

/// Derivations whose `meta` is good, odd, or does not evaluate in one way or another.
const METAS: &str = r#"{ outputs = { self }: { packages.x86_64-linux =
    let
      build = name: meta: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // { inherit meta; };
      loop = n: 1 + loop n;
    in {
      full = build "full" {
        position = "${self}/pkgs/full.nix:12";
        license = [ { spdxId = "MIT"; fullName = "x"; } { shortName = "bsd"; } "GPL" 1 { } (throw "no") { spdxId = throw "no"; fullName = "Zlib"; } ];
        identifiers.cpe = "cpe:2.3:a:x:full:1.0:*:*:*:*:*:*:*";
      } // { pname = "full"; version = "1.0"; };
      one = build "one" { license = { spdxId = "ISC"; }; };
      text = build "text" { license = "free"; };
      none = build "none" { } // { meta = null; };
      odd = build "odd" { license = 7; position = [ ]; identifiers = "x"; } // { pname = { }; version = 2; };
      long = build "long" { license = builtins.genList (n: "L${toString n}") 100000; position = builtins.concatStringsSep "" (builtins.genList (_: "x") 300); };
      throws = build "throws" { license = throw "no"; position = throw "no"; };
      all-throws = build "all-throws" { } // { pname = throw "no"; version = abort "no"; };
      missing = build "missing" { license = { }.mitt; };
      type = build "type" { license = 1 + "x"; };
      calls = build "calls" { license = loop 1; };
      recursion = build "recursion" { license = let x = x; in x; };
      overflow = build "overflow" { license = import (builtins.toFile "deep.nix" ("0" + builtins.concatStringsSep "" (builtins.genList (_: " - 1") 2000000))); };
      last = build "last" { license = "free"; };
    }; }; }"#;

#[test]
fn nothing_in_meta_fails_an_attr() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        lab.write("metas/flake.nix", METAS);
        let dir = lab.work().join("metas");
        commit(&lab, &dir);
        let mut options = options(&lab, &dir.display().to_string());
        options.workers = Some(1);
        // Enough to reach the end of the stack, which is what is looked at here.
        options.budget = Budget::set(2 << 30);
        let said = evaluate(&options, lock(&options).unwrap(), None).unwrap();
        let meta = |name: &str| match &said.answers[&format!("packages.x86_64-linux.{name}")] {
            Answer::Drv(drv) => {
                assert!(drv.drv.name().contains(name), "{drv:?}");
                *drv.meta.clone()
            }
            other => panic!("{name}: {other:?}"),
        };
        let licensed = |license: &[&str]| Meta {
            license: license.iter().map(|&license| license.to_owned()).collect(),
            ..Meta::default()
        };
        assert_eq!(
            meta("full"),
            Meta {
                position: Some("pkgs/full.nix:12".into()),
                pname: Some("full".into()),
                version: Some("1.0".into()),
                cpe: Some("cpe:2.3:a:x:full:1.0:*:*:*:*:*:*:*".into()),
                ..licensed(&["MIT", "bsd", "GPL", "Zlib"])
            }
        );
        assert_eq!(meta("one"), licensed(&["ISC"]));
        assert_eq!(meta("text"), licensed(&["free"]));
        let long: Vec<String> = (0..16).map(|n| format!("L{n}")).collect();
        assert_eq!(meta("long"), Meta { license: long, ..Meta::default() });
        let empty = ["none", "odd", "throws", "all-throws", "missing", "type", "calls", "recursion", "overflow"];
        for name in empty {
            assert!(meta(name).is_empty(), "{name}");
        }
        assert_eq!(meta("last"), licensed(&["free"]), "an evaluator that meta has killed is replaced");
    });
}

/// Attrs that fail for want of something that another time may be there, and attrs that fail by themselves.
const ERRORS: &str = r#"{ outputs = { self }: { packages.x86_64-linux =
    let
      sha256 = "0000000000000000000000000000000000000000000000000000";
      build = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ]; };
      deep = import (builtins.toFile "deep.nix" ("0" + builtins.concatStringsSep "" (builtins.genList (_: " - 1") 2000000)));
      loop = n: 1 + loop n;
    in {
      passes-url = build (builtins.readFile (builtins.fetchurl { url = "http://127.0.0.1:1/x"; inherit sha256; })) "";
      passes-host = build (builtins.readFile (builtins.fetchurl { url = "http://nowhere.invalid/x"; inherit sha256; })) "";
      passes-tarball = build (import (fetchTarball { url = "http://127.0.0.1:1/x.tar.gz"; inherit sha256; })) "";
      passes-git = build (builtins.fetchGit { url = "file:///nonexistent/repository"; rev = "0123456789012345678901234567890123456789"; }).name "";
      passes-tree = build (builtins.fetchTree { type = "tarball"; url = "http://127.0.0.1:1/x.tar.gz"; narHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="; }).name "";
      passes-hash = build (builtins.readFile (builtins.fetchurl { url = "file://PLACE"; inherit sha256; })) "";
      passes-ifd = build (import (build "fails" "exit 1")) "";
      passes-stack = build (toString deep) "";
      own-throw = throw "retired";
      own-abort = abort "never";
      own-assert = assert 1 == 2; null;
      own-attr = build { }.x "";
      own-file = import ./none.nix;
      own-syntax = import (builtins.toFile "bad.nix" "{");
      own-type = build (1 + "x") "";
      own-depth = build (toString (loop 1)) "";
      own-recursion = let x = x; in x;
      own-path = build (builtins.readFile /etc/hostname) "";
      own-unlocked = build (builtins.readFile (builtins.fetchurl "http://127.0.0.1:1/x")) "";
      own-feature = derivation { name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
      own-number = 7;
      own-argument = ({ a }: a) { };
    }; }; }"#;

#[test]
fn what_real_nixes_say_tells_own_errors_from_passing_ones() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        let place = lab.write("downloaded", "x");
        lab.write("errors/flake.nix", &ERRORS.replace("PLACE", &place.display().to_string()));
        let dir = lab.work().join("errors");
        commit(&lab, &dir);
        for ifd in ["true", "false"] {
            let mut options = options(&lab, &dir.display().to_string());
            options.nix.args.extend(["--option", "allow-import-from-derivation", ifd].map(str::to_owned));
            options.nix.args.extend(["--option", "download-attempts", "1"].map(str::to_owned));
            let said = evaluate(&options, lock(&options).unwrap(), None).unwrap();
            let record = said.record.unwrap();
            let mut wrong = Vec::new();
            for (attr, answer) in &said.answers {
                let Answer::Failed(failure) = answer else { panic!("{attr}: {answer:?}") };
                let stored = record.answers().any(|(path, _, _)| path.to_string() == *attr);
                eprintln!("{attr}: {:?}: {}", failure.class, failure.message.lines().next().unwrap_or_default());
                if stored != attr.contains(".own-") {
                    wrong.push(attr);
                }
            }
            assert!(wrong.is_empty(), "{wrong:?}");
            assert_eq!(said.answers.len(), 22);
        }
    });
}
