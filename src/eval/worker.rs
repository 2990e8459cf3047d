//! One evaluator process: a `nix repl` fed line by line over pipes. Asks one question at a time and tells the answer,
//! Nix's error, or that the process died. Does not decide what is asked, and does not replace itself: see `seat`.
//!
//! The process is killed, never asked to leave: a repl that ends by itself writes a history file in the user's home.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use super::expr::{self, Printed, Question};
use super::flake::{LockError, Locked};
use super::imports::{Goals, Mode, Need};
use super::message::{self, Said};
use super::nix::Nix;
use crate::error::{Error, Fault};
use crate::nix_compat::error_class;
use crate::process::{Cmd, ProcessError, describe};

mod many;

use many::Many;

/// Longest line that is read from an evaluator, in bytes; the names of a package set are one line.
const LINE_LIMIT: usize = 64 << 20;
/// How long a dead process's standard error is read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most texts that are kept of what one question made Nix say.
const SAID_LIMIT: usize = 1000;
/// Most traces that are kept of one question, and most bytes of one of them.
const TRACES: usize = 100;
const TRACE_LIMIT: usize = 4 << 10;
/// How long a killed process may take to go.
const GOING: Duration = Duration::from_secs(5);
/// The most that Nix reserves for its heap at its start, in bytes.
const INITIAL_HEAP: u64 = 384 << 20;

/// Reads lines of bounded length; may be dropped between two bytes and called again.
struct Lines<R> {
    pipe: BufReader<R>,
    line: Vec<u8>,
}

impl<R: tokio::io::AsyncRead + Unpin> Lines<R> {
    fn new(pipe: R) -> Self {
        Self { pipe: BufReader::with_capacity(64 << 10, pipe), line: Vec::new() }
    }

    /// The next line without its end; `None` at the end of the stream. What is too long is cut.
    async fn next(&mut self) -> Option<String> {
        loop {
            let chunk = match self.pipe.fill_buf().await {
                Ok(chunk) if !chunk.is_empty() => chunk,
                _ if self.line.is_empty() => return None,
                _ => break,
            };
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(chunk.len());
            let room = LINE_LIMIT.saturating_sub(self.line.len());
            self.line.extend_from_slice(&chunk[..taken.min(room)]);
            let used = taken + usize::from(end.is_some());
            self.pipe.consume(used);
            if end.is_some() {
                break;
            }
        }
        let line = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_owned();
        self.line.clear();
        Some(line)
    }
}

/// A running evaluator.
pub struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
    command: String,
    asked: u64,
    mode: Mode,
    scope: Scope,
    /// What it was building last, if it says so.
    goals: Goals,
    /// Questions that it answers one after the other.
    many: Option<Many>,
    /// Answers that came before their questions.
    ready: VecDeque<(Question, Reply)>,
    /// What was said about a question that is asked once more.
    before: Option<Heard>,
    /// The flake that it has loaded is not the one that is asked about.
    masked: bool,
}

/// How a process comes by the flake and by the code that answers questions.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// It was started with the flake; the code is typed.
    Flake,
    /// It was started with the code; the flake is to be loaded as a value.
    Bare,
    /// The same, and this flake is being loaded.
    Given(String),
}

/// What came of a question.
#[derive(Debug)]
pub struct Reply {
    /// The answer; or Nix's error, without colour.
    pub answer: Result<Value, String>,
    /// Warnings meanwhile.
    pub warnings: Vec<String>,
    /// What `builtins.trace` said meanwhile: the first of it.
    pub traces: Vec<String>,
}

/// What a process has said about one question so far.
#[derive(Debug, Default)]
struct Heard {
    answer: Option<String>,
    errors: Vec<String>,
    warnings: Vec<String>,
    traces: Vec<String>,
    others: Vec<String>,
}

