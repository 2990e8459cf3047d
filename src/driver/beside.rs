//! `nix flake check` beside drover's own check: it runs once all else is done, and finds what was built already. A verdict
//! that is not drover's is worth a warning: one of the two is wrong.

use crate::config::CheckBuild;
use crate::eval::flake::beside::{self, Flags, OfNix};
use crate::event::{Fact, Moment};
use crate::process::ProcessError;

use super::context::Context;
use super::evaluate::Evaluation;
use super::input::Input;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    /// Nobody wants it, or it is over.
    #[default]
    Over,
    Wanted,
    /// Since then.
    Running(Moment),
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Beside {
    progress: Progress,
    /// By Nix's own rules something is wrong.
    refused: bool,
    /// Nix forbids what drover does: imports from derivations are built, and nothing else is to be.
    differs: bool,
}

impl Beside {
    /// One that is to run, if it is wanted.
    pub(super) fn new(wanted: bool) -> Self {
        Self { progress: if wanted { Progress::Wanted } else { Progress::Over }, ..Self::default() }
    }

    /// Nothing has to be waited for.
    pub(super) fn is_done(&self) -> bool {
        self.progress == Progress::Over
    }

    /// Something is wrong that Nix refuses, too.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    /// What Nix refuses from here on says nothing: the two do not do the same.
    pub(super) fn excuse(&mut self) {
        self.differs = true;
    }

    /// All else is done: it runs, once.
    pub(super) fn begin(&mut self, ctx: &mut Context, evaluation: &Evaluation) {
        if self.progress != Progress::Wanted {
            return;
        }
        let Some((options, locked)) = evaluation.source() else {
            self.progress = Progress::Over;
            return ctx.bus.warn("nothing was evaluated here, so nix flake check has not run beside it", None);
        };
        self.progress = Progress::Running(ctx.bus.now());
        let flags = Flags {
            all_systems: ctx.settings.attrs.all_systems,
            no_build: ctx.settings.check.build == CheckBuild::Nothing,
        };
        let (nix, flake, locked) = (options.nix.clone(), options.flake.clone(), locked.clone());
        ctx.tasks.start(async move { Input::NixChecked(beside::check(&nix, &flake, &locked, flags).await) });
    }

    /// It has ended.
    pub(super) fn ended(&mut self, ctx: &mut Context, said: Result<OfNix, ProcessError>) {
        let Progress::Running(since) = std::mem::take(&mut self.progress) else { return };
        let OfNix { ok, error } = match said {
            Ok(said) => said,
            Err(error) => return ctx.bus.warn(crate::error::chain(&error), None),
        };
        let seconds = ctx.bus.now().since(since);
        ctx.bus.emit(Fact::NixChecked { ok, error: error.map(Into::into), seconds });
        if ok == self.refused && !self.differs {
            let message = match ok {
                true => "drover refuses what nix flake check lets pass",
                false => "nix flake check refuses what drover lets pass",
            };
            ctx.bus.warn(message, Some("please report this, with the flake: one of the two is wrong"));
        }
    }
}
