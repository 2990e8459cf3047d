//! From evaluated attrs to what must be done: keeps the graph and the planner, and has their questions answered.
//!
//! The store is asked first; caches only for what it does not have, and they are opened only when the first such
//! question comes up, so that a run with nothing to do touches no network.

use std::sync::Arc;

use crate::build::Piece;
use crate::diff::load;
use crate::diff::plan::{Brought, Decision, Found, PlanPolicy, Planner, Presence};
use crate::diff::presence::{self, Fact as CacheFact, Facts};
use crate::error::{Error, Fault};
use crate::eval::DrvAnswer;
use crate::event::{Fact, Failure, FetchedPath, Stage};
use crate::graph::Graph;
use crate::id::{AttrId, BuilderId, CacheId, DrvId, StorePath};
use crate::nix_compat::daemon::Trust;
use crate::nix_compat::narinfo::NarInfo;
use crate::store::cache::{Cache, Memory};

use super::asking::Asking;
use super::building::Building;
use super::caches;
use super::context::Context;
use super::farm::Farm;
use super::input::{Asked, Input};
use super::validity::Validity;

/// .drv files that are read as one piece.
const LOADED_AT_ONCE: usize = 256;

/// The caches that are read from.
enum Caches {
    /// Nobody has asked yet.
    Unopened,
    /// Being opened; these paths wait.
    Opening(Vec<StorePath>),
    /// Ready.
    Open(Arc<Vec<Arc<Cache>>>),
}

/// See the module's page.
pub(super) struct Planning {
    pub(super) graph: Graph,
    planner: Planner,
    caches: Caches,
    validity: Validity,
    asking: Asking,
    /// What is not valid will be made: it is held before.
    makes: bool,
    /// Questions to caches that are not answered to the end.
    races: u32,
    started: bool,
    ended: bool,
    /// Totals that were told last.
    told: u32,
    /// Caches of whose silence was warned.
    silent: Vec<CacheId>,
    /// Caches of whose signatures was warned.
    unsigned: Vec<CacheId>,
    /// Caches that were opened before, to be pushed to.
    pushed: Vec<Arc<Cache>>,
    /// What a cache did that nobody may do where all have to answer.
    refusal: Option<Error>,
}

impl Planning {
    /// Nothing is wanted yet. `fetch_roots`: results that only a cache has are fetched. `makes`: what is needed will be
    /// built.
    pub(super) fn new(fetch_roots: bool, makes: bool, pushed: Vec<Arc<Cache>>) -> Self {
        Self {
            graph: Graph::new(),
            planner: Planner::new(PlanPolicy { fetch_roots }),
            caches: Caches::Unopened,
            validity: Validity::default(),
            asking: Asking::default(),
            makes,
            races: 0,
            started: false,
            ended: false,
            told: 0,
            silent: Vec::new(),
            unsigned: Vec::new(),
            pushed,
            refusal: None,
        }
    }

    /// Why the run cannot go on: a cache gives no answer, and all have to (`--strict-caches`).
    pub(super) fn take_refusal(&mut self) -> Option<Error> {
        self.refusal.take()
    }

    /// The caches that are read from, if they are open; starts to open them.
    pub(super) fn caches(&mut self, ctx: &mut Context) -> Option<Arc<Vec<Arc<Cache>>>> {
        if matches!(self.caches, Caches::Unopened) {
            self.ask_caches(ctx, Vec::new());
        }
        self.open_caches()
    }

    pub(super) fn open_caches(&self) -> Option<Arc<Vec<Arc<Cache>>>> {
        match &self.caches {
            Caches::Open(caches) => Some(caches.clone()),
            Caches::Unopened | Caches::Opening(_) => None,
        }
    }

    /// Nothing is asked, and all that was wanted is decided.
    pub(super) fn is_idle(&self) -> bool {
        self.planner.is_idle()
    }

