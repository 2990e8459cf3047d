//! `drover push`: makes caches complete, without evaluating or building anything.

use std::path::PathBuf;

use crate::config::{File, Origin, PushWhen, Settings};
use crate::driver::push::{self, PushRequest, What};
use crate::error::{Error, Result};
use crate::event::{Evaluated, Status};
use crate::record::{self, Run};
use crate::report::list::{self, Digest};
use crate::report::summary::Summary;

use super::args::{Place, PushCommand};
use super::run::{block_on, config_dir, new_run, screen, tell};
use super::{Session, state_dir};

/// Pushes paths, or what a run was about.
pub(super) fn push(session: &Session, args: &PushCommand, place: &Place) -> Result<u8> {
    let (what, flake) = if args.paths.is_empty() {
        of_run(session, args.run.as_deref().unwrap_or("last"), place)?
    } else {
        (What::Paths(args.paths.clone()), None)
    };
    // A run was configured by the file beside its flake, wherever this is started.
    let dir = config_dir(&flake.into_iter().collect::<Vec<_>>());
    let mut settings = Settings::resolve(args.words(place), &session.env, File::in_dir(&dir)?)?;
    only_asked(&mut settings);
    let output = settings.output.clone();
    let run = new_run(session);
    let request = PushRequest {
        ui: screen(session, &settings, false, run),
        settings,
        what,
        here: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
        run,
        clock: session.clock,
        daemon_socket: session.env.get("NIX_DAEMON_SOCKET_PATH").map(PathBuf::from),
    };
    tell(&output, block_on(push::push(request))?)
}

/// `--push-to` means these caches and no others.
fn only_asked(settings: &mut Settings) {
    let asked = |origin: Origin| matches!(origin, Origin::Flag | Origin::Env);
    if settings.caches.iter().any(|cache| asked(cache.origin)) {
        for cache in settings.caches.iter_mut().filter(|cache| !asked(cache.origin)) {
            cache.push = PushWhen::No;
        }
    }
}

/// What a run built or found for its attrs, and its flake.
fn of_run(session: &Session, asked: &str, place: &Place) -> Result<(What, Option<String>)> {
    let state_dir = state_dir(session, place.state_dir.as_deref())?;
    let run = match asked {
        "last" => last(record::list(&state_dir)?)?,
        asked => record::lookup(&state_dir, asked)?,
    };
    let summary = Summary::of(&record::read(&run.dir.events())?.events);
    let paths = results(&summary);
    if paths.is_empty() {
        return Err(Error::usage(format!("run {} has built and found nothing that could be pushed", run.short))
            .hint("drover report list"));
    }
    let flake = summary.flake.map(|flake| flake.original.to_string());
    Ok((What::Run { run: run.short, paths }, flake))
}

/// The last one that was a run and came to something; plans and pushes are on record too.
fn last(runs: Vec<Run>) -> Result<Run> {
    let is_run = |run: &Run| match run.dir.load::<Digest>(list::FILE) {
        Some(digest) => digest.command == "run" && digest.attrs > 0,
        // It was killed before it could leave one.
        None => record::read(&run.dir.events()).is_ok_and(|record| !results(&Summary::of(&record.events)).is_empty()),
    };
    let none = || Error::usage("there is no earlier run").hint("drover push PATH    or drover run");
    runs.into_iter().find(is_run).ok_or_else(none)
}

/// Output paths of the attrs that are fine, and of all that was built besides; or what an earlier push was asked for.
pub(super) fn results(summary: &Summary) -> Vec<String> {
    let fine = |status| matches!(status, Some(Status::Built | Status::Valid | Status::Cached));
    let attrs = summary.attrs.values().filter(|attr| fine(summary.status(attr)));
    let evaluated = attrs.filter_map(|attr| match &attr.evaluated {
        Some((_, Evaluated::Drv { outputs, .. })) => Some(outputs.iter().filter_map(|output| output.path.clone())),
        _ => None,
    });
    let built = summary.drvs.values().filter(|drv| matches!(drv.ended, Some((_, crate::event::DrvOutcome::Built))));
    let built = built.flat_map(|drv| drv.outputs.iter().filter_map(|output| output.path.clone()));
    let all = evaluated.flatten().chain(built).chain(summary.asked.iter().cloned());
    let all: std::collections::BTreeSet<_> = all.collect();
    all.into_iter().map(|path| path.to_string()).collect()
}
