//! Which item goes first and which builder gets it. Owns the preference; who may go where at all is in `builders`.
//!
//! Items are taken by the longest remaining path, and each is put where it is expected to end first: when a place is free
//! there, or when its inputs have come, whichever is later, and then its cost by the builder's speed. Mostly that is a
//! builder with a free place. Where it is one that is busy (a fast one, or the one that holds the inputs), the item
//! waits for it, and the place that it will take counts as taken for all that is less urgent.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{BuilderId, DrvId};

use super::builders::{Kind, Seat};
use super::missing::{Lack, Missing};
use super::state::{Entry, Live, NeedId, Phase, Place, Scheduler};
use super::timeline::Lane;

/// How many items are looked at for places that are free, and for such as become free, besides those that begin.
const LOOKS: u32 = 64;
const LOOKS_AHEAD: u32 = 4;

/// µs that inputs may wait at a builder for a place, besides as long again as they take to come.
const AHEAD: u64 = 1_000_000;

/// µs that an item has to end earlier elsewhere for it to wait while a place is free; and one part in so many of what it
/// takes.
const WORTH_WAITING: u64 = 50_000;
const WORTH_WAITING_PART: u64 = 20;

/// µs after which a decision to wait is looked at again at the earliest.
const RECHECK: u64 = 100_000;

/// Something that is to begin.
pub(super) struct Start {
    pub(super) drv: DrvId,
    pub(super) builder: BuilderId,
    pub(super) kind: Kind,
    /// µs that its inputs are expected to take.
    pub(super) bring: u64,
}

/// A builder that is up, and what it will probably do.
struct Bench<'a> {
    id: BuilderId,
    seat: &'a Seat,
    /// By [`Kind::index`]: how many more attempts may begin there.
    room: [u32; 3],
}

impl Bench<'_> {
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
}

/// What would be done next, and what comes of it.
pub(super) struct Sketch<'a> {
    sched: &'a Scheduler,
    now: u64,
    benches: Vec<Bench<'a>>,
    /// For each bench, by [`Kind::index`].
    pub(super) lanes: Vec<[Lane; 3]>,
    pub(super) starts: Vec<Start>,
    /// What is brought on account of these, and to which benches. Nothing of that is there.
    coming: BTreeMap<DrvId, Vec<usize>>,
    pub(super) missing: Missing,
    /// What each bench lacks for the item that is looked at, where some of that is coming.
    patched: Vec<Lack>,
    /// When a decision to wait may look different.
    pub(super) recheck: Option<u64>,
    pub(super) looked: u32,
    looked_ahead: u32,
    /// Some bench may not take something because of who made it.
    choosy: bool,
    /// Items that could have begun, were it not for that.
    refused: u32,
}

