//! What a run leaves and prints: links, paths, documents, events; and how the binary takes what people type.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::eval::{commit, git};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Events, Site, finish, statuses};

#[test]
fn links_are_those_of_nix_and_keep_their_results() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::plain(nix));
        let attrs = ["packages.x86_64-linux.chain", "packages.x86_64-linux.diamond"];
        let link = |name: &str| site.lab.work().join(name);
        let ours = link("ours").display().to_string();
        let theirs = link("theirs").display().to_string();
        site.exits(0, &[&["run", "--out-link", &ours][..], &attrs].concat());
        let installables = attrs.map(|attr| format!("{}#{attr}", site.flake.display()));
        site.lab.run("nix", &["build", "--out-link", &theirs, &installables[0], &installables[1]]);
        for suffix in ["", "-1"] {
            let target = |name: &str| fs::read_link(link(&format!("{name}{suffix}"))).unwrap();
            assert_eq!(target("ours"), target("theirs"));
        }
        let roots = site.lab.run("nix-store", &["--gc", "--print-roots"]).replace('"', "");
        for name in [&ours, &format!("{ours}-1")] {
            assert!(roots.contains(&format!("{name} -> ")), "{name} is no root: {roots}");
        }
        // A link that is there is made anew; what was there and is no link is left alone, with an error.
        site.exits(0, &["run", "-o", &ours, "packages.x86_64-linux.source"]);
        assert!(fs::read_link(link("ours")).unwrap().display().to_string().ends_with("-source.txt"));
        fs::write(link("precious"), "mine").unwrap();
        let refused =
            site.drover(&["run", "-o", &link("precious").display().to_string(), "packages.x86_64-linux.source"]);
        assert!(refused.code != Some(0) && refused.stderr.contains("precious"), "{}", refused.stderr);
        assert_eq!(fs::read_to_string(link("precious")).unwrap(), "mine");
    });
}

#[test]
fn stdout_carries_what_was_asked_for_and_nothing_else() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::plain(nix));
        let attrs = ["chain", "library", "uses-headers"].map(|name| format!("packages.x86_64-linux.{name}"));
        let args = |flags: &[&'static str]| {
            let mut all = vec!["run"];
            all.extend(flags);
            all.extend(attrs.iter().map(String::as_str));
            all.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let run = |flags: &[&'static str]| {
            let args = args(flags);
            site.exits(0, &args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let plain = run(&[]);
        assert_eq!(plain.out(), "");
        assert!(plain.last_line().contains("3 packages"), "{}", plain.stderr);
        let loud = run(&["-v", "-L"]);
        assert_eq!(loud.out(), "");
        let installables: Vec<String> = attrs.iter().map(|attr| format!("{}#{attr}", site.flake.display())).collect();
        let mut nix = vec!["build", "--no-link", "--print-out-paths"];
        nix.extend(installables.iter().map(String::as_str));
        assert_eq!(run(&["--print-out-paths"]).out().trim_end(), site.lab.run("nix", &nix));
        assert_eq!(site.exits(0, &["plan", "chain"]).out(), "");

        // No terminal, no escape codes; and none on a terminal that asked for none, which `screens` looks at.
        for ran in [&plain, &loud] {
            assert!(!ran.stderr.contains('\x1b'), "{:?}", ran.stderr);
        }
        let mut command = site.command(&["run", "chain"]);
        command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
        assert!(!finish(command, &[]).stderr.contains('\x1b'));

        // Every event, as it happened, in both places.
        let file = site.lab.work().join("events.jsonl");
        let file_name = file.display().to_string();
        site.exits(0, &["run", "chain", "--events", &file_name]);
        let copy = fs::read(&file).unwrap();
        assert_eq!(copy, fs::read(site.runs().pop().unwrap().join("events.jsonl")).unwrap());
        let events = Events::read(&file);
        assert_eq!(events.0[0]["event"], "run_started");
        assert_eq!(events.0.last().unwrap()["event"], "run_ended");
        for (n, event) in events.0.iter().enumerate() {
            assert_eq!(event["seq"], n, "{event}");
        }
    });
}

