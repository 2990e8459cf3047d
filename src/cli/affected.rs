//! `drover affected`: the attrs that differ from a base, one a line.

use std::path::PathBuf;

use crate::config::{File, Settings};
use crate::driver::{self, Finished, Mode, Request};
use crate::error::Result;
use crate::report::affected;
use crate::report::summary::Summary;

use super::args::{AffectedArgs, Place};
use super::audit;
use super::run::{block_on, check, config_dir, keep_digest, new_run, screen};
use super::{Session, print, print_json};

/// Prints what differs; the whole answer also where some attrs do not evaluate.
pub(super) fn affected(session: &Session, args: AffectedArgs, place: &Place) -> Result<u8> {
    check(&args.select)?;
    let (hosts, commits, words) = (args.hosts, args.audit, args.words(place));
    if let Some(commits) = commits {
        return audit::audit(session, &words, commits);
    }
    let file = File::in_dir(&config_dir(&words.what))?;
    let settings = Settings::resolve(words, &session.env, file)?;
    let json = settings.output.json;
    let run = new_run(session);
    let request = Request {
        ui: screen(session, &settings, true, run),
        settings,
        mode: Mode::Affected,
        run,
        clock: session.clock,
        daemon_socket: session.env.get("NIX_DAEMON_SOCKET_PATH").map(PathBuf::from),
    };
    let Finished { events, exit, dir, .. } = block_on(driver::drive(request))?;
    let summary = Summary::of(&events);
    keep_digest(&dir, &summary);
    if json {
        print_json(&affected::document(&summary))?;
    } else {
        print(affected::names(&summary, hosts).as_bytes())?;
    }
    Ok(exit)
}
