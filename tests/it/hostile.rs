//! What others may try: a flake, a branch, a cache. What they say on screens and to CI systems is in `check_forge` and
//! `page`; who may read secrets is in `secrets`; archives that grow are beside their parsers.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use drover::id::{CacheId, StoreDir, StorePath};
use drover::nix_compat::narinfo::{NarInfo, NixHash};
use drover::store::cache::{Answer, Cache, CacheConfig, OpenContext, Patience, narinfo_name};

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Site, finish};

/// Names that are paths, options and formats to whoever takes them for more than names.
const NAMES: [&str; 6] = ["../../evil", "/evil", "..", "a/../../../evil", "--out-link", "%2e%2e%2fevil"];

/// A server that keeps what it is asked and has nothing.
fn eavesdropper() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let (heard, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            if heard.send(String::from_utf8_lossy(&head).into_owned()).is_err() {
                return;
            }
        }
    });
    (url, asked)
}

fn path() -> StorePath {
    StorePath::from_parts([7; 20], "app").unwrap()
}

/// A cache with one record, whose NAR is at `url`, and a context that takes it unsigned and does not wait.
fn cache(url: &str) -> (tempfile::TempDir, NarInfo, OpenContext) {
    let dir = tempfile::tempdir().unwrap();
    let info = NarInfo::builder(path(), url, NixHash::Sha256([1; 32]), 120).build().unwrap();
    fs::create_dir(dir.path().join("cache")).unwrap();
    fs::write(dir.path().join("cache/nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    fs::write(dir.path().join("cache").join(narinfo_name(&path())), info.to_canonical_bytes()).unwrap();
    let patience = Patience { attempts: 1, answer: Duration::from_secs(10), ..Patience::default() };
    (dir, info, OpenContext { patience, ..OpenContext::new(StoreDir::default()) })
}

async fn open(url: String, context: &OpenContext) -> Cache {
    let config = CacheConfig { url, pull: true, trusted: Some(true), ..CacheConfig::default() };
    Cache::open(CacheId(0), config, context).await.unwrap()
}

#[tokio::test]
async fn a_login_is_not_sent_to_where_a_cache_sends_us() {
    let (dir, _, context) = cache("nar/x.nar");
    let server = FakeCache::serve(&dir.path().join("cache")).await;
    server.login("bWU6aHVudGVyMg=="); // me:hunter2
    let (elsewhere, asked) = eavesdropper();
    let opened = open(server.url.replace("http://", "http://me:hunter2@"), &context).await;
    for status in [301, 302, 303, 307, 308] {
        let name = narinfo_name(&path());
        server.next(&name, [Fault::With(status, "location", format!("{elsewhere}/{name}"))]);
        let answers = opened.ask(&[path()]).await;
        assert!(!matches!(answers[..], [Answer::Present(_)]), "{answers:?}");
        let head = asked.recv_timeout(Duration::from_secs(10)).unwrap().to_lowercase();
        assert!(head.contains(&name) && !head.contains("authorization") && !head.contains("hunter2"), "{head}");
    }
}

#[tokio::test]
async fn a_record_that_names_another_host_is_told_no_login() {
    let (elsewhere, asked) = eavesdropper();
    let (dir, info, context) = cache(&format!("{elsewhere}/x.nar"));
    let server = FakeCache::serve(&dir.path().join("cache")).await;
    server.login("bWU6aHVudGVyMg==");
    let opened = open(server.url.replace("http://", "http://me:hunter2@"), &context).await;
    assert!(opened.nar(&info).await.is_err());
    // Whether it is asked at all or not.
    if let Ok(head) = asked.try_recv() {
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
}

#[tokio::test]
async fn a_record_does_not_lead_out_of_its_cache() {
    for url in ["../secret", "nar/../../secret", "/secret", "file:///secret"] {
        let (dir, info, context) = cache(url);
        fs::create_dir(dir.path().join("cache/nar")).unwrap();
        fs::write(dir.path().join("secret"), "of this machine").unwrap();
        let url = url.replace("/secret", &dir.path().join("secret").display().to_string());
        let opened = open(format!("file://{}", dir.path().join("cache").display()), &context).await;
        let read = match opened.nar(&info).await {
            Ok(mut nar) => {
                let mut bytes = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut nar, &mut bytes).await.map(|_| bytes).unwrap_or_default()
            }
            Err(_) => Vec::new(),
        };
        assert_eq!(read, b"", "{url}");
    }
}

/// All files below, with what they hold.
fn files(dir: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        match kind.is_dir() {
            true => found.extend(files(&entry.path())),
            false => drop(found.insert((entry.path(), fs::read(entry.path()).unwrap_or_default()))),
        }
    }
    found
}

#[test]
fn names_of_attrs_and_derivations_are_no_paths() {
    let attrs: String = NAMES.iter().map(|name| format!("\"{name}\" = drv \"echo > $out\";\n")).collect();
    let fails: String = NAMES.iter().map(|name| format!("\"no{name}\" = drv \"echo {name}; exit 1\";\n")).collect();
    let flake = format!(
        "{{ outputs = _: let drv = script: derivation {{ name = \"x\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
         args = [ \"-c\" script ]; }}; in {{ packages.x86_64-linux = {{ {attrs} }}; checks.x86_64-linux = {{ {fails} }}; \
         }}; }}"
    );
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), &flake);
        let outside = site.lab.work();
        let known: BTreeSet<PathBuf> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.path()).collect();
        let args =
            ["run", "--keep-going", "--out-link", "result", "--report-dir", "report", "--events", "events.jsonl"];
        let ran = site.drover(&args);
        ran.expect(1);
        site.exits(0, &["report", "--format", "zip", "--output", "run.zip"]);
        let now: BTreeSet<PathBuf> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.path()).collect();
        assert_eq!(now, known, "nothing beside the flake");
        for (file, _) in files(&site.flake).into_iter().chain(files(&site.state())) {
            let name = file.display().to_string();
            assert!(!name.contains("evil"), "{name}");
        }
        assert!(!Path::new("/evil").exists());
    });
}

