//! What takes the place of a flake: a plain Nix file, or the lines of another evaluator.
//!
//! A plain file is evaluated as the one output, `file`, of a flake that is made for it and thrown away: so evaluators,
//! memory, imports and errors are the same. People see the file and the attrs in it, never that flake.

use std::path::Path;
use std::sync::Arc;

use tokio::io::BufReader;

use crate::config::{BaseSettings, Settings};
use crate::error::{Error, Fault, Result};
use crate::eval::expr;
use crate::eval::glob::Filter;
use crate::eval::jobs::{self, Jobs};
use crate::eval::lines::{self, Lines};
use crate::eval::what::Name;
use crate::eval::{Budget, Evaluator, FlakeOptions, Listed, Nix, Selection, What, budget, memory};
use crate::event::Fact;
use crate::id::AttrPath;
use crate::store::local::LocalStore;
use crate::store::settings::Version;

use super::context::Context;
use super::evaluate;

/// The output of the flake around a plain file.
const OUTPUT: &str = "file";

/// A plain file, as a flake.
#[derive(Debug, Clone)]
pub(super) struct PlainFile {
    dir: Arc<tempfile::TempDir>,
    /// The file, or `<nixpkgs>`.
    file: String,
}

impl PlainFile {
    /// What `--file` asks for, if it does.
    pub(super) fn of(settings: &Settings) -> Result<Option<Self>> {
        let eval = &settings.eval;
        let Some(file) = &eval.file else { return Ok(None) };
        let text = file.to_string_lossy();
        if text == "-" {
            return Err(Error::usage("--file cannot read standard input").hint("drover run --file FILE.nix"));
        }
        let (file, import) = if text.starts_with('<') && text.ends_with('>') {
            let safe = text[1..text.len() - 1].chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
            if !safe {
                return Err(Error::usage(format!("--file {text}: that is no search path")).hint("--file '<nixpkgs>'"));
            }
            (text.clone().into_owned(), text.into_owned())
        } else {
            let path = std::fs::canonicalize(file).map_err(|error| {
                Error::usage(format!("--file {}: {error}", file.display())).hint("drover run --file FILE.nix ATTR")
            })?;
            let path = path.to_string_lossy().into_owned();
            (path.clone(), format!("(/. + {})", expr::literal(&path)))
        };
        let written = || -> std::io::Result<tempfile::TempDir> {
            let dir = tempfile::Builder::new().prefix("drover-file-").tempdir()?;
            std::fs::write(dir.path().join("flake.nix"), flake_nix(&import, &eval.args))?;
            Ok(dir)
        };
        let dir = written()
            .map_err(|error| Error::new(Fault::Unreachable, format!("cannot write a temporary directory: {error}")))?;
        Ok(Some(Self { dir: Arc::new(dir), file }))
    }

    /// The flake around it.
    pub(super) fn flake(&self) -> FlakeOptions {
        let reference = format!("path:{}", self.dir.path().display());
        FlakeOptions { reference, impure: true, ..FlakeOptions::default() }
    }

    /// What the words ask for: attrs of the file, all of it if there are none.
    pub(super) fn selection(&self, settings: &Settings) -> Result<Selection> {
        let attrs = &settings.attrs;
        let below = |name: Name| {
            let parts = [vec![OUTPUT.to_owned()], name.path.parts().to_vec()].concat();
            Name { path: AttrPath::new(parts), ..name }
        };
        let mut names: Vec<Name> = attrs.what.iter().map(|word| Name::parse(word).map(below)).collect::<Result<_>>()?;
        if names.is_empty() {
            names.push(Name::parse(OUTPUT)?);
        }
        // A glob with a dot is held against the whole path.
        let whole = |glob: &String| if glob.contains('.') { format!("{OUTPUT}.{glob}") } else { glob.clone() };
        let only = attrs.only.iter().map(whole).collect();
        let exclude = attrs.exclude.iter().map(whole).collect();
        Ok(Selection { names, kinds: Vec::new(), systems: None, only, exclude, check: None })
    }

    /// What people see in the place of the flake.
    pub(super) fn name(&self) -> &str {
        &self.file
    }

    /// An attr of the flake as an attr of the file.
    pub(super) fn attr(&self, listed: Listed) -> Listed {
        let parts = listed.path.parts().get(1..).unwrap_or_default().to_vec();
        let file = Path::new(&self.file).file_name().map_or(self.file.clone(), |name| name.to_string_lossy().into());
        let path = AttrPath::new(if parts.is_empty() { vec![file] } else { parts });
        let name = path.to_string().into();
        Listed { path, name, ..listed }
    }

    /// An error about the flake as one about the file.
    pub(super) fn error(&self, error: Error) -> Error {
        let reference = self.flake().reference;
        let text = |text: String| {
            let text = text.replace(&reference, &self.file).replace("this flake", &self.file);
            text.replace(&format!("{OUTPUT}."), "")
        };
        Error { fault: error.fault, message: text(error.message), hint: error.hint.map(text) }
    }
}

/// A flake whose output is what the file gives, called as Nix calls it: with the arguments that it names.
fn flake_nix(import: &str, args: &[(String, String)]) -> String {
    let args: String = args.iter().map(|(name, value)| format!("    {} = {value};\n", expr::literal(name))).collect();
    format!(
        "{{\n  outputs = _: let\n    args = {{\n{args}    }};\n    value = import {import};\n    \
         call = f: f (builtins.intersectAttrs (builtins.functionArgs f) args);\n    \
         callSet = set: set.__functor set (builtins.intersectAttrs (set.__functionArgs or {{ }}) args);\n  \
         in {{\n    {OUTPUT} =\n      if builtins.isFunction value then call value\n      \
         else if builtins.isAttrs value && value ? __functor then callSet value\n      else value;\n  }};\n}}\n"
    )
}

