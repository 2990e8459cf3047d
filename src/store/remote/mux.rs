//! Channels of an ssh that is logged in: asks it through its control socket, in OpenSSH's multiplexing protocol
//! (`PROTOCOL.mux`), so that a channel costs a round trip and no process.
//!
//! A command's streams are pipes whose far ends the master is given. It closes the channel, in both directions and at
//! once, when the connection to its control socket is closed.

use std::io::{Error, ErrorKind, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender, pipe};

const HELLO: u32 = 1;
const NEW_SESSION: u32 = 0x1000_0002;
const PROXY: u32 = 0x1000_000f;
const DENIED: u32 = 0x8000_0002;
const FAILURE: u32 = 0x8000_0003;
const EXIT: u32 = 0x8000_0004;
const OPENED: u32 = 0x8000_0006;
const PROXYING: u32 = 0x8000_000f;

/// The version of the protocol, since OpenSSH 5.6.
const VERSION: u32 = 4;

/// The longest message of a master, in bytes.
const LONGEST: u32 = 64 << 10;

/// Our only request on a connection.
const REQUEST: u32 = 0;

/// A command that runs over there. Dropping it closes the channel.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) stdin: Sender,
    pub(super) stdout: Receiver,
    pub(super) stderr: Receiver,
    pub(super) control: Control,
}

/// What keeps a channel open, and tells how its command ended.
#[derive(Debug)]
pub(super) struct Control(UnixStream);

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub(super) enum MuxError {
    /// The other side does not want it.
    #[error("{0}")]
    Refused(String),
    /// The master is gone, or does not speak as it should.
    #[error("its ssh does not answer")]
    Master(#[from] Error),
}

/// Runs a command in the login's shell.
pub(super) async fn session(control: &Path, command: &str) -> Result<Running, MuxError> {
    let mut request = Packet::new(NEW_SESSION);
    // Reserved; no terminal, X11, agent, subsystem; no escape character; no TERM.
    request.u32(REQUEST).text("").u32(0).u32(0).u32(0).u32(0).u32(u32::MAX).text("").text(command);
    let (stdin, theirs_in) = pipe()?;
    let (theirs_out, stdout) = pipe()?;
    let (theirs_err, stderr) = pipe()?;
    let theirs =
        [theirs_in.into_nonblocking_fd()?, theirs_out.into_nonblocking_fd()?, theirs_err.into_nonblocking_fd()?];
    let control = open(control, request, &theirs).await?;
    Ok(Running { stdin, stdout, stderr, control })
}

/// A connection to the master over which the other side's messages are passed on as they are.
pub(super) async fn proxy(control: &Path) -> Result<UnixStream, MuxError> {
    let mut request = Packet::new(PROXY);
    request.u32(REQUEST);
    Ok(open(control, request, &[]).await?.0)
}

async fn open(control: &Path, request: Packet, theirs: &[OwnedFd]) -> Result<Control, MuxError> {
    let mut stream = UnixStream::connect(control).await?;
    let mut bytes = Packet::new(HELLO).u32(VERSION).take();
    let mut request = request;
    bytes.extend(request.take());
    stream.write_all(&bytes).await?;
    for fd in theirs {
        send_fd(&stream, fd.as_fd()).await?;
    }
    let mut control = Control(stream);
    let (kind, body) = control.read().await?;
    if kind != HELLO || number(&body, 0) != Some(VERSION) {
        return Err(malformed("it speaks another version of the multiplexing protocol").into());
    }
    match control.read().await? {
        (OPENED | PROXYING, _) => Ok(control),
        (DENIED | FAILURE, body) => {
            let text = body.get(8..).unwrap_or_default();
            Err(MuxError::Refused(String::from_utf8_lossy(text).into_owned()))
        }
        (kind, _) => Err(malformed(&format!("{kind:#x} is no answer")).into()),
    }
}

impl Control {
    /// How the command of a session ended, once it has; `None` if the channel was closed without a word.
    pub(super) async fn exit_code(&mut self) -> Option<u32> {
        loop {
            match self.read().await {
                Ok((EXIT, body)) => return number(&body, 4),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The next message: what it is, and the rest.
    async fn read(&mut self) -> std::io::Result<(u32, Vec<u8>)> {
        let len = self.0.read_u32().await?;
        if !(4..=LONGEST).contains(&len) {
            return Err(malformed("a message of it is too long"));
        }
        let kind = self.0.read_u32().await?;
        let mut body = vec![0; len as usize - 4];
        self.0.read_exact(&mut body).await?;
        Ok((kind, body))
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// The big-endian number at an offset.
pub(super) fn number(body: &[u8], at: usize) -> Option<u32> {
    let bytes = body.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Sends a file descriptor, along with one byte as it has to be.
async fn send_fd(stream: &UnixStream, fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let send = || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Error::other("no space for a file descriptor"));
        }
        sendmsg(stream, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
        Ok(())
    };
    stream.async_io(Interest::WRITABLE, send).await
}

/// A message in the making.
struct Packet(Vec<u8>);

impl Packet {
    fn new(kind: u32) -> Self {
        let mut packet = Self(Vec::new());
        packet.u32(kind);
        packet
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self
    }

    /// The message with its length before it.
    fn take(&mut self) -> Vec<u8> {
        let mut bytes = u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        bytes.append(&mut self.0);
        bytes
    }
}