impl Heard {
    /// Takes in a line of standard error; gives the number of the question whose end it says. An answer on standard error
    /// is the one to be taken if no better one comes: what is said of a derivation itself did not evaluate, or not yet.
    fn hear(&mut self, id: u64, line: &str, loud: bool) -> Option<u64> {
        match message::line(line)? {
            Said::Trace(text) => match expr::printed(&text) {
                Some(Printed::End(of)) => return Some(of),
                Some(Printed::Answer(of, json)) if of == id => self.answer = Some(json.to_owned()),
                _ if self.traces.len() < TRACES => self.traces.push(shortened(text)),
                _ => {}
            },
            // A daemon's debug messages arrive as errors.
            Said::Error(text) if loud && !text.starts_with("error:") => {}
            Said::Error(text) if self.errors.len() < SAID_LIMIT => self.errors.push(text),
            Said::Warning(text) if self.warnings.len() < SAID_LIMIT => self.warnings.push(text),
            Said::Other(text) if self.others.len() < SAID_LIMIT => self.others.push(text),
            _ => {}
        }
        None
    }

    /// What came of the question.
    fn reply(mut self) -> Reply {
        let answer = match self.answer.as_deref().map(serde_json::from_str) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(format!("error: cannot read the evaluator's answer: {error}")),
            None => Err(match self.errors.pop() {
                Some(error) if expr::cut_short(&error) => expr::CUT_SHORT.to_owned(),
                Some(error) => error,
                None => "error: Nix gave neither an answer nor an error".to_owned(),
            }),
        };
        Reply { answer, warnings: self.warnings, traces: self.traces }
    }
}

/// The process ended in the middle of a question.
#[derive(Debug)]
pub struct Died {
    /// How.
    pub status: Option<ExitStatus>,
    /// Its last words.
    pub words: String,
    /// Its allocator complained, at whatever moment of the question.
    pub complained: bool,
}

impl Died {
    /// Nix ran out of stack: it would again.
    #[must_use]
    pub fn is_stack_overflow(&self) -> bool {
        self.words.contains("stack overflow")
    }

    /// It ran into the limit of its heap, or the system gave it no more.
    #[must_use]
    pub fn ran_out(&self) -> bool {
        self.complained || is_out_of_memory(&self.words)
    }

    /// It ran out of memory, or somebody (most likely the kernel, for want of memory) killed it.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        self.ran_out() || self.status.and_then(|status| status.signal()) == Some(9)
    }

    /// `was killed by signal 9: last words`.
    #[must_use]
    pub fn describe(&self) -> String {
        let how = self.status.map_or_else(|| "ended".to_owned(), describe);
        if self.words.is_empty() { how } else { format!("{how}: {}", self.words) }
    }
}

/// How Nix, its garbage collector and C++ say that there is no memory left. The collector's own words come first; what
/// it dies of after them may look like anything.
fn is_out_of_memory(line: &str) -> bool {
    const SIGNS: [&str; 6] = [
        "out of memory",
        "Out of memory",
        "Out of Memory!",
        "Too many heap sections",
        "Insufficient space for initial table",
        "bad_alloc",
    ];
    SIGNS.iter().any(|sign| line.contains(sign))
}

/// What the garbage collector of one process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collector {
    /// Bytes that the heap may grow to; 0 is no limit.
    pub heap: u64,
    /// Threads that look for what is in use. By itself each process has as many as there are cores, and they wait for
    /// each other by spinning.
    pub markers: u32,
}

/// Bounds the heap of Nix's garbage collector, which then dies of "out of memory" and says so. A limit of the kernel
/// (`RLIMIT_DATA`) would be inherited by builders that an import from a derivation starts; these have an empty
/// environment.
fn bounded(cmd: Cmd, Collector { heap, markers }: Collector) -> Cmd {
    let cmd = cmd.env("GC_MARKERS", markers.to_string());
    if heap == 0 {
        return cmd;
    }
    let cmd = cmd.env("GC_MAXIMUM_HEAP_SIZE", heap.to_string());
    // Nix reserves that much at once, and dies if it does not get it.
    if heap / 4 >= INITIAL_HEAP { cmd } else { cmd.env("GC_INITIAL_HEAP_SIZE", (heap / 4).to_string()) }
}

