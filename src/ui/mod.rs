//! What people see while a run happens: a live view on a terminal, or plain lines in CI. Both are renderings of one
//! fold ([`model::Model`]) by pure functions ([`live`], [`plain`]); only [`Ui`] writes.
//!
//! Owns the view of a run that goes on. The verdict at its end, and every screen about finished or planned runs, is
//! `report`'s. Whether this is a terminal, and in which style, is decided in `config`.

pub mod live;
pub mod model;
pub mod plain;
mod terminal;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::{Event, Moment};
use crate::id::DrvId;
use crate::report::affected;
use crate::report::annotations;
use crate::report::closing;
use crate::report::failure;
use crate::report::plan;
use crate::report::schedule;
use crate::report::sections;
use crate::report::text::{Line, Style};

use model::{Model, Notice};
use terminal::Terminal;
pub use terminal::width;

/// Columns of a terminal that does not say how wide it is.
pub const WIDTH: usize = 100;

/// Columns that lists in a CI log keep to; texts are not cut there.
pub const LOG_WIDTH: usize = 120;

/// µs between two drawings of the live part: ten times a second at most, with some room for a timer that is early.
const DRAW: u64 = 95_000;

/// µs without a line after which a CI log says what goes on; the rule is 30 s at most.
const SILENCE: u64 = 29_000_000;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A live part at the bottom of a terminal.
    Live,
    /// A line for each thing that happens; for CI and files.
    Plain,
    /// Warnings and the verdict only.
    Quiet,
}

/// What the reader of a log understands besides lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Marks {
    /// Nothing.
    #[default]
    None,
    /// Commands of a workflow: what is wrong is also said as annotations, before the verdict.
    Annotations {
        /// The root of the repository at hand.
        root: Option<PathBuf>,
    },
    /// Sections of GitLab, which can be folded.
    Sections,
}

/// How to show a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How.
    pub mode: Mode,
    /// Colour and characters.
    pub style: Style,
    /// Columns; `None` asks the terminal each time, and is [`WIDTH`] where there is none.
    pub width: Option<usize>,
    /// `-v`: a line a drv, and always where the time went.
    pub verbose: bool,
    /// A plan says what would be pushed, too.
    pub pushes: bool,
    /// `--fail-fast`: nothing goes on after a failure.
    pub fail_fast: bool,
    /// The id of the run as shown (`record::short_id`).
    pub run: String,
    /// Where a report is written in the end, for the closing line.
    pub report: Option<String>,
    /// What the reader of the log understands.
    pub marks: Marks,
}

/// Shows one run.
pub struct Ui {
    settings: Settings,
    model: Model,
    terminal: Option<Terminal>,
    out: Box<dyn Write + Send>,
    drawn: Option<Moment>,
    last_line: Moment,
    finished: bool,
    /// Something was printed.
    said: bool,
    /// The section about all that happens has begun.
    open: bool,
}

impl Ui {
    /// Shows a run on stderr: `out` is stderr, or what stands for it in tests. The live part always is on stderr.
    #[must_use]
    pub fn new(settings: Settings, out: Box<dyn Write + Send>) -> Self {
        let terminal = (settings.mode == Mode::Live).then(Terminal::new);
        Self {
            settings,
            model: Model::default(),
            terminal,
            out,
            drawn: None,
            last_line: Moment(0),
            finished: false,
            said: false,
            open: false,
        }
    }

    /// How long the driver may wait until the next [`Ui::tick`].
    #[must_use]
    pub fn interval(&self) -> Duration {
        if self.terminal.is_some() { Duration::from_millis(100) } else { Duration::from_secs(1) }
    }

    /// Takes in a fact. What it makes appear above the live part appears with the next tick.
    pub fn on_event(&mut self, event: &Event) {
        self.model.on_event(event, self.settings.verbose);
    }

    /// Shows a line of a drv's log (`-L`), already cleaned.
    pub fn on_log(&mut self, drv: DrvId, line: &str) {
        self.say();
        let name = self.model.summary.drv_name(drv);
        self.print(vec![plain::log(&name, line)]);
    }

    /// Lets time pass: shows what has happened, redraws the live part, breaks a long silence.
    pub fn tick(&mut self, now: Moment) {
        self.model.now = self.model.now.max(now);
        self.say();
        let now = self.model.now;
        let width = self.width();
        if let Some(terminal) = &mut self.terminal {
            if self.drawn.is_none_or(|drawn| now.0.saturating_sub(drawn.0) >= DRAW) {
                self.model.estimate(now);
                terminal.draw(&live::region(&self.model, now, width), self.settings.style);
                self.drawn = Some(now);
            }
        } else if now.0.saturating_sub(self.last_line.0) >= SILENCE {
            let lines = plain::going_on(&self.model, now, width);
            self.print(lines);
        }
    }

