//! Attrs + caches → what must be built.

pub mod load;
pub mod plan;
pub mod presence;
