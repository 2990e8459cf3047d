//! What happens to the connections of a builder: many at once, cut off, lost, and in the end all gone.

use std::time::Duration;

use drover::nix_compat::daemon::BuildMode;
use drover::store::remote::RemoteStore;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest as _, Sha256};

use super::remote_dial::{basic, dir, options, run, until};
use crate::support::farm_lab::{BuilderSpec, FarmLab, KINDS, Kind};
use crate::support::nix::{each_nix, newest};
use crate::support::sshd::processes_with;

#[test]
fn many_sessions_where_few_are_let_in() {
    each_nix(|nix| {
        let lab = FarmLab::of(nix, Kind::Narrow, 1);
        run(async {
            let store = RemoteStore::dial(options(&lab, 0)).await.unwrap();
            let mut asked: FuturesUnordered<_> = (0..6).map(|_| store.connect()).collect();
            let mut sessions = Vec::new();
            while let Some(session) = asked.next().await {
                sessions.push(session.unwrap());
            }
            for session in &mut sessions {
                assert!(session.valid_paths(&[]).await.is_ok());
            }
            let logins = processes_with(&format!("{}/drover-ssh-", lab.coordinator.path("tmp").display())).len();
            assert!((3..=6).contains(&logins), "{logins} logins for six sessions");
            // Closed ones make room again, without a further login.
            drop(sessions);
            for _ in 0..6 {
                store.connect().await.unwrap().valid_paths(&[]).await.unwrap();
            }
            assert!(store.about().await.shell);
        });
    });
}

#[test]
fn what_a_builder_says_about_itself() {
    each_nix(|nix| {
        let mut spec = BuilderSpec::new(Kind::Forwarded, nix);
        spec.system = Some("riscv64-linux".to_owned());
        spec.features = Some(vec!["kvm".to_owned(), "gpu".to_owned()]);
        spec.conf = "max-jobs = 7\ncores = 3\nextra-platforms = riscv32-linux".to_owned();
        let mut forced = BuilderSpec::new(Kind::Stdio, nix);
        // Its home is beside its store.
        forced.sshd = "ForceCommand nix-daemon --stdio --store \"$HOME\"/../root".to_owned();
        let lab = FarmLab::new(nix, vec![spec, forced]);
        run(async {
            let store = RemoteStore::dial(options(&lab, 0)).await.unwrap();
            assert_eq!(store.known(), None);
            let about = store.about().await;
            let systems: Vec<&str> = about.systems.iter().map(|system| system.0.as_str()).collect();
            assert!(about.shell);
            assert_eq!(systems, ["riscv64-linux", "riscv32-linux"]);
            assert_eq!((about.max_jobs, about.cores), (Some(7), Some(3)));
            assert!(about.features.contains(&"gpu".to_owned()), "{:?}", about.features);
            assert!(about.version.as_ref().unwrap().ends_with(&nix.version), "{about:?}");
            assert_eq!(about.state_dir.as_deref(), Some("/nix/var/nix"));
            assert!(!about.substitutes, "it has no substituters");
            assert_eq!(store.shell("echo hi").await.unwrap(), b"hi\n");
            let failed = store.shell("echo no >&2; exit 3").await.unwrap_err();
            assert_eq!(failed.to_string(), "a command over there exited with code 3: no");
            let load = store.probe().await.unwrap().ask().await.unwrap();
            assert!(load.disk_free.unwrap() <= load.disk_size.unwrap(), "{load:?}");

            let mut plain = options(&lab, 1);
            plain.uri = "ssh-ng://b1".to_owned();
            let store = RemoteStore::dial(plain).await.unwrap();
            assert!(!store.about().await.shell);
            assert!(store.probe().await.is_err(), "there is no shell to ask");
            store.connect().await.unwrap().valid_paths(&[]).await.unwrap();
        });
    });
}

#[test]
fn much_goes_through_in_both_directions() {
    each_nix(|nix| {
        let lab = FarmLab::new(nix, [Kind::Forwarded, Kind::Stdio].map(|kind| BuilderSpec::new(kind, nix)).to_vec());
        // More than all windows and buffers together.
        let file = lab.path("big");
        let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(&file, content).unwrap();
        let added = lab.builders[0].lab.run("nix-store", &["--add", file.to_str().unwrap()]);
        let path = dir().parse_path(added.as_bytes()).unwrap();
        run(async {
            let from = RemoteStore::dial(options(&lab, 0)).await.unwrap();
            let to = RemoteStore::dial(options(&lab, 1)).await.unwrap();
            for (from, to) in [(&from, &to), (&to, &from)] {
                let (mut from, mut to) = (from.connect().await.unwrap(), to.connect().await.unwrap());
                let info = from.path_info(&path).await.unwrap().unwrap();
                let mut nar = Vec::new();
                from.nar_from_path(&path, info.nar_size, &mut nar).await.unwrap();
                assert_eq!(nar.len() as u64, info.nar_size);
                let hash: String = Sha256::digest(&nar).iter().map(|byte| format!("{byte:02x}")).collect();
                assert!(format!("{info:?}").contains(&hash) || info.nar_size == nar.len() as u64);
                let mut quiet = |_| {};
                to.add_to_store_nar(&info, false, &mut nar.as_slice(), &mut quiet).await.unwrap();
                assert_eq!(to.valid_paths(std::slice::from_ref(&path)).await.unwrap(), [true]);
            }
        });
    });
}

