//! From the words of the command line to evaluated attrs: finds a recorded evaluation or locks the flake, starts the
//! evaluators, and turns their messages into facts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{EvalSettings, Settings};
use crate::diff::skip::Skip;
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::ahead::{self, Ahead, Early};
use crate::eval::budget;
use crate::eval::flake::{FlakeOptions, Locked};
use crate::eval::glob::Filter;
use crate::eval::list::LeftOut;
use crate::eval::lockfile;
use crate::eval::memory;
use crate::eval::own_config::OwnConfig;
use crate::eval::record::{self, Commit, Record};
use crate::eval::worker::Collector;
use crate::eval::{
    Ack, Answer, Budget, Checked, Cost, EvalMsg, EvalOptions, Evaluator, Expected, Import, Imports, Listed, Nix,
    Selection, What,
};
use crate::event::{Fact, LockedInput, Stage};
use crate::id::{AttrId, System};
use crate::store::local::{LocalStore, StoreOptions};

use super::base::{Answers, Asked, Progress, Search};
use super::context::Context;
use super::input::Input;
use super::recall::{Keys, Located, Recall};
use super::source::PlainFile;
use super::validity::Holding;

/// What effects of this part answer.
pub(super) enum EvalInput {
    /// The source is fixed.
    Located(std::result::Result<Box<Located>, Error>),
    /// The derivations of evaluators' answers have roots now.
    Held(Vec<Ack>),
    /// The evaluators have something to say.
    Message(EvalMsg),
    /// What was learned is with others now, or a warning.
    Shared(std::result::Result<(), String>),
}

/// Where the answers of a run come from.
pub(super) enum Source {
    /// A flake that is locked and evaluated here.
    Flake(Box<Wanted>, Arc<Recall>),
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
    /// The plain file that the flake is made for.
    file: Option<PlainFile>,
    /// Where what it says is remembered, if it is.
    recall: Option<Arc<Recall>>,
    /// The work tree is clean and this machine has not seen its commit yet.
    new: bool,
    sharing: bool,
    /// Started before anything was known, until it is known whether it is of use.
    early: Option<Early>,
    holding: Holding,
    evaluator: Option<Evaluator>,
    locked: Option<Locked>,
    keys: Keys,
    over: bool,
}

/// Whether imports from derivations are built: not if somebody forbids them, here or in Nix's own settings.
pub(super) fn imports(store: &LocalStore, settings: &Settings) -> Imports {
    let by = |by: &str| Imports::Refused { by: by.to_owned() };
    const NAME: &str = "allow-import-from-derivation";
    let said = settings.eval.options.iter().rev().find(|(name, _)| name == NAME).map(|(_, value)| value.as_str());
    match said {
        _ if settings.eval.no_ifd => by("--no-ifd"),
        Some("false") => by("--option allow-import-from-derivation false"),
        Some(_) => Imports::Built,
        None if store.settings().all.get(NAME).is_some_and(is_false) => {
            by("allow-import-from-derivation = false in nix.conf")
        }
        None => Imports::Built,
    }
}

/// A setting that is off, as Nix shows it.
fn is_false(value: &serde_json::Value) -> bool {
    value.as_bool() == Some(false)
}

