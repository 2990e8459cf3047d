//! A collector at work all the time in the same store harms no run: whatever a run counts on has a root first.
#![expect(clippy::disallowed_methods, reason = "the number of rounds is said by the environment")]

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use crate::support::nix::{Lab, each_nix};
use crate::support::site::{Site, finish, narinfos, statuses, strings};

/// A process that collects garbage over and over; ends when dropped.
struct Collector(Child);

impl Collector {
    fn start(lab: &Lab) -> Self {
        let mut command = lab.program("/bin/sh");
        let nix = lab.nix.bin.join("nix");
        let script = "while :; do \"$0\" store gc --quiet 2>> gc.err || echo FAILED >> gc.err; echo >> gc.count; done";
        command.args(["-c", script]).arg(nix).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How often each loop of this kind goes round: once, and much more often in `nix/test --long`.
fn rounds() -> u32 {
    std::env::var("DROVER_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn a_collector_at_work_harms_nothing() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::plain(nix));
        let key = site.key("gc-1");
        let collector = Collector::start(&site.lab);
        for round in 0..rounds() {
            // Everything is new to this round but what has a fixed output.
            site.edit("salt", &format!("{round}\n"));
            let cache = site.lab.path(format!("cache-{round}.d"));
            let url = format!("file://{}?secret-key={}", cache.display(), key.secret.display());
            // Every evaluator holds more than one MiB, and its roots go with it after each attr.
            let flags = ["--eval-max-memory-size", "1", "--eval-workers", "2"];
            let args = [&["run", "--json", "--push-to", &url][..], &flags].concat();
            let ran = site.drover(&args);
            assert_eq!(ran.code, Some(0), "round {round}\n{}", ran.stderr);
            let document = ran.json();
            let mut statuses = statuses(&document);
            statuses.remove("darwinConfigurations.mac1");
            let there = |status: &String| status == "built" || status == "valid";
            assert!(statuses.values().all(there), "round {round}: {statuses:?}");
            let replaced = site
                .events()
                .of("warning")
                .iter()
                .filter(|w| w["message"].to_string().contains("was replaced"))
                .count();
            assert!(replaced > 10, "{replaced} evaluators were replaced");

            // All that was pushed is whole: each record has its NAR and each reference its record.
            let records = narinfos(&cache);
            assert!(records.len() >= strings(&document["drvs"]["build"]).len(), "{}", records.len());
            let references =
                records.values().filter_map(|text| text.lines().find_map(|line| line.strip_prefix("References: ")));
            let missing: BTreeSet<&str> =
                references.flat_map(str::split_whitespace).filter(|path| !records.contains_key(*path)).collect();
            assert!(missing.is_empty(), "{missing:?}");
            let mut verify = site.lab.bare_command("nix");
            verify.args(["store", "verify", "--store", &format!("file://{}", cache.display()), "--all", "--no-trust"]);
            finish(verify, &["nix store verify"]).expect(0);
        }
        drop(collector);
        let count = std::fs::read_to_string(site.lab.work().join("gc.count")).unwrap().lines().count();
        let errors = std::fs::read_to_string(site.lab.work().join("gc.err")).unwrap();
        eprintln!("collected {count} times");
        assert!(count >= 3 && !errors.contains("FAILED"), "collected {count} times: {errors}");
    });
}
