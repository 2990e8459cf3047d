//! A push to one made-up cache: the real walk and the real queue, wired as the driver wires them.

use std::collections::BTreeSet;
use std::convert::Infallible;

use futures_util::FutureExt as _;

use super::play::{Player, absolute, cache_id};
use super::stores::Stores;
use super::world::{Depot, World};
use crate::driver::pushing::{Why, pushed};
use crate::event::{Class, Fact, Failure};
use crate::id::StorePath;
use crate::push::queue::{Action, End, Input, Item, Limits};
use crate::push::{Closure, PathInfo, Queue, Source, closure};

/// Bytes a second to a cache.
const WIDTH: f64 = 10e6;

/// What a cache answers.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Walked,
    Checked(Vec<StorePath>),
    Uploaded(StorePath),
    Finished(StorePath),
}

/// See the module's page.
pub(super) struct Target {
    /// Which cache.
    pub(super) at: usize,
    /// Of the effects whose answers count.
    pub(super) number: u32,
    pub(super) done: bool,
    queue: Queue,
    actions: Vec<Action>,
    told: BTreeSet<StorePath>,
    built: BTreeSet<StorePath>,
    queued: BTreeSet<StorePath>,
    next: Vec<StorePath>,
    walking: Option<Vec<StorePath>>,
    closing: bool,
    closed: bool,
    stopped: Option<Failure>,
}

impl Default for Target {
    fn default() -> Self {
        Self::of(0, Limits::default())
    }
}

/// Whom a walk asks.
struct Asked<'a> {
    world: &'a World,
    stores: &'a Stores,
    target: &'a Target,
}

impl Source for Asked<'_> {
    type Error = Infallible;

    async fn held(&mut self, paths: Vec<StorePath>) -> Result<Vec<bool>, Infallible> {
        let held = |path: &StorePath| {
            self.target.queued.contains(path)
                || !self.target.built.contains(path) && held_elsewhere(self.world, self.stores, self.target.at, path)
        };
        Ok(paths.iter().map(held).collect())
    }

    async fn infos(&mut self, paths: Vec<StorePath>) -> Result<Vec<Option<PathInfo>>, Infallible> {
        let info = |path: &StorePath| {
            self.stores.holders(path).next()?;
            let made = self.stores.maker[path];
            Some(PathInfo {
                path: path.clone(),
                deriver: None,
                nar_hash: [0; 32],
                references: self.world.references(made),
                registration_time: 0,
                nar_size: self.world.made[made].bytes,
                ultimate: false,
                signatures: BTreeSet::new(),
                ca: None,
            })
        };
        Ok(paths.iter().map(info).collect())
    }
}

/// Whether another cache that is read from has it.
fn held_elsewhere(world: &World, stores: &Stores, own: usize, path: &StorePath) -> bool {
    let others = (0..world.caches.len()).filter(|at| *at != own && world.caches[*at].pull && !world.caches[*at].mute);
    others.into_iter().any(|at| stores.caches[at].contains(path))
}

impl Target {
    pub(super) fn new(at: usize, depot: &Depot) -> Self {
        Self::of(at, Limits { uploads: depot.uploads, bytes: 64 << 20, ordered: depot.ordered })
    }

    fn of(at: usize, limits: Limits) -> Self {
        Self {
            at,
            number: 0,
            done: false,
            queue: Queue::new(limits),
            actions: Vec::new(),
            told: BTreeSet::new(),
            built: BTreeSet::new(),
            queued: BTreeSet::new(),
            next: Vec::new(),
            walking: None,
            closing: false,
            closed: false,
            stopped: None,
        }
    }

    pub(super) fn add(&mut self, player: &mut Player, index: usize, outputs: &[StorePath], why: Why) {
        if let Some(failure) = self.stopped.clone() {
            return self.lost(player, outputs.to_vec(), &failure);
        }
        if why != Why::Found {
            self.told.extend(outputs.iter().cloned());
        }
        if why == Why::Built {
            self.built.extend(outputs.iter().cloned());
        }
        self.next.extend(outputs.iter().cloned());
        self.walk(player, index);
    }

    fn walk(&mut self, player: &mut Player, index: usize) {
        if self.walking.is_none() && !self.next.is_empty() {
            self.walking = Some(std::mem::take(&mut self.next));
            self.later(player, index, 0.005, Answer::Walked);
        }
    }

    fn later(&self, player: &mut Player, index: usize, seconds: f64, answer: Answer) {
        let latency = player.world.caches[self.at].latency;
        player.push_later_as(index, self.number, latency + seconds, answer);
    }

    fn tell(&mut self, input: Input) {
        self.queue.handle(input, &mut self.actions);
    }

