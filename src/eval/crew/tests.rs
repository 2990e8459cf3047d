//! The rules one by one, and all of them against evaluators that take what they want.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn crew(workers: u32, attrs: usize, budget_mib: u64, share_mib: u64) -> Crew {
    Crew::new(workers, false, (0..attrs).collect(), budget_mib * MIB, share_mib * MIB)
}

fn sample(worker: usize, held_mib: u64, grown_mib: u64) -> Sample {
    Sample { worker, held: held_mib * MIB, grown: grown_mib * MIB }
}

fn ask(worker: usize, attr: usize) -> Do {
    Do::Ask { worker, attr, alone: false }
}

#[test]
fn attrs_are_handed_out_in_order_and_processes_end_when_nothing_is_left() {
    let mut crew = crew(2, 3, 1000, 500);
    assert_eq!(crew.next(), [ask(0, 0), ask(1, 1)]);
    assert_eq!(crew.next(), []);
    crew.answered(1, Some(50 * MIB), 10 * MIB);
    assert_eq!(crew.next(), [ask(1, 2)]);
    crew.answered(0, Some(50 * MIB), 10 * MIB);
    assert_eq!(crew.next(), [Do::End { worker: 0, why: Why::Over }]);
    crew.ended(0);
    // Its process died with the answer.
    crew.answered(1, None, 10 * MIB);
    assert_eq!(crew.next(), []);
    assert!(!crew.is_busy());
}

#[test]
fn a_patient_crew_starts_nobody_beside_one_that_is_at_work() {
    let crew = || Crew::new(3, true, (0..3).collect(), 1000 * MIB, 500 * MIB).patient();
    let mut quick = crew();
    for attr in 0..3 {
        assert_eq!(quick.next(), [ask(0, attr)]);
        quick.answered(0, Some(50 * MIB), MIB);
    }
    assert_eq!(quick.next(), [Do::End { worker: 0, why: Why::Over }]);

    let mut slow = crew();
    assert_eq!(slow.next(), [ask(0, 0)]);
    slow.hurry();
    assert_eq!(slow.next(), [ask(1, 1), ask(2, 2)]);

    // Where nobody is at work, somebody has to begin.
    let mut died = crew();
    assert_eq!(died.next(), [ask(0, 0)]);
    died.answered(0, None, MIB);
    assert_eq!(died.next(), [ask(0, 1)]);
}

#[test]
fn whoever_holds_more_than_its_share_is_replaced_between_attrs() {
    let mut crew = crew(1, 2, 1000, 100);
    assert_eq!(crew.next(), [ask(0, 0)]);
    crew.sampled(&[sample(0, 900, 850)]);
    assert_eq!(crew.next(), [], "not in the middle of one");
    crew.answered(0, Some(101 * MIB), 850 * MIB);
    assert_eq!(crew.next(), [Do::End { worker: 0, why: Why::Share(101 * MIB) }]);
    assert_eq!(crew.next(), []);
    crew.ended(0);
    assert_eq!(crew.next(), [ask(0, 1)]);
}

#[test]
fn over_the_budget_the_largest_goes_and_is_tried_again_alone() {
    let mut crew = crew(2, 3, 1000, 500);
    assert_eq!(crew.next(), [ask(0, 0), ask(1, 1)]);
    crew.sampled(&[sample(0, 400, 350), sample(1, 601, 550)]);
    assert_eq!(crew.next(), [Do::Stop { worker: 1 }]);
    crew.sampled(&[sample(0, 450, 350), sample(1, 650, 550)]);
    assert_eq!(crew.next(), [], "what is being killed is not counted again");
    crew.stopped(1);
    // What the killed one took is too much beside the other.
    assert_eq!(crew.next(), []);
    crew.answered(0, Some(450 * MIB), 350 * MIB);
    assert_eq!(crew.next(), [ask(0, 2)]);
    crew.answered(0, Some(460 * MIB), 10 * MIB);
    assert_eq!(crew.next(), [Do::End { worker: 0, why: Why::Alone }]);
    assert_eq!(crew.next(), [], "its answers may not be acknowledged yet");
    crew.ended(0);
    assert_eq!(crew.next(), [Do::Ask { worker: 0, attr: 1, alone: true }]);
    crew.sampled(&[sample(0, 1001, 900)]);
    assert_eq!(crew.next(), [Do::Stop { worker: 0 }]);
    crew.stopped(0);
    assert_eq!(crew.next(), [], "twice is enough");
}

