//! Which item goes first and which builder gets it. Owns the preference; who may go where at all is in `builders`.

use std::cmp::Reverse;

use crate::event::DrvOutcome;
use crate::id::{AttemptId, BuilderId, DrvId};

use super::builders::Seat;
use super::item::Action;
use super::state::{End, Live, NeedId, Phase, Place, Scheduler, State};

impl Scheduler {
    /// Starts whatever can start: longest remaining path first.
    pub(super) fn dispatch(&mut self, actions: &mut Vec<Action>) {
        while let Some(drv) = self.passing.pop_first() {
            self.end(drv, End::Fetched, DrvOutcome::Fetched, actions);
        }
        while let Some(attempt) = self.next_go() {
            self.move_to(attempt, Phase::Building);
            actions.push(Action::Go { attempt });
        }
        while let Some((drv, builder)) = self.next_start() {
            self.start(drv, builder, actions);
        }
        while self.in_flight.len() < self.policy.fetch_slots.max(1) as usize
            && let Some((_, drv)) = self.fetches.first().copied()
        {
            self.set_state(drv, State::Fetching { replaced: false });
            self.in_flight.insert(drv);
            actions.push(Action::Fetch { drv });
        }
    }

    /// The most urgent prepared attempt with a slot on its builder. Few are ever prepared without one.
    fn next_go(&self) -> Option<AttemptId> {
        let slot = |live: &Live| self.builders.seat(live.builder).is_some_and(|seat| seat.has_slot());
        let going = self.prepared.iter().filter_map(|id| Some((*id, self.live.get(id)?)));
        let going = going.filter(|(_, live)| slot(live) && !live.stopped);
        going.min_by_key(|(id, live)| (Reverse(self.items[live.drv.index()].rank), *id)).map(|(id, _)| id)
    }

    /// The best item that some builder with a free slot takes. Looks at the head of each queue; there are as many
    /// queues as combinations of platform and features occur.
    fn next_start(&self) -> Option<(DrvId, BuilderId)> {
        if !self.builders.any_free() {
            return None;
        }
        let mut best: Option<(Place, BuilderId)> = None;
        for ((need, avoid), queue) in &self.queues {
            let Some(head) = queue.first() else { continue };
            if best.is_some_and(|(place, _)| place < *head) {
                continue;
            }
            if let Some(builder) = self.best_builder(*need, avoid) {
                best = Some((*head, builder));
            }
        }
        best.map(|((_, drv), builder)| (drv, builder))
    }

    /// The builder with a free slot that would be least loaded for its speed; then the faster, then the first. Builders
    /// on which the item failed come into question only when no other is up. `preferLocalBuild` is a preference:
    /// when the local slots are taken, it goes elsewhere.
    fn best_builder(&self, need: NeedId, avoid: &[BuilderId]) -> Option<BuilderId> {
        let row = &self.needs[need.0];
        let up = |id: &BuilderId| self.builders.seat(*id).filter(|seat| seat.up).map(|seat| (*id, seat));
        let takers: Vec<(BuilderId, &Seat)> = row.takers.iter().filter_map(up).collect();
        let avoidable = takers.iter().any(|(id, _)| !avoid.contains(id));
        let usable = |(id, seat): &&(BuilderId, &Seat)| seat.free() && !(avoidable && avoid.contains(id));
        let better = |a: &&(BuilderId, &Seat), b: &&(BuilderId, &Seat)| {
            let ((a_id, a), (b_id, b)) = (a, b);
            (a.load_with_one_more().total_cmp(&b.load_with_one_more()))
                .then_with(|| b.speed().total_cmp(&a.speed()))
                .then_with(|| a_id.cmp(b_id))
        };
        let local = |seat: &&(BuilderId, &Seat)| seat.1.builder.local;
        let at_home = takers.iter().filter(usable).filter(local).min_by(better).filter(|_| row.need.prefer_local);
        at_home.or_else(|| takers.iter().filter(usable).min_by(better)).map(|(id, _)| *id)
    }

    fn start(&mut self, drv: DrvId, builder: BuilderId, actions: &mut Vec<Action>) {
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        self.set_state(drv, State::Running(attempt));
        self.entry(drv).attempts += 1;
        if let Some(seat) = self.builders.seat_mut(builder) {
            seat.moved(None, Some(Phase::Preparing));
        }
        self.live.insert(attempt, Live { drv, builder, phase: Phase::Preparing, stopped: false });
        actions.push(Action::Start { attempt, drv, builder });
    }
}
