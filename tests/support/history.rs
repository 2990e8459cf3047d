//! A repository with a past: a flake of hosts and packages that needs no nixpkgs, with one commit for each way in which
//! a change can touch them, and the table of what each commit changes against its parent.
//!
//! Two hosts embed where they come from: `rev1` the commit (`self.rev`, also in its name), `self1` the source tree
//! (`${self}`). They change with every commit; all others only where the table says so.
#![allow(dead_code, unreachable_pub, reason = "a toolbox for many tests; not every tool is in use at every moment")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::nix::{Lab, Nix};
use super::site::Site;

/// The flake, checked out at its newest commit on the branch `main`.
pub struct History {
    /// Where drover is started.
    pub site: Site,
    /// All commits, oldest first. The first has no parent, and nothing is expected of it.
    pub commits: Vec<Commit>,
}

/// One commit.
pub struct Commit {
    /// What is special about it; the names of [`STEPS`].
    pub subject: &'static str,
    /// Its full hash.
    pub rev: String,
    /// What differs from its parent, by attr.
    pub changes: BTreeMap<String, Change>,
}

/// How an attr differs from the parent commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As in the document of `drover affected`.
    pub status: &'static str,
    /// Only because it embeds the commit or the source tree.
    pub revision_only: bool,
    /// Its outputs are others; only with `changed` may they not be.
    pub outputs_differ: bool,
}

impl Change {
    fn new(status: &'static str) -> Self {
        Self { status, revision_only: false, outputs_differ: true }
    }
}

/// One commit to be made.
struct Step {
    subject: &'static str,
    edit: fn(&Repo),
    /// What it does to hosts (a bare name) and packages (`packages.x86_64-linux.NAME`).
    changes: &'static [(&'static str, &'static str)],
}

/// A changed attr whose outputs stay what they were.
const SAME_OUTPUTS: &str = "changed, same outputs";

