//! Attrs that another evaluator has evaluated: JSON lines as nix-eval-jobs prints them, from a file or a pipe → the
//! same stream of answers. Does not evaluate, and does not run anything.
//!
//! A line is an object with `attr`, `attrPath`, and either `drvPath` (with `name`, `system`, `outputs`, `meta`) or
//! `error`. What else it may hold (`inputDrvs`, `cacheStatus`, `neededBuilds`, `constituents`, `extraValue`, …) is passed
//! over: drover asks stores and caches itself. Derivations have to be in the store that evaluates.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};
use tokio::sync::{Mutex, mpsc};

use super::glob::Filter;
use super::memory::Cost;
use super::message;
use super::pool::{Answer, DrvAnswer, EvalMsg, Evaluator, Gone, Listed, Stop, attr_id, send};
use crate::error::{Error, Fault};
use crate::event::{Class, Failure};
use crate::id::{AttrPath, Kind, StorePath, System};
use crate::nix_compat::ansi;
use crate::store::any::Store;
use crate::store::roots::Roots;

/// Longest line that is read, in bytes: `meta` and `inputDrvs` of one attr.
const LINE_LIMIT: u64 = 16 << 20;
/// Most attrs that are taken.
const MOST: usize = 1_000_000;

/// Where lines come from, and what is taken of them.
pub struct Lines<R> {
    /// The lines.
    pub source: R,
    /// What people call the source: a file, `standard input`.
    pub name: String,
    /// What the paths of the lines are relative to: the fragment that the other evaluator was given.
    pub below: Option<AttrPath>,
    /// They are relative to it, whatever they look like, and may come twice: it was given so by drover itself.
    pub strict: bool,
    /// Which attrs are taken.
    pub filter: Filter,
    /// The store that holds the derivations.
    pub roots: Arc<Mutex<Roots<Store>>>,
    /// Its store directory.
    pub store_dir: String,
}

/// The fields of a line that matter here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    attr: Option<String>,
    attr_path: Option<Vec<String>>,
    name: Option<String>,
    system: Option<String>,
    drv_path: Option<String>,
    #[serde(default)]
    outputs: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    meta: Option<serde_json::Value>,
    error: Option<String>,
}

/// What an attr of a line is, before anybody looked at a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// Its full path.
    pub path: AttrPath,
    /// What it is.
    pub answer: Answer,
}

/// The answers in these lines. Nothing is remembered of them: nobody knows what they were made of.
#[must_use]
pub fn evaluator<R: AsyncBufRead + Unpin + Send + 'static>(lines: Lines<R>) -> Evaluator {
    Evaluator::of(|sender| async move {
        let last = match lines.read(&mut Seen::default(), &sender).await {
            Ok(()) => EvalMsg::Finished { record: None },
            Err(Stop::Fatal(error)) => EvalMsg::Fatal(error),
            Err(Stop::Gone) => return,
        };
        // If nobody listens any more there is nobody to tell.
        let _ = send(&sender, last).await;
    })
}

/// Which attrs have been read, and in which line.
pub(super) type Seen = BTreeMap<AttrPath, usize>;

impl Lines<()> {
    /// The same of this source, and the rest for the next one.
    pub(super) fn with<R>(self, source: R, below: Option<AttrPath>) -> (Lines<R>, Self) {
        let Self { source: (), name, strict, filter, roots, store_dir, .. } = self;
        let rest = Self {
            source: (),
            name: name.clone(),
            below: None,
            strict,
            filter: filter.clone(),
            roots: roots.clone(),
            store_dir: store_dir.clone(),
        };
        (Lines { source, name, below, strict, filter, roots, store_dir }, rest)
    }
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads to the end.
    pub(super) async fn read(self, seen: &mut Seen, sender: &mpsc::Sender<EvalMsg>) -> Result<(), Stop> {
        stream(self, seen, sender).await
    }
}

async fn stream<R: AsyncBufRead + Unpin>(
    mut lines: Lines<R>,
    seen: &mut Seen,
    sender: &mpsc::Sender<EvalMsg>,
) -> Result<(), Stop> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut lines.source).take(LINE_LIMIT + 1).read_until(b'\n', &mut line).await;
        match read {
            Ok(0) => break,
            Ok(read) if read as u64 > LINE_LIMIT => {
                return Err(
                    malformed(&lines.name, number, &format!("it is longer than {} MiB", LINE_LIMIT >> 20)).into()
                );
            }
            Ok(_) => {}
            Err(error) => {
                let message = format!("cannot read {}: {error}", lines.name);
                return Err(Error::new(Fault::Unreachable, message).hint("drover run --attrs-from FILE").into());
            }
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let Read { path, answer } = parse(&line, lines.below.as_ref(), lines.strict, &lines.store_dir)
            .map_err(|why| malformed(&lines.name, number, &why))?;
        if lines.strict && seen.contains_key(&path) {
            continue;
        }
        if let Some(first) = seen.insert(path.clone(), number) {
            return Err(malformed(&lines.name, number, &format!("'{path}' is in line {first} already")).into());
        }
        if seen.len() > MOST {
            return Err(malformed(&lines.name, number, &format!("more than {MOST} attrs are too many")).into());
        }
        if lines.filter.keeps(&path) {
            let answer = present(answer, &lines.roots, &lines.store_dir).await?;
            tell(sender, seen.len() - 1, path, answer).await?;
        } else {
            seen.remove(&path);
        }
    }
    Ok(())
}

