//! The wall-time account: every microsecond of a run has one owner.
//!
//! Walks back from the end of the run. Each interval belongs to what the run was waiting for: closing ← the push tail
//! ← the last attempt ← its latest input, or its wait for a slot ← … ← the comparison and the evaluation that brought
//! the drv ← the evaluations before it on the same evaluator ← the start. The intervals touch each other and add up
//! to the wall time, whatever the stream: cut, cancelled, or nonsense. How they read is the business of [`super::time`].

mod index;
mod wait;

use std::collections::BTreeSet;

use crate::event::{AttemptEnd, Class, DrvOutcome, Event, Moment, Stage};
use crate::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId};

use super::summary::{Attempt, Drv, Summary};
use index::Index;

/// A stretch of wall time with its one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Whom the run was waiting for.
    pub owner: Owner,
    /// What that was doing.
    pub what: What,
    /// Where it did it, if that is a place.
    pub place: Option<Place>,
    /// When it began; the `to` of the interval before, or 0.
    pub from: Moment,
    /// When it ended.
    pub to: Moment,
}

/// Whom a stretch of time belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// drover as a whole.
    Run,
    /// The evaluation of one attr.
    Attr(AttrId),
    /// One drv.
    Drv(DrvId),
    /// A cache that is pushed to.
    Cache(CacheId),
}

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Starting, finding builders and caches, locking the flake.
    Starting,
    /// Evaluating, or listing what there is to evaluate.
    Evaluating,
    /// Comparing with stores and caches.
    Comparing,
    /// A drv was ready and all slots of the builder that took it were in use; so many drvs were ready then.
    Slot {
        /// Drvs that were ready and waiting, this one included.
        queued: u32,
    },
    /// A drv was ready, there were slots, and it had not been started yet.
    Handing,
    /// Until it might be tried again.
    Again,
    /// No builder that can take it could be used: the one that took it in the end was not there yet, or was away.
    Away,
    /// Its inputs were being brought to the builder.
    Preparing,
    /// Somebody else was building it.
    Elsewhere,
    /// The builder was at work.
    Building,
    /// Its outputs were being fetched from a cache.
    Fetching,
    /// Its results were being taken over.
    Collecting,
    /// Its results were coming into the local store from the builder that has them.
    Returning,
    /// Uploading and reading back after all else was done.
    Pushing,
    /// The end of the run.
    Closing,
}

impl What {
    /// One word for the `--json` document.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Evaluating => "evaluating",
            Self::Comparing => "comparing",
            Self::Slot { .. } => "waiting_for_slot",
            Self::Handing => "handing_out",
            Self::Again => "waiting_to_try_again",
            Self::Away => "waiting_for_builder",
            Self::Preparing => "preparing",
            Self::Elsewhere => "built_elsewhere",
            Self::Building => "building",
            Self::Fetching => "fetching",
            Self::Collecting => "collecting",
            Self::Returning => "returning",
            Self::Pushing => "pushing",
            Self::Closing => "closing",
        }
    }
}

/// Where something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// On a builder.
    Builder(BuilderId),
    /// In or from a cache.
    Cache(CacheId),
}

/// The account of a stream of events.
#[must_use]
pub fn account(events: &[Event]) -> Vec<Interval> {
    of(&Summary::of(events))
}

/// The account of a folded run, the earliest interval first.
#[must_use]
pub fn of(summary: &Summary) -> Vec<Interval> {
    let index = Index::new(summary);
    let mut walk = Walk { s: summary, index: &index, cursor: summary.end, out: Vec::new(), seen: BTreeSet::new() };
    let mut next = walk.last();
    walk.take(next.map_or(Moment(0), |(at, _)| at), Owner::Run, What::Closing, None);
    while let Some((_, node)) = next {
        // A record that runs in a circle ends here; what is left belongs to the start.
        if !walk.seen.insert(node) {
            break;
        }
        next = match node {
            Node::Push(cache) => walk.push(cache),
            Node::Attempt(attempt) => walk.attempt(attempt),
            Node::Fetch(drv, number) => walk.fetch(drv, number),
            Node::Return(drv, number) => walk.returned(drv, number),
            Node::GivenUp(drv) => walk.given_up(drv),
            Node::Drv(drv) => walk.drv(drv),
            Node::Needed(drv) => walk.needed(drv),
            Node::Planned(attr) => walk.planned(attr),
            Node::Eval(attr) => walk.eval(attr),
            Node::Import(attr, number) => walk.eval_up_to(attr, number),
        };
    }
    walk.start();
    walk.out.reverse();
    walk.out
}

/// Something that the run may have waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Eval(AttrId),
    /// The evaluation of an attr up to this one of its imports.
    Import(AttrId, usize),
    Planned(AttrId),
    Needed(DrvId),
    Drv(DrvId),
    Fetch(DrvId, usize),
    /// A drv that no builder took any more.
    GivenUp(DrvId),
    Attempt(AttemptId),
    Return(DrvId, usize),
    Push(CacheId),
}

