//! Fetching outputs from caches into a store, by the store's own daemon.

use crate::event::{Class, Failure};
use crate::id::StorePath;

use super::Pool;

/// Has the daemon substitute these paths with their closures. Only for caches that the daemon applies itself.
pub async fn fetch(pool: &Pool, paths: &[StorePath]) -> Result<(), Failure> {
    let failure = |class, message: String| Failure { class, message: message.into(), position: None };
    let lost = |error: &(dyn std::error::Error + 'static)| failure(Class::BuilderLost, crate::error::chain(error));
    let mut connection = pool.take().await.map_err(|error| lost(&error))?;
    for path in paths {
        if let Err(error) = connection.ensure_path(path, &mut |_| {}).await {
            let class = if error.remote().is_some() { Class::Cache } else { Class::BuilderLost };
            pool.give_back(connection);
            return Err(failure(class, crate::error::chain(&error)));
        }
    }
    pool.give_back(connection);
    Ok(())
}
