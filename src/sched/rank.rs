//! Ranks: for each open item its cost plus the largest rank among its open users, so the time from its start to the end
//! of the longest chain that waits for it; and what it is preferred by. Owns keeping them right while items come and go; the order that they give
//! is only a preference, nothing correct depends on it.
//!
//! Users are added after their inputs, so a walk from the latest added to the earliest sees every user before its
//! inputs and touches each item once. Replaced items break that order; then an item may be touched again, and the result
//! is the same.

use std::collections::BTreeSet;

use crate::id::DrvId;

use super::state::Scheduler;

/// A cost in µs. What is no sensible number of seconds costs nothing, or a year.
pub(super) fn micros(seconds: f64) -> u64 {
    const YEAR: f64 = 365.0 * 86400.0;
    if seconds.is_nan() {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 … a year")]
    let micros = (seconds.clamp(0.0, YEAR) * 1e6) as u64;
    micros
}

impl Scheduler {
    /// Ranks items that were just added, and raises what is below them.
    pub(super) fn rank_added(&mut self, added: &[DrvId]) {
        let mut heap: BTreeSet<(u64, DrvId)> = BTreeSet::new();
        for drv in added {
            if self.state(*drv).is_open() {
                let rank = self.rank_by_users(*drv);
                self.set_rank(*drv, rank);
                heap.insert((self.items[drv.index()].seq, *drv));
            }
        }
        while let Some((_, drv)) = heap.pop_last() {
            let rank = self.items[drv.index()].rank;
            for at in 0..self.items[drv.index()].inputs.len() {
                let input = self.items[drv.index()].inputs[at];
                let below = self.entry(input);
                let raised = below.rank_below(rank);
                if below.state.is_open() && raised > below.rank {
                    heap.insert((below.seq, input));
                    self.set_rank(input, raised);
                }
            }
        }
    }

    /// Notes that nobody waits for the inputs of this item on its account any more.
    pub(super) fn rank_ended(&mut self, drv: DrvId) {
        let rank = self.items[drv.index()].rank;
        for at in 0..self.items[drv.index()].inputs.len() {
            let input = self.items[drv.index()].inputs[at];
            let below = self.entry(input);
            if below.state.is_open() && below.rank == below.rank_below(rank) {
                let place = (below.seq, input);
                self.stale.insert(place);
            }
        }
    }

    /// Lowers the ranks that are too high.
    pub(super) fn lower_ranks(&mut self) {
        while let Some((_, drv)) = self.stale.pop_last() {
            if !self.state(drv).is_open() {
                continue;
            }
            let rank = self.rank_by_users(drv);
            if rank < self.items[drv.index()].rank {
                self.rank_ended(drv);
                self.set_rank(drv, rank);
            }
        }
    }

    /// The rank by definition. Forgets users that have ended: they do not come back.
    fn rank_by_users(&mut self, drv: DrvId) -> u64 {
        let mut users = std::mem::take(&mut self.entry(drv).users);
        users.retain(|user| self.state(*user).is_open());
        let longest = users.iter().map(|user| self.items[user.index()].rank).max().unwrap_or(0);
        #[cfg(test)]
        {
            self.steps += users.len() as u64;
        }
        let entry = self.entry(drv);
        entry.users = users;
        entry.rank_below(longest)
    }
}
