//! What is remembered of an evaluation, so that the same source is not evaluated twice, here or elsewhere. Does not know
//! whether the derivations still exist: the caller asks the store and drops what is gone ([`Record::keep`]).
//!
//! A record belongs to one pure, locked source under one Nix with one set of settings: its [`mod@fingerprint`] says which.
//! It is kept in the folder `share/` of the state directory ([`shelf`]), which may be carried to other machines, and
//! is therefore signed ([`seal`]). Beside it, for this machine alone, lies what git says about a clean work tree
//! ([`mod@commit`]), so that not even Nix has to be started.

pub mod commit;
pub mod fingerprint;
pub mod own;
pub mod seal;
pub mod shelf;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use commit::{Commit, commit, load_quick, pinned, save_quick, work_tree};
pub use fingerprint::{Context, Source, beside, fingerprint};
pub use own::is_sources_own;
pub use seal::Keyring;
pub use shelf::Shelf;

use super::flake::{FlakeOptions, Locked};
use super::list::{Entry, LeftOut};
use super::own_config::OwnConfig;
use super::pool::{Answer, DrvAnswer};
use super::rule::Check;
use super::what::Selection;
use crate::event::Failure;
use crate::id::{AttrPath, StorePath};

/// Format of all files; part of every key.
const FORMAT: u32 = 2;

/// One remembered answer: a derivation, nothing to build, or an error that the source itself is to blame for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The derivation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drv: Option<DrvAnswer>,
    /// Why there is nothing to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
    /// Why it does not evaluate, wherever and whenever it is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What is wrong with it that Nix does not refuse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Failure>,
    /// What Nix warned of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Recorded {
    /// What may be remembered of an answer; `None` where another try may give another answer.
    #[must_use]
    pub fn of(answer: &Answer, warnings: Vec<String>) -> Option<Self> {
        let empty = Self { drv: None, nothing: None, error: None, finding: None, warnings };
        match answer {
            Answer::Drv(drv) => Some(Self { drv: Some(drv.clone()), ..empty }),
            Answer::Nothing(reason) => Some(Self { nothing: Some(reason.to_string()), ..empty }),
            Answer::Failed(failure) => is_sources_own(failure).then(|| Self { error: Some(failure.clone()), ..empty }),
            Answer::Finding(failure) => {
                is_sources_own(failure).then(|| Self { finding: Some(failure.clone()), ..empty })
            }
        }
    }

    /// As it was answered.
    #[must_use]
    pub fn answer(&self) -> Answer {
        match (&self.drv, &self.error, &self.finding) {
            (Some(drv), _, _) => Answer::Drv(drv.clone()),
            (None, Some(error), _) => Answer::Failed(error.clone()),
            (None, None, Some(finding)) => Answer::Finding(finding.clone()),
            (None, None, None) => Answer::Nothing(self.nothing.as_deref().unwrap_or("it has nothing to build").into()),
        }
    }
}

/// The attrs of one selection, and what was said while they were listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedList {
    /// The attrs.
    pub entries: Vec<Entry>,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
    /// Warnings while listing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the flake's own file says besides its outputs, of one that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnConfig>,
}

/// What is remembered of one source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    lists: BTreeMap<String, RecordedList>,
    answers: BTreeMap<String, Recorded>,
    /// What was said of attrs that were checked, where that is not what is said of them otherwise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    verdicts: BTreeMap<String, Recorded>,
}

/// A stored record that cannot be used; it is as good as none.
#[derive(Debug, thiserror::Error)]
#[error("the recorded evaluation '{place}' is ignored: {cause}")]
pub struct Corrupt {
    /// The file or the URL.
    pub place: String,
    /// What is wrong with it.
    pub cause: String,
}

impl Record {
    /// Whether an evaluation may be remembered: only of a pure, clean source whose own lock file covers all inputs.
    #[must_use]
    pub fn may_hold(locked: &Locked, options: &FlakeOptions) -> bool {
        !options.impure
            && !options.masked
            && options.overrides.is_empty()
            && options.reference_lock_file.is_none()
            && locked.in_step
            && locked.dirty == Some(0)
            && locked.rev.is_some()
            && locked.warnings.iter().all(|warning| !warning.contains("unlocked"))
    }

    /// The attrs of this selection, if it has been listed before.
    #[must_use]
    pub fn list(&self, selection: &Selection) -> Option<RecordedList> {
        self.lists.get(&selection_key(selection)).cloned()
    }

