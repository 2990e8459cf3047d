//! Builders are reached, whatever way they leave open.

use std::time::Duration;

use drover::id::StoreDir;
use drover::nix_compat::daemon::Trust;
use drover::store::remote::{RemoteOptions, RemoteStore};

use crate::support::farm_lab::{BuilderSpec, FarmLab, KINDS, Kind};
use crate::support::nix::each_nix;

pub(crate) fn options(lab: &FarmLab, number: usize) -> RemoteOptions {
    let dir = StoreDir::new("/nix/store").unwrap();
    let mut options =
        RemoteOptions::new(format!("b{number}"), lab.builder_uri(number), &lab.coordinator.path("tmp"), dir);
    options.ssh_opts = lab.ssh_opts();
    options.patience = Duration::from_secs(60);
    options
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn each_kind_of_builder_connects_and_tells_its_trust() {
    each_nix(|nix| {
        let lab = FarmLab::new(nix, KINDS.map(|kind| BuilderSpec::new(kind, nix)).to_vec());
        run(async {
            for (number, kind) in KINDS.into_iter().enumerate() {
                let store = RemoteStore::dial(options(&lab, number)).await.unwrap();
                let trust = if kind == Kind::Untrusted { Trust::Untrusted } else { Trust::Trusted };
                assert_eq!((store.trust(), store.version()), (trust, nix.version.as_str()), "{kind:?}");
                let mut session = store.connect().await.unwrap();
                assert_eq!(session.valid_paths(&[]).await.unwrap(), Vec::<bool>::new());
            }
        });
    });
}
