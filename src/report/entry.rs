//! The entry of a run in history: the run in numbers, as far as other runs can be compared with it.

use std::collections::BTreeMap;

use crate::event::{AttemptEnd, Evaluated, Pushed, Status, Text};
use crate::id::Kind;
use crate::record::history::{AttrTimes, Build, BuilderUse, CacheUse, Counters, Entry, Outcome, Part, Spell, Trouble};

use super::account::{self, Interval, Owner, Place};
use super::chain;
use super::hits;
use super::list;
use super::number::pname;
use super::origins;
use super::summary::{Attempt, Span, Summary};
use super::timeline;

/// Of a run; `None` if its record does not even say how it began.
#[must_use]
pub fn of(s: &Summary) -> Option<Entry> {
    let header = s.header.as_ref()?;
    let placed = s.placed.clone().unwrap_or_default();
    let text = |text: &Text| text.to_string();
    Some(Entry {
        run: header.run,
        started: header.started,
        seconds: s.seconds(),
        exit: s.exit,
        command: text(&header.command),
        what: header.what.iter().map(text).collect(),
        drover: text(&header.drover),
        nix: text(&header.nix),
        flake: s.flake.as_ref().map(|flake| text(&flake.original)),
        rev: s.flake.as_ref().and_then(|flake| flake.rev.as_ref()).map(text),
        branch: placed.branch.as_ref().map(text),
        change: placed.change.as_ref().map(text),
        inputs: s.inputs.iter().map(|input| (text(&input.name), text(&input.rev))).collect(),
        verdict: list::verdict(s),
        counters: counters(s),
        stages: s.stages.iter().map(|(stage, span)| (*stage, spell(s, *span))).collect(),
        account: parts(s),
        builders: builders(s),
        caches: caches(s),
        attrs: attrs(s),
        builds: builds(s),
        origins: origins::of(s),
        chain_seconds: chain::longest(s).seconds,
    })
}

fn spell(s: &Summary, span: Span) -> Spell {
    Spell { start: span.start.seconds(), end: span.end.unwrap_or(s.end).seconds() }
}

fn counters(s: &Summary) -> Counters {
    let counts = s.counts;
    let hits = hits::of(s);
    let hit = |of: fn(&hits::Hits) -> hits::Share| hits.as_ref().map(of).unwrap_or_default();
    let (attrs, paths, bytes) = (hit(|hits| hits.attrs), hit(|hits| hits.paths), hit(|hits| hits.bytes));
    let taken: Vec<_> = s.taken().into_iter().filter_map(|id| s.attrs.get(&id)).collect();
    let retries = s.drvs.values().map(|drv| drv.attempts.len().saturating_sub(1)).sum::<usize>();
    Counters {
        attrs: taken.len() as u64,
        hosts: taken.iter().filter(|attr| attr.kind == Kind::NixosConfigurations).count() as u64,
        evaluated: taken.iter().filter(|attr| attr.eval_seconds().is_some()).count() as u64,
        eval_failed: counts.eval_failed as u64,
        failed_attrs: taken.iter().filter(|attr| s.status(attr) == Some(Status::Failed)).count() as u64,
        to_build: counts.builds as u64,
        built: counts.built.saturating_sub(counts.found) as u64,
        failed: counts.failed as u64,
        fetched: counts.fetched as u64,
        retries: retries as u64,
        flaky: s.flaky().len() as u64,
        attrs_hit: attrs.hit,
        attrs_asked: attrs.of,
        paths_hit: paths.hit,
        paths_asked: paths.of,
        bytes_hit: bytes.hit,
        bytes_asked: bytes.of,
        spared_seconds: s.spared.map_or(0, |spared| spared.seconds.max(0.0).round() as u64),
        closure_bytes: taken.iter().filter_map(|attr| attr.closure).fold(0, |sum, (_, size)| sum.saturating_add(size)),
        pushed: counts.pushed as u64,
        push_failed: counts.push_failed as u64,
        pushed_bytes: counts.pushed_bytes,
    }
}

/// The account, with all intervals of the same owner put together, in the order in which they first come up.
fn parts(s: &Summary) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut known: BTreeMap<(&'static str, String, String), usize> = BTreeMap::new();
    for interval in account::of(s) {
        let (what, owner, place) = (interval.what.word(), owner(s, &interval), place(s, &interval));
        let at = *known.entry((what, owner.clone(), place.clone())).or_insert(parts.len());
        if at == parts.len() {
            parts.push(Part { what: what.to_owned(), owner, place, seconds: 0.0 });
        }
        parts[at].seconds += interval.to.since(interval.from);
    }
    parts
}

fn owner(s: &Summary, interval: &Interval) -> String {
    match interval.owner {
        Owner::Run => String::new(),
        Owner::Attr(attr) => s.attr_name(attr),
        Owner::Drv(drv) => pname(&s.drv_name(drv)).to_owned(),
        Owner::Cache(cache) => s.cache_name(cache),
    }
}

