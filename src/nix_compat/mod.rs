//! Nix's formats and protocols, over any stream.

pub mod narinfo;
