//! Cachix on this machine (127.0.0.1), written from what its client does: the service, the storage that signed URLs lead
//! to, and the address that Nix reads from, each on a port of its own.
//!
//! It refuses what the real one refuses, and more where a client could be wrong without anybody seeing it: whatever it
//! takes has been unpacked, hashed and held against what was said of it.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

mod check;
mod service;
mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

/// A part of a multipart upload has at least so many bytes, unless it is the last.
pub const LEAST_PART: usize = 5 << 20;

/// The server. It ends when dropped.
pub struct Cachix {
    /// What `hostname` of Cachix's configuration says.
    pub host: String,
    /// Where Nix reads the cache.
    pub uri: String,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What a call is answered with instead.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, and nothing is done.
    Status(u16),
    /// 429, and in JSON how many seconds to wait.
    Busy(u32),
    /// It is done, and the connection breaks before the answer.
    DoneAndGone,
    /// The connection breaks after some of the body.
    Cut,
    /// No answer within the life of the test.
    Hang,
}

/// The one cache that it has.
pub const NAME: &str = "acme";

/// The state of the server.
pub struct State {
    /// Tokens that may do everything.
    pub tokens: BTreeSet<String>,
    /// What each token may do: `Read`, `Write`, `Admin`.
    pub permission: &'static str,
    /// Everybody may read.
    pub public: bool,
    /// The keys that signatures of this cache are made with, `NAME:BASE64`; the first is the server's own.
    pub keys: Vec<String>,
    /// The server signs what comes without a signature.
    pub managed: SigningKey,
    /// Records by hash.
    pub records: BTreeMap<String, String>,
    /// Files by name, `HASH.nar.zst`.
    pub nars: BTreeMap<String, Vec<u8>>,
    /// Uploads by their ids.
    pub uploads: BTreeMap<String, Upload>,
    /// Every call: `bulk 17`, `create`, `presign 2`, `put 2`, `complete NAME`, `abort`, `HEAD HASH`.
    pub log: Vec<String>,
    /// Why something was refused, or should have been.
    pub wrong: Vec<String>,
    /// Calls (first word of the log) → what they are answered with, in turn.
    pub faults: BTreeMap<String, Vec<Fault>>,
    /// After so many completed uploads the token is no longer good.
    pub expires_after: Option<usize>,
    /// How long every answer takes.
    pub latency: Duration,
    next: u32,
}

/// A multipart upload.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    pub id: String,
    pub compression: String,
    /// Number → MD5 that was promised.
    pub promised: BTreeMap<u32, String>,
    /// Number → ETag and bytes.
    pub parts: BTreeMap<u32, (String, Vec<u8>)>,
    pub aborted: bool,
    pub complete: bool,
}

pub(super) struct Shared {
    state: Mutex<State>,
    storage: String,
    uri: String,
    store_dir: String,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Cachix {
    /// Starts it, for a store in this directory, with a token that may do everything.
    pub fn start(store_dir: &str, token: &str) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (store_dir, token) = (store_dir.to_owned(), token.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
                let (api, storage, cache) = tokio::try_join!(bind(), bind(), bind()).unwrap();
                let url = |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
                let managed = SigningKey::from_bytes(&[23; 32]);
                let key = STANDARD.encode(managed.verifying_key().as_bytes());
                let state = State {
                    tokens: [token].into(),
                    permission: "Write",
                    public: true,
                    keys: vec![format!("{NAME}.cachix.org-1:{key}")],
                    managed,
                    records: BTreeMap::new(),
                    nars: BTreeMap::new(),
                    uploads: BTreeMap::new(),
                    log: Vec::new(),
                    wrong: Vec::new(),
                    faults: BTreeMap::new(),
                    expires_after: None,
                    latency: Duration::ZERO,
                    next: 0,
                };
                let (host, uri) = (url(&api), url(&cache));
                let shared =
                    Arc::new(Shared { state: Mutex::new(state), storage: url(&storage), uri: uri.clone(), store_dir });
                let mut servers = tokio::task::JoinSet::new();
                for (listener, router) in [
                    (api, service::router(Arc::clone(&shared))),
                    (storage, storage::uploads(Arc::clone(&shared))),
                    (cache, storage::files(Arc::clone(&shared))),
                ] {
                    servers.spawn(async move { axum::serve(listener, router).await.unwrap() });
                }
                ready.send((host, uri, shared)).unwrap();
                let _ = stopped.await;
            });
        });
        let (host, uri, shared) = is_ready.recv().unwrap();
        Self { host, uri, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Looks at its state, or changes it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// The public key that readers trust.
    pub fn public_key(&self) -> String {
        self.state().keys[0].clone()
    }

    /// The next calls of this kind (of a part also: `put 4`) go like this.
    pub fn next(&self, call: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.insert(call.to_owned(), faults.into_iter().collect());
    }

    /// How many calls of this kind came.
    pub fn calls(&self, call: &str) -> usize {
        self.state().log.iter().filter(|line| line.split(' ').next() == Some(call)).count()
    }

    /// Names of the paths that it has.
    pub fn names(&self) -> BTreeSet<String> {
        let state = self.state();
        let line = |text: &str| text.lines().next().unwrap().rsplit('/').next().unwrap()[33..].to_owned();
        state.records.values().map(|text| line(text)).collect()
    }

    /// Nothing was wrong, and of every path that it has it has all that the path refers to.
    pub fn expect_sound(&self) {
        let state = self.state();
        assert_eq!(state.wrong, Vec::<String>::new());
        for text in state.records.values() {
            let references = text.lines().find_map(|line| line.strip_prefix("References: ")).unwrap_or_default();
            for reference in references.split_whitespace() {
                assert!(state.records.contains_key(&reference[..32]), "{reference} is missing for\n{text}");
            }
        }
    }
}

impl Drop for Cachix {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// A refusal with its reason, which is kept.
pub(super) fn refuse(state: &mut State, code: u16, why: impl Into<String>) -> (StatusCode, String) {
    let why = why.into();
    state.wrong.push(format!("{code}: {why}"));
    (StatusCode::from_u16(code).unwrap(), why)
}
