//! A channel to a socket on the other side, in proxy mode of the master: it passes the messages of SSH's connection
//! protocol (RFC 4254, and `direct-streamlocal@openssh.com` of OpenSSH's `PROTOCOL`) on as they are.
//!
//! ssh could listen on a local socket and forward that (`-L`), but when that is closed, ssh only half-closes the other
//! end, of which a daemon with a silent build takes no notice. Here the channel is closed, both ways and at once, when
//! its connection to the master is.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::UnixStream;

use super::mux::{self, MuxError};

const OPEN: u8 = 90;
const CONFIRMED: u8 = 91;
const REFUSED: u8 = 92;
const WINDOW: u8 = 93;
const DATA: u8 = 94;
const EOF: u8 = 96;
const CLOSE: u8 = 97;

/// Our number of the channel: there is one a connection.
const OURS: u32 = 0;

/// Bytes that may be under way to us.
const OUR_WINDOW: u32 = 2 << 20;

/// The longest piece of data, in either direction.
const PIECE: u32 = 32 << 10;

/// The longest message that we take.
const LONGEST: usize = 256 << 10;

/// Bytes that wait to be written before a writer has to wait, too.
const FULL: usize = 256 << 10;

/// Of a data message, what stands before the data: padding, kind, channel, length.
const HEAD: usize = 10;

/// Connections to a master whose channel was never confirmed. The master dies, and all its channels with it, when one of
/// them is closed (seen with OpenSSH 9.2: it wants to close a channel of which it knows no number); so they are kept
/// until it ends.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed(Mutex<Vec<UnixStream>>);

/// A connection whose channel is not confirmed yet.
struct Opening<'a> {
    stream: Option<UnixStream>,
    kept: &'a Unconfirmed,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        lock(&self.kept.0).extend(self.stream.take());
    }
}

/// Connects to a socket over there.
pub(super) async fn open(
    control: &Path,
    socket: &str,
    kept: &Unconfirmed,
) -> std::result::Result<(ReadHalf, WriteHalf), MuxError> {
    let mut opening = Opening { stream: Some(mux::proxy(control).await?), kept };
    let Some(stream) = &mut opening.stream else { return Err(Error::from(ErrorKind::NotConnected).into()) };
    let mut open = Message::new(OPEN);
    open.text(b"direct-streamlocal@openssh.com").u32(OURS).u32(OUR_WINDOW).u32(PIECE);
    open.text(socket.as_bytes()).text(b"").u32(0);
    stream.write_all(&open.take()).await?;
    let (kind, body) = read(stream).await?;
    match kind {
        CONFIRMED => {
            let number = |at: usize| mux::number(&body, at).ok_or_else(|| malformed("a confirmation is too short"));
            let (theirs, window, piece) = (number(4)?, number(8)?, number(12)?);
            let Some(stream) = opening.stream.take() else { return Err(Error::from(ErrorKind::NotConnected).into()) };
            let tunnel = Tunnel {
                stream,
                theirs,
                window: window.into(),
                piece: piece.clamp(1, PIECE) as usize,
                input: Vec::new(),
                start: 0,
                left: 0,
                owed: 0,
                ended: false,
                output: Vec::new(),
                written: 0,
                wakers: Arc::default(),
            };
            let shared = Arc::new(Mutex::new(tunnel));
            Ok((ReadHalf(shared.clone()), WriteHalf(shared)))
        }
        REFUSED => {
            let text = body.get(12..).unwrap_or_default();
            let len = mux::number(&body, 8).map_or(0, |len| len as usize).min(text.len());
            Err(MuxError::Refused(String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned()))
        }
        other => Err(malformed(&format!("message {other} instead of an open channel")).into()),
    }
}

/// One whole message: its kind, and the rest.
async fn read(stream: &mut UnixStream) -> Result<(u8, Vec<u8>)> {
    let len = stream.read_u32().await? as usize;
    if !(2..=LONGEST).contains(&len) {
        return Err(malformed("a message is too long"));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    let kind = body[1];
    body.drain(..2);
    Ok((kind, body))
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("ssh does not speak its protocol: {what}"))
}

/// What both halves share.
#[derive(Debug)]
struct Tunnel {
    stream: UnixStream,
    /// Their number of the channel.
    theirs: u32,
    /// Bytes that we may still send.
    window: u64,
    /// The longest piece that they take.
    piece: usize,
    /// What was received, from `start` on; of the first `left` bytes it is known that they are data.
    input: Vec<u8>,
    start: usize,
    left: usize,
    /// Bytes that were read since we last told them.
    owed: u32,
    ended: bool,
    /// What is to be sent, from `written` on.
    output: Vec<u8>,
    written: usize,
    wakers: Arc<Wakers>,
}

/// Whoever waits for one half is woken by what happens to the other, too: a reader has something to send, and a writer
/// has to hear that it may go on.
#[derive(Debug, Default)]
struct Wakers(Mutex<[Option<Waker>; 2]>);

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        let wakers = std::mem::take(&mut *lock(&self.0));
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which half.
#[derive(Clone, Copy)]
enum Half {
    Read,
    Write,
}

