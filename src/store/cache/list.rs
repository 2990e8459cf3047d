//! What a cache holds, for those who keep it: its files by name, records as they were written, and removing both.
//!
//! A directory lists itself. A server does not: of it only what is asked for by name is known.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures_util::{StreamExt as _, stream};
use rayon::prelude::*;
use reqwest::Method;

use super::Cache;
use super::answer::no_answer;
use super::backend::{Backend, Reader};
use super::file::{FileCache, read_bounded};
use super::http::{Fetched, HttpCache};
use crate::event::{Class, Failure};
use crate::nix_compat::narinfo::MAX_NARINFO_SIZE;

/// Questions to a server at once.
const WINDOW: usize = 64;

/// What the names of records end in.
const RECORD: &str = ".narinfo";

/// A file of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name, relative to the cache: `HASH.narinfo`, `nar/HASH.nar.zst`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970.
    pub written: i64,
}

/// All files of a cache that belong to paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The records, by name.
    pub records: Vec<Object>,
    /// What lies in `nar/`, by name.
    pub nars: Vec<Object>,
}

/// Whether a file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stat {
    /// It is not.
    Missing,
    /// It is, with so many bytes, if that is said.
    There(Option<u64>),
}

/// Whether this is the name of a record: 32 characters of a store path's hash, and its ending.
#[must_use]
pub fn is_record(name: &str) -> bool {
    name.strip_suffix(RECORD).is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_alphanumeric()))
}

impl Cache {
    /// Whether it says what it holds.
    #[must_use]
    pub fn is_listable(&self) -> bool {
        matches!(self.backend, Backend::File(_) | Backend::S3(_))
    }

    /// All that it holds. Costs one look at each file of a directory.
    pub async fn list(&self) -> Result<Listing, Failure> {
        match &self.backend {
            Backend::File(file) => {
                let file = file.clone();
                blocking(move || file.list()).await.map_err(|why| self.cannot("list", &why))
            }
            Backend::S3(s3) => s3.list().await.map_err(|why| self.cannot("list", &why.message)),
            _ => Err(self.cannot("list", "a server does not say what it has")),
        }
    }

    /// The files of these names, in their order, as they are; for records: nothing is read of them. `None`: not there.
    pub async fn read(&self, names: Vec<String>) -> Vec<Result<Option<Vec<u8>>, Failure>> {
        let many = names.len();
        match self.backend.reader() {
            Reader::File(file) => {
                let file = Arc::clone(file);
                let read = move || Ok(names.par_iter().map(|name| file.read(name)).collect::<Vec<_>>());
                match blocking(read).await {
                    Ok(read) => read.into_iter().map(|one| one.map_err(|error| self.cannot("read", &error))).collect(),
                    Err(why) => vec![Err(self.cannot("read", &why)); many],
                }
            }
            Reader::Http(http) => {
                stream::iter(names).map(|name| read_from(http, name)).buffered(WINDOW).collect().await
            }
            Reader::Copy(_) => vec![Err(self.cannot("read", "it is never read from")); many],
        }
    }

    /// Whether the files of these names are there, in their order.
    pub async fn stat(&self, names: Vec<String>) -> Vec<Result<Stat, Failure>> {
        let many = names.len();
        match self.backend.reader() {
            Reader::File(file) => {
                let file = Arc::clone(file);
                let look = move || Ok(names.par_iter().map(|name| file.stat(name)).collect::<Vec<_>>());
                match blocking(look).await {
                    Ok(seen) => seen.into_iter().map(|one| one.map_err(|error| self.cannot("read", &error))).collect(),
                    Err(why) => vec![Err(self.cannot("read", &why)); many],
                }
            }
            Reader::Http(http) => stream::iter(names).map(|name| stat_of(http, name)).buffered(WINDOW).collect().await,
            Reader::Copy(_) => vec![Err(self.cannot("read", "it is never read from")); many],
        }
    }

    /// Removes files, one after the other in this order, and stops at the first that cannot be removed. What is not
    /// there is removed already. Dropping it stops it between two files.
    pub async fn remove(&self, names: &[String]) -> Result<(), Failure> {
        for name in names {
            let removed = match &self.backend {
                Backend::File(file) => {
                    let (file, name) = (file.clone(), name.clone());
                    blocking(move || file.remove(&name)).await
                }
                Backend::S3(s3) => s3.remove(name).await.map_err(|failure| failure.message.to_string()),
                _ => Err("it is a server".to_owned()),
            };
            removed.map_err(|why| self.cannot("remove files of", &why))?;
        }
        Ok(())
    }

    /// Writes a record that was removed back as it was.
    pub async fn put_back(&self, name: &str, body: Vec<u8>) -> Result<(), Failure> {
        let written = match &self.backend {
            Backend::File(file) => {
                let (file, name) = (file.clone(), name.to_owned());
                blocking(move || file.put_back(&name, &body)).await
            }
            Backend::S3(s3) => s3.put_back(name, body).await.map_err(|failure| failure.message.to_string()),
            _ => Err("it is a server".to_owned()),
        };
        written.map_err(|why| self.cannot("write to", &why))
    }

