//! One cache that is pushed to, from what to push to what was read back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use crate::config::ReadBack;
use crate::event::{Class, Fact, Failure, Pushed};
use crate::id::{BuilderId, StorePath};
use crate::push::queue::{Action, End, Input as QueueInput, Item, Limits};
use crate::push::{Closure, LeaveOut, Nar, PathInfo, Queue, Verified};
use crate::report::number;
use crate::store::cache::Cache;

use super::super::context::Context;
use super::super::input::Input;
use super::reading::{Known, Walked, finish, upload, walk};
use super::{PushInput, Why, not_here, stopped};

/// One cache that is pushed to.
pub(super) struct Target {
    pub(super) cache: Arc<Cache>,
    pub(super) queue: Queue,
    actions: Vec<Action>,
    pub(super) infos: BTreeMap<StorePath, PathInfo>,
    nars: BTreeMap<StorePath, Nar>,
    /// The stores that told of paths.
    homes: BTreeMap<StorePath, BuilderId>,
    /// Paths that other caches hold.
    held: BTreeSet<StorePath>,
    /// Built in this run or asked for; what becomes of each is told even if the cache had it.
    told: BTreeSet<StorePath>,
    uploaded: Vec<PathInfo>,
    reading: Reading,
    already: BTreeSet<StorePath>,
    /// What walks need not ask about.
    known: Arc<Mutex<Known>>,
    /// Outputs for the next walk. One walk is under way at a time, so that what finishes together is walked together.
    next: Vec<StorePath>,
    /// Outputs of the walk that is under way.
    walking: Option<Vec<StorePath>>,
    /// Other caches that are read from.
    upstream: Vec<Arc<Cache>>,
    /// Nothing more will be added.
    closing: bool,
    /// The queue knows that.
    closed: bool,
    effects: Vec<AbortHandle>,
    leave_out: LeaveOut,
    /// What was left out, and bytes of its NAR.
    left_out: BTreeMap<StorePath, u64>,
    pub(super) verified: Option<bool>,
    /// Why it was given up before its end.
    pub(super) stopped: Option<Failure>,
}

impl Target {
    pub(super) fn new(ctx: &Context, cache: Arc<Cache>) -> Self {
        let leave_out = ctx.caches.leave_out(cache.id());
        let limits = cache.sink().map_or_else(Limits::default, |sink| Limits {
            uploads: sink.parallel(),
            ordered: sink.is_ordered(),
            ..Limits::default()
        });
        Self {
            cache,
            queue: Queue::new(limits),
            actions: Vec::new(),
            infos: BTreeMap::new(),
            homes: BTreeMap::new(),
            nars: BTreeMap::new(),
            held: BTreeSet::new(),
            told: BTreeSet::new(),
            uploaded: Vec::new(),
            reading: Reading::default(),
            already: BTreeSet::new(),
            known: Arc::default(),
            next: Vec::new(),
            walking: None,
            upstream: Vec::new(),
            closing: false,
            closed: false,
            effects: Vec::new(),
            leave_out,
            left_out: BTreeMap::new(),
            verified: None,
            stopped: None,
        }
    }

