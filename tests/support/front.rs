//! How servers of tests are reached: in the clear with HTTP/1.1, or over TLS with HTTP/2; and what connections may take.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// See the module's page.
#[derive(Clone, Default)]
pub struct Front {
    tls: Option<Tls>,
    streams: Option<u32>,
    requests: Option<u32>,
}

/// A certificate for this machine, and who vouches for it.
#[derive(Clone)]
struct Tls {
    config: Arc<ServerConfig>,
    ca: String,
}

/// What came to a server.
#[derive(Debug, Default)]
pub struct Traffic {
    connections: AtomicU32,
    /// Requests of a version of HTTP that many of them share a connection in.
    shared: AtomicU32,
}

impl Traffic {
    /// Connections that were made.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests that came by HTTP/2.
    pub fn by_http2(&self) -> u32 {
        self.shared.load(Ordering::Relaxed)
    }
}

impl Front {
    /// HTTP/1.1 in the clear.
    pub fn plain() -> Self {
        Self::default()
    }

    /// HTTP/2 or HTTP/1.1 over TLS, as the client likes.
    pub fn tls() -> Self {
        Self { tls: Some(Tls::new(&["h2", "http/1.1"])), ..Self::default() }
    }

    /// Only HTTP/1.1, over TLS.
    pub fn old_tls() -> Self {
        Self { tls: Some(Tls::new(&["http/1.1"])), ..Self::default() }
    }

    /// At most so many streams on a connection at once (`MAX_CONCURRENT_STREAMS`).
    pub fn streams(self, streams: u32) -> Self {
        Self { streams: Some(streams), ..self }
    }

    /// After so many requests a connection is closed in good order (GOAWAY, `Connection: close`).
    pub fn requests(self, requests: u32) -> Self {
        Self { requests: Some(requests), ..self }
    }

    /// The certificate to trust, as PEM; empty without TLS.
    pub fn ca(&self) -> String {
        self.tls.as_ref().map(|tls| tls.ca.clone()).unwrap_or_default()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves until dropped.
    pub async fn serve(self, listener: TcpListener, app: Router, traffic: Arc<Traffic>) {
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            traffic.connections.fetch_add(1, Ordering::Relaxed);
            let (front, app, traffic) = (self.clone(), app.clone(), traffic.clone());
            connections.spawn(async move {
                match &front.tls {
                    None => front.connection(socket, app, traffic).await,
                    Some(tls) => {
                        if let Ok(stream) = TlsAcceptor::from(tls.config.clone()).accept(socket).await {
                            front.connection(stream, app, traffic).await;
                        }
                    }
                }
            });
            while connections.try_join_next().is_some() {}
        }
    }

    async fn connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        app: Router,
        traffic: Arc<Traffic>,
    ) {
        let (enough, heard) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let most = self.requests.unwrap_or(u32::MAX);
        let app = app.layer(axum::middleware::map_request({
            let enough = enough.clone();
            move |request: Request<Body>| {
                if request.version() == axum::http::Version::HTTP_2 {
                    traffic.shared.fetch_add(1, Ordering::Relaxed);
                }
                if heard.fetch_add(1, Ordering::Relaxed) + 1 == most {
                    enough.notify_one();
                }
                std::future::ready(request)
            }
        }));
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(self.streams);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            // Whatever a client does to a connection is its own business.
            _ = connection.as_mut() => return,
            () = enough.notified() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }
}

impl Tls {
    fn new(protocols: &[&str]) -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config), ca: ca.pem() }
    }
}

/// An answer in another form.
pub fn packed(encoding: &str, body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    match encoding {
        "gzip" => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(body).unwrap();
            gzip.finish().unwrap()
        }
        "zstd" => zstd::encode_all(body, 1).unwrap(),
        other => panic!("no {other}"),
    }
}

/// 405, as of a server that does not know HEAD.
pub fn headless() -> Response<Body> {
    Response::builder().status(405).header("allow", "GET").body(Body::empty()).unwrap()
}
