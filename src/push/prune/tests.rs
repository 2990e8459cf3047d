use proptest::prelude::*;

use super::*;

fn path(n: usize) -> StorePath {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&n.to_le_bytes());
    StorePath::from_parts(digest, &format!("p{}-{n}.0", n % 3)).unwrap()
}

fn entry(n: usize, references: &[usize], written: i64) -> Entry {
    Entry {
        path: path(n),
        references: references.iter().copied().map(path).collect(),
        record: format!("{n}.narinfo"),
        nar: format!("nar/{n}.nar.zst"),
        written,
    }
}

fn nar(name: &str, written: i64) -> Object {
    Object { name: name.to_owned(), size: 1, written }
}

#[test]
fn versions_are_no_names() {
    let cases = [
        ("nixos-system-web1-25.11.20250601.abc", "nixos-system-web1"),
        ("linux-6.12.58-modules", "linux-modules"),
        ("source", "source"),
    ];
    for (name, bare) in cases {
        assert_eq!(without_version(name), bare);
    }
}

#[test]
fn each_rule_keeps_what_it_says_with_all_that_it_refers_to() {
    // 9 → 5 → 1, 8 → 4 → 1; 7 and 3 (names p1 and p0) stand alone; 6 came just now.
    let entries = [
        entry(9, &[5], 10),
        entry(5, &[1], 10),
        entry(8, &[4], 20),
        entry(4, &[1], 20),
        entry(1, &[], 10),
        entry(7, &[], 30),
        entry(3, &[], 40),
        entry(6, &[], 90),
    ];
    let nars: Vec<Object> = entries.iter().map(|entry| nar(&entry.nar, entry.written)).collect();
    let kept = |rules: Rules| {
        let prune = prune(&entries, &nars, &rules);
        let kept: Vec<(usize, Reason)> = (0..10).filter_map(|n| Some((n, *prune.kept.get(&path(n))?))).collect();
        assert_eq!(kept.len() + prune.doomed.len(), entries.len());
        assert_eq!(prune.nars.len(), prune.doomed.len());
        kept
    };
    use Reason::{Last, Recent, Reference, Root, Young};
    let rules = Rules { grace: 50, ..Rules::default() };
    assert_eq!(kept(rules.clone()), [(6, Young)]);
    assert_eq!(
        kept(Rules { roots: [path(8)].into(), ..rules.clone() }),
        [(1, Reference), (4, Reference), (6, Young), (8, Root)]
    );
    assert_eq!(kept(Rules { since: Some(30), ..rules.clone() }), [(3, Recent), (6, Recent), (7, Recent)]);
    // 9, 3 and 6 are all called p0, 7 is p1, 8 is p2; 6 is the newest p0.
    let last = kept(Rules { last: Some(1), ..rules.clone() });
    assert_eq!(last, [(1, Reference), (4, Reference), (6, Last), (7, Last), (8, Last)]);
    assert_eq!(kept(Rules { last: Some(2), ..rules })[1], (3, Last));
}

#[test]
fn a_nar_of_two_paths_stays_with_the_other() {
    let mut twin = entry(2, &[], 10);
    twin.nar = "nar/1.nar.zst?hash=2".to_owned();
    let entries = [entry(1, &[], 10), twin];
    let nars = [nar("nar/1.nar.zst", 10), nar("nar/left-behind.nar", 10), nar("nar/under-way.nar", 90)];
    let rules = Rules { roots: [path(2)].into(), grace: 50, ..Rules::default() };
    let prune = prune(&entries, &nars, &rules);
    assert_eq!(prune.doomed, [entry(1, &[], 10)]);
    assert_eq!(prune.nars, [nar("nar/left-behind.nar", 10)]);
}

#[test]
fn a_ring_ends_nothing() {
    let entries = [entry(1, &[2], 10), entry(2, &[1], 10), entry(3, &[1], 10)];
    let all = prune(&entries, &[], &Rules { grace: 50, ..Rules::default() });
    assert_eq!(all.doomed.len(), 3);
    assert_eq!(all.doomed[0].path, path(3));
}

/// A cache that is deleted from one file at a time, as a reader sees it.
struct Seen<'a> {
    entries: BTreeMap<&'a StorePath, &'a Entry>,
    nars: BTreeSet<&'a str>,
}

impl Seen<'_> {
    /// References and NARs that records lack.
    fn dangling(&self) -> BTreeSet<(StorePath, String)> {
        let lacking = |entry: &Entry| {
            let gone = entry.references.iter().filter(|path| !self.entries.contains_key(path));
            let gone = gone.map(|path| path.to_basename());
            let nar = Some(file_of(&entry.nar)).filter(|nar| !self.nars.contains(nar)).map(str::to_owned);
            gone.chain(nar).map(|what| (entry.path.clone(), what)).collect::<Vec<_>>()
        };
        self.entries.values().flat_map(|entry| lacking(entry)).collect()
    }
}

