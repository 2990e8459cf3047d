//! Has the attrs of an evaluation evaluated: does what [`Crew`] decides, and tells it what came of it. The one place
//! that samples what evaluators hold.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::budget::{self, Need};
use super::crew::{Crew, Do, Sample, Why};
use super::expr::Question;
use super::imports::{Asking, Mode, Rules, Step};
use super::list::{self, Entry, LeftOut};
use super::memory::{Cost, Gauge};
use super::pool::{self, Ack, Answer, EvalMsg, EvalOptions, Gone, Imported, Stop, attr_id, send};
use super::queue::{self, Expected};
use super::record::Record;
use super::seat::{Seat, Shared};
use super::what::Selection;
use crate::event::{Class, Failure, Text};
use crate::id::{Kind, System};

/// How often memory is sampled while attrs are in flight.
const SAMPLE: Duration = Duration::from_millis(50);
/// An evaluator that has answered all attrs within this time needs nobody beside it: another one is not there before. It
/// is waited for where nothing is known that takes longer.
const START: Duration = Duration::from_millis(80);
/// How many attrs an evaluator is told of ahead.
const AHEAD: usize = 32;
/// Attrs that take less, in seconds, are asked for together: to ask for one takes 0.3 ms.
const QUICK: f64 = 0.02;
/// How long counting what was left out may take: milliseconds, if nobody else wants the processors.
const COUNTING: Duration = Duration::from_secs(5);

/// What the evaluators of one evaluation share.
pub(super) struct Work {
    pub(super) attrs: Vec<Entry>,
    pub(super) record: Mutex<Record>,
    pub(super) sender: mpsc::Sender<EvalMsg>,
    pub(super) store_dir: String,
    /// Where the flake's files may lie.
    pub(super) roots: Vec<String>,
    pub(super) nar_hash: Text,
}

/// Kinds and systems that were passed over and are to be counted.
type PassedOver = Vec<(Kind, System)>;

/// One evaluator and what is known of it while nothing is asked of it.
struct Place {
    seat: Seat,
    /// Answers that the reader has not acknowledged yet.
    acks: Vec<oneshot::Receiver<()>>,
}

/// How far an attr is that is not answered yet.
struct Held {
    asking: Asking,
    /// What Nix has warned of so far, and what the flake has said.
    warnings: Vec<String>,
    traces: Vec<String>,
}

/// What came of something that [`Crew`] wanted.
enum Came {
    /// The attr is answered, and took so much.
    Answered(Cost),
    /// The attr waits for an import, or is to be asked again at once.
    Waits(usize, Held, Option<oneshot::Receiver<Imported>>),
    /// The process was killed in the middle of it.
    Stopped(usize, Held),
    /// The process has ended; perhaps it counted before.
    Ended(Option<Vec<LeftOut>>),
}

/// What comes of a wait: the attr, if it is to be asked again.
type Wait<'a> = Pin<Box<dyn Future<Output = Result<Option<(usize, Held)>, Stop>> + Send + 'a>>;

type Effect<'a> = Pin<Box<dyn Future<Output = Result<(usize, Place, Came), Stop>> + Send + 'a>>;

/// All evaluators, by number. A place is taken while something is asked of it.
struct Service<'a> {
    work: &'a Work,
    selection: &'a Selection,
    expected: &'a Expected,
    places: Vec<Option<Place>>,
    gauges: Vec<Arc<Gauge>>,
    /// Dropped to kill the evaluator in the middle of its attr.
    stops: Vec<Option<oneshot::Sender<()>>>,
    effects: FuturesUnordered<Effect<'a>>,
    /// Attrs that have been begun and are not in flight.
    held: BTreeMap<usize, Held>,
    waits: FuturesUnordered<Wait<'a>>,
    rules: &'a Rules,
    /// How attrs are asked first.
    mode: Mode,
    passed_over: Option<PassedOver>,
}

