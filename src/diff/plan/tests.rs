//! Tests of the planner: stories by hand; random worlds are in `random`.

mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Decision, Found, PlanPolicy, Planner, Presence, Question, Questions, Totals};
use crate::event::{Class, Failure};
use crate::graph::testing::{drv, output_path};
use crate::graph::{DrvInfo, Graph, Work};
use crate::id::{AttrId, CacheId, DrvId, StorePath};

const VALID: Presence = Presence::Valid;
const PRESENT: Presence = Presence::Present(CacheId(0));

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

/// A planner, its graph, and a world that answers: drvs by number, presences by drv and output; the rest is absent.
struct Story {
    graph: Graph,
    planner: Planner,
    drvs: BTreeMap<StorePath, DrvInfo>,
    facts: BTreeMap<StorePath, Presence>,
    /// What present paths refer to.
    references: BTreeMap<StorePath, Vec<StorePath>>,
    asked: Vec<StorePath>,
}

impl Story {
    fn new(drvs: Vec<DrvInfo>, facts: &[(u32, &str, Presence)]) -> Self {
        Self {
            graph: Graph::new(),
            planner: Planner::new(PlanPolicy::default()),
            drvs: drvs.into_iter().map(|drv| (drv.path.clone(), drv)).collect(),
            facts: facts.iter().map(|(number, output, presence)| (output_path(*number, output), *presence)).collect(),
            references: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    /// The `out` of a drv refers to those of others.
    fn refers(mut self, to: &[(u32, &[u32])]) -> Self {
        for (number, references) in to {
            let references = references.iter().map(|number| output_path(*number, "out")).collect();
            self.references.insert(output_path(*number, "out"), references);
        }
        self
    }

    /// The fetch of a drv fails because of these outputs.
    fn fail_fetch(&mut self, number: u32, culprits: &[u32]) {
        let drv = self.graph.get(&crate::graph::testing::drv_path(number)).unwrap();
        let culprits: Vec<StorePath> = culprits.iter().map(|number| output_path(*number, "out")).collect();
        self.planner.fetch_failed(&self.graph, drv, &culprits);
    }

    fn want(&mut self, attr: u32, number: u32, outputs: &[&str]) {
        let id = self.graph.intern(&crate::graph::testing::drv_path(number));
        self.planner.want(&self.graph, AttrId(attr), id, names(outputs));
    }

    /// Answers every question until there is none, then takes the decisions as texts.
    fn run(&mut self) -> Vec<String> {
        loop {
            let Questions { load, ask } = self.planner.questions(&self.graph);
            if load.is_empty() && ask.is_empty() {
                break;
            }
            for id in &load {
                let info = self.drvs[self.graph.path(*id)].clone();
                self.graph.load(info);
            }
            self.planner.loaded(&self.graph, &load);
            self.asked.extend(ask.iter().map(|question| question.path.clone()));
            let answer = |Question { path, .. }: Question| {
                let presence = self.facts.get(&path).copied().unwrap_or(Presence::Absent);
                let references = self.references.get(&path).cloned().unwrap_or_default();
                Found { references, ..Found::new(path, presence) }
            };
            let answers: Vec<Found> = ask.into_iter().map(answer).collect();
            self.planner.answered(&self.graph, &answers);
        }
        self.decisions()
    }

    fn decisions(&mut self) -> Vec<String> {
        let decisions = self.planner.decisions(&self.graph);
        decisions.iter().map(|decision| self.text(decision)).collect()
    }

    fn name(&self, id: DrvId) -> String {
        self.graph.path(id).name().trim_end_matches(".drv").to_owned()
    }

    fn text(&self, decision: &Decision) -> String {
        match decision {
            Decision::Item { drv, work: Work::Build, inputs, .. } => {
                let inputs: Vec<String> = inputs.iter().map(|input| self.name(*input)).collect();
                format!("build {} [{}]", self.name(*drv), inputs.join(" "))
            }
            Decision::Item { drv, work: Work::Fetch, inputs, .. } => {
                let paths: Vec<&str> = self.planner.fetches(*drv).map(|(path, _)| path.name()).collect();
                let after: Vec<String> = inputs.iter().map(|input| self.name(*input)).collect();
                let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(" ")) };
                format!("fetch {} ({}){after}", self.name(*drv), paths.join(" "))
            }
            Decision::Unreadable { drv, .. } => format!("unreadable {}", self.name(*drv)),
            Decision::Attr { attr, status, builds, .. } => format!("attr {} {status:?} {builds}", attr.0),
        }
    }
}

