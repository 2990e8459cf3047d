//! `drover run` and `drover plan`: the same run, which ends at different points.

use std::path::{Path, PathBuf};

use crate::config::{self, File, OutputSettings, ResultFile, ResultFormat, Settings, Stranger, Words};
use crate::driver::{self, Finished, Mode, Request};
use crate::error::{Error, Fault, Result};
use crate::eval::{Nix, git};
use crate::event::Status;
use crate::id::RunId;
use crate::record::{self, RunDir};
use crate::report::json;
use crate::report::junit;
use crate::report::list::{self, Digest};
use crate::report::step_summary;
use crate::report::summary::Summary;
use crate::ui::{self, Marks, Ui};

use super::args::{Place, PlanArgs, RunArgs, Select};
use super::{Session, forms, print, print_json, write_file};

/// `drover run`.
pub(super) fn run(session: &Session, args: RunArgs, place: &Place) -> Result<u8> {
    check(&args.select)?;
    let failed = args.failed;
    let mut words = args.words(place);
    if failed {
        words.what = failed_before(session, &words)?;
    }
    go(session, words, Mode::Run)
}

/// `drover plan`.
pub(super) fn plan(session: &Session, args: PlanArgs, place: &Place) -> Result<u8> {
    check(&args.select)?;
    go(session, args.words(place), Mode::Plan)
}

/// Flags that mean something else elsewhere are refused, not guessed.
pub(super) fn check(select: &Select) -> Result<()> {
    match &select.select {
        None => Ok(()),
        Some(_) => Err(Error::usage("--select takes a Nix function elsewhere; drover has no such flag")
            .hint("drover run --only GLOB --exclude GLOB --kind KIND")),
    }
}

/// A number for a run that begins now.
pub(super) fn new_run(session: &Session) -> RunId {
    RunId(ulid::Ulid::from_datetime(session.clock.started.into()))
}

/// Does it, on this thread.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Fault::Unreachable, format!("cannot start: {error}")))?;
    let done = runtime.block_on(work);
    // Blocking work that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    done
}

/// Runs, shows it, and prints what was asked for.
pub(super) fn go(session: &Session, words: Words, mode: Mode) -> Result<u8> {
    let (settings, finished) = drive(session, words, mode)?;
    tell(&settings.output, finished)
}

/// Runs, and shows it.
pub(super) fn drive(session: &Session, words: Words, mode: Mode) -> Result<(Settings, Finished)> {
    let settings = settings(session, words)?;
    let request = request(session, settings.clone(), mode);
    Ok((settings, block_on(driver::drive(request))?))
}

/// What the words mean here.
pub(super) fn settings(session: &Session, words: Words) -> Result<Settings> {
    let dir = config_dir(&words.what);
    let file = file_for(session, &dir, File::in_dir(&dir)?)?;
    Settings::resolve(words, &session.env, file)
}

/// The file that counts: in the pull request of a fork, whose author may have written it, most of it is that of the branch
/// that the request is for.
fn file_for(session: &Session, dir: &Path, file: File) -> Result<File> {
    if !session.env.is_foreign_pull_request() || file.is_only_attrs() {
        return Ok(file);
    }
    let request = session.env.pull_request();
    let (target, whole) =
        request.as_ref().map_or(("the target", "git fetch --unshallow"), |request| (&*request.target, request.whole));
    let revision = request.as_ref().and_then(|request| request.base.clone()).unwrap_or(format!("origin/{target}"));
    let base = block_on(async {
        let nix = Nix::default();
        let Some(commit) = git::commit_of(&nix, dir, &revision).await else { return Ok(None) };
        Ok(Some(git::file_at(&nix, dir, &commit, "drover.toml").await.unwrap_or_default()))
    })?;
    let base = base.map(|text| File::parse(&text, &dir.join("drover.toml"))).transpose()?;
    let stranger = Stranger { target: target.to_owned(), at_hand: base.is_some(), whole };
    Ok(file.of_stranger(base, stranger))
}

/// A run that begins now.
pub(super) fn request(session: &Session, settings: Settings, mode: Mode) -> Request {
    let run = new_run(session);
    Request {
        ui: screen(session, &settings, !mode.builds(), run),
        settings,
        mode,
        run,
        clock: session.clock,
        daemon_socket: session.env.get("NIX_DAEMON_SOCKET_PATH").map(PathBuf::from),
    }
}

/// How the run is shown.
pub(super) fn screen(session: &Session, settings: &Settings, planned: bool, run: RunId) -> Ui {
    let output = &settings.output;
    let quiet = output.json || output.print_out_paths;
    let mode = match (session.terminal.live, session.env.is_ci()) {
        (true, _) => ui::Mode::Live,
        (false, false) if planned || quiet => ui::Mode::Quiet,
        (false, _) => ui::Mode::Plain,
    };
    let shown = ui::Settings {
        mode,
        style: session.style(),
        width: session.terminal.width,
        verbose: output.verbose > 0,
        pushes: !settings.push.off,
        fail_fast: settings.build.fail_fast,
        run: record::short_id(&output.state_dir, run).unwrap_or_else(|_| run.short()),
        report: output.report.as_ref().map(|file| file.display().to_string()),
        marks: if planned { Marks::None } else { marks(session, settings) },
    };
    Ui::new(shown, Box::new(std::io::stderr()))
}

/// What is left when the screen is closed: what was asked for on stdout. The error that ended the run, if one did, has
/// been the last thing on the screen.
pub(super) fn tell(output: &OutputSettings, finished: Finished) -> Result<u8> {
    let Finished { summary, outputs, exit, .. } = finished;
    keep(output, &summary)?;
    if output.json {
        print_json(&json::document(&summary))?;
    } else if output.print_out_paths {
        print(outputs.iter().map(|path| format!("{path}\n")).collect::<String>().as_bytes())?;
    }
    Ok(exit)
}

