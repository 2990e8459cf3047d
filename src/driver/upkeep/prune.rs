//! `drover cache prune`.
//!
//! Records go first, referrers before what they refer to; then the cache is looked at again, and what a push that came
//! between needs is put back; only then NARs go that no record names. So it may be cut off anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::{StreamExt as _, stream};

use crate::error::{Error, Fault, Result};
use crate::event::Failure;
use crate::nix_compat::narinfo::NarInfo;
use crate::push::findings::hash_part;
use crate::push::prune::{Entry, Prune, Reason, Rules, needed_again, prune as decide, unused};
use crate::report::cache::prune::{Deleted, Kept, Pruned};
use crate::store::cache::Cache;
use crate::store::cache::list::{Listing, Object};

use super::given;
use super::{Request, Scene};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Records that are read at a time.
const BATCH: usize = 1024;

/// Files that are removed at once.
const REMOVERS: usize = 32;

/// What a prune is given.
pub struct PruneRequest {
    /// Where it happens.
    pub base: Request,
    /// Which cache, as typed.
    pub cache: String,
    /// Files and directories that name paths to keep.
    pub roots: Vec<PathBuf>,
    /// Absolute store paths that recorded runs wanted in these days; they count as written then.
    pub wanted: Vec<String>,
    /// Keep what was written in so many days.
    pub days: Option<u32>,
    /// Keep so many of each name.
    pub last: Option<usize>,
    /// Delete nothing that is younger than so many hours.
    pub grace: u32,
    /// Really delete.
    pub delete: bool,
    /// What to type to do it.
    pub again: String,
}

/// What a cache holds, as far as it can be read.
struct Held {
    entries: Vec<Entry>,
    nars: Vec<Object>,
    unreadable: usize,
}

/// Decides, and deletes if that was asked for. An error is one that came before anything was deleted, or a cache that
/// failed in the middle; what is left is whole then, too.
pub async fn prune(request: PruneRequest) -> Result<Pruned> {
    let PruneRequest { base, cache: word, roots, wanted, days, last, grace, delete, again } = request;
    let (scene, mut signals) = Scene::new(base).await?;
    let config = scene.named(&word)?;
    let cache = scene.open(&config, false).await?;
    if !cache.is_listable() {
        let message = format!("cannot prune {}: a server does not say what it holds", cache.name());
        return Err(Error::usage(message).hint("drover cache prune file:///DIR    where its files are"));
    }
    let now = scene.clock.started.as_second();
    let mut named = given::roots(&roots, scene.store.store_dir())?;
    named.extend(given::paths(&wanted, scene.store.store_dir()));
    let rules = Rules {
        roots: named,
        since: days.map(|days| now - i64::from(days) * DAY),
        last,
        grace: now - i64::from(grace) * 60 * 60,
    };
    let name = config.name.clone().unwrap_or_else(|| config.shown_url());
    let mut pruned = Pruned { version: 1, name, url: cache.url().to_owned(), again, ..Pruned::default() };
    let work = async {
        let listing = cache.list().await.map_err(unreachable)?;
        let held = read(&scene, &cache, listing).await?;
        let decided = decide(&held.entries, &held.nars, &rules);
        tell(&mut pruned, &held, &decided);
        if delete && held.unreadable > 0 {
            return Err(unknown_needs(cache.name(), held.unreadable));
        }
        if delete {
            let deleted = pruned.deleted.insert(Deleted::default());
            carry_out(&scene, &cache, &held, decided, &rules, deleted).await?;
        }
        Ok::<(), Error>(())
    };
    match super::unless_stopped(&mut signals, work).await {
        Some(done) => done?,
        None => pruned.stopped = true,
    }
    if let Some(memory) = scene.list.memory() {
        memory.settle().await;
    }
    pruned.seconds = scene.clock.now().seconds();
    Ok(pruned)
}

/// Reads all records that are listed.
async fn read(scene: &Scene, cache: &Cache, listing: Listing) -> Result<Held> {
    let dir = scene.store.store_dir();
    let all = listing.records.len();
    scene.tell(format!("reading the records of {}", cache.name()), all);
    let mut held = Held { entries: Vec::with_capacity(all), nars: listing.nars, unreadable: 0 };
    for records in listing.records.chunks(BATCH) {
        let names = records.iter().map(|record| record.name.clone()).collect();
        for (record, body) in records.iter().zip(cache.read(names).await) {
            // One that is gone by now was pruned by somebody else.
            let Some(body) = body.map_err(unreachable)? else { continue };
            match NarInfo::parse_in(dir, &body) {
                Ok(info) => held.entries.push(Entry::new(record, &info)),
                Err(_) => held.unreadable += 1,
            }
        }
        scene.progress.send_modify(|progress| progress.done += records.len());
    }
    Ok(held)
}

