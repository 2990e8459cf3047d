//! `drover check`: a run over all that a flake offers.

use crate::driver::Mode;
use crate::error::{Error, Result};

use super::Session;
use super::args::{CheckArgs, Place};
use super::run;

/// `drover check`.
pub(super) fn check(session: &Session, args: CheckArgs, place: &Place) -> Result<u8> {
    run::check(&args.select)?;
    let words = args.words(place);
    if let Some(word) = words.what.iter().find(|word| word.split_once('#').is_some_and(|(_, name)| !name.is_empty())) {
        let name = word.split_once('#').map_or("", |(_, name)| name);
        return Err(Error::usage(format!("'{word}' names an attr, and a check is of a whole flake"))
            .hint(format!("drover check --only '{name}'")));
    }
    run::go(session, words, Mode::Check)
}
