//! Binary caches: opening one, asking it for many paths, and what it takes to write to one.
//!
//! Owns URLs, `nix-cache-info`, logins, retries, what was said before, signing keys, uploads and the files of a
//! `file://` cache. Does not own what an answer means for the plan (`diff::presence`) or the order of a push
//! (`push::queue`).

mod access;
mod answer;
mod answers;
mod api;
mod attic;
mod backend;
mod budget;
mod cachix;
pub mod check;
mod copy;
mod engine;
mod error;
mod file;
mod gate;
mod hasher;
mod http;
pub mod info;
pub mod keys;
pub mod ledger;
mod link;
pub mod list;
mod location;
mod login;
pub mod look;
mod memory;
mod nar;
mod netrc;
mod niks3;
mod pack;
mod put;
mod record;
mod repeats;
mod retry;
mod s3;
pub mod share;
mod sink;
mod stream;
mod upload;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use access::{Access, check};
pub use answer::{Answer, Counts, narinfo_name};
pub use answers::Answers;
pub use budget::{Budget, Room};
pub use engine::Engine;
pub use error::{CacheError, by_hand};
pub use keys::SecretKey;
pub use ledger::Ledger;
pub use login::{LoginEnv, LoginSource, TokenError};
pub use memory::Memory;
pub use nar::NarReader;
pub use record::RecordError;
pub use repeats::{Repeated, Repeats};
pub use retry::Patience;
pub use s3::ProfileError;
use sink::Packing;
pub use sink::{Again, Codec, Nar, PutError, Sink, Ticket};
pub use stream::{NarStream, NarWriter, Packed, StreamError};

use answer::{Counters, Trust};
use answers::Paths;
use backend::{Backend, Reader};
use location::{AtticPlace, Location, Params, Place};
use memory::Remembered;

use futures_util::FutureExt as _;

use crate::event::Failure;
use crate::id::{CacheId, StoreDir, StorePath};
use crate::nix_compat::narinfo::{NarInfo, TrustedPublicKey};
use crate::process::Cmd;

/// A cache as the configuration names it. Its URL may hold a login, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CacheConfig {
    /// Its name in drover.toml.
    pub name: Option<String>,
    /// Where it is, with Nix's own parameters.
    pub url: String,
    /// It is asked and read from.
    pub pull: bool,
    /// It is pushed to.
    pub push: bool,
    /// Lower is asked first; else the URL says, else its `nix-cache-info`.
    pub priority: Option<i32>,
    /// A file with the key that signs what is pushed; besides those that the URL names.
    pub secret_key_file: Option<PathBuf>,
    /// A file with a token that is sent with every request (`Authorization: Bearer …`); else the URL, else the netrc
    /// file has a login.
    pub token_file: Option<PathBuf>,
    /// Keys that its paths are signed with, `NAME:BASE64`.
    pub public_keys: Vec<String>,
    /// `zstd` or `none`; else the URL says, else zstd.
    pub compression: Option<String>,
    /// Level of the compression.
    pub compression_level: Option<i32>,
    /// Its paths need no signature; else the URL says, else they do.
    pub trusted: Option<bool>,
}

impl CacheConfig {
    /// Its URL for people: without login and parameters.
    #[must_use]
    pub fn shown_url(&self) -> String {
        location::shown(&self.url)
    }

    /// The keys that sign what is pushed to it; none if it is not pushed to.
    pub fn secret_keys(&self) -> Result<Vec<SecretKey>, CacheError> {
        let location = Location::parse(&self.url)?;
        read_secret_keys(self, &location.params, &location.shown)
    }

    /// Whether what it says of files can be used: the token file. Costs no network.
    pub fn check_files(&self) -> Result<(), CacheError> {
        let Some(file) = &self.token_file else { return Ok(()) };
        login::read_token(file).map(drop).map_err(|why| CacheError::Token { url: self.shown_url(), why })
    }
}

impl fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CacheConfig");
        shown.field("name", &self.name).field("url", &self.shown_url());
        shown.field("pull", &self.pull).field("push", &self.push).finish_non_exhaustive()
    }
}

