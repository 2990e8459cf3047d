//! What each input does. Owns the transitions; the books are in `state`, the order in `pick`.

use std::collections::BTreeSet;

use crate::event::{AttemptEnd, Class, DrvOutcome, Failure, Moment};
use crate::graph::Work;
use crate::id::{AttemptId, BuilderId, DrvId};

use super::builders::Need;
use super::item::{Action, Input, Item};
use super::rank::micros;
use super::retry::{Again, retry_of};
use super::state::{End, NeedId, Phase, Scheduler, State, Stop};

impl Scheduler {
    /// Takes one input at a moment (never earlier than the one before) and adds to `actions` what to do about it.
    pub fn handle(&mut self, now: Moment, input: Input, actions: &mut Vec<Action>) {
        self.now = self.now.max(now);
        self.end_delays(actions);
        self.due |= self.may_begin_more(&input);
        match input {
            Input::Add(items) => self.add(items, actions),
            Input::AddFailed(failed) => self.add_failed(failed, actions),
            Input::NoMore => self.no_more = true,
            Input::BuilderKnown(builder) => {
                self.builders.known(builder);
                self.builders_changed(actions);
            }
            Input::BuilderUp(builder) => {
                self.builders.up(builder);
                self.builders_changed(actions);
            }
            Input::BuilderDown { builder, back, why } => {
                self.builders.down(builder, back, why);
                self.recall(builder, actions);
                self.builders_changed(actions);
            }
            Input::NoMoreBuilders => {
                self.no_more_builders = true;
                self.fail_impossible(actions);
            }
            Input::Prepared { attempt } => self.prepared(attempt),
            Input::Waiting { attempt, waiting } => self.waiting(attempt, waiting),
            Input::AttemptEnded { attempt, end, gone } => self.attempt_ended(attempt, end, &gone, actions),
            Input::Lost { drv } => self.lost(drv, actions),
            Input::Sized { drv, bytes, signed } => self.sized(drv, bytes, signed),
            Input::Refused { builder, inputs } => self.refused(builder, &inputs),
            Input::Transferred { builder, bytes, seconds } => self.transferred(builder, bytes, seconds),
            Input::FetchEnded { drv, failure } => self.fetch_ended(drv, failure, actions),
            Input::Tick => {}
            Input::Cancel(level) => self.cancel(level, actions),
        }
        self.fail_unknown(actions);
        self.stop_if_failing(actions);
        self.lower_ranks();
        if self.stop == Stop::No {
            self.dispatch(actions);
        }
    }

    /// Whether something may begin on account of this that could not before, items that become ready left out. What takes
    /// no place away and what only says how long something takes changes at most whether it is worth it to wait, and that
    /// is looked at again in time.
    fn may_begin_more(&self, input: &Input) -> bool {
        match input {
            // Who asks for signatures may take what they did not take before.
            Input::Sized { signed: true, .. } if self.any_is_choosy() => true,
            Input::Prepared { .. }
            | Input::Sized { .. }
            | Input::Transferred { .. }
            | Input::FetchEnded { .. }
            | Input::Tick => self.recheck.is_some_and(|at| at <= self.now),
            Input::Add(_)
            | Input::AddFailed(_)
            | Input::NoMore
            | Input::BuilderKnown(_)
            | Input::BuilderUp(_)
            | Input::BuilderDown { .. }
            | Input::NoMoreBuilders
            | Input::Waiting { .. }
            | Input::AttemptEnded { .. }
            | Input::Lost { .. }
            | Input::Refused { .. }
            | Input::Cancel(_) => true,
        }
    }

    /// Items may come in any order within one batch.
    fn add(&mut self, items: Vec<Item>, actions: &mut Vec<Action>) {
        let mut added = Vec::with_capacity(items.len());
        for item in items {
            if self.is_replaceable(item.drv) {
                added.push(item.drv);
                self.replace(item);
            }
        }
        for drv in &added {
            self.link(*drv);
        }
        self.rank_added(&added);
        for drv in added {
            match self.impossible(drv) {
                Some(need) if self.stop == Stop::No => self.fail(drv, self.no_builder(need), actions),
                Some(_) | None => self.check_inputs(drv, actions),
            }
            match self.state(drv) {
                // The fetch that still runs is awaited; then it is placed.
                State::Fetching { .. } | State::Ended(_) => {}
                State::Unknown
                | State::Waiting
                | State::Ready
                | State::Delayed(_)
                | State::Running(_)
                | State::Replanning => self.place(drv, actions),
            }
        }
    }

