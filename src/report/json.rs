//! The `--json` document of `plan`, `run`, `check` and `push` (design §2), version 1: fields may be added, not renamed.
//! Times are seconds since the start of the run.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{AttemptEnd, Class, Evaluated, Failure, Pushed, Stage, Status, Text};
use crate::id::{AttrId, BuilderId, CacheId, DrvId, Kind};

use super::account::{self, Owner, Place};
use super::check;
use super::hits;
use super::pushed::{Complete, completeness, of_path};
use super::summary::{Attempt, Attr, Builder, Drv, Kept, State, Summary};

/// Version of the document.
pub const VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Document {
    pub version: u32,
    pub run: Option<String>,
    pub flake: Option<Flake>,
    pub attrs: Vec<AttrDocument>,
    /// What `drover push` was asked for.
    pub paths: Vec<PathDocument>,
    pub drvs: Drvs,
    pub stages: BTreeMap<Stage, Span>,
    pub account: Vec<Account>,
    pub counts: Counts,
    pub caches: Vec<Cache>,
    /// How much of what was needed caches had; null if none was asked.
    pub hits: Option<Hits>,
    pub builders: Vec<BuilderDocument>,
    /// Outputs that were kept on builders because they could not be pushed, or could not be kept.
    pub kept: Vec<KeptDocument>,
    /// Drvs that failed by themselves and were built by a later attempt.
    pub flaky: Vec<Flaky>,
    /// What a check found that is about no attr; absent in other runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Finding>>,
    /// Absent where `nix flake check` was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_nix: Option<OfNix>,
    /// What ended the run early.
    pub error: Option<RunError>,
    pub exit: Option<u8>,
}

/// Why the run as a whole failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct RunError {
    pub message: String,
    pub hint: Option<String>,
}

/// The flake.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Flake {
    #[serde(rename = "ref")]
    pub reference: String,
    pub locked: String,
    pub rev: Option<String>,
}

/// One attr.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct AttrDocument {
    pub attr: String,
    pub kind: Kind,
    /// What people call it.
    pub name: String,
    pub system: Option<String>,
    pub drv: Option<String>,
    pub outputs: BTreeMap<String, Option<String>>,
    pub status: Option<Status>,
    pub reason: Option<String>,
    pub pushed: BTreeMap<String, Complete>,
    /// What its evaluation took; absent where nothing was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<Evaluation>,
    pub error: Option<Error>,
    /// Of an attr that does not evaluate or fails to build: whether it was so on the base, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_on_base: Option<bool>,
    /// What is wrong with it that Nix does not refuse; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Error>,
    /// What Nix remarks on it; absent where it does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it may fail in a check; absent where it may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// Why an attr may fail in a check.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Quarantine {
    pub name: String,
    pub reason: String,
    pub ticket: Option<String>,
    /// The first day on which its failures count again.
    pub expires: String,
}

/// Something wrong that a check found and that is about no attr.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Finding {
    /// `flake.lock`, `nixConfig`, `quarantine`.
    pub about: String,
    pub message: String,
    pub position: Option<String>,
    pub hint: Option<String>,
    /// The check fails for it.
    pub fails: bool,
}

/// What `nix flake check` said of the same flake.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct OfNix {
    pub ok: bool,
    pub error: Option<String>,
    pub seconds: f64,
}

/// What the evaluation of an attr took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Seconds.
    pub seconds: f64,
    /// The most that its evaluator held meanwhile, in bytes; null where nobody knows.
    pub peak_bytes: Option<u64>,
    /// How much of that came with this attr, in bytes.
    pub grown_bytes: Option<u64>,
}

/// One path of a push.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct PathDocument {
    pub path: String,
    pub pushed: BTreeMap<String, Complete>,
    /// By cache.
    pub errors: BTreeMap<String, Error>,
}

