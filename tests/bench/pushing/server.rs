//! A plain cache on a server in a thread of its own: files in a directory, an answer after a while, and a list of what
//! was written in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Response, StatusCode, Uri};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

/// See the module's page. It ends when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

struct Shared {
    root: PathBuf,
    away: Duration,
    written: Mutex<Vec<String>>,
    /// `PUT narinfo` → how often.
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Server {
    pub(crate) fn start(root: &Path, away: Duration) -> Self {
        std::fs::create_dir_all(root.join("nar")).unwrap();
        let shared =
            Arc::new(Shared { root: root.to_owned(), away, written: Mutex::default(), asked: Mutex::default() });
        let (started, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let state = Arc::clone(&shared);
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                started.send(listener.local_addr().unwrap()).unwrap();
                let app = axum::Router::new().fallback(answer).with_state(state);
                let ended = async { drop(stopped.await) };
                axum::serve(listener, app).with_graceful_shutdown(ended).await.unwrap();
            });
        });
        Self { url: format!("http://{}", address.recv().unwrap()), shared, _stop: stop }
    }

    /// Every file was written once, and each record after its NAR and after the records that it refers to.
    pub(crate) fn assert_in_order(&self, paths: usize) {
        let written = self.shared.written.lock().unwrap();
        let mut seen = BTreeSet::new();
        for name in written.iter().filter(|name| *name != "nix-cache-info") {
            if name.ends_with(".narinfo") {
                let text = std::fs::read_to_string(self.shared.root.join(name)).unwrap();
                let field = |field: &str| text.lines().find_map(|line| line.strip_prefix(field)).unwrap().to_owned();
                assert!(seen.contains(&field("URL: ")), "{name} before its NAR");
                for reference in field("References: ").split_whitespace().map(|base| format!("{}.narinfo", &base[..32]))
                {
                    assert!(reference == *name || seen.contains(&reference), "{name} before {reference}");
                }
            }
            assert!(seen.insert(name.clone()), "{name} was written twice");
        }
        assert_eq!(seen.len(), 2 * paths);
    }

    /// Requests of each sort.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().iter().map(|(sort, count)| format!("{count} {sort}")).collect()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, body: Body) -> Response<Body> {
    let name = uri.path().trim_start_matches('/').to_owned();
    let sort = name.rsplit(['.', '/']).next().unwrap_or_default();
    let sort = if name.starts_with("nar/") { "NAR" } else { sort };
    *shared.asked.lock().unwrap().entry(format!("{method} {sort}")).or_default() += 1;
    tokio::time::sleep(shared.away).await;
    let file = shared.root.join(&name);
    if method == Method::PUT {
        let part = file.with_extension("part");
        let mut out = tokio::fs::File::create(&part).await.unwrap();
        let mut stream = body.into_data_stream();
        while let Some(chunk) = stream.next().await {
            let Ok(chunk) = chunk else { return status(400) };
            out.write_all(&chunk).await.unwrap();
        }
        out.flush().await.unwrap();
        std::fs::rename(part, file).unwrap();
        shared.written.lock().unwrap().push(name);
        return status(201);
    }
    let Ok(meta) = std::fs::metadata(&file) else { return status(404) };
    let found = Response::builder().header("content-length", meta.len());
    match method == Method::HEAD {
        true => found.body(Body::empty()).unwrap(),
        false => found.body(Body::from(std::fs::read(file).unwrap())).unwrap(),
    }
}

fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
