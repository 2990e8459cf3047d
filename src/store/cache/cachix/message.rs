//! What is said to and by the service of Cachix, as its own client has it (version 1).

use serde::{Deserialize, Serialize};

use super::super::stream::Packed;
use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::hex;
use crate::nix_compat::narinfo::{NixHash, nixbase32};

/// What the service says of a cache.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct About {
    /// Where it is read.
    pub(super) uri: String,
    #[serde(default)]
    pub(super) is_public: bool,
    /// The keys that sign its paths, `NAME:BASE64`.
    #[serde(default)]
    pub(super) public_signing_keys: Vec<String>,
    /// `Read`, `Write` or `Admin`.
    #[serde(default)]
    pub(super) permission: Option<String>,
}

/// What the service calls a path.
pub(super) fn hash_part(path: &StorePath) -> String {
    nixbase32::encode(path.digest())
}

/// An upload that has begun.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    pub(super) nar_id: String,
    pub(super) upload_id: String,
}

/// What a signed URL is asked for with.
#[derive(Debug, Serialize)]
pub(super) struct Part<'a> {
    /// In base64.
    #[serde(rename = "contentMD5")]
    pub(super) md5: &'a str,
}

/// Where a part goes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Signed {
    /// It is a secret: whoever has it may upload.
    pub(super) upload_url: String,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    pub(super) part_number: u32,
    /// As the storage said it.
    pub(super) e_tag: String,
}

/// All parts are there; the record comes along.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Complete<'a> {
    pub(super) parts: &'a [Sent],
    pub(super) nar_info_create: NarInfoCreate,
}

/// A record.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NarInfoCreate {
    c_store_hash: String,
    c_store_suffix: String,
    /// `sha256:` and Nix's base 32.
    c_nar_hash: String,
    c_nar_size: u64,
    /// Hex, and nothing before it.
    c_file_hash: String,
    c_file_size: u64,
    /// Sorted, the path itself among them if it refers to itself.
    c_references: Vec<String>,
    c_deriver: String,
    /// Base64, without the name of the key; the service signs where there is none.
    c_sig: Option<String>,
}

impl NarInfoCreate {
    pub(super) fn new(info: &PathInfo, file: &Packed, signature: Option<String>) -> Self {
        let mut references: Vec<String> = info.references.iter().map(StorePath::to_basename).collect();
        references.sort();
        Self {
            c_store_hash: hash_part(&info.path),
            c_store_suffix: info.path.name().to_owned(),
            c_nar_hash: NixHash::Sha256(info.nar_hash).to_nix_nixbase32_string(),
            c_nar_size: info.nar_size,
            c_file_hash: hex::encode(file.file_hash.digest_as_bytes()),
            c_file_size: file.file_size,
            c_references: references,
            c_deriver: info.deriver.as_ref().map_or_else(|| "unknown-deriver".to_owned(), StorePath::to_basename),
            c_sig: signature,
        }
    }
}