/// Why an attr failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Error {
    pub class: Option<Class>,
    pub message: String,
    pub position: Option<String>,
    pub root_drv: Option<String>,
}

/// What had to be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Drvs {
    pub build: Vec<String>,
    pub fetch: Vec<String>,
    pub valid: u32,
    pub opaque: Vec<String>,
}

/// From when to when.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Span {
    pub start: f64,
    pub end: Option<f64>,
}

/// One stretch of wall time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Account {
    pub owner: String,
    pub what: &'static str,
    #[serde(rename = "where")]
    pub place: Option<String>,
    pub seconds: f64,
}

/// What caches had, each as a part of a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Hits {
    /// Of the attrs that are not valid in this store.
    pub attrs: Share,
    /// The same of store paths.
    pub paths: Share,
    /// Bytes of NARs: what caches have, of that and what was built.
    pub bytes: Share,
    /// Built drvs whose bytes are not known and not counted.
    pub unsized_drvs: u64,
    pub saved: Option<Saved>,
}

/// A part of a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Share {
    pub hit: u64,
    pub of: u64,
}

/// Building that caches spared, as far as it is known from earlier runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Saved {
    pub seconds: f64,
    /// Of how many drvs that is known.
    pub known: u32,
    pub drvs: u32,
}

/// How many of what.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Counts {
    pub attrs: usize,
    pub attrs_by_status: BTreeMap<Status, usize>,
    pub drvs_to_build: usize,
    pub drvs_built: usize,
    pub drvs_failed: usize,
    pub drvs_not_tried: usize,
    pub attempts: usize,
    /// Seconds during which builders really ran, added up over all attempts.
    pub build_seconds: f64,
    pub fetched: usize,
    pub pushed: usize,
    pub push_failed: usize,
    pub pushed_bytes: u64,
    pub warnings: usize,
    /// Drvs that attrs import from.
    pub imports: usize,
}

/// What a cache answered; the numbers are null where that was not counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Cache {
    pub url: String,
    pub present: Option<u32>,
    pub absent: Option<u32>,
    pub no_answer: Option<u32>,
    pub untrusted: Option<u32>,
}

/// What a builder did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct BuilderDocument {
    pub name: String,
    pub slots: u32,
    pub systems: Vec<String>,
    pub features: Vec<String>,
    /// Where it is named; null for the local store.
    pub named_in: Option<String>,
    /// Drvs that it built.
    pub built: usize,
    /// Seconds that its slots were in use, added up over all attempts.
    pub busy_seconds: f64,
    /// Bytes that were copied to it from other stores.
    pub copied_bytes: u64,
    /// How often it was lost.
    pub lost: usize,
    /// How it was at the end.
    pub state: State,
    /// What it last could not be used for.
    pub error: Option<Error>,
}

/// Outputs on a builder.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct KeptDocument {
    pub builder: String,
    pub paths: Vec<String>,
    /// The day on which a run removes the roots; null where there are none.
    pub until: Option<String>,
    /// Why there are none.
    pub reason: Option<String>,
}

/// A flaky drv.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Flaky {
    pub drv: String,
    pub name: String,
    pub attempts: Vec<AttemptDocument>,
}

/// One attempt of a drv.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct AttemptDocument {
    pub builder: String,
    pub seconds: f64,
    /// Null where it did not fail.
    pub error: Option<Error>,
    /// What `drover log --attempt` takes; null where nothing ran.
    pub log: Option<usize>,
}

