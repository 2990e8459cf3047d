//! What a store knows about one of its paths, as far as a cache has to be told.

use std::collections::BTreeSet;

use crate::id::{StoreDir, StorePath};
use crate::nix_compat::narinfo::{CAHash, NarInfo, NarInfoBuilder, NixHash, NixSignature};
use crate::store::cache::{SecretKey, Sink};

use super::upload::Nar;

/// A valid path of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of its NAR.
    pub nar_hash: NixHash,
    /// Bytes of its NAR; never 0.
    pub nar_size: u64,
    /// What it refers to; itself too, if it does.
    pub references: BTreeSet<StorePath>,
    /// The .drv that made it, if the store knows.
    pub deriver: Option<StorePath>,
    /// Signatures that the store keeps, `NAME:BASE64`.
    pub signatures: Vec<String>,
    /// Its content address, `fixed:r:sha256:…`; empty for none.
    pub ca: Option<String>,
}

/// Why no record can be made of what the store said.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the record of {path}: {why}")]
pub struct RecordError {
    /// Which path.
    pub path: String,
    /// Why.
    pub why: String,
}

impl PathInfo {
    /// What it refers to besides itself.
    pub fn others(&self) -> impl Iterator<Item = &StorePath> {
        self.references.iter().filter(|reference| **reference != self.path)
    }

    /// The record for a cache that holds the NAR as `nar`: with the store's own signatures, then one of each key.
    pub fn record(&self, nar: &Nar, sink: &Sink) -> Result<NarInfo, RecordError> {
        let fail = |why: String| RecordError { path: self.path.to_basename(), why };
        let ca = self.ca.as_deref().filter(|ca| !ca.is_empty()).map(CAHash::parse).transpose();
        let ca = ca.map_err(|error| fail(format!("its content address: {error}")))?;
        let build = |signatures: Vec<NixSignature>| {
            self.unsigned(nar, sink.store_dir())
                .content_address(ca.clone())
                .signatures(signatures)
                .build()
                .map_err(|error| fail(error.to_string()))
        };
        let fingerprint = build(Vec::new())?.fingerprint(sink.store_dir());
        build(self.signed(&fingerprint, sink.keys()))
    }

    fn unsigned(&self, nar: &Nar, store_dir: &StoreDir) -> NarInfoBuilder {
        let (path, hash) = (self.path.clone(), self.nar_hash.clone());
        NarInfo::builder_in(store_dir.clone(), path, nar.url.clone(), hash, self.nar_size)
            .compression(nar.compression.clone())
            .file_hash(Some(nar.file_hash.clone()))
            .file_size(Some(nar.file_size))
            .references(self.references.iter().cloned())
            .deriver(self.deriver.clone())
    }

    /// The store's signatures, those of our own keys made anew. What is no signature is left out, as Nix would.
    fn signed(&self, fingerprint: &str, keys: &[SecretKey]) -> Vec<NixSignature> {
        let kept = self.signatures.iter().filter_map(|text| NixSignature::parse(text).ok());
        let kept = kept.filter(|signature| keys.iter().all(|key| key.name() != signature.key_name));
        let mut all: Vec<_> = kept.chain(keys.iter().map(|key| key.sign(fingerprint))).collect();
        all.sort();
        all.dedup();
        all
    }
}
