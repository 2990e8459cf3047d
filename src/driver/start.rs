//! The beginning of a run: the store, the record, the caches that are pushed to. What fails here fails before anything
//! was evaluated or built.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::build::{News, Origin, Pool, Site, Sites};
use crate::config::{BuilderSettings, Settings, Whereabouts, builders};
use crate::diff::plan_file::PlanFile;
use crate::error::{Error, Fault, Result};
use crate::eval::{Evaluator, Expected, Import, Imports};
use crate::event::{FORMAT, Fact, Moment, Text};
use crate::id::{AttemptId, BuilderId, CacheId, RunId};
use crate::record::{self, RecordError, RunDir};
use crate::report::history::History;
use crate::store::any::Store;
use crate::store::cache::Cache;
use crate::store::local::{LocalStore, StoreOptions, Wishes};
use crate::store::roots::Roots;
use crate::ui::Ui;

use super::attrs::Attrs;
use super::before::OnBase;
use super::beside::Beside;
use super::building::Building;
use super::bus::Bus;
use super::caches::{self, CacheList, Pushable};
use super::clock::Clock;
use super::comparing::Comparing;
use super::context::Context;
use super::evaluate::{self, Evaluation, Source, Wanted};
use super::farm::{self, Farm, FarmInput};
use super::homecoming::{self, Homecoming};
use super::importing::Importing;
use super::keeping::Keeping;
use super::left_out::LeftOutAttrs;
use super::plan_file;
use super::planning::Planning;
use super::pushing::Pushing;
use super::quarantine::Quarantines;
use super::recall::Recall;
use super::results::Results;
use super::signals::Signals;
use super::source;
use super::stopping::Stopping;
use super::tasks::Tasks;
use super::trust;
use super::{Driver, Mode, Request};

/// The store that evaluators write to, if it is not the one that builds.
async fn eval_store(store: &LocalStore, uri: Option<&str>) -> Result<Option<LocalStore>> {
    let Some(uri) = uri.filter(|uri| *uri != store.uri()) else { return Ok(None) };
    let origin = store.other(uri).await?;
    if origin.store_dir() != store.store_dir() {
        let (theirs, ours) = (origin.store_dir(), store.store_dir());
        let message = format!("the evaluation store {uri} is for {theirs}, the store that builds for {ours}");
        return Err(Error::usage(message).hint("drover run --eval-store URL    with a store in the same directory"));
    }
    Ok(Some(origin))
}

/// A store of this machine as a place that paths are brought to.
fn place(store: &LocalStore, wishes: Wishes) -> Arc<Site> {
    let fetches = wishes.substitute.unwrap_or(store.settings().substitute);
    let pool = Arc::new(Pool::new(Store::Local(store.clone()), wishes));
    let roots = Arc::new(Mutex::new(Roots::new(Store::Local(store.clone()))));
    Arc::new(Site::new(pool, roots, fetches))
}

/// How the store is reached.
pub(super) fn store_options(settings: &Settings, daemon_socket: Option<std::path::PathBuf>) -> StoreOptions {
    StoreOptions {
        store: settings.store.clone(),
        options: settings.eval.options.clone(),
        daemon_socket,
        ..StoreOptions::default()
    }
}

/// The command that a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Run,
    Check,
    Plan,
    Matrix,
    Why,
    Affected,
    Push,
}

impl Verb {
    /// As it is typed.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Check => "check",
            Self::Plan => "plan",
            Self::Matrix => "matrix",
            Self::Why => "why",
            Self::Affected => "affected",
            Self::Push => "push",
        }
    }
}

/// What a run begins with, besides the store and the caches.
pub(super) struct Beginning {
    pub(super) settings: Settings,
    /// Where evaluators leave derivations, if that is another store.
    pub(super) origin: Option<LocalStore>,
    /// A plan that takes the place of evaluators.
    pub(super) plan: Option<Arc<PlanFile>>,
    pub(super) verb: Verb,
    /// What was asked for, as typed.
    pub(super) what: Vec<Text>,
    pub(super) run: RunId,
    pub(super) clock: Clock,
    pub(super) ui: Ui,
}