/// The document of a folded run.
#[must_use]
pub fn document(s: &Summary) -> Document {
    Document {
        version: VERSION,
        run: s.header.as_ref().map(|header| header.run.to_string()),
        flake: s.flake.as_ref().map(|flake| Flake {
            reference: flake.original.to_string(),
            locked: flake.locked.to_string(),
            rev: flake.rev.as_ref().map(ToString::to_string),
        }),
        attrs: s.attrs.iter().map(|(id, attr)| attr_document(s, *id, attr)).collect(),
        paths: s.asked.iter().map(|path| path_document(s, path)).collect(),
        drvs: drvs(s),
        stages: s.stages.iter().map(|(stage, span)| (*stage, span_document(*span))).collect(),
        account: accounts(s),
        counts: counts(s),
        caches: s.caches.values().map(cache).collect(),
        hits: hits::of(s).map(|hits| hits_document(&hits)),
        builders: s.builders.iter().map(|(id, builder)| builder_document(s, *id, builder)).collect(),
        kept: s.kept.iter().map(|kept| kept_document(s, kept)).collect(),
        flaky: s.flaky().into_iter().filter_map(|drv| flaky(s, drv)).collect(),
        findings: check::is_check(s).then(|| s.findings.iter().map(finding).collect()),
        of_nix: s.of_nix.as_ref().map(|of_nix| OfNix {
            ok: of_nix.ok,
            error: of_nix.error.as_ref().map(ToString::to_string),
            seconds: of_nix.seconds,
        }),
        error: s.error.as_ref().map(|error| RunError {
            message: error.message.to_string(),
            hint: error.hint.as_ref().map(ToString::to_string),
        }),
        exit: s.exit,
    }
}

fn span_document(span: super::summary::Span) -> Span {
    Span { start: span.start.seconds(), end: span.end.map(|end| end.seconds()) }
}

fn attr_document(s: &Summary, id: AttrId, attr: &Attr) -> AttrDocument {
    let (drv, system, outputs) = match &attr.evaluated {
        Some((_, Evaluated::Drv { drv, system, outputs, .. })) => {
            (Some(drv.to_string()), Some(system.to_string()), outputs.as_slice())
        }
        _ => (None, None, [].as_slice()),
    };
    // What an opaque drv gave is known from its attempt.
    let built = attr.planned.as_ref().and_then(|planned| s.drvs.get(&planned.drv?));
    let path = |output: &crate::event::OutputPath| {
        let later = || built?.outputs.iter().find(|o| o.name == output.name)?.path.clone();
        (output.name.to_string(), output.path.clone().or_else(later).map(|path| path.to_string()))
    };
    let pushed = s.caches.iter().filter(|(_, cache)| cache.push);
    let nothing = match &attr.evaluated {
        Some((_, Evaluated::Nothing { reason })) => Some(reason.to_string()),
        _ => None,
    };
    AttrDocument {
        attr: attr.path.to_string(),
        kind: attr.kind,
        name: attr.name.to_string(),
        system,
        drv,
        outputs: outputs.iter().map(path).collect(),
        status: s.status(attr),
        reason: attr.ended.as_ref().and_then(|end| end.reason.as_ref()).map(ToString::to_string).or(nothing),
        pushed: pushed.map(|(cache, known)| (known.name.to_string(), completeness(s, id, *cache))).collect(),
        eval: attr.eval_seconds().map(|seconds| Evaluation {
            seconds,
            peak_bytes: attr.memory.map(|memory| memory.peak),
            grown_bytes: attr.memory.map(|memory| memory.grown),
        }),
        error: error(s, attr),
        broken_on_base: attr.was_broken(),
        finding: attr.finding().map(failure_document),
        warnings: attr.warnings.iter().map(ToString::to_string).collect(),
        quarantine: attr.quarantined.as_ref().map(|quarantined| Quarantine {
            name: quarantined.name.to_string(),
            reason: quarantined.reason.to_string(),
            ticket: quarantined.ticket.as_ref().map(ToString::to_string),
            expires: quarantined.expires.to_string(),
        }),
    }
}

fn finding(finding: &super::summary::Finding) -> Finding {
    Finding {
        about: finding.about.to_string(),
        message: finding.message.to_string(),
        position: finding.position.as_ref().map(ToString::to_string),
        hint: finding.hint.as_ref().map(ToString::to_string),
        fails: finding.fails,
    }
}

