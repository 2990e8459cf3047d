//! One attempt: ask the builder, listen, say how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::event::{AttemptEnd, Class, Failure, OutputPath};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::daemon::{
    ActivityKind, BasicDerivation, BuildMode, BuildResult, BuildStatus, Connection, DaemonError, DerivedPath, Message,
    SingleDerivedPath, Trust,
};
use crate::nix_compat::error_class;

use super::origin::{Origin, OriginError};
use super::{Caches, Pool, ToBring};
use crate::store::session::Session;

/// What is to be built.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The .drv.
    pub path: StorePath,
    /// Its outputs, as far as they are known before building.
    pub outputs: Vec<(Arc<str>, Option<StorePath>)>,
    /// The outputs of other drvs that it needs, all of them valid there by now, as its sources are.
    pub inputs: Vec<StorePath>,
    /// Where the .drv is read. A builder that does not take our word for it has it, too.
    pub origin: Origin,
    /// It goes whole to the daemon, which knows more of it than drover can (design §1, opaque).
    pub opaque: bool,
    /// How long it may take, and how much it may say.
    pub limits: Limits,
}

/// How long a build may take, and how much it may say. Kept here and not by the daemon: over a relayed connection the
/// daemon never learns of them, and from the daemon's side a wait for somebody's lock would count.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// From the start of the builder to its end.
    pub total: Option<Duration>,
    /// Without a line of log.
    pub silent: Option<Duration>,
    /// Bytes of log.
    pub log: Option<u64>,
}

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Somebody else builds it; the text says who is waited for.
    Waiting(String),
    /// What it needs is being brought.
    Bringing(ToBring),
    /// The builder runs.
    Building,
    /// It entered a phase.
    Phase(String),
    /// A line of its log, without newline.
    Log(Vec<u8>),
    /// It has ended, and took so much of processors; where the daemon tells.
    Measured(Duration),
}

/// Builds it, until it ends or is stopped. Dropping the future stops it too, but less surely: a daemon can miss that
/// its client went away (see [`Session::close`](crate::store::session::Session::close)).
pub async fn run(
    pool: &Pool,
    attempt: &Attempt,
    stop: &CancellationToken,
    mut news: impl FnMut(News) + Send,
) -> AttemptEnd {
    // An opaque drv brings with it what only the daemon knows that it needs.
    let caches = if attempt.opaque { Caches::On } else { Caches::Off };
    let taken = tokio::select! {
        biased;
        taken = pool.take(caches) => taken,
        () = stop.cancelled() => return failed(Class::Cancelled, "stopped"),
    };
    let mut session = match taken {
        Ok(session) => session,
        Err(error) => return failed(Class::BuilderLost, crate::error::chain(&error)),
    };
    let signs = Arc::new(Signs::default());
    let ended = {
        let mut listen = |message: Message| {
            signs.trace(&message, &attempt.path);
            listen(&message, &signs, attempt.limits, &mut news);
        };
        // What the daemon has said already is heard before anybody is called silent, however busy this machine is.
        tokio::select! {
            biased;
            ended = ask(pool, &mut session, attempt, &mut listen) => Ok(ended),
            class = watch(&signs, attempt.limits) => Err(failed(class, overdue(class, attempt.limits))),
            () = stop.cancelled() => Err(failed(Class::Cancelled, "stopped")),
        }
    };
    match ended {
        Ok((ended, cpu)) => {
            pool.give_back(session);
            if let Some(cpu) = cpu {
                news(News::Measured(cpu));
            }
            blamed(ended, attempt, signs.ran.load(Ordering::Relaxed))
        }
        Err(ended) => {
            session.close().await;
            ended
        }
    }
}

/// Whose fault a failure is. Where the builder's own program never ran (no users to build as, no sandbox), it is the
/// machine's, and another may do better. Of what else an opaque drv needs, nobody knows which activity is whose.
fn blamed(ended: AttemptEnd, attempt: &Attempt, ran: bool) -> AttemptEnd {
    match ended {
        AttemptEnd::Failed(failure) if failure.class == Class::Build && !ran && !attempt.opaque => {
            AttemptEnd::Failed(Failure { class: Class::NoBuilder, ..failure })
        }
        ended => ended,
    }
}

/// What the watch has to know of the builder.
#[derive(Debug, Default)]
struct Signs {
    started: Notify,
    /// The builder has run.
    ran: AtomicBool,
    spoke: Notify,
    /// It has said more than it may.
    flooded: Notify,
    /// Bytes of log so far.
    said: AtomicU64,
    /// The daemon's number of the build.
    activity: AtomicU64,
}

impl Signs {
    /// When the builder runs and has ended, for those who want to know what an attempt costs besides.
    fn trace(&self, message: &Message, path: &StorePath) {
        match message {
            Message::Start(activity) if activity.kind == ActivityKind::Build => {
                self.activity.store(activity.id, Ordering::Relaxed);
                tracing::trace!(drv = path.name(), "the builder runs");
            }
            Message::Stop { id } if *id == self.activity.load(Ordering::Relaxed) => {
                tracing::trace!(drv = path.name(), "the builder has ended");
            }
            _ => {}
        }
    }
}

