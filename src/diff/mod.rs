//! Attrs + caches → what must be built.
