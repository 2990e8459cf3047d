//! `drover check` beside `nix flake check`, flake by flake: the same verdict and the same warnings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::check_flakes::{HELPERS, SAMPLES, Sample};
use crate::eval::{commit, git};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Events, Site, statuses};

/// How many flakes are checked at the same time.
const AT_ONCE: usize = 4;

/// A warning: the sort of it, and what it is about.
type Remark = (&'static str, String);

/// A verdict: nothing is wrong, and what was warned of.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    ok: bool,
    remarks: BTreeSet<Remark>,
}

fn flake_nix(sample: &Sample) -> String {
    match sample.text.starts_with('{') {
        true => sample.text.to_owned(),
        false => format!("{{ outputs = {{ self, ... }}: let {HELPERS} in {{ {} }}; }}\n", sample.text),
    }
}

/// The sort of a warning by a word in it, and the first name in quotes.
fn remark(message: &str) -> Option<Remark> {
    let sorts = [("is deprecated", "old"), ("unknown flake output", "unknown"), ("careful", "said")];
    let sort = sorts.into_iter().find(|(word, _)| message.contains(word)).map(|(_, sort)| sort)?;
    Some((sort, quoted(message)))
}

/// The first text between single quotes.
fn quoted(message: &str) -> String {
    message.split('\'').nth(1).unwrap_or_default().to_owned()
}

/// What Nix says, with all that it has to say.
fn of_nix(site: &Site, flake: &str, flags: &[&str]) -> (Verdict, String) {
    let mut command = site.lab.command("nix");
    command.args(["flake", "check", flake, "--keep-going"]).args(flags);
    // Given both, Nix writes nothing and refuses nothing.
    if !flags.contains(&"--no-update-lock-file") {
        command.arg("--no-write-lock-file");
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut remarks: BTreeSet<Remark> = BTreeSet::new();
    for message in stderr.lines().filter_map(|line| line.split_once("warning: ")).map(|(_, message)| message) {
        // `app 'NAME' lacks attribute 'meta'`
        if let Some((app, what)) = message.split_once(" lacks attribute ") {
            remarks.insert(("app", format!("{} {}", quoted(app), quoted(what))));
        }
        remarks.extend(remark(message));
    }
    (Verdict { ok: output.status.success(), remarks }, stderr)
}

/// What drover says, with its exit code.
fn of_drover(site: &Site, name: &str, flake: &str, flags: &[&str]) -> (Verdict, Option<i32>, String) {
    let file = site.lab.work().join(format!("{name}.jsonl"));
    let events_to = file.display().to_string();
    let ran = site.drover(&[&["check", flake, "--refresh", "--events", &events_to], flags].concat());
    let events = Events(if file.exists() { Events::read(&file).0 } else { Vec::new() });
    let listed = events.of("attr_listed");
    let path = |attr: &serde_json::Value| {
        listed.iter().find(|listed| listed["attr"] == *attr).and_then(|listed| listed["path"].as_str())
    };
    let mut remarks = BTreeSet::new();
    for warning in events.of("eval_warning") {
        let message = warning["message"].as_str().unwrap();
        match path(&warning["attr"]) {
            Some(app) if message.starts_with("it has no 'meta") => {
                remarks.insert(("app", format!("{app} {}", quoted(message))));
            }
            _ => remarks.extend(remark(message)),
        }
    }
    (Verdict { ok: ran.code == Some(0), remarks }, ran.code, ran.stderr)
}

/// Holds the two against each other; gives what is wrong.
fn differs(site: &Site, name: &str, good: bool, flake: &str, flags: &[&str]) -> Option<String> {
    let (nix, nix_said) = of_nix(site, flake, flags);
    let (drover, code, drover_said) = of_drover(site, name, flake, flags);
    let codes: &[i32] = if good { &[0] } else { &[1, 2, 3, 4] };
    let known = code.is_some_and(|code| codes.contains(&code));
    // Nix gives up where something is wrong, and does not come to all that it would warn of.
    let same = nix.ok == good && drover.ok == good && known && (!good || nix.remarks == drover.remarks);
    let told = || format!("{name}: Nix {nix:?}, drover {drover:?} ({code:?})\n{nix_said}\n{drover_said}");
    (!same).then(told)
}

#[test]
fn verdicts_and_warnings_are_those_of_nix() {
    let names: BTreeSet<&str> = SAMPLES.iter().map(|sample| sample.name).collect();
    assert_eq!(names.len(), SAMPLES.len(), "two samples have one name");
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let flake = lab.work();
        let site = Site { lab, flake };
        for sample in SAMPLES {
            site.lab.write(&format!("{}/flake.nix", sample.name), &flake_nix(sample));
        }
        // Processes that make a new store at once get in each other's way.
        site.lab.run("nix", &["path-info", "--all"]);
        let next = AtomicUsize::new(0);
        let check = || {
            let mut wrong = Vec::new();
            while let Some(sample) = SAMPLES.get(next.fetch_add(1, Ordering::Relaxed)) {
                let reference = format!("path:{}", site.lab.work().join(sample.name).display());
                wrong.extend(differs(&site, sample.name, sample.good, &reference, sample.flags));
            }
            wrong
        };
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(check)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(wrong.is_empty(), "with Nix {}:\n{}", nix.version, wrong.join("\n"));
    });
}

