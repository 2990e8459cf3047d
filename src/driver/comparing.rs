//! The part of a run that compares: waits for the base before the head is evaluated, and says of each answered attr how
//! it differs. Without a base it does nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::BaseSettings;
use crate::diff::compare::{self, Compared, Known, Side};
use crate::error::Error;
use crate::eval::Answer;
use crate::event::{Difference, Fact, Moment, Text};
use crate::id::{AttrId, AttrPath, System};

use super::base::{Asked, Base, Found, Progress};
use super::context::Context;
use super::recall::Located;

/// µs between two words about how far the base is.
const PROGRESS: u64 = 1_000_000;

/// See the module's page.
#[derive(Default)]
pub(super) struct Comparing {
    asked: Option<Asked>,
    /// Nothing can be answered without a base.
    needed: bool,
    /// The head, while the base is looked for.
    waiting: Option<Box<Located>>,
    progress: Arc<Progress>,
    told: Option<(Moment, u32)>,
    base: Option<Side>,
    /// Attrs of the base that would be left out for their system.
    left_out: BTreeSet<AttrPath>,
    head: Side,
}

/// What an attr that is compared needs.
pub(super) struct Verdict {
    /// It is as on the base, or gives the same.
    pub(super) unaffected: bool,
    /// Why, where the drv does not say it.
    pub(super) reason: Option<&'static str>,
}

impl Comparing {
    /// What the settings ask for. `needed`: without a base there is nothing to do.
    pub(super) fn new(settings: &BaseSettings, needed: bool) -> Self {
        let named = settings.asked.clone().map(Asked::Named);
        let asked = named.or_else(|| settings.pull_request.clone().map(Asked::PullRequest));
        Self { asked, needed, ..Self::default() }
    }

    /// Whether there is neither a base nor a way to one.
    pub(super) fn is_impossible(&self) -> bool {
        self.needed && self.asked.is_none()
    }

    /// The base that has to be found before the head is evaluated, which waits here.
    pub(super) fn before(
        &mut self,
        located: Box<Located>,
    ) -> std::result::Result<(Asked, Arc<Progress>), Box<Located>> {
        match self.asked.take() {
            None => Err(located),
            Some(asked) => {
                self.waiting = Some(located);
                Ok((asked, self.progress.clone()))
            }
        }
    }

    /// The head that waits.
    pub(super) fn head(&self) -> Option<&Located> {
        self.waiting.as_deref()
    }

    /// The search for the base is over: gives the head, to go on with. `is_left_out`: attrs of which systems are not
    /// taken.
    pub(super) fn found(
        &mut self,
        ctx: &mut Context,
        found: Found,
        is_left_out: impl Fn(&System) -> bool,
    ) -> Result<Option<Box<Located>>, Error> {
        match found {
            Found::Base(base) => self.take(ctx, *base, is_left_out),
            Found::Missing(missing) if self.needed => return Err(Error::usage(missing.message).hint(missing.hint)),
            Found::Missing(missing) => {
                let (message, hint) = (missing.message.into(), Some(missing.hint.into()));
                ctx.bus.emit(Fact::BaseMissing { message, hint });
            }
        }
        Ok(self.waiting.take())
    }

    fn take(&mut self, ctx: &mut Context, base: Base, is_left_out: impl Fn(&System) -> bool) {
        let of_other_system = |answer: &Answer| matches!(answer, Answer::Drv(drv) if is_left_out(&drv.system));
        let left_out = base.answers.iter().filter(|(_, answer)| of_other_system(answer));
        self.left_out = left_out.map(|(path, _)| path.clone()).collect();
        let side: Side = base.answers.iter().map(|(path, answer)| (path.clone(), known(answer))).collect();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        ctx.bus.emit(Fact::BaseKnown {
            label: base.label.as_str().into(),
            rev: base.rev.as_deref().map(Into::into),
            locked: base.reference.as_str().into(),
            recorded: base.recorded,
            attrs: number(side.len() - self.left_out.len()),
            failed: number(side.values().filter(|known| **known == Known::Failed).count()),
        });
        self.base = Some(side);
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

    /// An attr of the head is answered; `None` if there is nothing to compare it with.
    pub(super) fn answered(
        &mut self,
        ctx: &mut Context,
        attr: AttrId,
        path: &AttrPath,
        answer: &Answer,
    ) -> Option<Verdict> {
        let base = self.base.as_ref()?;
        let head = known(answer);
        let Compared { difference, same_outputs } = compare::compare(base, path, &head);
        let base_drv = drv_of(ctx, base.get(path));
        self.left_out.remove(path);
        self.head.insert(path.clone(), head);
        ctx.bus.emit(Fact::AttrCompared { attr, difference, revision_only: false, same_outputs, base_drv });
        Some(Verdict {
            unaffected: difference == Difference::Unchanged || same_outputs,
            reason: same_outputs.then_some("its drv differs, and gives the same outputs"),
        })
    }

    /// All of the head is answered: says what is gone.
    pub(super) fn end(&mut self, ctx: &mut Context) {
        let Some(base) = self.base.take() else { return };
        let removed = compare::removed(&base, &self.head).filter(|(path, _)| !self.left_out.contains(*path));
        let removed: Vec<(AttrPath, Option<Text>)> =
            removed.map(|(path, known)| (path.clone(), drv_of(ctx, Some(known)))).collect();
        for (path, base_drv) in removed {
            ctx.bus.emit(Fact::AttrRemoved { path, base_drv });
        }
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
        Answer::Failed(_) => Known::Failed,
    }
}
