//! The page for a browser: opened in a headless Chromium, in light and dark, wide and narrow.
#![expect(clippy::disallowed_methods, reason = "where pages are kept that somebody wants to look at")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use drover::event::{AttemptEnd, DrvOutcome, Event, Fact, Stage, Status};
use drover::id::{AttemptId, BuilderId, CacheId, DrvId, Kind};
use drover::record::history::Entry;
use drover::report::summary::Summary;
use drover::report::{entry, html};

use crate::support::browser::{Browser, Look};
use crate::support::story::{Story, Twist, fleet};

/// As many as the largest known closure of a package set has.
const DRVS: usize = 12_902;

/// Bytes of a page, and seconds of a processor until it is there, at 12,902 drvs.
const BYTES: usize = 3 << 20;
const LOAD: f64 = 3.0;

const LOOKS: [Look; 4] = [
    Look { width: 1280, dark: false },
    Look { width: 1280, dark: true },
    Look { width: 400, dark: false },
    Look { width: 400, dark: true },
];

/// Where pages and pictures of them go: `DROVER_TEST_PAGES`, to be looked at, else nowhere for long.
struct Gallery {
    dir: PathBuf,
    _kept: Option<tempfile::TempDir>,
}

impl Gallery {
    fn new() -> Self {
        match std::env::var_os("DROVER_TEST_PAGES") {
            Some(dir) => {
                std::fs::create_dir_all(&dir).unwrap();
                Self { dir: dir.into(), _kept: None }
            }
            None => {
                let dir = tempfile::tempdir().unwrap();
                Self { dir: dir.path().to_owned(), _kept: Some(dir) }
            }
        }
    }

    fn page(&self, name: &str, events: &[Event], earlier: &[Entry]) -> PathBuf {
        let file = self.dir.join(format!("{name}.html"));
        std::fs::write(&file, html::page(&Summary::of(events), earlier).unwrap()).unwrap();
        file
    }
}

/// Earlier runs of the same, none quite like the other.
fn earlier(events: &[Event]) -> Vec<Entry> {
    let this = entry::of(&Summary::of(events)).unwrap();
    let run = |n: u32| {
        let mut run = this.clone();
        let wave = 1.0 + 0.18 * f64::from(n * 7 % 5) - 0.3;
        run.seconds *= wave;
        run.chain_seconds *= 0.9 + 0.04 * f64::from(n % 4);
        run.counters.built = (this.counters.built as f64 * wave * wave) as u64;
        run.counters.pushed_bytes = (this.counters.pushed_bytes as f64 * wave) as u64;
        run.exit = Some(u8::from(n % 6 == 4));
        run
    };
    (0..20).map(run).collect()
}

