//! Locking on real Nixes: every way to name a flake, overrides, trees that change, and a flake.lock that is never
//! written.

use std::path::Path;

use drover::eval::{Answer, EvalMsg, LockError, Locked};

use super::eval::{commit, evaluate, evaluate_with, fixture, git, lock, lock_and_evaluate, nix_says, options};
use crate::support::nix::{Lab, each_nix, newest};

/// A flake whose only package is named after its input and after its own revision.
fn with_input(lab: &Lab) -> std::path::PathBuf {
    lab.write("dep/flake.nix", r#"{ outputs = { self }: { value = "one"; }; }"#);
    lab.write("other/flake.nix", r#"{ outputs = { self }: { value = "two"; }; }"#);
    let dep = lab.work().join("dep");
    lab.write(
        "main/flake.nix",
        &r#"{ inputs.dep.url = "path:DEP"; outputs = { self, dep }: { packages.x86_64-linux.a = derivation {
            name = "a-${dep.value}-${self.shortRev or self.dirtyShortRev or "none"}-${self.lastModifiedDate}";
            system = "x86_64-linux"; builder = "/bin/sh"; }; }; }"#
            .replace("DEP", &dep.display().to_string()),
    );
    let dir = lab.work().join("main");
    commit(lab, &dir);
    dir
}

const ATTR: &str = "packages.x86_64-linux.a";

fn assert_untouched(lab: &Lab, dir: &Path) {
    assert_eq!(git(lab, dir, &["status", "--porcelain"]), "", "the repository was written to");
}

#[test]
fn a_lock_that_is_not_in_step_is_never_written() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = with_input(&lab);
        let flake = dir.display().to_string();
        let mut options = options(&lab, &flake);
        let locked = lock(&options).unwrap();
        assert!(!locked.in_step);
        let file = locked.lock_file().unwrap().to_owned();
        assert!(std::fs::read_to_string(&file).unwrap().contains("\"dep\""));
        let reference = file.display().to_string();
        let said = evaluate(&options, locked, None).unwrap();
        assert_eq!(said.drvs()[ATTR], {
            // The lock file is gone with the evaluation: take another of the same content.
            let again = lock(&options).unwrap();
            assert!(!Path::new(&reference).exists(), "the temporary lock file stays");
            nix_says(&lab, &flake, ATTR, &["--reference-lock-file", &again.lock_file().unwrap().display().to_string()])
        });
        assert!(said.record.is_none(), "what is not locked in the repository is not remembered");
        assert!(!dir.join("flake.lock").exists());
        assert_untouched(&lab, &dir);

        options.flake.no_update_lock_file = true;
        let error = lock(&options).unwrap_err().into_error();
        assert!(error.message.contains("flake.lock does not cover all inputs"), "{error}");
        assert!(error.hint.unwrap().contains("nix flake lock"));

        // In step.
        options.flake.no_update_lock_file = false;
        lab.run("nix", &["flake", "lock", &flake]);
        commit(&lab, &dir);
        let locked = lock(&options).unwrap();
        assert!(locked.in_step && locked.lock_file().is_none());
        let said = evaluate(&options, locked, None).unwrap();
        assert_eq!(said.drvs()[ATTR], nix_says(&lab, &flake, ATTR, &[]));
        assert!(said.record.is_some());
        assert_untouched(&lab, &dir);
    });
}

#[test]
fn overrides_mean_what_they_mean_to_nix() {
    each_nix(|nix| {
        for in_step in [true, false] {
            let lab = Lab::plain(nix);
            let dir = with_input(&lab);
            let flake = dir.display().to_string();
            if in_step {
                lab.run("nix", &["flake", "lock", &flake]);
                commit(&lab, &dir);
            }
            let other = format!("path:{}", lab.work().join("other").display());
            let mut options = options(&lab, &flake);
            options.flake.overrides = vec![("dep".to_owned(), other.clone())];
            let locked = lock(&options).unwrap();
            assert!(locked.args().iter().any(|arg| arg.contains("narHash=")), "{:?}", locked.args());
            let said = evaluate(&options, locked, None).unwrap();
            let drv = &said.drvs()[ATTR];
            assert!(drv.contains("-a-two-"), "{drv}");
            assert_eq!(*drv, nix_says(&lab, &flake, ATTR, &["--override-input", "dep", &other]));
            assert!(said.record.is_none());
            assert_untouched(&lab, &dir);
        }
    });
}

#[test]
fn a_reference_lock_file_is_read_and_not_written() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = with_input(&lab);
        let flake = dir.display().to_string();
        let file = lab.work().join("ref.lock");
        let path = file.display().to_string();
        lab.run("nix", &["flake", "lock", &flake, "--output-lock-file", &path]);
        let before = std::fs::read_to_string(&file).unwrap();
        let mut options = options(&lab, &flake);
        options.flake.reference_lock_file = Some(file.clone());
        let said = lock_and_evaluate(&options);
        assert_eq!(said.drvs()[ATTR], nix_says(&lab, &flake, ATTR, &["--reference-lock-file", &path]));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
        assert_untouched(&lab, &dir);
    });
}

