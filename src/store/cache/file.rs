//! A cache in a directory (`file://`): reading records, and writing so that a reader never sees half a file.
//!
//! All of it but `send` and `register` blocks; callers run it on blocking threads.

use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::Held;
use super::answer::{Answer, Trust, narinfo_name, no_answer};
use super::error::CacheError;
use super::info::{self, CacheInfo};
use super::sink::{Codec, Nar, PutError};
use super::stream::NarStream;
use crate::event::{Class, Failure};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::narinfo::{MAX_NARINFO_SIZE, NarInfo};

/// A binary cache in a directory.
#[derive(Debug, Clone)]
pub(super) struct FileCache {
    root: PathBuf,
}

impl FileCache {
    /// A directory as it is, whatever it holds.
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Opens the directory. With `create`, a directory that does not exist or is unused becomes a cache.
    pub(super) fn open(
        root: &Path,
        shown: &str,
        store_dir: &StoreDir,
        create: bool,
    ) -> Result<(Self, CacheInfo), CacheError> {
        let cache = Self { root: root.to_owned() };
        let at = root.join(info::NAME);
        let text = match read_bounded(&at, info::MAX_SIZE) {
            Ok(Some(text)) => text,
            Ok(None) if create && is_unused(root) => {
                let text = CacheInfo::new_file(store_dir.as_str()).into_bytes();
                let failed = |source| CacheError::Io { act: "create", path: root.to_owned(), source };
                fs::create_dir_all(root.join("nar")).map_err(failed)?;
                cache.put(Path::new(info::NAME), &text).map_err(failed)?;
                text
            }
            Ok(None) => return Err(CacheError::NotACache { url: shown.to_owned() }),
            Err(source) => return Err(CacheError::Io { act: "read", path: at, source }),
        };
        let info = CacheInfo::parse(&text).map_err(|why| CacheError::Url { url: shown.to_owned(), why })?;
        if create {
            cache.sweep();
        }
        Ok((cache, info))
    }

    /// Answers for all paths, on all cores.
    pub(super) fn ask(&self, trust: &Trust, paths: &[StorePath]) -> Vec<Answer> {
        paths
            .par_iter()
            .with_min_len(32)
            .map(|path| match self.record(path) {
                Ok(Some(body)) => trust.judge(path, &body),
                Ok(None) => Answer::Absent,
                Err(failure) => Answer::NoAnswer(failure),
            })
            .collect()
    }

    /// Reads the records of all paths, and looks for their NARs.
    pub(super) fn inspect(&self, trust: &Trust, paths: &[StorePath]) -> Vec<Result<Option<Held>, Failure>> {
        paths.par_iter().with_min_len(32).map(|path| self.inspect_one(trust, path)).collect()
    }

    fn inspect_one(&self, trust: &Trust, path: &StorePath) -> Result<Option<Held>, Failure> {
        let Some(body) = self.record(path)? else { return Ok(None) };
        let info = Box::new(trust.read(path, &body)?);
        let size = self
            .file_size(info.url())
            .map_err(|error| no_answer(Class::Cache, format!("cannot look at '{}': {error}", info.url())))?;
        let nar = size.is_some_and(|size| info.file_size().is_none_or(|expected| expected == size));
        Ok(Some(Held { info, nar }))
    }

    /// The body of a path's record.
    fn record(&self, path: &StorePath) -> Result<Option<Vec<u8>>, Failure> {
        let at = self.root.join(narinfo_name(path));
        read_bounded(&at, MAX_NARINFO_SIZE)
            .map_err(|error| no_answer(Class::Cache, format!("cannot read '{}': {error}", at.display())))
    }

