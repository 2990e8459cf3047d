//! Reading store paths from stored files, where they are base names, so that they mean the same in any store directory.

use std::collections::BTreeMap;

use serde::{Deserialize as _, Deserializer};

use crate::id::StorePath;

fn read<E: serde::de::Error>(text: &str) -> Result<StorePath, E> {
    StorePath::from_basename(text.as_bytes()).map_err(|error| E::custom(error.to_string()))
}

/// One path.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<StorePath, D::Error> {
    read(&String::deserialize(from)?)
}

/// Paths of outputs by name, some of them unknown.
pub(super) fn outputs<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Option<StorePath>>, D::Error> {
    let texts = BTreeMap::<String, Option<String>>::deserialize(from)?;
    texts.into_iter().map(|(name, path)| Ok((name, path.as_deref().map(read).transpose()?))).collect()
}
