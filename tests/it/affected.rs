//! What differs between two commits: the table of a repository with a past, told by Nix itself and by drover.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::history::{Change, Commit, History, attr, commit_at, git};
use crate::support::nix::{each_nix, newest};
use crate::support::site::{Ran, finish, statuses, strings, wait_until};

/// What Nix itself says of an attr: its drvPath and outPath; `None` if it does not evaluate.
type Evaluated = BTreeMap<String, Option<(String, String)>>;

/// Asks Nix itself, without drover.
fn evaluated(history: &History, commit: &Commit) -> Evaluated {
    let expr = format!(
        "let f = builtins.getFlake \"git+file://{}?rev={}\";
             paths = drv: let both = [ drv.drvPath drv.outPath ]; tried = builtins.tryEval (builtins.deepSeq both both); in
               if tried.success then map builtins.unsafeDiscardStringContext tried.value else null;
         in {{ hosts = builtins.mapAttrs (_: host: paths host.config.system.build.toplevel) f.nixosConfigurations;
              packages = builtins.mapAttrs (_: paths) f.packages.x86_64-linux; }}",
        history.site.flake.display(),
        commit.rev
    );
    let text = history.site.lab.run("nix", &["eval", "--impure", "--json", "--expr", &expr]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let pairs = |key: &str| value[key].as_object().unwrap().clone().into_iter();
    let hosts = pairs("hosts").map(|(name, paths)| (attr(&name), paths));
    let packages = pairs("packages").map(|(name, paths)| (format!("packages.x86_64-linux.{name}"), paths));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    hosts
        .chain(packages)
        .map(|(name, paths)| (name, paths.as_array().map(|paths| (text(&paths[0]), text(&paths[1])))))
        .collect()
}

/// The same where an error may be none that Nix can catch: each attr by itself.
fn evaluated_one_by_one(history: &History, rev: &str) -> Evaluated {
    let lab = &history.site.lab;
    let reference = format!("git+file://{}?rev={rev}", history.site.flake.display());
    let ask = |attr: &str, apply: &str| -> Option<Value> {
        let installable = format!("{reference}#{attr}");
        let output = lab.command("nix").args(["eval", "--json", &installable, "--apply", apply]).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    };
    let mut all = Evaluated::new();
    for (set, below) in [("nixosConfigurations", ".config.system.build.toplevel"), ("packages.x86_64-linux", "")] {
        for name in strings(&ask(set, "builtins.attrNames").unwrap()) {
            let paths = ask(&format!("{set}.{name}{below}"), "drv: [ drv.drvPath drv.outPath ]");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            all.insert(format!("{set}.{name}"), paths.map(|paths| (text(&paths[0]), text(&paths[1]))));
        }
    }
    all
}

/// Status and whether outputs differ, of all that is not unchanged.
fn compared(base: &Evaluated, head: &Evaluated) -> BTreeMap<String, (&'static str, bool)> {
    let names = base.keys().chain(head.keys());
    let status = |name: &String| match (base.get(name), head.get(name)) {
        (Some(Some(base)), Some(Some(head))) if base.0 == head.0 => None,
        (Some(Some(base)), Some(Some(head))) => Some(("changed", base.1 != head.1)),
        (Some(Some(_)), Some(None)) => Some(("newly_broken", true)),
        (Some(None), Some(None)) => Some(("still_broken", true)),
        (Some(None), Some(Some(_))) => Some(("fixed", true)),
        (None, _) => Some(("added", true)),
        (Some(_), None) => Some(("removed", true)),
    };
    names.filter_map(|name| Some((name.clone(), status(name)?))).collect()
}

#[test]
fn the_table_is_what_nix_itself_says() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let all: Vec<Evaluated> = history.commits.iter().map(|commit| evaluated(&history, commit)).collect();
        for (pair, commit) in all.windows(2).zip(&history.commits[1..]) {
            let expected = commit.changes.iter();
            let expected = expected
                .map(|(name, Change { status, outputs_differ, .. })| (name.clone(), (*status, *outputs_differ)))
                .collect();
            assert_eq!(compared(&pair[0], &pair[1]), expected, "{}", commit.subject);
        }
    });
}

