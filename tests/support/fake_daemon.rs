//! The other side of the daemon protocol, for tests: a server that says exactly what a test wants, in memory.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::{CLIENT_MAGIC, Connection, DaemonError, Reader, SERVER_MAGIC, Tag, Writer};
use drover::nix_compat::wire::{Encoder, WireError, read_bytes, read_u64};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

/// A server that a test plays by hand, in memory unless it is told otherwise.
pub struct Server<S = DuplexStream> {
    pub stream: S,
}

/// Both ends of a connection that holds at most this many bytes each way.
pub fn pair(buffer: usize) -> ((Reader, Writer), Server) {
    let (client, stream) = tokio::io::duplex(buffer);
    let (reader, writer) = tokio::io::split(client);
    ((Box::new(reader), Box::new(writer)), Server { stream })
}

/// Runs a client on a connection whose server speaks 1.`minor` and tells this trust (0 unknown, 1 trusted, 2 not),
/// then does what `server` says. Both have to end within seconds.
pub fn play<T>(
    (minor, trust): (u16, u64),
    server: impl AsyncFnOnce(&mut Server),
    client: impl AsyncFnOnce(&mut Connection) -> T,
) -> T {
    play_with(1 << 16, (minor, trust), server, client)
}

/// [`play`] with so small a pipe.
pub fn play_with<T>(
    buffer: usize,
    (minor, trust): (u16, u64),
    server: impl AsyncFnOnce(&mut Server),
    client: impl AsyncFnOnce(&mut Connection) -> T,
) -> T {
    run(async {
        let ((reader, writer), mut peer) = pair(buffer);
        let serve = async move {
            peer.handshake(minor, trust).await;
            server(&mut peer).await;
        };
        let connect = async move {
            let mut connection = Connection::open(reader, writer, StoreDir::default()).await.unwrap();
            client(&mut connection).await
        };
        tokio::join!(serve, connect).1
    })
}

/// Runs a future on one thread; one that hangs is a failure.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("it hangs") })
}

/// A store path of this name.
pub fn path(name: &str) -> StorePath {
    StorePath::from_basename(format!("{}-{name}", "0".repeat(32)).as_bytes()).unwrap()
}

impl<S: AsyncRead + AsyncWrite + Unpin> Server<S> {
    /// The server's part of the handshake.
    pub async fn handshake(&mut self, minor: u16, trust: u64) {
        assert_eq!(self.number().await, CLIENT_MAGIC);
        self.send(Encoder::new().u64(SERVER_MAGIC).u64(0x100 | u64::from(minor))).await;
        let offered = self.number().await;
        let minor = minor.min((offered & 0xff) as u16);
        if minor >= 38 {
            assert_eq!(self.number().await, 0, "drover offers no features");
            self.send(Encoder::new().list(["made-up-feature"], |to, name| {
                to.bytes(name);
            }))
            .await;
        }
        assert_eq!((self.number().await, self.number().await), (0, 0), "the obsolete fields");
        self.send(Encoder::new().bytes("2.99.9").u64(trust).u64(Tag::Last as u64)).await;
    }

    /// Reads an integer.
    pub async fn number(&mut self) -> u64 {
        read_u64(&mut self.stream).await.unwrap()
    }

    /// Reads a string.
    pub async fn text(&mut self) -> String {
        String::from_utf8(read_bytes(&mut self.stream).await.unwrap()).unwrap()
    }

    /// Reads one request of an operation that takes a path; gives its number and the path.
    pub async fn path_request(&mut self) -> (u64, String) {
        (self.number().await, self.text().await)
    }

    /// Waits for the start of any request.
    pub async fn any_request(&mut self) {
        self.stream.read_u8().await.unwrap();
    }

    /// Waits for the start of any request; whether one came before the client went.
    pub async fn try_any_request(&mut self) -> bool {
        self.stream.read_u8().await.is_ok()
    }

    /// Reads until the client is gone.
    pub async fn until_closed(&mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }

    /// Takes what is there without waiting for more.
    pub async fn drain(&mut self) {
        let mut buffer = [0; 4096];
        poll_fn(|cx: &mut Context<'_>| {
            loop {
                let mut buf = ReadBuf::new(&mut buffer);
                if Pin::new(&mut self.stream).poll_read(cx, &mut buf).is_pending() || buf.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    }

    /// Sends a message; a client that is gone does not mind.
    pub async fn send(&mut self, message: &Encoder) {
        self.send_bytes(message.as_bytes()).await;
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }
}

/// `STDERR_LAST`, to be followed by a reply.
pub fn last() -> Encoder {
    let mut message = Encoder::new();
    message.u64(Tag::Last as u64);
    message
}

/// `STDERR_ERROR`.
pub fn error(text: &str) -> Encoder {
    let mut message = Encoder::new();
    message.u64(Tag::Error as u64).bytes("Error").u64(0).bytes("Error").bytes(text).u64(0).u64(0);
    message
}

/// A build result in the layout of 1.`minor`.
pub fn build_result(to: &mut Encoder, minor: u16, status: u64, text: &str, outputs: &[(&str, &StorePath)]) {
    to.u64(status).bytes(text).u64(1).u64(0).u64(1000).u64(1002);
    if minor >= 37 {
        to.u64(1).u64(1_500_000).u64(0);
    }
    to.list(outputs, |to, (name, path)| {
        let path = path.to_basename();
        to.bytes(format!("sha256:{}!{name}", "0".repeat(64)))
            .bytes(format!(r#"{{"id":"x","outPath":"{path}","signatures":[],"dependentRealisations":{{}}}}"#));
    });
}

/// A small NAR: one file.
pub fn nar(content: &[u8]) -> Vec<u8> {
    let mut nar = Encoder::new();
    for token in ["nix-archive-1", "(", "type", "regular", "contents"] {
        nar.bytes(token);
    }
    nar.bytes(content).bytes(")");
    nar.finish()
}

/// What an error is, for assertions.
pub fn kind(error: &DaemonError) -> &'static str {
    match error {
        DaemonError::Refused { .. } => "refused",
        DaemonError::Source { .. } => "source",
        DaemonError::Sink { .. } => "sink",
        DaemonError::Fatal { .. } => "fatal",
        DaemonError::Closed { .. } => "closed",
        DaemonError::Io { .. } => "io",
        DaemonError::Protocol { .. } => "protocol",
        DaemonError::Poisoned { .. } => "poisoned",
    }
}

/// Reads a framed stream to its end.
pub async fn framed(server: &mut Server) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    drover::nix_compat::wire::read_framed(&mut server.stream, &mut bytes).await?;
    Ok(bytes)
}
