//! The line format of records, pinned: a golden record that every later drover has to read, and what a newer drover
//! may have written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drover::event::{Event, Fact};
use drover::record::{RecordError, read};
use drover::report::json;
use drover::report::summary::Summary;

use crate::support::story::{Twist, every_fact, fleet};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/record").join(name)
}

/// What the format calls a fact. A new fact does not compile until it has a name here and a line in the golden record.
fn tag(fact: &Fact) -> &'static str {
    match fact {
        Fact::RunStarted { .. } => "run_started",
        Fact::FlakeLocked { .. } => "flake_locked",
        Fact::BuilderReady { .. } => "builder_ready",
        Fact::CacheReady { .. } => "cache_ready",
        Fact::StageStarted { .. } => "stage_started",
        Fact::StageEnded { .. } => "stage_ended",
        Fact::AttrListed { .. } => "attr_listed",
        Fact::AttrsLeftOut { .. } => "attrs_left_out",
        Fact::EvalStarted { .. } => "eval_started",
        Fact::EvalEnded { .. } => "eval_ended",
        Fact::EvalWarning { .. } => "eval_warning",
        Fact::AttrPlanned { .. } => "attr_planned",
        Fact::DiffProgress { .. } => "diff_progress",
        Fact::CacheAsked { .. } => "cache_asked",
        Fact::DrvNeeded { .. } => "drv_needed",
        Fact::FetchesPlanned { .. } => "fetches_planned",
        Fact::AttemptStarted { .. } => "attempt_started",
        Fact::AttemptWaiting { .. } => "attempt_waiting",
        Fact::AttemptBuilding { .. } => "attempt_building",
        Fact::AttemptPhase { .. } => "attempt_phase",
        Fact::AttemptEnded { .. } => "attempt_ended",
        Fact::FetchStarted { .. } => "fetch_started",
        Fact::FetchEnded { .. } => "fetch_ended",
        Fact::DrvEnded { .. } => "drv_ended",
        Fact::AttrEnded { .. } => "attr_ended",
        Fact::PushAsked { .. } => "push_asked",
        Fact::PushQueued { .. } => "push_queued",
        Fact::PushStarted { .. } => "push_started",
        Fact::PushEnded { .. } => "push_ended",
        Fact::PushVerified { .. } => "push_verified",
        Fact::PushLeftOut { .. } => "push_left_out",
        Fact::Warning { .. } => "warning",
        Fact::Cancelled { .. } => "cancelled",
        Fact::RunFailed { .. } => "run_failed",
        Fact::PlanWritten { .. } => "plan_written",
        Fact::RunEnded { .. } => "run_ended",
        Fact::EvalTrace { .. } => "eval_trace",
        Fact::BaseProgress { .. } => "base_progress",
        Fact::BaseKnown { .. } => "base_known",
        Fact::BaseMissing { .. } => "base_missing",
        Fact::FailureCompared { .. } => "failure_compared",
        Fact::AttrCompared { .. } => "attr_compared",
        Fact::AttrRemoved { .. } => "attr_removed",
        Fact::ChangesSkipped { .. } => "changes_skipped",
        Fact::RevisionMasked { .. } => "revision_masked",
        Fact::BuilderSuspended { .. } => "builder_suspended",
        Fact::BuilderPaused { .. } => "builder_paused",
        Fact::BuilderLoad { .. } => "builder_load",
        Fact::BuilderAsked { .. } => "builder_asked",
        Fact::AttemptBringing { .. } => "attempt_bringing",
        Fact::AttemptPrepared { .. } => "attempt_prepared",
        Fact::ResultsReturning { .. } => "results_returning",
        Fact::ResultsReturned { .. } => "results_returned",
        Fact::OutputsKept { .. } => "outputs_kept",
        Fact::CachesSpared { .. } => "caches_spared",
        Fact::DrvSized { .. } => "drv_sized",
        Fact::FlakeFinding { .. } => "flake_finding",
        Fact::AttrQuarantined { .. } => "attr_quarantined",
        Fact::NixChecked { .. } => "nix_checked",
        Fact::RunPlaced { .. } => "run_placed",
        Fact::InputsLocked { .. } => "inputs_locked",
        Fact::AttemptMeasured { .. } => "attempt_measured",
        Fact::ClosureSized { .. } => "closure_sized",
        Fact::CacheRepeated { .. } => "cache_repeated",
        Fact::ImportStarted { .. } => "import_started",
        Fact::ImportEnded { .. } => "import_ended",
        Fact::EstimatesKnown { .. } => "estimates_known",
        Fact::ChangeExplained { .. } => "change_explained",
    }
}

const FACTS: usize = 68;

/// `format-1.jsonl` was written by drover 0.1.0. Never change a line of it; add lines for new facts.
#[test]
fn records_of_the_first_drover_are_read() {
    let path = fixture("format-1.jsonl");
    let record = read(&path).unwrap();
    assert_eq!((record.unknown, record.cut), (0, false));
    assert_eq!(record.events, every_fact());
    let tags: BTreeSet<&str> = record.events.iter().map(|event| tag(&event.fact)).collect();
    assert_eq!(tags.len(), FACTS);
}

#[test]
fn records_are_written_as_the_first_drover_wrote_them() {
    let golden = std::fs::read_to_string(fixture("format-1.jsonl")).unwrap();
    for (line, event) in golden.lines().zip(every_fact()) {
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }
}

/// `newer-minor.jsonl` has fields, facts and classes of a drover to come.
#[test]
fn what_a_newer_drover_adds_is_passed_over() {
    let record = read(&fixture("newer-minor.jsonl")).unwrap();
    assert_eq!((record.events.len(), record.unknown), (3, 3));
    assert_eq!(Summary::of(&record.events).exit, Some(0));
}

#[test]
fn a_newer_format_is_refused() {
    let error = read(&fixture("format-2.jsonl")).unwrap_err();
    assert!(matches!(error, RecordError::Newer { found: 2, known: 1, .. }), "{error}");
    let error: drover::error::Error = error.into();
    assert!(error.hint.is_some_and(|hint| hint.contains("newer")));
}

/// The document of a small run in which each attr ends in another way.
#[test]
fn the_json_document_is_the_contract() {
    let events: Vec<Event> = every_fact();
    let document = json::document(&Summary::of(&events));
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_json_snapshot!("json_document", document);
    });
}

#[test]
fn the_json_account_adds_up_to_the_wall_time() {
    let events = fleet(Twist { push: true, ..Twist::default() }).events();
    let document = json::document(&Summary::of(&events));
    let sum: f64 = document.account.iter().map(|entry| entry.seconds).sum();
    assert!((sum - events.last().unwrap().at.seconds()).abs() < 1e-6, "{sum}");
    assert_eq!(document.drvs.build.len(), 201);
    assert_eq!(document.exit, Some(0));
}
