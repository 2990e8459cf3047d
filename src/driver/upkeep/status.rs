//! `drover cache status`: looks at each cache once.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;

use crate::error::Result;
use crate::report::cache::status::{CacheStatus, Holds, One};
use crate::store::cache::{Cache, CacheConfig, SecretKey};

use super::{Request, Scene};

/// What each of some caches holds; of none, of all that drover.toml and Nix name. `None` if somebody stopped it.
pub async fn status(request: Request, words: &[String]) -> Result<Option<CacheStatus>> {
    let (scene, mut signals) = Scene::new(request).await?;
    let configs: Vec<CacheConfig> = match words {
        [] => scene.list.configs().cloned().collect(),
        words => words.iter().map(|word| scene.named(word)).collect::<Result<_>>()?,
    };
    scene.tell("looking at caches".to_owned(), 0);
    let looks = join_all(configs.iter().map(|config| one(&scene, config)));
    let caches = super::unless_stopped(&mut signals, looks).await;
    Ok(caches.map(|caches| CacheStatus { version: 1, caches }))
}

async fn one(scene: &Scene, config: &CacheConfig) -> One {
    let began = scene.clock.now().seconds();
    let url = config.shown_url();
    let mut one = One {
        name: config.name.clone().unwrap_or_else(|| url.clone()),
        url,
        pull: config.pull,
        push: config.push,
        signed_by: signed_by(config),
        ..One::default()
    };
    match scene.open(config, false).await {
        Ok(cache) => {
            one.name = cache.name().to_owned();
            one.url = cache.url().to_owned();
            look(&cache, &mut one).await;
        }
        Err(error) => one.error = Some(error.message.replace('\n', ", ")),
    }
    one.seconds = scene.clock.now().seconds() - began;
    one
}

fn signed_by(config: &CacheConfig) -> Vec<String> {
    let keys = config.secret_keys().unwrap_or_default();
    keys.iter().map(SecretKey::name).map(str::to_owned).collect()
}

async fn look(cache: &Arc<Cache>, one: &mut One) {
    if !cache.is_listable() {
        return;
    }
    match cache.list().await {
        Ok(listing) => {
            let files = listing.records.iter().chain(&listing.nars);
            let nars: BTreeSet<&str> = listing.nars.iter().map(|nar| nar.name.as_str()).collect();
            one.holds = Some(Holds {
                paths: listing.records.len(),
                nars: nars.len(),
                bytes: files.fold(0u64, |sum, file| sum.saturating_add(file.size)),
            });
        }
        Err(failure) => one.error = Some(failure.message.to_string()),
    }
}
