//! Which caches a run has, and opening them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::{CacheSettings, Origin, PushWhen, Settings};
use crate::error::{Error, Fault};
use crate::event::{Class, Fact, Failure};
use crate::id::CacheId;
use crate::nix_compat::daemon::Trust;
use crate::push::LeaveOut;
use crate::store::cache::{
    Cache, CacheConfig, CacheError, Ledger, Memory, OpenContext, Repeated, SecretKey, by_hand, ledger,
};
use crate::store::local::LocalStore;

use super::context::Context;
use super::start::Verb;
use super::trust;

/// A cache that was opened, or its URL and why not.
pub(super) type Opened = Result<Arc<Cache>, (String, Error)>;

/// One cache of a run.
struct Known {
    id: CacheId,
    config: CacheConfig,
    push: PushWhen,
    /// `--push-to` named it.
    asked: bool,
    leave_out: LeaveOut,
}

/// All caches of a run: first Nix's own, then the configured ones. A [`CacheId`] is a place in this list.
pub(super) struct CacheList {
    known: Vec<Known>,
    /// Those from which the store's daemon fetches by itself.
    by_daemon: BTreeSet<CacheId>,
    context: Arc<OpenContext>,
    /// Why pushes are not remembered.
    no_ledger: Option<String>,
    /// All have to be well (`--strict-caches`).
    strict: bool,
}

/// The caches that are pushed to, and what has to be said about those that are not after all.
#[derive(Default)]
pub(super) struct Pushable {
    /// Ready; those that may only be read from are among them.
    pub(super) caches: Vec<Arc<Cache>>,
    /// Those that cannot be pushed to at the moment, and are tried again.
    pub(super) sick: Vec<CacheId>,
    /// Message and hint.
    pub(super) warnings: Vec<(String, String)>,
}

impl CacheList {
    /// What Nix and the settings say. Files that they name are looked at; nothing is opened.
    pub(super) fn new(store: &LocalStore, settings: &Settings) -> Result<Self, Error> {
        let nix = store.settings();
        let pull = nix.substitute && !settings.offline;
        let from_nix = nix.substituters.iter().filter(|_| pull).map(|url| {
            let trusted = trust::word(store, url);
            let config = CacheConfig { url: url.clone(), pull, trusted, ..CacheConfig::default() };
            (config, PushWhen::No, false, LeaveOut::default())
        });
        let ours = settings.caches.iter().map(|cache| {
            let asked = matches!(cache.origin, Origin::Flag | Origin::Env);
            let config = configured(cache);
            let config = CacheConfig { pull: config.pull && pull, trusted: trust::word(store, &cache.url), ..config };
            let leave_out = LeaveOut::new(cache.leave_out.larger_than, &cache.leave_out.names);
            (config, cache.push, asked && cache.push.is_now(), leave_out)
        });
        let all = from_nix.chain(ours).enumerate();
        let known = all.map(|(at, (config, push, asked, leave_out))| Known {
            id: CacheId(u32::try_from(at).unwrap_or(u32::MAX)),
            config,
            push,
            asked,
            leave_out,
        });
        let known: Vec<Known> = known.collect();
        known.iter().try_for_each(|known| known.config.check_files())?;
        let by_daemon = known.iter().filter(|known| trust::daemon_applies(store, &known.config)).map(|known| known.id);
        let (ledger, no_ledger) = ledger(settings);
        let context = OpenContext { ledger, ..open_context(store, settings) };
        Ok(Self {
            by_daemon: by_daemon.collect(),
            known,
            context: Arc::new(context),
            no_ledger,
            strict: settings.strict_caches,
        })
    }

