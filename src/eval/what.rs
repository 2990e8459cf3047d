//! The words of a command line that say what is asked for: one flake reference, and names in it. Does not know what
//! the flake holds: `list` matches the names.

use crate::error::Error;
use crate::id::{AttrPath, Kind, System};

/// What was asked for, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct What {
    /// The flake reference, `.` if none was given.
    pub flake: String,
    /// The names in it; none means all that a run takes by default.
    pub names: Vec<Name>,
}

/// One name that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// As typed, without the flake reference and without `^outputs`.
    pub text: String,
    /// The text as an attribute path.
    pub path: AttrPath,
    /// The outputs after `^`: `None` leaves the choice to Nix's rules, an empty list means all (`^*`).
    pub outputs: Option<Vec<String>>,
}

/// Which attrs are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Names that were asked for.
    pub names: Vec<Name>,
    /// `--kind`; empty means [`Kind::DEFAULT`].
    pub kinds: Vec<Kind>,
    /// The systems whose packages, checks, … are taken; `None` means all.
    pub systems: Option<Vec<System>>,
    /// `--only`.
    pub only: Vec<String>,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// All that the flake offers is checked, whatever its kind.
    pub check: Option<Checked>,
}

/// Whose outputs `nix flake check` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Those of this machine; `None`: those of all systems.
    pub system: Option<System>,
}

impl Checked {
    /// Whether Nix looks at outputs for this system.
    #[must_use]
    pub fn looks_at(&self, system: &System) -> bool {
        self.system.as_ref().is_none_or(|own| own == system)
    }
}

impl What {
    /// Takes the words apart. `is_flake` says whether a word is a directory with a flake.nix.
    pub fn parse<S: AsRef<str>>(words: &[S], is_flake: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let mut flake: Option<(String, String)> = None;
        let mut names = Vec::new();
        for word in words.iter().map(AsRef::as_ref) {
            let (reference, fragment) = split(word, &is_flake);
            if let Some(reference) = reference {
                match &flake {
                    Some((known, first)) if *known != reference => {
                        return Err(Error::usage(format!("'{word}' is in another flake than '{first}'"))
                            .hint(format!("drover run '{first}'    then: drover run '{word}'")));
                    }
                    _ => flake = Some((reference, word.to_owned())),
                }
            }
            if let Some(fragment) = fragment.filter(|fragment| !fragment.is_empty()) {
                names.push(Name::parse(&fragment)?);
            }
        }
        Ok(Self { flake: flake.map_or_else(|| ".".to_owned(), |(reference, _)| reference), names })
    }
}

/// A word as flake reference and fragment. With `#` it is as Nix reads it; else it is a reference if it looks like a
/// path or a URL or is a flake's directory, else a name.
fn split(word: &str, is_flake: impl Fn(&str) -> bool) -> (Option<String>, Option<String>) {
    if let Some((reference, fragment)) = word.split_once('#') {
        let reference = if reference.is_empty() { "." } else { reference };
        return (Some(reference.to_owned()), Some(percent(fragment)));
    }
    let quoted = word.find('"').unwrap_or(word.len());
    let looks = word.starts_with(['.', '/', '~']) || word[..quoted].contains([':', '/']);
    if looks || word.is_empty() || is_flake(word) {
        // Nix takes a bare `dir` for a name in the registry.
        let bare = !looks && !word.is_empty();
        return (Some(if bare { format!("./{word}") } else { word.to_owned() }), None);
    }
    (None, Some(word.to_owned()))
}

/// Fragments of URLs are percent-encoded.
fn percent(fragment: &str) -> String {
    if fragment.contains('%') { super::flake::percent_decode(fragment) } else { fragment.to_owned() }
}

impl Name {
    /// Reads a fragment: an attribute path, perhaps with `^outputs`.
    pub fn parse(fragment: &str) -> Result<Self, Error> {
        let (text, outputs) = match fragment.rsplit_once('^') {
            Some((text, "*")) => (text, Some(Vec::new())),
            Some((text, outputs)) if !outputs.contains('"') => {
                (text, Some(outputs.split(',').map(str::to_owned).collect()))
            }
            _ => (fragment, None),
        };
        let text = text.strip_prefix('.').unwrap_or(text);
        if text.contains(['*', '?']) && !text.contains('"') {
            return Err(Error::usage(format!("'{text}' is a glob where a name is wanted"))
                .hint(format!("drover plan --only '{text}'")));
        }
        let path = text.parse::<AttrPath>().map_err(|error| {
            Error::usage(format!("cannot read the name '{text}': {error}"))
                .hint("drover plan .#packages.x86_64-linux.NAME")
        })?;
        Ok(Self { text: text.to_owned(), path, outputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> (String, Vec<String>) {
        let what = What::parse(words, |word| word == "infra").unwrap();
        (what.flake, what.names.into_iter().map(|name| name.text).collect())
    }

    #[test]
    fn words_mean_what_people_mean() {
        for (words, flake, names) in [
            (&[][..], ".", &[][..]),
            (&["."], ".", &[]),
            (&[".#web1"], ".", &["web1"]),
            (&["web1", "db1"], ".", &["web1", "db1"]),
            (&["#web1"], ".", &["web1"]),
            (&["infra"], "./infra", &[]),
            (&["infra#web1"], "infra", &["web1"]),
            (&["./infra"], "./infra", &[]),
            (&["github:a/b?dir=c#x.y"], "github:a/b?dir=c", &["x.y"]),
            (&["git+file:///a"], "git+file:///a", &[]),
            (&["packages.x86_64-linux.\"a/b\""], ".", &["packages.x86_64-linux.\"a/b\""]),
            (&["/a/b", "web1"], "/a/b", &["web1"]),
        ] {
            let got = parsed(words);
            assert_eq!(got, (flake.to_owned(), names.iter().map(|&n| n.to_owned()).collect()), "{words:?}");
        }
    }

    #[test]
    fn outputs_are_split_off() {
        assert_eq!(Name::parse("lib^dev,doc").unwrap().outputs, Some(vec!["dev".into(), "doc".into()]));
        assert_eq!(Name::parse("lib^*").unwrap().outputs, Some(vec![]));
        assert_eq!(Name::parse("lib").unwrap().outputs, None);
    }

    #[test]
    fn two_flakes_and_globs_are_refused() {
        assert!(What::parse(&["a#x", "b#y"], |_| false).unwrap_err().message.contains("another flake"));
        assert!(What::parse(&["web*"], |_| false).unwrap_err().hint.unwrap().contains("--only 'web*'"));
        assert!(What::parse(&["a..b"], |_| false).is_err());
    }
}
