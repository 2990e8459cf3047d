//! What was left out by default, in one line, with the flags that add it. Counting is `eval`'s and the driver's.

use unicode_width::UnicodeWidthStr as _;

use super::number::count;
use super::summary::LeftOut;

/// `1 package for aarch64-linux, 1 darwin host for aarch64-darwin (--all-systems) · 2 apps (--kind apps)`; where that
/// is too long, only how many. The flags are always said, as they are there to be typed.
#[must_use]
pub fn text<'a>(parts: impl IntoIterator<Item = &'a LeftOut>, width: usize) -> String {
    let mut by_flag: Vec<(&str, Vec<&LeftOut>)> = Vec::new();
    for part in parts {
        match by_flag.iter_mut().find(|(flag, _)| *flag == &*part.flag) {
            Some((_, known)) => known.push(part),
            None => by_flag.push((&part.flag, vec![part])),
        }
    }
    let long = |of: &[&LeftOut]| of.iter().map(|part| &*part.what).collect::<Vec<_>>().join(", ");
    let short = |of: &[&LeftOut]| count(of.iter().map(|part| part.count as usize).sum());
    let say = |words: &dyn Fn(&[&LeftOut]) -> String| {
        let part = |(flag, of): &(&str, Vec<&LeftOut>)| format!("{} ({flag})", words(of));
        by_flag.iter().map(part).collect::<Vec<_>>().join(" · ")
    };
    let text = say(&long);
    if text.width() <= width { text } else { say(&short) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_every_flag_once() {
        let of = |count, what: &str, flag: &str| LeftOut { count, what: what.into(), flag: flag.into() };
        let parts = [
            of(1, "1 package for aarch64-linux", "--all-systems"),
            of(2, "2 apps", "--kind apps"),
            of(1, "1 darwin host for aarch64-darwin", "--all-systems"),
        ];
        let long =
            "1 package for aarch64-linux, 1 darwin host for aarch64-darwin (--all-systems) · 2 apps (--kind apps)";
        assert_eq!(text(&parts, 120), long);
        assert_eq!(text(&parts, 60), "2 (--all-systems) · 2 (--kind apps)");
    }
}
