//! Stories of several builders: transfers, placement, losses.

use super::*;
use crate::sched::{Course, forecast};

fn prepared(attempt: u32) -> Input {
    Input::Prepared { attempt: AttemptId(attempt) }
}

fn sized(drv: u32, bytes: u64) -> Input {
    Input::Sized { drv: DrvId(drv), bytes, signed: false }
}

fn down(builder: u32, back: bool) -> Input {
    Input::BuilderDown { builder: BuilderId(builder), back, why: None }
}

fn cost(drv: u32, inputs: &[u32], cost: f64) -> Item {
    Item { cost, ..build(drv, inputs) }
}

/// Its inputs take as long as the story says.
fn apart(policy: Policy, builders: &[Builder]) -> Story {
    Story { at_once: false, ..Story::new(policy, builders) }
}

/// 0 is built on 1 and 1 on 2; then both are busy with 2 and 3 for 100 s, attempts 2 and 3.
fn two_busy_builders() -> Story {
    let mut story = Story::new(Policy::default(), &[builder(1, 1), builder(2, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[])]));
    story.tell(built(0));
    story.tell(built(1));
    let busy = Input::Add(vec![cost(2, &[], 100.0), cost(3, &[], 100.0)]);
    assert_eq!(story.tell(busy), ["start 2 as 2 on 1", "start 3 as 3 on 2"]);
    story.at_once = false;
    story
}

#[test]
fn preparing_takes_no_slot_and_building_does() {
    let mut story = apart(Policy::default(), &[builder(1, 1)]);
    assert_eq!(story.tell(Input::Add(vec![build(0, &[]), build(1, &[])])), ["start 0 as 0 on 1"]);
    assert_eq!(story.tell(prepared(0)), ["go 0"]);
    assert_eq!(story.tell(prepared(0)), NOTHING);
    assert_eq!(story.tell(built(0)), ["0 built", "start 1 as 1 on 1"]);
    assert_eq!(story.tell(prepared(1)), ["go 1"]);
}

#[test]
fn inputs_come_shortly_before_there_is_a_slot() {
    let mut story = two_busy_builders();
    // One of its inputs is on each: wherever it goes, something has to come.
    assert_eq!(story.tell(Input::Add(vec![build(4, &[0, 1])])), NOTHING);
    let deadline = story.scheduler.next_deadline().unwrap().seconds();
    assert!((90.0..99.0).contains(&deadline), "{deadline}");
    let deadline = deadline + 0.001;
    assert_eq!(story.at(deadline, Input::Tick), ["start 4 as 4 on 1"]);
    assert_eq!(story.at(deadline, prepared(4)), NOTHING);
    assert_eq!(story.at(100.0, built(2)), ["2 built", "go 4"]);
}

#[test]
fn nothing_begins_early_where_nothing_has_to_come() {
    let mut story = two_busy_builders();
    assert_eq!(story.tell(Input::Add(vec![build(4, &[0])])), NOTHING);
    assert_eq!(story.at(99.5, Input::Tick), NOTHING);
    assert_eq!(story.at(100.0, built(2)), ["2 built", "start 4 as 4 on 1"]);
}

#[test]
fn few_are_prepared_ahead() {
    let mut story = two_busy_builders();
    let items = (4..40).map(|drv| build(drv, &[0, 1])).collect();
    story.tell(Input::Add(items));
    let mut begun = 0;
    for second in [99, 101, 105, 120, 200] {
        begun += story.at(f64::from(second), Input::Tick).len();
    }
    assert!((2..=4).contains(&begun), "{begun}");
}

#[test]
fn large_inputs_are_not_sent_around_to_save_a_short_wait() {
    for (bytes, expected) in [(10_000_000_000, &[][..]), (1000, &["start 4 as 4 on 2"][..])] {
        let mut story = two_busy_builders();
        story.tell(sized(0, bytes));
        story.at_once = true;
        story.at(50.0, built(3));
        // Its input is on 1, which is busy for 50 s more; 200 s of transfer, or none to speak of.
        assert_eq!(story.at(50.0, Input::Add(vec![cost(4, &[0], 10.0)])), expected);
        if bytes > 1000 {
            assert_eq!(story.at(100.0, built(2)), ["2 built", "start 4 as 4 on 1"]);
        }
    }
}

