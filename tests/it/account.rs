//! The wall-time account: exact on runs worked out by hand, and adding up on every stream there can be.

use drover::event::{
    AttemptEnd, Class, DrvOutcome, Evaluated, Event, Fact, Failure, LockedInput, Moment, OutputPath, Pushed, Stage,
    Status,
};
use drover::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, Kind};
use drover::report::account::{Interval, Owner, What, account};
use drover::report::history::History;
use drover::report::summary::Summary;
use drover::report::text::Style;
use drover::report::{closing, json, list, plan, schedule, time};
use drover::ui::{Mode, Settings, Ui};
use proptest::prelude::*;

use crate::support::story::{self, Story, Twist, fleet};
use crate::support::story_farm::{self, BIG1, Farm, LOCAL, ready, suspended};

/// The intervals touch each other from 0 to the last moment of the stream.
fn check(events: &[Event]) {
    let intervals = account(events);
    let end = events.iter().map(|event| event.at).max().unwrap_or_default();
    let mut at = Moment(0);
    for interval in &intervals {
        assert_eq!(interval.from, at, "{intervals:?}");
        assert!(interval.to > interval.from, "{intervals:?}");
        at = interval.to;
    }
    assert_eq!(at, end, "{intervals:?}");
    let summary = Summary::of(events);
    let shown: u64 = time::rows(&summary, &intervals).iter().map(|row| row.time).sum();
    assert_eq!(shown, end.0);
}

fn short(intervals: &[Interval]) -> Vec<(String, Owner, f64)> {
    intervals.iter().map(|i| (i.what.word().to_owned(), i.owner, i.to.since(i.from))).collect()
}

/// One slot; b needs a; c takes the slot before b; the push of b is the tail.
#[test]
fn a_small_run_is_accounted_to_the_microsecond() {
    let mut story = Story::new("run", &[]);
    story.builder(0.1, 0, "local", 1, &["x86_64-linux"]);
    story.flake(1.0, 0, false);
    let (x, y) = (story.attr(1.2, Kind::Packages, "x"), story.attr(1.2, Kind::Packages, "y"));
    story.evaluated(x, 0, 1.5, 3.0);
    story.evaluated(y, 0, 3.0, 3.5);
    let needed = |drv: u32, attr, inputs: &[u32]| Fact::DrvNeeded {
        drv: DrvId(drv),
        path: format!("/nix/store/{drv}.drv").into(),
        name: format!("d{drv}").into(),
        system: "x86_64-linux".into(),
        inputs: inputs.iter().map(|i| DrvId(*i)).collect(),
        fetch: false,
        opaque: false,
        features: Vec::new(),
        attr: Some(attr),
        expected: None,
        outputs: vec![],
    };
    let (a, b, c) = (0, 1, 2);
    story.at(3.25, needed(a, x, &[]));
    story.at(3.25, needed(b, x, &[a]));
    story.at(3.75, needed(c, y, &[]));
    let mut built = |drv: u32, start: f64, building: f64, end: f64| {
        let attempt = AttemptId(drv);
        story.at(start, Fact::AttemptStarted { attempt, drv: DrvId(drv), builder: BuilderId(0) });
        story.at(building, Fact::AttemptBuilding { attempt });
        let ended = AttemptEnd::Built { outputs: vec![] };
        story.at(end, Fact::AttemptEnded { attempt, end: ended, log_lines: 0, log_tail: vec![] });
        story.at(end, Fact::DrvEnded { drv: DrvId(drv), outcome: DrvOutcome::Built });
    };
    built(a, 3.25, 3.5, 5.0);
    built(c, 5.0, 5.0, 7.0);
    built(b, 7.0, 7.25, 9.0);
    story.push(9.0, CacheId(0), "d1", 10, 0.5);
    story.at(9.75, Fact::RunEnded { exit: 0 });
    let events = story.events();
    check(&events);
    let drv = |n| Owner::Drv(DrvId(n));
    let expected = [
        ("starting", Owner::Run, 1.0),
        ("evaluating", Owner::Run, 0.5),
        ("evaluating", Owner::Attr(x), 1.5),
        ("comparing", Owner::Run, 0.25),
        ("preparing", drv(a), 0.25),
        ("building", drv(a), 1.5),
        ("waiting_for_slot", drv(b), 2.0),
        ("preparing", drv(b), 0.25),
        ("building", drv(b), 1.75),
        ("pushing", Owner::Cache(CacheId(0)), 0.5),
        ("closing", Owner::Run, 0.25),
    ];
    let expected: Vec<_> = expected.iter().map(|(what, owner, time)| ((*what).to_owned(), *owner, *time)).collect();
    assert_eq!(short(&account(&events)), expected);
    let queued =
        account(&events).into_iter().find_map(|i| if let What::Slot { queued } = i.what { Some(queued) } else { None });
    assert_eq!(queued, Some(1));
}

