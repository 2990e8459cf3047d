//! What is not pushed to a cache, though it may be needed: paths that are too large, or of certain names.
//!
//! Whatever refers to them is pushed all the same, and is not whole in that cache. That has to be said.

use std::collections::{BTreeMap, BTreeSet};

use globset::{Glob, GlobSet, GlobSetBuilder};

use super::PathInfo;
use crate::id::StorePath;

/// Which paths are left out.
#[derive(Debug, Clone, Default)]
pub struct LeaveOut {
    larger_than: Option<u64>,
    names: GlobSet,
}

impl LeaveOut {
    /// Larger than so many bytes of NAR, or with a name that fits one of these globs. A glob that cannot be read fits
    /// nothing; whoever reads the settings has told of it.
    #[must_use]
    pub fn new(larger_than: Option<u64>, names: &[String]) -> Self {
        let mut set = GlobSetBuilder::new();
        for glob in names.iter().filter_map(|name| Glob::new(name).ok()) {
            set.add(glob);
        }
        Self { larger_than, names: set.build().unwrap_or_default() }
    }

    /// Whether this path is.
    #[must_use]
    pub fn fits(&self, info: &PathInfo) -> bool {
        self.larger_than.is_some_and(|most| info.nar_size > most) || self.names.is_match(name(&info.path))
    }
}

/// Which of these paths refer to one that is left out, directly or not.
pub fn without<'a, V>(
    infos: impl IntoIterator<Item = &'a PathInfo>,
    left_out: &'a BTreeMap<StorePath, V>,
) -> BTreeSet<&'a StorePath> {
    let mut users: BTreeMap<&StorePath, Vec<&StorePath>> = BTreeMap::new();
    for info in infos {
        info.others().for_each(|reference| users.entry(reference).or_default().push(&info.path));
    }
    let (mut without, mut open) = (BTreeSet::new(), left_out.keys().collect::<Vec<_>>());
    while let Some(path) = open.pop() {
        let new = users.get(path).into_iter().flatten().copied().filter(|user| without.insert(*user));
        open.extend(new);
    }
    without
}

fn name(path: &StorePath) -> &str {
    path.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::from_parts([1; 20], name).unwrap()
    }

    fn info(name: &str, nar_size: u64) -> PathInfo {
        PathInfo {
            path: path(name),
            nar_hash: [0; 32],
            nar_size,
            registration_time: 0,
            ultimate: false,
            references: BTreeSet::new(),
            deriver: None,
            signatures: BTreeSet::new(),
            ca: None,
        }
    }

    #[test]
    fn whatever_refers_to_what_is_left_out_is_without_it() {
        let of = |name: &str, references: &[&str]| PathInfo {
            references: references.iter().map(|name| path(name)).chain([path(name)]).collect(),
            ..info(name, 1)
        };
        let infos = [of("web", &["etc", "big"]), of("etc", &["firmware"]), of("db", &["etc"]), of("big", &[])];
        let left_out = BTreeMap::from([(path("firmware"), 7)]);
        let expected = [path("db"), path("etc"), path("web")];
        assert_eq!(without(&infos, &left_out).into_iter().cloned().collect::<Vec<_>>(), expected);
        assert!(without(&infos, &BTreeMap::<StorePath, u64>::new()).is_empty());
    }

    #[test]
    fn size_and_name_leave_out() {
        let rules = LeaveOut::new(Some(100), &["*-source".to_owned(), "linux-*".to_owned(), "[".to_owned()]);
        for (name, size, fits) in
            [("a-source", 1, true), ("linux-6.1", 1, true), ("hello", 100, false), ("hello", 101, true)]
        {
            assert_eq!(rules.fits(&info(name, size)), fits, "{name} {size}");
        }
        assert!(!LeaveOut::default().fits(&info("a-source", u64::MAX)));
    }
}
