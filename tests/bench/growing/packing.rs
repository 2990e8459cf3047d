//! A path on its way to a cache: its NAR, compressed and hashed on both sides of the compressor.

use drover::nix_compat::daemon::PathInfo;
use drover::nix_compat::nar;
use drover::store::cache::{Codec, NarStream, StreamError};

use super::Work;
use super::set::{mixed, path};

/// Bytes that half compress, one of eight files for each eighth of them.
fn files(dir: &std::path::Path, kib: usize) {
    std::fs::create_dir_all(dir).unwrap();
    for file in 0..8_u64 {
        let words = (0..kib as u64 * 16).map(|at| mixed(file << 40 | at));
        let bytes: Vec<u8> =
            words.flat_map(|word| word.to_le_bytes().map(|byte| if word & 1 == 0 { byte & 3 } else { byte })).collect();
        std::fs::write(dir.join(format!("file-{file}")), bytes).unwrap();
    }
}

pub(crate) fn pack(kib: usize) -> Work {
    // Whoever starts this says where temporary files go, and removes them.
    let dir = std::env::temp_dir().join(format!("drover-growing-{}", std::process::id()));
    files(&dir, kib);
    let mut bytes = Vec::new();
    nar::write(&dir, &mut bytes).unwrap();
    let info = PathInfo {
        path: path(1, "packed"),
        deriver: None,
        nar_hash: [0; 32],
        references: [].into(),
        registration_time: 0,
        nar_size: bytes.len() as u64,
        ultimate: true,
        signatures: [].into(),
        ca: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    Box::new(move || {
        runtime.block_on(async {
            let mut stream = NarStream::of_files(Codec::Zstd { level: Codec::DEFAULT_LEVEL, threads: 1 }, &info, dir);
            let mut packed = 0;
            while let Some(chunk) = stream.chunk().await {
                packed += chunk.len();
            }
            assert!(packed > kib * 400, "{packed} bytes of {kib} KiB");
            // Nobody has told it the hash, which is looked at when everything but the last chunk is done.
            assert!(matches!(stream.end().await, Err(StreamError::Differs { .. })));
        });
    })
}
