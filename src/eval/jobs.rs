//! nix-eval-jobs as the evaluator, where somebody asks for it: one process after the other, one for each name. Reads
//! its lines by `lines`. Does not choose it, and does not check its version: the driver does.
//!
//! It knows derivations and sets of them, and nothing of configurations or apps. What attrs import from derivations it
//! builds by itself.

use std::collections::VecDeque;
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::ChildStderr;
use tokio::sync::mpsc;

use super::flake::FlakeOptions;
use super::lines::{Lines, Seen};
use super::nix::Nix;
use super::pool::{EvalMsg, Evaluator, Gone, Stop, send};
use super::what::{Name, Selection};
use crate::error::{Error, Fault, chain};
use crate::id::Kind;
use crate::nix_compat::ansi;
use crate::process::{self, Cmd, Group};

/// The program.
pub const PROGRAM: &str = "nix-eval-jobs";
/// Lines of stderr that are kept for an error, and bytes of each.
const LAST_LINES: usize = 20;
const LINE_BYTES: u64 = 64 << 10;

/// How it is run.
#[derive(Debug, Clone)]
pub struct Jobs {
    /// The environment, and the settings of every call of `nix`.
    pub nix: Nix,
    /// The flake and how it is locked.
    pub flake: FlakeOptions,
    /// The names; see [`names`].
    pub names: Vec<Target>,
    /// Its processes.
    pub workers: u32,
    /// MiB that each may hold.
    pub memory_mib: u64,
    /// Attrs may not import from derivations.
    pub no_ifd: bool,
}

/// One name that it is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    name: Name,
    /// The flake need not have it: it is a kind.
    optional: bool,
}

/// What it is to be asked for: the names, or else the kinds.
///
/// # Errors
/// Kinds that it does not know. Without a word of anybody these are the hosts.
pub fn names(selection: &Selection) -> Result<Vec<Target>, Error> {
    let kinds = if selection.kinds.is_empty() { Kind::DEFAULT.to_vec() } else { selection.kinds.clone() };
    let targets: Vec<Target> = if selection.names.is_empty() {
        let name = |kind: Kind| Ok(Target { name: Name::parse(kind.output())?, optional: true });
        kinds.into_iter().map(name).collect::<Result<_, Error>>()?
    } else {
        selection.names.iter().map(|name| Target { name: name.clone(), optional: false }).collect()
    };
    let unknown = targets.iter().map(|target| target.name.path.kind()).find(|kind| {
        matches!(kind, Kind::NixosConfigurations | Kind::DarwinConfigurations | Kind::HomeConfigurations | Kind::Apps)
    });
    if let Some(kind) = unknown {
        let message = format!("{PROGRAM} evaluates derivations only, no {}", kind.noun(2));
        return Err(Error::usage(message).hint(format!(
            "drover run --eval {PROGRAM} .#packages .#checks    also devShells, formatter, hydraJobs; or without --eval"
        )));
    }
    if let Some(target) = targets.iter().find(|target| target.name.outputs.is_some()) {
        return Err(Error::usage(format!("{PROGRAM} takes no outputs: '{}^…'", target.name.text))
            .hint("leave out ^ and what follows, or --eval"));
    }
    Ok(targets)
}

/// What it answers. `lines` says what is taken of it; its source and the name that paths are relative to are not read.
#[must_use]
pub fn evaluator(jobs: Jobs, lines: Lines<()>) -> Evaluator {
    Evaluator::of(|sender| async move {
        let last = match stream(&jobs, lines, &sender).await {
            Ok(()) => EvalMsg::Finished { record: None },
            Err(Stop::Fatal(error)) => EvalMsg::Fatal(error),
            Err(Stop::Gone) => return,
        };
        // If nobody listens any more there is nobody to tell.
        let _ = send(&sender, last).await;
    })
}

async fn stream(jobs: &Jobs, mut lines: Lines<()>, sender: &mpsc::Sender<EvalMsg>) -> Result<(), Stop> {
    let mut seen = Seen::default();
    // What it makes stays until it is held here.
    let roots = tempfile::Builder::new()
        .prefix("drover-eval-jobs-")
        .tempdir()
        .map_err(|error| Error::new(Fault::Unreachable, format!("cannot write a temporary directory: {error}")))?;
    for target in &jobs.names {
        let cmd = jobs.cmd(target, roots.path().into());
        let mut child = cmd.spawn().map_err(|error| Error::from_chain(Fault::Unreachable, &error))?;
        let mut group = Group::of(&child);
        drop(child.stdin.take());
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else { continue };
        let here;
        (here, lines) = lines.with(BufReader::new(stdout), Some(target.name.path.clone()));
        let words = async { Ok(words(stderr, sender).await?) };
        let ((), last) = tokio::try_join!(here.read(&mut seen, sender), words)?;
        let status = child.wait().await;
        group.is_over();
        let status = status.map_err(|error| Error::new(Fault::Unreachable, format!("{PROGRAM}: {error}")))?;
        let lacks = last.iter().any(|line| line.contains("does not provide attribute"));
        let is_nothing = lacks && target.optional;
        if !status.success() && !is_nothing {
            let text = last.into_iter().collect::<Vec<_>>().join("\n");
            let message = format!("{PROGRAM} {}: {}", process::describe(status), text.trim());
            let fault = if lacks { Fault::Usage } else { Fault::Eval };
            return Err(Error::new(fault, message)
                .hint(format!(
                    "{PROGRAM} --flake {}    or without --eval {PROGRAM}",
                    process::quote(&jobs.target(target))
                ))
                .into());
        }
    }
    Ok(())
}

