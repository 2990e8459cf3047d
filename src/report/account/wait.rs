//! What a drv that was ready waited for: a builder that could take it, or a slot.

use crate::event::Moment;
use crate::id::{BuilderId, DrvId};
use crate::report::summary::{Builder, Span};

use super::{Owner, Place, Walk, What};

impl Walk<'_> {
    /// Between these moments all slots of a builder were in use.
    pub(super) fn full(&self, builder: BuilderId, from: Moment, to: Moment) -> Option<What> {
        // When an input ends its slot is free for an instant, which somebody else may take: half-way tells more.
        let half_way = Moment(from.0 + to.0.saturating_sub(from.0) / 2);
        let slots = self.s.builders.get(&builder).map_or(1, |b| b.slots);
        let full = [from, half_way].into_iter().find(|at| self.index.running(builder, *at) >= slots);
        full.map(|at| What::Slot { queued: self.index.queued(at).max(1) })
    }

    /// A drv was ready at a moment, and a builder took it, or would have, at the cursor: it waited for a builder that
    /// could take it, for a slot, or for nothing that is known.
    pub(super) fn wait(&mut self, ready: Moment, drv: DrvId, builder: BuilderId, idle: What) {
        let (owner, place) = (Owner::Drv(drv), Some(Place::Builder(builder)));
        let up = self.up(drv);
        while ready < self.cursor {
            let cursor = self.cursor;
            match up.iter().rev().find(|(from, _)| *from < cursor) {
                Some((from, to)) if *to >= cursor => {
                    let from = ready.max(*from);
                    let what = self.full(builder, from, cursor).unwrap_or(idle);
                    self.take(from, owner, what, place);
                }
                before => self.take(ready.max(before.map_or(Moment(0), |(_, to)| *to)), owner, What::Away, place),
            }
        }
    }

    /// When some builder that can take a drv could be used, in order and apart from each other.
    fn up(&self, drv: DrvId) -> Vec<(Moment, Moment)> {
        const ALWAYS: (Moment, Moment) = (Moment(0), Moment(u64::MAX));
        let Some(drv) = self.s.drvs.get(&drv) else { return vec![ALWAYS] };
        let mut spans: Vec<(Moment, Moment)> =
            self.s.builders.values().filter(|builder| builder.takes(drv)).flat_map(usable).collect();
        if spans.is_empty() {
            return vec![ALWAYS];
        }
        spans.sort_unstable();
        let mut out: Vec<(Moment, Moment)> = Vec::new();
        for (from, to) in spans {
            match out.last_mut().filter(|last| from <= last.1) {
                Some(last) => last.1 = last.1.max(to),
                None => out.push((from, to)),
            }
        }
        out
    }
}

/// When a builder took drvs.
fn usable(builder: &Builder) -> Vec<(Moment, Moment)> {
    let open = |span: &Span| (span.start, span.end.unwrap_or(Moment(u64::MAX)));
    let mut out = Vec::new();
    for (mut from, to) in builder.up.iter().map(open) {
        for (start, end) in builder.pauses.iter().map(|(span, _)| open(span)) {
            if from < start && start < to {
                out.push((from, start));
            }
            if start < to {
                from = from.max(end);
            }
        }
        if from < to {
            out.push((from, to));
        }
    }
    out
}
