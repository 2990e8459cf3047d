//! GitHub Actions, and Forgejo's, which are like them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Forge, Machine, copy, fields, text};

/// How a job ended.
struct Ended {
    result: &'static str,
    outputs: Value,
}

/// Runs a workflow for a push to the default branch; gives the result of each job.
pub fn run(forge: &mut Forge<'_>, workflow: &Value, is_forgejo: bool, run_id: u32) -> BTreeMap<String, String> {
    let mut ended: BTreeMap<String, Ended> = BTreeMap::new();
    let mut open: Vec<(&String, &Value)> = fields(&workflow["jobs"]).collect();
    fs::remove_dir_all(forge.kept.join("artifacts")).unwrap_or_default();
    while !open.is_empty() {
        let is_ready = |job: &Value| needs(job).iter().all(|name| ended.contains_key(name));
        let at = open.iter().position(|(_, job)| is_ready(job)).expect("jobs that wait for each other");
        let (name, job) = open.remove(at);
        let needed: serde_json::Map<String, Value> = needs(job)
            .into_iter()
            .map(|name| (name.clone(), json!({ "result": ended[&name].result, "outputs": ended[&name].outputs })))
            .collect();
        let well = needed.values().all(|job| job["result"] == "success");
        let context = json!({
            "needs": needed,
            "secrets": forge.vars.iter().cloned().collect::<BTreeMap<_, _>>(),
            "github": { "run_id": run_id, "run_attempt": 1, "ref": "refs/heads/main", "event_name": "push" },
        });
        let wanted = match job["if"].as_str() {
            None => well,
            Some("always()") => true,
            Some(condition) => well && is_true(&value(condition, &context)),
        };
        let end = match wanted {
            false => Ended { result: "skipped", outputs: json!({}) },
            true => rows(forge, (workflow, job), &context, is_forgejo),
        };
        ended.insert(name.clone(), end);
    }
    ended.into_iter().map(|(name, end)| (name, end.result.to_owned())).collect()
}

fn needs(job: &Value) -> Vec<String> {
    match &job["needs"] {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().map(text).collect(),
        _ => Vec::new(),
    }
}

/// Runs a job, or all rows of its matrix.
fn rows(forge: &mut Forge<'_>, (workflow, job): (&Value, &Value), context: &Value, is_forgejo: bool) -> Ended {
    let matrix = match &job["strategy"]["matrix"] {
        Value::Null => vec![Value::Null],
        Value::String(expression) => value(inner(expression), context)["include"].as_array().unwrap().clone(),
        other => panic!("a matrix that is written out: {other}"),
    };
    assert!(!matrix.is_empty(), "GitHub refuses a matrix without rows");
    let mut ended = Ended { result: "success", outputs: json!({}) };
    for row in matrix {
        let mut context = context.clone();
        context["matrix"] = row;
        let (ok, outputs) = one(forge, (workflow, job), context, is_forgejo);
        ended.outputs = outputs;
        if !ok {
            ended.result = "failure";
        }
    }
    ended
}

/// Runs one job on a machine of its own.
fn one(
    forge: &mut Forge<'_>,
    (workflow, job): (&Value, &Value),
    mut context: Value,
    is_forgejo: bool,
) -> (bool, Value) {
    let machine = Machine::new(forge.nix, &forge.repository);
    let temp = machine.lab.path("tmp");
    let mut path = Vec::new();
    let (mut ok, mut save) = (true, Vec::new());
    for (n, step) in job["steps"].as_array().unwrap().iter().enumerate() {
        if !(ok || step["if"] == "always()") {
            continue;
        }
        if let Some(action) = step["uses"].as_str() {
            act(forge, &machine, (action, &step["with"]), &context, &mut save);
            continue;
        }
        let file = |name: &str| {
            let path = temp.join(format!("{name}-{n}"));
            fs::write(&path, "").unwrap();
            path
        };
        let files =
            [("GITHUB_OUTPUT", file("output")), ("GITHUB_PATH", file("path")), ("GITHUB_STEP_SUMMARY", file("page"))];
        let mut vars: Vec<(String, String)> = Vec::new();
        for env in [&workflow["env"], &job["env"], &step["env"]] {
            vars.extend(fields(env).map(|(name, value)| (name.clone(), filled(&text(value), &context))));
        }
        vars.extend(forge.vars.iter().filter(|(name, _)| name == "DROVER_URL").cloned());
        vars.extend(files.iter().map(|(name, path)| ((*name).to_owned(), path.display().to_string())));
        let mut set = |name: &str, value: &str| vars.push((name.to_owned(), value.to_owned()));
        set("GITHUB_ACTIONS", "true");
        set("GITHUB_REPOSITORY", "acme/infra");
        set("GITHUB_REF", "refs/heads/main");
        set("GITHUB_EVENT_NAME", "push");
        set("RUNNER_TEMP", &temp.display().to_string());
        if is_forgejo {
            set("FORGEJO_ACTIONS", "true");
        }
        let script = filled(&text(&step["run"]), &context);
        let script = format!("export PATH=\"{}$PATH\"\n{script}", path.concat());
        let (well, said) = machine.run(&script, &vars);
        forge.log.push_str(&format!("$ {}\n{said}", text(&step["run"])));
        ok &= well;
        path.extend(fs::read_to_string(&files[1].1).unwrap().lines().map(|dir| format!("{dir}:")));
        if let Some(id) = step["id"].as_str() {
            let lines = fs::read_to_string(&files[0].1).unwrap();
            let outputs: serde_json::Map<String, Value> =
                lines.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.into())).collect();
            context["steps"][id] = json!({ "outputs": outputs });
        }
    }
    if ok {
        for (from, to) in save {
            copy(&from, &to);
        }
    }
    let outputs: serde_json::Map<String, Value> = fields(&job["outputs"])
        .map(|(name, text)| (name.clone(), filled(text.as_str().unwrap(), &context).into()))
        .collect();
    (ok, Value::Object(outputs))
}

