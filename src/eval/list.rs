//! Which attrs there are, and which of them were asked for. Names are listed without forcing what they name; only
//! `hydraJobs` and outputs that are asked for by name are walked, since there the shape is not known. Does not evaluate
//! derivations, and does not filter by globs: see `glob`.
//!
//! A subtree that does not evaluate is one attr that fails, under the subtree's own name.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::expr::{self, Question};
use super::glob::Filter;
use super::outputs;
use super::own_config::OwnConfig;
use super::pool::{self, Answer, EvalMsg};
use super::rule::{Check, Output, Place, Rule};
use super::seat::Seat;
use super::what::{Name, Selection};
use crate::error::Error;
use crate::event::Failure;
use crate::id::{AttrPath, Kind, System};

/// How deep sets of jobs are walked, and how many of their nodes: a set may contain itself.
const WALK_DEPTH: usize = 24;
const WALK_NODES: usize = 500_000;
/// How many nearest names an error shows.
const NEAREST: usize = 4;
/// How far below the nearest one they may be, and how far at all (Jaro-Winkler, 1 is equal).
const NEAR: f64 = 0.1;
const FAR: f64 = 0.7;

/// One attr that is to be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its full path.
    pub path: AttrPath,
    /// The outputs that were asked for by name; see [`Name::outputs`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<String>>,
    /// It is a subtree that does not evaluate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// How it is checked, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// Attrs that were left out by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many, as far as they have been counted.
    pub count: u32,
    /// `3 packages for aarch64-darwin`.
    pub what: String,
    /// The flag that adds them.
    pub flag: String,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// The attrs, in the order of kinds and names.
    pub entries: Vec<Entry>,
    /// Kinds and systems that were passed over; they are counted when there is time.
    pub passed_over: Vec<(Kind, System)>,
    /// Warnings while listing.
    pub warnings: Vec<String>,
    /// What the flake's own file says besides its outputs; asked for a check.
    pub own: Option<OwnConfig>,
}

impl Entry {
    pub(super) fn new(path: AttrPath) -> Self {
        Self { path, outputs: None, failure: None, check: None }
    }

    pub(super) fn failed(path: AttrPath, failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::new(path) }
    }

    /// The question for its derivation; of one that is checked, for all that is to be known of it.
    #[must_use]
    pub fn question(&self) -> Question {
        let (output, below) = split(&self.path);
        if let Some(Check { rule, .. }) = self.check {
            return match (rule, rule.drv()) {
                (Rule::App, _) => question("app", output, serde_json::json!({ "path": below })),
                (_, Some(how)) => question("drv", output, serde_json::json!({ "path": below, "how": how })),
                (_, None) => question("demand", output, serde_json::json!({ "path": below, "rule": rule.demand() })),
            };
        }
        let how = match (self.path.kind(), below.len()) {
            (Kind::NixosConfigurations, 1) => "nixos",
            (Kind::DarwinConfigurations, 1) => "darwin",
            (Kind::HomeConfigurations, 1) => "home",
            (Kind::Packages | Kind::Checks | Kind::DevShells, 2) | (Kind::Formatter, 1) => "derivation",
            (Kind::Apps, 2) => "app",
            _ => "any",
        };
        question("drv", output, serde_json::json!({ "path": below, "how": how }))
    }
}

impl Entry {
    /// The answer, where it is known without asking: what does not evaluate cannot be listed.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        let failure = self.failure.clone()?;
        let beyond = self.check.is_some_and(|check| check.beyond);
        Some(if beyond { Answer::Finding(failure) } else { Answer::Failed(failure) })
    }

    /// What Nix itself demands of one that is checked, where that is less than [`Entry::question`] asks.
    #[must_use]
    pub fn demand(&self) -> Option<Question> {
        let Check { rule, beyond, .. } = self.check?;
        let (output, below) = split(&self.path);
        let demand = rule.demand().filter(|_| !beyond && (rule == Rule::App || rule.drv().is_some()))?;
        Some(question("demand", output, serde_json::json!({ "path": below, "rule": demand })))
    }

    /// Where it is written.
    pub(super) fn place(&self) -> Question {
        let (output, below) = split(&self.path);
        question("place", output, serde_json::json!({ "path": below }))
    }
}

pub(super) fn question(function: &'static str, output: &str, arguments: Value) -> Question {
    Question { function, output: Some(output.to_owned()), arguments }
}

pub(super) fn split(path: &AttrPath) -> (&str, &[String]) {
    path.parts().split_first().map_or(("", &[]), |(output, below)| (output.as_str(), below))
}