/// Some closures: each path refers to earlier ones, some of which the cache may lack; some share a NAR.
fn caches() -> impl Strategy<Value = (Vec<Entry>, Vec<Object>)> {
    let one = (proptest::collection::vec(any::<prop::sample::Index>(), 0..4), 0..100i64, 0..12u8);
    proptest::collection::vec((one, proptest::bool::weighted(0.95)), 1..40).prop_map(|all| {
        let entries = all.iter().enumerate().map(|(n, ((references, written, share), there))| {
            let below: BTreeSet<usize> = references.iter().filter(|_| n > 0).map(|index| index.index(n)).collect();
            let mut entry = entry(n, &below.into_iter().collect::<Vec<_>>(), *written);
            if *share == 0 && n > 0 {
                entry.nar = "nar/0.nar.zst".to_owned();
            }
            (entry, *there)
        });
        let entries: Vec<Entry> = entries.filter(|(_, there)| *there).map(|(entry, _)| entry).collect();
        let names: BTreeSet<String> = entries.iter().map(|entry| entry.nar.clone()).chain(["nar/x".into()]).collect();
        let nars = names.iter().map(|name| nar(name, i64::try_from(name.len()).unwrap() * 7)).collect();
        (entries, nars)
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let some = |range: std::ops::Range<i64>| proptest::option::of(range);
    (proptest::collection::btree_set(0..40usize, 0..4), some(0..100), proptest::option::of(0..3usize), 0..100i64)
        .prop_map(|(roots, since, last, grace)| Rules {
            roots: roots.into_iter().map(path).collect(),
            since,
            last,
            grace,
        })
}

proptest! {
    #![proptest_config(crate::graph::testing::cases(500))]

    #[test]
    fn nothing_dangles_whenever_it_is_cut_off((entries, nars) in caches(), rules in rules()) {
        let decided = prune(&entries, &nars, &rules);
        let mut seen = Seen {
            entries: entries.iter().map(|entry| (&entry.path, entry)).collect(),
            nars: nars.iter().map(|nar| nar.name.as_str()).collect(),
        };
        let before = seen.dangling();
        for entry in &decided.doomed {
            prop_assert!(seen.entries.remove(&entry.path).is_some(), "each is deleted once");
            prop_assert!(seen.dangling().is_subset(&before));
        }
        for nar in &decided.nars {
            prop_assert!(nar.written <= rules.grace);
            prop_assert!(seen.nars.remove(nar.name.as_str()));
            prop_assert!(seen.dangling().is_subset(&before));
        }
        for (path, entry) in &seen.entries {
            prop_assert!(decided.kept.contains_key(path));
            for reference in &entry.references {
                prop_assert_eq!(seen.entries.contains_key(reference), entries.iter().any(|entry| entry.path == *reference));
            }
        }
        for entry in &entries {
            let named = rules.roots.contains(&entry.path)
                || entry.written > rules.grace
                || rules.since.is_some_and(|since| entry.written >= since);
            prop_assert!(!named || seen.entries.contains_key(&entry.path));
        }
        // Done is done: what is left stays.
        let left: Vec<Entry> = seen.entries.values().map(|entry| (*entry).clone()).collect();
        let nars: Vec<Object> = nars.iter().filter(|nar| seen.nars.contains(nar.name.as_str())).cloned().collect();
        let rules = Rules { roots: decided.kept.keys().cloned().collect(), last: None, ..rules };
        let again = prune(&left, &nars, &rules);
        prop_assert!(again.doomed.is_empty() && again.nars.is_empty(), "{:?}", again);
    }

    #[test]
    fn a_push_that_comes_between_finds_all_that_it_needs(
        (entries, nars) in caches(),
        rules in rules(),
        wants in proptest::collection::btree_set(0..40usize, 1..4),
    ) {
        let decided = prune(&entries, &nars, &rules);
        // The push had seen some paths, and its record comes after they are gone.
        let there: BTreeSet<&StorePath> = entries.iter().map(|entry| &entry.path).collect();
        let wants: Vec<usize> = wants.into_iter().filter(|n| there.contains(&path(*n))).collect();
        let new = entry(100, &wants, 100);
        let kept: Vec<Entry> = entries.iter().filter(|entry| decided.kept.contains_key(&entry.path)).cloned().collect();
        let now: Vec<Entry> = kept.iter().cloned().chain([new]).collect();
        let back = needed_again(&decided.doomed, &now);
        let mut held: BTreeSet<StorePath> = kept.iter().map(|entry| entry.path.clone()).collect();
        for entry in &back {
            for reference in &entry.references {
                prop_assert!(held.contains(reference) || !there.contains(reference), "references are put back first");
            }
            prop_assert!(held.insert(entry.path.clone()));
        }
        for want in wants {
            prop_assert!(held.contains(&path(want)));
        }
        // Their NARs are still there, and stay.
        let after: Vec<Entry> = now.into_iter().chain(back.iter().cloned()).collect();
        let gone = unused(&after, &nars, rules.grace);
        prop_assert!(back.iter().all(|entry| gone.iter().all(|nar| nar.name != file_of(&entry.nar))));
    }
}
