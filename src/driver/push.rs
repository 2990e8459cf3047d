//! `drover push`: makes caches complete, without evaluating or building anything.
//!
//! The same parts as in a run, on the same bus and into a record of its own; only the loop is smaller. Builders are
//! dialled only if something is not in the local store.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config::Settings;
use crate::error::{Error, Fault, Result, exit_code};
use crate::event::{Class, Fact, Pushed, Stage, Text};
use crate::id::{BuilderId, RunId, StorePath};
use crate::push::named;
use crate::store::cache::Cache;
use crate::store::local::LocalStore;
use crate::ui::Ui;

use super::caches::{self, CacheList, Opened};
use super::clock::Clock;
use super::context::Context;
use super::elsewhere::Elsewhere;
use super::farm::FarmInput;
use super::finish::close;
use super::input::Input;
use super::keeping::Keeping;
use super::pushing::{Pushing, Why};
use super::signals::Signals;
use super::start::{Beginning, Begun, Verb, begin, store_options};
use super::stopping::Stopping;
use super::{FRAME, Finished, exit};

/// Paths that are not in the store, of which each is named.
const NAMED: usize = 10;

/// What a push is given.
pub struct PushRequest {
    /// Caches, store, screen.
    pub settings: Settings,
    /// What is pushed.
    pub what: What,
    /// Where relative paths begin.
    pub here: PathBuf,
    /// Which run this is.
    pub run: RunId,
    /// When the process started.
    pub clock: Clock,
    /// The screen.
    pub ui: Ui,
    /// `NIX_DAEMON_SOCKET_PATH`.
    pub daemon_socket: Option<PathBuf>,
}

/// What is pushed, each with all that it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Store paths, or links to them, as typed.
    Paths(Vec<String>),
    /// What an earlier run was about.
    Run {
        /// Its id, as shown.
        run: String,
        /// Absolute store paths.
        paths: Vec<String>,
    },
}

/// Pushes. An error is one that came before anything had begun.
pub async fn push(request: PushRequest) -> Result<Finished> {
    let PushRequest { settings, what, here, run, clock, ui, daemon_socket } = request;
    let store = LocalStore::open(store_options(&settings, daemon_socket)).await?;
    let (words, typed, again) = match &what {
        What::Paths(words) => (words, words.clone(), None),
        What::Run { run, paths } => (paths, vec!["--run".to_owned(), run.clone()], Some("drover run")),
    };
    let paths = words.iter().map(|word| named::store_path(word, &here, store.store_dir())).collect::<Result<_>>()?;
    let list = CacheList::new(&store, &settings)?;
    if !list.has_push() {
        return Err(Error::usage("there is no cache to push to: none of drover.toml has push = true")
            .hint("drover push --push-to CACHE    a name of drover.toml or a URL"));
    }
    let pushable = list.open_pushed(Verb::Push).await?;
    let what = typed.iter().map(|word| word.as_str().into()).collect();
    let beginning = Beginning { settings, origin: None, plan: None, verb: Verb::Push, what, run, clock, ui };
    let Begun { ctx, signals, opened, farm_inputs, .. } = begin(beginning, store, list, pushable)?;
    let stopping = Stopping::new(&ctx.bus, ctx.settings.push.deadline);
    let mut pusher = Pusher {
        ctx,
        signals,
        farm_inputs,
        elsewhere: Elsewhere::default(),
        readable: None,
        pushing: Pushing::default(),
        keeping: Keeping::default(),
        opened,
        paths,
        stopping,
        again,
    };
    pusher.begin();
    pusher.run().await;
    Ok(pusher.finish().await)
}

/// One push. See the module's page.
struct Pusher {
    ctx: Context,
    signals: Signals,
    farm_inputs: mpsc::UnboundedReceiver<(BuilderId, FarmInput)>,
    elsewhere: Elsewhere,
    /// The caches that are read from, once they are open.
    readable: Option<Vec<Opened>>,
    pushing: Pushing,
    keeping: Keeping,
    opened: Vec<Arc<Cache>>,
    paths: Vec<StorePath>,
    stopping: Stopping,
    /// What to type for a path that is not in the store.
    again: Option<&'static str>,
}

impl Pusher {
    fn begin(&mut self) {
        let ctx = &mut self.ctx;
        self.paths.sort();
        self.paths.dedup();
        let absolute = self.paths.iter().map(|path| ctx.absolute(path)).collect();
        ctx.bus.emit(Fact::PushAsked { paths: absolute });
        self.pushing = Pushing::new(ctx, &self.opened, &[]);
        let open = ctx.caches.open_readable();
        ctx.tasks.start(async move { Input::CachesOpen(open.await) });
        self.elsewhere.look(ctx, &self.paths);
    }

    async fn run(&mut self) {
        while !self.is_over() {
            let input = self.next().await;
            self.handle(input);
            self.ctx.bus.settle();
        }
    }

