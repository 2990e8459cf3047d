//! What drover reads from others, one function for each sort: bytes in, and nothing may panic, hang, or take memory by a
//! length that somebody only claims. Where there is one, a property is asserted: what was read and is written again
//! reads as the same, and what is shown holds no command for whoever shows it.
//!
//! The fuzzers and the test that plays the corpora again both call these functions.

mod caches;
mod config;
mod daemon;
mod eval;
mod nix;
mod records;
mod shown;

/// A sort of foreign bytes: its name, which is that of its corpus, and what is done with them.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("attic", caches::attic),
    ("builder_words", config::builder_words),
    ("cache_info", nix::cache_info),
    ("cachix", caches::cachix),
    ("config_file", config::file),
    ("daemon_hello", daemon::hello),
    ("daemon_reply", daemon::reply),
    ("drv", nix::drv),
    ("eval_answer", eval::answer),
    ("eval_jobs", eval::jobs),
    ("eval_record", records::eval_record),
    ("flake_lock", eval::lock),
    ("flake_metadata", eval::metadata),
    ("forge_event", config::forge_event),
    ("history_entry", records::history_entry),
    ("http", caches::http),
    ("internal_json", eval::internal_json),
    ("keys", nix::keys),
    ("log_text", shown::log_text),
    ("machines", config::machines),
    ("nar_file", nix::nar_file),
    ("narinfo", nix::narinfo),
    ("niks3", caches::niks3),
    ("nix_settings", config::nix_settings),
    ("path_info", daemon::path_info),
    ("plan_file", records::plan_file),
    ("record", records::record),
    ("s3", caches::s3),
    ("store_path", nix::store_path),
    ("words", config::words),
];

/// The function of a target.
#[must_use]
pub fn named(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}