/// As many drvs as the largest known closure of a package set has, on four builders of 16 slots.
fn large() -> Vec<Event> {
    let mut story = Story::new("run", &[".#packages"]);
    story.cache(0.2, 0, "acme.cachix.org", true);
    for (n, name) in ["local", "big1", "big2", "big3"].into_iter().enumerate() {
        story.builder(0.1, n as u32, name, 16, &["x86_64-linux"]);
    }
    story.flake(0.5, 0, false);
    let attrs: Vec<_> = (0..120).map(|n| story.attr(1.0, Kind::Packages, &format!("package{n:03}"))).collect();
    for (n, attr) in attrs.iter().enumerate() {
        let start = 1.0 + (n / 4) as f64 * 0.9;
        story.evaluated(*attr, (n % 4) as u32, start, start + 0.9);
    }
    // When each slot is free again, in milliseconds; and when each drv was there.
    let mut slots: BTreeSet<(u64, u32, u32)> = (0..64).map(|n| (3000, n % 4, n / 4)).collect();
    let mut there: Vec<u64> = Vec::new();
    for n in 0..DRVS {
        let before = [3, 40, 171].into_iter().filter(|_| n % 3 > 0).filter_map(|back| n.checked_sub(back + n % 64));
        let inputs: Vec<DrvId> = before.map(|input| DrvId(input as u32)).collect();
        let name = format!("python3.13-library-number-{n}-1.{}.{}", n % 9, n % 5);
        let needed = 3000 + n as u64 * 2;
        let length = 400 + (n as u64 * 7919 % 97) * 50 + if n % 997 == 0 { 120_000 } else { 0 };
        let at = |ms: u64| ms as f64 / 1000.0;
        story.need(at(needed), &name, at(length), &inputs, attrs[n % 120], n % 2 == 0);
        let ready = inputs.iter().map(|input| there[input.index()]).fold(needed, u64::max);
        let (free, builder, slot) = slots.pop_first().unwrap();
        let asked = ready.max(free);
        let (building, end) = (asked + 200, asked + 200 + length);
        slots.insert((end, builder, slot));
        there.push(end);
        let (attempt, drv) = (AttemptId(n as u32), DrvId(n as u32));
        story.at(at(asked), Fact::AttemptStarted { attempt, drv, builder: BuilderId(builder) });
        story.at(at(asked), Fact::AttemptBringing { attempt, paths: 3, nar_size: 3 << 20 });
        story.at(at(building), Fact::AttemptPrepared { attempt, copied: 3, copied_size: 3 << 20, fetched: 0 });
        story.at(at(building), Fact::AttemptBuilding { attempt });
        let built = AttemptEnd::Built { outputs: vec![] };
        story.at(at(end), Fact::AttemptEnded { attempt, end: built, log_lines: 20, log_tail: vec![] });
        story.at(at(end), Fact::DrvEnded { drv, outcome: DrvOutcome::Built });
        story.push(at(end), CacheId(0), &name, 3 << 20, 0.4 + at(length) / 50.0);
    }
    let end = there.into_iter().max().unwrap() as f64 / 1000.0;
    for (n, attr) in attrs.iter().enumerate() {
        let drv = DrvId((DRVS - 120 + n) as u32);
        story.planned(34.0, *attr, Status::ToBuild, Some(drv), 100);
        story.at(end, Fact::AttrEnded { attr: *attr, status: Status::Built, reason: None, root: None });
    }
    for (stage, from, to) in [(Stage::Eval, 0.5, 28.0), (Stage::Build, 3.0, end), (Stage::Push, 4.0, end + 8.0)] {
        story.stage(stage, from, to);
    }
    story.at(end + 9.1, Fact::RunEnded { exit: 0 });
    story.events()
}

