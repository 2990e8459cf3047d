//! What a check demands.

use jiff::civil::Date;

use super::super::file::QuarantineTable;
use super::super::{File, Words};
use crate::error::{Error, Result};
use crate::id::Kind;

/// What a check demands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckSettings {
    /// What is built.
    pub build: CheckBuild,
    /// What Nix does not refuse fails the check, too.
    pub strict: bool,
    /// What was broken on the base does not fail it.
    pub allow_broken_base: bool,
    /// `nix flake check` runs beside it.
    pub beside_nix: bool,
    /// Attrs that may fail for a while, by name.
    pub quarantine: Vec<Quarantine>,
}

/// What a check builds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CheckBuild {
    /// `checks`.
    #[default]
    Checks,
    /// `checks`, and these kinds.
    Also(Vec<Kind>),
    /// Nothing.
    Nothing,
}

/// `[quarantine.NAME]`: attrs that may fail until a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Its name.
    pub name: String,
    /// A glob of attrs, as `--only` takes it.
    pub attr: String,
    /// Why.
    pub reason: String,
    /// Where that is worked on.
    pub ticket: Option<String>,
    /// The first day on which failures count again.
    pub expires: Date,
}

impl CheckBuild {
    /// Whether attrs of this kind are built.
    #[must_use]
    pub fn holds(&self, kind: Kind) -> bool {
        match self {
            Self::Nothing => false,
            Self::Checks => kind == Kind::Checks,
            Self::Also(kinds) => kind == Kind::Checks || kinds.contains(&kind),
        }
    }
}

impl CheckSettings {
    /// What flags and the file say; `kinds` are those of the flags or the file.
    pub(super) fn of(words: &Words, kinds: Option<&[Kind]>, file: &File) -> Result<Self> {
        let build = match (words.no_build, words.build) {
            (true, _) => CheckBuild::Nothing,
            (false, true) => CheckBuild::Also(kinds.unwrap_or(&Kind::DEFAULT).to_vec()),
            (false, false) => CheckBuild::Checks,
        };
        Ok(Self {
            build,
            strict: words.strict,
            allow_broken_base: words.allow_broken_base,
            beside_nix: words.beside_nix,
            quarantine: file.quarantine.iter().map(|(name, table)| quarantine(name, table)).collect::<Result<_>>()?,
        })
    }
}

fn quarantine(name: &str, table: &QuarantineTable) -> Result<Quarantine> {
    let expires = table.expires.parse().map_err(|_| {
        let message = format!("drover.toml: '{}' of [quarantine.{name}] is no day", table.expires);
        Error::usage(message).hint("expires = \"2026-12-24\"")
    })?;
    Ok(Quarantine {
        name: name.to_owned(),
        attr: table.attr.clone(),
        reason: table.reason.clone(),
        ticket: table.ticket.clone(),
        expires,
    })
}
