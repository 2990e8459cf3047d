//! What a bucket holds: listed page by page, all over the alphabet at once.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;

use super::super::answer::narinfo_name;
use super::super::api::{Call, CallFailure};
use super::super::http::Fetched;
use super::super::list::{Listing, Object, is_record};
use super::super::put::NARINFO;
use super::{S3Cache, first, xml};
use crate::event::{Class, Failure};
use crate::id::StorePath;

/// Letters of the hashes in file names, in their order.
const LETTERS: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Files on one page.
const PAGE: u64 = 1000;

/// A page takes as long as this many questions for one file each.
const QUESTIONS: u64 = 2;

/// Records of a bucket that is asked for everything at once, at most.
const FEW: u64 = 200_000;

/// Requests at once.
const WINDOW: usize = 64;

/// One page of a listing.
#[derive(Debug, Default)]
struct Page {
    objects: Vec<Object>,
    /// Where the next page begins.
    next: Option<String>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let next = xml::element(text, "NextContinuationToken");
        let next = next.filter(|_| xml::element(text, "IsTruncated").as_deref() == Some("true"));
        Self { objects: xml::elements(text, "Contents").filter_map(object).collect(), next }
    }
}

fn object(text: &str) -> Option<Object> {
    let written: jiff::Timestamp = xml::element(text, "LastModified")?.parse().ok()?;
    let size = xml::element(text, "Size")?.parse().ok()?;
    Some(Object { name: xml::element(text, "Key")?, size, written: written.as_second() })
}

impl S3Cache {
    /// About how many records the bucket holds, from its first page; `None` if it does not let itself be listed.
    pub(super) async fn estimate(&self) -> Option<u64> {
        let page = Self::page(self, "", None);
        match page.await {
            Ok(page) => Some(total(&page)),
            Err(why) => {
                tracing::debug!(bucket = %self.place.bucket, why = %why.failure.message, "not to be listed");
                None
            }
        }
    }

    /// Whether one question tells of all paths what it lacks.
    pub(in super::super) fn is_bulk(&self) -> bool {
        self.records.is_some_and(|records| records <= FEW)
    }

    /// Which of these paths it lacks: by listing it where that costs less than a question for each.
    pub(in super::super) async fn missing(&self, paths: &[StorePath]) -> Result<Vec<bool>, Failure> {
        let asking = paths.len() as u64;
        if asking > QUESTIONS && self.records.is_some_and(|records| records / PAGE * QUESTIONS < asking) {
            match self.below("").await {
                Ok(records) => {
                    let there: HashSet<&str> = records.iter().map(|object| object.name.as_str()).collect();
                    return Ok(paths.iter().map(|path| !there.contains(narinfo_name(path).as_str())).collect());
                }
                Err(why) => tracing::debug!(bucket = %self.place.bucket, why = %why.failure.message, "cannot list it"),
            }
        }
        let ask = |path: &StorePath| {
            let name = narinfo_name(path);
            async move {
                match self.http.fetch(Method::HEAD, &name, 0, self.http.patience.attempts).await {
                    Fetched::Found(_) => Ok(false),
                    Fetched::Missing => Ok(true),
                    Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => Err(failure),
                }
            }
        };
        let asked: Vec<_> = paths.iter().map(ask).collect();
        stream::iter(asked).buffered(WINDOW).try_collect().await
    }

    /// All that belongs to paths.
    pub(in super::super) async fn list(&self) -> Result<Listing, Failure> {
        let (records, nars) = tokio::try_join!(self.below(""), self.below("nar/"))?;
        let mut listing = Listing { records, nars };
        listing.records.retain(|object| is_record(&object.name));
        Ok(listing)
    }

    /// Removes a file; one that is not there is removed already.
    pub(in super::super) async fn remove(&self, name: &str) -> Result<(), Failure> {
        match self.api.call(&self.call(Method::DELETE, name), self.api.patience).await {
            Err(CallFailure { status: Some(404), code, .. }) if code.as_deref() == Some("NoSuchKey") => Ok(()),
            removed => Ok(removed.map(drop)?),
        }
    }

    /// Writes a record that was removed back as it was.
    pub(in super::super) async fn put_back(&self, name: &str, body: Vec<u8>) -> Result<(), Failure> {
        Ok(self.put(name, NARINFO, body.into(), self.api.patience).await.map(drop)?)
    }

