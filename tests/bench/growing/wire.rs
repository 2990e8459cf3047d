//! The daemon's protocol: path infos as bytes, and back.

use drover::id::StoreDir;
use drover::nix_compat::daemon::PathInfo;
use drover::nix_compat::wire::Encoder;

use super::Work;
use super::set::{Drv, inputs};

fn info(number: usize) -> PathInfo {
    let of = |number| Drv { number, salt: 0 };
    PathInfo {
        path: of(number).output("out"),
        deriver: Some(of(number).path()),
        nar_hash: [7; 32],
        references: inputs(number).into_iter().map(|input| of(input).output("out")).collect(),
        registration_time: 1_795_000_000,
        nar_size: 100_000,
        ultimate: true,
        signatures: [format!("cache-1:{}==", "A".repeat(86))].into(),
        ca: None,
    }
}

pub(crate) fn path_infos(size: usize) -> Work {
    let infos: Vec<PathInfo> = (0..size).map(info).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    Box::new(move || {
        let dir = StoreDir::default();
        let mut encoder = Encoder::new();
        infos.iter().for_each(|info| info.write(&dir, &mut encoder));
        let bytes = encoder.finish();
        let mut reader = &bytes[..];
        runtime.block_on(async {
            for info in &infos {
                assert_eq!(PathInfo::read(&mut reader, &dir).await.unwrap().path, info.path);
            }
        });
        assert!(reader.is_empty());
        std::mem::forget(infos);
    })
}
