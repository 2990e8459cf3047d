//! Builders: how they are reached, lost and found again.

use super::super::world::Trouble;
use super::{Coming, PUSH_AFTER_STOP, Player, Post, failed};
use crate::driver::attempts::stopped;
use crate::event::{Class, Fact, Failure, Moment};
use crate::id::BuilderId;
use crate::sched::Input;

impl Player<'_> {
    pub(super) fn post(&mut self, builder: BuilderId) -> &mut Post {
        self.posts.entry(builder).or_default()
    }

    pub(super) fn dialled(&mut self, id: BuilderId) {
        let alive = self.stores.alive.contains(&id);
        let post = self.post(id);
        (post.up, post.heard) = (alive, true);
        post.again |= !alive;
        if alive {
            self.ready(id);
        } else {
            self.suspended(id);
        }
        self.tell_of(id);
        if self.posts.values().all(|post| post.heard) && !std::mem::replace(&mut self.complete, true) {
            self.model.all_builders_known();
            self.tell(Input::NoMoreBuilders);
        }
    }

    pub(super) fn ready(&mut self, id: BuilderId) {
        let builder = &self.world.builders[id.index()];
        let fact = Fact::BuilderReady {
            builder: id,
            name: builder.name.as_str().into(),
            slots: builder.slots,
            systems: builder.systems.iter().cloned().collect(),
            features: Vec::new(),
            speed: None,
            named_in: None,
        };
        self.emit(fact);
    }

    pub(super) fn suspended(&mut self, id: BuilderId) {
        let running = u32::try_from(self.live.values().filter(|live| live.builder == id).count()).unwrap();
        let name = self.world.builders[id.index()].name.as_str().into();
        let failure = Failure::new(Class::BuilderLost, "connection reset");
        self.emit(Fact::BuilderSuspended { builder: id, name, failure, running, again: None, hint: None });
    }

    /// As the farm of the driver tells the scheduler.
    pub(super) fn tell_of(&mut self, id: BuilderId) {
        let post = self.posts.entry(id).or_default();
        let usable = post.up && !post.suspect && !post.full;
        if usable && !std::mem::replace(&mut post.told, true) {
            self.tell(Input::BuilderUp(self.world.builders[id.index()].clone()));
        } else if !usable {
            post.told = false;
            let back = post.up || post.again;
            self.tell(Input::BuilderDown { builder: id, back, why: Some("connection reset".into()) });
        }
    }

    pub(super) fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Lost { builder, silent, back, wiped } => {
                // What it does from now on nobody hears of.
                if self.stores.alive.remove(&builder) {
                    self.later(silent, Coming::Dies(builder, back, wiped));
                }
            }
            Trouble::Full { builder, seconds } => {
                // Only who answers says so.
                if self.post(builder).up {
                    self.post(builder).full = true;
                    self.tell_of(builder);
                    self.later(seconds, Coming::Emptied(builder));
                }
            }
            Trouble::Down { cache, seconds } => {
                self.down.insert(cache);
                self.later(seconds, Coming::Mended(cache));
            }
            Trouble::Stop(level) => {
                self.emit(Fact::Cancelled { level });
                self.level = self.level.max(level);
                self.push_until = Some(Moment(self.now.0 + Moment::from_seconds(PUSH_AFTER_STOP).0));
                self.tell(Input::Cancel(self.level));
                if self.level == 2 {
                    self.stop_pushing();
                }
            }
        }
    }

    pub(super) fn dies(&mut self, builder: BuilderId, back: Option<f64>, wiped: bool) {
        if wiped {
            self.stores.wipe(builder);
        }
        let wait = self.world.wait;
        if let Some(back) = back.filter(|back| *back <= wait) {
            self.later(back, Coming::Back(builder));
        } else {
            self.later(wait, Coming::GivenUp(builder));
        }
        self.lose(builder);
    }

    pub(super) fn lose(&mut self, builder: BuilderId) {
        let wait = self.world.wait;
        let post = self.post(builder);
        if !std::mem::take(&mut post.up) {
            return;
        }
        (post.suspect, post.again) = (false, wait > 0.0);
        post.losses += 1;
        self.suspended(builder);
        self.tell_of(builder);
        let there = self.live.iter_mut().filter(|(_, live)| live.builder == builder);
        let mut idle = Vec::new();
        let mut busy = Vec::new();
        for (attempt, live) in there {
            live.lost = true;
            if live.busy { &mut busy } else { &mut idle }.push(*attempt);
        }
        for attempt in idle {
            self.attempt_ended(attempt, failed(stopped()), Vec::new());
        }
        for attempt in busy {
            self.later(0.05, Coming::Stopped(attempt));
        }
    }

    pub(super) fn back(&mut self, builder: BuilderId) {
        self.stores.alive.insert(builder);
        let post = self.post(builder);
        (post.up, post.heard, post.suspect, post.full) = (true, true, false, false);
        self.ready(builder);
        self.tell_of(builder);
    }

    /// Something went wrong there: nothing starts there before it has answered.
    pub(super) fn suspect(&mut self, builder: BuilderId) {
        let post = self.post(builder);
        if !post.up {
            return;
        }
        if !std::mem::replace(&mut post.suspect, true) {
            self.later(0.3, Coming::Answers(builder));
        }
        self.tell_of(builder);
    }
}
