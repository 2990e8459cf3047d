//! `drover matrix`: a plan, packed into the rows of a CI matrix.

use std::io::Write as _;

use crate::config::{Env, Settings};
use crate::diff::matrix::{AttrWork, DrvWork, Limits, Packing, Work, pack};
use crate::driver::{Finished, Mode};
use crate::error::{Error, Fault, Result};
use crate::report::harmless;
use crate::report::matrix::{self, Document, MOST_BYTES, MOST_ROWS, Needs, Pipeline, Row, Shared};
use crate::report::summary::Summary;

use super::args::{Forge, MatrixArgs, Place};
use super::{Session, print, print_json, say};

/// Seconds that a drv is taken to need of which nothing is known.
const UNKNOWN: f64 = 10.0;

/// Seconds of work for which one more machine is worth its start.
const START: f64 = 60.0;

/// What the rows have to look like.
struct Wish {
    forge: Forge,
    limits: Limits,
    unknown: f64,
    /// System, features, label.
    runs_on: Vec<(String, Vec<String>, String)>,
    /// What jobs of GitLab extend.
    extends: Option<String>,
    /// `$GITHUB_OUTPUT`.
    output: Option<std::path::PathBuf>,
}

/// Prints the matrix.
pub(super) fn matrix(session: &Session, args: MatrixArgs, place: &Place) -> Result<u8> {
    super::run::check(&args.select)?;
    let wish = wish(&args, &session.env)?;
    let words = args.words(place);
    let (settings, Finished { summary, exit, .. }) = super::run::drive(session, words, Mode::Matrix)?;
    super::run::keep(&settings.output, &summary)?;
    if summary.error.is_some() || summary.cancelled.is_some() {
        return Ok(exit);
    }
    let document = document(&summary, &wish)?;
    say(&matrix::screen(&document, wish.unknown, session.width()), session.style());
    tell(session, &document, &wish, &settings)?;
    Ok(exit)
}

fn wish(args: &MatrixArgs, env: &Env) -> Result<Wish> {
    let forge = if args.output.json { Forge::Json } else { args.format };
    let most = args.max_rows.unwrap_or(MOST_ROWS);
    let least = args.min_seconds.unwrap_or(START);
    let unknown = args.assume.unwrap_or(UNKNOWN);
    if most == 0 {
        return Err(Error::usage("--max-rows 0 leaves no room for any work").hint("drover matrix --max-rows 1"));
    }
    if most > MOST_ROWS && matches!(forge, Forge::Github) {
        return Err(Error::usage(format!("--max-rows {most}: GitHub takes at most {MOST_ROWS}"))
            .hint(format!("drover matrix --format github --max-rows {MOST_ROWS}")));
    }
    for (flag, seconds) in [("--min-seconds", least), ("--assume", unknown)] {
        if !(seconds.is_finite() && seconds >= 0.0) {
            return Err(Error::usage(format!("{flag} {seconds} is no number of seconds"))
                .hint(format!("drover matrix {flag} 60")));
        }
    }
    let output = match (args.github_output, env.get("GITHUB_OUTPUT")) {
        (false, _) => None,
        (true, Some(file)) => Some(file.into()),
        (true, None) => {
            return Err(Error::usage("--github-output: GITHUB_OUTPUT is not set, so this is no step of a workflow")
                .hint("drover matrix --format github > FILE"));
        }
    };
    let runs_on = args.runs_on.iter().map(|text| label(text)).collect::<Result<_>>()?;
    let limits = Limits { rows: most, least, split: args.split };
    Ok(Wish { forge, limits, unknown, runs_on, extends: args.extends.clone(), output })
}

/// `SYSTEM[+FEATURE…]=LABEL`.
fn label(text: &str) -> Result<(String, Vec<String>, String)> {
    let split = text.split_once('=').filter(|(machine, label)| !machine.is_empty() && !label.is_empty());
    let Some((machine, label)) = split else {
        return Err(Error::usage(format!("--runs-on '{text}' is not SYSTEM=LABEL"))
            .hint("drover matrix --runs-on x86_64-linux=ubuntu-latest --runs-on x86_64-linux+kvm=big"));
    };
    let mut parts = machine.split('+').map(str::to_owned);
    let system = parts.next().unwrap_or_default();
    Ok((system, parts.collect(), label.to_owned()))
}