/// A run that has begun.
pub(super) struct Begun {
    pub(super) ctx: Context,
    pub(super) news: mpsc::UnboundedReceiver<(AttemptId, News)>,
    pub(super) imports: mpsc::UnboundedReceiver<Import>,
    pub(super) farm_inputs: mpsc::UnboundedReceiver<(BuilderId, FarmInput)>,
    pub(super) signals: Signals,
    /// The caches that were opened.
    pub(super) opened: Vec<Arc<Cache>>,
    /// Those that are to be pushed to and cannot be at the moment.
    pub(super) sick: Vec<CacheId>,
}

/// Opens the record and says what there is.
pub(super) fn begin(beginning: Beginning, store: LocalStore, caches: CacheList, open: Pushable) -> Result<Begun> {
    let Beginning { settings, origin, plan, verb, what, run, clock, ui } = beginning;
    let command = verb.word();
    let signals = Signals::listen()?;
    let dir = RunDir::new(&settings.output.state_dir, run);
    let events = settings.output.events.as_deref();
    let mut bus = Bus::open(clock, &dir, events, ui).map_err(|error| {
        let of_events = matches!(&error, RecordError::Io { path, .. } if Some(path.as_path()) == events);
        Error::from_chain(Fault::Usage, &error).hint(match of_events {
            true => format!("drover {command} --events FILE    in a directory that can be written"),
            false => format!("drover {command} --state-dir DIR    with a directory that can be written"),
        })
    })?;
    bus.emit(Fact::RunStarted {
        format: FORMAT,
        run,
        drover: env!("CARGO_PKG_VERSION").into(),
        command: command.into(),
        what,
        started: clock.started,
        nix: store.version().text.as_str().into(),
    });
    tell_whereabouts(&mut bus, &settings.output.whereabouts);
    if let Some(untested) = store.version().untested() {
        bus.warn(untested, None);
    }

    let (news_in, news) = mpsc::unbounded_channel();
    let (imports_in, imports) = mpsc::unbounded_channel();
    let (farm_in, farm_inputs) = mpsc::unbounded_channel();
    let wishes = Wishes {
        overrides: trust::overrides(&store, &settings),
        substitute: settings.offline.then_some(false),
        ..Wishes::default()
    };
    let local = place(&store, wishes);
    let eval_site = match &origin {
        Some(origin) => place(origin, Wishes::default()),
        None => local.clone(),
    };
    let mut ctx = Context {
        bus,
        tasks: Tasks::default(),
        origin: match (&plan, &origin) {
            (Some(plan), _) => Origin::Bundle(Arc::clone(&plan.bundle)),
            (None, Some(origin)) => Origin::Store(origin.clone()),
            (None, None) => Origin::Store(store.clone()),
        },
        plan,
        pool: local.pool.clone(),
        roots: local.roots.clone(),
        site: local,
        sites: Sites::default(),
        is_farm: false,
        eval_roots: eval_site.roots.clone(),
        eval_site,
        eval_store: origin.unwrap_or_else(|| store.clone()),
        store,
        settings: Arc::new(settings),
        caches: Arc::new(caches),
        dir,
        news: news_in,
        imports: imports_in,
        farm_inputs: farm_in,
        next_repeats: Moment::default(),
    };
    for cache in &open.caches {
        caches::announce(&mut ctx, cache);
    }
    for (message, hint) in open.warnings {
        ctx.bus.warn(message, Some(&hint).filter(|hint| !hint.is_empty()).map(String::as_str));
    }
    let _ = record::prune(&ctx.settings.output.state_dir, record::KEEP);
    Ok(Begun { ctx, news, imports, farm_inputs, signals, opened: open.caches, sick: open.sick })
}

/// Says of what the run is, if anybody knows.
fn tell_whereabouts(bus: &mut Bus, of: &Whereabouts) {
    if *of == Whereabouts::default() {
        return;
    }
    let text = |text: &Option<String>| text.as_deref().map(Into::into);
    bus.emit(Fact::RunPlaced {
        forge: of.forge.map(Into::into),
        repository: text(&of.repository),
        branch: text(&of.branch),
        change: text(&of.change),
        url: text(&of.url),
    });
}

/// Where the answers of a run will come from.
enum Answers {
    Flake(Box<Wanted>),
    Plan {
        evaluator: Evaluator,
        by_name: bool,
    },
    /// Of another evaluator.
    Lines(Box<source::Opened>),
    /// The same, which drover starts.
    Jobs(Box<source::Started>),
}