/// What an action does to files.
fn act(
    forge: &Forge<'_>,
    machine: &Machine,
    (action, with): (&str, &Value),
    context: &Value,
    save: &mut Vec<(std::path::PathBuf, std::path::PathBuf)>,
) {
    let (name, version) = action.split_once('@').unwrap();
    assert!(version.len() == 40 && version.bytes().all(|byte| byte.is_ascii_hexdigit()), "{action} can be moved");
    let with = |key: &str| filled(&text(&with[key]), context);
    let inside = |path: &str| machine.workspace.join(path);
    let artifacts = forge.kept.join("artifacts");
    match name.trim_start_matches("https://github.com/") {
        "actions/checkout" => assert_eq!(with("fetch-depth"), "0"),
        "cachix/install-nix-action" => {}
        "actions/cache" | "actions/cache/restore" => {
            let caches = forge.kept.join("caches");
            fs::create_dir_all(&caches).unwrap();
            let mut known: Vec<String> =
                fs::read_dir(&caches).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            known.sort();
            assert!(!known.contains(&with("key")), "a key is saved once");
            if let Some(last) = known.iter().rfind(|key| key.starts_with(&with("restore-keys"))) {
                copy(&caches.join(last), &inside(&with("path")));
            }
            if name.ends_with("/cache") {
                save.push((inside(&with("path")), caches.join(with("key"))));
            }
        }
        "actions/upload-artifact" => {
            let to = artifacts.join(with("name"));
            assert!(!to.exists(), "an artifact of the name {} is there", with("name"));
            let paths = with("path");
            let paths: Vec<&str> = paths.lines().collect();
            for path in &paths {
                // Of several paths, each keeps its place below the folder that they have in common.
                let place = if paths.len() == 1 { to.clone() } else { to.join(path) };
                copy(&inside(path), &place);
            }
        }
        "actions/download-artifact" => {
            let from = artifacts.join(with("name"));
            assert!(with("name").is_empty() || from.exists(), "no artifact {}", with("name"));
            copy(&from, &inside(&with("path")));
        }
        other => panic!("nobody knows the action {other}"),
    }
}

/// The text with each expression replaced by its value.
fn filled(template: &str, context: &Value) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${{") {
        let (expression, after) = after.split_once("}}").unwrap();
        out.push_str(before);
        out.push_str(&text(&value(expression, context)));
        rest = after;
    }
    out + rest
}

fn inner(expression: &str) -> &str {
    expression.trim().strip_prefix("${{").and_then(|text| text.strip_suffix("}}")).unwrap_or(expression)
}

/// The value of an expression: a path, a comparison with a text, or `fromJSON`.
fn value(expression: &str, context: &Value) -> Value {
    let expression = expression.trim();
    if let Some((left, right)) = expression.split_once("==") {
        return (text(&value(left, context)) == right.trim().trim_matches('\'')).into();
    }
    if let Some(argument) = expression.strip_prefix("fromJSON(").and_then(|text| text.strip_suffix(')')) {
        return serde_json::from_str(&text(&value(argument, context))).unwrap();
    }
    assert!(expression.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "nobody reads {expression}");
    expression.split('.').fold(context.clone(), |value, key| value.get(key).cloned().unwrap_or(Value::Null))
}

fn is_true(value: &Value) -> bool {
    value == &Value::Bool(true)
}

/// Whether a folder of a run is kept under this name.
pub fn is_kept(forge: &Forge<'_>, name: &str) -> bool {
    Path::new(&forge.kept).join("artifacts").join(name).exists()
}
