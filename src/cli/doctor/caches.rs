//! Caches: whether they answer, whether what they hold can be taken, whether they can be written to and signed for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{CacheSettings, PushWhen};
use crate::id::{CacheId, StoreDir, StorePath};
use crate::nix_compat::daemon::Trust;
use crate::nix_compat::narinfo::TrustedPublicKey;
use crate::process::quote;
use crate::report::doctor::{Cache, Down, KeyFile, KeyFileState, Login, PublicKey, Reach, Signed, Trouble, Write};
use crate::store::cache::keys::SecretKeyError;
use crate::store::cache::look::{self, Look};
use crate::store::cache::{self, LoginSource};
use crate::store::cache::{Answer, CacheConfig, LoginEnv, OpenContext, Patience, SecretKey};
use crate::store::local::LocalStore;
use crate::store::settings::NixSettings;

use super::nix::{Asked, Open};
use super::progress::Progress;
use super::scene::Scene;
use super::{PATIENCE, place, trouble};
use crate::error::without_numbers;

/// Seconds that a cache may take for one answer.
const ANSWER: u64 = 8;

/// Paths of the store that a server is asked for.
const SAMPLE: usize = 32;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) caches: Vec<Cache>,
    pub(super) keys: Vec<PublicKey>,
}

/// What all caches of this environment share.
struct Common {
    context: OpenContext,
    /// Paths that the store has and a cache may have.
    sample: Vec<StorePath>,
}

/// Looks at all caches at once.
pub(super) async fn look(scene: &Scene<'_>, asked: &Asked, open: &Open, progress: &Progress) -> Found {
    let ours = scene.settings.as_ref().map(|settings| settings.caches.as_slice()).unwrap_or_default();
    let nix = asked.settings.found();
    let keys = keys(nix, ours);
    let offline = scene.settings.as_ref().is_some_and(|settings| settings.offline);
    let store_dir = store_dir(asked, open);
    let common = Arc::new(Common {
        sample: progress.blocking("store", sample(open.store.as_ref())).await.unwrap_or_default(),
        context: context(store_dir, nix, open.store.as_ref(), &keys, scene.env.logins().iter().collect()),
    });
    let configs = configs(nix, ours);
    if offline {
        return Found { caches: Vec::new(), keys };
    }
    let looks = configs.into_iter().map(|(config, settings)| {
        let common = common.clone();
        async move {
            let name = config.url.clone();
            match progress.wait("caches", one(scene, config.clone(), settings, &common)).await {
                Some(cache) => cache,
                None => silent(config, settings, &name),
            }
        }
    });
    Found { caches: futures_util::future::join_all(looks).await, keys }
}

/// The directory of store paths, as far as it is known.
pub(super) fn store_dir(asked: &Asked, open: &Open) -> StoreDir {
    match (&open.store, asked.installation.found()) {
        (Some(store), _) => store.store_dir().clone(),
        (None, Some(nix)) => StoreDir::new(&nix.store_dir).unwrap_or_default(),
        (None, None) => StoreDir::default(),
    }
}

/// Nix's own caches, then those of drover, as a run has them.
fn configs<'a>(nix: Option<&NixSettings>, ours: &'a [CacheSettings]) -> Vec<(CacheConfig, Option<&'a CacheSettings>)> {
    let substituters = nix.filter(|nix| nix.substitute).map(|nix| nix.substituters.as_slice()).unwrap_or_default();
    let from_nix =
        substituters.iter().map(|url| (CacheConfig { url: url.clone(), pull: true, ..CacheConfig::default() }, None));
    let configured = ours.iter().map(|cache| {
        let config = CacheConfig {
            name: cache.name.clone(),
            url: cache.url.clone(),
            pull: cache.name.is_some(),
            push: cache.push.is_now(),
            secret_key_file: cache.secret_key.clone(),
            public_keys: cache.public_keys.iter().filter(|key| TrustedPublicKey::parse(key).is_ok()).cloned().collect(),
            ..CacheConfig::default()
        };
        (config, Some(cache))
    });
    from_nix.chain(configured).collect()
}

/// All public keys that count for something.
fn keys(nix: Option<&NixSettings>, ours: &[CacheSettings]) -> Vec<PublicKey> {
    let key = |table: Option<String>, key: &String| PublicKey {
        key: key.clone(),
        table,
        bad: TrustedPublicKey::parse(key).err().map(|error| error.to_string()),
    };
    let of_nix = nix.map(|nix| nix.trusted_public_keys.as_slice()).unwrap_or_default();
    let of_ours = ours.iter().flat_map(|cache| cache.public_keys.iter().map(|text| (cache.name.clone(), text)));
    of_nix.iter().map(|text| key(None, text)).chain(of_ours.map(|(name, text)| key(name, text))).collect()
}

