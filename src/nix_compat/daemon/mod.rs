//! A client of Nix's daemon ("worker") protocol over any pair of streams.
//!
//! Speaks 1.35 (Nix 2.19, Lix), 1.37 (2.20–2.23) and 1.38 with an empty feature set (2.24 and later, Determinate).
//! One [`Connection`] does one operation at a time; whatever breaks it in the middle of one makes it refuse further
//! use. Does not know how a connection comes about (`store::local`, `store::ssh`) nor what to do next.
//!
//! | file | noun |
//! |---|---|
//! | `handshake` | versions, trust |
//! | `message` | what the daemon says while it works: log lines, activities |
//! | `error` | what goes wrong, and whether the connection survives it |
//! | `answer` | how replies are read |
//! | `path_info`, `build_result`, `basic_drv`, `options` | types of the protocol |
//! | `connection` | sending, receiving, the poison flag |
//! | `ops` | one method an operation |
//! | `nar` | operations that move NARs |

mod answer;
mod basic_drv;
mod build_result;
mod connection;
mod error;
mod handshake;
mod message;
mod nar;
mod ops;
mod options;
mod path_info;

pub use basic_drv::{BasicDerivation, BasicOutput};
pub use build_result::{BuildMode, BuildResult, BuildStatus, DerivedPath, SingleDerivedPath};
pub use connection::{Connection, Reader, Writer};
pub use error::{DaemonError, RemoteError};
pub use handshake::{CLIENT_MAGIC, OFFERED_MINOR, OLDEST_MINOR, Peer, SERVER_MAGIC, Trust};
pub use message::{
    Activity, ActivityKind, ErrorDetail, Field, Level, Message, Messages, Position, ResultKind, Tag, TraceLine,
};
pub use ops::{Missing, Op};
pub use options::ClientOptions;
pub use path_info::PathInfo;
