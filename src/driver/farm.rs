//! The builders of a run: dials them, knows which are up, and brings back those that go away.
//!
//! The local store is one of them and always there; `-j 0` takes its slots. The others are dialled at once, as soon as
//! it looks as if there were something to do. A builder that does not answer is suspended and dialled again, a little
//! later each time, until it is given up after `--builder-wait`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::config::BuilderSettings;
use crate::config::builders::SshSettings;
use crate::event::{Fact, Failure, Moment, Text};
use crate::id::{BuilderId, System};
use crate::nix_compat::daemon::Trust;
use crate::sched::{Builder, Input as SchedInput};
use crate::store::local::LocalStore;
use crate::store::remote::{DialError, Load, RemoteStore};

use super::context::{Context, LOCAL};
pub(crate) use super::dialling::remote_options;
use super::dialling::{Dialled, Dialling, dial_failure, is_hopeless};
use super::input::Input;
use super::keeping;
use super::trust;
use super::{Mode, watch};

/// The longest wait between two attempts to dial.
const LONGEST: Duration = Duration::from_secs(60);

/// What happened to a builder. The number is that of the dialling, so that what comes late is known as such.
pub(super) enum FarmInput {
    /// It was dialled.
    Dialled(u32, Result<Box<Dialled>, DialError>),
    /// It still answers, although something went wrong there.
    Answers(u32),
    /// It does not answer any more.
    Lost(u32, Failure),
    /// How busy it is.
    Load(u32, Load),
}

/// One builder.
struct Post {
    settings: Option<BuilderSettings>,
    name: String,
    /// Counts how often it was dialled.
    number: u32,
    up: Option<Up>,
    /// Something went wrong there, and it is not known yet whether it still answers.
    suspect: bool,
    /// Since when it has been low on disk.
    paused: Option<Moment>,
    /// Why it is away.
    why: Option<Text>,
    /// Whether the scheduler may use it, as it was told last.
    told: bool,
    /// How often it was dialled in vain.
    tries: u32,
    /// Since when it has been away.
    since: Option<Moment>,
    /// It is being dialled, or will be.
    again: Option<AbortHandle>,
    /// It was up once, or failed once.
    heard: bool,
}

struct Up {
    store: Option<RemoteStore>,
    builder: Builder,
    /// Watches over it.
    watching: Vec<AbortHandle>,
}

/// See the module's page.
pub(super) struct Farm {
    posts: BTreeMap<BuilderId, Post>,
    ssh: SshSettings,
    wait: Duration,
    dialled: bool,
    /// The scheduler knows that there are no others.
    complete: bool,
    /// Ssh that has to be waited for at the end.
    closing: Vec<RemoteStore>,
}

impl Farm {
    /// The local store is up; the others are only known. Gives what the scheduler is to hear.
    pub(super) fn new(ctx: &mut Context, settings: Vec<BuilderSettings>) -> (Self, Vec<SchedInput>) {
        let (own, others): (Vec<_>, Vec<_>) = settings.into_iter().partition(BuilderSettings::is_local);
        let local = local_builder(ctx, own.first());
        let farm = &ctx.settings.farm;
        let mut this = Self {
            posts: BTreeMap::new(),
            ssh: farm.ssh.clone(),
            wait: farm.wait,
            dialled: false,
            complete: false,
            closing: Vec::new(),
        };
        tell_ready(ctx, &local, None);
        let mut inputs = vec![SchedInput::BuilderUp(local.clone())];
        let mut post = Post::new("local".to_owned(), None);
        post.up = Some(Up { store: None, builder: local, watching: Vec::new() });
        (post.told, post.heard) = (true, true);
        this.posts.insert(LOCAL, post);
        for (settings, id) in others.into_iter().zip(1..) {
            let id = BuilderId(id);
            inputs.push(SchedInput::BuilderKnown(builder(ctx, id, &settings, None)));
            this.posts.insert(id, Post::new(settings.name.clone(), Some(settings)));
        }
        inputs.extend(this.complete());
        (this, inputs)
    }

    /// Once every builder was up or has failed to be, the scheduler knows all that there are.
    fn complete(&mut self) -> Option<SchedInput> {
        let all = self.posts.values().all(|post| post.heard);
        (all && !std::mem::replace(&mut self.complete, all)).then_some(SchedInput::NoMoreBuilders)
    }

    /// Nobody has evaluated this yet: builders are dialled as far as there will most likely be something to build.
    pub(super) fn expect(&mut self, ctx: &mut Context, mode: Mode) {
        match mode {
            Mode::Run => self.warm_up(ctx),
            // Most often nothing is built.
            Mode::Check => self.dial(ctx),
            Mode::Plan | Mode::Matrix | Mode::Why | Mode::Affected => {}
        }
    }