/// A flake with an input of its own, in a git tree; `text` is in its outputs.
fn with_input(lab: &Lab, text: &str) -> String {
    lab.write("input/flake.nix", "{ outputs = _: { name = \"a\"; }; }");
    commit(lab, &lab.work().join("input"));
    let input = format!("git+file://{}", lab.work().join("input").display());
    lab.write(
        "flake/flake.nix",
        &format!("{{ inputs.x.url = \"{input}\"; outputs = {{ self, x }}: let {HELPERS} in {{ {text} }}; }}"),
    );
    commit(lab, &lab.work().join("flake"));
    lab.work().join("flake").display().to_string()
}

fn agree(site: &Site, name: &str, good: bool, flags: &[&str]) {
    let flake = site.flake.display().to_string();
    if let Some(wrong) = differs(site, name, good, &flake, flags) {
        panic!("{wrong}");
    }
}

#[test]
fn locks_overrides_and_work_trees_are_taken_as_nix_takes_them() {
    each_nix(|nix| {
        let lab = Lab::chroot(nix);
        let flake = with_input(&lab, "packages.x86_64-linux.a = d x.name;");
        let site = Site { lab, flake: flake.clone().into() };
        let lock = Path::new(&flake).join("flake.lock");

        agree(&site, "lock-absent", true, &[]);
        agree(&site, "lock-absent-refused", false, &["--no-update-lock-file"]);
        site.lab.run("nix", &["flake", "lock", &flake]);
        agree(&site, "lock-dirty", true, &["--no-update-lock-file"]);
        commit(&site.lab, &site.flake);
        agree(&site, "lock-clean", true, &["--no-update-lock-file"]);

        site.lab.write("other/flake.nix", "{ outputs = _: { name = 1; }; }");
        let other = format!("path:{}", site.lab.work().join("other").display());
        agree(&site, "override", false, &["--override-input", "x", &other]);

        // Not in step: an input that the lock does not know.
        let text = fs::read_to_string(site.flake.join("flake.nix")).unwrap();
        let second = text.replace("inputs.x.url", &format!("inputs.y.url = \"{other}\"; inputs.x.url"));
        site.edit("flake.nix", &second.replace("self, x }", "self, x, y }"));
        agree(&site, "lock-old", true, &[]);
        agree(&site, "lock-old-refused", false, &["--no-update-lock-file"]);
        site.edit("flake.nix", &text);

        // What git does not track is not there.
        site.edit("flake.nix", &text.replace("d x.name", "d (import ./name.nix)"));
        fs::write(site.flake.join("name.nix"), "\"a\"").unwrap();
        agree(&site, "untracked", false, &[]);
        git(&site.lab, &site.flake, &["add", "name.nix"]);
        agree(&site, "tracked", true, &[]);
        assert!(lock.exists());
    });
}