    /// Whether an item for this drv says something new: it is none yet, or one to fetch. Building makes all outputs,
    /// so nothing is added to that; what has failed is not tried again under another name; and when the run is being
    /// stopped, more is no longer wanted of anything.
    fn is_replaceable(&self, drv: DrvId) -> bool {
        let fetch = || self.stop == Stop::No && self.items[drv.index()].work == Work::Fetch;
        match self.state(drv) {
            State::Unknown => true,
            State::Waiting
            | State::Ready
            | State::Delayed(_)
            | State::Running(_)
            | State::Fetching { .. }
            | State::Replanning => fetch(),
            State::Ended(end) => end == End::Fetched && self.stop == Stop::No,
        }
    }

    /// Puts the item into the books, out of every queue, not yet linked to its inputs.
    fn replace(&mut self, item: Item) {
        let drv = item.drv;
        let state = match self.state(drv) {
            State::Fetching { .. } => State::Fetching { replaced: true },
            State::Unknown
            | State::Waiting
            | State::Ready
            | State::Delayed(_)
            | State::Running(_)
            | State::Replanning
            | State::Ended(_) => State::Waiting,
        };
        self.set_state(drv, State::Waiting);
        for input in std::mem::take(&mut self.entry(drv).inputs) {
            self.entry(input).users.retain(|user| *user != drv);
            let place = (self.items[input.index()].seq, input);
            self.stale.insert(place);
        }
        let need = (item.work == Work::Build).then(|| self.need(Need::of(&item)));
        let seq = self.next_seq;
        self.next_seq += 1;
        let entry = self.entry(drv);
        entry.work = item.work;
        entry.here = item.here;
        entry.inputs = item.inputs;
        entry.inputs.sort_unstable();
        entry.inputs.dedup();
        entry.needs.clone_from(&entry.inputs);
        entry.there = item.there;
        entry.there.retain(|input| entry.inputs.binary_search(input).is_err());
        entry.there.sort_unstable();
        entry.there.dedup();
        entry.need = need;
        entry.cost = micros(item.cost);
        entry.ahead = micros(item.ahead);
        entry.seq = seq;
        self.missing.forget(drv);
        self.set_state(drv, state);
    }

    /// Registers an item with its inputs; those that are there already are forgotten.
    pub(super) fn link(&mut self, drv: DrvId) {
        let mut inputs = std::mem::take(&mut self.entry(drv).inputs);
        inputs.retain(|input| !self.state(*input).is_done());
        for input in &inputs {
            if self.state(*input) == State::Unknown {
                self.set_state(*input, State::Unknown);
            }
            self.entry(*input).users.push(drv);
        }
        self.entry(drv).inputs = inputs;
    }

    fn add_failed(&mut self, failed: Vec<(DrvId, Failure)>, actions: &mut Vec<Action>) {
        for (drv, failure) in failed {
            if self.is_replaceable(drv) {
                if !self.state(drv).is_open() {
                    self.set_state(drv, State::Waiting);
                }
                self.fail(drv, failure, actions);
            }
        }
    }

    /// Ends an item one of whose inputs has no success to come.
    pub(super) fn check_inputs(&mut self, drv: DrvId, actions: &mut Vec<Action>) {
        for at in 0..self.items[drv.index()].inputs.len() {
            let input = self.items[drv.index()].inputs[at];
            if let State::Ended(end) = self.state(input)
                && let Some((end, outcome)) = inherited(input, end)
            {
                self.end(drv, end, outcome, actions);
                return;
            }
        }
    }

    /// Gives an item that neither runs nor has ended its state: waiting, or ready.
    pub(super) fn place(&mut self, drv: DrvId, actions: &mut Vec<Action>) {
        if self.stop != Stop::No {
            self.end(drv, End::Cancelled, DrvOutcome::Cancelled, actions);
            return;
        }
        let state = if self.items[drv.index()].inputs.is_empty() { State::Ready } else { State::Waiting };
        self.set_state(drv, state);
    }

