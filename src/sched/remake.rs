//! What is made again: outputs that an attempt needed and that turned out to be nowhere. A fetched drv is planned anew,
//! since no cache has it any more; a built one is built again, since the only builder that had it went away. Both get a
//! second final word. What was never an item, because a builder had it before the run, is planned now.

use std::collections::BTreeSet;

use crate::graph::Work;
use crate::id::{BuilderId, DrvId};

use super::item::Action;
use super::state::{End, Scheduler, State, Stop};

/// How often one drv is made again. A builder that goes away this often, or a driver that does not find what is there,
/// must not keep a run from ending.
const MOST: u32 = 8;

impl Scheduler {
    /// An attempt of `drv` failed because these are gone: they are made again, and it waits for them. Says whether there
    /// is anything to wait for.
    pub(super) fn remake(&mut self, drv: DrvId, gone: &[DrvId], actions: &mut Vec<Action>) -> bool {
        let below = if gone.is_empty() { BTreeSet::new() } else { self.below(drv) };
        let gone: BTreeSet<DrvId> =
            gone.iter().copied().filter(|input| below.contains(input) && self.can_come_again(*input)).collect();
        if gone.is_empty() {
            return false;
        }
        let lost: Vec<DrvId> = gone.iter().copied().filter(|input| self.state(*input).is_done()).collect();
        let unplanned: Vec<DrvId> = gone.iter().copied().filter(|input| self.is_unplanned(*input)).collect();
        for input in &lost {
            self.forget(*input);
        }
        for input in &unplanned {
            self.plan_first(*input, actions);
        }
        // Also what is not a direct input is waited for from now on.
        self.missing.forget_all();
        let needs = &mut self.entry(drv).needs;
        needs.extend(&gone);
        needs.sort_unstable();
        needs.dedup();
        self.set_state(drv, State::Waiting);
        let mut waited_for = [&lost[..], &unplanned].concat();
        waited_for.sort_unstable();
        self.wait_again(&waited_for, drv);
        for input in &lost {
            let mut inputs = self.items[input.index()].needs.clone();
            inputs.retain(|input| !self.state(*input).is_done());
            self.entry(*input).inputs = inputs;
            self.link(*input);
        }
        let mut ranked = lost.clone();
        ranked.push(drv);
        self.rank_added(&ranked);
        for input in lost {
            if self.items[input.index()].work == Work::Fetch {
                self.set_state(input, State::Replanning);
                actions.push(Action::Replan { drv: input });
            } else {
                self.begin_again(input, actions);
            }
        }
        self.place_again(drv, actions);
        true
    }

    /// Whether a drv that was there, as an item or before the run, can be made again, should its outputs be gone.
    #[must_use]
    pub fn can_make_again(&self, drv: DrvId) -> bool {
        let was_there = self.is_unplanned(drv) || self.state(drv).is_done();
        self.stop == Stop::No && was_there && self.can_come_again(drv)
    }

    /// Whether a drv is an item that has no final word, or none any more: somebody else missed its outputs before.
    #[must_use]
    pub fn is_on_its_way(&self, drv: DrvId) -> bool {
        self.state(drv).is_open()
    }

    /// It is no item, and no item has named it as one.
    fn is_unplanned(&self, drv: DrvId) -> bool {
        self.state(drv) == State::Unknown && !self.unknown.contains(&drv)
    }

    /// The planner took it for there, and is to say now what has to be done for it. Whoever counted on it needs it.
    fn plan_first(&mut self, drv: DrvId, actions: &mut Vec<Action>) {
        self.missing.forget_all();
        for entry in &mut self.items {
            if let Ok(at) = entry.there.binary_search(&drv) {
                entry.there.remove(at);
                entry.needs.push(drv);
                entry.needs.sort_unstable();
            }
        }
        let entry = self.entry(drv);
        // What is only to be fetched gives way to whatever the planner says.
        entry.work = Work::Fetch;
        entry.lost = true;
        self.set_state(drv, State::Replanning);
        actions.push(Action::Replan { drv });
    }

    /// Outputs that nobody has any more, and that are wanted for themselves.
    pub(super) fn lost(&mut self, drv: DrvId, actions: &mut Vec<Action>) {
        if !self.can_make_again(drv) {
            return;
        }
        if self.is_unplanned(drv) {
            self.plan_first(drv, actions);
            self.wait_again(&[drv], drv);
            return;
        }
        self.forget(drv);
        self.wait_again(&[drv], drv);
        self.rank_added(&[drv]);
        if self.items[drv.index()].work == Work::Fetch {
            self.set_state(drv, State::Replanning);
            actions.push(Action::Replan { drv });
        } else {
            self.begin_again(drv, actions);
        }
    }

