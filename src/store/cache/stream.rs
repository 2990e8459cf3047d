//! A NAR on its way into a cache: bytes go in as a store gives them, and come out compressed, hashed and counted.
//!
//! Neither side is ahead of the other by more than some chunks, so that a NAR of any size takes the same memory.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::sync::PollSender;

use super::pack::{Expected, Inlet, Packer};
use super::sink::Codec;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::nar;
use crate::nix_compat::narinfo::NixHash;

/// Bytes of one chunk at most.
pub(super) const CHUNK: usize = 256 * 1024;

/// Chunks that wait on each side of the compressor at most.
const CHUNKS: usize = 4;

/// What a NAR was packed into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of the compressed file.
    pub file_hash: NixHash,
    /// Bytes of the compressed file.
    pub file_size: u64,
}

/// Why a NAR could not be packed: nothing that the cache did.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The store sent less than it promised, or more.
    #[error("the store sent {got} of {expected} bytes")]
    Short {
        /// Bytes that came.
        got: u64,
        /// Bytes that should have come.
        expected: u64,
    },
    /// What the store sent is not what it says it has.
    #[error("its NAR has the hash {got} instead of {expected}")]
    Differs {
        /// What the store says.
        expected: String,
        /// What came.
        got: String,
    },
    /// The files of the path could not be read.
    #[error("its files cannot be read")]
    Read(#[source] io::Error),
    /// It could not be compressed, or nobody took the bytes.
    #[error("it could not be compressed")]
    Pack(#[source] io::Error),
    /// The thread that packs died.
    #[error("packing it ended without a result")]
    Lost,
}

/// The compressed bytes of a NAR as they are made. Dropping it stops the packing.
#[derive(Debug)]
pub struct NarStream {
    chunks: mpsc::Receiver<Bytes>,
    /// What a part left of the last chunk.
    rest: Bytes,
    packing: JoinHandle<Result<Packed, StreamError>>,
    codec: Codec,
}

impl NarStream {
    /// Starts to pack the NAR of this path: what is written to the writer comes out of the stream. Must be called
    /// within a tokio runtime.
    #[must_use]
    pub fn start(codec: Codec, info: &PathInfo) -> (NarWriter, Self) {
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(CHUNKS);
        let stream = Self::packed(codec, info, move |mut packer| {
            while let Some(chunk) = receiver.blocking_recv() {
                packer.add(&chunk.into())?;
            }
            packer.end()
        });
        (NarWriter { chunk: Vec::new(), chunks: PollSender::new(sender) }, stream)
    }

    /// Packs the NAR of this path from its files, which lie at `path` on this machine.
    #[must_use]
    pub fn of_files(codec: Codec, info: &PathInfo, path: PathBuf) -> Self {
        Self::packed(codec, info, move |packer| {
            let mut inlet = Inlet::new(packer);
            let written = nar::write(&path, &mut inlet);
            inlet.end(written)
        })
    }

    fn packed(
        codec: Codec,
        info: &PathInfo,
        pack: impl FnOnce(Packer) -> Result<Packed, StreamError> + Send + 'static,
    ) -> Self {
        let (to, chunks) = mpsc::channel(CHUNKS);
        let expected = Expected { hash: NixHash::Sha256(info.nar_hash), size: info.nar_size };
        let packing = spawn_blocking(move || pack(Packer::new(to, codec, expected)?));
        Self { chunks, rest: Bytes::new(), packing, codec }
    }

    /// How it is compressed.
    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// The next bytes, at most 256 KiB of them; `None` after the last ones, and if packing failed: only
    /// [`end`](Self::end) says whether the NAR was whole.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        match self.take_rest() {
            Some(rest) => Some(rest),
            None => self.chunks.recv().await,
        }
    }

    /// The same for a thread that may block.
    pub fn chunk_blocking(&mut self) -> Option<Bytes> {
        self.take_rest().or_else(|| self.chunks.blocking_recv())
    }

    fn take_rest(&mut self) -> Option<Bytes> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }

    /// The next bytes in one piece, `size` of them unless the file ends before; `None` if it has ended.
    pub async fn part(&mut self, size: usize) -> Option<Bytes> {
        let mut part = BytesMut::new();
        while part.len() < size
            && let Some(mut chunk) = self.chunk().await
        {
            part.extend_from_slice(&chunk.split_to(chunk.len().min(size - part.len())));
            self.rest = chunk;
        }
        (!part.is_empty()).then(|| part.freeze())
    }

    /// After the last chunk: whether the NAR had the hash and the size that the store says.
    pub async fn end(mut self) -> Result<Packed, StreamError> {
        while self.chunk().await.is_some() {}
        (&mut self.packing).await.unwrap_or(Err(StreamError::Lost))
    }
}

/// Takes the bytes of a NAR, in order; it ends with [`end`](NarWriter::end). Writes wait while the compressor is busy.
#[derive(Debug)]
pub struct NarWriter {
    chunk: Vec<u8>,
    chunks: PollSender<Vec<u8>>,
}

impl NarWriter {
    /// All bytes are written.
    pub async fn end(mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.chunks.poll_reserve(cx)).map_err(gone)?;
        Poll::Ready(self.chunks.send_item(std::mem::take(&mut self.chunk)).map_err(gone))
    }
}

impl AsyncWrite for NarWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.chunk.len() >= CHUNK {
            ready!(self.poll_send(cx))?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::id::StorePath;

    fn info(nar: &[u8]) -> PathInfo {
        PathInfo {
            path: StorePath::from_parts([1; 20], "p").unwrap(),
            nar_hash: Sha256::digest(nar).into(),
            nar_size: nar.len() as u64,
            registration_time: 0,
            ultimate: false,
            references: std::collections::BTreeSet::new(),
            deriver: None,
            signatures: std::collections::BTreeSet::new(),
            ca: None,
        }
    }

    #[tokio::test]
    async fn parts_have_the_size_that_was_asked_for() {
        let nar: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
        let (mut writer, mut stream) = NarStream::start(Codec::None, &info(&nar));
        let write = async {
            writer.write_all(&nar).await.unwrap();
            writer.end().await.unwrap();
        };
        let read = async {
            let mut parts = Vec::new();
            while let Some(part) = stream.part(300_000).await {
                parts.push(part);
            }
            let packed = stream.end().await.unwrap();
            assert_eq!(packed.file_size, 1_000_000);
            assert_eq!(packed.file_hash, NixHash::Sha256(Sha256::digest(&nar).into()));
            parts
        };
        let ((), parts) = tokio::join!(write, read);
        assert_eq!(parts.iter().map(Bytes::len).collect::<Vec<_>>(), [300_000, 300_000, 300_000, 100_000]);
        assert_eq!(parts.concat(), nar);
    }

    #[tokio::test]
    async fn what_is_not_the_nar_ends_in_an_error() {
        let expected = info(b"a nar");
        for (sent, expected_error) in [("a na", "4 of 5 bytes"), ("a nar!", "6 of 5 bytes"), ("a bar", "instead of")] {
            let (mut writer, stream) = NarStream::start(Codec::Zstd { level: 1, threads: 0 }, &expected);
            writer.write_all(sent.as_bytes()).await.unwrap();
            writer.end().await.unwrap();
            let error = stream.end().await.unwrap_err().to_string();
            assert!(error.contains(expected_error), "{error}");
        }
    }
}
