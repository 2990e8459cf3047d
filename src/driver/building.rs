//! Does what the scheduler says: starts and stops attempts and fetches, and turns what they tell into facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::build::{self, Attempt, FetchError, Limits, News};
use crate::diff::plan::Decision;
use crate::event::{AttemptEnd, Class, DrvOutcome, Fact, Failure, Stage};
use crate::graph::{Drv, Graph, Work};
use crate::id::{AttemptId, AttrId, BuilderId, DrvId, StorePath};
use crate::record::{Kept, LogWriter};
use crate::report::history::History;
use crate::sched::{Action, Builder, Input as SchedInput, Item, Policy, Scheduler};

use super::context::Context;
use super::fetching::Fetching;
use super::input::{Input, Tail};
use super::planning::Planning;

/// How many fetches run at once.
const FETCHES: u32 = 16;

/// Bytes of one log that are kept if nothing limits it.
const KEPT_LOG: u64 = 64 << 20;

/// Seconds that a drv is expected to take while nothing is known of any, and those that are tiny or only load something.
/// Then only the longest chain of drvs decides.
const UNKNOWN_COST: f64 = 1.0;

/// Attempts and fetches.
pub(super) struct Building {
    sched: Scheduler,
    /// Slots of all builders.
    slots: u32,
    /// What the scheduler wants done, not done yet.
    actions: Vec<Action>,
    running: BTreeMap<AttemptId, Running>,
    fetching: Fetching,
    /// What attempts said of outputs.
    outputs: BTreeMap<DrvId, Vec<(String, StorePath)>>,
    history: History,
    /// Seconds that a drv is expected to take of which nothing is known.
    typical: f64,
    /// Items of a plan, which are only done if somebody imports from them.
    held: BTreeMap<DrvId, Item>,
    /// Those of which somebody did.
    released: BTreeSet<DrvId>,
    started: bool,
    ended: bool,
    /// Nobody adds anything any more.
    closed: bool,
}

struct Running {
    drv: DrvId,
    /// It builds, or waits for somebody else; it says itself when it has ended.
    going: bool,
    stop: CancellationToken,
}

/// The final word on a drv, for the rest of the driver.
pub(super) struct Ended {
    pub(super) drv: DrvId,
    pub(super) outcome: DrvOutcome,
    /// Its outputs, as far as they are known.
    pub(super) outputs: Vec<StorePath>,
}

impl Building {
    /// With the local store as the one builder.
    pub(super) fn new(ctx: &mut Context, history: History) -> Self {
        let build = &ctx.settings.build;
        let policy = Policy {
            fail_fast: build.fail_fast,
            max_failures: build.max_failures,
            retries: build.retries,
            retry_failures: build.retry_failures,
            fetch_slots: FETCHES,
            fetch_where_needed: false,
        };
        let mut building = Self {
            sched: Scheduler::new(policy),
            slots: 0,
            actions: Vec::new(),
            running: BTreeMap::new(),
            fetching: Fetching::default(),
            outputs: BTreeMap::new(),
            typical: history.typical().unwrap_or(UNKNOWN_COST),
            history,
            held: BTreeMap::new(),
            released: BTreeSet::new(),
            started: false,
            ended: false,
            closed: false,
        };
        let local = local_builder(ctx);
        building.slots = local.slots;
        ctx.bus.emit(Fact::BuilderReady {
            builder: local.id,
            name: "local".into(),
            slots: local.slots,
            systems: ctx.store.settings().systems(),
            features: Vec::new(),
            speed: None,
            named_in: None,
        });
        building.tell(ctx, SchedInput::BuilderUp(local));
        building.tell(ctx, SchedInput::NoMoreBuilders);
        building
    }