#[test]
fn symlinks_of_a_branch_are_replaced_and_not_followed() {
    let lab = Lab::plain(&newest());
    let site =
        Site::of(lab, "{ outputs = _: { packages.x86_64-linux = { }; checks.x86_64-linux.no = throw \"no\"; }; }");
    let victim = site.lab.path("victim");
    fs::create_dir(site.flake.join("report")).unwrap();
    let links = ["result.json", "events.jsonl", "report/report.html", "page.html"];
    for there in [true, false] {
        for link in links {
            let link = site.flake.join(link);
            let _ = fs::remove_file(&link);
            symlink(&victim, link).unwrap();
        }
        match there {
            true => fs::write(&victim, "precious").unwrap(),
            false => fs::remove_file(&victim).unwrap(),
        }
        let args = ["check", "--result-file", "result.json", "--events", "events.jsonl", "--report-dir", "report"];
        site.drover(&args).expect(3);
        site.exits(0, &["report", "--format", "html", "--output", "page.html"]);
        match there {
            true => assert_eq!(fs::read_to_string(&victim).unwrap(), "precious"),
            false => assert!(!victim.exists()),
        }
        for link in links {
            let meta = fs::symlink_metadata(site.flake.join(link)).unwrap();
            assert!(meta.is_file() && meta.len() > 0, "{link}");
        }
    }
    // A pipe is meant as one.
    let mut command = site.command(&["report", "--format", "html", "--output", "/dev/stdout"]);
    command.current_dir(&site.flake);
    assert!(finish(command, &["report"]).out().contains("<html"));
}

#[test]
fn what_a_flake_wishes_for_is_not_granted_by_itself() {
    each_nix(|nix| {
        let (elsewhere, asked) = eavesdropper();
        let flake = format!(
            "{{ nixConfig = {{ extra-substituters = [ \"{elsewhere}\" ]; substituters = [ \"{elsewhere}\" ]; \
             extra-trusted-substituters = [ \"{elsewhere}\" ]; post-build-hook = \"/bin/sh\"; allow-import-from-derivation \
             = true; accept-flake-config = true; }}; outputs = _: {{ packages.x86_64-linux.x = derivation {{ name = \"x\"; \
             system = \"x86_64-linux\"; builder = \"/bin/sh\"; args = [ \"-c\" \"echo > $out\" ]; }}; }}; }}"
        );
        let site = Site::of(Lab::plain(nix), &flake);
        for verb in ["plan", "run", "check"] {
            for ci in [false, true] {
                let mut command = site.command(&[verb]);
                if ci {
                    command.env("CI", "true");
                }
                finish(command, &[verb]);
                assert_eq!(asked.try_recv().ok(), None, "drover {verb}: the flake's cache was asked");
            }
        }
        // Its cache is asked once the user has named it.
        site.edit("flake.nix", &flake.replace("name = \"x\"", "name = \"y\""));
        let mut command = site.command(&["plan"]);
        command.env("NIX_CONFIG", format!("extra-substituters = {elsewhere}"));
        finish(command, &["plan"]);
        assert!(asked.recv_timeout(Duration::from_secs(10)).is_ok());
    });
}
