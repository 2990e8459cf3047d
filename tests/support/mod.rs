//! What tests share: real Nixes, fakes that speak the real protocols, and the real drover.

pub mod fake_cache;
pub mod fake_daemon;
pub mod nix;
pub mod site;