    /// Opens connections while the evaluators are busy. A commit that nobody has evaluated most likely has something
    /// to build, and each connection is a process to start.
    pub(super) fn warm_up(&mut self, ctx: &mut Context) {
        if self.dialled {
            return;
        }
        let slots = self.posts.get(&LOCAL).and_then(|post| post.up.as_ref()).map_or(0, |up| up.builder.slots);
        let pool = ctx.pool.clone();
        ctx.tasks.start(async move {
            pool.warm_up(slots).await;
            Input::Idle
        });
        self.dial(ctx);
    }

    /// Dials all builders at once, if that has not been done.
    pub(super) fn dial(&mut self, ctx: &mut Context) {
        if std::mem::replace(&mut self.dialled, true) {
            return;
        }
        let ids: Vec<BuilderId> = self.posts.keys().copied().filter(|id| *id != LOCAL).collect();
        for id in ids {
            self.dial_one(ctx, id, Duration::ZERO);
        }
        let load = watch::local(ctx);
        if let Some(up) = self.posts.get_mut(&LOCAL).and_then(|post| post.up.as_mut()) {
            up.watching.push(load);
        }
    }

    /// Builders that are not up and may be within a moment.
    pub(super) fn dialling(&self) -> Vec<BuilderId> {
        self.posts.iter().filter(|(_, post)| !post.heard).map(|(id, _)| *id).collect()
    }

    /// Whether a builder is not up and may be within a moment.
    pub(super) fn is_dialling(&self, builder: BuilderId) -> bool {
        self.posts.get(&builder).is_some_and(|post| !post.heard)
    }

    /// A builder that is up, but for the local store.
    pub(super) fn store(&self, builder: BuilderId) -> Option<RemoteStore> {
        self.posts.get(&builder)?.up.as_ref()?.store.clone()
    }

    /// Whether a builder that has not been heard of yet will say itself what it builds for.
    pub(super) fn may_say_more(&self) -> bool {
        let silent = |post: &Post| post.settings.as_ref().is_some_and(|settings| settings.systems.is_none());
        self.posts.values().any(|post| !post.heard && silent(post))
    }

    /// What some builder can build for, as far as is known.
    pub(super) fn systems(&self, ctx: &Context) -> Vec<System> {
        let mut systems = Vec::new();
        for (id, post) in &self.posts {
            match (&post.up, &post.settings) {
                (_, None) if *id == LOCAL => {
                    let slots = post.up.as_ref().map_or(0, |up| up.builder.slots);
                    // Alone it is what a run is about, whatever it can do at the moment.
                    if slots > 0 || !ctx.is_farm {
                        systems.extend(ctx.store.settings().systems());
                    }
                }
                (Some(up), _) => systems.extend(up.builder.systems.iter().cloned()),
                (None, Some(settings)) => systems.extend(systems_of(ctx, settings)),
                (None, None) => {}
            }
        }
        systems.sort();
        systems.dedup();
        systems
    }

