//! What is where, and what it costs to bring it. Owns sizes, holders and the measured links; all of it is only a
//! preference: whether something is really there, the driver finds out for each attempt.

use std::collections::BTreeMap;

use crate::id::{AttemptId, BuilderId, DrvId};

use super::builders::Seat;
use super::rank::micros;
use super::state::Scheduler;

/// Bytes of the outputs of a drv of which nothing is known.
const UNKNOWN_SIZE: u64 = 4 << 20;

/// Bytes below which a transfer tells of the way there and back, not of the width of the link.
const LATENCY_BELOW: u64 = 256 << 10;

/// Of a new measurement, what counts against all before it.
const NEW: f64 = 0.2;

/// Bytes that all that is assumed of a link counts for.
const ASSUMED: f64 = (8 << 20) as f64;

/// Bytes measured that all earlier ones count for at most: a link may become slower.
const REMEMBERED: f64 = (512 << 20) as f64;

/// What it takes to bring something to a builder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// Bytes and the seconds that they took.
    bytes: f64,
    seconds: f64,
    /// Seconds for each path, however small.
    path: f64,
}

impl Default for Link {
    /// A good line: 50 MB/s, 3 ms.
    fn default() -> Self {
        Self { bytes: ASSUMED, seconds: ASSUMED / 50e6, path: 0.003 }
    }
}

impl Link {
    /// Takes in a measurement; what is no sensible number says nothing.
    pub(super) fn measured(&mut self, bytes: u64, seconds: f64) {
        if !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        if bytes < LATENCY_BELOW {
            self.path = (self.path * (1.0 - NEW) + seconds * NEW).min(60.0);
            return;
        }
        self.bytes += bytes as f64;
        self.seconds += (seconds - self.path).max(0.0);
        if self.bytes > REMEMBERED {
            self.seconds *= REMEMBERED / self.bytes;
            self.bytes = REMEMBERED;
        }
    }

    /// µs for so many paths of so many bytes together.
    pub(super) fn time(&self, paths: u32, bytes: u64) -> u64 {
        if paths == 0 {
            return 0;
        }
        micros(f64::from(paths) * self.path + bytes as f64 * self.seconds / self.bytes)
    }
}

impl Scheduler {
    pub(super) fn sized(&mut self, drv: DrvId, bytes: u64, signed: bool) {
        let entry = self.entry(drv);
        entry.size = Some(bytes);
        entry.signed = signed;
    }

    pub(super) fn transferred(&mut self, builder: BuilderId, bytes: u64, seconds: f64) {
        if let Some(seat) = self.builders.seat_mut(builder) {
            seat.link.measured(bytes, seconds);
        }
    }

    /// The outputs of this drv are on that builder, or on the way to it.
    pub(super) fn holds(&mut self, builder: BuilderId, drv: DrvId) {
        let holders = &mut self.entry(drv).holders;
        if let Err(at) = holders.binary_search(&builder) {
            holders.insert(at, builder);
        }
    }

    /// What came to a builder for this drv, or was on its way there.
    pub(super) fn inputs_come(&mut self, builder: BuilderId, drv: DrvId) {
        for at in 0..self.items[drv.index()].needs.len() {
            let input = self.items[drv.index()].needs[at];
            self.holds(builder, input);
        }
    }

    /// µs that the inputs of an attempt were expected to take when it began.
    pub(super) fn expected_bringing(&self, attempt: AttemptId) -> u64 {
        self.live.get(&attempt).map_or(0, |live| live.bring)
    }

    /// µs that an attempt is expected to build.
    pub(super) fn expected_building(&self, attempt: AttemptId) -> u64 {
        let Some(live) = self.live.get(&attempt) else { return 0 };
        self.builders.seat(live.builder).map_or(0, |seat| seat.time(self.items[live.drv.index()].cost))
    }

    /// µs that it takes to fetch the outputs of a drv into the local store.
    pub(super) fn expected_fetching(&self, drv: DrvId) -> u64 {
        let size = self.items.get(drv.index()).and_then(|entry| entry.size);
        Link::default().time(1, size.unwrap_or(UNKNOWN_SIZE))
    }

    /// µs until all inputs of this drv are on each of these builders, in their order, which is that of ids; 0 where they
    /// are, or are on their way, also for `coming`.
    ///
    /// Asked for many drvs in each decision, so all builders are looked at together.
    pub(super) fn bringing<'s, T>(
        &self,
        drv: DrvId,
        to: &[T],
        of: impl Fn(&T) -> (BuilderId, &'s Seat),
        coming: &Coming,
    ) -> Vec<u64> {
        let (mut all, mut held) = (Load::default(), vec![Load::default(); to.len()]);
        for input in &self.items[drv.index()].needs {
            let Some(entry) = self.items.get(input.index()) else { continue };
            let bytes = entry.size.unwrap_or(UNKNOWN_SIZE);
            all.add(bytes);
            let others = coming.get(input).map(Vec::as_slice).unwrap_or_default();
            let (mut holders, mut others) = (entry.holders.iter().peekable(), others.iter().peekable());
            for (to, held) in to.iter().zip(&mut held) {
                let id = of(to).0;
                // Both are in the order of ids as well.
                while holders.next_if(|holder| **holder < id).is_some() {}
                while others.next_if(|other| **other < id).is_some() {}
                if holders.peek() == Some(&&id) || others.peek() == Some(&&id) {
                    held.add(bytes);
                }
            }
        }
        to.iter().zip(held).map(|(to, held)| of(to).1.link.time(all.paths - held.paths, all.without(held))).collect()
    }
}

/// Which drvs are about to be on which builders, these in order.
pub(super) type Coming = BTreeMap<DrvId, Vec<BuilderId>>;

/// Some paths.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    paths: u32,
    /// Of all together; sizes are what others say.
    bytes: u128,
}

impl Load {
    fn add(&mut self, bytes: u64) {
        self.paths += 1;
        self.bytes += u128::from(bytes);
    }

    /// The bytes of those that are not among these, which are some of them.
    fn without(self, some: Self) -> u64 {
        u64::try_from(self.bytes - some.bytes).unwrap_or(u64::MAX)
    }
}
