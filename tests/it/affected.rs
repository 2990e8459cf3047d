//! What differs between two commits: the table of a repository with a past, told by Nix itself and by drover.

use std::collections::BTreeMap;

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
