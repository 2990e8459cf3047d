//! What tests share: real Nixes, and fakes that speak the real protocols.

pub mod nix;
