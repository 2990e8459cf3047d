//! The part of a run that compares: waits for the base before the head is evaluated, says of each answered attr how it
//! differs, and in the end which attrs differ only by the revision. Without a base it does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::BaseSettings;
use crate::diff::compare::{self, Compared, Known, Side};
use crate::error::Error;
use crate::eval::Answer;
use crate::event::{Difference, Fact, Moment, SkippedPath, Text};
use crate::id::{AttrId, AttrPath, System};

use super::base::{Answers, Asked, Base, Found, Progress, Search};
use super::context::Context;
use super::input::Input;
use super::recall::Located;
use super::revision::{self, Pair};

/// µs between two words about how far the base is.
const PROGRESS: u64 = 1_000_000;

/// See the module's page.
#[derive(Default)]
pub(super) struct Comparing {
    asked: Option<Asked>,
    /// Nothing can be answered without a base.
    needed: bool,
    /// What differs only by the revision does not count.
    ignore_revision: bool,
    search: Option<Arc<Search>>,
    /// The head, while the base is looked for.
    waiting: Option<Box<Located>>,
    progress: Arc<Progress>,
    told: Option<(Moment, u32)>,
    base: Option<Arc<Base>>,
    /// The base, as it is compared.
    side: Side,
    /// Attrs of the base that would be left out for their system.
    left_out: BTreeSet<AttrPath>,
    head: Side,
    /// Attrs that have another drv.
    changed: BTreeMap<AttrId, Changed>,
    /// It is being found out which of them differ only by the revision.
    asking: bool,
    /// What their derivations do not say is asked of both sides with the revision masked.
    masked: bool,
}

/// An attr with another drv.
struct Changed {
    path: AttrPath,
    pair: Pair,
    same_outputs: bool,
    base_drv: Option<Text>,
}

/// What comes of an answered attr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It differs, or there is nothing to compare it with.
    Affected,
    /// It is as on the base, or gives the same; why, where the drv does not say it.
    Unaffected(Option<&'static str>),
    /// That is known when all attrs are answered.
    Later,
}

/// What is to be done once the base is known, or will not be.
pub(super) enum Next {
    /// The head is evaluated.
    Evaluate(Box<Located>),
    /// The head is taken to answer the same.
    Replay(Answers),
    /// No head waits.
    Nothing,
}

/// What is known in the end of attrs whose verdict came later.
#[derive(Debug, Default)]
pub(super) struct Late {
    pub(super) unaffected: Vec<AttrId>,
    pub(super) affected: Vec<AttrId>,
}

impl Comparing {
    /// What the settings ask for. `needed`: without a base there is nothing to do.
    pub(super) fn new(settings: &BaseSettings, needed: bool) -> Self {
        let named = settings.asked.clone().map(Asked::Named);
        let asked = named.or_else(|| settings.pull_request.clone().map(Asked::PullRequest));
        Self { asked, needed, ignore_revision: settings.ignore_revision, ..Self::default() }
    }

    /// Where the head and the base come from, once there is a base.
    pub(super) fn sides(&self) -> Option<(Arc<Search>, Arc<Base>)> {
        Some((Arc::clone(self.search.as_ref()?), Arc::clone(self.base.as_ref()?)))
    }

    /// Whether there is neither a base nor a way to one.
    pub(super) fn is_impossible(&self) -> bool {
        self.needed && self.asked.is_none()
    }

    /// The base that is to be found before the head is evaluated, once; and where it is said how far that is.
    pub(super) fn take_asked(&mut self) -> Option<(Asked, Arc<Progress>)> {
        self.asked.take().map(|asked| (asked, self.progress.clone()))
    }

    /// The base is looked for; the head waits.
    pub(super) fn wait(&mut self, located: Box<Located>, search: Arc<Search>) {
        self.waiting = Some(located);
        self.search = Some(search);
    }

