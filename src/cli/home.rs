//! Bare `drover`: where am I, what next. No evaluation and no network.

use std::path::{Path, PathBuf};

use crate::config::{File, Settings, Words, builders};
use crate::error::{Error, Fault, Result};
use crate::eval::git::{self, Look};
use crate::eval::{FlakeOptions, Nix};
use crate::id::AttrId;
use crate::record;
use crate::report::home::{Builder, Cache, Facts, LastRun, screen};
use crate::report::list::{self, Digest};
use crate::report::summary::Summary;
use crate::report::{number, text};
use crate::store::error::StoreError;
use crate::store::local::StoreOptions;
use crate::store::settings::{Installation, NixSettings};

use super::args::Place;
use super::{Session, print};

/// Prints the screen.
pub(super) fn home(session: &Session, place: &Place) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Fault::Unreachable, format!("cannot start: {error}")))?;
    let facts = runtime.block_on(gather(session, place));
    print(text::render(&screen(&facts, session.width()), session.stdout_style()).as_bytes())?;
    Ok(0)
}

pub(super) async fn gather(session: &Session, place: &Place) -> Facts {
    let mut facts = Facts { drover: env!("CARGO_PKG_VERSION").to_owned(), ..Facts::default() };
    let flake = flake_here();
    let options = StoreOptions { store: place.store.clone(), ..StoreOptions::default() };
    let nix = Nix::default();
    let tree = async {
        match &flake {
            Some(dir) => git::status(&nix, dir, Look::Tracked).await,
            None => None,
        }
    };
    let (installation, settings, tree) =
        tokio::join!(Installation::ask(options.cmd("nix")), NixSettings::ask(options.cmd("nix")), tree);
    match installation {
        Ok(installation) => facts.nix = Some(installation.version.text),
        Err(error) => {
            if let StoreError::TooOld { version } = &error {
                facts.nix = Some(format!("{version}, too old"));
            }
            trouble(&mut facts, Error::from(error));
        }
    }
    let settings = match settings {
        Ok(settings) => Some(settings),
        Err(error) if facts.troubles.is_empty() => {
            trouble(&mut facts, Error::from(error));
            None
        }
        Err(_) => None,
    };
    let settings = settings.filter(|_| facts.troubles.is_empty());
    if let Some(dir) = &flake {
        let scheme = if tree.is_some() { "git+file://" } else { "path:" };
        facts.flake = Some(format!("{scheme}{}", dir.display()));
        facts.dirty_files = tree.map(|tree| tree.changed);
    }
    let file = File::in_dir(flake.as_deref().unwrap_or(Path::new("."))).unwrap_or_else(|error| {
        trouble(&mut facts, Error::from(error));
        File::default()
    });
    let words = Words { state_dir: place.state_dir.clone(), ..Words::default() };
    match Settings::resolve(words, &session.env, file) {
        Ok(ours) => configured(&mut facts, &ours, settings.as_ref(), session),
        Err(error) => trouble(&mut facts, error),
    }
    facts
}

/// The directory of the flake that Nix would take from here.
pub(super) fn flake_here() -> Option<PathBuf> {
    let here = std::path::absolute(FlakeOptions::default().reference).or_else(|_| std::env::current_dir()).ok()?;
    git::find_up(&here, "flake.nix")
}

fn trouble(facts: &mut Facts, error: Error) {
    facts.troubles.push((error.message, error.hint.unwrap_or_default()));
}

/// What settings and Nix say of builders and caches, and what the last run left.
fn configured(facts: &mut Facts, ours: &Settings, nix: Option<&NixSettings>, session: &Session) {
    if let Some(nix) = nix {
        let cores = std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok());
        let jobs = nix.max_jobs.and_then(|jobs| u32::try_from(jobs).ok()).or(cores);
        facts.builders.push(Builder {
            name: "local".to_owned(),
            slots: ours.build.max_jobs.or(jobs),
            systems: nix.systems().into_iter().filter(|system| !system.is_level()).map(|system| system.0).collect(),
        });
        other_builders(facts, ours, nix);
        let substituters = nix.substituters.iter().filter(|_| nix.substitute);
        facts.caches.extend(substituters.map(|url| Cache { name: host(url), pull: true, push: false }));
        facts.caches_from = Some("nix.conf".to_owned());
    }
    facts.caches.extend(ours.caches.iter().map(|cache| Cache {
        name: cache.name.clone().unwrap_or_else(|| host(&cache.url)),
        pull: cache.name.is_some(),
        push: cache.push.is_now(),
    }));
    last_run(facts, &ours.output.state_dir, session);
}