/// Why no evaluator could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Nix does not load the flake.
    #[error("cannot evaluate flake '{reference}': {message}")]
    Flake {
        /// The reference that was evaluated.
        reference: String,
        /// What Nix says.
        message: String,
        /// Where.
        position: Option<String>,
    },
    /// Nix cannot load the flake without an import from a derivation.
    #[error("cannot evaluate flake: {error}")]
    Import {
        /// Nix's error.
        error: String,
        /// What is to be imported.
        need: Box<Need>,
    },
    /// It has loaded another tree than the one that was locked.
    #[error(transparent)]
    Changed(LockError),
    /// The process does not behave like `nix repl`.
    #[error("'{command}' does not answer as 'nix repl' does: {cause}")]
    Protocol {
        /// The whole command line.
        command: String,
        /// What is wrong.
        cause: String,
    },
}

impl StartError {
    /// For people, with a way out.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Self::Changed(error) => error.into_error(),
            Self::Process(error) => LockError::from(error).into_error(),
            Self::Flake { ref message, .. } if error_class::is_store_gone(message) => {
                Error::from_chain(Fault::Unreachable, &self).hint("nix store info    shows whether the daemon answers")
            }
            Self::Flake { ref reference, ref position, .. } => {
                let mut error = Error::from_chain(Fault::Eval, &self).hint(format!("nix flake show '{reference}'"));
                if let Some(position) = position {
                    error.message = format!("{}\nat {position}", error.message);
                }
                error
            }
            Self::Import { .. } | Self::Protocol { .. } => {
                Error::from_chain(Fault::Bug, &self).hint("nix --version    (2.26 and 2.34 are tested)")
            }
        }
    }
}

impl Worker {
    /// Starts a process without a flake, which has to load one as a value before it is asked anything.
    pub(super) fn spawn_bare(nix: &Nix, collector: Collector, mode: Mode) -> Result<Self, StartError> {
        let cmd = repl(nix, "--pure-eval", mode).args(["--expr", &expr::scope()]);
        Self::run(&bounded(cmd, collector), mode, Scope::Bare)
    }

    /// Starts a process with the flake, which has to load it before it is asked anything.
    pub(super) fn spawn(
        nix: &Nix,
        locked: &Locked,
        impure: bool,
        collector: Collector,
        mode: Mode,
    ) -> Result<Self, StartError> {
        let purity = if impure { "--impure" } else { "--pure-eval" };
        let cmd = repl(nix, purity, mode).args(locked.args()).args(["--", &locked.locked_ref]);
        Self::run(&bounded(cmd, collector), mode, Scope::Flake)
    }

