//! The drvs that are left, by index, and how they are played on builders.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::event::Moment;
use crate::id::{BuilderId, DrvId};
use crate::report::summary::{Attempt, Builder, Drv, LOCAL, State, Summary};

use super::{Turn, speeds};

pub(super) struct Left {
    ids: Vec<DrvId>,
    /// What each still takes on a builder with a speed of 1.
    cost: Vec<Moment>,
    /// Which sort of drv each is: an index in `kinds`.
    kind: Vec<usize>,
    /// What builders each sort of drv can go to, the fastest first.
    kinds: Vec<Vec<usize>>,
    builders: Vec<Seat>,
    /// It is fetched: that takes no slot.
    fetch: Vec<bool>,
    /// Where it is already: the builder, and what is left there.
    begun: Vec<Option<(usize, Moment)>>,
    users: Vec<Vec<usize>>,
    missing: Vec<usize>,
    /// The time of the longest chain from each on, itself included, each drv on the fastest builder that takes it.
    rank: Vec<Moment>,
    known: usize,
    unknown: usize,
}

/// A builder that plays.
struct Seat {
    id: BuilderId,
    slots: u32,
    free: u32,
    speed: f64,
}

/// The state of a play.
struct Play {
    now: Moment,
    /// The drvs that can start now, by sort, the highest rank first.
    ready: Vec<BinaryHeap<(Moment, Reverse<usize>)>>,
    /// What runs, by when it ends.
    running: BinaryHeap<Reverse<(Moment, usize)>>,
    turns: Vec<Turn>,
}

impl Left {
    pub(super) fn new(s: &Summary, now: Moment) -> Self {
        let ids: Vec<DrvId> = s.drvs.iter().filter(|(_, drv)| drv.ended.is_none()).map(|(id, _)| *id).collect();
        let index: BTreeMap<DrvId, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let n = ids.len();
        let seat = |(id, builder): (&BuilderId, &Builder)| Seat {
            id: *id,
            slots: builder.slots,
            free: builder.slots,
            speed: builder.speed(),
        };
        let mut left = Self {
            ids,
            cost: Vec::with_capacity(n),
            kind: Vec::with_capacity(n),
            kinds: Vec::new(),
            builders: s.builders.iter().map(seat).collect(),
            fetch: Vec::with_capacity(n),
            begun: Vec::with_capacity(n),
            users: vec![Vec::new(); n],
            missing: vec![0; n],
            rank: Vec::new(),
            known: 0,
            unknown: 0,
        };
        left.add_all(s, now, &index);
        left.rank = left.ranks();
        left
    }

    fn add_all(&mut self, s: &Summary, now: Moment, index: &BTreeMap<DrvId, usize>) {
        let speeds = speeds(s);
        let mut kinds: BTreeMap<(&str, &[crate::event::Text], bool), usize> = BTreeMap::new();
        for (i, drv) in self.ids.iter().filter_map(|id| s.drvs.get(id)).enumerate() {
            let expected = drv.expected.filter(|_| !drv.fetch);
            self.known += usize::from(expected.is_some());
            self.unknown += usize::from(expected.is_none() && !drv.fetch);
            self.fetch.push(drv.fetch);
            let cost = expected.unwrap_or(0.0);
            self.cost.push(Moment::from_seconds(cost));
            let key = (drv.system.0.as_str(), drv.features.as_slice(), drv.opaque);
            let kinds_now = &mut self.kinds;
            self.kind.push(*kinds.entry(key).or_insert_with(|| {
                kinds_now.push(takers(s, drv));
                kinds_now.len() - 1
            }));
            let running =
                drv.attempts.last().and_then(|id| s.attempts.get(id)).filter(|attempt| attempt.ended.is_none());
            let seat =
                running.and_then(|attempt| Some((attempt, s.builders.keys().position(|id| *id == attempt.builder)?)));
            self.begun.push(seat.map(|(attempt, seat)| {
                let speed = self.builders.get(seat).map_or(1.0, |seat| seat.speed);
                (seat, Moment::from_seconds(still(attempt, cost / speed, speeds.get(&attempt.builder), now)))
            }));
            for input in drv.inputs.iter().filter_map(|input| index.get(input)) {
                self.users[*input].push(i);
                self.missing[i] += 1;
            }
        }
    }

    pub(super) fn known(&self) -> usize {
        self.known
    }

    pub(super) fn unknown(&self) -> usize {
        self.unknown
    }

    /// What a drv takes where it is, or on the fastest builder that takes it.
    fn least(&self, i: usize) -> Moment {
        if let Some((_, left)) = self.begun[i] {
            return left;
        }
        let fastest = self.kinds.get(self.kind[i]).and_then(|takers| takers.first()).copied();
        self.on(i, fastest.and_then(|seat| self.builders.get(seat)))
    }

    fn on(&self, i: usize, seat: Option<&Seat>) -> Moment {
        Moment((self.cost[i].0 as f64 / seat.map_or(1.0, |seat| seat.speed)) as u64)
    }

    /// Ranks from the end backwards; what runs in a circle keeps rank 0.
    fn ranks(&self) -> Vec<Moment> {
        let mut order = Vec::with_capacity(self.ids.len());
        let mut missing = self.missing.clone();
        let mut ready: Vec<usize> = (0..missing.len()).filter(|i| missing[*i] == 0).collect();
        while let Some(i) = ready.pop() {
            order.push(i);
            for &user in &self.users[i] {
                missing[user] -= 1;
                if missing[user] == 0 {
                    ready.push(user);
                }
            }
        }
        let mut rank = vec![Moment(0); self.ids.len()];
        for i in order.into_iter().rev() {
            let after = self.users[i].iter().map(|user| rank[*user].0).max().unwrap_or(0);
            rank[i] = Moment(after.saturating_add(self.least(i).0));
        }
        rank
    }

