//! Plans in files: what a plan says of a run, which attrs of it are asked for and how they are answered, and writing
//! one with the derivations and sources that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{AttrSettings, nearest};
use crate::diff::plan_file::{AttrHead, DrvHead, DrvOfAttr, FlakeHead, Head, PlanFile, VERSION};
use crate::diff::presence::{self, Fact as CacheFact};
use crate::error::{Error, Fault, Result};
use crate::eval::glob::Filter;
use crate::eval::{Answer, Cost, DrvAnswer, EvalMsg, Evaluator, Listed};
use crate::event::{Evaluated, Fact, Status};
use crate::id::{AttrId, AttrPath, CacheId, StoreDir, StorePath};
use crate::nix_compat::daemon::PathInfo;
use crate::report::summary::{Attr, Summary};
use crate::store::bundle::Writer;
use crate::store::cache::Cache;
use crate::store::local::LocalStore;
use crate::store::session::Session;

use super::context::{Context, SharedRoots};

/// Reads a plan for this store.
pub(super) async fn open(file: &Path, store: &LocalStore) -> Result<PlanFile> {
    let (file, dir) = (file.to_owned(), store.store_dir().clone());
    let read = tokio::task::spawn_blocking(move || PlanFile::open(&file, &dir)).await;
    read.unwrap_or_else(|panic| Err(Error::new(Fault::Bug, format!("reading the plan broke: {panic}"))))
}

/// The attrs of a plan that are asked for: those of these names, else those that the globs let through.
pub(super) fn chosen(plan: &PlanFile, settings: &AttrSettings) -> Result<Vec<AttrHead>> {
    let attrs = &plan.head.attrs;
    if settings.what.is_empty() {
        let filter = Filter::new(&settings.only, &settings.exclude)?;
        let of_kind = |attr: &&AttrHead| settings.kinds.as_ref().is_none_or(|kinds| kinds.contains(&attr.kind));
        return Ok(attrs.iter().filter(of_kind).filter(|attr| filter.keeps(&attr.attr)).cloned().collect());
    }
    let mut taken = BTreeSet::new();
    for word in &settings.what {
        let path = word.parse::<AttrPath>().ok();
        let exact = attrs.iter().position(|attr| path.as_ref() == Some(&attr.attr));
        let short = |attr: &AttrHead| attr.name == *word || attr.attr.last() == word;
        let found: Vec<usize> = match exact {
            Some(at) => vec![at],
            None => (0..attrs.len()).filter(|at| short(&attrs[*at])).collect(),
        };
        if found.is_empty() {
            return Err(unknown(word, plan));
        }
        taken.extend(found);
    }
    Ok(taken.into_iter().map(|at| attrs[at].clone()).collect())
}

fn unknown(word: &str, plan: &PlanFile) -> Error {
    let names: Vec<String> =
        plan.head.attrs.iter().flat_map(|attr| [attr.name.clone(), attr.attr.to_string()]).collect();
    let error = Error::usage(format!("the plan {} has no attr '{word}'", plan.bundle.file().display()));
    match nearest(word, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(format!("drover plan --plan {}    shows what it has", plan.bundle.file().display())),
    }
}

