//! The books: every item, its state, and the one place where a state changes. Owns consistency (queues, counts and
//! deadlines always agree with the states); what to do about an input is decided in `handle`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Class, Moment};
use crate::graph::Work;
use crate::id::{AttemptId, BuilderId, DrvId};

use super::builders::{Builders, Kind, Need};
use super::item::{Counts, Policy};
use super::missing::Missing;
use super::timeline::Lane;
use super::transfer::UNKNOWN_SIZE;

/// Position in a queue: the longest remaining path first, among equals the smaller id.
pub(super) type Place = (Reverse<u64>, DrvId);

/// Number of a [`Need`] that occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NeedId(pub(super) usize);

/// Items that ask the same of a builder.
#[derive(Debug)]
pub(super) struct NeedRow {
    pub(super) need: Need,
    /// Builders that could take them, up or expected back.
    pub(super) takers: Vec<BuilderId>,
    /// Items to build that have not ended.
    pub(super) open: BTreeSet<DrvId>,
}

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Named as an input, not added yet; no item so far.
    Unknown,
    /// For inputs.
    Waiting,
    /// In a queue.
    Ready,
    /// Until it may be tried again.
    Delayed(Moment),
    /// On a builder.
    Running(AttemptId),
    /// From a cache. If it was replaced meanwhile, what it became begins when the fetch has ended.
    Fetching {
        /// It was replaced.
        replaced: bool,
    },
    /// The planner is asked.
    Replanning,
    /// There is an outcome.
    Ended(End),
}

/// The kind of an outcome, as far as others depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Built,
    Fetched,
    Valid,
    Failed,
    DependencyFailed(DrvId),
    Cancelled,
}

impl State {
    /// It is an item and has no outcome yet.
    pub(super) fn is_open(self) -> bool {
        match self {
            Self::Unknown | Self::Ended(_) => false,
            Self::Waiting
            | Self::Ready
            | Self::Delayed(_)
            | Self::Running(_)
            | Self::Fetching { .. }
            | Self::Replanning => true,
        }
    }

    /// Its outputs are there.
    pub(super) fn is_done(self) -> bool {
        match self {
            Self::Ended(end) => match end {
                End::Built | End::Fetched | End::Valid => true,
                End::Failed | End::DependencyFailed(_) | End::Cancelled => false,
            },
            Self::Unknown
            | Self::Waiting
            | Self::Ready
            | Self::Delayed(_)
            | Self::Running(_)
            | Self::Fetching { .. }
            | Self::Replanning => false,
        }
    }
}

/// What is known of one item.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) work: Work,
    /// Its outputs are wanted in the local store itself.
    pub(super) here: bool,
    pub(super) state: State,
    /// Inputs that were never done since it was added; sorted, without doubles.
    pub(super) inputs: Vec<DrvId>,
    /// Items that wait for this one; empty once it has ended.
    pub(super) users: Vec<DrvId>,
    /// For items to build.
    pub(super) need: Option<NeedId>,
    /// Expected time, µs.
    pub(super) cost: u64,
    /// How much it is preferred, µs.
    pub(super) ahead: u64,
    /// `cost`, `ahead`, and the most of that on a path through open users, µs.
    pub(super) rank: u64,
    /// When it was added; users have a larger one than their inputs, but for replaced items.
    pub(super) seq: u64,
    /// Builders that it failed on, sorted.
    pub(super) avoid: Vec<BuilderId>,
    /// Classes for which it was tried again.
    pub(super) retried: Vec<Class>,
    /// Only where fewer than this many build at once, itself included: it was killed where they did.
    pub(super) calmer_than: Option<u32>,
    /// All inputs that the item names, sorted, without doubles.
    pub(super) needs: Vec<DrvId>,
    /// What it uses and was there when it was planned, sorted, without doubles; nothing of that is in `needs`.
    pub(super) there: Vec<DrvId>,
    /// Builders that its outputs are on, or on their way to; sorted.
    pub(super) holders: Vec<BuilderId>,
    /// Builders that made its outputs, or had them before anybody brought them there.
    pub(super) made_on: Vec<BuilderId>,
    /// Builders whose store does not take its outputs.
    pub(super) refused_by: Vec<BuilderId>,
    /// Each of its outputs is known to be signed, or to say itself what it is.
    pub(super) signed: bool,
    /// Bytes of its outputs.
    pub(super) size: Option<u64>,
    /// How often it was made again because its outputs were nowhere.
    pub(super) remade: u32,
    /// It was made, and is not there any more.
    pub(super) lost: bool,
}