    /// What this item asks for, if no builder can ever take it.
    pub(super) fn impossible(&self, drv: DrvId) -> Option<NeedId> {
        let need = self.items[drv.index()].need?;
        (self.no_more_builders && self.needs[need.0].takers.is_empty()).then_some(need)
    }

    fn builders_changed(&mut self, actions: &mut Vec<Action>) {
        self.missing.forget_all();
        for live in self.live.values_mut() {
            let seat = self.builders.seat(live.builder);
            live.length = seat.map_or(0, |seat| seat.time(self.items[live.drv.index()].cost));
        }
        for row in &mut self.needs {
            row.takers = self.builders.takers(&row.need);
        }
        self.fail_impossible(actions);
    }

    /// Ends what no builder can take. What runs goes on: it may still succeed.
    fn fail_impossible(&mut self, actions: &mut Vec<Action>) {
        if !self.no_more_builders {
            return;
        }
        let impossible = (0..self.needs.len()).filter(|at| self.needs[*at].takers.is_empty());
        for need in impossible.map(NeedId).collect::<Vec<_>>() {
            for drv in self.needs[need.0].open.iter().copied().collect::<Vec<_>>() {
                match self.state(drv) {
                    State::Waiting | State::Ready | State::Delayed(_) | State::Fetching { .. } => {
                        self.fail(drv, self.no_builder(need), actions);
                    }
                    State::Unknown | State::Running(_) | State::Replanning | State::Ended(_) => {}
                }
            }
        }
    }

    pub(super) fn no_builder(&self, need: NeedId) -> Failure {
        let need = &self.needs[need.0].need;
        let mut text = format!("no builder for {}", need.system);
        if !need.features.is_empty() {
            text.push_str(&format!(" with {}", need.features.join(", ")));
        }
        if need.local_only {
            text.push_str(" in the local store, which has to build it because its output paths are not known before");
        }
        text.push_str(&format!("; {}", self.builders.describe()));
        Failure::new(Class::NoBuilder, text)
    }

    fn prepared(&mut self, attempt: AttemptId) {
        if self.live.get(&attempt).is_some_and(|live| live.phase == Phase::Preparing) {
            self.move_to(attempt, Phase::Prepared);
        }
    }

    /// Only what builds can wait for somebody else.
    fn waiting(&mut self, attempt: AttemptId, waiting: bool) {
        match (self.live.get(&attempt).map(|live| live.phase), waiting) {
            (Some(Phase::Building), true) => self.move_to(attempt, Phase::Waiting),
            (Some(Phase::Waiting), false) => self.move_to(attempt, Phase::Building),
            _ => {}
        }
    }

    /// What only prepares on a builder that takes nothing new would wait there for nobody knows how long.
    fn recall(&mut self, builder: BuilderId, actions: &mut Vec<Action>) {
        for (attempt, live) in self.live.iter_mut().filter(|(_, live)| live.builder == builder) {
            let begun = matches!(live.phase, Phase::Building | Phase::Waiting);
            if !begun && !std::mem::replace(&mut live.stopped, true) {
                live.recalled = true;
                actions.push(Action::Stop { attempt: *attempt });
            }
        }
    }

    fn attempt_ended(&mut self, attempt: AttemptId, end: AttemptEnd, gone: &[DrvId], actions: &mut Vec<Action>) {
        let Some(live) = self.live.remove(&attempt) else { return };
        let beside = self.builders.seat(live.builder).map_or(0, |seat| seat.building(live.kind));
        if let Some(seat) = self.builders.seat_mut(live.builder) {
            seat.moved(live.kind, Some(live.phase), None);
        }
        self.prepared.remove(&attempt);
        let drv = live.drv;
        match end {
            AttemptEnd::Built { .. } => {
                self.made(live.builder, drv);
                self.end(drv, End::Built, DrvOutcome::Built, actions);
            }
            AttemptEnd::AlreadyValid { .. } => {
                self.made(live.builder, drv);
                self.end(drv, End::Valid, DrvOutcome::Valid, actions);
            }
            // It was not the drv's fault.
            AttemptEnd::Failed(_) if self.stop == Stop::No && live.recalled => self.place_again(drv, actions),
            AttemptEnd::Failed(_) if self.stop == Stop::No && self.remake(drv, gone, actions) => {}
            AttemptEnd::Failed(failure) => self.attempt_failed(drv, live.builder, beside, failure, actions),
        }
    }

