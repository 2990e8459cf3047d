//! What a check makes of an answer: which findings count, and what is built.

use std::path::Path;

use crate::config::CheckBuild;
use crate::eval::findings::Finding;
use crate::eval::list;
use crate::eval::lockfile::{self, Standing};
use crate::eval::own_config::{self, OwnConfig};
use crate::eval::{Answer, EvalMsg};
use crate::event::{Fact, Status, Text};
use crate::id::{AttrId, AttrPath, Kind};
use crate::store::program;

use super::{Driver, Mode};

impl Driver {
    /// What Nix does not refuse counts where somebody wants it to: with `--strict`, and of what is to be built.
    pub(super) fn judged(&mut self, message: EvalMsg) -> EvalMsg {
        if let EvalMsg::Ended { answer: Answer::Failed(_), .. } = message {
            self.beside.refuse();
        }
        match message {
            EvalMsg::Ended { attr, answer: Answer::Finding(failure), recorded, cost, ack }
                if self.ctx.settings.check.strict || self.is_built(attr) =>
            {
                EvalMsg::Ended { attr, answer: Answer::Failed(failure), recorded, cost, ack }
            }
            message => message,
        }
    }

    /// Whether what comes of an attr is to be built: a check only looks at most of them.
    pub(super) fn is_built(&self, attr: AttrId) -> bool {
        let kind = self.attrs.get(attr).map(|entry| entry.kind);
        self.mode != Mode::Check || kind.is_some_and(|kind| self.ctx.settings.check.build.holds(kind))
    }

    /// Whether an attr may be left out for the system that its derivation turns out to be for. A check takes the flake
    /// at its word: what it offers for this machine's system has to be built here. What it offers for others is built
    /// where there is a builder.
    pub(super) fn may_leave_out(&self, attr: AttrId, path: &AttrPath) -> bool {
        self.mode != Mode::Check || (self.is_built(attr) && !self.is_own(path))
    }

    /// Whether the flake offers it for this machine's system.
    fn is_own(&self, path: &AttrPath) -> bool {
        list::system_of(path).is_some_and(|system| system == self.ctx.store.settings().system)
    }

    /// An attr has its final word. Nix builds the checks of this machine's system.
    pub(super) fn checked(&mut self, attr: AttrId, status: Status) {
        let Some(path) = self.attrs.get(attr).map(|entry| &entry.path) else { return };
        if status == Status::Failed && path.kind() == Kind::Checks && self.is_own(path) {
            self.beside.refuse();
        }
    }

    /// Something is imported from a derivation. With `--no-build` that is built all the same, which is said once; Nix
    /// would not.
    pub(super) fn imports(&mut self) {
        if self.mode != Mode::Check || self.ctx.settings.check.build != CheckBuild::Nothing || self.importing.any() {
            return;
        }
        self.beside.excuse();
        let message = "--no-build: imports from derivations are built all the same";
        self.ctx.bus.warn(message, Some("drover check --no-build --no-ifd    forbids them"));
    }

    /// Whether the programs of the apps that were built are there: only what was built says that. Results that are not on
    /// this machine are not looked at.
    pub(super) fn look_at_programs(&mut self) {
        let (Mode::Check, Some(files)) = (self.mode, self.ctx.store.physical_dir()) else { return };
        let store_dir = Path::new(self.ctx.store.store_dir().as_str());
        let apps = self.attrs.there().into_iter().filter(|attr| self.is_built(*attr));
        let wrong = |attr| {
            let entry = self.attrs.get(attr)?;
            let program = entry.answer.as_ref()?.program.as_deref()?;
            let position = entry.answer.as_ref()?.position().map(Text::from);
            Some((entry.path.to_string(), wrong_with(files, store_dir, program)?, position))
        };
        let found: Vec<_> = apps.filter_map(wrong).collect();
        for (app, message, position) in found {
            let (about, message) = (app.into(), message.into());
            self.ctx.bus.emit(Fact::FlakeFinding { about, message, position, hint: None, fails: true });
        }
    }

    /// What is wrong with the flake as a whole that Nix does not refuse: its lock, and what it asks Nix to be set to.
    pub(super) fn tell_of_flake(&mut self, own: &OwnConfig) {
        let Some((options, locked)) = self.evaluation.source() else { return };
        let standing = match locked.in_step || options.flake.changes_lock() {
            true => Standing::InStep,
            false if own.has_lock => Standing::OutOfStep,
            false => Standing::Absent,
        };
        let file = if locked.dir.is_empty() { "flake.nix".to_owned() } else { format!("{}/flake.nix", locked.dir) };
        let now = u64::try_from(self.ctx.bus.started().as_second()).unwrap_or(0);
        let mut found = lockfile::findings(&locked.locks, standing, now);
        found.extend(own_config::findings(own, &file));
        let fails = self.ctx.settings.check.strict;
        for Finding { about, message, position, hint } in found {
            self.ctx.bus.emit(Fact::FlakeFinding { about, message, position, hint, fails });
        }
    }
}

/// What is wrong with a program in the store, if its output is on this machine.
fn wrong_with(files: &Path, store_dir: &Path, program: &str) -> Option<String> {
    let path = Path::new(program);
    let output = path.strip_prefix(store_dir).ok()?.components().next()?;
    if !files.join(output).exists() {
        return None;
    }
    match program::fault(files, store_dir, path) {
        Ok(fault) => Some(format!("its program {program} {}", fault?.text())),
        Err(error) => Some(format!("cannot look at its program {program}: {error}")),
    }
}