    /// Ends the live part and says the verdict (for `plan`, the plan). Nothing is shown after it.
    pub fn finish(&mut self) {
        if self.finished {
            return;
        }
        self.finished = true;
        self.say();
        if let Some(mut terminal) = self.terminal.take() {
            terminal.clear();
        }
        let width = self.width();
        let summary = &self.model.summary;
        let whole = summary.cancelled.is_none() && summary.error.is_none();
        let lines = if whole && self.is_question() {
            // The answer is on stdout; what does not evaluate has none.
            failure::screen(summary, &summary.failures(), width)
        } else if whole && affected::is_asked(summary) {
            affected::screen(summary, width)
        } else if whole && self.is_plan() {
            let schedule = if self.settings.verbose { schedule::screen(summary, width) } else { Vec::new() };
            let gap = (!schedule.is_empty()).then(Line::new);
            schedule.into_iter().chain(gap).chain(plan::screen(summary, width, self.settings.pushes)).collect()
        } else {
            let options = closing::Options {
                width,
                verbose: self.settings.verbose,
                run: Some(self.settings.run.clone()),
                report: self.settings.report.clone(),
                clock: self.settings.mode == Mode::Plain,
            };
            closing::screen(summary, &options)
        };
        self.mark_end();
        if lines.len() > 1 && self.said {
            self.print(vec![Line::new()]);
        }
        match self.settings.marks {
            Marks::Sections => self.print_folded(&lines),
            Marks::Annotations { .. } => self.print_grouped(&lines),
            Marks::None => self.print(lines),
        }
        // Nobody is left to tell that stderr is gone.
        let _ = self.out.flush();
    }

    /// Shows what has happened since the last time.
    fn say(&mut self) {
        let width = self.width();
        let mut lines = Vec::new();
        // A plan says everything at its end, once. Only a log, which may be read as it grows, is told before.
        let planned = self.is_plan() && self.settings.mode != Mode::Plain;
        for (at, notice) in self.model.take_notices() {
            if planned
                && matches!(
                    notice,
                    Notice::Base
                        | Notice::Skipped
                        | Notice::LeftOut(_)
                        | Notice::Failed(..)
                        | Notice::Warning(_)
                        | Notice::Away(..)
                        | Notice::GivenUp(..)
                )
            {
                continue;
            }
            if self.is_question() && self.settings.mode != Mode::Plain && matches!(notice, Notice::Failed(..)) {
                continue;
            }
            lines.extend(match self.settings.mode {
                Mode::Live => live::notice(&self.model, &notice, &self.settings, width),
                Mode::Plain => plain::notice(&self.model, at, &notice, &self.settings, width),
                Mode::Quiet => live::quiet(&self.model, &notice, &self.settings, width),
            });
        }
        self.print(lines);
    }

    fn print(&mut self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        self.last_line = self.model.now.max(self.model.summary.end);
        if self.settings.marks == Marks::Sections && !self.said && !self.finished {
            self.open = true;
            let start = sections::start(sections::RUN, self.time());
            drop(write!(self.out, "{start}"));
        }
        self.said = true;
        let text = crate::report::text::render(&lines, self.settings.style);
        match &mut self.terminal {
            Some(terminal) => terminal.print(&text),
            // A closed stderr must not end the run.
            None => drop(self.out.write_all(text.as_bytes())),
        }
    }

    /// What a CI system is told of, once all is known: nobody has to read it, so it comes before the verdict.
    fn mark_end(&mut self) {
        match &self.settings.marks {
            Marks::Annotations { root } => {
                let all = annotations::of(&self.model.summary, root.as_deref());
                drop(self.out.write_all(annotations::commands(&all).as_bytes()));
            }
            Marks::Sections if self.open => {
                self.open = false;
                let end = sections::end(sections::RUN, self.time());
                drop(writeln!(self.out, "{end}"));
            }
            _ => {}
        }
    }

    /// Prints the verdict with each of its paragraphs as a section.
    fn print_folded(&mut self, lines: &[Line]) {
        let lines: Vec<String> = lines.iter().map(|line| line.render(self.settings.style)).collect();
        drop(self.out.write_all(sections::folded(&lines, self.time()).as_bytes()));
    }

    /// Prints the verdict with what builds have said in groups.
    fn print_grouped(&mut self, lines: &[Line]) {
        let line = |line: &Line| (line.is_said(), line.render(self.settings.style));
        let lines: Vec<(bool, String)> = lines.iter().map(line).collect();
        drop(self.out.write_all(sections::grouped(&lines).as_bytes()));
    }

    /// Seconds since 1970, as far as events tell.
    fn time(&self) -> i64 {
        let started = self.model.summary.header.as_ref().map_or(0, |header| header.started.as_second());
        started.saturating_add(self.model.now.max(self.model.summary.end).seconds() as i64)
    }

    fn is_plan(&self) -> bool {
        self.model.summary.header.as_ref().is_some_and(|header| header.is_plan())
    }

    fn is_question(&self) -> bool {
        self.model.summary.header.as_ref().is_some_and(|header| &*header.command == "why")
    }

    fn width(&self) -> usize {
        self.settings.width.unwrap_or_else(|| match self.settings.mode {
            Mode::Live => terminal::width().unwrap_or(WIDTH),
            Mode::Plain | Mode::Quiet => LOG_WIDTH,
        })
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        if let Some(mut terminal) = self.terminal.take() {
            terminal.clear();
        }
    }
}
