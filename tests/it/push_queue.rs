//! The push queue under random graphs, answers, failures, orders of completion and stops.

use std::collections::{BTreeMap, BTreeSet};

use drover::event::{Class, Failure};
use drover::id::StorePath;
use drover::push::queue::{Action, End, Input, Item, Limits, Queue, SMALL};
use proptest::prelude::*;
use proptest::sample::Index;

/// One random world.
#[derive(Debug, Clone)]
struct World {
    items: Vec<Item>,
    /// The cache has it before.
    present: BTreeSet<StorePath>,
    /// Another cache has it; some of these nobody adds.
    held: BTreeSet<StorePath>,
    upload_fails: BTreeSet<StorePath>,
    finish_fails: BTreeSet<StorePath>,
    limits: Limits,
    /// In which order items are added, and how many at a time.
    order: Vec<usize>,
    batch: usize,
    /// What happens next, among all that can.
    picks: Vec<Index>,
    /// After how many steps it is stopped.
    stop: Option<usize>,
}

fn path(n: usize) -> StorePath {
    StorePath::from_parts([n as u8; 20], "p").unwrap()
}

/// A path that no item has.
fn stranger(n: usize) -> StorePath {
    StorePath::from_parts([200 + n as u8; 20], "stranger").unwrap()
}

const SIZES: [u64; 4] = [1, SMALL, 3 * SMALL, 20 * SMALL];

fn world() -> impl Strategy<Value = World> {
    (1usize..14).prop_flat_map(|n| {
        let flags = || proptest::collection::vec(0u8..100, n);
        let edges = proptest::collection::vec(proptest::collection::vec(0u8..100, n), n);
        let order = Just((0..n).collect::<Vec<_>>()).prop_shuffle();
        let sizes = proptest::collection::vec(0usize..SIZES.len(), n);
        let picks = proptest::collection::vec(any::<Index>(), 6 * n + 20);
        let shape = (edges, flags(), flags(), flags(), order, sizes);
        let limits = (1usize..4, any::<bool>());
        (shape, picks, 1usize..6, limits, proptest::option::weighted(0.3, 0usize..30)).prop_map(
            move |((edges, state, fate, strangers, order, sizes), picks, batch, (uploads, ordered), stop)| {
                let mut held: BTreeSet<StorePath> =
                    (0..n).filter(|&i| (90..95).contains(&state[i])).map(path).collect();
                held.insert(stranger(0));
                let items = (0..n)
                    .map(|i| {
                        let mut references: Vec<_> = (0..i).filter(|&j| edges[i][j] < 30).map(path).collect();
                        if edges[i][i] < 20 {
                            references.push(path(i));
                        }
                        match strangers[i] {
                            0..3 => references.push(stranger(1)),
                            3..10 => references.push(stranger(0)),
                            _ => {}
                        }
                        Item { path: path(i), references, nar_size: SIZES[sizes[i]] }
                    })
                    .collect();
                let some = |range: std::ops::Range<u8>, flags: &[u8]| {
                    (0..n).filter(|&i| range.contains(&flags[i])).map(path).collect::<BTreeSet<_>>()
                };
                World {
                    items,
                    present: some(0..25, &state),
                    held,
                    upload_fails: some(0..8, &fate),
                    finish_fails: some(8..14, &fate),
                    limits: Limits { uploads, bytes: 10 * SMALL, ordered },
                    order,
                    batch,
                    picks,
                    stop,
                }
            },
        )
    })
}

/// What a run of a world came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    ends: BTreeMap<StorePath, End>,
    there: BTreeSet<StorePath>,
    log: Vec<Action>,
}

struct Run<'a> {
    world: &'a World,
    queue: Queue,
    by_path: BTreeMap<StorePath, Item>,
    pending: Vec<Action>,
    there: BTreeSet<StorePath>,
    uploaded: BTreeSet<StorePath>,
    checked: BTreeSet<StorePath>,
    ends: BTreeMap<StorePath, End>,
    log: Vec<Action>,
    stopped: bool,
}

