//! `drover affected --audit N`: holds what `[skip]` declares against what Nix says, over the last N commits. Of each
//! commit that touches only skipped paths both sides are evaluated, as by `drover affected --base`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{File, Settings, Words};
use crate::diff::skip::Skip;
use crate::driver::{self, Mode, Request};
use crate::error::{Error, Fault, Result, exit_code};
use crate::eval::git::{self, LogEntry};
use crate::eval::{Nix, What};
use crate::event::{Difference, STOPPED};
use crate::report::affected;
use crate::report::number::plural;
use crate::report::summary::Summary;
use crate::report::text::{Line, Paint};
use crate::ui::{self, Ui};

use super::run::{block_on, config_dir, new_run};
use super::{Session, print_foreign, print_json, say};

/// What an audit says.
#[derive(Serialize)]
struct Document {
    version: u32,
    /// Commits that were looked at.
    commits: usize,
    /// Those that `[skip]` would have skipped.
    skipped: Vec<Skipped>,
    exit: u8,
}

/// A commit that would have been skipped.
#[derive(Serialize)]
struct Skipped {
    commit: String,
    subject: String,
    paths: Vec<affected::Skipped>,
    /// What would have been hidden.
    hidden: Vec<affected::AttrDocument>,
}

/// Replays `[skip]` over the last commits.
pub(super) fn audit(session: &Session, words: &Words, commits: u32) -> Result<u8> {
    let dir = config_dir(&words.what);
    let settings = Settings::resolve(words.clone(), &session.env, File::in_dir(&dir)?)?;
    let skip = Skip::new(&settings.base.skip).map_err(|error| Error::usage(error.to_string()))?;
    if skip.is_empty() {
        return Err(Error::usage("there is nothing to audit: drover.toml has no [skip]")
            .hint("[skip] with paths = [\"docs/**\", \"*.md\"]    in drover.toml"));
    }
    let history = block_on(History::read(&dir, commits))?;
    let mut skipped = Vec::new();
    let mut faults = Vec::new();
    for (entry, changed) in &history.commits {
        let (Some(paths), Some(parent)) = (skip.covers(changed), &entry.parent) else { continue };
        let short = entry.commit.get(..7).unwrap_or(&entry.commit);
        say(&[Line::new().paint(Paint::Bold, "audit").text(format!("    {short} {}", entry.subject))], session.style());
        let summary = compare(session, words, &history.at(&entry.commit), parent)?;
        if summary.cancelled.is_some() {
            faults.push(Fault::Interrupted);
            break;
        }
        let document = affected::document(&summary);
        if let Some(error) = document.error {
            return Err(Error::new(Fault::Eval, format!("commit {short}: {}", error.message))
                .hint(format!("drover affected --base {parent} '{}'", history.at(&entry.commit))));
        }
        // A commit that is broken, and was before, hides nothing.
        let is_hidden = |status| !matches!(status, Difference::Unchanged | Difference::StillBroken);
        let hidden = document.attrs.into_iter().filter(|attr| is_hidden(attr.status)).collect();
        let paths = paths.into_iter().map(|(path, glob)| affected::Skipped { path, glob }).collect();
        skipped.push(Skipped { commit: entry.commit.clone(), subject: entry.subject.clone(), paths, hidden });
    }
    let wrong = skipped.iter().filter(|skipped| !skipped.hidden.is_empty()).count();
    faults.extend((wrong > 0).then_some(Fault::Build));
    let exit = exit_code(&faults);
    let document = Document { version: 1, commits: history.commits.len(), skipped, exit };
    if settings.output.json {
        print_json(&document)?;
    } else {
        print_foreign(session, lines(&document).as_bytes())?;
    }
    say(&[verdict(&document, wrong)], session.style());
    Ok(exit)
}

