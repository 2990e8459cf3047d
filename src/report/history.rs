//! How long things took before: for each package and system the build times of the last runs, and for each attr the
//! times that its evaluation took, in one small file of the state directory (`share/history.json`), so that a start need not
//! read records.
//!
//! Keyed by package name and system, not by hash: a new version usually takes as long as the one before. Attrs go by
//! their full path, whatever flake they are of.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::event::{AttemptEnd, Status};
use crate::id::System;

use super::estimate::Checked;
use super::number::pname;
use super::stats::quantile;
use super::summary::{Builder, Summary};

/// Build times kept for each package.
const TIMES: usize = 9;

/// A package that was not built in this many runs is forgotten.
const RUNS: u32 = 20;

/// Evaluation times kept for each attr.
const EVAL_TIMES: usize = 3;

/// An attr that was not evaluated in this many runs that evaluated something is forgotten. They may be of other flakes.
const EVAL_RUNS: u32 = 100;

/// The largest file that is read, and the largest that is written: it lies in a folder that is carried around.
const MAX_FILE: u64 = 32 << 20;
const MAX_WRITTEN: usize = 4_000_000;

/// Estimates that are kept, and how many of them say by how much the next may be wrong.
const ESTIMATES: usize = 20;
const ENOUGH_ESTIMATES: usize = 5;

/// Seconds that a run has to take from its estimate on: in less, other things count than what builds take.
const ESTIMATED: f64 = 10.0;

/// Version of the file.
const VERSION: u32 = 1;

/// Build times of earlier runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    version: u32,
    /// Runs that built something, counted.
    run: u32,
    /// `SYSTEM PNAME` → the run in which it was last built, and its last build times in ms, the newest last.
    times: BTreeMap<String, (u32, Vec<u32>)>,
    /// Runs that evaluated something, counted.
    #[serde(default)]
    eval_run: u32,
    /// Attr → the run in which it was last evaluated, and the last times in ms, the newest last.
    #[serde(default)]
    evals: BTreeMap<String, (u32, Vec<u32>)>,
    /// Attrs that failed the last time that they were tried.
    #[serde(default)]
    failed: BTreeSet<String>,
    /// Shares by which the estimates of the last runs were wrong, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    estimates: Vec<f64>,
}

impl History {
    /// Reads the history of a state directory. A missing, damaged or newer file is no history.
    #[must_use]
    pub fn load(state_dir: &Path) -> Self {
        let read = |path: &Path| -> Option<Self> {
            if std::fs::metadata(path).ok()?.len() > MAX_FILE {
                return None;
            }
            let history: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
            (history.version == VERSION).then_some(history)
        };
        let known = read(&file(state_dir)).or_else(|| read(&earlier_file(state_dir)));
        known.unwrap_or(Self { version: VERSION, ..Self::default() })
    }

