//! How fast a server takes files, and how hard it is worth to compress for it.
//!
//! Where the user names no level, the level is the highest at which one core still makes files as fast as the server takes
//! them. Measured with 60 MB of programs, one core makes so many bytes of file a second: 60 MB at level 1, 25 at 3, 16 at
//! 6, 7 at 9; level 1 makes 12 % more bytes than level 3, level 6 makes 6 % fewer, level 9 makes 9 % fewer. Above that
//! nothing is won. Several cores work at once, so that level 1 is for servers that take what four of them make.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::sink::Codec;
use crate::store::stopwatch::Stopwatch;

/// Bytes of files after which there is a new word on the speed.
const SAMPLE: u64 = 4 << 20;

/// A file that takes no longer than so many answers says nothing: it was waited for, not sent.
const ANSWERS: u32 = 4;

/// The level for a server that takes so many bytes a second; zero: that is not known.
fn level(speed: u64) -> i32 {
    match speed {
        0 => Codec::DEFAULT_LEVEL,
        1..=5_000_000 => 9,
        5_000_001..=12_000_000 => 6,
        12_000_001..=100_000_000 => Codec::DEFAULT_LEVEL,
        _ => 1,
    }
}

/// Files on their way to one server.
#[derive(Debug)]
pub(super) struct Link {
    meter: Mutex<Meter>,
    watch: Stopwatch,
}

/// What is known of the speed (pure).
#[derive(Debug, Default)]
struct Meter {
    under_way: u32,
    /// When one began or ended last.
    since: Duration,
    /// Time in which something was under way, and the sum of the times of all files.
    busy: Duration,
    spent: Duration,
    bytes: u64,
    files: u32,
    /// Bytes a second, from the last sample that said something; zero before.
    speed: u64,
}

impl Meter {
    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if self.under_way > 0 {
            self.busy += passed;
            self.spent += passed * self.under_way;
        }
        self.since = now;
    }

    fn begins(&mut self, now: Duration) {
        self.pass(now);
        self.under_way += 1;
    }

    /// One has ended, of which so many bytes were taken. `answer`: how long a mere answer takes.
    fn ends(&mut self, now: Duration, bytes: u64, answer: Duration) {
        self.pass(now);
        self.under_way = self.under_way.saturating_sub(1);
        (self.bytes, self.files) = (self.bytes.saturating_add(bytes), self.files.saturating_add(1));
        if self.bytes < SAMPLE {
            return;
        }
        if self.spent >= answer * ANSWERS * self.files {
            self.speed = (self.bytes as f64 / self.busy.as_secs_f64().max(1e-6)) as u64;
        }
        *self = Self { under_way: self.under_way, since: now, speed: self.speed, ..Self::default() };
    }
}

impl Default for Link {
    fn default() -> Self {
        Self { meter: Mutex::default(), watch: Stopwatch::start() }
    }
}

impl Link {
    /// A file is on its way until this is [told](Passing::took) that it is there, or dropped.
    pub(super) fn passing(&self) -> Passing<'_> {
        self.change(|meter, now| meter.begins(now));
        Passing { link: self, bytes: 0, answer: Duration::ZERO }
    }

    /// The level at which files for this server are best compressed.
    pub(super) fn level(&self) -> i32 {
        level(self.change(|meter, _| meter.speed))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Meter, Duration) -> T) -> T {
        change(&mut self.meter.lock().unwrap_or_else(PoisonError::into_inner), self.watch.elapsed())
    }
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Passing<'a> {
    link: &'a Link,
    bytes: u64,
    answer: Duration,
}

impl Passing<'_> {
    /// The server took so many bytes, and its mere answers take so long.
    pub(super) fn took(mut self, bytes: u64, answer: Duration) {
        (self.bytes, self.answer) = (bytes, answer);
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.link.change(|meter, now| meter.ends(now, self.bytes, self.answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The speed after so many files of this size were sent one after the other, each in this time.
    fn speed(meter: &mut Meter, files: u32, bytes: u64, took: Duration, answer: Duration) -> u64 {
        for _ in 0..files {
            let now = meter.since + MS;
            meter.begins(now);
            meter.ends(now + took, bytes, answer);
        }
        meter.speed
    }

    #[test]
    fn slow_links_get_smaller_files() {
        let mut meter = Meter::default();
        assert_eq!(level(meter.speed), Codec::DEFAULT_LEVEL, "nothing is known");
        assert_eq!(speed(&mut meter, 1, 4 << 20, 2000 * MS, MS), 2 << 20);
        assert_eq!(level(meter.speed), 9);
        assert_eq!(speed(&mut meter, 4, 1 << 20, 100 * MS, MS), 10 << 20, "pauses between them do not count");
        assert_eq!(level(meter.speed), 6);
        speed(&mut meter, 1, 4 << 20, 100 * MS, MS);
        assert_eq!(level(meter.speed), 3);
        speed(&mut meter, 1, 40 << 20, 100 * MS, MS);
        assert_eq!(level(meter.speed), 1);
    }

    #[test]
    fn many_at_once_share_the_link() {
        let mut meter = Meter::default();
        (0..8).for_each(|_| meter.begins(Duration::ZERO));
        (0..8).for_each(|_| meter.ends(1000 * MS, 1 << 20, MS));
        // The first four were a sample; those after them ended in the same moment.
        assert_eq!(level(speed(&mut meter, 1, 4 << 20, 1000 * MS, MS)), 9);
    }

    #[test]
    fn what_only_waits_for_answers_says_nothing() {
        let mut meter = Meter::default();
        assert_eq!(speed(&mut meter, 100, 100 << 10, 60 * MS, 30 * MS), 0);
        let told = speed(&mut meter, 100, 100 << 10, 200 * MS, 30 * MS);
        assert!((511_000..=513_000).contains(&told), "{told}");
    }
}
