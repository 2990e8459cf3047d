//! A binary cache on a server of its own (127.0.0.1): serves a directory and, if told so, stores files in it; counts
//! requests, answers late, badly or not at all where it is told to.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use tokio::task::JoinSet;

use super::front::{self, Front, Traffic};

/// What the server does with a request instead of serving the file.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status and nothing else.
    Status(u16),
    /// This status with this header.
    With(u16, &'static str, String),
    /// 200 with this body.
    Body(Vec<u8>),
    /// This status with this body.
    Says(u16, &'static str),
    /// A redirect to itself.
    Redirect,
    /// 200 and the file, with this `Content-Encoding`, which it does not have.
    Encoded(&'static str),
    /// 200 and the file, with this `Content-Encoding`, which it has: `gzip` or `zstd`.
    Packed(&'static str),
    /// 405 to whoever asks for the head alone; the others are served.
    Headless,
    /// 200 and half of the file, with the right length of that. Of an upload, half is stored.
    Half,
    /// 200 and the file with one bit flipped: in its middle, or in the NAR hash of a record.
    Flipped,
    /// 200 and the file, with this text in it for that.
    Edited(&'static str, &'static str),
    /// The connection is closed without an answer.
    Close,
    /// 200, half of the file, and the connection breaks. Of an upload, some of it is read before.
    Cut,
    /// 200, and what was sent is thrown away.
    Swallow,
    /// No answer within the life of the test.
    Hang,
}

/// A server that ends when dropped.
pub struct FakeCache {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// The certificate to trust, as PEM; empty without TLS.
    pub ca: String,
    /// What came, as connections see it.
    pub traffic: Arc<Traffic>,
    shared: Arc<Shared>,
    _server: Server,
}

/// What keeps it going.
enum Server {
    Here(#[expect(dead_code, reason = "it ends when dropped")] JoinSet<()>),
    Thread(Option<tokio::sync::oneshot::Sender<()>>, Option<std::thread::JoinHandle<()>>),
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Thread(stop, thread) = self {
            drop(stop.take());
            let _ = thread.take().unwrap().join();
        }
    }
}

/// One request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub name: String,
    pub content_type: Option<String>,
    pub content_length: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    delay: Mutex<Duration>,
    /// Name → faults of the next requests for it; the last one stays if `bool` is set.
    faults: Mutex<BTreeMap<String, (Vec<Fault>, bool)>>,
    /// The `Authorization` that every request must bring.
    login: Mutex<Option<String>>,
    /// The one that an upload must bring; `None`: nothing can be uploaded.
    uploads: Mutex<Option<Option<String>>>,
    log: Mutex<Vec<Request>>,
    requests: Mutex<BTreeMap<String, u32>>,
    in_flight: AtomicU32,
    most_in_flight: AtomicU32,
}

impl FakeCache {
    /// Serves this directory; it may be filled later.
    pub async fn serve(root: &Path) -> Self {
        Self::serve_by(root, Front::plain()).await
    }

    /// The same, reached in this way.
    pub async fn serve_by(root: &Path, front: Front) -> Self {
        let ca = front.ca();
        let (url, shared, traffic, server) = Self::listen(root, front).await;
        Self { url, ca, traffic, shared, _server: Server::Here(server) }
    }

    /// The same on a thread of its own, for tests that wait for programs.
    pub fn start(root: &Path) -> Self {
        Self::start_by(root, Front::plain())
    }

    /// The same, reached in this way.
    pub fn start_by(root: &Path, front: Front) -> Self {
        let ca = front.ca();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let root = root.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (url, shared, traffic, _server) = Self::listen(&root, front).await;
                ready.send((url, shared, traffic)).unwrap();
                let _ = stopped.await;
            });
        });
        let (url, shared, traffic) = is_ready.recv().unwrap();
        Self { url, ca, traffic, shared, _server: Server::Thread(Some(stop), Some(thread)) }
    }

    async fn listen(root: &Path, front: Front) -> (String, Arc<Shared>, Arc<Traffic>, JoinSet<()>) {
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            delay: Mutex::default(),
            faults: Mutex::default(),
            login: Mutex::default(),
            uploads: Mutex::default(),
            log: Mutex::default(),
            requests: Mutex::default(),
            in_flight: AtomicU32::new(0),
            most_in_flight: AtomicU32::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{}://{}", front.scheme(), listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let (traffic, mut server) = (Arc::<Traffic>::default(), JoinSet::new());
        server.spawn(front.serve(listener, app, Arc::clone(&traffic)));
        (url, shared, traffic, server)
    }

    /// Stores what is uploaded.
    pub fn writable(self) -> Self {
        *self.shared.uploads.lock().unwrap() = Some(None);
        self
    }

    /// Stores what is uploaded with this `Authorization`; everybody may read.
    pub fn writable_by(&self, authorization: &str) {
        *self.shared.uploads.lock().unwrap() = Some(Some(authorization.to_owned()));
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Every answer comes this much later.
    pub fn delay(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }

    /// The next requests for `name` go like this, one after the other; then it is served again. Uploads have names of
    /// their own: `PUT NAME`, `PUT nar`, `PUT narinfo`, `PUT *`, the first that has a rule.
    pub fn next(&self, name: &str, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().insert(name.to_owned(), (faults.into_iter().collect(), false));
    }

    /// Every request for `name` goes like this; `nar/*`, `*.narinfo` and `*` are for those that no rule names.
    pub fn always(&self, name: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().insert(name.to_owned(), (vec![fault], true));
    }

    /// Serves `name` again, as it is.
    pub fn heal(&self, name: &str) {
        self.shared.faults.lock().unwrap().remove(name);
    }

    /// Wants HTTP Basic with this user and password.
    pub fn login(&self, base64: &str) {
        *self.shared.login.lock().unwrap() = Some(format!("Basic {base64}"));
    }

    /// Wants this token.
    pub fn token(&self, token: &str) {
        *self.shared.login.lock().unwrap() = Some(format!("Bearer {token}"));
    }

    /// All requests so far, in order.
    pub fn log(&self) -> Vec<Request> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Names of what was uploaded, in order; a file that was sent twice comes twice.
    pub fn uploads(&self) -> Vec<String> {
        self.log().into_iter().filter(|request| request.method == "PUT").map(|request| request.name).collect()
    }

    /// Requests for this name so far.
    pub fn requests(&self, name: &str) -> u32 {
        self.shared.requests.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// All requests so far.
    pub fn all_requests(&self) -> u32 {
        self.shared.requests.lock().unwrap().values().sum()
    }

    /// The most requests that were being answered at the same time.
    pub fn most_in_flight(&self) -> u32 {
        self.shared.most_in_flight.load(Ordering::Relaxed)
    }
}

/// A server on a thread of its own, for tests that wait for other processes.
pub struct Background {
    cache: FakeCache,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Background {
    /// Serves this directory; it may be filled later.
    pub fn serve(root: &Path) -> Self {
        let (started, cache) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let root = root.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                started.send(FakeCache::serve(&root).await).unwrap();
                // The sender is never used, only dropped.
                let _ = stopped.await;
            });
        });
        Self { cache: cache.recv().unwrap(), _stop: stop }
    }
}