    /// Derivations that need each other, if that is why an attr cannot be decided although nothing is asked any more.
    /// No Nix makes such; a store can be forged.
    pub(super) fn cycle(&self) -> Option<String> {
        if !self.planner.is_idle() || self.planner.undecided().next().is_none() {
            return None;
        }
        let drvs = self.graph.cycle()?;
        Some(drvs.iter().map(|drv| self.graph.path(*drv).name()).collect::<Vec<_>>().join(" → "))
    }

    fn begin(&mut self, ctx: &mut Context) {
        if !std::mem::replace(&mut self.started, true) {
            ctx.bus.emit(Fact::StageStarted { stage: Stage::Diff });
        }
    }

    /// An attr asks for outputs of a drv.
    pub(super) fn want(&mut self, ctx: &mut Context, attr: AttrId, answer: &DrvAnswer) {
        self.begin(ctx);
        let drv = self.graph.intern(&answer.drv);
        let wanted = answer.wanted.iter().map(|name| Arc::from(name.as_str())).collect();
        self.planner.want(&self.graph, attr, drv, wanted);
    }

    /// Somebody reads outputs of a drv: they have to come into the store. Without names, the .drv is only read.
    pub(super) fn want_here(&mut self, ctx: &mut Context, number: AttrId, drv: DrvId, outputs: Vec<Arc<str>>) {
        self.begin(ctx);
        self.makes = true;
        self.planner.want_here(&self.graph, number, drv, outputs);
    }

    /// A fetch did not bring what a cache promised: that counts as absent from now on.
    pub(super) fn fetch_failed(&mut self, drv: DrvId, culprits: &[StorePath]) {
        for cache in self.open_caches().unwrap_or_default().iter() {
            let promised = culprits.iter().filter(|path| self.cache_of(path) == Some(cache.id()));
            cache.forget(&promised.cloned().collect::<Vec<_>>());
        }
        self.planner.fetch_failed(&self.graph, drv, culprits);
    }

    /// What a fetch of this drv is to bring.
    pub(super) fn fetches(&self, drv: DrvId) -> Vec<StorePath> {
        self.planner.fetches(drv).map(|(path, _)| path.clone()).collect()
    }

    /// Whether somebody reads its outputs in the local store.
    pub(super) fn is_wanted_here(&self, drv: DrvId) -> bool {
        self.planner.is_wanted_here(drv)
    }

    /// Whether something that it was to bring is known to be gone by now.
    pub(super) fn is_stale(&self, drv: DrvId) -> bool {
        self.planner.is_stale(drv)
    }

    /// The same, with all that it refers to.
    pub(super) fn fetch_closure(&self, drv: DrvId) -> Vec<Piece> {
        self.planner.fetch_closure(drv)
    }

    /// The cache that promised a path.
    pub(super) fn cache_of(&self, path: &StorePath) -> Option<CacheId> {
        self.planner.cache_of(path)
    }

    /// What people call a cache that is read from.
    pub(super) fn cache_name(&self, cache: CacheId) -> String {
        let open = self.open_caches().unwrap_or_default();
        open.iter().find(|c| c.id() == cache).map(|c| c.name().to_owned()).unwrap_or_default()
    }

    /// Whether the store's daemon fetches by itself from all caches that are read from.
    pub(super) fn daemon_has_all_caches(&self, ctx: &Context) -> bool {
        let daemon = ctx.caches.by_daemon();
        self.open_caches().unwrap_or_default().iter().all(|cache| daemon.contains(&cache.id()))
    }

    /// .drv files were read.
    pub(super) fn loaded(&mut self, read: Vec<(DrvId, Result<crate::graph::DrvInfo, load::LoadError>)>) {
        let mut loaded = Vec::new();
        for (drv, info) in read {
            match info {
                Ok(info) => loaded.push(self.graph.load(info)),
                Err(error) => self.planner.load_failed(&self.graph, drv, Failure::from(&error)),
            }
        }
        self.planner.loaded(&self.graph, &loaded);
    }

