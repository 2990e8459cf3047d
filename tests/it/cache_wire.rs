//! Caches by HTTP/2 and HTTP/1.1, far away and with their own ideas of connections: every path is answered, once, with
//! no more requests than that takes.

use std::sync::Arc;
use std::time::Duration;

use drover::diff::presence::{self, Fact};
use drover::id::{CacheId, StoreDir, StorePath};
use drover::nix_compat::narinfo::{NarInfo, NixHash};
use drover::store::cache::{Answer, Cache, CacheConfig, OpenContext, Patience, narinfo_name};
use tempfile::TempDir;

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::front::Front;

fn path(n: u16) -> StorePath {
    let mut digest = [9; 20];
    digest[..2].copy_from_slice(&n.to_be_bytes());
    StorePath::from_parts(digest, &format!("p{n}")).unwrap()
}

fn paths(count: u16) -> Vec<StorePath> {
    (0..count).map(path).collect()
}

/// A cache that has every third of so many paths.
fn thirds(count: u16) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    for n in (0..count).step_by(3) {
        let record = NarInfo::builder(path(n), "nar/x.nar.zst", NixHash::Sha256([1; 32]), 120).build().unwrap();
        std::fs::write(dir.path().join(narinfo_name(&path(n))), record.to_canonical_bytes()).unwrap();
    }
    dir
}

/// Gives up soon, trusts everybody, and this certificate, which it leaves beside the cache.
fn context(server: &FakeCache) -> OpenContext {
    let millis = Duration::from_millis;
    let ca = server.root().join(format!("{}.pem", server.url.rsplit(':').next().unwrap()));
    std::fs::write(&ca, &server.ca).unwrap();
    OpenContext {
        require_sigs: false,
        ca_file: Some(ca),
        patience: Patience {
            delay: millis(1),
            delay_rate_limited: millis(2),
            max_delay: millis(5),
            rest: Duration::ZERO,
            ..Patience::default()
        },
        ..OpenContext::new(StoreDir::default())
    }
}

async fn open(id: u32, server: &FakeCache) -> Cache {
    let config = CacheConfig { url: server.url.clone(), pull: true, ..CacheConfig::default() };
    Cache::open(CacheId(id), config, &context(server)).await.unwrap()
}

/// Asks for all paths of `thirds` and checks what comes.
async fn ask_thirds(cache: &Cache, count: u16) {
    for (n, answer) in cache.ask(&paths(count)).await.into_iter().enumerate() {
        match answer {
            Answer::Present(info) => assert_eq!((n % 3, info.store_path()), (0, &path(n as u16))),
            other => assert_eq!((n % 3 == 0, &other), (false, &Answer::Absent), "{n}"),
        }
    }
}

#[tokio::test]
async fn several_connections_carry_what_one_would_not() {
    const COUNT: u16 = 900;
    let dir = thirds(COUNT);
    for (front, by_http2) in [(Front::tls(), true), (Front::old_tls(), false), (Front::plain(), false)] {
        let server = FakeCache::start_by(dir.path(), front.streams(40));
        server.delay(Duration::from_millis(20));
        let cache = open(0, &server).await;
        ask_thirds(&cache, COUNT).await;
        assert_eq!(cache.requests(), u64::from(COUNT) + 1, "one for each path and one for nix-cache-info");
        assert_eq!(server.all_requests(), u32::from(COUNT) + 1);
        let connections = server.traffic.connections();
        assert_eq!(server.traffic.by_http2(), if by_http2 { u32::from(COUNT) + 1 } else { 0 });
        if by_http2 {
            assert!((2..=6).contains(&connections), "{connections} connections");
            assert!(server.most_in_flight() > 40, "{} in flight", server.most_in_flight());
        } else {
            // Some are made in vain: another is free before they are ready.
            assert!(connections >= 64, "{connections} connections");
            assert!(server.most_in_flight() <= 256, "{} in flight", server.most_in_flight());
        }
    }
}

