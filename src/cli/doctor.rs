//! `drover doctor`: gathers facts about this environment, all at once and each within a bounded time, and prints what
//! `report::doctor` makes of them. `--show-config` prints the settings in force instead.
//!
//! | file | gathers |
//! |---|---|
//! | `scene` | words, drover.toml, where the flake is |
//! | `nix` | the nix commands, the store, trust |
//! | `builders` | builders besides the local store |
//! | `caches` | caches, logins, keys |
//! | `place` | flake, git, disks, directories |
//! | `show` | the settings for `--show-config` |

mod builders;
mod caches;
mod nix;
mod place;
mod progress;
mod scene;
mod show;

use crate::config::public_url;
use crate::error::{Error, Fault, Result, exit_code, without_numbers};
use crate::report::doctor::{Checked, Facts, Trouble, examine, screen};
use crate::report::text;

use super::args::{DoctorArgs, Place};
use super::{Session, print, print_json};

use progress::Progress;
use scene::Scene;

/// Seconds that one look may take: a machine that is busy is none that is broken.
const PATIENCE: u64 = 30;

/// `drover doctor`.
pub(super) fn doctor(session: &Session, args: DoctorArgs, place: &Place) -> Result<u8> {
    let (json, show_config) = (args.json, args.show_config);
    let words = args.words(place);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Fault::Unreachable, format!("cannot start: {error}")))?;
    if show_config {
        return runtime.block_on(show::show(session, words, json));
    }
    let scene = Scene::new(session, words);
    let progress = Progress::default();
    let facts = runtime.block_on(progress.show(session, gather(&scene, &progress)));
    // A look that did not end in time must not keep the process.
    runtime.shutdown_background();
    let report = examine(&facts);
    if json {
        print_json(&report)?;
    } else {
        print(text::render(&screen(&report, session.width()), session.stdout_style()).as_bytes())?;
    }
    Ok(if report.ok { 0 } else { exit_code(&[Fault::Build]) })
}

/// Looks at everything, at the same time where one look does not need another.
async fn gather(scene: &Scene<'_>, progress: &Progress) -> Facts {
    let nix = async {
        let asked = nix::ask(scene, progress).await;
        let open = nix::open(scene, &asked, progress).await;
        let (caches, builders) =
            tokio::join!(caches::look(scene, &asked, &open, progress), builders::look(scene, &asked, &open, progress));
        (asked, open, caches, builders)
    };
    let ((asked, open, caches, builders), flake, git) =
        tokio::join!(nix, place::flake(scene, progress), place::git(scene, progress));
    let disks = progress.blocking("disks", place::rooms(scene, &asked, &open)).await.unwrap_or_default();
    let state_dir = scene.settings.as_ref().map(|settings| settings.output.state_dir.clone());
    let shared = scene.settings.as_ref().and_then(|settings| settings.share.url.as_deref()).map(public_url);
    let state = progress.blocking("state", place::state(state_dir, shared)).await.unwrap_or_default();
    Facts {
        nix: asked.facts(scene),
        store: open.facts,
        hung_up_on: open.hung_up_on,
        nix_conf: scene.nix_conf.display().to_string(),
        nixos: scene.nixos,
        linux: cfg!(target_os = "linux"),
        config: scene.config.clone(),
        flake,
        git,
        netrc: asked.netrc(scene),
        builders: builders.builders,
        builders_wrong: builders.wrong,
        passed_over: scene.settings.as_ref().map(|settings| settings.farm.passed_over.clone()).unwrap_or_default(),
        unchecked_hosts: builders.unchecked_hosts,
        keys: caches.keys,
        caches: caches.caches,
        offline: scene.settings.as_ref().is_some_and(|settings| settings.offline),
        disks,
        state,
        tmp: place::tmp(scene),
    }
}

/// An error of the edge as a fact.
fn trouble(error: impl Into<Error>) -> Trouble {
    let error = error.into();
    Trouble { message: without_numbers(&error.message), fix: error.hint.unwrap_or_default() }
}

/// A result that came in time, or did not.
fn checked<T>(answer: Option<std::result::Result<T, Trouble>>) -> Checked<T> {
    match answer {
        None => Checked::Silent(PATIENCE),
        Some(Err(trouble)) => Checked::Failed(trouble),
        Some(Ok(found)) => Checked::Found(found),
    }
}