    /// Opens those that are only read from, at once. Those that are pushed to are open by then.
    pub(super) fn open_readable(&self) -> impl Future<Output = Vec<Opened>> + Send + 'static {
        let wanted = self.known.iter().filter(|known| known.config.pull && !known.config.push);
        let opening: Vec<_> = wanted.map(|known| open(known.id, known.config.clone(), self.context.clone())).collect();
        async move {
            let opened = join_all(opening).await.into_iter();
            opened.map(|(config, cache)| cache.map_err(|error| (config.shown_url(), error.into()))).collect()
        }
    }

    /// Opens those that are pushed to, at once. One that cannot be pushed to ends the run before anything is built,
    /// unless it is optional, or nobody gave it a login and nobody asked for it by `--push-to`: then it is read from
    /// as far as it can be. One that only cannot at the moment is tried again, unless all have to be well.
    pub(super) async fn open_pushed(&self, verb: Verb) -> Result<Pushable, Error> {
        let wanted: Vec<&Known> = self.known.iter().filter(|known| known.config.push).collect();
        let opening = wanted.iter().map(|known| open(known.id, known.config.clone(), self.context.clone()));
        let mut pushable = Pushable::default();
        pushable.warnings.extend(self.no_ledger.iter().map(|why| (why.clone(), String::new())));
        for (known, (config, opened)) in wanted.iter().zip(join_all(opening).await) {
            let error = match opened {
                Ok(cache) => {
                    pushable.caches.push(cache);
                    continue;
                }
                Err(error) => error,
            };
            let may_wait = !self.strict && known.push != PushWhen::Optional && verb != Verb::Push;
            if may_wait && matches!(error, CacheError::Sick { .. }) {
                pushable.sick.push(known.id);
                let hint = format!("it is tried again; without pushing: drover {} --no-push", verb.word());
                pushable.warnings.push((error.to_string(), hint));
                continue;
            }
            let may_be_left = match known.push {
                PushWhen::Optional => error.is_refusal() || is_network(&error),
                _ => error.has_no_login() && !known.asked && verb != Verb::Push,
            };
            if !may_be_left {
                return Err(fatal(error, verb));
            }
            let readable = error.is_refusal() && config.pull;
            let name = config.name.clone().unwrap_or_else(|| config.shown_url());
            let error = Error::from(error);
            pushable.warnings.push((
                format!("nothing is pushed to {name}: {}", error.message.replace('\n', ", ")),
                error.hint.unwrap_or_default(),
            ));
            if readable
                && let (_, Ok(cache)) =
                    open(known.id, CacheConfig { push: false, ..config }, self.context.clone()).await
            {
                pushable.caches.push(cache);
            }
        }
        Ok(pushable)
    }

    /// The keys that sign for the caches that are pushed to. One that cannot be read is told by whoever pushes.
    pub(super) fn secret_keys(&self) -> Vec<SecretKey> {
        let keys = self.known.iter().filter_map(|known| known.config.secret_keys().ok());
        keys.flatten().collect()
    }

    /// All of them as they are configured, Nix's own first.
    pub(super) fn configs(&self) -> impl Iterator<Item = &CacheConfig> {
        self.known.iter().map(|known| &known.config)
    }

    /// Opens all that are read from, at once, also those that are pushed to; only to read from them.
    pub(super) fn open_all_readable(&self) -> impl Future<Output = Vec<Opened>> + Send + 'static {
        let wanted = self.known.iter().filter(|known| known.config.pull);
        let config = |known: &Known| CacheConfig { push: false, ..known.config.clone() };
        let opening: Vec<_> = wanted.map(|known| open(known.id, config(known), self.context.clone())).collect();
        async move {
            let opened = join_all(opening).await.into_iter();
            opened.map(|(config, cache)| cache.map_err(|error| (config.shown_url(), error.into()))).collect()
        }
    }

    /// What all of them have to fit to.
    pub(super) fn context(&self) -> &OpenContext {
        &self.context
    }

    /// What they said in earlier runs.
    pub(super) fn memory(&self) -> Option<&Memory> {
        self.context.memory.as_ref()
    }

    /// The caches from which the store's daemon fetches by itself.
    pub(super) fn by_daemon(&self) -> &BTreeSet<CacheId> {
        &self.by_daemon
    }

    /// Of those, the ones that Nix's own settings name.
    pub(super) fn of_nix(&self) -> BTreeSet<CacheId> {
        let of_nix = |known: &&Known| known.config.name.is_none() && self.by_daemon.contains(&known.id);
        self.known.iter().filter(of_nix).map(|known| known.id).collect()
    }

    /// The caches to which pushing may fail.
    pub(super) fn optional(&self) -> Vec<CacheId> {
        self.known.iter().filter(|known| known.push == PushWhen::Optional).map(|known| known.id).collect()
    }

    /// What is not pushed to one of them.
    pub(super) fn leave_out(&self, id: CacheId) -> LeaveOut {
        self.known.iter().find(|known| known.id == id).map(|known| known.leave_out.clone()).unwrap_or_default()
    }

    /// Whether any cache is to be pushed to.
    pub(super) fn has_push(&self) -> bool {
        self.known.iter().any(|known| known.config.push)
    }

    /// Opens one of them again.
    pub(super) fn open_again(&self, id: CacheId) -> impl Future<Output = Result<Arc<Cache>, Failure>> + Send + 'static {
        let known = self.known.iter().find(|known| known.id == id);
        let opening = known.map(|known| open(id, known.config.clone(), self.context.clone()));
        async move {
            let failure = |message: String| Failure::new(Class::Cache, message);
            let (_, opened) = opening.ok_or_else(|| failure("there is no such cache".to_owned()))?.await;
            opened.map_err(|error| failure(error.to_string()))
        }
    }

    /// Caches of which more requests had to be made again than when this was last asked.
    fn repeats(&self) -> Vec<(CacheId, Repeated)> {
        let of = |url: &str| self.known.iter().find(|known| known.config.shown_url() == url).map(|known| known.id);
        let news = self.context.repeats.news().into_iter();
        news.filter_map(|(url, repeated)| Some((of(&url)?, repeated))).collect()
    }

    /// A cache that is to be pushed to and is not open.
    pub(super) fn known(&self, id: CacheId) -> Fact {
        let known = self.known.iter().find(|known| known.id == id);
        let url = known.map(|known| known.config.shown_url()).unwrap_or_default();
        let name = known.and_then(|known| known.config.name.clone()).unwrap_or_else(|| url.clone());
        Fact::CacheReady {
            cache: id,
            name: name.into(),
            url: url.into(),
            pull: false,
            push: true,
            optional: false,
            asked: known.is_some_and(|known| known.asked),
            sick: true,
        }
    }

    /// A cache that is ready.
    pub(super) fn ready(&self, cache: &Cache) -> Fact {
        let known = self.known.iter().find(|known| known.id == cache.id());
        Fact::CacheReady {
            cache: cache.id(),
            name: cache.name().into(),
            url: cache.url().into(),
            pull: cache.pull(),
            push: cache.push(),
            optional: known.is_some_and(|known| known.push == PushWhen::Optional),
            asked: known.is_some_and(|known| known.asked),
            sick: false,
        }
    }
}

