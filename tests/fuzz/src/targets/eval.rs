//! What evaluators say.

use drover::eval::flake::Metadata;
use drover::eval::list::Entry;
use drover::eval::lockfile::{self, Standing};
use drover::eval::own_config::{self, OwnConfig};
use drover::eval::{Answer, expr, lines, message, pool};
use drover::id::AttrPath;
use drover::nix_compat::{ansi, internal_json};
use serde_json::Value;

const STORE: &str = "/nix/store";

/// One line of nix-eval-jobs.
pub fn jobs(bytes: &[u8]) {
    let below: AttrPath = "checks".parse().unwrap();
    for strict in [false, true] {
        if let Ok(read) = lines::parse(bytes, Some(&below), strict, STORE) {
            checked(&read.path, &read.answer);
        }
    }
}

/// What came of a question for a derivation.
pub fn answer(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let path: AttrPath = "packages.x86_64-linux.a".parse().unwrap();
    let entry = Entry { path: path.clone(), outputs: None, failure: None, check: None };
    checked(&path, &pool::read_answer(&entry, &value, STORE, &["/flake".to_owned()]));
    let asked = Entry { outputs: Some(vec!["out".to_owned()]), ..entry };
    checked(&path, &pool::read_answer(&asked, &value, STORE, &[]));
    if let Ok(own) = serde_json::from_value::<OwnConfig>(value) {
        let _ = own_config::findings(&own, "flake.nix");
    }
}

/// No attr without a name, and nothing to build that is no derivation.
fn checked(path: &AttrPath, answer: &Answer) {
    assert!(!path.parts().is_empty() && path.parts().iter().all(|part| !part.is_empty()));
    assert_eq!(path.to_string().parse::<AttrPath>().as_ref(), Ok(path));
    if let Answer::Drv(drv) = answer {
        assert!(drv.drv.is_derivation());
    }
}

/// `nix flake metadata --json`.
pub fn metadata(bytes: &[u8]) {
    let Ok(metadata) = Metadata::parse(bytes) else { return };
    let Ok(locked) = metadata.locked(Some(0)) else { return };
    let _ = (locked.source(), locked.is_fixed(), locked.work_tree(), locked.args().len());
    lock(locked.locks.to_string().as_bytes());
}

/// A lock file, as Nix gives it.
pub fn lock(bytes: &[u8]) {
    let Ok(locks) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ = lockfile::inputs(&locks);
    let _ = lockfile::findings(&locks, Standing::InStep, 2_000_000_000);
}

/// A line of Nix's log, of its own sort or any other.
pub fn internal_json(bytes: &[u8]) {
    if let Some(message) = internal_json::parse(bytes) {
        let _ = (message.build_log_line(), message.phase());
    }
    let line = String::from_utf8_lossy(bytes);
    let said = message::line(&line);
    let (message::Said::Error(text)
    | message::Said::Warning(text)
    | message::Said::Trace(text)
    | message::Said::Other(text)) = said.unwrap_or(message::Said::Other(ansi::text(bytes)));
    assert!(!text.contains('\u{1b}'));
    let _ = (expr::printed(&text), expr::cut_short(&text));
    let explained = message::explain(&text, |at| at.starts_with('«'));
    assert!(explained.message.len() < (16 << 10) + text.len());
    let _ = explained.position.map(|at| message::relative(&at, &["/flake".to_owned()]));
}
