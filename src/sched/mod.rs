//! What to do next: a pure state machine.
//!
//! The driver feeds [`Input`]s to [`Scheduler::handle`] together with the time, and performs the [`Action`]s that come
//! out; nothing here waits, reads a clock or draws lots, so the same inputs always give the same actions. Owns the
//! truth about items (who waits for whom, what runs where, how each ended), builders' slots, retries, and stopping.
//! Does not know how a drv is built or fetched, nor why it is needed.
//!
//! | to change | look at |
//! |---|---|
//! | which drv goes first, which builder gets it | `sketch`, `timeline`, `rank` |
//! | what begins now | `pick` |
//! | what is where, and what it costs to bring it | `transfer` |
//! | what a store does not take because of who made it | `signed` |
//! | what is tried again, where and when | `retry` |
//! | what is made again because it is nowhere any more | `remake` |
//! | how long a run would take on given builders, in virtual time | `forecast` |
//! | what builders lack of what an item needs | `missing` |
//! | what an input does | `handle` |
//! | what keeps the books | `state` |

mod builders;
mod forecast;
mod handle;
mod item;
mod missing;
mod pick;
mod rank;
mod remake;
mod retry;
mod signed;
mod sketch;
mod state;
#[cfg(test)]
mod tests;
mod timeline;
mod transfer;

pub use crate::graph::Work;
pub use builders::Builder;
pub use forecast::{Course, Forecast, Planned, forecast};
pub use item::{Action, Counts, Input, Item, Policy};
pub use retry::{Again, Limit, Retry, retry_of};
pub use state::Scheduler;
