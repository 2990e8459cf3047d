//! What a cause says, apart from where it says it: causes that say the same are one to people.

use super::words::{Cause, CauseKind, Difference};

/// What differs, in the words that are shown: of long texts only what is not equal on both sides.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Said {
    kind: CauseKind,
    differences: Vec<(CauseKind, String, Sides)>,
    /// Of a cause without differences: the .drvs that cannot be read.
    unread: Option<(String, Sides)>,
}

/// Base and head.
type Sides = (Option<String>, Option<String>);

impl Said {
    pub(super) fn of(cause: &Cause) -> Self {
        // Where something else differs, the revision is none to speak of.
        let told = |one: &&Difference| !one.revision || cause.kind == CauseKind::Revision;
        let differences = cause.differences.iter().filter(told).map(|one| {
            let sides = core(one.base.as_deref(), one.head.as_deref());
            (one.kind, one.name.clone(), sides)
        });
        let unread = cause.differences.is_empty().then(|| (cause.name.clone(), (cause.from.clone(), cause.to.clone())));
        Self { kind: cause.kind, differences: differences.collect(), unread }
    }
}

/// Two texts without the lines that begin and end both, or the words of a list of paths.
fn core(base: Option<&str>, head: Option<&str>) -> Sides {
    let (Some(base), Some(head)) = (base, head) else { return (base.map(str::to_owned), head.map(str::to_owned)) };
    let separator = if base.contains('\n') || head.contains('\n') {
        '\n'
    } else if base.split(' ').chain(head.split(' ')).any(is_store_path) {
        ' '
    } else {
        return (Some(base.to_owned()), Some(head.to_owned()));
    };
    let parts = |text: &'_ str| text.split(separator).map(str::to_owned).collect::<Vec<String>>();
    let (base, head) = (parts(base), parts(head));
    let before = base.iter().zip(&head).take_while(|(ours, theirs)| ours == theirs).count();
    let (base, head) = (&base[before..], &head[before..]);
    let after = base.iter().rev().zip(head.iter().rev()).take_while(|(ours, theirs)| ours == theirs).count();
    let joined = |parts: &[String]| Some(parts[..parts.len() - after].join(&separator.to_string()));
    (joined(base), joined(head))
}

/// Whether a word is a store path, and not something below one.
fn is_store_path(word: &str) -> bool {
    let Some((_, last)) = word.rsplit_once('/').filter(|_| word.starts_with('/')) else { return false };
    last.len() > 33 && last.as_bytes()[32] == b'-' && last.bytes().take(32).all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(base: &str, head: &str) -> (String, String) {
        let (base, head) = core(Some(base), Some(head));
        (base.unwrap(), head.unwrap())
    }

    #[test]
    fn only_what_is_shown_of_a_text_counts() {
        assert_eq!(of("1\n", "77\n"), ("1".into(), "77".into()));
        assert_eq!(of("set -e\na\nb\n", "set -eu\na\nb\n"), ("set -e".into(), "set -eu".into()));
        assert_eq!(of("a\nb\n", "a\nx\nb\n"), (String::new(), "x".into()));
        assert_eq!(of("port 80", "port 81"), ("port 80".into(), "port 81".into()), "short values are shown whole");
        let path = |name: &str| format!("/nix/store/0c1d2f3g4h5i6j7k8l9m0n1p2q3r4s5v-{name}");
        let (a, b) = (path("a"), path("b"));
        assert_eq!(of(&a, &format!("{a} {b}")), (String::new(), b));
    }
}