#[test]
fn a_link_that_turns_out_slow_is_believed() {
    let mut story = two_busy_builders();
    story.at_once = true;
    story.tell(sized(0, 100_000_000));
    // 100 MB would take 2 s; this says 1000 s.
    for _ in 0..3 {
        story.tell(Input::Transferred { builder: BuilderId(2), bytes: 100_000_000, seconds: 1000.0 });
    }
    story.at(50.0, built(3));
    assert_eq!(story.at(50.0, Input::Add(vec![cost(4, &[0], 10.0)])), NOTHING);
    assert_eq!(story.at(100.0, built(2)), ["2 built", "start 4 as 4 on 1"]);
}

#[test]
fn a_long_drv_waits_for_the_fast_builder_and_not_for_ever() {
    let fast = Builder { speed: 4.0, ..builder(1, 1) };
    let mut story = Story::new(Policy::default(), &[fast, builder(2, 1)]);
    assert_eq!(story.tell(Input::Add(vec![cost(0, &[], 40.0)])), ["start 0 as 0 on 1"]);
    // 10 s until the fast one is free and 25 s there, or 100 s here. What is short goes ahead.
    let add = Input::Add(vec![cost(1, &[], 100.0), cost(2, &[], 1.0)]);
    assert_eq!(story.tell(add), ["start 2 as 1 on 2"]);
    assert_eq!(story.at(1.0, built(1)), ["2 built"]);
    // What was to end at 10 s goes on and on.
    let mut now = 1.0;
    let started = loop {
        let deadline = story.scheduler.next_deadline().unwrap().seconds();
        assert!(deadline > now && deadline < 1000.0, "{deadline}");
        now = deadline;
        let actions = story.at(now, Input::Tick);
        if !actions.is_empty() {
            break actions;
        }
    };
    assert_eq!(started, ["start 1 as 2 on 2"]);
    assert!(now > 50.0, "{now}");
}

#[test]
fn sources_take_no_slot_and_a_few_are_loaded_at_once() {
    let mut story = Story::new(Policy::default(), &[builder(0, 1)]);
    let source = |drv| Item { fixed_output: true, ..build(drv, &[]) };
    let mut items: Vec<Item> = (0..20).map(source).collect();
    items.push(build(20, &[]));
    let started = story.tell(Input::Add(items));
    assert_eq!(started.len(), 9, "{started:?}");
    assert!(started.contains(&"start 20 as 8 on 0".to_owned()), "{started:?}");
    assert_eq!(story.tell(built(8)), ["20 built"]);
    assert_eq!(story.tell(built(0)), ["0 built", "start 8 as 9 on 0"]);
}

#[test]
fn what_is_tiny_is_built_where_its_inputs_are_beside_the_slots() {
    let mut story = two_busy_builders();
    story.at_once = true;
    let tiny = |drv, inputs: &[u32]| Item { prefer_local: true, ..build(drv, inputs) };
    let items = vec![tiny(4, &[1]), tiny(5, &[0]), tiny(6, &[1]), tiny(7, &[1]), tiny(8, &[1]), tiny(9, &[1])];
    let started = story.tell(Input::Add(items));
    let places: Vec<&str> = started.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(places[..5], ["2", "1", "2", "2", "2"], "{started:?}");
    // One that takes its time is like any other.
    let whole = Item { cost: 60.0, ..tiny(10, &[0]) };
    assert_eq!(story.tell(Input::Add(vec![whole])), NOTHING);
}

#[test]
fn what_only_prepares_goes_elsewhere_when_its_builder_is_paused() {
    let mut story = apart(Policy { retries: 0, ..Policy::default() }, &[builder(1, 1), builder(2, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[])]));
    assert_eq!(story.tell(prepared(1)), ["go 1"]);
    assert_eq!(story.tell(down(1, true)), ["stop 0"]);
    assert_eq!(story.tell(prepared(0)), NOTHING);
    // That was no try, so it may go on although there are no retries.
    assert_eq!(story.tell(failed(0, Class::Cancelled)), NOTHING);
    assert_eq!(story.tell(built(1)), ["1 built", "start 0 as 2 on 2"]);
    // What builds on a paused builder goes on.
    story.tell(prepared(2));
    assert_eq!(story.tell(down(2, true)), NOTHING);
    assert_eq!(story.tell(built(2)), ["0 built"]);
}

