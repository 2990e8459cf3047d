//! How much memory an evaluation may take, and how many evaluators that is enough for. Pure; `memory` asks the system.
//!
//! The budget holds for all evaluators of a run together. Their share bounds what one of them may keep between two
//! attrs; what happens when they exceed the budget in the middle of attrs is the business of `crew`.

/// Expected seconds of evaluation for which one more evaluator is worth its start, however few attrs these are.
const SECONDS_PER_WORKER: f64 = 1.0;
/// What an attr counts as, in seconds, where nobody knows how long it takes.
const SECONDS_OF_UNKNOWN: f64 = 0.125;
/// Memory of one evaluator, in MiB, if nobody says.
pub const DEFAULT_MEMORY_MIB: u64 = 4096;
/// Memory for which one more evaluator is worth its start, in bytes: about what a NixOS configuration takes.
const MEMORY_PER_WORKER: u64 = 1 << 30;

/// What sets the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `--eval-memory` or `[eval] max-memory`.
    Setting,
    /// The memory limit of the control group that drover is in.
    Cgroup,
    /// What the system says is available.
    Available,
}

/// What the evaluators of a run may hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// In bytes; 0 is no limit.
    pub bytes: u64,
    /// What sets it.
    pub bound: Bound,
}

/// What the system lets drover have, in bytes, as far as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// The memory limit of the control group, the tightest on the way up.
    pub cgroup: Option<u64>,
    /// `MemAvailable`.
    pub available: Option<u64>,
}

impl Budget {
    /// So many bytes, because somebody says so.
    #[must_use]
    pub fn set(bytes: u64) -> Self {
        Self { bytes, bound: Bound::Setting }
    }

    /// The least of what is asked for, the control group's limit and what is available. If nobody asks, a quarter of
    /// what there is stays for builds and for drover itself.
    #[must_use]
    pub fn least(asked: Option<u64>, room: Room) -> Self {
        let (cgroup, available) =
            (room.cgroup.map(|n| (n, Bound::Cgroup)), room.available.map(|n| (n, Bound::Available)));
        let there = cgroup.into_iter().chain(available).min_by_key(|(bytes, _)| *bytes);
        match (asked, there) {
            (Some(asked), Some((bytes, bound))) if bytes < asked => Self { bytes, bound },
            (Some(asked), _) => Self::set(asked),
            (None, Some((bytes, bound))) => Self { bytes: bytes / 4 * 3, bound },
            (None, None) => Self::set(0),
        }
    }

    /// ` which was 1536 MiB (--eval-memory)`, to end a sentence with; empty without a limit.
    #[must_use]
    pub fn which_was(&self) -> String {
        let bound = match self.bound {
            Bound::Setting => "--eval-memory",
            Bound::Cgroup => "by the memory limit of the control group",
            Bound::Available => "by what is available on this machine",
        };
        if self.bytes == 0 { String::new() } else { format!(", which was {} MiB ({bound})", self.bytes >> 20) }
    }
}

/// What the number of evaluators follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// `--eval-workers`.
    pub workers: Option<u32>,
    /// Cores of this machine.
    pub cores: u32,
    /// Attrs to evaluate.
    pub attrs: usize,
    /// Those of them of which nobody knows how long they take.
    pub unknown: usize,
    /// Seconds that the others took before.
    pub seconds: f64,
}

/// How many evaluators there are at most: as many as there are cores, as the attrs are worth, and as the memory is
/// enough for; at least one, unless told otherwise. A small flake has one, and so has one known to be quick.
#[must_use]
pub fn worker_count(need: &Need, budget: &Budget) -> u32 {
    let seconds = need.seconds + need.unknown as f64 * SECONDS_OF_UNKNOWN;
    let useful = (seconds / SECONDS_PER_WORKER).ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
    let most = u32::try_from(need.attrs).unwrap_or(u32::MAX);
    need.workers.unwrap_or_else(|| most_workers(need.cores, budget).min(useful)).min(most).max(1)
}

/// Evaluators that there are cores and memory for.
fn most_workers(cores: u32, budget: &Budget) -> u32 {
    let fit = if budget.bytes == 0 { u64::MAX } else { budget.bytes / MEMORY_PER_WORKER };
    cores.min(u32::try_from(fit).unwrap_or(u32::MAX)).max(1)
}

/// Bytes that one of so many evaluators may hold between two attrs. A quarter of the budget is for what comes and goes
/// within one attr. `asked_mib` is `--eval-max-memory-size`; 0 means that nobody says.
#[must_use]
pub fn share(asked_mib: u64, workers: Option<u32>, cores: u32, budget: &Budget) -> u64 {
    if asked_mib > 0 {
        return asked_mib.saturating_mul(1 << 20);
    }
    let most = DEFAULT_MEMORY_MIB << 20;
    if budget.bytes == 0 {
        return most;
    }
    let workers = workers.unwrap_or_else(|| most_workers(cores, budget)).max(1);
    (budget.bytes / 4 * 3 / u64::from(workers)).min(most)
}

