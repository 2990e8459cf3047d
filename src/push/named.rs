//! From what people type to a store path: a store path, something inside of one, or a symlink to either (`./result`).

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::id::{StoreDir, StorePath};

/// Links that are followed at most.
const LINKS: usize = 40;

/// The store path that a word names. Looks at symlinks only; whether the path is valid is another question.
pub fn store_path(word: &str, here: &Path, dir: &StoreDir) -> Result<StorePath, Error> {
    let mut at = here.join(word);
    for _ in 0..LINKS {
        if let Some(path) = in_store(&at, dir) {
            return path;
        }
        at = match follow(&at) {
            Ok(Some(target)) => target,
            Ok(None) => return Err(not_there(word, dir, "it is not in the store and no link into it")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(not_there(word, dir, "there is no such file"));
            }
            Err(error) => return Err(not_there(word, dir, &error.to_string())),
        };
    }
    Err(not_there(word, dir, "too many links"))
}

/// The store path that this is, or is inside of; `None` if it is elsewhere.
fn in_store(path: &Path, dir: &StoreDir) -> Option<Result<StorePath, Error>> {
    let name = path.strip_prefix(dir.as_str()).ok()?.components().next()?;
    let absolute = format!("{}/{}", dir.as_str(), name.as_os_str().to_string_lossy());
    Some(dir.parse_path(absolute.as_bytes()).map_err(|error| {
        Error::usage(format!("'{absolute}' is no store path: {error}")).hint(format!("ls {}", dir.as_str()))
    }))
}

/// Where a link leads; `None` if it is none. Links among the directories above are followed too.
fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let above = std::fs::canonicalize(above)?;
    let whole = above.join(name);
    if std::fs::symlink_metadata(&whole)?.is_symlink() {
        return std::fs::read_link(&whole).map(|target| Some(above.join(target)));
    }
    Ok((whole != path).then_some(whole))
}

fn not_there(word: &str, dir: &StoreDir, why: &str) -> Error {
    let hint = format!("drover push {}/HASH-NAME    or ./result, a link to one", dir.as_str());
    Error::usage(format!("cannot push '{word}': {why}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_into_the_store_and_no_further() {
        let temp = tempfile::tempdir().unwrap();
        let here = temp.path().canonicalize().unwrap();
        let dir = StoreDir::new("/our/store".to_owned()).unwrap();
        let name = "7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-hello-1.0";
        let target = format!("/our/store/{name}");
        symlink(&target, here.join("result")).unwrap();
        symlink("result", here.join("second")).unwrap();
        std::fs::create_dir(here.join("deep")).unwrap();
        symlink("../second", here.join("deep/third")).unwrap();
        symlink("deep", here.join("other")).unwrap();
        symlink("loop", here.join("loop")).unwrap();
        std::fs::write(here.join("file"), "").unwrap();
        for word in [&target, &format!("{target}/bin/hello"), "result", "./second", "deep/third", "other/third"] {
            let path = store_path(word, &here, &dir).map_err(|error| error.message);
            assert_eq!(path.map(|path| path.to_basename()), Ok(name.to_owned()), "{word}");
        }
        let why = |word: &str| store_path(word, &here, &dir).unwrap_err().message;
        assert!(why("file").contains("no link into it"));
        assert!(why("nothing").contains("no such file"));
        assert!(why("loop").contains("too many links"));
        assert!(why("/our/store/hello").contains("is no store path"));
        assert!(why("/our/store").contains("no such file"));
    }
}
