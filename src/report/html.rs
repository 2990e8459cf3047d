//! A run as one page for a browser: what failed, where the time went, a chart of what was done where, what builders and
//! caches did, what took long, and how that compares with earlier runs.
//!
//! The page holds all that it needs and forbids itself to load anything. It is whole without its script, which adds
//! enlarging, searching and keys. The template is `html/page.html`; this module says what is in it.

mod chart;
mod tables;
mod trend;

pub use trend::usual;

use askama::Template;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use crate::event::Stage;
use crate::record::history::Entry;

use super::account::What;
use super::number::{count, duration, plural, size};
use super::summary::{FailureGroup, Summary};
use super::text::{Line, Paint};
use super::timeline::{self, Timeline};
use super::{affected, check, entry, failure, flaky, hits, pushed, step_summary, time};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/page.js");

/// Columns of what is shown as on a terminal.
const WIDTH: usize = 110;

/// Failures that are shown in full.
const FAILURES: usize = 50;

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    style: &'static str,
    script: &'static str,
    /// What the browser holds the script to.
    script_hash: String,
    title: String,
    /// `good`, `bad`, `warn`: the look of the verdict.
    mood: &'static str,
    mark: &'static str,
    headline: String,
    time: String,
    usual: Option<String>,
    facts: Vec<Fact>,
    figures: Vec<Figure>,
    failures: Vec<Block>,
    more_failures: usize,
    remarks: Vec<String>,
    total: String,
    account: Vec<Part>,
    overlaps: Vec<String>,
    chart: chart::Chart,
    data: String,
    steps: Vec<StepRow>,
    trends: Vec<trend::Trend>,
    trend_note: String,
    builders: Vec<tables::BuilderRow>,
    caches: Vec<tables::CacheRow>,
    drvs: Vec<tables::DrvRow>,
    drvs_of: usize,
    evals: Vec<tables::EvalRow>,
    columns: tables::Columns,
    attrs: Vec<tables::AttrRow>,
    attrs_left: usize,
    run: String,
}

/// A fact about the run as a whole.
struct Fact {
    name: &'static str,
    value: String,
    link: Option<String>,
}

/// A number that people look for first.
struct Figure {
    value: String,
    name: &'static str,
    detail: String,
}

/// What failed, as the terminal says it.
struct Block {
    title: String,
    /// Escaped, with colours.
    body: String,
}

/// A line of the account.
struct Part {
    class: &'static str,
    percent: String,
    time: String,
    owner: String,
    detail: String,
}

/// A step of the path.
struct StepRow {
    at: String,
    time: String,
    what: String,
    class: &'static str,
}

/// The page. `earlier` are comparable runs, the oldest first, without this one.
///
/// # Errors
/// If the template cannot be filled, which is a bug.
pub fn page(s: &Summary, earlier: &[Entry]) -> askama::Result<String> {
    let timeline = Timeline::of(s);
    let this = entry::of(s);
    let chart = chart::draw(s, &timeline);
    // In a script nothing may look like the end of it.
    let data = serde_json::to_string(&chart.data).unwrap_or_default().replace('<', "\\u003c");
    let groups = s.failures();
    let run = s.header.as_ref().map_or_else(|| "last".to_owned(), |header| header.run.to_string());
    let (mood, mark) = mood(s);
    let headline = step_summary::what_was(s);
    let (total, account) = account(s);
    let (drvs, drvs_of) = tables::drvs(s);
    let (attrs, attrs_left) = tables::attrs(s);
    let evals = tables::evals(s);
    let columns = tables::Columns::of(&drvs, &evals);
    Page {
        style: STYLE,
        script: SCRIPT,
        script_hash: BASE64_STANDARD.encode(Sha256::digest(SCRIPT)),
        title: format!("{mark} {headline} · {}", duration(s.seconds())),
        mood,
        mark,
        headline,
        time: duration(s.seconds()),
        usual: trend::usual(earlier).map(duration),
        facts: facts(s),
        figures: figures(s, this.as_ref()),
        more_failures: groups.len().saturating_sub(FAILURES),
        failures: groups.iter().take(FAILURES).map(|group| block(s, group)).collect(),
        remarks: remarks(s),
        total,
        account,
        overlaps: overlaps(s),
        steps: steps(s, &timeline),
        trends: this.as_ref().map(|this| trend::of(earlier, this)).unwrap_or_default(),
        trend_note: trend::note(earlier),
        builders: this.as_ref().map(|this| tables::builders(s, this)).unwrap_or_default(),
        caches: this.as_ref().map(tables::caches).unwrap_or_default(),
        drvs,
        drvs_of,
        evals,
        columns,
        attrs,
        attrs_left,
        data,
        chart,
        run,
    }
    .render()
}

/// Text that means itself between tags and in quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn mood(s: &Summary) -> (&'static str, &'static str) {
    match (s.exit, s.cancelled) {
        (_, Some(_)) | (None, _) => ("warn", "■"),
        (Some(0), None) => ("good", "✓"),
        (Some(_), None) => ("bad", "✗"),
    }
}