/// Warnings are told; the last of all other lines are kept.
async fn words(stderr: ChildStderr, sender: &mpsc::Sender<EvalMsg>) -> Result<VecDeque<String>, Gone> {
    let mut source = BufReader::new(stderr);
    let mut last = VecDeque::new();
    while let Some(line) = line(&mut source).await {
        let text = ansi::text(&line);
        if let Some(warning) =
            text.trim_end().strip_prefix("warning: ").or_else(|| text.strip_prefix("evaluation warning: "))
        {
            send(sender, EvalMsg::Warning { attr: None, message: warning.trim_end().into() }).await?;
        } else if !text.trim().is_empty() {
            last.push_back(text.trim_end().to_owned());
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
    }
    Ok(last)
}

/// The next line, or as much of it as may be; `None` at the end, or where nothing can be read any more.
async fn line(source: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = source.take(LINE_BYTES).read_until(b'\n', &mut line).await;
    read.is_ok_and(|read| read > 0).then_some(line)
}

impl Jobs {
    /// What `--flake` is given.
    fn target(&self, target: &Target) -> String {
        // Fragments are percent-encoded.
        format!("{}#{}", self.flake.reference, target.name.text.replace('%', "%25"))
    }

    fn cmd(&self, target: &Target, roots: PathBuf) -> Cmd {
        let mut cmd = self.nix.env.iter().fold(Cmd::new(PROGRAM), |cmd, (name, value)| cmd.env(name, value));
        if let Some(dir) = &self.nix.dir {
            cmd = cmd.dir(dir);
        }
        cmd = cmd.args(["--flake", &self.target(target), "--meta"]);
        cmd = cmd.args(["--workers", &self.workers.to_string(), "--max-memory-size", &self.memory_mib.to_string()]);
        cmd = cmd.arg("--gc-roots-dir").arg(roots);
        // What is below packages, checks, … is wanted whole; other sets say themselves what is to be entered.
        if !matches!(target.name.path.kind(), Kind::LegacyPackages | Kind::Other) {
            cmd = cmd.arg("--force-recurse");
        }
        for (input, reference) in &self.flake.overrides {
            cmd = cmd.args(["--override-input", input, reference]);
        }
        if let Some(file) = &self.flake.reference_lock_file {
            cmd = cmd.arg("--reference-lock-file").arg(file);
        }
        if self.flake.impure {
            cmd = cmd.arg("--impure");
        }
        cmd = cmd.args(["--option", "extra-experimental-features", "nix-command flakes"]);
        if self.no_ifd {
            cmd = cmd.args(["--option", "allow-import-from-derivation", "false"]);
        }
        for arg in &self.nix.args {
            // A flag of `nix` alone, and what it does.
            cmd = match arg.as_str() {
                "--offline" => cmd.args(["--option", "substitute", "false", "--option", "tarball-ttl", "4294967295"]),
                _ => cmd.arg(arg),
            };
        }
        cmd
    }
}

/// Whether its version is that of a Nix. Gives the line that it prints.
///
/// # Errors
/// It is not there, or does not say.
pub async fn version(nix: &Nix) -> Result<String, Error> {
    let cmd = nix.env.iter().fold(Cmd::new(PROGRAM), |cmd, (name, value)| cmd.env(name, value)).arg("--version");
    match cmd.output().await {
        Ok(said) => Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()),
        Err(error) if error.is_not_found() => Err(Error::usage(format!("--eval {PROGRAM}: there is none on PATH"))
            .hint(format!("nix shell nixpkgs#{PROGRAM}    with the minor version of your nix, or without --eval"))),
        Err(error) => Err(Error::usage(format!("--eval {PROGRAM}: {}", chain(&error))).hint("without --eval")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_cannot_evaluate_is_refused() {
        let named = |text: &str| Selection { names: vec![Name::parse(text).unwrap()], ..Selection::default() };
        let kinds = |kinds: &[Kind]| Selection { kinds: kinds.to_vec(), ..Selection::default() };
        for (selection, why) in [
            (Selection::default(), "no hosts"),
            (kinds(&[Kind::Checks, Kind::HomeConfigurations]), "no homes"),
            (named("apps.x86_64-linux.a"), "no apps"),
            (named("nixosConfigurations.web1"), "no hosts"),
            (named("packages.x86_64-linux.a^dev"), "takes no outputs"),
        ] {
            let error = names(&selection).unwrap_err();
            assert!(error.message.contains(why), "{}", error.message);
        }
        assert_eq!(names(&kinds(&[Kind::Checks, Kind::Packages])).unwrap().len(), 2);
        assert!(!names(&named("checks")).unwrap()[0].optional);
    }
}
