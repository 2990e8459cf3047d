//! Watches over builders that are up: whether they still answer, and how busy they are.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::build::{Caches, Site};
use crate::event::{Class, Failure};
use crate::id::BuilderId;
use crate::store::remote::{Load, RemoteStore};

use super::context::{Context, LOCAL};
use super::farm::FarmInput;
use super::input::Input;

/// How often a builder is asked whether it is there, and how busy it is.
const EVERY: Duration = Duration::from_secs(10);

/// A builder that is silent for so long is lost.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a builder of which an attempt was lost may take to answer.
const CHECK: Duration = Duration::from_secs(5);

/// Nothing new starts where less is free, in bytes, nor where less than this part of the disk is.
const LOW_DISK: u64 = 1 << 30;
const LOW_PART: u64 = 50;

/// Whether a disk is too full to build: less than 1 GiB is free, or than 2 % where it is known how big it is, but never
/// more than 16 GiB have to be. What was low has to get a quarter more than that to be so no longer.
pub(super) fn is_low(free: u64, size: Option<u64>, was: bool) -> bool {
    let part = size.map_or(0, |size| size / LOW_PART).min(16 << 30);
    // A small disk may be smaller than what is asked for.
    let limit = LOW_DISK.max(part).min(size.map_or(u64::MAX, |size| size / 10));
    free < if was { limit + limit / 4 } else { limit }
}

/// Watches over a builder until it is lost.
pub(super) fn remote(
    ctx: &mut Context,
    id: BuilderId,
    number: u32,
    store: &RemoteStore,
    site: &Arc<Site>,
) -> Vec<AbortHandle> {
    let (carrier, roots) = (store.clone(), site.clone());
    let alive = ctx.tasks.start(async move {
        let failure = tokio::select! {
            () = carrier.lost() => lost("ssh has ended"),
            failure = pings(&roots) => failure,
        };
        Input::Farm(id, FarmInput::Lost(number, failure))
    });
    let (carrier, told) = (store.clone(), ctx.farm_inputs.clone());
    let load = ctx.tasks.start(async move {
        let Ok(mut probe) = carrier.probe().await else { return Input::Idle };
        while let Ok(Some(load)) = timeout(SILENCE, probe.ask()).await {
            if told.send((id, FarmInput::Load(number, load))).is_err() {
                break;
            }
            sleep(EVERY).await;
        }
        Input::Idle
    });
    vec![alive, load]
}

/// Ends when the builder has not answered for too long.
async fn pings(site: &Site) -> Failure {
    loop {
        sleep(EVERY).await;
        match timeout(SILENCE, async { site.roots.lock().await.ping().await }).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return lost(&crate::error::chain(&error)),
            Err(_) => return lost(&format!("no answer for {} s", SILENCE.as_secs())),
        }
    }
}

/// Finds out whether a builder of which an attempt was lost still answers.
pub(super) fn check(ctx: &mut Context, id: BuilderId, number: u32, site: Arc<Site>) {
    ctx.tasks.start(async move {
        let answer = timeout(CHECK, async {
            let lent = site.pool.take(Caches::Off).await?;
            site.pool.give_back(lent);
            site.roots.lock().await.ping().await
        });
        let failure = match answer.await {
            Ok(Ok(())) => return Input::Farm(id, FarmInput::Answers(number)),
            Ok(Err(error)) => lost(&crate::error::chain(&error)),
            Err(_) => lost(&format!("no answer for {} s", CHECK.as_secs())),
        };
        Input::Farm(id, FarmInput::Lost(number, failure))
    });
}

/// Tells how busy this machine is.
pub(super) fn local(ctx: &mut Context) -> AbortHandle {
    let told = ctx.farm_inputs.clone();
    let dir = ctx.store.physical_dir().map(Path::to_owned);
    ctx.tasks.start(async move {
        loop {
            let dir = dir.clone();
            let Ok(load) = tokio::task::spawn_blocking(move || own_load(dir.as_deref())).await else {
                return Input::Idle;
            };
            if told.send((LOCAL, FarmInput::Load(0, load))).is_err() {
                return Input::Idle;
            }
            sleep(EVERY).await;
        }
    })
}

fn own_load(dir: Option<&Path>) -> Load {
    let pressure = |what: &str, line: &str| -> Option<f64> {
        let text = std::fs::read_to_string(Path::new("/proc/pressure").join(what)).ok()?;
        let line = text.lines().find_map(|found| found.strip_prefix(line))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
    };
    let disk = dir.and_then(|dir| rustix::fs::statvfs(dir).ok());
    Load {
        cpu: pressure("cpu", "some "),
        memory: pressure("memory", "full "),
        disk_free: disk.as_ref().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        disk_size: disk.as_ref().map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
    }
}

fn lost(message: &str) -> Failure {
    Failure::new(Class::BuilderLost, message)
}