    pub(super) fn answered(&mut self, player: &mut Player, index: usize, answer: Answer) {
        let depot = &player.world.caches[self.at];
        let down = player.down.contains(&self.at);
        match answer {
            Answer::Walked => self.walked(player, index),
            Answer::Checked(paths) => {
                let there = |path: &StorePath| player.stores.caches[self.at].contains(path);
                let (present, absent) = paths.into_iter().partition(there);
                self.tell(Input::Checked { present, absent });
            }
            Answer::Uploaded(path) => {
                let lot = player.world.lot(10 + self.at as u64, player.stores.maker[&path] as u64);
                let failure = if down || lot < depot.refuses {
                    Some(Failure::new(Class::Cache, "it is not taken"))
                } else if player.stores.holders(&path).next().is_none() {
                    Some(Failure::new(Class::NoOutput, "nobody has it any more"))
                } else {
                    None
                };
                match failure {
                    Some(failure) => self.tell(Input::Failed(path, failure)),
                    None => {
                        if depot.ordered {
                            self.seen(player, &path);
                        }
                        self.tell(Input::Uploaded(path));
                    }
                }
            }
            Answer::Finished(path) if down => {
                self.tell(Input::Failed(path, Failure::new(Class::Cache, "it does not answer")));
            }
            Answer::Finished(path) => {
                self.seen(player, &path);
                self.tell(Input::Finished(path));
            }
        }
        self.turn(player, index);
    }

    /// From now on others see a path there.
    fn seen(&self, player: &mut Player, path: &StorePath) {
        for reference in player.world.references(player.stores.maker[path]) {
            let held = player.stores.caches[self.at].contains(&reference)
                || held_elsewhere(player.world, &player.stores, self.at, &reference);
            if !held {
                player.model.wrong(&format!("{path} is seen in cache{} before {reference}", self.at));
            }
        }
        player.stores.caches[self.at].insert(path.clone());
    }

    fn walked(&mut self, player: &mut Player, index: usize) {
        let roots = self.walking.take().unwrap_or_default();
        let mut asked = Asked { world: player.world, stores: &player.stores, target: self };
        let walked = closure(roots.clone(), &mut asked).now_or_never();
        let Some(Ok(Closure { push, held, invalid })) = walked else { return };
        let gone = roots.into_iter().filter(|root| invalid.contains(root)).collect();
        self.lost(player, gone, &Failure::new(Class::NoOutput, "it is not in this store"));
        let held = held.into_iter().filter(|path| !self.queued.contains(path)).collect();
        self.queued.extend(push.iter().map(|info| info.path.clone()));
        let item = |info: PathInfo| Item {
            references: info.others().cloned().collect(),
            nar_size: info.nar_size,
            path: info.path,
        };
        self.tell(Input::Held(held));
        self.tell(Input::Add(push.into_iter().map(item).collect()));
        self.walk(player, index);
        self.say_no_more();
    }

    fn lost(&mut self, player: &mut Player, roots: Vec<StorePath>, failure: &Failure) {
        for path in roots.into_iter().filter(|path| !self.queued.contains(path)) {
            let (cache, pushed) = (cache_id(self.at), crate::event::Pushed::Failed(failure.clone()));
            player.emit(Fact::PushEnded { cache, path: absolute(&path), pushed });
        }
    }

    pub(super) fn close(&mut self, player: &mut Player, index: usize) {
        self.closing = true;
        self.say_no_more();
        self.turn(player, index);
    }

    fn say_no_more(&mut self) {
        if self.closing && self.walking.is_none() && !std::mem::replace(&mut self.closed, true) {
            self.tell(Input::NoMore);
        }
    }

    pub(super) fn stop(&mut self, player: &mut Player, index: usize) {
        let why = Failure::new(Class::Cancelled, "the run was stopped");
        self.number += 1;
        let unknown = self.walking.take().into_iter().flatten().chain(self.next.drain(..)).collect();
        self.lost(player, unknown, &why);
        if !self.done {
            self.stopped = Some(why.clone());
        }
        self.tell(Input::Stop);
        let open: Vec<StorePath> =
            self.queue.not_there().filter(|(_, end)| end.is_none()).map(|(path, _)| path.clone()).collect();
        self.turn(player, index);
        for path in open {
            self.tell(Input::Failed(path, why.clone()));
        }
        self.turn(player, index);
        self.done = true;
    }

    fn turn(&mut self, player: &mut Player, index: usize) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.act(player, index, action);
            }
        }
        if self.closed && !self.done && self.queue.is_done() {
            self.done = true;
            let present = u32::try_from(self.queue.there().count()).unwrap();
            player.emit(Fact::PushVerified { cache: cache_id(self.at), present, missing: Vec::new() });
        }
    }

    fn act(&mut self, player: &mut Player, index: usize, action: Action) {
        let cache = cache_id(self.at);
        let size = |path: &StorePath| player.world.made[player.stores.maker[path]].bytes;
        match action {
            Action::Check(paths) => self.later(player, index, 0.0, Answer::Checked(paths)),
            Action::Upload(path) => {
                let nar_size = size(&path);
                player.emit(Fact::PushQueued { cache, path: absolute(&path), nar_size });
                player.emit(Fact::PushStarted { cache, path: absolute(&path) });
                self.later(player, index, nar_size as f64 / WIDTH, Answer::Uploaded(path));
            }
            Action::Finish(path) => self.later(player, index, 0.0, Answer::Finished(path)),
            Action::Ended(path, end) => {
                let present = end == End::Present;
                if present && !self.told.contains(&path) {
                    return;
                }
                if present {
                    let nar_size = size(&path);
                    player.emit(Fact::PushQueued { cache, path: absolute(&path), nar_size });
                }
                let pushed = pushed(end, 1, self.stopped.as_ref());
                player.emit(Fact::PushEnded { cache, path: absolute(&path), pushed });
            }
        }
    }
}
