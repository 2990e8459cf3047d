//! What tests share: real Nixes, and fakes that speak the real protocols.

pub mod fake_cache;
pub mod fake_daemon;
pub mod nix;
