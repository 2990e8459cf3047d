//! `drover affected`: the attrs that differ from a base, one a line.

use crate::driver::{self, Finished, Mode};
use crate::error::Result;
use crate::report::affected;
use crate::report::summary::Summary;

use super::args::{AffectedArgs, Place};
use super::audit;
use super::run::{block_on, check, keep_digest, request, settings};
use super::{Session, print_foreign, print_json};

/// Prints what differs; the whole answer also where some attrs do not evaluate.
pub(super) fn affected(session: &Session, args: AffectedArgs, place: &Place) -> Result<u8> {
    check(&args.select)?;
    let (hosts, commits, words) = (args.hosts, args.audit, args.words(place));
    if let Some(commits) = commits {
        return audit::audit(session, &words, commits);
    }
    let settings = settings(session, words)?;
    let json = settings.output.json;
    let request = request(session, settings, Mode::Affected);
    let Finished { events, exit, dir, .. } = block_on(driver::drive(request))?;
    let summary = Summary::of(&events);
    keep_digest(&dir, &summary);
    if json {
        print_json(&affected::document(&summary))?;
    } else {
        print_foreign(session, affected::names(&summary, hosts).as_bytes())?;
    }
    Ok(exit)
}
