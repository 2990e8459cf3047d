//! What servers of caches say. The input is a script: answers, one for each request in turn, with [`NEXT`] between them;
//! after the last one nothing is found any more. An answer is its status, header lines, an empty line and the body; of
//! one that does not begin with a status all is body. [`HERE`] in it becomes the address of the server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use drover::id::{CacheId, StoreDir, StorePath};
use drover::nix_compat::wire::Encoder;
use drover::push::{self, PathInfo};
use drover::store::cache::{Answer, Cache, CacheConfig, Engine, LoginEnv, OpenContext, Patience};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Parts one answer from the next.
const NEXT: &[u8] = b"\n%%\n";

/// Becomes `127.0.0.1:PORT`.
const HERE: &str = "@HERE@";

/// Most bytes of a NAR that records name: more is not read.
const MOST: u64 = 1 << 20;

/// A plain cache.
pub fn http(bytes: &[u8]) {
    play(bytes, |here| format!("http://{here}?priority=3"));
}

/// A cache of Cachix.
pub fn cachix(bytes: &[u8]) {
    play(bytes, |here| format!("cachix:acme?host=http://{here}"));
}

/// A cache of an Attic server.
pub fn attic(bytes: &[u8]) {
    play(bytes, |here| format!("attic:http://{here}/acme"));
}

/// A cache of a niks3 server.
pub fn niks3(bytes: &[u8]) {
    play(bytes, |here| format!("niks3:http://{here}"));
}

/// A bucket.
pub fn s3(bytes: &[u8]) {
    play(bytes, |here| format!("s3://acme?scheme=http&endpoint={here}"));
}

/// The answers that are left.
type Script = Arc<Mutex<VecDeque<Vec<u8>>>>;

struct Server {
    runtime: Runtime,
    here: String,
    script: Script,
    engine: Engine,
}

impl Server {
    /// The one of this process: a fuzzer has no time to start another for each input.
    fn get() -> &'static Mutex<Self> {
        static SERVER: OnceLock<Mutex<Server>> = OnceLock::new();
        SERVER.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let (here, script) = (listener.local_addr().unwrap().to_string(), Script::default());
            let (scripts, handle) = (Arc::clone(&script), runtime.handle().clone());
            runtime.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    handle.spawn(serve(stream, Arc::clone(&scripts)));
                }
            });
            Mutex::new(Self { runtime, here, script, engine: Engine::default() })
        })
    }
}

/// Answers one request after the other on a connection, until it is closed.
async fn serve(stream: TcpStream, script: Script) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut chunked, mut line) = (0, false, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            chunked |= lower.starts_with("transfer-encoding:");
            if line == "\r\n" {
                break;
            }
        }
        // The client does not send more before it has an answer.
        if chunked {
            let mut end = Vec::new();
            while !end.ends_with(b"0\r\n\r\n") {
                stream.read_until(b'\n', &mut end).await.ok().filter(|read| *read > 0)?;
            }
        } else {
            tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await.ok()?;
        }
        let answer = script.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        stream.write_all(&on_the_wire(&answer.unwrap_or_else(|| b"404\n\n".to_vec()))).await.ok()?;
        stream.flush().await.ok()?;
    }
}

/// The answer with the length that it has, unless it says another one itself.
fn on_the_wire(answer: &[u8]) -> Vec<u8> {
    let is_status = answer.len() >= 3 && answer[..3].iter().all(u8::is_ascii_digit);
    let end = answer.windows(2).position(|two| two == b"\n\n").filter(|_| is_status);
    let (head, body) = match end {
        Some(end) => (&answer[..end], &answer[end + 2..]),
        None => (&b"200"[..], answer),
    };
    let mut wire = b"HTTP/1.1 ".to_vec();
    for line in head.split(|byte| *byte == b'\n') {
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    wire.extend_from_slice(body);
    wire
}

fn pieces(mut bytes: &[u8], here: &str) -> VecDeque<Vec<u8>> {
    let mut pieces = VecDeque::new();
    loop {
        let end = bytes.windows(NEXT.len()).position(|window| window == NEXT);
        pieces.push_back(replaced(&bytes[..end.unwrap_or(bytes.len())], here));
        let Some(end) = end else { return pieces };
        bytes = &bytes[end + NEXT.len()..];
    }
}

fn replaced(mut bytes: &[u8], here: &str) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = bytes.windows(HERE.len()).position(|window| window == HERE.as_bytes()) {
        out.extend_from_slice(&bytes[..at]);
        out.extend_from_slice(here.as_bytes());
        bytes = &bytes[at + HERE.len()..];
    }
    out.extend_from_slice(bytes);
    out
}

