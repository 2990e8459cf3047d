//! In which order paths go to one cache: a pure state machine, no I/O, no clock.
//!
//! What holds at any moment (and is tested with random graphs, failures and orders of completion):
//! - where uploads are seen at once, a path is uploaded only once all that it refers to is there;
//! - a record is written only after the records of all that the path refers to (a cache is never incomplete, whenever
//!   it is looked at); NARs go in any order, the largest first;
//! - what the cache has already is not uploaded; each path is checked once and ends exactly once;
//! - a path that fails takes with it exactly those that refer to it and are not in the cache already;
//! - after [`Input::Stop`] nothing is checked or uploaded; records whose NARs are there are still written.

use std::collections::{BTreeMap, BTreeSet};

use super::room::Room;
use crate::event::Failure;
use crate::id::StorePath;

pub use super::room::{Limits, SMALL};

/// A path to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which path; it must be valid in the store.
    pub path: StorePath,
    /// What it refers to; itself is ignored. Each must be added too (now or later), or be held by another cache.
    pub references: Vec<StorePath>,
    /// Bytes of its NAR.
    pub nar_size: u64,
}

/// What the queue learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Paths to push; those that are known already are ignored.
    Add(Vec<Item>),
    /// Paths that other caches hold, so that references to them are fine. Best said before a path that refers to
    /// them is added: what was given up already stays so.
    Held(Vec<StorePath>),
    /// Nothing will be added any more: what refers to a path that nobody knows is given up.
    NoMore,
    /// The answer to [`Action::Check`], or a piece of it: which of the paths the cache has. No answer counts as "not".
    Checked {
        /// In the cache.
        present: Vec<StorePath>,
        /// Not in the cache.
        absent: Vec<StorePath>,
    },
    /// The NAR is in the cache.
    Uploaded(StorePath),
    /// The record is in the cache.
    Finished(StorePath),
    /// The upload, or the writing of the record, failed for good.
    Failed(StorePath, Failure),
    /// Start nothing new; what is not done is listed as [`End::Stopped`].
    Stop,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the cache which of these it has; one such question is open at a time. Answer: [`Input::Checked`], at once or
    /// in pieces.
    Check(Vec<StorePath>),
    /// Bring the NAR into the cache. Answer: [`Input::Uploaded`] or [`Input::Failed`].
    Upload(StorePath),
    /// Write the record. Answer: [`Input::Finished`] or [`Input::Failed`].
    Finish(StorePath),
    /// The final word on a path.
    Ended(StorePath, End),
}

/// How a path ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Uploaded now.
    Pushed,
    /// The cache had it.
    Present,
    /// Its own upload failed.
    Failed(Failure),
    /// Something that it refers to failed; this one did itself.
    Reference(StorePath),
    /// It refers to this path, which is neither pushed nor held by any cache.
    Unknown(StorePath),
    /// The push was stopped before.
    Stopped,
}

/// Where a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not asked for yet.
    New,
    Checking,
    /// The cache does not have it; waits for room, or first for its references.
    Absent,
    Uploading,
    /// The NAR is there; waits for its references.
    Uploaded,
    Finishing,
    /// In the cache.
    There,
    /// Will not be in the cache.
    Gone(End),
}

#[derive(Debug)]
struct Entry {
    state: State,
    references: BTreeSet<StorePath>,
    nar_size: u64,
    /// Why it will not get a record, although its upload still runs.
    doomed: Option<End>,
}

