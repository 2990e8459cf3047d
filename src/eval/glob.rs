//! `--only` and `--exclude`: globs over dotted attr names. Does not know what attrs there are.
//!
//! `*` and `?` stay within one part of a name, `**` goes across parts, parts that hold dots are quoted as Nix prints
//! them. A glob without a dot (outside quotes) is held against the last part.

use globset::{GlobBuilder, GlobMatcher};

use crate::error::Error;
use crate::id::AttrPath;

/// Stands for `/` inside a part, since `/` stands for the dot between parts.
const SLASH: char = '\u{1}';

/// One glob.
#[derive(Debug, Clone)]
pub struct Glob {
    matcher: GlobMatcher,
    last_only: bool,
}

/// Globs that select and globs that drop.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    only: Vec<Glob>,
    exclude: Vec<Glob>,
}

impl Glob {
    /// Reads a glob. `flag` is where it comes from, for the error.
    pub fn new(text: &str, flag: &str) -> Result<Self, Error> {
        let bad = |cause: &str| {
            Error::usage(format!("cannot read the glob '{text}' of {flag}: {cause}"))
                .hint(format!("{flag} 'checks.*.vm-*'    * stays within a part, ** goes across parts"))
        };
        let mut pattern = String::new();
        let (mut quoted, mut dots) = (false, false);
        for c in text.chars() {
            match c {
                '"' => quoted = !quoted,
                '.' if !quoted => {
                    dots = true;
                    pattern.push('/');
                }
                '/' => pattern.push(SLASH),
                c => pattern.push(c),
            }
        }
        if quoted {
            return Err(bad("a quote is not closed"));
        }
        if pattern.is_empty() {
            return Err(bad("it is empty"));
        }
        let glob = GlobBuilder::new(&pattern)
            .literal_separator(true)
            .build()
            .map_err(|error| bad(&error.kind().to_string()))?;
        Ok(Self { matcher: glob.compile_matcher(), last_only: !dots && !pattern.contains("**") })
    }

    /// Whether the name matches.
    #[must_use]
    pub fn matches(&self, path: &AttrPath) -> bool {
        let part = |part: &str| part.replace('/', &SLASH.to_string());
        if self.last_only {
            return self.matcher.is_match(part(path.last()));
        }
        let parts: Vec<String> = path.parts().iter().map(|text| part(text)).collect();
        self.matcher.is_match(parts.join("/"))
    }
}

impl Filter {
    /// From the values of `--only` and `--exclude` (or of `[attrs]` in drover.toml).
    pub fn new(only: &[String], exclude: &[String]) -> Result<Self, Error> {
        let read =
            |globs: &[String], flag: &str| globs.iter().map(|glob| Glob::new(glob, flag)).collect::<Result<_, _>>();
        Ok(Self { only: read(only, "--only")?, exclude: read(exclude, "--exclude")? })
    }

    /// Whether the attr stays: it matches one of `only`, if there are any, and none of `exclude`.
    #[must_use]
    pub fn keeps(&self, path: &AttrPath) -> bool {
        (self.only.is_empty() || self.only.iter().any(|glob| glob.matches(path)))
            && !self.exclude.iter().any(|glob| glob.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_the_help_says() {
        for (glob, name, wanted) in [
            ("web*", "nixosConfigurations.web1", true),
            ("web*", "nixosConfigurations.db1", false),
            ("nixos*", "nixosConfigurations.web1", false),
            ("*.installer", "nixosConfigurations.installer", true),
            ("*.installer", "packages.x86_64-linux.installer", false),
            ("**.installer", "packages.x86_64-linux.installer", true),
            ("checks.*.vm-*", "checks.x86_64-linux.vm-login", true),
            ("checks.*.vm-*", "checks.x86_64-linux.lint", false),
            ("checks.**", "checks.x86_64-linux.lint", true),
            ("**", "checks.x86_64-linux.lint", true),
            ("checks.*", "checks.x86_64-linux.lint", false),
            ("packages.*.\"tool-1.2\"", "packages.x86_64-linux.\"tool-1.2\"", true),
            ("\"tool-1.2\"", "packages.x86_64-linux.\"tool-1.2\"", true),
            ("tool-1.2", "packages.x86_64-linux.\"tool-1.2\"", false),
            ("{web,db}1", "nixosConfigurations.db1", true),
            ("a*", "x.\"a/b\"", true),
        ] {
            let path: AttrPath = name.parse().unwrap();
            assert_eq!(Glob::new(glob, "--only").unwrap().matches(&path), wanted, "{glob} {name}");
        }
    }

    #[test]
    fn bad_globs_are_refused() {
        for glob in ["", "\"a", "a[", "{a"] {
            let error = Glob::new(glob, "--only").unwrap_err();
            assert!(error.message.contains("--only"), "{error}");
        }
    }
}