    /// Gives an item that is to be tried again its state: waiting if what it needs was lost meanwhile, or ready.
    pub(super) fn place_again(&mut self, drv: DrvId, actions: &mut Vec<Action>) {
        self.wait_for_lost(drv);
        self.begin_again(drv, actions);
    }

    /// Makes an item wait for what it needs and what was lost meanwhile.
    pub(super) fn wait_for_lost(&mut self, drv: DrvId) {
        for at in 0..self.items[drv.index()].needs.len() {
            let input = self.items[drv.index()].needs[at];
            if self.items.get(input.index()).is_some_and(|entry| entry.lost) {
                self.wait_for(drv, input);
            }
        }
    }

    pub(super) fn begin_again(&mut self, drv: DrvId, actions: &mut Vec<Action>) {
        self.check_inputs(drv, actions);
        if self.state(drv).is_open() {
            match self.impossible(drv) {
                Some(need) => self.fail(drv, self.no_builder(need), actions),
                None => self.place(drv, actions),
            }
        }
    }

    /// It is open, or was there and may be made again.
    fn can_come_again(&self, drv: DrvId) -> bool {
        match self.state(drv) {
            State::Ended(End::Built | End::Fetched | End::Valid) => self.items[drv.index()].remade < MOST,
            State::Ended(End::Failed | End::DependencyFailed(_) | End::Cancelled)
            | State::Unknown
            | State::Waiting
            | State::Ready
            | State::Delayed(_)
            | State::Running(_)
            | State::Fetching { .. }
            | State::Replanning => true,
        }
    }

    /// All that a drv needs, over any number of edges.
    fn below(&self, drv: DrvId) -> BTreeSet<DrvId> {
        let mut below = BTreeSet::new();
        let mut open = vec![drv];
        while let Some(drv) = open.pop() {
            let Some(entry) = self.items.get(drv.index()) else { continue };
            open.extend(entry.needs.iter().chain(&entry.there).copied().filter(|input| below.insert(*input)));
        }
        below.remove(&drv);
        below
    }

    /// A drv whose outputs are nowhere has no outcome any more. It is not made again where they were, if that builder is
    /// away and another can.
    fn forget(&mut self, drv: DrvId) {
        self.set_state(drv, State::Waiting);
        // Raised by whoever waits for it.
        self.set_rank(drv, 0);
        self.missing.forget_all();
        let holders = std::mem::take(&mut self.entry(drv).holders);
        self.unmade(drv);
        let away = |id: &BuilderId| self.builders.seat(*id).is_some_and(|seat| !seat.up);
        let away: Vec<BuilderId> = holders.into_iter().filter(away).collect();
        let entry = self.entry(drv);
        entry.remade += 1;
        entry.lost = true;
        entry.retried.clear();
        entry.calmer_than = None;
        entry.avoid.extend(away);
        entry.avoid.sort_unstable();
        entry.avoid.dedup();
    }

    /// Whoever needs one of these and has not begun waits for it again, and so does `drv`.
    fn wait_again(&mut self, lost: &[DrvId], drv: DrvId) {
        let is_lost = |input: &&DrvId| lost.binary_search(input).is_ok();
        let mut waits: Vec<(DrvId, DrvId)> = Vec::new();
        for (user, entry) in (0_u32..).map(DrvId).zip(&self.items) {
            let begins = matches!(entry.state, State::Waiting | State::Ready | State::Delayed(_));
            if begins && lost.binary_search(&user).is_err() {
                waits.extend(entry.needs.iter().filter(is_lost).map(|input| (user, *input)));
            }
        }
        let open = self.items[drv.index()].needs.iter().filter(|input| !self.state(**input).is_done());
        waits.extend(open.map(|input| (drv, *input)));
        for (user, input) in waits {
            self.wait_for(user, input);
        }
    }

    /// Makes an item wait for an input, if it does not yet.
    fn wait_for(&mut self, user: DrvId, input: DrvId) {
        let Err(at) = self.items[user.index()].inputs.binary_search(&input) else { return };
        if self.state(user) == State::Ready {
            self.set_state(user, State::Waiting);
        }
        self.entry(user).inputs.insert(at, input);
        self.entry(input).users.push(user);
        self.rank_added(&[user]);
    }
}
