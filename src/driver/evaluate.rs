//! From the words of the command line to evaluated attrs: finds a recorded evaluation or locks the flake, starts the
//! evaluators, and turns their messages into facts.

use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::eval::flake::{self, FlakeOptions, Locked};
use crate::eval::glob::Filter;
use crate::eval::list::LeftOut;
use crate::eval::record::{self, Commit, Record};
use crate::eval::{Ack, Answer, EvalMsg, EvalOptions, Evaluator, Listed, Nix, Selection, What};
use crate::event::{Fact, Stage};
use crate::id::{AttrId, StorePath, System};
use crate::store::local::{LocalStore, StoreOptions};

use super::context::{Context, SharedRoots};
use super::input::Input;

/// What effects of this part answer.
pub(super) enum EvalInput {
    /// The source is fixed.
    Located(std::result::Result<Box<Located>, Error>),
    /// The derivations of an evaluator's answer have roots now.
    Held(Ack),
    /// The evaluators have something to say.
    Message(EvalMsg),
}

/// A source that is ready to be evaluated.
pub(super) struct Located {
    locked: Locked,
    record: Option<Record>,
    /// The record answers everything that was asked before.
    recorded: bool,
    keys: Keys,
    warnings: Vec<String>,
}

impl Located {
    /// What this commit evaluates to is known from an earlier run.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded
    }
}

/// Where the evaluation may be remembered.
#[derive(Debug, Clone, Default)]
struct Keys {
    /// Of the source.
    full: Option<String>,
    /// Of the work tree, found before locking.
    quick: Option<String>,
    /// The source is not stored under its quick key yet.
    save_quick: bool,
}

/// Where the answers of a run come from.
pub(super) enum Source {
    /// A flake that is locked and evaluated here.
    Flake(Box<Wanted>),
    /// Anything else that answers attrs. Nothing of it is recorded; a lock, if there was one, is told by whoever made it.
    Stream {
        /// What answers.
        evaluator: Evaluator,
        /// The attrs were asked for by name, so that nothing is left out for its system.
        by_name: bool,
    },
}

/// The evaluation of this run.
pub(super) struct Evaluation {
    /// How the flake is evaluated; `None` if the answers come from elsewhere.
    options: Option<EvalOptions>,
    by_name: bool,
    evaluator: Option<Evaluator>,
    locked: Option<Locked>,
    keys: Keys,
    over: bool,
}

/// Bytes that the evaluation may take if nobody says: three quarters of what this machine, or the container that it is
/// in, has. 0, no limit, where the system does not say.
fn most_memory() -> u64 {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = file("/proc/meminfo").lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .map(|path| file(path).trim().parse::<u64>().ok());
    container.into_iter().chain([machine]).flatten().min().map_or(0, |bytes| bytes / 4 * 3)
}

/// What the rest of the driver has to know of a message.
pub(super) enum Outcome {
    /// Nothing.
    None,
    /// Attrs were listed.
    Listed(Vec<Listed>),
    /// An attr is answered.
    Answered(AttrId, Answer),
    /// Attrs were left out.
    LeftOut(LeftOut),
    /// It is over.
    Over,
    /// It cannot go on.
    Fatal(Error),
}

impl Evaluation {
    /// Begins to evaluate.
    pub(super) fn begin(ctx: &mut Context, source: Source) -> Self {
        ctx.bus.emit(Fact::StageStarted { stage: Stage::Eval });
        match source {
            Source::Flake(wanted) => Self::of_flake(ctx, *wanted),
            Source::Stream { evaluator, by_name } => Self {
                options: None,
                by_name,
                evaluator: Some(evaluator),
                locked: None,
                keys: Keys::default(),
                over: false,
            },
        }
    }