#[test]
fn of_two_that_hold_the_same_the_one_that_grew_goes() {
    let mut crew = crew(2, 2, 1000, 900);
    crew.next();
    crew.sampled(&[sample(0, 600, 500), sample(1, 600, 100)]);
    assert_eq!(crew.next(), [Do::Stop { worker: 0 }]);
}

#[test]
fn nobody_is_killed_where_replacing_the_idle_is_enough() {
    let mut crew = crew(2, 3, 1000, 900);
    assert_eq!(crew.next(), [ask(0, 0), ask(1, 1)]);
    // One that took much: the third is not begun beside the first.
    crew.answered(1, Some(600 * MIB), 550 * MIB);
    assert_eq!(crew.next(), []);
    crew.sampled(&[sample(0, 450, 400), sample(1, 600, 0)]);
    assert_eq!(crew.next(), [Do::End { worker: 1, why: Why::Room(600 * MIB) }]);
    crew.sampled(&[sample(0, 460, 410), sample(1, 600, 0)]);
    assert_eq!(crew.next(), [], "it is on its way");
    crew.ended(1);
    crew.answered(0, Some(400 * MIB), 410 * MIB);
    assert_eq!(crew.next(), [ask(0, 2)]);
}

#[test]
fn a_further_attr_is_begun_only_where_there_is_room() {
    let mut crew = crew(3, 9, 1000, 900);
    assert_eq!(crew.next(), [ask(0, 0), ask(1, 1), ask(2, 2)], "nothing is known yet");
    crew.answered(0, Some(350 * MIB), 300 * MIB);
    crew.sampled(&[sample(0, 350, 0), sample(1, 200, 150), sample(2, 200, 150)]);
    // 350 + 300 beside two that will hold 350 each.
    assert_eq!(crew.next(), []);
    crew.answered(1, Some(350 * MIB), 300 * MIB);
    assert_eq!(crew.next(), []);
    crew.answered(2, Some(350 * MIB), 300 * MIB);
    assert_eq!(crew.next(), [ask(0, 3)], "one there is always");
    // Without a limit there is always room.
    let mut crew = super::Crew::new(2, false, (0..3).collect(), 0, 900 * MIB);
    assert_eq!(crew.next().len(), 2);
    crew.answered(0, Some(850 * MIB), 800 * MIB);
    assert_eq!(crew.next(), [ask(0, 2)]);
    crew.sampled(&[sample(0, 9000, 9000), sample(1, 9000, 9000)]);
    assert_eq!(crew.next(), []);
}

#[test]
fn an_answer_that_was_quicker_than_the_kill_counts() {
    let mut crew = crew(1, 2, 1000, 5000);
    crew.next();
    crew.sampled(&[sample(0, 1200, 1150)]);
    assert_eq!(crew.next(), [Do::Stop { worker: 0 }]);
    crew.answered(0, Some(1200 * MIB), 1150 * MIB);
    assert_eq!(crew.next(), [ask(0, 1)]);
}

/// What one attr does to its evaluator.
#[derive(Debug, Clone)]
struct Appetite {
    /// MiB that it takes at most.
    need: u64,
    /// MiB of that which stay afterwards.
    keeps: u64,
    /// MiB between two samples.
    pace: u64,
}

fn appetite() -> impl Strategy<Value = Appetite> {
    (1..600_u64, 0..=100_u64, 5..200_u64).prop_map(|(need, kept, pace)| Appetite {
        need,
        keeps: need * kept / 100,
        pace,
    })
}

/// Evaluators as they are in the world.
struct World {
    attrs: Vec<Appetite>,
    budget: u64,
    crew: Crew,
    /// By evaluator: MiB that its process holds; `None` without one.
    held: Vec<Option<u64>>,
    /// By evaluator: attr in flight, MiB before it, whether it is alone.
    busy: Vec<Option<(usize, u64, bool)>>,
    ending: Vec<bool>,
    answers: BTreeMap<usize, bool>,
    stops: BTreeMap<usize, u32>,
}

const BASE: u64 = START / MIB;

