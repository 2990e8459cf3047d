//! Two evaluations of one flake, attr by attr: what was added, removed, changed, broken and fixed. Decides by drvPath
//! alone, which is all that Nix builds by; that two drvs give the same outputs is said beside it.
//!
//! A part of a flake that does not evaluate is one attr that fails under its own name (`nixosConfigurations`): all that
//! the other side has below it counts as failing there.

use std::collections::BTreeMap;

use crate::event::Difference;
use crate::id::{AttrPath, StorePath};

/// What one side knows of an attr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// It has a derivation.
    Drv {
        /// Which.
        drv: StorePath,
        /// Its outputs by name; `None` where evaluation does not know the path.
        outputs: BTreeMap<String, Option<StorePath>>,
    },
    /// It is fine and has nothing to build.
    Nothing,
    /// It does not evaluate.
    Failed,
}

/// One side: all attrs of a selection.
pub type Side = BTreeMap<AttrPath, Known>;

/// How an attr compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// In one word.
    pub difference: Difference,
    /// The drvs differ, all outputs are known, and they are the same.
    pub same_outputs: bool,
}

/// How an attr of the head compares with the base.
#[must_use]
pub fn compare(base: &Side, path: &AttrPath, head: &Known) -> Compared {
    let plain = |difference| Compared { difference, same_outputs: false };
    let before = lookup(base, path);
    if *head == Known::Failed {
        let broken = match before {
            Some(known) => *known == Known::Failed,
            // A whole part of the flake that does not evaluate any more.
            None => below(base, path).next().is_some() && below(base, path).all(|(_, known)| *known == Known::Failed),
        };
        return plain(if broken { Difference::StillBroken } else { Difference::NewlyBroken });
    }
    match (before, head) {
        (None, _) => plain(Difference::Added),
        (Some(Known::Failed), _) => plain(Difference::Fixed),
        (Some(Known::Nothing), Known::Nothing) => plain(Difference::Unchanged),
        (Some(Known::Drv { drv: base, outputs: before }), Known::Drv { drv, outputs }) => {
            if base == drv {
                return plain(Difference::Unchanged);
            }
            let known = !outputs.is_empty() && outputs.values().all(Option::is_some);
            Compared { difference: Difference::Changed, same_outputs: known && before == outputs }
        }
        (Some(_), _) => plain(Difference::Changed),
    }
}

/// The attrs that only the base has.
pub fn removed<'a>(base: &'a Side, head: &Side) -> impl Iterator<Item = (&'a AttrPath, &'a Known)> {
    base.iter().filter(move |(path, known)| {
        // What the base could not list and the head can is told by the head's own attrs.
        let listed = **known == Known::Failed && below(head, path).next().is_some();
        lookup(head, path).is_none() && !listed
    })
}

/// What a side knows of an attr, or of the part of the flake that it lies in if that does not evaluate.
fn lookup<'a>(side: &'a Side, path: &AttrPath) -> Option<&'a Known> {
    let above = || {
        let parts = path.parts();
        let failing = (1..parts.len()).filter_map(|n| side.get(&AttrPath::new(parts[..n].to_vec())));
        failing.into_iter().find(|known| **known == Known::Failed)
    };
    side.get(path).or_else(above)
}