impl Entry {
    pub(super) fn unknown() -> Self {
        Self {
            work: Work::Build,
            here: true,
            state: State::Unknown,
            inputs: Vec::new(),
            users: Vec::new(),
            need: None,
            cost: 0,
            ahead: 0,
            rank: 0,
            seq: 0,
            avoid: Vec::new(),
            retried: Vec::new(),
            calmer_than: None,
            needs: Vec::new(),
            there: Vec::new(),
            holders: Vec::new(),
            made_on: Vec::new(),
            refused_by: Vec::new(),
            signed: false,
            size: None,
            remade: 0,
            lost: false,
        }
    }

    /// Its rank if this is the highest of its open users.
    pub(super) fn rank_below(&self, highest: u64) -> u64 {
        self.cost.saturating_add(self.ahead).saturating_add(highest)
    }

    /// Bytes of its outputs, or what they are taken for.
    pub(super) fn bytes(&self) -> u64 {
        self.size.unwrap_or(UNKNOWN_SIZE)
    }

    fn place(&self, drv: DrvId) -> Place {
        (Reverse(self.rank), drv)
    }
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its inputs are brought.
    Preparing,
    /// It waits for a slot.
    Prepared,
    /// It has a slot.
    Building,
    /// Somebody else builds the same; it has no slot.
    Waiting,
}

/// An attempt that has not ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) drv: DrvId,
    pub(super) builder: BuilderId,
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    /// Since when it is in this phase.
    pub(super) since: Moment,
    /// µs that its inputs were expected to take.
    pub(super) bring: u64,
    /// µs that it is expected to build.
    pub(super) length: u64,
    /// As its item was when it began; nothing changes that meanwhile.
    pub(super) calmer_than: Option<u32>,
    pub(super) stopped: bool,
    /// It was stopped because its builder takes nothing new; its drv goes on elsewhere.
    pub(super) recalled: bool,
}

/// Whether the run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// It does.
    No,
    /// Nothing new; ends of what ran are awaited.
    Draining,
    /// Nothing is awaited.
    Now,
}

/// The state machine. See the module's page.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) policy: Policy,
    pub(super) now: Moment,
    pub(super) items: Vec<Entry>,
    pub(super) builders: Builders,
    pub(super) needs: Vec<NeedRow>,
    pub(super) need_index: BTreeMap<Need, NeedId>,
    /// Ready items to build, by what they ask for and whom they avoid. No queue is empty.
    pub(super) queues: BTreeMap<(NeedId, Vec<BuilderId>), BTreeSet<Place>>,
    /// Ready items to fetch into the local store.
    pub(super) fetches: BTreeSet<Place>,
    /// Ready items that are fetched by whoever builds with them.
    pub(super) passing: BTreeSet<DrvId>,
    /// Attempts that are prepared and have no slot.
    pub(super) prepared: BTreeSet<AttemptId>,
    pub(super) delays: BTreeSet<(Moment, DrvId)>,
    pub(super) live: BTreeMap<AttemptId, Live>,
    /// Fetches that have not ended.
    pub(super) in_flight: BTreeSet<DrvId>,
    /// Named as inputs, not added.
    pub(super) unknown: BTreeSet<DrvId>,
    pub(super) replanning: u32,
    /// When a drv that waits for a better builder is to be looked at again.
    pub(super) recheck: Option<Moment>,
    /// Something happened on account of which something may begin that could not before.
    pub(super) due: bool,
    /// What decisions remember of those before.
    pub(super) missing: Missing,
    /// The lanes of the last decision, for their memory.
    pub(super) lanes: Vec<[Lane; 3]>,
    /// Items whose rank may be too high.
    pub(super) stale: BTreeSet<(u64, DrvId)>,
    pub(super) counts: Counts,
    pub(super) next_attempt: u32,
    pub(super) next_seq: u64,
    pub(super) no_more: bool,
    pub(super) no_more_builders: bool,
    pub(super) stop: Stop,
    /// Items looked at, for the test that an event costs little.
    #[cfg(test)]
    pub(super) steps: u64,
}

