//! Whether a run goes on: who asked it to stop, how long it still pushes, and why it cannot go on.

use std::time::Duration;

use crate::error::Error;
use crate::event::Moment;

use super::bus::Bus;
use super::context::Context;
use super::pushing::Pushing;

/// How long finished drvs are still pushed after the first Ctrl-C.
const PUSH_AFTER_STOP: Duration = Duration::from_secs(4);

/// See the module's page.
#[derive(Debug)]
pub(super) struct Stopping {
    /// 0: going on; 1: stopping; 2: now.
    level: u8,
    /// When pushing ends; `None`: with the last path.
    push_until: Option<Moment>,
    error: Option<Error>,
}

impl Stopping {
    /// Going on, and pushing for so long if there is a deadline.
    pub(super) fn new(bus: &Bus, deadline: Option<Duration>) -> Self {
        Self { level: 0, push_until: deadline.map(|deadline| bus.in_future(deadline)), error: None }
    }

    /// Nothing new is started.
    pub(super) fn is_asked(&self) -> bool {
        self.level > 0
    }

    /// Nothing is waited for.
    pub(super) fn is_now(&self) -> bool {
        self.level == 2
    }

    /// 0: going on; 1: stopping; 2: now.
    pub(super) fn level(&self) -> u8 {
        self.level
    }

    /// When somebody has to look again because the time for pushing is over.
    pub(super) fn push_until(&self) -> Option<Moment> {
        self.push_until
    }

    /// Starts nothing new; what is built is still pushed for a moment. A level that was reached is not left again.
    pub(super) fn wind_down(&mut self, bus: &Bus, level: u8) {
        self.level = self.level.max(level);
        let until = bus.in_future(PUSH_AFTER_STOP);
        self.push_until = Some(self.push_until.map_or(until, |before| before.min(until)));
    }

    /// Ends the pushing, once, if its time is over: what is open then has failed, or is left alone by a run that stops.
    pub(super) fn end_late(&mut self, ctx: &mut Context, pushing: &mut Pushing) {
        if self.push_until.is_none_or(|until| ctx.bus.now() < until) {
            return;
        }
        self.push_until = None;
        match (pushing.is_done(), self.is_asked()) {
            (true, _) => {}
            (false, false) => pushing.too_late(ctx),
            (false, true) => pushing.stop(ctx),
        }
    }

    /// What the run as a whole fails of; the first error counts.
    pub(super) fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// Why the run cannot go on.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}