#[test]
fn what_was_only_on_a_lost_builder_is_built_again_elsewhere() {
    let mut story = Story::new(Policy { retries: 0, ..Policy::default() }, &[builder(1, 1), builder(2, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[]), build(2, &[0, 1]), build(3, &[0])]));
    assert_eq!(story.tell(built(0)), ["0 built", "start 3 as 2 on 1"]);
    assert_eq!(story.tell(down(1, true)), NOTHING);
    story.tell(failed(2, Class::Build));
    // 2 begins on the builder that is left, and its input is nowhere.
    assert_eq!(story.tell(built(1)), ["1 built", "start 2 as 3 on 2"]);
    let gone = Input::AttemptEnded {
        attempt: AttemptId(3),
        end: AttemptEnd::Failed(failure(Class::Dependency)),
        gone: vec![DrvId(0)],
    };
    assert_eq!(story.tell(gone), ["start 0 as 4 on 2"]);
    story.tell(Input::NoMore);
    story.tell(Input::BuilderUp(builder(1, 1)));
    // It has a second final word, and nobody's tries were used up.
    assert_eq!(story.tell(built(4)), ["0 built", "start 2 as 5 on 2"]);
    assert_eq!(story.tell(built(5)), ["2 built"]);
    assert!(story.scheduler.is_done());
}

#[test]
fn what_no_cache_has_any_more_is_planned_anew() {
    let policy = Policy { fetch_where_needed: true, ..Policy::default() };
    let mut story = Story::new(policy, &[builder(0, 1), builder(1, 1)]);
    let elsewhere = |drv| Item { here: false, ..fetch(drv) };
    let items = vec![elsewhere(0), elsewhere(1), fetch(2), build(3, &[0, 1])];
    // What is wanted in the local store is fetched there; the rest comes with the attempt.
    assert_eq!(story.tell(Input::Add(items)), ["0 fetched", "1 fetched", "start 3 as 0 on 0", "fetch 2"]);
    let end = AttemptEnd::Failed(failure(Class::Cache));
    // What it does not need, and what nobody knows, is none of its business.
    let gone = vec![DrvId(1), DrvId(2), DrvId(77)];
    assert_eq!(story.tell(Input::AttemptEnded { attempt: AttemptId(0), end, gone }), ["replan 1"]);
    assert_eq!(story.tell(Input::Add(vec![build(1, &[])])), ["start 1 as 1 on 0"]);
    assert_eq!(story.tell(built(1)), ["1 built", "start 3 as 2 on 0"]);
}

#[test]
fn what_was_only_found_on_a_lost_builder_is_planned_and_everybody_waits_for_it() {
    let mut story = Story::new(Policy { retries: 0, ..Policy::default() }, &[builder(1, 1)]);
    let uses = |drv, inputs: &[u32]| Item { there: vec![DrvId(0), DrvId(1)], ..build(drv, inputs) };
    assert_eq!(story.tell(Input::Add(vec![uses(2, &[]), uses(3, &[2]), build(4, &[])])), ["start 2 as 0 on 1"]);
    story.tell(Input::NoMore);
    let gone = |attempt, drvs: &[u32]| Input::AttemptEnded {
        attempt: AttemptId(attempt),
        end: AttemptEnd::Failed(failure(Class::Cache)),
        gone: drvs.iter().copied().map(DrvId).collect(),
    };
    assert_eq!(story.tell(gone(0, &[0, 77])), ["replan 0", "start 4 as 1 on 1"]);
    assert_eq!(story.tell(Input::Add(vec![build(5, &[]), build(0, &[5])])), NOTHING);
    assert_eq!(story.tell(built(1)), ["4 built", "start 5 as 2 on 1"]);
    assert_eq!(story.tell(built(2)), ["5 built", "start 0 as 3 on 1"]);
    assert_eq!(story.tell(built(3)), ["0 built", "start 2 as 4 on 1"]);
    // It was an item once, so it is made again like any other; what else was there is planned when it is missed.
    assert_eq!(story.tell(gone(4, &[0, 1])), ["replan 1", "start 0 as 5 on 1"]);
    assert_eq!(
        story.tell(Input::AddFailed(vec![(DrvId(1), failure(Class::Internal))])),
        ["1 failed: Internal", "2 failed by 1", "3 failed by 1"]
    );
    assert_eq!(story.tell(built(5)), ["0 built"]);
    assert!(story.scheduler.is_done());
}