    /// Starts to look for the flake.
    fn of_flake(ctx: &mut Context, wanted: Wanted) -> Self {
        let settings = &ctx.settings;
        let context = record_context(&ctx.store, settings);
        let quick = wanted.commit.map(|commit| commit.key(&context));
        let options = EvalOptions {
            nix: wanted.nix,
            flake: wanted.flake,
            selection: wanted.selection,
            workers: settings.eval.workers,
            cores: std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1),
            memory_mib: settings.eval.max_memory_mib.unwrap_or(0),
            budget: settings.eval.memory.unwrap_or_else(most_memory),
        };
        let shelf =
            Shelf { state_dir: settings.output.state_dir.clone(), context, quick, closed: settings.eval.refresh };
        let effect = locate(options.nix.clone(), options.flake.clone(), shelf, ctx.eval_roots.clone());
        ctx.tasks.start(async move { Input::Eval(EvalInput::Located(effect.await.map(Box::new))) });
        let by_name = !options.selection.names.is_empty();
        let options = Some(options);
        Self { options, by_name, evaluator: None, locked: None, keys: Keys::default(), over: false }
    }

    /// Nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The attrs were asked for by name, so that nothing is left out for its system.
    pub(super) fn by_name(&self) -> bool {
        self.by_name
    }

    /// Stops evaluating.
    pub(super) fn stop(&mut self, ctx: &mut Context) {
        self.evaluator = None;
        self.end(ctx);
    }

    fn end(&mut self, ctx: &mut Context) {
        if !std::mem::replace(&mut self.over, true) {
            ctx.bus.emit(Fact::StageEnded { stage: Stage::Eval });
        }
    }

    /// The next message of the evaluators.
    pub(super) async fn next(&mut self) -> EvalMsg {
        let message = match &mut self.evaluator {
            Some(evaluator) => evaluator.next().await,
            None => None,
        };
        match message {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// The source is fixed: starts the evaluators.
    pub(super) fn located(&mut self, ctx: &mut Context, located: Located) {
        let Some(options) = self.options.clone().filter(|_| !self.over) else { return };
        let Located { locked, record, recorded, keys, warnings } = located;
        ctx.bus.emit(Fact::FlakeLocked {
            original: locked.original.as_str().into(),
            locked: locked.locked_ref.as_str().into(),
            rev: locked.rev.as_deref().map(Into::into),
            dirty_files: locked.dirty,
            recorded,
        });
        for warning in warnings.iter().chain(&locked.warnings) {
            if !is_about_store(warning) {
                ctx.bus.warn(warning.as_str(), None);
            }
        }
        self.evaluator = Some(Evaluator::start(options, locked.clone(), record));
        self.locked = Some(locked);
        self.keys = keys;
    }

    /// Turns a message into facts.
    pub(super) fn heard(&mut self, ctx: &mut Context, message: EvalMsg) -> Outcome {
        match message {
            EvalMsg::Listed(listed) => {
                for Listed { attr, path, kind, name } in &listed {
                    let (path, name) = (path.clone(), name.clone());
                    ctx.bus.emit(Fact::AttrListed { attr: *attr, path, kind: *kind, name });
                }
                Outcome::Listed(listed)
            }
            EvalMsg::LeftOut(left_out) => Outcome::LeftOut(left_out),
            EvalMsg::WorkerReady { .. } => Outcome::None,
            EvalMsg::WorkerReplaced { worker, reason } => {
                ctx.bus.warn(format!("evaluator {worker} was replaced: {reason}"), None);
                Outcome::None
            }
            EvalMsg::Started { attr, worker } => {
                ctx.bus.emit(Fact::EvalStarted { attr, worker });
                Outcome::None
            }
            EvalMsg::Ended { attr, answer, recorded: _, ack } => self.answered(ctx, attr, answer, ack),
            EvalMsg::Warning { message, .. } if is_about_store(&message) => Outcome::None,
            EvalMsg::Warning { attr, message } => {
                ctx.bus.emit(Fact::EvalWarning { attr, message });
                Outcome::None
            }
            EvalMsg::Finished { record } => {
                self.remember(ctx, record);
                self.evaluator = None;
                self.end(ctx);
                Outcome::Over
            }
            EvalMsg::Fatal(error) => {
                self.stop(ctx);
                Outcome::Fatal(error)
            }
        }
    }

    /// An answer: its derivation gets a root before its evaluator may go.
    fn answered(&mut self, ctx: &mut Context, attr: AttrId, answer: Answer, ack: Option<Ack>) -> Outcome {
        let store_dir = ctx.store_dir().as_str().to_owned();
        ctx.bus.emit(Fact::EvalEnded { attr, evaluated: answer.evaluated(&store_dir) });
        if let (Answer::Drv(drv), Some(ack)) = (&answer, ack) {
            let (roots, path) = (ctx.eval_roots.clone(), drv.drv.clone());
            ctx.tasks.start(async move {
                // If the store cannot be reached, whatever needs the derivation says so.
                let _ = roots.lock().await.hold(&[path]).await;
                Input::Eval(EvalInput::Held(ack))
            });
        }
        Outcome::Answered(attr, answer)
    }

    /// Stores what may be remembered. That it cannot be stored costs time later, and nothing now.
    fn remember(&mut self, ctx: &Context, record: Option<Box<Record>>) {
        let (Some(mut record), Some(key), Some(locked)) = (record, &self.keys.full, &self.locked) else { return };
        let state_dir = &ctx.settings.output.state_dir;
        let mut stored = record.save(state_dir, key);
        if let (Ok(()), Some(quick), true) = (&stored, &self.keys.quick, self.keys.save_quick) {
            stored = record::save_quick(state_dir, quick, locked);
        }
        if let Err(error) = stored {
            tracing::warn!(%error, "cannot remember the evaluation");
        }
    }
}

/// What is to be evaluated.
pub(super) struct Wanted {
    flake: FlakeOptions,
    selection: Selection,
    nix: Nix,
    /// The clean work tree that it is, if it is one.
    commit: Option<Commit>,
}

/// Takes WHAT apart: the flake and the selection, without a look at either.
pub(super) fn wanted(settings: &Settings, options: &StoreOptions) -> Result<Wanted> {
    let attrs = &settings.attrs;
    // Read again where it is used; what is wrong with it is said before anything begins.
    Filter::new(&attrs.only, &attrs.exclude)?;
    let what = What::parse(&attrs.what, |word| PathBuf::from(word).join("flake.nix").exists())?;
    let eval = &settings.eval;
    let flake = FlakeOptions {
        reference: what.flake,
        overrides: eval.override_inputs.clone(),
        reference_lock_file: eval.reference_lock_file.clone(),
        no_update_lock_file: eval.no_update_lock_file,
        impure: eval.impure,
    };
    let selection = Selection {
        names: what.names,
        kinds: attrs.kinds.clone().unwrap_or_default(),
        systems: None,
        only: attrs.only.clone(),
        exclude: attrs.exclude.clone(),
    };
    Ok(Wanted { flake, selection, nix: nix(options, settings), commit: None })
}

impl Wanted {
    /// Looks at the work tree. Needs no Nix, so it can happen while the store is opened.
    pub(super) async fn look(&self) -> Option<Commit> {
        record::commit(&self.nix, &self.flake, Path::new(".")).await
    }

    /// With the answer of [`Wanted::look`], and with the systems that some builder can build, where no others were
    /// asked for.
    pub(super) fn on(mut self, commit: Option<Commit>, settings: &Settings, buildable: Vec<System>) -> Self {
        self.commit = commit;
        let asked = settings.attrs.systems.clone();
        self.selection.systems = (!settings.attrs.all_systems).then(|| asked.unwrap_or(buildable));
        self
    }
}

/// What a daemon says to each untrusted client that names a store, about a setting which is for the client alone.
fn is_about_store(warning: &str) -> bool {
    warning.starts_with("ignoring the client-specified setting 'store'")
}

/// How `nix` is run for evaluating.
fn nix(options: &StoreOptions, settings: &Settings) -> Nix {
    let mut args = Vec::new();
    for (name, value) in &settings.eval.options {
        args.extend(["--option".to_owned(), name.clone(), value.clone()]);
    }
    // Not both, as `--store` and `--eval-store`: with a daemon whose root is not `/`, Nix looks for sources in the wrong
    // one (2.26.3, and 2.34.8 for a clean tree).
    if let Some(uri) = settings.eval_store.as_ref().or(settings.store.as_ref()) {
        args.extend(["--store".to_owned(), uri.clone()]);
    }
    if settings.eval.accept_flake_config {
        args.push("--accept-flake-config".to_owned());
    }
    if settings.offline {
        args.push("--offline".to_owned());
    }
    Nix {
        program: options.nix_bin.as_ref().map(|bin| bin.join("nix").into_os_string()).unwrap_or_default(),
        env: options.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        args,
        dir: None,
    }
}

/// All that an evaluation depends on besides its source.
fn record_context(store: &LocalStore, settings: &Settings) -> record::Context {
    record::Context {
        nix: store.version().text.clone(),
        settings: format!(
            "{:?}\n{}\n{:?}\n{:?}",
            store.settings().all,
            store.uri(),
            settings.eval,
            settings.eval_store
        ),
    }
}

/// Where earlier runs have stored what Nix said.
struct Shelf {
    state_dir: PathBuf,
    context: record::Context,
    quick: Option<String>,
    /// Nothing is taken from it (`--refresh`).
    closed: bool,
}

impl Shelf {
    /// What is stored under a key; something unreadable is worth a warning and as good as nothing.
    fn take<T>(
        &self,
        key: Option<&str>,
        read: impl Fn(&Path, &str) -> std::result::Result<Option<T>, record::Corrupt>,
        warnings: &mut Vec<String>,
    ) -> Option<T> {
        let key = key.filter(|_| !self.closed)?;
        read(&self.state_dir, key).unwrap_or_else(|corrupt| {
            warnings.push(corrupt.to_string());
            None
        })
    }
}

/// Finds the source and what is remembered of it.
async fn locate(nix: Nix, options: FlakeOptions, shelf: Shelf, roots: SharedRoots) -> Result<Located> {
    let mut warnings = Vec::new();
    let known = shelf.take(shelf.quick.as_deref(), record::load_quick, &mut warnings);
    let save_quick = known.is_none();
    let locked = match known {
        Some(locked) => locked,
        None => flake::lock(&nix, &options).await.map_err(flake::LockError::into_error)?,
    };
    let full = Record::may_hold(&locked, &options).then(|| record::key(&locked, &shelf.context));
    let mut record = shelf.take(full.as_deref(), Record::load, &mut warnings);
    if let Some(record) = &mut record {
        keep_what_exists(record, &roots).await?;
    }
    let recorded = record.is_some();
    Ok(Located { locked, record, recorded, keys: Keys { full, quick: shelf.quick, save_quick }, warnings })
}

/// Forgets answers whose derivations were collected. Those that exist are held from now on.
async fn keep_what_exists(record: &mut Record, roots: &SharedRoots) -> Result<()> {
    let drvs: Vec<StorePath> = record.drvs().cloned().collect();
    let valid = roots.lock().await.valid(&drvs).await.map_err(Error::from)?;
    let exists: std::collections::HashSet<&StorePath> =
        drvs.iter().zip(valid).filter(|(_, valid)| *valid).map(|(drv, _)| drv).collect();
    record.keep(|drv| exists.contains(drv));
    Ok(())
}
