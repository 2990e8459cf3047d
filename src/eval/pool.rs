//! The evaluation of one flake: lists the attrs, has them evaluated (`serve`), and streams what comes out. Does not
//! decide what is done with an answer.
//!
//! An evaluator holds temporary roots of the derivations that it instantiated. It therefore lives until whoever reads
//! the stream has acknowledged (dropped the [`Ack`] of) every derivation that it answered with. Only one that dies or
//! has to be killed cannot wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::ahead::Early;
use super::budget::{self, Budget};
use super::expr::Question;
use super::flake::{self, FlakeOptions, Locked};
use super::imports::{Asking, Imports, Rules, Step};
use super::list::{self, Catalogue, Entry, LeftOut};
use super::memory::Cost;
use super::message;
use super::nix::Nix;
use super::own_config::OwnConfig;
use super::queue::Expected;
use super::record::{Record, RecordedList};
use super::seat::{Seat, Shared};
use super::serve::{self, Work};
use super::what::Selection;
use crate::error::{Error, Fault};
use crate::event::{Class, Evaluated, Failure, OutputPath, Text};
use crate::id::{AttrId, AttrPath, Kind, StorePath, System};

/// Messages that wait for the driver before evaluators have to.
const CHANNEL: usize = 256;

/// What is evaluated, and how.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// How `nix` is run.
    pub nix: Nix,
    /// What the flake was locked with.
    pub flake: FlakeOptions,
    /// Which attrs.
    pub selection: Selection,
    /// `--eval-workers`; `None` follows the number of cores and attrs.
    pub workers: Option<u32>,
    /// Cores of this machine.
    pub cores: u32,
    /// `--eval-max-memory-size`: MiB that one evaluator may hold between two attrs; 0 means its share of `budget`, and
    /// at most the default.
    pub memory_mib: u64,
    /// What all evaluators may hold together. One may take it all in the middle of an attr, and is replaced after it.
    pub budget: Budget,
    /// Who builds what attrs import from derivations.
    pub imports: Imports,
    /// What is known of attrs from earlier runs. Those that failed go first, then those known as slow.
    pub expected: Arc<Expected>,
}

/// One attr of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub attr: AttrId,
    /// Its full path.
    pub path: AttrPath,
    /// Its kind.
    pub kind: Kind,
    /// What people call it: the last part, or the full path where two share it.
    pub name: Text,
}

/// A derivation that an attr asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrvAnswer {
    /// The derivation, which is in the store.
    #[serde(deserialize_with = "super::base::path")]
    pub drv: StorePath,
    /// Its `name`.
    pub name: String,
    /// Its `system`; for an app, the one in its path.
    pub system: System,
    /// The outputs that the attr asks for: what `nix build` would build.
    pub wanted: Vec<String>,
    /// Paths of all outputs, as far as evaluation knows them; an app's are not known here.
    #[serde(deserialize_with = "super::base::outputs")]
    pub outputs: BTreeMap<String, Option<StorePath>>,
    /// The program that it makes, for an app that is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// `file:line:column` where its attr is written, where Nix knows that and it is in no other flake; relative to the
    /// flake, if it lies there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// What the derivation says about itself.
    #[serde(default, skip_serializing_if = "Meta::is_empty")]
    pub meta: Box<Meta>,
}

/// What a derivation says about itself, as far as it says it in the usual form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// `file:line` where it is defined; relative to the flake, if it lies there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Identifiers of its licenses, SPDX where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub license: Vec<String>,
    /// Its name without the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pname: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its name in the lists of known vulnerabilities (CPE 2.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpe: Option<String>,
}

impl Meta {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl DrvAnswer {
    /// The position that says most to whoever reads the flake: where the derivation is defined, if that is in the flake;
    /// else where its attr is written.
    #[must_use]
    pub fn position(&self) -> Option<&str> {
        let own = self.meta.position.as_deref();
        own.filter(|position| !position.starts_with('/')).or(self.written.as_deref()).or(own)
    }
}

/// What came out of an attr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A derivation.
    Drv(DrvAnswer),
    /// It is fine and has nothing to build.
    Nothing(Text),
    /// It does not evaluate.
    Failed(Failure),
    /// Nix does not refuse it, but something is wrong with it; only of attrs that are checked.
    Finding(Failure),
}

