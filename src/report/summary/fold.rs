//! How each event changes the summary.

use crate::event::{AttemptEnd, DrvOutcome, Evaluated, Event, Fact, Moment, Pushed, Stage, Text};
use crate::id::{AttemptId, AttrId, CacheId, DrvId};

use super::{
    Asked, Attempt, Attr, AttrEnd, Base, BaseProgress, Builder, Cache, Compared, Diff, Drv, Fetch, Flake, Header,
    Import, LeftOut, Memory, Planned, Push, Span, Summary, Verified, Warning, Written,
};

/// Takes one event in.
pub(super) fn add(s: &mut Summary, event: &Event) {
    let at = event.at;
    s.end = s.end.max(at);
    match &event.fact {
        Fact::RunStarted { .. }
        | Fact::FlakeLocked { .. }
        | Fact::BuilderReady { .. }
        | Fact::CacheReady { .. }
        | Fact::CacheAsked { .. }
        | Fact::DiffProgress { .. } => surroundings(s, at, &event.fact),
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
        | Fact::AttrEnded { .. } => attr_fact(s, at, &event.fact),
        Fact::DrvNeeded { .. } | Fact::FetchStarted { .. } | Fact::FetchEnded { .. } => drv_fact(s, at, &event.fact),
        Fact::FetchesPlanned { paths } => s.fetches.clone_from(paths),
        Fact::DrvEnded { drv, outcome } => drv_ended(s, at, *drv, outcome),
        Fact::AttemptStarted { .. }
        | Fact::AttemptWaiting { .. }
        | Fact::AttemptBuilding { .. }
        | Fact::AttemptPhase { .. }
        | Fact::AttemptEnded { .. } => attempt_fact(s, at, &event.fact),
        Fact::PushAsked { paths } => s.asked.extend(paths.iter().cloned()),
        Fact::PushQueued { .. } | Fact::PushStarted { .. } | Fact::PushEnded { .. } | Fact::PushVerified { .. } => {
            push_fact(s, at, &event.fact);
        }
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
        // It is told, and nothing follows from it.
        Fact::RevisionMasked { .. }
        | Fact::BuilderSuspended { .. }
        | Fact::BuilderPaused { .. }
        | Fact::BuilderLoad { .. }
        | Fact::BuilderAsked { .. }
        | Fact::AttemptBringing { .. }
        | Fact::AttemptPrepared { .. }
        | Fact::ResultsReturning { .. }
        | Fact::ResultsReturned { .. }
        | Fact::OutputsKept { .. } => {}
        Fact::BaseProgress { .. }
        | Fact::BaseKnown { .. }
        | Fact::BaseMissing { .. }
        | Fact::AttrCompared { .. }
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
                });
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
        Fact::BuilderReady { builder, name, slots, systems, .. } => {
            let ready = Builder { name: name.clone(), slots: *slots, systems: systems.clone() };
            s.builders.insert(*builder, ready);
        }
        Fact::CacheReady { cache, name, url, pull, push, optional, asked } => {
            let ready = Cache {
                name: name.clone(),
                url: url.clone(),
                pull: *pull,
                push: *push,
                optional: *optional,
                by_name: *asked,
                asked: s.caches.get(cache).and_then(|known| known.asked),
            };
            s.caches.insert(*cache, ready);
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
                memory: None,
                compared: None,
                planned: None,
                ended: None,
            });
        }
        Fact::AttrsLeftOut { count, what, flag } => {
            s.left_out.push(LeftOut { count: *count, what: what.clone(), flag: flag.clone() });
        }
        Fact::EvalWarning { message, .. } => match s.eval_warnings.iter_mut().find(|(known, _)| known == message) {
            Some((_, times)) => *times += 1,
            None => s.eval_warnings.push((message.clone(), 1)),
        },
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

/// A drv that comes again (its fetch failed) keeps what has happened to it so far.
fn drv_needed(s: &mut Summary, at: Moment, fact: &Fact) {
    let Fact::DrvNeeded { drv: id, path, name, system, inputs, fetch, opaque, features, attr, expected, outputs } =
        fact
    else {
        return;
    };
    let known = s.drvs.remove(id);
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
    let (attempts, fetches, ended) = known.map(|d| (d.attempts, d.fetches, d.ended)).unwrap_or_default();
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
        ended,
    };
    s.drvs.insert(*id, drv);
}

fn drv_ended(s: &mut Summary, at: Moment, id: DrvId, outcome: &DrvOutcome) {
    let Some(drv) = s.drvs.get_mut(&id) else { return };
    if drv.ended.is_some() {
        return;
    }
    drv.ended = Some((at, outcome.clone()));
    let counts = &mut s.counts;
    if *outcome == DrvOutcome::Valid && !drv.fetch {
        counts.found += 1;
    }
    let counter = match (outcome, drv.fetch) {
        (DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid, false) => &mut counts.built,
        (DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid, true) => &mut counts.fetched,
        (DrvOutcome::Failed(_), _) => &mut counts.failed,
        (DrvOutcome::DependencyFailed { .. } | DrvOutcome::Cancelled, false) => &mut counts.given_up,
        (DrvOutcome::DependencyFailed { .. } | DrvOutcome::Cancelled, true) => return,
    };
    *counter += 1;
}

fn attempt_fact(s: &mut Summary, at: Moment, fact: &Fact) {
    match fact {
        Fact::AttemptStarted { attempt, drv: id, builder } => {
            let Some(drv) = s.drvs.get_mut(id) else { return };
            if s.attempts.contains_key(attempt) {
                return;
            }
            drv.attempts.push(*attempt);
            s.counts.running += 1;
            let started = Attempt {
                drv: *id,
                builder: *builder,
                started: at,
                waiting: None,
                building: None,
                phase: None,
                ended: None,
                log_lines: 0,
                log_tail: Vec::new(),
            };
            s.attempts.insert(*attempt, started);
        }
        Fact::AttemptWaiting { attempt, reason } => {
            if let Some(attempt) = live(s, *attempt) {
                attempt.waiting.get_or_insert((at, reason.clone()));
            }
        }
        Fact::AttemptBuilding { attempt } => {
            if let Some(attempt) = live(s, *attempt) {
                attempt.building.get_or_insert(at);
            }
        }
        Fact::AttemptPhase { attempt, phase } => {
            if let Some(attempt) = live(s, *attempt) {
                attempt.phase = Some(phase.clone());
            }
        }
        Fact::AttemptEnded { attempt, end, log_lines, log_tail } => {
            let Some(attempt) = live(s, *attempt) else { return };
            attempt.ended = Some((at, end.clone()));
            attempt.log_lines = *log_lines;
            attempt.log_tail.clone_from(log_tail);
            let drv = attempt.drv;
            s.counts.running = s.counts.running.saturating_sub(1);
            if let (AttemptEnd::Built { outputs } | AttemptEnd::AlreadyValid { outputs }, Some(drv)) =
                (end, s.drvs.get_mut(&drv))
                && !outputs.is_empty()
            {
                drv.outputs.clone_from(outputs);
            }
        }
        _ => {}
    }
}

/// An attempt that has not ended.
fn live(s: &mut Summary, attempt: AttemptId) -> Option<&mut Attempt> {
    s.attempts.get_mut(&attempt).filter(|attempt| attempt.ended.is_none())
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
