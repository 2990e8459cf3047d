//! What tests share: real Nixes, and fakes that speak the real protocols.

pub mod fake_cache;
pub mod fake_daemon;
pub mod nix;
#[allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
pub mod story;
