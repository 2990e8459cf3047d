//! Tests of the scheduler: stories by hand here and in `farm`, random runs against a model in `random`, whole runs in
//! virtual time in `makespan`.

mod farm;
mod makespan;
mod model;
mod random;
mod simulate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Action, Builder, Input, Item, Policy, Scheduler, Work};
use crate::event::{AttemptEnd, Class, DrvOutcome, Failure, Moment};
use crate::id::{AttemptId, BuilderId, DrvId, System};

fn build(drv: u32, inputs: &[u32]) -> Item {
    Item {
        drv: DrvId(drv),
        work: Work::Build,
        inputs: inputs.iter().copied().map(DrvId).collect(),
        there: Vec::new(),
        system: System::from("x86_64-linux"),
        features: Vec::new(),
        local_only: false,
        prefer_local: false,
        here: true,
        fixed_output: false,
        cost: 1.0,
        ahead: 0.0,
    }
}

fn fetch(drv: u32) -> Item {
    Item { work: Work::Fetch, ..build(drv, &[]) }
}

fn features(features: &[&str]) -> BTreeSet<String> {
    features.iter().map(|feature| (*feature).to_owned()).collect()
}

/// Builder 0 is `local`, the others are `big1`, `big2`, …
fn builder(id: u32, slots: u32) -> Builder {
    Builder {
        id: BuilderId(id),
        name: if id == 0 { "local".to_owned() } else { format!("big{id}") },
        slots,
        systems: BTreeSet::from([System::from("x86_64-linux")]),
        features: BTreeSet::new(),
        mandatory: BTreeSet::new(),
        speed: 1.0,
        local: id == 0,
        trusting: true,
    }
}

fn failure(class: Class) -> Failure {
    Failure::new(class, Arc::from("so it goes"))
}

fn failed(attempt: u32, class: Class) -> Input {
    Input::AttemptEnded { attempt: AttemptId(attempt), end: AttemptEnd::Failed(failure(class)), gone: Vec::new() }
}

fn built(attempt: u32) -> Input {
    Input::AttemptEnded {
        attempt: AttemptId(attempt),
        end: AttemptEnd::Built { outputs: Vec::new() },
        gone: Vec::new(),
    }
}

/// A scheduler whose actions read as short lines.
struct Story {
    scheduler: Scheduler,
    now: Moment,
    at_once: bool,
}

impl Story {
    fn new(policy: Policy, builders: &[Builder]) -> Self {
        let mut story = Self { scheduler: Scheduler::new(policy), now: Moment(0), at_once: true };
        for builder in builders {
            story.tell(Input::BuilderUp(builder.clone()));
        }
        story
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        let mut actions = Vec::new();
        self.scheduler.handle(self.now, input, &mut actions);
        actions.iter().flat_map(|action| self.follow(action)).collect()
    }

    /// What an action reads like, and what comes of it: with `at_once`, all that an attempt needs is there already, and
    /// the line of an attempt that goes at once stands for both.
    fn follow(&mut self, action: &Action) -> Vec<String> {
        let mut lines = vec![line(action)];
        if let (Action::Start { attempt, .. }, true) = (action, self.at_once) {
            let (mut actions, attempt) = (Vec::new(), *attempt);
            self.scheduler.handle(self.now, Input::Prepared { attempt }, &mut actions);
            let goes = actions.first() == Some(&Action::Go { attempt });
            lines.extend(actions.iter().skip(usize::from(goes)).flat_map(|action| self.follow(action)));
        }
        lines
    }

    fn at(&mut self, seconds: f64, input: Input) -> Vec<String> {
        self.now = Moment::from_seconds(seconds);
        self.tell(input)
    }
}

