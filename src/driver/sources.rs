//! What differs in two sources of the store, and which file of the repository that is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::id::StorePath;
use crate::report::why::changed::FileChange;
use crate::store::local::LocalStore;

/// Files of a source that are looked at.
const MOST: usize = 2000;

/// Bytes of a text that is shown.
const TEXT: u64 = 64 << 10;

/// Where sources and their files may be found.
pub(super) struct Sources<'a> {
    /// The directory of the store's files, if it is one of this machine.
    store: Option<&'a Path>,
    /// The repository.
    tree: Option<PathBuf>,
    /// What differs in it.
    paths: &'a [String],
}

impl<'a> Sources<'a> {
    pub(super) fn new(store: &'a LocalStore, tree: Option<PathBuf>, paths: &'a [String]) -> Self {
        Self { store: store.physical_dir(), tree, paths }
    }

    /// The files that differ; none if either source is not in the store.
    pub(super) fn files(&self, base: Option<&StorePath>, head: Option<&StorePath>) -> Vec<FileChange> {
        let Some(store) = self.store else { return Vec::new() };
        let place = |path: Option<&StorePath>| path.map(|path| store.join(path.to_basename()));
        let (ours, theirs) = (place(base), place(head));
        if [&ours, &theirs].into_iter().flatten().any(|place| place.symlink_metadata().is_err()) {
            return Vec::new();
        }
        let is_dir = |place: &Option<PathBuf>| place.as_ref().is_some_and(|place| place.is_dir());
        let name = head.or(base).map(StorePath::name).unwrap_or_default();
        if !is_dir(&ours) && !is_dir(&theirs) {
            return vec![self.change(String::new(), name, ours.as_deref(), theirs.as_deref())];
        }
        let mut below = BTreeSet::new();
        for place in [&ours, &theirs].into_iter().flatten() {
            list(place, Path::new(""), &mut below);
        }
        let at =
            |place: &Option<PathBuf>, path: &str| place.as_ref().map(|place| place.join(path)).filter(|p| p.exists());
        let differing = below.iter().filter(|path| !same(at(&ours, path).as_deref(), at(&theirs, path).as_deref()));
        differing
            .map(|path| self.change(path.clone(), path, at(&ours, path).as_deref(), at(&theirs, path).as_deref()))
            .collect()
    }

    fn change(&self, path: String, name: &str, base: Option<&Path>, head: Option<&Path>) -> FileChange {
        let repository = self.in_repository(name, head);
        FileChange { path, repository, base: base.and_then(text), head: head.and_then(text) }
    }

    /// The file that changed in the repository, whose name ends like this, and which has that content, if it is there.
    fn in_repository(&self, name: &str, head: Option<&Path>) -> Option<String> {
        let tree = self.tree.as_ref()?;
        let ends = |path: &&String| path.as_str() == name || path.ends_with(&format!("/{name}"));
        let mut found = self.paths.iter().filter(ends).filter(|path| {
            let file = tree.join(path);
            // It may have changed since, or be gone.
            head.is_none_or(|head| !file.exists() || same(Some(&file), Some(head)))
        });
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }
}

/// All files below a directory, relative to it.
fn list(root: &Path, at: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(root.join(at)) else { return };
    for entry in entries.flatten() {
        if found.len() >= MOST {
            return;
        }
        let path = at.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(root, &path, found),
            _ => drop(found.insert(path.to_string_lossy().into_owned())),
        }
    }
}

/// Whether two files have the same content.
fn same(one: Option<&Path>, other: Option<&Path>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    let size = |path: &Path| path.symlink_metadata().map(|meta| (meta.file_type(), meta.len())).ok();
    match (size(one), size(other)) {
        (Some((kind, _)), Some((its, _))) if kind.is_symlink() || its.is_symlink() => {
            std::fs::read_link(one).ok() == std::fs::read_link(other).ok()
        }
        (Some((_, size)), Some((_, its))) => size == its && std::fs::read(one).ok() == std::fs::read(other).ok(),
        _ => false,
    }
}

/// A small text.
fn text(path: &Path) -> Option<String> {
    let meta = path.symlink_metadata().ok()?;
    if !meta.is_file() || meta.len() > TEXT {
        return None;
    }
    String::from_utf8(std::fs::read(path).ok()?).ok().filter(|text| !text.contains('\0'))
}
