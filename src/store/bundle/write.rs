//! Writing a file of store objects: whole or not at all.

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWrite;

use super::{BundleError, MAGIC, VERSION};
use crate::id::StoreDir;
use crate::nix_compat::daemon::PathInfo;
use crate::nix_compat::wire::Encoder;

/// Derivations are text that repeats itself; this is where more time brings little.
const LEVEL: i32 = 9;

type Stream = zstd::Encoder<'static, BufWriter<NamedTempFile>>;

/// A file in the making. Dropping it leaves what was there before.
pub struct Writer {
    stream: Stream,
    file: PathBuf,
    dir: StoreDir,
    /// Objects that are still to come.
    left: u64,
}

impl Writer {
    /// Begins a file of so many objects.
    pub fn create(file: &Path, dir: &StoreDir, head: &[u8], objects: u64) -> Result<Self, BundleError> {
        let begin = || -> io::Result<Stream> {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut temp = tempfile::Builder::new();
            let mut temp = permit(&mut temp).prefix(".drover-plan-").tempfile_in(folder)?;
            temp.write_all(format!("{MAGIC}{VERSION}\n").as_bytes())?;
            let mut stream = zstd::Encoder::new(BufWriter::new(temp), LEVEL)?;
            let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8) as u32);
            stream.multithread(threads)?;
            stream.include_checksum(true)?;
            let mut start = Encoder::new();
            start.bytes(dir.as_str()).bytes(head).u64(objects);
            stream.write_all(start.as_bytes())?;
            Ok(stream)
        };
        let stream = begin().map_err(|source| failed(file, source))?;
        Ok(Self { stream, file: file.to_owned(), dir: dir.clone(), left: objects })
    }

    /// Begins the next object, which refers only to those before it; its NAR is to be written into the sink. When it
    /// was registered, and whether it was built here, is of no interest elsewhere.
    pub fn object(&mut self, info: &PathInfo) -> Result<NarSink<'_>, BundleError> {
        let info = PathInfo { registration_time: 0, ultimate: false, ..info.clone() };
        let mut meta = Encoder::new();
        info.write(&self.dir, &mut meta);
        self.stream.write_all(meta.as_bytes()).map_err(|source| failed(&self.file, source))?;
        self.left = self.left.saturating_sub(1);
        Ok(NarSink { writer: self, info, hash: Sha256::new(), len: 0 })
    }

    /// Puts the file in its place; gives its bytes.
    pub fn finish(self) -> Result<u64, BundleError> {
        let Self { stream, file, left, .. } = self;
        let end = || -> io::Result<u64> {
            if left > 0 {
                return Err(io::Error::other(format!("{left} objects are missing")));
            }
            let temp = stream.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            temp.as_file().sync_all()?;
            let bytes = temp.as_file().metadata()?.len();
            temp.persist(&file).map_err(|error| error.error)?;
            Ok(bytes)
        };
        end().map_err(|source| failed(&file, source))
    }
}

/// As any other file that somebody writes, not for the writer's eyes alone.
fn permit<'a>(builder: &'a mut tempfile::Builder<'static, 'static>) -> &'a mut tempfile::Builder<'static, 'static> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}

fn failed(file: &Path, source: io::Error) -> BundleError {
    BundleError::Io { act: "write", file: file.to_owned(), source }
}

/// Takes the NAR of one object. Compresses on the spot, some ms a MiB.
pub struct NarSink<'a> {
    writer: &'a mut Writer,
    info: PathInfo,
    hash: Sha256,
    len: u64,
}

impl NarSink<'_> {
    /// The NAR is whole: it has to be the registered one.
    pub fn end(self) -> Result<(), BundleError> {
        let hash: [u8; 32] = self.hash.finalize().into();
        if self.len == self.info.nar_size && hash == self.info.nar_hash {
            Ok(())
        } else {
            Err(BundleError::Changed(self.info.path))
        }
    }
}

impl AsyncWrite for NarSink<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Poll::Ready(self.writer.stream.write_all(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
