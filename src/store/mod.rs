//! Talking to stores and caches.
