//! The select loop: inputs in, actions out.
//!
//! One run is one `Driver`. It owns the state of every part (evaluation, planning, building, pushing), waits for the
//! next `Input`, hands it to the part that it is for, and then lets all parts take their `turn` until
//! nothing new comes of it. The parts never call each other; what one has to know of another goes through here.
//!
//! | file | part |
//! |---|---|
//! | `start` | opening the store, the record and the caches |
//! | `evaluate` | flake → answered attrs |
//! | `base`, `comparing`, `revision` | what answered attrs are compared with, and how they differ |
//! | `before` | what recorded runs of the base say of attrs that fail to build |
//! | `planning` | answered attrs → decisions, with the graph and the planner |
//! | `validity` | what the store has and holds of that |
//! | `importing` | what attrs import from derivations |
//! | `building`, `attempts`, `fetching` | the scheduler's actions |
//! | `farm`, `dialling`, `watch`, `asking` | the builders: dialled, watched, asked what they hold |
//! | `homecoming` | results that were built elsewhere |
//! | `pushing` | outputs → caches |
//! | `keeping` | roots on builders for what could not be pushed |
//! | `plan_file` | plans in files: written, and read in the place of an evaluation |
//! | `caches`, `trust` | which caches there are, and who fetches from which |
//! | `checking`, `quarantine` | what a check makes of an answer, and what may fail in it |
//! | `beside` | `nix flake check`, to hold against it |
//! | `answers`, `left_out` | located flake → answered attrs that are wanted, or left out |
//! | `attrs`, `endings` | which attr waits for which drv, and the final word on each |
//! | `bus` | the event stream |
//! | `tasks` | effects under way |
//! | `stopping` | whether the run goes on, and until when it pushes |
//! | `results`, `links` | the files that a run leaves |
//! | `sizing` | how big the closures are of what was built |
//! | `explaining` | why attrs differ from the base, in short |
//! | `notify` | who is told of failures and recoveries |
//! | `finish`, `exit` | the last words, and the exit code |
//! | `why` | a plan, and a closer look at what it found to be missing |
//! | `changed`, `sources` | what makes attrs differ from the base |
//! | `push`, `elsewhere` | the smaller loop of `drover push`: the pushing, and nothing before it |
//! | `replay` | `drover report --what-if`: a recorded run, played again by the scheduler |
//! | `upkeep` | `drover cache`: no run, only work on caches |

mod answers;
mod asking;
mod attempts;
mod attrs;
mod base;
mod before;
mod beside;
mod building;
mod bus;
mod caches;
mod changed;
mod checking;
pub mod clock;
mod comparing;
mod context;
mod dialling;
mod elsewhere;
mod endings;
mod evaluate;
mod exit;
mod explaining;
pub(crate) mod farm;
mod fetching;
mod finish;
pub mod history;
mod homecoming;
mod importing;
mod input;
mod keeping;
mod left_out;
mod links;
mod notify;
mod plan_file;
mod planning;
pub mod push;
mod pushing;
mod quarantine;
mod recall;
pub mod replay;
mod results;
mod revision;
mod signals;
#[cfg(test)]
mod simulation;
mod sizing;
mod source;
mod sources;
mod start;
mod stopping;
mod tasks;
pub mod telling;
mod trust;
pub mod upkeep;
mod validity;
mod watch;
pub mod why;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;

use crate::build::{Brought, News, NotBrought};
use crate::config::Settings;
use crate::error::{Error, Fault, Result};
use crate::eval::{Answer, Import};
use crate::event::{DrvOutcome, Event, Fact, Moment};
use crate::id::{AttemptId, AttrId, BuilderId, DrvId, RunId, StorePath};
use crate::record::RunDir;
use crate::report::summary::Summary;
use crate::sched::Input as SchedInput;
use crate::store::roots::Made;
use crate::ui::Ui;

