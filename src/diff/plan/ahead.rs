//! Asking ahead, so that depth costs few round trips: while caches are asked for the outputs of some drvs, those of
//! drvs below them are asked too, the likeliest to be wanted first. Pure.
//!
//! A drv's inputs are wanted once it must be built. How likely that is, is the product of how likely each drv on the
//! way down to it is absent, and this is measured: a drv is of one of four [`Kind`]s, and the share of each that turned
//! out absent so far is its chance. Whatever a drv was asked for in vain may cost a tenth of all requests and a few more,
//! so on a long chain the window is wide at once, and among many drvs it goes to where the border seems to be.
//!
//! A guess changes no decision, only when its answer is there: answers that came ahead are held back until somebody
//! wants to know, and count from then on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::facts::PathId;
use super::{Found, Load, Planner, Presence, Question, Questions};
use crate::graph::Graph;
use crate::id::{DrvId, StorePath};

/// Paths that may be asked in vain, whatever the size of the plan.
const FREE: f64 = 32.0;

/// How many may be asked in vain besides, for each that is asked.
const SHARE: f64 = 0.12;

/// What is less likely than this is left alone.
const LEAST: f64 = 0.1;

/// What still counts as a risk where it seems certain that a drv must be built.
const RISK: f64 = 0.02;

/// How many .drv files may be read ahead for each path that may be asked in vain.
const LOADS: f64 = 8.0;

/// What is known of a drv before a cache is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A source: known by its content, seldom rebuilt.
    Fixed,
    /// Something below it is absent.
    Above,
    /// Something that uses it is present.
    Below,
    /// None of these.
    Other,
}

/// How many drvs of one kind were absent, and how many not.
#[derive(Debug, Clone, Copy)]
struct Rate {
    absent: u32,
    other: u32,
}

impl Rate {
    fn chance(self) -> f64 {
        f64::from(self.absent) / f64::from(self.absent + self.other)
    }
}

/// What was seen of one drv.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    above: bool,
    below: bool,
    /// What it was when it was first looked at, before its answer.
    kind: Option<Kind>,
    /// Whether some output was absent, once one is answered.
    absent: Option<bool>,
}

/// A path that was asked before anybody wanted to know.
#[derive(Debug)]
struct Early {
    drv: DrvId,
    /// Held back.
    answer: Option<Found>,
}

/// What was asked ahead, and what is known of chances.
#[derive(Debug)]
pub(super) struct Ahead {
    seen: Vec<Seen>,
    /// By [`Kind`].
    rates: [Rate; 4],
    /// Drvs for whose outputs caches are being asked.
    waiting: Vec<DrvId>,
    /// Paths that nobody wanted to know of so far. For look-ups only; never iterated.
    early: HashMap<PathId, Early>,
    /// .drv files that are being read ahead.
    loading: HashSet<DrvId>,
    /// Paths of which caches were asked.
    asked: u32,
    /// Answers and questions since the last look.
    news: usize,
    /// All .drv files that were being read ahead are there: the look goes on below them.
    is_deeper: bool,
}

impl Default for Ahead {
    fn default() -> Self {
        // To begin with, as if a few had been seen of each kind.
        let rates = [(1, 9), (9, 1), (1, 9), (2, 2)].map(|(absent, other)| Rate { absent, other });
        Self {
            seen: Vec::new(),
            rates,
            waiting: Vec::new(),
            early: HashMap::new(),
            loading: HashSet::new(),
            asked: 0,
            news: 0,
            is_deeper: false,
        }
    }
}

impl Ahead {
    fn of(&self, drv: DrvId) -> Seen {
        self.seen.get(drv.index()).copied().unwrap_or_default()
    }

    fn of_mut(&mut self, drv: DrvId) -> &mut Seen {
        if self.seen.len() <= drv.index() {
            self.seen.resize_with(drv.index() + 1, Seen::default);
        }
        &mut self.seen[drv.index()]
    }

    /// Whether its .drv is being read already; no longer, for whoever waits for it from now on.
    pub(super) fn is_loading(&self, drv: DrvId) -> bool {
        self.loading.contains(&drv)
    }

    /// How many paths may still be asked in vain.
    fn budget(&self) -> f64 {
        FREE + SHARE * f64::from(self.asked) - f64::from(u32::try_from(self.early.len()).unwrap_or(u32::MAX))
    }

