//! Flake → stream of attrs.
//!
//! Owns locking ([`flake`]), what is begun before anything is known ([`ahead`]), what the words of a command line ask for ([`what`], [`glob`]), the evaluator processes
//! ([`pool`], [`worker`]) and their memory ([`budget`], `crew`), what attrs import from derivations ([`imports`]), and
//! what is remembered of an evaluation ([`record`]). Also what a flake as a whole is to be blamed for ([`lockfile`],
//! [`own_config`]). It does not decide what happens to a
//! derivation: answers go to the driver as [`EvalMsg`]s.
//!
//! Attrs are evaluated by `nix repl` processes ([`worker`]); what they are asked is Nix code in `nix/eval` ([`expr`]).

pub mod ahead;
mod base;
pub mod budget;
mod crew;
pub mod expr;
pub mod findings;
pub mod flake;
pub mod git;
pub mod glob;
pub mod imports;
pub mod jobs;
pub mod lines;
pub mod list;
pub mod lockfile;
pub mod memory;
pub mod message;
pub mod nix;
mod outputs;
pub mod own_config;
pub mod pool;
mod queue;
pub mod record;
pub mod rule;
pub mod seat;
mod serve;
pub mod what;
pub mod worker;

pub use budget::Budget;
pub use flake::{FlakeOptions, LockError, Locked};
pub use imports::Imports;
pub use memory::Cost;
pub use nix::Nix;
pub use pool::{Ack, Answer, DrvAnswer, EvalMsg, EvalOptions, Evaluator, Import, Imported, Listed, Meta, listed};
pub use queue::Expected;
pub use record::Record;
pub use rule::Rule;
pub use what::{Checked, Selection, What};
