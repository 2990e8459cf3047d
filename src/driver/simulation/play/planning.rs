//! What is asked of stores and caches, and what follows from the answers.

use super::{Coming, Player, absolute, cache_id};
use crate::diff::plan::{Decision, Found, Presence, Question};
use crate::driver::building::there;
use crate::event::{DrvOutcome, Fact};
use crate::graph::Work;
use crate::id::{AttrId, BuilderId, DrvId};
use crate::sched::{Input, Item};

impl Player<'_> {
    pub(super) fn evaluated(&mut self, attr: AttrId) {
        if self.level > 0 {
            return;
        }
        self.evaluated += 1;
        let made = self.world.attrs[attr.index()];
        let drv = DrvId(u32::try_from(made).unwrap());
        let names = self.world.info(made).outputs.into_iter().map(|output| output.name).collect();
        self.planner.want(&self.graph, attr, drv, names);
    }

    pub(super) fn ask(&mut self) {
        let questions = self.planner.questions(&self.graph);
        if !questions.load.is_empty() {
            self.later(0.005, Coming::Loaded(questions.load));
        }
        if !questions.ask.is_empty() {
            self.asked += 1;
            let cached = questions.ask.iter().filter(|question| question.caches).map(|question| question.path.clone());
            self.planner.waits_for_caches(&cached.collect::<Vec<_>>());
            let slowest = self.world.caches.iter().filter(|cache| cache.pull).map(|cache| cache.latency);
            self.later(0.001 + slowest.fold(0.0, f64::max), Coming::Answered(questions.ask));
        }
    }

    pub(super) fn answered(&mut self, questions: Vec<Question>) {
        if !self.complete {
            self.later(0.1, Coming::Answered(questions));
            return;
        }
        self.asked -= 1;
        let mute = self.world.caches.iter().any(|cache| cache.pull && cache.mute);
        let found = questions.into_iter().map(|Question { path, caches }| {
            let farm = |id: BuilderId| self.posts.get(&id).is_some_and(|post| post.up);
            let there = self.stores.holders(&path).any(farm);
            let promised = self.stores.promised(self.world, &path).filter(|_| caches);
            match promised {
                _ if there => Found::new(path, Presence::Valid),
                Some(cache) => {
                    let made = self.stores.maker[&path];
                    let references = self.world.references(made).into_iter().collect();
                    let (nar_size, presence) = (self.world.made[made].bytes, Presence::Present(cache_id(cache)));
                    Found { path, presence, references, nar_size, file_size: nar_size }
                }
                None if mute && caches => Found::new(path, Presence::NoAnswer),
                None => Found::new(path, Presence::Absent),
            }
        });
        let found: Vec<Found> = found.collect();
        self.planner.answered(&self.graph, &found);
    }

    pub(super) fn decided(&mut self, decision: Decision) {
        match decision {
            Decision::Item { drv, work, inputs, attr } => {
                let before = self.outcomes.remove(&drv);
                self.need(drv, work, inputs, attr);
                if before.is_some() && self.sched.is_stopping() {
                    self.outcomes.insert(drv, DrvOutcome::Cancelled);
                }
            }
            Decision::Unreadable { drv, .. } => self.model.wrong(&format!("{drv:?} is unreadable")),
            Decision::Attr { attr, status, drv, builds } => {
                self.emit(Fact::AttrPlanned { attr, status, drv, builds });
                self.planned(attr, status, drv);
            }
        }
    }

    pub(super) fn need(&mut self, drv: DrvId, work: Work, inputs: Vec<DrvId>, attr: Option<AttrId>) {
        let made = &self.world.made[drv.index()];
        let info = self.world.info(drv.index());
        self.emit(Fact::DrvNeeded {
            drv,
            path: absolute(&info.path),
            name: info.name.as_str().into(),
            system: info.system.clone(),
            inputs: inputs.clone(),
            fetch: work == Work::Fetch,
            opaque: false,
            features: info.features.iter().map(|feature| feature.as_str().into()).collect(),
            attr,
            expected: Some(made.expected),
            outputs: Vec::new(),
        });
        let item = Item {
            drv,
            work,
            there: if self.world.is_farm() { there(&self.graph, drv, work, &inputs) } else { Vec::new() },
            inputs,
            system: info.system,
            features: info.features,
            local_only: false,
            here: self.planner.is_wanted_here(drv),
            fixed_output: made.fixed,
            prefer_local: made.prefer_local,
            cost: made.expected,
            ahead: 0.0,
        };
        self.tell(Input::Add(vec![item]));
    }
}
