//! `drover cache`: what caches hold, whether it is sound, bringing more into one and deleting from one.

mod history;
mod progress;

use std::path::PathBuf;

use tokio::sync::watch;

use crate::config::{Words, public_url};
use crate::driver::upkeep::prune::{self, PruneRequest};
use crate::driver::upkeep::verify::{self, VerifyRequest};
use crate::driver::upkeep::warm::{self, WarmRequest};
use crate::driver::upkeep::{Progress, Request, status};
use crate::driver::{Finished, Mode};
use crate::error::{Error, Fault, Result, exit_code};
use crate::event::Evaluated;
use crate::process::quote;
use crate::report::cache as screens;
use crate::report::summary::Summary;
use crate::report::text::{Line, render};

use super::args::{CacheCommand, Place, PruneArgs, StatusArgs, VerifyArgs, WarmArgs};
use super::run::{block_on, drive, settings};
use super::{Session, print, print_json, say, state_dir};

/// Hours that a push may take.
const GRACE: u32 = 24;

/// Days in seconds.
const DAY: i64 = 24 * 60 * 60;

/// `drover cache …`.
pub(super) fn cache(session: &Session, command: CacheCommand, place: &Place) -> Result<u8> {
    match command {
        CacheCommand::Status(args) => status_of(session, &args, place),
        CacheCommand::Verify(args) => verify_of(session, &args, place),
        CacheCommand::Warm(args) => warm_of(session, *args, place),
        CacheCommand::Prune(args) => prune_of(session, &args, place),
    }
}

/// What a work is given, and where it tells how far it is.
fn begin(session: &Session, words: Words) -> Result<(Request, watch::Receiver<Progress>)> {
    let (told, progress) = watch::channel(Progress::default());
    let settings = settings(session, words)?;
    let request = Request {
        settings,
        clock: session.clock,
        daemon_socket: session.env.get("NIX_DAEMON_SOCKET_PATH").map(PathBuf::from),
        progress: told,
    };
    Ok((request, progress))
}

/// Prints what was asked for.
fn answer(
    session: &Session,
    json: bool,
    document: &impl serde::Serialize,
    screen: impl Fn(usize) -> Vec<Line>,
) -> Result<()> {
    if json {
        return print_json(document);
    }
    print(render(&screen(session.width()), session.stdout_style()).as_bytes())
}

fn status_of(session: &Session, args: &StatusArgs, place: &Place) -> Result<u8> {
    let runs = history::runs(&state_dir(session, place.state_dir.as_deref())?)?;
    let (request, progress) = begin(session, args.words(place))?;
    let status = block_on(progress::show(session, &progress, status::status(request, &args.caches)))?;
    let Some(mut status) = status else { return Ok(exit_code(&[Fault::Interrupted])) };
    for cache in &mut status.caches {
        let runs = runs.iter().map(|(run, summary)| (run.short.as_str(), summary));
        cache.used = screens::status::used(runs, &cache.url);
    }
    let now = session.clock.started;
    answer(session, args.json, &status, |width| screens::status::screen(&status, now, width))?;
    let silent = status.caches.iter().any(|cache| cache.error.is_some());
    Ok(exit_code(if silent { &[Fault::Unreachable] } else { &[] }))
}

fn verify_of(session: &Session, args: &VerifyArgs, place: &Place) -> Result<u8> {
    let pushed = history::pushed(&history::runs(&state_dir(session, place.state_dir.as_deref())?)?);
    let (mut base, progress) = begin(session, args.words(place))?;
    // Nothing is to be believed because it was so once.
    base.settings.output.cache_dir = None;
    let (caches, paths, deep, repair) = (args.caches.clone(), args.path.clone(), args.deep, args.repair);
    let request = VerifyRequest { base, caches, paths, pushed, deep, repair };
    let verified = block_on(progress::show(session, &progress, verify::verify(request)))?;
    answer(session, args.json, &verified, |width| screens::verify::screen(&verified, width))?;
    let faults = [
        (verified.stopped, Fault::Interrupted),
        (verified.broken() > 0, Fault::Build),
        (verified.is_unsure(), Fault::Unreachable),
    ];
    Ok(exit_code(&faults.into_iter().filter(|(applies, _)| *applies).map(|(_, fault)| fault).collect::<Vec<_>>()))
}

