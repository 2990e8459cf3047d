//! A readable difference of two texts: short ones side by side, lists word by word, long ones line by line.

use crate::report::number::name_version;

/// Lines of a difference that are shown.
const LINES: usize = 12;

/// Words that came or went that are shown.
const WORDS: usize = 8;

/// Characters of a value that is shown whole, and of a line.
const SHORT: usize = 60;

/// Lines or words beyond which nothing is matched one by one.
const MOST: usize = 1500;

/// Lines of a diff: `old → new`, or `− old` and `+ new`.
pub(super) fn lines(base: Option<&str>, head: Option<&str>) -> Vec<String> {
    match (base, head) {
        (None, None) => Vec::new(),
        (None, Some(head)) => one_sided('+', head),
        (Some(base), None) => one_sided('−', base),
        (Some(base), Some(head)) if base.contains('\n') || head.contains('\n') => by_line(base, head),
        (Some(base), Some(head)) => {
            let both = format!("{} → {}", quoted(&readable(base)), quoted(&readable(head)));
            let (b, h) = (words(base), words(head));
            let paths = b.iter().chain(&h).any(|word| is_store_path(word));
            let is_list = paths && (b.len(), h.len()) != (1, 1);
            if is_list || both.chars().count() > 2 * SHORT { by_word(&b, &h) } else { vec![both] }
        }
    }
}

/// `old → new`, if both are one short line.
pub(super) fn short(base: &str, head: &str) -> Option<String> {
    let line = |text: &'_ str| text.strip_suffix('\n').unwrap_or(text).to_owned();
    let (base, head) = (line(base), line(head));
    if base == head || base.contains('\n') || head.contains('\n') {
        return None;
    }
    let mut lines = lines(Some(&base), Some(&head));
    lines.pop().filter(|text| lines.is_empty() && text.chars().count() <= SHORT)
}

/// All lines that differ, whole: for files. With `most` lines at most; how many more there are.
pub(super) fn unified(base: &str, head: &str, most: usize) -> (Vec<String>, usize) {
    let (base, head): (Vec<&str>, Vec<&str>) = (base.lines().collect(), head.lines().collect());
    let changed: Vec<String> = changes(&base, &head).into_iter().map(|(sign, text)| format!("{sign} {text}")).collect();
    let more = changed.len().saturating_sub(most);
    (changed.into_iter().take(most).collect(), more)
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').filter(|word| !word.is_empty()).collect()
}

fn one_sided(sign: char, text: &str) -> Vec<String> {
    let all: Vec<&str> = text.lines().collect();
    let mut lines: Vec<String> =
        all.iter().take(LINES).map(|line| format!("{sign} {}", cut(&readable(line)))).collect();
    if all.is_empty() {
        lines.push(format!("{sign} \"\""));
    }
    lines.extend(more(all.len().saturating_sub(LINES), "line"));
    lines
}

fn by_line(base: &str, head: &str) -> Vec<String> {
    let (base, head): (Vec<&str>, Vec<&str>) = (base.lines().collect(), head.lines().collect());
    let changes = changes(&base, &head);
    let shown = |(sign, text): &(char, &str)| format!("{sign} {}", cut(&readable(text)));
    let mut lines: Vec<String> = changes.iter().take(LINES).map(shown).collect();
    if lines.is_empty() {
        lines.push("other line ends".to_owned());
    }
    lines.extend(more(changes.len().saturating_sub(LINES), "line"));
    lines
}

fn by_word(base: &[&str], head: &[&str]) -> Vec<String> {
    let changes = changes(base, head);
    let shown = changes.iter().take(WORDS).map(|(sign, word)| format!("{sign}{}", cut(&readable(word))));
    let mut line = shown.collect::<Vec<_>>().join(" ");
    if changes.len() > WORDS {
        line.push_str(&format!(" and {} more", changes.len() - WORDS));
    }
    vec![line]
}

fn more(count: usize, what: &str) -> Option<String> {
    (count > 0).then(|| format!("… {count} more {what}{}", if count == 1 { "" } else { "s" }))
}

