//! What the scheduler asks for: attempts and fetches.

use super::super::world::Fate;
use super::{Coming, LINK, Live, Player, failed};
use crate::driver::attempts::{inputs_of, stopped};
use crate::driver::context::LOCAL;
use crate::event::{AttemptEnd, Class, Fact, Failure};
use crate::id::{AttemptId, BuilderId, DrvId, StorePath};
use crate::sched::{Action, Input};
use std::collections::BTreeSet;

impl Player<'_> {
    pub(super) fn tell(&mut self, input: Input) {
        self.sched.handle(self.now, input, &mut self.actions);
    }

    pub(super) fn turn(&mut self) {
        loop {
            self.ask();
            let decisions = self.planner.decisions(&self.graph);
            let actions = std::mem::take(&mut self.actions);
            if decisions.is_empty() && actions.is_empty() {
                break;
            }
            decisions.into_iter().for_each(|decision| self.decided(decision));
            actions.into_iter().for_each(|action| self.act(action));
        }
        self.close();
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Start { attempt, drv, builder } => self.start(attempt, drv, builder),
            Action::Go { attempt } => self.go(attempt),
            Action::Stop { attempt } => {
                let Some(live) = self.live.get_mut(&attempt) else { return };
                live.stopped = true;
                if live.busy {
                    self.later(0.1, Coming::Stopped(attempt));
                } else {
                    self.attempt_ended(attempt, failed(stopped()), Vec::new());
                }
            }
            Action::Fetch { drv } => {
                self.emit(Fact::FetchStarted { drv });
                self.fetching.insert(drv);
                let bytes = self.world.made[drv.index()].bytes as f64;
                self.later(0.05 + bytes / LINK, Coming::Fetched(drv));
            }
            Action::StopFetch { drv } => self.later(0.01, Coming::FetchStopped(drv)),
            Action::Replan { drv } => {
                let culprits = self.blamed.remove(&drv).unwrap_or_default();
                self.planner.fetch_failed(&self.graph, drv, &culprits);
            }
            Action::Ended { drv, outcome } => {
                self.emit(Fact::DrvEnded { drv, outcome: outcome.clone() });
                self.drv_ended(drv, outcome);
            }
        }
    }

    /// The outputs of others that a drv uses.
    pub(super) fn needs(&self, drv: DrvId) -> Vec<StorePath> {
        self.world.made[drv.index()].inputs.iter().map(|(made, output)| self.world.path(*made, *output)).collect()
    }

    pub(super) fn start(&mut self, attempt: AttemptId, drv: DrvId, builder: BuilderId) {
        self.emit(Fact::AttemptStarted { attempt, drv, builder });
        self.live.insert(attempt, Live { drv, builder, busy: true, stopped: false, lost: false });
        let missing = self.needs(drv).into_iter().filter(|path| !self.stores.has(builder, path));
        let bytes: u64 = missing.map(|path| self.world.made[self.stores.maker[&path]].bytes).sum();
        let seconds = if bytes == 0 { 0.0 } else { self.around(0.02 + bytes as f64 / LINK, 4, u64::from(attempt.0)) };
        if self.world.is_farm() && bytes > 0 {
            self.emit(Fact::AttemptBringing { attempt, paths: 1, nar_size: bytes });
        }
        self.later(seconds, Coming::Arrived(attempt));
    }

    pub(super) fn arrived(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get_mut(&attempt).filter(|live| !live.stopped && !live.lost) else { return };
        let (drv, builder) = (live.drv, live.builder);
        if !self.stores.alive.contains(&builder) {
            return;
        }
        live.busy = false;
        let needs = self.needs(drv);
        let silent = self.silent_holders(&needs);
        let (copied, gone) = self.bring(builder, &needs);
        if gone.is_empty() {
            if self.world.is_farm() {
                self.emit(Fact::AttemptPrepared { attempt, copied, copied_size: 0, fetched: 0 });
                self.tell(Input::Transferred { builder, bytes: 1 << 20, seconds: 0.05 });
            }
            self.tell(Input::Prepared { attempt });
            return;
        }
        let mut inputs = Vec::new();
        for (input, culprits) in inputs_of(&self.graph, drv, &gone) {
            self.blamed.entry(input).or_default().extend(culprits);
            self.model.lost(input);
            inputs.push(input);
        }
        self.attempt_ended(attempt, failed(Failure::new(Class::Dependency, "an input is nowhere")), inputs);
        silent.into_iter().for_each(|builder| self.suspect(builder));
    }

    pub(super) fn go(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get_mut(&attempt) else { return };
        live.busy = true;
        let (drv, builder) = (live.drv, live.builder);
        self.emit(Fact::AttemptBuilding { attempt });
        *self.tries.entry(drv).or_default() += 1;
        if self.world.lot(5, u64::from(attempt.0)) < 5 {
            self.later(0.01, Coming::Locked(attempt, true));
            return;
        }
        let speed = self.world.builders[builder.index()].speed;
        let seconds = self.around(self.world.made[drv.index()].seconds / speed, 6, u64::from(attempt.0));
        self.later(seconds, Coming::Ended(attempt));
    }

    /// Somebody else builds the same for a while.
    pub(super) fn locked(&mut self, attempt: AttemptId, locked: bool) {
        if self.live.get(&attempt).is_none_or(|live| !self.stores.alive.contains(&live.builder)) {
            return;
        }
        if locked {
            self.emit(Fact::AttemptWaiting { attempt, reason: "somebody else builds it".into() });
            self.later(3.0, Coming::Locked(attempt, false));
        } else {
            self.emit(Fact::AttemptBuilding { attempt });
            self.later(0.5, Coming::Ended(attempt));
        }
        self.tell(Input::Waiting { attempt, waiting: locked });
    }

    pub(super) fn ended(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.get(&attempt).filter(|live| !live.stopped && !live.lost) else { return };
        let (drv, builder) = (live.drv, live.builder);
        if !self.stores.alive.contains(&builder) {
            return;
        }
        let tries = self.tries[&drv];
        let class = match self.world.made[drv.index()].fate {
            Fate::Broken(class) => Some(class),
            Fate::Shaky(class, times) if tries <= times => Some(class),
            _ if self.posts[&builder].full => Some(Class::DiskFull),
            Fate::Fine | Fate::Shaky(..) => None,
        };
        let end = match class {
            Some(class) => failed(Failure::new(class, "so it goes")),
            None => {
                for path in self.world.paths(drv.index()) {
                    if let Some(lacks) = self.stores.put(self.world, builder, &path) {
                        self.model.wrong(&format!("{path} is built on {builder:?} without {lacks}"));
                    }
                }
                AttemptEnd::Built { outputs: Vec::new() }
            }
        };
        self.attempt_ended(attempt, end, Vec::new());
    }

    pub(super) fn attempt_ended(&mut self, attempt: AttemptId, end: AttemptEnd, gone: Vec<DrvId>) {
        let Some(Live { drv, builder, lost, .. }) = self.live.remove(&attempt) else { return };
        let end = match end {
            AttemptEnd::Failed(Failure { class: Class::Cancelled | Class::BuilderLost, .. }) if lost => {
                failed(Failure::new(Class::BuilderLost, "connection reset"))
            }
            end => end,
        };
        self.emit(Fact::AttemptEnded { attempt, end: end.clone(), log_lines: 0, log_tail: Vec::new() });
        let lost = matches!(&end, AttemptEnd::Failed(failure) if failure.class == Class::BuilderLost);
        if lost && builder != LOCAL {
            self.tell(Input::BuilderDown { builder, back: true, why: None });
        }
        if matches!(end, AttemptEnd::Built { .. }) {
            self.later(0.01, Coming::Sized(drv));
        }
        self.tell(Input::AttemptEnded { attempt, end, gone });
        if lost && builder != LOCAL {
            self.suspect(builder);
        }
    }

    pub(super) fn fetched(&mut self, drv: DrvId) {
        if self.planner.is_stale(drv) {
            let failure = Failure::new(Class::Cache, "something that it needs turned out to be gone");
            return self.fetch_ended(drv, Some((failure, Vec::new())));
        }
        let closure = self.planner.fetch_closure(drv);
        // What it refers to may have been there, on a builder that has gone.
        let missing = closure.iter().flat_map(|(path, ..)| self.world.references(self.stores.maker[path]));
        let promised: BTreeSet<&StorePath> = closure.iter().map(|(path, ..)| path).collect();
        let nowhere = missing.filter(|path| !promised.contains(path) && self.stores.holders(path).next().is_none());
        let broken = promised.iter().filter(|path| !self.stores.brings(self.world, path));
        let culprits: Vec<StorePath> = broken.map(|path| (*path).clone()).chain(nowhere).collect();
        if culprits.is_empty() {
            self.stores.valid.extend(closure.iter().map(|(path, ..)| (LOCAL, path.clone())));
        }
        let failure = (!culprits.is_empty()).then(|| (Failure::new(Class::Cache, "it is not there"), culprits));
        self.fetch_ended(drv, failure);
    }

    pub(super) fn fetch_ended(&mut self, drv: DrvId, failure: Option<(Failure, Vec<StorePath>)>) {
        if !self.fetching.remove(&drv) {
            return;
        }
        let failure = failure.map(|(failure, culprits)| {
            self.blamed.insert(drv, culprits);
            failure
        });
        self.emit(Fact::FetchEnded { drv, failure: failure.clone() });
        self.tell(Input::FetchEnded { drv, failure });
    }
}
