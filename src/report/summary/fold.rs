//! How each event changes the summary.

use crate::event::{DrvOutcome, Evaluated, Event, Fact, Moment, Pushed, Stage, Text};
use crate::id::{AttrId, CacheId, DrvId};

use super::{
    Asked, Attr, AttrEnd, Base, BaseProgress, Cache, Compared, Counts, Diff, Drv, Fetch, Flake, Header, Import, Kept,
    LeftOut, Memory, Placed, Planned, Push, Repeated, Span, Spared, Summary, Verified, Warning, Written,
};
use super::{attempts, builders, check};

/// Takes one event in.
pub(super) fn add(s: &mut Summary, event: &Event) {
    let at = event.at;
    s.end = s.end.max(at);
    match &event.fact {
        Fact::RunStarted { .. }
        | Fact::FlakeLocked { .. }
        | Fact::CacheReady { .. }
        | Fact::RunPlaced { .. }
        | Fact::InputsLocked { .. }
        | Fact::CacheAsked { .. }
        | Fact::CacheRepeated { .. }
        | Fact::DiffProgress { .. } => surroundings(s, at, &event.fact),
        Fact::BuilderReady { .. }
        | Fact::BuilderSuspended { .. }
        | Fact::BuilderPaused { .. }
        | Fact::BuilderLoad { .. }
        | Fact::BuilderAsked { .. } => builders::add(s, at, &event.fact),
        Fact::StageStarted { stage } => stage_started(s, *stage, at),
        Fact::StageEnded { stage } => s.stages.entry(*stage).or_insert(Span { start: at, end: None }).end = Some(at),
        Fact::AttrListed { .. }
        | Fact::AttrsLeftOut { .. }
        | Fact::EvalStarted { .. }
        | Fact::EvalEnded { .. }
        | Fact::ImportStarted { .. }
        | Fact::ImportEnded { .. }
        | Fact::EvalWarning { .. }
        | Fact::EvalTrace { .. }
        | Fact::AttrPlanned { .. }
        | Fact::ClosureSized { .. }
        | Fact::AttrEnded { .. } => attr_fact(s, at, &event.fact),
        Fact::DrvNeeded { .. } | Fact::FetchStarted { .. } | Fact::FetchEnded { .. } => drv_fact(s, at, &event.fact),
        Fact::EstimatesKnown { off } => s.estimates_off = Some(*off).filter(|off| off.is_finite() && *off >= 0.0),
        Fact::FetchesPlanned { paths } => s.fetches.clone_from(paths),
        Fact::DrvEnded { drv, outcome } => drv_ended(s, at, *drv, outcome),
        Fact::AttemptStarted { .. }
        | Fact::AttemptWaiting { .. }
        | Fact::AttemptBuilding { .. }
        | Fact::AttemptPhase { .. }
        | Fact::AttemptMeasured { .. }
        | Fact::AttemptBringing { .. }
        | Fact::AttemptPrepared { .. }
        | Fact::AttemptEnded { .. }
        | Fact::ResultsReturning { .. }
        | Fact::ResultsReturned { .. } => attempts::add(s, at, &event.fact),
        Fact::PushAsked { paths } => s.asked.extend(paths.iter().cloned()),
        Fact::PushQueued { .. }
        | Fact::PushStarted { .. }
        | Fact::PushEnded { .. }
        | Fact::PushLeftOut { .. }
        | Fact::PushVerified { .. } => push_fact(s, at, &event.fact),
        Fact::Warning { message, hint } => {
            s.warnings.push(Warning { at, message: message.clone(), hint: hint.clone() });
        }
        Fact::Cancelled { level } => {
            let (highest, first) = s.cancelled.unwrap_or((*level, at));
            s.cancelled = Some((highest.max(*level), first));
        }
        Fact::RunFailed { message, hint } => {
            s.error = Some(Warning { at, message: message.clone(), hint: hint.clone() });
        }
        Fact::PlanWritten { file, bytes, drvs, sources } => {
            s.written = Some(Written { file: file.clone(), bytes: *bytes, drvs: *drvs, sources: *sources });
        }
        Fact::RunEnded { exit } => s.exit = Some(*exit),
        Fact::CachesSpared { drvs, known, seconds, paths, nar_size } => {
            let (drvs, known, seconds, paths, nar_size) = (*drvs, *known, *seconds, *paths, *nar_size);
            s.spared = Some(Spared { drvs, known, seconds, paths, nar_size });
        }
        Fact::DrvSized { drv, nar_size } => {
            s.sizes.insert(*drv, *nar_size);
        }
        Fact::OutputsKept { builder, paths, until, reason } => {
            let (paths, until, reason) = (paths.clone(), until.clone(), reason.clone());
            s.kept.push(Kept { builder: *builder, paths, until, reason });
        }
        Fact::FlakeFinding { .. } | Fact::AttrQuarantined { .. } | Fact::NixChecked { .. } => {
            check::add(s, &event.fact);
        }
        // It is told, and nothing follows from it.
        Fact::RevisionMasked { .. } => {}
        Fact::BaseProgress { .. }
        | Fact::BaseKnown { .. }
        | Fact::BaseMissing { .. }
        | Fact::AttrCompared { .. }
        | Fact::FailureCompared { .. }
        | Fact::ChangeExplained { .. }
        | Fact::AttrRemoved { .. }
        | Fact::ChangesSkipped { .. } => base_fact(s, at, &event.fact),
    }
}

