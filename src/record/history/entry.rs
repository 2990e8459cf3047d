//! One run in numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Class, Difference, Stage, Status};
use crate::id::{AttrPath, Kind, RunId, System};

/// What is kept of a run. All times are seconds; those of the run itself begin at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Which run.
    pub run: RunId,
    /// When it began.
    pub started: jiff::Timestamp,
    /// Wall time.
    pub seconds: f64,
    /// The exit code; `None` if it was killed.
    pub exit: Option<u8>,
    /// `run`, `check`, …
    pub command: String,
    /// What was asked for, as typed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
    /// drover's version.
    pub drover: String,
    /// The version of Nix in force.
    pub nix: String,
    /// The flake as it was given, with its scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flake: Option<String>,
    /// Its revision; `None` for a dirty tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<String>,
    /// The branch that it was of, where git or the forge says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What the forge calls the change that is proposed, the number of a pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// What the flake's inputs are locked to, in short, by their names: revisions, else hashes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// How it went, in a few words.
    pub verdict: String,
    /// Counts.
    pub counters: Counters,
    /// When each stage began and ended.
    pub stages: BTreeMap<Stage, Spell>,
    /// Where the wall time went; the parts add up to it.
    pub account: Vec<Part>,
    /// Builders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builders: Vec<BuilderUse>,
    /// Caches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheUse>,
    /// Attrs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attrs: Vec<AttrTimes>,
    /// Attempts that came to their end, in the order in which they ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<Build>,
    /// Where what was built began: the drvs under most attrs of which everything else was there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Origin>,
    /// Seconds of the longest chain of builds that followed from each other.
    #[serde(default)]
    pub chain_seconds: f64,
}

impl Entry {
    /// What runs have in common that can be compared: the command, the flake, and what was asked for.
    #[must_use]
    pub fn series(&self) -> String {
        let words = [self.command.as_str(), self.flake.as_deref().unwrap_or_default()];
        words.into_iter().chain(self.what.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }

    /// Whether it came to its own end: not killed, not interrupted.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.exit.is_some_and(|exit| exit != 130)
    }

    /// Whether it evaluated, built, fetched or pushed anything, or failed to; other machines learn from no other runs.
    #[must_use]
    pub fn did_something(&self) -> bool {
        let Counters { evaluated, eval_failed, failed_attrs, built, failed, fetched, pushed, push_failed, .. } =
            self.counters;
        [evaluated, eval_failed, failed_attrs, built, failed, fetched, pushed, push_failed].iter().any(|n| *n > 0)
    }

    /// Seconds of a stage; 0 if it never was.
    #[must_use]
    pub fn stage_seconds(&self, stage: Stage) -> f64 {
        self.stages.get(&stage).map_or(0.0, |spell| spell.end - spell.start)
    }
}

/// From when to when, in seconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "its own description says all")]
pub struct Spell {
    pub start: f64,
    pub end: f64,
}

/// Counts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Attrs that were asked for.
    pub attrs: u64,
    /// Of these: hosts.
    pub hosts: u64,
    /// Attrs that were evaluated and not taken from a record.
    pub evaluated: u64,
    /// Attrs that do not evaluate.
    pub eval_failed: u64,
    /// Attrs that failed to build.
    pub failed_attrs: u64,
    /// Drvs that had to be built.
    pub to_build: u64,
    /// Of these: built in this run.
    pub built: u64,
    /// Of these: failed themselves.
    pub failed: u64,
    /// Drvs that were fetched.
    pub fetched: u64,
    /// Attempts after the first of a drv.
    pub retries: u64,
    /// Drvs that failed and then, the same, were built.
    pub flaky: u64,
    /// Attrs that a cache has, of those that were not valid.
    pub attrs_hit: u64,
    /// Those.
    pub attrs_asked: u64,
    /// Paths that a cache has, of those that were not valid.
    pub paths_hit: u64,
    /// Those.
    pub paths_asked: u64,
    /// Bytes of NARs that caches have, of those and of what was built.
    pub bytes_hit: u64,
    /// Those.
    pub bytes_asked: u64,
    /// Seconds of building that caches spared, as far as it is known how long that takes.
    pub spared_seconds: u64,
    /// Bytes of the closures of all attrs, each path once for each attr; of those whose closure is known.
    pub closure_bytes: u64,
    /// Paths that were pushed.
    pub pushed: u64,
    /// Paths that should have been.
    pub push_failed: u64,
    /// Bytes that went to caches.
    pub pushed_bytes: u64,
}