/// An evaluation that goes on after the last build is what the run waited for, not the builds.
#[test]
fn a_long_evaluation_owns_the_time_although_builds_ran_meanwhile() {
    let mut story = Story::new("run", &[]);
    story.builder(0.0, 0, "local", 1, &["x86_64-linux"]);
    story.flake(1.0, 0, false);
    let (x, y) = (story.attr(1.0, Kind::Packages, "x"), story.attr(1.0, Kind::Packages, "y"));
    story.evaluated(x, 0, 1.0, 2.0);
    story.evaluated(y, 0, 2.0, 60.0);
    story.need(2.0, "small", 5.0, &[], x, false);
    story.play();
    story.at(60.0, Fact::RunEnded { exit: 0 });
    let evaluating: f64 =
        account(&story.events()).iter().filter(|i| i.what == What::Evaluating).map(|i| i.to.since(i.from)).sum();
    assert!((evaluating - 59.0).abs() < 1e-9, "{evaluating}");
}

/// Inputs on their way, a slot that is taken, results that come home; and a builder that is away meanwhile.
#[test]
fn a_run_on_builders_is_accounted_to_the_microsecond() {
    let mut farm = Farm::new("run", &["x"]);
    farm.story.at(0.4, ready(BIG1, "big1", 1, &["x86_64-linux"], None));
    farm.story.at(0.06, ready(LOCAL, "local", 0, &["x86_64-linux"], None));
    let other = farm.need("other", &[], 0, None);
    let top = farm.host(0, &[other], None);
    let small = farm.need("small", &[], 0, None);
    let first = farm.build(2.0, other, BIG1);
    farm.built(4.0, first, other, "other");
    let between = farm.build(4.0, small, BIG1);
    farm.story.at(4.0, suspended(BIG1, "big1", "no bytes for 30s", 0, Some(1.0)));
    farm.story.at(6.0, ready(BIG1, "big1", 1, &["x86_64-linux"], None));
    let attempt = farm.start(6.5, top, BIG1);
    farm.bring(6.5, attempt, 1 << 20);
    farm.prepared(8.0, attempt, 1 << 20);
    farm.built(9.0, between, small, "small");
    farm.story.at(9.0, Fact::AttemptBuilding { attempt });
    farm.built(12.0, attempt, top, "nixos-system-x-25.11");
    farm.host_built(13.5, 0, top, BIG1);
    farm.end(14.0, 0);
    let events = farm.story.events();
    check(&events);
    let drv = |drv: DrvId| Owner::Drv(drv);
    let expected = [
        ("starting", Owner::Run, 0.3),
        ("evaluating", Owner::Run, 0.2),
        ("evaluating", Owner::Attr(farm.attrs[0]), 0.5),
        ("comparing", Owner::Run, 0.4),
        ("handing_out", drv(other), 0.6),
        ("building", drv(other), 2.0),
        ("waiting_for_builder", drv(top), 2.0),
        ("waiting_for_slot", drv(top), 0.5),
        ("preparing", drv(top), 1.5),
        ("waiting_for_slot", drv(top), 1.0),
        ("building", drv(top), 3.0),
        ("collecting", drv(top), 0.5),
        ("returning", drv(top), 1.0),
        ("closing", Owner::Run, 0.5),
    ];
    let expected: Vec<_> = expected.iter().map(|(what, owner, time)| ((*what).to_owned(), *owner, *time)).collect();
    let round = |(what, owner, time): (String, Owner, f64)| (what, owner, (time * 1e6).round() / 1e6);
    let intervals: Vec<_> = short(&account(&events)).into_iter().map(round).collect();
    assert_eq!(intervals, expected);
}