/// What the rest of the driver has to know of a message.
pub(super) enum Outcome {
    /// Nothing.
    None,
    /// Attrs were listed.
    Listed(Vec<Listed>),
    /// An attr imports from a derivation.
    Import(Import),
    /// An attr is answered.
    Answered(AttrId, Answer),
    /// The flake's own file was read.
    Own(OwnConfig),
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
            Source::Flake(wanted, recall) => Self::of_flake(ctx, *wanted, recall),
            Source::Stream { evaluator, by_name } => Self {
                options: None,
                by_name,
                file: None,
                recall: None,
                new: false,
                sharing: false,
                early: None,
                holding: Holding::default(),
                evaluator: Some(evaluator),
                locked: None,
                keys: Keys::default(),
                over: false,
            },
        }
    }

    /// Starts to look for the flake.
    fn of_flake(ctx: &mut Context, wanted: Wanted, recall: Arc<Recall>) -> Self {
        let settings = &ctx.settings;
        let Looked { commit, ahead } = wanted.looked;
        let quick = commit.map(|commit| commit.key(recall.context()));
        let (begun, early) = ahead.map_or((None, None), |ahead| (Some(ahead.locking), ahead.evaluator));
        let new = quick.as_deref().is_some_and(|key| recall.locked(key).is_none());
        let options = EvalOptions {
            nix: wanted.nix,
            flake: wanted.flake,
            selection: wanted.selection,
            workers: settings.eval.workers,
            cores: cores(),
            memory_mib: settings.eval.max_memory_mib.unwrap_or(0),
            imports: imports(&ctx.store, settings),
            budget: budget(settings),
            expected: wanted.expected,
        };
        let (roots, known, asked) = (ctx.eval_roots.clone(), recall.clone(), options.clone());
        ctx.tasks.start(async move {
            let located = known.locate(&asked, quick, begun, &roots).await;
            Input::Eval(EvalInput::Located(located.map(Box::new)))
        });
        let by_name = !options.selection.names.is_empty();
        let (options, recall) = (Some(options), Some(recall));
        Self {
            options,
            by_name,
            file: wanted.file,
            recall,
            new,
            sharing: false,
            early,
            holding: Holding::default(),
            evaluator: None,
            locked: None,
            keys: Keys::default(),
            over: false,
        }
    }

    /// An error, about what people asked for.
    pub(super) fn of_file(&self, error: Error) -> Error {
        match &self.file {
            Some(file) => file.error(error),
            None => error,
        }
    }

    /// What is evaluated, and how; `None` if the answers come from elsewhere, or nothing is locked yet.
    pub(super) fn source(&self) -> Option<(&EvalOptions, &Locked)> {
        self.options.as_ref().zip(self.locked.as_ref())
    }

    /// Nobody has evaluated this commit here: most likely there is something to build.
    pub(super) fn is_new(&self) -> bool {
        self.new
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
        self.early = None;
        self.evaluator = None;
        self.end(ctx);
    }

    fn end(&mut self, ctx: &mut Context) {
        if !std::mem::replace(&mut self.over, true) {
            ctx.bus.emit(Fact::StageEnded { stage: Stage::Eval });
        }
    }

    /// Derivations have roots: their evaluators may go, and those that came meanwhile get theirs.
    pub(super) fn held(&mut self, ctx: &mut Context, acks: Vec<Ack>) {
        drop(acks);
        self.holding.held(ctx);
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

    /// The source is fixed.
    pub(super) fn tell(&self, ctx: &mut Context, located: &Located) {
        let Located { locked, recorded, warnings, .. } = located;
        let file = self.file.as_ref().map(PlainFile::name);
        ctx.bus.emit(Fact::FlakeLocked {
            original: file.unwrap_or(&locked.original).into(),
            locked: file.unwrap_or(&locked.locked_ref).into(),
            rev: locked.rev.as_deref().map(Into::into),
            dirty_files: locked.dirty,
            recorded: *recorded,
        });
        let inputs = lockfile::inputs(&locked.locks).into_iter();
        let inputs: Vec<_> = inputs.map(|(name, rev)| LockedInput { name: name.into(), rev: rev.into() }).collect();
        if !inputs.is_empty() {
            ctx.bus.emit(Fact::InputsLocked { inputs });
        }
        for warning in warnings.iter().chain(&locked.warnings) {
            if !is_about_store(warning) {
                ctx.bus.warn(warning.as_str(), None);
            }
        }
    }

    /// How a base of this source is found; `None` if it is not evaluated here.
    pub(super) fn search(
        &self,
        ctx: &Context,
        located: &Located,
        asked: Asked,
        progress: Arc<Progress>,
    ) -> Option<Search> {
        Some(Search {
            asked,
            options: self.options.clone()?,
            head: located.locked.clone(),
            recall: self.recall.clone()?,
            roots: ctx.eval_roots.clone(),
            progress,
            imports: ctx.imports.clone(),
            // The globs were read when the settings were.
            skip: Skip::new(&ctx.settings.base.skip).unwrap_or_default(),
        })
    }

    /// What another source has answered is what this one would: nothing is evaluated.
    pub(super) fn replay(&mut self, answers: Answers) {
        if self.over {
            return;
        }
        self.evaluator = Some(Evaluator::of(async move |sender| {
            let mut messages = vec![EvalMsg::Listed(eval::listed(answers.keys()))];
            let ended = answers.into_values().zip(0..);
            messages.extend(ended.map(|(answer, attr)| EvalMsg::Ended {
                attr: AttrId(attr),
                answer,
                recorded: true,
                cost: eval::memory::Cost::default(),
                ack: None,
            }));
            messages.push(EvalMsg::Finished { record: None });
            for message in messages {
                // Nobody wants to know any more.
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        }));
    }

    /// Starts the evaluators.
    pub(super) fn located(&mut self, located: Located) {
        let Some(options) = self.options.clone().filter(|_| !self.over) else { return };
        let Located { locked, record, keys, .. } = located;
        self.evaluator = Some(Evaluator::start_with(self.early.take(), options, locked.clone(), record));
        self.locked = Some(locked);
        self.keys = keys;
    }

    /// Turns a message into facts.
    pub(super) fn heard(&mut self, ctx: &mut Context, message: EvalMsg) -> Outcome {
        match message {
            EvalMsg::Listed(mut listed) => {
                if let Some(file) = &self.file {
                    listed = listed.into_iter().map(|listed| file.attr(listed)).collect();
                }
                for Listed { attr, path, kind, name } in &listed {
                    let (path, name) = (path.clone(), name.clone());
                    ctx.bus.emit(Fact::AttrListed { attr: *attr, path, kind: *kind, name });
                }
                Outcome::Listed(listed)
            }
            EvalMsg::Own(own) => Outcome::Own(own),
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
            EvalMsg::Import(import) => Outcome::Import(import),
            EvalMsg::Ended { attr, answer, recorded: _, cost, ack } => self.answered(ctx, attr, answer, cost, ack),
            EvalMsg::Trace { attr, message } => {
                ctx.bus.emit(Fact::EvalTrace { attr, message });
                Outcome::None
            }
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
                Outcome::Fatal(self.of_file(error))
            }
        }
    }

    /// An answer: its derivation gets a root before its evaluator may go.
    fn answered(&mut self, ctx: &mut Context, attr: AttrId, answer: Answer, cost: Cost, ack: Option<Ack>) -> Outcome {
        let store_dir = ctx.store_dir().as_str().to_owned();
        let evaluated = answer.evaluated(&store_dir);
        ctx.bus.emit(Fact::EvalEnded { attr, evaluated, peak: cost.peak, grown: cost.grown });
        if let (Answer::Drv(drv), Some(ack)) = (&answer, ack) {
            self.holding.hold(ctx, drv.drv.clone(), ack);
        }
        Outcome::Answered(attr, answer)
    }

    /// Stores what may be remembered, and shares it. That it cannot be stored costs time later, and nothing now.
    fn remember(&mut self, ctx: &mut Context, record: Option<Box<Record>>) {
        let (Some(record), Some(recall), Some(locked)) = (record, &self.recall, &self.locked) else { return };
        let Some(fingerprint) = self.keys.full.clone() else { return };
        let sealed = if self.keys.complete { None } else { recall.store(&fingerprint, &record) };
        recall.store_quick(&self.keys, locked);
        if let Some(sealed) = sealed {
            let recall = recall.clone();
            self.sharing = true;
            ctx.tasks.start(async move { Input::Eval(EvalInput::Shared(recall.share(&fingerprint, sealed).await)) });
        }
    }

    /// Says what came up while a base was looked for.
    pub(super) fn tell_notes(&self, ctx: &mut Context) {
        let notes = self.recall.iter().flat_map(|recall| recall.take_notes());
        notes.for_each(|note| ctx.bus.warn(note, None));
    }

    /// What was learned is on its way to others; a run waits for that.
    pub(super) fn is_sharing(&self) -> bool {
        self.sharing
    }

    /// It is there, or why not.
    pub(super) fn shared(&mut self, ctx: &mut Context, shared: std::result::Result<(), String>) {
        self.sharing = false;
        if let Err(why) = shared {
            ctx.bus.warn(why, None);
        }
    }
}