    pub(super) fn add(&mut self, ctx: &mut Context, outputs: &[StorePath], why: Why, upstream: &[Arc<Cache>]) {
        if let Some(failure) = self.stopped.clone() {
            return self.lost(ctx, outputs.to_vec(), &failure);
        }
        if why != Why::Found {
            self.told.extend(outputs.iter().cloned());
        }
        if why == Why::Built {
            self.known().built.extend(outputs.iter().cloned());
        }
        let id = self.cache.id();
        self.upstream = upstream.iter().filter(|cache| cache.id() != id).cloned().collect();
        self.next.extend(outputs.iter().cloned());
        self.walk(ctx);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what the next outputs refer to, unless a walk is under way.
    fn walk(&mut self, ctx: &mut Context) {
        if self.walking.is_some() || self.next.is_empty() {
            return;
        }
        let id = self.cache.id();
        let (stores, roots) = (ctx.stores(), std::mem::take(&mut self.next));
        self.walking = Some(roots.clone());
        let (known, upstream, cache) = (self.known.clone(), self.upstream.clone(), self.cache.clone());
        let below = ctx.settings.push.require_complete;
        self.start(ctx, async move {
            let found = walk(stores, roots, known, upstream, &cache, below).await;
            Input::Push(id, PushInput::Closure(found))
        });
    }

    fn start(&mut self, ctx: &mut Context, effect: impl Future<Output = Input> + Send + 'static) {
        self.effects.retain(|effect| !effect.is_finished());
        self.effects.push(ctx.tasks.start(effect));
    }

    pub(super) fn handle(&mut self, ctx: &mut Context, input: PushInput) {
        match input {
            PushInput::Opened(_) => {}
            PushInput::Closure(walked) => self.walked(ctx, walked),
            PushInput::Checked { present, absent } => {
                self.already.extend(present.iter().cloned());
                self.tell(QueueInput::Checked { present, absent });
            }
            PushInput::Uploaded(path, Ok(nar)) => {
                self.nars.insert(path.clone(), nar);
                self.tell(QueueInput::Uploaded(path));
            }
            PushInput::Finished(path, Ok(())) => {
                self.remember(&path);
                self.uploaded.extend(self.infos.get(&path).cloned());
                self.reading.next.extend(self.infos.get(&path).cloned());
                self.tell(QueueInput::Finished(path));
            }
            PushInput::Uploaded(path, Err(failure)) | PushInput::Finished(path, Err(failure)) => {
                self.tell(QueueInput::Failed(path, failure));
            }
            PushInput::ReadBack(whole) => {
                self.reading.under_way = self.reading.under_way.saturating_sub(1);
                self.reading.whole.extend(whole);
            }
            PushInput::Verified(verified) => {
                for (path, why) in &verified.missing {
                    ctx.bus.warn(format!("{} is not whole in {}: {why}", path.name(), self.cache.name()), None);
                }
                ctx.bus.emit(verified.fact(self.cache.id(), ctx.store.store_dir()));
                self.verified = Some(true);
            }
        }
        self.turn(ctx);
    }

    fn remember(&self, path: &StorePath) {
        if let (Some(sink), Some(info), Some(nar)) = (self.cache.sink(), self.infos.get(path), self.nars.get(path)) {
            sink.remember(info, nar);
        }
    }

    fn walked(&mut self, ctx: &mut Context, walked: Result<Walked, Failure>) {
        let roots = self.walking.take().unwrap_or_default();
        match walked {
            Ok(Walked { closure, homes }) => {
                self.homes.extend(homes);
                let gone = roots.into_iter().filter(|root| closure.invalid.contains(root)).collect();
                self.lost(ctx, gone, &not_here());
                self.incomplete(ctx, &closure);
                let held: Vec<StorePath> =
                    closure.held.into_iter().filter(|path| !self.infos.contains_key(path)).collect();
                let (left_out, push): (Vec<_>, Vec<_>) =
                    closure.push.into_iter().partition(|info| self.leave_out.fits(info));
                self.left_out.extend(left_out.iter().map(|info| (info.path.clone(), info.nar_size)));
                let closure = Closure { push, ..Closure::default() };
                let held: Vec<_> = held.into_iter().chain(left_out.into_iter().map(|info| info.path)).collect();
                self.held.extend(held.iter().cloned());
                self.known().queued.extend(closure.push.iter().map(|info| info.path.clone()));
                let items = closure.push.iter().map(item).collect();
                self.infos.extend(closure.push.into_iter().map(|info| (info.path.clone(), info)));
                self.tell(QueueInput::Held(held));
                self.tell(QueueInput::Add(items));
            }
            Err(failure) => self.not_walked(ctx, roots, &failure),
        }
        self.walk(ctx);
        self.close();
    }

    /// What the cache has, and refers to something that nobody has any more.
    fn incomplete(&self, ctx: &mut Context, closure: &Closure) {
        if !ctx.settings.push.require_complete || closure.invalid.is_empty() {
            return;
        }
        let mut lacks: BTreeMap<&StorePath, &StorePath> = closure.invalid.iter().map(|path| (path, path)).collect();
        // References come before referrers.
        for info in &closure.push {
            let Some(lost) = info.others().find_map(|reference| lacks.get(reference).copied()) else { continue };
            lacks.insert(&info.path, lost);
            let why = format!("it refers to {}, which is in no store and no cache", lost.name());
            let pushed = Pushed::Failed(Failure::new(Class::Dependency, why));
            let path = ctx.absolute(&info.path);
            ctx.bus.emit(Fact::PushEnded { cache: self.cache.id(), path, pushed });
        }
    }

    /// Without references nothing of it can be pushed in the right order, and nobody may take the push for whole.
    fn not_walked(&mut self, ctx: &mut Context, roots: Vec<StorePath>, failure: &Failure) {
        let message = format!("cannot find out what to push to {}: {}", self.cache.name(), failure.message);
        ctx.bus.warn(message, Some("drover push --run last    pushes what is missing"));
        self.lost(ctx, roots, failure);
    }

    /// Outputs that never come into the queue are given up by name.
    fn lost(&mut self, ctx: &mut Context, roots: Vec<StorePath>, failure: &Failure) {
        let cache = self.cache.id();
        for path in roots.into_iter().filter(|path| !self.infos.contains_key(path)) {
            let path = ctx.absolute(&path);
            ctx.bus.emit(Fact::PushEnded { cache, path, pushed: Pushed::Failed(failure.clone()) });
        }
    }

    /// Nothing more will be added.
    pub(super) fn end(&mut self, ctx: &mut Context) {
        self.closing = true;
        self.close();
        self.turn(ctx);
    }

    /// Once nothing more is added and nothing is walked, the queue may end.
    fn close(&mut self) {
        if self.closing && self.walking.is_none() && !std::mem::replace(&mut self.closed, true) {
            self.tell(QueueInput::NoMore);
        }
    }

    pub(super) fn stop(&mut self, ctx: &mut Context, why: &Failure) {
        for effect in self.effects.drain(..) {
            effect.abort();
        }
        self.reading = Reading::default();
        let unknown: Vec<StorePath> = self.walking.take().into_iter().flatten().chain(self.next.drain(..)).collect();
        self.lost(ctx, unknown, why);
        if self.verified != Some(true) {
            self.stopped = Some(why.clone());
        }
        self.tell(QueueInput::Stop);
        let open: Vec<StorePath> =
            self.queue.not_there().filter(|(_, end)| end.is_none()).map(|(path, _)| path.clone()).collect();
        self.turn(ctx);
        for path in open {
            // Its effect is gone, so nobody else says so.
            self.tell(QueueInput::Failed(path, why.clone()));
        }
        self.turn(ctx);
        self.verified = Some(true);
    }

    fn tell(&mut self, input: QueueInput) {
        self.queue.handle(input, &mut self.actions);
    }

    /// Does what the queue says; reads back once it is done.
    fn turn(&mut self, ctx: &mut Context) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Check(paths) => self.check(ctx, paths),
                    Action::Upload(path) => self.upload(ctx, path),
                    Action::Finish(path) => self.finish(ctx, path),
                    Action::Ended(path, end) => self.path_ended(ctx, &path, end),
                }
            }
        }
        if !self.closed || self.verified.is_some() {
            return;
        }
        let (is_done, nix_copies) =
            (self.queue.is_done(), self.cache.sink().is_some_and(|sink| sink.without_nar().is_some()));
        // Of Nix it is asked only once: each question is a process.
        if self.reading.is_due(is_done) && !nix_copies {
            self.read_back(ctx);
        }
        if is_done && self.reading.under_way == 0 {
            self.verified = Some(false);
            self.verify(ctx);
        }
    }

    /// Once nothing more is added, what is there is read back while the rest is still on its way.
    fn read_back(&mut self, ctx: &mut Context) {
        let (cache, uploaded) = (self.cache.clone(), std::mem::take(&mut self.reading.next));
        self.reading.under_way += 1;
        self.start(ctx, async move {
            let read = crate::push::read_back(&cache, &uploaded).await;
            Input::Push(cache.id(), PushInput::ReadBack(read.present))
        });
    }

    /// Where each path is a question of its own, the first are sent while others are still asked for.
    fn check(&mut self, ctx: &mut Context, paths: Vec<StorePath>) {
        let piece = if self.cache.is_bulk() { paths.len() } else { PIECE };
        for paths in paths.chunks(piece.max(1)) {
            self.check_piece(ctx, paths.to_vec());
        }
    }

    fn check_piece(&mut self, ctx: &mut Context, paths: Vec<StorePath>) {
        let cache = self.cache.clone();
        self.start(ctx, async move {
            // Where there is no answer, all of it is pushed: what is there already costs a request.
            let lacks = cache.missing(&paths).await.unwrap_or_else(|_| vec![true; paths.len()]);
            let (absent, present): (Vec<_>, Vec<_>) = paths.into_iter().zip(lacks).partition(|(_, lacks)| *lacks);
            let paths = |list: Vec<(StorePath, bool)>| list.into_iter().map(|(path, _)| path).collect();
            let (present, absent) = (paths(present), paths(absent));
            Input::Push(cache.id(), PushInput::Checked { present, absent })
        });
    }

    fn queued(&self, ctx: &mut Context, path: &StorePath) {
        let nar_size = self.infos.get(path).map_or(0, |info| info.nar_size);
        let path = ctx.absolute(path);
        ctx.bus.emit(Fact::PushQueued { cache: self.cache.id(), path, nar_size });
    }

    fn upload(&mut self, ctx: &mut Context, path: StorePath) {
        let (Some(info), Some(sink)) = (self.infos.get(&path).cloned(), self.cache.sink().cloned()) else { return };
        self.queued(ctx, &path);
        let absolute = ctx.absolute(&path);
        ctx.bus.emit(Fact::PushStarted { cache: self.cache.id(), path: absolute });
        let (stores, id) = (ctx.stores().first_from(self.homes.get(&path).copied()), self.cache.id());
        self.start(ctx, async move {
            let nar = upload(&stores, &sink, &info).await;
            Input::Push(id, PushInput::Uploaded(path, nar))
        });
    }

    fn finish(&mut self, ctx: &mut Context, path: StorePath) {
        let (Some(info), Some(sink)) = (self.infos.get(&path).cloned(), self.cache.sink().cloned()) else { return };
        let Some(nar) = self.nars.get(&path).cloned() else { return };
        let (id, cache) = (self.cache.id(), Arc::clone(&self.cache));
        let stores = ctx.stores().first_from(self.homes.get(&path).copied());
        self.start(ctx, async move {
            let written = finish(&stores, &sink, &info, &nar).await;
            if let Ok(record) = &written {
                cache.remember(&path, record.as_ref());
            }
            Input::Push(id, PushInput::Finished(path, written.map(drop)))
        });
    }

    fn path_ended(&mut self, ctx: &mut Context, path: &StorePath, end: End) {
        // What nobody built now or asked for and the cache had all along is no news.
        let present = end == End::Present;
        if present && !self.told.contains(path) {
            return;
        }
        if present {
            self.queued(ctx, path);
        }
        let file_size = self.nars.get(path).and_then(|nar| nar.file_size).unwrap_or(0);
        let pushed = pushed(end, file_size, self.stopped.as_ref());
        let path = ctx.absolute(path);
        ctx.bus.emit(Fact::PushEnded { cache: self.cache.id(), path, pushed });
    }

    /// Reads back what was uploaded and is not known to be whole yet. What was there before has been looked at when it was asked for.
    fn verify(&mut self, ctx: &mut Context) {
        let (cache, uploaded, held) = (self.cache.clone(), self.uploaded.clone(), self.held.clone());
        let (already, read) = (self.already.clone(), std::mem::take(&mut self.reading.whole));
        let deep = ctx.settings.push.read_back == ReadBack::Deep;
        self.tell_left_out(ctx);
        self.start(ctx, async move {
            if let Some(sink) = cache.sink() {
                sink.close().await;
            }
            let verified = if uploaded.is_empty() {
                Verified { present: already, missing: BTreeMap::new() }
            } else {
                let mut verified = crate::push::verify(&cache, &uploaded, read, &already, &held).await;
                if deep {
                    crate::push::verify_nars(&cache, &uploaded, &held, &mut verified).await;
                }
                verified
            };
            Input::Push(cache.id(), PushInput::Verified(verified))
        });
    }

    /// Whoever fetches from this cache has to know that it does not have everything.
    fn tell_left_out(&self, ctx: &mut Context) {
        if self.left_out.is_empty() {
            return;
        }
        let names: Vec<&str> = self.left_out.keys().take(NAMED).map(|path| path.name()).collect();
        let (count, bytes) =
            (self.left_out.len(), self.left_out.values().fold(0, |all: u64, one| all.saturating_add(*one)));
        let more = if count > NAMED { ", …" } else { "" };
        let message = format!(
            "left out of {}, as drover.toml says: {} of {} ({}{more})\nwhat refers to them is there and not whole without them",
            self.cache.name(),
            number::plural(count, "path", "paths"),
            number::size(bytes),
            names.join(", "),
        );
        ctx.bus.warn(message, None);
        let without = crate::push::leave_out::without(self.infos.values(), &self.left_out);
        ctx.bus.emit(Fact::PushLeftOut {
            cache: self.cache.id(),
            paths: self.left_out.keys().map(|path| ctx.absolute(path)).collect(),
            without: without.into_iter().map(|path| ctx.absolute(path)).collect(),
        });
    }
}