/// The keys of an object.
fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Fails unless all these keys are there; more may be.
#[track_caller]
fn has(value: &Value, wanted: &[&str]) {
    let missing: Vec<_> = wanted.iter().filter(|key| !keys(value).contains(*key)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in {value}");
}

#[test]
fn the_document_has_what_is_promised() {
    let site = Site::new(Lab::plain(&newest()), "broken");
    let url = site.cache_url(&site.key("k-1"));
    let documents = [
        site.exits(3, &["run", "--json", "--push-to", &url, "--exclude", "stack-overflow"]).json(),
        site.exits(3, &["plan", "--json", "--push-to", &url, "--exclude", "stack-overflow"]).json(),
        site.exits(0, &["report", "--format", "json"]).json(),
    ];
    for document in &documents {
        let fields = ["version", "run", "flake", "attrs", "drvs", "stages", "account", "counts", "caches", "exit"];
        has(document, &fields);
        assert_eq!((&document["version"], &document["exit"]), (&1.into(), &3.into()));
        has(&document["flake"], &["ref", "locked", "rev"]);
        has(&document["drvs"], &["build", "fetch", "valid", "opaque"]);
        for attr in document["attrs"].as_array().unwrap() {
            has(attr, &["attr", "kind", "name", "system", "drv", "outputs", "status", "reason", "pushed", "error"]);
            if !attr["error"].is_null() {
                has(&attr["error"], &["class", "message", "position", "root_drv"]);
            }
        }
        for cache in document["caches"].as_array().unwrap() {
            has(cache, &["url", "present", "absent", "no_answer", "untrusted"]);
        }
        let account = document["account"].as_array().unwrap();
        account.iter().for_each(|entry| has(entry, &["owner", "what", "where", "seconds"]));
        for stage in document["stages"].as_object().unwrap().values() {
            let (start, end) = (stage["start"].as_f64().unwrap(), stage["end"].as_f64().unwrap());
            assert!(0.0 <= start && start <= end, "{stage}");
        }
    }
    assert_eq!(keys(&documents[0]["stages"]), ["eval", "diff", "build", "push", "record"].into());
    // Every second has an owner.
    let sum: f64 = documents[0]["account"].as_array().unwrap().iter().map(|e| e["seconds"].as_f64().unwrap()).sum();
    let first = site.runs().remove(0);
    let last = Events::read(&first.join("events.jsonl")).0.pop().unwrap();
    assert!((sum - last["at"].as_f64().unwrap() / 1e6).abs() < 1e-3, "{sum} of {last}");
    assert!(
        statuses(&documents[1])
            .values()
            .all(|status| ["to_build", "eval_failed", "valid", "failed"].contains(&status.as_str()))
    );
}

#[test]
fn what_people_type_means_what_they_mean() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::plain(nix));
        let lock = site.flake.join("flake.lock");
        let planned = |args: &[&str]| {
            let document = site.exits(0, &[&["plan", "--json"], args].concat()).json();
            statuses(&document).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(planned(&["host01"]), ["nixosConfigurations.host01"]);
        assert_eq!(planned(&[".#host01", ".#mac1"]), ["darwinConfigurations.mac1", "nixosConfigurations.host01"]);
        assert_eq!(planned(&["nixosConfigurations.host01"]), ["nixosConfigurations.host01"]);
        assert_eq!(planned(&[".#packages.x86_64-linux.\"tool-1.2\""]), ["packages.x86_64-linux.\"tool-1.2\""]);
        assert_eq!(planned(&["pkg7"]), ["legacyPackages.x86_64-linux.pkg7"]);
        let deeper = "nixosConfigurations.host01.config.system.build.sdImage";
        assert_eq!(planned(&[&format!(".#{deeper}")]), [deeper]);
        assert_eq!(planned(&[&format!("{}#chain", site.flake.display())]), ["packages.x86_64-linux.chain"]);
        assert_eq!(planned(&[&format!("path:{}#chain", site.flake.display())]), ["packages.x86_64-linux.chain"]);
        assert_eq!(planned(&["--only", "host0*", "--exclude", "*.host0[1-9]"]), ["nixosConfigurations.host00"]);

        let typo = site.exits(2, &["run", "hsot01"]);
        assert!(typo.stderr.contains("no attr 'hsot01'") && typo.stderr.contains("host01"), "{}", typo.stderr);
        assert_eq!(typo.out(), "");
        site.exits(2, &["run", "/nonexistent"]);

        // From a folder below, as with nix.
        let mut command = site.command(&["plan", "--json", "chain"]);
        command.current_dir(site.flake.join("template"));
        fs::remove_file(site.flake.join("template/flake.nix")).unwrap();
        let ran = finish(command, &["below"]);
        assert_eq!(statuses(&ran.expect(0).json()).into_keys().collect::<Vec<_>>(), ["packages.x86_64-linux.chain"]);
        git(&site.lab, &site.flake, &["checkout", "-q", "."]);
        assert!(!lock.exists());
        assert_eq!(git(&site.lab, &site.flake, &["status", "--porcelain"]), "");
    });
}