/// What is known of the base.
fn base_fact(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::BaseProgress { label, done, total } => {
            let since = s.base_progress.as_ref().map_or(at, |known| known.since);
            s.base_progress = Some(BaseProgress { since, label: label.clone(), done: *done, total: *total });
        }
        Fact::BaseKnown { label, rev, locked, recorded, attrs, failed } => {
            s.base = Some(Base {
                at,
                label: label.clone(),
                rev: rev.clone(),
                locked: locked.clone(),
                recorded: *recorded,
                attrs: *attrs,
                failed: *failed,
            });
        }
        Fact::BaseMissing { message, hint } => {
            s.base_missing = Some(Warning { at, message: message.clone(), hint: hint.clone() });
        }
        Fact::AttrCompared { attr, difference, revision_only, same_outputs, base_drv } => {
            if let Some(known) = s.attrs.get_mut(attr) {
                known.compared = Some(Compared {
                    difference: *difference,
                    revision_only: *revision_only,
                    same_outputs: *same_outputs,
                    base_drv: base_drv.clone(),
                    why: None,
                });
            }
        }
        Fact::ChangeExplained { attrs, why } => {
            for attr in attrs {
                if let Some(compared) = s.attrs.get_mut(attr).and_then(|attr| attr.compared.as_mut()) {
                    compared.why = Some(why.clone());
                }
            }
        }
        Fact::FailureCompared { attr, ok } => {
            if let Some(known) = s.attrs.get_mut(attr) {
                known.was_fine = Some(*ok);
            }
        }
        Fact::AttrRemoved { path, base_drv } => s.removed.push((path.clone(), base_drv.clone())),
        Fact::ChangesSkipped { paths } => s.skipped.clone_from(paths),
        _ => {}
    }
}

fn surroundings(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::RunStarted { run, drover, command, what, started, nix, format: _ } => {
            s.header = Some(Header {
                run: *run,
                drover: drover.clone(),
                command: command.clone(),
                what: what.clone(),
                started: *started,
                nix: nix.clone(),
            });
        }
        Fact::FlakeLocked { original, locked, rev, dirty_files, recorded } => {
            s.flake = Some(Flake {
                at,
                original: original.clone(),
                locked: locked.clone(),
                rev: rev.clone(),
                dirty_files: *dirty_files,
                recorded: *recorded,
            });
        }
        Fact::CacheReady { cache, name, url, pull, push, optional, asked, sick } => {
            let ready = Cache {
                name: name.clone(),
                url: url.clone(),
                pull: *pull,
                push: *push,
                optional: *optional,
                by_name: *asked,
                sick: *sick,
                asked: s.caches.get(cache).and_then(|known| known.asked),
                repeated: s.caches.get(cache).and_then(|known| known.repeated.clone()),
            };
            s.caches.insert(*cache, ready);
        }
        Fact::RunPlaced { forge, repository, branch, change, url } => {
            let (forge, repository, branch) = (forge.clone(), repository.clone(), branch.clone());
            s.placed = Some(Placed { forge, repository, branch, change: change.clone(), url: url.clone() });
        }
        Fact::InputsLocked { inputs } => s.inputs.clone_from(inputs),
        Fact::CacheRepeated { cache, reason, requests, waited } => {
            if let Some(known) = s.caches.get_mut(cache) {
                let first = known.repeated.as_ref().map_or(at, |repeated| repeated.span.0);
                let (span, reason) = ((first, at), reason.clone());
                known.repeated = Some(Repeated { span, reason, requests: *requests, waited: *waited });
            }
        }
        Fact::CacheAsked { cache, present, absent, untrusted, no_answer } => {
            if let Some(known) = s.caches.get_mut(cache) {
                let (present, absent, untrusted, no_answer) = (*present, *absent, *untrusted, *no_answer);
                known.asked = Some(Asked { present, absent, untrusted, no_answer });
            }
        }
        Fact::DiffProgress { paths, valid, present, absent, untrusted, no_answer } => {
            s.diff = Some(Diff {
                at,
                paths: *paths,
                valid: *valid,
                present: *present,
                absent: *absent,
                untrusted: *untrusted,
                no_answer: *no_answer,
            });
        }
        _ => {}
    }
}

