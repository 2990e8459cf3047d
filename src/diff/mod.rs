//! Attrs + caches → what must be built; two evaluations → what changed.

pub mod load;
pub mod lockstep;
pub mod plan;
pub mod presence;