/// Builders besides the local store, and where they are said.
fn other_builders(facts: &mut Facts, ours: &Settings, nix: &NixSettings) {
    match builders::all(ours, &nix.builders, builders::read) {
        Ok(found) => {
            let mut places: Vec<&str> = found.iter().map(|builder| place(&builder.named_in)).collect();
            places.dedup();
            facts.builders_from = Some(places.join(", ")).filter(|places| !places.is_empty());
            // What is said of the local store as a builder is the local store's.
            let (own, others): (Vec<_>, Vec<_>) = found.into_iter().partition(builders::BuilderSettings::is_local);
            if let (Some(own), Some(local)) = (own.first(), facts.builders.first_mut()) {
                local.slots = ours.build.max_jobs.or(own.max_jobs).or(local.slots);
            }
            facts.builders.retain(|local| local.slots != Some(0) || others.is_empty());
            facts.builders.extend(others.into_iter().map(|builder| Builder {
                name: builder.name,
                slots: builder.max_jobs,
                systems: builder.systems.unwrap_or_default().into_iter().map(|system| system.0).collect(),
            }));
        }
        Err(error) => trouble(facts, error),
    }
}

/// Where a builder is said, without the line.
fn place(named_in: &str) -> &str {
    named_in.rsplit_once(':').filter(|(_, line)| line.parse::<u32>().is_ok()).map_or(named_in, |(file, _)| file)
}

/// The host of a URL, or its path.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or(rest);
    rest.split('/').find(|part| !part.is_empty()).filter(|_| !rest.starts_with('/')).unwrap_or(rest).to_owned()
}

/// The last run of this flake, and the names that the last one of the whole flake found.
fn last_run(facts: &mut Facts, state_dir: &Path, session: &Session) {
    let runs = record::list(state_dir).unwrap_or_default();
    let here = |digest: &Digest| digest.attrs > 0 && digest.flake.is_some() && digest.flake == facts.flake;
    let mut of_here = runs.iter().filter_map(|run| Some((run, run.dir.load::<Digest>(list::FILE).filter(here)?)));
    let (mut last, mut whole) = (None, None);
    while let (true, Some((run, digest))) = (last.is_none() || whole.is_none(), of_here.next()) {
        if whole.is_none() && digest.what.is_empty() {
            whole = Some(run);
        }
        if last.is_none() && digest.command == "run" {
            last = Some((run, digest));
        }
    }
    drop(of_here);
    facts.last = last.map(|(run, digest)| LastRun {
        run: run.short.clone(),
        ago: number::ago(session.clock.started.duration_since(digest.started).as_secs()),
        seconds: digest.exit.map(|_| digest.seconds),
        verdict: digest.verdict,
        failed: digest.exit.is_some_and(|exit| exit != 0),
        unpushed: digest.exit == Some(5),
    });
    let Some(Ok(record)) = whole.map(|run| record::read(&run.dir.events())) else { return };
    let summary = Summary::of(&record.events);
    let taken = summary.taken();
    facts.attrs = summary.kinds(|attr: AttrId| taken.contains(&attr));
    facts.attrs_from =
        summary.flake.as_ref().and_then(|flake| flake.rev.as_deref()).map(|rev| rev[..7.min(rev.len())].to_owned());
    let host = summary.attrs.values().find(|attr| attr.kind == crate::id::Kind::NixosConfigurations);
    facts.example = host.map(|attr| attr.name.to_string());
}
