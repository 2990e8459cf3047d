//! What binary caches say about a path: `.narinfo` records, their hashes and signatures.
//!
//! Owns only the choice of the crate that reads and writes them; everything here is a re-export, so that another
//! crate can take its place.

pub use nix_derivation::nixbase32;
pub use nix_derivation::{CAHash, NixHash};
pub use nix_narinfo::{
    Compression, KeyError, MAX_NARINFO_SIZE, NarInfo, NarInfoBuilder, NixSignature, ParseError, TrustedPublicKey,
};
