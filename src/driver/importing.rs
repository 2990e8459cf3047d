//! Imports from derivations: what attrs cannot be evaluated without. Each is planned and built like a drv that an attr
//! asks for, also in a plan, and then brought into the store that evaluates.
//!
//! The planner knows an import as an attr of its own, with a number that no attr has. Several attrs that import from one
//! drv have an import each; the drv is built once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::build;
use crate::diff::plan::Decision;
use crate::eval::{Import, Imported};
use crate::event::{Class, DrvOutcome, Fact, Failure, Status};
use crate::id::{AttrId, DrvId, StorePath};

use super::building::Ended;
use super::context::Context;
use super::input::Input;
use super::planning::Planning;

/// One import that is waited for.
struct Open {
    /// The attr that imports; `None` while attrs are listed.
    attr: Option<AttrId>,
    drv: DrvId,
    path: StorePath,
    /// Which outputs; none means all, once it is known which these are.
    outputs: Vec<Arc<str>>,
    reply: oneshot::Sender<Imported>,
}

/// See the module's page.
#[derive(Default)]
pub(super) struct Importing {
    /// By the number that the planner knows.
    open: BTreeMap<AttrId, Open>,
    /// Imports of which the planner has not said yet what is to be done.
    undecided: BTreeSet<AttrId>,
    /// Which wait for the end of a drv.
    waiting: BTreeMap<DrvId, Vec<AttrId>>,
    /// What attrs could not import: the drv that failed.
    failed: BTreeMap<AttrId, DrvId>,
    /// How many there have been.
    count: u32,
}

impl Importing {
    /// An attr wants to import: the planner is asked.
    pub(super) fn begin(&mut self, ctx: &mut Context, planning: &mut Planning, import: Import) {
        let Import { attr, drv: path, outputs, reply } = import;
        let name = path.name().trim_end_matches(".drv").into();
        ctx.bus.emit(Fact::ImportStarted { attr, path: ctx.absolute(&path), name });
        let drv = planning.graph.intern(&path);
        let outputs = outputs.iter().map(|output| Arc::from(output.as_str())).collect();
        // Its evaluator may be replaced while it is built.
        let (roots, held) = (ctx.eval_roots.clone(), path.clone());
        ctx.tasks.start(async move {
            let _ = roots.lock().await.hold(&[held]).await;
            Input::Idle
        });
        self.ask(ctx, planning, Open { attr, drv, path, outputs, reply });
    }

    fn ask(&mut self, ctx: &mut Context, planning: &mut Planning, open: Open) {
        // Attrs are numbered from 0.
        let number = AttrId(u32::MAX - self.count);
        self.count += 1;
        planning.want_here(ctx, number, open.drv, open.outputs.clone());
        self.open.insert(number, open);
        self.undecided.insert(number);
    }

    /// The attr on whose behalf something is needed.
    fn attr_of(&self, number: AttrId) -> Option<AttrId> {
        self.open.get(&number).map_or(Some(number), |open| open.attr)
    }

    /// Whether there has been one.
    pub(super) fn any(&self) -> bool {
        self.count > 0
    }

    /// Whether this is the number of an import.
    pub(super) fn is_import(&self, number: AttrId) -> bool {
        self.open.contains_key(&number)
    }

    /// Attrs by their own numbers in what concerns an item.
    pub(super) fn named(&self, decision: Decision) -> Decision {
        match decision {
            Decision::Item { drv, work, inputs, attr } => {
                Decision::Item { drv, work, inputs, attr: attr.and_then(|attr| self.attr_of(attr)) }
            }
            Decision::Unreadable { drv, failure, attr } => {
                Decision::Unreadable { drv, failure, attr: attr.and_then(|attr| self.attr_of(attr)) }
            }
            Decision::Attr { .. } => decision,
        }
    }

    /// The planner knows what is to be done for an import. Gives the drv that has to be built or fetched.
    pub(super) fn planned(
        &mut self,
        ctx: &mut Context,
        planning: &mut Planning,
        number: AttrId,
        status: Status,
        outcomes: &BTreeMap<DrvId, DrvOutcome>,
    ) -> Option<DrvId> {
        self.undecided.remove(&number);
        let open = self.open.get(&number)?;
        let drv = open.drv;
        if open.outputs.is_empty() && status == Status::Valid {
            let names: Vec<Arc<str>> = planning
                .graph
                .info(drv)
                .map(|info| info.outputs.iter().map(|output| Arc::clone(&output.name)).collect())
                .unwrap_or_default();
            if !names.is_empty() {
                let open = self.open.remove(&number)?;
                self.ask(ctx, planning, Open { outputs: names, ..open });
                return None;
            }
        }
        if status == Status::Valid {
            self.there(ctx, planning, number, &[]);
            return None;
        }
        match outcomes.get(&drv) {
            Some(outcome) => {
                let ended = Ended { drv, outcome: outcome.clone(), outputs: Vec::new() };
                self.end(ctx, planning, number, &ended, outcomes);
            }
            None => self.waiting.entry(drv).or_default().push(number),
        }
        Some(drv)
    }