/// What a cache has to fit to, the same for all caches of a run.
#[derive(Debug, Clone)]
pub struct OpenContext {
    /// The directory of the store that receives the paths.
    pub store_dir: StoreDir,
    /// The keys that the receiving store trusts, `NAME:BASE64`.
    pub trusted_public_keys: Vec<String>,
    /// Whether the receiving store wants signatures at all.
    pub require_sigs: bool,
    /// Whether the receiving store takes the `public_keys` of a cache from drover (it trusts this user).
    pub accept_cache_keys: bool,
    /// A netrc file with logins.
    pub netrc: Option<PathBuf>,
    /// What the environment says of logins.
    pub login_env: LoginEnv,
    /// The command `nix` for the local store, where there is one.
    pub nix: Option<Cmd>,
    /// A file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How patient to be; the URL may say otherwise.
    pub patience: Patience,
    /// Requests in flight to one server at most; with HTTP/1.1 each has a connection.
    pub connections: usize,
    /// The thread that asks.
    pub engine: Engine,
    /// What caches said in earlier runs.
    pub memory: Option<Memory>,
    /// Uploads that were begun, and what was pushed.
    pub ledger: Ledger,
    /// Memory that all pushes take together.
    pub budget: Budget,
    /// Requests that were made again.
    pub repeats: Repeats,
}

impl OpenContext {
    /// For a store in this directory that wants signatures and knows no keys.
    #[must_use]
    pub fn new(store_dir: StoreDir) -> Self {
        Self {
            store_dir,
            trusted_public_keys: Vec::new(),
            require_sigs: true,
            accept_cache_keys: false,
            netrc: None,
            login_env: LoginEnv::default(),
            nix: None,
            ca_file: None,
            patience: Patience::default(),
            connections: 256,
            engine: Engine::default(),
            memory: None,
            ledger: Ledger::default(),
            budget: Budget::default(),
            repeats: Repeats::default(),
        }
    }
}

/// A binary cache that can be asked.
#[derive(Debug)]
pub struct Cache {
    id: CacheId,
    name: String,
    url: String,
    pull: bool,
    push: bool,
    priority: i32,
    want_mass_query: bool,
    trust: Arc<Trust>,
    backend: Backend,
    /// What it said in earlier runs; `None` for one that is no slower than that.
    remembered: Option<Remembered>,
    sink: Option<Sink>,
    login: Option<LoginSource>,
    counters: Arc<Counters>,
    late: AtomicBool,
    warnings: Vec<String>,
}

impl Cache {
    /// Reads the URL, the keys and `nix-cache-info`, with the login that there is. A cache that is pushed to is created
    /// if need be, and one on a server is written to once, with what it says of itself, to see whether it takes that.
    pub async fn open(id: CacheId, config: CacheConfig, context: &OpenContext) -> Result<Self, CacheError> {
        let location = Location::parse(&config.url)?;
        let url = location.shown.clone();
        let params = &location.params;
        let mut warnings = warnings(params, &url);
        let keys = read_secret_keys(&config, params, &url)?;
        let trust = trust(&config, params, context)?;
        let ours = context.store_dir.as_str();
        if let Some(theirs) = params.store_dir.as_ref().filter(|theirs| *theirs != ours) {
            return Err(CacheError::StoreDir { url, theirs: theirs.clone(), ours: ours.to_owned() });
        }
        let name = config.name.clone().unwrap_or_else(|| short_name(&location.place));
        let codec = config.push.then(|| codec(&config, params, &url)).transpose()?;
        let (backend, info) = Backend::open(&location, &config, context, &mut warnings).await?;
        if let Some(theirs) = info.store_dir.filter(|theirs| theirs != ours) {
            return Err(CacheError::StoreDir { url, theirs, ours: ours.to_owned() });
        }
        if config.push && keys.is_empty() && !backend.signs() {
            warnings.push(format!("what is pushed to {name} is not signed; add ?secret-key=FILE to {url}"));
        }
        if let (Backend::File(file), true) = (&backend, config.push) {
            // Found out now, not after an hour of building.
            file.spool().map_err(|source| CacheError::Write { url: url.clone(), source })?;
        }
        let by_link = config.compression_level.or(params.compression_level).is_none();
        let sink = codec.map(|codec| Sink::new(backend.clone(), &url, keys, Packing { codec, by_link }, context));
        let login = backend.login().cloned();
        let remembered = match (backend.reader(), &context.memory) {
            (Reader::Http(http), Some(memory)) => Some(memory.of(http.base.as_str(), &trust, config.push)),
            (Reader::File(_) | Reader::Copy(_), _) | (_, None) => None,
        };
        Ok(Self {
            id,
            name,
            url,
            pull: config.pull,
            push: config.push,
            priority: config.priority.or(params.priority).or(info.priority).unwrap_or(0),
            want_mass_query: params.want_mass_query.unwrap_or(info.want_mass_query),
            trust: Arc::new(trust),
            backend,
            remembered,
            sink,
            login,
            counters: Arc::default(),
            late: AtomicBool::new(false),
            warnings,
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> CacheId {
        self.id
    }

    /// What people call it: its name in drover.toml, else its host, else its directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, without login and parameters.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is asked and read from.
    #[must_use]
    pub fn pull(&self) -> bool {
        self.pull
    }

    /// Whether it is pushed to.
    #[must_use]
    pub fn push(&self) -> bool {
        self.push
    }

    /// Lower is asked first.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Whether it says that it likes to be asked for many paths at once. It is asked anyway, as in Nix.
    #[must_use]
    pub fn want_mass_query(&self) -> bool {
        self.want_mass_query
    }

    /// What it was asked for and said so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.counts()
    }

    /// How long it takes to answer, of late; zero for one that needs no network.
    #[must_use]
    pub fn pace(&self) -> Duration {
        self.backend.pace()
    }

    /// Whether it seems to be down: nothing waits for it before it answers again.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.backend.is_down()
    }

    /// Whether others were believed before it answered, and it has said nothing since.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// Notes that others are believed before it answers, or that it said something.
    pub fn set_late(&self, late: bool) {
        self.late.store(late, Ordering::Relaxed);
    }

    /// Requests that went over the network, attempts counted one by one.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.backend.requests()
    }

