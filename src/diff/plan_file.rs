//! A plan that can be carried elsewhere: what every attr asks for, what had to be done when it was made, and the
//! derivations of what has to be built with all that they need. Whoever has the file needs neither the flake nor an
//! evaluator.
//!
//! Owns the [`Head`] and how derivations are read from the file. The file itself, and what is checked of it, is
//! `store::bundle`. Version 1 of the head: fields may be added, not renamed.
//!
//! All derivations below an attr are in the file, and all their sources, unless the attr was in a cache when the plan
//! was made: of such an attr the file knows where its outputs are, and no more.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Failure, Status};
use crate::graph::{DrvInfo, OutputInfo};
use crate::id::{AttrPath, Kind, StoreDir, StorePath, System};
use crate::store::bundle::Bundle;
use crate::store::local::LocalStore;

use super::load::{self, LoadError};

/// Version of the head that is written; the first number to change if a field has to.
pub const VERSION: u32 = 1;

/// What a plan says. Store paths are absolute.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Head {
    /// [`VERSION`].
    pub version: u32,
    /// The drover that wrote it.
    pub drover: String,
    /// Where the attrs come from.
    pub flake: Option<FlakeHead>,
    /// The attrs, in order.
    pub attrs: Vec<AttrHead>,
    /// What had to be built.
    pub build: Vec<DrvHead>,
    /// Paths that had to be fetched for that.
    pub fetch: Vec<String>,
    /// Sources that are not in the file because a cache of Nix's own list has them.
    #[serde(default)]
    pub elsewhere: Vec<String>,
}

/// The locked flake of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlakeHead {
    /// As the user gave it, with the scheme.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The locked reference.
    pub locked: String,
    /// Its revision.
    pub rev: Option<String>,
    /// Files that differ from the revision.
    pub dirty_files: Option<u32>,
}

/// One attr of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttrHead {
    /// Its full path.
    pub attr: AttrPath,
    /// Its kind.
    pub kind: Kind,
    /// What people call it.
    pub name: String,
    /// What had to be done for it.
    pub status: Status,
    /// Its derivation.
    pub drv: Option<DrvOfAttr>,
    /// Why it has none, although nothing is wrong.
    pub nothing: Option<String>,
    /// Why it does not evaluate.
    pub error: Option<Failure>,
}

/// The derivation of an attr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrvOfAttr {
    /// Its .drv.
    pub path: String,
    /// Its `name`.
    pub name: String,
    /// Its `system`.
    pub system: System,
    /// The outputs that are wanted; `None` for a path that is only known after building.
    pub outputs: BTreeMap<String, Option<String>>,
    /// Where it is defined, `file:line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// A drv that had to be built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrvHead {
    /// Its .drv.
    pub drv: String,
    /// Seconds that it was expected to take, where history knew.
    pub seconds: Option<f64>,
}

/// A plan that was read.
#[derive(Debug)]
pub struct PlanFile {
    /// What it says.
    pub head: Head,
    /// Its derivations and sources.
    pub bundle: Arc<Bundle>,
    /// What is known of derivations that are not in it.
    stubs: HashMap<StorePath, DrvInfo>,
    /// Seconds that drvs were expected to take.
    expected: HashMap<StorePath, f64>,
}

impl PlanFile {
    /// Reads and checks a plan for a store in this directory. Blocks.
    pub fn open(file: &Path, dir: &StoreDir) -> Result<Self> {
        let bundle = Bundle::open(file, dir)?;
        let broken = |what: &str| {
            Error::usage(format!("{} cannot be used: {what}", file.display()))
                .hint("drover plan -o FILE    writes a new one")
        };
        let head: Head = serde_json::from_slice(bundle.head())
            .map_err(|error| broken(&format!("what it says of its attrs cannot be read ({error})")))?;
        if head.version != VERSION {
            return Err(broken(&format!("it says version {}, and this drover reads {VERSION}", head.version))
                .hint("use the same drover for plan and run"));
        }
        let parse = |path: &str| dir.parse_path(path.as_bytes()).map_err(|_| broken(&format!("'{path}' is no path")));
        let mut stubs = HashMap::new();
        for drv in head.attrs.iter().filter_map(|attr| attr.drv.as_ref()) {
            let path = parse(&drv.path)?;
            if !path.is_derivation() {
                return Err(broken(&format!("{} is no derivation", drv.path)));
            }
            let outputs = drv.outputs.iter().map(|(name, path)| {
                let path = path.as_deref().map(parse).transpose()?;
                Ok(OutputInfo { name: name.as_str().into(), path })
            });
            let outputs = outputs.collect::<Result<Vec<_>>>()?;
            if bundle.place(&path).is_none() {
                let stub = stubs.entry(path.clone()).or_insert_with(|| stub(path, drv));
                let new =
                    outputs.into_iter().filter(|output| stub.outputs.iter().all(|known| known.name != output.name));
                let new: Vec<OutputInfo> = new.collect();
                stub.outputs.extend(new);
            }
        }
        let seconds = head.build.iter().filter_map(|drv| Some((&drv.drv, drv.seconds?)));
        let expected = seconds.map(|(drv, seconds)| Ok((parse(drv)?, seconds))).collect::<Result<_>>()?;
        Ok(Self { head, bundle: Arc::new(bundle), stubs, expected })
    }

    /// Seconds that a drv was expected to take when the plan was made.
    #[must_use]
    pub fn expected(&self, drv: &StorePath) -> Option<f64> {
        self.expected.get(drv).copied()
    }

    /// Reads derivations, those that are not in the file from the store; results in the same order. Of those that are
    /// in neither, what the plan says of the attr is enough to find its outputs.
    pub async fn load(
        &self,
        store: &LocalStore,
        paths: Vec<StorePath>,
    ) -> Vec<std::result::Result<DrvInfo, LoadError>> {
        let always = store.settings().always_allow_substitutes;
        let (bundle, asked) = (Arc::clone(&self.bundle), paths.clone());
        let read = move |path: &StorePath| {
            let drv = bundle.drv(path)?;
            Some(drv.map_err(LoadError::from).and_then(|drv| {
                let mut info = load::info(path, &drv)?;
                info.substitutes |= always;
                Ok(info)
            }))
        };
        // Most of a plan is read here, so it works on all cores.
        let reading = tokio::task::spawn_blocking(move || asked.par_iter().map(read).collect::<Vec<_>>());
        let found = match reading.await {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let missing = paths.iter().zip(&found).filter(|(_, found)| found.is_none());
        let missing: Vec<StorePath> = missing.map(|(path, _)| path.clone()).collect();
        let mut stored = load::load(store, missing.clone()).await.into_iter();
        let mut next = |path: &StorePath| match stored.next() {
            Some(Ok(info)) => Ok(info),
            Some(Err(error)) => self.stubs.get(path).cloned().ok_or(error),
            None => Err(LoadError::from(crate::store::error::StoreError::NoDrv(path.clone()))),
        };
        paths.iter().zip(found).map(|(path, found)| found.unwrap_or_else(|| next(path))).collect()
    }
}

/// What is known of a derivation that is not at hand: nothing but its outputs.
fn stub(path: StorePath, drv: &DrvOfAttr) -> DrvInfo {
    DrvInfo {
        path,
        name: drv.name.clone(),
        system: drv.system.clone(),
        outputs: Vec::new(),
        inputs: Vec::new(),
        sources: Vec::new(),
        features: Vec::new(),
        prefer_local: false,
        substitutes: true,
        fixed_output: false,
        dynamic: false,
    }
}
