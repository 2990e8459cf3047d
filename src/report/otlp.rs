//! A run as spans of OpenTelemetry, in the JSON of OTLP/HTTP (`ExportTraceServiceRequest`), by the semantic conventions
//! for CI/CD: the run is a span, below it are its stages, what was evaluated, and the attempts of builds as tasks.
//!
//! Ids follow from the run's, so that the same run told twice is one trace. Where whoever started drover said what trace
//! it belongs to (`TRACEPARENT`, W3C Trace Context), it is a part of that one.

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::event::{AttemptEnd, Class, Evaluated, Moment};
use crate::id::DrvId;

use super::prometheus;
use super::summary::{Attempt, Header, Summary};
use super::{failure, timeline};

/// Spans that go out with one request.
pub const BATCH: usize = 2000;

/// `SpanKind` and `StatusCode` of the protocol.
const SERVER: u8 = 2;
const INTERNAL: u8 = 1;
const OK: u8 = 1;
const ERROR: u8 = 2;

/// The trace that a run belongs to, and the span that it is below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    trace: String,
    span: String,
}

impl Parent {
    /// From a `traceparent` as W3C's Trace Context has it: `00-TRACE-SPAN-FLAGS`; `None` for one that is malformed.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let version = parts.next().filter(|version| version.len() == 2 && *version != "ff")?;
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        let is = |text: &str, length| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        // Later versions may say more.
        let ended = version != "00" || parts.next().is_none();
        let sound = is(version, 2) && is(trace, 32) && is(span, 16) && is(flags, 2) && !zero(trace) && !zero(span);
        (sound && ended).then(|| Self { trace: trace.to_owned(), span: span.to_owned() })
    }
}

/// One span.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent_span_id: String,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Value>,
    status: Value,
}

/// The documents to be sent one after the other, each of [`BATCH`] spans at most; none if the record does not even say
/// how the run began.
#[must_use]
pub fn documents(s: &Summary, parent: Option<&Parent>) -> Vec<Value> {
    let Some(header) = s.header.as_ref() else { return Vec::new() };
    let spans = spans(s, header, parent);
    spans.chunks(BATCH).map(|spans| document(header, spans)).collect()
}

/// All of it in one document.
#[must_use]
pub fn whole(s: &Summary, parent: Option<&Parent>) -> Value {
    let Some(header) = s.header.as_ref() else { return json!({ "resourceSpans": [] }) };
    document(header, &spans(s, header, parent))
}

fn document(header: &Header, spans: &[Span]) -> Value {
    let resource = [text("service.name", "drover"), text("service.version", &header.drover)];
    json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": { "name": "drover", "version": header.drover }, "spans": spans }],
        }],
    })
}

fn spans(s: &Summary, header: &Header, parent: Option<&Parent>) -> Vec<Span> {
    let maker = Maker::new(s, header, parent);
    let mut spans = vec![maker.run()];
    spans.extend(maker.stages());
    spans.extend(maker.evaluations());
    spans.extend(s.attempts.iter().map(|(id, attempt)| maker.attempt(id.0, attempt)));
    spans
}

struct Maker<'a> {
    s: &'a Summary,
    header: &'a Header,
    trace: String,
    /// The span of the run, and what it is below.
    root: String,
    above: String,
}

impl<'a> Maker<'a> {
    fn new(s: &'a Summary, header: &'a Header, parent: Option<&Parent>) -> Self {
        let run = format!("{:032x}", header.run.0.0);
        let (trace, above) = parent.map_or((run, String::new()), |parent| (parent.trace.clone(), parent.span.clone()));
        let mut maker = Self { s, header, trace, root: String::new(), above };
        maker.root = maker.id("run", 0);
        maker
    }

