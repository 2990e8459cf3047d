//! What is kept of a .drv: all of it while it is being compared, then only what its users have to know.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::own::variables;
use super::rewrite::blanked;
use crate::id::StorePath;
use crate::nix_compat::drv::{self, Derivation};

/// How far a .drv has been read.
#[derive(Debug, Default)]
pub(super) enum Reading {
    /// Nobody needs it yet.
    #[default]
    No,
    /// It is asked for.
    Asked,
    /// All of it is here.
    Here(Box<Derivation>),
    /// It was here.
    Gone,
    /// It cannot be read.
    Failed,
}

/// What is known of one .drv.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) path: StorePath,
    pub(super) reading: Reading,
    /// Once it was read: output → the text by which it is referred to.
    pub(super) outputs: BTreeMap<String, String>,
    /// Once it was read: equal for derivations that say the same but for hashes.
    pub(super) shape: u64,
    pub(super) fixed: bool,
    /// Pairs that need all of it.
    pub(super) pins: u32,
}

impl Known {
    pub(super) fn new(path: StorePath) -> Self {
        Self { path, reading: Reading::No, outputs: BTreeMap::new(), shape: 0, fixed: false, pins: 0 }
    }

    /// It was read once, or will never be.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.reading, Reading::Here(_) | Reading::Gone | Reading::Failed)
    }

    /// The derivation, if all of it is here.
    pub(super) fn drv(&self) -> Option<&Derivation> {
        match &self.reading {
            Reading::Here(drv) => Some(drv),
            _ => None,
        }
    }

    /// Its name without `.drv`.
    pub(super) fn name(&self) -> &str {
        self.path.name().strip_suffix(".drv").unwrap_or(self.path.name())
    }

    /// Takes in what was read.
    pub(super) fn read(&mut self, drv: Derivation) {
        self.outputs = drv::output_texts(&drv, &self.path).unwrap_or_default();
        self.shape = shape(&drv);
        self.fixed = drv::is_fixed_output(&drv);
        self.reading = Reading::Here(Box::new(drv));
    }

    /// Nobody needs all of it any more.
    pub(super) fn unpin(&mut self) {
        self.pins = self.pins.saturating_sub(1);
        if self.pins == 0 && matches!(self.reading, Reading::Here(_)) {
            self.reading = Reading::Gone;
        }
    }
}

/// A number for all that a derivation says but its hashes.
fn shape(drv: &Derivation) -> u64 {
    let mut hasher = DefaultHasher::new();
    (drv.name(), drv.system()).hash(&mut hasher);
    blanked(drv.builder().as_bytes()).hash(&mut hasher);
    for argument in drv.arguments() {
        blanked(argument.as_bytes()).hash(&mut hasher);
    }
    for (name, value) in variables(drv) {
        name.hash(&mut hasher);
        blanked(&value).hash(&mut hasher);
    }
    hasher.finish()
}
