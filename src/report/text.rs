//! Lines of a screen: painted pieces of text that know their width in columns and can be cut to fit. Owns style and
//! shortening; colour never carries a meaning of its own here, it only repeats what the words say.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::harmless::harmless;

/// How texts may look. Where it comes from (`NO_COLOR`, `CLICOLOR_FORCE`, `TERM`) is the business of `config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// Colours and bold.
    pub colour: bool,
    /// Only ASCII: for terminals and locales that know nothing else.
    pub ascii: bool,
    /// A CI system may read it, and must find none of its commands in what others said.
    pub harmless: bool,
}

/// The look of one piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Paint {
    /// As it comes.
    #[default]
    Plain,
    /// What the eye should find first.
    Bold,
    /// What the eye may skip.
    Dim,
    /// Failed.
    Bad,
    /// Done.
    Good,
    /// To be looked at.
    Warn,
    /// What a build has said: it looks as it comes, and may be folded where that is possible.
    Said,
}

impl Paint {
    /// The SGR parameters (ECMA-48 8.3.117).
    fn sgr(self) -> &'static str {
        match self {
            Self::Plain | Self::Said => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Bad => "1;31",
            Self::Good => "32",
            Self::Warn => "33",
        }
    }
}

/// One line of a screen, without its newline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line(Vec<(Paint, String)>);

impl Line {
    /// An empty line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this text at the end. Control characters, which foreign texts may hold, become blanks.
    #[must_use]
    pub fn text(self, text: impl AsRef<str>) -> Self {
        self.paint(Paint::Plain, text)
    }

    /// With this painted text at the end.
    #[must_use]
    pub fn paint(mut self, paint: Paint, text: impl AsRef<str>) -> Self {
        let text: String = text.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if !text.is_empty() {
            self.0.push((paint, text));
        }
        self
    }

    /// With another line at the end.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// With another line at the end, if all of it fits in this many columns.
    #[must_use]
    pub fn then_if_fits(self, other: Self, width: usize) -> Self {
        if self.width() + other.width() <= width { self.then(other) } else { self }
    }

    /// With another line flush right, at least two blanks away, if it fits in this many columns.
    #[must_use]
    pub fn right(self, other: Self, width: usize) -> Self {
        let (own, its) = (self.width(), other.width());
        if own + its + 2 > width { self } else { self.pad(width - its).then(other) }
    }

    /// Filled with blanks up to this column; one blank at least where text follows text.
    #[must_use]
    pub fn pad(self, column: usize) -> Self {
        let blanks = column.saturating_sub(self.width());
        self.text(" ".repeat(blanks))
    }

    /// Its pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = (Paint, &str)> {
        self.0.iter().map(|(paint, text)| (*paint, text.as_str()))
    }

    /// It is a line of what a build has said.
    #[must_use]
    pub fn is_said(&self) -> bool {
        self.0.first().is_some_and(|(paint, _)| *paint == Paint::Said)
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// Cut to this many columns; what is cut ends in `…`.
    #[must_use]
    pub fn fit(self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut left = width.saturating_sub(1);
        let mut out = Vec::new();
        for (paint, text) in self.0 {
            let kept = cut(&text, left);
            left -= kept.width();
            let whole = kept.len() == text.len();
            out.push((paint, kept.to_owned()));
            if !whole {
                break;
            }
        }
        if width > 0 {
            out.push((Paint::Plain, "…".to_owned()));
        }
        Self(out)
    }

    /// The text without paint.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// As bytes for a terminal or a file; no blanks at the end.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        if style.harmless
            && let Cow::Owned(safe) = harmless(&self.plain())
        {
            return Self::from(safe).render(Style { harmless: false, ..style });
        }
        let mut pieces: Vec<(Paint, &str)> = self.0.iter().map(|(paint, text)| (*paint, text.as_str())).collect();
        while let Some((_, text)) = pieces.last_mut() {
            *text = text.trim_end();
            if !text.is_empty() {
                break;
            }
            pieces.pop();
        }
        let mut out = String::new();
        for (paint, text) in pieces {
            let text = if style.ascii { ascii(text) } else { text.to_owned() };
            if style.colour && !paint.sgr().is_empty() {
                out.push_str(&format!("\u{1b}[{}m{text}\u{1b}[0m", paint.sgr()));
            } else {
                out.push_str(&text);
            }
        }
        out
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        Self::new().text(text)
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self::new().text(text)
    }
}

/// Lines as one text, each with its newline.
#[must_use]
pub fn render(lines: &[Line], style: Style) -> String {
    let mut out = String::new();
    for line in lines {
        out.push_str(&line.render(style));
        out.push('\n');
    }
    out
}

