//! What changed against the base: reads the .drvs of both sides level by level while they are compared in lock-step, then
//! what the repository and the store can add to the causes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::diff::lockstep::{Cause, Lockstep, Reached};
use crate::eval::flake::{self, FlakeOptions, Locked};
use crate::eval::{Answer, EvalMsg, EvalOptions, Evaluator, Import, Selection, git, what::Name};
use crate::event::{CauseKind, Difference, Evaluated, Text};
use crate::id::{AttrId, StorePath};
use crate::nix_compat::drv::{self, Derivation};
use crate::report::summary::{Compared, Summary};
use crate::report::why::changed as report;
use crate::store::error::StoreError;
use crate::store::local::LocalStore;
use crate::store::session::Session;

use super::context::SharedRoots;
use super::input::Input;
use super::revision;
use super::sources::Sources;
use super::{Driver, Mode};

/// Attrs whose closures are measured.
const MEASURED: usize = 50;

/// Paths of the repository that are told.
const PATHS: usize = 200;

/// The base, looked at again.
pub(super) enum BaseAgain {
    /// Not yet over.
    Underway,
    /// Its source, as far as it could be had: a record of it does not hold that.
    Done(Option<Box<Locked>>),
}

/// What it takes to look at the base again.
struct Looking {
    options: EvalOptions,
    /// The base, locked.
    reference: String,
    /// Somebody asked for this base, so that it may be evaluated.
    asked: bool,
    /// Its derivations that are compared, with the names of their attrs.
    drvs: Vec<(Name, StorePath)>,
    roots: SharedRoots,
    imports: mpsc::UnboundedSender<Import>,
}

impl Looking {
    /// Locks the base as it was, and makes its derivations again that were collected.
    async fn find(self) -> Option<Locked> {
        let flake = FlakeOptions { reference: self.reference.clone(), ..self.options.flake.clone() };
        match flake::lock(&self.options.nix, &flake).await {
            Ok(locked) => {
                self.bring_back(flake, &locked).await;
                Some(locked)
            }
            Err(error) => {
                tracing::debug!(error = %crate::error::chain(&error), "cannot look at the source of the base");
                None
            }
        }
    }

    /// Attrs of the base whose derivations were collected are evaluated once more, if somebody asked for this base.
    /// Derivations that are there are held from now on.
    async fn bring_back(&self, flake: FlakeOptions, base: &Locked) {
        let drvs: Vec<StorePath> = self.drvs.iter().map(|(_, drv)| drv.clone()).collect();
        let Ok(valid) = self.roots.lock().await.valid(&drvs).await else { return };
        let gone = self.drvs.iter().zip(valid).filter(|(_, valid)| !valid);
        let names: Vec<Name> = gone.map(|((name, _), _)| name.clone()).collect();
        if names.is_empty() || !self.asked {
            return;
        }
        let selection = Selection { names, ..self.options.selection.clone() };
        let again = EvalOptions { flake, selection, ..self.options.clone() };
        let mut evaluator = Evaluator::start(again, base.clone(), None);
        while let Some(message) = evaluator.next().await {
            match message {
                // Its attrs have no numbers here. If the run has ended, nobody answers.
                EvalMsg::Import(import) => drop(self.imports.send(Import { attr: None, ..import })),
                EvalMsg::Ended { answer: Answer::Drv(drv), ack, .. } => {
                    // What cannot be held may be gone when it is read; then that is said.
                    let _ = self.roots.lock().await.hold(std::slice::from_ref(&drv.drv)).await;
                    drop(ack);
                }
                EvalMsg::Fatal(error) => {
                    tracing::warn!(%error, "cannot evaluate the base again");
                    return;
                }
                _ => {}
            }
        }
    }
}

/// Reads what a comparison asks for, until it asks for nothing more.
pub(super) async fn walk(store: &LocalStore, lockstep: &mut Lockstep) {
    loop {
        let paths = lockstep.questions();
        if paths.is_empty() {
            return;
        }
        let read = store.read_drvs_as(paths.clone(), |_, drv| drv).await;
        for (path, drv) in paths.iter().zip(read) {
            match drv {
                Ok(drv) => lockstep.loaded(path, drv),
                Err(error) => {
                    tracing::debug!(%path, error = %crate::error::chain(&error), "cannot read a derivation");
                    lockstep.failed(path);
                }
            }
        }
    }
}

