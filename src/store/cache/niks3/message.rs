//! The JSON that niks3 speaks, as far as drover does.

use std::collections::BTreeMap;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::super::api::CallFailure;
use super::super::sink::Nar;
use crate::event::Class;
use crate::id::StoreDir;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::narinfo::NixHash;

/// What the server says of itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct About {
    /// Where readers find the cache; empty if it is not set.
    pub(super) substituter_url: Option<String>,
    /// The keys that it signs with, `NAME:BASE64`.
    #[serde(default)]
    pub(super) public_keys: Vec<String>,
}

/// A file that belongs to a path.
#[derive(Serialize)]
pub(super) struct Object<'a> {
    pub(super) key: &'a str,
    pub(super) r#type: &'a str,
    /// The keys of what must stay as long as this file.
    pub(super) refs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nar_size: Option<u64>,
}

/// Begins a closure.
#[derive(Serialize)]
pub(super) struct Begin<'a> {
    /// The key of its record.
    pub(super) closure: &'a str,
    pub(super) objects: &'a [Object<'a>],
    pub(super) verify_s3: bool,
}

/// A closure that was begun.
#[derive(Deserialize)]
pub(super) struct Begun {
    pub(super) id: String,
    /// What the bucket lacks, and where it goes.
    #[serde(default)]
    pub(super) pending_objects: BTreeMap<String, Place>,
}

/// Where a file goes. Its URLs are logins of a sort: no `Debug`.
#[derive(Deserialize)]
pub(super) struct Place {
    presigned_url: Option<String>,
    multipart_info: Option<Parts>,
}

/// Where the parts of a large file go.
#[derive(Deserialize)]
pub(super) struct Parts {
    pub(super) upload_id: String,
    /// Of part 1, 2, …; more can be asked for.
    pub(super) part_urls: Vec<String>,
}

/// A file's place, read.
pub(super) enum Where {
    /// All of it goes there.
    One(Url),
    /// It goes in parts.
    Parts(Parts),
}

impl Place {
    /// Where it goes, in one piece or in parts.
    pub(super) fn read(self) -> Result<Where, CallFailure> {
        match (self.presigned_url.filter(|url| !url.is_empty()), self.multipart_info) {
            (Some(one), _) => Ok(Where::One(signed(&one)?)),
            (None, Some(parts)) => Ok(Where::Parts(parts)),
            (None, None) => Err(CallFailure::here(Class::Cache, "it gave no place for a file that it lacks")),
        }
    }

    /// The place of a small file.
    pub(super) fn url(self) -> Result<Url, CallFailure> {
        match self.read()? {
            Where::One(url) => Ok(url),
            Where::Parts(_) => Err(CallFailure::here(Class::Cache, "it wants a record in parts")),
        }
    }
}

/// A URL that was signed for one upload. Errors do not show it.
pub(super) fn signed(url: &str) -> Result<Url, CallFailure> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| CallFailure::here(Class::Cache, "it gave a place that is no URL"))
}

/// Asks for signatures.
#[derive(Serialize)]
pub(super) struct Sign<'a> {
    pub(super) narinfos: BTreeMap<&'a str, Record>,
}

/// What is signed.
#[derive(Serialize)]
pub(super) struct Record {
    store_path: String,
    url: String,
    compression: String,
    nar_hash: String,
    nar_size: u64,
    references: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deriver: Option<String>,
    signatures: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
}

impl Record {
    /// What is signed of a path whose NAR is there. Paths are absolute.
    pub(super) fn new(info: &PathInfo, nar: &Nar, store_dir: &StoreDir) -> Self {
        Self {
            store_path: info.path.to_absolute_path_in(store_dir),
            url: nar.url.clone(),
            compression: nar.compression.to_string(),
            nar_hash: NixHash::Sha256(info.nar_hash).to_nix_nixbase32_string(),
            nar_size: info.nar_size,
            references: info.references.iter().map(|path| path.to_absolute_path_in(store_dir)).collect(),
            deriver: info.deriver.as_ref().map(|path| path.to_absolute_path_in(store_dir)),
            signatures: info.signatures.iter().cloned().collect(),
            ca: info.ca.clone().filter(|ca| !ca.is_empty()),
        }
    }
}

/// Signatures, `NAME:BASE64`, by the key of the record.
#[derive(Deserialize)]
pub(super) struct Signed {
    pub(super) signatures: BTreeMap<String, Vec<String>>,
}

/// Asks for places of more parts.
#[derive(Serialize)]
pub(super) struct More<'a> {
    pub(super) object_key: &'a str,
    pub(super) upload_id: &'a str,
    pub(super) start_part_number: usize,
    pub(super) num_parts: usize,
}

/// Places of more parts.
#[derive(Deserialize)]
pub(super) struct MoreParts {
    pub(super) part_urls: Vec<String>,
    pub(super) start_part_number: usize,
}

/// Makes one file of its parts.
#[derive(Serialize)]
pub(super) struct Complete<'a> {
    pub(super) object_key: &'a str,
    pub(super) upload_id: &'a str,
    pub(super) parts: &'a [Part],
}

/// A part that was written.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub(super) part_number: usize,
    pub(super) etag: String,
}
