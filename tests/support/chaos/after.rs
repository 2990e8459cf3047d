//! What must be true once the drovers of a round have ended, whatever was done to them; and of everything at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::super::deadline::Deadline;
use super::super::nix::Lab;
use super::super::site::{Events, Process, Ran, base, statuses};
use super::Place;
use super::hand::Drover;

/// How long those may live on that work for a drover, once it has ended and all is well.
const AFTER: Duration = Duration::from_secs(10);

/// What it may be: the code, and the classes of failures that lead to it. The first that applies is the one.
const CODES: [(i32, &[&str]); 5] = [
    (130, &["cancelled"]),
    (70, &["internal"]),
    (3, &["eval", "oom"]),
    (
        1,
        &[
            "build",
            "signal",
            "no_output",
            "hash_mismatch",
            "disallowed_reference",
            "timeout",
            "silent",
            "log_limit",
            "dependency",
            "policy",
        ],
    ),
    (4, &["disk_full", "no_builder", "builder_lost", "network", "cache", "signature"]),
];

/// One drover that has ended.
pub struct Ended {
    pub ran: Ran,
    pub drover: Drover,
    /// The words that it was started with.
    pub args: Vec<String>,
}

impl Ended {
    fn was_told(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }

    /// All that is wrong with how it ended.
    pub fn wrong(&self, place: &Place, collected: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.ran.stderr.contains("panicked") || self.ran.code == Some(70) {
            wrong.push(format!("it has a bug: {:?}", self.ran.code));
        }
        match self.ran.code {
            None if self.drover.killed => return wrong,
            // The signal came before it had said, or begun, anything.
            None if self.drover.stopped && self.ran.stdout.is_empty() && !self.ran.stderr.contains("stopping") => {
                return wrong;
            }
            None => wrong.push("it was killed, and not by us".to_owned()),
            Some(130) if !self.drover.stopped => wrong.push("it says that it was interrupted".to_owned()),
            Some(0 | 1 | 4 | 5 | 130) => {}
            // Whoever is stopped before there is any document has said all.
            Some(code) => wrong.push(format!("it ends with {code}")),
        }
        match serde_json::from_slice::<Value>(&self.ran.stdout) {
            Ok(document) => wrong.extend(self.wrong_of(place, &document, collected)),
            // It was stopped, or could not go on, before anything had begun.
            Err(_) if self.ran.code == Some(130) && self.ran.stdout.is_empty() => {}
            Err(_) if self.ran.stdout.is_empty() && self.ran.stderr.contains("nothing was built") => {}
            Err(error) => wrong.push(format!("its document cannot be read: {error}")),
        }
        wrong
    }

    fn wrong_of(&self, place: &Place, document: &Value, collected: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let run = document["run"].as_str().unwrap_or_default();
        let file = place.site.state().join("runs").join(run).join("events.jsonl");
        let Ok(events) = catch_unwind(|| Events::read(&file)) else {
            return vec![format!("its record cannot be read: {}", file.display())];
        };
        // Whoever says "now" does not wait for what attempts come to.
        let at_once = events.of("cancelled").iter().any(|event| event["level"] == 2);
        if !at_once && catch_unwind(AssertUnwindSafe(|| events.expect_each_once())).is_err() {
            wrong.push("an attempt or a drv has no end, or more than one".to_owned());
        }
        let last = events.0.last().cloned().unwrap_or_default();
        if last["event"] != "run_ended" || last["exit"].as_i64() != self.ran.code.map(i64::from) {
            wrong.push(format!("the record ends with {last}"));
        }
        let expected = expected_code(&events);
        if document["error"].is_null() && Some(expected) != self.ran.code {
            wrong.push(format!("by what it recorded it ends with {expected}"));
        }
        let again = place.site.drover(&["report", run, "--format", "json"]);
        match serde_json::from_slice::<Value>(&again.stdout) {
            Ok(again) if again == *document => {}
            Ok(_) => wrong.push("the record says something else than the document".to_owned()),
            Err(_) => wrong.push(format!("the record cannot be reported: {}", again.stderr)),
        }
        wrong.extend(wrong_failures(&events));
        wrong.extend(wrong_counts(&events, document));
        wrong.extend(self.wrong_attrs(place, document, collected));
        let records = place.records();
        let pushed = events.of("push_ended").into_iter().filter(|event| event["push"] != "failed");
        let lost: Vec<String> = pushed
            .map(|event| base(event["path"].as_str().unwrap_or_default()))
            .filter(|name| !records.contains_key(name))
            .collect();
        if !lost.is_empty() {
            wrong.push(format!("pushed, and the cache does not have it: {lost:?}"));
        }
        wrong
    }

