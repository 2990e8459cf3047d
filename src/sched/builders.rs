//! Builders: what each can take and how full it is. Owns the matching rule and the slot count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{BuilderId, System};

use super::item::Item;
use super::state::Phase;

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
}

/// What an item asks of a builder. Items that ask the same wait in one queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) system: System,
    /// Sorted, without doubles.
    pub(super) features: Vec<String>,
    pub(super) local_only: bool,
    pub(super) prefer_local: bool,
}

impl Need {
    pub(super) fn of(item: &Item) -> Self {
        let features: BTreeSet<String> = item.features.iter().cloned().collect();
        Self {
            system: item.system.clone(),
            features: features.into_iter().collect(),
            local_only: item.local_only,
            prefer_local: item.prefer_local,
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

    fn speed(&self) -> f64 {
        if self.speed.is_finite() && self.speed > 0.0 { self.speed } else { 1.0 }
    }
}

/// How much a waiting attempt costs: a connection and a process of the store. Beyond this many attempts for each
/// slot nothing starts, even if all of them wait for somebody else's locks (two runs of one commit).
const ATTEMPTS_PER_SLOT: u32 = 4;

/// A builder and its attempts.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) builder: Builder,
    pub(super) up: bool,
    /// It is up or may come up.
    pub(super) hope: bool,
    /// Why it is not up.
    why: Option<Arc<str>>,
    /// Attempts whose inputs are brought, or that are prepared and wait for a slot.
    preparing: u32,
    /// Attempts that build.
    building: u32,
    /// Attempts that wait for somebody else's lock; these take no slot.
    waiting: u32,
}

impl Seat {
    fn new(builder: Builder) -> Self {
        Self { builder, up: false, hope: true, why: None, preparing: 0, building: 0, waiting: 0 }
    }

    /// Whether one more attempt may start.
    ///
    /// An attempt that waits holds no slot, and when its wait ends it is not asked: the store has already gone on,
    /// most often only to find the output there. So for a moment more may build than there are slots. That is
    /// better than a slot that idles through somebody else's hour of compiling, or than throwing away a place in the
    /// queue; nothing new starts until the count is below the slots again.
    pub(super) fn free(&self) -> bool {
        self.up
            && self.building + self.preparing < self.builder.slots
            && self.building + self.preparing + self.waiting < self.builder.slots.saturating_mul(ATTEMPTS_PER_SLOT)
    }

    /// How full it would be with one more attempt, in relation to its speed. Smaller is better.
    pub(super) fn load_with_one_more(&self) -> f64 {
        f64::from(self.building + self.preparing + 1) / (f64::from(self.builder.slots.max(1)) * self.builder.speed())
    }

    pub(super) fn speed(&self) -> f64 {
        self.builder.speed()
    }

    /// Whether an attempt that is prepared may build.
    pub(super) fn has_slot(&self) -> bool {
        self.building < self.builder.slots
    }

    /// An attempt begins, goes on to the next phase, or ends.
    pub(super) fn moved(&mut self, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from {
            let count = self.count(from);
            *count = count.saturating_sub(1);
        }
        if let Some(to) = to {
            *self.count(to) += 1;
        }
    }

    fn count(&mut self, phase: Phase) -> &mut u32 {
        match phase {
            Phase::Preparing | Phase::Prepared => &mut self.preparing,
            Phase::Building => &mut self.building,
            Phase::Waiting => &mut self.waiting,
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
            seat.up = false;
            seat.hope = back;
            seat.why = why;
        }
    }

    pub(super) fn seat(&self, id: BuilderId) -> Option<&Seat> {
        self.seats.get(&id)
    }

    pub(super) fn seat_mut(&mut self, id: BuilderId) -> Option<&mut Seat> {
        self.seats.get_mut(&id)
    }

    /// Whether anything could start anywhere.
    pub(super) fn any_free(&self) -> bool {
        self.seats.values().any(Seat::free)
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