impl Answer {
    /// As a fact, with absolute paths.
    #[must_use]
    pub fn evaluated(&self, store_dir: &str) -> Evaluated {
        let absolute = |path: &StorePath| Text::from(format!("{store_dir}/{}", path.to_basename()));
        match self {
            Self::Drv(answer) => Evaluated::Drv {
                drv: absolute(&answer.drv),
                name: answer.name.as_str().into(),
                system: answer.system.clone(),
                outputs: answer
                    .wanted
                    .iter()
                    .map(|name| OutputPath {
                        name: name.as_str().into(),
                        path: answer.outputs.get(name).and_then(Option::as_ref).map(absolute),
                    })
                    .collect(),
                position: answer.position().map(Into::into),
            },
            Self::Nothing(reason) => Evaluated::Nothing { reason: reason.clone() },
            Self::Failed(failure) => Evaluated::Failed(failure.clone()),
            Self::Finding(failure) => Evaluated::Finding(failure.clone()),
        }
    }
}

/// Dropped when the derivation of an answer has a root of its own.
#[derive(Debug)]
pub struct Ack {
    pub(super) _held: oneshot::Sender<()>,
}

/// An attr that imports from a derivation which is not built: it waits for the answer.
#[derive(Debug)]
pub struct Import {
    /// Which attr; `None` where the attrs cannot be listed without it.
    pub attr: Option<AttrId>,
    /// The derivation, which is in the store that evaluates.
    pub drv: StorePath,
    /// Its outputs that are imported; none where Nix does not say which: then all.
    pub outputs: Vec<String>,
    /// Where the answer goes. If it is dropped, the attr has failed.
    pub reply: oneshot::Sender<Imported>,
}

/// The imported outputs, which are in the store that evaluates now; or why they cannot be.
pub type Imported = Result<Vec<StorePath>, Failure>;

/// One message of an evaluation.
#[derive(Debug)]
pub enum EvalMsg {
    /// All attrs, once, before anything about one of them.
    Listed(Vec<Listed>),
    /// Attrs that were left out by default.
    LeftOut(LeftOut),
    /// What the flake's own file says besides its outputs, once, if it is checked.
    Own(OwnConfig),
    /// An evaluator has loaded the locked tree; its NAR hash is that of [`Locked`].
    WorkerReady {
        /// Which evaluator, from 0.
        worker: u32,
        /// Hash of the tree that it has loaded.
        nar_hash: Text,
    },
    /// An evaluator died or outgrew its memory and is replaced.
    WorkerReplaced {
        /// Which evaluator.
        worker: u32,
        /// Why, for people.
        reason: Text,
    },
    /// An evaluator took up an attr.
    Started {
        /// Which attr.
        attr: AttrId,
        /// Which evaluator.
        worker: u32,
    },
    /// An attr cannot be evaluated any further without the output of a derivation.
    Import(Import),
    /// An attr is answered.
    Ended {
        /// Which attr.
        attr: AttrId,
        /// What came out.
        answer: Answer,
        /// It comes from a record; nothing was evaluated.
        recorded: bool,
        /// The memory that it took, as far as that is known.
        cost: Cost,
        /// To be dropped once the derivation has a root. The evaluator waits for it.
        ack: Option<Ack>,
    },
    /// Nix warned.
    Warning {
        /// The attr in flight; `None` while listing.
        attr: Option<AttrId>,
        /// The text, without the word.
        message: Text,
    },
    /// `builtins.trace` said something.
    Trace {
        /// The attr in flight.
        attr: AttrId,
        /// The text, without the word.
        message: Text,
    },
    /// All attrs are answered. Always the last message, unless it is `Fatal`.
    Finished {
        /// What to store, where this evaluation may be remembered.
        record: Option<Box<Record>>,
    },
    /// The evaluation cannot go on. Always the last message.
    Fatal(Error),
}

/// A running evaluation, whatever its messages are made of. Dropping it kills its processes.
#[derive(Debug)]
pub struct Evaluator {
    messages: mpsc::Receiver<EvalMsg>,
    _task: JoinSet<()>,
    over: bool,
}