    /// What it says of attrs is true of the store and the cache.
    fn wrong_attrs(&self, place: &Place, document: &Value, collected: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let records = place.records();
        let complete = self.was_told("--push-to");
        let home = !self.was_told("--no-download") && !collected;
        let mut here = Vec::new();
        for attr in document["attrs"].as_array().into_iter().flatten() {
            let (name, status) = (&attr["attr"], attr["status"].as_str().unwrap_or("null"));
            let done = ["built", "cached", "valid"].contains(&status);
            let outputs = attr["outputs"].as_object().into_iter().flatten();
            let outputs: Vec<String> = outputs.filter_map(|(_, path)| path.as_str().map(str::to_owned)).collect();
            if self.ran.code == Some(0) && !done {
                wrong.push(format!("exit 0, and {name} is {status}"));
            }
            let said = [&attr["error"]["message"], &attr["reason"], &document["error"]["message"]];
            let said = said.into_iter().any(|text| text.as_str().is_some_and(|text| !text.is_empty()));
            if !done && self.ran.code != Some(130) && !said {
                wrong.push(format!("{name} is {status} for no reason"));
            }
            if self.ran.code == Some(0) && complete && attr["pushed"].as_object().is_none_or(|all| all.is_empty()) {
                wrong.push(format!("{name} was not pushed anywhere"));
            }
            for (_, said) in attr["pushed"].as_object().into_iter().flatten() {
                let there = outputs.iter().all(|path| records.contains_key(&base(path)));
                if said == "complete" && !there || self.ran.code == Some(0) && said != "complete" {
                    wrong.push(format!(
                        "pushed {said}, and the cache has {} of it: {name}",
                        ["not all", "all"][usize::from(there)]
                    ));
                }
            }
            if ["built", "valid"].contains(&status) && home {
                here.extend(outputs);
            }
        }
        let lost: Vec<String> = invalid(&place.site.lab, &here);
        if !lost.is_empty() {
            wrong.push(format!("should be in this store, and is not: {lost:?}"));
        }
        wrong
    }
}

/// Those of these paths that are not valid.
fn invalid(lab: &Lab, paths: &[String]) -> Vec<String> {
    if paths.is_empty() {
        return Vec::new();
    }
    let output = lab.command("nix-store").arg("--check-validity").arg("--print-invalid").args(paths).output();
    String::from_utf8_lossy(&output.unwrap().stdout).lines().map(str::to_owned).collect()
}

/// The code that follows from the facts, by the table.
fn expected_code(events: &Events) -> i32 {
    let mut classes: BTreeSet<String> = BTreeSet::new();
    // Of each path the last word counts: what was lost with its builder is made again, and pushed then.
    let mut pushed: BTreeMap<String, bool> = BTreeMap::new();
    let mut push = false;
    for event in &events.0 {
        let class = |value: &Value| value["class"].as_str().map(str::to_owned);
        match event["event"].as_str().unwrap_or_default() {
            "cancelled" => classes.extend(["cancelled".to_owned()]),
            "eval_ended" => classes.extend(class(&event["evaluated"])),
            "drv_ended" if event["outcome"] == "failed" => classes.extend(class(event)),
            "attr_ended" if event["status"] == "failed" && event["root"].is_null() => {
                classes.extend(["network".to_owned()]);
            }
            "push_ended" => {
                pushed.insert(format!("{} {}", event["cache"], event["path"]), event["push"] == "failed");
            }
            "push_verified" => push |= event["missing"].as_array().is_some_and(|missing| !missing.is_empty()),
            _ => {}
        }
    }
    let of = |(code, names): &(i32, &[&str])| names.iter().any(|name| classes.contains(*name)).then_some(*code);
    push |= pushed.values().any(|failed| *failed);
    CODES.iter().find_map(of).unwrap_or(if push { 5 } else { 0 })
}

/// Only what is meant to fail fails by itself: nobody else's trouble is a verdict on a drv.
fn wrong_failures(events: &Events) -> Vec<String> {
    let failed = events.of("drv_ended").into_iter().filter(|event| event["outcome"] == "failed");
    let verdicts = failed.filter(|event| CODES[3].1.iter().any(|class| event["class"] == *class));
    let undeserved = verdicts.filter(|event| !events.drv_name(event).starts_with("bad"));
    let mut wrong: Vec<String> =
        undeserved.map(|event| format!("{} failed, and is not meant to: {event}", events.drv_name(event))).collect();
    let evaluated = events.of("eval_ended").into_iter().filter(|event| !event["evaluated"]["class"].is_null());
    wrong.extend(evaluated.map(|event| format!("what evaluates failed to: {event}")));
    wrong
}

