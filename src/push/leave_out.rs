//! What is not pushed to a cache, though it may be needed: paths that are too large, or of certain names.
//!
//! Whatever refers to them is pushed all the same, and is not whole in that cache. That has to be said.

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

fn name(path: &StorePath) -> &str {
    path.name()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn size_and_name_leave_out() {
        let info = |name: &str, nar_size| PathInfo {
            path: StorePath::from_parts([1; 20], name).unwrap(),
            nar_hash: [0; 32],
            nar_size,
            registration_time: 0,
            ultimate: false,
            references: BTreeSet::new(),
            deriver: None,
            signatures: BTreeSet::new(),
            ca: None,
        };
        let rules = LeaveOut::new(Some(100), &["*-source".to_owned(), "linux-*".to_owned(), "[".to_owned()]);
        for (name, size, fits) in
            [("a-source", 1, true), ("linux-6.1", 1, true), ("hello", 100, false), ("hello", 101, true)]
        {
            assert_eq!(rules.fits(&info(name, size)), fits, "{name} {size}");
        }
        assert!(!LeaveOut::default().fits(&info("a-source", u64::MAX)));
    }
}
