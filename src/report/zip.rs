//! Files put together in a ZIP archive (PKWARE's APPNOTE 6.3.3, without its later extensions), compressed by DEFLATE.

use std::io::{self, Write};

use flate2::Compression;
use flate2::Crc;
use flate2::write::DeflateEncoder;

/// The first bytes of a file, of its entry in the directory, and of the directory's end.
const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;

/// What a reader must know: version 2.0, names in UTF-8, DEFLATE.
const VERSION: u16 = 20;
const UTF8: u16 = 1 << 11;
const DEFLATE: u16 = 8;

/// A day of 1980, from which the format counts: archives of the same files are the same.
const DATE: u16 = (1 << 5) | 1;

/// An archive in the making.
#[derive(Debug)]
pub struct Archive<W: Write> {
    out: W,
    /// Bytes so far.
    at: u64,
    directory: Vec<u8>,
    files: u16,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(out: W) -> Self {
        Self { out, at: 0, directory: Vec::new(), files: 0 }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// If it cannot be written, or the format has no room for it: 65,535 files, 4 GiB.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut crc = Crc::new();
        crc.update(bytes);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes)?;
        let packed = encoder.finish()?;
        let mut common = Vec::new();
        for half in [VERSION, UTF8, DEFLATE, 0, DATE] {
            common.extend(half.to_le_bytes());
        }
        for word in [crc.sum(), size(packed.len())?, size(bytes.len())?] {
            common.extend(word.to_le_bytes());
        }
        common.extend(u16::try_from(name.len()).map_err(too_large)?.to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        let start = u32::try_from(self.at).map_err(too_large)?;
        self.put(&[&LOCAL.to_le_bytes(), common.as_slice(), name.as_bytes(), &packed].concat())?;
        self.files = self.files.checked_add(1).ok_or_else(|| too_large(()))?;
        // Without a comment, on the first disk, without attributes.
        let nothing = [0; 10];
        let entry = [&CENTRAL.to_le_bytes(), &VERSION.to_le_bytes()[..], common.as_slice(), &nothing];
        self.directory.extend(entry.concat());
        self.directory.extend(start.to_le_bytes());
        self.directory.extend(name.as_bytes());
        Ok(())
    }

    /// Writes the directory, and gives back where all was written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let start = u32::try_from(self.at).map_err(too_large)?;
        let directory = std::mem::take(&mut self.directory);
        self.put(&directory)?;
        let mut end = END.to_le_bytes().to_vec();
        for half in [0, 0, self.files, self.files] {
            end.extend(half.to_le_bytes());
        }
        end.extend(size(directory.len())?.to_le_bytes());
        end.extend(start.to_le_bytes());
        end.extend(0_u16.to_le_bytes());
        self.put(&end)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn size(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(too_large)
}

fn too_large<E>(_: E) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "too much for a zip archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive() {
        let made = || {
            let mut archive = Archive::new(Vec::new());
            archive.add("a/é.txt", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
            archive.add("empty", b"").unwrap();
            archive.finish().unwrap()
        };
        let bytes = made();
        assert_eq!(bytes, made());
        assert_eq!(&bytes[..4], b"PK\x03\x04");
        assert_eq!(&bytes[bytes.len() - 22..][..4], b"PK\x05\x06");
    }
}