/// The same columns without characters beyond ASCII.
fn ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '·' => '|',
            '…' => '~',
            '→' => '>',
            '↓' => 'v',
            '─' | '−' => '-',
            '×' => 'x',
            '▁'..='█' => char::from(b"_.-=+*#@"[(c as usize - '▁' as usize).min(7)]),
            c if c.is_ascii() => c,
            _ => '?',
        })
        .collect()
}

/// As much of a text as fits in this many columns.
fn cut(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width {
            return &text[..at];
        }
    }
    text
}

/// As many of the items as fit in this many columns, then how many more there are (`10 more`); at least the number
/// is always said.
#[must_use]
pub fn listed<S: AsRef<str>>(items: &[S], separator: &str, width: usize) -> String {
    let more = |left: usize, any: bool| match (left, any, separator) {
        (0, _, _) => String::new(),
        (_, false, _) => count_all(left),
        (_, true, " ") => format!(" +{left} more"),
        (_, true, _) => format!("{separator}{left} more"),
    };
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        let mut next = out.clone();
        if i > 0 {
            next.push_str(separator);
        }
        next.push_str(item.as_ref());
        let left = items.len() - i - 1;
        // Two items always fit better than one and a number, so the number's own width counts.
        if next.width() + more(left, true).width() > width {
            let rest = more(items.len() - i, i > 0);
            out.push_str(&rest);
            return out;
        }
        out = next;
    }
    out
}

fn count_all(n: usize) -> String {
    format!("{n} of them")
}

/// A text over as many lines of this many columns as it takes, broken at blanks where there are any; at most `most`
/// lines, the last cut.
#[must_use]
pub fn wrapped(text: &str, width: usize, most: usize) -> Vec<String> {
    let width = width.max(8);
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let mut rest = paragraph.trim_end();
        loop {
            let head = cut(rest, width);
            if head.len() == rest.len() {
                lines.push(rest.to_owned());
                break;
            }
            let at = head.rfind(' ').filter(|at| *at > width / 2).unwrap_or(head.len()).max(1);
            let at = (at..=rest.len()).find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
            lines.push(rest[..at].trim_end().to_owned());
            rest = rest[at..].trim_start();
            if lines.len() > most {
                break;
            }
        }
        if lines.len() > most {
            break;
        }
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = format!("{}…", cut(last, width - 1));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_by_columns_and_keep_their_paint() {
        let line = Line::new().paint(Paint::Bad, "FAILED").text(" 漢字 web3");
        assert_eq!(line.width(), 16);
        assert_eq!(line.clone().fit(10).render(Style::default()), "FAILED 漢…");
        assert_eq!(line.clone().fit(16), line);
        let colour = Style { colour: true, ..Style::default() };
        assert_eq!(line.clone().fit(7).render(colour), "\u{1b}[1;31mFAILED\u{1b}[0m…");
        assert_eq!(line.fit(0).width(), 0);
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        assert_eq!(Line::from("a\u{1b}[2Jb\nc").render(Style::default()), "a [2Jb c");
    }

    #[test]
    fn commands_of_others_cannot_reach_a_runner() {
        let line = Line::new().pad(4).paint(Paint::Dim, ":").text(":error::no");
        let log = Style { colour: true, harmless: true, ..Style::default() };
        assert_eq!(line.render(log), "    : :error::no");
        let line = Line::new().paint(Paint::Bad, "FAILED").text(" web1");
        assert_eq!(line.render(log), line.render(Style { harmless: false, ..log }));
        // What is beyond ASCII becomes `?`, which no blank is needed for.
        let ascii = Style { ascii: true, harmless: true, ..Style::default() };
        assert_eq!(Line::from("\u{200b}::error::no").render(ascii), "?: :error::no");
    }

    #[test]
    fn lists_say_how_many_are_missing() {
        let names = ["web1", "web2", "web3", "db1"];
        assert_eq!(listed(&names, " ", 40), "web1 web2 web3 db1");
        assert_eq!(listed(&names, " ", 17), "web1 web2 +2 more");
        assert_eq!(listed(&names, " · ", 22), "web1 · web2 · 2 more");
        assert_eq!(listed(&names, " ", 3), "4 of them");
    }

    #[test]
    fn ascii_keeps_the_columns() {
        let line = Line::from("↓ a · b … ×2 −1 →");
        let ascii = line.render(Style { ascii: true, ..Style::default() });
        assert_eq!(ascii, "v a | b ~ x2 -1 >");
    }

    #[test]
    fn long_messages_go_on_below() {
        assert_eq!(wrapped("one two three four", 10, 5), ["one two", "three four"]);
        assert_eq!(wrapped("abcdefghijklmnop", 8, 5), ["abcdefgh", "ijklmnop"]);
        assert_eq!(wrapped("a b c d e f g h i j k l", 8, 2).len(), 2);
        assert_eq!(wrapped("ééééééééééééééé", 8, 5).concat(), "ééééééééééééééé");
    }
}
