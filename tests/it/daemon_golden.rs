//! The client against a recorded daemon: what it sends and what it understands, byte by byte, for each operation.
//!
//! `tests/fixtures/wire` holds one conversation with a real daemon, in order: `NN-name.request` (client to daemon),
//! `NN-name.reply` (daemon to client) and `NN-name.txt` (what the client makes of it); `VERSION` says whose. To record
//! it anew from the newest Nix: `DROVER_RECORD_WIRE=1 cargo test --test it daemon_golden`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::*;
use drover::nix_compat::drv;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::support::fake_daemon::{pair, run};
use crate::support::nix::{Lab, newest};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire")
}

/// What the conversation is about; each has its .drv beside the recording.
const DRVS: [(&str, &str, &str); 2] = [
    ("pair", "echo one; echo two >&2; echo a > $out; echo b > $dev", "outputs = [ \"out\" \"dev\" ];"),
    ("fails", "echo no; exit 3", ""),
];

const STEPS: [&str; 14] = [
    "handshake",
    "set-options",
    "hold-valid",
    "path-info",
    "output-map",
    "query-missing",
    "build",
    "build-fails",
    "build-again",
    "build-paths",
    "query-valid",
    "nar",
    "add-signatures",
    "ensure-fails",
];

/// Both derivations, as they are recorded.
fn drvs() -> Vec<(StorePath, drv::Derivation)> {
    let read = |(name, _, _): &(&str, &str, &str)| {
        let path = fs::read_to_string(fixtures().join(format!("{name}.path"))).unwrap();
        let path = StorePath::from_absolute_path(path.trim().as_bytes()).unwrap();
        let bytes = fs::read(fixtures().join(format!("{name}.drv"))).unwrap();
        let drv = drv::parse(&bytes, &path, &StoreDir::default()).unwrap();
        (path, drv)
    };
    DRVS.iter().map(read).collect()
}

/// One step of the conversation; gives what came of it, messages included.
async fn step(connection: &mut Connection, name: &str) -> String {
    let mut text = String::new();
    let drvs = drvs();
    let [(pair, pair_drv), (fails, fails_drv)] = &drvs[..] else { panic!("two derivations") };
    let none = StorePath::from_basename(b"00000000000000000000000000000000-none").unwrap();
    let out = drv::output_paths(pair_drv).unwrap()["out"].clone().unwrap();
    let built = [pair, fails]
        .map(|drv| DerivedPath::Built { drv_path: SingleDerivedPath::Opaque(drv.clone()), outputs: vec![] });
    let mut messages = Vec::new();
    let mut hear = |message: Message| messages.push(message);
    let mode = BuildMode::Normal;
    macro_rules! tell {
        ($value:expr) => {
            writeln!(text, "{}", readable(&format!("{:?}", $value))).unwrap()
        };
    }
    match name {
        "handshake" => tell!(connection.peer()),
        "set-options" => {
            let overrides = vec![("builders".to_owned(), String::new()), ("timeout".to_owned(), "60".to_owned())];
            let options = ClientOptions { max_jobs: 3, cores: 2, overrides, ..ClientOptions::default() };
            tell!(connection.set_options(&options, &mut hear).await);
        }
        "hold-valid" => tell!(connection.hold_valid(&[pair.clone(), none]).await),
        "path-info" => tell!(connection.path_infos(&[pair.clone(), none]).await),
        "output-map" => tell!(connection.output_map(pair).await),
        "query-missing" => tell!(connection.query_missing(&built, &mut hear).await),
        "build" | "build-again" => {
            let basic = BasicDerivation::new(pair_drv, []).unwrap();
            tell!(connection.build_derivation(pair, &basic, mode, &mut hear).await);
        }
        "build-fails" => {
            let basic = BasicDerivation::new(fails_drv, []).unwrap();
            tell!(connection.build_derivation(fails, &basic, mode, &mut hear).await);
        }
        "build-paths" => tell!(connection.build_paths(&built[..1], mode, &mut hear).await),
        "query-valid" => tell!(connection.query_valid_paths([&out, &none], false, &mut hear).await),
        "nar" => {
            let mut nar = Vec::new();
            tell!(connection.nar_from_path(&out, 120, &mut nar).await);
            tell!(String::from_utf8_lossy(&nar));
        }
        "add-signatures" => {
            tell!(connection.add_signatures(&out, &[format!("k:{}==", "A".repeat(86))]).await);
        }
        "ensure-fails" => tell!(connection.ensure_path(&none, &mut hear).await),
        other => panic!("{other}"),
    }
    for message in messages {
        writeln!(text, "{}", readable(&format!("{message:?}"))).unwrap();
    }
    text
}