/// Status, revision_only and whether outputs differ, of all that a document does not call unchanged.
fn told(document: &Value) -> BTreeMap<String, Change> {
    const STATUSES: [&str; 6] = ["added", "removed", "changed", "newly_broken", "still_broken", "fixed"];
    let attrs = document["attrs"].as_array().unwrap().iter();
    let differ = attrs.filter(|attr| attr["status"] != "unchanged");
    differ
        .map(|attr| {
            let status = attr["status"].as_str().unwrap();
            let change = Change {
                status: STATUSES.into_iter().find(|known| *known == status).unwrap(),
                revision_only: attr["revision_only"].as_bool().unwrap(),
                outputs_differ: attr["outputs_differ"].as_bool().unwrap(),
            };
            (attr["attr"].as_str().unwrap().to_owned(), change)
        })
        .collect()
}

/// The attrs that `drover affected` prints where these changes are told.
fn printed(changes: &BTreeMap<String, Change>) -> BTreeSet<String> {
    let of_head = |change: &Change| !matches!(change.status, "removed" | "still_broken");
    changes.iter().filter(|(_, change)| of_head(change)).map(|(name, _)| name.clone()).collect()
}

#[test]
fn affected_is_the_table_for_every_commit() {
    each_nix(|nix| {
        let history = History::plain(nix);
        for (number, pair) in history.commits.windows(2).enumerate() {
            let (base, commit) = (&pair[0], &pair[1]);
            history.checkout(commit);
            let broken = commit.changes.values().any(|change| change.status.ends_with("_broken"));
            let exit = if broken { 3 } else { 0 };
            let document = history.site.exits(exit, &["affected", "--base", &base.rev, "--json"]).json();
            assert_eq!(told(&document), commit.changes, "{}", commit.subject);
            // Every commit is evaluated once, as a head; then there is a record of it.
            let from_record = base.rev != history.commits[0].rev;
            assert_eq!(document["base"]["from_record"], from_record, "{}", commit.subject);
            assert_eq!(document["base"]["rev"], *base.rev);
            assert_eq!(document["head"]["rev"], *commit.rev);
            if number % 5 != 0 {
                continue;
            }
            let ran = history.site.exits(exit, &["affected", "--base", &base.rev]);
            let lines: BTreeSet<String> = ran.out().lines().map(str::to_owned).collect();
            assert_eq!(lines, printed(&commit.changes), "{}", commit.subject);
        }
    });
}

/// What a forge says in a pull request that is to be merged into `main`.
fn pull_request(command: &mut Command, more: &[(&str, &str)]) {
    command.envs([("CI", "true"), ("GITHUB_ACTIONS", "true"), ("GITHUB_BASE_REF", "main")]).envs(more.iter().copied());
}

/// Runs drover in a directory, with these variables.
fn drover_in(history: &History, dir: &Path, vars: Option<&[(&str, &str)]>, args: &[&str]) -> Ran {
    let mut command = history.site.command(args);
    command.current_dir(dir);
    for name in ["GITHUB_BASE_REF", "GITHUB_REF", "GITHUB_SHA", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME"] {
        command.env_remove(name);
    }
    if let Some(vars) = vars {
        pull_request(&mut command, vars);
    }
    finish(command, args)
}

