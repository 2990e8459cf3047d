//! Writing a NAR into the bucket: a small one in one piece, a large one in parts, several at once, as it is made.

use std::sync::Arc;

use reqwest::Url;
use reqwest::header::ETAG;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio_util::bytes::Bytes;

use super::super::api::{Api, Call, CallFailure};
use super::super::sink::PutError;
use super::super::stream::NarStream;
use super::message::{Complete, More, MoreParts, Part, Parts, Place, Where, signed};
use super::{Niks3Cache, has};
use crate::event::Class;

/// Bytes of a part; the server counts on parts of this size.
const PART: u64 = 10 << 20;

/// Parts of one file at most. S3 takes 10,000; compressing may make what cannot be compressed a little larger.
const PARTS: u64 = 9000;

/// Larger parts are a multiple of this.
const STEP: u64 = 16 << 20;

/// Parts of one NAR that are under way at once.
const AT_ONCE: usize = 4;

/// Places for parts that are asked for at a time.
const MORE: usize = 100;

/// A large file on its way.
struct Upload<'a> {
    cache: &'a Niks3Cache,
    key: &'a str,
    id: String,
    urls: Vec<String>,
    sending: JoinSet<Result<Part, CallFailure>>,
    sent: Vec<Part>,
}

impl Niks3Cache {
    /// Writes a NAR of this size, and gives the size of the file; `None` if somebody else wrote it meanwhile.
    pub(super) async fn bring(
        &self,
        key: &str,
        size: u64,
        place: Place,
        nar: NarStream,
    ) -> Result<Option<u64>, PutError> {
        match place.read()? {
            Where::One(url) => self.bring_whole(url, size, nar).await.map(Some),
            Where::Parts(parts) => match self.bring_parts(key, size, parts, nar).await {
                // Somebody else has written it: then the server ends what others have begun.
                Err(Broken::Put(CallFailure { status: Some(404), failure, .. })) => {
                    match has(&self.api, &self.server, key, false).await? {
                        true => Ok(None),
                        false => Err(PutError::Server(failure)),
                    }
                }
                Err(Broken::Put(failed)) => Err(failed.into()),
                Err(Broken::Nar(error)) => Err(error),
                Ok(written) => Ok(Some(written)),
            },
        }
    }

    async fn bring_whole(&self, url: Url, size: u64, mut nar: NarStream) -> Result<u64, PutError> {
        let _room = self.reserve(size).await?;
        let mut body = Vec::new();
        while let Some(chunk) = nar.chunk().await {
            body.extend_from_slice(&chunk);
        }
        let packed = nar.end().await?;
        self.api.call(&Call::signed(url, body.into()), self.api.patience).await?;
        Ok(packed.file_size)
    }

    async fn bring_parts(&self, key: &str, size: u64, parts: Parts, mut nar: NarStream) -> Result<u64, Broken> {
        let part_size = part_size(size);
        let Parts { upload_id: id, part_urls: urls } = parts;
        let mut upload = Upload { cache: self, key, id, urls, sending: JoinSet::new(), sent: Vec::new() };
        for number in 1.. {
            upload.wait_below(AT_ONCE).await?;
            let room = self.reserve(part_size).await.map_err(Broken::Nar)?;
            let Some(part) = nar.part(usize::try_from(part_size).unwrap_or(usize::MAX)).await else { break };
            upload.start(number, part, room).await?;
        }
        upload.wait_below(1).await?;
        let packed = nar.end().await.map_err(|error| Broken::Nar(error.into()))?;
        upload.complete().await?;
        Ok(packed.file_size)
    }

    /// Waits until there is room for so many bytes, and takes it.
    async fn reserve(&self, size: u64) -> Result<OwnedSemaphorePermit, PutError> {
        let kib = u32::try_from((size / 1024 + 1).min(super::ROOM as u64)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await;
        room.map_err(|_| CallFailure::here(Class::Internal, "nothing is sent any more").into())
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

impl Upload<'_> {
    /// Begins to write a part.
    async fn start(&mut self, number: usize, part: Bytes, room: OwnedSemaphorePermit) -> Result<(), CallFailure> {
        if self.urls.len() < number {
            self.more(number).await?;
        }
        let url = self.urls.get(number - 1).map(String::as_str).unwrap_or_default();
        let (api, call) = (Arc::clone(&self.cache.api), Call::signed(signed(url)?, part));
        self.sending.spawn(async move {
            let written = write(&api, number, &call).await;
            drop(room);
            written
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
        self.urls.truncate(number - 1);
        self.urls.extend(got.part_urls);
        Ok(())
    }

    /// Waits until fewer than so many parts are under way.
    async fn wait_below(&mut self, count: usize) -> Result<(), CallFailure> {
        while self.sending.len() >= count
            && let Some(part) = self.sending.join_next().await
        {
            self.sent.push(part.map_err(|error| CallFailure::here(Class::Internal, error.to_string()))??);
        }
        Ok(())
    }

    /// All parts are there: makes one file of them.
    async fn complete(mut self) -> Result<(), CallFailure> {
        self.sent.sort_unstable_by_key(|part| part.part_number);
        let complete = Complete { object_key: self.key, upload_id: &self.id, parts: &self.sent };
        self.cache.post(&["api", "multipart", "complete"], &complete).await.map(drop)
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

/// Bytes of the parts of a NAR of this size.
fn part_size(nar_size: u64) -> u64 {
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
            assert!(size.div_ceil(part_size(size)) <= PARTS && part_size(size) % STEP == 0, "{size}");
        }
    }
}