    /// The id of a span: the same for the same part of the same run.
    fn id(&self, kind: &str, number: u32) -> String {
        let digest = Sha256::digest(format!("{} {kind} {number}", self.header.run));
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn nanos(&self, at: Moment) -> String {
        let began = self.header.started.as_nanosecond().max(0);
        (began + i128::from(at.0) * 1000).to_string()
    }

    fn span(&self, (kind, number): (&str, u32), name: String, (from, to): (Moment, Moment)) -> Span {
        Span {
            trace_id: self.trace.clone(),
            span_id: self.id(kind, number),
            parent_span_id: self.root.clone(),
            name,
            kind: INTERNAL,
            start_time_unix_nano: self.nanos(from),
            end_time_unix_nano: self.nanos(to.max(from)),
            attributes: Vec::new(),
            status: json!({}),
        }
    }

    fn run(&self) -> Span {
        let (s, header) = (self.s, self.header);
        let result = prometheus::result(s.exit);
        let action = header.command.to_uppercase();
        let pipeline = s.flake.as_ref().map_or("drover", |flake| &flake.original);
        let mut span = self.span(("run", 0), format!("{action} {pipeline}"), (Moment(0), s.end));
        span.parent_span_id.clone_from(&self.above);
        span.kind = SERVER;
        span.attributes = vec![
            text("cicd.pipeline.name", pipeline),
            text("cicd.pipeline.action.name", &action),
            text("cicd.pipeline.run.id", &header.run.to_string()),
            text("cicd.pipeline.result", result),
            text("nix.version", &header.nix),
            number("drover.drvs.built", s.counts.built.saturating_sub(s.counts.found) as u64),
            number("drover.paths.pushed", s.counts.pushed as u64),
        ];
        let rev = s.flake.as_ref().and_then(|flake| flake.rev.as_deref());
        let placed = s.placed.clone().unwrap_or_default();
        let known = [
            ("vcs.ref.head.revision", rev),
            ("vcs.ref.head.name", placed.branch.as_deref()),
            ("vcs.change.id", placed.change.as_deref()),
            ("vcs.repository.name", placed.repository.as_deref()),
            ("vcs.provider.name", placed.forge.as_deref()),
            ("cicd.pipeline.run.url.full", placed.url.as_deref()),
            ("error.type", Some(result).filter(|result| *result != "success")),
        ];
        span.attributes.extend(known.into_iter().filter_map(|(name, value)| Some(text(name, value?))));
        span.status = status(result == "success", s.error.as_ref().map(|error| &*error.message));
        span
    }

    fn stages(&self) -> Vec<Span> {
        let of = |known: timeline::StageSpan| {
            let name = timeline::word(known.stage);
            let mut span = self.span(("stage", known.stage as u32), format!("stage {name}"), (known.from, known.to));
            span.attributes = vec![text("drover.stage", name)];
            span
        };
        timeline::stages(self.s).into_iter().map(of).collect()
    }

    fn evaluations(&self) -> Vec<Span> {
        let of = |(id, attr): (&crate::id::AttrId, &super::summary::Attr)| {
            let (from, worker) = attr.eval_started?;
            let (to, evaluated) = attr.evaluated.as_ref()?;
            let mut span = self.span(("eval", id.0), format!("evaluate {}", attr.name), (from, *to));
            let refused = match evaluated {
                Evaluated::Failed(failure) => Some(failure),
                _ => None,
            };
            span.attributes = vec![text("nix.attr", &attr.path.to_string()), number("drover.evaluator", worker.into())];
            span.attributes.extend(refused.map(|failure| text("error.type", &failure::in_json(failure.class))));
            let message = refused.map(failure::cause);
            span.status = status(refused.is_none(), message.as_deref());
            Some(span)
        };
        self.s.attrs.iter().filter_map(of).collect()
    }

    /// An attempt is the run of a task.
    fn attempt(&self, id: u32, attempt: &Attempt) -> Span {
        let s = self.s;
        let to = attempt.ended.as_ref().map_or(s.end, |(at, _)| *at);
        let name = s.drv_name(attempt.drv);
        let mut span = self.span(("attempt", id), name.clone(), (attempt.started, to));
        let refused = attempt.failure();
        let result = match &attempt.ended {
            None => "cancellation",
            Some((_, AttemptEnd::Built { .. })) => "success",
            Some((_, AttemptEnd::AlreadyValid { .. })) => "skip",
            Some((_, AttemptEnd::Failed(failure))) => of_class(failure.class),
        };
        span.attributes = vec![
            text("cicd.pipeline.task.name", &name),
            text("cicd.pipeline.task.type", "build"),
            text("cicd.pipeline.task.run.id", &format!("{}/{id}", self.header.run)),
            text("cicd.pipeline.task.run.result", result),
            text("cicd.worker.name", &s.builder_name(attempt.builder)),
            text("cicd.worker.id", &attempt.builder.0.to_string()),
        ];
        span.attributes.extend(self.of_drv(attempt.drv));
        let building = attempt.building.map(|at| number("drover.building.start_us", at.0));
        let brought = attempt.prepared.map(|prepared| number("drover.inputs.bytes", prepared.copied_size));
        let cpu = attempt.cpu.map(|cpu| json!({ "key": "drover.cpu.seconds", "value": { "doubleValue": cpu } }));
        let error = refused.map(|failure| text("error.type", &failure::in_json(failure.class)));
        span.attributes.extend(building.into_iter().chain(brought).chain(cpu).chain(error));
        let message = refused.map(failure::cause);
        span.status = status(refused.is_none() && attempt.ended.is_some(), message.as_deref());
        span
    }

    fn of_drv(&self, id: DrvId) -> Vec<Value> {
        let Some(drv) = self.s.drvs.get(&id) else { return Vec::new() };
        let size = self.s.sizes.get(&id).map(|bytes| number("drover.output.bytes", *bytes));
        [text("nix.drv.path", &drv.path), text("nix.system", &drv.system.0)].into_iter().chain(size).collect()
    }
}

/// The code's own fault is a failure, that of the world an error.
fn of_class(class: Class) -> &'static str {
    match class {
        Class::Timeout | Class::Silent => "timeout",
        Class::Cancelled => "cancellation",
        _ => match crate::error::fault_of(class) {
            crate::error::Fault::Eval | crate::error::Fault::Build => "failure",
            _ => "error",
        },
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Numbers of 64 bits are texts in this JSON.
fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": i64::try_from(value).unwrap_or(i64::MAX).to_string() } })
}

fn status(ok: bool, message: Option<&str>) -> Value {
    match (ok, message) {
        (true, _) => json!({ "code": OK }),
        (false, None) => json!({ "code": ERROR }),
        (false, Some(message)) => json!({ "code": ERROR, "message": message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sound_traceparent_counts() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let good = format!("00-{trace}-{span}-01");
        assert_eq!(Parent::of(&good), Some(Parent { trace: trace.into(), span: span.into() }));
        assert!(Parent::of(&format!("cc-{trace}-{span}-01-what-will-be-said")).is_some());
        for bad in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
        ] {
            assert_eq!(Parent::of(&bad), None, "{bad}");
        }
    }
}
