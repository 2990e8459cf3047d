//! `drover log`: the log of an attempt to build something, the last if nothing else is asked for.

use crate::error::{Error, Fault, Result};
use crate::record;
use crate::report::number::plural;
use crate::report::text::{Line, Paint};

use super::args::{LogArgs, Place};
use super::{Session, print_foreign, say, state_dir};

/// Prints the log as the builder wrote it.
pub(super) fn log(session: &Session, args: &LogArgs, place: &Place) -> Result<u8> {
    let state_dir = state_dir(session, place.state_dir.as_deref())?;
    let found = record::find_log(&state_dir, &args.what)?;
    let attempts = found.earlier.len() + 1;
    let path = match args.attempt {
        None => found.path.as_path(),
        Some(number) => found.attempt(number).ok_or_else(|| {
            let there = plural(attempts, "attempt of it has a log", "attempts of it have a log");
            let message = format!("there is no attempt {number} of {} in run {}: {there}", found.name, found.run.short);
            Error::usage(message).hint(format!("drover log {} --attempt {attempts}", args.what))
        })?,
    };
    let text = std::fs::read(path)
        .map_err(|error| Error::new(Fault::Unreachable, format!("cannot read {}: {error}", path.display())))?;
    if attempts > 1 && args.attempt.is_none() {
        let words = format!("attempt {attempts} of {attempts}; the first: drover log {} --attempt 1", args.what);
        say(&[Line::new().paint(Paint::Dim, words)], session.style());
    }
    if text.is_empty() {
        let words = format!("{} printed nothing in run {}", found.name, found.run.short);
        say(&[Line::new().text(words)], session.style());
    }
    print_foreign(session, &text)?;
    Ok(0)
}
