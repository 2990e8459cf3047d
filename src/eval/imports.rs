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
/// Builtins that read a path.
const READERS: [&str; 11] = [
    "import",
    "scopedImport",
    "readFile",
    "readDir",
    "readFileType",
    "pathExists",
    "hashFile",
    "path",
    "filterSource",
    "findFile",
    "storePath",
];
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// Imports are forbidden; the error names the derivation.
    #[default]
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

    /// The imports that cannot go on either, the innermost first: each is of a derivation that is just being put
    /// together, as the argument of something that reads.
    fn around(&self) -> Vec<&str> {
        let quoted = |line, before| Some(str::split_once(line, before)?.1.split_once('\'')?.0);
        let (mut around, mut inside) = (Vec::new(), None);
        for line in self.trace.lines().rev() {
            if let Some(name) = quoted(line, "while evaluating derivation '") {
                inside = Some(name);
            } else if quoted(line, "while calling the '").is_some_and(|builtin| READERS.contains(&builtin)) {
                around.extend(inside.take());
            }
        }
        around
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
    /// How many imports its code came through.
    code: usize,
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
    /// It is to be tried again, in another mode or, with `fresh`, in a new process.
    Again {
        /// The process that there is says what it has said before.
        fresh: bool,
    },
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

    /// A try ended like this. `fresh`: in a process that had not been asked anything before. One that has been may
    /// remember what did not evaluate (2.34 does, 2.26 does not).
    pub(super) fn tried(
        &mut self,
        answer: Result<Value, Failure>,
        need: Option<&Need>,
        fresh: bool,
        rules: &Rules,
    ) -> Step {
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
            if !fresh {
                return Step::Again { fresh: true };
            }
            self.mode = match self.mode {
                Mode::There { loud: false } => {
                    rules.loud.store(true, Ordering::Relaxed);
                    Mode::There { loud: true }
                }
                Mode::There { loud: true } | Mode::Forbidden => Mode::ByNix,
                Mode::ByNix => return Step::Over { answer, import: true },
            };
            return Step::Again { fresh: false };
        };
        if let Imports::Refused { by } = &rules.imports {
            let (name, base) = (drv_name(&drv), drv.to_basename());
            let path = format!("{}/{base}", rules.store_dir);
            return failed(format!(
                "it imports from derivation {name}, which {by} forbids; without that, drover builds it\n{path}"
            ));
        }
        let (through, around) = (self.through(need), need.around());
        if through.len() + 1 + around.len() > DEPTH {
            let through = through.iter().map(|past| drv_name(&past.drv));
            let chain: Vec<&str> = through.chain([drv_name(&drv)]).chain(around).collect();
            let chain = chain.join(" → ");
            return failed(format!("its imports from derivations are nested more than {DEPTH} deep: {chain}"));
        }
        if self.past.len() >= MOST {
            let name = drv_name(&drv);
            return failed(format!("it imports from more than {MOST} derivations, the next one is {name}"));
        }
        let code = through.len() + 1;
        self.past.push(Past { drv: drv.clone(), outputs: outputs.clone(), code, paths: Vec::new() });
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
            None => Failure::new(Class::Cancelled, "nobody builds it"),
        };
        let name = self.past.last().map(|past| drv_name(&past.drv)).unwrap_or_default();
        let message = format!("it imports from derivation {name}, which cannot be had: {}", failure.message);
        Err(Failure { message: message.into(), ..failure })
    }

    /// The imports through which the code came that imports now, the first one first: positions in what they gave are in
    /// the trace.
    fn through(&self, need: &Need) -> Vec<&Past> {
        let seen = |past: &&Past| past.paths.iter().any(|path| need.trace.contains(&path.to_basename()));
        let Some(last) = self.past.iter().filter(seen).max_by_key(|past| past.code) else { return Vec::new() };
        let at = |code| self.past.iter().rev().find(move |past| past.code == code);
        (1..=last.code).filter_map(at).collect()
    }
}

fn failure(message: String) -> Failure {
    Failure::new(Class::Eval, message)
}