/// The answers of a plan, as an evaluation.
pub(super) fn answers(attrs: Vec<AttrHead>, dir: &StoreDir) -> Evaluator {
    let id = |at: usize| AttrId(u32::try_from(at).unwrap_or(u32::MAX));
    let listed = attrs.iter().enumerate().map(|(at, attr)| Listed {
        attr: id(at),
        path: attr.attr.clone(),
        kind: attr.kind,
        name: attr.name.as_str().into(),
    });
    let mut messages = vec![EvalMsg::Listed(listed.collect())];
    for (at, attr) in attrs.into_iter().enumerate() {
        messages.push(EvalMsg::Ended {
            attr: id(at),
            answer: answer(attr, dir),
            recorded: true,
            cost: Cost::default(),
            ack: None,
        });
    }
    messages.push(EvalMsg::Finished { record: None });
    Evaluator::of(|sender| async move {
        for message in messages {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// Paths have been parsed when the plan was opened.
fn answer(attr: AttrHead, dir: &StoreDir) -> Answer {
    let parse = |path: &str| dir.parse_path(path.as_bytes()).ok();
    if let Some(failure) = attr.error {
        return Answer::Failed(failure);
    }
    let Some((drv, path)) = attr.drv.and_then(|drv| Some((parse(&drv.path)?, drv))).map(|(path, drv)| (drv, path))
    else {
        return Answer::Nothing(attr.nothing.unwrap_or_default().into());
    };
    Answer::Drv(DrvAnswer {
        drv: path,
        name: drv.name,
        system: drv.system,
        wanted: drv.outputs.keys().cloned().collect(),
        outputs: drv.outputs.iter().map(|(name, path)| (name.clone(), path.as_deref().and_then(parse))).collect(),
        program: None,
        written: drv.position,
        meta: Box::default(),
    })
}

/// Tells which flake it was.
pub(super) fn announce(ctx: &mut Context, plan: &PlanFile) {
    if let Some(flake) = &plan.head.flake {
        ctx.bus.emit(Fact::FlakeLocked {
            original: flake.reference.as_str().into(),
            locked: flake.locked.as_str().into(),
            rev: flake.rev.as_deref().map(Into::into),
            dirty_files: flake.dirty_files,
            recorded: true,
        });
    }
}

/// What a plan says of this run.
pub(super) fn head(summary: &Summary) -> Head {
    let flake = summary.flake.as_ref().map(|flake| FlakeHead {
        reference: flake.original.to_string(),
        locked: flake.locked.to_string(),
        rev: flake.rev.as_deref().map(str::to_owned),
        dirty_files: flake.dirty_files,
    });
    let attrs = summary.attrs.values().filter_map(|attr| attr_head(attr, summary.status(attr)?));
    let build = summary.drvs.values().filter(|drv| !drv.fetch && drv.ended.is_none());
    Head {
        version: VERSION,
        drover: env!("CARGO_PKG_VERSION").to_owned(),
        flake,
        attrs: attrs.collect(),
        build: build.map(|drv| DrvHead { drv: drv.path.to_string(), seconds: drv.expected }).collect(),
        fetch: summary.fetches.iter().map(|fetch| fetch.path.to_string()).collect(),
        elsewhere: Vec::new(),
    }
}

/// `None` for what was left out, and for what does not differ from the base.
fn attr_head(attr: &Attr, status: Status) -> Option<AttrHead> {
    let taken = !matches!(status, Status::Skipped | Status::Unaffected);
    let (_, evaluated) = attr.evaluated.as_ref().filter(|_| taken)?;
    let mut head = AttrHead {
        attr: attr.path.clone(),
        kind: attr.kind,
        name: attr.name.to_string(),
        status,
        drv: None,
        nothing: None,
        error: None,
    };
    match evaluated {
        Evaluated::Drv { drv, name, system, outputs, position } => {
            let outputs = outputs.iter().map(|o| (o.name.to_string(), o.path.as_deref().map(str::to_owned)));
            head.drv = Some(DrvOfAttr {
                path: drv.to_string(),
                name: name.to_string(),
                system: system.clone(),
                outputs: outputs.collect(),
                position: position.as_deref().map(str::to_owned),
            });
        }
        Evaluated::Failed(failure) | Evaluated::Finding(failure) => head.error = Some(failure.clone()),
        Evaluated::Nothing { reason } => head.nothing = Some(reason.to_string()),
    }
    Some(head)
}

/// The derivations that have to be in the file: those of all attrs but those that a cache has.
pub(super) fn roots(head: &Head, dir: &StoreDir) -> Vec<StorePath> {
    let kept = head.attrs.iter().filter(|attr| attr.status != Status::ToFetch);
    let drvs: BTreeSet<&str> = kept.filter_map(|attr| Some(attr.drv.as_ref()?.path.as_str())).collect();
    drvs.into_iter().filter_map(|drv| dir.parse_path(drv.as_bytes()).ok()).collect()
}

/// All that writing a plan takes.
pub(super) struct Writing {
    pub(super) file: PathBuf,
    pub(super) head: Head,
    /// Where derivations and sources are.
    pub(super) store: LocalStore,
    /// A plan that this one is made of: what the store lacks is taken from there.
    pub(super) plan: Option<Arc<PlanFile>>,
    pub(super) roots: SharedRoots,
    /// The caches that are read from, and those of them that are in Nix's settings: whoever reads the plan has them.
    pub(super) caches: Vec<Arc<Cache>>,
    pub(super) of_nix: BTreeSet<CacheId>,
}

/// Writes a plan; gives what is told of it.
pub(super) async fn write(writing: Writing) -> Result<Fact> {
    let Writing { file, mut head, store, plan, roots, caches, of_nix } = writing;
    let dir = store.store_dir().clone();
    let drvs = self::roots(&head, &dir);
    roots.lock().await.hold(&drvs).await?;
    let mut session = store.connect().await?;
    let mut infos = closure(&mut session, plan.as_deref(), drvs).await?;
    let shared: Vec<Arc<Cache>> = caches.into_iter().filter(|cache| of_nix.contains(&cache.id())).collect();
    leave_out(&mut infos, &mut head, &shared, &dir).await;
    let told = serde_json::to_vec(&head)
        .map_err(|error| Error::new(Fault::Bug, format!("cannot write the head of a plan: {error}")))?;
    let infos = PathInfo::references_first(infos.into_values().collect());
    let mut writer = Writer::create(&file, &dir, &told, infos.len() as u64)?;
    for info in &infos {
        let mut sink = writer.object(info)?;
        match plan.as_ref().and_then(|plan| plan.bundle.nar(&info.path)) {
            Some(mut nar) => {
                let copied = tokio::io::copy(&mut nar, &mut sink).await;
                copied.map_err(|error| Error::new(Fault::Unreachable, format!("cannot copy a plan: {error}")))?;
            }
            None => {
                let sent = session.nar_from_path(&info.path, info.nar_size, &mut sink).await;
                sent.map_err(|error| session.explain(error))?;
            }
        }
        sink.end()?;
    }
    let (drvs, sources): (Vec<&PathInfo>, Vec<&PathInfo>) = infos.iter().partition(|info| info.path.is_derivation());
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (drvs, sources) = (small(drvs.len()), small(sources.len()));
    // The last step may take a while on a slow disk.
    let named = file.display().to_string().as_str().into();
    let finished = tokio::task::spawn_blocking(move || writer.finish()).await;
    let bytes = finished.map_err(|panic| Error::new(Fault::Bug, format!("writing the plan broke: {panic}")))??;
    Ok(Fact::PlanWritten { file: named, bytes, drvs, sources })
}

/// These derivations and all that they refer to.
async fn closure(
    session: &mut Session,
    plan: Option<&PlanFile>,
    roots: Vec<StorePath>,
) -> Result<BTreeMap<StorePath, PathInfo>> {
    let mut infos: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
    let mut level = roots;
    while !level.is_empty() {
        let known = |path: &StorePath| plan.and_then(|plan| plan.bundle.info(path).cloned());
        let (found, asked): (Vec<_>, Vec<_>) =
            level.into_iter().map(|path| (known(&path), path)).partition(|(i, _)| i.is_some());
        let mut found: Vec<PathInfo> = found.into_iter().filter_map(|(info, _)| info).collect();
        let asked: Vec<StorePath> = asked.into_iter().map(|(_, path)| path).collect();
        let answers = session.path_infos(&asked).await.map_err(|error| session.explain(error))?;
        for (path, info) in asked.iter().zip(answers) {
            match info {
                Some(info) => found.push(info),
                // A cache has it, as it had when that plan was made.
                None if plan.is_some() => {}
                None => {
                    let message = format!("cannot write the plan: {path} is not in the store");
                    return Err(Error::new(Fault::Unreachable, message).hint("drover plan --refresh -o FILE"));
                }
            }
        }
        let mut below = BTreeSet::new();
        for info in found {
            below.extend(info.others().cloned());
            infos.insert(info.path.clone(), info);
        }
        level = below.into_iter().filter(|path| !infos.contains_key(path)).collect();
    }
    Ok(infos)
}

/// Leaves out the sources that caches have.
async fn leave_out(infos: &mut BTreeMap<StorePath, PathInfo>, head: &mut Head, caches: &[Arc<Cache>], dir: &StoreDir) {
    let sources: Vec<StorePath> = infos.keys().filter(|path| !path.is_derivation()).cloned().collect();
    if caches.is_empty() || sources.is_empty() {
        return;
    }
    for (path, fact) in presence::race(caches, sources, false).all().await {
        if matches!(fact, CacheFact::Present { .. }) {
            infos.remove(&path);
            head.elsewhere.push(path.to_absolute_path_in(dir));
        }
    }
}
