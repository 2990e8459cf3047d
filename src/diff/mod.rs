//! Attrs + caches → what must be built; attrs + a base → what differs, and why.

pub mod compare;
pub mod load;
pub mod lockstep;
pub mod matrix;
pub mod plan;
pub mod plan_file;
pub mod presence;
pub mod skip;