/// The next thing to look at, and when it was done.
type Step = Option<(Moment, Node)>;

struct Walk<'a> {
    s: &'a Summary,
    index: &'a Index,
    /// All after this has an owner.
    cursor: Moment,
    /// Latest first.
    out: Vec<Interval>,
    seen: BTreeSet<Node>,
}

impl Walk<'_> {
    /// Gives the time from `from` up to the cursor to an owner.
    fn take(&mut self, from: Moment, owner: Owner, what: What, place: Option<Place>) {
        let from = from.min(self.cursor);
        if from < self.cursor {
            self.out.push(Interval { owner, what, place, from, to: self.cursor });
            self.cursor = from;
        }
    }

    /// The last thing that was done or, in a cut record, was still going on.
    fn last(&self) -> Step {
        self.last_but_pushes().into_iter().chain(self.last_push()).max()
    }

    fn last_push(&self) -> Step {
        let end = self.s.end;
        let open = |push: &super::summary::Push| push.started.map(|_| end);
        let pushes = self.s.pushes.iter().filter_map(|((cache, _), push)| {
            Some((push.ended.as_ref().map(|(at, _)| *at).or_else(|| open(push))?, Node::Push(*cache)))
        });
        let verified = self.s.verified.iter().map(|(cache, verified)| (verified.at, Node::Push(*cache)));
        pushes.chain(verified).max()
    }

    /// The last of all but the pushes up to the cursor.
    fn last_but_pushes(&self) -> Step {
        let (s, end) = (self.s, self.s.end);
        let attempts = s.attempts.iter().map(|(id, attempt)| (ended(attempt).unwrap_or(end), Node::Attempt(*id)));
        let fetches = s.drvs.iter().flat_map(|(id, drv)| {
            drv.fetches.iter().enumerate().map(|(n, fetch)| (fetch.span.end.unwrap_or(end), Node::Fetch(*id, n)))
        });
        let returns = s.drvs.iter().flat_map(|(id, drv)| {
            let returns = drv.returns.iter().enumerate();
            let returns = returns.map(|(n, back)| (back.span.start, back.span.end.unwrap_or(end), n));
            // One that took no time is nothing that was waited for.
            returns.filter(|(from, to, _)| from < to).map(|(_, to, n)| (to, Node::Return(*id, n)))
        });
        let given_up = s.drvs.iter().filter_map(|(id, drv)| Some((given_up(drv)?, Node::GivenUp(*id))));
        let attrs = s.attrs.iter().flat_map(|(id, attr)| {
            let evaluated = attr.evaluated.as_ref().map(|(at, _)| *at);
            let eval = evaluated.or_else(|| attr.eval_started.map(|_| end)).map(|at| (at, Node::Eval(*id)));
            eval.into_iter().chain(attr.planned.as_ref().map(|planned| (planned.at, Node::Planned(*id))))
        });
        let all = attempts.chain(fetches).chain(returns).chain(given_up).chain(attrs);
        all.filter(|(at, _)| *at <= self.cursor).max()
    }

    /// What was pushed after all else was done.
    fn push(&mut self, cache: CacheId) -> Step {
        let before = self.last_but_pushes();
        let from = before.map_or_else(|| self.begin_of_work(), |(at, _)| at);
        self.take(from, Owner::Cache(cache), What::Pushing, Some(Place::Cache(cache)));
        before
    }

    /// An attempt from its end to its start, then what it had been waiting for.
    fn attempt(&mut self, id: AttemptId) -> Step {
        let attempt = self.s.attempts.get(&id)?;
        let (owner, place) = (Owner::Drv(attempt.drv), Some(Place::Builder(attempt.builder)));
        self.take(ended(attempt).unwrap_or(self.cursor), owner, What::Collecting, place);
        for (at, what) in self.parts(attempt).into_iter().rev() {
            self.take(at, owner, what, place);
        }
        let ready = self.ready(attempt.drv, Some(id));
        if let Some((at, node)) = ready {
            let idle = if matches!(node, Node::Attempt(_)) { What::Again } else { What::Handing };
            self.wait(at, attempt.drv, attempt.builder, idle);
        }
        ready
    }

    /// What an attempt did from when on, in order.
    fn parts(&self, attempt: &Attempt) -> Vec<(Moment, What)> {
        let mut marks = vec![(attempt.started, first_part(attempt))];
        if let Some(prepared) = attempt.prepared {
            let until = attempt.slot_since().or(ended(attempt)).unwrap_or(self.s.end);
            let what = self.full(attempt.builder, prepared.at, until).unwrap_or(What::Handing);
            marks.push((prepared.at, what));
        }
        marks.extend(attempt.waiting.as_ref().map(|(at, _)| (*at, What::Elsewhere)));
        marks.extend(attempt.building.map(|at| (at, What::Building)));
        marks.sort_by_key(|(at, _)| *at);
        marks
    }

    /// Until a drv was given up because no builder came that takes it.
    fn given_up(&mut self, id: DrvId) -> Step {
        let drv = self.s.drvs.get(&id)?;
        self.take(given_up(drv)?, Owner::Drv(id), What::Collecting, None);
        let ready = self.ready(id, None);
        let able = self.s.builders.iter().filter(|(_, builder)| builder.takes(drv));
        let away = able.chain(&self.s.builders).find(|(_, builder)| builder.outage().is_some());
        let place = away.map(|(id, _)| Place::Builder(*id));
        if let Some((at, _)) = ready {
            self.take(at, Owner::Drv(id), What::Away, place);
        }
        ready
    }

    /// Results on their way into the local store, then what had made them.
    fn returned(&mut self, id: DrvId, number: usize) -> Step {
        let drv = self.s.drvs.get(&id)?;
        let back = drv.returns.get(number)?;
        let (owner, place) = (Owner::Drv(id), Some(Place::Builder(back.builder)));
        self.take(back.span.end.unwrap_or(self.cursor), owner, What::Collecting, place);
        self.take(back.span.start, owner, What::Returning, place);
        Some((back.span.start.min(self.cursor), Node::Drv(id)))
    }

    fn fetch(&mut self, id: DrvId, number: usize) -> Step {
        let fetch = self.s.drvs.get(&id)?.fetches.get(number)?;
        self.take(fetch.span.end.unwrap_or(self.cursor), Owner::Drv(id), What::Collecting, None);
        self.take(fetch.span.start, Owner::Drv(id), What::Fetching, None);
        let ready = self.ready(id, None);
        if let Some((at, _)) = ready {
            self.take(at, Owner::Drv(id), What::Handing, None);
        }
        ready
    }

    /// What made a drv ready for an attempt: the one before, a fetch that failed, its latest input, or that it was
    /// found to be needed at all.
    fn ready(&self, id: DrvId, attempt: Option<AttemptId>) -> Step {
        let drv = self.s.drvs.get(&id)?;
        let earlier = drv
            .attempts
            .iter()
            .take_while(|other| Some(**other) != attempt)
            .filter_map(|other| Some((ended(self.s.attempts.get(other)?)?, Node::Attempt(*other))));
        let fetches =
            drv.fetches.iter().enumerate().filter_map(|(n, fetch)| Some((fetch.span.end?, Node::Fetch(id, n))));
        let inputs =
            drv.inputs.iter().filter_map(|input| Some((available(self.s.drvs.get(input)?)?, Node::Drv(*input))));
        let needed = (drv.needed, Node::Needed(id));
        let all = earlier.chain(fetches).chain(inputs).chain([needed]);
        all.filter(|(at, node)| *at <= self.cursor && !self.seen.contains(node)).max()
    }

    /// A drv that another one waited for: its last attempt or fetch, or how it was found to be there already.
    fn drv(&mut self, id: DrvId) -> Step {
        let drv = self.s.drvs.get(&id)?;
        let attempts = drv
            .attempts
            .iter()
            .filter_map(|attempt| Some((ended(self.s.attempts.get(attempt)?)?, Node::Attempt(*attempt))));
        let fetches =
            drv.fetches.iter().enumerate().filter_map(|(n, fetch)| Some((fetch.span.end?, Node::Fetch(id, n))));
        let last = attempts.chain(fetches).filter(|(at, _)| *at <= self.cursor).max();
        if last.is_none() {
            self.take(drv.needed, Owner::Drv(id), What::Comparing, None);
            return Some((drv.needed.min(self.cursor), Node::Needed(id)));
        }
        last
    }

    /// A drv was found to be needed: the comparison, then the evaluation of the attr that asked for it.
    fn needed(&mut self, id: DrvId) -> Step {
        let drv = self.s.drvs.get(&id)?;
        let attr = drv.attr;
        if let Some((attr, number, start)) = attr.and_then(|attr| self.import_of(attr, drv.needed)) {
            self.take(start, Owner::Run, What::Comparing, None);
            return Some((start.min(self.cursor), Node::Import(attr, number)));
        }
        let own = attr.and_then(|attr| Some((self.s.attrs.get(&attr)?.evaluated.as_ref()?.0, Node::Eval(attr))));
        let eval = own.filter(|(at, _)| *at <= self.cursor).or_else(|| self.index.eval_before(self.cursor));
        self.take(eval.map_or_else(|| self.begin_of_work(), |(at, _)| at), Owner::Run, What::Comparing, None);
        eval
    }

    fn planned(&mut self, id: AttrId) -> Step {
        let evaluated = self.s.attrs.get(&id)?.evaluated.as_ref().map(|(at, _)| (*at, Node::Eval(id)));
        let eval = evaluated.filter(|(at, _)| *at <= self.cursor);
        self.take(eval.map_or_else(|| self.begin_of_work(), |(at, _)| at), Owner::Run, What::Comparing, None);
        eval
    }

    /// The import that an attr was waiting for at a moment.
    fn import_of(&self, id: AttrId, at: Moment) -> Option<(AttrId, usize, Moment)> {
        let imports = self.s.attrs.get(&id)?.imports.iter().enumerate();
        let mut open =
            imports.filter(|(_, import)| import.span.start <= at && import.span.end.is_none_or(|end| at <= end));
        open.next_back().map(|(number, import)| (id, number, import.span.start))
    }

    /// The way of a drv's results into the local store that ended after a moment.
    fn back_home(&self, id: DrvId, after: Moment) -> Step {
        let returns = self.s.drvs.get(&id)?.returns.iter().enumerate();
        let ends = returns.filter_map(|(n, back)| Some((back.span.end?, Node::Return(id, n))));
        ends.filter(|(at, node)| after <= *at && *at <= self.cursor && !self.seen.contains(node)).max()
    }

    /// An evaluation, back to the last import that it waited for.
    fn eval(&mut self, id: AttrId) -> Step {
        self.eval_up_to(id, self.s.attrs.get(&id)?.imports.len())
    }

    /// The evaluation between two imports, then what made the earlier one; without an earlier one, the evaluation before
    /// it on the same evaluator.
    fn eval_up_to(&mut self, id: AttrId, imports: usize) -> Step {
        let attr = self.s.attrs.get(&id)?;
        if let Some(number) = imports.checked_sub(1)
            && let Some(import) = attr.imports.get(number)
        {
            self.take(import.span.end.unwrap_or(self.cursor), Owner::Attr(id), What::Evaluating, None);
            let made = self.s.drvs.iter().find(|(_, drv)| drv.path == import.path);
            let made = made.and_then(|(drv, known)| Some((available(known)?, *drv)));
            let back = made.and_then(|(_, drv)| self.back_home(drv, import.span.start));
            if let Some((at, node)) = back {
                self.take(at, Owner::Run, What::Comparing, None);
                return Some((at, node));
            }
            if let Some((at, drv)) = made.filter(|(at, _)| import.span.start <= *at && *at <= self.cursor) {
                self.take(at, Owner::Drv(drv), What::Collecting, None);
                return Some((at, Node::Drv(drv)));
            }
            self.take(import.span.start, Owner::Run, What::Comparing, None);
            return Some((import.span.start.min(self.cursor), Node::Import(id, number)));
        }
        let (started, worker) = attr.eval_started?;
        self.take(started, Owner::Attr(id), What::Evaluating, None);
        let ended = attr.evaluated.as_ref().map(|(at, _)| *at);
        let before = self.index.eval_before_on(worker, ended.unwrap_or(Moment(u64::MAX)), id);
        let before = before.filter(|(at, _)| *at <= self.cursor);
        if let Some((at, _)) = before {
            self.take(at, Owner::Run, What::Evaluating, None);
        }
        before
    }

    /// What comes before anything is evaluated.
    fn start(&mut self) {
        self.take(self.begin_of_work(), Owner::Run, What::Evaluating, None);
        self.take(Moment(0), Owner::Run, What::Starting, None);
    }

    /// When the flake was locked, or, where nothing but pushing was asked for, when that began.
    fn begin_of_work(&self) -> Moment {
        match (&self.s.flake, self.s.stages.get(&Stage::Push)) {
            (Some(flake), _) => flake.at,
            (None, Some(push)) => push.start.min(self.cursor),
            // Without a lock nothing was evaluated: all before the cursor is the start.
            (None, None) => self.cursor,
        }
    }
}

fn ended(attempt: &Attempt) -> Option<Moment> {
    attempt.ended.as_ref().map(|(at, _)| *at)
}

/// When a drv was given up because no builder takes it.
fn given_up(drv: &Drv) -> Option<Moment> {
    match &drv.ended {
        Some((at, DrvOutcome::Failed(failure))) if failure.class == Class::NoBuilder => Some(*at),
        _ => None,
    }
}

/// When others could use a drv.
fn available(drv: &Drv) -> Option<Moment> {
    drv.ended.as_ref().map(|(at, _)| *at)
}

/// What an attempt did before its builder said anything: nothing was said at all where it just built.
fn first_part(attempt: &Attempt) -> What {
    let built = matches!(attempt.ended, Some((_, AttemptEnd::Built { .. })));
    if built && attempt.building.is_none() { What::Building } else { What::Preparing }
}