fn line(action: &Action) -> String {
    match action {
        Action::Start { attempt, drv, builder } => format!("start {} as {} on {}", drv.0, attempt.0, builder.0),
        Action::Go { attempt } => format!("go {}", attempt.0),
        Action::Stop { attempt } => format!("stop {}", attempt.0),
        Action::Fetch { drv } => format!("fetch {}", drv.0),
        Action::StopFetch { drv } => format!("stop fetch {}", drv.0),
        Action::Replan { drv } => format!("replan {}", drv.0),
        Action::Ended { drv, outcome } => {
            let outcome = match outcome {
                DrvOutcome::Failed(failure) => format!("failed: {:?}", failure.class),
                DrvOutcome::DependencyFailed { root } => format!("failed by {}", root.0),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("{} {outcome}", drv.0)
        }
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_drv_starts_the_moment_its_last_input_is_there() {
    let mut story = Story::new(Policy::default(), &[builder(0, 4)]);
    let add = Input::Add(vec![build(0, &[]), build(1, &[]), build(2, &[0, 1])]);
    assert_eq!(story.tell(add), ["start 0 as 0 on 0", "start 1 as 1 on 0"]);
    assert_eq!(story.tell(built(0)), ["0 built"]);
    assert_eq!(story.tell(built(1)), ["1 built", "start 2 as 2 on 0"]);
    assert_eq!(story.tell(Input::NoMore), NOTHING);
    assert!(!story.scheduler.is_done());
    assert_eq!(story.tell(built(2)), ["2 built"]);
    assert!(story.scheduler.is_done());
}

#[test]
fn the_longest_chain_goes_first_also_when_it_grows_later() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    story.tell(Input::Add(vec![build(0, &[])]));
    // 1 and 2 wait for the slot; 2 has a user; then 1 gets a longer chain.
    story.tell(Input::Add(vec![build(1, &[]), build(2, &[]), build(3, &[2])]));
    assert_eq!(story.scheduler.remaining(DrvId(2)), Some(2.0));
    story.tell(Input::Add(vec![build(4, &[1]), Item { cost: 5.0, ..build(5, &[4]) }]));
    assert_eq!(story.scheduler.remaining(DrvId(1)), Some(7.0));
    assert_eq!(story.tell(built(0)), ["0 built", "start 1 as 1 on 0"]);
}

#[test]
fn a_chain_that_failed_weighs_nothing() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    story.tell(Input::Add(vec![
        Item { cost: 50.0, ..build(0, &[]) },
        build(1, &[]),
        build(2, &[]),
        build(3, &[2]),
        Item { cost: 9.0, ..build(4, &[0, 1]) },
    ]));
    assert_eq!(story.scheduler.remaining(DrvId(1)), Some(10.0));
    let actions = story.tell(failed(0, Class::Build));
    assert_eq!(actions, ["0 failed: Build", "4 failed by 0", "start 2 as 1 on 0"]);
    assert_eq!(story.scheduler.remaining(DrvId(1)), Some(1.0));
}

#[test]
fn what_is_preferred_goes_first_with_all_that_it_needs() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    let actions = story.tell(Input::Add(vec![
        Item { cost: 30.0, ..build(1, &[]) },
        build(2, &[]),
        Item { ahead: 60.0, ..build(3, &[2]) },
        Item { cost: 90.0, ..build(4, &[]) },
    ]));
    // The longest chain is not held up by it, where it takes longer than that.
    assert_eq!(actions, ["start 4 as 0 on 0"]);
    assert_eq!(story.tell(built(0)), ["4 built", "start 2 as 1 on 0"]);
    assert_eq!(story.tell(built(1)), ["2 built", "start 3 as 2 on 0"]);
    assert_eq!(story.tell(built(2)), ["3 built", "start 1 as 3 on 0"]);
}

#[test]
fn the_faster_and_emptier_builder_is_taken() {
    let fast = Builder { speed: 2.0, ..builder(1, 2) };
    let mut story = Story::new(Policy::default(), &[builder(0, 2), fast]);
    let actions = story.tell(Input::Add((0..5).map(|drv| build(drv, &[])).collect()));
    let expected = ["start 0 as 0 on 1", "start 1 as 1 on 1", "start 2 as 2 on 0", "start 3 as 3 on 0"];
    assert_eq!(actions, expected);
}