#[test]
fn a_connection_that_is_given_up_half_way_harms_no_other() {
    let nix = newest();
    let lab = FarmLab::new(&nix, KINDS.map(|kind| BuilderSpec::new(kind, &nix).behind_proxy()).to_vec());
    run(async {
        for (number, kind) in KINDS.into_iter().enumerate() {
            let store = RemoteStore::dial(options(&lab, number)).await.unwrap();
            let mut session = store.connect().await.unwrap();
            let proxy = lab.builders[number].proxy();
            for _ in 0..3 {
                proxy.stall();
                // Time for the request to be on its way; longer would do as well.
                let given_up = tokio::time::timeout(Duration::from_millis(50), store.connect()).await;
                assert!(given_up.is_err(), "{kind:?} connects through a stalled network");
                proxy.heal();
            }
            session.valid_paths(&[]).await.unwrap();
            store.connect().await.unwrap().valid_paths(&[]).await.unwrap();
            session.valid_paths(&[]).await.unwrap();
        }
    });
}

#[test]
fn a_daemon_that_is_restarted_is_found_again() {
    let nix = newest();
    let mut lab = FarmLab::of(&nix, Kind::Forwarded, 1);
    run(async {
        let store = RemoteStore::dial(options(&lab, 0)).await.unwrap();
        let mut session = store.connect().await.unwrap();
        let builder = &mut lab.builders[0];
        let connections = crate::support::sshd::descendants(builder.daemon.as_ref().unwrap().pid());
        connections.into_iter().for_each(|pid| crate::support::sshd::signal(pid, "KILL"));
        drop(builder.daemon.take());
        assert!(
            session
                .valid_paths(&[dir().parse_path(b"/nix/store/00000000000000000000000000000000-x").unwrap()])
                .await
                .is_err()
        );
        assert!(store.connect().await.is_err(), "there is no daemon");
        drop(session);
        builder.restart_daemon();
        let mut session = store.connect().await.unwrap();
        session.valid_paths(&[]).await.unwrap();
    });
}

#[test]
fn a_lost_builder_is_noticed_and_can_be_dialled_again() {
    let nix = newest();
    let lab = FarmLab::new(&nix, KINDS.map(|kind| BuilderSpec::new(kind, &nix)).to_vec());
    run(async {
        for number in 0..KINDS.len() {
            let store = RemoteStore::dial(options(&lab, number)).await.unwrap();
            let still_there = tokio::time::timeout(Duration::ZERO, store.lost()).await;
            assert!(still_there.is_err());
            lab.builders[number].sshd.kill_sessions();
            store.lost().await;
            assert!(store.connect().await.is_err() || store.connect().await.is_err());
            RemoteStore::dial(options(&lab, number)).await.unwrap().connect().await.unwrap();
        }
    });
}

#[test]
fn in_the_end_nothing_is_left() {
    each_nix(|nix| {
        let lab = FarmLab::new(nix, KINDS.map(|kind| BuilderSpec::new(kind, nix)).to_vec());
        let tmp = lab.coordinator.path("tmp");
        let ours = || processes_with(&format!("{}/drover-ssh-", tmp.display()));
        for gently in [true, false] {
            run(async {
                for (number, kind) in KINDS.into_iter().enumerate() {
                    let store = RemoteStore::dial(options(&lab, number)).await.unwrap();
                    let mut probe = store.probe().await.unwrap();
                    assert!(probe.ask().await.is_some());
                    let mut session = store.connect().await.unwrap();
                    let _idle = store.connect().await.unwrap();
                    if kind != Kind::Untrusted {
                        let (path, drv) = basic(&lab, &format!("sleeper-{number}-{gently}"), "/bin/sleep 300", "");
                        let mut quiet = |_| {};
                        tokio::select! {
                            ended = session.build_derivation(&path, &drv, BuildMode::Normal, &mut quiet) => panic!("{ended:?}"),
                            () = until(|| !lab.builders[number].running("sleep").is_empty()) => {}
                        }
                    }
                    assert!(!ours().is_empty());
                    if gently {
                        drop((session, _idle, probe));
                        store.settle(Duration::from_secs(20)).await;
                    }
                }
            });
            let left = || lab.builders.iter().map(|builder| builder.processes().len()).sum::<usize>();
            run(until(|| left() == 0 && ours().is_empty()));
            let files: Vec<_> = std::fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(files.is_empty(), "{files:?}");
        }
    });
}
