//! A run as JUnit's XML, which all CI systems read: a suite a kind, a case an attr.
//!
//! What the code is to blame for is a failure, what kept drover from trying is an error, as the exit codes have it.
//! Attempts in vain that were repeated are told of, too: flaky where a later one built the drv, else reruns.
//! Positions are the attributes `file` and `line` of a case, where they are known. The dialect is that of Jenkins and
//! Surefire, as the crate writes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestRerun, TestSuite};

use crate::error::{Fault, fault_of};
use crate::event::{Class, Failure, Text};
use crate::id::{DrvId, Kind};

use super::annotations::{self, Annotation, Level};
use super::check::{self, Outcome, Verdict};
use super::failure;
use super::place;
use super::summary::{Attempt, Finding, Summary};

/// Of what is about no attr: the flake as a whole, and the run.
const FLAKE: &str = "flake";

/// The document. `root` is the root of the repository at hand. Fails only where XML cannot be written.
pub fn document(summary: &Summary, root: Option<&Path>) -> Result<String, SerializeError> {
    let mut suites: BTreeMap<(Kind, String), Vec<TestCase>> = BTreeMap::new();
    for verdict in check::verdicts(summary) {
        let suite = (verdict.kind, output(&verdict).to_owned());
        suites.entry(suite).or_default().push(case(summary, &verdict, root));
    }
    let mut report = Report::new("drover");
    report.set_time(seconds(summary.seconds()));
    report.add_test_suites(suites.into_iter().map(|((_, name), cases)| suite(&legal(&name), cases)));
    let mut whole: Vec<TestCase> = summary.findings.iter().map(|finding| of_finding(summary, finding, root)).collect();
    whole.extend(annotations::not_pushed(summary).iter().map(of_push));
    whole.extend(of_error(summary));
    if !whole.is_empty() {
        report.add_test_suite(suite(FLAKE, whole));
    }
    report.to_string()
}

fn suite(name: &str, cases: Vec<TestCase>) -> TestSuite {
    let mut suite = TestSuite::new(name);
    suite.set_time(cases.iter().filter_map(|case| case.time).sum());
    suite.add_test_cases(cases);
    suite
}

/// The flake's output that an attr is in; also of those that are of no kind of their own (`overlays`).
fn output(verdict: &Verdict) -> &str {
    verdict.path.parts().first().map_or("", String::as_str)
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn case(summary: &Summary, verdict: &Verdict, root: Option<&Path>) -> TestCase {
    let mut status = status(summary, verdict);
    status.add_reruns(reruns(summary, verdict));
    let mut case = TestCase::new(legal(&verdict.path.to_string()), status);
    case.set_classname(legal(output(verdict)));
    case.set_time(seconds(verdict.seconds));
    if let Some(position) = verdict.failure.as_ref().and_then(|failure| failure.position.as_deref()) {
        put_place(&mut case, summary, position, root);
    }
    if verdict.outcome == Outcome::Cached {
        case.add_property(Property::new("cache", "hit"));
    }
    let said = said(summary, verdict);
    if !said.is_empty() {
        case.set_system_out(legal(&said));
    }
    case
}

fn status(summary: &Summary, verdict: &Verdict) -> TestCaseStatus {
    let skipped = |why: String| {
        let mut status = TestCaseStatus::skipped();
        status.set_message(legal(&why));
        status
    };
    match verdict.outcome {
        Outcome::Ok | Outcome::Built | Outcome::Cached | Outcome::Finding => TestCaseStatus::success(),
        Outcome::Unaffected => skipped("as on the base".to_owned()),
        Outcome::Skipped => {
            let ended = summary.attrs.get(&verdict.attr).and_then(|attr| attr.ended.as_ref());
            skipped(ended.and_then(|end| end.reason.as_ref()).map_or_else(|| "not tried".to_owned(), Text::to_string))
        }
        Outcome::Refused | Outcome::Failed => match &verdict.quarantined {
            Some(quarantine) => {
                let ticket = quarantine.ticket.as_ref().map(|ticket| format!(", {ticket}")).unwrap_or_default();
                let cause = verdict.failure.as_ref().map(|failure| format!(": {}", failure::cause(failure)));
                skipped(format!(
                    "in quarantine until {} ({}{ticket}){}",
                    quarantine.expires,
                    quarantine.reason,
                    cause.unwrap_or_default()
                ))
            }
            None => non_success(verdict.failure.as_ref()),
        },
    }
}

/// A failure with its class as the type, in a line and in full.
fn non_success(failure: Option<&Failure>) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind(failure));
    if let Some(failure) = failure {
        status.set_message(legal(&failure::cause(failure)));
        status.set_type(failure::in_json(failure.class));
        status.set_description(legal(&failure.message));
    }
    status
}

