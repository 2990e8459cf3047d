//! Names of things: the small value types that every module shares.
//!
//! Owns what identifies an attr, a drv, an attempt, a builder, a cache and a run. Does not own what is known
//! about them: that is in `graph` (drvs), `config` (builders, caches) and `event` (what happened).

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use nix_derivation::{StoreDir, StorePath};

/// A map from store paths, for look-ups only.
pub type PathMap<T> = HashMap<StorePath, T, PathState>;

/// How store paths are hashed in memory: their digests are random already, so that a few steps do, from a start that
/// nobody can guess.
#[derive(Debug, Clone, Copy)]
pub struct PathState(u64);

impl Default for PathState {
    fn default() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

impl BuildHasher for PathState {
    type Hasher = PathHasher;

    fn build_hasher(&self) -> PathHasher {
        PathHasher(self.0)
    }
}

/// See [`PathState`].
#[derive(Debug)]
pub struct PathHasher(u64);

impl Hasher for PathHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // An odd number with its bits spread (2^64 by the golden ratio) carries each bit upwards, the turn downwards.
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The number as an index into a vector kept in the same order.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index! {
    /// One derivation, a node of the graph. Numbered in order of discovery, valid within one run.
    DrvId
}
index! {
    /// One thing asked for. Numbered in the order in which names were listed, valid within one run.
    AttrId
}
index! {
    /// One try of one drv on one builder, numbered over the whole run.
    AttemptId
}
index! {
    /// A store that can build; 0 is the local one.
    BuilderId
}
index! {
    /// A binary cache, in order of priority.
    CacheId
}

/// One invocation of drover. Shown as the last 8 characters of its random part are not unique in time, so the
/// screen uses the first characters that tell it from its neighbours (see `record::list`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub ulid::Ulid);

impl RunId {
    /// The 8 characters people see when nothing else is known about other runs.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[..8].to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ulid::Ulid::from_str(text).map(Self)
    }
}

/// A platform as Nix writes it, `x86_64-linux`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct System(pub String);

impl System {
    /// Whether it is one of the levels that Nix adds to a machine's own system (`x86_64-v3-linux`): not another kind
    /// of machine, but how new one is.
    #[must_use]
    pub fn is_level(&self) -> bool {
        self.0.strip_prefix("x86_64-v").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for System {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A derivation's name as package and version (`nginx`, `1.29.4`): cut at the first `-` that no letter follows, as Nix's
/// `builtins.parseDrvName` does it. Without one, all of it is the package.
#[must_use]
pub fn split_name(name: &str) -> (&str, &str) {
    let bytes = name.as_bytes();
    let cut =
        (0..bytes.len()).find(|&i| bytes[i] == b'-' && bytes.get(i + 1).is_some_and(|b| !b.is_ascii_alphabetic()));
    cut.map_or((name, ""), |cut| (&name[..cut], &name[cut + 1..]))
}

/// What sort of flake output an attr is: decides where its derivation is found and how people call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// `nixosConfigurations.NAME`: the drv is `config.system.build.toplevel`; on the screen, a host.
    NixosConfigurations,
    /// `darwinConfigurations.NAME`: the drv is `config.system.build.toplevel` (or `system`).
    DarwinConfigurations,
    /// `homeConfigurations.NAME`: the drv is `activationPackage`.
    HomeConfigurations,
    /// `packages.SYSTEM.NAME`.
    Packages,
    /// `checks.SYSTEM.NAME`.
    Checks,
    /// `devShells.SYSTEM.NAME`.
    DevShells,
    /// `formatter.SYSTEM`.
    Formatter,
    /// `apps.SYSTEM.NAME`: the drv is the one behind `program`.
    Apps,
    /// `hydraJobs.…`, nested at any depth.
    HydraJobs,
    /// `legacyPackages.SYSTEM.…`: never listed, only by name.
    LegacyPackages,
    /// Any other output, only by its full name.
    Other,
}

impl Kind {
    /// All kinds that can be listed, in the order in which they are shown.
    pub const LISTED: [Self; 9] = [
        Self::NixosConfigurations,
        Self::DarwinConfigurations,
        Self::HomeConfigurations,
        Self::Packages,
        Self::Checks,
        Self::DevShells,
        Self::Formatter,
        Self::Apps,
        Self::HydraJobs,
    ];

    /// What a run takes when nobody asks for anything (design §2, Defaults).
    pub const DEFAULT: [Self; 5] =
        [Self::NixosConfigurations, Self::DarwinConfigurations, Self::HomeConfigurations, Self::Packages, Self::Checks];

    /// The flake output of this name; `None` for names that drover gives no meaning.
    #[must_use]
    pub fn of_output(name: &str) -> Option<Self> {
        Self::LISTED.into_iter().chain([Self::LegacyPackages]).find(|kind| kind.output() == name)
    }

    /// The name of the flake output; empty for [`Kind::Other`].
    #[must_use]
    pub fn output(self) -> &'static str {
        match self {
            Self::NixosConfigurations => "nixosConfigurations",
            Self::DarwinConfigurations => "darwinConfigurations",
            Self::HomeConfigurations => "homeConfigurations",
            Self::Packages => "packages",
            Self::Checks => "checks",
            Self::DevShells => "devShells",
            Self::Formatter => "formatter",
            Self::Apps => "apps",
            Self::HydraJobs => "hydraJobs",
            Self::LegacyPackages => "legacyPackages",
            Self::Other => "",
        }
    }

    /// What people call one of these, and several.
    #[must_use]
    pub fn noun(self, count: usize) -> &'static str {
        let (one, many) = match self {
            Self::NixosConfigurations => ("host", "hosts"),
            Self::DarwinConfigurations => ("darwin host", "darwin hosts"),
            Self::HomeConfigurations => ("home", "homes"),
            Self::Packages | Self::LegacyPackages => ("package", "packages"),
            Self::Checks => ("check", "checks"),
            Self::DevShells => ("dev shell", "dev shells"),
            Self::Formatter => ("formatter", "formatters"),
            Self::Apps => ("app", "apps"),
            Self::HydraJobs => ("hydra job", "hydra jobs"),
            Self::Other => ("other attr", "other attrs"),
        };
        if count == 1 { one } else { many }
    }
}

