//! A cache may fail in any way, at any moment: what can be built is built, and a warning says why.

use std::path::Path;

use serde_json::Value;

use crate::support::fake_cache::{Background, Fault};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::{Ran, Site, narinfos};

/// `app` is in no cache; `solo`, and `tool` and `base` which `app` needs, are.
const FLAKE: &str = r#"{ outputs = { self }: let
  build = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ]; };
  base = build "base" "echo the base > $out";
  tool = build "tool" "echo a tool on ${base} > $out";
in { packages.x86_64-linux = {
  solo = build "solo" "echo all alone > $out";
  app = build "app" "read -r line < ${tool}; echo \"made with $line\" > $out";
}; hydraJobs = { inherit base tool; }; }; }"#;

/// What S3 says when it is asked too often.
const SLOW_DOWN: &str =
    "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

/// A store, a cache that holds what it could have, and a server in front of it.
struct Stage {
    site: Site,
    cache: Background,
    outputs: Vec<String>,
}

impl Stage {
    fn new(nix: &Nix) -> Self {
        let site = Site::of(Lab::plain(nix), FLAKE);
        let key = site.key("faulty-1");
        let url = site.cache_url(&key);
        site.exits(0, &["run", "--push-to", &url, "packages.x86_64-linux.solo", "hydraJobs.base", "hydraJobs.tool"]);
        let cache = Background::serve(&site.cache());
        // Nobody is patient here: each failure of drover's own requests is met with one more try, and Nix's with none.
        site.lab.configure(&format!(
            "substituters = {}?retry-attempts=2&retry-delay=1&retry-delay-rate-limited=1\ntrusted-public-keys = {}\n\
             download-attempts = 1\nconnect-timeout = 2\nstalled-download-timeout = 2\n",
            cache.url, key.public
        ));
        let document = site.exits(0, &["run", "--json", "app", "solo"]).json();
        let outputs = document["attrs"].as_array().unwrap().iter().map(|attr| text(&attr["outputs"]["out"])).collect();
        let mut stage = Self { site, cache, outputs };
        let store = stage.site.lab.path("store");
        let others = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path().display().to_string());
        stage.outputs.extend(others.filter(|path| path.ends_with("-base") || path.ends_with("-tool")));
        stage.forget();
        stage
    }

    /// The store has nothing any more, and neither Nix nor drover has ever heard of the cache.
    fn forget(&self) {
        let mut args = vec!["--delete", "--ignore-liveness"];
        args.extend(self.outputs.iter().map(String::as_str).filter(|path| Path::new(path).exists()));
        self.site.lab.run("nix-store", &args);
        for who in ["cache/nix", "cache/drover"] {
            let _ = std::fs::remove_dir_all(self.site.lab.path(who));
        }
    }

    /// Both attrs, whatever it takes; then nothing is left of it.
    fn run(&self, what: &str) -> (Ran, Value) {
        let args = ["run", "--json", "--download", "app", "solo"];
        let ran = self.site.drover(&args);
        assert_eq!(ran.code, Some(0), "{what}: {}\n{}", ran.out(), ran.stderr);
        let document = ran.json();
        for (name, content) in [("app", "made with a tool on "), ("solo", "all alone\n")] {
            let attrs = document["attrs"].as_array().unwrap();
            let attr = attrs.iter().find(|attr| attr["name"] == name).unwrap();
            let got = std::fs::read_to_string(text(&attr["outputs"]["out"])).unwrap();
            assert!(got.starts_with(content), "{what}: {name} is {got:?}");
        }
        // What Nix itself thinks of what arrived.
        self.site.lab.run("nix-store", &["--verify", "--check-contents"]);
        self.forget();
        (ran, document)
    }

    fn names(&self, outcome: &str) -> Vec<String> {
        let events = self.site.events();
        let mut names = if outcome == "built" { events.built() } else { events.fetched() };
        names.sort();
        names
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a fault costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// Nothing: it is fetched all the same.
    Nothing,
    /// Everything is built, and nobody has to know: the cache says that it does not have it.
    Quiet,
    /// Everything is built, and a warning says why.
    Warning,
}

