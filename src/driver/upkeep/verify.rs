//! `drover cache verify`: reads what a cache holds, and says what of it is broken; on demand it is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use rayon::prelude::*;

use crate::diff::presence::{self, Fact};
use crate::error::{Error, Result};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::narinfo::NarInfo;
use crate::push::findings::{self, Fault, Keys, Seen};
use crate::report::cache::verify::{Checked, Finding, Verified, Wrong};
use crate::store::cache::list::Stat;
use crate::store::cache::{Cache, CacheConfig, narinfo_name};

use super::mend::{self, Mended};
use super::prune::unreachable;
use super::{Request, Scene, given};

/// Records that are read at a time.
const BATCH: usize = 1024;

/// NARs that are read at once: each has a thread that unpacks it.
const READERS: usize = 8;

/// What a verify is given.
pub struct VerifyRequest {
    /// Where it happens.
    pub base: Request,
    /// Which caches, as typed; none: those of drover.toml that are pushed to.
    pub caches: Vec<String>,
    /// Store paths or links to them; only these are looked at, with all that they refer to. None: all that a cache
    /// lists.
    pub paths: Vec<PathBuf>,
    /// Absolute store paths that recorded runs pushed, by the URL of the cache: what a server that does not list what
    /// it has is asked for.
    pub pushed: BTreeMap<String, BTreeSet<String>>,
    /// Read the NARs.
    pub deep: bool,
    /// Mend what is broken.
    pub repair: bool,
}

/// What is known of one cache.
pub(super) struct Known {
    /// All that was looked at.
    pub(super) seen: Vec<Seen>,
    /// Bodies of records that cannot be read.
    pub(super) bodies: BTreeMap<String, Vec<u8>>,
    /// What is broken, by the name of its record.
    pub(super) broken: BTreeMap<String, Vec<Fault>>,
    no_answer: Vec<(String, String)>,
}

impl Known {
    fn new() -> Self {
        Self { seen: Vec::new(), bodies: BTreeMap::new(), broken: BTreeMap::new(), no_answer: Vec::new() }
    }

    /// The path behind the name of a record, as far as it is known.
    pub(super) fn path_of(&self, record: &str, dir: &StoreDir) -> Option<StorePath> {
        let of_record = self.seen.iter().find(|seen| seen.record == record).and_then(Seen::path);
        let of_record = of_record.filter(|path| narinfo_name(path) == record).cloned();
        let body = self.bodies.get(record).map(Vec::as_slice).unwrap_or_default();
        of_record.or_else(|| findings::path_of(record, body, &self.seen, dir))
    }
}

/// Looks at caches, one after the other.
pub async fn verify(request: VerifyRequest) -> Result<Verified> {
    let VerifyRequest { base, caches, paths, pushed, deep, repair } = request;
    let (scene, mut signals) = Scene::new(base).await?;
    let configs = which(&scene, &caches)?;
    let dir = scene.store.store_dir();
    let only = given::roots(&paths, dir)?;
    let mut verified = Verified { version: 1, repair, ..Verified::default() };
    let work = async {
        for (name, config) in configs {
            let cache = scene.open(&config, repair).await?;
            let checked = Checked { name, url: cache.url().to_owned(), ..Checked::default() };
            verified.caches.push(checked);
            let Some(checked) = verified.caches.last_mut() else { continue };
            let of_runs: Vec<String> = pushed.get(cache.url()).into_iter().flatten().cloned().collect();
            let asked = if paths.is_empty() { given::paths(&of_runs, dir) } else { only.iter().cloned().collect() };
            let check = Check { scene: &scene, config: &config, cache, only: !paths.is_empty(), deep };
            check.run(asked, repair, checked).await?;
        }
        Ok::<(), Error>(())
    };
    match super::unless_stopped(&mut signals, work).await {
        Some(done) => done?,
        None => verified.stopped = true,
    }
    verified.seconds = scene.clock.now().seconds();
    Ok(verified)
}

