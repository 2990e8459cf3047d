//! Attrs + caches → what must be built.

pub mod presence;
