//! A bare pipe: NAR, SHA-256, zstd, SHA-256, file; each on a thread of its own, and nothing besides.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use sha2::{Digest as _, Sha256};

const CHUNK: usize = 256 << 10;

/// Sends what is written to it on.
struct Pipe(SyncSender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pipe() -> (BufWriter<Pipe>, Receiver<Vec<u8>>) {
    let (to, from) = sync_channel(4);
    (BufWriter::with_capacity(CHUNK, Pipe(to)), from)
}

/// Hashes what comes and hands it on.
fn hash(from: &Receiver<Vec<u8>>, mut to: impl Write) {
    let mut hash = Sha256::new();
    for chunk in from {
        hash.update(&chunk);
        to.write_all(&chunk).unwrap();
    }
    to.flush().unwrap();
    assert_ne!(hash.finalize()[..], [0; 32]);
}

/// The seconds that it takes from these files to this file.
pub(crate) fn run(files: &Path, to: &Path) -> f64 {
    let start = Instant::now();
    let threads = std::thread::available_parallelism().unwrap().get().min(8) as u32;
    let ((mut nar, plain), (mut hashed, ready), (packed, done)) = (pipe(), pipe(), pipe());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            drover::nix_compat::nar::write(files, &mut nar).unwrap();
            nar.flush().unwrap();
        });
        scope.spawn(move || hash(&plain, &mut hashed));
        scope.spawn(move || {
            let mut encoder = zstd::Encoder::new(packed, 3).unwrap();
            encoder.multithread(threads).unwrap();
            ready.iter().for_each(|chunk| encoder.write_all(&chunk).unwrap());
            encoder.finish().unwrap().flush().unwrap();
        });
        scope.spawn(move || hash(&done, File::create(to).unwrap()));
    });
    start.elapsed().as_secs_f64()
}
