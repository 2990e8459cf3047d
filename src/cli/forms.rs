//! The formats of a report: which document each of them is, and an archive of all of them.

use std::io::IsTerminal as _;
use std::path::Path;

use crate::config::Collector;
use crate::driver::telling;
use crate::error::{Error, Fault, Result};
use crate::record::Run;
use crate::record::history::{Depth, Entry, Filter, History};
use crate::report::step_summary::{self, Before};
use crate::report::summary::Summary;
use crate::report::text::{Style, render};
use crate::report::zip::Archive;
use crate::report::{badge, closing, entry, harmless, html, json, junit, otlp, prometheus, trace};

use super::args::Format;
use super::{Session, json_text, print, run, write_file};

/// Earlier runs that one is compared with.
const EARLIER: usize = 40;

/// What an archive holds besides the record.
const IN_ZIP: [(&str, Format); 9] = [
    ("summary.txt", Format::Summary),
    ("report.html", Format::Html),
    ("report.md", Format::Markdown),
    ("run.json", Format::Json),
    ("junit.xml", Format::Junit),
    ("trace.json", Format::Trace),
    ("otlp.json", Format::Otlp),
    ("metrics.prom", Format::Prometheus),
    ("badge.svg", Format::Badge),
];

/// A recorded run that is told of.
pub(super) struct Told<'a> {
    pub(super) session: &'a Session,
    pub(super) run: &'a Run,
    pub(super) summary: Summary,
    pub(super) state_dir: &'a Path,
}

impl Told<'_> {
    /// Prints it, or writes it to a file.
    pub(super) fn put(&self, format: Format, file: Option<&Path>) -> Result<()> {
        let bytes = match format {
            Format::Zip => self.archive()?,
            format => self.text(format)?.into_bytes(),
        };
        match file {
            Some(file) => write_file(file, &bytes),
            None if format == Format::Zip && std::io::stdout().is_terminal() => {
                Err(Error::usage("an archive is nothing for a terminal")
                    .hint(format!("drover report {} --format zip --output run.zip", self.run.short)))
            }
            None => print(&bytes),
        }
    }

    fn text(&self, format: Format) -> Result<String> {
        let (s, root) = (&self.summary, run::repository());
        Ok(match format {
            Format::Summary => self.screen(),
            Format::Json => json_text(&json::document(s))?,
            Format::Path => format!("{}\n", self.run.dir.path().display()),
            Format::Html => page(s, self.state_dir)?,
            Format::Markdown => {
                step_summary::page(s, root.as_deref(), &before(s, self.state_dir), step_summary::COMMENT)
            }
            Format::Junit => junit::document(s, root.as_deref()).map_err(|error| bug("XML", &error))?,
            Format::Trace => compact(&trace::document(s))?,
            Format::Prometheus => self.metrics(),
            Format::Otlp => {
                compact(&otlp::whole(s, self.session.env.trace_parent().and_then(otlp::Parent::of).as_ref()))?
            }
            Format::Badge => badge::svg(s),
            // No text.
            Format::Zip => String::new(),
        })
    }

    fn screen(&self) -> String {
        let options = closing::Options {
            width: self.session.width(),
            verbose: true,
            run: Some(self.run.short.clone()),
            report: None,
            clock: false,
        };
        let plain = Style { colour: false, ascii: false, ..self.session.stdout_style() };
        render(&closing::screen(&self.summary, &options), plain)
    }

    /// Metrics of the run and all those before it, of whatever kind.
    fn metrics(&self) -> String {
        let this = entry::of(&self.summary);
        let before = Filter { before: this.as_ref().map(|this| this.run), ..Filter::default() };
        let history = history(self.state_dir);
        let mut metrics = prometheus::Metrics::default();
        for mut run in known(history.as_ref(), &before, usize::MAX) {
            let builds = history.as_ref().and_then(|history| history.builds(run.run).ok());
            run.builds = builds.unwrap_or_default();
            metrics.add(&run);
        }
        this.iter().for_each(|this| metrics.add(this));
        metrics.text()
    }

    /// All that is known of a run: its record, its logs, and it in every format. The record knows no secrets; what a
    /// build says in its log is the build's.
    fn archive(&self) -> Result<Vec<u8>> {
        let cannot =
            |error: std::io::Error| Error::new(Fault::Unreachable, format!("cannot put the run together: {error}"));
        let name = format!("drover-{}", self.run.short);
        let mut archive = Archive::new(Vec::new());
        for (file, format) in IN_ZIP {
            archive.add(&format!("{name}/{file}"), self.text(format)?.as_bytes()).map_err(cannot)?;
        }
        for file in self.run.dir.files() {
            let Ok(below) = file.strip_prefix(self.run.dir.path()) else { continue };
            let bytes = std::fs::read(&file).map_err(cannot)?;
            archive.add(&format!("{name}/{}", below.display()), &bytes).map_err(cannot)?;
        }
        archive.finish().map_err(cannot)
    }
}

