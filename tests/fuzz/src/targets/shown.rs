//! What is shown of what others said: no line may hold a command for the terminal, the CI system or the browser that
//! shows it.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use drover::error::Error;
use drover::event::{Event, Moment};
use drover::id::DrvId;
use drover::nix_compat::ansi;
use drover::record::history::Entry;
use drover::report::summary::Summary;
use drover::report::text::{Line, Paint, Style, render, wrapped};
use drover::report::{
    account, affected, annotations, badge, chain, closing, entry, failure, flaky, harmless, hits, html, json, junit,
    list, metric, otlp, plan, prometheus, schedule, slow, step_summary, time, timeline, trace, trend,
};
use drover::ui::{Marks, Mode, Settings, Ui};

/// As a CI log is written.
const STYLE: Style = Style { colour: false, ascii: false, harmless: true };

/// A log that a builder printed.
pub fn log_text(bytes: &[u8]) {
    let text = ansi::text(bytes);
    assert!(!text.contains(['\u{1b}', '\u{7}', '\r']));
    assert_eq!(ansi::text(text.as_bytes()), text);
    let mut lines: Vec<Line> = text.lines().map(|line| Line::new().paint(Paint::Said, line)).collect();
    lines.extend(wrapped(&text, 40, 20).iter().map(|line| Line::new().text(line).fit(40)));
    lines.extend(failure::fatal(&text, Some(&text), 60));
    lines.extend(failure::warning(&text, None, 60));
    lines.push(drover::ui::plain::log("a", &text));
    shown(&lines);
    for line in &lines {
        assert!(line.clone().fit(20).width() <= 20);
    }
    no_command(&harmless::text(&String::from_utf8_lossy(bytes)));
    // A command is one line, whatever the message is.
    let commands = annotations::commands(&[annotations::of_error(&Error::usage(text))]);
    assert_eq!(commands.lines().filter(|line| !line.is_empty()).count(), 1, "{commands:?}");
    assert!(commands.starts_with("::error ") && !commands.contains(['\r', '\u{1b}']), "{commands:?}");
}

fn shown(lines: &[Line]) {
    no_command(&render(lines, STYLE));
}

/// Neither for a terminal nor for a CI system.
fn no_command(text: &str) {
    for line in text.lines() {
        assert!(line.chars().all(|c| !c.is_control() || c == '\t'), "{line:?}");
        assert_eq!(harmless::harmless(line), line);
    }
}

/// Every report of a run. The names in the corpus hold what a page must not take for its own.
pub fn all_reports(events: &[Event]) {
    let summary = Summary::of(events);
    let s = &summary;
    let options = closing::Options { width: 80, verbose: true, run: None, report: None, clock: false };
    for lines in [
        closing::screen(s, &options),
        plan::screen(s, 80, true),
        time::screen(s, 80),
        schedule::screen(s, 80),
        flaky::screen(s, 80),
        hits::screen(s, 80),
        affected::screen(s, 80),
        chain::line(s, &chain::longest(s), 80).into_iter().collect(),
    ] {
        shown(&lines);
    }
    let _ = (account::of(s), timeline::Timeline::of(s), list::verdict(s), affected::document(s));
    let _ = (serde_json::to_string(&json::document(s)).unwrap(), trace::document(s), otlp::whole(s, None));
    let _ = (junit::document(s, None), badge::svg(s));
    for room in [0, 400, step_summary::COMMENT] {
        let page = step_summary::page(s, Some(Path::new("/")), &step_summary::Before::default(), room);
        assert!(page.len() <= room);
    }
    assert!(!html::page(s, &[]).unwrap().contains("<fuzz"), "a name is a part of the page");
    if let Some(entry) = entry::of(s) {
        history(&entry);
    }
    as_ci_log(events);
}

/// A run of the history, and what is told of it.
pub fn history(run: &Entry) {
    let runs = std::slice::from_ref(run);
    let _ = (prometheus::text(runs), slow::slow(run, runs));
    for metric in metric::METRICS {
        let _ = metric.of(run).map(|number| metric.unit.text(number));
        shown(&trend::screen(&trend::trend(metric, runs), run.started, |_| "01K".to_owned(), 80));
    }
    let row = list::Row { run: "01K".to_owned(), digest: Some(list::Digest::from(run.clone())), live: false };
    let _ = list::document(std::slice::from_ref(&row));
    shown(&list::screen(&[row], run.started, 80));
}

/// What a CI log shows while it happens.
fn as_ci_log(events: &[Event]) {
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let kept = Kept::default();
    let settings = Settings {
        mode: Mode::Plain,
        style: STYLE,
        width: Some(80),
        verbose: true,
        pushes: true,
        fail_fast: false,
        run: "01K".to_owned(),
        report: None,
        marks: Marks::None,
    };
    let mut ui = Ui::new(settings, Box::new(kept.clone()));
    for event in events {
        ui.on_event(event);
        ui.tick(event.at);
    }
    ui.on_log(DrvId(0), "::error::no");
    ui.tick(Moment(u64::MAX));
    ui.finish();
    let said = std::mem::take(&mut *kept.0.lock().unwrap_or_else(PoisonError::into_inner));
    no_command(&String::from_utf8(said).unwrap());
}