pub(super) fn join(path: &AttrPath, part: &str) -> AttrPath {
    AttrPath::new(path.parts().iter().cloned().chain([part.to_owned()]).collect())
}

/// The system that stands in the path of an attr of this kind.
#[must_use]
pub fn system_of(path: &AttrPath) -> Option<System> {
    let (output, below) = path.parts().split_first()?;
    let by_system = matches!(Output::of(output).place, Place::Systems | Place::NamesBySystem | Place::OnlySystems);
    below.first().filter(|_| by_system).map(|system| System(system.clone()))
}

/// How many parts the path of an attr of this kind has; `None` if that differs.
fn depth(kind: Kind) -> Option<usize> {
    match kind {
        Kind::NixosConfigurations | Kind::DarwinConfigurations | Kind::HomeConfigurations | Kind::Formatter => Some(2),
        Kind::Packages | Kind::Checks | Kind::DevShells | Kind::Apps => Some(3),
        Kind::HydraJobs | Kind::LegacyPackages | Kind::Other => None,
    }
}

/// What a question about names was answered with.
pub(super) enum Names {
    Found(Vec<String>),
    Missing,
    Failed(Failure),
}

/// What is still to be looked at in a set of unknown shape, in the order of the names. It comes to an end also where a set
/// contains itself.
struct Open {
    paths: Vec<AttrPath>,
    visited: usize,
    /// Parts that a path may have.
    most: usize,
}

impl Open {
    fn new(root: &AttrPath) -> Self {
        Self { paths: vec![root.clone()], visited: 0, most: root.parts().len() + WALK_DEPTH }
    }

    /// The next path; warns of those that are passed over.
    fn next(&mut self, warnings: &mut Vec<String>) -> Option<AttrPath> {
        while let Some(path) = self.paths.pop() {
            self.visited += 1;
            if self.visited <= WALK_NODES && path.parts().len() <= self.most {
                return Some(path);
            }
            warnings.push(format!("{path} is too deep or too large a set, the rest of it is left out"));
        }
        None
    }

    /// All that the answer names below a path comes next.
    fn enter(&mut self, path: &AttrPath, answer: &Value) {
        let names = answer.get("names").map(texts).unwrap_or_default();
        self.paths.extend(names.iter().rev().map(|name| join(path, name)));
    }
}

/// Lists through one evaluator.
pub(super) struct Lister<'a> {
    pub(super) seat: &'a mut Seat,
    /// Where imports from derivations are asked for; `None`: not at all.
    sender: Option<&'a mpsc::Sender<EvalMsg>>,
    pub(super) warnings: Vec<String>,
    pub(super) passed_over: Vec<(Kind, System)>,
}

/// Finds the attrs that a selection asks for.
pub(super) async fn catalogue(
    seat: &mut Seat,
    selection: &Selection,
    sender: &mpsc::Sender<EvalMsg>,
) -> Result<Catalogue, Error> {
    let filter = Filter::new(&selection.only, &selection.exclude)?;
    let mut lister = Lister { seat, sender: Some(sender), warnings: Vec::new(), passed_over: Vec::new() };
    let (mut entries, mut own) = (Vec::new(), None);
    if let Some(checked) = &selection.check {
        (entries, own) = outputs::list(&mut lister, checked, selection.systems.as_deref()).await?;
    } else if selection.names.is_empty() {
        for kind in kinds(selection) {
            entries.extend(lister.kind(kind, selection.systems.as_deref()).await?);
        }
    } else {
        for name in &selection.names {
            entries.extend(lister.resolve(name, selection).await?);
        }
    }
    let mut seen = BTreeSet::new();
    entries.retain(|entry| filter.keeps(&entry.path) && seen.insert((entry.path.clone(), entry.outputs.clone())));
    let passed_over = if selection.names.is_empty() { lister.passed_over } else { Vec::new() };
    Ok(Catalogue { entries, passed_over, warnings: lister.warnings, own })
}

/// The kinds of a selection, in the order in which they are shown.
fn kinds(selection: &Selection) -> Vec<Kind> {
    if selection.kinds.is_empty() { Kind::DEFAULT.to_vec() } else { selection.kinds.clone() }
}

