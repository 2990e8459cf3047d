//! Builders that cannot be reached: each has its kind, its cause and something to type.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use drover::id::StoreDir;
use drover::store::remote::{DialError, DialKind, Key, RemoteOptions, RemoteStore};
use tokio::io::AsyncWriteExt as _;

use super::remote_dial::{dir, options, run};
use crate::support::farm_lab::{BuilderSpec, FarmLab, Kind};
use crate::support::nix::{Lab, newest};
use crate::support::sshd::free_port;

/// Options for a host of this machine that is no builder.
fn nobody(lab: &Lab, uri: &str) -> RemoteOptions {
    let mut options = RemoteOptions::new("big1", uri, &lab.path("tmp"), dir());
    options.ssh_opts = ["-F", "none", "-o", "UserKnownHostsFile=/dev/null"].map(str::to_owned).to_vec();
    options.patience = Duration::from_secs(60);
    options
}

fn failure(options: RemoteOptions) -> DialError {
    run(RemoteStore::dial(options)).map(|store| store.uri().to_owned()).expect_err("it was reached")
}

/// The error as people see it, without what differs from run to run.
fn text(error: &DialError) -> String {
    let text = format!("{error}\nhint: {}", error.hint);
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n', ':', ',', ']']) {
        let bare = word.trim_end_matches([' ', '\n', ':', ',', ']']);
        let end = &word[bare.len()..];
        if bare.len() > 3 && bare.bytes().all(|byte| byte.is_ascii_digit()) {
            out += "PORT";
        } else if bare.contains("/drover-") {
            out += "FILE";
        } else if bare.len() == 43 {
            out += "PRINT";
        } else {
            out += bare;
        }
        out += end;
    }
    out
}