fn context(
    store_dir: StoreDir,
    nix: Option<&NixSettings>,
    store: Option<&LocalStore>,
    keys: &[PublicKey],
    login_env: LoginEnv,
) -> OpenContext {
    let seconds = Duration::from_secs(ANSWER);
    let patience = Patience { attempts: 1, connect: seconds, answer: seconds, path: seconds, ..Patience::default() };
    OpenContext {
        trusted_public_keys: keys
            .iter()
            .filter(|key| key.table.is_none() && key.bad.is_none())
            .map(|key| key.key.clone())
            .collect(),
        require_sigs: nix.is_none_or(|nix| nix.require_sigs),
        accept_cache_keys: store.is_some_and(|store| store.trust() == Trust::Trusted),
        netrc: nix.map(|nix| PathBuf::from(&nix.netrc_file)),
        ca_file: nix.and_then(NixSettings::ca_file),
        login_env,
        patience,
        ..OpenContext::new(store_dir)
    }
}

/// Some paths of the store, as far as its files are on this machine.
fn sample(store: Option<&LocalStore>) -> impl FnOnce() -> Vec<StorePath> + Send + 'static {
    let dir = store.and_then(LocalStore::physical_dir).map(Path::to_owned);
    move || {
        let entries = dir.and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
        let paths = entries.filter_map(|entry| StorePath::from_basename(entry.file_name().as_encoded_bytes()).ok());
        paths.filter(|path| !path.is_derivation()).take(SAMPLE).collect()
    }
}

/// What is known of a cache before it is asked.
fn begin(config: &CacheConfig, settings: Option<&CacheSettings>, shown: &str, name: String) -> Cache {
    Cache {
        name,
        url: shown.to_owned(),
        table: config.name.clone(),
        pull: config.pull,
        push: config.push,
        optional: settings.is_some_and(|cache| cache.push == PushWhen::Optional),
        public_keys: settings.map(|cache| cache.public_keys.clone()).unwrap_or_default(),
        ..Cache::default()
    }
}

/// A cache that kept us waiting.
fn silent(config: CacheConfig, settings: Option<&CacheSettings>, url: &str) -> Cache {
    let shown = crate::config::public_url(url);
    let shown = shown.split('?').next().unwrap_or_default().trim_end_matches('/');
    let host = shown.split_once("://").and_then(|(_, rest)| rest.split(['/', ':']).next()).map(str::to_owned);
    let name = config.name.clone().or_else(|| host.clone()).unwrap_or_default();
    Cache { reach: Reach::Down(Down::TimedOut(PATIENCE)), host, ..begin(&config, settings, shown, name) }
}

/// Looks at one.
async fn one(scene: &Scene<'_>, config: CacheConfig, settings: Option<&CacheSettings>, common: &Common) -> Cache {
    let began = scene.clock.now();
    let context = &common.context;
    let look = look::look(&config, context).await;
    let ended = scene.clock.now();
    let look = match look {
        Ok(look) => look,
        Err(error) => {
            let name = config.name.clone().unwrap_or_default();
            let shown = crate::config::public_url(&config.url);
            return Cache { reach: Reach::Unusable(trouble(error)), ..begin(&config, settings, &shown, name) };
        }
    };
    let name = config.name.clone().or_else(|| look.host.clone());
    let name = name.or_else(|| Some(look.dir.as_ref()?.file_name()?.to_string_lossy().into_owned()));
    let mut cache = begin(&config, settings, &look.shown, name.unwrap_or_else(|| look.shown.clone()));
    let here = scene.clock.started.as_second() + i64::try_from(ended.0 / 1_000_000).unwrap_or_default();
    cache.skew = look.date.map(|date| date - here);
    cache.millis = ended.0.saturating_sub(began.0) / 1000;
    cache.trusted = look.trusted;
    cache.login = match &look.login {
        None | Some(LoginSource::None { .. }) => Login::None,
        Some(LoginSource::Url) => Login::Url,
        Some(LoginSource::Netrc(_)) => Login::Netrc,
        Some(LoginSource::TokenFile(file)) => Login::TokenFile(file.clone()),
        Some(source) => Login::Tools(source.to_string()),
    };
    cache.reach = reach(&look, &config, &context.store_dir);
    cache.host = look.host.clone();
    if config.push {
        let files: Vec<PathBuf> = config.secret_key_file.iter().chain(&look.secret_keys).cloned().collect();
        let dir = look.dir.clone().filter(|_| matches!(cache.reach, Reach::Ok | Reach::New));
        let name = cache.name.clone();
        // Files may be on another machine, and block.
        let local = tokio::task::spawn_blocking(move || {
            let keys = files.iter().map(|file| key_file(file)).collect();
            (keys, dir.map_or(Write::Unknown, |dir| dir_write_access(&dir, &name)))
        });
        (cache.key_files, cache.write) = local.await.unwrap_or_default();
        if look.dir.is_none() && cache.reach == Reach::Ok {
            cache.write = http_write_access(&config, context).await;
        }
    }
    if cache.pull && cache.reach == Reach::Ok {
        match signed(&config, &look, common).await {
            Ok(signed) => cache.signed = signed,
            Err(trouble) => cache.reach = Reach::Unusable(trouble),
        }
    }
    cache
}

