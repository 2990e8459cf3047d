//! The differences of the account, and to which causes they are given.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Stage;
use crate::record::history::{Build, BuilderUse, Entry, Outcome, Spell};
use crate::report::failure::word;
use crate::report::number::{count, duration, plural, pname, size};
use crate::report::stats;

use super::group::Group;
use super::usual::{ODD, Usual, built, slots, up};
use super::{Cause, Kind, drvs};

/// Shares of work or slots that are no difference.
const ALIKE: f64 = 0.05;

/// A drv that takes so much longer than usual, as a share and in seconds, stands out.
const SLOWER_SHARE: f64 = 0.1;
const SLOWER: f64 = 1.0;

/// Drvs, attrs and the like that are named.
const NAMED: usize = 3;

pub(super) struct Ledger<'a> {
    now: &'a Entry,
    usual: &'a Usual<'a>,
    /// What has no cause yet.
    left: BTreeMap<Group, f64>,
    causes: Vec<Cause>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(now: &'a Entry, usual: &'a Usual<'a>) -> Self {
        let difference = |group: Group| group.seconds(now) - usual.median(|run| group.seconds(run)).unwrap_or_default();
        let left = Group::ALL.into_iter().map(|group| (group, difference(group))).collect();
        Self { now, usual, left, causes: Vec::new() }
    }

    /// The causes. What the run waited for less, without a cause of its own, it only did while it waited for something
    /// else; so that counts against the largest of them, and so does the opposite.
    pub(super) fn into_causes(mut self) -> Vec<Cause> {
        let shifted: f64 = self.left.values().sum();
        let sum = shifted + self.causes.iter().map(|cause| cause.seconds).sum::<f64>();
        let largest = self.causes.iter_mut().max_by(|a, b| (a.seconds * sum).total_cmp(&(b.seconds * sum)));
        if let Some(cause) = largest.filter(|cause| (cause.seconds + shifted) * cause.seconds > 0.0) {
            cause.seconds += shifted;
        }
        self.causes
    }

    /// At most so much of what is left of a group and made the run longer.
    fn take(&mut self, group: Group, most: f64) -> f64 {
        let left = self.left.entry(group).or_default();
        let taken = left.min(most).max(0.0);
        *left -= taken;
        taken
    }

    /// All that is left of a group.
    fn take_all(&mut self, group: Group) -> f64 {
        self.left.insert(group, 0.0).unwrap_or_default()
    }

    /// Gives seconds to a cause, which is put together with what is known of it already.
    fn give(&mut self, kind: Kind, seconds: f64, text: impl FnOnce() -> String) {
        if seconds == 0.0 {
            return;
        }
        match self.causes.iter_mut().find(|cause| cause.kind == kind && kind != Kind::Drv) {
            Some(cause) => cause.seconds += seconds,
            None => self.causes.push(Cause { kind, seconds, text: text() }),
        }
    }

    fn usual(&self, of: impl Fn(&Entry) -> f64) -> f64 {
        self.usual.median(of).unwrap_or_default()
    }

    /// More attrs take longer to evaluate and to compare.
    pub(super) fn attrs(&mut self) {
        let more = drvs::new_attrs(self.now, self.usual);
        let count = |run: &Entry| run.counters.evaluated as f64;
        let by_count = ratio(count(self.now), self.usual(count));
        if more.is_empty() || by_count <= 0.0 {
            return;
        }
        let each = |run: &Entry| run.attrs.iter().filter_map(|attr| attr.eval).sum::<f64>() / count(run).max(1.0);
        let by_each = ratio(each(self.now), self.usual(each));
        let share = if by_each > ALIKE { by_count / (by_count + by_each) } else { 1.0 };
        let evaluating = self.left.get(&Group::Evaluating).copied().unwrap_or_default();
        let comparing = self.usual(|run| Group::Comparing.seconds(run)) * by_count.exp_m1();
        let seconds = self.take(Group::Evaluating, evaluating * share) + self.take(Group::Comparing, comparing);
        let (now, before) = (self.now, self.usual);
        self.give(Kind::Attrs, seconds, || drvs::attrs_text(now, before, &more));
    }

    /// What failed and was tried again: the attempts in vain, and the time until the next.
    pub(super) fn retries(&mut self) {
        let mut seconds = self.take(Group::Again, f64::INFINITY);
        let now = self.now;
        let done: BTreeSet<&str> = built(now).map(|build| build.drv.as_str()).collect();
        let vain = |build: &&Build| matches!(build.outcome, Outcome::Failed(_)) && done.contains(build.drv.as_str());
        let again: Vec<&Build> = now.builds.iter().filter(vain).collect();
        let mut lost: BTreeMap<&str, f64> = BTreeMap::new();
        for build in &again {
            *lost.entry(pname(&build.name)).or_default() += build.ended - build.started;
        }
        for (owner, lost) in lost {
            let longest =
                built(now).filter(|build| pname(&build.name) == owner).map(Build::seconds).fold(0.0, f64::max);
            let waited = building(now, owner) - longest;
            seconds += self.take(Group::Building, lost.min(waited));
        }
        self.give(Kind::Retry, seconds, || tried_again(&again, now));
    }

    /// Drvs on the way to the end that took longer, or less, than drvs of their package usually do.
    pub(super) fn slower_drvs(&mut self) {
        let now = self.now;
        let owners: BTreeSet<&str> =
            now.account.iter().filter(|part| part.what == "building").map(|part| part.owner.as_str()).collect();
        for owner in owners {
            let longest = built(now).filter(|build| pname(&build.name) == owner);
            let Some(build) = longest.max_by(|a, b| a.seconds().total_cmp(&b.seconds())) else { continue };
            let Some(usual) = self.usual.build(build) else { continue };
            let took = build.seconds();
            let more = (took - usual).clamp(-building(now, owner), building(now, owner));
            if more.abs() < SLOWER.max(usual * SLOWER_SHARE) || self.usual.is_within_spread(build) {
                continue;
            }
            *self.left.entry(Group::Building).or_default() -= more;
            self.give(Kind::Drv, more, || {
                format!("{} {} on {}, usually {}", build.name, duration(took), build.builder, duration(usual))
            });
        }
    }

    /// Caches that had to be asked again, and those that took long.
    pub(super) fn caches(&mut self) {
        let now = self.now;
        let trouble = now.caches.iter().filter_map(|cache| Some((cache, cache.trouble.as_ref()?)));
        let trouble: Vec<_> = trouble.collect();
        let waited: f64 =
            trouble.iter().map(|(_, trouble)| trouble.waited.max(trouble.spell.end - trouble.spell.start)).sum();
        let mut left = waited;
        for group in [Group::Comparing, Group::Copying, Group::Pushing] {
            left -= self.take(group, left);
        }
        let worst = trouble.iter().max_by(|a, b| a.1.waited.total_cmp(&b.1.waited));
        if let Some((cache, trouble)) = worst {
            self.give(Kind::Cache, waited - left, || {
                let requests = plural(trouble.requests as usize, "request", "requests");
                let when = between(now, trouble.spell);
                format!("{} answered {} {when}: {requests} repeated", cache.name, trouble.reason)
            });
        }
        let comparing = self.take(Group::Comparing, f64::INFINITY);
        let usual = self.usual(|run| Group::Comparing.seconds(run));
        self.give(Kind::Cache, comparing, || {
            let took = Group::Comparing.seconds(now);
            let paths = plural(now.counters.paths_asked as usize, "path", "paths");
            format!("comparing with caches {}, usually {}: {paths} asked", duration(took), duration(usual))
        });
    }

    /// Drvs that no builder could take for a while.
    pub(super) fn away(&mut self) {
        let seconds = self.take_all(Group::Away);
        let mut by_builder: BTreeMap<&str, f64> = BTreeMap::new();
        for part in self.now.account.iter().filter(|part| Group::of(&part.what) == Group::Away) {
            *by_builder.entry(part.place.as_str()).or_default() += part.seconds;
        }
        let longest = by_builder.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(name, _)| name.to_owned());
        let own = self.builders_text();
        self.give(Kind::Builder, seconds, || {
            let waited = longest.map_or_else(|| "a builder".to_owned(), |name| format!("builder {name}"));
            own.unwrap_or_else(|| format!("drvs waited for {waited}, which no other could take"))
        });
    }

    /// What is left of building and of waiting for slots: more to do, or fewer slots to do it with.
    pub(super) fn work(&mut self) {
        let (mut building, mut waiting) = (self.take_all(Group::Building), self.take_all(Group::Waiting));
        // The way to the end leads over other drvs where there are fewer slots: what it saves there it loses here.
        if building * waiting < 0.0 {
            let both = building + waiting;
            (building, waiting) = if building.abs() > waiting.abs() { (both, 0.0) } else { (0.0, both) };
        }
        let work = |run: &Entry| built(run).map(Build::seconds).sum::<f64>();
        let more = ratio(work(self.now), self.usual(work));
        let fewer = ratio(self.usual(slots), slots(self.now));
        // Only what pulls into the same direction explains it.
        let pull = |by: f64| if by * waiting > 0.0 && by.abs() > ALIKE { by.abs() } else { 0.0 };
        let (by_work, by_slots) = (pull(more), pull(fewer));
        let sum = by_work + by_slots;
        if sum > 0.0 {
            self.more_drvs(waiting * by_work / sum);
            self.fewer_slots(waiting * by_slots / sum);
        } else if waiting > 0.0 {
            self.queue(waiting);
        } else {
            self.left.insert(Group::Waiting, waiting);
        }
        let new = |build: &&Build| self.usual.build(build).is_none();
        let other = ratio(work(self.now), built(self.now).filter(|build| !new(build)).map(Build::seconds).sum());
        if more * building > 0.0 && more.abs() > ALIKE || building > 0.0 && other > ALIKE {
            self.more_drvs(building);
        } else if fewer * building > 0.0 && fewer.abs() > ALIKE {
            self.fewer_slots(building);
        } else {
            self.left.insert(Group::Building, building);
        }
    }

    fn more_drvs(&mut self, seconds: f64) {
        let (now, usual) = (self.now, self.usual);
        let (kind, text) = drvs::cause(now, usual);
        self.give(kind, seconds, || text);
    }

    fn fewer_slots(&mut self, seconds: f64) {
        let (now, before) = (slots(self.now).round(), self.usual(slots).round());
        let text = self.builders_text();
        self.give(Kind::Builder, seconds, || {
            text.unwrap_or_else(|| format!("{now} slots on average, usually {before}"))
        });
    }

    /// Which builders are not there, or offer less: `builder big2 absent since 2026-11-21 22:10: 16 slots instead of 32`.
    fn builders_text(&self) -> Option<String> {
        let (mut texts, mut absent) = (Vec::new(), false);
        for usual in self.usual.builders() {
            let Some(used) = up(self.now).find(|used| used.name == usual.name) else {
                let since = usual.absent_since.unwrap_or(self.now.started);
                texts.push(format!("builder {} absent since {}", usual.name, since.strftime("%a %H:%M UTC")));
                absent = true;
                continue;
            };
            if f64::from(used.slots) < usual.slots {
                texts.push(format!("builder {} has {} slots instead of {}", used.name, used.slots, usual.slots));
            } else if used.lost > 0 {
                texts.push(format!("builder {} lost, there for {} only", used.name, duration(used.up)));
            }
        }
        let all = |slots: u32, used: &BuilderUse| slots.saturating_add(used.slots);
        let (now, before) = (up(self.now).fold(0, all), self.usual(|run| f64::from(up(run).fold(0, all))).round());
        let fewer = f64::from(now) < before && (absent || texts.len() > 1);
        let slots = if fewer { format!(": {now} slots instead of {before}") } else { String::new() };
        (!texts.is_empty()).then(|| texts.join(", ") + &slots)
    }

    /// Drvs waited, and nothing is known that is different: they wanted the same builders at the same time.
    fn queue(&mut self, seconds: f64) {
        let now = self.now;
        let mut waits: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
        for build in &now.builds {
            let wait = waits.entry(build.builder.as_str()).or_default();
            *wait = (wait.0 + build.building.unwrap_or(build.started) - build.ready, wait.1 + 1);
        }
        let longest = waits.into_iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let usual = |name: &str| {
            self.usual(|run| run.builds.iter().filter(|build| build.builder == name).count() as f64) as usize
        };
        let busiest = longest.map(|(name, (_, drvs))| {
            format!(": {} went to {name}, usually {}", plural(drvs, "drv", "drvs"), count(usual(name)))
        });
        let took = Group::Waiting.seconds(now);
        let before = self.usual(|run| Group::Waiting.seconds(run));
        self.give(Kind::Queue, seconds, || {
            let times = format!("waiting for slots {}, usually {}", duration(took), duration(before));
            times + &busiest.unwrap_or_default()
        });
    }

    /// What is its own cause.
    pub(super) fn others(&mut self) {
        let (now, usual) = (self.now, self.usual);
        let times = |group: Group| {
            let before = usual.median(|run| group.seconds(run)).unwrap_or_default();
            format!("{}, usually {}", duration(group.seconds(now)), duration(before))
        };
        let stage = |run: &Entry| run.stage_seconds(Stage::Eval);
        let before = usual.median(stage).unwrap_or_default();
        let longer = stage(now) - before;
        let evaluating = self.left.get(&Group::Evaluating).copied().unwrap_or_default();
        // The rest is that it hid behind something else, or no longer does.
        let evaluating =
            if evaluating > 0.0 { evaluating.min(longer).max(0.0) } else { evaluating.max(longer).min(0.0) };
        *self.left.entry(Group::Evaluating).or_default() -= evaluating;
        self.give(Kind::Evaluation, evaluating, || {
            let mut text = format!("evaluation {}, usually {}", duration(stage(now)), duration(before));
            let (evaluated, before) = (now.counters.evaluated, usual.median(|run| run.counters.evaluated as f64));
            if before.is_some_and(|before| before.round() as u64 != evaluated) {
                let before = count(before.unwrap_or_default().round() as usize);
                text.push_str(&format!(", {} instead of {before}", plural(evaluated as usize, "attr", "attrs")));
            }
            let spread = stats::modified_z(stage(now), &usual.numbers(stage));
            text + if spread.is_some_and(|z| z.abs() < ODD) { ", within its usual spread" } else { "" }
        });
        let pushing = self.take(Group::Pushing, f64::INFINITY);
        self.give(Kind::Push, pushing, || {
            let before = usual.median(|run| run.counters.pushed_bytes as f64).unwrap_or_default();
            let bytes = format!("{}, usually {}", size(now.counters.pushed_bytes), size(before as u64));
            format!("pushing after all else {}: {bytes}", times(Group::Pushing))
        });
        let copying = self.take(Group::Copying, f64::INFINITY);
        self.give(Kind::Copying, copying, || {
            let brought = |run: &Entry| run.builders.iter().map(|used| used.brought as f64).sum::<f64>();
            let before = usual.median(brought).unwrap_or_default();
            let bytes = format!("{} to builders, usually {}", size(brought(now) as u64), size(before as u64));
            format!("copying {}: {bytes}", times(Group::Copying))
        });
        let start = self.take_all(Group::Start);
        self.give(Kind::Start, start, || format!("starting and closing {}", times(Group::Start)));
    }
}