/// A date some seconds from now, as HTTP writes it.
#[expect(clippy::disallowed_methods, reason = "a server's own clock")]
fn http_date() -> String {
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    jiff::fmt::rfc2822::to_string(&soon.to_zoned(jiff::tz::TimeZone::UTC)).unwrap()
}

/// Every way to answer badly, and what it costs where it is the answer to each of `nix-cache-info`, narinfo and NAR.
fn faults() -> Vec<(Fault, [Cost; 3])> {
    use Cost::{Nothing, Quiet, Warning};
    use Fault::{Body, Close, Cut, Edited, Encoded, Flipped, Half, Redirect, Says, Status, With};
    let trouble = [Warning; 3];
    let bucket = With(403, "x-amz-request-id", "1".to_owned());
    let mut faults = vec![
        // Without nix-cache-info it is no cache.
        (Status(404), [Warning, Quiet, Warning]),
        (Status(410), [Warning, Quiet, Warning]),
        (bucket, [Warning, Quiet, Warning]),
        (With(429, "retry-after", "1".to_owned()), trouble),
        (With(429, "retry-after", http_date()), trouble),
        (Close, trouble),
        (Cut, trouble),
        (Redirect, trouble),
        // drover takes a NAR as it comes: its hash says whether it is the right one.
        (Encoded("gzip"), [Warning, Warning, Nothing]),
        (Encoded("zstd"), [Warning, Warning, Nothing]),
        // Lines that mean nothing are no fault there, as with Nix.
        (Body(b"<html>Please log in to the guest network</html>\n".to_vec()), [Nothing, Warning, Warning]),
        (Body(Vec::new()), [Nothing, Warning, Warning]),
        (Half, trouble),
        (Flipped, trouble),
    ];
    faults.extend([401, 403, 407, 408, 429, 500, 501, 503].map(|status| (Status(status), trouble)));
    faults.extend([400, 403, 500, 503].map(|status| (Says(status, SLOW_DOWN), trouble)));
    // Records that are well written and wrong.
    let record = |from, to, cost| (Edited(from, to), [Nothing, cost, Nothing]);
    faults.extend([
        record("\nURL: ", "x\nURL: ", Warning),
        record("\nURL: nar/", "\nURL: nar/0", Warning),
        record("\nCompression: zstd", "\nCompression: xz", Warning),
        record("\nSig: faulty-1:", "\nSig: faulty-2:", Warning),
        record("\nNarSize: ", "\nNarSize: 1", Warning),
        record("\nNarHash: sha256:", "\nNarHash: sha256:0", Warning),
    ]);
    faults
}

#[test]
fn whatever_a_cache_answers_nothing_fails_that_can_be_built() {
    each_nix(|nix| {
        let stage = Stage::new(nix);
        stage.run("a healthy cache");
        assert_eq!(
            (stage.names("built"), stage.names("fetched")),
            (vec!["app".into()], vec!["solo".into(), "tool".into()])
        );
        let all = ["app", "base", "solo", "tool"].map(str::to_owned);
        let steps = ["nix-cache-info", "*.narinfo", "nar/*"];
        // The first two are asked by drover itself, of every Nix alike; of the third a sample is enough.
        let newest = nix.version == newest().version;
        let every = if newest { 1 } else { 3 };
        for (at, step) in steps.into_iter().enumerate().skip(if newest { 0 } else { 2 }) {
            for (fault, costs) in faults().into_iter().step_by(every) {
                if matches!(fault, Fault::Edited(..)) && step != "*.narinfo" {
                    continue;
                }
                let what = format!("{step}: {fault:?}");
                stage.cache.always(step, fault);
                let (ran, document) = stage.run(&what);
                let warnings = document["counts"]["warnings"].as_u64();
                match costs[at] {
                    Cost::Nothing => {
                        assert_eq!((stage.names("fetched").len(), warnings), (2, Some(0)), "{what}\n{}", ran.stderr);
                    }
                    cost => {
                        assert_eq!(stage.names("built"), all, "{what}\n{}", ran.stderr);
                        // Two where two records are bad in two ways.
                        let said = if cost == Cost::Warning { Some(1)..=Some(2) } else { Some(0)..=Some(0) };
                        assert!(said.contains(&warnings), "{what}\n{}", ran.stderr);
                        assert_eq!(ran.stderr.contains("cache"), cost == Cost::Warning, "{what}\n{}", ran.stderr);
                    }
                }
                stage.cache.heal(step);
            }
        }
    });
}

