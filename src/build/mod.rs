//! One attempt to build one drv on one builder: what it needs is brought there, over warm connections, and then it is
//! built.
//!
//! Owns what is asked of a builder and what its answer means. Does not decide what is built where (`sched`), and
//! knows nothing of the graph: an attempt is told the input paths that it needs.

mod attempt;
mod bring;
mod copying;
mod fetch;
mod holdings;
mod origin;
mod pool;
mod reading;
mod site;
mod sources;

pub use attempt::{Attempt, Limits, News, run};
pub use bring::{Brought, NotBrought, ToBring, bring};
pub use fetch::{FetchError, Piece, fetch, fetch_each, path_info};
pub use holdings::Holdings;
pub use origin::Origin;
pub use pool::{Caches, Lent, Pool};
pub use reading::read_nar;
pub use site::{SharedRoots, Site, Sites, in_time};
pub use sources::Sources;