#[test]
fn inputs_are_looked_at_only_when_their_user_must_be_built() {
    let drvs = vec![
        drv(0, &["out"], &[]),
        drv(1, &["out"], &[(0, &["out"])]),
        drv(2, &["out"], &[(1, &["out"])]),
        drv(3, &["out"], &[(2, &["out"])]),
    ];
    let mut story = Story::new(drvs, &[(1, "out", VALID)]);
    story.want(0, 3, &["out"]);
    assert_eq!(story.run(), ["build d2 []", "build d3 [d2]", "attr 0 ToBuild 2"]);
    assert_eq!(story.asked, [output_path(3, "out"), output_path(2, "out"), output_path(1, "out")]);
    let totals = Totals { paths: 3, valid: 1, absent: 2, ..Totals::default() };
    assert_eq!(story.planner.totals(), totals);
    assert!(story.planner.is_idle() && story.planner.undecided().next().is_none());
}

#[test]
fn what_a_cache_has_stays_there_unless_a_build_needs_it() {
    let drvs = vec![drv(0, &["out"], &[]), drv(1, &["out"], &[(0, &["out"])])];
    let mut story = Story::new(drvs.clone(), &[(0, "out", PRESENT)]);
    story.want(0, 0, &["out"]);
    assert_eq!(story.run(), ["attr 0 ToFetch 0"]);
    story.want(1, 1, &["out"]);
    assert_eq!(story.run(), ["fetch d0 (d0-out)", "build d1 [d0]", "attr 1 ToBuild 1"]);

    let mut story = Story::new(drvs, &[(0, "out", PRESENT)]);
    story.planner = Planner::new(PlanPolicy { fetch_roots: true });
    story.want(0, 0, &["out"]);
    assert_eq!(story.run(), ["fetch d0 (d0-out)", "attr 0 ToFetch 0"]);
}

#[test]
fn an_absent_output_that_nobody_wants_builds_nothing() {
    let drvs = vec![drv(0, &["out", "dev"], &[]), drv(1, &["out"], &[(0, &["dev"])])];
    let mut story = Story::new(drvs, &[(0, "dev", VALID)]);
    story.want(0, 1, &["out"]);
    assert_eq!(story.run(), ["build d1 []", "attr 0 ToBuild 1"]);
    assert!(!story.asked.contains(&output_path(0, "out")));
}

#[test]
fn a_later_user_turns_a_fetch_into_a_build() {
    let drvs = || {
        vec![
            drv(0, &["out", "dev", "lib"], &[(3, &["out"])]),
            drv(1, &["out"], &[(0, &["dev"])]),
            drv(2, &["out"], &[(0, &["out"])]),
            drv(3, &["out"], &[]),
            drv(4, &["out"], &[(0, &["lib"])]),
        ]
    };
    let facts = [(0, "dev", PRESENT), (0, "lib", PRESENT)];
    let mut after = Story::new(drvs(), &facts);
    after.want(0, 1, &["out"]);
    assert_eq!(after.run(), ["fetch d0 (d0-dev)", "build d1 [d0]", "attr 0 ToBuild 1"]);
    after.want(1, 4, &["out"]);
    assert_eq!(after.run(), ["fetch d0 (d0-dev d0-lib)", "build d4 [d0]", "attr 1 ToBuild 1"]);
    after.want(2, 2, &["out"]);
    assert_eq!(after.run(), ["build d3 []", "build d0 [d3]", "build d2 [d0]", "attr 2 ToBuild 3"]);

    let mut before = Story::new(drvs(), &facts);
    before.want(0, 1, &["out"]);
    before.want(2, 2, &["out"]);
    let expected =
        ["build d3 []", "build d0 [d3]", "build d1 [d0]", "attr 0 ToBuild 1", "build d2 [d0]", "attr 2 ToBuild 3"];
    assert_eq!(before.run(), expected);
}