    /// What a person should know about its URL, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where pushes to it go; `None` if it is not pushed to.
    #[must_use]
    pub fn sink(&self) -> Option<&Sink> {
        self.sink.as_ref()
    }

    /// Where the login comes from; `None` for a cache that needs none, a directory.
    #[must_use]
    pub fn login(&self) -> Option<&LoginSource> {
        self.login.as_ref()
    }

    /// Asks for all paths at once; the answers come in their order. An empty list asks nothing.
    pub async fn ask(&self, paths: &[StorePath]) -> Vec<Answer> {
        self.answers(paths).all().await
    }

    /// Begins to ask for all paths at once; gives the answers as they come.
    #[must_use]
    pub fn answers(&self, paths: &[StorePath]) -> Answers {
        let (trust, asked): (_, Paths) = (Arc::clone(&self.trust), paths.into());
        let backend = self.backend.clone();
        let ask = move |trust, asked, pieces| backend.ask(trust, asked, pieces);
        Answers::new(asked.len(), Arc::clone(&self.counters), |pieces| match self.remembered.clone() {
            Some(remembered) => remembered.ask(trust, asked, pieces, ask).boxed(),
            None => ask(trust, asked, pieces),
        })
    }

    /// The records of those paths that it is remembered to have; in the order of the paths.
    pub async fn recall(&self, paths: &[StorePath]) -> Vec<Option<Box<NarInfo>>> {
        let Some(remembered) = &self.remembered else { return vec![None; paths.len()] };
        let answers = remembered.recall(&self.trust, &paths.into()).await;
        let present = |answer: &Answer| matches!(answer, Answer::Present(_));
        self.counters.add(answers.iter().flatten().filter(|answer| present(answer)));
        let info = |answer| match answer {
            Some(Answer::Present(info)) => Some(info),
            Some(Answer::Untrusted(_) | Answer::Absent | Answer::NoAnswer(_)) | None => None,
        };
        answers.into_iter().map(info).collect()
    }

    /// It has a path since now, with this record: that is remembered. Without one, because the server writes it, what
    /// was known of the path is forgotten.
    pub fn remember(&self, path: &StorePath, record: Option<&NarInfo>) {
        let Some(remembered) = &self.remembered else { return };
        match record {
            Some(record) => {
                let answer = self.trust.answer(path, Ok(Some(record.to_canonical_bytes())));
                remembered.note(std::iter::once((path, &answer)));
            }
            None => remembered.forget(std::slice::from_ref(path)),
        }
    }