fn place(s: &Summary, interval: &Interval) -> String {
    match interval.place {
        None => String::new(),
        Some(Place::Builder(builder)) => s.builder_name(builder),
        Some(Place::Cache(cache)) => s.cache_name(cache),
    }
}

fn builders(s: &Summary) -> Vec<BuilderUse> {
    let used = s.builders.iter().map(|(id, builder)| {
        let attempts = s.attempts.values().filter(|attempt| attempt.builder == *id);
        let (mut busy, mut count, mut brought) = (0.0, 0_u32, 0_u64);
        for attempt in attempts {
            count = count.saturating_add(1);
            busy += attempt.slot_since().map_or(0.0, |since| end(s, attempt) - since.seconds());
            brought = brought.saturating_add(attempt.prepared.map_or(0, |prepared| prepared.copied_size));
        }
        let up = builder.up.iter().map(|span| span.end.unwrap_or(s.end).since(span.start)).sum();
        let lost = builder.outages.iter().filter(|outage| outage.lost).count();
        BuilderUse {
            name: builder.name.to_string(),
            slots: builder.slots,
            systems: builder.systems.clone(),
            speed: builder.speed(),
            up,
            busy,
            attempts: count,
            lost: u32::try_from(lost).unwrap_or(u32::MAX),
            brought,
        }
    });
    used.collect()
}

fn caches(s: &Summary) -> Vec<CacheUse> {
    let mut used: BTreeMap<_, CacheUse> = BTreeMap::new();
    for (id, cache) in &s.caches {
        let asked = cache.asked.unwrap_or_default();
        let trouble = cache.repeated.as_ref().map(|repeated| {
            let spell = Spell { start: repeated.span.0.seconds(), end: repeated.span.1.seconds() };
            Trouble { spell, reason: repeated.reason.to_string(), requests: repeated.requests, waited: repeated.waited }
        });
        let cache = CacheUse {
            name: cache.name.to_string(),
            url: cache.url.to_string(),
            present: asked.present.into(),
            absent: asked.absent.into(),
            untrusted: asked.untrusted.into(),
            no_answer: asked.no_answer.into(),
            pushed: 0,
            push_failed: 0,
            pushed_bytes: 0,
            trouble,
        };
        used.insert(*id, cache);
    }
    for ((id, _), push) in &s.pushes {
        let Some(cache) = used.get_mut(id) else { continue };
        match &push.ended {
            Some((_, Pushed::Uploaded { file_size })) => {
                cache.pushed += 1;
                cache.pushed_bytes = cache.pushed_bytes.saturating_add(*file_size);
            }
            Some((_, Pushed::Present)) => {}
            Some((_, Pushed::Failed(_))) | None => cache.push_failed += 1,
        }
    }
    used.into_values().collect()
}

fn attrs(s: &Summary) -> Vec<AttrTimes> {
    let of = |attr: &super::summary::Attr| {
        let drv = match &attr.evaluated {
            Some((_, Evaluated::Drv { drv, .. })) => Some(base_name(drv)),
            _ => None,
        };
        AttrTimes {
            attr: attr.path.clone(),
            kind: attr.kind,
            name: attr.name.to_string(),
            status: s.status(attr),
            drv,
            eval: attr.eval_seconds(),
            ended: attr.ended.as_ref().map(|end| end.at.seconds()),
            closure: attr.closure.map(|(_, bytes)| bytes),
            difference: attr.compared.as_ref().map(|compared| compared.difference),
        }
    };
    s.taken().into_iter().filter_map(|id| s.attrs.get(&id)).map(of).collect()
}

fn builds(s: &Summary) -> Vec<Build> {
    let mut builds: Vec<Build> = s.attempts.values().filter_map(|attempt| build(s, attempt)).collect();
    builds.sort_by(|a, b| a.ended.total_cmp(&b.ended));
    builds
}

fn build(s: &Summary, attempt: &Attempt) -> Option<Build> {
    let drv = s.drvs.get(&attempt.drv)?;
    let outcome = match &attempt.ended.as_ref()?.1 {
        AttemptEnd::Built { .. } => Outcome::Built,
        AttemptEnd::AlreadyValid { .. } => Outcome::Valid,
        AttemptEnd::Failed(failure) => Outcome::Failed(failure.class),
    };
    Some(Build {
        drv: base_name(&drv.path),
        name: drv.name.to_string(),
        system: drv.system.clone(),
        builder: s.builder_name(attempt.builder),
        ready: timeline::ready(s, drv).min(attempt.started).seconds(),
        started: attempt.started.seconds(),
        building: attempt.building.map(crate::event::Moment::seconds),
        ended: end(s, attempt),
        outcome,
        cpu: attempt.cpu,
        brought: attempt.prepared.map_or(0, |prepared| prepared.copied_size),
        bytes: s.sizes.get(&attempt.drv).copied(),
    })
}

fn end(s: &Summary, attempt: &Attempt) -> f64 {
    attempt.ended.as_ref().map_or(s.end, |(at, _)| *at).seconds()
}

fn base_name(path: &Text) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}