    /// `beside`: how many built there when it ended, itself included.
    fn attempt_failed(
        &mut self,
        drv: DrvId,
        builder: BuilderId,
        beside: u32,
        failure: Failure,
        actions: &mut Vec<Action>,
    ) {
        let row = retry_of(failure.class);
        // What was stopped may end in any of the ways that say nothing about the drv.
        if failure.class == Class::Cancelled || self.stop != Stop::No && !row.is_verdict() {
            self.end(drv, End::Cancelled, DrvOutcome::Cancelled, actions);
            return;
        }
        let before = &self.items[drv.index()].retried;
        // If the only builder is gone for good, how it went says more than that there is none.
        if !row.allows(failure.class, before, &self.policy) || self.impossible(drv).is_some() {
            self.fail(drv, failure, actions);
            return;
        }
        let entry = self.entry(drv);
        entry.retried.push(failure.class);
        if matches!(row.again, Again::Elsewhere | Again::Calmer)
            && let Err(at) = entry.avoid.binary_search(&builder)
        {
            entry.avoid.insert(at, builder);
        }
        if row.again == Again::Calmer {
            entry.calmer_than = Some(beside);
        }
        if let Again::After(seconds) = row.again
            && seconds > 0
        {
            let times = u32::try_from(entry.retried.iter().filter(|class| **class == failure.class).count());
            let longer = 3_u64.saturating_pow(times.unwrap_or(u32::MAX).saturating_sub(1));
            let delay = u64::from(seconds).saturating_mul(longer).saturating_mul(1_000_000);
            self.wait_for_lost(drv);
            // Meanwhile something that it needs may have failed for good.
            self.check_inputs(drv, actions);
            if self.state(drv).is_open() {
                self.set_state(drv, State::Delayed(Moment(self.now.0.saturating_add(delay))));
            }
        } else {
            self.place_again(drv, actions);
        }
    }

    fn fetch_ended(&mut self, drv: DrvId, failure: Option<Failure>, actions: &mut Vec<Action>) {
        if !self.in_flight.remove(&drv) {
            return;
        }
        let State::Fetching { replaced } = self.state(drv) else { return };
        if replaced {
            self.place_again(drv, actions);
            return;
        }
        match failure {
            None => {
                if let Some(local) = self.builders.local() {
                    self.holds(local, drv);
                }
                self.end(drv, End::Fetched, DrvOutcome::Fetched, actions);
            }
            Some(failure) if failure.class == Class::Cancelled || self.stop != Stop::No => {
                self.end(drv, End::Cancelled, DrvOutcome::Cancelled, actions);
            }
            // The planner sees to it that this comes to an end: each failed fetch leaves less to be fetched.
            Some(_) => {
                self.set_state(drv, State::Replanning);
                actions.push(Action::Replan { drv });
            }
        }
    }

    /// What may be tried again by now.
    fn end_delays(&mut self, actions: &mut Vec<Action>) {
        while let Some((until, drv)) = self.delays.first().copied()
            && until <= self.now
        {
            self.delays.remove(&(until, drv));
            self.begin_again(drv, actions);
        }
    }

    /// Inputs that were named and never added would be waited for until the end of days.
    fn fail_unknown(&mut self, actions: &mut Vec<Action>) {
        if !self.no_more || self.replanning > 0 || self.stop != Stop::No {
            return;
        }
        while let Some(drv) = self.unknown.first().copied() {
            self.set_state(drv, State::Waiting);
            self.fail(
                drv,
                Failure::new(Class::Internal, "it is an input of another drv and was never planned"),
                actions,
            );
        }
    }

    pub(super) fn fail(&mut self, drv: DrvId, failure: Failure, actions: &mut Vec<Action>) {
        self.end(drv, End::Failed, DrvOutcome::Failed(failure), actions);
    }