/// Turns a message of the daemon into news.
fn listen(message: &Message, signs: &Signs, limits: Limits, news: &mut (impl FnMut(News) + Send)) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if let Some((_, line)) = message.build_log_line() {
        signs.spoke.notify_one();
        let more = line.len() as u64 + 1;
        let said = signs.said.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if limits.log.is_some_and(|limit| said > limit) {
            signs.flooded.notify_one();
            return;
        }
        news(News::Log(line.to_owned()));
    } else if let Some((_, phase)) = message.phase() {
        news(News::Phase(text(phase)));
    } else if let Message::Start(activity) = message {
        match activity.kind {
            ActivityKind::Build => {
                signs.started.notify_one();
                signs.ran.store(true, Ordering::Relaxed);
                news(News::Building);
            }
            ActivityKind::BuildWaiting => news(News::Waiting(text(&activity.text))),
            _ => {}
        }
    }
}

/// Ends when the builder has taken too long, or said too much. A wait before it starts does not count.
async fn watch(signs: &Signs, limits: Limits) -> Class {
    signs.started.notified().await;
    let total = async {
        match limits.total {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let silence = async {
        loop {
            let Some(limit) = limits.silent else { return std::future::pending().await };
            tokio::select! {
                biased;
                () = signs.spoke.notified() => {}
                () = sleep(limit) => return,
            }
        }
    };
    tokio::select! {
        () = total => Class::Timeout,
        () = silence => Class::Silent,
        () = signs.flooded.notified() => Class::LogLimit,
    }
}

fn overdue(class: Class, limits: Limits) -> String {
    let seconds = |limit: Option<Duration>| limit.unwrap_or_default().as_secs();
    match class {
        Class::Silent => format!("stopped after {}s without a line of log (--max-silent-time)", seconds(limits.silent)),
        Class::LogLimit => format!(
            "stopped after more than {} bytes of log (max-log-size of drover.toml, max-build-log-size of Nix)",
            limits.log.unwrap_or_default()
        ),
        _ => format!("stopped after {}s (--timeout)", seconds(limits.total)),
    }
}

fn failed(class: Class, message: impl Into<Arc<str>>) -> AttemptEnd {
    AttemptEnd::Failed(Failure::new(class, message))
}

/// Asks the daemon and reads its answer.
async fn ask(
    pool: &Pool,
    connection: &mut Session,
    attempt: &Attempt,
    listen: &mut (dyn FnMut(Message) + Send),
) -> (AttemptEnd, Option<Duration>) {
    // Input-addressed derivations of their own words are taken from trusted clients only; the .drv speaks for itself.
    let by_drv = attempt.opaque || pool.store().trust() == Trust::Untrusted;
    let answer = if by_drv {
        whole(connection, attempt, listen).await
    } else {
        let drv = match attempt.origin.read_drv(&attempt.path).await {
            Ok(drv) => drv,
            Err(error @ OriginError::Elsewhere { .. }) => return (failed(Class::Cache, error.to_string()), None),
            Err(OriginError::Store(error)) => return (failed(error.class(), crate::error::chain(&error)), None),
            Err(error) => return (failed(Class::Internal, crate::error::chain(&error)), None),
        };
        let basic = match BasicDerivation::new(&drv, attempt.inputs.iter().cloned()) {
            Ok(basic) => basic,
            Err(error) => {
                return (failed(Class::Internal, format!("cannot send {}: {error}", attempt.path.name())), None);
            }
        };
        connection.build_derivation(&attempt.path, &basic, BuildMode::Normal, listen).await
    };
    match answer {
        Ok(result) => (end_of(&result, attempt, connection.store_dir()), cpu_of(&result)),
        Err(error) => (failed(error_class::of_error(&error), crate::error::chain(&error)), None),
    }
}

/// What it took of processors; `None` where the daemon does not know, which needs cgroups.
fn cpu_of(result: &BuildResult) -> Option<Duration> {
    match (result.cpu_user, result.cpu_system) {
        (None, None) => None,
        (user, system) => Some(user.unwrap_or_default().saturating_add(system.unwrap_or_default())),
    }
}

/// By its .drv, with all its outputs and whatever it needs.
async fn whole(
    connection: &mut Connection,
    attempt: &Attempt,
    listen: &mut (dyn FnMut(Message) + Send),
) -> Result<BuildResult, DaemonError> {
    let drv_path = SingleDerivedPath::Opaque(attempt.path.clone());
    let path = DerivedPath::Built { drv_path, outputs: Vec::new() };
    let results = connection.build_paths(std::slice::from_ref(&path), BuildMode::Normal, listen).await?;
    let found = results.into_iter().find(|(of, _)| *of == path);
    found.map(|(_, result)| result).ok_or_else(|| DaemonError::Protocol {
        act: "building with what it needs",
        what: format!("no result for {}", attempt.path),
    })
}

fn end_of(result: &BuildResult, attempt: &Attempt, dir: &StoreDir) -> AttemptEnd {
    if result.status.is_success() {
        let outputs = outputs_of(result, attempt, dir);
        return match result.status {
            BuildStatus::Built => AttemptEnd::Built { outputs },
            _ => AttemptEnd::AlreadyValid { outputs },
        };
    }
    let text = result.error_text();
    // The daemon's own limits are not used, so it cannot have been one of them.
    let class = error_class::of_status(result.status, &text, error_class::Limits::default());
    failed(class, error_class::reason(&text))
}

/// The outputs as the builder names them; where it names none, as they were known before.
fn outputs_of(result: &BuildResult, attempt: &Attempt, dir: &StoreDir) -> Vec<OutputPath> {
    let known = attempt.outputs.iter().map(|(name, path)| {
        let path = result.outputs.get(&**name).or(path.as_ref());
        OutputPath { name: name.clone(), path: path.map(|path| path.to_absolute_path_in(dir).into()) }
    });
    known.collect()
}
