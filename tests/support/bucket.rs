//! Servers that speak S3: s3s-fs in this process, which checks every signature, and moto, written by others, in one of
//! its own.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::future::Future;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};

/// The keys that the servers know. The secret stands nowhere else, so that a test can look for it everywhere.
pub const KEY_ID: &str = "AKIDROVERTEST";
pub const SECRET: &str = "pl4nted/s3+s3cret";

/// The bucket that every server has.
pub const BUCKET: &str = "acme-cache";

/// What the server does with a request instead of doing it.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with an error of S3.
    Says(u16, &'static str),
    /// The connection is closed without an answer.
    Close,
    /// Done as asked, but the connection is closed without an answer.
    Lost,
    /// No answer within the life of the test.
    Hang,
}

/// One request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `PUT`, …
    pub method: String,
    /// The file's name in the bucket.
    pub name: String,
    pub query: String,
    pub headers: HeaderMap,
}

impl Asked {
    /// `PUT narinfo`, `POST uploads`, `PUT part`, …: what sort of request it was.
    pub fn sort(&self) -> String {
        let of_query = ["partNumber", "uploadId", "uploads", "list-type"];
        let query = of_query.iter().find(|word| self.query.contains(*word)).map(|word| match *word {
            "partNumber" => "part",
            word => word,
        });
        let of_name = if self.name.ends_with(".narinfo") { "narinfo" } else { self.name.split('/').next().unwrap() };
        format!("{} {}", self.method, query.unwrap_or(of_name))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A rule: the next so many requests of this sort go like this.
struct Rule {
    sort: String,
    faults: Vec<Fault>,
}

/// s3s-fs on a thread of its own; ends when dropped.
pub struct Bucket {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    root: PathBuf,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Who really answers.
enum Behind {
    Here(S3Service),
    /// Another server.
    There(String, reqwest::Client),
}

struct Shared {
    behind: Behind,
    log: Mutex<Vec<Asked>>,
    answered: Mutex<Vec<String>>,
    rules: Mutex<Vec<Rule>>,
    delay: Mutex<Duration>,
}

/// Everybody may read; only who has the keys may do more.
struct Readable {
    by_all: bool,
}

impl S3Access for Readable {
    fn check<'a, 'b, 'c, 'f>(
        &'a self,
        context: &'b mut S3AccessContext<'c>,
    ) -> Pin<Box<dyn Future<Output = S3Result<()>> + Send + 'f>>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        Self: 'f,
    {
        let reads = self.by_all && matches!(context.s3_op().name(), "GetObject" | "HeadObject");
        let may = context.credentials().is_some() || reads;
        Box::pin(async move { if may { Ok(()) } else { Err(s3_error!(AccessDenied)) } })
    }
}

impl Bucket {
    /// Serves this directory; [`BUCKET`] is a directory in it. `public`: everybody may read.
    pub fn serve(root: &Path, public: bool) -> Self {
        std::fs::create_dir_all(root.join(BUCKET)).unwrap();
        let files = s3s_fs::FileSystem::new(root).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        builder.set_access(Readable { by_all: public });
        Self::listen(root, Behind::Here(builder.build()))
    }

    /// Passes everything on to moto, and tells what that was.
    pub fn before(moto: &Moto) -> Self {
        Self::listen(Path::new(""), Behind::There(moto.endpoint.clone(), client()))
    }

    fn listen(root: &Path, behind: Behind) -> Self {
        let shared = Arc::new(Shared {
            behind,
            log: Mutex::default(),
            answered: Mutex::default(),
            rules: Mutex::default(),
            delay: Mutex::default(),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let app = Router::new().fallback(answer).with_state(state);
                tokio::select! {
                    served = async { axum::serve(listener, app).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        let endpoint = format!("http://{}", is_ready.recv().unwrap());
        Self { endpoint, root: root.to_owned(), shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `s3://BUCKET` at this server, with these parameters.
    pub fn url(&self, params: &str) -> String {
        url(&self.endpoint, params)
    }

    /// Where everybody reads its files by plain HTTP.
    pub fn http(&self) -> String {
        format!("{}/{BUCKET}", self.endpoint)
    }

    /// The directory with its files.
    pub fn dir(&self) -> PathBuf {
        self.root.join(BUCKET)
    }

    /// All requests so far, in order.
    pub fn log(&self) -> Vec<Asked> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How many requests of this sort came.
    pub fn count(&self, sort: &str) -> usize {
        self.log().iter().filter(|asked| asked.sort() == sort).count()
    }

    /// How many requests of this sort were done as asked and answered.
    pub fn answered(&self, sort: &str) -> usize {
        self.shared.answered.lock().unwrap().iter().filter(|answered| *answered == sort).count()
    }

    /// The next requests of this sort (of a part also: `PUT part 4`) go like this, one after the other; then they are done as asked again.
    pub fn next(&self, sort: &str, faults: impl IntoIterator<Item = Fault>) {
        let rule = Rule { sort: sort.to_owned(), faults: faults.into_iter().collect() };
        self.shared.rules.lock().unwrap().push(rule);
    }

    /// Every answer comes this much later.
    pub fn delay(&self, delay: Duration) {
        *self.shared.delay.lock().unwrap() = delay;
    }
}

/// A client for everything.
pub fn client() -> reqwest::Client {
    // An error means that drover has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// `s3://BUCKET` at a server, with no patience.
fn url(endpoint: &str, params: &str) -> String {
    let quick = "retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5";
    format!("s3://{BUCKET}?endpoint={endpoint}&region=eu-west-1&{quick}&{params}")
}

impl Drop for Bucket {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let name = request.uri().path().trim_start_matches('/').trim_start_matches(BUCKET).trim_start_matches('/');
    let asked = Asked {
        method: request.method().to_string(),
        name: name.to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: request.headers().clone(),
    };
    let sort = asked.sort();
    let number = asked.query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).unwrap_or_default();
    let part = format!("{sort} {number}");
    shared.log.lock().unwrap().push(asked);
    let delay = *shared.delay.lock().unwrap();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let fault = {
        let mut rules = shared.rules.lock().unwrap();
        let fits = |rule: &Rule| rule.sort == sort || rule.sort == part;
        let rule = rules.iter_mut().find(|rule| fits(rule) && !rule.faults.is_empty());
        rule.map(|rule| rule.faults.remove(0))
    };
    let is_head = request.method() == Method::HEAD;
    match fault {
        Some(Fault::Says(code, word)) => {
            // Whoever still sends when the connection is closed may never read the answer.
            let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            let body = format!("<Error><Code>{word}</Code><Message>as told</Message></Error>");
            let mut response = Response::new(if is_head { Body::empty() } else { Body::from(body) });
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            response
        }
        // The server drops the connection of a handler that panics; this way it says nothing about it.
        Some(Fault::Close) => std::panic::resume_unwind(Box::new("closed")),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Lost) => {
            let _ = serve(&shared, request).await;
            std::panic::resume_unwind(Box::new("lost"))
        }
        None => {
            let response = serve(&shared, request).await;
            shared.answered.lock().unwrap().push(sort);
            response
        }
    }
}

async fn serve(shared: &Shared, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match &shared.behind {
        Behind::Here(service) => {
            let request = Request::from_parts(parts, s3s::Body::http_body_unsync(body));
            match service.call(request).await {
                Ok(response) => response.map(Body::new),
                Err(error) => panic!("s3s: {error:?}"),
            }
        }
        Behind::There(endpoint, client) => {
            let url = format!("{endpoint}{}", parts.uri);
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let request = client.request(parts.method, url).headers(parts.headers).body(body);
            let said = request.send().await.unwrap();
            let mut response = Response::builder().status(said.status());
            response.headers_mut().unwrap().extend(said.headers().clone());
            response.headers_mut().unwrap().remove("transfer-encoding");
            response.headers_mut().unwrap().remove("connection");
            let length = said.headers().get("content-length").cloned();
            let mut bytes = said.bytes().await.unwrap();
            // moto says of every upload that it was begun in 2010, when nobody would go on with it any more.
            const BEGUN: &str = "<Initiated>2010-11-10";
            if let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| text.contains(BEGUN)) {
                bytes = text.replace(BEGUN, "<Initiated>2099-11-10").into();
            }
            let mut response = response.body(Body::from(bytes)).unwrap();
            // The one of an answer to HEAD is of a body that is not there.
            if let Some(length) = length {
                response.headers_mut().insert("content-length", length);
            }
            response
        }
    }
}

/// moto_server in a process of its own; ends when dropped. It checks no signatures.
pub struct Moto {
    pub endpoint: String,
    child: Child,
}

impl Moto {
    /// Starts the one that `nix/setup --test` installed.
    #[expect(clippy::disallowed_methods, reason = "a server of its own, which ends with the test")]
    pub fn start() -> Self {
        let program = super::nix::tool("moto/bin/moto_server");
        let mut child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        // ` * Running on http://127.0.0.1:PORT`
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("Running on http://")).expect("moto_server does not start");
        let port = line.rsplit(':').next().unwrap().trim().to_owned();
        // Whoever writes into a pipe that nobody reads stands still at some time.
        std::thread::spawn(move || lines.for_each(drop));
        Self { endpoint: format!("http://127.0.0.1:{port}"), child }
    }

    /// `s3://BUCKET` at this server, with these parameters.
    pub fn url(&self, params: &str) -> String {
        url(&self.endpoint, params)
    }

    /// Where its files are read by plain HTTP.
    pub fn http(&self) -> String {
        format!("{}/{BUCKET}", self.endpoint)
    }

    /// Makes [`BUCKET`], from which everybody may read.
    pub async fn make_bucket(&self) {
        let policy = format!(
            "{{\"Version\": \"2012-10-17\", \"Statement\": [{{\"Effect\": \"Allow\", \"Principal\": \"*\", \
             \"Action\": [\"s3:GetObject\", \"s3:HeadObject\"], \"Resource\": \"arn:aws:s3:::{BUCKET}/*\"}}]}}"
        );
        let bucket = format!("{}/{BUCKET}", self.endpoint);
        for (url, body) in [(bucket.clone(), String::new()), (format!("{bucket}?policy"), policy)] {
            let made = client().put(url).body(body).send().await.unwrap();
            assert!(made.status().is_success(), "{made:?}");
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