/// What attrs are compared with: nothing where there is no flake, of which there could be another revision.
pub(super) fn base(settings: &Settings) -> Result<BaseSettings> {
    let flag = match (&settings.eval.attrs_from, &settings.eval.file) {
        _ if settings.eval.jobs => "--eval nix-eval-jobs",
        (Some(_), _) => "--attrs-from",
        (None, Some(_)) => "--file",
        (None, None) => return Ok(settings.base.clone()),
    };
    match &settings.base.asked {
        Some(_) if settings.eval.jobs => {
            Err(Error::usage(format!("--base needs drover's own evaluators, and {flag} takes their place"))
                .hint(format!("leave out --base or {flag}")))
        }
        Some(_) => Err(Error::usage(format!("--base needs a flake, and {flag} takes its place"))
            .hint(format!("leave out --base or {flag}"))),
        None => Ok(BaseSettings::default()),
    }
}

/// Lines of another evaluator, opened.
pub(super) struct Opened {
    source: BufReader<tokio::fs::File>,
    name: String,
    below: Option<AttrPath>,
    filter: Filter,
}

/// What `--attrs-from` asks for, if it does.
pub(super) async fn lines(settings: &Settings) -> Result<Option<Opened>> {
    let Some(from) = &settings.eval.attrs_from else { return Ok(None) };
    let attrs = &settings.attrs;
    let filter = Filter::new(&attrs.only, &attrs.exclude)?;
    let what = What::parse(&attrs.what, |word| Path::new(word).join("flake.nix").exists())?;
    let mut names = what.names.into_iter();
    let below = names.next().map(|name| name.path);
    if let Some(more) = names.next() {
        return Err(Error::usage(format!(
            "--attrs-from takes one name, the one that nix-eval-jobs was given, not '{}' too",
            more.text
        ))
        .hint("drover run .#checks --attrs-from FILE    and --only GLOB for some of it"));
    }
    let (path, name) = if from == "-" { ("/dev/stdin", "standard input") } else { (from.as_str(), from.as_str()) };
    let file = tokio::fs::File::open(path).await.map_err(|error| {
        Error::usage(format!("--attrs-from {from}: {error}")).hint("nix-eval-jobs --flake .#checks > FILE")
    })?;
    let (source, name) = (BufReader::new(file), name.to_owned());
    Ok(Some(Opened { source, name, below, filter }))
}

impl Opened {
    /// What answers.
    pub(super) fn evaluator(self, ctx: &mut Context) -> Evaluator {
        let Self { source, name, below, filter } = self;
        tell_source(ctx, &name);
        let (roots, store_dir) = (ctx.eval_roots.clone(), ctx.store_dir().as_str().to_owned());
        lines::evaluator(Lines { source, name, below, strict: false, filter, roots, store_dir })
    }
}

/// Says where answers come from, of which no lock is known.
fn tell_source(ctx: &mut Context, name: &str) {
    let shown: crate::event::Text = name.into();
    ctx.bus.emit(Fact::FlakeLocked {
        original: shown.clone(),
        locked: shown,
        rev: None,
        dirty_files: None,
        recorded: false,
    });
}

/// nix-eval-jobs, about to be started.
pub(super) struct Started {
    jobs: Jobs,
    filter: Filter,
}

/// What `--eval nix-eval-jobs` asks for, if it does. Its version has to be that of the Nix in force.
pub(super) async fn jobs(settings: &Settings, store: &LocalStore, nix: Nix, no_ifd: bool) -> Result<Started> {
    const PROGRAM: &str = jobs::PROGRAM;
    let (attrs, eval) = (&settings.attrs, &settings.eval);
    let filter = Filter::new(&attrs.only, &attrs.exclude)?;
    let what = What::parse(&attrs.what, |word| Path::new(word).join("flake.nix").exists())?;
    let kinds = attrs.kinds.clone().unwrap_or_default();
    let names = jobs::names(&Selection { names: what.names, kinds, ..Selection::default() })?;
    let (said, ours) = (jobs::version(&nix).await?, store.version());
    let same = Version::parse(&said).is_some_and(|its| its.release == ours.release);
    if !same {
        let (major, minor) = ours.release;
        let message = format!("{PROGRAM} is of another version than Nix {}: {said}", ours.text);
        return Err(
            Error::usage(message).hint(format!("a {PROGRAM} {major}.{minor} on PATH, or without --eval {PROGRAM}"))
        );
    }
    let flake = evaluate::flake_options(what.flake, eval);
    let budget_mib = Budget::least(eval.memory, memory::room()).bytes >> 20;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let room = if budget_mib == 0 { cores } else { budget_mib / budget::DEFAULT_MEMORY_MIB };
    let workers = eval.workers.unwrap_or_else(|| u32::try_from(cores.min(room)).unwrap_or(1)).max(1);
    let share = if budget_mib == 0 { u64::MAX } else { budget_mib / u64::from(workers) };
    let memory_mib = eval.max_memory_mib.unwrap_or(budget::DEFAULT_MEMORY_MIB.min(share)).max(1);
    Ok(Started { jobs: Jobs { nix, flake, names, workers, memory_mib, no_ifd }, filter })
}

impl Started {
    /// What answers.
    pub(super) fn evaluator(self, ctx: &mut Context) -> Evaluator {
        tell_source(ctx, &self.jobs.flake.reference);
        let (roots, store_dir) = (ctx.eval_roots.clone(), ctx.store_dir().as_str().to_owned());
        let name = jobs::PROGRAM.to_owned();
        let lines = Lines { source: (), name, below: None, strict: true, filter: self.filter, roots, store_dir };
        jobs::evaluator(self.jobs, lines)
    }
}
