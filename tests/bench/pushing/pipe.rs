//! A bare pipe beside a push: the stages that the push of one NAR takes with a kind of cache, each on a thread of its own,
//! and nothing besides. Where there is a server, the bytes go over a connection of this machine, and what comes is
//! hashed, kept and unpacked as often as the server of the tests does it, since that takes its time on the same cores.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use md5::Md5;
use sha2::{Digest, Sha256};

const CHUNK: usize = 256 << 10;

/// Something that is done with bytes, for the time that it takes.
type Work = fn(&[u8]);

/// What becomes of the bytes in the end.
struct There {
    /// NARs are compressed.
    packed: bool,
    /// Bytes of a part, and what hashes it before it is sent.
    part: Option<(usize, Work)>,
    /// What the server does with a part.
    takes: Work,
    /// It keeps the parts in a file, or in memory.
    in_file: bool,
    /// What it does with the whole in the end.
    ends: Work,
}

fn nothing(_: &[u8]) {}

fn hashed<D: Digest>(bytes: &[u8]) {
    assert_ne!(D::digest(bytes)[..4], [0; 4]);
}

fn twice<A: Digest, B: Digest>(bytes: &[u8]) {
    hashed::<A>(bytes);
    hashed::<B>(bytes);
}

impl There {
    fn of(kind: &str) -> Self {
        let plain = Self { packed: true, part: None, takes: nothing, in_file: true, ends: nothing };
        match kind {
            "file" | "http" => plain,
            // A signature says what the bytes are; the server holds them against it, and makes ETags of them.
            "s3" => Self {
                part: Some((8 << 20, hashed::<Sha256>)),
                takes: twice::<Sha256, Md5>,
                ends: hashed::<Md5>,
                ..plain
            },
            // The parts that come are promised by their MD5; in the end the NAR is unpacked and held against its record.
            "cachix" => Self {
                part: Some((8 << 20, hashed::<Md5>)),
                takes: twice::<Md5, Md5>,
                in_file: false,
                ends: |file| {
                    hashed::<Sha256>(&zstd::decode_all(file).unwrap());
                    twice::<Sha256, Sha256>(file);
                },
                ..plain
            },
            "attic" => Self { packed: false, in_file: false, ends: hashed::<Sha256>, ..plain },
            "niks3" => Self {
                part: Some((10 << 20, nothing)),
                takes: hashed::<Sha256>,
                in_file: false,
                ends: hashed::<Sha256>,
                ..plain
            },
            other => panic!("no pipe for {other}"),
        }
    }

    /// Takes what comes.
    fn serve(&self, mut from: TcpStream, to: &Path) {
        let (mut file, mut kept) = (self.in_file.then(|| File::create(to).unwrap()), Vec::new());
        let mut part = vec![0; self.part.map_or(CHUNK, |(size, _)| size)];
        loop {
            let read = fill(&mut from, &mut part);
            (self.takes)(&part[..read]);
            match &mut file {
                Some(file) => file.write_all(&part[..read]).unwrap(),
                None => kept.extend_from_slice(&part[..read]),
            }
            if read < part.len() {
                break;
            }
        }
        // A bucket puts the parts together by reading them once more.
        if self.in_file && self.part.is_some() {
            kept = std::fs::read(to).unwrap();
            std::fs::write(to, &kept).unwrap();
        }
        (self.ends)(&kept);
        from.write_all(&[1]).unwrap();
    }
}

/// Bytes that were read, which are fewer than there is room for only at the end.
fn fill(from: &mut impl Read, to: &mut [u8]) -> usize {
    let mut filled = 0;
    loop {
        match from.read(&mut to[filled..]).unwrap() {
            0 => return filled,
            read => filled += read,
        }
    }
}

/// Hashes each part, as a whole, before it goes on.
struct Parts<W> {
    to: W,
    part: Vec<u8>,
    size: usize,
    hash: Work,
}

impl<W: Write> Write for Parts<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.size - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == self.size {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.hash)(&self.part);
        self.to.write_all(&self.part)?;
        self.part.clear();
        Ok(())
    }
}

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
fn hash(from: &Receiver<Vec<u8>>, to: &mut impl Write) {
    let mut hash = Sha256::new();
    for chunk in from {
        hash.update(&chunk);
        to.write_all(&chunk).unwrap();
    }
    to.flush().unwrap();
    assert_ne!(hash.finalize()[..], [0; 32]);
}

/// Hands what comes to the server, and waits until it has done with it.
fn send(from: &Receiver<Vec<u8>>, there: &There, mut server: TcpStream) {
    match there.part {
        Some((size, hash)) => {
            let mut parts = Parts { to: &server, part: Vec::new(), size, hash };
            from.iter().for_each(|chunk| parts.write_all(&chunk).unwrap());
            parts.flush().unwrap();
        }
        None => from.iter().for_each(|chunk| server.write_all(&chunk).unwrap()),
    }
    server.shutdown(std::net::Shutdown::Write).unwrap();
    server.read_exact(&mut [0]).unwrap();
}

/// The seconds that it takes from these files to this file, or to a server that keeps it as caches of this kind do.
pub(crate) fn run(kind: &str, files: &Path, to: &Path) -> f64 {
    let (there, start) = (There::of(kind), Instant::now());
    let threads = std::thread::available_parallelism().unwrap().get().min(8) as u32;
    let ((mut nar, plain), (mut once, ready)) = (pipe(), pipe());
    let ((packed, done), (mut again, last)) = (pipe(), pipe());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            drover::nix_compat::nar::write(files, &mut nar).unwrap();
            nar.flush().unwrap();
        });
        scope.spawn(move || hash(&plain, &mut once));
        let done = if there.packed {
            scope.spawn(move || {
                let mut encoder = zstd::Encoder::new(packed, 3).unwrap();
                encoder.multithread(threads).unwrap();
                ready.iter().for_each(|chunk| encoder.write_all(&chunk).unwrap());
                encoder.finish().unwrap().flush().unwrap();
            });
            scope.spawn(move || hash(&done, &mut again));
            last
        } else {
            ready
        };
        if kind == "file" {
            let mut file = File::create(to).unwrap();
            scope.spawn(move || done.iter().for_each(|chunk| file.write_all(&chunk).unwrap()));
            return;
        }
        let (listener, there) = (TcpListener::bind("127.0.0.1:0").unwrap(), &there);
        let server = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        scope.spawn(move || there.serve(listener.accept().unwrap().0, to));
        scope.spawn(move || send(&done, there, server));
    });
    start.elapsed().as_secs_f64()
}