#[test]
fn a_base_is_named_as_git_names_it_and_the_work_tree_stays_as_it_is() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let parent = history.checkout_at("one host");
        let flake = history.site.flake.clone();
        git(&history.site.lab, &flake, &["tag", "v1", &parent]);
        git(&history.site.lab, &flake, &["branch", "feature/old", &parent]);
        let full = format!("git+file://{}?rev={parent}", flake.display());
        let before = git(&history.site.lab, &flake, &["status", "--porcelain=v2", "--branch", "--ignored"]);
        for base in ["HEAD~1", "v1", "feature/old", &parent, &parent[..9], &full] {
            let document = history.site.exits(0, &["affected", "--base", base, "--json"]).json();
            assert_eq!(document["base"]["rev"], *parent, "{base}");
            assert_eq!(told(&document), history.pair("one host").0.changes, "{base}");
        }
        let after = git(&history.site.lab, &flake, &["status", "--porcelain=v2", "--branch", "--ignored"]);
        assert_eq!(after, before);
        assert!(!flake.join(".git/worktrees").exists());

        // What is not committed yet is a change like any other.
        history.site.lab.write("infra/hosts/db1.motd", "Not committed.\n");
        let ran = history.site.exits(0, &["affected", "--base", "HEAD", "--hosts", "--ignore-revision"]);
        // Where a commit was, `rev1` now says that there is none: no revision, and no other one either.
        assert_eq!(ran.out(), "db1\nrev1\n", "{}", ran.stderr);

        // A base has attrs that the head has not, and the other way round: also by name.
        history.site.lab.write("infra/hosts/db1.motd", "All the data.\n");
        history.checkout_at("host renamed");
        let ran = history.site.exits(0, &["affected", "--base", "HEAD~1", "new1", "web1", "--json"]);
        let changes = told(&ran.json());
        assert_eq!(changes.keys().collect::<Vec<_>>(), ["nixosConfigurations.new1"], "{}", ran.stderr);
    });
}

#[test]
fn an_unknown_base_is_refused_with_what_may_be_meant() {
    let history = History::plain(&newest());
    let lab = &history.site.lab;
    let base = |name: &str| history.site.exits(2, &["affected", "--base", name]);
    assert!(base("mian").stderr.contains("hint: did you mean main?"), "{}", base("mian").stderr);
    assert!(base("0000000000000000000000000000000000000000").stderr.contains("hint: "), "no such commit");
    let alone = history.site.exits(2, &["affected"]);
    assert!(alone.stderr.contains("drover affected --base main"), "{}", alone.stderr);
    for base in ["mian", "git+file:///nonexistent"] {
        let ran = history.site.drover(&["run", "--base", base]);
        assert!(matches!(ran.code, Some(2..=4)) && ran.stderr.contains("hint: "), "{}", ran.stderr);
        assert!(!ran.stderr.contains("built"), "{}", ran.stderr);
    }
    // A flake that is in no repository has no revisions.
    let plain = lab.work().join("plain");
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join("flake.nix"), "{ outputs = _: { }; }").unwrap();
    let ran = drover_in(&history, &plain, None, &["affected", "--base", "main", "path:."]);
    assert!(ran.expect(2).stderr.contains("--base github:"), "{}", ran.stderr);
}