/// A path of attribute names below the flake's outputs, printed as Nix does: parts that are no plain identifier
/// are quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AttrPath(Vec<String>);

/// Why a text is no attribute path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttrPathError {
    /// Nothing between two dots, or nothing at all.
    #[error("an attribute name is empty in '{0}'")]
    Empty(String),
    /// A quote that is not closed, or text right after a closing quote.
    #[error("a quote is not closed, or is followed by text, in '{0}'")]
    Quote(String),
}

impl AttrPath {
    /// A path of these parts, outermost first.
    #[must_use]
    pub fn new(parts: Vec<String>) -> Self {
        Self(parts)
    }

    /// The parts, outermost first.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// The kind, as the first part says.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.first().and_then(|first| Kind::of_output(first)).unwrap_or(Kind::Other)
    }

    /// The last part, unquoted: what people call a host.
    #[must_use]
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

impl fmt::Display for AttrPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            if is_identifier(part) {
                f.write_str(part)?;
            } else {
                write!(f, "\"{}\"", part.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${"))?;
            }
        }
        Ok(())
    }
}

/// Whether Nix prints this attribute name without quotes.
fn is_identifier(part: &str) -> bool {
    let mut chars = part.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '\''))
}

impl FromStr for AttrPath {
    type Err = AttrPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = match rest.strip_prefix('"') {
                Some(quoted) => unquote(quoted).ok_or_else(|| AttrPathError::Quote(text.to_owned()))?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            if part.is_empty() {
                return Err(AttrPathError::Empty(text.to_owned()));
            }
            parts.push(part);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(Self(parts)),
                None => return Err(AttrPathError::Quote(text.to_owned())),
            }
        }
    }
}

/// Reads up to the closing quote; gives the text and what follows the quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            other => out.push(other),
        }
    }
    None
}

impl From<AttrPath> for String {
    fn from(path: AttrPath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for AttrPath {
    type Error = AttrPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attr_paths_quote_like_nix_and_read_back() {
        for text in ["nixosConfigurations.web1", "packages.x86_64-linux.\"tool-1.2\"", "a.\"b\\\"c\".d'"] {
            let path: AttrPath = text.parse().unwrap();
            assert_eq!(path.to_string(), text);
        }
        assert_eq!("packages.x86_64-linux.\"tool-1.2\"".parse::<AttrPath>().unwrap().last(), "tool-1.2");
    }

    #[test]
    fn bad_attr_paths_are_refused() {
        for text in ["", "a..b", "a.", "\"open", "\"a\"b"] {
            assert!(text.parse::<AttrPath>().is_err(), "{text}");
        }
    }
}
