//! What `drover cache` says, from made-up caches, at 100 and 60 columns.

use drover::report::cache::prune::{self, Deleted, Kept, Pruned};
use drover::report::cache::status::{self, CacheStatus, Holds, LastPush, One, Use};
use drover::report::cache::verify::{self, Checked, Finding, Verified, Wrong};
use drover::report::cache::warm::{self, Warmed, WarmedCache};
use drover::report::text::{Line, Style, render};

use super::screens::{both as at_widths, snap};

/// Both widths. What is to be typed stays whole.
fn both(screen: impl Fn(usize) -> Vec<Line>) -> String {
    at_widths(|width| {
        let lines = screen(width);
        for line in &lines {
            let text = line.render(Style::default());
            assert!(text.contains("drover ") || line.width() <= width, "{} columns: {text}", line.width());
        }
        render(&lines, Style::default())
    })
}

fn finding(name: &str, fault: &str, message: &str) -> Finding {
    let faults = vec![Wrong { fault: fault.to_owned(), message: message.to_owned() }];
    Finding { path: format!("/nix/store/x-{name}"), name: name.to_owned(), faults, ..Finding::default() }
}

/// A cache of which four paths are broken.
fn broken() -> Verified {
    let findings = vec![
        finding("glibc-2.40", "nar_size", "its NAR is cut off: 1259221 of 8493465 bytes"),
        finding(
            "nginx-1.29.4",
            "nar_damaged",
            "its NAR is damaged: its file has the hash 0c5b8vw4… instead of 1b4sb93w…",
        ),
        finding("nixos-system-web1-25.11", "reference", "it refers to openssl-3.5.1, which no cache has"),
        finding(
            "7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d",
            "record",
            "its record cannot be read: the field StorePath is missing",
        ),
    ];
    let acme = Checked {
        name: "acme".to_owned(),
        url: "file:///srv/cache".to_owned(),
        paths: 1204,
        nars_read: 1203,
        bytes_read: 3_328_599_654,
        findings,
        referrers: 212,
        ..Checked::default()
    };
    Verified { version: 1, caches: vec![acme], seconds: 12.0, ..Verified::default() }
}

#[test]
fn broken_paths() {
    snap("cache_verify", &both(|width| verify::screen(&broken(), width)));
}

#[test]
fn mended_paths() {
    let mut mended = broken();
    mended.repair = true;
    let cache = &mut mended.caches[0];
    for finding in &mut cache.findings {
        finding.mended = Some("this store".to_owned());
    }
    cache.findings[1].mended = Some("cache.nixos.org".to_owned());
    cache.findings[2].mended = None;
    cache.findings[2].not_mended = Some("no store and no other cache has it".to_owned());
    cache.referrers = 0;
    snap("cache_repair", &both(|width| verify::screen(&mended, width)));
}

#[test]
fn whole_paths_and_no_answer() {
    let mut unsure = broken();
    unsure.caches[0].findings.clear();
    unsure.caches[0].referrers = 0;
    let mut fine = unsure.clone();
    fine.caches[0].nars_read = 0;
    unsure.caches[0].notes =
        vec!["looked at the 40 paths that recorded runs pushed, with all that they refer to".to_owned()];
    unsure.caches[0].no_answer = vec![("glibc-2.40".to_owned(), "HTTP status 503, 5 tries".to_owned())];
    let screens = |width| [verify::screen(&fine, width), vec![Line::new()], verify::screen(&unsure, width)].concat();
    snap("cache_verify_whole", &both(screens));
}

fn pruned() -> Pruned {
    let names = ["nixos-system-web1-25.05", "nixos-system-db1-25.05", "linux-6.12.40", "nginx-1.28.0", "glibc-2.39"];
    Pruned {
        version: 1,
        name: "acme".to_owned(),
        url: "file:///srv/cache".to_owned(),
        kept: Kept { roots: 14, recent: 120, last: 40, young: 0, references: 728 },
        doomed: names.iter().cycle().take(302).map(|name| (*name).to_owned()).collect(),
        bytes: 966_367_641,
        bytes_left: 2_362_232_013,
        unused: 3,
        seconds: 2.1,
        again: "drover cache prune acme --keep-days 30 --keep-last 2 --delete".to_owned(),
        ..Pruned::default()
    }
}

