//! What is begun before a flake is locked changes nothing but when it is there.

use std::path::Path;
use std::sync::Arc;

use drover::eval::ahead::{self, Ahead};
use drover::eval::worker::Collector;
use drover::eval::{Answer, EvalMsg, EvalOptions, Evaluator, Expected, Locked, flake, record};

use crate::eval::{block_on, commit, evaluate, fixture, git, lock, options, repls};
use crate::support::nix::{Lab, each_nix};
use crate::support::program::write_program;

const COLLECTOR: Collector = Collector { heap: 512 << 20, markers: 1 };

/// What a clean work tree will be locked to.
async fn guess(options: &EvalOptions) -> String {
    let commit = record::commit(&options.nix, &options.flake, Path::new(".")).await;
    commit.expect("the tree is clean").guess().expect("its path is plain")
}

/// Begins, locks, and evaluates; gives the answers, and which processes there were before and after locking.
fn run(options: &EvalOptions, store: &str, wrong: Option<String>) -> (Locked, Vec<Answer>, [Vec<i32>; 2]) {
    block_on(async {
        let guess = match wrong {
            Some(guess) => guess,
            None => guess(options).await,
        };
        let begun = ahead::begin(&options.nix, &options.flake, Some(COLLECTOR)).expect("no flag changes the lock");
        let Ahead { locking, evaluator } = begun.expect(Some(guess)).await;
        let before = repls(store);
        let locked = flake::lock_begun(&options.nix, &options.flake, Some(locking)).await.unwrap();
        let mut evaluating = Evaluator::start_with(evaluator, options.clone(), locked.clone(), None);
        let (mut answers, mut after) = (Vec::new(), Vec::new());
        while let Some(message) = evaluating.next().await {
            match message {
                EvalMsg::Listed(_) => after = repls(store),
                EvalMsg::Ended { answer, .. } => answers.push(answer),
                EvalMsg::Fatal(error) => panic!("{error}"),
                _ => {}
            }
        }
        (locked, answers, [before, after])
    })
}

fn sorted(answers: impl IntoIterator<Item = Answer>) -> Vec<String> {
    let mut texts: Vec<String> = answers.into_iter().map(|answer| format!("{answer:?}")).collect();
    texts.sort();
    texts
}

#[test]
fn an_evaluator_that_was_begun_for_the_right_reference_is_the_first_one() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = fixture(&lab, "fleet");
        let mut options = options(&lab, &dir.display().to_string());
        options.workers = Some(1);
        let store = lab.path("store").display().to_string();
        let expected = evaluate(&options, lock(&options).unwrap(), None).unwrap();
        let (locked, answers, [before, after]) = run(&options, &store, None);
        assert_eq!(locked.locked_ref, block_on(guess(&options)));
        assert_eq!(before.len(), 1);
        assert_eq!(before, after);
        assert_eq!(sorted(answers), sorted(expected.answers.into_values()));
    });
}

#[test]
fn one_that_was_begun_for_another_reference_is_not_asked() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = fixture(&lab, "fleet");
        let mut options = options(&lab, &dir.display().to_string());
        options.workers = Some(1);
        let store = lab.path("store").display().to_string();
        let wrong = block_on(guess(&options));
        lab.write(
            "fleet/flake.nix",
            r#"{ outputs = { self }: { packages.x86_64-linux.one = derivation {
            name = "one"; system = "x86_64-linux"; builder = "/bin/sh"; }; }; }"#,
        );
        commit(&lab, &dir);
        let (locked, answers, [before, after]) = run(&options, &store, Some(wrong.clone()));
        assert_ne!(locked.locked_ref, wrong);
        assert!(before.len() == 1 && after.len() == 1 && before != after, "{before:?} {after:?}");
        assert!(matches!(answers.as_slice(), [Answer::Drv(drv)] if drv.name == "one"), "{answers:?}");
    });
}

