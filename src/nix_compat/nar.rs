//! NARs, the archives that store paths travel in.
//!
//! Owns only the choice of the crate that writes them.

use std::io::{self, Write};
use std::path::Path;

use nix_archive::nar::{CaseHack, encode_path};

/// Writes the NAR of a path of a store on this machine. Blocks.
pub fn write(path: &Path, to: &mut impl Write) -> io::Result<()> {
    encode_path(to, path, CaseHack::native()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_as_nix_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "hello").unwrap();
        let mut nar = Vec::new();
        write(&path, &mut nar).unwrap();
        let text = |words: &[&str]| {
            let padded = |word: &&str| {
                let mut bytes = (word.len() as u64).to_le_bytes().to_vec();
                bytes.extend(word.bytes());
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                bytes
            };
            words.iter().flat_map(padded).collect::<Vec<u8>>()
        };
        assert_eq!(nar, text(&["nix-archive-1", "(", "type", "regular", "contents", "hello", ")"]));
        assert!(write(&dir.path().join("none"), &mut Vec::new()).is_err());
    }
}
