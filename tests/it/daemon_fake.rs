//! The daemon's client against a server that does what real ones rarely do: old and odd layouts, errors at every
//! point, lies about sizes, bytes that are no text, silence.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use drover::id::StoreDir;
use drover::nix_compat::daemon::*;
use drover::nix_compat::wire::{Encoder, MAX_ITEMS, MAX_TEXT};
use tokio::io::{AsyncRead, ReadBuf};

use crate::support::exchanges::{ask, build, info, quiet};
use crate::support::fake_daemon::*;

const SEEN: (u16, u64) = (38, 1);

#[test]
fn every_protocol_and_trust_is_understood() {
    for minor in [35, 36, 37, 38, 39, 45] {
        for (number, trust) in [(0, Trust::Unknown), (1, Trust::Trusted), (2, Trust::Untrusted)] {
            let spoken = minor.min(38);
            let result = play(
                (minor, number),
                async |server| {
                    server.any_request().await;
                    let mut reply = last();
                    build_result(&mut reply, spoken, 0, "", &[("out", &path("x")), ("dev", &path("x-dev"))]);
                    server.send(&reply).await;
                    server.until_closed().await;
                },
                async |connection| {
                    assert_eq!(connection.peer().minor, spoken);
                    assert_eq!(connection.trust(), trust);
                    assert_eq!(connection.peer().nix_version, "2.99.9");
                    build(connection, &mut quiet).await.unwrap()
                },
            );
            assert_eq!(result.status, BuildStatus::Built);
            assert_eq!(result.outputs["dev"], path("x-dev"));
            assert_eq!(result.cpu_user.is_some(), spoken >= 37, "1.{minor}");
            assert_eq!((result.start_time, result.stop_time), (1000, 1002));
        }
    }
}

#[test]
fn an_old_daemon_and_a_login_shell_are_refused_in_words() {
    let refusal = |bytes: Vec<u8>| {
        run(async move {
            let ((reader, writer), mut server) = pair(1 << 16);
            server.send_bytes(&bytes).await;
            Connection::open(reader, writer, StoreDir::default()).await.unwrap_err().to_string()
        })
    };
    let text = refusal(Encoder::new().u64(SERVER_MAGIC).u64(0x100 | 34).as_bytes().to_vec());
    assert!(text.contains("1.34") && text.contains("Nix 2.19"), "{text}");
    let text = refusal(Encoder::new().u64(SERVER_MAGIC).u64(0x200).as_bytes().to_vec());
    assert!(text.contains("2.0"), "{text}");
    let text = refusal(b"Welcome to big1! Last login: today\n".to_vec());
    assert!(text.contains("Welcome to big1! Last login"), "{text}");
}

#[test]
fn a_refused_login_is_fatal_and_says_why() {
    let error = run(async {
        let ((reader, writer), mut server) = pair(1 << 16);
        server.send(Encoder::new().u64(SERVER_MAGIC).u64(0x100 | 37).bytes("2.20.0").u64(2)).await;
        server.send(&error("user 'x' is not allowed to connect to the Nix daemon")).await;
        Connection::open(reader, writer, StoreDir::default()).await.unwrap_err()
    });
    assert_eq!(kind(&error), "fatal");
    assert!(error.to_string().contains("user 'x' is not allowed"), "{error}");
}

#[test]
fn logs_are_bytes_and_unknown_kinds_pass_through() {
    let mut messages = Vec::new();
    let result = play(
        SEEN,
        async |server| {
            server.any_request().await;
            let mut reply = Encoder::new();
            reply.u64(Tag::Next as u64).bytes(b"\xff\xfe\n");
            reply.u64(Tag::StartActivity as u64).u64(1).u64(77).u64(4711).bytes(b"\xff").u64(0).u64(0);
            reply.u64(Tag::Result as u64).u64(1).u64(101).u64(1).u64(1).bytes(b"\x1b[31m\xff");
            reply.u64(Tag::Result as u64).u64(1).u64(4712).u64(1).u64(0).u64(3);
            reply.u64(Tag::StopActivity as u64).u64(1).u64(Tag::Last as u64);
            build_result(&mut reply, 38, 99, "\u{1b}[31mnew\u{1b}[0m", &[]);
            server.send(&reply).await;
            server.until_closed().await;
        },
        async |connection| build(connection, &mut |message| messages.push(message)).await.unwrap(),
    );
    assert_eq!((result.status, result.error_text().as_str()), (BuildStatus::MiscFailure, "new"));
    assert!(matches!(&messages[0], Message::Log { text, .. } if text == b"\xff\xfe\n"));
    assert!(matches!(&messages[1], Message::Start(Activity { kind: ActivityKind::Other(4711), level: Level(77), .. })));
    assert_eq!(messages[2].build_log_line(), Some((1, &b"\x1b[31m\xff"[..])));
    assert!(matches!(&messages[3], Message::Result { kind: ResultKind::Other(4712), .. }));
    assert_eq!(messages.len(), 5);
}