#[test]
fn what_would_be_deleted_and_what_was() {
    let shown = pruned();
    let deleted = Deleted { paths: 302, nars: 305, bytes: 966_367_641, put_back: 0 };
    let done = Pruned { deleted: Some(deleted), ..pruned() };
    let back = Deleted { put_back: 2, ..deleted };
    let stopped = Pruned { deleted: Some(back), stopped: true, ..pruned() };
    let nothing = Pruned { doomed: Vec::new(), unused: 0, bytes: 0, unreadable: 1, ..pruned() };
    let blank = || vec![Line::new()];
    let screens = |width| {
        let each = [&shown, &done, &stopped, &nothing].map(|pruned| [prune::screen(pruned, width), blank()].concat());
        each.concat()
    };
    snap("cache_prune", &both(screens));
}

#[test]
fn what_was_copied() {
    let acme = WarmedCache {
        name: "acme".to_owned(),
        url: "file:///srv/cache".to_owned(),
        copied: 40,
        bytes: 1_288_490_188,
        there: 380,
        warm: (0..38).map(|n| format!("web{n}")).collect(),
        not_built: vec!["web3".to_owned(), "db1".to_owned()],
        ..WarmedCache::default()
    };
    let short = WarmedCache {
        not_built: Vec::new(),
        not_whole: vec!["web3".to_owned()],
        failed: vec![("linux-6.12.58".to_owned(), "HTTP status 429, 9 tries, gave up after waiting 4m51s".to_owned())],
        ..acme.clone()
    };
    let of =
        |cache: &WarmedCache| Warmed { version: 1, caches: vec![cache.clone()], seconds: 12.0, ..Warmed::default() };
    let fine = WarmedCache { not_built: Vec::new(), ..acme.clone() };
    let stopped = Warmed { stopped: true, ..of(&fine) };
    let screens = |width| {
        let all = [of(&fine), of(&acme), of(&short), stopped.clone()];
        all.map(|warmed| [warm::screen(&warmed, width), vec![Line::new()]].concat()).concat()
    };
    snap("cache_warm", &both(screens));
}

#[test]
fn what_caches_hold() {
    let started: jiff::Timestamp = "2026-11-21T08:14:00Z".parse().unwrap();
    let now: jiff::Timestamp = "2026-11-21T10:20:00Z".parse().unwrap();
    let push = LastPush { run: "01KAJX3M".to_owned(), started, paths: 212, missing: 0, bytes: 1_503_238_553 };
    let used = Use {
        runs: 12,
        paths_asked: 30_112,
        paths_hit: 29_480,
        attrs: 480,
        attrs_hit: 411,
        bytes_fetched: 4_080_218_931,
        last_push: Some(push),
    };
    let acme = One {
        name: "acme".to_owned(),
        url: "file:///srv/cache".to_owned(),
        pull: true,
        push: true,
        signed_by: vec!["acme-1".to_owned()],
        holds: Some(Holds { paths: 1204, nars: 1203, bytes: 3_328_599_654 }),
        seconds: 0.1,
        used: used.clone(),
        ..One::default()
    };
    let nixos = One {
        name: "cache.nixos.org".to_owned(),
        url: "https://cache.nixos.org".to_owned(),
        pull: true,
        used: Use { last_push: None, ..used },
        ..One::default()
    };
    let gone = One {
        name: "old".to_owned(),
        url: "https://cache.example.org".to_owned(),
        pull: true,
        push: true,
        error: Some("cannot reach https://cache.example.org: no such host".to_owned()),
        ..One::default()
    };
    let status = CacheStatus { version: 1, caches: vec![acme, nixos, gone] };
    snap("cache_status", &both(|width| status::screen(&status, now, width)));
}