/// The same run, with names that would be tags, ends of scripts and attributes if they were taken as such.
fn hostile(events: &[Event]) -> Vec<Event> {
    const NAME: &str = r#"</script><img src=x onerror=alert(1)>\"'>&amp;"#;
    let name = serde_json::to_string(NAME).unwrap();
    let text = serde_json::to_string(events).unwrap().replace("nginx-1.29.4", name.trim_matches('"'));
    let text = text.replace("OpenSSL library", "<script>alert(2)</script>");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_page_is_whole_in_every_look() {
    let gallery = Gallery::new();
    let well = fleet(Twist { push: true, ..Twist::default() }).events();
    let failed = fleet(Twist { nginx_fails: true, eval_fails: true, push: true, ..Twist::default() }).events();
    let idle = fleet(Twist { idle: true, ..Twist::default() }).events();
    let pages = [
        ("well", gallery.page("well", &well, &earlier(&well))),
        ("failed", gallery.page("failed", &failed, &[])),
        ("hostile", gallery.page("hostile", &hostile(&failed), &[])),
        ("idle", gallery.page("idle", &idle, &[])),
        ("every", gallery.page("every", &crate::support::story::every_fact(), &[])),
    ];
    let Some(mut browser) = Browser::start() else { return };
    for (name, page) in &pages {
        for look in LOOKS {
            let opened = browser.open(page, look);
            assert_eq!(opened.complaints, [""; 0], "{name} {look:?}");
            let foreign = opened.requests.iter().filter(|url| !url.starts_with("file://") && !url.starts_with("data:"));
            assert_eq!(foreign.collect::<Vec<_>>(), [""; 0], "{name} {look:?}");
            assert_eq!(opened.requests.iter().filter(|url| url.starts_with("file://")).count(), 1, "{name}");
            assert!(opened.scroll_width <= opened.inner_width, "{name} {look:?}: {opened:?}");
            // The data and the script; nothing that somebody's name brought with it.
            let made = browser.evaluate("[document.scripts.length, document.images.length]");
            assert_eq!(made, serde_json::json!([2, 0]), "{name}");
            browser.grow(look);
            let scheme = if look.dark { "dark" } else { "light" };
            browser.picture(&gallery.dir.join(format!("{name}-{}-{scheme}.png", look.width)), true);
        }
    }
}

#[test]
fn a_page_of_a_package_set_is_small_and_loads_at_once() {
    let gallery = Gallery::new();
    let page = gallery.page("large", &large(), &[]);
    let bytes = std::fs::metadata(&page).unwrap().len();
    println!("12,902 drvs: {bytes} bytes");
    assert!(bytes <= BYTES as u64, "{bytes} bytes");
    let Some(mut browser) = Browser::start() else { return };
    let opened = browser.open(&page, LOOKS[0]);
    println!("12,902 drvs: loaded with {} s of a processor", opened.load);
    assert_eq!(opened.complaints, [""; 0]);
    assert!(opened.load <= LOAD, "{opened:?}");
    browser.grow(LOOKS[0]);
    browser.picture(&gallery.dir.join("large-1280-light.png"), true);
}

/// What the keys do, in the page of a run: find, enlarge, all of it, help, next part.
#[test]
fn a_page_obeys_the_keyboard() {
    let gallery = Gallery::new();
    let events = fleet(Twist { nginx_fails: true, push: true, ..Twist::default() }).events();
    let page = gallery.page("keys", &events, &[]);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(&page, LOOKS[0]);
    let width = "document.getElementById('plane').getBoundingClientRect().width";
    let before = browser.evaluate(width).as_f64().unwrap();
    browser.press("/");
    assert_eq!(browser.evaluate("document.activeElement.id"), "find");
    for key in ["n", "g", "i", "n", "x"] {
        browser.press(key);
    }
    let first = browser.evaluate("document.querySelector('#found li').textContent");
    assert_eq!(first, "nginx-1.29.4big2 · 1m31s");
    browser.press("Enter");
    assert_eq!(browser.evaluate("document.querySelectorAll('#bars .hit.f').length"), 1);
    browser.wait_for("document.getElementById('tip').textContent !== ''");
    let tip = browser.evaluate("document.getElementById('tip').textContent").as_str().unwrap().to_owned();
    assert!(tip.starts_with("nginx-1.29.4big2 · at 0m0") && tip.ends_with(" for 1m31s · failed"), "{tip}");
    browser.picture(&gallery.dir.join("keys-found.png"), false);
    browser.evaluate("document.getElementById('find').blur()");
    for _ in 0..3 {
        browser.press("+");
    }
    assert!(browser.evaluate(width).as_f64().unwrap() > 3.0 * before);
    browser.evaluate("new Promise(done => setTimeout(done, 120))");
    browser.picture(&gallery.dir.join("keys-large.png"), false);
    browser.press("0");
    assert!((browser.evaluate(width).as_f64().unwrap() - before).abs() < 1.0);
    browser.press("?");
    assert_eq!(browser.evaluate("document.getElementById('keys').open"), true);
    browser.press("?");
    assert_eq!(browser.evaluate("document.getElementById('keys').open"), false);
    browser.evaluate("scrollTo(0, 0)");
    browser.press("j");
    assert_eq!(browser.evaluate("document.activeElement.id"), "failures");
    browser.picture(&gallery.dir.join("keys-next.png"), false);
}
