//! GitLab's pipelines.

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{Forge, Machine, copy, fields, text, yaml};

/// Words at the top of a file that are no jobs.
const NO_JOBS: [&str; 3] = ["include", "stages", "variables"];

/// Runs the pipeline of the repository; gives the name of each job that ran and whether it ended well.
pub fn run(forge: &mut Forge<'_>) -> Vec<(String, bool)> {
    let mut all = Map::new();
    merge(&mut all, yaml(&forge.repository.join(".gitlab-ci.yml")));
    if let Some(includes) = all.get("include").cloned() {
        for include in includes.as_array().unwrap() {
            merge(&mut all, yaml(&forge.repository.join(text(&include["local"]))));
        }
    }
    fs::remove_dir_all(forge.kept.join("artifacts")).unwrap_or_default();
    pipeline(forge, &all, "812")
}

fn merge(into: &mut Map<String, Value>, other: Value) {
    into.extend(other.as_object().unwrap().clone());
}

fn pipeline(forge: &mut Forge<'_>, all: &Map<String, Value>, id: &str) -> Vec<(String, bool)> {
    let mut done = Vec::new();
    let stages: Vec<String> = match all.get("stages") {
        Some(stages) => stages.as_array().unwrap().iter().map(text).collect(),
        None => ["build", "test", "deploy"].map(str::to_owned).to_vec(),
    };
    for stage in &stages {
        let jobs = all.iter().filter(|(name, _)| !name.starts_with('.') && !NO_JOBS.contains(&name.as_str()));
        let jobs: Vec<(String, Value)> = jobs.map(|(name, job)| (name.clone(), whole(all, job))).collect();
        for (name, job) in jobs.into_iter().filter(|(_, job)| text(&job["stage"]) == *stage) {
            if !done.iter().all(|(_, ok)| *ok) {
                return done;
            }
            match &job["trigger"] {
                Value::Null => {
                    let ok = one(forge, &name, &job, id);
                    done.push((name, ok));
                }
                trigger => {
                    assert_eq!(trigger["strategy"], "depend");
                    let child = child(forge, trigger);
                    done.extend(pipeline(forge, &child, "813"));
                }
            }
        }
    }
    done
}

/// The pipeline that a trigger names.
fn child(forge: &Forge<'_>, trigger: &Value) -> Map<String, Value> {
    let mut all = Map::new();
    for include in trigger["include"].as_array().unwrap() {
        let file = match include["artifact"].as_str() {
            Some(file) => forge.kept.join("artifacts").join(text(&include["job"])).join(file),
            None => forge.repository.join(text(&include["local"])),
        };
        merge(&mut all, yaml(&file));
    }
    all
}

/// A job with what it extends.
fn whole(all: &Map<String, Value>, job: &Value) -> Value {
    let Some(name) = job["extends"].as_str() else { return job.clone() };
    let mut merged = all[name].clone();
    for (key, value) in fields(job) {
        match (merged.get(key).cloned(), value) {
            (Some(Value::Object(mut below)), Value::Object(above)) => {
                below.extend(above.clone());
                merged[key] = Value::Object(below);
            }
            _ => merged[key] = value.clone(),
        }
    }
    merged
}

/// Runs one job on a machine of its own.
fn one(forge: &mut Forge<'_>, name: &str, job: &Value, pipeline: &str) -> bool {
    let machine = Machine::new(forge.nix, &forge.repository);
    let artifacts = forge.kept.join("artifacts");
    // By default those of all jobs before; a child names the job of its parent.
    let from: Vec<PathBuf> = match job["needs"].as_array() {
        Some(needs) => needs.iter().map(|need| artifacts.join(text(&need["job"]))).collect(),
        None => Vec::new(),
    };
    for folder in from {
        copy(&folder, &machine.workspace);
    }
    let cache = forge.kept.join("caches").join(text(&job["cache"]["key"]));
    let paths =
        |list: &Value| list.as_array().map(|list| list.iter().map(text).collect::<Vec<_>>()).unwrap_or_default();
    for path in paths(&job["cache"]["paths"]) {
        copy(&cache.join(&path), &machine.workspace.join(&path));
    }
    let dir = machine.workspace.display().to_string();
    let mut vars: Vec<(String, String)> = fields(&job["variables"])
        .map(|(name, value)| (name.clone(), text(value).replace("$CI_PROJECT_DIR", &dir)))
        .collect();
    vars.extend(forge.vars.iter().cloned());
    for (name, value) in [
        ("GITLAB_CI", "true"),
        ("CI_PROJECT_DIR", &*dir),
        ("CI_PROJECT_PATH", "acme/infra"),
        ("CI_COMMIT_BRANCH", "main"),
        ("CI_DEFAULT_BRANCH", "main"),
        ("CI_PIPELINE_ID", pipeline),
        ("CI_JOB_NAME", name),
    ] {
        vars.push((name.to_owned(), value.to_owned()));
    }
    let script: Vec<String> = [paths(&job["before_script"]), paths(&job["script"])].concat();
    let (ok, said) = machine.run(&script.join("\n"), &vars);
    forge.log.push_str(&format!("$ {}\n{said}", script.join("\n$ ")));
    for path in paths(&job["cache"]["paths"]) {
        copy(&machine.workspace.join(&path), &cache.join(&path));
    }
    let mut kept = paths(&job["artifacts"]["paths"]);
    kept.extend(job["artifacts"]["reports"]["junit"].as_str().map(str::to_owned));
    for path in kept {
        copy(&machine.workspace.join(&path), &artifacts.join(name).join(&path));
    }
    ok
}

/// Of a job: a file that it left.
pub fn artifact(forge: &Forge<'_>, job: &str, file: &str) -> PathBuf {
    forge.kept.join("artifacts").join(job).join(file)
}