impl Lister<'_> {
    pub(super) async fn ask(&mut self, question: &Question) -> Result<Result<Value, Failure>, Error> {
        if let Some(sender) = self.sender {
            return pool::ask_with_imports(self.seat, question, sender, &mut self.warnings).await;
        }
        let outcome = self.seat.ask(question).await?;
        self.warnings.extend(outcome.warnings);
        Ok(outcome.answer)
    }

    /// The names below a path.
    pub(super) async fn names(&mut self, path: &AttrPath) -> Result<Names, Error> {
        let (output, below) = split(path);
        if !expr::is_variable(output) {
            return Ok(Names::Missing);
        }
        let answer = self.ask(&question("names", output, serde_json::json!({ "path": below }))).await?;
        Ok(match answer {
            Ok(answer) => match answer.get("names") {
                Some(names) => Names::Found(texts(names)),
                None => Names::Missing,
            },
            Err(failure) => Names::Failed(failure),
        })
    }

    /// All attrs of a kind.
    async fn kind(&mut self, kind: Kind, systems: Option<&[System]>) -> Result<Vec<Entry>, Error> {
        let root = AttrPath::new(vec![kind.output().to_owned()]);
        match depth(kind) {
            Some(depth) => self.level(&root, depth, systems).await,
            None if kind == Kind::HydraJobs => self.walk(&root, true).await,
            None => Ok(Vec::new()),
        }
    }

    /// All attrs below a path of a kind whose attrs lie `depth` parts deep.
    async fn level(&mut self, root: &AttrPath, depth: usize, systems: Option<&[System]>) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(path) = open.pop() {
            let names = match self.names(&path).await? {
                Names::Found(names) => names,
                Names::Missing => continue,
                Names::Failed(failure) => {
                    entries.push(Entry::failed(path, failure));
                    continue;
                }
            };
            let below: Vec<AttrPath> = names.iter().map(|name| join(&path, name)).collect();
            let wanted = below.into_iter().filter(|path| match (system_of(path), systems) {
                (Some(system), Some(systems)) if !systems.contains(&system) => {
                    self.passed_over.push((path.kind(), system));
                    false
                }
                _ => true,
            });
            if path.parts().len() + 1 == depth {
                entries.extend(wanted.map(Entry::new));
            } else {
                // The last one pushed is taken first.
                open.extend(wanted.collect::<Vec<_>>().into_iter().rev());
            }
        }
        Ok(entries)
    }

    /// All attrs in a set of unknown shape. `jobs`: sets are entered unless they forbid it, as Hydra does; else only
    /// those below the root that say `recurseForDerivations`, as nix-eval-jobs does.
    async fn walk(&mut self, root: &AttrPath, jobs: bool) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut open = Open::new(root);
        while let Some(path) = open.next(&mut self.warnings) {
            let (output, below) = split(&path);
            let answer = self.ask(&question("node", output, serde_json::json!({ "path": below }))).await?;
            let answer = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    entries.push(Entry::failed(path, failure));
                    continue;
                }
            };
            match answer.get("node").and_then(Value::as_str) {
                Some("attr") => entries.push(Entry::new(path)),
                Some("set") => {
                    let says = answer.get("recurse").and_then(Value::as_bool);
                    if path == *root || says.unwrap_or(jobs) {
                        open.enter(&path, &answer);
                    }
                }
                _ => {}
            }
        }
        Ok(entries)
    }

    /// All in a set of jobs, as `nix flake check` walks it: derivations, and what does not evaluate and why. Nothing is
    /// imported from derivations for it.
    pub(super) async fn jobs(&mut self, root: &AttrPath) -> Result<Vec<(AttrPath, Option<Failure>)>, Error> {
        let sender = self.sender.take();
        let mut found = Vec::new();
        let mut open = Open::new(root);
        while let Some(path) = open.next(&mut self.warnings) {
            let (output, below) = split(&path);
            match self.ask(&question("job", output, serde_json::json!({ "path": below }))).await? {
                Err(failure) => found.push((path, Some(failure))),
                Ok(answer) if answer.get("node").and_then(Value::as_str) == Some("attr") => found.push((path, None)),
                Ok(answer) => open.enter(&path, &answer),
            }
        }
        self.sender = sender;
        Ok(found)
    }

    /// The attrs that a name means: the exact path, all that lies below it, the attrs whose last parts it is, first
    /// among the kinds and systems of the selection, then among all; then what `nix build` would look for.
    async fn resolve(&mut self, name: &Name, selection: &Selection) -> Result<Vec<Entry>, Error> {
        let mut near: Vec<String> = Vec::new();
        let exact = self.exact(&name.path, selection, &mut near).await?;
        let exists = exact.is_some();
        let mut found = exact.unwrap_or_default();
        if found.is_empty() {
            found = self.by_last_parts(name, selection, &mut near).await?;
        }
        if found.is_empty() {
            found = self.in_package_sets(name, selection, &mut near).await?;
        }
        if found.is_empty() {
            if !exists {
                return Err(unknown(&name.text, &near));
            }
            // There is something, and evaluating it says what.
            found.push(Entry::new(name.path.clone()));
        }
        for entry in &mut found {
            entry.outputs.clone_from(&name.outputs);
        }
        Ok(found)
    }

    /// The attrs at a path and below it; `None` if there is nothing at all at the path.
    async fn exact(
        &mut self,
        path: &AttrPath,
        selection: &Selection,
        near: &mut Vec<String>,
    ) -> Result<Option<Vec<Entry>>, Error> {
        let (output, below) = split(path);
        if !expr::is_variable(output) {
            return Ok(None);
        }
        let answer = self.ask(&question("exists", output, serde_json::json!({ "path": below }))).await?;
        match answer {
            Err(failure) => return Ok(Some(vec![Entry::failed(path.clone(), failure)])),
            Ok(answer) if answer.get("found").is_none() => {
                let at = answer.pointer("/missing/at").and_then(Value::as_u64).unwrap_or(0);
                let known = AttrPath::new(path.parts().iter().take(at as usize + 1).cloned().collect());
                near.extend(missing_names(&answer).iter().map(|name| join(&known, name).to_string()));
                return Ok(None);
            }
            Ok(_) => {}
        }
        let entries = match depth(path.kind()) {
            Some(depth) if path.parts().len() >= depth => vec![Entry::new(path.clone())],
            // A system in the name is a choice of system.
            Some(depth) if system_of(path).is_some() => self.level(path, depth, None).await?,
            Some(depth) => self.level(path, depth, selection.systems.as_deref()).await?,
            None => self.walk(path, path.kind() == Kind::HydraJobs).await?,
        };
        Ok(Some(entries))
    }

    async fn by_last_parts(
        &mut self,
        name: &Name,
        selection: &Selection,
        near: &mut Vec<String>,
    ) -> Result<Vec<Entry>, Error> {
        let chosen = kinds(selection);
        let others = Kind::LISTED.into_iter().filter(|kind| !chosen.contains(kind) && *kind != Kind::HydraJobs);
        let all: Vec<Kind> = chosen.iter().copied().chain(others).collect();
        let steps = [(&chosen, selection.systems.as_deref()), (&all, selection.systems.as_deref()), (&all, None)];
        for (kinds, systems) in steps {
            let mut entries = Vec::new();
            for &kind in kinds {
                entries.extend(self.kind(kind, systems).await?);
            }
            near.extend(entries.iter().map(|entry| short(&entry.path)));
            entries.retain(|entry| {
                let parts = entry.path.parts();
                entry.failure.is_none()
                    && (entry.path.last() == name.text
                        || (parts.len() > name.path.parts().len() && parts.ends_with(name.path.parts())))
            });
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }

    /// `packages.SYSTEM.NAME` and `legacyPackages.SYSTEM.NAME` for names of several parts, and for sets that are never
    /// listed.
    async fn in_package_sets(
        &mut self,
        name: &Name,
        selection: &Selection,
        near: &mut Vec<String>,
    ) -> Result<Vec<Entry>, Error> {
        for output in ["packages", "legacyPackages"] {
            let root = AttrPath::new(vec![output.to_owned()]);
            let Names::Found(systems) = self.names(&root).await? else { continue };
            let mut entries = Vec::new();
            for system in systems {
                let wanted = selection.systems.as_ref().is_none_or(|all| all.iter().any(|one| one.0 == system));
                if wanted {
                    let parts = root.parts().iter().cloned().chain([system]).chain(name.path.parts().iter().cloned());
                    let found = self.exact(&AttrPath::new(parts.collect()), selection, near).await?;
                    entries.extend(found.unwrap_or_default());
                }
            }
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }
}

/// What people would type: the last part where the kind is a default one, else the path.
fn short(path: &AttrPath) -> String {
    if Kind::DEFAULT.contains(&path.kind()) && depth(path.kind()) == Some(path.parts().len()) {
        path.last().to_owned()
    } else {
        path.to_string()
    }
}

fn texts(names: &Value) -> Vec<String> {
    names.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn missing_names(answer: &Value) -> Vec<String> {
    answer.pointer("/missing/names").map(texts).unwrap_or_default()
}

/// Nothing has that name; the nearest names are shown.
fn unknown(text: &str, near: &[String]) -> Error {
    let error = Error::usage(format!("this flake has no attr '{text}'"));
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let wanted = last(text);
    let names: BTreeSet<&String> = near.iter().collect();
    let mut scored: Vec<(f64, &String)> =
        names.into_iter().map(|name| (strsim::jaro_winkler(&wanted, &last(name)), name)).collect();
    // Of two ways to write one name, the one that is like what was typed comes first.
    let unlike = |name: &str| name.contains('.') != text.contains('.');
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (unlike(a.1), a.1).cmp(&(unlike(b.1), b.1))));
    let mut seen = BTreeSet::new();
    scored.retain(|(_, name)| seen.insert(last(name)));
    let enough = scored.first().map_or(0.0, |(best, _)| best - NEAR).max(FAR);
    let nearest: Vec<&str> =
        scored.iter().filter(|(score, _)| *score >= enough).take(NEAREST).map(|(_, name)| name.as_str()).collect();
    match nearest.is_empty() {
        true => error.hint("nix flake show"),
        false => error.hint(format!("did you mean {}?", nearest.join(", "))),
    }
}

