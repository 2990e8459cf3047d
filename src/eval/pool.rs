//! The evaluation of one flake: lists the attrs, hands them to evaluators one at a time, and streams what comes out.
//! Decides how many evaluators there are and when one is replaced between attrs; does not decide what is done with an
//! answer.
//!
//! An evaluator holds temporary roots of the derivations that it instantiated. It therefore lives until whoever reads
//! the stream has acknowledged (dropped the [`Ack`] of) every derivation that it answered with. Only one that dies by
//! itself cannot wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::expr::Question;
use super::flake::{self, FlakeOptions, Locked};
use super::imports::{Asking, Imports, Mode, Rules, Step};
use super::list::{self, Catalogue, Entry, LeftOut};
use super::nix::Nix;
use super::record::Record;
use super::seat::{Seat, Shared};
use super::what::Selection;
use crate::error::{Error, Fault};
use crate::event::{Class, Evaluated, Failure, OutputPath, Text};
use crate::id::{AttrId, AttrPath, Kind, StorePath, System};

/// Messages that wait for the driver before evaluators have to.
const CHANNEL: usize = 256;
/// Attrs for which one more evaluator is worth its start.
const ATTRS_PER_WORKER: usize = 8;
/// Memory of one evaluator, in MiB, if nobody says.
pub const DEFAULT_MEMORY_MIB: u64 = 4096;
/// Memory for which one more evaluator is worth its start, in bytes: about what a NixOS configuration takes.
const MEMORY_PER_WORKER: u64 = 1 << 30;
/// How long counting what was left out may take.
const COUNTING: std::time::Duration = std::time::Duration::from_secs(1);

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
    /// `--eval-memory`: bytes that the evaluation may take. One evaluator may take them all in the middle of an attr,
    /// and is replaced after it; 0 is no limit.
    pub budget: u64,
    /// Who builds what attrs import from derivations.
    pub imports: Imports,
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
            },
            Self::Nothing(reason) => Evaluated::Nothing { reason: reason.clone() },
            Self::Failed(failure) => Evaluated::Failed(failure.clone()),
        }
    }
}

/// Dropped when the derivation of an answer has a root of its own.
#[derive(Debug)]
pub struct Ack {
    _held: oneshot::Sender<()>,
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
        Self::of(|sender| run(options, locked, record, sender))
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
struct Gone;

/// Why an evaluation ended early.
enum Stop {
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

/// What the evaluators of one evaluation share.
struct Work {
    attrs: Vec<Entry>,
    queue: Mutex<VecDeque<usize>>,
    record: Mutex<Record>,
    sender: mpsc::Sender<EvalMsg>,
    store_dir: String,
    nar_hash: Text,
}

async fn run(options: EvalOptions, locked: Locked, record: Option<Record>, sender: mpsc::Sender<EvalMsg>) {
    let last = match evaluate(options, locked, record, sender.clone()).await {
        Ok(record) => EvalMsg::Finished { record },
        Err(Stop::Fatal(error)) => EvalMsg::Fatal(error),
        Err(Stop::Gone) => return,
    };
    // If nobody listens any more there is nobody to tell.
    let _ = sender.send(last).await;
}

async fn evaluate(
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
        memory: share(&options),
        heap: options.budget,
        roots: locked.roots(),
        locked: locked.clone(),
        rules: Rules::new(options.imports.clone(), &locked.store_dir),
    });

    let mut first = Seat::new(Arc::clone(&shared));
    let selection = &options.selection;
    let (catalogue, left_out) = match record.list(selection) {
        Some((entries, left_out)) => (Catalogue { entries, ..Catalogue::default() }, Some(left_out)),
        None => (list::catalogue(&mut first, selection, &sender).await?, None),
    };
    let Catalogue { entries: attrs, passed_over, warnings } = catalogue;
    send(&sender, EvalMsg::Listed(names(&attrs))).await?;
    for warning in warnings {
        send(&sender, EvalMsg::Warning { attr: None, message: warning.into() }).await?;
    }
    let queue = answer_what_is_known(&attrs, &record, &sender).await?;
    let known = left_out.is_some();
    for left_out in left_out.iter().flatten() {
        send(&sender, EvalMsg::LeftOut(left_out.clone())).await?;
    }
    let asked = queue.len();
    let work = Work {
        queue: Mutex::new(queue),
        record: Mutex::new(std::mem::take(&mut record)),
        sender,
        store_dir: locked.store_dir.clone(),
        nar_hash: locked.nar_hash.as_str().into(),
        attrs,
    };
    let counted = serve_all(&options, &shared, first, &work, (!known).then_some(passed_over)).await?;
    if asked > 0 {
        flake::unchanged(&options.nix, &options.flake, &locked).await.map_err(flake::LockError::into_error)?;
    }
    if !recordable {
        return Ok(None);
    }
    let mut record = work.record.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(left_out) = counted {
        record.remember_list(selection, &work.attrs, &left_out);
    }
    Ok(Some(Box::new(record)))
}