    fn dial_one(&mut self, ctx: &mut Context, id: BuilderId, after: Duration) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        let Some(settings) = post.settings.clone() else { return };
        post.number += 1;
        let number = post.number;
        let dialling = Dialling {
            options: remote_options(&self.ssh, &settings, ctx.store_dir().clone()),
            wishes: trust::remote_wishes(&ctx.settings, ctx.store.settings()),
            known: builder(ctx, id, &settings, None),
            settings,
            local: ctx.store.settings().system.clone(),
            offline: ctx.settings.offline,
        };
        post.again = Some(ctx.tasks.start(async move {
            tokio::time::sleep(after).await;
            Input::Farm(id, FarmInput::Dialled(number, dialling.dial().await.map(Box::new)))
        }));
    }

    /// Something happened to a builder. Gives what the scheduler is to hear, and the failure if it is lost now.
    pub(super) fn handle(&mut self, ctx: &mut Context, id: BuilderId, input: FarmInput) -> Heard {
        let mut heard = Heard::default();
        let Some(post) = self.posts.get_mut(&id) else { return heard };
        match input {
            FarmInput::Dialled(number, _)
            | FarmInput::Answers(number)
            | FarmInput::Lost(number, _)
            | FarmInput::Load(number, _)
                if number != post.number => {}
            FarmInput::Dialled(_, Ok(dialled)) => {
                self.is_up(ctx, id, *dialled);
                heard.up = true;
            }
            FarmInput::Dialled(_, Err(error)) => {
                let failure = dial_failure(&error);
                let hopeless = is_hopeless(&error.kind);
                self.suspend(ctx, id, Trouble { failure, hint: Some(error.hint), running: 0, hopeless });
            }
            FarmInput::Answers(_) => post.suspect = false,
            FarmInput::Lost(_, failure) => heard.lost = Some(failure),
            FarmInput::Load(_, load) => post.loaded(ctx, id, load),
        }
        heard.inputs.extend(self.tell(ctx.bus.now(), id));
        heard.inputs.extend(self.complete());
        heard
    }

    fn is_up(&mut self, ctx: &mut Context, id: BuilderId, dialled: Dialled) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        let Dialled { store, site, builder } = dialled;
        (post.tries, post.since, post.again) = (0, None, None);
        (post.suspect, post.paused, post.heard) = (false, None, true);
        ctx.sites.insert(id, site.clone());
        let named_in = post.settings.as_ref().map(|settings| settings.named_in.as_str());
        tell_ready(ctx, &builder, named_in);
        keeping::release(ctx, store.clone());
        let slots = builder.slots;
        let watching = watch::remote(ctx, id, post.number, &store, &site);
        post.up = Some(Up { store: Some(store), builder, watching });
        ctx.tasks.start(async move {
            site.pool.warm_up(slots).await;
            Input::Idle
        });
    }

    /// An attempt found a builder gone: nothing starts there before it has answered.
    pub(super) fn suspect(&mut self, ctx: &mut Context, id: BuilderId) -> Option<SchedInput> {
        let (Some(post), Some(site)) = (self.posts.get_mut(&id), ctx.sites.get(id)) else { return None };
        if post.up.is_some() && !std::mem::replace(&mut post.suspect, true) {
            site.pool.forget();
            watch::check(ctx, id, post.number, site);
        }
        self.tell(ctx.bus.now(), id)
    }

    /// A builder does not answer any more, which so many attempts have ended with.
    pub(super) fn lose(&mut self, ctx: &mut Context, id: BuilderId, failure: Failure, running: u32) -> Vec<SchedInput> {
        self.suspend(ctx, id, Trouble { failure, hint: None, running, hopeless: false });
        self.tell(ctx.bus.now(), id).into_iter().chain(self.complete()).collect()
    }

    /// It is dialled again after a while, or given up.
    fn suspend(&mut self, ctx: &mut Context, id: BuilderId, trouble: Trouble) {
        let Trouble { failure, hint, running, hopeless } = trouble;
        let Some(post) = self.posts.get_mut(&id) else { return };
        if let Some(up) = post.up.take() {
            up.watching.iter().for_each(AbortHandle::abort);
            self.closing.extend(up.store);
        }
        ctx.sites.remove(id);
        post.why = Some(failure.message.clone());
        (post.suspect, post.heard) = (false, true);
        let now = ctx.bus.now();
        let since = *post.since.get_or_insert(now);
        let left = self.wait.saturating_sub(Duration::from_secs_f64(now.since(since)));
        let pause = Duration::from_secs(1 << post.tries.min(6)).min(LONGEST).min(left);
        post.tries += 1;
        let again = (!hopeless && !left.is_zero()).then_some(pause);
        ctx.bus.emit(Fact::BuilderSuspended {
            builder: id,
            name: post.name.as_str().into(),
            failure,
            running,
            again: again.map(|pause| pause.as_secs_f64()),
            hint: hint.map(Into::into),
        });
        match again {
            Some(pause) => self.dial_one(ctx, id, pause),
            None => post.again = None,
        }
    }

    /// What the scheduler has not heard yet of a builder.
    fn tell(&mut self, now: Moment, id: BuilderId) -> Option<SchedInput> {
        let post = self.posts.get_mut(&id)?;
        let usable = post.up.as_ref().filter(|_| !post.suspect && post.paused.is_none());
        match usable {
            Some(up) if !std::mem::replace(&mut post.told, true) => Some(SchedInput::BuilderUp(up.builder.clone())),
            Some(_) => None,
            None => {
                post.told = false;
                // A disk that nobody clears is waited for as long as a builder that is away.
                let cleared = post.paused.is_none_or(|since| now.since(since) < self.wait.as_secs_f64());
                let back = post.up.is_some() && cleared || post.again.is_some();
                Some(SchedInput::BuilderDown { builder: id, back, why: post.why.clone() })
            }
        }
    }

    /// Takes all builders' ssh, to be waited for when nothing uses them any more.
    pub(super) fn close(mut self) -> Vec<RemoteStore> {
        let up = std::mem::take(&mut self.posts).into_values().filter_map(|post| post.up);
        let stores: Vec<RemoteStore> = up.filter_map(|up| up.store).chain(self.closing).collect();
        stores
    }
}

/// Why a builder cannot be used.
struct Trouble {
    failure: Failure,
    hint: Option<String>,
    /// Attempts that end with it.
    running: u32,
    /// Waiting does not mend it.
    hopeless: bool,
}