impl Driver {
    /// What makes the attrs differ that do; `None` if nothing was compared.
    pub(super) async fn changed(&self) -> Option<report::Answer> {
        let summary = Summary::of(self.ctx.bus.events());
        let known = summary.base.as_ref()?;
        let source = self.evaluation.source();
        let base = match &self.base_again {
            Some(BaseAgain::Done(base)) => base.as_deref(),
            Some(BaseAgain::Underway) | None => None,
        };
        let masks = base.zip(source).map(|(base, (_, head))| revision::masks(base, head, None)).unwrap_or_default();
        let compared = self.compared(&summary);
        let mut lockstep = Lockstep::new(masks);
        for (_, base, head) in &compared {
            lockstep.compare(base, head);
        }
        walk(&self.ctx.eval_store, &mut lockstep).await;
        let paths = match source {
            Some((options, head)) => changed_paths(options, known.rev.as_deref(), head).await,
            None => Vec::new(),
        };
        let mut answer = report::Answer { base: known.label.to_string(), paths, ..report::Answer::default() };
        let mut causes: BTreeMap<(StorePath, StorePath), usize> = BTreeMap::new();
        let mut found: Vec<Arc<Cause>> = Vec::new();
        let mut whys: BTreeMap<AttrId, report::Attr> = BTreeMap::new();
        let all = lockstep.causes(compared.iter().map(|(_, base, head)| (base, head)));
        let names = |one: &Reached| one.drvs.iter().map(|(_, head)| self.step(head)).collect();
        answer.folds = all.iter().map(|one| (one.fold, names(one))).collect();
        for (id, base, head) in &compared {
            let (Some(why), Some(attr)) = (lockstep.why(base, head), summary.attrs.get(id)) else { continue };
            let reached = why.causes.iter().map(|reached| {
                let key = (reached.cause.base.clone(), reached.cause.head.clone());
                let cause = *causes.entry(key).or_insert_with(|| {
                    found.push(Arc::clone(&reached.cause));
                    found.len() - 1
                });
                let steps = |of: &[(StorePath, StorePath)]| of.iter().map(|(_, head)| self.step(head)).collect();
                let (chain, drvs) = (steps(&reached.chain), steps(&reached.drvs));
                report::Reached { cause, chain, fold: reached.fold, drvs, count: reached.count }
            });
            let plain = self.attr(attr.path.to_string(), &attr.name, attr.compared.as_ref());
            let causes = reached.collect();
            let (more, revision_only) = (why.more, why.revision_only);
            let same_outputs = plain.same_outputs || why.same_outputs;
            answer.cut |= why.cut;
            whys.insert(*id, report::Attr { causes, more, revision_only, same_outputs, ..plain });
        }
        for (id, attr) in &summary.attrs {
            let Some(compared) = &attr.compared else { continue };
            let mut one =
                whys.remove(id).unwrap_or_else(|| self.attr(attr.path.to_string(), &attr.name, Some(compared)));
            if let Some((_, Evaluated::Failed(failure))) = &attr.evaluated {
                one.error = Some(failure.message.to_string());
            }
            answer.attrs.push(one);
        }
        for (path, _) in &summary.removed {
            let difference = Difference::Removed;
            let name: Text = path.last().into();
            answer.attrs.push(report::Attr { difference, ..self.attr(path.to_string(), &name, None) });
        }
        let sources = Sources::new(&self.ctx.eval_store, source.and_then(|(_, head)| head.work_tree()), &answer.paths);
        answer.causes = found.iter().map(|cause| self.cause(cause, Some(&sources))).collect();
        self.measure(&mut answer, &compared, &summary).await;
        Some(answer)
    }

    /// Whether the base has been looked at again, which is begun if it has not; only `why` needs that.
    pub(super) fn is_base_there(&mut self) -> bool {
        if self.base_again.is_none() {
            let looking = if self.mode == Mode::Why { self.look_again() } else { None };
            self.base_again = Some(match looking {
                Some(looking) => {
                    self.ctx.tasks.start(async move { Input::BaseAgain(looking.find().await.map(Box::new)) });
                    BaseAgain::Underway
                }
                None => BaseAgain::Done(None),
            });
        }
        matches!(self.base_again, Some(BaseAgain::Done(_)))
    }

    fn look_again(&self) -> Option<Looking> {
        let (options, _) = self.evaluation.source()?;
        let summary = Summary::of(self.ctx.bus.events());
        let reference = summary.base.as_ref()?.locked.to_string();
        let name = |id: &AttrId| Name::parse(&summary.attrs.get(id)?.path.to_string()).ok();
        let compared = self.compared(&summary);
        Some(Looking {
            options: options.clone(),
            reference,
            asked: self.ctx.settings.base.asked.is_some(),
            drvs: compared.into_iter().filter_map(|(id, base, _)| Some((name(&id)?, base))).collect(),
            roots: self.ctx.eval_roots.clone(),
            imports: self.ctx.imports.clone(),
        })
    }