/// Debug output with lists of bytes as strings.
fn readable(debug: &str) -> String {
    let mut text = String::new();
    let mut rest = debug;
    while let Some((before, after)) = rest.split_once('[') {
        text.push_str(before);
        let bytes = after.split_once(']').and_then(|(list, after)| {
            let bytes: Result<Vec<u8>, _> = list.split(", ").map(str::parse).collect();
            Some((bytes.ok()?, after))
        });
        match bytes {
            Some((bytes, after)) => {
                write!(text, "\"{}\"", bytes.escape_ascii()).unwrap();
                rest = after;
            }
            None => {
                text.push('[');
                rest = after;
            }
        }
    }
    text + rest
}

#[test]
fn the_client_speaks_as_recorded() {
    #[expect(clippy::disallowed_methods, reason = "a switch for people who record")]
    if std::env::var_os("DROVER_RECORD_WIRE").is_some() {
        record();
    }
    let file = |number: usize, kind: &str| {
        let path = fixtures().join(format!("{number:02}-{}.{kind}", STEPS[number]));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    run(async {
        let ((reader, writer), mut server) = pair(1 << 16);
        let serve = async {
            for (number, name) in STEPS.iter().enumerate() {
                let wanted = file(number, "request");
                let reply = file(number, "reply");
                let mut request = vec![0; wanted.len()];
                if number == 0 {
                    // The client sends its second half when it knows the version of the daemon.
                    server.stream.read_exact(&mut request[..16]).await.unwrap();
                    server.send_bytes(&reply[..16]).await;
                    server.stream.read_exact(&mut request[16..]).await.unwrap();
                    server.send_bytes(&reply[16..]).await;
                } else {
                    server.stream.read_exact(&mut request).await.unwrap();
                    server.send_bytes(&reply).await;
                }
                assert!(request == wanted, "{name}: the request differs from the recorded one");
            }
            server.until_closed().await;
        };
        let talk = async {
            let mut connection = Connection::open(reader, writer, StoreDir::default()).await.unwrap();
            for (number, name) in STEPS.iter().enumerate() {
                let text = step(&mut connection, name).await;
                assert_eq!(text, String::from_utf8(file(number, "txt")).unwrap(), "{name}");
            }
        };
        tokio::join!(serve, talk);
    });
}

/// A stream that remembers what went through it.
struct Recorder<S> {
    stream: S,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorder<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.seen.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorder<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = &polled {
            self.seen.lock().unwrap().extend_from_slice(&bytes[..*len]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Has the conversation with a real daemon and writes it down.
fn record() {
    let lab = Lab::chroot(&newest());
    let _ = fs::remove_dir_all(fixtures());
    fs::create_dir_all(fixtures()).unwrap();
    fs::write(fixtures().join("VERSION"), format!("nix-daemon --stdio of Nix {}\n", lab.nix.version)).unwrap();
    for (name, script, more) in DRVS {
        let drv = lab.drv(name, script, more);
        let file = lab.physical().join(drv.rsplit('/').next().unwrap());
        fs::write(fixtures().join(format!("{name}.drv")), fs::read(file).unwrap()).unwrap();
        fs::write(fixtures().join(format!("{name}.path")), drv + "\n").unwrap();
    }
    run(async {
        let options = drover::store::local::StoreOptions {
            nix_bin: Some(lab.nix.bin.clone()),
            env: lab.env(),
            ..Default::default()
        };
        let daemon = options.cmd("nix-daemon").args(["--stdio", "--store"]).arg(lab.store_arg().unwrap());
        let mut child = daemon.spawn().unwrap();
        let (sent, received) = (Arc::default(), Arc::default());
        let writer = Recorder { stream: child.stdin.take().unwrap(), seen: Arc::clone(&sent) };
        let reader = Recorder { stream: child.stdout.take().unwrap(), seen: Arc::clone(&received) };
        let mut connection = Connection::open(Box::new(reader), Box::new(writer), StoreDir::default()).await.unwrap();
        for (number, name) in STEPS.iter().enumerate() {
            let text = step(&mut connection, name).await;
            for (kind, bytes) in [
                ("request", std::mem::take(&mut *sent.lock().unwrap())),
                ("reply", std::mem::take(&mut *received.lock().unwrap())),
                ("txt", text.into_bytes()),
            ] {
                fs::write(fixtures().join(format!("{number:02}-{name}.{kind}")), bytes).unwrap();
            }
        }
    });
}
