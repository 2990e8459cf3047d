//! How attrs end, and how results come home before.

use super::{Coming, LINK, Player};
use crate::driver::context::LOCAL;
use crate::driver::endings::{Word, is_there, word, word_of_return};
use crate::driver::homecoming::Next;
use crate::driver::pushing::Why;
use crate::event::{Class, DrvOutcome, Fact, Failure, Status};
use crate::id::{AttrId, BuilderId, DrvId, StorePath};
use crate::sched::Input;

impl Player<'_> {
    pub(super) fn wanted(&self, attr: AttrId) -> Vec<StorePath> {
        self.world.paths(self.world.attrs[attr.index()])
    }

    pub(super) fn planned(&mut self, attr: AttrId, status: Status, drv: Option<DrvId>) {
        match (status, drv) {
            (Status::Valid, _) => {
                self.push(self.wanted(attr), Why::Found);
                let made = DrvId(u32::try_from(self.world.attrs[attr.index()]).unwrap());
                if !self.comes_home(attr, made, Status::Valid) {
                    self.end_attr(attr, Status::Valid, None, None);
                }
            }
            (Status::ToFetch, _) if !self.world.download => self.end_attr(attr, Status::Cached, None, None),
            (_, Some(drv)) => match self.outcomes.get(&drv).cloned() {
                Some(outcome) => self.end_with(attr, drv, &outcome),
                None => self.attrs.wait_for(attr, drv),
            },
            (status, None) => self.end_attr(attr, status, None, None),
        }
    }

    pub(super) fn drv_ended(&mut self, drv: DrvId, outcome: DrvOutcome) {
        if matches!(outcome, DrvOutcome::Built | DrvOutcome::Valid) {
            let why = if outcome == DrvOutcome::Built { Why::Built } else { Why::Found };
            self.push(self.world.paths(drv.index()), why);
        }
        for attr in self.attrs.ended_with(drv) {
            self.end_with(attr, drv, &outcome);
        }
        self.outcomes.insert(drv, outcome);
    }

    pub(super) fn end_with(&mut self, attr: AttrId, drv: DrvId, outcome: &DrvOutcome) {
        let Word { status, reason, root } = word(drv, outcome);
        if !(is_there(status) && self.comes_home(attr, drv, status)) {
            self.end_attr(attr, status, reason, root);
        }
    }

    pub(super) fn end_attr(&mut self, attr: AttrId, status: Status, reason: Option<&str>, root: Option<DrvId>) {
        if self.words.insert(attr, status).is_none() {
            self.emit(Fact::AttrEnded { attr, status, reason: reason.map(Into::into), root });
        }
    }

    pub(super) fn comes_home(&mut self, attr: AttrId, drv: DrvId, status: Status) -> bool {
        let outputs = self.wanted(attr);
        let here = outputs.iter().all(|path| self.stores.has(LOCAL, path));
        if !self.world.is_farm() || !self.world.home || here {
            return false;
        }
        if self.returns.expect(drv, outputs, (attr, status)) {
            self.bring_home(drv);
        }
        true
    }

    pub(super) fn bring_home(&mut self, drv: DrvId) {
        let paths = self.returns.paths(drv);
        let builder = paths.iter().find_map(|path| self.stores.holders(path).next());
        self.emit(Fact::ResultsReturning { drv, builder: builder.unwrap_or(LOCAL) });
        let seconds = 0.02 + self.world.made[drv.index()].bytes as f64 / LINK;
        self.later(seconds, Coming::Returned(drv, paths));
    }

    pub(super) fn returned(&mut self, drv: DrvId, paths: &[StorePath]) {
        let lost = self.bring(LOCAL, paths).1;
        let suspects: Vec<BuilderId> = self.silent_holders(paths);
        let others = !lost.is_empty()
            && !suspects.is_empty()
            && paths.iter().all(|path| self.stores.holders(path).next().is_some());
        let failure = (!lost.is_empty()).then(|| Failure::new(Class::BuilderLost, "nobody has it"));
        let next = self.returns.ended(drv, paths.len(), others);
        if next == Next::Wait {
            return;
        }
        self.emit(Fact::ResultsReturned { drv, paths: 1, nar_size: 1, failure: failure.clone() });
        if failure.is_some() {
            suspects.into_iter().for_each(|builder| self.suspect(builder));
        }
        let Next::Attrs(attrs) = next else { return self.bring_home(drv) };
        let again = failure.is_some() && self.make_again(drv);
        if again {
            self.outcomes.remove(&drv);
        }
        for (attr, status) in attrs {
            if again {
                self.attrs.wait_for(attr, drv);
                continue;
            }
            let Word { status, reason, root } = word_of_return(status, failure.as_ref());
            self.end_attr(attr, status, reason, root);
        }
    }

    pub(super) fn make_again(&mut self, drv: DrvId) -> bool {
        if self.sched.is_on_its_way(drv) {
            return true;
        }
        let can = self.sched.can_make_again(drv);
        if can {
            self.model.lost(drv);
            self.tell(Input::Lost { drv });
        }
        can
    }

    /// Builders that are thought to be up, should have some of these, and do not answer.
    pub(super) fn silent_holders(&self, paths: &[StorePath]) -> Vec<BuilderId> {
        let should = |id: &BuilderId| paths.iter().any(|path| self.stores.valid.contains(&(*id, path.clone())));
        let silent = self.posts.iter().filter(|(id, post)| post.up && !self.stores.alive.contains(id));
        silent.map(|(id, _)| *id).filter(should).collect()
    }

    /// Brings paths to a builder with all that they refer to. Gives how many came, and what is nowhere of which path.
    pub(super) fn bring(&mut self, builder: BuilderId, paths: &[StorePath]) -> (u32, Vec<(StorePath, Vec<StorePath>)>) {
        let mut came = 0;
        let mut nowhere = Vec::new();
        for wanted in paths {
            let closure = self.stores.closure(self.world, vec![wanted.clone()]);
            let missing = closure.into_iter().filter(|path| !self.stores.valid.contains(&(builder, path.clone())));
            let missing: Vec<StorePath> = missing.collect();
            let found =
                |path: &StorePath| self.stores.holders(path).next().is_some() || self.stores.brings(self.world, path);
            let gone: Vec<StorePath> = missing.iter().filter(|path| !found(path)).cloned().collect();
            if gone.is_empty() {
                came += u32::try_from(missing.len()).unwrap();
                self.stores.valid.extend(missing.into_iter().map(|path| (builder, path)));
            } else {
                nowhere.push((wanted.clone(), gone));
            }
        }
        (came, nowhere)
    }
}