/// One line for each attr that would have been hidden: commit and attr.
fn lines(document: &Document) -> String {
    let hidden = document.skipped.iter().flat_map(|skipped| skipped.hidden.iter().map(move |attr| (skipped, attr)));
    hidden.map(|(skipped, attr)| format!("{} {}\n", skipped.commit.get(..7).unwrap_or_default(), attr.attr)).collect()
}

fn verdict(document: &Document, wrong: usize) -> Line {
    let looked = plural(document.commits, "commit", "commits");
    if document.exit == exit_code(&[Fault::Interrupted]) {
        return Line::new().paint(Paint::Warn, "stopped").text(format!("  {STOPPED}"));
    }
    let skipped = format!("{looked}, [skip] would have skipped {}", document.skipped.len());
    match wrong {
        0 => Line::new().paint(Paint::Good, "ok").text(format!("  {skipped} and hidden nothing")),
        n => Line::new().paint(Paint::Bad, "WRONG").text(format!("  {skipped}, and {n} of them change something")),
    }
}

/// The last commits of the repository that the flake is in.
struct History {
    root: PathBuf,
    /// Of flake.nix below the root.
    below: String,
    commits: Vec<(LogEntry, Vec<String>)>,
}

impl History {
    async fn read(dir: &Path, commits: u32) -> Result<Self> {
        let nix = Nix::default();
        let none = || {
            Error::usage(format!("{} is in no git repository, so that there are no commits to audit", dir.display()))
                .hint("drover affected --audit N    in the repository of the flake")
        };
        let dir = std::fs::canonicalize(dir).map_err(|_| none())?;
        let root = git::find_up(&dir, ".git").ok_or_else(none)?;
        let below = dir.strip_prefix(&root).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let failed = |error| Error::from_chain(Fault::Unreachable, &error).hint("git log --first-parent HEAD");
        let mut all = Vec::new();
        for entry in git::last_commits(&nix, &root, "HEAD", commits).await.map_err(failed)? {
            let changed = match &entry.parent {
                Some(parent) => git::changed_paths(&nix, &root, parent, Some(&entry.commit)).await.map_err(failed)?,
                None => Vec::new(),
            };
            all.push((entry, changed));
        }
        Ok(Self { root, below, commits: all })
    }

    /// The flake at a commit.
    fn at(&self, commit: &str) -> String {
        let escape = |text: &str| text.replace('%', "%25").replace(' ', "%20").replace('?', "%3F").replace('#', "%23");
        let dir = if self.below.is_empty() { String::new() } else { format!("&dir={}", escape(&self.below)) };
        format!("git+file://{}?rev={commit}{dir}", escape(&self.root.to_string_lossy()))
    }
}

/// What differs between two commits. Nobody watches: the line before says what goes on.
fn compare(session: &Session, words: &Words, head: &str, base: &str) -> Result<Summary> {
    let what = What::parse(&words.what, |word| Path::new(word).join("flake.nix").exists())?;
    let names = what.names.iter().map(|name| format!("{head}#{}", name.text)).collect::<Vec<_>>();
    let words = Words {
        what: if names.is_empty() { vec![head.to_owned()] } else { names },
        base: Some(base.to_owned()),
        ..words.clone()
    };
    // What is audited is not believed.
    let mut settings = Settings::resolve(words.clone(), &session.env, File::in_dir(&config_dir(&words.what))?)?;
    settings.base.skip.clear();
    let run = new_run(session);
    let shown = ui::Settings {
        marks: ui::Marks::None,
        mode: ui::Mode::Quiet,
        style: session.style(),
        width: None,
        verbose: false,
        pushes: false,
        fail_fast: false,
        run: run.short(),
        report: None,
    };
    let request = Request {
        settings,
        mode: Mode::Affected,
        run,
        clock: crate::driver::clock::Clock::start(),
        ui: Ui::new(shown, Box::new(std::io::sink())),
        daemon_socket: session.env.get("NIX_DAEMON_SOCKET_PATH").map(PathBuf::from),
    };
    Ok(Summary::of(&block_on(driver::drive(request))?.events))
}