#[test]
fn in_a_pull_request_the_merge_base_is_used_if_it_has_a_record() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let (lab, flake) = (&history.site.lab, &history.site.flake);
        // main goes on after the branch has left it; the forge merges both for the test.
        let (head, parent) = history.pair("one host");
        git(lab, flake, &["branch", "-f", "topic", &head.rev]);
        git(lab, flake, &["checkout", "-q", "-B", "main", &parent.rev]);
        std::fs::write(flake.join("README.md"), "main goes on\n").unwrap();
        let main = commit_at(lab, flake, "main goes on", 1_777_000_000);
        git(lab, flake, &["checkout", "-q", "--detach", "topic"]);

        let short = &parent.rev[..7];
        let of_branch: &[(&str, &str)] = &[("GITHUB_REF", "refs/pull/8/head")];
        let ran = drover_in(&history, flake, Some(of_branch), &["affected"]);
        let line = format!("no record of the merge base {short}");
        assert!(ran.expect(2).stderr.contains(&line), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("drover affected --base {short}")), "{}", ran.stderr);
        // A run goes on without: nothing is evaluated that nobody asked for, and one line says so.
        let ran = drover_in(&history, flake, Some(of_branch), &["plan"]);
        assert!(
            ran.expect(0).stderr.contains(&format!("{line}: drover affected --base {short} evaluates it")),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("unaffected"), "{}", ran.stderr);

        // The base is evaluated on its own branch, and that is enough.
        history.checkout(parent);
        history.site.exits(0, &["plan"]);
        git(lab, flake, &["checkout", "-q", "--detach", "topic"]);
        let document = drover_in(&history, flake, Some(of_branch), &["affected", "--json"]).expect(0).json();
        assert_eq!(
            (&document["base"]["rev"], &document["base"]["from_record"]),
            (&parent.rev.as_str().into(), &true.into())
        );
        assert_eq!(told(&document), head.changes);
        let gitlab = [
            ("GITHUB_BASE_REF", ""),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"),
            ("CI_MERGE_REQUEST_DIFF_BASE_SHA", parent.rev.as_str()),
        ];
        let document = drover_in(&history, flake, Some(&gitlab), &["affected", "--json"]).expect(0).json();
        assert_eq!(told(&document), head.changes);
        let ran = drover_in(&history, flake, Some(of_branch), &["run"]);
        assert!(ran.expect(0).stderr.contains("base from record · 3 hosts affected, 8 unaffected"), "{}", ran.stderr);
        assert!(ran.stderr.contains("3 built, 8 unaffected"), "{}", ran.stderr);
        let ran = drover_in(&history, flake, Some(of_branch), &["plan", "--no-base"]);
        assert!(!ran.expect(0).stderr.contains("unaffected"), "{}", ran.stderr);

        // GitHub checks out a merge of both: its first parent is the base, wherever the target branch is by now.
        git(lab, flake, &["checkout", "-q", "--detach", &main]);
        history.site.exits(0, &["plan"]);
        git(lab, flake, &["merge", "-q", "--no-ff", "-m", "merged", "topic"]);
        let merge = git(lab, flake, &["rev-parse", "HEAD"]);
        let of_merge: &[(&str, &str)] = &[("GITHUB_REF", "refs/pull/8/merge"), ("GITHUB_SHA", &merge)];
        git(lab, flake, &["branch", "-f", "main", "topic"]);
        let document = drover_in(&history, flake, Some(of_merge), &["affected", "--json"]).expect(0).json();
        assert_eq!(document["base"]["rev"], *main);
        assert_eq!(printed(&told(&document)), printed(&head.changes));
    });
}

#[test]
fn a_shallow_clone_says_what_depth_it_needs() {
    let history = History::plain(&newest());
    let lab = &history.site.lab;
    let (head, parent) = history.pair("one host");
    git(lab, &history.site.flake, &["checkout", "-q", "-B", "main", &parent.rev]);
    git(lab, &history.site.flake, &["checkout", "-q", "-B", "topic", &parent.rev]);
    git(lab, &history.site.flake, &["merge", "-q", "--no-ff", "-m", "merged", &head.rev]);
    let merge = git(lab, &history.site.flake, &["rev-parse", "HEAD"]);
    let clone = |depth: &str| {
        let dir = lab.work().join(format!("clone-{depth}"));
        let url = format!("file://{}", history.site.flake.display());
        let to = dir.display().to_string();
        git(lab, &lab.work(), &["clone", "-q", "--depth", depth, "--branch", "topic", &url, &to]);
        dir
    };
    let dir = clone("1");
    let ran = drover_in(&history, &dir, None, &["affected", "--base", "HEAD~3"]);
    assert!(ran.expect(2).stderr.contains("git fetch --deepen=3"), "{}", ran.stderr);
    assert!(ran.stderr.contains("fetch-depth: 4"), "{}", ran.stderr);
    let ran = drover_in(&history, &dir, None, &["affected", "--base", "main"]);
    assert!(ran.expect(2).stderr.contains("git fetch --depth=1 origin main"), "{}", ran.stderr);
    let of_branch: &[(&str, &str)] = &[("GITHUB_REF", "refs/pull/8/head")];
    let ran = drover_in(&history, &dir, Some(of_branch), &["plan"]);
    assert!(
        ran.expect(0).stderr.contains("the branch main is not in this clone: git fetch origin main or fetch-depth: 0"),
        "{}",
        ran.stderr
    );

    // Of the merge that GitHub makes, one commit is enough: it says what its base is, and the record is found by that.
    let of_merge: &[(&str, &str)] = &[("GITHUB_REF", "refs/pull/8/merge"), ("GITHUB_SHA", &merge)];
    let ran = drover_in(&history, &dir, Some(of_merge), &["affected"]);
    assert!(
        ran.expect(2).stderr.contains(&format!("no record of the merge base {}", &parent.rev[..7])),
        "{}",
        ran.stderr
    );
    git(lab, &history.site.flake, &["checkout", "-q", "--detach", &parent.rev]);
    history.site.exits(0, &["plan"]);
    let document = drover_in(&history, &dir, Some(of_merge), &["affected", "--json"]).expect(0).json();
    assert_eq!(document["base"]["rev"], *parent.rev);
    assert_eq!(printed(&told(&document)), printed(&head.changes));
    // With the commit at hand, a shallow base is evaluated like any other.
    let dir = clone("2");
    let ran = drover_in(&history, &dir, None, &["affected", "--base", "HEAD~1", "--refresh", "--json"]);
    let document = ran.expect(0).json();
    assert_eq!(document["base"]["from_record"], false);
    assert_eq!(printed(&told(&document)), printed(&head.changes));
}