impl Run<'_> {
    fn feed(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.queue.handle(input, &mut actions);
        for action in actions {
            self.take(action);
        }
        let uploading: Vec<_> = self
            .pending
            .iter()
            .filter_map(|action| match action {
                Action::Upload(path) => Some(self.by_path[path].nar_size),
                _ => None,
            })
            .collect();
        assert!(uploading.len() <= self.world.limits.uploads);
        let large: Vec<_> = uploading.iter().filter(|size| **size > SMALL).collect();
        assert!(large.len() <= 1 || large.iter().copied().sum::<u64>() <= self.world.limits.bytes);
    }

    fn take(&mut self, action: Action) {
        self.log.push(action.clone());
        match &action {
            Action::Check(paths) => {
                assert!(!self.stopped && !paths.is_empty());
                assert!(
                    !self.pending.iter().any(|action| matches!(action, Action::Check(_))),
                    "one question at a time"
                );
                for path in paths {
                    assert!(self.checked.insert(path.clone()), "checked twice");
                }
            }
            Action::Upload(path) => {
                assert!(!self.stopped && self.checked.contains(path) && !self.world.present.contains(path));
                assert!(self.uploaded.insert(path.clone()), "uploaded twice");
                if self.world.limits.ordered {
                    self.assert_complete(path);
                }
            }
            Action::Finish(path) => {
                assert!(self.uploaded.contains(path) && !self.ends.contains_key(path));
                self.assert_complete(path);
            }
            Action::Ended(path, end) => {
                assert_eq!(self.ends.insert(path.clone(), end.clone()), None, "ended twice");
                let running = |action: &Action| matches!(action, Action::Upload(p) | Action::Finish(p) if p == path);
                assert!(!self.pending.iter().any(running), "ended while something runs for it");
                match end {
                    End::Pushed => assert!(self.there.contains(path)),
                    End::Present => assert!(self.world.present.contains(path)),
                    End::Stopped => assert!(self.stopped),
                    End::Failed(_) | End::Reference(_) | End::Unknown(_) => assert!(!self.there.contains(path)),
                }
                return;
            }
        }
        self.pending.push(action);
    }

    /// All that it refers to is there.
    fn assert_complete(&self, path: &StorePath) {
        for reference in self.by_path[path].references.iter().filter(|reference| *reference != path) {
            let fine = self.there.contains(reference) || self.world.held.contains(reference);
            assert!(fine, "seen before what it refers to");
        }
    }

    /// Answers one thing that is under way.
    fn answer(&mut self, at: usize) {
        let failure = || Failure { class: Class::Cache, message: "no".into(), position: None };
        let input = match self.pending.remove(at) {
            Action::Check(mut paths) => {
                // Only of some for now.
                let rest = paths.split_off(paths.len().div_ceil(2));
                self.pending.extend((!rest.is_empty()).then_some(Action::Check(rest)));
                let (present, absent): (Vec<_>, Vec<_>) =
                    paths.into_iter().partition(|path| self.world.present.contains(path));
                self.there.extend(present.iter().cloned());
                Input::Checked { present, absent }
            }
            Action::Upload(path) if self.world.upload_fails.contains(&path) => Input::Failed(path, failure()),
            Action::Upload(path) => Input::Uploaded(path),
            Action::Finish(path) if self.world.finish_fails.contains(&path) => Input::Failed(path, failure()),
            Action::Finish(path) => {
                self.there.insert(path.clone());
                Input::Finished(path)
            }
            Action::Ended(..) => unreachable!("is not kept"),
        };
        self.feed(input);
    }
}

/// Plays a world to its end.
fn play(world: &World) -> Outcome {
    let mut run = Run {
        world,
        queue: Queue::new(world.limits),
        by_path: world.items.iter().map(|item| (item.path.clone(), item.clone())).collect(),
        pending: Vec::new(),
        there: BTreeSet::new(),
        uploaded: BTreeSet::new(),
        checked: BTreeSet::new(),
        ends: BTreeMap::new(),
        log: Vec::new(),
        stopped: false,
    };
    let mut news: Vec<Input> = world
        .order
        .chunks(world.batch)
        .map(|chunk| Input::Add(chunk.iter().map(|&i| world.items[i].clone()).collect()))
        .collect();
    // What is held and pushed too is known before; what is only held may be learned late.
    let (pushed, only_held) = world.held.iter().cloned().partition(|path| run.by_path.contains_key(path));
    news.insert(0, Input::Held(pushed));
    news.push(Input::Held(only_held));
    news.push(Input::NoMore);
    news.reverse();
    for (step, pick) in world.picks.iter().cycle().enumerate() {
        assert!(step < 10_000, "it never ends");
        if world.stop == Some(step) {
            run.stopped = true;
            run.feed(Input::Stop);
        }
        // Tidings come in their order; answers in any.
        let choices = run.pending.len() + usize::from(!news.is_empty());
        if choices == 0 {
            break;
        }
        match pick.index(choices) {
            at if at < run.pending.len() => run.answer(at),
            _ => run.feed(news.pop().unwrap()),
        }
    }
    assert!(run.queue.is_done(), "nothing runs, nothing comes, but it is not done: {:?}", run.queue);
    let there: BTreeSet<_> = run.queue.there().cloned().collect();
    assert_eq!(there, run.there.iter().filter(|path| run.by_path.contains_key(*path)).cloned().collect());
    let not_there: BTreeSet<_> = run
        .queue
        .not_there()
        .map(|(path, end)| {
            assert_eq!(end, run.ends.get(path));
            path.clone()
        })
        .collect();
    let rest: BTreeSet<_> = run.by_path.keys().filter(|path| !there.contains(*path)).cloned().collect();
    assert_eq!(not_there, rest);
    assert_eq!(run.ends.len(), world.items.len(), "every path has one final word");
    Outcome { ends: run.ends, there, log: run.log }
}

