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
//! | `planning` | answered attrs → decisions, with the graph and the planner |
//! | `importing` | what attrs import from derivations |
//! | `building`, `attempts`, `fetching` | the scheduler's actions |
//! | `farm`, `dialling`, `watch`, `asking` | the builders: dialled, watched, asked what they hold |
//! | `homecoming` | results that were built elsewhere |
//! | `pushing` | outputs → caches |
//! | `keeping` | roots on builders for what could not be pushed |
//! | `plan_file` | plans in files: written, and read in the place of an evaluation |
//! | `caches`, `trust` | which caches there are, and who fetches from which |
//! | `attrs` | which attr waits for which drv |
//! | `bus` | the event stream |
//! | `tasks` | effects under way |
//! | `exit` | the exit code |
//! | `why` | a plan, and a closer look at what it found to be missing |
//! | `changed`, `sources` | what makes attrs differ from the base |
//! | `push`, `elsewhere` | the smaller loop of `drover push`: the pushing, and nothing before it |
//! | `upkeep` | `drover cache`: no run, only work on caches |

mod asking;
mod attempts;
mod attrs;
mod base;
mod building;
mod bus;
mod caches;
mod changed;
pub mod clock;
mod comparing;
mod context;
mod dialling;
mod elsewhere;
mod evaluate;
mod exit;
pub(crate) mod farm;
mod fetching;
mod homecoming;
mod importing;
mod input;
mod keeping;
mod links;
mod plan_file;
mod planning;
pub mod push;
mod pushing;
mod recall;
mod revision;
mod signals;
mod source;
mod sources;
mod start;
mod tasks;
mod trust;
pub mod upkeep;
mod watch;
pub mod why;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::mpsc;

use crate::build::{Brought, News, NotBrought};
use crate::config::Settings;
use crate::diff::plan::Decision;
use crate::error::{Error, Fault, Result, exit_code};
use crate::eval::list::LeftOut;
use crate::eval::{Answer, DrvAnswer, EvalMsg, Import};
use crate::event::{DrvOutcome, Event, Fact, Moment, STOPPED, Stage, Status};
use crate::id::{AttemptId, AttrId, BuilderId, DrvId, Kind, RunId, StorePath, System};
use crate::record::RunDir;
use crate::report::history::History;
use crate::report::summary::Summary;
use crate::sched::Input as SchedInput;
use crate::store::remote::RemoteStore;
use crate::ui::Ui;

use attrs::Attrs;
use base::Found;
use building::{Building, Ended};
use changed::BaseAgain;
use clock::Clock;
use comparing::{Comparing, Late, Next, Verdict};
use context::Context;
use evaluate::{EvalInput, Evaluation, Outcome};
use farm::{Farm, FarmInput, Heard};
use homecoming::Homecoming;
use importing::Importing;
use input::Input;
use keeping::Keeping;
use planning::Planning;
use pushing::{Pushing, Why};
use recall::Located;
use signals::Signals;

/// How often the screen is looked at.
const FRAME: Duration = Duration::from_millis(100);

/// Inputs that are handled before anything is done about them, at most.
const MOST_AT_ONCE: usize = 256;

/// How long finished drvs are still pushed after the first Ctrl-C.
const PUSH_AFTER_STOP: Duration = Duration::from_secs(4);

/// How long children are waited for at the end.
const LAST_CHILDREN: Duration = Duration::from_millis(500);

/// How far a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All the way.
    Run,
    /// Only up to what would be done.
    Plan,
    /// The same, for a CI matrix of it.
    Matrix,
    /// The same, to say why.
    Why,
    /// Only up to what differs from the base.
    Affected,
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

/// The last words of a run. Whatever its effects hold has to be gone by now.
async fn close(
    mut ctx: Context,
    builders: Vec<RemoteStore>,
    exit: u8,
    error: Option<&Error>,
    outputs: Vec<String>,
) -> Finished {
    ctx.bus.emit(Fact::StageEnded { stage: Stage::Record });
    if let Some(error) = error {
        let hint = error.hint.as_deref().map(Into::into);
        ctx.bus.emit(Fact::RunFailed { message: error.message.as_str().into(), hint });
    }
    ctx.bus.emit(Fact::RunEnded { exit });
    if let Some(memory) = ctx.caches.memory() {
        // What it did not write by then is asked again.
        let _ = tokio::time::timeout(LAST_CHILDREN, memory.settle()).await;
    }
    let Context { bus, store, eval_store, dir, pool, roots, eval_roots, site, eval_site, sites, .. } = ctx;
    let events = bus.close();
    // Their connections first: a daemon ends when its client goes away.
    drop((pool, roots, eval_roots, site, eval_site, sites));
    let builders = join_all(builders.iter().map(|builder| builder.settle(LAST_CHILDREN)));
    tokio::join!(store.settle(LAST_CHILDREN), eval_store.settle(LAST_CHILDREN), builders);
    Finished { events, exit, dir, outputs }
}

