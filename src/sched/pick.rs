//! Which item goes first and which builder gets it. Owns the preference; who may go where at all is in `builders`.
//!
//! Items are taken by the longest remaining path, and each is put where it is expected to end first: when a place is free
//! there, or when its inputs have come, whichever is later, and then its cost by the builder's speed. Mostly that is a
//! builder with a free place. Where it is one that is busy (a fast one, or the one that holds the inputs), the item
//! waits for it, and the place that it will take counts as taken for all that is less urgent.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::event::{DrvOutcome, Moment};
use crate::id::{AttemptId, BuilderId, DrvId};

use super::builders::{Kind, Seat};
use super::item::Action;
use super::state::{End, Entry, Live, NeedId, Phase, Place, Scheduler, State};
use super::timeline::Lane;

/// How many items are looked at for places that are free, and for such as become free. More are only looked at when
/// some of these began.
const LOOKS: u32 = 64;
const LOOKS_AHEAD: u32 = 16;

/// µs that inputs may wait at a builder for a place, besides as long again as they take to come.
const AHEAD: u64 = 1_000_000;

/// µs that an item has to end earlier elsewhere for it to wait while a place is free; and one part in so many of what it
/// takes.
const WORTH_WAITING: u64 = 50_000;
const WORTH_WAITING_PART: u64 = 20;

/// µs after which a decision to wait is looked at again at the earliest.
const RECHECK: u64 = 100_000;

impl Scheduler {
    /// Starts whatever should start now.
    pub(super) fn dispatch(&mut self, actions: &mut Vec<Action>) {
        while let Some(drv) = self.passing.pop_first() {
            self.end(drv, End::Fetched, DrvOutcome::Fetched, actions);
        }
        while let Some(attempt) = self.next_go() {
            self.move_to(attempt, Phase::Building);
            actions.push(Action::Go { attempt });
        }
        self.recheck = None;
        while !self.queues.is_empty() {
            let Sketch { starts, recheck, cut, looked, .. } = Sketch::of(self).drawn();
            self.recheck = recheck.map(Moment);
            #[cfg(test)]
            {
                self.steps += u64::from(looked);
            }
            let _ = looked;
            let again = cut && !starts.is_empty();
            for start in starts {
                self.start(start, actions);
            }
            if !again {
                break;
            }
        }
        while self.in_flight.len() < self.policy.fetch_slots.max(1) as usize
            && let Some((_, drv)) = self.fetches.first().copied()
        {
            self.set_state(drv, State::Fetching { replaced: false });
            self.in_flight.insert(drv);
            actions.push(Action::Fetch { drv });
        }
    }

    /// The most urgent prepared attempt with a place on its builder. Few are ever prepared without one.
    fn next_go(&self) -> Option<AttemptId> {
        let place = |live: &Live| self.builders.seat(live.builder).is_some_and(|seat| seat.has_place(live.kind));
        let going = self.prepared.iter().filter_map(|id| Some((*id, self.live.get(id)?)));
        let going = going.filter(|(_, live)| place(live) && !live.stopped);
        going.min_by_key(|(id, live)| (Reverse(self.items[live.drv.index()].rank), *id)).map(|(id, _)| id)
    }

    fn start(&mut self, Start { drv, builder, kind, bring }: Start, actions: &mut Vec<Action>) {
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        self.set_state(drv, State::Running(attempt));
        if let Some(seat) = self.builders.seat_mut(builder) {
            seat.moved(kind, None, Some(Phase::Preparing));
        }
        let (phase, since) = (Phase::Preparing, self.now);
        self.live.insert(attempt, Live { drv, builder, kind, phase, since, bring, stopped: false, recalled: false });
        self.inputs_come(builder, drv);
        actions.push(Action::Start { attempt, drv, builder });
    }
}

/// Something that is to begin.
struct Start {
    drv: DrvId,
    builder: BuilderId,
    kind: Kind,
    /// µs that its inputs are expected to take.
    bring: u64,
}

/// A builder that is up, and what it will probably do.
struct Bench<'a> {
    id: BuilderId,
    seat: &'a Seat,
    /// By [`Kind::index`].
    lanes: [Lane; 3],
    /// How many more attempts may begin there.
    room: [u32; 3],
}

