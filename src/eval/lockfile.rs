//! What is wrong with a lock file that Nix does not refuse. Pure: reads the lock that Nix has made of it, in the format
//! of version 5 to 7 of flake.lock (the manual's page on `nix flake`, "Lock files").

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::Value;

use super::findings::Finding;

/// From so many days on the age of an input is worth a word.
const OLD: u64 = 180;
const DAY: u64 = 24 * 60 * 60;
/// Inputs of inputs are looked at down to here.
const DEEPEST: usize = 64;

/// A lock, as far as it matters here.
#[derive(Deserialize)]
struct Lock {
    root: String,
    nodes: BTreeMap<String, Node>,
}

#[derive(Deserialize)]
struct Node {
    /// The name of a node, or the path from the root to an input that this one follows.
    #[serde(default)]
    inputs: BTreeMap<String, Value>,
    locked: Option<Source>,
}

impl Node {
    /// Its inputs that follow no other, with their nodes.
    fn own_inputs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inputs.iter().filter_map(|(input, node)| Some((input.as_str(), node.as_str()?)))
    }
}

/// What an input is locked to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    host: Option<String>,
    owner: Option<String>,
    repo: Option<String>,
    url: Option<String>,
    path: Option<String>,
    rev: Option<String>,
    nar_hash: Option<String>,
    last_modified: Option<u64>,
}

impl Source {
    /// What it comes from, whatever the commit; `None` for what is no repository.
    fn repository(&self) -> Option<String> {
        let (host, kind) = (self.host.as_deref().unwrap_or_default(), self.kind.as_str());
        match (kind, &self.owner, &self.repo, &self.url) {
            ("github" | "gitlab" | "sourcehut", Some(owner), Some(repo), _) => {
                Some(format!("{kind} {host} {}/{}", owner.to_lowercase(), repo.to_lowercase()))
            }
            ("git" | "hg", _, _, Some(url)) => Some(format!("{kind} {url}")),
            _ => None,
        }
    }

    /// Whether it says what its content is. What lies in the flake itself need not.
    fn is_fixed(&self) -> bool {
        let inside = self.kind == "path" && self.path.as_deref().is_some_and(|path| !path.starts_with('/'));
        self.nar_hash.is_some() || self.rev.is_some() || inside
    }
}

/// What the inputs of the flake itself are locked to, in the order of their names: the revision, else the hash of the
/// tree, of either so much as tells it from others. What follows an input of an input is no input of its own.
#[must_use]
pub fn inputs(locks: &Value) -> Vec<(String, String)> {
    let Ok(Lock { root, nodes }) = Lock::deserialize(locks) else { return Vec::new() };
    let own = nodes.get(&root).into_iter().flat_map(Node::own_inputs);
    let locked = own.filter_map(|(input, node)| {
        let source = nodes.get(node)?.locked.as_ref()?;
        let hash = || source.nar_hash.as_deref().map(|hash| hash.strip_prefix("sha256-").unwrap_or(hash));
        let known = source.rev.as_deref().or_else(hash)?;
        Some((input.to_owned(), known.chars().take(TELLING).collect()))
    });
    locked.collect()
}

/// Characters of a revision or a hash that tell it from others.
const TELLING: usize = 12;

/// How a flake and its lock file stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// All inputs that flake.nix names are locked.
    InStep,
    /// There is none, and there are inputs.
    Absent,
    /// It does not fit flake.nix.
    OutOfStep,
}

/// What is said of a lock. `now` is in seconds since 1970. A lock that cannot be read is Nix's to refuse.
#[must_use]
pub fn findings(locks: &Value, standing: Standing, now: u64) -> Vec<Finding> {
    let mut found: Vec<Finding> = standing_finding(standing).into_iter().collect();
    let Ok(lock) = Lock::deserialize(locks) else { return found };
    let paths = lock.paths();
    found.extend(lock.unlocked(&paths));
    found.extend(lock.copies(&paths));
    found.extend(lock.oldest(now));
    found
}

fn finding(message: String, hint: Option<String>) -> Finding {
    let about: crate::event::Text = "flake.lock".into();
    Finding { position: Some(about.clone()), about, message: message.into(), hint: hint.map(Into::into) }
}

fn standing_finding(standing: Standing) -> Option<Finding> {
    let (message, hint) = match standing {
        Standing::InStep => return None,
        Standing::Absent => (
            "there is no flake.lock: the inputs are what they happen to be today",
            "nix flake lock    then commit flake.lock",
        ),
        Standing::OutOfStep => (
            "flake.lock does not fit flake.nix: what it lacks is locked anew by everybody who evaluates",
            "nix flake lock    then commit flake.lock",
        ),
    };
    Some(finding(message.to_owned(), Some(hint.to_owned())))
}

/// The shortest way from the root to each node.
type Paths<'a> = BTreeMap<&'a str, Vec<&'a str>>;

