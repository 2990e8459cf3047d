//! Reads .drv files into what the graph keeps. The most files of a run are read here, so it works on all cores.

use std::sync::Arc;

use crate::event::{Class, Failure};
use crate::graph::{DrvInfo, OutputInfo};
use crate::id::StorePath;
use crate::nix_compat::drv::{self, Derivation};
use crate::store::bundle::BundleError;
use crate::store::error::StoreError;
use crate::store::local::LocalStore;

/// Why a drv cannot be taken into the graph.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its .drv cannot be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// It cannot be read from the plan file.
    #[error(transparent)]
    Plan(#[from] BundleError),
    /// The path of an output cannot be computed.
    #[error("{path} has an output without a valid path")]
    Output {
        /// Which .drv.
        path: StorePath,
        /// Why.
        source: nix_derivation::Error,
    },
}

impl From<&LoadError> for Failure {
    fn from(error: &LoadError) -> Self {
        let class = match error {
            LoadError::Read(error) => error.class(),
            LoadError::Plan(_) | LoadError::Output { .. } => Class::Internal,
        };
        Self { class, message: crate::error::chain(error).into(), position: None }
    }
}

/// Reads these .drvs; results in the same order.
pub async fn load(store: &LocalStore, paths: Vec<StorePath>) -> Vec<Result<DrvInfo, LoadError>> {
    // With this setting Nix asks caches even where a derivation asks not to.
    let always = store.settings().always_allow_substitutes;
    let found = move |path: &StorePath, drv: Result<Derivation, StoreError>| {
        let mut info = info(path, &drv?)?;
        info.substitutes |= always;
        Ok(info)
    };
    store.read_drvs_as(paths, found).await
}

/// What the graph keeps of a derivation.
pub fn info(path: &StorePath, parsed: &Derivation) -> Result<DrvInfo, LoadError> {
    let outputs =
        drv::output_paths(parsed).map_err(|source| LoadError::Output { path: path.clone(), source })?.into_iter();
    let inputs = parsed.input_derivations().iter();
    Ok(DrvInfo {
        path: path.clone(),
        name: parsed.name().to_owned(),
        system: drv::system(parsed),
        outputs: outputs.map(|(name, path)| OutputInfo { name: name.into(), path }).collect(),
        inputs: inputs
            .map(|(input, wanted)| (input.clone(), wanted.outputs().iter().map(|name| Arc::from(&**name)).collect()))
            .collect(),
        sources: parsed.input_sources().iter().cloned().collect(),
        features: drv::required_features(parsed),
        prefer_local: drv::prefers_local(parsed),
        substitutes: drv::allows_substitutes(parsed),
        fixed_output: drv::is_fixed_output(parsed),
        dynamic: drv::has_dynamic_inputs(parsed),
    })
}