#[test]
fn a_user_of_a_valid_output_does_not_wait_for_the_build_of_another() {
    let drvs = vec![
        drv(0, &["out", "dev"], &[]),
        drv(1, &["out"], &[(0, &["dev"])]),
        drv(2, &["out"], &[(0, &["out"]), (1, &["out"])]),
    ];
    let mut story = Story::new(drvs, &[(0, "dev", VALID)]);
    story.want(0, 2, &["out"]);
    assert_eq!(story.run(), ["build d0 []", "build d1 []", "build d2 [d0 d1]", "attr 0 ToBuild 3"]);
}

#[test]
fn untrusted_and_unanswered_paths_are_built_and_counted() {
    let drvs = vec![drv(0, &["out"], &[]), drv(1, &["out"], &[])];
    let mut story = Story::new(drvs, &[(0, "out", Presence::Untrusted), (1, "out", Presence::NoAnswer)]);
    story.want(0, 0, &["out"]);
    story.want(1, 1, &["out"]);
    assert_eq!(story.run(), ["build d0 []", "attr 0 ToBuild 1", "build d1 []", "attr 1 ToBuild 1"]);
    assert_eq!(story.planner.totals(), Totals { paths: 2, untrusted: 1, no_answer: 1, ..Totals::default() });
}

#[test]
fn an_opaque_drv_is_built_and_its_known_inputs_are_planned() {
    let mut floating = drv(1, &["out"], &[(0, &["out"])]);
    floating.outputs[0].path = None;
    let mut deferred = drv(2, &["out"], &[(1, &["out"])]);
    deferred.outputs[0].path = None;
    let mut story = Story::new(vec![drv(0, &["out"], &[]), floating, deferred], &[(0, "out", PRESENT)]);
    story.want(0, 2, &["out"]);
    assert_eq!(story.run(), ["fetch d0 (d0-out)", "build d1 [d0]", "build d2 [d1]", "attr 0 ToBuild 2"]);
    assert_eq!(story.asked, [output_path(0, "out")]);
}

#[test]
fn only_the_store_is_asked_for_what_must_not_be_substituted() {
    let mut local = drv(0, &["out"], &[]);
    local.substitutes = false;
    let mut story = Story::new(vec![local.clone()], &[]);
    story.graph.load(local);
    story.want(0, 0, &["out"]);
    let questions = story.planner.questions(&story.graph);
    assert_eq!(questions.load, []);
    assert_eq!(questions.ask, [Question { path: output_path(0, "out"), caches: false }]);
    assert_eq!(story.planner.questions(&story.graph), Questions::default());
    assert!(!story.planner.is_idle());
}

#[test]
fn a_failed_fetch_brings_its_drv_and_what_that_needs() {
    let drvs = vec![drv(0, &["out"], &[]), drv(1, &["out"], &[(0, &["out"])]), drv(2, &["out"], &[(1, &["out"])])];
    let mut story = Story::new(drvs, &[(0, "out", PRESENT), (1, "out", PRESENT)]);
    story.want(0, 2, &["out"]);
    assert_eq!(story.run(), ["fetch d1 (d1-out)", "build d2 [d1]", "attr 0 ToBuild 1"]);
    story.fail_fetch(1, &[1]);
    assert_eq!(story.decisions(), Vec::<String>::new());
    assert_eq!(story.run(), ["fetch d0 (d0-out)", "build d1 [d0]"]);
    assert_eq!(story.planner.totals(), Totals { paths: 3, present: 1, absent: 2, ..Totals::default() });
}

