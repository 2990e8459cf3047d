//! `drover report`: what a recorded run did, and what many did.

mod history;
mod runs;
mod slow;

use crate::error::{Error, Result};
use crate::record;
use crate::report::closing;
use crate::report::json;
use crate::report::summary::Summary;
use crate::report::text::{Style, render};

use super::args::{Format, Place, ReportArgs};
use super::{Session, print, print_json, state_dir};

/// Prints a report, or the list of runs.
pub(super) fn report(session: &Session, args: &ReportArgs, place: &Place) -> Result<u8> {
    let state_dir = state_dir(session, place.state_dir.as_deref())?;
    let plain = Style { colour: false, ascii: false, ..session.stdout_style() };
    let format = if args.json { Format::Json } else { args.format };
    let json = format == Format::Json;
    match args.run.as_str() {
        "list" => return history::list(session, &state_dir, json),
        "import" => return history::import(session, &state_dir, &args.paths, json),
        _ if !args.paths.is_empty() => {
            return Err(Error::usage(format!("a report is of one run, not of '{}' as well", args.paths[0].display()))
                .hint("drover report import PATH…    takes in what is known elsewhere"));
        }
        _ => {}
    }
    if let Some(exit) = runs::report(session, (&args.run, &args.over, json), (place, &state_dir))? {
        return Ok(exit);
    }
    let run =
        record::lookup(&state_dir, &args.run).map_err(|error| history::no_record(&state_dir, &args.run, error))?;
    if format == Format::Path {
        print(format!("{}\n", run.dir.path().display()).as_bytes())?;
        return Ok(0);
    }
    let record = record::read(&run.dir.events())?;
    if record.events.is_empty() {
        return Err(Error::usage(format!("run {} has recorded nothing", run.short)).hint("drover report list"));
    }
    let summary = Summary::of(&record.events);
    match format {
        Format::Json => print_json(&json::document(&summary))?,
        Format::Summary | Format::Path => {
            let options = closing::Options {
                width: session.width(),
                verbose: true,
                run: Some(run.short),
                report: None,
                clock: false,
            };
            print(render(&closing::screen(&summary, &options), plain).as_bytes())?;
        }
    }
    Ok(0)
}
