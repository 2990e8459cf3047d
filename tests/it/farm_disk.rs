//! Builders whose disk fills up before it is full: they take nothing new until there is room, and others go on.

use std::fs;
use std::path::PathBuf;

use crate::support::farm_lab::{BuilderSpec, Kind};
use crate::support::farm_site::{FarmSite, SmallDisk, spec};
use crate::support::nix::{Nix, newest};
use crate::support::site::{Events, wait_until};

/// Its store is on a disk of 64 MiB, of which 60 are taken.
struct Low {
    farm: FarmSite,
    taken: PathBuf,
    _disk: SmallDisk,
}

impl Low {
    /// The first builder of a farm is low on disk. `None` where nothing can be mounted.
    fn new(nix: &Nix, mut others: Vec<BuilderSpec>) -> Option<Self> {
        // Its login sees the disk as /nix, and asks there how much is free.
        let victim = BuilderSpec { conf: "gc-reserved-space = 0".to_owned(), ..spec(Kind::Forwarded, nix).mounted() };
        others.insert(0, victim);
        let mut farm = FarmSite::fleet(nix, 30, others);
        let builder = &mut farm.farm.builders[0];
        let nix_dir = builder.lab.path("nix");
        let disk = SmallDisk::mount(&nix_dir, "64m")?;
        fs::create_dir_all(nix_dir.join("var/nix")).unwrap();
        fs::create_dir_all(nix_dir.join("store")).unwrap();
        builder.restart_daemon();
        builder.sshd.kill();
        builder.sshd.restart();
        let taken = nix_dir.join("taken");
        fs::write(&taken, vec![0_u8; 60 << 20]).unwrap();
        Some(Self { farm, taken, _disk: disk })
    }

    /// Waits until it takes nothing new, or does again.
    fn wait_for_pause(&self, pauses: bool) {
        wait_until("the disk to be noticed", || {
            let events = self.farm.events_so_far();
            pauses_of(&events).contains(&pauses).then_some(())
        });
    }
}

/// What was said of the first builder: that it takes nothing new, or that it does again.
fn pauses_of(events: &Events) -> Vec<bool> {
    let first = events.of("builder_paused").into_iter().filter(|event| event["builder"] == 1);
    first.map(|event| !event["reason"].is_null()).collect()
}

#[test]
fn what_a_builder_low_on_disk_does_not_take_is_built_elsewhere() {
    let nix = newest();
    let Some(low) = Low::new(&nix, vec![spec(Kind::Forwarded, &nix)]) else { return };
    let ran = low.farm.start(&[]).wait();
    ran.expect(0);
    let events = low.farm.site.events();
    events.expect_each_once();
    assert_eq!(pauses_of(&events), [true], "{}", ran.stderr);
    let paused = events.of("builder_paused")[0];
    assert!(paused["reason"].as_str().unwrap().contains("GiB free in /nix/store"), "{paused}");
    let after = events.0.iter().skip_while(|event| event["event"] != "builder_paused");
    let begun: Vec<_> = after.filter(|event| event["event"] == "attempt_started").collect();
    assert!(!begun.is_empty(), "there was more to do");
    assert!(begun.iter().all(|event| event["builder"] == 2), "{begun:?}");
    assert_eq!(events.of("builder_suspended").len(), 0, "it is not lost");
}

#[test]
fn a_builder_low_on_disk_goes_on_once_there_is_room() {
    let nix = newest();
    let Some(low) = Low::new(&nix, Vec::new()) else { return };
    let running = low.farm.start(&[]);
    low.wait_for_pause(true);
    fs::remove_file(&low.taken).unwrap();
    let ran = running.wait();
    ran.expect(0);
    let events = low.farm.site.events();
    events.expect_each_once();
    assert_eq!(pauses_of(&events), [true, false], "{}", ran.stderr);
}