/// What the reader of the log understands.
fn marks(session: &Session, settings: &Settings) -> Marks {
    match settings.output.forge {
        None => Marks::None,
        Some(_) if session.terminal.live => Marks::None,
        Some(forge) if forge.takes_annotations() => Marks::Annotations { root: repository() },
        Some(_) => Marks::Sections,
    }
}

/// The root of the repository that this is started in.
pub(super) fn repository() -> Option<PathBuf> {
    config::work_tree(Path::new("."))
}

/// What a run leaves outside of the state directory: a file where one was named for it, and a page for the CI system.
pub(super) fn keep(output: &OutputSettings, summary: &Summary) -> Result<()> {
    let told = summary.header.as_ref().is_some_and(|header| matches!(&*header.command, "run" | "check"));
    if let Some(file) = output.step_summary.as_ref().filter(|_| told) {
        add_page(file, summary, &output.state_dir);
    }
    if let Some(file) = output.step_output.as_ref().filter(|_| told) {
        add(file, &step_summary::outputs(summary));
    }
    if let Some(collector) = output.collector.as_ref().filter(|_| told)
        && let Err(error) = forms::tell(collector, summary, output.trace_parent.as_deref())
    {
        tracing::warn!("{}", error.message);
    }
    if let Some(file) = &output.report {
        write_page(file, &forms::page(summary, &output.state_dir)?)?;
    }
    match &output.result_file {
        None => {}
        Some(ResultFile { path, format: ResultFormat::Json }) => super::write_json(&json::document(summary), path)?,
        Some(ResultFile { path, format: ResultFormat::Junit }) => {
            let text = junit::document(summary, repository().as_deref())
                .map_err(|error| Error::new(Fault::Bug, format!("cannot write XML: {error}")))?;
            write_file(path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// Writes the page about a run, in a directory that may be new.
fn write_page(file: &Path, page: &str) -> Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(|error| {
            Error::new(Fault::Unreachable, format!("cannot make {}: {error}", dir.display()))
                .hint("drover report --format html > report.html")
        })?;
    }
    write_file(file, page.as_bytes())
}

/// Adds the page about a run to what others wrote. A run is not worse for a page that could not be written.
fn add_page(file: &Path, summary: &Summary, state_dir: &Path) {
    let before = forms::before(summary, state_dir);
    let there = std::fs::metadata(file).map_or(0, |file| usize::try_from(file.len()).unwrap_or(usize::MAX));
    let room = step_summary::MOST.saturating_sub(there);
    add(file, &step_summary::page(summary, repository().as_deref(), &before, room));
}

/// Adds to a file of the CI system.
fn add(file: &Path, text: &str) {
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
    if let Err(error) = opened.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes())) {
        tracing::warn!(%error, file = %file.display(), "the CI system is not told");
    }
}

/// Where `drover.toml` is: beside the flake that is asked for, if that is a directory here, else where Nix would look
/// for the flake.
pub(super) fn config_dir(what: &[String]) -> PathBuf {
    let named = what.first().map(|word| named_dir(word));
    named.filter(|dir| dir.join("flake.nix").exists()).unwrap_or_else(|| {
        let here = std::path::absolute(".").unwrap_or_default();
        let found = here.ancestors().find(|dir| dir.join("flake.nix").exists()).map(Path::to_owned);
        found.unwrap_or(here)
    })
}

/// The directory that a flake reference names, if it is one of this machine.
pub(super) fn named_dir(word: &str) -> PathBuf {
    let reference = word.split('#').next().unwrap_or(word);
    let (place, parameters) = reference.split_once('?').unwrap_or((reference, ""));
    let path = ["git+file://", "path:"].iter().find_map(|scheme| place.strip_prefix(scheme)).unwrap_or(place);
    let below = parameters.split('&').find_map(|parameter| parameter.strip_prefix("dir=")).unwrap_or_default();
    Path::new(path).join(below)
}

/// The attrs that failed in the last run.
fn failed_before(session: &Session, words: &Words) -> Result<Vec<String>> {
    let state_dir = super::state_dir(session, words.state_dir.as_deref())?;
    // Plans, and runs that found nothing to do because of a wrong word, are not what people mean.
    for run in record::list(&state_dir)? {
        let failed = match run.dir.load::<Digest>(list::FILE) {
            Some(digest) if digest.command == "run" && digest.attrs > 0 => failed_in(&run.dir)?,
            _ => None,
        };
        match failed {
            None => {}
            Some(failed) if failed.is_empty() => {
                let message = format!("nothing failed in the last run ({})", run.short);
                return Err(Error::usage(message).hint(format!("drover report {}", run.short)));
            }
            Some(failed) => return Ok(failed),
        }
    }
    Err(Error::usage("there is no earlier run").hint("drover run"))
}

/// The attrs that failed in a run; `None` if it came to none.
fn failed_in(dir: &RunDir) -> Result<Option<Vec<String>>> {
    let summary = Summary::of(&record::read(&dir.events())?.events);
    let failed = |status: Option<Status>| matches!(status, Some(Status::Failed | Status::EvalFailed | Status::Skipped));
    let failed =
        summary.taken().into_iter().filter_map(|id| summary.attrs.get(&id)).filter(|attr| failed(summary.status(attr)));
    // Of the flake of that run, wherever this one is started.
    let flake = summary.flake.as_ref().map_or(".", |flake| &flake.original);
    let failed = failed.map(|attr| format!("{flake}#{}", attr.path)).collect();
    Ok((!summary.attrs.is_empty()).then_some(failed))
}