impl<'a> Sketch<'a> {
    /// What runs, and what is to run on a certain builder because it was begun there.
    pub(super) fn of(sched: &'a Scheduler, mut missing: Missing, mut lanes: Vec<[Lane; 3]>) -> Self {
        let now = sched.now.0;
        missing.begin(&sched.builders);
        let bench = |(id, seat): (BuilderId, &'a Seat)| Bench { id, seat, room: Kind::ALL.map(|kind| seat.room(kind)) };
        let benches: Vec<Bench> = sched.builders.all().filter(|(_, seat)| seat.up).map(bench).collect();
        lanes.resize_with(benches.len(), Default::default);
        for (lanes, bench) in lanes.iter_mut().zip(&benches) {
            for (lane, kind) in lanes.iter_mut().zip(Kind::ALL) {
                lane.begin(now, bench.seat.builder.places(kind));
            }
        }
        let mut bound: Vec<(&Live, usize, u64)> = Vec::new();
        for live in sched.live.values() {
            let Ok(at) = benches.binary_search_by_key(&live.builder, |bench| bench.id) else { continue };
            let (lane, spent) = (&mut lanes[at][live.kind.index()], now.saturating_sub(live.since.0));
            match live.phase {
                Phase::Building => {
                    for _ in 0..1 + kept_empty(live.calmer_than, lane.places()) {
                        lane.taken_until(now.saturating_add(left(spent, live.length)));
                    }
                }
                Phase::Prepared => bound.push((live, at, now)),
                Phase::Preparing => bound.push((live, at, now.saturating_add(left(spent, live.bring)))),
                Phase::Waiting => {}
            }
        }
        for (live, at, there) in bound {
            let lane = &mut lanes[at][live.kind.index()];
            lane.take(there, live.length, kept_empty(live.calmer_than, lane.places()));
        }
        Self {
            sched,
            now,
            benches,
            lanes,
            starts: Vec::new(),
            coming: BTreeMap::new(),
            missing,
            patched: Vec::new(),
            recheck: None,
            looked: 0,
            looked_ahead: 0,
            choosy: sched.any_is_choosy(),
            refused: 0,
        }
    }

    /// Goes through the queues, the most urgent item first, as long as something may begin.
    pub(super) fn drawn(mut self) -> Self {
        let queues = self.sched.queues.iter();
        let mut lines: Vec<Line> = queues.map(|((need, avoid), queue)| self.line(*need, avoid, queue)).collect();
        loop {
            let heads = lines.iter_mut().enumerate().filter_map(|(at, line)| Some((**line.items.peek()?, at)));
            let Some((_, at)) = heads.min() else { break };
            let before = (self.looked, self.looked_ahead);
            if !self.may_begin(&lines[at]) {
                lines.swap_remove(at);
                continue;
            }
            let line = &mut lines[at];
            if let Some((_, drv)) = line.items.next() {
                let (kind, benches, begun) = (line.kind, self.who_takes(*drv, line), self.starts.len());
                self.place(*drv, kind, &benches);
                if self.starts.len() > begun {
                    (self.looked, self.looked_ahead) = before;
                }
            }
        }
        self
    }

    /// Benches on which the item failed come into question only when no other is up.
    fn line(&self, need: NeedId, avoid: &[BuilderId], queue: &'a BTreeSet<Place>) -> Line<'a> {
        let row = &self.sched.needs[need.0];
        let (mut failed_on, mut benches) = (Vec::new(), Vec::with_capacity(self.benches.len()));
        // Both are sorted.
        let mut takers = row.takers.iter().peekable();
        for (at, bench) in self.benches.iter().enumerate() {
            while takers.next_if(|id| **id < bench.id).is_some() {}
            if takers.next_if_eq(&&bench.id).is_some() {
                let these = if avoid.contains(&bench.id) { &mut failed_on } else { &mut benches };
                these.push(at);
            }
        }
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
        let open = |at: &usize| self.is_open(*at, line.kind);
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
        let counts = |at: &usize| self.refused < LOOKS || !self.benches[*at].seat.is_choosy();
        let benches = || all().copied().filter(counts);
        let (count, most) = if benches().any(|at| self.is_open(at, line.kind)) {
            (&mut self.looked, LOOKS)
        } else if benches().any(|at| self.benches[at].looks_ahead(line.kind)) {
            (&mut self.looked_ahead, LOOKS_AHEAD)
        } else {
            return false;
        };
        *count += 1;
        *count <= most
    }

    /// Whether something could begin at a bench and build at once.
    fn is_open(&self, at: usize, kind: Kind) -> bool {
        self.benches[at].room[kind.index()] > 0 && self.lanes[at][kind.index()].is_open()
    }

    /// Begins an item, or keeps the place for it that it waits for.
    fn place(&mut self, drv: DrvId, kind: Kind, benches: &[usize]) {
        let row = self.missing.of(self.sched, drv);
        let is_patched = self.patch(drv, row);
        let lacks = if is_patched { &self.patched } else { self.missing.lacks(row) };
        let calmer_than = self.sched.items[drv.index()].calmer_than;
        let (mut best, mut now): (Option<Outlook>, Option<Outlook>) = (None, None);
        let mut ends = (u64::MAX, u64::MAX);
        for at in benches {
            if calmer_than.is_none() && self.is_out_of_question(kind, *at, &lacks[*at], ends) {
                continue;
            }
            let outlook = self.outlook(calmer_than, kind, *at, &lacks[*at]);
            if outlook.now && now.is_none_or(|other| self.is_better(kind, &outlook, &other)) {
                now = Some(outlook);
                ends.1 = outlook.end;
            }
            if best.is_none_or(|other| self.is_better(kind, &outlook, &other)) {
                best = Some(outlook);
                ends.0 = outlook.end;
            }
        }
        let Some(best) = best else { return };
        // A free place is worth something; that inputs could begin to come elsewhere is not.
        let worth = |now: &Outlook| now.place && now.end <= best.end.saturating_add(self.worth_waiting(now));
        let chosen = now.filter(|now| now.bench == best.bench || worth(now));
        let begins = chosen.is_some();
        let Outlook { bench: at, bring, free, more, before, length, .. } = chosen.unwrap_or(best);
        let (bench, lane) = (&mut self.benches[at], &mut self.lanes[at][kind.index()]);
        if before {
            lane.go_before();
        } else {
            lane.take(self.now.saturating_add(bring), length, more);
        }
        if begins {
            bench.room[kind.index()] = bench.room[kind.index()].saturating_sub(1);
            self.starts.push(Start { drv, builder: bench.id, kind, bring });
            if bring > 0 {
                self.inputs_come(drv, at);
            }
        } else if now.is_some() {
            self.look_again(free.saturating_add(free.saturating_sub(self.now) / 10));
        } else if bring > 0 && bench.looks_ahead(kind) {
            self.look_again(free.saturating_sub(patience(bring)));
        }
    }

    /// Whether something that an item needs is coming to a bench on account of others; if so, what each bench lacks less
    /// that is in `patched`.
    fn patch(&mut self, drv: DrvId, row: usize) -> bool {
        let mut is_patched = false;
        let needs = if self.coming.is_empty() { &[][..] } else { &self.sched.items[drv.index()].needs };
        for (input, benches) in needs.iter().filter_map(|input| Some((*input, self.coming.get(input)?))) {
            if !std::mem::replace(&mut is_patched, true) {
                self.patched.clear();
                self.patched.extend_from_slice(self.missing.lacks(row));
            }
            let bytes = self.sched.items[input.index()].bytes();
            for at in benches {
                let lack = &mut self.patched[*at];
                (lack.paths, lack.bytes) = (lack.paths.saturating_sub(1), lack.bytes.saturating_sub(bytes));
                lack.bring = self.benches[*at].seat.link.time(lack.paths, lack.bytes);
            }
        }
        is_patched
    }

    /// What an item lacks where it begins is brought for others, too.
    fn inputs_come(&mut self, drv: DrvId, at: usize) {
        let id = self.benches[at].id;
        let lacks = |entry: &Entry| entry.holders.binary_search(&id).is_err();
        for input in &self.sched.items[drv.index()].needs {
            if self.sched.items.get(input.index()).is_some_and(lacks) {
                let benches = self.coming.entry(*input).or_default();
                if !benches.contains(&at) {
                    benches.push(at);
                }
            }
        }
    }

    fn worth_waiting(&self, outlook: &Outlook) -> u64 {
        (outlook.end.saturating_sub(self.now) / WORTH_WAITING_PART).max(WORTH_WAITING)
    }

    fn look_again(&mut self, at: u64) {
        let at = at.max(self.now.saturating_add(RECHECK));
        self.recheck = Some(self.recheck.map_or(at, |other| other.min(at)));
    }

    /// Whether an item that keeps no other place empty ends later there than it does elsewhere, and either cannot begin
    /// there now, or elsewhere ends earlier though it does. Says no where it would have to look closer.
    fn is_out_of_question(&self, kind: Kind, at: usize, lack: &Lack, (best, now): (u64, u64)) -> bool {
        let (bench, lane) = (&self.benches[at], &self.lanes[at][kind.index()]);
        let free = lane.free_at(0);
        let end = free.max(self.now.saturating_add(lack.bring)).saturating_add(lack.length);
        if end <= best || lane.has_gaps() {
            return false;
        }
        let wait = free.saturating_sub(self.now);
        end > now || bench.room[kind.index()] == 0 || wait > 0 && (lack.bring == 0 || wait > patience(lack.bring))
    }

    fn outlook(&self, calmer_than: Option<u32>, kind: Kind, at: usize, lack: &Lack) -> Outlook {
        let (bench, lane) = (&self.benches[at], &self.lanes[at][kind.index()]);
        let more = kept_empty(calmer_than, lane.places());
        let (bring, length, free) = (lack.bring, lack.length, lane.free_at(more));
        let before = bring == 0 && more == 0 && free > self.now && lane.fits_before(length);
        let begin = if before { self.now } else { free.max(self.now.saturating_add(bring)) };
        let soon = || bring > 0 && bench.looks_ahead(kind) && free.saturating_sub(self.now) <= patience(bring);
        let place = bench.room[kind.index()] > 0 && (before || free <= self.now);
        let now = place || bench.room[kind.index()] > 0 && soon();
        let end = begin.saturating_add(length);
        Outlook { bench: at, bring, free, more, before, length, end, now, place }
    }

    /// Earlier; with less to bring; what is tiny rather in the local store; then what is less loaded for its speed, faster, first.
    fn is_better(&self, kind: Kind, one: &Outlook, other: &Outlook) -> bool {
        if one.end != other.end {
            return one.end < other.end;
        }
        let (a, b) = (&self.benches[one.bench], &self.benches[other.bench]);
        // How full the builder would be, in relation to its speed.
        let load = |at: usize| {
            let lane = &self.lanes[at][kind.index()];
            f64::from(lane.taken() + 1) / (f64::from(lane.places().max(1)) * self.benches[at].seat.speed())
        };
        let away = |bench: &Bench| kind == Kind::Small && !bench.seat.builder.local;
        (!one.place, one.bring, away(a))
            .cmp(&(!other.place, other.bring, away(b)))
            .then_with(|| load(one.bench).total_cmp(&load(other.bench)))
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
fn kept_empty(calmer_than: Option<u32>, places: u32) -> usize {
    let more = calmer_than.map_or(0, |others| places.saturating_add(1).saturating_sub(others.max(2)));
    more.min(places.saturating_sub(1)) as usize
}

/// How long before there is a place inputs may begin to come that take so long.
fn patience(bring: u64) -> u64 {
    bring.saturating_mul(2).saturating_add(AHEAD)
}
