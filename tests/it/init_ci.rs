//! The workflows of `drover init --ci`, executed: each `run:` line of each job, in order, on fresh machines with clones of
//! the repository. What is in the cache then is what one `drover run` puts there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::eval::commit;
use crate::support::forge::{Forge, Machine, actions, gitlab, serve, yaml};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::site::Site;

/// Three hosts, each with a minute of work as far as anybody knows, that share a little, and a check.
const FLAKE: &str = r#"{ outputs = { self }: let
    drv = name: deps: derivation { inherit name deps; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo $deps > $out" ]; };
    shared = drv "shared-1.0" [ ];
    chain = name: n: if n == 0 then drv "${name}-0" [ ] else drv "${name}-${toString n}" [ (chain name (n - 1)) ];
    host = name: { config.system.build.toplevel = drv "nixos-system-${name}" [ (chain name 7) ]; };
  in {
    nixosConfigurations = { web1 = host "web1"; db1 = host "db1"; };
    packages.x86_64-linux = { "it's 1.2" = drv "careful-1.2" [ (chain "careful" 6) ]; };
    checks.x86_64-linux.small = drv "small" [ shared ];
  }; }"#;

/// A repository with a cache that is pushed to, and a workflow.
struct Project {
    site: Site,
    cache: PathBuf,
    kept: PathBuf,
    /// Where jobs find this drover.
    url: String,
}

impl Project {
    fn new(nix: &Nix, forge: &str, more: &[&str]) -> Self {
        let site = Site::of(Lab::mounted(nix), FLAKE);
        let (cache, kept) = (site.lab.path("cache.d"), site.lab.path("kept"));
        fs::create_dir_all(&kept).unwrap();
        let key = site.key("acme-1");
        // What debuggers need is most of it.
        let drover = site.lab.path("drover");
        let mut strip = site.lab.program("strip");
        assert!(strip.arg("-o").arg(&drover).arg(env!("CARGO_BIN_EXE_drover")).status().unwrap().success());
        let (url, hash) = (serve(&drover), sha256(&site, &drover));
        let url_of = |dir: &Path| format!("file://{}?secret-key={}", dir.display(), key.secret.display());
        let toml = |dir: &Path| {
            format!("[cache.acme]\nurl = \"{}\"\npush = true\npublic-keys = [\"{}\"]\n", url_of(dir), key.public)
        };
        site.edit("drover.toml", &toml(&cache));
        site.exits(0, &[&["init", "--ci", forge, "--sha256", &hash], more].concat());
        commit(&site.lab, &site.flake);
        Self { site, cache, kept, url }
    }

    fn forge<'a>(&self, nix: &'a Nix) -> Forge<'a> {
        Forge {
            nix,
            repository: self.site.flake.clone(),
            kept: self.kept.clone(),
            vars: vec![("DROVER_URL".to_owned(), self.url.clone())],
            log: String::new(),
        }
    }

    /// What the cache holds now is what one run on one machine puts into it.
    fn is_as_after_one_run(&self, nix: &Nix, log: &str) {
        let found = narinfos(&self.cache);
        fs::rename(&self.cache, self.site.lab.path("cache.of-jobs")).unwrap();
        let machine = Machine::new(nix, &self.site.flake);
        let (ok, said) = machine.run(&format!("{} run", env!("CARGO_BIN_EXE_drover")), &[]);
        assert!(ok, "{said}");
        assert_eq!(found, narinfos(&self.cache), "{log}");
        assert!(found.len() >= 20, "{found:?}");
    }
}

/// The paths that a cache holds.
fn narinfos(cache: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.ends_with(".narinfo")).collect()
}

fn sha256(site: &Site, file: &Path) -> String {
    let output = site.lab.program("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// A workflow of GitHub or Forgejo, once, and once more with nothing to do.
fn runs(nix: &Nix, name: &str, more: &[&str]) {
    let is_forgejo = name == "forgejo";
    let project = Project::new(nix, name, more);
    let workflow = yaml(&project.site.flake.join(format!(".{name}/workflows/drover.yml")));
    let mut forge = project.forge(nix);
    let results = actions::run(&mut forge, &workflow, is_forgejo, 1);
    assert!(results.values().all(|result| result == "success"), "{results:?}\n{}", forge.log);
    assert_eq!(results["drover"], "success");
    if !more.is_empty() {
        assert!(forge.log.matches("$ drover run --plan").count() >= 3, "{}", forge.log);
    }
    project.is_as_after_one_run(nix, &forge.log);

    // What was learned is carried to the next run, which has nothing to do.
    let mut forge = project.forge(nix);
    let results = actions::run(&mut forge, &workflow, is_forgejo, 2);
    assert_eq!(results["drover"], "success", "{}", forge.log);
    assert!(!forge.log.contains(" built "), "{}", forge.log);
    assert!(!forge.log.contains("no history yet"), "{}", forge.log);
    if !more.is_empty() {
        assert_eq!(results["build"], "skipped", "{}", forge.log);
    }
}

#[test]
fn one_job_on_github() {
    each_nix(|nix| runs(nix, "github", &[]));
}

#[test]
fn a_matrix_on_github() {
    each_nix(|nix| runs(nix, "github", &["--matrix"]));
}

#[test]
fn forgejo_does_the_same() {
    runs(&newest(), "forgejo", &[]);
    runs(&newest(), "forgejo", &["--matrix"]);
}

#[test]
fn one_job_on_gitlab() {
    let nix = newest();
    let project = Project::new(&nix, "gitlab", &[]);
    let mut forge = project.forge(&nix);
    let ran = gitlab::run(&mut forge);
    assert_eq!(ran, [("drover".to_owned(), true)], "{}", forge.log);
    project.is_as_after_one_run(&nix, &forge.log);
    assert!(gitlab::artifact(&forge, "drover", "drover-junit.xml").exists());
    assert!(gitlab::artifact(&forge, "drover", "drover-report").exists());
}

#[test]
fn a_child_pipeline_on_gitlab() {
    let nix = newest();
    let project = Project::new(&nix, "gitlab", &["--matrix"]);
    let mut forge = project.forge(&nix);
    let ran = gitlab::run(&mut forge);
    assert!(ran.len() >= 4 && ran.iter().all(|(_, ok)| *ok), "{ran:?}\n{}", forge.log);
    project.is_as_after_one_run(&nix, &forge.log);
    let rows: Value = yaml(&gitlab::artifact(&forge, "drover plan", "drover-rows.yml"));
    let jobs = rows.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("build "));
    assert!(jobs.map(|(_, job)| &job["extends"]).all(|name| name == ".drover"), "{rows:#}");

    // A job that fails is a pipeline that fails.
    let mut forge = project.forge(&nix);
    forge.vars[0].1 = "http://127.0.0.1:1/".to_owned();
    let ran = gitlab::run(&mut forge);
    assert!(ran.iter().any(|(_, ok)| !ok), "{}", forge.log);
}
