//! Paths and what is known of them, for tests.

use std::collections::BTreeSet;

use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;

pub(super) fn path(n: u8) -> StorePath {
    StorePath::from_parts([n; 20], "p").unwrap()
}

/// As many bytes as its number says.
pub(super) fn info(n: u8, references: &[u8]) -> PathInfo {
    PathInfo {
        path: path(n),
        nar_hash: [n; 32],
        nar_size: u64::from(n),
        registration_time: 0,
        ultimate: false,
        references: references.iter().copied().map(path).collect(),
        deriver: None,
        signatures: BTreeSet::new(),
        ca: None,
    }
}