    fn is_over(&self) -> bool {
        let done = self.pushing.is_done() && self.keeping.is_done();
        self.stopping.is_now() || !self.pushing.is_wanted() || done
    }

    async fn next(&mut self) -> Input {
        let frame = self.ctx.bus.in_future(FRAME);
        let wake = self.stopping.push_until().map_or(frame, |until| until.min(frame));
        let alarm = tokio::time::sleep_until(self.ctx.bus.instant(wake));
        tokio::select! {
            biased;
            level = self.signals.next() => Input::Stop(level),
            Some((builder, input)) = self.farm_inputs.recv() => Input::Farm(builder, input),
            input = self.ctx.tasks.next() => input,
            () = alarm => Input::Tick,
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::CachesOpen(opened) => self.readable = Some(opened),
            Input::Valid(answers) => self.elsewhere.looked(&mut self.ctx, answers),
            Input::Farm(builder, input) => self.elsewhere.heard(&mut self.ctx, builder, input),
            Input::BuilderAnswered(builder, paths, valid) => self.elsewhere.answered(&self.ctx, builder, &paths, valid),
            Input::Push(cache, input) => self.pushing.handle(&mut self.ctx, cache, input),
            Input::Tick => caches::tell_repeats_now_and_then(&mut self.ctx),
            Input::Kept(kept) => self.keeping.kept(&mut self.ctx, kept),
            Input::Stop(level) => {
                self.ctx.bus.emit(Fact::Cancelled { level });
                self.wind_down(level);
            }
            Input::Broken(what) => {
                self.stopping.fail(Error::new(Fault::Bug, format!("a part of drover broke: {what}")));
                self.wind_down(2);
            }
            _ => {}
        }
        if self.elsewhere.is_done()
            && let Some(opened) = self.readable.take()
        {
            self.caches_open(opened);
        }
        self.stopping.end_late(&mut self.ctx, &mut self.pushing);
        if self.pushing.is_done() && !self.stopping.is_now() {
            self.keeping.begin(&mut self.ctx, &self.pushing, self.elsewhere.farm());
        }
    }

    /// What other caches hold is not pushed; so all of them are asked that answer.
    fn caches_open(&mut self, opened: Vec<Opened>) {
        let mut upstream: Vec<Arc<Cache>> = self.opened.iter().filter(|cache| cache.pull()).cloned().collect();
        for result in opened {
            match result {
                Ok(cache) => {
                    caches::announce(&mut self.ctx, &cache);
                    upstream.push(cache);
                }
                Err((url, error)) => {
                    let message = format!("cache {url} is left out: {error}");
                    self.ctx.bus.warn(message, Some("what only it has is pushed as well"));
                }
            }
        }
        upstream.sort_by_key(|cache| (cache.priority(), cache.id()));
        self.pushing.add(&mut self.ctx, &self.paths, Why::Asked, &upstream);
        self.pushing.close(&mut self.ctx);
    }

    fn wind_down(&mut self, level: u8) {
        self.stopping.wind_down(&self.ctx.bus, level);
        if self.stopping.is_now() {
            self.pushing.stop(&mut self.ctx);
        }
    }

    async fn finish(mut self) -> Finished {
        self.pushing.end(&mut self.ctx);
        self.ctx.tasks.stop().await;
        self.pushing.abandon().await;
        self.ctx.bus.emit(Fact::StageStarted { stage: Stage::Record });
        let mut faults = exit::faults(self.ctx.bus.events(), &exit::Lenience::for_caches(self.ctx.caches.optional()));
        // Not in the store: that is no fault of a cache.
        faults.extend(self.tell_gone().then_some(Fault::Unreachable));
        faults.extend(self.stopping.error().map(|error| error.fault));
        let dir = self.ctx.store_dir().clone();
        let outputs = self.paths.iter().map(|path| path.to_absolute_path_in(&dir)).collect();
        close(self.ctx, self.elsewhere.close(), exit_code(&faults), self.stopping.error(), outputs).await
    }

    /// Names the paths that are neither in the store nor in a cache that is read from; whether there are any.
    fn tell_gone(&mut self) -> bool {
        let gone = |fact: &Fact| match fact {
            Fact::PushEnded { path, pushed: Pushed::Failed(failure), .. } if failure.class == Class::NoOutput => {
                Some(path.clone())
            }
            _ => None,
        };
        let gone: BTreeSet<Text> = self.ctx.bus.events().iter().filter_map(|event| gone(&event.fact)).collect();
        for path in gone.iter().take(NAMED) {
            let realise = format!("nix-store --realise {path}    brings it here, if that can be done");
            let hint = self.again.map_or(realise, |again| format!("{again}    builds it again"));
            self.ctx.bus.warn(format!("{path} is not in this store"), Some(&hint));
        }
        if gone.len() > NAMED {
            self.ctx.bus.warn(format!("{} more are not in this store", gone.len() - NAMED), None);
        }
        !gone.is_empty()
    }
}
