//! What the store of a builder does not take: what others have built and nobody has signed whom it trusts.
//!
//! That an untrusted login brings in nothing unsigned is known beforehand; whether a signature is by the right key, the
//! first refusal says, for all that was built where that was. As long as some builder is up or expected that takes what
//! a drv needs, the drv waits for that one; with none, it is tried nevertheless, and its failure says why.

use crate::id::{BuilderId, DrvId};

use super::builders::{Kind, Seat};
use super::state::{Entry, Scheduler};

impl Scheduler {
    /// A builder made a drv's outputs, or had them.
    pub(super) fn made(&mut self, builder: BuilderId, drv: DrvId) {
        self.holds(builder, drv);
        let made_on = &mut self.entry(drv).made_on;
        if !made_on.contains(&builder) {
            made_on.push(builder);
        }
    }

    /// Its outputs are nowhere any more; what comes in their place is somebody else's work.
    pub(super) fn unmade(&mut self, drv: DrvId) {
        let entry = self.entry(drv);
        entry.made_on.clear();
        entry.refused_by.clear();
        entry.signed = false;
    }

    /// A builder's store did not take the outputs of these, nor will it take what else was built where they were.
    pub(super) fn refused(&mut self, builder: BuilderId, inputs: &[DrvId]) {
        for input in inputs {
            let entry = self.entry(*input);
            entry.holders.retain(|holder| *holder != builder);
            if !entry.refused_by.contains(&builder) {
                entry.refused_by.push(builder);
            }
            let makers = entry.made_on.clone();
            self.missing.changed(*input);
            if let Some(seat) = self.builders.seat_mut(builder) {
                seat.refused = true;
                seat.refuses.extend(makers);
            }
        }
    }

    /// Whether any builder that is up may not take something.
    pub(super) fn any_is_choosy(&self) -> bool {
        self.builders.all().any(|(_, seat)| seat.up && seat.is_choosy())
    }

    /// Whether something that a drv needs cannot be brought to a builder because of who made it.
    pub(super) fn refuses(&self, id: BuilderId, seat: &Seat, drv: DrvId) -> bool {
        if !seat.is_choosy() {
            return false;
        }
        let Some(entry) = self.items.get(drv.index()) else { return false };
        entry.needs.iter().chain(&entry.there).any(|input| self.refuses_input(id, seat, *input))
    }

    fn refuses_input(&self, id: BuilderId, seat: &Seat, input: DrvId) -> bool {
        let Some(entry) = self.items.get(input.index()) else { return false };
        if entry.made_on.contains(&id) {
            return false;
        }
        if entry.refused_by.contains(&id) {
            return true;
        }
        let is_unknown = !seat.builder.trusting && !entry.signed;
        let is_refused = || entry.made_on.iter().all(|maker| seat.refuses.contains(maker));
        !entry.made_on.is_empty() && !self.says_what_it_is(entry) && (is_unknown || is_refused())
    }

    /// Whether its output is content-addressed.
    fn says_what_it_is(&self, entry: &Entry) -> bool {
        entry.need.is_some_and(|need| self.needs[need.0].need.kind == Kind::Fixed)
    }

    /// Whether a builder that is up, or expected, takes all that a drv needs.
    pub(super) fn some_takes(&self, drv: DrvId) -> bool {
        let need = self.items.get(drv.index()).and_then(|entry| entry.need);
        let takers = need.map_or(&[][..], |need| &self.needs[need.0].takers);
        takers.iter().any(|id| self.builders.seat(*id).is_some_and(|seat| !self.refuses(*id, seat, drv)))
    }
}
