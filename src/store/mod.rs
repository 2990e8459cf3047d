//! Talking to stores and caches.

pub mod cache;