#[test]
fn features_and_platforms_are_matched_as_nix_does() {
    let kvm = Builder { features: features(&["kvm"]), ..builder(1, 1) };
    let special = Builder { mandatory: features(&["big-parallel"]), speed: 9.0, ..builder(2, 1) };
    let mut story = Story::new(Policy::default(), &[builder(0, 1), kvm, special]);
    let wants = |drv, wanted: &[&str]| Item {
        features: wanted.iter().map(|feature| (*feature).to_owned()).collect(),
        ..build(drv, &[])
    };
    let builtin = Item { system: System::from("builtin"), ..build(3, &[]) };
    let add = Input::Add(vec![wants(0, &["kvm"]), wants(1, &["big-parallel"]), wants(2, &[]), builtin]);
    // Nothing that does not ask for it goes to the special one, not even when all else is full.
    assert_eq!(story.tell(add), ["start 0 as 0 on 1", "start 1 as 1 on 2", "start 2 as 2 on 0"]);
    assert_eq!(story.tell(built(2)), ["2 built", "start 3 as 3 on 0"]);
}

#[test]
fn opaque_drvs_stay_at_home() {
    let fast = Builder { speed: 9.0, ..builder(1, 4) };
    let mut story = Story::new(Policy::default(), &[builder(0, 1), fast]);
    let opaque = |drv| Item { local_only: true, ..build(drv, &[]) };
    assert_eq!(story.tell(Input::Add(vec![opaque(0)])), ["start 0 as 0 on 0"]);
    assert_eq!(story.tell(Input::Add(vec![opaque(2)])), NOTHING);
    assert_eq!(story.tell(built(0)), ["0 built", "start 2 as 1 on 0"]);
}

#[test]
fn what_no_builder_takes_fails_when_all_builders_are_known() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    let foreign = Item { system: System::from("aarch64-linux"), features: vec!["kvm".to_owned()], ..build(1, &[0]) };
    assert_eq!(story.tell(Input::Add(vec![build(0, &[]), foreign.clone(), build(2, &[1])])), ["start 0 as 0 on 0"]);
    assert_eq!(story.tell(Input::BuilderUp(builder(1, 8))), NOTHING);
    let mut actions = Vec::new();
    story.scheduler.handle(story.now, Input::NoMoreBuilders, &mut actions);
    assert_eq!(actions.iter().map(line).collect::<Vec<_>>(), ["1 failed: NoBuilder", "2 failed by 1"]);
    let Action::Ended { outcome: DrvOutcome::Failed(failure), .. } = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(
        &*failure.message,
        "no builder for aarch64-linux with kvm; there is local (x86_64-linux), big1 (x86_64-linux)"
    );
    let later = Item { drv: DrvId(3), inputs: Vec::new(), ..foreign };
    assert_eq!(story.tell(Input::Add(vec![later])), ["3 failed: NoBuilder"]);
}

#[test]
fn the_message_says_which_builder_was_lost_and_why() {
    let arm = Builder { systems: BTreeSet::from([System::from("aarch64-linux")]), ..builder(1, 1) };
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    // It never came up; until it is given up, what only it can build waits.
    story.tell(Input::BuilderKnown(arm));
    story.tell(Input::NoMoreBuilders);
    let foreign = Item { system: System::from("aarch64-linux"), ..build(0, &[]) };
    assert_eq!(story.tell(Input::Add(vec![foreign])), NOTHING);
    let mut actions = Vec::new();
    let why = Some(Arc::from("connection refused"));
    story.scheduler.handle(story.now, Input::BuilderDown { builder: BuilderId(1), back: false, why }, &mut actions);
    let [Action::Ended { outcome: DrvOutcome::Failed(failure), .. }] = &actions[..] else { panic!("{actions:?}") };
    let expected = "no builder for aarch64-linux; there is local (x86_64-linux), \
                    big1 (aarch64-linux; lost: connection refused)";
    assert_eq!(&*failure.message, expected);
}