fn path_document(s: &Summary, path: &Text) -> PathDocument {
    let caches = || s.caches.iter().filter(|(_, cache)| cache.push);
    let error = |cache: &CacheId| match s.pushes.get(&(*cache, path.clone()))?.ended.as_ref()? {
        (_, Pushed::Failed(failure)) => Some(failure_document(failure)),
        _ => None,
    };
    PathDocument {
        path: path.to_string(),
        pushed: caches().map(|(cache, known)| (known.name.to_string(), of_path(s, path, *cache))).collect(),
        errors: caches().filter_map(|(cache, known)| Some((known.name.to_string(), error(cache)?))).collect(),
    }
}

fn error(s: &Summary, attr: &Attr) -> Option<Error> {
    if let Some((_, Evaluated::Failed(failure))) = &attr.evaluated {
        return Some(Error {
            // It imports from a drv that failed.
            root_drv: attr.ended.as_ref().and_then(|end| s.drvs.get(&end.root?)).map(|root| root.path.to_string()),
            ..failure_document(failure)
        });
    }
    if s.status(attr) != Some(Status::Failed) {
        return None;
    }
    let root = s.root_of_attr(attr);
    let failure = root.and_then(|root| s.failure_of(root));
    let reason = attr.ended.as_ref().and_then(|end| end.reason.as_ref());
    Some(Error {
        class: failure.map(|failure| failure.class),
        message: failure.map(|failure| &failure.message).or(reason).map(ToString::to_string).unwrap_or_default(),
        position: failure
            .and_then(|failure| failure.position.as_ref())
            .or_else(|| attr.position())
            .map(ToString::to_string),
        root_drv: root.and_then(|root| s.drvs.get(&root)).map(|root| root.path.to_string()),
    })
}

fn drvs(s: &Summary) -> Drvs {
    let planned = s.header.as_ref().is_some_and(|header| header.is_plan());
    let paths = |which: &dyn Fn(&Drv) -> bool| {
        s.drvs.values().filter(|drv| which(drv)).map(|drv| drv.path.to_string()).collect()
    };
    Drvs {
        // What attrs of a plan import from is built by now.
        build: paths(&|drv| !drv.fetch && (drv.ended.is_none() || !planned)),
        fetch: s.fetches.iter().map(|fetched| fetched.path.to_string()).collect(),
        valid: s.diff.map_or(0, |diff| diff.valid),
        opaque: paths(&|drv| drv.opaque),
    }
}

/// Neighbours that say the same are one entry.
fn accounts(s: &Summary) -> Vec<Account> {
    let mut out: Vec<Account> = Vec::new();
    for interval in account::of(s) {
        let owner = match interval.owner {
            Owner::Run => "drover".to_owned(),
            Owner::Attr(attr) => s.attrs.get(&attr).map_or_else(|| s.attr_name(attr), |attr| attr.path.to_string()),
            Owner::Drv(drv) => s.drvs.get(&drv).map_or_else(|| s.drv_name(drv), |drv| drv.path.to_string()),
            Owner::Cache(cache) => s.cache_name(cache),
        };
        let place = interval.place.map(|place| match place {
            Place::Builder(builder) => s.builder_name(builder),
            Place::Cache(cache) => s.cache_name(cache),
        });
        let (what, seconds) = (interval.what.word(), interval.to.since(interval.from));
        match out.last_mut().filter(|last| last.owner == owner && last.what == what && last.place == place) {
            Some(last) => last.seconds += seconds,
            None => out.push(Account { owner, what, place, seconds }),
        }
    }
    out
}

fn hits_document(found: &hits::Hits) -> Hits {
    let share = |share: hits::Share| Share { hit: share.hit, of: share.of };
    let saved = |saved: hits::Saved| Saved { seconds: saved.seconds, known: saved.known, drvs: saved.drvs };
    Hits {
        attrs: share(found.attrs),
        paths: share(found.paths),
        bytes: share(found.bytes),
        unsized_drvs: found.unsized_drvs,
        saved: found.saved.map(saved),
    }
}

