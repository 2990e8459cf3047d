//! How many requests to one server run at once: more while more comes of it, half of it when the server says "too many".

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};

use crate::store::stopwatch::Stopwatch;

/// Requests in flight that no server can be too slow for.
const FEWEST: usize = 4;

/// Requests in flight to a server of which nothing is known yet.
const FIRST: usize = 64;

/// How much faster the answers of a wider window must come for it to be widened again as much.
const WORTH: f64 = 1.1;

/// The width of the window (pure). It doubles with each windowful of answers as long as they come faster for it, and
/// then grows slowly; it is halved when the server wants fewer, once for all requests that were under way then.
#[derive(Debug)]
struct Window {
    width: usize,
    most: usize,
    /// Answers of this windowful, and since when.
    answers: usize,
    since: Duration,
    /// Answers a second, with the windowful before; 0 where there was none.
    rate: f64,
    doubling: bool,
    /// Requests that were under way when it was halved last.
    stale: usize,
}

impl Window {
    fn new(most: usize) -> Self {
        let most = most.max(1);
        let width = FIRST.min(most);
        Self { width, most, answers: 0, since: Duration::ZERO, rate: 0.0, doubling: true, stale: 0 }
    }

    /// The server answered. `full`: other requests wait for a place.
    fn answered(&mut self, now: Duration, full: bool) {
        self.stale = self.stale.saturating_sub(1);
        if !full {
            // What comes then says nothing about the server.
            (self.answers, self.since) = (0, now);
            return;
        }
        self.answers += 1;
        if self.answers < self.width {
            return;
        }
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let rate = self.answers as f64 / seconds.max(1e-6);
        self.doubling &= rate > self.rate * WORTH;
        let more = if self.doubling { self.width } else { 1 + self.width / 16 };
        self.width = self.width.saturating_add(more).min(self.most);
        (self.answers, self.since, self.rate) = (0, now, rate);
    }

    /// The server wants fewer.
    fn throttled(&mut self, now: Duration) {
        if self.stale > 0 {
            self.stale -= 1;
            return;
        }
        self.stale = self.width - 1;
        self.width = (self.width / 2).max(FEWEST).min(self.most);
        (self.answers, self.since, self.doubling) = (0, now, false);
    }
}

/// The way to a gate for requests that belong together. Only the first of them waits at the gate, so that a few that come
/// later by another door need not wait for thousands.
#[derive(Debug, Default)]
pub(super) struct Door(AsyncMutex<()>);

/// Lets so many requests pass at once.
#[derive(Debug)]
pub(super) struct Gate {
    permits: Semaphore,
    /// Places to be taken away as soon as they are given back.
    owed: AtomicUsize,
    /// Requests that have come by some door and have no place yet.
    waiting: AtomicUsize,
    window: Mutex<Window>,
    watch: Stopwatch,
}

/// One that waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place for one request; given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.gate.pay(1) == 1
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

impl Gate {
    /// At most so many at once.
    pub(super) fn new(most: usize) -> Self {
        let window = Window::new(most);
        let permits = Semaphore::new(window.width);
        let (owed, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { permits, owed, waiting, window: Mutex::new(window), watch: Stopwatch::start() }
    }

    /// Waits for a place, after those who came by the same door.
    pub(super) async fn enter_by(&self, door: &Door) -> Option<Place<'_>> {
        let _waiting = Waiting::count(&self.waiting);
        let _first = door.0.lock().await;
        self.enter().await
    }

    /// Waits for a place. `None` cannot happen: the gate is never closed.
    pub(super) async fn enter(&self) -> Option<Place<'_>> {
        let permit = self.permits.acquire().await.ok()?;
        Some(Place { gate: self, permit: Some(permit) })
    }

    /// The server answered.
    pub(super) fn answered(&self) {
        let full = self.permits.available_permits() == 0 || self.waiting.load(Ordering::Relaxed) > 0;
        self.change(|window, now| window.answered(now, full));
    }

    /// The server said "too many"; the place is given up.
    pub(super) fn throttled(&self, place: Option<Place<'_>>) {
        self.change(Window::throttled);
        drop(place);
    }

    fn change(&self, change: impl FnOnce(&mut Window, Duration)) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let before = window.width;
        change(&mut window, self.watch.elapsed());
        if window.width > before {
            let more = window.width - before;
            self.permits.add_permits(more - self.pay(more));
        } else if window.width < before {
            let fewer = before - window.width;
            self.owed.fetch_add(fewer - self.permits.forget_permits(fewer), Ordering::Relaxed);
        }
    }

    /// Pays back as much as is owed of this many places; gives how many.
    fn pay(&self, places: usize) -> usize {
        let less = |owed: usize| Some(owed - owed.min(places));
        self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or(0).min(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A windowful of answers that takes so long.
    fn windowful(window: &mut Window, now: &mut Duration, millis: u64) {
        *now += Duration::from_millis(millis);
        for _ in 0..window.width {
            window.answered(*now, true);
        }
    }

    #[test]
    fn a_window_doubles_while_answers_come_faster_for_it() {
        let (mut window, mut now) = (Window::new(1000), Duration::ZERO);
        let mut widths = Vec::new();
        // A server far away: whatever is asked at once comes at once. At 256 it has no more to give.
        for millis in [30, 30, 30, 60, 60] {
            windowful(&mut window, &mut now, millis);
            widths.push(window.width);
        }
        assert_eq!(widths, [128, 256, 512, 545, 580]);
        for _ in 0..10 {
            window.answered(now, false);
        }
        assert_eq!(window.width, 580, "answers that nobody waits behind say nothing");
    }

    #[test]
    fn a_window_is_halved_once_for_all_that_were_under_way() {
        let mut window = Window::new(100);
        (0..64).for_each(|_| window.throttled(Duration::ZERO));
        assert_eq!(window.width, 32);
        window.throttled(Duration::ZERO);
        assert_eq!(window.width, 16, "the next one was sent after that");
        (0..200).for_each(|_| window.throttled(Duration::ZERO));
        assert_eq!(window.width, FEWEST);
        let mut now = Duration::ZERO;
        windowful(&mut window, &mut now, 1);
        assert_eq!(window.width, FEWEST + 1, "and grows slowly from then on");
        assert_eq!(Window::new(2).width, 2);
    }

    #[tokio::test]
    async fn a_few_do_not_wait_for_many_that_came_before() {
        let gate = Gate::new(1);
        let (many, few) = (Door::default(), Door::default());
        let held = gate.enter().await;
        let order = Mutex::new(Vec::new());
        let pass = async |door: &Door, name: &'static str| {
            let place = gate.enter_by(door).await;
            order.lock().unwrap().push(name);
            drop(place);
        };
        let all = async {
            tokio::join!(pass(&many, "many"), pass(&many, "many"), pass(&many, "many"), pass(&few, "few"));
        };
        tokio::join!(all, async { drop(held) });
        assert_eq!(*order.lock().unwrap(), ["many", "few", "many", "many"]);
    }

    #[tokio::test]
    async fn places_are_taken_away_when_they_are_given_back() {
        let gate = Gate::new(8);
        let mut places = Vec::new();
        for _ in 0..8 {
            places.push(gate.enter().await);
        }
        gate.throttled(places.pop().unwrap());
        assert_eq!((gate.permits.available_permits(), gate.owed.load(Ordering::Relaxed)), (0, 3));
        places.clear();
        assert_eq!((gate.permits.available_permits(), gate.owed.load(Ordering::Relaxed)), (4, 0));
    }
}