async fn send(sender: &mpsc::Sender<EvalMsg>, message: EvalMsg) -> Result<(), Gone> {
    sender.send(message).await.map_err(|_| Gone)
}

fn attr_id(index: usize) -> AttrId {
    AttrId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Numbers and names of the attrs: the last part, or the full path where two share it or where it says too little.
fn names(attrs: &[Entry]) -> Vec<Listed> {
    let mut shared: BTreeMap<&str, u32> = BTreeMap::new();
    for entry in attrs {
        *shared.entry(entry.path.last()).or_default() += 1;
    }
    let listed = attrs.iter().enumerate().map(|(index, entry)| {
        let kind = entry.path.kind();
        let own = match kind {
            Kind::NixosConfigurations | Kind::DarwinConfigurations | Kind::HomeConfigurations => 2,
            Kind::Packages | Kind::Checks | Kind::DevShells | Kind::Apps => 3,
            Kind::Formatter | Kind::HydraJobs | Kind::LegacyPackages | Kind::Other => 0,
        };
        let is_own = entry.path.parts().len() == own && shared.get(entry.path.last()) == Some(&1);
        let name = if is_own { entry.path.last().to_owned() } else { entry.path.to_string() };
        Listed { attr: attr_id(index), path: entry.path.clone(), kind, name: name.into() }
    });
    listed.collect()
}

/// Tells what is known without asking; gives the rest.
async fn answer_what_is_known(
    attrs: &[Entry],
    record: &Record,
    sender: &mpsc::Sender<EvalMsg>,
) -> Result<VecDeque<usize>, Gone> {
    let mut queue = VecDeque::new();
    for (index, entry) in attrs.iter().enumerate() {
        let attr = attr_id(index);
        let known = record.answer(entry);
        let answer = match (&entry.failure, known) {
            (Some(failure), _) => Answer::Failed(failure.clone()),
            (None, Some(recorded)) => {
                for warning in &recorded.warnings {
                    send(sender, EvalMsg::Warning { attr: Some(attr), message: warning.as_str().into() }).await?;
                }
                recorded.answer()
            }
            (None, None) => {
                queue.push_back(index);
                continue;
            }
        };
        let recorded = known.is_some();
        send(sender, EvalMsg::Ended { attr, answer, recorded, ack: None }).await?;
    }
    Ok(queue)
}

/// Runs all evaluators until nothing is left to ask. Gives what was left out, if `passed_over` was to be counted and
/// there was time to.
async fn serve_all(
    options: &EvalOptions,
    shared: &Arc<Shared>,
    first: Seat,
    work: &Work,
    passed_over: Option<Vec<(Kind, System)>>,
) -> Result<Option<Vec<LeftOut>>, Stop> {
    let asked = work.queue.lock().unwrap_or_else(PoisonError::into_inner).len();
    if asked == 0 && passed_over.is_none() {
        return Ok(None);
    }
    let mut seats = FuturesUnordered::new();
    let mut first = Some(first);
    for number in 0..worker_count(options, asked) {
        let seat = first.take().unwrap_or_else(|| Seat::new(Arc::clone(shared)));
        seats.push(serve(number, seat, work));
    }
    let mut counted = None;
    let mut passed_over = passed_over;
    let mut idle = Vec::new();
    while let Some(served) = seats.next().await {
        let Served { mut seat, acks } = served?;
        // Whoever is idle first counts, while the others are still busy.
        if let Some(passed_over) = passed_over.take() {
            let counting = list::left_out(&mut seat, &options.selection, &passed_over);
            // Not knowing how much was left out fails nothing.
            if let Ok(Ok(left_out)) = tokio::time::timeout(COUNTING, counting).await {
                for left_out in &left_out {
                    send(&work.sender, EvalMsg::LeftOut(left_out.clone())).await?;
                }
                counted = Some(left_out);
            }
        }
        idle.push((seat, acks));
    }
    for (_seat, acks) in idle {
        wait_for(acks).await;
    }
    Ok(counted)
}

/// `min(cores, attrs / 8)` and as many as the memory is enough for, at least one, unless told otherwise.
fn worker_count(options: &EvalOptions, attrs: usize) -> u32 {
    let useful = u32::try_from(attrs.div_ceil(ATTRS_PER_WORKER)).unwrap_or(u32::MAX);
    let most = u32::try_from(attrs).unwrap_or(u32::MAX);
    options.workers.unwrap_or_else(|| most_workers(options).min(useful)).min(most).max(1)
}

/// Evaluators that there are cores and memory for.
fn most_workers(options: &EvalOptions) -> u32 {
    let fit = if options.budget == 0 { u64::MAX } else { options.budget / MEMORY_PER_WORKER };
    options.cores.min(u32::try_from(fit).unwrap_or(u32::MAX)).max(1)
}

/// Bytes that one evaluator may hold between two attrs. A quarter of the budget is for what comes and goes within one.
fn share(options: &EvalOptions) -> u64 {
    if options.memory_mib > 0 {
        return options.memory_mib << 20;
    }
    let most = DEFAULT_MEMORY_MIB << 20;
    if options.budget == 0 {
        return most;
    }
    let workers = options.workers.unwrap_or_else(|| most_workers(options)).max(1);
    (options.budget / 4 * 3 / u64::from(workers)).min(most)
}

/// Answers that the reader has not acknowledged yet.
type Acks = Vec<oneshot::Receiver<()>>;

async fn wait_for(acks: Acks) {
    for ack in acks {
        // The sender is never used, only dropped.
        let _ = ack.await;
    }
}

/// A seat with nothing left to do.
struct Served {
    seat: Seat,
    acks: Acks,
}

/// An attr that an evaluator goes on with, or begins.
struct Turn {
    index: usize,
    asking: Asking,
    /// What Nix has warned of so far.
    warnings: Vec<String>,
}

/// What came of a turn.
enum Ended {
    /// The attr is answered; `import`: it may not be remembered.
    Answered { turn: Turn, answer: Answer, import: bool },
    /// It is to be asked again.
    Again(Turn),
    /// It waits for an import.
    Waits(Turn, oneshot::Receiver<Imported>),
}

async fn serve(worker: u32, mut seat: Seat, work: &Work) -> Result<Served, Stop> {
    let mut acks: Acks = Vec::new();
    if seat.pid().is_some() {
        send(&work.sender, EvalMsg::WorkerReady { worker, nar_hash: work.nar_hash.clone() }).await?;
    }
    // Attrs that wait for an import, and those that no longer do.
    let mut waiting = FuturesUnordered::new();
    let mut back: VecDeque<Turn> = VecDeque::new();
    loop {
        let fresh = work.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let turn = if let Some(index) = fresh {
            send(&work.sender, EvalMsg::Started { attr: attr_id(index), worker }).await?;
            Turn { index, asking: Asking::new(Mode::Forbidden), warnings: Vec::new() }
        } else if let Some(turn) = back.pop_front() {
            turn
        } else if let Some((turn, result)) = waiting.next().await {
            match imported(turn, result, seat.rules()) {
                Ended::Answered { turn, answer, import } => answered(turn, answer, import, work, &mut acks).await?,
                Ended::Again(turn) | Ended::Waits(turn, _) => back.push_back(turn),
            }
            continue;
        } else {
            break;
        };
        if seat.is_other(turn.asking.mode()) {
            // What its process has instantiated is held by it alone until its answers are acknowledged.
            wait_for(std::mem::take(&mut acks)).await;
        }
        match ask(worker, &mut seat, turn, work).await? {
            Ended::Answered { turn, answer, import } => answered(turn, answer, import, work, &mut acks).await?,
            Ended::Again(turn) => back.push_front(turn),
            Ended::Waits(turn, reply) => waiting.push(async move { (turn, reply.await.ok()) }),
        }
        if let Some(bytes) = seat.outgrown() {
            wait_for(std::mem::take(&mut acks)).await;
            seat.clear();
            let reason = format!("an evaluator held {} MiB and was replaced", bytes >> 20).into();
            send(&work.sender, EvalMsg::WorkerReplaced { worker, reason }).await?;
        }
    }
    Ok(Served { seat, acks })
}

/// Asks for an attr, once.
async fn ask(worker: u32, seat: &mut Seat, mut turn: Turn, work: &Work) -> Result<Ended, Stop> {
    let (entry, attr) = (&work.attrs[turn.index], attr_id(turn.index));
    let outcome = seat.ask_in(&entry.question(), turn.asking.mode()).await?;
    for reason in &outcome.deaths {
        let reason = format!("an evaluator {reason}").into();
        send(&work.sender, EvalMsg::WorkerReplaced { worker, reason }).await?;
    }
    if outcome.started {
        send(&work.sender, EvalMsg::WorkerReady { worker, nar_hash: work.nar_hash.clone() }).await?;
    }
    for warning in outcome.warnings {
        // Each process that evaluates it warns anew.
        if !turn.warnings.contains(&warning) {
            send(&work.sender, EvalMsg::Warning { attr: Some(attr), message: warning.as_str().into() }).await?;
            turn.warnings.push(warning);
        }
    }
    Ok(match turn.asking.tried(outcome.answer, outcome.need.as_ref(), seat.rules()) {
        Step::Over { answer: Ok(value), import } => {
            let answer = read_answer(entry, &value, &work.store_dir);
            Ended::Answered { turn, answer, import }
        }
        Step::Over { answer: Err(failure), import } => {
            Ended::Answered { turn, answer: Answer::Failed(failure), import }
        }
        Step::Again => Ended::Again(turn),
        Step::Import(drv, outputs) => Ended::Waits(turn, import(&work.sender, Some(attr), drv, outputs).await?),
    })
}

/// Asks whoever reads the messages to have a derivation built.
async fn import(
    sender: &mpsc::Sender<EvalMsg>,
    attr: Option<AttrId>,
    drv: StorePath,
    outputs: Vec<String>,
) -> Result<oneshot::Receiver<Imported>, Gone> {
    let (reply, answer) = oneshot::channel();
    send(sender, EvalMsg::Import(Import { attr, drv, outputs, reply })).await?;
    Ok(answer)
}

/// What an attr waited for is there, or cannot be had.
fn imported(mut turn: Turn, result: Option<Imported>, rules: &Rules) -> Ended {
    match turn.asking.imported(result, rules) {
        Ok(()) => Ended::Again(turn),
        Err(failure) => Ended::Answered { turn, answer: Answer::Failed(failure), import: true },
    }
}

/// Asks something that is about no attr, with all that has to be imported for it. `Err` where nobody listens any more is
/// a failure to nobody.
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
        match asking.tried(outcome.answer, outcome.need.as_ref(), seat.rules()) {
            Step::Over { answer, .. } => return Ok(answer),
            Step::Again => {}
            Step::Import(drv, outputs) => {
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

/// Tells the answer to an attr.
async fn answered(turn: Turn, answer: Answer, import: bool, work: &Work, acks: &mut Acks) -> Result<(), Gone> {
    if !import {
        let mut known = work.record.lock().unwrap_or_else(PoisonError::into_inner);
        known.remember(&work.attrs[turn.index], &answer, turn.warnings);
    }
    let mut ack = None;
    if matches!(answer, Answer::Drv(_)) {
        let (held, released) = oneshot::channel();
        ack = Some(Ack { _held: held });
        acks.push(released);
    }
    send(&work.sender, EvalMsg::Ended { attr: attr_id(turn.index), answer, recorded: false, ack }).await?;
    acks.retain_mut(|ack| matches!(ack.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
    Ok(())
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
    missing: Option<Value>,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    path: Option<String>,
}

fn failed(class: Class, message: String) -> Answer {
    Answer::Failed(Failure { class, message: message.into(), position: None })
}

/// From what an evaluator says to what it means.
fn read_answer(entry: &Entry, value: &Value, store_dir: &str) -> Answer {
    let raw = match Raw::deserialize(value) {
        Ok(raw) => raw,
        Err(error) => return failed(Class::Internal, format!("cannot read the evaluator's answer: {error}")),
    };
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
    Answer::Drv(DrvAnswer { drv, name, system, wanted, outputs })
}
