//! drover's own flake: for every system that it is for, with every Nix, held against as much of nixpkgs as it uses
//! (`tests/fixtures/nixpkgs`), so that no network is needed.
#![expect(clippy::disallowed_methods, reason = "nix, cargo and python are asked")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::finish;
use crate::support::stub::ROOT;

const SYSTEMS: [&str; 3] = ["x86_64-linux", "aarch64-linux", "aarch64-darwin"];

/// What of the repository the flake in it is: files that git knows.
fn flake(fragment: &str) -> String {
    format!("git+file://{ROOT}{fragment}")
}

/// In place of the nixpkgs that flake.lock names.
fn stub() -> [String; 3] {
    ["--override-input".to_owned(), "nixpkgs".to_owned(), format!("path:{ROOT}/tests/fixtures/nixpkgs")]
}

/// Runs a nix command that takes a flake.
fn ask(lab: &Lab, words: &[&str], fragment: &str) -> Output {
    let mut command = lab.bare_command("nix");
    command.args(words).arg(flake(fragment)).args(stub()).arg("--no-write-lock-file");
    command.output().unwrap()
}

/// What it prints; it has to succeed.
fn said(lab: &Lab, words: &[&str], fragment: &str) -> String {
    let output = ask(lab, words, fragment);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nix {words:?} {fragment} with Nix {}:\n{stderr}", lab.nix.version);
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

#[test]
fn it_shows_the_same_for_every_system() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let shown: Value =
            serde_json::from_str(&said(&lab, &["flake", "show", "--json", "--all-systems"], "")).unwrap();
        for system in SYSTEMS {
            let is_linux = system.ends_with("linux");
            let packages = ["default", "drover"].into_iter().chain(is_linux.then_some("static"));
            assert_eq!(names(&shown["packages"][system]), packages.collect(), "{system}");
            let machines = ["vm-builder", "vm-builder-dies", "vm-push"].into_iter().filter(|_| is_linux);
            let checks = ["clippy", "format", "itself", "package"].into_iter().chain(machines);
            assert_eq!(names(&shown["checks"][system]), checks.collect(), "{system}");
            assert_eq!(shown["apps"][system]["default"]["type"], "app");
            assert_eq!(shown["devShells"][system]["default"]["type"], "derivation");
            assert_eq!(shown["formatter"][system]["type"], "derivation");
        }
        assert_eq!(shown["nixosModules"]["default"]["type"], "nixos-module");
        assert_eq!(shown["overlays"]["default"]["type"], "nixpkgs-overlay");
        assert!(shown.get("flakeModules").is_some(), "{shown}");
    });
}

#[test]
fn nix_and_drover_find_nothing_wrong_with_it() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        said(&lab, &["flake", "check", "--no-build", "--all-systems"], "");

        let flake = flake("");
        let mut words = vec!["check", &flake, "--no-build", "--offline", "--all-systems"];
        let stub = stub();
        words.extend(stub.iter().map(String::as_str));
        let mut drover = lab.program(env!("CARGO_BIN_EXE_drover"));
        drover.args(&words).env_remove("DROVER_STATE_DIR");
        let ran = finish(drover, &words);
        ran.expect(0);
        for what in ["vm-push", "nixosModules", "overlays"] {
            assert!(ran.stderr.contains(what), "nothing is said of {what}:\n{}", ran.stderr);
        }
    });
}

#[test]
fn the_package_evaluates_for_every_system() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let mut drvs = BTreeSet::new();
        for system in SYSTEMS {
            for package in ["default", "static"] {
                if package == "static" && !system.ends_with("linux") {
                    continue;
                }
                let drv = said(&lab, &["eval", "--raw"], &format!("#packages.{system}.{package}.drvPath"));
                assert!(drv.ends_with("-drover-0.1.0.drv"), "{drv}");
                drvs.insert(drv);
            }
            // A package set with the overlay has the same drover.
            let overlaid = format!(
                "overlay: let pkgs = (builtins.getFlake \"path:{ROOT}/tests/fixtures/nixpkgs\").legacyPackages.{system}; \
                 in (overlay pkgs pkgs).drover.drvPath"
            );
            let drv = said(&lab, &["eval", "--raw", "--impure", "--apply", &overlaid], "#overlays.default");
            assert!(drvs.contains(&drv), "{drv} is not among {drvs:?}");
        }
        assert_eq!(drvs.len(), 5);
    });
}

