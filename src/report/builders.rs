//! Builders that come and go, in words: for lines while a run goes on, and for its verdict.

use std::collections::BTreeSet;

use crate::event::Moment;
use crate::id::{AttrId, BuilderId, DrvId};

use super::failure::{headline, kinds};
use super::number::{duration, plural};
use super::summary::{Attempt, Builder, Drv, LOCAL, Outage, State, Summary};
use super::text::listed;

/// Builders that a sentence names; more are counted.
const NAMED: usize = 3;

/// Columns for the names of attrs in a sentence; more are counted.
const NAMES: usize = 60;

/// A builder cannot be used any more, or could not be reached: what that is, and what goes on instead.
#[must_use]
pub fn away(s: &Summary, id: BuilderId, outage: &Outage) -> Vec<String> {
    let name = s.builder_name(id);
    let cause = headline(&outage.failure.message);
    let others = |slots| others(s, id, slots);
    let mut lines = Vec::new();
    if outage.lost {
        lines.push(format!("builder {name} lost: {cause}; {}", what_was_running(s, id, outage, &others(false))));
        if outage.again.is_none() {
            lines.push(format!("{name} is not tried again"));
        }
    } else {
        lines.push(format!("builder {name} unreachable: {cause}"));
        let others = others(true);
        let others =
            if others.is_empty() { "nothing to build on so far".to_owned() } else { format!("going on with {others}") };
        lines.push(format!("{others}; {name} is {}", again(outage)));
    }
    lines.extend(left_without(s, id));
    lines.extend(outage.hint.iter().map(|hint| format!("hint: {hint}")));
    lines
}

/// `7 running drvs go to local, 0 results lost`.
fn what_was_running(s: &Summary, id: BuilderId, outage: &Outage, others: &str) -> String {
    let running = match (outage.running as usize, others.is_empty()) {
        (0, _) => "nothing was running".to_owned(),
        (n, true) => {
            format!("{} {} for it", plural(n, "running drv", "running drvs"), if n == 1 { "waits" } else { "wait" })
        }
        (n, false) => {
            let verb = if n == 1 { "goes" } else { "go" };
            format!("{} {verb} to {}", plural(n, "running drv", "running drvs"), others)
        }
    };
    match s.only_on(id) {
        0 => format!("{running}, 0 results lost"),
        n => format!("{running}, {} only there", plural(n, "result is", "results are")),
    }
}

/// A builder can be used again.
#[must_use]
pub fn back(s: &Summary, id: BuilderId, outage: &Outage) -> String {
    let name = s.builder_name(id);
    let took = duration(outage.seconds(s.end));
    if !outage.lost {
        return format!("builder {name} is there after {took}");
    }
    let found = match (outage.running, s.taken_over(id, outage)) {
        (0, _) => String::new(),
        (n, 0) => format!(": none of the {n} had finished there"),
        (n, found) => format!(": {found} of the {n} had finished there, taken over"),
    };
    format!("builder {name} is back after {took}{found}")
}

/// A builder is not tried any more.
#[must_use]
pub fn given_up(s: &Summary, id: BuilderId, outage: &Outage) -> String {
    format!(
        "builder {} given up: {}; {}",
        s.builder_name(id),
        is_away(outage, s.end),
        headline(&outage.failure.message)
    )
}

/// What waits for a builder that is away because no other takes it, as far as it is planned:
/// `nobody else builds for aarch64-linux: 3 hosts need it: pi1 pi2 pi3 (41 drvs)`.
#[must_use]
pub fn left_without(s: &Summary, id: BuilderId) -> Option<String> {
    let away = s.builders.get(&id)?;
    // One that was never reached has not said what it builds for.
    let may = |drv: &Drv| away.up.is_empty() || away.takes(drv);
    let others: Vec<&Builder> =
        s.builders.iter().filter(|(other, at)| **other != id && at.outage().is_none()).map(|(_, at)| at).collect();
    let is_left = |drv: &&Drv| {
        let open = drv.ended.is_none() && !drv.fetch && !drv.opaque;
        open && may(drv) && !others.iter().any(|other| other.takes(drv))
    };
    let left: Vec<&Drv> = s.drvs.values().filter(is_left).collect();
    let asks: BTreeSet<String> = left.iter().map(|drv| drv.asks()).collect();
    let asks: Vec<String> = asks.into_iter().collect();
    let attrs: BTreeSet<AttrId> = left.iter().filter_map(|drv| drv.attr).collect();
    let attrs: Vec<AttrId> = attrs.into_iter().collect();
    let drvs = plural(left.len(), "drv", "drvs");
    let verb = if attrs.len() == 1 { "needs" } else { "need" };
    let (asks, names) = (asks.join(", "), listed(&s.names(&attrs), " ", NAMES));
    match (left.is_empty(), attrs.is_empty()) {
        (true, _) => None,
        (false, true) => Some(format!("nobody else builds for {asks} ({drvs})")),
        (false, false) => {
            Some(format!("nobody else builds for {asks}: {} {verb} it: {names} ({drvs})", kinds(s, &attrs)))
        }
    }
}