use attrs::Attrs;
use before::OnBase;
use beside::Beside;
use building::Building;
use changed::BaseAgain;
use clock::Clock;
use comparing::Comparing;
use context::Context;
use endings::{Word, word_of_return};
use evaluate::{EvalInput, Evaluation};
use farm::{Farm, FarmInput, Heard};
use homecoming::{Homecoming, Returned};
use importing::Importing;
use input::Input;
use keeping::Keeping;
use left_out::LeftOutAttrs;
use planning::Planning;
use pushing::{Pushing, Why};
use quarantine::Quarantines;
use results::Results;
use signals::Signals;
use stopping::Stopping;

/// How often the screen is looked at.
const FRAME: Duration = Duration::from_millis(100);

/// Inputs that are handled before anything is done about them, at most.
const MOST_AT_ONCE: usize = 256;

/// How long the disk may take at the end to get what was learnt of caches.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// How long children are waited for at the end.
const LAST_CHILDREN: Duration = Duration::from_millis(500);

/// How far a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All the way.
    Run,
    /// The same of all that the flake offers, which is held against what `nix flake check` demands; little of it is built.
    Check,
    /// Only up to what would be done.
    Plan,
    /// The same, for a CI matrix of it.
    Matrix,
    /// The same, to say why.
    Why,
    /// Only up to what differs from the base.
    Affected,
}

impl Mode {
    /// Whether something is built.
    #[must_use]
    pub fn builds(self) -> bool {
        matches!(self, Self::Run | Self::Check)
    }
}

/// What a run is given.
pub struct Request {
    /// What to do.
    pub settings: Settings,
    /// How far to go.
    pub mode: Mode,
    /// Which run it is.
    pub run: RunId,
    /// When the process started.
    pub clock: Clock,
    /// The screen.
    pub ui: Ui,
    /// `NIX_DAEMON_SOCKET_PATH`.
    pub daemon_socket: Option<std::path::PathBuf>,
}

/// What a run leaves.
pub struct Finished {
    /// All that happened.
    pub events: Vec<Event>,
    /// What follows from it.
    pub summary: Box<Summary>,
    /// The exit code.
    pub exit: u8,
    /// Its record.
    pub dir: RunDir,
    /// Output paths of what was asked for, as far as they are known, in order.
    pub outputs: Vec<String>,
}

/// Does a run. An error is one that came before the run had begun.
pub async fn drive(request: Request) -> Result<Finished> {
    let mut driver = start::start(request).await?;
    driver.run().await;
    Ok(driver.finish().await)
}

/// One run. See the module's page.
pub(super) struct Driver {
    ctx: Context,
    mode: Mode,
    signals: Signals,
    news: mpsc::UnboundedReceiver<(AttemptId, News)>,
    imports: mpsc::UnboundedReceiver<Import>,
    evaluation: Evaluation,
    comparing: Comparing,
    /// The base, for `why`; `None` before it is looked at again.
    base_again: Option<BaseAgain>,
    on_base: OnBase,
    planning: Planning,
    building: Building,
    farm: Farm,
    farm_inputs: mpsc::UnboundedReceiver<(BuilderId, FarmInput)>,
    homecoming: Homecoming,
    /// Attrs of systems of which it is not known yet whether some builder builds for them.
    parked: Vec<(AttrId, Answer)>,
    importing: Importing,
    beside: Beside,
    pushing: Pushing,
    keeping: Keeping,
    attrs: Attrs,
    outcomes: BTreeMap<DrvId, DrvOutcome>,
    left_out: LeftOutAttrs,
    quarantines: Quarantines,
    stopping: Stopping,
    /// Outputs that wait for the caches that are read from.
    unpushed: Vec<(Vec<StorePath>, Why)>,
    results: Results,
}

impl Driver {
    async fn run(&mut self) {
        self.turn();
        while !self.is_over() {
            let input = self.next().await;
            self.handle_with_ready(input);
            self.turn();
            self.ctx.bus.settle();
        }
    }

