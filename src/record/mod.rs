//! Events → disk, and back.