fn kind(failure: Option<&Failure>) -> NonSuccessKind {
    match failure.map_or(Fault::Unreachable, |failure| fault_of(failure.class)) {
        Fault::Eval | Fault::Build => NonSuccessKind::Failure,
        _ => NonSuccessKind::Error,
    }
}

/// The attempts in vain that the case does not tell of by itself: of a failure those before the last, else those of drvs
/// that a later attempt built. A drv that several attrs need is told of with the one that asked for it first.
fn reruns(summary: &Summary, verdict: &Verdict) -> Vec<TestRerun> {
    let drvs: Vec<DrvId> = match verdict.root {
        Some(root) => vec![root],
        None if verdict.outcome.is_good() => {
            let own = summary.drvs.iter().filter(|(_, drv)| drv.attr == Some(verdict.attr) && drv.attempts.len() > 1);
            own.map(|(id, _)| *id).collect()
        }
        None => Vec::new(),
    };
    let of = |drv: DrvId| {
        let attempts: Vec<&Attempt> = summary.attempts_of(drv).collect();
        let before = attempts.len().saturating_sub(1);
        attempts.into_iter().take(before).filter_map(move |attempt| rerun(summary, drv, attempt))
    };
    drvs.into_iter().flat_map(of).collect()
}

/// An attempt that failed; one that was called off says nothing.
fn rerun(summary: &Summary, drv: DrvId, attempt: &Attempt) -> Option<TestRerun> {
    let failure = attempt.failure().filter(|failure| failure.class != Class::Cancelled)?;
    let mut rerun = TestRerun::new(kind(Some(failure)));
    let builder = summary.builder_name(attempt.builder);
    let message = format!("{} on {builder}: {}", summary.drv_name(drv), failure::cause(failure));
    rerun.set_message(legal(&message)).set_type(failure::in_json(failure.class));
    rerun.set_time(seconds(attempt.seconds(summary.end)));
    if !attempt.log_tail.is_empty() {
        let tail: Vec<&str> = attempt.log_tail.iter().map(|line| &**line).collect();
        rerun.set_system_out(legal(&tail.join("\n")));
    }
    Some(rerun)
}

/// What was said on the way: remarks of Nix, what is only a warning, the end of the log.
fn said(summary: &Summary, verdict: &Verdict) -> String {
    let finding = verdict.failure.as_ref().filter(|_| verdict.outcome == Outcome::Finding);
    let warnings = verdict.warnings.iter().map(|warning| format!("warning: {warning}"));
    let finding = finding.map(|finding| format!("warning: {}", finding.message));
    let tail = verdict.root.into_iter().flat_map(|root| tail(summary, root));
    warnings.chain(finding).chain(tail).collect::<Vec<_>>().join("\n")
}

fn tail(summary: &Summary, root: DrvId) -> Vec<String> {
    let attempt = summary.last_attempt(root);
    let tail = attempt.map(|attempt| attempt.log_tail.as_slice()).unwrap_or_default();
    let more = attempt.filter(|attempt| attempt.log_lines > tail.len() as u64);
    let more = more
        .map(|attempt| format!("… the whole log: drover log {} ({} lines)", summary.log_name(root), attempt.log_lines));
    more.into_iter().chain(tail.iter().map(Text::to_string)).collect()
}

/// What is wrong with the flake as a whole is a case of its own.
fn of_finding(summary: &Summary, finding: &Finding, root: Option<&Path>) -> TestCase {
    let status = match finding.fails {
        true => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(legal(&finding.message));
            status
        }
        false => TestCaseStatus::success(),
    };
    let mut case = TestCase::new(legal(&format!("{}: {}", finding.about, finding.message)), status);
    case.set_classname(FLAKE);
    if let Some(position) = &finding.position {
        put_place(&mut case, summary, position, root);
    }
    if let Some(hint) = &finding.hint {
        case.set_system_out(legal(hint));
    }
    case
}

