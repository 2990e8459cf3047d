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
//!
//! # Who may say what
//!
//! Everything below comes from somebody else. All of it is read within bounds that do not follow a length that was
//! claimed; none of it is a path, a command, a format or a colour to drover.
//!
//! | who | what is taken from them | what they cannot do by it | held by |
//! |---|---|---|---|
//! | a flake | attrs, names, errors, warnings; which derivations there are | set Nix's or drover's options (`nixConfig` only with `--accept-flake-config`), leave the directory by a name, speak to a terminal or a CI system | [`eval`], [`report::harmless`], `tests/it/hostile.rs` |
//! | a branch of somebody else | `drover.toml` for `[attrs]` only; a work tree, which may hold symlinks | choose caches, builders or keys; have a file written through a symlink | [`config`], `tests/it/hostile.rs` |
//! | a builder | which outputs it has built, its logs, its load | have a result taken that the store would not take from it; hold up a run for longer than its limits | [`store::remote`], [`build`] |
//! | a build's log | lines | speak to a terminal or a CI system, fill memory or disk | [`nix_compat::ansi`], [`record`], `tests/it/check_forge.rs` |
//! | a cache | which paths it has, NARs, times to wait | have something taken without a signature by a trusted key; learn a login that is another host's; lead out of its own directory; unpack to more than it said | [`store::cache`], `tests/it/hostile.rs` |
//! | the forge | the event of a workflow | anything but the revision that is compared with, the names of branches, and whether it is a fork | [`config`] |
//! | a plan file | derivations and sources, to be built by whoever takes it | put something at a path that its content does not lead to, or pass it off as signed | [`store::bundle`] |
//! | shared evaluations and history | answers of earlier runs | be believed without the key that sealed them; history is not sealed, and only estimates come of it | [`eval`], [`record`] |
//!
//! Secrets are read where they are used, have no `Debug`, and are in no argument, log or record: `tests/it/secrets.rs`.

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