/// The page for a browser.
pub(super) fn page(summary: &Summary, state_dir: &Path) -> Result<String> {
    html::page(summary, &earlier(summary, state_dir)).map_err(|error| bug("the page", &error))
}

/// Comparable runs before one, the oldest first.
pub(super) fn earlier(summary: &Summary, state_dir: &Path) -> Vec<Entry> {
    let Some(this) = entry::of(summary) else { return Vec::new() };
    let same = Filter { series: Some(this.series()), before: Some(this.run), ..Filter::default() };
    known(history(state_dir).as_ref(), &same, EARLIER)
}

/// What is known of comparable runs before one, and of the last of its base.
pub(super) fn before(summary: &Summary, state_dir: &Path) -> Before {
    let (Some(this), Some(history)) = (entry::of(summary), history(state_dir)) else { return Before::default() };
    let same = Filter { series: Some(this.series()), before: Some(this.run), ..Filter::default() };
    let usual = html::usual(&known(Some(&history), &same, EARLIER));
    let rev = summary.base.as_ref().and_then(|base| base.rev.as_deref());
    let of_base = |rev: &str| -> Option<Entry> {
        let runs = known(Some(&history), &same, EARLIER);
        let run = runs.into_iter().rev().find(|run| run.rev.as_deref() == Some(rev))?.run;
        history.entry(run, Depth::Attrs).ok().flatten()
    };
    Before { usual, base: rev.and_then(of_base) }
}

/// The history, where there is one. A run is told of also without.
fn history(state_dir: &Path) -> Option<History> {
    let there = History::path_in(state_dir).exists();
    let opened = there.then(|| History::open(state_dir))?;
    opened.inspect_err(|error| tracing::warn!(%error, "cannot open the history")).ok()
}

/// Runs that it knows, the oldest first, without their attrs and builds.
fn known(history: Option<&History>, filter: &Filter, limit: usize) -> Vec<Entry> {
    let Some(history) = history else { return Vec::new() };
    let entries = history.entries(filter, Depth::Numbers, limit);
    let mut entries =
        entries.inspect_err(|error| tracing::warn!(%error, "cannot read the history")).unwrap_or_default();
    entries.reverse();
    entries
}

/// Sends a run to a collector, as a part of this trace.
pub(super) fn tell(collector: &Collector, summary: &Summary, parent: Option<&str>) -> Result<()> {
    let parent = parent.and_then(otlp::Parent::of);
    run::block_on(telling::tell(collector, &otlp::documents(summary, parent.as_ref())))
}

/// JSON for machines: in one line.
fn compact(document: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string(document).map_err(|error| bug("JSON", &error))?;
    Ok(format!("{}\n", harmless::json(&text)))
}

fn bug(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::new(Fault::Bug, format!("cannot write {what}: {why}"))
}