#[test]
fn what_only_a_suspended_builder_takes_waits_for_it() {
    let arm = Builder { systems: BTreeSet::from([System::from("aarch64-linux")]), ..builder(1, 1) };
    let mut story = Story::new(Policy::default(), &[builder(0, 1), arm.clone()]);
    story.tell(Input::NoMoreBuilders);
    story.tell(Input::BuilderDown { builder: BuilderId(1), back: true, why: None });
    let foreign = Item { system: System::from("aarch64-linux"), ..build(0, &[]) };
    assert_eq!(story.tell(Input::Add(vec![foreign])), NOTHING);
    assert_eq!(story.tell(Input::BuilderUp(arm)), ["start 0 as 0 on 1"]);
    assert_eq!(story.tell(Input::BuilderDown { builder: BuilderId(1), back: false, why: None }), NOTHING);
    // Gone for good while it was building: the reason given is what happened, not that there is no builder now.
    assert_eq!(story.tell(failed(0, Class::BuilderLost)), ["0 failed: BuilderLost"]);
}

#[test]
fn a_lost_builder_costs_its_drvs_only_time() {
    let mut story = Story::new(Policy::default(), &[Builder { speed: 9.0, ..builder(1, 2) }, builder(2, 1)]);
    let add = Input::Add(vec![build(0, &[]), build(1, &[]), build(2, &[0])]);
    assert_eq!(story.tell(add), ["start 0 as 0 on 1", "start 1 as 1 on 1"]);
    assert_eq!(story.tell(Input::BuilderDown { builder: BuilderId(1), back: true, why: None }), NOTHING);
    assert_eq!(story.tell(failed(0, Class::BuilderLost)), ["start 0 as 2 on 2"]);
    assert_eq!(story.tell(failed(1, Class::BuilderLost)), NOTHING);
    assert_eq!(story.tell(built(2)), ["0 built", "start 1 as 3 on 2"]);
}

#[test]
fn a_signal_is_tried_once_more_and_elsewhere_if_there_is_elsewhere() {
    let mut story = Story::new(Policy::default(), &[Builder { speed: 9.0, ..builder(1, 1) }, builder(2, 1)]);
    assert_eq!(story.tell(Input::Add(vec![build(0, &[])])), ["start 0 as 0 on 1"]);
    assert_eq!(story.tell(failed(0, Class::Signal)), ["start 0 as 1 on 2"]);
    assert_eq!(story.tell(failed(1, Class::Signal)), ["0 failed: Signal"]);

    let mut alone = Story::new(Policy::default(), &[builder(0, 1)]);
    alone.tell(Input::Add(vec![build(0, &[])]));
    assert_eq!(alone.tell(failed(0, Class::Signal)), ["start 0 as 1 on 0"]);
    assert_eq!(alone.tell(failed(1, Class::Build)), ["0 failed: Build"]);
}

#[test]
fn a_busy_other_builder_is_waited_for() {
    let mut story = Story::new(Policy::default(), &[builder(1, 1), builder(2, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[])]));
    assert_eq!(story.tell(failed(0, Class::DiskFull)), NOTHING);
    assert_eq!(story.tell(built(1)), ["1 built", "start 0 as 2 on 2"]);
    // With that gone, the first is better than nothing.
    story.tell(Input::BuilderDown { builder: BuilderId(2), back: true, why: None });
    assert_eq!(story.tell(failed(2, Class::BuilderLost)), ["start 0 as 3 on 1"]);
}

#[test]
fn the_network_gets_longer_and_longer_pauses() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    story.tell(Input::Add(vec![build(0, &[])]));
    assert_eq!(story.at(10.0, failed(0, Class::Network)), NOTHING);
    assert_eq!(story.scheduler.next_deadline(), Some(Moment::from_seconds(15.0)));
    assert_eq!(story.at(14.0, Input::Tick), NOTHING);
    assert_eq!(story.at(15.0, Input::Tick), ["start 0 as 1 on 0"]);
    assert_eq!(story.scheduler.next_deadline(), None);
    story.at(20.0, failed(1, Class::Network));
    assert_eq!(story.scheduler.next_deadline(), Some(Moment::from_seconds(35.0)));
    // Any input that comes late enough does as well.
    assert_eq!(story.at(40.0, Input::NoMore), ["start 0 as 2 on 0"]);
    assert_eq!(story.at(41.0, failed(2, Class::Network)), ["0 failed: Network"]);
}