/// `gen-nix` of `…-gen-nix.drv`.
pub(super) fn drv_name(drv: &StorePath) -> &str {
    drv.name().trim_end_matches(".drv")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/nix/store";
    const A: &str = "psk0bbcfwn78af3smxz5b94g0b49j57q-gen-a.drv";
    const THERE: Mode = Mode::There { loud: false };

    fn named(error: &str, mode: Mode) -> Option<Vec<(String, Vec<String>)>> {
        let need = Need::of(&error.replace("$A", &format!("{DIR}/{A}")), mode, &Goals::default())?;
        Some(need.wanted.into_iter().map(|wanted| (wanted.drv, wanted.outputs)).collect())
    }

    #[test]
    fn errors_name_what_is_to_be_imported() {
        let a = |outputs: &[&str]| (format!("{DIR}/{A}"), outputs.iter().map(|&o| o.to_owned()).collect::<Vec<_>>());
        for (error, mode, wanted) in [
            // Both Nixes.
            (
                "error:\n … while calling the 'readFile' builtin\n error: cannot build '$A^out,dev' during evaluation because the option 'allow-import-from-derivation' is disabled",
                Mode::Forbidden,
                Some(vec![a(&["out", "dev"])]),
            ),
            // 2.34.
            (
                "error: … while\n error: Cannot build '$A'.\n       Reason: local builds are disabled (max-jobs = 0)\n Hint: set 'max-jobs' to a non-zero value",
                THERE,
                Some(vec![a(&[])]),
            ),
            (
                "error: build of '$A', '/nix/store/x-multi.drv' failed",
                THERE,
                Some(vec![a(&[]), ("/nix/store/x-multi.drv".into(), vec![])]),
            ),
            // 2.26.
            (
                "error:\n Unable to start any build;\n either increase '--max-jobs' or enable remote builds.",
                THERE,
                Some(vec![]),
            ),
            // Others' business.
            ("error: Cannot build '$A'.\n Reason: builder failed", Mode::ByNix, None),
            ("error: attribute 'x' missing", THERE, None),
            ("error: undefined variable 'y'", Mode::Forbidden, None),
        ] {
            assert_eq!(named(error, mode), wanted, "{error}");
        }
    }

    #[test]
    fn debug_messages_name_what_a_build_was_asked_for() {
        let mut goals = Goals::default();
        let line = |text: &str| format!(r#"@nix {{"action":"msg","level":6,"msg":"{text}"}}"#);
        for text in [
            "building of '/nix/store/a.drv^out' from .drv file: created",
            "entered goal loop",
            "building of '/nix/store/a.drv^out' from .drv file: done",
            "building of '/nix/store/a.drv^out' from .drv file: goal destroyed",
            "building of '/nix/store/b.drv^dev' from .drv file: created",
            "building of '/nix/store/b.drv^dev' from .drv file: woken up",
            "entered goal loop",
            "building of '/nix/store/input.drv^out' from .drv file: created",
            "building of '/nix/store/input.drv^out' from .drv file: wait for build slot",
        ] {
            goals.hear(&line(text));
        }
        let need = Need::of("error: Unable to start any build", Mode::There { loud: true }, &goals).unwrap();
        assert_eq!(need.wanted, [Wanted { drv: "/nix/store/b.drv".into(), outputs: vec!["dev".into()] }]);
    }

    /// A trace in which `c` reads `b` reads what stopped; the file of a derivation is imported, too.
    const TRACE: &str = "error:
       … while evaluating derivation 'top'
       … while calling the 'import' builtin
       at /nix/store/00000000000000000000000000000000-source/flake.nix:1:2:
       … while evaluating derivation 'c'
       … while calling the 'readFile' builtin
       … while evaluating derivation 'b'
       … while evaluating derivation 'dependency-of-b'
       … while calling the 'readFile' builtin
       … while realising the context of path '/nix/store/x'
       error: cannot build 'DRV^out' during evaluation because the option 'allow-import-from-derivation' is disabled";

    #[test]
    fn imports_that_wait_for_one_are_in_the_trace() {
        let error = TRACE.replace("DRV", &format!("{DIR}/{A}"));
        let need = Need::of(&error, Mode::Forbidden, &Goals::default()).unwrap();
        assert_eq!(need.around(), ["b", "c"]);
    }

    fn stop(asking: &mut Asking, need: &Need, rules: &Rules) -> Step {
        asking.tried(Err(failure(String::new())), Some(need), true, rules)
    }

    #[test]
    fn one_after_the_other_is_not_nested_but_code_that_was_imported_is() {
        let rules = Rules::new(Imports::Built, DIR);
        for (position, refused) in [("flake.nix", None), ("", Some(9))] {
            let mut asking = Asking::new(Mode::Forbidden);
            let path = |n: u32| StorePath::from_basename(format!("{n:032}-gen").as_bytes()).unwrap();
            let mut stopped = None;
            for n in 1..=20 {
                let at = if position.is_empty() { path(n - 1).to_basename() } else { position.to_owned() };
                let drv = format!("{DIR}/{n:032}-gen.drv");
                let error = format!("error:\n at {DIR}/{at}:1:2:\n error: Cannot build '{drv}'.");
                let need = Need::of(&error, THERE, &Goals::default()).unwrap();
                match stop(&mut asking, &need, &rules) {
                    Step::Import(drv, _) => assert_eq!(drv.to_basename(), format!("{n:032}-gen.drv")),
                    Step::Over { answer: Err(failure), import: true } => {
                        assert!(failure.message.contains("nested more than 8 deep: gen → gen"), "{}", failure.message);
                        stopped.get_or_insert(n);
                    }
                    other => panic!("{other:?}"),
                }
                asking.imported(Some(Ok(vec![path(n)])), &rules).unwrap();
            }
            assert_eq!(stopped, refused);
        }
    }

    #[test]
    fn a_nix_that_says_nothing_new_is_asked_otherwise() {
        let rules = Rules::new(Imports::Built, DIR);
        let mut asking = Asking::new(THERE);
        let need = Need::of(&format!("error: Cannot build '{DIR}/{A}'."), THERE, &Goals::default()).unwrap();
        assert!(matches!(stop(&mut asking, &need, &rules), Step::Import(..)));
        asking.imported(Some(Ok(Vec::new())), &rules).unwrap();
        let again = asking.tried(Err(failure(String::new())), Some(&need), false, &rules);
        assert!(matches!(again, Step::Again { fresh: true }));
        for mode in [Mode::There { loud: true }, Mode::ByNix] {
            assert!(matches!(stop(&mut asking, &need, &rules), Step::Again { fresh: false }));
            assert_eq!(asking.mode(), mode);
        }
        assert!(matches!(stop(&mut asking, &need, &rules), Step::Over { answer: Err(_), import: true }));
    }
}
