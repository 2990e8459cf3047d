//! `drover log`: the log of the last attempt to build something.

use crate::error::{Error, Fault, Result};
use crate::record;
use crate::report::text::Line;

use super::args::{LogArgs, Place};
use super::{Session, print, say, state_dir};

/// Prints the log as the builder wrote it.
pub(super) fn log(session: &Session, args: &LogArgs, place: &Place) -> Result<u8> {
    let state_dir = state_dir(session, place.state_dir.as_deref())?;
    let found = record::find_log(&state_dir, &args.what)?;
    let text = std::fs::read(&found.path)
        .map_err(|error| Error::new(Fault::Unreachable, format!("cannot read {}: {error}", found.path.display())))?;
    if text.is_empty() {
        let words = format!("{} printed nothing in run {}", found.name, found.run.short);
        say(&[Line::new().text(words)], session.style());
    }
    print(&text)?;
    Ok(0)
}
