//! How long things took before: for each package and system the build times of the last runs, in one small file of
//! the state directory (`history.json`), so that a start need not read records.
//!
//! Keyed by package name and system, not by hash: a new version usually takes as long as the one before.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::event::AttemptEnd;
use crate::id::System;

use super::number::pname;
use super::summary::Summary;

/// Build times kept for each package.
const TIMES: usize = 9;

/// A package that was not built in this many runs is forgotten.
const RUNS: u32 = 20;

/// The largest file that is read.
const MAX_FILE: u64 = 32 << 20;

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
}

impl History {
    /// Reads the history of a state directory. A missing, damaged or newer file is no history.
    #[must_use]
    pub fn load(state_dir: &Path) -> Self {
        let read = || -> Option<Self> {
            let path = file(state_dir);
            if std::fs::metadata(&path).ok()?.len() > MAX_FILE {
                return None;
            }
            let history: Self = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            (history.version == VERSION).then_some(history)
        };
        read().unwrap_or(Self { version: VERSION, ..Self::default() })
    }

    /// Writes it so that a reader sees the old or the new file. Of two drovers that end at once, the later wins.
    ///
    /// # Errors
    /// If the state directory is missing or cannot be written.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let mut file_now = tempfile::NamedTempFile::new_in(state_dir)?;
        file_now.write_all(&serde_json::to_vec(self).map_err(io::Error::from)?)?;
        file_now.persist(file(state_dir)).map_err(|e| e.error)?;
        Ok(())
    }

    /// Takes in what a run has built; also of one that failed or was stopped.
    pub fn fold(&mut self, summary: &Summary) {
        let mut built = false;
        for attempt in summary.attempts.values() {
            let Some(drv) = summary.drvs.get(&attempt.drv) else { continue };
            let Some((_, AttemptEnd::Built { .. })) = attempt.ended else { continue };
            let ms = (attempt.seconds(summary.end) * 1000.0).round().min(f64::from(u32::MAX)) as u32;
            let next = self.run.saturating_add(1);
            let (last, times) = self.times.entry(key(&drv.name, &drv.system)).or_default();
            *last = next;
            times.push(ms);
            if times.len() > TIMES {
                times.remove(0);
            }
            built = true;
        }
        if built {
            self.run = self.run.saturating_add(1);
            let oldest = self.run.saturating_sub(RUNS);
            self.times.retain(|_, (last, _)| *last > oldest);
        }
    }

    /// The median of the seconds that a drv of this name took on this system, whatever its version.
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

    /// Whether nothing is known yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("history.json")
}

fn key(name: &str, system: &System) -> String {
    format!("{system} {}", pname(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, Fact, Moment};
    use crate::id::{AttemptId, BuilderId, DrvId};

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

    #[test]
    fn a_damaged_or_newer_file_is_no_history() {
        let state = tempfile::tempdir().unwrap();
        for text in ["{", "{\"version\":2,\"run\":1,\"times\":{}}", "[]"] {
            std::fs::write(state.path().join("history.json"), text).unwrap();
            assert!(History::load(state.path()).is_empty());
        }
    }
}