    /// Gives an item its outcome, and its users what follows from it.
    pub(super) fn end(&mut self, drv: DrvId, end: End, outcome: DrvOutcome, actions: &mut Vec<Action>) {
        let mut ending = vec![(drv, end, outcome)];
        while let Some((drv, end, outcome)) = ending.pop() {
            let state = self.state(drv);
            if !state.is_open() {
                continue;
            }
            // What no builder takes has failed for that, also if an input did first: so one story is told in any order.
            let (end, outcome) = match (end, self.impossible(drv)) {
                (End::DependencyFailed(_), Some(need)) => (End::Failed, DrvOutcome::Failed(self.no_builder(need))),
                _ => (end, outcome),
            };
            if matches!(state, State::Fetching { .. }) && self.in_flight.contains(&drv) {
                actions.push(Action::StopFetch { drv });
            }
            self.rank_ended(drv);
            self.set_state(drv, State::Ended(end));
            // Who tries again and needs it waits for it, or ends as it did.
            let done = self.state(drv).is_done();
            self.entry(drv).lost &= !done;
            actions.push(Action::Ended { drv, outcome });
            let mut users = std::mem::take(&mut self.entry(drv).users);
            match inherited(drv, end) {
                Some((end, outcome)) => {
                    users.sort_unstable_by(|a, b| b.cmp(a));
                    ending.extend(users.into_iter().map(|user| (user, end, outcome.clone())));
                }
                None => {
                    for user in users {
                        self.input_done(user, drv);
                    }
                }
            }
        }
    }

    fn input_done(&mut self, user: DrvId, input: DrvId) {
        let entry = self.entry(user);
        if let Ok(at) = entry.inputs.binary_search(&input) {
            entry.inputs.remove(at);
        }
        if entry.inputs.is_empty() && entry.state == State::Waiting {
            self.set_state(user, State::Ready);
        }
    }

    fn stop_if_failing(&mut self, actions: &mut Vec<Action>) {
        let limit = if self.policy.fail_fast { Some(1) } else { self.policy.max_failures.map(|limit| limit.max(1)) };
        if self.stop == Stop::No && limit.is_some_and(|limit| self.counts.failed >= limit) {
            self.drain(actions);
        }
    }

    fn cancel(&mut self, level: u8, actions: &mut Vec<Action>) {
        if level >= 1 && self.stop == Stop::No {
            self.drain(actions);
        }
        if level >= 2 && self.stop != Stop::Now {
            self.stop = Stop::Now;
            self.live.clear();
            self.prepared.clear();
            self.in_flight.clear();
            for drv in self.open_items() {
                self.end(drv, End::Cancelled, DrvOutcome::Cancelled, actions);
            }
        }
    }

    /// Nothing new starts; what runs is stopped and its end awaited, all else has ended.
    fn drain(&mut self, actions: &mut Vec<Action>) {
        self.stop = Stop::Draining;
        let mut idle = BTreeSet::new();
        for drv in self.open_items() {
            match self.state(drv) {
                State::Running(attempt) => {
                    if let Some(live) = self.live.get_mut(&attempt)
                        && !std::mem::replace(&mut live.stopped, true)
                    {
                        actions.push(Action::Stop { attempt });
                    }
                }
                State::Fetching { replaced: false } => actions.push(Action::StopFetch { drv }),
                State::Unknown
                | State::Waiting
                | State::Ready
                | State::Delayed(_)
                | State::Fetching { replaced: true }
                | State::Replanning
                | State::Ended(_) => {
                    idle.insert(drv);
                }
            }
        }
        for drv in idle {
            self.end(drv, End::Cancelled, DrvOutcome::Cancelled, actions);
        }
    }

    /// Everything without an outcome; the only walk over all items, once in a run that is stopped.
    fn open_items(&self) -> Vec<DrvId> {
        let all = (0_u32..).map(DrvId).zip(&self.items);
        all.filter(|(_, entry)| entry.state.is_open()).map(|(drv, _)| drv).collect()
    }
}

/// What becomes of the users of an item that ended so; `None` if they can go on.
fn inherited(drv: DrvId, end: End) -> Option<(End, DrvOutcome)> {
    let failed = |root| Some((End::DependencyFailed(root), DrvOutcome::DependencyFailed { root }));
    match end {
        End::Built | End::Fetched | End::Valid => None,
        End::Failed => failed(drv),
        End::DependencyFailed(root) => failed(root),
        End::Cancelled => Some((End::Cancelled, DrvOutcome::Cancelled)),
    }
}