#[test]
fn hosts_that_do_not_answer() {
    let lab = Lab::chroot(&newest());
    let refused = failure(nobody(&lab, &format!("ssh-ng://ci@127.0.0.1:{}", free_port())));
    assert_eq!(refused.kind, DialKind::Refused);
    insta::assert_snapshot!(text(&refused), @r"
    cannot use the builder big1: ssh: connect to host 127.0.0.1 port PORT: Connection refused
    hint: ssh $NIX_SSHOPTS -p PORT ci@127.0.0.1 true    shows it without drover; does sshd run there?
    ");

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut options = nobody(&lab, &format!("ssh-ng://127.0.0.1:{}", silent.local_addr().unwrap().port()));
    options.patience = Duration::from_millis(300);
    let late = failure(options);
    assert_eq!(late.kind, DialKind::TimedOut(Duration::from_millis(300)));
    insta::assert_snapshot!(text(&late), @r"
    cannot use the builder big1: no answer for 0.3 s
    hint: ssh $NIX_SSHOPTS -p PORT 127.0.0.1 true    shows it without drover; a firewall, or it is off
    ");

    let unknown = failure(nobody(&lab, "ssh-ng://no-such-host.invalid"));
    assert_eq!(unknown.kind, DialKind::Unreachable, "{unknown}");
    assert!(unknown.what.contains("no-such-host.invalid"), "{unknown}");

    let socket = failure(nobody(&lab, &format!("unix://{}", lab.path("nowhere").display())));
    assert_eq!(socket.kind, DialKind::Unreachable);
    insta::assert_snapshot!(text(&socket), @r"
    cannot use the builder big1: cannot connect to the Nix daemon at FILE: No such file or directory
    hint: nix store info --store unix:FILE    shows it without drover
    ");

    let usage = failure(nobody(&lab, "https://big1"));
    assert_eq!(usage.kind, DialKind::Usage);
    insta::assert_snapshot!(text(&usage), @r"
    cannot use the builder big1: https://big1: https:// is no way to reach a builder
    hint: a builder's URL is like ssh-ng://user@host:22 or unix:///path/to/socket
    ");
}

#[test]
fn hosts_that_are_not_trusted_or_do_not_trust() {
    let lab = FarmLab::of(&newest(), Kind::Stdio, 1);
    let sshd = &lab.builders[0].sshd;
    let uri = format!("ssh-ng://root@127.0.0.1:{}?remote-store={}", sshd.port, lab.builders[0].remote_store().unwrap());
    let known = |uri: &str| {
        let mut options = nobody(&lab.coordinator, uri);
        options.ssh_key = Some(lab.keys.user());
        options.host_keys = vec![sshd.host_key()];
        options
    };
    // The control: with the right keys it is reached.
    run(RemoteStore::dial(known(&uri))).unwrap();

    let mut options = known(&uri);
    options.host_keys.clear();
    let unknown = failure(options);
    assert_eq!(unknown.kind, DialKind::HostKeyUnknown);
    insta::assert_snapshot!(text(&unknown), @r"
    cannot use the builder big1: nothing is known of its host key
    hint: ssh-keyscan -t ed25519 -p PORT 127.0.0.1    shows its key; compare it with the host's own, then set host-key in drover.toml or add it to ~/.ssh/known_hosts
    ");

    let mut options = known(&uri);
    let other = std::fs::read_to_string(lab.keys.user().with_extension("pub")).unwrap();
    options.host_keys = vec![other];
    let changed = failure(options);
    assert_eq!(changed.kind, DialKind::HostKeyChanged);
    insta::assert_snapshot!(text(&changed), @r"
    cannot use the builder big1: its host key is another than it should be, SHA256:PRINT
    hint: ssh-keyscan -t ed25519 -p PORT 127.0.0.1    shows the key of whoever answers; only if the host was really set up anew, correct host-key in drover.toml or ~/.ssh/known_hosts
    ");

    // What the user says to ssh does not weaken that.
    let mut options = known(&uri);
    options.host_keys.clear();
    options.ssh_opts.extend(["-o", "StrictHostKeyChecking=no"].map(str::to_owned));
    assert_eq!(failure(options).kind, DialKind::HostKeyUnknown);

    let mut options = known(&uri);
    options.ssh_key = Some(lab.keys.stranger());
    let stranger = failure(options);
    assert_eq!(stranger.kind, DialKind::NotLetIn);
    insta::assert_snapshot!(text(&stranger), @r"
    cannot use the builder big1: root@127.0.0.1: Permission denied (publickey).
    hint: ssh -o BatchMode=yes $NIX_SSHOPTS -i FILE -p PORT root@127.0.0.1 true    shows it without drover; name the key with ssh-key or ssh-key-env in drover.toml
    ");
}

#[test]
fn hosts_without_a_nix_that_fits() {
    let nix = newest();
    let mut noisy = BuilderSpec::new(Kind::Stdio, &nix);
    noisy.sshd = "ForceCommand echo 'Welcome to big1!'; eval \"$SSH_ORIGINAL_COMMAND\"".to_owned();
    let mut closed = BuilderSpec::new(Kind::Untrusted, &nix);
    closed.conf = "allowed-users = somebody".to_owned();
    let lab = FarmLab::new(&nix, vec![BuilderSpec::new(Kind::Stdio, &nix), noisy, closed]);

    // Whether its shell is heard to its end is a race that has to be won each time.
    for _ in 0..10 {
        let mut none = options(&lab, 0);
        none.uri += "&remote-program=/nowhere/nix-daemon";
        let none = failure(none);
        assert_eq!(none.kind, DialKind::NoNix, "{none}");
        assert!(none.hint.contains("remote-program=/nix/var/nix/profiles/default/bin/nix-daemon"), "{}", none.hint);
    }

    let garbage = failure(options(&lab, 1));
    assert!(matches!(&garbage.kind, DialKind::Garbage { bytes } if bytes.contains("Welcome to big1!")), "{garbage:?}");
    insta::assert_snapshot!(text(&garbage), @r#"
    cannot use the builder b1: it begins with "Welcome to big1!\n"
    hint: ssh $NIX_SSHOPTS b1 true    must print nothing; look at ~/.bashrc and the like over there
    "#);

    let forbidden = failure(options(&lab, 2));
    assert_eq!(forbidden.kind, DialKind::Other, "{forbidden:?}");
    insta::assert_snapshot!(text(&forbidden), @r"
    cannot use the builder b2: its daemon hangs up without a word
    hint: see allowed-users in the nix.conf of the builder, and journalctl -u nix-daemon there
    ");

    let mut elsewhere = options(&lab, 0);
    elsewhere.store_dir = StoreDir::new("/other/store").unwrap();
    let elsewhere = failure(elsewhere);
    assert_eq!(elsewhere.kind, DialKind::StoreDir);
    assert!(elsewhere.what.starts_with("its store is not /other/store"), "{elsewhere}");
    assert!(elsewhere.hint.contains("nix -v --version"), "{}", elsewhere.hint);
}

#[test]
fn a_daemon_that_is_too_old() {
    let lab = Lab::chroot(&newest());
    let socket = lab.path("old.sock");
    let error = run(async {
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let old = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Nix 2.8 speaks 1.34.
            stream.write_all(&0x6478_696f_u64.to_le_bytes()).await.unwrap();
            stream.write_all(&(1_u64 << 8 | 34).to_le_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = RemoteStore::dial(nobody(&lab, &format!("unix://{}", socket.display()))) => result.expect_err("old"),
            () = old => unreachable!(),
        }
    });
    assert_eq!(error.kind, DialKind::TooOld);
    insta::assert_snapshot!(text(&error), @r"
    cannot use the builder big1: its version is 1.34, drover needs 1.35 (Nix 2.19)
    hint: nix store info --store unix:FILE    shows it without drover
    ");
}

#[test]
fn a_key_from_the_environment_leaves_no_trace() {
    let lab = FarmLab::of(&newest(), Kind::Stdio, 1);
    let sshd = &lab.builders[0].sshd;
    let uri = format!("ssh-ng://root@127.0.0.1:{}?remote-store={}", sshd.port, lab.builders[0].remote_store().unwrap());
    let secret = std::fs::read_to_string(lab.keys.user()).unwrap();
    let mut options = nobody(&lab.coordinator, &uri);
    options.host_keys = vec![sshd.host_key()];
    // As CI systems hand it on: without the last line end, and with the ends of another system.
    options.key = Some(Key::new(secret.trim().replace('\n', "\r\n")));
    assert!(!format!("{options:?}").contains("KEY"), "{options:?}");
    run(async {
        let store = RemoteStore::dial(options).await.unwrap();
        assert!(!format!("{store:?}").contains("PRIVATE"));
        for entry in walkdir::WalkDir::new(lab.coordinator.path("tmp")) {
            let entry = entry.unwrap();
            let text = entry.file_type().is_file().then(|| std::fs::read_to_string(entry.path()).unwrap());
            assert!(!text.unwrap_or_default().contains("PRIVATE"), "{}", entry.path().display());
        }
        // A further login is possible all the same.
        store.connect().await.unwrap();
    });
}