/// The commits after the first.
const STEPS: [Step; 20] = [
    Step { subject: "docs only", edit: |repo| repo.write("README.md", "# Our hosts\n\nAsk alice.\n"), changes: &[] },
    Step {
        subject: "one host",
        edit: |repo| repo.replace("hosts/db1.nix", "\"100\"", "\"200\""),
        changes: &[("db1", "changed")],
    },
    Step {
        subject: "a module of all hosts",
        edit: |repo| repo.replace("modules/base.nix", "Authorised users only", "Authorised users only, please"),
        changes: &[
            ("web1", "changed"),
            ("web2", "changed"),
            ("web3", "changed"),
            ("db1", "changed"),
            ("mon1", "changed"),
            ("lb1", "changed"),
            ("old1", "changed"),
            ("rev1", "changed"),
            ("self1", "changed"),
        ],
    },
    Step {
        subject: "a package of three hosts",
        edit: |repo| repo.replace("pkgs/nginx.nix", "1.29.3", "1.29.4"),
        changes: &[
            ("web1", "changed"),
            ("web2", "changed"),
            ("web3", "changed"),
            ("packages.x86_64-linux.nginx", "changed"),
        ],
    },
    Step {
        subject: "lock update",
        edit: |repo| {
            repo.palette("blue");
            repo.nix(&["flake", "update", "--flake", &repo.infra().display().to_string()]);
        },
        changes: &[("mon1", "changed")],
    },
    Step {
        subject: "a file renamed",
        edit: |repo| {
            repo.git(&["mv", "hosts/web3.nix", "hosts/web-three.nix"]);
            repo.replace("hosts/default.nix", "./web3.nix", "./web-three.nix");
        },
        changes: &[],
    },
    Step {
        subject: "host added",
        edit: |repo| {
            repo.write("hosts/web4.nix", &web(4));
            repo.replace("hosts/default.nix", "{\n", "{\n  web4 = import ./web4.nix;\n");
        },
        changes: &[("web4", "added")],
    },
    Step {
        subject: "host renamed",
        edit: |repo| repo.replace("hosts/default.nix", "old1 =", "new1 ="),
        changes: &[("old1", "removed"), ("new1", "added")],
    },
    Step {
        subject: "host broken",
        edit: |repo| repo.replace("hosts/db1.nix", "\"200\"", "throw \"db1 needs max_connections\""),
        changes: &[("db1", "newly_broken")],
    },
    Step {
        subject: "docs while a host is broken",
        edit: |repo| repo.write("README.md", "# Our hosts\n\nAsk bob.\n"),
        changes: &[("db1", "still_broken")],
    },
    Step {
        subject: "host fixed",
        edit: |repo| repo.replace("hosts/db1.nix", "throw \"db1 needs max_connections\"", "\"300\""),
        changes: &[("db1", "fixed")],
    },
    Step {
        subject: "host removed",
        edit: |repo| {
            repo.git(&["rm", "-q", "hosts/web4.nix"]);
            repo.replace("hosts/default.nix", "  web4 = import ./web4.nix;\n", "");
        },
        changes: &[("web4", "removed")],
    },
    Step {
        subject: "comment only",
        edit: |repo| repo.replace("hosts/web1.nix", "{ pkgs", "# The oldest of them.\n{ pkgs"),
        changes: &[],
    },
    Step {
        subject: "url of a fixed output",
        edit: |repo| repo.replace("pkgs/geoip.nix", "one.example", "two.example"),
        changes: &[("lb1", SAME_OUTPUTS)],
    },
    Step {
        subject: "a file that one host reads",
        edit: |repo| repo.write("hosts/db1.motd", "All the data, and its backup.\n"),
        changes: &[("db1", "changed")],
    },
    Step {
        subject: "a file that one host takes as source",
        edit: |repo| repo.write("hosts/mon1/site.conf", "scrape every 30s\n"),
        changes: &[("mon1", "changed")],
    },
    Step {
        subject: "a patch",
        edit: |repo| {
            repo.write("pkgs/fix.patch", "--- a/nginx\n+++ b/nginx\n@@ -1 +1 @@\n-slow\n+fast\n");
            repo.replace("pkgs/nginx.nix", "patches = [ ]", "patches = [ ./fix.patch ]");
        },
        changes: &[
            ("web1", "changed"),
            ("web2", "changed"),
            ("web3", "changed"),
            ("packages.x86_64-linux.nginx", "changed"),
        ],
    },
    Step {
        subject: "a dependency more",
        edit: |repo| repo.replace("hosts/mon1.nix", "packages = [ ]", "packages = [ pkgs.exporter ]"),
        changes: &[("mon1", "changed")],
    },
    Step {
        subject: "another builder",
        edit: |repo| repo.replace("pkgs/exporter.nix", "echo exporter", "echo an exporter"),
        changes: &[("mon1", "changed"), ("packages.x86_64-linux.exporter", "changed")],
    },
    Step {
        subject: "two causes at once",
        edit: |repo| {
            repo.replace("hosts/web2.nix", "web 2", "web two");
            repo.replace("pkgs/nginx.nix", "1.29.4", "1.29.5");
        },
        changes: &[
            ("web1", "changed"),
            ("web2", "changed"),
            ("web3", "changed"),
            ("packages.x86_64-linux.nginx", "changed"),
        ],
    },
];

