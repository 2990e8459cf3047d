//! What begins now: what is prepared and has a place, what `sketch` would begin, and what is fetched.

use std::cmp::Reverse;

use crate::event::{DrvOutcome, Moment};
use crate::id::AttemptId;

use super::item::Action;
use super::sketch::{Sketch, Start};
use super::state::{End, Live, Phase, Scheduler, State};

impl Scheduler {
    /// Starts whatever should start now.
    pub(super) fn dispatch(&mut self, actions: &mut Vec<Action>) {
        while let Some(drv) = self.passing.pop_first() {
            self.end(drv, End::Fetched, DrvOutcome::Fetched, actions);
        }
        while let Some(attempt) = self.next_go() {
            self.move_to(attempt, Phase::Building);
            actions.push(Action::Go { attempt });
        }
        let due = std::mem::take(&mut self.due);
        if due {
            self.recheck = None;
        }
        if due && !self.queues.is_empty() {
            let (missing, lanes) = (std::mem::take(&mut self.missing), std::mem::take(&mut self.lanes));
            let Sketch { starts, recheck, looked, missing, lanes, .. } = Sketch::of(self, missing, lanes).drawn();
            (self.missing, self.lanes) = (missing, lanes);
            self.recheck = recheck.map(Moment);
            #[cfg(test)]
            {
                self.steps += u64::from(looked);
            }
            let _ = looked;
            for start in starts {
                self.start(start, actions);
            }
        }
        while self.in_flight.len() < self.policy.fetch_slots.max(1) as usize
            && let Some((_, drv)) = self.fetches.first().copied()
        {
            self.set_state(drv, State::Fetching { replaced: false });
            self.in_flight.insert(drv);
            actions.push(Action::Fetch { drv });
        }
    }

    /// The most urgent prepared attempt with a place on its builder. Few are ever prepared without one.
    fn next_go(&self) -> Option<AttemptId> {
        let place = |live: &Live| self.builders.seat(live.builder).is_some_and(|seat| seat.has_place(live.kind));
        let going = self.prepared.iter().filter_map(|id| Some((*id, self.live.get(id)?)));
        let going = going.filter(|(_, live)| place(live) && !live.stopped);
        going.min_by_key(|(id, live)| (Reverse(self.items[live.drv.index()].rank), *id)).map(|(id, _)| id)
    }

    fn start(&mut self, Start { drv, builder, kind, bring }: Start, actions: &mut Vec<Action>) {
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        self.set_state(drv, State::Running(attempt));
        if let Some(seat) = self.builders.seat_mut(builder) {
            seat.moved(kind, None, Some(Phase::Preparing));
        }
        let (phase, since, entry) = (Phase::Preparing, self.now, &self.items[drv.index()]);
        let length = self.builders.seat(builder).map_or(0, |seat| seat.time(entry.cost));
        let (calmer_than, stopped, recalled) = (entry.calmer_than, false, false);
        self.live
            .insert(attempt, Live { drv, builder, kind, phase, since, bring, length, calmer_than, stopped, recalled });
        self.inputs_come(builder, drv);
        actions.push(Action::Start { attempt, drv, builder });
    }
}
