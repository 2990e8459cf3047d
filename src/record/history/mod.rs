//! What is kept of runs when their events are long gone: an [`Entry`] a run, in numbers.
//!
//! Owns the form of an entry, and the file in which the entries of a machine and of those that it shares with are put
//! together ([`History`]). Does not own how an entry follows from a run (`report::entry`), nor what follows from many
//! (`report`).

mod ask;
mod entry;
mod file;
mod folder;
mod merge;
mod retention;
mod rows;
mod tables;
#[cfg(test)]
pub(crate) mod testing;

pub use ask::{Depth, Filter, Took};
pub use entry::{AttrTimes, Build, BuilderUse, CacheUse, Counters, Entry, Origin, Outcome, Part, Spell, Trouble};
pub use file::{History, HistoryError};
pub use folder::{Folder, MAX_PACKED, pack, unpack};
pub use retention::{Day, KEPT_DAYS, KEPT_RUNS};