/// Runs all evaluators until nothing is left to ask. Gives what was left out, if `passed_over` was to be counted and
/// there was time to.
pub(super) async fn serve(
    options: &EvalOptions,
    shared: &Arc<Shared>,
    first: Seat,
    work: &Work,
    asked: Vec<usize>,
    passed_over: Option<PassedOver>,
) -> Result<Option<Vec<LeftOut>>, Stop> {
    if asked.is_empty() && passed_over.is_none() {
        return Ok(None);
    }
    let expected = |attr: usize| options.expected.seconds(&work.attrs.get(attr)?.path);
    let fails = |attr: usize| work.attrs.get(attr).is_some_and(|entry| options.expected.fails(&entry.path));
    let known: Vec<f64> = asked.iter().filter_map(|&attr| expected(attr)).collect();
    let need = Need {
        workers: options.workers,
        cores: options.cores,
        attrs: asked.len(),
        unknown: asked.len() - known.len(),
        seconds: known.iter().sum(),
    };
    let workers = budget::worker_count(&need, &options.budget);
    let share = budget::share(options.memory_mib, options.workers, options.cores, &options.budget);
    let queue = queue::order(asked, expected, fails);

    // Where the attrs cannot be listed without imports, none of them can be evaluated without.
    let mode = first.mode();
    let started = first.pid().is_some();
    if started {
        ready(work, 0).await?;
    }
    let more = (1..workers).map(|_| Seat::new(Arc::clone(shared)));
    let seats: Vec<Seat> = std::iter::once(first).chain(more).collect();
    let crew = Crew::new(workers, started, queue, options.budget.bytes, share);
    let quick = need.seconds < START.as_secs_f64();
    let crew = if started && quick && options.workers.is_none() { crew.patient() } else { crew };
    let service = Service {
        work,
        selection: &options.selection,
        expected: &options.expected,
        gauges: seats.iter().map(|seat| Arc::clone(seat.gauge())).collect(),
        stops: seats.iter().map(|_| None).collect(),
        places: seats.into_iter().map(|seat| Some(Place { seat, acks: Vec::new() })).collect(),
        effects: FuturesUnordered::new(),
        held: BTreeMap::new(),
        waits: FuturesUnordered::new(),
        rules: &shared.rules,
        mode,
        passed_over,
    };
    service.run(crew).await
}