#[test]
fn an_error_during_work_leaves_the_connection_usable() {
    play(
        SEEN,
        async |server| {
            server.any_request().await;
            server.drain().await;
            server.send(&error("\u{1b}[31;1merror:\u{1b}[0m you are not privileged")).await;
            server.any_request().await;
            server.drain().await;
            server.send(last().u64(1)).await;
            server.until_closed().await;
        },
        async |connection| {
            let error = build(connection, &mut quiet).await.unwrap_err();
            assert_eq!(kind(&error), "refused");
            assert_eq!(error.remote().unwrap().text(), "you are not privileged");
            assert_eq!(connection.valid_paths(&[path("a")]).await.unwrap(), [true]);
        },
    );
}

#[test]
fn a_double_error_before_work_is_fatal() {
    // Nix says it twice and closes when it could not read the request. The second must not answer the next request.
    play(
        SEEN,
        async |server| {
            server.any_request().await;
            server.send(&error("invalid operation 99")).await;
            server.send(&error("invalid operation 99")).await;
            server.until_closed().await;
        },
        async |connection| {
            let error = build(connection, &mut quiet).await.unwrap_err();
            assert_eq!(kind(&error), "fatal");
            assert_eq!(kind(&connection.valid_paths(&[path("a")]).await.unwrap_err()), "poisoned");
        },
    );
}

#[test]
fn a_late_second_error_does_not_answer_the_next_request() {
    let (told, tell) = tokio::sync::oneshot::channel();
    let (said, say) = tokio::sync::oneshot::channel();
    play(
        SEEN,
        async move |server| {
            server.any_request().await;
            server.drain().await;
            server.send(&error("first")).await;
            tell.await.unwrap();
            server.send(&error("second")).await;
            said.send(()).unwrap();
            server.until_closed().await;
        },
        async move |connection| {
            assert_eq!(kind(&build(connection, &mut quiet).await.unwrap_err()), "refused");
            told.send(()).unwrap();
            say.await.unwrap();
            assert_eq!(kind(&connection.valid_paths(&[path("a")]).await.unwrap_err()), "protocol");
            assert!(!connection.is_usable());
        },
    );
}

#[test]
fn a_daemon_that_dies_while_idle_is_noticed_before_the_next_request() {
    let (gone, wait) = tokio::sync::oneshot::channel();
    play(
        SEEN,
        async move |server| {
            let (closed, _) = tokio::io::duplex(1);
            server.stream = closed;
            gone.send(()).unwrap();
        },
        async move |connection| {
            wait.await.unwrap();
            assert_eq!(kind(&connection.valid_paths(&[path("a")]).await.unwrap_err()), "closed");
        },
    );
}

#[test]
fn one_refused_request_of_a_burst_does_not_shift_the_others() {
    play(
        SEEN,
        async |server| {
            for number in 0..3 {
                let (op, _) = server.path_request().await;
                assert_eq!(op, Op::IsValidPath as u64);
                let reply = if number == 1 { error("no") } else { last().u64(1).clone() };
                server.send(&reply).await;
            }
            server.path_request().await;
            server.send(last().u64(0)).await;
            server.until_closed().await;
        },
        async |connection| {
            let error = connection.valid_paths(&[path("a"), path("b"), path("c")]).await.unwrap_err();
            assert_eq!(kind(&error), "refused");
            assert_eq!(connection.valid_paths(&[path("d")]).await.unwrap(), [false]);
        },
    );
}

