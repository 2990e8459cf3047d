//! Attrs + caches → what must be built; attrs + a base → what differs.

pub mod compare;
pub mod load;
pub mod plan;
pub mod presence;