    /// The chain with the highest rank, and its seconds.
    pub(super) fn chain(&self) -> (Vec<DrvId>, f64) {
        let first = (0..self.ids.len()).filter(|i| self.missing[*i] == 0).max_by_key(|i| (self.rank[*i], Reverse(*i)));
        let mut chain: Vec<usize> = first.into_iter().collect();
        while let Some(last) = chain.last() {
            let next = self.users[*last].iter().max_by_key(|user| (self.rank[**user], Reverse(**user)));
            match next {
                Some(next) if chain.len() < self.ids.len() => chain.push(*next),
                _ => break,
            }
        }
        let seconds = first.and_then(|i| self.rank.get(i)).map_or(0.0, |rank| rank.seconds());
        (chain.into_iter().map(|i| self.ids[i]).collect(), seconds)
    }

    /// Plays the rest on the builders, the highest rank first: the seconds that it takes, and what is built when.
    pub(super) fn play(mut self) -> (f64, Vec<Turn>) {
        let mut play = Play {
            now: Moment(0),
            ready: self.kinds.iter().map(|_| BinaryHeap::new()).collect(),
            running: BinaryHeap::new(),
            turns: Vec::with_capacity(self.ids.len()),
        };
        for i in 0..self.ids.len() {
            if let Some((seat, left)) = self.begun[i] {
                self.begin(i, seat, left, &mut play);
            } else if self.missing[i] == 0 {
                self.queue(i, &mut play);
            }
        }
        loop {
            self.start(&mut play);
            let Some(Reverse((at, i))) = play.running.pop() else { break };
            play.now = play.now.max(at);
            if let Some((seat, _)) = self.begun[i]
                && let Some(seat) = self.builders.get_mut(seat)
            {
                seat.free += 1;
            }
            for user in std::mem::take(&mut self.users[i]) {
                self.missing[user] = self.missing[user].saturating_sub(1);
                if self.missing[user] == 0 && self.begun[user].is_none() {
                    self.queue(user, &mut play);
                }
            }
        }
        (play.now.seconds(), play.turns)
    }

    /// A drv has all that it needs.
    fn queue(&self, i: usize, play: &mut Play) {
        if self.fetch[i] {
            play.running.push(Reverse((play.now, i)));
        } else {
            play.ready[self.kind[i]].push((self.rank[i], Reverse(i)));
        }
    }

    /// Starts all that finds a slot.
    fn start(&mut self, play: &mut Play) {
        for kind in 0..play.ready.len() {
            while !play.ready[kind].is_empty() {
                let Some(seat) = self.best(kind) else { break };
                let Some((_, Reverse(i))) = play.ready[kind].pop() else { break };
                let left = self.on(i, self.builders.get(seat));
                self.begin(i, seat, left, play);
            }
        }
    }

    fn begin(&mut self, i: usize, seat: usize, left: Moment, play: &mut Play) {
        let to = Moment(play.now.0.saturating_add(left.0));
        self.begun[i] = Some((seat, left));
        play.running.push(Reverse((to, i)));
        let Some(at) = self.builders.get_mut(seat) else { return };
        at.free = at.free.saturating_sub(1);
        play.turns.push(Turn { drv: self.ids[i], builder: at.id, from: play.now.seconds(), to: to.seconds() });
    }

    /// Where the next drv of a sort goes: to the fastest builder with a free slot, of equals to the emptiest.
    fn best(&self, kind: usize) -> Option<usize> {
        let free = self.kinds.get(kind)?.iter().filter_map(|at| Some((*at, self.builders.get(*at)?)));
        let free = free.filter(|(_, seat)| seat.free > 0);
        let emptiness = |seat: &Seat| f64::from(seat.free) / f64::from(seat.slots.max(1));
        let better = |a: &Seat, b: &Seat| a.speed.total_cmp(&b.speed).then(emptiness(a).total_cmp(&emptiness(b)));
        // Of equals the first.
        let best = free.fold(None::<(usize, &Seat)>, |best, (at, seat)| match best {
            Some((_, known)) if !better(seat, known).is_gt() => best,
            _ => Some((at, seat)),
        });
        best.map(|(at, _)| at)
    }
}

/// The builders that can take a drv, the fastest first; those that are away only where there is no other. What is opaque
/// goes to the local store.
fn takers(s: &Summary, drv: &Drv) -> Vec<usize> {
    let able =
        |(_, (id, builder)): &(usize, (&BuilderId, &Builder))| builder.takes(drv) && (!drv.opaque || **id == LOCAL);
    let with = |states: &[State]| -> Vec<usize> {
        let able = s.builders.iter().enumerate().filter(able);
        let mut able: Vec<(usize, f64)> = able
            .filter(|(_, (_, builder))| states.contains(&builder.state()))
            .map(|(at, (_, builder))| (at, builder.speed()))
            .collect();
        able.sort_by(|a, b| b.1.total_cmp(&a.1));
        able.into_iter().map(|(at, _)| at).collect()
    };
    let up = with(&[State::Ready]);
    if up.is_empty() { with(&[State::Paused, State::Suspended]) } else { up }
}

/// Seconds that an attempt still takes: what is left of bringing its inputs, as far as that is known, and of building.
fn still(attempt: &Attempt, cost: f64, speed: Option<&f64>, now: Moment) -> f64 {
    if !attempt.is_preparing() {
        return (cost - attempt.seconds(now)).max(0.0);
    }
    let bringing = attempt.bringing.filter(|_| attempt.prepared.is_none());
    let whole = bringing.and_then(|bringing| Some((bringing.nar_size as f64 / speed?, now.since(bringing.since))));
    cost + whole.map_or(0.0, |(whole, spent)| (whole - spent).max(0.0))
}
