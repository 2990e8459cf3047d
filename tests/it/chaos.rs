//! Chaos: run after run while builders, caches, daemons, lines and drover itself break at random. After each, what was
//! said is true and nothing is left behind; in the end a run makes everything whole.
//!
//! `tests/chaos` starts it. `DROVER_TEST_MINUTES` says for how long, `DROVER_TEST_SEED` with which numbers; when
//! exactly things break depends on the machine besides. What is found lies in `target/chaos` afterwards.
#![allow(clippy::print_stderr, reason = "somebody watches it")]
#![expect(clippy::disallowed_methods, reason = "it goes on for as long as the environment says")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::chaos::Place;
use crate::support::chaos::after::{self, Ended};
use crate::support::chaos::hand::Hand;
use crate::support::package_set::random::Random;
use crate::support::site::{Ran, base, start, statuses};
use crate::support::sshd::signal;

/// How long things break in one round.
const BREAKING: Duration = Duration::from_secs(12);

/// How long a run may go on once all is well, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(240);

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Where findings are put.
fn findings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/chaos")
}

#[test]
#[ignore = "takes as long as it is told to: tests/chaos"]
fn whatever_breaks_what_is_said_is_true_and_the_next_run_goes_on() {
    let minutes = number_of("DROVER_TEST_MINUTES").unwrap_or(3);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number_of("DROVER_TEST_SEED").unwrap_or(clock.as_nanos() as u64);
    eprintln!("DROVER_TEST_SEED={seed} DROVER_TEST_MINUTES={minutes}");
    let _ = fs::remove_dir_all(findings());
    let mut random = Random::new(seed);
    let mut place = Place::new();
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let (mut rounds, mut wrong) = (0, 0);
    while Instant::now() < until {
        rounds += 1;
        wrong += round(&mut place, &mut random, rounds).len();
    }
    let last = whole_again(&place);
    last.iter().for_each(|text| eprintln!("WRONG in the end: {text}"));
    eprintln!("{rounds} rounds, {wrong} wrong, {} wrong in the end", last.len());
    assert!(wrong == 0 && last.is_empty(), "see above, and {}", findings().display());
}

/// The words of one drover, drawn by lot.
fn words(place: &Place, random: &mut Random) -> Vec<String> {
    let mut words: Vec<String> = ["run", "--json", "--builder-wait", "5"].map(str::to_owned).to_vec();
    let mut add = |chance: usize, more: &[&str]| {
        if random.below(100) < chance {
            words.extend(more.iter().map(|word| (*word).to_owned()));
        }
    };
    add(70, &["--exclude", "packages.*.bad*"]);
    add(80, &["--push-to", &place.push_url()]);
    add(20, &["--no-download"]);
    add(50, &["-j", "0"]);
    add(20, &["--eval-workers", "2"]);
    words
}

