//! Pushes of a large NAR: one that is killed in the middle of it is gone on with, and no part that came through is sent
//! again; and it takes no more memory than a smaller one.

use std::process::Command;

use drover::store::cache::ledger;

use crate::support::bucket::{Bucket, Fault as S3Fault, KEY_ID, Moto, SECRET};
use crate::support::cachix::{Cachix, Fault as CachixFault};
use crate::support::fake_cache::FakeCache;
use crate::support::niks3_server::Niks3Server;
use crate::support::nix::{Lab, newest};
use crate::support::service::Trouble;
use crate::support::site::{Ran, Running, Site, finish, start, wait_until};

/// One path of so many bytes that cannot be compressed.
fn flake(bytes: u64) -> String {
    format!(
        "{{ outputs = _: {{ packages.x86_64-linux.large = derivation {{ name = \"large-1.0\"; system = \"x86_64-linux\"; \
         builder = \"/bin/sh\"; args = [ \"-c\" \"/usr/bin/head -c {bytes} /dev/urandom > $out\" ]; }}; }}; }}"
    )
}

/// 26 parts of 8 MiB, 21 of 10 MiB.
const LARGE: u64 = 210_000_000;

/// Large enough that the next run goes on with it: 10 parts of 8 MiB.
const LARGE_ENOUGH: u64 = 80_000_000;

const TOKEN: &str = "t0ken";

/// The flake, built, and where to push it.
struct Place {
    site: Site,
    env: Vec<(&'static str, String)>,
}

impl Place {
    fn new(bytes: u64) -> Self {
        let site = Site::of(Lab::plain(&newest()), &flake(bytes));
        site.exits(0, &["run"]);
        Self { site, env: Vec::new() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.site.command(args);
        for name in ["AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
            command.env_remove(name);
        }
        command.env_remove("CACHIX_SIGNING_KEY").envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a push.
    fn start(&self, url: &str) -> Running {
        let args = ["push", "--run", "last", "--push-to", url];
        start(self.command(&args), &args)
    }

    /// Pushes to the end.
    fn push(&self, url: &str) -> Ran {
        let args = ["push", "--run", "last", "--push-to", url];
        let ran = finish(self.command(&args), &args);
        ran.expect(0);
        ran
    }

    /// Parts that the ledger says came through.
    fn noted(&self) -> usize {
        let file = self.site.state().join(ledger::NAME);
        let db = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
        // It is made by the process that is looked at.
        let count = db.and_then(|db| db.query_row("select count(*) from parts", [], |row| row.get::<_, u32>(0)));
        count.map_or(0, |count| count as usize)
    }

    /// Kills a push once so many parts came through in all and the ledger knows, and some hang.
    fn kill(&self, push: Running, parts: usize, hangs: impl Fn() -> bool) {
        wait_until("parts", || (self.noted() == parts && hangs()).then_some(()));
        push.signal("KILL");
        push.wait();
    }
}

/// Bytes of the most memory that a push takes.
fn most_memory(place: &Place, url: &str) -> u64 {
    let push = place.start(url);
    let file = format!("/proc/{}/status", push.pid());
    let mut most = 0;
    // The system keeps the highest mark; a process that has ended has none.
    while let Some(kib) = std::fs::read_to_string(&file).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim)?;
        line.trim_end_matches(" kB").parse::<u64>().ok()
    }) {
        most = most.max(kib << 10);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    push.wait().expect(0);
    most
}

#[test]
fn memory_does_not_grow_with_the_nar() {
    let most = [LARGE_ENOUGH, 400_000_000].map(|bytes| {
        let place = Place::new(bytes);
        let key = place.site.key("large-1");
        let (dir, served) = (place.site.cache(), place.site.lab.path("served"));
        std::fs::create_dir(&served).unwrap();
        let server = FakeCache::start(&served).writable();
        let secret = format!("secret-key={}", key.secret.display());
        let urls = [format!("file://{}?{secret}", dir.display()), format!("{}?{secret}", server.url)];
        let most = urls.map(|url| most_memory(&place, &url) >> 20);
        let sent = |dir: &std::path::Path| {
            let nars = std::fs::read_dir(dir.join("nar")).unwrap();
            nars.map(|nar| nar.unwrap().metadata().unwrap().len()).sum::<u64>()
        };
        assert!(sent(&dir) > bytes && sent(&served) > bytes, "it was meant to be incompressible");
        most
    });
    // Of 320 MB more only what the allocator does differently from one time to the next.
    for (small, large) in most[0].into_iter().zip(most[1]) {
        assert!(large < small + 24 && large < 200, "MiB: {most:?}");
    }
}

#[test]
fn a_bucket_gets_no_part_twice() {
    let moto = Moto::start();
    let bucket = Bucket::before(&moto);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(moto.make_bucket());
    let mut place = Place::new(LARGE);
    place.env = vec![("AWS_ACCESS_KEY_ID", KEY_ID.into()), ("AWS_SECRET_ACCESS_KEY", SECRET.into())];
    let key = place.site.key("large-1");
    let url = bucket.url(&format!("secret-key={}", key.secret.display()));
    let hang = |parts: std::ops::RangeInclusive<usize>| {
        parts.for_each(|part| bucket.next(&format!("PUT part {part}"), [S3Fault::Hang]));
    };
    hang(9..=12);
    place.kill(place.start(&url), 8, || bucket.count("PUT part") == 12);
    // Without a ledger the server says what it has.
    std::fs::remove_file(place.site.state().join(ledger::NAME)).unwrap();
    hang(17..=20);
    place.kill(place.start(&url), 16, || bucket.count("PUT part") == 12 + 8 + 4);
    // And where it does not, the ledger does.
    bucket.next("GET uploads", [S3Fault::Says(403, "AccessDenied")]);
    place.push(&url);
    let mut sent = [0; 27];
    for asked in bucket.log().iter().filter(|asked| asked.sort() == "PUT part") {
        let number = asked.query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).unwrap();
        sent[number.parse::<usize>().unwrap()] += 1;
    }
    let hung = |part: usize| (9..=12).contains(&part) || (17..=20).contains(&part);
    for (part, times) in sent.into_iter().enumerate().skip(1) {
        assert_eq!(times, if hung(part) { 2 } else { 1 }, "part {part}");
    }
    assert_eq!((bucket.count("POST uploads"), bucket.count("PUT narinfo")), (1, 1));
    assert_eq!(place.noted(), 0, "what has ended is forgotten");
}