    /// The store answered. What it does not have is asked of the caches.
    pub(super) fn valid(&mut self, ctx: &mut Context, farm: &mut Farm, answers: Vec<(Asked, bool)>) {
        self.validity.answered(ctx, self.makes);
        if ctx.is_farm {
            return self.valid_or_elsewhere(ctx, farm, answers);
        }
        let mut facts = Vec::new();
        let mut ask = Vec::new();
        for (asked, valid) in answers {
            match (valid, asked.caches && !ctx.settings.offline) {
                (true, _) => facts.push(Found::new(asked.path, Presence::Valid)),
                (false, true) => ask.push(asked.path),
                (false, false) => facts.push(Found::new(asked.path, Presence::Absent)),
            }
        }
        self.planner.answered(&self.graph, &facts);
        if !ask.is_empty() {
            self.planner.waits_for_caches(&ask);
            self.ask_caches(ctx, ask);
        }
    }

    /// The same where there are other builders, which may have what the store does not.
    fn valid_or_elsewhere(&mut self, ctx: &mut Context, farm: &mut Farm, answers: Vec<(Asked, bool)>) {
        let (valid, not): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, valid)| *valid);
        ctx.site.holdings.note(valid.iter().map(|(asked, _)| &asked.path));
        let mut known: Vec<Found> =
            valid.into_iter().map(|(asked, _)| Found::new(asked.path, Presence::Valid)).collect();
        let offline = ctx.settings.offline;
        let (ask, only): (Vec<_>, Vec<_>) = not.into_iter().partition(|(asked, _)| asked.caches && !offline);
        let paths = |asked: Vec<(Asked, bool)>| asked.into_iter().map(|(asked, _)| asked.path).collect::<Vec<_>>();
        let (ask, only) = (paths(ask), paths(only));
        if !ask.is_empty() || !only.is_empty() {
            farm.dial(ctx);
        }
        let dialling = farm.dialling();
        known.extend(self.asking.ask(ctx, &dialling, &ask, true));
        known.extend(self.asking.ask(ctx, &dialling, &only, false));
        self.planner.answered(&self.graph, &known);
        if !ask.is_empty() {
            self.planner.waits_for_caches(&ask);
            self.ask_caches(ctx, ask);
        }
    }

    /// A builder answered, or failed to.
    pub(super) fn builder_answered(
        &mut self,
        ctx: &mut Context,
        builder: BuilderId,
        paths: &[StorePath],
        valid: Option<&[bool]>,
    ) {
        let known = self.asking.by_builder(ctx, builder, paths, valid);
        self.planner.answered(&self.graph, &known);
    }

    /// A builder is up, or will not be within the time that anybody waits for it.
    pub(super) fn builder_heard(&mut self, ctx: &mut Context, builder: BuilderId, up: bool) {
        if up {
            self.asking.is_up(ctx, builder);
        } else {
            let known = self.asking.is_away(builder);
            self.planner.answered(&self.graph, &known);
        }
    }

    fn ask_caches(&mut self, ctx: &mut Context, paths: Vec<StorePath>) {
        match &mut self.caches {
            Caches::Open(_) if paths.is_empty() => {}
            Caches::Open(caches) => {
                self.races += 1;
                let (caches, strict) = (Arc::clone(caches), ctx.settings.strict_caches);
                ctx.tasks.start(async move {
                    // What one is known to have, the others need not be asked for.
                    let (known, rest) = presence::recall(&caches, paths).await;
                    Input::Facts(known, presence::race(&caches, rest, strict))
                });
            }
            Caches::Opening(waiting) => waiting.extend(paths),
            Caches::Unopened => {
                self.caches = Caches::Opening(paths);
                let open = ctx.caches.open_readable();
                ctx.tasks.start(async move { Input::CachesOpen(open.await) });
            }
        }
    }

    /// The caches are open, as far as they can be.
    pub(super) fn opened(&mut self, ctx: &mut Context, opened: Vec<caches::Opened>) {
        let mut open = self.pushed.clone();
        for result in opened {
            match result {
                Ok(cache) => {
                    caches::announce(ctx, &cache);
                    open.push(cache);
                }
                // The URL as it was given may hold a login.
                Err((_, error)) if ctx.settings.strict_caches => {
                    self.refusal.get_or_insert(Error { fault: Fault::Unreachable, ..error });
                }
                Err((_, error)) => {
                    let hint = error.hint.clone().unwrap_or_else(|| "what only it has is built".to_owned());
                    ctx.bus.warn(format!("a cache is left out: {error}"), Some(&hint));
                }
            }
        }
        let before = std::mem::replace(&mut self.caches, Caches::Open(Arc::new(presence::readable(&open))));
        if let Caches::Opening(waiting) = before {
            self.ask_caches(ctx, waiting);
        }
    }

    /// The caches answered some of what they were asked; the rest is still to come.
    pub(super) fn answered(&mut self, ctx: &mut Context, facts: Vec<(StorePath, CacheFact)>, rest: Facts) {
        let mut known = Vec::with_capacity(facts.len());
        for (path, fact) in facts {
            let presence = match fact {
                CacheFact::Present { cache, info } => {
                    known.push(found(path, cache, &info));
                    continue;
                }
                CacheFact::Untrusted { cache, keys } => {
                    self.warn_of_signature(ctx, cache, &path, &keys);
                    Presence::Untrusted
                }
                CacheFact::Absent => Presence::Absent,
                CacheFact::NoAnswer { cache, failure } => {
                    self.warn_of_silence(ctx, cache, &failure);
                    Presence::NoAnswer
                }
            };
            known.push(Found::new(path, presence));
        }
        let known = self.asking.by_caches(known);
        self.planner.answered(&self.graph, &known);
        if let Some(trouble) = ctx.caches.memory().and_then(Memory::take_trouble) {
            ctx.bus
                .warn(format!("what caches said is not remembered: {trouble}"), Some("caches are asked for all paths"));
        }
        if !rest.is_over() {
            return listen(ctx, rest);
        }
        self.races = self.races.saturating_sub(1);
        if self.races > 0 {
            return;
        }
        for cache in self.open_caches().unwrap_or_default().iter() {
            let counts = cache.counts();
            let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            ctx.bus.emit(Fact::CacheAsked {
                cache: cache.id(),
                present: small(counts.present),
                absent: small(counts.absent),
                untrusted: small(counts.untrusted),
                no_answer: small(counts.no_answer),
            });
        }
    }

    /// One warning a cache.
    fn warn_of_silence(&mut self, ctx: &mut Context, cache: CacheId, failure: &Failure) {
        if self.silent.contains(&cache) {
            return;
        }
        self.silent.push(cache);
        let message = format!("cache {} gives no answer: {}", self.cache_name(cache), failure.message);
        if ctx.settings.strict_caches {
            let error = Error::new(Fault::Unreachable, message);
            self.refusal.get_or_insert(error.hint("without --strict-caches, what only it has is built"));
        } else {
            ctx.bus.warn(message, Some("what only it has is built"));
        }
    }

    /// One warning a cache.
    fn warn_of_signature(&mut self, ctx: &mut Context, cache: CacheId, path: &StorePath, keys: &[String]) {
        if self.unsigned.contains(&cache) {
            return;
        }
        self.unsigned.push(cache);
        let name = self.cache_name(cache);
        let signed = match keys {
            [] => "not signed".to_owned(),
            keys => format!("signed by {}, which this store does not trust", keys.join(" and ")),
        };
        let (file, setting) = match ctx.store.trust() {
            Trust::Untrusted => {
                ("the nix.conf of the daemon, which does not take keys from this user", "trusted-public-keys")
            }
            Trust::Trusted | Trust::Unknown => ("nix.conf", "trusted-public-keys"),
        };
        let hint = match keys {
            [] => format!("nix store sign --recursive --key-file FILE    where cache {name} is filled"),
            _ => format!("extra-{setting} = NAME:BASE64    in {file}"),
        };
        let message = format!("cache {name}: {} is {signed}; such paths are built", path.name());
        ctx.bus.warn(message, Some(&hint));
    }

    /// Starts what the planner wants to know; gives what it has decided. To be called until it gives nothing.
    pub(super) fn turn(&mut self, ctx: &mut Context) -> Vec<Decision> {
        let questions = self.planner.questions(&self.graph);
        // What comes of the first is asked while the rest is read.
        for drvs in questions.load.chunks(LOADED_AT_ONCE) {
            let drvs = drvs.to_vec();
            let paths: Vec<StorePath> = drvs.iter().map(|drv| self.graph.path(*drv).clone()).collect();
            let (store, plan) = (ctx.eval_store.clone(), ctx.plan.clone());
            ctx.tasks.start(async move {
                let infos = match plan {
                    Some(plan) => plan.load(&store, paths).await,
                    None => load::load(&store, paths).await,
                };
                Input::Loaded(drvs.into_iter().zip(infos).collect())
            });
        }
        let asked = questions.ask.into_iter().map(|question| Asked { path: question.path, caches: question.caches });
        self.validity.ask(ctx, asked, self.makes);
        let decisions = self.planner.decisions(&self.graph);
        self.tell(ctx);
        decisions
    }

    /// Totals, where they have grown.
    fn tell(&mut self, ctx: &mut Context) {
        let totals = self.planner.totals();
        let known = totals.valid + totals.present + totals.absent + totals.untrusted + totals.no_answer;
        if known != self.told {
            self.told = known;
            ctx.bus.emit(Fact::DiffProgress {
                paths: totals.paths,
                valid: totals.valid,
                present: totals.present,
                absent: totals.absent,
                untrusted: totals.untrusted,
                no_answer: totals.no_answer,
            });
        }
    }

    /// Nothing more will be wanted and all is decided.
    pub(super) fn end(&mut self, ctx: &mut Context, building: &Building) {
        if self.started && !std::mem::replace(&mut self.ended, true) {
            self.tell_spared(ctx, building);
            let brought = self.planner.brought();
            if !brought.is_empty() {
                let path = |brought: Brought| FetchedPath {
                    path: ctx.absolute(&brought.path),
                    cache: brought.cache,
                    nar_size: brought.nar_size,
                    file_size: brought.file_size,
                };
                let paths = brought.into_iter().map(path).collect();
                ctx.bus.emit(Fact::FetchesPlanned { paths });
            }
            ctx.bus.emit(Fact::StageEnded { stage: Stage::Diff });
        }
    }
}

impl Planning {
    /// What caches spare the run, as far as earlier runs know.
    fn tell_spared(&self, ctx: &mut Context, building: &Building) {
        let (paths, nar_size) = self.planner.in_caches();
        if paths == 0 {
            return;
        }
        let (mut drvs, mut known, mut seconds) = (0, 0, 0.0);
        for drv in self.planner.spared() {
            drvs += 1;
            if let Some(expected) = building.expected(ctx, &self.graph, drv) {
                known += 1;
                seconds += expected;
            }
        }
        ctx.bus.emit(Fact::CachesSpared { drvs, known, seconds, paths, nar_size });
    }
}

/// Waits for what caches say next.
fn listen(ctx: &mut Context, mut facts: Facts) {
    ctx.tasks.start(async move {
        let known = facts.next().await.unwrap_or_default();
        Input::Facts(known, facts)
    });
}

/// What a cache's record says, as the planner knows it.
fn found(path: StorePath, cache: CacheId, info: &NarInfo) -> Found {
    Found {
        references: info.references().iter().cloned().collect(),
        nar_size: info.nar_size(),
        file_size: info.file_size().unwrap_or_default(),
        ..Found::new(path, Presence::Present(cache))
    }
}