#[test]
fn every_way_to_name_a_flake() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let flake = |name: &str| {
            format!(
                r#"{{ outputs = {{ self }}: {{ packages.x86_64-linux.a = derivation {{
                    name = "{name}-${{self.rev or self.dirtyRev or "none"}}-${{self.lastModifiedDate}}-${{builtins.unsafeDiscardStringContext (builtins.baseNameOf (toString self))}}";
                    system = "x86_64-linux"; builder = "/bin/sh"; }}; }}; }}"#
            )
        };
        lab.write("re po/flake.nix", &flake("top"));
        lab.write("re po/sub/flake.nix", &flake("sub"));
        let dir = lab.work().join("re po");
        commit(&lab, &dir);
        git(&lab, &dir, &["worktree", "add", "-q", "../tree", "-b", "side"]);
        let url = format!("file://{}", dir.display());
        git(&lab, &dir, &["commit", "-qm", "second", "--allow-empty"]);
        git(&lab, &lab.work(), &["clone", "-q", "--depth", "1", &url, "shallow"]);
        lab.write("plain/flake.nix", &flake("plain"));
        lab.write("untracked/flake.nix", &flake("dirty"));
        let untracked = lab.work().join("untracked");
        commit(&lab, &untracked);
        lab.write("untracked/new", "not seen");
        git(&lab, &dir, &["branch", "-q", "old", "HEAD~1"]);

        let work = lab.work().display().to_string();
        for (reference, clean) in [
            ("./re po".to_owned(), Some(0)),
            (format!("{work}/re po"), Some(0)),
            ("./re po/sub".to_owned(), Some(0)),
            (format!("git+file://{work}/re%20po"), Some(0)),
            (format!("git+file://{work}/re%20po?dir=sub"), Some(0)),
            (format!("git+file://{work}/re%20po?ref=old"), Some(0)),
            (format!("path:{work}/plain"), None),
            ("path:./plain".to_owned(), None),
            ("./plain".to_owned(), None),
            ("./tree".to_owned(), Some(0)),
            ("./shallow".to_owned(), Some(0)),
            ("./untracked".to_owned(), Some(0)),
        ] {
            let options = options(&lab, &reference);
            let locked = lock(&options).unwrap_or_else(|error| panic!("{reference}: {:?}", error.into_error()));
            assert_eq!(locked.dirty, clean, "{reference}");
            assert!(locked.in_step, "{reference}");
            let said = evaluate(&options, locked, None).unwrap_or_else(|error| panic!("{reference}: {error:?}"));
            assert_eq!(said.drvs()[ATTR], nix_says(&lab, &reference, ATTR, &[]), "{reference}");
        }
        // Explicitly without what a shallow clone needs.
        let options = options(&lab, &format!("git+file://{work}/shallow"));
        if let Err(error) = lock(&options) {
            let error = error.into_error();
            assert!(error.hint.as_deref().unwrap_or_default().contains("shallow=1"), "{error:?}");
        }
    });
}

#[test]
fn submodules_are_seen_when_asked_for() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        lab.write("module/value", "from the submodule");
        commit(&lab, &lab.work().join("module"));
        lab.write(
            "repo/flake.nix",
            r#"{ outputs = { self }: { packages.x86_64-linux.a = derivation {
                name = if builtins.pathExists ./module/value then "with" else "without";
                system = "x86_64-linux"; builder = "/bin/sh"; }; }; }"#,
        );
        let dir = lab.work().join("repo");
        commit(&lab, &dir);
        let module = lab.work().join("module").display().to_string();
        git(&lab, &dir, &["submodule", "--quiet", "add", &module, "module"]);
        commit(&lab, &dir);
        for (parameters, name) in [("", "without"), ("?submodules=1", "with")] {
            let reference = format!("git+file://{}{parameters}", dir.display());
            let said = lock_and_evaluate(&options(&lab, &reference));
            let drv = &said.drvs()[ATTR];
            assert!(drv.ends_with(&format!("-{name}.drv")), "{drv}");
            assert_eq!(*drv, nix_says(&lab, &reference, ATTR, &[]));
        }
    });
}

#[test]
fn impure_evaluation_only_when_asked_for() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        lab.write(
            "impure/flake.nix",
            r#"{ outputs = { self }: { packages.x86_64-linux.a = derivation {
                name = "home-${builtins.baseNameOf (builtins.getEnv "HOME")}-${builtins.currentSystem or "pure"}";
                system = "x86_64-linux"; builder = "/bin/sh"; }; }; }"#,
        );
        let dir = lab.work().join("impure");
        commit(&lab, &dir);
        let flake = dir.display().to_string();
        let mut options = options(&lab, &flake);
        let pure = lock_and_evaluate(&options);
        assert!(pure.drvs()[ATTR].ends_with("-home--pure.drv"), "{:?}", pure.drvs());
        options.flake.impure = true;
        let impure = lock_and_evaluate(&options);
        assert_eq!(impure.drvs()[ATTR], nix_says(&lab, &flake, ATTR, &["--impure"]));
        assert!(impure.drvs()[ATTR].contains("-home-home-"), "{:?}", impure.drvs());
        assert!(impure.record.is_none());
    });
}