fn facts(s: &Summary) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut put = |name, value: Option<String>, link: Option<String>| {
        facts.extend(value.filter(|value| !value.is_empty()).map(|value| Fact { name, value, link }));
    };
    let header = s.header.as_ref();
    put(
        "command",
        header.map(|header| {
            let words = ["drover", &header.command].into_iter().chain(header.what.iter().map(|what| &**what));
            words.collect::<Vec<_>>().join(" ")
        }),
        None,
    );
    put("flake", s.flake.as_ref().map(|flake| flake.original.to_string()), None);
    let dirty = s.flake.as_ref().and_then(|flake| flake.dirty_files).filter(|files| *files > 0);
    let dirty = dirty.map(|files| format!(", {} dirty", plural(files as usize, "file", "files")));
    let rev = s.flake.as_ref().and_then(|flake| flake.rev.as_ref()).map(|rev| rev.get(..12).unwrap_or(rev));
    put("revision", rev.map(|rev| format!("{rev}{}", dirty.unwrap_or_default())), None);
    if let Some(placed) = &s.placed {
        let change = placed.change.as_ref().map(|change| format!(" #{change}")).unwrap_or_default();
        let branch = placed.branch.as_ref().map(|branch| format!("{branch}{change}"));
        let url = placed.url.as_ref().filter(|url| url.starts_with("https://") || url.starts_with("http://"));
        put("branch", branch, url.map(ToString::to_string));
        put("repository", placed.repository.as_ref().map(ToString::to_string), None);
    }
    put("base", s.base.as_ref().map(|base| affected::bare(base).to_owned()), None);
    put("began", header.map(|header| header.started.strftime("%Y-%m-%d %H:%M UTC").to_string()), None);
    put("run", header.map(|header| header.run.to_string()), None);
    put("with", header.map(|header| format!("drover {}, nix {}", header.drover, header.nix)), None);
    facts
}

fn figures(s: &Summary, this: Option<&Entry>) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut put = |name, value: String, detail: String| figures.push(Figure { value, name, detail });
    let counts = s.counts;
    let built = counts.built.saturating_sub(counts.found);
    if counts.builds > 0 {
        let chain = this.map(|this| this.chain_seconds).filter(|seconds| *seconds > 0.0);
        let chain = chain.map(|seconds| format!("longest chain {}", duration(seconds))).unwrap_or_default();
        let of = if built == counts.builds { String::new() } else { format!(" of {}", count(counts.builds)) };
        put(if built == 1 { "drv built" } else { "drvs built" }, format!("{}{of}", count(built)), chain);
    }
    if let Some(span) = timeline::stages(s).iter().find(|span| span.stage == Stage::Eval) {
        let evaluated = s.attrs.values().filter(|attr| attr.eval_seconds().is_some()).count();
        let workers = match s.workers {
            0 => String::new(),
            n => format!(", {}", plural(n as usize, "worker", "workers")),
        };
        put("evaluation", duration(span.seconds()), format!("{}{workers}", plural(evaluated, "attr", "attrs")));
    }
    if let Some(hits) = hits::of(s) {
        let share = |share: hits::Share| format!("{} of {}", number(share.hit), number(share.of));
        put("of paths cached", rate(hits.paths), share(hits.paths));
        if let Some(saved) = hits.saved.filter(|saved| saved.known > 0) {
            let drvs = match saved.known == saved.drvs {
                true => plural(saved.drvs as usize, "drv", "drvs"),
                false => format!("{} of {} drvs known", number(saved.known.into()), number(saved.drvs.into())),
            };
            put("spared by caches", duration(saved.seconds), drvs);
        }
    }
    if counts.pushed > 0 || counts.push_failed > 0 {
        let paths = plural(counts.pushed, "path", "paths");
        let failed =
            if counts.push_failed > 0 { format!(", {} failed", count(counts.push_failed)) } else { String::new() };
        put("pushed", size(counts.pushed_bytes), format!("{paths}{failed}"));
    }
    if let Some(this) = this.filter(|this| !this.builders.is_empty() && s.seconds() > 0.0) {
        let busy: f64 = this.builders.iter().map(|builder| builder.busy).sum();
        let up: f64 = this.builders.iter().map(|builder| builder.up * f64::from(builder.slots)).sum();
        if busy > 0.0 && up > 0.0 {
            put("of slots busy", format!("{:.0}%", busy / up * 100.0), format!("{} of building", duration(busy)));
        }
    }
    figures
}

/// A share in percents; never 100 % where something is missing.
fn rate(share: hits::Share) -> String {
    if share.of == 0 {
        return "–".to_owned();
    }
    let percent = share.hit as f64 / share.of as f64 * 100.0;
    if share.hit < share.of && percent > 99.0 { format!("{:.1}%", percent.min(99.9)) } else { format!("{percent:.0}%") }
}

