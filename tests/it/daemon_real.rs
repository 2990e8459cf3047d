//! Real daemons of every Nix there is: what they answer, and what they do when they are left.

use std::collections::BTreeMap;
use std::time::Duration;

use drover::event::Class;
use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::*;
use drover::nix_compat::{drv, error_class};
use drover::store::local::{LocalStore, StoreOptions, Wishes};
use drover::store::roots::Roots;
use drover::store::session::Session;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::fake_daemon::{kind, run};
use crate::support::nix::{Lab, Layout, each_nix};

fn quiet(_: Message) {}

fn options(lab: &Lab) -> StoreOptions {
    StoreOptions {
        nix_bin: Some(lab.nix.bin.clone()),
        store: lab.store_arg(),
        env: lab.env(),
        ..StoreOptions::default()
    }
}

async fn open(lab: &Lab) -> LocalStore {
    LocalStore::open(options(lab)).await.unwrap()
}

/// The derivation as BuildDerivation wants it; its inputs have to be built.
async fn basic(store: &LocalStore, drv_path: &str) -> (StorePath, BasicDerivation) {
    let path = store.store_dir().parse_path(drv_path.as_bytes()).unwrap();
    let drv = store.read_drvs(vec![path.clone()]).await.remove(0).unwrap();
    let mut inputs = Vec::new();
    for (input, wanted) in drv.input_derivations() {
        let input = store.drv_reader().read(input).unwrap();
        let paths = drv::output_paths(&input).unwrap();
        inputs.extend(wanted.outputs().iter().map(|name| paths[name].clone().unwrap()));
    }
    (path, BasicDerivation::new(&drv, inputs).unwrap())
}

async fn build(session: &mut Session, store: &LocalStore, drv_path: &str, messages: Messages<'_>) -> BuildResult {
    let (path, basic) = basic(store, drv_path).await;
    session.build_derivation(&path, &basic, BuildMode::Normal, messages).await.unwrap()
}

#[test]
fn handshake_and_validity() {
    each_nix(|nix| {
        for lab in [Lab::plain(nix), Lab::chroot(nix)] {
            run(async {
                let drv = lab.drv("hello", "echo hi > $out", "");
                let store = open(&lab).await;
                assert_eq!(store.version().text, nix.version);
                assert_eq!(store.version().untested(), None);
                assert_eq!(store.store_dir().as_str(), lab.store_dir());
                assert_eq!(store.physical_dir(), Some(lab.physical().as_path()));
                assert_eq!(store.trust(), Trust::Trusted);
                assert_eq!(store.settings().max_jobs, Some(4));

                let mut session = store.connect().await.unwrap();
                assert_eq!((session.peer().minor, session.peer().nix_version.as_str()), (38, nix.version.as_str()));
                let drv = store.store_dir().parse_path(drv.as_bytes()).unwrap();
                let none = StorePath::from_basename(b"00000000000000000000000000000000-none").unwrap();
                let both = [drv.clone(), none.clone()];
                assert_eq!(session.valid_paths(&both).await.unwrap(), [true, false]);
                assert_eq!(session.hold_valid(&both).await.unwrap(), [true, false]);
                assert_eq!(session.query_valid_paths(&both, false, &mut quiet).await.unwrap(), [drv.clone()].into());
                let infos = session.path_infos(&both).await.unwrap();
                assert!(infos[0].as_ref().unwrap().ca.as_deref().unwrap().starts_with("text:sha256:"));
                assert_eq!(infos[1], None);
                let outputs = session.output_map(&drv).await.unwrap();
                assert!(outputs["out"].is_some());

                let refused = session.ensure_path(&none, &mut quiet).await.unwrap_err();
                assert_eq!(kind(&refused), "refused", "{refused}");
                assert_eq!(session.valid_paths(&both).await.unwrap(), [true, false], "usable after a refusal");
                store.settle(Duration::from_secs(5)).await;
            });
        }
    });
}

