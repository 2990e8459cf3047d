//! From a located flake to attrs that are to be there: the base first, then what evaluators answer, and whether it
//! differs.

use std::sync::Arc;

use crate::eval::{Answer, DrvAnswer, EvalMsg};
use crate::event::Status;
use crate::id::{AttrId, System};

use super::base::Found;
use super::comparing::{Late, Next, Verdict};
use super::evaluate::Outcome;
use super::input::Input;
use super::recall::Located;
use super::{Driver, Mode};

impl Driver {
    /// The head is located: it is evaluated, after the base if there is to be one, so that both keep to the memory.
    pub(super) fn begin(&mut self, located: Box<Located>) {
        let asked = self.comparing.take_asked();
        let search = asked.and_then(|(asked, progress)| self.evaluation.search(&self.ctx, &located, asked, progress));
        match search.map(Arc::new) {
            None => self.evaluation.located(*located),
            Some(search) => {
                self.comparing.wait(located, search.clone());
                self.ctx.tasks.start(async move { Input::Base(search.find().await) });
            }
        }
    }

    /// The base is known, or will not be.
    pub(super) fn found(&mut self, found: Found) {
        self.evaluation.tell_notes(&mut self.ctx);
        let left_out = self.left_out_systems();
        match self.comparing.found(&mut self.ctx, found, left_out) {
            Ok(Next::Evaluate(head)) => self.evaluation.located(*head),
            Ok(Next::Replay(answers)) => self.evaluation.replay(answers),
            Ok(Next::Nothing) => {}
            Err(error) => self.fail(error),
        }
    }

    /// A message of the evaluators.
    pub(super) fn heard(&mut self, message: EvalMsg) {
        let message = self.judged(message);
        match self.evaluation.heard(&mut self.ctx, message) {
            Outcome::None => {}
            Outcome::Listed(listed) => {
                self.quarantines.listed(&mut self.ctx.bus, &listed);
                listed.iter().for_each(|listed| self.attrs.add(listed));
            }
            Outcome::Answered(attr, answer) => self.answered(attr, answer),
            Outcome::Import(import) => {
                self.imports();
                self.importing.begin(&mut self.ctx, &mut self.planning, import);
            }
            Outcome::Own(own) => self.tell_of_flake(&own),
            Outcome::LeftOut(left_out) => self.left_out.add_unlisted(left_out),
            Outcome::Over => {
                self.comparing.end(&mut self.ctx);
                let whole = self.ctx.settings.attrs.takes_all() && self.left_out.is_empty();
                self.quarantines.end(&mut self.ctx.bus, whole);
                self.left_out.tell(&mut self.ctx.bus);
            }
            Outcome::Fatal(error) => self.fail(error),
        }
    }

    /// An attr is answered. Hosts say only now for which system they are.
    pub(super) fn answered(&mut self, attr: AttrId, answer: Answer) {
        let (is_left_out, is_built) = (self.left_out_systems(), self.is_built(attr));
        let Some(entry) = self.attrs.get_mut(attr) else { return };
        let (kind, path) = (entry.kind, entry.path.clone());
        if let Answer::Drv(drv) = &answer {
            entry.answer = Some(drv.clone());
        }
        if let Answer::Drv(drv) = &answer
            && self.may_leave_out(attr, &path)
        {
            if is_left_out(&drv.system) && self.farm.may_say_more() {
                self.farm.dial(&mut self.ctx);
                return self.parked.push((attr, answer));
            }
            if is_left_out(&drv.system) {
                if !self.ctx.settings.attrs.all_systems {
                    self.left_out.add(kind, drv.system.clone());
                }
                let reason = format!("for {}, which no builder here can build", drv.system);
                return self.end_attr(attr, Status::Skipped, Some(&reason), None);
            }
        }
        let verdict = self.comparing.answered(&mut self.ctx, attr, &path, &answer);
        match (answer, verdict) {
            (Answer::Failed(_), _) => self.end_attr(attr, Status::EvalFailed, None, self.importing.root_of(attr)),
            (_, Verdict::Unaffected(reason)) => self.end_attr(attr, Status::Unaffected, reason, None),
            (Answer::Finding(_), _) => self.end_attr(attr, Status::Checked, None, None),
            (Answer::Drv(_) | Answer::Nothing(_), _) if !is_built => self.end_attr(attr, Status::Checked, None, None),
            (Answer::Nothing(reason), _) => self.end_attr(attr, Status::Valid, Some(&reason), None),
            (Answer::Drv(_), Verdict::Later) => {}
            (Answer::Drv(drv), Verdict::Affected) => self.want(attr, &drv),
        }
    }

    /// An attr is to be there.
    pub(super) fn want(&mut self, attr: AttrId, drv: &DrvAnswer) {
        match self.mode {
            // What would have to be done for it is not asked.
            Mode::Affected => self.attrs.settle(attr),
            Mode::Why if self.comparing.has_base() => self.attrs.settle(attr),
            Mode::Run | Mode::Check | Mode::Plan | Mode::Matrix | Mode::Why => {
                self.planning.want(&mut self.ctx, attr, drv);
                if let (Some(entry), Some(id)) = (self.attrs.get(attr), self.planning.graph.get(&drv.drv)) {
                    self.building.asked(&entry.path, id);
                }
            }
        }
    }

    /// It is known which attrs differ only by the revision.
    pub(super) fn only_revision(&mut self, attrs: &[AttrId]) {
        let Late { unaffected, affected } = self.comparing.only_revision(&mut self.ctx, attrs);
        for attr in unaffected {
            self.end_attr(attr, Status::Unaffected, Some("only the revision that it embeds differs"), None);
        }
        for attr in affected {
            if let Some(drv) = self.attrs.get(attr).and_then(|entry| entry.answer.clone()) {
                self.want(attr, &drv);
            }
        }
    }

    /// Whether attrs of a system are left out by default.
    pub(super) fn left_out_systems(&self) -> impl Fn(&System) -> bool + use<> {
        let wanted = &self.ctx.settings.attrs;
        // A check of all systems builds where somebody can.
        let by_default = !self.evaluation.by_name() && (!wanted.all_systems || self.mode == Mode::Check);
        let systems = wanted.systems.clone().unwrap_or_else(|| self.farm.systems(&self.ctx));
        move |system| by_default && !systems.contains(system) && system.0 != "builtin"
    }
}
