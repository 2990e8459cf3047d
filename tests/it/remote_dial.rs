//! Builders are reached, whatever way they leave open.

use std::time::Duration;

use drover::id::{StoreDir, StorePath};
use drover::nix_compat::daemon::{BasicDerivation, BuildMode, Trust};
use drover::nix_compat::drv;
use drover::store::remote::{RemoteOptions, RemoteStore};

use crate::support::farm_lab::{BuilderSpec, FarmLab, KINDS, Kind};
use crate::support::nix::each_nix;

pub(crate) fn options(lab: &FarmLab, number: usize) -> RemoteOptions {
    let mut options =
        RemoteOptions::new(format!("b{number}"), lab.builder_uri(number), &lab.coordinator.path("tmp"), dir());
    options.ssh_opts = lab.ssh_opts();
    options.patience = Duration::from_secs(60);
    options
}

/// Runs a future on one thread, as drover does; one that hangs is a failure.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), future).await.expect("it hangs") })
}

/// Waits for something of which nobody is told.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it does not come about");
}

/// The store directory of all builders.
pub(crate) fn dir() -> StoreDir {
    StoreDir::new("/nix/store").unwrap()
}

/// A derivation without inputs, instantiated at the coordinator.
pub(crate) fn basic(lab: &FarmLab, name: &str, script: &str, more: &str) -> (StorePath, BasicDerivation) {
    let drv = lab.coordinator.drv(name, script, more);
    let path = dir().parse_path(drv.as_bytes()).unwrap();
    let text = std::fs::read(lab.coordinator.path(format!("root{drv}"))).unwrap();
    let drv = drv::parse(&text, &path, &dir()).unwrap();
    (path, BasicDerivation::new(&drv, Vec::new()).unwrap())
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
                let direct = matches!(kind, Kind::Forwarded | Kind::Untrusted);
                assert_eq!(store.is_direct(), direct, "{kind:?}");
                let mut session = store.connect().await.unwrap();
                assert_eq!(session.valid_paths(&[]).await.unwrap(), Vec::<bool>::new());
            }
        });
    });
}

#[test]
fn each_kind_of_builder_builds_and_nix_can_use_it_too() {
    each_nix(|nix| {
        let lab = FarmLab::new(nix, KINDS.map(|kind| BuilderSpec::new(kind, nix)).to_vec());
        run(async {
            for (number, kind) in KINDS.into_iter().enumerate() {
                // A fixed output needs no trust.
                let fixed =
                    "outputHash = \"sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=\"; outputHashMode = \"flat\";";
                let hash = if kind == Kind::Untrusted { fixed } else { "" };
                let (path, drv) = basic(&lab, &format!("made-{number}"), "echo hello > $out", hash);
                let store = RemoteStore::dial(options(&lab, number)).await.unwrap();
                let mut session = store.connect().await.unwrap();
                let mut quiet = |_| {};
                let result = session.build_derivation(&path, &drv, BuildMode::Normal, &mut quiet).await.unwrap();
                assert!(result.status.is_success(), "{kind:?}: {}", result.error_text());
                let out = dir().parse_path(drv.outputs["out"].path.as_bytes()).unwrap();
                let file = lab.builders[number].lab.physical().join(out.to_basename());
                assert_eq!(std::fs::read_to_string(file).unwrap(), "hello\n", "{kind:?}");
            }
        });
        for (number, kind) in KINDS.into_iter().enumerate().filter(|(_, kind)| *kind != Kind::Untrusted) {
            let drv = lab.coordinator.drv(&format!("hooked-{number}"), "echo hello > $out", "");
            let mut nix = lab.program(lab.coordinator.nix.bin.join("nix"));
            nix.args(["build", "--no-link", "-j0", "--store"]).arg(lab.coordinator.store_arg().unwrap());
            nix.arg(format!("{drv}^*")).arg("--builders").arg(lab.builders_line(number));
            let output = nix.output().unwrap();
            assert!(output.status.success(), "{kind:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    });
}

#[test]
fn a_silent_build_dies_with_its_session() {
    each_nix(|nix| {
        let lab = FarmLab::new(nix, KINDS.map(|kind| BuilderSpec::new(kind, nix)).to_vec());
        run(async {
            for number in (0..KINDS.len()).filter(|number| KINDS[*number] != Kind::Untrusted) {
                let (path, drv) = basic(&lab, &format!("sleeper-{number}"), "/bin/sleep 300", "");
                let store = RemoteStore::dial(options(&lab, number)).await.unwrap();
                let mut session = store.connect().await.unwrap();
                let mut quiet = |_| {};
                let builds = || lab.builders[number].running("sleep");
                tokio::select! {
                    ended = session.build_derivation(&path, &drv, BuildMode::Normal, &mut quiet) => panic!("{ended:?}"),
                    () = until(|| !builds().is_empty()) => {}
                }
                session.close().await;
                until(|| builds().is_empty()).await;
            }
        });
    });
}
