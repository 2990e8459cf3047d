//! The workflow for GitHub, and for Forgejo, which is familiar and not the same: it passes over `permissions` and
//! `concurrency`, takes actions of other places by their whole URL, and artifacts only from the older actions.

use crate::config::Forge;

use super::Written;
use super::workflow::{Binary, Workflow, filled, indented, machine};

// Actions by commit, since tags can be moved.
const CHECKOUT: &str = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2";
const CACHE: &str = "actions/cache@5a3ec84eff668545956fd18022155c47e93e2684 # v4.2.3";
const RESTORE: &str = "actions/cache/restore@5a3ec84eff668545956fd18022155c47e93e2684 # v4.2.3";
const UPLOAD: [&str; 2] = [
    "actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02 # v4.6.2",
    "actions/upload-artifact@a8a3f3ad30e3422c9c7b888a15615d19a852ae32 # v3.1.3",
];
const DOWNLOAD: [&str; 2] = [
    "actions/download-artifact@d3f86a106a0bac45b974a628896c90dbdf5c8093 # v4.3.0",
    "actions/download-artifact@9bc31d5ccc31df68ecc42ccf4149144866c47d8a # v3.0.2",
];
const NIX: &str = "cachix/install-nix-action@4e002c8ec80594ecd40e759629461e26c8abed15 # v31.9.0";

/// What Forgejo does not know.
const GITHUB: &str = "
permissions:
  contents: read

concurrency:
  group: drover-${{ github.ref }}
  cancel-in-progress: ${{ github.event_name == 'pull_request' }}
";

/// Where the file of drover lies in a job.
const DIR: &str = "$RUNNER_TEMP/drover";

/// The workflow's file.
pub(super) fn files(workflow: &Workflow, forge: Forge) -> Vec<Written> {
    let on_github = forge == Forge::Github;
    let pick = |both: [&'static str; 2]| both[usize::from(!on_github)];
    let template = if workflow.matrix { include_str!("actions-matrix.yml") } else { include_str!("actions.yml") };
    let runner = match (on_github, machine()) {
        (true, "aarch64") => "ubuntu-24.04-arm",
        (true, _) => "ubuntu-latest",
        (false, _) => "docker",
    };
    let matrix = if workflow.matrix { " --matrix" } else { "" };
    let nix = if on_github { NIX.to_owned() } else { format!("https://github.com/{NIX}") };
    let values = [
        ("TYPED", &*format!("drover init --ci {}{matrix}", forge.name())),
        ("BRANCH", &workflow.branch),
        ("GITHUB", if on_github { GITHUB } else { "" }),
        ("VARIABLES", &workflow.binary.variables(2)),
        ("RUNNER", runner),
        ("FORGE", forge.name()),
        ("CHECKOUT", &checkout()),
        ("NIX", &indented(["- name: Install Nix".to_owned(), format!("  uses: {nix}")], 6)),
        ("GET", &get(&workflow.binary)),
        ("DROVER", workflow.binary.command()),
        ("SECRETS", &secrets(workflow)),
        ("CACHE", CACHE),
        ("RESTORE", RESTORE),
        ("UPLOAD", pick(UPLOAD)),
        ("DOWNLOAD", pick(DOWNLOAD)),
    ];
    let dir = if on_github { ".github" } else { ".forgejo" };
    vec![Written { path: format!("{dir}/workflows/drover.yml").into(), text: filled(template, &values) }]
}

fn checkout() -> String {
    let lines = [&format!("- uses: {CHECKOUT}"), "  with:", "    # The merge base is in it.", "    fetch-depth: 0"];
    indented(lines, 6)
}

/// The step after which `drover` can be typed.
fn get(binary: &Binary) -> String {
    let mut commands = binary.get(DIR);
    if commands.is_empty() {
        return String::new();
    }
    commands.push(format!("echo \"{DIR}\" >> \"$GITHUB_PATH\""));
    format!("      - name: Get drover\n        run: |\n{}", indented(commands, 10))
}

/// The secrets of a step, or where they belong.
fn secrets(workflow: &Workflow) -> String {
    let line = |name: &&str| format!("  {name}: ${{{{ secrets.{name} }}}}");
    if !workflow.secrets.is_empty() {
        let lines = workflow.secrets.iter().map(line);
        return indented(std::iter::once("env:".to_owned()).chain(lines), 8);
    }
    let first = match workflow.pushes {
        true => "# The caches of drover.toml take their logins from files: a step before this one has to write them.",
        false => "# Nothing is pushed yet: drover.toml says where to (push = true), and the login belongs here:",
    };
    let example = (!workflow.pushes).then(|| ["# env:".to_owned(), format!("# {}", line(&"CACHIX_AUTH_TOKEN"))]);
    indented(std::iter::once(first.to_owned()).chain(example.into_iter().flatten()), 8)
}
