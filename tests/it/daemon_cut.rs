//! Daemons that stop in the middle: every reply of every operation is cut off, garbled or held up after every byte.
//! What follows is an error, on a connection that refuses further use; never a hang, a panic or a wrong answer.

#![expect(clippy::disallowed_methods, reason = "a fake daemon serves beside the test and ends with it")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover::build::read_nar;
use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::*;
use drover::nix_compat::wire::Encoder;
use drover::store::error::StoreError;
use drover::store::roots::{Connect, Roots};
use drover::store::session::Session;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::support::exchanges::{Exchange, ask, exchanges, info, is_burst};
use crate::support::fake_daemon::{Server, error, kind, last, nar, pair, path};

/// Longer than any patience.
const FOR_EVER: Duration = Duration::from_secs(100_000);

/// What becomes of a connection after some bytes of a reply.
#[derive(Debug, Clone)]
enum Fault {
    /// The daemon is gone.
    Closes,
    /// It says something else, then is gone.
    Garbles(Vec<u8>),
    /// It says no more, but reads on.
    Stalls,
    /// It neither says nor reads any more.
    Freezes,
}

/// Runs a future in virtual time: whoever waits for the clock alone waits no time.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// Takes a request, says the first bytes of the reply, and then has this fault. Stays until its client is gone.
async fn fail(mut server: Server, said: &[u8], fault: &Fault) {
    server.any_request().await;
    server.send_bytes(said).await;
    match fault {
        Fault::Closes => {}
        Fault::Garbles(garbage) => server.send_bytes(garbage).await,
        Fault::Stalls => server.until_closed().await,
        Fault::Freezes => std::future::pending().await,
    }
}

/// What a client gets whose daemon has this fault after so many bytes of the reply; `None`: nothing, for ever. And
/// whether its connection is usable, and what it is told when it uses it again.
async fn outcome(
    exchange: &Exchange,
    cut: usize,
    fault: &Fault,
) -> (Option<Result<String, DaemonError>>, bool, String) {
    // So small that a request fills it.
    let ((reader, writer), mut server) = pair(256);
    let play = async {
        server.handshake(exchange.minor, 1).await;
        fail(server, &exchange.reply[..cut], fault).await;
    };
    let client = async {
        let mut connection = Connection::open(reader, writer, StoreDir::default()).await.unwrap();
        let answer = timeout(FOR_EVER, ask(&mut connection, exchange.what)).await.ok();
        let usable = connection.is_usable();
        let again = match timeout(FOR_EVER, ask(&mut connection, exchange.what)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => kind(&error).to_owned(),
            Err(_) => "nothing".to_owned(),
        };
        (answer, usable, again)
    };
    tokio::select! {
        biased;
        outcome = client => outcome,
        () = async { play.await; std::future::pending().await } => unreachable!(),
    }
}

/// Every exchange with every number of bytes that is less than all of its reply.
fn every_cut() -> impl Iterator<Item = (Exchange, Vec<usize>)> {
    exchanges().into_iter().map(|exchange| {
        let cuts = (0..exchange.reply.len()).collect();
        (exchange, cuts)
    })
}

#[test]
fn no_operation_is_forgotten() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/nix_compat/daemon/ops.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let (_, body) = source.split_once("pub enum Op {").unwrap();
    let (body, _) = body.split_once('}').unwrap();
    let names: Vec<&str> = body.lines().filter_map(|line| Some(line.split_once(" = ")?.0.trim())).collect();
    assert!(names.len() >= 14, "{names:?}");
    let known: Vec<String> = exchanges().iter().map(|exchange| format!("{:?}", exchange.op)).collect();
    for name in names {
        assert!(known.iter().any(|known| known == name), "tests/support/exchanges.rs has no reply to {name}");
    }
}

#[test]
fn whole_replies_are_read_to_their_last_byte() {
    for exchange in exchanges() {
        run(async {
            let ((reader, writer), mut server) = pair(1 << 16);
            let play = async {
                server.handshake(exchange.minor, 1).await;
                for _ in 0..2 {
                    server.any_request().await;
                    // The rest of the request.
                    server.drain().await;
                    server.send_bytes(&exchange.reply).await;
                }
                server.until_closed().await;
            };
            let client = async {
                let mut connection = Connection::open(reader, writer, StoreDir::default()).await.unwrap();
                let mut answers = Vec::new();
                for _ in 0..2 {
                    let answer = ask(&mut connection, exchange.what).await;
                    assert_eq!(answer.is_err(), exchange.refused, "{}: {answer:?}", exchange.what);
                    assert!(connection.is_usable(), "{}", exchange.what);
                    answers.push(format!("{answer:?}"));
                }
                // A stale byte would spoil the second.
                assert_eq!(answers[0], answers[1], "{}", exchange.what);
            };
            let both = timeout(FOR_EVER, async { tokio::join!(play, client) });
            both.await.unwrap_or_else(|_| panic!("{} hangs", exchange.what));
        });
    }
}