/// The files of the first commit; flake.nix and flake.lock are made.
const FILES: [(&str, &str); 17] = [
    ("README.md", "# Our hosts\n"),
    (
        "lib/build.nix",
        r#"# One derivation. There are no tools: a script is shell builtins, and an output is one file.
{ name, script ? "echo $name $deps $units > $out", ... }@args:
derivation (
  removeAttrs args [ "script" ]
  // {
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" ("set -e\n" + script) ];
  }
)
"#,
    ),
    (
        "lib/host.nix",
        r#"# Looks like what nixpkgs.lib.nixosSystem returns, as far as anybody looks.
{ build, pkgs, self, palette }:
hostName: module:
let
  base = import ../modules/base.nix;
  own = {
    label = "26.05";
    packages = [ ];
    text = "";
    units = [ ];
    variables = { };
  }
  // module { inherit build pkgs self palette; };
  etc = build ({ name = "etc"; inherit hostName; inherit (base) motd; inherit (own) text units; } // own.variables);
  path = build { name = "system-path"; deps = own.packages; };
  config = {
    networking = { inherit hostName; };
    nixpkgs.hostPlatform.system = "x86_64-linux";
    system.build.toplevel = build { name = "nixos-system-${hostName}-${own.label}"; deps = [ etc path ]; };
  };
in
{
  _type = "configuration";
  class = "nixos";
  inherit config;
  options = { };
}
"#,
    ),
    ("modules/base.nix", "{\n  motd = \"Authorised users only\";\n}\n"),
    (
        "pkgs/default.nix",
        r#"{ build }:
{
  nginx = import ./nginx.nix { inherit build; };
  geoip = import ./geoip.nix { inherit build; };
  exporter = import ./exporter.nix { inherit build; };
}
"#,
    ),
    (
        "pkgs/nginx.nix",
        r#"{ build }:
let
  version = "1.29.3";
  src = build {
    name = "nginx-${version}.tar.gz";
    url = "https://nginx.example/nginx-${version}.tar.gz";
    script = "echo nginx ${version} > $out";
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "nginx ${version}\n";
  };
in
build {
  name = "nginx-${version}";
  pname = "nginx";
  inherit version src;
  patches = [ ];
  configureFlags = [ "--with-http_ssl_module" ];
  script = "read -r line < $src; echo $line $configureFlags $patches > $out";
}
"#,
    ),
    (
        "pkgs/geoip.nix",
        r#"{ build }:
build {
  name = "geoip.dat";
  url = "https://one.example/geoip.dat";
  script = "echo geoip > $out";
  outputHashMode = "flat";
  outputHashAlgo = "sha256";
  outputHash = builtins.hashString "sha256" "geoip\n";
}
"#,
    ),
    ("pkgs/exporter.nix", "{ build }:\nbuild {\n  name = \"exporter-0.9\";\n  script = \"echo exporter > $out\";\n}\n"),
    (
        "hosts/default.nix",
        r"{
  web1 = import ./web1.nix;
  web2 = import ./web2.nix;
  web3 = import ./web3.nix;
  db1 = import ./db1.nix;
  mon1 = import ./mon1.nix;
  lb1 = import ./lb1.nix;
  old1 = import ./old1.nix;
  rev1 = import ./rev1.nix;
  self1 = import ./self1.nix;
}
",
    ),
    (
        "hosts/db1.nix",
        "{ ... }:\n{\n  text = builtins.readFile ./db1.motd;\n  variables.max_connections = \"100\";\n}\n",
    ),
    ("hosts/db1.motd", "All the data.\n"),
    (
        "hosts/mon1.nix",
        r#"{ build, palette, pkgs, ... }:
{
  packages = [ ];
  text = palette.lib.colour;
  units = [
    (build {
      name = "prometheus.service";
      src = ./mon1/site.conf;
      script = "read -r line < $src; echo $line > $out";
    })
  ];
}
"#,
    ),
    ("hosts/mon1/site.conf", "scrape every 60s\n"),
    ("hosts/lb1.nix", "{ pkgs, ... }:\n{\n  packages = [ pkgs.geoip ];\n}\n"),
    ("hosts/old1.nix", "{ ... }:\n{\n  text = \"to be replaced\";\n}\n"),
    (
        "hosts/rev1.nix",
        r#"{ self, ... }:
{
  label = self.shortRev or "dirty";
  text = "changed ${self.lastModifiedDate}";
  variables.configurationRevision = self.rev or self.dirtyRev;
}
"#,
    ),
    ("hosts/self1.nix", "{ self, ... }:\n{\n  variables.source = \"${self}\";\n}\n"),
];

/// A web server.
fn web(number: u32) -> String {
    format!("{{ pkgs, ... }}:\n{{\n  packages = [ pkgs.nginx ];\n  text = \"web {number}\";\n}}\n")
}

/// The full name of a host, or what is a full name already.
pub fn attr(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("nixosConfigurations.{name}") }
}

/// The flake's repository and the one of its input, while they are made.
struct Repo<'a> {
    lab: &'a Lab,
    /// Seconds since 1970 of the next commit.
    time: std::cell::Cell<u64>,
}

impl Repo<'_> {
    fn infra(&self) -> PathBuf {
        self.lab.work().join("infra")
    }

    fn write(&self, file: &str, content: &str) {
        self.lab.write(&format!("infra/{file}"), content);
    }

    /// Changes a file, in which `from` has to be.
    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.infra().join(file)).unwrap();
        assert!(text.contains(from), "no {from:?} in {file}:\n{text}");
        self.write(file, &text.replacen(from, to, 1));
    }

    fn git(&self, args: &[&str]) {
        git(self.lab, &self.infra(), args);
    }

    fn nix(&self, args: &[&str]) {
        self.lab.run("nix", args);
    }

    /// One commit of all that is in a directory, a minute and a day after the one before.
    fn commit(&self, dir: &Path, subject: &str) -> String {
        let time = self.time.get();
        self.time.set(time + 86_460);
        commit_at(self.lab, dir, subject, time)
    }

    /// The input, with one more commit.
    fn palette(&self, colour: &str) {
        let flake = format!("{{\n  outputs = {{ self }}: {{ lib.colour = \"{colour}\"; }};\n}}\n");
        self.lab.write("palette/flake.nix", &flake);
        self.commit(&self.lab.work().join("palette"), colour);
    }
}

