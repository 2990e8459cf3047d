//! Undoing a `Content-Encoding`: caches may store their records compressed (Nix's `narinfo-compression`).

use std::io::{self, Read};

use reqwest::header::HeaderValue;

use crate::store::cache::nar;

/// The body as it was before, no longer than `limit` bytes.
pub(super) fn decode(encoding: Option<&HeaderValue>, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, String> {
    let Some(encoding) = encoding else { return Ok(body) };
    let name = String::from_utf8_lossy(encoding.as_bytes()).trim().to_ascii_lowercase();
    let decoder = match &*name {
        "" | "identity" => return Ok(body),
        name => decoder(name, &body).ok_or_else(|| format!("its answer is compressed with '{name}'"))?,
    };
    let mut plain = Vec::new();
    decoder
        .and_then(|decoder| decoder.take(limit as u64 + 1).read_to_end(&mut plain))
        .map_err(|error| format!("its answer is no {name}: {error}"))?;
    if plain.len() > limit { Err("its answer is too long".to_owned()) } else { Ok(plain) }
}

type Decoder<'a> = Box<dyn Read + 'a>;

/// `None` for a name that nobody knows.
fn decoder<'a>(name: &str, body: &'a [u8]) -> Option<io::Result<Decoder<'a>>> {
    Some(Ok(match name {
        "zstd" => return Some(zstd::Decoder::new(body).map(|decoder| Box::new(decoder) as Decoder)),
        "gzip" | "x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(body)),
        "br" => Box::new(brotli_decompressor::Decompressor::new(body, 4096)),
        "xz" => return Some(nar::xz(body).map(|decoder| Box::new(decoder) as Decoder)),
        "bzip2" => Box::new(bzip2::read::MultiBzDecoder::new(body)),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_undone_within_bounds() {
        use std::io::Write as _;
        let plain = [7u8; 5000];
        let zstd = zstd::encode_all(plain.as_slice(), 3).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&plain).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&plain).unwrap();
        // What `brotli` makes of it.
        let br = BR.to_vec();
        let packed = [
            ("zstd", zstd),
            ("gzip", gzip.finish().unwrap()),
            ("xz", xz.finish().unwrap()),
            ("bzip2", bzip2.finish().unwrap()),
            ("br", br),
        ];
        for (name, packed) in packed {
            let encoding = HeaderValue::from_static(name);
            assert_eq!(decode(Some(&encoding), packed.clone(), 5000).unwrap(), plain, "{name}");
            assert_eq!(decode(Some(&encoding), packed, 4999).unwrap_err(), "its answer is too long", "{name}");
            assert!(decode(Some(&encoding), b"nonsense".to_vec(), 100).unwrap_err().contains(name));
        }
        assert!(decode(Some(&HeaderValue::from_static("lz4")), Vec::new(), 100).unwrap_err().contains("'lz4'"));
        assert_eq!(decode(None, b"x".to_vec(), 100).unwrap(), b"x");
        assert_eq!(decode(Some(&HeaderValue::from_static("identity")), b"x".to_vec(), 100).unwrap(), b"x");
    }

    #[test]
    fn a_dictionary_that_is_only_claimed_is_not_made() {
        use std::io::Write as _;
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(b"x").unwrap();
        let mut xz = xz.finish().unwrap();
        let encoding = HeaderValue::from_static("xz");
        assert_eq!(decode(Some(&encoding), xz.clone(), 100).unwrap(), b"x");
        // The header of the first block is behind the 12 bytes of the stream's: its size, flags, the filter with its
        // one property, padding, and a checksum.
        let size = (usize::from(xz[12]) + 1) * 4;
        assert_eq!(xz[14..16], [0x21, 1]);
        // 4 GiB less one byte.
        xz[16] = 40;
        let mut crc = flate2::Crc::new();
        crc.update(&xz[12..12 + size - 4]);
        xz[12 + size - 4..12 + size].copy_from_slice(&crc.sum().to_le_bytes());
        assert!(decode(Some(&encoding), xz, 100).unwrap_err().starts_with("its answer is no xz: "));
    }

    /// 5,000 times the byte 7.
    const BR: [u8; 13] = [27, 135, 19, 248, 37, 14, 226, 177, 64, 32, 104, 1, 0];
}
