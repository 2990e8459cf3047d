//! Talking to stores and caches.
//!
//! Owns how they are reached and what they are asked. Does not decide what to ask (diff, build, push) and knows no
//! events.

pub mod any;
pub mod bundle;
pub mod cache;
pub mod error;
pub mod local;
pub mod post;
pub mod program;
pub mod remote;
pub mod roots;
pub mod session;
pub mod settings;
pub(crate) mod stopwatch;
mod uri;
