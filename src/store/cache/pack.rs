//! The blocking half of packing a NAR: hash, compress, hash, in one pass over bytes that never stop anywhere.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;

use super::sink::Codec;
use super::stream::{CHUNK, Packed, StreamError};
use crate::nix_compat::narinfo::NixHash;

/// Bytes that one compressing thread gets at a time, if there are several.
const JOB: u32 = 2 * 1024 * 1024;

/// What a NAR has to be.
pub(super) struct Expected {
    pub(super) hash: NixHash,
    pub(super) size: u64,
}

/// A NAR on its way through.
pub(super) struct Packer {
    encoder: Encoder,
    expected: Expected,
    hash: Sha256,
    got: u64,
}

impl Packer {
    /// Compressed bytes go to `to`.
    pub(super) fn new(to: mpsc::Sender<Bytes>, codec: Codec, expected: Expected) -> Result<Self, StreamError> {
        let encoder = Encoder::new(Outlet::new(to), codec, expected.size).map_err(StreamError::Pack)?;
        Ok(Self { encoder, expected, hash: Sha256::new(), got: 0 })
    }

    /// The next bytes of the NAR.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.got = self.got.saturating_add(bytes.len() as u64);
        if self.got > self.expected.size {
            return Err(StreamError::Short { got: self.got, expected: self.expected.size });
        }
        self.hash.update(bytes);
        self.encoder.write_all(bytes).map_err(StreamError::Pack)
    }

    /// All bytes came: whether they were the right ones, and what they were packed into.
    pub(super) fn end(self) -> Result<Packed, StreamError> {
        let Expected { hash: expected, size } = self.expected;
        if self.got != size {
            return Err(StreamError::Short { got: self.got, expected: size });
        }
        let hash = NixHash::Sha256(self.hash.finalize().into());
        if hash != expected {
            let (expected, got) = (expected.to_nix_nixbase32_string(), hash.to_nix_nixbase32_string());
            return Err(StreamError::Differs { expected, got });
        }
        let mut outlet = self.encoder.finish().map_err(StreamError::Pack)?;
        outlet.send().map_err(StreamError::Pack)?;
        Ok(Packed { file_hash: NixHash::Sha256(outlet.hash.finalize().into()), file_size: outlet.size })
    }
}

enum Encoder {
    None(Outlet),
    Zstd(zstd::Encoder<'static, Outlet>),
}

impl Encoder {
    fn new(outlet: Outlet, codec: Codec, size: u64) -> io::Result<Self> {
        match codec {
            Codec::None => Ok(Self::None(outlet)),
            Codec::Zstd { level, threads } => {
                let mut encoder = zstd::Encoder::new(outlet, level)?;
                encoder.set_pledged_src_size(Some(size))?;
                if size >= Codec::BIG && threads > 1 {
                    encoder.multithread(threads)?;
                    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB))?;
                }
                Ok(Self::Zstd(encoder))
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(outlet) => outlet.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Outlet> {
        match self {
            Self::None(outlet) => Ok(outlet),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Sends what is written to it in chunks, and knows its hash and its size.
struct Outlet {
    to: mpsc::Sender<Bytes>,
    chunk: Vec<u8>,
    hash: Sha256,
    size: u64,
}

impl Outlet {
    fn new(to: mpsc::Sender<Bytes>) -> Self {
        Self { to, chunk: Vec::new(), hash: Sha256::new(), size: 0 }
    }

    /// Waits while nobody takes the chunk.
    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        self.hash.update(&chunk);
        self.size = self.size.saturating_add(chunk.len() as u64);
        self.to.blocking_send(chunk).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.chunk.len() >= CHUNK {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
