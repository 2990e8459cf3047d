//! A place for one evaluator process at a time: starts it when there is something to ask, replaces it when it dies, and
//! says whose fault a death is. Does not decide when a process has to go: see `crew`.
//!
//! A death by stack overflow is the attr's own failure at once: it would come again. So is running out of memory where
//! nothing else was evaluated in the process before. After any other death, or when the process has lost the daemon of
//! its store, the same question is asked once more of a fresh process; if that dies as well, the attr has failed: `oom`
//! if it ran out of memory or was killed with signal 9 (which is what the kernel does for want of memory), else `eval`,
//! or `builder_lost` where the store is away. Attrs that the dead process had answered before keep their answers.

use std::sync::Arc;

use serde_json::Value;

use super::ahead::Early;
use super::budget::Budget;
use super::expr::{self, Question};
use super::flake::Locked;
use super::imports::{Mode, Need, Rules};
use super::memory::{Cost, Gauge};
use super::message;
use super::nix::Nix;
use super::worker::{Collector, Died, Reply, StartError, Worker};
use crate::error::Error;
use crate::event::{Class, Failure};
use crate::nix_compat::error_class;

/// What every seat of one evaluation shares.
#[derive(Debug)]
pub struct Shared {
    /// How `nix` is run.
    pub nix: Nix,
    /// What is evaluated.
    pub locked: Locked,
    /// Without `--pure-eval`.
    pub impure: bool,
    /// With its commit and time masked.
    pub masked: bool,
    /// Memory that all processes may hold; the heap of each may take it all.
    pub budget: Budget,
    /// Threads that each process may collect garbage with.
    pub markers: u32,
    /// Where error positions may lie.
    pub roots: Vec<String>,
    /// What attrs may import from derivations.
    pub rules: Rules,
}

impl Shared {
    /// Whether evaluators load the flake as a value.
    pub(super) fn is_value(&self) -> bool {
        !self.impure && self.locked.is_value()
    }

    /// Nix's error, without colour, as people want to read it.
    pub(super) fn explain(&self, error: &str) -> Failure {
        let explained = message::explain(error, |at| at.contains(expr::FILE));
        let position = explained.position.map(|at| message::relative(&at, &self.roots).into());
        let mut text = explained.message;
        if let Some(file) = self.untracked(&text) {
            text.push_str(&format!("\nit is there, but Nix sees only what git tracks: git add {file}"));
        }
        // The store that it evaluates with is none of the flake's business.
        let class = if error_class::is_store_gone(&text) { Class::BuilderLost } else { Class::Eval };
        Failure { class, message: text.into(), position }
    }

    /// The file that Nix misses, if it is in the work tree: git does not track it.
    fn untracked(&self, message: &str) -> Option<String> {
        let (before, _) = message.split_once("' does not exist").or_else(|| message.split_once("' is not tracked"))?;
        let file = message::relative(before.rsplit_once('\'')?.1, &self.roots);
        let tree = self.locked.work_tree()?;
        let missing = !file.starts_with('/') && tree.join(&file).exists() && !message.contains("git add");
        (missing && self.locked.dirty.is_some()).then_some(file)
    }
}

/// A place for one evaluator.
pub struct Seat {
    shared: Arc<Shared>,
    worker: Option<Worker>,
    /// May become the first process.
    early: Option<Early>,
    gauge: Arc<Gauge>,
    /// What will most likely be asked after the next question.
    ahead: Vec<Question>,
}

/// What came of a question, whoever answered it.
#[derive(Debug)]
pub struct Outcome {
    /// The answer, or why there is none.
    pub answer: Result<Value, Failure>,
    /// Warnings meanwhile.
    pub warnings: Vec<String>,
    /// What `builtins.trace` said meanwhile.
    pub traces: Vec<String>,
    /// How processes died over it.
    pub deaths: Vec<String>,
    /// A fresh process was started for it.
    pub started: bool,
    /// The memory that it took.
    pub cost: Cost,
    /// It stopped at an import from a derivation.
    pub(super) need: Option<Need>,
}

