//! Places in files of the repository, as CI systems and editors want them. Owns how a position of Nix becomes one.

use std::path::Path;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Relative to the root of the repository, as far as that is known.
    pub file: String,
    /// From 1.
    pub line: Option<u32>,
    /// From 1.
    pub column: Option<u32>,
}

/// The place of a position `file:line:column` that was said of a flake, by its reference with the scheme. `root` is the
/// root of the repository at hand. `None` for what does not lie in it.
#[must_use]
pub fn of(position: &str, flake: &str, root: Option<&Path>) -> Option<Place> {
    let (file, numbers) = numbers(position);
    let within = |path: &Path| Some(path.strip_prefix(root?).ok()?.to_string_lossy().into_owned());
    let file = match local(flake)? {
        _ if file.starts_with('/') => within(Path::new(file))?,
        _ if file.is_empty() || file.starts_with(['«', '<']) => return None,
        // The source of a repository is all of it, wherever in it the flake is.
        Source::Repository => file.to_owned(),
        Source::Directory(dir) => within(&Path::new(dir).join(file)).unwrap_or_else(|| file.to_owned()),
    };
    let mut numbers = numbers.into_iter();
    Some(Place { file, line: numbers.next(), column: numbers.next() })
}

/// A position without the numbers at its end, two at most, and these.
fn numbers(position: &str) -> (&str, Vec<u32>) {
    let mut file = position;
    let mut numbers = Vec::new();
    while let Some((before, number)) = file.rsplit_once(':').filter(|_| numbers.len() < 2)
        && let Ok(number) = number.parse()
    {
        numbers.insert(0, number);
        file = before;
    }
    (file, numbers)
}

/// What positions are relative to.
enum Source<'a> {
    Repository,
    Directory(&'a str),
}

/// Where a flake of this machine is; `None` for others, whose files are not those at hand.
fn local(flake: &str) -> Option<Source<'_>> {
    if flake.starts_with("git+file:") {
        return Some(Source::Repository);
    }
    let dir = flake.strip_prefix("path:").or_else(|| flake.starts_with('/').then_some(flake))?;
    Some(Source::Directory(dir.split(['?', '#']).next().unwrap_or(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_places_in_the_repository() {
        let root = Path::new("/home/me/infra");
        let of = |position: &str, flake: &str| of(position, flake, Some(root)).map(|place| place.file);
        for (position, flake, wanted) in [
            ("sub/flake.nix:1:2", "git+file:///home/me/infra?dir=sub", Some("sub/flake.nix")),
            ("flake.nix:1:2", "path:/home/me/infra/sub?lastModified=1", Some("sub/flake.nix")),
            ("flake.nix:1:2", "path:/elsewhere", Some("flake.nix")),
            ("/home/me/infra/a:b.nix:1:2", "/home/me/infra/default.nix", Some("a:b.nix")),
            ("/nix/store/x-source/lib.nix:1:2", "git+file:///home/me/infra", None),
            ("flake.nix:1:2", "github:acme/infra", None),
            ("«string»:1:2", "git+file:///home/me/infra", None),
        ] {
            assert_eq!(of(position, flake).as_deref(), wanted, "{position} {flake}");
        }
    }

    #[test]
    fn numbers_are_there_or_not() {
        let of = |position: &str| of(position, "git+file:///x", None).unwrap();
        assert_eq!(of("a.nix:12:9"), Place { file: "a.nix".into(), line: Some(12), column: Some(9) });
        assert_eq!(of("flake.lock"), Place { file: "flake.lock".into(), line: None, column: None });
        assert_eq!(of("a.nix:12"), Place { file: "a.nix".into(), line: Some(12), column: None });
    }
}
