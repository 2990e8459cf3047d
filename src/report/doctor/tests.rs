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
            systems: vec!["x86_64-linux".into()],
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
        state: StateDir { dir: Some("/s".into()), ..StateDir::default() },
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

/// A builder in which nothing is wrong.
fn big1() -> Builder {
    Builder {
        name: "big1".into(),
        named_in: "/etc/nix/machines:2".into(),
        ssh: true,
        user: Some("ci".into()),
        answer: Answer::Up(talk()),
        ..Builder::default()
    }
}

fn talk() -> Talk {
    Talk {
        shell: true,
        systems: vec!["x86_64-linux".into(), "i686-linux".into()],
        features: vec!["kvm".into()],
        max_jobs: Some(16),
        processors: Some(16),
        ..Talk::default()
    }
}

/// The findings and notes of such a builder after one change, as `severity message`, and what mends the last.
fn of_builder(change: impl FnOnce(&mut Builder, &mut Talk)) -> (Vec<String>, String) {
    let (mut builder, mut talk) = (big1(), talk());
    change(&mut builder, &mut talk);
    if let Answer::Up(_) = builder.answer {
        builder.answer = Answer::Up(talk);
    }
    let report = examine(&Facts { builders: vec![builder], ..healthy() });
    let found: Vec<_> = report.findings.into_iter().chain(report.notes).collect();
    let fix = found.last().map(|finding| finding.fix.clone()).unwrap_or_default();
    (found.iter().map(|finding| format!("{} {}", finding.severity.word(), finding.message)).collect(), fix)
}

#[test]
fn a_builder_that_is_as_is_said_is_fine() {
    let said = of_builder(|builder, _| {
        (builder.systems, builder.features) = (vec!["i686-linux".into()], vec!["kvm".into()]);
    });
    assert_eq!(said.0, [""; 0]);
    let report = examine(&Facts { builders: vec![big1()], ..healthy() });
    let area = report.areas.iter().find(|area| area.area == "builders").unwrap();
    assert_eq!(area.summary, "local 4 slots, sandbox on; big1 16 slots");
}

#[test]
fn what_is_said_of_a_builder_is_held_against_what_it_says() {
    let system = of_builder(|builder, _| builder.systems = vec!["x86_64-linux".into(), "aarch64-linux".into()]);
    assert_eq!(system.0, ["warning big1 does not say that it builds aarch64-linux"]);
    assert!(system.1.starts_with("extra-platforms = aarch64-linux    in /etc/nix/nix.conf on big1"), "{}", system.1);
    let feature = of_builder(|builder, _| builder.features = vec!["kvm".into(), "gpu".into()]);
    assert_eq!(feature.0, ["warning big1 does not have what is said of it: gpu"]);
    let silent = of_builder(|builder, talk| {
        builder.systems = vec!["aarch64-linux".into()];
        *talk = Talk { shell: false, ..Talk::default() };
    });
    assert_eq!(silent.0, ["note the login on big1 has no shell with Nix in it"]);
}

#[test]
fn a_slot_on_many_cores_is_worth_a_word() {
    let (found, fix) = of_builder(|builder, _| builder.slots = Some(1));
    assert_eq!(found, ["note max-jobs of big1 is 1, it has 16 cores"]);
    assert_eq!(fix, "${EDITOR:-vi} +2 /etc/nix/machines    16 in column 4, for big1");
    let table = of_builder(|builder, talk| (builder.named_in, talk.max_jobs) = ("drover.toml:7".into(), Some(1)));
    assert_eq!(table.1, "max-jobs = 16    in [builder.big1] of drover.toml");
    assert_eq!(of_builder(|_, talk| (talk.max_jobs, talk.processors) = (Some(1), Some(1))).0, [""; 0]);
}

#[test]
fn a_builder_that_is_away_is_an_error_where_no_other_can_do_its_work() {
    let away = |how| Answer::Down { how, what: "it is so".into(), fix: "ssh big1 true".into() };
    let of = |how, systems: &[&str]| {
        let systems = systems.iter().map(|system| (*system).to_owned()).collect();
        of_builder(|builder, _| (builder.answer, builder.systems) = (away(how), systems)).0.concat()
    };
    assert_eq!(of(NoWay::Unreachable, &[]), "warning big1 cannot be reached: it is so");
    assert_eq!(of(NoWay::Unreachable, &["aarch64-linux"]), "error big1 cannot be reached: it is so");
    assert_eq!(of(NoWay::HostKeyChanged, &["x86_64-linux"]), "warning big1 shows another host key than it should");
    let none = after(|facts| {
        facts.nix = Checked::Found(Nix { max_jobs: Some(0), ..facts.nix.found().unwrap().clone() });
        facts.builders = vec![Builder { answer: away(NoWay::NotLetIn), ..big1() }];
    });
    assert_eq!(none, ["error builders big1 does not let this user in: it is so"]);
}

#[test]
fn a_machine_that_builds_nothing_needs_other_builders() {
    let found = |builders: Vec<Builder>| {
        after(|facts| {
            facts.nix = Checked::Found(Nix { max_jobs: Some(0), ..facts.nix.found().unwrap().clone() });
            facts.builders = builders;
        })
    };
    assert_eq!(found(vec![big1()]), [""; 0]);
    let message = "error builders max-jobs is 0: this machine builds nothing, and there is no other builder";
    assert_eq!(found(Vec::new()), [message]);
}

#[test]
fn trust_forwarding_and_keys_of_builders() {
    let (found, fix) = of_builder(|_, talk| talk.untrusted = true);
    assert_eq!(found, ["warning big1 does not trust its user ci"]);
    assert!(fix.starts_with("extra-trusted-users = ci    in /etc/nix/nix.conf on big1"), "{fix}");
    let note = of_builder(|_, talk| talk.unforwarded = true).0;
    assert_eq!(note, ["note the daemon's socket of big1 cannot be forwarded"]);
    let key = |trouble| of_builder(|builder, _| builder.key_file = Some(("/k".into(), trouble)));
    assert_eq!(key(KeyTrouble::Missing).0, ["warning there is no ssh key /k for big1"]);
    assert_eq!(
        key(KeyTrouble::Open),
        (vec!["warning others may read the ssh key /k for big1".into()], "chmod go-rwx /k".into())
    );
    let unset = of_builder(|builder, _| builder.key_env_unset = Some("CI_KEY".into())).0;
    assert_eq!(unset, ["note CI_KEY is not set, which is to hold the key for big1"]);
    let hosts = after(|facts| facts.unchecked_hosts = vec!["StrictHostKeyChecking=no".into()]);
    assert_eq!(hosts, ["warning builders NIX_SSHOPTS turns off the check of host keys: StrictHostKeyChecking=no"]);
}