#[test]
fn every_end_of_a_build() {
    const HI: &str = "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; \
                      outputHash = \"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4\";";
    let cases: [(&str, &str, &str, Option<Class>); 12] = [
        ("ok", "echo hi > $out", "", None),
        ("multi", "echo a > $out; echo b > $dev", "outputs = [ \"out\" \"dev\" ];", None),
        ("fixed", "printf hi > $out", HI, None),
        (
            "structured",
            "source .attrs.sh; echo ${list[1]} > ${outputs[out]}",
            "__structuredAttrs = true; list = [ 1 2 ];",
            None,
        ),
        ("fails", "echo one; exit 3", "", Some(Class::Build)),
        ("signal", "kill -9 $$", "", Some(Class::Signal)),
        ("nothing", "true", "", Some(Class::NoOutput)),
        ("half", "echo a > $out", "outputs = [ \"out\" \"dev\" ];", Some(Class::NoOutput)),
        ("wrong", "printf ho > $out", HI, Some(Class::HashMismatch)),
        ("features", "true", "requiredSystemFeatures = [ \"nope\" ];", Some(Class::NoBuilder)),
        ("platform", "true", "system = \"mips-linux\";", Some(Class::NoBuilder)),
        (
            "refers",
            "echo $dep > $out",
            "dep = builtins.toFile \"dep\" \"x\"; allowedReferences = [];",
            Some(Class::DisallowedReference),
        ),
    ];
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        run(async {
            let store = open(&lab).await;
            let mut session = store.connect().await.unwrap();
            for (name, script, more, class) in cases {
                // bash, for the arrays of structured attributes.
                let bash = nix.bin.join("bash-static");
                let expr = crate::support::nix::derivation(name, script, "");
                let expr = format!(
                    "derivation (({}) // {{ builder = \"{}\"; {more} }})",
                    expr.trim_start_matches("derivation "),
                    bash.display()
                );
                let drv = lab.instantiate(&expr);
                let mut messages = Vec::new();
                let result = build(&mut session, &store, &drv, &mut |message| messages.push(message)).await;
                assert_eq!(
                    error_class::of_result(&result, error_class::Limits::default()),
                    class,
                    "{name}: {}",
                    result.error_text()
                );
                let started =
                    messages.iter().any(|m| matches!(m, Message::Start(Activity { kind: ActivityKind::Build, .. })));
                assert_eq!(started, class != Some(Class::NoBuilder), "{name}");
                if class.is_none() {
                    assert_eq!(result.status, BuildStatus::Built);
                    let wanted = if name == "multi" { vec!["dev", "out"] } else { vec!["out"] };
                    assert_eq!(result.outputs.keys().collect::<Vec<_>>(), wanted, "{name}");
                    let again = build(&mut session, &store, &drv, &mut quiet).await;
                    assert_eq!(again.status, BuildStatus::AlreadyValid, "{name}");
                    let outputs: Vec<_> = result.outputs.values().cloned().collect();
                    assert!(session.valid_paths(&outputs).await.unwrap().iter().all(|valid| *valid));
                }
                if name == "fails" {
                    let lines: Vec<_> =
                        messages.iter().filter_map(|m| m.build_log_line()).map(|(_, line)| line).collect();
                    assert_eq!(lines, [b"one"]);
                    assert_eq!(error_class::reason(&result.error_text()), "builder failed with exit code 3");
                }
                if name == "structured" {
                    let out = lab.physical().join(result.outputs["out"].to_basename());
                    assert_eq!(std::fs::read_to_string(out).unwrap(), "2\n");
                }
            }
            assert!(session.is_usable());
        });
    });
}

