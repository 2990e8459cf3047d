//! `[skip]`: changes of paths that somebody declares to affect nothing. Pure; a declaration is not believed any further
//! than this, and `drover affected --audit` holds it against what Nix says.

use globset::{GlobBuilder, GlobMatcher};

/// Globs of paths in a repository. One without a slash is held against the last part of a path; else `*` stays within a
/// part and `**` goes across.
#[derive(Debug, Clone, Default)]
pub struct Skip {
    globs: Vec<(String, bool, GlobMatcher)>,
}

impl Skip {
    /// Reads the globs.
    ///
    /// # Errors
    /// If one of them is none.
    pub fn new(globs: &[String]) -> Result<Self, globset::Error> {
        let read = |glob: &String| {
            let matcher = GlobBuilder::new(glob).literal_separator(true).build()?.compile_matcher();
            Ok((glob.clone(), !glob.contains('/'), matcher))
        };
        Ok(Self { globs: globs.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// Whether nothing is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    /// The glob that names a path.
    fn glob_of(&self, path: &str) -> Option<&str> {
        let last = path.rsplit('/').next().unwrap_or(path);
        let matches = |(_, last_only, matcher): &&(String, bool, GlobMatcher)| {
            matcher.is_match(if *last_only { last } else { path })
        };
        self.globs.iter().find(matches).map(|(glob, _, _)| glob.as_str())
    }

    /// The changed paths, each with the glob that names it, if there are any and globs name every one.
    #[must_use]
    pub fn covers(&self, changed: &[String]) -> Option<Vec<(String, String)>> {
        let named = changed.iter().map(|path| Some((path.clone(), self.glob_of(path)?.to_owned())));
        named.collect::<Option<Vec<_>>>().filter(|named| !named.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_altogether_is_skipped() {
        let skip = Skip::new(&["docs/**", "*.md", "a/*.txt"].map(str::to_owned)).unwrap();
        let covers = |paths: &[&str]| skip.covers(&paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>());
        assert_eq!(covers(&["docs/a/b.nix"]).unwrap(), [("docs/a/b.nix".to_owned(), "docs/**".to_owned())]);
        assert!(covers(&["README.md", "x/y.md"]).is_some());
        assert!(covers(&["a/b.txt"]).is_some());
        assert!(covers(&["a/b/c.txt"]).is_none(), "* stays within a part");
        assert!(covers(&["README.md", "flake.nix"]).is_none());
        assert!(covers(&[]).is_none(), "nothing has changed, so nothing is declared about it");
        assert!(covers(&["mydocs/a"]).is_none());
    }
}
