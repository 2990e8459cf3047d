//! One attempt to build one drv on one builder, and the warm connections that attempts use.
//!
//! Owns what is asked of a builder and what its answer means. Does not decide what is built where (`sched`), and
//! knows nothing of the graph: an attempt is told the input paths that it needs.

mod attempt;
mod fetch;
mod import;
mod pool;

pub use attempt::{Attempt, Limits, News, run};
pub use fetch::{FetchError, Piece, fetch, fetch_each};
pub use import::{Origin, copy};
pub use pool::{Caches, Lent, Pool};
