//! All that a flake offers, as attrs to be checked: walks its outputs as `nix flake check` does. What each attr has to be
//! is in `rule`; nothing is evaluated here but names.

use serde::Deserialize;

use super::expr::{self, Question};
use super::list::{Entry, Lister, Names, join, question};
use super::nix;
use super::own_config::OwnConfig;
use super::rule::{Check, Output, Place, Rule, is_system};
use super::seat::Shared;
use super::what::Checked;
use crate::error::{Error, Fault};
use crate::event::{Class, Failure};
use crate::id::{AttrPath, Kind, System};

/// Given the outputs: their names. A repl cannot reach those that are no variables, so they are forced here.
const NAMES: &str = "o: { names = __attrNames o; forced = map (n: __seq o.${n} n) (__filter (n: __match \
    \"[a-zA-Z_][a-zA-Z0-9_'-]*\" n == null || __elem n [ \"if\" \"then\" \"else\" \"assert\" \"with\" \"let\" \"in\" \
    \"rec\" \"inherit\" \"or\" ]) (__attrNames o)); }";

/// What [`NAMES`] gives.
#[derive(Deserialize)]
struct Answer {
    names: Vec<String>,
}

/// Lists the attrs of all outputs, and says what else is in the flake's own file. Attrs for other systems than `systems` are passed over.
pub(super) async fn list(
    lister: &mut Lister<'_>,
    checked: &Checked,
    systems: Option<&[System]>,
) -> Result<(Vec<Entry>, Option<OwnConfig>), Error> {
    let shared = lister.seat.shared();
    // The evaluator starts meanwhile.
    let (names, own) = tokio::join!(names(&shared), own(lister));
    let own = own?;
    let mut names = match names? {
        Ok(names) => names,
        Err(failure) => return Err(Error::new(Fault::Eval, &*failure.message)),
    };
    let order = |name: &String| Kind::LISTED.iter().position(|kind| kind.output() == name).unwrap_or(usize::MAX);
    names.sort_by_key(order);
    let mut walk = Walk { lister, checked, systems, entries: Vec::new() };
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

/// The names of all outputs; no repl says these.
async fn names(shared: &Shared) -> Result<Result<Vec<String>, Failure>, Error> {
    let purity = if shared.impure { "--impure" } else { "--pure-eval" };
    let cmd = shared
        .nix
        .cmd(&["eval", purity, "--no-write-lock-file", "--no-eval-cache", "--json", "--apply", NAMES])
        .args(shared.locked.args())
        .args(["--", &format!("{}#.", shared.locked.locked_ref)]);
    let ran = nix::run(&cmd).await.map_err(|error| Error::new(Fault::Unreachable, error.to_string()))?;
    if !ran.ok {
        let all = ran.all();
        return Ok(Err(shared.explain(ran.error().unwrap_or(&all))));
    }
    let answer: Answer = serde_json::from_slice(&ran.stdout).map_err(|error| {
        Error::new(Fault::Unreachable, format!("cannot read the names of the flake's outputs: {error}"))
    })?;
    Ok(Ok(answer.names))
}

struct Walk<'a, 'b> {
    lister: &'a mut Lister<'b>,
    checked: &'a Checked,
    systems: Option<&'a [System]>,
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

    /// All names below a path.
    async fn names(&mut self, path: &AttrPath, output: Output, beyond: bool) -> Result<(), Error> {
        match self.lister.names(path).await? {
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
        let names = match self.lister.names(root).await? {
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
