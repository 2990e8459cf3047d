//! What a recorded run would have taken if something had been different: its drvs are played again by the scheduler, in
//! virtual time, each needed when it was and building for as long as it did.
//!
//! What the record does not say is left out: transfers of what was there before, pauses and losses of builders, attempts
//! in vain. How far the replay of the run as it was is from what it took says how much that is; what is told of a
//! changed one is corrected by it.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{DrvOutcome, Moment};
use crate::id::{BuilderId, DrvId, System};
use crate::report::number::plural;
use crate::report::summary::{self, Attempt, Drv, LOCAL, Summary};
use crate::report::what_if::Told;
use crate::sched::{Builder, Course, Item, Policy, Work, forecast};

/// The share of the time that is needed with any number of slots from which on the longest chain is what limits a run.
const LIMIT: f64 = 0.95;

/// Times as many slots as there are, so that nothing waits for one.
const PLENTY: u32 = 1000;

/// What is different.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// So many more builders like the one that did most.
    Builders(u32),
    /// A builder more with this name, so many slots, these systems and this speed.
    With {
        /// Its name.
        name: String,
        /// How many drvs it builds at once.
        slots: u32,
        /// What it builds for.
        systems: Vec<System>,
        /// How fast it is; 1 is usual.
        speed: f64,
    },
    /// Not this builder.
    Without(String),
    /// This builder with so many slots.
    Slots(String, u32),
    /// This builder so many times as fast.
    Speed(String, f64),
    /// A cache has all that was built.
    WarmCache,
}

/// A run that can be played again.
#[derive(Debug, Clone)]
pub struct Replay {
    course: Course,
    /// Which drvs the items are.
    drvs: Vec<DrvId>,
    /// Seconds until the last drv was built.
    built: f64,
    /// When the last attr was planned or evaluated.
    planned: f64,
    /// Seconds of the whole run.
    seconds: f64,
}

impl Replay {
    /// Of a run; `None` if it built nothing.
    #[must_use]
    pub fn of(s: &Summary) -> Option<Self> {
        let ended = |drv: &Drv| match drv.ended.as_ref()? {
            (at, DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid) => Some(*at),
            _ => None,
        };
        let mut order: Vec<(Moment, Moment, DrvId)> =
            s.drvs.iter().filter_map(|(id, drv)| Some((drv.needed, ended(drv)?, *id))).collect();
        // What was needed at the same moment, in the order in which it was done.
        order.sort_unstable();
        let numbers: BTreeMap<DrvId, DrvId> = (0..).zip(&order).map(|(n, (.., id))| (*id, DrvId(n))).collect();
        let items = order.iter().filter_map(|(needed, _, id)| Some((*needed, item(s, *id, &numbers)?)));
        let builders = s.builders.iter().filter_map(|(id, known)| builder(*id, known));
        let course = Course {
            items: items.collect(),
            sizes: s.sizes.iter().filter_map(|(id, bytes)| Some((*numbers.get(id)?, *bytes))).collect(),
            builders: builders.collect(),
            links: s.attempts.values().filter_map(link).collect(),
            policy: Policy { fetch_where_needed: s.builders.len() > 1, ..Policy::default() },
        };
        let built = s.attempts.values().filter(|attempt| attempt.succeeded());
        let built = built.filter_map(|attempt| Some(attempt.ended.as_ref()?.0)).max()?.seconds();
        let planned = s.attrs.values().filter_map(|attr| Some(attr.planned.as_ref()?.at));
        let planned = planned.max().unwrap_or_default().seconds();
        Some(Self { course, drvs: order.iter().map(|(.., id)| *id).collect(), built, planned, seconds: s.seconds() })
    }

    /// The run as it was: what the replay says that it took, all of it.
    #[must_use]
    pub fn as_it_was(&self) -> f64 {
        self.whole(forecast(self.course.clone()).seconds)
    }

    /// The run with changes.
    ///
    /// # Errors
    /// The name of a builder that it did not have, or an empty one where it had none at all.
    pub fn with(&self, changes: &[Change]) -> Result<Told, String> {
        let mut course = self.course.clone();
        let mut words = Vec::new();
        for change in changes {
            words.push(apply(&mut course, change)?);
        }
        let builds = course.items.iter().filter(|(_, item)| item.work == Work::Build).count();
        let mut unlimited = course.clone();
        unlimited.builders.iter_mut().for_each(|(_, builder)| builder.slots = builder.slots.saturating_mul(PLENTY));
        let least = forecast(unlimited).seconds;
        let played = forecast(course);
        let before = forecast(self.course.clone()).seconds;
        let seconds = if before > 0.0 { played.seconds * self.built / before } else { played.seconds };
        Ok(Told {
            what: words.join(", "),
            seconds: self.whole(seconds),
            is_chain: !played.chain.is_empty() && least >= played.seconds * LIMIT,
            chain: played.chain.iter().filter_map(|drv| self.drvs.get(drv.index()).copied()).collect(),
            left_out: builds.saturating_sub(played.planned.len()),
        })
    }

