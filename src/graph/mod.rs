//! The derivation DAG: closure, critical path, cycles. Pure.
//!
//! Owns which drvs are known, what each needs of which other, and what follows from the shape alone (opaqueness,
//! longest paths). Does not know what is valid anywhere (`diff`), nor what runs (`sched`), and reads no file: somebody
//! parses a .drv and hands over a [`DrvInfo`].

mod dag;
mod drv;
mod paths;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use dag::Graph;
pub use drv::{Drv, DrvInfo, OutputInfo, Work};
pub use paths::CriticalPath;
