//! Reading a file of store objects: once from start to end, with all checks; the NARs go to a file without a name, where
//! each can be found again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

use super::{BundleError, MAGIC, VERSION};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::drv::{self, Derivation, DrvHash};
use crate::nix_compat::wire::{MAX_ITEMS, WireError, lossy_start, read_bytes, read_count};
use crate::store::local::{MAX_DRV, file_of_nar};

/// Longest first line.
const MAX_LINE: u64 = 64;

/// Bytes of all NARs together: more does no machine that builds a plan want to unpack.
const MAX_NARS: u64 = 1 << 40;

/// The smallest NAR there can be, an empty file's, is larger.
const MIN_NAR: u64 = 96;

/// Bytes that are copied at once.
const CHUNK: usize = 64 << 10;

/// Store objects and what was said before them.
#[derive(Debug)]
pub struct Bundle {
    file: PathBuf,
    head: Vec<u8>,
    /// References first.
    objects: Vec<Object>,
    index: HashMap<StorePath, usize>,
    nars: Arc<File>,
    dir: StoreDir,
}

#[derive(Debug)]
struct Object {
    info: PathInfo,
    /// Where its NAR begins.
    at: u64,
}

/// Why reading stopped.
enum Stop {
    /// The file is not what it should be.
    Broken(String),
    /// The NARs cannot be kept.
    Spool(io::Error),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Ended => Self::Broken("it is cut off".to_owned()),
            // zstd's own words.
            other => Self::Broken(format!("it is damaged ({other})")),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        WireError::from(error).into()
    }
}

impl Bundle {
    /// Reads and checks a file; blocks. Its paths have to be those of a store in `dir`.
    pub fn open(file: &Path, dir: &StoreDir) -> Result<Self, BundleError> {
        let failed = |source| BundleError::Io { act: "read", file: file.to_owned(), source };
        let mut reader = BufReader::new(File::open(file).map_err(failed)?);
        let mut line = Vec::new();
        (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).map_err(failed)?;
        let version = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n')?.strip_prefix(MAGIC));
        match version {
            Some(VERSION) => {}
            Some(version) => return Err(BundleError::Version { file: file.to_owned(), version: version.to_owned() }),
            None => return Err(BundleError::NotOne { file: file.to_owned() }),
        }
        let broken = |why: String| BundleError::Broken { file: file.to_owned(), why };
        let stream = zstd::Decoder::with_buffer(reader).map_err(|error| broken(error.to_string()))?;
        let mut stream = Blocking(stream);
        let theirs = now(read_bytes(&mut stream)).map_err(|error| broken(words(error.into())))?;
        if theirs != dir.as_str().as_bytes() {
            let theirs = lossy_start(&theirs);
            return Err(BundleError::StoreDir { file: file.to_owned(), theirs, ours: dir.clone() });
        }
        let mut bundle = Self {
            file: file.to_owned(),
            head: Vec::new(),
            objects: Vec::new(),
            index: HashMap::new(),
            nars: Arc::new(tempfile::tempfile().map_err(failed)?),
            dir: dir.clone(),
        };
        match bundle.fill(&mut stream) {
            Ok(()) => Ok(bundle),
            Err(Stop::Spool(source)) => Err(BundleError::Io { act: "unpack", file: file.to_owned(), source }),
            Err(stop) => Err(broken(words(stop))),
        }
    }

    fn fill<R: Read + Unpin>(&mut self, stream: &mut Blocking<R>) -> Result<(), Stop> {
        self.head = now(read_bytes(stream))?;
        let count = now(read_count(stream, MAX_ITEMS))?;
        let mut hashes: HashMap<StorePath, DrvHash> = HashMap::new();
        let mut at = 0_u64;
        for _ in 0..count {
            let info = now(PathInfo::read(stream, &self.dir))?;
            self.check(&info)?;
            let end = at.checked_add(info.nar_size).filter(|end| *end <= MAX_NARS);
            let end = end.ok_or_else(|| Stop::Broken(format!("{} is too large", info.path)))?;
            let text = self.keep(stream, &info, at)?;
            if info.path.is_derivation() {
                self.check_drv(&info, &text, &mut hashes)?;
            }
            self.index.insert(info.path.clone(), self.objects.len());
            self.objects.push(Object { info, at });
            at = end;
        }
        match stream.0.read(&mut [0; 1])? {
            0 => Ok(()),
            _ => Err(Stop::Broken("something comes after its end".to_owned())),
        }
    }

    /// What can be said of an object before its NAR.
    fn check(&self, info: &PathInfo) -> Result<(), Stop> {
        let path = &info.path;
        let broken = |why: String| Err(Stop::Broken(why));
        if self.index.contains_key(path) {
            return broken(format!("{path} is in it twice"));
        }
        if !info.nar_size.is_multiple_of(8) || info.nar_size < MIN_NAR {
            return broken(format!("{path} has a NAR of {} bytes", info.nar_size));
        }
        if path.is_derivation() {
            if info.nar_size > MAX_DRV {
                return broken(format!("{path} has {} bytes", info.nar_size));
            }
            if let Some(lacking) = info.others().find(|other| other.is_derivation() && !self.index.contains_key(other))
            {
                return broken(format!("{path} comes without {lacking}"));
            }
        }
        Ok(())
    }

