//! What is told of a run to those who wait for it: that runs began to fail, or no longer do.

use serde_json::{Value, json};

use crate::record::history::Entry;

use super::annotations::{self, Level};
use super::number::{duration, plural};
use super::summary::Summary;

/// Failures that are named; more are counted.
const NAMED: usize = 5;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// This run failed, and the one like it before did not.
    Failure,
    /// This run is well, and the one like it before was not.
    Recovery,
}

impl News {
    /// The word of the document.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Recovery => "recovery",
        }
    }
}

/// What a run is news of, held against the last run of the same series and branch. One that was stopped, or never began
/// because of a wrong word, is none.
#[must_use]
pub fn news(exit: u8, before: Option<&Entry>) -> Option<News> {
    let was_well = before.map(|before| before.exit == Some(0));
    match exit {
        2 | 130 => None,
        0 => (was_well == Some(false)).then_some(News::Recovery),
        _ => was_well.unwrap_or(true).then_some(News::Failure),
    }
}

/// The run in a few lines.
#[must_use]
pub fn text(news: News, summary: &Summary, entry: &Entry) -> String {
    let what = match news {
        News::Failure => "failed",
        News::Recovery => "is well again",
    };
    let place = summary.placed.as_ref();
    let repository = place.and_then(|placed| placed.repository.as_deref()).or(entry.flake.as_deref());
    let mut about: Vec<String> = repository.map(str::to_owned).into_iter().collect();
    about.extend(entry.branch.clone());
    about.extend(entry.rev.as_deref().map(|rev| rev.get(..7).unwrap_or(rev).to_owned()));
    about.push(duration(entry.seconds));
    let mut lines = vec![format!("drover {} {what}: {}", entry.command, entry.verdict), about.join(" · ")];
    if news == News::Failure {
        let failures = failures(summary);
        lines.extend(failures.iter().take(NAMED).map(|(title, why)| format!("• {title}: {why}")));
        if failures.len() > NAMED {
            lines.push(format!("and {}", plural(failures.len() - NAMED, "more", "more")));
        }
    }
    lines.extend(place.and_then(|placed| placed.url.as_deref()).map(str::to_owned));
    lines.join("\n")
}

/// What a webhook like Slack's takes. Its markup has three characters that mean something.
#[must_use]
pub fn slack(text: &str) -> Value {
    json!({ "text": text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;") })
}

/// drover's own document.
#[must_use]
pub fn document(news: News, summary: &Summary, entry: &Entry) -> Value {
    let failures: Vec<Value> =
        failures(summary).into_iter().map(|(title, message)| json!({ "title": title, "message": message })).collect();
    json!({
        "version": super::json::VERSION,
        "event": news.word(),
        "run": entry.run,
        "command": entry.command,
        "what": entry.what,
        "flake": entry.flake,
        "rev": entry.rev,
        "branch": entry.branch,
        "change": entry.change,
        "url": summary.placed.as_ref().and_then(|placed| placed.url.as_deref()),
        "started": entry.started,
        "seconds": entry.seconds,
        "exit": entry.exit,
        "verdict": entry.verdict,
        "failures": failures,
        "text": text(news, summary, entry),
    })
}

/// What failed, and why in one line, the worst first.
fn failures(summary: &Summary) -> Vec<(String, String)> {
    let all = annotations::of(summary, None).into_iter().filter(|annotation| annotation.level == Level::Error);
    all.map(|annotation| {
        let first = annotation.message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        (annotation.title, first.trim().to_owned())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::gate::testing::run;

    #[test]
    fn only_a_change_is_news() {
        let well = run(1.0);
        let failed = Entry { exit: Some(1), ..run(1.0) };
        let killed = Entry { exit: None, ..run(1.0) };
        assert_eq!(news(1, None), Some(News::Failure));
        assert_eq!(news(1, Some(&well)), Some(News::Failure));
        assert_eq!(news(3, Some(&failed)), None);
        assert_eq!(news(0, Some(&failed)), Some(News::Recovery));
        assert_eq!(news(0, Some(&killed)), Some(News::Recovery));
        assert_eq!((news(0, None), news(0, Some(&well))), (None, None));
        assert_eq!((news(130, Some(&well)), news(2, Some(&well))), (None, None));
    }

    #[test]
    fn markup_is_no_markup() {
        assert_eq!(slack("a <b> & <!channel>")["text"], "a &lt;b&gt; &amp; &lt;!channel&gt;");
    }
}
