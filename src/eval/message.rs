//! What Nix says, as people want to read it: one line of its log → error, warning or trace; an error's text → message
//! and position. Does not decide to which attr a message belongs.
//!
//! Nix prints an error as a stack of lines `… while …` with positions and source excerpts, and then `error: MESSAGE`,
//! which may be followed by a position of its own and by more lines. The format is for people and no contract; checked
//! with 2.26 and 2.34. What does not look like it is passed on whole.

use crate::nix_compat::daemon::{Level, Message};
use crate::nix_compat::internal_json;

use crate::nix_compat::ansi;

/// How positions start that lie in no file.
const INTERNAL: [&str; 5] = ["«string»", "«none»", "«stdin»", "«nix-internal»", "<nix/"];

/// Longest message that is kept, in bytes.
const MESSAGE_LIMIT: usize = 8 << 10;

/// One thing that Nix said, without colour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// An error, whole, with its trace.
    Error(String),
    /// A warning, without the word.
    Warning(String),
    /// `builtins.trace`, without the word.
    Trace(String),
    /// A line that is no message of Nix: a child's own words, or a crash.
    Other(String),
}

/// Reads one line of a log in `internal-json` format; `None` for progress and for chatter.
#[must_use]
pub fn line(line: &str) -> Option<Said> {
    if !line.starts_with("@nix ") {
        let text = ansi::text(line.as_bytes());
        let text = text.trim_end();
        return match text.strip_prefix("error: ") {
            Some(_) => Some(Said::Error(text.to_owned())),
            None => (!text.is_empty()).then(|| Said::Other(text.to_owned())),
        };
    }
    let Some(Message::Log { level, text, .. }) = internal_json::parse(line.as_bytes()) else { return None };
    let level = level.unwrap_or(Level::ERROR);
    if level > Level::WARN {
        return None;
    }
    let text = ansi::text(&text);
    let text = text.trim_end();
    let traced = text.strip_prefix("trace: ").unwrap_or(text);
    for word in ["warning: ", "evaluation warning: "] {
        if let Some(warning) = traced.strip_prefix(word) {
            return Some(Said::Warning(warning.to_owned()));
        }
    }
    if let Some(trace) = text.strip_prefix("trace: ") {
        return Some(Said::Trace(trace.to_owned()));
    }
    Some(if level == Level::ERROR { Said::Error(text.to_owned()) } else { Said::Warning(text.to_owned()) })
}

/// An error of Nix, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// What went wrong, without the trace.
    pub message: String,
    /// `file:line:column`, as Nix prints it.
    pub position: Option<String>,
}

