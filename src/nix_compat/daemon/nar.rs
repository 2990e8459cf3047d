//! Operations that move NARs. They stream; no NAR is ever held whole.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::answer::Source;
use super::connection::{Connection, while_writing};
use super::error::{DaemonError, RemoteError};
use super::message::{Message, Messages, Tag, read_error, read_messages};
use super::ops::Op;
use super::path_info::PathInfo;
use crate::id::StorePath;
use crate::nix_compat::wire::{Encoder, FRAME, WireError, end_frames, read_u64, write_frame};

/// The first eight bytes of every NAR: the length of `nix-archive-1`.
const NAR_START: u64 = 13;

/// The last eight bytes of every NAR: `)` with its padding.
const NAR_END: [u8; 8] = [b')', 0, 0, 0, 0, 0, 0, 0];

/// Most bytes of an error that is looked for at the end of a NAR that broke off.
const ERROR_TAIL: usize = 64 << 10;

impl Connection {
    /// Streams the NAR of a valid path, exactly `nar_size` bytes (its path info says how many), into a sink.
    ///
    /// The daemon can only fail within the stream; that, a path of another size, a sink that fails and dropping this
    /// future all end the connection. What the sink got is not verified: hash it.
    pub async fn nar_from_path<W>(&mut self, path: &StorePath, nar_size: u64, sink: &mut W) -> Result<(), DaemonError>
    where
        W: AsyncWrite + Unpin + Send + ?Sized,
    {
        const ACT: &str = "reading a path";
        let request = self.of_paths(Op::NarFromPath, std::slice::from_ref(path));
        self.begin(ACT)?;
        let Self { reader, writer, .. } = self;
        let wire = |error| DaemonError::wire(ACT, error);

        writer.write_all(request.as_bytes()).await.map_err(|error| wire(error.into()))?;
        writer.flush().await.map_err(|error| wire(error.into()))?;
        if let Some(error) = read_messages(reader, &mut |_: Message| ()).await.map_err(wire)? {
            return Err(self.refused(ACT, error));
        }
        let start = read_u64(reader).await.map_err(wire)?;
        if start == Tag::Error as u64 {
            let error = read_error(reader).await.map_err(wire)?;
            return Err(DaemonError::Fatal { act: ACT, error });
        }
        if start != NAR_START || nar_size < 16 {
            return Err(wire(WireError::malformed("what it sends is no NAR")));
        }
        sink.write_all(&start.to_le_bytes()).await.map_err(|source| DaemonError::Sink { act: ACT, source })?;
        match copy_exactly(reader, sink, nar_size - 8).await {
            Ok(()) => {}
            Err(CopyError::Broke { tail }) => {
                return Err(match error_in(&tail).await {
                    Some(error) => DaemonError::Fatal { act: ACT, error },
                    None => wire(WireError::Ended),
                });
            }
            Err(CopyError::Read(error)) => return Err(wire(error.into())),
            Err(CopyError::Write(source)) => return Err(DaemonError::Sink { act: ACT, source }),
        }
        self.settle();
        Ok(())
    }

    /// Adds a path whose NAR comes from a source. The daemon verifies size and hash; with `check_signatures` also
    /// that a key it trusts has signed (it always checks for untrusted clients). References must be valid already.
    pub async fn add_to_store_nar<S>(
        &mut self,
        info: &PathInfo,
        check_signatures: bool,
        source: &mut S,
        messages: Messages<'_>,
    ) -> Result<(), DaemonError>
    where
        S: AsyncRead + Unpin + Send + ?Sized,
    {
        const ACT: &str = "adding a path";
        let mut request = Encoder::new();
        request.u64(Op::AddToStoreNar as u64);
        info.write(&self.layout.dir, &mut request);
        request.bool(false).bool(!check_signatures);

        self.begin(ACT)?;
        let Self { reader, writer, .. } = self;
        let answered = CancellationToken::new();
        let mut source_error = None;
        let write = async {
            writer.write_all(request.as_bytes()).await?;
            source_error = send_framed(source, writer, &answered).await?;
            Ok(())
        };
        let read = async {
            let refusal = read_messages(reader, messages).await?;
            answered.cancel();
            Ok(refusal)
        };
        let refusal = while_writing(write, read).await.map_err(|error| DaemonError::wire(ACT, error))?;
        match (source_error, refusal) {
            // The daemon misses the rest and says so; what matters is why there is none.
            (Some(source), _) => {
                if self.unasked().is_none() {
                    self.settle();
                }
                Err(DaemonError::Source { act: ACT, source })
            }
            (None, Some(error)) => Err(self.refused(ACT, error)),
            (None, None) => {
                self.settle();
                Ok(())
            }
        }
    }
}

/// Sends a source as a framed stream. Stops with a proper end when the daemon has answered already (it refuses), or
/// when the source fails, which is the inner error.
async fn send_framed<S, W>(
    source: &mut S,
    writer: &mut W,
    answered: &CancellationToken,
) -> Result<Option<io::Error>, WireError>
where
    S: AsyncRead + Unpin + Send + ?Sized,
    W: AsyncWrite + Unpin + Send,
{
    let mut buffer = vec![0; FRAME];
    let mut source_error = None;
    loop {
        let read = tokio::select! {
            biased;
            () = answered.cancelled() => break,
            read = source.read(&mut buffer) => read,
        };
        match read {
            Ok(0) => break,
            Ok(len) => write_frame(writer, &buffer[..len]).await?,
            Err(error) => {
                source_error = Some(error);
                break;
            }
        }
    }
    end_frames(writer).await?;
    Ok(source_error)
}

/// Why a stream was not copied.
enum CopyError {
    /// It ended early, or its end is no end of a NAR. `tail` is the last that came.
    Broke {
        tail: Vec<u8>,
    },
    Read(io::Error),
    Write(io::Error),
}

/// Copies the rest of a NAR. What came last is kept: if the daemon fails half-way, its error stands there.
async fn copy_exactly<W>(reader: &mut Source, sink: &mut W, len: u64) -> Result<(), CopyError>
where
    W: AsyncWrite + Unpin + Send + ?Sized,
{
    let mut buffer = vec![0; FRAME];
    let mut tail: Vec<u8> = Vec::new();
    let mut left = len;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(FRAME).min(FRAME);
        let got = match reader.read(&mut buffer[..want]).await {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(CopyError::Read(error)),
        };
        if got == 0 {
            return Err(CopyError::Broke { tail });
        }
        let data = &buffer[..got];
        sink.write_all(data).await.map_err(CopyError::Write)?;
        left -= got as u64;
        tail.extend_from_slice(data);
        if tail.len() > 2 * ERROR_TAIL {
            tail.drain(..tail.len() - ERROR_TAIL);
        }
    }
    if tail.ends_with(&NAR_END) {
        return Ok(());
    }
    // An error that happens to fill the size, or a path of another size: the rest of it may explain.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(100), reader.read_buf(&mut tail)).await;
    Err(CopyError::Broke { tail })
}

/// The error that stands somewhere in these bytes.
async fn error_in(tail: &[u8]) -> Option<RemoteError> {
    let mut mark = Encoder::new();
    mark.u64(Tag::Error as u64).bytes("Error");
    let mark = mark.finish();
    let at = tail.windows(mark.len()).rposition(|window| window == mark)?;
    read_error(&mut &tail[at + 8..]).await.ok()
}