/// git in a directory of a lab, as the author of everything there.
pub fn git(lab: &Lab, dir: &Path, args: &[&str]) -> String {
    git_at(lab, dir, args, 0)
}

fn git_at(lab: &Lab, dir: &Path, args: &[&str], time: u64) -> String {
    let date = format!("{time} +0000");
    let mut command = lab.program("git");
    command
        .current_dir(dir)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always", "-c", "advice.detachedHead=false", "-c", "gc.auto=0"])
        .args(args);
    if time > 0 {
        command.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Commits all that is in a directory, at this time (seconds since 1970); gives the commit.
pub fn commit_at(lab: &Lab, dir: &Path, subject: &str, time: u64) -> String {
    lab.give(dir);
    if !dir.join(".git").exists() {
        git(lab, dir, &["init", "-q"]);
    }
    git(lab, dir, &["add", "-A"]);
    git_at(lab, dir, &["commit", "-qm", subject], time);
    git(lab, dir, &["rev-parse", "HEAD"])
}

impl History {
    /// Makes all commits. Nothing is evaluated but for the lock file.
    pub fn new(lab: Lab) -> Self {
        let repo = Repo { lab: &lab, time: std::cell::Cell::new(1_767_225_600) };
        repo.palette("red");
        for (file, content) in FILES {
            repo.write(file, content);
        }
        for number in 1..=3 {
            repo.write(&format!("hosts/web{number}.nix"), &web(number));
        }
        repo.write("flake.nix", &flake(&lab));
        let infra = repo.infra();
        repo.nix(&["flake", "lock", &format!("path:{}", infra.display())]);
        let rev = repo.commit(&infra, "the beginning");
        let mut commits = vec![Commit { subject: "the beginning", rev, changes: BTreeMap::new() }];
        for step in &STEPS {
            (step.edit)(&repo);
            let rev = repo.commit(&infra, step.subject);
            commits.push(Commit { subject: step.subject, rev, changes: changes(step) });
        }
        Self { site: Site { lab, flake: infra }, commits }
    }

    /// The newest Nix, a store of its own.
    pub fn plain(nix: &Nix) -> Self {
        Self::new(Lab::plain(nix))
    }

    /// The number of the commit with this subject; its parent has the number before.
    pub fn at(&self, subject: &str) -> usize {
        let found = self.commits.iter().position(|commit| commit.subject == subject);
        found.unwrap_or_else(|| panic!("no commit is called {subject:?}"))
    }

    /// The commit with this subject, and its parent.
    pub fn pair(&self, subject: &str) -> (&Commit, &Commit) {
        let at = self.at(subject);
        (&self.commits[at], &self.commits[at - 1])
    }

    /// Puts a commit into the work tree, on no branch.
    pub fn checkout(&self, commit: &Commit) {
        git(&self.site.lab, &self.site.flake, &["checkout", "-q", "--detach", &commit.rev]);
    }

    /// Puts the commit with this subject into the work tree; gives its parent's hash, to be a base.
    pub fn checkout_at(&self, subject: &str) -> String {
        let (commit, parent) = self.pair(subject);
        self.checkout(commit);
        parent.rev.clone()
    }
}

fn flake(lab: &Lab) -> String {
    let palette = lab.work().join("palette");
    format!(
        r#"{{
  description = "Some hosts, without nixpkgs";

  inputs.palette.url = "git+file://{}";

  outputs =
    {{ self, palette }}:
    let
      build = import ./lib/build.nix;
      pkgs = import ./pkgs {{ inherit build; }};
      host = import ./lib/host.nix {{ inherit build pkgs self palette; }};
    in
    {{
      nixosConfigurations = builtins.mapAttrs host (import ./hosts);
      packages.x86_64-linux = {{ inherit (pkgs) nginx exporter; }};
    }};
}}
"#,
        palette.display()
    )
}

/// The table of one commit: what its step says, and the two hosts that change always.
fn changes(step: &Step) -> BTreeMap<String, Change> {
    let of_revision = Change { revision_only: true, ..Change::new("changed") };
    let mut changes: BTreeMap<String, Change> =
        ["rev1", "self1"].into_iter().map(|host| (attr(host), of_revision.clone())).collect();
    for (name, status) in step.changes {
        let change = match *status {
            SAME_OUTPUTS => Change { outputs_differ: false, ..Change::new("changed") },
            status => Change::new(status),
        };
        changes.insert(attr(name), change);
    }
    changes
}
