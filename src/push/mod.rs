//! Outputs → caches.