#[tokio::test]
async fn connections_that_are_closed_in_good_order_cost_nothing() {
    const COUNT: u16 = 600;
    let dir = thirds(COUNT);
    for front in [Front::tls(), Front::old_tls()] {
        // Each fails for good if any attempt is counted as one that failed.
        let server = FakeCache::start_by(dir.path(), front.requests(25));
        let mut context = context(&server);
        context.patience.attempts = 1;
        let config = CacheConfig { url: server.url.clone(), pull: true, ..CacheConfig::default() };
        let cache = Cache::open(CacheId(0), config, &context).await.unwrap();
        ask_thirds(&cache, COUNT).await;
        let connections = server.traffic.connections();
        assert!(connections >= 600 / 25, "{connections} connections");
    }
}

#[tokio::test]
async fn a_server_that_is_overrun_is_asked_for_less() {
    const COUNT: u16 = 400;
    let dir = thirds(COUNT);
    let server = FakeCache::start_by(dir.path(), Front::tls());
    server.delay(Duration::from_millis(5));
    let cache = open(0, &server).await;
    server.next("*.narinfo", std::iter::repeat_n(Fault::With(429, "retry-after", "0".to_owned()), 100));
    ask_thirds(&cache, COUNT).await;
    let widest = server.most_in_flight();
    assert!(widest <= 64, "it was never asked for more than at first: {widest}");
    assert_eq!(server.all_requests(), 1 + u32::from(COUNT) + 100);
}

#[tokio::test]
async fn records_may_come_in_another_form_and_heads_not_at_all() {
    let dir = thirds(9);
    let nar = dir.path().join("nar");
    std::fs::create_dir(&nar).unwrap();
    std::fs::write(nar.join("x.nar.zst"), "a nar").unwrap();
    let server = FakeCache::start_by(dir.path(), Front::plain());
    let cache = open(0, &server).await;
    for encoding in ["gzip", "zstd"] {
        server.always("*.narinfo", Fault::Packed(encoding));
        ask_thirds(&cache, 9).await;
    }
    server.heal("*.narinfo");
    server.always("nar/*", Fault::Headless);
    for asked in [2, 3] {
        let held = cache.inspect(&paths(1)).await.remove(0).unwrap().unwrap();
        assert!(held.nar);
        assert_eq!(server.requests("nar/x.nar.zst"), asked, "one in vain, and never again");
    }
}

#[tokio::test]
async fn answers_come_before_the_slowest_of_them() {
    let dir = thirds(30);
    let server = FakeCache::start_by(dir.path(), Front::tls());
    let cache = Arc::new(open(0, &server).await);
    server.always(&narinfo_name(&path(7)), Fault::Hang);
    let mut facts = presence::race(&[cache], paths(30), false);
    let mut known = Vec::new();
    while known.len() < 29 {
        known.extend(facts.next().await.unwrap());
    }
    assert!(known.iter().all(|(known, _)| *known != path(7)));
    assert_eq!(known.iter().filter(|(_, fact)| matches!(fact, Fact::Present { .. })).count(), 10);
    assert!(!facts.is_over());
}

#[tokio::test]
async fn a_better_cache_that_says_nothing_holds_up_only_what_no_other_has() {
    let dir = thirds(30);
    let servers = [FakeCache::start_by(dir.path(), Front::plain()), FakeCache::start_by(dir.path(), Front::plain())];
    let caches = [Arc::new(open(0, &servers[0]).await), Arc::new(open(1, &servers[1]).await)];
    servers[0].always("*.narinfo", Fault::Hang);
    let known = |facts: Vec<(StorePath, Fact)>| {
        assert!(facts.iter().all(|(_, fact)| matches!(fact, Fact::Present { cache: CacheId(1), .. })), "{facts:?}");
        facts.len()
    };
    for _ in 0..2 {
        let mut facts = presence::race(&caches, paths(30), false);
        let mut heard = 0;
        while heard < 10 {
            heard += known(facts.next().await.unwrap());
        }
        assert_eq!((heard, caches[0].is_late(), facts.is_over()), (10, true, false));
    }
    servers[0].heal("*.narinfo");
    let mut facts = presence::race(&caches, paths(30), true).all().await;
    facts.retain(|(_, fact)| matches!(fact, Fact::Present { cache: CacheId(0), .. }));
    assert_eq!((facts.len(), caches[0].is_late()), (10, false));
}

