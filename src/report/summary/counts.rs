//! Running counts.

/// Running counts, so that a screen need not go through everything ten times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attrs whose evaluation ended.
    pub evaluated: usize,
    /// Attrs that do not evaluate.
    pub eval_failed: usize,
    /// Drvs to build.
    pub builds: usize,
    /// Of these: there now.
    pub built: usize,
    /// Of those: there already when their turn came, because somebody else had built them.
    pub found: usize,
    /// Of these: failed themselves.
    pub failed: usize,
    /// Of these: not tried because of another, or stopped.
    pub given_up: usize,
    /// Attempts that go on, without those whose inputs are being brought or that wait for a slot.
    pub running: usize,
    /// Outputs of drvs that are on their way into the local store.
    pub returning: usize,
    /// Drvs to fetch.
    pub fetches: usize,
    /// Of these: done.
    pub fetched: usize,
    /// Paths queued for pushing, over all caches.
    pub push_queued: usize,
    /// Of these: in the cache.
    pub pushed: usize,
    /// Of these: given up.
    pub push_failed: usize,
    /// Bytes that went to caches.
    pub pushed_bytes: u64,
}
