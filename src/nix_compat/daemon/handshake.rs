//! The start of a connection: versions and trust. Source: `worker-protocol-connection.cc` of Nix.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::connection::while_writing;
use super::error::{DaemonError, RemoteError};
use super::message::{Messages, read_messages};
use crate::nix_compat::wire::{Encoder, WireError, lossy_start, read_text, read_texts, read_u64};

/// What a client says first.
pub const CLIENT_MAGIC: u64 = 0x6e69_7863;
/// What a daemon answers.
pub const SERVER_MAGIC: u64 = 0x6478_696f;
/// The protocol that drover offers: 1.38, with no features.
pub const OFFERED_MINOR: u16 = 38;
/// The oldest protocol that it accepts: 1.35, Nix 2.15 to 2.19 and Lix.
pub const OLDEST_MINOR: u16 = 35;

/// What the daemon lets its client do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// It does not say; to be treated as trusted until it refuses.
    Unknown,
    /// Input-addressed builds, unsigned paths, settings.
    Trusted,
    /// Only what proves itself.
    Untrusted,
}

/// What is known of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The protocol in use is 1.`minor`.
    pub minor: u16,
    /// As it says: `2.34.8`.
    pub nix_version: String,
    /// What it lets us do.
    pub trust: Trust,
}

const ACT: &str = "connecting";
const VERSION: u64 = (1 << 8) | OFFERED_MINOR as u64;

/// Speaks first, and gives what the other side said.
pub(super) async fn shake<R, W>(reader: &mut R, writer: &mut W, messages: Messages<'_>) -> Result<Peer, DaemonError>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let wire = |error| DaemonError::wire(ACT, error);
    let protocol = |what| DaemonError::Protocol { act: ACT, what };

    // A daemon that is gone already may have said why: reading goes first, whatever became of the writing.
    let hello = async {
        let mut hello = Encoder::new();
        send(writer, hello.u64(CLIENT_MAGIC).u64(VERSION)).await
    };
    let magic = while_writing(hello, read_u64(reader)).await.map_err(wire)?;
    if magic != SERVER_MAGIC {
        return Err(protocol(format!("it begins with {:?}", greeting(magic, reader).await)));
    }
    let version = read_u64(reader).await.map_err(wire)?;
    if version >> 8 != 1 {
        return Err(protocol(format!("its version is {}.{}", version >> 8, version & 0xff)));
    }
    let minor = (version.min(VERSION) & 0xff) as u16;
    if minor < OLDEST_MINOR {
        return Err(protocol(format!("its version is 1.{minor}, drover needs 1.{OLDEST_MINOR} (Nix 2.19)")));
    }

    // What follows needs no answer in between, so it is one write: features, CPU affinity, reserved space.
    let mut rest = Encoder::new();
    if minor >= 38 {
        rest.u64(0);
    }
    rest.u64(0).u64(0);
    let said = while_writing(send(writer, &rest), read_rest(reader, minor, messages)).await.map_err(wire)?;
    match said {
        (peer, None) => Ok(peer),
        (_, Some(error)) => Err(DaemonError::Fatal { act: ACT, error }),
    }
}

/// What it says of itself, and the error with which it refuses us, if it does.
async fn read_rest<R>(
    reader: &mut R,
    minor: u16,
    messages: Messages<'_>,
) -> Result<(Peer, Option<RemoteError>), WireError>
where
    R: AsyncRead + Unpin + Send,
{
    if minor >= 38 {
        let features = read_texts(reader).await?;
        tracing::debug!(?features, "the daemon offers features, none is used");
    }
    let nix_version = read_text(reader).await?;
    let trust = match read_u64(reader).await? {
        0 => Trust::Unknown,
        1 => Trust::Trusted,
        2 => Trust::Untrusted,
        other => return Err(WireError::malformed(format!("{other} is no trust"))),
    };
    let refusal = read_messages(reader, messages).await?;
    Ok((Peer { minor, nix_version, trust }, refusal))
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, message: &Encoder) -> Result<(), WireError> {
    writer.write_all(message.as_bytes()).await?;
    Ok(writer.flush().await?)
}

/// What came instead of the magic: a login shell's greeting, an error text. A little more of it, if it is there.
async fn greeting<R: AsyncRead + Unpin>(magic: u64, reader: &mut R) -> String {
    let mut bytes = magic.to_le_bytes().to_vec();
    let mut more = [0; 192];
    let read = tokio::time::timeout(Duration::from_millis(100), reader.read(&mut more));
    if let Ok(Ok(len)) = read.await {
        bytes.extend_from_slice(&more[..len]);
    }
    lossy_start(&bytes)
}