impl Service<'_> {
    async fn run(mut self, mut crew: Crew) -> Result<Option<Vec<LeftOut>>, Stop> {
        let mut tick = tokio::time::interval(SAMPLE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut start = pin!(tokio::time::sleep(START));
        let mut counted = None;
        loop {
            for what in crew.next() {
                self.begin(what, &crew);
            }
            if self.effects.is_empty() && self.waits.is_empty() {
                if self.passed_over.is_none() {
                    return Ok(counted);
                }
                // Nobody was idle with a process.
                self.begin(Do::End { worker: 0, why: Why::Over }, &crew);
            }
            tokio::select! {
                Some(came) = self.effects.next() => {
                    let (worker, place, came) = came?;
                    self.stops[worker] = None;
                    let held = place.seat.pid().map(|_| self.gauges[worker].now());
                    match came {
                        Came::Answered(cost) => crew.answered(worker, held, cost.grown.unwrap_or(0)),
                        Came::Waits(attr, turn, reply) => {
                            crew.waits(worker, held);
                            self.wait(attr, turn, reply);
                        }
                        Came::Stopped(attr, turn) => {
                            self.held.insert(attr, turn);
                            crew.stopped(worker);
                        }
                        Came::Ended(left_out) => {
                            counted = counted.or(left_out);
                            crew.ended(worker);
                        }
                    }
                    self.places[worker] = Some(place);
                }
                Some(back) = self.waits.next() => {
                    let back = back?;
                    crew.returned(back.as_ref().map(|(attr, _)| *attr));
                    self.held.extend(back);
                }
                () = &mut start, if crew.is_patient() => crew.hurry(),
                _ = tick.tick(), if crew.is_busy() => crew.sampled(&self.samples()),
            }
        }
    }

    /// Waits for an import. Without one, the attr is asked again at once.
    fn wait(&self, attr: usize, mut held: Held, reply: Option<oneshot::Receiver<Imported>>) {
        let (work, rules) = (self.work, self.rules);
        self.waits.push(Box::pin(async move {
            let imported = match reply {
                Some(reply) => held.asking.imported(reply.await.ok(), rules),
                None => Ok(()),
            };
            let Err(failure) = imported else { return Ok(Some((attr, held))) };
            let (answer, cost, attr) = (Answer::Failed(failure), Cost::default(), attr_id(attr));
            send(&work.sender, EvalMsg::Ended { attr, answer, recorded: false, cost, ack: None }).await?;
            Ok(None)
        }));
    }

    /// What all evaluators hold now.
    fn samples(&self) -> Vec<Sample> {
        let gauges = self.gauges.iter().enumerate();
        let sample = |(worker, gauge): (usize, &Arc<Gauge>)| {
            let held = gauge.now();
            Sample { worker, held, grown: gauge.cost().grown.unwrap_or(0) }
        };
        gauges.map(sample).collect()
    }

    /// What a lone evaluator will be asked after this, as far as it is known to be quick. Of several nobody knows who will.
    fn ahead(&self, attr: usize, crew: &Crew) -> Vec<Question> {
        if self.places.len() > 1 || !self.is_quick(attr) {
            return Vec::new();
        }
        let attrs = crew.queue().take_while(|attr| self.is_quick(*attr)).take(AHEAD);
        attrs.filter_map(|attr| self.work.attrs.get(attr)).map(Entry::question).collect()
    }

    /// Whether an attr took next to nothing before, and did not fail.
    fn is_quick(&self, attr: usize) -> bool {
        let Some(entry) = self.work.attrs.get(attr).filter(|_| !self.held.contains_key(&attr)) else { return false };
        let known = self.expected.seconds(&entry.path).is_some_and(|seconds| seconds < QUICK);
        known && !self.expected.fails(&entry.path)
    }

    fn begin(&mut self, what: Do, crew: &Crew) {
        match what {
            Do::Stop { worker } => self.stops[worker] = None,
            Do::Ask { worker, attr, alone } => {
                let (Some(mut place), Some(entry)) = (self.places[worker].take(), self.work.attrs.get(attr)) else {
                    return;
                };
                let (stop, stopped) = oneshot::channel();
                self.stops[worker] = Some(stop);
                let held = self.held.remove(&attr);
                let again = held.is_some();
                let held = held.unwrap_or_else(|| Held {
                    asking: Asking::new(self.mode),
                    warnings: Vec::new(),
                    traces: Vec::new(),
                });
                if !again && !alone {
                    place.seat.expect(self.ahead(attr, crew));
                }
                let turn = Turn { work: self.work, worker, attr, entry, alone, held, again };
                self.effects.push(Box::pin(turn.run(place, stopped)));
            }
            Do::End { worker, why } => {
                let Some(place) = self.places[worker].take() else { return };
                let count = if matches!(why, Why::Over | Why::Alone) { self.passed_over.take() } else { None };
                self.effects.push(Box::pin(end(self.work, worker, place, why, self.selection, count)));
            }
        }
    }
}

async fn ready(work: &Work, worker: u32) -> Result<(), Gone> {
    send(&work.sender, EvalMsg::WorkerReady { worker, nar_hash: work.nar_hash.clone() }).await
}

async fn replaced(work: &Work, worker: usize, reason: String) -> Result<(), Gone> {
    send(&work.sender, EvalMsg::WorkerReplaced { worker: number(worker), reason: reason.into() }).await
}

/// As messages have it.
fn number(worker: usize) -> u32 {
    u32::try_from(worker).unwrap_or(u32::MAX)
}

/// One attr at one evaluator.
struct Turn<'a> {
    work: &'a Work,
    worker: usize,
    attr: usize,
    entry: &'a Entry,
    /// It is its second try.
    alone: bool,
    held: Held,
    /// It has been begun before.
    again: bool,
}