async fn tell(sender: &mpsc::Sender<EvalMsg>, index: usize, path: AttrPath, answer: Answer) -> Result<(), Gone> {
    let (attr, kind) = (attr_id(index), path.kind());
    let hosts = [Kind::NixosConfigurations, Kind::DarwinConfigurations, Kind::HomeConfigurations];
    let short = hosts.contains(&kind) && path.parts().len() == 2;
    let name = if short { path.last().into() } else { path.to_string().into() };
    send(sender, EvalMsg::Listed(vec![Listed { attr, path, kind, name }])).await?;
    send(sender, EvalMsg::Ended { attr, answer, recorded: false, cost: Cost::default(), ack: None }).await
}

/// A derivation that is not in the store is that attr's error. One that is stays there from now on.
async fn present(answer: Answer, roots: &Mutex<Roots<Store>>, store_dir: &str) -> Result<Answer, Error> {
    let Answer::Drv(drv) = &answer else { return Ok(answer) };
    let valid = roots.lock().await.valid(std::slice::from_ref(&drv.drv)).await.map_err(Error::from)?;
    if valid == [true] {
        return Ok(answer);
    }
    let path = format!("{store_dir}/{}", drv.drv.to_basename());
    let message = format!(
        "its derivation {path} is not in this store\n\
         nix copy --derivation --from STORE {path}    or evaluate it on this machine"
    );
    Ok(failed(message))
}

fn malformed(name: &str, number: usize, why: &str) -> Error {
    Error::usage(format!("{name}, line {number}: {why}"))
        .hint("nix-eval-jobs --flake .#checks > FILE && drover run .#checks --attrs-from FILE")
}

fn failed(message: String) -> Answer {
    Answer::Failed(Failure::new(Class::Eval, message))
}

/// Reads one line; `below`, `strict` and `store_dir` are those of [`Lines`]. The error says what is wrong with it.
pub fn parse(line: &[u8], below: Option<&AttrPath>, strict: bool, store_dir: &str) -> Result<Read, String> {
    let raw: Raw = serde_json::from_slice(line).map_err(|error| format!("it is no JSON object as wanted: {error}"))?;
    let path = path(&raw, below, strict)?;
    if let Some(error) = &raw.error {
        let explained = message::explain(&ansi::text(error.as_bytes()), |_| false);
        let position = explained.position.map(|at| message::relative(&at, &[]).into());
        let failure = Failure { class: Class::Eval, message: explained.message.into(), position };
        return Ok(Read { path, answer: Answer::Failed(failure) });
    }
    let Some(drv) = &raw.drv_path else { return Err("it has neither 'drvPath' nor 'error'".to_owned()) };
    let store_path = |text: &str| {
        let base = text.strip_prefix(store_dir)?.strip_prefix('/')?;
        StorePath::from_basename(base.as_bytes()).ok()
    };
    let Some(drv) = store_path(drv).filter(StorePath::is_derivation) else {
        return Ok(Read { path, answer: failed(format!("its derivation '{drv}' is none of {store_dir}")) });
    };
    let outputs: BTreeMap<String, Option<StorePath>> = raw
        .outputs
        .unwrap_or_default()
        .into_iter()
        .map(|(name, path)| (name, path.as_deref().and_then(store_path)))
        .collect();
    let wanted = wanted(raw.meta.as_ref(), &outputs);
    let name = raw.name.unwrap_or_else(|| drv.name().trim_end_matches(".drv").to_owned());
    let system = System(raw.system.unwrap_or_default());
    let answer = Answer::Drv(DrvAnswer {
        drv,
        name,
        system,
        wanted,
        outputs,
        program: None,
        written: None,
        meta: Box::default(),
    });
    Ok(Read { path, answer })
}