#[test]
fn a_daemon_that_dies_at_any_byte_of_any_reply_is_an_error() {
    for (exchange, cuts) in every_cut() {
        run(async {
            for cut in cuts {
                let case = format!("{} of 1.{}, cut at {cut}", exchange.what, exchange.minor);
                let (answer, usable, again) = outcome(&exchange, cut, &Fault::Closes).await;
                let error = answer.expect(&case).expect_err(&case);
                assert!(error.is_fatal() && !usable, "{case}: {error}");
                // Some of an error is no error of the daemon's yet; one in the middle of a burst is.
                let in_burst = exchange.refused && is_burst(exchange.what) && kind(&error) == "fatal";
                assert!(kind(&error) == "closed" || in_burst, "{case}: {error}");
                assert_eq!(again, "poisoned", "{case}");
            }
        });
    }
}

#[test]
fn a_daemon_that_stalls_at_any_byte_leaves_a_connection_that_nobody_uses_again() {
    // The protocol has no time limits, and a build may be silent for hours. Whoever asks has the patience; what is
    // shown here is that losing it is safe at every byte.
    for (exchange, cuts) in every_cut() {
        for fault in [Fault::Stalls, Fault::Freezes] {
            run(async {
                for &cut in &cuts {
                    let case = format!("{} of 1.{}, {fault:?} at {cut}", exchange.what, exchange.minor);
                    let (answer, usable, again) = outcome(&exchange, cut, &fault).await;
                    assert!(answer.is_none(), "{case}: {answer:?}");
                    assert!(!usable, "{case}");
                    assert_eq!(again, "poisoned", "{case}");
                }
            });
        }
    }
}

/// What the daemon says in a handshake.
fn greeting(minor: u16, trust: u64) -> Vec<u8> {
    let mut said = Encoder::new();
    said.u64(SERVER_MAGIC).u64(0x100 | u64::from(minor));
    if minor >= 38 {
        said.u64(2).bytes("one-feature").bytes("another");
    }
    said.bytes("2.99.9").u64(trust);
    said.u64(Tag::Next as u64).bytes("welcome\n").u64(Tag::Last as u64);
    said.finish()
}

/// What a client gets that connects to a daemon that says this and then has this fault.
async fn connect(said: &[u8], fault: &Fault) -> Option<Result<Peer, DaemonError>> {
    let ((reader, writer), server) = pair(1 << 16);
    tokio::select! {
        biased;
        connection = timeout(FOR_EVER, Connection::open(reader, writer, StoreDir::default())) => {
            connection.ok().map(|connection| connection.map(|connection| connection.peer().clone()))
        }
        () = async { fail(server, said, fault).await; std::future::pending().await } => unreachable!(),
    }
}

#[test]
fn a_handshake_that_breaks_off_at_any_byte_is_no_connection() {
    for minor in [35, 37, 38] {
        for trust in [0, 1, 2] {
            let whole = greeting(minor, trust);
            run(async {
                let peer = connect(&whole, &Fault::Closes).await.unwrap().unwrap();
                assert_eq!((peer.minor, peer.trust as u64), (minor, trust));
                for cut in 0..whole.len() {
                    let error = connect(&whole[..cut], &Fault::Closes).await.unwrap().expect_err("cut");
                    assert_eq!(kind(&error), "closed", "1.{minor} cut at {cut}: {error}");
                    for fault in [Fault::Stalls, Fault::Freezes] {
                        let answer = connect(&whole[..cut], &fault).await;
                        assert!(answer.is_none(), "1.{minor}, {fault:?} at {cut}: {answer:?}");
                    }
                }
            });
        }
    }
}

#[test]
fn a_refusal_in_the_handshake_that_breaks_off_is_no_connection() {
    let mut whole = greeting(37, 2);
    whole.truncate(whole.len() - 8);
    whole.extend(error("user 'x' is not allowed to connect to the Nix daemon").finish());
    run(async {
        for cut in 0..whole.len() {
            assert_eq!(kind(&connect(&whole[..cut], &Fault::Closes).await.unwrap().unwrap_err()), "closed", "at {cut}");
        }
        assert_eq!(kind(&connect(&whole, &Fault::Closes).await.unwrap().unwrap_err()), "fatal");
    });
}