    /// The search for the base is over: gives what to go on with. `is_left_out`: attrs of which systems are not taken.
    pub(super) fn found(
        &mut self,
        ctx: &mut Context,
        found: Found,
        is_left_out: impl Fn(&System) -> bool,
    ) -> Result<Next, Error> {
        match found {
            Found::Base(base) => {
                let skipped = (!base.skipped.is_empty()).then(|| base.answers.clone());
                self.take(ctx, *base, is_left_out);
                if let Some(answers) = skipped {
                    self.waiting = None;
                    return Ok(Next::Replay(answers));
                }
            }
            Found::Missing(missing) if self.needed => return Err(Error::usage(missing.message).hint(missing.hint)),
            Found::Missing(missing) => {
                let (message, hint) = (missing.message.into(), Some(missing.hint.into()));
                ctx.bus.emit(Fact::BaseMissing { message, hint });
            }
        }
        Ok(self.waiting.take().map_or(Next::Nothing, Next::Evaluate))
    }

    fn take(&mut self, ctx: &mut Context, base: Base, is_left_out: impl Fn(&System) -> bool) {
        let of_other_system = |answer: &Answer| matches!(answer, Answer::Drv(drv) if is_left_out(&drv.system));
        let left_out = base.answers.iter().filter(|(_, answer)| of_other_system(answer));
        self.left_out = left_out.map(|(path, _)| path.clone()).collect();
        self.side = base.answers.iter().map(|(path, answer)| (path.clone(), known(answer))).collect();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        ctx.bus.emit(Fact::BaseKnown {
            label: base.label.as_str().into(),
            rev: base.rev.as_deref().map(Into::into),
            locked: base.reference.as_str().into(),
            recorded: base.recorded,
            attrs: number(self.side.len() - self.left_out.len()),
            failed: number(self.side.values().filter(|known| **known == Known::Failed).count()),
        });
        if !base.skipped.is_empty() {
            let named = |(path, glob): &(String, String)| SkippedPath {
                path: path.as_str().into(),
                glob: glob.as_str().into(),
            };
            ctx.bus.emit(Fact::ChangesSkipped { paths: base.skipped.iter().map(named).collect() });
        }
        self.base = Some(Arc::new(base));
    }

    /// Time passes: says how far the base is, now and then.
    pub(super) fn tick(&mut self, ctx: &mut Context) {
        if self.waiting.is_none() {
            return;
        }
        let now = ctx.bus.now();
        let Some((label, done, total)) = self.progress.look() else { return };
        let due = self.told.is_none_or(|(at, known)| now.0.saturating_sub(at.0) >= PROGRESS && known != done);
        if due {
            self.told = Some((now, done));
            ctx.bus.emit(Fact::BaseProgress { label: label.into(), done, total });
        }
    }

    /// An attr of the head is answered.
    pub(super) fn answered(&mut self, ctx: &mut Context, attr: AttrId, path: &AttrPath, answer: &Answer) -> Verdict {
        if self.base.is_none() {
            return Verdict::Affected;
        }
        let head = known(answer);
        let Compared { difference, same_outputs } = compare::compare(&self.side, path, &head);
        let before = self.side.get(path);
        let base_drv = drv_of(ctx, before);
        let (fact_drv, mut later) = (base_drv.clone(), false);
        if let (Difference::Changed, Some(Known::Drv { drv: base, .. }), Known::Drv { drv, .. }) =
            (difference, before, &head)
        {
            let pair = Pair { attr, base: base.clone(), head: drv.clone() };
            self.changed.insert(attr, Changed { path: path.clone(), pair, same_outputs, base_drv });
            later = self.ignore_revision;
        }
        self.left_out.remove(path);
        self.head.insert(path.clone(), head);
        ctx.bus.emit(Fact::AttrCompared { attr, difference, revision_only: false, same_outputs, base_drv: fact_drv });
        match difference {
            Difference::Unchanged => Verdict::Unaffected(None),
            _ if same_outputs => Verdict::Unaffected(Some("its drv differs, and gives the same outputs")),
            _ if later => Verdict::Later,
            _ => Verdict::Affected,
        }
    }

