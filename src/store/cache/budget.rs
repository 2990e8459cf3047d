//! How much memory all pushes of a run take together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one unit.
const UNIT: u64 = 64 * 1024;

/// Bytes that NARs on their way take at most, unless one alone takes more.
const USUAL: u64 = 128 * 1024 * 1024;

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