/// `unreachable (3 tries, 2m00s)`.
#[must_use]
pub fn is_away(outage: &Outage, now: Moment) -> String {
    let word = if outage.lost { "lost" } else { "unreachable" };
    let tries = match outage.tries {
        0 => String::new(),
        n => format!("{}, ", plural(n as usize, "try", "tries")),
    };
    format!("{word} ({tries}{})", duration(outage.seconds(now)))
}

/// `tried again in 8s`.
fn again(outage: &Outage) -> String {
    match outage.again {
        None => "not tried again".to_owned(),
        Some(at) => format!("tried again in {}", whole(at.since(outage.span.start))),
    }
}

/// What a builder that takes nothing waits for, the longest way to say it first; `None` if it takes drvs.
#[must_use]
pub fn waits(builder: &Builder, now: Moment) -> Option<Vec<String>> {
    if let Some((_, why)) = builder.pause().filter(|_| builder.outage().is_none()) {
        return Some(vec![format!("paused: {}", headline(why)), "paused".to_owned()]);
    }
    let outage = builder.outage()?;
    let since = match outage.lost {
        true => format!("lost {} ago", whole(outage.seconds(now))),
        false => format!("unreachable for {}", whole(outage.seconds(now))),
    };
    let again = match outage.again {
        None => "not tried again".to_owned(),
        Some(at) if at <= now => "dialling".to_owned(),
        Some(at) => format!("tried again in {}", whole(at.since(now))),
    };
    let cause = headline(&outage.failure.message);
    Some(vec![format!("{since}: {cause}; {again}"), format!("{since}, {again}"), again])
}

/// Whole seconds, so that a line does not flicker.
fn whole(seconds: f64) -> String {
    if seconds < 9.95 { format!("{}s", seconds as u64) } else { duration(seconds) }
}

/// `big1 (16 slots) and local`: the other builders that take drvs, with their slots if asked.
fn others(s: &Summary, but: BuilderId, slots: bool) -> String {
    let mut up: Vec<(&BuilderId, &Builder)> = s
        .builders
        .iter()
        .filter(|(id, builder)| **id != but && builder.state() == State::Ready && builder.slots > 0)
        .collect();
    up.sort_by_key(|(id, _)| (**id == LOCAL, **id));
    let one = |(id, builder): &(&BuilderId, &Builder)| match **id == LOCAL || !slots {
        true => builder.name.to_string(),
        false => format!("{} ({})", builder.name, plural(builder.slots as usize, "slot", "slots")),
    };
    let more = up.len().saturating_sub(NAMED);
    let mut names: Vec<String> = up.iter().take(NAMED).map(one).collect();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// The builders that the attempts of a drv were on, each with how it went: `: big1 lost, big2`. Nothing where it always
/// was the same one.
#[must_use]
pub fn places(s: &Summary, drv: DrvId) -> String {
    let attempts: Vec<&Attempt> = s.attempts_of(drv).collect();
    let first = attempts.first().map(|attempt| attempt.builder);
    if attempts.iter().all(|attempt| !attempt.was_lost() && Some(attempt.builder) == first) {
        return String::new();
    }
    let one = |attempt: &&Attempt| {
        let lost = if attempt.was_lost() { " lost" } else { "" };
        format!("{}{lost}", s.builder_name(attempt.builder))
    };
    let (earlier, last) = attempts.split_at(attempts.len().saturating_sub(NAMED + 1));
    let more = if earlier.is_empty() { String::new() } else { format!("{} earlier, ", earlier.len()) };
    format!(": {more}{}", last.iter().map(one).collect::<Vec<_>>().join(", "))
}