    /// All of the head is answered: says what is gone, and looks at what has changed.
    pub(super) fn end(&mut self, ctx: &mut Context) {
        let (Some(base), Some(search)) = (self.base.clone(), self.search.clone()) else { return };
        let removed = compare::removed(&self.side, &self.head).filter(|(path, _)| !self.left_out.contains(*path));
        let removed: Vec<(AttrPath, Option<Text>)> =
            removed.map(|(path, known)| (path.clone(), drv_of(ctx, Some(known)))).collect();
        for (path, base_drv) in removed {
            ctx.bus.emit(Fact::AttrRemoved { path, base_drv });
        }
        let pairs: Vec<Pair> = self.changed.values().map(|changed| changed.pair.clone()).collect();
        if !pairs.is_empty() {
            self.asking = true;
            let only = revision::only(search, base, ctx.eval_store.clone(), pairs);
            ctx.tasks.start(async move { Input::OnlyRevision(only.await) });
        }
    }

    /// There is a base, and it is known.
    pub(super) fn has_base(&self) -> bool {
        self.base.is_some()
    }

    /// The commit of the base, if there is a base and it has one.
    pub(super) fn rev(&self) -> Option<String> {
        self.base.as_ref()?.rev.clone()
    }

    /// Nothing more will be said.
    pub(super) fn is_over(&self) -> bool {
        !self.asking && self.waiting.is_none()
    }

    /// Asks both sides, with the revision masked, for what differs by more than the revision as far as is known; once, and
    /// if that can be done. `told`: what differs by it alone.
    fn mask(&mut self, ctx: &mut Context, told: &[AttrId]) -> bool {
        let (Some(base), Some(search)) = (self.base.clone(), self.search.clone()) else { return false };
        let left = self.changed.iter().filter(|(attr, _)| !told.contains(attr));
        let left: Vec<(AttrId, AttrPath)> = left.map(|(attr, changed)| (*attr, changed.path.clone())).collect();
        if self.masked || !self.ignore_revision || left.is_empty() || !revision::is_maskable(&search) {
            return false;
        }
        self.masked = true;
        ctx.bus.emit(Fact::RevisionMasked { attrs: u32::try_from(left.len()).unwrap_or(u32::MAX) });
        let mut told = told.to_vec();
        let only = revision::only_masked(search, base, ctx.eval_store.clone(), left);
        ctx.tasks.start(async move {
            told.extend(only.await);
            Input::OnlyRevision(told)
        });
        true
    }

    /// Which attrs differ only by the revision, as far as is known.
    pub(super) fn only_revision(&mut self, ctx: &mut Context, attrs: &[AttrId]) -> Late {
        if self.mask(ctx, attrs) {
            return Late::default();
        }
        self.asking = false;
        let mut late = Late::default();
        for (attr, changed) in std::mem::take(&mut self.changed) {
            let revision_only = attrs.contains(&attr);
            if revision_only {
                let difference = if self.ignore_revision { Difference::Unchanged } else { Difference::Changed };
                let Changed { same_outputs, base_drv, .. } = changed;
                ctx.bus.emit(Fact::AttrCompared { attr, difference, revision_only, same_outputs, base_drv });
            }
            if self.ignore_revision && !changed.same_outputs {
                if revision_only { &mut late.unaffected } else { &mut late.affected }.push(attr);
            }
        }
        late
    }
}

/// The absolute path of a side's drv.
fn drv_of(ctx: &Context, known: Option<&Known>) -> Option<Text> {
    match known? {
        Known::Drv { drv, .. } => Some(ctx.absolute(drv)),
        Known::Nothing | Known::Failed => None,
    }
}

fn known(answer: &Answer) -> Known {
    match answer {
        Answer::Drv(answer) => Known::Drv { drv: answer.drv.clone(), outputs: answer.outputs.clone() },
        Answer::Nothing(_) => Known::Nothing,
        Answer::Failed(_) | Answer::Finding(_) => Known::Failed,
    }
}
