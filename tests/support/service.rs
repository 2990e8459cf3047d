//! A server of a test (127.0.0.1) on a thread of its own, which answers by a function, late or wrong where it is told
//! to, and keeps a log.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

/// What a server does with a request instead of what it should.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// This status, after the whole body.
    Status(u16),
    /// This status with this header, before any of the body is read.
    Early(u16, &'static str, &'static str),
    /// This status with this body.
    Says(u16, String),
    /// The connection breaks after some of the body.
    Cut,
    /// What should be done is done, and the connection breaks before the answer.
    Lost,
    /// No answer within the life of the test.
    Hang,
}

/// A request with its whole body.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A parameter of the query, undecoded.
    pub fn param(&self, name: &str) -> Option<&str> {
        let pairs = self.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// How a test makes a server misbehave, and sees what it did.
#[derive(Default)]
pub struct Control {
    delay: Mutex<Duration>,
    /// Name of a call → what goes wrong the next times; the last one stays if `bool` is set.
    troubles: Mutex<BTreeMap<&'static str, (Vec<Trouble>, bool)>>,
    log: Mutex<Vec<String>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Control {
    /// Every answer comes this much later.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    /// The next calls of this name go like this, one after the other; then it is well again.
    pub fn next(&self, call: &'static str, troubles: impl IntoIterator<Item = Trouble>) {
        self.troubles.lock().unwrap().insert(call, (troubles.into_iter().collect(), false));
    }

    /// All calls of this name go like this.
    pub fn always(&self, call: &'static str, trouble: Trouble) {
        self.troubles.lock().unwrap().insert(call, (vec![trouble], true));
    }

    /// All is well again.
    pub fn heal(&self) {
        self.troubles.lock().unwrap().clear();
    }

    /// Names of all calls so far, in order.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Calls of this name so far.
    pub fn count(&self, call: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|name| *name == call).count()
    }

    /// The most requests that were answered at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.most_in_flight.load(Ordering::Relaxed)
    }

    fn trouble(&self, call: &str) -> Option<Trouble> {
        let mut troubles = self.troubles.lock().unwrap();
        let (list, stays) = troubles.get_mut(call)?;
        if list.is_empty() {
            return None;
        }
        Some(if *stays { list[0].clone() } else { list.remove(0) })
    }
}

/// What a server is for.
pub trait Answers: Send + Sync + 'static {
    /// The name of a call, for its log and for troubles.
    fn name(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> &'static str;

    /// The answer to a request.
    fn answer(&self, asked: Asked) -> Response<Body>;

    /// How it is made to misbehave.
    fn control(&self) -> &Control;
}

/// A server that ends when dropped.
pub struct Service {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A place for a server that is not there yet, so that it can know its own URL.
pub struct Seat {
    listener: std::net::TcpListener,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
}

impl Seat {
    pub fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// Starts to answer.
    pub fn serve(self, answers: Arc<dyn Answers>) -> Service {
        let (stop, stopped) = oneshot::channel::<()>();
        let Self { listener, url } = self;
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let app = Router::new().fallback(move |method, uri, headers, body| {
                    let answers = Arc::clone(&answers);
                    async move { answer(&*answers, method, uri, headers, body).await }
                });
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = axum::serve(listener, app) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Service { url, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Counts down when a request ends, also when its client goes away.
struct InFlight<'a>(&'a Control);

impl<'a> InFlight<'a> {
    fn enter(control: &'a Control) -> Self {
        let now = control.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        control.most_in_flight.fetch_max(now, Ordering::Relaxed);
        Self(control)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(answers: &dyn Answers, method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Response<Body> {
    let control = answers.control();
    let _in_flight = InFlight::enter(control);
    let name = answers.name(&method, &uri, &headers);
    control.log.lock().unwrap().push(name.to_owned());
    let delay = *control.delay.lock().unwrap();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let trouble = control.trouble(name);
    if let Some(Trouble::Early(code, header, value)) = trouble {
        let mut response = status(code);
        response.headers_mut().insert(header, value.parse().unwrap());
        return response;
    }
    let mut stream = body.into_data_stream();
    if let Some(Trouble::Cut) = trouble {
        let _ = stream.next().await;
        // Takes the connection along, in silence.
        std::panic::resume_unwind(Box::new(()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            // The client went away: nobody is there for an answer.
            Err(_) => return status(400),
        }
    }
    let asked = || Asked { method, uri, headers, body: body.into() };
    match trouble {
        Some(Trouble::Status(code)) => status(code),
        Some(Trouble::Says(code, text)) => text_of(code, text),
        Some(Trouble::Hang) => std::future::pending().await,
        Some(Trouble::Lost) => {
            drop(answers.answer(asked()));
            std::panic::resume_unwind(Box::new(()));
        }
        Some(Trouble::Early(..) | Trouble::Cut) | None => answers.answer(asked()),
    }
}

/// This status and nothing else.
pub fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// This status with this text.
pub fn text_of(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = status(code);
    *response.body_mut() = Body::from(text.into());
    response
}

/// 200 with this JSON.
pub fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = text_of(200, value.to_string());
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}