/// A flake in a folder of a repository, with an input that its lock file does not know yet.
fn nested(lab: Lab) -> (Site, PathBuf) {
    lab.write("library/flake.nix", "{ outputs = { self }: { name = \"from-the-library\"; }; }");
    let library = lab.work().join("library");
    commit(&lab, &library);
    let flake = format!(
        "{{ inputs.library.url = \"git+file://{}\"; outputs = {{ self, library }}: {{ packages.x86_64-linux.one = \
         derivation {{ name = library.name; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"echo 1 > $out\" ]; }}; }}; }}",
        library.display()
    );
    lab.write("tree/sub/flake.nix", &flake);
    let tree = lab.work().join("tree");
    commit(&lab, &tree);
    (Site { lab, flake: tree.clone() }, tree.join("sub"))
}

#[test]
fn a_flake_in_a_folder_is_built_and_its_lock_file_is_left_alone() {
    each_nix(|nix| {
        let (site, sub) = nested(Lab::plain(nix));
        for reference in [format!("git+file://{}?dir=sub#one", site.flake.display()), "./sub#one".to_owned()] {
            let document = site.exits(0, &["run", "--json", &reference]).json();
            assert_eq!(
                statuses(&document).into_keys().collect::<Vec<_>>(),
                ["packages.x86_64-linux.one"],
                "{reference}"
            );
            assert!(document["attrs"][0]["outputs"]["out"].as_str().unwrap().ends_with("-from-the-library"));
            assert!(!sub.join("flake.lock").exists(), "{reference}");
        }
        // A lock file that is there is not touched either, even where it is out of step.
        let stale = "{\"nodes\":{\"root\":{}},\"root\":\"root\",\"version\":7}";
        fs::write(sub.join("flake.lock"), stale).unwrap();
        commit(&site.lab, &site.flake);
        site.exits(0, &["run", "./sub#one"]);
        assert_eq!(fs::read_to_string(sub.join("flake.lock")).unwrap(), stale);
        let refused = site.drover(&["run", "./sub#one", "--no-update-lock-file"]);
        assert!(refused.code != Some(0) && refused.stderr.contains("lock"), "{}", refused.stderr);
    });
}

#[test]
fn a_tree_that_changes_in_mid_run_is_an_error() {
    each_nix(|nix| {
        let site = Site::fleet(Lab::plain(nix));
        fs::write(site.flake.join("salt"), "dirty\n").unwrap();
        // The wrapper changes the tree when an evaluator is about to start: after locking, before reading.
        let (path, _) = site.spy("nix");
        let script = site.lab.path("spy/nix");
        let text = fs::read_to_string(&script).unwrap();
        let meddle = format!("case \"$*\" in *repl*) echo later > {} ;; esac\nexec", site.flake.join("salt").display());
        fs::write(&script, text.replace("exec", &meddle)).unwrap();
        let mut command = site.command(&["run", "chain"]);
        command.env("PATH", path);
        let ran = finish(command, &["run", "chain"]);
        assert!(ran.code != Some(0) && ran.stderr.contains("changed"), "{:?} {}", ran.code, ran.stderr);
        assert!(!Path::new(&site.cache()).exists());
        assert!(site.events().built().is_empty());
    });
}
