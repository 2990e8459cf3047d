//! Runs that are stopped, killed, robbed of their daemon, or not alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::deadline::Deadline;
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Events, Process, Site, narinfos, signal, start, statuses, strings, wait_until};

/// Waits until the run with this number, counted from 0, has recorded so many events of a kind.
fn wait_for(site: &Site, run: usize, event: &str, count: usize) {
    let needle = format!("\"event\":\"{event}\"");
    wait_until(&format!("{count} {event}"), || {
        let mut runs: Vec<_> = fs::read_dir(site.state().join("runs")).ok()?.map(|run| run.unwrap().path()).collect();
        runs.sort();
        let text = fs::read_to_string(runs.get(run)?.join("events.jsonl")).ok()?;
        (text.matches(&needle).count() >= count).then_some(())
    });
}

#[test]
fn ctrl_c_pushes_what_is_built_and_leaves_nobody_behind() {
    each_nix(|nix| {
        let site = Site::fleet_at(Lab::chroot(nix), 100);
        let url = site.cache_url(&site.key("fleet-1"));
        let args = ["run", "-j", "4", "--push-to", &url];
        let running = site.start(&args);
        wait_for(&site, 0, "drv_ended", 6);
        let deadline = Deadline::after(Duration::from_secs(6));
        running.signal("INT");
        let ran = running.wait();
        ran.expect(130);
        assert!(!deadline.is_over());
        site.expect_no_process(Duration::from_secs(1));
        let events = site.events();
        assert_eq!(
            (&events.0.last().unwrap()["event"], &events.0.last().unwrap()["exit"]),
            (&"run_ended".into(), &130.into())
        );
        let built: BTreeSet<String> = events.built().into_iter().collect();
        assert!((6..130).contains(&built.len()), "{built:?}");
        let pushed: BTreeSet<String> = narinfos(&site.cache()).into_keys().map(|name| name[33..].to_owned()).collect();
        // One with several outputs may be among them, whose paths have longer names.
        let missing: Vec<_> = built.iter().filter(|name| !pushed.contains(*name)).collect();
        assert!(missing.is_empty(), "{missing:?} of {pushed:?}");

        // Twice: now.
        let running = site.start(&args);
        wait_for(&site, 1, "drv_ended", 3);
        running.signal("INT");
        let deadline = Deadline::after(Duration::from_secs(2));
        running.signal("TERM");
        running.wait().expect(130);
        assert!(!deadline.is_over());
        site.expect_no_process(Duration::from_secs(1));
        assert_eq!(site.events().0.last().unwrap()["exit"], 130);
    });
}

/// Forges send SIGINT or SIGTERM, and a few seconds later nothing is left of a job.
#[test]
fn a_job_that_is_cancelled_leaves_its_record_and_its_page() {
    for name in ["TERM", "INT"] {
        let site = Site::fleet_at(Lab::chroot(&newest()), 100);
        let page = site.lab.write("page.md", "");
        let report = site.lab.path("report");
        let args = ["run", "-j", "4", "--report-dir", report.to_str().unwrap()];
        let mut command = site.command(&args);
        command.envs([("CI", "true"), ("GITHUB_ACTIONS", "true")]).env("GITHUB_STEP_SUMMARY", &page);
        let running = start(command, &args);
        wait_for(&site, 0, "drv_ended", 4);
        let deadline = Deadline::after(Duration::from_secs(5));
        running.signal(name);
        let ran = running.wait();
        ran.expect(130);
        assert!(!deadline.is_over());
        assert_eq!(site.events().0.last().unwrap()["event"], "run_ended");
        let page = fs::read_to_string(&page).unwrap();
        assert!(page.starts_with("### drover run: stopped, "), "{page}");
        assert!(report.join("report.html").exists());
        site.expect_no_process(Duration::from_secs(1));
    }
}

#[test]
fn a_killed_run_leaves_nobody_behind_and_the_next_goes_on() {
    each_nix(|nix| {
        let site = Site::fleet_at(Lab::chroot(nix), 40);
        let running = site.start(&["run", "-j", "4"]);
        wait_for(&site, 0, "drv_ended", 8);
        running.signal("KILL");
        assert_eq!(running.wait().code, None);
        site.expect_no_process(Duration::from_secs(2));
        let built = site.events().built();
        assert!(built.len() >= 8);
        let list = site.exits(0, &["report", "list"]).out();
        assert!(list.lines().count() == 1 && list.contains("cut off"), "{list}");
        site.exits(0, &["report"]);
        let document = site.exits(0, &["report", "--format", "json"]).json();
        assert_eq!(document["exit"], serde_json::Value::Null);
        assert!(document["counts"]["drvs_built"].as_u64() >= Some(8));

        // Whatever was built is there still.
        let document = site.exits(0, &["plan", "--json"]).json();
        let left: BTreeSet<String> = strings(&document["drvs"]["build"]).iter().map(|drv| name_of(drv)).collect();
        assert!(left.len() <= 150 - 8 && built.iter().all(|name| !left.contains(name)), "{left:?}");
    });
}