/// Builders that are lost, given up, paused; drvs that nobody takes; runs cut anywhere.
#[test]
fn every_beginning_of_a_run_on_builders_adds_up() {
    for farm in [
        story_farm::at_work(),
        story_farm::in_trouble(),
        story_farm::without_builder(),
        story_farm::tried_again(true),
        story_farm::tried_again(false),
        story_farm::kept(),
        story_farm::planned(),
    ] {
        let events = farm.story.events();
        for length in 0..=events.len() {
            check(&events[..length]);
        }
        look_at_everything(&events, 60);
    }
}

#[test]
fn every_beginning_of_a_run_adds_up() {
    for twist in [
        Twist { push: true, ..Twist::default() },
        Twist { nginx_fails: true, eval_fails: true, ..Twist::default() },
        Twist { idle: true, ..Twist::default() },
        Twist { plan: true, ..Twist::default() },
    ] {
        let events = fleet(twist).events();
        for length in (0..=events.len()).step_by(17).chain([1, 2, 3, events.len()]) {
            check(&events[..length]);
        }
    }
}

/// Any graph on any builders, cut anywhere.
fn arb_story() -> impl Strategy<Value = Vec<Event>> {
    let drv =
        (0.0..20.0_f64, proptest::collection::vec(any::<prop::sample::Index>(), 0..3), any::<bool>(), 0.0..5.0_f64);
    let drvs = proptest::collection::vec(drv, 0..30);
    (drvs, 1..4_u32, 1..3_u32, any::<bool>(), 0.0..1.0_f64).prop_map(|(drvs, slots, builders, push, cut)| {
        let mut story = Story::new("run", &["x"]);
        story.flake(1.0, 0, false);
        story.cache(0.5, 0, "cache", push);
        for id in 0..builders {
            story.builder(0.2 + f64::from(id), id, &format!("b{id}"), slots, &["x86_64-linux"]);
        }
        let attr = story.attr(1.5, Kind::Checks, "x");
        story.evaluated(attr, 0, 1.5, 4.0);
        let mut ids: Vec<DrvId> = Vec::new();
        for (n, (seconds, inputs, fails, later)) in drvs.into_iter().enumerate() {
            let inputs: Vec<DrvId> =
                if ids.is_empty() { vec![] } else { inputs.iter().map(|i| *i.get(&ids)).collect() };
            let id = story.need(4.0 + later, &format!("d-{n}"), seconds, &inputs, attr, n % 2 == 0);
            if fails && n % 7 == 3 {
                story.fails(id, story::failure(Class::Build, "failed with exit code 1"), "buildPhase", &["no"]);
            }
            ids.push(id);
        }
        story.planned(9.5, attr, Status::ToBuild, ids.last().copied(), ids.len() as u32);
        let end = story.play().max(10.0);
        story.end_attrs();
        story.at(end + 0.5, Fact::RunEnded { exit: 0 });
        story.until(end * 1.2 * cut)
    })
}

fn arb_failure() -> impl Strategy<Value = Failure> {
    let class = prop_oneof![Just(Class::Build), Just(Class::Eval), Just(Class::Cancelled), Just(Class::NoBuilder)];
    (class, "\\PC{0,12}|error: exit code 3\n/nix/store/x").prop_map(|(class, text)| story::failure(class, &text))
}

fn arb_status() -> impl Strategy<Value = Status> {
    use Status as S;
    prop::sample::select(vec![
        S::Built,
        S::Cached,
        S::Valid,
        S::Failed,
        S::EvalFailed,
        S::Skipped,
        S::ToBuild,
        S::ToFetch,
    ])
}

