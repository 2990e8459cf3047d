//! `--out-link`: symlinks to results, which are roots as long as they exist.

use std::path::{Path, PathBuf};

use crate::build::{Caches, Pool};
use crate::error::{Error, Fault, Result};
use crate::id::StorePath;

/// `PREFIX`, `PREFIX-1`, …, and `PREFIX-dev` for other outputs than `out`, as `nix build` names them.
pub(super) fn names(prefix: &Path, results: &[Vec<(String, StorePath)>]) -> Vec<(PathBuf, StorePath)> {
    let mut links = Vec::new();
    for (i, outputs) in results.iter().enumerate() {
        for (output, path) in outputs {
            let mut name = prefix.as_os_str().to_owned();
            if i > 0 {
                name.push(format!("-{i}"));
            }
            if output != "out" {
                name.push(format!("-{output}"));
            }
            links.push((PathBuf::from(name), path.clone()));
        }
    }
    links
}

/// Makes the links and registers them as roots. A link that is there is replaced if it is a symlink.
pub(super) async fn make(pool: &Pool, links: Vec<(PathBuf, StorePath)>) -> Result<Vec<PathBuf>> {
    let fail = |link: &Path, error: &dyn std::fmt::Display| {
        Error::new(Fault::Unreachable, format!("cannot link {}: {error}", link.display()))
            .hint("drover run --out-link OTHER-PATH")
    };
    let mut session = pool.take(Caches::Off).await.map_err(Error::from)?;
    let dir = pool.store().store_dir().clone();
    let mut made = Vec::new();
    for (link, path) in links {
        let link = std::path::absolute(&link).map_err(|error| fail(&link, &error))?;
        if link.is_symlink() {
            std::fs::remove_file(&link).map_err(|error| fail(&link, &error))?;
        }
        std::os::unix::fs::symlink(path.to_absolute_path_in(&dir), &link).map_err(|error| fail(&link, &error))?;
        session.add_indirect_root(&link).await.map_err(|error| fail(&link, &error))?;
        made.push(link);
    }
    pool.give_back(session);
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_as_nix_build_names_them() {
        let path = || StorePath::from_basename(b"00000000000000000000000000000000-x").unwrap();
        let results = [vec![("out".to_owned(), path())], vec![("out".to_owned(), path()), ("dev".to_owned(), path())]];
        let names: Vec<_> = names(Path::new("result"), &results).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["result", "result-1", "result-1-dev"].map(PathBuf::from));
    }
}