/// A cache that does not have all that it should.
fn of_push(push: &Annotation) -> TestCase {
    let mut status = match push.level {
        Level::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        Level::Warning => TestCaseStatus::skipped(),
    };
    status.set_message(legal(&push.message));
    let mut case = TestCase::new(legal(&push.title), status);
    case.set_classname(FLAKE);
    case
}

/// What ended the run early.
fn of_error(summary: &Summary) -> Option<TestCase> {
    let error = summary.error.as_ref()?;
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_message(legal(&error.message));
    let mut case = TestCase::new("the run", status);
    case.set_classname(FLAKE);
    if let Some(hint) = &error.hint {
        case.set_system_out(legal(hint));
    }
    Some(case)
}

fn put_place(case: &mut TestCase, summary: &Summary, position: &str, root: Option<&Path>) {
    let flake = summary.flake.as_ref().map_or("", |flake| &flake.original);
    let Some(place) = place::of(position, flake, root) else { return };
    case.extra.insert("file".into(), legal(&place.file).into());
    if let Some(line) = place.line {
        case.extra.insert("line".into(), line.to_string().into());
    }
}

/// Without the two characters that XML does not allow and the crate lets through (XML 1.0, 2.2).
fn legal(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Class, Evaluated, Event, Fact, Moment, Status};
    use crate::id::{AttrId, AttrPath};

    /// Attrs of this name that ended so, in a run that is over.
    fn summary(attrs: &[(&str, Fact)]) -> Summary {
        let mut facts = Vec::new();
        for (n, (path, _)) in attrs.iter().enumerate() {
            let path: AttrPath = path.parse().unwrap();
            let (attr, kind, name) = (AttrId(n as u32), path.kind(), path.last().into());
            facts.push(Fact::AttrListed { attr, path, kind, name });
        }
        facts.extend(attrs.iter().map(|(_, fact)| fact.clone()));
        facts.push(Fact::RunEnded { exit: 3 });
        let event = |(n, fact)| Event { seq: n as u64, at: Moment(n as u64), fact };
        Summary::of(&facts.into_iter().enumerate().map(event).collect::<Vec<_>>())
    }

    fn failed(attr: u32, class: Class, message: &str) -> Fact {
        let failure = Failure { position: Some("a.nix:3:1".into()), ..Failure::new(class, message) };
        Fact::EvalEnded { attr: AttrId(attr), evaluated: Evaluated::Failed(failure), peak: None, grown: None }
    }

    fn ended(attr: u32, status: Status, reason: Option<&str>) -> Fact {
        Fact::AttrEnded { attr: AttrId(attr), status, reason: reason.map(Into::into), root: None }
    }

    #[test]
    fn the_code_fails_and_the_world_is_in_error() {
        let summary = summary(&[
            ("checks.x.a", failed(0, Class::Eval, "\u{1b}[31mno\u{1b}[0m <\u{1}\u{ffff}>")),
            ("checks.x.b", failed(1, Class::Network, "gone")),
            ("checks.x.c", ended(2, Status::Unaffected, None)),
            ("overlays.d", ended(3, Status::Checked, None)),
            ("checks.x.e", ended(4, Status::Skipped, Some(crate::event::STOPPED))),
        ]);
        let text = document(&summary, None).unwrap();
        for wanted in [
            r#"name="drover" tests="5" skipped="2" failures="1" errors="1""#,
            r#"<testsuite name="checks" tests="4" skipped="2" errors="1" failures="1""#,
            r#"<failure message="no &lt;&gt;" type="eval">no &lt;&gt;</failure>"#,
            r#"<error message="gone" type="network">gone</error>"#,
            r#"<skipped message="as on the base"/>"#,
            r#"<skipped message="the run was stopped"/>"#,
            r#"<testcase name="overlays.d" classname="overlays""#,
        ] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
    }

    #[test]
    fn what_is_in_quarantine_is_skipped_and_says_why() {
        let mut summary = summary(&[("checks.x.a", failed(0, Class::Eval, "no"))]);
        let at = Moment(9);
        let fact = Fact::AttrQuarantined {
            attr: AttrId(0),
            name: "q".into(),
            reason: "flaky".into(),
            ticket: Some("T-1".into()),
            expires: "2026-12-24".into(),
        };
        summary.add(&Event { seq: 9, at, fact });
        let text = document(&summary, None).unwrap();
        let wanted = r#"<skipped message="in quarantine until 2026-12-24 (flaky, T-1): no"/>"#;
        assert!(text.contains(wanted) && text.contains(r#"failures="0""#), "{text}");
    }
}
