//! `drover affected`: the attrs that differ from a base, one a line.

use crate::driver::{self, Finished, Mode};
use crate::error::Result;
use crate::report::affected;

use super::args::{AffectedArgs, Place};
use super::audit;
use super::run::{block_on, check, request, settings};
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
    let Finished { summary, exit, .. } = block_on(driver::drive(request))?;
    if json {
        print_json(&affected::document(&summary))?;
    } else {
        print_foreign(session, affected::names(&summary, hosts).as_bytes())?;
    }
    Ok(exit)
}