    /// The one place that waits.
    async fn next(&mut self) -> Input {
        let frame = self.ctx.bus.in_future(FRAME);
        let wake = self.building.deadline().into_iter().chain(self.stopping.push_until()).fold(frame, Moment::min);
        let alarm = tokio::time::sleep_until(self.ctx.bus.instant(wake));
        tokio::select! {
            biased;
            level = self.signals.next() => Input::Stop(level),
            Some((attempt, news)) = self.news.recv() => Input::News(attempt, news),
            Some(import) = self.imports.recv() => Input::Import(import),
            Some((builder, input)) = self.farm_inputs.recv() => Input::Farm(builder, input),
            input = self.ctx.tasks.next() => input,
            message = self.evaluation.next() => Input::Eval(EvalInput::Message(message)),
            () = alarm => Input::Tick,
        }
    }

    /// Handles an input. Answers to what was asked, and attrs, are taken together as far as they are there: what
    /// follows from many of them is asked in one question.
    fn handle_with_ready(&mut self, mut input: Input) {
        for _ in 0..MOST_AT_ONCE {
            let more = input.is_of_planning();
            self.handle(input);
            if !more {
                return;
            }
            match self.next().now_or_never() {
                Some(Input::Tick) | None => return,
                Some(next) => input = next,
            }
        }
        self.handle(input);
    }

    /// Hands an input to the part that it is for.
    fn handle(&mut self, input: Input) {
        let ctx = &mut self.ctx;
        match input {
            Input::Eval(EvalInput::Located(Ok(located))) => {
                if !located.is_recorded() {
                    self.farm.expect(ctx, self.mode);
                }
                self.evaluation.tell(ctx, &located);
                self.begin(located);
            }
            Input::Eval(EvalInput::Located(Err(error))) | Input::Base(Err(error)) => {
                self.evaluation.tell_notes(ctx);
                let error = self.evaluation.of_file(error);
                self.fail(error);
            }
            Input::Base(Ok(found)) => self.found(found),
            Input::OnBase(before) => self.on_base.read(ctx, before),
            Input::BaseAgain(base) => self.base_again = Some(BaseAgain::Done(base)),
            Input::OnlyRevision(attrs) => self.only_revision(&attrs),
            Input::Eval(EvalInput::Held(acks)) => self.evaluation.held(ctx, acks),
            Input::Eval(EvalInput::Message(message)) => self.heard(message),
            Input::Eval(EvalInput::Shared(shared)) => self.evaluation.shared(ctx, shared),
            Input::Loaded(read) => self.planning.loaded(read),
            Input::Valid(Ok(answers)) => self.planning.valid(ctx, &mut self.farm, answers),
            Input::Valid(Err(failure)) => self.fail(Error::new(Fault::Unreachable, &*failure.message)),
            Input::CachesOpen(opened) => {
                self.planning.opened(ctx, opened);
                self.refuse();
                let waiting = std::mem::take(&mut self.unpushed);
                waiting.into_iter().for_each(|(outputs, why)| self.push(outputs, why));
            }
            Input::Facts(facts, rest) => {
                self.planning.answered(ctx, facts, rest);
                self.refuse();
            }
            Input::News(attempt, news) => self.building.news(ctx, attempt, news),
            Input::Prepared(attempt, brought) => {
                let suspects = brought.as_ref().map_or_else(|not| not.suspects.clone(), |_| Vec::new());
                let suspect = self.building.prepared(ctx, &mut self.planning, attempt, brought);
                self.suspect(suspect);
                suspects.into_iter().for_each(|builder| self.suspect(Some(builder)));
            }
            Input::AttemptEnded(attempt, end, tail) => {
                let suspect = self.building.ended(ctx, attempt, end, tail);
                self.suspect(suspect);
            }
            Input::Farm(builder, input) => self.farm_heard(builder, input),
            Input::BuilderAnswered(builder, paths, valid) => {
                self.planning.builder_answered(ctx, builder, &paths, valid.as_deref());
            }
            Input::Sized(drv, Made { nar_size, signed }) => {
                ctx.bus.emit(Fact::DrvSized { drv, nar_size });
                self.building.tell(ctx, SchedInput::Sized { drv, bytes: nar_size, signed });
            }
            Input::Returned(drv, paths, brought) => self.returned(drv, &paths, brought),
            Input::NixChecked(said) => self.beside.ended(ctx, said),
            Input::Kept(kept) => self.keeping.kept(ctx, kept),
            Input::Fetched(drv, result) => self.building.fetched(ctx, &self.planning, drv, result),
            Input::Import(import) => self.importing.begin(ctx, &mut self.planning, import),
            Input::Imported(number, result) => self.importing.copied(ctx, number, result),
            Input::Push(cache, input) => self.pushing.handle(ctx, cache, input),
            Input::Linked(made) => {
                self.results = Results::Done;
                made.unwrap_or_else(|error| self.stopping.fail(error));
            }
            Input::Written(written) => {
                self.results = Results::Done;
                match written {
                    Ok(fact) => ctx.bus.emit(fact),
                    Err(error) => self.stopping.fail(error),
                }
            }
            Input::Idle => {}
            Input::Stop(level) => self.stop(level),
            Input::Tick => {
                self.comparing.tick(ctx);
                caches::tell_repeats_now_and_then(ctx);
                self.building.tell(ctx, SchedInput::Tick);
            }
            Input::Broken(what) => {
                // Whatever waits for that part would wait for ever.
                self.fail(Error::new(Fault::Bug, format!("a part of drover broke: {what}")));
                self.wind_down(2);
            }
        }
    }

