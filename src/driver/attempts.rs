//! Attempts under way: what they need is brought to their builder, they build, and what they tell becomes facts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::build::{self, Attempt, Brought, Limits, News, NotBrought, Site, Sources};
use crate::event::{AttemptEnd, Class, Fact, Failure, Moment};
use crate::graph::Graph;
use crate::id::{AttemptId, BuilderId, DrvId, StorePath};
use crate::record::{Kept, LogWriter};

use super::context::{Context, LOCAL};
use super::input::{Input, Tail};
use super::planning::Planning;

/// Bytes of one log that are kept if nothing limits it.
const KEPT_LOG: u64 = 64 << 20;

/// See the module's page.
#[derive(Default)]
pub(super) struct Attempts {
    running: BTreeMap<AttemptId, Running>,
}

struct Running {
    drv: DrvId,
    builder: BuilderId,
    /// Something is being done for it, which says itself when it has ended; otherwise it waits for a slot.
    busy: bool,
    stop: CancellationToken,
    /// Since when what it needs is being brought.
    bringing: Option<Moment>,
    /// Its builder was lost; it has been stopped for that.
    lost: Option<Failure>,
}

/// What an attempt needs is at its builder.
pub(super) struct Prepared {
    pub(super) builder: BuilderId,
    /// How fast it came, if anything did: bytes, seconds.
    pub(super) speed: Option<(u64, f64)>,
}

/// How an attempt ended, for the scheduler.
pub(super) struct AttemptOver {
    pub(super) drv: DrvId,
    pub(super) builder: BuilderId,
    pub(super) end: AttemptEnd,
    /// What it has built, by output.
    pub(super) outputs: Vec<(String, StorePath)>,
}

impl Attempts {
    /// An attempt begins. True if all that it needs is there already; else an [`Input::Prepared`] comes.
    pub(super) fn start(
        &mut self,
        ctx: &mut Context,
        planning: &Planning,
        attempt: AttemptId,
        drv: DrvId,
        builder: BuilderId,
    ) -> bool {
        ctx.bus.emit(Fact::AttemptStarted { attempt, drv, builder });
        let stop = CancellationToken::new();
        let running = Running { drv, builder, busy: true, stop: stop.clone(), bringing: None, lost: None };
        self.running.insert(attempt, running);
        let Some(site) = ctx.site_of(builder) else {
            let gone = Failure::new(Class::BuilderLost, "the builder is gone");
            ctx.tasks.start(async move { Input::Prepared(attempt, Err(gone.into())) });
            return false;
        };
        let wanted = needs(ctx, &planning.graph, drv, builder, &site);
        if site.holdings.hold_all(&wanted) {
            self.set_busy(attempt, false);
            tell_prepared(ctx, attempt, Brought::default());
            return true;
        }
        let (sources, news) = (planning.sources(ctx, &wanted), ctx.news.clone());
        ctx.tasks.start(async move {
            let tell = |found| drop(news.send((attempt, News::Bringing(found))));
            let brought = tokio::select! {
                biased;
                brought = build::bring(&site, &wanted, &sources, &tell) => brought,
                () = stop.cancelled() => Err(stopped().into()),
            };
            Input::Prepared(attempt, brought)
        });
        false
    }

    /// What an attempt needs is at its builder, or cannot be brought there: then it has ended.
    pub(super) fn prepared(
        &mut self,
        ctx: &mut Context,
        attempt: AttemptId,
        brought: Result<Brought, NotBrought>,
    ) -> Option<Result<Prepared, NotBrought>> {
        let running = self.running.get_mut(&attempt)?;
        running.busy = false;
        if let Some(failure) = &running.lost {
            return Some(Err(failure.clone().into()));
        }
        if running.stop.is_cancelled() {
            return Some(Err(stopped().into()));
        }
        let (builder, bringing) = (running.builder, running.bringing);
        Some(brought.map(|brought| {
            tell_prepared(ctx, attempt, brought);
            let speed = bringing.and_then(|since| brought.speed(ctx.bus.now().since(since)));
            Prepared { builder, speed }
        }))
    }

