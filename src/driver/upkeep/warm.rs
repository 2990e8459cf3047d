//! `drover cache warm`: copies what other caches have into one, without building anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{Error, Fault, Result};
use crate::id::StorePath;
use crate::push::queue::End;
use crate::report::cache::warm::{Warmed, WarmedCache};
use crate::store::cache::{Cache, CacheConfig};

use super::bring::{Bringing, Brought, Giver, why_not};
use super::prune::unreachable;
use super::{Request, Scene, given};

/// What a warm is given.
pub struct WarmRequest {
    /// Where it happens; the caches of its settings that are pushed to are warmed.
    pub base: Request,
    /// What is copied, each with all that it refers to: absolute store paths by the name of what asks for them.
    pub wanted: BTreeMap<String, Vec<String>>,
    /// Absolute store paths that are copied besides, where some cache has them.
    pub besides: Vec<String>,
}

/// Copies. What is in no cache is told by who asks for it.
pub async fn warm(request: WarmRequest) -> Result<Warmed> {
    let WarmRequest { base, wanted, besides } = request;
    let (scene, mut signals) = Scene::new(base).await?;
    let configs: Vec<CacheConfig> = scene.list.configs().filter(|config| config.push).cloned().collect();
    if configs.is_empty() {
        return Err(Error::usage("there is no cache to warm: none of drover.toml has push = true")
            .hint("drover cache warm --push-to CACHE    a name of drover.toml or a URL"));
    }
    let dir = scene.store.store_dir().clone();
    let wanted: BTreeMap<String, Vec<StorePath>> =
        wanted.into_iter().map(|(name, paths)| (name, given::paths(&paths, &dir))).collect();
    let mut roots: BTreeSet<StorePath> = wanted.values().flatten().cloned().collect();
    roots.extend(given::paths(&besides, &dir));
    let mut warmed = Warmed { version: 1, ..Warmed::default() };
    let work = async {
        for config in &configs {
            let cache = scene.open(config, true).await?;
            let told =
                WarmedCache { name: cache.name().to_owned(), url: cache.url().to_owned(), ..WarmedCache::default() };
            warmed.caches.push(told);
            let Some(told) = warmed.caches.last_mut() else { continue };
            let copied = one(&scene, &cache, &roots, told).await?;
            tell(told, &wanted, &copied);
        }
        Ok::<(), Error>(())
    };
    match super::unless_stopped(&mut signals, work).await {
        Some(done) => done?,
        None => warmed.stopped = true,
    }
    warmed.seconds = scene.clock.now().seconds();
    Ok(warmed)
}

/// What was brought, and what of it is not there after all.
struct Copied {
    brought: Brought,
    missing: BTreeMap<StorePath, String>,
}

async fn one(scene: &Scene, cache: &Arc<Cache>, roots: &BTreeSet<StorePath>, told: &mut WarmedCache) -> Result<Copied> {
    let sink = cache.sink().cloned().ok_or_else(|| Error::usage(format!("{} cannot be written to", cache.name())))?;
    let (others, notes) = scene.others(cache).await;
    told.notes = notes;
    if others.is_empty() {
        let message = format!("there is nothing to warm {} from: no other cache is read from", cache.name());
        return Err(Error::new(Fault::Usage, message).hint("substituters = https://cache.nixos.org    in nix.conf"));
    }
    let bringing = Bringing {
        to: cache.clone(),
        sink,
        from: vec![Giver::Caches(others)],
        broken: BTreeSet::new(),
        instead: Vec::new(),
        progress: scene.progress.clone(),
    };
    scene.tell(format!("looking for what {} lacks", cache.name()), 0);
    let found = bringing.find(roots).await.map_err(unreachable)?;
    scene.tell(format!("copying to {}", cache.name()), 0);
    let brought = bringing.carry(found).await;
    let read_back =
        crate::push::verify(cache, &brought.sent, BTreeSet::new(), &BTreeSet::new(), &BTreeSet::new()).await;
    Ok(Copied { brought, missing: read_back.missing })
}

fn tell(told: &mut WarmedCache, wanted: &BTreeMap<String, Vec<StorePath>>, copied: &Copied) {
    let Copied { brought, missing } = copied;
    let pushed = |path: &StorePath| matches!(brought.ends.get(path), Some(End::Pushed | End::Present));
    let there = |path: &StorePath| (brought.held.contains(path) || pushed(path)) && !missing.contains_key(path);
    told.copied = brought.sent.len();
    told.bytes = brought.bytes;
    told.there = brought.held.len() + brought.ends.values().filter(|end| **end == End::Present).count();
    for (name, paths) in wanted {
        if !paths.is_empty() && paths.iter().all(there) {
            told.warm.push(name.clone());
        } else if paths.is_empty() || paths.iter().any(|path| brought.nowhere.contains(path)) {
            told.not_built.push(name.clone());
        } else {
            told.not_whole.push(name.clone());
        }
    }
    // What only follows from another is told with that.
    let failed = brought.ends.iter().filter(|(_, end)| !matches!(end, End::Reference(_)));
    let failed = failed.filter_map(|(path, end)| Some((path.name().to_owned(), why_not(end)?.message.to_string())));
    let missing = missing.iter().map(|(path, why)| (path.name().to_owned(), why.clone()));
    told.failed = failed.chain(missing).collect();
}
