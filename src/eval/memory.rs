//! What the system says about memory: of this machine, of the control group that drover is in, of one process. Does
//! not decide anything with it: see [`super::budget`] and `crew`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::budget::Room;

/// Limits from here on are none: version 1 of control groups says almost 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// What there is on this machine for drover.
#[must_use]
pub fn room() -> Room {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let available = field(&file("/proc/meminfo"), "MemAvailable:");
    Room { cgroup: cgroup_limit(Path::new("/sys/fs/cgroup"), &file("/proc/self/cgroup")), available }
}

/// Bytes of a line `NAME:  123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The tightest memory limit on the way from the control group of a process (the text of its `/proc/PID/cgroup`) up to
/// `root`, where control groups are mounted. A container may see its own group as the root, whatever the text says.
fn cgroup_limit(root: &Path, own: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mounts, file): (&[&str], _) = match controllers {
            "" => (&["", "unified"], "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (&["memory"], "memory.limit_in_bytes"),
            _ => continue,
        };
        for mount in mounts {
            let top = root.join(mount);
            let group: PathBuf = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
            limits.extend(group.ancestors().filter_map(|group| limit(&top.join(group).join(file))));
        }
    }
    limits.into_iter().min()
}

fn limit(file: &Path) -> Option<u64> {
    // `max` is no number.
    std::fs::read_to_string(file).ok()?.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Held {
    now: u64,
    /// The most since it was started.
    most: u64,
}

fn held(pid: u32) -> Option<Held> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Held { now: field(&status, "VmRSS:")?, most: field(&status, "VmHWM:")? })
}

/// What one attr took, as far as the system says; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// The most that its evaluator held meanwhile.
    pub peak: Option<u64>,
    /// How much of that came with this attr.
    pub grown: Option<u64>,
}

/// The memory of one evaluator after the other in the same place. Whoever samples and whoever evaluates share it.
#[derive(Debug, Default)]
pub struct Gauge {
    reading: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    pid: Option<u32>,
    /// When the attr in flight was taken up.
    before: Held,
    now: u64,
    /// The most while the attr is in flight.
    peak: u64,
}

impl Reading {
    /// Takes a sample.
    fn look(&mut self) {
        let Some(held) = self.pid.and_then(held) else { return };
        self.now = held.now;
        let most = if held.most > self.before.most { held.most } else { held.now };
        self.peak = self.peak.max(most);
    }

    fn cost(&self) -> Cost {
        let peak = (self.peak > 0).then_some(self.peak);
        Cost { peak, grown: peak.map(|peak| peak.saturating_sub(self.before.now)) }
    }
}

impl Gauge {
    fn with<T>(&self, change: impl FnOnce(&mut Reading) -> T) -> T {
        change(&mut self.reading.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this process is looked at; `None` when there is none any more. What the one before held at most
    /// stays known.
    pub(super) fn watch(&self, pid: Option<u32>) {
        self.with(|reading| *reading = Reading { pid, peak: reading.peak, ..Reading::default() });
    }

    /// A new attr is taken up, whatever process there is.
    pub(super) fn forget(&self) {
        self.with(|reading| reading.peak = 0);
    }

    /// The process takes up an attr.
    pub(super) fn begin(&self) {
        self.with(|reading| {
            if let Some(held) = reading.pid.and_then(held) {
                reading.before = held;
                reading.now = held.now;
                reading.peak = reading.peak.max(held.now);
            }
        });
    }

    /// Looks once more; what the attr in flight has taken so far.
    pub(super) fn cost(&self) -> Cost {
        self.with(|reading| {
            reading.look();
            reading.cost()
        })
    }

    /// Looks once more; bytes that the process holds now, 0 if there is none.
    pub(super) fn now(&self) -> u64 {
        self.with(|reading| {
            reading.look();
            reading.now
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "a/b/memory.max", "max\n");
        write(root, "a/memory.max", "3000000000\n");
        write(root, "memory.max", "4000000000\n");
        assert_eq!(cgroup_limit(root, "0::/a/b\n"), Some(3_000_000_000));
        assert_eq!(
            cgroup_limit(root, "0::/elsewhere\n"),
            Some(4_000_000_000),
            "a container sees its group as the root"
        );
        assert_eq!(cgroup_limit(root, "0::/../../x\n"), Some(4_000_000_000));
        assert_eq!(cgroup_limit(root, ""), None);
    }

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        write(root, "cpu/a/memory.limit_in_bytes", "5\n");
        assert_eq!(cgroup_limit(root, "4:memory:/a\n3:cpu:/a\n0::/\n"), None, "as good as none");
        write(root, "memory/memory.limit_in_bytes", "2000000000\n");
        assert_eq!(cgroup_limit(root, "4:cpuset,memory:/a\n"), Some(2_000_000_000));
        write(root, "unified/memory.max", "1000000000");
        assert_eq!(cgroup_limit(root, "4:memory:/a\n0::/\n"), Some(1_000_000_000));
    }

    #[test]
    fn a_gauge_tells_what_an_attr_took() {
        let gauge = Gauge::default();
        assert_eq!((gauge.now(), gauge.cost()), (0, Cost::default()));
        gauge.watch(Some(std::process::id()));
        gauge.begin();
        let before = gauge.now();
        assert!(before > 0);
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(gauge.now() >= before + (60 << 20));
        drop(block);
        let Cost { peak: Some(peak), grown: Some(grown) } = gauge.cost() else { panic!("the system does not say") };
        assert!(peak >= before + (60 << 20) && grown >= 60 << 20 && grown <= peak, "{before} {peak} {grown}");
        // The process is gone: what it held stays known until another attr is taken up.
        gauge.watch(None);
        assert_eq!((gauge.now(), gauge.cost().peak), (0, Some(peak)));
        gauge.forget();
        assert_eq!(gauge.cost(), Cost::default());
    }
}