    /// A slot is free: it is built.
    pub(super) fn go(&mut self, ctx: &mut Context, graph: &Graph, attempt: AttemptId) {
        let Some(running) = self.running.get_mut(&attempt) else { return };
        running.busy = true;
        let stopped = running.stop.clone();
        let spec = spec(ctx, graph, running.drv);
        let Some(site) = ctx.site_of(running.builder) else {
            let end = AttemptEnd::Failed(Failure::new(Class::BuilderLost, "the builder is gone"));
            ctx.tasks.start(async move { Input::AttemptEnded(attempt, end, Tail::default()) });
            return;
        };
        let mut log = LogWriter::new(&ctx.dir, &spec.path.to_basename(), spec.limits.log.unwrap_or(KEPT_LOG));
        let news = ctx.news.clone();
        let show = ctx.settings.output.logs;
        ctx.tasks.start(async move {
            let end = build::run(&site.pool, &spec, &stopped, |told| {
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
                    News::Bringing(_) | News::Waiting(_) | News::Phase(_) | News::Measured(_) => {}
                }
                let _ = news.send((attempt, told));
            })
            .await;
            let failed = matches!(end, AttemptEnd::Failed(_));
            let Kept { lines, tail } = log.finish().unwrap_or_default();
            Input::AttemptEnded(attempt, end, Tail { lines, last: if failed { tail } else { Vec::new() } })
        });
    }

    fn set_busy(&mut self, attempt: AttemptId, busy: bool) {
        if let Some(running) = self.running.get_mut(&attempt) {
            running.busy = busy;
        }
    }

    /// Stops an attempt. True if it has ended with that; else it says itself when it has stopped.
    #[must_use]
    pub(super) fn stop(&self, attempt: AttemptId) -> bool {
        let Some(running) = self.running.get(&attempt) else { return false };
        running.stop.cancel();
        !running.busy
    }

    /// How many a builder has.
    pub(super) fn count(&self, builder: BuilderId) -> u32 {
        let there = self.running.values().filter(|running| running.builder == builder);
        u32::try_from(there.count()).unwrap_or(u32::MAX)
    }

    /// A builder is lost: its attempts are stopped, and end as lost. Gives those that have ended with that.
    pub(super) fn lose(&mut self, builder: BuilderId, failure: &Failure) -> Vec<AttemptId> {
        let mut idle = Vec::new();
        for (attempt, running) in self.running.iter_mut().filter(|(_, running)| running.builder == builder) {
            running.lost = Some(failure.clone());
            running.stop.cancel();
            if !running.busy {
                idle.push(*attempt);
            }
        }
        idle
    }

    /// An attempt has something to say. `Some` if it waits for somebody else now, or no longer does.
    pub(super) fn news(&mut self, ctx: &mut Context, attempt: AttemptId, news: News) -> Option<bool> {
        let running = self.running.get_mut(&attempt)?;
        match news {
            News::Log(line) => ctx.bus.log(running.drv, &line),
            News::Bringing(found) => {
                running.bringing.get_or_insert(ctx.bus.now());
                ctx.bus.emit(Fact::AttemptBringing { attempt, paths: found.paths, nar_size: found.nar_size });
            }
            News::Building => {
                ctx.bus.emit(Fact::AttemptBuilding { attempt });
                return Some(false);
            }
            News::Waiting(reason) => {
                ctx.bus.emit(Fact::AttemptWaiting { attempt, reason: reason.into() });
                return Some(true);
            }
            News::Measured(cpu) => ctx.bus.emit(Fact::AttemptMeasured { attempt, cpu: cpu.as_secs_f64() }),
            News::Phase(phase) => ctx.bus.emit(Fact::AttemptPhase { attempt, phase: phase.into() }),
        }
        None
    }

    /// An attempt ended.
    pub(super) fn ended(
        &mut self,
        ctx: &mut Context,
        attempt: AttemptId,
        end: AttemptEnd,
        tail: Tail,
    ) -> Option<AttemptOver> {
        let Running { drv, builder, lost, .. } = self.running.remove(&attempt)?;
        let end = match (end, lost) {
            // It was stopped because of that, or noticed it by itself.
            (AttemptEnd::Failed(Failure { class: Class::Cancelled | Class::BuilderLost, .. }), Some(lost)) => {
                AttemptEnd::Failed(lost)
            }
            (end, _) => end,
        };
        let mut outputs = Vec::new();
        if let AttemptEnd::Built { outputs: built } | AttemptEnd::AlreadyValid { outputs: built } = &end {
            let dir = ctx.store_dir();
            let parse = |path: &Arc<str>| dir.parse_path(path.as_bytes()).ok();
            let known = built.iter().filter_map(|o| Some((o.name.to_string(), parse(o.path.as_ref()?)?)));
            outputs = known.collect();
        }
        let log_tail = tail.last.iter().map(|line| Arc::from(line.as_str())).collect();
        ctx.bus.emit(Fact::AttemptEnded { attempt, end: end.clone(), log_lines: tail.lines, log_tail });
        Some(AttemptOver { drv, builder, end, outputs })
    }

    /// The drv of an attempt, and its builder.
    pub(super) fn of(&self, attempt: AttemptId) -> Option<(DrvId, BuilderId)> {
        self.running.get(&attempt).map(|running| (running.drv, running.builder))
    }
}