#[tokio::test]
async fn a_cache_that_says_nothing_behind_a_better_one_is_found_to_be_down() {
    let dir = thirds(30);
    let servers = [FakeCache::start_by(dir.path(), Front::plain()), FakeCache::start_by(dir.path(), Front::plain())];
    let brief = |id: u32, server: &FakeCache| {
        let config = CacheConfig { url: server.url.clone(), pull: true, ..CacheConfig::default() };
        let context = context(server);
        let patience = Patience { answer: Duration::from_secs(1), ..context.patience };
        async move { Cache::open(CacheId(id), config, &OpenContext { patience, ..context }).await.unwrap() }
    };
    let caches = [Arc::new(brief(0, &servers[0]).await), Arc::new(brief(1, &servers[1]).await)];
    servers[1].always("*.narinfo", Fault::Hang);
    // The better one has all of these, so nobody waits for the other.
    let wanted: Vec<StorePath> = (0..30).filter(|n| n % 3 == 0).map(path).collect();
    let facts = presence::race(&caches, wanted.clone(), false).all().await;
    assert!(facts.iter().all(|(_, fact)| matches!(fact, Fact::Present { cache: CacheId(0), .. })), "{facts:?}");
    assert!(!caches[1].is_down());
    while !caches[1].is_down() {
        tokio::task::yield_now().await;
    }
    assert!(!caches[0].is_down());
    // One that answers is not suspected, however often nobody waits for it.
    servers[1].heal("*.narinfo");
    assert_eq!(caches[1].ask(&wanted).await.len(), wanted.len());
    assert!(!caches[1].is_down());
    servers[1].delay(Duration::from_millis(20));
    for _ in 0..20 {
        drop(presence::race(&caches, wanted.clone(), false).all().await);
    }
    assert_eq!(caches[1].ask(&wanted).await.len(), wanted.len());
    assert!(!caches[1].is_down());
}

#[tokio::test]
async fn a_cache_far_away_is_asked_for_what_one_nearby_lacks() {
    const COUNT: u16 = 90;
    let (dir, all) = (thirds(COUNT), thirds(COUNT));
    let near = FakeCache::start_by(dir.path(), Front::plain());
    let far = FakeCache::start_by(all.path(), Front::tls());
    let twin = FakeCache::start_by(all.path(), Front::tls());
    // The nearby one has a third of that to answer all, on however busy a machine.
    let distance = Duration::from_secs(12);
    let distant = async |id: u32, server: &FakeCache| {
        let config = CacheConfig { url: server.url.clone(), pull: true, ..CacheConfig::default() };
        let context = context(server);
        let patience = Patience { answer: 5 * distance, path: 5 * distance, ..context.patience };
        server.delay(distance);
        let cache = Cache::open(CacheId(id), config, &OpenContext { patience, ..context }).await.unwrap();
        server.delay(Duration::ZERO);
        Arc::new(cache)
    };
    let near_cache = Arc::new(open(0, &near).await);
    let (far_cache, twin_cache) = tokio::join!(distant(1, &far), distant(2, &twin));
    let caches = [near_cache, far_cache, twin_cache];
    let facts = presence::race(&caches, paths(COUNT), false).all().await;
    assert_eq!(facts.len(), usize::from(COUNT));
    for (path, fact) in facts {
        let here = (0..COUNT).step_by(3).any(|n| self::path(n) == path);
        assert_eq!(matches!(fact, Fact::Present { cache: CacheId(0), .. }), here);
        assert_eq!(fact == Fact::Absent, !here);
    }
    assert_eq!(near.all_requests(), 1 + u32::from(COUNT));
    for server in [far, twin] {
        assert_eq!(server.all_requests(), 1 + u32::from(COUNT) * 2 / 3, "what the first one has is not asked for");
    }
}