/// How far `--out-link` is, or the plan's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    NotYet,
    Making,
    Done,
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
    planning: Planning,
    building: Building,
    farm: Farm,
    farm_inputs: mpsc::UnboundedReceiver<(BuilderId, FarmInput)>,
    homecoming: Homecoming,
    /// Attrs of systems of which it is not known yet whether some builder builds for them.
    parked: Vec<(AttrId, Answer)>,
    importing: Importing,
    pushing: Pushing,
    keeping: Keeping,
    attrs: Attrs,
    outcomes: BTreeMap<DrvId, DrvOutcome>,
    /// Attrs that were never listed, as the evaluators counted them.
    passed_over: Vec<LeftOut>,
    /// Attrs of systems that nobody here can build, by what they are.
    left_out: BTreeMap<(Kind, System), u32>,
    /// 0: going on; 1: stopping; 2: now.
    stopping: u8,
    push_until: Option<Moment>,
    /// Outputs that wait for the caches that are read from.
    unpushed: Vec<(Vec<StorePath>, Why)>,
    links: Links,
    error: Option<Error>,
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
        let wake = self.building.deadline().into_iter().chain(self.push_until).fold(frame, Moment::min);
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
                if self.mode == Mode::Run && !located.is_recorded() {
                    self.farm.warm_up(ctx);
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
            Input::BaseAgain(base) => self.base_again = Some(BaseAgain::Done(base)),
            Input::OnlyRevision(attrs) => self.only_revision(&attrs),
            Input::Eval(EvalInput::Held(ack)) => drop(ack),
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
            Input::Sized(drv, bytes) => {
                ctx.bus.emit(Fact::DrvSized { drv, nar_size: bytes });
                self.building.tell(ctx, SchedInput::Sized { drv, bytes });
            }
            Input::Returned(drv, paths, brought) => self.returned(drv, &paths, brought),
            Input::Kept(kept) => self.keeping.kept(ctx, kept),
            Input::Fetched(drv, result) => self.building.fetched(ctx, &self.planning, drv, result),
            Input::Import(import) => self.importing.begin(ctx, &mut self.planning, import),
            Input::Imported(number, result) => self.importing.copied(ctx, number, result),
            Input::Push(cache, input) => self.pushing.handle(ctx, cache, input),
            Input::Linked(made) => {
                self.links = Links::Done;
                made.unwrap_or_else(|error| self.error = Some(error));
            }
            Input::Written(written) => {
                self.links = Links::Done;
                match written {
                    Ok(fact) => ctx.bus.emit(fact),
                    Err(error) => self.error = Some(error),
                }
            }
            Input::Idle => {}
            Input::Stop(level) => self.stop(level),
            Input::Tick => {
                self.comparing.tick(ctx);
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
                self.tell_left_out();
            }
        }
    }

    /// Results have come into the local store, or not.
    fn returned(&mut self, drv: DrvId, paths: &[StorePath], brought: std::result::Result<Brought, NotBrought>) {
        let Some(returned) = self.homecoming.returned(&mut self.ctx, drv, paths, brought) else { return };
        // What only a builder had that has gone is made again.
        let again = returned.failure.is_some() && self.building.can_make_again(drv);
        if again {
            self.outcomes.remove(&drv);
            self.building.tell(&self.ctx, SchedInput::Lost { drv });
        }
        for (attr, status) in returned.attrs {
            match &returned.failure {
                _ if again => self.attrs.wait_for(attr, drv),
                None => self.end_attr(attr, status, None, None),
                Some(failure) => self.end_attr(attr, Status::Failed, Some(&failure.message), Some(drv)),
            }
        }
    }

    /// The head is located: it is evaluated, after the base if there is to be one, so that both keep to the memory.
    fn begin(&mut self, located: Box<Located>) {
        let asked = self.comparing.take_asked();
        let search = asked.and_then(|(asked, progress)| self.evaluation.search(&self.ctx, &located, asked, progress));
        match search.map(Arc::new) {
            None => self.evaluation.located(*located),
            Some(search) => {
                self.comparing.wait(located, search.clone());
                self.ctx.tasks.start(async move { Input::Base(search.find().await) });
            }
        }
    }

    /// The base is known, or will not be.
    fn found(&mut self, found: Found) {
        self.evaluation.tell_notes(&mut self.ctx);
        let left_out = self.left_out_systems();
        match self.comparing.found(&mut self.ctx, found, left_out) {
            Ok(Next::Evaluate(head)) => self.evaluation.located(*head),
            Ok(Next::Replay(answers)) => self.evaluation.replay(answers),
            Ok(Next::Nothing) => {}
            Err(error) => self.fail(error),
        }
    }

    /// A message of the evaluators.
    fn heard(&mut self, message: EvalMsg) {
        match self.evaluation.heard(&mut self.ctx, message) {
            Outcome::None => {}
            Outcome::Listed(listed) => listed.iter().for_each(|listed| self.attrs.add(listed)),
            Outcome::Answered(attr, answer) => self.answered(attr, answer),
            Outcome::Import(import) => self.importing.begin(&mut self.ctx, &mut self.planning, import),
            Outcome::LeftOut(left_out) => self.passed_over.push(left_out),
            Outcome::Over => {
                self.comparing.end(&mut self.ctx);
                self.tell_left_out();
            }
            Outcome::Fatal(error) => self.fail(error),
        }
    }

    /// An attr is answered. Hosts say only now for which system they are.
    fn answered(&mut self, attr: AttrId, answer: Answer) {
        let is_left_out = self.left_out_systems();
        let Some(entry) = self.attrs.get_mut(attr) else { return };
        let (kind, path) = (entry.kind, entry.path.clone());
        if let Answer::Drv(drv) = &answer {
            entry.answer = Some(drv.clone());
            if is_left_out(&drv.system) && self.farm.may_say_more() {
                self.farm.dial(&mut self.ctx);
                return self.parked.push((attr, answer));
            }
            if is_left_out(&drv.system) {
                *self.left_out.entry((kind, drv.system.clone())).or_default() += 1;
                let reason = format!("for {}, which no builder here can build", drv.system);
                return self.end_attr(attr, Status::Skipped, Some(&reason), None);
            }
        }
        let verdict = self.comparing.answered(&mut self.ctx, attr, &path, &answer);
        match (answer, verdict) {
            (Answer::Failed(_), _) => self.end_attr(attr, Status::EvalFailed, None, self.importing.root_of(attr)),
            (_, Verdict::Unaffected(reason)) => self.end_attr(attr, Status::Unaffected, reason, None),
            (Answer::Nothing(reason), _) => self.end_attr(attr, Status::Valid, Some(&reason), None),
            (Answer::Drv(_), Verdict::Later) => {}
            (Answer::Drv(drv), Verdict::Affected) => self.want(attr, &drv),
        }
    }

    /// An attr is to be there.
    fn want(&mut self, attr: AttrId, drv: &DrvAnswer) {
        match self.mode {
            // What would have to be done for it is not asked.
            Mode::Affected => self.attrs.settle(attr),
            Mode::Why if self.comparing.has_base() => self.attrs.settle(attr),
            Mode::Run | Mode::Plan | Mode::Matrix | Mode::Why => self.planning.want(&mut self.ctx, attr, drv),
        }
    }

    /// It is known which attrs differ only by the revision.
    fn only_revision(&mut self, attrs: &[AttrId]) {
        let Late { unaffected, affected } = self.comparing.only_revision(&mut self.ctx, attrs);
        for attr in unaffected {
            self.end_attr(attr, Status::Unaffected, Some("only the revision that it embeds differs"), None);
        }
        for attr in affected {
            if let Some(drv) = self.attrs.get(attr).and_then(|entry| entry.answer.clone()) {
                self.want(attr, &drv);
            }
        }
    }

    /// Whether attrs of a system are left out by default.
    fn left_out_systems(&self) -> impl Fn(&System) -> bool + use<> {
        let wanted = &self.ctx.settings.attrs;
        let by_default = !self.evaluation.by_name() && !wanted.all_systems;
        let systems = wanted.systems.clone().unwrap_or_else(|| self.farm.systems(&self.ctx));
        move |system| by_default && !systems.contains(system) && system.0 != "builtin"
    }

    /// All at once, so that it can be one line.
    fn tell_left_out(&mut self) {
        for LeftOut { count, what, flag } in std::mem::take(&mut self.passed_over) {
            self.ctx.bus.emit(Fact::AttrsLeftOut { count, what: what.into(), flag: flag.into() });
        }
        for ((kind, system), count) in std::mem::take(&mut self.left_out) {
            let what = format!("{count} {} for {system}", kind.noun(count as usize)).into();
            self.ctx.bus.emit(Fact::AttrsLeftOut { count, what, flag: "--all-systems".into() });
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
        if self.push_until.is_some_and(|until| self.ctx.bus.now() >= until) {
            self.push_late();
        }
        let answered = self.evaluation.is_over() && self.parked.is_empty();
        let compared = answered && self.comparing.is_over() && self.planning.is_idle();
        let planned = compared && self.stopping == 0 && self.is_base_there() && self.planning.is_idle();
        if let Some(cycle) = self.planning.cycle().filter(|_| planned && self.stopping == 0) {
            self.fail(Error::new(Fault::Unreachable, format!("derivations that need each other: {cycle}")));
        }
        if planned || self.stopping > 0 {
            self.planning.end(&mut self.ctx, &self.building);
            self.building.close(&self.ctx);
        }
        if !self.building.is_done() || !self.homecoming.is_done() && self.stopping == 0 {
            return;
        }
        self.building.end(&mut self.ctx);
        if self.unpushed.is_empty() {
            self.pushing.close(&mut self.ctx);
        }
        if self.pushing.is_done() {
            self.pushing.end(&mut self.ctx);
            self.keeping.begin(&mut self.ctx, &self.pushing, Some(&self.farm));
            self.leave_results();
        }
    }

    /// The time for pushing is over, or for what was under way when the run was stopped.
    fn push_late(&mut self) {
        if self.stopping > 0 && !self.building.is_done() {
            return;
        }
        self.push_until = None;
        match (self.pushing.is_done(), self.stopping) {
            (true, _) => {}
            (false, 0) => self.pushing.too_late(&mut self.ctx),
            (false, _) => self.pushing.stop(&mut self.ctx),
        }
    }

    fn is_over(&self) -> bool {
        let links = self.links == Links::Done;
        let rest = links && !self.evaluation.is_sharing();
        let home = self.homecoming.is_done() || self.stopping > 0;
        let pushed = self.pushing.is_done() && self.keeping.is_done();
        self.stopping == 2 || (self.building.is_done() && home && pushed && (rest || self.stopping > 0))
    }

    fn decided(&mut self, decision: Decision) {
        let run = self.mode == Mode::Run;
        let decision = self.importing.named(decision);
        match decision {
            Decision::Item { drv, .. } => {
                // An item that comes again gets its word again.
                self.outcomes.remove(&drv);
                self.building.need(&mut self.ctx, &self.planning, &decision, run);
            }
            Decision::Unreadable { drv, failure, attr } => {
                self.building.unreadable(&mut self.ctx, &self.planning.graph, drv, failure, attr);
            }
            Decision::Attr { attr, status, .. } if self.importing.is_import(attr) => {
                let (planning, outcomes) = (&mut self.planning, &self.outcomes);
                if let Some(drv) = self.importing.planned(&mut self.ctx, planning, attr, status, outcomes) {
                    self.building.release(&self.ctx, drv);
                }
            }
            Decision::Attr { attr, status, drv, builds } => {
                self.ctx.bus.emit(Fact::AttrPlanned { attr, status, drv, builds });
                self.planned(attr, status, drv);
            }
        }
    }

    /// It is known what has to be done for an attr.
    fn planned(&mut self, attr: AttrId, status: Status, drv: Option<DrvId>) {
        let fetch = self.ctx.settings.build.download || self.ctx.settings.build.out_link.is_some();
        match (self.mode, status, drv) {
            (Mode::Run, Status::Valid, _) => {
                let outputs = self.outputs_of(attr).into_iter().map(|(_, path)| path).collect();
                self.push(outputs, Why::Found);
                let drv = self.drv_of(attr);
                if !drv.is_some_and(|drv| self.comes_home(attr, drv, Status::Valid)) {
                    self.end_attr(attr, Status::Valid, None, None);
                }
            }
            (Mode::Run, Status::ToFetch, _) if !fetch => {
                if self.ctx.settings.push.require_complete {
                    let outputs = self.outputs_of(attr).into_iter().map(|(_, path)| path).collect();
                    self.push(outputs, Why::Found);
                }
                self.end_attr(attr, Status::Cached, None, None);
            }
            (Mode::Plan | Mode::Matrix | Mode::Why | Mode::Affected, status, _) => {
                self.end_attr(attr, status, None, None);
            }
            (Mode::Run, _, Some(drv)) => match self.outcomes.get(&drv).cloned() {
                Some(outcome) => self.end_with(attr, drv, &outcome),
                None => self.attrs.wait_for(attr, drv),
            },
            (Mode::Run, status, None) => self.end_attr(attr, status, None, None),
        }
    }

    /// A drv has its final word: its outputs are held and pushed, its attrs end.
    fn drv_ended(&mut self, ended: Ended) {
        self.importing.drv_ended(&mut self.ctx, &self.planning, &ended, &self.outcomes);
        let Ended { drv, outcome, outputs } = ended;
        let fetched = self.ctx.settings.push.require_complete && outcome == DrvOutcome::Fetched;
        if matches!(outcome, DrvOutcome::Built | DrvOutcome::Valid) || fetched {
            self.push(outputs, if outcome == DrvOutcome::Built { Why::Built } else { Why::Found });
        }
        for attr in self.attrs.ended_with(drv) {
            self.end_with(attr, drv, &outcome);
        }
        self.outcomes.insert(drv, outcome);
    }

    /// Whether the results of an attr are elsewhere and come home first: then it ends when they are here.
    fn comes_home(&mut self, attr: AttrId, drv: DrvId, status: Status) -> bool {
        if !self.ctx.is_farm {
            return false;
        }
        let outputs = self.outputs_of(attr).into_iter().map(|(_, path)| path).collect();
        self.homecoming.begin(&mut self.ctx, &self.planning, drv, outputs, (attr, status))
    }

    /// The drv of an attr.
    fn drv_of(&self, attr: AttrId) -> Option<DrvId> {
        self.planning.graph.get(&self.attrs.get(attr)?.answer.as_ref()?.drv)
    }

    fn end_with(&mut self, attr: AttrId, drv: DrvId, outcome: &DrvOutcome) {
        let there = match outcome {
            DrvOutcome::Built => Some(Status::Built),
            DrvOutcome::Fetched => Some(Status::Cached),
            DrvOutcome::Valid => Some(Status::Valid),
            DrvOutcome::Failed(_) | DrvOutcome::DependencyFailed { .. } | DrvOutcome::Cancelled => None,
        };
        if there.is_some_and(|status| self.comes_home(attr, drv, status)) {
            return;
        }
        match outcome {
            DrvOutcome::Built => self.end_attr(attr, Status::Built, None, None),
            DrvOutcome::Fetched => self.end_attr(attr, Status::Cached, None, None),
            DrvOutcome::Valid => self.end_attr(attr, Status::Valid, None, None),
            DrvOutcome::Failed(_) => self.end_attr(attr, Status::Failed, None, Some(drv)),
            DrvOutcome::DependencyFailed { root } => self.end_attr(attr, Status::Failed, None, Some(*root)),
            DrvOutcome::Cancelled => self.end_attr(attr, Status::Skipped, Some(STOPPED), None),
        }
    }

    fn end_attr(&mut self, attr: AttrId, status: Status, reason: Option<&str>, root: Option<DrvId>) {
        let Some(entry) = self.attrs.get_mut(attr).filter(|entry| entry.status.is_none()) else { return };
        entry.status = Some(status);
        self.ctx.bus.emit(Fact::AttrEnded { attr, status, reason: reason.map(Into::into), root });
    }

    /// The known outputs that an attr asks for, by name.
    fn outputs_of(&self, attr: AttrId) -> Vec<(String, StorePath)> {
        let Some(answer) = self.attrs.get(attr).and_then(|entry| entry.answer.as_ref()) else { return Vec::new() };
        let drv = self.planning.graph.get(&answer.drv);
        let path = |name: &String| {
            let evaluated = answer.outputs.get(name).cloned().flatten();
            let loaded = || self.planning.graph.output_path(drv?, name).cloned();
            let built = || self.building.output(drv?, name);
            evaluated.or_else(loaded).or_else(built)
        };
        answer.wanted.iter().filter_map(|name| Some((name.clone(), path(name)?))).collect()
    }

    /// Outputs are valid in the store: they go to every cache that is pushed to, with what they refer to and no cache
    /// that is read from has. Which those are is known once these are open.
    fn push(&mut self, outputs: Vec<StorePath>, why: Why) {
        if !self.pushing.is_wanted() || self.stopping == 2 {
            return;
        }
        match self.planning.caches(&mut self.ctx) {
            Some(upstream) => self.pushing.add(&mut self.ctx, &outputs, why, &upstream),
            None => self.unpushed.push((outputs, why)),
        }
    }

    /// The files that a run leaves where it was told to, once.
    fn leave_results(&mut self) {
        if self.links != Links::NotYet {
            return;
        }
        self.links = Links::Done;
        match self.mode {
            Mode::Run => self.make_links(),
            Mode::Plan | Mode::Matrix => self.write_plan(),
            Mode::Why | Mode::Affected => {}
        }
    }

    /// The plan's file, if one was asked for and the plan is whole.
    fn write_plan(&mut self) {
        let Some(file) = self.ctx.settings.plan.write.clone() else { return };
        if self.stopping > 0 || self.error.is_some() {
            return;
        }
        let ctx = &self.ctx;
        let writing = plan_file::Writing {
            file,
            head: plan_file::head(&Summary::of(ctx.bus.events())),
            store: ctx.eval_store.clone(),
            plan: ctx.plan.clone(),
            roots: ctx.eval_roots.clone(),
            caches: self.planning.open_caches().map(|caches| caches.to_vec()).unwrap_or_default(),
            of_nix: ctx.caches.of_nix(),
        };
        self.links = Links::Making;
        self.ctx.tasks.start(async move { Input::Written(plan_file::write(writing).await) });
    }

    /// `--out-link`, for what is in the store now.
    fn make_links(&mut self) {
        let Some(prefix) = self.ctx.settings.build.out_link.clone() else { return };
        let there = |entry: &attrs::Entry| matches!(entry.status, Some(Status::Built | Status::Valid | Status::Cached));
        let attrs: Vec<AttrId> = self.attrs.iter().filter(|(_, entry)| there(entry)).map(|(id, _)| id).collect();
        let results: Vec<_> = attrs.into_iter().map(|attr| self.outputs_of(attr)).collect();
        let (pool, links) = (self.ctx.pool.clone(), links::names(&prefix, &results));
        if !links.is_empty() {
            self.links = Links::Making;
            self.ctx.tasks.start(async move { Input::Linked(links::make(&pool, links).await.map(drop)) });
        }
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
        self.error.get_or_insert(error);
        self.wind_down(1);
    }

    /// Starts nothing new; what is built is still pushed for a moment.
    fn wind_down(&mut self, level: u8) {
        self.stopping = self.stopping.max(level);
        self.evaluation.stop(&mut self.ctx);
        self.building.tell(&self.ctx, SchedInput::Cancel(self.stopping));
        let until = self.ctx.bus.in_future(PUSH_AFTER_STOP);
        self.push_until = Some(self.push_until.map_or(until, |before| before.min(until)));
        if self.stopping == 2 {
            self.pushing.stop(&mut self.ctx);
        }
    }

    /// Gives everything that is still open its final word, and closes the record.
    async fn finish(mut self) -> Finished {
        for attr in self.attrs.open() {
            self.end_attr(attr, Status::Skipped, Some(STOPPED), None);
        }
        self.pushing.end(&mut self.ctx);
        self.ctx.tasks.stop().await;
        self.pushing.abandon().await;
        self.ctx.bus.emit(Fact::StageStarted { stage: Stage::Record });
        self.remember_times();
        let mut faults = exit::faults(self.ctx.bus.events(), &self.ctx.caches.optional());
        faults.extend(self.error.iter().map(|error| error.fault));
        let exit = exit_code(&faults);
        let outputs = self.attrs.iter().map(|(attr, _)| attr).collect::<Vec<_>>();
        let outputs = outputs.into_iter().flat_map(|attr| self.outputs_of(attr));
        let dir = self.ctx.store_dir().clone();
        let outputs = outputs.map(|(_, path)| path.to_absolute_path_in(&dir)).collect();
        close(self.ctx, self.farm.close(), exit, self.error.as_ref(), outputs).await
    }

    /// Adds this run's times to the history.
    fn remember_times(&mut self) {
        let summary = Summary::of(self.ctx.bus.events());
        if summary.counts.built == 0 && summary.workers == 0 {
            return;
        }
        let state_dir = &self.ctx.settings.output.state_dir;
        let mut history = History::load(state_dir);
        history.fold(&summary);
        if let Err(error) = history.save(state_dir) {
            tracing::warn!(%error, "cannot store how long things took");
        }
    }
}