#[test]
fn a_result_that_was_only_found_on_a_lost_builder_is_planned() {
    let mut story = Story::new(Policy::default(), &[builder(1, 1)]);
    assert!(story.scheduler.can_make_again(DrvId(0)));
    assert_eq!(story.tell(Input::Lost { drv: DrvId(0) }), ["replan 0"]);
    assert!(!story.scheduler.can_make_again(DrvId(0)));
    assert!(story.scheduler.is_on_its_way(DrvId(0)));
    story.tell(Input::NoMore);
    assert_eq!(story.tell(Input::Add(vec![build(0, &[])])), ["start 0 as 0 on 1"]);
    assert_eq!(story.tell(built(0)), ["0 built"]);
    assert!(story.scheduler.is_done());
}

#[test]
fn outputs_that_are_lost_again_and_again_end_the_run() {
    let mut story = Story::new(Policy { retries: 0, ..Policy::default() }, &[builder(1, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[0])]));
    let mut attempt = 0;
    let failed = loop {
        story.tell(built(attempt));
        let end = AttemptEnd::Failed(failure(Class::Dependency));
        let gone = vec![DrvId(0)];
        let actions = story.tell(Input::AttemptEnded { attempt: AttemptId(attempt + 1), end, gone });
        attempt += 2;
        if actions.iter().any(|line| line.contains("failed")) {
            break actions;
        }
        assert!(attempt < 100);
    };
    assert_eq!(failed, ["1 failed: Dependency"]);
}

#[test]
fn what_was_killed_is_tried_where_fewer_drvs_build() {
    let mut story = Story::new(Policy::default(), &[builder(0, 3)]);
    story.tell(Input::Add((0..5).map(|drv| build(drv, &[])).collect()));
    // Three built when it was killed: at most one beside it, also though there is more to do.
    assert_eq!(story.tell(failed(0, Class::Signal)), NOTHING);
    assert_eq!(story.tell(built(1)), ["1 built", "start 0 as 3 on 0"]);
    assert_eq!(story.tell(built(3)).first().map(String::as_str), Some("0 built"));
}

#[test]
fn genuine_failures_are_tried_again_only_if_somebody_asks_for_it() {
    let asked = Policy { retries: 1, retry_failures: 1, ..Policy::default() };
    let mut story = Story::new(asked, &[builder(0, 1)]);
    story.tell(Input::Add(vec![build(0, &[]), build(1, &[])]));
    assert_eq!(story.tell(failed(0, Class::Build)), ["start 0 as 1 on 0"]);
    assert_eq!(story.tell(built(1)), ["0 built", "start 1 as 2 on 0"]);
    assert_eq!(story.tell(failed(2, Class::Build)), ["start 1 as 3 on 0"]);
    assert_eq!(story.tell(failed(3, Class::Build)), ["1 failed: Build"]);
    // What cannot be otherwise the next time is not.
    story.tell(Input::Add(vec![build(2, &[])]));
    assert_eq!(story.tell(failed(4, Class::HashMismatch)), ["2 failed: HashMismatch"]);
}

#[test]
fn a_builder_may_go_away_more_often_than_a_drv_is_tried() {
    let mut story = Story::new(Policy { retries: 1, ..Policy::default() }, &[builder(1, 1)]);
    story.tell(Input::Add(vec![build(0, &[])]));
    for attempt in 0..4 {
        story.tell(down(1, true));
        assert_eq!(story.tell(failed(attempt, Class::BuilderLost)), NOTHING);
        let again = format!("start 0 as {} on 1", attempt + 1);
        assert_eq!(story.tell(Input::BuilderUp(builder(1, 1))), [again]);
    }
    assert_eq!(story.tell(failed(4, Class::BuilderLost)), ["0 failed: BuilderLost"]);
}