impl Bench<'_> {
    /// Whether something could begin there and build at once.
    fn is_open(&self, kind: Kind) -> bool {
        self.room[kind.index()] > 0 && self.lanes[kind.index()].is_open()
    }

    /// Whether something could begin there though it could not build at once.
    fn looks_ahead(&self, kind: Kind) -> bool {
        self.room[kind.index()] > 0 && self.seat.builder.ahead(kind) > 0
    }
}

/// Items of one queue, and the benches that they may go to.
struct Line<'a> {
    items: std::iter::Peekable<std::collections::btree_set::Iter<'a, Place>>,
    kind: Kind,
    benches: Vec<usize>,
    /// Those on which its items failed: for what no other takes.
    failed_on: Vec<usize>,
}

/// What would become of an item at a builder.
#[derive(Clone, Copy)]
struct Outlook {
    bench: usize,
    /// µs that its inputs take to come.
    bring: u64,
    /// When there is a place.
    free: u64,
    /// Places that stay empty besides.
    more: usize,
    /// It builds before that for which the place is kept.
    before: bool,
    length: u64,
    end: u64,
    /// It may begin now.
    now: bool,
    /// And build as soon as its inputs are there.
    place: bool,
    /// How full the builder would be, in relation to its speed.
    load: f64,
}

/// What would be done next, and what comes of it.
struct Sketch<'a> {
    sched: &'a Scheduler,
    now: u64,
    benches: Vec<Bench<'a>>,
    starts: Vec<Start>,
    /// What is brought on account of these.
    coming: BTreeSet<(BuilderId, DrvId)>,
    /// When a decision to wait may look different.
    recheck: Option<u64>,
    looked: u32,
    looked_ahead: u32,
    /// Some bench may not take something because of who made it.
    choosy: bool,
    /// Items that could have begun, were it not for that.
    refused: u32,
    /// There may be more to begin.
    cut: bool,
}

impl<'a> Sketch<'a> {
    /// What runs, and what is to run on a certain builder because it was begun there.
    fn of(sched: &'a Scheduler) -> Self {
        let now = sched.now.0;
        let bench = |(id, seat): (BuilderId, &'a Seat)| Bench {
            id,
            seat,
            lanes: Kind::ALL.map(|kind| Lane::new(now, seat.builder.places(kind))),
            room: Kind::ALL.map(|kind| seat.room(kind)),
        };
        let mut benches: Vec<Bench> = sched.builders.all().filter(|(_, seat)| seat.up).map(bench).collect();
        let mut bound: Vec<(&Live, u64)> = Vec::new();
        for live in sched.live.values() {
            let Ok(at) = benches.binary_search_by_key(&live.builder, |bench| bench.id) else { continue };
            let (bench, entry) = (&mut benches[at], &sched.items[live.drv.index()]);
            let (length, spent) = (bench.seat.time(entry.cost), now.saturating_sub(live.since.0));
            match live.phase {
                Phase::Building => {
                    for _ in 0..1 + kept_empty(entry, bench.seat.builder.places(live.kind)) {
                        bench.lanes[live.kind.index()].taken_until(now.saturating_add(left(spent, length)));
                    }
                }
                Phase::Prepared => bound.push((live, now)),
                Phase::Preparing => bound.push((live, now.saturating_add(left(spent, live.bring)))),
                Phase::Waiting => {}
            }
        }
        for (live, there) in bound {
            let Ok(at) = benches.binary_search_by_key(&live.builder, |bench| bench.id) else { continue };
            let (bench, entry) = (&mut benches[at], &sched.items[live.drv.index()]);
            let more = kept_empty(entry, bench.seat.builder.places(live.kind));
            bench.lanes[live.kind.index()].take(there, bench.seat.time(entry.cost), more);
        }
        Self {
            sched,
            now,
            benches,
            starts: Vec::new(),
            coming: BTreeSet::new(),
            recheck: None,
            looked: 0,
            looked_ahead: 0,
            choosy: sched.any_is_choosy(),
            refused: 0,
            cut: false,
        }
    }

