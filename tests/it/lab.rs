//! The labs themselves: every Nix builds something in both layouts, and nothing lands outside.

use crate::support::nix::{Lab, Layout, each_nix};

#[test]
fn every_nix_builds_in_both_layouts() {
    each_nix(|nix| {
        for lab in [Lab::chroot(nix), Lab::plain(nix)] {
            let drv = lab.drv("hello", "echo hi > $out", "");
            assert!(drv.starts_with(&lab.store_dir()), "{drv}");
            let out = lab.run("nix-store", &["--realise", &drv]);
            let name = out.strip_prefix(&format!("{}/", lab.store_dir())).unwrap();
            assert_eq!(std::fs::read_to_string(lab.physical().join(name)).unwrap(), "hi\n");
            if lab.layout == Layout::Chroot {
                assert!(!std::path::Path::new(&out).exists(), "the lab leaks into the machine's store");
            }
            let daemon = lab.daemon();
            assert!(daemon.socket.exists());
        }
    });
}
