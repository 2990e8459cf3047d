//! Builders: what each can take and how full it is. Owns the matching rule and the slot count.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{BuilderId, System};

use super::item::Item;

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
    /// Attempts that build.
    building: u32,
    /// Attempts that wait for somebody else's lock; these take no slot.
    waiting: u32,
}

impl Seat {
    /// Whether one more attempt may start.
    ///
    /// An attempt that waits holds no slot, and when its wait ends it is not asked: the store has already gone on,
    /// most often only to find the output there. So for a moment more may build than there are slots. That is
    /// better than a slot that idles through somebody else's hour of compiling, or than throwing away a place in the
    /// queue; nothing new starts until the count is below the slots again.
    pub(super) fn free(&self) -> bool {
        self.up
            && self.building < self.builder.slots
            && self.building + self.waiting < self.builder.slots.saturating_mul(ATTEMPTS_PER_SLOT)
    }

    /// How full it would be with one more attempt, in relation to its speed. Smaller is better.
    pub(super) fn load_with_one_more(&self) -> f64 {
        f64::from(self.building + 1) / (f64::from(self.builder.slots.max(1)) * self.builder.speed())
    }

    pub(super) fn speed(&self) -> f64 {
        self.builder.speed()
    }

    pub(super) fn started(&mut self) {
        self.building += 1;
    }

    pub(super) fn set_waiting(&mut self, waiting: bool) {
        let (from, to) =
            if waiting { (&mut self.building, &mut self.waiting) } else { (&mut self.waiting, &mut self.building) };
        *from = from.saturating_sub(1);
        *to += 1;
    }

    pub(super) fn ended(&mut self, waiting: bool) {
        let count = if waiting { &mut self.waiting } else { &mut self.building };
        *count = count.saturating_sub(1);
    }
}

/// All builders that were ever up.
#[derive(Debug, Default)]
pub(super) struct Builders {
    seats: BTreeMap<BuilderId, Seat>,
}

impl Builders {
    pub(super) fn up(&mut self, builder: Builder) {
        let id = builder.id;
        match self.seats.get_mut(&id) {
            Some(seat) => {
                seat.builder = builder;
                seat.up = true;
                seat.hope = true;
            }
            None => {
                self.seats.insert(id, Seat { builder, up: true, hope: true, building: 0, waiting: 0 });
            }
        }
    }

    pub(super) fn down(&mut self, id: BuilderId, back: bool) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.up = false;
            seat.hope = back;
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
            text.push(')');
            text
        };
        let there: Vec<String> = self.seats.values().filter(|seat| seat.hope).map(one).collect();
        if there.is_empty() {
            "there is no builder at all".to_owned()
        } else {
            format!("there is {}", there.join(", "))
        }
    }
}
