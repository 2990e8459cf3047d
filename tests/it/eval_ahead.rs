//! What is begun before a flake is locked changes nothing but when it is there.

use std::path::Path;

use drover::eval::ahead::{self, Ahead};
use drover::eval::worker::Collector;
use drover::eval::{Answer, EvalMsg, EvalOptions, Evaluator, Locked, flake, record};

use crate::eval::{block_on, commit, evaluate, fixture, git, lock, options, repls};
use crate::support::nix::{Lab, each_nix};

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
        let begun = ahead::begin(&options.nix, &options.flake, Some(guess), COLLECTOR).await;
        let Ahead { locking, evaluator } = begun.expect("no flag changes the lock");
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
