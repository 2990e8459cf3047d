//! What a check makes of an answer: which findings count, and what is built.

use crate::eval::list;
use crate::eval::{Answer, EvalMsg};
use crate::id::{AttrId, AttrPath};

use super::{Driver, Mode};

impl Driver {
    /// What Nix does not refuse counts where somebody wants it to: with `--strict`, and of what is to be built.
    pub(super) fn judged(&self, message: EvalMsg) -> EvalMsg {
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
    /// at its word: what it offers for a system has to be built there.
    pub(super) fn may_leave_out(&self, attr: AttrId, path: &AttrPath) -> bool {
        self.mode != Mode::Check || (self.is_built(attr) && list::system_of(path).is_none())
    }
}