/// Store paths as their names.
fn readable(text: &str) -> String {
    text.split(' ')
        .map(|word| if is_store_path(word) { name_version(word) } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a word is a store path, and not something below one.
fn is_store_path(word: &str) -> bool {
    let Some((_, last)) = word.rsplit_once('/').filter(|_| word.starts_with('/')) else { return false };
    last.len() > 33 && last.as_bytes()[32] == b'-' && last.bytes().take(32).all(|b| b.is_ascii_alphanumeric())
}

fn quoted(text: &str) -> String {
    if text.is_empty() { "\"\"".to_owned() } else { text.to_owned() }
}

/// A long line with its middle left out.
fn cut(text: &str) -> String {
    let count = text.chars().count();
    if count <= 2 * SHORT {
        return text.to_owned();
    }
    let first: String = text.chars().take(SHORT).collect();
    let last: String = text.chars().skip(count - SHORT + 10).collect();
    format!("{first} … {last}")
}

/// What only one side has, in order: `−` the base, `+` the head. A longest common subsequence stays.
fn changes<'a>(base: &[&'a str], head: &[&'a str]) -> Vec<(char, &'a str)> {
    let before = base.iter().zip(head).take_while(|(a, b)| a == b).count();
    let (base, head) = (&base[before..], &head[before..]);
    let after = base.iter().rev().zip(head.iter().rev()).take_while(|(a, b)| a == b).count();
    let (base, head) = (&base[..base.len() - after], &head[..head.len() - after]);
    if base.len() > MOST || head.len() > MOST {
        let all = base.iter().map(|text| ('−', *text)).chain(head.iter().map(|text| ('+', *text)));
        return all.collect();
    }
    // `common[i][j]`: how much is common from here on.
    let width = head.len() + 1;
    let mut common = vec![0_u16; (base.len() + 1) * width];
    for i in (0..base.len()).rev() {
        for j in (0..head.len()).rev() {
            common[i * width + j] = if base[i] == head[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < base.len() || j < head.len() {
        if i < base.len() && j < head.len() && base[i] == head[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < base.len() && (j == head.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            out.push(('−', base[i]));
            i += 1;
        } else {
            out.push(('+', head[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(base: &str, head: &str) -> Vec<String> {
        lines(Some(base), Some(head))
    }

    #[test]
    fn short_values_stand_side_by_side() {
        assert_eq!(diff("100", "200"), ["100 → 200"]);
        assert_eq!(diff("", "--with-ssl"), ["\"\" → --with-ssl"]);
        assert_eq!(lines(None, Some("1")), ["+ 1"]);
        assert_eq!(lines(Some("1"), None), ["− 1"]);
    }

    #[test]
    fn one_line_with_its_end_is_a_short_value() {
        assert_eq!(short("1\n", "77\n").as_deref(), Some("1 → 77"));
        assert_eq!(short("1\n", "1"), None, "the line end is all that differs");
        assert_eq!(short("a\nb", "a\nc"), None);
        assert_eq!(short(&"a".repeat(40), &"b".repeat(40)), None);
    }

    #[test]
    fn lists_of_paths_say_what_came_and_went() {
        let path = |name: &str| format!("/nix/store/0c1d2f3g4h5i6j7k8l9m0n1p2q3r4s5v-{name}");
        let base = format!("{} {}", path("zlib-1.3"), path("openssl-3.5.1"));
        assert_eq!(diff(&base, &path("zlib-1.3")), ["−openssl-3.5.1"]);
        assert_eq!(diff(&path("a"), &path("b")), ["a → b"]);
        assert_eq!(diff("", &path("fix.patch")), ["+fix.patch"]);
        let below = format!("{}/bin/x", path("bash-5.2"));
        assert_eq!(diff("/bin/sh", &below), [format!("/bin/sh → {below}")]);
    }

    #[test]
    fn texts_of_many_lines_show_those_that_differ() {
        let base: String = (0..30).map(|n| format!("line {n}\n")).collect();
        let head = base.replace("line 7\n", "line seven\n").replace("line 20\n", "");
        assert_eq!(diff(&base, &head), ["− line 7", "+ line seven", "− line 20"]);
        let other: String = (0..30).map(|n| format!("other {n}\n")).collect();
        let long = diff(&base, &other);
        assert_eq!((long.len(), long[12].as_str()), (13, "… 48 more lines"));
        assert_eq!(unified(&base, &head, 2), (vec!["− line 7".to_owned(), "+ line seven".to_owned()], 1));
    }
}