#[test]
fn a_run_builds_only_what_differs() {
    let nix = newest();
    let history = History::plain(&nix);
    history.checkout_at("a package of three hosts");
    let ran = history.site.exits(0, &["run", "--base", "HEAD~1", "--ignore-revision", "--json"]);
    let document = ran.json();
    let built: BTreeSet<String> =
        statuses(&document).into_iter().filter(|(_, status)| status == "built").map(|(name, _)| name).collect();
    let expected = [
        "nixosConfigurations.web1",
        "nixosConfigurations.web2",
        "nixosConfigurations.web3",
        "packages.x86_64-linux.nginx",
    ];
    assert_eq!(built, expected.map(str::to_owned).into());
    let others = statuses(&document).into_values().filter(|status| status == "unaffected").count();
    assert_eq!(others, 7);
    let drvs = history.site.events().built();
    assert!(!drvs.iter().any(|name| name.contains("db1") || name.contains("rev1")), "{drvs:?}");

    // Another way to the same outputs needs no building.
    history.checkout_at("url of a fixed output");
    let document = history.site.exits(0, &["run", "--base", "HEAD~1", "--ignore-revision", "--json"]).json();
    assert!(statuses(&document).values().all(|status| status == "unaffected"), "{:?}", statuses(&document));
    assert_eq!(document["attrs"].as_array().unwrap().iter().filter(|attr| !attr["reason"].is_null()).count(), 3);

    // What is broken says since when.
    history.checkout_at("host broken");
    let ran = history.site.exits(3, &["run", "--base", "HEAD~1"]);
    assert!(ran.stderr.contains("newly broken (ok on HEAD~1)"), "{}", ran.stderr);
    history.checkout_at("docs while a host is broken");
    let ran = history.site.exits(3, &["run", "--base", "HEAD~1"]);
    assert!(ran.stderr.contains("broken on HEAD~1 too"), "{}", ran.stderr);
}

#[test]
fn ctrl_c_ends_a_comparison_and_its_evaluators() {
    let nix = newest();
    let history = History::plain(&nix);
    // A base that takes for ever, since its evaluator does.
    let slow =
        "{ ... }:\nlet loop = n: if n == 0 then 0 else loop (n + 1 - 1); in\n{\n  text = toString (loop 1);\n}\n";
    history.site.lab.write("infra/hosts/db1.nix", slow);
    commit_at(&history.site.lab, &history.site.flake, "slow", 1_777_000_000);
    history.site.lab.write("infra/hosts/db1.nix", "{ ... }:\n{ }\n");
    commit_at(&history.site.lab, &history.site.flake, "fast", 1_777_000_100);
    let events = history.site.lab.path("events");
    let running = history.site.start(&["affected", "--base", "HEAD~1", "--events", &events.display().to_string()]);
    wait_until("the base to be evaluated", || {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        text.contains("base_progress").then_some(())
    });
    running.signal("INT");
    let ran = running.wait();
    assert!(ran.expect(130).out().is_empty());
    history.site.expect_no_process(std::time::Duration::from_secs(10));
}