#[test]
fn inputs_are_the_wanted_outputs() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        run(async {
            let dep = crate::support::nix::derivation(
                "dep",
                "echo a > $out; echo b > $dev",
                "outputs = [ \"out\" \"dev\" ];",
            );
            let drv = lab.drv("user", "read x < $dep; echo $x > $out", &format!("dep = ({dep}).dev;"));
            let store = open(&lab).await;
            let mut session = store.connect().await.unwrap();
            let (path, basic) = basic(&store, &drv).await;
            assert_eq!(basic.inputs.len(), 1);
            let too_early = session.build_derivation(&path, &basic, BuildMode::Normal, &mut quiet).await.unwrap();
            assert_eq!(
                error_class::of_result(&too_early, error_class::Limits::default()),
                Some(Class::Dependency),
                "{}",
                too_early.error_text()
            );
            let built = DerivedPath::Built { drv_path: SingleDerivedPath::Opaque(path), outputs: vec![] };
            let missing = session.query_missing(std::slice::from_ref(&built), &mut quiet).await.unwrap();
            assert_eq!(missing.will_build.len(), 2);
            let results =
                session.build_paths(std::slice::from_ref(&built), BuildMode::Normal, &mut quiet).await.unwrap();
            assert_eq!(results.len(), 1);
            assert_eq!((&results[0].0, results[0].1.status), (&built, BuildStatus::Built));
            let out = lab.physical().join(results[0].1.outputs["out"].to_basename());
            assert_eq!(std::fs::read_to_string(out).unwrap(), "b\n");
        });
    });
}

#[test]
fn limits_are_obeyed_and_told_apart() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        run(async {
            let store = open(&lab).await;
            let log = vec![("max-build-log-size".to_owned(), "10".to_owned())];
            for (name, wishes, class) in [
                (
                    "timeout",
                    Wishes { timeout: Some(1), max_silent_time: Some(100), ..Wishes::default() },
                    Class::Timeout,
                ),
                ("silent", Wishes { timeout: Some(100), max_silent_time: Some(1), ..Wishes::default() }, Class::Silent),
                ("log", Wishes { overrides: log, ..Wishes::default() }, Class::LogLimit),
            ] {
                let drv = lab.drv(name, "echo 0123456789 0123456789; /bin/sleep 100", "");
                let mut session = store.connect_with(&wishes).await.unwrap();
                let result = build(&mut session, &store, &drv, &mut quiet).await;
                let limits = error_class::Limits { timeout: wishes.timeout, max_silent_time: wishes.max_silent_time };
                assert_eq!(error_class::of_result(&result, limits), Some(class), "{}", result.error_text());
            }
        });
    });
}

#[test]
fn nars_hash_as_their_path_info_says() {
    each_nix(|nix| {
        for lab in [Lab::plain(nix), Lab::chroot(nix)] {
            run(async {
                let drv = lab.drv("big", "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done > $out", "");
                let out = lab.run("nix-store", &["--realise", &drv]);
                let store = open(&lab).await;
                let mut session = store.connect().await.unwrap();
                for path in [&drv, &out] {
                    let path = store.store_dir().parse_path(path.as_bytes()).unwrap();
                    let info = session.path_info(&path).await.unwrap().unwrap();
                    let mut nar = Vec::new();
                    session.nar_from_path(&path, info.nar_size, &mut nar).await.unwrap();
                    assert_eq!(nar.len() as u64, info.nar_size);
                    assert_eq!(<[u8; 32]>::from(Sha256::digest(&nar)), info.nar_hash);
                }
                // Without files at hand, derivations come the same way.
                let path = store.store_dir().parse_path(drv.as_bytes()).unwrap();
                let remote = drover::store::local::read_drv_from(&mut session, &path).await.unwrap();
                assert_eq!(remote, store.drv_reader().read(&path).unwrap());

                let none = StorePath::from_basename(b"00000000000000000000000000000000-none").unwrap();
                let error = session.nar_from_path(&none, 1000, &mut Vec::new()).await.unwrap_err();
                assert!(error.remote().is_some(), "{error}");
            });
        }
    });
}

