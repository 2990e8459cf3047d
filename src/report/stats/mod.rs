//! Statistics that survive noise: what can be said of times that are measured on shared machines, from few runs. Pure;
//! what is drawn at random is drawn from a seed, so that the same numbers always give the same answer.
//!
//! Medians and ranks instead of means, since one slow run in eight is usual; exact tests where there are few numbers.

mod center;
mod drift;
mod rank;
mod rate;
mod shift;

pub use center::{mad, median, modified_z, quantile};
pub use drift::{Drift, change_point, drift};
pub use rank::{mann_whitney, p_greater};
pub use rate::{Rate, benjamini_hochberg, wilson};
pub use shift::{Shift, hodges_lehmann, shift};