    /// Attrs that have another drv, with both.
    pub(super) fn compared(&self, summary: &Summary) -> Vec<(AttrId, StorePath, StorePath)> {
        let dir = self.ctx.store_dir();
        let of = |(id, attr): (&AttrId, &crate::report::summary::Attr)| {
            let compared = attr.compared.as_ref().filter(|compared| compared.difference == Difference::Changed)?;
            let base = dir.parse_path(compared.base_drv.as_deref()?.as_bytes()).ok()?;
            let head = self.attrs.get(*id)?.answer.as_ref()?.drv.clone();
            Some((*id, base, head))
        };
        summary.attrs.iter().filter_map(of).collect()
    }

    fn attr(&self, attr: String, name: &Text, compared: Option<&Compared>) -> report::Attr {
        report::Attr {
            attr,
            name: name.to_string(),
            difference: compared.map_or(Difference::Unchanged, |compared| compared.difference),
            same_outputs: compared.is_some_and(|compared| compared.same_outputs),
            revision_only: compared.is_some_and(|compared| compared.revision_only),
            causes: Vec::new(),
            more: false,
            closure: None,
            error: None,
        }
    }

    fn step(&self, drv: &StorePath) -> (Text, Text) {
        (self.ctx.absolute(drv), drv.name().strip_suffix(".drv").unwrap_or(drv.name()).into())
    }

    /// `sources`: what is in the sources that differ is told, too.
    pub(super) fn cause(&self, cause: &Cause, sources: Option<&Sources>) -> report::Cause {
        let dir = self.ctx.store_dir();
        let path = |text: &Option<String>| dir.parse_path(text.as_deref()?.as_bytes()).ok();
        let details = cause.differences.iter().map(|one| {
            let is_source = matches!(one.kind, CauseKind::Source | CauseKind::Patch) && !one.revision;
            let files = sources.filter(|_| is_source);
            let files = files.map(|sources| sources.files(path(&one.base).as_ref(), path(&one.head).as_ref()));
            report::Detail {
                kind: one.kind,
                name: one.name.clone(),
                base: one.base.clone(),
                head: one.head.clone(),
                revision: one.revision,
                files: files.unwrap_or_default(),
            }
        });
        report::Cause {
            kind: cause.kind,
            name: cause.name.clone(),
            from: cause.from.clone(),
            to: cause.to.clone(),
            base_drv: self.ctx.absolute(&cause.base),
            head_drv: self.ctx.absolute(&cause.head),
            same_outputs: cause.same_outputs,
            details: details.collect(),
        }
    }

    /// The sizes of closures, where the outputs of both sides are in the store.
    async fn measure(
        &self,
        answer: &mut report::Answer,
        compared: &[(AttrId, StorePath, StorePath)],
        summary: &Summary,
    ) {
        if compared.len() > MEASURED {
            return;
        }
        let Ok(mut session) = self.ctx.store.connect().await else { return };
        for (id, base, head) in compared {
            let Some(path) = summary.attrs.get(id).map(|attr| attr.path.to_string()) else { continue };
            let Some(attr) = answer.attrs.iter_mut().find(|attr| attr.attr == path) else { continue };
            let read = self.ctx.eval_store.read_drvs(vec![base.clone(), head.clone()]).await;
            let outputs = |drv: &Result<Derivation, StoreError>| -> Option<Vec<StorePath>> {
                drv::output_paths(drv.as_ref().ok()?).ok()?.into_values().collect()
            };
            let Some((base, head)) = read.first().and_then(outputs).zip(read.last().and_then(outputs)) else {
                continue;
            };
            let sizes = async {
                let head = closure_size(&mut session, head).await?;
                Some((closure_size(&mut session, base).await?, head))
            };
            attr.closure = sizes.await;
        }
    }
}

/// What differs in the repository.
async fn changed_paths(options: &EvalOptions, base: Option<&str>, head: &Locked) -> Vec<String> {
    let (Some(base), Some(dir)) = (base, head.work_tree().filter(|_| head.original.starts_with("git+file:"))) else {
        return Vec::new();
    };
    let mut paths = git::changed_paths(&options.nix, &dir, base, head.rev.as_deref()).await.unwrap_or_default();
    paths.truncate(PATHS);
    paths
}

/// Bytes of these paths and all that they refer to; `None` if they are not all in the store.
async fn closure_size(session: &mut Session, mut next: Vec<StorePath>) -> Option<u64> {
    let mut sizes: BTreeMap<StorePath, u64> = BTreeMap::new();
    while !next.is_empty() {
        let infos = session.path_infos(&next).await.ok()?;
        let mut more = Vec::new();
        for (path, info) in next.iter().zip(infos) {
            let info = info?;
            sizes.insert(path.clone(), info.nar_size);
            more.extend(info.others().cloned());
        }
        more.sort();
        more.dedup();
        more.retain(|path| !sizes.contains_key(path));
        next = more;
    }
    Some(sizes.values().sum())
}
