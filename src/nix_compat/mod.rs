//! Nix's formats and protocols, over any stream.
//!
//! Owns the bytes: derivations, narinfos, the daemon's wire protocol, the log that Nix prints as JSON, and what its
//! messages mean. Does not open files, sockets or processes (that is `store`), and decides nothing.

pub mod ansi;
pub mod daemon;
pub mod drv;
pub mod error_class;
pub mod hex;
pub mod internal_json;
pub mod narinfo;
pub mod wire;
