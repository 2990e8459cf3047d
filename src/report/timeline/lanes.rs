//! Bars, and how they are laid beside each other.

use std::collections::BTreeMap;

use crate::event::{Evaluated, Moment, Pushed};
use crate::id::DrvId;
use crate::report::summary::{Attempt, Attr, Drv, LOCAL, Push, Summary};

use super::{Bar, End, Site, Subject, Track};

/// All tracks that have a bar, and the slots of builders where something was built.
pub(super) fn tracks(s: &Summary) -> Vec<Track> {
    let mut tracks = evaluators(s).into_iter().chain(fetches(s)).collect::<Vec<_>>();
    for (id, builder) in &s.builders {
        let attempts = || s.attempts.values().filter(|attempt| attempt.builder == *id);
        let inputs = attempts().filter_map(|attempt| inputs(s, attempt)).collect();
        let slots = attempts().filter_map(|attempt| slot(s, attempt)).collect();
        let results = s.drvs.iter().flat_map(|(drv, known)| results(s, *drv, known, *id)).collect();
        tracks.extend(track(Site::Inputs(*id), inputs));
        let mut lanes = laid(slots);
        let free = match attempts().next() {
            Some(_) => builder.slots as usize,
            // One lane says that it was there and had nothing to do.
            None => usize::from(!s.attempts.is_empty() && *id != LOCAL),
        };
        lanes.resize(lanes.len().max(free.min(MOST_SLOTS)), Vec::new());
        tracks.extend((!lanes.is_empty()).then_some(Track { site: Site::Slots(*id), lanes }));
        tracks.extend(track(Site::Results(*id), results));
    }
    for cache in s.caches.keys() {
        let pushes = s.pushes.iter().filter(|((pushed_to, _), _)| pushed_to == cache);
        let bars = pushes.filter_map(|((_, path), push)| pushed(s, push, Subject::Path(path.clone()))).collect();
        tracks.extend(track(Site::Pushes(*cache), bars));
    }
    tracks
}

/// Slots of a builder that are drawn although nothing is known to have been in them; a record may claim any number.
const MOST_SLOTS: usize = 1024;

fn track(site: Site, bars: Vec<Bar>) -> Option<Track> {
    let lanes = laid(bars);
    (!lanes.is_empty()).then_some(Track { site, lanes })
}

/// Lays bars into as few lanes as they need, each into the first that is free.
fn laid(mut bars: Vec<Bar>) -> Vec<Vec<Bar>> {
    bars.sort_by(|a, b| (a.from, a.to, &a.subject).cmp(&(b.from, b.to, &b.subject)));
    let mut lanes: Vec<Vec<Bar>> = Vec::new();
    for bar in bars {
        let free = lanes.iter_mut().find(|lane| lane.last().is_none_or(|last| last.to <= bar.from));
        match free {
            Some(lane) => lane.push(bar),
            None => lanes.push(vec![bar]),
        }
    }
    lanes
}

/// Each evaluator has a lane; more where an import made it do something else meanwhile.
fn evaluators(s: &Summary) -> Option<Track> {
    let mut workers: BTreeMap<u32, Vec<Bar>> = BTreeMap::new();
    for (id, attr) in &s.attrs {
        if let Some((from, worker)) = attr.eval_started {
            let bar = bar(s, Subject::Attr(*id), from, evaluated(attr));
            workers.entry(worker).or_default().push(bar);
        }
    }
    let lanes: Vec<Vec<Bar>> = workers.into_values().flat_map(laid).collect();
    (!lanes.is_empty()).then_some(Track { site: Site::Evaluators, lanes })
}

fn evaluated(attr: &Attr) -> Option<(Moment, End)> {
    let (at, what) = attr.evaluated.as_ref()?;
    Some((*at, if matches!(what, Evaluated::Failed(_)) { End::Failed } else { End::Done }))
}

fn fetches(s: &Summary) -> Option<Track> {
    let of = |(id, drv): (&DrvId, &Drv)| {
        let fetches = drv.fetches.iter().map(|fetch| {
            let end = if fetch.failure.is_some() { End::Failed } else { End::Done };
            bar(s, Subject::Drv(*id), fetch.span.start, fetch.span.end.map(|at| (at, end)))
        });
        fetches.collect::<Vec<_>>()
    };
    track(Site::Fetches, s.drvs.iter().flat_map(of).collect())
}

/// What an attempt needs, on its way; not of attempts whose builder had all of it at once.
fn inputs(s: &Summary, attempt: &Attempt) -> Option<Bar> {
    let since = attempt.bringing.filter(|bringing| bringing.paths > 0)?.since;
    let prepared = attempt.prepared.map(|prepared| (prepared.at, End::Done));
    let ended = attempt.ended.as_ref().map(|(at, _)| (*at, End::Failed));
    let mut bar = bar(s, Subject::Drv(attempt.drv), since, prepared.or(ended));
    bar.bytes = attempt.prepared.map(|prepared| prepared.copied_size);
    Some(bar)
}

/// An attempt in its slot.
fn slot(s: &Summary, attempt: &Attempt) -> Option<Bar> {
    let end = if attempt.succeeded() { End::Done } else { End::Failed };
    let ended = attempt.ended.as_ref().map(|(at, _)| (*at, end));
    let mut bar = bar(s, Subject::Drv(attempt.drv), attempt.slot_since()?, ended);
    bar.phases.clone_from(&attempt.phases);
    Some(bar)
}

fn results(s: &Summary, id: DrvId, drv: &Drv, builder: crate::id::BuilderId) -> Vec<Bar> {
    let returns = drv.returns.iter().filter(|back| back.builder == builder);
    let of = |back: &crate::report::summary::Return| {
        let end = if back.failure.is_some() { End::Failed } else { End::Done };
        let mut bar = bar(s, Subject::Drv(id), back.span.start, back.span.end.map(|at| (at, end)));
        bar.bytes = Some(back.nar_size);
        bar
    };
    // What takes no time moves nothing.
    returns.map(of).filter(|bar| bar.from < bar.to).collect()
}

/// The upload of a path; nothing of one that was there.
fn pushed(s: &Summary, push: &Push, subject: Subject) -> Option<Bar> {
    let (end, bytes) = match push.ended.as_ref().map(|(at, pushed)| (*at, pushed)) {
        None => (None, None),
        Some((_, Pushed::Present)) => return None,
        Some((at, Pushed::Uploaded { file_size })) => (Some((at, End::Done)), Some(*file_size)),
        Some((at, Pushed::Failed(_))) => (Some((at, End::Failed)), None),
    };
    let mut bar = bar(s, subject, push.started?, end);
    bar.bytes = bytes;
    Some(bar)
}

fn bar(s: &Summary, subject: Subject, from: Moment, end: Option<(Moment, End)>) -> Bar {
    let (to, end) = end.unwrap_or((s.end, End::Open));
    Bar { subject, from, to: to.max(from), end, phases: Vec::new(), bytes: None }
}
