//! Builders: what each can take and how full it is. Owns the matching rule and the slot count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::Moment;
use crate::id::{BuilderId, System};

use super::item::Item;
use super::rank::micros;
use super::state::Phase;
use super::transfer::Link;

/// A store that can build, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Builder {
    /// Its number.
    pub id: BuilderId,
    /// What people call it; for messages only.
    pub name: String,
    /// How many drvs it builds at once; with 0 it takes nothing.
    pub slots: u32,
    /// What it builds for.
    pub systems: BTreeSet<System>,
    /// Features that it supports.
    pub features: BTreeSet<String>,
    /// Features that a drv must ask for to be built there; supported as well.
    pub mandatory: BTreeSet<String>,
    /// Relative speed; what is not a positive number counts as 1.
    pub speed: f64,
    /// It is the local store.
    pub local: bool,
    /// It takes what others have built as it is. Otherwise only what somebody has signed, and what says itself what it is.
    pub trusting: bool,
}

/// What an attempt takes of a builder while it builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// One of its slots.
    Slot,
    /// One of a few places for what only loads sources (fixed-output drvs).
    Fixed,
    /// One of a few places for what is cheaper to build than to send around (tiny `preferLocalBuild` drvs).
    Small,
}

/// How many fixed-output drvs a builder loads at once. Servers, not processors, are what they wait for.
const FIXED_AT_ONCE: u32 = 8;

/// How many tiny drvs a builder builds at once besides its slots.
const SMALL_AT_ONCE: u32 = 4;

/// Expected seconds up to which a `preferLocalBuild` drv is tiny. Some assemble whole systems.
const SMALL_SECONDS: f64 = 5.0;

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Slot, Self::Fixed, Self::Small];

    fn of(item: &Item) -> Self {
        if item.fixed_output {
            Self::Fixed
        } else if item.prefer_local && item.cost <= SMALL_SECONDS {
            Self::Small
        } else {
            Self::Slot
        }
    }

    /// Its place in an array of one for each.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Slot => 0,
            Self::Fixed => 1,
            Self::Small => 2,
        }
    }
}

/// What an item asks of a builder. Items that ask the same wait in one queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) system: System,
    /// Sorted, without doubles.
    pub(super) features: Vec<String>,
    pub(super) local_only: bool,
    pub(super) kind: Kind,
}

impl Need {
    pub(super) fn of(item: &Item) -> Self {
        let features: BTreeSet<String> = item.features.iter().cloned().collect();
        Self {
            system: item.system.clone(),
            features: features.into_iter().collect(),
            local_only: item.local_only,
            kind: Kind::of(item),
        }
    }
}

impl Builder {
    /// Nix's rule (`Machine` in libstore): the platform matches or is `builtin`, what is required is supported, what
    /// is mandatory is required.
    pub(super) fn takes(&self, need: &Need) -> bool {
        self.slots > 0
            && (self.local || !need.local_only)
            && (need.system.0 == "builtin" || self.systems.contains(&need.system))
            && need.features.iter().all(|feature| self.features.contains(feature) || self.mandatory.contains(feature))
            && self.mandatory.iter().all(|feature| need.features.contains(feature))
    }

    /// How many attempts of a kind build at once.
    pub(super) fn places(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Slot => self.slots,
            Kind::Fixed => FIXED_AT_ONCE,
            Kind::Small => SMALL_AT_ONCE,
        }
    }

    /// How many attempts may be prepared while all slots are taken, so that a slot that becomes free need not wait for
    /// a transfer. Few: each is bound to this builder, whatever becomes free elsewhere.
    pub(super) fn ahead(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Slot => self.slots.max(2),
            Kind::Fixed | Kind::Small => 0,
        }
    }

    fn speed(&self) -> f64 {
        if self.speed.is_finite() && self.speed > 0.0 { self.speed } else { 1.0 }
    }
}

/// How much a waiting attempt costs: a connection and a process of the store. Beyond this many attempts for each
/// place nothing starts, even if all of them wait for somebody else's locks (two runs of one commit).
const ATTEMPTS_PER_SLOT: u32 = 4;

/// Attempts of one kind on a builder.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    /// Inputs are brought.
    preparing: u32,
    /// All inputs are there; no place is free.
    prepared: u32,
    building: u32,
    /// For somebody else's lock; these take no place.
    waiting: u32,
}

/// A builder and its attempts.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) builder: Builder,
    pub(super) up: bool,
    /// It is up or may come up.
    pub(super) hope: bool,
    /// Why it is not up.
    why: Option<Arc<str>>,
    /// What it costs to bring something there.
    pub(super) link: Link,
    /// Builders of which it has refused something that was built there.
    pub(super) refuses: BTreeSet<BuilderId>,
    /// It has refused something.
    pub(super) refused: bool,
    /// By [`Kind::index`].
    lanes: [Lane; 3],
}

impl Seat {
    fn new(builder: Builder) -> Self {
        Self {
            builder,
            up: false,
            hope: true,
            why: None,
            link: Link::default(),
            refuses: BTreeSet::new(),
            refused: false,
            lanes: Default::default(),
        }
    }

