//! Which attrs are taken.

use super::super::File;
use super::super::machines::is_system;
use super::super::near::nearest;
use super::{Words, or_else_list};
use crate::error::{Error, Result};
use crate::id::{Kind, System};

/// Which attrs are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttrSettings {
    /// WHAT, as typed; empty means the flake here.
    pub what: Vec<String>,
    /// Kinds; `None` is [`Kind::DEFAULT`].
    pub kinds: Option<Vec<Kind>>,
    /// Globs of which one must match.
    pub only: Vec<String>,
    /// Globs of which none may match.
    pub exclude: Vec<String>,
    /// Systems; `None` is those that some builder can build.
    pub systems: Option<Vec<System>>,
    /// Take every system.
    pub all_systems: bool,
}

impl AttrSettings {
    /// Whether nobody has named attrs, or ways to leave some out.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        let named = |word: &String| word.contains('#');
        self.kinds.is_none()
            && self.only.is_empty()
            && self.exclude.is_empty()
            && self.systems.is_none()
            && !self.what.iter().any(named)
    }

    /// What flags say, else the file.
    pub(super) fn of(words: &Words, file: &File) -> Result<Self> {
        let table = &file.attrs;
        let kinds = if words.kind.is_empty() { table.kinds.as_ref() } else { Some(&words.kind) };
        let systems = if words.systems.is_empty() { table.systems.as_ref() } else { Some(&words.systems) };
        Ok(Self {
            what: words.what.clone(),
            kinds: kinds.map(|names| names.iter().map(|name| kind_named(name)).collect()).transpose()?,
            only: or_else_list(&words.only, &table.only),
            exclude: [words.exclude.as_slice(), &table.exclude].concat(),
            systems: systems.map(|list| list.iter().map(|name| system_named(name)).collect()).transpose()?,
            all_systems: words.all_systems,
        })
    }
}

/// A system as Nix writes it: `x86_64-linux`.
fn system_named(name: &str) -> Result<System> {
    match is_system(name) {
        true => Ok(System::from(name)),
        false => {
            Err(Error::usage(format!("'{name}' is no system")).hint("drover run --systems x86_64-linux,aarch64-linux"))
        }
    }
}

/// A kind by the name of its flake output.
fn kind_named(name: &str) -> Result<Kind> {
    if let Some(kind) = Kind::of_output(name) {
        return Ok(kind);
    }
    let names = Kind::LISTED.map(Kind::output);
    let error = Error::usage(format!("no kind is called '{name}'"));
    let by_noun = Kind::LISTED.into_iter().find(|kind| [1, 2].iter().any(|n| kind.noun(*n) == name));
    if let Some(kind) = by_noun {
        return Err(error.hint(format!("drover run --kind {}", kind.output())));
    }
    Err(error.hint(match nearest(name, names) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("kinds are {}", names.join(", ")),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::resolve;
    use super::*;

    #[test]
    fn kinds_are_checked() {
        let words = Words { kind: vec!["nixosConfiguration".into()], ..Words::default() };
        assert_eq!(resolve(words, &[], "").unwrap_err().hint.as_deref(), Some("did you mean 'nixosConfigurations'?"));
    }
}