/// cargo finds all that the manifest names in what the package is built from, and nothing is there that the package
/// would be built anew for without need.
#[test]
fn the_package_is_built_from_what_it_needs() {
    let lab = Lab::plain(&newest());
    let source = said(&lab, &["eval", "--raw"], "#packages.x86_64-linux.default.src");
    let entries = std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let expected = ["Cargo.lock", "Cargo.toml", "askama.toml", "nix", "src", "tests"];
    assert_eq!(entries.collect::<BTreeSet<_>>(), expected.map(str::to_owned).into());
    assert!(Path::new(&source).join("nix/eval/eval.nix").exists());
    assert!(!Path::new(&source).join("nix/package.nix").exists());

    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"]);
    let output = cargo.arg(format!("{source}/Cargo.toml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// flake.lock is in step with flake.nix and pins what has been there to fetch; the compiler there is new enough.
#[test]
fn the_lock_pins_a_nixpkgs_whose_compiler_is_new_enough() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let metadata = lab.run_bare("nix", &["flake", "metadata", "--json", "--no-update-lock-file", &flake("")]);
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let nixpkgs = &metadata["locks"]["nodes"]["nixpkgs"];
        let (locked, original) = (&nixpkgs["locked"], &nixpkgs["original"]["url"]);
        let text = |key: &str| locked[key].as_str().unwrap_or_default();
        assert!(text("rev").len() == 40 && text("narHash").starts_with("sha256-"), "{locked}");
        assert!(locked["lastModified"].is_u64(), "{locked}");
        assert!(text("url").contains(&text("rev")[..12]), "{locked}");

        // Releases of NixOS, and the minor version of the rustc in each.
        let compilers = [("nixos-25.11", 91), ("nixos-26.05", 95)];
        let release = compilers.iter().find(|(release, _)| original.as_str().unwrap().contains(release));
        let (release, newest) = release.unwrap_or_else(|| panic!("which rustc is in {original}?"));
        let manifest: toml::Table = std::fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap().parse().unwrap();
        let wanted = manifest["package"]["rust-version"].as_str().unwrap();
        let minor: u32 = wanted.strip_prefix("1.").and_then(|rest| rest.split('.').next()).unwrap().parse().unwrap();
        assert!(minor <= *newest, "rust-version is {wanted}, and {release} has 1.{newest}");
    });
}

/// They run where there is a nixpkgs, and a machine in the machine; here they are at least Python.
#[test]
fn the_scripts_of_the_tests_with_machines_can_be_read() {
    let lab = Lab::plain(&newest());
    for test in ["vm-builder", "vm-builder-dies", "vm-push"] {
        let script = said(&lab, &["eval", "--raw"], &format!("#checks.x86_64-linux.{test}.script"));
        let file = lab.write(&format!("{test}.py"), &script);
        let output = Command::new("python3").args(["-m", "py_compile"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{test}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The script of the check in which drover checks itself, as a sandbox would run it.
#[test]
fn drover_checks_itself_where_there_is_nothing_but_the_flake() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let script = said(&lab, &["eval", "--raw"], "#checks.x86_64-linux.itself.buildCommand");
        let drover = Path::new(env!("CARGO_BIN_EXE_drover")).parent().unwrap();
        let path = format!("{}:{}:/usr/bin:/bin", drover.display(), nix.bin.display());
        let (out, tmp) = (lab.work().join("out"), lab.path("tmp"));
        let mut bash = Command::new("unshare");
        bash.args(["--net", "bash", "-euc", &script]).env_clear().current_dir(&tmp);
        bash.envs([("PATH", path.as_ref()), ("TMPDIR", tmp.as_os_str()), ("out", out.as_os_str())]);
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(out.exists());
    });
}

/// What the package puts beside the program comes from the program: here from this one.
#[test]
fn the_package_has_completions_and_manual_pages() {
    let lab = Lab::plain(&newest());
    let script = said(&lab, &["eval", "--raw"], "#packages.x86_64-linux.default.postInstall");
    let out = lab.work().join("out");
    std::fs::create_dir_all(out.join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_drover"), out.join("bin/drover")).unwrap();
    // The two commands of nixpkgs: each says what it is given, which has to be there.
    let commands = "installShellCompletion() { for word; do case $word in drover.*) test -s \"$word\"; echo \"$word\";; esac; done; }\n\
         installManPage() { for page; do grep -q '^\\.TH ' \"$page\"; echo \"$page\"; done; }\n";
    let mut bash = lab.program("bash");
    bash.args(["-euc", &format!("{commands}{script}")]).env("out", &out);
    let output = bash.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let given: BTreeSet<&str> = stdout.lines().collect();
    for file in ["drover.bash", "drover.zsh", "drover.fish", "man/drover.1", "man/drover-run.1"] {
        assert!(given.contains(file), "{file} is not among {given:?}");
    }
}