#[test]
fn what_was_valid_on_a_builder_that_went_away_is_planned_after_all() {
    let drvs = vec![drv(0, &["out"], &[]), drv(1, &["out"], &[(0, &["out"])]), drv(2, &["out"], &[(1, &["out"])])];
    let mut story = Story::new(drvs, &[(1, "out", Presence::Valid)]);
    story.want(0, 2, &["out"]);
    assert_eq!(story.run(), ["build d2 []", "attr 0 ToBuild 1"]);
    story.fail_fetch(1, &[1]);
    assert_eq!(story.run(), ["build d0 []", "build d1 [d0]"]);
    // Whoever comes now waits for it, too.
    story.want(1, 1, &["out"]);
    assert_eq!(story.run(), ["attr 1 ToBuild 2"]);
    assert_eq!(story.planner.totals(), Totals { paths: 3, absent: 3, ..Totals::default() });
}

#[test]
fn an_unreadable_drv_comes_in_the_place_of_its_item() {
    let drvs = vec![drv(1, &["out"], &[(0, &["out"])])];
    let mut story = Story::new(drvs, &[]);
    let broken = story.graph.intern(&crate::graph::testing::drv_path(0));
    let failure = Failure::new(Class::Internal, Arc::from("not a derivation"));
    story.planner.load_failed(&story.graph, broken, failure);
    story.want(0, 1, &["out"]);
    assert_eq!(story.run(), ["unreadable d0", "build d1 [d0]", "attr 0 ToBuild 1"]);
    story.want(1, 0, &["out"]);
    assert_eq!(story.run(), ["attr 1 Failed 0"]);
}

#[test]
fn roots_that_share_a_subgraph_get_its_items_once() {
    let drvs = vec![drv(0, &["out"], &[]), drv(1, &["out"], &[(0, &["out"])]), drv(2, &["out"], &[(0, &["out"])])];
    let mut story = Story::new(drvs, &[]);
    story.want(0, 1, &["out"]);
    story.want(1, 2, &["out"]);
    story.want(2, 2, &["out"]);
    let expected =
        ["build d0 []", "build d1 [d0]", "attr 0 ToBuild 2", "build d2 [d0]", "attr 1 ToBuild 2", "attr 2 ToBuild 2"];
    assert_eq!(story.run(), expected);
    assert_eq!(story.asked.len(), 3);
}

#[test]
fn an_output_that_does_not_exist_cannot_be_had_without_building() {
    let mut story = Story::new(vec![drv(0, &["out"], &[])], &[(0, "out", VALID)]);
    story.want(0, 0, &["doc", "out"]);
    assert_eq!(story.run(), ["build d0 []", "attr 0 ToBuild 1"]);
}

#[test]
fn a_ring_leaves_its_attr_undecided_and_the_planner_idle() {
    let drvs = vec![drv(0, &["out"], &[(1, &["out"])]), drv(1, &["out"], &[(0, &["out"])])];
    let mut story = Story::new(drvs, &[]);
    story.want(0, 0, &["out"]);
    assert_eq!(story.run(), Vec::<String>::new());
    assert!(story.planner.is_idle());
    assert_eq!(story.planner.undecided().collect::<Vec<_>>(), [AttrId(0)]);
}

#[test]
fn a_long_chain_of_missing_drvs_needs_no_deep_stack() {
    let info = |at: u32| {
        drv(at, &["out"], &at.checked_sub(1).map(|below| (below, &["out"][..])).into_iter().collect::<Vec<_>>())
    };
    let mut story = Story::new(Vec::new(), &[]);
    for at in 0..50_000 {
        story.graph.load(info(at));
    }
    let answers: Vec<Found> = (0..50_000).map(|at| Found::new(output_path(at, "out"), Presence::Absent)).collect();
    story.planner.answered(&story.graph, &answers);
    story.want(0, 49_999, &["out"]);
    let decisions = story.run();
    assert_eq!((decisions.len(), decisions.last().map(String::as_str)), (50_001, Some("attr 0 ToBuild 50000")));
    assert!(story.asked.is_empty(), "all was answered before it was asked");
}