    /// It turned out not to have these paths, whatever it said: they are asked again the next time.
    pub fn forget(&self, paths: &[StorePath]) {
        if let Some(remembered) = self.remembered.as_ref().filter(|_| !paths.is_empty()) {
            remembered.forget(paths);
        }
    }

    /// Reads the records of paths anew, whoever signed them, and looks whether their NARs are there too. For pushing
    /// to the cache and for checking it; counts nowhere. The answers come in the order of the paths.
    pub async fn inspect(&self, paths: &[StorePath]) -> Vec<Result<Option<Held>, Failure>> {
        self.backend.inspect(&self.trust, paths).await
    }

    /// Which of these paths it lacks, found out in the cheapest way that it has, for pushing and for plans; in their
    /// order. Whether the NARs are still there is looked at only where that costs no more than the answer.
    pub async fn missing(&self, paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        self.backend.missing(&self.trust, paths).await
    }

    /// Whether [`missing`](Self::missing) costs a few requests however many paths are asked for.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        self.backend.is_bulk()
    }
}

/// A path that a cache holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its record.
    pub info: Box<NarInfo>,
    /// Whether the NAR that the record names is there, with the size that it names.
    pub nar: bool,
}

fn warnings(params: &Params, url: &str) -> Vec<String> {
    let unknown = params.unknown.iter().map(|name| format!("cache '{url}' has an unknown parameter '{name}'"));
    let not_done = params.not_done.iter().map(|name| format!("cache '{url}': '{name}' is not done by drover"));
    unknown.chain(not_done).collect()
}

/// The keys that sign, each read now so that a bad one is found before anything is built.
fn read_secret_keys(config: &CacheConfig, params: &Params, url: &str) -> Result<Vec<SecretKey>, CacheError> {
    if !config.push {
        return Ok(Vec::new());
    }
    let files = config.secret_key_file.iter().chain(&params.secret_keys);
    files
        .map(|file| SecretKey::read(file).map_err(|source| CacheError::SecretKey { url: url.to_owned(), source }))
        .collect()
}

fn trust(config: &CacheConfig, params: &Params, context: &OpenContext) -> Result<Trust, CacheError> {
    let own = config.public_keys.iter().map(|key| (key, context.accept_cache_keys));
    let all = context.trusted_public_keys.iter().map(|key| (key, true)).chain(own);
    let mut keys = Vec::new();
    for (text, counts) in all {
        let key =
            TrustedPublicKey::parse(text).map_err(|source| CacheError::PublicKey { key: text.clone(), source })?;
        if counts {
            keys.push(key);
        }
    }
    let trusted = config.trusted.or(params.trusted).unwrap_or(false);
    Ok(Trust { store_dir: context.store_dir.clone(), keys, check: context.require_sigs && !trusted })
}

fn short_name(place: &Place) -> String {
    match place {
        Place::File(dir) => dir.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy().into_owned()),
        Place::Http(url, _) | Place::Niks3(url, _) => {
            let host = url.host_str().unwrap_or_default();
            // Two servers on one host are two caches.
            url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
        }
        Place::S3(name) | Place::Cachix(name) => name.clone(),
        Place::Attic(AtticPlace::Named { cache, .. } | AtticPlace::At { cache, .. }) => cache.clone(),
        Place::Copy(store) => location::shown(store),
    }
}

fn codec(config: &CacheConfig, params: &Params, url: &str) -> Result<Codec, CacheError> {
    let level = config.compression_level.or(params.compression_level).filter(|level| *level != -1);
    let threads = match params.parallel_compression {
        Some(false) => 0,
        _ => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8) as u32),
    };
    match config.compression.as_deref().or(params.compression.as_deref()) {
        None | Some("zstd") => {
            let level = level.unwrap_or(Codec::DEFAULT_LEVEL);
            if !zstd::compression_level_range().contains(&level) {
                let why = format!("zstd has no compression level {level}");
                return Err(CacheError::Url { url: url.to_owned(), why });
            }
            Ok(Codec::Zstd { level, threads })
        }
        Some("none") => Ok(Codec::None),
        Some(other) => Err(CacheError::Compression { url: url.to_owned(), compression: other.to_owned() }),
    }
}
