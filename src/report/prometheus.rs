//! Runs as metrics in Prometheus' text format 0.0.4, for the textfile collector of node_exporter.
//!
//! A process that ends keeps no counters, so all are computed anew from the history: the same history gives the same
//! text. No label is a run, a revision or a drv, of which there is no end; no sample has a time, for which the collector
//! would refuse the whole file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::record::history::{Build, Entry, Outcome};

use super::failure::in_json;
use super::timeline;

/// Upper bounds of durations, in seconds: of runs and stages, and of single builds and of waiting.
const LONG: [f64; 10] = [1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0];
const SHORT: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0];

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// One metric with all its samples.
#[derive(Debug, Clone)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    /// By the text after the name: a suffix, and labels.
    samples: Vec<(String, f64)>,
}

/// Sums over runs, which are added one after the other so that none of them need be kept.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Counters and histograms.
    sums: Vec<Family>,
    /// Where in `sums` a sample is.
    known: BTreeMap<String, (usize, usize)>,
    /// What is said of the last run.
    last: Vec<Family>,
    /// When the last run ended that succeeded, in seconds since 1970.
    good: Option<f64>,
}

impl Metrics {
    /// Adds a run; the last one added is the one that gauges are about.
    pub fn add(&mut self, run: &Entry) {
        for family in counters(run).into_iter().chain(histograms(run)) {
            self.sum(family);
        }
        if run.exit == Some(0) {
            self.good = Some(ended(run));
        }
        self.last = gauges(run, self.good);
    }

    fn sum(&mut self, family: Family) {
        let at = self.sums.iter().position(|known| known.name == family.name).unwrap_or(self.sums.len());
        if at == self.sums.len() {
            let Family { name, help, kind, .. } = family;
            self.sums.push(Family { name, help, kind, samples: Vec::new() });
        }
        let sum = &mut self.sums[at].samples;
        for (labels, value) in family.samples {
            let key = format!("{}{labels}", family.name);
            match self.known.get(&key).and_then(|(_, n)| sum.get_mut(*n)) {
                Some((_, known)) => *known += value,
                None => {
                    self.known.insert(key, (at, sum.len()));
                    sum.push((labels, value));
                }
            }
        }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        written(self.sums.iter().chain(&self.last))
    }
}

/// The text, of runs in the order in which they began.
#[must_use]
pub fn text(runs: &[Entry]) -> String {
    let mut metrics = Metrics::default();
    runs.iter().for_each(|run| metrics.add(run));
    metrics.text()
}

fn written<'a>(families: impl Iterator<Item = &'a Family>) -> String {
    let mut out = String::new();
    for family in families.filter(|family| !family.samples.is_empty()) {
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", family.name, family.help, family.name, family.kind);
        for (labels, value) in &family.samples {
            let _ = writeln!(out, "{}{labels} {value}", family.name);
        }
    }
    out
}

/// How a run ended, in the words of OpenTelemetry's conventions.
#[must_use]
pub fn result(exit: Option<u8>) -> &'static str {
    match exit {
        Some(0) => "success",
        Some(1 | 3) => "failure",
        Some(130) => "cancellation",
        _ => "error",
    }
}