/// d3 → d2 → d1 → d0, each output present and referring to the one below it.
fn tower(facts: &[(u32, &str, Presence)]) -> Story {
    let below = |at: u32| at.checked_sub(1).map(|below| (below, &["out"][..])).into_iter().collect::<Vec<_>>();
    let mut all: Vec<(u32, &str, Presence)> = (0..4).map(|at| (at, "out", PRESENT)).collect();
    all.extend(facts);
    let story = Story::new((0..4).map(|at| drv(at, &["out"], &below(at))).collect(), &all);
    story.refers(&[(3, &[3, 2]), (2, &[1]), (1, &[0])])
}

#[test]
fn what_is_fetched_is_asked_for_with_all_that_it_refers_to() {
    let mut story = tower(&[(0, "out", VALID)]);
    story.planner = Planner::new(PlanPolicy { fetch_roots: true });
    story.want(0, 3, &["out"]);
    assert_eq!(story.run(), ["fetch d3 (d3-out)", "attr 0 ToFetch 0"]);
    assert_eq!(story.asked.len(), 4);
    let brought: Vec<String> = story.planner.brought().iter().map(|brought| brought.path.name().to_owned()).collect();
    assert_eq!(brought, ["d1-out", "d2-out", "d3-out"]);
    assert_eq!(story.planner.totals(), Totals { paths: 4, valid: 1, present: 3, ..Totals::default() });
}

#[test]
fn what_a_present_path_lacks_is_built_and_nothing_else() {
    for lost in [Presence::Absent, Presence::Untrusted, Presence::NoAnswer] {
        let mut story = tower(&[(1, "out", lost)]);
        story.planner = Planner::new(PlanPolicy { fetch_roots: true });
        story.want(0, 3, &["out"]);
        let expected = ["fetch d0 (d0-out)", "build d1 [d0]", "fetch d3 (d3-out) after d1", "attr 0 ToBuild 1"];
        assert_eq!(story.run(), expected);
    }
}

#[test]
fn what_only_its_own_drv_can_make_is_built_by_it() {
    let drvs = vec![drv(0, &["dev", "out"], &[]), drv(1, &["out"], &[(0, &["out"])])];
    let mut story = Story::new(drvs, &[(0, "out", PRESENT)]);
    story.references.insert(output_path(0, "out"), vec![output_path(0, "dev")]);
    story.want(0, 1, &["out"]);
    assert_eq!(story.run(), ["build d0 []", "build d1 [d0]", "attr 0 ToBuild 2"]);
}

#[test]
fn what_nobody_below_makes_is_not_waited_for() {
    let mut story = tower(&[]).refers(&[(2, &[9])]);
    story.want(0, 3, &["out"]);
    assert_eq!(story.run(), ["fetch d1 (d1-out)", "build d2 [d1]", "build d3 [d2]", "attr 0 ToBuild 2"]);
}

#[test]
fn records_in_a_ring_are_as_good_as_none() {
    let mut story = tower(&[]).refers(&[(1, &[2])]);
    story.want(0, 3, &["out"]);
    let expected =
        ["fetch d0 (d0-out)", "build d1 [d0]", "build d2 [d1]", "fetch d3 (d3-out) after d2", "attr 0 ToBuild 2"];
    assert_eq!(story.run(), expected);
}

#[test]
fn a_fetch_that_failed_below_builds_only_what_was_gone() {
    let mut story = tower(&[]);
    story.planner = Planner::new(PlanPolicy { fetch_roots: true });
    story.want(0, 3, &["out"]);
    assert_eq!(story.run(), ["fetch d3 (d3-out)", "attr 0 ToFetch 0"]);
    story.fail_fetch(3, &[1]);
    assert_eq!(story.run(), ["fetch d0 (d0-out)", "build d1 [d0]", "fetch d3 (d3-out) after d1"]);
    // Nobody can say why: then it is built.
    story.fail_fetch(3, &[]);
    assert_eq!(story.run(), ["fetch d2 (d2-out) after d1", "build d3 [d2]"]);
}

