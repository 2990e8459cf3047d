//! How the gate reads.

use super::{Gate, Judgement, Verdict};
use crate::report::number::plural;
use crate::report::text::{Line, Paint, wrapped};

/// The gate as a document: `{version, baseline, max_regression, holds, verdicts}`.
#[must_use]
pub fn document(gate: &Gate) -> serde_json::Value {
    serde_json::json!({
        "version": crate::report::json::VERSION,
        "holds": gate.holds(),
        "baseline": gate.baseline,
        "max_regression": gate.max_regression,
        "verdicts": gate.verdicts,
    })
}

/// A line a number, and one that says what follows.
#[must_use]
pub fn screen(gate: &Gate, width: usize) -> Vec<Line> {
    let column = gate.verdicts.iter().map(|verdict| verdict.metric.len()).max().unwrap_or(0).min(width / 2);
    let mut lines: Vec<Line> = gate.verdicts.iter().flat_map(|verdict| lines_of(verdict, column, width)).collect();
    let worse = gate.verdicts.iter().filter(|verdict| verdict.outcome == Judgement::Worse).count();
    let limit = percent(gate.max_regression);
    if gate.verdicts.iter().all(|verdict| matches!(verdict.outcome, Judgement::Unsure(_))) {
        let line = Line::new().paint(Paint::Warn, "unsure");
        lines.push(
            line.text(format!("  nothing could be held against {}: this is no refusal", gate.baseline)).fit(width),
        );
        lines.push(Line::from("  runs    drover report list        another branch: --baseline BRANCH"));
        return lines;
    }
    let last = match worse {
        0 => Line::new()
            .paint(Paint::Good, "holds")
            .text(format!("  nothing is worse than {} by more than {limit}", gate.baseline)),
        _ => Line::new().paint(Paint::Bad, "WORSE").text(format!(
            "  {} than on {} by more than {limit}",
            plural(worse, "number is worse", "numbers are worse"),
            gate.baseline
        )),
    };
    lines.push(last.fit(width));
    if worse > 0 {
        lines.push(Line::from("  why     drover report --slow"));
    }
    lines
}

fn lines_of(verdict: &Verdict, column: usize, width: usize) -> Vec<Line> {
    let (paint, word) = match verdict.outcome {
        Judgement::Fine => (Paint::Good, "ok"),
        Judgement::Worse => (Paint::Bad, "WORSE"),
        Judgement::Unsure(_) => (Paint::Warn, "unsure"),
    };
    let line = Line::new().paint(paint, word).pad(8).paint(Paint::Bold, &verdict.metric).pad(8 + column).text("  ");
    if let Judgement::Unsure(why) = &verdict.outcome {
        let mut texts = wrapped(why, width.saturating_sub(column + 10), 3).into_iter();
        let first = line.text(texts.next().unwrap_or_default());
        return std::iter::once(first).chain(texts.map(|more| Line::new().pad(column + 10).text(more))).collect();
    }
    let number = |number: Option<f64>| number.map_or_else(|| "none".to_owned(), |number| verdict.unit.text(number));
    let mut text = match verdict.before == verdict.now {
        true => format!("{}, as before", number(verdict.now)),
        false => format!("{} → {}", number(verdict.before), number(verdict.now)),
    };
    if let Some(worse) = verdict.worse_by.filter(|_| verdict.before != verdict.now) {
        let change = if verdict.more_is_better { -worse } else { worse };
        text.push_str(&format!("  {}", signed(change)));
    }
    let mut line = line.text(text);
    if let Some((low, high)) = verdict.interval {
        let more = Line::new().paint(Paint::Dim, format!(" ({} to {})", signed(low), signed(high)));
        line = line.then_if_fits(more, width);
    }
    if let Some(p) = verdict.p.filter(|_| verdict.outcome == Judgement::Worse) {
        line = line.then_if_fits(Line::new().paint(Paint::Dim, format!("  p {}", of_p(p))), width);
    }
    vec![line.fit(width)]
}

fn of_p(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// `+20%`, `−5%`.
fn signed(share: f64) -> String {
    let sign = if share < 0.0 { "−" } else { "+" };
    format!("{sign}{}", percent(share.abs()))
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 9.95 && percent.fract().abs() > 0.05 { format!("{percent:.1}%") } else { format!("{percent:.0}%") }
}
