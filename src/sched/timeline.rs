//! What one builder will probably do next: when its places become free, if all takes as long as expected. A sketch
//! that is drawn anew for each decision.

/// The places of one kind on one builder. All times in µs since the start of the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Lane {
    now: u64,
    places: usize,
    /// When what holds a place ends, in ascending order.
    ends: Vec<u64>,
    /// Places that are free until what is meant for them has been brought.
    gaps: Vec<u64>,
}

impl Lane {
    /// Draws it anew, with nothing that holds a place.
    pub(super) fn begin(&mut self, now: u64, places: u32) {
        (self.now, self.places) = (now, places as usize);
        self.ends.clear();
        self.gaps.clear();
    }

    /// Something holds a place until then.
    pub(super) fn taken_until(&mut self, end: u64) {
        // There are few.
        let mut at = self.ends.len();
        self.ends.push(end);
        while at > 0 && self.ends[at - 1] > end {
            self.ends[at] = self.ends[at - 1];
            at -= 1;
        }
        self.ends[at] = end;
    }

    pub(super) fn places(&self) -> u32 {
        u32::try_from(self.places).unwrap_or(u32::MAX)
    }

    /// How many places are taken or kept, and how much waits for one.
    pub(super) fn taken(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// When so many places more than one are free.
    pub(super) fn free_at(&self, more: usize) -> u64 {
        let more = more.min(self.places.saturating_sub(1));
        match (self.ends.len() + more).checked_sub(self.places) {
            Some(at) => self.ends.get(at).copied().unwrap_or(u64::MAX),
            None => self.now,
        }
    }

    /// Whether a place is free, for now at least.
    pub(super) fn is_open(&self) -> bool {
        !self.gaps.is_empty() || self.free_at(0) <= self.now
    }

    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Whether something of that length, for which nothing has to be brought, may go first where what a place is kept for
    /// is not there yet. It may hold that up, by no more than it would have waited anyway.
    pub(super) fn fits_before(&self, length: u64) -> bool {
        self.gaps.last().is_some_and(|until| length / 2 <= until.saturating_sub(self.now))
    }

    /// It does.
    pub(super) fn go_before(&mut self) {
        self.gaps.pop();
    }

    /// Something takes a place as soon as there is one and its inputs are there; `more` places stay empty beside it.
    pub(super) fn take(&mut self, inputs_there: u64, length: u64, more: usize) {
        let free = self.free_at(more);
        if free <= self.now && inputs_there > self.now {
            let at = self.gaps.partition_point(|other| *other <= inputs_there);
            self.gaps.insert(at, inputs_there);
        }
        for _ in 0..=more {
            self.taken_until(free.max(inputs_there).saturating_add(length));
        }
    }
}
