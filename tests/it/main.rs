//! The one integration binary. Each module is one story; `layers` also checks that no file is forgotten here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what went wrong by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod account;
mod affected;
mod attempt_cut;
mod builders;
mod cache;
mod cache_faults;
mod cli;
mod daemon_cut;
mod daemon_fake;
mod daemon_golden;
mod daemon_real;
mod doctor;
mod doctor_builders;
mod eval;
mod eval_flake;
mod eval_many;
mod eval_memory;
mod eval_record;
mod farm_faults;
mod farm_loss;
mod farm_run;
mod farm_stop;
mod gc;
mod imports;
mod killed;
mod lab;
mod layers;
mod matrix;
mod package_faults;
mod package_set;
mod pipeline;
mod pipeline_failures;
mod pipeline_output;
mod pipeline_plan;
mod pipeline_stop;
mod pipeline_trust;
mod pipeline_users;
mod plan_file;
mod push;
mod push_http;
mod push_queue;
mod records;
mod remote_dial;
mod remote_faults;
mod remote_life;
mod revision;
mod screens;
mod share;
mod sources;
mod why;
mod why_base;