fn number(n: u64) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX))
}

fn block(s: &Summary, group: &FailureGroup) -> Block {
    let mut lines = failure::screen(s, std::slice::from_ref(group), WIDTH);
    let title = if lines.is_empty() { Line::new() } else { lines.remove(0) };
    let title = title.pieces().map(|(_, text)| text).collect::<String>();
    Block { title: title.strip_prefix("FAILED").unwrap_or(&title).trim().to_owned(), body: coloured(&lines) }
}

/// Lines of a terminal.
fn coloured(lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        for (paint, text) in line.pieces() {
            let text = escaped(text);
            match paint {
                Paint::Plain | Paint::Said => out.push_str(&text),
                Paint::Bold => out.push_str(&format!("<b>{text}</b>")),
                Paint::Dim => out.push_str(&format!("<i>{text}</i>")),
                Paint::Bad => out.push_str(&format!("<b class=bad>{text}</b>")),
                Paint::Good => out.push_str(&format!("<b class=good>{text}</b>")),
                Paint::Warn => out.push_str(&format!("<b class=warn>{text}</b>")),
            }
        }
        out.push('\n');
    }
    out
}

/// What a person should know although nothing failed of it.
fn remarks(s: &Summary) -> Vec<String> {
    let hint = |hint: &Option<crate::event::Text>| hint.as_ref().map(|hint| format!(" · {hint}")).unwrap_or_default();
    let error = s.error.iter().map(|error| format!("error: {}{}", error.message, hint(&error.hint)));
    let caches = s.caches.iter().filter(|(_, cache)| cache.push).filter_map(|(id, cache)| {
        let totals = pushed::totals(s, *id);
        let missing = Some(totals.missing.len()).filter(|missing| *missing > 0)?;
        let why = pushed::reason(&totals).map_or_else(String::new, |why| format!(": {}", failure::cause(why)));
        Some(format!(
            "not pushed: {} of {} to {}{why}",
            count(missing),
            plural(totals.queued, "path", "paths"),
            cache.name
        ))
    });
    let findings = s.findings.iter().filter(|_| check::is_check(s));
    let findings = findings.map(|finding| format!("{}: {}{}", finding.about, finding.message, hint(&finding.hint)));
    let flaky = s.flaky().into_iter().map(|drv| format!("flaky: {}", flaky::line(s, drv)));
    let outages = s.builders.values().flat_map(|builder| {
        builder.outages.iter().map(|outage| {
            let (why, time) = (failure::headline(&outage.failure.message), duration(outage.seconds(s.end)));
            format!("builder {} was away for {time}: {why}", builder.name)
        })
    });
    let warnings = s.warnings.iter().map(|warning| format!("{}{}", warning.message, hint(&warning.hint)));
    let nix = s.eval_warnings.iter().map(|(text, times)| match times {
        1 => format!("Nix: {text}"),
        n => format!("Nix: {text} ({n} times)"),
    });
    error.chain(caches).chain(findings).chain(flaky).chain(outages).chain(warnings).chain(nix).collect()
}

fn account(s: &Summary) -> (String, Vec<Part>) {
    let (total, rows) = time::told(s);
    let all = s.end.0.max(1) as f64;
    let part = |(time, row): (String, time::Row)| Part {
        class: class(row.what),
        percent: chart::percent(row.time as f64 / all),
        time,
        owner: row.owner,
        detail: row.detail,
    };
    (total, rows.into_iter().map(part).collect())
}

/// The colour of what is done.
fn class(what: What) -> &'static str {
    match what {
        What::Starting | What::Closing => "k-start",
        What::Evaluating => "k-eval",
        What::Comparing => "k-diff",
        What::Slot { .. } | What::Handing | What::Again | What::Away => "k-wait",
        What::Preparing => "k-in",
        What::Elsewhere | What::Building | What::Collecting => "k-build",
        What::Fetching => "k-fetch",
        What::Returning => "k-out",
        What::Pushing => "k-push",
    }
}

/// `eval and build went on at once for 43s`.
fn overlaps(s: &Summary) -> Vec<String> {
    let of =
        timeline::overlaps(s).into_iter().filter(|overlap| overlap.seconds >= 0.05 && overlap.second != Stage::Record);
    of.map(|o| format!("{} and {} for {}", timeline::word(o.first), timeline::word(o.second), duration(o.seconds)))
        .collect()
}

/// The path in words.
fn steps(s: &Summary, timeline: &Timeline) -> Vec<StepRow> {
    let step = |step: &timeline::Step| {
        let interval = &step.interval;
        StepRow {
            at: super::number::clock(interval.from.seconds()),
            time: duration(interval.to.since(interval.from)),
            what: time::said(s, interval),
            class: class(interval.what),
        }
    };
    timeline.path.iter().filter(|step| step.interval.to.since(step.interval.from) >= 0.05).map(step).collect()
}