#[test]
fn what_passes_is_waited_for() {
    let stage = Stage::new(&newest());
    let passing = [
        Fault::Status(408),
        Fault::With(429, "retry-after", "1".to_owned()),
        Fault::With(429, "retry-after", http_date()),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Says(400, SLOW_DOWN),
        Fault::Says(403, SLOW_DOWN),
        Fault::Close,
        Fault::Cut,
    ];
    for step in ["nix-cache-info", "*.narinfo"] {
        for fault in &passing {
            let what = format!("{step} once: {fault:?}");
            stage.cache.next(step, [fault.clone()]);
            let (ran, document) = stage.run(&what);
            assert_eq!(stage.names("fetched"), ["solo", "tool"], "{what}\n{}", ran.stderr);
            assert_eq!(document["counts"]["warnings"], 0, "{what}\n{}", ran.stderr);
        }
    }
}

#[test]
fn only_what_is_broken_is_built() {
    each_nix(|nix| {
        let stage = Stage::new(nix);
        // A NAR of something else, which is well compressed and hashes to something else.
        let records = narinfos(&stage.site.cache());
        let (_, solo) = records.iter().find(|(name, _)| name.ends_with("-solo")).unwrap();
        let file = solo.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
        stage.cache.always("nar/*", Fault::Body(std::fs::read(stage.site.cache().join(file)).unwrap()));
        let (ran, document) = stage.run("the NAR of another path");
        assert_eq!(
            (stage.names("built"), stage.names("fetched")),
            (["app", "base", "tool"].map(str::to_owned).to_vec(), vec!["solo".to_owned()])
        );
        assert_eq!(document["counts"]["warnings"], 1, "{}", ran.stderr);
    });
}

#[test]
fn a_cache_that_never_answers_is_left() {
    // All at once: what they do is wait.
    std::thread::scope(|scope| {
        for step in ["nix-cache-info", "*.narinfo", "nar/*"] {
            scope.spawn(move || {
                let stage = Stage::new(&newest());
                stage.cache.always(step, Fault::Hang);
                let (ran, document) = stage.run(step);
                assert_eq!(stage.names("built"), ["app", "base", "solo", "tool"]);
                assert_eq!(document["counts"]["warnings"], 1, "{}", ran.stderr);
            });
        }
    });
}

#[test]
fn a_cache_that_has_to_answer_and_does_not_ends_the_run() {
    let stage = Stage::new(&newest());
    for step in ["nix-cache-info", "*.narinfo"] {
        stage.cache.always(step, Fault::Status(500));
        let ran = stage.site.drover(&["run", "--strict-caches", "app", "solo"]);
        assert_eq!(ran.code, Some(4), "{step}: {}", ran.stderr);
        assert!(ran.stderr.contains("HTTP status 500"), "{step}: {}", ran.stderr);
        assert_eq!(stage.names("built"), Vec::<String>::new(), "{step}");
        stage.cache.heal(step);
    }
    // One that is only pushed to, too: without the word it is waited for.
    let url = format!("{}?retry-attempts=1", stage.cache.url);
    stage.cache.always("nix-cache-info", Fault::Status(500));
    let ran = stage.site.drover(&["run", "--strict-caches", "--push-to", &url, "app", "solo"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing was built"), "{}", ran.stderr);
}
