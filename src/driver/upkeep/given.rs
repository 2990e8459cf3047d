//! Paths that a person names: in files, by links, by directories full of links.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::id::{StoreDir, StorePath};
use crate::push::named;

/// Directories below a directory of links that are looked into.
const DEPTH: usize = 8;

/// The paths of some roots. Each is a store path or a link to one; a directory, of which all links into the store are
/// taken; or a file with one of those a line, `-` being standard input.
pub(super) fn roots(words: &[PathBuf], dir: &StoreDir) -> Result<BTreeSet<StorePath>> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let mut paths = BTreeSet::new();
    for word in words {
        let shown = word.display().to_string();
        if let Ok(path) = named::store_path(&shown, &here, dir) {
            paths.insert(path);
        } else if word.is_dir() {
            paths.extend(links(word, dir, DEPTH));
        } else {
            for line in
                read(word, dir)?.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                let path = named::store_path(line, &here, dir).map_err(|error| {
                    let why = error.message.split_once("': ").map_or(error.message.as_str(), |(_, why)| why);
                    Error::usage(format!("'{line}' in {shown} names no path: {why}"))
                        .hint(format!("{}/HASH-NAME    or a link to one, one a line", dir.as_str()))
                })?;
                paths.insert(path);
            }
        }
    }
    Ok(paths)
}

fn read(word: &Path, dir: &StoreDir) -> Result<String> {
    let mut text = String::new();
    let read = match word.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(word).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| {
        let why = crate::error::without_numbers(&error.to_string());
        Error::usage(format!("cannot read {}: {why}", word.display()))
            .hint(format!("{}/HASH-NAME    a link to one, a directory of links, or a file of those", dir.as_str()))
    })?;
    Ok(text)
}

/// What links below a directory lead to in the store. Those that lead elsewhere are none of ours.
fn links(at: &Path, dir: &StoreDir, depth: usize) -> BTreeSet<StorePath> {
    let mut paths = BTreeSet::new();
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 {
            paths.extend(links(&entry.path(), dir, depth - 1));
        } else if kind.is_symlink()
            && let Some(name) = entry.path().to_str()
            && let Ok(path) = named::store_path(name, at, dir)
        {
            paths.insert(path);
        }
    }
    paths
}

/// Those of some texts that are absolute store paths.
pub(super) fn paths(texts: &[String], dir: &StoreDir) -> Vec<StorePath> {
    texts.iter().filter_map(|text| dir.parse_path(text.as_bytes()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn roots_are_paths_links_directories_and_files() {
        let temp = tempfile::tempdir().unwrap();
        let at = temp.path().canonicalize().unwrap();
        let dir = StoreDir::new("/our/store".to_owned()).unwrap();
        let path = |letter: &str| format!("/our/store/{}-p", letter.repeat(32));
        symlink(path("0"), at.join("result")).unwrap();
        std::fs::create_dir_all(at.join("roots/auto")).unwrap();
        symlink(path("1"), at.join("roots/one")).unwrap();
        symlink(at.join("result"), at.join("roots/auto/two")).unwrap();
        symlink("/elsewhere", at.join("roots/auto/three")).unwrap();
        std::fs::write(at.join("list"), format!("# these\n\n{}\n{}/bin/p\n", path("2"), path("3"))).unwrap();
        let of = |name: &str| {
            let found = roots(&[at.join(name)], &dir).map_err(|error| error.message)?;
            Ok::<Vec<String>, String>(found.iter().map(|found| found.to_absolute_path_in(&dir)).collect())
        };
        assert_eq!(of("result"), Ok(vec![path("0")]));
        assert_eq!(of("roots"), Ok(vec![path("0"), path("1")]));
        assert_eq!(of("list"), Ok(vec![path("2"), path("3")]));
        std::fs::write(at.join("bad"), "/our/store/hello\n").unwrap();
        assert!(of("bad").unwrap_err().contains("names no path"));
        assert!(of("gone").unwrap_err().contains("cannot read"));
    }
}
