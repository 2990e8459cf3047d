//! From what is known of drvs to the final word on each attr.

use crate::diff::plan::Decision;
use crate::event::{DrvOutcome, Fact, Failure, STOPPED, Status};
use crate::id::{AttrId, DrvId, StorePath};
use crate::sched::Input as SchedInput;

use super::building::Ended;
use super::pushing::Why;
use super::{Driver, Mode};

/// The final word on an attr.
pub(super) struct Word<'a> {
    pub(super) status: Status,
    pub(super) reason: Option<&'a str>,
    /// The drv that is to blame.
    pub(super) root: Option<DrvId>,
}

/// What becomes of an attr whose drv ended so.
pub(super) fn word(drv: DrvId, outcome: &DrvOutcome) -> Word<'static> {
    let (status, reason, root) = match outcome {
        DrvOutcome::Built => (Status::Built, None, None),
        DrvOutcome::Fetched => (Status::Cached, None, None),
        DrvOutcome::Valid => (Status::Valid, None, None),
        DrvOutcome::Failed(_) => (Status::Failed, None, Some(drv)),
        DrvOutcome::DependencyFailed { root } => (Status::Failed, None, Some(*root)),
        DrvOutcome::Cancelled => (Status::Skipped, Some(STOPPED), None),
    };
    Word { status, reason, root }
}

/// What becomes of an attr of this status whose results were brought home, or could not be: its drv was built, so it is
/// no root of that.
pub(super) fn word_of_return(status: Status, failure: Option<&Failure>) -> Word<'_> {
    match failure {
        None => Word { status, reason: None, root: None },
        Some(failure) => Word { status: Status::Failed, reason: Some(&failure.message), root: None },
    }
}

/// Whether the outputs of an attr of this status exist.
pub(super) fn is_there(status: Status) -> bool {
    matches!(status, Status::Built | Status::Valid | Status::Cached)
}

impl Driver {
    pub(super) fn decided(&mut self, decision: Decision) {
        let run = self.mode.builds();
        let decision = self.importing.named(decision);
        match decision {
            Decision::Item { drv, .. } => {
                // An item that comes again gets its word again; but for one that comes when nothing starts any more.
                let before = self.outcomes.remove(&drv);
                self.building.need(&mut self.ctx, &self.planning, &decision, run);
                if before.is_some() && self.building.is_stopping() {
                    self.outcomes.insert(drv, DrvOutcome::Cancelled);
                }
            }
            Decision::Unreadable { drv, failure, attr } => {
                self.building.unreadable(&mut self.ctx, &self.planning.graph, drv, failure, attr);
            }
            Decision::Attr { attr, status, .. } if self.importing.is_import(attr) => {
                let (planning, outcomes) = (&mut self.planning, &self.outcomes);
                if let Some(drv) = self.importing.planned(&mut self.ctx, planning, attr, status, outcomes) {
                    self.building.release(&self.ctx, drv);
                }
            }
            Decision::Attr { attr, status, drv, builds } => {
                self.ctx.bus.emit(Fact::AttrPlanned { attr, status, drv, builds });
                self.planned(attr, status, drv);
            }
        }
    }

    /// It is known what has to be done for an attr.
    pub(super) fn planned(&mut self, attr: AttrId, status: Status, drv: Option<DrvId>) {
        let fetch = self.ctx.settings.build.download || self.ctx.settings.build.out_link.is_some();
        match (self.mode, status, drv) {
            (Mode::Run | Mode::Check, Status::Valid, _) => {
                let outputs = self.outputs_of(attr).into_iter().map(|(_, path)| path).collect();
                self.push(outputs, Why::Found);
                let drv = self.drv_of(attr);
                if !drv.is_some_and(|drv| self.comes_home(attr, drv, Status::Valid)) {
                    self.end_attr(attr, Status::Valid, None, None);
                }
            }
            (Mode::Run | Mode::Check, Status::ToFetch, _) if !fetch => {
                if self.ctx.settings.push.require_complete {
                    let outputs = self.outputs_of(attr).into_iter().map(|(_, path)| path).collect();
                    self.push(outputs, Why::Found);
                }
                self.end_attr(attr, Status::Cached, None, None);
            }
            (Mode::Plan | Mode::Matrix | Mode::Why | Mode::Affected, status, _) => {
                self.end_attr(attr, status, None, None);
            }
            (Mode::Run | Mode::Check, _, Some(drv)) => match self.outcomes.get(&drv).cloned() {
                Some(outcome) => self.end_with(attr, drv, &outcome),
                None => self.attrs.wait_for(attr, drv),
            },
            (Mode::Run | Mode::Check, status, None) => self.end_attr(attr, status, None, None),
        }
    }

