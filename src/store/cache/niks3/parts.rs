//! Writing a NAR into the bucket: a small one in one piece, a large one in parts, several at once, as it is made.
//!
//! Where a large NAR was broken off, the ledger has the name of its upload, and of each part that the bucket took its
//! hash and its ETag; the server gives new places for the parts of an upload that it knows. So these parts are not sent
//! again. The server gives up what was begun and not completed after some hours: then the NAR is sent anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::ETAG;
use sha2::{Digest as _, Sha256};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio_util::bytes::Bytes;

use super::super::api::{Api, Call, CallFailure};
use super::super::budget;
use super::super::ledger::{self, Entry};
use super::super::sink::{Again, PutError};
use super::super::stream::NarStream;
use super::message::{Complete, More, MoreParts, Part, Parts, Place, Where, signed};
use super::{Niks3Cache, has};
use crate::event::Class;
use crate::nix_compat::hex;

/// Bytes of a NAR that the server wants in one piece, at most.
const WHOLE: u64 = 10 << 20;

/// Bytes of a part; the server counts on parts of this size.
const PART: u64 = 10 << 20;

/// Parts of one file at most. S3 takes 10,000; compressing may make what cannot be compressed a little larger.
const PARTS: u64 = 9000;

/// Larger parts are a multiple of this.
const STEP: u64 = 16 << 20;

/// Places for parts that are asked for at a time.
const MORE: usize = 100;

/// A large file on its way.
struct Upload<'a> {
    cache: &'a Niks3Cache,
    key: &'a str,
    id: String,
    /// Where parts go, by number.
    urls: BTreeMap<usize, String>,
    /// What the ledger says of it; `None`: it is not large enough, or nothing is kept.
    entry: Option<Entry>,
    /// The parts that an earlier run has sent; `None` if this one has begun it.
    left: Option<BTreeMap<u32, ledger::Part>>,
    sending: JoinSet<Result<Part, CallFailure>>,
    sent: Vec<Part>,
}

/// What a NAR of this size takes in memory at most while it is sent.
pub(super) fn memory(nar_size: u64) -> u64 {
    if nar_size <= WHOLE { u64::MAX } else { budget::Parts::of(part_size(nar_size)).memory() }
}

impl Niks3Cache {
    /// Writes a NAR of this size, and gives the size of the file; `None` if somebody else wrote it meanwhile.
    pub(super) async fn bring(
        &self,
        key: &str,
        place: Place,
        (size, entry): (u64, Option<Entry>),
        nar: NarStream,
    ) -> Result<Option<u64>, PutError> {
        match place.read()? {
            Where::One(url) => self.bring_whole(url, nar).await.map(Some),
            Where::Parts(parts) => {
                let upload = Upload::new(self, key, parts, entry.clone());
                let taken_up = upload.left.is_some();
                match upload.bring(part_size(size), nar).await {
                    // Somebody else has written it: then the server ends what others have begun.
                    Err(Broken::Put(CallFailure { status: Some(404), failure, .. })) => {
                        entry.iter().for_each(Entry::end);
                        match has(&self.api, &self.server, key, false).await? {
                            true => Ok(None),
                            false if taken_up => Err(PutError::Again(Again { failure, throttled: false, floor: None })),
                            false => Err(PutError::Server(failure)),
                        }
                    }
                    Err(Broken::Put(failed)) => Err(failed.into()),
                    Err(Broken::Nar(error)) => {
                        entry.iter().for_each(Entry::end);
                        Err(error)
                    }
                    Ok(written) => Ok(Some(written)),
                }
            }
        }
    }

    async fn bring_whole(&self, url: Url, mut nar: NarStream) -> Result<u64, PutError> {
        let mut body = Vec::new();
        while let Some(chunk) = nar.chunk().await {
            body.extend_from_slice(&chunk);
        }
        let packed = nar.end().await?;
        self.api.call(&Call::signed(url, body.into()), self.api.patience).await?;
        Ok(packed.file_size)
    }
}

/// Why a file in parts did not get there.
enum Broken {
    Put(CallFailure),
    Nar(PutError),
}

impl From<CallFailure> for Broken {
    fn from(failed: CallFailure) -> Self {
        Self::Put(failed)
    }
}

impl<'a> Upload<'a> {
    /// The upload that the ledger knows of, or else the one that the server has begun.
    fn new(cache: &'a Niks3Cache, key: &'a str, parts: Parts, entry: Option<Entry>) -> Self {
        let (id, urls, left) = match entry.as_ref().and_then(Entry::begun) {
            Some(ledger::Begun { id, parts }) => {
                tracing::debug!(key, parts = parts.len(), "going on with an upload");
                (id, BTreeMap::new(), Some(parts))
            }
            None => {
                entry.iter().for_each(|entry| entry.begin(&parts.upload_id));
                (parts.upload_id, (1..).zip(parts.part_urls).collect(), None)
            }
        };
        Self { cache, key, id, urls, entry, left, sending: JoinSet::new(), sent: Vec::new() }
    }