fn prune_of(session: &Session, args: &PruneArgs, place: &Place) -> Result<u8> {
    if args.keep_roots.is_empty() && args.keep_days.is_none() && args.keep_last.is_none() {
        return Err(Error::usage(format!("what of {} is to be kept?", public_url(&args.cache)))
            .hint(format!("drover cache prune {} --keep-days 90 --keep-last 3", quote(&public_url(&args.cache)))));
    }
    let wanted = match args.keep_days {
        Some(days) => {
            let runs = history::runs(&state_dir(session, place.state_dir.as_deref())?)?;
            history::wanted_since(&runs, session.clock.started.as_second() - i64::from(days) * DAY)
        }
        None => Vec::new(),
    };
    let (base, progress) = begin(session, args.words(place))?;
    let request = PruneRequest {
        base,
        cache: args.cache.clone(),
        roots: args.keep_roots.clone(),
        wanted,
        days: args.keep_days,
        last: args.keep_last,
        grace: args.grace.unwrap_or(GRACE),
        delete: args.delete,
        again: again(args, place),
    };
    let pruned = block_on(progress::show(session, &progress, prune::prune(request)))?;
    answer(session, args.json, &pruned, |width| screens::prune::screen(&pruned, width))?;
    Ok(exit_code(if pruned.stopped { &[Fault::Interrupted] } else { &[] }))
}

/// The same words, and to really do it.
fn again(args: &PruneArgs, place: &Place) -> String {
    let mut words = vec!["drover cache prune".to_owned(), quote(&public_url(&args.cache))];
    let mut flag = |name: &str, value: String| words.push(format!("{name} {}", quote(&value)));
    args.keep_roots.iter().for_each(|root| flag("--keep-roots", root.display().to_string()));
    args.keep_days.iter().for_each(|days| flag("--keep-days", days.to_string()));
    args.keep_last.iter().for_each(|last| flag("--keep-last", last.to_string()));
    args.grace.iter().for_each(|grace| flag("--grace", grace.to_string()));
    place.store.iter().for_each(|store| flag("--store", store.clone()));
    place.state_dir.iter().for_each(|dir| flag("--state-dir", dir.display().to_string()));
    words.push("--delete".to_owned());
    words.join(" ")
}

/// Plans first, to know what is wanted; then copies.
fn warm_of(session: &Session, args: WarmArgs, place: &Place) -> Result<u8> {
    super::run::check(&args.select)?;
    let words = args.words(place);
    let json = words.json;
    // The plan needs no credential, and its document is not what was asked for.
    let planning = Words { push_to: Vec::new(), no_push: true, json: true, ..words.clone() };
    let (mut base, progress) = begin(session, words)?;
    base.settings.output.cache_dir = None;
    let (_, Finished { summary, exit, .. }) = drive(session, planning, Mode::Plan)?;
    if matches!(exit, 2 | 70 | 130) {
        return Ok(exit);
    }
    let besides = summary.fetches.iter().map(|fetched| fetched.path.to_string()).collect();
    let request = WarmRequest { base, wanted: wanted(&summary), besides };
    let warmed = block_on(progress::show(session, &progress, warm::warm(request)))?;
    if json {
        print_json(&warmed)?;
    } else {
        say(&screens::warm::screen(&warmed, session.width()), session.style());
    }
    let faults = [
        (warmed.stopped, Fault::Interrupted),
        (exit == exit_code(&[Fault::Eval]), Fault::Eval),
        (exit == exit_code(&[Fault::Unreachable]), Fault::Unreachable),
        (warmed.is_short(), Fault::Push),
    ];
    Ok(exit_code(&faults.into_iter().filter(|(applies, _)| *applies).map(|(_, fault)| fault).collect::<Vec<_>>()))
}

/// What attrs ask for, by their names.
fn wanted(summary: &Summary) -> std::collections::BTreeMap<String, Vec<String>> {
    let paths = |attr: &crate::report::summary::Attr| match &attr.evaluated {
        Some((_, Evaluated::Drv { outputs, .. })) => {
            Some(outputs.iter().filter_map(|output| output.path.as_ref().map(ToString::to_string)).collect())
        }
        _ => None,
    };
    let attrs = summary.taken();
    let paths = |id| paths(summary.attrs.get(id)?);
    summary.names(&attrs).into_iter().zip(&attrs).filter_map(|(name, id)| Some((name, paths(id)?))).collect()
}
