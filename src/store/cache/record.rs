//! From what a store knows of a path to the record of it in a cache.

use super::keys::SecretKey;
use super::sink::Nar;
use crate::id::StoreDir;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::{CAHash, NarInfo, NarInfoBuilder, NixHash, NixSignature};

/// Why no record can be made of what the store said.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the record of {path}: {why}")]
pub struct RecordError {
    /// Which path.
    pub path: String,
    /// Why.
    pub why: String,
}

/// The record for a cache that holds the NAR as `nar`: with the store's own signatures, then one of each key.
pub(super) fn record(
    info: &PathInfo,
    nar: &Nar,
    keys: &[SecretKey],
    store_dir: &StoreDir,
) -> Result<NarInfo, RecordError> {
    let fail = |why: String| RecordError { path: info.path.to_basename(), why };
    let ca = info.ca.as_deref().filter(|ca| !ca.is_empty()).map(CAHash::parse).transpose();
    let ca = ca.map_err(|error| fail(format!("its content address: {error}")))?;
    let build = |signatures: Vec<NixSignature>| {
        unsigned(info, nar, store_dir)
            .content_address(ca.clone())
            .signatures(signatures)
            .build()
            .map_err(|error| fail(error.to_string()))
    };
    let fingerprint = build(Vec::new())?.fingerprint(store_dir);
    build(signed(info, &fingerprint, keys))
}

fn unsigned(info: &PathInfo, nar: &Nar, store_dir: &StoreDir) -> NarInfoBuilder {
    let (path, hash) = (info.path.clone(), NixHash::Sha256(info.nar_hash));
    NarInfo::builder_in(store_dir.clone(), path, nar.url.clone(), hash, info.nar_size)
        .compression(nar.compression.clone())
        .file_hash(nar.file_hash.clone())
        .file_size(nar.file_size)
        .references(info.references.iter().cloned())
        .deriver(info.deriver.clone())
}

/// The store's signatures, those of our own keys made anew. What is no signature is left out, as Nix would.
fn signed(info: &PathInfo, fingerprint: &str, keys: &[SecretKey]) -> Vec<NixSignature> {
    let kept = info.signatures.iter().filter_map(|text| NixSignature::parse(text).ok());
    let kept = kept.filter(|signature| keys.iter().all(|key| key.name() != signature.key_name));
    let mut all: Vec<_> = kept.chain(keys.iter().map(|key| key.sign(fingerprint))).collect();
    all.sort();
    all.dedup();
    all
}
