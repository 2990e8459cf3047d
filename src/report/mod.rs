//! Folds over events: what a run did, what failed, where the time went, and the screens that say so.
//!
//! Owns every text that people read about a finished or planned run, and the `--json` document. Does not own the
//! view of a run while it happens (`ui`) nor where records are kept (`record`). [`summary::Summary`] is the one fold;
//! all else is a pure function of it, but for the screens that are about no run: [`home`], [`doctor`], [`settings`],
//! [`cache`].

pub mod account;
pub mod affected;
pub mod annotations;
pub mod badge;
pub mod before;
pub mod builders;
pub mod cache;
pub mod chain;
pub mod check;
pub mod closing;
pub mod compare;
pub mod doctor;
pub mod entry;
pub mod estimate;
pub mod failure;
pub mod flaky;
pub mod gate;
pub mod goals;
pub mod harmless;
pub mod history;
pub mod hits;
pub mod home;
pub mod html;
pub mod imports;
pub mod json;
pub mod junit;
pub mod left_out;
pub mod list;
pub mod matrix;
pub mod metric;
pub mod missing;
pub mod notify;
pub mod number;
pub mod origins;
pub mod otlp;
pub mod past;
pub mod place;
pub mod plan;
pub mod prometheus;
pub mod pushed;
pub mod schedule;
pub mod sections;
pub mod settings;
pub mod slow;
pub mod stats;
pub mod step_summary;
pub mod summary;
pub mod text;
pub mod time;
pub mod timeline;
pub mod trace;
pub mod trend;
pub mod what_if;
pub mod why;
pub mod zip;
