//! What is known of one derivation. Owns the plain data; how drvs hang together is in `dag`.

use std::sync::Arc;

use crate::id::{StorePath, System};

/// What has to be done for a drv that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Run its builder.
    Build,
    /// Get its wanted outputs from a cache.
    Fetch,
}

/// One output of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputInfo {
    /// `out`, `dev`, …
    pub name: Arc<str>,
    /// Where it will be; `None` if that is only known after building.
    pub path: Option<StorePath>,
}

/// A parsed .drv as it is handed to [`Graph::load`](super::Graph::load).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrvInfo {
    /// The .drv itself.
    pub path: StorePath,
    /// The derivation's `name`.
    pub name: String,
    /// Its platform.
    pub system: System,
    /// Its outputs.
    pub outputs: Vec<OutputInfo>,
    /// The drvs that it needs, and which outputs of each.
    pub inputs: Vec<(StorePath, Vec<Arc<str>>)>,
    /// The sources that it needs (`inputSrcs`).
    pub sources: Vec<StorePath>,
    /// `requiredSystemFeatures`.
    pub features: Vec<String>,
    /// `preferLocalBuild`.
    pub prefer_local: bool,
    /// Caches may be asked for it: `allowSubstitutes` is not false.
    pub substitutes: bool,
    /// Its output is known by hash beforehand.
    pub fixed_output: bool,
    /// Some input is an output of a drv that only exists after another build.
    pub dynamic: bool,
}

/// What the graph keeps of a loaded drv. Its path is [`Graph::path`](super::Graph::path), its inputs are edges.
/// The fields are those of [`DrvInfo`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of DrvInfo")]
pub struct Drv {
    pub name: String,
    pub system: System,
    pub outputs: Vec<OutputInfo>,
    pub sources: Vec<StorePath>,
    pub features: Vec<String>,
    pub prefer_local: bool,
    pub substitutes: bool,
    pub fixed_output: bool,
    pub dynamic: bool,
}

impl Drv {
    /// The path of one output; `None` if there is no such output or its path is not known before building.
    #[must_use]
    pub fn output_path(&self, name: &str) -> Option<&StorePath> {
        self.outputs.iter().find(|output| &*output.name == name)?.path.as_ref()
    }

    /// Its own outputs or inputs are only known after some build, whatever its inputs are.
    pub(super) fn unknown_by_itself(&self) -> bool {
        self.dynamic || self.outputs.iter().any(|output| output.path.is_none())
    }

    /// Its output paths are fixed by hash, so what is downstream does not depend on what is upstream of it.
    pub(super) fn shields(&self) -> bool {
        self.fixed_output && self.outputs.iter().all(|output| output.path.is_some())
    }
}