/// `hello-1.0` of `/nix/store/…-hello-1.0.drv`.
fn name_of(drv: &str) -> String {
    let name = drv.rsplit('/').next().unwrap();
    name[33..].trim_end_matches(".drv").to_owned()
}

#[test]
fn two_runs_at_once_share_the_work() {
    each_nix(|nix| {
        // Builders that tell when they begin and end, which an unsandboxed builder can.
        let site = Site::fleet(Lab::plain(nix));
        let notes = site.lab.path("notes");
        fs::create_dir(&notes).unwrap();
        let build = fs::read_to_string(site.flake.join("build.nix")).unwrap();
        let noted = format!("set -e\n        echo begin ${{name}} $$ >> {0}/all; /bin/sleep 0.05\n", notes.display());
        let done = format!("        ${{script}}\n        echo end ${{name}} $$ >> {0}/all\n", notes.display());
        let build = build.replace("set -e\n", &noted).replace("        ${script}\n", &done);
        site.edit("build.nix", &build);
        let key = site.key("fleet-1");
        let url = site.cache_url(&key);
        let args = ["run", "host05", "library", "chain", "diamond", "-j", "4", "--push-to", &url];
        let (one, two) = (site.start(&args), site.start(&args));
        let (one, two) = (one.wait(), two.wait());
        one.expect(0);
        two.expect(0);

        let text = fs::read_to_string(notes.join("all")).unwrap();
        let mut at_work: BTreeMap<&str, &str> = BTreeMap::new();
        let mut count: BTreeMap<&str, u32> = BTreeMap::new();
        for line in text.lines() {
            let [what, name, pid] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            // `library` is one drv; names are as good as paths here.
            if what == "begin" {
                assert_eq!(at_work.insert(name, pid), None, "{name} is built twice at the same time");
                *count.entry(name).or_default() += 1;
            } else {
                at_work.remove(name);
            }
        }
        let (drvs, paths) = (count.len(), count.len() + 2);
        assert!(drvs > 80, "{count:?}");
        assert!(count.values().all(|times| *times == 1), "built again: {count:?}");

        // Everything is in the cache, and every record has its NAR.
        let records = narinfos(&site.cache());
        assert_eq!(records.len(), paths, "the library has three outputs");
        for (name, text) in &records {
            let file = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
            assert!(site.cache().join(file).exists(), "{name} has lost {file}");
        }
        let spool = |name: &String| name != ".drover-spool" && (name.contains("tmp") || name.starts_with('.'));
        let temporary = walk(&site.cache()).into_iter().filter(spool);
        assert_eq!(temporary.collect::<Vec<_>>(), Vec::<String>::new());
        for run in site.runs() {
            let events = Events::read(&run.join("events.jsonl"));
            assert_eq!(events.0.last().unwrap()["exit"], 0);
            site.exits(0, &["report", run.file_name().unwrap().to_str().unwrap()]);
        }
        assert_eq!(site.runs().len(), 2);
        // Both have left the state of both usable.
        let list = site.exits(0, &["report", "list"]).out();
        assert_eq!(list.lines().count(), 2, "{list}");
    });
}

#[test]
fn what_somebody_else_builds_is_waited_for_without_a_slot() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let hold = lab.path("hold");
        let site = Site::of(
            lab,
            &r#"{ outputs = { self }: let
              build = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "set -e; ${script}" ]; };
              shared = build "shared" "while [ -e HOLD ]; do /bin/sleep 0.05; done; echo 1 > $out";
            in { packages.x86_64-linux = {
              inherit shared;
              user = build "user" "echo ${shared} > $out";
            } // builtins.listToAttrs (map (name: { inherit name; value = build name "/bin/sleep 0.05; echo 1 > $out"; })
              [ "a" "b" "c" "d" "e" "f" "g" "h" ]); }; }"#
                .replace("HOLD", &hold.display().to_string()),
        );
        fs::write(&hold, "").unwrap();
        let mut nix_build = site.lab.command("nix");
        nix_build.args(["build", "--no-link", &format!("{}#shared", site.flake.display())]);
        let nix_build = start(nix_build, &["nix build"]);
        wait_until("Nix's builder", || {
            site.processes().into_iter().find(|process| process.cmdline.contains("while [ -e"))
        });

        let running = site.start(&["run", "-j", "1", "--json"]);
        // It is first in the queue once it is known, since `user` waits for it; the others have the one slot all the same.
        wait_for(&site, 0, "attempt_waiting", 1);
        wait_for(&site, 0, "drv_ended", 8);
        fs::remove_file(&hold).unwrap();
        nix_build.wait().expect(0);
        let document = running.wait().expect(0).json();
        let events = site.events();
        let places = |what: &str| {
            let places = events.0.iter().enumerate().filter(|(_, event)| event["event"] == what);
            places.map(|(place, _)| place).collect::<Vec<_>>()
        };
        assert!(places("attempt_waiting")[0] < places("attempt_started")[8], "all others were first");
        let mut built = events.built();
        built.sort();
        assert_eq!(built, ["a", "b", "c", "d", "e", "f", "g", "h", "user"]);
        assert_eq!(statuses(&document)["packages.x86_64-linux.shared"], "valid");
    });
}