    /// Writes it so that a reader sees the old or the new file. Of two drovers that end at once, the later wins. What is
    /// too much for one file is forgotten, the oldest first.
    ///
    /// # Errors
    /// If the state directory cannot be written.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let path = file(state_dir);
        let dir = path.parent().unwrap_or(state_dir);
        std::fs::create_dir_all(dir)?;
        let mut file_now = tempfile::NamedTempFile::new_in(dir)?;
        file_now.write_all(&self.bounded(MAX_WRITTEN)?)?;
        file_now.persist(&path).map_err(|e| e.error)?;
        // One that an earlier drover wrote is in it.
        let _ = std::fs::remove_file(earlier_file(state_dir));
        Ok(())
    }

    /// As JSON of at most `most` bytes.
    fn bounded(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut json = serde_json::to_vec(self).map_err(io::Error::from)?;
        let mut left = self.clone();
        while json.len() > most && !(left.times.is_empty() && left.evals.is_empty()) {
            forget_half(&mut left.times);
            forget_half(&mut left.evals);
            json = serde_json::to_vec(&left).map_err(io::Error::from)?;
        }
        Ok(json)
    }

    /// Takes in what a run has evaluated and built; also of one that failed or was stopped.
    pub fn fold(&mut self, summary: &Summary) {
        self.fold_evals(summary);
        self.fold_failed(summary);
        let mut built = false;
        for attempt in summary.attempts.values() {
            let Some(drv) = summary.drvs.get(&attempt.drv) else { continue };
            let Some((_, AttemptEnd::Built { .. })) = attempt.ended else { continue };
            let known = self.times.entry(key(&drv.name, &drv.system)).or_default();
            // Times are those of a builder with a speed of 1, whoever built it.
            let speed = summary.builders.get(&attempt.builder).map_or(1.0, Builder::speed);
            push(known, self.run.saturating_add(1), attempt.seconds(summary.end) * speed, TIMES);
            built = true;
        }
        if built {
            self.run = self.run.saturating_add(1);
            let oldest = self.run.saturating_sub(RUNS);
            self.times.retain(|_, (last, _)| *last > oldest);
        }
    }

    /// Takes in how far the estimate of a run was from what then happened.
    pub fn fold_estimate(&mut self, checked: &Checked) {
        let off = ((checked.took - checked.expected) / checked.expected).abs();
        if checked.took >= ESTIMATED && off.is_finite() {
            self.estimates.push(off);
            let much = self.estimates.len().saturating_sub(ESTIMATES);
            self.estimates.drain(..much);
        }
    }

    /// The share by which nine of ten estimates were wrong at most; `None` of too few.
    #[must_use]
    pub fn estimates_off(&self) -> Option<f64> {
        quantile(&self.estimates, 0.9).filter(|_| self.estimates.len() >= ENOUGH_ESTIMATES)
    }

    /// Takes in what another machine has learned since both knew the same, as the rows of a CI matrix do: of each package
    /// and attr the times of whoever saw it in the later run.
    pub fn absorb(&mut self, other: &Self) {
        later(&mut self.times, &other.times);
        later(&mut self.evals, &other.evals);
        self.run = self.run.max(other.run);
        self.eval_run = self.eval_run.max(other.eval_run);
    }

    fn fold_failed(&mut self, summary: &Summary) {
        for attr in summary.attrs.values() {
            match summary.status(attr) {
                None | Some(Status::Skipped | Status::Unaffected | Status::ToBuild | Status::ToFetch) => {}
                Some(Status::Failed | Status::EvalFailed) => drop(self.failed.insert(attr.path.to_string())),
                Some(Status::Built | Status::Cached | Status::Valid | Status::Checked) => {
                    self.failed.remove(&attr.path.to_string());
                }
            }
        }
        // What is not evaluated any more is forgotten with its times.
        self.failed.retain(|attr| self.evals.contains_key(attr));
    }

    fn fold_evals(&mut self, summary: &Summary) {
        let mut evaluated = false;
        for attr in summary.attrs.values() {
            let Some(seconds) = attr.eval_seconds() else { continue };
            let known = self.evals.entry(attr.path.to_string()).or_default();
            push(known, self.eval_run.saturating_add(1), seconds, EVAL_TIMES);
            evaluated = true;
        }
        if evaluated {
            self.eval_run = self.eval_run.saturating_add(1);
            let oldest = self.eval_run.saturating_sub(EVAL_RUNS);
            self.evals.retain(|_, (last, _)| *last > oldest);
        }
    }

    /// The seconds that the evaluation of each attr took, by its full path. Of an even number of times the middle one
    /// that is less: whatever is evaluated first pays for what it shares with the rest.
    #[must_use]
    pub fn eval_seconds(&self) -> BTreeMap<String, f64> {
        let median = |times: &Vec<u32>| {
            let mut times = times.clone();
            times.sort_unstable();
            times.get(times.len().saturating_sub(1) / 2).map(|ms| f64::from(*ms) / 1000.0)
        };
        self.evals.iter().filter_map(|(attr, (_, times))| Some((attr.clone(), median(times)?))).collect()
    }

    /// Attrs that failed the last time that they were tried, by their full path.
    #[must_use]
    pub fn failed(&self) -> &BTreeSet<String> {
        &self.failed
    }

    /// The median of the seconds that a drv of this name took on this system, whatever its version, for a builder with a
    /// speed of 1.
    #[must_use]
    pub fn expected(&self, name: &str, system: &System) -> Option<f64> {
        let (_, times) = self.times.get(&key(name, system))?;
        let mut times = times.clone();
        times.sort_unstable();
        let middle = times.len() / 2;
        let upper = f64::from(*times.get(middle)?);
        let median = if times.len() % 2 == 1 { upper } else { (f64::from(times[middle - 1]) + upper) / 2.0 };
        Some(median / 1000.0)
    }

    /// A guess for a drv of this name whose time on its own system is not known: the longest on another.
    #[must_use]
    pub fn guess(&self, name: &str) -> Option<f64> {
        let mut longest: Option<f64> = None;
        let mut from = String::new();
        // Keys are sorted by system: from each, one step leads to the next.
        while let Some((key, _)) = self.times.range(std::mem::take(&mut from)..).next() {
            let Some((system, _)) = key.split_once(' ') else { break };
            let seconds = self.expected(name, &System(system.into()));
            longest = longest.into_iter().chain(seconds).reduce(f64::max);
            // The character after the space.
            from = format!("{system}!");
        }
        longest
    }

    /// The median of all packages, for those that were never built anywhere.
    #[must_use]
    pub fn typical(&self) -> Option<f64> {
        let newest = self.times.values().filter_map(|(_, times)| times.last());
        let mut newest: Vec<u32> = newest.copied().collect();
        newest.sort_unstable();
        newest.get(newest.len() / 2).map(|ms| f64::from(*ms) / 1000.0)
    }

    /// Whether nothing is known yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