/// The attrs below a path.
fn below<'a>(side: &'a Side, path: &AttrPath) -> impl Iterator<Item = (&'a AttrPath, &'a Known)> {
    let parts = path.parts().to_vec();
    // Paths are in the order of their parts, so that these stand together.
    let from = (std::ops::Bound::Excluded(path.clone()), std::ops::Bound::Unbounded);
    side.range(from).take_while(move |(path, _)| path.parts().starts_with(&parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> AttrPath {
        text.parse().unwrap()
    }

    fn store_path(seed: u8, name: &str) -> StorePath {
        let digit = char::from(b'0' + seed % 10);
        StorePath::from_basename(format!("{}-{name}", String::from(digit).repeat(32)).as_bytes()).unwrap()
    }

    fn drv(seed: u8, out: Option<u8>) -> Known {
        let out = out.map(|out| store_path(out, "x"));
        Known::Drv { drv: store_path(seed, "x.drv"), outputs: [("out".to_owned(), out)].into() }
    }

    fn side(attrs: &[(&str, Known)]) -> Side {
        attrs.iter().map(|(name, known)| (path(name), known.clone())).collect()
    }

    fn difference(base: &Side, name: &str, head: &Known) -> Difference {
        compare(base, &path(name), head).difference
    }

    #[test]
    fn every_difference_has_its_word() {
        let base = side(&[("a.x", drv(1, Some(1))), ("a.y", Known::Failed), ("a.z", Known::Nothing)]);
        for (name, head, expected) in [
            ("a.x", drv(1, Some(1)), Difference::Unchanged),
            ("a.x", drv(2, Some(2)), Difference::Changed),
            ("a.x", Known::Nothing, Difference::Changed),
            ("a.x", Known::Failed, Difference::NewlyBroken),
            ("a.y", Known::Failed, Difference::StillBroken),
            ("a.y", drv(1, Some(1)), Difference::Fixed),
            ("a.z", Known::Nothing, Difference::Unchanged),
            ("a.n", drv(1, Some(1)), Difference::Added),
            ("a.n", Known::Failed, Difference::NewlyBroken),
        ] {
            assert_eq!(difference(&base, name, &head), expected, "{name} {head:?}");
        }
        let head = side(&[("a.x", drv(1, Some(1)))]);
        assert_eq!(removed(&base, &head).map(|(path, _)| path.to_string()).collect::<Vec<_>>(), ["a.y", "a.z"]);
    }

    #[test]
    fn outputs_are_the_same_only_where_all_are_known() {
        let same = |base: Known, head: Known| compare(&side(&[("a", base)]), &path("a"), &head).same_outputs;
        assert!(same(drv(1, Some(3)), drv(2, Some(3))));
        assert!(!same(drv(1, Some(3)), drv(2, Some(4))));
        assert!(!same(drv(1, None), drv(2, None)));
        assert!(!same(drv(1, Some(3)), drv(1, Some(3))), "the same drv is unchanged, and nothing more is said");
    }

    #[test]
    fn a_part_that_does_not_evaluate_stands_for_all_below_it() {
        let listed = side(&[("hosts.a", drv(1, Some(1))), ("hosts.b", Known::Failed), ("hostsX", drv(1, None))]);
        let broken = side(&[("hosts", Known::Failed)]);
        assert_eq!(difference(&listed, "hosts", &Known::Failed), Difference::NewlyBroken);
        assert_eq!(difference(&side(&[("hosts.b", Known::Failed)]), "hosts", &Known::Failed), Difference::StillBroken);
        assert_eq!(difference(&broken, "hosts", &Known::Failed), Difference::StillBroken);
        assert_eq!(difference(&broken, "hosts.a", &drv(1, Some(1))), Difference::Fixed);
        assert_eq!(difference(&broken, "hosts.b", &Known::Failed), Difference::StillBroken);
        let left = removed(&listed, &broken).map(|(path, _)| path.to_string()).collect::<Vec<_>>();
        assert_eq!(left, ["hostsX"]);
        assert_eq!(removed(&broken, &listed).count(), 0);
        assert_eq!(removed(&broken, &side(&[])).count(), 1, "the whole part is gone");
    }

    fn any_known() -> impl Strategy<Value = Known> {
        prop_oneof![
            5 => (0..4_u8, proptest::option::of(0..3_u8)).prop_map(|(seed, out)| drv(seed, out)),
            1 => Just(Known::Nothing),
            2 => Just(Known::Failed),
        ]
    }

    fn any_side() -> impl Strategy<Value = Side> {
        let names = proptest::sample::select(vec!["a", "b", "hosts.x", "hosts.y", "hosts.z", "p.s.n"]);
        proptest::collection::btree_map(names.prop_map(path), any_known(), 0..6)
    }

    /// The difference that the other way round would be told.
    fn mirrored(difference: Difference) -> Difference {
        match difference {
            Difference::Added => Difference::Removed,
            Difference::Removed => Difference::Added,
            Difference::NewlyBroken => Difference::Fixed,
            Difference::Fixed => Difference::NewlyBroken,
            same => same,
        }
    }

    /// All that is told of two sides.
    fn all(base: &Side, head: &Side) -> BTreeMap<AttrPath, Difference> {
        let compared = head.iter().map(|(path, known)| (path.clone(), compare(base, path, known).difference));
        compared.chain(removed(base, head).map(|(path, _)| (path.clone(), Difference::Removed))).collect()
    }

    proptest! {
        #[test]
        fn nothing_differs_from_itself(side in any_side()) {
            for (path, difference) in all(&side, &side) {
                let expected = match side[&path] {
                    Known::Failed => Difference::StillBroken,
                    _ => Difference::Unchanged,
                };
                prop_assert_eq!(difference, expected);
            }
        }

        #[test]
        fn the_other_way_round_is_the_mirror_image(base in any_side(), head in any_side()) {
            let (there, back) = (all(&base, &head), all(&head, &base));
            for (path, difference) in there {
                // What is new and broken is broken newly, and not just added.
                let new = difference == Difference::NewlyBroken && !base.contains_key(&path);
                let gone = difference == Difference::Removed && base[&path] == Known::Failed;
                if !new && !gone {
                    prop_assert_eq!(back.get(&path), Some(&mirrored(difference)), "{}", path);
                }
            }
        }

        #[test]
        fn unchanged_means_the_same_drv(base in any_side(), head in any_side()) {
            for (path, known) in &head {
                if let (Known::Drv { drv, .. }, Some(Known::Drv { drv: before, .. })) = (known, base.get(path)) {
                    let compared = compare(&base, path, known);
                    prop_assert_eq!(compared.difference == Difference::Unchanged, drv == before);
                    prop_assert!(!compared.same_outputs || compared.difference == Difference::Changed);
                }
            }
        }
    }
}