/// The full path of the attr. Unless that is known better, a path that starts with a flake output that drover knows is
/// full already.
fn path(raw: &Raw, below: Option<&AttrPath>, strict: bool) -> Result<AttrPath, String> {
    let parts = match (&raw.attr_path, &raw.attr) {
        (Some(parts), _) => parts.clone(),
        (None, Some(attr)) => {
            attr.parse::<AttrPath>().map_err(|error| format!("'attr' is no path: {error}"))?.parts().to_vec()
        }
        (None, None) => return Err("it has neither 'attrPath' nor 'attr'".to_owned()),
    };
    let full = !strict && parts.first().is_some_and(|first| Kind::of_output(first).is_some());
    let before = below.filter(|_| !full).map(|below| below.parts().to_vec()).unwrap_or_default();
    let parts = [before, parts].concat();
    if parts.is_empty() || parts.iter().any(String::is_empty) {
        return Err("its path has an empty part".to_owned());
    }
    Ok(AttrPath::new(parts))
}

/// What `nix build` takes of it: what `meta` says, else `out`, else all.
fn wanted(meta: Option<&serde_json::Value>, outputs: &BTreeMap<String, Option<StorePath>>) -> Vec<String> {
    let said = meta.and_then(|meta| meta.get("outputsToInstall")).and_then(serde_json::Value::as_array);
    let said: Vec<String> = said.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
    match () {
        () if !said.is_empty() && said.iter().all(|name| outputs.contains_key(name)) => said,
        () if outputs.is_empty() || outputs.contains_key("out") => vec!["out".to_owned()],
        () => outputs.keys().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRV: &str = "/nix/store/psk0bbcfwn78af3smxz5b94g0b49j57q-hello-2.12.drv";

    fn read(line: &str, below: &str) -> Result<Read, String> {
        let below = (!below.is_empty()).then(|| below.parse().unwrap());
        parse(line.replace("$DRV", DRV).as_bytes(), below.as_ref(), false, "/nix/store")
    }

    #[test]
    fn paths_become_whole() {
        for (line, below, path) in [
            (r#"{"attrPath":["x86_64-linux","a"],"error":"x"}"#, "checks", "checks.x86_64-linux.a"),
            (r#"{"attrPath":["x86_64-linux","a.b"],"error":"x"}"#, "checks", r#"checks.x86_64-linux."a.b""#),
            (r#"{"attr":"x86_64-linux.\"a.b\"","error":"x"}"#, "checks", r#"checks.x86_64-linux."a.b""#),
            (r#"{"attrPath":["hydraJobs","a"],"error":"x"}"#, "hydraJobs", "hydraJobs.a"),
            (r#"{"attrPath":["a"],"error":"x"}"#, "", "a"),
        ] {
            assert_eq!(read(line, below).unwrap().path.to_string(), path);
        }
    }

    #[test]
    fn outputs_are_those_that_nix_would_build() {
        for (more, wanted) in [
            (r#""outputs":{"out":null,"dev":null}"#, vec!["out"]),
            (r#""outputs":{"bin":null,"dev":null}"#, vec!["bin", "dev"]),
            (r#""outputs":{"out":null,"dev":null},"meta":{"outputsToInstall":["dev"]}"#, vec!["dev"]),
            (r#""meta":null"#, vec!["out"]),
        ] {
            match read(&format!(r#"{{"attr":"a","drvPath":"$DRV",{more}}}"#), "").unwrap().answer {
                Answer::Drv(drv) => assert_eq!(drv.wanted, wanted),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn errors_have_message_and_position() {
        let line = r#"{"attr":"a","attrPath":["a"],"error":"\u001b[31;1merror:\u001b[0m\n       … while calling\n       at «git+file:///x?rev=1»/flake.nix:3:4:\n\n       \u001b[31;1merror:\u001b[0m attribute 'x' missing\n       at «git+file:///x?rev=1»/flake.nix:12:9:\n           11|\n"}"#;
        match read(line, "").unwrap().answer {
            Answer::Failed(failure) => {
                assert_eq!(&*failure.message, "attribute 'x' missing");
                assert_eq!(failure.position.as_deref(), Some("flake.nix:12:9"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for (line, why) in [
            ("[]", "no JSON object"),
            ("{", "no JSON object"),
            (r#"{"drvPath":"$DRV"}"#, "neither 'attrPath' nor 'attr'"),
            (r#"{"attr":"a"}"#, "neither 'drvPath' nor 'error'"),
            (r#"{"attrPath":["a",""],"error":"x"}"#, "empty part"),
            (r#"{"attr":"a..b","error":"x"}"#, "no path"),
        ] {
            assert!(read(line, "").unwrap_err().contains(why), "{line}");
        }
        let elsewhere = read(r#"{"attr":"a","drvPath":"/gnu/store/x.drv"}"#, "").unwrap();
        assert!(matches!(elsewhere.answer, Answer::Failed(failure) if failure.message.contains("none of /nix/store")));
    }
}