/// How the push of a path ended, in words. `why`: that of a push that was given up.
pub(in crate::driver) fn pushed(end: End, file_size: u64, why: Option<&Failure>) -> Pushed {
    let failed = |class, message: String| Pushed::Failed(Failure::new(class, message));
    match end {
        End::Pushed => Pushed::Uploaded { file_size },
        End::Present => Pushed::Present,
        End::Failed(failure) => Pushed::Failed(failure),
        End::Reference(root) => failed(Class::Dependency, format!("{} is not in the cache", root.name())),
        End::Unknown(root) => failed(Class::Dependency, format!("{} is in no cache", root.name())),
        End::Stopped => Pushed::Failed(why.cloned().unwrap_or_else(stopped)),
    }
}

/// What is read back before the end. What was not whole is read again then: some servers need a moment.
#[derive(Default)]
struct Reading {
    /// What is to be read.
    next: Vec<PathInfo>,
    /// Pieces that are being read.
    under_way: usize,
    /// What was whole.
    whole: BTreeSet<StorePath>,
}

impl Reading {
    /// Whether a piece is worth its questions now. `last`: nothing comes after it.
    fn is_due(&self, last: bool) -> bool {
        !self.next.is_empty() && (last || self.under_way == 0 || self.next.len() >= PIECE)
    }
}

/// Paths that a cache is asked for in one piece, where it answers for each by itself.
const PIECE: usize = 32;

/// Paths that were left out, of which each is named.
const NAMED: usize = 3;

fn item(info: &PathInfo) -> Item {
    Item { path: info.path.clone(), references: info.others().cloned().collect(), nar_size: info.nar_size }
}