/// One round; gives what is wrong afterwards.
fn round(place: &mut Place, random: &mut Random, number: u32) -> Vec<String> {
    if random.below(100) < 60 {
        place.salt(&format!("{number}\n"));
    }
    let count = if random.below(100) < 20 { 2 } else { 1 };
    let all: Vec<Vec<String>> = (0..count).map(|_| words(place, random)).collect();
    let (tell, told) = mpsc::channel();
    let mut pids = Vec::new();
    let begin = |args: &Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let running = start(place.command(&args), &args);
        pids.push(running.pid());
        let (tell, pid) = (tell.clone(), running.pid());
        std::thread::spawn(move || tell.send((pid, running.wait())))
    };
    let threads: Vec<_> = all.iter().map(begin).collect();
    let mut ended: Vec<(u32, Ran)> = Vec::new();
    let mut hand = Hand::new(random, &pids);
    let over = Instant::now() + BREAKING;
    while Instant::now() < over && ended.len() < count {
        ended.extend(told.recv_timeout(hand.pause()));
        hand.mend(place);
        if ended.len() < count {
            hand.strike(place);
        }
    }
    hand.mend_all(place);
    let mut wrong = Vec::new();
    let patience = Instant::now() + PATIENCE;
    while ended.len() < count {
        let left = patience.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        match told.recv_timeout(left) {
            Ok(one) => ended.push(one),
            Err(_) if !wrong.is_empty() => {}
            Err(_) => {
                wrong.push(format!("it does not end, {PATIENCE:?} after all was well\n{}", everybody()));
                pids.iter()
                    .filter(|pid| ended.iter().all(|(other, _)| other != *pid))
                    .for_each(|pid| signal(*pid, "KILL"));
            }
        }
    }
    threads.into_iter().for_each(|thread| drop(thread.join()));
    let (drovers, story, collected) = (hand.drovers, hand.story, hand.collected);
    let mut said = Vec::new();
    for (pid, ran) in ended {
        let at = pids.iter().position(|other| *other == pid).unwrap();
        let one = Ended { ran, drover: drovers[at], args: all[at].clone() };
        said.push(format!("drover {:?}\n{:?}\n{}\n{}", one.args, one.ran.code, one.ran.stderr, one.ran.out()));
        wrong.extend(one.wrong(place, collected));
        eprintln!("round {number}: {:?}{}", one.ran.code, if drovers[at].killed { ", killed" } else { "" });
    }
    wrong.extend(after::wrong_processes(place));
    wrong.extend(after::wrong_cache(place));
    let list = place.site.drover(&["report", "list"]);
    if list.code != Some(0) {
        wrong.push(format!("the records cannot be listed: {}", list.stderr));
    }
    if !wrong.is_empty() {
        keep(place, number, &[story, said, wrong.clone()].concat().join("\n"));
        wrong.iter().for_each(|text| eprintln!("WRONG in round {number}: {text}"));
    }
    wrong
}

/// What every process of this machine is doing.
fn everybody() -> String {
    let ps = Command::new("ps").args(["-eo", "pid,ppid,stat,wchan:24,args"]).output();
    ps.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Keeps what tells of a finding.
fn keep(place: &Place, number: u32, story: &str) {
    let dir = findings().join(format!("round-{number}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("story"), story).unwrap();
    for run in place.site.runs().iter().rev().take(2) {
        let name = run.file_name().unwrap().to_string_lossy().into_owned();
        let _ = fs::copy(run.join("events.jsonl"), dir.join(format!("{name}.jsonl")));
    }
}

/// Everything works again: one run makes all of it, and Nix finds nothing wrong anywhere.
fn whole_again(place: &Place) -> Vec<String> {
    let url = place.push_url();
    let args = ["run", "--json", "--exclude", "packages.*.bad*", "--push-to", &url];
    let ran = start(place.command(&args), &args).wait();
    let mut wrong = Vec::new();
    if ran.code != Some(0) {
        wrong.push(format!("it ends with {:?}: {}\n{}", ran.code, ran.stderr, ran.out()));
    } else {
        let document = ran.json();
        let attrs = document["attrs"].as_array().unwrap().iter();
        let wanted = attrs.filter_map(|attr| attr["outputs"]["out"].as_str()).map(base);
        let records = place.records();
        let lost: Vec<String> = wanted.filter(|name| !records.contains_key(name)).collect();
        if !lost.is_empty() {
            wrong.push(format!("not in the cache: {lost:?}"));
        }
        let all: BTreeSet<String> = statuses(&document).into_values().collect();
        eprintln!("in the end: {all:?}, {} paths in the cache", records.len());
    }
    wrong.extend(after::wrong_processes(place));
    wrong.extend(after::wrong_files(place));
    wrong.extend(after::wrong_cache(place));
    wrong.extend(after::wrong_to_nix(place));
    wrong.extend(after::wrong_store(&place.site.lab, "the coordinator's store"));
    for (number, builder) in place.farm.builders.iter().enumerate() {
        wrong.extend(after::wrong_store(&builder.lab, &format!("the store of b{number}")));
    }
    wrong
}