/// Packs what the plan says.
fn document(summary: &Summary, wish: &Wish) -> Result<Document> {
    let needs = Needs::of(summary);
    let known = |id| summary.drvs.get(id);
    let work = Work {
        drvs: needs
            .drvs
            .iter()
            .filter_map(known)
            .map(|drv| DrvWork {
                seconds: drv.expected.unwrap_or(wish.unknown),
                features: drv.features.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        attrs: needs
            .attrs
            .iter()
            .map(|(_, system, drvs)| AttrWork { system: system.clone(), drvs: drvs.clone() })
            .collect(),
    };
    let packing = pack(&work, wish.limits).map_err(|error| {
        Error::usage(format!("{error}: a row is of one system"))
            .hint(format!("drover matrix --max-rows {}    or fewer systems: --systems SYSTEMS", error.systems.len()))
    })?;
    Ok(described(summary, wish, &needs, &packing))
}

fn described(summary: &Summary, wish: &Wish, needs: &Needs, packing: &Packing) -> Document {
    let attr = |at: &usize| summary.attrs.get(&needs.attrs[*at].0);
    let short: Vec<Vec<&str>> =
        packing.rows.iter().map(|row| row.attrs.iter().filter_map(attr).map(|attr| &*attr.name).collect()).collect();
    let names = matrix::names(&short);
    let rows = packing.rows.iter().zip(&names).map(|(row, name)| {
        let attrs: Vec<String> = row.attrs.iter().filter_map(attr).map(|attr| attr.path.to_string()).collect();
        Row {
            name: name.clone(),
            args: matrix::quoted(&attrs),
            attrs,
            drvs: row.drvs.len(),
            system: row.system.to_string(),
            features: row.features.iter().cloned().collect(),
            seconds: (row.seconds * 10.0).round() / 10.0,
            runs_on: runs_on(wish, &row.system.0, &row.features),
        }
    });
    let drv = |at: &usize| summary.drvs.get(&needs.drvs[*at]);
    let shared = packing.shared.iter().filter_map(|(at, rows)| {
        let drv = drv(at)?;
        let rows = rows.iter().map(|row| names[*row].clone()).collect();
        Some(Shared { drv: drv.path.to_string(), name: drv.name.to_string(), rows })
    });
    Document {
        version: matrix::VERSION,
        has_work: !packing.rows.is_empty(),
        include: rows.collect(),
        shared: shared.collect(),
        without_history: needs
            .drvs
            .iter()
            .filter_map(|id| summary.drvs.get(id))
            .filter(|drv| drv.expected.is_none())
            .count(),
    }
}

/// The label that names most of the features of a row.
fn runs_on(wish: &Wish, system: &str, features: &std::collections::BTreeSet<String>) -> Option<String> {
    let fits =
        |(of, wanted, _): &&(String, Vec<String>, String)| of == system && wanted.iter().all(|w| features.contains(w));
    wish.runs_on.iter().filter(fits).max_by_key(|(_, wanted, _)| wanted.len()).map(|(.., label)| label.clone())
}

/// On stdout, and to the forge if asked.
fn tell(session: &Session, document: &Document, wish: &Wish, settings: &Settings) -> Result<()> {
    let plan = settings.plan.write.as_ref().or(settings.plan.read.as_ref()).map(|file| file.display().to_string());
    let text = match wish.forge {
        Forge::Github | Forge::Forgejo => {
            let text = matrix::github(document).to_string();
            fits(&text)?;
            text
        }
        Forge::Gitlab => {
            let parent = session.env.get("CI_PIPELINE_ID").zip(session.env.get("CI_JOB_NAME"));
            let parent = parent.map(|(id, job)| (id.to_owned(), job.to_owned()));
            let pipeline = matrix::gitlab(document, &Pipeline { plan, parent, extends: wish.extends.clone() });
            serde_json::to_string_pretty(&pipeline)
                .map_err(|error| Error::new(Fault::Bug, format!("cannot write JSON: {error}")))?
        }
        Forge::Json => {
            print_json(document)?;
            String::new()
        }
    };
    if !text.is_empty() {
        print(format!("{}\n", harmless::json(&text)).as_bytes())?;
    }
    match &wish.output {
        Some(file) => github_output(session, document, file),
        None => Ok(()),
    }
}

/// GitHub throws outputs away that are too large.
fn fits(text: &str) -> Result<()> {
    let bytes = text.encode_utf16().count() * 2;
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    let message = format!("the matrix has {bytes} bytes as UTF-16, and an output may have {MOST_BYTES}");
    Err(Error::usage(message).hint("drover matrix --only GLOB    several times, or --format json into an artifact"))
}

/// `has_work` and `matrix`, for the job's outputs.
fn github_output(session: &Session, document: &Document, file: &std::path::Path) -> Result<()> {
    let text = matrix::github(document).to_string();
    fits(&text)?;
    // Its random part is nobody's to guess.
    let delimiter = format!("drover-{}", super::run::new_run(session));
    let lines = matrix::output("has_work", &document.has_work.to_string(), &delimiter)
        + &matrix::output("matrix", &text, &delimiter);
    let write = || std::fs::OpenOptions::new().append(true).create(true).open(file)?.write_all(lines.as_bytes());
    write().map_err(|error: std::io::Error| {
        Error::new(Fault::Unreachable, format!("cannot write {}: {error}", file.display()))
            .hint("GITHUB_OUTPUT names the file; the runner makes it")
    })
}