    /// Goes through the queues, the most urgent item first, as long as something may begin.
    fn drawn(mut self) -> Self {
        let queues = self.sched.queues.iter();
        let mut lines: Vec<Line> = queues.map(|((need, avoid), queue)| self.line(*need, avoid, queue)).collect();
        loop {
            let heads = lines.iter_mut().enumerate().filter_map(|(at, line)| Some((**line.items.peek()?, at)));
            let Some((_, at)) = heads.min() else { break };
            if !self.may_begin(&lines[at]) {
                lines.swap_remove(at);
                continue;
            }
            let line = &mut lines[at];
            if let Some((_, drv)) = line.items.next() {
                let (kind, benches) = (line.kind, self.who_takes(*drv, line));
                self.place(*drv, kind, &benches);
            }
        }
        self
    }

    /// Benches on which the item failed come into question only when no other is up.
    fn line(&self, need: NeedId, avoid: &[BuilderId], queue: &'a BTreeSet<Place>) -> Line<'a> {
        let row = &self.sched.needs[need.0];
        let up = row.takers.iter().filter_map(|id| self.benches.binary_search_by_key(id, |bench| bench.id).ok());
        let (mut failed_on, mut benches) = up.partition::<Vec<usize>, _>(|at| avoid.contains(&self.benches[*at].id));
        if benches.is_empty() {
            std::mem::swap(&mut failed_on, &mut benches);
        }
        Line { items: queue.iter().peekable(), kind: row.need.kind, benches, failed_on }
    }

    /// The benches of a line that take what this item needs, whoever made it. None: somebody will who is not up.
    fn who_takes<'l>(&mut self, drv: DrvId, line: &'l Line) -> Cow<'l, [usize]> {
        if !self.choosy {
            return Cow::Borrowed(&line.benches);
        }
        let takes = |at: &&usize| !self.sched.refuses(self.benches[**at].id, self.benches[**at].seat, drv);
        let among = |benches: &[usize]| -> Vec<usize> { benches.iter().filter(takes).copied().collect() };
        let mut takers = among(&line.benches);
        if takers.is_empty() {
            takers = among(&line.failed_on);
        }
        if takers.is_empty() && !self.sched.some_takes(drv) {
            return Cow::Borrowed(&line.benches);
        }
        let open = |at: &usize| self.benches[*at].is_open(line.kind);
        if line.benches.iter().chain(&line.failed_on).any(open) && !takers.iter().any(open) {
            // That it was looked at changes nothing for the others, as long as there are not too many of these.
            self.looked = self.looked.saturating_sub(1);
            self.refused += 1;
        }
        Cow::Owned(takers)
    }

    /// Whether some bench of a line may have something for one of its items to begin. Those that many items could not
    /// go to because of who made what they need are not looked at any more.
    fn may_begin(&mut self, line: &Line) -> bool {
        let all = || line.benches.iter().chain(line.failed_on.iter().filter(|_| self.choosy));
        let counts = |bench: &Bench| self.refused < LOOKS || !bench.seat.is_choosy();
        let benches = || all().map(|at| &self.benches[*at]).filter(|bench| counts(bench));
        let any = |is: fn(&Bench<'a>, Kind) -> bool| benches().any(|bench| is(bench, line.kind));
        let (count, most) = if any(Bench::is_open) {
            (&mut self.looked, LOOKS)
        } else if any(Bench::looks_ahead) {
            (&mut self.looked_ahead, LOOKS_AHEAD)
        } else {
            return false;
        };
        self.cut |= *count >= most;
        *count += 1;
        *count <= most
    }

    /// Begins an item, or keeps the place for it that it waits for.
    fn place(&mut self, drv: DrvId, kind: Kind, benches: &[usize]) {
        let outlooks = benches.iter().filter_map(|at| self.outlook(drv, kind, *at));
        let (mut best, mut now): (Option<Outlook>, Option<Outlook>) = (None, None);
        for outlook in outlooks {
            if outlook.now && now.is_none_or(|other| self.is_better(kind, &outlook, &other)) {
                now = Some(outlook);
            }
            if best.is_none_or(|other| self.is_better(kind, &outlook, &other)) {
                best = Some(outlook);
            }
        }
        let Some(best) = best else { return };
        // A free place is worth something; that inputs could begin to come elsewhere is not.
        let worth = |now: &Outlook| now.place && now.end <= best.end.saturating_add(self.worth_waiting(now));
        let chosen = now.filter(|now| now.bench == best.bench || worth(now));
        let begins = chosen.is_some();
        let Outlook { bench: at, bring, free, more, before, length, .. } = chosen.unwrap_or(best);
        let bench = &mut self.benches[at];
        if before {
            bench.lanes[kind.index()].go_before();
        } else {
            bench.lanes[kind.index()].take(self.now.saturating_add(bring), length, more);
        }
        if begins {
            bench.room[kind.index()] = bench.room[kind.index()].saturating_sub(1);
            if bring > 0 {
                self.coming.extend(self.sched.items[drv.index()].needs.iter().map(|input| (bench.id, *input)));
            }
            self.starts.push(Start { drv, builder: bench.id, kind, bring });
        } else if now.is_some() {
            self.look_again(free.saturating_add(free.saturating_sub(self.now) / 10));
        } else if bring > 0 && bench.looks_ahead(kind) {
            self.look_again(free.saturating_sub(patience(bring)));
        }
    }

    fn worth_waiting(&self, outlook: &Outlook) -> u64 {
        (outlook.end.saturating_sub(self.now) / WORTH_WAITING_PART).max(WORTH_WAITING)
    }

    fn look_again(&mut self, at: u64) {
        let at = at.max(self.now.saturating_add(RECHECK));
        self.recheck = Some(self.recheck.map_or(at, |other| other.min(at)));
    }

    fn outlook(&self, drv: DrvId, kind: Kind, at: usize) -> Option<Outlook> {
        let bench = self.benches.get(at)?;
        let (entry, lane) = (self.sched.items.get(drv.index())?, &bench.lanes[kind.index()]);
        let places = bench.seat.builder.places(kind);
        let more = kept_empty(entry, places);
        let (bring, length, free) =
            (self.sched.bringing(drv, bench.id, &self.coming), bench.seat.time(entry.cost), lane.free_at(more));
        let before = bring == 0 && more == 0 && free > self.now && lane.fits_before(length);
        let begin = if before { self.now } else { free.max(self.now.saturating_add(bring)) };
        let soon = || bring > 0 && bench.looks_ahead(kind) && free.saturating_sub(self.now) <= patience(bring);
        let place = bench.room[kind.index()] > 0 && (before || free <= self.now);
        let now = place || bench.room[kind.index()] > 0 && soon();
        let load = f64::from(lane.taken() + 1) / (f64::from(places.max(1)) * bench.seat.speed());
        let end = begin.saturating_add(length);
        Some(Outlook { bench: at, bring, free, more, before, length, end, now, place, load })
    }

    /// Earlier; with less to bring; what is tiny rather in the local store; then what is less loaded for its speed, faster, first.
    fn is_better(&self, kind: Kind, one: &Outlook, other: &Outlook) -> bool {
        let (a, b) = (&self.benches[one.bench], &self.benches[other.bench]);
        let away = |bench: &Bench| kind == Kind::Small && !bench.seat.builder.local;
        (one.end, !one.place, one.bring, away(a))
            .cmp(&(other.end, !other.place, other.bring, away(b)))
            .then_with(|| one.load.total_cmp(&other.load))
            .then_with(|| b.seat.speed().total_cmp(&a.seat.speed()))
            .then_with(|| a.id.cmp(&b.id))
            .is_lt()
    }
}

/// µs that something takes yet, never none. What is late is expected to be as late again.
fn left(spent: u64, expected: u64) -> u64 {
    if spent < expected { expected - spent } else { (spent - expected).max(expected / 8).max(1) }
}

/// How many places more than its own an item keeps empty on a builder with so many: fewer are to build beside it than
/// did when it was killed.
fn kept_empty(entry: &Entry, places: u32) -> usize {
    let more = entry.calmer_than.map_or(0, |others| places.saturating_add(1).saturating_sub(others.max(2)));
    more.min(places.saturating_sub(1)) as usize
}

/// How long before there is a place inputs may begin to come that take so long.
fn patience(bring: u64) -> u64 {
    bring.saturating_mul(2).saturating_add(AHEAD)
}