    fn run(cmd: &Cmd, mode: Mode, scope: Scope) -> Result<Self, StartError> {
        let mut child = cmd.spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(StartError::Protocol { command: cmd.to_string(), cause: "it has no pipes".into() });
        };
        let command = cmd.to_string();
        let (stdout, stderr) = (Lines::new(stdout), Lines::new(stderr));
        Ok(Self {
            child,
            stdin,
            stdout,
            stderr,
            command,
            asked: 0,
            mode,
            scope,
            goals: Goals::default(),
            many: None,
            ready: VecDeque::new(),
            before: None,
            masked: false,
        })
    }

    /// Begins to load a flake by its reference, if the process has none.
    pub(super) async fn give(&mut self, reference: String) {
        if self.scope == Scope::Bare {
            // If the process is gone, the next question says so.
            let _ = self.stdin.write_all(expr::give(&reference).as_bytes()).await;
            self.scope = Scope::Given(reference);
        }
    }

    /// Whether it loads the flake of this reference.
    pub(super) fn is_given(&self, reference: &str) -> bool {
        matches!(&self.scope, Scope::Given(given) if given == reference)
    }

    /// Loads the flake and the code, and makes sure that it is the locked tree that the process has loaded.
    pub async fn load(&mut self, locked: &Locked, impure: bool) -> Result<(), StartError> {
        self.give(locked.locked_ref.clone()).await;
        let source = serde_json::json!({ "path": locked.source() });
        let (function, output, arguments) = match self.scope {
            Scope::Flake if impure => ("exists", Some("packages"), serde_json::json!({ "path": [] })),
            Scope::Flake => ("loaded", None, source),
            Scope::Bare | Scope::Given(_) => ("given", Some(expr::FLAKE), source),
        };
        let question = Question { function, output: output.map(str::to_owned), arguments };
        let line = if self.scope == Scope::Flake { format!("{}\n", expr::load()) } else { String::new() };
        let reply = match self.exchange(&line, &question).await {
            Ok(reply) => reply,
            Err(died) => return Err(self.not_loaded(locked, &died.words, Some(&died))),
        };
        match reply.answer {
            Ok(_) if impure => Ok(()),
            Ok(answer) if answer.get("loaded").and_then(Value::as_bool) == Some(true) => Ok(()),
            Ok(answer) if answer.get("loaded").is_some() => {
                Err(StartError::Changed(LockError::Changed { reference: locked.original.clone() }))
            }
            Ok(answer) => {
                Err(StartError::Protocol { command: self.command.clone(), cause: format!("it says {answer}") })
            }
            Err(error) => Err(self.not_loaded(locked, &error, None)),
        }
    }

    /// Puts the flake's outputs with a masked source in the place of those that it has loaded.
    pub(super) async fn mask(&mut self, locked: &Locked) -> Result<(), StartError> {
        self.masked = true;
        let arguments = serde_json::json!({ "path": [] });
        let question = Question { function: "exists", output: Some(expr::MASKED.to_owned()), arguments };
        let line = format!("{}\n", expr::mask(&locked.locked_ref));
        let reply = match self.exchange(&line, &question).await {
            Ok(reply) => reply,
            Err(died) => return Err(self.not_loaded(locked, &died.words, Some(&died))),
        };
        match reply.answer {
            Ok(answer) if answer.get("found").is_some() => Ok(()),
            Ok(_) => Err(StartError::Flake {
                reference: locked.locked_ref.clone(),
                message: "it has no outputs when its revision is masked".to_owned(),
                position: None,
            }),
            Err(error) => Err(self.not_loaded(locked, &error, None)),
        }
    }

    /// Why the flake is not loaded. A source that no longer has the hash that it was locked with has changed.
    fn not_loaded(&self, locked: &Locked, error: &str, died: Option<&Died>) -> StartError {
        if error.contains("NAR hash mismatch") || error.contains("'lastModified' attribute mismatch") {
            return StartError::Changed(LockError::Changed { reference: locked.original.clone() });
        }
        if let Some(need) = self.need(error) {
            return StartError::Import { error: error.to_owned(), need: Box::new(need) };
        }
        let explained = message::explain(error, |_| false);
        if explained.message.is_empty() {
            let cause = died.map_or_else(|| "it says nothing".to_owned(), Died::describe);
            return StartError::Protocol { command: self.command.clone(), cause };
        }
        StartError::Flake {
            reference: locked.locked_ref.clone(),
            message: explained.message,
            position: explained.position.map(|at| message::relative(&at, &locked.roots())),
        }
    }

    /// Asks a question and waits for its answer. `ahead` are questions that will most likely come next, in this order, and
    /// are known to be quick: they are asked at the same time.
    pub async fn ask(&mut self, question: &Question, ahead: &[Question]) -> Result<Reply, Died> {
        if let Some(reply) = self.known(question).await? {
            return Ok(reply);
        }
        // One that came to nothing among others is asked by itself.
        if self.before.is_none()
            && self.begin_many(question, ahead).await
            && let Some(reply) = self.next_of_many().await?
        {
            return Ok(reply);
        }
        self.alone(question).await
    }

    /// Asks a question by itself, perhaps once more; what was said about it before is kept.
    async fn alone(&mut self, question: &Question) -> Result<Reply, Died> {
        let before = self.before.take().unwrap_or_default();
        let mut reply = self.exchange("", question).await?;
        for (texts, before) in [(&mut reply.warnings, before.warnings), (&mut reply.traces, before.traces)] {
            texts.extend(before.into_iter().filter(|text| !texts.contains(text)).collect::<Vec<_>>());
        }
        Ok(reply)
    }

    async fn exchange(&mut self, before: &str, question: &Question) -> Result<Reply, Died> {
        self.asked += 1;
        let id = self.asked;
        let text = format!("{before}{}", expr::ask(id, question));
        let mut heard = Heard::default();
        let mut answer = None;

        let Self { stdin, stdout, stderr, mode, goals, .. } = self;
        let loud = *mode == Mode::There { loud: true };
        *goals = Goals::default();
        let mut write = std::pin::pin!(async {
            // If the process is gone, its silence says so.
            if stdin.write_all(text.as_bytes()).await.is_ok() {
                let _ = stdin.flush().await;
            }
        });
        let (mut written, mut out_over, mut err_over) = (false, false, false);
        let mut dead = false;
        while !(dead || (out_over && err_over)) {
            tokio::select! {
                () = &mut write, if !written => written = true,
                line = stdout.next(), if !out_over => match line.as_deref().map(expr::printed) {
                    None => dead = true,
                    Some(Some(Printed::Answer(of, json))) if of == id => answer = Some(json.to_owned()),
                    Some(Some(Printed::End(of))) if of == id => out_over = true,
                    Some(_) => {}
                },
                line = stderr.next(), if !err_over => match line {
                    None => { err_over = true; dead = !out_over; }
                    Some(line) => {
                        if loud {
                            goals.hear(&line);
                        }
                        let known = heard.errors.len();
                        // Another end is the second one of the question before.
                        err_over = heard.hear(id, &line, loud) == Some(id);
                        if heard.errors.get(known).is_some_and(|error| expr::without_code(error)) {
                            let _ = self.child.start_kill();
                            return Ok(heard.reply());
                        }
                    }
                },
            }
        }
        if dead {
            return self.died(id, heard).await;
        }
        if answer.is_some() {
            heard.answer = answer;
        }
        Ok(heard.reply())
    }

    /// The process ended in the middle of a question: its answer, if it had given one already.
    async fn died(&mut self, id: u64, mut heard: Heard) -> Result<Reply, Died> {
        // Its last words are in the pipe. A grandchild may hold the pipe open, so this may not take for ever.
        let drain = async {
            while let Some(line) = self.stderr.next().await {
                heard.hear(id, &line, false);
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, drain).await;
        let _ = self.child.start_kill();
        let status = self.child.wait().await.ok();
        if let Some(Ok(value)) = heard.answer.as_deref().map(serde_json::from_str) {
            // That the process is gone is found out by the next question.
            return Ok(Reply { answer: Ok(value), warnings: heard.warnings, traces: heard.traces });
        }
        let complained = heard.errors.iter().chain(&heard.others).any(|line| is_out_of_memory(line));
        let words = heard.errors.pop().or_else(|| heard.others.pop()).unwrap_or_default();
        Err(Died { status, words, complained })
    }

    /// What it may do about imports from derivations.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// What has to be imported, if that is what an error of the last question is about.
    pub(super) fn need(&self, error: &str) -> Option<Need> {
        Need::of(error, self.mode, &self.goals)
    }

    /// The process id; `None` once it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the process and waits until it is gone.
    pub async fn end(mut self) {
        // A process that hangs in the kernel is not waited for.
        let _ = tokio::time::timeout(GOING, self.child.kill()).await;
    }
}

/// A `nix repl` that answers questions.
fn repl(nix: &Nix, purity: &str, mode: Mode) -> Cmd {
    // Without the whole trace the positions that matter may be left out of it.
    nix.cmd(&["repl", purity, "--no-write-lock-file", "--show-trace"])
        .args(mode.args())
        // Else readline draws the line that it reads.
        .env("TERM", "dumb")
}

/// The first of a long text.
fn shortened(mut text: String) -> String {
    if let Some(end) = (0..=TRACE_LIMIT).rev().find(|&at| text.len() > TRACE_LIMIT && text.is_char_boundary(at)) {
        text.truncate(end);
        text.push('…');
    }
    text
}