    /// All of a run in which the last drv is built at that moment: what came after building takes what it took.
    fn whole(&self, built: f64) -> f64 {
        let after = (self.seconds - self.built.max(self.planned)).max(0.0);
        built.max(self.planned) + after
    }
}

/// A drv as it was built.
fn item(s: &Summary, id: DrvId, numbers: &BTreeMap<DrvId, DrvId>) -> Option<Item> {
    let drv = s.drvs.get(&id)?;
    let last = s.attempts_of(id).last();
    let speed = last.and_then(|attempt| s.builders.get(&attempt.builder)).map_or(1.0, summary::Builder::speed);
    Some(Item {
        drv: *numbers.get(&id)?,
        work: if drv.fetch { Work::Fetch } else { Work::Build },
        inputs: drv.inputs.iter().filter_map(|input| numbers.get(input).copied()).collect(),
        there: Vec::new(),
        system: drv.system.clone(),
        features: drv.features.iter().map(ToString::to_string).collect(),
        local_only: drv.opaque,
        here: false,
        fixed_output: false,
        prefer_local: false,
        cost: last.map_or(0.0, |attempt| attempt.seconds(s.end)) * speed,
        ahead: 0.0,
    })
}

/// A builder from when on it could be used; `None` if it never could.
fn builder(id: BuilderId, known: &summary::Builder) -> Option<(Moment, Builder)> {
    let from = known.up.first()?.start;
    let builder = Builder {
        id,
        name: known.name.to_string(),
        slots: known.slots,
        systems: known.systems.iter().cloned().collect(),
        features: known.features.iter().map(ToString::to_string).collect(),
        mandatory: BTreeSet::new(),
        speed: known.speed(),
        local: id == LOCAL,
        // A record does not say; what was refused was built elsewhere.
        trusting: true,
    };
    Some((from, builder))
}

/// What was brought to a builder, and how long it took.
fn link(attempt: &Attempt) -> Option<(BuilderId, u64, f64)> {
    let (bringing, prepared) = (attempt.bringing?, attempt.prepared?);
    let bytes = prepared.copied_size;
    (bytes > 0).then(|| (attempt.builder, bytes, prepared.at.since(bringing.since)))
}

/// Changes what is played, and says how.
fn apply(course: &mut Course, change: &Change) -> Result<String, String> {
    let named = |course: &Course, name: &str| {
        let at = course.builders.iter().position(|(_, builder)| builder.name == name);
        at.ok_or_else(|| name.to_owned())
    };
    match change {
        Change::Builders(more) => {
            let (from, like) = largest(course).ok_or_else(String::new)?;
            let more_builders = plural(*more as usize, "more builder", "more builders");
            let text = format!("with {more_builders} like {}", like.name);
            (0..*more).for_each(|_| add(course, from, like.clone()));
            Ok(text)
        }
        Change::With { name, slots, systems, speed } => {
            let (slots, speed, systems) = (*slots, *speed, systems.iter().cloned().collect());
            let features = largest(course).map(|(_, like)| like.features).unwrap_or_default();
            let (id, mandatory, local, trusting) = (LOCAL, BTreeSet::new(), false, true);
            let from = course.builders.iter().map(|(from, _)| *from).max().unwrap_or_default();
            let (text, name) = (format!("with {name} back"), name.clone());
            let builder = Builder { id, name, slots, systems, features, mandatory, speed, local, trusting };
            add(course, from, builder);
            Ok(text)
        }
        Change::Without(name) => {
            let at = named(course, name)?;
            course.builders.remove(at);
            Ok(format!("without {name}"))
        }
        Change::Slots(name, slots) => {
            let at = named(course, name)?;
            course.builders[at].1.slots = *slots;
            Ok(format!("with {} on {name}", plural(*slots as usize, "slot", "slots")))
        }
        Change::Speed(name, times) => {
            let at = named(course, name)?;
            course.builders[at].1.speed *= times;
            Ok(format!("with {name} {times} times as fast"))
        }
        Change::WarmCache => {
            course.items.iter_mut().for_each(|(_, item)| item.work = Work::Fetch);
            Ok("with all of it in a cache".to_owned())
        }
    }
}

/// The builder with most slots; of equals, one that is not the local store.
fn largest(course: &Course) -> Option<(Moment, Builder)> {
    let order = |builder: &Builder| (builder.slots, !builder.local, std::cmp::Reverse(builder.id));
    course.builders.iter().max_by_key(|(_, builder)| order(builder)).cloned()
}

/// One more, with a number of its own.
fn add(course: &mut Course, from: Moment, like: Builder) {
    let last = course.builders.iter().map(|(_, builder)| builder.id.0).max().unwrap_or_default();
    let id = BuilderId(last.saturating_add(1));
    let links: Vec<_> = course.links.iter().filter(|link| link.0 == like.id).map(|link| (id, link.1, link.2)).collect();
    course.links.extend(links);
    course.builders.push((from, Builder { id, local: false, ..like }));
}
