//! How big the closures are of what a run has built. Told for history and for reports, once all else is done; it takes
//! some milliseconds, on the busiest machine five seconds, and what is not known by then is not told.

use std::time::Duration;

use crate::event::{Fact, Status};
use crate::id::{AttrId, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::push::closure::{Source, closure};
use crate::push::sizes::sizes;
use crate::store::error::StoreError;
use crate::store::session::Session;

use super::{Driver, Mode};
use crate::build::Caches;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Driver {
    /// Tells of every attr that was built, and of those that were there, how big its closure is.
    pub(super) async fn size_closures(&mut self) {
        let built = self.attrs.iter().any(|(_, entry)| entry.status == Some(Status::Built));
        if !built || self.stopping.is_asked() || !matches!(self.mode, Mode::Run | Mode::Check) {
            return;
        }
        let here = |status| matches!(status, Some(Status::Built | Status::Valid));
        let attrs: Vec<AttrId> = self.attrs.iter().filter(|(_, e)| here(e.status)).map(|(attr, _)| attr).collect();
        let outputs = |attr: &AttrId| self.outputs_of(*attr).into_iter().map(|(_, path)| path).collect();
        let groups: Vec<Vec<StorePath>> = attrs.iter().map(outputs).collect();
        let pool = self.ctx.pool.clone();
        let walk = async {
            let mut session = pool.take(Caches::Off).await.ok()?;
            let found = closure(groups.iter().flatten().cloned(), &mut Here(&mut session)).await.ok()?;
            pool.give_back(session);
            Some(found.push)
        };
        let Ok(Some(infos)) = tokio::time::timeout(PATIENCE, walk).await else { return };
        for (attr, size) in attrs.into_iter().zip(sizes(&groups, &infos)) {
            if let Some((paths, nar_size)) = size {
                self.ctx.bus.emit(Fact::ClosureSized { attr, paths, nar_size });
            }
        }
    }
}

/// The local store, and nothing that holds something for it.
struct Here<'a>(&'a mut Session);

impl Source for Here<'_> {
    type Error = StoreError;

    async fn held(&mut self, paths: Vec<StorePath>) -> Result<Vec<bool>, StoreError> {
        Ok(vec![false; paths.len()])
    }

    async fn infos(&mut self, paths: Vec<StorePath>) -> Result<Vec<Option<PathInfo>>, StoreError> {
        let infos = self.0.path_infos(&paths).await;
        infos.map_err(|error| self.0.explain(error))
    }
}