fn tell(pruned: &mut Pruned, held: &Held, decided: &Prune) {
    let mut kept = Kept::default();
    for reason in decided.kept.values() {
        *match reason {
            Reason::Root => &mut kept.roots,
            Reason::Recent => &mut kept.recent,
            Reason::Last => &mut kept.last,
            Reason::Young => &mut kept.young,
            Reason::Reference => &mut kept.references,
        } += 1;
    }
    let bytes = |nars: &[Object]| nars.iter().fold(0u64, |sum, nar| sum.saturating_add(nar.size));
    let named: BTreeSet<&str> = held.entries.iter().map(|entry| entry.nar.as_str()).collect();
    pruned.kept = kept;
    pruned.doomed = decided.doomed.iter().flatten().map(|entry| entry.path.name().to_owned()).collect();
    pruned.bytes = bytes(&decided.nars);
    pruned.bytes_left = bytes(&held.nars).saturating_sub(pruned.bytes);
    pruned.unused = decided.nars.iter().filter(|nar| !named.contains(nar.name.as_str())).count();
    pruned.unreadable = held.unreadable;
}

/// Deletes; `deleted` says how far it came, also if it is dropped.
async fn carry_out(
    scene: &Scene,
    cache: &Cache,
    held: &Held,
    decided: Prune,
    rules: &Rules,
    deleted: &mut Deleted,
) -> Result<()> {
    let Prune { doomed: waves, kept, .. } = decided;
    let doomed: Vec<Entry> = waves.iter().flatten().cloned().collect();
    let names: Vec<String> = doomed.iter().map(|entry| entry.record.clone()).collect();
    let mut bodies = BTreeMap::new();
    for (name, body) in names.iter().zip(cache.read(names.clone()).await) {
        bodies.extend(body.map_err(unreachable)?.map(|body| (name.clone(), body)));
    }
    scene.tell(format!("deleting from {}", cache.name()), doomed.len());
    for wave in &waves {
        let removing = wave.iter().map(|entry| remove(cache, &entry.record));
        let mut removing = stream::iter(removing).buffer_unordered(REMOVERS);
        while let Some(removed) = removing.next().await {
            removed.map_err(unreachable)?;
            deleted.paths += 1;
            scene.progress.send_modify(|progress| progress.done += 1);
        }
    }
    cache.forget(&doomed.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>());
    // What came meanwhile may refer to what went.
    let listing = cache.list().await.map_err(unreachable)?;
    let known: BTreeSet<&str> =
        held.entries.iter().filter(|entry| kept.contains_key(&entry.path)).map(|entry| entry.record.as_str()).collect();
    let (_, new): (Vec<Object>, Vec<Object>) =
        listing.records.into_iter().partition(|record| known.contains(record.name.as_str()));
    let new = read(scene, cache, Listing { records: new, nars: Vec::new() }).await?;
    let left = held.entries.iter().filter(|entry| kept.contains_key(&entry.path)).chain(&new.entries);
    let mut left: Vec<Entry> = left.cloned().collect();
    for entry in needed_again(&doomed, &left) {
        let Some(body) = bodies.get(&entry.record) else { continue };
        cache.put_back(&entry.record, body.clone()).await.map_err(unreachable)?;
        deleted.put_back += 1;
        left.push(entry);
    }
    if new.unreadable > 0 {
        return Err(unknown_needs(cache.name(), new.unreadable));
    }
    let nars = unused(&left, &listing.nars, rules.grace);
    scene.tell(format!("deleting NARs from {}", cache.name()), nars.len());
    let removing =
        nars.iter().map(|nar| async move { (nar.size, cache.remove(std::slice::from_ref(&nar.name)).await) });
    let mut removing = stream::iter(removing).buffer_unordered(REMOVERS);
    while let Some((size, removed)) = removing.next().await {
        removed.map_err(unreachable)?;
        deleted.nars += 1;
        deleted.bytes = deleted.bytes.saturating_add(size);
        scene.progress.send_modify(|progress| progress.done += 1);
    }
    Ok(())
}

/// Removes a record, and the listing of files that may lie beside it.
async fn remove(cache: &Cache, record: &str) -> std::result::Result<(), Failure> {
    cache.remove(&[record.to_owned(), format!("{}.ls", hash_part(record))]).await
}

/// Nobody knows which paths and which NAR a record needs that cannot be read.
fn unknown_needs(cache: &str, records: usize) -> Error {
    let records = crate::report::number::plural(records, "record", "records");
    let message = format!("cannot prune {cache}: {records} cannot be read, so that nobody knows what they need");
    Error::new(Fault::Build, message).hint(format!("drover cache verify {cache} --repair"))
}

pub(super) fn unreachable(failure: Failure) -> Error {
    Error::new(Fault::Unreachable, failure.message.to_string())
}
