//! A CI matrix: what has to be packed into rows, the documents that each forge takes, and what is said about them.
//! How rows come about is not decided here.
//!
//! The documents: design §2; GitHub's `strategy.matrix` (`{"include": […]}`, at most 256 rows, outputs of at most 1 MiB
//! as UTF-16, and an empty one is an error, which `has_work` is there to avoid), Forgejo's and Gitea's the same; GitLab's
//! child pipeline, as JSON, which every YAML reader takes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use crate::event::{Evaluated, Status};
use crate::id::{AttrId, DrvId, System};

use super::number::{about, count, plural};
use super::summary::{Attr, Summary};
use super::text::{Line, Paint, listed};

/// Version of the document.
pub const VERSION: u32 = 1;

/// Most rows of a matrix on GitHub.
pub const MOST_ROWS: usize = 256;

/// Most bytes of the outputs of a job on GitHub, as UTF-16.
pub const MOST_BYTES: usize = 1 << 20;

/// Longest name of a row, in characters.
const NAME: usize = 40;

/// The document of `--format json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// Whether there is any row.
    pub has_work: bool,
    /// The rows, the longest first.
    pub include: Vec<Row>,
    /// What is built in more than one row.
    pub shared: Vec<Shared>,
    /// How many of the drvs were never built before, so that what they take was assumed.
    pub without_history: usize,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Short, and no other row's: letters, digits, `.`, `_`, `+` and `-`.
    pub name: String,
    /// Full paths of the attrs, for `drover run --plan FILE ATTR…`.
    pub attrs: Vec<String>,
    /// The same, quoted for a shell.
    pub args: String,
    /// How many drvs it builds.
    pub drvs: usize,
    /// The machine that it needs.
    pub system: String,
    /// What the machine must offer.
    pub features: Vec<String>,
    /// What its drvs are expected to take, one after the other.
    pub seconds: f64,
    /// The label of the runner, where one was given for the system.
    #[serde(rename = "runs-on", skip_serializing_if = "Option::is_none")]
    pub runs_on: Option<String>,
}

/// A drv that is built in more than one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shared {
    /// Its .drv.
    pub drv: String,
    /// `nginx-1.29.4`.
    pub name: String,
    /// The names of the rows.
    pub rows: Vec<String>,
}

/// What has to be built for the attrs of a run that is planned.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Needs {
    /// All drvs that must be built.
    pub drvs: Vec<DrvId>,
    /// The attrs that something must be built for, the machine of each, and places in `drvs`.
    pub attrs: Vec<(AttrId, System, BTreeSet<usize>)>,
}

impl Needs {
    /// Of a planned run.
    #[must_use]
    pub fn of(summary: &Summary) -> Self {
        // What attrs import from is built by now.
        let left = summary.drvs.iter().filter(|(_, drv)| !drv.fetch && drv.ended.is_none());
        let drvs: Vec<DrvId> = left.map(|(id, _)| *id).collect();
        let places: BTreeMap<DrvId, usize> = drvs.iter().enumerate().map(|(at, drv)| (*drv, at)).collect();
        let own = home(summary);
        let mut attrs = Vec::new();
        for (id, attr) in &summary.attrs {
            if summary.status(attr) == Some(Status::ToBuild) {
                let root = attr.planned.as_ref().and_then(|planned| planned.drv);
                let below = root.map(|root| below(summary, root)).unwrap_or_default();
                let needed = below.iter().filter_map(|drv| places.get(drv).copied()).collect();
                let system = system(attr).filter(|system| system.0 != "builtin").unwrap_or_else(|| own.clone());
                attrs.push((*id, system, needed));
            }
        }
        Self { drvs, attrs }
    }
}

/// This drv and all that is needed for it, built or fetched.
fn below(summary: &Summary, root: DrvId) -> BTreeSet<DrvId> {
    let mut seen = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(drv) = open.pop().and_then(|id| summary.drvs.get(&id)) {
        open.extend(drv.inputs.iter().copied().filter(|input| seen.insert(*input)));
    }
    seen
}

fn system(attr: &Attr) -> Option<System> {
    match &attr.evaluated {
        Some((_, Evaluated::Drv { system, .. })) => Some(system.clone()),
        _ => None,
    }
}

/// The machine for what any machine can build: the one that there is work for anyway, else this one.
fn home(summary: &Summary) -> System {
    let works = summary.attrs.values().filter(|attr| summary.status(attr) == Some(Status::ToBuild));
    let asked = works.filter_map(system).find(|system| system.0 != "builtin");
    let here = || summary.builders.values().find_map(|builder| builder.systems.first().cloned());
    asked.or_else(here).unwrap_or_else(|| System("builtin".to_owned()))
}

/// Names for rows: of the first attr, and how many more there are.
#[must_use]
pub fn names(rows: &[Vec<&str>]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let mut name = |attrs: &Vec<&str>| {
        let more = match attrs.len() {
            0 | 1 => String::new(),
            n => format!("+{}", n - 1),
        };
        let first: String = attrs.first().unwrap_or(&"").chars().map(plain).take(NAME - more.len()).collect();
        let first = if first.starts_with(|c: char| c.is_ascii_alphanumeric()) { first } else { format!("row{first}") };
        let wanted = format!("{first}{more}");
        let others = (2..).map(|n| format!("{wanted}-{n}"));
        let found = std::iter::once(wanted.clone()).chain(others).find(|name| !taken.contains(name));
        let found = found.unwrap_or(wanted);
        taken.insert(found.clone());
        found
    };
    rows.iter().map(&mut name).collect()
}

