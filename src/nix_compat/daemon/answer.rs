//! How the body of a reply is read, by its type.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::BufReader;

use super::build_result::{BuildResult, DerivedPath};
use super::connection::Reader;
use super::ops::Missing;
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::wire::{
    MAX_ITEMS, WireError, read_bool, read_count, read_optional_path, read_paths, read_text, read_u64,
};

/// Where replies come from.
pub(super) type Source = BufReader<Reader>;

/// What the layout of a reply depends on.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) minor: u16,
    pub(super) dir: StoreDir,
}

/// The body of a reply.
pub(super) trait Answer: Sized + Send {
    fn read(reader: &mut Source, layout: &Layout) -> impl Future<Output = Result<Self, WireError>> + Send;
}

/// No body at all.
impl Answer for () {
    async fn read(_reader: &mut Source, _layout: &Layout) -> Result<Self, WireError> {
        Ok(())
    }
}

/// A boolean, or the 1 that means "done".
impl Answer for bool {
    async fn read(reader: &mut Source, _layout: &Layout) -> Result<Self, WireError> {
        read_bool(reader).await
    }
}

/// A text.
impl Answer for String {
    async fn read(reader: &mut Source, _layout: &Layout) -> Result<Self, WireError> {
        read_text(reader).await
    }
}

impl Answer for BTreeSet<StorePath> {
    async fn read(reader: &mut Source, layout: &Layout) -> Result<Self, WireError> {
        Ok(read_paths(reader, &layout.dir).await?.into_iter().collect())
    }
}

/// Output name → path, if known.
impl Answer for BTreeMap<String, Option<StorePath>> {
    async fn read(reader: &mut Source, layout: &Layout) -> Result<Self, WireError> {
        let count = read_count(reader, MAX_ITEMS).await?;
        let mut outputs = Self::new();
        for _ in 0..count {
            outputs.insert(read_text(reader).await?, read_optional_path(reader, &layout.dir).await?);
        }
        Ok(outputs)
    }
}

impl Answer for BuildResult {
    async fn read(reader: &mut Source, layout: &Layout) -> Result<Self, WireError> {
        Self::read(reader, &layout.dir, layout.minor).await
    }
}

impl Answer for Vec<(DerivedPath, BuildResult)> {
    async fn read(reader: &mut Source, layout: &Layout) -> Result<Self, WireError> {
        let count = read_count(reader, MAX_ITEMS).await?;
        let mut results = Self::new();
        for _ in 0..count {
            let text = read_text(reader).await?;
            let path = DerivedPath::parse_legacy_in(&layout.dir, &text)
                .map_err(|error| WireError::malformed(format!("{text:?} is no derived path: {error}")))?;
            results.push((path, BuildResult::read(reader, &layout.dir, layout.minor).await?));
        }
        Ok(results)
    }
}

impl Answer for Missing {
    async fn read(reader: &mut Source, layout: &Layout) -> Result<Self, WireError> {
        Ok(Self {
            will_build: BTreeSet::read(reader, layout).await?,
            will_substitute: BTreeSet::read(reader, layout).await?,
            unknown: BTreeSet::read(reader, layout).await?,
            download_size: read_u64(reader).await?,
            nar_size: read_u64(reader).await?,
        })
    }
}