    /// Sends all parts and makes one file of them; gives its size.
    async fn bring(mut self, part_size: u64, mut nar: NarStream) -> Result<u64, Broken> {
        let budget::Parts { size, at_once } = budget::Parts::of(part_size);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        for number in 1.. {
            let Some(part) = nar.part(size).await else { break };
            self.wait_below(at_once).await?;
            match self.there(number, &part).await? {
                Some(there) => self.sent.push(there),
                None => self.start(number, part).await?,
            }
        }
        self.wait_below(1).await?;
        let packed = nar.end().await.map_err(|error| Broken::Nar(error.into()))?;
        self.complete().await?;
        Ok(packed.file_size)
    }

    /// The part, if an earlier run has sent it.
    async fn there(&self, part_number: usize, part: &Bytes) -> Result<Option<Part>, CallFailure> {
        let number = u32::try_from(part_number).unwrap_or(u32::MAX);
        let left = self.left.as_ref().and_then(|left| left.get(&number)).filter(|left| left.size == part.len() as u64);
        let Some(left) = left else { return Ok(None) };
        let is_same = digest(part).await? == left.digest;
        Ok(is_same.then(|| Part { part_number, etag: left.tag.clone() }))
    }

    /// Begins to write a part.
    async fn start(&mut self, number: usize, part: Bytes) -> Result<(), CallFailure> {
        if !self.urls.contains_key(&number) {
            self.more(number).await?;
        }
        let url = self.urls.remove(&number).unwrap_or_default();
        let (api, call) = (Arc::clone(&self.cache.api), Call::signed(signed(&url)?, part.clone()));
        let entry = self.entry.clone();
        self.sending.spawn(async move {
            let Some(entry) = entry else { return write(&api, number, &call).await };
            let (written, digest) = tokio::try_join!(write(&api, number, &call), digest(&part))?;
            let (size, tag) = (part.len() as u64, written.etag.clone());
            entry.part(u32::try_from(number).unwrap_or(u32::MAX), &ledger::Part { size, digest, tag });
            Ok(written)
        });
        Ok(())
    }

    /// Asks for places from this part on.
    async fn more(&mut self, number: usize) -> Result<(), CallFailure> {
        let more = More { object_key: self.key, upload_id: &self.id, start_part_number: number, num_parts: MORE };
        let got: MoreParts = self.cache.post(&["api", "multipart", "request-parts"], &more).await?.json()?;
        if got.start_part_number != number || got.part_urls.is_empty() {
            return Err(CallFailure::here(Class::Cache, "it gave places for other parts than those asked for"));
        }
        self.urls = (number..).zip(got.part_urls).collect();
        Ok(())
    }

    /// Waits until fewer than so many parts are under way.
    async fn wait_below(&mut self, count: usize) -> Result<(), CallFailure> {
        while self.sending.len() >= count
            && let Some(part) = self.sending.join_next().await
        {
            self.sent.push(part.map_err(lost)??);
        }
        Ok(())
    }

    /// All parts are there: makes one file of them.
    async fn complete(mut self) -> Result<(), CallFailure> {
        self.sent.sort_unstable_by_key(|part| part.part_number);
        let complete = Complete { object_key: self.key, upload_id: &self.id, parts: &self.sent };
        self.cache.post(&["api", "multipart", "complete"], &complete).await?;
        self.entry.iter().for_each(Entry::end);
        Ok(())
    }
}

async fn write(api: &Api, part_number: usize, call: &Call) -> Result<Part, CallFailure> {
    let reply = api.call(call, api.patience).await?;
    let etag = reply.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(|etag| etag.trim_matches('"'));
    match etag.filter(|etag| !etag.is_empty()) {
        Some(etag) => Ok(Part { part_number, etag: etag.to_owned() }),
        None => Err(CallFailure::here(Class::Cache, "the bucket said nothing of what it wrote (no ETag)")),
    }
}

/// What the ledger has of the bytes of a part: SHA-256.
async fn digest(part: &Bytes) -> Result<String, CallFailure> {
    let part = part.clone();
    spawn_blocking(move || hex::encode(&Sha256::digest(&part))).await.map_err(lost)
}

fn lost(error: JoinError) -> CallFailure {
    CallFailure::here(Class::Internal, error.to_string())
}

/// Bytes of the parts of a NAR of this size.
pub(super) fn part_size(nar_size: u64) -> u64 {
    match nar_size.div_ceil(PARTS) {
        size if size <= PART => PART,
        size => size.div_ceil(STEP).saturating_mul(STEP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_with_what_would_be_too_many() {
        assert_eq!(part_size(1), PART);
        assert_eq!(part_size(PART * PARTS), PART);
        assert_eq!(part_size(PART * PARTS + 1), STEP);
        for size in [STEP * PARTS, 1 << 40, 10 << 40] {
            assert!(size.div_ceil(part_size(size)) <= PARTS && part_size(size).is_multiple_of(STEP), "{size}");
        }
    }
}