impl Turn<'_> {
    async fn run(mut self, mut place: Place, stopped: oneshot::Receiver<()>) -> Result<(usize, Place, Came), Stop> {
        let Self { work, worker, entry, .. } = self;
        let attr = attr_id(self.attr);
        // One that waited for an import goes on; one that was killed begins anew.
        if !self.again || self.alone {
            send(&work.sender, EvalMsg::Started { attr, worker: number(worker) }).await?;
        }
        let (question, mode) = (entry.question(), self.held.asking.mode());
        if place.seat.is_other(mode) {
            // What its process has instantiated is held by it alone until its answers are acknowledged.
            acknowledged(&mut place).await;
            place.seat.end().await;
        }
        let outcome = tokio::select! {
            outcome = place.seat.ask_in(&question, mode) => Some(outcome?),
            _ = stopped => None,
        };
        let Some(outcome) = outcome else { return self.killed(place).await };
        for reason in &outcome.deaths {
            replaced(work, worker, format!("an evaluator {reason}")).await?;
        }
        if outcome.started {
            ready(work, number(worker)).await?;
        }
        // Each process that evaluates it says so anew.
        for message in new(outcome.traces, &mut self.held.traces) {
            send(&work.sender, EvalMsg::Trace { attr, message: message.into() }).await?;
        }
        for message in new(outcome.warnings, &mut self.held.warnings) {
            send(&work.sender, EvalMsg::Warning { attr: Some(attr), message: message.into() }).await?;
        }
        let rules = place.seat.rules();
        // Where imports are not allowed, what asks for one has failed.
        let need = outcome.need.as_ref().filter(|_| !entry.check.is_some_and(|check| check.no_imports));
        let (answer, import) = match self.held.asking.tried(outcome.answer, need, outcome.started, rules) {
            Step::Over { answer: Ok(value), import } => {
                for message in new(pool::remarks(&value), &mut self.held.warnings) {
                    send(&work.sender, EvalMsg::Warning { attr: Some(attr), message: message.into() }).await?;
                }
                (pool::read_answer(entry, &value, &work.store_dir, &work.roots), import)
            }
            Step::Over { answer: Err(failure), import } => (Answer::Failed(failure), import),
            Step::Again { fresh } => {
                if fresh {
                    acknowledged(&mut place).await;
                    place.seat.end().await;
                }
                return Ok((worker, place, Came::Waits(self.attr, self.held, None)));
            }
            Step::Import(drv, outputs) => {
                let reply = pool::import(&work.sender, Some(attr), drv, outputs).await?;
                return Ok((worker, place, Came::Waits(self.attr, self.held, Some(reply))));
            }
        };
        let answer = match answer {
            Answer::Failed(failure) if failure.class == Class::Eval => whose(entry, &mut place, failure, mode).await?,
            answer => answer,
        };
        let answer = placed(entry, &mut place, answer, mode).await?;
        if !import {
            let mut record = work.record.lock().unwrap_or_else(PoisonError::into_inner);
            record.remember(entry, &answer, self.held.warnings);
        }
        let mut ack = None;
        if matches!(answer, Answer::Drv(_)) {
            let (held, released) = oneshot::channel();
            ack = Some(Ack { _held: held });
            place.acks.push(released);
        }
        let cost = outcome.cost;
        send(&work.sender, EvalMsg::Ended { attr, answer, recorded: false, cost, ack }).await?;
        place.acks.retain_mut(|ack| matches!(ack.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        Ok((worker, place, Came::Answered(cost)))
    }

    /// The evaluators together are over the budget, and this one is to go.
    async fn killed(self, mut place: Place) -> Result<(usize, Place, Came), Stop> {
        let Self { work, worker, entry, alone, .. } = self;
        let cost = place.seat.gauge().cost();
        place.seat.end().await;
        // Their evaluator is gone; there is nothing to wait for.
        place.acks.clear();
        let held = cost.peak.unwrap_or(0) >> 20;
        if alone {
            let reason = format!("an evaluator held {held} MiB in the middle of '{}' and was killed", entry.path);
            replaced(work, worker, reason).await?;
            let answer = Answer::Failed(place.seat.exhausted());
            let attr = attr_id(self.attr);
            send(&work.sender, EvalMsg::Ended { attr, answer, recorded: false, cost, ack: None }).await?;
        } else {
            let reason = format!(
                "an evaluator held {held} MiB in the middle of '{}' and was killed; it is tried again alone",
                entry.path
            );
            replaced(work, worker, reason).await?;
        }
        Ok((worker, place, Came::Stopped(self.attr, self.held)))
    }
}

/// Whose failure it is: Nix's own, if what it demands of an attr that is checked fails as well.
async fn whose(entry: &Entry, place: &mut Place, failure: Failure, mode: Mode) -> Result<Answer, Stop> {
    if entry.check.is_some_and(|check| check.beyond) {
        return Ok(Answer::Finding(failure));
    }
    let Some(demand) = entry.demand() else { return Ok(Answer::Failed(failure)) };
    let outcome = place.seat.ask_in(&demand, mode).await?;
    Ok(match outcome.answer {
        Ok(value) if value.get("missing").is_none() => Answer::Finding(failure),
        Err(of_nix) if outcome.need.is_none() => Answer::Failed(of_nix),
        Ok(_) | Err(_) => Answer::Failed(failure),
    })
}

/// What is wrong with an attr that is checked is said of its place in the flake, where Nix names none: drover's own rules
/// are not in the flake.
async fn placed(entry: &Entry, place: &mut Place, answer: Answer, mode: Mode) -> Result<Answer, Stop> {
    let (Answer::Failed(failure) | Answer::Finding(failure)) = &answer else { return Ok(answer) };
    let is_asked = entry.check.is_some() && failure.class == Class::Eval && failure.position.is_none();
    // It is not worth a new process.
    if !is_asked || place.seat.pid().is_none() || place.seat.is_other(mode) {
        return Ok(answer);
    }
    let outcome = place.seat.ask_in(&entry.place(), mode).await?;
    let position = outcome.answer.ok().and_then(|value| pool::written(&value, &place.seat.shared().roots));
    let with = |failure| Failure { position: position.map(Into::into), ..failure };
    Ok(match answer {
        Answer::Failed(failure) => Answer::Failed(with(failure)),
        Answer::Finding(failure) => Answer::Finding(with(failure)),
        answer => answer,
    })
}

/// Those that were not there before, which they are from now on.
fn new(said: Vec<String>, before: &mut Vec<String>) -> Vec<String> {
    let new: Vec<String> = said.into_iter().filter(|text| !before.contains(text)).collect();
    before.extend(new.iter().cloned());
    new
}

/// Waits until the reader has acknowledged all answers.
async fn acknowledged(place: &mut Place) {
    for ack in std::mem::take(&mut place.acks) {
        // The sender is never used, only dropped.
        let _ = ack.await;
    }
}

/// Ends the process of an evaluator once its answers are acknowledged. With `count`, it counts what was passed over
/// before.
async fn end(
    work: &Work,
    worker: usize,
    mut place: Place,
    why: Why,
    selection: &Selection,
    count: Option<PassedOver>,
) -> Result<(usize, Place, Came), Stop> {
    let mut counted = None;
    if let Some(passed_over) = count {
        let counting = list::left_out(&mut place.seat, selection, &passed_over);
        // Not knowing how much was left out fails nothing.
        if let Ok(Ok(left_out)) = tokio::time::timeout(COUNTING, counting).await {
            for left_out in &left_out {
                send(&work.sender, EvalMsg::LeftOut(left_out.clone())).await?;
            }
            counted = Some(left_out);
        }
    }
    acknowledged(&mut place).await;
    match why {
        // It takes the system some milliseconds to free its memory, and nobody needs that any more.
        Why::Over => place.seat.clear(),
        _ => place.seat.end().await,
    }
    match why {
        Why::Over | Why::Alone => {}
        Why::Share(held) => {
            replaced(work, worker, format!("an evaluator held {} MiB and was replaced", held >> 20)).await?;
        }
        Why::Room(held) => {
            let reason = format!("an idle evaluator held {} MiB that others need and was replaced", held >> 20);
            replaced(work, worker, reason).await?;
        }
    }
    Ok((worker, place, Came::Ended(counted)))
}