/// Takes nothing at all, and fails at once.
struct NoWriter;

impl tokio::io::AsyncWrite for NoWriter {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::task::Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[test]
fn last_words_are_not_waited_for_for_ever() {
    // Nothing can be written any more, and what the daemon says about it comes slowly or not at all.
    let whole = greeting(38, 1);
    run(async {
        for cut in 0..8 {
            let ((reader, _), mut server) = pair(1 << 16);
            server.send_bytes(&whole[..cut]).await;
            let answer = timeout(FOR_EVER, Connection::open(reader, Box::new(NoWriter), StoreDir::default())).await;
            assert_eq!(kind(&answer.expect("it hangs").unwrap_err()), "closed", "at {cut}");
        }
    });
}

/// Whether an answer shows its bytes only to whoever knows what they should be: the content of a NAR, which has a
/// hash, an estimate of what is to be fetched, and a name that was given by whoever asked.
fn is_unproven(what: &str) -> bool {
    matches!(what, "nar" | "missing" | "lasting root")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_at_any_byte_is_an_error(
        which in any::<Index>(),
        at in any::<Index>(),
        garbage in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let all = exchanges();
        let exchange = which.get(&all);
        let cut = at.index(exchange.reply.len());
        let rest = &exchange.reply[cut..];
        // What begins like the reply is no garbage yet.
        prop_assume!(garbage[0] != rest[0]);
        let (answer, usable, again) = run(outcome(exchange, cut, &Fault::Garbles(garbage)));
        let answer = answer.expect("it hangs");
        match answer {
            Err(error) if error.is_fatal() => prop_assert!(!usable && again == "poisoned", "{} {}", error, again),
            // Garbage that is a text is one.
            Err(error) => prop_assert!(exchange.refused, "{}", error),
            Ok(answer) => prop_assert!(is_unproven(exchange.what), "{} at {}: {}", exchange.what, cut, answer),
        }
    }

    #[test]
    fn garbage_in_a_handshake_is_no_connection(
        minor in prop::sample::select(vec![35_u16, 37, 38]),
        at in any::<Index>(),
        garbage in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let whole = greeting(minor, 1);
        let cut = at.index(whole.len());
        prop_assume!(garbage[0] != whole[cut]);
        let answer = run(connect(&whole[..cut], &Fault::Garbles(garbage)));
        prop_assert!(answer.expect("it hangs").is_err());
    }

    #[test]
    fn what_comes_after_a_reply_answers_nothing(
        which in any::<Index>(),
        garbage in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        let all = exchanges();
        let exchange = which.get(&all);
        let (_, _, again) = run(outcome(exchange, exchange.reply.len(), &Fault::Garbles(garbage)));
        prop_assert!(matches!(again.as_str(), "protocol" | "closed" | "poisoned"), "{}", again);
    }
}

#[test]
fn any_wrong_byte_is_an_error_or_another_answer_but_never_a_panic() {
    for (exchange, cuts) in every_cut() {
        run(async {
            for at in cuts {
                for flip in [0x01, 0x80] {
                    let mut rest = exchange.reply[at..].to_vec();
                    rest[0] ^= flip;
                    let (answer, ..) = outcome(&exchange, at, &Fault::Garbles(rest)).await;
                    assert!(answer.is_some(), "{} hangs with another byte at {at}", exchange.what);
                }
            }
        });
    }
}

/// A store each of whose connections breaks after so many bytes of replies; `None`: never. Then all hold.
#[derive(Clone)]
struct Breaking {
    cuts: Arc<Mutex<VecDeque<Option<usize>>>>,
    /// What each connection was told to hold.
    held: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Breaking {
    fn after(cuts: impl IntoIterator<Item = Option<usize>>) -> Self {
        Self { cuts: Arc::new(Mutex::new(cuts.into_iter().collect())), held: Arc::default() }
    }

    async fn serve(self, mut server: Server, cut: Option<usize>, number: usize) {
        server.handshake(38, 1).await;
        let mut left = cut.unwrap_or(usize::MAX);
        let mut head = [0; 8];
        while tokio::io::AsyncReadExt::read_exact(&mut server.stream, &mut head).await.is_ok() {
            let text = server.text().await;
            let valid = u64::from_le_bytes(head) == Op::AddTempRoot as u64 || text.ends_with("-good");
            if u64::from_le_bytes(head) == Op::AddTempRoot as u64 {
                self.held.lock().unwrap()[number].push(text);
            }
            let mut reply = Encoder::new();
            reply.u64(Tag::Last as u64).bool(valid);
            let said = left.min(reply.as_bytes().len());
            server.send_bytes(&reply.as_bytes()[..said]).await;
            left -= said;
            if left == 0 {
                return;
            }
        }
    }
}

impl Connect for Breaking {
    async fn connect(&self) -> Result<Session, StoreError> {
        let ((reader, writer), server) = pair(1 << 16);
        let cut = self.cuts.lock().unwrap().pop_front().flatten();
        let number = {
            let mut held = self.held.lock().unwrap();
            held.push(Vec::new());
            held.len() - 1
        };
        tokio::spawn(self.clone().serve(server, cut, number));
        Session::over_streams(reader, writer, StoreDir::default(), "unix://fake".into()).await
    }
}

#[test]
fn roots_are_held_again_wherever_their_connection_breaks() {
    let first = [path("first")];
    let asked = [path("a-good"), path("b"), path("c-good")];
    let name = |path: &StorePath| path.to_absolute_path();
    run(async {
        // One reply to the first question, six to the second, 16 bytes each.
        for cut in 16..16 * 7 {
            let store = Breaking::after([Some(cut)]);
            let mut roots = Roots::new(store.clone());
            roots.hold(&first).await.unwrap();
            let valid = timeout(FOR_EVER, roots.valid(&asked)).await.expect("it hangs").unwrap();
            assert_eq!(valid, [true, false, true], "cut at {cut}");
            let held = store.held.lock().unwrap();
            assert_eq!(held.len(), 2, "cut at {cut}: one connection more");
            let wanted: Vec<String> = first.iter().chain(&asked).map(name).collect();
            assert_eq!(held[1], wanted, "cut at {cut}");
        }
        // Again in the same place: an error, and the next question gets a new connection.
        for cut in 0..16 * 7 {
            let store = Breaking::after([Some(cut), Some(cut)]);
            let mut roots = Roots::new(store.clone());
            let held = timeout(FOR_EVER, roots.hold(&first)).await.expect("it hangs");
            assert_eq!(held.is_ok(), cut >= 16, "cut at {cut}: {held:?}");
            let valid = timeout(FOR_EVER, roots.valid(&asked)).await.expect("it hangs");
            let valid = match valid {
                Ok(valid) => valid,
                Err(error) => {
                    assert!(error.is_fatal(), "cut at {cut}: {error}");
                    roots.valid(&asked).await.unwrap()
                }
            };
            assert_eq!(valid, [true, false, true], "cut at {cut}");
        }
    });
}

#[test]
fn a_nar_of_which_nothing_comes_any_more_is_given_up_and_a_slow_receiver_is_not() {
    let large = |content: &[u8]| PathInfo { nar_size: nar(content).len() as u64, ..info() };
    let content = vec![b'x'; 1 << 20];
    for said in [0, 100, 1 << 19] {
        let read = run(async {
            let ((reader, writer), mut server) = pair(1 << 16);
            let (said, fault) = ([last().finish(), nar(&content)[..said].to_vec()].concat(), Fault::Stalls);
            tokio::spawn(async move {
                server.handshake(38, 1).await;
                fail(server, &said, &fault).await;
            });
            let uri = "ssh-ng://fake".into();
            let mut session = Session::over_streams(reader, writer, StoreDir::default(), uri).await.unwrap();
            let mut to = Vec::new();
            let read = timeout(FOR_EVER, read_nar(&mut session, &large(&content), &mut to)).await;
            read.expect("it hangs").map_err(|error| (error.to_string(), session.is_usable()))
        });
        let (error, usable) = read.unwrap_err();
        assert!(error.contains("ssh-ng://fake") && !usable, "{error}");
    }
    // Whoever takes the NAR thinks for minutes about each piece of it.
    run(async {
        let ((reader, writer), mut server) = pair(1 << 16);
        let said = [last().finish(), nar(&content)].concat();
        tokio::spawn(async move {
            server.handshake(38, 1).await;
            fail(server, &said, &Fault::Stalls).await;
        });
        let mut session =
            Session::over_streams(reader, writer, StoreDir::default(), "ssh-ng://fake".into()).await.unwrap();
        let (mut to, mut from) = tokio::io::duplex(1 << 16);
        let slow = async move {
            let (mut got, mut piece) = (0, vec![0; 1 << 16]);
            while let Ok(len @ 1..) = from.read(&mut piece).await {
                got += len;
                tokio::time::sleep(Duration::from_secs(300)).await;
            }
            got
        };
        let info = large(&content);
        let read = async {
            let read = read_nar(&mut session, &info, &mut to).await;
            drop(to);
            read
        };
        let (read, got) = tokio::join!(read, slow);
        read.unwrap();
        assert_eq!(got as u64, info.nar_size);
    });
}
