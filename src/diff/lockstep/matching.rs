//! Which input of the head is which of the base.

use std::collections::BTreeMap;

use crate::id::split_name;

/// An input that the other side does not have as it is.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// The name without `.drv`.
    pub(super) name: String,
    /// The texts by which its outputs are referred to.
    pub(super) outputs: Vec<String>,
    /// Equal for derivations that say the same but for hashes.
    pub(super) shape: u64,
    /// Where its user speaks of it first: variable, and how far into all texts.
    pub(super) place: (String, usize),
}

/// How the inputs of a pair belong together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Matching {
    /// (base, head, whether they are the same package).
    pub(super) pairs: Vec<(usize, usize, bool)>,
    pub(super) removed: Vec<usize>,
    pub(super) added: Vec<usize>,
}

/// Matches inputs, the surest first: by outputs, by content, by name, by package, by their place.
pub(super) fn matched(base: &[Candidate], head: &[Candidate]) -> Matching {
    let mut rest = Rest { base, head, removed: ordered(base), added: ordered(head), pairs: Vec::new() };
    rest.round(false, true, |one| Some((one.name.clone(), one.outputs.join(" "))));
    rest.round(false, true, |one| Some((one.name.clone(), one.shape.to_string())));
    rest.round(false, true, |one| Some((one.name.clone(), one.place.0.clone())));
    rest.round(false, true, |one| Some((one.name.clone(), String::new())));
    rest.round(false, true, |one| {
        let (package, version) = split_name(&one.name);
        // `nginx-1.29.4.tar.gz` is not the next `nginx-1.29.3`.
        let ending = version.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        Some((package.to_owned(), ending.to_owned()))
    });
    rest.round(false, true, |one| Some((split_name(&one.name).0.to_owned(), String::new())));
    rest.round(true, false, |one| (!one.place.0.is_empty()).then(|| (one.place.0.clone(), String::new())));
    rest.round(true, false, |_| Some((String::new(), String::new())));
    rest.pairs.sort_unstable();
    Matching { pairs: rest.pairs, removed: rest.removed, added: rest.added }
}

/// In the order in which their user speaks of them.
fn ordered(all: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|at| (all[*at].place.1, &all[*at].name));
    order
}

struct Rest<'a> {
    base: &'a [Candidate],
    head: &'a [Candidate],
    removed: Vec<usize>,
    added: Vec<usize>,
    pairs: Vec<(usize, usize, bool)>,
}

impl Rest<'_> {
    /// Pairs what has the same key, in order; `single`: only where there is one of it on each side.
    fn round(&mut self, single: bool, same: bool, key: impl Fn(&Candidate) -> Option<(String, String)>) {
        if self.removed.is_empty() || self.added.is_empty() {
            return;
        }
        let group = |of: &[Candidate], left: &[usize]| {
            let mut groups: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
            for at in left {
                if let Some(key) = key(&of[*at]) {
                    groups.entry(key).or_default().push(*at);
                }
            }
            groups
        };
        let (ours, mut theirs) = (group(self.base, &self.removed), group(self.head, &self.added));
        for (key, ours) in ours {
            let Some(theirs) = theirs.remove(&key) else { continue };
            if single && (ours.len() > 1 || theirs.len() > 1) {
                continue;
            }
            for (base, head) in ours.into_iter().zip(theirs) {
                self.pairs.push((base, head, same));
                self.removed.retain(|at| *at != base);
                self.added.retain(|at| *at != head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, place: &str, at: usize) -> Candidate {
        Candidate {
            name: name.into(),
            outputs: vec![format!("/{name}/{at}")],
            shape: at as u64,
            place: (place.into(), at),
        }
    }

    /// Pairs, removed, added.
    type Names = (Vec<(String, String, bool)>, Vec<String>, Vec<String>);

    fn names(base: &[&str], head: &[&str]) -> Names {
        let all = |names: &[&str], from: usize| -> Vec<Candidate> {
            names.iter().enumerate().map(|(at, name)| candidate(name, "buildInputs", from + at)).collect()
        };
        let (base, head) = (all(base, 0), all(head, 100));
        let matching = matched(&base, &head);
        (
            matching.pairs.iter().map(|(b, h, s)| (base[*b].name.clone(), head[*h].name.clone(), *s)).collect(),
            matching.removed.iter().map(|at| base[*at].name.clone()).collect(),
            matching.added.iter().map(|at| head[*at].name.clone()).collect(),
        )
    }

    #[test]
    fn a_new_version_is_the_same_package_and_its_tarball_is_another() {
        let (pairs, removed, added) = names(
            &["nginx-1.29.3", "nginx-1.29.3.tar.gz", "zlib-1"],
            &["zlib-1", "nginx-1.29.4.tar.gz", "nginx-1.29.4"],
        );
        let pair = |base: &str, head: &str| (base.to_owned(), head.to_owned(), true);
        assert_eq!(
            pairs,
            [
                pair("nginx-1.29.3", "nginx-1.29.4"),
                pair("nginx-1.29.3.tar.gz", "nginx-1.29.4.tar.gz"),
                pair("zlib-1", "zlib-1")
            ]
        );
        assert!(removed.is_empty() && added.is_empty());
    }

    #[test]
    fn what_is_alone_on_both_sides_takes_the_place_and_else_comes_and_goes() {
        let (pairs, ..) = names(&["tool-1"], &["gadget-1"]);
        assert_eq!(pairs, [("tool-1".to_owned(), "gadget-1".to_owned(), false)]);
        let (pairs, removed, added) = names(&["tool-1"], &["gadget-1", "other-1"]);
        assert!(pairs.is_empty());
        assert_eq!((removed.len(), added.len()), (1, 2));
    }

    #[test]
    fn among_equal_names_content_decides_before_the_order_does() {
        let mut base = [candidate("source", "src", 1), candidate("source", "src", 2)];
        let mut head = [candidate("source", "src", 3), candidate("source", "src", 4)];
        assert_eq!(matched(&base, &head).pairs, [(0, 0, true), (1, 1, true)]);
        (base[0].shape, head[1].shape) = (77, 77);
        assert_eq!(matched(&base, &head).pairs, [(0, 1, true), (1, 0, true)]);
        head[0].outputs = base[0].outputs.clone();
        assert_eq!(matched(&base, &head).pairs, [(0, 0, true), (1, 1, true)]);
    }
}