fn labelled(labels: &[(&'static str, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// A counter, summed by its labels.
fn counter(name: &'static str, help: &'static str, parts: impl Iterator<Item = (Labels, f64)>) -> Family {
    let mut sums: BTreeMap<Labels, f64> = BTreeMap::new();
    for (labels, value) in parts {
        *sums.entry(labels).or_default() += value;
    }
    let samples = sums.into_iter().map(|(labels, sum)| (labelled(&labels), sum)).collect();
    Family { name, help, kind: "counter", samples }
}

/// A histogram by labels.
fn histogram(
    name: &'static str,
    help: &'static str,
    bounds: &[f64],
    values: impl Iterator<Item = (Labels, f64)>,
) -> Family {
    let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for (labels, value) in values.filter(|(_, value)| value.is_finite()) {
        groups.entry(labels).or_default().push(value);
    }
    let mut samples = Vec::new();
    for (labels, values) in groups {
        let bucket = |bound: &str, count: usize| {
            let labels: Labels = labels.iter().cloned().chain([("le", bound.to_owned())]).collect();
            (format!("_bucket{}", labelled(&labels)), count as f64)
        };
        for bound in bounds {
            samples.push(bucket(&bound.to_string(), values.iter().filter(|value| *value <= bound).count()));
        }
        samples.push(bucket("+Inf", values.len()));
        samples.push((format!("_sum{}", labelled(&labels)), values.iter().sum()));
        samples.push((format!("_count{}", labelled(&labels)), values.len() as f64));
    }
    Family { name, help, kind: "histogram", samples }
}

fn gauge(name: &'static str, help: &'static str, samples: impl IntoIterator<Item = (Labels, f64)>) -> Family {
    let samples = samples.into_iter().map(|(labels, value)| (labelled(&labels), value)).collect();
    Family { name, help, kind: "gauge", samples }
}

fn histograms(run: &Entry) -> Vec<Family> {
    let builds = || run.builds.iter();
    let of_run =
        |run: &Entry| (vec![("command", run.command.clone()), ("result", result(run.exit).to_owned())], run.seconds);
    let stages = run.stages.iter();
    let stages =
        stages.map(|(name, spell)| (vec![("stage", timeline::word(*name).to_owned())], spell.end - spell.start));
    let of_build = |build: &Build| {
        (vec![("system", build.system.to_string()), ("result", outcome(build).to_owned())], build.seconds())
    };
    let waited = |build: &Build| (vec![("system", build.system.to_string())], (build.started - build.ready).max(0.0));
    vec![
        histogram("drover_run_duration_seconds", "Wall time of runs.", &LONG, std::iter::once(run).map(of_run)),
        histogram("drover_stage_duration_seconds", "Time from the beginning of a stage to its end.", &LONG, stages),
        histogram(
            "drover_build_duration_seconds",
            "Time that builders took for a drv.",
            &SHORT,
            builds().map(of_build),
        ),
        histogram(
            "drover_build_queue_duration_seconds",
            "Time that drvs that had all their inputs waited for a builder.",
            &SHORT,
            builds().map(waited),
        ),
    ]
}

/// `built`, `valid`, `failed`.
fn outcome(build: &Build) -> &'static str {
    match build.outcome {
        Outcome::Built => "built",
        Outcome::Valid => "valid",
        Outcome::Failed(_) => "failed",
    }
}

fn counters(run: &Entry) -> Vec<Family> {
    let builders = || run.builders.iter();
    let caches = || run.caches.iter();
    let builder = |name: &str| vec![("builder", name.to_owned())];
    let cache = |name: &str| vec![("cache", name.to_owned())];
    let total = |number: u64| std::iter::once((Labels::new(), number as f64));
    let lookups = caches().flat_map(|used| {
        let outcomes = [
            ("hit", used.present),
            ("miss", used.absent),
            ("untrusted", used.untrusted),
            ("unanswered", used.no_answer),
        ];
        let name = used.name.clone();
        outcomes.map(move |(outcome, n)| (vec![("cache", name.clone()), ("outcome", outcome.to_owned())], n as f64))
    });
    let failures = run.builds.iter().filter_map(|build| match build.outcome {
        Outcome::Failed(class) => Some((vec![("class", in_json(class))], 1.0)),
        _ => None,
    });
    vec![
        counter(
            "drover_runs_total",
            "Runs by how they ended.",
            std::iter::once((vec![("command", run.command.clone()), ("result", result(run.exit).to_owned())], 1.0)),
        ),
        counter(
            "drover_builder_busy_seconds_total",
            "Time for which slots of a builder were taken, all its slots together.",
            builders().map(|used| (builder(&used.name), used.busy)),
        ),
        counter(
            "drover_builder_lost_total",
            "How often a builder was lost.",
            builders().map(|used| (builder(&used.name), f64::from(used.lost))),
        ),
        counter(
            "drover_builder_input_bytes_total",
            "Bytes that were copied to a builder.",
            builders().map(|used| (builder(&used.name), used.brought as f64)),
        ),
        counter("drover_cache_lookups_total", "Paths that a cache was asked for.", lookups),
        counter(
            "drover_cache_repeated_requests_total",
            "Requests to a cache that had to be made again.",
            caches().filter_map(|used| {
                used.trouble.as_ref().map(|trouble| (cache(&used.name), f64::from(trouble.requests)))
            }),
        ),
        counter(
            "drover_cache_pushed_paths_total",
            "Paths that were pushed to a cache.",
            caches().map(|used| (cache(&used.name), used.pushed as f64)),
        ),
        counter(
            "drover_cache_pushed_bytes_total",
            "Bytes that were pushed to a cache.",
            caches().map(|used| (cache(&used.name), used.pushed_bytes as f64)),
        ),
        counter(
            "drover_cache_spared_seconds_total",
            "Time of building that caches spared, as far as it is known.",
            total(run.counters.spared_seconds),
        ),
        counter("drover_failures_total", "Attempts that failed, by class.", failures),
        counter("drover_retries_total", "Attempts after the first of a drv.", total(run.counters.retries)),
        counter(
            "drover_flaky_drvs_total",
            "Drvs that failed and then, the same, were built.",
            total(run.counters.flaky),
        ),
        counter("drover_drvs_built_total", "Drvs that were built.", total(run.counters.built)),
        counter("drover_attrs_evaluated_total", "Attrs that were evaluated.", total(run.counters.evaluated)),
    ]
}

fn ended(run: &Entry) -> f64 {
    run.started.as_millisecond() as f64 / 1000.0 + run.seconds
}

fn gauges(last: &Entry, good: Option<f64>) -> Vec<Family> {
    let none = Labels::new;
    let counters = &last.counters;
    let share = |hit: u64, of: u64| (of > 0).then(|| (none(), hit as f64 / of as f64));
    let slots = last.builders.iter().map(|used| (vec![("builder", used.name.clone())], f64::from(used.slots)));
    let about = vec![("version", last.drover.clone()), ("nix", last.nix.clone())];
    vec![
        gauge("drover_last_run_timestamp_seconds", "When the last run ended.", [(none(), ended(last))]),
        gauge(
            "drover_last_success_timestamp_seconds",
            "When the last run ended that succeeded.",
            good.map(|at| (none(), at)),
        ),
        gauge("drover_last_run_duration_seconds", "Wall time of the last run.", [(none(), last.seconds)]),
        gauge(
            "drover_last_run_exit_code",
            "Exit code of the last run; none if it was killed.",
            last.exit.map(|exit| (none(), f64::from(exit))),
        ),
        gauge(
            "drover_last_run_path_hit_ratio",
            "Paths that caches had in the last run, of those that were not valid.",
            share(counters.paths_hit, counters.paths_asked),
        ),
        gauge(
            "drover_last_run_closure_bytes",
            "Bytes of the closures of all attrs of the last run.",
            Some((none(), counters.closure_bytes as f64)).filter(|(_, bytes)| *bytes > 0.0),
        ),
        gauge("drover_builder_slots", "How many drvs a builder builds at once.", slots),
        gauge("drover_build_info", "The versions of the last run.", [(about, 1.0)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_ends_have_names() {
        assert_eq!(labelled(&[("builder", "a\"b\\c\nd".to_owned())]), r#"{builder="a\"b\\c\nd"}"#);
        assert_eq!(labelled(&[]), "");
        let ends = [Some(0), Some(1), Some(3), Some(4), Some(130), None].map(result);
        assert_eq!(ends, ["success", "failure", "failure", "error", "cancellation", "error"]);
        assert_eq!(text(&[]), "");
    }
}
