//! What is where, and what it costs to bring it. Owns sizes, holders and the measured links; all of it is only a
//! preference: whether something is really there, the driver finds out for each attempt.

use crate::id::{AttemptId, BuilderId, DrvId};

use super::rank::micros;
use super::state::{Entry, Scheduler};

/// Bytes of the outputs of a drv of which nothing is known.
pub(super) const UNKNOWN_SIZE: u64 = 4 << 20;

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
    /// How often it was measured.
    pub(super) measured: u32,
}

impl Default for Link {
    /// A good line: 50 MB/s, 3 ms.
    fn default() -> Self {
        Self { bytes: ASSUMED, seconds: ASSUMED / 50e6, path: 0.003, measured: 0 }
    }
}

impl Link {
    /// Takes in a measurement; what is no sensible number says nothing.
    pub(super) fn measured(&mut self, bytes: u64, seconds: f64) {
        if !seconds.is_finite() || seconds < 0.0 {
            return;
        }
        self.measured = self.measured.wrapping_add(1);
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
        entry.signed = signed;
        if entry.size.replace(bytes) != Some(bytes) {
            self.missing.changed(drv);
        }
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
            self.missing.changed(drv);
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
        let bytes = self.items.get(drv.index()).map_or(UNKNOWN_SIZE, Entry::bytes);
        Link::default().time(1, bytes)
    }
}