/// What is to be evaluated.
pub(super) struct Wanted {
    flake: FlakeOptions,
    /// The plain file that it is made for.
    file: Option<PlainFile>,
    selection: Selection,
    nix: Nix,
    /// What is known before Nix has said anything.
    looked: Looked,
    /// What earlier runs say about attrs.
    expected: Arc<Expected>,
}

/// What a look at the work tree gave.
#[derive(Default)]
pub(super) struct Looked {
    /// The clean work tree that it is, if it is one.
    commit: Option<Commit>,
    /// What was begun, unless an earlier run knows the commit.
    ahead: Option<Ahead>,
}

/// Whether Nix may have to make the store first. Processes that do so at once get in each other's way: one reads the
/// schema that another is about to write, and finds it corrupt.
fn is_store_new(settings: &Settings) -> bool {
    let state_dir = match settings.store.as_deref() {
        Some(root) if root.starts_with('/') => Path::new(root).join("nix/var/nix"),
        None | Some("auto" | "daemon" | "local") => {
            settings.nix_state_dir.clone().unwrap_or_else(|| PathBuf::from("/nix/var/nix"))
        }
        Some(_) => return true,
    };
    let schema = std::fs::metadata(state_dir.join("db/schema"));
    !schema.is_ok_and(|schema| schema.len() > 0) && !state_dir.join("daemon-socket/socket").exists()
}