#[test]
fn a_path_moves_from_store_to_store() {
    each_nix(|nix| {
        let (from, to) = (Lab::chroot(nix), Lab::chroot(nix));
        run(async {
            let out = from.run("nix-store", &["--realise", &from.drv("moved", "echo hi > $out", "")]);
            let (from, to) = (open(&from).await, open(&to).await);
            let (mut from, mut to) = (from.connect().await.unwrap(), to.connect().await.unwrap());
            let path = from.store_dir().parse_path(out.as_bytes()).unwrap();
            let mut info = from.path_info(&path).await.unwrap().unwrap();
            assert_eq!((info.ultimate, info.signatures.len()), (true, 0));
            let mut nar = Vec::new();
            from.nar_from_path(&path, info.nar_size, &mut nar).await.unwrap();
            info.ultimate = false;

            let unsigned = to.add_to_store_nar(&info, true, &mut &nar[..], &mut quiet).await.unwrap_err();
            assert_eq!(kind(&unsigned), "refused");
            assert_eq!(error_class::of_error(&unsigned), Class::Signature, "{unsigned}");
            let mut bad = nar.clone();
            bad[100] ^= 1;
            let corrupt = to.add_to_store_nar(&info, false, &mut &bad[..], &mut quiet).await.unwrap_err();
            assert_eq!(kind(&corrupt), "refused");
            let short = to.add_to_store_nar(&info, false, &mut &nar[..50], &mut quiet).await.unwrap_err();
            assert_eq!(kind(&short), "refused");

            to.add_to_store_nar(&info, false, &mut &nar[..], &mut quiet).await.unwrap();
            let signature = format!("test-1:{}==", "A".repeat(86));
            to.add_signatures(&path, std::slice::from_ref(&signature)).await.unwrap();
            let added = to.path_info(&path).await.unwrap().unwrap();
            assert_eq!((added.nar_hash, added.nar_size), (info.nar_hash, info.nar_size));
            assert_eq!(added.signatures, [signature].into());
        });
    });
}

#[test]
fn closing_a_connection_kills_its_build() {
    each_nix(|nix| {
        for (lab, socket) in [(Lab::plain(nix), false), (Lab::plain(nix), true), (Lab::chroot(nix), false)] {
            let daemon = socket.then(|| lab.daemon());
            println!("{:?}, socket: {socket}", lab.layout);
            run(async {
                let mut options = options(&lab);
                if let Some(daemon) = &daemon {
                    options.env.push(("NIX_REMOTE".to_owned(), format!("unix://{}", daemon.socket.display())));
                }
                let store = LocalStore::open(options).await.unwrap();
                let sleep = if lab.layout == Layout::Chroot { "/bin/sleep" } else { "exec /bin/sleep" };
                let drv = lab.drv("sleeper", &format!("echo up; {sleep} 300"), "");
                let (path, basic) = basic(&store, &drv).await;
                let mut session = store.connect().await.unwrap();
                let (up, is_up) = tokio::sync::oneshot::channel();
                let mut up = Some(up);
                let mut watch = |message: Message| {
                    if message.build_log_line().is_some() {
                        let _ = up.take().map(|up| up.send(()));
                    }
                };
                tokio::select! {
                    ended = session.build_derivation(&path, &basic, BuildMode::Normal, &mut watch) => panic!("{ended:?}"),
                    _ = is_up => {}
                }
                assert!(!session.is_usable());
                session.close().await;
                store.settle(Duration::from_secs(20)).await;
                // The lock of the output is free again: the same build starts at once, on another connection.
                let mut session = store.connect().await.unwrap();
                let mut waited = false;
                let (up, is_up) = tokio::sync::oneshot::channel();
                let mut up = Some(up);
                let mut watch = |message: Message| {
                    waited |= matches!(&message, Message::Start(Activity { kind: ActivityKind::BuildWaiting, .. }));
                    if message.build_log_line().is_some() {
                        let _ = up.take().map(|up| up.send(()));
                    }
                };
                tokio::select! {
                    ended = session.build_derivation(&path, &basic, BuildMode::Normal, &mut watch) => panic!("{ended:?}"),
                    _ = is_up => {}
                }
                session.close().await;
                assert!(socket || !waited, "the first build was still running");
            });
        }
    });
}