    /// Remembers the attrs of a selection, unless a part of the flake did not evaluate and might another time.
    pub fn remember_list(&mut self, selection: &Selection, list: RecordedList) {
        let keeps = |entry: &Entry| entry.failure.as_ref().is_none_or(is_sources_own) && reads_back(&entry.path);
        if list.entries.iter().all(keeps) {
            self.lists.insert(selection_key(selection), list);
        }
    }

    /// The answer to an attr.
    #[must_use]
    pub fn answer(&self, entry: &Entry) -> Option<&Recorded> {
        let Some(check) = entry.check else { return self.answers.get(&answer_key(entry)) };
        let shared = || self.answers.get(&answer_key(entry)).filter(|known| is_shared(check) && known.drv.is_some());
        self.verdicts.get(&verdict_key(entry, check)).or_else(shared)
    }

    /// Remembers an answer, if it would be the same another time.
    pub fn remember(&mut self, entry: &Entry, answer: &Answer, warnings: Vec<String>) {
        let Some(recorded) = Recorded::of(answer, warnings) else { return };
        match entry.check.filter(|check| !(is_shared(*check) && recorded.drv.is_some())) {
            None => self.answers.insert(answer_key(entry), recorded),
            Some(check) => self.verdicts.insert(verdict_key(entry, check), recorded),
        };
    }

    /// All answers, whether their derivations still exist or not, by attr; an attr of which certain outputs were asked
    /// for (`a^dev`) comes once more for these.
    pub fn answers(&self) -> impl Iterator<Item = (AttrPath, Option<Vec<String>>, &Recorded)> {
        self.answers.iter().filter_map(|(key, recorded)| {
            let (path, outputs) = read_answer_key(key)?;
            Some((path, outputs, recorded))
        })
    }

    /// What it answers to all attrs of this selection; `None` if it does not know all of them.
    #[must_use]
    pub fn all(&self, selection: &Selection) -> Option<BTreeMap<AttrPath, Answer>> {
        let answer = |entry: &Entry| {
            let answer = match entry.answer() {
                Some(answer) => answer,
                None => self.answer(entry)?.answer(),
            };
            Some((entry.path.clone(), answer))
        };
        self.lists.get(&selection_key(selection))?.entries.iter().map(answer).collect()
    }

    /// Whether nothing has to be asked for this selection.
    #[must_use]
    pub fn is_complete(&self, selection: &Selection) -> bool {
        let known = |entry: &Entry| entry.failure.is_some() || self.answer(entry).is_some();
        self.lists.get(&selection_key(selection)).is_some_and(|list| list.entries.iter().all(known))
    }

    /// How many attrs are answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether it answers nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// All derivations that it names.
    pub fn drvs(&self) -> impl Iterator<Item = &StorePath> {
        let all = self.answers.values().chain(self.verdicts.values());
        all.filter_map(|recorded| Some(&recorded.drv.as_ref()?.drv))
    }

    /// Forgets the answers whose derivation is not to be kept: those that are no longer in the store.
    pub fn keep(&mut self, keep: impl Fn(&StorePath) -> bool) {
        for answers in [&mut self.answers, &mut self.verdicts] {
            answers.retain(|_, recorded| recorded.drv.as_ref().is_none_or(|drv| keep(&drv.drv)));
        }
    }

    /// Adds what another record of the same source knows and this one does not.
    pub fn add(&mut self, other: Self) {
        for (key, list) in other.lists {
            self.lists.entry(key).or_insert(list);
        }
        for (key, recorded) in other.answers {
            self.answers.entry(key).or_insert(recorded);
        }
        for (key, recorded) in other.verdicts {
            self.verdicts.entry(key).or_insert(recorded);
        }
    }
}

fn selection_key(selection: &Selection) -> String {
    digest(&[&format!("{selection:?}")])
}

fn answer_key(entry: &Entry) -> String {
    match &entry.outputs {
        None => entry.path.to_string(),
        Some(outputs) => format!("{}^{}", entry.path, outputs.join(",")),
    }
}

/// Whether a derivation that an attr was checked with is the one that is built for it.
fn is_shared(check: Check) -> bool {
    check.rule.drv().is_some() && !check.no_imports
}