    /// Keeps the NAR that follows; gives it whole where it is a derivation's.
    fn keep<R: Read + Unpin>(&self, stream: &mut Blocking<R>, info: &PathInfo, at: u64) -> Result<Vec<u8>, Stop> {
        let mut nar = (&mut stream.0).take(info.nar_size);
        let (mut hash, mut text) = (Sha256::new(), Vec::new());
        let mut spool: &File = &self.nars;
        let mut buffer = vec![0; CHUNK];
        let mut len = 0;
        loop {
            let read = nar.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            spool.write_all(&buffer[..read]).map_err(Stop::Spool)?;
            len += read as u64;
            if info.path.is_derivation() {
                text.extend_from_slice(&buffer[..read]);
            }
        }
        debug_assert!(at <= MAX_NARS);
        let hash: [u8; 32] = hash.finalize().into();
        if len < info.nar_size {
            return Err(Stop::Broken("it is cut off".to_owned()));
        }
        if hash != info.nar_hash {
            return Err(Stop::Broken(format!("the bytes of {} are not those that were written", info.path)));
        }
        Ok(text)
    }

    /// A derivation says itself what it is: its path follows from its text, its outputs from what it needs.
    fn check_drv(&self, info: &PathInfo, nar: &[u8], hashes: &mut HashMap<StorePath, DrvHash>) -> Result<(), Stop> {
        let text = now(file_of_nar(nar))?;
        let checked = drv::verify(&text, &info.path, &self.dir, |input| hashes.get(input).copied());
        let (drv, hash) = checked.map_err(|error| Stop::Broken(crate::error::chain(&error)))?;
        let needed = drv.input_derivations().keys().chain(drv.input_sources()).cloned().collect();
        if info.references != needed {
            return Err(Stop::Broken(format!("{} refers to something else than it needs", info.path)));
        }
        hashes.insert(info.path.clone(), hash);
        Ok(())
    }

    /// The file that it was read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What was said before the objects.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// All objects, references first.
    pub fn infos(&self) -> impl Iterator<Item = &PathInfo> {
        self.objects.iter().map(|object| &object.info)
    }

    /// What is known of an object; `None` if it is not here.
    #[must_use]
    pub fn info(&self, path: &StorePath) -> Option<&PathInfo> {
        Some(&self.objects[self.place(path)?].info)
    }

    /// Its place among the objects, which come after all that they refer to.
    #[must_use]
    pub fn place(&self, path: &StorePath) -> Option<usize> {
        self.index.get(path).copied()
    }

    /// The NAR of an object.
    #[must_use]
    pub fn nar(&self, path: &StorePath) -> Option<Nar> {
        let object = &self.objects[self.place(path)?];
        Some(Nar { nars: Arc::clone(&self.nars), at: object.at, end: object.at + object.info.nar_size })
    }

    /// A derivation; `None` if it is not here. Blocks for some 20 µs.
    pub fn drv(&self, path: &StorePath) -> Option<Result<Derivation, BundleError>> {
        let object = &self.objects[self.place(path)?];
        let read = || -> Result<Derivation, Stop> {
            // Its size was bounded when it was read first.
            let mut nar = vec![0; usize::try_from(object.info.nar_size).unwrap_or_default()];
            self.nars.read_exact_at(&mut nar, object.at).map_err(Stop::Spool)?;
            let text = now(file_of_nar(&nar))?;
            drv::parse(&text, path, &self.dir).map_err(|error| Stop::Broken(crate::error::chain(&error)))
        };
        Some(read().map_err(|stop| BundleError::Broken { file: self.file.clone(), why: words(stop) }))
    }
}

fn words(stop: Stop) -> String {
    match stop {
        Stop::Broken(why) => why,
        Stop::Spool(error) => error.to_string(),
    }
}

/// One NAR, read from its place.
#[derive(Debug)]
pub struct Nar {
    nars: Arc<File>,
    at: u64,
    end: u64,
}

impl AsyncRead for Nar {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.remaining()).min(CHUNK);
        let read = self.nars.read_at(buf.initialize_unfilled_to(want), self.at)?;
        buf.advance(read);
        self.at += read as u64;
        Poll::Ready(Ok(()))
    }
}

/// A blocking stream, for those that only know how to read from others.
struct Blocking<R>(R);

impl<R: Read + Unpin> AsyncRead for Blocking<R> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.0.read(buf.initialize_unfilled())?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

/// What never has to wait.
fn now<T>(read: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    read.now_or_never().unwrap_or_else(|| Err(WireError::malformed("it would have to be waited for")))
}