    /// How likely a drv is absent.
    fn chance(&mut self, graph: &Graph, drv: DrvId) -> f64 {
        let Some(info) = graph.info(drv) else { return 0.0 };
        // These are built wherever they are not valid.
        if !info.substitutes || info.outputs.iter().any(|output| output.path.is_none()) {
            return 1.0;
        }
        let fixed = info.fixed_output;
        let seen = self.of_mut(drv);
        if let Some(absent) = seen.absent {
            return f64::from(u8::from(absent));
        }
        let kind = match seen {
            _ if fixed => Kind::Fixed,
            Seen { above: true, .. } => Kind::Above,
            Seen { below: true, .. } => Kind::Below,
            _ => Kind::Other,
        };
        seen.kind = seen.kind.or(Some(kind));
        self.rates[kind as usize].chance()
    }

    /// Takes note of an answer about an output of a drv.
    fn learn(&mut self, graph: &Graph, drv: DrvId, presence: Presence) {
        let absent = !matches!(presence, Presence::Valid | Presence::Present(_));
        self.news += 1;
        let seen = self.of_mut(drv);
        let before = seen.absent.replace(absent || seen.absent == Some(true));
        if before.is_none()
            && let Some(kind) = seen.kind
        {
            let rate = &mut self.rates[kind as usize];
            *(if absent { &mut rate.absent } else { &mut rate.other }) += 1;
        }
        match before {
            Some(true) => {}
            _ if absent => self.mark_above(graph, drv),
            None => graph.inputs(drv).for_each(|(input, _)| self.of_mut(input).below = true),
            Some(false) => {}
        }
    }

    /// Marks all that use a drv, as far as they are no sources.
    fn mark_above(&mut self, graph: &Graph, drv: DrvId) {
        let mut work = vec![drv];
        while let Some(drv) = work.pop() {
            for user in graph.users(drv) {
                let fixed = graph.info(user).is_some_and(|info| info.fixed_output);
                if !fixed && !std::mem::replace(&mut self.of_mut(user).above, true) {
                    work.push(user);
                }
            }
        }
    }
}

impl Planner {
    /// The store does not have these paths, and caches are being asked for them. While that lasts, other paths are
    /// asked ahead.
    pub fn waits_for_caches(&mut self, paths: &[StorePath]) {
        for path in paths {
            let Some(id) = self.facts.get(path) else { continue };
            self.ahead.asked += 1;
            self.ahead.waiting.extend(self.facts.users(id));
        }
        self.ahead.news += paths.len();
    }

    /// Answers to what was asked; those to what nobody wants to know yet are held back.
    pub(super) fn learn(&mut self, graph: &Graph, answers: &[Found]) {
        for found in answers {
            let id = self.facts.intern(&found.path);
            let early = self.ahead.early.get_mut(&id);
            let makers = early.as_ref().map_or_else(|| self.facts.users(id).to_vec(), |early| vec![early.drv]);
            let now = match early {
                Some(early) if early.answer.is_none() => {
                    early.answer = Some(found.clone());
                    self.facts.is_asked(id).then(|| self.take_early(id)).flatten()
                }
                // It came twice: the first stands.
                Some(_) => None,
                None => Some(found.clone()),
            };
            for maker in makers {
                self.ahead.learn(graph, maker, found.presence);
            }
            if let Some(found) = now {
                let users = self.facts.learn(&found);
                self.touch_all(users);
            }
        }
        self.run(graph);
    }

    /// The answer that was held back, for whoever wants to know now.
    fn take_early(&mut self, id: PathId) -> Option<Found> {
        let found = self.ahead.early.get(&id)?.answer.clone()?;
        if self.facts.lets_caches(id) || found.presence == Presence::Valid {
            self.ahead.early.remove(&id);
            return Some(found);
        }
        // What caches said is not for this one, but perhaps for the next.
        Some(Found::new(found.path, Presence::Absent))
    }

