//! The blocking half of packing a NAR: hash, compress, hash, in one pass over bytes that never stop anywhere.

use std::io::{self, Write};

use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;

use super::hasher::Hasher;
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
    hash: Hasher,
    got: u64,
}

impl Packer {
    /// Compressed bytes go to `to`.
    pub(super) fn new(to: mpsc::Sender<Bytes>, codec: Codec, expected: Expected) -> Result<Self, StreamError> {
        let threaded = codec.is_threaded(expected.size);
        // What is not compressed has the NAR's own hash.
        let hash = (codec != Codec::None).then(|| Hasher::new(threaded));
        let outlet = Outlet { to, chunk: Vec::new(), hash, size: 0 };
        let encoder = Encoder::new(outlet, codec, expected.size).map_err(StreamError::Pack)?;
        Ok(Self { encoder, expected, hash: Hasher::new(threaded), got: 0 })
    }

    /// The next bytes of the NAR.
    pub(super) fn add(&mut self, bytes: &Bytes) -> Result<(), StreamError> {
        self.got = self.got.saturating_add(bytes.len() as u64);
        if self.got > self.expected.size {
            return Err(StreamError::Short { got: self.got, expected: self.expected.size });
        }
        self.hash.add(bytes);
        self.encoder.write_all(bytes).map_err(StreamError::Pack)
    }

    /// All bytes came: whether they were the right ones, and what they were packed into.
    pub(super) fn end(self) -> Result<Packed, StreamError> {
        let Expected { hash: expected, size } = self.expected;
        if self.got != size {
            return Err(StreamError::Short { got: self.got, expected: size });
        }
        let hash = NixHash::Sha256(self.hash.end().ok_or(StreamError::Lost)?);
        if hash != expected {
            let (expected, got) = (expected.to_nix_nixbase32_string(), hash.to_nix_nixbase32_string());
            return Err(StreamError::Differs { expected, got });
        }
        let mut outlet = self.encoder.finish().map_err(StreamError::Pack)?;
        outlet.send().map_err(StreamError::Pack)?;
        let file_hash = match outlet.hash {
            Some(file) => NixHash::Sha256(file.end().ok_or(StreamError::Lost)?),
            None => hash,
        };
        Ok(Packed { file_hash, file_size: outlet.size })
    }
}

/// Gathers what is written to it into chunks for a packer.
pub(super) struct Inlet {
    packer: Packer,
    chunk: Vec<u8>,
    /// What the packer said when it took no more.
    error: Option<StreamError>,
}

impl Inlet {
    pub(super) fn new(packer: Packer) -> Self {
        Self { packer, chunk: Vec::new(), error: None }
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        self.packer.add(&chunk).map_err(|error| {
            self.error = Some(error);
            io::Error::from(io::ErrorKind::BrokenPipe)
        })
    }

    /// After the writing, which ended like this.
    pub(super) fn end(mut self, written: io::Result<()>) -> Result<Packed, StreamError> {
        let written = written.and_then(|()| self.send());
        match (written, self.error) {
            (Ok(()), _) => self.packer.end(),
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => Err(StreamError::Read(error)),
        }
    }
}

impl Write for Inlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.capacity() == 0 {
            let left = self.packer.expected.size.saturating_sub(self.packer.got);
            self.chunk.reserve_exact(usize::try_from(left).unwrap_or(CHUNK).clamp(bytes.len().min(CHUNK), CHUNK));
        }
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
                if codec.is_threaded(size) {
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
    hash: Option<Hasher>,
    size: u64,
}

impl Outlet {
    /// Waits while nobody takes the chunk.
    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        if let Some(hash) = &mut self.hash {
            hash.add(&chunk);
        }
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