/// A change of one file, somewhere.
#[derive(Debug, Clone)]
struct Mutation {
    /// Which of the files, and which place in it; larger numbers wrap.
    file: usize,
    place: usize,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Comment,
    Text,
    Garbage,
    Delete,
}

/// Makes the change. The files that list attrs stay readable, since what nobody can list nobody can compare.
fn mutate(history: &History, mutation: &Mutation) {
    let flake = &history.site.flake;
    let files: Vec<String> = git(&history.site.lab, flake, &["ls-files"]).lines().map(str::to_owned).collect();
    let files: Vec<String> = files.into_iter().filter(|file| file != "flake.lock").collect();
    let file = &files[mutation.file % files.len()];
    let lists = ["flake.nix", "hosts/default.nix", "pkgs/default.nix"].contains(&file.as_str());
    let path = flake.join(file);
    let old = std::fs::read_to_string(&path).unwrap();
    let strings: Vec<usize> = old.match_indices('"').map(|(at, _)| at).skip(1).step_by(2).collect();
    let new = match mutation.how {
        _ if lists => format!("{old}# {}\n", mutation.place),
        How::Comment => format!("{old}# {}\n", mutation.place),
        How::Text if strings.is_empty() => format!("{old}\n"),
        // In front of the end of some string.
        How::Text => {
            let at = strings[mutation.place % strings.len()];
            format!("{}x{}", &old[..at], &old[at..])
        }
        How::Garbage => format!("{old}}}\n"),
        How::Delete => {
            std::fs::remove_file(&path).unwrap();
            return;
        }
    };
    std::fs::write(path, new).unwrap();
}

