//! Attrs + caches → what must be built.

pub mod load;
pub mod matrix;
pub mod plan;
pub mod plan_file;
pub mod presence;
