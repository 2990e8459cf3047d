//! What a daemon says. The input is cut at [`ASKED`]; each piece is there once the client has asked something.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::{
    BasicDerivation, BuildMode, Connection, DerivedPath, Message, OFFERED_MINOR, OLDEST_MINOR, PathInfo, SERVER_MAGIC,
};
use drover::nix_compat::drv;
use drover::nix_compat::wire::Encoder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Parts what is said before a question from what is said after it.
const ASKED: &[u8] = b"<?>";

const DRV: &[u8] = include_bytes!("../../../fixtures/wire/pair.drv");

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// What is still to be said.
#[derive(Default)]
struct Script {
    pieces: VecDeque<Vec<u8>>,
    now: Vec<u8>,
    waited: bool,
}

/// One end of both streams.
#[derive(Clone, Default)]
struct Peer(Arc<Mutex<Script>>);

impl Peer {
    fn new(pieces: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(Arc::new(Mutex::new(Script { pieces: pieces.into_iter().collect(), ..Script::default() })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncRead for Peer {
    /// Whoever looks finds nothing before the question; whoever waits gets the next piece in the end.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|script| {
            if script.now.is_empty() {
                if !std::mem::replace(&mut script.waited, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                script.now = script.pieces.pop_front().unwrap_or_default();
            }
            let len = script.now.len().min(buf.remaining());
            buf.put_slice(&script.now[..len]);
            script.now.drain(..len);
            script.waited = false;
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|script| {
            if script.now.is_empty() {
                script.now = script.pieces.pop_front().unwrap_or_default();
            }
            script.waited = false;
        });
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn pieces(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while let Some(at) = bytes.windows(ASKED.len()).position(|window| window == ASKED) {
        pieces.push(bytes[..at].to_vec());
        bytes = &bytes[at + ASKED.len()..];
    }
    pieces.push(bytes.to_vec());
    pieces
}

async fn open(peer: &Peer) -> Option<Connection> {
    Connection::open(Box::new(peer.clone()), Box::new(peer.clone()), StoreDir::default()).await.ok()
}

/// Everything from the first byte on.
pub fn hello(bytes: &[u8]) {
    block_on(async {
        let Some(connection) = open(&Peer::new(pieces(bytes))).await else { return };
        assert!((OLDEST_MINOR..=OFFERED_MINOR).contains(&connection.peer().minor));
    });
}

/// Answers to one operation after a sound handshake: the first two bytes say which operation, and in which version.
pub fn reply(bytes: &[u8]) {
    let [which, minor, said @ ..] = bytes else { return };
    let minor = OLDEST_MINOR + u16::from(*minor) % (OFFERED_MINOR - OLDEST_MINOR + 1);
    let hello = Encoder::new().u64(SERVER_MAGIC).u64(1 << 8 | u64::from(minor)).as_bytes().to_vec();
    let mut rest = Encoder::new();
    if minor >= 38 {
        rest.u64(0);
    }
    rest.bytes("2.34.8").u64(1).u64(0x616c_7473);
    let peer = Peer::new([hello, rest.finish()].into_iter().chain(pieces(said)));
    block_on(async {
        let mut connection = open(&peer).await.unwrap();
        ask(&mut connection, *which).await;
        // Out of step or not, it does not panic.
        let _ = connection.valid_paths(&[path("d")]).await;
    });
}

fn path(name: &str) -> StorePath {
    StorePath::from_parts([7; 20], name).unwrap()
}

async fn ask(connection: &mut Connection, which: u8) {
    let (dir, drv_path) = (StoreDir::default(), path("pair.drv"));
    let paths = [path("a"), path("b")];
    let mut heard = 0_usize;
    let mut messages = |message: Message| {
        heard += usize::from(message.build_log_line().is_some() || message.phase().is_some());
    };
    match which % 12 {
        0 => drop(connection.valid_paths(&paths).await),
        1 => drop(connection.query_valid_paths(&paths, true, &mut messages).await),
        2 => {
            for info in connection.path_infos(&paths).await.into_iter().flatten().flatten() {
                read_again(&info, &dir);
            }
        }
        3 => drop(connection.ensure_path(&paths[0], &mut messages).await),
        4 => {
            let drv = drv::parse(DRV, &drv_path, &dir).unwrap();
            let basic = BasicDerivation::new(&drv, []).unwrap();
            let built = connection.build_derivation(&drv_path, &basic, BuildMode::Normal, &mut messages).await;
            if let Ok(result) = built {
                let _ = result.error_text();
            }
        }
        5 => {
            let wanted = [DerivedPath::parse_legacy_in(&dir, &format!("{}!out", dir.render_path(&drv_path))).unwrap()];
            drop(connection.build_paths(&wanted, BuildMode::Normal, &mut messages).await);
        }
        6 => {
            let wanted = [DerivedPath::parse_legacy_in(&dir, &format!("{}!out", dir.render_path(&drv_path))).unwrap()];
            drop(connection.query_missing(&wanted, &mut messages).await);
        }
        7 => drop(connection.output_map(&drv_path).await),
        8 => drop(connection.add_perm_root(&paths[0], std::path::Path::new("/r")).await),
        9 => {
            let mut nar = Vec::new();
            if connection.nar_from_path(&paths[0], 120, &mut nar).await.is_ok() {
                assert_eq!(nar.len(), 120);
            }
        }
        10 => {
            let info = PathInfo {
                path: paths[0].clone(),
                deriver: None,
                nar_hash: [1; 32],
                references: std::iter::once(paths[1].clone()).collect(),
                registration_time: 0,
                nar_size: 120,
                ultimate: false,
                signatures: std::collections::BTreeSet::new(),
                ca: None,
            };
            drop(connection.add_to_store_nar(&info, true, &mut [0; 120].as_slice(), &mut messages).await);
        }
        _ => drop(connection.hold_if_valid(&paths).await),
    }
}

/// What is written is read as the same.
fn read_again(info: &PathInfo, dir: &StoreDir) {
    let mut written = Encoder::new();
    info.write(dir, &mut written);
    let read = block_on_now(PathInfo::read(&mut written.as_bytes(), dir));
    assert_eq!(read.unwrap(), *info);
}

/// Of a reader that never waits.
fn block_on_now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// What a plan or a store says of a path.
pub fn path_info(bytes: &[u8]) {
    let dir = StoreDir::default();
    if let Ok(info) = block_on_now(PathInfo::read(&mut &*bytes, &dir)) {
        read_again(&info, &dir);
        let _ = info.others().count();
        assert_eq!(PathInfo::references_first(vec![info.clone()]), [info]);
    }
}