fn context(engine: &Engine) -> OpenContext {
    let short = Duration::from_millis(100);
    let none = Duration::ZERO;
    OpenContext {
        login_env: LoginEnv::from_iter([
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("CACHIX_AUTH_TOKEN", "token"),
        ]),
        patience: Patience {
            attempts: 2,
            delay: none,
            delay_rate_limited: none,
            max_delay: none,
            connect: short,
            answer: short,
            path: short,
            stall: short,
            push: none,
            rest: none,
            rate_limited_attempts: 2,
        },
        engine: engine.clone(),
        ..OpenContext::new(StoreDir::default())
    }
}

/// Opens the cache, asks it, reads from it, lists it; if the first byte is odd, also pushes to it.
fn play(bytes: &[u8], url: impl Fn(&str) -> String) {
    let [first, bytes @ ..] = bytes else { return };
    let server = Server::get().lock().unwrap_or_else(PoisonError::into_inner);
    *server.script.lock().unwrap_or_else(PoisonError::into_inner) = pieces(bytes, &server.here);
    let push = first % 2 == 1;
    let config = CacheConfig { url: url(&server.here), pull: true, push, ..CacheConfig::default() };
    let context = OpenContext { require_sigs: first & 2 == 0, ..context(&server.engine) };
    server.runtime.block_on(async {
        let Ok(cache) = Cache::open(CacheId(0), config, &context).await else { return };
        if push {
            pushed(&cache).await;
        }
        let paths = [path(1), path(2)];
        let answers = cache.ask(&paths).await;
        assert_eq!(answers.len(), paths.len());
        for (answer, path) in answers.iter().zip(&paths) {
            let (Answer::Present(info) | Answer::Untrusted(info)) = answer else { continue };
            assert_eq!(info.store_path(), path, "it says something of another path");
            if info.nar_size() <= MOST
                && let Ok(mut nar) = cache.nar(info).await
            {
                let mut read = Vec::new();
                let _ = nar.read_to_end(&mut read).await;
                assert!(read.len() as u64 <= info.nar_size() + 1, "more than the record says");
            }
        }
        if let Ok(missing) = cache.missing(&paths).await {
            assert_eq!(missing.len(), paths.len());
        }
        assert_eq!(cache.inspect(&paths).await.len(), paths.len());
        if cache.is_listable() {
            let _ = cache.list().await;
        }
    });
}

fn path(n: u8) -> StorePath {
    StorePath::from_parts([n; 20], "p").unwrap()
}

/// Pushes an empty file.
async fn pushed(cache: &Cache) {
    let mut nar = Encoder::new();
    for word in ["nix-archive-1", "(", "type", "regular", "contents", "", ")"] {
        nar.bytes(word);
    }
    let nar = nar.finish();
    let info = PathInfo {
        path: path(1),
        deriver: None,
        nar_hash: Sha256::digest(&nar).into(),
        references: std::collections::BTreeSet::new(),
        registration_time: 0,
        nar_size: nar.len() as u64,
        ultimate: false,
        signatures: std::collections::BTreeSet::new(),
        ca: None,
    };
    let Some(sink) = cache.sink() else { return };
    let write = |mut writer: drover::store::cache::NarWriter| async move {
        writer.write_all(&nar).await?;
        Ok(writer)
    };
    if let Ok(nar) = push::upload(sink, &info, write).await {
        let _ = push::finish(sink, &info, &nar).await;
    }
}