/// Locks a dirty tree and changes it afterwards.
fn changed_after_locking(lab: &Lab) -> (drover::eval::EvalOptions, Locked, std::path::PathBuf) {
    let dir = fixture(lab, "fleet");
    std::fs::write(dir.join("salt"), "2\n").unwrap();
    let options = options(lab, &dir.display().to_string());
    let locked = lock(&options).unwrap();
    (options, locked, dir)
}

fn assert_changed(error: &drover::error::Error) {
    assert!(error.message.contains("changed while it was being evaluated"), "{error}");
    assert!(error.hint.as_deref().unwrap().contains("run again"), "{error:?}");
}

#[test]
fn a_tree_that_changes_before_an_evaluator_loads_it_is_an_error() {
    each_nix(|nix| {
        for lab in [Lab::plain(nix), Lab::chroot(nix)] {
            let (options, locked, dir) = changed_after_locking(&lab);
            std::fs::write(dir.join("salt"), "3\n").unwrap();
            assert_changed(&evaluate(&options, locked, None).unwrap_err());
        }
    });
}

#[test]
fn a_tree_that_changes_while_it_is_evaluated_is_an_error() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let (mut options, locked, dir) = changed_after_locking(&lab);
        for impure in [false, true] {
            options.flake.impure = impure;
            std::fs::write(dir.join("salt"), "2\n").unwrap();
            let error = evaluate_with(&options, locked.clone(), None, |message| {
                if matches!(message, EvalMsg::Listed(_)) {
                    std::fs::write(dir.join("salt"), "3\n").unwrap();
                }
            });
            assert_changed(&error.unwrap_err());
        }
    });
}

#[test]
fn a_path_that_changes_is_an_error_too() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = fixture(&lab, "fleet");
        let options = options(&lab, &format!("path:{}", dir.display()));
        let locked = lock(&options).unwrap();
        assert_eq!(locked.dirty, None);
        let changed = locked.clone();
        assert_eq!(evaluate(&options, locked, None).unwrap().answers.len(), 27);
        std::fs::write(dir.join("salt"), "3\n").unwrap();
        assert_changed(&evaluate(&options, changed, None).unwrap_err());
    });
}

#[test]
fn errors_end_in_something_to_type() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        std::fs::create_dir(lab.work().join("empty")).unwrap();
        lab.write("syntax/flake.nix", "{ outputs = { self }: { a = 1 }; }");
        commit(&lab, &lab.work().join("syntax"));
        lab.write("new/other", "");
        commit(&lab, &lab.work().join("new"));
        lab.write("new/flake.nix", "{ outputs = { self }: { }; }");
        let missing = format!("git+file://{}/missing", lab.work().display());
        for (reference, message, hint) in [
            ("./empty", "'./empty' is not a flake", "nix flake init"),
            ("./missing", "cannot find flake './missing'", "drover plan PATH"),
            (missing.as_str(), "missing", ""),
            ("./syntax", "syntax error, unexpected '}', expecting ';'", "nix flake metadata"),
            ("./new", "flake.nix", "git add flake.nix"),
            ("git+http://127.0.0.1:1/x", "cannot lock flake", "nix flake metadata"),
        ] {
            let error = lock(&options(&lab, reference)).unwrap_err();
            assert!(matches!(error, LockError::Nix { .. }), "{reference}: {error:?}");
            let error = error.into_error();
            assert!(error.message.contains(message), "{reference}: {error:?}");
            assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{reference}: {error:?}");
            if reference == "./syntax" {
                assert!(error.message.contains("\nat flake.nix:1:"), "{error:?}");
            }
        }
        let mut options = options(&lab, ".");
        options.nix.program = "/nonexistent/nix".into();
        let error = lock(&options).unwrap_err().into_error();
        assert!(error.message.contains("cannot start"), "{error}");
        assert!(error.hint.unwrap().contains("install Nix"));
    });
}

#[test]
fn what_an_untracked_file_breaks_says_so() {
    let nix = newest();
    let lab = Lab::plain(&nix);
    lab.write("repo/flake.nix", r#"{ outputs = { self }: { packages.x86_64-linux.a = import ./new.nix; }; }"#);
    let dir = lab.work().join("repo");
    commit(&lab, &dir);
    lab.write("repo/new.nix", "1");
    let said = lock_and_evaluate(&options(&lab, &dir.display().to_string()));
    match &said.answers[ATTR] {
        Answer::Failed(failure) => assert!(failure.message.contains("git add new.nix"), "{}", failure.message),
        other => panic!("{other:?}"),
    }
}