#[test]
fn roots_survive_collection_and_reconnect() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let daemon = lab.daemon();
        run(async {
            let mut options = options(&lab);
            options.env.push(("NIX_REMOTE".to_owned(), format!("unix://{}", daemon.socket.display())));
            let store = LocalStore::open(options).await.unwrap();
            let paths: Vec<StorePath> = ["a", "b"]
                .map(|name| lab.run("nix-store", &["--realise", &lab.drv(name, "echo $name > $out", "")]))
                .iter()
                .map(|out| store.store_dir().parse_path(out.as_bytes()).unwrap())
                .collect();
            let mut roots = Roots::new(store.clone());
            roots.hold(&paths[..1]).await.unwrap();
            lab.run("nix-store", &["--gc"]);
            assert_eq!(roots.valid(&paths).await.unwrap(), [true, false]);
            assert_eq!(roots.len(), 2);

            // The daemon of this connection dies; whatever is held is held again by the next.
            kill_children(&daemon);
            assert_eq!(roots.valid(&paths).await.unwrap(), [true, false]);
            lab.run("nix-store", &["--gc"]);
            assert_eq!(roots.valid(&paths[..1]).await.unwrap(), [true]);

            // Whoever makes nothing holds only what is valid, and that stays.
            let mut few = Roots::new(store.clone());
            assert_eq!(few.hold_valid(&paths).await.unwrap(), [true, false]);
            assert_eq!(few.len(), 1);
            drop(roots);
            store.settle(Duration::from_secs(10)).await;
            lab.run("nix-store", &["--gc"]);
            assert_eq!(few.hold_valid(&paths[..1]).await.unwrap(), [true]);
        });
    });
}

#[test]
fn lasting_roots_outlive_their_connection() {
    each_nix(|nix| {
        for lab in [Lab::plain(nix), Lab::chroot(nix)] {
            run(async {
                let store = open(&lab).await;
                let out = |name| {
                    let out = lab.run("nix-store", &["--realise", &lab.drv(name, "echo kept > $out", "")]);
                    store.store_dir().parse_path(out.as_bytes()).unwrap()
                };
                let (kept, other) = (out("kept"), out("other"));
                let state = if lab.layout == Layout::Chroot { "root/nix/var/nix" } else { "var/nix" };
                let link = lab.path(state).join("gcroots/drover/2026-11-28").join(kept.to_basename());
                let mut session = store.connect().await.unwrap();
                session.add_perm_root(&kept, &link).await.unwrap();
                // Again is no error.
                session.add_perm_root(&kept, &link).await.unwrap();
                // Nor is one of a path that is not there, so validity has to be held before.
                let gone = StorePath::from_parts([7; 20], "gone").unwrap();
                session.add_perm_root(&gone, &link.with_file_name("gone")).await.unwrap();
                drop(session);
                store.settle(Duration::from_secs(5)).await;

                lab.run("nix-store", &["--gc"]);
                let mut session = store.connect().await.unwrap();
                assert_eq!(session.valid_paths(&[kept.clone(), other]).await.unwrap(), [true, false]);
                drop(session);
                store.settle(Duration::from_secs(5)).await;
                std::fs::remove_dir_all(link.parent().unwrap()).unwrap();
                lab.run("nix-store", &["--gc"]);
                let mut session = store.connect().await.unwrap();
                assert_eq!(session.valid_paths(&[kept]).await.unwrap(), [false]);
            });
        }
    });
}

