//! What differs between two commits: the table of a repository with a past, told by Nix itself and by drover.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::history::{Change, Commit, History, attr};
use crate::support::nix::each_nix;

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

fn but_for_revisions(changes: BTreeMap<String, Change>) -> BTreeMap<String, Change> {
    changes.into_iter().map(|(name, change)| (name, Change { revision_only: false, ..change })).collect()
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
        for pair in history.commits.windows(2) {
            let (base, commit) = (&pair[0], &pair[1]);
            history.checkout(commit);
            let broken = commit.changes.values().any(|change| change.status.ends_with("_broken"));
            let exit = if broken { 3 } else { 0 };
            let document = history.site.exits(exit, &["affected", "--base", &base.rev, "--json"]).json();
            assert_eq!(
                but_for_revisions(told(&document)),
                but_for_revisions(commit.changes.clone()),
                "{}",
                commit.subject
            );
            // Every commit is evaluated once, as a head; then there is a record of it.
            let from_record = base.rev != history.commits[0].rev;
            assert_eq!(document["base"]["from_record"], from_record, "{}", commit.subject);
            assert_eq!(document["base"]["rev"], *base.rev);
            assert_eq!(document["head"]["rev"], *commit.rev);
            let ran = history.site.exits(exit, &["affected", "--base", &base.rev]);
            let lines: BTreeSet<String> = ran.out().lines().map(str::to_owned).collect();
            assert_eq!(lines, printed(&commit.changes), "{}", commit.subject);
        }
    });
}
