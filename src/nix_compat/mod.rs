//! Nix's formats and protocols, over any stream.
//!
//! Owns the bytes: derivations, narinfos, the daemon's wire protocol, the log that Nix prints as JSON, and what its
//! messages mean. Does not open sockets or processes (that is `store`), nor files but those of a NAR that is written, and
//! decides nothing.

pub mod ansi;
pub mod daemon;
pub mod drv;
pub mod error_class;
pub mod hex;
pub mod internal_json;
pub mod nar;
pub mod narinfo;
pub mod wire;
