//! All that a flake offers, as attrs to be checked: walks its outputs as `nix flake check` does. What each attr has to be
//! is in `rule`; nothing is evaluated here but names.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::expr::{self, Question};
use super::list::{Entry, Lister, Names, join, question};
use super::message::Said;
use super::nix::{self, Ran};
use super::own_config::OwnConfig;
use super::rule::{Check, Output, Place, Rule, is_system};
use super::seat::Shared;
use super::what::Checked;
use crate::error::{Error, Fault};
use crate::event::{Class, Failure};
use crate::id::{AttrPath, Kind, System};

/// The outputs whose sets are listed in any case.
const LISTED: [&str; 12] = [
    "checks",
    "packages",
    "devShells",
    "apps",
    "bundlers",
    "formatter",
    "legacyPackages",
    "overlays",
    "nixosModules",
    "nixosConfigurations",
    "homeConfigurations",
    "templates",
];

/// What `outline` in `nix/eval` gives.
#[derive(Deserialize)]
struct Answer {
    names: Vec<String>,
    sets: BTreeMap<String, Set>,
}

/// One set, and the sets in it.
#[derive(Deserialize)]
struct Set {
    ok: bool,
    names: Option<Vec<String>>,
    #[serde(default)]
    sets: BTreeMap<String, Set>,
}

impl Set {
    fn is_ok(&self) -> bool {
        self.ok && self.sets.values().all(Self::is_ok)
    }
}

impl Answer {
    /// The names in each set that is known.
    fn known(&mut self) -> BTreeMap<AttrPath, Vec<String>> {
        let mut known = BTreeMap::new();
        for (output, set) in std::mem::take(&mut self.sets) {
            let root = AttrPath::new(vec![output]);
            let below = set.sets.into_iter().map(|(name, set)| (join(&root, &name), set.names)).collect::<Vec<_>>();
            known.extend(below.into_iter().filter_map(|(path, names)| Some((path, names?))));
            known.extend(set.names.map(|names| (root, names)));
        }
        known
    }
}

/// Lists the attrs of all outputs, and says what else is in the flake's own file. Attrs for other systems than `systems`
/// are passed over.
pub(super) async fn list(
    lister: &mut Lister<'_>,
    checked: &Checked,
    systems: Option<&[System]>,
) -> Result<(Vec<Entry>, Option<OwnConfig>), Error> {
    let (answer, own) = match outline(lister, checked, systems).await? {
        Some(answer) => (answer, own(lister).await?),
        None => {
            let shared = lister.seat.shared();
            // The evaluator starts meanwhile.
            let (answer, own) = tokio::join!(names(&shared, checked, systems), own(lister));
            let own = own?;
            match answer? {
                Ok(answer) => (answer, own),
                Err(failure) => return Err(Error::new(Fault::Eval, &*failure.message)),
            }
        }
    };
    let mut answer = answer;
    let (known, mut names) = (answer.known(), answer.names);
    let order = |name: &String| Kind::LISTED.iter().position(|kind| kind.output() == name).unwrap_or(usize::MAX);
    names.sort_by_key(order);
    let mut walk = Walk { lister, checked, systems, known, entries: Vec::new() };
    for name in &names {
        walk.output(name).await?;
    }
    Ok((walk.entries, own))
}

/// What the flake's own file says besides its outputs; nothing, if that does not evaluate.
async fn own(lister: &mut Lister<'_>) -> Result<Option<OwnConfig>, Error> {
    let shared = lister.seat.shared();
    let (source, dir) = (shared.locked.source(), shared.locked.dir.as_str());
    let dir = if dir.is_empty() { String::new() } else { format!("/{dir}") };
    let arguments = serde_json::json!({ "source": source, "dir": dir });
    let answer = lister.seat.ask(&Question { function: "own", output: None, arguments }).await?.answer;
    Ok(answer.ok().and_then(|answer| OwnConfig::deserialize(&answer).ok()))
}