/// Takes an error's text (without colour) apart. `own` says whether a position lies in drover's own Nix code, whose
/// positions mean nothing to people.
#[must_use]
pub fn explain(text: &str, own: impl Fn(&str) -> bool) -> Explained {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().rposition(|line| line.trim_start().starts_with("error:")).unwrap_or(0);
    let (trace, body) = lines.split_at(start);

    let mut message: Vec<&str> = Vec::new();
    let mut position = None;
    for (i, line) in body.iter().enumerate() {
        let line = line.trim();
        let line = if i == 0 { line.strip_prefix("error:").unwrap_or(line).trim_start() } else { line };
        match place(line) {
            Some(at) => position = position.or(Some(at)),
            None if is_excerpt(line) => {}
            None => message.push(line),
        }
    }
    let mut message = message.join("\n").trim().to_owned();
    let usable = |at: &str| !INTERNAL.iter().any(|start| at.starts_with(start)) && !own(at);
    let position = position
        .filter(|at| usable(at))
        .or_else(|| trace.iter().rev().filter_map(|line| place(line.trim())).find(|at| usable(at)));
    // Since 2.24 a failed assertion says only which values differ; which assertion it was is in the trace.
    let assertion = trace.iter().rev().find_map(|line| {
        let line = line.trim();
        line.starts_with('…').then(|| line.split_once("condition of the assertion '")?.1.strip_suffix('\''))
    });
    if let Some(Some(assertion)) = assertion {
        message = format!("assertion '{assertion}' failed: {message}");
    }
    if message.len() > MESSAGE_LIMIT {
        let end = (0..=MESSAGE_LIMIT).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    Explained { message, position: position.map(str::to_owned) }
}

/// The position that a line `at FILE:LINE:COLUMN:` names.
fn place(line: &str) -> Option<&str> {
    let at = line.strip_prefix("at ")?.strip_suffix(':')?;
    let mut parts = at.rsplitn(3, ':');
    let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    (number(parts.next()) && number(parts.next()) && parts.next().is_some()).then_some(at)
}

/// Whether the line is part of a source excerpt: `12| code` or `| ^`.
fn is_excerpt(line: &str) -> bool {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.starts_with('|')
}

/// A position relative to the flake. `roots` are the places where its source may lie: its store path (also under
/// another physical root), its work tree.
#[must_use]
pub fn relative(position: &str, roots: &[String]) -> String {
    for root in roots.iter().filter(|root| !root.is_empty()) {
        if let Some(at) = position.find(root.as_str())
            && let Some(rest) = position[at + root.len()..].strip_prefix('/')
        {
            return rest.to_owned();
        }
    }
    // 2.3x shows what lies in a fetched tree as «url»/file.
    if let Some(rest) = position.strip_prefix('«')
        && let Some((_, file)) = rest.split_once("»/")
    {
        return file.to_owned();
    }
    position.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 2.34.8 and 2.26.3: a throw has no position of its own, the line that calls it has.
    const THROW: &str = "error:\n       … while evaluating the attribute 'throws.drvPath'\n         at /s/flake.nix:30:41:\n           29|         a;\n             |         ^\n\n       … while calling the 'throw' builtin\n         at /s/flake.nix:43:24:\n           42|\n           43|         throws = host (throw \"x\");\n             |                        ^\n\n       error: this host was retired in May";
    const MISSING: &str = "error:\n       … while evaluating\n         at /s/a.nix:1:1:\n\n       error: attribute 'opensll' missing\n       at /s/flake.nix:49:34:\n           48|         );\n           49|         missing-attribute = host pkgs.opensll;\n             |                                  ^\n       Did you mean openssl?";
    const ASSERT: &str = "error:\n       … while evaluating the condition of the assertion '((1 + 1) == 3)'\n         at /s/flake.nix:46:11:\n           46|           assert 1 + 1 == 3;\n             |           ^\n\n       error: an integer with value '2' is not equal to an integer with value '3'";

    fn explained(text: &str) -> (String, Option<String>) {
        let Explained { message, position } = explain(text, |_| false);
        (message, position)
    }

    #[test]
    fn errors_are_taken_apart() {
        assert_eq!(explained(THROW), ("this host was retired in May".into(), Some("/s/flake.nix:43:24".into())));
        assert_eq!(
            explained(MISSING),
            ("attribute 'opensll' missing\nDid you mean openssl?".into(), Some("/s/flake.nix:49:34".into()))
        );
        let (message, position) = explained(ASSERT);
        assert!(message.starts_with("assertion '((1 + 1) == 3)' failed: an integer"), "{message}");
        assert_eq!(position.as_deref(), Some("/s/flake.nix:46:11"));
    }

    #[test]
    fn what_does_not_look_like_an_error_is_passed_on() {
        assert_eq!(explained("something else\n  happened"), ("something else\nhappened".into(), None));
        assert_eq!(explained(""), (String::new(), None));
    }

    #[test]
    fn own_positions_are_passed_over() {
        let text = "error:\n … while x\n at /s/flake.nix:1:2:\n … while y\n at /own.nix:3:4:\n error: no";
        assert_eq!(explain(text, |at| at.contains("own.nix")).position.as_deref(), Some("/s/flake.nix:1:2"));
    }

    #[test]
    fn lines_are_sorted() {
        let warning = r#"@nix {"action":"msg","column":0,"file":"«none»:0","level":1,"line":0,"msg":"\u001b[35;1mevaluation warning:\u001b[0m wrn","raw_msg":"wrn"}"#;
        assert_eq!(line(warning), Some(Said::Warning("wrn".into())));
        assert_eq!(line(r#"@nix {"action":"msg","level":0,"msg":"trace: x"}"#), Some(Said::Trace("x".into())));
        assert_eq!(line(r#"@nix {"action":"msg","level":2,"msg":"Nix 2.34.8"}"#), None);
        assert_eq!(line(r#"@nix {"action":"stop","id":1}"#), None);
        assert_eq!(line("error: stack overflow"), Some(Said::Error("error: stack overflow".into())));
        assert_eq!(line("fatal: no"), Some(Said::Other("fatal: no".into())));
        assert_eq!(line("@nix {"), None);
    }

    #[test]
    fn positions_become_relative() {
        let roots = ["/nix/store/x-source".to_owned(), "/home/me/infra".to_owned()];
        for (position, wanted) in [
            ("/nix/store/x-source/hosts/pi3.nix:12:9", "hosts/pi3.nix:12:9"),
            ("/tmp/root/nix/store/x-source/flake.nix:1:2", "flake.nix:1:2"),
            ("/home/me/infra/flake.nix:1:2", "flake.nix:1:2"),
            ("«git+file:///x?rev=1»/flake.nix:1:2", "flake.nix:1:2"),
            ("/nix/store/y-source/lib.nix:1:2", "/nix/store/y-source/lib.nix:1:2"),
        ] {
            assert_eq!(relative(position, &roots), wanted);
        }
    }
}
