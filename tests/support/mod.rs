//! What tests share: real Nixes, fakes that speak the real protocols, and the real drover.

pub mod attic_server;
#[allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
pub mod browser;
pub mod bucket;
pub mod cachix;
#[allow(unreachable_pub, reason = "a story uses it")]
pub mod chaos;
pub mod deadline;
#[allow(unreachable_pub, reason = "each story uses what it needs")]
pub mod eval_jobs;
pub mod exchanges;
pub mod fake_cache;
pub mod fake_daemon;
pub mod farm_lab;
pub mod farm_site;
pub mod fault_proxy;
pub mod forge;
pub mod front;
pub mod history;
#[allow(unreachable_pub, reason = "a story uses it")]
pub mod keys;
pub mod niks3_server;
pub mod nix;
pub mod package_set;
#[allow(unreachable_pub, reason = "each story uses what it needs")]
pub mod perfetto;
#[allow(unreachable_pub, reason = "each story uses what it needs")]
pub mod program;
#[allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
pub mod runner;
pub mod service;
pub mod site;
pub mod sshd;
#[allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
pub mod story;
#[allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
pub mod story_farm;
#[allow(dead_code, unreachable_pub, reason = "each story uses what it needs")]
pub mod story_known;
#[allow(unreachable_pub, reason = "each story uses what it needs")]
pub mod stub;
#[allow(dead_code, unreachable_pub, reason = "each test uses what it needs")]
pub mod virtual_run;