/// Takes each entry that is of a later run.
fn later(known: &mut BTreeMap<String, (u32, Vec<u32>)>, other: &BTreeMap<String, (u32, Vec<u32>)>) {
    for (name, (run, times)) in other {
        if known.get(name).is_none_or(|(last, _)| last < run) {
            known.insert(name.clone(), (*run, times.clone()));
        }
    }
}

/// Adds one more time, of this run, and forgets the oldest.
fn push((last, times): &mut (u32, Vec<u32>), run: u32, seconds: f64, most: usize) {
    *last = run;
    times.push((seconds * 1000.0).round().min(f64::from(u32::MAX)) as u32);
    if times.len() > most {
        times.remove(0);
    }
}

/// Beside the records of evaluations: both may be carried to other machines. What strangers write into it changes in
/// which order things are done, and nothing else.
fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("share").join("history.json")
}

/// Where it was before.
fn earlier_file(state_dir: &Path) -> PathBuf {
    state_dir.join("history.json")
}

/// Keeps the newer half.
fn forget_half(known: &mut BTreeMap<String, (u32, Vec<u32>)>) {
    let mut runs: Vec<u32> = known.values().map(|(last, _)| *last).collect();
    runs.sort_unstable();
    let middle = runs.get(runs.len() / 2).copied().unwrap_or(0);
    let mut room = known.len() / 2;
    known.retain(|_, (last, _)| {
        let keeps = *last >= middle && room > 0;
        room -= usize::from(keeps);
        keeps
    });
}