    /// A drv has its final word.
    pub(super) fn drv_ended(
        &mut self,
        ctx: &mut Context,
        planning: &Planning,
        ended: &Ended,
        outcomes: &BTreeMap<DrvId, DrvOutcome>,
    ) {
        for number in self.waiting.remove(&ended.drv).unwrap_or_default() {
            self.end(ctx, planning, number, ended, outcomes);
        }
    }

    fn end(
        &mut self,
        ctx: &mut Context,
        planning: &Planning,
        number: AttrId,
        ended: &Ended,
        outcomes: &BTreeMap<DrvId, DrvOutcome>,
    ) {
        let drv = ended.drv;
        match &ended.outcome {
            DrvOutcome::Built | DrvOutcome::Fetched | DrvOutcome::Valid => {
                self.there(ctx, planning, number, &ended.outputs);
            }
            DrvOutcome::Failed(failure) => self.fail(ctx, number, drv, failure.clone()),
            DrvOutcome::DependencyFailed { root } => {
                let name = planning.graph.path(*root).name().trim_end_matches(".drv").to_owned();
                let failure = match outcomes.get(root) {
                    Some(DrvOutcome::Failed(failure)) => {
                        let message = format!("{name}, which it needs: {}", failure.message);
                        Failure { message: message.into(), ..failure.clone() }
                    }
                    _ => Failure::new(Class::Dependency, format!("{name}, which it needs, failed")),
                };
                self.fail(ctx, number, *root, failure);
            }
            DrvOutcome::Cancelled => self.fail(ctx, number, drv, Failure::new(Class::Cancelled, "the run was stopped")),
        }
    }

    /// The outputs are in a store. Where another one evaluates, they are brought there.
    fn there(&mut self, ctx: &mut Context, planning: &Planning, number: AttrId, outputs: &[StorePath]) {
        let Some(open) = self.open.get(&number) else { return };
        let info = planning.graph.info(open.drv);
        let known = info.into_iter().flat_map(|info| &info.outputs);
        let known = known.filter(|output| open.outputs.contains(&output.name)).filter_map(|output| output.path.clone());
        let asked: BTreeSet<StorePath> = known.collect();
        let paths: Vec<StorePath> = asked.iter().chain(outputs).collect::<BTreeSet<_>>().into_iter().cloned().collect();
        if ctx.store.uri() == ctx.eval_store.uri() && (!ctx.is_farm || ctx.site.holdings.hold_all(&paths)) {
            return self.answer(ctx, number, Ok(paths));
        }
        let (site, to, from) = (ctx.site.clone(), ctx.eval_site.clone(), planning.sources(ctx, &paths));
        let elsewhere: BTreeSet<StorePath> =
            paths.iter().filter(|path| asked.contains(*path) || !ctx.sites.holders(path).is_empty()).cloned().collect();
        ctx.tasks.start(async move {
            // Outputs that nobody asked for may be nowhere.
            let valid = site.valid(&paths).await.unwrap_or_default();
            let there = paths.into_iter().zip(valid).filter(|(path, valid)| *valid || elsewhere.contains(path));
            let there: Vec<StorePath> = there.map(|(path, _)| path).collect();
            let brought = build::bring(&to, &there, &from, &|_| {}).await;
            Input::Imported(number, brought.map(|_| there).map_err(|error| error.failure))
        });
    }

    /// The outputs are in the store that evaluates, or cannot be brought there.
    pub(super) fn copied(&mut self, ctx: &mut Context, number: AttrId, result: Imported) {
        self.answer(ctx, number, result);
    }

    fn fail(&mut self, ctx: &mut Context, number: AttrId, root: DrvId, failure: Failure) {
        if let Some(attr) = self.open.get(&number).and_then(|open| open.attr) {
            self.failed.insert(attr, root);
        }
        self.answer(ctx, number, Err(failure));
    }

    fn answer(&mut self, ctx: &mut Context, number: AttrId, result: Imported) {
        let Some(open) = self.open.remove(&number) else { return };
        let (path, failure) = (ctx.absolute(&open.path), result.as_ref().err().cloned());
        ctx.bus.emit(Fact::ImportEnded { attr: open.attr, path, failure });
        // If the evaluation has been stopped, nobody wants to know.
        let _ = open.reply.send(result);
    }

    /// The planner will decide nothing more of what it has been asked.
    pub(super) fn give_up(&mut self, ctx: &mut Context, why: &str) {
        for number in std::mem::take(&mut self.undecided) {
            let Some(drv) = self.open.get(&number).map(|open| open.drv) else { continue };
            self.fail(ctx, number, drv, Failure::new(Class::Dependency, why));
        }
    }

    /// Whether the planner has still to decide something.
    pub(super) fn is_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// The drv because of which an attr could not be evaluated.
    pub(super) fn root_of(&self, attr: AttrId) -> Option<DrvId> {
        self.failed.get(&attr).copied()
    }
}
