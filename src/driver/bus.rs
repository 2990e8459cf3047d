//! The one event stream: numbers and stamps each fact, then hands it to the record, the screen and the folds.

use std::path::Path;
use std::time::Duration;

use crate::driver::clock::Clock;
use crate::event::{Event, Fact, Moment};
use crate::id::DrvId;
use crate::record::{RecordError, RunDir, Writer};
use crate::report::summary::Summary;
use crate::ui::Ui;

/// Where facts go.
pub(super) struct Bus {
    clock: Clock,
    writer: Option<Writer>,
    ui: Ui,
    events: Vec<Event>,
    last: Moment,
    /// Of the first so many events.
    summary: Box<Summary>,
    folded: usize,
}

impl Bus {
    /// Opens the record of this run.
    pub(super) fn open(clock: Clock, dir: &RunDir, also: Option<&Path>, ui: Ui) -> Result<Self, RecordError> {
        let writer = Some(Writer::create(dir, also)?);
        let summary = Box::default();
        Ok(Self { clock, writer, ui, events: Vec::new(), last: Moment::default(), summary, folded: 0 })
    }

    /// Now.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// When the run started.
    pub(super) fn started(&self) -> jiff::Timestamp {
        self.clock.started
    }

    /// The day on which the run started, in UTC.
    pub(super) fn day(&self) -> jiff::civil::Date {
        self.clock.day()
    }

    /// The moment after this time.
    pub(super) fn in_future(&self, after: Duration) -> Moment {
        Moment(self.now().0.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The instant of a moment, to sleep until.
    pub(super) fn instant(&self, moment: Moment) -> tokio::time::Instant {
        self.clock.instant(moment)
    }

    /// Something happened.
    pub(super) fn emit(&mut self, fact: Fact) {
        self.last = self.last.max(self.clock.now());
        let event = Event { seq: self.events.len() as u64, at: self.last, fact };
        self.ui.on_event(&event);
        self.record(&event);
        self.events.push(event);
    }

    /// A record that cannot be written is worth a warning, not the run.
    fn record(&mut self, event: &Event) {
        let written = self.writer.as_mut().map_or(Ok(()), |writer| writer.write(event));
        if let Err(error) = written {
            self.writer = None;
            self.warn(crate::error::chain(&error), Some("the run goes on without a record"));
        }
    }

    /// A warning, with something to do about it.
    pub(super) fn warn(&mut self, message: impl Into<String>, hint: Option<&str>) {
        self.emit(Fact::Warning { message: message.into().into(), hint: hint.map(Into::into) });
    }

    /// A line of a build's log, for those who want to see it.
    pub(super) fn log(&mut self, drv: DrvId, line: &[u8]) {
        self.ui.on_log(drv, &crate::record::clean(line));
    }

    /// End of a turn: what happened is on disk, and on the screen if it is time.
    pub(super) fn settle(&mut self) {
        if let Some(Err(error)) = self.writer.as_mut().map(Writer::flush) {
            self.writer = None;
            self.warn(crate::error::chain(&error), Some("the run goes on without a record"));
        }
        self.ui.tick(self.clock.now());
    }

    /// All that happened.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// What all that happened comes to. Only what has happened since it was asked last is folded.
    pub(super) fn summary(&mut self) -> &Summary {
        self.told().1
    }

    /// All that happened, and what it comes to.
    pub(super) fn told(&mut self) -> (&[Event], &Summary) {
        self.events.iter().skip(self.folded).for_each(|event| self.summary.add(event));
        self.folded = self.events.len();
        (&self.events, &self.summary)
    }

    /// Restores the terminal and gives back the events, and what they come to.
    pub(super) fn close(mut self) -> (Vec<Event>, Box<Summary>) {
        self.settle();
        self.ui.finish();
        self.summary();
        (self.events, self.summary)
    }
}
