//! What is known of one drv.

use crate::event::{DrvOutcome, Failure, Moment, OutputPath, Text};
use crate::id::{AttemptId, AttrId, DrvId, System};

use super::{Return, Span};

/// A drv that had to be built or fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Drv {
    /// Absolute path of the .drv.
    pub path: Text,
    /// `nginx-1.29.4`.
    pub name: Text,
    /// Its platform.
    pub system: System,
    /// The needed drvs that come before it.
    pub inputs: Vec<DrvId>,
    /// It is fetched, not built.
    pub fetch: bool,
    /// Its outputs are unknown before building.
    pub opaque: bool,
    /// What a machine must offer to build it.
    pub features: Vec<Text>,
    /// The attr that first asked for it.
    pub attr: Option<AttrId>,
    /// Expected seconds on a builder with a speed of 1, where history knows.
    pub expected: Option<f64>,
    /// Its outputs as far as known; those of the successful attempt where there is one.
    pub outputs: Vec<OutputPath>,
    /// When it was (last) said to be needed.
    pub needed: Moment,
    /// Its attempts, in order.
    pub attempts: Vec<AttemptId>,
    /// Its fetches, in order.
    pub fetches: Vec<Fetch>,
    /// How its outputs came into the local store from where they were built.
    pub returns: Vec<Return>,
    /// The final word, and when.
    pub ended: Option<(Moment, DrvOutcome)>,
}

impl Drv {
    /// What it asks of a builder: `aarch64-linux with kvm`.
    #[must_use]
    pub fn asks(&self) -> String {
        let features: Vec<&str> = self.features.iter().map(|feature| &**feature).collect();
        let features = if features.is_empty() { String::new() } else { format!(" with {}", features.join(", ")) };
        format!("{}{features}", self.system)
    }
}

/// One fetch of a drv's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// From when to when.
    pub span: Span,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}
