//! drover evaluates a flake once, works out which derivations nobody has built yet, builds only those, pushes each
//! result to the caches while the rest still builds, and says where the time went.
//!
//! This page is the map. A run reads as the sentence above: five stages, three ideas that they share, and a shell.
//!
//! | module | what it owns | may use |
//! |---|---|---|
//! | [`id`] | names of things: attr, drv, attempt, builder, cache, run | |
//! | [`event`] | the one public fact type | id |
//! | [`error`] | errors for people, the table of exit codes | event |
//! | [`process`] | the only place that spawns children | |
//! | [`sqlite`] | opening small files that are remembered between runs | |
//! | [`graph`] | the derivation DAG: closure, critical path, cycles (pure) | id, event |
//! | [`sched`] | what to do next (pure state machine) | id, event, graph |
//! | [`nix_compat`] | Nix's formats and protocols over any stream | id, event |
//! | [`store`] | talking to stores and caches | leaves, nix_compat |
//! | [`eval`] | flake → stream of attrs | leaves, graph, nix_compat, store |
//! | [`diff`] | attrs + caches → what must be built | leaves, graph, nix_compat, store |
//! | [`build`] | one attempt on one builder | leaves, graph, nix_compat, store |
//! | [`push`] | outputs → caches | leaves, graph, nix_compat, store |
//! | [`record`] | events → disk, and back; what is kept of runs | leaves, nix_compat |
//! | [`report`] | folds over events: summary, account; every screen that is not live | leaves, record |
//! | [`ui`] | live view and CI log of events | leaves, report |
//! | [`config`] | Settings with provenance; the only reader of the environment | leaves |
//! | [`driver`] | the select loop: inputs in, actions out, clock, shutdown | all but cli |
//! | [`cli`] | words in, Settings out; one file a command | all |
//!
//! "leaves" are id, event, error, process and sqlite. Stages never import each other; the driver connects them.
//! A test (`tests/it/layers.rs`) reads this table and holds the code to it.

pub mod error;
pub mod event;
pub mod id;
pub mod process;
pub mod sqlite;

pub mod graph;
pub mod nix_compat;
pub mod sched;
pub mod store;

pub mod build;
pub mod diff;
pub mod eval;
pub mod push;
pub mod record;

pub mod cli;
pub mod config;
pub mod driver;
pub mod report;
pub mod ui;