/// The names of all outputs, and at no cost of what is in most of them, where the evaluator has the flake as a value. Where
/// that says more than names (warnings, or an error) nothing is made of it: a fresh evaluator will be asked, and tells
/// what is wrong with which set.
async fn outline(
    lister: &mut Lister<'_>,
    checked: &Checked,
    systems: Option<&[System]>,
) -> Result<Option<Answer>, Error> {
    let shared = lister.seat.shared();
    if !shared.is_value() || shared.masked {
        return Ok(None);
    }
    let arguments = arguments(checked, systems);
    let asked = Question { function: "outline", output: Some(expr::FLAKE.to_owned()), arguments };
    let outcome = lister.seat.ask(&asked).await?;
    let silent = outcome.warnings.is_empty() && outcome.traces.is_empty() && outcome.deaths.is_empty();
    let answer = outcome.answer.ok().and_then(|answer| Answer::deserialize(&answer).ok());
    match answer.filter(|answer| silent && answer.sets.values().all(Set::is_ok)) {
        Some(answer) => Ok(Some(answer)),
        None => {
            lister.seat.clear();
            Ok(None)
        }
    }
}

/// The same, where the evaluator does not have the flake as a value, or its answer is of no use.
async fn names(
    shared: &Shared,
    checked: &Checked,
    systems: Option<&[System]>,
) -> Result<Result<Answer, Failure>, Error> {
    let whole = arguments(checked, systems);
    let ran = eval(shared, &whole, &["--option", "allow-import-from-derivation", "false"]).await?;
    let silent = ran.said.iter().all(|said| matches!(said, Said::Other(_)));
    let ran = if ran.ok && silent { ran } else { eval(shared, &json!({ "sets": {}, "here": null }), &[]).await? };
    if !ran.ok {
        let all = ran.all();
        return Ok(Err(shared.explain(ran.error().unwrap_or(&all))));
    }
    serde_json::from_slice(&ran.stdout).map(Ok).map_err(|error| {
        Error::new(Fault::Unreachable, format!("cannot read the names of the flake's outputs: {error}"))
    })
}

/// What `outline` needs to know.
fn arguments(checked: &Checked, systems: Option<&[System]>) -> Value {
    let is_deep = |name: &str| Output::of(name).place == Place::NamesBySystem;
    let sets: BTreeMap<&str, bool> = LISTED.into_iter().map(|name| (name, is_deep(name))).collect();
    let here = systems.zip(checked.system.as_ref()).map(|(systems, own)| {
        systems.iter().chain([own]).map(|system| (system.0.as_str(), true)).collect::<BTreeMap<_, _>>()
    });
    json!({ "sets": sets, "here": here })
}

/// Asks `outline` of a process of its own.
async fn eval(shared: &Shared, arguments: &Value, more: &[&str]) -> Result<Ran, Error> {
    let arguments = expr::string(&arguments.to_string());
    let function = &format!("outputs: ({}).outline {{ inherit outputs; }} (__fromJSON {arguments})", expr::code());
    let purity = if shared.impure { "--impure" } else { "--pure-eval" };
    let cmd = shared
        .nix
        .cmd(&["eval", purity, "--no-write-lock-file", "--no-eval-cache", "--json", "--apply", function])
        .args(more)
        .args(shared.locked.args())
        .args(["--", &format!("{}#.", shared.locked.locked_ref)]);
    nix::run(&cmd).await.map_err(|error| Error::new(Fault::Unreachable, error.to_string()))
}

struct Walk<'a, 'b> {
    lister: &'a mut Lister<'b>,
    checked: &'a Checked,
    systems: Option<&'a [System]>,
    /// The names in sets that need not be asked for.
    known: BTreeMap<AttrPath, Vec<String>>,
    entries: Vec<Entry>,
}

impl Walk<'_, '_> {
    async fn output(&mut self, name: &str) -> Result<(), Error> {
        let output = Output::of(name);
        if let Some(instead) = output.instead {
            self.warn(format!("flake output '{name}' is deprecated; use '{instead}' instead"));
        }
        if !output.known {
            self.warn(format!("unknown flake output '{name}'"));
        }
        if !expr::is_variable(name) {
            return Ok(());
        }
        let root = AttrPath::new(vec![name.to_owned()]);
        match output.place {
            Place::Here => self.add(root, output.rule, false),
            Place::Names => self.names(&root, output, output.beyond).await?,
            Place::Nested => self.jobs(&root, output.rule).await?,
            Place::Systems | Place::NamesBySystem | Place::OnlySystems => self.systems(&root, output).await?,
        }
        Ok(())
    }

    fn warn(&mut self, warning: String) {
        self.lister.warnings.push(warning);
    }

    fn add(&mut self, path: AttrPath, rule: Rule, beyond: bool) {
        let check = Some(Check { rule, beyond, no_imports: false });
        self.entries.push(Entry { check, ..Entry::new(path) });
    }