    /// An attempt ended because its builder is gone, or seems to be.
    fn suspect(&mut self, builder: Option<BuilderId>) {
        if let Some(builder) = builder
            && let Some(input) = self.farm.suspect(&mut self.ctx, builder)
        {
            self.building.tell(&self.ctx, input);
        }
    }

    /// Something happened to a builder.
    fn farm_heard(&mut self, builder: BuilderId, input: FarmInput) {
        let Heard { mut inputs, up, lost } = self.farm.handle(&mut self.ctx, builder, input);
        if let Some(failure) = lost {
            let running = self.building.running_on(builder);
            inputs = self.farm.lose(&mut self.ctx, builder, failure.clone(), running);
            // First nothing more starts there, then what is there ends.
            inputs.drain(..).for_each(|input| self.building.tell(&self.ctx, input));
            self.building.lose(&mut self.ctx, builder, &failure);
        }
        inputs.into_iter().for_each(|input| self.building.tell(&self.ctx, input));
        if !self.farm.is_dialling(builder) {
            self.planning.builder_heard(&mut self.ctx, builder, up);
        }
        if self.farm.dialling().is_empty() {
            for (attr, answer) in std::mem::take(&mut self.parked) {
                self.answered(attr, answer);
            }
            if self.evaluation.is_over() {
                self.left_out.tell(&mut self.ctx.bus);
            }
        }
    }

    /// Results have come into the local store, or not.
    fn returned(&mut self, drv: DrvId, paths: &[StorePath], brought: std::result::Result<Brought, NotBrought>) {
        let returned = self.homecoming.returned(&mut self.ctx, &self.planning, (drv, paths), brought);
        let Some(Returned { attrs, failure, suspects }) = returned else { return };
        suspects.into_iter().for_each(|builder| self.suspect(Some(builder)));
        // What only a builder had that has gone is made again.
        let again = failure.is_some() && self.building.make_again(&self.ctx, drv);
        if again {
            self.outcomes.remove(&drv);
        }
        for (attr, status) in attrs {
            if again {
                self.attrs.wait_for(attr, drv);
                continue;
            }
            let Word { status, reason, root } = word_of_return(status, failure.as_ref());
            self.end_attr(attr, status, reason, root);
        }
    }

    /// Lets every part act until nothing new comes of it.
    fn turn(&mut self) {
        loop {
            let decisions = self.planning.turn(&mut self.ctx);
            let ended = self.building.turn(&mut self.ctx, &mut self.planning);
            if decisions.is_empty() && ended.is_empty() {
                break;
            }
            decisions.into_iter().for_each(|decision| self.decided(decision));
            ended.into_iter().for_each(|ended| self.drv_ended(ended));
        }
        if self.importing.is_undecided()
            && let Some(cycle) = self.planning.cycle()
        {
            self.importing.give_up(&mut self.ctx, &format!("derivations that need each other: {cycle}"));
        }
        self.close_stages();
    }