#[test]
fn a_forecast_is_what_a_run_would_do() {
    let fast = Builder { speed: 2.0, ..builder(1, 1) };
    let items = vec![cost(0, &[], 10.0), cost(1, &[], 4.0), cost(2, &[0], 6.0), fetch(3)];
    let foreign = Item { system: System::from("aarch64-linux"), ..build(4, &[]) };
    let items = items.into_iter().chain([foreign, build(5, &[4])]).collect();
    let course = Course::at_once(items, vec![builder(0, 1), fast], Policy::default());
    let told = forecast(Course { sizes: vec![(DrvId(0), 0)], ..course });
    let shown: Vec<_> = told.planned.iter().map(|p| (p.drv.0, p.builder.0, p.start, p.end)).collect();
    assert_eq!(shown, [(0, 1, 0.0, 5.0), (1, 0, 0.0, 4.0), (2, 1, 5.0, 8.0)]);
    assert_eq!((told.seconds, told.chain), (8.0, vec![DrvId(0), DrvId(2)]));
    let nothing = forecast(Course::default());
    assert_eq!(nothing, crate::sched::Forecast::default());
}

#[test]
fn a_forecast_waits_for_what_comes_later() {
    let at = |seconds: f64| Moment::from_seconds(seconds);
    let items = vec![(at(0.0), cost(0, &[], 10.0)), (at(3.0), cost(1, &[], 4.0)), (at(3.0), cost(2, &[1], 1.0))];
    let builders = vec![(at(1.0), builder(0, 1)), (at(5.0), builder(1, 1))];
    let told = forecast(Course { items, builders, ..Course::default() });
    let shown: Vec<_> = told.planned.iter().map(|p| (p.drv.0, p.builder.0, p.start)).collect();
    assert_eq!(shown[..2], [(0, 0, 1.0), (1, 1, 5.0)]);
    assert_eq!((told.planned.len(), told.chain), (3, vec![DrvId(0)]));
}

fn untrusting(id: u32, slots: u32) -> Builder {
    Builder { trusting: false, ..builder(id, slots) }
}

/// 0 is built on 1, which is busy with 2 for 100 s then, and 1 on 2, which takes nothing that nobody has signed.
fn a_busy_one_and_one_that_does_not_trust() -> Story {
    let mut story = Story::new(Policy::default(), &[builder(1, 1), untrusting(2, 1)]);
    let start = story.tell(Input::Add(vec![build(0, &[]), build(1, &[])]));
    assert_eq!(start, ["start 0 as 0 on 1", "start 1 as 1 on 2"]);
    story.tell(built(0));
    assert_eq!(story.tell(Input::Add(vec![cost(2, &[], 100.0)])), ["start 2 as 2 on 1"]);
    story.tell(built(1));
    story
}

#[test]
fn what_nobody_has_signed_does_not_go_where_it_is_not_taken() {
    let mut story = a_busy_one_and_one_that_does_not_trust();
    assert_eq!(story.tell(Input::Add(vec![build(3, &[0])])), NOTHING, "it waits for the other");
    assert_eq!(
        story.tell(Input::Add(vec![build(4, &[1])])),
        ["start 4 as 3 on 2"],
        "what it has built itself it takes"
    );
    assert_eq!(story.tell(built(3)), ["4 built"]);
    assert_eq!(story.at(100.0, built(2)), ["2 built", "start 3 as 4 on 1"]);
}

#[test]
fn one_refusal_speaks_for_all_that_was_built_there() {
    let mut story = a_busy_one_and_one_that_does_not_trust();
    let signed = |drv| Input::Sized { drv: DrvId(drv), bytes: 1, signed: true };
    story.tell(Input::Add(vec![build(3, &[0])]));
    assert_eq!(story.tell(signed(0)), ["start 3 as 3 on 2"]);
    // By a key that is not known there.
    story.tell(Input::Refused { builder: BuilderId(2), inputs: vec![DrvId(0)] });
    assert_eq!(story.tell(failed(3, Class::Signature)), NOTHING);
    assert_eq!(story.at(100.0, built(2)), ["2 built", "start 3 as 4 on 1"]);
    story.tell(signed(2));
    assert_eq!(story.tell(Input::Add(vec![build(5, &[2])])), NOTHING, "nor does it take what else was built there");
    let content_addressed = Item { fixed_output: true, ..build(6, &[]) };
    assert_eq!(story.tell(Input::Add(vec![content_addressed, build(7, &[6])])), ["start 6 as 5 on 1"]);
    assert_eq!(story.tell(built(5)), ["6 built", "start 7 as 6 on 2"]);
}