/// Opens the store, and finds out where the answers come from: a plan, or a flake whose work tree is looked at meanwhile.
async fn answers(
    settings: &Settings,
    options: StoreOptions,
    history: &History,
) -> Result<(LocalStore, Option<Arc<PlanFile>>, Answers)> {
    if let Some(file) = &settings.plan.read {
        let store = LocalStore::open(options).await?;
        let plan = plan_file::open(file, &store).await?;
        let attrs = plan_file::chosen(&plan, &settings.attrs)?;
        let evaluator = plan_file::answers(attrs, store.store_dir());
        let answers = Answers::Plan { evaluator, by_name: !settings.attrs.what.is_empty() };
        return Ok((store, Some(Arc::new(plan)), answers));
    }
    if let Some(lines) = source::lines(settings).await? {
        let store = LocalStore::open(options).await?;
        return Ok((store, None, Answers::Lines(Box::new(lines))));
    }
    if settings.eval.jobs {
        let nix = evaluate::nix(&options, settings);
        let store = LocalStore::open(options).await?;
        let no_ifd = evaluate::imports(&store, settings) != Imports::Built;
        let started = source::jobs(settings, &store, nix, no_ifd).await?;
        return Ok((store, None, Answers::Jobs(Box::new(started))));
    }
    let wanted = evaluate::wanted(settings, &options)?;
    // What the look begins takes longest, so it comes first.
    let (looked, store) = tokio::join!(wanted.look(settings), LocalStore::open(options));
    let store = store?;
    let wanted =
        wanted.on(looked, settings, farm::systems(&store, &named(settings, &store)?)).expecting(expected(history));
    Ok((store, None, Answers::Flake(Box::new(wanted))))
}

/// The builders that flags, files and Nix name.
pub(super) fn named(settings: &Settings, store: &LocalStore) -> Result<Vec<BuilderSettings>> {
    builders::all(settings, &store.settings().builders, builders::read)
}

/// What counts of a drover.toml that a stranger wrote.
fn warn_of_stranger(ctx: &mut Context) {
    let Some(stranger) = &ctx.settings.stranger else { return };
    let target = &stranger.target;
    let (message, hint) = match stranger.at_hand {
        true => (
            format!("the pull request of a fork: of its drover.toml only [attrs] counts, and else that of {target}"),
            None,
        ),
        false => (
            format!(
                "the pull request of a fork: of its drover.toml only [attrs] counts; that of {target} is not in this clone"
            ),
            Some(stranger.whole),
        ),
    };
    ctx.bus.warn(message, hint);
}

/// What is surprising about the builders of this run.
fn warn_of_builders(ctx: &mut Context, named: &[BuilderSettings]) {
    let passed_over = &ctx.settings.farm.passed_over;
    if !passed_over.is_empty() {
        let names = passed_over.join(", ");
        let message = format!("builders of drover.toml are not used in the pull request of a fork: {names}");
        ctx.bus.warn(message, Some("export DROVER_BUILDERS='ssh-ng://ci@big1'    in the settings of the CI system"));
    }
    let slots = ctx.settings.build.max_jobs.map(u64::from).or(ctx.store.settings().max_jobs);
    if slots == Some(0) && named.is_empty() {
        let message = "nothing can be built: this machine has no slots (max-jobs is 0), and there is no other builder";
        ctx.bus.warn(message, Some("drover run --builders ssh-ng://HOST    or --max-jobs auto"));
    }
}

/// What history says about attrs.
fn expected(history: &History) -> Expected {
    Expected { seconds: history.eval_seconds(), failed: history.failed().clone() }
}

/// What may fail, which only a check knows.
fn quarantines(settings: &Settings, mode: Mode, clock: &Clock) -> Result<Quarantines> {
    match mode {
        Mode::Check => Quarantines::new(settings, clock.day()),
        _ => Ok(Quarantines::default()),
    }
}