impl std::ops::Deref for Background {
    type Target = FakeCache;

    fn deref(&self) -> &FakeCache {
        &self.cache
    }
}

/// Counts down when a request ends, also when its client goes away.
struct InFlight<'a>(&'a Shared);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let now = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    shared.most_in_flight.fetch_max(now, Ordering::Relaxed);
    let _in_flight = InFlight(&shared);
    let name = uri.path().trim_start_matches('/').to_owned();
    *shared.requests.lock().unwrap().entry(name.clone()).or_default() += 1;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    shared.log.lock().unwrap().push(Request {
        method: method.to_string(),
        name: name.clone(),
        content_type: header("content-type"),
        content_length: header("content-length").and_then(|text| text.parse().ok()),
    });
    let delay = *shared.delay.lock().unwrap();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let wanted = shared.login.lock().unwrap().clone();
    if wanted.is_some() && header("authorization") != wanted {
        return status(401);
    }
    if method == Method::PUT {
        return shared.put(&name, header("authorization"), body).await;
    }
    let fault = shared.fault(&name);
    let file = || std::fs::read(shared.root.join(&name)).ok();
    // What is not there cannot be damaged.
    let damages = |fault: &Fault| {
        matches!(fault, Fault::Encoded(_) | Fault::Packed(_) | Fault::Half | Fault::Flipped | Fault::Edited(..))
    };
    let fault = fault.filter(|fault| !damages(fault) || file().is_some());
    let fault = fault.filter(|fault| !matches!(fault, Fault::Headless) || method == Method::HEAD);
    match fault {
        Some(Fault::Status(code)) => status(code),
        Some(Fault::With(code, header, value)) => with(code, header, &value),
        Some(Fault::Swallow) => status(200),
        Some(Fault::Body(body)) => Response::new(Body::from(body)),
        Some(Fault::Says(code, body)) => {
            let mut response = status(code);
            *response.body_mut() = Body::from(body);
            response
        }
        Some(Fault::Redirect) => with(302, "location", uri.path()),
        Some(Fault::Encoded(encoding)) => {
            let mut response = Response::new(Body::from(file().unwrap_or_default()));
            response.headers_mut().insert("content-encoding", encoding.parse().unwrap());
            response
        }
        Some(Fault::Packed(encoding)) => {
            let mut response = Response::new(Body::from(front::packed(encoding, &file().unwrap_or_default())));
            response.headers_mut().insert("content-encoding", encoding.parse().unwrap());
            response
        }
        Some(Fault::Headless) => front::headless(),
        Some(Fault::Half) => {
            let body = file().unwrap_or_default();
            Response::new(Body::from(body[..body.len() / 2].to_vec()))
        }
        Some(Fault::Flipped) => {
            let mut body = file().unwrap_or_default();
            // Not every byte of a record matters.
            let hash = body.windows(16).position(|bytes| bytes == b"NarHash: sha256:").map(|at| at + 20);
            let at = hash.unwrap_or(body.len() / 2);
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1;
            }
            Response::new(Body::from(body))
        }
        Some(Fault::Edited(from, to)) => {
            let body = String::from_utf8_lossy(&file().unwrap_or_default()).replace(from, to);
            Response::new(Body::from(body))
        }
        // The server drops the connection of a handler that panics; this way it says nothing about it.
        Some(Fault::Close) => std::panic::resume_unwind(Box::new("closed")),
        Some(Fault::Hang) => {
            std::future::pending::<()>().await;
            status(500)
        }
        Some(Fault::Cut) => cut(&file().unwrap_or_else(|| vec![b'x'; 100])),
        None => match file() {
            Some(body) if method == Method::HEAD => {
                Response::builder().header("content-length", body.len()).body(Body::empty()).unwrap()
            }
            Some(body) => Response::new(Body::from(body)),
            None => status(404),
        },
    }
}