    /// The questions that are not answered by what was asked ahead.
    pub(super) fn ask_rest(&mut self, graph: &Graph) -> Vec<Question> {
        let mut ask = Vec::new();
        loop {
            let mut known = Vec::new();
            for question in self.facts.questions() {
                let id = self.facts.intern(&question.path);
                match (self.ahead.early.contains_key(&id), self.take_early(id)) {
                    (true, Some(found)) => known.push(found),
                    // On its way.
                    (true, None) => {}
                    (false, _) => ask.push(question),
                }
            }
            if known.is_empty() {
                return ask;
            }
            for found in known {
                let users = self.facts.learn(&found);
                self.touch_all(users);
            }
            self.run(graph);
        }
    }

    /// Has the .drv of a node read that is needed now.
    pub(super) fn load_now(&mut self, drv: DrvId) {
        self.node(drv).load = Load::Asked;
        self.loading += 1;
        if !self.ahead.is_loading(drv) {
            self.load.push(drv);
        }
    }

    /// .drv files were read, or cannot be.
    pub(super) fn ended_loading(&mut self, drvs: &[DrvId]) {
        for drv in drvs {
            let was_ahead = self.ahead.loading.remove(drv);
            self.ahead.is_deeper |= was_ahead && self.ahead.loading.is_empty();
        }
    }

    /// What to ask ahead while caches are asked.
    pub(super) fn look_ahead(&mut self, graph: &Graph) -> Questions {
        let mut questions = Questions::default();
        // A look costs as much as there are drvs that wait.
        let is_due = self.ahead.is_deeper || self.ahead.news > 0 && self.ahead.news * 8 >= self.ahead.waiting.len();
        if !is_due {
            return questions;
        }
        (self.ahead.news, self.ahead.is_deeper) = (0, false);
        let mut waiting = std::mem::take(&mut self.ahead.waiting);
        waiting.sort_unstable();
        waiting.dedup();
        waiting.retain(|drv| self.ahead.of(*drv).absent.is_none() && !self.node(*drv).must_build);
        let budget = self.ahead.budget();
        let mut window = Window { budget, loads: budget * LOADS, heap: BinaryHeap::new(), done: HashSet::new() };
        waiting.retain(|drv| {
            let chance = self.ahead.chance(graph, *drv);
            window.push(chance, *drv);
            // Sources are not worth a second look.
            chance >= LEAST
        });
        self.ahead.waiting = waiting;
        while let Some((chance, drv)) = window.pop() {
            self.look_below(graph, chance, drv, &mut window, &mut questions);
        }
        questions
    }

    /// Asks the inputs of a drv that must be built with this chance.
    fn look_below(&mut self, graph: &Graph, chance: f64, drv: DrvId, window: &mut Window, questions: &mut Questions) {
        for (input, names) in graph.inputs(drv) {
            let Some(info) = graph.info(input) else {
                if window.loads > 0.0 && matches!(self.node(input).load, Load::No) && self.ahead.loading.insert(input) {
                    window.loads -= 1.0;
                    questions.load.push(input);
                }
                continue;
            };
            for output in info.outputs.iter().filter(|output| info.substitutes && names.contains(&output.name)) {
                let Some(path) = &output.path else { continue };
                let id = self.facts.intern(path);
                if !self.facts.is_known_of(id) && !self.ahead.early.contains_key(&id) {
                    self.ahead.early.insert(id, Early { drv: input, answer: None });
                    window.budget -= 1.0 - chance * (1.0 - RISK);
                    questions.ask.push(Question { path: path.clone(), caches: true });
                }
            }
            if !self.node(input).must_build {
                window.push(chance * self.ahead.chance(graph, input), input);
            }
        }
    }
}

/// What one look ahead may still do, and where it goes on.
struct Window {
    budget: f64,
    loads: f64,
    /// The likeliest first, in millionths; of equals the one named first.
    heap: BinaryHeap<(u32, Reverse<DrvId>)>,
    done: HashSet<DrvId>,
}

impl Window {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a chance is from 0 to 1")]
    fn push(&mut self, chance: f64, drv: DrvId) {
        if chance >= LEAST && !self.done.contains(&drv) {
            self.heap.push(((chance * 1e6) as u32, Reverse(drv)));
        }
    }

    /// The likeliest drv to be built, and how likely that is; `None` once enough is asked.
    fn pop(&mut self) -> Option<(f64, DrvId)> {
        while self.budget > 0.0 {
            let (chance, Reverse(drv)) = self.heap.pop()?;
            if self.done.insert(drv) {
                return Some((f64::from(chance) / 1e6, drv));
            }
        }
        None
    }
}