    /// Opens connections while the evaluators are busy. A commit that nobody has evaluated most likely has something
    /// to build, and each connection is a process to start.
    pub(super) fn warm_up(&self, ctx: &mut Context) {
        let (pool, slots) = (ctx.pool.clone(), self.slots);
        ctx.tasks.start(async move {
            pool.warm_up(slots).await;
            Input::Idle
        });
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
    fn expected(&self, ctx: &Context, graph: &Graph, drv: DrvId) -> Option<f64> {
        let info = graph.info(drv)?;
        let planned = || ctx.plan.as_ref()?.expected(graph.path(drv));
        self.history.expected(&info.name, &info.system).or_else(planned)
    }

    /// Seconds for a drv that was never built on its system.
    fn guess(&self, info: &Drv) -> f64 {
        let tiny = info.fixed_output || info.prefer_local;
        self.history.guess(&info.name).unwrap_or(if tiny { UNKNOWN_COST } else { self.typical })
    }

    /// A drv is needed: tells everybody; with `start`, the scheduler too, else it is kept for [`Building::release`].
    pub(super) fn need(&mut self, ctx: &mut Context, planning: &Planning, decision: &Decision, start: bool) {
        let Decision::Item { drv, work, inputs, attr } = decision else { return };
        let graph = &planning.graph;
        let Some(info) = graph.info(*drv) else { return };
        let expected = self.expected(ctx, graph, *drv);
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
            system: info.system.clone(),
            features: info.features.clone(),
            local_only: opaque,
            here: true,
            fixed_output: info.fixed_output,
            prefer_local: info.prefer_local,
            cost: expected.unwrap_or_else(|| self.guess(info)),
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
                    Action::Start { attempt, drv, builder } => self.start(ctx, attempt, drv, builder),
                    Action::Go { attempt } => self.go(ctx, &planning.graph, attempt),
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

    /// All that an attempt needs is in the local store.
    fn start(&mut self, ctx: &mut Context, attempt: AttemptId, drv: DrvId, builder: BuilderId) {
        self.begin(ctx);
        ctx.bus.emit(Fact::AttemptStarted { attempt, drv, builder });
        self.running.insert(attempt, Running { drv, going: false, stop: CancellationToken::new() });
        self.tell(ctx, SchedInput::Prepared { attempt });
    }

    fn go(&mut self, ctx: &mut Context, graph: &Graph, attempt: AttemptId) {
        let Some(running) = self.running.get_mut(&attempt) else { return };
        running.going = true;
        let (drv, stopped) = (running.drv, running.stop.clone());
        let spec = self.spec(ctx, graph, drv);
        let mut log = LogWriter::new(&ctx.dir, &spec.path.to_basename(), spec.limits.log.unwrap_or(KEPT_LOG));
        let (pool, news) = (ctx.pool.clone(), ctx.news.clone());
        let show = ctx.settings.output.logs;
        ctx.tasks.start(async move {
            let end = build::run(&pool, &spec, &stopped, |told| {
                // A log that cannot be written costs the log; its last lines are kept all the same.
                match &told {
                    News::Building => {
                        let _ = log.begin();
                    }
                    News::Log(line) => {
                        let _ = log.line(line);
                        if !show {
                            return;
                        }
                    }
                    News::Waiting(_) | News::Phase(_) => {}
                }
                let _ = news.send((attempt, told));
            })
            .await;
            let failed = matches!(end, AttemptEnd::Failed(_));
            let Kept { lines, tail } = log.finish().unwrap_or_default();
            Input::AttemptEnded(attempt, end, Tail { lines, last: if failed { tail } else { Vec::new() } })
        });
    }

    /// What an attempt is told: the drv, and the outputs of other drvs that it uses.
    fn spec(&self, ctx: &Context, graph: &Graph, drv: DrvId) -> Attempt {
        let outputs = graph.info(drv).map(|info| info.outputs.iter().map(|o| (o.name.clone(), o.path.clone())));
        let inputs: Vec<StorePath> = graph
            .inputs(drv)
            .flat_map(|(input, names)| names.iter().filter_map(move |name| graph.output_path(input, name)))
            .cloned()
            .collect();
        let build = &ctx.settings.build;
        let nix = ctx.store.settings();
        let or_nix = |ours: Option<std::time::Duration>, seconds: u64| {
            ours.or((seconds > 0).then(|| std::time::Duration::from_secs(seconds)))
        };
        Attempt {
            path: graph.path(drv).clone(),
            outputs: outputs.map(Iterator::collect).unwrap_or_default(),
            inputs,
            sources: graph.info(drv).map(|info| info.sources.clone()).unwrap_or_default(),
            opaque: graph.is_opaque(drv),
            limits: Limits {
                total: or_nix(build.timeout, nix.timeout),
                silent: or_nix(build.max_silent_time, nix.max_silent_time),
                log: build.max_log_size.or((nix.max_build_log_size > 0).then_some(nix.max_build_log_size)),
            },
        }
    }

    fn stop(&mut self, ctx: &mut Context, attempt: AttemptId) {
        let Some(running) = self.running.get(&attempt) else { return };
        running.stop.cancel();
        if !running.going {
            let failure = Failure { class: Class::Cancelled, message: "stopped".into(), position: None };
            self.ended(ctx, attempt, AttemptEnd::Failed(failure), Tail { lines: 0, last: Vec::new() });
        }
    }

    fn fetch(&mut self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        self.begin(ctx);
        self.fetching.start(ctx, planning, drv);
    }

    fn stop_fetch(&mut self, ctx: &mut Context, planning: &Planning, drv: DrvId) {
        if self.fetching.stop(drv) {
            let failure = Failure { class: Class::Cancelled, message: "stopped".into(), position: None };
            self.fetched(ctx, planning, drv, Err(FetchError { failure, culprits: None }));
        }
    }

    /// An attempt has something to say.
    pub(super) fn news(&mut self, ctx: &mut Context, attempt: AttemptId, news: News) {
        let Some(running) = self.running.get(&attempt) else { return };
        match news {
            News::Log(line) => ctx.bus.log(running.drv, &line),
            News::Building => {
                ctx.bus.emit(Fact::AttemptBuilding { attempt });
                self.tell(ctx, SchedInput::Waiting { attempt, waiting: false });
            }
            News::Waiting(reason) => {
                ctx.bus.emit(Fact::AttemptWaiting { attempt, reason: reason.into() });
                self.tell(ctx, SchedInput::Waiting { attempt, waiting: true });
            }
            News::Phase(phase) => ctx.bus.emit(Fact::AttemptPhase { attempt, phase: phase.into() }),
        }
    }

    /// An attempt ended.
    pub(super) fn ended(&mut self, ctx: &mut Context, attempt: AttemptId, end: AttemptEnd, tail: Tail) {
        let Some(Running { drv, .. }) = self.running.remove(&attempt) else { return };
        if let AttemptEnd::Built { outputs } | AttemptEnd::AlreadyValid { outputs } = &end {
            let dir = ctx.store_dir();
            let parse = |path: &Arc<str>| dir.parse_path(path.as_bytes()).ok();
            let known = outputs.iter().filter_map(|o| Some((o.name.to_string(), parse(o.path.as_ref()?)?)));
            self.outputs.insert(drv, known.collect());
        }
        let log_tail = tail.last.iter().map(|line| Arc::from(line.as_str())).collect();
        ctx.bus.emit(Fact::AttemptEnded { attempt, end: end.clone(), log_lines: tail.lines, log_tail });
        self.tell(ctx, SchedInput::AttemptEnded { attempt, end, gone: Vec::new() });
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
            self.tell(ctx, SchedInput::FetchEnded { drv, failure });
        }
    }
}

/// The local store as a builder.
fn local_builder(ctx: &Context) -> Builder {
    let nix = ctx.store.settings();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let nix_jobs = nix.max_jobs.and_then(|jobs| u32::try_from(jobs).ok());
    let jobs = ctx.settings.build.max_jobs.or(nix_jobs).unwrap_or(u32::try_from(cores).unwrap_or(1));
    Builder {
        id: BuilderId(0),
        name: "local".to_owned(),
        slots: jobs,
        systems: nix.systems().into_iter().collect(),
        features: nix.system_features.iter().cloned().collect(),
        mandatory: std::collections::BTreeSet::new(),
        speed: 1.0,
        local: true,
    }
}