fn configured(cache: &CacheSettings) -> CacheConfig {
    CacheConfig {
        name: cache.name.clone(),
        url: cache.url.clone(),
        // A bare URL of `--push-to` is pushed to and nothing else; what is in drover.toml is read, too.
        pull: cache.name.is_some(),
        push: cache.push.is_now(),
        priority: cache.priority,
        compression: cache.compression.clone(),
        secret_key_file: cache.secret_key.clone(),
        token_file: cache.token_file.clone(),
        public_keys: cache.public_keys.clone(),
        ..CacheConfig::default()
    }
}

/// The file in the cache directory that holds what caches said.
const MEMORY: &str = "answers.sqlite";

fn open_context(store: &LocalStore, settings: &Settings) -> OpenContext {
    let nix = store.settings();
    let memory = settings.output.cache_dir.as_ref().map(|dir| Memory::new(dir.join(MEMORY), settings.refresh));
    OpenContext {
        trusted_public_keys: store.receiver().trusted_public_keys.clone(),
        require_sigs: store.receiver().require_sigs,
        // Keys of drover.toml count where the store takes them from us: from a trusted client.
        accept_cache_keys: store.trust() == Trust::Trusted,
        netrc: Some(nix.netrc_file.clone().into()),
        ca_file: nix.ca_file(),
        login_env: settings.logins.iter().collect(),
        nix: Some(store.nix()),
        memory,
        ..OpenContext::new(store.store_dir().clone())
    }
}

