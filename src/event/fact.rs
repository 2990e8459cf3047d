//! The catalogue of facts: one variant for everything that is told of a run.

use serde::{Deserialize, Serialize};

use super::{
    AttemptEnd, Difference, DrvOutcome, Evaluated, Failure, FetchedPath, LockedInput, OutputPath, Pushed, SkippedPath,
    Stage, Status, Text,
};
use crate::id::{AttemptId, AttrId, AttrPath, BuilderId, CacheId, DrvId, Kind, RunId, System};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What happened. The serialised tag is `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// Always the first event.
    RunStarted {
        /// [`FORMAT`](super::FORMAT).
        format: u32,
        /// Which run.
        run: RunId,
        /// drover's version.
        drover: Text,
        /// `run`, `plan`, …
        command: Text,
        /// What was asked for, as typed.
        what: Vec<Text>,
        /// Wall clock at `at` = 0.
        started: jiff::Timestamp,
        /// The version of Nix in force.
        nix: Text,
    },
    /// The flake is locked.
    FlakeLocked {
        /// As the user gave it, with the scheme.
        original: Text,
        /// The locked reference; for a dirty tree, the original.
        locked: Text,
        /// Revision, if it has one.
        rev: Option<Text>,
        /// Number of files that differ from the revision; `Some(0)` is a clean tree, `None` has no revision control.
        dirty_files: Option<u32>,
        /// A recorded evaluation of the same source answers; nothing is evaluated.
        recorded: bool,
    },
    /// A builder can be used: for the first time, or again.
    BuilderReady {
        /// Its number.
        builder: BuilderId,
        /// `local`, `big1`.
        name: Text,
        /// How many drvs it builds at once.
        slots: u32,
        /// What it can build for, its own first.
        systems: Vec<System>,
        /// What it can do besides, `kvm`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        features: Vec<Text>,
        /// How fast it is; `None` for 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        speed: Option<f64>,
        /// Where it is named, `/etc/nix/machines`; `None` for the local store.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        named_in: Option<Text>,
    },
    /// A cache answers.
    CacheReady {
        /// Its number.
        cache: CacheId,
        /// Short name for people: host, or the name in drover.toml.
        name: Text,
        /// Where it is.
        url: Text,
        /// It is asked and read from.
        pull: bool,
        /// It is pushed to.
        push: bool,
        /// Pushing to it may fail.
        #[serde(default, skip_serializing_if = "is_false")]
        optional: bool,
        /// It is pushed to because `--push-to` named it.
        #[serde(default, skip_serializing_if = "is_false")]
        asked: bool,
        /// It cannot be pushed to at the moment, and is tried again.
        #[serde(default, skip_serializing_if = "is_false")]
        sick: bool,
    },
    /// A stage began.
    StageStarted {
        /// Which.
        stage: Stage,
    },
    /// A stage ended. Stages overlap.
    StageEnded {
        /// Which.
        stage: Stage,
    },
    /// An attr is known by name.
    AttrListed {
        /// Its number.
        attr: AttrId,
        /// Its full path.
        path: AttrPath,
        /// Its kind.
        kind: Kind,
        /// What people call it: the last part, or the full path where two share it.
        name: Text,
    },
    /// Attrs were left out by default; one line says so.
    AttrsLeftOut {
        /// How many.
        count: u32,
        /// `3 packages for aarch64-darwin`.
        what: Text,
        /// The flag that adds them.
        flag: Text,
    },
    /// An evaluator took up an attr.
    EvalStarted {
        /// Which attr.
        attr: AttrId,
        /// Which evaluator process, from 0.
        worker: u32,
    },
    /// An evaluator answered.
    EvalEnded {
        /// Which attr.
        attr: AttrId,
        /// What came out.
        evaluated: Evaluated,
        /// The most that the evaluator held meanwhile, in bytes; `None` if nothing was evaluated or nobody knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peak: Option<u64>,
        /// How much of that came with this attr, in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grown: Option<u64>,
    },
    /// Nix warned while evaluating.
    EvalWarning {
        /// Which attr was in flight; `None` when it belongs to the flake.
        attr: Option<AttrId>,
        /// The text, without `warning:`.
        message: Text,
    },
    /// The drv of an attr, once the attr's closure has been compared: what has to be done for it.
    AttrPlanned {
        /// Which attr.
        attr: AttrId,
        /// `to_build`, `to_fetch` (a cache has it), `valid`.
        status: Status,
        /// The drv, if anything has to be built or fetched.
        drv: Option<DrvId>,
        /// How many drvs must be built for it, itself included.
        builds: u32,
    },
    /// Totals of the comparison so far.
    DiffProgress {
        /// Paths that were looked at.
        paths: u32,
        /// Valid in the store.
        valid: u32,
        /// A cache has it and the store may take it.
        present: u32,
        /// No cache has it.
        absent: u32,
        /// A cache has it, signed by no key that the store trusts.
        untrusted: u32,
        /// A cache gave no answer; treated as absent.
        no_answer: u32,
    },
    /// What one cache has answered so far; totals, repeated as they grow.
    CacheAsked {
        /// Which cache.
        cache: CacheId,
        /// Paths that it has, signed by a key that the store trusts.
        present: u32,
        /// Paths that it does not have.
        absent: u32,
        /// Paths that it has, signed by no key that the store trusts.
        untrusted: u32,
        /// Questions without an answer.
        no_answer: u32,
    },
    /// A drv has to be built, or its outputs fetched for something that has to be built. Comes again with
    /// `fetch: false` where a fetch failed.
    DrvNeeded {
        /// Its number.
        drv: DrvId,
        /// Absolute path of the .drv.
        path: Text,
        /// `nginx-1.29.4`.
        name: Text,
        /// Its platform.
        system: System,
        /// The needed drvs that must be there before it can start.
        inputs: Vec<DrvId>,
        /// It is fetched, not built.
        fetch: bool,
        /// Its output paths are unknown before building.
        opaque: bool,
        /// What a machine must offer to build it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        features: Vec<Text>,
        /// Which attr first asked for it.
        attr: Option<AttrId>,
        /// Expected seconds, where history knows.
        expected: Option<f64>,
        /// The outputs that are to be built or fetched, as far as they are known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        outputs: Vec<OutputPath>,
    },
    /// Nothing more is planned: what the drvs that are fetched bring, each path once.
    FetchesPlanned {
        /// References before referrers.
        paths: Vec<FetchedPath>,
    },
    /// An attempt began: the builder was asked.
    AttemptStarted {
        /// Which try.
        attempt: AttemptId,
        /// Of which drv.
        drv: DrvId,
        /// Where.
        builder: BuilderId,
    },
    /// The drv is being built by somebody else; the attempt holds no slot meanwhile.
    AttemptWaiting {
        /// Which try.
        attempt: AttemptId,
        /// What it waits for, as the store says.
        reason: Text,
    },
    /// The builder's process really runs now.
    AttemptBuilding {
        /// Which try.
        attempt: AttemptId,
    },
    /// The build entered a phase (`configurePhase`).
    AttemptPhase {
        /// Which try.
        attempt: AttemptId,
        /// Name of the phase.
        phase: Text,
    },
    /// An attempt ended.
    AttemptEnded {
        /// Which try.
        attempt: AttemptId,
        /// How.
        #[serde(flatten)]
        end: AttemptEnd,
        /// Lines of log.
        log_lines: u64,
        /// The last lines, without colour, for failures only.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        log_tail: Vec<Text>,
    },
    /// A fetch from caches into the store began.
    FetchStarted {
        /// Whose outputs.
        drv: DrvId,
    },
    /// A fetch ended; if it failed, the drv comes again as one to build.
    FetchEnded {
        /// Whose outputs.
        drv: DrvId,
        /// Why it failed.
        failure: Option<Failure>,
    },
    /// The final word on a needed drv.
    DrvEnded {
        /// Which drv.
        drv: DrvId,
        /// How.
        #[serde(flatten)]
        outcome: DrvOutcome,
    },
    /// The final word on an attr.
    AttrEnded {
        /// Which attr.
        attr: AttrId,
        /// How.
        status: Status,
        /// Why, for `skipped` and failures that are no drv's.
        reason: Option<Text>,
        /// The drv whose own failure it is, for `failed`.
        root: Option<DrvId>,
    },
    /// Paths that are to be complete in every cache that is pushed to, with all that they refer to, where those and
    /// not attrs are what was asked for.
    PushAsked {
        /// Absolute store paths.
        paths: Vec<Text>,
    },
    /// A path is to be pushed.
    PushQueued {
        /// To which cache.
        cache: CacheId,
        /// Absolute store path.
        path: Text,
        /// Bytes as NAR.
        nar_size: u64,
    },
    /// A path is being uploaded.
    PushStarted {
        /// To which cache.
        cache: CacheId,
        /// Absolute store path.
        path: Text,
    },
    /// A push of one path ended.
    PushEnded {
        /// To which cache.
        cache: CacheId,
        /// Absolute store path.
        path: Text,
        /// How.
        #[serde(flatten)]
        pushed: Pushed,
    },
    /// What was pushed has been read back from the cache.
    PushVerified {
        /// Which cache.
        cache: CacheId,
        /// Paths that are there.
        present: u32,
        /// Paths that should be there and are not.
        missing: Vec<Text>,
    },
    /// Something that a person should know and that fails nothing.
    Warning {
        /// One or two lines.
        message: Text,
        /// What to type.
        hint: Option<Text>,
    },
    /// Somebody pressed Ctrl-C or sent SIGTERM.
    Cancelled {
        /// 1: clean stop, 2: now.
        level: u8,
    },
    /// The run as a whole cannot go on: no such attr, the store is gone. What single attrs and drvs die of is told
    /// by their own facts.
    RunFailed {
        /// One sentence; further lines are details.
        message: Text,
        /// What to type.
        hint: Option<Text>,
    },
    /// A plan was written to a file.
    PlanWritten {
        /// The file, as given.
        file: Text,
        /// Its bytes.
        bytes: u64,
        /// Derivations in it.
        drvs: u32,
        /// Sources in it.
        sources: u32,
    },
    /// Always the last event.
    RunEnded {
        /// The exit code.
        exit: u8,
    },
    /// The flake said something while an attr was evaluated (`builtins.trace`).
    EvalTrace {
        /// Which attr.
        attr: AttrId,
        /// The text, without `trace:`.
        message: Text,
    },
    /// Evaluation cannot go on before a drv is built: an attr imports from it.
    ImportStarted {
        /// Which attr; `None` where the attrs could not be listed without it.
        attr: Option<AttrId>,
        /// Absolute path of the .drv.
        path: Text,
        /// The derivation's name: `gen-nix`.
        name: Text,
    },
    /// What an attr imports from is in the store that evaluates, or cannot be had; the attr is evaluated again, or fails.
    ImportEnded {
        /// Which attr.
        attr: Option<AttrId>,
        /// Absolute path of the .drv.
        path: Text,
        /// Why it cannot be had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// The base is being evaluated, which has no record.
    BaseProgress {
        /// `main@a01b77e`.
        label: Text,
        /// Attrs that are answered.
        done: u32,
        /// All attrs, as far as they are listed.
        total: u32,
    },
    /// The base that attrs are compared with is evaluated, or was before.
    BaseKnown {
        /// What people call it: `main@a01b77e`.
        label: Text,
        /// Its revision.
        rev: Option<Text>,
        /// Its locked reference.
        locked: Text,
        /// Its record answers; nothing was evaluated.
        recorded: bool,
        /// Attrs that it has.
        attrs: u32,
        /// Those of them that do not evaluate.
        failed: u32,
    },
    /// There should be a base, and what is known of it is not enough; nothing is compared.
    BaseMissing {
        /// One line: why.
        message: Text,
        /// What to type.
        hint: Option<Text>,
    },
    /// An attr is compared with the base.
    AttrCompared {
        /// Which attr.
        attr: AttrId,
        /// How it differs.
        difference: Difference,
        /// It differs only because it embeds the revision or the source tree.
        #[serde(default, skip_serializing_if = "is_false")]
        revision_only: bool,
        /// The drvs differ and what they give does not: only how a fixed output is had has changed.
        #[serde(default, skip_serializing_if = "is_false")]
        same_outputs: bool,
        /// Its drv on the base.
        base_drv: Option<Text>,
    },
    /// The base has an attr that is gone.
    AttrRemoved {
        /// Its full path.
        path: AttrPath,
        /// Its drv on the base, if it evaluated there.
        base_drv: Option<Text>,
    },
    /// Attrs are taken as unaffected without being evaluated: since the base only paths have changed that `[skip]` names.
    ChangesSkipped {
        /// The paths, each with the glob that it matches.
        paths: Vec<SkippedPath>,
    },
    /// Attrs that differ are evaluated once more on both sides, with the same commit and time.
    RevisionMasked {
        /// How many.
        attrs: u32,
    },
    /// A builder cannot be used, now or for the rest of the run. It may never have been ready.
    BuilderSuspended {
        /// Its number.
        builder: BuilderId,
        /// `big1`.
        name: Text,
        /// Why.
        failure: Failure,
        /// Attempts that ended with it.
        running: u32,
        /// Seconds until it is tried again; `None`: not in this run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<f64>,
        /// A command that mends it or shows more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<Text>,
    },
    /// A builder takes nothing new for a while, or takes something again.
    BuilderPaused {
        /// Which.
        builder: BuilderId,
        /// `2.1 GiB free in /nix/store`; `None`: no longer.
        reason: Option<Text>,
    },
    /// How a builder is doing.
    BuilderLoad {
        /// Which.
        builder: BuilderId,
        /// Percent of the last 10 s in which something waited for a processor (`/proc/pressure/cpu`, `some`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu: Option<f64>,
        /// Percent of the last 10 s in which all waited for memory (`/proc/pressure/memory`, `full`).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<f64>,
        /// Bytes that are free where its store is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk_free: Option<u64>,
    },
    /// Builders were asked which outputs they hold.
    BuilderAsked {
        /// Which.
        builder: BuilderId,
        /// Paths that it was asked for so far.
        asked: u32,
        /// Those that are valid there.
        valid: u32,
    },
    /// What a drv needs begins to be brought to the builder of this attempt.
    AttemptBringing {
        /// Which attempt.
        attempt: AttemptId,
        /// Paths that are not there.
        paths: u32,
        /// Bytes of their NARs, as far as they are known.
        nar_size: u64,
    },
    /// All that it needs is at its builder; it builds as soon as a slot is free.
    AttemptPrepared {
        /// Which attempt.
        attempt: AttemptId,
        /// Paths that were copied from another store.
        copied: u32,
        /// Bytes of their NARs.
        copied_size: u64,
        /// Paths that the builder fetched from caches.
        fetched: u32,
    },
    /// Outputs of a drv that was built elsewhere begin to come into the local store.
    ResultsReturning {
        /// Whose.
        drv: DrvId,
        /// Where they are.
        builder: BuilderId,
    },
    /// They have come, or not.
    ResultsReturned {
        /// Whose.
        drv: DrvId,
        /// Paths that were copied.
        paths: u32,
        /// Bytes of their NARs.
        nar_size: u64,
        /// Why they have not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// Outputs that could not be pushed are kept on their builder by roots, for a later run; or cannot be.
    OutputsKept {
        /// Where.
        builder: BuilderId,
        /// Absolute.
        paths: Vec<Text>,
        /// The day on which a run removes the roots, `2026-11-28`; `None`: there are no roots, for this reason.
        until: Option<Text>,
        /// Why there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Text>,
    },
    /// What caches spare the run, once all is compared: drvs that need not be built because a cache has what is wanted
    /// of them.
    CachesSpared {
        /// These drvs, without those that only such a drv needs.
        drvs: u32,
        /// Of how many of them it is known how long they take.
        known: u32,
        /// Seconds that building those took in earlier runs.
        seconds: f64,
        /// Paths that a cache has and that were looked for.
        paths: u32,
        /// Bytes of their NARs.
        nar_size: u64,
    },
    /// How big the outputs of a drv are that was built.
    DrvSized {
        /// Which drv.
        drv: DrvId,
        /// Bytes of their NARs.
        nar_size: u64,
    },
    /// A check found something wrong that is about no attr.
    FlakeFinding {
        /// What it is about: `flake.lock`, `nixConfig`, `quarantine`, an app whose program is not there.
        about: Text,
        /// What is wrong.
        message: Text,
        /// `file:line:column`, where it has a place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<Text>,
        /// What to type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<Text>,
        /// The check fails for it.
        fails: bool,
    },
    /// Whatever comes of an attr does not fail the check: it is in quarantine.
    AttrQuarantined {
        /// Which attr.
        attr: AttrId,
        /// The name of the quarantine, of `[quarantine.NAME]`.
        name: Text,
        /// Why.
        reason: Text,
        /// Where that is worked on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<Text>,
        /// The first day on which it counts again, `2026-12-24`.
        expires: Text,
    },
    /// What `nix flake check` said of the same flake.
    NixChecked {
        /// It found nothing wrong.
        ok: bool,
        /// Its own last words, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Text>,
        /// How long it took.
        seconds: f64,
    },
    /// Where the run is, as the forge or git says.
    RunPlaced {
        /// The CI system, `github`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forge: Option<Text>,
        /// `acme/infra`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repository: Option<Text>,
        /// The branch; of a pull request the one that is proposed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<Text>,
        /// What is proposed, the number of a pull request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<Text>,
        /// Where the forge shows this run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<Text>,
    },
    /// What the flake's own inputs are locked to.
    InputsLocked {
        /// In the order of their names.
        inputs: Vec<LockedInput>,
    },
    /// What an attempt took, where its builder tells; comes before its end.
    AttemptMeasured {
        /// Which try.
        attempt: AttemptId,
        /// Seconds of processors.
        cpu: f64,
    },
    /// How big the closure of an attr is, with all that it refers to.
    ClosureSized {
        /// Which attr.
        attr: AttrId,
        /// Store paths.
        paths: u32,
        /// Bytes of their NARs.
        nar_size: u64,
    },
    /// Requests that a cache did not answer, or refused for now, and that were made again. Totals, repeated as they grow.
    CacheRepeated {
        /// Which cache.
        cache: CacheId,
        /// Why most of them were: `HTTP 429`, `timed out`.
        reason: Text,
        /// Requests that were made again.
        requests: u32,
        /// Seconds that were waited before, all of them together.
        waited: f64,
    },
    /// An attr fails to build, and recorded runs of the base say what became of it there. Comes after its final word.
    FailureCompared {
        /// Which attr.
        attr: AttrId,
        /// It was fine there; else it failed there, too, or failed for the same drv.
        ok: bool,
    },
    /// What was not pushed because the configuration leaves it out. Comes before the cache is read back.
    PushLeftOut {
        /// Of which cache.
        cache: CacheId,
        /// Absolute store paths that are left out.
        paths: Vec<Text>,
        /// Absolute store paths that are pushed and refer to one of those, directly or not.
        without: Vec<Text>,
    },
    /// How far the estimates of earlier runs were from what then happened, where there were enough of them.
    EstimatesKnown {
        /// The share of the estimate by which nine of ten of them were wrong at most.
        off: f64,
    },
    /// Why attrs differ from the base that do so for the same reason. Told at the end, as far as it could be had.
    ChangeExplained {
        /// Which.
        attrs: Vec<AttrId>,
        /// In a few words: `nginx 1.29.3 → 1.29.4`.
        why: Text,
    },
}