/// Facts about few things, in no sense or order.
fn arb_fact() -> BoxedStrategy<Fact> {
    let attr = || (0..3_u32).prop_map(AttrId);
    let drv = || (0..5_u32).prop_map(DrvId);
    let attempt = || (0..6_u32).prop_map(AttemptId);
    let cache = || (0..2_u32).prop_map(CacheId);
    let builder = || (0..2_u32).prop_map(BuilderId);
    let text = || "[a-z/ \u{1b}\u{e9}-]{0,9}".prop_map(|text: String| drover::event::Text::from(text));
    let stage = || prop::sample::select(vec![Stage::Eval, Stage::Diff, Stage::Build, Stage::Push, Stage::Record]);
    let outcome = prop_oneof![
        Just(DrvOutcome::Built),
        Just(DrvOutcome::Fetched),
        Just(DrvOutcome::Cancelled),
        arb_failure().prop_map(DrvOutcome::Failed),
        drv().prop_map(|root| DrvOutcome::DependencyFailed { root }),
    ];
    let end = prop_oneof![
        Just(AttemptEnd::Built { outputs: vec![] }),
        Just(AttemptEnd::AlreadyValid { outputs: vec![OutputPath { name: "out".into(), path: None }] }),
        arb_failure().prop_map(AttemptEnd::Failed),
    ];
    let pushed = prop_oneof![
        any::<u64>().prop_map(|file_size| Pushed::Uploaded { file_size }),
        Just(Pushed::Present),
        arb_failure().prop_map(Pushed::Failed),
    ];
    let evaluated = prop_oneof![
        text().prop_map(|drv| Evaluated::Drv {
            drv,
            name: "x".into(),
            system: "s".into(),
            outputs: vec![OutputPath { name: "out".into(), path: None }],
            position: None
        }),
        arb_failure().prop_map(Evaluated::Failed),
        text().prop_map(|reason| Evaluated::Nothing { reason }),
    ];
    prop_oneof![
        Just(Story::new("run", &["a"]).events().remove(0).fact),
        Just(Fact::FlakeLocked {
            original: ".".into(),
            locked: ".".into(),
            rev: Some("é".into()),
            dirty_files: Some(1),
            recorded: false
        }),
        (builder(), text(), any::<u32>()).prop_map(|(builder, name, slots)| Fact::BuilderReady {
            builder,
            name,
            slots,
            systems: vec!["s".into()],
            features: Vec::new(),
            speed: None,
            named_in: None
        }),
        (cache(), text(), any::<bool>()).prop_map(|(cache, name, push)| Fact::CacheReady {
            cache,
            name,
            url: "u".into(),
            pull: true,
            push,
            optional: false,
            asked: false,
            sick: false,
        }),
        stage().prop_map(|stage| Fact::StageStarted { stage }),
        stage().prop_map(|stage| Fact::StageEnded { stage }),
        (attr(), text()).prop_map(|(attr, name)| Fact::AttrListed {
            attr,
            path: "checks.s.x".parse().unwrap(),
            kind: Kind::Checks,
            name
        }),
        (attr(), any::<u32>()).prop_map(|(attr, worker)| Fact::EvalStarted { attr, worker }),
        (attr(), evaluated).prop_map(|(attr, evaluated)| Fact::EvalEnded { attr, evaluated, peak: None, grown: None }),
        text().prop_map(|message| Fact::EvalWarning { attr: None, message }),
        (attr(), arb_status(), proptest::option::of(drv()), any::<u32>())
            .prop_map(|(attr, status, drv, builds)| Fact::AttrPlanned { attr, status, drv, builds }),
        (drv(), proptest::collection::vec(drv(), 0..3), any::<bool>(), proptest::option::of(attr()), any::<f64>())
            .prop_map(|(drv, inputs, fetch, attr, expected)| Fact::DrvNeeded {
                drv,
                path: "/nix/store/x.drv".into(),
                name: "x-1".into(),
                system: "s".into(),
                inputs,
                fetch,
                opaque: false,
                features: Vec::new(),
                attr,
                expected: Some(expected),
                outputs: vec![]
            }),
        (attempt(), drv(), builder()).prop_map(|(attempt, drv, builder)| Fact::AttemptStarted {
            attempt,
            drv,
            builder
        }),
        (attempt(), text()).prop_map(|(attempt, reason)| Fact::AttemptWaiting { attempt, reason }),
        attempt().prop_map(|attempt| Fact::AttemptBuilding { attempt }),
        (attempt(), end, any::<u64>()).prop_map(|(attempt, end, log_lines)| Fact::AttemptEnded {
            attempt,
            end,
            log_lines,
            log_tail: vec!["a\u{1b}[2J".into()]
        }),
        drv().prop_map(|drv| Fact::FetchStarted { drv }),
        drv().prop_map(|drv| Fact::FetchEnded { drv, failure: None }),
        (drv(), outcome).prop_map(|(drv, outcome)| Fact::DrvEnded { drv, outcome }),
        (attr(), arb_status(), proptest::option::of(drv()), proptest::option::of(text()))
            .prop_map(|(attr, status, root, reason)| Fact::AttrEnded { attr, status, reason, root }),
        (cache(), text(), any::<u64>()).prop_map(|(cache, path, nar_size)| Fact::PushQueued { cache, path, nar_size }),
        (cache(), text()).prop_map(|(cache, path)| Fact::PushStarted { cache, path }),
        (cache(), text(), pushed).prop_map(|(cache, path, pushed)| Fact::PushEnded { cache, path, pushed }),
        (cache(), text()).prop_map(|(cache, path)| Fact::PushVerified { cache, present: 1, missing: vec![path] }),
        (cache(), text(), text()).prop_map(|(cache, path, user)| Fact::PushLeftOut {
            cache,
            paths: vec![path],
            without: vec![user]
        }),
        text().prop_map(|message| Fact::Warning { message, hint: None }),
        arb_farm_fact(),
        any::<u8>().prop_map(|level| Fact::Cancelled { level }),
        any::<u8>().prop_map(|exit| Fact::RunEnded { exit }),
    ]
    .boxed()
}

