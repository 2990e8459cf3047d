//! Where derivations are read from: the store that evaluators write to, or the file of a plan.

use std::sync::Arc;

use crate::id::StorePath;
use crate::nix_compat::drv::Derivation;
use crate::store::bundle::{Bundle, BundleError};
use crate::store::error::StoreError;
use crate::store::local::LocalStore;

/// See the module's page.
#[derive(Debug, Clone)]
pub enum Origin {
    /// In a store.
    Store(LocalStore),
    /// In a file.
    Bundle(Arc<Bundle>),
}

/// A derivation cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum OriginError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("{} is not in the plan file {}, since a cache had it when the plan was made", .path.name(), .file)]
    Elsewhere { path: StorePath, file: String },
}

impl Origin {
    /// Reads one derivation.
    pub(super) async fn read_drv(&self, path: &StorePath) -> Result<Derivation, OriginError> {
        match self {
            Self::Store(store) => match store.read_drvs(vec![path.clone()]).await.pop() {
                Some(drv) => Ok(drv?),
                None => Err(StoreError::NoDrv(path.clone()).into()),
            },
            Self::Bundle(bundle) => match bundle.drv(path) {
                Some(drv) => Ok(drv?),
                None => Err(OriginError::Elsewhere { path: path.clone(), file: bundle.file().display().to_string() }),
            },
        }
    }
}
