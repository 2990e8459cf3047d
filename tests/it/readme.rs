//! What README.md tells people to type is typed here, line by line, and what it puts into drover.toml is read.
//!
//! A block that cannot run here says why in a comment before it: `<!-- elsewhere: WHY -->`.
#![expect(clippy::disallowed_methods, reason = "which binary is tested is told by a variable")]
#![allow(clippy::print_stderr, reason = "cargo shows it for failing tests only")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::eval::git;
use crate::support::eval_jobs::{JOBS, write_eval_jobs};
use crate::support::fake_cache::FakeCache;
use crate::support::farm_lab::{FarmLab, Kind};
use crate::support::farm_site::spec;
use crate::support::nix::{Lab, newest};
use crate::support::program::write_program;
use crate::support::site::{Ran, Site, finish};
use crate::support::stub::ROOT;

/// A block of code.
struct Block {
    language: String,
    lines: Vec<String>,
    /// Why it does not run here.
    elsewhere: Option<String>,
}

fn blocks() -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let (mut blocks, mut open, mut elsewhere) = (Vec::new(), None::<Block>, None);
    for line in fs::read_to_string(path).unwrap().lines() {
        let text = line.trim_start();
        match (open.take(), text.strip_prefix("```")) {
            (Some(block), Some(_)) => blocks.push(block),
            (Some(mut block), None) => {
                block.lines.push(text.to_owned());
                open = Some(block);
            }
            (None, Some(language)) => {
                let (language, elsewhere) = (language.to_owned(), elsewhere.take());
                open = Some(Block { language, lines: Vec::new(), elsewhere });
            }
            (None, None) => {
                let why = text.strip_prefix("<!-- elsewhere: ").and_then(|rest| rest.strip_suffix(" -->"));
                elsewhere = why.map(str::to_owned).or(elsewhere.filter(|_| text.is_empty()));
            }
        }
    }
    assert!(open.is_none(), "README.md ends within a block");
    blocks
}

/// The hosts and packages that README.md speaks of.
const FLAKE: &str = r#"{
  outputs = _:
    let
      inherit (import ./default.nix { system = "x86_64-linux"; }) build;
      host = name: rec {
        config.networking.hostName = name;
        config.system.build.toplevel = build "nixos-system-${name}" (import ./hosts/${name}.nix);
      };
    in {
      nixosConfigurations = { web1 = host "web1"; db1 = host "db1"; };
      packages.x86_64-linux.nginx = build "nginx-1.29.4" "a server";
      checks.x86_64-linux.greeting = build "greeting" "hello";
    };
}
"#;

/// The same without a flake.
const DEFAULT: &str = r#"{ system }: rec {
  build = name: text: derivation {
    inherit name system text;
    builder = "/bin/sh";
    args = [ "-c" "echo $text; echo $text > $out" ];
  };
  hello = build "hello-2.12" "hello";
}
"#;