/// Random changes of random files: what is affected is what Nix itself instantiates otherwise. `DROVER_TEST_ROUNDS` says
/// how many.
#[test]
fn whatever_changes_affected_is_what_has_another_drv() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    let history = History::plain(&newest());
    let (lab, flake) = (&history.site.lab, &history.site.flake);
    let last = history.commits.last().unwrap();
    let base = evaluated(&history, last);
    let how = proptest::sample::select(vec![How::Comment, How::Text, How::Text, How::Garbage, How::Delete]);
    let mutation = (0..1000_usize, 0..1000_usize, how).prop_map(|(file, place, how)| Mutation { file, place, how });
    #[expect(clippy::disallowed_methods, reason = "how long to try is said by whoever runs the test")]
    let rounds = std::env::var("DROVER_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    // A failing case is told; to make it smaller would take too long.
    let config = Config { cases: rounds, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let told_by_drover = TestRunner::new(config).run(&proptest::collection::vec(mutation, 1..4), |mutations| {
        git(lab, flake, &["checkout", "-q", "--force", "--detach", &last.rev]);
        mutations.iter().for_each(|mutation| {
            if git(lab, flake, &["status", "--porcelain"]).contains(" D ") {
                git(lab, flake, &["add", "-A"]);
            }
            mutate(&history, mutation);
        });
        git(lab, flake, &["add", "-A"]);
        git(lab, flake, &["commit", "-q", "--allow-empty", "-m", "mutated"]);
        let rev = git(lab, flake, &["rev-parse", "HEAD"]);
        let expected = compared(&base, &evaluated_one_by_one(&history, &rev));
        let ran = history.site.drover(&["affected", "--base", &last.rev, "--all-systems", "--json"]);
        prop_assert!(matches!(ran.code, Some(0 | 3)), "{}", ran.stderr);
        let document = ran.json();
        let got: BTreeMap<String, (&str, bool)> =
            told(&document).into_iter().map(|(name, change)| (name, (change.status, change.outputs_differ))).collect();
        prop_assert_eq!(got, expected, "{:?}", mutations);
        Ok(())
    });
    told_by_drover.unwrap();
}

#[test]
fn what_skip_declares_is_skipped_by_name_and_held_against_the_truth() {
    let history = History::plain(&newest());
    let site = &history.site;
    // Untracked, so that it is no change and there in every commit.
    site.lab.write("infra/drover.toml", "[skip]\npaths = ['*.md', 'hosts/**']\n");
    let base = history.checkout_at("docs only");
    // Nothing is known, and nothing is evaluated: the paths and their globs are named.
    let ran = site.exits(0, &["affected", "--base", &base]);
    assert_eq!(ran.out(), "");
    assert!(ran.stderr.contains("README.md   *.md"), "{}", ran.stderr);
    assert!(!site.events().of("eval_started").iter().any(|_| true), "nothing is evaluated");
    let ran = site.exits(0, &["run", "--base", &base]);
    assert!(ran.stderr.contains("README.md   *.md") && ran.stderr.contains("as [skip] says"), "{}", ran.stderr);
    // With a record of the base its attrs are named.
    git(&site.lab, &site.flake, &["checkout", "-q", "--detach", &base]);
    site.exits(0, &["plan"]);
    history.checkout_at("docs only");
    let document = site.exits(0, &["affected", "--base", &base, "--json"]).json();
    let attrs = document["attrs"].as_array().unwrap();
    assert_eq!(attrs.len(), 11);
    assert!(attrs.iter().all(|attr| attr["status"] == "unchanged"), "{document}");
    assert_eq!(document["skipped"][0]["path"], "README.md");
    let document = site.exits(0, &["run", "--base", &base, "--json"]).json();
    assert!(statuses(&document).values().all(|status| status == "unaffected"), "{:?}", statuses(&document));

    // Other paths are evaluated, and so is a commit that touches both.
    let base = history.checkout_at("a module of all hosts");
    let document = site.exits(0, &["affected", "--base", &base, "--json"]).json();
    assert_eq!(told(&document), history.pair("a module of all hosts").0.changes);

    // What is declared of hosts is wrong, of documents only as far as the revision goes.
    let last = history.commits.last().unwrap();
    history.checkout(last);
    let all = (history.commits.len() - 1).to_string();
    let ran = site.exits(1, &["affected", "--audit", &all, "--ignore-revision", "--json"]);
    let document = ran.json();
    let hidden: BTreeMap<&str, BTreeSet<String>> = document["skipped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|skipped| {
            let attrs =
                skipped["hidden"].as_array().unwrap().iter().map(|attr| attr["attr"].as_str().unwrap().to_owned());
            (skipped["subject"].as_str().unwrap(), attrs.collect())
        })
        .collect();
    let mut expected = BTreeMap::new();
    for commit in &history.commits[1..] {
        let paths =
            git(&site.lab, &site.flake, &["diff", "--name-only", "--no-renames", &format!("{0}~1..{0}", commit.rev)]);
        if paths.lines().all(|path| path.ends_with(".md") || path.starts_with("hosts/")) {
            let differs = |change: &Change| !change.revision_only && change.status != "still_broken";
            let names = commit.changes.iter().filter(|(_, change)| differs(change)).map(|(name, _)| name.clone());
            expected.insert(commit.subject, names.collect::<BTreeSet<_>>());
        }
    }
    assert!(expected.len() > 8, "{expected:?}");
    assert_eq!(hidden, expected);
    let ran = site.exits(1, &["affected", "--audit", "6", "--ignore-revision"]);
    assert!(ran.out().contains("nixosConfigurations.mon1\n"), "{}", ran.out());
    // Only documents: nothing is hidden, unless the revision counts.
    site.lab.write("infra/drover.toml", "[skip]\npaths = ['*.md']\n");
    let ran = site.exits(0, &["affected", "--audit", &all, "--ignore-revision"]);
    assert!(ran.out().is_empty() && ran.stderr.contains("hidden nothing"), "{}", ran.stderr);
    site.exits(1, &["affected", "--audit", &all]);
    site.lab.write("infra/drover.toml", "");
    assert!(site.exits(2, &["affected", "--audit", "3"]).stderr.contains("hint: [skip]"));
    site.lab.write("infra/drover.toml", "[skip]\npaths = ['a[']\n");
    assert!(site.exits(2, &["affected", "--base", "HEAD"]).stderr.contains("hint: "));
}
