//! What a run that is stopped or killed leaves on its builders: nothing.

use std::time::Duration;

use crate::support::deadline::expect_nothing_left;
use crate::support::farm_lab::Kind;
use crate::support::farm_site::{FarmSite, spec, wait_at_most};
use crate::support::nix::each_nix;
use crate::support::site::wait_until;
use crate::support::sshd::processes_with;

/// How long anything may live on after the signal.
const AFTER: Duration = Duration::from_secs(1);

/// Everything that works for us at this moment: below the sshd and the daemon of each builder.
fn at_work(farm: &FarmSite) -> Vec<Vec<String>> {
    let builders = farm.farm.builders.iter();
    builders.map(|builder| builder.processes().into_iter().filter_map(line).collect()).collect()
}

/// The command line of a process; `None` if it has ended meanwhile.
fn line(pid: u32) -> Option<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|words| !words.is_empty())?;
    Some(format!("{pid} {}", String::from_utf8_lossy(&words).replace('\0', " ")))
}

/// The ssh processes of this coordinator.
fn own_ssh(farm: &FarmSite) -> Vec<String> {
    processes_with(&farm.farm.ssh_config().display().to_string())
}

/// Both.
fn all(farm: &FarmSite) -> Vec<String> {
    let mut all = at_work(farm).concat();
    all.extend(own_ssh(farm));
    all
}

#[test]
fn a_run_that_is_stopped_or_killed_leaves_nothing_on_its_builders() {
    each_nix(|nix| {
        for kind in [Kind::Forwarded, Kind::Stdio] {
            for signals in [&["INT"][..], &["INT", "INT"], &["KILL"]] {
                let what = format!("{signals:?} with builders of kind {kind:?} and Nix {}", nix.version);
                // Builders that are at work for seconds.
                let farm = FarmSite::fleet(nix, 1000, vec![spec(kind, nix), spec(kind, nix)]);
                let running = farm.start(&[]);
                wait_until("builds on both builders", || {
                    let asleep = |of: &Vec<String>| of.iter().any(|line| line.contains("sleep"));
                    at_work(&farm).iter().all(asleep).then_some(())
                });
                assert!(!own_ssh(&farm).is_empty());
                signals.iter().for_each(|signal| running.signal(signal));
                expect_nothing_left(AFTER, &what, || all(&farm));
                let ran = wait_at_most(running, Duration::from_secs(60));
                assert_eq!(ran.code, if signals == ["KILL"] { None } else { Some(130) }, "{what}: {}", ran.stderr);
            }
        }
    });
}