fn counts(s: &Summary) -> Counts {
    let mut attrs_by_status = BTreeMap::new();
    for status in s.attrs.values().filter_map(|attr| s.status(attr)) {
        *attrs_by_status.entry(status).or_default() += 1;
    }
    Counts {
        attrs: s.attrs.len(),
        attrs_by_status,
        drvs_to_build: s.counts.builds,
        drvs_built: s.counts.built - s.counts.found,
        drvs_failed: s.counts.failed,
        drvs_not_tried: s.counts.given_up,
        attempts: s.attempts.len(),
        build_seconds: s.attempts.values().filter(|a| a.building.is_some()).fold(0.0, |sum, a| sum + a.seconds(s.end)),
        fetched: s.counts.fetched,
        pushed: s.counts.pushed,
        push_failed: s.counts.push_failed,
        pushed_bytes: s.counts.pushed_bytes,
        warnings: s.warnings.len(),
        imports: s.imports().len(),
    }
}

fn builder_document(s: &Summary, id: BuilderId, builder: &Builder) -> BuilderDocument {
    let attempts = || s.attempts.values().filter(|attempt| attempt.builder == id);
    let busy = |attempt: &Attempt| {
        let end = attempt.ended.as_ref().map_or(s.end, |(at, _)| *at);
        attempt.slot_since().map_or(0.0, |since| end.since(since))
    };
    BuilderDocument {
        name: builder.name.to_string(),
        slots: builder.slots,
        systems: builder.systems.iter().map(ToString::to_string).collect(),
        features: builder.features.iter().map(ToString::to_string).collect(),
        named_in: builder.named_in.as_ref().map(ToString::to_string),
        built: attempts().filter(|attempt| matches!(attempt.ended, Some((_, AttemptEnd::Built { .. })))).count(),
        busy_seconds: attempts().map(busy).fold(0.0, |sum, seconds| sum + seconds),
        copied_bytes: s.copied_to(id),
        lost: builder.outages.iter().filter(|outage| outage.lost).count(),
        state: builder.state(),
        error: builder.outages.last().map(|outage| failure_document(&outage.failure)),
    }
}

fn kept_document(s: &Summary, kept: &Kept) -> KeptDocument {
    KeptDocument {
        builder: s.builder_name(kept.builder),
        paths: kept.paths.iter().map(ToString::to_string).collect(),
        until: kept.until.as_ref().map(ToString::to_string),
        reason: kept.reason.as_ref().map(ToString::to_string),
    }
}

fn flaky(s: &Summary, id: DrvId) -> Option<Flaky> {
    let drv = s.drvs.get(&id)?;
    let mut logs = 0;
    let attempt = |attempt: &Attempt| {
        logs += usize::from(attempt.has_log());
        AttemptDocument {
            builder: s.builder_name(attempt.builder),
            seconds: attempt.seconds(s.end),
            error: attempt.failure().map(failure_document),
            log: attempt.has_log().then_some(logs),
        }
    };
    let attempts = s.attempts_of(id).map(attempt).collect();
    Some(Flaky { drv: drv.path.to_string(), name: drv.name.to_string(), attempts })
}

fn failure_document(failure: &Failure) -> Error {
    Error {
        class: Some(failure.class),
        message: failure.message.to_string(),
        position: failure.position.as_ref().map(ToString::to_string),
        root_drv: None,
    }
}

fn cache(cache: &super::summary::Cache) -> Cache {
    let asked = cache.asked;
    Cache {
        url: cache.url.to_string(),
        present: asked.map(|a| a.present),
        absent: asked.map(|a| a.absent),
        no_answer: asked.map(|a| a.no_answer),
        untrusted: asked.map(|a| a.untrusted),
    }
}