/// Threads that each of so many evaluators may collect garbage with: all together about as many as there are cores.
#[must_use]
pub fn markers(workers: Option<u32>, cores: u32, budget: &Budget) -> u32 {
    let workers = workers.unwrap_or_else(|| most_workers(cores, budget)).max(1);
    (cores / workers).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_budget_is_the_least_of_three() {
        let room = |cgroup: u64, available: u64| Room { cgroup: Some(cgroup), available: Some(available) };
        for (asked, room, bytes, bound) in [
            (Some(2 * GIB), room(4 * GIB, 8 * GIB), 2 * GIB, Bound::Setting),
            (Some(6 * GIB), room(4 * GIB, 8 * GIB), 4 * GIB, Bound::Cgroup),
            (Some(6 * GIB), room(8 * GIB, 5 * GIB), 5 * GIB, Bound::Available),
            (Some(GIB), Room::default(), GIB, Bound::Setting),
            (None, room(4 * GIB, 8 * GIB), 3 * GIB, Bound::Cgroup),
            (None, room(8 * GIB, 4 * GIB), 3 * GIB, Bound::Available),
            (None, Room { cgroup: None, available: Some(4 * GIB) }, 3 * GIB, Bound::Available),
            (None, Room::default(), 0, Bound::Setting),
        ] {
            assert_eq!(Budget::least(asked, room), Budget { bytes, bound }, "{asked:?} {room:?}");
        }
    }

    #[test]
    fn the_number_of_evaluators_follows_cores_attrs_time_and_memory() {
        let count = |workers: Option<u32>, cores: u32, attrs: usize, seconds: f64, gib: u64| {
            let unknown = if seconds == 0.0 { attrs } else { 0 };
            worker_count(&Need { workers, cores, attrs, unknown, seconds }, &Budget::set(gib * GIB))
        };
        assert_eq!(count(None, 4, 8, 0.0, 16), 1, "a small flake uses one");
        assert_eq!(count(None, 4, 9, 0.0, 16), 2);
        assert_eq!(count(None, 4, 1500, 0.0, 16), 4, "no more than cores");
        assert_eq!(count(None, 4, 1500, 0.0, 2), 2, "no more than there is memory for");
        assert_eq!(count(None, 4, 1500, 0.0, 0), 4, "no limit");
        assert_eq!(count(None, 4, 3, 30.0, 16), 3, "three slow ones are worth three");
        assert_eq!(count(None, 4, 40, 0.4, 16), 1, "many that are known to be quick are not");
        let some = Need { workers: None, cores: 4, attrs: 20, unknown: 8, seconds: 0.5 };
        assert_eq!(worker_count(&some, &Budget::set(16 * GIB)), 2, "what is not known adds to what is");
        assert_eq!(count(None, 4, 3, f64::NAN, 16), 1);
        assert_eq!(count(Some(7), 4, 1500, 0.0, 1), 7, "who says so gets so many");
        assert_eq!(count(Some(7), 4, 3, 0.0, 16), 3, "but none with nothing to do");
        assert_eq!(count(Some(0), 4, 0, 0.0, 16), 1);
    }

    #[test]
    fn collectors_share_the_cores() {
        let budget = Budget::set(2 * GIB);
        assert_eq!(markers(Some(2), 4, &budget), 2);
        assert_eq!(markers(Some(2), 2, &budget), 1);
        assert_eq!(markers(Some(9), 4, &budget), 1);
        assert_eq!(markers(None, 4, &budget), 2);
        assert_eq!(markers(None, 4, &Budget::set(GIB)), 4);
        assert_eq!(markers(Some(0), 0, &budget), 1);
    }

    #[test]
    fn the_share_leaves_room_for_what_comes_and_goes() {
        assert_eq!(share(100, Some(2), 4, &Budget::set(GIB)), 100 << 20);
        assert_eq!(share(u64::MAX, None, 4, &Budget::set(GIB)), u64::MAX);
        assert_eq!(share(0, Some(2), 4, &Budget::set(2 * GIB)), GIB / 4 * 3);
        assert_eq!(share(0, None, 4, &Budget::set(2 * GIB)), GIB / 4 * 3);
        assert_eq!(share(0, None, 2, &Budget::set(64 * GIB)), DEFAULT_MEMORY_MIB << 20);
        assert_eq!(share(0, None, 2, &Budget::set(0)), DEFAULT_MEMORY_MIB << 20);
    }
}