/// What came of something that happened to a builder.
#[derive(Default)]
pub(super) struct Heard {
    /// For the scheduler.
    pub(super) inputs: Vec<SchedInput>,
    /// It is up.
    pub(super) up: bool,
    /// It is lost: its attempts have to be stopped, and then [`Farm::lose`] is told.
    pub(super) lost: Option<Failure>,
}

impl Post {
    fn new(name: String, settings: Option<BuilderSettings>) -> Self {
        Self {
            settings,
            name,
            number: 0,
            up: None,
            suspect: false,
            paused: None,
            why: None,
            told: false,
            tries: 0,
            since: None,
            again: None,
            heard: false,
        }
    }

    fn loaded(&mut self, ctx: &mut Context, id: BuilderId, load: Load) {
        let Load { cpu, memory, disk_free, disk_size } = load;
        ctx.bus.emit(Fact::BuilderLoad { builder: id, cpu, memory, disk_free });
        let Some(free) = disk_free else { return };
        let low = watch::is_low(free, disk_size, self.paused.is_some());
        if low != self.paused.is_some() {
            self.paused = low.then(|| ctx.bus.now());
            let gib = free as f64 / f64::from(1 << 30);
            let reason: Option<Text> = low.then(|| format!("{gib:.1} GiB free in {}", ctx.store_dir()).into());
            self.why.clone_from(&reason);
            ctx.bus.emit(Fact::BuilderPaused { builder: id, reason });
        }
    }
}

/// What a builder is configured to build for. Nix's machines file means its own system where it says nothing.
fn systems_of(ctx: &Context, settings: &BuilderSettings) -> Vec<System> {
    settings.systems.clone().unwrap_or_else(|| vec![ctx.store.settings().system.clone()])
}

/// What the local store and those builders that are said to build for something build for, the former's own first.
pub(super) fn systems(store: &LocalStore, settings: &[BuilderSettings]) -> Vec<System> {
    let mut systems = store.settings().systems();
    for system in settings.iter().flat_map(|builder| builder.systems.iter().flatten()) {
        if !systems.contains(system) {
            systems.push(system.clone());
        }
    }
    systems
}

/// A builder as it is configured.
fn builder(ctx: &Context, id: BuilderId, settings: &BuilderSettings, slots: Option<u32>) -> Builder {
    Builder {
        id,
        name: settings.name.clone(),
        slots: slots.or(settings.max_jobs).unwrap_or(1),
        systems: systems_of(ctx, settings).into_iter().collect(),
        features: settings.features.iter().flatten().cloned().collect(),
        mandatory: settings.mandatory.iter().cloned().collect(),
        speed: settings.speed.unwrap_or(1.0),
        local: false,
        trusting: true,
    }
}

/// The local store as a builder; `own` is what a configuration says of it as such.
fn local_builder(ctx: &Context, own: Option<&BuilderSettings>) -> Builder {
    let nix = ctx.store.settings();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let nix_jobs = nix.max_jobs.and_then(|jobs| u32::try_from(jobs).ok());
    let own_jobs = own.and_then(|own| own.max_jobs);
    let jobs = ctx.settings.build.max_jobs.or(own_jobs).or(nix_jobs).unwrap_or(u32::try_from(cores).unwrap_or(1));
    let systems = own.and_then(|own| own.systems.clone()).unwrap_or_else(|| nix.systems());
    let features = own.and_then(|own| own.features.clone());
    Builder {
        id: LOCAL,
        name: "local".to_owned(),
        slots: jobs,
        systems: systems.into_iter().collect(),
        features: features.unwrap_or_else(|| nix.system_features.to_vec()).into_iter().collect(),
        mandatory: own.iter().flat_map(|own| own.mandatory.iter().cloned()).collect(),
        speed: own.and_then(|own| own.speed).unwrap_or(1.0),
        local: true,
        trusting: ctx.store.trust() != Trust::Untrusted || !ctx.store.receiver().require_sigs,
    }
}

fn tell_ready(ctx: &mut Context, builder: &Builder, named_in: Option<&str>) {
    let local = builder.id == LOCAL;
    let systems = if local { ctx.store.settings().systems() } else { builder.systems.iter().cloned().collect() };
    ctx.bus.emit(Fact::BuilderReady {
        builder: builder.id,
        name: builder.name.as_str().into(),
        slots: builder.slots,
        systems,
        features: builder.features.iter().map(|feature| feature.as_str().into()).collect(),
        speed: Some(builder.speed).filter(|speed| (speed - 1.0).abs() > f64::EPSILON),
        named_in: named_in.map(Into::into),
    });
}
