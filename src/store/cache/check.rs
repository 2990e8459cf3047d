//! Reads a whole NAR out of a cache and says what it is, whatever its record says of it.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use tokio_util::io::SyncIoBridge;

use super::Cache;
use super::answer::no_answer;
use super::nar::decoder;
use crate::event::{Class, Failure};
use crate::nix_compat::narinfo::{NarInfo, NixHash};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// What a NAR is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarRead {
    /// Bytes of the file, compressed as it is.
    pub file_size: u64,
    /// SHA-256 of the file.
    pub file_hash: NixHash,
    /// SHA-256 and bytes of the NAR in it, or why it cannot be unpacked.
    pub nar: Result<(NixHash, u64), String>,
}

impl Cache {
    /// Reads the NAR that a record names to its end; unpacks at most one byte more than the record says. An error is
    /// one of the way there: the cache gave no answer.
    pub async fn read_nar(&self, info: &NarInfo) -> Result<NarRead, Failure> {
        let file = SyncIoBridge::new(self.file_of(info).await?);
        let (compression, limit) = (info.compression().clone(), info.nar_size().saturating_add(1));
        let work = move || {
            let mut file = Hashed { inner: file, hash: Sha256::new(), size: 0, broken: None };
            let nar = match decoder(&compression, &mut file) {
                Some(decoder) => decoder.and_then(|decoder| hash(decoder.take(limit))),
                None => Err(io::Error::other(format!("'{compression}' is not known here"))),
            };
            let rest = io::copy(&mut file, &mut io::sink());
            if let Some(why) = file.broken.or(rest.err().map(|error| error.to_string())) {
                return Err(why);
            }
            let nar = nar.map_err(|error| crate::error::without_numbers(&error.to_string()));
            Ok(NarRead { file_size: file.size, file_hash: NixHash::Sha256(file.hash.finalize().into()), nar })
        };
        let read = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string()).and_then(|read| read);
        read.map_err(|why| no_answer(Class::Cache, format!("cannot read '{}': {why}", info.url())))
    }
}

fn hash(mut from: impl Read) -> io::Result<(NixHash, u64)> {
    let (mut hash, mut size, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            return Ok((NixHash::Sha256(hash.finalize().into()), size));
        }
        hash.update(chunk.get(..read).unwrap_or_default());
        size += read as u64;
    }
}

/// A reader that knows the hash and the size of what came through it, and whether it broke.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
    size: u64,
    broken: Option<String>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(into) {
            Ok(read) => {
                self.hash.update(into.get(..read).unwrap_or_default());
                self.size += read as u64;
                Ok(read)
            }
            Err(error) => {
                self.broken = Some(crate::error::without_numbers(&error.to_string()));
                Err(error)
            }
        }
    }
}
