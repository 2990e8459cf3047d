//! What a build, a flake or Nix said, so that a CI system which reads the log does not take it for a command.
//!
//! Runners look into every line that a step prints. GitHub's takes `::name …::…` at the start of a line, after it has
//! trimmed blanks, and `##[name …]…` anywhere in it; Forgejo and Gitea take both at the start, Azure `##vso[…]` and
//! TeamCity `##teamcity[…]`. GitHub compares by the rules of a language, to which invisible characters are nothing, so
//! all that is beyond ASCII counts as nothing here. Commands of GitLab need carriage returns and escapes, which
//! [`Line`](super::text::Line) does not let through.

use std::borrow::Cow;

/// The line with a blank in each place where a command could begin, and else as it is. It has no newline; done twice,
/// it is as if done once.
#[must_use]
pub fn harmless(line: &str) -> Cow<'_, str> {
    let breaks = breaks(line);
    if breaks.is_empty() {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + breaks.len());
    let mut from = 0;
    for at in breaks {
        out.push_str(&line[from..at]);
        out.push(' ');
        from = at;
    }
    out.push_str(&line[from..]);
    Cow::Owned(out)
}

/// Each line of a text, without what only a terminal understands; a carriage return begins a line, as it does for
/// runners.
#[must_use]
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive(['\n', '\r']) {
        let visible: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        out.push_str(&harmless(&visible));
        out.push_str(if line.ends_with(['\n', '\r']) { "\n" } else { "" });
    }
    out
}

/// JSON in which no text can be taken for a command: what it says is the same.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Outside of strings there is no `#`, and within them it may be written so.
    if text.lines().all(|line| breaks(line).is_empty()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.replace('#', "\\u0023"))
    }
}

/// Where a blank has to be: behind the first `:` of a line that begins with two, and before the last `#` of `##` before
/// a name and `[`.
fn breaks(line: &str) -> Vec<usize> {
    // Most lines have neither.
    if !line.contains([':', '#']) {
        return Vec::new();
    }
    let seen: Vec<(usize, char)> = line
        .char_indices()
        .filter(|(_, c)| c.is_ascii_graphic() || c.is_whitespace())
        .map(|(at, c)| (at, if c.is_whitespace() { ' ' } else { c }))
        .collect();
    let begins = seen.iter().position(|(_, c)| *c != ' ').unwrap_or(seen.len());
    let mut breaks = Vec::new();
    if let [(_, ':'), (second, ':'), ..] = seen[begins..] {
        breaks.push(second);
    }
    for (i, pair) in seen.windows(2).enumerate() {
        let &[(_, '#'), (second, '#')] = pair else { continue };
        let name = seen[i + 2..].iter().take_while(|(_, c)| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if seen.get(i + 2 + name.count()).is_some_and(|(_, c)| *c == '[') {
            breaks.push(second);
        }
    }
    breaks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_be_a_command_is_broken_and_all_else_stays() {
        for (line, wanted) in [
            ("::error::no", ": :error::no"),
            ("  \t::set-output name=a::b", "  \t: :set-output name=a::b"),
            ("\u{a0}\u{2003}::warning::no", "\u{a0}\u{2003}: :warning::no"),
            ("\u{200b}:\u{ad}:error::no", "\u{200b}:\u{ad} :error::no"),
            (":::error::no", ": ::error::no"),
            ("gcc: ##[error]no", "gcc: # #[error]no"),
            ("###[group]x##[endgroup]", "## #[group]x# #[endgroup]"),
            ("##vso[task.setvariable variable=a]b", "# #vso[task.setvariable variable=a]b"),
            ("#\u{200d}#\u{feff}[command]x", "#\u{200d} #\u{feff}[command]x"),
            ("##teamcity[x]", "# #teamcity[x]"),
        ] {
            assert_eq!(harmless(line), wanted, "{line:?}");
        }
        for line in ["std::vector<int> x", "## Heading [1]", "## Heading", "a #[derive(Debug)]", "1 :: Int", "", "#"] {
            assert!(matches!(harmless(line), Cow::Borrowed(same) if same == line), "{line:?}");
        }
    }

    #[test]
    fn a_carriage_return_begins_a_line() {
        assert_eq!(text("10%\r::error::no\r\n\x1b[31mred\x1b[0m"), "10%\n: :error::no\n\n[31mred[0m");
        assert_eq!(text("\x1b::error::no\n"), ": :error::no\n");
    }

    #[test]
    fn json_says_the_same() {
        let value = serde_json::json!({ "message": "##[error]no", "ref": ".#web1" });
        let before = serde_json::to_string_pretty(&value).unwrap();
        let after = json(&before);
        assert!(!after.contains("##["), "{after}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&after).unwrap(), value);
        assert!(matches!(json("{\"ref\": \".#web1\"}"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_dangerous_is_left_and_twice_is_once(line in "[ :#\\[a\u{200b}é\t]{0,12}") {
            let once = harmless(&line).into_owned();
            prop_assert!(breaks(&once).is_empty(), "{once:?}");
            let without = |text: &str| text.replace(' ', "");
            prop_assert_eq!(without(&once), without(&line));
        }
    }
}