#[test]
fn no_retries_means_none() {
    let mut story = Story::new(Policy { retries: 0, ..Policy::default() }, &[builder(0, 1), builder(1, 1)]);
    story.tell(Input::Add(vec![build(0, &[])]));
    assert_eq!(story.tell(failed(0, Class::BuilderLost)), ["0 failed: BuilderLost"]);
}

#[test]
fn waiting_for_somebody_elses_lock_takes_no_slot() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    let waiting = |attempt, waiting| Input::Waiting { attempt: AttemptId(attempt), waiting };
    assert_eq!(story.tell(Input::Add(vec![build(0, &[]), build(1, &[]), build(2, &[])])), ["start 0 as 0 on 0"]);
    assert_eq!(story.tell(waiting(0, true)), ["start 1 as 1 on 0"]);
    // It comes back while its slot is taken: one too many for a moment, and nothing new until both are through.
    assert_eq!(story.tell(waiting(0, false)), NOTHING);
    assert_eq!(story.tell(built(1)), ["1 built"]);
    assert_eq!(story.tell(built(0)), ["0 built", "start 2 as 2 on 0"]);
}

#[test]
fn not_every_drv_of_a_graph_waits_at_once() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    story.tell(Input::Add((0..20).map(|drv| build(drv, &[])).collect()));
    let mut started = 1;
    for attempt in 0..20 {
        let actions = story.tell(Input::Waiting { attempt: AttemptId(attempt), waiting: true });
        started += actions.len();
    }
    assert_eq!(started, 4);
}

#[test]
fn a_failure_reaches_its_dependents_and_nobody_else() {
    let mut story = Story::new(Policy::default(), &[builder(0, 2)]);
    let items = vec![build(0, &[]), build(1, &[]), build(2, &[0]), build(3, &[2, 1]), build(4, &[1])];
    story.tell(Input::Add(items));
    assert_eq!(story.tell(failed(0, Class::Build)), ["0 failed: Build", "2 failed by 0", "3 failed by 0"]);
    assert_eq!(story.tell(Input::Add(vec![build(5, &[3])])), ["5 failed by 0"]);
    assert_eq!(story.tell(built(1)), ["1 built", "start 4 as 2 on 0"]);
}

#[test]
fn fail_fast_stops_what_runs_and_names_what_was_not_tried() {
    let mut story = Story::new(Policy { fail_fast: true, ..Policy::default() }, &[builder(0, 3)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[]), build(2, &[]), build(3, &[0]), build(4, &[1])]));
    let actions = story.tell(failed(0, Class::Build));
    assert_eq!(actions, ["0 failed: Build", "3 failed by 0", "stop 1", "stop 2", "4 cancelled"]);
    assert_eq!(story.tell(failed(1, Class::Cancelled)), ["1 cancelled"]);
    assert!(!story.scheduler.is_done());
    // It was through before the stop arrived.
    assert_eq!(story.tell(built(2)), ["2 built"]);
    assert!(story.scheduler.is_done());
}

#[test]
fn max_failures_counts_drvs_that_failed_themselves() {
    let policy = Policy { max_failures: Some(2), ..Policy::default() };
    let mut story = Story::new(policy, &[builder(0, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[]), build(2, &[]), build(3, &[0])]));
    assert_eq!(story.tell(failed(0, Class::Build)), ["0 failed: Build", "3 failed by 0", "start 1 as 1 on 0"]);
    assert_eq!(story.tell(failed(1, Class::Build)), ["1 failed: Build", "2 cancelled"]);
}

#[test]
fn one_cancel_waits_for_the_ends_and_two_do_not() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[]), fetch(2), build(3, &[2])]));
    assert_eq!(story.tell(Input::Cancel(1)), ["stop 0", "stop fetch 2", "1 cancelled", "3 cancelled"]);
    assert_eq!(story.tell(Input::Add(vec![build(4, &[])])), ["4 cancelled"]);
    assert!(!story.scheduler.is_done());
    assert_eq!(story.tell(Input::Cancel(2)), ["0 cancelled", "2 cancelled"]);
    assert!(story.scheduler.is_done());
    assert_eq!(story.tell(failed(0, Class::Cancelled)), NOTHING);
}