#[test]
fn a_burst_larger_than_every_buffer_does_not_deadlock() {
    let paths: Vec<_> = (0..5000).map(|number| path(&format!("p{number}"))).collect();
    let answers = play_with(
        128,
        SEEN,
        async |server| {
            // Answers each before it reads the next: a client that only writes would wait for ever.
            for number in 0..5000_u64 {
                let (op, _) = server.path_request().await;
                assert_eq!(op, Op::AddTempRoot as u64);
                server.send(last().u64(1)).await;
                let (op, text) = server.path_request().await;
                assert_eq!(op, Op::IsValidPath as u64);
                assert!(text.ends_with(&format!("-p{number}")));
                server.send(last().u64(number % 2)).await;
            }
            server.until_closed().await;
        },
        async |connection| connection.hold_valid(&paths).await.unwrap(),
    );
    assert_eq!(answers.len(), 5000);
    assert!(answers.iter().enumerate().all(|(number, valid)| *valid == (number % 2 == 1)));
}

#[test]
fn fewer_results_than_asked_for_are_a_valid_answer() {
    let results = play(
        SEEN,
        async |server| {
            server.any_request().await;
            let mut reply = last();
            reply.u64(1).bytes(format!("/nix/store/{}!out", path("b.drv").to_basename()));
            build_result(&mut reply, 38, 3, "builder failed", &[]);
            server.send(&reply).await;
            server.until_closed().await;
        },
        async |connection| {
            let built = |name| DerivedPath::Built {
                drv_path: SingleDerivedPath::Opaque(path(name)),
                outputs: vec!["out".to_owned()],
            };
            connection.build_paths(&[built("a.drv"), built("b.drv")], BuildMode::Normal, &mut quiet).await.unwrap()
        },
    );
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].0.base(), &path("b.drv"));
}

#[test]
fn sizes_that_cannot_be_are_refused_without_allocating() {
    let after = |numbers: &[u64]| {
        let mut message = Encoder::new();
        for number in numbers {
            message.u64(*number);
        }
        message
    };
    let last = Tag::Last as u64;
    for (what, before, bound) in [
        ("query", after(&[last]), MAX_ITEMS),
        ("outputs", after(&[last]), MAX_ITEMS),
        ("paths", after(&[last]), MAX_ITEMS),
        ("missing", after(&[last, 0]), MAX_ITEMS),
        ("info", after(&[last, 1]), MAX_TEXT),
        ("build", after(&[last, 0]), MAX_TEXT),
        ("build", after(&[last, 0, 0, 0, 0, 0, 0, 0, 0]), MAX_ITEMS),
        ("valid", after(&[Tag::Next as u64]), MAX_TEXT),
        ("valid", after(&[Tag::Result as u64, 1, 101]), 1000),
    ] {
        for claimed in [bound + 1, 1 << 63, u64::MAX] {
            let error = play(
                SEEN,
                async |server| {
                    server.any_request().await;
                    server.send(before.clone().u64(claimed)).await;
                    server.until_closed().await;
                },
                async |connection| ask(connection, what).await.unwrap_err(),
            );
            assert_eq!(kind(&error), "protocol", "{what} {claimed}: {error}");
            assert!(error.to_string().contains(&claimed.to_string()), "{error}");
        }
    }
}

#[test]
fn an_error_within_a_nar_is_told_apart_from_its_bytes() {
    let whole = nar(&[b'x'; 100_000]);
    let broke = |sent: Vec<u8>| {
        let mut sink = Vec::new();
        let size = whole.len() as u64;
        play(
            SEEN,
            async |server| {
                server.any_request().await;
                server.send(&last()).await;
                server.send_bytes(&sent).await;
                let (closed, _) = tokio::io::duplex(1);
                server.stream = closed;
            },
            async |connection| connection.nar_from_path(&path("a"), size, &mut sink).await.unwrap_err(),
        )
    };
    let gone = error("reading file: Input/output error").finish();
    for at in [0, 8, 112, 70_000, whole.len() - gone.len(), whole.len() - 8] {
        let told = broke([&whole[..at], &gone].concat());
        assert_eq!(kind(&told), "fatal", "at {at}: {told}");
        assert!(told.to_string().contains("Input/output error"), "{told}");
    }
    assert_eq!(kind(&broke(whole[..5000].to_vec())), "closed");
}