impl Evaluator {
    /// Starts evaluating. What `record` knows is not asked again; the caller has made sure that its derivations exist.
    #[must_use]
    pub fn start(options: EvalOptions, locked: Locked, record: Option<Record>) -> Self {
        Self::start_with(None, options, locked, record)
    }

    /// The same, with an evaluator that may have been started for it.
    #[must_use]
    pub fn start_with(early: Option<Early>, options: EvalOptions, locked: Locked, record: Option<Record>) -> Self {
        Self::of(|sender| run(early, options, locked, record, sender))
    }

    /// The messages that this effect sends: `Listed` once and first, an `Ended` for each attr, `Finished` or `Fatal`
    /// last. An effect that cannot send any more has nobody left to tell, and should end.
    #[must_use]
    pub fn of<F>(effect: impl FnOnce(mpsc::Sender<EvalMsg>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, messages) = mpsc::channel(CHANNEL);
        let mut task = JoinSet::new();
        task.spawn(effect(sender));
        Self { messages, _task: task, over: false }
    }

    /// The next message; `None` after the last one. May be dropped and called again.
    pub async fn next(&mut self) -> Option<EvalMsg> {
        if self.over {
            return None;
        }
        let message = self.messages.recv().await;
        // Only a panic closes the channel without a last word.
        let message = message.unwrap_or_else(|| EvalMsg::Fatal(Error::new(Fault::Bug, "the evaluation broke off")));
        self.over = matches!(message, EvalMsg::Finished { .. } | EvalMsg::Fatal(_));
        Some(message)
    }
}

/// The reader has gone away: nobody wants to know.
pub(super) struct Gone;