/// The paths on their way to one cache.
#[derive(Debug)]
pub struct Queue {
    room: Room,
    entries: BTreeMap<StorePath, Entry>,
    /// Who refers to a path, also one that is not known yet.
    users: BTreeMap<StorePath, BTreeSet<StorePath>>,
    held: BTreeSet<StorePath>,
    /// Paths to ask for next.
    new: BTreeSet<StorePath>,
    /// What the open question is about.
    checking: BTreeSet<StorePath>,
    finishing: usize,
    /// Paths without a final word.
    open: usize,
    no_more: bool,
    stopped: bool,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            room: Room::new(limits),
            entries: BTreeMap::new(),
            users: BTreeMap::new(),
            held: BTreeSet::new(),
            new: BTreeSet::new(),
            checking: BTreeSet::new(),
            finishing: 0,
            open: 0,
            no_more: false,
            stopped: false,
        }
    }

    /// Learns one thing and says what to do now.
    pub fn handle(&mut self, input: Input, actions: &mut Vec<Action>) {
        let graph_changed = matches!(input, Input::Add(_) | Input::NoMore);
        match input {
            Input::Add(items) => self.add(items, actions),
            Input::Held(paths) => self.hold(paths, actions),
            Input::NoMore => self.no_more = true,
            Input::Stop => self.stopped = true,
            Input::Checked { present, absent } => self.checked(present, absent, actions),
            Input::Uploaded(path) => self.uploaded(&path, actions),
            Input::Finished(path) => {
                if self.is_in(&path, &State::Finishing) {
                    self.finishing -= 1;
                    self.arrived(path, End::Pushed, actions);
                }
            }
            Input::Failed(path, failure) => self.failed(path, failure, actions),
        }
        if self.stopped {
            self.stop_waiting(actions);
        } else {
            self.start(actions);
        }
        if self.no_more {
            if graph_changed {
                self.give_up_unknown(actions);
            }
            self.give_up_stuck(actions);
        }
    }

    /// Whether nothing is in flight and nothing can happen any more but by adding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.checking.is_empty() && self.finishing == 0 && self.room.is_empty()
    }

    /// Whether every path has its final word and none can come. True after a stop once all that ran has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_idle() && self.open == 0 && (self.no_more || self.stopped)
    }

    /// Paths that are in the cache now, whether they were pushed or had been there.
    pub fn there(&self) -> impl Iterator<Item = &StorePath> {
        self.entries.iter().filter(|(_, entry)| entry.state == State::There).map(|(path, _)| path)
    }

    /// Paths that are not in the cache (yet), with the reason where it is final.
    pub fn not_there(&self) -> impl Iterator<Item = (&StorePath, Option<&End>)> {
        self.entries.iter().filter_map(|(path, entry)| match &entry.state {
            State::There => None,
            State::Gone(end) => Some((path, Some(end))),
            _ => Some((path, None)),
        })
    }

    fn add(&mut self, items: Vec<Item>, actions: &mut Vec<Action>) {
        let mut added = Vec::new();
        for item in items {
            if self.entries.contains_key(&item.path) {
                continue;
            }
            let references: BTreeSet<_> =
                item.references.into_iter().filter(|reference| *reference != item.path).collect();
            for reference in &references {
                self.users.entry(reference.clone()).or_default().insert(item.path.clone());
            }
            let entry = Entry { state: State::New, references, nar_size: item.nar_size, doomed: None };
            self.entries.insert(item.path.clone(), entry);
            self.open += 1;
            self.new.insert(item.path.clone());
            added.push(item.path);
        }
        // A path added late may refer to one that is gone.
        for path in added {
            if let Some(end) = self.lost_reference(&path) {
                self.doom(&path, end, actions);
            }
        }
    }

    /// The end that a path must come to because of what it refers to.
    fn lost_reference(&self, path: &StorePath) -> Option<End> {
        let entry = self.entries.get(path)?;
        entry.references.iter().filter(|reference| !self.held.contains(*reference)).find_map(|reference| {
            match &self.entries.get(reference)?.state {
                State::Gone(end) => Some(end_of_user(reference, end)),
                _ => None,
            }
        })
    }

    fn hold(&mut self, paths: Vec<StorePath>, actions: &mut Vec<Action>) {
        for path in paths {
            if self.held.insert(path.clone()) {
                self.finish_users(&path, actions);
            }
        }
    }

    fn checked(&mut self, present: Vec<StorePath>, absent: Vec<StorePath>, actions: &mut Vec<Action>) {
        for path in present {
            self.checking.remove(&path);
            if self.is_in(&path, &State::Checking) {
                self.arrived(path, End::Present, actions);
            }
        }
        for path in absent {
            self.checking.remove(&path);
            if !self.is_in(&path, &State::Checking) {
                continue;
            }
            let Some(entry) = self.entries.get_mut(&path) else { continue };
            match entry.doomed.take() {
                Some(end) => self.gone(path, end, actions),
                None => {
                    entry.state = State::Absent;
                    self.upload_if_ready(path);
                }
            }
        }
    }

    fn uploaded(&mut self, path: &StorePath, actions: &mut Vec<Action>) {
        if !self.is_in(path, &State::Uploading) {
            return;
        }
        self.release(path);
        let Some(entry) = self.entries.get_mut(path) else { return };
        match entry.doomed.take() {
            Some(end) => self.gone(path.clone(), end, actions),
            None => {
                entry.state = State::Uploaded;
                self.finish_if_ready(path, actions);
            }
        }
    }

    fn failed(&mut self, path: StorePath, failure: Failure, actions: &mut Vec<Action>) {
        if self.is_in(&path, &State::Uploading) {
            self.release(&path);
        } else if self.is_in(&path, &State::Finishing) {
            self.finishing -= 1;
        } else {
            return;
        }
        self.gone(path, End::Failed(failure), actions);
    }

    /// Whether the path is in this state. Answers that nobody asked for change nothing.
    fn is_in(&self, path: &StorePath, state: &State) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.state == *state)
    }

    fn arrived(&mut self, path: StorePath, end: End, actions: &mut Vec<Action>) {
        if let Some(entry) = self.entries.get_mut(&path) {
            entry.state = State::There;
            entry.doomed = None;
            self.open -= 1;
            actions.push(Action::Ended(path.clone(), end));
            self.finish_users(&path, actions);
        }
    }

    /// A path will not be in the cache, and so neither will those that refer to it.
    fn gone(&mut self, path: StorePath, end: End, actions: &mut Vec<Action>) {
        let mut lost = vec![(path, end)];
        while let Some((path, end)) = lost.pop() {
            let Some(entry) = self.entries.get_mut(&path) else { continue };
            entry.state = State::Gone(end.clone());
            self.open -= 1;
            actions.push(Action::Ended(path.clone(), end.clone()));
            if self.held.contains(&path) {
                continue;
            }
            for user in self.users.get(&path).cloned().unwrap_or_default() {
                let end = end_of_user(&path, &end);
                if let Some(end) = self.stopped_short(&user, end) {
                    lost.push((user, end));
                }
            }
        }
    }

    fn doom(&mut self, path: &StorePath, end: End, actions: &mut Vec<Action>) {
        if let Some(end) = self.stopped_short(path, end) {
            self.gone(path.clone(), end, actions);
        }
    }

    /// Marks a path that cannot get a record. Gives the end back if nothing runs for it, so that it ends now.
    ///
    /// A path that was not checked yet is still checked: if the cache has it, all is well.
    fn stopped_short(&mut self, path: &StorePath, end: End) -> Option<End> {
        let entry = self.entries.get_mut(path)?;
        match entry.state {
            State::New | State::Checking | State::Uploading => {
                entry.doomed.get_or_insert(end);
                None
            }
            State::Absent => {
                self.room.remove(entry.nar_size, path);
                Some(end)
            }
            State::Uploaded => Some(end),
            State::Finishing | State::There | State::Gone(_) => None,
        }
    }

    fn finish_users(&mut self, path: &StorePath, actions: &mut Vec<Action>) {
        for user in self.users.get(path).cloned().unwrap_or_default() {
            self.finish_if_ready(&user, actions);
        }
    }

    /// Whether all that a path refers to is in this cache or another.
    fn is_complete(&self, entry: &Entry) -> bool {
        let is_there = |path: &StorePath| {
            self.held.contains(path) || self.entries.get(path).is_some_and(|entry| entry.state == State::There)
        };
        entry.references.iter().all(is_there)
    }

    /// An absent path may wait for room; where uploads are seen at once, only when its references are there.
    fn upload_if_ready(&mut self, path: StorePath) {
        let Some(entry) = self.entries.get(&path) else { return };
        if !self.room.limits.ordered || self.is_complete(entry) {
            self.room.add(entry.nar_size, path);
        }
    }

    fn finish_if_ready(&mut self, path: &StorePath, actions: &mut Vec<Action>) {
        if self.is_in(path, &State::Absent) {
            return self.upload_if_ready(path.clone());
        }
        let Some(entry) = self.entries.get(path) else { return };
        if entry.state == State::Uploaded && self.is_complete(entry) {
            if let Some(entry) = self.entries.get_mut(path) {
                entry.state = State::Finishing;
            }
            self.finishing += 1;
            actions.push(Action::Finish(path.clone()));
        }
    }

    /// One question for all new paths, and uploads as far as there is room.
    fn start(&mut self, actions: &mut Vec<Action>) {
        if self.checking.is_empty() && !self.new.is_empty() {
            self.checking = std::mem::take(&mut self.new);
            for path in &self.checking {
                if let Some(entry) = self.entries.get_mut(path) {
                    entry.state = State::Checking;
                }
            }
            actions.push(Action::Check(self.checking.iter().cloned().collect()));
        }
        while let Some(path) = self.room.take() {
            if let Some(entry) = self.entries.get_mut(&path) {
                entry.state = State::Uploading;
            }
            actions.push(Action::Upload(path));
        }
    }

    fn release(&mut self, path: &StorePath) {
        self.room.release(self.entries.get(path).map_or(0, |entry| entry.nar_size));
    }

    /// After a stop: all that does not run ends.
    fn stop_waiting(&mut self, actions: &mut Vec<Action>) {
        let waiting: Vec<_> = self.new.iter().chain(self.room.waiting()).cloned().collect();
        for path in waiting {
            self.end_now(&path, End::Stopped, actions);
        }
        if self.room.is_quiet() && self.finishing == 0 && self.checking.is_empty() {
            for path in self.half_way() {
                self.end_now(&path, End::Stopped, actions);
            }
        }
    }

    /// Once nothing is added any more: what refers to an unknown path can never be complete.
    fn give_up_unknown(&mut self, actions: &mut Vec<Action>) {
        let known = |path: &StorePath| self.entries.contains_key(path) || self.held.contains(path);
        let unknown: Vec<_> = self.users.keys().filter(|path| !known(path)).cloned().collect();
        for path in unknown {
            for user in self.users.get(&path).cloned().unwrap_or_default() {
                self.doom(&user, End::Unknown(path.clone()), actions);
            }
        }
    }

    /// What still waits though nothing runs and nothing is added is on a cycle, which no store can hold.
    fn give_up_stuck(&mut self, actions: &mut Vec<Action>) {
        if self.open > 0 && self.is_idle() {
            for path in self.half_way() {
                let reference = self.entries.get(&path).and_then(|entry| entry.references.first().cloned());
                if let Some(reference) = reference {
                    self.end_now(&path, End::Unknown(reference), actions);
                }
            }
        }
    }

    /// Paths for which nothing runs and that wait for what they refer to.
    fn half_way(&self) -> Vec<StorePath> {
        let half_way = |entry: &Entry| matches!(entry.state, State::Absent | State::Uploaded);
        let half_way = self.entries.iter().filter(|(_, entry)| half_way(entry));
        half_way.map(|(path, _)| path.clone()).collect()
    }

    /// Ends a path for which nothing runs, if it has not ended meanwhile.
    fn end_now(&mut self, path: &StorePath, end: End, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        if matches!(entry.state, State::New | State::Absent | State::Uploaded) {
            self.room.remove(entry.nar_size, path);
            self.new.remove(path);
            let end = entry.doomed.take().unwrap_or(end);
            self.gone(path.clone(), end, actions);
        }
    }
}

/// How a path ends whose reference ended like this.
fn end_of_user(reference: &StorePath, end: &End) -> End {
    match end {
        End::Stopped => End::Stopped,
        End::Reference(root) => End::Reference(root.clone()),
        End::Unknown(unknown) => End::Unknown(unknown.clone()),
        End::Failed(_) | End::Pushed | End::Present => End::Reference(reference.clone()),
    }
}
