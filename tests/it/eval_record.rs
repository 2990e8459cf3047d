//! The recorded evaluation on real Nixes: what is found again, and what must not be.

use drover::eval::record::{self, Context};
use drover::eval::{EvalOptions, FlakeOptions, Locked, Record};

use super::eval::{block_on, commit, evaluate, fixture, git, lock, options};
use crate::support::nix::{Lab, each_nix, newest};

fn context() -> Context {
    Context { nix: "a".to_owned(), settings: String::new() }
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
        let key = record::key(&locked, &context());
        assert!(Record::load(&state, &key).unwrap().is_none());
        let first = evaluate(&options, locked.clone(), None).unwrap();
        first.record.clone().unwrap().save(&state, &key).unwrap();
        // A tree that has moved on since the key was taken is not stored under it.
        let moved = format!("0123{quick_key}");
        record::save_quick(&state, &moved, &locked).unwrap();
        assert!(record::load_quick(&state, &moved).unwrap().is_none());
        record::save_quick(&state, &quick_key, &locked).unwrap();

        let again = without_nix(options.clone());
        let locked: Locked = record::load_quick(&state, &quick(&lab, &again).unwrap()).unwrap().unwrap();
        assert_eq!(record::key(&locked, &context()), key);
        let record = Record::load(&state, &key).unwrap().unwrap();
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
    let nix = Context { nix: "b".into(), settings: String::new() };
    let other = block_on(record::commit(&base.nix, &base.flake, &lab.work())).map(|commit| commit.key(&nix));
    assert!(other.is_some() && other.as_ref() != Some(&key));

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
    std::fs::create_dir_all(state.join("eval")).unwrap();
    for text in ["", "{", "[]", "{\"format\":0,\"lists\":{},\"answers\":{}}", "\u{0}"] {
        std::fs::write(state.join("eval/k.json"), text).unwrap();
        let error = Record::load(&state, "k").unwrap_err();
        assert!(error.to_string().contains("it is ignored"), "{error}");
    }
}

#[test]
fn failures_are_asked_again() {
    let nix = newest();
    let lab = Lab::chroot(&nix);
    let dir = fixture(&lab, "broken");
    let options = options(&lab, &dir.display().to_string());
    let locked = lock(&options).unwrap();
    let first = evaluate(&options, locked.clone(), None).unwrap();
    let second = evaluate(&options, locked, first.record.clone()).unwrap();
    assert_eq!(second.started.len(), 11, "{:?}", second.started);
    assert_eq!(second.drvs(), first.drvs());
}