/// Why an evaluation ended early.
pub(super) enum Stop {
    Gone,
    Fatal(Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

async fn run(
    early: Option<Early>,
    options: EvalOptions,
    locked: Locked,
    record: Option<Record>,
    sender: mpsc::Sender<EvalMsg>,
) {
    let last = match evaluate(early, options, locked, record, sender.clone()).await {
        Ok(record) => EvalMsg::Finished { record },
        Err(Stop::Fatal(error)) => EvalMsg::Fatal(error),
        Err(Stop::Gone) => return,
    };
    // If nobody listens any more there is nobody to tell.
    let _ = sender.send(last).await;
}

async fn evaluate(
    early: Option<Early>,
    options: EvalOptions,
    locked: Locked,
    record: Option<Record>,
    sender: mpsc::Sender<EvalMsg>,
) -> Result<Option<Box<Record>>, Stop> {
    let recordable = Record::may_hold(&locked, &options.flake);
    let mut record = record.filter(|_| recordable).unwrap_or_default();
    let shared = Arc::new(Shared {
        nix: options.nix.clone(),
        impure: options.flake.impure,
        masked: options.flake.masked,
        budget: options.budget,
        markers: budget::markers(options.workers, options.cores, &options.budget),
        roots: locked.roots(),
        locked: locked.clone(),
        rules: Rules::new(options.imports.clone(), &locked.store_dir),
    });

    let mut first = Seat::new(Arc::clone(&shared)).with(early);
    let selection = &options.selection;
    let (catalogue, left_out) = match record.list(selection) {
        Some(RecordedList { entries, left_out, warnings, own }) => {
            (Catalogue { entries, warnings, own, ..Catalogue::default() }, Some(left_out))
        }
        None => (list::catalogue(&mut first, selection, &sender).await?, None),
    };
    let Catalogue { entries: attrs, passed_over, warnings, own } = catalogue;
    send(&sender, EvalMsg::Listed(names(&attrs))).await?;
    for warning in &warnings {
        send(&sender, EvalMsg::Warning { attr: None, message: warning.as_str().into() }).await?;
    }
    if let Some(own) = own.clone() {
        send(&sender, EvalMsg::Own(own)).await?;
    }
    let queue = answer_what_is_known(&attrs, &record, &sender).await?;
    let known = left_out.is_some();
    for left_out in left_out.iter().flatten() {
        send(&sender, EvalMsg::LeftOut(left_out.clone())).await?;
    }
    let asked = queue.len();
    let work = Work {
        record: Mutex::new(std::mem::take(&mut record)),
        sender,
        store_dir: locked.store_dir.clone(),
        nar_hash: locked.nar_hash.as_str().into(),
        roots: locked.roots(),
        attrs,
    };
    let passed_over = (!known).then_some(passed_over);
    let counted = serve::serve(&options, &shared, first, &work, queue, passed_over).await?;
    if asked > 0 {
        flake::unchanged(&options.nix, &options.flake, &locked).await.map_err(flake::LockError::into_error)?;
    }
    if !recordable {
        return Ok(None);
    }
    let mut record = work.record.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(left_out) = counted {
        record.remember_list(selection, RecordedList { entries: work.attrs, left_out, warnings, own });
    }
    Ok(Some(Box::new(record)))
}

pub(super) async fn send(sender: &mpsc::Sender<EvalMsg>, message: EvalMsg) -> Result<(), Gone> {
    sender.send(message).await.map_err(|_| Gone)
}

pub(super) fn attr_id(index: usize) -> AttrId {
    AttrId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Asks whoever reads the messages to have a derivation built.
pub(super) async fn import(
    sender: &mpsc::Sender<EvalMsg>,
    attr: Option<AttrId>,
    drv: StorePath,
    outputs: Vec<String>,
) -> Result<oneshot::Receiver<Imported>, Gone> {
    let (reply, answer) = oneshot::channel();
    send(sender, EvalMsg::Import(Import { attr, drv, outputs, reply })).await?;
    Ok(answer)
}

/// Asks something that is about no attr, with all that has to be imported for it.
pub(super) async fn ask_with_imports(
    seat: &mut Seat,
    question: &Question,
    sender: &mpsc::Sender<EvalMsg>,
    warnings: &mut Vec<String>,
) -> Result<Result<Value, Failure>, Error> {
    // What is imported by now need not be looked for again.
    let mut asking = Asking::new(seat.mode());
    loop {
        let outcome = seat.ask_in(question, asking.mode()).await?;
        warnings.extend(outcome.warnings);
        match asking.tried(outcome.answer, outcome.need.as_ref(), outcome.started, seat.rules()) {
            Step::Over { answer, .. } => return Ok(answer),
            Step::Again { fresh: true } => seat.clear(),
            Step::Again { fresh: false } => {}
            Step::Import(drv, outputs) => {
                // Without a reader the failure is told to nobody.
                let result = match import(sender, None, drv, outputs).await {
                    Ok(reply) => reply.await.ok(),
                    Err(Gone) => None,
                };
                if let Err(failure) = asking.imported(result, seat.rules()) {
                    return Ok(Err(failure));
                }
            }
        }
    }
}

fn names(attrs: &[Entry]) -> Vec<Listed> {
    listed(attrs.iter().map(|entry| &entry.path))
}

/// Numbers and names of attrs: the last part, or the full path where two share it or where it says too little.
pub fn listed<'a>(paths: impl Iterator<Item = &'a AttrPath> + Clone) -> Vec<Listed> {
    let mut shared: BTreeMap<&str, u32> = BTreeMap::new();
    for path in paths.clone() {
        *shared.entry(path.last()).or_default() += 1;
    }
    let listed = paths.enumerate().map(|(index, path)| {
        let kind = path.kind();
        let own = match kind {
            Kind::NixosConfigurations | Kind::DarwinConfigurations | Kind::HomeConfigurations => 2,
            Kind::Packages | Kind::Checks | Kind::DevShells | Kind::Apps => 3,
            Kind::Formatter | Kind::HydraJobs | Kind::LegacyPackages | Kind::Other => 0,
        };
        let is_own = path.parts().len() == own && shared.get(path.last()) == Some(&1);
        let name = if is_own { path.last().to_owned() } else { path.to_string() };
        Listed { attr: attr_id(index), path: path.clone(), kind, name: name.into() }
    });
    listed.collect()
}

/// Tells what is known without asking; gives the rest.
async fn answer_what_is_known(
    attrs: &[Entry],
    record: &Record,
    sender: &mpsc::Sender<EvalMsg>,
) -> Result<Vec<usize>, Gone> {
    let mut queue = Vec::new();
    for (index, entry) in attrs.iter().enumerate() {
        let attr = attr_id(index);
        let known = record.answer(entry);
        let answer = match (entry.answer(), known) {
            (Some(answer), _) => answer,
            (None, Some(recorded)) => {
                for warning in &recorded.warnings {
                    send(sender, EvalMsg::Warning { attr: Some(attr), message: warning.as_str().into() }).await?;
                }
                recorded.answer()
            }
            (None, None) => {
                queue.push(index);
                continue;
            }
        };
        let recorded = known.is_some();
        send(sender, EvalMsg::Ended { attr, answer, recorded, cost: Cost::default(), ack: None }).await?;
    }
    Ok(queue)
}

/// The shape of an answer about a derivation; see `nix/eval/eval.nix`.
#[derive(Deserialize)]
struct Raw {
    drv: Option<String>,
    name: Option<String>,
    system: Option<String>,
    #[serde(default)]
    outputs: Vec<RawOutput>,
    #[serde(default)]
    wanted: Vec<String>,
    nothing: Option<String>,
    program: Option<String>,
    missing: Option<Value>,
    #[serde(default)]
    meta: Option<Meta>,
    written: Option<String>,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    path: Option<String>,
}

fn failed(class: Class, message: String) -> Answer {
    Answer::Failed(Failure::new(class, message))
}

/// From what an evaluator says to what it means. `roots` are the directories in which the flake's files may lie.
#[must_use]
pub fn read_answer(entry: &Entry, value: &Value, store_dir: &str, roots: &[String]) -> Answer {
    let raw = match Raw::deserialize(value) {
        Ok(raw) => raw,
        Err(error) => return failed(Class::Internal, format!("cannot read the evaluator's answer: {error}")),
    };
    if let Some(program) = raw.program.as_deref().filter(|program| !is_in(store_dir, program)) {
        return Answer::Finding(Failure::new(Class::Eval, format!("its program '{program}' is not in the store")));
    }
    if let Some(reason) = raw.nothing {
        return Answer::Nothing(reason.into());
    }
    if raw.missing.is_some() {
        return failed(Class::Eval, format!("attribute '{}' missing", entry.path));
    }
    let store_path = |text: &str| {
        let base = text.strip_prefix(store_dir)?.strip_prefix('/')?;
        StorePath::from_basename(base.as_bytes()).ok()
    };
    let Some(drv) = raw.drv.as_deref().and_then(store_path).filter(StorePath::is_derivation) else {
        return failed(Class::Eval, format!("its drvPath is no derivation in {store_dir}: {value}"));
    };
    // What is no store path is the placeholder of an output that is not known yet.
    let outputs: BTreeMap<String, Option<StorePath>> =
        raw.outputs.into_iter().map(|output| (output.name, output.path.as_deref().and_then(store_path))).collect();
    let wanted = match &entry.outputs {
        Some(asked) if asked.is_empty() => outputs.keys().cloned().collect(),
        Some(asked) => asked.clone(),
        None => raw.wanted,
    };
    if let Some(absent) = wanted.iter().find(|name| !outputs.is_empty() && !outputs.contains_key(*name)) {
        return failed(Class::Eval, format!("derivation '{store_dir}/{}' has no output '{absent}'", drv.to_basename()));
    }
    let name = raw.name.unwrap_or_else(|| drv.name().trim_end_matches(".drv").to_owned());
    let system = raw.system.map(System).or_else(|| list::system_of(&entry.path)).unwrap_or_else(|| "".into());
    let mut meta = raw.meta.unwrap_or_default();
    let relative = |position: String| message::relative(&position, roots);
    meta.position = meta.position.map(relative);
    // A function of another flake may have put the attrs together.
    let written = raw.written.map(relative).filter(|position| !is_in(store_dir, position));
    Answer::Drv(DrvAnswer { drv, name, system, wanted, outputs, program: raw.program, written, meta: Box::new(meta) })
}

/// Where an attr is written, if that is in the flake.
pub(super) fn written(value: &Value, roots: &[String]) -> Option<String> {
    let position = message::relative(value.get("written")?.as_str()?, roots);
    (!position.starts_with('/')).then_some(position)
}

/// Whether a path lies in a directory.
fn is_in(dir: &str, path: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// What Nix remarks on an attr that it does not refuse.
pub(super) fn remarks(value: &Value) -> Vec<String> {
    let remarks = value.get("warnings").and_then(Value::as_array);
    remarks.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