/// Promises the whole body and breaks off in the middle.
fn cut(body: &[u8]) -> Response<Body> {
    let half = Bytes::copy_from_slice(&body[..body.len() / 2]);
    let broken = std::io::Error::other("cut");
    let stream = futures_util::stream::iter([Ok(half), Err(broken)]);
    Response::builder().header("content-length", body.len()).body(Body::from_stream(stream)).unwrap()
}

fn with(code: u16, header: &'static str, value: &str) -> Response<Body> {
    let mut response = status(code);
    response.headers_mut().insert(header, value.parse().unwrap());
    response
}

fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

impl Shared {
    /// Stores a file, whole or not at all.
    async fn put(&self, name: &str, authorization: Option<String>, body: Body) -> Response<Body> {
        use futures_util::StreamExt as _;
        match &*self.uploads.lock().unwrap() {
            None => return status(405),
            Some(Some(wanted)) if authorization.as_ref() != Some(wanted) => {
                return status(if authorization.is_some() { 403 } else { 401 });
            }
            Some(_) => {}
        }
        let sort = if name.ends_with(".narinfo") { "narinfo" } else { name.split('/').next().unwrap_or_default() };
        let rules = [format!("PUT {name}"), format!("PUT {sort}"), "PUT *".to_owned()];
        let rule = rules.into_iter().find(|rule| self.faults.lock().unwrap().contains_key(rule));
        let fault = rule.and_then(|rule| self.fault(&rule));
        let mut stream = body.into_data_stream();
        if let Some(Fault::Cut) = fault {
            let _ = stream.next().await;
            // Takes the connection along, in silence.
            std::panic::resume_unwind(Box::new(()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(_) => return status(400),
            }
        }
        match fault {
            Some(Fault::Status(code)) => status(code),
            Some(Fault::With(code, header, value)) => with(code, header, &value),
            Some(Fault::Swallow) => status(200),
            Some(Fault::Body(body)) => Response::new(Body::from(body)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Close) => std::panic::resume_unwind(Box::new("closed")),
            Some(
                Fault::Says(..)
                | Fault::Redirect
                | Fault::Encoded(_)
                | Fault::Packed(_)
                | Fault::Headless
                | Fault::Flipped
                | Fault::Edited(..),
            ) => unreachable!("{fault:?} is no fault of an upload"),
            Some(Fault::Half | Fault::Cut) | None => {
                if fault.is_some() {
                    bytes.truncate(bytes.len() / 2);
                }
                let file = self.root.join(name);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                let part = file.with_extension("part");
                std::fs::write(&part, bytes).unwrap();
                std::fs::rename(part, file).unwrap();
                status(201)
            }
        }
    }

    fn fault(&self, name: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let kind = match name.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/*"),
            None => format!("*.{}", name.rsplit('.').next().unwrap_or_default()),
        };
        let key = [name, &kind, "*"].into_iter().find(|key| faults.contains_key(*key))?.to_owned();
        let (queue, stays) = faults.get_mut(&key)?;
        let fault = queue.first().cloned();
        if !*stays && !queue.is_empty() {
            queue.remove(0);
        }
        if queue.is_empty() {
            faults.remove(&key);
        }
        fault
    }
}