#[test]
fn a_sink_that_fails_poisons_but_keeps_its_own_error() {
    let error = play(
        SEEN,
        async |server| {
            server.any_request().await;
            server.send(&last()).await;
            server.send_bytes(&nar(b"hello")).await;
            server.until_closed().await;
        },
        async |connection| {
            let mut room = [0_u8; 20];
            let mut sink = io::Cursor::new(&mut room[..]);
            connection.nar_from_path(&path("a"), nar(b"hello").len() as u64, &mut sink).await.unwrap_err()
        },
    );
    assert_eq!(kind(&error), "sink");
}

#[test]
fn dropping_an_operation_poisons_the_connection() {
    let (asked, wait) = tokio::sync::oneshot::channel();
    play(
        SEEN,
        async move |server| {
            server.any_request().await;
            asked.send(()).unwrap();
            server.until_closed().await;
        },
        async move |connection| {
            let mut log = quiet;
            tokio::select! {
                _ = build(connection, &mut log) => panic!("nobody answered"),
                _ = wait => {}
            }
            assert!(!connection.is_usable());
            assert_eq!(kind(&build(connection, &mut quiet).await.unwrap_err()), "poisoned");
        },
    );
}

#[test]
fn a_path_is_added_whole_while_the_daemon_talks() {
    let content = nar(&[b'y'; 300_000]);
    let (info, sent) = (info(), content.clone());
    play_with(
        1000,
        SEEN,
        async |server| {
            assert_eq!(server.number().await, Op::AddToStoreNar as u64);
            assert_eq!(server.text().await, format!("/nix/store/{}", path("a").to_basename()));
            server.text().await;
            assert_eq!(server.text().await, "07".repeat(32));
            for _ in 0..server.number().await {
                server.text().await;
            }
            assert_eq!((server.number().await, server.number().await, server.number().await), (5, info.nar_size, 1));
            assert_eq!(
                (server.number().await, server.text().await, server.text().await),
                (1, "k:c2ln".into(), String::new())
            );
            assert_eq!((server.number().await, server.number().await), (0, 1), "no repair, no signature check");
            // More than the pipe holds, before the NAR is read.
            for _ in 0..100 {
                server.send(Encoder::new().u64(Tag::Next as u64).bytes("still here, still here, still here\n")).await;
            }
            assert_eq!(framed(server).await.unwrap(), sent);
            server.send(&last()).await;
            server.until_closed().await;
        },
        async |connection| {
            let mut heard = 0;
            connection.add_to_store_nar(&info, false, &mut &content[..], &mut |_| heard += 1).await.unwrap();
            assert_eq!(heard, 100);
            assert!(connection.is_usable());
        },
    );
}

/// Gives some bytes, then waits for ever or fails.
struct Stuck {
    left: usize,
    fails: bool,
}

impl AsyncRead for Stuck {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return if self.fails { Poll::Ready(Err(io::Error::other("disk on fire"))) } else { Poll::Pending };
        }
        self.left -= 1;
        buf.put_slice(&[0; 100]);
        Poll::Ready(Ok(()))
    }
}

#[test]
fn an_upload_that_is_refused_or_cannot_go_on_ends_properly() {
    for (fails, wanted) in [(false, "refused"), (true, "source")] {
        play(
            SEEN,
            async |server| {
                let mut request = Encoder::new();
                request.u64(Op::AddToStoreNar as u64);
                info().write(&StoreDir::default(), &mut request);
                let mut skipped = vec![0; request.as_bytes().len() + 16];
                tokio::io::AsyncReadExt::read_exact(&mut server.stream, &mut skipped).await.unwrap();
                // Nix refuses only after it has read all, but nothing in the protocol says so.
                if !fails {
                    server.send(&error("lacks a signature by a trusted key")).await;
                }
                assert_eq!(framed(server).await.unwrap().len(), 500);
                if fails {
                    server.send(&error("reached end of FramedSource")).await;
                }
                assert_eq!(server.path_request().await.0, Op::IsValidPath as u64);
                server.send(last().u64(1)).await;
                server.until_closed().await;
            },
            async |connection| {
                let mut source = Stuck { left: 5, fails };
                let added = connection.add_to_store_nar(&info(), true, &mut source, &mut quiet).await;
                assert_eq!(kind(&added.unwrap_err()), wanted);
                assert_eq!(connection.valid_paths(&[path("a")]).await.unwrap(), [true]);
            },
        );
    }
}