fn walk(dir: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(dir).min_depth(1).into_iter();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_prefix_that_two_runs_share_is_refused() {
    let site = Site::fleet(Lab::plain(&newest()));
    for _ in 0..2 {
        site.exits(0, &["run", "source"]);
    }
    let names: Vec<String> =
        site.runs().iter().map(|run| run.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 2);
    // Two ULIDs of the same second share most of their time.
    let shared = names[0].chars().zip(names[1].chars()).take_while(|(a, b)| a == b).count();
    let refused = site.exits(2, &["report", &names[0][..shared]]);
    assert!(refused.stderr.starts_with("error: ") && refused.stderr.contains("hint:"), "{}", refused.stderr);
    for name in &names {
        let document = site.exits(0, &["report", &name[..=shared], "--format", "json"]).json();
        assert_eq!(document["run"].as_str().unwrap(), name.as_str());
        let path = site.exits(0, &["report", name, "--format", "path"]).out();
        assert!(path.trim_end().ends_with(name.as_str()), "{path}");
    }
    site.exits(2, &["report", "ZZZZ"]);
    let last = site.exits(0, &["report", "last", "--format", "json"]).json();
    assert_eq!(last["run"].as_str().unwrap(), names[1]);
}

/// The process of the sleeping builder, and the child of this drover that it descends from.
fn sleeper(site: &Site, drover: u32) -> Option<(Process, Process)> {
    let all = site.processes();
    let sleeper = all.iter().find(|process| process.cmdline.starts_with("/bin/sleep "))?;
    let mut above = sleeper;
    while above.parent != drover {
        above = all.iter().find(|process| process.pid == above.parent)?;
    }
    Some((sleeper.clone(), above.clone()))
}

#[test]
fn a_build_whose_daemon_dies_is_built_again() {
    each_nix(|nix| {
        let site = Site::of(
            Lab::chroot(nix),
            r#"{ outputs = { self }: { packages.x86_64-linux.slow = derivation { name = "slow"; system = "x86_64-linux";
              builder = "/bin/sh"; args = [ "-c" "set -e; echo going; /bin/sleep 1; echo 1 > $out" ]; }; }; }"#,
        );
        let running = site.start(&["run", "--json"]);
        let (_, daemon) = wait_until("a sleeping builder", || sleeper(&site, running.pid()));
        assert!(daemon.cmdline.contains("nix-daemon"), "{daemon:?}");
        signal(daemon.pid, "KILL");
        let ran = running.wait();
        let document = ran.expect(0).json();
        assert_eq!((&document["counts"]["attempts"], &document["counts"]["drvs_built"]), (&2.into(), &1.into()));
        let ends: Vec<String> = site.events().of("attempt_ended").iter().map(|end| end["end"].to_string()).collect();
        assert_eq!(ends, ["\"failed\"", "\"built\""]);
        site.expect_no_process(Duration::from_secs(1));
    });
}

#[test]
fn an_import_from_a_derivation_ends_with_its_run() {
    each_nix(|nix| {
        let site = Site::of(
            Lab::chroot(nix),
            r#"{ outputs = { self }: let
              build = name: script: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh";
                args = [ "-c" "set -e; ${script}" ]; };
            in { packages.x86_64-linux.slow = import (build "slow.nix" "/bin/sleep 60; echo 1 > $out"); }; }"#,
        );
        for name in ["INT", "KILL"] {
            let running = site.start(&["run"]);
            // It is drover that builds it, not the evaluator.
            let (_, daemon) = wait_until("a sleeping builder", || sleeper(&site, running.pid()));
            assert!(daemon.cmdline.contains("nix-daemon"), "{daemon:?}");
            running.signal(name);
            let ran = running.wait();
            assert_eq!(ran.code, (name == "INT").then_some(130));
            site.expect_no_process(Duration::from_secs(2));
        }
    });
}
