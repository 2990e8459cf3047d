//! Asking caches: a directory and a server that serves the same directory, well and badly.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drover::diff::presence::{self, Fact};
use drover::error::{Error, Fault as Whose};
use drover::event::Class;
use drover::id::{CacheId, StoreDir, StorePath};
use drover::nix_compat::narinfo::{NarInfo, NixHash, NixSignature};
use drover::store::cache::{Answer, Cache, CacheConfig, CacheError, OpenContext, Patience, SecretKey, narinfo_name};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::fake_cache::{FakeCache, Fault};

/// The secret key whose seed is this byte, 32 times.
pub(crate) fn key(name: &str, seed: u8) -> SecretKey {
    use base64::Engine as _;
    let pair = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).to_keypair_bytes();
    SecretKey::parse(&format!("{name}:{}", base64::engine::general_purpose::STANDARD.encode(pair))).unwrap()
}

fn path(n: u16) -> StorePath {
    let mut digest = [7; 20];
    digest[..2].copy_from_slice(&n.to_be_bytes());
    StorePath::from_parts(digest, &format!("p{n}")).unwrap()
}

fn paths(range: std::ops::Range<u16>) -> Vec<StorePath> {
    range.map(path).collect()
}

/// The record of a path, signed by a key.
fn record(path: &StorePath, key: Option<&SecretKey>) -> NarInfo {
    let build = |signatures: Vec<NixSignature>| {
        NarInfo::builder(path.clone(), "nar/x.nar.zst", NixHash::Sha256([1; 32]), 120)
            .signatures(signatures)
            .build()
            .unwrap()
    };
    let fingerprint = build(Vec::new()).fingerprint(&StoreDir::default());
    build(key.map(|key| key.sign(&fingerprint)).into_iter().collect())
}

fn put(dir: &Path, path: &StorePath, key: Option<&SecretKey>) {
    std::fs::write(dir.join(narinfo_name(path)), record(path, key).to_canonical_bytes()).unwrap();
}

/// A cache in a directory with nothing in it.
fn empty(info: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("nix-cache-info"), info).unwrap();
    dir
}

/// Trusts the key "good"; gives up soon, so that tests of failures are quick.
fn context() -> OpenContext {
    let millis = Duration::from_millis;
    OpenContext {
        trusted_public_keys: vec![key("good", 1).public_text()],
        patience: Patience {
            delay: millis(1),
            delay_rate_limited: millis(2),
            max_delay: millis(5),
            rest: Duration::ZERO,
            answer: Duration::from_secs(5),
            ..Patience::default()
        },
        ..OpenContext::new(StoreDir::default())
    }
}

fn pull(url: &str) -> CacheConfig {
    CacheConfig { url: url.to_owned(), pull: true, ..CacheConfig::default() }
}

async fn open(id: u32, url: &str) -> Cache {
    Cache::open(CacheId(id), pull(url), &context()).await.unwrap()
}

fn file_url(dir: &Path) -> String {
    format!("file://{}", dir.display())
}

fn words(answers: &[Answer]) -> Vec<&'static str> {
    let word = |answer: &Answer| match answer {
        Answer::Present(_) => "present",
        Answer::Untrusted(_) => "untrusted",
        Answer::Absent => "absent",
        Answer::NoAnswer(_) => "no answer",
    };
    answers.iter().map(word).collect()
}

fn why(answer: &Answer) -> (Class, String) {
    match answer {
        Answer::NoAnswer(failure) => (failure.class, failure.message.to_string()),
        other => panic!("it answered: {other:?}"),
    }
}