/// A stage that starts again goes on from its first start.
fn stage_started(s: &mut Summary, stage: Stage, at: Moment) {
    s.stages.entry(stage).or_insert(Span { start: at, end: None }).end = None;
}

fn attr_fact(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::AttrListed { attr, path, kind, name } => {
            s.attrs.entry(*attr).or_insert_with(|| Attr {
                path: path.clone(),
                kind: *kind,
                name: name.clone(),
                listed: at,
                imports: Vec::new(),
                eval_started: None,
                evaluated: None,
                warnings: Vec::new(),
                quarantined: None,
                memory: None,
                compared: None,
                was_fine: None,
                planned: None,
                ended: None,
                closure: None,
            });
        }
        Fact::AttrsLeftOut { count, what, flag } => {
            s.left_out.push(LeftOut { count: *count, what: what.clone(), flag: flag.clone() });
        }
        Fact::EvalWarning { attr, message } => {
            let attr = attr.and_then(|attr| s.attrs.get_mut(&attr));
            if let Some(attr) = attr.filter(|attr| !attr.warnings.contains(message)) {
                attr.warnings.push(message.clone());
            }
            match s.eval_warnings.iter_mut().find(|(known, _)| known == message) {
                Some((_, times)) => *times += 1,
                None => s.eval_warnings.push((message.clone(), 1)),
            }
        }
        Fact::EvalStarted { attr, worker } => {
            s.workers = s.workers.max(worker.saturating_add(1));
            if let Some(attr) = s.attrs.get_mut(attr) {
                attr.eval_started = Some((at, *worker));
            }
        }
        Fact::EvalEnded { attr, evaluated, peak, grown } => {
            let Some(attr) = s.attrs.get_mut(attr) else { return };
            if attr.evaluated.is_none() {
                s.counts.evaluated += 1;
                s.counts.eval_failed += usize::from(matches!(evaluated, Evaluated::Failed(_)));
            }
            attr.evaluated = Some((at, evaluated.clone()));
            attr.memory = peak.map(|peak| Memory { peak, grown: grown.unwrap_or(0) });
        }
        Fact::ImportStarted { attr, path, name } => {
            if let Some(imports) = imports(s, *attr) {
                let (path, name) = (path.clone(), name.clone());
                imports.push(Import { path, name, span: Span { start: at, end: None }, failure: None });
            }
        }
        Fact::ImportEnded { attr, path, failure } => {
            let open = |import: &&mut Import| import.path == *path && import.span.end.is_none();
            if let Some(import) = imports(s, *attr).and_then(|imports| imports.iter_mut().find(open)) {
                import.span.end = Some(at);
                import.failure.clone_from(failure);
            }
        }
        Fact::ClosureSized { attr, paths, nar_size } => {
            if let Some(known) = s.attrs.get_mut(attr) {
                known.closure = Some((*paths, *nar_size));
            }
        }
        Fact::AttrPlanned { attr, status, drv, builds } => {
            if let Some(attr) = s.attrs.get_mut(attr) {
                attr.planned = Some(Planned { at, status: *status, drv: *drv, builds: *builds });
            }
        }
        Fact::AttrEnded { attr, status, reason, root } => {
            if let Some(attr) = s.attrs.get_mut(attr) {
                attr.ended = Some(AttrEnd { at, status: *status, reason: reason.clone(), root: *root });
            }
        }
        _ => {}
    }
}

/// The imports of an attr, or those of the listing.
fn imports(s: &mut Summary, attr: Option<AttrId>) -> Option<&mut Vec<Import>> {
    match attr {
        Some(attr) => Some(&mut s.attrs.get_mut(&attr)?.imports),
        None => Some(&mut s.listing_imports),
    }
}

fn drv_fact(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::DrvNeeded { .. } => drv_needed(s, at, fact),
        Fact::FetchStarted { drv } => {
            if let Some(drv) = s.drvs.get_mut(drv) {
                drv.fetches.push(Fetch { span: Span { start: at, end: None }, failure: None });
            }
        }
        Fact::FetchEnded { drv, failure } => {
            let fetch = s.drvs.get_mut(drv).and_then(|drv| drv.fetches.last_mut());
            if let Some(fetch) = fetch.filter(|fetch| fetch.span.end.is_none()) {
                fetch.span.end = Some(at);
                fetch.failure.clone_from(failure);
            }
        }
        _ => {}
    }
}

