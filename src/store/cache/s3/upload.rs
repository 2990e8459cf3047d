//! Large NARs in parts: several parts at once, in memory only while they are on their way.
//!
//! The file is named by the hash of the NAR, since its own is known only at its end; it becomes visible when the server is
//! told to put the parts together, after the NAR was found to be the right one. Parts that a killed run left behind are
//! not sent again: the server lists them with their MD5, and compressing the same NAR gives the same bytes. The ledger
//! says which upload it was, and what was in the parts where the server encrypts and has no MD5; without a ledger, or
//! for uploads of other machines, the server is asked which ones it has. Uploads that nobody went on with for a week
//! are given up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use md5::{Digest as _, Md5};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, DATE, ETAG, HeaderValue};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_util::bytes::Bytes;

use super::super::api::{Call, CallFailure};
use super::super::budget::Parts;
use super::super::ledger::{self, Entry};
use super::super::put::{NAR, no_room, spooled};
use super::super::sink::{Codec, Nar, PutError, Sink, WORTH_KEEPING};
use super::super::stream::NarStream;
use super::{S3Cache, hashed, sha256, sign, xml};
use crate::event::{Class, Failure};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::hex;
use crate::nix_compat::narinfo::NixHash;

/// After this time nobody will go on with an upload.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The uploads in parts to one bucket.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Those that this run has begun and not ended, by file name.
    begun: Mutex<BTreeMap<String, Begun>>,
    /// Those that others have left, by file name; looked for once, when the first large NAR comes.
    left: OnceCell<BTreeMap<String, String>>,
}

/// An upload that this run has begun.
#[derive(Debug, Clone, Default)]
struct Begun {
    id: String,
    /// Bytes of its finished parts.
    sent: u64,
}

/// A part that the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    size: u64,
    tag: String,
}

/// One upload.
struct Upload<'a> {
    cache: &'a S3Cache,
    name: String,
    id: String,
    /// What the ledger says of it; `None`: it is not large enough, or nothing is kept.
    entry: Option<Entry>,
    /// What the ledger said when it began.
    known: BTreeMap<u32, ledger::Part>,
    /// Parts that were there when it began.
    left: BTreeMap<u32, Part>,
    /// Tags of the parts that are there now.
    done: Mutex<BTreeMap<u32, String>>,
}

impl S3Cache {
    /// Sends a NAR in parts while it is made.
    pub(super) async fn send_in_parts(
        &self,
        sink: &Sink,
        info: &PathInfo,
        mut nar: NarStream,
        parts: Parts,
    ) -> Result<Nar, PutError> {
        let codec = sink.codec(info);
        let name = Nar::file_name(&NixHash::Sha256(info.nar_hash), codec);
        if let Some(size) = self.size(&name).await? {
            return taken(name, codec, nar, size).await;
        }
        let upload = Upload::begin(self, name.clone(), sink.entry(info, parts.size)).await?;
        match upload.send_all(&mut nar, parts).await {
            Ok(()) => {}
            // Somebody else sends the same file, and was faster.
            Err(failed) if is_gone(&failed) => {
                upload.forget();
                match self.size(&name).await? {
                    Some(size) => return taken(name, codec, nar, size).await,
                    None => return Err(failed.into()),
                }
            }
            Err(failed) => return Err(failed.into()),
        }
        let packed = match nar.end().await {
            Ok(packed) => packed,
            Err(error) => {
                upload.abort().await;
                return Err(error.into());
            }
        };
        upload.complete(packed.file_size).await?;
        Ok(Nar::file(name, codec, packed, true))
    }

    /// Sends a NAR in one piece, by way of a temporary file.
    pub(super) async fn send_spooled(&self, codec: Codec, nar: NarStream) -> Result<Nar, PutError> {
        let spool = tempfile::tempfile().map_err(no_room)?;
        let (spool, packed) = spooled(spool, nar).await?;
        let name = Nar::file_name(&packed.file_hash, codec);
        let is_there = self.size(&name).await? == Some(packed.file_size);
        if !is_there {
            let call = self.call(Method::PUT, &name).header(CONTENT_TYPE, HeaderValue::from_static(NAR));
            let hash = hex::encode(packed.file_hash.digest_as_bytes());
            let call = hashed(self.stored(call), &hash).file(Arc::new(spool), packed.file_size);
            self.api.call(&call, self.api.patience).await?;
        }
        Ok(Nar::file(name, codec, packed, !is_there))
    }

    /// Gives up what was begun and not ended, but for what is large enough that the next run should go on with it.
    pub(super) async fn give_up_uploads(&self) {
        let begun = std::mem::take(&mut *self.uploads.begun.lock().unwrap_or_else(PoisonError::into_inner));
        for (name, Begun { id, .. }) in begun.into_iter().filter(|(_, begun)| begun.sent < WORTH_KEEPING) {
            self.abort(&name, &id).await;
        }
    }

    /// Tells the server to throw the parts away. If it does not hear it, it has its own rules for what is left.
    async fn abort(&self, name: &str, id: &str) {
        let call = Call::new(Method::DELETE, self.url(name, &format!("uploadId={}", sign::escape(id, false))));
        if let Err(failed) = self.api.call(&call, super::first(self.api.patience)).await {
            tracing::debug!(name, why = %failed.failure.message, "an upload could not be given up");
        }
    }