impl Lock {
    /// The nodes that can be reached without `follows`, nearest first; of two equally near ones the first by name.
    fn paths(&self) -> Paths<'_> {
        let mut paths: Paths<'_> = BTreeMap::new();
        let mut open = VecDeque::from([(self.root.as_str(), Vec::new())]);
        while let Some((name, path)) = open.pop_front() {
            if paths.contains_key(name) || path.len() > DEEPEST {
                continue;
            }
            for (input, below) in self.nodes.get(name).into_iter().flat_map(Node::own_inputs) {
                open.push_back((below, [path.as_slice(), &[input]].concat()));
            }
            paths.insert(name, path);
        }
        paths
    }

    /// Nodes with their paths and what they are locked to, without the root; nearest first.
    fn sources<'a>(&'a self, paths: &'a Paths<'a>) -> Vec<(&'a [&'a str], &'a Source)> {
        let source = |(name, path): (&&'a str, &'a Vec<&'a str>)| {
            Some((path.as_slice(), self.nodes.get(*name)?.locked.as_ref()?))
        };
        let mut all: Vec<_> = paths.iter().filter(|(_, path)| !path.is_empty()).filter_map(source).collect();
        all.sort_by_key(|(path, _)| (path.len(), *path));
        all
    }

    fn unlocked<'a>(&'a self, paths: &'a Paths<'a>) -> impl Iterator<Item = Finding> + 'a {
        self.sources(paths).into_iter().filter(|(_, source)| !source.is_fixed()).map(|(path, _)| {
            let input = path.join("/");
            let message = format!("input '{input}' is not locked: it is another one whenever its source changes");
            finding(message, Some(format!("nix flake update {input}    with a source that has a commit or a hash")))
        })
    }

    /// Inputs of inputs that come from a repository of which there is another copy already. Two that the flake itself
    /// names are its own choice.
    fn copies<'a>(&'a self, paths: &'a Paths<'a>) -> Vec<Finding> {
        let mut by_repository: BTreeMap<String, Vec<(&[&str], &Source)>> = BTreeMap::new();
        for (path, source) in self.sources(paths) {
            if let Some(repository) = source.repository() {
                by_repository.entry(repository).or_default().push((path, source));
            }
        }
        by_repository.into_values().filter_map(|copies| several(&copies)).collect()
    }

    /// The input that the flake itself names and that is the oldest, if it is old.
    fn oldest(&self, now: u64) -> Option<Finding> {
        let direct = self.nodes.get(&self.root)?.own_inputs();
        let modified =
            direct.filter_map(|(input, node)| Some((self.nodes.get(node)?.locked.as_ref()?.last_modified?, input)));
        let (modified, input) = modified.min()?;
        let days = now.checked_sub(modified)? / DAY;
        (days >= OLD).then(|| {
            let message = format!("input '{input}' is {days} days old, the oldest of those that flake.nix names");
            finding(message, Some(format!("nix flake update {input}")))
        })
    }
}

