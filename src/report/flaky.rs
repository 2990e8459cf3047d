//! Drvs that failed by themselves and then were built all the same: what a person should look at one day.

use crate::event::{AttemptEnd, Text};
use crate::id::DrvId;

use super::failure::short_cause;
use super::number::plural;
use super::summary::{Attempt, Summary};
use super::text::{Line, Paint, wrapped};

/// Flaky drvs that the verdict names; more are counted.
const NAMED: usize = 5;

/// `nginx-1.29.4: exit code 2 on big1, then built on big2`.
#[must_use]
pub fn line(s: &Summary, drv: DrvId) -> String {
    let one = |attempt: &Attempt| {
        let builder = s.builder_name(attempt.builder);
        match &attempt.ended {
            Some((_, AttemptEnd::Built { .. })) => format!("then built on {builder}"),
            Some((_, AttemptEnd::AlreadyValid { .. })) => format!("then there on {builder}"),
            Some((_, AttemptEnd::Failed(failure))) => format!("{} on {builder}", short_cause(failure)),
            None => builder,
        }
    };
    let attempts: Vec<String> = s.attempts_of(drv).map(one).collect();
    format!("{}: {}", s.drv_name(drv), attempts.join(", "))
}

/// What the verdict says: each with how to see both logs. Lines to be typed are never cut.
#[must_use]
pub fn screen(s: &Summary, width: usize) -> Vec<Line> {
    let flaky = s.flaky();
    let mut lines = Vec::new();
    for drv in flaky.iter().take(NAMED) {
        let mut texts = wrapped(&line(s, *drv), width.saturating_sub(7), 3).into_iter();
        lines.push(Line::new().paint(Paint::Warn, "FLAKY").text(format!("  {}", texts.next().unwrap_or_default())));
        lines.extend(texts.map(|more| Line::new().pad(7).text(more)));
        lines.extend(logs(s, *drv).into_iter().map(|(what, command)| Line::from(format!("  {what:<6}  {command}"))));
    }
    if flaky.len() > NAMED {
        let more = plural(flaky.len() - NAMED, "more flaky drv", "more flaky drvs");
        lines.push(Line::from(format!("  and {more}: drover report --format json")));
    }
    lines
}

/// How to see the log of the last attempt that failed and of the one that did not: `failed`, `built`.
fn logs(s: &Summary, drv: DrvId) -> Vec<(&'static str, String)> {
    let name = s.log_name(drv);
    let logs: Vec<(usize, &Attempt)> = s.logs_of(drv).collect();
    let failed = logs.iter().rev().find(|(_, attempt)| attempt.failed_by_itself());
    let built = logs.iter().rev().find(|(_, attempt)| attempt.succeeded());
    let command = |n: &usize| format!("drover log {name} --attempt {n}");
    let both = [("failed", failed), ("built", built)];
    both.into_iter().filter_map(|(what, log)| Some((what, command(&log?.0)))).collect()
}

impl Summary {
    /// What `drover log` is asked for to give the log of a drv: its name, or its path where others share the name.
    #[must_use]
    pub fn log_name(&self, drv: DrvId) -> Text {
        let Some(drv) = self.drvs.get(&drv) else { return "NAME".into() };
        let same = self.drvs.values().filter(|other| other.name == drv.name).count();
        if same > 1 { drv.path.clone() } else { drv.name.clone() }
    }
}