    /// Whether an attempt that is prepared may build.
    ///
    /// An attempt that waits for a lock holds no slot, and when its wait ends it is not asked: the store has already
    /// gone on, most often only to find the output there. So for a moment more may build than there are slots. That is
    /// better than a slot that idles through somebody else's hour of compiling, or than throwing away a place in the
    /// queue; nothing new goes until the count is below the slots again.
    pub(super) fn has_place(&self, kind: Kind) -> bool {
        self.up && self.building(kind) < self.builder.places(kind)
    }

    /// How many more attempts may begin, whether or not there is a place for them when they are prepared.
    pub(super) fn room(&self, kind: Kind) -> u32 {
        let (lane, places) = (&self.lanes[kind.index()], self.builder.places(kind));
        let bound = lane.preparing + lane.prepared + lane.building;
        let few = (places + self.builder.ahead(kind)).saturating_sub(bound);
        let all = places.saturating_mul(ATTEMPTS_PER_SLOT).saturating_sub(bound + lane.waiting);
        if self.up { few.min(all) } else { 0 }
    }

    /// Whether there may be something that it does not take because of who made it.
    pub(super) fn is_choosy(&self) -> bool {
        !self.builder.trusting || self.refused
    }

    /// How many attempts of a kind build there.
    pub(super) fn building(&self, kind: Kind) -> u32 {
        self.lanes[kind.index()].building
    }

    pub(super) fn speed(&self) -> f64 {
        self.builder.speed()
    }

    /// What a cost in µs takes there.
    pub(super) fn time(&self, cost: u64) -> u64 {
        let speed = self.speed();
        if speed.to_bits() == 1.0_f64.to_bits() { cost } else { micros(Moment(cost).seconds() / speed) }
    }

    /// An attempt begins, goes on to the next phase, or ends.
    pub(super) fn moved(&mut self, kind: Kind, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from {
            let count = self.count(kind, from);
            *count = count.saturating_sub(1);
        }
        if let Some(to) = to {
            *self.count(kind, to) += 1;
        }
    }

    fn count(&mut self, kind: Kind, phase: Phase) -> &mut u32 {
        let lane = &mut self.lanes[kind.index()];
        match phase {
            Phase::Preparing => &mut lane.preparing,
            Phase::Prepared => &mut lane.prepared,
            Phase::Building => &mut lane.building,
            Phase::Waiting => &mut lane.waiting,
        }
    }
}

/// All builders that were ever known.
#[derive(Debug, Default)]
pub(super) struct Builders {
    seats: BTreeMap<BuilderId, Seat>,
}

impl Builders {
    /// One that may come up.
    pub(super) fn known(&mut self, builder: Builder) {
        self.seats.entry(builder.id).or_insert_with(|| Seat::new(builder));
    }

    pub(super) fn up(&mut self, builder: Builder) {
        let seat = self.seats.entry(builder.id).or_insert_with(|| Seat::new(builder.clone()));
        seat.builder = builder;
        seat.up = true;
        seat.hope = true;
        seat.why = None;
    }

    pub(super) fn down(&mut self, id: BuilderId, back: bool, why: Option<Arc<str>>) {
        if let Some(seat) = self.seats.get_mut(&id) {
            // What was given up is not expected back because its attempts end after that; it is once it is up.
            seat.hope &= back;
            seat.up = false;
            seat.why = why.or_else(|| seat.why.take());
        }
    }

    pub(super) fn seat(&self, id: BuilderId) -> Option<&Seat> {
        self.seats.get(&id)
    }

    pub(super) fn seat_mut(&mut self, id: BuilderId) -> Option<&mut Seat> {
        self.seats.get_mut(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (BuilderId, &Seat)> {
        self.seats.iter().map(|(id, seat)| (*id, seat))
    }

    /// The local store, if it is a builder.
    pub(super) fn local(&self) -> Option<BuilderId> {
        self.seats.iter().find(|(_, seat)| seat.builder.local).map(|(id, _)| *id)
    }

    /// The builders that could take it: up, or expected back.
    pub(super) fn takers(&self, need: &Need) -> Vec<BuilderId> {
        let seats = self.seats.iter().filter(|(_, seat)| seat.hope && seat.builder.takes(need));
        seats.map(|(id, _)| *id).collect()
    }

    /// What is there, for the message that it is not enough.
    pub(super) fn describe(&self) -> String {
        let one = |seat: &Seat| {
            let builder = &seat.builder;
            let systems = builder.systems.iter().filter(|system| !system.is_level());
            let systems: Vec<&str> = systems.map(|system| system.0.as_str()).collect();
            let mut text = format!("{} ({}", builder.name, systems.join(", "));
            for (word, features) in [("features", &builder.features), ("only with", &builder.mandatory)] {
                if !features.is_empty() {
                    let features: Vec<&str> = features.iter().map(String::as_str).collect();
                    text.push_str(&format!("; {word} {}", features.join(", ")));
                }
            }
            if builder.slots == 0 {
                text.push_str("; no slots");
            }
            if !seat.up {
                text.push_str(if seat.hope { "; suspended" } else { "; lost" });
                if let Some(why) = &seat.why {
                    text.push_str(&format!(": {why}"));
                }
            }
            text.push(')');
            text
        };
        let there: Vec<String> = self.seats.values().map(one).collect();
        if there.is_empty() {
            "there is no builder at all".to_owned()
        } else {
            format!("there is {}", there.join(", "))
        }
    }
}
