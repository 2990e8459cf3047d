//! `--ignore-revision` where the derivations do not say it: what is computed from the revision is told by evaluating both
//! sides with the same one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::history::{History, attr, commit_at, git};
use crate::support::nix::each_nix;
use crate::support::site::statuses;

/// Hosts that compute something from where they come from: all but the last three can be told.
const HOSTS: [(&str, &str); 7] = [
    ("part1", "{ self, ... }: { text = builtins.substring 0 4 self.rev; }"),
    (
        "hash1",
        r#"{ self, ... }:
let
  hash = builtins.hashString "sha256" self.rev;
  info = self.sourceInfo;
in
{
  label = builtins.substring 0 3 hash;
  text = builtins.hashString "sha256" "${self.lastModifiedDate} ${toString info.revCount} ${info.narHash}";
  variables.day = builtins.substring 4 4 self.lastModifiedDate;
  variables.minutes = toString (self.lastModified / 60);
}
"#,
    ),
    // The source tree is still another one, and masked in what came out.
    (
        "tree1",
        r#"{ self, ... }: { text = "${self} ${builtins.substring 0 4 self.rev}"; variables.lib = "${self}/lib"; }"#,
    ),
    // Only through the flake's own outputs.
    ("other1", "{ self, ... }: { text = self.nixosConfigurations.part1.config.system.build.toplevel.drvPath; }"),
    // What it imports may be of the masked revision, and is not built.
    (
        "import1",
        r#"{ self, build, ... }:
{
  text = builtins.readFile (build { name = "generated"; script = "echo generated > $out"; }) + builtins.substring 0 4 self.rev;
}
"#,
    ),
    ("both1", "{ self, ... }: { text = builtins.readFile ./db1.motd + builtins.substring 0 4 self.rev; }"),
    (
        "throw1",
        r#"{ self, ... }:
let
  part = builtins.substring 0 7 self.rev;
in
{
  text = if part == "0000000" then throw "no such commit" else builtins.substring 0 4 part;
}
"#,
    ),
];

/// A flake below the root of the repository.
const BELOW: &str = r#"{
  outputs = { self }: {
    packages.x86_64-linux = builtins.mapAttrs (name: more: derivation (more // {
      inherit name;
      system = "x86_64-linux";
      builder = "/bin/sh";
      part = builtins.substring 0 4 self.rev;
    })) {
      only = { own = "${self}"; tree = "${self.sourceInfo}"; };
      more = { text = builtins.readFile ./text; };
    };
  };
}
"#;

/// Two more commits: one with these hosts, one that changes what `db1` and `both1` read; gives the first.
fn commits(history: &History) -> String {
    let (lab, flake) = (&history.site.lab, &history.site.flake);
    git(lab, flake, &["checkout", "-q", "--detach", &history.commits.last().unwrap().rev]);
    let mut names = std::fs::read_to_string(flake.join("hosts/default.nix")).unwrap();
    for (name, text) in HOSTS {
        lab.write(&format!("infra/hosts/{name}.nix"), text);
        names = names.replacen("{\n", &format!("{{\n  {name} = import ./{name}.nix;\n"), 1);
    }
    lab.write("infra/hosts/default.nix", &names);
    lab.write("infra/below/flake.nix", BELOW);
    lab.write("infra/below/text", "one\n");
    let base = commit_at(lab, flake, "hosts that know where they come from", 1_777_000_000);
    lab.write("infra/hosts/db1.motd", "Other data.\n");
    lab.write("infra/below/text", "two\n");
    commit_at(lab, flake, "a file that two hosts read", 1_777_100_000);
    base
}

/// The attrs of which a document says this.
fn attrs(document: &Value, is: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let attrs = document["attrs"].as_array().unwrap().iter().filter(|attr| is(attr));
    attrs.map(|attr| attr["attr"].as_str().unwrap().to_owned()).collect()
}

fn changed(document: &Value) -> BTreeSet<String> {
    attrs(document, |attr| attr["status"] == "changed")
}

fn revision_only(document: &Value) -> BTreeSet<String> {
    attrs(document, |attr| attr["revision_only"] == true)
}

fn hosts(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| attr(name)).collect()
}

#[test]
fn what_is_computed_from_the_revision_does_not_count() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let base = commits(&history);
        let site = &history.site;
        let plain = ["affected", "--base", &base, "--json"];
        let all = hosts(&["part1", "hash1", "tree1", "other1", "both1", "import1", "throw1", "db1", "rev1", "self1"]);
        let before = site.exits(0, &plain).json();
        assert_eq!(changed(&before), all);
        assert_eq!(revision_only(&before), hosts(&["rev1", "self1"]));

        // Both sides are recorded by now, and nothing is located but by the record.
        let asked = ["affected", "--base", &base, "--ignore-revision", "--json"];
        let ran = site.exits(0, &asked);
        let document = ran.json();
        assert_eq!(document["base"]["from_record"], true);
        assert_eq!(changed(&document), hosts(&["both1", "import1", "throw1", "db1"]), "{}", ran.stderr);
        let computed = hosts(&["part1", "hash1", "tree1", "other1", "rev1", "self1"]);
        assert_eq!(revision_only(&document), computed);

        // What came out of it is remembered nowhere.
        let after = site.exits(0, &plain).json();
        assert_eq!(after["base"]["from_record"], true);
        assert_eq!(after["attrs"], before["attrs"]);
        // Nothing is known before.
        let fresh = ["affected", "--base", &base, "--ignore-revision", "--refresh", "--json"];
        let document = site.exits(0, &fresh).json();
        assert_eq!((document["base"]["from_record"].as_bool(), revision_only(&document)), (Some(false), computed));

        // What is built is what the real revision gives.
        let run = ["run", "--base", &base, "--ignore-revision"];
        let document = site.exits(0, &[&run[..], &["--json"]].concat()).json();
        let built = statuses(&document).into_iter().filter(|(_, status)| status == "built");
        assert_eq!(built.map(|(name, _)| name).collect::<BTreeSet<_>>(), hosts(&["both1", "import1", "throw1", "db1"]));
        let one = document["attrs"].as_array().unwrap().iter().find(|one| one["attr"] == *attr("both1")).unwrap();
        let toplevel = format!(
            "git+file://{}#nixosConfigurations.both1.config.system.build.toplevel.drvPath",
            site.flake.display()
        );
        assert_eq!(one["drv"], *site.lab.run("nix", &["eval", "--raw", &toplevel]));
        // Those that the derivations tell are not asked again, and none where nobody wants to know.
        let line = "attrs once more on both sides, with the revision masked";
        let ran = site.exits(0, &run);
        assert_eq!(ran.stderr.matches(&format!("8 {line}")).count(), 1, "{}", ran.stderr);
        let ran = site.exits(0, &run[..3]);
        assert!(!ran.stderr.contains(line), "{}", ran.stderr);
    });
}

#[test]
fn a_flake_below_its_repository_is_masked_as_well() {
    each_nix(|nix| {
        let history = History::plain(nix);
        let base = commits(&history);
        let below = |more: &[&str]| {
            let args = [&["affected", "./below", "--base", &base, "--json"], more].concat();
            history.site.exits(0, &args).json()
        };
        let name = |name: &str| BTreeSet::from([format!("packages.x86_64-linux.{name}")]);
        let both = name("only").union(&name("more")).cloned().collect();
        assert_eq!((changed(&below(&[])), revision_only(&below(&[]))), (both, BTreeSet::new()));
        let document = below(&["--ignore-revision"]);
        assert_eq!((changed(&document), revision_only(&document)), (name("more"), name("only")));
    });
}
