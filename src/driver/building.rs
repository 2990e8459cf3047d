//! Does what the scheduler says: starts and stops attempts and fetches, and turns what they tell into facts.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::{Brought, FetchError, News, NotBrought};
use crate::diff::plan::Decision;
use crate::event::{AttemptEnd, Class, DrvOutcome, Fact, Failure, Stage};
use crate::graph::{Drv, Graph, Work};
use crate::id::{AttemptId, AttrId, AttrPath, BuilderId, DrvId, StorePath};
use crate::report::history::History;
use crate::sched::{Action, Input as SchedInput, Item, Policy, Scheduler};

use super::attempts::{AttemptOver, Attempts, Prepared, inputs_of, stopped};
use super::context::{Context, LOCAL};
use super::fetching::Fetching;
use super::input::{Input, Tail};
use super::planning::Planning;

/// How many fetches run at once.
const FETCHES: u32 = 16;

/// Seconds that a drv is expected to take while nothing is known of any, and those that are tiny or only load something.
/// Then only the longest chain of drvs decides.
const UNKNOWN_COST: f64 = 1.0;

/// Seconds by which attrs go before others that failed the last time. A chain that takes longer is not held up by them.
const FAILED_BEFORE: f64 = 60.0;

/// Attempts and fetches.
pub(super) struct Building {
    sched: Scheduler,
    /// What the scheduler wants done, not done yet.
    actions: Vec<Action>,
    attempts: Attempts,
    fetching: Fetching,
    /// What attempts said of outputs.
    outputs: BTreeMap<DrvId, Vec<(String, StorePath)>>,
    history: History,
    /// Seconds that a drv is expected to take of which nothing is known.
    typical: f64,
    /// Drvs of attrs that failed the last time that they were tried.
    failed_before: BTreeSet<DrvId>,
    /// Items of a plan, which are only done if somebody imports from them.
    held: BTreeMap<DrvId, Item>,
    /// Those of which somebody did.
    released: BTreeSet<DrvId>,
    started: bool,
    ended: bool,
    /// Nobody adds anything any more.
    closed: bool,
    /// It was said how far earlier estimates were off.
    told: bool,
}

/// The final word on a drv, for the rest of the driver.
pub(super) struct Ended {
    pub(super) drv: DrvId,
    pub(super) outcome: DrvOutcome,
    /// Its outputs, as far as they are known.
    pub(super) outputs: Vec<StorePath>,
}

impl Building {
    /// No builder is known yet. `elsewhere`: how many drvs may fail is counted by somebody who knows which do not count.
    pub(super) fn new(ctx: &Context, history: History, elsewhere: bool) -> Self {
        let build = &ctx.settings.build;
        let policy = Policy {
            fail_fast: build.fail_fast && !elsewhere,
            max_failures: build.max_failures.filter(|_| !elsewhere),
            retries: build.retries,
            retry_failures: build.retry_failures,
            fetch_slots: FETCHES,
            fetch_where_needed: ctx.is_farm,
        };
        Self {
            sched: Scheduler::new(policy),
            actions: Vec::new(),
            attempts: Attempts::default(),
            fetching: Fetching::default(),
            outputs: BTreeMap::new(),
            typical: history.typical().unwrap_or(UNKNOWN_COST),
            history,
            failed_before: BTreeSet::new(),
            held: BTreeMap::new(),
            released: BTreeSet::new(),
            started: false,
            ended: false,
            told: false,
            closed: false,
        }
    }

    /// Something for the scheduler.
    pub(super) fn tell(&mut self, ctx: &Context, input: SchedInput) {
        self.sched.handle(ctx.bus.now(), input, &mut self.actions);
    }

    /// When the scheduler wants to be woken.
    pub(super) fn deadline(&self) -> Option<crate::event::Moment> {
        self.sched.next_deadline()
    }

    /// All that was needed has its final word.
    pub(super) fn is_done(&self) -> bool {
        self.sched.is_done() && self.actions.is_empty()
    }

