//! Whether a path in a store is a program. Follows links as whoever uses the store sees them: where its files are
//! elsewhere than its paths say, the links in it point to where it claims to be.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

/// Links that are followed before it is given up, as Linux does (`MAXSYMLINKS`, path_resolution(7)).
const LINKS: usize = 40;

/// What keeps a path from being a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is nothing.
    Missing,
    /// It is a directory or something else that no one can run.
    NoFile,
    /// Nobody may execute it.
    NotExecutable,
}

impl Fault {
    /// `does not exist`
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => "does not exist",
            Self::NoFile => "is no file",
            Self::NotExecutable => "is not executable",
        }
    }
}

/// Looks at a path below `store_dir`, whose files are in `files`. `None` if it is a program.
///
/// # Errors
/// If a part of it cannot be read.
pub fn fault(files: &Path, store_dir: &Path, path: &Path) -> io::Result<Option<Fault>> {
    let Some(real) = locate(files, store_dir, path)? else { return Ok(Some(Fault::Missing)) };
    let metadata = match fs::metadata(real) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Fault::Missing)),
        Err(error) => return Err(error),
    };
    Ok(match metadata.permissions().mode() & 0o111 {
        _ if !metadata.is_file() => Some(Fault::NoFile),
        0 => Some(Fault::NotExecutable),
        _ => None,
    })
}

/// Where a path leads; `None` if there is nothing.
fn locate(files: &Path, store_dir: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let mut inside = match path.strip_prefix(store_dir) {
        Ok(inside) => inside.to_owned(),
        Err(_) => return Ok(Some(path.to_owned())),
    };
    for _ in 0..LINKS {
        let (at, target, rest) = match first_link(files, &inside)? {
            Walked::Missing => return Ok(None),
            Walked::End => return Ok(Some(files.join(inside))),
            Walked::Link { at, target, rest } => (at, target, rest),
        };
        inside = match target.strip_prefix(store_dir) {
            Ok(target) => target.join(rest),
            Err(_) if target.is_absolute() => return Ok(Some(target.join(rest))),
            Err(_) => at.join(target).join(rest),
        };
    }
    Ok(None)
}

enum Walked {
    Missing,
    End,
    /// A link: the directory in the store that it is in, where it points to, and what comes below it.
    Link {
        at: PathBuf,
        target: PathBuf,
        rest: PathBuf,
    },
}

/// Goes down a path to the first link in it.
fn first_link(files: &Path, inside: &Path) -> io::Result<Walked> {
    let mut at = PathBuf::new();
    let mut parts = inside.components();
    while let Some(part) = parts.next() {
        match part {
            Component::ParentDir => {
                at.pop();
                continue;
            }
            Component::Normal(part) => at.push(part),
            _ => continue,
        }
        let real = files.join(&at);
        match fs::symlink_metadata(&real) {
            Ok(metadata) if metadata.is_symlink() => {
                at.pop();
                let rest = parts.as_path().to_owned();
                return Ok(Walked::Link { at, target: fs::read_link(real)?, rest });
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Walked::Missing);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Walked::End)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_where_the_store_claims_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        fs::create_dir_all(files.join("a/libexec")).unwrap();
        let program = files.join("a/libexec/x");
        fs::write(&program, "").unwrap();
        fs::create_dir(files.join("b")).unwrap();
        let links = [
            ("/store/a/libexec", "b/bin"),
            ("../a/libexec/x", "b/relative"),
            ("/store/b/round", "b/round"),
            ("/store/a/nothing", "b/nowhere"),
            ("/bin/sh", "b/sh"),
        ];
        links.iter().for_each(|(target, link)| symlink(target, files.join(link)).unwrap());
        let fault = |path: &str| fault(&files, Path::new("/store"), Path::new(path)).unwrap();
        for link in ["/store/b/bin/x", "/store/b/relative", "/store/b/../b/bin/x"] {
            assert_eq!(fault(link), Some(Fault::NotExecutable), "{link}");
        }
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        for link in ["/store/b/bin/x", "/store/b/relative", "/store/b/sh"] {
            assert_eq!(fault(link), None, "{link}");
        }
        assert_eq!(fault("/store/b/bin"), Some(Fault::NoFile));
        for link in ["/store/b/nowhere", "/store/b/round", "/store/c", "/store/a/libexec/x/y"] {
            assert_eq!(fault(link), Some(Fault::Missing), "{link}");
        }
    }
}
