//! The gate on histories of which it is known what was planted into them.

use super::testing::run;
use super::*;
use crate::id::Kind;
use crate::record::history::{AttrTimes, Build};

/// Numbers that look random and are the same each time (xorshift64*, Vigna 2016).
struct Noise(u64);

impl Noise {
    /// Evenly between 0 and 1, neither of them.
    fn even(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Of a normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.even().ln()).sqrt() * (std::f64::consts::TAU * self.even()).cos()
    }

    /// A factor of a run: log-normal with σ = 5 %.
    fn usual(&mut self) -> f64 {
        (0.05 * self.normal()).exp()
    }

    /// As far spread, with heavier tails: Student's distribution with three degrees of freedom.
    fn heavy(&mut self) -> f64 {
        let squares: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        (0.05 / 3.0_f64.sqrt() * self.normal() / (squares / 3.0).sqrt()).exp()
    }

    /// As `usual`, and one run in ten takes up to twice as long.
    fn stumbling(&mut self) -> f64 {
        let slow = if self.even() < 0.1 { 1.0 + self.even() } else { 1.0 };
        self.usual() * slow
    }
}

fn rule(metrics: &[&'static str]) -> Rule {
    Rule { baseline: "main".into(), max_regression: 0.10, metrics: metrics.to_vec() }
}

/// Of so many histories with 8 runs a side, the share that the gate refuses.
fn refused(seed: u64, mut time: impl FnMut(&mut Noise, usize) -> f64) -> f64 {
    const HISTORIES: usize = 800;
    let mut noise = Noise(seed);
    let refused = (0..HISTORIES).filter(|_| {
        let before: Vec<Entry> = (0..8).map(|i| run(time(&mut noise, i))).collect();
        let now: Vec<Entry> = (8..16).map(|i| run(time(&mut noise, i))).collect();
        !gate(&before, &now, &rule(&["duration"])).holds()
    });
    refused.count() as f64 / HISTORIES as f64
}

fn shifted(run: usize, by: f64) -> f64 {
    if run < 8 { 432.0 } else { 432.0 * (1.0 + by) }
}

#[test]
fn what_is_as_fast_as_before_is_not_refused() {
    assert!(refused(1, |noise, run| shifted(run, 0.0) * noise.usual()) <= 0.01);
    assert!(refused(2, |noise, run| shifted(run, 0.0) * noise.heavy()) <= 0.01, "heavy tails");
    assert!(refused(12, |noise, run| shifted(run, 0.0) * noise.stumbling()) <= 0.01, "slow runs");
    assert!(refused(3, |noise, run| shifted(run, 0.0) * (1.0 + 0.004 * run as f64) * noise.usual()) <= 0.01, "drift");
}

#[test]
fn what_is_slower_by_half_of_what_is_allowed_is_not_refused() {
    assert!(refused(4, |noise, run| shifted(run, 0.05) * noise.usual()) <= 0.01);
    assert!(refused(5, |noise, run| shifted(run, 0.05) * noise.heavy()) <= 0.01, "heavy tails");
    assert!(refused(13, |noise, run| shifted(run, 0.05) * noise.stumbling()) <= 0.01, "slow runs");
}

#[test]
fn what_is_slower_by_twice_of_what_is_allowed_is_refused() {
    assert!(refused(6, |noise, run| shifted(run, 0.20) * noise.usual()) >= 0.95);
    assert!(refused(7, |noise, run| shifted(run, 0.20) * noise.heavy()) >= 0.95, "heavy tails");
    let drift = |noise: &mut Noise, run: usize| shifted(run, 0.20) * (1.0 + 0.004 * run as f64) * noise.usual();
    assert!(refused(8, drift) >= 0.95, "drift");
}

#[test]
fn what_is_just_what_is_allowed_may_go_either_way() {
    let share = refused(9, |noise, run| shifted(run, 0.10) * noise.usual());
    assert!(share < 0.6, "{share}");
}

#[test]
fn few_runs_judge_no_time_and_any_counter() {
    let before: Vec<Entry> = (0..8).map(|_| run(432.0)).collect();
    let mut slow = run(900.0);
    let held = gate(&before, std::slice::from_ref(&slow), &rule(&["duration"]));
    assert!(held.holds());
    let Judgement::Unsure(why) = &held.verdicts[0].outcome else { panic!("{held:?}") };
    assert_eq!(why, "5 runs of each side are needed to judge a time: 1 here");
    slow.counters.built = 14;
    assert!(!gate(&before, std::slice::from_ref(&slow), &rule(&["built"])).holds());
    slow.counters.built = 13;
    assert!(gate(&before, std::slice::from_ref(&slow), &rule(&["built"])).holds());
    slow.counters.paths_hit = 75;
    assert!(!gate(&before, &[slow], &rule(&["hit-rate"])).holds());
}

fn host(name: &str, closure: u64) -> AttrTimes {
    AttrTimes {
        attr: format!("nixosConfigurations.{name}").parse().unwrap(),
        kind: Kind::NixosConfigurations,
        name: name.into(),
        status: None,
        drv: None,
        eval: None,
        ended: None,
        closure: Some(closure),
        difference: None,
    }
}

/// A run that builds one host knows one closure; that others have not been built makes nothing smaller.
#[test]
fn closures_are_compared_attr_by_attr() {
    let side = |hosts: Vec<AttrTimes>| Entry { attrs: hosts, ..run(1.0) };
    let before = [side(vec![host("web1", 100), host("web2", 900)]), side(vec![host("web2", 900)])];
    let verdict = |now: Vec<AttrTimes>| gate(&before, &[side(now)], &rule(&["closure"])).verdicts.remove(0);
    let same = verdict(vec![host("web1", 105)]);
    assert_eq!((same.before, same.now, &same.outcome), (Some(100.0), Some(105.0), &Judgement::Fine));
    assert_eq!(verdict(vec![host("web1", 120)]).outcome, Judgement::Worse);
    assert!(matches!(verdict(vec![host("db1", 5)]).outcome, Judgement::Unsure(_)));
}

#[test]
fn nothing_became_something() {
    let mut before = run(1.0);
    before.counters.retries = 0;
    let mut now = before.clone();
    assert!(gate(std::slice::from_ref(&before), std::slice::from_ref(&now), &rule(&["retries"])).holds());
    now.counters.retries = 1;
    assert!(!gate(&[before], &[now], &rule(&["retries"])).holds());
    let none = gate(&[], &[run(1.0)], &rule(&["retries"]));
    let text = crate::report::text::render(&screen(&none, 100), crate::report::text::Style::default());
    assert!(text.contains("unsure  nothing could be held against main"), "{text}");
    assert!(none.holds() && none.verdicts[0].outcome == Judgement::Unsure("no run of the baseline has it".into()));
}

/// Runs that built much more are no measure of how long a run takes, but their packages are.
#[test]
fn more_work_is_no_slower_machine() {
    let built = |name: &str, seconds: f64| Build {
        drv: format!("{name}.drv"),
        name: name.into(),
        system: crate::id::System("x86_64-linux".into()),
        builder: "local".into(),
        ready: 0.0,
        started: 0.0,
        building: Some(0.0),
        ended: seconds,
        outcome: Outcome::Built,
        cpu: None,
        brought: 0,
        bytes: None,
    };
    let mut noise = Noise(10);
    let mut side = |drvs: u64, factor: f64| -> Vec<Entry> {
        let one = |noise: &mut Noise| {
            let mut entry = run(drvs as f64 * 10.0 * noise.usual());
            entry.counters.to_build = drvs;
            entry.counters.built = 12;
            entry.builds = vec![built("linux-6.12.58", 260.0 * factor * noise.usual()), built("tiny-1", 0.1 * factor)];
            entry
        };
        (0..8).map(|_| one(&mut noise)).collect()
    };
    let (before, more, slower) = (side(12, 1.0), side(1200, 1.0), side(1200, 1.3));
    let held = gate(&before, &more, &rule(&[]));
    assert!(held.holds(), "{held:?}");
    let duration = held.verdicts.iter().find(|verdict| verdict.metric == "duration").unwrap();
    let Judgement::Unsure(why) = &duration.outcome else { panic!("{duration:?}") };
    assert!(why.ends_with("0 on the baseline; the others had much more or less to build"), "{why}");
    let refused = gate(&before, &slower, &rule(&[]));
    let worse: Vec<&str> = refused
        .verdicts
        .iter()
        .filter(|verdict| verdict.outcome == Judgement::Worse)
        .map(|verdict| verdict.metric.as_str())
        .collect();
    assert_eq!(worse, ["build of linux (x86_64-linux)"]);
}

#[test]
fn only_what_came_after_the_latest_jump_is_a_baseline() {
    let mut noise = Noise(11);
    let mut times = |seconds: f64| -> Vec<Entry> { (0..8).map(|_| run(seconds * noise.usual())).collect() };
    let before: Vec<Entry> = times(200.0).into_iter().chain(times(432.0)).collect();
    assert!(gate(&before, &times(432.0), &rule(&["duration"])).holds());
    let before: Vec<Entry> = times(432.0).into_iter().chain(times(200.0)).collect();
    assert!(!gate(&before, &times(300.0), &rule(&["duration"])).holds());
}

#[test]
fn how_it_reads() {
    let mut before: Vec<Entry> = (0..8).map(|i| run(432.0 + f64::from(i))).collect();
    let mut now: Vec<Entry> = (0..8).map(|i| run(520.0 + f64::from(i))).collect();
    before.iter_mut().for_each(|entry| entry.attrs = vec![host("web1", 4 << 30), host("web2", 1 << 30)]);
    now.iter_mut().for_each(|entry| entry.attrs = vec![host("web1", 4_400_000_000)]);
    let gate = gate(&before, &now, &rule(&[]));
    let text = |width| {
        let lines = screen(&gate, width);
        crate::report::text::render(&lines, crate::report::text::Style::default())
    };
    insta::assert_snapshot!("gate_100", text(100));
    insta::assert_snapshot!("gate_60", text(60));
}