fn key(name: &str, system: &System) -> String {
    format!("{system} {}", pname(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Evaluated, Event, Fact, Moment};
    use crate::id::{AttemptId, AttrId, BuilderId, DrvId, Kind};

    fn run_of(name: &str, seconds: f64) -> Summary {
        let facts = [
            (0.0, needed(name)),
            (1.0, Fact::AttemptStarted { attempt: AttemptId(0), drv: DrvId(0), builder: BuilderId(0) }),
            (2.0, Fact::AttemptBuilding { attempt: AttemptId(0) }),
            (
                2.0 + seconds,
                Fact::AttemptEnded {
                    attempt: AttemptId(0),
                    end: AttemptEnd::Built { outputs: vec![] },
                    log_lines: 0,
                    log_tail: vec![],
                },
            ),
        ];
        let events: Vec<Event> =
            facts.into_iter().map(|(at, fact)| Event { seq: 0, at: Moment::from_seconds(at), fact }).collect();
        Summary::of(&events)
    }

    fn needed(name: &str) -> Fact {
        Fact::DrvNeeded {
            drv: DrvId(0),
            path: "/nix/store/x.drv".into(),
            name: name.into(),
            system: "x86_64-linux".into(),
            inputs: vec![],
            fetch: false,
            opaque: false,
            features: Vec::new(),
            attr: None,
            expected: None,
            outputs: vec![],
        }
    }

    #[test]
    fn the_median_of_a_package_survives_a_new_version_and_a_restart() {
        let state = tempfile::tempdir().unwrap();
        for (version, seconds) in [("1.0", 10.0), ("1.1", 12.0), ("1.2", 100.0)] {
            let mut history = History::load(state.path());
            history.fold(&run_of(&format!("linux-{version}"), seconds));
            history.save(state.path()).unwrap();
        }
        let history = History::load(state.path());
        assert_eq!(history.expected("linux-9.9", &"x86_64-linux".into()), Some(12.0));
        assert_eq!(history.expected("linux-9.9", &"aarch64-linux".into()), None);
        assert_eq!(history.expected("linux-headers-9.9", &"x86_64-linux".into()), None);
        assert_eq!((history.guess("linux-9.9"), history.guess("linux-headers-9.9")), (Some(12.0), None));
        assert_eq!(history.typical(), Some(100.0));
    }

    #[test]
    fn what_several_machines_learned_is_put_together() {
        let mut common = History::default();
        common.fold(&run_of("linux-6.1", 100.0));
        let learned = |name: &str, seconds: f64| {
            let mut history = common.clone();
            history.fold(&run_of(name, seconds));
            history
        };
        let (one, other) = (learned("nginx-1.2", 60.0), learned("linux-6.2", 200.0));
        let mut all = common.clone();
        all.absorb(&one);
        all.absorb(&other);
        let system = System::from("x86_64-linux");
        assert_eq!(all.expected("nginx-1.3", &system), Some(60.0));
        assert_eq!(all.expected("linux-6.3", &system), other.expected("linux-6.3", &system));
        assert_eq!(all.run, 2);
        let before = all.clone();
        all.absorb(&common);
        assert_eq!(all, before, "what is older changes nothing");
    }

    #[test]
    fn the_file_of_an_earlier_drover_is_taken_over() {
        let state = tempfile::tempdir().unwrap();
        let mut history = History::load(state.path());
        history.fold(&run_of("linux-1", 10.0));
        std::fs::write(state.path().join("history.json"), serde_json::to_vec(&history).unwrap()).unwrap();
        let mut history = History::load(state.path());
        assert_eq!(history.expected("linux-2", &"x86_64-linux".into()), Some(10.0));
        history.fold(&run_of("linux-2", 10.0));
        history.save(state.path()).unwrap();
        assert!(!state.path().join("history.json").exists());
        assert_eq!(History::load(state.path()), history);
    }

    #[test]
    fn a_history_that_is_too_large_forgets_what_is_oldest() {
        let mut history = History::load(Path::new("nowhere"));
        for number in 0..100 {
            history.times.insert(format!("x86_64-linux p{number}"), (number, vec![1]));
        }
        let json = history.bounded(2000).unwrap();
        assert!(json.len() <= 2000);
        let left: History = serde_json::from_slice(&json).unwrap();
        assert_eq!(left.times.values().map(|(last, _)| *last).min(), Some(50));
        assert_eq!(left.times.len(), 50);
        assert_eq!(
            history.bounded(10).unwrap(),
            serde_json::to_vec(&History { times: BTreeMap::new(), ..history }).unwrap()
        );
    }

    #[test]
    fn how_far_estimates_were_off_is_known_after_some_runs() {
        let mut history = History::default();
        let mut run = |expected, took| {
            history.fold_estimate(&Checked { at: 1.0, expected, error: None, took });
            history.estimates_off()
        };
        // Short runs, and those of which nothing was expected, say nothing.
        assert_eq!((run(1.0, 2.0), run(0.0, 20.0)), (None, None));
        for took in [110.0, 95.0, 100.0, 130.0] {
            assert_eq!(run(100.0, took), None);
        }
        // 0, 0.05, 0.1, 0.1, 0.3: six tenths of the way from the fourth to the fifth.
        let off = run(100.0, 90.0).unwrap();
        assert!((off - 0.22).abs() < 1e-9, "{off}");
        for _ in 0..ESTIMATES {
            run(100.0, 100.0);
        }
        assert_eq!(history.estimates_off(), Some(0.0));
    }

    #[test]
    fn what_is_not_built_any_more_is_forgotten() {
        let mut history = History::load(Path::new("nowhere"));
        history.fold(&run_of("old-1", 1.0));
        for _ in 0..RUNS {
            history.fold(&run_of("new-1", 1.0));
        }
        assert_eq!(history.times.len(), 1);
        assert_eq!(history.times.values().next().unwrap().1.len(), TIMES);
    }

    fn run_evaluating(name: &str, seconds: f64) -> Summary {
        let (attr, path) = (AttrId(0), format!("packages.x86_64-linux.{name}").parse().unwrap());
        let reason = "it has nothing to build".into();
        let facts = [
            (0.0, Fact::AttrListed { attr, path, kind: Kind::Packages, name: name.into() }),
            (1.0, Fact::EvalStarted { attr, worker: 0 }),
            (
                1.0 + seconds,
                Fact::EvalEnded { attr, evaluated: Evaluated::Nothing { reason }, peak: None, grown: None },
            ),
        ];
        let events: Vec<Event> =
            facts.into_iter().map(|(at, fact)| Event { seq: 0, at: Moment::from_seconds(at), fact }).collect();
        Summary::of(&events)
    }

    #[test]
    fn the_time_that_an_attr_takes_is_not_that_of_the_run_in_which_it_was_first() {
        let state = tempfile::tempdir().unwrap();
        for seconds in [4.0, 2.0] {
            let mut history = History::load(state.path());
            history.fold(&run_evaluating("a", seconds));
            history.save(state.path()).unwrap();
        }
        let mut history = History::load(state.path());
        assert_eq!(history.eval_seconds(), BTreeMap::from([("packages.x86_64-linux.a".to_owned(), 2.0)]));
        assert_eq!(history.expected("a", &"x86_64-linux".into()), None);
        for _ in 0..EVAL_RUNS {
            history.fold(&run_of("built-1", 1.0));
            history.fold(&run_evaluating("b", 1.0));
        }
        assert_eq!(history.eval_seconds().into_keys().collect::<Vec<_>>(), ["packages.x86_64-linux.b"]);
    }

    #[test]
    fn what_failed_is_known_until_it_does_not() {
        let path = "packages.x86_64-linux.a";
        let failing = |status: Status| {
            let mut summary = run_evaluating("a", 1.0);
            let fact = Fact::AttrEnded { attr: AttrId(0), status, reason: None, root: None };
            summary.add(&Event { seq: 3, at: Moment::from_seconds(3.0), fact });
            summary
        };
        let mut history = History::default();
        for (status, failed) in [
            (Status::Failed, true),
            (Status::Unaffected, true),
            (Status::Skipped, true),
            (Status::Built, false),
            (Status::EvalFailed, true),
            (Status::Checked, false),
        ] {
            history.fold(&failing(status));
            assert_eq!(history.failed().contains(path), failed, "{status:?}");
        }
    }

    #[test]
    fn a_history_without_evaluations_is_read() {
        let state = tempfile::tempdir().unwrap();
        let text = r#"{"version":1,"run":3,"times":{"x86_64-linux linux":[3,[7000]]}}"#;
        std::fs::write(state.path().join("history.json"), text).unwrap();
        let history = History::load(state.path());
        assert_eq!(history.expected("linux-6.1", &"x86_64-linux".into()), Some(7.0));
        assert!(history.eval_seconds().is_empty());
    }

    #[test]
    fn a_damaged_or_newer_file_is_no_history() {
        let state = tempfile::tempdir().unwrap();
        for text in ["{", "{\"version\":2,\"run\":1,\"times\":{}}", "[]"] {
            std::fs::create_dir_all(state.path().join("share")).unwrap();
            std::fs::write(state.path().join("share/history.json"), text).unwrap();
            assert!(History::load(state.path()).is_empty());
        }
    }
}