/// Cores of this machine.
fn cores() -> u32 {
    std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
}

/// What all evaluators may hold together.
fn budget(settings: &Settings) -> Budget {
    Budget::least(settings.eval.memory, memory::room())
}

/// How a flake is locked and evaluated.
pub(super) fn flake_options(reference: String, eval: &EvalSettings) -> FlakeOptions {
    FlakeOptions {
        reference,
        overrides: eval.override_inputs.clone(),
        reference_lock_file: eval.reference_lock_file.clone(),
        no_update_lock_file: eval.no_update_lock_file,
        impure: eval.impure,
        masked: false,
    }
}

/// Takes WHAT apart: the flake and the selection, without a look at either.
pub(super) fn wanted(settings: &Settings, options: &StoreOptions) -> Result<Wanted> {
    let attrs = &settings.attrs;
    // Read again where it is used; what is wrong with it is said before anything begins.
    Filter::new(&attrs.only, &attrs.exclude)?;
    if let Some(file) = PlainFile::of(settings)? {
        let (flake, selection) = (file.flake(), file.selection(settings)?);
        let nix = nix(options, settings);
        return Ok(Wanted {
            flake,
            file: Some(file),
            selection,
            nix,
            looked: Looked::default(),
            expected: Arc::default(),
        });
    }
    let what = What::parse(&attrs.what, |word| PathBuf::from(word).join("flake.nix").exists())?;
    let flake = flake_options(what.flake, &settings.eval);
    let selection = Selection {
        names: what.names,
        kinds: attrs.kinds.clone().unwrap_or_default(),
        systems: None,
        only: attrs.only.clone(),
        exclude: attrs.exclude.clone(),
        check: None,
    };
    let nix = nix(options, settings);
    Ok(Wanted { flake, file: None, selection, nix, looked: Looked::default(), expected: Arc::default() })
}

impl Wanted {
    /// Looks at the work tree, and begins what needs no more than that. Nix need not have said anything, so it can happen
    /// while the store is opened.
    pub(super) async fn look(&self, settings: &Settings) -> Looked {
        let (state_dir, tree) = (&settings.output.state_dir, record::work_tree(&self.flake, Path::new(".")));
        let may_begin = !is_store_new(settings);
        let seems_new = tree.as_ref().is_some_and(|tree| settings.refresh || tree.seems_new(state_dir));
        // Not even git is waited for.
        let early = if seems_new && may_begin { self.begin(settings, true) } else { None };
        let commit = match tree {
            Some(tree) => tree.commit(&self.nix).await,
            None => None,
        };
        let is_familiar = commit.as_ref().is_some_and(|commit| commit.is_familiar(state_dir));
        if (is_familiar && !settings.refresh) || !may_begin {
            return Looked { commit, ahead: None };
        }
        let guess = commit.as_ref().and_then(Commit::guess);
        let ahead = match early.or_else(|| self.begin(settings, guess.is_some())) {
            Some(ahead) => Some(ahead.expect(guess).await),
            None => None,
        };
        Looked { commit, ahead }
    }

    /// Begins what needs no more than the reference.
    fn begin(&self, settings: &Settings, evaluator: bool) -> Option<Ahead> {
        let budget = budget(settings);
        let markers = budget::markers(settings.eval.workers, cores(), &budget);
        let collector = Collector { heap: budget.bytes, markers };
        ahead::begin(&self.nix, &self.flake, evaluator.then_some(collector))
    }

    /// All that the flake offers is checked; Nix looks at what is for `own` only, or at all systems.
    pub(super) fn check(&mut self, own: Option<System>) {
        self.selection.kinds.clear();
        self.selection.check = Some(Checked { system: own });
    }

    /// With what history says about attrs.
    pub(super) fn expecting(mut self, expected: Expected) -> Self {
        self.expected = Arc::new(expected);
        self
    }

    /// With what [`Wanted::look`] gave, and with the systems that some builder can build, where no others were
    /// asked for.
    pub(super) fn on(mut self, looked: Looked, settings: &Settings, buildable: Vec<System>) -> Self {
        self.looked = looked;
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
pub(super) fn nix(options: &StoreOptions, settings: &Settings) -> Nix {
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