#[test]
fn a_refused_input_that_was_there_before_is_not_sent_again() {
    let mut story = Story::new(Policy::default(), &[builder(1, 1), builder(2, 1)]);
    assert_eq!(story.tell(Input::Add(vec![cost(1, &[], 100.0)])), ["start 1 as 0 on 1"]);
    let uses = |drv| Item { there: vec![DrvId(0)], ..build(drv, &[]) };
    assert_eq!(story.tell(Input::Add(vec![uses(2)])), ["start 2 as 1 on 2"]);
    story.tell(Input::Refused { builder: BuilderId(2), inputs: vec![DrvId(0)] });
    assert_eq!(story.tell(failed(1, Class::Signature)), NOTHING);
    assert_eq!(story.tell(Input::Add(vec![uses(3)])), NOTHING);
    assert_eq!(story.tell(Input::Add(vec![build(4, &[])])), ["start 4 as 2 on 2"]);
}

#[test]
fn where_nobody_takes_it_it_is_tried_so_that_the_failure_says_why() {
    let mut story = a_busy_one_and_one_that_does_not_trust();
    assert_eq!(story.tell(Input::Add(vec![build(3, &[0])])), NOTHING);
    assert_eq!(story.tell(down(1, true)), NOTHING, "it may come back");
    assert_eq!(story.tell(down(1, false)), ["start 3 as 3 on 2"]);
    // Who failed with it is better than who does not take it.
    let mut story = a_busy_one_and_one_that_does_not_trust();
    assert_eq!(story.at(100.0, built(2)), ["2 built"]);
    assert_eq!(story.tell(Input::Add(vec![build(3, &[0])])), ["start 3 as 3 on 1"]);
    assert_eq!(story.tell(failed(3, Class::NoBuilder)), ["start 3 as 4 on 1"]);
}

#[test]
fn many_that_are_not_taken_hold_nobody_up() {
    let arm = Builder { systems: BTreeSet::from([System::from("aarch64-linux")]), ..builder(3, 1) };
    let mut story = a_busy_one_and_one_that_does_not_trust();
    story.tell(Input::BuilderUp(arm));
    let many = (10..300).map(|drv| cost(drv, &[0], 50.0)).collect();
    assert_eq!(story.tell(Input::Add(many)), NOTHING);
    let other = Item { system: System::from("aarch64-linux"), ..build(3, &[]) };
    assert_eq!(story.tell(Input::Add(vec![other])), ["start 3 as 3 on 3"]);
}

#[test]
fn a_builder_that_was_given_up_is_not_waited_for_because_its_attempts_end_later() {
    let big = Builder { features: BTreeSet::from(["big-parallel".to_owned()]), ..builder(1, 2) };
    let mut story = Story::new(Policy::default(), &[builder(0, 1), big.clone()]);
    story.tell(Input::NoMoreBuilders);
    let wants = |drv| Item { features: vec!["big-parallel".to_owned()], ..build(drv, &[]) };
    assert_eq!(story.tell(Input::Add(vec![wants(0)])), ["start 0 as 0 on 1"]);
    assert_eq!(story.tell(down(1, false)), NOTHING);
    // Whoever finds a builder lost says that it may come back; that one will not.
    assert_eq!(story.tell(down(1, true)), NOTHING);
    assert_eq!(story.tell(failed(0, Class::BuilderLost)), ["0 failed: BuilderLost"]);
    assert_eq!(story.tell(Input::Add(vec![wants(1)])), ["1 failed: NoBuilder"]);
    assert_eq!(story.tell(Input::BuilderUp(big)), NOTHING);
    assert_eq!(story.tell(Input::Add(vec![wants(2)])), ["start 2 as 1 on 1"]);
}