/// What a check found wrong with the flake as a whole: what it is about, and where.
fn findings(site: &Site) -> Vec<(String, String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let events = site.events();
    let found = events.of("flake_finding").into_iter();
    found.map(|event| (text(&event["about"]), text(&event["position"]), text(&event["message"]))).collect()
}

#[test]
fn a_flake_that_asks_for_trust_is_told_where() {
    const FLAKE: &str = "{\n  nixConfig = {\n    extra-substituters = [ \"https://a.example\" ];\n    sandbox = false;\n    \
                         bash-prompt = \"x\";\n  };\n  outputs = _: { overlay = final: prev: { }; };\n}\n";
    each_nix(|nix| {
        for lab in [Lab::plain(nix), Lab::chroot(nix)] {
            let site = Site::of(lab, FLAKE);
            let flags: [&[&str]; 2] = [&[], &[]];
            for (count, flags) in flags.into_iter().enumerate() {
                site.exits(0, &[&["check"], flags].concat());
                let found = findings(&site);
                assert_eq!(found.len(), 2, "{found:?}");
                assert_eq!((&*found[0].0, &*found[0].1), ("nixConfig", "flake.nix:3:5"));
                assert!(found[0].2.contains("extra-substituters = https://a.example: "), "{found:?}");
                assert_eq!(found[1].1, "flake.nix:4:5");
                // The second time all of it is known, also what Nix warned of.
                let events = site.events();
                assert_eq!(events.of("eval_started").is_empty(), count == 1);
                assert_eq!(events.of("eval_warning").len(), 1, "the overlay has an old name");
            }
            site.exits(1, &["check", "--strict"]);
        }
    });
}

#[test]
fn a_lock_that_is_missing_or_old_is_told() {
    let lab = Lab::chroot(&newest());
    let flake = with_input(&lab, "packages.x86_64-linux.a = d x.name;");
    let site = Site { lab, flake: flake.into() };
    let told = |word: &str| {
        site.exits(0, &["check"]);
        let found = findings(&site);
        assert!(found.len() == 1 && found[0].0 == "flake.lock" && found[0].2.contains(word), "{word}: {found:?}");
        site.exits(1, &["check", "--strict"]);
    };
    told("there is no flake.lock");
    site.lab.run("nix", &["flake", "lock", &site.flake.display().to_string()]);
    commit(&site.lab, &site.flake);
    site.exits(0, &["check", "--strict"]);
    assert_eq!(findings(&site), []);
    let text = fs::read_to_string(site.flake.join("flake.nix")).unwrap();
    site.edit(
        "flake.nix",
        &text.replace("inputs.x.url", "inputs.y.follows = \"x\"; inputs.x.url").replace("x }", "x, y }"),
    );
    told("does not fit flake.nix");
}

#[test]
fn what_nix_says_stands_beside_it() {
    each_nix(|nix| {
        let flake = |text: &str| format!("{{ outputs = {{ self }}: let {HELPERS} in {{ {text} }}; }}");
        let site = Site::of(Lab::plain(nix), &flake("checks.x86_64-linux.a = d \"beside\"; overlays.a = final: 1;"));
        let said = |code: i32, flags: &[&str]| {
            site.exits(code, &[&["check", "--beside-nix"], flags].concat());
            let events = site.events();
            let checked = events.of("nix_checked");
            assert_eq!(checked.len(), 1);
            let warned: Vec<_> = events.of("warning").into_iter().map(|event| event["message"].clone()).collect();
            (checked[0]["ok"] == true, checked[0]["error"].as_str().unwrap_or_default().to_owned(), warned)
        };
        assert_eq!(said(0, &[]), (true, String::new(), vec![]));
        // A finding of drover's own is no difference.
        site.edit("flake.nix", &flake("packages.x86_64-linux.a = d \"a\" // { outputs = throw \"no\"; };"));
        assert_eq!(said(3, &["--strict"]), (true, String::new(), vec![]));
        site.edit("flake.nix", &flake("checks.x86_64-linux.a = bad \"beside-bad\";"));
        let (ok, error, warned) = said(1, &[]);
        assert!(!ok && error.contains("beside-bad") && warned.is_empty(), "{error} {warned:?}");
        assert_eq!(said(0, &["--no-build"]), (true, String::new(), vec![]));
        site.edit("flake.nix", &flake("packages.x86_64-linux.a = throw \"it is so\";"));
        let (ok, error, warned) = said(3, &[]);
        assert!(!ok && error.contains("it is so") && warned.is_empty(), "{error} {warned:?}");
    });
}