impl Seat {
    /// A seat that is still empty.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, worker: None, early: None, gauge: Arc::default(), ahead: Vec::new() }
    }

    /// With an evaluator that was started before the flake was locked.
    pub(super) fn with(self, early: Option<Early>) -> Self {
        Self { early, ..self }
    }

    /// Tells what will most likely be asked after the next question, in the same mode. A process may answer it ahead.
    pub(super) fn expect(&mut self, ahead: Vec<Question>) {
        self.ahead = ahead;
    }

    /// What its processes hold.
    #[must_use]
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// What it shares with others.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What may be imported.
    pub(super) fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The mode of its process, or of the next one.
    pub(super) fn mode(&self) -> Mode {
        self.worker.as_ref().map_or_else(Mode::default, Worker::mode)
    }

    /// Whether there is a process that was not started in this mode: it has to go before anything is asked.
    pub(super) fn is_other(&self, mode: Mode) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.mode() != mode)
    }

    /// Asks the process that is there, in whatever mode; see `ask_in`.
    pub async fn ask(&mut self, question: &Question) -> Result<Outcome, Error> {
        self.ask_in(question, self.mode()).await
    }

    /// Asks, with a second try after a death. `Err` if no evaluator can be started. If this is dropped before it ends,
    /// the seat has to be cleared before it is asked again.
    pub(super) async fn ask_in(&mut self, question: &Question, mode: Mode) -> Result<Outcome, Error> {
        let mut outcome = Outcome {
            answer: Err(Failure::new(Class::Internal, String::new())),
            warnings: Vec::new(),
            traces: Vec::new(),
            deaths: Vec::new(),
            started: false,
            cost: Cost::default(),
            need: None,
        };
        if self.is_other(mode) {
            self.clear();
        }
        let ahead = std::mem::take(&mut self.ahead);
        self.gauge.forget();
        loop {
            let fresh = self.worker.is_none();
            outcome.started |= fresh;
            let worker = match self.worker(mode).await {
                Ok(worker) => worker,
                Err(StartError::Import { error, need }) => {
                    outcome.answer = Err(self.explain(&error));
                    outcome.need = Some(*need);
                    return Ok(outcome);
                }
                Err(error) => return Err(error.into_error()),
            };
            let asked = worker.ask(question, &ahead).await;
            let error = asked.as_ref().ok().and_then(|reply| reply.answer.as_ref().err());
            outcome.need = error.and_then(|error| worker.need(error));
            outcome.cost = self.gauge.cost();
            match asked {
                // Its connection to the store goes with the daemon; another process has another one.
                Ok(Reply { answer: Err(error), .. }) if self.has_lost_store(&error) && outcome.deaths.is_empty() => {
                    self.clear();
                    outcome.deaths.push("lost the Nix daemon".to_owned());
                }
                Ok(reply) => {
                    outcome.warnings = reply.warnings;
                    outcome.traces = reply.traces;
                    outcome.answer = reply.answer.map_err(|error| self.explain(&error));
                    return Ok(outcome);
                }
                Err(died) => {
                    self.clear();
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

    /// The process, started if there is none, about to be asked.
    async fn worker(&mut self, mode: Mode) -> Result<&mut Worker, StartError> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => self.start(mode).await?,
        };
        self.gauge.begin();
        Ok(self.worker.insert(worker))
    }

    async fn start(&mut self, mode: Mode) -> Result<Worker, StartError> {
        let Shared { nix, locked, impure, masked, budget, markers, .. } = &*self.shared;
        let early = self.early.take().map(|Early(worker)| worker).filter(|worker| worker.mode() == mode);
        let mut worker = match early.filter(|worker| self.shared.is_value() && worker.is_given(&locked.locked_ref)) {
            Some(worker) => worker,
            None => {
                let collector = Collector { heap: budget.bytes, markers: *markers };
                match self.shared.is_value() {
                    true => Worker::spawn_bare(nix, collector, mode)?,
                    false => Worker::spawn(nix, locked, *impure, collector, mode)?,
                }
            }
        };
        self.gauge.watch(worker.pid());
        let mut loaded = worker.load(locked, *impure).await;
        if *masked && loaded.is_ok() {
            loaded = worker.mask(locked).await;
        }
        if let Err(error) = loaded {
            self.gauge.watch(None);
            return Err(error);
        }
        Ok(worker)
    }

    fn explain(&self, error: &str) -> Failure {
        self.shared.explain(error)
    }

    fn has_lost_store(&self, error: &str) -> bool {
        self.explain(error).class == Class::BuilderLost
    }

    fn blame(&self, died: &Died) -> Failure {
        if died.is_stack_overflow() {
            return Failure::new(Class::Eval, "stack overflow (possible infinite recursion)".to_owned());
        }
        if died.ran_out() {
            return self.exhausted();
        }
        let class = if died.is_memory() { Class::Oom } else { Class::Eval };
        Failure::new(class, format!("the evaluator died over this attr, twice: it {}", died.describe()))
    }

    /// Why there is no answer where the attr took more than there is.
    #[must_use]
    pub fn exhausted(&self) -> Failure {
        let held = self.gauge.cost().peak.map(|bytes| format!(", when it held {} MiB", bytes >> 20));
        let (limit, held) = (self.shared.budget.which_was(), held.unwrap_or_default());
        Failure::new(Class::Oom, format!("the evaluator ran out of memory{limit}{held}"))
    }

    /// Ends the process; the next question starts another.
    pub fn clear(&mut self) {
        self.gauge.watch(None);
        self.worker = None;
    }

    /// Ends the process and waits until its memory is free again.
    pub async fn end(&mut self) {
        self.gauge.watch(None);
        if let Some(worker) = self.worker.take() {
            worker.end().await;
        }
    }

    /// The process id, if there is a process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.worker.as_ref()?.pid()
    }
}
