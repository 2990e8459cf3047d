//! The pipeline for GitLab. With a matrix the rows are a child pipeline, which takes the job that all have in common
//! from a file of its own.

use super::Written;
use super::workflow::{Binary, Workflow, filled, indented};

/// Where the file of drover lies in a job.
const DIR: &str = "$CI_PROJECT_DIR/drover-state/bin";

/// The pipeline's files.
pub(super) fn files(workflow: &Workflow) -> Vec<Written> {
    let matrix = if workflow.matrix { " --matrix" } else { "" };
    let job = filled(
        include_str!("gitlab-job.yml"),
        &[
            ("VARIABLES", &workflow.binary.variables(4)),
            ("SECRETS", &secrets(workflow)),
            ("GET", &get(&workflow.binary)),
        ],
    );
    let typed = format!("drover init --ci gitlab{matrix}");
    let values = [("TYPED", &*typed), ("DROVER", workflow.binary.command()), ("JOB", job.trim_end())];
    let template = if workflow.matrix { include_str!("gitlab-matrix.yml") } else { include_str!("gitlab.yml") };
    let mut files = vec![Written { path: ".gitlab-ci.yml".into(), text: filled(template, &values) }];
    if workflow.matrix {
        let text = format!("# What all jobs of drover have in common. Written by `{typed}`; yours to change.\n{job}");
        files.push(Written { path: ".gitlab/drover.yml".into(), text });
    }
    files
}

fn get(binary: &Binary) -> String {
    let mut commands: Vec<String> = binary.get(DIR).into_iter().map(|command| format!("- {command}")).collect();
    match commands.is_empty() {
        true => commands.push("- nix --version".to_owned()),
        false => commands.push(format!("- export PATH=\"{DIR}:$PATH\"")),
    }
    indented(commands, 4)
}

/// Variables of the project are in each job by themselves.
fn secrets(workflow: &Workflow) -> String {
    let first = match (workflow.secrets.is_empty(), workflow.pushes) {
        (false, _) => {
            let names = workflow.secrets.join(", ");
            format!("# Masked and protected variables of the project (Settings, CI/CD): {names}")
        }
        (true, true) => {
            "# The caches of drover.toml take their logins from files: variables of the project of the type File."
                .to_owned()
        }
        (true, false) => {
            "# Nothing is pushed yet: drover.toml says where to (push = true); logins are variables of the project."
                .to_owned()
        }
    };
    indented([first], 4)
}
