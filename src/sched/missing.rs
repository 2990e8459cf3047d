//! What the builders that are up lack of what an item needs, remembered from one decision to the next: the most urgent
//! items are looked at by many decisions, and between two of them little comes to any builder. Owns when what it
//! remembers does not hold any more; it is what a fresh look would say, always.

use crate::id::{BuilderId, DrvId};

use super::builders::Builders;
use super::state::{Entry, Scheduler};

/// How many items are remembered, and how many changes are looked through for what concerns one of them; then it begins
/// anew.
const MOST: usize = 1024;

/// One item at one builder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lack {
    /// Inputs that are not there, nor on their way, and their bytes.
    pub(super) paths: u32,
    pub(super) bytes: u64,
    /// µs that these take to come.
    pub(super) bring: u64,
    /// µs that it would build there.
    pub(super) length: u64,
}

/// An item that is remembered.
#[derive(Debug, Clone, Copy)]
struct Row {
    drv: DrvId,
    /// Changes that it has seen.
    seen: usize,
    /// Measurements that it has seen.
    measured: u32,
    /// What it needs, by [`bit`].
    needs: u64,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Builders that are up, in order.
    up: Vec<BuilderId>,
    /// Measurements of their links so far.
    measured: u32,
    rows: Vec<Row>,
    /// For each row one for each builder.
    lacks: Vec<Lack>,
    /// By drv: the number of its row and one more; 0 for none.
    numbers: Vec<u32>,
    /// Drvs that came to some builder, or are of another size than before, since it began.
    changes: Vec<DrvId>,
}

/// What tells most drvs that something does not need from those that it may.
fn bit(drv: DrvId) -> u64 {
    1 << (drv.0 % 64)
}

impl Missing {
    /// Something about the outputs of this drv is not as it was.
    pub(super) fn changed(&mut self, drv: DrvId) {
        if !self.rows.is_empty() {
            self.changes.push(drv);
        }
    }

    /// Forgets one item.
    pub(super) fn forget(&mut self, drv: DrvId) {
        if let Some(number) = self.numbers.get_mut(drv.index()) {
            *number = 0;
        }
    }

    /// Forgets all, also who is up.
    pub(super) fn forget_all(&mut self) {
        for row in self.rows.drain(..) {
            if let Some(number) = self.numbers.get_mut(row.drv.index()) {
                *number = 0;
            }
        }
        self.lacks.clear();
        self.changes.clear();
        self.up.clear();
    }

    /// Before items are looked at.
    pub(super) fn begin(&mut self, builders: &Builders) {
        if self.rows.len() > MOST || self.changes.len() > MOST {
            self.forget_all();
        }
        let up = || builders.all().filter(|(_, seat)| seat.up);
        if self.rows.is_empty() {
            self.up.clear();
            self.up.extend(up().map(|(id, _)| id));
        }
        self.measured = up().fold(0, |sum, (_, seat)| sum.wrapping_add(seat.link.measured));
    }

    /// The row of an item, as it is now.
    pub(super) fn of(&mut self, sched: &Scheduler, drv: DrvId) -> usize {
        let number = match self.numbers.get(drv.index()) {
            Some(number) if *number > 0 => *number as usize - 1,
            _ => self.add(sched, drv),
        };
        let row = self.rows[number];
        if row.seen < self.changes.len() {
            let needs = &sched.items[drv.index()].needs;
            let concerns = |drv: &DrvId| row.needs & bit(*drv) != 0 && needs.binary_search(drv).is_ok();
            if self.changes[row.seen..].iter().any(concerns) {
                self.fill(sched, number);
            }
            self.rows[number].seen = self.changes.len();
        }
        if row.measured != self.measured {
            self.fill(sched, number);
        }
        #[cfg(test)]
        self.is_as_new(sched, number);
        number
    }

    /// What each builder that is up lacks for the item of a row.
    pub(super) fn lacks(&self, row: usize) -> &[Lack] {
        &self.lacks[row * self.up.len()..][..self.up.len()]
    }

    fn add(&mut self, sched: &Scheduler, drv: DrvId) -> usize {
        let number = self.rows.len();
        let needs = sched.items[drv.index()].needs.iter().fold(0, |needs, input| needs | bit(*input));
        self.rows.push(Row { drv, seen: self.changes.len(), measured: self.measured, needs });
        if self.numbers.len() <= drv.index() {
            self.numbers.resize(drv.index() + 1, 0);
        }
        self.numbers[drv.index()] = u32::try_from(number + 1).unwrap_or(0);
        self.lacks.resize(self.rows.len() * self.up.len(), Lack::default());
        self.fill(sched, number);
        number
    }

    /// Checked by every test that runs anything.
    #[cfg(test)]
    fn is_as_new(&mut self, sched: &Scheduler, number: usize) {
        let remembered = self.lacks(number).to_vec();
        self.fill(sched, number);
        assert_eq!(self.lacks(number), remembered, "what is remembered of drv {}", self.rows[number].drv.0);
    }

    /// Looks at all that an item needs.
    fn fill(&mut self, sched: &Scheduler, number: usize) {
        self.rows[number].measured = self.measured;
        let entry = &sched.items[self.rows[number].drv.index()];
        let lacks = &mut self.lacks[number * self.up.len()..][..self.up.len()];
        lacks.fill(Lack::default());
        for input in &entry.needs {
            let Some(input) = sched.items.get(input.index()) else { continue };
            add_missing(lacks, &self.up, input);
        }
        for (lack, id) in lacks.iter_mut().zip(&self.up) {
            let Some(seat) = sched.builders.seat(*id) else { continue };
            (lack.bring, lack.length) = (seat.link.time(lack.paths, lack.bytes), seat.time(entry.cost));
        }
    }
}

/// Counts one input for each builder that does not hold it. Builders and holders are sorted.
fn add_missing(lacks: &mut [Lack], up: &[BuilderId], input: &Entry) {
    let bytes = input.bytes();
    let mut holders = input.holders.iter().peekable();
    for (lack, id) in lacks.iter_mut().zip(up) {
        while holders.next_if(|holder| **holder < *id).is_some() {}
        if holders.peek() != Some(&id) {
            lack.paths += 1;
            lack.bytes = lack.bytes.saturating_add(bytes);
        }
    }
}
