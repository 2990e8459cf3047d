//! The primitives of Nix's wire formats: integers, padded strings, lists and framed streams, over any stream.
//!
//! Owns bounds: a peer may claim any length, so nothing is allocated by a claimed length and everything has a limit.
//! Does not know any operation or type of the daemon protocol (that is `daemon`).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::id::{StoreDir, StorePath};

/// Longest string outside of NARs, in bytes.
pub const MAX_TEXT: u64 = 64 << 20;

/// Most items in a list.
pub const MAX_ITEMS: u64 = 10_000_000;

/// Largest frame that is written, in bytes; what Nix itself uses.
pub const FRAME: usize = 64 << 10;

/// Strings up to this length get their memory at once.
const SMALL: usize = 4 << 10;

/// Bytes that are not what the format says, or no bytes at all.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer closed the stream in the middle of something.
    #[error("the stream ended")]
    Ended,
    /// Reading or writing failed.
    #[error(transparent)]
    Io(io::Error),
    /// A length or count beyond its bound.
    #[error("a {what} of {claimed} is beyond the bound of {bound}")]
    TooBig {
        /// What has this size.
        what: &'static str,
        /// The size the peer claims.
        claimed: u64,
        /// The bound.
        bound: u64,
    },
    /// Anything else that cannot be.
    #[error("{0}")]
    Malformed(String),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

impl WireError {
    /// Something malformed, in words.
    pub fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }
}

/// Reads an integer.
pub async fn read_u64<R: AsyncRead + Unpin + ?Sized>(reader: &mut R) -> Result<u64, WireError> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes).await?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads a boolean. Nix takes anything but 0 for true, but writes only 0 and 1: another number is a stray byte.
pub async fn read_bool<R: AsyncRead + Unpin + ?Sized>(reader: &mut R) -> Result<bool, WireError> {
    match read_u64(reader).await? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(WireError::malformed(format!("{other} is neither yes nor no"))),
    }
}

/// Reads the count of a list, at most `bound`.
pub async fn read_count<R: AsyncRead + Unpin + ?Sized>(reader: &mut R, bound: u64) -> Result<u64, WireError> {
    let claimed = read_u64(reader).await?;
    if claimed > bound { Err(WireError::TooBig { what: "list", claimed, bound }) } else { Ok(claimed) }
}

/// Reads a string of bytes and its padding.
pub async fn read_bytes<R: AsyncRead + Unpin + ?Sized>(reader: &mut R) -> Result<Vec<u8>, WireError> {
    let claimed = read_u64(reader).await?;
    if claimed > MAX_TEXT {
        return Err(WireError::TooBig { what: "string", claimed, bound: MAX_TEXT });
    }
    let len = claimed as usize;
    let mut bytes = Vec::with_capacity(len.min(SMALL));
    if len <= SMALL {
        bytes.resize(len, 0);
        reader.read_exact(&mut bytes).await?;
    } else {
        (&mut *reader).take(claimed).read_to_end(&mut bytes).await?;
        if bytes.len() < len {
            return Err(WireError::Ended);
        }
    }
    let mut padding = [0; 8];
    let padding = &mut padding[..padding_of(len)];
    reader.read_exact(padding).await?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(WireError::malformed("the padding of a string is not zero"));
    }
    Ok(bytes)
}

/// Reads a string that has to be UTF-8 (names, paths, signatures; never log lines or error texts).
pub async fn read_text<R: AsyncRead + Unpin + ?Sized>(reader: &mut R) -> Result<String, WireError> {
    let bytes = read_bytes(reader).await?;
    String::from_utf8(bytes)
        .map_err(|error| WireError::malformed(format!("{:?} is not UTF-8", lossy_start(error.as_bytes()))))
}

/// Reads a list of UTF-8 strings.
pub async fn read_texts<R: AsyncRead + Unpin + ?Sized>(reader: &mut R) -> Result<Vec<String>, WireError> {
    let count = read_count(reader, MAX_ITEMS).await?;
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(read_text(reader).await?);
    }
    Ok(texts)
}

/// Reads a store path.
pub async fn read_path<R: AsyncRead + Unpin + ?Sized>(reader: &mut R, dir: &StoreDir) -> Result<StorePath, WireError> {
    parse_path(dir, &read_bytes(reader).await?)
}

/// Reads a store path or an empty string, which is none.
pub async fn read_optional_path<R: AsyncRead + Unpin + ?Sized>(
    reader: &mut R,
    dir: &StoreDir,
) -> Result<Option<StorePath>, WireError> {
    let bytes = read_bytes(reader).await?;
    if bytes.is_empty() { Ok(None) } else { parse_path(dir, &bytes).map(Some) }
}

/// Reads a list of store paths.
pub async fn read_paths<R: AsyncRead + Unpin + ?Sized>(
    reader: &mut R,
    dir: &StoreDir,
) -> Result<Vec<StorePath>, WireError> {
    let count = read_count(reader, MAX_ITEMS).await?;
    let mut paths = Vec::new();
    for _ in 0..count {
        paths.push(read_path(reader, dir).await?);
    }
    Ok(paths)
}