/// Facts about builders that come and go, in no sense or order.
fn arb_farm_fact() -> BoxedStrategy<Fact> {
    let drv = || (0..5_u32).prop_map(DrvId);
    let attempt = || (0..6_u32).prop_map(AttemptId);
    let builder = || (0..3_u32).prop_map(BuilderId);
    let text = || "[a-z: \u{1b}\u{e9}-]{0,9}".prop_map(|text: String| drover::event::Text::from(text));
    let seconds = || proptest::option::of(prop_oneof![any::<f64>(), 0.0..100.0_f64]);
    prop_oneof![
        (builder(), arb_failure(), any::<u32>(), seconds(), proptest::option::of(text())).prop_map(
            |(builder, failure, running, again, hint)| Fact::BuilderSuspended {
                builder,
                name: "b".into(),
                failure,
                running,
                again,
                hint
            }
        ),
        (builder(), proptest::option::of(text())).prop_map(|(builder, reason)| Fact::BuilderPaused { builder, reason }),
        (builder(), seconds(), any::<u64>()).prop_map(|(builder, cpu, disk)| Fact::BuilderLoad {
            builder,
            cpu,
            memory: None,
            disk_free: Some(disk)
        }),
        (builder(), any::<u32>()).prop_map(|(builder, asked)| Fact::BuilderAsked { builder, asked, valid: 1 }),
        (attempt(), any::<u64>()).prop_map(|(attempt, nar_size)| Fact::AttemptBringing { attempt, paths: 1, nar_size }),
        (attempt(), any::<u64>()).prop_map(|(attempt, copied_size)| Fact::AttemptPrepared {
            attempt,
            copied: 1,
            copied_size,
            fetched: 0
        }),
        (drv(), builder()).prop_map(|(drv, builder)| Fact::ResultsReturning { drv, builder }),
        (drv(), any::<u64>(), proptest::option::of(arb_failure()))
            .prop_map(|(drv, nar_size, failure)| Fact::ResultsReturned { drv, paths: 1, nar_size, failure }),
        (drv(), any::<u64>()).prop_map(|(drv, nar_size)| Fact::DrvSized { drv, nar_size }),
        any::<bool>().prop_map(|fails| Fact::FlakeFinding {
            about: "flake.lock".into(),
            message: "old".into(),
            position: None,
            hint: None,
            fails,
        }),
        (0..4_u32).prop_map(|attr| Fact::AttrQuarantined {
            attr: AttrId(attr),
            name: "a".into(),
            reason: "b".into(),
            ticket: None,
            expires: "2026-12-24".into(),
        }),
        (any::<bool>(), any::<u32>()).prop_map(|(ok, quarters)| Fact::NixChecked {
            ok,
            error: None,
            seconds: f64::from(quarters) / 4.0
        }),
        (text(), proptest::option::of(text())).prop_map(|(name, branch)| Fact::RunPlaced {
            forge: None,
            repository: Some(name),
            branch,
            change: None,
            url: None,
        }),
        (text(), text()).prop_map(|(name, rev)| Fact::InputsLocked { inputs: vec![LockedInput { name, rev }] }),
        (attempt(), any::<u32>())
            .prop_map(|(attempt, quarters)| Fact::AttemptMeasured { attempt, cpu: f64::from(quarters) / 4.0 }),
        (0..4_u32, any::<u32>(), any::<u64>()).prop_map(|(attr, paths, nar_size)| Fact::ClosureSized {
            attr: AttrId(attr),
            paths,
            nar_size
        }),
        (0..3_u32, text(), any::<u32>()).prop_map(|(cache, reason, requests)| Fact::CacheRepeated {
            cache: CacheId(cache),
            reason,
            requests,
            waited: f64::from(requests) / 4.0
        }),
        (any::<u32>(), any::<u64>(), any::<f64>()).prop_map(|(known, nar_size, seconds)| Fact::CachesSpared {
            drvs: known,
            known,
            seconds,
            paths: 1,
            nar_size
        }),
        (builder(), text(), proptest::option::of(text())).prop_map(|(builder, path, until)| Fact::OutputsKept {
            builder,
            paths: vec![path],
            until,
            reason: None
        }),
        (builder(), any::<u32>(), seconds()).prop_map(|(builder, slots, speed)| Fact::BuilderReady {
            builder,
            name: "b".into(),
            slots,
            systems: vec!["s".into()],
            features: vec!["kvm".into()],
            speed,
            named_in: Some("x".into())
        }),
    ]
    .boxed()
}