    /// The size of the file that a record's `URL` names; `None` if it is not there. A URL that leaves the directory
    /// counts as not there.
    pub(super) fn file_size(&self, url: &str) -> io::Result<Option<u64>> {
        let Some(path) = self.path(url) else { return Ok(None) };
        match fs::metadata(path) {
            Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The file that a record's `URL` names.
    pub(super) fn path(&self, url: &str) -> Option<PathBuf> {
        let inside = Path::new(url).components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.root.join(url))
    }

    /// A temporary file on the same file system, removed when dropped; readable by all once it is placed.
    pub(super) fn spool(&self) -> io::Result<NamedTempFile> {
        let dir = self.root.join(SPOOL);
        match spool_in(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&dir)?;
                fs::create_dir_all(self.root.join("nar"))?;
                spool_in(&dir)
            }
            other => other,
        }
    }

    /// Removes what pushes left behind that were killed: files to which nobody has written for a day. What cannot be
    /// removed costs room and nothing else.
    fn sweep(&self) {
        let left = |entry: &fs::DirEntry| entry.metadata()?.modified()?.elapsed().map_err(io::Error::other);
        for entry in fs::read_dir(self.root.join(SPOOL)).into_iter().flatten().flatten() {
            if left(&entry).is_ok_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Brings a NAR into the directory.
    pub(super) async fn send(self: &Arc<Self>, codec: Codec, mut nar: NarStream) -> Result<Nar, PutError> {
        let file = Arc::clone(self);
        let written = spawn_blocking(move || {
            let mut spool = file.spool()?;
            while let Some(chunk) = nar.chunk_blocking() {
                spool.write_all(&chunk)?;
            }
            Ok::<_, io::Error>((spool, nar))
        });
        let (spool, nar) = written.await.map_err(io::Error::other)??;
        let packed = nar.end().await?;
        let url = Nar::file_name(&packed.file_hash, codec);
        let (file, name) = (Arc::clone(self), url.clone());
        let new = spawn_blocking(move || file.place(spool, &name)).await.map_err(io::Error::other)??;
        Ok(Nar::file(url, codec, packed, new))
    }

    /// Writes a record; whoever reads at the same time sees the old or the new one.
    pub(super) async fn register(self: &Arc<Self>, record: NarInfo) -> Result<(), PutError> {
        let file = Arc::clone(self);
        Ok(spawn_blocking(move || file.put_narinfo(&record)).await.map_err(io::Error::other)??)
    }

    /// Gives a spooled file its name. `false` if one of that name and size was there already.
    fn place(&self, spooled: NamedTempFile, name: &str) -> io::Result<bool> {
        let size = spooled.as_file().metadata()?.len();
        if self.file_size(name)? == Some(size) {
            return Ok(false);
        }
        spooled.persist(self.root.join(name)).map_err(|error| error.error)?;
        Ok(true)
    }

    /// Writes a record, atomically.
    fn put_narinfo(&self, info: &NarInfo) -> io::Result<()> {
        self.put(Path::new(&narinfo_name(info.store_path())), &info.to_canonical_bytes())
    }

    pub(super) fn put(&self, name: &Path, body: &[u8]) -> io::Result<()> {
        let mut file = spool_in(&self.root)?;
        file.write_all(body)?;
        file.persist(self.root.join(name)).map_err(|error| error.error)?;
        Ok(())
    }
}

/// How names of temporary files begin.
const TEMPORARY: &str = ".drover-";

/// Where NARs are written before they get their names.
const SPOOL: &str = ".drover-spool";

/// Nobody writes so slowly.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);

fn spool_in(dir: &Path) -> io::Result<NamedTempFile> {
    // The umask takes away what others must not do; a temporary file's usual 0600 would stay with the cache.
    tempfile::Builder::new().prefix(TEMPORARY).permissions(Permissions::from_mode(0o666)).tempfile_in(dir)
}

/// Whether a directory is not there, holds nothing, or only what a cache begins with: another drover may be making
/// this very cache at the moment, and both write the same.
fn is_unused(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().all(|entry| {
            let name = entry.file_name();
            name == "nar" || name == info::NAME || name.to_string_lossy().starts_with(TEMPORARY)
        }),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// A whole file of at most `limit` bytes; `None` if it is not there.
pub(super) fn read_bounded(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut body = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut body)?;
    if body.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {limit} bytes")));
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_push_left_is_swept_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FileCache::open(dir.path(), "file:///c", &StoreDir::new("/nix/store").unwrap(), true).unwrap().0;
        let cache = open();
        let (new, old) = (cache.spool().unwrap().keep().unwrap(), cache.spool().unwrap().keep().unwrap());
        let now = old.0.metadata().unwrap().modified().unwrap();
        old.0.set_modified(now - 2 * LEFT_BEHIND).unwrap();
        open();
        assert!(new.1.exists() && !old.1.exists());
    }

    #[test]
    fn a_cache_that_another_run_has_begun_to_make_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FileCache::open(dir.path(), "file:///c", &StoreDir::default(), true).map(drop);
        fs::create_dir(dir.path().join("nar")).unwrap();
        let _half = spool_in(dir.path()).unwrap();
        open().unwrap();
        open().unwrap();
        assert!(dir.path().join(info::NAME).exists());
    }

    #[test]
    fn a_directory_of_something_else_is_no_cache() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let opened = FileCache::open(dir.path(), "file:///c", &StoreDir::default(), true);
        assert!(matches!(opened.map(drop), Err(CacheError::NotACache { .. })));
    }
}