#[test]
fn what_a_clean_work_tree_is_locked_to_is_known_before() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = fixture(&lab, "fleet");
        lab.write("fleet/below/flake.nix", "{ outputs = _: { }; }");
        commit(&lab, &dir);
        git(&lab, &dir, &["checkout", "-q", "-b", "some/branch"]);
        let agree = |below: &str| {
            let options = options(&lab, &dir.join(below).display().to_string());
            assert_eq!(block_on(guess(&options)), lock(&options).unwrap().locked_ref);
        };
        agree("");
        agree("below");
        git(&lab, &dir, &["checkout", "-q", "--detach"]);
        agree("below");
    });
}

/// Quick attrs, and between them all that may come instead of an answer.
const QUICK: &str = r#"{
  outputs = { self }:
    let
      one = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; };
      forever = n: 1 + forever (n + 1);
      named = names: builtins.listToAttrs (map (name: { inherit name; value = one name; }) names);
    in
    {
      packages.x86_64-linux = named (builtins.genList (n: "fine-${toString (10 + n)}") 30) // {
        fine-15-throws = throw "not this one";
        fine-16-has-no-name = derivation { };
        fine-18-says = builtins.trace "I am said" (builtins.warn "I am warned of" (one "says"));
        fine-19-says-and-throws = builtins.trace "I am said, too" (throw "nor this one");
        fine-21-is-deep = forever 0;
        fine-23-has-no-meta = one "has-no-meta" // { meta = abort "no meta"; };
        fine-24-has-meta = one "has-meta" // { meta.license.spdxId = "MIT"; };
        "fine 25" = one "with-a-space";
      };
      checks.x86_64-linux = { inherit (self.packages.x86_64-linux) fine-10 fine-15-throws fine-11; };
    };
}"#;

#[test]
fn what_is_answered_ahead_is_what_is_answered_one_by_one() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = lab.path("work/quick");
        lab.write("quick/flake.nix", QUICK);
        commit(&lab, &dir);
        let typed = lab.path("typed");
        let mut options = options(&lab, &dir.display().to_string());
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = repl ] || exec {0} \"$@\"\ntee -a {1} | {0} \"$@\"\n",
            lab.nix.bin.join("nix").display(),
            typed.display()
        );
        write_program(&lab.path("bin/nix"), &script);
        let mut answer = |expected: Expected| {
            let _ = std::fs::remove_file(&typed);
            (options.workers, options.expected) = (Some(1), Arc::new(expected));
            options.nix.program = lab.path("bin/nix").into();
            let said = evaluate(&options, lock(&options).unwrap(), None).unwrap();
            (said, std::fs::read_to_string(&typed).unwrap())
        };
        let (expected, one_by_one) = answer(Expected::default());
        let quick = expected.answers.keys().map(|attr| (attr.clone(), 0.001)).collect();
        let (said, many) = answer(Expected { seconds: quick, ..Expected::default() });
        assert!(!one_by_one.contains("__d.many"));
        assert!(many.matches("__d.many").count() > 2, "{many}");
        assert!(many.matches("__d.drv").count() < said.answers.len() / 2, "{many}");
        assert_eq!(said.answers.len(), 41);
        assert_eq!(said.drvs(), expected.drvs());
        for (attr, answer) in &said.answers {
            // Who died over the deep one says how much it held.
            if !attr.ends_with("is-deep") {
                assert_eq!(Some(answer), expected.answers.get(attr), "{attr}");
            }
        }
        let of = |mut texts: Vec<(String, String)>| {
            texts.sort();
            texts
        };
        assert_eq!(of(said.traces), of(expected.traces));
        let with_attr = |said: Vec<(Option<String>, String)>| said.into_iter().map(|(a, b)| (a.unwrap_or_default(), b));
        assert_eq!(of(with_attr(said.warnings).collect()), of(with_attr(expected.warnings).collect()));
        assert!(expected.started.len() == said.started.len());
    });
}