/// What must be in the cache in the end if nobody stops it, whatever the order.
fn expected_there(world: &World) -> BTreeSet<StorePath> {
    let mut there = BTreeSet::new();
    for item in &world.items {
        let fails = world.upload_fails.contains(&item.path) || world.finish_fails.contains(&item.path);
        let complete = item
            .references
            .iter()
            .filter(|reference| **reference != item.path)
            .all(|reference| there.contains(reference) || world.held.contains(reference));
        if world.present.contains(&item.path) || (complete && !fails) {
            there.insert(item.path.clone());
        }
    }
    there
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_order_keeps_the_cache_complete(world in world()) {
        let outcome = play(&world);
        if world.stop.is_none() {
            prop_assert_eq!(&outcome.there, &expected_there(&world));
            prop_assert!(outcome.ends.values().all(|end| *end != End::Stopped));
            for (path, end) in &outcome.ends {
                if let End::Reference(root) = end {
                    prop_assert!(matches!(outcome.ends[root], End::Failed(_)), "{:?} of {:?}", root, path);
                }
            }
        }
        prop_assert_eq!(play(&world), outcome, "the same inputs give the same actions");
    }
}

fn item(n: usize, references: &[usize], nar_size: u64) -> Item {
    Item { path: path(n), references: references.iter().copied().map(path).collect(), nar_size }
}

fn step(queue: &mut Queue, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    queue.handle(input, &mut actions);
    actions
}

#[test]
fn the_largest_goes_first_and_small_ones_pass_it() {
    let mut queue = Queue::new(Limits { uploads: 3, bytes: 10 * SMALL, ordered: false });
    let items = vec![item(1, &[], 1), item(2, &[], 7 * SMALL), item(3, &[], 6 * SMALL), item(4, &[], 100 * SMALL)];
    assert_eq!(step(&mut queue, Input::Add(items)), [Action::Check((1..5).map(path).collect())]);
    let checked = Input::Checked { present: vec![], absent: (1..5).map(path).collect() };
    // 4 fills all the room, so only what is small may go beside it; 2 and 3 do not fit together.
    assert_eq!(step(&mut queue, checked), [Action::Upload(path(4)), Action::Upload(path(1))]);
    let next = step(&mut queue, Input::Uploaded(path(4)));
    assert_eq!(next, [Action::Finish(path(4)), Action::Upload(path(2))]);
    assert_eq!(step(&mut queue, Input::Uploaded(path(1))), [Action::Finish(path(1))]);
    assert_eq!(step(&mut queue, Input::Uploaded(path(2))), [Action::Finish(path(2)), Action::Upload(path(3))]);
}

#[test]
fn a_stop_still_writes_records_whose_nars_are_there() {
    let mut queue = Queue::new(Limits { uploads: 2, ..Limits::default() });
    step(&mut queue, Input::Add(vec![item(1, &[], 9), item(2, &[1], 8), item(3, &[], 7)]));
    let checked = Input::Checked { present: vec![], absent: (1..4).map(path).collect() };
    assert_eq!(step(&mut queue, checked), [Action::Upload(path(1)), Action::Upload(path(2))]);
    assert_eq!(step(&mut queue, Input::Stop), [Action::Ended(path(3), End::Stopped)]);
    assert_eq!(step(&mut queue, Input::Uploaded(path(2))), []);
    assert_eq!(step(&mut queue, Input::Uploaded(path(1))), [Action::Finish(path(1))]);
    let done = step(&mut queue, Input::Finished(path(1)));
    assert_eq!(done, [Action::Ended(path(1), End::Pushed), Action::Finish(path(2))]);
    step(&mut queue, Input::Finished(path(2)));
    assert!(queue.is_done());
    assert_eq!(queue.not_there().collect::<Vec<_>>(), [(&path(3), Some(&End::Stopped))]);
}

#[test]
fn a_cycle_ends() {
    let mut queue = Queue::new(Limits::default());
    step(&mut queue, Input::Add(vec![item(1, &[2], 9), item(2, &[1], 8)]));
    step(&mut queue, Input::NoMore);
    step(&mut queue, Input::Checked { present: vec![], absent: vec![path(1), path(2)] });
    step(&mut queue, Input::Uploaded(path(1)));
    let last = step(&mut queue, Input::Uploaded(path(2)));
    assert_eq!(last.len(), 2, "{last:?}");
    assert!(queue.is_done());
}

#[test]
fn late_additions_learn_of_earlier_failures() {
    let failure = Failure { class: Class::DiskFull, message: "full".into(), position: None };
    let mut queue = Queue::new(Limits::default());
    step(&mut queue, Input::Add(vec![item(1, &[], 9)]));
    step(&mut queue, Input::Checked { present: vec![], absent: vec![path(1)] });
    step(&mut queue, Input::Failed(path(1), failure));
    assert_eq!(step(&mut queue, Input::Add(vec![item(2, &[1], 9)])), [Action::Check(vec![path(2)])]);
    let last = step(&mut queue, Input::Checked { present: vec![], absent: vec![path(2)] });
    assert_eq!(last, [Action::Ended(path(2), End::Reference(path(1)))]);
}