#[test]
fn a_failed_fetch_is_planned_anew_and_its_users_keep_waiting() {
    let mut story = Story::new(Policy { fetch_slots: 1, ..Policy::default() }, &[builder(0, 1)]);
    let ended = |drv, class: Option<Class>| Input::FetchEnded { drv: DrvId(drv), failure: class.map(failure) };
    story.tell(Input::NoMore);
    let add = Input::Add(vec![fetch(0), fetch(1), build(2, &[0, 1])]);
    assert_eq!(story.tell(add), ["fetch 0"]);
    assert_eq!(story.tell(ended(0, Some(Class::Cache))), ["replan 0", "fetch 1"]);
    assert!(!story.scheduler.is_done());
    assert_eq!(story.tell(ended(1, None)), ["1 fetched"]);
    assert_eq!(story.tell(Input::Add(vec![build(3, &[]), build(0, &[3])])), ["start 3 as 0 on 0"]);
    assert_eq!(story.scheduler.remaining(DrvId(3)), Some(3.0));
    assert_eq!(story.tell(built(0)), ["3 built", "start 0 as 1 on 0"]);
    assert_eq!(story.tell(built(1)), ["0 built", "start 2 as 2 on 0"]);
}

#[test]
fn a_fetch_may_wait_for_what_it_lacks_and_be_planned_anew_again() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    let ended = |class: Option<Class>| Input::FetchEnded { drv: DrvId(0), failure: class.map(failure) };
    story.tell(Input::Add(vec![fetch(0), build(1, &[0])]));
    assert_eq!(story.tell(ended(Some(Class::Cache))), ["replan 0"]);
    let patched = Item { inputs: vec![DrvId(2)], ..fetch(0) };
    assert_eq!(story.tell(Input::Add(vec![build(2, &[]), patched])), ["start 2 as 0 on 0"]);
    assert_eq!(story.tell(built(0)), ["2 built", "fetch 0"]);
    assert_eq!(story.tell(ended(Some(Class::Cache))), ["replan 0"]);
    assert_eq!(story.tell(Input::Add(vec![fetch(0)])), ["fetch 0"]);
    assert_eq!(story.tell(ended(None)), ["0 fetched", "start 1 as 1 on 0"]);
}

#[test]
fn a_fetch_of_which_more_is_wanted_becomes_what_it_has_to_be() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    let ended = || Input::FetchEnded { drv: DrvId(0), failure: None };
    assert_eq!(story.tell(Input::Add(vec![fetch(0), build(1, &[0])])), ["fetch 0"]);
    // While it runs: its end does not count, the build does.
    assert_eq!(story.tell(Input::Add(vec![build(2, &[]), build(0, &[2])])), ["start 2 as 0 on 0"]);
    assert_eq!(story.tell(ended()), NOTHING);
    assert_eq!(story.tell(built(0)), ["2 built", "start 0 as 1 on 0"]);
    assert_eq!(story.tell(built(1)), ["0 built", "start 1 as 2 on 0"]);
    // What is built has all outputs.
    assert_eq!(story.tell(Input::Add(vec![fetch(0)])), NOTHING);

    // After its end: it is an item again, with an outcome of its own.
    let mut story = Story::new(Policy::default(), &[builder(0, 2)]);
    story.tell(Input::Add(vec![fetch(0), build(1, &[0])]));
    assert_eq!(story.tell(ended()), ["0 fetched", "start 1 as 0 on 0"]);
    assert_eq!(story.tell(Input::Add(vec![build(0, &[]), build(2, &[0])])), ["start 0 as 1 on 0"]);
    assert_eq!(story.tell(failed(1, Class::Build)), ["0 failed: Build", "2 failed by 0"]);
    assert_eq!(story.tell(built(0)), ["1 built"]);
}