/// 0 signed, 1 signed by a stranger, 2 by nobody, 3 by a stranger who uses our key's name, 4 is garbage, 5 is a record
/// of another path, 6 is not there.
fn mixed() -> TempDir {
    let dir = empty("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
    put(dir.path(), &path(0), Some(&key("good", 1)));
    put(dir.path(), &path(1), Some(&key("bad", 2)));
    put(dir.path(), &path(2), None);
    put(dir.path(), &path(3), Some(&key("good", 2)));
    std::fs::write(dir.path().join(narinfo_name(&path(4))), "<html>Please log in</html>").unwrap();
    let other = StorePath::from_parts(*path(5).digest(), "other").unwrap();
    put(dir.path(), &other, Some(&key("good", 1)));
    dir
}

#[tokio::test]
async fn a_directory_and_a_server_give_the_same_answers() {
    let dir = mixed();
    let server = FakeCache::serve(dir.path()).await;
    let expected = ["present", "untrusted", "untrusted", "untrusted", "no answer", "no answer", "absent"];
    for url in [file_url(dir.path()), server.url.clone()] {
        let cache = open(0, &url).await;
        assert_eq!((cache.priority(), cache.want_mass_query()), (30, true));
        let answers = cache.ask(&paths(0..7)).await;
        assert_eq!(words(&answers), expected, "{url}");
        assert_eq!(answers[0], Answer::Present(Box::new(record(&path(0), Some(&key("good", 1))))));
        assert!(why(&answers[4]).1.contains("garbage"), "{answers:?}");
        assert!(why(&answers[5]).1.contains("-other"), "{answers:?}");
        let counts = cache.counts();
        assert_eq!((counts.asked, counts.present, counts.absent), (7, 1, 1));
        assert_eq!((counts.untrusted, counts.no_answer), (3, 2));
        assert_eq!(cache.ask(&[]).await, []);

        let trusting = open(0, &format!("{url}?trusted=1&priority=5")).await;
        assert_eq!(trusting.priority(), 5);
        assert_eq!(words(&trusting.ask(&paths(0..4)).await), ["present"; 4]);
        let lax = OpenContext { require_sigs: false, ..context() };
        let cache = Cache::open(CacheId(0), pull(&url), &lax).await.unwrap();
        assert_eq!(words(&cache.ask(&paths(0..4)).await), ["present"; 4]);
    }
    assert_eq!(server.requests("nix-cache-info"), 3, "read once for each time it is opened");
}

#[tokio::test]
async fn a_caches_own_keys_count_only_where_the_store_takes_them() {
    let dir = mixed();
    let config = CacheConfig { public_keys: vec![key("bad", 2).public_text()], ..pull(&file_url(dir.path())) };
    for (accept_cache_keys, expected) in [(false, "untrusted"), (true, "present")] {
        let context = OpenContext { accept_cache_keys, ..context() };
        let cache = Cache::open(CacheId(0), config.clone(), &context).await.unwrap();
        assert_eq!(words(&cache.ask(&[path(1)]).await), [expected]);
    }
    let bad = CacheConfig { public_keys: vec!["bad:AAAA".into()], ..config };
    let error = Error::from(Cache::open(CacheId(0), bad, &context()).await.unwrap_err());
    assert!(error.message.contains("cannot use the public key 'bad:AAAA'"), "{error:?}");
    assert_eq!(error.fault, Whose::Usage);
}

#[tokio::test]
async fn content_addressed_paths_need_no_signature() {
    let dir = empty("StoreDir: /nix/store\n");
    let nar_hash = NixHash::Sha256([9; 32]);
    let ca = format!("fixed:r:{}", nar_hash.to_nix_nixbase32_string());
    let ca = drover::nix_compat::narinfo::CAHash::parse(&ca).unwrap();
    let right = StoreDir::default().build_ca_path("src", &ca, &[] as &[StorePath], false).unwrap();
    let wrong = path(1);
    for path in [&right, &wrong] {
        let info = NarInfo::builder(path.clone(), "nar/x", nar_hash.clone(), 1).content_address(Some(ca.clone()));
        let body = info.build().unwrap().to_canonical_bytes();
        std::fs::write(dir.path().join(narinfo_name(path)), body).unwrap();
    }
    let answers = open(0, &file_url(dir.path())).await.ask(&[right, wrong]).await;
    assert_eq!(words(&answers), ["present", "untrusted"]);
}

#[tokio::test]
async fn failures_are_tried_again_and_then_named() {
    let dir = empty("StoreDir: /nix/store\n");
    for n in 0..9 {
        put(dir.path(), &path(n), Some(&key("good", 1)));
    }
    let server = FakeCache::serve(dir.path()).await;
    let cache = open(0, &server.url).await;
    let name = |n| narinfo_name(&path(n));
    server.next(&name(0), [Fault::Status(500), Fault::Status(503), Fault::Cut, Fault::Status(429)]);
    server.always(&name(1), Fault::Status(502));
    server.always(&name(2), Fault::Status(401));
    server.always(&name(3), Fault::Status(403));
    server.always(&name(4), Fault::Status(407));
    server.always(&name(5), Fault::With(403, "x-amz-request-id", "1".into()));
    server.always(&name(6), Fault::Cut);
    server.always(&name(7), Fault::Status(410));
    server.always(&name(8), Fault::Body(vec![b'x'; 2 << 20]));
    let answers = cache.ask(&paths(0..10)).await;
    let expected = [
        "present",
        "no answer",
        "no answer",
        "no answer",
        "no answer",
        "absent",
        "no answer",
        "absent",
        "no answer",
        "absent",
    ];
    assert_eq!(words(&answers), expected, "{answers:?}");
    let requests: Vec<_> = (0..10).map(|n| server.requests(&name(n))).collect();
    assert_eq!(requests, [5, 5, 1, 1, 1, 1, 5, 1, 1, 1], "refusals are final, troubles are tried 5 times");
    assert_eq!(why(&answers[1]), (Class::Cache, "HTTP status 502".into()));
    assert!(why(&answers[3]).1.contains("refused the login (HTTP status 403)"));
    assert_eq!(why(&answers[6]).0, Class::Network);
    assert!(why(&answers[8]).1.contains("too long"));
}

#[tokio::test]
async fn a_servers_wish_to_be_left_alone_is_respected() {
    let dir = empty("StoreDir: /nix/store\n");
    put(dir.path(), &path(0), Some(&key("good", 1)));
    let server = FakeCache::serve(dir.path()).await;
    let patience = Patience { path: Duration::from_secs(20), ..context().patience };
    let cache = Cache::open(CacheId(0), pull(&server.url), &OpenContext { patience, ..context() }).await.unwrap();
    let name = narinfo_name(&path(0));
    server.always(&name, Fault::With(429, "retry-after", "60".into()));
    assert_eq!(why(&cache.ask(&[path(0)]).await[0]), (Class::Cache, "HTTP status 429".into()));
    assert_eq!(server.requests(&name), 1, "without the header it would have been asked 5 times by now");
    server.next(&name, [Fault::With(429, "retry-after", "0".into())]);
    assert_eq!(words(&cache.ask(&[path(0)]).await), ["present"]);
}

#[tokio::test]
async fn a_cache_that_is_down_is_not_asked_in_vain() {
    let dir = empty("StoreDir: /nix/store\n");
    put(dir.path(), &path(3), Some(&key("good", 1)));
    let server = FakeCache::serve(dir.path()).await;
    let cache = open(0, &server.url).await;
    server.always("*", Fault::Status(500));
    let answers = cache.ask(&paths(0..5000)).await;
    assert_eq!(words(&answers), vec!["no answer"; 5000]);
    let requests = server.all_requests();
    assert!(requests < 1300, "{requests} requests for 5,000 paths to a server that only fails");
    assert_eq!(words(&cache.ask(&paths(0..5000)).await), vec!["no answer"; 5000]);
    assert_eq!(server.all_requests(), requests + 1, "one request finds out whether it is back");
    server.heal("*");
    let answers = cache.ask(&paths(0..6)).await;
    assert_eq!(words(&answers), ["absent", "absent", "absent", "present", "absent", "absent"]);
}

#[tokio::test]
async fn a_cache_that_hangs_is_left() {
    let dir = empty("StoreDir: /nix/store\n");
    let server = FakeCache::serve(dir.path()).await;
    let patience = Patience { answer: Duration::from_millis(500), ..context().patience };
    let cache = Cache::open(CacheId(0), pull(&server.url), &OpenContext { patience, ..context() }).await.unwrap();
    server.always("*", Fault::Hang);
    let answers = cache.ask(&paths(0..500)).await;
    assert_eq!(words(&answers), vec!["no answer"; 500]);
    assert!(server.all_requests() <= 2 * 100 + 1, "{}", server.all_requests());
}

#[tokio::test]
async fn many_requests_are_in_flight_but_not_too_many() {
    let dir = empty("StoreDir: /nix/store\n");
    let server = FakeCache::serve(dir.path()).await;
    let cache = open(0, &server.url).await;
    server.delay(Duration::from_millis(30));
    assert_eq!(words(&cache.ask(&paths(0..600)).await), vec!["absent"; 600]);
    let most = server.most_in_flight();
    assert!((65..=256).contains(&most), "{most} in flight");
    assert_eq!(server.all_requests(), 601, "one request a path, one for nix-cache-info");
}

#[tokio::test]
async fn what_is_no_usable_cache_says_so() {
    let gnu = empty("StoreDir: /gnu/store\n");
    let odd = empty("StoreDir: /nix/store\nPriority: soon\n");
    let nothing = tempfile::tempdir().unwrap();
    let servers = [FakeCache::serve(gnu.path()).await, FakeCache::serve(nothing.path()).await];
    let closed = format!("http://127.0.0.1:{}", {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    });
    let cases = [
        (file_url(gnu.path()), "is for the store /gnu/store, this store is /nix/store", Whose::Usage),
        (servers[0].url.clone(), "is for the store /gnu/store", Whose::Usage),
        (format!("{}?store=/other", servers[0].url), "is for the store /other", Whose::Usage),
        (file_url(odd.path()), "Priority", Whose::Usage),
        (file_url(nothing.path()), "is no binary cache: it has no nix-cache-info", Whose::Usage),
        (servers[1].url.clone(), "is no binary cache", Whose::Usage),
        (closed, "gave no answer", Whose::Unreachable),
        ("ssh-ng://host".into(), "drover has no client for 'ssh-ng'", Whose::Usage),
    ];
    for (url, expected, fault) in cases {
        let error = Error::from(Cache::open(CacheId(0), pull(&url), &context()).await.unwrap_err());
        assert!(error.message.contains(expected), "{url}: {error:?}");
        assert_eq!(error.fault, fault, "{url}");
    }
    let no_dir = odd.path().join("nix-cache-info/cache");
    let push = CacheConfig { push: true, ..pull(&file_url(&no_dir)) };
    let error = Error::from(Cache::open(CacheId(0), push, &context()).await.unwrap_err());
    assert!(error.message.contains("nix-cache-info/cache"), "{error:?}");
    let push = CacheConfig { push: true, ..pull(&servers[0].url) };
    servers[0].next("nix-cache-info", [Fault::Body(b"StoreDir: /nix/store\n".to_vec())]);
    assert!(matches!(Cache::open(CacheId(0), push, &context()).await, Err(CacheError::ReadOnly { .. })));
}

#[tokio::test]
async fn logins_come_from_the_url_or_netrc_and_are_never_shown() {
    let dir = mixed();
    let server = FakeCache::serve(dir.path()).await;
    server.login("bWU6aHVudGVyMg=="); // me:hunter2
    let netrc = dir.path().join("netrc");
    std::fs::write(&netrc, "machine 127.0.0.1\nlogin me\npassword hunter2\n").unwrap();

    let error = Cache::open(CacheId(0), pull(&server.url), &context()).await.unwrap_err();
    assert!(matches!(error, CacheError::Denied { status: 401, .. }), "{error}");
    assert_eq!(Error::from(error).fault, Whose::Usage);

    let context = OpenContext { netrc: Some(netrc), ..context() };
    let by_netrc = Cache::open(CacheId(0), pull(&server.url), &context).await.unwrap();
    assert_eq!(words(&by_netrc.ask(&[path(0)]).await), ["present"]);

    let with_login = server.url.replace("http://", "http://me:hunter2@");
    let by_url = open(0, &with_login).await;
    assert_eq!(words(&by_url.ask(&[path(0)]).await), ["present"]);
    assert!(!format!("{by_url:?} {} {}", by_url.url(), by_url.name()).contains("hunter2"));

    let wrong = server.url.replace("http://", "http://me:hunter3@");
    let error = Cache::open(CacheId(0), pull(&wrong), &context).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter3"), "{error:?}");
    server.always("*", Fault::Status(500));
    let answers = by_url.ask(&paths(0..3)).await;
    assert!(!format!("{answers:?}").contains("hunter2"), "{answers:?}");
}

#[tokio::test]
async fn a_directory_to_push_to_becomes_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("a/b c");
    let config = CacheConfig { push: true, ..pull(&format!("file://{}/a/b%20c", dir.path().display())) };
    let cache = Cache::open(CacheId(0), config.clone(), &context()).await.unwrap();
    assert_eq!(std::fs::read_to_string(new.join("nix-cache-info")).unwrap(), "StoreDir: /nix/store\n");
    assert_eq!(cache.name(), "b c");
    assert!(cache.warnings()[0].contains("not signed"), "{:?}", cache.warnings());
    assert_eq!(words(&cache.ask(&[path(0)]).await), ["absent"]);
    // A directory that holds something else is left alone.
    let other = CacheConfig { url: file_url(dir.path()), ..config };
    assert!(matches!(Cache::open(CacheId(0), other, &context()).await, Err(CacheError::NotACache { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Two caches: 0 has what is even, 1 has what can be divided by 3.
#[tokio::test]
async fn several_caches_are_asked_in_turn_or_at_once() {
    let dirs = [empty("StoreDir: /nix/store\nPriority: 40\n"), empty("StoreDir: /nix/store\nPriority: 10\n")];
    for n in 0..60 {
        if n % 2 == 0 {
            put(dirs[0].path(), &path(n), Some(&key("good", 1)));
        }
        if n % 3 == 0 {
            put(dirs[1].path(), &path(n), Some(&key("good", 1)));
        }
    }
    let servers = [FakeCache::serve(dirs[0].path()).await, FakeCache::serve(dirs[1].path()).await];
    let unread = CacheConfig { pull: false, ..pull(&servers[0].url) };
    let caches = presence::readable(&[
        Arc::new(open(0, &servers[0].url).await),
        Arc::new(open(1, &servers[1].url).await),
        Arc::new(Cache::open(CacheId(2), unread, &context()).await.unwrap()),
    ]);
    assert_eq!(caches.iter().map(|cache| cache.id().0).collect::<Vec<_>>(), [1, 0]);
    let before = [servers[0].all_requests(), servers[1].all_requests()];
    for (at_once, asked) in [(false, [40, 60]), (true, [100, 120])] {
        // In a task of its own, as the driver does it.
        let mut tasks = JoinSet::new();
        let caches = caches.clone();
        tasks.spawn(async move {
            if at_once {
                presence::race(&caches, paths(0..60), false).all().await
            } else {
                presence::cascade(&caches, &paths(0..60)).await
            }
        });
        let mut facts: BTreeMap<StorePath, Fact> = tasks.join_next().await.unwrap().unwrap().into_iter().collect();
        assert_eq!(facts.len(), 60);
        for n in 0..60u16 {
            let fact = facts.remove(&self::path(n)).unwrap();
            match (n % 2, n % 3) {
                (_, 0) => assert!(matches!(fact, Fact::Present { cache: CacheId(1), .. }), "{n}"),
                (0, _) => assert!(matches!(fact, Fact::Present { cache: CacheId(0), .. }), "{n}"),
                _ => assert_eq!(fact, Fact::Absent, "{n}"),
            }
        }
        assert_eq!(servers[0].all_requests() - before[0], asked[0], "{at_once}");
        assert_eq!(servers[1].all_requests() - before[1], asked[1], "{at_once}");
    }
}

#[tokio::test]
async fn a_look_at_a_cache_says_what_works() {
    let dir = mixed();
    let info = std::fs::read(dir.path().join("nix-cache-info")).unwrap();
    let server = FakeCache::serve(dir.path()).await;
    let token = dir.path().join("token");
    std::fs::write(&token, "t0ken").unwrap();
    let key_file = dir.path().join("key");
    let secret = {
        use base64::Engine as _;
        let pair = ed25519_dalek::SigningKey::from_bytes(&[3; 32]).to_keypair_bytes();
        format!("ours-1:{}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    std::fs::write(&key_file, &secret).unwrap();
    let url = format!("{}?secret-key={}", server.url, key_file.display());
    let config = CacheConfig { push: true, token_file: Some(token.clone()), ..pull(&url) };
    let look = async || drover::store::cache::check(&config, &context()).await;

    let read_only = look().await;
    assert!(read_only.read.is_ok(), "{read_only:?}");
    assert!(matches!(read_only.write, Some(Err(CacheError::ReadOnly { status: 405, .. }))), "{read_only:?}");
    server.writable_by("Bearer other");
    assert!(matches!(look().await.write, Some(Err(CacheError::Denied { status: 403, push: true, .. }))));
    server.writable_by("Bearer t0ken");
    let access = look().await;
    assert!(access.read.is_ok() && matches!(access.write, Some(Ok(()))), "{access:?}");
    assert_eq!(access.login, Some(drover::store::cache::LoginSource::TokenFile(token)));
    assert_eq!(access.signs, [key("ours-1", 3).public_text()]);
    assert_eq!(std::fs::read(dir.path().join("nix-cache-info")).unwrap(), info, "it got back what it had");
    let shown = format!("{access:?} {config:?}");
    assert!(!shown.contains("t0ken") && !shown.contains(&secret[7..]), "{shown}");
    let only_read = CacheConfig { push: false, ..config };
    assert!(drover::store::cache::check(&only_read, &context()).await.write.is_none());
}

#[tokio::test]
async fn a_server_without_anything_becomes_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    let server = FakeCache::serve(dir.path()).await.writable();
    let config = CacheConfig { push: true, ..pull(&server.url) };
    let cache = Cache::open(CacheId(0), config.clone(), &context()).await.unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("nix-cache-info")).unwrap(), "StoreDir: /nix/store\n");
    assert!(cache.warnings()[0].contains("not signed"), "{:?}", cache.warnings());
    // One that is for another store is not written to.
    std::fs::write(dir.path().join("nix-cache-info"), "StoreDir: /gnu/store\n").unwrap();
    let before = server.uploads().len();
    let error = Cache::open(CacheId(0), config.clone(), &context()).await.unwrap_err();
    assert!(matches!(error, CacheError::StoreDir { .. }), "{error}");
    assert_eq!(server.uploads().len(), before);
    // One that does not let itself be asked today may do so tomorrow.
    server.always("PUT *", Fault::Status(500));
    std::fs::remove_file(dir.path().join("nix-cache-info")).unwrap();
    let error = Error::from(Cache::open(CacheId(0), config, &context()).await.unwrap_err());
    assert_eq!(error.fault, Whose::Unreachable);
    assert!(error.message.contains("it takes no uploads: HTTP status 500, 5 tries"), "{error}");
}