/// All files of the flake, of which git knows what it is to know.
fn furnish(site: &Site) {
    for (file, text) in [
        ("hosts/web1.nix", "\"one\"\n"),
        ("hosts/db1.nix", "\"two\"\n"),
        (".gitignore", "/*.drover\n/run.html\n/result*\n/machines\n"),
        ("machines", "ssh-ng://big1 x86_64-linux - 4\n"),
    ] {
        let path = site.flake.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    site.edit("default.nix", DEFAULT);
}

/// A clone in which somebody works: on a branch of main, with a cache and two builders.
struct Clone {
    site: Site,
    farm: FarmLab,
    bin: PathBuf,
    ssh_config: PathBuf,
}

impl Clone {
    fn new() -> Self {
        let nix = newest();
        let farm = FarmLab::new(&nix, vec![spec(Kind::Stdio, &nix).mounted(); 2]);
        let site = Site::of(Lab::chroot(&nix), FLAKE);
        furnish(&site);
        let key = site.key("acme-1");
        let cache = site.cache();
        let toml = format!(
            "[cache.acme]\nurl = \"file://{0}\"\npush = true\nsecret-key = \"{1}\"\n\
             public-keys = [\"{2}\"]\n[cache.other]\nurl = \"file://{0}-2\"\n[goals]\nhit-rate = 0.0\n",
            cache.display(),
            key.secret.display(),
            key.public,
        );
        let ssh_config = farm.path("named");
        let config = fs::read_to_string(farm.ssh_config()).unwrap();
        let config = config.replace("Host b0\n", "Host b0 big1\n").replace("Host b1\n", "Host b1 big2\n");
        fs::write(&ssh_config, config).unwrap();
        let clone = Self { bin: site.lab.path("bin"), site, farm, ssh_config };
        clone.programs();
        clone.site.edit("drover.toml", &toml);
        clone.git(&["branch", "-M", "main"]);
        // What is pushed and what links point to.
        clone.run("drover run --out-link result").expect(0);
        let other = format!("file://{}-2", cache.display());
        clone.run(&format!("nix copy --extra-experimental-features nix-command --to {other} ./result")).expect(0);
        clone.git(&["switch", "-qc", "work"]);
        clone.site.edit("hosts/web1.nix", "\"one and more\"\n");
        clone
    }

    /// The run that README.md compares with.
    fn first_run(&self) -> String {
        self.site.runs()[0].file_name().unwrap().to_string_lossy().into_owned()
    }

    fn git(&self, args: &[&str]) {
        git(&self.site.lab, &self.site.flake, args);
    }

    /// drover, with this lab's store, and what else README.md mentions.
    fn programs(&self) {
        let lab = &self.site.lab;
        let drover =
            format!("#!/bin/sh\nexec {} \"$@\" --store {}\n", env!("CARGO_BIN_EXE_drover"), lab.store_arg().unwrap());
        write_program(&self.bin.join("drover"), &drover);
        let (major, minor) = lab.nix.release();
        let version = format!("{major}.{minor}.99");
        write_eval_jobs(lab, &self.bin.join("nix-eval-jobs"), JOBS, &version, &lab.path("notes"));
    }

    /// A line, as a shell runs it.
    fn run(&self, line: &str) -> Ran {
        let mut command = self.site.lab.program("/bin/sh");
        for name in ["CI", "GITHUB_ACTIONS", "FORGEJO_ACTIONS", "GITEA_ACTIONS", "GITLAB_CI", "DROVER_STATE_DIR"] {
            command.env_remove(name);
        }
        command.env("NIX_SSHOPTS", format!("-F {}", self.ssh_config.display()));
        // What the line's other programs work on.
        command.env("NIX_REMOTE", self.site.lab.store_arg().unwrap());
        let line = format!("PATH={}:{}:$PATH\n{line}", self.bin.display(), self.site.lab.nix.bin.display());
        command.current_dir(&self.site.flake).args(["-euc", &line]);
        finish(command, &[&line])
    }
}

/// What README.md leaves out of keys.
const HOST_KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const PUBLIC_KEY: &str = "acme-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// What rightly does not end with 0, and says why.
const REFUSED: [(&str, i32, &str); 4] = [
    ("drover init", 2, "drover.toml is there already"),
    ("drover run --failed", 2, "nothing failed in the last run"),
    ("drover doctor", 1, "warnings: a run works all the same"),
    ("drover doctor --builders big1", 1, "warnings: a run works all the same"),
];

/// What of a line that belongs elsewhere can be tried here.
fn rehearsal(line: &str) -> Option<String> {
    if line.starts_with("drover init") {
        return Some(format!("{line} --dry-run"));
    }
    let repository = env!("CARGO_PKG_REPOSITORY").replace("https://github.com/", "github:");
    line.strip_prefix(&format!("nix run {repository} -- "))?;
    Some(format!(
        "nix build --dry-run --extra-experimental-features 'nix-command flakes' --no-write-lock-file \
         --override-input nixpkgs path:{ROOT}/tests/fixtures/nixpkgs git+file://{ROOT}"
    ))
}

/// A line without its comment; none where there is nothing else.
fn command(line: &str) -> Option<&str> {
    let end = line.find(" # ").unwrap_or(line.len());
    Some(line[..end].trim()).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[test]
fn every_command_of_the_readme_runs() {
    let clone = Clone::new();
    assert_eq!(clone.farm.builders.len(), 2);
    let (mut count, mut wrong) = (0, Vec::new());
    for (number, block) in blocks().iter().filter(|block| ["sh", "console"].contains(&&*block.language)).enumerate() {
        if block.elsewhere.is_none() && block.lines[0].starts_with("drover report") {
            // Something to report.
            clone.site.edit("hosts/db1.nix", &format!("\"{number}\"\n"));
            clone.run("drover run").expect(0);
        }
        for line in block.lines.iter().filter_map(|line| command(line)) {
            let rehearsed = match &block.elsewhere {
                None => line.to_owned(),
                Some(why) => {
                    let instead = rehearsal(line);
                    eprintln!("-- NOT RUN here: {line} ({why}); instead: {}", instead.as_deref().unwrap_or("nothing"));
                    let Some(instead) = instead else { continue };
                    instead
                }
            };
            count += 1;
            let ran = clone.run(&rehearsed.replace("01KAJX3M", &clone.first_run()));
            let refused = REFUSED.iter().find(|(refused, _, _)| *refused == line);
            let (code, says) = refused.map_or((0, ""), |(_, code, says)| (*code, *says));
            if ran.code != Some(code) || !format!("{}{}", ran.out(), ran.stderr).contains(says) {
                wrong.push(format!("{line}\nended with {:?}:\n{}{}", ran.code, ran.out(), ran.stderr));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} commands:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 30, "{count}");
}

#[test]
fn the_readmes_drover_toml_is_read() {
    let site = Site::of(Lab::plain(&newest()), "{ outputs = _: { }; }");
    let all = blocks();
    let toml: Vec<&str> = all
        .iter()
        .filter(|block| block.language == "toml")
        .flat_map(|block| &block.lines)
        .map(|line| &**line)
        .collect();
    let toml = toml.join("\n").replace("AAAA…", HOST_KEY).replace("acme-1:…", PUBLIC_KEY);
    site.edit("drover.toml", &toml);
    let shown = site.exits(0, &["doctor", "--show-config"]).out();
    for name in ["cache.acme", "builder.big1", "goals", "share", "notify.chat", "quarantine.vm", "skip"] {
        assert!(shown.contains(name), "{name} is not in\n{shown}");
    }
}

/// The binary of `nix/static`, where one is named: what is linked statically has to look up names by itself.
#[test]
fn the_static_binary_finds_servers_by_their_names() {
    let Some(binary) = std::env::var_os("DROVER_TEST_STATIC") else {
        eprintln!("-- NOT RUN: DROVER_TEST_STATIC names no binary; nix/test --long does");
        return;
    };
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    furnish(&site);
    fs::create_dir_all(site.cache()).unwrap();
    fs::write(site.cache().join("nix-cache-info"), format!("StoreDir: {}\n", site.lab.store_dir())).unwrap();
    let server = FakeCache::start(&site.cache());
    let url = server.url.replace("127.0.0.1", "localhost");
    assert!(url.contains("localhost"), "{url}");
    let mut command = site.lab.program(binary);
    command.current_dir(&site.flake).args(["plan", "--option", "substituters", &url]);
    let ran = finish(command, &["plan"]);
    ran.expect(0);
    assert!(server.all_requests() > 0, "{}", ran.stderr);
}