    fn cannot(&self, act: &str, why: &str) -> Failure {
        no_answer(Class::Cache, format!("cannot {act} cache {}: {why}", self.name()))
    }
}

/// Does it on a blocking thread; errors without the numbers of the system.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    let told = |error: io::Error| crate::error::without_numbers(&error.to_string());
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?.map_err(told)
}

async fn read_from(http: &HttpCache, name: String) -> Result<Option<Vec<u8>>, Failure> {
    match http.fetch(Method::GET, &name, MAX_NARINFO_SIZE, http.patience.attempts).await {
        Fetched::Found(file) => Ok(Some(file.body)),
        Fetched::Missing => Ok(None),
        Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => Err(failure),
    }
}

async fn stat_of(http: &HttpCache, name: String) -> Result<Stat, Failure> {
    match http.fetch(Method::HEAD, &name, 0, http.patience.attempts).await {
        Fetched::Found(file) => Ok(Stat::There(file.size())),
        Fetched::Missing => Ok(Stat::Missing),
        Fetched::Refused(failure, _) | Fetched::NoAnswer(failure) => Err(failure),
    }
}

impl FileCache {
    fn list(&self) -> io::Result<Listing> {
        let mut records = objects(self.root(), "")?;
        records.retain(|object| is_record(&object.name));
        let nars = match objects(&self.root().join("nar"), "nar/") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            nars => nars?,
        };
        Ok(Listing { records, nars })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(path) = self.path(name) else { return Ok(None) };
        read_bounded(&path, MAX_NARINFO_SIZE).map_err(|error| crate::error::without_numbers(&error.to_string()))
    }

    fn stat(&self, name: &str) -> Result<Stat, String> {
        let size = self.file_size(name).map_err(|error| crate::error::without_numbers(&error.to_string()))?;
        Ok(size.map_or(Stat::Missing, |size| Stat::There(Some(size))))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name).ok_or_else(|| io::Error::other(format!("'{name}' is not inside of it")))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn put_back(&self, name: &str, body: &[u8]) -> io::Result<()> {
        let path = self.path(name).ok_or_else(|| io::Error::other(format!("'{name}' is not inside of it")))?;
        self.put(&path, body)
    }
}

/// The files of one directory, by name. A file that goes away meanwhile was none.
fn objects(dir: &std::path::Path, prefix: &str) -> io::Result<Vec<Object>> {
    let names: Vec<fs::DirEntry> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
    let object = |entry: &fs::DirEntry| {
        let name = entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'))?;
        let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let written = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let written = i64::try_from(written).unwrap_or(i64::MAX);
        Some(Object { name: format!("{prefix}{name}"), size: meta.len(), written })
    };
    let mut objects: Vec<Object> = names.par_iter().filter_map(object).collect();
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CacheId, StoreDir};
    use crate::store::cache::{CacheConfig, OpenContext};

    #[test]
    fn records_are_told_by_their_names() {
        assert!(is_record("7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d.narinfo"));
        for name in ["nix-cache-info", "7d4k.narinfo", ".narinfo", "../kq0fz1v3c8b2n5m6l9x0y1w2r3s4d.narinfo"] {
            assert!(!is_record(name), "{name}");
        }
    }

    #[tokio::test]
    async fn a_directory_says_what_it_holds_and_gives_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let record = format!("{}.narinfo", "1".repeat(32));
        fs::create_dir(dir.path().join("nar")).unwrap();
        for (name, body) in [("nix-cache-info", ""), (&record, "StorePath: x\n"), ("nar/a.nar", "abc"), (".tmp", "")] {
            fs::write(dir.path().join(name), body).unwrap();
        }
        let config = CacheConfig { url: format!("file://{}", dir.path().display()), ..CacheConfig::default() };
        let cache = Cache::open(CacheId(0), config, &OpenContext::new(StoreDir::default())).await.unwrap();
        let listing = cache.list().await.unwrap();
        let names = |objects: &[Object]| objects.iter().map(|object| object.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&listing.records), names(&listing.nars)),
            (vec![record.clone()], vec!["nar/a.nar".to_owned()])
        );
        assert_eq!(listing.nars[0].size, 3);

        let body = cache.read(vec![record.clone(), "gone".into()]).await;
        assert_eq!(body, [Ok(Some(b"StorePath: x\n".to_vec())), Ok(None)]);
        let stat = cache.stat(vec!["nar/a.nar".into(), "nar/b.nar".into()]).await;
        assert_eq!(stat, [Ok(Stat::There(Some(3))), Ok(Stat::Missing)]);

        cache.remove(&[record.clone(), record.clone(), "nar/a.nar".into()]).await.unwrap();
        assert_eq!(cache.list().await.unwrap(), Listing::default());
        cache.put_back(&record, b"again".to_vec()).await.unwrap();
        assert_eq!(names(&cache.list().await.unwrap().records), [record]);
        assert!(cache.remove(&["../outside".into()]).await.is_err());
    }
}
