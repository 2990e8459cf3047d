//! Reading NARs out of a cache, decompressed on the way.

use std::io::{self, Read};
use std::pin::Pin;

use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
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
        let compressed = self.file_of(info).await?;
        let limit = info.nar_size().saturating_add(1);
        let compression = info.compression().clone();
        match compression {
            Compression::None => Ok(Box::pin(compressed.take(limit))),
            Compression::Zstd | Compression::Xz | Compression::Bzip2 => {
                Ok(decompressed(compressed, limit, compression))
            }
            other => Err(no_answer(Class::Cache, unknown(&other))),
        }
    }

    /// The file that a record names, as it is.
    pub(super) async fn file_of(&self, info: &NarInfo) -> Result<NarReader, Failure> {
        match self.backend.reader() {
            Reader::File(file) => {
                let gone = |why: String| no_answer(Class::Cache, format!("cannot read '{}': {why}", info.url()));
                let path = file.path(info.url()).ok_or_else(|| gone("it is outside of the cache".to_owned()))?;
                Ok(Box::pin(tokio::fs::File::open(path).await.map_err(|error| gone(error.to_string()))?))
            }
            Reader::Http(http) => Ok(Box::pin(StreamReader::new(Box::pin(http.stream(info.url()).await?)))),
            Reader::Copy(_) => Err(no_answer(Class::Cache, "it is never read from")),
        }
    }
}

fn unknown(compression: &Compression) -> String {
    format!("its NARs are compressed with '{compression}'")
}

/// Most bytes that unpacking xz may take. What says of itself that it needs more (a file may claim 4 GiB) is refused; the
/// highest level of `xz` needs 65 MiB. zstd's own limit is the same.
const MOST_MEMORY: u64 = 128 << 20;

/// Unpacks xz, also several files of it in a row.
pub(super) fn xz<R: Read>(from: R) -> io::Result<XzDecoder<R>> {
    let stream = Stream::new_stream_decoder(MOST_MEMORY, CONCATENATED)?;
    Ok(XzDecoder::new_stream(from, stream))
}

/// Unpacks what is compressed like this; `None` if drover cannot.
pub(super) fn decoder<'a>(compression: &Compression, from: impl Read + 'a) -> Option<io::Result<Box<dyn Read + 'a>>> {
    match compression {
        Compression::None => Some(Ok(Box::new(from))),
        Compression::Zstd => Some(zstd::Decoder::new(from).map(|decoder| Box::new(decoder) as Box<dyn Read>)),
        Compression::Xz => Some(xz(from).map(|decoder| Box::new(decoder) as Box<dyn Read>)),
        Compression::Bzip2 => Some(Ok(Box::new(bzip2::read::MultiBzDecoder::new(from)))),
        _ => None,
    }
}

/// Decompresses on a thread of its own, as far ahead as the reader lets it.
fn decompressed(compressed: NarReader, limit: u64, compression: Compression) -> NarReader {
    let (to, mut chunks) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    let compressed = SyncIoBridge::new(compressed);
    tokio::task::spawn_blocking(move || {
        let decoder = decoder(&compression, compressed);
        let mut decoder = match decoder.unwrap_or_else(|| Err(io::Error::other(unknown(&compression)))) {
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