/// With the local store alone everything is there, and nobody has to be told.
fn tell_prepared(ctx: &mut Context, attempt: AttemptId, brought: Brought) {
    if ctx.is_farm {
        let Brought { copied, copied_size, fetched, .. } = brought;
        ctx.bus.emit(Fact::AttemptPrepared { attempt, copied, copied_size, fetched });
    }
}

/// The outputs of other drvs that a drv uses, as far as they are known before building.
fn inputs(graph: &Graph, drv: DrvId) -> impl Iterator<Item = &StorePath> {
    graph
        .inputs(drv)
        .flat_map(move |(input, names)| names.iter().filter_map(move |name| graph.output_path(input, name)))
}

/// What has to be valid on a builder before a drv can be built there, as far as it may not be. The sources of what is
/// evaluated are in the store of the evaluators; where there is no other builder, inputs are in the local store.
fn needs(ctx: &Context, graph: &Graph, drv: DrvId, builder: BuilderId, site: &Site) -> Vec<StorePath> {
    let mut wanted: HashSet<StorePath> = HashSet::new();
    if ctx.is_farm {
        wanted.extend(inputs(graph, drv).cloned());
    }
    if builder != LOCAL || ctx.evaluates_elsewhere() {
        if graph.is_opaque(drv) || !site.is_trusting() {
            wanted.insert(graph.path(drv).clone());
        } else {
            wanted.extend(graph.info(drv).into_iter().flat_map(|info| &info.sources).cloned());
        }
    }
    wanted.into_iter().collect()
}

/// What an attempt is told: the drv, and the outputs of other drvs that it uses.
fn spec(ctx: &Context, graph: &Graph, drv: DrvId) -> Attempt {
    let outputs = graph.info(drv).map(|info| info.outputs.iter().map(|o| (o.name.clone(), o.path.clone())));
    let build = &ctx.settings.build;
    let nix = ctx.store.settings();
    let or_nix = |ours: Option<Duration>, seconds: u64| ours.or((seconds > 0).then(|| Duration::from_secs(seconds)));
    Attempt {
        path: graph.path(drv).clone(),
        outputs: outputs.map(Iterator::collect).unwrap_or_default(),
        inputs: inputs(graph, drv).cloned().collect(),
        origin: ctx.origin.clone(),
        opaque: graph.is_opaque(drv),
        limits: Limits {
            total: or_nix(build.timeout, nix.timeout),
            silent: or_nix(build.max_silent_time, nix.max_silent_time),
            log: build.max_log_size.or((nix.max_build_log_size > 0).then_some(nix.max_build_log_size)),
        },
    }
}

/// The inputs of a drv that cannot be had because of these wanted paths, each with what is to blame.
pub(super) fn inputs_of(
    graph: &Graph,
    drv: DrvId,
    blamed: &[(StorePath, Vec<StorePath>)],
) -> BTreeMap<DrvId, Vec<StorePath>> {
    let mut inputs: BTreeMap<DrvId, Vec<StorePath>> = BTreeMap::new();
    for (input, names) in graph.inputs(drv) {
        for path in names.iter().filter_map(|name| graph.output_path(input, name)) {
            let culprits = blamed.iter().filter(|(wanted, _)| wanted == path).flat_map(|(_, culprits)| culprits);
            for culprit in culprits {
                inputs.entry(input).or_default().push(culprit.clone());
            }
        }
    }
    inputs
}

/// Somebody wanted it to end.
pub(super) fn stopped() -> Failure {
    Failure::new(Class::Cancelled, "stopped")
}

impl Planning {
    /// Who may have paths that are missing somewhere.
    pub(super) fn sources(&self, ctx: &Context, wanted: &[StorePath]) -> Sources {
        let cached = wanted.iter().filter(|path| self.cache_of(path).is_some()).cloned().collect();
        Sources { caches: self.open_caches().unwrap_or_default(), cached: Arc::new(cached), ..ctx.sources() }
    }
}
