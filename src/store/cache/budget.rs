//! How much memory all pushes of a run take together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one unit.
const UNIT: u64 = 64 * 1024;

/// Bytes that NARs on their way take at most, unless one alone takes more.
const USUAL: u64 = 128 * 1024 * 1024;

/// Bytes that a NAR on its way takes at most: chunks on both sides of the compressor, and the compressor itself.
pub(super) const STREAM: u64 = 6 * 1024 * 1024;

/// Bytes that the parts of one file take together, unless two of them are more.
const PARTS: u64 = 50 * 1024 * 1024;

/// Parts of one file that are on their way at once, at most.
const AT_ONCE: u64 = 4;

/// How a file goes that is cut into parts of one size: some are on their way while the next one is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    /// Bytes of one.
    pub(super) size: u64,
    /// How many are on their way at most, besides the one that is filled.
    pub(super) at_once: usize,
}

impl Parts {
    /// Parts of so many bytes: fewer at once, the larger they are.
    pub(super) fn of(size: u64) -> Self {
        let at_once = (PARTS / size.max(1)).saturating_sub(1).clamp(1, AT_ONCE);
        Self { size, at_once: usize::try_from(at_once).unwrap_or(1) }
    }

    /// Bytes that the file takes in memory while it is sent.
    pub(super) fn memory(self) -> u64 {
        self.size.saturating_mul(self.at_once as u64 + 1).saturating_add(STREAM)
    }
}

/// Room for bytes in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    all: u32,
}

/// Room that is taken, until it is dropped.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "it is given back when dropped")] Option<OwnedSemaphorePermit>);

impl Default for Budget {
    fn default() -> Self {
        Self::new(USUAL)
    }
}

impl Budget {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let all = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Waits for room. What asks for more than there is gets all of it, once nobody else has any.
    pub async fn take(&self, bytes: u64) -> Room {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.all);
        // It is never closed, so this cannot fail.
        Room(Arc::clone(&self.units).acquire_many_owned(units).await.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_large_parts_go_at_once() {
        let at_once = |mib: u64| Parts::of(mib << 20).at_once;
        assert_eq!([1, 5, 8, 10, 16, 24, 25, 64].map(at_once), [4, 4, 4, 4, 2, 1, 1, 1]);
        for mib in 1..=25 {
            assert!(Parts::of(mib << 20).memory() <= PARTS + STREAM, "{mib}");
        }
        assert_eq!(Parts::of(0).memory(), STREAM);
    }

    #[tokio::test]
    async fn one_that_is_too_large_goes_alone() {
        let budget = Budget::new(10 * UNIT);
        let small = budget.take(1).await;
        let large = budget.take(100 * UNIT);
        tokio::pin!(large);
        assert!(futures_util::poll!(&mut large).is_pending());
        drop(small);
        let _large = large.await;
        assert_eq!(budget.units.available_permits(), 0);
    }
}