impl World {
    fn new(workers: u32, attrs: Vec<Appetite>, budget: u64, share: u64) -> Self {
        let crew = crew(workers, attrs.len(), budget, share);
        let workers = workers as usize;
        Self {
            attrs,
            budget,
            crew,
            held: vec![None; workers],
            busy: vec![None; workers],
            ending: vec![false; workers],
            answers: BTreeMap::new(),
            stops: BTreeMap::new(),
        }
    }

    fn act(&mut self) {
        loop {
            let todo = self.crew.next();
            if todo.is_empty() {
                return;
            }
            for what in todo {
                self.perform(what);
            }
        }
    }

    fn perform(&mut self, what: Do) {
        match what {
            Do::Ask { worker, attr, alone } => {
                assert!(self.busy[worker].is_none() && !self.ending[worker], "{what:?}");
                assert!(!self.answers.contains_key(&attr), "{what:?}: it is answered");
                assert_eq!(alone, self.stops.contains_key(&attr), "{what:?}");
                if alone {
                    assert!(self.held.iter().all(Option::is_none), "{what:?}: it is not alone");
                }
                let before = *self.held[worker].get_or_insert(BASE);
                self.busy[worker] = Some((attr, before, alone));
            }
            Do::Stop { worker } => {
                let busy: u64 = self.held.iter().zip(&self.busy).filter_map(|(held, busy)| busy.and(*held)).sum();
                assert!(busy > self.budget, "{what:?}: the busy ones hold {busy} of {}", self.budget);
                let (attr, _, alone) = self.busy[worker].take().unwrap();
                self.held[worker] = None;
                let stops = self.stops.entry(attr).or_default();
                *stops += 1;
                if alone {
                    assert!(self.answers.insert(attr, false).is_none());
                }
                self.crew.stopped(worker);
            }
            Do::End { worker, .. } => {
                assert!(self.busy[worker].is_none() && self.held[worker].is_some(), "{what:?}");
                self.ending[worker] = true;
            }
        }
    }

    /// Everybody goes on for one sample.
    fn turn(&mut self, slow_to_end: bool) {
        for worker in 0..self.held.len() {
            if self.ending[worker] && !slow_to_end {
                self.ending[worker] = false;
                self.held[worker] = None;
                self.crew.ended(worker);
                self.act();
            }
            let Some((attr, before, _)) = self.busy[worker] else { continue };
            let Appetite { need, keeps, pace } = self.attrs[attr];
            let held = self.held[worker].unwrap();
            if held < before + need {
                self.held[worker] = Some((held + pace).min(before + need));
            } else {
                self.busy[worker] = None;
                self.held[worker] = Some(before + keeps);
                assert!(self.answers.insert(attr, true).is_none());
                self.crew.answered(worker, Some((before + keeps) * MIB), need * MIB);
                self.act();
            }
        }
        let samples: Vec<Sample> = (0..self.held.len())
            .map(|worker| {
                let held = self.held[worker].unwrap_or(0);
                sample(worker, held, self.busy[worker].map_or(0, |(_, before, _)| held - before))
            })
            .collect();
        self.crew.sampled(&samples);
        self.act();
    }
}

proptest! {
    #[test]
    fn every_attr_is_answered_once_and_only_those_fail_that_do_not_fit_alone(
        workers in 1..5_u32,
        attrs in proptest::collection::vec(appetite(), 0..40),
        budget in 100..1000_u64,
        share in 50..1000_u64,
        slow in proptest::collection::vec(any::<bool>(), 1..8),
    ) {
        let mut world = World::new(workers, attrs, budget, share);
        world.act();
        let mut turns = 0_usize;
        while world.busy.iter().any(Option::is_some) || world.ending.contains(&true) {
            // The last turn of each round lets everybody end.
            let slow_to_end = slow[turns % slow.len()] && turns % 8 != 7;
            world.turn(slow_to_end);
            turns += 1;
            prop_assert!(turns < 100_000, "it does not end");
        }
        prop_assert_eq!(world.answers.len(), world.attrs.len());
        prop_assert!(world.held.iter().all(Option::is_none), "all processes have ended");
        for (attr, answered) in &world.answers {
            let fits = BASE + world.attrs[*attr].need <= budget;
            prop_assert_eq!(*answered, fits, "attr {}: {:?}", attr, world.attrs[*attr]);
            prop_assert!(world.stops.get(attr).copied().unwrap_or(0) <= 2);
        }
    }
}