/// Numbers of the parts that the storage of Cachix took, in order.
fn put(cachix: &Cachix) -> Vec<u32> {
    let state = cachix.state();
    state.log.iter().filter_map(|line| line.strip_prefix("put ")).map(|number| number.parse().unwrap()).collect()
}

/// A flake with a path of so many bytes, and a Cachix.
fn at_cachix(bytes: u64) -> (Place, Cachix, String) {
    let mut place = Place::new(bytes);
    let cachix = Cachix::start(&place.site.lab.store_dir(), TOKEN);
    place.env = vec![("CACHIX_AUTH_TOKEN", TOKEN.into())];
    let url = format!("cachix:acme?host={}&retry-delay=1&retry-max-delay=5", cachix.host);
    (place, cachix, url)
}

/// Kills a push once so many parts have come through and the next four hang.
fn kill_at(parts: usize, (place, cachix, url): &(Place, Cachix, String)) {
    (parts + 1..=parts + 4).for_each(|part| cachix.next(&format!("put {part}"), [CachixFault::Hang]));
    let all_hang = || {
        let state = cachix.state();
        (parts + 1..=parts + 4).all(|part| state.faults[&format!("put {part}")].is_empty())
    };
    place.kill(place.start(url), parts, all_hang);
    assert_eq!((put(cachix).len(), cachix.names().len()), (parts, 0));
}

#[test]
fn cachix_gets_no_part_twice() {
    let at = at_cachix(LARGE);
    kill_at(14, &at);
    let (place, cachix, url) = at;
    place.push(&url);
    cachix.expect_sound();
    let mut parts = put(&cachix);
    parts.sort_unstable();
    assert_eq!(parts, (1..=26).collect::<Vec<_>>());
    assert_eq!((cachix.calls("create"), cachix.calls("complete"), cachix.names().len()), (1, 1, 1));
    assert_eq!(place.noted(), 0, "what has ended is forgotten");
}

#[test]
fn an_upload_that_cachix_has_forgotten_is_begun_anew() {
    let at = at_cachix(LARGE_ENOUGH);
    kill_at(5, &at);
    let (place, cachix, url) = at;
    cachix.state().uploads.clear();
    place.push(&url);
    // Asking for the forgotten one was no mistake of the client's.
    cachix.state().wrong.retain(|why| why != "404: there is no such upload");
    cachix.expect_sound();
    assert_eq!((cachix.calls("create"), put(&cachix).len(), cachix.names().len()), (2, 5 + 10, 1));
}

#[test]
fn an_upload_that_cachix_forgets_at_its_end_is_sent_anew() {
    let (place, cachix, url) = at_cachix(LARGE_ENOUGH);
    cachix.next("complete", [CachixFault::Hang]);
    place.kill(place.start(&url), 10, || cachix.state().faults["complete"].is_empty());
    cachix.state().uploads.clear();
    place.push(&url);
    cachix.state().wrong.retain(|why| why != "404: may be: there is no such upload");
    cachix.expect_sound();
    assert_eq!((cachix.calls("create"), put(&cachix).len(), cachix.names().len()), (2, 10 + 10, 1));
}

#[test]
fn niks3_gets_no_part_twice() {
    let place = Place::new(LARGE);
    let key = place.site.key("large-1");
    let server = Niks3Server::start(&place.site.lab.store_dir(), Some(&key.secret), TOKEN);
    let token = place.site.lab.write("token", TOKEN);
    place.site.edit(
        "drover.toml",
        &format!("[cache.large]\nurl = \"niks3:{}\"\ntoken-file = \"{}\"\n", server.url, token.display()),
    );
    let puts = || server.bucket.control.count("PUT nar");
    let good = vec![Trouble::None; 12];
    server.bucket.control.next("PUT nar", good.into_iter().chain(vec![Trouble::Hang; 4]));
    place.kill(place.start("large"), 12, || puts() == 16);
    assert_eq!(server.bucket.written(), [""; 0]);
    server.bucket.control.heal();
    place.push("large");
    assert_eq!(puts(), 16 + 21 - 12, "parts that came through are not sent again");
    assert_eq!((server.bucket.odd(), server.bucket.dangling()), (Vec::new(), Vec::new()));
    assert_eq!((server.bucket.names().len(), server.state.control.count("complete parts")), (1, 1));
    assert_eq!(place.noted(), 0, "what has ended is forgotten");
    // The server has given a place that was not used; it ends that by itself.
    assert_eq!(server.bucket.open_uploads(), 0);
}