fn verdict_key(entry: &Entry, check: Check) -> String {
    format!("{:?}{} {}", check.rule, if check.beyond { " beyond" } else { "" }, entry.path)
}

/// The attr and the outputs of a key; `None` for an attr whose name cannot be read back.
fn read_answer_key(key: &str) -> Option<(AttrPath, Option<Vec<String>>)> {
    if let Some((path, outputs)) = key.rsplit_once('^').filter(|(_, outputs)| !outputs.contains('"')) {
        let outputs = outputs.split(',').filter(|output| !output.is_empty()).map(str::to_owned);
        return Some((path.parse().ok()?, Some(outputs.collect())));
    }
    Some((key.parse().ok()?, None))
}

fn reads_back(path: &AttrPath) -> bool {
    path.to_string().parse::<AttrPath>().is_ok_and(|read| read == *path)
}

/// SHA-256 as hex.
fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of the parts, each with its length, as hex.
fn digest(parts: &[&str]) -> String {
    let mut all = Vec::new();
    for part in parts {
        all.extend((part.len() as u64).to_le_bytes());
        all.extend(part.as_bytes());
    }
    hex(&all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    fn entry(path: &str, outputs: Option<&[&str]>) -> Entry {
        let mut entry: Entry = serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
        entry.outputs = outputs.map(|outputs| outputs.iter().map(|&output| output.to_owned()).collect());
        entry
    }

    fn list(entries: Vec<Entry>) -> RecordedList {
        RecordedList { entries, ..RecordedList::default() }
    }

    fn failed(class: Class, message: &str) -> Answer {
        Answer::Failed(Failure { class, message: message.into(), position: Some("flake.nix:1:2".into()) })
    }

    #[test]
    fn answers_come_back_with_their_attrs() {
        let mut record = Record::default();
        let entries = [
            entry("a.b", None),
            entry("a.b", Some(&["dev", "out"])),
            entry("a.b", Some(&[])),
            entry("a.\"b^c\"", None),
        ];
        for entry in &entries {
            record.remember(entry, &Answer::Nothing("x".into()), Vec::new());
        }
        let mut read: Vec<_> = record.answers().map(|(path, outputs, _)| (path, outputs)).collect();
        let mut expected: Vec<_> = entries.into_iter().map(|entry| (entry.path, entry.outputs)).collect();
        read.sort();
        expected.sort();
        assert_eq!(read, expected);
    }

    #[test]
    fn only_the_sources_own_errors_are_remembered() {
        let mut record = Record::default();
        let own = failed(Class::Eval, "attribute 'x' missing");
        record.remember(&entry("a", None), &own, vec!["w".to_owned()]);
        record.remember(&entry("b", None), &failed(Class::Oom, "the evaluator ran out of memory"), Vec::new());
        assert_eq!(record.len(), 1);
        assert_eq!(record.answer(&entry("a", None)).unwrap().answer(), own);
        assert!(record.answer(&entry("b", None)).is_none());
        // A failed subtree is one attr of the list.
        let Answer::Failed(failure) = own else { unreachable!() };
        let bad = Entry { failure: Some(failure), ..entry("packages", None) };
        record.remember_list(&Selection::default(), list(vec![bad]));
        assert!(record.is_complete(&Selection::default()));
        let Answer::Failed(failure) = failed(Class::Eval, "unable to download 'x'") else { unreachable!() };
        let other = Selection { only: vec!["x".to_owned()], ..Selection::default() };
        let again = Entry { failure: Some(failure), ..entry("packages", None) };
        record.remember_list(&other, list(vec![again]));
        assert!(record.list(&other).is_none());
    }

    #[test]
    fn two_records_of_a_source_add_up() {
        let nothing = |text: &str| Answer::Nothing(text.into());
        let (mut one, mut two) = (Record::default(), Record::default());
        one.remember(&entry("a", None), &nothing("mine"), Vec::new());
        two.remember(&entry("a", None), &nothing("theirs"), Vec::new());
        two.remember(&entry("b", None), &nothing("theirs"), Vec::new());
        two.remember_list(&Selection::default(), list(vec![entry("a", None), entry("b", None)]));
        assert!(!one.is_complete(&Selection::default()));
        one.add(two);
        assert!(one.is_complete(&Selection::default()));
        assert_eq!(one.answer(&entry("a", None)).unwrap().answer(), nothing("mine"));
    }
}
