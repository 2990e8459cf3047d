//! Imports from derivations, as evaluators come across them: what Nix's error says is needed, and how deep such imports
//! are nested. Does not build anything: whoever reads the answers does ([`super::Import`]).
//!
//! An attr is first asked with such imports forbidden, so that the error names the derivation. Once that is built the
//! attr is asked of an evaluator that may import but build nothing (`max-jobs = 0` without builders and substituters;
//! not even builtin derivations are then built), so that its error names the next one. Nix 2.34 says which; 2.26 only
//! that it cannot start a build, but its debug messages name the goal. Checked with 2.26.3 and 2.34.8, also over a
//! daemon, which takes these settings from everybody.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::pool::Imported;
use crate::event::{Class, Failure};
use crate::id::StorePath;

/// How deep imports may be nested.
pub const DEPTH: usize = 8;
/// How many imports one attr may have. One after the other is not nested, but should come to an end.
const MOST: usize = 1000;

/// Who builds what is imported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Imports {
    /// Whoever reads the messages of the evaluation.
    #[default]
    Built,
    /// Nobody: an attr that imports has failed.
    Refused {
        /// Because of what: `--no-ifd`.
        by: String,
    },
}

/// What a process may do about imports. It is given so at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Imports are forbidden; the error names the derivation.
    Forbidden,
    /// What is there may be imported, nothing is built.
    There {
        /// With debug messages, for a Nix whose error does not name the derivation.
        loud: bool,
    },
    /// Nix builds by itself; for a Nix of which nobody can tell what it wants.
    ByNix,
}

impl Mode {
    /// Flags of `nix repl`.
    pub(super) fn args(self) -> &'static [&'static str] {
        const THERE: [&str; 13] = [
            "--option",
            "allow-import-from-derivation",
            "true",
            "--option",
            "max-jobs",
            "0",
            "--option",
            "builders",
            "",
            "--option",
            "substitute",
            "false",
            "-vvv",
        ];
        match self {
            Self::Forbidden => &["--option", "allow-import-from-derivation", "false"],
            Self::There { loud: true } => &THERE,
            Self::There { loud: false } => THERE.split_at(THERE.len() - 1).0,
            Self::ByNix => &["--option", "allow-import-from-derivation", "true"],
        }
    }
}

/// What Nix's debug messages say about its builds.
#[derive(Debug, Default)]
pub(super) struct Goals {
    /// Made, and not worked at yet.
    made: Vec<String>,
    /// What the last build was asked for.
    asked: Vec<String>,
}

impl Goals {
    /// Looks at a line of the log. The goals of a build are made before it begins; those that come up later are their
    /// inputs. All are gone before the next one.
    pub(super) fn hear(&mut self, line: &str) {
        if line.contains("entered goal loop\"") {
            self.asked = std::mem::take(&mut self.made);
        } else if let Some((_, rest)) = line.split_once("building of '")
            && let Some((goal, what)) = rest.split_once('\'')
        {
            if what.contains(": created\"") {
                self.made.push(goal.to_owned());
            } else if what.contains(": goal destroyed\"") {
                self.made.clear();
            }
        }
    }
}

/// A derivation that an evaluation cannot go on without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Absolute path of the .drv.
    pub(super) drv: String,
    /// The outputs; none where Nix does not say.
    pub(super) outputs: Vec<String>,
}

/// An evaluation stopped at an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What it may be that is wanted, the likeliest first; none if Nix does not say.
    pub(super) wanted: Vec<Wanted>,
    /// Nix's error with its trace.
    trace: String,
}

impl Need {
    /// Reads an error; `None` if it is about something else. In a process that builds nothing, every failed build is an
    /// import that is not there.
    pub(super) fn of(error: &str, mode: Mode, goals: &Goals) -> Option<Self> {
        let message = error.rsplit_once("error:").map_or(error, |(_, message)| message).trim_start();
        let need = |wanted| Some(Self { wanted, trace: error.to_owned() });
        if message.contains("because the option 'allow-import-from-derivation' is disabled") {
            return need(quoted(message));
        }
        if !matches!(mode, Mode::There { .. }) {
            return None;
        }
        if ["Cannot build '", "build of '", "cannot build '"].iter().any(|start| message.starts_with(start)) {
            return need(quoted(message.lines().next().unwrap_or(message)));
        }
        let lower = message.to_ascii_lowercase();
        lower
            .contains("unable to start any build")
            .then(|| need(goals.asked.iter().filter_map(|goal| wanted(goal)).collect()))?
    }

    /// The names of the derivations that were being put together when it stopped: they need what it stopped at.
    fn users(&self) -> impl Iterator<Item = &str> {
        let name = |line| Some(str::split_once(line, "while evaluating derivation '")?.1.split_once('\'')?.0);
        self.trace.lines().filter_map(name)
    }
}

/// The derivations that a message names in quotes.
fn quoted(message: &str) -> Vec<Wanted> {
    message.split('\'').skip(1).step_by(2).filter_map(wanted).collect()
}

/// `/nix/store/…-x.drv^out,dev`.
fn wanted(text: &str) -> Option<Wanted> {
    let (drv, outputs) = text.split_once('^').unwrap_or((text, ""));
    let outputs = outputs.split(',').filter(|output| !output.is_empty() && *output != "*").map(str::to_owned);
    drv.ends_with(".drv").then(|| Wanted { drv: drv.to_owned(), outputs: outputs.collect() })
}

/// One import of an attr.
#[derive(Debug)]
struct Past {
    drv: StorePath,
    outputs: Vec<String>,
    /// Who needed it.
    users: Vec<String>,
    depth: usize,
    /// What came of it.
    paths: Vec<StorePath>,
}

