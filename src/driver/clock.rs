//! The one place that reads clocks. Everything else is told a [`Moment`].

use std::time::Instant;

use crate::event::Moment;

/// Time since the start of the run.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    /// Wall clock at the start.
    pub started: jiff::Timestamp,
}

impl Clock {
    /// Starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { start: Instant::now(), started: jiff::Timestamp::now() }
    }

    /// Now, as the run counts.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The day on which the run started, in UTC.
    #[must_use]
    pub fn day(&self) -> jiff::civil::Date {
        self.started.to_zoned(jiff::tz::TimeZone::UTC).date()
    }

    /// The tokio instant of a moment, to sleep until.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        (self.start + std::time::Duration::from_micros(moment.0)).into()
    }
}
