//! `drover report`: what a recorded run did, and what many did.

mod runs;

use crate::config::Collector;
use crate::error::{Error, Result};
use crate::record::{self, Run};
use crate::report::list::{self, Digest, Row};
use crate::report::summary::Summary;
use crate::report::text::{Style, render};

use super::args::{Format, Place, ReportArgs};
use super::forms::{self, Told};
use super::{Session, print, print_json, state_dir};

/// Prints a report, or the list of runs.
pub(super) fn report(session: &Session, args: &ReportArgs, place: &Place) -> Result<u8> {
    let state_dir = state_dir(session, place.state_dir.as_deref())?;
    let plain = Style { colour: false, ascii: false, ..session.stdout_style() };
    let format = if args.json { Format::Json } else { args.format };
    if args.run == "list" {
        let rows: Vec<Row> = record::list(&state_dir)?.iter().map(row).collect();
        if format == Format::Json {
            print_json(&list::document(&rows))?;
            return Ok(0);
        }
        let screen = list::screen(&rows, session.clock.started, session.width());
        print(render(&screen, plain).as_bytes())?;
        return Ok(0);
    }
    let json = format == Format::Json;
    if let Some(exit) = runs::report(session, (&args.run, &args.over, json), (place, &state_dir))? {
        return Ok(exit);
    }
    let run = record::lookup(&state_dir, &args.run)?;
    if format == Format::Path {
        print(format!("{}\n", run.dir.path().display()).as_bytes())?;
        return Ok(0);
    }
    let record = record::read(&run.dir.events())?;
    if record.events.is_empty() {
        return Err(Error::usage(format!("run {} has recorded nothing", run.short)).hint("drover report list"));
    }
    let told = Told { session, run: &run, summary: Summary::of(&record.events), state_dir: &state_dir };
    if let Some(endpoint) = &args.otlp_endpoint {
        forms::tell(&Collector::below(endpoint, &session.env), &told.summary, session.env.trace_parent())?;
        return Ok(0);
    }
    told.put(format, args.output.as_deref())?;
    Ok(0)
}

/// One line of the list: the digest that the run left, or, for a run that was killed, a fold of its record.
fn row(run: &Run) -> Row {
    let folded = || {
        let events = record::read(&run.dir.events()).ok()?.events;
        Digest::of(&Summary::of(&events))
    };
    Row { run: run.short.clone(), digest: run.dir.load(list::FILE).or_else(folded), live: run.dir.is_live() }
}