impl Scheduler {
    /// Nothing to do and nobody to do it.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            now: Moment::default(),
            items: Vec::new(),
            builders: Builders::default(),
            needs: Vec::new(),
            need_index: BTreeMap::new(),
            queues: BTreeMap::new(),
            fetches: BTreeSet::new(),
            passing: BTreeSet::new(),
            prepared: BTreeSet::new(),
            delays: BTreeSet::new(),
            live: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            unknown: BTreeSet::new(),
            replanning: 0,
            recheck: None,
            due: false,
            missing: Missing::default(),
            lanes: Vec::new(),
            stale: BTreeSet::new(),
            counts: Counts::default(),
            next_attempt: 0,
            next_seq: 0,
            no_more: false,
            no_more_builders: false,
            stop: Stop::No,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// When it wants an [`Input::Tick`](super::Input::Tick) at the latest; `None` if time alone changes nothing.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let recheck = self.recheck.filter(|_| self.stop == Stop::No);
        let delay = self.delays.first().map(|(at, _)| *at);
        delay.into_iter().chain(recheck).min()
    }

    /// Whether every item has its outcome and nothing more will come: [`Input::NoMore`](super::Input::NoMore) was
    /// said, or the run is being stopped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let counts = self.counts;
        let open = counts.waiting + counts.ready + counts.running + counts.fetching;
        open == 0 && self.in_flight.is_empty() && (self.no_more || self.stop != Stop::No)
    }

    /// Whether nothing new starts any more: cancelled, or too many failures.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop != Stop::No
    }

    /// How many items there are in each state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Which drv an attempt is of and where it runs, while it has not ended.
    #[must_use]
    pub fn attempt(&self, attempt: AttemptId) -> Option<(DrvId, BuilderId)> {
        self.live.get(&attempt).map(|live| (live.drv, live.builder))
    }

    /// Seconds from the start of this item to the end of the longest chain of open items that wait for it, with what
    /// these are preferred by; `None` if it is no item.
    #[must_use]
    pub fn remaining(&self, drv: DrvId) -> Option<f64> {
        let entry = self.items.get(drv.index())?;
        (entry.state != State::Unknown).then(|| Moment(entry.rank).seconds())
    }

    pub(super) fn entry(&mut self, drv: DrvId) -> &mut Entry {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        if self.items.len() <= drv.index() {
            self.items.resize_with(drv.index() + 1, Entry::unknown);
        }
        &mut self.items[drv.index()]
    }

    pub(super) fn state(&self, drv: DrvId) -> State {
        self.items.get(drv.index()).map_or(State::Unknown, |entry| entry.state)
    }

    /// The only way to change a state: takes the item out of what belongs to the old one and puts it into what belongs
    /// to the new one.
    pub(super) fn set_state(&mut self, drv: DrvId, state: State) {
        self.unqueue(drv);
        self.due |= state == State::Ready;
        let old = std::mem::replace(&mut self.entry(drv).state, state);
        match old {
            State::Delayed(until) => {
                self.delays.remove(&(until, drv));
            }
            State::Replanning => self.replanning = self.replanning.saturating_sub(1),
            State::Unknown => {
                self.unknown.remove(&drv);
            }
            State::Waiting | State::Ready | State::Running(_) | State::Fetching { .. } | State::Ended(_) => {}
        }
        if let Some(count) = count(&mut self.counts, old) {
            *count = count.saturating_sub(1);
        }
        match state {
            State::Delayed(until) => {
                self.delays.insert((until, drv));
            }
            State::Replanning => self.replanning += 1,
            State::Unknown => {
                self.unknown.insert(drv);
            }
            State::Waiting | State::Ready | State::Running(_) | State::Fetching { .. } | State::Ended(_) => {}
        }
        if let Some(count) = count(&mut self.counts, state) {
            *count += 1;
        }
        if let Some(NeedId(need)) = self.items[drv.index()].need {
            if state.is_open() {
                self.needs[need].open.insert(drv);
            } else {
                self.needs[need].open.remove(&drv);
            }
        }
        self.enqueue(drv);
    }

    /// Changes the rank of an item and its place in its queue.
    pub(super) fn set_rank(&mut self, drv: DrvId, rank: u64) {
        self.unqueue(drv);
        self.entry(drv).rank = rank;
        self.enqueue(drv);
    }

    /// Puts a ready item into its queue.
    fn enqueue(&mut self, drv: DrvId) {
        let entry = &self.items[drv.index()];
        if entry.state != State::Ready {
            return;
        }
        let place = entry.place(drv);
        match (entry.work, entry.need) {
            (Work::Build, Some(need)) => {
                self.queues.entry((need, entry.avoid.clone())).or_default().insert(place);
            }
            (Work::Build, None) | (Work::Fetch, _) => {
                if entry.here || !self.policy.fetch_where_needed {
                    self.fetches.insert(place);
                } else {
                    self.passing.insert(drv);
                }
            }
        }
    }

    /// Takes a ready item out of its queue.
    fn unqueue(&mut self, drv: DrvId) {
        let Some(entry) = self.items.get(drv.index()).filter(|entry| entry.state == State::Ready) else { return };
        let place = entry.place(drv);
        match (entry.work, entry.need) {
            (Work::Build, Some(need)) => {
                let key = (need, entry.avoid.clone());
                if let Some(queue) = self.queues.get_mut(&key) {
                    queue.remove(&place);
                    if queue.is_empty() {
                        self.queues.remove(&key);
                    }
                }
            }
            (Work::Build, None) | (Work::Fetch, _) => {
                self.fetches.remove(&place);
                self.passing.remove(&drv);
            }
        }
    }

    /// The only way to change the phase of an attempt.
    pub(super) fn move_to(&mut self, attempt: AttemptId, phase: Phase) {
        let Some(live) = self.live.get_mut(&attempt) else { return };
        let old = std::mem::replace(&mut live.phase, phase);
        live.since = self.now;
        if let Some(seat) = self.builders.seat_mut(live.builder) {
            seat.moved(live.kind, Some(old), Some(phase));
        }
        if phase == Phase::Prepared {
            self.prepared.insert(attempt);
        } else {
            self.prepared.remove(&attempt);
        }
    }

    /// The number of what an item asks for.
    pub(super) fn need(&mut self, need: Need) -> NeedId {
        if let Some(known) = self.need_index.get(&need) {
            return *known;
        }
        let id = NeedId(self.needs.len());
        let takers = self.builders.takers(&need);
        self.needs.push(NeedRow { need: need.clone(), takers, open: BTreeSet::new() });
        self.need_index.insert(need, id);
        id
    }
}

/// The counter of a state; none for what is no item yet.
fn count(counts: &mut Counts, state: State) -> Option<&mut u32> {
    Some(match state {
        State::Unknown => return None,
        State::Waiting | State::Delayed(_) | State::Replanning => &mut counts.waiting,
        State::Ready => &mut counts.ready,
        State::Running(_) => &mut counts.running,
        State::Fetching { .. } => &mut counts.fetching,
        State::Ended(end) => match end {
            End::Built => &mut counts.built,
            End::Fetched => &mut counts.fetched,
            End::Valid => &mut counts.valid,
            End::Failed => &mut counts.failed,
            End::DependencyFailed(_) => &mut counts.dependency_failed,
            End::Cancelled => &mut counts.cancelled,
        },
    })
}
