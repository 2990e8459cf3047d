//! Whole runs in virtual time: random fleets, builders, caches and faults, played by the real decisions and held against
//! a model of what must be true. `DROVER_TEST_SEEDS` says how many, `DROVER_TEST_SEED` plays one and tells its story.

mod model;
mod play;
mod pushes;
mod stores;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use play::{Played, play};
use stores::Stores;
use world::{Fate, Start, World};

/// Seeds that the ordinary suite plays.
const SEEDS: u64 = 300;

/// How many smaller worlds are tried to make a story shorter.
const SHRINKS: u32 = 400;

/// Plays a world, and then the same one with all faults healed on what it left. Gives what is wrong.
fn wrong_with(world: &World) -> Option<(String, Option<Played>)> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let first = play(world, Stores::new(world));
        if !first.wrong.is_empty() {
            return Some((first.wrong.join("\n"), Some(first)));
        }
        let healed = world.healed();
        let second = play(&healed, first.stores);
        let mut wrong = second.wrong.clone();
        wrong.extend((wrong.is_empty() && second.exit > healed.best()).then(|| format!("exit code {}", second.exit)));
        (!wrong.is_empty()).then(|| (format!("healed: {}", wrong.join("\n")), Some(second)))
    }));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some((text.unwrap_or_default(), None))
    })
}

/// The worlds that are one thing smaller.
fn smaller(world: &World) -> Vec<World> {
    let mut worlds = Vec::new();
    let mut with = |change: &dyn Fn(&mut World)| {
        let mut other = world.clone();
        change(&mut other);
        worlds.push(other);
    };
    for at in 0..world.troubles.len() {
        with(&|world| _ = world.troubles.remove(at));
    }
    for at in 0..world.attrs.len().saturating_sub(1) {
        with(&|world| _ = world.attrs.remove(at));
    }
    for at in 0..world.caches.len() {
        with(&|world| {
            (world.caches[at].push, world.caches[at].pull) = (false, world.caches[at].pull && !world.caches[at].push);
        });
    }
    for at in 0..world.made.len() {
        let made = &world.made[at];
        if made.fate != Fate::Fine {
            with(&|world| world.made[at].fate = Fate::Fine);
        }
        if made.start != Start::Nowhere {
            with(&|world| world.made[at].start = Start::Nowhere);
        }
        for input in 0..made.inputs.len() {
            with(&|world| {
                world.made[at].keeps.clear();
                world.made[at].inputs.remove(input);
            });
        }
    }
    worlds
}

/// The story of the smallest world found that is still wrong.
fn story(mut world: World, mut wrong: (String, Option<Played>)) -> String {
    let mut left = SHRINKS;
    'again: loop {
        for smaller in smaller(&world) {
            if left == 0 {
                break 'again;
            }
            left -= 1;
            if let Some(found) = wrong_with(&smaller) {
                (world, wrong) = (smaller, found);
                continue 'again;
            }
        }
        break;
    }
    let (wrong, played) = wrong;
    let needed: BTreeMap<usize, _> = world.made.iter().enumerate().filter(|(at, _)| world.is_needed(*at)).collect();
    let mut text = format!("{wrong}\n\nattrs {:?}, {:?}\n", world.attrs, world.policy);
    text.push_str(&format!("home {}, download {}, wait {}\n", world.home, world.download, world.wait));
    needed.iter().for_each(|(at, made)| text.push_str(&format!("drv {at} {made:?}\n")));
    world.builders.iter().for_each(|builder| text.push_str(&format!("{builder:?}\n")));
    world.caches.iter().for_each(|cache| text.push_str(&format!("{cache:?}\n")));
    world.troubles.iter().for_each(|(at, trouble)| text.push_str(&format!("at {at:.3} s {trouble:?}\n")));
    for event in played.iter().flat_map(|played| &played.events) {
        text.push_str(&format!("{:9.3} s {}\n", event.at.seconds(), serde_json::to_string(&event.fact).unwrap()));
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says how many")]
fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_run_keeps_what_was_promised() {
    if let Some(seed) = number_of("DROVER_TEST_SEED") {
        let world = World::drawn(seed);
        if let Some(wrong) = wrong_with(&world) {
            panic!("seed {seed}: {}", story(world, wrong));
        }
        return;
    }
    let seeds = number_of("DROVER_TEST_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let found: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || found.lock().unwrap().len() > 20 {
                        return;
                    }
                    if let Some((wrong, _)) = wrong_with(&World::drawn(seed)) {
                        found.lock().unwrap().push((seed, wrong));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort();
    let Some((first, _)) = found.first() else { return };
    let list: Vec<String> =
        found.iter().map(|(seed, wrong)| format!("  {seed}: {}", wrong.lines().next().unwrap_or_default())).collect();
    let world = World::drawn(*first);
    let wrong = wrong_with(&world).unwrap();
    panic!(
        "seeds that went wrong:\n{}\nDROVER_TEST_SEED={first} tells this:\n{}",
        list.join("\n"),
        story(world, wrong)
    );
}