    /// The files whose names begin like this, those in directories below it left out, by name.
    async fn below(&self, prefix: &str) -> Result<Vec<Object>, CallFailure> {
        let first = self.page(prefix, None).await?;
        let (total, mut objects) = (total(&first), first.objects);
        if first.next.is_some() {
            let found: Vec<Vec<Object>> = stream::iter(prefixes(prefix, total))
                .map(|prefix| async move { self.pages(&prefix).await })
                .buffer_unordered(WINDOW)
                .try_collect()
                .await?;
            objects = found.concat();
        }
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// One page after the other.
    async fn pages(&self, prefix: &str) -> Result<Vec<Object>, CallFailure> {
        let (mut objects, mut next) = (Vec::new(), None);
        loop {
            let page = self.page(prefix, next.as_deref()).await?;
            objects.extend(page.objects);
            // A server that gives the same page again would do so for ever.
            if page.next.is_none() || page.next == next {
                return Ok(objects);
            }
            next = page.next;
        }
    }

    async fn page(&self, prefix: &str, next: Option<&str>) -> Result<Page, CallFailure> {
        let escape = |text: &str| super::sign::escape(text, false);
        let mut query = format!("delimiter=%2F&list-type=2&prefix={}", escape(prefix));
        if let Some(next) = next {
            query.push_str(&format!("&continuation-token={}", escape(next)));
        }
        let call = Call::new(Method::GET, self.url("", &query));
        let reply = self.api.call(&call, first(self.api.patience)).await?;
        let text = reply.text();
        if !text.contains("<ListBucketResult") {
            return Err(CallFailure::here(Class::Cache, "its answer is no listing"));
        }
        Ok(Page::parse(&text))
    }
}

/// How many files there are if those of the first page are spread over the alphabet as those of all pages, which hashes
/// are.
fn total(page: &Page) -> u64 {
    let many = page.objects.len() as u64;
    let (Some(last), Some(_)) = (page.objects.last(), &page.next) else { return many };
    let name = last.name.rsplit('/').next().unwrap_or_default();
    let place = |byte: u8| LETTERS.iter().position(|letter| *letter >= byte).unwrap_or(LETTERS.len() - 1) as u64;
    let covered = name.bytes().take(4).map(place).fold(0, |covered, place| covered * 32 + place);
    many.saturating_mul(1 << 20) / covered.max(1)
}

/// The prefixes that list so many files in parallel, about a page each, if need be with a second letter.
fn prefixes(prefix: &str, total: u64) -> Vec<String> {
    let longer = |prefix: String| LETTERS.iter().map(move |letter| format!("{prefix}{}", char::from(*letter)));
    let first = longer(prefix.to_owned());
    if total <= 64 * PAGE { first.collect() } else { first.flat_map(longer).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><Name>b</Name><IsTruncated>true</IsTruncated>\
        <NextContinuationToken>a&amp;b</NextContinuationToken>\
        <Contents><Key>8.narinfo</Key><LastModified>2026-11-21T10:00:01.000Z</LastModified><Size>12</Size></Contents>\
        <Contents><Key>odd</Key><Size>x</Size></Contents>\
        <CommonPrefixes><Prefix>nar/</Prefix></CommonPrefixes></ListBucketResult>";

    #[test]
    fn pages_are_read() {
        let page = Page::parse(LIST);
        assert_eq!(page.next.as_deref(), Some("a&b"));
        let expected = Object { name: "8.narinfo".into(), size: 12, written: 1_795_255_201 };
        assert_eq!(page.objects, [expected]);
        assert!(Page::parse("<html>").objects.is_empty());
        assert_eq!(Page::parse(&LIST.replace("true", "false")).next, None);
    }

    #[test]
    fn the_first_page_tells_about_how_many_there_are() {
        let page = |last: &str, next: bool| {
            let object = |name: &str| Object { name: name.to_owned(), size: 1, written: 0 };
            let mut objects = vec![object("0"); 999];
            objects.push(object(last));
            Page { objects, next: next.then(|| "n".to_owned()) }
        };
        assert_eq!(total(&page("zzzz", false)), 1000);
        // A quarter of the alphabet.
        assert_eq!(total(&page("8000", true)), 4000);
        assert_eq!(total(&page("nar/8000", true)), 4000);
        assert!(total(&page("0000", true)) > 1_000_000);
        assert_eq!((prefixes("", 4000).len(), prefixes("nar/", 100_000).len()), (32, 1024));
        assert_eq!(prefixes("nar/", 4000)[31], "nar/z");
    }
}