fn arb_garbage() -> impl Strategy<Value = Vec<Event>> {
    let moment = prop_oneof![9 => 0..50_000_000_u64, 1 => any::<u64>()];
    proptest::collection::vec((moment, arb_fact()), 0..60).prop_map(|facts| {
        facts.into_iter().enumerate().map(|(seq, (at, fact))| Event { seq: seq as u64, at: Moment(at), fact }).collect()
    })
}

/// Every screen of a stream, for the sake of those that would panic.
fn look_at_everything(events: &[Event], width: usize) {
    let summary = Summary::of(events);
    let mut settings = Settings {
        mode: Mode::Plain,
        style: Style { colour: true, ..Style::default() },
        width: Some(width),
        verbose: true,
        pushes: true,
        fail_fast: false,
        run: "01KAJX3M".into(),
        report: None,
        marks: drover::ui::Marks::None,
    };
    for mode in [Mode::Plain, Mode::Quiet] {
        settings.mode = mode;
        let mut ui = Ui::new(settings.clone(), Box::new(std::io::sink()));
        for event in events {
            ui.on_event(event);
            ui.tick(event.at);
        }
        ui.finish();
    }
    let mut model = drover::ui::model::Model::default();
    for event in events {
        model.on_event(event, true);
    }
    model.estimate(model.now);
    settings.mode = Mode::Live;
    for (_, notice) in model.take_notices() {
        let _ = drover::ui::live::notice(&model, &notice, &settings, width);
    }
    for line in drover::ui::live::region(&model, model.now, width) {
        assert!(line.width() <= width.max(20), "{width} columns: {line:?}");
    }
    let _ = plan::screen(&summary, width, true);
    let _ = schedule::screen(&summary, width);
    let options = closing::Options { width, verbose: true, run: None, report: None, clock: false };
    let _ = closing::screen(&summary, &options);
    let _ = list::Digest::of(&summary);
    serde_json::to_string(&json::document(&summary)).unwrap();
    let mut history = History::default();
    history.fold(&summary);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sound_streams_add_up_wherever_they_are_cut(events in arb_story(), width in 30..140_usize) {
        check(&events);
        look_at_everything(&events, width);
    }

    #[test]
    fn nonsense_adds_up_too(events in arb_garbage(), width in 0..140_usize) {
        check(&events);
        look_at_everything(&events, width);
    }

    #[test]
    fn what_is_written_is_read_back(facts in proptest::collection::vec(arb_fact(), 0..20)) {
        for (seq, mut fact) in facts.into_iter().enumerate() {
            // JSON has no NaN and no infinities, and serde_json reads fractions to the last bit but one.
            if let Fact::DrvNeeded { expected: number, .. }
            | Fact::BuilderSuspended { again: number, .. }
            | Fact::BuilderReady { speed: number, .. }
            | Fact::BuilderLoad { cpu: number, .. } = &mut fact
            {
                *number = number.filter(|seconds| seconds.is_finite()).map(|seconds| (seconds % 1e6).trunc());
            }
            if let Fact::CachesSpared { seconds, .. } = &mut fact {
                *seconds = if seconds.is_finite() { (*seconds % 1e6).trunc() } else { 0.0 };
            }
            let event = Event { seq: seq as u64, at: Moment(seq as u64), fact };
            let text = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{}", text);
        }
    }
}