    /// A drv has its final word: its outputs are held and pushed, its attrs end.
    pub(super) fn drv_ended(&mut self, ended: Ended) {
        self.importing.drv_ended(&mut self.ctx, &self.planning, &ended, &self.outcomes);
        let Ended { drv, outcome, outputs } = ended;
        let fetched = self.ctx.settings.push.require_complete && outcome == DrvOutcome::Fetched;
        if matches!(outcome, DrvOutcome::Built | DrvOutcome::Valid) || fetched {
            self.push(outputs, if outcome == DrvOutcome::Built { Why::Built } else { Why::Found });
        }
        for attr in self.attrs.ended_with(drv) {
            self.end_with(attr, drv, &outcome);
        }
        self.outcomes.insert(drv, outcome);
    }

    /// Whether the results of an attr are elsewhere and come home first: then it ends when they are here.
    pub(super) fn comes_home(&mut self, attr: AttrId, drv: DrvId, status: Status) -> bool {
        if !self.ctx.is_farm {
            return false;
        }
        let outputs = self.outputs_of(attr).into_iter().map(|(_, path)| path).collect();
        self.homecoming.begin(&mut self.ctx, &self.planning, drv, outputs, (attr, status))
    }

    /// The drv of an attr.
    pub(super) fn drv_of(&self, attr: AttrId) -> Option<DrvId> {
        self.planning.graph.get(&self.attrs.get(attr)?.answer.as_ref()?.drv)
    }

    pub(super) fn end_with(&mut self, attr: AttrId, drv: DrvId, outcome: &DrvOutcome) {
        let Word { status, reason, root } = word(drv, outcome);
        if is_there(status) && self.comes_home(attr, drv, status) {
            return;
        }
        self.end_attr(attr, status, reason, root);
        let why = match (root, outcome) {
            (Some(_), DrvOutcome::Failed(failure)) => Some(failure.clone()),
            (Some(root), _) => match self.outcomes.get(&root) {
                Some(DrvOutcome::Failed(failure)) => Some(failure.clone()),
                _ => None,
            },
            (None, _) => None,
        };
        if let (Some(root), Some(failure)) = (root, why) {
            self.failed_to_build(attr, root, &failure);
        }
    }

    pub(super) fn end_attr(&mut self, attr: AttrId, status: Status, reason: Option<&str>, root: Option<DrvId>) {
        let Some(entry) = self.attrs.get_mut(attr).filter(|entry| entry.status.is_none()) else { return };
        entry.status = Some(status);
        self.checked(attr, status);
        self.ctx.bus.emit(Fact::AttrEnded { attr, status, reason: reason.map(Into::into), root });
        if root.is_some_and(|root| self.quarantines.is_enough(attr, root)) {
            self.building.tell(&self.ctx, SchedInput::Cancel(1));
        }
    }

    /// The known outputs that an attr asks for, by name.
    pub(super) fn outputs_of(&self, attr: AttrId) -> Vec<(String, StorePath)> {
        let Some(answer) = self.attrs.get(attr).and_then(|entry| entry.answer.as_ref()) else { return Vec::new() };
        let drv = self.planning.graph.get(&answer.drv);
        let path = |name: &String| {
            let evaluated = answer.outputs.get(name).cloned().flatten();
            let loaded = || self.planning.graph.output_path(drv?, name).cloned();
            let built = || self.building.output(drv?, name);
            evaluated.or_else(loaded).or_else(built)
        };
        answer.wanted.iter().filter_map(|name| Some((name.clone(), path(name)?))).collect()
    }
}