fn parse_path(dir: &StoreDir, bytes: &[u8]) -> Result<StorePath, WireError> {
    dir.parse_path(bytes).map_err(|error| {
        WireError::malformed(format!("{:?} is no store path below {dir}: {error}", lossy_start(bytes)))
    })
}

/// The start of a byte string, for error texts.
pub(crate) fn lossy_start(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    text
}

/// How many zero bytes follow a string of this length.
fn padding_of(len: usize) -> usize {
    (8 - len % 8) % 8
}

/// A message under construction. Messages are built whole and written at once.
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an integer.
    pub fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self
    }

    /// Adds a boolean.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u64(u64::from(value))
    }

    /// Adds a string of bytes with its padding.
    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.u64(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(&[0; 8][..padding_of(bytes.len())]);
        self
    }

    /// Adds a list: its count, then what `add` adds for each item.
    pub fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut add: impl FnMut(&mut Self, T)) -> &mut Self {
        let at = self.bytes.len();
        self.u64(0);
        let mut count = 0_u64;
        for item in items {
            add(self, item);
            count += 1;
        }
        self.bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
        self
    }

    /// Adds a store path.
    pub fn path(&mut self, dir: &StoreDir, path: &StorePath) -> &mut Self {
        self.bytes(dir.render_path(path))
    }

    /// Adds a list of store paths.
    pub fn paths<'a>(&mut self, dir: &StoreDir, paths: impl IntoIterator<Item = &'a StorePath>) -> &mut Self {
        self.list(paths, |this, path| {
            this.path(dir, path);
        })
    }

    /// What has been added so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The finished message.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Writes one frame of a framed stream; an empty one would be its end, so it is left out.
pub async fn write_frame<W: AsyncWrite + Unpin + ?Sized>(writer: &mut W, data: &[u8]) -> Result<(), WireError> {
    if !data.is_empty() {
        writer.write_all(&(data.len() as u64).to_le_bytes()).await?;
        writer.write_all(data).await?;
    }
    Ok(())
}

/// Ends a framed stream and flushes.
pub async fn end_frames<W: AsyncWrite + Unpin + ?Sized>(writer: &mut W) -> Result<(), WireError> {
    writer.write_all(&[0; 8]).await?;
    Ok(writer.flush().await?)
}

/// Copies a framed stream up to its end into a sink; gives the number of bytes.
pub async fn read_framed<R, W>(reader: &mut R, sink: &mut W) -> Result<u64, WireError>
where
    R: AsyncRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut total = 0;
    loop {
        let len = read_u64(reader).await?;
        if len == 0 {
            return Ok(total);
        }
        let copied = tokio::io::copy(&mut (&mut *reader).take(len), sink).await?;
        if copied < len {
            return Err(WireError::Ended);
        }
        total += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn strings_are_padded_to_eight() {
        let mut encoder = Encoder::new();
        encoder.u64(258).bytes("abc").bytes("").bytes("12345678").bool(true);
        let mut wanted = vec![2, 1, 0, 0, 0, 0, 0, 0];
        wanted.extend([3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 0]);
        wanted.extend([0; 8]);
        wanted.extend([8, 0, 0, 0, 0, 0, 0, 0]);
        wanted.extend(b"12345678");
        wanted.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoder.finish(), wanted);
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        for claimed in [MAX_TEXT + 1, u64::MAX, 1 << 63] {
            let bytes = claimed.to_le_bytes();
            assert!(matches!(block_on(read_bytes(&mut &bytes[..])), Err(WireError::TooBig { .. })));
            assert!(matches!(block_on(read_texts(&mut &bytes[..])), Err(WireError::TooBig { .. })));
        }
        // Within the bound, but never sent.
        let bytes = MAX_TEXT.to_le_bytes();
        assert!(matches!(block_on(read_bytes(&mut &bytes[..])), Err(WireError::Ended)));
    }

    #[test]
    fn padding_has_to_be_zero() {
        let mut bytes = Encoder::new().bytes("abc").as_bytes().to_vec();
        bytes[15] = 1;
        assert!(matches!(block_on(read_bytes(&mut &bytes[..])), Err(WireError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..5)) {
            let mut encoder = Encoder::new();
            for string in &strings {
                encoder.bytes(string);
            }
            let bytes = encoder.finish();
            let mut reader = &bytes[..];
            for string in &strings {
                prop_assert_eq!(&block_on(read_bytes(&mut reader)).unwrap(), string);
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_an_error_or_a_string(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = block_on(read_texts(&mut &bytes[..]));
            let _ = block_on(read_paths(&mut &bytes[..], &StoreDir::default()));
        }

        #[test]
        fn framed_streams_keep_their_bytes(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
            let mut bytes = Vec::new();
            let mut copy = Vec::new();
            block_on(async {
                for frame in &frames {
                    write_frame(&mut bytes, frame).await.unwrap();
                }
                end_frames(&mut bytes).await.unwrap();
                let mut reader = &bytes[..];
                read_framed(&mut reader, &mut copy).await.unwrap();
                assert!(reader.is_empty());
            });
            prop_assert_eq!(copy, frames.concat());
        }
    }
}