/// Copies of one repository, nearest first, if some of them are there by no choice of the flake.
fn several(copies: &[(&[&str], &Source)]) -> Option<Finding> {
    let ((kept, _), others) = copies.split_first()?;
    let below: Vec<&[&str]> = others.iter().map(|(path, _)| *path).filter(|path| path.len() > 1).collect();
    if below.is_empty() {
        return None;
    }
    let commits: BTreeSet<_> = copies.iter().map(|(_, source)| (&source.rev, &source.nar_hash)).collect();
    let names: Vec<String> = copies.iter().map(|(path, _)| path.join("/")).collect();
    let differing = match commits.len() {
        1 => "of one commit".to_owned(),
        count => format!("of {count} commits"),
    };
    let message = format!("{} inputs are copies of one repository, {differing}: {}", copies.len(), names.join(", "));
    let lines = below.iter().map(|path| format!("inputs.{}.follows = \"{}\";", path.join(".inputs."), kept.join("/")));
    Some(finding(message, Some(lines.collect::<Vec<_>>().join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_000_000_000;

    fn github(repo: &str, rev: &str) -> Value {
        json!({ "type": "github", "owner": "O", "repo": repo, "rev": rev, "narHash": rev, "lastModified": NOW - DAY })
    }

    /// A lock with these nodes: name, inputs, source.
    fn lock(nodes: &[(&str, Value, Value)]) -> Value {
        let node = |(name, inputs, locked): &(&str, Value, Value)| {
            let mut node = json!({ "inputs": inputs });
            if !locked.is_null() {
                node["locked"] = locked.clone();
            }
            ((*name).to_owned(), node)
        };
        json!({ "version": 7, "root": "root", "nodes": nodes.iter().map(node).collect::<serde_json::Map<_, _>>() })
    }

    fn messages(lock: &Value) -> Vec<String> {
        findings(lock, Standing::InStep, NOW).into_iter().map(|found| found.message.to_string()).collect()
    }

    #[test]
    fn an_input_is_known_by_its_revision_or_its_hash() {
        let locks = serde_json::json!({ "version": 7, "root": "root", "nodes": {
            "root": { "inputs": { "nixpkgs": "nixpkgs_2", "data": "data", "same": ["data", "nixpkgs"], "gone": "gone" } },
            "nixpkgs_2": { "locked": { "type": "github", "rev": "5f2a1c9d07e15f2a1c9d07e15f2a1c9d07e15f2a" } },
            "nixpkgs": { "locked": { "type": "github", "rev": "1111111111111111111111111111111111111111" } },
            "data": { "inputs": { "nixpkgs": "nixpkgs" },
                "locked": { "type": "tarball", "narHash": "sha256-9c1d07AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" } },
        } });
        let pair = |name: &str, rev: &str| (name.to_owned(), rev.to_owned());
        assert_eq!(inputs(&locks), [pair("data", "9c1d07AAAAAA"), pair("nixpkgs", "5f2a1c9d07e1")]);
        assert_eq!(inputs(&Value::Null), []);
    }

    #[test]
    fn copies_are_named_with_the_line_that_makes_them_one() {
        let lock = lock(&[
            ("root", json!({ "home": "home", "nixpkgs": "nixpkgs_2" }), Value::Null),
            ("home", json!({ "nixpkgs": "nixpkgs", "utils": "utils" }), github("home", "h")),
            ("nixpkgs", json!({}), github("nixpkgs", "a")),
            ("nixpkgs_2", json!({}), github("Nixpkgs", "b")),
            ("utils", json!({ "nixpkgs": ["nixpkgs"] }), github("utils", "u")),
        ]);
        let found = findings(&lock, Standing::InStep, NOW);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(&*found[0].message, "2 inputs are copies of one repository, of 2 commits: nixpkgs, home/nixpkgs");
        assert_eq!(found[0].hint.as_deref(), Some("inputs.home.inputs.nixpkgs.follows = \"nixpkgs\";"));
    }

    #[test]
    fn two_that_the_flake_names_are_its_choice() {
        let inputs = json!({ "stable": "a", "unstable": "b" });
        let nodes =
            [("root", inputs, Value::Null), ("a", json!({}), github("n", "1")), ("b", json!({}), github("n", "2"))];
        assert_eq!(messages(&lock(&nodes)), Vec::<String>::new());
    }

    #[test]
    fn what_says_neither_commit_nor_hash_is_not_locked() {
        let inputs = json!({ "out": "out", "in": "in" });
        let path = |path: &str| json!({ "type": "path", "path": path });
        let nodes = [("root", inputs, Value::Null), ("out", json!({}), path("/x")), ("in", json!({}), path("./x"))];
        let said = messages(&lock(&nodes));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("input 'out' is not locked"), "{said:?}");
    }

    #[test]
    fn only_the_oldest_of_its_own_inputs_is_said_to_be_old() {
        let aged =
            |days: u64| json!({ "type": "git", "url": days.to_string(), "rev": "x", "lastModified": NOW - days * DAY });
        let nodes = |a: u64, b: u64| {
            lock(&[
                ("root", json!({ "a": "a", "b": "b" }), Value::Null),
                ("a", json!({ "c": "c" }), aged(a)),
                ("b", json!({}), aged(b)),
                ("c", json!({}), aged(9000)),
            ])
        };
        assert_eq!(messages(&nodes(OLD - 1, 3)), Vec::<String>::new());
        assert_eq!(messages(&nodes(200, 300)), ["input 'b' is 300 days old, the oldest of those that flake.nix names"]);
        // A clock that is behind.
        let ahead = json!({ "type": "git", "url": "x", "rev": "x", "lastModified": NOW + DAY });
        let lock = lock(&[("root", json!({ "a": "a" }), Value::Null), ("a", json!({}), ahead)]);
        assert_eq!(messages(&lock), Vec::<String>::new());
    }

    #[test]
    fn a_lock_that_goes_round_in_circles_is_read_to_its_end() {
        let nodes = [("root", json!({ "a": "a" }), Value::Null), ("a", json!({ "b": "root" }), github("a", "a"))];
        assert_eq!(messages(&lock(&nodes)), Vec::<String>::new());
        assert_eq!(findings(&json!(7), Standing::InStep, NOW), Vec::new());
    }

    #[test]
    fn how_it_stands_to_the_flake_comes_first() {
        let found = findings(&Value::Null, Standing::Absent, NOW);
        assert!(found[0].message.starts_with("there is no flake.lock"), "{found:?}");
        assert_eq!(findings(&Value::Null, Standing::OutOfStep, NOW).len(), 1);
    }
}