fn reach(look: &Look, config: &CacheConfig, store_dir: &StoreDir) -> Reach {
    use look::Trouble as T;
    let down = |down| Reach::Down(down);
    match &look.info {
        Ok(info) => match &info.store_dir {
            Some(theirs) if theirs != store_dir.as_str() => {
                Reach::OtherStore { theirs: theirs.clone(), ours: store_dir.to_string() }
            }
            _ => Reach::Ok,
        },
        Err(T::NotACache) if config.push && look.dir.as_deref().is_some_and(is_unused) => Reach::New,
        Err(T::NotACache) => Reach::NotACache,
        Err(T::Status(code @ (401 | 403 | 407))) => Reach::Denied(*code),
        Err(T::Status(code)) => Reach::Status(*code),
        Err(T::NoSuchHost) => down(Down::NoSuchHost),
        Err(T::Refused) => down(Down::Refused),
        Err(T::TimedOut) => down(Down::TimedOut(ANSWER)),
        Err(T::Tls(why)) => down(Down::Tls(without_numbers(why))),
        Err(T::Broken(why) | T::Garbage(why)) => down(Down::Other(without_numbers(why))),
    }
}

/// Whether the first push would make a cache of this directory: it is not there, or holds nothing that counts.
fn is_unused(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.flatten().all(|entry| {
            let name = entry.file_name();
            name == "nar" || name.to_string_lossy().starts_with(".drover-")
        }),
        Err(error) => matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
    }
}

/// Opens a cache as a run does, and asks it for a few paths that it may have, to see who signed them.
async fn signed(config: &CacheConfig, look: &Look, common: &Common) -> Result<Signed, Trouble> {
    let paths = if look.sample.is_empty() { &common.sample } else { &look.sample };
    let read_only = CacheConfig { push: false, secret_key_file: None, ..config.clone() };
    let cache = crate::store::cache::Cache::open(CacheId(0), read_only, &common.context).await.map_err(trouble)?;
    let answers = cache.ask(paths).await;
    if answers.iter().any(|answer| matches!(answer, Answer::Present(_))) {
        return Ok(Signed::Trusted);
    }
    let untrusted = answers.iter().find_map(|answer| match answer {
        Answer::Untrusted(info) => Some(info),
        _ => None,
    });
    Ok(match untrusted {
        None => Signed::Unknown,
        Some(info) => {
            let mut keys: Vec<String> = info.signatures().iter().map(|signature| signature.key_name.clone()).collect();
            keys.dedup();
            Signed::Untrusted { example: info.store_path().name().to_owned(), keys }
        }
    })
}

/// Whether a server takes what is pushed to it: it gets its own `nix-cache-info` back, as at the start of each run.
async fn http_write_access(config: &CacheConfig, context: &OpenContext) -> Write {
    match cache::check(config, context).await.write {
        None => Write::Unknown,
        Some(Ok(())) => Write::Ok,
        Some(Err(error)) => Write::No(trouble(error)),
    }
}

/// Whether files can be made in a directory, or the directory itself.
fn dir_write_access(dir: &Path, name: &str) -> Write {
    let nar = dir.join("nar");
    let at = if nar.exists() { &nar } else { dir };
    match place::writable(at) {
        Ok(()) => Write::Ok,
        Err((at, why)) => Write::No(Trouble {
            message: format!("cannot write to cache {name}: {}: {why}", at.display()),
            fix: format!(
                "ls -ld {0}    this user must be able to write there: sudo chown \"$USER\" {0}",
                quote(&at.to_string_lossy())
            ),
        }),
    }
}

/// What is in a key file; only the public half leaves this function.
fn key_file(file: &Path) -> KeyFile {
    let mode = std::fs::metadata(file).map_or(0, |meta| meta.permissions().mode());
    let state = match SecretKey::read(file) {
        Ok(key) => KeyFileState::Ok { public: key.public_text() },
        Err(SecretKeyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            KeyFileState::Missing
        }
        Err(SecretKeyError::Read { source, .. }) => KeyFileState::Unreadable(without_numbers(&source.to_string())),
        Err(SecretKeyError::Format { source, .. }) => KeyFileState::Bad(source.to_string()),
    };
    KeyFile { file: file.to_owned(), world_readable: mode & 0o004 != 0, state }
}