    fn refuse(&mut self, path: AttrPath, failure: Failure, beyond: bool) {
        let check = Some(Check { rule: Rule::Value, beyond, no_imports: false });
        self.entries.push(Entry { check, ..Entry::failed(path, failure) });
    }

    /// The names below a path.
    async fn below(&mut self, path: &AttrPath) -> Result<Names, Error> {
        match self.known.remove(path) {
            Some(names) => Ok(Names::Found(names)),
            None => self.lister.names(path).await,
        }
    }

    /// All attrs below a path.
    async fn names(&mut self, path: &AttrPath, output: Output, beyond: bool) -> Result<(), Error> {
        match self.below(path).await? {
            Names::Found(names) => {
                names.iter().for_each(|name| self.add(join(path, name), output.rule, beyond));
                Ok(())
            }
            Names::Missing => Ok(()),
            // Nix forces every output, also those that it does not look into.
            Names::Failed(failure) if beyond && path.parts().len() == 1 => {
                let output = path.last();
                let forced =
                    question("demand", output, serde_json::json!({ "path": [], "rule": Rule::Value.demand() }));
                let beyond = self.lister.ask(&forced).await?.is_ok();
                self.refuse(path.clone(), failure, beyond);
                Ok(())
            }
            Names::Failed(failure) => {
                self.refuse(path.clone(), failure, beyond);
                Ok(())
            }
        }
    }

    async fn systems(&mut self, root: &AttrPath, output: Output) -> Result<(), Error> {
        let names = match self.below(root).await? {
            Names::Found(names) => names,
            Names::Missing => return Ok(()),
            Names::Failed(failure) => {
                self.refuse(root.clone(), failure, false);
                return Ok(());
            }
        };
        for name in names {
            let (path, system) = (join(root, &name), System(name));
            let beyond = !self.checked.looks_at(&system);
            if !is_system(&system.0) {
                let message = format!("'{system}' is not the name of a system: x86_64-linux");
                self.refuse(path, Failure::new(Class::Eval, message), false);
            } else if self.systems.is_some_and(|systems| !systems.contains(&system)) && beyond {
                self.lister.passed_over.push((root.kind(), system));
            } else {
                match output.place {
                    Place::NamesBySystem => self.names(&path, output, beyond).await?,
                    Place::Systems => self.add(path, output.rule, beyond),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// All in a set of jobs. Nix lets nothing in there import from derivations.
    async fn jobs(&mut self, root: &AttrPath, rule: Rule) -> Result<(), Error> {
        let check = Some(Check { rule, beyond: false, no_imports: true });
        let found = self.lister.jobs(root).await?;
        for (path, failure) in found {
            let top = path == *root && failure.is_none();
            let wrong = || Failure::new(Class::Eval, "it is a derivation where a set of jobs is wanted".to_owned());
            let failure = failure.or_else(|| top.then(wrong));
            self.entries.push(Entry { failure, check, ..Entry::new(path) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_sets_is_known_by_path() {
        let answer = r#"{ "names": ["lib", "overlays", "packages"], "forced": [], "sets": {
            "overlays": { "ok": true, "names": null, "sets": {} },
            "packages": { "ok": true, "names": ["a-x", "b-x"], "sets": {
                "a-x": { "ok": true, "names": ["one", "two.1"] }, "b-x": { "ok": false, "names": null } } } } }"#;
        let mut answer: Answer = serde_json::from_str(answer).unwrap();
        assert!(!answer.sets["packages"].is_ok() && answer.sets["overlays"].is_ok());
        let known = answer.known();
        let known: Vec<(String, usize)> = known.iter().map(|(path, names)| (path.to_string(), names.len())).collect();
        assert_eq!(known, [("packages".to_owned(), 2), ("packages.a-x".to_owned(), 2)]);
    }

    #[test]
    fn only_sets_are_looked_into_ahead() {
        for name in LISTED {
            assert!(!matches!(Output::of(name).place, Place::Here | Place::Nested), "{name}");
        }
        let checked = Checked { system: Some("a-x".into()) };
        let whole = arguments(&checked, Some(&["b-x".into()]));
        assert_eq!(whole["here"], json!({ "a-x": true, "b-x": true }));
        assert!(arguments(&checked, None)["here"].is_null());
    }
}
