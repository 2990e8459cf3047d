//! What `drover cache …` says: one struct a command, which is its document too, and the screen that is made of it.

pub mod prune;
pub mod status;
pub mod verify;
pub mod warm;

use super::text::{Line, Paint};

/// Names that are listed before they are only counted.
const NAMED: usize = 10;

/// `acme  file:///srv/cache`, and what follows.
fn head(name: &str, url: &str, more: &str) -> Line {
    let line = Line::new().paint(Paint::Bold, name);
    // A URL of `--push-to` is its own name.
    let line = if name == url { line } else { line.text(format!("  {url}")) };
    if more.is_empty() { line } else { line.text(format!("  {more}")) }
}