/// Words for a shell: each in single quotes, unless nothing in it could mean anything.
#[must_use]
pub fn quoted(words: &[String]) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-+/=:@%".contains(c);
    let quote = |word: &String| match !word.is_empty() && word.chars().all(safe) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// `{"include": […]}`, for `strategy.matrix` of GitHub, Forgejo and Gitea.
#[must_use]
pub fn github(document: &Document) -> Value {
    json!({ "include": document.include })
}

/// What a child pipeline of GitLab has to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pipeline {
    /// The plan's file; without one each job evaluates.
    pub plan: Option<String>,
    /// `CI_PIPELINE_ID` and `CI_JOB_NAME` of the job that makes the plan: its artifacts are taken from there.
    pub parent: Option<(String, String)>,
    /// The job that each of them extends; without one they need nothing of the repository.
    pub extends: Option<String>,
}

/// A child pipeline: one job a row. Without any row there is a job that says so: GitLab refuses a pipeline without jobs.
#[must_use]
pub fn gitlab(document: &Document, pipeline: &Pipeline) -> Value {
    let mut jobs = serde_json::Map::new();
    jobs.insert("stages".to_owned(), json!(["build"]));
    for row in &document.include {
        let run = match &pipeline.plan {
            Some(plan) => format!("drover run --plan {} {}", quoted(std::slice::from_ref(plan)), row.args),
            None => format!("drover run {}", row.args),
        };
        let mut job = json!({ "stage": "build", "script": [run] });
        match &pipeline.extends {
            Some(name) => job["extends"] = json!(name),
            None if pipeline.plan.is_some() => job["variables"] = json!({ "GIT_STRATEGY": "none" }),
            None => {}
        }
        if let (Some(_), Some((id, name))) = (&pipeline.plan, &pipeline.parent) {
            job["needs"] = json!([{ "pipeline": id, "job": name }]);
        }
        if let Some(label) = &row.runs_on {
            job["tags"] = json!([label]);
        }
        // Names such as `cache` or `default` mean something to GitLab.
        jobs.insert(format!("build {}", row.name), job);
    }
    if document.include.is_empty() {
        let script = json!(["echo 'drover: nothing has to be built'"]);
        let job = json!({ "stage": "build", "script": script, "variables": { "GIT_STRATEGY": "none" } });
        jobs.insert("nothing to build".to_owned(), job);
    }
    Value::Object(jobs)
}

/// Lines for `$GITHUB_OUTPUT`: `name=value`, or between delimiters where the value has lines. `delimiter` is a text that
/// nobody can guess.
#[must_use]
pub fn output(name: &str, value: &str, delimiter: &str) -> String {
    if value.contains(['\n', '\r']) {
        format!("{name}<<{delimiter}\n{value}\n{delimiter}\n")
    } else {
        format!("{name}={value}\n")
    }
}

/// What a person is told of the rows.
#[must_use]
pub fn screen(document: &Document, unknown: f64, width: usize) -> Vec<Line> {
    let head = Line::new().paint(Paint::Bold, "matrix").text("   ");
    let rows = &document.include;
    let Some(longest) = rows.first() else { return vec![head.text("no row: nothing has to be built")] };
    let all: f64 = rows.iter().map(|row| row.seconds).sum();
    let drvs: usize = rows.iter().map(|row| row.drvs).sum();
    let mut line = head.text(format!("{} for {}", plural(rows.len(), "row", "rows"), plural(drvs, "drv", "drvs")));
    line = line.text(format!(", about {} of work", about(all)));
    if rows.len() > 1 {
        line = line.then_if_fits(
            Line::from(format!(", the longest row {} ({})", about(longest.seconds), longest.name)),
            width,
        );
    }
    let mut lines = vec![line];
    let indent = || Line::new().pad(9);
    if document.without_history > 0 {
        let drvs = plural(document.without_history, "drv has", "drvs have");
        lines.push(indent().text(format!("{drvs} no history and count as {unknown}s each (--assume SECONDS)")));
    }
    if !document.shared.is_empty() {
        let number = document.shared.len();
        let what = if number == 1 { "1 drv is".to_owned() } else { format!("{} drvs are", count(number)) };
        let text = format!("{what} built in more than one row: ");
        let names: Vec<String> =
            document.shared.iter().map(|shared| format!("{} ({})", shared.name, shared.rows.join(" "))).collect();
        let line = indent().text(text);
        let room = width.saturating_sub(line.width());
        lines.push(line.text(listed(&names, " · ", room)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_unique() {
        let long = "x".repeat(90);
        let rows = [vec!["web1", "web2"], vec!["web1", "db1"], vec!["tool 1.2\"`$("], vec![&*long, "b"], vec![".a"]];
        let names = names(&rows);
        assert_eq!(names[..3], ["web1+1", "web1+1-2", "tool-1.2----"]);
        assert_eq!(names[3].len(), NAME);
        assert!(names[3].ends_with("x+1") && names[4] == "row.a", "{names:?}");
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["nixosConfigurations.web1", "packages.x.\"tool-1.2\"", "it's", "$(id)", ""].map(str::to_owned);
        assert_eq!(quoted(&words), r#"nixosConfigurations.web1 'packages.x."tool-1.2"' 'it'\''s' '$(id)' ''"#);
    }

    #[test]
    fn outputs_with_lines_stand_between_delimiters() {
        assert_eq!(output("has_work", "true", "x"), "has_work=true\n");
        assert_eq!(output("m", "a\nhas_work=no", "x9"), "m<<x9\na\nhas_work=no\nx9\n");
    }
}