/// Kills the processes that the daemon forked for its connections, and waits until they are gone.
fn kill_children(daemon: &crate::support::nix::Daemon) {
    let children = || {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let mut fields = stat.rsplit_once(") ").unwrap().1.split(' ');
            let (state, parent) = (fields.next().unwrap(), fields.next().unwrap());
            if parent == daemon.pid().to_string() && state != "Z" {
                found.push(pid);
            }
        }
        found
    };
    let all = children();
    assert!(!all.is_empty());
    for pid in &all {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    while children().iter().any(|pid| all.contains(pid)) {
        std::thread::yield_now();
    }
}

#[test]
fn old_protocols_are_spoken_with_a_real_daemon() {
    each_nix(|nix| {
        for minor in [35_u8, 37] {
            let lab = Lab::chroot(nix);
            run(async {
                let drv = lab.drv("old", "echo hi > $out", "");
                let store = open(&lab).await;
                let (path, basic) = basic(&store, &drv).await;
                let mut child = options(&lab)
                    .cmd("nix-daemon")
                    .args(["--stdio", "--store"])
                    .arg(lab.store_arg().unwrap())
                    .spawn()
                    .unwrap();
                let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
                let (client, relay) = tokio::io::duplex(1 << 16);
                let (mut relay_reader, mut relay_writer) = tokio::io::split(relay);
                // Both sides are told that the other speaks 1.`minor`: the second word of what each says first.
                let up = async {
                    let mut first = [0; 16];
                    relay_reader.read_exact(&mut first).await.unwrap();
                    first[8] = minor;
                    to.write_all(&first).await.unwrap();
                    let _ = tokio::io::copy(&mut relay_reader, &mut to).await;
                    drop(to);
                };
                let down = async {
                    let mut first = [0; 16];
                    from.read_exact(&mut first).await.unwrap();
                    first[8] = minor;
                    relay_writer.write_all(&first).await.unwrap();
                    let _ = tokio::io::copy(&mut from, &mut relay_writer).await;
                };
                let talk = async {
                    let (reader, writer) = tokio::io::split(client);
                    let mut connection =
                        Connection::open(Box::new(reader), Box::new(writer), StoreDir::default()).await.unwrap();
                    assert_eq!(connection.peer().minor, u16::from(minor));
                    connection.set_options(&ClientOptions::default(), &mut quiet).await.unwrap();
                    let result =
                        connection.build_derivation(&path, &basic, BuildMode::Normal, &mut quiet).await.unwrap();
                    assert_eq!(result.status, BuildStatus::Built, "{}", result.error_text());
                    let outputs: BTreeMap<_, _> = connection.output_map(&path).await.unwrap();
                    assert_eq!(outputs["out"].as_ref(), result.outputs.get("out"));
                    assert!(connection.path_info(&result.outputs["out"]).await.unwrap().is_some());
                };
                tokio::join!(up, down, talk);
            });
        }
    });
}

#[test]
fn what_cannot_be_reached_is_said_with_a_hint() {
    run(async {
        let missing = StoreOptions { nix_bin: Some("/nowhere".into()), ..StoreOptions::default() };
        let error: drover::error::Error = LocalStore::open(missing).await.unwrap_err().into();
        assert!(error.message.contains("/nowhere/nix"), "{}", error.message);
        assert!(error.hint.unwrap().contains("install Nix"));
    });
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        run(async {
            let mut nobody = options(&lab);
            nobody.env.push(("NIX_REMOTE".to_owned(), "unix:///nowhere/socket".to_owned()));
            let error: drover::error::Error = LocalStore::open(nobody).await.unwrap_err().into();
            assert!(error.message.contains("/nowhere/socket"), "{}", error.message);
            assert!(error.hint.unwrap().contains("nix-daemon"));

            let wrong = StoreOptions { store: Some("/proc/nowhere".to_owned()), ..options(&lab) };
            let error: drover::error::Error = LocalStore::open(wrong).await.unwrap_err().into();
            assert!(error.message.contains("/proc/nowhere"), "{}", error.message);
            assert!(
                error.message.contains("No such file") || error.message.contains("cannot create"),
                "{}",
                error.message
            );
        });
    });
}
