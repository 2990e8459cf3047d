//! The beginning of a run: the store, the record, the caches that are pushed to. What fails here fails before anything
//! was evaluated or built.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};

use crate::build::Pool;
use crate::error::{Error, Fault, Result};
use crate::event::{FORMAT, Fact};
use crate::record::{self, RecordError, RunDir};
use crate::report::history::History;
use crate::store::local::{LocalStore, StoreOptions, Wishes};
use crate::store::roots::Roots;

use super::attrs::Attrs;
use super::building::Building;
use super::bus::Bus;
use super::context::Context;
use super::evaluate::{self, Evaluation};
use super::planning::Planning;
use super::pushing::Pushing;
use super::signals::Signals;
use super::tasks::Tasks;
use super::{Driver, Links, Mode, Request, caches};

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

/// Makes a driver that has begun to evaluate.
pub(super) async fn start(request: Request) -> Result<Driver> {
    let Request { settings, mode, run, clock, ui, daemon_socket } = request;
    let options = StoreOptions {
        store: settings.store.clone(),
        options: settings.eval.options.clone(),
        daemon_socket,
        ..StoreOptions::default()
    };
    let wanted = evaluate::wanted(&settings, &options)?;
    let (store, commit) = tokio::join!(LocalStore::open(options), wanted.look());
    let store = store?;
    let origin = eval_store(&store, settings.eval_store.as_deref()).await?;
    let wanted = wanted.on(commit, &settings, store.settings().systems());
    let pushed = caches::open_pushed(&store, &settings).await?;
    let signals = Signals::listen()?;

    let dir = RunDir::new(&settings.output.state_dir, run);
    let events = settings.output.events.as_deref();
    let mut bus = Bus::open(clock, &dir, events, ui).map_err(|error| {
        let of_events = matches!(&error, RecordError::Io { path, .. } if Some(path.as_path()) == events);
        Error::from_chain(Fault::Usage, &error).hint(match of_events {
            true => "drover run --events FILE    in a directory that can be written",
            false => "drover run --state-dir DIR    with a directory that can be written",
        })
    })?;
    bus.emit(Fact::RunStarted {
        format: FORMAT,
        run,
        drover: env!("CARGO_PKG_VERSION").into(),
        command: if mode == Mode::Run { "run" } else { "plan" }.into(),
        what: settings.attrs.what.iter().map(|word| word.as_str().into()).collect(),
        started: clock.started,
        nix: store.version().text.as_str().into(),
    });
    if let Some(untested) = store.version().untested() {
        bus.warn(untested, None);
    }

    let (news_in, news) = mpsc::unbounded_channel();
    let wishes = Wishes {
        overrides: caches::overrides(&store, &settings),
        substitute: settings.offline.then_some(false),
        ..Wishes::default()
    };
    let settings = Arc::new(settings);
    let roots = Arc::new(Mutex::new(Roots::new(store.clone())));
    let mut ctx = Context {
        bus,
        tasks: Tasks::default(),
        pool: Arc::new(Pool::new(store.clone(), wishes).with_origin(origin.clone())),
        eval_roots: match &origin {
            Some(origin) => Arc::new(Mutex::new(Roots::new(origin.clone()))),
            None => roots.clone(),
        },
        roots,
        eval_store: origin.unwrap_or_else(|| store.clone()),
        store,
        settings: settings.clone(),
        dir,
        news: news_in,
    };
    for cache in &pushed {
        caches::announce(&mut ctx, cache);
    }
    let _ = record::prune(&settings.output.state_dir, record::KEEP);
    let building = Building::new(&mut ctx, History::load(&settings.output.state_dir));
    let evaluation = Evaluation::begin(&mut ctx, wanted);
    let fetch_roots = settings.build.download || settings.build.out_link.is_some();
    let readable = pushed.iter().filter(|cache| cache.pull()).cloned().collect();
    let pushing = match mode {
        Mode::Run => Pushing::new(&mut ctx, &pushed),
        Mode::Plan => Pushing::default(),
    };
    Ok(Driver {
        optional: caches::optional(&ctx.store, &settings),
        ctx,
        mode,
        signals,
        news,
        evaluation,
        planning: Planning::new(fetch_roots, readable),
        building,
        pushing,
        attrs: Attrs::default(),
        outcomes: std::collections::BTreeMap::new(),
        passed_over: Vec::new(),
        left_out: std::collections::BTreeMap::new(),
        stopping: 0,
        push_until: None,
        unpushed: Vec::new(),
        links: Links::NotYet,
        error: None,
    })
}