/// A part of the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What the run was waiting for, in one of the words of the account: `evaluating`, `building`, `pushing`, ….
    pub what: String,
    /// Whose that was: the name of a package without its version, of a cache, of an attr; empty where it is nobody's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// On which builder or from which cache; empty where that is no place.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// How long.
    pub seconds: f64,
}

/// A builder as a run saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuilderUse {
    /// Its name.
    pub name: String,
    /// How many drvs it builds at once; 0 if it was never ready.
    pub slots: u32,
    /// What it builds for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub systems: Vec<System>,
    /// How fast it is, 1 is usual.
    pub speed: f64,
    /// Seconds in which it could be used.
    pub up: f64,
    /// Seconds for which its slots were taken, all slots together.
    pub busy: f64,
    /// Attempts on it.
    pub attempts: u32,
    /// How often it was lost.
    pub lost: u32,
    /// Bytes that were brought to it.
    #[serde(default)]
    pub brought: u64,
}

/// A cache as a run saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheUse {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Paths that it has.
    pub present: u64,
    /// Paths that it does not have.
    pub absent: u64,
    /// Paths that it has, signed by no trusted key.
    pub untrusted: u64,
    /// Questions that it did not answer.
    pub no_answer: u64,
    /// Paths that were pushed to it.
    pub pushed: u64,
    /// Paths that should have been.
    pub push_failed: u64,
    /// Bytes that went to it.
    pub pushed_bytes: u64,
    /// Requests that had to be made again, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// Requests to a cache that had to be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// When it was.
    pub spell: Spell,
    /// Why most of them were: `HTTP 429`.
    pub reason: String,
    /// How many.
    pub requests: u32,
    /// Seconds that were waited before, all of them together.
    pub waited: f64,
}

/// An attr in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttrTimes {
    /// Its full path.
    pub attr: AttrPath,
    /// Its kind.
    pub kind: Kind,
    /// What people call it.
    pub name: String,
    /// How it ended; `None` if the run ended before.
    pub status: Option<Status>,
    /// Its drv, by the base name of its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drv: Option<String>,
    /// How long its evaluation took; `None` if it was not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<f64>,
    /// When it had its final word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<f64>,
    /// Bytes of its closure, if they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closure: Option<u64>,
    /// How it differs from the base, if it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// A drv that had to be built although all that it needs was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `stdenv-linux`.
    pub name: String,
    /// Attrs that need it.
    pub attrs: u32,
    /// Drvs that had to be built and need it.
    pub drvs: u32,
}

/// An attempt that came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// The drv, by the base name of its path.
    pub drv: String,
    /// `nginx-1.29.4`.
    pub name: String,
    /// Its platform.
    pub system: System,
    /// The name of the builder.
    pub builder: String,
    /// When the drv had all its inputs.
    pub ready: f64,
    /// When the builder was asked.
    pub started: f64,
    /// When the builder's process began; `None` if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub building: Option<f64>,
    /// When the attempt ended.
    pub ended: f64,
    /// How.
    pub outcome: Outcome,
    /// Seconds of processors that it took, where the builder tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Bytes that were brought to the builder for it.
    #[serde(default)]
    pub brought: u64,
    /// Bytes of its outputs, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl Build {
    /// Seconds of building, or of the whole attempt where the builder's process never began.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.ended - self.building.unwrap_or(self.started)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It built.
    Built,
    /// Its outputs were there already.
    Valid,
    /// It failed.
    Failed(Class),
}