impl Tunnel {
    /// Remembers who waits, and gives the waker of both.
    fn wait(&self, half: Half, cx: &Context<'_>) -> Waker {
        lock(&self.wakers.0)[half as usize] = Some(cx.waker().clone());
        Waker::from(self.wakers.clone())
    }

    /// Sends as much as goes.
    fn push(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while self.written < self.output.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => self.written += len,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Receives until there is data or the end, or nothing more for now.
    fn pull(&mut self, cx: &mut Context<'_>) -> Result<()> {
        while !self.ended && self.available() == 0 {
            if self.left == 0 && self.understand()? {
                continue;
            }
            let mut bytes = [0; 64 << 10];
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                // The other side says so when it closes the channel: this was the master's end.
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Err(ErrorKind::ConnectionReset.into()),
                Poll::Ready(Ok(())) => {
                    self.input.drain(..self.start);
                    self.start = 0;
                    self.input.extend_from_slice(buf.filled());
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Nothing more will come, and nothing is listened to: the other half has to know.
    fn end(&mut self) {
        self.ended = true;
        self.wakers.clone().wake();
    }

    /// Bytes of data that can be read now.
    fn available(&self) -> usize {
        self.left.min(self.input.len() - self.start)
    }

    /// Takes the next message, if it is there: all of it, or of data its head. Whether it was there.
    fn understand(&mut self) -> Result<bool> {
        let rest = &self.input[self.start..];
        let Some(len) = mux::number(rest, 0).map(|len| len as usize) else { return Ok(false) };
        if !(2..=LONGEST).contains(&len) {
            return Err(malformed("a message is too long"));
        }
        let Some(kind) = rest.get(5).copied() else { return Ok(false) };
        if kind == DATA {
            let Some(data) = mux::number(rest, 4 + HEAD - 4).map(|data| data as usize) else { return Ok(false) };
            if data + HEAD != len {
                return Err(malformed("a piece of data has another length than its message"));
            }
            self.start += 4 + HEAD;
            self.left = data;
            return Ok(true);
        }
        let Some(body) = rest.get(6..4 + len) else { return Ok(false) };
        match kind {
            WINDOW => {
                let more = mux::number(body, 4).ok_or_else(|| malformed("a window is too short"))?;
                self.window += u64::from(more);
                self.wakers.clone().wake();
            }
            EOF | CLOSE => self.end(),
            // Requests and the like: none of our business.
            _ => {}
        }
        self.start += 4 + len;
        Ok(true)
    }

    /// Data was read: they may send as much again.
    fn give_back(&mut self, len: usize) {
        self.owed += u32::try_from(len).unwrap_or(u32::MAX);
        if self.owed >= OUR_WINDOW / 2 {
            self.output.extend(Message::new(WINDOW).u32(self.theirs).u32(self.owed).take());
            self.owed = 0;
        }
    }
}

/// Where its bytes come from.
#[derive(Debug)]
pub(super) struct ReadHalf(Arc<Mutex<Tunnel>>);

/// Where bytes for it go.
#[derive(Debug)]
pub(super) struct WriteHalf(Arc<Mutex<Tunnel>>);

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let mut tunnel = lock(&self.0);
        let waker = tunnel.wait(Half::Read, cx);
        let cx = &mut Context::from_waker(&waker);
        tunnel.pull(cx)?;
        let len = tunnel.available().min(buf.remaining());
        if len == 0 {
            tunnel.push(cx)?;
            return if tunnel.ended || buf.remaining() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let start = tunnel.start;
        buf.put_slice(&tunnel.input[start..start + len]);
        tunnel.start += len;
        tunnel.left -= len;
        tunnel.give_back(len);
        tunnel.push(cx)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let mut tunnel = lock(&self.0);
        let waker = tunnel.wait(Half::Write, cx);
        let cx = &mut Context::from_waker(&waker);
        tunnel.push(cx)?;
        if tunnel.window == 0 {
            tunnel.pull(cx)?;
        }
        if tunnel.ended {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let window = usize::try_from(tunnel.window).unwrap_or(usize::MAX);
        let len = bytes.len().min(window).min(tunnel.piece);
        if (len == 0 && !bytes.is_empty()) || tunnel.output.len() - tunnel.written >= FULL {
            return Poll::Pending;
        }
        let data = Message::new(DATA).u32(tunnel.theirs).text(&bytes[..len]).take();
        tunnel.output.extend(data);
        tunnel.window -= len as u64;
        tunnel.push(cx)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut tunnel = lock(&self.0);
        let waker = tunnel.wait(Half::Write, cx);
        tunnel.push(&mut Context::from_waker(&waker))?;
        if tunnel.output.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Half-closing is what is to be avoided; the drop closes it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// A message in the making.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u8) -> Self {
        // Its length is put in at the end; no padding.
        Self(vec![0, 0, 0, 0, 0, kind])
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    fn text(&mut self, text: &[u8]) -> &mut Self {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text);
        self
    }

    fn take(&mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_be_bytes());
        std::mem::take(&mut self.0)
    }
}