/// Counts what was passed over: `3 packages for aarch64-darwin`, and kinds that nobody asked for.
pub async fn left_out(
    seat: &mut Seat,
    selection: &Selection,
    passed_over: &[(Kind, System)],
) -> Result<Vec<LeftOut>, Error> {
    let mut lister = Lister { seat, sender: None, warnings: Vec::new(), passed_over: Vec::new() };
    let mut out = Vec::new();
    let mut total = 0;
    let mut texts = Vec::new();
    let systems: BTreeSet<&System> = passed_over.iter().map(|(_, system)| system).collect();
    for system in systems {
        let mut counts = Vec::new();
        for (kind, _) in passed_over.iter().filter(|(_, of)| of == system) {
            let path = AttrPath::new(vec![kind.output().to_owned(), system.0.clone()]);
            let count = match depth(*kind) {
                Some(2) => 1,
                _ => match lister.names(&path).await? {
                    Names::Found(names) => names.len(),
                    Names::Missing | Names::Failed(_) => continue,
                },
            };
            total += count;
            counts.push(format!("{count} {}", kind.noun(count)));
        }
        if !counts.is_empty() {
            texts.push(format!("{} for {system}", counts.join(", ")));
        }
    }
    if total > 0 {
        out.push(LeftOut { count: count(total), what: texts.join(", "), flag: "--all-systems".to_owned() });
    }
    out.extend(lister.other_kinds(selection).await?);
    Ok(out)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Lister<'_> {
    /// Kinds that are only taken when asked for. `hydraJobs` are not walked for this.
    async fn other_kinds(&mut self, selection: &Selection) -> Result<Option<LeftOut>, Error> {
        if !selection.kinds.is_empty() || !selection.names.is_empty() || selection.check.is_some() {
            return Ok(None);
        }
        let (mut total, mut texts, mut flags) = (0, Vec::new(), Vec::new());
        for kind in Kind::LISTED.into_iter().filter(|kind| !Kind::DEFAULT.contains(kind)) {
            let count = match kind {
                Kind::HydraJobs => {
                    let root = AttrPath::new(vec![kind.output().to_owned()]);
                    let Names::Found(_) = self.names(&root).await? else { continue };
                    texts.push("hydra jobs".to_owned());
                    flags.push(kind.output());
                    continue;
                }
                kind => {
                    let entries = self.kind(kind, selection.systems.as_deref()).await?;
                    entries.iter().filter(|entry| entry.failure.is_none()).count()
                }
            };
            if count > 0 {
                total += count;
                texts.push(format!("{count} {}", kind.noun(count)));
                flags.push(kind.output());
            }
        }
        Ok((!flags.is_empty()).then(|| LeftOut {
            count: count(total),
            what: texts.join(", "),
            flag: format!("--kind {}", flags.join(",")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_shown() {
        let near = ["web1", "web2", "db1", "packages.x86_64-linux.website"].map(str::to_owned);
        let hint = unknown("wbe1", &near).hint.unwrap();
        assert!(hint.starts_with("did you mean web1"), "{hint}");
        assert_eq!(unknown("zzzz", &near).hint.unwrap(), "nix flake show");
    }

    #[test]
    fn questions_follow_the_kind() {
        for (path, how) in [
            ("nixosConfigurations.web1", "nixos"),
            ("nixosConfigurations.web1.config.system.build.sdImage", "any"),
            ("homeConfigurations.\"alice@box\"", "home"),
            ("packages.x86_64-linux.a", "derivation"),
            ("packages.x86_64-linux.a.b", "any"),
            ("formatter.x86_64-linux", "derivation"),
            ("apps.x86_64-linux.a", "app"),
            ("mine.x", "any"),
        ] {
            let question = Entry::new(path.parse().unwrap()).question();
            assert_eq!(question.arguments["how"], how, "{path}");
        }
    }
}