/// `from 08:16 to 08:31 UTC`, `at 08:16 UTC`.
fn between(run: &Entry, spell: Spell) -> String {
    let time = |seconds: f64| {
        let at = run.started.checked_add(jiff::SignedDuration::from_millis((seconds * 1e3) as i64));
        at.unwrap_or(run.started).strftime("%H:%M").to_string()
    };
    let (from, to) = (time(spell.start), time(spell.end));
    if from == to { format!("at {from} UTC") } else { format!("from {from} to {to} UTC") }
}

/// Seconds for which a run waited for a package to be built.
fn building(run: &Entry, owner: &str) -> f64 {
    let parts = run.account.iter().filter(|part| part.owner == owner && part.what == "building");
    parts.map(|part| part.seconds).sum()
}

/// The logarithm of a ratio; 0 where there is none.
fn ratio(a: f64, b: f64) -> f64 {
    if a > 0.0 && b > 0.0 { (a / b).ln() } else { 0.0 }
}

/// `nginx-1.29.4 tried 3 times (network on big1)`.
fn tried_again(again: &[&Build], now: &Entry) -> String {
    let mut tries: BTreeMap<&str, (usize, f64, &Build)> = BTreeMap::new();
    for build in again {
        let known = tries.entry(build.drv.as_str()).or_insert((1, 0.0, build));
        *known = (known.0 + 1, known.1 + build.ended - build.started, build);
    }
    let mut worst: Vec<_> = tries.into_values().collect();
    worst.sort_by(|a, b| b.1.total_cmp(&a.1));
    let text = |(tries, _, last): &(usize, f64, &Build)| {
        let why = match last.outcome {
            Outcome::Failed(class) => format!(" ({} on {})", word(class), last.builder),
            _ => String::new(),
        };
        format!("{} tried {tries} times{why}", last.name)
    };
    let named: Vec<String> = worst.iter().take(NAMED).map(text).collect();
    match worst.len().saturating_sub(NAMED) {
        _ if worst.is_empty() => {
            format!("{} waited for another try", plural(now.counters.retries as usize, "drv", "drvs"))
        }
        0 => named.join(", "),
        more => format!("{}, {more} more", named.join(", ")),
    }
}