/// What all questions of one evaluation share.
#[derive(Debug)]
pub struct Rules {
    /// Who builds what is imported.
    pub imports: Imports,
    /// The store directory that Nix uses.
    pub store_dir: String,
    /// This Nix names what it wants to import in debug messages only.
    loud: AtomicBool,
}

impl Rules {
    /// For a store whose paths are in this directory.
    #[must_use]
    pub fn new(imports: Imports, store_dir: &str) -> Self {
        Self { imports, store_dir: store_dir.to_owned(), loud: AtomicBool::new(false) }
    }
}

/// One question, from its first try to its answer.
#[derive(Debug)]
pub(super) struct Asking {
    past: Vec<Past>,
    mode: Mode,
}

/// What comes after a try.
#[derive(Debug)]
pub(super) enum Step {
    /// It is answered. An answer that is the fault of an import may not be remembered.
    Over {
        /// The answer.
        answer: Result<Value, Failure>,
        /// It may not be remembered.
        import: bool,
    },
    /// It is to be tried again, in another mode.
    Again,
    /// This has to be imported first.
    Import(StorePath, Vec<String>),
}

impl Asking {
    /// Nothing is imported yet; it is first asked like this.
    pub(super) fn new(mode: Mode) -> Self {
        Self { past: Vec::new(), mode }
    }

    /// How it is to be asked next.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// A try ended like this.
    pub(super) fn tried(&mut self, answer: Result<Value, Failure>, need: Option<&Need>, rules: &Rules) -> Step {
        let Some(need) = need.filter(|_| answer.is_err()) else { return Step::Over { answer, import: false } };
        let failed = |message: String| Step::Over { answer: Err(failure(message)), import: true };
        let candidates = need.wanted.iter().filter_map(|wanted| {
            let base = wanted.drv.strip_prefix(&rules.store_dir)?.strip_prefix('/')?;
            Some((StorePath::from_basename(base.as_bytes()).ok()?, wanted.outputs.clone()))
        });
        let new = |(drv, outputs): &(StorePath, Vec<String>)| {
            !self.past.iter().any(|past| past.drv == *drv && past.outputs == *outputs)
        };
        let Some((drv, outputs)) = candidates.into_iter().find(new) else {
            self.mode = match self.mode {
                Mode::There { loud: false } => {
                    rules.loud.store(true, Ordering::Relaxed);
                    Mode::There { loud: true }
                }
                Mode::There { loud: true } | Mode::Forbidden => Mode::ByNix,
                Mode::ByNix => return Step::Over { answer, import: true },
            };
            return Step::Again;
        };
        if let Imports::Refused { by } = &rules.imports {
            let (name, base) = (drv_name(&drv), drv.to_basename());
            let path = format!("{}/{base}", rules.store_dir);
            return failed(format!("it imports from derivation {name}, which {by} forbids\n{path}"));
        }
        let depth = self.depth(&drv, need);
        if depth > DEPTH {
            let chain = self.chain(depth).into_iter().chain([drv_name(&drv)]).collect::<Vec<_>>().join(" → ");
            return failed(format!("its imports from derivations are nested more than {DEPTH} deep: {chain}"));
        }
        if self.past.len() >= MOST {
            let name = drv_name(&drv);
            return failed(format!("it imports from more than {MOST} derivations, the next one is {name}"));
        }
        let users = need.users().map(str::to_owned).collect();
        self.past.push(Past { drv: drv.clone(), outputs: outputs.clone(), users, depth, paths: Vec::new() });
        Step::Import(drv, outputs)
    }

    /// What it waited for is there, or cannot be had: `Err` is its answer.
    pub(super) fn imported(&mut self, result: Option<Imported>, rules: &Rules) -> Result<(), Failure> {
        let failure = match result {
            Some(Ok(paths)) => {
                if let Some(last) = self.past.last_mut() {
                    last.paths = paths;
                }
                if self.mode != Mode::ByNix {
                    // Another question may have found out meanwhile how this Nix has to be asked.
                    self.mode = Mode::There { loud: rules.loud.load(Ordering::Relaxed) };
                }
                return Ok(());
            }
            Some(Err(failure)) => failure,
            None => Failure { class: Class::Cancelled, message: "nobody builds it".into(), position: None },
        };
        let name = self.past.last().map(|past| drv_name(&past.drv)).unwrap_or_default();
        let message = format!("it imports from derivation {name}, which cannot be had: {}", failure.message);
        Err(Failure { message: message.into(), ..failure })
    }

    /// How deep an import is nested: one deeper than those that it was needed for, and than those whose files it comes
    /// from.
    fn depth(&self, drv: &StorePath, need: &Need) -> usize {
        let name = drv_name(drv);
        let below = self.past.iter().filter(|past| {
            past.users.iter().any(|user| user == name)
                || past.paths.iter().any(|path| need.trace.contains(&path.to_basename()))
        });
        1 + below.map(|past| past.depth).max().unwrap_or(0)
    }

    /// The last import of each depth below this one, the deepest first.
    fn chain(&self, depth: usize) -> Vec<&str> {
        let at = |depth| self.past.iter().rev().find(move |past| past.depth == depth);
        (1..depth).filter_map(at).map(|past| drv_name(&past.drv)).collect()
    }
}

fn failure(message: String) -> Failure {
    Failure { class: Class::Eval, message: message.into(), position: None }
}

/// `gen-nix` of `…-gen-nix.drv`.
pub(super) fn drv_name(drv: &StorePath) -> &str {
    drv.name().trim_end_matches(".drv")
}