/// The caches that were named, or else those that are pushed to.
fn which(scene: &Scene, words: &[String]) -> Result<Vec<(String, CacheConfig)>> {
    let called = |config: CacheConfig| (config.name.clone().unwrap_or_else(|| config.shown_url()), config);
    if !words.is_empty() {
        return words.iter().map(|word| scene.named(word).map(called)).collect();
    }
    let pushed: Vec<_> = scene.list.configs().filter(|config| config.push).cloned().map(called).collect();
    if pushed.is_empty() {
        return Err(Error::usage("which cache? none of drover.toml has push = true")
            .hint("drover cache verify CACHE    a name of drover.toml or a URL"));
    }
    Ok(pushed)
}

/// One cache that is looked at.
struct Check<'a> {
    scene: &'a Scene,
    config: &'a CacheConfig,
    cache: Arc<Cache>,
    /// Only some paths.
    only: bool,
    deep: bool,
}

impl Check<'_> {
    async fn run(&self, asked: Vec<StorePath>, repair: bool, checked: &mut Checked) -> Result<()> {
        let (scene, name) = (self.scene, self.cache.name());
        let dir = scene.store.store_dir();
        if asked.is_empty() && (self.only || !self.cache.is_listable()) {
            let message =
                format!("what of {name}? a server does not say what it holds, and no run on record pushed to it");
            let hint = format!("drover cache verify {name} --path ./result");
            return Err(Error::usage(message).hint(hint));
        }
        let (others, notes) = scene.others(&self.cache).await;
        checked.notes.extend(notes);
        let listed = self.cache.is_listable() && !self.only;
        if !listed {
            let paths = crate::report::number::plural(asked.len(), "path", "paths");
            let of = if self.only { "that were named" } else { "that recorded runs pushed" };
            checked.notes.push(format!("looked at the {paths} {of}, with all that they refer to"));
        }
        let keys = scene.keys(self.config);
        let roots = if listed { None } else { Some(asked) };
        let mut known = self.look(roots, &keys, &others, checked).await?;
        checked.findings = self.findings(&known);
        if repair && !known.broken.is_empty() {
            let mended = mend::mend(scene, &self.cache, &known, &others).await;
            let before = std::mem::take(&mut known.broken);
            self.look_again(&mut known, &before, &keys, &others, checked).await;
            self.told_of_mending(checked, &before, &known, &mended);
        }
        let broken = known.broken.keys().filter_map(|record| known.path_of(record, dir)).collect();
        checked.referrers = findings::referrers(&known.seen, &broken);
        checked.no_answer = known.no_answer;
        Ok(())
    }

    /// Reads records, looks for NARs, reads them if that was asked for.
    async fn look(
        &self,
        roots: Option<Vec<StorePath>>,
        keys: &Keys,
        others: &[Arc<Cache>],
        checked: &mut Checked,
    ) -> Result<Known> {
        let mut known = Known::new();
        match roots {
            None => {
                let listing = self.cache.list().await.map_err(unreachable)?;
                self.scene.tell(format!("reading the records of {}", self.cache.name()), listing.records.len());
                let records: Vec<String> = listing.records.into_iter().map(|record| record.name).collect();
                for records in records.chunks(BATCH) {
                    self.read(records, &mut known).await;
                }
            }
            Some(roots) => self.walk(roots, &mut known).await,
        }
        self.look_at_nars(&mut known).await;
        if self.deep {
            self.read_nars(&mut known, checked).await;
        }
        checked.paths = known.seen.len();
        self.judge(&mut known, keys, others).await;
        Ok(known)
    }

    /// Reads some records; gives the names of those that are not there.
    async fn read(&self, records: &[String], known: &mut Known) -> Vec<String> {
        let dir = self.scene.store.store_dir();
        let mut gone = Vec::new();
        for (record, body) in records.iter().zip(self.cache.read(records.to_vec()).await) {
            let body = match body {
                Ok(Some(body)) => body,
                Ok(None) => {
                    gone.push(record.clone());
                    continue;
                }
                Err(failure) => {
                    known.no_answer.push((findings::hash_part(record).to_owned(), failure.message.to_string()));
                    continue;
                }
            };
            let info = NarInfo::parse_in(dir, &body).map(Box::new).map_err(|error| error.to_string());
            if info.is_err() {
                known.bodies.insert(record.clone(), body);
            }
            known.seen.push(Seen { record: record.clone(), info, nar: None, read: None });
        }
        self.scene.progress.send_modify(|progress| progress.done += records.len());
        gone
    }

    /// Reads the records of paths and of all that they refer to, one level at a time.
    async fn walk(&self, roots: Vec<StorePath>, known: &mut Known) {
        self.scene.tell(format!("reading the records of {}", self.cache.name()), 0);
        let mut level: BTreeSet<String> = roots.iter().map(narinfo_name).collect();
        let asked = level.clone();
        let mut done = level.clone();
        while !level.is_empty() {
            let names: Vec<String> = std::mem::take(&mut level).into_iter().collect();
            let from = known.seen.len();
            for gone in self.read(&names, known).await.into_iter().filter(|gone| asked.contains(gone)) {
                known.broken.insert(gone, vec![Fault::Absent]);
            }
            let infos = known.seen.iter().skip(from).filter_map(|seen| seen.info.as_ref().ok());
            let below = infos.flat_map(|info| info.references().iter().map(narinfo_name));
            level = below.filter(|name| done.insert(name.clone())).collect();
        }
    }

    async fn look_at_nars(&self, known: &mut Known) {
        let places = known.seen.iter().enumerate().filter_map(|(at, seen)| Some((at, seen.info.as_ref().ok()?.url())));
        let (places, names): (Vec<usize>, Vec<String>) = places.map(|(at, url)| (at, url.to_owned())).unzip();
        self.scene.tell(format!("looking for the NARs of {}", self.cache.name()), names.len());
        for (places, names) in places.chunks(BATCH).zip(names.chunks(BATCH)) {
            for (at, stat) in places.iter().zip(self.cache.stat(names.to_vec()).await) {
                match stat {
                    Ok(stat) => known.seen[*at].nar = Some(stat),
                    Err(failure) => {
                        let name = known.seen[*at].path().map(|path| path.name().to_owned()).unwrap_or_default();
                        known.no_answer.push((name, failure.message.to_string()));
                    }
                }
            }
            self.scene.progress.send_modify(|progress| progress.done += names.len());
        }
    }

    async fn read_nars(&self, known: &mut Known, checked: &mut Checked) {
        let there = |seen: &Seen| matches!(seen.nar, Some(Stat::There(_)));
        let infos = known.seen.iter().enumerate().filter(|(_, seen)| there(seen));
        let infos: Vec<(usize, Box<NarInfo>)> =
            infos.filter_map(|(at, seen)| Some((at, seen.info.as_ref().ok()?.clone()))).collect();
        self.scene.tell(format!("reading the NARs of {}", self.cache.name()), infos.len());
        let cache = &self.cache;
        let mut reads = stream::iter(infos)
            .map(|(at, info)| async move { (at, cache.read_nar(&info).await) })
            .buffer_unordered(READERS);
        while let Some((at, read)) = reads.next().await {
            match read {
                Ok(read) => {
                    checked.nars_read += 1;
                    checked.bytes_read = checked.bytes_read.saturating_add(read.file_size);
                    self.scene.progress.send_modify(|progress| {
                        progress.done += 1;
                        progress.bytes = progress.bytes.saturating_add(read.file_size);
                    });
                    known.seen[at].read = Some(read);
                }
                Err(failure) => {
                    let name = known.seen[at].path().map(|path| path.name().to_owned()).unwrap_or_default();
                    known.no_answer.push((name, failure.message.to_string()));
                }
            }
        }
    }

    /// What is broken of what was read.
    async fn judge(&self, known: &mut Known, keys: &Keys, others: &[Arc<Cache>]) {
        let (dir, keys) = (self.scene.store.store_dir().clone(), keys.clone());
        let seen = std::mem::take(&mut known.seen);
        let judged = tokio::task::spawn_blocking(move || {
            let faults: Vec<Vec<Fault>> = seen.par_iter().map(|seen| findings::faults(seen, &keys, &dir)).collect();
            (seen, faults)
        });
        // It cannot be cancelled, and does not panic.
        let Ok((seen, faults)) = judged.await else { return };
        known.seen = seen;
        let broken = known.seen.iter().zip(faults).filter(|(_, faults)| !faults.is_empty());
        let broken: Vec<_> = broken.map(|(seen, faults)| (seen.record.clone(), faults)).collect();
        known.broken.extend(broken);
        for (reference, users) in self.nowhere(known, others).await {
            for user in users {
                known.broken.entry(narinfo_name(&user)).or_default().push(Fault::Reference(reference.clone()));
            }
        }
    }

    /// What paths refer to that neither this cache nor any other has.
    async fn nowhere(&self, known: &mut Known, others: &[Arc<Cache>]) -> BTreeMap<StorePath, Vec<StorePath>> {
        let mut elsewhere = findings::references_elsewhere(&known.seen);
        let asked: Vec<StorePath> = elsewhere.keys().cloned().collect();
        for (path, fact) in presence::cascade(others, &asked).await {
            match fact {
                Fact::Absent => {}
                Fact::NoAnswer { failure, .. } => {
                    elsewhere.remove(&path);
                    known.no_answer.push((path.name().to_owned(), failure.message.to_string()));
                }
                Fact::Present { .. } | Fact::Untrusted { .. } => drop(elsewhere.remove(&path)),
            }
        }
        elsewhere
    }

    fn findings(&self, known: &Known) -> Vec<Finding> {
        let dir = self.scene.store.store_dir();
        let finding = |(record, faults): (&String, &Vec<Fault>)| {
            let path = known.path_of(record, dir);
            let faults =
                faults.iter().map(|fault| Wrong { fault: fault.word().to_owned(), message: fault.to_string() });
            Finding {
                path: path.as_ref().map_or_else(|| record.clone(), |path| dir.render_path(path)),
                name: path.map_or_else(|| findings::hash_part(record).to_owned(), |path| path.name().to_owned()),
                faults: faults.collect(),
                ..Finding::default()
            }
        };
        known.broken.iter().map(finding).collect()
    }

    /// Reads again what was broken, and what was missing.
    async fn look_again(
        &self,
        known: &mut Known,
        before: &BTreeMap<String, Vec<Fault>>,
        keys: &Keys,
        others: &[Arc<Cache>],
        checked: &mut Checked,
    ) {
        let missing = before.values().flatten().filter_map(|fault| match fault {
            Fault::Reference(path) => Some(narinfo_name(path)),
            _ => None,
        });
        let again: BTreeSet<String> = before.keys().cloned().chain(missing).collect();
        known.seen.retain(|seen| !again.contains(&seen.record));
        known.bodies.retain(|record, _| !again.contains(record));
        let mut new = Known::new();
        let gone = self.read(&again.into_iter().collect::<Vec<_>>(), &mut new).await;
        self.look_at_nars(&mut new).await;
        if self.deep {
            self.read_nars(&mut new, checked).await;
        }
        known.seen.extend(new.seen);
        known.bodies.extend(new.bodies);
        known.no_answer.extend(new.no_answer);
        self.judge(known, keys, others).await;
        // What was asked for and never there.
        let absent =
            gone.into_iter().filter(|record| before.get(record).is_some_and(|faults| faults.contains(&Fault::Absent)));
        known.broken.extend(absent.map(|record| (record, vec![Fault::Absent])));
    }

    fn told_of_mending(
        &self,
        checked: &mut Checked,
        before: &BTreeMap<String, Vec<Fault>>,
        known: &Known,
        mended: &Mended,
    ) {
        for (finding, (record, faults)) in checked.findings.iter_mut().zip(before) {
            let own = known.path_of(record, self.scene.store.store_dir()).into_iter();
            let below = faults.iter().filter_map(|fault| match fault {
                Fault::Reference(path) => Some(path.clone()),
                _ => None,
            });
            let paths: Vec<StorePath> = own.chain(below).collect();
            let from = paths.iter().find_map(|path| mended.from.get(path));
            if !known.broken.contains_key(record) {
                finding.mended = Some(from.cloned().unwrap_or_else(|| "elsewhere".to_owned()));
            } else {
                let why = paths.iter().rev().find_map(|path| mended.why_not.get(path).cloned());
                finding.not_mended = Some(why.unwrap_or_else(|| "no store and no other cache has it".to_owned()));
            }
        }
    }
}
