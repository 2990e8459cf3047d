//! What was left out by default, in one line, with the flags that add it. Counting is `eval`'s and the driver's.

use unicode_width::UnicodeWidthStr as _;

use super::number::count;
use super::summary::LeftOut;

/// `1 package for aarch64-linux, 1 darwin host for aarch64-darwin (--all-systems) · 2 apps (--kind apps)`; where that
/// is too long, only how many. The flags are there to be typed: rather than being cut they go into further lines.
#[must_use]
pub fn lines<'a>(parts: impl IntoIterator<Item = &'a LeftOut>, width: usize) -> Vec<String> {
    let mut by_flag: Vec<(&str, Vec<&LeftOut>)> = Vec::new();
    for part in parts {
        match by_flag.iter_mut().find(|(flag, _)| *flag == &*part.flag) {
            Some((_, known)) => known.push(part),
            None => by_flag.push((&part.flag, vec![part])),
        }
    }
    let long = |of: &[&LeftOut]| of.iter().map(|part| &*part.what).collect::<Vec<_>>().join(", ");
    let short = |of: &[&LeftOut]| count(of.iter().map(|part| part.count as usize).sum());
    let say = |words: &dyn Fn(&[&LeftOut]) -> String| -> Vec<String> {
        by_flag.iter().map(|(flag, of)| format!("{} ({flag})", words(of))).collect()
    };
    let (long, short) = (say(&long).join(" · "), say(&short));
    let joined = short.join(" · ");
    if long.width() <= width {
        vec![long]
    } else if joined.width() <= width {
        vec![joined]
    } else {
        short
    }
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
        assert_eq!(lines(&parts, 120), [long]);
        assert_eq!(lines(&parts, 60), ["2 (--all-systems) · 2 (--kind apps)"]);
        assert_eq!(lines(&parts, 20), ["2 (--all-systems)", "2 (--kind apps)"]);
    }
}
