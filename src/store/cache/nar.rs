//! Reading NARs out of a cache, decompressed on the way.

use std::io::{self, Read};
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::Cache;
use super::answer::no_answer;
use super::backend::Reader;
use crate::event::{Class, Failure};
use crate::nix_compat::narinfo::{Compression, NarInfo};

/// Bytes that are decompressed at a time.
const CHUNK: usize = 64 << 10;

/// Chunks that wait for the reader.
const AHEAD: usize = 8;

/// A NAR as it comes.
pub type NarReader = Pin<Box<dyn AsyncRead + Send>>;

impl Cache {
    /// The NAR that a record names. Gives at most one byte more than the record says, whatever the cache sends; its
    /// hash is for the reader to check.
    pub async fn nar(&self, info: &NarInfo) -> Result<NarReader, Failure> {
        let compressed: NarReader = match self.backend.reader() {
            Reader::File(file) => {
                let gone = |why: String| no_answer(Class::Cache, format!("cannot read '{}': {why}", info.url()));
                let path = file.path(info.url()).ok_or_else(|| gone("it is outside of the cache".to_owned()))?;
                Box::pin(tokio::fs::File::open(path).await.map_err(|error| gone(error.to_string()))?)
            }
            Reader::Http(http) => Box::pin(StreamReader::new(Box::pin(http.stream(info.url()).await?))),
            Reader::Copy(_) => return Err(no_answer(Class::Cache, "it is never read from")),
        };
        let limit = info.nar_size().saturating_add(1);
        match info.compression() {
            Compression::None => Ok(Box::pin(compressed.take(limit))),
            Compression::Zstd => Ok(decompressed(compressed, limit, |read| Ok(Box::new(zstd::Decoder::new(read)?)))),
            Compression::Xz => Ok(decompressed(compressed, limit, |read| {
                Ok(Box::new(liblzma::read::XzDecoder::new_multi_decoder(read)))
            })),
            Compression::Bzip2 => {
                Ok(decompressed(compressed, limit, |read| Ok(Box::new(bzip2::read::MultiBzDecoder::new(read)))))
            }
            other => Err(no_answer(Class::Cache, format!("its NARs are compressed with '{other}'"))),
        }
    }
}

type Compressed = SyncIoBridge<NarReader>;

/// Decompresses on a thread of its own, as far ahead as the reader lets it.
fn decompressed(
    compressed: NarReader,
    limit: u64,
    decoder: impl FnOnce(Compressed) -> io::Result<Box<dyn Read>> + Send + 'static,
) -> NarReader {
    let (to, mut chunks) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    let compressed = SyncIoBridge::new(compressed);
    tokio::task::spawn_blocking(move || {
        let mut decoder = match decoder(compressed) {
            Ok(decoder) => decoder.take(limit),
            Err(error) => return drop(to.blocking_send(Err(error))),
        };
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = match decoder.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) => return drop(to.blocking_send(Err(error))),
            };
            chunk.truncate(read);
            if to.blocking_send(Ok(chunk.into())).is_err() {
                // Nobody reads any more.
                return;
            }
        }
    });
    let stream = futures_util::stream::poll_fn(move |cx| chunks.poll_recv(cx));
    Box::pin(StreamReader::new(stream))
}