/// The numbers at the end are those of the events.
fn wrong_counts(events: &Events, document: &Value) -> Vec<String> {
    let ended = |outcome: &str| {
        let ended = events.of("drv_ended").into_iter().filter(|event| event["outcome"] == outcome);
        ended.map(|event| event["drv"].as_u64()).collect::<BTreeSet<_>>().len()
    };
    let by_status: BTreeMap<String, usize> =
        statuses(document).into_values().fold(BTreeMap::new(), |mut all, status| {
            *all.entry(status).or_default() += 1;
            all
        });
    let counts = &document["counts"];
    let number = |name: &str| counts[name].as_u64().unwrap_or(u64::MAX) as usize;
    let mut wrong = Vec::new();
    if number("attempts") != events.of("attempt_started").len() {
        wrong.push(format!(
            "{} attempts began, and it counts {}",
            events.of("attempt_started").len(),
            number("attempts")
        ));
    }
    if number("drvs_built") > ended("built") || number("drvs_failed") > ended("failed") {
        wrong.push(format!("{} were built, {} failed, and it counts {counts}", ended("built"), ended("failed")));
    }
    for (status, count) in by_status.into_iter().filter(|(status, _)| status != "null") {
        if counts["attrs_by_status"][&status].as_u64() != Some(count as u64) {
            wrong.push(format!("{count} attrs are {status}, and it counts {counts}"));
        }
    }
    wrong
}

/// Nobody works for a drover any more: not here, and not on a builder.
pub fn wrong_processes(place: &Place) -> Vec<String> {
    let left = || -> Vec<String> {
        let daemon = place.daemon();
        let show = |process: Process| format!("here: {} {}", process.pid, process.cmdline);
        let here = place.site.processes().into_iter().filter(|process| Some(process.pid) != daemon).map(show);
        let line = |pid: u32| {
            let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("{pid} {}", String::from_utf8_lossy(&bytes).replace('\0', " "))
        };
        let there =
            place.farm.builders.iter().enumerate().flat_map(|(n, builder)| {
                builder.processes().into_iter().map(move |pid| format!("on b{n}: {}", line(pid)))
            });
        here.chain(there).collect()
    };
    let deadline = Deadline::after(AFTER);
    loop {
        let left = left();
        if left.is_empty() {
            return Vec::new();
        }
        if deadline.is_over() {
            return vec![format!("left behind: {left:#?}")];
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Files that nobody but a drover at work has any use for.
pub fn wrong_files(place: &Place) -> Vec<String> {
    let temporary =
        |name: &str| name.starts_with("drover-") || name.starts_with(".drover-") || name.starts_with(".tmp");
    let lab = &place.site.lab;
    let dirs = [lab.path("tmp"), place.site.state(), lab.path("cache"), place.site.flake.clone()];
    let entries = dirs.iter().flat_map(|dir| walkdir::WalkDir::new(dir).max_depth(4).into_iter().flatten());
    let left = entries.filter(|entry| temporary(&entry.file_name().to_string_lossy()));
    left.map(|entry| format!("left behind: {}", entry.path().display())).collect()
}

/// Every record in the cache has its NAR, and a record for each reference.
pub fn wrong_cache(place: &Place) -> Vec<String> {
    let records = place.records();
    let mut wrong = Vec::new();
    for (name, text) in &records {
        let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        if !place.cache.root().join(line("URL: ")).is_file() {
            wrong.push(format!("{name} is in the cache without its NAR"));
        }
        let missing = line("References: ").split_whitespace().filter(|path| !records.contains_key(*path));
        wrong.extend(missing.map(|path| format!("{name} is in the cache without {path}")));
    }
    wrong
}

/// What Nix itself says of a store, with all that is in it.
pub fn wrong_store(lab: &Lab, name: &str) -> Vec<String> {
    let mut command = lab.command("nix-store");
    command.args(["--verify", "--check-contents"]);
    judge(command, name, &["disappeared", "modified", "missing", "error"])
}

/// What Nix itself says of the cache: contents, and signatures.
pub fn wrong_to_nix(place: &Place) -> Vec<String> {
    let mut command = place.site.lab.bare_command("nix");
    let store = format!("file://{}", place.cache.root().display());
    command.args(["store", "verify", "--store", &store, "--all", "--sigs-needed", "1"]);
    command.args(["--option", "trusted-public-keys", &place.key.public]);
    judge(command, "the cache", &["error", "untrusted", "modified"])
}

fn judge(mut command: Command, name: &str, bad: &[&str]) -> Vec<String> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let fine = output.status.success() && !bad.iter().any(|word| said.contains(word));
    if fine { Vec::new() } else { vec![format!("{name}: {:?} {said}", output.status.code())] }
}