#[test]
fn what_is_imported_is_built_and_said_once_where_nothing_is_to_be_built() {
    let text = "packages.x86_64-linux = { a = d (import (says \"a.nix\" \"\\\"b\\\"\")); \
                b = d (import (says \"b.nix\" \"\\\"b\\\"\")); }; checks.x86_64-linux.c = bad \"c\";";
    let flake = format!("{{ outputs = {{ self }}: let {HELPERS} in {{ {text} }}; }}");
    let site = Site::of(Lab::plain(&newest()), &flake);
    site.exits(0, &["check", "--no-build"]);
    let events = site.events();
    let warned =
        events.of("warning").into_iter().filter(|event| event["message"].as_str().unwrap().contains("--no-build"));
    assert_eq!(warned.count(), 1);
    assert_eq!(events.built().len(), 2);
    site.exits(3, &["check", "--no-build", "--no-ifd", "--refresh"]);
}

#[test]
fn what_nix_does_not_look_at_is_a_finding() {
    let text = "homeConfigurations.a = throw \"no\"; darwinConfigurations.b.system = d \"b\"; \
                checks.aarch64-linux.c = throw \"no\"; nixosConfigurations.d.config.system.build.toplevel = far \"d\";";
    let flake = format!("{{ outputs = {{ self }}: let {HELPERS} in {{ {text} }}; }}");
    let site = Site::of(Lab::plain(&newest()), &flake);
    let verdicts = |code: i32, flags: &[&str]| {
        let document = site.exits(code, &[&["check", "--json"], flags].concat()).json();
        statuses(&document).into_keys().collect::<Vec<_>>()
    };
    let own = ["darwinConfigurations.b", "homeConfigurations.a", "nixosConfigurations.d"];
    assert_eq!(verdicts(0, &[]), own);
    assert_eq!(
        site.events().of("eval_ended").into_iter().filter(|event| event["evaluated"]["result"] == "finding").count(),
        1
    );
    assert_eq!(verdicts(3, &["--strict"]), own);
    // Systems that are named are looked at; with all of them Nix looks, too.
    assert_eq!(verdicts(3, &["--systems", "aarch64-linux"]).len(), 4);
    assert_eq!(verdicts(3, &["--all-systems"]).len(), 4);
}

#[test]
fn the_program_of_an_app_that_was_built_is_there_and_can_be_run() {
    let app = |name: &str, script: &str| {
        format!(
            "{name} = {{ type = \"app\"; meta.description = \"x\"; \
             program = \"${{make \"{name}\" \"x86_64-linux\" \"{script}\"}}/x\"; }};"
        )
    };
    let make = |rest: &str| format!("export PATH=/bin:/usr/bin; mkdir $out; {rest}");
    let text = [
        app("fine", &make("echo > $out/x; chmod +x $out/x")),
        app("absent", &make("true")),
        app("data", &make("echo > $out/x")),
    ];
    let flake =
        format!("{{ outputs = {{ self }}: let {HELPERS} in {{ apps.x86_64-linux = {{ {} }}; }}; }}", text.concat());
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), &flake);
        site.exits(0, &["check"]);
        site.exits(1, &["check", "--build", "--kind", "apps"]);
        let found: Vec<_> = findings(&site).into_iter().map(|(about, _, message)| (about, message)).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].0, "apps.x86_64-linux.absent");
        assert!(found[0].1.ends_with("/x does not exist"), "{found:?}");
        assert_eq!(found[1].0, "apps.x86_64-linux.data");
        assert!(found[1].1.ends_with("/x is not executable"), "{found:?}");
        // The same, built already.
        site.exits(1, &["check", "--build", "--kind", "apps"]);
        assert_eq!(findings(&site).len(), 2);
    });
}