    /// Nothing new starts any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.sched.is_stopping()
    }

    /// Nothing more will be needed.
    pub(super) fn close(&mut self, ctx: &Context) {
        if !std::mem::replace(&mut self.closed, true) {
            self.tell(ctx, SchedInput::NoMore);
        }
    }

    /// The stage is over.
    pub(super) fn end(&mut self, ctx: &mut Context) {
        if self.started && !std::mem::replace(&mut self.ended, true) {
            ctx.bus.emit(Fact::StageEnded { stage: Stage::Build });
        }
    }

    /// Expected seconds of a drv, from earlier runs; else from those that the plan's maker knew of.
    pub(super) fn expected(&self, ctx: &Context, graph: &Graph, drv: DrvId) -> Option<f64> {
        let info = graph.info(drv)?;
        let planned = || ctx.plan.as_ref()?.expected(graph.path(drv));
        self.history.expected(&info.name, &info.system).or_else(planned)
    }

    /// Seconds for a drv that was never built on its system.
    fn guess(&self, info: &Drv) -> f64 {
        let tiny = info.fixed_output || info.prefer_local;
        self.history.guess(&info.name).unwrap_or(if tiny { UNKNOWN_COST } else { self.typical })
    }

    /// An attr asks for this drv: if it failed the last time, whether it does again is to be known soon.
    pub(super) fn asked(&mut self, attr: &AttrPath, drv: DrvId) {
        if self.history.failed().contains(&attr.to_string()) {
            self.failed_before.insert(drv);
        }
    }

    /// A drv is needed: tells everybody; with `start`, the scheduler too, else it is kept for [`Building::release`].
    pub(super) fn need(&mut self, ctx: &mut Context, planning: &Planning, decision: &Decision, start: bool) {
        let Decision::Item { drv, work, inputs, attr } = decision else { return };
        let graph = &planning.graph;
        let Some(info) = graph.info(*drv) else { return };
        let expected = self.expected(ctx, graph, *drv);
        if let Some(off) = self.history.estimates_off().filter(|_| !std::mem::replace(&mut self.told, true)) {
            ctx.bus.emit(Fact::EstimatesKnown { off });
        }
        let opaque = graph.is_opaque(*drv);
        // Of what is fetched, only what is wanted comes.
        let fetched = (*work == Work::Fetch).then(|| planning.fetches(*drv));
        let wanted = |path: Option<&StorePath>| match (&fetched, path) {
            (Some(fetched), Some(path)) => fetched.contains(path),
            _ => true,
        };
        let outputs = info.outputs.iter().filter(|output| wanted(output.path.as_ref()));
        ctx.bus.emit(Fact::DrvNeeded {
            drv: *drv,
            path: ctx.absolute(graph.path(*drv)),
            name: info.name.as_str().into(),
            system: info.system.clone(),
            inputs: inputs.clone(),
            fetch: *work == Work::Fetch,
            opaque,
            features: info.features.iter().map(|feature| feature.as_str().into()).collect(),
            attr: *attr,
            expected,
            outputs: outputs.map(|output| ctx.output(&output.name, output.path.as_ref())).collect(),
        });
        let item = Item {
            drv: *drv,
            work: *work,
            inputs: inputs.clone(),
            there: if ctx.is_farm { there(graph, *drv, *work, inputs) } else { Vec::new() },
            system: info.system.clone(),
            features: info.features.clone(),
            local_only: opaque,
            here: planning.is_wanted_here(*drv),
            fixed_output: info.fixed_output,
            prefer_local: info.prefer_local,
            cost: expected.unwrap_or_else(|| self.guess(info)),
            ahead: if self.failed_before.contains(drv) { FAILED_BEFORE } else { 0.0 },
        };
        if start {
            self.tell(ctx, SchedInput::Add(vec![item]));
        } else {
            self.held.insert(*drv, item);
            // The fetch of it failed, and the scheduler waits for what is to be done instead.
            if self.released.contains(drv) {
                self.release(ctx, *drv);
            }
        }
    }

    /// Does what a plan only names, for this drv and all that it waits for.
    pub(super) fn release(&mut self, ctx: &Context, drv: DrvId) {
        let mut open = vec![drv];
        let mut items = Vec::new();
        while let Some(drv) = open.pop() {
            if let Some(item) = self.held.remove(&drv) {
                self.released.insert(drv);
                open.extend(&item.inputs);
                items.push(item);
            }
        }
        if !items.is_empty() {
            items.reverse();
            self.tell(ctx, SchedInput::Add(items));
        }
    }

    /// A needed drv that cannot be read.
    pub(super) fn unreadable(
        &mut self,
        ctx: &mut Context,
        graph: &Graph,
        drv: DrvId,
        failure: Failure,
        attr: Option<AttrId>,
    ) {
        let path = graph.path(drv);
        ctx.bus.emit(Fact::DrvNeeded {
            drv,
            path: ctx.absolute(path),
            name: path.name().trim_end_matches(".drv").into(),
            system: ctx.store.settings().system.clone(),
            inputs: Vec::new(),
            fetch: false,
            opaque: false,
            features: Vec::new(),
            attr,
            expected: None,
            outputs: Vec::new(),
        });
        self.tell(ctx, SchedInput::AddFailed(vec![(drv, failure)]));
    }

    /// Does what the scheduler wants; gives the drvs that ended. To be called until it gives nothing.
    pub(super) fn turn(&mut self, ctx: &mut Context, planning: &mut Planning) -> Vec<Ended> {
        let mut ended = Vec::new();
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Start { attempt, drv, builder } => self.start(ctx, planning, attempt, drv, builder),
                    Action::Go { attempt } => self.attempts.go(ctx, &planning.graph, attempt),
                    Action::Stop { attempt } => self.stop(ctx, attempt),
                    Action::Fetch { drv } => self.fetch(ctx, planning, drv),
                    Action::StopFetch { drv } => self.stop_fetch(ctx, planning, drv),
                    Action::Replan { drv } => planning.fetch_failed(drv, &self.fetching.culprits(drv)),
                    Action::Ended { drv, outcome } => {
                        ctx.bus.emit(Fact::DrvEnded { drv, outcome: outcome.clone() });
                        let outputs = self.outputs(&planning.graph, drv);
                        ended.push(Ended { drv, outcome, outputs });
                    }
                }
            }
        }
        ended
    }

    /// An output whose path is only known after building.
    pub(super) fn output(&self, drv: DrvId, name: &str) -> Option<StorePath> {
        let (_, path) = self.outputs.get(&drv)?.iter().find(|(known, _)| known == name)?;
        Some(path.clone())
    }

    /// All outputs of a drv, those of its last attempt where the graph does not know them.
    fn outputs(&self, graph: &Graph, drv: DrvId) -> Vec<StorePath> {
        let Some(info) = graph.info(drv) else { return Vec::new() };
        let path = |output: &crate::graph::OutputInfo| output.path.clone().or_else(|| self.output(drv, &output.name));
        info.outputs.iter().filter_map(path).collect()
    }

    fn begin(&mut self, ctx: &mut Context) {
        if !std::mem::replace(&mut self.started, true) {
            ctx.bus.emit(Fact::StageStarted { stage: Stage::Build });
        }
    }

    fn fetch(&mut self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        self.begin(ctx);
        self.fetching.start(ctx, planning, drv);
    }

    fn stop_fetch(&mut self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        if self.fetching.stop(drv) {
            let failure = Failure::new(Class::Cancelled, "stopped");
            self.fetched(ctx, planning, drv, Err(FetchError { failure, culprits: None }));
        }
    }

    fn start(&mut self, ctx: &mut Context, planning: &Planning, attempt: AttemptId, drv: DrvId, builder: BuilderId) {
        self.begin(ctx);
        if self.attempts.start(ctx, planning, attempt, drv, builder) {
            self.tell(ctx, SchedInput::Prepared { attempt });
        }
    }

    fn stop(&mut self, ctx: &mut Context, attempt: AttemptId) {
        if self.attempts.stop(attempt) {
            self.ended(ctx, attempt, AttemptEnd::Failed(stopped()), Tail::default());
        }
    }

    /// What an attempt needs is at its builder, or cannot be brought there. Gives its builder, if that is why and it is
    /// not the local store.
    pub(super) fn prepared(
        &mut self,
        ctx: &mut Context,
        planning: &mut Planning,
        attempt: AttemptId,
        brought: Result<Brought, NotBrought>,
    ) -> Option<BuilderId> {
        match self.attempts.prepared(ctx, attempt, brought)? {
            Ok(Prepared { builder, speed }) => {
                if let Some((bytes, seconds)) = speed {
                    self.tell(ctx, SchedInput::Transferred { builder, bytes, seconds });
                }
                self.tell(ctx, SchedInput::Prepared { attempt });
                None
            }
            Err(NotBrought { failure, gone, refused, .. }) => {
                let (drv, builder) = self.attempts.of(attempt)?;
                let inputs: Vec<DrvId> = inputs_of(&planning.graph, drv, &refused).into_keys().collect();
                if !inputs.is_empty() {
                    self.tell(ctx, SchedInput::Refused { builder, inputs });
                }
                let gone = inputs_of(&planning.graph, drv, &gone);
                for (input, culprits) in &gone {
                    self.fetching.blame(*input, culprits);
                }
                let gone = gone.into_keys().collect();
                self.attempt_ended(ctx, attempt, AttemptEnd::Failed(failure), Tail::default(), gone)
            }
        }
    }

    /// A drv whose outputs have gone is made again, if it is not on its way already; false if it cannot be.
    pub(super) fn make_again(&mut self, ctx: &Context, drv: DrvId) -> bool {
        if self.sched.is_on_its_way(drv) {
            return true;
        }
        let can = self.sched.can_make_again(drv);
        if can {
            self.tell(ctx, SchedInput::Lost { drv });
        }
        can
    }

    /// An attempt has something to say.
    pub(super) fn news(&mut self, ctx: &mut Context, attempt: AttemptId, news: News) {
        if let Some(waiting) = self.attempts.news(ctx, attempt, news) {
            self.tell(ctx, SchedInput::Waiting { attempt, waiting });
        }
    }

    /// An attempt ended. Gives its builder, if that is why and it is not the local store.
    pub(super) fn ended(
        &mut self,
        ctx: &mut Context,
        attempt: AttemptId,
        end: AttemptEnd,
        tail: Tail,
    ) -> Option<BuilderId> {
        self.attempt_ended(ctx, attempt, end, tail, Vec::new())
    }

    fn attempt_ended(
        &mut self,
        ctx: &mut Context,
        attempt: AttemptId,
        end: AttemptEnd,
        tail: Tail,
        gone: Vec<DrvId>,
    ) -> Option<BuilderId> {
        let AttemptOver { drv, builder, end, outputs } = self.attempts.ended(ctx, attempt, end, tail)?;
        let lost = matches!(&end, AttemptEnd::Failed(failure) if failure.class == Class::BuilderLost);
        if lost && builder != LOCAL {
            // Nothing more is to start there before it is known whether it still answers.
            self.tell(ctx, SchedInput::BuilderDown { builder, back: true, why: None });
        }
        if !outputs.is_empty() {
            hold(ctx, drv, builder, outputs.iter().map(|(_, path)| path.clone()).collect());
            self.outputs.insert(drv, outputs);
        }
        self.tell(ctx, SchedInput::AttemptEnded { attempt, end, gone });
        (lost && builder != LOCAL).then_some(builder)
    }

    /// How many attempts a builder has.
    pub(super) fn running_on(&self, builder: BuilderId) -> u32 {
        self.attempts.count(builder)
    }

    /// A builder is lost, and its attempts with it.
    pub(super) fn lose(&mut self, ctx: &mut Context, builder: BuilderId, failure: &Failure) {
        for attempt in self.attempts.lose(builder, failure) {
            self.ended(ctx, attempt, AttemptEnd::Failed(failure.clone()), Tail::default());
        }
    }

    /// A fetch ended.
    pub(super) fn fetched(
        &mut self,
        ctx: &mut Context,
        planning: &Planning,
        drv: DrvId,
        result: Result<(), FetchError>,
    ) {
        if let Some(failure) = self.fetching.ended(ctx, planning, drv, result) {
            if failure.is_none() {
                ctx.site.holdings.note(&planning.fetches(drv));
            }
            self.tell(ctx, SchedInput::FetchEnded { drv, failure });
        }
    }
}

/// The drvs that a build uses and that are no items: some store has their outputs, which may go away.
pub(super) fn there(graph: &Graph, drv: DrvId, work: Work, items: &[DrvId]) -> Vec<DrvId> {
    if work == Work::Fetch {
        return Vec::new();
    }
    let items: BTreeSet<&DrvId> = items.iter().collect();
    graph.inputs(drv).map(|(input, _)| input).filter(|input| !items.contains(input)).collect()
}

/// What was built is valid where it was built, and stays so.
fn hold(ctx: &mut Context, drv: DrvId, builder: BuilderId, outputs: Vec<StorePath>) {
    let Some(site) = ctx.site_of(builder) else { return };
    site.holdings.note(&outputs);
    let is_farm = ctx.is_farm;
    ctx.tasks.start(async move {
        // The connection that built them holds them too; this is for when it goes away.
        let mut roots = site.roots.lock().await;
        if !is_farm {
            let _ = roots.hold(&outputs).await;
            return Input::Idle;
        }
        match roots.look(&outputs).await {
            Ok(made) => Input::Sized(drv, made),
            Err(_) => Input::Idle,
        }
    });
}
