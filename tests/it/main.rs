//! The one integration binary. Each module is one story; `layers` also checks that no file is forgotten here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what went wrong by panicking")]

#[path = "../support/story.rs"]
#[allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
mod story;

mod account;
mod records;
mod screens;