    /// What earlier runs have left. A server that does not list uploads has none.
    async fn left(&self, name: &str) -> Option<String> {
        let left = self.uploads.left.get_or_init(|| async {
            let call = Call::new(Method::GET, self.url("", "prefix=nar%2F&uploads="));
            let Ok(reply) = self.api.call(&call, super::first(self.api.patience)).await else {
                return BTreeMap::new();
            };
            let date = reply.headers.get(DATE).and_then(|date| date.to_str().ok());
            let now = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
            let (left, old) = uploads(&reply.text(), now);
            for (name, id) in old {
                self.abort(&name, &id).await;
            }
            left
        });
        left.await.get(name).cloned()
    }

    fn begun(&self, name: &str, change: impl FnOnce(&mut Begun)) {
        let mut begun = self.uploads.begun.lock().unwrap_or_else(PoisonError::into_inner);
        change(begun.entry(name.to_owned()).or_default());
    }

    fn ended(&self, name: &str) {
        self.uploads.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// The file is there already. It was made of the same NAR, but may be not by the same compressor.
async fn taken(name: String, codec: Codec, nar: NarStream, size: u64) -> Result<Nar, PutError> {
    let packed = nar.end().await?;
    let same = packed.file_size == size;
    let mut nar = Nar::file(name, codec, packed, false);
    if !same {
        (nar.file_hash, nar.file_size) = (None, Some(size));
    }
    Ok(nar)
}

/// Whether an upload was ended by somebody else.
fn is_gone(failed: &CallFailure) -> bool {
    failed.code.as_deref() == Some("NoSuchUpload")
}

/// The uploads in a listing, by file name: those to go on with, and those that are too old.
fn uploads(text: &str, now: Option<Timestamp>) -> (BTreeMap<String, String>, Vec<(String, String)>) {
    let (mut left, mut old) = (BTreeMap::new(), Vec::new());
    for upload in xml::elements(text, "Upload") {
        let (Some(name), Some(id)) = (xml::element(upload, "Key"), xml::element(upload, "UploadId")) else { continue };
        let begun: Option<Timestamp> = xml::element(upload, "Initiated").and_then(|text| text.parse().ok());
        match begun.zip(now) {
            Some((begun, now)) if now.duration_since(begun) > LEFT_BEHIND => old.push((name, id)),
            _ => drop(left.insert(name, id)),
        }
    }
    (left, old)
}

/// The parts in a listing.
fn parts(text: &str) -> BTreeMap<u32, Part> {
    let part = |text: &str| {
        let size = xml::element(text, "Size")?.parse().ok()?;
        Some((xml::element(text, "PartNumber")?.parse().ok()?, Part { size, tag: xml::element(text, "ETag")? }))
    };
    xml::elements(text, "Part").filter_map(part).collect()
}

impl<'a> Upload<'a> {
    /// Goes on with an upload of this file, or begins one.
    async fn begin(cache: &'a S3Cache, name: String, entry: Option<Entry>) -> Result<Self, CallFailure> {
        let upload =
            |id, entry, known, left| Self { cache, name: name.clone(), id, entry, known, left, done: Mutex::default() };
        if let Some(ledger::Begun { id, parts }) = entry.as_ref().and_then(Entry::begun)
            && let Ok(left) = listed(cache, &name, &id).await
        {
            tracing::debug!(name, parts = left.len(), "going on with an upload of the ledger");
            return Ok(upload(id, entry, parts, left));
        }
        if let Some(id) = cache.left(&name).await
            && let Ok(left) = listed(cache, &name, &id).await
        {
            tracing::debug!(name, parts = left.len(), "going on with an upload");
            entry.iter().for_each(|entry| entry.begin(&id));
            return Ok(upload(id, entry, BTreeMap::new(), left));
        }
        let call = Call::new(Method::POST, cache.url(&name, "uploads="));
        let call = cache.stored(call.header(CONTENT_TYPE, HeaderValue::from_static(NAR)));
        let reply = cache.api.call(&call, cache.api.patience).await?;
        let none = || CallFailure::here(Class::Cache, "it began no upload");
        let id = xml::element(&reply.text(), "UploadId").filter(|id| !id.is_empty()).ok_or_else(none)?;
        cache.begun(&name, |begun| begun.id.clone_from(&id));
        entry.iter().for_each(|entry| entry.begin(&id));
        Ok(upload(id, entry, BTreeMap::new(), BTreeMap::new()))
    }

    /// Sends all parts, in whatever order they come through.
    async fn send_all(&self, nar: &mut NarStream, Parts { size, at_once }: Parts) -> Result<(), CallFailure> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut sending = FuturesUnordered::new();
        for number in 1.. {
            let next = {
                let mut next = std::pin::pin!(nar.part(size));
                loop {
                    tokio::select! {
                        next = &mut next, if sending.len() < at_once => break next,
                        Some(sent) = sending.next() => sent?,
                    }
                }
            };
            let Some(part) = next else { break };
            sending.push(self.send_part(number, part));
        }
        while let Some(sent) = sending.next().await {
            sent?;
        }
        Ok(())
    }

    async fn send_part(&self, number: u32, part: Bytes) -> Result<(), CallFailure> {
        let (bytes, size) = (part.clone(), part.len() as u64);
        let left = self.left.get(&number).filter(|left| left.size == size).cloned();
        let known = self.known.get(&number).cloned();
        let hashes = spawn_blocking(move || {
            let hash = sha256(&bytes);
            let is_same = |left: &Part| {
                known.is_some_and(|known| known.tag == left.tag && known.digest == hash)
                    || left.tag.trim_matches('"') == hex::encode(&Md5::digest(&bytes))
            };
            (left.filter(is_same), hash)
        });
        let lost = |error: tokio::task::JoinError| CallFailure::here(Class::Internal, error.to_string());
        let (is_there, hash) = hashes.await.map_err(lost)?;
        let tag = match is_there {
            Some(there) => there.tag,
            None => {
                let query = format!("partNumber={number}&uploadId={}", sign::escape(&self.id, false));
                let call = Call::new(Method::PUT, self.cache.url(&self.name, &query)).body(part);
                let reply = self.cache.api.call(&hashed(call, &hash), self.cache.api.patience).await?;
                let tag = reply.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
                tag.ok_or_else(|| CallFailure::here(Class::Cache, "it took a part and gave no ETag"))?
            }
        };
        if let Some(entry) = &self.entry {
            entry.part(number, &ledger::Part { size, digest: hash, tag: tag.clone() });
        }
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(number, tag);
        if self.left.is_empty() {
            self.cache.begun(&self.name, |begun| begun.sent += size);
        }
        Ok(())
    }

    /// Puts the parts together. The server may have done so although its answer got lost.
    async fn complete(self, size: u64) -> Result<(), PutError> {
        let body = xml::complete(&self.done.lock().unwrap_or_else(PoisonError::into_inner));
        let url = self.cache.url(&self.name, &format!("uploadId={}", sign::escape(&self.id, false)));
        let call = Call::new(Method::POST, url).header(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        let reply = self.cache.api.call(&call.body(body.into()), self.cache.api.patience).await;
        let failed = match reply {
            // It answers before it knows, and may say afterwards that it failed.
            Ok(reply) => xml::code(&reply.text())
                .map(|code| Failure::new(Class::Cache, format!("it did not put the parts together: {code}"))),
            Err(failed) => Some(failed.failure),
        };
        if let Some(failure) = failed
            && self.cache.size(&self.name).await.ok().flatten() != Some(size)
        {
            return Err(PutError::Server(failure));
        }
        self.forget();
        Ok(())
    }

    /// It has ended, one way or another.
    fn forget(&self) {
        self.cache.ended(&self.name);
        self.entry.iter().for_each(Entry::end);
    }

    /// Throws the parts away: the NAR was not what it was to be.
    async fn abort(self) {
        self.cache.abort(&self.name, &self.id).await;
        self.forget();
    }
}

/// The parts that an upload has, all pages of them.
async fn listed(cache: &S3Cache, name: &str, id: &str) -> Result<BTreeMap<u32, Part>, CallFailure> {
    let mut found = BTreeMap::new();
    loop {
        let after = found.last_key_value().map_or(0, |(number, _): (&u32, &Part)| *number);
        let query = format!("part-number-marker={after}&uploadId={}", sign::escape(id, false));
        let reply = cache.api.call(&Call::new(Method::GET, cache.url(name, &query)), cache.api.patience).await?;
        let (text, before) = (reply.text(), found.len());
        found.extend(parts(&text));
        if found.len() == before || xml::element(&text, "IsTruncated").as_deref() != Some("true") {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_that_are_too_old_are_told_from_others() {
        let upload = |key: &str, begun: &str| {
            format!("<Upload><Key>{key}</Key><UploadId>id-{key}</UploadId><Initiated>{begun}</Initiated></Upload>")
        };
        let text = format!(
            "<ListMultipartUploadsResult>{}{}{}</ListMultipartUploadsResult>",
            upload("nar/new", "2026-11-21T10:00:00.000Z"),
            upload("nar/old", "2026-11-01T10:00:00.000Z"),
            upload("nar/odd", "yesterday"),
        );
        let now = "2026-11-22T00:00:00Z".parse().unwrap();
        let (left, old) = uploads(&text, Some(now));
        assert_eq!(left.keys().collect::<Vec<_>>(), ["nar/new", "nar/odd"]);
        assert_eq!(old, [("nar/old".to_owned(), "id-nar/old".to_owned())]);
        assert_eq!(uploads(&text, None).0.len(), 3);
    }

    #[test]
    fn parts_are_read() {
        let text = "<ListPartsResult><Part><PartNumber>2</PartNumber><ETag>&quot;ab&quot;</ETag><Size>7</Size></Part>\
                    <Part><PartNumber>x</PartNumber></Part></ListPartsResult>";
        assert_eq!(parts(text), BTreeMap::from([(2, Part { size: 7, tag: "\"ab\"".into() })]));
    }
}
