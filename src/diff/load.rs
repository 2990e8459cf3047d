//! Reads .drv files into what the graph keeps. The most files of a run are read here, so it works on all cores.
//!
//! Owns the way from bytes to [`DrvInfo`]; where the bytes come from is given in.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use crate::event::{Class, Failure};
use crate::graph::{DrvInfo, OutputInfo};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::drv;

/// Largest .drv that is read, in bytes. The largest of real package sets have 2 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Why a .drv could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Where it should be.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any derivation.
    #[error("{path} has {bytes} bytes, too many for a derivation")]
    Size {
        /// Which file.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// It is no derivation.
    #[error("{path} is no derivation that drover can read")]
    Parse {
        /// Which file.
        path: String,
        /// Why.
        source: drv::DrvError,
    },
}

impl From<&LoadError> for Failure {
    fn from(error: &LoadError) -> Self {
        Self { class: Class::Internal, message: crate::error::chain(error).into(), position: None }
    }
}

/// Reads these .drvs below the physical place of the store directory, in parallel; results in the same order.
#[must_use]
pub fn read_all(root: &Path, dir: &StoreDir, paths: &[StorePath]) -> Vec<Result<DrvInfo, LoadError>> {
    // Below a handful the threads cost more than they bring.
    if paths.len() < 8 {
        return paths.iter().map(|path| read(root, dir, path)).collect();
    }
    paths.par_iter().map(|path| read(root, dir, path)).collect()
}

fn read(root: &Path, dir: &StoreDir, path: &StorePath) -> Result<DrvInfo, LoadError> {
    let file = root.join(path.to_basename());
    let shown = || file.display().to_string();
    let failed = |source| LoadError::Read { path: shown(), source };
    let bytes = std::fs::metadata(&file).map_err(failed)?.len();
    if bytes > MAX_BYTES {
        return Err(LoadError::Size { path: shown(), bytes });
    }
    let text = std::fs::read(&file).map_err(failed)?;
    info(&text, dir, path).map_err(|source| LoadError::Parse { path: shown(), source })
}

/// Parses one .drv.
pub fn info(text: &[u8], dir: &StoreDir, path: &StorePath) -> Result<DrvInfo, drv::DrvError> {
    let parsed = drv::parse(text, path, dir)?;
    let inputs = parsed.input_derivations().iter();
    Ok(DrvInfo {
        path: path.clone(),
        name: parsed.name().to_owned(),
        system: drv::system(&parsed),
        outputs: drv::output_paths(&parsed)?
            .into_iter()
            .map(|(name, path)| OutputInfo { name: name.into(), path })
            .collect(),
        inputs: inputs
            .map(|(input, wanted)| (input.clone(), wanted.outputs().iter().map(|name| Arc::from(&**name)).collect()))
            .collect(),
        sources: parsed.input_sources().iter().cloned().collect(),
        features: drv::required_features(&parsed),
        prefer_local: drv::prefers_local(&parsed),
        substitutes: drv::allows_substitutes(&parsed),
        fixed_output: drv::is_fixed_output(&parsed),
        dynamic: drv::has_dynamic_inputs(&parsed),
    })
}
