//! A place for one evaluator process at a time: starts it when there is something to ask, replaces it when it dies or
//! outgrows its share of memory, and says whose fault a death is.
//!
//! A death by stack overflow is the attr's own failure at once: it would come again. So is running out of memory where
//! nothing else was evaluated in the process before. After any other death the same
//! question is asked once more of a fresh process; if that dies as well, the attr has failed: `oom` if it ran out of
//! memory or was killed with signal 9 (which is what the kernel does for want of memory), else `eval`. Attrs that the
//! dead process had answered before keep their answers.

use serde_json::Value;

use super::expr::{self, Question};
use super::flake::Locked;
use super::imports::{Mode, Need, Rules};
use super::message;
use super::nix::Nix;
use super::worker::{Died, Worker};
use crate::error::Error;
use crate::event::{Class, Failure};

/// What every seat of one evaluation shares.
#[derive(Debug)]
pub struct Shared {
    /// How `nix` is run.
    pub nix: Nix,
    /// What is evaluated.
    pub locked: Locked,
    /// Without `--pure-eval`.
    pub impure: bool,
    /// Memory that one process may hold between two attrs, in bytes.
    pub memory: u64,
    /// Memory that its heap may take in the middle of an attr, in bytes; 0 is no limit.
    pub heap: u64,
    /// Where error positions may lie.
    pub roots: Vec<String>,
    /// What attrs may import from derivations.
    pub rules: Rules,
}

/// A place for one evaluator.
pub struct Seat {
    shared: std::sync::Arc<Shared>,
    worker: Option<Worker>,
}

/// What came of a question, whoever answered it.
#[derive(Debug)]
pub struct Outcome {
    /// The answer, or why there is none.
    pub answer: Result<Value, Failure>,
    /// Warnings meanwhile.
    pub warnings: Vec<String>,
    /// How processes died over it.
    pub deaths: Vec<String>,
    /// A fresh process was started for it.
    pub started: bool,
    /// It stopped at an import from a derivation.
    pub(super) need: Option<Need>,
}

impl Seat {
    /// A seat that is still empty.
    #[must_use]
    pub fn new(shared: std::sync::Arc<Shared>) -> Self {
        Self { shared, worker: None }
    }

    /// What may be imported.
    pub(super) fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// Whether there is a process that was not started in this mode: it has to go before anything is asked.
    pub(super) fn is_other(&self, mode: Mode) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.mode() != mode)
    }

    /// Asks the process that is there, in whatever mode; see [`Seat::ask_in`].
    pub async fn ask(&mut self, question: &Question) -> Result<Outcome, Error> {
        self.ask_in(question, self.mode()).await
    }

    /// The mode of its process, or of the next one.
    pub(super) fn mode(&self) -> Mode {
        self.worker.as_ref().map_or(Mode::Forbidden, Worker::mode)
    }

    /// Asks, with a second try after a death. `Err` if no evaluator can be started.
    pub(super) async fn ask_in(&mut self, question: &Question, mode: Mode) -> Result<Outcome, Error> {
        let mut outcome = Outcome {
            answer: Err(failure(Class::Internal, String::new())),
            warnings: Vec::new(),
            deaths: Vec::new(),
            started: false,
            need: None,
        };
        if self.is_other(mode) {
            self.clear();
        }
        loop {
            let fresh = self.worker.is_none();
            let mut worker = match self.worker.take() {
                Some(worker) => worker,
                None => {
                    outcome.started = true;
                    let Shared { nix, locked, impure, heap, .. } = &*self.shared;
                    Worker::start(nix, locked, *impure, *heap, mode)
                        .await
                        .map_err(super::worker::StartError::into_error)?
                }
            };
            match worker.ask(question).await {
                Ok(reply) => {
                    self.worker = Some(worker);
                    outcome.warnings = reply.warnings;
                    outcome.need = reply.answer.as_ref().err().and_then(|error| Need::of(error, mode, &reply.goals));
                    outcome.answer = reply.answer.map_err(|error| self.explain(&error));
                    return Ok(outcome);
                }
                Err(died) => {
                    let own = died.is_stack_overflow() || (fresh && died.ran_out());
                    let again = outcome.deaths.is_empty() && !own;
                    outcome.deaths.push(died.describe());
                    if !again {
                        outcome.answer = Err(self.blame(&died));
                        return Ok(outcome);
                    }
                }
            }
        }
    }

    fn explain(&self, error: &str) -> Failure {
        let explained = message::explain(error, |at| at.contains(expr::FILE));
        let position = explained.position.map(|at| message::relative(&at, &self.shared.roots).into());
        let mut text = explained.message;
        if let Some(file) = self.untracked(&text) {
            text.push_str(&format!("\nit is there, but Nix sees only what git tracks: git add {file}"));
        }
        Failure { class: Class::Eval, message: text.into(), position }
    }

    /// The file that Nix misses, if it is in the work tree: git does not track it.
    fn untracked(&self, message: &str) -> Option<String> {
        let (before, _) = message.split_once("' does not exist").or_else(|| message.split_once("' is not tracked"))?;
        let file = message::relative(before.rsplit_once('\'')?.1, &self.shared.roots);
        let tree = self.shared.locked.work_tree()?;
        let missing = !file.starts_with('/') && tree.join(&file).exists() && !message.contains("git add");
        (missing && self.shared.locked.dirty.is_some()).then_some(file)
    }

    fn blame(&self, died: &Died) -> Failure {
        if died.is_stack_overflow() {
            return failure(Class::Eval, "stack overflow (possible infinite recursion)".to_owned());
        }
        if died.ran_out() {
            let limit = self.shared.heap >> 20;
            let limit = if limit == 0 { String::new() } else { format!(", which was {limit} MiB (--eval-memory)") };
            return failure(Class::Oom, format!("the evaluator ran out of memory{limit}"));
        }
        let class = if died.is_memory() { Class::Oom } else { Class::Eval };
        failure(class, format!("the evaluator died over this attr, twice: it {}", died.describe()))
    }

    /// Bytes that the process holds, if they are more than its share.
    #[must_use]
    pub fn outgrown(&self) -> Option<u64> {
        self.worker.as_ref()?.resident().filter(|&bytes| bytes > self.shared.memory)
    }

    /// Ends the process; the next question starts another.
    pub fn clear(&mut self) {
        self.worker = None;
    }

    /// The process id, if there is a process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.worker.as_ref()?.pid()
    }
}

fn failure(class: Class, message: String) -> Failure {
    Failure { class, message: message.into(), position: None }
}
