//! One question for 20,000 paths to a service 30 ms away that takes many at once.

use std::time::{Duration, Instant};

use drover::id::{CacheId, StorePath};
use drover::store::cache::{Cache, CacheConfig, OpenContext};

use super::nix::Lab;
use super::target::Target;

/// How many paths are asked for.
const PATHS: u32 = 20_000;

/// Seconds from the open cache to the answer.
pub(crate) fn measure(target: &Target, lab: &Lab, away: Duration) -> f64 {
    let paths: Vec<StorePath> = (0..PATHS).map(path).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let login_env = Target::env(lab).iter().map(|(name, value)| (*name, value.as_str())).collect();
        let context = OpenContext { login_env, ..OpenContext::new(lab.store_dir().parse().unwrap()) };
        let config = CacheConfig { url: target.url(), push: true, ..CacheConfig::default() };
        let cache = Cache::open(CacheId(0), config, &context).await.unwrap();
        assert!(cache.is_bulk());
        target.is_far(away);
        let start = Instant::now();
        let missing = cache.missing(&paths).await.unwrap();
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(missing, vec![true; paths.len()]);
        seconds
    })
}

/// A path that nobody has.
fn path(at: u32) -> StorePath {
    let mut digest = [7; 20];
    digest[..4].copy_from_slice(&at.to_le_bytes());
    StorePath::from_parts(digest, "x").unwrap()
}