/// Makes a driver that has begun to evaluate.
pub(super) async fn start(request: Request) -> Result<Driver> {
    let Request { settings, mode, run, clock, ui, daemon_socket } = request;
    let comparing = Comparing::new(&source::base(&settings)?, mode == Mode::Affected);
    if comparing.is_impossible() {
        return Err(Error::usage("there is nothing to compare with: neither --base nor a pull request says what")
            .hint("drover affected --base main    a branch, a tag, a commit or a flake"));
    }
    let quarantines = quarantines(&settings, mode, &clock)?;
    let options = store_options(&settings, daemon_socket);
    let history = History::load(&settings.output.state_dir);
    let (store, plan, answers) = answers(&settings, options, &history).await?;
    let origin = eval_store(&store, settings.eval_store.as_deref()).await?;
    let list = CacheList::new(&store, &settings)?;
    if let Some(memory) = list.memory().filter(|_| mode == Mode::Why) {
        memory.doubt();
    }
    let (verb, pushable) = match mode {
        Mode::Run => (Verb::Run, list.open_pushed(Verb::Run).await?),
        Mode::Check => (Verb::Check, list.open_pushed(Verb::Check).await?),
        Mode::Plan => (Verb::Plan, list.open_pushed(Verb::Plan).await?),
        Mode::Matrix => (Verb::Matrix, list.open_pushed(Verb::Matrix).await?),
        Mode::Why => (Verb::Why, list.open_pushed(Verb::Why).await?),
        // No cache has anything to do with it.
        Mode::Affected => (Verb::Affected, Pushable::default()),
    };
    let recall = Recall::new(&store, &settings, &list)?.for_answers(mode == Mode::Affected);
    let recall = Arc::new(recall);

    let what = settings.attrs.what.iter().map(|word| word.as_str().into()).collect();
    let Begun { mut ctx, news, imports, farm_inputs, signals, opened, sick } =
        begin(Beginning { settings, origin, plan, verb, what, run, clock, ui }, store, list, pushable)?;
    let settings = ctx.settings.clone();
    let named = named(&settings, &ctx.store)?;
    warn_of_stranger(&mut ctx);
    warn_of_builders(&mut ctx, &named);
    ctx.is_farm = named.iter().any(|builder| !builder.is_local());
    let (mut farm, known) = Farm::new(&mut ctx, named);
    let mut building = Building::new(&ctx, history, quarantines.counts_failures());
    known.into_iter().for_each(|input| building.tell(&ctx, input));
    homecoming::warn(&mut ctx);
    let source = match answers {
        Answers::Flake(mut wanted) => {
            if mode == Mode::Check {
                let own = (!settings.attrs.all_systems).then(|| ctx.store.settings().system.clone());
                wanted.check(own);
            }
            Source::Flake(wanted, recall)
        }
        Answers::Lines(lines) => Source::Stream { evaluator: lines.evaluator(&mut ctx), by_name: false },
        Answers::Jobs(jobs) => Source::Stream { evaluator: jobs.evaluator(&mut ctx), by_name: false },
        Answers::Plan { evaluator, by_name } => Source::Stream { evaluator, by_name },
    };
    let evaluation = Evaluation::begin(&mut ctx, source);
    if evaluation.is_new() {
        farm.expect(&mut ctx, mode);
    }
    if let Some(plan) = ctx.plan.clone() {
        plan_file::announce(&mut ctx, &plan);
    }
    let fetch_roots = settings.build.download || settings.build.out_link.is_some();
    let readable = opened.iter().filter(|cache| cache.pull()).cloned().collect();
    let pushing = match mode {
        Mode::Run | Mode::Check => Pushing::new(&mut ctx, &opened, &sick),
        Mode::Plan | Mode::Matrix | Mode::Why | Mode::Affected => Pushing::default(),
    };
    let stopping = Stopping::new(&ctx.bus, settings.push.deadline);
    Ok(Driver {
        ctx,
        mode,
        signals,
        news,
        imports,
        evaluation,
        comparing,
        base_again: None,
        on_base: OnBase::default(),
        planning: Planning::new(fetch_roots, mode == Mode::Run, readable),
        building,
        farm,
        farm_inputs,
        homecoming: Homecoming::default(),
        parked: Vec::new(),
        importing: Importing::default(),
        beside: Beside::new(mode == Mode::Check && settings.check.beside_nix),
        pushing,
        keeping: Keeping::default(),
        attrs: Attrs::default(),
        outcomes: std::collections::BTreeMap::new(),
        left_out: LeftOutAttrs::default(),
        quarantines,
        stopping,
        unpushed: Vec::new(),
        results: Results::default(),
    })
}