#[test]
fn a_reference_may_come_from_a_cache_that_its_own_drv_must_not_ask() {
    let mut local = drv(0, &["out"], &[]);
    local.substitutes = false;
    let drvs = vec![local, drv(1, &["out"], &[(0, &["out"])]), drv(2, &["out"], &[(0, &["out"]), (1, &["out"])])];
    let mut story = Story::new(drvs, &[(0, "out", PRESENT), (1, "out", PRESENT)]).refers(&[(1, &[0])]);
    story.want(0, 2, &["out"]);
    assert_eq!(story.run(), ["build d0 []", "fetch d1 (d1-out)", "build d2 [d0 d1]", "attr 0 ToBuild 2"]);
}

/// How many round trips to caches a plan takes, and how many paths are asked in them; .drv files are read and the store
/// answers in no time. `ahead`: the planner hears that caches are asked.
fn round_trips(story: &mut Story, ahead: bool) -> (usize, usize) {
    let (mut trips, mut asked) = (0, 0);
    loop {
        let mut trip = Vec::new();
        loop {
            let questions = story.planner.questions(&story.graph);
            if questions == Questions::default() {
                break;
            }
            for id in &questions.load {
                let info = story.drvs[story.graph.path(*id)].clone();
                story.graph.load(info);
            }
            story.planner.loaded(&story.graph, &questions.load);
            let paths: Vec<StorePath> = questions.ask.into_iter().map(|question| question.path).collect();
            if ahead {
                story.planner.waits_for_caches(&paths);
            }
            trip.extend(paths);
        }
        if trip.is_empty() {
            return (trips, asked);
        }
        trips += 1;
        asked += trip.len();
        let presence = |path: &StorePath| story.facts.get(path).copied().unwrap_or(Presence::Absent);
        let answers: Vec<Found> = trip.into_iter().map(|path| Found::new(path.clone(), presence(&path))).collect();
        story.planner.answered(&story.graph, &answers);
    }
}

#[test]
fn a_chain_costs_few_round_trips_and_few_questions_in_vain() {
    // Of 120 in a row the upper 40 are absent; each has a source of its own.
    let mut drvs = Vec::new();
    let mut facts = Vec::new();
    for at in 0..120_u32 {
        let below: &[(u32, &[&str])] = &[(at + 200, &["out"]), (at.saturating_sub(1), &["out"])];
        drvs.push(drv(at, &["out"], if at == 0 { &below[..1] } else { below }));
        drvs.push(DrvInfo { fixed_output: true, ..drv(at + 200, &["out"], &[]) });
        facts.push((at + 200, "out", PRESENT));
        if at < 80 {
            facts.push((at, "out", PRESENT));
        }
    }
    let plan = |ahead: bool| {
        let mut story = Story::new(drvs.clone(), &facts);
        story.want(0, 119, &["out"]);
        let (trips, asked) = round_trips(&mut story, ahead);
        (trips, asked, story.decisions())
    };
    let (exact_trips, exact_asked, exact) = plan(false);
    assert_eq!((exact_trips, exact_asked), (41, 81));
    let (trips, asked, decisions) = plan(true);
    assert_eq!(decisions, exact);
    assert!(trips <= 8, "{trips} round trips");
    assert!(asked <= exact_asked + 48, "{asked} questions");
}

#[test]
fn where_nobody_asks_caches_nothing_is_asked_ahead() {
    let drvs = vec![drv(0, &["out"], &[]), drv(1, &["out"], &[(0, &["out"])]), drv(2, &["out"], &[(1, &["out"])])];
    let mut story = Story::new(drvs, &[(2, "out", VALID)]);
    story.want(0, 2, &["out"]);
    assert_eq!(round_trips(&mut story, false), (1, 1));
}
