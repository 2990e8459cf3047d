//! Rules, one by one, on facts that are made up.

use super::*;

const GIB: u64 = 1 << 30;

/// An environment in which nothing is wrong.
fn healthy() -> Facts {
    Facts {
        nix: Checked::Found(Nix {
            version: "2.34.8".into(),
            features: vec!["nix-command".into(), "flakes".into()],
            sandbox: true,
            substitute: true,
            require_sigs: true,
            max_jobs: Some(4),
            max_jobs_by: "max-jobs".into(),
            ..Nix::default()
        }),
        store: Checked::Found(Store { uri: "auto".into(), dir: "/nix/store".into(), ..Store::default() }),
        nix_conf: "/etc/nix/nix.conf".into(),
        linux: true,
        flake: Some(Flake { dir: "/f".into(), exists: true, locked: true, inputs: Checked::Found(vec!["a".into()]) }),
        git: Checked::Found(Git { flake_tracked: true, lock_tracked: true, has_commit: true, ..Git::default() }),
        caches: vec![cache("c.example")],
        keys: vec![key("c.example-1:AAAA")],
        disks: vec![disk(100 * GIB, 1000 * GIB)],
        state: StateDir { dir: Some("/s".into()), problem: None },
        ..Facts::default()
    }
}

fn cache(host: &str) -> Cache {
    Cache {
        name: host.into(),
        url: format!("https://{host}"),
        host: Some(host.into()),
        pull: true,
        reach: Reach::Ok,
        signed: Signed::Trusted,
        ..Cache::default()
    }
}

fn key(text: &str) -> PublicKey {
    PublicKey { key: text.into(), table: None, bad: None }
}

fn disk(free: u64, total: u64) -> Disk {
    Disk { uses: vec!["the store", "records"], dir: "/nix/store".into(), free, total, inodes_free: Some(9_000_000) }
}

/// The findings after one change, as `severity area message`.
fn after(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = healthy();
    change(&mut facts);
    let report = examine(&facts);
    assert_eq!(report.ok, report.findings.is_empty());
    let found = report.findings.into_iter();
    found.map(|finding| format!("{} {} {}", finding.severity.word(), finding.area, finding.message)).collect()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(after(|_| {}), [""; 0]);
    let report = examine(&healthy());
    assert!(report.areas.iter().all(|area| area.ok && !area.summary.is_empty()), "{report:#?}");
}

#[test]
fn errors_come_first_and_an_area_with_a_finding_is_not_ok() {
    let mut facts = healthy();
    facts.disks[0].free = GIB;
    facts.state.problem = Some("/: read-only".into());
    let report = examine(&facts);
    let areas: Vec<&str> = report.findings.iter().map(|finding| finding.area).collect();
    assert_eq!(areas, ["state", "disk"]);
    assert!(report.areas.iter().all(|area| area.ok != areas.contains(&area.area)));
}

#[test]
fn looks_without_an_answer_are_said_and_hide_nothing() {
    let found = after(|facts| {
        facts.nix = Checked::Silent(10);
        facts.store = Checked::Silent(10);
        facts.git = Checked::Silent(10);
    });
    assert_eq!(
        found,
        [
            "error nix nix gave no answer within 10 s",
            "error store the store gave no answer within 10 s",
            "warning git git gave no answer within 10 s",
        ]
    );
}

#[test]
fn one_cache_that_agrees_with_our_clock_is_enough() {
    let skewed = |skews: &'static [i64]| {
        after(|facts| {
            let with = |skew: &i64| Cache { skew: Some(*skew), ..cache("c.example") };
            facts.caches = skews.iter().map(with).collect();
        })
    };
    assert_eq!(skewed(&[3, -400]), [""; 0]);
    assert_eq!(skewed(&[60]), [""; 0]);
    assert_eq!(skewed(&[7200, 61]), ["warning clock the clock here is 1m01s behind that of c.example"]);
    assert_eq!(skewed(&[-7200]), ["warning clock the clock here is 2h00m ahead of that of c.example"]);
}

#[test]
fn room_is_measured_in_bytes_and_in_parts() {
    let left = |free: u64, total: u64| {
        let found = after(|facts| facts.disks = vec![disk(free, total)]);
        found.first().map(|text| text.split(' ').next().unwrap_or_default().to_owned())
    };
    assert_eq!(left(400 << 20, 100 * GIB).as_deref(), Some("error"));
    assert_eq!(left(4 * GIB, 8 * GIB).as_deref(), Some("warning"));
    assert_eq!(left(20 * GIB, 1000 * GIB).as_deref(), Some("warning"));
    assert_eq!(left(60 * GIB, 4000 * GIB), None, "5 % of a large disk is much");
    assert_eq!(left(6 * GIB, 8 * GIB), None);
}

#[test]
fn a_cache_that_is_pushed_to_weighs_more() {
    let down = |push, optional| {
        after(|facts| {
            facts.caches[0].reach = Reach::Denied(403);
            facts.caches[0].push = push;
            facts.caches[0].optional = optional;
        })
    };
    let of_caches = |found: Vec<String>| found.into_iter().find(|text| text.contains(" caches ")).unwrap();
    assert!(of_caches(down(false, false)).starts_with("warning"));
    assert!(of_caches(down(true, false)).starts_with("error"));
    assert!(of_caches(down(true, true)).starts_with("warning"));
}

#[test]
fn the_key_of_nixos_is_known() {
    let found = after(|facts| facts.caches = vec![cache("cache.nixos.org")]);
    assert_eq!(found, ["warning keys no key for cache.nixos.org is trusted"]);
}

#[test]
fn no_key_at_all_is_a_fault_only_where_signatures_count() {
    let none = |strict: bool, trusted: bool| {
        after(|facts| {
            facts.keys.clear();
            facts.caches[0].signed = Signed::Unknown;
            facts.caches[0].trusted = trusted;
            if let Checked::Found(nix) = &mut facts.nix {
                nix.require_sigs = strict;
            }
        })
    };
    assert_eq!(none(true, false), ["warning keys no key at all is trusted, so nothing of c.example can be taken"]);
    assert_eq!(none(false, false), [""; 0]);
    assert_eq!(none(true, true), [""; 0]);
}

#[test]
fn lines_for_nix_fit_to_the_machine() {
    let mut facts = healthy();
    assert_eq!(facts.conf("sandbox", "true"), "sandbox = true    in /etc/nix/nix.conf");
    if let Checked::Found(store) = &mut facts.store {
        store.daemon = true;
    }
    assert!(facts.conf("sandbox", "true").ends_with(", then: sudo systemctl restart nix-daemon"));
    facts.nixos = true;
    let nixos = |name, value| facts.conf(name, value).split("    ").next().unwrap().to_owned();
    assert_eq!(nixos("sandbox", "true"), "nix.settings.sandbox = true;");
    assert_eq!(nixos("extra-trusted-users", "me"), "nix.settings.trusted-users = [ \"me\" ];");
}

#[test]
fn being_untrusted_is_a_note() {
    let mut facts = healthy();
    if let Checked::Found(store) = &mut facts.store {
        store.untrusted = Some(Untrusted { user: "me".into(), ..Untrusted::default() });
    }
    let report = examine(&facts);
    assert!(report.ok && report.notes.len() == 1, "{report:#?}");
}