#[test]
fn an_unreadable_drv_fails_like_any_other() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    let unreadable = Input::AddFailed(vec![(DrvId(0), failure(Class::Internal))]);
    assert_eq!(story.tell(unreadable), ["0 failed: Internal"]);
    assert_eq!(story.tell(Input::Add(vec![build(1, &[0])])), ["1 failed by 0"]);
}

#[test]
fn an_input_that_nobody_planned_is_not_waited_for_forever() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    assert_eq!(story.tell(Input::Add(vec![build(1, &[7])])), NOTHING);
    assert_eq!(story.tell(Input::NoMore), ["7 failed: Internal", "1 failed by 7"]);
    assert!(story.scheduler.is_done());
}

/// A graph as wide and deep as a real package set: later drvs need some of those shortly before them and one of a few
/// that everything needs.
fn package_set(size: u32) -> Vec<Item> {
    let mut state = 1_u32;
    let mut draw = move |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let one = |drv: u32| {
        let inputs: BTreeSet<u32> = match drv {
            0 => BTreeSet::new(),
            _ => {
                let mut inputs: BTreeSet<u32> = (0..5).map(|_| drv - 1 - draw(drv.min(400))).collect();
                inputs.insert(draw(drv.min(20)));
                inputs
            }
        };
        Item { cost: f64::from(draw(60)), ..build(drv, &inputs.into_iter().collect::<Vec<_>>()) }
    };
    (0..size).map(one).collect()
}

#[test]
fn a_package_set_takes_a_few_steps_for_each_event() {
    const SIZE: u32 = 13_000;
    let mut scheduler = Scheduler::new(Policy::default());
    let mut actions = Vec::new();
    let mut tell = |input, actions: &mut Vec<Action>| scheduler.handle(Moment(0), input, actions);
    for id in 0..8 {
        tell(Input::BuilderUp(Builder { speed: 1.0 + f64::from(id % 3) / 2.0, ..builder(id, 4) }), &mut actions);
    }
    let items = package_set(SIZE);
    let edges: usize = items.iter().map(|item| item.inputs.len()).sum();
    // In the batches in which evaluation would find them, with builds going on in between.
    let mut batches = items.chunks(100);
    let mut running: BTreeMap<AttemptId, DrvId> = BTreeMap::new();
    let mut prepared = Vec::new();
    let mut signalled = BTreeSet::new();
    let mut ended = 0;
    loop {
        match batches.next() {
            Some(batch) => tell(Input::Add(batch.to_vec()), &mut actions),
            None if running.is_empty() && actions.is_empty() => break,
            None => {}
        }
        for action in actions.drain(..) {
            match action {
                Action::Start { attempt, drv, .. } => {
                    running.insert(attempt, drv);
                    prepared.push(attempt);
                }
                Action::Go { .. } => {}
                Action::Ended { .. } => ended += 1,
                other => panic!("{other:?}"),
            }
        }
        for attempt in prepared.drain(..) {
            tell(Input::Prepared { attempt }, &mut actions);
        }
        if let Some((attempt, drv)) = running.pop_first() {
            let end = match drv.0 {
                drv if drv == SIZE - 500 => AttemptEnd::Failed(failure(Class::Build)),
                drv if drv % 1000 == 0 && signalled.insert(drv) => AttemptEnd::Failed(failure(Class::Signal)),
                _ => AttemptEnd::Built { outputs: Vec::new() },
            };
            tell(Input::AttemptEnded { attempt, end, gone: Vec::new() }, &mut actions);
        }
    }
    tell(Input::NoMore, &mut actions);
    assert!(scheduler.is_done());
    assert_eq!(ended, SIZE);
    let counts = scheduler.counts();
    assert!(counts.built > SIZE / 2 && counts.dependency_failed > 10, "{counts:?}");
    let steps = usize::try_from(scheduler.steps).unwrap();
    // Each batch lies on top of all before it, so it raises the ranks of most: 130 batches are the better part of it.
    assert!(steps < 100 * (SIZE as usize + edges), "{steps} steps for {SIZE} items and {edges} edges");
}