/// Opens the ledger if anything is pushed. Without one, a push that was broken off begins anew.
fn ledger(settings: &Settings) -> (Ledger, Option<String>) {
    if !settings.caches.iter().any(|cache| cache.push.is_now()) {
        return (Ledger::default(), None);
    }
    let dir = &settings.output.state_dir;
    let file = dir.join(ledger::NAME);
    // A directory that cannot be made is one in which no file can be opened.
    let _ = std::fs::create_dir_all(dir);
    match Ledger::open(&file) {
        Ok(ledger) => (ledger, None),
        Err(error) => (Ledger::default(), Some(format!("pushes are not remembered in '{}': {error}", file.display()))),
    }
}

async fn open(
    id: CacheId,
    config: CacheConfig,
    context: Arc<OpenContext>,
) -> (CacheConfig, Result<Arc<Cache>, CacheError>) {
    let opened = Cache::open(id, config.clone(), &context).await;
    (config, opened.map(Arc::new))
}

/// Whether a cache may give an answer another time; all else is a wrong word or a wrong credential.
fn is_network(error: &CacheError) -> bool {
    matches!(error, CacheError::Unreachable { .. } | CacheError::Sick { .. })
}

/// The error that ends a run before anything is done.
fn fatal(error: CacheError, verb: Verb) -> Error {
    let fault = if is_network(&error) { Fault::Unreachable } else { Fault::Usage };
    let refused = error.is_refusal();
    let without = (verb != Verb::Push).then(|| format!("drover {} --no-push", verb.word()));
    let hint = match &error {
        CacheError::Unreachable { url, .. } | CacheError::Sick { url, .. } => Some(by_hand(url)),
        _ => None,
    };
    let network = hint.is_some();
    let error = Error::from(error);
    let hint = hint.or(error.hint);
    let hint = match (hint, without) {
        (Some(hint), Some(without)) if network => Some(format!("{hint}    or go on without it: {without}")),
        (Some(hint), Some(without)) if refused => Some(format!("{hint}; without pushing: {without}")),
        (hint, _) => hint,
    };
    let nothing = if verb == Verb::Push { "nothing was pushed" } else { "nothing was built" };
    Error { fault, message: format!("{}\n{nothing}", error.message), hint }
}

/// Says which caches requests had to be made to again since this was last said, in totals.
pub(super) fn tell_repeats(ctx: &mut Context) {
    for (cache, Repeated { reason, requests, waited }) in ctx.caches.repeats() {
        ctx.bus.emit(Fact::CacheRepeated { cache, reason: reason.into(), requests, waited: waited.as_secs_f64() });
    }
}

/// The same, not more often than it is worth.
pub(super) fn tell_repeats_now_and_then(ctx: &mut Context) {
    let now = ctx.bus.now();
    if now >= ctx.next_repeats {
        ctx.next_repeats = ctx.bus.in_future(REPEATS_EVERY);
        tell_repeats(ctx);
    }
}

/// How often totals of requests that were made again are told, at most.
const REPEATS_EVERY: Duration = Duration::from_secs(1);

/// A cache that is ready.
pub(super) fn announce(ctx: &mut Context, cache: &Cache) {
    ctx.bus.emit(ctx.caches.ready(cache));
    for warning in cache.warnings() {
        ctx.bus.warn(warning.as_str(), None);
    }
}