/// A drv that comes again (its fetch failed, or no cache has any more what was to be fetched) keeps what has happened
/// to it so far, but for its final word.
fn drv_needed(s: &mut Summary, at: Moment, fact: &Fact) {
    let Fact::DrvNeeded { drv: id, path, name, system, inputs, fetch, opaque, features, attr, expected, outputs } =
        fact
    else {
        return;
    };
    let mut known = s.drvs.remove(id);
    if let Some(known) = &mut known {
        take_back(&mut s.counts, known);
    }
    match known.as_ref().map(|known| known.fetch) {
        Some(true) => s.counts.fetches = s.counts.fetches.saturating_sub(1),
        Some(false) => s.counts.builds = s.counts.builds.saturating_sub(1),
        None => {}
    }
    if *fetch {
        s.counts.fetches += 1;
    } else {
        s.counts.builds += 1;
    }
    let (attempts, fetches, returns) = known.map(|d| (d.attempts, d.fetches, d.returns)).unwrap_or_default();
    let drv = Drv {
        path: path.clone(),
        name: name.clone(),
        system: system.clone(),
        inputs: inputs.clone(),
        fetch: *fetch,
        opaque: *opaque,
        features: features.clone(),
        attr: *attr,
        expected: expected.filter(|seconds| seconds.is_finite() && *seconds >= 0.0),
        outputs: outputs.clone(),
        needed: at,
        attempts,
        fetches,
        returns,
        ended: None,
    };
    s.drvs.insert(*id, drv);
}

/// The last word counts: a drv whose outputs were lost with their builder is built again and gets a second one.
fn drv_ended(s: &mut Summary, at: Moment, id: DrvId, outcome: &DrvOutcome) {
    let Some(drv) = s.drvs.get_mut(&id) else { return };
    let counts = &mut s.counts;
    take_back(counts, drv);
    drv.ended = Some((at, outcome.clone()));
    if *outcome == DrvOutcome::Valid && !drv.fetch {
        counts.found += 1;
    }
    if let Some(counter) = counter(counts, outcome, drv.fetch) {
        *counter += 1;
    }
}

/// A final word was not the last.
fn take_back(counts: &mut Counts, drv: &mut Drv) {
    let Some((_, before)) = drv.ended.take() else { return };
    if before == DrvOutcome::Valid && !drv.fetch {
        counts.found = counts.found.saturating_sub(1);
    }
    if let Some(counter) = counter(counts, &before, drv.fetch) {
        *counter = counter.saturating_sub(1);
    }
}

/// Where a drv is counted that ended so.
fn counter<'a>(counts: &'a mut Counts, outcome: &DrvOutcome, fetch: bool) -> Option<&'a mut usize> {
    Some(match (outcome, fetch) {
        (DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid, false) => &mut counts.built,
        (DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid, true) => &mut counts.fetched,
        (DrvOutcome::Failed(_), _) => &mut counts.failed,
        (DrvOutcome::DependencyFailed { .. } | DrvOutcome::Cancelled, false) => &mut counts.given_up,
        (DrvOutcome::DependencyFailed { .. } | DrvOutcome::Cancelled, true) => return None,
    })
}

fn push_fact(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::PushQueued { cache, path, nar_size } => {
            push(s, *cache, path, at).nar_size = *nar_size;
        }
        Fact::PushStarted { cache, path } => {
            push(s, *cache, path, at).started.get_or_insert(at);
        }
        Fact::PushEnded { cache, path, pushed } => {
            let push = push(s, *cache, path, at);
            if push.ended.is_some() {
                return;
            }
            push.ended = Some((at, pushed.clone()));
            match pushed {
                Pushed::Uploaded { file_size } => {
                    s.counts.pushed += 1;
                    s.counts.pushed_bytes = s.counts.pushed_bytes.saturating_add(*file_size);
                }
                Pushed::Present => s.counts.pushed += 1,
                Pushed::Failed(_) => s.counts.push_failed += 1,
            }
        }
        Fact::PushVerified { cache, present, missing } => {
            s.verified.insert(*cache, Verified { at, present: *present, missing: missing.clone() });
        }
        Fact::PushLeftOut { cache, paths, without } => {
            s.not_whole.entry(*cache).or_default().extend(paths.iter().chain(without).cloned());
        }
        _ => {}
    }
}

/// The push of a path; one that was never queued is queued now.
fn push<'a>(s: &'a mut Summary, cache: CacheId, path: &Text, at: Moment) -> &'a mut Push {
    let queued = &mut s.counts.push_queued;
    s.pushes.entry((cache, path.clone())).or_insert_with(|| {
        *queued += 1;
        Push { nar_size: 0, queued: at, started: None, ended: None }
    })
}