    /// Ends each stage as soon as nothing more can come from the ones before.
    fn close_stages(&mut self) {
        if !self.stopping.is_asked() || self.building.is_done() {
            self.stopping.end_late(&mut self.ctx, &mut self.pushing);
        }
        let answered = self.evaluation.is_over() && self.parked.is_empty();
        let compared = answered && self.comparing.is_over() && self.planning.is_idle();
        let planned = compared && !self.stopping.is_asked() && self.is_base_there() && self.planning.is_idle();
        if let Some(cycle) = self.planning.cycle().filter(|_| planned && !self.stopping.is_asked()) {
            self.fail(Error::new(Fault::Unreachable, format!("derivations that need each other: {cycle}")));
        }
        if planned || self.stopping.is_asked() {
            self.planning.end(&mut self.ctx, &self.building);
            self.building.close(&self.ctx);
        }
        if !self.building.is_done() || !self.homecoming.is_done() && !self.stopping.is_asked() {
            return;
        }
        self.building.end(&mut self.ctx);
        if !self.stopping.is_asked() {
            self.beside.begin(&mut self.ctx, &self.evaluation);
        }
        if self.unpushed.is_empty() {
            self.pushing.close(&mut self.ctx);
        }
        if self.pushing.is_done() {
            self.pushing.end(&mut self.ctx);
            self.keeping.begin(&mut self.ctx, &self.pushing, Some(&self.farm));
            self.leave_results();
        }
    }

    fn is_over(&self) -> bool {
        let home = self.homecoming.is_done() || self.stopping.is_asked();
        let pushed = self.pushing.is_done() && self.keeping.is_done();
        let rest = self.results == Results::Done && !self.evaluation.is_sharing();
        let rest = rest && self.beside.is_done() && self.on_base.is_done();
        let over = self.building.is_done() && home && pushed && (rest || self.stopping.is_asked());
        self.stopping.is_now() || over
    }

    /// Outputs are valid in the store: they go to every cache that is pushed to, with what they refer to and no cache
    /// that is read from has. Which those are is known once these are open.
    fn push(&mut self, outputs: Vec<StorePath>, why: Why) {
        if !self.pushing.is_wanted() || self.stopping.is_now() {
            return;
        }
        match self.planning.caches(&mut self.ctx) {
            Some(upstream) => self.pushing.add(&mut self.ctx, &outputs, why, &upstream),
            None => self.unpushed.push((outputs, why)),
        }
    }

    /// The files that a run leaves where it was told to, once.
    fn leave_results(&mut self) {
        if self.results != Results::NotYet {
            return;
        }
        self.results = match self.mode {
            Mode::Run | Mode::Check => {
                let outputs: Vec<_> = self.attrs.there().into_iter().map(|attr| self.outputs_of(attr)).collect();
                Results::link(&mut self.ctx, &outputs)
            }
            // Only a whole plan is of use.
            Mode::Plan | Mode::Matrix if !self.stopping.is_asked() && self.stopping.error().is_none() => {
                let caches = self.planning.open_caches().map(|caches| caches.to_vec()).unwrap_or_default();
                Results::write_plan(&mut self.ctx, caches)
            }
            Mode::Plan | Mode::Matrix | Mode::Why | Mode::Affected => Results::Done,
        };
    }

    /// Somebody wants to stop.
    fn stop(&mut self, level: u8) {
        self.ctx.bus.emit(Fact::Cancelled { level });
        self.wind_down(level);
    }

    /// Ends where a cache gives no answer and all have to.
    fn refuse(&mut self) {
        if let Some(error) = self.planning.take_refusal() {
            self.fail(error);
        }
    }

    /// The run cannot go on.
    fn fail(&mut self, error: Error) {
        self.stopping.fail(error);
        self.wind_down(1);
    }

    /// Starts nothing new; what is built is still pushed for a moment.
    fn wind_down(&mut self, level: u8) {
        self.stopping.wind_down(&self.ctx.bus, level);
        self.evaluation.stop(&mut self.ctx);
        self.building.tell(&self.ctx, SchedInput::Cancel(self.stopping.level()));
        if self.stopping.is_now() {
            self.pushing.stop(&mut self.ctx);
        }
    }
}
